//! Which tag a value belongs to, in the creation of a child.
//!
//! An entry holds values by tag id and, beside them, names in the order of the user's statement: `USING s (b, a) TAGS (2, 1)`
//! gives a's value the name b (seen on 3.3.0.1, in the raw form and in JSON). The names are those of the values, so both are
//! brought into the order of ids: from the schemas that the log showed, else from DESCRIBE, which lists tags by id. Values of tags
//! that were dropped since are left out. What the log showed is kept in the state store: after a restart a child may come that was made
//! before a tag was renamed, and DESCRIBE has the new name.

use std::borrow::Cow;
use std::collections::HashMap;

use pipeline_sdk::{Context, Error, Result, State};
use serde::{Deserialize, Serialize};
use tdengine_wire::meta::{self, TableBody, TagEntry, TagKey};

use crate::errors::wire_error;
use crate::log::change::{CreateTable, Stable, TableOf};
use crate::metadata;
use crate::transport::Connection;

/// Super tables whose tags are known; forgotten when there are more.
const STABLES_MAX: usize = 10_000;

/// Start of this module's keys in the state store; behind it stands the incarnation.
const KEY: &str = "v1/tags/";

/// What is known of the tags of super tables.
pub struct TagNames {
    state: State,
    /// By incarnation, as the latest entry of any lane showed them.
    logged: HashMap<i64, Logged>,
    /// By name, in the order of ids, as they are now; `None` for one that is gone.
    described: HashMap<String, Option<Vec<String>>>,
}

/// The tags of a super table at a version.
#[derive(Serialize, Deserialize)]
struct Logged {
    tag_version: i32,
    names: HashMap<i16, String>,
    /// The highest id seen: ids are never used again and only grow (FACTS F67).
    newest_id: i16,
}

impl Logged {
    fn was_dropped(&self, id: i16) -> bool {
        id <= self.newest_id && !self.names.contains_key(&id)
    }
}

impl TagNames {
    pub fn new(context: &Context) -> Self {
        Self { state: context.state(), logged: HashMap::new(), described: HashMap::new() }
    }

    /// Takes in an entry that shows a super table's schema; one lane may be behind another.
    pub fn learn(&mut self, stable: &Stable) -> Result<()> {
        let known = self.logged(stable.suid)?;
        if known.is_some_and(|known| known.tag_version >= stable.tag_version) {
            return Ok(());
        }
        let before = known.map_or(0, |known| known.newest_id);
        let newest_id = stable.columns.iter().chain(&stable.tags).map(|field| field.id).fold(before, i16::max);
        let names = stable.tags.iter().map(|tag| (tag.id, tag.name.clone())).collect();
        let logged = Logged { tag_version: stable.tag_version, names, newest_id };
        self.state.put(&key(stable.suid), &serde_json::to_vec(&logged).expect("plain JSON"))?;
        self.keep(stable.suid, logged);
        self.described.remove(&stable.name);
        Ok(())
    }

    /// A super table was dropped.
    pub fn forget(&self, suid: i64) -> Result<()> {
        self.state.delete(&key(suid))
    }

    fn logged(&mut self, suid: i64) -> Result<Option<&Logged>> {
        if !self.logged.contains_key(&suid)
            && let Some(bytes) = self.state.get(&key(suid))?
        {
            let unreadable = |error| Error::fatal(format!("stored state `{}` is not readable: {error}", key(suid)));
            self.keep(suid, serde_json::from_slice(&bytes).map_err(unreadable)?);
        }
        Ok(self.logged.get(&suid))
    }

    fn keep(&mut self, suid: i64, logged: Logged) {
        if self.logged.len() >= STABLES_MAX {
            self.logged.clear();
        }
        self.logged.insert(suid, logged);
    }

    /// Gives each value of a child its tag's name, in the table and in its request.
    pub async fn correct<'a>(
        &mut self,
        sql: &Connection,
        database: &str,
        table: &mut CreateTable,
        request: &'a [u8],
    ) -> Result<Cow<'a, [u8]>> {
        let TableOf::Stable { stable, suid, tags } = &mut table.of else { return Ok(Cow::Borrowed(request)) };
        if tags.len() < 2 {
            return Ok(Cow::Borrowed(request));
        }
        let mut request = Cow::Borrowed(request);
        let logged = self.logged(*suid)?;
        if let Some(known) = logged.filter(|known| tags.iter().any(|tag| known.was_dropped(tag.id))) {
            tags.retain(|tag| !known.was_dropped(tag.id));
            request = Cow::Owned(without(&request, |id| known.was_dropped(id)).map_err(wire_error)?);
        }
        let ids: Vec<i16> = tags.iter().map(|tag| tag.id).collect();
        let before: Vec<String> = tags.iter().map(|tag| tag.name.clone()).collect();
        let logged = logged.and_then(|known| by_id(&known.names, &ids));
        let names = match logged {
            Some(names) => names,
            None => match self.described(sql, database, stable).await?.and_then(|order| by_order(order, &before)) {
                Some(names) => names,
                None => {
                    tracing::warn!(table = table.name, "tags were renamed or dropped since: names are taken as they come");
                    return Ok(request);
                }
            },
        };
        if names == before {
            return Ok(request);
        }
        tags.iter_mut().zip(&names).for_each(|(tag, name)| tag.name.clone_from(name));
        renamed(&request, names).map(Cow::Owned).map_err(wire_error)
    }

    async fn described(&mut self, sql: &Connection, database: &str, stable: &str) -> Result<Option<&[String]>> {
        if !self.described.contains_key(stable) {
            if self.described.len() >= STABLES_MAX {
                self.described.clear();
            }
            let found = metadata::describe(sql, database, stable).await?;
            let names = found.map(|found| found.tags.into_iter().map(|tag| tag.name).collect());
            self.described.insert(stable.to_owned(), names);
        }
        Ok(self.described[stable].as_deref())
    }
}

