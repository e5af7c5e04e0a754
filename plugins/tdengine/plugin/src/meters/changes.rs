//! What is changed, and in which order: the kinds follow from the seed and from what is there.
//!
//! A site changes only what carries its name: the same key or name changed at two sites at once is what no scheme can put
//! right (FACTS F71).

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tdengine_wire::escape::{identifier, literal};

use super::known::{AddedColumn, ColumnKind, Known};
use super::names::Names;

/// Width of a new column of text.
const WIDTH_FIRST: u32 = 8;
/// By how much it grows at a time.
const WIDTH_STEP: u32 = 8;
/// How far back a deleted range begins at most, and how long it is at most.
const DELETE_AGE_MS: i64 = 10_000;
const DELETE_SPAN_MS: i64 = 1_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    AddColumn(AddedColumn),
    Widen(AddedColumn),
    DropColumn { name: String },
    /// One column of a row that is there, the others keeping their values.
    Update { table: u32, at_ms: i64, voltage: i32 },
    SetTag { table: u32, location: String },
    CreateTable { number: u32 },
    DropTable { number: u32 },
    /// Rows of one table in `[from_ms, to_ms)`.
    Delete { table: u32, from_ms: i64, to_ms: i64 },
}

impl Change {
    /// The statement.
    pub fn sql(&self, names: &Names, ticks_per_ms: i64) -> String {
        let stable = names.qualified(&names.stable);
        match self {
            Self::AddColumn(column) => {
                format!("ALTER STABLE {stable} ADD COLUMN {} {}", identifier(&column.name), column.kind.sql())
            }
            Self::Widen(column) => {
                format!("ALTER STABLE {stable} MODIFY COLUMN {} {}", identifier(&column.name), column.kind.sql())
            }
            Self::DropColumn { name } => format!("ALTER STABLE {stable} DROP COLUMN {}", identifier(name)),
            Self::Update { table, at_ms, voltage } => {
                let table = names.qualified(&names.table(*table));
                format!("INSERT INTO {table} (`ts`, `voltage`) VALUES ({}, {voltage})", at_ms * ticks_per_ms)
            }
            Self::SetTag { table, location } => {
                let table = names.qualified(&names.table(*table));
                format!("ALTER TABLE {table} SET TAG `location` = {}", literal(location))
            }
            Self::CreateTable { number } => {
                let location = format!("{} extra {number}", names.site);
                create_table(names, &names.extra_table(*number), *number, &location)
            }
            Self::DropTable { number } => format!("DROP TABLE {}", names.qualified(&names.extra_table(*number))),
            Self::Delete { table, from_ms, to_ms } => {
                let table = names.qualified(&names.table(*table));
                let (from, to) = (from_ms * ticks_per_ms, to_ms * ticks_per_ms);
                format!("DELETE FROM {table} WHERE `ts` >= {from} AND `ts` < {to}")
            }
        }
    }

    /// Keeps up with a change that was made.
    pub fn made(&self, known: &mut Known) {
        match self {
            Self::AddColumn(column) => {
                known.next_column += 1;
                known.columns.push(column.clone());
            }
            Self::Widen(wide) => {
                known.columns.iter_mut().filter(|column| column.name == wide.name).for_each(|it| it.kind = wide.kind);
            }
            Self::CreateTable { number } => {
                known.next_extra_table = known.next_extra_table.max(number + 1);
                known.extra_tables.push(*number);
            }
            Self::DropTable { number } => known.extra_tables.retain(|table| table != number),
            Self::DropColumn { name } => known.columns.retain(|column| column.name != *name),
            Self::Update { .. } | Self::SetTag { .. } | Self::Delete { .. } => {}
        }
    }
}

/// The statement that makes a table of the super table.
pub fn create_table(names: &Names, table: &str, group: u32, location: &str) -> String {
    let (table, stable) = (names.qualified(table), names.qualified(&names.stable));
    let location = literal(location);
    format!("CREATE TABLE IF NOT EXISTS {table} USING {stable} (`group_id`, `location`) TAGS ({group}, {location})")
}

/// Up to where the generator changes things.
#[derive(Clone, Copy, Debug)]
pub struct ChangeLimits {
    pub tables: u32,
    pub columns_max: usize,
    pub width_max: u32,
    pub extra_tables_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    AddColumn,
    Widen,
    DropColumn,
    Update,
    SetTag,
    CreateTable,
    DropTable,
    Delete,
}

/// What changes are drawn from beside what is there.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// Rows since here may be deleted.
    pub started_ms: i64,
    pub now_ms: i64,
    /// Table and time of a row of this site's.
    pub written: Option<(u32, i64)>,
}

/// Draws changes.
#[derive(Debug)]
pub struct Changes {
    random: StdRng,
    limits: ChangeLimits,
    drawn: u64,
}

impl Changes {
    pub fn new(seed: u64, limits: ChangeLimits) -> Self {
        Self { random: StdRng::seed_from_u64(seed), limits, drawn: 0 }
    }

