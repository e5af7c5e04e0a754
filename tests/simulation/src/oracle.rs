//! What the logs of both sites say of the invariants, seen from inside the nodes.
//!
//! Every row carries in `q` who wrote it and when ([`crate::model`]), so that a log tells whether a row came back to its site, whether
//! a lane's rows arrived in its order, and whether what a pipeline counts as done is at the other site.

use std::collections::{BTreeMap, BTreeSet};

use pipeline_engine::state::TaskKey;
use pipeline_tdengine::names;
use tdengine_store::{EntryKind, Store, SubmitTable, Version, VgroupId};
use tdengine_wire::block::BlockView;

use crate::check::Violation;
use crate::world::{DATABASE, PIPELINES, SITES, World};

/// Bytes of a log read at once.
const READ_BYTES: usize = 1 << 20;
/// In an entry's flags: replicated.
const MARKED: u8 = 0x8;

/// A row of a log.
struct Logged {
    vgroup: VgroupId,
    version: Version,
    table: String,
    suid: i64,
    q: i64,
    is_marked: bool,
}

/// Checks both sites' logs for `no-loop` and `lane-order`. Needs both nodes.
pub fn logs(world: &World) -> Result<(), Violation> {
    for (number, name) in SITES.iter().enumerate() {
        let Some(node) = world.node(number) else { continue };
        let mut newest: BTreeMap<String, i64> = BTreeMap::new();
        let mut seen: BTreeSet<(String, i64)> = BTreeSet::new();
        for row in rows(node.store())? {
            let is_own = row.q % 2 == number as i64;
            if is_own == row.is_marked {
                let how = if row.is_marked { "came back marked" } else { "came unmarked, and so goes back" };
                return Err(Violation::new("no-loop", format!("site {name}: row q = {} of {} {how}", row.q, row.table)));
            }
            if !row.is_marked || !seen.insert((row.table.clone(), row.q)) {
                continue;
            }
            let newest = newest.entry(row.table.clone()).or_insert(row.q);
            if row.q < *newest {
                let text = format!("site {name}: row q = {} of {} was written after q = {newest}", row.q, row.table);
                return Err(Violation::new("lane-order", text));
            }
            *newest = row.q;
        }
    }
    Ok(())
}

/// Checks that what the pipeline stored as done is at the other site, and that no more than that is committed upstream. In groups
/// where nothing was dropped. Needs both nodes.
pub fn durable(world: &World, from: usize, is_lasting: impl Fn(&str) -> bool) -> Result<(), Violation> {
    let (Some(source), Some(target)) = (world.node(from), world.node(1 - from)) else { return Ok(()) };
    let (source, target) = (source.store(), target.store());
    let store = &world.processes[from].store;
    let task = TaskKey { pipeline: PIPELINES[from].into(), task: DATABASE.into(), source: "tdengine-tmq".into() };
    let unreadable = |error: pipeline_sdk::Error| Violation::new("committed-after-durable", error.to_string());
    let Some(identity) = store.identity(&task).map_err(unreadable)? else { return Ok(()) };
    let checkpoint = store.checkpoint(&task, &identity).map_err(unreadable)?;
    let done = |vgroup: VgroupId| checkpoint.lanes.iter().find(|(lane, _)| lane.as_str() == vgroup.to_string()).and_then(|(_, it)| it.number);
    let (topic, group) = (names::topic(names::PREFIX_DEFAULT, DATABASE), names::group(PIPELINES[from], DATABASE));
    for vgroup in vgroups(source)? {
        let committed = source.committed(&group, &topic, vgroup);
        if committed > done(vgroup) {
            let text = format!("{}: vgroup {vgroup} is committed at {committed:?}, stored at {:?}", PIPELINES[from], done(vgroup));
            return Err(Violation::new("committed-after-durable", text));
        }
    }
    let stables: BTreeMap<i64, String> = source.stables(DATABASE).iter().map(|it| (it.suid, it.name.to_string())).collect();
    let there: BTreeSet<(String, i64)> = rows(target)?.into_iter().map(|row| (row.table, row.q)).collect();
    let reported = world.incidents();
    for row in rows(source)?.into_iter().filter(|row| !row.is_marked) {
        let group = stables.get(&row.suid).map_or(row.table.as_str(), String::as_str);
        let is_done = done(row.vgroup).is_some_and(|done| row.version < done);
        let is_reported = reported.iter().any(|it| it.detail.to_string().contains(&row.table));
        if is_done && is_lasting(group) && !is_reported && !there.contains(&(row.table.clone(), row.q)) {
            let text = format!("{}: row q = {} of {} at {} of vgroup {} counts as done and is not there", PIPELINES[from], row.q, row.table, row.version, row.vgroup);
            return Err(Violation::new("committed-after-durable", text));
        }
    }
    Ok(())
}

fn vgroups(store: &Store) -> Result<Vec<VgroupId>, Violation> {
    let database = store.database(DATABASE).map_err(|error| Violation::new("generator", error.to_string()))?;
    Ok(database.vgroups.clone())
}

/// Every row in a site's logs, lane by lane in order.
fn rows(store: &Store) -> Result<Vec<Logged>, Violation> {
    let failed = |error: String| Violation::new("generator", format!("a log cannot be read: {error}"));
    let mut rows = Vec::new();
    for vgroup in vgroups(store)? {
        let (mut next, end) = store.wal_range(vgroup).map_err(|error| failed(error.to_string()))?;
        while next < end {
            let entries = store.read_wal(vgroup, next, READ_BYTES).map_err(|error| failed(error.to_string()))?;
            let Some(last) = entries.last() else { break };
            next = last.version + 1;
            for entry in &entries {
                let EntryKind::Submit(tables) = &entry.kind else { continue };
                for table in tables {
                    rows_of(table, vgroup, entry.version, &mut rows).map_err(|error| failed(error.to_string()))?;
                }
            }
        }
    }
    Ok(rows)
}

fn rows_of(table: &SubmitTable, vgroup: VgroupId, version: Version, rows: &mut Vec<Logged>) -> tdengine_wire::Result<()> {
    let view = BlockView::parse(&table.block)?;
    let Some(column) = table.fields.iter().position(|field| field.name == "q") else { return Ok(()) };
    for row in 0..view.rows() {
        let Some(q) = view.columns()[column].value(row).as_i64() else { continue };
        let is_marked = table.flags & MARKED != 0;
        rows.push(Logged { vgroup, version, table: table.table.to_string(), suid: table.suid, q, is_marked });
    }
    Ok(())
}
