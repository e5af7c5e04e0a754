//! What a file says becomes columns, and what came is compared with what was expected.

use arrow::array::{ArrayRef, Int32Array, RecordBatch, StringArray, TimestampMillisecondArray};
use pipeline_sdk::Payload;
use std::sync::Arc;

use super::{Case, Line, diff};
use crate::config::File;

fn case(text: &str) -> Result<Case, String> {
    let file = format!("[pipeline.p]\nsource = {{ type = \"a\" }}\nsink = {{ type = \"b\" }}\n[[test]]\nname = \"t\"\n{text}");
    let parsed = File::parse("f.toml", &file, std::path::Path::new("."), &|_| None).map_err(|report| report.to_string())?;
    Ok(parsed.cases[0].clone())
}

/// Name, type and shown values of each column of the first message.
fn columns(text: &str) -> Vec<(String, String, Vec<String>)> {
    let case = case(&format!("{text}\nstops = \"x\"")).unwrap();
    let Payload::Rows(rows) = &case.input[0].payload else { panic!("rows") };
    let shown = |array: &ArrayRef, row: usize| arrow::util::display::array_value_to_string(array, row).unwrap();
    let schema = rows.batch.schema();
    let column = |index: usize| {
        let (field, array) = (schema.field(index), rows.batch.column(index));
        (field.name().clone(), field.data_type().to_string(), (0..array.len()).map(|row| shown(array, row)).collect())
    };
    (0..rows.batch.num_columns()).map(column).collect()
}

#[test]
fn values_become_columns_of_the_type_that_they_show_or_that_is_given() {
    let check = |text: &str, expected: &[(&str, &str, &[&str])]| {
        let expected: Vec<_> = expected.iter().map(|(name, kind, values)| ((*name).to_owned(), (*kind).to_owned(), values.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())).collect();
        assert_eq!(columns(text), expected, "{text}");
    };
    check("input = [{ b = 1, a = \"x\" }, { b = 2.5 }]", &[("b", "Float64", &["1.0", "2.5"]), ("a", "Utf8", &["x", ""])]);
    check("input = [{ t = 2026-01-02 }]", &[("t", "Date32", &["2026-01-02"])]);
    check("input = [{ t = 2026-01-02T03:04:05 }]", &[("t", "Timestamp(s)", &["2026-01-02T03:04:05"])]);
    check("input = [{ t = 2026-01-02T03:04:05.5 }, { t = 2026-01-02T03:04:05.000001 }]", &[("t", "Timestamp(µs)", &["2026-01-02T03:04:05.500", "2026-01-02T03:04:05.000001"])]);
    check("types = { v = \"Int16\", gone = \"int\" }\ninput = [{ v = 7 }, {}]", &[("v", "Int16", &["7", ""]), ("gone", "Int64", &["", ""])]);
    check("types = { t = \"timestamp[ns]\", d = \"Decimal128(5, 2)\", b = \"binary\", u = \"UInt64\" }\ninput = [{ t = \"1970-01-01T00:00:01\", d = \"1.25\", b = \"00ff\", u = \"18446744073709551615\" }]", &[
        ("t", "Timestamp(ns)", &["1970-01-01T00:00:01"]), ("d", "Decimal128(5, 2)", &["1.25"]), ("b", "Binary", &["00ff"]), ("u", "UInt64", &["18446744073709551615"]),
    ]);
    check("types = { v = \"int\" }\ninput = [{ v = 2.0 }]", &[("v", "Int64", &["2"])]);
    check("input = [{ l = [1, 2], s = { x = true } }]", &[("l", "List(Int64)", &["[1, 2]"]), ("s", "Struct(\"x\": Boolean)", &["{x: true}"])]);
}

