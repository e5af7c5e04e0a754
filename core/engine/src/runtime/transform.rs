//! The transforms of a task as one chain, with decoders where a transform needs rows.

use pipeline_sdk::abi::import::Library;
use pipeline_sdk::{Error, Kind, Message, Output, Payload, Reaction, Result, Transform};

use super::call::Failure;
use super::letter::Verdict;
use super::task::Task;

pub(super) struct Chain {
    transforms: Vec<Box<dyn Transform>>,
    /// With the source's decoder.
    library: Library,
}

impl Chain {
    pub fn new(task: &Task, source_identity: &str) -> Result<Self> {
        let transforms = 0..task.pipeline.transforms.len();
        Ok(Self {
            transforms: transforms.map(|index| task.make_transform(index, source_identity)).collect::<Result<_>>()?,
            library: task.run.plugins.library(Kind::Source, &task.pipeline.source.node.type_name)?,
        })
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
            let mut out = Output { messages: held };
            self.transforms[index].barrier(&mut out).map_err(|error| failed(task, index, error))?;
            held = out.messages;
        }
        Ok(held)
    }

    async fn apply_from(&mut self, task: &Task, first: usize, mut messages: Vec<Message>) -> Result<Vec<Message>, Failure> {
        for index in first..self.transforms.len() {
            messages = self.one(task, index, messages).await?;
        }
        Ok(messages)
    }

    async fn one(&mut self, task: &Task, index: usize, messages: Vec<Message>) -> Result<Vec<Message>, Failure> {
        let mut out = Output::default();
        for message in messages {
            for message in self.decoded(task, index, message)? {
                // Kept only where it may become a dead letter: a message is cheap to clone, but not free.
                let kept = (task.verdict(&task.pipeline.transforms[index].node, &message) == Verdict::Keep).then(|| message.clone());
                match (self.transforms[index].apply(message, &mut out), kept) {
                    (Ok(()), _) => {}
                    (Err(error), Some(message)) if error.reaction == Reaction::Rejected => {
                        task.keep_letter(&task.pipeline.transforms[index].node, &message, &error).await?;
                    }
                    (Err(error), _) => return Err(failed(task, index, error)),
                }
            }
        }
        Ok(out.messages)
    }

    fn decoded(&self, task: &Task, index: usize, message: Message) -> Result<Vec<Message>, Failure> {
        let decodes = &task.pipeline.transforms[index].decodes;
        match &message.payload {
            Payload::Frame(frame) if decodes.contains(&*frame.format) => {
                let decoded = self.library.decode(&task.pipeline.source.node.type_name, message);
                decoded.map_err(|error| failed(task, index, error))
            }
            _ => Ok(vec![message]),
        }
    }
}

fn failed(task: &Task, index: usize, error: Error) -> Failure {
    // A transform has no connection: what it calls one is its own trouble.
    Failure::of(error).context(&task.pipeline.transforms[index].node.path)
}
