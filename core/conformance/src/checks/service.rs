//! Services: started, waited for, stopped.

use std::time::Duration;

use pipeline_sdk::{Ready, Stop};

use crate::bench::{Bench, Done, failure, is_panic};
use crate::{Check, Outcome};

/// How long a service may take until it is ready.
const READY_MAX: Duration = Duration::from_secs(20);
const FULL_TURNS: usize = 3;

pub fn run(bench: &Bench) -> Done {
    match bench.job.check {
        Check::EndOfStream => end_of_stream(bench),
        Check::Cancel => cancel(bench),
        Check::Reconnect => turns(bench).map(|()| Outcome::passed(format!("started, ready and stopped {FULL_TURNS} times"))),
        Check::Panic => panic(bench),
        Check::Hang => turn(bench).map(|()| Outcome::passed("ready and stopped in time")),
        Check::Leak => super::types::repeat(bench, |round| {
            let host = bench.host("round");
            turn_with(bench, &host)?;
            super::types::given_back(&host, round)
        }),
        Check::TwoInstances => two_instances(bench),
        _ => Ok(Outcome::not_applicable("a service moves no messages")),
    }
}

struct Running {
    ended: tokio::task::JoinHandle<Result<(), pipeline_sdk::Error>>,
    stopper: tokio::sync::watch::Sender<bool>,
    told: tokio::sync::oneshot::Receiver<()>,
}

fn start(bench: &Bench, host: &std::sync::Arc<crate::state::KitHost>) -> Result<Running, Outcome> {
    let service = bench.make_service(&bench.config()?, host.parts());
    let service = service.map_err(|error| failure("create", &error))?;
    let ((ready, told), (stopper, stop)) = (Ready::channel(), Stop::channel());
    Ok(Running { ended: bench.spawn(service.run(ready, stop)), stopper, told })
}

impl Running {
    fn wait_ready(&mut self, bench: &Bench) -> Result<(), Outcome> {
        let told = bench.within("ready", READY_MAX, &mut self.told)?;
        if told.is_ok() {
            return Ok(());
        }
        match bench.within("run", bench.limit(), &mut self.ended)? {
            Ok(Err(error)) => Err(failure("run", &error)),
            Ok(Ok(())) => Err(Outcome::failed("run", "ended without being ready and without an error")),
            Err(panic) => Err(Outcome::failed("run", panic.to_string())),
        }
    }

    fn stop(self, bench: &Bench) -> Result<(), Outcome> {
        self.stopper.send_replace(true);
        match bench.within("stop", bench.limit(), self.ended)? {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(failure("stop", &error)),
            Err(panic) => Err(Outcome::failed("stop", panic.to_string())),
        }
    }
}

fn turn_with(bench: &Bench, host: &std::sync::Arc<crate::state::KitHost>) -> Result<(), Outcome> {
    let mut running = start(bench, host)?;
    running.wait_ready(bench)?;
    running.stop(bench)
}

fn turn(bench: &Bench) -> Result<(), Outcome> {
    turn_with(bench, &bench.host("a"))
}

fn turns(bench: &Bench) -> Result<(), Outcome> {
    (0..FULL_TURNS).try_for_each(|index| {
        turn(bench).map_err(|outcome| Outcome { place: format!("{}, turn {}", outcome.place, index + 1), ..outcome })
    })
}

fn end_of_stream(bench: &Bench) -> Done {
    let mut running = start(bench, &bench.host("a"))?;
    running.wait_ready(bench)?;
    std::thread::sleep(Duration::from_millis(100));
    if running.ended.is_finished() {
        return Err(Outcome::failed("run", "ended by itself though nobody stopped it"));
    }
    running.stop(bench)?;
    Ok(Outcome::passed("runs until it is stopped"))
}

fn cancel(bench: &Bench) -> Done {
    // Before it is ready, and before it runs.
    let running = start(bench, &bench.host("early"))?;
    running.stop(bench)?;
    let service = bench.make_service(&bench.config()?, bench.host("made").parts());
    bench.destroy(service.map_err(|error| failure("create", &error))?)?;
    Ok(Outcome::passed("stopped before it was ready, destroyed before it ran"))
}

fn panic(bench: &Bench) -> Done {
    let running = start(bench, &bench.host("a"))?;
    // Told twice, and nobody waits for it to be ready.
    running.stopper.send_replace(true);
    drop(running.told);
    match bench.within("run", bench.limit(), running.ended)? {
        Ok(Err(error)) if is_panic(&error) => Err(failure("run", &error)),
        _ => Ok(Outcome::passed("told to stop at once, with nobody waiting for it to be ready")),
    }
}

fn two_instances(bench: &Bench) -> Done {
    let mut first = start(bench, &bench.host("a"))?;
    first.wait_ready(bench)?;
    let mut second = start(bench, &bench.host("b"))?;
    let outcome = match second.wait_ready(bench) {
        Ok(()) => {
            second.stop(bench)?;
            Outcome::passed("run side by side")
        }
        Err(outcome) if outcome.reason.contains("panicked") => return Err(outcome),
        Err(outcome) => Outcome::passed(format!("the second is refused: {}", outcome.reason)),
    };
    if first.ended.is_finished() {
        return Err(Outcome::failed("the first instance", "ended when the second came or went"));
    }
    first.stop(bench)?;
    Ok(outcome)
}
