//! Opening a site, and calls to it that end in time.

use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::Redactor;
use pipeline_engine::graph::SiteGraph;
use pipeline_engine::host::Plugins;
use pipeline_sdk::abi::import::HostParts;
use pipeline_sdk::context::{Host, Place};
use pipeline_sdk::{Error, Incident, Kind, Result, Site};

/// A site that answers, by its name in the file.
pub struct OpenSite {
    pub name: String,
    pub site: Box<dyn Site>,
}

/// Makes the facet of a site; it connects with its first call.
pub fn open(graph: &SiteGraph, plugins: &Plugins, redactor: &Arc<Redactor>) -> Result<OpenSite> {
    let library = plugins.library(Kind::Site, &graph.type_name)?;
    let place = Place { component: graph.name.clone(), site: Some(graph.name.clone()), ..Place::default() };
    let host = HostParts { host: Arc::new(SiteHost), log: log(&graph.name, redactor) };
    let site = library.site(&graph.type_name, &graph.config, &place, host)?;
    Ok(OpenSite { name: graph.name.clone(), site })
}

/// A call's result within `limit`, with the site's name in errors.
pub async fn within<T>(limit: Duration, site: &str, call: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(result) => result.map_err(|error| error.context(format!("site {site}"))),
        Err(_) => Err(Error::disconnected(format!("site {site} did not answer within {} s", limit.as_secs()))),
    }
}

fn log(site: &str, redactor: &Arc<Redactor>) -> Arc<pipeline_sdk::abi::host::Log> {
    let (site, redactor) = (site.to_owned(), redactor.clone());
    Arc::new(move |level, target, message, fields| {
        let (message, fields) = (redactor.redact(message), redactor.redact(fields));
        match level {
            1 => tracing::error!(site, target, fields, "{message}"),
            2 => tracing::warn!(site, target, fields, "{message}"),
            3 => tracing::info!(site, target, fields, "{message}"),
            _ => tracing::debug!(site, target, fields, "{message}"),
        }
    })
}

/// A site is asked, it keeps nothing.
struct SiteHost;

impl Host for SiteHost {
    fn counter(&self, _name: &str, _add: u64) {}

    fn gauge(&self, _name: &str, _value: f64) {}

    fn incident(&self, incident: &Incident) {
        tracing::warn!(kind = incident.kind, incident = incident.message, "incident");
    }

    fn state_get(&self, _shared: bool, _key: &str) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }

    fn state_put(&self, _shared: bool, _key: &str, _value: Option<&[u8]>) -> Result<()> {
        Err(Error::fatal("a site has no state of its own").code("replica.state"))
    }

    fn state_keys(&self, _shared: bool, _prefix: &str) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn is_cancelled(&self) -> bool {
        false
    }
}
