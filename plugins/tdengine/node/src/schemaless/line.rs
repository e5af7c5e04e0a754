//! InfluxDB's line protocol, with the types that TDengine adds: `i8` to `u64`, `f32`, `L"nchar"`, `B"hex"`.

use tdengine_wire::DataType;

use super::point::{Cell, Point, Time, invalid};
use crate::error::Fail;
use crate::statement::integer_range;

/// One line: `measurement[,tag=value…] field=value[,…] [timestamp]`, the time in a unit of so many nanoseconds.
pub(super) fn parse(line: &str, unit_ns: i128) -> Result<Point, Fail> {
    let mut parts = split(line, ' ').into_iter().filter(|part| !part.is_empty());
    let head = parts.next().unwrap_or_default();
    let fields = parts.next().ok_or_else(|| invalid("cols is empty"))?;
    let time = match parts.next() {
        None | Some("0") => Time::Now,
        Some(text) => Time::in_unit(text.parse().map_err(|_| invalid("invalid timestamp"))?, unit_ns),
    };
    if parts.next().is_some() {
        return Err(invalid("more after the timestamp"));
    }
    let mut head = split(head, ',').into_iter();
    let measurement = unescape(head.next().unwrap_or_default());
    if measurement.is_empty() {
        return Err(invalid("measure is empty"));
    }
    let tags = head.map(|tag| pair(tag).map(|(name, value)| (name, Cell::Nchar(unescape(value)))));
    let tags = tags.collect::<Result<_, _>>()?;
    let fields = split(fields, ',').into_iter().map(|field| {
        let (name, value) = pair(field)?;
        Ok((name, cell(value)?))
    });
    Ok(Point { measurement, tags, fields: fields.collect::<Result<_, Fail>>()?, time })
}

fn pair(text: &str) -> Result<(String, &str), Fail> {
    let at = find(text, '=').ok_or_else(|| invalid("invalid key or key is too long than 64"))?;
    let name = unescape(&text[..at]);
    if name.is_empty() || name.len() > 64 {
        return Err(invalid("invalid key or key is too long than 64"));
    }
    Ok((name, &text[at + 1..]))
}

/// The value of a field.
pub(super) fn cell(text: &str) -> Result<Cell, Fail> {
    let wrong = || invalid("Invalid data format");
    if let Some(text) = quoted(text, "L") {
        return Ok(Cell::Nchar(text));
    }
    if let Some(text) = quoted(text, "B") {
        let hex = text.strip_prefix("\\x").map(str::to_owned);
        let bytes = hex.map_or_else(|| Some(text.clone().into_bytes()), |hex| unhex(&hex));
        return bytes.map(Cell::Varbinary).ok_or_else(wrong);
    }
    if let Some(text) = quoted(text, "") {
        return Ok(Cell::Varchar(text));
    }
    match text {
        "t" | "T" | "true" | "True" | "TRUE" => return Ok(Cell::Bool(true)),
        "f" | "F" | "false" | "False" | "FALSE" => return Ok(Cell::Bool(false)),
        _ => {}
    }
    number(text).ok_or_else(wrong)
}

