//! Faults that a test can make the node show (PROTOCOL 13.3 item 12): what goes wrong in the field, on demand and
//! exactly once. They are armed over the admin address only, so a node without one has none.
//!
//! A fault acts before a request is executed ([`Faults::before`]), when its reply is to be sent ([`Faults::after`]), or in
//! the store (frozen vgroups, a full disk, a shortened log).

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::Fail;

/// One fault. `action` limits it to replies of that action; without, every reply counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Fault {
    /// Drops the connection instead of sending the n-th reply from now on; what was asked is done.
    DropConnection {
        /// 1 is the next one.
        #[serde(default = "one")]
        at_reply: u64,
        /// Of this action.
        #[serde(default)]
        action: Option<String>,
    },
    /// Ends the whole node instead of sending the n-th reply from now on: appended, not answered.
    KillBeforeReply {
        /// 1 is the next one.
        #[serde(default = "one")]
        at_reply: u64,
        /// Of this action.
        #[serde(default)]
        action: Option<String>,
    },
    /// Sends replies late.
    DelayReply {
        /// How late.
        milliseconds: u64,
        /// Of this action.
        #[serde(default)]
        action: Option<String>,
        /// How often; always when absent.
        #[serde(default)]
        times: Option<u64>,
    },
    /// Answers a code and does nothing.
    AnswerCode {
        /// Low 16 bits, such as 11 (0x000B), 2316 (0x090C), 1283 (0x0503) or 9731 (0x2603).
        code: u32,
        /// To this action.
        #[serde(default)]
        action: Option<String>,
        /// How often.
        #[serde(default = "once")]
        times: Option<u64>,
    },
    /// Pretends not to know an action.
    RefuseAction {
        /// The action.
        action: String,
        /// How often; always when absent.
        #[serde(default)]
        times: Option<u64>,
    },
    /// Takes a message out for a poll and sends no reply.
    LosePollReply {
        /// How often.
        #[serde(default = "once")]
        times: Option<u64>,
    },
    /// Hands the held message out again, as a new one.
    DuplicateDelivery {
        /// How often.
        #[serde(default = "once")]
        times: Option<u64>,
    },
    /// A lane that is sought hands out what it would have, first, as a client's library does with the answer to a poll of before.
    AnswerAfterSeek {
        /// How often.
        #[serde(default = "once")]
        times: Option<u64>,
    },
    /// A vgroup neither takes writes nor gives messages until the fault is removed.
    FreezeVgroup {
        /// Its id.
        vgroup: i32,
    },
    /// Cuts a log's beginning off, as retention does, whatever was committed. Happens at once.
    TruncateWal {
        /// Its id.
        vgroup: i32,
        /// First version to keep.
        below: i64,
    },
    /// The disk is full once this many more bytes are written.
    CapDisk {
        /// Bytes that still fit.
        bytes: u64,
    },
}

/// What becomes of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Send,
    Late(Duration),
    Lose,
    Drop,
    Kill,
}

/// A fault with its number and what it did so far.
#[derive(Debug, Clone, Serialize)]
pub struct Armed {
    /// To remove it by.
    pub id: u64,
    /// What it does.
    #[serde(flatten)]
    pub fault: Fault,
    /// Replies that it saw.
    pub seen: u64,
    /// Times that it acted.
    pub fired: u64,
}

/// All faults that are armed.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    any: AtomicBool,
    armed: Mutex<(u64, Vec<Armed>)>,
}

impl Faults {
    pub fn arm(&self, fault: Fault) -> u64 {
        let mut armed = self.armed.lock();
        armed.0 += 1;
        let id = armed.0;
        armed.1.push(Armed { id, fault, seen: 0, fired: 0 });
        self.any.store(true, Ordering::Release);
        id
    }

    /// Takes a fault away and says which it was.
    pub fn remove(&self, id: u64) -> Option<Fault> {
        let mut armed = self.armed.lock();
        let at = armed.1.iter().position(|armed| armed.id == id)?;
        let removed = armed.1.remove(at);
        self.any.store(!armed.1.is_empty(), Ordering::Release);
        Some(removed.fault)
    }

    pub fn list(&self) -> Vec<Armed> {
        self.armed.lock().1.clone()
    }

