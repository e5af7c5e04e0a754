//! The sink `postgres` against PostgreSQL.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Decimal256Array, DurationSecondArray, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int64Array, ListArray, RecordBatch, StringArray, Time64MicrosecondArray, TimestampMillisecondArray, UInt64Array,
};
use arrow::datatypes::{Int32Type, i256};
use pipeline_tests::{Process, Scene, free_port};

use crate::rig::{LIMIT, check_plugin, ends_well, example, program, rows_in, run, run_file, start, wait_for};

const PASSWORD: &str = "p@ss/w:rd";
const INSTALL: &str = "install postgresql";
/// `nobody`: the server refuses to run as root.
const ORDINARY_USER: u32 = 65_534;

/// A server of its own, with a socket in its folder.
struct Postgres {
    folder: tempfile::TempDir,
    port: u16,
    settings: Vec<String>,
    server: Option<Process>,
}

/// A program of the newest server that is installed.
fn postgres_program(name: &str) -> PathBuf {
    let folders: Vec<PathBuf> = (13..30).rev().map(|version| format!("/usr/lib/postgresql/{version}/bin").into()).collect();
    program(name, &folders, INSTALL)
}

/// Makes a command run as an ordinary user where this process is root's, and gives it the folder.
fn as_ordinary_user(command: &mut Command, folder: &Path) {
    if run(Command::new("id").arg("-u")).trim() == "0" {
        std::os::unix::fs::chown(folder, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("root may give a folder away");
        command.uid(ORDINARY_USER).gid(ORDINARY_USER);
    }
}

impl Postgres {
    fn start(settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = settings.iter().map(|it| (*it).to_owned()).collect();
        let mut postgres = Self { folder, port: free_port().unwrap(), settings, server: None };
        std::fs::write(postgres.path("password"), PASSWORD).unwrap();
        let mut initdb = postgres.command("initdb");
        initdb.args(["--auth=scram-sha-256", "--username=pipeline", "--encoding=UTF8", "--locale=C", "--no-sync", "-D"]);
        run(initdb.arg(postgres.path("data")).arg("--pwfile").arg(postgres.path("password")));
        postgres.begin();
        postgres
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(postgres_program(name));
        as_ordinary_user(&mut command, self.folder.path());
        command.current_dir(self.folder.path());
        command
    }

    fn begin(&mut self) {
        let folder = self.folder.path().display().to_string();
        let log = self.path("log");
        let is_there = || {
            // What a killed one left behind may need a moment to go.
            if !self.server.as_mut().is_some_and(Process::is_running) {
                let mut command = self.command("postgres");
                command.args(["-D", "data", "-p", &self.port.to_string(), "-k", &folder]);
                command.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
                for setting in &self.settings {
                    command.args(["-c", setting]);
                }
                self.server = Some(Process::spawn(command, &log).unwrap());
            }
            self.try_sql("select 1").is_some()
        };
        wait_for("PostgreSQL starts", is_there, || std::fs::read_to_string(&log).unwrap_or_default());
    }

    /// kill -9, and a start.
    fn kill_and_start(&mut self) {
        self.server.take().unwrap().kill().unwrap();
        self.begin();
    }

    fn url(&self) -> String {
        format!("postgres://pipeline@127.0.0.1:{}/postgres", self.port)
    }

    fn psql(&self, sql: &str) -> Command {
        let mut command = Command::new(program("psql", &[], INSTALL));
        command.env("PGPASSWORD", PASSWORD).args(["-XAtq", "-d", &self.url(), "-c", sql]);
        command
    }

    fn try_sql(&self, sql: &str) -> Option<String> {
        let output = self.psql(sql).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    #[track_caller]
    fn sql(&self, sql: &str) -> String {
        run(&mut self.psql(sql)).trim().to_owned()
    }

    fn scene(&self) -> Scene {
        Scene { environment: vec![("PGPASSWORD", PASSWORD.into()), ("POSTGRES", self.url())], ..Scene::new() }
    }
}

/// A pipeline from a source to a table.
fn pipeline(source: &str, sink: &str) -> String {
    format!("[pipeline.p]\nsource = {source}\nsink = {{ type = \"postgres\", url = \"${{POSTGRES}}\", password = \"${{PGPASSWORD}}\", {sink} }}\n")
}

#[test]
fn rows_are_there_as_they_should_be() {
    let postgres = Postgres::start(&[]);
    std::thread::scope(|scope| {
        for case in [the_example, every_type, what_is_rejected, upserts, what_is_wrong, tables_that_change, conforms] {
            let postgres = &postgres;
            scope.spawn(move || case(postgres));
        }
    });
}

fn the_example(postgres: &Postgres) {
    let scene = postgres.scene();
    let rows: String = (0..5_000).map(|n| format!("2026-01-01T00:00:{:02}.{:03},{},site {},{}\n", n / 1000, n % 1000, n % 7, n % 2, n)).collect();
    scene.write("data/meters.csv", format!("ts,device,location,current\n{rows}"));
    run_example(&scene);
    assert_eq!(postgres.sql("select count(*), count(distinct ts), sum(current) from meters"), "5000|5000|12497500");
    // Once more from the start: the key keeps it at one row each.
    std::fs::remove_dir_all(scene.path(".pipeline")).ok();
    run_example(&scene);
    assert_eq!(postgres.sql("select count(*) from meters"), "5000");
}

fn run_example(scene: &Scene) {
    let (exit, output) = run_file(scene, "csv-to-postgres.toml", &example("csv-to-postgres.toml"), &[]);
    assert_eq!(exit, Some(0), "{output}");
}

fn write_arrow(path: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, column)| (name, column, true))).unwrap();
    let mut writer = arrow_ipc::writer::FileWriter::try_new(std::fs::File::create(path).unwrap(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
}

fn every_type(postgres: &Postgres) {
    let scene = postgres.scene();
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None]);
    let decimal = Decimal128Array::from(vec![Some(-1_234_567), None]).with_precision_and_scale(10, 4).unwrap();
    let wide = Decimal256Array::from(vec![Some(i256::from_string(&format!("1{}5", "0".repeat(50))).unwrap()), None]).with_precision_and_scale(60, 1).unwrap();
    let wide_text = format!("1{}.5", "0".repeat(50));
    let uuid = FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([0xab; 16]), None].into_iter(), 16).unwrap();
    let columns: Vec<(&str, ArrayRef, &str, &str)> = vec![
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None])), "boolean", "true"),
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MIN), None])), "bigint", "-9223372036854775808"),
        ("u", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None])), "numeric(20,0)", "18446744073709551615"),
        ("f", Arc::new(Float32Array::from(vec![Some(0.1), None])), "real", "0.1"),
        ("d", Arc::new(Float64Array::from(vec![Some(f64::NAN), None])), "double precision", "NaN"),
        ("n", Arc::new(decimal), "numeric(10,4)", "-123.4567"),
        ("w", Arc::new(wide), "numeric(60,1)", &wide_text),
        ("t", Arc::new(StringArray::from(vec![Some("Zürich 😀"), None])), "text", "Zürich 😀"),
        ("y", Arc::new(BinaryArray::from(vec![Some(&b"\0\xff"[..]), None])), "bytea", "\\x00ff"),
        ("day", Arc::new(Date32Array::from(vec![Some(-1), None])), "date", "1969-12-31"),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![Some(3_600_000_001), None])), "time without time zone", "01:00:00.000001"),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None])), "timestamp without time zone", "1969-12-31 23:59:59.999"),
        ("tz", Arc::new(TimestampMillisecondArray::from(vec![Some(1_767_225_600_001), None]).with_timezone("+02:00")), "timestamp with time zone", "2026-01-01 00:00:00.001+00"),
        ("span", Arc::new(DurationSecondArray::from(vec![Some(-90), None])), "interval", "-00:01:30"),
        ("list", Arc::new(list), "jsonb", "[1, null]"),
        ("raw", Arc::new(uuid), "bytea", "\\xabababababababababababababababab"),
    ];
    write_arrow(&scene.path("types.arrow"), columns.iter().map(|(name, column, ..)| (*name, column.clone())).collect());
    let (exit, output) = run_file(&scene, "types.toml", &pipeline("{ type = \"files\", path = \"types.arrow\" }", "table = \"types\""), &[]);
    assert_eq!(exit, Some(0), "{output}");
    for (name, _, data_type, value) in &columns {
        let sql = format!("set timezone = 'UTC'; select format_type(atttypid, atttypmod) from pg_attribute where attrelid = 'types'::regclass and attname = '{name}'");
        assert_eq!(postgres.sql(&sql), *data_type, "{name}");
        let sql = format!("set timezone = 'UTC'; select count(*) filter (where \"{name}\" is null), max(\"{name}\"::text) from types");
        assert_eq!(postgres.sql(&sql), format!("1|{value}"), "{name}");
    }
    // Into a table of other types: what holds every value is filled, what does not is said.
    postgres.sql("create type mood as enum ('good', 'bad'); create table others (i numeric, t mood, raw uuid, ts timestamptz, list json, b bigint)");
    let some = |names: &[&str]| columns.iter().filter(|it| names.contains(&it.0)).map(|it| (it.0, it.1.clone())).collect::<Vec<_>>();
    write_arrow(&scene.path("some.arrow"), some(&["i", "raw", "ts", "list"]));
    let into = |file: &str| run_file(&scene, "others.toml", &pipeline(&format!("{{ type = \"files\", path = \"{file}\" }}"), "table = \"others\""), &[]);
    assert_eq!(into("some.arrow").0, Some(0));
    assert_eq!(
        postgres.sql("set timezone = 'UTC'; select i, raw, ts, list from others where i is not null"),
        "-9223372036854775808|abababab-abab-abab-abab-abababababab|1969-12-31 23:59:59.999+00|[1,null]"
    );
    write_arrow(&scene.path("b.arrow"), some(&["b"]));
    let (exit, output) = into("b.arrow");
    assert!(exit == Some(3) && output.contains("column `b` (bigint) of public.others: Boolean cannot be held by it"), "{exit:?} {output}");
}

