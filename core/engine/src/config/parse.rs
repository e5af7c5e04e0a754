//! From text to [`File`]: syntax, references, the engine's schema, then what a schema cannot say. Each step runs only if the one
//! before it found nothing, and reports everything that it finds.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pipeline_sdk::Kind;
use serde::de::DeserializeOwned;
use toml::de::DeTable;

use super::document::engine_schema;
use super::file::{Component, File, Pipeline, Replica};
use super::problem::{Problem, Report, listed};
use super::schema::Schema;
use super::secret::{Environment, Redactor};
use super::settings::{Buffer, BufferType, COMPONENT_KEYS, ComponentSettings, DISK_BUFFER_BYTES_MIN, DISK_BUFFER_KEYS, OnError, PipelineSettings, StateSettings};
use super::units::{format_bytes, format_duration};
use super::value::{Data, Entry, Reading, Span, Table, Value, join};

/// A guard against a file that is something else altogether.
const FILE_BYTES_MAX: usize = 16 << 20;

impl File {
    /// Checks a file's text. `folder` is what its paths are relative to.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn parse(name: &str, text: &str, folder: &Path, environment: &Environment<'_>) -> Result<Self, Report> {
        let (document, redactor) = read(name, text, folder, environment)?;
        let report = |problems| Report::new(name, text, &redactor, problems);
        let mut problems = misplaced_keys(&document);
        problems.extend(Schema::new(engine_schema(), "a pipeline file").check(&document, &(0..0), ""));
        if !problems.is_empty() {
            return Err(report(problems));
        }
        let mut reader = Reader { problems };
        let stem = Path::new(name).file_stem().map_or("pipeline".into(), |stem| stem.to_string_lossy());
        let state: StateSettings = reader.section(&document, "state");
        let mut file = File {
            name: name.into(),
            text: text.into(),
            folder: folder.into(),
            state: folder.join(state.path.map_or_else(|| format!(".{stem}.state").into(), PathBuf::from)),
            engine: reader.section(&document, "engine"),
            plugins: reader.section(&document, "plugin"),
            services: reader.named(&document, "service", Reader::service),
            pipelines: reader.named(&document, "pipeline", Reader::pipeline),
            replicas: reader.named(&document, "replica", Reader::replica),
            cases: Vec::new(),
            redactor: redactor.clone(),
        };
        let names: Vec<String> = file.pipelines.iter().map(|it| it.name.clone()).collect();
        file.cases = crate::cases::read(&document, &names, &mut reader.problems);
        if file.services.is_empty() && file.pipelines.is_empty() && file.replicas.is_empty() {
            let problem = Problem::of_file("the file has nothing to run");
            reader.problems.push(problem.hint("add a `[pipeline.NAME]`, `[replica.NAME]` or `[service.NAME]`"));
        }
        if reader.problems.is_empty() { Ok(file) } else { Err(report(reader.problems)) }
    }
}

