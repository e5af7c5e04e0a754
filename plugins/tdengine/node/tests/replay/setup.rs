//! What each recording's server held before it began. The statements were not recorded; these give the same state.

/// Statements in order. Names of databases are those of the recording.
pub fn statements(name: &str) -> Vec<String> {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    match name {
        "a1-connect-adapter3301" => all_types("rb_ms", "ms", 1, &["c1"]),
        "a2-auth-errors" => lines(&["create database s1"]),
        "a3-rest" => lines(&[
            "create database s1",
            "create table s1.t (ts timestamp, v int)",
            "insert into s1.t values (1795426889554, 1)",
        ]),
        "b1-types-ms" | "b2-types-ms-oldfetch" | "b4-client-queries" => all_types("rb_ms", "ms", 1, &["c1", "c2", "sj"]),
        "b1-types-us" | "b2-types-us-oldfetch" => all_types("rb_us", "us", 1_000, &["c1", "c2", "sj"]),
        "b1-types-ns" | "b2-types-ns-oldfetch" => all_types("rb_ns", "ns", 1_000_000, &["c1", "c2", "sj"]),
        "b3-multiblock" => big(),
        "errors" => lines(&[
            "create database re vgroups 1",
            "create stable re.st (ts timestamp, a int, v varchar(4), n nchar(4)) tags (t int, tv varchar(4))",
            "create table re.c1 using re.st tags (1, 'a')",
            "create table re.n1 (ts timestamp, a int)",
        ]),
        "c1-subscribe" => lines(&[
            "create database rc1 vgroups 2",
            "create topic t_rc1b with meta as database rc1",
        ]),
        "c1-tmq-adapter3301" => lines(&[
            "create database r301 vgroups 1",
            "create table r301.nt (ts timestamp, a int)",
            "create topic t_r301 with meta as database r301",
            "insert into r301.nt values (1700000000000, 1)",
            "insert into r301.nt values (1700000000001, 5)",
        ]),
        "c2-data-ms-fetch" | "c2-data-ms-raw" | "c2-data-ms-rawdata" | "c2-fetch-errors" => data("rc2ms", "ms", 1),
        "c2-data-ns-fetch" | "c2-data-ns-rawdata" => data("rc2ns", "ns", 1_000_000),
        "c3-meta" => {
            lines(&["create database rc3 vgroups 1", "create topic t_rc3 with meta as database rc3", "use rc3"])
        }
        "c4-offsets" => offsets(),
        "c6-redelivery" => lines(&[
            "create database e15 vgroups 1",
            "create table e15.nt (ts timestamp, a int)",
            "create topic t_e15 with meta as database e15",
            "insert into e15.nt values (1700000000000, 0)",
        ]),
        "d1-write-raw" => lines(&["create database rd"]),
        "d2-write-raw-errors" | "d4-write-metadata" => {
            lines(&["create database rd", "create database rdus precision 'us'"])
        }
        "d3-write-block" => lines(&[
            "create database rd",
            "create database rdus precision 'us'",
            "create stable rd.st (ts timestamp, a int, v varchar(8), d double) tags (t int)",
        ]),
        "e1-stmt" => lines(&[
            "create database rx",
            "create stable rx.st (ts timestamp, i int, v varchar(10), n nchar(10), d double, b bool) tags (t int, s varchar(10))",
        ]),
        "e2-schemaless" => lines(&[
            "create database rx",
            "create stable rx.st (ts timestamp, i int) tags (t int)",
        ]),
        "f2-python-stmt" => lines(&["create database pyq vgroups 1"]),
        "f5-jdbc-stmt" => lines(&[
            "create database jq vgroups 1",
            "create table jq.t (ts timestamp, i int, v varchar(20), n nchar(10), b bool, d double)",
        ]),
        _ => Vec::new(),
    }
}