fn what_is_rejected(postgres: &Postgres) {
    let scene = postgres.scene();
    postgres.sql("create table checked (id bigint primary key, v integer check (v < 1000), t varchar(5))");
    // Twice the same key; against the check; out of range; too long; against the encoding. The others are written.
    let bad = [(7, "7", "x"), (20, "2000", "x"), (21, "3000000000", "x"), (22, "1", "too long"), (23, "1", "a\0b"), (24, "2000", "x")];
    let rows = (0..20).map(|n| (n, "1", "x")).chain(bad);
    let text: String = rows.map(|(id, v, t)| serde_json::json!({ "id": id, "v": v.parse::<i64>().unwrap(), "t": t }).to_string() + "\n").collect();
    scene.write("rows.ndjson", text);
    let file = pipeline("{ type = \"files\", path = \"rows.ndjson\" }", "table = \"checked\", on-error = \"dead-letter\"");
    let file = format!("{file}dead-letter = {{ type = \"files\", name = \"letters\", path = \"letters/rows.ndjson\" }}\n");
    let (exit, output) = run_file(&scene, "rejected.toml", &file, &[]);
    assert_eq!(exit, Some(0), "{output}");
    assert_eq!(postgres.sql("select count(*), max(id) from checked"), "20|19");
    let letters = rows_in(&scene.path("letters"));
    assert_eq!(letters.lines().count(), bad.len(), "{letters}");
    for (id, reason) in [
        (7, "duplicate key value violates unique constraint"),
        (20, "violates check constraint"),
        (24, "violates check constraint"),
        (21, "a value is out of range"),
        (22, "value too long for type character varying(5)"),
        (23, "invalid byte sequence for encoding"),
    ] {
        let is_it = |line: &&str| line.contains(&format!("\"id\":{id},")) && line.contains(reason);
        assert!(letters.lines().any(|line| is_it(&line)), "{id} {reason}\n{letters}");
    }
    // Without a dead letter the first of them stops the task, and says which row.
    let (exit, output) = run_file(&scene, "stopped.toml", &pipeline("{ type = \"files\", path = \"rows.ndjson\" }", "table = \"checked\"").replace("rows.ndjson", "./rows.ndjson"), &[]);
    assert!(exit == Some(3) && output.contains("row 2"), "{exit:?} {output}");
}

