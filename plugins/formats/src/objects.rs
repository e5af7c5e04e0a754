//! JSON objects of plain columns, straight into their arrays.
//!
//! [`json_reader`](crate::json_reader) reads everything, by way of a tape of what it found. What is common needs no tape: objects whose
//! keys are known columns of plain types, with values of exactly these types. Of whatever else comes this reader says nothing but that
//! it is none of that; who asked takes [`json_reader`](crate::json_reader) then. So a text means the same, whichever of them reads it,
//! and what is wrong with one is told by the other alone.

use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, BooleanBuilder, Float32Builder, Float64Builder, Int32Builder, Int64Builder, NullArray, NullBufferBuilder,
    RecordBatch, StringArray,
};
use arrow::buffer::{Buffer, OffsetBuffer, ScalarBuffer};
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
    /// Of each column what stands before its value: `"name":`.
    keys: Vec<Vec<u8>>,
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
    Utf8(Texts),
    /// Of this unit, without a zone.
    Time(Int64Builder, TimeUnit),
}

/// Texts one behind the other; that they are texts is looked at once for all.
#[derive(Debug)]
struct Texts {
    bytes: Vec<u8>,
    /// Where each begins, and where the last one ends.
    offsets: Vec<i32>,
    nulls: NullBufferBuilder,
}

impl PlainObjects {
    /// Makes room for `rows`; `None` where a column has another type, or may not be NULL, or a name that needs an escape.
    pub fn new(schema: &SchemaRef, rows: usize, ignores_unknown: bool) -> Option<Self> {
        let column = |data_type: &DataType| {
            Some(match data_type {
                DataType::Null => Column::Null(0),
                DataType::Boolean => Column::Boolean(BooleanBuilder::with_capacity(rows)),
                DataType::Int32 => Column::Int32(Int32Builder::with_capacity(rows)),
                DataType::Int64 => Column::Int64(Int64Builder::with_capacity(rows)),
                DataType::Float32 => Column::Float32(Float32Builder::with_capacity(rows)),
                DataType::Float64 => Column::Float64(Float64Builder::with_capacity(rows)),
                DataType::Utf8 => Column::Utf8(Texts::with_capacity(rows)),
                DataType::Timestamp(unit, None) => Column::Time(Int64Builder::with_capacity(rows), *unit),
                _ => return None,
            })
        };
        let fields = schema.fields();
        if fields.is_empty() || fields.iter().any(|field| !field.is_nullable() || plain_length(field.name().as_bytes()) < field.name().len()) {
            return None;
        }
        let columns = fields.iter().map(|field| column(field.data_type())).collect::<Option<Vec<_>>>()?;
        let keys = fields.iter().map(|field| format!("\"{}\":", field.name()).into_bytes()).collect();
        Some(Self { schema: schema.clone(), keys, columns, rows: 0, bytes: 0, ignores_unknown })
    }

