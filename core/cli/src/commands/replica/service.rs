//! Asking the service: where it is, what it runs, what it is to do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use pipeline_engine::host::Plugins;
use pipeline_engine::runtime::ALL_VALUES;
use pipeline_replica::{ReplicaFile, kinds, suggestion};
use pipeline_service::api::{ChooseTasks, File, FileStatus, PutFile, Task, TaskStatus};
use pipeline_service::client::{Address, Client, ClientError, TcpAddress};

use crate::error::{CommandError, CommandResult};
use crate::output::Output;
use crate::socket::{read_token, socket_path};

/// One request: an order waits until tasks have drained, a removal until servers let go of consumers.
const REQUEST_LIMIT: Duration = Duration::from_secs(600);
/// The question for its tasks to another of the services that share them.
const OTHER_LIMIT: Duration = Duration::from_secs(5);

const TOKEN_HINT: &str = "it holds the token that the service was started with";

/// Which service.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Service")]
pub struct ServiceArgs {
    /// The service's socket; `pipeline.sock` in the user's runtime folder where absent
    #[arg(long, value_name = "PATH", env = "PIPELINE_SOCKET")]
    socket: Option<PathBuf>,
    /// HOST:PORT of a service that listens on TCP, instead of a socket; https://HOST:PORT where it has a certificate
    #[arg(long, value_name = "ADDRESS", env = "PIPELINE_ADDRESS", requires = "token_file")]
    address: Option<String>,
    /// A file with the token of a service that listens on TCP; also for the others where several share the tasks
    #[arg(long, value_name = "PATH", env = "PIPELINE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// The certificate authority of that service's certificate, in PEM; those that this machine trusts where absent
    #[arg(long, value_name = "PATH", env = "PIPELINE_CA_FILE", requires = "address")]
    ca_file: Option<PathBuf>,
}

impl ServiceArgs {
    /// Whether the user, or the environment, says where it is.
    pub fn is_given(&self) -> bool {
        self.socket.is_some() || self.address.is_some()
    }

    /// `limit` is that of one request.
    ///
    /// # Errors
    /// The token's file cannot be read.
    pub fn client(&self, limit: Duration) -> Result<Client, CommandError> {
        let address = match (&self.address, &self.token_file) {
            (Some(address), Some(file)) => {
                let token = read_token(file, TOKEN_HINT)?;
                let address = TcpAddress::parse(address, &token, self.ca_file.as_deref());
                Address::Tcp(address.map_err(|error| CommandError::from(error).usage())?)
            }
            _ => Address::Unix(socket_path(self.socket.as_deref())),
        };
        Ok(Client::new(address, limit))
    }

    /// # Errors
    /// No service answers, or it does not let this user in.
    pub async fn connect(&self) -> Result<Service, CommandError> {
        let client = self.client(REQUEST_LIMIT)?;
        client.service().await.map_err(refused)?;
        let token = self.token_file.as_deref().map(|file| read_token(file, TOKEN_HINT)).transpose()?;
        Ok(Service { client, others: token.map(|token| Others { token, ca_file: self.ca_file.clone() }) })
    }
}

/// What every verb takes that asks a service.
#[derive(Debug, clap::Args)]
pub struct Asked {
    #[command(flatten)]
    pub service: ServiceArgs,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Tasks of one replica or of all.
#[derive(Debug, clap::Args)]
pub struct Chosen {
    /// The replica; all where none is named
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Its databases; all where none is named
    #[arg(value_name = "DATABASE")]
    pub databases: Vec<String>,
}

/// A service that answers.
pub struct Service {
    client: Client,
    others: Option<Others>,
}

/// What lets in at the other services that share the tasks: the same as at the one that is asked.
struct Others {
    token: String,
    ca_file: Option<PathBuf>,
}

impl Others {
    /// Why there is no answer, where there is none.
    async fn tasks(&self, address: &str) -> Result<Vec<Task>, String> {
        let ca_file = self.ca_file.as_deref().filter(|_| address.starts_with("https://"));
        let address = TcpAddress::parse(address, &self.token, ca_file).map_err(|error| error.to_string())?;
        Client::new(Address::Tcp(address), OTHER_LIMIT).tasks(None).await.map_err(|error| error.to_string())
    }

