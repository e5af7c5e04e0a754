//! The JSON actions of `/rest/tmq` (PROTOCOL 6). Arguments whose name `/ws` uses too begin with `Tmq`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Empty, Scalar, VersionReply, action, scalar};

/// `subscribe`: also authenticates (PROTOCOL 6.2).
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Subscribe {
    /// User name.
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub user: String,
    /// Password.
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub password: String,
    /// Database of the connection; empty for none.
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub db: String,
    /// Consumer group; a colon in it hangs a real server for good (FACTS F45).
    #[serde(deserialize_with = "scalar::text_or_default")]
    pub group_id: String,
    /// Name of this consumer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Scalar>,
    /// Where to begin without a committed offset: `earliest`, `latest` or `none`, as most clients spell it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset_rest: Option<Scalar>,
    /// The same, spelled right; counts where both are sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset_reset: Option<Scalar>,
    /// Topics; an empty list hangs (FACTS F45).
    pub topics: Vec<String>,
    /// `"true"` or `"false"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_commit: Option<Scalar>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auto_commit_interval_ms: Option<Scalar>,
    /// Whether to read stored files first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot_enable: Option<Scalar>,
    /// Whether blocks carry their table's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub with_table_name: Option<Scalar>,
    /// Whether metas come in batches; 3.3.0.1 refuses it with 0xFFFE.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_batch_meta: Option<Scalar>,
    /// Whether marked entries are left out: only a JSON string of a number ≠ 0 switches it on (FACTS F4).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg_consume_excluded: Option<Scalar>,
    /// Whether raw submit data is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msg_consume_rawdata: Option<Scalar>,
    /// Milliseconds without a sign of life.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_timeout_ms: Option<Scalar>,
    /// Milliseconds without a poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_poll_interval_ms: Option<Scalar>,
    /// Time zone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tz: Option<String>,
    /// Name of the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// Name and version of the client library.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connector: Option<String>,
    /// Keys of the C client's configuration; 3.3.2.3 ignores them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<BTreeMap<String, Scalar>>,
}
action!(Subscribe, "subscribe", VersionReply);

impl Subscribe {
    /// Where to begin, by either spelling.
    pub fn reset(&self) -> Option<&Scalar> {
        self.offset_reset.as_ref().or(self.offset_rest.as_ref())
    }
}

impl std::fmt::Debug for Subscribe {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = formatter.debug_struct("Subscribe");
        text.field("user", &self.user).field("group_id", &self.group_id).field("topics", &self.topics);
        text.field("msg_consume_excluded", &self.msg_consume_excluded).finish_non_exhaustive()
    }
}

/// `poll`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Poll {
    /// Milliseconds to wait for a message.
    #[serde(deserialize_with = "scalar::i64_or_default")]
    pub blocking_time: i64,
    /// The last message received; 0 for none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<u64>,
}
action!(Poll, "poll", PollReply);

/// Kinds of TMQ messages in [`PollReply::message_type`].
pub mod message_type {
    /// Rows.
    pub const DATA: i32 = 1;
    /// One change of schema, or a delete.
    pub const META: i32 = 2;
    /// Rows, and the creation of tables for them.
    pub const METADATA: i32 = 3;
    /// Raw submit data.
    pub const RAW: i32 = 4;
}

/// Reply of [`Poll`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PollReply {
    /// Whether a message came; the other fields are zero otherwise.
    pub have_message: bool,
    /// Its topic.
    pub topic: String,
    /// Its database.
    pub database: String,
    /// Its vgroup.
    pub vgroup_id: i32,
    /// One of [`message_type`].
    pub message_type: i32,
    /// To fetch it by.
    pub message_id: u64,
    /// Data: where the message starts. Meta: the next offset (FACTS F36).
    pub offset: i64,
}

