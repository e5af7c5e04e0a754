//! Binary requests 1 to 11 and binary replies (PROTOCOL 2.2, 3, 6.5).

use crate::block::BlockHeader;
use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};
use crate::types::{ColumnType, DataType};

/// First word of the newer binary replies.
const NEW_STYLE: u64 = u64::MAX;
const VERSION: u16 = 1;
const FIELD_NAME_BYTES: usize = 65;
const FIELD_BYTES: usize = 72;

/// A binary request after its 24-byte head; borrowed from the frame.
#[derive(Debug, Clone, PartialEq)]
pub enum BinaryRequest<'a> {
    /// 1: tags of a statement, as a raw block of one row; `id` is the statement.
    StmtSetTags {
        /// The raw block.
        block: &'a [u8],
    },
    /// 2: columns of a statement, as a raw block.
    StmtBind {
        /// The raw block.
        block: &'a [u8],
    },
    /// 3: TMQ raw data or meta.
    WriteRaw {
        /// 2, 4 or a number of `meta::kind`.
        raw_type: u16,
        /// The body.
        data: &'a [u8],
    },
    /// 4: a raw block into a table, columns by position.
    WriteBlock {
        /// A copy of the block's rows; trust the block.
        rows: i32,
        /// Case as stored.
        table: &'a str,
        /// The raw block.
        block: &'a [u8],
    },
    /// 5: a raw block into a table, columns by name.
    WriteBlockWithFields {
        /// A copy of the block's rows; trust the block.
        rows: i32,
        /// Case as stored.
        table: &'a str,
        /// The raw block.
        block: &'a [u8],
        /// One a column.
        fields: Vec<WriteField>,
    },
    /// 6: a statement.
    Query {
        /// One statement.
        sql: &'a str,
    },
    /// 7: the next block of a result; `id` is the result.
    FetchBlock,
    /// 9: bind data of a statement of version 2; see `stmt2`.
    Stmt2Bind {
        /// −1 for all columns.
        column: i32,
        /// The bind data.
        data: &'a [u8],
    },
    /// 10: checks a statement.
    ValidateSql {
        /// One statement.
        sql: &'a str,
    },
    /// 11: binds and executes; see `stmt2`.
    Stmt2BindExec {
        /// The bind data.
        data: &'a [u8],
    },
    /// A number that this library does not know, or a version of a known one.
    Unknown {
        /// The action.
        action: u64,
        /// Its version word, where the action has one.
        version: Option<u16>,
    },
}

/// Name and type of a column in request 5.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteField {
    /// At most 64 bytes.
    pub name: String,
    /// Type code as sent; the server checks it only together with the width (FACTS F27).
    pub type_code: u8,
    /// Width as in the block's schema.
    pub bytes: i32,
}

impl WriteField {
    /// A field of this name and type.
    pub fn new(name: impl Into<String>, column_type: ColumnType) -> Self {
        Self { name: name.into(), type_code: column_type.data_type.code(), bytes: column_type.bytes }
    }

    /// The type.
    ///
    /// # Errors
    /// When the code is no type.
    pub fn column_type(&self) -> Result<ColumnType> {
        Ok(ColumnType { data_type: DataType::from_code(self.type_code)?, bytes: self.bytes })
    }
}

/// The action name in the JSON reply to a binary request (PROTOCOL 3).
pub fn binary_action(action: u64) -> &'static str {
    match action {
        1 => "set_tags",
        2 => "bind",
        3 => "write_raw",
        4 => "write_raw_block",
        5 => "write_raw_block_with_fields",
        6 => "binary_query",
        7 => "fetch_raw_block",
        9 => "stmt2_bind",
        10 => "validate_sql",
        11 => "stmt2_bind_exec",
        _ => "unknown",
    }
}

impl<'a> BinaryRequest<'a> {
    /// Reads a frame: `(req_id, result, statement or message id, request)`.
    ///
    /// # Errors
    /// When the frame is shorter than it claims.
    pub fn decode(frame: &'a [u8]) -> Result<(u64, u64, Self)> {
        let mut reader = Reader::new(frame);
        let req_id = reader.u64("request id")?;
        let id = reader.u64("result or statement id")?;
        let action = reader.u64("binary action")?;
        Ok((req_id, id, Self::decode_body(action, &mut reader)?))
    }

