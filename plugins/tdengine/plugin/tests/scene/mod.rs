//! An embedded node with what a test of it needs.

use std::sync::Arc;

use pipeline_sdk::context::Place;
use pipeline_sdk::describe::TELLS_REPLICATED;
use pipeline_sdk::{Checkpoint, Context, Detached, Source, SourceConfig};
use pipeline_tdengine::client::SocketLimits;
use pipeline_tdengine::dsn::Dsn;
use pipeline_tdengine::source::TmqConfig;
use pipeline_tdengine::transport::Connection;
use serde_json::{Value, json};
use tdengine_node::{Config, Node};

pub struct Scene {
    pub node: Node,
    _data: tempfile::TempDir,
    pub sql: Connection,
}

impl Scene {
    pub async fn start(statements: &[&str]) -> Self {
        Self::start_with(statements, |_| {}).await
    }

    pub async fn start_with(statements: &[&str], change: impl FnOnce(&mut Config)) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut config = Config::local(data.path());
        change(&mut config);
        let node = Node::start(config).await.unwrap();
        let sql = Connection::open(&dsn(&node), None, SocketLimits::default()).await.unwrap();
        for statement in statements {
            sql.exec(statement).await.unwrap();
        }
        Self { node, _data: data, sql }
    }

    /// A connected source of a pipeline's task.
    pub async fn source(&self, pipeline: &str, database: &str) -> Box<dyn Source> {
        self.source_at(pipeline, database, &Checkpoint::default()).await
    }

    /// One that reads on there.
    pub async fn source_at(&self, pipeline: &str, database: &str, from: &Checkpoint) -> Box<dyn Source> {
        let mut source = self.configured(pipeline, database, json!({}));
        source.connect(from).await.unwrap();
        source
    }

    /// One that is not connected, with these settings besides.
    pub fn configured(&self, pipeline: &str, database: &str, settings: Value) -> Box<dyn Source> {
        let config: TmqConfig = config(json!({ "dsn": address(&self.node), "databases": [database] }), settings);
        let place = Place {
            pipeline: pipeline.into(),
            task: database.into(),
            negotiated: [TELLS_REPLICATED.to_owned()].into(),
            ..Place::default()
        };
        config.build(Context::new(place, Arc::new(Detached::default()))).unwrap()
    }
}

/// A component's settings: those that it needs, and these besides.
pub fn config<T: serde::de::DeserializeOwned>(mut needed: Value, besides: Value) -> T {
    let Value::Object(besides) = besides else { panic!("{besides} is no object") };
    needed.as_object_mut().unwrap().extend(besides);
    serde_json::from_value(needed).unwrap()
}

pub fn address(node: &Node) -> String {
    format!("ws://root:taosdata@{}", node.addr())
}

pub fn dsn(node: &Node) -> Dsn {
    Dsn::parse(&address(node)).unwrap()
}
