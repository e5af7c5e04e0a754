//! `pipeline replica start`: makes a replica, or adds databases to one.

use std::collections::BTreeSet;

use pipeline_engine::runtime::ALL_VALUES;
use pipeline_replica::{New, SiteLook, make_id, suggestion};
use pipeline_service::id_problem;
use serde::Serialize;

use super::ends::{Named, SiteArgs, environment};
use super::service::{Service, Asked, is_over, once_each, parse, toml};
use super::sites::{databases, identities};
use crate::error::{CommandError, CommandResult};
use crate::host::HostArgs;
use crate::output::Output;
use crate::progress::{self, Progress};

/// Between two looks for new databases, unless told otherwise.
const INTERVAL_DEFAULT_S: u64 = 30;

/// Make a replica, or add databases to one
///
/// With -f and -t: a new replica, from one site to the other; its ID is printed. Its file, ID.toml in the service's folder, is the
/// replica: keep it under version control, edit it, or use these commands. The same command with the ends exchanged, here or at the
/// other side's service, makes the other direction; --both makes both in one file.
///
/// Without databases all are replicated but the system's own, and those that are made later as soon as they are found. Naming
/// databases turns that off unless --new-database-checking-interval asks for it.
///
/// With -i alone: adds databases to a replica, all that its source has where none is named; what is replicated already is
/// skipped, what was stopped is started.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The site to read: HOST, HOST:6041, ws:// or wss:// (WebSocket), HOST:6030 or taos:// (native), or a whole DSN
    #[arg(short = 'f', long = "from", value_name = "SOURCE", requires = "to", required_unless_present = "id")]
    from: Option<String>,
    /// The site to write, likewise
    #[arg(short = 't', long = "to", value_name = "SINK", requires = "from")]
    to: Option<String>,
    /// Databases
    #[arg(value_name = "DATABASE")]
    databases: Vec<String>,
    /// The replica to add databases to; with -f and -t: the ID of the new one, instead of one that is made up
    #[arg(short = 'i', long = "id", value_name = "ID")]
    id: Option<String>,
    /// Both directions
    #[arg(long, requires = "from")]
    both: bool,
    /// How often to look for new databases; 0 is never
    #[arg(long, value_name = "SECONDS")]
    new_database_checking_interval: Option<u64>,
    /// Only the databases that exist now
    #[arg(long, conflicts_with = "new_database_checking_interval")]
    no_new_databases: bool,
    /// Only what is written from now on, for sites that are equal and named databases; all that the source's log holds otherwise
    #[arg(long, requires = "from")]
    from_now: bool,
    /// Print the file, and make nothing; needs no service
    #[arg(long, requires = "from")]
    dry_run: bool,
    #[command(flatten)]
    sites: SiteArgs,
    #[command(flatten)]
    asked: Asked,
}

const EXAMPLES: &str = "\
Examples:
  pipeline replica start -f a.example -t b.example
  pipeline replica start -f a.example:6030 -t wss://b.example:6041 power water
  pipeline replica start -f taos://a.example:6130 -t b.example --both \\
      --source-password-env SITE_A --sink-password-file /run/secrets/b
  pipeline replica start -f '${SITE_A}' -t '${SITE_B}' --dry-run
  pipeline replica start -f a.example -t b.example --both --from-now power
  pipeline replica start -i k3f9xa gas

Passwords: name a variable or a file with the options above, or write ${NAME} or ${file:PATH} into a DSN; the service reads them, \
and so does this command. A password that stands in a DSN itself is stored with it.";

/// What was made.
#[derive(Serialize)]
struct Made<'a> {
    replica: &'a str,
    file: &'a str,
    source: &'a str,
    sink: &'a str,
    /// Those that are replicated from now on.
    databases: &'a [String],
}

/// What was added.
#[derive(Default, Serialize)]
struct Added {
    replica: String,
    added: Vec<String>,
    /// Were stopped.
    started: Vec<String>,
    /// Are replicated already.
    skipped: Vec<String>,
}

