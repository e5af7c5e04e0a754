//! JSON objects of plain columns, straight into their arrays.
//!
//! [`json_reader`](crate::json_reader) reads everything, by way of a tape of what it found. What is common needs no tape: objects whose
//! keys are known columns of plain types, with values of exactly these types. Of whatever else comes this reader says nothing but that
//! it is none of that; who asked takes [`json_reader`](crate::json_reader) then. So a text means the same, whichever of them reads it,
//! and what is wrong with one is told by the other alone.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, NullArray, RecordBatch, StringBuilder,
};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::datatypes::{
    DataType, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};

/// Bytes of a text that room is made for.
const TEXT_BYTES: usize = 16;
/// A whole number below this is exact as a number with a fraction.
const EXACT_BELOW: u64 = 1 << 53;
/// Powers of ten that are exact as such.
const POWERS: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
];
/// Digits that fit a mantissa, whatever they are.
const DIGITS_MAX: usize = 18;

/// Rows that are being read.
#[derive(Debug)]
pub struct PlainObjects {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
    /// Bytes that were read: a text column has offsets of 31 bits.
    bytes: usize,
    /// A key that is no column is left out, instead of being none of what is read here.
    ignores_unknown: bool,
}

#[derive(Debug)]
enum Column {
    /// Only NULLs were seen so far.
    Null(usize),
    Boolean(BooleanBuilder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Utf8(StringBuilder),
    /// Of this unit, without a zone.
    Time(Int64Builder, TimeUnit),
}

impl PlainObjects {
    /// Makes room for `rows`; `None` where a column has another type, or may not be NULL.
    pub fn new(schema: &SchemaRef, rows: usize, ignores_unknown: bool) -> Option<Self> {
        let column = |data_type: &DataType| {
            Some(match data_type {
                DataType::Null => Column::Null(0),
                DataType::Boolean => Column::Boolean(BooleanBuilder::with_capacity(rows)),
                DataType::Int32 => Column::Int32(Int32Builder::with_capacity(rows)),
                DataType::Int64 => Column::Int64(Int64Builder::with_capacity(rows)),
                DataType::Float32 => Column::Float32(Float32Builder::with_capacity(rows)),
                DataType::Float64 => Column::Float64(Float64Builder::with_capacity(rows)),
                DataType::Utf8 => Column::Utf8(StringBuilder::with_capacity(rows, rows * TEXT_BYTES)),
                DataType::Timestamp(unit, None) => Column::Time(Int64Builder::with_capacity(rows), *unit),
                _ => return None,
            })
        };
        let fields = schema.fields();
        if fields.is_empty() || fields.iter().any(|field| !field.is_nullable()) {
            return None;
        }
        let columns = fields.iter().map(|field| column(field.data_type())).collect::<Option<Vec<_>>>()?;
        Some(Self { schema: schema.clone(), columns, rows: 0, bytes: 0, ignores_unknown })
    }

    /// Reads objects with white space between them, each within a line; how many. After `None` nothing of it is good any more.
    pub fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let text = std::str::from_utf8(bytes).ok()?;
        self.bytes += bytes.len();
        if self.bytes > i32::MAX as usize {
            return None;
        }
        let before = self.rows;
        let mut rest = text.trim_ascii_start();
        while !rest.is_empty() {
            rest = self.object(rest.strip_prefix('{')?)?.trim_ascii_start();
            self.rows += 1;
        }
        Some(self.rows - before)
    }

    /// The rows that were read.
    pub fn finish(self) -> Option<RecordBatch> {
        let arrays = self.columns.into_iter().map(Column::finish).collect();
        RecordBatch::try_new(self.schema, arrays).ok()
    }

