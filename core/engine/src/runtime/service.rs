//! Services: they run beside the pipelines of a file.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pipeline_sdk::{Error, Reaction, Ready, Result, Service, Stop};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::component::make_service;
use super::isolation::RESTARTS;
use super::run::Shared;
use crate::config::PipelineSettings;
use crate::graph::Node;
use crate::host::process::ENDED;
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
    /// Starts a service; it runs until it is stopped or ends by itself. One whose own process ends is started again, once it was ready.
    ///
    /// # Errors
    /// The plugin cannot make it.
    pub async fn new(run: &Arc<Shared>, node: &Node) -> Result<Self> {
        let cancel = run.stop.child_token();
        let service = make_service(run, node, &cancel).await?;
        let (ready, told) = Ready::channel();
        let (sender, stop) = Stop::channel();
        let state = Arc::new(Mutex::new(TaskState::Starting));
        let life = Life { run: run.clone(), node: node.clone(), state: state.clone(), cancel: cancel.clone() };
        let life = life.live(service, ready, stop);
        let done = if node.description.blocking { super::spawn(true, life) } else { run.spawn(life) };
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
            process_restarts: run.registry.sum(RESTARTS, is_ours),
        }
    }
}

/// What a service needs to be run, and to be made anew.
struct Life {
    run: Arc<Shared>,
    node: Node,
    state: Arc<Mutex<TaskState>>,
    cancel: CancellationToken,
}

impl Life {
    async fn live(self, service: Box<dyn Service>, ready: Ready, stop: Stop) {
        let ended = match self.node.is_isolated() {
            true => self.relive(service, ready, stop).await,
            false => service.run(ready, stop).await,
        };
        *self.state.lock() = match ended {
            Ok(()) => TaskState::Stopped,
            Err(error) => {
                let reason = self.reason(&error);
                tracing::error!(service = self.node.name, reason, "service ended");
                TaskState::Failed(reason)
            }
        };
    }

    fn reason(&self, error: &Error) -> String {
        self.run.redact(&error.clone().context(&self.node.path).to_string())
    }

    /// Runs a service in its own process, again and again where that ends.
    async fn relive(&self, mut service: Box<dyn Service>, mut ready: Ready, stop: Stop) -> Result<()> {
        let mut backoff = Backoff::reconnect(&PipelineSettings::default(), self.run.seed());
        let mut was_ready = false;
        loop {
            let (inner, told) = Ready::channel();
            let running = service.run(inner, stop.clone());
            tokio::pin!(running);
            let ended = tokio::select! {
                ended = &mut running => ended,
                Ok(()) = told => {
                    if was_ready {
                        *self.state.lock() = TaskState::Running;
                    }
                    was_ready = true;
                    backoff.reset();
                    ready.ready();
                    running.await
                }
            };
            let mut error = match ended {
                Err(error) if was_ready && error.code == ENDED && !stop.is_stopped() => error,
                ended => return ended,
            };
            service = loop {
                let reason = self.reason(&error);
                tracing::warn!(service = self.node.name, reason, "starting the service again");
                *self.state.lock() = TaskState::Reconnecting(reason);
                let Some(delay) = backoff.next() else { return Err(error) };
                tokio::select! {
                    () = stop.stopped() => return Ok(()),
                    () = tokio::time::sleep(delay) => {}
                }
                match make_service(&self.run, &self.node, &self.cancel).await {
                    Ok(service) => break service,
                    Err(again) if again.reaction == Reaction::Disconnected => error = again,
                    Err(error) => return Err(error),
                }
            };
            self.run.count_restart(&Labels { component: self.node.name.clone(), ..Labels::default() });
        }
    }
}
