//! Services: they run beside the pipelines of a file.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::{Error, Ready, Result, Stop};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::component::make_service;
use super::run::Shared;
use crate::graph::Node;
use crate::metrics::{Labels, ServiceStatus, TaskState};

/// A service that was started.
pub(super) struct Started {
    pub node: Node,
    pub is_generator: bool,
    state: Arc<Mutex<TaskState>>,
    stop: watch::Sender<bool>,
    cancel: CancellationToken,
    done: JoinHandle<()>,
    ready: Option<oneshot::Receiver<()>>,
}

impl Started {
    /// Starts a service; it runs until it is stopped or ends by itself.
    ///
    /// # Errors
    /// The plugin cannot make it.
    pub fn new(run: &Arc<Shared>, node: &Node) -> Result<Self> {
        let cancel = run.stop.child_token();
        let service = make_service(run, node, &cancel)?;
        let (ready, told) = Ready::channel();
        let (sender, stop) = Stop::channel();
        let state = Arc::new(Mutex::new(TaskState::Starting));
        let running = {
            let (run, name, state, path) = (run.clone(), node.name.clone(), state.clone(), node.path.clone());
            async move {
                let ended = service.run(ready, stop).await;
                *state.lock() = match ended {
                    Ok(()) => TaskState::Stopped,
                    Err(error) => {
                        let reason = run.redact(&error.context(path).to_string());
                        tracing::error!(service = name, reason, "service ended");
                        TaskState::Failed(reason)
                    }
                };
            }
        };
        let done = super::spawn(node.description.blocking, running);
        let is_generator = node.description.generator;
        Ok(Self { node: node.clone(), is_generator, state, stop: sender, cancel, done, ready: Some(told) })
    }

    /// Waits until the service can be used.
    ///
    /// # Errors
    /// It ended instead, or took too long.
    pub async fn ready(&mut self, limit: Duration) -> Result<()> {
        let Some(ready) = self.ready.take() else { return Ok(()) };
        match tokio::time::timeout(limit, ready).await {
            Ok(Ok(())) => {
                *self.state.lock() = TaskState::Running;
                Ok(())
            }
            Ok(Err(_)) => {
                // It let go of the sender while it ends: why it did is known when it has.
                let _ = tokio::time::timeout(limit, &mut self.done).await;
                let why = self.state.lock().reason().map_or_else(|| "it ended".to_owned(), str::to_owned);
                Err(Error::fatal(format!("service `{}` did not become ready: {why}", self.node.name)).code("engine.service"))
            }
            Err(_) => Err(Error::fatal(format!("service `{}` was not ready after {}s", self.node.name, limit.as_secs_f64()))
                .code("engine.service")
                .hint("see its log lines; `ready-timeout` in `[engine]` says how long it may take")),
        }
    }

    /// Whether it did not come up, or ended with an error.
    pub fn has_failed(&self) -> bool {
        matches!(*self.state.lock(), TaskState::Starting | TaskState::Failed(_))
    }

    pub fn ask_to_stop(&self) {
        self.cancel.cancel();
        self.stop.send_replace(true);
    }

    /// Waits until it has ended; one that is overdue is left behind.
    pub async fn stopped(&mut self, limit: Duration) {
        if !self.done.is_finished() && tokio::time::timeout(limit, &mut self.done).await.is_err() {
            tracing::warn!(service = self.node.name, "service does not stop and is left behind");
        }
    }

    pub fn abort(&self) {
        self.done.abort();
    }

    pub fn status(&self, run: &Shared) -> ServiceStatus {
        let is_ours = |labels: &Labels| labels.pipeline.is_empty() && labels.component == self.node.name;
        ServiceStatus {
            service: self.node.name.clone(),
            generator: self.is_generator,
            state: self.state.lock().clone(),
            rows_written: run.registry.sum("rows_written", is_ours),
        }
    }
}
