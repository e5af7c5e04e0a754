//! A sink that writes the text column as lines.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use pipeline_sdk::arrow::array::{Array, AsArray};
use pipeline_sdk::arrow::datatypes::DataType;
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Defect, SLOW, leak};

/// Writes lines.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is wrong with it.
    #[serde(default)]
    defect: Defect,
    /// The file.
    #[serde(default = "path")]
    path: PathBuf,
}

fn path() -> PathBuf {
    "lines".into()
}

impl SinkConfig for Config {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("lines", Kind::Sink, "Writes lines, with a defect")
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        let lane = context.place.lane.clone().unwrap_or_default();
        Ok(Box::new(Lines { config: self, lane, file: None, text: String::new(), writes: 0, columns: 0, _context: context }))
    }
}

struct Lines {
    config: Config,
    lane: String,
    file: Option<File>,
    /// Written, not flushed.
    text: String,
    writes: u32,
    columns: usize,
    _context: Context,
}

impl Lines {
    fn store(&mut self) -> Result<()> {
        let failed = |error: std::io::Error| Error::disconnected(error.to_string());
        let file = self.file.as_mut().ok_or_else(|| Error::fatal("not connected"))?;
        file.write_all(self.text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        self.text.clear();
        Ok(())
    }
}

#[async_trait]
impl Sink for Lines {
    async fn connect(&mut self) -> Result<Connected> {
        let is_new = self.config.defect == Defect::DuplicatesAfterKill || self.config.defect == Defect::Reconnect;
        let path = match self.config.defect {
            Defect::TwoInstances => self.config.path.clone(),
            _ => self.config.path.with_extension(&self.lane),
        };
        // A second one truncates what the first wrote.
        let truncates = is_new || self.config.defect == Defect::TwoInstances;
        let opened = File::options().create(true).append(!truncates).write(true).truncate(truncates).open(&path);
        self.file = Some(opened.map_err(|error| Error::disconnected(format!("{}: {error}", path.display())))?);
        Ok(Connected::default())
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        self.writes += 1;
        let Payload::Rows(rows) = &message.payload else { return Ok(()) };
        match self.config.defect {
            Defect::Hang => tokio::time::sleep(SLOW).await,
            Defect::Abort => std::process::abort(),
            Defect::Leak => std::mem::forget(rows.batch.clone()),
            Defect::BackPressure => leak(2 * rows.batch.get_array_memory_size()),
            Defect::Panic if rows.runs.is_empty() => panic!("as told"),
            Defect::Batches if rows.batch.num_rows() == 0 => return Err(Error::fatal("no rows")),
            Defect::ArrowTypes if rows.batch.columns().iter().any(|column| matches!(column.data_type(), DataType::Map(..))) => {
                return Err(Error::fatal("a map"));
            }
            Defect::SchemaChange => {
                let columns = rows.batch.num_columns();
                if std::mem::replace(&mut self.columns, columns) > columns {
                    return Err(Error::fatal("a column is gone"));
                }
            }
            _ => {}
        }
        let Some(texts) = rows.batch.column_by_name("text").and_then(|column| column.as_string_opt::<i32>()) else { return Ok(()) };
        let mut lines: Vec<&str> = texts.iter().flatten().collect();
        if self.config.defect == Defect::Order {
            lines.reverse();
        }
        lines.iter().for_each(|line| self.text.extend([line, "\n"]));
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        match self.config.defect {
            // It is in memory: that is nearly the same.
            Defect::CommitAfterDurable => Ok(()),
            Defect::EndOfStream if self.writes == 0 => Err(Error::fatal("nothing to flush")),
            _ => self.store(),
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        if self.config.defect == Defect::Cancel && !self.text.is_empty() {
            std::thread::sleep(SLOW);
        }
        if self.config.defect == Defect::CommitAfterDurable {
            // The system will get it at the end.
            let _ = self.store();
        }
    }
}
