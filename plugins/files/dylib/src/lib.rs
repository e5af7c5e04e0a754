//! CSV, NDJSON, Parquet and Arrow files as a shared library.

pipeline_sdk::plugin!(pipeline_files::plugin, ["files"]);