    /// The next change that is possible.
    pub fn next(&mut self, names: &Names, known: &Known, times: Times) -> Change {
        self.drawn += 1;
        let kinds = self.possible(known, times);
        match kinds.choose(&mut self.random).expect("a tag can be set at any time") {
            Kind::AddColumn => self.add_column(names, known),
            Kind::Widen => self.widen(known),
            Kind::DropColumn => {
                let column = known.columns.choose(&mut self.random).expect("there is one to drop");
                Change::DropColumn { name: column.name.clone() }
            }
            Kind::Update => {
                let (table, at_ms) = times.written.expect("there is a row to update");
                Change::Update { table, at_ms, voltage: self.random.random_range(0..100) }
            }
            Kind::SetTag => {
                let table = self.random.random_range(1..=self.limits.tables);
                // With the number of the change, so that the value differs from the one that is there.
                Change::SetTag { table, location: format!("{}'s \"place\" {}", names.site, self.drawn) }
            }
            Kind::CreateTable => Change::CreateTable { number: known.next_extra_table },
            Kind::DropTable => {
                let number = *known.extra_tables.choose(&mut self.random).expect("there is one to drop");
                Change::DropTable { number }
            }
            Kind::Delete => {
                let table = self.random.random_range(1..=self.limits.tables);
                let age_ms = self.random.random_range(DELETE_SPAN_MS..=DELETE_AGE_MS);
                let span_ms = self.random.random_range(1..=DELETE_SPAN_MS);
                let from_ms = (times.now_ms - age_ms).max(times.started_ms);
                Change::Delete { table, from_ms, to_ms: from_ms + span_ms }
            }
        }
    }

    fn possible(&self, known: &Known, times: Times) -> Vec<Kind> {
        let mut kinds = vec![Kind::SetTag, Kind::Delete];
        if times.written.is_some() {
            kinds.push(Kind::Update);
        }
        let is_full = known.columns.len() >= self.limits.columns_max;
        if !is_full {
            kinds.push(Kind::AddColumn);
        } else if !known.columns.is_empty() {
            kinds.push(Kind::DropColumn);
        }
        if known.columns.iter().any(|column| self.wider(column.kind).is_some()) {
            kinds.push(Kind::Widen);
        }
        if known.extra_tables.len() < self.limits.extra_tables_max {
            kinds.push(Kind::CreateTable);
        }
        if !known.extra_tables.is_empty() {
            kinds.push(Kind::DropTable);
        }
        kinds
    }

    fn add_column(&mut self, names: &Names, known: &Known) -> Change {
        let kinds = [
            ColumnKind::Varchar(WIDTH_FIRST),
            ColumnKind::Int,
            ColumnKind::Nchar(WIDTH_FIRST),
            ColumnKind::Double,
            ColumnKind::Bool,
        ];
        let kind = *kinds.choose(&mut self.random).expect("there are kinds");
        Change::AddColumn(AddedColumn { name: names.column(known.next_column), kind })
    }

    fn widen(&mut self, known: &Known) -> Change {
        let wider: Vec<AddedColumn> = known
            .columns
            .iter()
            .filter_map(|column| Some(AddedColumn { name: column.name.clone(), kind: self.wider(column.kind)? }))
            .collect();
        Change::Widen(wider.choose(&mut self.random).expect("there is one to widen").clone())
    }

    fn wider(&self, kind: ColumnKind) -> Option<ColumnKind> {
        let wider = |width: u32| Some(width + WIDTH_STEP).filter(|width| *width <= self.limits.width_max);
        match kind {
            ColumnKind::Varchar(width) => wider(width).map(ColumnKind::Varchar),
            ColumnKind::Nchar(width) => wider(width).map(ColumnKind::Nchar),
            ColumnKind::Int | ColumnKind::Double | ColumnKind::Bool => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIMITS: ChangeLimits = ChangeLimits { tables: 3, columns_max: 4, width_max: 24, extra_tables_max: 2 };

    fn names(site: &str) -> Names {
        Names { database: "power".into(), stable: "meters".into(), site: site.into() }
    }

    fn draw(site: &str, seed: u64, count: usize) -> (Vec<Change>, Known) {
        let (mut changes, mut known, names) = (Changes::new(seed, LIMITS), Known::default(), names(site));
        let draw_one = |at: usize| {
            let now_ms = at as i64 * 1_000;
            let times = Times { started_ms: 0, now_ms, written: Some((1, now_ms)) };
            let change = changes.next(&names, &known, times);
            change.made(&mut known);
            change
        };
        ((0..count).map(draw_one).collect(), known)
    }

    #[test]
    fn the_order_follows_from_the_seed() {
        assert_eq!(draw("a", 7, 50), draw("a", 7, 50));
        assert_ne!(draw("a", 7, 50).0, draw("a", 8, 50).0);
    }

    #[test]
    fn every_kind_comes_and_limits_hold() {
        let (changes, known) = draw("a", 1, 500);
        let kinds: BTreeSet<_> = changes.iter().map(|change| format!("{:?}", std::mem::discriminant(change))).collect();
        assert_eq!(kinds.len(), 8);
        assert!(known.columns.len() <= LIMITS.columns_max);
        let (mut created, mut added) = (BTreeSet::new(), BTreeSet::new());
        for change in &changes {
            match change {
                Change::CreateTable { number } => assert!(created.insert(*number), "{number} was made twice"),
                Change::DropTable { number } => assert!(created.contains(number)),
                Change::AddColumn(column) => assert!(added.insert(column.name.clone()), "{column:?} was added twice"),
                Change::Widen(AddedColumn { kind: ColumnKind::Varchar(width) | ColumnKind::Nchar(width), .. }) => {
                    assert!(*width <= LIMITS.width_max);
                }
                Change::Delete { from_ms, to_ms, .. } => assert!((0..*to_ms).contains(from_ms)),
                _ => {}
            }
        }
        assert!(known.extra_tables.len() <= LIMITS.extra_tables_max);
    }

    #[test]
    fn sites_change_nothing_of_each_other() {
        let statements = |site: &str| -> BTreeSet<String> {
            draw(site, 3, 300).0.iter().map(|change| change.sql(&names(site), 1)).collect()
        };
        assert!(statements("a").is_disjoint(&statements("b")));
        assert!(statements("a").iter().all(|sql| sql.contains("_a_") || sql.contains("`a_")), "the site stands in each");
    }
}
