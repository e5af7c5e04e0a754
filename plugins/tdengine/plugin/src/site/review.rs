//! What two sites' facts mean for a replica from the one to the other: what fits, what will be made, what to do first.

use std::collections::BTreeSet;

use pipeline_sdk::site::{Check, Verdict};
use tdengine_wire::escape::identifier;

use super::plan::{DEFINITIONS_MAX, DatabaseFacts, Facts};
use crate::metadata::version_numbers;

/// Versions from here on have what a replica needs.
const VERSION_MIN: (u32, u32) = (3, 3);
/// A log kept shorter than this loses what a replica that was stopped over night has not read.
const RETENTION_WARN_S: i64 = 86_400;
/// Clocks further apart are worth a word: rows that one site stamps `now` are late or early at the other.
const CLOCK_WARN_MS: i64 = 1_000;
/// Definitions that differ and are named one by one.
const DIFFERENCES_MAX: usize = 20;

/// Every check, the site's own first, then database by database.
pub fn review(source: &Facts, sink: &Facts) -> Vec<Check> {
    let mut checks = vec![cluster(source, sink), version(source, sink), clock(source, sink), topics(source, sink)];
    checks.push(permissions(source, sink, &source.databases.keys().collect::<Vec<_>>()));
    for (name, database) in &source.databases {
        checks.extend(database_checks(name, database, sink));
    }
    checks
}

/// A check that is made of texts as they come.
fn check(check: &str, database: &str, source: impl Into<String>, sink: impl Into<String>) -> Check {
    let (source, sink) = (source.into(), sink.into());
    Check { check: check.into(), database: database.into(), source, sink, verdict: Verdict::Ok, note: String::new() }
}

trait Judge {
    fn judge(self, verdict: Verdict, note: impl Into<String>) -> Self;
}

impl Judge for Check {
    /// The worst verdict stays; notes add up.
    fn judge(mut self, verdict: Verdict, note: impl Into<String>) -> Self {
        self.verdict = self.verdict.max(verdict);
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(&note.into());
        self
    }
}

fn cluster(source: &Facts, sink: &Facts) -> Check {
    let cluster = check("cluster", "", &source.identity, &sink.identity);
    match source.identity == sink.identity {
        true => cluster.judge(Verdict::Error, "both addresses lead to one cluster: a replica needs two"),
        false => cluster,
    }
}

fn version(source: &Facts, sink: &Facts) -> Check {
    let number = |facts: &Facts| {
        let [major, minor, _] = version_numbers(&facts.version);
        (major, minor)
    };
    let mut version = check("version", "", &source.version, &sink.version);
    if number(source) < VERSION_MIN || number(sink) < VERSION_MIN {
        version = version.judge(Verdict::Error, "a replica needs 3.3 or newer, with taosadapter 3.3.2.3 or newer: upgrade first");
    } else if number(source) != number(sink) {
        version = version.judge(Verdict::Warning, "versions differ: a column type that the older one lacks cannot be written there");
    }
    version
}

fn clock(source: &Facts, sink: &Facts) -> Check {
    let text = |facts: &Facts| {
        format!("{:+.1} s ± {:.1}", facts.clock_offset_ms as f64 / 1e3, facts.clock_error_ms as f64 / 1e3)
    };
    let apart = (source.clock_offset_ms - sink.clock_offset_ms).abs();
    let clock = check("clock", "", text(source), text(sink));
    match apart > CLOCK_WARN_MS + source.clock_error_ms + sink.clock_error_ms {
        true => clock.judge(Verdict::Warning, format!("{:.1} s apart: run NTP at both sites", apart as f64 / 1e3)),
        false => clock,
    }
}

/// Reading takes topics, and only the source is read.
fn topics(source: &Facts, sink: &Facts) -> Check {
    let text = |facts: &Facts| format!("{} of {}", facts.topics.len(), facts.topics_max);
    let missing: Vec<&str> = missing_topics(source).map(String::as_str).collect();
    let topics = check("topics", "", text(source), text(sink));
    if missing.is_empty() {
        return topics;
    }
    let needed = format!("{} more at the source: {}", missing.len(), missing.join(", "));
    if source.topics.len() + missing.len() > source.topics_max {
        return topics.judge(Verdict::Error, format!("{needed}: drop unused ones, or raise tmqMaxTopicNum there"));
    }
    topics.judge(Verdict::Create, needed)
}

fn missing_topics(facts: &Facts) -> impl Iterator<Item = &String> {
    facts.topics_needed.iter().filter(|topic| !facts.topics.contains(topic))
}

