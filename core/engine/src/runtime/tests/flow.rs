//! What moves: order, acknowledgement, back-pressure, barriers, decoders, lanes.

use std::time::Duration;

use super::world::*;
use crate::metrics::TaskState;
use crate::state::Store;

#[tokio::test(start_paused = true)]
async fn everything_arrives_in_order_and_is_committed_once_durable() {
    let (world, store) = (new_world("order"), Store::in_memory());
    for lane in ["1", "2", "3"] {
        lock(&world).fill(lane, 100);
    }
    lock(&world).is_finite = true;
    let running = start(&one("order", ""), &store).await;
    let end = running.wait().await;
    assert_eq!((end.failed, end.rejected), (vec![], vec![]));
    assert_eq!(state(&running), TaskState::Finished);
    let world = lock(&world);
    for lane in ["1", "2", "3"] {
        assert_eq!(world.numbers(lane), (1..=100).collect::<Vec<_>>());
        assert_eq!(world.committed[lane], 100);
    }
    assert_eq!(world.violations, Vec::<String>::new());
    let status = &running.status().pipelines[0];
    assert_eq!((status.counts.rows_read, status.counts.rows_written, status.counts.messages_written), (600, 600, 300));
    assert_eq!(status.lanes[0].position.as_deref(), Some("100"));
    assert_eq!((status.lag_offsets, status.lag_seconds), (Some(0), Some(0.0)), "what was known before the last messages is old");
}

