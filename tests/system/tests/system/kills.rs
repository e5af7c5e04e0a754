//! kill -9 of the pipelines and of either node at random moments under writes at both sites, from a printed seed; then equality.
//!
//! `PIPELINE_SEED=N` replays a seed. 40 rounds, 200 in the full tier (`tests/run full`). On a real pair (`PIPELINE_TEST_SITES`) the
//! pipelines alone are killed, unless `PIPELINE_TEST_KILL` and `PIPELINE_TEST_START` are commands that do it to site `a` or `b`.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use pipeline_tests::{Pair, Random, Site, StopAtEnd, is_full_tier, messages_at};

/// How long the sites may take to become equal.
const SETTLE: Duration = Duration::from_secs(120);

fn rounds() -> u64 {
    if is_full_tier() { 200 } else { 40 }
}

/// Writes own keys of a site until told to stop; a statement that fails because a node is down is tried again with the same
/// values, so that what was acknowledged is known and what was not may be there or not.
fn write(site: &Site, database: &str, name: &str, first: i64, stop: &AtomicBool, written: &AtomicI64) {
    let mut row = 0;
    while !stop.load(Ordering::Relaxed) {
        let sql = format!(
            "insert into {database}.{name}{} using {database}.meters tags ('{name}', {}) values ({}, {row}, 1)",
            row % 5,
            row % 5,
            first + row
        );
        match site.try_sql(&sql) {
            Ok(Ok(_)) => {
                row += 1;
                written.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Err((code, text))) if code == 0x2603 => panic!("{sql}: {code:#x} {text}"),
            _ => std::thread::sleep(Duration::from_millis(50)),
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

#[test]
fn sites_are_equal_after_kills_at_random_moments() {
    let (mut random, rounds) = (Random::from_environment(), rounds());
    let seed = random.seed;
    println!("seed {seed} (replay with PIPELINE_SEED={seed}), {rounds} rounds");
    let mut pair = Pair::new("kills", "vgroups 2").unwrap();
    pair.a.sql("create stable kills.meters (ts timestamp, current float, voltage int) tags (place varchar(24), grp int)");
    pair.settle(SETTLE).unwrap();
    let (stop, written) = (AtomicBool::new(false), [AtomicI64::new(0), AtomicI64::new(0)]);
    let choices = if pair.can_kill_nodes() { 4 } else { 2 };
    std::thread::scope(|scope| {
        let (a, b) = (pair.a.clone(), pair.b.clone());
        let (stop, written) = (&stop, &written);
        scope.spawn(move || write(&a, "kills", "a", 1_780_000_000_000, stop, &written[0]));
        scope.spawn(move || write(&b, "kills", "b", 1_780_000_000_000, stop, &written[1]));
        let _end = StopAtEnd(stop);
        for _ in 0..rounds {
            std::thread::sleep(Duration::from_millis(100) + random.moment(900));
            match random.below(choices) {
                which @ (2 | 3) => pair.crash_node(which as usize - 2).unwrap(),
                _ => {
                    pair.kill().unwrap();
                    std::thread::sleep(random.moment(300));
                    pair.start().unwrap();
                }
            }
        }
    });
    pair.settle(SETTLE).unwrap_or_else(|error| panic!("seed {seed}: {error:#}"));
    let wanted: i64 = written.iter().map(|count| count.load(Ordering::Relaxed)).sum();
    let found = pair.a.sql("select count(*) from kills.meters")[0][0].as_i64().unwrap();
    assert!(found >= wanted, "seed {seed}: {wanted} rows were acknowledged, {found} are there");
    println!("{wanted} rows acknowledged, {found} at both sites");
    for site in [pair.a.clone(), pair.b.clone()] {
        let looped = messages_at(&site, "kills", Duration::from_secs(2)).unwrap();
        assert!(looped.is_empty(), "seed {seed}: {} sends while nobody writes: {looped:?}", site.address);
    }
    pair.stop().unwrap();
}
