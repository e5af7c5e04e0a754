//! What all of the real counterparts share: their programs, their processes, and waiting.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pipeline_tests::{Process, binary};

/// How long anything may take, on a loaded machine as well.
pub const LIMIT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(50);
/// `nobody`, for servers that refuse to run as root.
const ORDINARY_USER: u32 = 65_534;

/// A program's path, in these folders or in `PATH`.
///
/// # Panics
/// It is not installed: says what to install.
pub fn program(name: &str, folders: &[&str], package: &str) -> PathBuf {
    let paths = std::env::var("PATH").unwrap_or_default();
    let all = folders.iter().map(PathBuf::from).chain(std::env::split_paths(&paths).map(PathBuf::from));
    all.map(|folder| folder.join(name)).find(|path| path.is_file()).unwrap_or_else(|| panic!("{name} is missing: install {package}"))
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("id is there");
    output.stdout.trim_ascii() == b"0"
}

/// Makes a command run as an ordinary user where this process is root's, and gives it the folder.
pub fn as_ordinary_user(command: &mut Command, folder: &Path) {
    if is_root() {
        std::os::unix::fs::chown(folder, Some(ORDINARY_USER), Some(ORDINARY_USER)).expect("root may give a folder away");
        command.uid(ORDINARY_USER).gid(ORDINARY_USER);
    }
}

/// Runs a command to its end; its standard output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until it is so.
#[track_caller]
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}: not within {LIMIT:?}");
        std::thread::sleep(LOOK);
    }
}

/// A server as a child process, ended with the value.
pub struct Server(Child);

impl Server {
    pub fn start(command: &mut Command, log: &Path) -> Self {
        let file = std::fs::File::options().create(true).append(true).open(log).expect("a log in a temporary folder");
        let both = file.try_clone().expect("a second handle");
        let child = command.stdin(Stdio::null()).stdout(file).stderr(both).spawn();
        Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }

    /// kill -9.
    pub fn kill(&mut self) {
        self.0.kill().expect("a child may be killed");
        self.0.wait().expect("a child ends");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Nothing to do about one that has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A folder with pipeline files, and `pipeline` run on them.
pub struct Work {
    pub folder: tempfile::TempDir,
    pub environment: Vec<(&'static str, String)>,
}

impl Work {
    pub fn new(environment: &[(&'static str, String)]) -> Self {
        Self { folder: tempfile::tempdir().expect("a temporary folder"), environment: environment.to_vec() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().expect("it is in the folder")).expect("a folder in a temporary folder");
        std::fs::write(&path, text).expect("a file in a temporary folder");
        path.display().to_string()
    }

    /// What is in all files whose names begin so, whole ones and those that are being written.
    pub fn read_all(&self, start: &str) -> String {
        let mut text = String::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                if path.is_dir() && name.starts_with(&format!(".{start}")) {
                    folders.push(path);
                } else if name.starts_with(start) || name.ends_with(".part") {
                    // One that is renamed at this moment is read the next time.
                    text += &std::fs::read_to_string(&path).unwrap_or_default();
                }
            }
        }
        text
    }

    /// Starts `pipeline run` on a file that is written with this text.
    pub fn start(&self, name: &str, text: &str, more: &[&str]) -> Process {
        let file = self.write(name, text);
        let arguments = [&["run", file.as_str()], more].concat();
        Process::start_with(&arguments, &self.environment, &self.path(&format!("{name}.log"))).expect("pipeline starts")
    }

    /// Runs a pipeline to its end; the exit code and what it said.
    pub fn run(&self, name: &str, text: &str) -> (Option<i32>, String) {
        let mut process = self.start(name, text, &[]);
        let status = process.wait(LIMIT).unwrap_or_else(|error| panic!("{error:#}"));
        (status.code(), process.output())
    }

    /// An example of `pipelines/`, run to its end.
    #[track_caller]
    pub fn run_example(&self, name: &str) {
        let (exit, output) = self.run(name, &example(name));
        assert_eq!(exit, Some(0), "{output}");
    }

    /// The conformance kit with this configuration; how many checks passed.
    #[track_caller]
    pub fn check(&self, library: &str, config: &str) -> usize {
        let config = self.write("kit.toml", config);
        let library = binary().with_file_name(format!("libpipeline_plugin_{library}.so"));
        assert!(library.is_file(), "{} is missing: run `cargo build` first", library.display());
        let mut command = Command::new(binary());
        command.args(["plugin", "check", "--json", "--config", &config]).arg(library).envs(self.environment.iter().map(|(name, value)| (*name, value)));
        let output = command.output().expect("pipeline starts");
        let text = String::from_utf8_lossy(&output.stdout);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
        let findings = report["findings"].as_array().expect("a report has findings");
        let of = |verdict: &str| findings.iter().filter(|it| it["verdict"] == verdict).collect::<Vec<_>>();
        assert!(output.status.success() && of("failed").is_empty(), "{:#?}", of("failed"));
        of("passed").len()
    }
}

pub fn example(name: &str) -> String {
    let path = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../pipelines")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
