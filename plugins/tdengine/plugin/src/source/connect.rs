//! Getting a source to where it can read: identity, proof of exclusion, topics, lanes placed at their checkpoints.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::try_join_all;
use pipeline_sdk::describe::TELLS_REPLICATED;
use pipeline_sdk::{Checkpoint, Context, Error, Reaction, Result, SOURCE_HOLE, SOURCE_REPLACED};
use tdengine_wire::envelope::{AssignedVgroup, NEVER_COMMITTED};
use tdengine_wire::escape::{identifier, literal};
use tokio::time::Instant;

use super::lane::{LaneState, Reader, lane_name, offset_of};
use super::pending::PendingTokens;
use super::session::Session;
use super::{OnHole, StartFrom, TmqConfig, canary};
use crate::client::{ClientError, Message, Subscription};
use crate::errors::wire_error;
use crate::transport::{Connection, Consumer};
use crate::{metadata, names};

/// Between two looks at lanes that a former process still holds.
const ASSIGNMENT_POLL: Duration = Duration::from_millis(100);
/// A server takes 3 to 4 seconds to take a consumer out (FACTS F44).
const LEAVE_LIMIT: Duration = Duration::from_secs(10);
/// The first version whose consumers may say how many rows they want (PROTOCOL 6.2).
const MIN_POLL_ROWS_VERSION: [u32; 3] = [3, 3, 6];

/// Connects to the site and places every lane.
pub async fn connect(config: &TmqConfig, database: &str, context: &Context, from: &Checkpoint) -> Result<Session> {
    crate::transport::check(&config.dsn)?;
    let limits = config.limits();
    let sql = Connection::open(&config.dsn, None, limits).await?;
    let cluster = metadata::cluster_id(&sql).await?;
    let replica = context.negotiated(TELLS_REPLICATED);
    let Some(found) = metadata::database(&sql, database).await? else {
        // The other direction of a replica may be about to make it.
        let reaction = if replica { Reaction::Retry } else { Reaction::Fatal };
        return Err(Error::new(reaction, format!("{} has no database `{database}`", config.dsn))
            .code("tdengine.database")
            .hint("create it, or name another one in `databases`"));
    };
    // Every one: a database made anew has other vgroups, whose lanes have no position yet.
    for stored in from.lanes.values() {
        offset_of(stored, database, found.created)?;
    }
    let mut subscribers = vec![(Reader::Main, names::topic(&config.topic_prefix, database), "with meta")];
    if replica && config.follow_schemaless {
        subscribers.push((Reader::Meta, names::meta_topic(&config.topic_prefix, database), "only meta"));
    }
    for (_, topic, kind) in &subscribers {
        make_topic(&sql, topic, database, kind).await?;
    }
    let proof = async {
        if replica { canary::prove(&config.dsn, &cluster, limits).await } else { Ok(()) }
    };
    let rows_min = rows_min(config, &sql).await?;
    let group = config.group.clone().unwrap_or_else(|| names::group(&context.place.pipeline, database));
    let subscribing = async {
        let mut consumers = Vec::new();
        for (reader, topic, _) in subscribers {
            let subscription = Subscription {
                topic,
                group: group.clone(),
                client: "pipeline".into(),
                exclude_marked: replica && reader == Reader::Main,
                from_oldest: config.from == StartFrom::Oldest,
                prefetch: config.prefetch,
                rows_min,
            };
            let limits = if reader == Reader::Main { limits.of_rows() } else { limits };
            consumers.push((reader, Consumer::subscribe(&config.dsn, &subscription, limits).await?));
        }
        Ok::<_, Error>(consumers)
    };
    let (proof, consumers) = tokio::join!(proof, subscribing);
    proof?;
    let pending = PendingTokens::load(context)?;
    let mut lanes = BTreeMap::new();
    let mut early = Vec::new();
    let mut main = None;
    let mut meta = None;
    let vgroups = metadata::vgroups(&sql, database).await?;
    if vgroups.len() > config.max_lanes {
        let message = format!("`{database}` has {} vgroups, more than max-lanes = {}", vgroups.len(), config.max_lanes);
        return Err(Error::fatal(message).path("max-lanes"));
    }
    let mut consumers = consumers?;
    // Side by side: a consumer learns of its lanes by polling.
    let placing = try_join_all(consumers.iter_mut().map(|(reader, consumer)| async {
        let (assigned, read) = assigned(consumer, &vgroups, config).await?;
        let placing = Placing { config, context, database, created: found.created, from, pending: &pending, read: &read };
        let placed = placing.place(*reader, consumer, &assigned).await?;
        Ok((*reader, placed, read))
    }));
    let placed: Vec<_> = match placing.await {
        Ok(placed) => placed,
        Err(error) => {
            leave(consumers).await;
            return Err(error);
        }
    };
    for (reader, placed, read) in placed {
        lanes.extend(placed.into_iter().map(|lane| ((reader, lane.vgroup), lane)));
        early.extend(read.into_iter().map(|message| (reader, message)));
    }
    for (reader, consumer) in consumers {
        *(if reader == Reader::Main { &mut main } else { &mut meta }) = Some(consumer);
    }
    let Some(main) = main else { return Err(Error::fatal("no consumer")) };
    Ok(Session::new(config, context, cluster, found, sql, main, meta, lanes, early, pending))
}

