//! Rows of a TDengine that went through a transform: their columns go to the target's of the same name, and nowhere else.

use pipeline_tests::{Process, Scene, Site, wait_for};
use serde_json::{Value, json};

const SOON: std::time::Duration = std::time::Duration::from_secs(60);

/// Starts a pipeline from `plant` at one site to a database at the other.
fn start(scene: &Scene, from: &Site, to: &Site, database: &str, transform: &str) -> Process {
    let file = format!(
        "[pipeline.{database}]\nsource = {{ type = \"tdengine-tmq\", dsn = \"{}\", databases = [\"plant\"] }}\n\
         transform = {transform}\nsink = {{ type = \"tdengine\", dsn = \"{}\", map = {{ plant = \"{database}\" }}, announce-timeout = \"1s\" }}\n",
        from.dsn(),
        to.dsn()
    );
    let name = format!("{database}.toml");
    scene.write(&name, file);
    scene.start(&["run", &name, "--log", "warn"], &format!("{database}.log"))
}

fn until(run: &Process, what: &str, is_so: impl Fn() -> bool) {
    wait_for(what, SOON, is_so, || run.output());
}

#[test]
fn columns_that_a_transform_moves_go_by_their_names() {
    let scene = Scene::new();
    let (a, _a) = scene.node("a", "");
    let (b, _b) = scene.node("b", "");
    for statement in [
        "create database plant vgroups 1 wal_retention_period 3600",
        "create stable plant.m (ts timestamp, a int, b int, c int) tags (g int)",
        "insert into plant.m1 using plant.m tags (1) values (1780000000000, 1, 2, 3) (1780000000001, 4, 5, 6)",
        "create table plant.n (ts timestamp, a int, b int, c int)",
        "insert into plant.n values (1780000000000, 1, 2, 3) (1780000000001, 4, 5, 6)",
    ] {
        a.sql(statement);
    }
    for (database, transform, expect) in [
        ("dropped", r#"{ type = "select", drop = ["b"] }"#, json!([[1, null, 3], [4, null, 6]])),
        ("moved", r#"{ type = "select", columns = ["c", "ts", "a"] }"#, json!([[1, null, 3], [4, null, 6]])),
        ("renamed", r#"{ type = "select", drop = ["c"], rename = { a = "b", b = "a" } }"#, json!([[2, 1, null], [5, 4, null]])),
        ("marked", r#"[{ type = "loop-mark" }, { type = "select", columns = ["c", "ts", "a"] }]"#, json!([[1, null, 3], [4, null, 6]])),
        ("put", r#"{ type = "select", set = { b = "a + c" } }"#, json!([[1, 4, 3], [4, 10, 6]])),
    ] {
        let run = start(&scene, &a, &b, database, transform);
        for table in ["m", "n"] {
            let sql = format!("select a, b, c from {database}.{table} order by ts");
            let rows = || b.try_sql(&sql).unwrap().map_or(json!([]), |rows| json!(rows));
            until(&run, &sql, || rows().as_array().is_some_and(|rows| rows.len() == 2));
            assert_eq!(rows(), expect, "{database}.{table}\n{}", run.output());
        }
        assert!(run.stop(SOON).unwrap().success());
    }
}

#[test]
fn a_column_that_the_target_lacks_is_named_and_written_once_it_is_there() {
    let scene = Scene::new();
    let (a, _a) = scene.node("a", "");
    let (b, _b) = scene.node("b", "");
    a.sql("create database plant vgroups 1 wal_retention_period 3600");
    a.sql("create table plant.n (ts timestamp, a int)");
    a.sql("insert into plant.n values (1780000000000, 1) (1780000000001, 95)");
    let route = r#"{ type = "route", column = "way", otherwise = "normal", routes = [{ name = "alarm", when = "a > 90" }] }"#;
    let mut run = start(&scene, &a, &b, "routed", route);
    assert_eq!(run.wait(SOON).unwrap().code(), Some(3), "{}", run.output());
    let output = run.output();
    for told in ["rows of `routed`.`n` have a column `way`, which is not there", "add the column at the target", r#"drop = ["way"]"#] {
        assert!(output.contains(told), "{told}: {output}");
    }
    assert_eq!(b.sql("select count(*) from routed.n")[0][0], 0);
    b.sql("alter table routed.n add column way nchar(16)");
    let run = start(&scene, &a, &b, "routed", route);
    let rows = || Value::from_iter(b.sql("select a, way from routed.n order by ts").into_iter().map(Value::from));
    until(&run, "the rows are there", || rows().as_array().is_some_and(|rows| rows.len() == 2));
    assert_eq!(rows(), json!([[1, "normal"], [95, "alarm"]]));
    assert!(run.stop(SOON).unwrap().success());
    // Of several tables of a message only the rows of those that lack it are kept back.
    a.sql("create table plant.k (ts timestamp, a int)");
    let letters = format!("{route}\non-error = \"dead-letter\"\ndead-letter = {{ type = \"files\", path = \"dead.ndjson\" }}");
    a.sql("insert into plant.n values (1780000000002, 7) plant.k values (1780000000002, 8) plant.n values (1780000000003, 9)");
    let run = start(&scene, &a, &b, "routed", &letters);
    until(&run, "the rows are there", || rows().as_array().is_some_and(|rows| rows.len() == 4));
    assert!(run.stop(SOON).unwrap().success());
    let dead = scene.read("dead.ndjson");
    assert!(dead.lines().count() == 1 && dead.contains("\"a\":8") && dead.contains("rows of `routed`.`k` have a column `way`"), "{dead}");
    // Dropped here while the pipeline runs.
    let mut run = start(&scene, &a, &b, "routed", route);
    a.sql("insert into plant.n values (1780000000004, 10)");
    until(&run, "one more", || rows().as_array().is_some_and(|rows| rows.len() == 5));
    b.sql("alter table routed.n drop column way");
    a.sql("insert into plant.n values (1780000000005, 11)");
    assert_eq!(run.wait(SOON).unwrap().code(), Some(3), "{}", run.output());
    assert!(run.output().contains("rows of `routed`.`n` have a column `way`, which is not there"), "{}", run.output());
}

/// A lane brings the drop of a column while others still bring rows with it.
#[test]
fn rows_of_before_a_column_was_dropped_are_no_error() {
    let scene = Scene::new();
    let (a, _a) = scene.node("a", "");
    let (b, _b) = scene.node("b", "");
    a.sql("create database plant vgroups 4 wal_retention_period 3600");
    a.sql("create stable plant.m (ts timestamp, a int, b int) tags (g int)");
    let values: String = (0..40).map(|n| format!(" plant.m{n} using plant.m tags ({n}) values (1780000000000, {n}, 1)")).collect();
    a.sql(&format!("insert into{values}"));
    let run = start(&scene, &a, &b, "filtered", r#"{ type = "where", condition = "a >= 0" }"#);
    let rows = |count: i64| b.try_sql("select count(*) from filtered.m").unwrap().is_ok_and(|rows| rows[0][0] == count);
    until(&run, "the first rows", || rows(40));
    assert!(run.stop(SOON).unwrap().success());
    let values: String = (0..40).map(|n| format!(" plant.m{n} values (1780000000001, {n}, 2)")).collect();
    a.sql(&format!("insert into{values}"));
    a.sql("alter stable plant.m drop column b");
    let run = start(&scene, &a, &b, "filtered", r#"{ type = "where", condition = "a >= 0" }"#);
    until(&run, "all rows", || rows(80));
    until(&run, "the column is dropped", || b.try_sql("select b from filtered.m").unwrap().is_err());
    assert!(run.stop(SOON).unwrap().success());
}

#[test]
fn tags_of_a_template_that_do_not_fit_are_named() {
    let scene = Scene::new();
    let (b, _b) = scene.node("b", "");
    b.sql("create database power");
    b.sql("create stable power.meters (ts timestamp, v bigint) tags (n bigint)");
    scene.write("rows.csv", "ts,device,v\n2026-01-01T00:00:00.000,x7,1\n2026-01-01T00:00:01.000,8,2\n");
    let file = |tag: &str, more: &str| {
        format!(
            "[pipeline.t]\nsource = {{ type = \"files\", path = \"rows.csv\", columns = {{ device = \"text\" }} }}\n{more}\n\
             [pipeline.t.sink]\ntype = \"tdengine\"\ndsn = \"{}\"\ndatabase = \"power\"\n\
             template = {{ stable = \"meters\", table = \"d_{{{tag}}}\", tags = [\"{tag}\"] }}\n",
            b.dsn()
        )
    };
    scene.write("t.toml", file("device", ""));
    scene.pipeline(&["run", "t.toml"]).expect(3, &["super table `power`.`meters` has no tag `device`", "it has n"]);
    let rename = "transform = { type = \"select\", rename = { device = \"n\" } }";
    scene.write("t.toml", file("n", rename));
    scene.pipeline(&["run", "t.toml"]).expect(3, &["tag `n` of `power`.`d_x7` cannot become BIGINT: `x7`"]);
    scene.write("t.toml", file("n", &format!("on-error = \"dead-letter\"\ndead-letter = {{ type = \"files\", path = \"dead.ndjson\" }}\n{rename}")));
    scene.pipeline(&["run", "t.toml"]).expect(0, &[]);
    assert_eq!(b.sql("select v, n from power.meters"), [[json!(2), json!(8)]]);
    assert!(scene.read("dead.ndjson").contains("x7"), "{}", scene.read("dead.ndjson"));
}
