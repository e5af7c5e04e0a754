//! PostgreSQL as a sink, as a shared library.

pipeline_sdk::plugin!(pipeline_postgres::plugin, ["postgres"]);