/// What the server is told of `min-poll-rows`: one that does not know it keeps its own number.
async fn rows_min(config: &TmqConfig, sql: &Connection) -> Result<Option<u32>> {
    let Some(rows) = config.min_poll_rows else { return Ok(None) };
    let version = metadata::version(sql).await?;
    if metadata::version_numbers(&version) >= MIN_POLL_ROWS_VERSION {
        return Ok(Some(rows));
    }
    tracing::warn!(site = %config.dsn, version, "this server ignores min-poll-rows: set `tmqRowSize` of its dnodes instead");
    Ok(None)
}

/// Takes consumers of no use out of their group: the next try would wait for their lanes, and its own go while it waits for those of this one.
async fn leave(consumers: Vec<(Reader, Consumer)>) {
    for (_, consumer) in consumers {
        // One whose connection is lost is taken out by the server.
        let _ = tokio::time::timeout(LEAVE_LIMIT, consumer.unsubscribe()).await;
    }
}

/// Makes the topic, or checks that the one of this name is what we would make.
async fn make_topic(sql: &Connection, topic: &str, database: &str, kind: &str) -> Result<()> {
    let look = format!("select db_name from information_schema.ins_topics where topic_name = {}", literal(topic));
    let rows = sql.query(&look).await?.texts()?;
    if let Some(row) = rows.first() {
        let of = row[0].as_deref().unwrap_or_default();
        if of == database {
            return Ok(());
        }
        return Err(Error::fatal(format!("topic `{topic}` exists but reads database `{of}`, not `{database}`"))
            .path("topic-prefix")
            .hint("drop that topic or set another topic-prefix"));
    }
    let create = format!("create topic if not exists {} {kind} as database {}", identifier(topic), identifier(database));
    topic_made(sql.exec(&create).await.map(drop))
}

fn topic_made(outcome: Result<(), ClientError>) -> Result<()> {
    match outcome {
        // Another replica made it in the same moment, or is about to.
        Err(ClientError::Server { code: 0x03e0, .. }) => Ok(()),
        // 0x0380: the database, which was there a moment ago, is still being made (by the other direction), or was dropped since.
        Err(ClientError::Server { code: 0x03d3 | 0x03d4 | 0x0380, message, .. }) => Err(Error::retry(message)),
        other => Ok(other?),
    }
}

/// Waits until every vgroup is this consumer's: a member that was lost holds them for seconds (FACTS F41, F42). What a consumer was given
/// since it subscribed it learns by polling only; what polls brought meanwhile begins where the group had committed.
///
/// # Errors
/// Disconnected when the lanes do not come in time, or the others bring more than is kept.
async fn assigned(consumer: &mut Consumer, vgroups: &[i32], config: &TmqConfig) -> Result<(Vec<AssignedVgroup>, Vec<Message>)> {
    let deadline = Instant::now() + config.assignment_timeout.0;
    let mut read = Vec::new();
    loop {
        let assigned = consumer.assignment_so_far().await?;
        if vgroups.iter().all(|vgroup| assigned.iter().any(|lane| lane.vgroup_id == *vgroup)) {
            return Ok((assigned, read));
        }
        let is_full = read.iter().map(|message: &Message| message.raw.len()).sum::<usize>() >= config.assignment_bytes_max;
        if is_full || Instant::now() > deadline {
            let (held, of, topic) = (assigned.len(), vgroups.len(), consumer.topic());
            let brought = if is_full { ", and they brought more than assignment-bytes-max meanwhile" } else { "" };
            let message = format!("only {held} of {of} lanes of topic {topic} are free{brought}");
            return Err(Error::disconnected(message)
                .code("tdengine.lanes")
                .hint("another process consumes with the same group; stop it or set another `group`"));
        }
        read.extend(consumer.poll(ASSIGNMENT_POLL).await?);
        read.extend(consumer.settle().await?);
    }
}

struct Placing<'a> {
    config: &'a TmqConfig,
    context: &'a Context,
    database: &'a str,
    created: i64,
    from: &'a Checkpoint,
    pending: &'a PendingTokens,
    /// What the consumer read before it had all lanes.
    read: &'a [Message],
}

