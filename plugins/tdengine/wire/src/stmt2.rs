//! Bind data of prepared statements, version 2 (PROTOCOL 4.2): binary requests 9 ([`BindData`]) and 11
//! ([`BindRows`]).
//!
//! All offsets and lengths are checked while decoding, once per column; values are then read where they lie.

use std::borrow::Cow;

use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};
use crate::types::DataType;
use crate::value::Value;

const HEAD_BYTES: usize = 28;

/// The values that one question mark gets.
#[derive(Debug, Clone, PartialEq)]
pub struct BindColumn<'a> {
    data_type: DataType,
    nulls: Cow<'a, [u8]>,
    /// Where each value of a variable type ends in `data`; empty for fixed types.
    ends: Vec<usize>,
    data: Cow<'a, [u8]>,
}

impl<'a> BindColumn<'a> {
    /// A column of values: little-endian bytes of fixed types, UTF-8 text for NCHAR.
    ///
    /// # Errors
    /// When a value of a fixed type has another width.
    pub fn new<'v>(data_type: DataType, values: impl IntoIterator<Item = Option<&'v [u8]>>) -> Result<Self> {
        let (mut nulls, mut ends, mut data) = (Vec::new(), Vec::new(), Vec::new());
        for value in values {
            nulls.push(u8::from(value.is_none()));
            match (data_type.width(), value) {
                (Some(width), None) => data.resize(data.len() + width, 0),
                (Some(width), Some(value)) if width != value.len() => {
                    let why = format!("{} bytes for {data_type}", value.len());
                    return Err(WireError::unencodable("bind value", why));
                }
                (_, value) => data.extend_from_slice(value.unwrap_or_default()),
            }
            if data_type.is_variable() {
                ends.push(data.len());
            }
        }
        Ok(Self { data_type, nulls: nulls.into(), ends, data: data.into() })
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self> {
        let length = reader.u32("bind field length")? as usize;
        let body = length.checked_sub(4).ok_or_else(|| WireError::invalid("bind field length", length.to_string()))?;
        let mut reader = Reader::new(reader.take(body, "bind field")?);
        let code = reader.i32("bind type")?;
        let code = u8::try_from(code).map_err(|_| WireError::invalid("bind type", code.to_string()))?;
        let data_type = DataType::from_code(code)?;
        let rows = reader.i32("bind rows")?;
        let rows = reader.count(i64::from(rows), 1, "bind rows")?;
        let nulls = reader.take(rows, "bind nulls")?;
        let mut ends = Vec::new();
        if reader.u8("bind has lengths")? != 0 {
            let lengths = reader.take(rows.saturating_mul(4), "bind lengths")?;
            if data_type.is_variable() {
                ends = value_ends(nulls, lengths)?;
            }
        }
        let length = reader.i32("bind buffer length")?;
        let length = usize::try_from(length).map_err(|_| WireError::invalid("bind buffer", length.to_string()))?;
        let data = reader.take(length, "bind buffer")?;
        let column = Self { data_type, nulls: nulls.into(), ends, data: data.into() };
        column.check()?;
        Ok(column)
    }

    fn check(&self) -> Result<()> {
        let all_null = self.nulls.iter().all(|null| *null != 0);
        let fits = match self.data_type.width() {
            Some(width) => all_null || self.data.len() >= self.nulls.len().saturating_mul(width),
            None => all_null || self.ends.last().is_some_and(|end| *end <= self.data.len()),
        };
        if fits {
            return Ok(());
        }
        let why = format!("{} bytes for {} rows of {}", self.data.len(), self.nulls.len(), self.data_type);
        Err(WireError::invalid("bind buffer", why))
    }

    /// Its type.
    pub fn data_type(&self) -> DataType {
        self.data_type
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.nulls.len()
    }

    /// The bytes of a value, `None` for NULL. NCHAR is UTF-8 here.
    ///
    /// # Panics
    /// When `row` is beyond the last.
    pub fn bytes(&self, row: usize) -> Option<&[u8]> {
        if self.nulls[row] != 0 {
            return None;
        }
        if let Some(width) = self.data_type.width() {
            return Some(&self.data[row * width..(row + 1) * width]);
        }
        let start = if row == 0 { 0 } else { self.ends[row - 1] };
        Some(&self.data[start..self.ends[row]])
    }

    /// A value with its type. NCHAR comes as [`Value::Varchar`], for its bytes are UTF-8 here.
    ///
    /// # Panics
    /// When `row` is beyond the last.
    pub fn value(&self, row: usize) -> Value<'_> {
        let data_type = if self.data_type == DataType::Nchar { DataType::Varchar } else { self.data_type };
        self.bytes(row).map_or(Value::Null, |bytes| Value::read(data_type, bytes).unwrap_or(Value::Null))
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put(&[0; 4]);
        out.put(&i32::from(self.data_type.code()).to_le_bytes());
        out.put(&(self.rows() as i32).to_le_bytes());
        out.put(&self.nulls);
        out.push(u8::from(self.data_type.is_variable()));
        let mut from = 0;
        for end in &self.ends {
            out.put(&((end - from) as i32).to_le_bytes());
            from = *end;
        }
        out.put(&(self.data.len() as i32).to_le_bytes());
        out.put(&self.data);
        let length = (out.len() - start) as u32;
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

fn value_ends(nulls: &[u8], lengths: &[u8]) -> Result<Vec<usize>> {
    let mut end = 0usize;
    let (lengths, _) = lengths.as_chunks::<4>();
    let ends = nulls.iter().zip(lengths).map(|(null, length)| {
        let length = i32::from_le_bytes(*length);
        if *null == 0 {
            let length = usize::try_from(length).map_err(|_| WireError::invalid("bind length", length.to_string()))?;
            end = end.saturating_add(length);
        }
        Ok(end)
    });
    ends.collect()
}

/// What one table gets.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BindTable<'a> {
    /// Its name, where the statement has a question mark for it.
    pub name: Option<&'a str>,
    /// One value each.
    pub tags: Vec<BindColumn<'a>>,
    /// Columns of an INSERT, or parameters of a query.
    pub columns: Vec<BindColumn<'a>>,
}

