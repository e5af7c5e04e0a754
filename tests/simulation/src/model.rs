//! What a database holds: as the operations say that it should, and as a site shows it. The two are compared.
//!
//! A group is a super table with its children, or a normal table, which is a group of one. Every row has a column `q`, which each
//! write sets to a number of its own: even ones are written at the first site, odd ones at the second, later ones are larger.

use std::collections::BTreeMap;
use std::fmt;

/// Groups by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    pub groups: BTreeMap<String, Group>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Group {
    pub is_stable: bool,
    /// Without `ts`.
    pub columns: BTreeMap<String, Kind>,
    pub tags: BTreeMap<String, Kind>,
    /// Old names of tags, and what each was renamed to.
    pub renamed: BTreeMap<String, String>,
    pub tables: BTreeMap<String, Table>,
}

impl Group {
    /// The name by now of a tag that was called `name`; `None` for one that was dropped.
    pub fn tag_now<'a>(&'a self, mut name: &'a str) -> Option<&'a str> {
        while let Some(new) = self.renamed.get(name) {
            name = new;
        }
        self.tags.contains_key(name).then_some(name)
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Without those that are NULL.
    pub tags: BTreeMap<String, String>,
    pub rows: BTreeMap<i64, Row>,
}

/// Values by column, without those that are NULL.
pub type Row = BTreeMap<String, String>;

/// Type of a column or tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    BigInt,
    Int,
    Double,
    Varchar(u32),
    Nchar(u32),
}

impl Kind {
    /// As `DESCRIBE` shows it: type and length.
    pub fn described(name: &str, length: u32) -> Option<Self> {
        Some(match name {
            "BIGINT" => Self::BigInt,
            "INT" => Self::Int,
            "DOUBLE" => Self::Double,
            "VARCHAR" => Self::Varchar(length),
            "NCHAR" => Self::Nchar(length),
            _ => return None,
        })
    }

    /// A value made of a number: as SQL, and as a client shows it.
    pub fn value(self, number: i64) -> (String, String) {
        match self {
            Self::BigInt | Self::Int | Self::Double => (number.to_string(), number.to_string()),
            Self::Varchar(_) => (format!("'it''s {number}'"), format!("it's {number}")),
            Self::Nchar(_) => (format!("'涛 {number}'"), format!("涛 {number}")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BigInt => f.write_str("bigint"),
            Self::Int => f.write_str("int"),
            Self::Double => f.write_str("double"),
            Self::Varchar(width) => write!(f, "varchar({width})"),
            Self::Nchar(width) => write!(f, "nchar({width})"),
        }
    }
}

/// A place where two states differ; `None` where a state has nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    pub group: String,
    pub table: Option<String>,
    pub time: Option<i64>,
    /// What differs: `group`, `table`, `row`, `column NAME`, `tag NAME`, `value NAME`.
    pub what: String,
    pub one: Option<String>,
    pub other: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.group)?;
        if let Some(table) = &self.table {
            write!(f, " {table}")?;
        }
        if let Some(time) = self.time {
            write!(f, " at {time}")?;
        }
        let show = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".into());
        write!(f, " {}: {} | {}", self.what, show(&self.one), show(&self.other))
    }
}

/// Where `one` and `other` differ, in groups that `counts` says yes to.
pub fn differences(one: &State, other: &State, counts: impl Fn(&str) -> bool) -> Vec<Difference> {
    let mut found = Vec::new();
    for (name, one, other) in both(&one.groups, &other.groups).filter(|(name, ..)| counts(name)) {
        let at = |table, time, what: String, one, other| Difference { group: name.clone(), table, time, what, one, other };
        let (Some(one), Some(other)) = (one, other) else {
            let shown = |group: Option<&Group>| group.map(|it| format!("{} tables", it.tables.len()));
            found.push(at(None, None, "group".into(), shown(one), shown(other)));
            continue;
        };
        for (word, one, other) in [("column", &one.columns, &other.columns), ("tag", &one.tags, &other.tags)] {
            for (column, one, other) in both(one, other).filter(|(_, one, other)| one != other) {
                let text = |kind: Option<&Kind>| kind.map(Kind::to_string);
                found.push(at(None, None, format!("{word} {column}"), text(one), text(other)));
            }
        }
        for (table, one, other) in both(&one.tables, &other.tables).filter(|(_, one, other)| one != other) {
            let (Some(one), Some(other)) = (one, other) else {
                let shown = |table: Option<&Table>| table.map(|it| format!("{} rows", it.rows.len()));
                found.push(at(Some(table.clone()), None, "table".into(), shown(one), shown(other)));
                continue;
            };
            for (tag, one, other) in both(&one.tags, &other.tags).filter(|(_, one, other)| one != other) {
                found.push(at(Some(table.clone()), None, format!("value of tag {tag}"), one.cloned(), other.cloned()));
            }
            for (time, one, other) in both(&one.rows, &other.rows).filter(|(_, one, other)| one != other) {
                let row = |row: Option<&Row>| row.map(|row| format!("{row:?}"));
                found.push(at(Some(table.clone()), Some(*time), "row".into(), row(one), row(other)));
            }
        }
    }
    found
}

/// Every key of either map with what each has for it.
fn both<'a, K: Ord, V>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let keys: std::collections::BTreeSet<&K> = one.keys().chain(other.keys()).collect();
    keys.into_iter().map(|key| (key, one.get(key), other.get(key)))
}