/// Syntax and references.
fn read(
    name: &str,
    text: &str,
    folder: &Path,
    environment: &Environment<'_>,
) -> Result<(Table, Redactor), Report> {
    if text.len() > FILE_BYTES_MAX {
        let problem = Problem::of_file(format!("the file has {} bytes, more than {FILE_BYTES_MAX}", text.len()));
        return Err(Report::new(name, "", &Redactor::default(), vec![problem]));
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut reading = Reading { text, folder, environment, redactor: Redactor::default(), problems: Vec::new() };
    // Also of a broken file: passwords in it are covered in what is shown of it.
    let table = reading.table(document.get_ref(), "");
    if !errors.is_empty() {
        let problems = errors.iter().map(|error| {
            Problem::new(&error.span().unwrap_or(0..0), "", format!("not TOML: {}", error.message()))
        });
        return Err(Report::new(name, text, &reading.redactor, problems.collect()));
    }
    match reading.problems {
        problems if problems.is_empty() => Ok((table, reading.redactor)),
        problems => Err(Report::new(name, text, &reading.redactor, problems)),
    }
}

/// Engine keys on a kind of component that they do not belong to. The schema would hand them to the plugin.
fn misplaced_keys(document: &Table) -> Vec<Problem> {
    let mut problems = Vec::new();
    let tables = |key| document.get(key).and_then(Value::as_table).into_iter().flat_map(|table| &table.entries);
    for entry in tables("pipeline") {
        let path = join("pipeline", &entry.key);
        for (key, kind) in [("source", Kind::Source), ("transform", Kind::Transform), ("sink", Kind::Sink)] {
            let Some(value) = entry.value.as_table().and_then(|table| table.get(key)) else { continue };
            for (component, path) in one_or_many(value, &join(&path, key)) {
                problems.extend(component.as_table().into_iter().flat_map(|table| misplaced(table, kind, &path)));
            }
        }
    }
    for entry in tables("service") {
        let path = join("service", &entry.key);
        problems.extend(entry.value.as_table().into_iter().flat_map(|table| misplaced(table, Kind::Service, &path)));
    }
    problems
}

fn misplaced(table: &Table, kind: Kind, path: &str) -> Vec<Problem> {
    let wrong = |entry: &Entry| {
        let (key, kinds) = COMPONENT_KEYS.iter().find(|(key, kinds)| *key == entry.key && !kinds.contains(&kind))?;
        let problem = Problem::new(&entry.key_span, join(path, key), format!("a {kind} takes no `{key}`"));
        let owners: Vec<String> = kinds.iter().map(Kind::to_string).collect();
        Some(match owners.is_empty() {
            true => problem.hint("the key is reserved for a later version; remove it"),
            false => problem.hint(format!("it is a key of {}", listed(&owners))),
        })
    };
    table.entries.iter().filter_map(wrong).collect()
}

/// A table, or the tables of an array, each with its path.
fn one_or_many<'v>(value: &'v Value, path: &str) -> Vec<(&'v Value, String)> {
    match &value.data {
        Data::Array(items) => {
            items.iter().enumerate().map(|(index, item)| (item, format!("{path}[{index}]"))).collect()
        }
        _ => vec![(value, path.to_owned())],
    }
}

/// Builds the model out of a document that passed the schema.
struct Reader {
    problems: Vec<Problem>,
}

impl Reader {
    fn section<T: DeserializeOwned + Default>(&mut self, document: &Table, key: &str) -> T {
        match document.get(key) {
            Some(value) => self.typed(value.to_json(), &value.span, key),
            None => T::default(),
        }
    }

    /// What the schema accepted is expected to deserialize; if it does not, the table is to blame as a whole.
    fn typed<T: DeserializeOwned + Default>(&mut self, json: serde_json::Value, span: &Span, path: &str) -> T {
        serde_json::from_value(json).unwrap_or_else(|error| {
            self.problems.push(Problem::new(span, path, error.to_string()));
            T::default()
        })
    }

    fn named<T>(
        &mut self,
        document: &Table,
        key: &str,
        read: impl Fn(&mut Self, &Entry, &Table, &str) -> Option<T>,
    ) -> Vec<T> {
        let Some(table) = document.get(key).and_then(Value::as_table) else { return Vec::new() };
        let mut found = Vec::new();
        for entry in &table.entries {
            let path = join(key, &entry.key);
            if let Some(problem) = bad_name(&entry.key, &entry.key_span, &path) {
                self.problems.push(problem);
            }
            found.extend(entry.value.as_table().and_then(|table| read(self, entry, table, &path)));
        }
        found
    }

    fn service(&mut self, entry: &Entry, table: &Table, path: &str) -> Option<Component> {
        let mut service = self.component(Kind::Service, &entry.value, table, path)?;
        service.name.clone_from(&entry.key);
        service.named = true;
        Some(service)
    }

