//! `include/pipeline_plugin.h` and `abi::types` are the same structs: a C compiler prints the header's sizes and offsets.

use std::mem::offset_of;
use std::process::Command;

use pipeline_sdk::abi::types::*;

#[test]
fn the_header_has_the_layout_of_the_rust_structs() {
    let mut expected = Vec::new();
    let mut program = String::from("#include <stdio.h>\n#include \"pipeline_plugin.h\"\nint main(void) {\n");
    macro_rules! layout {
        ($rust:ty, $c:literal, $($rust_field:ident = $c_field:literal),*) => {
            expected.push(format!("{} {}", $c, size_of::<$rust>()));
            program += concat!("printf(\"", $c, " %zu\\n\", sizeof(", $c, "));\n");
            $(
                expected.push(format!("{}.{} {}", $c, $c_field, offset_of!($rust, $rust_field)));
                program += concat!(
                    "printf(\"", $c, ".", $c_field, " %zu\\n\", offsetof(", $c, ", ", $c_field, "));\n"
                );
            )*
        };
    }
    layout!(Slice, "pl_slice", data = "data", len = "len");
    layout!(Buffer, "pl_buffer", data = "data", len = "len", owner = "owner", release = "release");
    layout!(RunSlice, "pl_run", first_row = "first_row", namespace = "namespace_", labels = "labels");
    layout!(MessageRaw, "pl_message", kind = "kind", flags = "flags", tables = "tables", lane = "lane",
        sequence = "sequence", position = "position", position_display = "position_display",
        position_number = "position_number", site = "site", events_from = "events_from", namespace = "namespace_",
        rows = "rows", format = "format", data = "data", change = "change", schema_id = "schema_id",
        schema = "schema", array = "array", runs = "runs", run_count = "run_count",
        replayed_rows = "replayed_rows");
    layout!(Messages, "pl_messages", items = "items", len = "len", owner = "owner", release = "release");
    layout!(OutputRaw, "pl_output", status = "status", kind = "kind", count = "count", bytes = "bytes",
        messages = "messages");
    layout!(WakerTable, "pl_waker_table", clone = "clone", wake = "wake", wake_by_ref = "wake_by_ref", drop = "drop");
    layout!(WakerRaw, "pl_waker", data = "data", table = "table");
    layout!(FutureRaw, "pl_future", state = "state", poll = "poll", drop = "drop");
    layout!(SourceTable, "pl_source_table", interrupt = "interrupt", connect = "connect", next = "next", commit = "commit",
        progress = "progress", destroy = "destroy");
    layout!(TransformTable, "pl_transform_table", apply = "apply", barrier = "barrier", destroy = "destroy");
    layout!(SinkTable, "pl_sink_table", connect = "connect", write = "write", flush = "flush", destroy = "destroy");
    layout!(ServiceTable, "pl_service_table", run = "run", stop = "stop", destroy = "destroy");
    layout!(SiteTable, "pl_site_table", call = "call", destroy = "destroy");
    layout!(InstanceRaw, "pl_instance", kind = "kind", instance = "instance", table = "table");
    layout!(HostTable, "pl_host", context = "context", log = "log", counter = "counter", gauge = "gauge",
        incident = "incident", state_get = "state_get", state_put = "state_put", state_keys = "state_keys",
        is_cancelled = "is_cancelled", ready = "ready", release = "release");
    layout!(Root, "pl_root", abi_major = "abi_major", abi_minor = "abi_minor", description = "description",
        lint = "lint", create = "create", discover = "discover", decode = "decode");
    program += "return 0; }\n";

    let folder = tempfile::tempdir().unwrap();
    let (source, binary) = (folder.path().join("layout.c"), folder.path().join("layout"));
    std::fs::write(&source, program).unwrap();
    let include = concat!(env!("CARGO_MANIFEST_DIR"), "/include");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-I", include, "-o"])
        .arg(&binary)
        .arg(&source)
        .output()
        .expect("a C compiler is needed for this test: install gcc or clang");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let printed = Command::new(&binary).output().unwrap().stdout;
    assert_eq!(String::from_utf8(printed).unwrap().lines().collect::<Vec<_>>(), expected);
}