    /// One row, from behind its brace; what is behind it.
    fn object<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        let mut rest = space(text);
        let mut found = 0;
        if let Some(end) = rest.strip_prefix('}') {
            self.fill();
            return Some(end);
        }
        // Keys come in the order of the columns for the most part.
        let mut expected = 0;
        loop {
            let (index, value) = self.key(rest.strip_prefix('"')?, expected)?;
            rest = space(space(value).strip_prefix(':')?);
            rest = match index {
                Some(index) => {
                    let column = &mut self.columns[index];
                    // Of a key that comes twice the last one counts: not here.
                    if column.len() > self.rows {
                        return None;
                    }
                    found += 1;
                    expected = index + 1;
                    column.value(rest)?
                }
                None => skipped(rest)?,
            };
            rest = space(rest);
            if let Some(next) = rest.strip_prefix(',') {
                rest = space(next);
                continue;
            }
            if found < self.columns.len() {
                self.fill();
            }
            return rest.strip_prefix('}');
        }
    }

    /// Which column a key names, and what is behind its quotes; `None` in its place where it is left out.
    fn key<'t>(&self, text: &'t str, expected: usize) -> Option<(Option<usize>, &'t str)> {
        let fields = self.schema.fields();
        for index in (expected..fields.len()).chain(0..expected.min(fields.len())) {
            if let Some(end) = text.strip_prefix(fields[index].name().as_str())
                && let Some(end) = end.strip_prefix('"')
            {
                return Some((Some(index), end));
            }
        }
        let end = text[plain_length(text.as_bytes())..].strip_prefix('"')?;
        self.ignores_unknown.then_some((None, end))
    }

    /// What the row does not name is NULL.
    fn fill(&mut self) {
        let rows = self.rows;
        self.columns.iter_mut().filter(|column| column.len() == rows).for_each(Column::null);
    }
}

impl Column {
    fn len(&self) -> usize {
        use arrow::array::ArrayBuilder;
        match self {
            Self::Null(rows) => *rows,
            Self::Boolean(it) => it.len(),
            Self::Int32(it) => it.len(),
            Self::Int64(it) | Self::Time(it, _) => it.len(),
            Self::Float32(it) => it.len(),
            Self::Float64(it) => it.len(),
            Self::Utf8(it) => it.len(),
        }
    }

    fn null(&mut self) {
        match self {
            Self::Null(rows) => *rows += 1,
            Self::Boolean(it) => it.append_null(),
            Self::Int32(it) => it.append_null(),
            Self::Int64(it) | Self::Time(it, _) => it.append_null(),
            Self::Float32(it) => it.append_null(),
            Self::Float64(it) => it.append_null(),
            Self::Utf8(it) => it.append_null(),
        }
    }

    /// Appends the value that `text` begins with; what is behind it.
    fn value<'t>(&mut self, text: &'t str) -> Option<&'t str> {
        if let Some(rest) = text.strip_prefix("null") {
            self.null();
            return Some(rest);
        }
        match self {
            Self::Null(_) => None,
            Self::Boolean(it) => {
                let value = text.starts_with("true");
                it.append_value(value);
                text.strip_prefix(if value { "true" } else { "false" })
            }
            Self::Int32(it) => {
                let number = Number::read(text)?;
                it.append_value(i32::try_from(number.whole()?).ok()?);
                Some(&text[number.length..])
            }
            Self::Int64(it) => {
                let number = Number::read(text)?;
                it.append_value(number.whole()?);
                Some(&text[number.length..])
            }
            Self::Float32(it) => {
                let number = Number::read(text)?;
                it.append_value(text[..number.length].parse().ok().filter(|value: &f32| value.is_finite())?);
                Some(&text[number.length..])
            }
            Self::Float64(it) => {
                let number = Number::read(text)?;
                it.append_value(number.value(text)?);
                Some(&text[number.length..])
            }
            Self::Utf8(it) => string(text.strip_prefix('"')?, it),
            Self::Time(it, unit) => {
                let Some(inner) = text.strip_prefix('"') else {
                    let number = Number::read(text)?;
                    it.append_value(number.whole()?);
                    return Some(&text[number.length..]);
                };
                let (inner, rest) = inner.split_at(plain_length(inner.as_bytes()));
                let nanoseconds = string_to_timestamp_nanos(inner).ok()?;
                it.append_value(nanoseconds.div_euclid(nanoseconds_of(*unit)));
                rest.strip_prefix('"')
            }
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Null(rows) => Arc::new(NullArray::new(rows)),
            Self::Boolean(mut it) => Arc::new(it.finish()),
            Self::Int32(mut it) => Arc::new(it.finish()),
            Self::Int64(mut it) => Arc::new(it.finish()),
            Self::Float32(mut it) => Arc::new(it.finish()),
            Self::Float64(mut it) => Arc::new(it.finish()),
            Self::Utf8(mut it) => Arc::new(it.finish()),
            Self::Time(mut it, unit) => match unit {
                TimeUnit::Second => Arc::new(it.finish().reinterpret_cast::<TimestampSecondType>()),
                TimeUnit::Millisecond => Arc::new(it.finish().reinterpret_cast::<TimestampMillisecondType>()),
                TimeUnit::Microsecond => Arc::new(it.finish().reinterpret_cast::<TimestampMicrosecondType>()),
                TimeUnit::Nanosecond => Arc::new(it.finish().reinterpret_cast::<TimestampNanosecondType>()),
            },
        }
    }
}

