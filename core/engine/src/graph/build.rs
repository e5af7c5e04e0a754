//! From a [`File`] and a [`Catalog`] to a [`Graph`]: types resolved, configurations checked by schema and by the plugin, replicas
//! written out, capabilities negotiated, decoders placed. Everything that is wrong is reported at once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use pipeline_sdk::{ComponentDescription, Kind};
use serde_json::Value as Json;

use super::catalog::Catalog;
use super::model::{Graph, Node, PipelineGraph, Step};
use super::{expand, negotiate, topology};
use crate::config::problem::{Problem, Report, line_and_column};
use crate::config::settings::{COMPONENT_KEYS, WHEN_TRANSFORM};
use crate::config::value::{Span, join};
use crate::config::{BufferType, Component, ComponentSettings, File, Pipeline, Schema};

impl Graph {
    /// Checks a file against the plugins that are known.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn build(file: &File, catalog: &dyn Catalog) -> Result<Self, Report> {
        Self::build_for(Purpose::Run, file, catalog)
    }

    /// The same for `pipeline test`, where other ends stand in for sources and sinks: what only they and their surroundings must be
    /// is not looked at, so that no variable need be set for it.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn build_for_cases(file: &File, catalog: &dyn Catalog) -> Result<Self, Report> {
        Self::build_for(Purpose::Cases, file, catalog)
    }

    fn build_for(purpose: Purpose, file: &File, catalog: &dyn Catalog) -> Result<Self, Report> {
        let mut builder = Builder { purpose, file, catalog, problems: Vec::new() };
        let pipelines = builder.expanded();
        let services: Vec<Option<Node>> = file.services.iter().map(|service| builder.node(service)).collect();
        let graphs: Vec<Option<PipelineGraph>> = pipelines.iter().map(|pipeline| builder.pipeline(pipeline)).collect();
        builder.cases(&pipelines);
        builder.unknown_plugins();
        if !builder.problems.is_empty() {
            return Err(file.report(builder.problems));
        }
        let graphs: Vec<PipelineGraph> = graphs.into_iter().flatten().collect();
        let problems = match purpose {
            Purpose::Run => topology::check(&graphs.iter().collect::<Vec<_>>()),
            Purpose::Cases => Vec::new(),
        };
        if !problems.is_empty() {
            return Err(file.report(problems.into_iter().map(|(_, problem)| problem).collect()));
        }
        let replicas = topology::replicas(&graphs, catalog);
        let graphs = match purpose {
            Purpose::Run => crate::buffer::expand(graphs, &file.state),
            Purpose::Cases => graphs,
        };
        Ok(Self {
            file: file.name.clone(),
            folder: file.folder.clone(),
            state: file.state.clone(),
            engine: file.engine.clone(),
            plugins: file.plugins.clone(),
            services: services.into_iter().flatten().collect(),
            replicas,
            pipelines: graphs,
            cases: file.cases.clone(),
            redactor: file.redactor.clone(),
            text: file.text.clone(),
        })
    }

    /// Checks files that one process runs together.
    ///
    /// # Errors
    /// What is wrong with the first file that does what another one does, goes in circles with it, or shares its state.
    pub fn check_together<'g>(graphs: impl IntoIterator<Item = &'g Self>) -> Result<(), Report> {
        let graphs: Vec<&Self> = graphs.into_iter().collect();
        for (index, graph) in graphs.iter().enumerate() {
            if let Some(other) = graphs[..index].iter().find(|other| other.state == graph.state) {
                let message = format!("the file shares its state folder `{}` with {}", graph.state.display(), other.file);
                let problem = Problem::of_file(message).hint("give one of them `[state]` with a `path` of its own");
                return Err(graph.report(vec![problem]));
            }
        }
        let all: Vec<(&Self, &PipelineGraph)> =
            graphs.iter().flat_map(|&graph| graph.pipelines.iter().map(move |pipeline| (graph, pipeline))).collect();
        let problems = topology::check(&all.iter().map(|(_, pipeline)| *pipeline).collect::<Vec<_>>());
        let Some(first) = problems.first().map(|(index, _)| all[*index].0) else { return Ok(()) };
        let of_first = problems.into_iter().filter(|(index, _)| std::ptr::eq(all[*index].0, first));
        Err(first.report(of_first.map(|(_, problem)| problem).collect()))
    }

    /// Line and column of a place in the file, from 1.
    pub fn line_and_column(&self, span: &Span) -> (usize, usize) {
        line_and_column(&self.text, span.start)
    }

    fn report(&self, problems: Vec<Problem>) -> Report {
        Report::new(&self.file, &self.text, &self.redactor, problems)
    }
}