fn quoted(text: &str, prefix: &str) -> Option<String> {
    let rest = text.strip_prefix(prefix).or_else(|| text.strip_prefix(&prefix.to_lowercase()))?;
    let inner = rest.strip_prefix('"')?.strip_suffix('"')?;
    Some(inner.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// A number with the suffix of its type; without, a double.
fn number(text: &str) -> Option<Cell> {
    const SUFFIXES: [(&str, DataType); 10] = [
        ("i8", DataType::TinyInt),
        ("i16", DataType::SmallInt),
        ("i32", DataType::Int),
        ("i64", DataType::BigInt),
        ("u8", DataType::UTinyInt),
        ("u16", DataType::USmallInt),
        ("u32", DataType::UInt),
        ("u64", DataType::UBigInt),
        ("i", DataType::BigInt),
        ("u", DataType::UBigInt),
    ];
    let lower = text.to_ascii_lowercase();
    for (suffix, data_type) in SUFFIXES {
        if let Some(digits) = lower.strip_suffix(suffix) {
            return integer(digits.parse::<i128>().ok()?, data_type);
        }
    }
    if let Some(digits) = lower.strip_suffix("f32") {
        return digits.parse().ok().filter(|value: &f32| value.is_finite()).map(Cell::Float);
    }
    let digits = lower.strip_suffix("f64").unwrap_or(&lower);
    digits.parse().ok().filter(|value: &f64| value.is_finite()).map(Cell::Double)
}

/// An integer when it fits its type.
pub(super) fn integer(value: i128, data_type: DataType) -> Option<Cell> {
    integer_range(data_type)?.contains(&value).then_some(Cell::Integer(data_type, value))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok().filter(|_| pair.len() == 2)).collect()
}

/// The place of a separator that is neither escaped nor quoted.
fn find(text: &str, separator: char) -> Option<usize> {
    let (mut escaped, mut in_quotes) = (false, false);
    for (at, character) in text.char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_quotes = !in_quotes,
            _ if character == separator && !in_quotes => return Some(at),
            _ => {}
        }
    }
    None
}

fn split(mut text: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    while let Some(at) = find(text, separator) {
        parts.push(&text[..at]);
        text = &text[at + separator.len_utf8()..];
    }
    parts.push(text);
    parts
}

/// Takes the backslash off an escaped comma, blank or equals sign.
fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match (character, characters.peek()) {
            ('\\', Some(&next @ (',' | ' ' | '=' | '\\'))) => {
                out.push(next);
                characters.next();
            }
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_recording() {
        let point = parse(
            r#"meas,host=h1,reg=r1 usage=1.5,cnt=3i64,s="str",n=L"涛",b=true 1700000000000"#,
            1_000_000,
        )
        .unwrap();
        assert_eq!((point.measurement.as_str(), point.tags.len()), ("meas", 2));
        let cells: Vec<_> = point.fields.iter().map(|(name, cell)| (name.as_str(), cell.clone())).collect();
        let expected = [
            ("usage", Cell::Double(1.5)),
            ("cnt", Cell::Integer(DataType::BigInt, 3)),
            ("s", Cell::Varchar("str".into())),
            ("n", Cell::Nchar("涛".into())),
            ("b", Cell::Bool(true)),
        ];
        assert_eq!(cells, expected);
        assert_eq!(point.time, Time::Nanoseconds(1_700_000_000_000_000_000));
    }

    #[test]
    fn values_and_their_types() {
        let check = |text: &str, expected: Option<Cell>| assert_eq!(cell(text).ok(), expected, "{text}");
        check("1", Some(Cell::Double(1.0)));
        check("1f32", Some(Cell::Float(1.0)));
        check("-128i8", Some(Cell::Integer(DataType::TinyInt, -128)));
        check("128i8", None);
        check("18446744073709551615u64", Some(Cell::Integer(DataType::UBigInt, u64::MAX.into())));
        check("-1u", None);
        check("7i", Some(Cell::Integer(DataType::BigInt, 7)));
        check(r#""a \"b\" c""#, Some(Cell::Varchar(r#"a "b" c"#.into())));
        check(r#"B"\x00ff""#, Some(Cell::Varbinary(vec![0, 255])));
        check("T", Some(Cell::Bool(true)));
        check("text", None);
        check("", None);
    }

    #[test]
    fn escapes_quotes_and_bad_lines() {
        let point = parse(r#"a\ b,t\,1=x\=y f="q, =",g=2"#, 1).unwrap();
        assert_eq!(point.measurement, "a b");
        assert_eq!(point.tags, [("t,1".to_owned(), Cell::Nchar("x=y".into()))]);
        assert_eq!(point.fields[0], ("f".to_owned(), Cell::Varchar("q, =".into())));
        assert_eq!(point.time, Time::Now);
        let check = |line: &str, text: &str| assert_eq!(parse(line, 1).unwrap_err().message, text, "{line}");
        check("garbage", "cols is empty");
        check("m f=1 x", "invalid timestamp");
        check("m f", "invalid key or key is too long than 64");
        check(r#"m usage=text 1"#, "Invalid data format");
    }
}