fn nanoseconds_of(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    }
}

/// A number as JSON writes it.
struct Number {
    mantissa: u64,
    /// Of ten.
    exponent: i32,
    is_negative: bool,
    /// It has neither a point nor an exponent.
    is_whole: bool,
    /// The mantissa holds all its digits.
    is_exact: bool,
    /// Bytes of it.
    length: usize,
}

impl Number {
    fn read(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let is_negative = bytes.first() == Some(&b'-');
        let begin = usize::from(is_negative);
        let (mut at, mut mantissa, mut exponent) = (begin, 0u64, 0i32);
        let digits = |at: &mut usize, mantissa: &mut u64| {
            let first = *at;
            while let Some(digit) = bytes.get(*at).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
                *mantissa = mantissa.wrapping_mul(10).wrapping_add(u64::from(digit));
                *at += 1;
            }
            *at - first
        };
        let mut count = digits(&mut at, &mut mantissa);
        if count == 0 || (count > 1 && bytes[begin] == b'0') {
            return None;
        }
        let mut is_whole = true;
        if bytes.get(at) == Some(&b'.') {
            at += 1;
            let fraction = digits(&mut at, &mut mantissa);
            if fraction == 0 {
                return None;
            }
            (is_whole, exponent, count) = (false, -i32::try_from(fraction).ok()?, count + fraction);
        }
        if matches!(bytes.get(at), Some(b'e' | b'E')) {
            at += 1;
            let is_below = bytes.get(at) == Some(&b'-');
            at += usize::from(matches!(bytes.get(at), Some(b'+' | b'-')));
            let mut power = 0;
            if !(1..=4).contains(&digits(&mut at, &mut power)) {
                return None;
            }
            let power = i32::try_from(power).ok()?;
            (is_whole, exponent) = (false, exponent + if is_below { -power } else { power });
        }
        Some(Self { mantissa, exponent, is_negative, is_whole, is_exact: count <= DIGITS_MAX, length: at })
    }

    fn whole(&self) -> Option<i64> {
        let value = i64::try_from(self.mantissa).ok().filter(|_| self.is_whole && self.is_exact)?;
        Some(if self.is_negative { -value } else { value })
    }

    /// The nearest number; both factors are exact where no text is looked at, so that the product is rounded once.
    fn value(&self, text: &str) -> Option<f64> {
        let power = POWERS.get(self.exponent.unsigned_abs() as usize);
        match power.filter(|_| self.is_exact && self.mantissa < EXACT_BELOW) {
            Some(power) => {
                let mantissa = self.mantissa as f64;
                let value = if self.exponent < 0 { mantissa / power } else { mantissa * power };
                Some(if self.is_negative { -value } else { value })
            }
            None => text[..self.length].parse().ok().filter(|value: &f64| value.is_finite()),
        }
    }
}