impl Args {
    pub async fn run(self, host: &HostArgs, output: &Output) -> CommandResult {
        once_each("database", &self.databases)?;
        if let Some(problem) = self.id.as_deref().filter(|id| id.is_empty() || self.from.is_some()).and_then(id_problem) {
            return Err(CommandError::bad_usage(problem).hint("`pipeline replica status` shows the IDs there are; without -i a new one is made up"));
        }
        if self.from_now && self.interval_s().is_some() {
            let error = CommandError::bad_usage("with --from-now a database that is found later would begin without its first rows");
            return Err(error.hint("name the databases, or add --no-new-databases"));
        }
        match (&self.from, &self.to, &self.id) {
            (Some(from), Some(to), _) if self.dry_run => self.dry_run(from, to, host, output).await,
            (Some(from), Some(to), _) => self.make(from, to, host, output).await,
            (_, _, Some(id)) => self.add(id, host, output).await,
            _ => Err(CommandError::bad_usage("neither sites nor a replica are named").hint("give -f and -t, or -i")),
        }
    }

    async fn dry_run(&self, from: &str, to: &str, host: &HostArgs, output: &Output) -> CommandResult {
        // A variable that only the service has is no reason not to show the file.
        let environment = |name: &str| environment(name).or_else(|| Some("unset".into()));
        let named = self.sites.named(from, to, &environment, host, output)?;
        let mut ends = named.ends()?;
        let looks = match self.needs_look() {
            true => Some(progress::during("looking at both sites", 0, async |_| ends.look().await).await?),
            false => None,
        };
        let [source, sink] = ends.addresses().await?;
        let shown = [shown(&named.addresses[0], source), shown(&named.addresses[1], sink)];
        let id = self.id.clone().unwrap_or_else(|| make_id(rand::random, |_| false));
        output.line(self.text(&id, &named, [&shown[0], &shown[1]], looks.as_ref()).trim_end());
        Ok(())
    }

    /// How often new databases are looked for; `None` is never.
    fn interval_s(&self) -> Option<u64> {
        let asked = match self.new_database_checking_interval {
            None => (self.databases.is_empty() && !self.no_new_databases).then_some(INTERVAL_DEFAULT_S),
            asked => asked,
        };
        asked.filter(|seconds| *seconds > 0)
    }

    /// Whether the file depends on what the sites hold.
    fn needs_look(&self) -> bool {
        self.databases.is_empty() == self.interval_s().is_none()
    }

    fn text(&self, id: &str, named: &Named, shown: [&str; 2], looks: Option<&(SiteLook, SiteLook)>) -> String {
        let mut existing: BTreeSet<&String> = looks.iter().flat_map(|(source, _)| &source.databases).collect();
        if self.both {
            existing.extend(looks.iter().flat_map(|(_, sink)| &sink.databases));
        }
        let interval_s = self.interval_s();
        let (mut values, mut exclude) = (self.databases.clone(), Vec::new());
        if interval_s.is_some() {
            exclude.extend(existing.into_iter().filter(|name| !values.is_empty() && !values.contains(name)).cloned());
            values = vec![ALL_VALUES.to_owned()];
        } else if values.is_empty() {
            values.extend(existing.into_iter().cloned());
        }
        let [source, sink] = &named.addresses;
        let [from, to] = [&named.given[0], &named.given[1]].map(String::as_str);
        New {
            id,
            kinds: &named.kinds,
            ends: [source, sink],
            shown,
            made_by: &self.command([from, to]),
            other_direction: &self.other_direction([to, from], &values),
            values: &values,
            exclude: &exclude,
            interval_s,
            from_now: self.from_now,
            both: self.both,
            made: &jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        }
        .text()
    }

    /// What made it, with the ends as they were given.
    fn command(&self, ends: [&str; 2]) -> String {
        let mut words = self.words(ends, self.sites.options(), &self.databases, self.no_new_databases);
        words.extend(self.id.iter().flat_map(|id| ["-i".to_owned(), id.clone()]));
        words.extend(self.both.then(|| "--both".to_owned()));
        command_line(words)
    }

    /// The same of the other direction. What existed at one site need not at the other: it is named.
    fn other_direction(&self, ends: [&str; 2], values: &[String]) -> String {
        let is_found = self.databases.is_empty() && self.interval_s().is_none() && !values.is_empty();
        let databases = if is_found { values } else { &self.databases };
        command_line(self.words(ends, self.sites.exchanged().options(), databases, self.no_new_databases && !is_found))
    }

