//! Tags that are renamed, dropped and added, step by step: with both sites in step, and apart.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::differences;
use crate::site;
use crate::world::{DATABASE, Shape, Trace, World, connect};

/// How long sites may take to become equal.
const EQUAL_MAX: Duration = Duration::from_secs(120);

/// A statement at a site.
type Step<'a> = (usize, &'a str);

struct Case<'a> {
    what: &'a str,
    /// Each one replicated before the next.
    in_step: &'a [Step<'a>],
    /// All of them while no pipeline runs.
    apart: &'a [Step<'a>],
    /// Tags of every child in the end, `name=value`.
    expect: &'a [(&'a str, &'a str)],
    /// Kinds of incidents: with any the sites stay different, else they are equal.
    reported: &'a [&'a str],
}

const S: Step<'_> = (0, "create stable s (ts timestamp, v int) tags (a int, b int)");

const CASES: [Case<'_>; 12] = [
    Case {
        what: "renamed, added, dropped and made again at the one site, used at the other, which altered the super table before",
        in_step: &[
            S,
            (1, "alter stable s add column w int"),
            (0, "alter stable s rename tag a c"),
            (1, "create table t1 using s (c, b) tags (1, 2)"),
            (1, "alter table t1 set tag c = 3"),
            (0, "alter stable s add tag a int"),
            (1, "create table t2 using s (c, a) tags (4, 5)"),
            (1, "alter table t2 set tag a = 6"),
            (0, "alter stable s drop tag b"),
            (0, "alter stable s add tag b int"),
            (1, "insert into t3 using s (b, a, c) tags (7, 8, 9) values (1700000000000, 1, 2)"),
        ],
        apart: &[],
        expect: &[("t1", "c=3"), ("t2", "a=6 c=4"), ("t3", "a=8 b=7 c=9")],
        reported: &[],
    },
    Case {
        what: "a child with a tag that was renamed meanwhile",
        in_step: &[S],
        apart: &[
            (0, "alter stable s rename tag a c"),
            (1, "create table t1 using s (b, a) tags (2, 1)"),
            (1, "insert into t2 using s (a) tags (3) values (1700000000000, 1)"),
        ],
        expect: &[("t1", "b=2 c=1"), ("t2", "c=3")],
        reported: &[],
    },
    Case {
        what: "renamed twice meanwhile, after the other site altered",
        in_step: &[S, (1, "alter stable s add column w int")],
        apart: &[
            (0, "alter stable s rename tag a c"),
            (1, "create table t1 using s (a, b) tags (1, 2)"),
            (0, "alter stable s rename tag c d"),
        ],
        expect: &[("t1", "b=2 d=1")],
        reported: &[],
    },
    Case {
        what: "a tag that was dropped meanwhile",
        in_step: &[S, (0, "create table t0 using s tags (1, 2)")],
        apart: &[
            (0, "alter stable s drop tag a"),
            (1, "create table t1 using s (a, b) tags (3, 4)"),
            (1, "alter table t0 set tag a = 5"),
        ],
        expect: &[("t0", "b=2"), ("t1", "b=4")],
        reported: &[],
    },
    Case {
        what: "a value for a tag that was renamed meanwhile, twice, and of a new child",
        in_step: &[S, (0, "create table t0 using s tags (1, 2)")],
        apart: &[
            (0, "alter stable s rename tag a c"),
            (1, "alter table t0 set tag a = 5"),
            (1, "alter table t0 set tag a = 6"),
            (1, "create table t1 using s (a) tags (7)"),
            (1, "alter table t1 set tag a = NULL"),
        ],
        expect: &[("t0", "b=2 c=6"), ("t1", "")],
        reported: &[],
    },
    Case {
        what: "a child that is dropped again takes its value along",
        in_step: &[S],
        apart: &[
            (0, "alter stable s rename tag a c"),
            (1, "create table t1 using s (a) tags (1)"),
            (1, "drop table t1"),
            (1, "create table t1 using s (b) tags (2)"),
        ],
        expect: &[("t1", "b=2")],
        reported: &[],
    },
    Case {
        what: "both add, each makes a child with its own",
        in_step: &[S],
        apart: &[
            (0, "alter stable s add tag x int"),
            (1, "alter stable s add tag y int"),
            (0, "create table t0 using s (x, b) tags (1, 2)"),
            (1, "create table t1 using s (y, a) tags (3, 4)"),
        ],
        expect: &[("t0", "b=2 x=1"), ("t1", "a=4 y=3")],
        reported: &[],
    },
    Case {
        what: "added at the one site and renamed at the other, which is used again",
        in_step: &[S, (1, "alter stable s add tag y int"), (0, "alter stable s rename tag y z")],
        apart: &[(0, "alter stable s add tag x int"), (1, "create table t1 using s (z, a) tags (3, 4)")],
        expect: &[("t1", "a=4 z=3")],
        reported: &[],
    },
    Case {
        what: "a super table made again has other ids",
        in_step: &[
            S,
            (1, "alter stable s add tag y int"),
            (0, "alter stable s rename tag a c"),
            (0, "drop stable s"),
            (0, "create stable s (ts timestamp, v int, w int) tags (y int, c int)"),
            (1, "create table t1 using s (c, y) tags (1, 2)"),
        ],
        apart: &[(0, "alter stable s rename tag c a"), (1, "create table t2 using s (c, y) tags (3, 4)")],
        expect: &[("t1", "a=1 y=2"), ("t2", "a=3 y=4")],
        reported: &[],
    },
    Case {
        what: "a user's own rename brings what waits, too",
        in_step: &[S, (1, "create table t1 using s tags (1, 2)")],
        apart: &[
            (0, "alter stable s rename tag a c"),
            (1, "alter table t1 set tag a = 3"),
            (1, "alter stable s rename tag a c"),
        ],
        expect: &[("t1", "b=2 c=3")],
        reported: &[],
    },
    Case {
        what: "one tag renamed at both sites",
        in_step: &[S, (1, "create table t1 using s tags (1, 2)")],
        apart: &[(0, "alter stable s rename tag a c"), (1, "alter stable s rename tag a d")],
        expect: &[("t1", "b=2 c=1")],
        reported: &["conflict", "conflict"],
    },
    Case {
        what: "renamed at one site, dropped at the other",
        in_step: &[S, (1, "create table t1 using s tags (1, 2)")],
        apart: &[(0, "alter stable s rename tag a c"), (1, "alter stable s drop tag a")],
        expect: &[("t1", "b=2 c=1")],
        reported: &["conflict"],
    },
];

