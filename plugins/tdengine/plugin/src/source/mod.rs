//! The source: the log of one database, read through TMQ.
//!
//! Rows leave as frames, untouched; changes leave decoded, with their raw form beside. In a replica an excluding consumer
//! reads everything but what was written marked, a second one the changes of schemas that exclusion hides (FACTS F66),
//! and what a replica could not mark is stamped by its token.
//!
//! Guarantees: a hole is found before a lane is read, and before it is read on after a time in which nobody could (invariant
//! `no-silent-hole`); a lane resumes exactly behind its checkpoint; nothing is committed upstream that the engine did not
//! ask for, nor past a token whose DROP was not seen.

mod canary;
mod changes;
mod config;
mod connect;
pub(crate) mod decode;
mod lane;
mod pending;
mod session;
mod tag_names;

pub use config::{CHANGE_FORMAT, FRAME_FORMAT, OnHole, SEEN_FORMAT, StartFrom, TmqConfig};
pub(crate) use lane::position;

/// Name of the lane of a vgroup.
pub(crate) fn lane_name(vgroup: i32) -> pipeline_sdk::Lane {
    lane::lane_name(lane::Reader::Main, vgroup)
}

use std::time::Duration;

use pipeline_sdk::{Checkpoint, Connected, Context, Error, Interrupt, Interrupted, LaneProgress, Polled, Reaction, Result, Source, async_trait};

use session::Session;

/// The source of one database.
pub struct TmqSource {
    config: TmqConfig,
    database: String,
    context: Context,
    session: Option<Session>,
    interrupt: Interrupt,
    interrupted: Interrupted,
}

impl TmqSource {
    pub(crate) fn new(config: TmqConfig, database: String, context: Context) -> Self {
        let (interrupt, interrupted) = Interrupt::channel();
        Self { config, database, context, session: None, interrupt, interrupted }
    }

    fn session(&mut self) -> Result<&mut Session> {
        self.session.as_mut().ok_or_else(not_connected)
    }

    /// After an error the session is of no use: a lost reply may have been a message (FACTS F41), and one for which something could not be
    /// looked up is not handed out a second time. So nothing is tried again but connecting.
    fn kept<T>(&mut self, result: Result<T>) -> Result<T> {
        result.map_err(|mut error| {
            self.session = None;
            if error.reaction == Reaction::Retry {
                error.reaction = Reaction::Disconnected;
            }
            error
        })
    }
}

#[async_trait]
impl Source for TmqSource {
    async fn connect(&mut self, from: &Checkpoint) -> Result<Connected> {
        self.session = None;
        let session = connect::connect(&self.config, &self.database, &self.context, from).await?;
        let identity = Some(session.cluster.clone());
        self.session = Some(session);
        Ok(Connected { identity })
    }

    async fn next(&mut self, wait: Duration) -> Result<Polled> {
        let session = self.session.as_mut().ok_or_else(not_connected)?;
        let polled = session.next(wait, &self.interrupted).await;
        self.kept(polled)
    }

    async fn commit(&mut self, upto: &Checkpoint) -> Result<()> {
        let committed = self.session()?.commit(upto).await;
        self.kept(committed)
    }

    async fn progress(&mut self) -> Result<Vec<LaneProgress>> {
        let progress = self.session()?.progress().await;
        self.kept(progress)
    }
    fn interrupt(&self) -> Option<Interrupt> {
        Some(self.interrupt.clone())
    }
}

fn not_connected() -> Error {
    Error::disconnected("the source is not connected")
}
