//! A transform that passes on what it gets.

use std::sync::Mutex;

use pipeline_sdk::arrow::datatypes::DataType;
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Defect, SLOW, leak};

/// Passes messages on.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is wrong with it.
    #[serde(default)]
    defect: Defect,
}

impl TransformConfig for Config {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("passes", Kind::Transform, "Passes messages on, with a defect")
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(Passes { defect: self.defect, held: Vec::new(), columns: 0 }))
    }
}

struct Passes {
    defect: Defect,
    held: Vec<Message>,
    columns: usize,
}

/// What all instances share, and must not.
static SHARED: Mutex<Vec<Message>> = Mutex::new(Vec::new());

impl Transform for Passes {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        if let Payload::Rows(rows) = &message.payload {
            match self.defect {
                Defect::Abort => std::process::abort(),
                Defect::Hang => std::thread::sleep(SLOW),
                Defect::Panic if rows.batch.num_columns() == 0 => panic!("as told"),
                Defect::Leak => std::mem::forget(rows.batch.clone()),
                Defect::BackPressure => leak(2 * rows.batch.get_array_memory_size()),
                Defect::Batches if rows.batch.num_rows() == 0 => return Err(Error::fatal("no rows")),
                Defect::ArrowTypes => {
                    if rows.batch.columns().iter().any(|column| matches!(column.data_type(), DataType::Union(..))) {
                        return Err(Error::fatal("a union"));
                    }
                }
                Defect::SchemaChange if self.columns != 0 && self.columns != rows.batch.num_columns() => {
                    return Err(Error::fatal("another schema"));
                }
                _ => self.columns = rows.batch.num_columns(),
            }
        }
        match self.defect {
            Defect::Order | Defect::EndOfStream | Defect::Cancel => self.held.push(message),
            Defect::TwoInstances => {
                let mut shared = SHARED.lock().expect("no panic under this lock");
                shared.push(message);
                if shared.len() > 1 {
                    out.push(shared.remove(0));
                }
            }
            Defect::Marks => out.push(Message { header: Header { mark: Mark::Local, ..message.header }, ..message }),
            _ => out.push(message),
        }
        Ok(())
    }

    fn barrier(&mut self, out: &mut Output) -> Result<()> {
        match self.defect {
            Defect::Order => out.messages.extend(self.held.drain(..).rev()),
            // Brought out, and kept all the same.
            Defect::EndOfStream => out.messages.extend(self.held.iter().cloned()),
            _ => out.messages.append(&mut self.held),
        }
        Ok(())
    }
}

impl Drop for Passes {
    fn drop(&mut self) {
        if self.defect == Defect::Cancel && !self.held.is_empty() {
            std::thread::sleep(SLOW);
        }
    }
}
