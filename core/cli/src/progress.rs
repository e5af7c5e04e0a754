//! A progress bar for what takes longer than a person waits without wondering; on a terminal only.

use std::convert::Infallible;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What is done sooner shows nothing.
const SHOWN_AFTER: Duration = Duration::from_secs(1);
const TICK: Duration = Duration::from_millis(100);

/// How far something is.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// One more step is done.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// What is done now.
    pub fn say(&self, what: impl Into<String>) {
        self.bar.set_message(what.into());
    }
}

/// Runs `work`, which has this many steps (0: nobody knows), with a bar on standard error once it takes long.
pub async fn during<T>(what: &str, steps: usize, work: impl AsyncFnOnce(&Progress) -> T) -> T {
    let bar = ProgressBar::with_draw_target(Some(steps as u64), ProgressDrawTarget::hidden());
    let template = if steps > 1 { "{spinner} {msg} {wide_bar} {pos}/{len} {elapsed}" } else { "{spinner} {msg} {elapsed}" };
    bar.set_style(ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    let progress = Progress { bar };
    let result = {
        let work = work(&progress);
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => result,
            never = show_later(&progress.bar) => match never {},
        }
    };
    progress.bar.finish_and_clear();
    result
}

/// Does `work`, which is called `what`, for one item after the other, and collects what it gives.
pub async fn each<T, E>(what: &str, items: &[String], mut work: impl AsyncFnMut(&str) -> Result<Vec<T>, E>) -> Result<Vec<T>, E> {
    during(what, items.len(), async |progress| {
        let mut all = Vec::new();
        for item in items {
            progress.say(format!("{what} {item}"));
            all.extend(work(item).await?);
            progress.step();
        }
        Ok(all)
    })
    .await
}

/// Shows the bar after a while and moves it from then on.
async fn show_later(bar: &ProgressBar) -> Infallible {
    tokio::time::sleep(SHOWN_AFTER).await;
    bar.set_draw_target(ProgressDrawTarget::stderr());
    loop {
        bar.tick();
        tokio::time::sleep(TICK).await;
    }
}