fn permissions(source: &Facts, sink: &Facts, databases: &[&String]) -> Check {
    let text = |facts: &Facts| match (facts.is_super, facts.rights.is_empty()) {
        (true, _) => format!("{}: all", facts.user),
        (false, true) => format!("{}: none told", facts.user),
        (false, false) => format!("{}: {}", facts.user, facts.rights.join(", ")),
    };
    let lacks = |facts: &Facts, right: &str| -> Vec<String> {
        let has = |database: &str| {
            [right, "all"].iter().any(|right| [database, "*"].iter().any(|of| facts.rights.contains(&format!("{right} {of}"))))
        };
        databases.iter().filter(|database| !facts.is_super && !has(database)).map(|it| it.to_string()).collect()
    };
    let mut permissions = check("permissions", "", text(source), text(sink));
    for (facts, right, place) in [(source, "read", "the source"), (sink, "write", "the sink")] {
        let lacking = lacks(facts, right);
        if !lacking.is_empty() {
            let note = format!("no `{right}` told at {place} on {}: grant {right} on them to {}", lacking.join(", "), facts.user);
            permissions = permissions.judge(Verdict::Warning, note);
        }
    }
    permissions
}

fn database_checks(name: &str, source: &DatabaseFacts, sink: &Facts) -> Vec<Check> {
    let Some(target) = sink.databases.get(name) else {
        let tables = format!("{} tables, {} vgroups", source.tables, source.vgroups);
        let note = "it is made with the source's options; what is older than the source's log is not copied";
        return vec![check("database", name, tables, "absent").judge(Verdict::Create, note), retention(name, source, None)];
    };
    vec![precision(name, source, target), keep(name, source, target), retention(name, source, Some(target)), schema(name, source, target)]
}

fn precision(name: &str, source: &DatabaseFacts, sink: &DatabaseFacts) -> Check {
    let precision = check("precision", name, &source.precision, &sink.precision);
    match source.precision == sink.precision {
        true => precision,
        false => precision.judge(Verdict::Error, "rows would get other times: make the database anew at one site with the other's PRECISION"),
    }
}

fn keep(name: &str, source: &DatabaseFacts, sink: &DatabaseFacts) -> Check {
    let text = |facts: &DatabaseFacts| match facts.keep_min {
        Some(minutes) if minutes % 1_440 == 0 => format!("{} d", minutes / 1_440),
        Some(minutes) => format!("{minutes} min"),
        None => "unknown".into(),
    };
    let keep = check("keep", name, text(source), text(sink));
    match (source.keep_min, sink.keep_min) {
        (Some(source), Some(sink)) if sink < source => {
            keep.judge(Verdict::Warning, "rows that the source still keeps are refused by the sink as too old: ALTER DATABASE … KEEP there")
        }
        (Some(source), Some(sink)) if sink > source => {
            keep.judge(Verdict::Warning, "the sink keeps rows longer: the sites differ in what is old")
        }
        _ => keep,
    }
}

/// The log of the source is what is read; the sink's is read by the other direction.
fn retention(name: &str, source: &DatabaseFacts, sink: Option<&DatabaseFacts>) -> Check {
    let text = |facts: &DatabaseFacts| match (facts.wal_level, facts.wal_retention_s) {
        (0, _) => "no log".into(),
        (_, seconds) if seconds < 0 => "for ever".into(),
        (_, seconds) => format!("{seconds} s"),
    };
    let retention = check("retention", name, text(source), sink.map_or_else(|| "-".into(), text));
    if source.wal_level == 0 {
        return retention.judge(Verdict::Error, "a database without a log cannot be read: ALTER DATABASE … WAL_LEVEL 1");
    }
    for (facts, place) in [(Some(source), "source"), (sink, "sink")] {
        let Some(seconds) = facts.map(|facts| facts.wal_retention_s).filter(|seconds| (0..RETENTION_WARN_S).contains(seconds)) else { continue };
        let (verdict, note) = match (seconds, place) {
            (0, "source") => (Verdict::Error, format!("a database whose log is not kept cannot be read: {}", keep_log(name, place))),
            (0, _) => (Verdict::Warning, format!("the other direction could not read it, as its log is not kept: {}", keep_log(name, place))),
            _ => (
                Verdict::Warning,
                format!("a replica that is away for more than {seconds} s misses what the {place} wrote (a hole): ALTER DATABASE … WAL_RETENTION_PERIOD"),
            ),
        };
        return retention.judge(verdict, note);
    }
    retention
}

fn keep_log(database: &str, place: &str) -> String {
    format!("ALTER DATABASE {} WAL_RETENTION_PERIOD {RETENTION_WARN_S} at the {place}", identifier(database))
}

