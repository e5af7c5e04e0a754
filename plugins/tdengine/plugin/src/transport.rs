//! The two ways to a site behind one face: our WebSocket client, and libtaos, which is loaded only when a native address
//! is used.
//!
//! [`Connection`] and [`Consumer`] guarantee what [`crate::client`] says of its own; everything above this module sees these.

use std::time::Duration;

use pipeline_sdk::{Error, Result};
use tdengine_wire::block::BlockView;
use tdengine_wire::envelope::{AssignedVgroup, QueryReply, WriteField};

use crate::client::{self, ClientError, Message, ResultSet, SocketLimits, Subscription};
use crate::dsn::{Dsn, Transport};
use crate::errors::is_transient;
use crate::native::{NativeConnection, NativeConsumer};

/// Checks that an address can be used; without connecting, and without loading libtaos.
///
/// # Errors
/// Fatal for parameters that belong to the other transport.
pub fn check(dsn: &Dsn) -> Result<()> {
    let is_web_socket = matches!(dsn.transport, Transport::WebSocket { .. });
    if is_web_socket && dsn.parameter("libraryPath").is_some() {
        return Err(Error::fatal(format!("{dsn} is a WebSocket address, which has no use for libraryPath"))
            .code("tdengine.dsn")
            .hint("write taos://host:6030 for libtaos"));
    }
    Ok(())
}

/// A connection for statements and raw writes.
pub enum Connection {
    WebSocket(client::sql::Connection),
    Native(NativeConnection),
}

macro_rules! either {
    ($self:expr, $one:ident => $call:expr) => {
        match $self {
            Self::WebSocket($one) => $call,
            Self::Native($one) => $call,
        }
    };
}

impl Connection {
    /// Connects and logs in; see [`client::sql::Connection::open`].
    pub async fn open(dsn: &Dsn, database: Option<&str>, limits: SocketLimits) -> client::Result<Self> {
        Ok(match dsn.transport {
            Transport::WebSocket { .. } => Self::WebSocket(client::sql::Connection::open(dsn, database, limits).await?),
            Transport::Native => Self::Native(NativeConnection::open(dsn, database, limits).await?),
        })
    }

    pub fn place(&self) -> &str {
        either!(self, one => one.place())
    }

    /// Whether it still leads to a server. A WebSocket that was closed is known to be; libtaos has to ask.
    ///
    /// # Errors
    /// Disconnected where it does not.
    pub async fn check(&self) -> client::Result<()> {
        match self {
            Self::WebSocket(one) => one.check(),
            Self::Native(one) => one.query("select server_status()").await.map(drop),
        }
    }

    pub async fn exec(&self, sql: &str) -> client::Result<u64> {
        either!(self, one => one.exec(sql).await)
    }

    pub async fn query(&self, sql: &str) -> client::Result<ResultSet> {
        either!(self, one => one.query(sql).await)
    }

    pub async fn query_each(
        &self,
        sql: &str,
        each: impl FnMut(&QueryReply, &BlockView<'_>) -> client::Result<()> + Send,
    ) -> client::Result<QueryReply> {
        either!(self, one => one.query_each(sql, each).await)
    }

    pub async fn write_raw(&self, raw: &[&[u8]]) -> client::Result<()> {
        either!(self, one => one.write_raw(raw).await)
    }

    pub async fn write_block(&self, table: &str, block: &[u8], fields: Vec<WriteField>) -> client::Result<()> {
        either!(self, one => one.write_block(table, block, fields).await)
    }
}

/// A consumer of one topic.
pub enum Consumer {
    WebSocket(client::tmq::Consumer),
    Native(NativeConsumer),
}

impl Consumer {
    /// Subscribes; see [`client::tmq::Consumer::subscribe`].
    pub async fn subscribe(dsn: &Dsn, subscription: &Subscription, limits: SocketLimits) -> client::Result<Self> {
        Ok(match dsn.transport {
            Transport::WebSocket { .. } => {
                Self::WebSocket(client::tmq::Consumer::subscribe(dsn, subscription, limits).await?)
            }
            Transport::Native => Self::Native(NativeConsumer::subscribe(dsn, subscription, limits).await?),
        })
    }

    pub fn topic(&self) -> &str {
        either!(self, one => one.topic())
    }

    pub fn start_poll(&mut self, wait: Duration) {
        either!(self, one => one.start_poll(wait));
    }

    pub fn has_reply(&self) -> bool {
        either!(self, one => one.has_reply())
    }

    pub async fn poll(&mut self, wait: Duration) -> client::Result<Option<Message>> {
        either!(self, one => one.poll(wait).await)
    }

    pub fn pause(&mut self) {
        either!(self, one => one.pause());
    }

    pub fn is_paused(&self) -> bool {
        either!(self, one => one.is_paused())
    }

    pub async fn settle(&mut self) -> client::Result<Vec<Message>> {
        either!(self, one => one.settle().await)
    }

    /// The vgroups that are this consumer's and whose logs are known.
    pub async fn assignment(&self) -> client::Result<Vec<AssignedVgroup>> {
        either!(self, one => one.assignment().await).map(known)
    }

    /// As [`Consumer::assignment`]; none while the server deals out the vgroups.
    pub async fn assignment_so_far(&self) -> client::Result<Vec<AssignedVgroup>> {
        match self.assignment().await {
            Err(ClientError::Server { code, .. }) if is_transient(code) => Ok(Vec::new()),
            assigned => assigned,
        }
    }

    pub async fn position(&self, vgroups: &[i32]) -> client::Result<Vec<i64>> {
        either!(self, one => one.position(vgroups).await)
    }

    pub async fn committed(&self, vgroups: &[i32]) -> client::Result<Vec<i64>> {
        either!(self, one => one.committed(vgroups).await)
    }

    pub async fn commit_offset(&self, vgroup: i32, offset: i64) -> client::Result<()> {
        either!(self, one => one.commit_offset(vgroup, offset).await)
    }

    pub async fn seek(&self, vgroup: i32, offset: i64) -> client::Result<()> {
        either!(self, one => one.seek(vgroup, offset).await)
    }

    pub async fn unsubscribe(&self) -> client::Result<()> {
        either!(self, one => one.unsubscribe().await)
    }
}

/// While its server comes up, a vgroup is assigned with an end of -1: where its log begins and ends is not known then, and what was read
/// of it lies beyond.
fn known(mut assigned: Vec<AssignedVgroup>) -> Vec<AssignedVgroup> {
    assigned.retain(|vgroup| vgroup.end >= 0);
    assigned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vgroup_that_comes_up_is_not_assigned_yet() {
        let vgroup = |vgroup_id, end: i64| AssignedVgroup { vgroup_id, offset: 6, begin: end.min(0), end };
        let ids = known(vec![vgroup(60, -1), vgroup(61, 0), vgroup(62, 7)]).iter().map(|it| it.vgroup_id).collect::<Vec<_>>();
        assert_eq!(ids, [61, 62]);
    }
}
