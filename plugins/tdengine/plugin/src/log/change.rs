//! Changes of the log: ids, versions, texts and uids that the JSON form does not have (PROTOCOL 9.3, FACTS F18, F60, F61).

use tdengine_wire::escape::identifier;
use tdengine_wire::meta::{self, Meta, RawMeta, Rendering, TableAction, TableBody, TagKey, alter_type};
use tdengine_wire::tmq::create_batch;
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, DataType, Field, Result};

pub use tdengine_wire::meta::kind;

/// Alter action that changes comment or time to live only.
pub const ALTER_OPTIONS: i64 = alter_type::OPTIONS as i64;

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
    /// The request that SQL made of its statement, the text in it.
    pub statement: Vec<u8>,
    /// Written by a replica or grown by a schemaless write (FACTS F10).
    pub is_marked: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable {
    pub name: String,
    pub comment: String,
    /// Milliseconds since 1970.
    pub created_ms: i64,
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
    /// 0 for a JSON tag.
    pub id: i16,
    pub data_type: DataType,
    /// Little-endian or text bytes, without a length; NCHAR as UTF-32LE.
    pub bytes: Vec<u8>,
}

impl Tag {
    /// The value as a SQL literal.
    pub fn to_sql(&self) -> String {
        literal(self.data_type, &self.bytes)
    }
}

fn literal(data_type: DataType, bytes: &[u8]) -> String {
    let value = Value::read(data_type, bytes).unwrap_or(Value::Null);
    value.to_sql(ColumnType::of(data_type))
}

#[derive(Clone, Debug, PartialEq)]
pub struct Delete {
    /// 0 for a normal table.
    pub suid: i64,
    /// The tables that were hit (FACTS F18).
    pub uids: Vec<i64>,
    pub from: i64,
    pub to: i64,
    pub affected: i64,
    pub table: String,
    entry: meta::Delete,
    vgroup_id: i32,
}

impl Change {
    /// Reads the body of an entry; `None` for a kind that is no change of ours to know.
    ///
    /// # Errors
    /// When bytes are missing or impossible.
    pub fn parse(raw_type: u16, body: &[u8]) -> Result<Option<Self>> {
        if !kind::ALL.contains(&raw_type) {
            return Ok(None);
        }
        let RawMeta { vgroup_id, meta } = RawMeta::decode(raw_type, body)?;
        Ok(Some(match meta {
            Meta::CreateStable(stable) => Self::CreateStable(stable.into()),
            Meta::AlterStable(stable) => Self::AlterStable(stable.into()),
            Meta::DropStable { name, suid, .. } => Self::DropStable { name, suid },
            Meta::CreateTables { tables, .. } => Self::CreateTables(tables.into_iter().map(CreateTable::from).collect()),
            Meta::AlterTable(alter) => Self::AlterTable { action: alter.action.code(), name: alter.name },
            Meta::DropTables { tables, .. } => {
                Self::DropTables(tables.into_iter().map(|table| (table.name, table.suid)).collect())
            }
            Meta::Delete(entry) => Self::Delete(Delete {
                suid: entry.suid,
                uids: entry.uids.clone(),
                from: entry.from,
                to: entry.to,
                affected: entry.affected,
                table: entry.table.clone(),
                entry,
                vgroup_id,
            }),
        }))
    }
}

impl From<meta::Stable> for Stable {
    fn from(stable: meta::Stable) -> Self {
        Self {
            name: stable.name,
            suid: stable.suid,
            column_version: stable.column_version,
            columns: stable.columns,
            tag_version: stable.tag_version,
            tags: stable.tags,
            statement: stable.request,
            is_marked: stable.source & meta::SOURCE_REPLICA != 0,
        }
    }
}

