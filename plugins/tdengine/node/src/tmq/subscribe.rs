//! The arguments of `subscribe`: every spelling that clients use, and what older and newer servers make of them
//! (PROTOCOL 6.2, FACTS F4, F45).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use tdengine_store::ServerVersion;
use tdengine_wire::envelope::{Scalar, Subscribe};

use crate::error::Fail;

/// Where a lane without a committed offset begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reset {
    Earliest,
    Latest,
    None,
}

/// How a consumer wants its messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub group: String,
    pub client: String,
    pub topics: Vec<String>,
    pub reset: Reset,
    /// How often to commit what was handed out; never when `None`.
    pub auto_commit: Option<Duration>,
    pub with_table_name: bool,
    /// Leave marked entries out.
    pub excluded: bool,
    pub batch_meta: bool,
    /// Rows after which a message ends; the node's own limit when `None`.
    pub rows_min: Option<usize>,
    pub poll_interval_max: Duration,
}

/// What a subscription comes to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Subscription {
    Ready(Options),
    /// The real server never answers this one.
    Hangs,
    /// It never answers, and the consumer that it made stays for good (FACTS F45).
    HangsForGood(Options),
}

const CLIENT_NAME: &str = "client.id";
const EXCLUDED: &str = "msg.consume.excluded";
const BATCH_META: &str = "msg.enable.batchmeta";
const SNAPSHOT: &str = "experimental.snapshot.enable";
const TABLE_NAME: &str = "msg.with.table.name";
const RAW_DATA: &str = "msg.consume.rawdata";
const SESSION_TIMEOUT: &str = "session.timeout.ms";
const POLL_INTERVAL: &str = "max.poll.interval.ms";
const POLL_ROWS: &str = "min.poll.rows";

/// Keys that the engine of 3.3.6 knows beside `td.connect.*` (PROTOCOL 6.2).
const KEYS: [&str; 17] = [
    "group.id", CLIENT_NAME, "enable.auto.commit", "auto.commit.interval.ms", "auto.offset.reset", TABLE_NAME, SNAPSHOT,
    "enable.replay", EXCLUDED, BATCH_META, SESSION_TIMEOUT, "heartbeat.interval.ms", POLL_INTERVAL, "fetch.max.wait.ms",
    POLL_ROWS, RAW_DATA, "enable.wal.marker",
];
/// Of those, the switches and the numbers that have no effect here; a bad value is refused all the same.
const SWITCHES: [&str; 3] = ["enable.replay", RAW_DATA, "enable.wal.marker"];
const NUMBERS: [&str; 2] = ["heartbeat.interval.ms", "fetch.max.wait.ms"];
/// What `session.timeout.ms` may be.
const SESSION_TIMEOUT_MS: RangeInclusive<u64> = 6_000..=1_800_000;

impl Subscription {
    /// Reads the arguments as a server of `version` does.
    ///
    /// # Errors
    /// With the code and text of that server.
    pub fn read(subscribe: &Subscribe, version: ServerVersion) -> Result<Self, Fail> {
        if version.has_stmt2() { modern(subscribe) } else { legacy(subscribe, version) }
    }
}

