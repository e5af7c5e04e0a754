//! A user's own topic and group at B, read by a published client while the replica and, after the fail-over, the clients write there.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pipeline_tests::{Client, Pair, Writer};

use crate::load::{FIRST, Kill, Record};

/// How long nothing may come from the log when it is read again.
const QUIET: Duration = Duration::from_secs(10);

pub struct Subscription {
    command: String,
    topic: String,
    address: String,
    rows: Receiver<Result<Vec<(String, usize)>>>,
}

/// Numbers of each table's rows, as they came.
type Received = BTreeMap<String, Vec<usize>>;

impl Subscription {
    pub fn start(command: &str, pair: &Pair, database: &str) -> Result<Self> {
        let topic = format!("users_own_{database}");
        pair.b.sql(&format!(
            "create topic {topic} as select tbname, voltage from {database}.meters where voltage >= {FIRST}"
        ));
        let (command, address) = (command.to_owned(), pair.b.address.clone());
        let mut reader = reader(&command, &address, &topic, pair.folder.path())?;
        let (sender, rows) = channel();
        // Ends with the receiver.
        std::thread::spawn(move || while sender.send(poll(&mut reader)).is_ok() {});
        Ok(Self { command, topic, address, rows })
    }

    /// Waits until every row of every writer came; how many came. Rows that were acknowledged before the kill came by the replica, those
    /// after it from the clients themselves: each in the order of its writer. What A took while it was being killed may come once it
    /// is back. A real server may hand out again what it handed out before: then another group must find the log itself in order.
    pub fn finish(self, records: &[Record], killed: &Kill, within: Duration, folder: &Path) -> Result<usize> {
        let expected: usize = records.iter().map(|record| record.numbers.len()).sum();
        let (mut received, mut missing, mut count, deadline) = (Received::new(), expected, 0, Instant::now() + within);
        while missing > 0 {
            for (table, number) in self.rows.recv().context("the subscriber ended")?? {
                let numbers = received.entry(table).or_default();
                if !numbers.contains(&number) {
                    missing -= 1;
                }
                numbers.push(number);
                count += 1;
            }
            if Instant::now() > deadline {
                bail!("{missing} of {expected} rows did not come within {within:?}");
            }
        }
        if let Err(error) = in_order(records, killed, &received) {
            in_order(records, killed, &self.read_again(folder)?).context("also when the log is read again by another group")?;
            println!("handed out again by the server, the log itself is in order: {error:#}");
        }
        Ok(count)
    }

    /// The whole log, by a group of its own.
    fn read_again(&self, folder: &Path) -> Result<Received> {
        let mut reader = reader(&self.command, &self.address, &format!("{} again", self.topic), folder)?;
        let (mut received, mut quiet_since) = (Received::new(), Instant::now());
        while quiet_since.elapsed() < QUIET {
            for (table, number) in poll(&mut reader)? {
                received.entry(table).or_default().push(number);
                quiet_since = Instant::now();
            }
        }
        Ok(received)
    }
}

fn in_order(records: &[Record], killed: &Kill, received: &Received) -> Result<()> {
    for record in records {
        let boundary = record.boundary(killed);
        let numbers = received.get(&record.name.replace('-', "_")).into_iter().flatten().copied();
        let (before, after): (Vec<usize>, Vec<usize>) =
            numbers.filter(|number| !boundary.contains(number)).partition(|number| number < boundary.start());
        for side in [before, after] {
            if !side.is_sorted() {
                let runs: Vec<_> = side.chunk_by(|one, other| one <= other).map(|run| (run[0], run[run.len() - 1])).collect();
                bail!("rows of {} are not in order, from and to: {runs:?}, killed at {boundary:?}", record.name);
            }
        }
    }
    Ok(())
}

fn reader(command: &str, address: &str, topic_and_group: &str, folder: &Path) -> Result<Writer> {
    let client = Client::parse(&format!("subscriber poll {command}"))?;
    let mut reader = Writer::start(&client, address, topic_and_group, folder)?;
    reader.wait_until_ready()?;
    Ok(reader)
}

fn poll(reader: &mut Writer) -> Result<Vec<(String, usize)>> {
    let answer = reader.ask("poll")?;
    let rows = answer.strip_prefix("ok").with_context(|| answer.clone())?.split_whitespace();
    rows.map(|row| {
        let (table, number) = row.split_once(',').with_context(|| row.to_owned())?;
        Ok((table.to_owned(), number.parse()?))
    })
    .collect()
}
