//! The sink: batches to transactions, and which rows the server refuses.

use std::ops::Range;

use bytes::Bytes;
use futures_util::SinkExt;
use pipeline_sdk::{Connected, Context, Error, Message, Payload, Reaction, Result, Rows, Sink, async_trait};
use tokio_postgres::{Client, CopyInSink};

use crate::config::{Mode, Nanoseconds, PostgresSinkConfig};
use crate::connection::{connect, place};
use crate::encode::{Encoded, Options, Refused, column};
use crate::error::{from_postgres, is_same_reason, tells_of_another_table};
use crate::table::{Plan, plan, shown};

/// Schemas of batches whose statements are kept; what comes and goes between more is looked up again.
const PLANS_MAX: usize = 16;
/// Names of a connection at the server are cut behind so many bytes.
const NAME_BYTES_MAX: usize = 60;

pub struct Postgres {
    config: PostgresSinkConfig,
    context: Context,
    place: String,
    client: Option<Client>,
    plans: Vec<Plan>,
    plans_made: u64,
}

/// What happened to a group of messages.
enum Failed {
    /// Nothing of it is there.
    Server(tokio_postgres::Error),
    /// So many messages of it are there; the next one cannot be written.
    Message(usize, Error),
}

impl Postgres {
    /// # Errors
    /// `url` is none.
    pub fn new(config: PostgresSinkConfig, context: Context) -> Result<Self> {
        let place = place(&config.server()?);
        Ok(Self { config, context, place, client: None, plans: Vec::new(), plans_made: 0 })
    }

    fn client(&self) -> Result<&Client> {
        let connected = self.client.as_ref().filter(|client| !client.is_closed());
        connected.ok_or_else(|| Error::disconnected(format!("{}: not connected", self.place)).code("postgres.connection"))
    }

    /// The statements for the batch's columns; whether they were known.
    async fn planned(&mut self, rows: &Rows) -> Result<(usize, bool)> {
        let schema = rows.batch.schema_ref();
        if let Some(index) = self.plans.iter().position(|plan| plan.schema == *schema) {
            return Ok((index, true));
        }
        if self.plans.len() == PLANS_MAX {
            self.forget().await?;
        }
        self.plans_made += 1;
        let made = plan(self.client()?, &self.config, schema, self.plans_made).await;
        self.plans.push(made.map_err(|error| error.context(&self.place))?);
        Ok((self.plans.len() - 1, false))
    }

    /// Looks at the table again next time.
    async fn forget(&mut self) -> Result<()> {
        self.plans.clear();
        self.client()?.batch_execute("DISCARD TEMP").await.map_err(|error| from_postgres(&error))
    }

    fn encoded(&self, rows: &Rows, plan: &Plan, first_row: usize) -> Result<Encoded> {
        let options = Options { cut_nanoseconds: self.config.nanoseconds == Nanoseconds::Cut };
        let batch = &rows.batch;
        let is_upsert = self.config.mode == Mode::Upsert;
        let mut columns = Vec::with_capacity(batch.num_columns());
        for (index, field) in batch.schema_ref().fields().iter().enumerate() {
            let refused = |Refused { reason, rows }: Refused| {
                let at = rows.first().map_or_else(String::new, |row| format!("row {row}: "));
                let text = format!("{at}column `{}` ({}) of {}: {reason}", field.name(), plan.types[index], shown(&self.config));
                let error = Error::rejected(text).code("postgres.value").hint("cast it with `select`, or change the column's type");
                Error { rows, ..error }
            };
            let values = batch.column(index);
            if is_upsert && self.config.key.contains(field.name()) && values.logical_null_count() > 0 {
                let rows = (0..batch.num_rows()).filter(|row| values.logical_nulls().is_some_and(|nulls| nulls.is_null(*row)));
                return Err(refused(Refused { reason: "a part of the key is NULL".into(), rows: rows.map(|row| row as u64).collect() }));
            }
            columns.push(column(values, plan.kinds[index], options).map_err(refused)?);
        }
        Ok(Encoded::new(&columns, batch.num_rows(), is_upsert.then_some(first_row)))
    }

