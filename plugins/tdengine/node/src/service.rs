//! The node as a component: the service `tdengine-node` of a pipeline file.

use pipeline_sdk::{
    ComponentDescription, Context, Error, Kind, Plugin, Ready, Result, Service, ServiceConfig, Stop, async_trait,
};

use crate::config::Config;
use crate::error::NodeError;
use crate::node::Node;

/// What the shared library registers.
pub fn plugin() -> Plugin {
    const SUMMARY: &str =
        "an embedded node that speaks TDengine's WebSocket protocol, for trying, developing and testing; no TDengine";
    Plugin::new("tdengine-node", env!("CARGO_PKG_VERSION"), SUMMARY).service::<Config>()
}

impl ServiceConfig for Config {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("tdengine-node", Kind::Service, "an embedded node on one WebSocket port")
    }

    fn lint(&self) -> Vec<Error> {
        self.check().err().map(Error::from).into_iter().collect()
    }

    fn build(self, context: Context) -> Result<Box<dyn Service>> {
        Ok(Box::new(NodeService { config: self, context }))
    }
}

struct NodeService {
    config: Config,
    context: Context,
}

#[async_trait]
impl Service for NodeService {
    async fn run(self: Box<Self>, mut ready: Ready, stop: Stop) -> Result<()> {
        let node = Node::start(self.config).await?;
        tracing::info!(component = self.context.place.component, address = %node.addr(), "ready");
        ready.ready();
        tokio::select! {
            () = stop.stopped() => {
                node.stop().await;
                Ok(())
            }
            error = node.killed() => Err(error.into()),
        }
    }
}

impl From<NodeError> for Error {
    fn from(error: NodeError) -> Self {
        let (code, key) = match &error {
            NodeError::Config { key, .. } => ("config", Some(key.clone())),
            NodeError::Listen { .. } => ("tdengine-node.listen", None),
            NodeError::Data { .. } => ("tdengine-node.data", None),
            NodeError::Killed => ("tdengine-node.killed", None),
        };
        match (key, error) {
            (Some(key), NodeError::Config { why, .. }) => Self::fatal(why).code(code).path(key),
            (_, error) => Self::fatal(error.to_string()).code(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_says_when_it_is_ready_and_ends_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config::local(folder.path());
        let service = config.build(Context::detached()).unwrap();
        let (ready, is_ready) = Ready::channel();
        let (stop, stopped) = Stop::channel();
        let running = tokio::spawn(service.run(ready, stopped));
        is_ready.await.unwrap();
        stop.send(true).unwrap();
        running.await.unwrap().unwrap();
    }

    #[test]
    fn a_wrong_key_is_named() {
        let config = Config { version: "latest".into(), ..Config::local("d") };
        let errors = config.lint();
        assert_eq!(errors[0].path.as_deref(), Some("version"));
        assert_eq!(plugin().describe().components[0].type_name, "tdengine-node");
    }
}
