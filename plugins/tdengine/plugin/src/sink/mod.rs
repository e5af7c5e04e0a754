//! The sink: rows and changes into a TDengine, one instance a lane.
//!
//! In a replica everything is written marked, through raw messages, after comparing with the target; what cannot be marked
//! leaves a token (see [`changes`]). Elsewhere everything is written as a user would, by SQL, so that it is itself
//! replicated. One request is in flight at a time: a server runs those of one connection in any order (FACTS F33).
//!
//! Guarantees: `assigned-columns-only`, `log-creates`, `no-regress`, and that a raw write never meets a table that it does
//! not fit (FACTS F26, F27, F31).

mod changes;
mod coalesce;
mod config;
mod decide;
mod from_arrow;
mod origin;
mod parked;
mod replay;
mod rows;
mod shared;
mod statement;
mod tag_values;
mod target;
mod template;

pub use config::{MissingTable, TdengineConfig};
pub use template::Template;
pub(crate) use shared::Shared;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::describe::MARKS_WRITES;
use pipeline_sdk::{Connected, Context, Error, Message, Payload, Reaction, Result, Sink, async_trait};
use tokio::time::{Instant, sleep, timeout_at};

use crate::transport::Connection;
use crate::metadata;
use coalesce::Together;
use target::Target;

/// How long a write waits for another lane to bring what it needs. Then it is the engine that tries again, later each time.
const NEWS_WAIT_MAX: Duration = Duration::from_secs(2);
/// Changes come in groups: how long what follows the first is given before the write is tried again.
const NEWS_TOGETHER: Duration = Duration::from_millis(10);
/// A connection through which nothing went for so long is looked at by the next flush: who has nothing to write is told that the site is gone.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Codes of errors that say that the log has not told of a table, column or tag yet.
const MISSING_TABLE: &str = "tdengine.missing-table";
const NOT_ANNOUNCED: &str = "tdengine.not-announced";
/// Rows have a column that their table has not, or lack its time.
const NO_COLUMN: &str = "tdengine.no-column";

fn is_to_be_announced(error: &Error) -> bool {
    error.reaction == Reaction::Retry && matches!(&*error.code, MISSING_TABLE | NOT_ANNOUNCED)
}

/// A sink of one lane.
pub struct TdengineSink {
    config: TdengineConfig,
    template: Option<Arc<Template>>,
    context: Context,
    link: Option<Link>,
    /// By database at the source.
    targets: HashMap<String, Target>,
}

/// A connection and what it is set to.
struct Link {
    connection: Connection,
    /// The connection's current database.
    database: Option<String>,
    /// When a write, or a look at the connection, last went through it.
    used: Instant,
}

impl TdengineSink {
    pub(crate) fn new(mut config: TdengineConfig, context: Context) -> Self {
        let template = config.template.take().map(Arc::new);
        Self { config, template, context, link: None, targets: HashMap::new() }
    }

    /// Whether the pipeline is a replica: what is written must not come back.
    fn marks(&self) -> bool {
        self.context.negotiated(MARKS_WRITES)
    }

    /// Waits until another lane brings a change: it may be the one that a message waits for.
    async fn has_news(&mut self, message: &Message, until: Instant) -> bool {
        let Some(target) = self.targets.get_mut(namespace_of(message)) else { return false };
        if !matches!(timeout_at(until, target.news.changed()).await, Ok(Ok(()))) {
            return false;
        }
        sleep(NEWS_TOGETHER).await;
        true
    }

    /// The target of a message, and the connection with its database selected.
    async fn target_of(&mut self, message: &Message) -> Result<(&mut Target, &Connection)> {
        let (namespace, marks) = (namespace_of(message), self.marks());
        let link = self.link.as_mut().ok_or_else(|| Error::disconnected("the sink is not connected"))?;
        if !self.targets.contains_key(namespace) {
            let database = self.config.target_database(namespace)?.to_owned();
            let target = Target::new(&self.config, &self.context, &link.connection, namespace, database, marks);
            self.targets.insert(namespace.to_owned(), target);
        }
        let target = self.targets.get_mut(namespace).expect("it was just inserted");
        target.news.mark_unchanged();
        link.used = Instant::now();
        link.select(target, message).await?;
        Ok((target, &link.connection))
    }

    /// Whether what begins with `message` was written as one.
    async fn write_together(&mut self, message: &Message, together: &Together<'_>) -> Result<bool> {
        let written = async {
            let (target, connection) = self.target_of(message).await?;
            together.write(target, connection, &message.header).await
        };
        let written = written.await;
        self.note_loss(&written);
        written
    }