    fn words(&self, [from, to]: [&str; 2], options: Vec<String>, databases: &[String], no_new_databases: bool) -> Vec<String> {
        let mut words = ["pipeline", "replica", "start", "-f", from, "-t", to].map(str::to_owned).to_vec();
        words.extend(options);
        words.extend(databases.iter().cloned());
        if let Some(seconds) = self.new_database_checking_interval {
            words.extend(["--new-database-checking-interval".to_owned(), seconds.to_string()]);
        }
        words.extend(no_new_databases.then(|| "--no-new-databases".to_owned()));
        words.extend(self.from_now.then(|| "--from-now".to_owned()));
        words
    }

    async fn make(&self, from: &str, to: &str, host: &HostArgs, output: &Output) -> CommandResult {
        let named = self.sites.named(from, to, &environment, host, output)?;
        let service = self.asked.service.connect().await?;
        let files = service.files().await?;
        let is_taken = |id: &str| files.iter().any(|file| file.id == id);
        if let Some(id) = self.id.as_deref().filter(|id| is_taken(id)) {
            let error = CommandError::failed(format!("there is a replica `{id}` already"));
            return Err(error.hint(format!("`pipeline replica start -i {id} NAME…` without -f and -t adds databases to it")));
        }
        let (source, sink) = progress::during("looking at both sites", 0, async |_| named.ends()?.look().await.map_err(CommandError::from)).await?;
        // One that only the sink has comes to the source by the other direction, and is waited for.
        let existing = [&source, &sink].into_iter().flat_map(|site| site.databases.iter().cloned()).collect();
        check(&self.databases, "neither site has a", Some(&existing))?;
        let looks = (source, sink);
        self.refuse_doubles(&looks, &service, host, output).await?;
        let id = self.id.clone().unwrap_or_else(|| make_id(rand::random, is_taken));
        let text = self.text(&id, &named, [&looks.0.address, &looks.1.address], Some(&looks));
        let file = service.put(&id, &text, true).await?;
        let databases = if self.databases.is_empty() { &looks.0.databases } else { &self.databases };
        let made = Made {
            replica: &id,
            file: &file.path,
            source: &looks.0.address,
            sink: &looks.1.address,
            databases,
        };
        match self.asked.json {
            true => output.json(&made),
            false => {
                output.line(&id);
                output.error("hint", &format!("{} is the replica; `pipeline replica status {id}` shows its tasks", file.path));
            }
        }
        Ok(())
    }

    /// Another replica of this service that does the same: same source, same sink, same database.
    async fn refuse_doubles(
        &self,
        (source, sink): &(SiteLook, SiteLook),
        service: &Service,
        host: &HostArgs,
        output: &Output,
    ) -> CommandResult {
        let tasks = service.tasks(None).await?;
        let identities = identities(&tasks, service, host, output).await;
        let is = |address: &str, look: &SiteLook| identities.get(address).is_some_and(|identity| *identity == look.identity);
        for task in &tasks {
            let same = is(&task.source, source) && is(&task.sink, sink);
            let reverse = self.both && is(&task.source, sink) && is(&task.sink, source);
            if (same || reverse) && (self.databases.is_empty() || self.databases.contains(&task.value)) {
                let (id, value) = (&task.file, &task.value);
                let message = format!("replica `{id}` replicates `{value}` from {} to {} already", task.source, task.sink);
                return Err(CommandError::failed(message).hint(format!(
                    "name other databases, add them to it with `pipeline replica start -i {id} NAME…`, or remove it first"
                )));
            }
        }
        Ok(())
    }