    /// The error to answer instead of doing what was asked.
    pub fn before(&self, action: &str) -> Option<Fail> {
        self.find(|armed| {
            let refused = match &armed.fault {
                Fault::AnswerCode { code, action: of, times } if concerns(of, action) => {
                    (*times, Fail::new(*code, code_text(*code)))
                }
                Fault::RefuseAction { action: of, times } if of == action => {
                    (*times, Fail::protocol(format!("unknown action {action}")))
                }
                _ => return None,
            };
            armed.acts(refused.0).then_some(refused.1)
        })
    }

    /// What becomes of the reply to `action`; `message` says whether it hands a TMQ message out.
    pub fn after(&self, action: &str, message: bool) -> Fate {
        let fate = self.find(|armed| {
            let (wanted, times, fate) = match &armed.fault {
                Fault::DropConnection { at_reply, action: of } if concerns(of, action) => (*at_reply, Some(1), Fate::Drop),
                Fault::KillBeforeReply { at_reply, action: of } if concerns(of, action) => {
                    (*at_reply, Some(1), Fate::Kill)
                }
                Fault::DelayReply { milliseconds, action: of, times } if concerns(of, action) => {
                    (1, *times, Fate::Late(Duration::from_millis(*milliseconds)))
                }
                Fault::LosePollReply { times } if message => (1, *times, Fate::Lose),
                _ => return None,
            };
            armed.seen += 1;
            (armed.seen >= wanted && armed.acts(times)).then_some(fate)
        });
        fate.unwrap_or(Fate::Send)
    }

    /// Whether the next poll hands the held message out again.
    pub fn duplicates(&self) -> bool {
        let found = self.find(|armed| match armed.fault {
            Fault::DuplicateDelivery { times } => armed.acts(times).then_some(()),
            _ => None,
        });
        found.is_some()
    }

    /// Whether the lane that is sought now hands out what it would have.
    pub fn answers_after_seek(&self) -> bool {
        let found = self.find(|armed| match armed.fault {
            Fault::AnswerAfterSeek { times } => armed.acts(times).then_some(()),
            _ => None,
        });
        found.is_some()
    }

    pub fn is_frozen(&self, vgroup: i32) -> bool {
        self.find(|armed| (armed.fault == Fault::FreezeVgroup { vgroup }).then_some(())).is_some()
    }

    fn find<T>(&self, act: impl FnMut(&mut Armed) -> Option<T>) -> Option<T> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.armed.lock().1.iter_mut().find_map(act)
    }
}

impl Armed {
    /// Counts an occasion to act; false once it acted as often as it should.
    fn acts(&mut self, times: Option<u64>) -> bool {
        let left = times.is_none_or(|times| self.fired < times);
        self.fired += u64::from(left);
        left
    }
}

fn concerns(of: &Option<String>, action: &str) -> bool {
    of.as_deref().is_none_or(|of| of == action)
}