    /// Writes messages of one schema in one transaction.
    async fn write_group(&mut self, group: &[&Rows]) -> std::result::Result<(), Failed> {
        let (plan, was_known) = self.planned(group[0]).await.map_err(|error| Failed::Message(0, error))?;
        let (mut encoded, mut wrong, mut first_row) = (Vec::with_capacity(group.len()), None, 0);
        for rows in group {
            match self.encoded(rows, &self.plans[plan], first_row) {
                Ok(rows) => {
                    first_row += rows.count();
                    encoded.push(rows);
                }
                Err(error) => {
                    wrong = Some(error);
                    break;
                }
            }
        }
        if !encoded.is_empty() {
            let client = self.client().map_err(|error| Failed::Message(0, error))?;
            let parts: Vec<(&Encoded, Range<usize>)> = encoded.iter().map(|rows| (rows, 0..rows.count())).collect();
            let written = write_transaction(client, &self.plans[plan], &parts).await;
            if let Err(error) = written {
                if was_known && tells_of_another_table(&error) {
                    // It was altered or made anew since it was looked at.
                    self.forget().await.map_err(|error| Failed::Message(0, error))?;
                    return Box::pin(self.write_group(group)).await;
                }
                return Err(Failed::Server(error));
            }
            self.context.count("transactions", 1);
        }
        wrong.map_or(Ok(()), |error| Err(Failed::Message(encoded.len(), error)))
    }

    /// Writes messages of one schema; how many are there.
    async fn write_alike(&mut self, group: &[&Rows]) -> (usize, Result<()>) {
        match self.write_group(group).await {
            Ok(()) => (group.len(), Ok(())),
            Err(Failed::Message(done, error)) => (done, Err(error)),
            Err(Failed::Server(error)) => {
                let reaction = from_postgres(&error).reaction;
                if reaction != Reaction::Rejected {
                    return (0, Err(from_postgres(&error).context(&self.place)));
                }
                if group.len() == 1 {
                    return (0, Err(self.refused(group[0], &error).await));
                }
                // Each alone tells which one is refused.
                for (done, rows) in group.iter().enumerate() {
                    if let (_, Err(error)) = Box::pin(self.write_alike(std::slice::from_ref(rows))).await {
                        return (done, Err(error));
                    }
                }
                (group.len(), Ok(()))
            }
        }
    }

    /// The error of a message that the server refuses, with the rows that it refuses for one reason.
    async fn refused(&mut self, rows: &Rows, error: &tokio_postgres::Error) -> Error {
        let found = match self.planned(rows).await {
            Ok((plan, _)) => match (self.encoded(rows, &self.plans[plan], 0), self.client()) {
                (Ok(encoded), Ok(client)) => {
                    let found = find_refused(client, &self.plans[plan], &encoded, self.config.rejected_rows_max as usize).await;
                    // The transaction is not wanted, whatever became of it.
                    let _ = client.batch_execute("ROLLBACK").await;
                    found
                }
                (Err(error), _) | (_, Err(error)) => return error,
            },
            Err(error) => return error,
        };
        match found {
            Err(error) => from_postgres(&error).context(&self.place),
            Ok(found) => {
                let reason = found.first().map_or(error, |(_, error)| error);
                let rows: Vec<u64> = found.iter().filter(|(_, error)| is_same_reason(reason, error)).map(|(row, _)| *row as u64).collect();
                let at = rows.first().map_or_else(String::new, |row| format!("row {row}: "));
                let error = from_postgres(reason).context(format!("{at}{}", shown(&self.config)));
                Error { rows, ..error }
            }
        }
    }
}