/// The tables of recordings b1, b2 and c2; `unit` is the number of units in a millisecond.
fn all_types(database: &str, precision: &str, unit: i64, parts: &[&str]) -> Vec<String> {
    let base = 1_700_000_000_000 * unit;
    let mut lines = vec![
        format!("create database {database} precision '{precision}' vgroups 1"),
        format!("use {database}"),
        "create stable st (ts timestamp, b bool, i8 tinyint, i16 smallint, i32 int, i64 bigint, u8 tinyint unsigned, \
         u16 smallint unsigned, u32 int unsigned, u64 bigint unsigned, f float, d double, vc varchar(40), nc nchar(20), \
         vb varbinary(20), g geometry(64), ts2 timestamp) tags (tb bool, t8 tinyint, t16 smallint, t32 int, t64 bigint, \
         tu8 tinyint unsigned, tu16 smallint unsigned, tu32 int unsigned, tu64 bigint unsigned, tf float, td double, \
         tvc varchar(40), tnc nchar(20), tvb varbinary(20), tg geometry(64), tts timestamp)"
            .to_owned(),
        format!(
            "create table c1 using st tags (true, -128, -32768, -2147483648, -9223372036854775808, 255, 65535, \
             4294967295, 18446744073709551615, 1.5, -2.5, 'tag \\'q\\' \"dq\" 涛', ' 涛思 ', '\\xDEADBEEF', 'POINT(1 2)', {base})"
        ),
        "create table c2 using st tags (null, null, null, null, null, null, null, null, null, null, null, null, null, \
         null, null, null)"
            .to_owned(),
        format!(
            "insert into c1 values ({base}, false, -128, -32768, -2147483648, -9223372036854775808, 0, 0, 0, 0, \
             -3.4028234663852886e38, -1.7976931348623157e308, '', '', '', 'POINT(0 0)', 0) ({}, true, 127, 32767, \
             2147483647, 9223372036854775807, 255, 65535, 4294967295, 18446744073709551615, 3.4028234663852886e38, \
             1.7976931348623157e308, '0123456789012345678901234567890123456789', '涛思数据🚀', '\\x00FF10', \
             'LINESTRING(0 0, 1 1)', {base}) ({}, null, null, null, null, null, null, null, null, null, null, null, null, \
             null, null, null, null) ({}, true, 0, 0, 0, 0, 0, 0, 0, 0, 0.1, 0.1, 'it\\'s \\\\ \\n \"x\" 😀', 'é ü ß', \
             'a', 'POINT(-1.5 1000)', -1)",
            base + 1,
            base + 2,
            base + 3
        ),
    ];
    if parts.contains(&"c2") {
        lines.push(format!("insert into c2 (ts, i32, vc) values ({}, 1, 'partial')", base + 10));
    }
    if parts.contains(&"sj") {
        lines.push("create stable sj (ts timestamp, v int) tags (j json)".to_owned());
        lines.push(r#"create table j1 using sj tags ('{"a":1,"b":"涛","c":null,"d":true,"e":1.5}')"#.to_owned());
        lines.push("create table j2 using sj tags (null)".to_owned());
        lines.push(format!("insert into j1 values ({base}, 1) j2 values ({base}, 2)"));
    }
    lines
}

/// The log of recordings c2.
fn data(database: &str, precision: &str, unit: i64) -> Vec<String> {
    let at = |offset: i64| 1_700_000_000_000 * unit + offset;
    let mut lines = all_types(database, precision, unit, &["c1", "c2", "sj"]);
    lines.insert(1, format!("create topic t_{database} with meta as database {database}"));
    lines.push("create table nt (ts timestamp, a int, b int, c varchar(8), d double)".to_owned());
    lines.extend([
        format!("insert into nt (ts, a) values ({}, 1)", at(0)),
        format!("insert into nt (ts, b, c) values ({}, 2, 'x')", at(0)),
        format!("insert into nt values ({}, 1, null, 'y', 1.5)", at(1)),
        format!("insert into nt (ts, d) values ({}, 9.5) ({}, 8.5)", at(0), at(2)),
        format!("insert into c2 (ts, i32) values ({}, 7) nt values ({}, 1, 1, 'z', 1)", at(20), at(3)),
        format!(
            "insert into ac1 using st (t32, tvc) tags (5, 'auto') (ts, i32) values ({}, 5) \
             ac2 using st (t32) tags (6) (ts, vc) values ({}, 'six') ({}, '6')",
            at(30),
            at(31),
            at(32)
        ),
        format!("insert into ac1 using st (t32, tvc) tags (5, 'auto') (ts, i32) values ({}, 6)", at(33)),
    ]);
    lines
}

/// Ten thousand rows that count up to 99 again and again.
fn big() -> Vec<String> {
    let mut lines = vec!["create database rb_ms vgroups 1".to_owned(), "create table rb_ms.big (ts timestamp, v tinyint)".to_owned()];
    lines.extend((0..10).map(|part| {
        let rows = (0..1_000).map(|row| format!("({}, {})", 1_700_000_000_000i64 + part * 1_000 + row, row % 100));
        format!("insert into rb_ms.big values {}", rows.collect::<Vec<_>>().join(" "))
    }));
    lines
}

/// Two vgroups whose lanes hold what recording c4 shows.
fn offsets() -> Vec<String> {
    let mut lines = vec![
        "create database rc4 vgroups 2".to_owned(),
        "use rc4".to_owned(),
        "create topic t_rc4 with meta as database rc4".to_owned(),
        "create stable st (ts timestamp, v int) tags (t int)".to_owned(),
    ];
    lines.extend((0..4).map(|table| format!("create table c{table} using st tags ({table})")));
    lines.extend((0..6).map(|row| format!("insert into c{} values ({}, {row})", row % 4, 1_700_000_000_000i64 + row)));
    lines
}
