//! The loop-marking filter as a shared library.

pipeline_sdk::plugin!(pipeline_loop_mark::plugin, ["loop-mark"]);
