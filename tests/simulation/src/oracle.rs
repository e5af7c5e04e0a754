//! What the logs of both sites say of the invariants, seen from inside the nodes.
//!
//! Every row carries in `q` who wrote it and when ([`crate::model`]), so that a log tells whether a row came back to its site, whether
//! a lane's rows arrived in its order, and whether what a pipeline counts as done is at the other site.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use pipeline_engine::state::TaskKey;
use pipeline_tdengine::names;
use tdengine_store::{EntryKind, Store, SubmitTable, Version, VgroupId};
use tdengine_wire::block::BlockView;
use tdengine_wire::meta::{Meta, RawMeta, kind};

use crate::check::Violation;
use crate::world::{DATABASE, PIPELINES, SITES, World};

/// Bytes of a log read at once.
const READ_BYTES: usize = 1 << 20;
/// In an entry's flags: replicated.
const MARKED: u8 = 0x8;

/// What a log says of rows.
enum Entry {
    Row(Logged),
    /// Rows of a table were deleted, or all of a super table's where there is no table.
    Gone { table: Option<String>, suid: i64, times: RangeInclusive<i64> },
}

/// A row of a log.
struct Logged {
    vgroup: VgroupId,
    version: Version,
    table: String,
    suid: i64,
    time: i64,
    q: i64,
    /// That it sets, without the time.
    columns: Vec<String>,
    is_marked: bool,
}

impl Entry {
    fn row(&self) -> Option<&Logged> {
        match self {
            Self::Row(row) => Some(row),
            Self::Gone { .. } => None,
        }
    }

    /// Whether it deletes what a table has at a time.
    fn deletes(&self, table: &str, suid: i64, time: i64) -> bool {
        match self {
            Self::Row(_) => false,
            Self::Gone { table: Some(gone), times, .. } => gone == table && times.contains(&time),
            Self::Gone { table: None, suid: gone, times } => *gone == suid && times.contains(&time),
        }
    }
}

/// Checks both sites' logs for `no-loop`, `lane-order` and `no-regress`. Needs both nodes.
pub fn logs(world: &World) -> Result<(), Violation> {
    let incidents = world.incidents();
    let is_reported = |row: &Logged| {
        let names = |detail: &serde_json::Value| {
            detail["table"] == row.table.as_str() && detail["times"].as_array().is_some_and(|times| times.iter().any(|it| *it == row.time))
        };
        incidents.iter().any(|incident| incident.kind == "regress" && names(&incident.detail))
    };
    for (number, name) in SITES.iter().enumerate() {
        let Some(node) = world.node(number) else { continue };
        let entries = entries(node.store())?;
        for row in entries.iter().filter_map(Entry::row) {
            let is_own = row.q % 2 == number as i64;
            if is_own == row.is_marked {
                let how = if row.is_marked { "came back marked" } else { "came unmarked, and so goes back" };
                return Err(Violation::new("no-loop", format!("site {name}: row q = {} of {} {how}", row.q, row.table)));
            }
        }
        order(&entries, is_reported).map_err(|it| Violation { text: format!("site {name}: {}", it.text), ..it })?;
    }
    Ok(())
}