/// Bind data of request 9.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BindData<'a> {
    /// In order.
    pub tables: Vec<BindTable<'a>>,
}

impl<'a> BindData<'a> {
    /// Reads bind data.
    ///
    /// # Errors
    /// When an offset, count or length is impossible.
    pub fn decode(data: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(data);
        let total = reader.u32("bind length")? as usize;
        let data = data.get(..total).ok_or(WireError::Truncated {
            what: "bind data",
            at: 0,
            need: total,
            left: data.len(),
        })?;
        let mut word = |what| reader.u32(what).map(|word| word as usize);
        let (count, tags, columns) = (word("bind tables")?, word("bind tags")?, word("bind columns")?);
        let (names_at, tags_at, columns_at) = (word("names offset")?, word("tags offset")?, word("columns offset")?);
        let count = Reader::new(data).count(count as i64, 2, "bind tables")?;
        let mut tables = vec![BindTable::default(); count];
        if let Some(mut names) = section(data, names_at)? {
            let mut lengths = Reader::new(names.take(count * 2, "name lengths")?);
            for table in &mut tables {
                let name = names.take(usize::from(lengths.u16("name length")?), "table name")?;
                let name = name.strip_suffix(&[0]).unwrap_or(name);
                let name = std::str::from_utf8(name).map_err(|error| WireError::invalid("table name", error.to_string()))?;
                table.name = (!name.is_empty()).then_some(name);
            }
        }
        for (table, group) in groups(data, tags_at, count, tags)?.into_iter().enumerate() {
            tables[table].tags = group;
        }
        for (table, group) in groups(data, columns_at, count, columns)?.into_iter().enumerate() {
            tables[table].columns = group;
        }
        Ok(Self { tables })
    }

    /// Writes bind data. All tables must have as many tags and columns as the first.
    pub fn encode(&self) -> Vec<u8> {
        let first = self.tables.first();
        let (tags, columns) = first.map_or((0, 0), |table| (table.tags.len(), table.columns.len()));
        let mut out = vec![0; HEAD_BYTES];
        let mut words = [0, self.tables.len() as u32, tags as u32, columns as u32, 0, 0, 0];
        if first.is_some_and(|table| table.name.is_some()) {
            words[4] = out.len() as u32;
            let names = self.tables.iter().map(|table| table.name.unwrap_or_default());
            names.clone().for_each(|name| out.put(&(name.len() as u16 + 1).to_le_bytes()));
            for name in names {
                out.put(name.as_bytes());
                out.push(0);
            }
        }
        if tags > 0 {
            words[5] = out.len() as u32;
            put_groups(&mut out, self.tables.iter().map(|table| table.tags.as_slice()));
        }
        if columns > 0 {
            words[6] = out.len() as u32;
            put_groups(&mut out, self.tables.iter().map(|table| table.columns.as_slice()));
        }
        words[0] = out.len() as u32;
        for (at, word) in words.iter().enumerate() {
            out[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
        }
        out
    }
}

/// A reader at an offset; `None` for offset 0, which means absent.
fn section(data: &[u8], offset: usize) -> Result<Option<Reader<'_>>> {
    if offset == 0 {
        return Ok(None);
    }
    let rest = data.get(offset..).ok_or_else(|| WireError::invalid("bind offset", offset.to_string()))?;
    Ok(Some(Reader::new(rest)))
}

fn groups(data: &[u8], offset: usize, tables: usize, fields: usize) -> Result<Vec<Vec<BindColumn<'_>>>> {
    let Some(mut reader) = section(data, offset)? else {
        return Ok(Vec::new());
    };
    let mut lengths = Reader::new(reader.take(tables.saturating_mul(4), "group lengths")?);
    let mut groups = Vec::with_capacity(tables);
    for _ in 0..tables {
        let length = lengths.u32("group length")? as usize;
        let mut group = Reader::new(reader.take(length, "bind group")?);
        let count = group.count(fields as i64, 17, "bind fields")?;
        groups.push((0..count).map(|_| BindColumn::decode(&mut group)).collect::<Result<_>>()?);
    }
    Ok(groups)
}