    /// Reads objects with white space between them, each within a line; how many. After `None` nothing of it is good any more.
    pub fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        std::str::from_utf8(bytes).ok()?;
        self.bytes += bytes.len();
        if self.bytes > i32::MAX as usize {
            return None;
        }
        let before = self.rows;
        let mut rest = bytes.trim_ascii_start();
        while !rest.is_empty() {
            rest = self.object(rest.strip_prefix(b"{")?)?.trim_ascii_start();
            self.rows += 1;
        }
        Some(self.rows - before)
    }

    /// The rows that were read.
    pub fn finish(self) -> Option<RecordBatch> {
        let arrays = self.columns.into_iter().map(Column::finish).collect::<Option<Vec<_>>>()?;
        RecordBatch::try_new(self.schema, arrays).ok()
    }

    /// One row, from behind its brace; what is behind it.
    fn object<'t>(&mut self, text: &'t [u8]) -> Option<&'t [u8]> {
        let mut rest = space(text);
        if let Some(end) = rest.strip_prefix(b"}") {
            self.fill();
            return Some(end);
        }
        // Keys come in the order of the columns for the most part.
        let (mut expected, mut found, mut is_in_order) = (0, 0, true);
        loop {
            let (index, value) = self.key(rest, expected)?;
            rest = match index {
                Some(index) => {
                    is_in_order &= index >= expected;
                    let column = &mut self.columns[index];
                    // Of a key that comes twice the last one counts: not here.
                    if !is_in_order && column.len() > self.rows {
                        return None;
                    }
                    (expected, found) = (index + 1, found + 1);
                    column.value(value)?
                }
                None => skipped(value)?,
            };
            rest = space(rest);
            if let Some(next) = rest.strip_prefix(b",") {
                rest = space(next);
                continue;
            }
            if found < self.columns.len() {
                self.fill();
            }
            return rest.strip_prefix(b"}");
        }
    }

    /// Which column a key names, and the value behind it; `None` in its place where it is left out.
    #[inline]
    fn key<'t>(&self, text: &'t [u8], expected: usize) -> Option<(Option<usize>, &'t [u8])> {
        if let Some(key) = self.keys.get(expected)
            && let Some(value) = text.strip_prefix(key.as_slice())
        {
            return Some((Some(expected), space(value)));
        }
        let text = text.strip_prefix(b"\"")?;
        let (name, end) = text.split_at(plain_length(text));
        let value = space(space(end.strip_prefix(b"\"")?).strip_prefix(b":")?);
        match self.schema.fields().iter().position(|field| field.name().as_bytes() == name) {
            None if !self.ignores_unknown => None,
            index => Some((index, value)),
        }
    }

    /// What the row does not name is NULL.
    fn fill(&mut self) {
        let rows = self.rows;
        self.columns.iter_mut().filter(|column| column.len() == rows).for_each(Column::null);
    }
}

impl Texts {
    fn with_capacity(rows: usize) -> Self {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        Self { bytes: Vec::with_capacity(rows * TEXT_BYTES), offsets, nulls: NullBufferBuilder::new(rows) }
    }

    fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Ends a text, all of whose bytes were appended.
    #[inline]
    fn end(&mut self) {
        // No more was read than has such offsets.
        self.offsets.push(self.bytes.len() as i32);
        self.nulls.append_non_null();
    }

    fn null(&mut self) {
        self.offsets.push(self.bytes.len() as i32);
        self.nulls.append_null();
    }

    fn finish(mut self) -> Option<StringArray> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(self.offsets));
        StringArray::try_new(offsets, Buffer::from_vec(self.bytes), self.nulls.finish()).ok()
    }
}

impl Column {
    fn len(&self) -> usize {
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
            Self::Utf8(it) => it.null(),
        }
    }

    /// Appends the value that `text` begins with; what is behind it.
    #[inline]
    fn value<'t>(&mut self, text: &'t [u8]) -> Option<&'t [u8]> {
        if text.first() == Some(&b'n') {
            self.null();
            return text.strip_prefix(b"null");
        }
        match self {
            Self::Null(_) => None,
            Self::Boolean(it) => {
                let value = text.starts_with(b"true");
                it.append_value(value);
                text.strip_prefix(if value { &b"true"[..] } else { b"false" })
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
                it.append_value(number.text(text)?.parse().ok().filter(|value: &f32| value.is_finite())?);
                Some(&text[number.length..])
            }
            Self::Float64(it) => {
                let number = Number::read(text)?;
                it.append_value(number.value(text)?);
                Some(&text[number.length..])
            }
            Self::Utf8(it) => string(text.strip_prefix(b"\"")?, it),
            Self::Time(it, unit) => {
                let Some(inner) = text.strip_prefix(b"\"") else {
                    let number = Number::read(text)?;
                    it.append_value(number.whole()?);
                    return Some(&text[number.length..]);
                };
                let (inner, rest) = inner.split_at(plain_length(inner));
                let nanoseconds = string_to_timestamp_nanos(std::str::from_utf8(inner).ok()?).ok()?;
                it.append_value(nanoseconds.div_euclid(nanoseconds_of(*unit)));
                rest.strip_prefix(b"\"")
            }
        }
    }

    fn finish(self) -> Option<ArrayRef> {
        Some(match self {
            Self::Null(rows) => Arc::new(NullArray::new(rows)),
            Self::Boolean(mut it) => Arc::new(it.finish()),
            Self::Int32(mut it) => Arc::new(it.finish()),
            Self::Int64(mut it) => Arc::new(it.finish()),
            Self::Float32(mut it) => Arc::new(it.finish()),
            Self::Float64(mut it) => Arc::new(it.finish()),
            Self::Utf8(it) => Arc::new(it.finish()?),
            Self::Time(mut it, unit) => match unit {
                TimeUnit::Second => Arc::new(it.finish().reinterpret_cast::<TimestampSecondType>()),
                TimeUnit::Millisecond => Arc::new(it.finish().reinterpret_cast::<TimestampMillisecondType>()),
                TimeUnit::Microsecond => Arc::new(it.finish().reinterpret_cast::<TimestampMicrosecondType>()),
                TimeUnit::Nanosecond => Arc::new(it.finish().reinterpret_cast::<TimestampNanosecondType>()),
            },
        })
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
    #[inline]
    fn read(bytes: &[u8]) -> Option<Self> {
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

    /// It, of the text that it was read from.
    fn text<'t>(&self, text: &'t [u8]) -> Option<&'t str> {
        std::str::from_utf8(&text[..self.length]).ok()
    }

    fn whole(&self) -> Option<i64> {
        let value = i64::try_from(self.mantissa).ok().filter(|_| self.is_whole && self.is_exact)?;
        Some(if self.is_negative { -value } else { value })
    }

    /// The nearest number; both factors are exact where no text is looked at, so that the product is rounded once.
    fn value(&self, text: &[u8]) -> Option<f64> {
        let power = POWERS.get(self.exponent.unsigned_abs() as usize);
        match power.filter(|_| self.is_exact && self.mantissa < EXACT_BELOW) {
            Some(power) => {
                let mantissa = self.mantissa as f64;
                let value = if self.exponent < 0 { mantissa / power } else { mantissa * power };
                Some(if self.is_negative { -value } else { value })
            }
            None => self.text(text)?.parse().ok().filter(|value: &f64| value.is_finite()),
        }
    }
}

