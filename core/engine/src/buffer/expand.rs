//! A pipeline with a disk buffer as two: into the buffer, and out of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{ComponentDescription, Kind};
use serde_json::json;

use super::ends::DiskBuffer;
use super::{FOLDER, TYPE};
use crate::config::{Buffer, BufferType, ComponentSettings, Freshness};
use crate::graph::{Node, PipelineGraph, Step};

/// How long what the sink made durable stays on the disk, at most: telling a buffer costs nothing.
const COMMIT_INTERVAL_MAX: Duration = Duration::from_secs(1);

/// Pipelines as they are run; those out of buffers follow the one into them.
pub(crate) fn expand(pipelines: Vec<PipelineGraph>, state: &Path) -> Vec<PipelineGraph> {
    let mut all = Vec::new();
    for mut pipeline in pipelines {
        let mut out_of = Vec::new();
        for index in 0..pipeline.sinks.len() {
            if pipeline.sinks[index].node.settings.buffer.kind == BufferType::Disk {
                out_of.push(split(&mut pipeline, index, state));
            }
        }
        all.push(pipeline);
        all.extend(out_of);
    }
    all
}

/// Puts the buffer into the sink's place; the pipeline from there to the sink.
fn split(pipeline: &mut PipelineGraph, index: usize, state: &Path) -> PipelineGraph {
    let sink = pipeline.sinks[index].clone();
    let name = format!("{}.{}", pipeline.name, sink.node.name);
    let buffer = Arc::new(DiskBuffer { folder: state.join(FOLDER).join(&name), settings: sink.node.settings.buffer.clone() });
    pipeline.sinks[index].node = Node {
        settings: ComponentSettings { batching: None, ..sink.node.settings.clone() },
        ..node(&sink.node, Kind::Sink, &sink.node.name, buffer.clone())
    };
    let source = Node { address: None, ..node(&sink.node, Kind::Source, TYPE, buffer) };
    let mut node = sink.node;
    node.settings.buffer = Buffer { kind: BufferType::Memory, ..node.settings.buffer };
    node.settings.when = None;
    let mut settings = pipeline.settings.clone();
    settings.commit_interval = settings.commit_interval.min(COMMIT_INTERVAL_MAX);
    PipelineGraph {
        name,
        settings,
        source: Step { node: source, frames: sink.frames.clone(), decodes: BTreeSet::new(), when: None },
        transforms: Vec::new(),
        sinks: vec![Step { node, frames: sink.frames, decodes: BTreeSet::new(), when: None }],
        task_values: Vec::new(),
        buffer_of: Some(pipeline.name.clone()),
        ..pipeline.clone()
    }
}

/// A component of the engine's own at the place of the sink.
fn node(sink: &Node, kind: Kind, name: &str, buffer: Arc<DiskBuffer>) -> Node {
    let mut description = ComponentDescription::new(TYPE, kind, "what a sink has not taken yet, on the disk").merged_lanes().blocking();
    description.frames.clone_from(&sink.description.frames);
    let config = json!({ "folder": buffer.folder });
    Node {
        kind,
        type_name: TYPE.into(),
        name: name.into(),
        plugin: "engine".into(),
        description: Arc::new(description),
        settings: ComponentSettings { freshness: Freshness::default(), ..ComponentSettings::default() },
        shown: config.clone(),
        config: if kind == Kind::Source { config } else { sink.config.clone() },
        site: None,
        built_in: Some(buffer),
        ..sink.clone()
    }
}
