//! Transforms: fed, and what comes out compared with what went in.

use std::time::Instant;

use pipeline_sdk::{Mark, Message, Payload, Position, Reaction};

use super::sink::odd_messages;
use crate::bench::{Bench, Done, apply, barrier, failure, is_panic, texts};
use crate::feed::{self, GROWTH_MAX, MESSAGE_ROWS, ROWS, SchemaStep, WIDE_EVERY, WIDE_MESSAGES};
use crate::memory::{Held, resident, shown};
use crate::{Check, Outcome};


pub fn run(bench: &Bench) -> Done {
    match bench.job.check {
        Check::Order => order(bench),
        Check::EndOfStream => end_of_stream(bench),
        Check::Cancel => cancel(bench),
        Check::Reconnect | Check::CommitAfterDurable | Check::DuplicatesAfterKill | Check::BadPosition => {
            Ok(Outcome::not_applicable("a transform has no connection and keeps nothing"))
        }
        Check::BackPressure => back_pressure(bench),
        Check::Panic => panic(bench),
        Check::Hang => hang(bench),
        Check::Leak => leak(bench),
        Check::Batches => batches(bench),
        Check::ArrowTypes => super::types::of_transform(bench),
        Check::SchemaChange => schema_change(bench),
        Check::TwoInstances => two_instances(bench),
        Check::Description | Check::BadConfig | Check::AbiOlder | Check::AbiNewer => unreachable!("the same for all kinds"),
    }
}

fn fed(bench: &Bench, transform: &mut dyn pipeline_sdk::Transform, lane: &str, from: u64, to: u64) -> Result<Vec<Message>, Outcome> {
    let messages = feed::messages(lane, from, to, MESSAGE_ROWS);
    let mut out = apply(transform, messages).map_err(|error| failure("apply", &error))?;
    out.extend(barrier(transform)?);
    check_rows(bench, &out)?;
    Ok(out)
}

/// Numbers of a lane's tokens in what came out; a transform that upper-cases or cuts texts still keeps the numbers' order by position.
fn numbers(bench: &Bench, messages: &[Message], lane: &str) -> Vec<u64> {
    let text: Vec<u8> = messages.iter().flat_map(|message| texts(&bench.library, "", message)).collect();
    feed::tokens(&text.to_ascii_lowercase(), lane)
}

/// What came out is whole: columns of one length, runs within the batch.
pub fn check_rows(_: &Bench, messages: &[Message]) -> Result<(), Outcome> {
    for message in messages {
        if let Payload::Rows(rows) = &message.payload {
            super::types::check_batch(rows).map_err(|reason| Outcome::failed(format!("position {}", message.header.position), reason))?;
        }
    }
    Ok(())
}

fn order(bench: &Bench) -> Done {
    let mut transform = bench.transform(&bench.host("a"))?;
    let out = fed(bench, &mut *transform, "a", 0, ROWS)?;
    let found = numbers(bench, &out, "a");
    if let Some(pair) = found.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(Outcome::failed(feed::token("a", pair[1]), format!("came out behind row {}", pair[0])));
    }
    if let Some(pair) = found.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Outcome::failed(feed::token("a", pair[1]), "came out twice"));
    }
    let positions: Vec<i64> = out.iter().filter_map(|message| message.header.position.number).collect();
    if let Some(pair) = positions.windows(2).find(|pair| pair[0] > pair[1]) {
        return Err(Outcome::failed(format!("position {}", pair[1]), format!("came out behind position {}", pair[0])));
    }
    if let Some(message) = out.iter().find(|message| message.header.lane.as_str() != "a") {
        return Err(Outcome::failed("lane", format!("a message of lane a came out in lane {}", message.header.lane)));
    }
    let rows: u64 = out.iter().map(Message::row_count).sum();
    marks(bench)?;
    Ok(Outcome::passed(format!("{ROWS} rows in, {rows} out, in order")))
}

