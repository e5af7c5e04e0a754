//! One seed from its beginning to its verdict: rounds of writes and faults, after each of which writes stop, lanes drain, and the
//! invariants are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pipeline_tdengine::client::{ClientError, sql::Connection};
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use crate::check::{self, Violation};
use crate::fabric::Traffic;
use crate::oracle;
use crate::model::State;
use crate::operation::{Mode, User};
use crate::world::{PIPELINES, SITES, Shape, Trace, USER, World, connect};

/// How long a site may be unreachable for its user.
const SITE_BACK_MAX: Duration = Duration::from_secs(60);

/// How much a seed does, and what it leaves out.
#[derive(Clone, Copy, Debug)]
pub struct Menu {
    pub rounds_max: usize,
    pub operations_max: usize,
    pub faults_max: usize,
    /// Whether tags are renamed and dropped by the site that owns their super table in a round.
    pub renames_tags: bool,
    /// Whether tags of a super table that is free are renamed and dropped, by the site that made it, while the other sets them and makes
    /// children with them.
    pub renames_in_use: bool,
    /// Whether both sites set columns, each its own, of one row.
    pub both_amend: bool,
    /// Whether both sites add tags to one super table in one round.
    pub both_add_tags: bool,
}

/// Runs a seed. `Ok` tells what was sent: a run of the same seed sends the same.
pub async fn run(seed: u64, menu: Menu, trace: &Arc<Trace>) -> Result<Traffic, Violation> {
    let mut random = SmallRng::seed_from_u64(seed);
    let shape = Shape { seed, vgroups: *[1, 2, 2, 3].choose(&mut random).expect("some") };
    let mut world = World::new(shape, trace.clone()).await;
    trace.note(format!("{} vgroups", shape.vgroups));
    let mut model = State::default();
    let mut first = 0;
    for round in 0..random.random_range(1..=menu.rounds_max) {
        let modes: BTreeMap<String, Mode> = model.groups.keys().map(|name| (name.clone(), draw_mode(&mut random))).collect();
        trace.note(format!("round {round}: {modes:?}"));
        let users = [0, 1].map(|site| {
            let user = User::new(site, SmallRng::seed_from_u64(random.random()), model.clone(), modes.clone(), first, menu);
            let operations = random.random_range(0..=menu.operations_max);
            tokio::spawn(write(user, operations, trace.clone()))
        });
        for from in 0..2 {
            tokio::time::sleep(Duration::from_millis(random.random_range(0..500))).await;
            world.start_pipeline(from).await;
        }
        if round > 0 || random.random_ratio(1, 2) {
            for _ in 0..random.random_range(0..=menu.faults_max) {
                tokio::time::sleep(Duration::from_millis(random.random_range(0..2_000))).await;
                inject(&mut world, &mut random, &modes).await?;
            }
        }
        let mut unsure = BTreeSet::new();
        for user in users {
            let written = user.await.map_err(|error| Violation::new("generator", error.to_string()))??;
            written.effects.iter().for_each(|effect| effect(&mut model));
            unsure.extend(written.unsure);
            first = first.max(written.next);
        }
        for number in 0..2 {
            world.start_node(number).await;
            world.start_pipeline(number).await;
        }
        trace.note("writes have stopped");
        let settled = check::settle(&world, model, &unsure).await?;
        model = settled.state;
        oracle::logs(&world)?;
        (0..2).try_for_each(|from| oracle::durable(&world, from, |_| true))?;
        if settled.has_reported {
            trace.note("a reported difference stays until a person repairs it: the seed ends here");
            break;
        }
    }
    check::no_loop(&world).await?;
    Ok(world.fabric.traffic())
}

fn draw_mode(random: &mut SmallRng) -> Mode {
    match random.random_range(0..4) {
        0 | 1 => Mode::Free,
        2 => Mode::Owned(0),
        _ => Mode::Owned(1),
    }
}

/// What a user did in a round.
struct Written {
    effects: Vec<Arc<dyn Fn(&mut State) + Send + Sync>>,
    /// Groups with a statement whose answer was lost.
    unsure: BTreeSet<String>,
    next: i64,
}

async fn write(mut user: User, operations: usize, trace: Arc<Trace>) -> Result<Written, Violation> {
    let mut written = Written { effects: Vec::new(), unsure: BTreeSet::new(), next: 0 };
    let site = user.site;
    let mut connection = connect_again(site).await?;
    for _ in 0..operations {
        let pause = user.pause();
        tokio::time::sleep(pause).await;
        let Some(operation) = user.draw(|group| written.unsure.contains(group)) else { continue };
        match connection.exec(&operation.sql).await {
            Ok(_) => {
                trace.note(format!("{}: {}", SITES[site], operation.sql));
                (operation.effect)(&mut user.view);
                written.effects.push(operation.effect);
            }
            Err(ClientError::Server { code: 0x2602 | 0x260e | 0x2649, .. }) if operation.may_miss_tag => {
                trace.note(format!("{}: {}: there is no such tag any more", SITES[site], operation.sql));
            }
            Err(error @ ClientError::Server { .. }) => {
                return Err(Violation::new("generator", format!("{}: {}: {error}", SITES[site], operation.sql)));
            }
            Err(error) => {
                trace.note(format!("{}: {}: answer lost: {error}", SITES[site], operation.sql));
                written.unsure.insert(operation.group);
                connection = connect_again(site).await?;
            }
        }
    }
    written.next = user.next;
    Ok(written)
}

async fn connect_again(site: usize) -> Result<Connection, Violation> {
    let deadline = Instant::now() + SITE_BACK_MAX;
    loop {
        match connect(site).await {
            Ok(connection) => return Ok(connection),
            Err(error) if Instant::now() > deadline => return Err(Violation::new("generator", error)),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// Lets one fault happen; looks at what must hold at any moment.
async fn inject(world: &mut World, random: &mut SmallRng, modes: &BTreeMap<String, Mode>) -> Result<(), Violation> {
    (0..2).try_for_each(|from| check::bounded(world, from))?;
    let number = random.random_range(0..2);
    let (dialler, site) = (PIPELINES[random.random_range(0..2)], SITES[number]);
    let time = Duration::from_millis(random.random_range(100..8_000));
    match random.random_range(0..10) {
        0..2 => {
            world.trace.note(format!("cut: {dialler} to {site}"));
            world.fabric.cut(Some(dialler), Some(site));
        }
        2..4 => {
            world.trace.note(format!("closed: {dialler} to {site} for {time:?}"));
            world.fabric.close(dialler, site, time);
        }
        4..5 => {
            world.trace.note(format!("slow: {dialler} to {site} for {time:?}"));
            world.fabric.slow(dialler, site, time, Duration::from_millis(random.random_range(20..400)));
        }
        5..8 => {
            world.trace.note(format!("killed: {}", PIPELINES[number]));
            world.kill_pipeline(number).await;
            oracle::durable(world, number, |group| modes.get(group) == Some(&Mode::Free))?;
            tokio::time::sleep(time / 4).await;
            world.start_pipeline(number).await;
            world.trace.note(format!("started: {}", PIPELINES[number]));
        }
        8..9 => {
            world.trace.note(format!("killed: site {site}"));
            world.kill_node(number).await;
            tokio::time::sleep(time / 4).await;
            world.start_node(number).await;
            world.trace.note(format!("started: site {site}"));
        }
        _ => {
            world.trace.note(format!("cut: {USER} at {site}"));
            world.fabric.cut(Some(USER), Some(site));
        }
    }
    Ok(())
}
