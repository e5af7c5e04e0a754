//! A user's own topic and group at B, read by a published client while the replica and, after the fail-over, the clients write there.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use pipeline_tests::{Client, Pair, Writer};

use crate::load::{FIRST, Record};

pub struct Subscription {
    rows: Receiver<Result<Vec<(String, usize)>>>,
}

impl Subscription {
    pub fn start(command: &str, pair: &Pair, database: &str) -> Result<Self> {
        let topic = format!("users_own_{database}");
        pair.b.sql(&format!(
            "create topic {topic} as select tbname, voltage from {database}.meters where voltage >= {FIRST}"
        ));
        let client = Client::parse(&format!("subscriber poll {command}"))?;
        let mut reader = Writer::start(&client, &pair.b.address, &topic, pair.folder.path())?;
        reader.wait_until_ready()?;
        let (sender, rows) = channel();
        // Ends with the receiver.
        std::thread::spawn(move || while sender.send(poll(&mut reader)).is_ok() {});
        Ok(Self { rows })
    }

    /// Waits until every row of every writer came; how many came. Rows that were acknowledged before the kill came by the replica, those
    /// after it from the clients themselves: each in the order of its writer.
    pub fn finish(self, records: &[Record], killed: Instant, within: Duration) -> Result<usize> {
        let expected: usize = records.iter().map(|record| record.numbers.len()).sum();
        let mut received: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        let (mut missing, mut count, deadline) = (expected, 0, Instant::now() + within);
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
        for record in records {
            let boundary = record.boundary(killed);
            let numbers = received.remove(&record.name.replace('-', "_")).unwrap_or_default();
            for side in [|number: usize, at: usize| number < at, |number: usize, at: usize| number > at] {
                let side: Vec<usize> = numbers.iter().copied().filter(|number| side(*number, boundary)).collect();
                if !side.is_sorted() {
                    bail!("rows of {} are not in order: {side:?}", record.name);
                }
            }
        }
        Ok(count)
    }
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
