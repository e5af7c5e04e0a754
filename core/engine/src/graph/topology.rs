//! Checks over all pipelines of a file: nothing is done twice, nothing goes in circles, replicas are full meshes.
//!
//! Sites are told apart by address here, as far as plugins tell which key holds it; that two addresses are one site is seen only
//! at connect, and checked again there (invariant `no-loop`).

use std::collections::{BTreeMap, BTreeSet};

use pipeline_sdk::Kind;
use serde_json::{Map, Value as Json};

use super::catalog::Catalog;
use super::model::{ALL, Direction, Node, PipelineGraph, ReplicaGraph, SiteGraph, Step};
use crate::config::problem::{Problem, listed};
use crate::config::value::join;

/// By convention the key with which a sink renames namespaces: such a sink does not write to what a source of the same
/// name reads.
const RENAME_KEY: &str = "map";

/// One branch of a pipeline: what is read, and where it is written.
struct Edge<'g> {
    pipeline: usize,
    from: Endpoint<'g>,
    to: Endpoint<'g>,
    tasks: Tasks<'g>,
    is_replica: bool,
    renames: bool,
}

/// What a component connects to.
#[derive(Clone, Copy, PartialEq)]
enum Endpoint<'g> {
    Address(&'g str),
    /// The component's whole configuration, where its plugin does not tell its address.
    Config(&'g str, &'g Json, Option<&'g str>),
}

impl<'g> Endpoint<'g> {
    fn of(node: &'g Node) -> Self {
        match &node.address {
            Some(address) => Self::Address(address),
            None => Self::Config(&node.type_name, &node.config, node.description.task_key.as_deref()),
        }
    }

    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(other)) => one == other,
            (Self::Config(one_type, one, key), Self::Config(other_type, other, _)) => {
                one_type == other_type && without(one, *key) == without(other, *key)
            }
            _ => false,
        }
    }
}

fn without(config: &Json, key: Option<&str>) -> Map<String, Json> {
    let object = config.as_object().into_iter().flatten();
    object.filter(|(name, _)| Some(name.as_str()) != key).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// The namespaces that a pipeline reads.
struct Tasks<'g> {
    names: &'g [String],
    /// What `*` leaves out.
    excluded: Vec<String>,
}

impl<'g> Tasks<'g> {
    fn of(graph: &'g PipelineGraph) -> Self {
        Self { names: &graph.task_values, excluded: graph.excluded() }
    }

    /// A source that is not divided, or whose default the file leaves as it is, may read everything.
    fn is_all(&self) -> bool {
        self.names.is_empty() || self.names.iter().any(|name| name == ALL)
    }

    fn has(&self, name: &String) -> bool {
        self.names.contains(name) || self.is_all() && !self.excluded.contains(name)
    }

    /// What both may read, if there is anything.
    fn overlap(&self, other: &Self) -> Option<String> {
        match (self.is_all(), other.is_all()) {
            (true, true) => Some(other.names.first().cloned().unwrap_or_default()),
            (true, false) => other.names.iter().find(|name| self.has(name)).cloned(),
            (false, _) => self.names.iter().find(|name| other.has(name)).cloned(),
        }
    }
}

/// All that is wrong with the pipelines together, each with the index of the pipeline to blame.
pub(super) fn check(graphs: &[&PipelineGraph]) -> Vec<(usize, Problem)> {
    let edges: Vec<Edge<'_>> = graphs
        .iter()
        .enumerate()
        .flat_map(|(pipeline, &graph)| graph.sinks.iter().map(move |sink| edge(pipeline, graph, sink)))
        .collect();
    let mut problems = duplicates(&edges, graphs);
    if problems.is_empty() {
        problems.extend(circles(&edges, graphs));
        problems.extend(meshes(&edges, graphs));
    }
    problems
}

