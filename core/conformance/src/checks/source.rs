//! Sources: read as the engine reads them.

use std::sync::atomic::Ordering;
use std::time::Duration;

use pipeline_sdk::{Checkpoint, Header, Lane, Message, Payload, Polled, Position};

use super::trace::Trace;
use crate::bench::{Bench, Done, OnSource, Read, checkpoint_behind, failure, is_panic};
use crate::memory::{resident, shown};
use crate::settings::in_folder;
use crate::{Check, Outcome, child};

/// How long nobody takes messages in `back-pressure`.
const PAUSE: Duration = Duration::from_millis(700);
/// What a source may fetch ahead, and what noise there is.
const GROWTH_MAX: i64 = 32 << 20;
/// Messages that are enough to compare.
const SOME: usize = 200;
const SHORT: Duration = Duration::from_millis(50);

pub fn run(bench: &Bench) -> Done {
    match bench.job.check {
        Check::Order => order(bench),
        Check::EndOfStream => end_of_stream(bench),
        Check::Cancel => cancel(bench),
        Check::Reconnect => reconnect(bench),
        Check::CommitAfterDurable => commit_after_durable(bench),
        Check::DuplicatesAfterKill => after_kill(bench),
        Check::BackPressure => back_pressure(bench),
        Check::Panic => panic(bench),
        Check::BadPosition => bad_position(bench),
        Check::Hang => hang(bench),
        Check::Leak => leak(bench),
        Check::Batches | Check::ArrowTypes => super::types::of_source(bench),
        Check::SchemaChange => Ok(Outcome::not_applicable("the kit cannot change what a source reads")),
        Check::TwoInstances => two_instances(bench),
        Check::Description | Check::BadConfig | Check::AbiOlder | Check::AbiNewer => unreachable!("the same for all kinds"),
    }
}

/// Reads from the start, with a fresh instance and a state of its own.
fn fresh(bench: &Bench, name: &str) -> Result<Trace, Outcome> {
    again(bench, name, 0)
}

/// The same where so many rows are known to be there.
fn again(bench: &Bench, name: &str, rows: u64) -> Result<Trace, Outcome> {
    let mut source = bench.source(name)?;
    source.connect(&Checkpoint::default())?;
    let read = source.read_expecting(SOME, rows)?;
    source.destroy()?;
    if read.messages.is_empty() {
        return Err(Outcome::not_applicable("the source gave nothing: give --config FILE with one that has something to read"));
    }
    Ok(Trace::of(&read))
}

/// Reads behind a checkpoint; `done` is what is before it.
fn read_rest(source: &mut OnSource<'_>, whole: &Trace, done: &Trace) -> Result<Trace, Outcome> {
    Ok(Trace::of(&source.read_expecting(SOME, whole.rows().saturating_sub(done.rows()))?))
}

/// Reads about half of what there is, and says the checkpoint behind it.
fn read_half(source: &mut OnSource<'_>, whole: &Trace) -> Result<(Checkpoint, Trace), Outcome> {
    let half = whole.half().ok_or_else(|| Outcome::not_applicable("the source gave a single message: give it more to read"))?;
    let mut read = Read::default();
    while read.messages.len() < half || checkpoint_behind(&read.messages).lanes.is_empty() {
        let more = source.read_expecting(1, 1)?;
        if more.messages.is_empty() {
            let reason = format!("{} of {} messages came again from the start, though nothing was committed", read.messages.len(), whole.steps.len());
            return Err(Outcome::failed("a second reading", reason));
        }
        read.messages.extend(more.messages);
    }
    let checkpoint = checkpoint_behind(&read.messages);
    Ok((checkpoint, Trace::of(&read).up_to_checkpoint()))
}

fn order(bench: &Bench) -> Done {
    let first = fresh(bench, "first")?;
    let second = again(bench, "second", first.rows())?;
    first.check_order()?;
    second.check_order()?;
    let alike = if first.is_like(&second) { "twice alike" } else { "the second time otherwise" };
    Ok(Outcome::passed(format!("{} messages, {} rows, {alike}", first.steps.len(), first.rows())))
}

fn end_of_stream(bench: &Bench) -> Done {
    let mut source = bench.source("a")?;
    source.connect(&Checkpoint::default())?;
    let read = source.read_all()?;
    if !read.ended {
        return Ok(Outcome::not_applicable("the source did not end while it was looked at: an endless one"));
    }
    for attempt in ["first", "second"] {
        match source.next(SHORT)? {
            Polled::End | Polled::Idle => {}
            other => return Err(Outcome::failed(format!("{attempt} next behind the end"), format!("gave {other:?}"))),
        }
    }
    source.connect(&checkpoint_behind(&read.messages))?;
    let rest = source.read_all()?;
    source.destroy()?;
    match rest.messages.first() {
        Some(message) => Err(Outcome::failed(format!("position {}", message.header.position), "came again behind the checkpoint of the end")),
        None if !rest.ended => Err(Outcome::failed("connect at the end", "gave no end any more")),
        None => Ok(Outcome::passed(format!("ended after {} messages, and again from its end", read.messages.len()))),
    }
}

