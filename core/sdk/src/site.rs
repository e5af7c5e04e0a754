//! The Site facet: how replica commands reach a site without knowing what it is.
//!
//! Across the boundary a site is one asynchronous call with a method name and JSON both ways, so that methods can be added
//! without a new table.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::checkpoint::LaneProgress;
use crate::error::{Error, Result};

/// What can be read of a namespace at a site, in a form that two sites can be compared by.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TableDigest {
    pub table: String,
    /// The table's definition (group, columns, labels) in a canonical text: equal texts are equal definitions.
    pub schema: String,
    pub rows: u64,
    /// A hash over all rows that does not depend on their order, hexadecimal.
    pub hash: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Digest {
    pub rows: u64,
    /// Ascending by name.
    pub tables: Vec<TableDigest>,
}

/// What a check of a plan came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Ok,
    /// Is not there, and will be made.
    Create,
    /// Works, but a person should know.
    Warning,
    /// A replica would not run, or lose something.
    Error,
}

/// One line of a plan: something at both sites, and what it means for a replica from the one to the other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// What was looked at, in one word.
    pub check: String,
    /// Empty where it is about the site as a whole.
    #[serde(default)]
    pub database: String,
    /// What the source has.
    pub source: String,
    /// What the sink has.
    pub sink: String,
    pub verdict: Verdict,
    /// What follows, and what to do about it; empty where nothing is to be done.
    #[serde(default)]
    pub note: String,
}

/// The lanes that members of a group share at a site, and which of them this one has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct Holding {
    /// All that there are: the same for every member.
    pub lanes: Vec<String>,
    pub held: Vec<HeldLane>,
}

/// A lane that was proved to be this member's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct HeldLane {
    pub lane: String,
    /// It was this member's, and nobody else's, at some moment later than this long before the call.
    pub before_ms: u64,
}

#[async_trait]
pub trait Site: Send {
    /// Where the site is, as it may be printed. Does not connect.
    async fn address(&mut self) -> Result<String>;
    /// Who the site is (a cluster id): two equal ones are one site.
    async fn identity(&mut self) -> Result<String>;
    /// Namespaces that could be replicated: all but the system's own and ours.
    async fn databases(&mut self) -> Result<Vec<String>>;
    /// The site's definition of a namespace and its tables in a canonical form.
    async fn schema(&mut self, database: &str) -> Result<serde_json::Value>;
    /// Counts and hashes of every table, of rows in `[from, to)` nanoseconds where given.
    async fn digest(&mut self, database: &str, range: Option<(i64, i64)>) -> Result<Digest>;
    /// Oldest kept and latest position of each lane of a namespace.
    async fn lanes(&mut self, database: &str) -> Result<Vec<LaneProgress>>;
    /// What a replica would find here, without writing: version, options, limits. For [`Site::review`] of the same plugin.
    async fn plan(&mut self, databases: &[String]) -> Result<serde_json::Value>;
    /// Judges the plans of two sites for a replica from the first to the second. Does not connect.
    async fn review(&mut self, source: &serde_json::Value, sink: &serde_json::Value) -> Result<Vec<Check>>;
    /// Removes what `pipelines`, which are stopped, left at the site to read this namespace (groups), and what nobody needs any
    /// more then (topics, helpers). What other readers use stays.
    async fn forget(&mut self, database: &str, pipelines: &[String]) -> Result<()>;

    /// Takes part in a group whose members share lanes, and tells what this one has. The first call joins; the site's end leaves.
    /// Called about once a second. An engine of the site's own must settle who has a lane, and only what it gave proves that it
    /// is so: a lane may go to another member at any moment after.
    async fn hold(&mut self, _group: &str) -> Result<Holding> {
        Err(Error::fatal("this plugin's sites have nothing that services could share tasks by").code("site.hold"))
    }

    /// Small texts by name that the members of a group leave for each other, whether or not they take part by [`Site::hold`]. Writes
    /// `notes`, then returns all that there are; the newest of a name counts. Names have 512 bytes at most, texts 256.
    async fn notes(&mut self, _group: &str, _notes: BTreeMap<String, String>) -> Result<BTreeMap<String, String>> {
        Err(Error::fatal("this plugin's sites keep nothing that services could leave for each other").code("site.notes"))
    }

    /// Dispatch by name, as the boundary calls it.
    async fn call(&mut self, method: &str, args: serde_json::Value) -> Result<serde_json::Value> {
        #[derive(Deserialize)]
        struct Args {
            #[serde(default)]
            database: String,
            #[serde(default)]
            databases: Vec<String>,
            #[serde(default)]
            pipelines: Vec<String>,
            #[serde(default)]
            source: serde_json::Value,
            #[serde(default)]
            sink: serde_json::Value,
            #[serde(default)]
            group: String,
            #[serde(default)]
            range: Option<(i64, i64)>,
            #[serde(default)]
            notes: BTreeMap<String, String>,
        }
        let args: Args = serde_json::from_value(args)
            .map_err(|error| Error::fatal(format!("site call {method}: {error}")))?;
        let value = match method {
            "address" => serde_json::to_value(self.address().await?),
            "identity" => serde_json::to_value(self.identity().await?),
            "databases" => serde_json::to_value(self.databases().await?),
            "schema" => serde_json::to_value(self.schema(&args.database).await?),
            "digest" => serde_json::to_value(self.digest(&args.database, args.range).await?),
            "lanes" => serde_json::to_value(self.lanes(&args.database).await?),
            "plan" => serde_json::to_value(self.plan(&args.databases).await?),
            "review" => serde_json::to_value(self.review(&args.source, &args.sink).await?),
            "forget" => serde_json::to_value(self.forget(&args.database, &args.pipelines).await?),
            "notes" => serde_json::to_value(self.notes(&args.group, args.notes).await?),
            "hold" => serde_json::to_value(self.hold(&args.group).await?),
            _ => return Err(Error::fatal(format!("this plugin's site does not know `{method}`"))),
        };
        value.map_err(|error| Error::fatal(format!("site call {method}: {error}")))
    }
}
