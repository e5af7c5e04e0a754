//! What stands in a vgroup's log: the bytes that consumers get, and beside them what we need to apply the entry again.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tdengine_wire::cursor::{Reader, Write as _};

use crate::error::{Result, ServerError};
use crate::schema::Stable;
use crate::table::TableMeta;
use crate::wal::Wal;

/// What an entry does to a vgroup. Applying the entries of a log in order gives the same state each time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) enum Effect {
    /// Nothing: a marker, or an entry that repeats what is there already (FACTS F13).
    Nothing,
    /// A super table appears or gets another schema.
    PutStable(Stable),
    /// A super table and its children disappear.
    DropStable {
        /// Its uid.
        suid: i64,
    },
    /// Tables appear or change.
    PutTables(Vec<TableMeta>),
    /// Tables disappear.
    DropTables(Vec<i64>),
    /// Rows disappear.
    Delete {
        /// The tables.
        uids: Vec<i64>,
        /// First timestamp.
        from: i64,
        /// Last timestamp.
        to: i64,
    },
    /// A group commits.
    Commit {
        /// The group.
        group: String,
        /// The topic.
        topic: String,
        /// The next version to read.
        offset: i64,
    },
    /// Offsets are forgotten: those of a topic, or of one group of it.
    Forget {
        /// The topic.
        topic: String,
        /// The group, `None` for all of them.
        group: Option<String>,
    },
}

const KIND_MARKER: u8 = 0;
const KIND_SUBMIT: u8 = 1;
const KIND_META: u8 = 2;

/// An entry before it has a version.
#[derive(Debug, Clone)]
pub(crate) enum Payload {
    /// An effect without anything to deliver.
    Marker(Effect),
    /// Rows.
    Submit(Vec<SubmitRecord>),
    /// A change with its body in C layout.
    Meta(MetaRecord),
}

/// A change as it is logged.
#[derive(Debug, Clone)]
pub(crate) struct MetaRecord {
    /// The catalog's change that it belongs to; 0 for none.
    pub change: u64,
    /// PROTOCOL 9.2.
    pub raw_type: u16,
    /// The mark.
    pub source: u8,
    /// The super table that it is about, 0 for none.
    pub suid: i64,
    /// What it does.
    pub effect: Effect,
    /// The struct in C layout, without the head.
    pub body: Bytes,
}

/// Rows of one table as they are logged.
#[derive(Debug, Clone)]
pub(crate) struct SubmitRecord {
    pub flags: u8,
    pub uid: i64,
    pub suid: i64,
    pub schema_version: i32,
    pub name: Arc<str>,
    pub ids: Arc<[i16]>,
    pub block: Bytes,
    pub create: Option<CreateRecord>,
}

/// The auto-create part of rows.
#[derive(Debug, Clone)]
pub(crate) struct CreateRecord {
    /// The table that appears; `None` when it was there already.
    pub meta: Option<TableMeta>,
    /// The encoded create-table request.
    pub body: Bytes,
}

impl Payload {
    /// A log record of it, ready for [`Wal::append`].
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut out = Wal::record();
        match self {
            Self::Marker(effect) => {
                out.push(KIND_MARKER);
                out.put_binary(&json(effect)?);
            }
            Self::Submit(tables) => {
                out.reserve(tables.iter().map(|table| table.block.len() + 64).sum());
                out.push(KIND_SUBMIT);
                out.put_uvarint(tables.len() as u64);
                for table in tables {
                    table.encode(&mut out)?;
                }
            }
            Self::Meta(record) => {
                out.push(KIND_META);
                out.put(&record.change.to_le_bytes());
                out.put(&record.raw_type.to_le_bytes());
                out.push(record.source);
                out.put(&record.suid.to_le_bytes());
                out.put_binary(&json(&record.effect)?);
                out.put(&record.body);
            }
        }
        Ok(out)
    }

    /// Reads what [`Payload::encode`] wrote, without the record's head.
    pub fn decode(bytes: &Bytes) -> Result<Self> {
        let mut reader = Reader::new(bytes);
        match reader.u8("entry kind")? {
            KIND_MARKER => Ok(Self::Marker(parse(reader.binary("effect")?)?)),
            KIND_SUBMIT => {
                let count = reader.uvarint("tables")? as i64;
                let count = reader.count(count, 20, "tables")?;
                let tables = (0..count).map(|_| SubmitRecord::decode(&mut reader, bytes));
                Ok(Self::Submit(tables.collect::<Result<_>>()?))
            }
            KIND_META => {
                let (change, raw_type) = (reader.u64("change")?, reader.u16("raw type")?);
                let (source, suid) = (reader.u8("source")?, reader.i64("suid")?);
                let effect = parse(reader.binary("effect")?)?;
                let body = bytes.slice(reader.position()..);
                Ok(Self::Meta(MetaRecord { change, raw_type, source, suid, effect, body }))
            }
            other => Err(ServerError::invalid_parameter(format!("log entry of unknown kind {other}"))),
        }
    }
}

impl SubmitRecord {
    /// Whether its table is there without it.
    pub fn makes_no_table(&self) -> bool {
        self.create.as_ref().is_none_or(|create| create.meta.is_none())
    }

    fn encode(&self, out: &mut Vec<u8>) -> Result<()> {
        out.push(self.flags);
        out.put(&self.uid.to_le_bytes());
        out.put(&self.suid.to_le_bytes());
        out.put_zigzag(i64::from(self.schema_version));
        out.put_binary(self.name.as_bytes());
        out.put_uvarint(self.ids.len() as u64);
        self.ids.iter().for_each(|id| out.put_zigzag(i64::from(*id)));
        match &self.create {
            None => out.push(0),
            Some(create) => {
                out.push(1);
                out.put_binary(&json(&create.meta)?);
                out.put_binary(&create.body);
            }
        }
        out.put_binary(&self.block);
        Ok(())
    }

    fn decode(reader: &mut Reader<'_>, bytes: &Bytes) -> Result<Self> {
        let (flags, uid, suid) = (reader.u8("flags")?, reader.i64("uid")?, reader.i64("suid")?);
        let schema_version = reader.zigzag32("schema version")?;
        let name = String::from_utf8_lossy(reader.binary("table")?).into();
        let count = reader.uvarint("columns")? as i64;
        let ids = (0..reader.count(count, 1, "columns")?).map(|_| reader.zigzag("column id").map(|id| id as i16));
        let ids = ids.collect::<Result<Vec<_>, _>>()?.into();
        let create = match reader.u8("create")? {
            0 => None,
            _ => {
                let meta = parse(reader.binary("create effect")?)?;
                Some(CreateRecord { meta, body: slice(reader, bytes, "create body")? })
            }
        };
        let block = slice(reader, bytes, "block")?;
        Ok(Self { flags, uid, suid, schema_version, name, ids, block, create })
    }
}

/// A length and that many bytes, sharing the memory of `bytes`, which `reader` reads.
fn slice(reader: &mut Reader<'_>, bytes: &Bytes, what: &'static str) -> Result<Bytes> {
    let length = reader.binary(what)?.len();
    let end = reader.position();
    Ok(bytes.slice(end - length..end))
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| ServerError::invalid_parameter(error.to_string()))
}

fn parse<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| ServerError::invalid_parameter(format!("log entry: {error}")))
}
