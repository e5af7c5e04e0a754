//! A task of several processes: run where its lane is, let go in time, begun behind what another may have written.

use std::sync::{Arc, Mutex};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pipeline_sdk::{Error, Result};
use pipeline_sdk::site::{HeldLane, Holding};
use tokio::time::Instant;

use super::super::share::{HandOvers, Share, Terms};
use super::world::*;
use crate::metrics::TaskState;
use crate::runtime::{Engine, Running};
use crate::state::{Store, TaskKey};

/// Whether the task was released by who took it last.
#[derive(Default)]
struct Released(AtomicBool);

#[async_trait]
impl HandOvers for Released {
    async fn take(&self, _: &TaskKey) -> Result<bool> {
        Ok(self.0.swap(false, Ordering::SeqCst))
    }

    async fn release(&self, _: &TaskKey, is_done: bool) -> Result<()> {
        self.0.store(is_done, Ordering::SeqCst);
        Ok(())
    }
}

/// Tells what was asked of it; taking hangs where it is told to.
#[derive(Default)]
struct Told {
    calls: Mutex<Vec<&'static str>>,
    hangs: bool,
}

#[async_trait]
impl HandOvers for Told {
    async fn take(&self, _: &TaskKey) -> Result<bool> {
        self.calls.lock().unwrap().push("taken");
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(false)
    }

    async fn release(&self, _: &TaskKey, is_done: bool) -> Result<()> {
        self.calls.lock().unwrap().push(if is_done { "released" } else { "left" });
        Ok(())
    }
}

async fn start_shared<H: HandOvers + 'static>(name: &str, store: &Store, share: &Arc<Share>, hand_overs: &Arc<H>) -> Running {
    let mut options = options(store);
    options.share = Some(share.clone());
    options.hand_overs = Some(hand_overs.clone());
    Engine::start(graph(&one(name, "checkpoint-interval = \"1s\"")), plugins(), options).await.unwrap()
}

