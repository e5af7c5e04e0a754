//! Sinks into a world's table.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pipeline_sdk::describe::{COMPARES_REPLAYS, MARKS_WRITES};
use pipeline_sdk::*;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{Entry, World, Written, lock, world};

/// A sink into a world's table.
#[derive(Deserialize, JsonSchema)]
pub struct TableConfig {
    world: String,
}

impl SinkConfig for TableConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("table", Kind::Sink, "a world's table")
            .provides(MARKS_WRITES)
            .provides(COMPARES_REPLAYS)
            .frames("test-frame")
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Table { world: world(&self.world), unflushed: Vec::new() }))
    }
}

/// The same, but it needs rows and takes all lanes at once.
#[derive(Deserialize, JsonSchema)]
pub struct RowsTableConfig {
    world: String,
}

impl SinkConfig for RowsTableConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("rows-table", Kind::Sink, "a world's table").merged_lanes()
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(Table { world: world(&self.world), unflushed: Vec::new() }))
    }
}

struct Table {
    world: Arc<Mutex<World>>,
    /// Lost with the instance.
    unflushed: Vec<(String, i64)>,
}

#[async_trait]
impl Sink for Table {
    async fn connect(&mut self) -> Result<Connected> {
        let trouble = {
            let mut world = lock(&self.world);
            (!world.on_sink_connect.is_empty()).then(|| world.on_sink_connect.remove(0))
        };
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        Ok(Connected { identity: Some(lock(&self.world).sink_identity.clone()) })
    }

    async fn write(&mut self, message: &Message) -> Result<()> {
        let number = message.header.position.number.unwrap();
        let (trouble, delay) = {
            let mut world = lock(&self.world);
            let troubles = world.on_write.get_mut(&number);
            (troubles.filter(|it| !it.is_empty()).map(|it| it.remove(0)), world.write_delay)
        };
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        while lock(&self.world).is_sink_blocked {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        let mut world = lock(&self.world);
        let header = &message.header;
        let (lane, replayed) = (header.lane.to_string(), header.replayed);
        if let Some(last) = world.written.iter().rev().find(|it| it.lane == lane)
            && number > last.number + 1
            && let Some(log) = world.log.get(&lane)
            && !log[last.number as usize..number as usize - 1].iter().all(Entry::is_left_out)
        {
            let text = format!("{lane} was written {number} after {}", last.number);
            world.violations.push(text);
        }
        let was_frame = matches!(message.payload, Payload::Frame(_));
        world.written.push(Written { lane: lane.clone(), number, replayed, was_frame });
        drop(world);
        self.unflushed.push((lane, number));
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        let trouble = {
            let mut world = lock(&self.world);
            (!world.on_flush.is_empty()).then(|| world.on_flush.remove(0))
        };
        if let Some(trouble) = trouble {
            trouble.happen().await?;
        }
        let mut world = lock(&self.world);
        for (lane, number) in std::mem::take(&mut self.unflushed) {
            world.durable.entry(lane).or_default().insert(number);
        }
        Ok(())
    }
}
