//! Payloads to rows: what is learned, what is rejected, and that nothing else is.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::util::display::array_value_to_string;

use super::*;

fn decoder(format: Format, columns: &[(&str, &str)], header: bool) -> Decoder {
    let columns: BTreeMap<_, _> = columns.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    Decoder::new(Settings::new(format, &columns, header, None)).unwrap()
}

fn shown(batch: &RecordBatch) -> String {
    let names: Vec<String> = batch.schema().fields().iter().map(|field| format!("{}:{}", field.name(), field.data_type())).collect();
    let row = |row: usize| batch.columns().iter().map(|column| array_value_to_string(column, row).unwrap()).collect::<Vec<_>>().join(",");
    std::iter::once(names.join(" ")).chain((0..batch.num_rows()).map(row)).collect::<Vec<_>>().join(" | ")
}

/// Each part as `FIRST ROWS TABLE` or `bad INDEX`, with the words that its error must have.
fn check(decoder: &mut Decoder, payloads: &[&str], expected: &[&str]) {
    let bytes: Vec<&[u8]> = payloads.iter().map(|it| it.as_bytes()).collect();
    let parts = decoder.decode(&bytes);
    let mut found = Vec::new();
    for (part, expected) in parts.iter().zip(expected.iter().copied().chain(std::iter::repeat(""))) {
        found.push(match part {
            Part::Rows { first, batch, rows } => {
                assert_eq!(rows.iter().sum::<usize>(), batch.num_rows());
                format!("{first} {rows:?} {}", shown(batch))
            }
            Part::Bad { index, error } => {
                let words = expected.strip_prefix(&format!("bad {index} ")).unwrap_or("no such words");
                assert!(error.to_string().contains(words), "{error}\nexpected {expected}");
                expected.to_owned()
            }
        });
    }
    assert_eq!(found, expected);
}

#[test]
fn json_is_learned_and_only_what_cannot_be_read_is_rejected() {
    let mut json = decoder(Format::Ndjson, &[("ts", "timestamp[ms]")], true);
    check(&mut json, &["{\"ts\":0,\"v\":1}", "", "[{\"v\":2},{\"v\":null,\"x\":null}]", "{\"v\":3}\n{\"v\":4}"], &[
        "0 [1, 0, 2, 2] ts:Timestamp(ms) v:Int64 | 1970-01-01T00:00:00,1 | ,2 | , | ,3 | ,4",
    ]);
    // A key that is new, a fraction, a first value of `x`: columns grow, and stay.
    check(&mut json, &["{\"v\":1.5}", "{\"x\":\"a\"}", "{\"x\":7}"], &["0 [1, 1, 1] ts:Timestamp(ms) v:Float64 x:Utf8 | ,1.5, | ,,a | ,,7"]);
    check(
        &mut json,
        &["{\"v\":1}", "{\"v\":\"high\"}", "{\"v\":2}", "{\"v\":", "3", "{\"ts\":\"soon\"}", "{\"v\":{}}", "{\"v\":3}"],
        &[
            "0 [1] ts:Timestamp(ms) v:Float64 x:Utf8 | ,1.0,",
            "bad 1 column `v` is Utf8 here and was Float64 before",
            "2 [1] ts:Timestamp(ms) v:Float64 x:Utf8 | ,2.0,",
            "bad 3 no JSON: EOF while parsing",
            "bad 4 `3` is no JSON object",
            "bad 5 soon",
            "bad 6 column `v` is Struct",
            "7 [1] ts:Timestamp(ms) v:Float64 x:Utf8 | ,3.0,",
        ],
    );
    // Columns are known, and nothing is cut off for that.
    let mut known = decoder(Format::Ndjson, &[("ts", "timestamp[ms]"), ("count", "int")], true);
    check(&mut known, &["{\"v\":1,\"o\":{\"n\":[1]},\"ts\":1,\"count\":9007199254740993}"], &[
        "0 [1] count:Int64 ts:Timestamp(ms) o:Struct(\"n\": List(Int64)) v:Int64 | 9007199254740993,1970-01-01T00:00:00.001,{n: [1]},1",
    ]);
    check(&mut known, &["{\"v\":2.5}"], &["0 [1] count:Int64 ts:Timestamp(ms) o:Struct(\"n\": List(Int64)) v:Float64 | ,,,2.5"]);
    check(&mut known, &["{\"o\":{\"n\":[2.5]}}"], &["0 [1] count:Int64 ts:Timestamp(ms) o:Struct(\"n\": List(Float64)) v:Float64 | ,,{n: [2.5]},"]);
    check(&mut known, &["{\"count\":2e3,\"ts\":7.0}", "{\"count\":2.5}", "{\"ts\":0.5}", "{\"ts\":1e300}"], &[
        "0 [1] count:Int64 ts:Timestamp(ms) o:Struct(\"n\": List(Float64)) v:Float64 | 2000,1970-01-01T00:00:00.007,,",
        "bad 1 Int64 cannot hold 2.5",
        "bad 2 Timestamp(ms) cannot hold 0.5",
        "bad 3 Timestamp(ms) cannot hold 1e300",
    ]);
    // Within objects and lists as well.
    let mut nested = decoder(Format::Ndjson, &[], true);
    check(&mut nested, &["{\"a\":{\"b\":1},\"l\":[1]}"], &["0 [1] a:Struct(\"b\": Int64) l:List(Int64) | {b: 1},[1]"]);
    check(&mut nested, &["{\"a\":{\"b\":1.5,\"c\":true},\"l\":[0.5]}"], &[
        "0 [1] a:Struct(\"b\": Float64, \"c\": Boolean) l:List(Float64) | {b: 1.5, c: true},[0.5]",
    ]);
}