/// Tells for so long, once a second, that the only lane is held or not.
async fn tell(share: &Share, is_held: bool, during: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < during {
        let held = is_held.then(|| HeldLane { lane: "0".into(), before_ms: 0 });
        share.told(Holding { lanes: vec!["0".into()], held: held.into_iter().collect() }, Instant::now());
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_runs_where_its_lane_is_and_begins_with_what_another_may_have_written() {
    let (world, store, terms) = (new_world("shared"), Store::in_memory(), Terms::default());
    lock(&world).fill("1", 20);
    let share = Share::new(terms);
    let released = Arc::<Released>::default();
    let running = start_shared("shared", &store, &share, &released).await;
    tell(&share, false, Duration::from_secs(30)).await;
    assert_eq!((state(&running), lock(&world).read), (TaskState::Elsewhere, 0), "the lane is another's");
    tell(&share, true, terms.lease).await;
    assert_eq!((state(&running), lock(&world).written.len()), (TaskState::Starting, 0), "a former lease may not be over");
    tell(&share, true, Duration::from_secs(5)).await;
    assert_eq!((state(&running), lock(&world).written.len()), (TaskState::Running, 20));
    assert!(lock(&world).written.iter().all(|it| it.replayed), "another may have written what was there at the start");
    lock(&world).fill("1", 5);
    tell(&share, true, Duration::from_secs(5)).await;
    assert!(lock(&world).written[20..].iter().all(|it| !it.replayed) && lock(&world).written.len() == 25);
    assert_eq!(lock(&world).durable["1"].len(), 25);
    tell(&share, false, terms.doubt + terms.settle).await;
    assert_eq!((state(&running), share.overrun()), (TaskState::Elsewhere, None), "let go before the lease is over");
    lock(&world).fill("1", 5);
    tell(&share, false, Duration::from_secs(30)).await;
    assert_eq!(lock(&world).written.len(), 25, "nothing is written for another");
    assert!(store.checkpoint(&running.keys().unwrap()[0], "one").unwrap().lanes.contains_key(&pipeline_sdk::Lane::new("1")));
    // The store of this process has a position, but the log's other end decides: here, from the beginning. Another one had the task
    // meanwhile and did not release it.
    assert!(released.0.swap(false, Ordering::SeqCst), "everything was written and committed");
    tell(&share, true, Duration::from_secs(20)).await;
    let again: Vec<i64> = lock(&world).written[25..].iter().filter(|it| it.replayed).map(|it| it.number).collect();
    assert_eq!(again, (1..=30).collect::<Vec<_>>());
    running.stop().await;
    assert_eq!((state(&running), lock(&world).violations.clone()), (TaskState::Stopped, Vec::new()));
    assert!(released.0.load(Ordering::SeqCst), "a graceful end hands over as well");
}

#[tokio::test(start_paused = true)]
async fn what_came_since_a_task_was_handed_over_is_new() {
    let (world, store, terms) = (new_world("handed"), Store::in_memory(), Terms::default());
    let (share, released) = (Share::new(terms), Arc::new(Released(true.into())));
    let running = start_shared("handed", &store, &share, &released).await;
    lock(&world).fill("1", 20);
    tell(&share, true, terms.lease + terms.grace + Duration::from_secs(5)).await;
    let written = lock(&world).written.clone();
    assert!(written.len() == 20 && written.iter().all(|it| !it.replayed), "{written:?}");
    assert!(!released.0.load(Ordering::SeqCst), "it is here now");
    running.stop().await;
}

/// Whoever waits for all to let go of a task that was stopped waits for nobody.
#[tokio::test(start_paused = true)]
async fn a_stop_lets_go_however_far_the_task_is() {
    let lost = || Trouble::Fails(Error::disconnected("away"));
    let fatal = || Trouble::Fails(Error::fatal("broken"));
    for (name, hangs, troubles, expect) in [
        ("let-go", false, vec![], "released"),
        ("let-go-untold", true, vec![], "left"),
        ("let-go-lost", false, std::iter::repeat_with(lost).take(1_000).collect(), "left"),
        ("let-go-failed", false, vec![fatal()], "left"),
    ] {
        let (world, store, terms) = (new_world(name), Store::in_memory(), Terms::default());
        lock(&world).on_next = troubles;
        let (share, told) = (Share::new(terms), Arc::new(Told { hangs, ..Told::default() }));
        let running = start_shared(name, &store, &share, &told).await;
        tell(&share, true, terms.lease + terms.grace + Duration::from_secs(5)).await;
        assert_eq!(*told.calls.lock().unwrap(), ["taken"], "{name}: what ended by itself is still here");
        running.stop_tasks(&running.tasks()).await.unwrap();
        assert_eq!((state(&running), told.calls.lock().unwrap().as_slice()), (TaskState::Stopped, &["taken", expect][..]), "{name}");
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_outlives_the_lease_is_told_and_nothing_follows_it() {
    let (world, store, terms) = (new_world("overrun"), Store::in_memory(), Terms::default());
    let share = Share::new(terms);
    let released = Arc::<Released>::default();
    let running = start_shared("overrun", &store, &share, &released).await;
    tell(&share, true, terms.lease + terms.grace + Duration::from_secs(2)).await;
    lock(&world).is_sink_blocked = true;
    lock(&world).fill("1", 20);
    tell(&share, true, Duration::from_secs(3)).await;
    tell(&share, false, terms.lease + Duration::from_secs(1)).await;
    assert!(share.overrun().is_some(), "a call is under way: only the end of the process ends it");
    lock(&world).is_sink_blocked = false;
    tell(&share, false, Duration::from_secs(10)).await;
    // What the one call held, and nothing behind it.
    let written = lock(&world).written.len() as u64;
    assert!(written <= super::super::worker::COMPARED_MESSAGES_MAX, "{written} were written");
    assert!(lock(&world).committed.is_empty() && !released.0.load(Ordering::SeqCst), "nobody may rely on it");
    assert_eq!((state(&running), share.overrun()), (TaskState::Elsewhere, None));
    running.stop().await;
}
