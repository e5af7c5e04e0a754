//! The sites of replicas that a service runs, reached from here: with this process's environment, so that a variable which only
//! the service has is a reason not to look, never one to fail.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::File;
use pipeline_engine::graph::Graph;
use pipeline_engine::host::Plugins;
use pipeline_replica::{OpenSite, open, within};
use pipeline_service::api::{File as ServiceFile, Task};

use super::ends::{SITE_LIMIT, ends_of, environment};
use super::service::{Service, toml};
use crate::error::CommandError;
use crate::host::HostArgs;
use crate::output::Output;

/// A site that is only asked who it is.
const IDENTITY_LIMIT: Duration = Duration::from_secs(5);

/// Sites of a file's replicas, each address once: those that are read, and those that are only written with `sinks`.
async fn open_sites(
    file: &ServiceFile,
    sinks: bool,
    plugins: &Plugins,
    output: &Output,
) -> Result<BTreeMap<String, OpenSite>, CommandError> {
    let folder = Path::new(&file.path).parent().unwrap_or(Path::new("."));
    let parsed = File::parse(&file.path, toml(file), folder, &environment)?;
    output.learn(&parsed.redactor);
    let graph = Graph::build(&parsed, plugins)?;
    let redactor = Arc::new(parsed.redactor.clone());
    let mut sites = BTreeMap::new();
    for [source, sink] in ends_of(&graph, plugins) {
        for (address, graph) in std::iter::once(source).chain(sinks.then_some(sink)) {
            let site = open(&graph, plugins, &redactor)?;
            sites.insert(address.clone(), OpenSite { name: address, ..site });
        }
    }
    Ok(sites)
}

/// What the sites hold that the replicas of a file read, all together.
pub async fn databases(file: &ServiceFile, plugins: &Plugins, output: &Output) -> Result<BTreeSet<String>, CommandError> {
    let mut found = BTreeSet::new();
    for mut site in open_sites(file, false, plugins, output).await?.into_values() {
        found.extend(within(SITE_LIMIT, &site.name, site.site.databases()).await?);
    }
    Ok(found)
}

/// Who is at the addresses of tasks, as far as that can be told.
pub async fn identities(
    tasks: &[Task],
    service: &Service,
    host: &HostArgs,
    output: &Output,
) -> BTreeMap<String, String> {
    let (mut known, mut asked) = (BTreeMap::new(), BTreeSet::new());
    let mut plugins = None;
    for task in tasks.iter().filter(|task| task.replica) {
        let is_known = known.contains_key(&task.source) && known.contains_key(&task.sink);
        if is_known || !asked.insert(task.file.clone()) {
            continue;
        }
        let Ok(file) = service.file(&task.file).await else { continue };
        let plugins = plugins.get_or_insert_with(|| host.plugins(&[], None, output));
        let Ok(sites) = open_sites(&file, true, plugins, output).await else { continue };
        for (address, mut site) in sites {
            if !known.contains_key(&address)
                && let Ok(identity) = within(IDENTITY_LIMIT, &site.name, site.site.identity()).await
            {
                known.insert(address, identity);
            }
        }
    }
    known
}