/// What a graph is built for.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    Run,
    Cases,
}

struct Builder<'a> {
    purpose: Purpose,
    file: &'a File,
    catalog: &'a dyn Catalog,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    /// Pipelines as written, then those of replicas; names are unique.
    fn expanded(&mut self) -> Vec<Pipeline> {
        let mut pipelines = self.file.pipelines.clone();
        for replica in &self.file.replicas {
            match expand::expand(replica, self.catalog) {
                Ok(expanded) => pipelines.extend(expanded),
                Err(problems) => self.problems.extend(problems),
            }
        }
        let mut seen = BTreeSet::new();
        for pipeline in &pipelines {
            if !seen.insert(&pipeline.name) {
                let message = format!("two pipelines are named `{}`", pipeline.name);
                let owner = pipeline.replica.as_deref().map_or(String::new(), |name| join("replica", name));
                let problem = Problem::new(&pipeline.span, owner, message);
                self.problems.push(problem.hint("rename one of them; a replica's are named REPLICA-FROM-to-TO"));
            }
        }
        pipelines
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Option<PipelineGraph> {
        let source = self.node(&pipeline.source);
        let transforms: Vec<Option<Node>> = pipeline.transforms.iter().map(|it| self.node(it)).collect();
        let sinks: Vec<Option<Node>> = pipeline.sinks.iter().map(|it| self.node(it)).collect();
        let dead_letter = match &pipeline.dead_letter {
            Some(letters) => Some(self.node(letters)?),
            None => None,
        };
        let (mut source, mut transforms) = (source?, transforms.into_iter().collect::<Option<Vec<_>>>()?);
        let mut sinks = sinks.into_iter().collect::<Option<Vec<_>>>()?;
        self.problems.extend(negotiate::negotiate(pipeline, &mut source, &mut transforms, &mut sinks, self.catalog));
        self.buffers(pipeline, &source);
        for (component, sink) in pipeline.sinks.iter().zip(&sinks) {
            self.renames(pipeline, component, &source, sink);
        }
        let task_key = source.description.task_key.as_deref();
        let task_values = task_key.and_then(|key| source.config.get(key)).map_or_else(Vec::new, texts);
        let conditions: Vec<Option<Node>> = pipeline.sinks.iter().zip(&sinks).map(|(it, node)| self.when(it, node)).collect();
        let sinks = sinks.into_iter().zip(conditions).collect();
        let (source, transforms, sinks) = place_decoders(source, transforms, sinks);
        Some(PipelineGraph {
            name: pipeline.name.clone(),
            replica: pipeline.replica.clone(),
            settings: pipeline.settings.clone(),
            source,
            transforms,
            sinks,
            dead_letter,
            task_values,
            decoder: pipeline.source.type_name.value.clone(),
            buffer_of: None,
            span: pipeline.span.clone(),
        })
    }

    fn node(&mut self, component: &Component) -> Option<Node> {
        let type_name = &component.type_name.value;
        let Some((plugin, description)) = self.catalog.component(component.kind, type_name) else {
            self.problems.push(unknown_type(component, self.catalog));
            return None;
        };
        let title = format!("a `{type_name}` {}", component.kind);
        let keys: Vec<&str> =
            COMPONENT_KEYS.iter().filter(|(_, kinds)| kinds.contains(&component.kind)).map(|(key, _)| *key).collect();
        let problems =
            Schema::new(&description.schema, &title).beside(&keys).check(&component.config, &component.span, &component.path);
        let settings = match serde_json::from_value(component.given.to_json()) {
            Ok(settings) => settings,
            Err(error) => {
                self.problems.push(Problem::new(&component.span, &component.path, error.to_string()));
                return None;
            }
        };
        let mut config = component.config.to_json();
        default_task_values(description, &mut config);
        resolve_paths(&description.schema, &description.schema, &mut config, &self.file.folder);
        if problems.is_empty() && (self.purpose == Purpose::Run || component.kind == Kind::Transform) {
            self.lint(component, &config);
        }
        self.problems.extend(problems);
        let address_key = self.catalog.address_key(component.kind, type_name);
        Some(Node {
            kind: component.kind,
            type_name: type_name.clone(),
            name: component.name.clone(),
            site: component.named.then(|| component.name.clone()),
            path: component.path.clone(),
            plugin: plugin.to_owned(),
            description: Arc::new(description.clone()),
            settings,
            address: address_key.and_then(|key| config.get(key)?.as_str().map(str::to_owned)),
            config,
            shown: component.config.to_shown_json(),
            negotiated: BTreeSet::new(),
            built_in: None,
        })
    }

    /// A disk buffer stands where the source keeps nothing: a log that is read from a position is a buffer itself.
    fn buffers(&mut self, pipeline: &Pipeline, source: &Node) {
        let is_replica = pipeline.replica.is_some() || source.negotiated.contains(pipeline_sdk::describe::TELLS_REPLICATED);
        let message = match (&source.description.task_key, is_replica) {
            (_, true) => "a replica takes no disk buffer: what was written there would count as applied".to_owned(),
            (Some(_), false) => format!("a `{}` source takes no disk buffer: its log is one", source.type_name),
            (None, false) => return,
        };
        for sink in pipeline.sinks.iter().filter(|it| it.settings.buffer.kind == BufferType::Disk) {
            let span = sink.given.locate("buffer.type").unwrap_or_else(|| sink.span.clone());
            let problem = Problem::new(&span, join(&sink.path, "buffer"), message.clone());
            self.problems.push(problem.hint("leave it out: what the sink has not taken stays in the source's log, and is read again from there"));
        }
    }

    /// A replica's databases stay apart: two in one could not be compared with either, nor brought back.
    fn renames(&mut self, pipeline: &Pipeline, component: &Component, source: &Node, sink: &Node) {
        if pipeline.replica.is_none() && !source.negotiated.contains(pipeline_sdk::describe::TELLS_REPLICATED) {
            return;
        }
        let Some(key) = self.catalog.rename_key(&sink.type_name) else { return };
        let mut targets = BTreeMap::new();
        for (from, to) in topology::renamed(sink, self.catalog) {
            if let Some(other) = targets.insert(to.clone(), from.clone()) {
                let span = component.config.locate(&join(key, &from)).unwrap_or_else(|| component.span.clone());
                let message = format!("`{other}` and `{from}` would both be written to `{to}`");
                let problem = Problem::new(&span, join(&join(&component.path, key), &from), message);
                self.problems.push(problem.hint("a replica keeps what it reads apart: give each a name of its own"));
            }
        }
    }

    /// The transform that a sink's `when` stands for.
    fn when(&mut self, component: &Component, sink: &Node) -> Option<Node> {
        let text = sink.settings.when.as_ref()?;
        let (span, path) = (component.given.locate("when").unwrap_or_else(|| component.span.clone()), join(&component.path, "when"));
        let (type_name, key) = WHEN_TRANSFORM;
        let Some((plugin, description)) = self.catalog.component(Kind::Transform, type_name) else {
            let message = format!("`when` needs the transform `{type_name}`, and no plugin has it");
            self.problems.push(Problem::new(&span, path, message).hint("it is in the plugin `basics`; `--plugin-path` adds a folder"));
            return None;
        };
        let config = serde_json::json!({ key: text });
        for error in self.catalog.lint(Kind::Transform, type_name, &config) {
            let mut problem = Problem::new(&span, path.clone(), error.message);
            problem.hint = error.hint;
            self.problems.push(problem);
        }
        Some(Node {
            kind: Kind::Transform,
            type_name: type_name.into(),
            name: format!("{}-when", sink.name),
            site: None,
            path,
            plugin: plugin.to_owned(),
            description: Arc::new(description.clone()),
            settings: ComponentSettings::default(),
            shown: config.clone(),
            config,
            negotiated: BTreeSet::new(),
            built_in: None,
            address: None,
        })
    }

    /// What the plugin itself finds wrong, at the keys that it names.
    fn lint(&mut self, component: &Component, config: &Json) {
        for error in self.catalog.lint(component.kind, &component.type_name.value, config) {
            let key = error.path.as_deref().unwrap_or_default();
            let span = component.config.locate(key).unwrap_or_else(|| component.span.clone());
            let path = match key {
                "" => component.path.clone(),
                key => format!("{}.{key}", component.path),
            };
            let mut problem = Problem::new(&span, path, error.message);
            problem.hint = error.hint;
            self.problems.push(problem);
        }
    }

    /// What a case names must be there.
    fn cases(&mut self, pipelines: &[Pipeline]) {
        for case in &self.file.cases {
            let unknown = |span: &Span, key: &str, message: String| Problem::new(span, join(&case.path, key), message);
            let Some(pipeline) = pipelines.iter().find(|it| it.name == case.pipeline) else {
                let problem = unknown(&case.pipeline_span, "pipeline", format!("there is no pipeline `{}`", case.pipeline));
                self.problems.push(problem.suggest(&case.pipeline, pipelines.iter().map(|it| it.name.as_str())));
                continue;
            };
            if let Some((from, span)) = case.from.as_ref().filter(|(from, _)| pipeline.transforms.iter().all(|it| it.name != *from)) {
                let problem = unknown(span, "from", format!("pipeline `{}` has no transform `{from}`", pipeline.name));
                self.problems.push(problem.suggest(from, pipeline.transforms.iter().map(|it| it.name.as_str())));
            }
            for expected in case.expected.iter().filter(|it| pipeline.sinks.iter().all(|sink| sink.name != it.sink)) {
                let message = format!("pipeline `{}` has no sink `{}`", pipeline.name, expected.sink);
                let path = join(&join(&case.path, "expect"), &expected.sink);
                let problem = Problem::new(&expected.span, path, message);
                self.problems.push(problem.suggest(&expected.sink, pipeline.sinks.iter().map(|it| it.name.as_str())));
            }
        }
    }

    fn unknown_plugins(&mut self) {
        let known: Vec<&str> = self.catalog.plugins().into_iter().map(|plugin| plugin.name.as_str()).collect();
        for name in self.file.plugins.keys().filter(|name| !known.contains(&name.as_str())) {
            let problem = Problem::of_file(format!("`[plugin.{name}]` is about a plugin that was not found"));
            self.problems.push(problem.suggest(name, known.iter().copied()));
        }
    }
}

