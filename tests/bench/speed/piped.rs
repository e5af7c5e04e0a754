//! The same through the built binary: a pipeline that is one half of a replica.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pipeline_tests::Process;
use serde_json::Value;

use crate::bare::{Job, Rate, Window};

/// How often the pipeline says how far it is, and how often that is read.
const STATUS_INTERVAL: Duration = Duration::from_millis(20);
const LONGEST: Duration = Duration::from_secs(300);

/// Runs the job with further settings of the source, like `, prefetch = 1`, and further transforms behind `loop-mark`.
pub fn run(job: &Job<'_>, settings: &str, transforms: &[&str], plugins: &Path) -> Result<Rate> {
    run_counted(job, settings, transforms, plugins, |log| {
        let lines = log.new_lines()?;
        let told = lines.iter().filter(|line| line["message"] == "status");
        told.map(|line| Ok((line["rows"].as_u64().unwrap_or(0), log.at(line)?))).collect()
    })
}

/// As [`run`] of tables that are made instead of rows: `count` tells how many there are.
pub fn run_creations(job: &Job<'_>, plugins: &Path, mut count: impl FnMut() -> Result<u64>) -> Result<Rate> {
    run_counted(job, "", &[], plugins, |_| Ok(vec![(count()?, Instant::now())]))
}

/// `counts` brings how many went by at which moments since it was last asked.
fn run_counted(
    job: &Job<'_>,
    settings: &str,
    transforms: &[&str],
    plugins: &Path,
    mut counts: impl FnMut(&mut Log) -> Result<Vec<(u64, Instant)>>,
) -> Result<Rate> {
    let folder = tempfile::tempdir()?;
    let mut log = start(job, settings, transforms, plugins, folder.path())?;
    let (mut window, begun) = (Window::new(job.rows), Instant::now());
    loop {
        for (count, at) in counts(&mut log)? {
            if let Some(rate) = window.note(count, at, log.process.id())? {
                log.stop()?;
                return Ok(rate);
            }
        }
        log.check(begun, job)?;
        std::thread::sleep(STATUS_INTERVAL / 4);
    }
}

fn start(job: &Job<'_>, settings: &str, transforms: &[&str], plugins: &Path, folder: &Path) -> Result<Log> {
    let chain: Vec<String> =
        std::iter::once("loop-mark").chain(transforms.iter().copied()).map(|it| format!("{{ type = \"{it}\" }}")).collect();
    let file = folder.join("bench.toml");
    std::fs::write(
        &file,
        format!(
            "[pipeline.bench]\n\
             source = {{ type = \"tdengine-tmq\", dsn = \"{}\", databases = [\"{}\"], group = \"{}\"{settings} }}\n\
             transform = [{}]\n\
             sink = {{ type = \"tdengine\", dsn = \"{}\", map = {{ {} = \"{}\" }} }}\n",
            job.from.text,
            job.source,
            job.group,
            chain.join(", "),
            job.to.text,
            job.source,
            job.target
        ),
    )?;
    Log::start(&file, plugins, STATUS_INTERVAL)
}

/// A running `pipeline run` whose log is read as it grows.
pub struct Log {
    pub process: Process,
    read: usize,
    /// One moment on both clocks.
    began: (Instant, jiff::Timestamp),
}

impl Log {
    /// Starts a file with a new state folder.
    pub fn start(file: &Path, plugins: &Path, status_interval: Duration) -> Result<Self> {
        let folder = file.parent().expect("a file stands in a folder");
        let began = (Instant::now(), jiff::Timestamp::now());
        let interval = format!("{}ms", status_interval.as_millis());
        let paths = [file, plugins].map(|path| path.display().to_string());
        let arguments =
            ["run", &paths[0], "--plugin-path", &paths[1], "--status-interval", &interval, "--log-format", "json"];
        let process = Process::start(&arguments, &folder.join("run.log"))?;
        Ok(Self { process, read: 0, began })
    }

    /// Whole lines that were not read yet.
    pub fn new_lines(&mut self) -> Result<Vec<Value>> {
        let text = std::fs::read(&self.process.log)?;
        let fresh = &text[self.read..];
        let end = fresh.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        self.read += end;
        Ok(fresh[..end].split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// When a line was written.
    pub fn at(&self, line: &Value) -> Result<Instant> {
        let at: jiff::Timestamp = line["timestamp"].as_str().unwrap_or_default().parse()?;
        let since = at.duration_since(self.began.1);
        Ok(self.began.0 + Duration::try_from(since).unwrap_or_default())
    }

    /// Fails once the job takes too long, or the process has ended.
    fn check(&mut self, begun: Instant, job: &Job<'_>) -> Result<()> {
        if begun.elapsed() > LONGEST || !self.process.is_running() {
            let output = self.process.output();
            let lines: Vec<&str> = output.lines().filter(|line| !line.contains("\"message\":\"status\"")).collect();
            bail!("the pipeline did not move all {}:\n{}", job.rows, lines.join("\n"));
        }
        Ok(())
    }

    pub fn stop(self) -> Result<()> {
        let output = self.process.log.clone();
        let status = self.process.stop(Duration::from_secs(60))?;
        if !status.success() {
            bail!("pipeline run ended with {status}:\n{}", std::fs::read_to_string(output)?);
        }
        Ok(())
    }
}
