//! The embedded node as a shared library.

pipeline_sdk::plugin!(tdengine_node::plugin, ["tdengine-node"]);
