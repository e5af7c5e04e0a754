//! HTTP requests as source and sink as a shared library.

pipeline_sdk::plugin!(pipeline_http::plugin, ["http"]);