fn edge<'g>(pipeline: usize, graph: &'g PipelineGraph, sink: &'g Step) -> Edge<'g> {
    Edge {
        pipeline,
        from: Endpoint::of(&graph.source.node),
        to: Endpoint::of(&sink.node),
        tasks: Tasks::of(graph),
        is_replica: graph.is_replica(),
        renames: sink.node.config.get(RENAME_KEY).is_some(),
    }
}

/// Blames the pipeline at `index`.
fn blame(index: usize, graphs: &[&PipelineGraph], message: String, hint: &str) -> (usize, Problem) {
    let pipeline = graphs[index];
    let path = match &pipeline.replica {
        Some(replica) => join("replica", replica),
        None => join("pipeline", &pipeline.name),
    };
    (index, Problem::new(&pipeline.span, path, message).hint(hint))
}

/// Two tasks with the same source, sink and database would apply everything twice, and fight over one group's lanes.
fn duplicates(edges: &[Edge<'_>], graphs: &[&PipelineGraph]) -> Vec<(usize, Problem)> {
    let mut problems = Vec::new();
    for (index, edge) in edges.iter().enumerate() {
        let same = edges[..index].iter().find_map(|earlier| {
            let same_ends = earlier.from.is_same(&edge.from) && earlier.to.is_same(&edge.to);
            let renamed_apart = earlier.renames != edge.renames;
            (same_ends && !renamed_apart).then(|| earlier.tasks.overlap(&edge.tasks)).flatten().map(|task| (earlier, task))
        });
        let Some((earlier, task)) = same else { continue };
        let what = match task.as_str() {
            "" => String::new(),
            ALL => " for every database".into(),
            name => format!(" for `{name}`"),
        };
        let (name, other) = (&graphs[edge.pipeline].name, &graphs[earlier.pipeline].name);
        let (message, hint) = match earlier.pipeline == edge.pipeline {
            true => (format!("two sinks of `{name}` write to the same place"), "remove one of them"),
            false => (
                format!("`{name}` has the same source and sink as `{other}`{what}"),
                "remove one of them, or divide the databases between them",
            ),
        };
        problems.push(blame(edge.pipeline, graphs, message, hint));
    }
    problems
}

/// What is written unmarked at a site and read there again goes round for ever.
fn circles(edges: &[Edge<'_>], graphs: &[&PipelineGraph]) -> Vec<(usize, Problem)> {
    let mut problems = Vec::new();
    for (index, edge) in edges.iter().enumerate() {
        if edge.is_replica && edge.from.is_same(&edge.to) {
            let message = format!("source and sink of `{}` are one and the same site", graphs[edge.pipeline].name);
            problems.push(blame(edge.pipeline, graphs, message, "a replica needs two sites"));
        }
        // Each circle is reported once, at its last pipeline.
        if let Some(path) = way_back(edges, index)
            && path.iter().all(|step| *step <= index)
            && path.iter().any(|step| !edges[*step].is_replica)
        {
            let names: Vec<&str> = path.iter().map(|step| graphs[edges[*step].pipeline].name.as_str()).collect();
            let message = format!("what is written here would go round for ever through {}", listed(&names));
            let hint = "a transform such as `loop-mark` in each of them keeps replicated writes apart";
            problems.push(blame(edge.pipeline, graphs, message, hint));
        }
    }
    problems
}

/// The shortest circle through an edge, as indices of edges; edges that rename lead nowhere.
fn way_back(edges: &[Edge<'_>], start: usize) -> Option<Vec<usize>> {
    let mut paths = vec![vec![start]];
    let mut seen = BTreeSet::from([start]);
    while let Some(path) = (!paths.is_empty()).then(|| paths.remove(0)) {
        let last = &edges[*path.last()?];
        if last.renames {
            continue;
        }
        if last.to.is_same(&edges[start].from) && (path.len() > 1 || !last.is_replica) {
            return Some(path);
        }
        for (next, edge) in edges.iter().enumerate() {
            let follows = last.to.is_same(&edge.from) && last.tasks.overlap(&edge.tasks).is_some();
            if follows && seen.insert(next) {
                let mut longer = path.clone();
                longer.push(next);
                paths.push(longer);
            }
        }
    }
    None
}

/// One mark bit tells "replicated", not from where: marked rows are not passed on, so each site must send to each other one.
fn meshes(edges: &[Edge<'_>], graphs: &[&PipelineGraph]) -> Vec<(usize, Problem)> {
    let replicas: Vec<&Edge<'_>> = edges.iter().filter(|edge| edge.is_replica && !edge.renames).collect();
    let mut problems = Vec::new();
    for second in &replicas {
        for first in replicas.iter().filter(|first| first.to.is_same(&second.from) && !first.from.is_same(&second.to)) {
            let direct = replicas.iter().any(|edge| {
                edge.from.is_same(&first.from) && edge.to.is_same(&second.to) && edge.tasks.overlap(&second.tasks).is_some()
            });
            if direct || first.tasks.overlap(&second.tasks).is_none() {
                continue;
            }
            let (before, after) = (&graphs[first.pipeline].name, &graphs[second.pipeline].name);
            let message = format!("`{after}` does not pass on what `{before}` brings: replicated rows go one step only");
            let hint = "replicas are full meshes: add a pipeline from the first site to the last, or use `[replica.NAME]`";
            problems.push(blame(second.pipeline, graphs, message, hint));
        }
    }
    problems
}

/// Replicas with their sites: those written as `[replica]`, and pipelines that are one without being called so.
pub(super) fn replicas(graphs: &[PipelineGraph], catalog: &dyn Catalog) -> Vec<ReplicaGraph> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    for graph in graphs.iter().filter(|graph| graph.is_replica()) {
        let ends: Vec<&Node> = std::iter::once(&graph.source).chain(&graph.sinks).map(|step| &step.node).collect();
        let mut group = Group { pipelines: vec![graph], sites: BTreeMap::new() };
        let names = graph.name.split_once("-to-");
        for (node, fallback) in ends.iter().zip([names.map(|it| it.0), names.map(|it| it.1), None, None]) {
            let (Some(address), Some(facet)) = (&node.address, facet(node, catalog)) else { continue };
            let name = node.site.clone().or(fallback.map(str::to_owned)).unwrap_or_else(|| node.name.clone());
            group.sites.insert(address, (name, facet));
        }
        // Groups that share a site for the same databases are one.
        let (joined, rest): (Vec<_>, Vec<_>) = groups.into_iter().partition(|other| other.meets(&group));
        groups = rest;
        let mut merged = Group { pipelines: Vec::new(), sites: BTreeMap::new() };
        for part in joined.into_iter().chain([group]) {
            merged.pipelines.extend(part.pipelines);
            for (address, site) in part.sites {
                merged.sites.entry(address).or_insert(site);
            }
        }
        groups.push(merged);
    }
    groups.into_iter().filter(|group| group.sites.len() > 1).map(|group| group.finish(catalog)).collect()
}

/// Pipelines over the same sites; a site is its address, with a name and what reaches it.
struct Group<'g> {
    pipelines: Vec<&'g PipelineGraph>,
    sites: BTreeMap<&'g str, (String, SiteGraph)>,
}

impl Group<'_> {
    fn meets(&self, other: &Self) -> bool {
        self.sites.keys().any(|address| other.sites.contains_key(address))
            && self.pipelines.iter().any(|one| {
                other.pipelines.iter().any(|two| {
                    one.replica == two.replica && Tasks::of(one).overlap(&Tasks::of(two)).is_some()
                })
            })
    }

    fn directions(&self, catalog: &dyn Catalog) -> Vec<Direction> {
        let index = |node: &Node| self.sites.keys().position(|address| Some(*address) == node.address.as_deref());
        let direction = |pipeline: &PipelineGraph, sink: &Node| {
            Some(Direction {
                from: index(&pipeline.source.node)?,
                to: index(sink)?,
                values: pipeline.task_values.clone(),
                excluded: pipeline.excluded(),
                renamed: renamed(sink, catalog),
            })
        };
        let of_pipelines = self.pipelines.iter().flat_map(|pipeline| pipeline.sinks.iter().map(move |sink| (pipeline, &sink.node)));
        of_pipelines.filter_map(|(pipeline, sink)| direction(pipeline, sink)).collect()
    }

    fn finish(self, catalog: &dyn Catalog) -> ReplicaGraph {
        let directions = self.directions(catalog);
        let names: Vec<String> = self.pipelines.iter().map(|pipeline| pipeline.name.clone()).collect();
        let tasks: BTreeSet<String> = self.pipelines.iter().flat_map(|it| it.task_values.iter().cloned()).collect();
        let replica = self.pipelines.first().and_then(|pipeline| pipeline.replica.clone());
        let sites: Vec<SiteGraph> =
            self.sites.into_values().map(|(name, facet)| SiteGraph { name, ..facet }).collect();
        ReplicaGraph {
            name: replica.unwrap_or_else(|| {
                sites.iter().map(|site| site.name.as_str()).collect::<Vec<_>>().join(" and ")
            }),
            type_name: sites.first().map(|site| site.type_name.clone()).unwrap_or_default(),
            pipelines: names,
            sites,
            task_values: tasks.into_iter().collect(),
            directions,
        }
    }
}

/// Values of the source's task key that a sink writes under another name.
pub(super) fn renamed(sink: &Node, catalog: &dyn Catalog) -> BTreeMap<String, String> {
    let table = catalog.rename_key(&sink.type_name).and_then(|key| sink.config.get(key)?.as_object());
    let pairs = table.into_iter().flatten().filter_map(|(from, to)| Some((from.clone(), to.as_str()?.to_owned())));
    pairs.collect()
}

/// What reaches the site that a source or sink connects to: its address, and those of its keys that the site takes as well. `None`
/// where no plugin has a site facet for it.
pub fn facet(node: &Node, catalog: &dyn Catalog) -> Option<SiteGraph> {
    let address_key = catalog.address_key(node.kind, &node.type_name)?;
    let replica = catalog.plugins().into_iter().filter_map(|plugin| plugin.replica.as_ref()).find(|replica| {
        match node.kind {
            Kind::Source => replica.source == node.type_name,
            Kind::Sink => replica.sink == node.type_name,
            _ => false,
        }
    })?;
    let (plugin, site) = catalog.component(Kind::Site, &replica.site)?;
    node.config.get(address_key)?;
    let takes = |key: &str| site.schema.get("properties").is_some_and(|properties| properties.get(key).is_some());
    let taken = node.config.as_object()?.iter().filter(|(key, _)| takes(key));
    let config: Map<String, Json> = taken.map(|(key, value)| (key.clone(), value.clone())).collect();
    Some(SiteGraph { name: node.name.clone(), type_name: replica.site.clone(), plugin: plugin.into(), config: config.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_excludes_is_not_its() {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |(one, without_one): (&str, &str), (other, without_other): (&str, &str), expect: Option<&str>| {
            let (one, other) = (names(one), names(other));
            let one = Tasks { names: &one, excluded: names(without_one) };
            let other = Tasks { names: &other, excluded: names(without_other) };
            assert_eq!(one.overlap(&other).as_deref(), expect);
            assert_eq!(other.overlap(&one).is_some(), expect.is_some());
        };
        check(("a b", ""), ("b c", ""), Some("b"));
        check(("a", ""), ("b", ""), None);
        check(("*", ""), ("a", ""), Some("a"));
        check(("*", "a"), ("a", ""), None);
        check(("*", "a"), ("a b", ""), Some("b"));
        check(("", "a"), ("a", ""), None);
        check(("*", "a"), ("*", "b"), Some("*"));
        // What is named stays, whatever `*` leaves out.
        check(("* a", "a"), ("a", ""), Some("a"));
    }
}
