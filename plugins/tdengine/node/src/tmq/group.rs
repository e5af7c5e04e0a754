//! Consumer groups: who is a member, and which vgroups of which topics each member reads.
//!
//! Whenever a member comes or goes the lanes are dealt anew, as evenly as it goes and moving as few as possible (seen of a real
//! server: 8; 4 + 4; 3 + 3 + 2; then 4 + 4 when the first left). A lane that moves starts at its committed offset (PROTOCOL 6.4,
//! FACTS F41, F42).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde::Serialize;
use tdengine_store::database::Consumer;
use tdengine_store::{Store, VgroupId};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::Fail;

/// A vgroup of a topic, as one member reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub(crate) struct Lane {
    pub topic: String,
    pub vgroup: VgroupId,
}

/// What a member may read. The generation changes whenever the lanes do.
#[derive(Debug, Default)]
pub(crate) struct Assigned {
    pub generation: u64,
    pub lanes: Vec<Lane>,
}

/// Who wants to join a group, and how.
#[derive(Debug, Clone)]
pub(crate) struct Joining {
    pub group: String,
    pub client: String,
    pub user: String,
    pub topics: Vec<String>,
    /// A member that does not poll for so long is put out.
    pub poll_interval_max: Duration,
}

/// A place in a group.
#[derive(Debug, Clone)]
pub(crate) struct Membership {
    pub id: i64,
    group: String,
    assigned: Arc<Mutex<Assigned>>,
}

#[derive(Debug)]
struct Member {
    id: i64,
    joining: Joining,
    assigned: Arc<Mutex<Assigned>>,
    last_poll: Instant,
    since_ms: i64,
    /// Never ready: what a colon in a group's name does to a real server (FACTS F45).
    stuck: bool,
}

/// One member as the admin address shows it.
#[derive(Debug, Serialize)]
pub(crate) struct MemberView {
    id: i64,
    group: String,
    client: String,
    topics: Vec<String>,
    lanes: Vec<Lane>,
}

/// All groups of a node.
#[derive(Debug, Clone)]
pub(crate) struct Groups {
    store: Store,
    lost_after: Duration,
    stopped: CancellationToken,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last_id: i64,
    groups: HashMap<String, Vec<Member>>,
}

impl Groups {
    pub fn new(store: Store, lost_after: Duration, stopped: CancellationToken) -> Self {
        Self { store, lost_after, stopped, state: Arc::default() }
    }

    /// Adds a member and deals the lanes of its group anew.
    ///
    /// # Errors
    /// 0x03E1 for a topic that does not exist.
    pub fn join(&self, joining: Joining) -> Result<Membership, Fail> {
        for topic in &joining.topics {
            self.store.topic(topic)?;
        }
        let topics = joining.topics.clone();
        let membership = self.add(joining, false);
        self.rebalance(&membership.group);
        self.mark(&topics);
        Ok(membership)
    }

    /// Who comes and who goes is an entry in each log of the topic (FACTS F59).
    fn mark(&self, topics: &[String]) {
        for topic in topics {
            if let Err(error) = self.store.mark_subscription(topic) {
                tracing::debug!(topic, %error, "no entry for a consumer that came or went");
            }
        }
    }

    /// Adds a member that never becomes ready and never goes, as a real server does for a group with a colon
    /// (FACTS F45): its topics cannot be dropped any more.
    pub fn join_stuck(&self, joining: Joining) {
        self.add(joining, true);
    }

    fn add(&self, joining: Joining, stuck: bool) -> Membership {
        let mut state = self.state.lock();
        state.last_id += 1;
        let (id, group, assigned) = (state.last_id, joining.group.clone(), Arc::<Mutex<Assigned>>::default());
        let member =
            Member { id, joining, assigned: assigned.clone(), last_poll: Instant::now(), since_ms: now_ms(), stuck };
        self.store.put_consumer(member.row());
        state.groups.entry(group.clone()).or_default().push(member);
        Membership { id, group, assigned }
    }

    /// Takes a member out at once, as after `unsubscribe`.
    pub fn leave(&self, membership: &Membership) {
        self.take_out(&membership.group, |member| member.id == membership.id);
    }