    /// Takes what another service tells of a task that it has.
    async fn fill(&self, tasks: &mut [Task]) {
        let mut at: BTreeMap<String, Vec<&mut Task>> = BTreeMap::new();
        for task in tasks.iter_mut().filter(|task| task.status == TaskStatus::Elsewhere) {
            if let Some(address) = task.service.as_ref().and_then(|it| it.address.clone()) {
                at.entry(address).or_default().push(task);
            }
        }
        for (address, ours) in at {
            let theirs = match self.tasks(&address).await {
                Ok(theirs) => theirs,
                Err(error) => {
                    let cannot = |task: &mut Task| task.reason = task.reason.take().map(|reason| format!("{reason}, and cannot be asked: {error}"));
                    ours.into_iter().for_each(cannot);
                    continue;
                }
            };
            for task in ours {
                let is_same = |it: &&Task| (&it.file, &it.pipeline, &it.value) == (&task.file, &task.pipeline, &task.value);
                if let Some(found) = theirs.iter().find(is_same).filter(|it| it.status != TaskStatus::Elsewhere) {
                    *task = Task { service: task.service.take(), ..found.clone() };
                }
            }
        }
    }
}

fn refused(error: ClientError) -> CommandError {
    let hint = error.hint().unwrap_or_else(|| "`pipeline replica status` shows what there is, the service's log says more".into());
    let text = error.to_string();
    // The report on a file says itself that it is an error.
    CommandError::failed(text.strip_prefix("error: ").unwrap_or(&text)).hint(hint)
}

impl Service {
    pub async fn files(&self) -> Result<Vec<File>, CommandError> {
        self.client.files().await.map_err(refused)
    }

    /// With its text.
    pub async fn file(&self, id: &str) -> Result<File, CommandError> {
        self.client.file(id).await.map_err(refused)
    }

    /// The file of a replica, with its text.
    ///
    /// # Errors
    /// There is none of this ID.
    pub async fn replica(&self, id: &str) -> Result<File, CommandError> {
        Seen { files: self.files().await?, tasks: self.tasks(None).await? }.replicas(Some(id))?;
        self.file(id).await
    }

    pub async fn put(&self, id: &str, toml: &str, create: bool) -> Result<File, CommandError> {
        self.client.put(id, &PutFile { toml: toml.to_owned(), create }).await.map_err(refused)
    }

    pub async fn delete(&self, id: &str, force: bool) -> CommandResult {
        self.client.delete(id, force).await.map_err(refused)
    }

    /// Tasks of one file or of all, without what only looks for new values.
    pub async fn tasks(&self, id: Option<&str>) -> Result<Vec<Task>, CommandError> {
        let mut tasks = self.client.tasks(id).await.map_err(refused)?;
        tasks.retain(|task| task.value != ALL_VALUES);
        Ok(tasks)
    }

    pub async fn stop(&self, id: &str, values: &[String], keep_discovering: bool) -> Result<Vec<Task>, CommandError> {
        changed(self.client.stop(&ChooseTasks { keep_discovering, ..chosen(id, values) }).await)
    }

    pub async fn start(&self, id: &str, values: &[String]) -> Result<Vec<Task>, CommandError> {
        changed(self.client.start(&chosen(id, values)).await)
    }

    /// Restarts these values of a file; without any all that run, and with `stopped` also those that somebody stopped, and the
    /// looking for new ones.
    pub async fn restart(&self, id: &str, values: &[String], stopped: bool) -> Result<Vec<Task>, CommandError> {
        changed(self.client.restart(&ChooseTasks { stopped, ..chosen(id, values) }).await)
    }

    /// Has new values looked for again where that was stopped.
    pub async fn look_on(&self, id: &str) -> CommandResult {
        self.client.start(&chosen(id, &[ALL_VALUES.to_owned()])).await.map(drop).map_err(refused)
    }

    /// Removes tasks that are over and that the file does not hold any more.
    pub async fn remove_tasks(&self, id: &str, values: &[String]) -> Result<Vec<Task>, CommandError> {
        changed(self.client.remove(&chosen(id, values)).await)
    }

    /// What there is now. Of tasks that another service has what that one tells, where it has an address and there is a token.
    pub async fn look(&self) -> Result<Seen, CommandError> {
        let (files, mut tasks) = (self.files().await?, self.tasks(None).await?);
        if let Some(others) = &self.others {
            others.fill(&mut tasks).await;
        }
        Ok(Seen { files, tasks })
    }
}

/// Files and tasks of a service, as they were at one look.
pub struct Seen {
    files: Vec<File>,
    tasks: Vec<Task>,
}

impl Seen {
    /// IDs of all replicas, or the one given.
    ///
    /// # Errors
    /// There is none of this ID.
    pub fn replicas(&self, id: Option<&str>) -> Result<Vec<String>, CommandError> {
        let is_replica = |file: &File| {
            !file.replicas.is_empty() || self.tasks.iter().any(|task| task.replica && task.file == file.id)
        };
        let known: Vec<&File> = self.files.iter().filter(|file| is_replica(file) || file.status == FileStatus::Broken).collect();
        match id {
            None => Ok(known.into_iter().filter(|file| is_replica(file)).map(|file| file.id.clone()).collect()),
            Some(id) if known.iter().any(|file| file.id == id) => Ok(vec![id.to_owned()]),
            Some(id) => {
                let hint = suggestion(id, known.iter().map(|file| file.id.as_str()));
                Err(CommandError::failed(format!("there is no replica `{id}`")).hint(hint))
            }
        }
    }

