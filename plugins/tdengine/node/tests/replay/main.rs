//! Every recording of a real 3.3.0.1 server, played again to a node that advertises that version: the same requests, and
//! the same answers but for ids, times and what the recordings' index excepts.
//!
//! Tells the share that is equal and each answer that is not, with its reason where [`reasons`] has one: printed, and in
//! [`REPORT`], which `tests/run` shows. Those without a reason are told as open and fail the test, and so do any difference in a
//! recording of [`EQUAL`], fewer equal answers than [`EQUAL_IN`] says, and a share below [`EQUAL_MIN`].

mod compare;
mod drive;
mod reasons;
mod recording;
mod setup;

use std::collections::BTreeMap;
use std::fmt::Write;

use tdengine_node::{Config, Node};

/// Recordings whose every answer is equal: none of them may get a reason.
const EQUAL: [&str; 14] = [
    "a1-connect", "a2-auth-errors", "a3-rest", "b3-multiblock", "c1-subscribe", "c2-data-ms-fetch", "c2-data-ns-fetch",
    "d1-write-raw", "d2-write-raw-errors", "d3-write-block", "e1-stmt", "errors", "f2-python-stmt", "f5-jdbc-stmt",
];

/// Recordings of which any answer may differ, for a reason that holds for the whole of them, and how many are equal all the same.
const EQUAL_IN: [(&str, u32); 3] = [("b4-client-queries", 56), ("c6-redelivery", 17), ("f3-python-tmq", 2)];

/// In the folder that Cargo keeps for this test.
const REPORT: &str = "replay.txt";
/// Characters of a difference that are told.
const TOLD_LENGTH: usize = 300;

/// Least share of equal answers, in thousands: what is explained today is not to grow unseen.
const EQUAL_MIN: u32 = 800;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_replay_equal() {
    let only = std::env::var("REPLAY_ONLY").ok();
    let (mut equal, mut compared) = (0, 0);
    let (mut unexplained, mut fewer) = (Vec::new(), Vec::new());
    let mut report = String::new();
    let mut explained: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for name in recording::names() {
        if only.as_deref().is_some_and(|only| !name.contains(only)) {
            continue;
        }
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::local(folder.path());
        // The older adapter is that of what is older than the server that was recorded.
        config.version = if name.ends_with("-adapter3301") { "3.3.0.0" } else { "3.3.0.1" }.into();
        let node = Node::start(config).await.unwrap();
        let outcome = drive::replay(&node, &name).await;
        node.stop().await;
        writeln!(report, "{name}: {} of {} equal", outcome.equal, outcome.compared).unwrap();
        if let Some((_, least)) = EQUAL_IN.iter().find(|(of, least)| name == *of && outcome.equal < *least) {
            fewer.push(format!("{name}: {} equal, {least} before", outcome.equal));
        }
        equal += outcome.equal;
        compared += outcome.compared;
        for difference in outcome.differences {
            match reasons::find(&name, &difference) {
                Some(reason) => explained.entry(reason).or_default().push(format!("{name} {difference}")),
                None => unexplained.push(format!("{name} {difference}")),
            }
        }
    }
    for (reason, differences) in &explained {
        tell(&mut report, reason, differences);
    }
    tell(&mut report, "open", &unexplained);
    let share = 100.0 * f64::from(equal) / f64::from(compared.max(1));
    writeln!(report, "\n{equal} of {compared} answers replay equal ({share:.1} %)").unwrap();
    println!("{report}");
    std::fs::write(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(REPORT), &report).unwrap();
    let explained = explained.values().flatten();
    let is_of_equal = |difference: &&String| EQUAL.iter().any(|name| difference.starts_with(&format!("{name} ")));
    let broken: Vec<&String> = unexplained.iter().chain(explained).filter(is_of_equal).collect();
    assert!(broken.is_empty(), "these were equal before: {broken:#?}");
    assert!(fewer.is_empty(), "{fewer:?}");
    assert!(unexplained.is_empty(), "{} answers differ without a reason", unexplained.len());
    assert!(only.is_some() || equal * 1000 >= compared * EQUAL_MIN, "{equal} of {compared} are too few");
}

fn tell(report: &mut String, reason: &str, differences: &[String]) {
    writeln!(report, "\n{reason}: {}", differences.len()).unwrap();
    for difference in differences {
        writeln!(report, "  {}", difference.chars().take(TOLD_LENGTH).collect::<String>()).unwrap();
    }
}