#[test]
fn what_is_wrong_with_a_case_is_said_with_its_place() {
    for (text, place, message) in [
        ("input = []\nexpcet = {}", "f.toml:7:1", "did you mean `expect`?"),
        ("input = []\nlimit = \"soon\"", "f.toml:7:9", "no duration"),
        ("input = []", "f.toml:5:8", "the case expects nothing"),
        ("input = [{ v = 1 }, { v = \"x\" }]\nstops = \"x\"", "f.toml:6:27", "a string in a column of Int64"),
        ("types = { v = \"Int8\" }\ninput = [{ v = 1 }, { v = 300 }]\nstops = \"x\"", "f.toml:7:27", "column `v` of type Int8"),
        ("types = { v = \"int\" }\ninput = [{ v = 1 }, { v = 2.5 }]\nstops = \"x\"", "f.toml:7:27", "column `v` of type Int64 cannot hold this: 2.5 has a fraction"),
        ("types = { v = \"timestamp[s]\" }\ninput = [{ v = 0.5 }]\nstops = \"x\"", "f.toml:7:16", "0.5 has a fraction"),
        ("types = { v = \"List(Int32)\" }\ninput = [{ v = [1, 2.5] }]\nstops = \"x\"", "f.toml:7:16", "2.5 has a fraction"),
        ("types = { v = \"integer\" }\ninput = []\nstops = \"x\"", "f.toml:6:15", "is no type"),
        ("input = [{ v = 1 }, [{ v = 1 }]]\nstops = \"x\"", "f.toml:6:21", "do not go together"),
        ("input = [{}]\nstops = \"x\"", "f.toml:6:10", "a row without columns"),
        ("input = 1\nstops = \"x\"", "f.toml:6:9", "expected an array"),
        ("input = [{ t = 07:00:00 }]\nstops = \"x\"", "f.toml:6:16", "needs a type"),
        ("input = []\nexpect = { b = { rows = [], typs = {} } }", "f.toml:7:29", "did you mean `types`?"),
        ("input = []\nexpect = { b = 1 }", "f.toml:7:16", "expected"),
    ] {
        let report = case(text).expect_err(text);
        assert!(report.contains(place) && report.contains(message), "{text}: no {place} or {message:?} in\n{report}");
    }
    let two = "input = []\nstops = \"x\"\n[[test]]\nname = \"t\"\ninput = []\nstops = \"x\"";
    assert!(case(two).unwrap_err().contains("two cases of `p` are named `t`"));
}

fn came() -> RecordBatch {
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int32Array::from(vec![1, 2, 3]))),
        ("name", Arc::new(StringArray::from(vec![Some("a"), None, Some("c")]))),
        ("at", Arc::new(TimestampMillisecondArray::from(vec![0, 1_500, 2_000]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).unwrap()
}

#[test]
fn rows_are_equal_by_value_and_type_and_differences_are_lined_up() {
    let first = "{ id = 1, name = \"a\", at = 1970-01-01T00:00:00 }";
    let second = "{ id = 2, at = \"1970-01-01T00:00:01.5\" }";
    let third = "{ id = 3, name = \"c\", at = 1970-01-01T00:00:02.000 }";
    let lines = |rows: &[&str]| {
        let case = case(&format!("input = []\nexpect = {{ b = [{}] }}", rows.join(", "))).unwrap();
        diff::of_sink(&case.expected[0], &[came()]).pop().map(|it| (it.message, it.lines.iter().map(mark).collect::<String>()))
    };
    fn mark(line: &Line) -> char {
        match line {
            Line::Same(_) => '=',
            Line::Missing(_) => '-',
            Line::Unexpected(_) => '+',
        }
    }
    let differ = |message: &str, marks: &str| Some((format!("sink `b`: {message}"), marks.to_owned()));
    assert_eq!(lines(&[first, second, third]), None);
    assert_eq!(lines(&[first, third]), differ("2 rows expected, 3 rows came", "=+="));
    assert_eq!(lines(&[second, first, third]), differ("other rows came than expected", "-=+="));
    assert_eq!(lines(&[]), differ("0 rows expected, 3 rows came", "+++"));
    // Text is no number, a missing column no value, another column a surprise.
    for wrong in ["{ id = \"2\", at = \"1970-01-01T00:00:01.5\" }", "{ id = 2, at = \"1970-01-01T00:00:01.5\", name = \"\" }", "{ id = 2 }", "{ id = 2, at = \"1970-01-01T00:00:01.5\", more = 1 }", "{ id = 2.0, at = \"1970-01-01T00:00:01.5\" }"] {
        assert_eq!(lines(&[first, wrong, third]), differ("other rows came than expected", "=-+="), "{wrong}");
    }
    let case = case("input = []\nexpect = { b = { rows = [], types = { id = \"Int64\" } } }").unwrap();
    let found: Vec<_> = diff::of_sink(&case.expected[0], &[came()]).into_iter().map(|it| it.message).collect();
    assert_eq!(found[1], "sink `b`: column `id` is Int32, expected Int64");
}
