//! The site facet against embedded nodes: what a plan tells, and that forgetting takes what is ours and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pipeline_sdk::context::Place;
use pipeline_sdk::site::Verdict;
use pipeline_sdk::{Checkpoint, Context, Detached, Payload, Polled, Reaction, Site, SiteConfig, Source};
use pipeline_tdengine::client::{SocketLimits, Subscription};
use pipeline_tdengine::site::TdengineSiteConfig;
use pipeline_tdengine::transport::Consumer;
use serde_json::json;

mod scene;

use scene::{Scene, address, dsn};

/// How long anything may take that must happen.
const SOON: Duration = Duration::from_secs(60);

impl Scene {
    fn site(&self) -> Box<dyn Site> {
        let config: TdengineSiteConfig = serde_json::from_value(json!({ "dsn": address(&self.node) })).unwrap();
        config.build(Context::new(Place::default(), Arc::new(Detached::default()))).unwrap()
    }

    async fn list(&self, sql: &str) -> Vec<String> {
        let rows = self.sql.query(sql).await.unwrap().texts().unwrap();
        let mut texts: Vec<String> = rows.into_iter().filter_map(|mut row| row[0].take()).collect();
        texts.sort();
        texts.dedup();
        texts
    }

    async fn topics(&self) -> Vec<String> {
        self.list("select topic_name from information_schema.ins_topics").await
    }

