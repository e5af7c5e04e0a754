//! Both directions at once under writes through unmodified clients: each client in turn, and then all at once, write at both
//! sites at the same time what `script.txt` says; then the sites must be equal (`converged`), hold what the script expects
//! (nothing is lost), and send nothing while nobody writes (`no-loop`, FACTS F59).
//!
//! usage: both_ways 'CLIENT ACTION,ACTION… COMMAND…' …
//!
//! COMMAND is started with HOST:PORT and DATABASE behind it and speaks the lines that tests/clients/README.md tells. Sites are two
//! embedded nodes, or the real pair that `PIPELINE_TEST_SITES` names.

mod script;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pipeline_tests::{Client, Pair, Process, Site, Writer, messages_at};

use script::{Expectation, Script, Turn};

const DATABASE: &str = "both_ways";
/// Rounds of the script that a client does at each site in its turn, and again when all do.
const ROUNDS: usize = 1;
/// How long the sites may take to become equal once the clients wrote.
const SETTLE: Duration = Duration::from_secs(180);
/// How long nothing may come from a log while nobody writes.
const QUIET: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let clients = std::env::args().skip(1).map(|text| Client::parse(&text)).collect::<Result<Vec<_>>>();
    match clients.and_then(|clients| run(&clients)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(clients: &[Client]) -> Result<()> {
    let script = Script::read(include_str!("script.txt"))?;
    let mut pair = Pair::new(DATABASE, "vgroups 2")?;
    let meters = format!("create stable {DATABASE}.meters (ts timestamp, current float, voltage int)");
    pair.a.sql(&format!("{meters} tags (place varchar(40), grp bigint)"));
    pair.settle(SETTLE)?;
    pair.b.sql(&format!("create table {DATABASE}.shared using {DATABASE}.meters tags ('both', 0)"));
    pair.settle(SETTLE)?;
    let mut turns: Vec<Vec<&Client>> = clients.iter().map(|client| vec![client]).collect();
    if clients.len() > 1 {
        turns.push(clients.iter().collect());
    }
    let mut expected = Vec::new();
    for (turn, clients) in turns.iter().enumerate() {
        expected.extend(take_turn(&mut pair, &script, clients, turn)?);
    }
    hold(&pair, &expected)?;
    compare(&mut pair)
}

/// Lets `clients` write at both sites at once; what both sites must hold for it in the end.
fn take_turn(pair: &mut Pair, script: &Script, clients: &[&Client], turn: usize) -> Result<Vec<Expectation>> {
    let mut writers = Vec::new();
    for client in clients {
        for (name, site) in [("a", &pair.a), ("b", &pair.b)] {
            writers.push((Writer::start(client, &site.address, DATABASE, pair.folder.path())?, *client, name));
        }
    }
    for (writer, ..) in &mut writers {
        writer.wait_until_ready()?;
    }
    let started = Instant::now();
    let written: Vec<Result<(usize, Vec<Expectation>)>> = std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter_mut()
            .map(|(writer, client, site)| scope.spawn(move || write(writer, script, client, site, turn)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a writer's thread does not panic")).collect()
    });
    let names: Vec<_> = clients.iter().map(|client| client.name.as_str()).collect();
    let names = names.join(", ");
    let (mut count, mut expected) = (0, Vec::new());
    for one in written {
        let (statements, expectations) = one.with_context(|| format!("{names}, log of the pipelines:\n{}", pair.log()))?;
        count += statements;
        expected.extend(expectations);
    }
    let (took, settling) = (started.elapsed(), Instant::now());
    pair.settle(SETTLE).with_context(|| names.clone())?;
    let settled = settling.elapsed();
    hold(pair, &expected).with_context(|| names.clone())?;
    for site in [&pair.a, &pair.b] {
        quiet(site, &pair.log())?;
    }
    println!("{names}: {count} writes in {took:.1?}, sites equal {settled:.1?} later, nothing looped");
    Ok(expected)
}

/// One writer's rounds; how many statements they were, and what they expect.
fn write(writer: &mut Writer, script: &Script, client: &Client, site: &str, turn: usize) -> Result<(usize, Vec<Expectation>)> {
    let (mut count, mut expected) = (0, Vec::new());
    for round in 0..ROUNDS {
        let turn = Turn { client: &client.name, site, round: turn * ROUNDS + round };
        for request in script.requests(&turn, &client.actions) {
            writer.request(&request)?;
            count += 1;
        }
        expected.extend(script.expectations(&turn, &client.actions));
    }
    Ok((count, expected))
}

/// Both sites hold what was written: an answer that is equal at both but not what was expected is a loss.
fn hold(pair: &Pair, expected: &[Expectation]) -> Result<()> {
    for Expectation { count, select } in expected {
        for site in [&pair.a, &pair.b] {
            let found = &site.sql_in(DATABASE, select)[0][0];
            if found.as_u64() != Some(*count) {
                bail!("{}: {select}: {found} instead of {count}\nlog of the pipelines:\n{}", site.address, pair.log());
            }
        }
    }
    Ok(())
}

fn quiet(site: &Site, log: &str) -> Result<()> {
    let looped = messages_at(site, DATABASE, QUIET)?;
    if !looped.is_empty() {
        bail!("{} sends while nobody writes: {looped:?}\nlog of the pipelines:\n{log}", site.address);
    }
    Ok(())
}

/// The product's own comparison, by another run over the same state, says the same.
fn compare(pair: &mut Pair) -> Result<()> {
    pair.stop()?;
    let (file, log) = (pair.file().display().to_string(), pair.folder.path().join("compare.log"));
    let mut run = Process::start(&["run", "--for", "1s", &file], &log)?;
    let status = run.wait(SETTLE)?;
    let output = run.output();
    if !status.success() || !output.contains("sites are equal: yes") {
        bail!("`pipeline run --for 1s` ended with {status}:\n{output}");
    }
    println!("`pipeline run --for 1s` says: sites are equal: yes");
    Ok(())
}
