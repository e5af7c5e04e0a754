//! The transforms of a task as one chain, with decoders where a transform needs rows.

use pipeline_sdk::{Error, Header, Mark, Message, Output, Payload, Reaction, Result, Transform};

use super::call::Failure;
use super::isolation::Decoder;
use super::letter::{Verdict, split};
use super::task::Task;
use crate::graph::{Node, Step};

pub(super) struct Chain {
    transforms: Vec<Box<dyn Transform>>,
    /// For each sink the one that says which rows it gets.
    conditions: Vec<Option<Box<dyn Transform>>>,
    decoder: Decoder,
}

impl Chain {
    pub async fn new(task: &Task, source_identity: &str) -> Result<Self> {
        let (mut transforms, mut conditions) = (Vec::new(), Vec::new());
        for step in &task.pipeline.transforms {
            transforms.push(task.make_transform(&step.node, source_identity).await?);
        }
        for step in &task.pipeline.sinks {
            conditions.push(match &step.when {
                Some(node) => Some(task.make_transform(node, source_identity).await?),
                None => None,
            });
        }
        Ok(Self { transforms, conditions, decoder: Decoder::new(task)? })
    }

    /// What comes out of the chain for a message: any number of messages.
    pub async fn apply(&mut self, task: &Task, message: Message) -> Result<Vec<Message>, Failure> {
        self.apply_from(task, 0, vec![message]).await
    }

    /// What all transforms still held, each's through those behind it.
    pub async fn barrier(&mut self, task: &Task) -> Result<Vec<Message>, Failure> {
        let mut held = Vec::new();
        for index in 0..self.transforms.len() {
            held = self.one(task, index, held).await?;
            let shown = held.len();
            let mut out = Output { messages: held };
            let node = &task.pipeline.transforms[index].node;
            unblocked(node, || self.transforms[index].barrier(&mut out)).map_err(|error| Failure::of(error).context(&node.path))?;
            out.messages.iter().skip(shown).for_each(|message| task.show(&node.name, message));
            held = out.messages;
        }
        Ok(held)
    }

    /// What a sink gets of a message.
    pub async fn for_sink(&mut self, task: &Task, sink: usize, message: Message) -> Result<Vec<Message>, Failure> {
        let step = &task.pipeline.sinks[sink];
        let (Some(condition), Some(when)) = (&mut self.conditions[sink], &step.when) else { return Ok(vec![message]) };
        let mut out = Output::default();
        let whole = message.header.clone();
        let mut parts = decoded(task, &mut self.decoder, step, message).await?;
        super::replays::flag_parts(&whole, &mut parts);
        for part in parts {
            applied(task, &step.node, &when.path, part, |part| condition.apply(part, &mut out)).await?;
        }
        Ok(out.messages)
    }

    async fn apply_from(&mut self, task: &Task, first: usize, mut messages: Vec<Message>) -> Result<Vec<Message>, Failure> {
        for index in first..self.transforms.len() {
            messages = self.one(task, index, messages).await?;
        }
        Ok(messages)
    }

    async fn one(&mut self, task: &Task, index: usize, messages: Vec<Message>) -> Result<Vec<Message>, Failure> {
        let (step, transform) = (&task.pipeline.transforms[index], &mut self.transforms[index]);
        let mut out = Output::default();
        for message in messages {
            for message in decoded(task, &mut self.decoder, step, message).await? {
                let replicated = (message.header.mark != Mark::Local).then(|| message.header.clone());
                let shown = out.messages.len();
                let apply = |message| unblocked(&step.node, || transform.apply(message, &mut out));
                applied(task, &step.node, &step.node.path, message, apply).await?;
                if let Some(header) = replicated {
                    check_marks(&step.node, &header, &out.messages[shown..])?;
                }
            }
        }
        out.messages.iter().for_each(|message| task.show(&step.node.name, message));
        Ok(out.messages)
    }
}

/// Applies a transform; what it rejects becomes a dead letter where the policy of `node` says so: the rows that it names, and then the rest
/// is tried again, or the whole message. `path` is where the transform stands.
async fn applied(
    task: &Task,
    node: &Node,
    path: &str,
    mut message: Message,
    mut apply: impl FnMut(Message) -> Result<()>,
) -> Result<(), Failure> {
    loop {
        // Kept only where it may become a dead letter: a message is cheap to clone, but not free.
        let kept = (task.verdict(node, &message) == Verdict::Keep).then(|| message.clone());
        match (apply(message), kept) {
            (Ok(()), _) => return Ok(()),
            (Err(error), Some(whole)) if error.reaction == Reaction::Rejected => {
                let (rejected, rest) = split(&whole, &error.rows);
                task.keep_letter(node, &rejected, &error).await?;
                match rest {
                    Some(rest) => message = rest,
                    None => return Ok(()),
                }
            }
            // A transform has no connection: what it calls one is its own trouble.
            (Err(error), _) => return Err(Failure::of(error).context(path)),
        }
    }
}

/// What came out of a message that a replica wrote must say so: else it would travel back to where it came from (`no-loop`).
fn check_marks(node: &Node, header: &Header, out: &[Message]) -> Result<(), Failure> {
    let is_cleared = |it: &Header| it.mark == Mark::Local && it.lane == header.lane && it.position == header.position;
    if !out.iter().any(|message| is_cleared(&message.header)) {
        return Ok(());
    }
    let message = format!("passes what a replica wrote as if a user had, at {} of lane {}: it would loop", header.position, header.lane);
    let error = Error::fatal(message).code("engine.mark").hint("a transform keeps the mark of a message's header; see the plugin guide");
    Err(Failure::of(error).context(&node.path))
}

/// The rows of a frame where `step` needs them.
async fn decoded(task: &Task, decoder: &mut Decoder, step: &Step, message: Message) -> Result<Vec<Message>, Failure> {
    match &message.payload {
        Payload::Frame(frame) if step.decodes.contains(&*frame.format) => {
            decoder.rows(task, &step.node, message).await.map_err(|it| it.context(&step.node.path))
        }
        _ => Ok(vec![message]),
    }
}

/// Makes a call that may block; other tasks go on meanwhile.
pub(super) fn unblocked<T>(node: &Node, call: impl FnOnce() -> T) -> T {
    let has_others = tokio::runtime::Handle::current().runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread;
    if (node.description.blocking || node.is_isolated()) && has_others { tokio::task::block_in_place(call) } else { call() }
}