    /// IDs of the replicas that are meant, whose databases are there.
    ///
    /// # Errors
    /// A replica that is not there, a database that none of its tasks is for, or that is given twice.
    pub fn chosen(&self, chosen: &Chosen) -> Result<Vec<String>, CommandError> {
        once_each("database", &chosen.databases)?;
        let ids = self.replicas(chosen.id.as_deref())?;
        let tasks = self.tasks.iter().filter(|task| ids.contains(&task.file));
        let known: BTreeSet<&str> = tasks.map(|task| task.value.as_str()).collect();
        if let Some(name) = chosen.databases.iter().find(|name| !known.contains(name.as_str())) {
            let hint = match self.replicas(Some(name)) {
                Ok(_) => format!("`{name}` is a replica: name one, and its databases, or none for all replicas"),
                Err(_) => suggestion(name, known),
            };
            return Err(CommandError::failed(format!("there is no task for `{name}`")).hint(hint));
        }
        Ok(ids)
    }

    /// Tasks of these replicas, of all where none is named. Files that are broken are warned of.
    ///
    /// # Errors
    /// An ID that is no replica's.
    pub fn tasks_of(&self, ids: &[String], output: &Output) -> Result<Vec<Task>, CommandError> {
        for id in ids {
            self.replicas(Some(id))?;
        }
        for file in &self.files {
            if let Some(problem) = file.problem.as_ref().filter(|_| ids.is_empty() || ids.contains(&file.id)) {
                output.error("warning", &format!("{} since {}: {problem}", file.path, file.since));
            }
        }
        let is_meant = |task: &&Task| if ids.is_empty() { task.replica } else { ids.contains(&task.file) };
        let mut tasks: Vec<Task> = self.tasks.iter().filter(is_meant).cloned().collect();
        tasks.sort_by(|one, other| {
            (&one.file, &one.value, &one.pipeline).cmp(&(&other.file, &other.value, &other.pipeline))
        });
        Ok(tasks)
    }
}

fn chosen(id: &str, values: &[String]) -> ChooseTasks {
    let values = (!values.is_empty()).then(|| values.to_vec());
    ChooseTasks { file: Some(id.to_owned()), values, ..ChooseTasks::default() }
}

fn changed(answer: Result<Vec<Task>, ClientError>) -> Result<Vec<Task>, CommandError> {
    let mut tasks = answer.map_err(refused)?;
    tasks.retain(|task| task.value != ALL_VALUES);
    Ok(tasks)
}

/// The text of a file that was asked for by its ID.
pub fn toml(file: &File) -> &str {
    file.toml.as_deref().unwrap_or_default()
}

/// A file's text as a replica, to be edited.
///
/// # Errors
/// It cannot be read, or holds no replica.
pub fn parse(file: &File, plugins: &Plugins) -> Result<ReplicaFile, CommandError> {
    let parsed = ReplicaFile::parse(toml(file), &kinds(plugins));
    let mut parsed = parsed.map_err(|error| {
        CommandError::failed(format!("{} is no TOML: {error}", file.path)).hint("`pipeline validate FILE` says more")
    })?;
    if !parsed.is_replica() {
        let error = CommandError::failed(format!("{} holds no replica", file.path));
        return Err(error.hint("`pipeline replica status` shows those there are"));
    }
    Ok(parsed)
}

/// Whether a task does not go on by itself.
pub fn is_over(task: &Task) -> bool {
    !matches!(task.status, TaskStatus::Starting | TaskStatus::Running | TaskStatus::Interrupted | TaskStatus::Elsewhere)
}

/// As logs name it.
pub fn task_name(task: &Task) -> String {
    if task.value.is_empty() { task.pipeline.clone() } else { format!("{}/{}", task.pipeline, task.value) }
}

/// # Errors
/// A name that is given twice.
pub fn once_each(what: &str, names: &[String]) -> CommandResult {
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(name) => Err(CommandError::bad_usage(format!("the {what} `{name}` is given twice")).hint("name each once")),
        None => Ok(()),
    }
}
