//! The store on a disk: what is durable, what is refused, what is said when it cannot be used.

use std::sync::Arc;

use pipeline_sdk::{Checkpoint, Error, Lane, Position};
use redb::{Database, TableDefinition};

use super::*;

fn task(name: &str) -> TaskKey {
    TaskKey { pipeline: "p".into(), task: name.into(), source: "s".into() }
}

fn at(number: i64) -> Checkpoint {
    Checkpoint { lanes: [(Lane::new("1"), Position::from_number(number))].into() }
}

fn checkpoint(name: &str, number: i64) -> Change {
    Change::Checkpoint { task: task(name), identity: "c1".into(), checkpoint: at(number) }
}

fn letter(position: &str) -> DeadLetter {
    DeadLetter {
        pipeline: "p".into(),
        task: String::new(),
        component: "sink".into(),
        lane: "1".into(),
        position: position.into(),
        time_ms: 5,
        error: Error::rejected("no"),
        rows: 1,
        payload: serde_json::json!({ "kind": "rows" }),
    }
}

fn code(result: pipeline_sdk::Result<Store>) -> String {
    let error = result.err().expect("it must be refused");
    assert!(error.hint.is_some(), "{error}: what to do is missing");
    error.code
}

#[tokio::test]
async fn what_is_committed_is_there_after_opening_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (own, other) = (Scope::own("p", "", "sink", Some("1")), Scope::own("p", "", "sink", Some("2")));
    {
        let store = Store::open(folder.path()).unwrap();
        let intent = Change::Intent { task: task("a"), identity: "c1".into(), sink: "s".into(), intent: Intent { upto: at(9), ..Intent::default() } };
        store.commit(vec![checkpoint("a", 7), checkpoint("ab", 8), intent]).await.unwrap();
        store.commit(vec![Change::DeadLetter(letter("3")), Change::DeadLetter(letter("4"))]).await.unwrap();
        let state = |scope: &Scope, key: &str| Change::State { scope: scope.clone(), key: key.into(), value: Some(vec![1]) };
        store.commit_blocking(&[state(&own, "x1"), state(&own, "x2"), state(&own, "y"), state(&other, "x3")]).unwrap();
    }
    let store = open_released(folder.path()).unwrap();
    assert_eq!(store.checkpoint(&task("a"), "c1").unwrap(), at(7));
    assert_eq!(store.checkpoint(&task("a"), "c2").unwrap(), Checkpoint::default());
    assert_eq!(store.identity(&task("a")).unwrap().as_deref(), Some("c1"));
    assert_eq!(store.intent(&task("a"), "c1", "s").unwrap().upto, at(9));
    let letters: Vec<String> = store.dead_letters(10).unwrap().into_iter().map(|it| it.position).collect();
    assert_eq!((letters, store.dead_letter_count().unwrap()), (vec!["3".to_owned(), "4".to_owned()], 2));
    assert_eq!(store.state_keys(&own, "x").unwrap(), ["x1", "x2"]);
    assert_eq!(store.state(&other, "x1").unwrap(), None);
    store.commit(vec![Change::Forget { task: task("a") }]).await.unwrap();
    assert_eq!(store.checkpoint(&task("a"), "c1").unwrap(), Checkpoint::default());
    assert_eq!(store.intent(&task("a"), "c1", "s").unwrap(), Intent::default());
    assert_eq!(store.checkpoint(&task("ab"), "c1").unwrap(), at(8), "another task is not touched");
}

#[tokio::test]
async fn commits_that_wait_together_are_all_stored() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(folder.path()).unwrap());
    let commits = (0..200).map(|number| {
        let store = store.clone();
        tokio::spawn(async move { store.commit(vec![checkpoint(&format!("t{number}"), number)]).await })
    });
    for commit in commits.collect::<Vec<_>>() {
        commit.await.unwrap().unwrap();
    }
    for number in 0..200 {
        assert_eq!(store.checkpoint(&task(&format!("t{number}")), "c1").unwrap(), at(number));
    }
}

#[test]
fn a_second_process_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let first = Store::open(folder.path()).unwrap();
    let second = Store::open(folder.path());
    assert!(second.as_ref().err().unwrap().message.contains(&std::process::id().to_string()));
    assert_eq!(code(second), "state.locked");
    drop(first);
    open_released(folder.path()).unwrap();
}

#[test]
fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::create(folder.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    transaction.open_table(meta).unwrap().insert("format", FORMAT + 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert_eq!(code(Store::open(folder.path())), "state.format");
}

/// Opens once the lock of the store before is free: the thread that wrote for it may hold it for a moment longer.
fn open_released(folder: &std::path::Path) -> pipeline_sdk::Result<Store> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        match Store::open(folder) {
            Err(error) if error.code == "state.locked" && std::time::Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

#[tokio::test]
async fn a_half_written_store_is_damaged_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    Store::open(folder.path()).unwrap().commit(vec![checkpoint("a", 7)]).await.unwrap();
    let file = folder.path().join("state.redb");
    let whole = std::fs::read(&file).unwrap();
    for length in [10, 4_096, whole.len() / 2] {
        std::fs::write(&file, &whole[..length]).unwrap();
        assert_eq!(code(open_released(folder.path())), "state.damaged", "cut to {length} bytes");
    }
    std::fs::write(&file, vec![7; whole.len()]).unwrap();
    assert_eq!(code(open_released(folder.path())), "state.damaged");
    std::fs::write(&file, &whole).unwrap();
    let store = open_released(folder.path()).unwrap();
    assert_eq!(store.checkpoint(&task("a"), "c1").unwrap(), at(7), "the copy put back is read");
}

#[test]
fn a_full_disk_and_a_folder_that_cannot_be_written_are_said_so() {
    let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
    let error = super::error::storage(std::path::Path::new("x"), redb::Error::Io(full));
    assert_eq!(error.code, "state.full");
    assert!(error.hint.unwrap().contains("nothing was lost"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    assert_eq!(code(Store::open(&file.join("below"))), "state.io");
}
