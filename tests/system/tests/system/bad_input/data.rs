//! Data that is too large, is no text, or does not fit what the target has.

use std::time::Duration;

use pipeline_tests::insert_bytes;
use serde_json::json;

use super::{SOON, T0, Two, wait_for_rows};

/// A message that the source must not take, then one that the target does not.
#[test]
fn oversized_message() {
    let mut two = Two::new();
    two.a.sql("create table power.t (ts timestamp, v varchar(60000))");
    let fill = |from: i64| {
        for row in from..from + 3 {
            two.a.sql(&format!("insert into power.t values ({}, '{}')", T0 + row, "x".repeat(50_000)));
        }
    };
    fill(0);
    two.replicate("", ", message-bytes-max = 20000", "");
    let told = ["pipeline.a-to-b.source: ", "bytes came, 20000 are taken at most", "raise `message-bytes-max` of the source"];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(1, &told);
    two.replicate("reconnect-attempts-max = 2", "", "");
    two.replicates("t", 3);

    fill(3);
    let address = two.b.address.clone();
    let mut restart = |settings: &str| {
        two.nodes.remove(1).kill().unwrap();
        let (_, node) = pipeline_tests::start_node_with(&two.scene.path("b"), Some(&address), settings, &[]).unwrap();
        two.nodes.push(node);
    };
    restart("limits = { message-bytes = 30000 }");
    let told = ["pipeline.a-to-b.sink: ", "write_raw", "bytes were sent to it: does it take messages that large?", "gave up after 2 attempts"];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(1, &told);
    restart("");
    two.replicates("t", 6);
}

const NO_TEXT: &[u8] = b"a\xff\xfeb";

fn lengths(two: &Two) -> Vec<i64> {
    let rows = two.b.sql("select length(v) from power.t order by ts");
    rows.iter().map(|row| row[0].as_i64().unwrap()).collect()
}

/// A replica copies bytes as they are.
#[test]
fn invalid_utf8_in_varchar() {
    let two = Two::new();
    two.a.sql("create table power.t (ts timestamp, v varchar(64))");
    insert_bytes(&two.a, "power", "t", &[(T0, b"good"), (T0 + 1, NO_TEXT), (T0 + 2, b"")]).unwrap();
    two.replicates("t", 3);
    // U+FFFD would be three bytes for each of the two.
    assert_eq!(lengths(&two), [4, 4, 0]);
}

/// A statement cannot carry them: by policy it stops, or keeps them, and never writes other bytes.
#[test]
fn invalid_utf8_in_varchar_of_a_plain_pipeline() {
    let two = Two::new();
    two.a.sql("create table power.t (ts timestamp, v varchar(64))");
    insert_bytes(&two.a, "power", "t", &[(T0, b"good"), (T0 + 1, NO_TEXT), (T0 + 2, b"also")]).unwrap();
    let plain = |settings: &str| {
        two.replicate(settings, "", "");
        let text = two.scene.read("a-to-b.toml");
        two.scene.write("a-to-b.toml", text.replace("transform = { type = \"loop-mark\" }\n", ""));
    };
    plain("");
    let told = ["pipeline.a-to-b.sink: ", "column `v` of `power`.`t` has values that are no UTF-8 (1 rows)", "dead letters (`on-error`)"];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(3, &told);
    plain("on-error = \"dead-letter\"");
    let mut run = two.scene.start(&["run", "--json", "a-to-b.toml"], "run.log");
    wait_for_rows(&two.b, "power.t", 2, || run.output());
    run.wait_for("kept as a dead letter", SOON).unwrap();
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
    assert!(run.output().contains("\"dead-letters\": 1"), "{}", run.output());
    assert_eq!(lengths(&two), [4, 4]);
}

