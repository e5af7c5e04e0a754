//! The plugin as a shared library.

pipeline_sdk::plugin!(pipeline_sql::plugin, ["sql"]);
