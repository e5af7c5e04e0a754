//! `fault`: errors of each reaction by a seeded generator, to see what a pipeline makes of them.

use std::time::Duration;

use pipeline_sdk::{
    ComponentDescription, Connected, Context, Error, Kind, Message, Output, Reaction, Result, Sink, SinkConfig, Transform,
    TransformConfig, async_trait, units,
};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use schemars::JsonSchema;
use serde::Deserialize;

/// Errs now and then. As a transform it passes on what it does not err at; as a sink it drops that.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", default, deny_unknown_fields)]
pub struct FaultConfig {
    /// The same errors for the same messages and seed.
    seed: u64,
    /// How many of the messages, 0 to 1, lead to a lost connection: what was not stored is read again.
    disconnected: f64,
    /// … are to be tried again.
    retry: f64,
    /// … can never be written.
    rejected: f64,
    /// … stop the task.
    fatal: f64,
    /// Messages before the first error.
    after: u64,
    /// A message that the sink does not err at takes this long.
    #[serde(with = "units::duration")]
    #[schemars(with = "String", extend("format" = "duration"))]
    latency: Duration,
}

impl FaultConfig {
    fn rates(&self) -> [(&'static str, Reaction, f64); 4] {
        [
            ("disconnected", Reaction::Disconnected, self.disconnected),
            ("retry", Reaction::Retry, self.retry),
            ("rejected", Reaction::Rejected, self.rejected),
            ("fatal", Reaction::Fatal, self.fatal),
        ]
    }

    fn wrong(&self) -> Vec<Error> {
        let is_wrong = |rate: f64| !(0.0..=1.0).contains(&rate);
        let wrong = self.rates().into_iter().filter(|(_, _, rate)| is_wrong(*rate));
        let mut problems: Vec<Error> = wrong.map(|(key, ..)| Error::fatal("a rate is between 0 and 1").path(key)).collect();
        if problems.is_empty() && is_wrong(self.rates().iter().map(|(_, _, rate)| rate).sum()) {
            problems.push(Error::fatal("the rates together are more than 1"));
        }
        problems
    }

    fn make(self, context: Context) -> Fault {
        Fault { random: SmallRng::seed_from_u64(self.seed), seen: 0, config: self, context }
    }
}

impl TransformConfig for FaultConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("fault", Kind::Transform, "Errs now and then, seeded").any_frame()
    }

    fn lint(&self) -> Vec<Error> {
        self.wrong()
    }

    fn build(self, context: Context) -> Result<Box<dyn Transform>> {
        Ok(Box::new(self.make(context)))
    }
}

impl SinkConfig for FaultConfig {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("fault", Kind::Sink, "Errs now and then, seeded, and drops the rest").any_frame()
    }

    fn lint(&self) -> Vec<Error> {
        self.wrong()
    }

    fn build(self, context: Context) -> Result<Box<dyn Sink>> {
        Ok(Box::new(self.make(context)))
    }
}

struct Fault {
    config: FaultConfig,
    random: SmallRng,
    seen: u64,
    context: Context,
}

impl Fault {
    fn next(&mut self) -> Result<()> {
        self.seen += 1;
        let mut chance: f64 = self.random.random();
        if self.seen <= self.config.after {
            return Ok(());
        }
        for (name, reaction, rate) in self.config.rates() {
            if chance < rate {
                self.context.count("faults", 1);
                return Err(Error::new(reaction, format!("message {}: {name}, as told", self.seen)).code(format!("fault.{name}")));
            }
            chance -= rate;
        }
        Ok(())
    }
}

impl Transform for Fault {
    fn apply(&mut self, message: Message, out: &mut Output) -> Result<()> {
        self.next()?;
        out.push(message);
        Ok(())
    }
}

#[async_trait]
impl Sink for Fault {
    async fn connect(&mut self) -> Result<Connected> {
        Ok(Connected::default())
    }

    async fn write(&mut self, _: &Message) -> Result<()> {
        self.next()?;
        if !self.config.latency.is_zero() {
            tokio::time::sleep(self.config.latency).await;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reaction_comes_at_its_rate_and_the_seed_says_when() {
        let config = FaultConfig { seed: 7, disconnected: 0.1, retry: 0.2, rejected: 0.05, after: 100, ..FaultConfig::default() };
        let run = |config: &FaultConfig| {
            let mut fault = config.clone().make(Context::detached());
            (0..10_100).map(|_| fault.next().err().map(|error| error.reaction)).collect::<Vec<_>>()
        };
        let seen = run(&config);
        let count = |reaction| seen.iter().filter(|it| **it == Some(reaction)).count();
        assert!(seen[..100].iter().all(Option::is_none));
        assert!((900..1_100).contains(&count(Reaction::Disconnected)));
        assert!((1_850..2_150).contains(&count(Reaction::Retry)));
        assert!((400..600).contains(&count(Reaction::Rejected)));
        assert_eq!(count(Reaction::Fatal), 0);
        assert_eq!(run(&config), seen);
        assert_eq!(FaultConfig { retry: 0.6, fatal: 0.6, ..FaultConfig::default() }.wrong().len(), 1);
    }
}