/// Checks the rows that a pipeline wrote, as the target's log has them. A lane that is read again from its checkpoint is applied in its
/// order again, and what is there already is not written: so rows are first written in the lane's order, and whatever is written again,
/// in the end the newest value since the row was last deleted stands in every column.
///
/// A row that was reported, and not written, when it was read again may be written when it is read the next time, behind newer rows of
/// its table: where it was overwritten or deleted meanwhile, and only together with what did that, in their order.
fn order(entries: &[Entry], is_reported: impl Fn(&Logged) -> bool) -> Result<(), Violation> {
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut seen: BTreeSet<(&str, i64)> = BTreeSet::new();
    // By table, super table, time and column: the newest row that set it, and the last one.
    let mut cells: BTreeMap<(&str, i64, i64, &str), (i64, i64)> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let row = match entry {
            Entry::Row(row) if row.is_marked => row,
            Entry::Row(_) => continue,
            Entry::Gone { .. } => {
                cells.retain(|(table, suid, time, _), _| !entry.deletes(table, *suid, *time));
                continue;
            }
        };
        for column in &row.columns {
            let cell = cells.entry((&row.table, row.suid, row.time, column)).or_insert((row.q, row.q));
            *cell = (cell.0.max(row.q), row.q);
        }
        if !seen.insert((&row.table, row.q)) {
            continue;
        }
        let newest = newest.entry(&row.table).or_insert(row.q);
        if row.q < *newest && !(is_reported(row) && is_followed(row, &entries[..index], &entries[index + 1..])) {
            let text = format!("row q = {} of {} was written after q = {newest}", row.q, row.table);
            return Err(Violation::new("lane-order", text));
        }
        *newest = row.q.max(*newest);
    }
    for ((table, _, time, column), (newest, last)) in cells {
        if last < newest {
            let text = format!("{column} of {table} at {time} was written by q = {newest}, and then by q = {last}");
            return Err(Violation::new("no-regress", text));
        }
    }
    Ok(())
}