/// Engine 3.3.0.1 behind adapter 3.3.2.3: `config` is ignored, only the string "1" excludes. Older ones stand behind an adapter
/// of their own age, which takes the request for exclusion and ignores it (FACTS F5).
fn legacy(subscribe: &Subscribe, version: ServerVersion) -> Result<Subscription, Fail> {
    if subscribe.enable_batch_meta.is_some() && !version.has_batch_meta() {
        return Err(Fail::new(0xfffe, "Unknown error 65534"));
    }
    if subscribe.msg_consume_excluded.as_ref().is_some_and(Scalar::is_number) || subscribe.topics.is_empty() {
        return Ok(Subscription::Hangs);
    }
    if subscribe.group_id.is_empty() {
        return Err(Fail::protocol("new consumer return nil"));
    }
    let text = |scalar: &Option<Scalar>| scalar.as_ref().map(|scalar| scalar.as_text().to_owned());
    let excluded = text(&subscribe.msg_consume_excluded).and_then(|text| text.parse::<i64>().ok());
    let options = Options {
        group: subscribe.group_id.clone(),
        client: text(&subscribe.client_id).unwrap_or_default(),
        topics: subscribe.topics.clone(),
        reset: reset(subscribe.reset().map(Scalar::as_text)).ok_or_else(|| Fail::protocol("fail"))?,
        auto_commit: auto_commit(text(&subscribe.auto_commit), text(&subscribe.auto_commit_interval_ms))
            .ok_or_else(|| Fail::protocol("fail"))?,
        with_table_name: text(&subscribe.with_table_name).as_deref() != Some("false"),
        excluded: version >= ServerVersion::V3_3_0_1 && excluded.is_some_and(|number| number != 0),
        batch_meta: subscribe.enable_batch_meta.as_ref().is_some_and(|scalar| truth(scalar.as_text()) == Some(true)),
        rows_min: None,
        poll_interval_max: POLL_INTERVAL_MAX,
    };
    match options.group.contains(':') {
        true => Ok(Subscription::HangsForGood(options)),
        false => Ok(Subscription::Ready(options)),
    }
}

/// 3.3.6: keys of `config` win over the fields, unknown keys and bad values are refused with 0x0118.
fn modern(subscribe: &Subscribe) -> Result<Subscription, Fail> {
    let keys = keys(subscribe)?;
    let get = |key: &str| keys.get(key).map(String::as_str).filter(|text| !text.is_empty());
    let bad = |key: &str| invalid(key, get(key).unwrap_or_default());
    let flag = |key: &str, default: bool| match get(key) {
        None => Ok(default),
        Some(text) => truth(text).ok_or_else(|| bad(key)),
    };
    let number = |key: &str| match get(key) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| bad(key)),
    };
    let group = get("group.id").unwrap_or_default().to_owned();
    if group.is_empty() || group.len() > NAME_BYTES_MAX || group.contains(':') {
        return Err(bad("group.id"));
    }
    if subscribe.topics.is_empty() {
        return Err(Fail::new(0x0118, "Invalid parameters: no topic given"));
    }
    if number(SESSION_TIMEOUT)?.is_some_and(|timeout| !SESSION_TIMEOUT_MS.contains(&timeout)) {
        return Err(bad(SESSION_TIMEOUT));
    }
    SWITCHES.iter().try_for_each(|key| flag(key, false).map(drop))?;
    NUMBERS.iter().try_for_each(|key| number(key).map(drop))?;
    let interval = keys.get("auto.commit.interval.ms").cloned();
    let commits = keys.get("enable.auto.commit").cloned();
    let options = Options {
        group,
        client: get(CLIENT_NAME).unwrap_or_default().to_owned(),
        topics: subscribe.topics.clone(),
        reset: reset(get("auto.offset.reset")).ok_or_else(|| bad("auto.offset.reset"))?,
        auto_commit: auto_commit(commits, interval).ok_or_else(|| bad("auto.commit.interval.ms"))?,
        with_table_name: flag(TABLE_NAME, true)?,
        excluded: flag(EXCLUDED, false)?,
        batch_meta: flag(BATCH_META, false)?,
        rows_min: number(POLL_ROWS)?.map(|rows| rows.max(1) as usize),
        poll_interval_max: number(POLL_INTERVAL)?.map_or(POLL_INTERVAL_MAX, Duration::from_millis),
    };
    if flag(SNAPSHOT, false)? {
        tracing::info!(group = options.group, "snapshots are not kept by this node: the consumer starts with the log");
    }
    Ok(Subscription::Ready(options))
}

/// Longest name of a group or topic (PROTOCOL 13.1).
const NAME_BYTES_MAX: usize = 192;