/// Each part is there, or none.
async fn write_transaction(client: &Client, plan: &Plan, parts: &[(&Encoded, Range<usize>)]) -> std::result::Result<(), tokio_postgres::Error> {
    let Some(merge) = &plan.merge else { return copy(client, plan, parts).await };
    let written = async {
        client.batch_execute("BEGIN").await?;
        copy(client, plan, parts).await?;
        client.batch_execute(&format!("{}; COMMIT", merge.statement)).await
    };
    let result = written.await;
    if result.is_err() {
        // The first error is the one that tells; where the connection is gone there is nothing to roll back.
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result
}

async fn copy(client: &Client, plan: &Plan, parts: &[(&Encoded, Range<usize>)]) -> std::result::Result<(), tokio_postgres::Error> {
    let sink: CopyInSink<Bytes> = client.copy_in(&plan.copy).await?;
    let mut sink = std::pin::pin!(sink);
    for piece in Encoded::copy(parts) {
        // The server's error comes with the end.
        if sink.feed(piece).await.is_err() {
            break;
        }
    }
    sink.finish().await.map(drop)
}

/// Rows that the server refuses, at most so many, each with its error. The transaction that this leaves is to be rolled back.
async fn find_refused(
    client: &Client,
    plan: &Plan,
    encoded: &Encoded,
    most: usize,
) -> std::result::Result<Vec<(usize, tokio_postgres::Error)>, tokio_postgres::Error> {
    // What is checked at the end of a transaction is checked now.
    client.batch_execute("BEGIN; SET CONSTRAINTS ALL IMMEDIATE").await?;
    let mut found = Vec::new();
    let mut ranges = vec![0..encoded.count()];
    while let Some(range) = ranges.pop() {
        client.batch_execute("SAVEPOINT rows").await?;
        let mut written = copy(client, plan, &[(encoded, range.clone())]).await;
        if let (Ok(()), Some(merge)) = (&written, &plan.merge) {
            written = client.batch_execute(&format!("{}; DELETE FROM {}", merge.statement, merge.waiting)).await;
        }
        match written {
            Ok(()) => client.batch_execute("RELEASE SAVEPOINT rows").await?,
            Err(error) if from_postgres(&error).reaction == Reaction::Rejected => {
                client.batch_execute("ROLLBACK TO SAVEPOINT rows; RELEASE SAVEPOINT rows").await?;
                if range.len() == 1 {
                    found.push((range.start, error));
                    if found.len() >= most {
                        break;
                    }
                } else {
                    // The first half is tried first: a row may be refused because of one before it.
                    let middle = range.start + range.len() / 2;
                    ranges.push(middle..range.end);
                    ranges.push(range.start..middle);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

#[async_trait]
impl Sink for Postgres {
    async fn connect(&mut self) -> Result<Connected> {
        self.client = None;
        self.plans.clear();
        let place = &self.context.place;
        let mut name = format!("pipeline {} {}", place.pipeline, place.component);
        name.retain(|sign| sign.is_ascii_graphic() || sign == ' ');
        name.truncate(NAME_BYTES_MAX);
        self.client = Some(connect(&self.config, &name).await?);
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        self.write_many(std::slice::from_ref(message)).await.1
    }

    /// Everything is committed when `write` returns.
    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }

    async fn write_many(&mut self, messages: &[Message]) -> (usize, Result<()>) {
        let mut done = 0;
        while done < messages.len() {
            let Payload::Rows(first) = &messages[done].payload else {
                // A table tells what was, not what is.
                self.context.count("changes_left_out", 1);
                done += 1;
                continue;
            };
            if first.batch.num_rows() == 0 || first.batch.num_columns() == 0 {
                done += 1;
                continue;
            }
            let alike = messages[done..].iter().map_while(|message| match &message.payload {
                Payload::Rows(rows) if rows.batch.num_rows() > 0 && rows.batch.schema_ref() == first.batch.schema_ref() => Some(rows),
                _ => None,
            });
            let group: Vec<&Rows> = alike.collect();
            let (written, result) = self.write_alike(&group).await;
            done += written;
            if result.is_err() {
                return (done, result);
            }
        }
        (done, Ok(()))
    }
}