impl From<meta::CreateTable> for CreateTable {
    fn from(table: meta::CreateTable) -> Self {
        let of = match table.body {
            TableBody::Normal { columns, .. } => TableOf::Normal { columns },
            TableBody::Child { stable, suid, tags, mut names, .. } if tags.is_json => {
                let text = tags.exact_json().filter(|_| !tags.entries.is_empty() && !names.is_empty());
                let tag = |text: String| Tag { name: names.swap_remove(0), id: 0, data_type: DataType::Json, bytes: text.into() };
                TableOf::Stable { stable, suid, tags: text.map(tag).into_iter().collect() }
            }
            TableBody::Child { stable, suid, tags, names, .. } => {
                let tag = |(entry, name): (meta::TagEntry, String)| {
                    let TagKey::Id(id) = entry.key else { return None };
                    Some(Tag { name, id, data_type: entry.data_type?, bytes: entry.bytes })
                };
                let tags = tags.entries.into_iter().zip(names).filter_map(tag).collect();
                TableOf::Stable { stable, suid, tags }
            }
        };
        Self { name: table.name, comment: table.comment.unwrap_or_default(), created_ms: table.created_ms, of }
    }
}

/// What stands behind `ALTER TABLE name` for an entry of that kind; `None` for comments and times to live, and for what
/// this version does not know. `type_of` tells the type of a column that is to become wider.
///
/// # Errors
/// When bytes are missing or impossible.
pub fn alter_clause(raw: &[u8], type_of: &dyn Fn(&str) -> Option<ColumnType>) -> Result<Option<String>> {
    let (raw_type, body) = super::open_envelope(raw)?;
    let Meta::AlterTable(alter) = RawMeta::decode(raw_type, body)?.meta else { return Ok(None) };
    Ok(match alter.action {
        // See `SetTag`.
        TableAction::SetTag { .. } => None,
        TableAction::AddColumn { name, data_type, bytes, .. } => {
            Some(format!("add column {} {}", identifier(&name), ColumnType { data_type, bytes }))
        }
        TableAction::DropColumn { name } => Some(format!("drop column {}", identifier(&name))),
        TableAction::ModifyColumn { name, data_type, bytes } => {
            let wider = ColumnType { data_type, bytes };
            let is_wider = |here: &ColumnType| here.data_type == data_type && here.bytes < wider.bytes;
            type_of(&name).filter(is_wider).map(|_| format!("modify column {} {wider}", identifier(&name)))
        }
        TableAction::RenameColumn { name, new_name } => {
            Some(format!("rename column {} {}", identifier(&name), identifier(&new_name)))
        }
        TableAction::Options { .. } | TableAction::Compress { .. } | TableAction::Other { .. } => None,
    })
}

/// A new value of a child's tag.
pub struct SetTag {
    /// The tag's id, which an entry holds beside its name (recording c3).
    pub id: i32,
    pub name: String,
    pub data_type: DataType,
    /// Little-endian or text bytes, without a length; `None` for NULL.
    pub value: Option<Vec<u8>>,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    alter: meta::AlterTable,
    vgroup_id: i32,
}

impl SetTag {
    /// `None` for an entry of another kind.
    ///
    /// # Errors
    /// When bytes are missing or impossible.
    pub fn of(raw: &[u8]) -> Result<Option<Self>> {
        let (raw_type, body) = super::open_envelope(raw)?;
        let RawMeta { vgroup_id, meta } = RawMeta::decode(raw_type, body)?;
        let Meta::AlterTable(alter) = meta else { return Ok(None) };
        Ok(Self::of_entry(vgroup_id, alter))
    }

    fn of_entry(vgroup_id: i32, alter: meta::AlterTable) -> Option<Self> {
        let TableAction::SetTag { name, data_type, value } = &alter.action else { return None };
        let (name, data_type, value) = (name.clone(), *data_type, value.clone());
        Some(Self { id: alter.column_id, name, data_type, value, time_ms: alter.time_ms, vgroup_id, alter })
    }

    /// A new value of a tag, as an entry would hold it.
    pub fn new(table: &str, id: i32, name: &str, data_type: DataType, value: Option<Vec<u8>>, time_ms: i64) -> Self {
        let action = TableAction::SetTag { name: name.to_owned(), data_type, value };
        let (name, source) = (table.to_owned(), meta::SOURCE_LOCAL);
        let alter = meta::AlterTable { name, column_id: id, action, time_ms, source, rest: Vec::new() };
        Self::of_entry(NO_VGROUP, alter).expect("it sets a tag")
    }

