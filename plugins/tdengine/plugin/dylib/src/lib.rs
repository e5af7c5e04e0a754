//! TDengine components as a shared library.

pipeline_sdk::plugin!(pipeline_tdengine::plugin, ["tdengine-tmq", "tdengine", "tdengine-meters"]);
