//! A native connection: the methods of the WebSocket client's, over libtaos.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tdengine_wire::Precision;
use tdengine_wire::block::BlockView;
use tdengine_wire::envelope::{QueryReply, WriteField};
use tokio::sync::mpsc;

use super::handle::{Login, ResultHead, Session};
use super::{blocking, library};
use crate::client::sql::short;
use crate::client::{ClientError, Result, ResultSet, SocketLimits};
use crate::dsn::Dsn;

/// Blocks of a result that may wait to be looked at.
const BLOCKS_AHEAD_MAX: usize = 2;

/// A connection. One statement in flight per ordering domain is the caller's care (FACTS F33).
pub struct NativeConnection {
    session: Arc<Session>,
    place: String,
    limits: SocketLimits,
    /// Set by a call that took too long: what comes of it is not known.
    lost: AtomicBool,
}

impl NativeConnection {
    /// Loads libtaos and logs in.
    ///
    /// # Errors
    /// [`ClientError::Unexpected`] where there is no libtaos, [`ClientError::Unreachable`] without an answer in time, or the server's code.
    pub async fn open(dsn: &Dsn, database: Option<&str>, limits: SocketLimits) -> Result<Self> {
        let place = dsn.to_string();
        let (dsn, database) = (dsn.clone(), database.map(str::to_owned));
        let connect = move || {
            let functions = library::load(dsn.parameter("libraryPath"), dsn.parameter("configDir"))?;
            let login = Login {
                host: &dsn.host,
                port: dsn.port,
                user: &dsn.user,
                password: dsn.password(),
                database: database.as_deref(),
            };
            Session::connect(functions, &login)
        };
        let session = blocking(&place, "connect", limits.connect_timeout, connect).await;
        let session = session.map_err(|error| match error {
            // What is no taosd may say nothing at all.
            ClientError::TimedOut { timeout, .. } => ClientError::unreachable(&place, format!("no answer within {timeout:?}; is it taosd's port (6030)?")),
            other => other.at(&place),
        });
        let session = Arc::new(session?);
        Ok(Self { session, place, limits, lost: AtomicBool::new(false) })
    }

    /// `taos://host:port`.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Runs a statement without rows and returns the rows it changed.
    pub async fn exec(&self, sql: &str) -> Result<u64> {
        let (head, _) = self.run(sql).await?;
        Ok(head.affected_rows.max(0) as u64)
    }

    /// Runs a statement and collects its result.
    pub async fn query(&self, sql: &str) -> Result<ResultSet> {
        let (head, blocks) = self.run(sql).await?;
        let reply = reply_of(&head);
        Ok(ResultSet {
            fields: reply.fields()?,
            precision: Precision::from_code(reply.precision)?,
            affected_rows: reply.affected_rows.max(0) as u64,
            blocks,
        })
    }

    /// Runs a query and calls `each` with every block as it comes, so that a large result is never held whole.
    pub async fn query_each(
        &self,
        sql: &str,
        mut each: impl FnMut(&QueryReply, &BlockView<'_>) -> Result<()> + Send,
    ) -> Result<QueryReply> {
        let action = short(sql);
        self.check_open(action)?;
        let (session, sql) = (self.session.clone(), sql.to_owned());
        let (sender, mut blocks) = mpsc::channel(BLOCKS_AHEAD_MAX);
        let running = tokio::task::spawn_blocking(move || {
            let mut reply = None;
            session.query(&sql, action, |head, block| {
                let reply = reply.get_or_insert_with(|| Arc::new(reply_of(head)));
                sender.blocking_send((reply.clone(), block)).is_ok()
            })
        });
        let timeout = self.limits.request_timeout;
        loop {
            match tokio::time::timeout(timeout, blocks.recv()).await {
                Ok(Some((reply, block))) => each(&reply, &BlockView::parse(&block)?)?,
                Ok(None) => break,
                Err(_) => {
                    self.lost.store(true, Ordering::Release);
                    return Err(ClientError::timed_out(&self.place, action, timeout));
                }
            }
        }
        let head = running.await.map_err(|error| ClientError::unexpected(action, error.to_string()))??;
        Ok(reply_of(&head))
    }

    /// Writes a message of a log as it came: `u32 length, u16 type, body`. Marked.
    pub async fn write_raw(&self, raw: &[&[u8]]) -> Result<()> {
        let mut raw = raw.concat();
        self.call("write_raw", move |session| session.write_raw(&mut raw)).await
    }

    /// Writes a raw block into `table` by column name. Marked.
    ///
    /// The caller has compared names and types with the table: a server does not (FACTS F26, F27).
    pub async fn write_block(&self, table: &str, block: &[u8], fields: Vec<WriteField>) -> Result<()> {
        let (table, mut block) = (table.to_owned(), block.to_vec());
        let write = move |session: &Session| session.write_block(&table, &mut block, &fields);
        self.call("write_raw_block_with_fields", write).await
    }

    async fn run(&self, sql: &str) -> Result<(ResultHead, Vec<bytes::Bytes>)> {
        let action = short(sql);
        let sql = sql.to_owned();
        let query = move |session: &Session| {
            let mut blocks = Vec::new();
            let head = session.query(&sql, action, |_, block| {
                blocks.push(block);
                true
            })?;
            Ok((head, blocks))
        };
        self.call(action, query).await
    }

    fn check_open(&self, action: &str) -> Result<()> {
        if self.lost.load(Ordering::Acquire) {
            return Err(ClientError::closed(&self.place, action, "an earlier call got no reply"));
        }
        Ok(())
    }

    async fn call<T: Send + 'static>(
        &self,
        action: &'static str,
        call: impl FnOnce(&Session) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open(action)?;
        let session = self.session.clone();
        let result = blocking(&self.place, action, self.limits.request_timeout, move || call(&session)).await;
        if matches!(result, Err(ClientError::TimedOut { .. })) {
            self.lost.store(true, Ordering::Release);
        }
        result
    }
}

/// In the form of the WebSocket's reply, so that names and types are read in one place.
fn reply_of(head: &ResultHead) -> QueryReply {
    if head.is_update {
        return QueryReply::update(head.affected_rows);
    }
    QueryReply {
        fields_count: head.fields.len() as i64,
        fields_names: Some(head.fields.iter().map(|(name, ..)| name.clone()).collect()),
        fields_types: Some(head.fields.iter().map(|(_, code, _)| *code).collect()),
        fields_lengths: Some(head.fields.iter().map(|(.., bytes)| *bytes).collect()),
        precision: head.precision,
        ..QueryReply::default()
    }
}
