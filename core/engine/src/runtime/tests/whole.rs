//! A run as a whole: services, discovery, draining, stopping.

use std::time::Duration;

use pipeline_sdk::Lane;

use super::world::*;
use crate::metrics::TaskState;
use crate::runtime::Engine;
use crate::state::{Change, Store, TaskKey};

#[tokio::test(start_paused = true)]
async fn a_bounded_run_stops_generators_and_drains() {
    let (world, store) = (new_world("bounded"), Store::in_memory());
    let text = one("bounded", "") + "[service.meters]\ntype = \"fill\"\nworld = \"bounded\"\n";
    let running = start(&text, &store).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    running.stop_generators().await;
    let generated = running.status().services[0].rows_written;
    assert!(generated >= 400, "{generated}");
    assert!(running.drain(Duration::from_secs(30)).await);
    assert_eq!(lock(&world).durable["1"].len() as u64, generated);
    let status = running.status();
    assert_eq!((status.pipelines[0].lag_offsets, status.services[0].state.clone()), (Some(0), TaskState::Stopped));
    assert!(running.stop().await.is_drained);
    lock(&world).is_sink_blocked = true;
    lock(&world).fill("1", 1);
    let running = start(&one("bounded", ""), &store).await;
    assert!(!running.drain(Duration::from_secs(30)).await, "a blocked sink does not drain");
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lane_without_a_message_drains_and_stops() {
    let (world, store) = (new_world("empty"), Store::in_memory());
    lock(&world).log.insert("1".into(), Vec::new());
    lock(&world).assign = vec!["1".into()];
    let running = start(&one("empty", ""), &store).await;
    assert!(running.drain(Duration::from_secs(10)).await);
    assert!(running.stop().await.is_drained);
    assert_eq!(state(&running), TaskState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn draining_goes_on_until_no_pipeline_brings_anything_new() {
    let (near, far, store) = (new_world("near"), new_world("far"), Store::in_memory());
    lock(&near).fill("1", 10);
    lock(&far).log.insert("1".into(), Vec::new());
    let text = one("near", "") + &one("far", "").replace("pipeline.p", "pipeline.q");
    let running = start(&text, &store).await;
    // What arrives at one end is what the other pipeline reads.
    let echo = tokio::spawn({
        let (near, far) = (near.clone(), far.clone());
        async move {
            let mut echoed = 0;
            loop {
                let written = lock(&near).written.len();
                if written > echoed {
                    lock(&far).fill("1", written - echoed);
                    echoed = written;
                }
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    assert!(running.drain(Duration::from_secs(60)).await);
    echo.abort();
    assert_eq!((lock(&near).written.len(), lock(&far).written.len()), (10, 10));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn every_database_is_a_task_of_its_own_and_new_ones_are_found() {
    let (world, store) = (new_world("all"), Store::in_memory());
    lock(&world).databases = vec!["a".into(), "b".into()];
    lock(&world).fill("a1", 3);
    lock(&world).fill("b1", 3);
    let text = one("all", "").replace("type = \"log\"", "type = \"log\", databases = [\"*\"], new-database-interval = \"5s\"");
    let running = start(&text, &store).await;
    until("both are written", || lock(&world).written.len() == 6).await;
    let tasks = || running.status().pipelines.iter().map(|it| it.task.clone()).collect::<Vec<_>>();
    assert_eq!(tasks(), ["a", "b"]);
    lock(&world).databases.push("c".into());
    lock(&world).fill("c1", 3);
    until("the new one is written", || lock(&world).written.len() == 9).await;
    assert_eq!(tasks(), ["a", "b", "c"]);
    assert!(running.stop().await.is_drained);
    assert_eq!(lock(&world).violations, Vec::<String>::new());
    let key = |task: &str| TaskKey { pipeline: "p".into(), task: task.into(), source: "log".into() };
    let stored = store.checkpoint(&key("c"), "one").unwrap();
    assert_eq!(stored.lanes[&Lane::new("c1")].number, Some(3));
}

#[tokio::test(start_paused = true)]
async fn too_many_databases_are_an_error_and_not_as_many_connections() {
    let (world, store) = (new_world("many"), Store::in_memory());
    lock(&world).databases = (0..5).map(|number| format!("d{number}")).collect();
    let text = one("many", "tasks-max = 3").replace("type = \"log\"", "type = \"log\", databases = \"*\"");
    let text = text.replace("databases = \"*\"", "databases = [\"*\"]");
    let running = start(&text, &store).await;
    until("it is refused", || running.status().pipelines.iter().any(|it| it.state.is_over())).await;
    let status = running.status().pipelines.remove(0);
    assert!(status.state.reason().unwrap().contains("tasks-max"), "{status:?}");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_come_up_ends_the_start() {
    let text = one("none", "") + "[service.meters]\ntype = \"fill\"\nworld = \"unfillable\"\n";
    let started = Engine::start(graph(&text), plugins(), options(&Store::in_memory())).await;
    let error = started.err().expect("the service fails").to_string();
    assert!(error.contains("`meters`") && error.contains("nothing to fill"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_stopped_stays_stopped() {
    let (world, store) = (new_world("desired"), Store::in_memory());
    lock(&world).fill("1", 3);
    let task = TaskKey { pipeline: "p".into(), task: String::new(), source: "log".into() };
    store.commit(vec![Change::Desired { task, is_stopped: true }]).await.unwrap();
    let running = start(&one("desired", ""), &store).await;
    until("it is stopped", || state(&running) == TaskState::Stopped).await;
    assert_eq!(lock(&world).read, 0);
}
