//! Components that are described and never built.

use pipeline_engine::graph::Linked;
use pipeline_sdk::describe::{MARKS_WRITES, TELLS_REPLICATED};
use pipeline_sdk::{
    ComponentDescription, Context, Error, Kind, Plugin, ReplicaDescription, Result, Service, ServiceConfig, Sink,
    SinkConfig, Site, SiteConfig, Source, SourceConfig, Transform, TransformConfig,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub fn catalog() -> Linked {
    let replica = ReplicaDescription {
        type_name: "tape".into(),
        source: "tape".into(),
        transform: "loop-mark".into(),
        sink: "table".into(),
        site: "tape".into(),
        address_key: "address".into(),
        exclude_key: None,
        rename_key: Some("map".into()),
        discover_interval_key: None,
        from_now: None,
        in_mesh: Some(("mode".into(), "slow".into())),
    };
    Linked::new([
        Plugin::new("tape", "1.0.0", "Tapes").source::<Tape>().sink::<Table>().site::<TapeSite>().replica(replica),
        Plugin::new("loop-mark", "1.0.0", "Loops").transform::<LoopMark>(),
        Plugin::new("basics", "1.0.0", "Basics")
            .source::<Csv>()
            .sink::<Lines>()
            .transform::<Where>()
            .service::<Node>(),
    ])
}

macro_rules! unbuilt {
    ($trait:ident, $config:ty, $made:ty, $description:expr $(, $lint:expr)?) => {
        impl $trait for $config {
            fn describe() -> ComponentDescription {
                $description
            }
            $(fn lint(&self) -> Vec<Error> {
                $lint(self)
            })?
            fn build(self, _context: Context) -> Result<$made> {
                Err(Error::fatal(format!("is described only: {}", serde_json::json!(self))))
            }
        }
    };
}

/// Replays a tape.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Tape {
    /// Where the tape is, such as `tape://user:password@host:port`.
    address: String,
    /// Databases to read, or `*`.
    #[serde(default = "all")]
    databases: Vec<String>,
    /// Messages read at once.
    #[serde(default)]
    #[schemars(range(min = 1, max = 100))]
    speed: Option<u16>,
}

fn all() -> Vec<String> {
    vec!["*".into()]
}

unbuilt!(
    SourceConfig,
    Tape,
    Box<dyn Source>,
    ComponentDescription::new("tape", Kind::Source, "Replays a tape")
        .provides(TELLS_REPLICATED)
        .frames("tape-raw")
        .task_key("databases"),
    |tape: &Tape| {
        let bad = |(index, name): (usize, &String)| {
            name.contains('.').then(|| {
                Error::fatal(format!("`{name}` is no name of a database"))
                    .path(format!("databases[{index}]"))
                    .hint("names have no dots")
            })
        };
        tape.databases.iter().enumerate().filter_map(bad).collect()
    }
);

/// How rows are written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    /// One after the other.
    Slow,
    /// All at once.
    Fast,
}

/// Limits of a table.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Limits {
    /// Rows at once.
    rows: u32,
    #[schemars(extend("format" = "duration"))]
    wait: Option<String>,
}

/// Where a table is kept.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
enum Place {
    Memory {},
    Disk { folder: String },
}

/// Writes a table.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Table {
    /// Where the table is.
    address: String,
    mode: Option<Mode>,
    limits: Option<Limits>,
    place: Option<Place>,
    /// New names of databases.
    map: Option<std::collections::BTreeMap<String, String>>,
    batch: Option<bool>,
}

unbuilt!(
    SinkConfig,
    Table,
    Box<dyn Sink>,
    ComponentDescription::new("table", Kind::Sink, "Writes a table").provides(MARKS_WRITES).frames("tape-raw")
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TapeSite {
    address: String,
}

unbuilt!(SiteConfig, TapeSite, Box<dyn Site>, ComponentDescription::new("tape", Kind::Site, "A tape's site"));

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LoopMark {}

unbuilt!(
    TransformConfig,
    LoopMark,
    Box<dyn Transform>,
    ComponentDescription::new("loop-mark", Kind::Transform, "Drops what a replica wrote")
        .any_frame()
        .requires(Kind::Source, TELLS_REPLICATED, "loop-mark needs a source that tells what a replica wrote")
        .requires(Kind::Sink, MARKS_WRITES, "loop-mark needs a sink that marks what it writes")
);

/// Reads lines of comma-separated values.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Csv {
    file: String,
}

unbuilt!(SourceConfig, Csv, Box<dyn Source>, ComponentDescription::new("csv", Kind::Source, "Reads lines"));

/// Writes lines. Does not forbid unknown keys, which is no difference here.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Lines {
    file: String,
}

unbuilt!(SinkConfig, Lines, Box<dyn Sink>, ComponentDescription::new("lines", Kind::Sink, "Writes lines"));

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Where {
    condition: String,
}

unbuilt!(
    TransformConfig,
    Where,
    Box<dyn Transform>,
    ComponentDescription::new("where", Kind::Transform, "Passes rows that fulfil a condition")
);

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Node {
    #[schemars(extend("format" = "path"))]
    data: String,
    #[serde(default)]
    listen: String,
}

unbuilt!(ServiceConfig, Node, Box<dyn Service>, ComponentDescription::new("node", Kind::Service, "A node"));
