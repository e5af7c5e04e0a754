//! A client that writes without end: each row until it is acknowledged, so that a row is lost only if a site loses it.

use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pipeline_tests::{Client, Pair, Writer};

const T0: usize = 1_790_000_000_000;
/// The first number of a client's rows in `voltage`; those of bound rows are below.
pub const FIRST: usize = 1000;
/// Between two writes, and before one is tried again.
const PACE: Duration = Duration::from_millis(10);
const AGAIN: Duration = Duration::from_millis(100);

/// A client's thread. Its requests: writes by each way the client has in turn, and a count of its own rows behind each round.
pub struct Load {
    pub name: String,
    shared: Arc<Shared>,
    questions: Sender<String>,
    answers: Receiver<String>,
    thread: JoinHandle<Record>,
}

#[derive(Default)]
struct Shared {
    written: AtomicUsize,
    paused: AtomicBool,
    stopped: AtomicBool,
    /// The last error, for a person.
    error: Mutex<String>,
}

/// When a site was killed. On a real pair it takes a moment, in which it may still take rows.
pub struct Kill {
    pub begun: Instant,
    pub done: Instant,
}

/// What a client did.
pub struct Record {
    pub name: String,
    /// When each write was acknowledged, in order.
    acknowledged: Vec<Instant>,
    /// Number and time of each row written by SQL.
    pub numbers: Vec<(usize, Instant)>,
    bound: usize,
    lines: usize,
    /// When a count was answered.
    read: Vec<Instant>,
    errors: Vec<String>,
}

impl Load {
    pub fn start(client: &Client, writer: Writer) -> Self {
        let shared = Arc::new(Shared::default());
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        let (name, actions, own) = (client.name.clone(), client.actions.clone(), shared.clone());
        let thread = std::thread::spawn(move || {
            let mut record = Record::new(name);
            if let Err(error) = work(writer, &actions, &own, &mut record, &asked, &answer) {
                *own.error.lock().expect("no thread panics with it") = format!("{error:#}");
            }
            record
        });
        Self { name: client.name.clone(), shared, questions, answers, thread }
    }

    pub fn written(&self) -> usize {
        self.shared.written.load(Ordering::Relaxed)
    }