fn schema(name: &str, source: &DatabaseFacts, sink: &DatabaseFacts) -> Check {
    let count = |facts: &DatabaseFacts| format!("{} tables, {} vgroups", facts.tables, facts.vgroups);
    let mut schema = check("schema", name, count(source), count(sink));
    let names: BTreeSet<&String> = source.definitions.keys().chain(sink.definitions.keys()).collect();
    let (mut differing, mut missing) = (Vec::new(), Vec::new());
    for table in names {
        match (source.definitions.get(table), sink.definitions.get(table)) {
            (Some(one), Some(other)) if one != other => differing.push(table.as_str()),
            (Some(_), None) => missing.push(table.as_str()),
            _ => {}
        }
    }
    if !differing.is_empty() {
        let note = format!("other columns or tags: {}; make them equal, else their rows may be refused", listed(&differing));
        schema = schema.judge(Verdict::Warning, note);
    }
    if !missing.is_empty() {
        let note = format!("only at the source: {}; made when the source's log still tells of it, else create it at the sink first", listed(&missing));
        schema = schema.judge(Verdict::Warning, note);
    }
    if source.definitions.len().max(sink.definitions.len()) >= DEFINITIONS_MAX {
        schema = schema.judge(Verdict::Ok, format!("only the first {DEFINITIONS_MAX} definitions were compared"));
    }
    schema
}

fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(DIFFERENCES_MAX)].join(", ");
    match names.len() - names.len().min(DIFFERENCES_MAX) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts(identity: &str) -> Facts {
        let database = DatabaseFacts {
            precision: "ms".into(),
            keep_min: Some(5_256_000),
            wal_level: 1,
            wal_retention_s: 172_800,
            vgroups: 2,
            tables: 3,
            definitions: [("meters".to_owned(), "columns (ts TIMESTAMP key)".to_owned())].into(),
        };
        Facts {
            address: format!("ws://{identity}:6041"),
            identity: identity.into(),
            version: "3.3.0.1".into(),
            user: "root".into(),
            is_super: true,
            topics: vec!["pipeline_power".into(), "pipeline_meta_power".into(), "pipeline_canary".into()],
            topics_max: 20,
            topics_needed: vec!["pipeline_power".into(), "pipeline_meta_power".into(), "pipeline_canary".into()],
            databases: [("power".to_owned(), database)].into(),
            ..Facts::default()
        }
    }

    /// What is not as it should be, after a change of either side.
    fn found(change: impl Fn(&mut Facts, &mut Facts)) -> Vec<(String, Verdict)> {
        let (mut source, mut sink) = (facts("1"), facts("2"));
        change(&mut source, &mut sink);
        let checks = review(&source, &sink).into_iter().filter(|check| check.verdict != Verdict::Ok);
        checks.map(|check| {
            assert!(!check.note.is_empty(), "{check:?}");
            (check.check, check.verdict)
        })
        .collect()
    }

    fn power(facts: &mut Facts) -> &mut DatabaseFacts {
        facts.databases.get_mut("power").unwrap()
    }

    #[test]
    fn every_difference_has_its_verdict() {
        assert_eq!(found(|_, _| {}), []);
        let check = |expect: &[(&str, Verdict)], change: &dyn Fn(&mut Facts, &mut Facts)| {
            let expect: Vec<_> = expect.iter().map(|(check, verdict)| ((*check).to_owned(), *verdict)).collect();
            assert_eq!(found(change), expect);
        };
        check(&[("cluster", Verdict::Error)], &|_, sink| sink.identity = "1".into());
        check(&[("version", Verdict::Error)], &|source, _| source.version = "3.2.9.9".into());
        check(&[("version", Verdict::Warning)], &|_, sink| sink.version = "3.4.1".into());
        check(&[("clock", Verdict::Warning)], &|source, _| source.clock_offset_ms = -2_500);
        check(&[], &|source, _| (source.clock_offset_ms, source.clock_error_ms) = (1_500, 600));
        check(&[("topics", Verdict::Create)], &|source, _| source.topics.clear());
        check(&[("topics", Verdict::Error)], &|source, _| {
            source.topics = (0..19).map(|number| format!("theirs_{number}")).collect();
        });
        check(&[("permissions", Verdict::Warning)], &|_, sink| (sink.is_super, sink.rights) = (false, vec!["read *".into()]));
        check(&[], &|source, sink| {
            (source.is_super, source.rights) = (false, vec!["read power".into()]);
            (sink.is_super, sink.rights) = (false, vec!["all *".into()]);
        });
        check(&[("database", Verdict::Create)], &|_, sink| sink.databases.clear());
        check(&[("precision", Verdict::Error)], &|source, _| power(source).precision = "us".into());
        check(&[("keep", Verdict::Warning)], &|_, sink| power(sink).keep_min = Some(1_440));
        check(&[("retention", Verdict::Error)], &|source, _| power(source).wal_level = 0);
        check(&[("retention", Verdict::Error)], &|source, _| power(source).wal_retention_s = 0);
        check(&[("retention", Verdict::Warning)], &|_, sink| power(sink).wal_retention_s = 0);
        check(&[("retention", Verdict::Warning)], &|source, _| power(source).wal_retention_s = 3_600);
        check(&[], &|source, _| power(source).wal_retention_s = -1);
        check(&[("schema", Verdict::Warning)], &|_, sink| power(sink).definitions.clear());
        check(&[("schema", Verdict::Warning)], &|source, _| {
            power(source).definitions.insert("meters".into(), "columns (ts TIMESTAMP key, v INT)".into());
        });
    }
}
