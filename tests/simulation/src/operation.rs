//! What a user does at a site: a statement, and what it makes of the database. Drawn from a seed, fitting what the site has.
//!
//! A group is free to both sites in a round, or owned by one. Where it is free, the two do what commutes: new rows, rows that are
//! theirs this round, new columns and children of names that only they give. What two sites may not do to one thing at once, as no
//! active-active system without a clock could tell who was last (FACTS F71), only an owner does; the owner changes from round to
//! round, once the sites are equal. Tags of a free group are renamed and dropped by the site that made it, while the other uses them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IteratorRandom;

use crate::model::{Group, Kind, State, Table};
use crate::script::Menu;
use crate::world::{DATABASE, SITES};

/// Time of the first row, milliseconds.
const EPOCH_MS: i64 = 1_700_000_000_000;
/// Rows in one statement.
const ROWS_MAX: usize = 4;
/// Columns and tags that a group has at most, children alike.
const COLUMNS_MAX: usize = 7;
const TABLES_MAX: usize = 6;
const GROUPS_MAX: usize = 4;

/// Who may do what to a group in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Free,
    Owned(usize),
}

/// Who may write a row in a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Share {
    Site(usize),
    Both,
}

type Effect = Arc<dyn Fn(&mut State) + Send + Sync>;

pub struct Operation {
    pub group: String,
    pub sql: String,
    pub effect: Effect,
    /// Whether it names a tag that the other site may have renamed or dropped: then it may be refused.
    pub may_miss_tag: bool,
}

/// One site's user in one round.
pub struct User {
    pub site: usize,
    random: SmallRng,
    /// What this user knows to be there.
    pub view: State,
    pub modes: BTreeMap<String, Mode>,
    /// Of the numbers that are in `q`, names and times: the next one of this user's.
    pub next: i64,
    /// The first number of this round.
    first: i64,
    /// What comes next in any case.
    then: Option<Operation>,
    menu: Menu,
}

impl User {
    /// `first` is larger than any number drawn before.
    pub fn new(site: usize, random: SmallRng, view: State, modes: BTreeMap<String, Mode>, first: i64, menu: Menu) -> Self {
        let first = first + first % 2;
        Self { site, random, view, modes, next: first + site as i64, first, then: None, menu }
    }

    /// Before the next operation: none, or as long as a person takes.
    pub fn pause(&mut self) -> Duration {
        match self.random.random_ratio(1, 2) {
            true => Duration::ZERO,
            false => Duration::from_millis(self.random.random_range(1..400)),
        }
    }

    fn number(&mut self) -> i64 {
        self.next += 2;
        self.next - 2
    }

    /// A name that no other site gives.
    fn name(&mut self, start: &str) -> String {
        format!("{start}{}{}", SITES[self.site], self.number())
    }

    fn may(&self, group: &str) -> bool {
        match self.modes.get(group) {
            // Made in this round, by this user.
            None | Some(Mode::Free) => true,
            Some(Mode::Owned(site)) => *site == self.site,
        }
    }

    fn owns(&self, group: &str) -> bool {
        !matches!(self.modes.get(group), Some(Mode::Free)) && self.may(group)
    }

    fn has_made(&self, group: &str) -> bool {
        group[1..].starts_with(SITES[self.site])
    }

    /// Whether tags of a free group are renamed and dropped here: by the site that made it, as nobody could tell the order of two renames.
    fn renames_in_use(&self, group: &str) -> bool {
        self.menu.renames_in_use && self.has_made(group)
    }

    /// Marks an operation that names tags.
    fn naming_tags(&self, operation: Operation) -> Operation {
        let may_miss_tag = self.menu.renames_in_use && !self.owns(&operation.group) && !self.has_made(&operation.group);
        Operation { may_miss_tag, ..operation }
    }

