//! What an operator asks of a run under way.

use std::time::Duration;

use pipeline_sdk::Lane;

use super::world::*;
use crate::metrics::TaskState;
use crate::runtime::{ALL_VALUES, Running, TaskName};
use crate::state::{Store, TaskKey};

const LIMIT: Duration = Duration::from_secs(60);

/// Pipelines over worlds of these names, each named after its world, with these databases.
fn file(pipelines: &[(&str, &str)]) -> String {
    let one = |(name, keys): &(&str, &str)| {
        one(name, "").replace("pipeline.p", &format!("pipeline.{name}")).replace("type = \"log\"", &format!("type = \"log\"{keys}"))
    };
    pipelines.iter().map(one).collect()
}

fn states(running: &Running) -> Vec<(String, String, TaskState)> {
    running.status().pipelines.into_iter().map(|it| (it.pipeline, it.task, it.state)).collect()
}

fn task(pipeline: &str, value: &str) -> TaskName {
    TaskName { pipeline: pipeline.into(), value: value.into() }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_stopped_over_restarts_and_started_again() {
    let (world, store) = (new_world("stopped"), Store::in_memory());
    lock(&world).fill("a1", 3);
    lock(&world).fill("b1", 3);
    let text = file(&[("stopped", ", databases = [\"a\", \"b\"]")]);
    let running = start(&text, &store).await;
    until("both are written", || lock(&world).written.len() == 6).await;
    assert_eq!(running.stop_tasks(&[task("stopped", "a"), task("stopped", "unknown")]).await.unwrap(), [task("stopped", "a")]);
    assert_eq!(running.stop_tasks(&[task("stopped", "a")]).await.unwrap(), [], "it is stopped already");
    lock(&world).fill("a1", 3);
    lock(&world).fill("b1", 3);
    until("the other goes on", || lock(&world).written.len() == 9).await;
    assert_eq!(states(&running)[0].2, TaskState::Stopped);
    running.stop().await;

    let running = start(&text, &store).await;
    lock(&world).fill("b1", 1);
    until("the other goes on after a restart", || lock(&world).written.len() == 10).await;
    assert_eq!(states(&running)[0].2, TaskState::Stopped);
    assert!(tokio::time::timeout(LIMIT, running.wait()).await.is_err(), "it may be started again");
    assert_eq!(running.start_tasks(&[task("stopped", "a"), task("stopped", "b")]).await.unwrap(), [task("stopped", "a")]);
    until("it goes on where it was", || lock(&world).written.len() == 13).await;
    assert_eq!(lock(&world).numbers("a1"), [1, 2, 3, 4, 5, 6]);
    let connects = lock(&world).connects;
    assert_eq!(running.restart_tasks(&[task("stopped", "b")]).await.unwrap(), [task("stopped", "b")]);
    until("it connected anew", || lock(&world).connects == connects + 1).await;
    assert!(running.stop().await.is_drained);
    assert_eq!(lock(&world).violations, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn looking_for_databases_is_stopped_and_started_like_a_task() {
    let (world, store) = (new_world("looking"), Store::in_memory());
    lock(&world).databases = vec!["a".into()];
    let text = file(&[("looking", ", databases = [\"*\"], new-database-interval = \"5s\"")]);
    let running = start(&text, &store).await;
    until("it is found", || states(&running).first().is_some_and(|it| it.1 == "a")).await;
    running.stop_tasks(&running.tasks()).await.unwrap();
    running.stop().await;

    let running = start(&text, &store).await;
    lock(&world).databases.push("b".into());
    tokio::time::sleep(LIMIT).await;
    assert_eq!(states(&running), [("looking".into(), "a".into(), TaskState::Stopped)]);
    assert_eq!(running.start_tasks(&[task("looking", ALL_VALUES)]).await.unwrap(), [task("looking", ALL_VALUES)]);
    until("the new one is found", || states(&running).len() == 2).await;
    assert_eq!(states(&running)[0].2, TaskState::Stopped, "only the looking was started");
    running.stop_tasks(&running.tasks()).await.unwrap();
    running.start_tasks(&[task("looking", "b")]).await.unwrap();
    running.stop().await;

    let running = start(&text, &store).await;
    tokio::time::sleep(LIMIT).await;
    let found: Vec<(String, TaskState)> = states(&running).into_iter().map(|it| (it.1, it.2)).collect();
    assert_eq!(found, [("a".into(), TaskState::Stopped), ("b".into(), TaskState::Running)], "what there was is there");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_file_excludes_later_is_stopped_and_what_it_lists_stays() {
    let (world, store) = (new_world("excluded"), Store::in_memory());
    lock(&world).databases = vec!["a".into(), "b".into(), "c".into()];
    let text = |exclude: &str| file(&[("excluded", &format!(", databases = [\"*\", \"a\"], exclude = [{exclude}]"))]);
    let running = start(&text(""), &store).await;
    until("all are found", || states(&running).len() == 3).await;
    running.stop_tasks(&[task("excluded", "b")]).await.unwrap();
    let connects = lock(&world).connects;
    let reloaded = running.reload(graph(&text("\"a\", \"b\""))).await.unwrap();
    assert_eq!(reloaded.adjusted, ["excluded"]);
    tokio::time::sleep(LIMIT).await;
    let values: Vec<String> = states(&running).into_iter().map(|it| it.1).collect();
    assert_eq!((values, lock(&world).connects), (vec!["a".into(), "c".into()], connects));
    assert_eq!(store.known_tasks("excluded", "log").unwrap(), ["b"], "what is stored of it stays until it is removed");
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_reload_touches_only_what_differs() {
    let (same, changed, gone, fresh) = (new_world("same"), new_world("changed"), new_world("gone"), new_world("fresh"));
    let (adjusted, store) = (new_world("adjusted"), Store::in_memory());
    let worlds = [&same, &changed, &gone, &fresh, &adjusted];
    for world in worlds {
        lock(world).fill("a1", 3);
        lock(world).fill("b1", 3);
    }
    let list = ", databases = [\"a\"]";
    let running = start(&file(&[("same", list), ("changed", list), ("gone", list), ("adjusted", list)]), &store).await;
    until("all are written", || worlds.iter().map(|it| lock(it).written.len()).sum::<usize>() == 12).await;

    let new = file(&[
        ("changed", ", databases = [\"a\"], frames = true"),
        ("same", list),
        ("fresh", list),
        ("adjusted", ", databases = [\"a\", \"b\"], new-database-interval = \"7s\""),
    ]);
    let reloaded = running.reload(graph(&format!("# moves everything down\n{new}"))).await.unwrap();
    let names = |names: &[String]| names.join(" ");
    assert_eq!(names(&reloaded.untouched), "same");
    assert_eq!((names(&reloaded.adjusted), names(&reloaded.restarted)), ("adjusted".into(), "changed".into()));
    assert_eq!((names(&reloaded.started), names(&reloaded.stopped)), ("fresh".into(), "gone".into()));
    worlds.iter().for_each(|world| lock(world).fill("a1", 1));
    until("all but what is gone go on", || worlds.iter().map(|it| lock(it).written.len()).sum::<usize>() == 12 + 3 + 1 + 3 + 3).await;
    let connects = worlds.map(|world| lock(world).connects);
    assert_eq!(connects, [1, 2, 1, 1, 2], "what is the same kept its connections");
    assert_eq!(lock(&changed).numbers("a1"), [1, 2, 3, 4], "nothing is lost or written twice");
    assert!(lock(&changed).written[3].was_frame);

    let reloaded = running.reload(graph(&new)).await.unwrap();
    assert_eq!(reloaded.untouched.len(), 4, "{reloaded:?}");
    running.reload(graph(&file(&[("adjusted", ", databases = [\"b\"]")]))).await.unwrap();
    assert_eq!(states(&running).iter().map(|it| format!("{}/{}", it.0, it.1)).collect::<Vec<_>>(), ["adjusted/b"]);
    assert_eq!(lock(&adjusted).connects, 2);
    assert!(running.stop().await.is_drained);
    let key = TaskKey { pipeline: "adjusted".into(), task: "a".into(), source: "log".into() };
    assert_eq!(store.checkpoint(&key, "one").unwrap().lanes[&Lane::new("a1")].number, Some(4), "what is left out keeps its place");
    for world in worlds {
        assert_eq!(lock(world).violations, Vec::<String>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_removed_is_forgotten_and_must_be_stopped() {
    let (world, store) = (new_world("removed"), Store::in_memory());
    lock(&world).fill("a1", 3);
    let running = start(&file(&[("removed", ", databases = [\"a\"]")]), &store).await;
    until("all is written", || lock(&world).written.len() == 3).await;
    let key = TaskKey { pipeline: "removed".into(), task: "a".into(), source: "log".into() };
    assert!(running.forget_tasks(std::slice::from_ref(&key)).await.is_err());
    running.stop_tasks(&running.tasks()).await.unwrap();
    assert_eq!(store.known_tasks("removed", "log").unwrap(), ["a"]);
    running.forget_tasks(std::slice::from_ref(&key)).await.unwrap();
    assert_eq!((store.known_tasks("removed", "log").unwrap(), store.identity(&key).unwrap()), (Vec::new(), None));
    assert!(states(&running).is_empty());
    running.stop().await;
}