    /// Takes a member out whose socket was lost, after the time that the configuration says.
    pub fn lose(&self, membership: Membership) {
        if self.lost_after.is_zero() {
            return self.leave(&membership);
        }
        let groups = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = tokio::time::sleep(groups.lost_after) => groups.leave(&membership),
                () = groups.stopped.cancelled() => {}
            }
        });
    }

    /// Says that a member polled, puts out those of its group that have not for too long, and tells whether it is still
    /// a member itself.
    pub fn touch(&self, membership: &Membership) -> bool {
        {
            let mut state = self.state.lock();
            let members = state.groups.get_mut(&membership.group).into_iter().flatten();
            for member in members.filter(|member| member.id == membership.id) {
                if member.last_poll.elapsed() <= member.joining.poll_interval_max {
                    member.last_poll = Instant::now();
                }
            }
        }
        let silent = |member: &Member| !member.stuck && member.last_poll.elapsed() > member.joining.poll_interval_max;
        self.take_out(&membership.group, silent);
        let state = self.state.lock();
        state.groups.get(&membership.group).is_some_and(|members| members.iter().any(|member| member.id == membership.id))
    }

    pub fn list(&self) -> Vec<MemberView> {
        let state = self.state.lock();
        let members = state.groups.iter().flat_map(|(group, members)| members.iter().map(move |member| (group, member)));
        let view = |(group, member): (&String, &Member)| MemberView {
            id: member.id,
            group: group.clone(),
            client: member.joining.client.clone(),
            topics: member.joining.topics.clone(),
            lanes: member.assigned.lock().lanes.clone(),
        };
        members.map(view).collect()
    }

    fn take_out(&self, group: &str, goes: impl Fn(&Member) -> bool) {
        let mut left = Vec::new();
        {
            let mut state = self.state.lock();
            let Some(members) = state.groups.get_mut(group) else {
                return;
            };
            members.retain(|member| {
                let goes = goes(member);
                if goes {
                    left.push((member.id, member.joining.topics.clone()));
                }
                !goes
            });
            if members.is_empty() {
                state.groups.remove(group);
            }
        }
        if left.is_empty() {
            return;
        }
        for (id, topics) in left {
            tracing::debug!(group, id, "consumer left");
            self.store.remove_consumer(id);
            self.mark(&topics);
        }
        self.rebalance(group);
    }

    /// Deals the lanes of a group. Under the lock of all groups, so that no lane has two readers.
    fn rebalance(&self, group: &str) {
        let state = self.state.lock();
        let Some(members) = state.groups.get(group) else {
            return;
        };
        let ready: Vec<&Member> = members.iter().filter(|member| !member.stuck).collect();
        let mut topics: Vec<&String> = ready.iter().flat_map(|member| &member.joining.topics).collect();
        topics.sort();
        topics.dedup();
        let mut dealt: HashMap<i64, Vec<Lane>> = HashMap::new();
        for topic in topics {
            let readers: Vec<&Member> = ready.iter().copied().filter(|member| member.joining.topics.contains(topic)).collect();
            for (id, vgroup) in deal(&readers, topic, self.vgroups(topic)) {
                dealt.entry(id).or_default().push(Lane { topic: topic.clone(), vgroup });
            }
        }
        for member in ready {
            let lanes = dealt.remove(&member.id).unwrap_or_default();
            let mut assigned = member.assigned.lock();
            if assigned.lanes == lanes && assigned.generation > 0 {
                continue;
            }
            assigned.generation += 1;
            assigned.lanes = lanes;
            drop(assigned);
            self.store.put_consumer(member.row());
        }
    }

    fn vgroups(&self, topic: &str) -> Vec<VgroupId> {
        let database = self.store.topic(topic).and_then(|topic| self.store.database(&topic.database));
        match database {
            Ok(database) => database.vgroups.clone(),
            Err(error) => {
                tracing::info!(topic, %error, "a subscribed topic is gone");
                Vec::new()
            }
        }
    }
}

/// Who reads each vgroup. As a real server does it: a member keeps the first of what it has, up to its share, and what is left goes
/// to those that have less.
fn deal(readers: &[&Member], topic: &str, mut vgroups: Vec<VgroupId>) -> Vec<(i64, VgroupId)> {
    vgroups.sort_unstable();
    let (each, mut more) = (vgroups.len() / readers.len(), vgroups.len() % readers.len());
    let (mut dealt, mut open) = (Vec::new(), Vec::new());
    for member in readers {
        let assigned = member.assigned.lock();
        let has = |vgroup: &&VgroupId| assigned.lanes.iter().any(|lane| lane.topic == *topic && lane.vgroup == **vgroup);
        let mut kept: Vec<VgroupId> = vgroups.iter().filter(has).copied().collect();
        let share = if kept.len() > each && more > 0 { each + 1 } else { each };
        more -= share - each;
        kept.truncate(share);
        open.push((member.id, share - kept.len()));
        dealt.extend(kept.into_iter().map(|vgroup| (member.id, vgroup)));
    }
    let mut free = vgroups.into_iter().filter(|vgroup| !dealt.iter().any(|(_, kept)| kept == vgroup)).collect::<Vec<_>>().into_iter();
    let mut rest = Vec::new();
    for (id, room) in &open {
        rest.extend(free.by_ref().take(*room).map(|vgroup| (*id, vgroup)));
    }
    let by_members = open.iter().rev().cycle();
    rest.extend(by_members.zip(free).map(|((id, _), vgroup)| (*id, vgroup)));
    dealt.extend(rest);
    dealt
}

impl Membership {
    pub fn assigned(&self) -> Arc<Mutex<Assigned>> {
        self.assigned.clone()
    }

    pub fn group(&self) -> &str {
        &self.group
    }
}

impl Member {
    fn row(&self) -> Consumer {
        Consumer {
            id: self.id,
            group: self.joining.group.clone(),
            client: self.joining.client.clone(),
            user: self.joining.user.clone(),
            status: if self.stuck { "rebalancing" } else { "ready" }.into(),
            topics: self.joining.topics.clone(),
            lanes: self.assigned.lock().lanes.iter().map(|lane| (lane.topic.clone(), lane.vgroup)).collect(),
            subscribed_ms: self.since_ms,
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
