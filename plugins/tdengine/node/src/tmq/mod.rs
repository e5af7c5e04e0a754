//! `/rest/tmq`: one socket is one consumer (PROTOCOL 6).
//!
//! Polls of a consumer are worked on one after another; everything else, such as the commit of an earlier message, goes
//! on while one waits. Read in this order: [`group`], [`subscribe`], [`message`], [`consumer`], [`fetch`].

mod consumer;
mod fetch;
mod group;
mod message;
mod raw;
mod subscribe;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::select_all;
use parking_lot::Mutex;
use serde_json::{Map, Value as Json, json};
use tdengine_wire::envelope::{
    Assignment, AssignmentReply, Commit, CommitOffset, Committed, CommittedReply, ListTopicsReply, MessageReply, Poll,
    PollReply, Position, PositionReply, Request, Seek, Subscribe, TopicVgroup, VersionReply,
};
use tokio::time::Instant;

use self::consumer::{Consumer, look_again};
pub(crate) use self::group::Groups;
use self::group::{Joining, Lane};
use self::message::{Message, Selection};
use self::subscribe::{Options, Subscription};
use crate::error::Fail;
use crate::node::Shared;
use crate::reply::{Answer, Call, args, echo};
use crate::socket::{Frame, Protocol, Reply};

/// One socket.
pub(crate) struct Socket {
    shared: Arc<Shared>,
    state: Arc<Mutex<State>>,
    /// Held by the poll that is being worked on.
    polling: Arc<tokio::sync::Mutex<()>>,
}

/// What a socket is at the moment.
#[derive(Debug, Default)]
struct State {
    consumer: Option<Consumer>,
    /// There was a subscription: a poll after `unsubscribe` finds nothing instead of failing (FACTS F44).
    had_consumer: bool,
    /// Its socket is gone: what was still being worked on is for nobody.
    is_closed: bool,
    cursor: fetch::Cursor,
}

impl State {
    fn consumer(&mut self) -> Result<&mut Consumer, Fail> {
        self.consumer.as_mut().ok_or_else(not_subscribed)
    }
}

