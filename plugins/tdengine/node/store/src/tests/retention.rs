//! Logs get shorter at the beginning, versions go on (FACTS F40).

use super::{config, open, rows, run};
use crate::{Store, StoreConfig};

#[test]
fn flush_moves_the_beginning_past_what_is_retained() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = crate::Session::new("root");
    store.execute(&mut session, "create database d wal_retention_period 0").unwrap();
    run(&store, "d", &["create table nt(ts timestamp, a int)", "insert into nt values(1700000000000,1)"]);
    let vgroup = store.database("d").unwrap().vgroups[0];
    assert_eq!(store.wal_range(vgroup).unwrap(), (0, 3));
    run(&store, "d", &["flush database d", "insert into nt values(1700000000001,2)"]);
    assert_eq!(store.wal_range(vgroup).unwrap(), (3, 4));
    // A reader below the beginning starts there without a word.
    assert_eq!(store.read_wal(vgroup, 0, usize::MAX).unwrap()[0].version, 3);
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.wal_range(vgroup).unwrap(), (3, 4));
    assert_eq!(rows(&store, "d", "nt").len(), 2);
    run(&store, "d", &["alter database d wal_retention_period 3600", "flush database d"]);
    assert_eq!(store.wal_range(vgroup).unwrap(), (3, 4));
    store.truncate_wal(vgroup, 4).unwrap();
    assert_eq!(store.wal_range(vgroup).unwrap(), (4, 4));
}

#[test]
fn segments_roll_by_size_and_snapshots_come_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let small = StoreConfig { wal_segment_bytes: 2_000, snapshot_wal_bytes: 4_000, ..config(dir.path()) };
    let store = Store::open(StoreConfig { wal_retention_period_s: 0, ..small }).unwrap();
    run(&store, "d", &["create table nt(ts timestamp, a int)"]);
    for count in 0..200 {
        run(&store, "d", &[&format!("insert into nt values({},{count})", 1_700_000_000_000i64 + count)]);
    }
    let vgroup = store.database("d").unwrap().vgroups[0];
    store.inner().maintain();
    let (begin, end) = store.wal_range(vgroup).unwrap();
    assert!(begin > 100 && end == 202, "{begin} {end}");
    drop(store);
    assert_eq!(rows(&open(dir.path()), "d", "nt").len(), 200);
}
