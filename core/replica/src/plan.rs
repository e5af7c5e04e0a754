//! Looking at the two sites of a replica that is to be: who they are, what they hold, and whether a replica would run.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::Redactor;
use pipeline_engine::graph::SiteGraph;
use pipeline_engine::host::Plugins;
use pipeline_sdk::site::{Check, Verdict};
use pipeline_sdk::{Error, Result};

use crate::id::suggestion;
use crate::site::{OpenSite, open, within};

/// The sites of a replica from the first to the second.
pub struct Ends {
    pub source: OpenSite,
    pub sink: OpenSite,
    limit: Duration,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteLook {
    /// As it may be printed.
    pub address: String,
    /// Who it is: equal ones are one site.
    pub identity: String,
    /// What could be replicated, ascending.
    pub databases: Vec<String>,
}

/// What a plan found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    pub source: SiteLook,
    pub sink: SiteLook,
    pub checks: Vec<Check>,
}

impl Plan {
    pub fn worst(&self) -> Verdict {
        self.checks.iter().map(|check| check.verdict).max().unwrap_or(Verdict::Ok)
    }
}

impl Ends {
    /// Does not connect. A call to a site may take `limit`.
    ///
    /// # Errors
    /// A plugin that does not make the facet.
    pub fn open(
        source: &SiteGraph,
        sink: &SiteGraph,
        plugins: &Plugins,
        redactor: &Arc<Redactor>,
        limit: Duration,
    ) -> Result<Self> {
        let open = |graph: &SiteGraph, name: &str| {
            let site = open(graph, plugins, redactor)?;
            Ok::<_, Error>(OpenSite { name: name.into(), ..site })
        };
        Ok(Self { source: open(source, "of the source")?, sink: open(sink, "of the sink")?, limit })
    }

    /// As they may be printed; does not connect.
    ///
    /// # Errors
    /// A plugin that does not tell.
    pub async fn addresses(&mut self) -> Result<[String; 2]> {
        Ok([self.source.site.address().await?, self.sink.site.address().await?])
    }

    /// Looks at both sites side by side.
    ///
    /// # Errors
    /// A site that does not answer; one site at both ends.
    pub async fn look(&mut self) -> Result<(SiteLook, SiteLook)> {
        let (source, sink) = tokio::join!(look(&mut self.source, self.limit), look(&mut self.sink, self.limit));
        let (source, sink) = (source?, sink?);
        if source.identity == sink.identity {
            let message = format!("{} and {} are one site ({})", source.address, sink.address, source.identity);
            return Err(Error::fatal(message).code("replica.one-site").hint("a replica needs two: check both addresses"));
        }
        Ok((source, sink))
    }
}

async fn look(open: &mut OpenSite, limit: Duration) -> Result<SiteLook> {
    let (name, site) = (&open.name, &mut open.site);
    let address = within(limit, name, site.address()).await?;
    let identity = within(limit, name, site.identity()).await?;
    let mut databases = within(limit, name, site.databases()).await?;
    databases.sort();
    Ok(SiteLook { address, identity, databases })
}

impl SiteLook {
    /// Checks names that somebody gave, each once.
    ///
    /// # Errors
    /// One that the site does not have, one given twice.
    pub fn check(&self, databases: &[String]) -> Result<()> {
        let mut seen = BTreeSet::new();
        for name in databases {
            if !seen.insert(name) {
                return Err(Error::fatal(format!("database `{name}` is given twice")).hint("name each once"));
            }
            if !self.databases.contains(name) {
                let hint = suggestion(name, self.databases.iter().map(String::as_str));
                return Err(Error::fatal(format!("{} has no database `{name}`", self.address)).hint(hint));
            }
        }
        Ok(())
    }
}

/// Plans a replica of these databases, of all that the source has where none is named. Writes nothing.
///
/// # Errors
/// A site that does not answer; one site at both ends; a database that the source does not have.
pub async fn plan(mut ends: Ends, databases: &[String]) -> Result<Plan> {
    let (source, sink) = ends.look().await?;
    source.check(databases)?;
    let databases = if databases.is_empty() { &source.databases } else { databases };
    let limit = ends.limit;
    let (from, to) = (&mut ends.source, &mut ends.sink);
    let (of_source, of_sink) = tokio::join!(
        within(limit, &from.name, from.site.plan(databases)),
        within(limit, &to.name, to.site.plan(databases)),
    );
    let checks = within(limit, &ends.source.name, ends.source.site.review(&of_source?, &of_sink?)).await?;
    Ok(Plan { source, sink, checks })
}