/// Appends a text from behind its quote; what is behind it.
#[inline]
fn string<'t>(text: &'t [u8], out: &mut Texts) -> Option<&'t [u8]> {
    let (plain, rest) = text.split_at(plain_length(text));
    out.bytes.extend_from_slice(plain);
    if let Some(rest) = rest.strip_prefix(b"\"") {
        out.end();
        return Some(rest);
    }
    escaped(rest, out)
}

/// Appends the rest of a text from its first escape on.
#[cold]
fn escaped<'t>(mut rest: &'t [u8], out: &mut Texts) -> Option<&'t [u8]> {
    loop {
        if let Some(rest) = rest.strip_prefix(b"\"") {
            out.end();
            return Some(rest);
        }
        let (sign, behind) = rest.strip_prefix(b"\\")?.split_first()?;
        rest = behind;
        match sign {
            b'"' | b'\\' | b'/' => out.bytes.push(*sign),
            b'b' => out.bytes.push(0x8),
            b'f' => out.bytes.push(0xc),
            b'n' => out.bytes.push(b'\n'),
            b'r' => out.bytes.push(b'\r'),
            b't' => out.bytes.push(b'\t'),
            b'u' => {
                let digits = rest.get(..4).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit))?;
                let number = u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
                // Halves of a pair are no characters.
                out.bytes.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &rest[4..];
            }
            _ => return None,
        }
        let (plain, behind) = rest.split_at(plain_length(rest));
        out.bytes.extend_from_slice(plain);
        rest = behind;
    }
}

/// What is behind a value that is left out.
fn skipped(text: &[u8]) -> Option<&[u8]> {
    match text.first()? {
        b'"' => {
            let rest = &text[1..];
            rest[plain_length(rest)..].strip_prefix(b"\"")
        }
        b't' => text.strip_prefix(b"true"),
        b'f' => text.strip_prefix(b"false"),
        b'n' => text.strip_prefix(b"null"),
        _ => Number::read(text).map(|number| &text[number.length..]),
    }
}

/// Without the white space that `text` begins with, but for ends of lines.
#[inline]
fn space(text: &[u8]) -> &[u8] {
    match text.first() {
        Some(b' ' | b'\t' | b'\r') => {
            let length = text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r'));
            &text[length.unwrap_or(text.len())..]
        }
        _ => text,
    }
}

/// Bytes until a quote, a backslash or a control character, eight at a time.
#[inline]
pub(crate) fn plain_length(bytes: &[u8]) -> usize {
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