    fn pipeline(&mut self, entry: &Entry, table: &Table, path: &str) -> Option<Pipeline> {
        let mut components = |key: &str, kind| -> Vec<Component> {
            let Some(value) = table.get(key) else { return Vec::new() };
            let tables = one_or_many(value, &join(path, key));
            tables
                .iter()
                .filter_map(|(value, path)| self.component(kind, value, value.as_table()?, path))
                .collect()
        };
        let source = components("source", Kind::Source).pop()?;
        let transforms = components("transform", Kind::Transform);
        let sinks = components("sink", Kind::Sink);
        let dead_letter = components("dead-letter", Kind::Sink).pop().map(|mut letters| {
            if !letters.named {
                letters.name = "dead-letter".into();
            }
            letters
        });
        let given = table.filtered(|key| !["source", "transform", "sink", "dead-letter"].contains(&key));
        let mut pipeline = Pipeline {
            name: entry.key.clone(),
            span: entry.key_span.clone(),
            settings: self.typed(given.to_json(), &entry.key_span, path),
            given,
            source,
            transforms,
            sinks,
            dead_letter,
            replica: None,
        };
        if pipeline.dead_letter.is_some() && pipeline.given.get("on-error").is_none() {
            pipeline.settings.on_error = OnError::DeadLetter;
        }
        self.check_delays(&pipeline.settings, &pipeline.given, &entry.key_span, path);
        self.check_names(&pipeline);
        Some(pipeline)
    }

    fn component(&mut self, kind: Kind, value: &Value, table: &Table, path: &str) -> Option<Component> {
        let type_value = table.get("type")?;
        let type_name = type_value.as_text()?.clone();
        let name = table.get("name").and_then(Value::as_text).map(|text| text.value.clone());
        if let (Some(name), Some(value)) = (&name, table.get("name"))
            && let Some(problem) = bad_name(name, &value.span, &join(path, "name"))
        {
            self.problems.push(problem);
        }
        let is_engine = |key: &str| COMPONENT_KEYS.iter().any(|(known, _)| *known == key);
        let given = table.filtered(|key| is_engine(key) && key != "type" && key != "name");
        let settings: ComponentSettings = self.typed(given.to_json(), &value.span, path);
        self.check_throttle(&settings, &given, path);
        self.check_buffer(kind, &settings.buffer, &given, path);
        Some(Component {
            kind,
            type_span: type_value.span.clone(),
            named: name.is_some(),
            name: name.unwrap_or_else(|| type_name.value.clone()),
            type_name,
            path: path.into(),
            span: value.span.clone(),
            settings,
            given,
            config: table.filtered(|key| !is_engine(key)),
        })
    }

    fn check_buffer(&mut self, kind: Kind, buffer: &Buffer, given: &Table, path: &str) {
        let Some(span) = given.locate("buffer") else { return };
        let mut problem = |key: &str, message: String, hint: &str| {
            let span = given.locate(&format!("buffer.{key}")).unwrap_or_else(|| span.clone());
            self.problems.push(Problem::new(&span, format!("{path}.buffer"), message).hint(hint));
        };
        const EXAMPLE: &str = "buffer = { type = \"disk\", max = \"10GiB\" }";
        match (buffer.kind, buffer.max) {
            (BufferType::Memory, _) => {
                let table = given.get("buffer").and_then(Value::as_table);
                for key in DISK_BUFFER_KEYS.iter().filter(|key| table.is_some_and(|table| table.get(key).is_some())) {
                    problem(key, format!("`{key}` is a key of disk buffers"), EXAMPLE);
                }
            }
            (BufferType::Disk, _) if kind != Kind::Sink || path.ends_with(".dead-letter") => {
                let what = if kind == Kind::Sink { "the sink of dead letters".to_owned() } else { format!("a {kind}") };
                problem("type", format!("{what} has no disk buffer"), "give it to a sink: what that has not taken waits there");
            }
            (BufferType::Disk, None) => problem("type", "a disk buffer needs to know how large it may get: `max`".into(), EXAMPLE),
            (BufferType::Disk, Some(max)) if max < DISK_BUFFER_BYTES_MIN => {
                problem("max", format!("{} is too small for a disk buffer", format_bytes(max)), "1MiB at least");
            }
            (BufferType::Disk, Some(_)) => {}
        }
    }

    fn check_throttle(&mut self, settings: &ComponentSettings, given: &Table, path: &str) {
        let Some(throttle) = &settings.throttle else { return };
        let message = match (throttle.rows, throttle.bytes) {
            (None, None) => "the throttle lets everything pass",
            (_, Some(0)) => "the throttle lets nothing pass",
            _ => return,
        };
        let span = given.locate("throttle.bytes").or_else(|| given.locate("throttle")).unwrap_or_default();
        let problem = Problem::new(&span, join(path, "throttle"), message);
        self.problems.push(problem.hint("throttle = { rows = 10000, bytes = \"10MiB\" } is so much a second; one of the two is enough"));
    }