/// Appends a text from behind its quote; what is behind it.
fn string<'t>(text: &'t str, out: &mut StringBuilder) -> Option<&'t str> {
    let (plain, mut rest) = text.split_at(plain_length(text.as_bytes()));
    if let Some(rest) = rest.strip_prefix('"') {
        out.append_value(plain);
        return Some(rest);
    }
    let mut value = plain.to_owned();
    loop {
        if let Some(rest) = rest.strip_prefix('"') {
            out.append_value(&value);
            return Some(rest);
        }
        let mut characters = rest.strip_prefix('\\')?.chars();
        match characters.next()? {
            character @ ('"' | '\\' | '/') => value.push(character),
            'b' => value.push('\u{8}'),
            'f' => value.push('\u{c}'),
            'n' => value.push('\n'),
            'r' => value.push('\r'),
            't' => value.push('\t'),
            'u' => {
                let digits = characters.as_str().get(..4).filter(|digits| digits.bytes().all(|it| it.is_ascii_hexdigit()))?;
                // Halves of a pair are no characters.
                value.push(char::from_u32(u32::from_str_radix(digits, 16).ok()?)?);
                characters = characters.as_str()[4..].chars();
            }
            _ => return None,
        }
        let (plain, behind) = characters.as_str().split_at(plain_length(characters.as_str().as_bytes()));
        value.push_str(plain);
        rest = behind;
    }
}

/// What is behind a value that is left out.
fn skipped(text: &str) -> Option<&str> {
    match text.as_bytes().first()? {
        b'"' => {
            let rest = &text[1..];
            rest[plain_length(rest.as_bytes())..].strip_prefix('"')
        }
        b't' => text.strip_prefix("true"),
        b'f' => text.strip_prefix("false"),
        b'n' => text.strip_prefix("null"),
        _ => Number::read(text).map(|number| &text[number.length..]),
    }
}

/// Without the white space that `text` begins with, but for ends of lines.
#[inline]
fn space(text: &str) -> &str {
    match text.as_bytes().first() {
        Some(b' ' | b'\t' | b'\r') => text.trim_start_matches([' ', '\t', '\r']),
        _ => text,
    }
}

