//! Changes of the log in their C layout (PROTOCOL 9.3, FACTS F18, F60, F61): ids, versions, texts and uids that the
//! JSON form does not have.

use tdengine_wire::cursor::{Reader, Write as _};
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, DataType, Field, Result, WireError};

use super::data::read_schema;

pub use tdengine_wire::meta::kind;

/// Bit of the source byte and of submit flags: written by a replica (PROTOCOL 10.1).
pub const MARK: u8 = 8;
/// Message head before every struct: length and vgroup.
const HEAD_BYTES: usize = 8;
const KIND_CHILD: u8 = 2;
/// Alter action that changes comment or time to live only.
pub const ALTER_OPTIONS: i64 = 9;

/// A change as an entry holds it.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    CreateStable(Stable),
    AlterStable(Stable),
    DropStable { name: String, suid: i64 },
    CreateTables(Vec<CreateTable>),
    AlterTable { name: String, action: u8 },
    DropTables(Vec<(String, i64)>),
    Delete(Delete),
}

/// A super table with its schemas after the change.
#[derive(Clone, Debug, PartialEq)]
pub struct Stable {
    pub name: String,
    pub suid: i64,
    pub column_version: i32,
    pub columns: Vec<Field>,
    pub tag_version: i32,
    pub tags: Vec<Field>,
    /// The statement, where SQL made the change.
    pub statement: Vec<u8>,
    /// Written by a replica or grown by a schemaless write (FACTS F10).
    pub is_marked: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub name: String,
    pub comment: String,
    pub of: TableOf,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TableOf {
    Stable {
        stable: String,
        suid: i64,
        /// Values that are not NULL, by tag name.
        tags: Vec<Tag>,
    },
    Normal { columns: Vec<Field> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tag {
    pub name: String,
    pub id: i16,
    pub data_type: DataType,
    /// Little-endian or text bytes, without a length; NCHAR as UTF-32LE.
    pub bytes: Vec<u8>,
}

impl Tag {
    /// The value as a SQL literal.
    pub fn to_sql(&self) -> String {
        if self.data_type == DataType::Geometry {
            return wkt::literal(&self.bytes);
        }
        let value = Value::read(self.data_type, &self.bytes).unwrap_or(Value::Null);
        value.to_sql(ColumnType::of(self.data_type))
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// 0 for a normal table.
    pub suid: i64,
    /// The tables that were hit (FACTS F18).
    pub uids: Vec<u64>,
    pub from: i64,
    pub to: i64,
    pub affected: i64,
    pub table: String,
    pub time_column: String,
    time: i64,
    source: u8,
}

impl Change {
    /// Reads the body of an entry; `None` for a kind that is no change of ours to know.
    ///
    /// # Errors
    /// When bytes are missing or impossible.
    pub fn parse(raw_type: u16, body: &[u8]) -> Result<Option<Self>> {
        let mut reader = Reader::new(body);
        reader.take(HEAD_BYTES, "message head")?;
        Ok(Some(match raw_type {
            kind::CREATE_STABLE => Self::CreateStable(read_stable(framed(&mut reader)?)?),
            kind::ALTER_STABLE => Self::AlterStable(read_stable(framed(&mut reader)?)?),
            kind::DROP_STABLE => {
                let mut reader = framed(&mut reader)?;
                Self::DropStable { name: reader.cstr("stable name")?.into(), suid: reader.i64("suid")? }
            }
            kind::CREATE_TABLE => Self::CreateTables(read_creates(framed(&mut reader)?)?),
            kind::ALTER_TABLE => {
                let mut reader = framed(&mut reader)?;
                Self::AlterTable { name: reader.cstr("table name")?.into(), action: reader.u8("alter action")? }
            }
            kind::DROP_TABLE => Self::DropTables(read_drops(framed(&mut reader)?)?),
            kind::DELETE => Self::Delete(read_delete(&mut reader)?),
            _ => return Ok(None),
        }))
    }
}

/// What stands behind `ALTER TABLE name` for an entry of that kind; `None` for comments and times to live, and for what
/// this version does not know. `type_of` tells the type of a column that is to become wider.
///
/// # Errors
/// When bytes are missing or impossible.
pub fn alter_clause(raw: &[u8], type_of: &dyn Fn(&str) -> Option<ColumnType>) -> Result<Option<String>> {
    use tdengine_wire::escape::identifier;
    let (_, body) = super::open_envelope(raw)?;
    let mut reader = Reader::new(body);
    reader.take(HEAD_BYTES, "message head")?;
    let mut reader = framed(&mut reader)?;
    reader.cstr("table name")?;
    let action = reader.u8("alter action")?;
    reader.i32("column id")?;
    Ok(match action {
        4 => {
            let name = reader.cstr("tag name")?.to_owned();
            let is_null = reader.u8("tag is null")? != 0;
            let data_type = DataType::from_code(reader.u8("tag type")?)?;
            let bytes = if is_null { Vec::new() } else { reader.binary("tag value")?.to_vec() };
            let tag = Tag { name, id: 0, data_type, bytes };
            let value = if is_null { "NULL".into() } else { tag.to_sql() };
            Some(format!("set tag {} = {value}", identifier(&tag.name)))
        }
        5 | 14 => {
            let name = identifier(reader.cstr("column name")?);
            let data_type = DataType::from_code(reader.u8("column type")?)?;
            reader.u8("column flags")?;
            let column_type = ColumnType { data_type, bytes: reader.zigzag32("column bytes")? };
            Some(format!("add column {name} {column_type}"))
        }
        6 => Some(format!("drop column {}", identifier(reader.cstr("column name")?))),
        7 => {
            let name = reader.cstr("column name")?;
            let data_type = DataType::from_code(reader.u8("column type")?)?;
            let wider = ColumnType { data_type, bytes: reader.zigzag32("column bytes")? };
            let is_wider = |here: &ColumnType| here.data_type == data_type && here.bytes < wider.bytes;
            type_of(name).filter(is_wider).map(|_| format!("modify column {} {wider}", identifier(name)))
        }
        10 => {
            let (from, to) = (identifier(reader.cstr("column name")?), identifier(reader.cstr("new name")?));
            Some(format!("rename column {from} {to}"))
        }
        _ => None,
    })
}

fn framed<'a>(reader: &mut Reader<'a>) -> Result<Reader<'a>> {
    let length = reader.i32("struct length")?;
    let length = usize::try_from(length).map_err(|_| invalid("struct length", length))?;
    Ok(Reader::new(reader.take(length, "struct")?))
}

fn invalid(what: &'static str, value: impl std::fmt::Display) -> WireError {
    WireError::Invalid { what, why: value.to_string() }
}

fn read_stable(mut reader: Reader<'_>) -> Result<Stable> {
    let name = reader.cstr("stable name")?.to_owned();
    let suid = reader.i64("suid")?;
    let rollup = reader.u8("rollup")?;
    let (column_version, columns) = read_schema(&mut reader)?;
    let (tag_version, tags) = read_schema(&mut reader)?;
    let mut stable =
        Stable { name, suid, column_version, columns, tag_version, tags, statement: Vec::new(), is_marked: false };
    // Roll-up parameters come next where there are any; nothing behind them is needed then.
    if rollup != 0 {
        return Ok(stable);
    }
    let length = reader.i32("statement length")?;
    if length > 0 {
        stable.statement = reader.binary("statement")?.to_vec();
    }
    if reader.left() > 0 {
        stable.is_marked = reader.u8("source")? & MARK != 0;
    }
    Ok(stable)
}

fn read_creates(mut reader: Reader<'_>) -> Result<Vec<CreateTable>> {
    let count = reader.zigzag("created tables")?;
    (0..reader.count(count, 4, "created tables")?).map(|_| read_create(framed(&mut reader)?)).collect()
}

/// Reads one request to create a table, as type 4 lists them too.
///
/// # Errors
/// When bytes are missing or impossible.
pub fn parse_create(request: &[u8]) -> Result<CreateTable> {
    read_create(framed(&mut Reader::new(request))?)
}

fn read_create(mut reader: Reader<'_>) -> Result<CreateTable> {
    reader.zigzag("create flags")?;
    let name = reader.cstr("table name")?.to_owned();
    reader.take(8 + 8 + 4, "uid, birth time, time to live")?;
    let table_kind = reader.u8("table kind")?;
    let comment = match reader.i32("comment length")? {
        length if length > 0 => reader.cstr("comment")?.to_owned(),
        _ => String::new(),
    };
    let of = if table_kind == KIND_CHILD {
        let stable = reader.cstr("stable name")?.to_owned();
        reader.u8("tag count")?;
        let suid = reader.i64("suid")?;
        let blob = reader.binary("tags")?;
        let names = reader.i32("tag names")?;
        let names = reader.count(i64::from(names), 1, "tag names")?;
        let names = (0..names).map(|_| reader.cstr("tag name").map(str::to_owned)).collect::<Result<Vec<_>>>()?;
        TableOf::Stable { stable, suid, tags: read_tags(blob, names)? }
    } else {
        TableOf::Normal { columns: read_schema(&mut reader)?.1 }
    };
    Ok(CreateTable { name, comment, of })
}

/// Flags of a tag blob.
const TAGS_JSON: u8 = 0x40;
const TAGS_LARGE_INDEX: u8 = 0x20;

/// Reads a tag blob; the names are those of the tags in it, in order (FACTS F22: NULL tags are absent).
fn read_tags(blob: &[u8], names: Vec<String>) -> Result<Vec<Tag>> {
    let mut reader = Reader::new(blob);
    let flags = reader.u8("tag flags")?;
    reader.i16("tag bytes")?;
    let count = reader.i16("tag count")?;
    reader.i32("tag version")?;
    let index_width = if flags & TAGS_LARGE_INDEX != 0 { 2 } else { 1 };
    let count = reader.count(i64::from(count), index_width, "tag count")?;
    reader.take(count * index_width, "tag index")?;
    if flags & TAGS_JSON != 0 {
        let Some(name) = names.into_iter().next() else { return Ok(Vec::new()) };
        let bytes = read_json_tag(&mut reader, count)?;
        return Ok(vec![Tag { name, id: 0, data_type: DataType::Json, bytes }]);
    }
    let mut tags = Vec::with_capacity(count);
    let mut names = names.into_iter();
    for _ in 0..count {
        let id = reader.zigzag("tag id")?;
        let id = i16::try_from(id).map_err(|_| invalid("tag id", id))?;
        let data_type = DataType::from_code(reader.u8("tag type")?)?;
        let bytes = match data_type.width() {
            Some(width) => reader.take(width, "tag value")?,
            None => reader.binary("tag value")?,
        };
        tags.push(Tag { name: names.next().unwrap_or_default(), id, data_type, bytes: bytes.to_vec() });
    }
    Ok(tags)
}

/// A JSON tag is kept as pairs of key and value; the text is made of them again.
fn read_json_tag(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u8>> {
    let mut object = serde_json::Map::new();
    for _ in 0..count {
        let key = reader.cstr("JSON tag key")?.to_owned();
        let code = reader.u8("JSON tag type")?;
        let value = match code {
            0 => serde_json::Value::Null,
            _ => match DataType::from_code(code)? {
                DataType::Nchar => {
                    let bytes = reader.binary("JSON tag value")?;
                    serde_json::Value::String(tdengine_wire::value::nchar_text(bytes))
                }
                DataType::Bool => serde_json::Value::Bool(reader.u8("JSON tag value")? != 0),
                DataType::Double => serde_json::json!(f64::from_bits(reader.u64("JSON tag value")?)),
                DataType::BigInt => serde_json::json!(reader.i64("JSON tag value")?),
                other => return Err(invalid("JSON tag type", other)),
            },
        };
        object.insert(key, value);
    }
    Ok(serde_json::Value::Object(object).to_string().into_bytes())
}

fn read_drops(mut reader: Reader<'_>) -> Result<Vec<(String, i64)>> {
    let count = reader.zigzag("dropped tables")?;
    (0..reader.count(count, 4, "dropped tables")?)
        .map(|_| {
            let mut one = framed(&mut reader)?;
            Ok((one.cstr("table name")?.to_owned(), one.i64("suid")?))
        })
        .collect()
}

fn read_delete(reader: &mut Reader<'_>) -> Result<Delete> {
    let suid = reader.i64("suid")?;
    let count = reader.zigzag("deleted tables")?;
    let uids = (0..reader.count(count, 8, "deleted tables")?).map(|_| reader.u64("uid")).collect::<Result<_>>()?;
    Ok(Delete {
        suid,
        uids,
        from: reader.i64("from")?,
        to: reader.i64("to")?,
        affected: reader.zigzag("affected rows")?,
        table: reader.cstr("table name")?.into(),
        time_column: reader.cstr("time column")?.into(),
        time: reader.i64("time")?,
        source: if reader.left() > 0 { reader.u8("source")? } else { 0 },
    })
}

impl Delete {
    /// The same delete of another table, in the form that is written back: a super table's is written child by child,
    /// because a server forgets the condition on tags (FACTS F17).
    pub fn raw_for(&self, table: &str, vgroup_head: &[u8]) -> Vec<u8> {
        let mut body = Vec::new();
        body.put(&vgroup_head[..HEAD_BYTES.min(vgroup_head.len())]);
        body.put(&self.suid.to_le_bytes());
        body.put_zigzag(self.uids.len() as i64);
        self.uids.iter().for_each(|uid| body.put(&uid.to_le_bytes()));
        body.put(&self.from.to_le_bytes());
        body.put(&self.to.to_le_bytes());
        body.put_zigzag(self.affected);
        body.put_cstr(table);
        body.put_cstr(&self.time_column);
        body.put(&self.time.to_le_bytes());
        body.push(self.source);
        super::envelope(kind::DELETE, &body)
    }

    /// The statement that libtaos makes of it in 256 bytes (FACTS F68), and that is sent where it does not fit.
    pub fn statement(&self, table: &str, from: i64, to: i64) -> String {
        let column = &self.time_column;
        format!("delete from {table} where `{column}` >= {from} and `{column}` <= {to}")
    }
}

/// Geometry tags as SQL says them.
mod wkt {
    /// WKB in hexadecimal is not taken by SQL: points, lines and polygons are written out.
    pub fn literal(wkb: &[u8]) -> String {
        match text(wkb) {
            Some(text) => format!("'{text}'"),
            None => "NULL".into(),
        }
    }

    fn text(wkb: &[u8]) -> Option<String> {
        if wkb.first() != Some(&1) {
            return None;
        }
        let mut at = 5;
        match u32::from_le_bytes(wkb.get(1..5)?.try_into().ok()?) {
            1 => Some(format!("POINT({})", point(wkb, &mut at)?)),
            2 => Some(format!("LINESTRING({})", points(wkb, &mut at)?)),
            3 => {
                let rings = count(wkb, &mut at)?;
                let rings = (0..rings).map(|_| Some(format!("({})", points(wkb, &mut at)?))).collect::<Option<Vec<_>>>()?;
                Some(format!("POLYGON({})", rings.join(",")))
            }
            _ => None,
        }
    }

    fn count(wkb: &[u8], at: &mut usize) -> Option<usize> {
        let count = u32::from_le_bytes(wkb.get(*at..*at + 4)?.try_into().ok()?) as usize;
        *at += 4;
        (count <= wkb.len() / 16 + 1).then_some(count)
    }

    fn points(wkb: &[u8], at: &mut usize) -> Option<String> {
        let all = (0..count(wkb, at)?).map(|_| point(wkb, at)).collect::<Option<Vec<_>>>()?;
        Some(all.join(","))
    }

    fn point(wkb: &[u8], at: &mut usize) -> Option<String> {
        let mut next = || {
            let number = f64::from_le_bytes(wkb.get(*at..*at + 8)?.try_into().ok()?);
            *at += 8;
            Some(number)
        };
        Some(format!("{} {}", next()?, next()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    /// Bodies of recordings c3-meta and c7-meta-special.
    #[test]
    fn recorded_changes_are_read_whole() {
        let body = bytes("460000002a0000003a0000000473743100a1ce6ee7b7b08d11000402090110020374730004010804026100020204020806027400000000000001040202020100020402010001");
        let Some(Change::CreateStable(stable)) = Change::parse(kind::CREATE_STABLE, &body).unwrap() else { panic!() };
        assert_eq!((stable.name.as_str(), stable.column_version, stable.tag_version), ("st1", 1, 1));
        let fields: Vec<_> = stable.columns.iter().chain(&stable.tags).map(|field| (&*field.name, field.id)).collect();
        assert_eq!(fields, [("ts", 1), ("a", 2), ("t", 3)]);
        assert!(!stable.is_marked && stable.statement.is_empty());

        let body = bytes("610000002a00000055000000024f0000000003633500c403f0b57c205d53b35fcb07a2010000050000000205000000066368696c6400047374310001a1ce6ee7b7b08d111000100001000100000000060405000000010000000274000000000000");
        let Some(Change::CreateTables(tables)) = Change::parse(kind::CREATE_TABLE, &body).unwrap() else { panic!() };
        assert_eq!((tables[0].name.as_str(), tables[0].comment.as_str()), ("c5", "child"));
        let TableOf::Stable { stable, tags, .. } = &tables[0].of else { panic!() };
        assert_eq!((stable.as_str(), tags[0].name.as_str(), tags[0].to_sql().as_str()), ("st1", "t", "5"));

        let body = bytes("2f0000002a00000023000000040d000000036333000bc9fa869db48d11000d00000003633400a1ce6ee7b7b08d1100");
        let Some(Change::DropTables(tables)) = Change::parse(kind::DROP_TABLE, &body).unwrap() else { panic!() };
        assert_eq!(tables.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["c3", "c4"]);

        let body = bytes("280000002a0000001c0000000363310004070000000274000004040b000000af6ccb07a201000000");
        let expect = Change::AlterTable { name: "c1".into(), action: 4 };
        assert_eq!(Change::parse(kind::ALTER_TABLE, &body).unwrap(), Some(expect));
    }

    #[test]
    fn tags_at_their_extremes_become_exact_literals() {
        let body = bytes(
            "d7 00 00 00 03 02 d7 00 00 00 3e 00 00 00 cb 00 00 00 02 c5 00 00 00 00 03 62 31 00 e2 0b 70 45 7d 20 5d 53 9f
             57 d4 07 a2 01 00 00 00 00 00 00 02 ff ff ff ff 03 73 62 00 0a bd 42 e5 7b c4 89 6a 11 72 00 72 00 0a 00 01 00
             00 00 00 0a 14 1e 24 27 2d 38 3d 55 06 05 01 00 00 00 00 00 20 00 08 0e ff ff ff ff ff ff ff ff 0a 07 9a 99 99
             99 99 99 b9 3f 0c 06 cd cc cc 3d 0e 01 01 10 08 03 71 22 71 12 0a 08 9b 6d 00 00 22 00 00 00 14 10 02 00 ff 16
             14 15 01 01 00 00 00 00 00 00 00 00 00 f0 3f 00 00 00 00 00 00 00 40 18 09 01 68 e5 cf 8b 01 00 00 0a 00 00 00
             02 74 00 02 75 00 02 64 00 02 66 00 02 62 00 02 76 00 02 6e 00 03 76 62 00 02 67 00 02 78 00 00 00 00 00 00",
        );
        let body = &body[6..];
        let Some(Change::CreateTables(tables)) = Change::parse(kind::CREATE_TABLE, body).unwrap() else { panic!() };
        let TableOf::Stable { tags, .. } = &tables[0].of else { panic!() };
        let literals: Vec<_> = tags.iter().map(|tag| (tag.name.as_str(), tag.to_sql())).collect();
        let expect = [
            ("t", "9007199254740993"),
            ("u", "18446744073709551615"),
            ("d", "1e-1"),
            ("f", "1e-1"),
            ("b", "true"),
            ("v", "'q\"q'"),
            ("n", "'涛\"'"),
            ("vb", "'\\x00FF'"),
            ("g", "'POINT(1 2)'"),
            ("x", "1700000000001"),
        ];
        assert_eq!(literals, expect.map(|(name, literal)| (name, literal.to_owned())));
    }

    #[test]
    fn a_delete_is_written_back_for_another_table() {
        let body = bytes("4b0000002a0000000bc9fa869db48d1106bf03b0b57c205d53c103d0b57c205d53c203d0b57c205d530000000000000080ff7f6e87740100000003737400037473008a82cb07a201000000");
        let Some(Change::Delete(delete)) = Change::parse(kind::DELETE, &body).unwrap() else { panic!() };
        assert_eq!((delete.table.as_str(), delete.time_column.as_str(), delete.uids.len()), ("st", "ts", 3));
        assert_eq!((delete.from, delete.to, delete.affected), (i64::MIN, 1_599_999_999_999, 0));
        assert_eq!(&delete.raw_for("st", &body)[6..], &body[..], "the same table gives the same bytes");
        let raw = delete.raw_for("child", &body);
        let (raw_type, body) = super::super::open_envelope(&raw).unwrap();
        let Some(Change::Delete(child)) = Change::parse(raw_type, body).unwrap() else { panic!() };
        assert_eq!(child, Delete { table: "child".into(), ..delete });
    }

    #[test]
    fn cut_bytes_are_errors_never_panics() {
        let body = bytes("460000002a0000003a0000000473743100a1ce6ee7b7b08d11000402090110020374730004010804026100020204020806027400000000000001040202020100020402010001");
        for length in 0..body.len() - 8 {
            for raw_type in [kind::CREATE_STABLE, kind::CREATE_TABLE, kind::DROP_TABLE, kind::DELETE, kind::ALTER_TABLE] {
                let _ = Change::parse(raw_type, &body[..length]);
            }
            assert!(Change::parse(kind::CREATE_STABLE, &body[..length]).is_err(), "{length}");
        }
    }
}
