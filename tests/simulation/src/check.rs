//! The invariants of the design, by name.

use std::collections::BTreeSet;
use std::time::Duration;

use pipeline_engine::metrics::TaskState;
use pipeline_tdengine::client::{SocketLimits, Subscription};
use pipeline_tdengine::transport::Consumer;
use tokio::time::Instant;

use crate::model::{Difference, State, differences};
use crate::site;
use crate::world::{DATABASE, PIPELINES, SITES, World, connect, user_dsn};

/// After writes have stopped and everything is up again: how long lanes may take to drain.
const CONVERGE_MAX: Duration = Duration::from_secs(300);
/// How long nothing may come to a consumer without exclusion while nobody writes.
const SILENCE: Duration = Duration::from_secs(12);
/// Differences that a violation lists.
const SHOWN_MAX: usize = 12;

/// An invariant that did not hold, and how.
#[derive(Clone, Debug)]
pub struct Violation {
    pub invariant: &'static str,
    pub text: String,
}

impl Violation {
    pub fn new(invariant: &'static str, text: impl Into<String>) -> Self {
        Self { invariant, text: text.into() }
    }
}

/// What both sites hold.
pub struct Settled {
    pub state: State,
    /// Whether they differ in rows that were reported for repair.
    pub has_reported: bool,
}

/// Waits until both sites hold the same and what they should, but for rows that were reported for repair.
///
/// # Errors
/// They never do: the invariant that this breaks.
pub async fn settle(world: &World, model: State, unsure: &BTreeSet<String>) -> Result<Settled, Violation> {
    let deadline = Instant::now() + CONVERGE_MAX;
    let mut violation;
    loop {
        for from in 0..2 {
            still_running(world, from)?;
            let running = world.running(from).expect("everything was started");
            running.drain(Duration::from_secs(20)).await;
        }
        let sites = [read(world, 0).await?, read(world, 1).await?];
        match compare(world, &sites, &model, unsure) {
            Ok(has_reported) => {
                let [state, _] = sites;
                return Ok(Settled { state, has_reported });
            }
            Err(found) => violation = found,
        }
        if Instant::now() > deadline {
            return Err(violation);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

fn still_running(world: &World, from: usize) -> Result<(), Violation> {
    let status = world.running(from).expect("everything was started").status();
    for pipeline in status.pipelines {
        if let TaskState::Failed(reason) | TaskState::Rejected(reason) = pipeline.state {
            return Err(Violation::new("converged", format!("{} ended: {reason}", PIPELINES[from])));
        }
    }
    Ok(())
}

async fn read(_: &World, number: usize) -> Result<State, Violation> {
    let failed = |error| Violation::new("generator", format!("site {}: {error}", SITES[number]));
    let connection = connect(number).await.map_err(failed)?;
    site::read(&connection).await.map_err(failed)
}

/// Whether the sites differ in rows that were reported.
fn compare(world: &World, sites: &[State; 2], model: &State, unsure: &BTreeSet<String>) -> Result<bool, Violation> {
    let incidents = world.incidents();
    // `regress` names the rows that were not overwritten, or the range that was not deleted.
    let is_reported = |it: &Difference| {
        let (Some(table), Some(time)) = (&it.table, it.time) else { return false };
        let names = |incident: &&pipeline_sdk::Incident| {
            let detail = &incident.detail;
            let is_named = detail["times"].as_array().is_some_and(|times| times.iter().any(|it| *it == time));
            let range = detail["from"].as_i64().zip(detail["to"].as_i64());
            detail["table"] == table.as_str() && (is_named || range.is_some_and(|(from, to)| (from..=to).contains(&time)))
        };
        incidents.iter().filter(|incident| incident.kind == "regress").any(|incident| names(&incident))
    };
    let between = differences(&sites[0], &sites[1], |_| true);
    let (reported_rows, unreported): (Vec<_>, Vec<_>) = between.into_iter().partition(is_reported);
    if !unreported.is_empty() {
        return Err(Violation::new("converged", format!("a | b{}{}", list(&unreported), reported(world))));
    }
    let mut found = differences(&sites[0], model, |group| !unsure.contains(group));
    found.retain(|it| !is_reported(it));
    match found.first() {
        Some(first) => Err(Violation::new(broken_by(first), format!("found | expected{}{}", list(&found), reported(world)))),
        None => Ok(!reported_rows.is_empty()),
    }
}

/// The invariant that equal sites break which hold something else than what was written.
fn broken_by(difference: &Difference) -> &'static str {
    match (&*difference.what, &difference.one, &difference.other) {
        (_, Some(_), None) if difference.time.is_none() => "log-creates",
        (_, Some(_), None) => "no-regress",
        (_, None, Some(_)) => "no-silent-hole",
        ("row", ..) => "assigned-columns-only",
        _ => "lane-order",
    }
}

fn list(differences: &[Difference]) -> String {
    let mut text: String = differences.iter().take(SHOWN_MAX).map(|it| format!("\n    {it}")).collect();
    if differences.len() > SHOWN_MAX {
        text.push_str(&format!("\n    and {} more", differences.len() - SHOWN_MAX));
    }
    text
}

fn reported(world: &World) -> String {
    let incidents = world.incidents();
    let shown = incidents.iter().map(|it| format!("\n    reported: {}: {} {}", it.kind, it.message, it.detail));
    let states = (0..2).filter_map(|from| world.running(from)).flat_map(|running| running.status().pipelines);
    let states = states.map(|it| format!("\n    {}: {:?}, lanes {:?}", it.pipeline, it.state, it.lanes));
    shown.chain(states).collect()
}

/// No queue holds more than it may.
pub fn bounded(world: &World, from: usize) -> Result<(), Violation> {
    let (held, limit) = world.queued(from);
    match held > limit {
        true => Err(Violation::new("bounded", format!("{}: {held} messages are queued, {limit} may be", PIPELINES[from]))),
        false => Ok(()),
    }
}

/// A consumer without exclusion receives nothing while nobody writes (FACTS F59).
pub async fn no_loop(world: &World) -> Result<(), Violation> {
    for (number, name) in SITES.iter().enumerate() {
        let failed = |error: pipeline_tdengine::client::ClientError| Violation::new("generator", format!("observer of {name}: {error}"));
        let subscription = Subscription {
            topic: pipeline_tdengine::names::topic(pipeline_tdengine::names::PREFIX_DEFAULT, DATABASE),
            group: "observer".into(),
            client: "observer".into(),
            exclude_marked: false,
            from_oldest: false,
            prefetch: 1,
            rows_min: None,
        };
        let dsn = user_dsn(number);
        let mut consumer = Consumer::subscribe(&dsn, &subscription, SocketLimits::default()).await.map_err(failed)?;
        let deadline = Instant::now() + SILENCE;
        while Instant::now() < deadline {
            if let Some(message) = consumer.poll(Duration::from_secs(1)).await.map_err(failed)? {
                let text = format!("site {name} got a message of type {} in vgroup {} though nobody writes{}", message.raw_type, message.vgroup, reported(world));
                return Err(Violation::new("no-loop", text));
            }
        }
    }
    Ok(())
}