    /// The next operation; `None` when nothing of the kind that was drawn can be done.
    pub fn draw(&mut self, avoid: impl Fn(&str) -> bool) -> Option<Operation> {
        if let Some(then) = self.then.take().filter(|then| !avoid(&then.group)) {
            return Some(then);
        }
        let groups = self.view.groups.iter().filter(|(name, _)| self.may(name) && !avoid(name));
        let groups: Vec<(String, Group)> = groups.map(|(name, group)| (name.clone(), group.clone())).collect();
        let Some((name, group)) = groups.into_iter().choose(&mut self.random) else {
            return self.create_group();
        };
        let owns = self.owns(&name);
        match self.random.random_range(0..100) {
            0..40 => self.insert(&name, &group),
            40..58 => self.overwrite(&name, &group),
            58..66 => self.create_child(&name, &group),
            66..72 => self.add_column(&name, &group),
            72..75 => self.create_group(),
            75..80 => self.set_tag(&name, &group, owns),
            80..90 if !owns && self.menu.both_amend => self.amend(&name, &group),
            90..94 if !owns && self.menu.both_add_tags => self.add_tag(&name, &group),
            94..97 if !owns && self.renames_in_use(&name) => self.rename_tag(&name, &group),
            97..100 if !owns && self.renames_in_use(&name) => self.drop_tag(&name, &group),
            80..100 if !owns => self.insert(&name, &group),
            80..84 => self.delete(&name, &group),
            84..86 => self.drop_column(&name, &group),
            86..88 => self.widen(&name, &group),
            88..90 => self.add_tag(&name, &group),
            90..94 if !self.menu.renames_tags => self.add_tag(&name, &group),
            90..92 => self.rename_tag(&name, &group),
            92..94 => self.drop_tag(&name, &group),
            94..97 => self.drop_child(&name, &group),
            _ => self.drop_group(&name, &group),
        }
    }

    /// Assignments of a row: `q`, and some of the other columns, now and then NULL.
    fn values(&mut self, group: &Group, number: i64) -> Vec<(String, String, Option<String>)> {
        let mut values = Vec::new();
        for (column, kind) in &group.columns {
            if column == "q" {
                values.push((column.clone(), number.to_string(), Some(number.to_string())));
            } else if self.random.random_ratio(1, 2) {
                if self.random.random_ratio(1, 12) {
                    values.push((column.clone(), "NULL".into(), None));
                } else {
                    let (sql, text) = kind.value(number);
                    values.push((column.clone(), sql, Some(text)));
                }
            }
        }
        values
    }

    /// `table (columns) values (…)`: one row, with what it makes of the table.
    fn row(&mut self, name: &str, group: &Group, table: &str, time: i64, number: i64) -> (String, Effect) {
        let values = self.values(group, number);
        let columns: Vec<String> = values.iter().map(|(column, ..)| format!(", `{column}`")).collect();
        let literals: Vec<String> = values.iter().map(|(_, sql, _)| format!(", {sql}")).collect();
        let sql = format!("(ts{}) values ({time}{})", columns.concat(), literals.concat());
        let (name, table) = (name.to_owned(), table.to_owned());
        let effect = move |state: &mut State| {
            let Some(group) = state.groups.get_mut(&name) else { return };
            let Some(table) = group.tables.get_mut(&table) else { return };
            let row = table.rows.entry(time).or_default();
            for (column, _, value) in &values {
                match value {
                    Some(value) => drop(row.insert(column.clone(), value.clone())),
                    None => drop(row.remove(column)),
                }
            }
        };
        (sql, Arc::new(effect))
    }

    fn insert(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let rows = self.random.random_range(1..=ROWS_MAX);
        let mut sql = String::from("insert into");
        let mut effects = Vec::new();
        for _ in 0..rows {
            let table = group.tables.keys().choose(&mut self.random)?.clone();
            let number = self.number();
            let (row, effect) = self.row(name, group, &table, EPOCH_MS + number * 1000, number);
            write!(sql, " {DATABASE}.`{table}` {row}").expect("a string takes it");
            effects.push(effect);
        }
        Some(operation(name, sql, move |state| effects.iter().for_each(|effect| effect(state))))
    }