fn unknown_type(component: &Component, catalog: &dyn Catalog) -> Problem {
    let (name, kind) = (component.type_name.shown(), component.kind);
    let path = join(&component.path, "type");
    let descriptions: Vec<&ComponentDescription> =
        catalog.plugins().into_iter().flat_map(|plugin| &plugin.components).collect();
    let of_kind = |kind| descriptions.iter().filter(move |it| it.kind == kind).map(|it| it.type_name.as_str());
    if let Some(other) = descriptions.iter().find(|it| it.type_name == name && it.kind != Kind::Site) {
        let problem = Problem::new(&component.type_span, path, format!("`{name}` is a {}, not a {kind}", other.kind));
        return problem.suggest(name, of_kind(kind));
    }
    let problem = Problem::new(&component.type_span, path, format!("no plugin has a {kind} of type `{name}`"));
    match of_kind(kind).next() {
        Some(_) => problem.suggest(name, of_kind(kind)),
        None => {
            let hint = format!(
                "no plugin with a {kind} was found; `pipeline plugin list` shows where they are looked for, `--plugin-path` adds a folder"
            );
            problem.hint(hint)
        }
    }
}

/// What divides a pipeline into tasks must be known also where the file leaves it to the source's default.
fn default_task_values(description: &ComponentDescription, config: &mut Json) {
    let Some(key) = &description.task_key else { return };
    let default = description.schema.pointer(&format!("/properties/{key}/default"));
    if let (Some(default), Some(object)) = (default, config.as_object_mut()) {
        object.entry(key.clone()).or_insert_with(|| default.clone());
    }
}