/// `max.poll.interval.ms` when nothing else is said.
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(300_000);

/// `auto.commit.interval.ms` when nothing else is said.
const AUTO_COMMIT_INTERVAL_MS: u64 = 5_000;

/// The fields under the names of the engine's keys, overridden by `config`.
fn keys(subscribe: &Subscribe) -> Result<BTreeMap<String, String>, Fail> {
    let fields = [
        (CLIENT_NAME, subscribe.client_id.as_ref()),
        ("auto.offset.reset", subscribe.reset()),
        ("enable.auto.commit", subscribe.auto_commit.as_ref()),
        ("auto.commit.interval.ms", subscribe.auto_commit_interval_ms.as_ref()),
        (SNAPSHOT, subscribe.snapshot_enable.as_ref()),
        (TABLE_NAME, subscribe.with_table_name.as_ref()),
        (BATCH_META, subscribe.enable_batch_meta.as_ref()),
        (EXCLUDED, subscribe.msg_consume_excluded.as_ref()),
        (RAW_DATA, subscribe.msg_consume_rawdata.as_ref()),
        (SESSION_TIMEOUT, subscribe.session_timeout_ms.as_ref()),
        (POLL_INTERVAL, subscribe.max_poll_interval_ms.as_ref()),
    ];
    let given = fields.iter().filter_map(|(key, value)| Some(((*key).to_owned(), value.as_ref()?.as_text().to_owned())));
    let mut keys: BTreeMap<String, String> = given.collect();
    keys.insert("group.id".into(), subscribe.group_id.clone());
    for (key, value) in subscribe.config.iter().flatten() {
        if key.starts_with("td.connect.") {
            continue;
        }
        if !KEYS.contains(&key.as_str()) {
            return Err(Fail::new(0x0118, format!("unknown configuration key: {key}")));
        }
        keys.insert(key.clone(), value.as_text().to_owned());
    }
    Ok(keys)
}

fn invalid(key: &str, value: &str) -> Fail {
    Fail::new(0x0118, format!("invalid value for {key}: {value:?}"))
}

fn truth(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        number => number.parse::<i64>().ok().map(|number| number != 0),
    }
}

/// The engine's default is `latest`.
fn reset(text: Option<&str>) -> Option<Reset> {
    match text {
        None | Some("" | "latest") => Some(Reset::Latest),
        Some("earliest") => Some(Reset::Earliest),
        Some("none") => Some(Reset::None),
        Some(_) => None,
    }
}

