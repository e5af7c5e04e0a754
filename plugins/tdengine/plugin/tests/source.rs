//! The source against an embedded node.

use std::time::{Duration, Instant};

use pipeline_sdk::LaneProgress;

mod scene;

use scene::Scene;

/// Between two changes: less than a poll of the second consumer lasts, so it always brings something.
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const LASTS: Duration = Duration::from_secs(10);
/// How old may be what is told of a lane.
const AGE_MAX: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn lag_is_told_while_changes_come_all_the_time() {
    let scene = Scene::start(&[
        "create database power vgroups 1 wal_retention_period 3600",
        "create stable power.meters (ts timestamp, v int) tags (t int)",
    ])
    .await;
    let mut source = scene.source("one", "power").await;
    let begun = Instant::now();
    let mut ends = vec![(begun, 0)];
    let mut number = 0;
    loop {
        number += 1;
        scene.sql.exec(&format!("create table power.d{number} using power.meters tags ({number})")).await.unwrap();
        scene.sql.exec(&format!("insert into power.d{number} values (now, 1)")).await.unwrap();
        let changed = Instant::now();
        while changed.elapsed() < CHANGE_INTERVAL {
            source.next(Duration::from_millis(10)).await.unwrap();
        }
        let lanes = source.progress().await.unwrap();
        let of_changes = lanes.iter().find(|lane| lane.lane.as_str().ends_with(".meta")).unwrap();
        let (current, latest) = places(of_changes);
        ends.push((Instant::now(), latest));
        if begun.elapsed() > LASTS {
            let reached = ends.iter().rev().find(|(_, end)| *end <= current).unwrap().0;
            assert!(reached.elapsed() < AGE_MAX, "told to be at {current}, where the log ended {:?} ago: {ends:?}", reached.elapsed());
            return;
        }
    }
}

fn places(lane: &LaneProgress) -> (i64, i64) {
    let number = |position: &Option<pipeline_sdk::Position>| position.as_ref().and_then(|it| it.number).unwrap();
    (number(&lane.current), number(&lane.latest))
}