    pub fn wait_for(&self, count: usize, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        while self.written() < count {
            if Instant::now() > deadline || self.thread.is_finished() {
                let error = self.shared.error.lock().expect("no thread panics with it").clone();
                bail!("{}: {} of {count} writes within {within:?}; last error: {error}", self.name, self.written());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its connection leads to the cluster with this id.
    pub fn is_at(&self, cluster: i64) -> Result<()> {
        self.questions.send("count select id from information_schema.ins_cluster".to_owned())?;
        let answer = self.answers.recv().with_context(|| self.name.clone())?;
        if answer != format!("ok {cluster}") {
            bail!("{} is not at the site {cluster}: {answer}", self.name);
        }
        Ok(())
    }

    pub fn pause(&self) {
        self.shared.paused.store(true, Ordering::Relaxed);
    }

    pub fn resume(&self) {
        self.shared.paused.store(false, Ordering::Relaxed);
    }

    pub fn stop(self) -> Record {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.thread.join().expect("a client's thread does not panic")
    }
}

fn work(
    mut writer: Writer,
    actions: &[String],
    shared: &Shared,
    record: &mut Record,
    questions: &Receiver<String>,
    answers: &Sender<String>,
) -> Result<()> {
    writer.wait_until_ready()?;
    let name = record.name.replace('-', "_");
    let mut number = 0;
    while !shared.stopped.load(Ordering::Relaxed) {
        for question in questions.try_iter() {
            answers.send(record.until_ok(&mut writer, &question, shared)?)?;
        }
        if shared.paused.load(Ordering::Relaxed) {
            std::thread::sleep(PACE);
            continue;
        }
        let (action, time) = (actions[number % actions.len()].as_str(), T0 + 2 * number);
        let request = match action {
            "sql" => format!(
                "sql insert into {name} using meters (place, grp) tags ('{name}', 1) (ts, current, voltage) values ({time}, 1.5, {})",
                FIRST + number
            ),
            "line" => format!("line lines,client={name} value=1.5 {time}"),
            bound => format!("{bound} {name}_bound 2 {time}"),
        };
        record.until_ok(&mut writer, &request, shared)?;
        let now = Instant::now();
        record.acknowledged.push(now);
        match action {
            "sql" => record.numbers.push((FIRST + number, now)),
            "line" => record.lines += 1,
            _ => record.bound += 2,
        }
        number += 1;
        shared.written.store(number, Ordering::Relaxed);
        if number % 10 == 0 {
            record.until_ok(&mut writer, &format!("count select count(*) from {name}"), shared)?;
            record.read.push(Instant::now());
        }
        std::thread::sleep(PACE);
    }
    Ok(())
}

impl Record {
    fn new(name: String) -> Self {
        let (acknowledged, numbers, read, errors) = Default::default();
        Self { name, acknowledged, numbers, bound: 0, lines: 0, read, errors }
    }

    /// Asks as an application does: the same again after an error, which leaves open whether it was done.
    fn until_ok(&mut self, writer: &mut Writer, request: &str, shared: &Shared) -> Result<String> {
        loop {
            let answer = writer.ask(request)?;
            if answer.starts_with("ok") {
                return Ok(answer);
            }
            if shared.stopped.load(Ordering::Relaxed) {
                bail!("{answer}");
            }
            *shared.error.lock().expect("no thread panics with it") = answer.clone();
            self.errors.push(answer);
            std::thread::sleep(AGAIN);
        }
    }

    /// Both sites hold exactly what was acknowledged.
    pub fn hold(&self, pair: &Pair, database: &str) -> Result<()> {
        let name = self.name.replace('-', "_");
        let tables = [
            (self.numbers.len(), name.clone(), String::new()),
            (self.bound, format!("{name}_bound"), String::new()),
            (self.lines, "lines".to_owned(), format!(" where client = '{name}'")),
        ];
        for (count, table, condition) in tables.iter().filter(|(count, ..)| *count > 0) {
            for site in [&pair.a, &pair.b] {
                let found = &site.sql_in(database, &format!("select count(*) from {table}{condition}"))[0][0];
                if found.as_u64() != Some(*count as u64) {
                    bail!("{}: {table}{condition}: {found} rows, {count} were acknowledged", site.address);
                }
            }
        }
        Ok(())
    }

    /// Rows by SQL that A may hold although B's clients saw nothing of it: those that were acknowledged while it was being killed, and the
    /// first one after that, which may be in the logs of both sites.
    pub fn boundary(&self, killed: &Kill) -> RangeInclusive<usize> {
        let first_after = |moment: Instant| self.numbers.iter().find(|(_, at)| *at > moment).map_or(usize::MAX, |(number, _)| *number);
        first_after(killed.begun)..=first_after(killed.done)
    }

    pub fn summary(&self, kill: &Kill) -> String {
        let killed = kill.begun;
        let after = |of: &[Instant]| of.iter().filter(|at| **at > killed).count();
        let spans = self.acknowledged.windows(2).filter(|pair| pair[1] > killed).map(|pair| pair[1] - pair[0]);
        // The first pause that is longer than a slow machine makes them; there is another one on the way back.
        let gap = spans.take(30).max().unwrap_or_default();
        format!(
            "{}: {} writes, {} of them after the kill with {} reads; {} errors; gap {:.1} s; first error: {}",
            self.name,
            self.acknowledged.len(),
            after(&self.acknowledged),
            after(&self.read),
            self.errors.len(),
            gap.as_secs_f32(),
            self.errors.first().map_or("-", String::as_str),
        )
    }
}