    fn decode_body(action: u64, reader: &mut Reader<'a>) -> Result<Self> {
        let versioned = matches!(action, 6 | 7 | 9 | 10 | 11);
        let version = if versioned { Some(reader.u16("request version")?) } else { None };
        if version.is_some_and(|version| version != VERSION) {
            return Ok(Self::Unknown { action, version });
        }
        Ok(match action {
            1 => Self::StmtSetTags { block: reader.rest() },
            2 => Self::StmtBind { block: reader.rest() },
            3 => {
                let length = reader.u32("raw length")? as usize;
                let raw_type = reader.u16("raw type")?;
                Self::WriteRaw { raw_type, data: reader.take(length, "raw data")? }
            }
            4 | 5 => {
                let rows = reader.i32("rows")?;
                let name = reader.u16("table name length")?;
                let table = utf8(reader.take(usize::from(name), "table name")?, "table name")?;
                let header = BlockHeader::parse(reader.rest())?;
                let block = reader.take(header.length, "raw block")?;
                if action == 4 {
                    return Ok(Self::WriteBlock { rows, table, block });
                }
                let fields = (0..reader.count(header.columns as i64, FIELD_BYTES, "write fields")?)
                    .map(|_| decode_field(reader))
                    .collect::<Result<_>>()?;
                Self::WriteBlockWithFields { rows, table, block, fields }
            }
            6 | 10 => {
                let length = reader.u32("statement length")? as usize;
                let sql = utf8(reader.take(length, "statement")?, "statement")?;
                if action == 6 { Self::Query { sql } } else { Self::ValidateSql { sql } }
            }
            7 => Self::FetchBlock,
            9 => Self::Stmt2Bind { column: reader.i32("column index")?, data: reader.rest() },
            11 => Self::Stmt2BindExec { data: reader.rest() },
            _ => Self::Unknown { action, version },
        })
    }

    /// The action's number.
    pub fn action(&self) -> u64 {
        match self {
            Self::StmtSetTags { .. } => 1,
            Self::StmtBind { .. } => 2,
            Self::WriteRaw { .. } => 3,
            Self::WriteBlock { .. } => 4,
            Self::WriteBlockWithFields { .. } => 5,
            Self::Query { .. } => 6,
            Self::FetchBlock => 7,
            Self::Stmt2Bind { .. } => 9,
            Self::ValidateSql { .. } => 10,
            Self::Stmt2BindExec { .. } => 11,
            Self::Unknown { action, .. } => *action,
        }
    }

    /// Writes a frame.
    ///
    /// # Errors
    /// When a name or a length does not fit its word.
    pub fn encode(&self, req_id: u64, id: u64) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(64 + self.payload_bytes());
        for word in [req_id, id, self.action()] {
            out.put(&word.to_le_bytes());
        }
        if matches!(self.action(), 6 | 7 | 9 | 10 | 11) {
            out.put(&VERSION.to_le_bytes());
        }
        match self {
            Self::StmtSetTags { block } | Self::StmtBind { block } => out.put(block),
            Self::WriteRaw { raw_type, data } => {
                out.put(&length32(data.len())?.to_le_bytes());
                out.put(&raw_type.to_le_bytes());
                out.put(data);
            }
            Self::WriteBlock { rows, table, block } => put_block(&mut out, *rows, table, block)?,
            Self::WriteBlockWithFields { rows, table, block, fields } => {
                put_block(&mut out, *rows, table, block)?;
                for field in fields {
                    put_field(&mut out, field)?;
                }
            }
            Self::Query { sql } | Self::ValidateSql { sql } => {
                out.put(&length32(sql.len())?.to_le_bytes());
                out.put(sql.as_bytes());
            }
            Self::FetchBlock => {}
            Self::Stmt2Bind { column, data } => {
                out.put(&column.to_le_bytes());
                out.put(data);
            }
            Self::Stmt2BindExec { data } => out.put(data),
            Self::Unknown { .. } => return Err(WireError::unencodable("binary request", "unknown action")),
        }
        Ok(out)
    }

    fn payload_bytes(&self) -> usize {
        match self {
            Self::StmtSetTags { block } | Self::StmtBind { block } => block.len(),
            Self::WriteRaw { data, .. } | Self::Stmt2Bind { data, .. } | Self::Stmt2BindExec { data } => data.len(),
            Self::WriteBlock { table, block, .. } => table.len() + block.len(),
            Self::WriteBlockWithFields { table, block, fields, .. } => {
                table.len() + block.len() + fields.len() * FIELD_BYTES
            }
            Self::Query { sql } | Self::ValidateSql { sql } => sql.len(),
            Self::FetchBlock | Self::Unknown { .. } => 0,
        }
    }
}

