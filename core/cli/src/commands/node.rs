//! `pipeline node`: an embedded node without a file. It is the service of a file that this command writes in memory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use pipeline_engine::config::File;
use pipeline_engine::graph::Graph;

use super::run;
use crate::error::CommandResult;
use crate::host::HostArgs;
use crate::output::Output;

/// Run an embedded node that speaks TDengine's WebSocket protocol
///
/// For trying, developing and testing; it is no TDengine. Ends with Ctrl-C; data stays in its folder.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:6041")]
    listen: String,
    /// The folder for its data, made if missing
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Where faults can be injected and its insides are shown; nowhere if absent
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<String>,
}

const EXAMPLES: &str = "\
Examples:
  pipeline node --data node
  pipeline node --data node --listen 0.0.0.0:6041 --admin 127.0.0.1:6060";

impl Args {
    pub fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        // Absolute: the folder is the caller's, not a file's.
        let data = std::path::absolute(&self.data).unwrap_or(self.data);
        let mut text = String::from("[service.node]\ntype = \"tdengine-node\"\n");
        text += &format!("listen = {}\ndata = {}\n", quoted(&self.listen), quoted(&data.to_string_lossy()));
        if let Some(admin) = &self.admin {
            text += &format!("admin = {}\n", quoted(admin));
        }
        let file = File::parse("pipeline node", &text, Path::new("."), &|_| None)?;
        let plugins = host.plugins(std::slice::from_ref(&file), None, output);
        let graph = Graph::build(&file, &plugins)?;
        run::services(graph, Arc::new(plugins), output)
    }
}

/// A TOML string that holds no reference. JSON's strings are TOML's as well.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text.replace("${", "$${")).to_string()
}
