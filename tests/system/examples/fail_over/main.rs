//! Fail-over of unmodified clients: all of them write, bind and read at site A, whose node is killed with -9. They must go on at B, by
//! the driver's own means or through HAProxy with docs/deploy/haproxy.cfg; and once A is back every acknowledged row must be at both
//! sites, in the order of its writer for a subscription that a user has at B. The replica is run by `pipeline serve`; `pipeline replica ready`
//! says yes before the kill, no while A is away, and yes again before the way back.
//!
//! usage: fail_over HAPROXY_CFG 'SUBSCRIBER_COMMAND…' 'CLIENT ACTION,ACTION… COMMAND…' …
//!
//! A client whose name ends with `-direct` gets both addresses, the others get the proxy's. Sites are two embedded nodes, or the real
//! pair that `PIPELINE_TEST_SITES` names, where `PIPELINE_TEST_KILL` and `PIPELINE_TEST_START`, given `a`, do what is done to A.

mod load;
mod proxy;
mod subscription;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pipeline_tests::{Client, Pair, Writer};

use load::{Kill, Load, Record};
use proxy::Proxy;
use subscription::Subscription;

const DATABASE: &str = "fail_over";
/// Acknowledged writes of each client before the kill, after it, and after the way back.
const WRITES: usize = 60;
/// How long a client may take to get on; CI machines are slow, and what is reached is printed.
const WITHIN: Duration = Duration::from_secs(60);
/// How long the sites may take to become equal.
const SETTLE: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    match run(&std::env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<()> {
    let [configuration, subscriber, clients @ ..] = arguments else { bail!("usage: see the top of this file") };
    let clients = clients.iter().map(|text| Client::parse(text)).collect::<Result<Vec<_>>>()?;
    let mut pair = Pair::served(DATABASE, "vgroups 2")?;
    let meters = format!("create stable {DATABASE}.meters (ts timestamp, current float, voltage int)");
    pair.a.sql(&format!("{meters} tags (place varchar(40), grp bigint)"));
    pair.settle(SETTLE)?;
    let proxy = Proxy::start(Path::new(configuration), &pair)?;
    let subscription = Subscription::start(subscriber, &pair, DATABASE)?;
    let loads = clients.iter().map(|client| start(client, &pair, &proxy)).collect::<Result<Vec<_>>>()?;
    let result = fail_over(&mut pair, &proxy, &loads);
    let records: Vec<Record> = loads.into_iter().map(Load::stop).collect();
    let killed = result.with_context(|| proxy.log())?;
    pair.settle(SETTLE)?;
    let told = || format!("log of the proxy:\n{}\nlog of the pipelines:\n{}", proxy.log(), pair.log());
    for record in &records {
        record.hold(&pair, DATABASE).with_context(told)?;
        println!("{}", record.summary(&killed));
    }
    let received = subscription.finish(&records, &killed, SETTLE, pair.folder.path()).with_context(told)?;
    println!("a user's subscription at B received {received} rows, those of each writer in order; sites equal, nothing acknowledged is lost");
    Ok(())
}

fn start(client: &Client, pair: &Pair, proxy: &Proxy) -> Result<Load> {
    let address = if client.name.ends_with("-direct") {
        format!("{},{}", pair.a.address, pair.b.address)
    } else {
        proxy.address.clone()
    };
    Ok(Load::start(client, Writer::start(client, &address, DATABASE, pair.folder.path())?))
}

/// Waits until an operator who asks is told so.
fn until_ready(pair: &Pair, wanted: bool) -> Result<()> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let (is_ready, said) = pair.is_ready()?;
        if is_ready == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("`replica ready` does not say {}:\n{said}", if wanted { "yes" } else { "no" });
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// From the first write to the way back; when A was killed.
fn fail_over(pair: &mut Pair, proxy: &Proxy, loads: &[Load]) -> Result<Kill> {
    let at = |site: &pipeline_tests::Site| -> Result<i64> {
        site.sql("select id from information_schema.ins_cluster")[0][0].as_i64().context("the id of a cluster is a number")
    };
    let (a, b) = (at(&pair.a)?, at(&pair.b)?);
    for load in loads {
        load.wait_for(WRITES, WITHIN)?;
        load.is_at(a)?;
    }
    // A loaded machine may be behind by more than an operator takes while all of them write.
    loads.iter().for_each(Load::pause);
    until_ready(pair, true).context("before the kill")?;
    for load in loads {
        let before = load.written();
        load.resume();
        load.wait_for(before + WRITES / 3, WITHIN)?;
    }
    let begun = Instant::now();
    pair.kill_node(0)?;
    let killed = Kill { begun, done: Instant::now() };
    let behind: Vec<usize> = loads.iter().map(Load::written).collect();
    for (load, behind) in loads.iter().zip(behind) {
        load.wait_for(behind + WRITES, WITHIN).context("after the kill")?;
        load.is_at(b)?;
    }
    until_ready(pair, false).context("A is away")?;
    pair.start_node(0)?;
    // Nobody goes back by himself: A lacks what was written at B, until it is read.
    std::thread::sleep(Duration::from_secs(1));
    for load in loads {
        load.pause();
        load.is_at(b).context("A is back")?;
    }
    pair.settle(SETTLE).context("A is back")?;
    until_ready(pair, true).context("A is back")?;
    proxy.fail_back()?;
    for load in loads {
        let before = load.written();
        load.resume();
        load.wait_for(before + WRITES / 3, WITHIN).context("on the way back")?;
        // A driver of its own stays where it is, until its connection ends.
        load.is_at(if load.name.ends_with("-direct") { b } else { a }).context("on the way back")?;
    }
    Ok(killed)
}