/// Paths in a file are relative to it: strings whose schema has the format `path` are put under its folder.
fn resolve_paths(root: &Json, schema: &Json, config: &mut Json, folder: &Path) {
    let target = schema.get("$ref").and_then(Json::as_str).and_then(|to| root.pointer(to.trim_start_matches('#')));
    let schema = target.unwrap_or(schema);
    if let Some(forms) = schema.get("anyOf").and_then(Json::as_array) {
        // One value or several: the form that the file has.
        let wanted = if config.is_array() { "array" } else { "string" };
        if let Some(form) = forms.iter().find(|form| form.get("type").and_then(Json::as_str) == Some(wanted)) {
            resolve_paths(root, form, config, folder);
        }
        return;
    }
    match config {
        Json::String(text) if schema.get("format").and_then(Json::as_str) == Some("path") => {
            *text = folder.join(&*text).to_string_lossy().into_owned();
        }
        Json::Object(object) => {
            for (key, value) in object {
                let rule = schema.get("properties").and_then(|rules| rules.get(key)).or(schema.get("additionalProperties"));
                if let Some(rule) = rule {
                    resolve_paths(root, rule, value, folder);
                }
            }
        }
        Json::Array(items) => {
            let Some(rule) = schema.get("items") else { return };
            items.iter_mut().for_each(|item| resolve_paths(root, rule, item, folder));
        }
        _ => {}
    }
}