fn put_groups<'s, 'a: 's>(out: &mut Vec<u8>, groups: impl Iterator<Item = &'s [BindColumn<'a>]> + Clone) {
    let lengths_at = out.len();
    groups.clone().for_each(|_| out.put(&[0; 4]));
    for (index, group) in groups.enumerate() {
        let start = out.len();
        group.iter().for_each(|field| field.encode(out));
        let length = (out.len() - start) as u32;
        let at = lengths_at + index * 4;
        out[at..at + 4].copy_from_slice(&length.to_le_bytes());
    }
}

/// Bind data of request 11: rows whose table name and tags are repeated in each.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BindRows<'a> {
    /// In the order of the question marks.
    pub fields: Vec<BindColumn<'a>>,
}

impl<'a> BindRows<'a> {
    /// Reads bind data.
    ///
    /// # Errors
    /// When an offset, count or length is impossible, or the fields differ in rows.
    pub fn decode(data: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(data);
        let total = reader.u32("bind length")? as usize;
        let left = data.len();
        let data = data.get(..total).ok_or(WireError::Truncated { what: "bind data", at: 0, need: total, left })?;
        let rows = reader.u32("bind rows")? as usize;
        reader.u32("bind tables")?;
        let count = reader.u32("bind fields")?;
        let offset = reader.u32("fields offset")? as usize;
        let Some(mut reader) = section(data, offset)? else {
            return Ok(Self::default());
        };
        let count = reader.count(i64::from(count), 17, "bind fields")?;
        let fields: Vec<_> = (0..count).map(|_| BindColumn::decode(&mut reader)).collect::<Result<_>>()?;
        if fields.iter().any(|field| field.rows() != rows) {
            return Err(WireError::invalid("bind rows", format!("fields do not all have {rows}")));
        }
        Ok(Self { fields })
    }

    /// Writes bind data for `tables` tables.
    pub fn encode(&self, tables: u32) -> Vec<u8> {
        let rows = self.fields.first().map_or(0, BindColumn::rows);
        let mut out = Vec::new();
        for word in [0, rows as u32, tables, self.fields.len() as u32, 20] {
            out.put(&word.to_le_bytes());
        }
        self.fields.iter().for_each(|field| field.encode(&mut out));
        let total = (out.len() as u32).to_le_bytes();
        out[..4].copy_from_slice(&total);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(data_type: DataType, values: &[Option<&[u8]>]) -> BindColumn<'static> {
        BindColumn::new(data_type, values.iter().copied()).unwrap()
    }

    /// The bind data that the Python client sends for `insert into t values(?,?)` (PROTOCOL 17).
    #[test]
    fn the_protocols_bind_data() {
        let times = [1_700_000_000_000i64, 1_700_000_001_000].map(i64::to_le_bytes);
        let ts = column(DataType::Timestamp, &[Some(&times[0]), Some(&times[1])]);
        let v = column(DataType::Int, &[Some(&1i32.to_le_bytes()), None]);
        let data = BindData { tables: vec![BindTable { name: None, tags: vec![], columns: vec![ts, v] }] };
        let bytes = data.encode();
        let head = "5e00000001000000000000000200000000000000000000001c000000";
        let ts = "23000000090000000200000000000010000000\
            0068e5cf8b010000e86be5cf8b010000";
        let v = "1b000000040000000200000000010008000000\
            0100000000000000";
        assert_eq!(crate::tests::hex(&bytes), [head, "3e000000", ts, v].concat());
        let decoded = BindData::decode(&bytes).unwrap();
        assert_eq!(decoded, data);
        assert_eq!(decoded.tables[0].columns[1].value(1), Value::Null);
    }

    #[test]
    fn names_tags_and_texts() {
        let table = |name, text: &'static str| BindTable {
            name: Some(name),
            tags: vec![column(DataType::Nchar, &[Some(text.as_bytes())])],
            columns: vec![column(DataType::Varchar, &[Some(b"a"), None, Some(b"")])],
        };
        let data = BindData { tables: vec![table("d1", "涛"), table("d2", "")] };
        let bytes = data.encode();
        let decoded = BindData::decode(&bytes).unwrap();
        assert_eq!(decoded, data);
        assert_eq!(decoded.tables[0].tags[0].value(0), Value::Varchar("涛".as_bytes()));
        assert_eq!(decoded.tables[1].columns[0].value(2), Value::Varchar(b""));
        for cut in 0..bytes.len() {
            assert!(BindData::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let rows = BindRows { fields: decoded.tables[0].columns.clone() };
        assert_eq!(BindRows::decode(&rows.encode(1)).unwrap(), rows);
    }
}
