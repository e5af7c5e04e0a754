//! Capability negotiation: what one component of a pipeline requires of the others, they must provide, and are told to.

use std::collections::BTreeSet;

use pipeline_sdk::{Kind, Requirement};

use super::catalog::Catalog;
use super::model::Node;
use crate::config::problem::{Problem, listed};
use crate::config::{Component, Pipeline};

/// Fills `negotiated` of every node.
///
/// A requirement of a kind holds for every component of that kind in the pipeline (all its sinks), and fails where there is
/// none.
pub(super) fn negotiate(
    pipeline: &Pipeline,
    source: &mut Node,
    transforms: &mut [Node],
    sinks: &mut [Node],
    catalog: &dyn Catalog,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut nodes: Vec<&mut Node> =
        std::iter::once(source).chain(transforms.iter_mut()).chain(sinks.iter_mut()).collect();
    let written: Vec<&Component> = pipeline.components().collect();
    let required: Vec<(usize, Requirement)> = nodes
        .iter()
        .enumerate()
        .flat_map(|(index, node)| node.description.requires.iter().map(move |it| (index, it.clone())))
        .collect();
    for (asking, requirement) in required {
        let mut found = false;
        for index in 0..nodes.len() {
            if nodes[index].kind != requirement.of || index == asking {
                continue;
            }
            found = true;
            if nodes[index].description.provides.contains(&requirement.capability) {
                nodes[index].negotiated.insert(requirement.capability.clone());
            } else {
                let lacking = format!("the {} `{}`", requirement.of, nodes[index].type_name);
                problems.push(refuse(written[index], &lacking, &requirement, catalog));
            }
        }
        if !found {
            let who = format!("a pipeline without a {}", requirement.of);
            problems.push(refuse(written[asking], &who, &requirement, catalog));
        }
    }
    problems
}

/// `who` lacks what is required; reported at `place`.
fn refuse(place: &Component, who: &str, requirement: &Requirement, catalog: &dyn Catalog) -> Problem {
    let Requirement { of, capability, reason } = requirement;
    let message = format!("{who} lacks `{capability}`: {reason}");
    let able: BTreeSet<&str> = catalog
        .plugins()
        .into_iter()
        .flat_map(|plugin| &plugin.components)
        .filter(|it| it.kind == *of && it.provides.contains(capability))
        .map(|it| it.type_name.as_str())
        .collect();
    let able: Vec<&str> = able.into_iter().collect();
    let problem = Problem::new(&place.type_span, &place.path, message);
    match (able.is_empty(), of) {
        (true, _) => problem.hint(format!("no known {of} has it; `pipeline plugin list` shows what was found")),
        (false, Kind::Transform) => problem.hint(format!("add {} to the pipeline", listed(&able))),
        (false, _) => problem.hint(format!("{} has it", listed(&able))),
    }
}