/// A string, or the strings of an array.
fn texts(value: &Json) -> Vec<String> {
    match value {
        Json::String(text) => vec![text.clone()],
        Json::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    }
}

/// Puts the decoder before the first consumer that needs rows: in the chain once, else branch by branch.
fn place_decoders(source: Node, transforms: Vec<Node>, sinks: Vec<(Node, Option<Node>)>) -> (Step, Vec<Step>, Vec<Step>) {
    let mut frames = source.description.frames.clone();
    let step = |node: Node, arriving: &BTreeSet<String>| {
        let takes = |format: &String| node.description.any_frame || node.description.frames.contains(format);
        let (kept, decodes) = arriving.iter().cloned().partition(takes);
        Step { node, frames: kept, decodes, when: None }
    };
    let source = Step { node: source, frames: frames.clone(), decodes: BTreeSet::new(), when: None };
    let mut placed = Vec::new();
    for node in transforms {
        let step = step(node, &frames);
        frames.clone_from(&step.frames);
        placed.push(step);
    }
    let sink = |(node, when): (Node, Option<Node>)| match &when {
        // It looks into rows.
        Some(_) => Step { node, frames: BTreeSet::new(), decodes: frames.clone(), when },
        None => step(node, &frames),
    };
    (source, placed, sinks.into_iter().map(sink).collect())
}
