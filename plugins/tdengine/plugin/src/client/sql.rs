//! A connection to `/ws`: statements, results block by block, and the raw writes that mark what they write.

use bytes::Bytes;
use tdengine_wire::block::BlockView;
use tdengine_wire::cursor::Write as _;
use tdengine_wire::envelope::{
    BinaryReply, BinaryRequest, BlockReply, Connect, Empty, Fetch, FetchBlock, FreeResult, Query, QueryReply,
    WriteField,
};
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, Precision};

use super::error::{ClientError, Result};
use super::socket::{RawReply, STATEMENTS_PATH, Socket, SocketLimits, read_json};
use crate::dsn::Dsn;

/// Bytes before the raw message in a write of action 3 (PROTOCOL 3).
const REQUEST_HEAD_BYTES: usize = 24;
const WRITE_RAW: u64 = 3;

/// A connection. One request in flight per ordering domain is the caller's care (FACTS F33).
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// Adapters before 3.3.2 know statements as JSON only (FACTS F48a).
    binary_query: std::sync::atomic::AtomicBool,
}

/// A whole result.
#[derive(Debug, Default)]
pub struct ResultSet {
    pub fields: Vec<(String, ColumnType)>,
    pub precision: Precision,
    /// Rows changed, where the statement was no query.
    pub affected_rows: u64,
    /// Raw blocks as they came.
    pub blocks: Vec<Bytes>,
}

impl ResultSet {
    /// Calls `each` with every row's values; for metadata, not for the data plane.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn each_row(&self, mut each: impl FnMut(&[Value<'_>])) -> Result<()> {
        for block in &self.blocks {
            let view = BlockView::parse(block)?;
            for row in 0..view.rows() {
                let values: Vec<Value<'_>> = view.columns().iter().map(|column| column.value(row)).collect();
                each(&values);
            }
        }
        Ok(())
    }

    /// Every row as texts; numbers in decimal, NULL as `None`.
    ///
    /// # Errors
    /// When a block cannot be read.
    pub fn texts(&self) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Vec::new();
        self.each_row(|values| rows.push(values.iter().map(text_of).collect()))?;
        Ok(rows)
    }

    pub fn row_count(&self) -> Result<usize> {
        self.blocks.iter().try_fold(0, |sum, block| {
            Ok(sum + tdengine_wire::block::BlockHeader::parse(block)?.rows)
        })
    }
}

fn text_of(value: &Value<'_>) -> Option<String> {
    Some(match value {
        Value::Null => return None,
        Value::Bool(value) => value.to_string(),
        Value::Int(value) | Value::Timestamp(value) => value.to_string(),
        Value::UInt(value) => value.to_string(),
        Value::Float(value) => value.to_string(),
        Value::Double(value) => value.to_string(),
        Value::Decimal(value) => value.to_string(),
        Value::Varchar(_) | Value::Nchar(_) | Value::Json(_) => value.text()?,
        Value::Varbinary(bytes) | Value::Geometry(bytes) | Value::Blob(bytes) => {
            bytes.iter().map(|byte| format!("{byte:02X}")).collect()
        }
    })
}

impl Connection {
    /// Connects and logs in. Raw writes need `database` (PROTOCOL 3).
    ///
    /// # Errors
    /// [`ClientError::Unreachable`], or the server's code (0x0357 wrong password, 0x0388 no such database).
    pub async fn open(dsn: &Dsn, database: Option<&str>, limits: SocketLimits) -> Result<Self> {
        let socket = Socket::open(dsn, STATEMENTS_PATH, limits).await?;
        let login = Connect {
            user: dsn.user.clone(),
            password: dsn.password().into(),
            db: database.unwrap_or_default().into(),
            app: Some("pipeline".into()),
            bearer_token: dsn.parameter("bearer_token").map(str::to_owned),
            ..Connect::default()
        };
        socket.call(&login).await.map_err(|error| error.at(socket.place()))?;
        Ok(Self { socket, binary_query: true.into() })
    }

    /// `ws://host:port/ws`.
    pub fn place(&self) -> &str {
        self.socket.place()
    }

    /// # Errors
    /// Disconnected where it ended.
    pub fn check(&self) -> Result<()> {
        self.socket.check()
    }

    /// Runs a statement without rows and returns the rows it changed.
    pub async fn exec(&self, sql: &str) -> Result<u64> {
        let reply = self.start(sql).await?;
        if !reply.is_update {
            self.socket.tell(&FreeResult { id: reply.id }).await?;
        }
        Ok(reply.affected_rows.max(0) as u64)
    }

