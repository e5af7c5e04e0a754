//! Sinks: written to as the engine does, and looked at where they write.

use std::time::Duration;

use pipeline_sdk::{Change, ChangeKind, Frame, Header, Lane, Message, Payload, Position, Reaction, Rows, Run};
use serde_json::Value as Json;

use crate::bench::{Bench, Done, OnSink, failure, is_panic};
use crate::feed::{self, GROWTH_MAX, MESSAGE_ROWS, ROWS, SchemaStep, WIDE_EVERY, WIDE_MESSAGES};
use crate::memory::{Held, resident, shown};
use crate::observe::{Seen, look};
use crate::settings::in_folder;
use crate::{Check, Outcome, child};

/// Behind the kill: replayed from here, written up to there before it.
const FLUSHED: u64 = 28;
const WRITTEN: u64 = 42;

pub fn run(bench: &Bench) -> Done {
    match bench.job.check {
        Check::Order => order(bench),
        Check::EndOfStream => end_of_stream(bench),
        Check::Cancel => cancel(bench),
        Check::Reconnect => reconnect(bench),
        Check::CommitAfterDurable => durable(bench),
        Check::DuplicatesAfterKill => duplicates(bench),
        Check::BackPressure => back_pressure(bench),
        Check::Panic => panic(bench),
        Check::BadPosition => Ok(Outcome::not_applicable("positions are the source's")),
        Check::Hang => hang(bench),
        Check::Leak => leak(bench),
        Check::Batches => batches(bench),
        Check::ArrowTypes => super::types::of_sink(bench),
        Check::SchemaChange => schema_change(bench),
        Check::TwoInstances => two_instances(bench),
        Check::Description | Check::BadConfig | Check::AbiOlder | Check::AbiNewer => unreachable!("the same for all kinds"),
    }
}

pub fn connected<'a>(bench: &'a Bench, lane: &str) -> Result<OnSink<'a>, Outcome> {
    let mut sink = bench.sink(lane)?;
    sink.connect()?;
    Ok(sink)
}

/// With `keys` in place of the configuration's own.
pub fn merged(config: &Json, keys: &Json) -> Json {
    let mut merged = config.as_object().cloned().unwrap_or_default();
    merged.extend(keys.as_object().cloned().unwrap_or_default());
    Json::Object(merged)
}

fn blind() -> Outcome {
    Outcome::not_applicable("nothing to look at: say where its rows are found again with `observe` in `[kit.sink.TYPE]`")
}

/// What is found of a lane, whatever part it is in.
fn found(bench: &Bench, lane: &str) -> Result<(Vec<u64>, Seen), Outcome> {
    let seen = look(bench)?;
    let mut numbers = seen.tokens(lane).concat();
    numbers.sort_unstable();
    Ok((numbers, seen))
}

/// Everything of `0..end` is there; how much is there more than once.
fn check_all(bench: &Bench, lane: &str, end: u64, when: &str) -> Result<usize, Outcome> {
    let (mut numbers, seen) = found(bench, lane)?;
    if !seen.has_tokens() && bench.job.setup.kit.observe.is_none() {
        return Err(blind());
    }
    let all = numbers.len();
    numbers.dedup();
    match (0..end).find(|number| numbers.binary_search(number).is_err()) {
        Some(number) => {
            let reason = format!("row {number} of {end} is not in {} {when}; {} are", seen.place, numbers.len());
            Err(Outcome::failed(feed::token(lane, number), reason))
        }
        None => Ok(all - numbers.len()),
    }
}

fn order(bench: &Bench) -> Done {
    let mut sink = connected(bench, "a")?;
    sink.write(&feed::messages("a", 0, ROWS, MESSAGE_ROWS))?;
    sink.flush()?;
    sink.destroy()?;
    let twice = check_all(bench, "a", ROWS, "after a flush")?;
    if twice > 0 {
        return Err(Outcome::failed("after a flush", format!("{twice} rows are there twice, without a replay")));
    }
    for part in look(bench)?.tokens("a") {
        if let Some(pair) = part.windows(2).find(|pair| pair[0] > pair[1]) {
            return Err(Outcome::failed(feed::token("a", pair[1]), format!("stands behind row {}", pair[0])));
        }
    }
    Ok(Outcome::passed(format!("{ROWS} rows in their order")))
}