fn cancel(bench: &Bench) -> Done {
    bench.source("made")?.destroy()?;
    let mut source = bench.source("connected")?;
    source.connect(&Checkpoint::default())?;
    source.destroy()?;
    let host = bench.host("cancelled");
    let mut source = bench.source_with(&bench.config()?, host.clone())?;
    source.connect(&Checkpoint::default())?;
    source.next(SHORT)?;
    let is_interruptible = source.try_interrupt()?;
    host.cancelled.store(true, Ordering::Relaxed);
    // An error is fine for one that is cancelled, a hang is not.
    let _ = source.try_next(SHORT)?;
    let _ = source.progress()?;
    source.destroy()?;
    let interrupted = if is_interruptible { "; a wait of an hour interrupted" } else { "" };
    Ok(Outcome::passed(format!("destroyed when made, when connected, amid its work{interrupted}")))
}

fn reconnect(bench: &Bench) -> Done {
    let whole = fresh(bench, "whole")?;
    let mut source = bench.source("again")?;
    source.connect(&Checkpoint::default())?;
    let (checkpoint, done) = read_half(&mut source, &whole)?;
    source.connect(&checkpoint)?;
    let rest = read_rest(&mut source, &whole, &done)?;
    source.destroy()?;
    whole.check_resumed(&done, &rest)?;
    Ok(Outcome::passed(format!("{} messages, and {} behind the checkpoint", done.steps.len(), rest.steps.len())))
}

fn commit_after_durable(bench: &Bench) -> Done {
    let whole = fresh(bench, "kept")?;
    // The same state: nothing was committed, so all must come again.
    let again = again(bench, "kept", whole.rows()).map_err(|_| Outcome::failed("connect", "nothing came any more though nothing was committed"))?;
    if whole.ended && again.ended && whole.rows() != again.rows() {
        let reason = format!("{} of {} rows came again though nothing was committed", again.rows(), whole.rows());
        return Err(Outcome::failed("a second reading", reason));
    }
    let mut source = bench.source("kept")?;
    source.connect(&Checkpoint::default())?;
    let (checkpoint, done) = read_half(&mut source, &whole)?;
    source.commit(&checkpoint)?;
    source.destroy()?;
    let mut source = bench.source("kept")?;
    source.connect(&checkpoint)?;
    let rest = read_rest(&mut source, &whole, &done)?;
    source.destroy()?;
    whole.check_resumed(&done, &rest)?;
    Ok(Outcome::passed("what was not committed came again, what was did not"))
}

fn after_kill(bench: &Bench) -> Done {
    let notes = bench.job.notes().join("trace.json");
    let kit = |error: std::io::Error| Outcome::failed("kit", error.to_string());
    if !bench.job.is_after_kill {
        let whole = fresh(bench, "whole")?;
        let mut source = bench.source("killed")?;
        source.connect(&Checkpoint::default())?;
        let (checkpoint, done) = read_half(&mut source, &whole)?;
        source.commit(&checkpoint)?;
        let text = serde_json::to_vec(&(&whole, &done, &checkpoint)).expect("plain data");
        std::fs::write(&notes, text).map_err(kit)?;
        source.read(1)?;
        return Ok(child::ask_for_kill(bench));
    }
    let noted = std::fs::read(&notes).map_err(kit)?;
    let (whole, done, checkpoint): (Trace, Trace, Checkpoint) = serde_json::from_slice(&noted).map_err(|error| kit(error.into()))?;
    let mut source = bench.source("killed")?;
    source.connect(&checkpoint)?;
    let rest = read_rest(&mut source, &whole, &done)?;
    source.destroy()?;
    whole.check_resumed(&done, &rest)?;
    Ok(Outcome::passed("nothing missing, nothing of before the checkpoint again"))
}

fn back_pressure(bench: &Bench) -> Done {
    let mut source = bench.source("a")?;
    source.connect(&Checkpoint::default())?;
    let mut read = source.read(1)?;
    let before = resident();
    std::thread::sleep(PAUSE);
    let grown = resident() - before;
    read.messages.extend(source.read(SOME)?.messages);
    source.destroy()?;
    if grown > GROWTH_MAX {
        return Err(Outcome::failed("nobody took messages", format!("memory grew by {} in {PAUSE:?}", shown(grown))));
    }
    Trace::of(&read).check_order()?;
    Ok(Outcome::passed(format!("memory grew by {} while nobody took messages", shown(grown.max(0)))))
}

/// Any error but a panic.
fn not_a_panic<T>(place: &str, result: Result<T, pipeline_sdk::Error>) -> Result<(), Outcome> {
    match result {
        Err(error) if is_panic(&error) => Err(failure(place, &error)),
        _ => Ok(()),
    }
}