    /// Whose a row is in this round, where a group is free: a site's, or both sites', each of which then sets columns of its own.
    fn share(&self, time: i64) -> Share {
        let first = EPOCH_MS + self.first * 1000;
        if time >= first {
            return Share::Site(self.site);
        }
        match (time / 1000 / 2 + first / 1000 / 2) % 4 {
            site @ (0 | 1) => Share::Site(site as usize),
            _ => Share::Both,
        }
    }

    /// Some columns of a row that both sites set columns of, without `q`.
    fn amend(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let rows = group.tables.iter().flat_map(|(table, it)| it.rows.keys().map(move |time| (table, *time)));
        let rows: Vec<(&String, i64)> = rows.filter(|(_, time)| self.share(*time) == Share::Both).collect();
        let (table, time) = rows.into_iter().choose(&mut self.random)?;
        let site = self.site as u8;
        let mine = group.columns.iter().filter(|(column, _)| *column != "q" && column.bytes().last().is_some_and(|it| it % 2 == site));
        let (column, kind) = mine.choose(&mut self.random)?;
        let (column, (literal, text)) = (column.clone(), kind.value(self.number()));
        let sql = format!("insert into {DATABASE}.`{table}` (ts, `{column}`) values ({time}, {literal})");
        Some(on_table(name, table, sql, move |table| {
            table.rows.entry(time).or_default().insert(column.clone(), text.clone());
        }))
    }

    /// A row that is there, some of its columns: its own or the other site's, whole or in part.
    fn overwrite(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let owns = self.owns(name);
        let shares: Vec<i64> = group.tables.values().flat_map(|table| table.rows.keys().copied()).collect();
        let mine: BTreeSet<i64> =
            shares.into_iter().filter(|time| owns || self.share(*time) == Share::Site(self.site)).collect();
        let is_mine = |time: i64| mine.contains(&time);
        let rows = group.tables.iter().flat_map(|(table, it)| it.rows.keys().map(move |time| (table, *time)));
        let (table, time) = rows.filter(|(_, time)| is_mine(*time)).choose(&mut self.random)?;
        let number = self.number();
        let (row, effect) = self.row(name, group, table, time, number);
        let sql = format!("insert into {DATABASE}.`{table}` {row}");
        Some(Operation { group: name.into(), sql, effect, may_miss_tag: false })
    }

    fn create_child(&mut self, name: &str, group: &Group) -> Option<Operation> {
        if !group.is_stable || group.tables.len() >= TABLES_MAX {
            return None;
        }
        let table = self.name("t");
        Some(self.create_child_named(name, group, table))
    }

    fn create_child_named(&mut self, name: &str, group: &Group, table: String) -> Operation {
        let number = self.number();
        let values: Vec<(String, (String, String))> =
            group.tags.iter().map(|(tag, kind)| (tag.clone(), kind.value(number))).collect();
        let columns: Vec<String> = values.iter().map(|(tag, _)| format!("`{tag}`")).collect();
        let literals: Vec<&str> = values.iter().map(|(_, (sql, _))| sql.as_str()).collect();
        let using = format!("using {DATABASE}.`{name}` ({}) tags ({})", columns.join(", "), literals.join(", "));
        let tags: BTreeMap<String, String> = values.iter().map(|(tag, (_, text))| (tag.clone(), text.clone())).collect();
        let make = {
            let (name, table) = (name.to_owned(), table.clone());
            move |state: &mut State| {
                if let Some(group) = state.groups.get_mut(&name) {
                    let now = tags.iter().filter_map(|(tag, value)| Some((group.tag_now(tag)?.to_owned(), value.clone())));
                    let tags = now.collect();
                    group.tables.insert(table.clone(), Table { tags, ..Table::default() });
                }
            }
        };
        if self.random.random_ratio(1, 2) {
            return self.naming_tags(operation(name, format!("create table {DATABASE}.`{table}` {using}"), make));
        }
        let number = self.number();
        let (row, effect) = self.row(name, group, &table, EPOCH_MS + number * 1000, number);
        let sql = format!("insert into {DATABASE}.`{table}` {using} {row}");
        self.naming_tags(operation(name, sql, move |state| {
            make(state);
            effect(state);
        }))
    }

