//! Runs a case: the engine over the case's pipeline, with other ends.

use std::sync::Arc;
use std::time::Duration;

use pipeline_sdk::{ComponentDescription, Error, Kind};

use super::diff::{self, Difference};
use super::ends::{Collector, Given};
use super::Case;
use crate::config::Isolation;
use crate::graph::{BuiltIn, Graph, Node, PipelineGraph, Step};
use crate::host::Plugins;
use crate::runtime::{Engine, RunEnd, RunOptions};
use crate::state::Store;

/// Waits between attempts would only make a case slow: what fails twice fails.
const RETRY_DELAY: Duration = Duration::from_millis(1);
const ATTEMPTS_MAX: u32 = 1;

/// How a case ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Empty where it is as expected.
    pub differences: Vec<Difference>,
}

/// Runs one case of a graph that was built for tests.
///
/// # Errors
/// The engine could not be started.
pub async fn run(graph: &Graph, case: &Case, plugins: Arc<Plugins>, options: RunOptions) -> Result<Outcome, Error> {
    let Some(pipeline) = graph.pipelines.iter().find(|it| it.name == case.pipeline) else {
        return Err(Error::fatal(format!("there is no pipeline `{}`", case.pipeline)));
    };
    let rejected = Collector::default();
    let (pipeline, sinks) = replaced(pipeline, case, &rejected);
    let graph = Graph { services: Vec::new(), replicas: Vec::new(), pipelines: vec![pipeline], ..graph.clone() };
    let options = RunOptions { store: Some(Store::in_memory()), ..options };
    let running = Engine::start(graph, plugins, options).await?;
    let ended = tokio::time::timeout(case.limit, running.wait()).await;
    match ended {
        Ok(_) => drop(running.stop().await),
        Err(_) => running.abort(),
    }
    let mut differences = Vec::new();
    match ended {
        Ok(end) => differences.extend(of_end(case, &end)),
        Err(_) => {
            let message = format!("it did not end within {}", crate::config::units::format_duration(case.limit));
            differences.push(Difference { span: case.span.clone(), message, lines: Vec::new() });
        }
    }
    for expected in &case.expected {
        let came = sinks.iter().find(|(name, _)| *name == expected.sink).map(|(_, sink)| sink.take()).unwrap_or_default();
        differences.extend(diff::of_sink(expected, &came));
    }
    differences.extend(diff::of_rejected(case.rejected.as_deref().unwrap_or_default(), &case.span, &rejected.take()));
    Ok(Outcome { differences })
}

/// What the end of the run tells: it stops exactly where the case says so.
fn of_end(case: &Case, end: &RunEnd) -> Option<Difference> {
    let reason = end.failed.iter().chain(&end.rejected).map(|(_, reason)| reason.as_str()).next();
    let (span, message) = match (&case.stops, reason) {
        (None, None) => return None,
        (Some((text, _)), Some(reason)) if reason.contains(text) => return None,
        (Some((text, span)), Some(reason)) => (span, format!("the pipeline stops, but not with `{text}`: {reason}")),
        (Some((text, span)), None) => (span, format!("the pipeline does not stop with `{text}`")),
        (None, Some(reason)) => (&case.span, format!("the pipeline stops: {reason}")),
    };
    Some(Difference { span: span.clone(), message, lines: Vec::new() })
}

/// The pipeline between the case's rows and collectors.
fn replaced(pipeline: &PipelineGraph, case: &Case, rejected: &Collector) -> (PipelineGraph, Vec<(String, Collector)>) {
    let mut pipeline = pipeline.clone();
    pipeline.task_values = Vec::new();
    let settings = &mut pipeline.settings;
    (settings.retry_delay_min, settings.retry_delay_max) = (RETRY_DELAY, RETRY_DELAY);
    (settings.retry_attempts_max, settings.reconnect_attempts_max) = (ATTEMPTS_MAX, ATTEMPTS_MAX);
    pipeline.source.node = end(&pipeline.source.node, Arc::new(Given(case.input.clone())));
    if let Some((from, _)) = &case.from
        && let Some(first) = pipeline.transforms.iter().position(|step| step.node.name == *from)
    {
        pipeline.transforms.drain(..first);
    }
    // A case is a process of its own.
    pipeline.transforms.iter_mut().for_each(|step| step.node.settings.isolation = Isolation::None);
    let mut sinks = Vec::new();
    for step in &mut pipeline.sinks {
        let collector = Collector::default();
        sinks.push((step.node.name.clone(), collector.clone()));
        *step = Step { node: end(&step.node, Arc::new(collector)), ..step.clone() };
    }
    let letters = pipeline.dead_letter.as_ref().unwrap_or(&pipeline.source.node);
    let letters = Node { kind: Kind::Sink, name: "dead-letter".into(), ..letters.clone() };
    pipeline.dead_letter = Some(end(&letters, Arc::new(rejected.clone())));
    (pipeline, sinks)
}

/// A node of the same name and place that is made by the engine, without what only its plugin can do.
fn end(node: &Node, built_in: Arc<dyn BuiltIn>) -> Node {
    let mut settings = node.settings.clone();
    (settings.buffer, settings.batching) = Default::default();
    let description = ComponentDescription::new(&node.type_name, node.kind, "stands in for it in a test");
    Node { settings, description: Arc::new(description), built_in: Some(built_in), ..node.clone() }
}
