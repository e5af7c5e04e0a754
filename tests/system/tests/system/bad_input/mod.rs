//! Bad input, item by item: what a person types wrong, what breaks under a run, what data does not fit.
//!
//! Each test runs the built binary as a user would and looks at what a person reads (what, where, what to do), at the exit code
//! (0 done, 1 failed, 2 wrong usage or configuration, 3 stopped by policy), and, once the cause is gone, that nothing was lost.
//! Which test proves which item stands in `docs/architecture.md`.

mod data;
mod files;
mod plugins;
mod sites;
mod state;

use std::time::Duration;

use pipeline_tests::{Process, Scene, Site, wait_for};

const T0: i64 = 1_780_000_000_000;
/// How long anything may take that must happen.
const SOON: Duration = Duration::from_secs(60);

/// Keys that let a test end soon where a person would rather wait.
const IMPATIENT: &str = "checkpoint-interval = \"100ms\"\nretry-delay-min = \"20ms\"\nretry-delay-max = \"200ms\"\n";

/// One pipeline that replicates `power`; `settings` are further keys of it, `source` and `sink` of its ends.
fn replica(name: &str, from: &str, to: &str, settings: &str, source: &str, sink: &str) -> String {
    format!(
        "[pipeline.{name}]\n{IMPATIENT}{settings}\n\
         source = {{ type = \"tdengine-tmq\", freshness = \"20ms\", dsn = \"{from}\", databases = [\"power\"]{source} }}\n\
         transform = {{ type = \"loop-mark\" }}\n\
         sink = {{ type = \"tdengine\", dsn = \"{to}\"{sink} }}\n"
    )
}

/// Two sites with an empty database `power` at each, and the file `a-to-b.toml` that replicates one way.
struct Two {
    scene: Scene,
    a: Site,
    b: Site,
    nodes: Vec<Process>,
}

impl Two {
    fn new() -> Self {
        let scene = Scene::new();
        let (a, first) = scene.node("a", "");
        let (b, second) = scene.node("b", "");
        for site in [&a, &b] {
            site.sql("create database power vgroups 1 wal_retention_period 3600");
        }
        let two = Self { scene, a, b, nodes: vec![first, second] };
        two.replicate("", "", "");
        two
    }

    /// Writes `a-to-b.toml` anew.
    fn replicate(&self, settings: &str, source: &str, sink: &str) {
        let text = replica("a-to-b", &self.a.dsn(), &self.b.dsn(), settings, source, sink);
        self.scene.write("a-to-b.toml", &text);
    }

    /// A table with `rows` rows more at the first site.
    fn fill(&self, table: &str, from: i64, rows: i64) {
        self.a.sql(&format!("create table if not exists power.`{table}` (ts timestamp, v int)"));
        let values: String = (from..from + rows).map(|row| format!(" ({}, {row})", T0 + row)).collect();
        self.a.sql(&format!("insert into power.`{table}` values{values}"));
    }

    /// Runs the file until all rows of `table` are at the second site, and ends it as a person would.
    fn replicates(&self, table: &str, rows: i64) {
        let mut run = self.scene.start(&["run", "a-to-b.toml"], "replicates.log");
        // The rows may be there already: what is not running yet dies of the signal.
        run.wait_for("lane placed", SOON).unwrap();
        wait_for_rows(&self.b, &format!("power.`{table}`"), rows, || run.output());
        run.signal("INT").unwrap();
        let status = run.wait(SOON).unwrap();
        assert!(status.success(), "{status}\n{}", run.output());
    }
}

/// Waits until a table holds exactly so many rows.
fn wait_for_rows(site: &Site, table: &str, rows: i64, log: impl Fn() -> String) {
    let found = || {
        let found = site.try_sql(&format!("select count(*) from {table}")).unwrap_or_else(|error| panic!("{error:#}"));
        found.map(|rows| rows.first().and_then(|row| row[0].as_i64()).unwrap_or_default())
    };
    wait_for(&format!("{rows} rows in {table}"), SOON, || found() == Ok(rows), || format!("{:?} of them\n{}", found(), log()));
}