    fn check_delays(&mut self, settings: &PipelineSettings, given: &Table, span: &Span, path: &str) {
        let positive = [
            ("checkpoint-interval", settings.checkpoint_interval),
            ("retry-delay-min", settings.retry_delay_min),
            ("call-timeout", settings.call_timeout),
        ];
        for (key, value) in positive.into_iter().filter(|(_, value)| value.is_zero()) {
            let span = given.locate(key).unwrap_or_else(|| span.clone());
            self.problems.push(Problem::new(&span, join(path, key), format!("`{}` is too short", format_duration(value))));
        }
        if settings.retry_delay_min > settings.retry_delay_max {
            let (key, least) = ("retry-delay-max", settings.retry_delay_min);
            let span = given.locate(key).or(given.locate("retry-delay-min")).unwrap_or_else(|| span.clone());
            let message = format!("the longest wait is below the first one, {}", format_duration(least));
            self.problems.push(Problem::new(&span, join(path, key), message));
        }
    }

    /// Names are unique within a pipeline.
    fn check_names(&mut self, pipeline: &Pipeline) {
        let mut seen: HashMap<&str, &Component> = HashMap::new();
        for component in pipeline.components() {
            let Some(first) = seen.insert(&component.name, component) else { continue };
            let message =
                format!("two components of pipeline `{}` are named `{}`", pipeline.name, component.name);
            let problem = Problem::new(&component.type_span, &component.path, message);
            self.problems.push(problem.hint(format!("give this one or {} a `name` of its own", first.path)));
        }
    }

    fn replica(&mut self, entry: &Entry, table: &Table, path: &str) -> Option<Replica> {
        let type_value = table.get("type")?;
        let sites_value = table.get("sites")?;
        let sites = sites_value.as_table()?.clone();
        if sites.entries.len() < 2 {
            let problem = Problem::new(&sites_value.span, join(path, "sites"), "a replica needs two sites at least");
            self.problems.push(problem.hint("sites = { a = \"ADDRESS\", b = \"ADDRESS\" }"));
        }
        for (index, site) in sites.entries.iter().enumerate() {
            let path = join(&join(path, "sites"), &site.key);
            self.problems.extend(bad_name(&site.key, &site.key_span, &path));
            // Where variables need not be set, an empty one says nothing of the address.
            let address = |entry: &Entry| entry.value.as_text().map(|text| match text.value.is_empty() {
                true => text.shown().to_owned(),
                false => text.value.clone(),
            });
            if let Some(same) = sites.entries[..index].iter().find(|other| address(other) == address(site)) {
                let message = format!("sites `{}` and `{}` have the same address", same.key, site.key);
                self.problems.push(Problem::new(&site.value.span, path, message));
            }
        }
        let known = serde_json::to_value(PipelineSettings::default()).unwrap_or_default();
        let given = table.filtered(|key| known.get(key).is_some());
        let settings: PipelineSettings = self.typed(given.to_json(), &entry.key_span, path);
        self.check_delays(&settings, &given, &entry.key_span, path);
        Some(Replica {
            name: entry.key.clone(),
            span: entry.key_span.clone(),
            type_name: type_value.as_text()?.clone(),
            type_span: type_value.span.clone(),
            settings,
            given,
            sites,
            config: table.filtered(|key| known.get(key).is_none() && key != "type" && key != "sites"),
        })
    }
}

/// Names are part of state keys, metrics and file names.
fn bad_name(name: &str, span: &Span, path: &str) -> Option<Problem> {
    let good = !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let message = format!("`{name}` cannot be a name");
    (!good).then(|| {
        Problem::new(span, path, message)
            .hint(format!("use letters, digits, `-` and `_` of ASCII, {NAME_BYTES_MAX} at most"))
    })
}

const NAME_BYTES_MAX: usize = 64;
