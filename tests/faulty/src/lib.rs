//! A plugin that does what plugins must not do, when told to.

mod kit;

use std::time::Duration;

use pipeline_sdk::{
    ComponentDescription, Connected, Context, Error, Kind, Message, Output, Plugin, Result, Sink, SinkConfig, Transform,
    TransformConfig, async_trait,
};
use schemars::JsonSchema;
use serde::Deserialize;

/// Misbehaves at the first message.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Faulty {
    does: Fault,
    /// Misbehaves only where this file is missing, and makes it before.
    once: Option<std::path::PathBuf>,
}

#[derive(Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Fault {
    /// Passes everything on.
    Nothing,
    Panic,
    /// Keeps the thread.
    Block,
    /// Gives the thread back and never ends.
    Hang,
    /// Keeps the thread, and a processor.
    Spin,
    /// Ends the process.
    Abort,
    /// Ends the process as a memory fault does.
    Crash,
    /// Cannot be made.
    Refuse,
}

/// Longer than any test.
const FOR_EVER: Duration = Duration::from_secs(3_600);

impl Faulty {
    /// Does what it was told to, but for what a kind does in its own way.
    fn begun(&self) -> Fault {
        if let Some(path) = &self.once {
            if path.exists() {
                return Fault::Nothing;
            }
            std::fs::write(path, "").expect("a folder that can be written to");
        }
        match self.does {
            Fault::Panic => panic!("as told"),
            Fault::Block => std::thread::sleep(FOR_EVER),
            Fault::Spin => loop {
                std::hint::spin_loop();
            },
            Fault::Abort => std::process::abort(),
            // The first signal only takes Rust's own handler away.
            Fault::Crash => loop {
                let kill = std::process::Command::new("kill").args(["-SEGV", &std::process::id().to_string()]).status();
                kill.expect("every system has `kill`");
            },
            Fault::Nothing | Fault::Hang | Fault::Refuse => {}
        }
        self.does
    }
}

impl TransformConfig for Faulty {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("faulty", Kind::Transform, "Misbehaves").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Transform>> {
        match self.does {
            Fault::Refuse => Err(Error::fatal("refused as told").path("does").hint("let it do something else")),
            _ => Ok(Box::new(self)),
        }
    }
}

impl Transform for Faulty {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        if let Fault::Hang = self.begun() {
            std::thread::sleep(FOR_EVER);
        }
        out.push(message);
        Ok(())
    }
}

impl SinkConfig for Faulty {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("faulty", Kind::Sink, "Misbehaves").any_frame()
    }

    fn build(self, _: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(self))
    }
}

#[async_trait]
impl Sink for Faulty {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, _: &Message) -> Result<()> {
        if let Fault::Hang = self.begun() {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

fn plugin() -> Plugin {
    let plugin = Plugin::new("faulty", env!("CARGO_PKG_VERSION"), "Misbehaves as told").transform::<Faulty>().sink::<Faulty>();
    kit::components(plugin)
}

pipeline_sdk::plugin!(plugin);