fn end_of_stream(bench: &Bench) -> Done {
    let mut sink = connected(bench, "a")?;
    sink.flush()?;
    sink.write(&[])?;
    sink.flush()?;
    sink.write(&feed::messages("a", 0, ROWS, MESSAGE_ROWS))?;
    sink.flush()?;
    sink.flush()?;
    sink.destroy()?;
    match check_all(bench, "a", ROWS, "at the end") {
        Ok(0) => Ok(Outcome::passed("flushed with nothing to flush, and all is there at the end")),
        Ok(twice) => Err(Outcome::failed("a second flush", format!("{twice} rows are there twice"))),
        Err(outcome) if outcome.verdict == crate::Verdict::NotApplicable => Ok(Outcome::passed("flushed with nothing to flush")),
        Err(outcome) => Err(outcome),
    }
}

fn cancel(bench: &Bench) -> Done {
    bench.sink("a")?.destroy()?;
    connected(bench, "b")?.destroy()?;
    let mut sink = connected(bench, "c")?;
    sink.write(&feed::messages("c", 0, ROWS, MESSAGE_ROWS))?;
    sink.destroy()?;
    Ok(Outcome::passed("destroyed when made, when connected, with rows that were not flushed"))
}

fn reconnect(bench: &Bench) -> Done {
    let mut sink = connected(bench, "a")?;
    sink.write(&feed::messages("a", 0, ROWS / 2, MESSAGE_ROWS))?;
    sink.flush()?;
    sink.connect()?;
    sink.write(&feed::messages("a", ROWS / 2, ROWS, MESSAGE_ROWS))?;
    sink.flush()?;
    sink.destroy()?;
    let twice = check_all(bench, "a", ROWS, "after connecting again")?;
    Ok(Outcome::passed(format!("connected again amid {ROWS} rows, {twice} twice")))
}

fn durable(bench: &Bench) -> Done {
    if !bench.job.is_after_kill {
        let mut sink = connected(bench, "a")?;
        sink.write(&feed::messages("a", 0, FLUSHED, MESSAGE_ROWS))?;
        sink.flush()?;
        return Ok(child::ask_for_kill(bench));
    }
    let kept = check_all(bench, "a", FLUSHED, "after a flush and kill -9");
    if let Err(outcome) = &kept
        && outcome.verdict == crate::Verdict::NotApplicable
    {
        // Either it cannot be seen what this sink writes, or it wrote nothing: one that ends in peace tells which.
        let mut sink = connected(bench, "b")?;
        sink.write(&feed::messages("b", 0, FLUSHED, MESSAGE_ROWS))?;
        sink.flush()?;
        sink.destroy()?;
    }
    if kept.is_err() {
        check_all(bench, "a", FLUSHED, "after a flush and kill -9")?;
    }
    Ok(Outcome::passed(format!("{FLUSHED} flushed rows are there after kill -9")))
}

fn duplicates(bench: &Bench) -> Done {
    if !bench.job.is_after_kill {
        let mut sink = connected(bench, "a")?;
        sink.write(&feed::messages("a", 0, FLUSHED, MESSAGE_ROWS))?;
        sink.flush()?;
        sink.write(&feed::messages("a", FLUSHED, WRITTEN, MESSAGE_ROWS))?;
        return Ok(child::ask_for_kill(bench));
    }
    let mut sink = connected(bench, "a")?;
    let mut replay = feed::messages("a", FLUSHED, ROWS, MESSAGE_ROWS);
    for message in replay.iter_mut().filter(|message| message.header.sequence <= WRITTEN) {
        message.header.replayed = true;
    }
    sink.write(&replay)?;
    sink.flush()?;
    sink.destroy()?;
    match check_all(bench, "a", ROWS, "after kill -9 and a replay")? {
        0 => Ok(Outcome::passed("nothing missing, nothing twice")),
        twice => Ok(Outcome::passed(format!("nothing missing, {twice} of {} replayed rows twice: at least once", WRITTEN - FLUSHED))),
    }
}

fn back_pressure(bench: &Bench) -> Done {
    let mut sink = connected(bench, "a")?;
    let mut before = 0;
    let mut most = 0;
    for index in 0..WIDE_MESSAGES {
        sink.write(&[feed::wide_message("a", index)])?;
        if (index + 1) % WIDE_EVERY == 0 {
            sink.flush()?;
            // The first round warms up.
            if index + 1 == WIDE_EVERY { before = resident() } else { most = most.max(resident() - before) }
        }
    }
    sink.destroy()?;
    if most > GROWTH_MAX {
        let reason = format!("memory grew by {} over {WIDE_MESSAGES} messages of a MiB, flushed every {WIDE_EVERY}", shown(most));
        return Err(Outcome::failed("write", reason));
    }
    Ok(Outcome::passed(format!("memory grew by {} over {WIDE_MESSAGES} MiB", shown(most.max(0)))))
}