    fn create_group(&mut self) -> Option<Operation> {
        if self.view.groups.len() >= GROUPS_MAX {
            return None;
        }
        let is_stable = self.random.random_ratio(3, 4);
        let name = self.name(if is_stable { "s" } else { "n" });
        Some(self.create(name, is_stable))
    }

    /// A new group with columns and tags of kinds that are drawn.
    fn create(&mut self, name: String, is_stable: bool) -> Operation {
        let mut group = Group { is_stable, ..Group::default() };
        group.columns.insert("q".into(), Kind::BigInt);
        for column in 0..self.random.random_range(1..=3) {
            group.columns.insert(format!("c{column}"), self.kind());
        }
        for tag in 0..if is_stable { self.random.random_range(1..=2) } else { 0 } {
            group.tags.insert(format!("g{tag}"), self.kind());
        }
        if !is_stable {
            group.tables.insert(name.clone(), Table::default());
        }
        let columns: Vec<String> = group.columns.iter().map(|(column, kind)| format!(", `{column}` {kind}")).collect();
        let tags: Vec<String> = group.tags.iter().map(|(tag, kind)| format!("`{tag}` {kind}")).collect();
        let sql = match is_stable {
            true => format!("create stable {DATABASE}.`{name}` (ts timestamp{}) tags ({})", columns.concat(), tags.join(", ")),
            false => format!("create table {DATABASE}.`{name}` (ts timestamp{})", columns.concat()),
        };
        let made = name.clone();
        operation(&name, sql, move |state| drop(state.groups.insert(made.clone(), group.clone())))
    }

    fn kind(&mut self) -> Kind {
        match self.random.random_range(0..5) {
            0 => Kind::BigInt,
            1 => Kind::Int,
            2 => Kind::Double,
            3 => Kind::Varchar(20),
            _ => Kind::Nchar(20),
        }
    }

    fn add_column(&mut self, name: &str, group: &Group) -> Option<Operation> {
        if group.columns.len() >= COLUMNS_MAX {
            return None;
        }
        let (column, kind) = (self.name("c"), self.kind());
        let sql = format!("alter {} add column `{column}` {kind}", of(name, group));
        Some(on_group(name, sql, move |group| _ = group.columns.insert(column.clone(), kind)))
    }

    fn drop_column(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let others = group.columns.keys().filter(|column| *column != "q");
        if others.clone().count() < 2 {
            return None;
        }
        let column = others.choose(&mut self.random)?.clone();
        let sql = format!("alter {} drop column `{column}`", of(name, group));
        Some(on_group(name, sql, move |group| {
            group.columns.remove(&column);
            for row in group.tables.values_mut().flat_map(|table| table.rows.values_mut()) {
                row.remove(&column);
            }
        }))
    }

    fn widen(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let wider = |kind: &Kind| match kind {
            Kind::Varchar(width) => Some(Kind::Varchar(width + 5)),
            Kind::Nchar(width) => Some(Kind::Nchar(width + 5)),
            _ => None,
        };
        let texts = group.columns.iter().filter_map(|(column, kind)| Some((column.clone(), wider(kind)?)));
        let (column, kind) = texts.choose(&mut self.random)?;
        let sql = format!("alter {} modify column `{column}` {kind}", of(name, group));
        Some(on_group(name, sql, move |group| _ = group.columns.insert(column.clone(), kind)))
    }

    fn add_tag(&mut self, name: &str, group: &Group) -> Option<Operation> {
        if !group.is_stable || group.tags.len() >= COLUMNS_MAX {
            return None;
        }
        let (tag, kind) = (self.name("g"), self.kind());
        let sql = format!("alter {} add tag `{tag}` {kind}", of(name, group));
        Some(on_group(name, sql, move |group| _ = group.tags.insert(tag.clone(), kind)))
    }

    fn rename_tag(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let tag = group.tags.keys().choose(&mut self.random)?.clone();
        let new = self.name("g");
        let sql = format!("alter {} rename tag `{tag}` `{new}`", of(name, group));
        Some(on_group(name, sql, move |group| {
            if let Some(kind) = group.tags.remove(&tag) {
                group.tags.insert(new.clone(), kind);
                group.renamed.insert(tag.clone(), new.clone());
            }
            for table in group.tables.values_mut() {
                if let Some(value) = table.tags.remove(&tag) {
                    table.tags.insert(new.clone(), value);
                }
            }
        }))
    }