/// What a replica wrote comes out as that, or not at all: it would loop.
fn marks(bench: &Bench) -> Result<(), Outcome> {
    let mut transform = bench.transform(&bench.host("marks"))?;
    let mut messages = feed::messages("a", 0, ROWS, MESSAGE_ROWS);
    messages.iter_mut().for_each(|message| message.header.mark = Mark::Replicated { site: None });
    let mut out = apply(&mut *transform, messages).map_err(|error| failure("apply", &error))?;
    out.extend(barrier(&mut *transform)?);
    match out.iter().find(|message| message.header.mark == Mark::Local) {
        Some(message) => Err(Outcome::failed(format!("position {}", message.header.position), "what a replica wrote came out as if a user had")),
        None => Ok(()),
    }
}

fn end_of_stream(bench: &Bench) -> Done {
    let mut transform = bench.transform(&bench.host("a"))?;
    barrier(&mut *transform)?;
    fed(bench, &mut *transform, "a", 0, ROWS)?;
    let more = barrier(&mut *transform)?;
    match more.iter().map(Message::row_count).sum::<u64>() {
        0 => Ok(Outcome::passed("a barrier brings out what is held, a second one nothing")),
        rows => Err(Outcome::failed("a second barrier", format!("brought out {rows} rows that the first held back"))),
    }
}

fn cancel(bench: &Bench) -> Done {
    bench.destroy(bench.transform(&bench.host("a"))?)?;
    let mut transform = bench.transform(&bench.host("b"))?;
    apply(&mut *transform, feed::messages("a", 0, ROWS, MESSAGE_ROWS)).map_err(|error| failure("apply", &error))?;
    bench.destroy(transform)?;
    Ok(Outcome::passed("destroyed when made, and with what it held"))
}

fn back_pressure(bench: &Bench) -> Done {
    let mut transform = bench.transform(&bench.host("a"))?;
    let (mut before, mut most) = (0, 0);
    for index in 0..WIDE_MESSAGES {
        let wide = feed::wide_message("a", index);
        drop(apply(&mut *transform, vec![wide]).map_err(|error| failure("apply", &error))?);
        if (index + 1) % WIDE_EVERY == 0 {
            drop(barrier(&mut *transform)?);
            if index + 1 == WIDE_EVERY { before = resident() } else { most = most.max(resident() - before) }
        }
    }
    if most > GROWTH_MAX {
        let reason = format!("memory grew by {} over {WIDE_MESSAGES} messages of a MiB, a barrier every {WIDE_EVERY}", shown(most));
        return Err(Outcome::failed("apply", reason));
    }
    Ok(Outcome::passed(format!("memory grew by {} over {WIDE_MESSAGES} MiB", shown(most.max(0)))))
}

fn panic(bench: &Bench) -> Done {
    let format = bench.description.frames.first().map(String::as_str).or(bench.description.any_frame.then_some("no-such-format"));
    let odd = odd_messages(format);
    let count = odd.len();
    for (place, message) in odd {
        let mut transform = bench.transform(&bench.host(place))?;
        if let Err(error) = apply(&mut *transform, vec![message]) && is_panic(&error) {
            return Err(failure(place, &error));
        }
        barrier(&mut *transform).map_err(|outcome| Outcome { place: format!("barrier behind {place}"), ..outcome })?;
        bench.destroy(transform)?;
    }
    Ok(Outcome::passed(format!("{count} odd messages")))
}

fn hang(bench: &Bench) -> Done {
    let mut transform = bench.transform(&bench.host("a"))?;
    let begin = Instant::now();
    for message in feed::messages("a", 0, ROWS, 1) {
        let call = Instant::now();
        apply(&mut *transform, vec![message]).map_err(|error| failure("apply", &error))?;
        barrier(&mut *transform)?;
        if call.elapsed() > bench.limit() {
            return Err(Outcome::failed("apply", format!("did not return within {:?}", bench.limit())));
        }
    }
    Ok(Outcome::passed(format!("{ROWS} messages in {:?}", begin.elapsed())))
}

fn leak(bench: &Bench) -> Done {
    super::types::repeat(bench, |round| {
        let (host, held) = (bench.host("round"), Held::default());
        let mut transform = bench.transform(&host)?;
        drop(apply(&mut *transform, vec![feed::counted("a", round, round + 3, &held)]).map_err(|error| failure("apply", &error))?);
        drop(barrier(&mut *transform)?);
        bench.destroy(transform)?;
        super::types::given_back(&host, round)?;
        super::types::released(&held, round)
    })
}

