//! What goes wrong: lost connections, rejected rows and changes, panics, hangs, wrong sites.

use std::time::Duration;

use pipeline_sdk::Error;
use serde_json::json;

use super::world::*;
use crate::metrics::TaskState;
use crate::runtime::Engine;
use crate::state::Store;

/// Runs a world of 20 entries with this trouble until all are durable or the task is over.
async fn run(name: &str, settings: &str, prepare: impl FnOnce(&mut World)) -> (World, crate::metrics::RunStatus, Store) {
    let (world, store) = (new_world(name), Store::in_memory());
    lock(&world).fill("1", 20);
    prepare(&mut lock(&world));
    let running = start(&one(name, settings), &store).await;
    until("it is over or all is durable", || {
        state(&running).is_over() || lock(&world).durable.get("1").is_some_and(|it| it.contains(&20))
    })
    .await;
    let status = running.status();
    running.stop().await;
    let world = std::mem::take(&mut *lock(&world));
    assert_eq!(world.violations, Vec::<String>::new());
    (world, status, store)
}

fn on(number: i64, troubles: Vec<Trouble>) -> impl FnOnce(&mut World) {
    move |world| drop(world.on_write.insert(number, troubles))
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_loses_its_connection_gets_everything_since_the_checkpoint_again() {
    let lost = Trouble::Fails(Error::disconnected("gone"));
    let twice = |world: &mut World| {
        world.fill("1", 100);
        world.on_write.insert(7, vec![lost.clone(), lost]);
    };
    let (world, status, _) = run("sink-lost", "", twice).await;
    assert_eq!(world.durable["1"].len(), 120);
    assert_eq!(world.connects, 3);
    assert_eq!(status.pipelines[0].counts.reconnects, 2);
    let second: Vec<_> = world.written.iter().skip_while(|it| it.number < 6).skip(1).collect();
    assert_eq!(second[0].number, 1, "nothing was durable yet: all comes again");
    assert!(second[0].replayed, "and may have been written");
    assert!(!world.written.last().unwrap().replayed);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_loses_its_connection_goes_on_behind_what_was_read() {
    let lost = |world: &mut World| {
        world.on_next = vec![Trouble::Fails(Error::disconnected("gone")), Trouble::Fails(Error::retry("busy"))];
    };
    let (world, status, _) = run("source-lost", "", lost).await;
    assert_eq!(world.numbers("1"), (1..=20).collect::<Vec<_>>());
    assert_eq!((status.pipelines[0].counts.reconnects, status.pipelines[0].counts.retries), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn calls_that_may_succeed_later_are_repeated_up_to_a_limit() {
    let busy = Trouble::Fails(Error::retry("busy"));
    let (world, status, _) = run("retry", "retry-attempts-max = 3", on(7, vec![busy.clone(); 3])).await;
    assert_eq!(world.numbers("1"), (1..=20).collect::<Vec<_>>());
    assert_eq!(status.pipelines[0].counts.retries, 3);
    let (_, status, _) = run("retry-end", "retry-attempts-max = 3", on(7, vec![busy; 4])).await;
    let TaskState::Failed(reason) = &status.pipelines[0].state else { panic!("{status:?}") };
    assert!(reason.contains("gave up after 3 attempts") && reason.contains("busy"), "{reason}");
    assert!(reason.contains("pipeline.p.sink"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_cannot_be_reached_yet_is_waited_for() {
    let unreachable = |world: &mut World| {
        world.on_sink_connect = vec![Trouble::Fails(Error::disconnected("no answer")); 3];
    };
    let (world, status, _) = run("sink-late", "", unreachable).await;
    assert_eq!(world.numbers("1"), (1..=20).collect::<Vec<_>>());
    assert_eq!((world.connects, status.pipelines[0].state.clone()), (1, TaskState::Running));
    assert_eq!((status.pipelines[0].counts.retries, status.pipelines[0].counts.errors), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn a_run_stops_though_its_sink_cannot_be_reached() {
    let (world, store) = (new_world("sink-never"), Store::in_memory());
    lock(&world).fill("1", 1_000);
    lock(&world).on_sink_connect = vec![Trouble::Fails(Error::disconnected("no answer")); 1_000];
    let running = start(&one("sink-never", ""), &store).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(state(&running), TaskState::Reconnecting(reason) if reason.contains("no answer")));
    let begun = tokio::time::Instant::now();
    running.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!((state(&running), lock(&world).commits), (TaskState::Stopped, 0));
}

#[tokio::test(start_paused = true)]
async fn rejected_rows_go_where_the_policy_says() {
    let rejected = || Trouble::Fails(Error { rows: vec![1], ..Error::rejected("too wide").code("test.wide") });
    let (_, status, _) = run("reject-stop", "", on(7, vec![rejected()])).await;
    let TaskState::Rejected(reason) = &status.pipelines[0].state else { panic!("{status:?}") };
    assert!(reason.contains("too wide") && reason.contains("test.wide"), "{reason}");

    let (world, status, store) = run("reject-keep", "on-error = \"dead-letter\"", on(7, vec![rejected()])).await;
    assert_eq!(status.pipelines[0].counts.dead_letters, 1);
    assert_eq!(world.numbers("1"), (1..=20).collect::<Vec<_>>(), "the other row of 7 is written");
    let letter = store.dead_letters(10).unwrap().remove(0);
    assert_eq!((letter.position.as_str(), letter.rows, letter.time_ms), ("7", 1, 1_000));
    assert_eq!(letter.payload["rows"], json!([["-7"]]));
    assert_eq!(letter.payload["columns"], json!([{ "name": "v", "type": "Int64" }]));

    let (world, status, _) = run("reject-retry", "on-error = \"retry\"", on(7, vec![rejected(), rejected()])).await;
    assert_eq!(status.pipelines[0].state, TaskState::Running);
    assert_eq!(world.numbers("1"), (1..=20).collect::<Vec<_>>());

    let full = "on-error = \"dead-letter\"\ndead-letters-max = 1";
    let both = |world: &mut World| {
        world.on_write.extend([(7, vec![rejected()]), (9, vec![rejected()])]);
    };
    let (_, status, _) = run("reject-full", full, both).await;
    let TaskState::Rejected(reason) = &status.pipelines[0].state else { panic!("{status:?}") };
    assert!(reason.contains("dead-letters-max"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_rejected_change_stops_the_task_unless_told_otherwise() {
    let change = |world: &mut World| {
        let entry = &mut world.log.get_mut("1").unwrap()[6];
        (entry.is_change, entry.is_dead) = (true, true);
        world.on_write.insert(7, vec![Trouble::Fails(Error::rejected("a topic uses it"))]);
    };
    let (_, status, _) = run("change-stop", "on-error = \"dead-letter\"", change).await;
    assert!(matches!(status.pipelines[0].state, TaskState::Rejected(_)), "{status:?}");
    let (world, status, store) = run("change-keep", "on-rejected-change = \"dead-letter\"", change).await;
    assert_eq!((status.pipelines[0].counts.dead_letters, world.durable["1"].len()), (1, 19));
    assert_eq!(store.dead_letters(1).unwrap()[0].payload["detail"], json!({ "number": 7 }));
}

#[tokio::test(start_paused = true)]
async fn a_panic_takes_down_its_task_at_most() {
    let (good, bad, store) = (new_world("good"), new_world("bad"), Store::in_memory());
    lock(&good).fill("1", 20);
    lock(&bad).fill("1", 20);
    lock(&bad).on_write.insert(7, vec![Trouble::Panics; 100]);
    let text = one("good", "") + &one("bad", "retry-attempts-max = 3").replace("pipeline.p", "pipeline.q");
    let running = start(&text, &store).await;
    let of = |name: &str| running.status().pipelines.iter().find(|it| it.pipeline == name).unwrap().clone();
    until("it is given up", || of("q").state.is_over()).await;
    let TaskState::Failed(reason) = of("q").state else { panic!() };
    assert!(reason.contains("panicked: as told"), "{reason}");
    assert_eq!(of("p").state, TaskState::Running);
    lock(&good).fill("1", 20);
    until("the other task goes on", || lock(&good).written.len() == 40).await;
    let end = running.stop().await;
    assert_eq!(end.failed.iter().map(|it| it.0.as_str()).collect::<Vec<_>>(), ["q"]);
    assert!(running.registry().incidents(0).iter().any(|it| it.incident.kind == "panic"));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_is_reported_and_the_task_goes_on_with_a_new_instance() {
    let hangs = |world: &mut World| {
        world.on_write.insert(7, vec![Trouble::Hangs]);
        world.on_next = vec![Trouble::Hangs];
        world.on_flush = vec![Trouble::Hangs];
    };
    let begun = tokio::time::Instant::now();
    let (world, status, _) = run("hang", "call-timeout = \"5s\"", hangs).await;
    assert_eq!(world.durable["1"].len(), 20);
    let hangs = status.incidents.iter().filter(|it| it.incident.kind == "hang").count();
    assert_eq!(hangs, 3);
    assert!(status.incidents[0].incident.message.contains("did not return within 5"));
    assert!(begun.elapsed() < Duration::from_secs(30));
}

/// In real time: a thread that blocks stops tokio's clock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_component_that_blocks_its_thread_is_reported() {
    let (world, store) = (new_world("block"), Store::in_memory());
    lock(&world).fill("1", 1);
    let running = start(&one("block", "call-timeout = \"100ms\"").replace("sieve", "block"), &store).await;
    until("it is reported", || state(&running).is_over()).await;
    let reason = state(&running).reason().unwrap_or_default().to_owned();
    assert!(reason.contains("blocked its thread"), "{reason}");
    assert_eq!(running.registry().incidents(0)[0].incident.kind, "hang");
    running.abort();
}

/// Calls that are over at once, for three times as long as one may block its thread, which is what two of them may take.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blocking_source_that_never_waits_is_no_hang() {
    let (world, store) = (new_world("reel"), Store::in_memory());
    let file = "[pipeline.p]\ncall-timeout = \"1s\"\nsource = { type = \"reel\", world = \"reel\" }\n\
                sink = { type = \"rows-table\", world = \"reel\" }\n";
    let running = start(file, &store).await;
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(state(&running), TaskState::Running);
    assert!(lock(&world).written.len() > 20);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn one_and_the_same_site_is_refused_where_it_could_loop() {
    let same = |world: &mut World| world.sink_identity = "one".into();
    let (world, status, _) = run("loop", "", same).await;
    let TaskState::Failed(reason) = &status.pipelines[0].state else { panic!("{status:?}") };
    assert!(reason.contains("one and the same site") && reason.contains("could loop"), "{reason}");
    assert!(world.written.is_empty());
}

#[tokio::test(start_paused = true)]
async fn another_source_is_refused_unless_it_is_accepted() {
    let (_, _, store) = run("other", "", |_| {}).await;
    let world = new_world("other");
    lock(&world).fill("1", 4);
    lock(&world).identity = "three".into();
    let running = start(&one("other", ""), &store).await;
    until("it is refused", || state(&running).is_over()).await;
    let reason = state(&running).reason().unwrap().to_owned();
    assert!(reason.contains("`three`") && reason.contains("`one`") && reason.contains("--accept-new-sources"), "{reason}");
    running.stop().await;
    let mut options = options(&store);
    options.accept_new_sources = true;
    let running = Engine::start(graph(&one("other", "")), plugins(), options).await.unwrap();
    until("it is read from its beginning", || lock(&world).written.len() == 4).await;
    running.stop().await;
}