    async fn groups(&self, topic: &str) -> Vec<String> {
        let of = format!("information_schema.ins_subscriptions where topic_name = '{topic}'");
        self.list(&format!("select consumer_group from {of}")).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_leaves_what_others_read() {
    let scene = Scene::start(&["create database power vgroups 2 wal_retention_period 3600"]).await;
    let mut site = scene.site();
    let ours = scene.source("one", "power").await;
    let theirs = scene.source("two", "power").await;
    // It looks through a consumer of its own, which is no reader.
    assert_eq!(site.lanes("power").await.unwrap().len(), 2);
    drop(ours);
    site.forget("power", &["one".into()]).await.unwrap();
    assert_eq!(scene.topics().await, ["pipeline_canary", "pipeline_meta_power", "pipeline_power"]);
    assert_eq!(scene.groups("pipeline_power").await, ["pipeline_two_power"]);
    assert_eq!(scene.groups("pipeline_meta_power").await, ["pipeline_two_power"]);

    drop(theirs);
    site.forget("power", &["two".into()]).await.unwrap();
    assert_eq!(scene.topics().await, Vec::<String>::new());
    assert_eq!(site.databases().await.unwrap(), ["power"]);
    let left = scene.list("select name from information_schema.ins_databases").await;
    assert!(!left.iter().any(|name| name.starts_with("pipeline")), "{left:?}");
    // Once more is no error: there is nothing.
    site.forget("power", &["two".into()]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_users_own_consumer_keeps_the_topic() {
    let scene = Scene::start(&["create database power vgroups 1 wal_retention_period 3600"]).await;
    drop(scene.source("one", "power").await);
    let subscription = Subscription {
        topic: "pipeline_power".into(),
        group: "a_users".into(),
        client: "test".into(),
        exclude_marked: false,
        from_oldest: true,
        prefetch: 1,
        rows_min: None,
    };
    let mut users = Consumer::subscribe(&dsn(&scene.node), &subscription, SocketLimits::default()).await.unwrap();
    users.poll(Duration::from_millis(10)).await.unwrap();
    scene.site().forget("power", &["one".into()]).await.unwrap();
    assert_eq!(scene.groups("pipeline_power").await, ["a_users"]);
    assert_eq!(scene.topics().await, ["pipeline_canary", "pipeline_power"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_reads_both_sites_and_writes_nothing() {
    let a = Scene::start(&[
        "create database power vgroups 2 keep 3650 wal_retention_period 3600",
        "create stable power.meters (ts timestamp, v int) tags (g int)",
        "create table power.d1 using power.meters tags (1)",
        "create database water precision 'us' wal_retention_period 100000",
        "create table water.flow (ts timestamp, v int)",
    ])
    .await;
    let b = Scene::start(&[
        "create database water wal_retention_period 100000",
        "create table water.flow (ts timestamp, v bigint)",
    ])
    .await;
    let (mut source, mut sink) = (a.site(), b.site());
    assert_eq!(source.address().await.unwrap(), format!("ws://{}", a.node.addr()));
    let databases = ["power".to_owned(), "water".to_owned()];
    let plans = (source.plan(&databases).await.unwrap(), sink.plan(&databases).await.unwrap());
    let checks = source.review(&plans.0, &plans.1).await.unwrap();
    let of = |check: &str, database: &str| {
        checks.iter().find(|it| it.check == check && it.database == database).unwrap_or_else(|| panic!("{check} of {database}"))
    };
    assert_eq!(of("cluster", "").verdict, Verdict::Ok);
    assert_eq!(of("version", "").verdict, Verdict::Ok, "{checks:?}");
    assert_eq!(of("clock", "").verdict, Verdict::Ok, "{checks:?}");
    assert_eq!(of("permissions", "").source, "root: all");
    assert!(of("topics", "").note.starts_with("5 more at the source: pipeline_power, "), "{checks:?}");
    let missing = of("database", "power");
    assert_eq!((missing.verdict, missing.source.as_str(), missing.sink.as_str()), (Verdict::Create, "1 tables, 2 vgroups", "absent"));
    assert_eq!((of("retention", "power").verdict, of("retention", "water").verdict), (Verdict::Warning, Verdict::Ok));
    assert_eq!(of("precision", "water").verdict, Verdict::Error);
    assert!(of("schema", "water").note.contains("flow"), "{checks:?}");
    for scene in [&a, &b] {
        assert_eq!(scene.topics().await, Vec::<String>::new());
    }
}

/// A process that starts soon after another ended: that one's consumer holds half of the lanes for a while, and what comes of the other
/// half meanwhile is read again from where it resumes.
#[tokio::test(flavor = "multi_thread")]
async fn lanes_of_a_lost_consumer_come_to_the_next_one() {
    let scene = two_lanes_of_a_lost_consumer().await;
    let mut source = tokio::time::timeout(SOON, scene.source("one", "power")).await.expect("it gets all lanes");
    assert_eq!(rows_of(&mut source, 20).await, 20);
}

/// What is kept meanwhile has a limit: the source gives the lanes back and connects again, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn more_than_is_kept_while_lanes_are_waited_for_is_read_again() {
    let scene = two_lanes_of_a_lost_consumer().await;
    let deadline = Instant::now() + SOON;
    let mut refused = 0;
    let mut source = loop {
        let mut source = scene.configured("one", "power", json!({ "assignment-bytes-max": 1 }));
        match source.connect(&Checkpoint::default()).await {
            Ok(_) => break source,
            Err(error) => {
                assert_eq!((error.reaction, error.code.as_str()), (Reaction::Disconnected, "tdengine.lanes"), "{error}");
                assert!(error.message.ends_with("they brought more than assignment-bytes-max meanwhile"), "{error}");
                refused += 1;
            }
        }
        assert!(Instant::now() < deadline, "it gets all lanes");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    assert!(refused > 0);
    assert_eq!(rows_of(&mut source, 20).await, 20);
}

async fn two_lanes_of_a_lost_consumer() -> Scene {
    let statements = [
        "create database power vgroups 2 wal_retention_period 3600",
        "create table power.meters (ts timestamp, v int) tags (g int)",
    ];
    // As a real server (FACTS F42): longer than the next one takes to connect.
    let scene = Scene::start_with(&statements, |config| config.member_lost_ms = 5_000).await;
    for table in 0..20 {
        let insert = format!("insert into power.t{table} using power.meters tags ({table}) values (1780000000000, {table})");
        scene.sql.exec(&insert).await.unwrap();
    }
    drop(scene.source("one", "power").await);
    scene
}

/// Rows: those that are wanted, and what comes until nothing does for a while.
async fn rows_of(source: &mut Box<dyn Source>, wanted: u64) -> u64 {
    let deadline = Instant::now() + SOON;
    let (mut rows, mut idle) = (0, 0);
    while idle < 20 {
        match source.next(Duration::from_millis(20)).await.unwrap() {
            Polled::Messages(messages) => {
                rows += messages.iter().map(|it| if let Payload::Frame(frame) = &it.payload { frame.rows } else { 0 }).sum::<u64>();
            }
            Polled::Idle if rows < wanted && Instant::now() < deadline => {}
            Polled::Idle => idle += 1,
            _ => {}
        }
    }
    rows
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_reach_every_member_of_a_group_and_the_newest_counts() {
    let scene = Scene::start(&[]).await;
    let (mut one, mut other) = (scene.site(), scene.site());
    let notes = |of: &[(&str, &str)]| of.iter().map(|(name, note)| (name.to_string(), note.to_string())).collect::<BTreeMap<_, _>>();
    let many: BTreeMap<String, String> = (0..1_200).map(|it| (format!("task {it}"), "stopped".to_owned())).collect();
    assert_eq!(one.notes("g", many.clone()).await.unwrap(), many);
    assert_eq!(other.notes("g", BTreeMap::new()).await.unwrap(), many);
    assert_eq!(other.notes("another group", BTreeMap::new()).await.unwrap(), BTreeMap::new());
    let quoted = r#"["it's","a\"b","涛"]"#;
    let changed = notes(&[("task 7", "started"), (quoted, "")]);
    other.notes("g", changed.clone()).await.unwrap();
    let expected: BTreeMap<String, String> = many.into_iter().chain(changed).collect();
    assert_eq!(one.notes("g", BTreeMap::new()).await.unwrap(), expected);
    // One that comes later, or again, reads all of it.
    assert_eq!(scene.site().notes("g", BTreeMap::new()).await.unwrap(), expected);
    let error = one.notes("g", notes(&[("x", &"y".repeat(257))])).await.unwrap_err();
    assert!(error.message.contains("256 of text at most"), "{error}");
}