impl Placing<'_> {
    /// Finds where each lane resumes, checks that the log still holds it, and seeks there.
    async fn place(
        &self,
        reader: Reader,
        consumer: &Consumer,
        assigned: &[AssignedVgroup],
    ) -> Result<Vec<LaneState>> {
        let vgroups: Vec<i32> = assigned.iter().map(|vgroup| vgroup.vgroup_id).collect();
        let committed = consumer.committed(&vgroups).await?;
        let mut lanes = Vec::new();
        for (vgroup, committed) in assigned.iter().zip(committed) {
            let lane = lane_name(reader, vgroup.vgroup_id);
            let stored = self.from.lanes.get(&lane);
            let stored = stored.map(|place| offset_of(place, self.database, self.created)).transpose()?;
            let known = (committed != NEVER_COMMITTED).then_some(committed);
            let resume = self.resume(&lane.to_string(), stored, known, vgroup)?;
            // Where the group never committed, a consumer of the oldest begins there.
            let begins = known.or((self.config.from == StartFrom::Oldest).then_some(vgroup.begin));
            let is_sought = begins != Some(resume);
            let mut committed = committed;
            if is_sought {
                // Who subscribes again, or reads on without our state, begins there by itself. Not past a token whose DROP was not seen.
                let wanted = self.pending.oldest_open(lane.as_str()).map_or(resume, |opened| resume.min(opened - 1));
                if wanted > committed && wanted >= vgroup.begin {
                    consumer.commit_offset(vgroup.vgroup_id, wanted).await?;
                    committed = wanted;
                }
                if self.has_passed(vgroup.vgroup_id, resume)? {
                    let message = format!("lane {lane} was read beyond {resume} before it was placed");
                    return Err(Error::disconnected(message).code("tdengine.lanes"));
                }
                consumer.seek(vgroup.vgroup_id, resume).await?;
            }
            tracing::info!(%lane, resume, oldest = vgroup.begin, latest = vgroup.end, "lane placed");
            lanes.push(LaneState {
                lane,
                reader,
                vgroup: vgroup.vgroup_id,
                is_sought,
                next: resume,
                handed_out: resume,
                stands_at: resume,
                sequence: 0,
                committed,
            });
        }
        Ok(lanes)
    }

    /// Whether what was read early of a vgroup ends beyond an offset: what comes next may lie behind a gap then.
    fn has_passed(&self, vgroup: i32, offset: i64) -> Result<bool> {
        for message in self.read.iter().filter(|message| message.vgroup == vgroup) {
            if message.ends().map_err(wire_error)? > offset {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The checkpoint decides. What is committed upstream is never ahead of what is durable, and may be ahead of a
    /// checkpoint only over entries that are not ours to read.
    fn resume(&self, lane: &str, stored: Option<i64>, committed: Option<i64>, log: &AssignedVgroup) -> Result<i64> {
        let Some(resume) = stored.or(committed) else {
            return Ok(match self.config.from {
                StartFrom::Oldest => log.begin,
                StartFrom::Latest => log.end,
            });
        };
        if resume > log.end {
            let message = format!("lane {lane} of `{}` is to resume at {resume}, beyond its log's end", self.database);
            return Err(Error::fatal(format!("{message} {}", log.end))
                .code(SOURCE_REPLACED)
                .hint("the site lost data or was restored"));
        }
        if resume >= log.begin {
            return Ok(resume);
        }
        let message = format!(
            "lane {lane} of `{}` is to resume at {resume}, but its log begins at {}: {} entries are gone",
            self.database,
            log.begin,
            log.begin - resume
        );
        let detail = serde_json::json!({ "lane": lane, "from": resume, "to": log.begin, "database": self.database });
        self.context.incident("hole", message.clone(), detail);
        match self.config.on_hole {
            OnHole::Continue => Ok(log.begin),
            // The configuration says so: a stop by policy, not a failure.
            OnHole::Stop => Err(Error::rejected(message).code(SOURCE_HOLE).path("on-hole").hint(
                "compare and repair the sites; on-hole = \"continue\" goes on behind it; a longer wal_retention_period avoids it",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_one_is_doing_to_the_topic_or_its_database_is_waited_for() {
        let refused = |code| topic_made(Err(ClientError::server("create", code, "no"))).map_err(|error| error.reaction);
        assert_eq!(refused(0x03e0), Ok(()));
        for code in [0x03d3, 0x03d4, 0x0380, 0x0396] {
            assert_eq!(refused(code), Err(Reaction::Retry), "{code:#06x}");
        }
        assert_eq!(refused(0x4004), Err(Reaction::Fatal));
    }
}