/// Whether what had deleted or overwritten a row before was done again behind it.
fn is_followed(row: &Logged, before: &[Entry], behind: &[Entry]) -> bool {
    let is_deleted = |entries: &[Entry]| entries.iter().any(|it| it.deletes(&row.table, row.suid, row.time));
    if is_deleted(before) && is_deleted(behind) {
        return true;
    }
    let overwrites = |it: &&Logged| it.is_marked && it.table == row.table && it.time == row.time && it.q > row.q;
    let mut overwrote = before.iter().filter_map(Entry::row).filter(overwrites).peekable();
    let is_again = |it: &Logged| behind.iter().filter_map(Entry::row).filter(overwrites).any(|again| again.q == it.q);
    overwrote.peek().is_some() && overwrote.all(is_again)
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
    let there: BTreeSet<(String, i64)> = entries(target)?.iter().filter_map(Entry::row).map(|row| (row.table.clone(), row.q)).collect();
    let reported = world.incidents();
    for row in entries(source)?.iter().filter_map(Entry::row).filter(|row| !row.is_marked) {
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

/// Every row in a site's logs, and every deletion, lane by lane in order.
fn entries(store: &Store) -> Result<Vec<Entry>, Violation> {
    let failed = |error: String| Violation::new("generator", format!("a log cannot be read: {error}"));
    let mut all = Vec::new();
    for vgroup in vgroups(store)? {
        let (mut next, end) = store.wal_range(vgroup).map_err(|error| failed(error.to_string()))?;
        while next < end {
            let entries = store.read_wal(vgroup, next, READ_BYTES).map_err(|error| failed(error.to_string()))?;
            let Some(last) = entries.last() else { break };
            next = last.version + 1;
            for entry in &entries {
                let read = match &entry.kind {
                    EntryKind::Submit(tables) => tables.iter().try_for_each(|table| rows_of(table, vgroup, entry.version, &mut all)),
                    EntryKind::Meta { raw_type, body, .. } => gone_by(*raw_type, body, &mut all),
                    EntryKind::Marker => Ok(()),
                };
                read.map_err(|error| failed(error.to_string()))?;
            }
        }
    }
    Ok(all)
}

fn gone_by(raw_type: u16, body: &[u8], entries: &mut Vec<Entry>) -> tdengine_wire::Result<()> {
    if !matches!(raw_type, kind::DELETE | kind::DROP_TABLE | kind::DROP_STABLE) {
        return Ok(());
    }
    let all = i64::MIN..=i64::MAX;
    match RawMeta::decode(raw_type, body)?.meta {
        Meta::Delete(it) => entries.push(Entry::Gone { table: Some(it.table), suid: it.suid, times: it.from..=it.to }),
        Meta::DropTables { tables, .. } => {
            entries.extend(tables.into_iter().map(|it| Entry::Gone { table: Some(it.name), suid: it.suid, times: all.clone() }));
        }
        Meta::DropStable { suid, .. } => entries.push(Entry::Gone { table: None, suid, times: all }),
        _ => {}
    }
    Ok(())
}

fn rows_of(table: &SubmitTable, vgroup: VgroupId, version: Version, entries: &mut Vec<Entry>) -> tdengine_wire::Result<()> {
    let view = BlockView::parse(&table.block)?;
    let Some(column) = table.fields.iter().position(|field| field.name == "q") else { return Ok(()) };
    let columns: Vec<String> = table.fields.iter().skip(1).map(|field| field.name.to_string()).collect();
    for row in 0..view.rows() {
        let value = |column: usize| view.columns()[column].value(row).as_i64();
        let (Some(time), Some(q)) = (value(0), value(column)) else { continue };
        let (name, is_marked) = (table.table.to_string(), table.flags & MARKED != 0);
        entries.push(Entry::Row(Logged { vgroup, version, table: name, suid: table.suid, time, q, columns: columns.clone(), is_marked }));
    }
    Ok(())
}

#[test]
fn a_replay_may_bring_what_was_reported_and_nothing_may_stay_behind_a_newer_value() {
    // Time, number, columns; without columns the row is deleted.
    type Row = (i64, i64, &'static [&'static str]);
    const LATE: Row = (1, 3, &["q", "a", "b"]);
    const OVER: Row = (1, 5, &["q", "a"]);
    const MORE: Row = (1, 7, &["q", "b"]);
    const OTHER: Row = (2, 9, &["q", "a"]);
    const GONE: Row = (1, 0, &[]);
    const GONE_OTHER: Row = (2, 0, &[]);
    let cases: [(&str, &[Row], bool, Option<&str>); 17] = [
        ("in order", &[LATE, OVER, MORE, OTHER], false, None),
        ("all again", &[LATE, OVER, OTHER, LATE, OVER, OTHER], false, None),
        ("an older value again", &[LATE, OVER, LATE], false, Some("no-regress")),
        ("an older value again, as it was deleted", &[LATE, OVER, GONE, LATE], false, None),
        ("an older value again, then deleted", &[LATE, OVER, LATE, GONE], false, None),
        ("an older value again, another row deleted", &[LATE, OVER, LATE, GONE_OTHER], false, Some("no-regress")),
        ("a reported one again, and it stays", &[LATE, OVER, LATE], true, Some("no-regress")),
        ("late", &[OVER, OTHER, LATE, OVER], false, Some("lane-order")),
        ("late, reported", &[OVER, OTHER, LATE, OVER], true, None),
        ("late, reported, and not overwritten again", &[OVER, OTHER, LATE], true, Some("lane-order")),
        ("late, reported, and overwritten again in part", &[OVER, MORE, LATE, MORE], true, Some("lane-order")),
        ("late, reported, overwritten in another order", &[OVER, MORE, LATE, MORE, OVER], true, Some("no-regress")),
        ("late, reported, and nothing had overwritten it", &[OTHER, LATE], true, Some("lane-order")),
        ("late, reported, and deleted again", &[GONE, OTHER, LATE, GONE], true, None),
        ("late, and deleted again", &[GONE, OTHER, LATE, GONE], false, Some("lane-order")),
        ("late, reported, and not deleted again", &[GONE, OTHER, LATE], true, Some("lane-order")),
        ("late, reported, and another row deleted again", &[GONE, OTHER, LATE, GONE_OTHER], true, Some("lane-order")),
    ];
    for (what, rows, is_reported, expect) in cases {
        let entry = |(time, q, columns): &Row| match columns {
            [] => Entry::Gone { table: Some("t".into()), suid: 0, times: *time..=*time },
            _ => Entry::Row(Logged {
                vgroup: VgroupId::default(),
                version: 0,
                table: "t".into(),
                suid: 0,
                time: *time,
                q: *q,
                columns: columns.iter().map(|it| (*it).into()).collect(),
                is_marked: true,
            }),
        };
        let entries: Vec<Entry> = rows.iter().map(entry).collect();
        let found = order(&entries, |row| is_reported && row.q == LATE.1);
        assert_eq!(found.err().map(|it| it.invariant), expect, "{what}");
    }
}