    /// The value as a SQL literal.
    pub fn to_sql(&self) -> String {
        self.value.as_ref().map_or_else(|| "NULL".to_owned(), |value| literal(self.data_type, value))
    }

    /// The same value of the tag that is now called `name`, in the form that is written back.
    ///
    /// # Errors
    /// Never for an entry that was read.
    pub fn raw_named(&self, name: &str) -> Result<Vec<u8>> {
        let mut alter = self.alter.clone();
        if let TableAction::SetTag { name: old, .. } = &mut alter.action {
            name.clone_into(old);
        }
        let (raw_type, body) = RawMeta { vgroup_id: self.vgroup_id, meta: Meta::AlterTable(alter) }.encode()?;
        Ok(super::envelope(raw_type, &body))
    }
}

/// Reads one request to create a table, as type 4 lists them too.
///
/// # Errors
/// When bytes are missing or impossible.
pub fn parse_create(request: &[u8]) -> Result<CreateTable> {
    meta::CreateTable::decode(request).map(CreateTable::from)
}

/// Nobody looks at the vgroup of a message that is written back.
const NO_VGROUP: i32 = 0;

/// A message that creates tables, with requests as an entry has them.
pub fn create_message<'a>(requests: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u8> {
    super::envelope(kind::CREATE_TABLE, &create_batch(NO_VGROUP, requests, meta::SOURCE_LOCAL))
}

impl Delete {
    /// The same delete of another table, in the form that is written back: a super table's is written child by child,
    /// because a server forgets the condition on tags (FACTS F17).
    ///
    /// # Errors
    /// Never for a delete that was read.
    pub fn raw_for(&self, table: &str) -> Result<Vec<u8>> {
        let delete = meta::Delete { table: table.to_owned(), ..self.entry.clone() };
        let (raw_type, body) = RawMeta { vgroup_id: self.vgroup_id, meta: Meta::Delete(delete) }.encode()?;
        Ok(super::envelope(raw_type, &body))
    }

    /// The statement that libtaos makes of a raw delete of `table` in 256 bytes (FACTS F68).
    pub fn raw_statement(&self, table: &str) -> String {
        meta::Delete { table: table.to_owned(), ..self.entry.clone() }.sql(Rendering::Exact)
    }

    /// The statement for a table whose name is quoted and qualified already.
    pub fn statement(&self, table: &str, from: i64, to: i64) -> String {
        let column = identifier(&self.entry.timestamp);
        format!("delete from {table} where {column} >= {from} and {column} <= {to}")
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
        let raw = super::super::envelope(kind::ALTER_TABLE, &body);
        let set = SetTag::of(&raw).unwrap().unwrap();
        // Behind the columns ts, k, a, v, n and d.
        assert_eq!((set.id, set.name.as_str()), (7, "t"));
        assert_eq!(set.raw_named("t").unwrap(), raw);
        let renamed = SetTag::of(&set.raw_named("longer").unwrap()).unwrap().unwrap();
        assert_eq!((renamed.id, renamed.name.as_str(), renamed.to_sql().as_str()), (7, "longer", "11"));
        let made = SetTag::new("c1", 7, "t", set.data_type, set.value.clone(), set.time_ms);
        assert_eq!(made.raw_named("t").unwrap()[14..], raw[14..], "all but the vgroup");
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
        assert_eq!((delete.table.as_str(), delete.entry.timestamp.as_str(), delete.uids.len()), ("st", "ts", 3));
        assert_eq!((delete.from, delete.to, delete.affected), (i64::MIN, 1_599_999_999_999, 0));
        assert_eq!(&delete.raw_for("st").unwrap()[6..], &body[..], "the same table gives the same bytes");
        let raw = delete.raw_for("child").unwrap();
        let (raw_type, body) = super::super::open_envelope(&raw).unwrap();
        let Some(Change::Delete(child)) = Change::parse(raw_type, body).unwrap() else { panic!() };
        let entry = meta::Delete { table: "child".into(), ..delete.entry.clone() };
        assert_eq!(child, Delete { table: "child".into(), entry, ..delete });
    }
}