    fn drop_tag(&mut self, name: &str, group: &Group) -> Option<Operation> {
        if group.tags.len() < 2 {
            return None;
        }
        let tag = group.tags.keys().choose(&mut self.random)?.clone();
        let sql = format!("alter {} drop tag `{tag}`", of(name, group));
        Some(on_group(name, sql, move |group| {
            group.tags.remove(&tag);
            for table in group.tables.values_mut() {
                table.tags.remove(&tag);
            }
        }))
    }

    /// Of a child that this site made, unless the group is its own.
    fn set_tag(&mut self, name: &str, group: &Group, owns: bool) -> Option<Operation> {
        let mine = format!("t{}", SITES[self.site]);
        let tables = group.tables.keys().filter(|table| owns || table.starts_with(&mine));
        let table = tables.choose(&mut self.random)?.clone();
        let (tag, kind) = group.tags.iter().choose(&mut self.random)?;
        let (tag, (sql, text)) = (tag.clone(), kind.value(self.number()));
        let sql = format!("alter table {DATABASE}.`{table}` set tag `{tag}` = {sql}");
        Some(self.naming_tags(on_group(name, sql, move |group| {
            let Some(tag) = group.tag_now(&tag).map(str::to_owned) else { return };
            if let Some(table) = group.tables.get_mut(&table) {
                table.tags.insert(tag, text.clone());
            }
        })))
    }

    fn delete(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let (table, it) = group.tables.iter().filter(|(_, table)| !table.rows.is_empty()).choose(&mut self.random)?;
        let from = *it.rows.keys().choose(&mut self.random)?;
        let to = *it.rows.keys().filter(|time| **time >= from).choose(&mut self.random)?;
        let sql = format!("delete from {DATABASE}.`{table}` where ts >= {from} and ts <= {to}");
        Some(on_table(name, table, sql, move |table| table.rows.retain(|time, _| !(from..=to).contains(time))))
    }

    fn drop_child(&mut self, name: &str, group: &Group) -> Option<Operation> {
        if !group.is_stable {
            return None;
        }
        let table = group.tables.keys().choose(&mut self.random)?.clone();
        if self.random.random_ratio(1, 2) {
            self.then = Some(self.create_child_named(name, group, table.clone()));
        }
        let sql = format!("drop table {DATABASE}.`{table}`");
        Some(on_group(name, sql, move |group| drop(group.tables.remove(&table))))
    }

    fn drop_group(&mut self, name: &str, group: &Group) -> Option<Operation> {
        let sql = format!("drop {}", of(name, group));
        let dropped = name.to_owned();
        if self.random.random_ratio(1, 2) {
            // Made again at once, with columns that it did not have.
            self.then = Some(self.create(name.to_owned(), group.is_stable));
        }
        Some(operation(name, sql, move |state| drop(state.groups.remove(&dropped))))
    }
}

/// `stable d.x` or `table d.x`.
fn of(name: &str, group: &Group) -> String {
    format!("{} {DATABASE}.`{name}`", if group.is_stable { "stable" } else { "table" })
}

fn operation(group: &str, sql: String, effect: impl Fn(&mut State) + Send + Sync + 'static) -> Operation {
    Operation { group: group.into(), sql, effect: Arc::new(effect), may_miss_tag: false }
}

fn on_group(name: &str, sql: String, effect: impl Fn(&mut Group) + Send + Sync + 'static) -> Operation {
    let of = name.to_owned();
    operation(name, sql, move |state| {
        if let Some(group) = state.groups.get_mut(&of) {
            effect(group);
        }
    })
}

fn on_table(name: &str, table: &str, sql: String, effect: impl Fn(&mut Table) + Send + Sync + 'static) -> Operation {
    let table = table.to_owned();
    on_group(name, sql, move |group| {
        if let Some(table) = group.tables.get_mut(&table) {
            effect(table);
        }
    })
}