    async fn add(&self, id: &str, host: &HostArgs, output: &Output) -> CommandResult {
        let service = self.asked.service.connect().await?;
        let found = service.replica(id).await?;
        let plugins = host.plugins(&[], None, output);
        let mut file = parse(&found, &plugins)?;
        let look = async |_: &Progress| databases(&found, &plugins, output).await;
        let existing = match progress::during("looking at the source", 0, look).await {
            Ok(existing) => Some(existing),
            // They may be named without looking, where nothing depends on what else there is.
            Err(error) if !self.databases.is_empty() && self.new_database_checking_interval.is_none() => {
                output.error("warning", &format!("not looked for at the source: {}", error.text()));
                None
            }
            Err(error) => return Err(error),
        };
        check(&self.databases, "the source has no", existing.as_ref())?;
        let names = match (self.databases.is_empty(), &existing) {
            (true, Some(existing)) => existing.iter().cloned().collect(),
            _ => self.databases.clone(),
        };
        let tasks = service.tasks(Some(id)).await?;
        // Then those without a task are found.
        let is_all = self.databases.is_empty() && file.takes_all();
        let mut added = Added { replica: id.to_owned(), ..Added::default() };
        for name in &names {
            let is_stopped = tasks.iter().any(|task| task.value == *name && is_over(task));
            let has_task = tasks.iter().any(|task| task.value == *name);
            // One of all that was not found yet, or is not looked for.
            let is_added = file.add(name);
            let is_new = is_added | (!has_task && !is_all && file.name(name));
            let list = match (is_new, is_stopped) {
                (true, _) => &mut added.added,
                (false, true) => &mut added.started,
                (false, false) => &mut added.skipped,
            };
            list.push(name.clone());
        }
        if let (Some(seconds), Some(existing)) = (self.new_database_checking_interval, existing) {
            let existing: Vec<String> = existing.into_iter().collect();
            file.set_interval(seconds, &existing).map_err(CommandError::failed)?;
        }
        if file.text() != toml(&found) {
            service.put(id, &file.text(), false).await?;
        }
        if !added.started.is_empty() {
            service.start(id, &added.started).await?;
        }
        if is_all || file.takes_all() && self.new_database_checking_interval.is_some_and(|seconds| seconds > 0) {
            service.look_on(id).await?;
        }
        match self.asked.json {
            true => output.json(&added),
            false => output.line(&added.text()),
        }
        Ok(())
    }
}

/// Names that somebody gave: each once, each among those that exist, where that is known.
fn check(names: &[String], missing: &str, existing: Option<&BTreeSet<String>>) -> CommandResult {
    once_each("database", names)?;
    for name in names {
        if let Some(existing) = existing.filter(|existing| !existing.contains(name)) {
            let hint = suggestion(name, existing.iter().map(String::as_str));
            return Err(CommandError::failed(format!("{missing} database `{name}`")).hint(hint));
        }
    }
    Ok(())
}

impl Added {
    fn text(&self) -> String {
        let line = |what: &str, names: &[String], note: &str| {
            (!names.is_empty()).then(|| format!("{}: {what} {}{note}", self.replica, names.join(", ")))
        };
        let lines = [
            line("added", &self.added, ""),
            line("started", &self.started, ", which had stopped"),
            line("skipped", &self.skipped, ": replicated already"),
        ];
        let lines: Vec<String> = lines.into_iter().flatten().collect();
        if lines.is_empty() { format!("{}: nothing to add", self.replica) } else { lines.join("\n") }
    }
}

/// As it is typed into a shell.
fn command_line(words: Vec<String>) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "@%+=:,./_-".contains(c);
    let quoted = |word: String| match !word.is_empty() && word.chars().all(is_plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', r"'\''")),
    };
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// An address as it may be printed: where a variable holds all of it, its name.
fn shown(given: &str, address: String) -> String {
    if given.starts_with("${") { given.to_owned() } else { address }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_file_names_the_whole_command_of_both_directions() {
        let check = |given: &str, made: &str, other: &str| {
            let Command { args } = Command::try_parse_from(format!("start -f ${{A}} -t b:6041 {given}").split_whitespace()).unwrap();
            let found = ["gas".to_owned(), "oil well".to_owned()];
            let values = if args.databases.is_empty() { &found[..] } else { &args.databases };
            assert_eq!(args.command(["${A}", "b:6041"]), format!("pipeline replica start -f '${{A}}' -t b:6041 {made}").trim_end());
            assert_eq!(args.other_direction(["b:6041", "${A}"], values), format!("pipeline replica start -f b:6041 -t '${{A}}' {other}").trim_end());
        };
        check("", "", "");
        check("power water", "power water", "power water");
        check("power --new-database-checking-interval 5", "power --new-database-checking-interval 5", "power --new-database-checking-interval 5");
        check("--no-new-databases", "--no-new-databases", "gas 'oil well'");
        check("power -i plant", "power -i plant", "power");
        check(
            "power --source-password-env A --sink-password-file /run/b",
            "--source-password-env A --sink-password-file /run/b power",
            "--source-password-file /run/b --sink-password-env A power",
        );
    }
}
