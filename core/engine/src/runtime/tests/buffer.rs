//! Disk buffers: what is in them is acknowledged, outlives the run, and leaves in order. In real time: files block their threads.

use std::path::Path;
use std::time::Duration;

use pipeline_sdk::Error;

use super::world::*;
use crate::config::File;
use crate::graph::Graph;
use crate::metrics::TaskState;
use crate::runtime::{Engine, Running};
use crate::state::Store;

fn built(folder: &Path, buffer: &str, settings: &str, world: &str) -> Graph {
    let text = format!(
        "[pipeline.p]\ncheckpoint-interval = \"20ms\"\ncommit-interval = \"20ms\"\n{settings}\nsource = {{ type = \"stream\", world = \"{world}\" }}\n\
         sink = {{ type = \"rows-table\", world = \"{world}\", buffer = {{ type = \"disk\", max = \"1MiB\"{buffer} }} }}\n"
    );
    let file = File::parse("test.toml", &text, folder, &|_| None).unwrap_or_else(|it| panic!("{it:?}"));
    Graph::build(&file, &*plugins()).unwrap_or_else(|it| panic!("{it:?}"))
}

async fn begin(graph: Graph, store: &Store) -> Running {
    Engine::start(graph, plugins(), options(store)).await.unwrap()
}

async fn wait(what: &str, is_true: impl Fn() -> bool) {
    for _ in 0..3_000 {
        if is_true() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

fn counts(running: &Running) -> crate::metrics::Counts {
    running.status().pipelines[0].counts
}

/// What the sink's table holds, in order, without what was written again after a rewind.
fn written(world: &std::sync::Mutex<World>) -> Vec<i64> {
    let mut numbers = Vec::new();
    for it in &world.lock().unwrap().written {
        numbers.truncate(numbers.partition_point(|known| *known < it.number));
        numbers.push(it.number);
    }
    numbers
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_sink_has_not_taken_outlives_source_and_run() {
    let (world, store) = (new_world("buffer"), Store::in_memory());
    let folder = tempfile::tempdir().unwrap();
    lock(&world).fill("1", 50);
    lock(&world).is_acknowledged_early = true;
    lock(&world).is_sink_blocked = true;
    let running = begin(built(folder.path(), "", "", "buffer"), &store).await;
    wait("all are acknowledged though the sink takes nothing", || lock(&world).committed.get("1") == Some(&50)).await;
    let names: Vec<_> = running.status().pipelines.iter().map(|it| it.pipeline.clone()).collect();
    assert_eq!(names, ["p", "p.rows-table"]);
    assert_eq!((counts(&running).buffer_rows, counts(&running).buffer_bytes > 1_000), (100, true));
    running.abort();
    assert_eq!(written(&world), Vec::<i64>::new());
    // The source is gone for good: it has nothing any more, and ends.
    lock(&world).is_finite = true;
    lock(&world).is_sink_blocked = false;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let running = begin(built(folder.path(), "", "", "buffer"), &store).await;
    let end = tokio::time::timeout(Duration::from_secs(30), running.wait()).await.expect("it ends when the buffer is empty");
    assert_eq!((end.failed, end.rejected), (vec![], vec![]));
    assert_eq!(written(&world), (1..=50).collect::<Vec<_>>());
    wait("its files are told", || counts(&running).buffer_rows == 0).await;
    running.stop().await;
    assert_eq!(lock(&world).violations, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_buffer_lets_the_source_wait_or_drops_what_comes() {
    for (when_full, name) in [("block", "buffer-block"), ("drop-newest", "buffer-drop")] {
        let (world, store) = (new_world(name), Store::in_memory());
        let folder = tempfile::tempdir().unwrap();
        lock(&world).fill("1", 6_000);
        lock(&world).is_acknowledged_early = true;
        lock(&world).is_sink_blocked = true;
        let running = begin(built(folder.path(), &format!(", when-full = \"{when_full}\""), "", name), &store).await;
        let is_reached = || match when_full {
            "block" => matches!(&running.status().pipelines[0].state, TaskState::Reconnecting(reason) if reason.contains("the buffer holds the 1048576 bytes that it may")),
            _ => counts(&running).buffer_rows_dropped > 0 && lock(&world).committed.get("1") == Some(&6_000),
        };
        wait("the buffer is full", is_reached).await;
        let bytes: u64 = std::fs::read_dir(folder.path().join(".test.state/buffers/p.rows-table")).unwrap().map(|it| it.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes <= 1 << 20, "{bytes}");
        lock(&world).is_sink_blocked = false;
        lock(&world).is_finite = true;
        let end = tokio::time::timeout(Duration::from_secs(60), running.wait()).await.expect("it ends when the buffer is empty");
        assert_eq!((end.failed, end.rejected), (vec![], vec![]));
        let (all, counts) = (written(&world), counts(&running));
        assert_eq!(2 * all.len() as u64 + counts.buffer_rows_dropped, 12_000, "{when_full}");
        assert_eq!(when_full == "block", counts.buffer_rows_dropped == 0);
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_that_fails_rewinds_within_the_buffer_and_damage_stops_or_is_skipped() {
    let (world, store) = (new_world("buffer-damage"), Store::in_memory());
    let folder = tempfile::tempdir().unwrap();
    lock(&world).fill("1", 30);
    lock(&world).is_acknowledged_early = true;
    lock(&world).on_write.insert(7, vec![Trouble::Fails(Error::disconnected("gone")), Trouble::Panics]);
    lock(&world).on_write.insert(11, vec![Trouble::Fails(Error::fatal("enough"))]);
    let running = begin(built(folder.path(), "", "retry-delay-min = \"10ms\"", "buffer-damage"), &store).await;
    wait("the sink gives up", || matches!(&running.status().pipelines[1].state, TaskState::Failed(reason) if reason.contains("enough"))).await;
    wait("the source is done with", || lock(&world).committed.get("1") == Some(&30)).await;
    running.stop().await;
    assert_eq!(written(&world), (1..=10).collect::<Vec<_>>());

    let buffer = folder.path().join(".test.state/buffers/p.rows-table");
    let segment = std::fs::read_dir(&buffer).unwrap().map(|it| it.unwrap().path()).find(|it| it.extension().is_some()).unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    let length = (bytes.len() - 8) / 30;
    bytes[8 + 19 * length + length / 2] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    drop(running);
    let running = begin(built(folder.path(), "", "", "buffer-damage"), &store).await;
    let damaged = |state: &TaskState| matches!(state, TaskState::Hole(reason) if reason.contains("the buffer is damaged") && reason.contains(".segment at byte ") && reason.contains("1 messages"));
    wait("the damage is seen", || damaged(&running.status().pipelines[1].state)).await;
    running.stop().await;
    assert_eq!(written(&world), (1..=19).collect::<Vec<_>>(), "everything before it was written");
    drop(running);
    let running = begin(built(folder.path(), ", on-corrupt = \"skip\"", "", "buffer-damage"), &store).await;
    wait("the rest is written", || written(&world).last() == Some(&30)).await;
    running.stop().await;
    assert_eq!(written(&world), (1..=30).filter(|it| *it != 20).collect::<Vec<_>>());
}
