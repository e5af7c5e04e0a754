//! The conformance kit: does a library keep to what the engine relies on?
//!
//! Each check has a stable name and runs in a child process of its own, so that a library that aborts, hangs or eats memory costs that
//! check and nothing else. The kit knows no component: it reads sources, feeds transforms and sinks rows that carry tokens, and looks
//! for the tokens where the sink put them. What it cannot see it says: a check that does not apply has a reason. The library is
//! observed through the C boundary alone, so its language does not matter.
//!
//! [`Kit`] is the parent's side and starts the children; [`child::run`] is what a child does. Nothing is printed here.

pub mod child;
mod bench;
mod checks;
mod feed;
mod job;
mod kit;
mod memory;
mod observe;
mod settings;
mod state;

use pipeline_sdk::Kind;
use serde::{Deserialize, Serialize};

pub use kit::Kit;
pub use settings::{Setup, SetupError, Setups};

macro_rules! checks {
    ($($variant:ident $name:literal $summary:literal,)*) => {
        /// What is checked. Names are stable: scripts and reports use them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Check {
            $(#[serde(rename = $name)] $variant,)*
        }

        impl Check {
            /// In the order in which they run.
            pub const ALL: &'static [Check] = &[$(Check::$variant),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Check::$variant => $name,)*
                }
            }

            /// What a library that passes has shown.
            pub fn summary(self) -> &'static str {
                match self {
                    $(Check::$variant => $summary,)*
                }
            }
        }
    };
}

checks! {
    Description "description" "it says what it is: name, version, licence, every key of every component documented, no key of the engine's",
    BadConfig "bad-config" "a missing key, an unknown one, a value of another type: an error that names it, before anything runs",
    Order "order" "messages of a lane come out in the order in which they went in; positions and sequences never go back; a transform keeps marks",
    EndOfStream "end-of-stream" "an end stays the end; a barrier brings out what is held; flushing nothing is fine; a stop stops",
    Cancel "cancel" "a component that is told to end, or destroyed before and amid its work, is gone at once",
    Reconnect "reconnect" "connecting again goes on behind the checkpoint: nothing left out, nothing of before it again",
    CommitAfterDurable "commit-after-durable" "what was read but not committed is read again; what a flush returned for is there after kill -9",
    DuplicatesAfterKill "duplicates-after-kill" "after kill -9 and a replay from the checkpoint nothing is missing; how much is there twice is told",
    BackPressure "back-pressure" "memory stays bounded while nobody takes messages, or while many are written",
    Panic "panic" "odd messages and calls lead to errors, not to panics or the end of the process",
    BadPosition "bad-position" "a position that the source never made is an error, not a silent start somewhere",
    Hang "hang" "every call returns in time, also where the other end does not answer",
    Leak "leak" "memory, messages and the host's handles are given back, however often a component is made and destroyed",
    Batches "batches" "batches of no rows, of one and of many; runs that cover their batch",
    ArrowTypes "arrow-types" "columns of every Arrow type, with NULLs and with an offset, are taken or rejected by name",
    SchemaChange "schema-change" "columns that come, go and change type amid a lane",
    TwoInstances "two-instances" "two instances at once do not disturb each other",
    AbiOlder "abi-older" "a host one minor version newer: the library writes and reads no further than it knows",
    AbiNewer "abi-newer" "a host one minor version older: the library is usable by the part that both know",
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = || Self::ALL.iter().map(|check| check.name()).collect::<Vec<_>>().join(", ");
        Self::ALL.iter().find(|check| check.name() == text).copied().ok_or_else(|| format!("no check is called `{text}`; there are {}", known()))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Passed,
    Failed,
    NotApplicable,
}

/// How a check ended: what was seen, and for a failure where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    pub verdict: Verdict,
    /// Passed: what was seen. Failed: what is wrong. Not applicable: why.
    pub reason: String,
    /// Of a failure: the call or message at which it showed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub place: String,
    /// Of a failure: the last that the component logged, or the process printed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

impl Outcome {
    pub fn passed(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Passed, reason: reason.into(), place: String::new(), log: Vec::new() }
    }

    pub fn failed(place: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::Failed, reason: reason.into(), place: place.into(), log: Vec::new() }
    }

    pub fn not_applicable(reason: impl Into<String>) -> Self {
        Self { verdict: Verdict::NotApplicable, ..Self::passed(reason) }
    }
}

/// One check of one component, done.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub component: String,
    pub kind: Kind,
    pub check: Check,
    #[serde(flatten)]
    pub outcome: Outcome,
    pub seconds: f64,
}

/// All checks of a library.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub library: String,
    pub plugin: String,
    pub version: String,
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn count(&self, verdict: Verdict) -> usize {
        self.findings.iter().filter(|finding| finding.outcome.verdict == verdict).count()
    }
}
