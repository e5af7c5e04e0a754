//! Many threads at once: every vgroup gets every change once, whatever the order (FACTS F64), and no row is lost.

use std::collections::BTreeSet;

use super::{config, run};
use crate::{EntryKind, Session, Store, StoreConfig};

const STABLES: usize = 6;
const COLUMNS: usize = 5;
const ROWS: usize = 50;

#[test]
fn changes_and_rows_of_many_threads_all_arrive() {
    let dir = tempfile::tempdir().unwrap();
    let four = || Store::open(StoreConfig { vgroups: 4, ..config(dir.path()) }).unwrap();
    let store = four();
    run(&store, "d", &[]);
    std::thread::scope(|scope| {
        for stable in 0..STABLES {
            let store = &store;
            scope.spawn(move || {
                run(store, "d", &[&format!("create stable s{stable}(ts timestamp, a int) tags(t int)")]);
                for column in 0..COLUMNS {
                    run(store, "d", &[&format!("alter stable s{stable} add column c{column} int")]);
                }
            });
            scope.spawn(move || {
                run(store, "d", &[&format!("create table n{stable}(ts timestamp, a int)")]);
                let mut session = Session::with_database("root", "d");
                for row in 0..ROWS as i64 {
                    let sql = format!("insert into n{stable} values({},{row})", 1_700_000_000_000 + row);
                    store.execute(&mut session, &sql).unwrap();
                }
            });
        }
        scope.spawn(|| (0..5).for_each(|_| store.flush().unwrap()));
    });
    let check = |store: &Store| {
        for stable in 0..STABLES {
            let schema = store.describe("d", &format!("s{stable}")).unwrap();
            assert_eq!(schema.columns.fields.len(), COLUMNS + 2);
            assert_eq!(super::rows(store, "d", &format!("n{stable}")).len(), ROWS);
        }
        for vgroup in &store.database("d").unwrap().vgroups {
            let entries = store.read_wal(*vgroup, 0, usize::MAX).unwrap();
            let of_stables = entries.iter().filter_map(|entry| match &entry.kind {
                EntryKind::Meta { raw_type: 531 | 533, body, .. } => Some(body.to_vec()),
                _ => None,
            });
            assert_eq!(of_stables.collect::<BTreeSet<_>>().len(), STABLES * (COLUMNS + 1), "vgroup {vgroup}");
        }
    };
    check(&store);
    drop(store);
    check(&four());
}

#[test]
fn topics_are_counted_and_hold_what_they_read() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(StoreConfig { topics_max: 2, ..config(dir.path()) }).unwrap();
    let mut session = run(&store, "d", &[
        "create stable st(ts timestamp, a int, b int) tags(t int)",
        "create topic one as database d",
        "create topic two as select ts, a from st where t > 1",
    ]);
    let mut code = |sql: &str| super::code(&store, &mut session, sql).0;
    assert_eq!(code("create topic three as database d"), 0x4004);
    assert_eq!(code("alter stable st drop column a"), 0x03C4);
    assert_eq!(code("alter stable st drop column b"), 0);
    assert_eq!(code("drop stable st"), 0x03ED);
    assert_eq!(code("drop topic two"), 0);
    assert_eq!(code("drop stable st"), 0);
    assert_eq!(code("drop database d"), 0x03ED);
    let vgroup = store.database("d").unwrap().vgroups[0];
    store.mark_subscription("one").unwrap();
    store.commit("g", "one", vgroup, 2).unwrap();
    let end = store.wal_range(vgroup).unwrap().1;
    store.commit("g", "one", vgroup, 2).unwrap();
    assert_eq!(store.wal_range(vgroup).unwrap().1, end);
    assert_eq!(store.commit("g", "one", vgroup, end + 1).unwrap_err().code, 0x4007);
    store.put_consumer(crate::database::Consumer {
        id: 1,
        group: "g".into(),
        client: String::new(),
        user: "root".into(),
        status: "ready".into(),
        topics: vec!["one".into()],
        lanes: Vec::new(),
        subscribed_ms: 0,
    });
    assert_eq!((code("drop topic one"), code("drop consumer group g on one")), (0x03EB, 0x03EC));
    store.remove_consumer(1);
    assert_eq!((code("drop consumer group g on one"), code("drop consumer group g on one")), (0, 0x03E8));
    assert_eq!(store.committed("g", "one", vgroup), None);
    assert_eq!((code("drop topic one"), code("drop database d")), (0, 0));
    assert!(store.wal_range(vgroup).is_err());
}
