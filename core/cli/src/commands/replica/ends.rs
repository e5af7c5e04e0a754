//! The two sites that a command names: addresses, where their passwords are, and what reaches them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::{File, Redactor};
use pipeline_engine::graph::{Graph, Node, SiteGraph, facet};
use pipeline_engine::host::Plugins;
use pipeline_replica::{Ends, Kinds, New, PasswordFrom, kinds, suggestion, with_password};

use crate::error::CommandError;
use crate::host::HostArgs;
use crate::output::Output;

/// A call to a site.
pub const SITE_LIMIT: Duration = Duration::from_secs(60);

/// Passwords, and the type where plugins know several.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Sites")]
pub struct SiteArgs {
    /// The variable, of the service, that holds the source's password
    #[arg(long, value_name = "NAME")]
    source_password_env: Option<String>,
    /// The file that holds the source's password, readable by the service
    #[arg(long, value_name = "PATH", conflicts_with = "source_password_env")]
    source_password_file: Option<PathBuf>,
    /// The variable, of the service, that holds the sink's password
    #[arg(long, value_name = "NAME")]
    sink_password_env: Option<String>,
    /// The file that holds the sink's password, readable by the service
    #[arg(long, value_name = "PATH", conflicts_with = "sink_password_env")]
    sink_password_file: Option<PathBuf>,
    /// Type of the replica, where plugins provide several
    #[arg(long = "type", value_name = "TYPE")]
    type_name: Option<String>,
}

/// What the arguments come to: a replica's type, and two addresses as a file would hold them.
pub struct Named {
    pub kinds: Kinds,
    pub addresses: [String; 2],
    /// As they were given, secrets covered.
    pub given: [String; 2],
    pub plugins: Plugins,
    redactor: Arc<Redactor>,
    sites: [SiteGraph; 2],
}

impl SiteArgs {
    /// Checks the addresses without connecting. Their secrets are known to `output` from then on.
    ///
    /// # Errors
    /// What is wrong with them, as `validate` would say it.
    pub fn named(
        &self,
        source: &str,
        sink: &str,
        environment: &dyn Fn(&str) -> Option<String>,
        host: &HostArgs,
        output: &Output,
    ) -> Result<Named, CommandError> {
        let plugins = host.plugins(&[], None, output);
        let kinds = self.kinds(&plugins)?;
        let given = [source, sink];
        let source = address("source", source, &self.source_password_env, &self.source_password_file)?;
        let sink = address("sink", sink, &self.sink_password_env, &self.sink_password_file)?;
        let values = ["*".to_owned()];
        let probe = New {
            id: "replica",
            kinds: &kinds,
            ends: [&source, &sink],
            shown: ["", ""],
            made_by: "",
            other_direction: "",
            values: &values,
            exclude: &[],
            interval_s: None,
            from_now: false,
            both: false,
            made: "",
        };
        let text: String = probe.text().lines().filter(|line| !line.starts_with('#')).map(|line| format!("{line}\n")).collect();
        let file = File::parse("the replica", text.trim_start(), Path::new("."), environment)?;
        output.learn(&file.redactor);
        let graph = Graph::build(&file, &plugins)?;
        let sites = ends_of(&graph, &plugins).into_iter().next();
        let sites = sites.ok_or_else(|| {
            CommandError::failed(format!("the plugin of `{}` replicas cannot look at its sites", kinds.replica.type_name))
                .hint("`pipeline plugin list` shows what was found")
        })?;
        let given = given.map(|text| file.redactor.redact(text));
        let (redactor, sites) = (Arc::new(file.redactor.clone()), sites.map(|(_, site)| site));
        Ok(Named { kinds, addresses: [source, sink], given, redactor, sites, plugins })
    }

    /// As they are given on a command line. Paths are absolute: the folder may be another one then.
    pub fn options(&self) -> Vec<String> {
        let path = |path: &PathBuf| std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string();
        let options = [
            ("--source-password-env", self.source_password_env.clone()),
            ("--source-password-file", self.source_password_file.as_ref().map(path)),
            ("--sink-password-env", self.sink_password_env.clone()),
            ("--sink-password-file", self.sink_password_file.as_ref().map(path)),
            ("--type", self.type_name.clone()),
        ];
        options.into_iter().flat_map(|(name, value)| value.map(|value| [name.to_owned(), value])).flatten().collect()
    }

    /// With source and sink exchanged.
    pub fn exchanged(&self) -> Self {
        Self {
            source_password_env: self.sink_password_env.clone(),
            source_password_file: self.sink_password_file.clone(),
            sink_password_env: self.source_password_env.clone(),
            sink_password_file: self.source_password_file.clone(),
            type_name: self.type_name.clone(),
        }
    }

    fn kinds(&self, plugins: &Plugins) -> Result<Kinds, CommandError> {
        let known = kinds(plugins);
        let names = || known.iter().map(|kinds| kinds.replica.type_name.as_str());
        match (&self.type_name, known.as_slice()) {
            (Some(name), _) => known.iter().find(|kinds| kinds.replica.type_name == *name).cloned().ok_or_else(|| {
                let error = CommandError::bad_usage(format!("no plugin has a replica of type `{name}`"));
                error.hint(suggestion(name, names()))
            }),
            (None, [one]) => Ok(one.clone()),
            (None, []) => {
                let error = CommandError::failed("no plugin that was found has replicas");
                Err(error.hint("`pipeline plugin list` shows what was found, --plugin-path names a folder"))
            }
            (None, _) => {
                let names = names().collect::<Vec<_>>().join(", ");
                Err(CommandError::bad_usage("several plugins have replicas").hint(format!("give --type, one of {names}")))
            }
        }
    }
}

impl Named {
    pub fn ends(&self) -> Result<Ends, CommandError> {
        let [source, sink] = &self.sites;
        Ok(Ends::open(source, sink, &self.plugins, &self.redactor, SITE_LIMIT)?)
    }
}

fn address(
    of: &str,
    text: &str,
    environment: &Option<String>,
    file: &Option<PathBuf>,
) -> Result<String, CommandError> {
    let from = match (environment, file) {
        (Some(name), _) => PasswordFrom::Environment(name.clone()),
        (None, Some(path)) => {
            // Absolute: the service that reads it runs elsewhere.
            PasswordFrom::File(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
        }
        (None, None) => return Ok(text.to_owned()),
    };
    with_password(text, &from).map_err(|message| {
        CommandError::bad_usage(format!("the address of the {of}: {message}"))
            .hint("write HOST, HOST:PORT or a whole DSN, and the password in one place only")
    })
}

/// Source and sink of every replica pipeline of a graph, each with its address as the service prints it.
pub fn ends_of(graph: &Graph, plugins: &Plugins) -> Vec<[(String, SiteGraph); 2]> {
    let end = |node: &Node| Some((node.shown_address()?, facet(node, plugins)?));
    let of_pipelines = graph.pipelines.iter().filter(|pipeline| pipeline.is_replica());
    of_pipelines
        .flat_map(|pipeline| pipeline.sinks.iter().map(|sink| (&pipeline.source.node, &sink.node)))
        .filter_map(|(source, sink)| Some([end(source)?, end(sink)?]))
        .collect()
}

/// Of this process.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