#[tokio::test(start_paused = true)]
async fn a_run_resumes_behind_what_the_last_one_stored() {
    let (world, store) = (new_world("resume"), Store::in_memory());
    lock(&world).fill("1", 20);
    let running = start(&one("resume", ""), &store).await;
    until("all are written", || lock(&world).written.len() == 20).await;
    assert!(running.stop().await.is_drained);
    assert_eq!(state(&running), TaskState::Stopped);
    assert_eq!(lock(&world).committed["1"], 20);
    lock(&world).fill("1", 5);
    let running = start(&one("resume", ""), &store).await;
    until("the rest is written", || lock(&world).written.len() == 25).await;
    running.stop().await;
    let world = lock(&world);
    assert_eq!(world.numbers("1"), (1..=25).collect::<Vec<_>>());
    assert!(world.written.iter().all(|it| !it.replayed), "nothing was written before");
    assert_eq!(world.violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_was_written_before_a_crash_is_flagged_and_nothing_else() {
    let (world, store) = (new_world("crash"), Store::in_memory());
    lock(&world).fill("1", 30);
    lock(&world).write_delay = Duration::from_millis(100);
    let settings = "checkpoint-interval = \"1h\"";
    let running = start(&one("crash", settings), &store).await;
    until("some are written", || lock(&world).written.len() == 10).await;
    running.abort();
    let before = lock(&world).written.len() as i64;
    lock(&world).write_delay = Duration::ZERO;
    let running = start(&one("crash", settings), &store).await;
    until("all are written", || lock(&world).written.last().unwrap().number == 30).await;
    running.stop().await;
    let world = lock(&world);
    let again: Vec<_> = world.written[before as usize..].iter().map(|it| (it.number, it.replayed)).collect();
    let flagged = again.iter().filter(|it| it.1).count() as i64;
    assert!(flagged >= before, "{flagged} of {before} were flagged");
    assert!(flagged <= before + 2 * super::super::worker::COMPARED_MESSAGES_MAX as i64, "{flagged} of {before}");
    assert_eq!(again, (1..=30).map(|number| (number, number <= flagged)).collect::<Vec<_>>());
    assert_eq!(world.violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_does_not_keep_up_stops_the_source() {
    let (world, store) = (new_world("pressure"), Store::in_memory());
    lock(&world).fill("1", 10_000);
    lock(&world).is_sink_blocked = true;
    let text = "[pipeline.p]\n[pipeline.p.source]\ntype = \"log\"\nworld = \"pressure\"\nbuffer = { messages = 8 }\n\
                [pipeline.p.sink]\ntype = \"table\"\nworld = \"pressure\"\nbuffer = { messages = 16 }\n";
    let running = start(text, &store).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    // Two queues, what the sink holds, and what waits for room in each of them.
    let bound = 8 + 16 + 16 + 4 + 4;
    assert!(lock(&world).read <= bound, "{} were read", lock(&world).read);
    let status = running.status().pipelines.remove(0);
    assert_eq!(status.counts.queue_messages, 16);
    lock(&world).is_sink_blocked = false;
    until("all are written", || lock(&world).written.len() == 10_000).await;
    running.stop().await;
    assert_eq!(lock(&world).violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn swallowed_messages_advance_their_lane() {
    let (world, store) = (new_world("swallow"), Store::in_memory());
    let swallowed = Entry { is_swallowed: true, parts: 1, ..Entry::default() };
    lock(&world).fill("1", 3);
    lock(&world).log.get_mut("1").unwrap().extend(vec![swallowed.clone(); 7]);
    lock(&world).log.insert("2".into(), vec![swallowed; 5]);
    let running = start(&one("swallow", "commit-interval = \"1s\""), &store).await;
    until("both lanes are committed", || {
        let world = lock(&world);
        world.committed.get("1") == Some(&10) && world.committed.get("2") == Some(&5)
    })
    .await;
    assert_eq!(running.status().pipelines[0].counts.loops_suppressed, 12);
    running.stop().await;
    assert_eq!(lock(&world).violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_transform_that_clears_marks_ends_its_task() {
    let (world, store) = (new_world("clear"), Store::in_memory());
    lock(&world).fill("1", 3);
    lock(&world).log.get_mut("1").unwrap().push(Entry { is_swallowed: true, parts: 1, ..Entry::default() });
    let running = start(&one("clear", "").replace("{ type = \"sieve\" }", "[{ type = \"clear\" }, { type = \"sieve\" }]"), &store).await;
    until("it has failed", || matches!(state(&running), TaskState::Failed(_))).await;
    let reason = state(&running).reason().unwrap().to_owned();
    for told in ["pipeline.p.transform[0]", "passes what a replica wrote as if a user had, at 4 of lane 1", "engine.mark"] {
        assert!(reason.contains(told), "{told}: {reason}");
    }
    running.stop().await;
    assert!(!lock(&world).numbers("1").contains(&4), "what a replica wrote went on");
}

#[tokio::test(start_paused = true)]
async fn held_messages_come_out_before_their_position_is_committed() {
    let (world, store) = (new_world("hold"), Store::in_memory());
    lock(&world).fill("1", 9);
    let text = one("hold", "commit-interval = \"1s\"").replace("sieve", "hold");
    let running = start(&text, &store).await;
    until("it is committed", || lock(&world).committed.get("1") == Some(&9)).await;
    running.stop().await;
    let world = lock(&world);
    assert_eq!(world.numbers("1"), (1..=9).collect::<Vec<_>>());
    assert_eq!(world.violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_position_is_committed_only_when_its_last_message_is_durable() {
    let (world, store) = (new_world("parts"), Store::in_memory());
    lock(&world).log.insert("1".into(), vec![Entry { parts: 5, ..Entry::default() }; 40]);
    lock(&world).write_delay = Duration::from_millis(30);
    let running = start(&one("parts", "checkpoint-interval = \"10ms\"\ncommit-interval = \"10ms\""), &store).await;
    let mut seen = 0;
    while seen < 40 {
        tokio::time::sleep(Duration::from_millis(7)).await;
        let world = lock(&world);
        let committed = world.committed.get("1").copied().unwrap_or_default();
        if committed > seen {
            let parts = world.written.iter().filter(|it| it.number == committed).count();
            assert_eq!(parts, 5, "{committed} was committed with {parts} of its parts written");
        }
        seen = committed;
    }
    running.stop().await;
    assert!(lock(&world).commits >= 3);
}

#[tokio::test(start_paused = true)]
async fn frames_are_decoded_only_where_rows_are_needed() {
    let (world, rows, store) = (new_world("frames"), new_world("frames-rows"), Store::in_memory());
    lock(&world).fill("1", 10);
    lock(&world).is_finite = true;
    lock(&rows).log = lock(&world).log.clone();
    let text = "[pipeline.p]\nsource = { type = \"log\", world = \"frames\", frames = true }\n\
                [[pipeline.p.sink]]\ntype = \"table\"\nworld = \"frames\"\n\
                [[pipeline.p.sink]]\ntype = \"rows-table\"\nworld = \"frames-rows\"\n";
    let running = start(text, &store).await;
    running.wait().await;
    assert_eq!(state(&running), TaskState::Finished);
    let read = |world: &std::sync::Arc<std::sync::Mutex<World>>| {
        let world = lock(world);
        (world.numbers("1"), world.written.iter().filter(|it| it.was_frame).count())
    };
    assert_eq!(read(&world), ((1..=10).collect(), 10));
    assert_eq!(read(&rows), ((1..=10).collect(), 0));
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_cannot_be_decoded_goes_the_way_of_rejected_rows() {
    for (name, transform) in [("undecodable", ""), ("undecodable-chain", "transform = { type = \"hold\" }\n")] {
        let world = new_world(name);
        lock(&world).fill("1", 5);
        lock(&world).log.get_mut("1").unwrap()[2].is_dead = true;
        lock(&world).is_finite = true;
        let text = |policy: &str| {
            format!(
                "[pipeline.p]\n{policy}source = {{ type = \"log\", world = \"{name}\", frames = true }}\n{transform}\
                 sink = {{ type = \"rows-table\", world = \"{name}\" }}\n"
            )
        };
        let store = Store::in_memory();
        let running = start(&text(""), &store).await;
        running.wait().await;
        assert!(matches!(state(&running), TaskState::Rejected(_)), "{:?}", state(&running));
        let running = start(&text("on-error = \"dead-letter\"\n"), &store).await;
        running.wait().await;
        assert_eq!(state(&running), TaskState::Finished);
        assert_eq!(running.status().pipelines[0].counts.dead_letters, 2, "the rows of a frame");
        let mut numbers = lock(&world).numbers("1");
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers, [1, 2, 4, 5]);
        assert_eq!(lock(&world).violations, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn a_revoked_lane_is_dropped_and_not_committed() {
    let (world, store) = (new_world("revoke"), Store::in_memory());
    lock(&world).fill("1", 100);
    lock(&world).fill("2", 10);
    lock(&world).is_sink_blocked = true;
    let running = start(&one("revoke", "commit-interval = \"1s\""), &store).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    lock(&world).revoke = vec!["1".into()];
    tokio::time::sleep(Duration::from_secs(1)).await;
    lock(&world).is_sink_blocked = false;
    until("the other lane is committed", || lock(&world).committed.get("2") == Some(&10)).await;
    running.stop().await;
    let world = lock(&world);
    assert_eq!(world.committed.get("1"), None);
    assert!(world.numbers("1").len() < 100, "what was queued is dropped");
    assert_eq!(world.violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn an_idle_source_is_read_as_often_as_freshness_says() {
    let check = async |name: &str, freshness: &str, late_ms: u64| {
        let (world, store) = (new_world(name), Store::in_memory());
        lock(&world).log.insert("1".into(), Vec::new());
        let text = format!(
            "[pipeline.p]\nsource = {{ type = \"log\", world = \"{name}\", freshness = \"{freshness}\" }}\n\
             sink = {{ type = \"table\", world = \"{name}\" }}\n"
        );
        let running = start(&text, &store).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let begun = tokio::time::Instant::now();
        lock(&world).fill("1", 1);
        while lock(&world).written.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let waited = begun.elapsed().as_millis() as u64;
        assert!(waited <= late_ms, "{freshness}: {waited} ms");
        running.stop().await;
    };
    check("fresh", "10ms", 12).await;
    check("adaptive", "adaptive", 1_002).await;
}

#[tokio::test(start_paused = true)]
async fn a_source_that_can_be_interrupted_waits_for_long_and_stops_at_once() {
    for (name, freshness) in [("long-fixed", "1s"), ("long-adaptive", "adaptive")] {
        let (world, store) = (new_world(name), Store::in_memory());
        {
            let mut world = lock(&world);
            world.is_interruptible = true;
            world.log.insert("1".into(), Vec::new());
        }
        let text = one(name, "commit-interval = \"1s\"").replace("type = \"log\",", &format!("type = \"log\", freshness = \"{freshness}\","));
        let running = start(&text, &store).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        let before = lock(&world).polls;
        tokio::time::sleep(Duration::from_secs(64)).await;
        let polls = lock(&world).polls - before;
        assert!(polls <= 9, "{freshness}: {polls} reads in 64 s");
        let begun = tokio::time::Instant::now();
        lock(&world).fill("1", 1);
        lock(&world).came.notify_one();
        until("what came is committed", || lock(&world).committed.get("1") == Some(&1)).await;
        assert!(begun.elapsed() <= Duration::from_secs(3), "{freshness}: {:?}", begun.elapsed());
        // Long waits again, one of which ends because it stops.
        tokio::time::sleep(Duration::from_secs(61)).await;
        let stopping = tokio::time::Instant::now();
        assert!(running.stop().await.is_drained);
        assert!(stopping.elapsed() < Duration::from_millis(100), "{freshness}: {:?}", stopping.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_source_is_read_at_its_rate_and_stops_at_once() {
    let (world, store) = (new_world("throttle"), Store::in_memory());
    // Two rows each.
    lock(&world).fill("1", 1_000);
    let text = one("throttle", "").replace("type = \"log\",", "type = \"log\", throttle = { rows = 200, burst = \"2s\" },");
    let begun = tokio::time::Instant::now();
    let running = start(&text, &store).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let rows = 2 * lock(&world).read;
    // What is ahead at first, what four seconds bring, and one read more.
    assert!((1_150..=1_208).contains(&rows), "{rows} rows after {:?}", begun.elapsed());
    let stopping = tokio::time::Instant::now();
    assert!(running.stop().await.is_drained);
    assert!(stopping.elapsed() < Duration::from_secs(1), "{:?}", stopping.elapsed());
    let (read, written) = {
        let world = lock(&world);
        (world.read, world.written.len())
    };
    assert_eq!(read, written);
    let slow = text.replace("rows = 200", "bytes = \"1B\"");
    let running = start(&slow, &store).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    let stopping = tokio::time::Instant::now();
    running.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(1), "hours are still to be paid for: {:?}", stopping.elapsed());
    assert_eq!(lock(&world).violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_tap_shows_what_passes_and_holds_nobody_up() {
    use crate::runtime::{SeenKind, TAP_MESSAGES_MAX, TAPS_MAX, TapQuery};
    let (world, store) = (new_world("tap"), Store::in_memory());
    let swallowed = Entry { is_swallowed: true, parts: 1, ..Entry::default() };
    let text = one("tap", "").replace("type = \"log\",", "type = \"log\", frames = true,");
    let running = start(&text, &store).await;
    let query = |component: &str| TapQuery { file: None, pipeline: "p".into(), component: component.into(), sample: None, rows: Some(1) };
    let (mut all, mut sieved) = (running.tap(&query("log")).unwrap(), running.tap(&query("sieve")).unwrap());
    let mut sampled = running.tap(&TapQuery { sample: Some(3), ..query("table") }).unwrap();
    let unknown = running.tap(&query("tabel")).err().unwrap();
    assert_eq!((unknown.code.as_str(), unknown.hint.as_deref()), ("tap.unknown", Some("did you mean `table`?")));
    lock(&world).log.insert("1".into(), vec![swallowed]);
    lock(&world).fill("1", 8);
    let seen = all.next().await.unwrap();
    // A frame is shown as rows, as many as were asked for.
    assert_eq!((seen.kind, seen.replicated, seen.row_count, seen.position.as_str()), (SeenKind::Rows, true, 2, "1"));
    assert_eq!(serde_json::to_value(&seen.rows).unwrap(), serde_json::json!([{ "v": 1 }]));
    assert_eq!(sieved.next().await.unwrap().position, "2");
    assert_eq!((sampled.next().await.unwrap().position, sampled.next().await.unwrap().position), ("2".into(), "5".into()));
    drop((sieved, sampled));

    // Nobody reads: the pipeline goes on, what does not fit is counted.
    lock(&world).fill("1", 1_000);
    until("all are written", || lock(&world).written.len() == 1_008).await;
    let mut last = 0;
    for _ in 0..TAP_MESSAGES_MAX {
        last = all.next().await.unwrap().dropped;
    }
    assert_eq!(last, 0, "what was held came before what was dropped");
    lock(&world).fill("1", 1);
    assert_eq!(all.next().await.unwrap().dropped, 1_009 - 1 - TAP_MESSAGES_MAX as u64);
    let more: Vec<_> = (1..TAPS_MAX).map(|_| running.tap(&query("log")).unwrap()).collect();
    assert_eq!(running.tap(&query("log")).err().unwrap().code, "tap.many");
    drop(more);
    running.stop().await;
    assert!(all.next().await.is_none());
}