fn panic(bench: &Bench) -> Done {
    let odd = [("a lane that is not there", "no such lane"), ("a lane without a name", ""), ("a lane of signs", "Ø/../\n\"'")];
    for (place, lane) in odd {
        let mut checkpoint = Checkpoint::default();
        checkpoint.lanes.insert(Lane::new(lane), Position::from_number(i64::MIN));
        let mut source = bench.source(place)?;
        not_a_panic(place, source.try_connect(&checkpoint)?)?;
        not_a_panic(place, source.try_next(Duration::ZERO)?)?;
        not_a_panic(place, source.try_commit(&checkpoint)?)?;
        not_a_panic(place, source.progress()?)?;
        source.destroy()?;
    }
    // Before it is connected.
    let mut source = bench.source("early")?;
    not_a_panic("next before connect", source.try_next(Duration::ZERO)?)?;
    not_a_panic("commit before connect", source.try_commit(&Checkpoint::default())?)?;
    source.destroy()?;
    let mut frames = 0;
    let formats = bench.description.frames.iter().map(String::as_str).chain(["no-such-format"]);
    for format in formats {
        for data in [&b""[..], b"\0", b"\xff\xff\xff\xff\xff\xff\xff\xff", &[0x7f; 300]] {
            let frame = pipeline_sdk::Frame { format: format.into(), data: data.to_vec().into(), namespace: "".into(), rows: 1, tables: 1 };
            let message = Message { header: Header::new(Lane::new("a"), Position::from_number(1)), payload: Payload::Frame(frame) };
            not_a_panic(&format!("decode of {} odd bytes as `{format}`", data.len()), bench.library.decode(&bench.job.component, message))?;
            frames += 1;
        }
    }
    Ok(Outcome::passed(format!("odd lanes, calls before connect, {frames} odd frames")))
}

fn bad_position(bench: &Bench) -> Done {
    let whole = fresh(bench, "whole")?;
    for (what, bytes) in [("3 bytes", vec![0xff; 3]), ("100 bytes", vec![0x7a; 100])] {
        let mut checkpoint = Checkpoint::default();
        checkpoint.lanes.insert(Lane::new(&whole.steps[0].lane), Position { bytes: bytes.into(), ..Position::default() });
        let mut source = bench.source(what)?;
        let place = format!("connect at a position of {what} that the source never made");
        let mut answer = source.try_connect(&checkpoint)?;
        if answer.is_ok() {
            answer = source.try_next(SHORT)?.map(drop);
        }
        source.destroy()?;
        match answer {
            Ok(()) => return Err(Outcome::failed(place, "was taken: it must be an error that says so")),
            other => not_a_panic(&place, other)?,
        }
    }
    Ok(Outcome::passed("refused"))
}

fn hang(bench: &Bench) -> Done {
    let mut source = bench.source("a")?;
    source.connect(&Checkpoint::default())?;
    for wait in [Duration::ZERO, Duration::ZERO, SHORT, SHORT, Duration::ZERO] {
        source.next(wait)?;
    }
    source.progress()?.map_err(|error| failure("progress", &error))?;
    source.commit(&Checkpoint::default())?;
    source.destroy()?;
    let Some(unreachable) = &bench.job.setup.kit.unreachable else {
        return Ok(Outcome::passed("every call returned in time"));
    };
    let config = super::sink::merged(&bench.config()?, &in_folder(unreachable, &bench.job.work()));
    let mut source = bench.source_with(&config, bench.host("unreachable"))?;
    match source.try_connect(&Checkpoint::default())? {
        Ok(()) => Err(Outcome::failed("connect where nothing answers", "said that it is connected")),
        Err(error) => Ok(Outcome::passed(format!("every call returned in time; where nothing answers: {error}"))),
    }
}

fn leak(bench: &Bench) -> Done {
    super::types::repeat(bench, |round| {
        let host = bench.host("round");
        let mut source = bench.source_with(&bench.config()?, host.clone())?;
        source.connect(&Checkpoint::default())?;
        source.next(Duration::ZERO)?;
        source.destroy()?;
        super::types::given_back(&host, round)
    })
}

fn two_instances(bench: &Bench) -> Done {
    let mut first = bench.source("first")?;
    let mut second = bench.source("second")?;
    first.connect(&Checkpoint::default())?;
    if let Err(error) = second.try_connect(&Checkpoint::default())? {
        let reason = format!("the second is refused: {error}");
        return if is_panic(&error) { Err(failure("connect of the second", &error)) } else { Ok(Outcome::passed(reason)) };
    }
    let mut reads = [Vec::new(), Vec::new()];
    for _ in 0..10 {
        reads[0].extend(first.read(1)?.messages);
        reads[1].extend(second.read(1)?.messages);
        if reads.iter().all(Vec::is_empty) {
            break;
        }
    }
    first.destroy()?;
    // The second goes on when the first is gone.
    reads[1].extend(second.read(1)?.messages);
    second.destroy()?;
    for messages in reads {
        Trace::of(&Read { messages, ..Read::default() }).check_order()?;
    }
    Ok(Outcome::passed("read side by side, and one after the other was gone"))
}