    /// Runs a statement and collects its result.
    pub async fn query(&self, sql: &str) -> Result<ResultSet> {
        let mut result = ResultSet::default();
        let reply = self.start(sql).await?;
        result.fields = reply.fields()?;
        result.precision = Precision::from_code(reply.precision)?;
        result.affected_rows = reply.affected_rows.max(0) as u64;
        if !reply.is_update {
            while let Some(block) = self.next_block(reply.id).await? {
                result.blocks.push(block);
            }
        }
        Ok(result)
    }

    /// Runs a query and calls `each` with every block as it comes, so that a large result is never held whole.
    pub async fn query_each(
        &self,
        sql: &str,
        mut each: impl FnMut(&QueryReply, &BlockView<'_>) -> Result<()> + Send,
    ) -> Result<QueryReply> {
        let reply = self.start(sql).await?;
        if !reply.is_update {
            while let Some(block) = self.next_block(reply.id).await? {
                each(&reply, &BlockView::parse(&block)?)?;
            }
        }
        Ok(reply)
    }

    async fn start(&self, sql: &str) -> Result<QueryReply> {
        use std::sync::atomic::Ordering::Relaxed;
        if self.binary_query.load(Relaxed) {
            let reply = self.socket.call_raw(0, &BinaryRequest::Query { sql }, "query").await?;
            match read_json(short(sql), &reply) {
                Err(ClientError::Server { code: 0xffff, .. }) => self.binary_query.store(false, Relaxed),
                other => return other,
            }
        }
        self.socket.call(&Query { sql: sql.into() }).await.map_err(|error| error.at(short(sql)))
    }

    async fn next_block(&self, id: u64) -> Result<Option<Bytes>> {
        if self.binary_query.load(std::sync::atomic::Ordering::Relaxed) {
            let reply = self.socket.call_raw(id, &BinaryRequest::FetchBlock, "fetch").await?;
            let RawReply::Binary(bytes) = reply else {
                read_json::<Empty>("fetch", &reply)?;
                return Err(ClientError::unexpected("fetch", "JSON where a block was due"));
            };
            let BinaryReply::ResultBlock(reply) = BinaryReply::decode(&bytes)? else {
                return Err(ClientError::unexpected("fetch", "another reply than a block"));
            };
            if reply.code != 0 {
                return Err(ClientError::server("fetch", reply.code, reply.message));
            }
            return Ok(reply.block.map(|block| bytes.slice_ref(block)));
        }
        let reply = self.socket.call(&Fetch { id }).await?;
        if reply.completed {
            return Ok(None);
        }
        // The reply is matched by the result's id, so that is the request's id too.
        let bytes = self.socket.call_binary(id, &FetchBlock { id }).await?;
        Ok(Some(bytes.slice_ref(BlockReply::decode_ws(&bytes)?.block)))
    }

    /// Writes a message of a log as it came: `u32 length, u16 type, body` (PROTOCOL 3, action 3). Marked.
    pub async fn write_raw(&self, raw: &[&[u8]]) -> Result<()> {
        let id = self.socket.next_id();
        let mut request = Vec::with_capacity(REQUEST_HEAD_BYTES + raw.iter().map(|piece| piece.len()).sum::<usize>());
        for word in [id, 0, WRITE_RAW] {
            request.put(&word.to_le_bytes());
        }
        raw.iter().for_each(|piece| request.put(piece));
        let reply = self.socket.call_bytes(id, request.into(), "write_raw").await?;
        read_json::<Empty>("write_raw", &reply).map(|_| ())
    }

    /// Writes a raw block into `table` by column name (action 5). Marked.
    ///
    /// The caller has compared names and types with the table: a server does not (FACTS F26, F27).
    pub async fn write_block(&self, table: &str, block: &[u8], fields: Vec<WriteField>) -> Result<()> {
        let rows = tdengine_wire::block::BlockHeader::parse(block)?.rows as i32;
        let request = BinaryRequest::WriteBlockWithFields { rows, table, block, fields };
        let reply = self.socket.call_raw(0, &request, "write_raw_block_with_fields").await?;
        read_json::<Empty>("write_raw_block_with_fields", &reply).map(|_| ())
    }
}

/// The kind of statement, for errors: two words tell enough and hold no data.
pub(crate) fn short(sql: &str) -> &'static str {
    const KNOWN: [&str; 12] = [
        "insert", "select", "create", "alter", "drop", "delete", "describe", "show", "use", "flush", "trim", "kill",
    ];
    let first = sql.trim_start().split(|character: char| !character.is_ascii_alphabetic()).next().unwrap_or_default();
    KNOWN.into_iter().find(|word| word.eq_ignore_ascii_case(first)).unwrap_or("statement")
}