fn batches(bench: &Bench) -> Done {
    let mut transform = bench.transform(&bench.host("a"))?;
    for (place, from, to) in [("a batch without rows", 0, 0), ("a batch of one row", 0, 1), ("a batch of 100,000 rows", 1, 100_001)] {
        let out = apply(&mut *transform, vec![feed::message("a", to, feed::batch("a", from, to))]);
        let mut out = out.map_err(|error| failure(place, &error))?;
        out.extend(barrier(&mut *transform)?);
        check_rows(bench, &out)?;
    }
    // A slice: its columns have an offset.
    let sliced = feed::batch("a", 0, 100).slice(50, 20);
    let out = apply(&mut *transform, vec![feed::message("a", 70, sliced)]).map_err(|error| failure("a slice of a batch", &error))?;
    check_rows(bench, &out)?;
    let found = numbers(bench, &out, "a");
    match found.iter().find(|number| !(50..70).contains(*number)) {
        Some(number) => Err(Outcome::failed("a slice of a batch", format!("row {number} came out, which is not in it: offsets are left out of account"))),
        None => Ok(Outcome::passed("batches of 0, 1 and 100,000 rows, and a slice")),
    }
}

fn schema_change(bench: &Bench) -> Done {
    let mut transform = bench.transform(&bench.host("a"))?;
    let mut refused = Vec::new();
    for (index, how) in [SchemaStep::Same, SchemaStep::More, SchemaStep::Less, SchemaStep::OtherType, SchemaStep::Same].into_iter().enumerate() {
        let (from, to) = (index as u64 * 5, index as u64 * 5 + 5);
        let mut message = feed::message("a", to, feed::changed("a", from, to, how));
        message.header.position = Position::from_number(to as i64);
        match apply(&mut *transform, vec![message]) {
            Ok(out) => check_rows(bench, &out)?,
            Err(error) if error.reaction == Reaction::Rejected || matches!(how, SchemaStep::Less | SchemaStep::OtherType) && !is_panic(&error) => {
                refused.push(format!("{how:?}: {error}"));
            }
            Err(error) => return Err(failure(format!("schema {how:?}, the {index}. change"), &error)),
        }
    }
    let out = barrier(&mut *transform)?;
    check_rows(bench, &out)?;
    let text = if refused.is_empty() { "all taken".to_owned() } else { format!("refused {}", refused.join(", ")) };
    Ok(Outcome::passed(format!("a column more, one less, another type: {text}")))
}

fn two_instances(bench: &Bench) -> Done {
    let alone = {
        let mut transform = bench.transform(&bench.host("alone"))?;
        numbers(bench, &fed(bench, &mut *transform, "a", 0, ROWS)?, "a")
    };
    let (mut first, mut second) = (bench.transform(&bench.host("a"))?, bench.transform(&bench.host("b"))?);
    let (mut from_first, mut from_second) = (Vec::new(), Vec::new());
    for at in (0..ROWS).step_by(MESSAGE_ROWS as usize) {
        let end = (at + MESSAGE_ROWS).min(ROWS);
        let one = apply(&mut *first, feed::messages("a", at, end, MESSAGE_ROWS)).map_err(|error| failure("apply of the first", &error))?;
        let two = apply(&mut *second, feed::messages("b", at, end, MESSAGE_ROWS)).map_err(|error| failure("apply of the second", &error))?;
        from_first.extend(one);
        from_second.extend(two);
    }
    from_first.extend(barrier(&mut *first)?);
    bench.destroy(first)?;
    from_second.extend(barrier(&mut *second)?);
    for (name, messages, lane) in [("first", &from_first, "a"), ("second", &from_second, "b")] {
        let found = numbers(bench, messages, lane);
        if found.len() != alone.len() {
            let reason = format!("gave {} rows beside another one, {} alone", found.len(), alone.len());
            return Err(Outcome::failed(format!("the {name} instance"), reason));
        }
    }
    if !numbers(bench, &from_first, "b").is_empty() || !numbers(bench, &from_second, "a").is_empty() {
        return Err(Outcome::failed("two instances", "rows of one came out of the other"));
    }
    Ok(Outcome::passed("the same side by side as alone"))
}
