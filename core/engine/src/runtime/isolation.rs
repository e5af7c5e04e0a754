//! Components in processes of their own, as a task sees them: started when first needed, started again when they ended.

use std::collections::BTreeMap;
use std::sync::Arc;

use pipeline_sdk::abi::import::{HostParts, Library};
use pipeline_sdk::{Error, Kind, Message, Reaction, Result};

use super::call::Failure;
use super::letter::Verdict;
use super::run::Shared;
use super::task::Task;
use super::transform::unblocked;
use crate::graph::Node;
use crate::host::Origin;
use crate::host::process::{self, Process};
use crate::metrics::Labels;

/// The counter of processes that were started again.
pub(super) const RESTARTS: &str = "process_restarts";

/// The processes of a task by the paths of its components, for as long as it lives. A component's instances share one.
#[derive(Default)]
pub(super) struct Processes(tokio::sync::Mutex<BTreeMap<String, Arc<Process>>>);

impl Processes {
    /// Lets go of all of them: each ends with its last instance.
    pub async fn end(&self) {
        self.0.lock().await.clear();
    }
}

impl Shared {
    /// Where a component is made: in this process, or in a new one of its own.
    ///
    /// # Errors
    /// No plugin has it; its process does not come up, or this program cannot start any.
    pub async fn origin(&self, node: &Node, parts: &HostParts) -> Result<Origin> {
        let plugin = self.plugins.plugin(node.kind, &node.type_name)?;
        if !node.is_isolated() {
            return Ok(Origin::Here(plugin.library()));
        }
        let launch = self.options.launch.as_ref().ok_or_else(|| {
            Error::fatal("this program does not start processes for components").code(process::START).hint("leave `isolation` out")
        })?;
        let limits = self.isolation.read().clone();
        Ok(Origin::Process(Process::start(launch, plugin.file()?, &node.name, &limits, parts.log.clone()).await?))
    }

    /// The process of a component was started again.
    pub fn count_restart(&self, labels: &Labels) {
        self.registry.counter(RESTARTS, labels).add(1);
        tracing::info!(pipeline = labels.pipeline, task = labels.task, component = labels.component, "the component's process was started again");
    }
}

impl Task {
    /// Where a component of this task is made: a process that runs is used again.
    pub(super) async fn origin(&self, node: &Node, parts: &HostParts) -> Result<Origin> {
        if !node.is_isolated() {
            return self.run.origin(node, parts).await;
        }
        let mut processes = self.processes.0.lock().await;
        if let Some(process) = processes.get(&node.path).filter(|process| !process.has_ended()) {
            return Ok(Origin::Process(process.clone()));
        }
        let origin = self.run.origin(node, parts).await?;
        if let Origin::Process(process) = &origin
            && processes.insert(node.path.clone(), process.clone()).is_some()
        {
            let (pipeline, task, component) = (self.key.pipeline.clone(), self.value.clone(), node.name.clone());
            self.run.count_restart(&Labels { pipeline, task, component, lane: None });
        }
        Ok(origin)
    }
}

/// The source's decoder, where the source is.
pub(super) enum Decoder {
    Here(Library),
    /// With a connection of its own once there is something to decode.
    Process(Option<process::Decoder>),
}

impl Decoder {
    pub fn new(task: &Task) -> Result<Self> {
        let node = &task.pipeline.source.node;
        Ok(match node.is_isolated() {
            true => Self::Process(None),
            false => Self::Here(task.run.plugins.library(Kind::Source, &task.pipeline.decoder)?),
        })
    }

    pub async fn decode(&mut self, task: &Task, frame: Message) -> Result<Vec<Message>> {
        let node = &task.pipeline.source.node;
        let opened = match self {
            Self::Here(library) => return library.decode(&task.pipeline.decoder, frame),
            Self::Process(opened) => opened,
        };
        if opened.is_none()
            && let Origin::Process(process) = task.origin(node, &task.parts(node)).await?
        {
            *opened = Some(process.decoder(&node.type_name, task.pipeline.settings.call_timeout).await?);
        }
        let decoder = opened.as_mut().ok_or_else(|| Error::fatal("the source has no process").code("engine.bug"))?;
        unblocked(node, || decoder.decode(frame))
    }

    /// The rows of a frame, for `node`; none where it is rejected, and that node's policy made a dead letter of it.
    pub async fn rows(&mut self, task: &Task, node: &Node, frame: Message) -> Result<Vec<Message>, Failure> {
        let kept = (task.verdict(node, &frame) == Verdict::Keep).then(|| frame.clone());
        match (self.decode(task, frame).await, kept) {
            (Ok(rows), _) => Ok(rows),
            (Err(error), Some(frame)) if error.reaction == Reaction::Rejected => {
                task.keep_letter(node, &frame, &error).await?;
                Ok(Vec::new())
            }
            (Err(error), _) => Err(Failure::of(error)),
        }
    }
}