/// Messages that no good source makes, and that must lead to an error at most.
pub fn odd_messages(takes_frames: Option<&str>) -> Vec<(&'static str, Message)> {
    let header = |lane: &str| Header { lane: Lane::new(lane), ..Header::new(Lane::new("a"), Position::from_number(1)) };
    let rows = |batch, runs| Payload::Rows(Rows { batch, runs });
    let run = |first_row, table: &str| Run { first_row, namespace: "kit".into(), table: table.into(), ..Run::default() };
    let some = || feed::batch("a", 0, 3);
    let no_columns = arrow::array::RecordBatch::new_empty(std::sync::Arc::new(arrow::datatypes::Schema::empty()));
    let change = |kind| Payload::Change(Change {
        kind,
        identity: String::new(),
        namespace: "kit".into(),
        group: None,
        tables: vec!["rows".into()],
        detail: serde_json::json!({ "odd": [null, 1e300, {}] }),
        raw: None,
    });
    let mut odd = vec![
        ("rows without columns", Message { header: header("a"), payload: rows(no_columns, vec![run(0, "rows")]) }),
        ("rows without runs", Message { header: header("a"), payload: rows(some(), Vec::new()) }),
        ("a table without a name", Message { header: header("a"), payload: rows(some(), vec![run(0, "")]) }),
        ("a table of signs", Message { header: header("a"), payload: rows(some(), vec![run(0, "../Ø\n\"'`;\0")]) }),
        ("a lane of signs", Message { header: header("../Ø\n\"'`;"), payload: rows(some(), vec![run(0, "rows")]) }),
        ("a run behind the batch", Message { header: header("a"), payload: rows(some(), vec![run(0, "rows"), run(99, "more")]) }),
        ("a created table", Message { header: header("a"), payload: change(ChangeKind::CreateTable) }),
        ("a dropped group", Message { header: header("a"), payload: change(ChangeKind::DropGroup) }),
        ("a deleted range", Message { header: header("a"), payload: change(ChangeKind::Delete) }),
    ];
    if let Some(format) = takes_frames {
        let frame = Frame { format: format.into(), data: vec![0xff; 30].into(), namespace: "kit".into(), rows: 1, tables: 1 };
        odd.push(("a frame of odd bytes", Message { header: header("a"), payload: Payload::Frame(frame) }));
    }
    odd
}

fn panic(bench: &Bench) -> Done {
    let format = bench.description.frames.first().map(String::as_str).or(bench.description.any_frame.then_some("no-such-format"));
    let odd = odd_messages(format);
    let count = odd.len();
    for (place, message) in odd {
        let mut sink = connected(bench, "a")?;
        let (_, written) = sink.try_write(&[message])?;
        let flushed = sink.try_flush()?;
        if let Some(error) = [written, flushed].into_iter().filter_map(Result::err).find(is_panic) {
            return Err(failure(place, &error));
        }
        sink.destroy()?;
    }
    let mut early = bench.sink("early")?;
    let (_, written) = early.try_write(&feed::messages("early", 0, 3, 3))?;
    let flushed = early.try_flush()?;
    early.destroy()?;
    match [written, flushed].into_iter().filter_map(Result::err).find(is_panic) {
        Some(error) => Err(failure("write before connect", &error)),
        None => Ok(Outcome::passed(format!("{count} odd messages, calls before connect"))),
    }
}

fn hang(bench: &Bench) -> Done {
    let mut sink = connected(bench, "a")?;
    for message in feed::messages("a", 0, ROWS, MESSAGE_ROWS) {
        sink.write(&[message])?;
        sink.flush()?;
    }
    sink.destroy()?;
    let Some(unreachable) = &bench.job.setup.kit.unreachable else {
        return Ok(Outcome::passed("every call returned in time"));
    };
    let config = merged(&bench.config()?, &in_folder(unreachable, &bench.job.work()));
    let mut sink = bench.sink_with(&config, "a", &bench.host("unreachable"))?;
    match sink.try_connect()? {
        Ok(()) => Err(Outcome::failed("connect where nothing answers", "said that it is connected")),
        Err(error) => Ok(Outcome::passed(format!("every call returned in time; where nothing answers: {error}"))),
    }
}

