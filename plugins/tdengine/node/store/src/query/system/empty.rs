//! System tables that are always empty here, with the columns of a real server (asked of 3.3.0.1).

use tdengine_wire::DataType;

use super::{BIGINT, INT, Of, TIME, memory};
use crate::query::relation::Memory;

const BOOL: Of = Of::Type(DataType::Bool);
const UINT: Of = Of::Type(DataType::UInt);
const UBIGINT: Of = Of::Type(DataType::UBigInt);

/// A table by its name.
pub(in crate::query) fn table(name: &str) -> Option<Memory> {
    let fields: &[(&str, Of)] = match name {
        "ins_views" => &[
            ("view_name", Of::Text(192)), ("db_name", Of::Text(64)), ("effective_user", Of::Text(24)),
            ("create_time", TIME), ("type", Of::Text(128)), ("query_sql", Of::Text(2048)),
            ("parameters", Of::Text(2048)), ("default_values", Of::Text(2048)), ("target_table", Of::Text(192)),
        ],
        "ins_streams" => &[
            ("stream_name", Of::Text(192)), ("create_time", TIME), ("stream_id", Of::Text(16)),
            ("history_id", Of::Text(16)), ("sql", Of::Text(2048)), ("status", Of::Text(20)),
            ("source_db", Of::Text(64)), ("target_db", Of::Text(64)), ("target_table", Of::Text(192)),
            ("watermark", BIGINT), ("trigger", Of::Text(20)), ("sink_quota", Of::Text(20)),
            ("checkpoint_interval", Of::Text(20)), ("checkpoint_backup", Of::Text(20)),
            ("history_scan_idle", Of::Text(20)),
        ],
        "ins_functions" => &[
            ("name", Of::Text(64)), ("comment", Of::Text(4095)), ("aggregate", INT), ("output_type", Of::Text(31)),
            ("create_time", TIME), ("code_len", INT), ("bufsize", INT), ("func_language", Of::Text(31)),
            ("func_body", Of::Text(65_517)), ("func_version", INT),
        ],
        "ins_qnodes" | "ins_snodes" => &[
            ("id", INT), ("endpoint", Of::Text(134)), ("create_time", TIME),
        ],
        "ins_configs" => &[
            ("name", Of::Text(32)), ("value", Of::Text(64)),
        ],
        "ins_dnode_variables" => &[
            ("dnode_id", INT), ("name", Of::Text(32)), ("value", Of::Text(64)), ("scope", Of::Text(8)),
        ],
        "ins_user_privileges" => &[
            ("user_name", Of::Text(24)), ("privilege", Of::Text(10)), ("db_name", Of::Text(65)),
            ("table_name", Of::Text(193)), ("condition", Of::Text(49_152)), ("notes", Of::Text(64)),
        ],
        "ins_vnodes" => &[
            ("dnode_id", INT), ("vgroup_id", INT), ("db_name", Of::Text(64)), ("status", Of::Text(9)),
            ("role_time", TIME), ("start_time", TIME), ("restored", BOOL),
        ],
        "perf_connections" => &[
            ("conn_id", UINT), ("user", Of::Text(24)), ("app", Of::Text(24)), ("pid", UINT),
            ("end_point", Of::Text(134)), ("login_time", TIME), ("last_access", TIME),
        ],
        "perf_queries" => &[
            ("kill_id", Of::Text(26)), ("query_id", UBIGINT), ("conn_id", UINT), ("app", Of::Text(24)), ("pid", INT),
            ("user", Of::Text(24)), ("end_point", Of::Text(22)), ("create_time", TIME), ("exec_usec", BIGINT),
            ("stable_query", BOOL), ("sub_query", BOOL), ("sub_num", INT), ("sub_status", Of::Text(1000)),
            ("sql", Of::Text(2048)),
        ],
        "perf_trans" => &[
            ("id", INT), ("create_time", TIME), ("stage", Of::Text(12)), ("oper", Of::Text(14)), ("db", Of::Text(64)),
            ("stable", Of::Text(192)), ("failed_times", INT), ("last_exec_time", TIME),
            ("last_action_info", Of::Text(511)),
        ],
        "perf_apps" => &[
            ("app_id", UBIGINT), ("ip", Of::Text(16)), ("pid", INT), ("name", Of::Text(24)), ("start_time", TIME),
            ("insert_req", UBIGINT), ("insert_row", UBIGINT), ("insert_time", UBIGINT), ("insert_bytes", UBIGINT),
            ("fetch_bytes", UBIGINT), ("query_time", UBIGINT), ("slow_query", UBIGINT), ("total_req", UBIGINT),
            ("current_req", UBIGINT), ("last_access", TIME),
        ],
        _ => return None,
    };
    Some(memory(fields, Vec::new()))
}