fn upserts(postgres: &Postgres) {
    let scene = postgres.scene();
    let line = |id: i64, rest: &str| format!("{{\"id\":{id},\"part\":\"p\"{rest}}}\n");
    let upsert = "table = \"merged\", mode = \"upsert\", key = [\"id\", \"part\"], add-columns = true";
    let run = |name: &str, text: String| {
        scene.write(&format!("{name}.ndjson"), text);
        let (exit, output) = run_file(&scene, &format!("{name}.toml"), &pipeline(&format!("{{ type = \"files\", path = \"{name}.ndjson\" }}"), upsert), &[]);
        assert_eq!(exit, Some(0), "{output}");
    };
    // Of one key in one batch the last counts.
    run("first", line(1, ",\"a\":1,\"b\":1") + &line(2, ",\"a\":2,\"b\":2") + &line(1, ",\"a\":3,\"b\":3"));
    // A column that does not come stays; one that is new is added.
    run("second", line(1, ",\"b\":9,\"c\":\"new\""));
    assert_eq!(postgres.sql("select id, a, b, c from merged order by id"), "1|3|9|new\n2|2|2|");
    let key = "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'merged'::regclass";
    assert_eq!(postgres.sql(key), "PRIMARY KEY (id, part)");
    // A NULL in the key is no key.
    scene.write("null.ndjson", line(5, ",\"a\":1") + "{\"id\":null,\"part\":\"p\",\"a\":1}\n");
    let (exit, output) = run_file(&scene, "null.toml", &pipeline("{ type = \"files\", path = \"null.ndjson\" }", upsert), &[]);
    assert!(exit == Some(3) && output.contains("row 1: column `id`") && output.contains("a part of the key is NULL"), "{output}");
    // No index over the key.
    postgres.sql("create table bare (id bigint)");
    let bare = "table = \"bare\", mode = \"upsert\", key = [\"id\"]";
    let (exit, output) = run_file(&scene, "bare.toml", &pipeline("{ type = \"generate\", rows = 3, columns = [{ name = \"id\", type = \"sequence\" }] }", bare), &[]);
    assert!(exit == Some(1) && output.contains("make a unique index over the columns of `key`"), "{exit:?} {output}");
}