fn leak(bench: &Bench) -> Done {
    super::types::repeat(bench, |round| {
        let (host, held) = (bench.host("round"), Held::default());
        let mut sink = bench.sink_with(&bench.config()?, "a", &host)?;
        sink.connect()?;
        sink.write(&[feed::counted("a", round, round + 3, &held)])?;
        sink.flush()?;
        sink.destroy()?;
        super::types::given_back(&host, round)?;
        super::types::released(&held, round)
    })
}

fn batches(bench: &Bench) -> Done {
    let mut sink = connected(bench, "a")?;
    let empty = feed::message("a", 0, feed::batch("a", 0, 0));
    sink.write(std::slice::from_ref(&empty)).map_err(|outcome| Outcome { place: "a batch without rows".into(), ..outcome })?;
    sink.write(&[feed::message("a", 1, feed::batch("a", 0, 1))])?;
    sink.write(&[empty])?;
    let many = 50_000;
    sink.write(&[feed::message("a", many, feed::batch("a", 1, many))]).map_err(|outcome| Outcome { place: "a batch of 49,999 rows".into(), ..outcome })?;
    sink.flush()?;
    sink.destroy()?;
    match check_all(bench, "a", many, "after batches of 0, 1 and 49,999 rows") {
        Ok(_) => Ok(Outcome::passed("batches of 0, 1 and 49,999 rows, all found")),
        Err(outcome) if outcome.verdict == crate::Verdict::NotApplicable => Ok(Outcome::passed("batches of 0, 1 and 49,999 rows")),
        Err(outcome) => Err(outcome),
    }
}

fn schema_change(bench: &Bench) -> Done {
    let mut sink = connected(bench, "a")?;
    let mut rejected = Vec::new();
    let mut expected = Vec::new();
    for (index, how) in [SchemaStep::Same, SchemaStep::More, SchemaStep::Less, SchemaStep::OtherType, SchemaStep::Same].into_iter().enumerate() {
        let (from, to) = (index as u64 * 5, index as u64 * 5 + 5);
        let written = sink.try_write_one(&feed::message("a", to, feed::changed("a", from, to, how)))?;
        match written.and(sink.try_flush()?) {
            Ok(()) => expected.extend(from..to),
            Err(error) if error.reaction == Reaction::Rejected => rejected.push(format!("{how:?}")),
            Err(error) => return Err(failure(format!("schema {how:?}, the {index}. change"), &error)),
        }
    }
    sink.destroy()?;
    let (numbers, seen) = found(bench, "a")?;
    if !numbers.is_empty()
        && let Some(number) = expected.iter().find(|number| numbers.binary_search(number).is_err())
    {
        return Err(Outcome::failed(feed::token("a", *number), format!("was written without an error and is not in {}", seen.place)));
    }
    let text = if rejected.is_empty() { "all taken".to_owned() } else { format!("rejected: {}", rejected.join(", ")) };
    Ok(Outcome::passed(format!("a column more, one less, another type: {text}")))
}

fn two_instances(bench: &Bench) -> Done {
    let (mut first, mut second) = (connected(bench, "a")?, bench.sink("b")?);
    if let Err(error) = second.try_connect()? {
        return if is_panic(&error) { Err(failure("connect of the second", &error)) } else { Ok(Outcome::passed(format!("the second is refused: {error}"))) };
    }
    for at in (0..ROWS).step_by(MESSAGE_ROWS as usize) {
        let end = (at + MESSAGE_ROWS).min(ROWS);
        first.write(&feed::messages("a", at, end, MESSAGE_ROWS))?;
        second.write(&feed::messages("b", at, end, MESSAGE_ROWS))?;
        first.flush()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    second.flush()?;
    first.destroy()?;
    second.destroy()?;
    for lane in ["a", "b"] {
        match check_all(bench, lane, ROWS, "after two instances wrote side by side") {
            Err(outcome) if outcome.verdict == crate::Verdict::NotApplicable => return Ok(Outcome::passed("wrote side by side")),
            other => drop(other?),
        }
    }
    Ok(Outcome::passed("wrote side by side, both are there whole"))
}