fn put_block(out: &mut Vec<u8>, rows: i32, table: &str, block: &[u8]) -> Result<()> {
    let length = u16::try_from(table.len()).map_err(|_| WireError::unencodable("table name", "longer than 65535"))?;
    out.put(&rows.to_le_bytes());
    out.put(&length.to_le_bytes());
    out.put(table.as_bytes());
    out.put(block);
    Ok(())
}

fn put_field(out: &mut Vec<u8>, field: &WriteField) -> Result<()> {
    if field.name.len() >= FIELD_NAME_BYTES {
        return Err(WireError::unencodable("column name", format!("{:?} has more than 64 bytes", field.name)));
    }
    let mut bytes = [0; FIELD_BYTES];
    bytes[..field.name.len()].copy_from_slice(field.name.as_bytes());
    bytes[FIELD_NAME_BYTES] = field.type_code;
    bytes[68..].copy_from_slice(&field.bytes.to_le_bytes());
    out.put(&bytes);
    Ok(())
}

fn decode_field(reader: &mut Reader<'_>) -> Result<WriteField> {
    let name = reader.take(FIELD_NAME_BYTES, "field name")?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    let name = utf8(&name[..end], "field name")?.to_owned();
    let type_code = reader.u8("field type")?;
    reader.take(2, "field padding")?;
    Ok(WriteField { name, type_code, bytes: reader.i32("field bytes")? })
}

fn utf8<'a>(bytes: &'a [u8], what: &'static str) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| WireError::invalid(what, error.to_string()))
}

fn length32(length: usize) -> Result<u32> {
    u32::try_from(length).map_err(|_| WireError::unencodable("frame", format!("{length} bytes")))
}

/// Reply to `fetch_block` on both endpoints: on `/ws` only the result's id precedes the block, on `/rest/tmq` the
/// request's id and the message's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockReply<'a> {
    /// Nanoseconds that the server took.
    pub timing: u64,
    /// `/rest/tmq` only.
    pub req_id: Option<u64>,
    /// Result id or message id.
    pub id: u64,
    /// The raw block.
    pub block: &'a [u8],
}

impl<'a> BlockReply<'a> {
    /// Reads a reply of `/ws`.
    ///
    /// # Errors
    /// When the frame is too short.
    pub fn decode_ws(frame: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(frame);
        let (timing, id) = (reader.u64("timing")?, reader.u64("result id")?);
        Ok(Self { timing, req_id: None, id, block: reader.rest() })
    }

    /// Reads a reply of `/rest/tmq`.
    ///
    /// # Errors
    /// When the frame is too short.
    pub fn decode_tmq(frame: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(frame);
        let (timing, req_id) = (reader.u64("timing")?, reader.u64("request id")?);
        let id = reader.u64("message id")?;
        Ok(Self { timing, req_id: Some(req_id), id, block: reader.rest() })
    }

    /// Writes the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(24 + self.block.len());
        out.put(&self.timing.to_le_bytes());
        if let Some(req_id) = self.req_id {
            out.put(&req_id.to_le_bytes());
        }
        out.put(&self.id.to_le_bytes());
        out.put(self.block);
        out
    }
}

/// Reply to `fetch_raw`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawReply<'a> {
    /// Nanoseconds that the server took.
    pub timing: u64,
    /// Of the request.
    pub req_id: u64,
    /// Of the message.
    pub message_id: u64,
    /// 2 or 4 for data, else a number of `meta::kind`.
    pub raw_type: u16,
    /// The body.
    pub data: &'a [u8],
}

impl<'a> RawReply<'a> {
    /// Reads a reply.
    ///
    /// # Errors
    /// When the frame is too short or is another reply.
    pub fn decode(frame: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(frame);
        let timing = reader.u64("timing")?;
        let req_id = reader.u64("request id")?;
        let message_id = reader.u64("message id")?;
        let action = reader.u64("raw action")?;
        if action != 3 {
            return Err(WireError::invalid("raw reply", format!("action {action}, expected 3")));
        }
        let length = reader.u32("raw length")? as usize;
        let raw_type = reader.u16("raw type")?;
        Ok(Self { timing, req_id, message_id, raw_type, data: reader.take(length, "raw data")? })
    }

    /// Writes the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(38 + self.data.len());
        for word in [self.timing, self.req_id, self.message_id, 3] {
            out.put(&word.to_le_bytes());
        }
        out.put(&(self.data.len() as u32).to_le_bytes());
        out.put(&self.raw_type.to_le_bytes());
        out.put(self.data);
        out
    }
}