fn what_is_wrong(postgres: &Postgres) {
    let scene = postgres.scene();
    let source = "{ type = \"generate\", rows = 3 }";
    let port = postgres.port.to_string();
    postgres.sql("create role reader login password 'readers-secret'");
    // Exit code, and what is said; the password never is.
    for (name, change, exit, said) in [
        ("password", ("${PGPASSWORD}", "not-this-one"), 1, "password authentication failed"),
        ("database", ("${POSTGRES}", format!("postgres://pipeline@127.0.0.1:{port}/absent").leak() as &str), 1, "database \"absent\" does not exist"),
        ("schema", ("table =", "schema = \"absent\", table ="), 1, "schema \"absent\" does not exist"),
        ("no-table", ("table =", "create-table = false, table ="), 1, "there is no table public.wrong"),
        ("column", ("\"wrong\"", "\"wrong_columns\""), 3, "has no column `ts`, `device`, `value`"),
        ("address", ("${POSTGRES}", "no address"), 2, "this is no address of a server"),
        ("key", ("table =", "key = [\"id\"], table ="), 2, "rows that are appended have no key"),
        ("upsert", ("table =", "mode = \"upsert\", table ="), 2, "`upsert` needs to know which rows are the same"),
        ("name", ("\"wrong\"", "\"\""), 2, "is no name"),
    ] {
        postgres.sql("create table if not exists wrong_columns (id bigint)");
        let text = pipeline(source, "table = \"wrong\"").replace(change.0, change.1);
        let (code, output) = run_file(&scene, &format!("{name}.toml"), &text, &[]);
        assert_eq!(code, Some(exit), "{name}: {output}");
        assert!(output.contains(said) && output.contains("hint: "), "{name}: {output}");
        assert!(!output.contains(PASSWORD) && !output.contains("not-this-one"), "a password is printed: {output}");
    }
    assert_eq!(postgres.sql("select to_regclass('wrong') is null"), "t");
}