impl Socket {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self { shared, state: Arc::default(), polling: Arc::default() }
    }

    async fn act(&self, call: &Call, request: &Request<'_>) -> Answer {
        match &*request.action {
            "version" => self.version(call),
            "subscribe" => self.subscribe(call, request).await,
            "poll" => self.poll(call, request).await,
            "fetch" => self.fetch(call, request),
            "fetch_block" => self.fetch_block(call, request),
            "fetch_raw" => self.fetch_raw(call, request),
            "fetch_raw_data" if self.shared.version.has_binary_query() => self.fetch_raw_data(call, request),
            "fetch_json_meta" => self.fetch_json_meta(call, request),
            "commit" => self.commit(call, request).await,
            "commit_offset" => self.commit_offset(call, request).await,
            "assignment" => self.assignment(call, request),
            "seek" => self.seek(call, request),
            "committed" => self.committed(call, request),
            "position" => self.position(call, request),
            "list_topics" => self.list_topics(call),
            "unsubscribe" => self.unsubscribe(call),
            action => {
                self.shared.count_malformed("/rest/tmq", &format!("unknown action {action:?}"));
                Ok(None)
            }
        }
    }

    /// The reply of 3.3.2.3 has neither `req_id` nor `timing` (PROTOCOL 6.1).
    fn version(&self, call: &Call) -> Answer {
        let version = self.shared.version.to_string();
        if self.shared.version.has_stmt2() {
            return call.json(&VersionReply { version: Some(version) });
        }
        let reply = json!({ "code": 0, "message": "", "action": "version", "version": version });
        Ok(Some(Frame::Text(reply.to_string())))
    }

    async fn subscribe(&self, call: &Call, request: &Request<'_>) -> Answer {
        if self.state.lock().consumer.is_some() {
            return Err(Fail::protocol("tmq should have unsubscribed first"));
        }
        let subscribe: Subscribe = args(request)?;
        let modern = self.shared.version.has_stmt2();
        let options = match Subscription::read(&subscribe, self.shared.version)? {
            Subscription::Ready(options) => options,
            Subscription::Hangs => {
                self.shared.count_malformed("/rest/tmq", &"a subscription that the real server never answers");
                return Ok(None);
            }
            Subscription::HangsForGood(options) => {
                self.shared.groups.join_stuck(joining(&options, subscribe.user));
                return Ok(None);
            }
        };
        let database = Some(subscribe.db);
        let signed_in = self.shared.sign_in(subscribe.user.clone(), subscribe.password, database).await;
        signed_in.map_err(|fail| if modern { fail } else { Fail::protocol("new consumer return nil") })?;
        self.join(options, subscribe.user).await?;
        call.json(&VersionReply { version: modern.then(|| self.shared.version.to_string()) })
    }

    async fn join(&self, options: Options, user: String) -> Result<(), Fail> {
        let limits = &self.shared.config.limits;
        let selection = Selection {
            excluded: options.excluded,
            batch_meta: options.batch_meta,
            rows_min: options.rows_min.unwrap_or(limits.message_rows),
            parts_max: limits.message_parts,
            read_bytes: limits.read_bytes,
        };
        let joining = joining(&options, user);
        let membership = self.shared.blocking(move |shared| shared.groups.join(joining)).await?;
        let mut consumer = Consumer::new(self.shared.store.clone(), options, membership, selection);
        if let Err(fail) = consumer.refresh() {
            self.shared.groups.leave(&consumer.membership);
            return Err(fail);
        }
        let mut state = self.state.lock();
        if state.is_closed {
            self.shared.groups.lose(consumer.membership);
            return Err(Fail::protocol("the socket is gone"));
        }
        if state.consumer.is_some() {
            self.shared.groups.leave(&consumer.membership);
            return Err(Fail::protocol("tmq should have unsubscribed first"));
        }
        *state = State { consumer: Some(consumer), had_consumer: true, ..State::default() };
        Ok(())
    }

    async fn poll(&self, call: &Call, request: &Request<'_>) -> Answer {
        let poll: Poll = args(request)?;
        let deadline = Instant::now() + Duration::from_millis(poll.blocking_time.max(0) as u64);
        let _turn = self.polling.lock().await;
        if let Some(held) = self.lost(poll.message_id) {
            return call.json(&handed_out(&held));
        }
        let pauses = match self.begin_poll()? {
            Some(pauses) => pauses,
            None => return call.json(&PollReply::default()),
        };
        if pauses {
            tokio::time::sleep_until(deadline).await;
            return call.json(&PollReply::default());
        }
        match self.wait_for_message(deadline).await? {
            Some(message) => call.json(&handed_out(&message)),
            None => call.json(&PollReply::default()),
        }
    }

    /// The held message, when a newer server sees by the client's id that its poll reply was lost (PROTOCOL 6.3).
    fn lost(&self, message_id: Option<u64>) -> Option<Arc<Message>> {
        let message_id = message_id.filter(|_| self.shared.version.has_stmt2())?;
        let held = self.state.lock().consumer.as_ref()?.held.clone()?;
        (held.id != message_id).then_some(held)
    }

    /// What comes before looking for a message. `None` when there is no subscription any more; else whether this poll
    /// comes back empty because of a seek.
    fn begin_poll(&self) -> Result<Option<bool>, Fail> {
        let mut state = self.state.lock();
        if state.consumer.is_none() && state.had_consumer {
            return Ok(None);
        }
        let consumer = state.consumer()?;
        if !self.shared.groups.touch(&consumer.membership) {
            return Err(Fail::new(0x4001, "Consumer mismatch"));
        }
        consumer.commit_if_due()?;
        Ok(Some(consumer.takes_seek_pause()))
    }

    async fn wait_for_message(&self, deadline: Instant) -> Result<Option<Arc<Message>>, Fail> {
        loop {
            let mut appends = self.appends();
            let state = self.state.clone();
            let next = self.shared.blocking(move |shared| match state.lock().consumer.as_mut() {
                Some(consumer) => consumer.next(&shared.faults),
                None => Ok(None),
            });
            if let Some(message) = next.await? {
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let appended = async {
                match appends.is_empty() {
                    true => std::future::pending().await,
                    false => select_all(appends.iter_mut().map(|appends| appends.changed().boxed())).await,
                }
            };
            tokio::select! {
                biased;
                _ = appended => {}
                () = tokio::time::sleep(look_again(left)) => {}
            }
        }
    }

    /// What wakes a waiting poll; nothing does unless the configuration says so.
    fn appends(&self) -> Vec<tokio::sync::watch::Receiver<i64>> {
        if !self.shared.config.poll_wakes {
            return Vec::new();
        }
        let vgroups = self.state.lock().consumer.as_ref().map(Consumer::vgroups).unwrap_or_default();
        vgroups.into_iter().filter_map(|vgroup| self.shared.store.subscribe_appends(vgroup).ok()).collect()
    }

    async fn commit(&self, call: &Call, request: &Request<'_>) -> Answer {
        let Commit { message_id } = args(request)?;
        let state = self.state.clone();
        self.shared.blocking(move |_| state.lock().consumer()?.commit()).await?;
        call.json(&MessageReply { message_id })
    }

    async fn commit_offset(&self, call: &Call, request: &Request<'_>) -> Answer {
        let commit: CommitOffset = args(request)?;
        let lane = Lane { topic: commit.topic.clone(), vgroup: commit.vgroup_id };
        let (state, offset) = (self.state.clone(), commit.offset);
        self.shared.blocking(move |_| state.lock().consumer()?.commit_offset(&lane, offset)).await?;
        call.json(&commit)
    }

    fn seek(&self, call: &Call, request: &Request<'_>) -> Answer {
        let Seek { topic, vgroup_id, offset } = args(request)?;
        let pauses = !self.shared.version.has_stmt2();
        self.state.lock().consumer()?.seek(&Lane { topic, vgroup: vgroup_id }, offset, pauses, &self.shared.faults)?;
        call.done()
    }

    fn assignment(&self, call: &Call, request: &Request<'_>) -> Answer {
        let Assignment { topic } = args(request)?;
        let assignment = self.state.lock().consumer()?.assignment(&topic)?;
        call.json(&AssignmentReply { assignment })
    }

    fn committed(&self, call: &Call, request: &Request<'_>) -> Answer {
        let Committed { topic_vgroup_ids } = args(request)?;
        let committed = self.of_each(topic_vgroup_ids, Consumer::committed)?;
        call.json(&CommittedReply { committed })
    }

    fn position(&self, call: &Call, request: &Request<'_>) -> Answer {
        let Position { topic_vgroup_ids } = args(request)?;
        let position = self.of_each(topic_vgroup_ids, Consumer::position)?;
        call.json(&PositionReply { position })
    }

    fn of_each(
        &self,
        lanes: Vec<TopicVgroup>,
        ask: impl Fn(&mut Consumer, &Lane) -> Result<i64, Fail>,
    ) -> Result<Vec<i64>, Fail> {
        let mut state = self.state.lock();
        let consumer = state.consumer()?;
        let lanes = lanes.into_iter().map(|lane| Lane { topic: lane.topic, vgroup: lane.vgroup_id });
        lanes.map(|lane| ask(consumer, &lane)).collect()
    }

    fn list_topics(&self, call: &Call) -> Answer {
        let topics = self.state.lock().consumer()?.options.topics.clone();
        call.json(&ListTopicsReply { topics })
    }

    fn unsubscribe(&self, call: &Call) -> Answer {
        let mut state = self.state.lock();
        let consumer = state.consumer.take().ok_or_else(not_subscribed)?;
        self.shared.groups.leave(&consumer.membership);
        call.done()
    }

    /// Keys that error replies carry besides the envelope (PROTOCOL 1.3).
    fn error_keys(&self, request: &Request<'_>) -> Map<String, Json> {
        let mut keys = match &*request.action {
            "fetch" | "fetch_block" | "fetch_raw" | "fetch_raw_data" | "fetch_json_meta" => echo(request, &["message_id"]),
            _ => Map::new(),
        };
        let decoded = match &*request.action {
            "fetch_json_meta" => Some(("data", Json::Null)),
            "committed" => Some(("committed", json!([]))),
            "position" => Some(("position", json!([]))),
            _ => None,
        };
        if let (Some((key, value)), true) = (decoded, self.shared.version.has_stmt2()) {
            keys.insert(key.into(), value);
        }
        keys
    }
}