/// Reply to binary request 7 (PROTOCOL 3.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultBlockReply<'a> {
    /// Nanoseconds that the server took.
    pub timing: u64,
    /// Of the request.
    pub req_id: u64,
    /// 0 or the error.
    pub code: u32,
    /// Text of the error.
    pub message: &'a str,
    /// The result.
    pub result_id: u64,
    /// The raw block; `None` after the last one and on error.
    pub block: Option<&'a [u8]>,
}

impl ResultBlockReply<'_> {
    /// Writes the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(55 + self.message.len() + self.block.map_or(0, <[u8]>::len));
        put_new_head(&mut out, 7, self.timing, self.req_id, self.code, self.message);
        out.put(&self.result_id.to_le_bytes());
        out.push(u8::from(self.block.is_none()));
        if let Some(block) = self.block {
            out.put(&(block.len() as u32).to_le_bytes());
            out.put(block);
        }
        out
    }
}

/// Reply to `fetch_raw_data` (PROTOCOL 6.5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawDataReply<'a> {
    /// Nanoseconds that the server took.
    pub timing: u64,
    /// Of the request.
    pub req_id: u64,
    /// 0 or the error.
    pub code: u32,
    /// Text of the error.
    pub message: &'a str,
    /// Of the message.
    pub message_id: u64,
    /// Raw type and body; `None` on error.
    pub raw: Option<(u16, &'a [u8])>,
}

impl RawDataReply<'_> {
    /// Writes the frame.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(56 + self.message.len() + self.raw.map_or(0, |(_, data)| data.len()));
        put_new_head(&mut out, 8, self.timing, self.req_id, self.code, self.message);
        out.put(&self.message_id.to_le_bytes());
        if let Some((raw_type, data)) = self.raw {
            out.put(&raw_type.to_le_bytes());
            out.put(&(data.len() as u32).to_le_bytes());
            out.put(data);
        }
        out
    }
}

fn put_new_head(out: &mut Vec<u8>, action: u64, timing: u64, req_id: u64, code: u32, message: &str) {
    out.put(&NEW_STYLE.to_le_bytes());
    out.put(&action.to_le_bytes());
    out.put(&VERSION.to_le_bytes());
    out.put(&timing.to_le_bytes());
    out.put(&req_id.to_le_bytes());
    out.put(&code.to_le_bytes());
    out.put(&(message.len() as u32).to_le_bytes());
    out.put(message.as_bytes());
}

/// A binary reply as a client tells them apart. The old forms have no mark: the endpoint and the request decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BinaryReply<'a> {
    /// To request 7.
    ResultBlock(ResultBlockReply<'a>),
    /// To `fetch_raw_data`.
    RawData(RawDataReply<'a>),
    /// None of the newer forms: [`BlockReply`] or [`RawReply`], whichever was asked for.
    Old(&'a [u8]),
}

impl<'a> BinaryReply<'a> {
    /// Reads a frame.
    ///
    /// # Errors
    /// When a newer form is too short or has an unknown action.
    pub fn decode(frame: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new(frame);
        if reader.u64("reply head")? != NEW_STYLE {
            return Ok(Self::Old(frame));
        }
        let action = reader.u64("reply action")?;
        reader.u16("reply version")?;
        let timing = reader.u64("timing")?;
        let req_id = reader.u64("request id")?;
        let code = reader.u32("code")?;
        let length = reader.u32("message length")? as usize;
        let message = utf8(reader.take(length, "message")?, "message")?;
        match action {
            7 => {
                let result_id = reader.u64("result id")?;
                let finished = reader.u8("finished")? != 0;
                let block = if finished { None } else { Some(sized_rest(&mut reader, "block")?) };
                Ok(Self::ResultBlock(ResultBlockReply { timing, req_id, code, message, result_id, block }))
            }
            8 => {
                let message_id = reader.u64("message id")?;
                let raw = if code == 0 {
                    let raw_type = reader.u16("raw type")?;
                    Some((raw_type, sized_rest(&mut reader, "raw data")?))
                } else {
                    None
                };
                Ok(Self::RawData(RawDataReply { timing, req_id, code, message, message_id, raw }))
            }
            _ => Err(WireError::invalid("binary reply", format!("unknown action {action}"))),
        }
    }

    /// Id of the request, where the reply has one.
    pub fn req_id(&self) -> Option<u64> {
        match self {
            Self::ResultBlock(reply) => Some(reply.req_id),
            Self::RawData(reply) => Some(reply.req_id),
            Self::Old(_) => None,
        }
    }
}

fn sized_rest<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8]> {
    let length = reader.u32(what)? as usize;
    reader.take(length, what)
}