fn tables_that_change(postgres: &Postgres) {
    let scene = postgres.scene();
    let columns = "columns = [{ name = \"id\", type = \"sequence\" }, { name = \"v\", type = \"int\", min = 0, max = 9 }]";
    let source = format!("{{ type = \"generate\", rows = 20000, rate = 4000, batch-rows = 500, {columns} }}");
    let mut run = start(&scene, "change.toml", &pipeline(&source, "table = \"changing\""), &[]);
    let count = || postgres.try_sql("select count(*) from changing").and_then(|it| it.parse::<u64>().ok()).unwrap_or_default();
    wait_for("rows come", || count() > 500, || run.output());
    // Under way: a wider type, and a column more in front of the others' end.
    postgres.sql("alter table changing alter v type numeric");
    postgres.sql("alter table changing add w text default 'w'");
    ends_well(&mut run);
    assert_eq!(postgres.sql("select count(*), count(distinct id), count(*) filter (where v between 0 and 9) from changing"), "20000|20000|20000");
}

fn conforms(postgres: &Postgres) {
    let scene = postgres.scene();
    let (port, psql) = (postgres.port, program("psql", &[], INSTALL));
    let passed = check_plugin(
        &scene,
        "postgres",
        &format!(
            "[sink.postgres]\nurl = \"{url}\"\npassword = \"{PASSWORD}\"\ntable = \"{{folder}}\"\nadd-columns = true\n\
             [kit.sink.postgres]\nunreachable = {{ url = \"postgres://pipeline@127.0.0.1:1/postgres\" }}\n\
             bad = [{{ url = \"\" }}, {{ table = \"\" }}, {{ mode = \"upsert\" }}, {{ key = [\"id\"] }}]\n\
             observe = {{ command = [\"{psql}\", \"-XAtq\", \"-d\", \"postgres://pipeline:{encoded}@127.0.0.1:{port}/postgres\", \"-c\", \
             \"select text from \\\"{{folder}}\\\"\"] }}\n",
            url = postgres.url(),
            psql = psql.display(),
            encoded = "p%40ss%2Fw%3Ard",
        ),
        &[],
    );
    assert!(passed >= 15, "{passed}");
}