impl Protocol for Socket {
    async fn text(self: Arc<Self>, text: String) -> Option<Reply> {
        let request = match Request::parse(&text) {
            Ok(request) => request,
            Err(error) => {
                self.shared.count_malformed("/rest/tmq", &error);
                return None;
            }
        };
        let call = Call::new(request.action.clone().into_owned(), request.req_id);
        let answer = match self.shared.faults.before(&request.action) {
            Some(fail) => Err(fail),
            None => self.act(&call, &request).await,
        };
        if let (Err(fail), "fetch_raw_data") = (&answer, &*request.action)
            && self.shared.version.has_binary_query()
        {
            let frame = self.raw_data_error(&call, &request, fail);
            return Some(Reply { action: call.action, hands_out: false, frame });
        }
        let hands_out = matches!((&answer, &*request.action), (Ok(Some(Frame::Text(text))), "poll") if hands_out(text));
        let reply = call.finish(answer, &self.error_keys(&request))?;
        Some(Reply { hands_out, ..reply })
    }

    /// There are no binary requests here.
    async fn binary(self: Arc<Self>, frame: Bytes) -> Option<Reply> {
        self.shared.count_malformed("/rest/tmq", &format!("a binary request of {} bytes", frame.len()));
        None
    }

    /// An adapter (3.3.2.3) lets go of a consumer when its poll is over, and not before.
    fn closed(&self) {
        self.state.lock().is_closed = true;
        let (shared, state, polling) = (self.shared.clone(), self.state.clone(), self.polling.clone());
        tokio::spawn(async move {
            tokio::select! {
                biased;
                _turn = polling.lock() => {}
                () = shared.stopped.cancelled() => {}
            }
            if let Some(consumer) = state.lock().consumer.take() {
                shared.groups.lose(consumer.membership);
            }
        });
    }
}

fn joining(options: &Options, user: String) -> Joining {
    Joining {
        group: options.group.clone(),
        client: options.client.clone(),
        user,
        topics: options.topics.clone(),
        poll_interval_max: options.poll_interval_max,
    }
}

fn handed_out(message: &Message) -> PollReply {
    PollReply {
        have_message: true,
        topic: message.topic.clone(),
        database: message.database.clone(),
        vgroup_id: message.vgroup,
        message_type: message.kind(),
        message_id: message.id,
        offset: message.offset(),
    }
}

fn hands_out(reply: &str) -> bool {
    reply.contains("\"have_message\":true")
}

fn not_subscribed() -> Fail {
    Fail::protocol("tmq not init")
}