macro_rules! message_id_only {
    ($($(#[$doc:meta])* $name:ident, $action:literal, $reply:ty;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(default)]
        pub struct $name {
            /// The message.
            #[serde(deserialize_with = "scalar::u64_or_default")]
            pub message_id: u64,
        }
        action!($name, $action, $reply);
    )*};
}

message_id_only! {
    /// `fetch`: head of the next block of a message.
    TmqFetch, "fetch", TmqFetchReply;
    /// `fetch_block`: answered by a [`super::BlockReply`].
    TmqFetchBlock, "fetch_block", MessageReply;
    /// `fetch_raw`: answered by a [`super::RawReply`].
    FetchRaw, "fetch_raw", MessageReply;
    /// `fetch_raw_data`: answered by a [`super::RawDataReply`].
    FetchRawData, "fetch_raw_data", MessageReply;
    /// `fetch_json_meta`.
    FetchJsonMeta, "fetch_json_meta", FetchJsonMetaReply;
    /// `commit`: commits everything handed out, whatever the id (trap T5); the framework never sends it.
    Commit, "commit", MessageReply;
}

/// Replies and errors that repeat the message's id.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MessageReply {
    /// The message.
    pub message_id: u64,
}

/// Reply of [`TmqFetch`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TmqFetchReply {
    /// The message.
    pub message_id: u64,
    /// No block is left.
    pub completed: bool,
    /// Table of the block.
    pub table_name: String,
    /// Rows of the block.
    pub rows: i64,
    /// Columns of the block.
    pub fields_count: i64,
    /// Names; `null` when completed.
    pub fields_names: Option<Vec<String>>,
    /// Type codes.
    pub fields_types: Option<Vec<u8>>,
    /// Widths as in query replies.
    pub fields_lengths: Option<Vec<i64>>,
    /// 0 ms, 1 us, 2 ns.
    pub precision: i64,
}

/// Reply of [`FetchJsonMeta`].
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FetchJsonMetaReply {
    /// The message.
    pub message_id: u64,
    /// A JSON object, `null` if there is none; read it with `meta::json`.
    pub data: Option<Box<RawValue>>,
}

/// `commit_offset`; its reply repeats it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommitOffset {
    /// The topic.
    pub topic: String,
    /// The vgroup.
    pub vgroup_id: i32,
    /// Next offset to read.
    pub offset: i64,
}
action!(CommitOffset, "commit_offset", CommitOffset);

/// `seek`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seek {
    /// The topic.
    pub topic: String,
    /// The vgroup.
    pub vgroup_id: i32,
    /// Next offset to read.
    pub offset: i64,
}
action!(Seek, "seek", Empty);

/// `assignment`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Assignment {
    /// The topic.
    pub topic: String,
}
action!(Assignment, "assignment", AssignmentReply);

/// Reply of [`Assignment`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AssignmentReply {
    /// The vgroups of this consumer.
    pub assignment: Vec<AssignedVgroup>,
}

/// One vgroup of an [`AssignmentReply`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AssignedVgroup {
    /// The vgroup.
    pub vgroup_id: i32,
    /// Start of the last data message, not the position (FACTS F38).
    pub offset: i64,
    /// First version kept.
    pub begin: i64,
    /// Next version to be written.
    pub end: i64,
}

/// A topic and a vgroup of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicVgroup {
    /// The topic.
    pub topic: String,
    /// The vgroup.
    pub vgroup_id: i32,
}

/// `committed`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Committed {
    /// What is asked for.
    pub topic_vgroup_ids: Vec<TopicVgroup>,
}
action!(Committed, "committed", CommittedReply);

/// Value in [`CommittedReply`] and [`PositionReply`] for "never committed": 0x80004011 (PROTOCOL 6.4).
pub const NEVER_COMMITTED: i64 = -2_147_467_247;

/// Reply of [`Committed`], in the order asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommittedReply {
    /// Next offsets to read, or [`NEVER_COMMITTED`].
    pub committed: Vec<i64>,
}

/// `position`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Position {
    /// What is asked for.
    pub topic_vgroup_ids: Vec<TopicVgroup>,
}
action!(Position, "position", PositionReply);

/// Reply of [`Position`], in the order asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PositionReply {
    /// Next offsets to read.
    pub position: Vec<i64>,
}

/// `list_topics`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListTopics {}
action!(ListTopics, "list_topics", ListTopicsReply);

/// Reply of [`ListTopics`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListTopicsReply {
    /// Topics subscribed to.
    pub topics: Vec<String>,
}

/// `unsubscribe`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsubscribe {}
action!(Unsubscribe, "unsubscribe", Empty);
