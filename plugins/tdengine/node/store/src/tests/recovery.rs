//! What survives: any kill, a torn tail, a full disk, a change that reached half of the vgroups.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{code, config, entries, open, rows, run, tags};
use crate::{Session, Store, StoreConfig, error};

/// Copies the folder as a kill would leave it, while the store is open.
fn killed(store: Store, dir: &std::path::Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_folder(dir, copy.path());
    drop(store);
    copy
}

fn copy_folder(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

const STATEMENTS: [&str; 12] = [
    "create stable st(ts timestamp, a int, v varchar(8)) tags(t int, n nchar(4))",
    "insert into c1 using st tags(1,'x') values(1700000000000,1,'a')(1700000000001,2,null)",
    "insert into c1(ts,v) values(1700000000000,'b')",
    "create table c2 using st tags(2,null)",
    "create table nt(ts timestamp, k int primary key, d double)",
    "insert into nt values(1700000000000,2,2.5)(1700000000000,1,1.5)",
    "alter stable st add column e bigint",
    "alter table nt add column w int",
    "insert into c1 values(1700000000002,3,'c',9) nt(ts,k,w) values(1700000000000,1,7)",
    "alter table c1 set tag n='涛'",
    "delete from c1 where ts = 1700000000001",
    "create topic t with meta as database d",
];

fn check(store: &Store) {
    assert_eq!(rows(store, "d", "c1"), ["1700000000000,1,b,NULL", "1700000000002,3,c,9"]);
    assert_eq!(rows(store, "d", "nt"), ["1700000000000,1,1.5,7", "1700000000000,2,2.5,NULL"]);
    assert_eq!((tags(store, "d", "c1"), tags(store, "d", "c2")), ("1,涛".into(), "2,NULL".into()));
    assert_eq!(store.topics().len(), 1);
}

#[test]
fn a_kill_loses_nothing_with_and_without_snapshots() {
    for flush_after in [None, Some(5), Some(11)] {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        for (place, sql) in STATEMENTS.iter().enumerate() {
            run(&store, "d", &[sql]);
            if flush_after == Some(place) {
                store.flush().unwrap();
            }
        }
        let vgroup = store.database("d").unwrap().vgroups[0];
        store.commit("g", "t", vgroup, 3).unwrap();
        let (cluster, range) = (store.cluster_id(), store.wal_range(vgroup).unwrap());
        check(&store);
        let copy = killed(store, dir.path());
        let store = open(copy.path());
        check(&store);
        assert_eq!((store.cluster_id(), store.wal_range(vgroup).unwrap().1), (cluster, range.1));
        assert_eq!(store.committed("g", "t", vgroup), Some(3));
        store.flush().unwrap();
        drop(store);
        check(&open(copy.path()));
    }
}

#[test]
fn another_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let _open = open(dir.path());
    let error = Store::open(config(dir.path())).unwrap_err();
    assert!(error.to_string().contains("is open in another process"), "{error}");
}

#[test]
fn an_unfinished_snapshot_is_ignored_and_a_damaged_one_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(&store, "d", &STATEMENTS);
    store.flush().unwrap();
    let folder = dir.path().join(format!("vgroup-{}", store.database("d").unwrap().vgroups[0]));
    drop(store);
    let snapshot = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let snapshot = snapshot.filter(|path| path.extension().is_some_and(|extension| extension == "snapshot")).max().unwrap();
    let sound = fs::read(&snapshot).unwrap();
    fs::write(folder.join("99999999999999999999.unfinished"), &sound[..sound.len() / 2]).unwrap();
    check(&open(dir.path()));
    let mut damaged = sound;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&snapshot, damaged).unwrap();
    let error = Store::open(config(dir.path())).unwrap_err().to_string();
    assert!(error.contains(snapshot.to_str().unwrap()) && error.contains("checksum"), "{error}");
}

#[test]
fn a_change_that_reached_half_of_the_vgroups_is_finished() {
    let dir = tempfile::tempdir().unwrap();
    let four = |dir: &std::path::Path| Store::open(StoreConfig { vgroups: 4, ..config(dir) }).unwrap();
    let store = four(dir.path());
    run(&store, "d", &["create stable st(ts timestamp, a int) tags(t int)"]);
    // Catalog, first vgroup, second vgroup: dead before the third.
    let copy = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().to_owned(), copy.path().to_owned());
    store.faults().crash_after(3, Arc::new(move || copy_folder(&from, &to)));
    run(&store, "d", &["alter stable st add column e int"]);
    drop(store);
    let store = four(copy.path());
    assert!(store.describe("d", "st").unwrap().columns.position("e").is_some());
    for vgroup in store.database("d").unwrap().vgroups.clone() {
        let kinds = store.read_wal(vgroup, 1, usize::MAX).unwrap();
        let types: Vec<u16> = kinds
            .iter()
            .map(|entry| if let crate::EntryKind::Meta { raw_type, .. } = entry.kind { raw_type } else { 0 })
            .collect();
        assert_eq!(types, [531, 533], "vgroup {vgroup}");
    }
}

#[test]
fn a_full_disk_is_a_code_and_passes() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut session = run(&store, "d", &["create table nt(ts timestamp, a int)"]);
    let before = entries(&store, "d").len();
    store.faults().limit_disk(Some(10));
    for sql in ["insert into nt values(now,1)", "create stable st(ts timestamp, a int) tags(t int)", "flush database d"] {
        assert_eq!(code(&store, &mut session, sql).0, error::code::NO_DISK_SPACE, "{sql}");
    }
    assert_eq!(entries(&store, "d").len(), before);
    store.faults().limit_disk(None);
    run(&store, "d", &["insert into nt values(1700000000000,1)", "flush database d"]);
    drop(store);
    assert_eq!(rows(&open(dir.path()), "d", "nt"), ["1700000000000,1"]);
}

#[test]
fn the_crash_hook_is_called_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    run(&store, "d", &["create table nt(ts timestamp, a int)"]);
    let called = Arc::new(AtomicBool::new(false));
    let hook = called.clone();
    store.faults().crash_after(2, Arc::new(move || assert!(!hook.swap(true, Ordering::SeqCst))));
    for count in 0..4 {
        run(&store, "d", &["insert into nt values(now,1)"]);
        assert_eq!(called.load(Ordering::SeqCst), count > 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever is cut from the end of the log, the store opens, and has the rows of the entries that are left.
    #[test]
    fn a_torn_tail_loses_only_its_own_rows(cut in 1u64..2_000) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let mut session = run(&store, "d", &["create table nt(ts timestamp, a int)"]);
        for count in 0..20 {
            store.execute(&mut session, &format!("insert into nt values({},{count})", 1_700_000_000_000i64 + count)).unwrap();
        }
        let vgroup = store.database("d").unwrap().vgroups[0];
        let path = dir.path().join(format!("vgroup-{vgroup}/{:020}.log", 0));
        drop(store);
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(cut)).unwrap();
        let store = open(dir.path());
        let left = entries(&store, "d").iter().filter(|entry| matches!(entry.kind, crate::EntryKind::Submit(_))).count();
        let there = if store.table("d", "nt").is_some() { rows(&store, "d", "nt").len() } else { 0 };
        prop_assert_eq!(left, there);
        let again = store.execute(&mut Session::with_database("root", "d"), "create table if not exists nt(ts timestamp, a int)");
        prop_assert!(again.is_ok());
    }
}