#[test]
fn nothing_is_lost_when_the_server_or_the_pipeline_is_killed() {
    const ROWS: u64 = 60_000;
    let mut postgres = Postgres::start(&[]);
    let scene = postgres.scene();
    let columns = "columns = [{ name = \"id\", type = \"sequence\" }, { name = \"device\", type = \"text\", values = 9 }]";
    let text = |table: &str, more: &str| {
        let source = format!("{{ type = \"generate\", rows = {ROWS}, rate = 15000, batch-rows = 100, {columns} }}");
        let settings = "checkpoint-interval = \"200ms\"\nretry-delay-min = \"50ms\"\nretry-delay-max = \"500ms\"\n";
        pipeline(&source, &format!("table = \"{table}\"{more}")).replace("[pipeline.p]\n", &format!("[pipeline.{table}]\n{settings}"))
    };
    let files = [("added", text("added", "")), ("merged", text("merged", ", mode = \"upsert\", key = [\"id\"]"))];
    let start_all = |files: &[(&str, String)]| files.iter().map(|(name, text)| start(&scene, &format!("{name}.toml"), text, &[])).collect::<Vec<_>>();
    let mut runs = start_all(&files);
    let said = |runs: &[Process]| runs.iter().map(Process::output).collect::<String>();
    let counts = |postgres: &Postgres| ["added", "merged"].map(|it| postgres.try_sql(&format!("select count(*) from {it}")).and_then(|it| it.parse::<u64>().ok()).unwrap_or_default());
    wait_for("rows come", || counts(&postgres).iter().all(|count| *count > 5_000), || said(&runs));
    postgres.kill_and_start();
    let before = counts(&postgres);
    wait_for("rows come again", || counts(&postgres).iter().zip(before).all(|(now, before)| *now > before + 2_000), || said(&runs));
    // The administrator ends the connections: 57P01.
    postgres.sql("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'pipeline %'");
    runs.drain(..).for_each(|run| run.kill().unwrap());
    let mut runs = start_all(&files);
    for run in &mut runs {
        ends_well(run);
    }
    let all = |table: &str| postgres.sql(&format!("select count(distinct id), min(id), max(id) from {table}"));
    let first = postgres.sql("select min(id) from added").parse::<u64>().unwrap();
    let expected = format!("{ROWS}|{first}|{}", first + ROWS - 1);
    assert_eq!([all("added"), all("merged")], [expected.clone(), expected]);
    assert_eq!(postgres.sql("select count(*) from merged"), ROWS.to_string());
}

#[test]
fn a_connection_is_encrypted_and_the_certificate_checked() {
    let keys = tempfile::tempdir().unwrap();
    for name in ["server", "other"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        std::fs::write(keys.path().join(format!("{name}.crt")), made.cert.pem()).unwrap();
        std::fs::write(keys.path().join(format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
    }
    // The key must be the server's own, and nobody else's.
    let mut give = Command::new("chmod");
    run(give.arg("600").arg(keys.path().join("server.key")));
    let mut owner = Command::new("true");
    for file in ["server.key", "server.crt"] {
        as_ordinary_user(&mut owner, &keys.path().join(file));
    }
    as_ordinary_user(&mut owner, keys.path());
    let file = |name: &str| keys.path().join(name).display().to_string();
    let postgres = Postgres::start(&["ssl=on", &format!("ssl_cert_file={}", file("server.crt")), &format!("ssl_key_file={}", file("server.key"))]);
    let scene = postgres.scene();
    let attempt = |name: &str, more: &str| {
        let text = pipeline("{ type = \"generate\", rows = 3 }", &format!("table = \"{name}\"{more}"));
        run_file(&scene, &format!("{name}.toml"), &text.replace("[pipeline.p]\n", "[pipeline.p]\nretry-delay-min = \"10ms\"\nreconnect-attempts-max = 2\n"), &[])
    };
    let encrypted = "select bool_and(ssl) from pg_stat_ssl join pg_stat_activity using (pid) where application_name like 'pipeline %'";
    let slow = pipeline("{ type = \"generate\", rate = 10 }", "table = \"slow\"");
    let mut run = start(&scene, "slow.toml", &slow, &[]);
    wait_for("the connection is encrypted where the server can", || postgres.sql(encrypted) == "t", || run.output());
    run.signal("TERM").unwrap();
    run.wait(LIMIT).unwrap();
    let (exit, output) = attempt("checked", &format!(", ca = \"{}\"", file("server.crt")));
    assert_eq!(exit, Some(0), "{output}");
    let (exit, output) = attempt("unknown", &format!(", ca = \"{}\"", file("other.crt")));
    assert!(exit == Some(1) && output.contains("certificate") && output.contains("with `ca`"), "{exit:?} {output}");
    let (exit, output) = attempt("nothing", ", ca = \"nowhere.pem\"");
    assert!(exit == Some(1) && output.contains("nowhere.pem cannot be used for TLS") && output.contains("hint: "), "{exit:?} {output}");
}