fn key(suid: i64) -> String {
    format!("{KEY}{suid}")
}

fn by_id(known: &HashMap<i16, String>, ids: &[i16]) -> Option<Vec<String>> {
    ids.iter().map(|id| known.get(id).cloned()).collect()
}

/// The names in the order of the list, `None` where it lacks one.
fn by_order(order: &[String], names: &[String]) -> Option<Vec<String>> {
    let mut places: Vec<usize> =
        names.iter().map(|name| order.iter().position(|other| other == name)).collect::<Option<_>>()?;
    places.sort_unstable();
    Some(places.into_iter().map(|place| order[place].clone()).collect())
}

/// The request with other names for its values.
fn renamed(request: &[u8], names: Vec<String>) -> tdengine_wire::Result<Vec<u8>> {
    let mut table = meta::CreateTable::decode(request)?;
    if let TableBody::Child { names: old, .. } = &mut table.body {
        *old = names;
    }
    table.encode()
}

/// The request without the values of some tags, and without the names beside them.
fn without(request: &[u8], is_gone: impl Fn(i16) -> bool) -> tdengine_wire::Result<Vec<u8>> {
    let mut table = meta::CreateTable::decode(request)?;
    if let TableBody::Child { tags, names, .. } = &mut table.body {
        let stays = |entry: &TagEntry| !matches!(entry.key, TagKey::Id(id) if is_gone(id));
        let mut each = tags.entries.iter().map(stays).collect::<Vec<_>>().into_iter();
        names.retain(|_| each.next().unwrap_or(true));
        tags.entries.retain(stays);
    }
    table.encode()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::change::parse_create;
    use tdengine_wire::{ColumnType, DataType, Field};

    /// `create table t2 using m (c, b, a) tags ('ccc', 2, 1)` and `t3 using m (b, a, c) tags (2, NULL, 'ccc')`, as a
    /// server 3.3.0.1 wrote them.
    const REQUESTS: [&str; 2] = [
        "5a0000000003743200c731606330224a4cfc360623a20100000000000002ffffffff026d0003379f888beb45d0581e001e0003000100000000\
         060c0604010000000804020000000a0803636363030000000263000262000261 0000000000",
        "500000000003743300c831706330224a4c0b370623a20100000000000002ffffffff026d0003379f888beb45d05817001700020001000000000608\
         04020000000a0803636363020000000262000263 0000000000",
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    /// With the length that it has here.
    fn bytes_of(request: &str) -> Vec<u8> {
        let mut request = bytes(request);
        let length = (request.len() - 4) as i32;
        request[..4].copy_from_slice(&length.to_le_bytes());
        request
    }

    #[test]
    fn values_get_the_names_of_their_ids() {
        let order = ["a", "b", "c"].map(str::to_owned);
        let known: HashMap<i16, String> = (3..).zip(order.clone()).collect();
        for (request, expect) in REQUESTS.iter().zip([&["a", "b", "c"][..], &["b", "c"]]) {
            let request = bytes_of(request);
            let TableOf::Stable { tags, .. } = parse_create(&request).unwrap().of else { panic!() };
            let ids: Vec<i16> = tags.iter().map(|tag| tag.id).collect();
            let before: Vec<String> = tags.iter().map(|tag| tag.name.clone()).collect();
            assert_eq!(by_id(&known, &ids).unwrap(), expect);
            assert_eq!(by_order(&order, &before).unwrap(), expect);
            let corrected = renamed(&request, by_id(&known, &ids).unwrap()).unwrap();
            let TableOf::Stable { tags, .. } = parse_create(&corrected).unwrap().of else { panic!() };
            assert_eq!(tags.iter().map(|tag| tag.name.as_str()).collect::<Vec<_>>(), expect);
        }
        assert_eq!(by_id(&known, &[9]), None);
        assert_eq!(by_order(&order, &["z".to_owned()]), None);
        let request = without(&bytes_of(REQUESTS[0]), |id| id == 4).unwrap();
        let TableOf::Stable { tags, .. } = parse_create(&request).unwrap().of else { panic!() };
        assert_eq!(tags.iter().map(|tag| (tag.id, tag.name.as_str())).collect::<Vec<_>>(), [(3, "c"), (5, "a")]);
    }

    #[test]
    fn of_two_lanes_the_one_that_is_further_is_believed() {
        let int = ColumnType::of(DataType::Int);
        let context = Context::detached();
        let mut names = TagNames::new(&context);
        for (tag_version, tags) in [(1, &[(3, "a"), (4, "b")][..]), (3, &[(3, "z")]), (2, &[(3, "a")])] {
            let tags = tags.iter().map(|(id, name)| Field::new(*name, int, *id)).collect();
            let (name, suid, column_version) = ("m".to_owned(), 7, 1);
            let columns = Vec::new();
            let stable = Stable { name, suid, column_version, columns, tag_version, tags, statement: Vec::new(), is_marked: false };
            names.learn(&stable).unwrap();
        }
        // After a restart, too.
        for mut names in [names, TagNames::new(&context)] {
            let known = names.logged(7).unwrap().unwrap();
            assert_eq!(known.names, HashMap::from([(3, "z".to_owned())]));
            assert!(known.was_dropped(4) && !known.was_dropped(3) && !known.was_dropped(5));
        }
        TagNames::new(&context).forget(7).unwrap();
        assert!(TagNames::new(&context).logged(7).unwrap().is_none());
    }
}