/// What the sites hold in the end: whether that is equal, tags by child, kinds of incidents.
async fn play(case: &Case<'_>, vgroups: u32) -> (Vec<String>, BTreeMap<String, String>, Vec<String>) {
    let mut world = World::new(Shape { seed: u64::from(vgroups), vgroups }, Arc::new(Trace::default())).await;
    let users = [connect(0).await.expect("it is up"), connect(1).await.expect("it is up")];
    for user in &users {
        user.exec(&format!("use {DATABASE}")).await.expect("it is there");
    }
    for from in 0..2 {
        world.start_pipeline(from).await;
    }
    for (site, sql) in case.in_step {
        users[*site].exec(sql).await.unwrap_or_else(|error| panic!("{}: {sql}: {error}", case.what));
        tokio::time::sleep(Duration::from_secs(15)).await;
    }
    for from in 0..2 {
        world.kill_pipeline(from).await;
    }
    for (site, sql) in case.apart {
        users[*site].exec(sql).await.unwrap_or_else(|error| panic!("{}: {sql}: {error}", case.what));
    }
    for from in 0..2 {
        world.start_pipeline(from).await;
    }
    let deadline = Instant::now() + EQUAL_MAX;
    loop {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let [one, other] = [site::read(&users[0]).await, site::read(&users[1]).await].map(|state| state.expect("it can be read"));
        let found: Vec<String> = differences(&one, &other, |_| true).iter().map(ToString::to_string).collect();
        if found.is_empty() || Instant::now() > deadline {
            let tables = one.groups.into_values().flat_map(|group| group.tables);
            let shown = |tags: BTreeMap<String, String>| tags.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ");
            let tags = tables.map(|(name, table)| (name, shown(table.tags))).collect();
            return (found, tags, world.incidents().into_iter().map(|it| it.kind).collect());
        }
    }
}

#[test]
fn tags_that_change_keep_their_values() {
    for (case, vgroups) in CASES.iter().flat_map(|case| [(case, 1), (case, 3)]) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let (differing, tags, incidents) = runtime.expect("a runtime of one thread").block_on(play(case, vgroups));
        let expect: BTreeMap<String, String> = case.expect.iter().map(|(name, tags)| ((*name).into(), (*tags).into())).collect();
        assert_eq!(differing.is_empty(), case.reported.is_empty(), "{}, {vgroups} vgroups: {differing:?}, {incidents:?}", case.what);
        assert_eq!(tags, expect, "{}, {vgroups} vgroups", case.what);
        assert_eq!(incidents, case.reported, "{}, {vgroups} vgroups", case.what);
    }
}