/// Texts of a server's codes (PROTOCOL 15). Most are answered where they are due; those of what a node does not have (replicas,
/// rights, snapshots) only when a fault asks for them.
const TEXTS: [(u32, &str); 61] = [
    (0x000B, "Unable to establish connection"),
    (0x0100, "Operation not supported"),
    (0x0115, "Invalid message"),
    (0x0118, "Invalid parameters"),
    (0x012C, "Operation timeout"),
    (0x0200, "Invalid operation"),
    (0x0303, "Insufficient privilege for operation"),
    (0x0351, "Invalid user"),
    (0x0357, "Authentication failure"),
    (0x0360, "STable already exists"),
    (0x0362, "STable not exist"),
    (0x0369, "Tag already exists"),
    (0x036A, "Tag does not exist"),
    (0x036B, "Column already exists"),
    (0x036C, "Column does not exist"),
    (0x0381, "Database already exists"),
    (0x0383, "Invalid database name"),
    (0x0388, "Database not exist"),
    (0x03C4, "Field used by topic"),
    (0x03D3, "Conflict transaction not completed"),
    (0x03E0, "Topic already exists"),
    (0x03E1, "Topic not exist"),
    (0x03E6, "Consumer not exist"),
    (0x03EA, "Consumer not ready"),
    (0x03EB, "Topic subscribed cannot be dropped"),
    (0x03EC, "Consumer group being used by some consumer"),
    (0x03ED, "Topic must be dropped first"),
    (0x0503, "Vnode is closed or removed"),
    (0x0603, "Table already exists"),
    (0x060B, "Timestamp data out of range"),
    (0x0618, "Table not exists"),
    (0x090C, "Sync leader is unreachable"),
    (0x0A0D, "TQ no committed offset"),
    (0x1005, "WAL log not exist"),
    (0x2600, "syntax error near"),
    (0x2602, "Invalid column name"),
    (0x2603, "Table does not exist"),
    (0x260D, "Tags number not matched"),
    (0x2616, "Database not specified"),
    (0x2617, "Invalid identifier name"),
    (0x2642, "Invalid varbinary/binary/nchar column/tag length"),
    (0x2643, "Invalid number of tag columns"),
    (0x2644, "Permission denied or target object not exist"),
    (0x2653, "Value too long for column/tag"),
    (0x2662, "Fail to get table info"),
    (0x3000, "Invalid line protocol type"),
    (0x3001, "Invalid timestamp precision type"),
    (0x3002, "Invalid data format"),
    (0x4000, "Invalid message"),
    (0x4001, "Consumer mismatch"),
    (0x4002, "Consumer closed"),
    (0x4003, "Consumer error, to see log"),
    (0x4004, "Topic num out of range"),
    (0x4005, "Group num out of range 100"),
    (0x4006, "Can not operate in snapshot mode"),
    (0x4007, "Offset out of range"),
    (0x4008, "VgId does not belong to this consumer"),
    (0x4009, "Topic does not belong to this consumer"),
    (0x4010, "Assignment or poll interface need to be called first"),
    (0x4011, "No committed info"),
    (0x4012, "Same committed value"),
];

fn code_text(code: u32) -> &'static str {
    let known = TEXTS.iter().find(|(known, _)| *known == code);
    known.map_or("Injected fault", |(_, text)| text)
}

fn one() -> u64 {
    1
}

fn once() -> Option<u64> {
    Some(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_dropped_exactly_once_and_only_of_its_action() {
        let faults = Faults::default();
        assert_eq!(faults.after("query", false), Fate::Send);
        let fault = r#"{"fault":"drop-connection","at-reply":2,"action":"query"}"#;
        let id = faults.arm(serde_json::from_str(fault).unwrap());
        let fates: Vec<Fate> =
            ["poll", "query", "fetch", "query", "query"].iter().map(|action| faults.after(action, false)).collect();
        assert_eq!(fates, [Fate::Send, Fate::Send, Fate::Send, Fate::Drop, Fate::Send]);
        assert_eq!(faults.list()[0].fired, 1);
        assert!(faults.remove(id).is_some() && faults.remove(id).is_none());
    }

    #[test]
    fn codes_are_answered_as_often_as_asked() {
        let faults = Faults::default();
        faults.arm(serde_json::from_str(r#"{"fault":"answer-code","code":2316,"times":2}"#).unwrap());
        faults.arm(Fault::RefuseAction { action: "stmt2_init".into(), times: None });
        let before = |action: &str| faults.before(action).map(|fail| fail.code);
        assert_eq!([before("query"), before("query"), before("query")], [Some(2316), Some(2316), None]);
        assert_eq!([before("stmt2_init"), before("stmt2_init")], [Some(0xffff), Some(0xffff)]);
    }

    #[test]
    fn only_a_message_is_lost_or_duplicated() {
        let faults = Faults::default();
        faults.arm(Fault::LosePollReply { times: Some(1) });
        assert_eq!(faults.after("poll", false), Fate::Send);
        assert_eq!([faults.after("poll", true), faults.after("poll", true)], [Fate::Lose, Fate::Send]);
        faults.arm(Fault::DuplicateDelivery { times: Some(1) });
        assert_eq!([faults.duplicates(), faults.duplicates()], [true, false]);
        faults.arm(Fault::AnswerAfterSeek { times: Some(1) });
        assert_eq!([faults.answers_after_seek(), faults.answers_after_seek()], [true, false]);
        faults.arm(Fault::FreezeVgroup { vgroup: 3 });
        assert_eq!([faults.is_frozen(3), faults.is_frozen(2)], [true, false]);
    }
}