#[test]
fn csv_has_its_header_in_each_payload_or_none() {
    let mut csv = decoder(Format::Csv, &[("b", "text")], true);
    check(&mut csv, &["a,b\n1,2\n3,4", "a,b\n5,\"x\ny\"\n", "a,c\n1,2\n"], &["0 [2, 1] a:Int64 b:Utf8 | 1,2 | 3,4 | 5,x\ny", "2 [1] a:Int64 c:Int64 | 1,2"]);
    check(&mut csv, &["a,b\n1.5,2\n", "a,b\nhigh,1\n", "a,b\n1\n", "a,b\n1,\"\n", "a,b\n", "a,b\n7,7\n"], &[
        "0 [1] a:Float64 b:Utf8 | 1.5,2",
        "bad 1 column `a` is Utf8 here and was",
        "bad 2 number of fields",
        "bad 3 a quote has no end",
        "4 [0, 1] a:Float64 b:Utf8 | 7.0,7",
    ]);
    let mut bare = decoder(Format::Csv, &[("column_2", "double")], false);
    check(&mut bare, &["a,1", "b,2\nc,3\n"], &["0 [1, 2] column_1:Utf8 column_2:Float64 | a,1.0 | b,2.0 | c,3.0"]);
}

#[test]
fn raw_is_as_it_is_or_of_one_type() {
    let mut binary = decoder(Format::Raw, &[], true);
    check(&mut binary, &["\u{1}", ""], &["0 [1, 1] payload:Binary | 01 | "]);
    let mut number = decoder(Format::Raw, &[("payload", "double")], true);
    check(&mut number, &["23.5", "warm", "7"], &["0 [1] payload:Float64 | 23.5", "bad 1 warm", "2 [1] payload:Float64 | 7.0"]);
    let text = Settings::new(Format::Raw, &BTreeMap::from([("x".into(), "text".into())]), true, None);
    assert!(text.lint()[0].to_string().contains("columns.x: `raw` has one column"));
}

#[test]
fn lines_are_one_a_row() {
    let mut json = decoder(Format::Ndjson, &[], true);
    let parts = json.decode(&[b"{\"a\":1,\"b\":\"x\\ny\"}\n{\"a\":2}"]);
    let Part::Rows { batch, .. } = &parts[0] else { panic!("{parts:?}") };
    let texts = |format| encode_lines(batch, format, delimiter(None)).map(|lines| lines.iter().map(|it| String::from_utf8_lossy(it).into_owned()).collect::<Vec<_>>());
    assert_eq!(texts(Format::Ndjson).unwrap(), ["{\"a\":1,\"b\":\"x\\ny\"}", "{\"a\":2}"]);
    assert_eq!(texts(Format::Csv).unwrap(), ["1,\"x\ny\"", "2,"]);
    assert!(texts(Format::Raw).unwrap_err().to_string().contains("takes the column `payload`"));
}
