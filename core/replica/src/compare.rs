//! Comparing the sites of a replica: every table's definition, number of rows and hash (invariant `converged`).
//!
//! Meaningful once writes stopped and lanes are drained; before that, a difference may be on its way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pipeline_engine::config::Redactor;
use pipeline_engine::graph::{Direction, ReplicaGraph};
use pipeline_engine::host::Plugins;
use pipeline_sdk::Result;
use pipeline_sdk::site::Digest;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::site::{OpenSite, open, within};

/// Differences of one database that are told one by one; all are counted.
pub const DIFFERENCES_SHOWN_MAX: usize = 20;
/// Every database of a site.
const ALL: &str = "*";

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Comparison {
    pub replica: String,
    pub databases: Vec<DatabaseComparison>,
}

impl Comparison {
    pub fn is_equal(&self) -> bool {
        self.databases.iter().all(|database| database.difference_count == 0)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct DatabaseComparison {
    /// As it is called where it is read.
    pub database: String,
    pub sites: Vec<SiteContent>,
    pub difference_count: usize,
    /// At most [`DIFFERENCES_SHOWN_MAX`].
    pub differences: Vec<Difference>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct SiteContent {
    pub site: String,
    /// What a sink that renames wrote it to; absent where it has the same name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed: Option<String>,
    pub tables: usize,
    pub rows: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Difference {
    pub table: String,
    /// In words: "a has 3 rows, b has 2".
    pub what: String,
}

/// Compares all sites of a replica, database by database. A call to a site may take `limit`.
///
/// # Errors
/// A site that does not answer.
pub async fn compare(
    replica: &ReplicaGraph,
    plugins: &Plugins,
    redactor: &Arc<Redactor>,
    limit: Duration,
) -> Result<Comparison> {
    let mut sites =
        replica.sites.iter().map(|site| open(site, plugins, redactor)).collect::<Result<Vec<OpenSite>>>()?;
    let mut listed = vec![BTreeSet::new(); sites.len()];
    if replica.directions.iter().any(Direction::is_all) {
        for (open, listed) in sites.iter_mut().zip(&mut listed) {
            listed.extend(within(limit, &open.name, open.site.databases()).await?);
        }
    }
    let mut compared = Vec::new();
    for pairing in pairings(&replica.directions, &listed) {
        let (back, digests) = digests(sites, &pairing, limit).await?;
        sites = back;
        let mut one = compare_digests(&pairing.database, &digests);
        for (content, name) in one.sites.iter_mut().zip(pairing.names.into_values()) {
            content.renamed = (name != pairing.database).then_some(name);
        }
        compared.push(one);
    }
    Ok(Comparison { replica: replica.name.clone(), databases: compared })
}

/// A database, and its name at each site that should hold the same.
#[derive(Debug, PartialEq)]
struct Pairing {
    database: String,
    names: BTreeMap<usize, String>,
}

/// What is to be compared with what: a database at all sites between which it goes by its own name, and once more for each
/// direction whose sink writes it under another one. `listed` is what each site has, where everything is read.
fn pairings(directions: &[Direction], listed: &[BTreeSet<String>]) -> Vec<Pairing> {
    let is_made = |site: usize, name: &String| {
        directions.iter().any(|it| it.to == site && it.renamed.iter().any(|(from, to)| to == name && it.target(from) == Some(to)))
    };
    let found = listed.iter().enumerate().flat_map(|(site, names)| names.iter().filter(move |name| !is_made(site, name)));
    let named = directions.iter().flat_map(|it| it.values.iter()).filter(|name| *name != ALL);
    let databases: BTreeSet<&String> = named.chain(found).collect();
    let mut pairings = Vec::new();
    for database in databases {
        let mut same = BTreeMap::new();
        let mut renamed = Vec::new();
        for direction in directions {
            let Some(target) = direction.target(database) else { continue };
            let names = BTreeMap::from([(direction.from, database.clone()), (direction.to, target.to_owned())]);
            match target == database {
                true => same.extend(names),
                // By `*`, what the first site does not have is not meant.
                false if direction.values.contains(database) || listed[direction.from].contains(database) => {
                    renamed.push(Pairing { database: database.clone(), names });
                }
                false => {}
            }
        }
        let same = (!same.is_empty()).then(|| Pairing { database: database.clone(), names: same });
        for pairing in same.into_iter().chain(renamed) {
            // There and back again, under the other name, is the same.
            if pairings.iter().all(|it: &Pairing| it.names != pairing.names) {
                pairings.push(pairing);
            }
        }
    }
    pairings
}

/// The digest of a database at every site that has to do with it, taken side by side; gives the sites back.
async fn digests(
    sites: Vec<OpenSite>,
    pairing: &Pairing,
    limit: Duration,
) -> Result<(Vec<OpenSite>, Vec<(String, Digest)>)> {
    let mut calls = JoinSet::new();
    for (index, mut open) in sites.into_iter().enumerate() {
        let name = pairing.names.get(&index).cloned();
        calls.spawn(async move {
            let digest = match name {
                Some(name) => Some(within(limit, &open.name, open.site.digest(&name, None)).await),
                None => None,
            };
            (index, open, digest)
        });
    }
    let mut answers = calls.join_all().await;
    answers.sort_by_key(|(index, ..)| *index);
    let (mut sites, mut digests) = (Vec::new(), Vec::new());
    for (_, open, digest) in answers {
        if let Some(digest) = digest {
            digests.push((open.name.clone(), digest?));
        }
        sites.push(open);
    }
    Ok((sites, digests))
}

/// Every table that is not the same everywhere.
fn compare_digests(database: &str, digests: &[(String, Digest)]) -> DatabaseComparison {
    let mut names: BTreeMap<&str, Vec<Option<&pipeline_sdk::site::TableDigest>>> = BTreeMap::new();
    for (index, (_, digest)) in digests.iter().enumerate() {
        for table in &digest.tables {
            names.entry(&table.table).or_insert_with(|| vec![None; digests.len()])[index] = Some(table);
        }
    }
    let sites: Vec<&str> = digests.iter().map(|(site, _)| site.as_str()).collect();
    let differences: Vec<Difference> = names
        .into_iter()
        .filter_map(|(table, found)| Some(Difference { table: table.into(), what: difference(&sites, &found)? }))
        .collect();
    DatabaseComparison {
        database: database.into(),
        sites: digests
            .iter()
            .map(|(site, digest)| SiteContent { site: site.clone(), renamed: None, tables: digest.tables.len(), rows: digest.rows })
            .collect(),
        difference_count: differences.len(),
        differences: differences.into_iter().take(DIFFERENCES_SHOWN_MAX).collect(),
    }
}

/// How a table differs between sites; `None` where it does not.
fn difference(sites: &[&str], found: &[Option<&pipeline_sdk::site::TableDigest>]) -> Option<String> {
    let with = |keep: &dyn Fn(usize) -> bool| -> String {
        let names: Vec<&str> = (0..sites.len()).filter(|index| keep(*index)).map(|index| sites[index]).collect();
        names.join(", ")
    };
    if found.iter().any(Option::is_none) {
        return Some(format!("is at {} only", with(&|index| found[index].is_some())));
    }
    let tables: Vec<_> = found.iter().flatten().collect();
    let first = tables.first()?;
    if tables.iter().any(|table| table.schema != first.schema) {
        let of_each = tables.iter().zip(sites).map(|(table, site)| format!("{site}: {}", table.schema));
        return Some(format!("definitions differ; {}", of_each.collect::<Vec<_>>().join("; ")));
    }
    if tables.iter().any(|table| table.rows != first.rows) {
        let of_each = tables.iter().zip(sites).map(|(table, site)| format!("{site} has {}", rows(table.rows)));
        return Some(of_each.collect::<Vec<_>>().join(", "));
    }
    // A hash over all rows does not tell whether values differ or whole rows do.
    let differs = tables.iter().any(|table| table.hash != first.hash);
    differs.then(|| format!("{} at each of {}, which are not the same", rows(first.rows), with(&|_| true)))
}

fn rows(count: u64) -> String {
    format!("{count} {}", if count == 1 { "row" } else { "rows" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pipeline_sdk::site::TableDigest;

    fn digest(tables: &[(&str, &str, u64, &str)]) -> Digest {
        let table = |(table, schema, rows, hash): &(&str, &str, u64, &str)| TableDigest {
            table: (*table).into(),
            schema: (*schema).into(),
            rows: *rows,
            hash: (*hash).into(),
        };
        Digest { rows: tables.iter().map(|it| it.2).sum(), tables: tables.iter().map(table).collect() }
    }

    #[test]
    fn every_way_to_differ_is_told() {
        let check = |other: &[(&str, &str, u64, &str)], expected: &[(&str, &str)]| {
            let sites = [
                ("a".to_owned(), digest(&[("t1", "ts, v", 2, "00"), ("t2", "ts", 1, "11")])),
                ("b".to_owned(), digest(other)),
            ];
            let compared = compare_digests("power", &sites);
            let found: Vec<(&str, &str)> =
                compared.differences.iter().map(|it| (it.table.as_str(), it.what.as_str())).collect();
            assert_eq!(found, expected);
            assert_eq!(compared.difference_count, expected.len());
        };
        check(&[("t1", "ts, v", 2, "00"), ("t2", "ts", 1, "11")], &[]);
        check(&[("t1", "ts, v", 2, "00")], &[("t2", "is at a only")]);
        check(
            &[("t0", "ts", 0, ""), ("t1", "ts, v", 3, "00"), ("t2", "ts", 1, "12")],
            &[("t0", "is at b only"), ("t1", "a has 2 rows, b has 3 rows"), ("t2", "1 row at each of a, b, which are not the same")],
        );
        check(&[("t1", "ts", 2, "00"), ("t2", "ts", 1, "11")], &[("t1", "definitions differ; a: ts, v; b: ts")]);
    }

    #[test]
    fn a_database_is_compared_with_what_it_is_written_to() {
        let names = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let direction = |from, to, values: &str, excluded: &str, renamed: &[(&str, &str)]| Direction {
            from,
            to,
            values: names(values),
            excluded: names(excluded),
            renamed: renamed.iter().map(|(from, to)| ((*from).to_owned(), (*to).to_owned())).collect(),
        };
        let check = |directions: &[Direction], listed: [&str; 2], expect: &[&str]| {
            let listed = listed.map(|text| names(text).into_iter().collect());
            let found: Vec<String> = pairings(directions, &listed)
                .into_iter()
                .map(|it| it.names.iter().map(|(site, name)| format!("{site}.{name}")).collect::<Vec<_>>().join(" "))
                .collect();
            assert_eq!(found, expect);
        };
        let copy = [("power", "copy")];
        check(&[direction(0, 1, "power gas", "", &[])], ["", ""], &["0.gas 1.gas", "0.power 1.power"]);
        check(&[direction(0, 1, "power", "", &copy)], ["", ""], &["0.power 1.copy"]);
        // There and back again under the first name.
        check(&[direction(0, 1, "power", "", &copy), direction(1, 0, "copy", "", &[("copy", "power")])], ["", ""], &[
            "0.power 1.copy",
        ]);
        check(&[direction(0, 1, "*", "", &copy)], ["power gas", "power gas copy"], &["0.gas 1.gas", "0.power 1.copy"]);
        check(&[direction(0, 1, "*", "gas", &copy)], ["gas", "copy"], &[]);
        check(&[direction(0, 1, "*", "", &copy), direction(1, 0, "*", "", &[])], ["power", "copy power"], &[
            "0.power 1.power", "0.power 1.copy",
        ]);
    }

    #[test]
    fn differences_are_counted_beyond_those_shown() {
        let names: Vec<String> = (0..50).map(|index| format!("t{index:02}")).collect();
        let tables: Vec<_> = names.iter().map(|name| (name.as_str(), "ts", 1, "0")).collect();
        let sites = [("a".to_owned(), digest(&tables)), ("b".to_owned(), digest(&[]))];
        let compared = compare_digests("power", &sites);
        assert_eq!((compared.difference_count, compared.differences.len()), (50, DIFFERENCES_SHOWN_MAX));
    }
}
