//! Lag counts what has not reached every sink, and for how long: also while a sink is away, and none is left once it is back.

use std::time::Duration;

use pipeline_sdk::Error;

use super::world::*;
use crate::metrics::PipelineStatus;
use crate::runtime::Running;
use crate::state::Store;

fn seen(running: &Running) -> PipelineStatus {
    running.status().pipelines.remove(0)
}

/// Lag, and current and latest of the first lane.
fn lag(running: &Running) -> (Option<i64>, Option<i64>, Option<i64>) {
    let status = seen(running);
    assert_eq!(status.lag_offsets, status.lanes[0].lag_offsets);
    (status.lag_offsets, status.lanes[0].current, status.lanes[0].latest)
}

fn seconds(running: &Running) -> f64 {
    seen(running).lag_seconds.unwrap()
}

async fn after(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

#[tokio::test(start_paused = true)]
async fn what_was_read_lags_until_it_is_written() {
    let (world, store) = (new_world("lag-blocked"), Store::in_memory());
    lock(&world).fill("1", 5);
    let running = start(&one("lag-blocked", ""), &store).await;
    until("all are written", || lock(&world).written.len() == 5).await;
    after(20).await;
    assert_eq!((lag(&running), seconds(&running)), ((Some(0), Some(5), Some(5)), 0.0));
    lock(&world).is_sink_blocked = true;
    lock(&world).fill("1", 2);
    after(20).await;
    assert_eq!(lag(&running), (Some(2), Some(5), Some(7)), "both were read");
    assert!((18.0..=20.0).contains(&seconds(&running)), "{}", seconds(&running));
    let slack = seen(&running).lanes[0].slack_seconds.unwrap();
    assert!((3_580.0..=3_582.0).contains(&slack), "it would be read again: {slack}");
    lock(&world).is_sink_blocked = false;
    // Nobody asks the source meanwhile.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!((lag(&running), seconds(&running)), ((Some(0), Some(7), Some(7)), 0.0));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_sink_that_is_away_lags_over_all_tries_and_at_the_end() {
    let lost = Trouble::Fails(Error::disconnected("gone"));
    let (world, store) = (new_world("lag-away"), Store::in_memory());
    lock(&world).fill("1", 5);
    // Each of them ends a session.
    lock(&world).on_write.insert(6, vec![lost; 1_000]);
    let running = start(&one("lag-away", "checkpoint-interval = \"100ms\""), &store).await;
    until("all are durable", || lock(&world).durable.get("1").is_some_and(|it| it.contains(&5))).await;
    after(1).await;
    lock(&world).fill("1", 2);
    let begun = tokio::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(40) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let sessions = lock(&world).connects;
        let waited = begun.elapsed().as_secs_f64();
        if waited > 2.5 {
            assert_eq!(lag(&running), (Some(2), Some(5), Some(7)), "after {waited} s, in session {sessions}");
            assert!((waited - 1.2..=waited).contains(&seconds(&running)), "{} after {waited}, in session {sessions}", seconds(&running));
        }
    }
    assert!(lock(&world).connects > 4);
    running.stop().await;
    assert_eq!(lag(&running), (Some(2), Some(5), Some(7)), "it is not at the sink");
    lock(&world).on_write.clear();
    let running = start(&one("lag-away", ""), &store).await;
    until("all are written", || lock(&world).numbers("1").last() == Some(&7)).await;
    after(2).await;
    assert_eq!((lag(&running), seconds(&running)), ((Some(0), Some(7), Some(7)), 0.0));
    running.stop().await;
    assert_eq!(lag(&running), (Some(0), Some(7), Some(7)));
}

#[tokio::test(start_paused = true)]
async fn what_comes_while_every_queue_is_full_lags_too() {
    let (world, store) = (new_world("lag-full"), Store::in_memory());
    lock(&world).is_sink_blocked = true;
    lock(&world).fill("1", 100);
    let text = "[pipeline.p]\n[pipeline.p.source]\ntype = \"log\"\nworld = \"lag-full\"\nbuffer = { messages = 8 }\n\
                [pipeline.p.sink]\ntype = \"table\"\nworld = \"lag-full\"\nbuffer = { messages = 8 }\n";
    let running = start(text, &store).await;
    after(30).await;
    lock(&world).fill("1", 50);
    after(30).await;
    assert_eq!(lag(&running), (Some(150), Some(0), Some(150)));
    assert!((58.0..=60.0).contains(&seconds(&running)), "{}", seconds(&running));
    lock(&world).is_sink_blocked = false;
    lock(&world).write_delay = Duration::from_millis(100);
    // How far it is, is seen before all of it is written.
    let mut last = 0;
    while last < 150 {
        after(1).await;
        let current = lag(&running).1.unwrap();
        let written = lock(&world).written.last().map_or(0, |it| it.number);
        assert!(current >= last && (written - 8..=written).contains(&current), "{current} behind {last}, {written} are written");
        last = current;
    }
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_sink_counts_and_what_a_transform_holds() {
    let (world, other, store) = (new_world("lag-one"), new_world("lag-other"), Store::in_memory());
    let text = "[pipeline.p]\ncheckpoint-interval = \"100ms\"\nsource = { type = \"log\", world = \"lag-one\" }\n\
                transform = { type = \"hold\" }\n\
                [[pipeline.p.sink]]\ntype = \"table\"\nworld = \"lag-one\"\n\
                [[pipeline.p.sink]]\ntype = \"rows-table\"\nworld = \"lag-other\"\n";
    lock(&other).is_sink_blocked = true;
    lock(&world).fill("1", 3);
    let running = start(text, &store).await;
    after(10).await;
    assert_eq!(lock(&world).written.len(), 3);
    assert_eq!(lag(&running).0, Some(3), "one sink has it, the other does not");
    assert!((8.0..=10.0).contains(&seconds(&running)), "{}", seconds(&running));
    lock(&other).is_sink_blocked = false;
    after(1).await;
    assert_eq!((lag(&running), seconds(&running)), ((Some(0), Some(3), Some(3)), 0.0));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_pipeline_is_not_behind_by_a_checkpoint() {
    let (world, store) = (new_world("lag-busy"), Store::in_memory());
    lock(&world).write_delay = Duration::from_millis(2);
    lock(&world).fill("1", 1);
    let text = one("lag-busy", "checkpoint-interval = \"1h\"").replace("type = \"log\",", "type = \"log\", freshness = \"10ms\",");
    let running = start(&text, &store).await;
    after(3).await;
    for _ in 0..3_000 {
        lock(&world).fill("1", 1);
        tokio::time::sleep(Duration::from_millis(10)).await;
        let status = seen(&running);
        assert!(status.lag_seconds.unwrap() <= 0.1 && status.lag_offsets.unwrap() <= 4, "{status:?}");
    }
    assert_eq!(lock(&world).commits, 0);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_left_out_behind_something_that_waits_waits_too() {
    let (world, store) = (new_world("lag-echo"), Store::in_memory());
    lock(&world).is_sink_blocked = true;
    lock(&world).fill("1", 1);
    let running = start(&one("lag-echo", "checkpoint-interval = \"1h\""), &store).await;
    after(1).await;
    for _ in 0..500 {
        lock(&world).log.get_mut("1").unwrap().push(Entry { is_swallowed: true, parts: 1, ..Entry::default() });
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    assert_eq!(lag(&running), (Some(501), Some(0), Some(501)));
    lock(&world).is_sink_blocked = false;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(lag(&running).0, Some(0));
    running.stop().await;
}
