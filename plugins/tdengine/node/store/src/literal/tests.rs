//! Literals of every type, and what is refused.

use tdengine_wire::value::nchar_bytes;
use tdengine_wire::{ColumnType, DataType, Precision};

use super::{Context, Given, Literal, Shown};
use crate::error::code;

fn write(literal: Literal<'_>, column_type: ColumnType) -> Result<Option<Vec<u8>>, (u16, String)> {
    let context = Context { precision: Precision::Milliseconds, timezone_offset_s: 8 * 3_600 };
    let mut out = Vec::new();
    let shown = match literal {
        Literal::Number(text) | Literal::Text(text) | Literal::Word(text) => Shown::Alone(text),
        _ => Shown::Rest("true, 1)"),
    };
    let written = context.write(Given { literal, shown }, column_type, "v", &mut out);
    written.map(|there| there.then_some(out)).map_err(|error| (error.code, error.message))
}

#[test]
fn values_of_every_type() {
    use DataType::*;
    let ok = |literal: Literal<'_>, column_type: ColumnType, expect: &[u8]| {
        assert_eq!(write(literal, column_type), Ok(Some(expect.to_vec())), "{literal:?} {column_type}");
    };
    let (number, text) = (Literal::Number, Literal::Text);
    ok(Literal::Bool(true), ColumnType::of(Bool), &[1]);
    ok(text("FALSE"), ColumnType::of(Bool), &[0]);
    ok(number("-128"), ColumnType::of(TinyInt), &[0x80]);
    ok(number("0x7f"), ColumnType::of(SmallInt), &[0x7f, 0]);
    ok(text("12"), ColumnType::of(Int), &[12, 0, 0, 0]);
    ok(number("-9223372036854775808"), ColumnType::of(BigInt), &i64::MIN.to_le_bytes());
    ok(number("18446744073709551615"), ColumnType::of(UBigInt), &u64::MAX.to_le_bytes());
    ok(number("1.5"), ColumnType::of(Float), &1.5f32.to_le_bytes());
    ok(number("1e300"), ColumnType::of(Double), &1e300f64.to_le_bytes());
    ok(number("12.345"), ColumnType::decimal(10, 2), &1235i64.to_le_bytes());
    ok(number("-1.5e1"), ColumnType::decimal(38, 1), &(-150i128).to_le_bytes());
    ok(text("ab"), ColumnType::varchar(2), b"ab");
    ok(text("涛"), ColumnType::nchar(1), &nchar_bytes("涛"));
    ok(text("\\x00fF"), ColumnType::sized(Varbinary, 4), &[0, 255]);
    ok(text("{\"a\":1}"), ColumnType::of(Json), b"{\"a\":1}");
    let wkb = [&[1, 1, 0, 0, 0][..], &1f64.to_le_bytes(), &2f64.to_le_bytes()].concat();
    ok(text("POINT (1 2)"), ColumnType::sized(Geometry, 30), &wkb);
    assert_eq!(write(Literal::Null, ColumnType::of(Int)), Ok(None));
}

#[test]
fn points_in_time() {
    let check = |text: &str, expect: Option<i64>| {
        let bytes = write(Literal::Text(text), ColumnType::of(DataType::Timestamp)).ok().flatten();
        assert_eq!(bytes.map(|bytes| i64::from_le_bytes(bytes.try_into().unwrap())), expect, "{text}");
    };
    check("2023-11-14 22:13:20Z", Some(1_700_000_000_000));
    check("2023-11-15T06:13:20.123456", Some(1_700_000_000_123));
    check("2023-11-15 06:13:20+08:00", Some(1_700_000_000_000));
    check("2024-02-29", Some(1_709_136_000_000));
    check("1969-12-31 23:59:59.999Z", Some(-1));
    check("1700000000000", Some(1_700_000_000_000));
    check("2023-02-29 00:00:00", None);
    check("2023-11-14 24:00:00", None);
    check("abc", None);
}

#[test]
fn refusals_have_the_servers_code_and_text() {
    let check = |literal, column_type, expect: (u16, &str)| {
        let error = write(literal, column_type).unwrap_err();
        assert_eq!((error.0, error.1.as_str()), expect);
    };
    let syntax = code::INSERT_SYNTAX;
    let int = ColumnType::of(DataType::Int);
    check(Literal::Text("xx"), int, (syntax, "syntax error near 'xx' (invalid int data)"));
    check(Literal::Number("99999999999"), int, (syntax, "syntax error near '99999999999' (int data overflow)"));
    let unsigned = ColumnType::of(DataType::UInt);
    check(Literal::Number("-1"), unsigned, (syntax, "syntax error near '-1' (invalid unsigned int data)"));
    let timestamp = ColumnType::of(DataType::Timestamp);
    check(Literal::Text("abc"), timestamp, (syntax, "syntax error near 'abc' (invalid timestamp)"));
    let too_long = (code::VALUE_TOO_LONG, "Value too long for column/tag: v");
    check(Literal::Text("abcdef"), ColumnType::varchar(4), too_long);
    check(Literal::Text("abcde"), ColumnType::nchar(4), too_long);
}
