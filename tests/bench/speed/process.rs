//! Building what is measured, and what the system says of a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use pipeline_tests::binary;

/// Builds the binary and all shared libraries as a user would, with the profile that this benchmark has.
pub fn build() -> Result<()> {
    let target = target_folder()?;
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--target-dir"])
        .arg(target.parent().context("a target folder has a parent")?)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .status()?;
    if !built.success() {
        bail!("cargo build --release failed");
    }
    Ok(())
}

/// Where the binary and the libraries are.
fn target_folder() -> Result<PathBuf> {
    let executable = std::env::current_exe()?;
    Ok(executable.ancestors().nth(2).context("a benchmark is built into TARGET/release/deps")?.to_owned())
}

/// A folder with the benchmark's own plugin under a name that the host finds.
pub fn plugin_folder(folder: &Path) -> Result<PathBuf> {
    let folder = folder.join("plugins");
    std::fs::create_dir_all(&folder)?;
    let library = binary().with_file_name("libpipeline_bench.so");
    std::fs::copy(&library, folder.join("libpipeline_plugin_bench.so")).with_context(|| library.display().to_string())?;
    Ok(folder)
}

/// Seconds of processor time that a process has used.
pub fn cpu_seconds(id: u32) -> Result<f64> {
    /// Of `clock_t` on every Linux.
    const TICKS_PER_SECOND: f64 = 100.0;
    let text = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let after_name = text.rsplit_once(')').context("a process has a name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = |index: usize| -> Result<f64> { Ok(fields.get(index).context("stat is short")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS_PER_SECOND)
}

/// Seconds of processor time that this thread has used, to the nanosecond: what others do does not count.
pub fn thread_cpu_seconds() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds: f64 = text.split_whitespace().next().context("schedstat is empty")?.parse()?;
    Ok(nanoseconds / 1e9)
}

/// Resident memory of a process, MiB.
pub fn resident_mib(id: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib / 1024.0)
}