/// `Some(None)` is "never"; `None` a value that is no number.
fn auto_commit(enabled: Option<String>, interval_ms: Option<String>) -> Option<Option<Duration>> {
    let interval = match interval_ms.as_deref() {
        None | Some("") => AUTO_COMMIT_INTERVAL_MS,
        Some(text) => text.parse().ok()?,
    };
    let enabled = truth(enabled.as_deref().unwrap_or("true"))?;
    Some(enabled.then(|| Duration::from_millis(interval)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &str, version: &str) -> Result<Subscription, Fail> {
        let base = r#"{"user":"root","password":"x","group_id":"g","topics":["t"]"#;
        let text = if args.is_empty() { format!("{base}}}") } else { format!("{base},{args}}}") };
        // A key given twice: the later one wins in a map.
        let map: serde_json::Map<_, _> = serde_json::from_str(&text).unwrap();
        let subscribe = serde_json::from_value(map.into()).unwrap();
        Subscription::read(&subscribe, ServerVersion::parse(version).unwrap())
    }

    fn excluded(args: &str, version: &str) -> Option<bool> {
        match read(args, version).unwrap() {
            Subscription::Ready(options) => Some(options.excluded),
            Subscription::Hangs | Subscription::HangsForGood(_) => None,
        }
    }

    #[test]
    fn exclusion_as_each_version_understands_it() {
        let check = |args: &str, old, new| {
            assert_eq!(excluded(args, "3.3.0.1"), old, "3.3.0.1: {args}");
            assert_eq!(excluded(args, "3.3.6.13"), new, "3.3.6.13: {args}");
        };
        check("", Some(false), Some(false));
        check(r#""msg_consume_excluded":"1""#, Some(true), Some(true));
        check(r#""msg_consume_excluded":"2""#, Some(true), Some(true));
        check(r#""msg_consume_excluded":"true""#, Some(false), Some(true));
        check(r#""msg_consume_excluded":1"#, None, Some(true));
        check(r#""config":{"msg.consume.excluded":"1"}"#, Some(false), Some(true));
        check(r#""msg_consume_excluded":"1","config":{"msg.consume.excluded":"0"}"#, Some(true), Some(false));
        assert_eq!(excluded(r#""msg_consume_excluded":"1""#, "3.3.0.0"), Some(false), "an adapter too old for exclusion");
    }

    #[test]
    fn errors_as_each_version_words_them() {
        let check = |args: &str, version: &str, code: u32, text: &str| {
            let fail = read(args, version).unwrap_err();
            assert_eq!(fail.code, code, "{version} {args}");
            assert!(fail.message.contains(text), "{}", fail.message);
        };
        check(r#""enable_batch_meta":"1""#, "3.3.0.1", 0xfffe, "Unknown error 65534");
        check(r#""offset_rest":"bogus""#, "3.3.0.1", 0xffff, "fail");
        check(r#""group_id":"""#, "3.3.0.1", 0xffff, "new consumer return nil");
        check(r#""offset_reset":"bogus""#, "3.3.6.13", 0x118, "auto.offset.reset");
        check(r#""config":{"no.such.key":"1"}"#, "3.3.6.13", 0x118, "unknown configuration key: no.such.key");
        check(r#""session_timeout_ms":"5999""#, "3.3.6.13", 0x118, "session.timeout.ms");
        check(r#""config":{"session.timeout.ms":"1800001"}"#, "3.3.6.13", 0x118, "session.timeout.ms");
        check(r#""config":{"heartbeat.interval.ms":"soon"}"#, "3.3.6.13", 0x118, "heartbeat.interval.ms");
        check(r#""config":{"enable.replay":"perhaps"}"#, "3.3.6.13", 0x118, "enable.replay");
        check(r#""group_id":"a:b""#, "3.3.6.13", 0x118, "group.id");
        check(r#""topics":[]"#, "3.3.6.13", 0x118, "no topic");
        assert_eq!(read(r#""topics":[]"#, "3.3.0.1").unwrap(), Subscription::Hangs);
        assert!(matches!(read(r#""group_id":"a:b""#, "3.3.0.1").unwrap(), Subscription::HangsForGood(_)));
        assert!(matches!(read(r#""config":{"no.such.key":"1"}"#, "3.3.0.1").unwrap(), Subscription::Ready(_)));
    }

    #[test]
    fn both_spellings_of_the_reset_and_scalars_of_any_kind() {
        let check = |args: &str, reset: Reset, auto_commit: Option<u64>| {
            let Subscription::Ready(options) = read(args, "3.3.6.13").unwrap() else { panic!("hangs") };
            assert_eq!((options.reset, options.auto_commit), (reset, auto_commit.map(Duration::from_millis)), "{args}");
        };
        check(r#""offset_rest":"earliest","auto_commit":false"#, Reset::Earliest, None);
        check(r#""offset_reset":"none","auto_commit":"true","auto_commit_interval_ms":100"#, Reset::None, Some(100));
        check(r#""offset_rest":"latest","offset_reset":"earliest""#, Reset::Earliest, Some(5_000));
        check(r#""session_timeout_ms":6000,"config":{"td.connect.user":"x","fetch.max.wait.ms":500}"#, Reset::Latest, Some(5_000));
        check("", Reset::Latest, Some(5_000));
    }
}