    /// A connection that is lost is of no more use.
    fn note_loss<T>(&mut self, written: &Result<T>) {
        if matches!(written, Err(error) if error.reaction == Reaction::Disconnected) {
            self.link = None;
        }
    }

    async fn write_message(&mut self, message: &Message) -> Result<()> {
        if matches!(&message.payload, Payload::Frame(frame) if frame.rows == 0) {
            return Ok(());
        }
        let template = self.template.clone();
        let (target, connection) = self.target_of(message).await?;
        match &message.payload {
            Payload::Frame(frame) => rows::write_frame(target, connection, &message.header, frame).await,
            Payload::Rows(rows) if rows.runs.iter().all(|run| run.table.is_empty()) => match template {
                Some(template) => template.write(target, connection, &message.header, rows).await,
                None => Err(Error::rejected("rows of no table, and no `template` says which they belong to")
                    .code("tdengine.no-table")
                    .hint("add template = { stable = \"…\", table = \"d_{column}\", tags = [\"column\"] } to the sink")),
            },
            Payload::Rows(rows) => rows::write_rows(target, connection, &message.header, rows).await,
            Payload::Change(change) => changes::apply(target, connection, &message.header, change).await,
        }
    }
}

/// The database at the source.
fn namespace_of(message: &Message) -> &str {
    match &message.payload {
        Payload::Frame(frame) => &frame.namespace,
        Payload::Change(change) => &change.namespace,
        Payload::Rows(rows) => rows.runs.first().map_or("", |run| &run.namespace),
    }
}

impl Link {
    /// Makes the target's database the current one: raw writes need it (PROTOCOL 3). Made first where it is missing.
    async fn select(&mut self, target: &mut Target, message: &Message) -> Result<()> {
        if self.database.as_deref() == Some(target.database.as_str()) {
            return Ok(());
        }
        if metadata::database(&self.connection, &target.database).await?.is_none() {
            target.create_database(&self.connection, message).await?;
        }
        self.enter(&target.database).await
    }

    async fn enter(&mut self, database: &str) -> Result<()> {
        if self.database.as_deref() != Some(database) {
            self.connection.exec(&format!("use {}", tdengine_wire::escape::identifier(database))).await?;
            self.database = Some(database.to_owned());
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for TdengineSink {
    async fn connect(&mut self) -> Result<Connected> {
        self.link = None;
        self.targets.clear();
        crate::transport::check(&self.config.dsn)?;
        let connection = Connection::open(&self.config.dsn, None, self.config.limits()).await?;
        let identity = Some(metadata::cluster_id(&connection).await?);
        self.link = Some(Link { connection, database: None, used: Instant::now() });
        Ok(Connected { identity })
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        let until = Instant::now() + NEWS_WAIT_MAX;
        loop {
            let written = self.write_message(message).await;
            self.note_loss(&written);
            match &written {
                Err(error) if is_to_be_announced(error) && self.has_news(message, until).await => {}
                _ => return written,
            }
        }
    }

    async fn write_many(&mut self, messages: &[Message]) -> (usize, Result<()>) {
        let (mut done, mut alone_until) = (0, 0);
        while let Some(message) = messages.get(done) {
            if self.marks() && done >= alone_until {
                let together = Together::of(&messages[done..], self.config.coalesce_bytes_max);
                if together.len() > 1 {
                    match self.write_together(message, &together).await {
                        Ok(true) => {
                            done += together.len();
                            continue;
                        }
                        Ok(false) => alone_until = done + together.len(),
                        Err(error) => return (done, Err(error)),
                    }
                }
            }
            if let Err(error) = self.write(message).await {
                return (done, Err(error));
            }
            done += 1;
        }
        (done, Ok(()))
    }

    /// A write that was answered is in the server's log: there is nothing to wait for. Parked changes are tried again.
    async fn flush(&mut self) -> Result<()> {
        let Some(link) = &mut self.link else { return Err(Error::disconnected("the sink is not connected")) };
        if link.used.elapsed() >= CHECK_INTERVAL {
            link.used = Instant::now();
            link.connection.check().await?;
        }
        for target in self.targets.values_mut() {
            if parked::is_due(target) {
                link.enter(&target.database).await?;
                parked::retry(target, &link.connection).await?;
            }
            tag_values::report_overdue(target)?;
        }
        Ok(())
    }
}