#[test]
fn missing_column_at_the_target() {
    let two = Two::new();
    two.b.sql("create table power.t (ts timestamp, v int)");
    two.a.sql("create table power.t (ts timestamp, v int, w int)");
    two.a.sql(&format!("insert into power.t values ({T0}, 1, 2)"));
    // The log announces the column: it is added.
    two.replicates("t", 1);
    assert_eq!(two.b.sql("select v, w from power.t"), [[json!(1), json!(2)]]);

    // Dropped at the target by its user: the rows' other values go on, and what is left out is said and counted.
    two.b.sql("alter table power.t drop column w");
    two.a.sql(&format!("insert into power.t values ({}, 3, 4)", T0 + 1));
    two.replicate("", "", ", announce-timeout = \"300ms\"");
    let mut run = two.scene.start(&["run", "a-to-b.toml", "--json"], "run.log");
    wait_for_rows(&two.b, "power.t", 2, || run.output());
    // Once known it is not waited for again.
    let begun = std::time::Instant::now();
    for row in 2..12 {
        two.a.sql(&format!("insert into power.t values ({}, 3, 4)", T0 + row));
        wait_for_rows(&two.b, "power.t", row + 1, || run.output());
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
    for text in ["column `w` of `power`.`t` was never announced; its values are left out", "\"kind\": \"left-out\""] {
        assert!(run.output().contains(text), "no {text:?} in:\n{}", run.output());
    }
}

#[test]
fn other_type_at_the_target() {
    let two = Two::new();
    two.b.sql("create table power.t (ts timestamp, v float)");
    two.a.sql("create table power.t (ts timestamp, v int)");
    two.a.sql(&format!("insert into power.t values ({T0}, 7)"));
    let told = [
        "pipeline.a-to-b.sink: ",
        "rows of `power`.`t` cannot be written: column `v` is INT at the source and FLOAT here",
        "make the definitions equal at both sites, then retry",
    ];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(3, &told);
    assert!(two.b.sql("select * from power.t").is_empty(), "the bits of an INT were written as FLOAT");
    two.b.sql("drop table power.t");
    two.b.sql("create table power.t (ts timestamp, v int)");
    two.replicates("t", 1);
    assert_eq!(two.b.sql("select v from power.t"), [[json!(7)]]);
}

/// As dead letters rows are looked at one by one, decoded: they are not turned into what fits.
#[test]
fn a_number_is_no_text_as_a_dead_letter_either() {
    let two = Two::new();
    two.b.sql("create table power.t (ts timestamp, v varchar(10))");
    two.a.sql("create table power.t (ts timestamp, v int)");
    two.a.sql(&format!("insert into power.t values ({T0}, 7)"));
    two.replicate("on-error = \"dead-letter\"", "", "");
    let mut run = two.scene.start(&["run", "--json", "a-to-b.toml"], "run.log");
    run.wait_for("kept as a dead letter", SOON).unwrap();
    run.signal("INT").unwrap();
    assert!(run.wait(SOON).unwrap().success(), "{}", run.output());
    assert!(run.output().contains("column `v` is INT at the source and VARCHAR(10) here"), "{}", run.output());
    assert!(two.b.sql("select * from power.t").is_empty());
}

#[test]
fn narrower_varchar_at_the_target() {
    let two = Two::new();
    let long = "x".repeat(40);
    for (table, of) in [("t", ""), ("s", " tags (g int)")] {
        let kind = if of.is_empty() { "table" } else { "stable" };
        two.b.sql(&format!("create {kind} power.{table} (ts timestamp, v varchar(8)){of}"));
        two.a.sql(&format!("create {kind} power.{table} (ts timestamp, v varchar(40)){of}"));
    }
    two.a.sql(&format!("insert into power.t values ({T0}, '{long}') power.c using power.s tags (1) values ({T0}, '{long}')"));
    two.replicates("t", 1);
    wait_for_rows(&two.b, "power.s", 1, String::new);
    for table in ["t", "s"] {
        assert_eq!(two.b.sql(&format!("select v from power.{table}")), [[json!(long)]], "{table} was not widened");
    }
    // It cannot be widened while a user's topic there selects it: nothing is cut off, and what is in the way is named.
    two.b.sql("create topic of_user as select ts, v from power.t");
    two.a.sql("alter table power.t modify column v varchar(60)");
    let longer = "y".repeat(60);
    two.a.sql(&format!("insert into power.t values ({}, '{longer}')", T0 + 1));
    two.replicate("", "", ", announce-timeout = \"300ms\", parked-interval = \"200ms\"");
    let told = [
        "`power`.`t` cannot be changed while a topic here uses it (Table column is subscribed): of_user; it is tried again",
        "pipeline.a-to-b.sink: rows of `power`.`t`, lane ",
        "Value too long for column/tag (0x2653)",
        "a column is narrower here than at the source: widen it",
    ];
    two.scene.pipeline(&["run", "a-to-b.toml"]).expect(3, &told);
    two.b.sql("drop topic of_user");
    two.replicate("", "", ", parked-interval = \"200ms\"");
    two.replicates("t", 2);
    assert_eq!(two.b.sql(&format!("select v from power.t where ts = {}", T0 + 1)), [[json!(longer)]]);
}
