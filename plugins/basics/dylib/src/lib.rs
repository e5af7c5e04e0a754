//! The basics as a shared library.

pipeline_sdk::plugin!(pipeline_basics::plugin, ["generate", "select", "where", "route", "dedupe", "sample", "throttle", "delay", "fault", "blackhole"]);
