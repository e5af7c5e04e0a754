//! What the log says of a task's troubles.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipeline_sdk::Error;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::world::*;
use crate::metrics::TaskState;
use crate::state::Store;

/// Keeps the engine's events of this thread, one a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

struct Line<'l>(&'l mut String);

impl Visit for Line<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, "{field}={value:?} ");
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event()
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = self.0.lock().unwrap();
        event.record(&mut Line(&mut text));
        text.push('\n');
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

impl Log {
    /// How many lines hold all of this.
    fn count(&self, parts: &[&str]) -> usize {
        self.0.lock().unwrap().lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_lost_only_where_there_was_one() {
    let log = Log::default();
    let _kept = tracing::subscriber::set_default(log.clone());
    let (world, store) = (new_world("log-lost"), Store::in_memory());
    lock(&world).fill("1", 1);
    lock(&world).on_connect = vec![Trouble::Fails(Error::disconnected("no such database")); 3];
    let running = start(&one("log-lost", ""), &store).await;
    until("all are written", || lock(&world).written.len() == 1).await;
    assert_eq!(log.count(&["cannot start yet; trying again", "no such database"]), 3);
    assert_eq!(log.count(&["connection lost"]), 0);
    lock(&world).on_next = vec![Trouble::Fails(Error::disconnected("reset"))];
    lock(&world).on_connect = vec![Trouble::Fails(Error::disconnected("refused")); 2];
    until("it is lost", || matches!(state(&running), TaskState::Reconnecting(_))).await;
    until("it runs again", || state(&running) == TaskState::Running).await;
    assert_eq!(log.count(&["connection lost; trying again", "reset"]), 1);
    assert_eq!((log.count(&["connection lost"]), log.count(&["cannot start yet; trying again", "refused"])), (1, 2));
    assert_eq!(running.status().pipelines[0].counts.reconnects, 6);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_cannot_be_reached_is_told_of_by_lane() {
    let log = Log::default();
    let _kept = tracing::subscriber::set_default(log.clone());
    let (world, store) = (new_world("log-lanes"), Store::in_memory());
    for lane in ["1", "2"] {
        lock(&world).fill(lane, 1);
    }
    lock(&world).on_sink_connect = vec![Trouble::Fails(Error::disconnected("no answer")); 1_000];
    let running = start(&one("log-lanes", ""), &store).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let (one, two) = (log.count(&["trying again", "no answer", "lane=\"1\""]), log.count(&["trying again", "no answer", "lane=\"2\""]));
    assert!(one > 1 && two > 1, "{one} and {two}");
    assert_eq!(log.count(&["trying again"]), one + two);
    let counts = running.status().pipelines[0].counts;
    assert_eq!((counts.retries, counts.errors), ((one + two) as u64, (one + two) as u64), "each is counted as it is told");
    running.stop().await;
}