/// Bytes until a quote, a backslash or a control character, eight at a time.
#[inline]
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES << 7;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGHS;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        // The lowest bit that is set is right: what a borrow sets by mistake is above it.
        let found = zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    at + bytes[at..].iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{Field, Schema};
    use proptest::prelude::*;

    use super::*;
    use crate::json_reader;

    fn schema() -> SchemaRef {
        let types = [
            ("b", DataType::Boolean),
            ("i", DataType::Int64),
            ("int", DataType::Int32),
            ("f", DataType::Float64),
            ("float", DataType::Float32),
            ("s", DataType::Utf8),
            ("t", DataType::Timestamp(TimeUnit::Millisecond, None)),
            ("é", DataType::Utf8),
        ];
        Arc::new(Schema::new(types.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect::<Vec<_>>()))
    }

    fn plain(text: &str, ignores_unknown: bool) -> Option<RecordBatch> {
        let mut objects = PlainObjects::new(&schema(), 4, ignores_unknown).unwrap();
        let rows = objects.read(text.as_bytes())?;
        let batch = objects.finish().unwrap();
        assert_eq!(batch.num_rows(), rows);
        Some(batch)
    }

    fn by_tape(text: &str, ignores_unknown: bool) -> Option<RecordBatch> {
        let builder = json_reader(schema()).with_batch_size(1_000).with_strict_mode(!ignores_unknown);
        let mut decoder = builder.build_decoder().unwrap();
        decoder.decode(text.as_bytes()).ok().filter(|_| !decoder.has_partial_record())?;
        decoder.flush().ok()?
    }

    #[test]
    fn what_is_plain_is_read_and_means_the_same() {
        for text in [
            r#"{"b":true,"i":1,"int":-3,"f":2.5,"float":0.1,"s":"a b","t":"2026-01-02T03:04:05.678","é":"ü"}"#,
            r#" { "é" : "x" , "i" : -9 } "#,
            "{}\n{\"b\":false}\r\n\n{\"t\":1700000000000,\"s\":null}",
            r#"{"s":"\"\\\/\b\f\n\r\té\u0000","i":0}"#,
            r#"{"f":0}{"f":-0}{"f":1e3}{"f":-1.5E-7}{"f":0.1}{"f":123456789012345678901234567890}{"f":4.35}{"f":9007199254740993}"#,
            r#"{"i":999999999999999999}{"i":-999999999999999999}{"int":2147483647}{"t":"1969-12-31T23:59:59.9999"}"#,
        ] {
            let (one, other) = (plain(text, false).expect(text), by_tape(text, false).expect(text));
            assert_eq!(one, other, "{text}");
        }
        let text = r#"{"x":"y","i":1,"y":[1]}"#.replace(",\"y\":[1]", ",\"z\":-1.5e1,\"w\":null,\"v\":true");
        assert_eq!(plain(&text, true).unwrap(), by_tape(&text, true).unwrap());
    }

    #[test]
    fn what_is_not_is_left_to_the_other() {
        for text in [
            r#"{"i":1.5}"#,
            r#"{"i":1.0}"#,
            r#"{"i":"1"}"#,
            r#"{"i":9999999999999999999}"#,
            r#"{"int":2147483648}"#,
            r#"{"i":01}"#,
            r#"{"i":1,"i":2}"#,
            r#"{"i":1"#,
            r#"{"i":1,}"#,
            r#"{"i":1 "b":true}"#,
            r#"{"i":}"#,
            r#"{"f":1e}"#,
            r#"{"f":1.}"#,
            r#"{"f":1e999}"#,
            r#"{"s":"\ud83d\ude00"}"#,
            r#"{"s":"\x"}"#,
            r#"{"s":1}"#,
            r#"{"s":"a"#,
            r#"{"u":1}"#,
            r#"{"b":truth}"#,
            r#"{"t":"yesterday"}"#,
            "{\"s\":\"a\nb\"}",
            "{\"i\":\n1}",
            "[{}]",
            "1",
        ] {
            assert_eq!(plain(text, false), None, "{text}");
        }
        assert_eq!(plain(r#"{"u":[1]}"#, true), None);
        assert!(PlainObjects::new(&Arc::new(Schema::new(vec![Field::new_list_field(DataType::Binary, true)])), 1, false).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        /// Texts that are JSON for the most part: where both read one, they read the same.
        #[test]
        fn both_mean_the_same(parts in prop::collection::vec(prop::sample::select(vec![
            "{", "}", "{\"i\":", "\"f\":", ",\"s\":", ",\"int\":", ",\"t\":", "\"", "\"a\\n\"", "\"2026-01-01\"", "1", "-2.5", "1e2", "0",
            "12345678901234567890", ",", ":", "null", "true", " ", "\n", "{\"i\":7,\"s\":\"x\"}", "{\"f\":0.3}", "}\n",
        ]), 0..12), ignores_unknown: bool) {
            let text = parts.concat();
            if let Some(read) = plain(&text, ignores_unknown) {
                let other = by_tape(&text, ignores_unknown);
                prop_assert_eq!(Some(&read).filter(|it| it.num_rows() > 0), other.as_ref(), "{}", text);
            }
        }

        #[test]
        fn numbers_are_the_nearest(value: f64, whole: i64) {
            prop_assume!(value.is_finite());
            for text in [format!("{value}"), format!("{value:e}"), format!("{:.3}", value % 1e6), format!("{}", whole as f64 / 100.0)] {
                let line = format!("{{\"f\":{text}}}");
                let (one, other) = (plain(&line, false), by_tape(&line, false).unwrap());
                prop_assert_eq!(one.unwrap(), other, "{}", text);
            }
        }
    }
}
