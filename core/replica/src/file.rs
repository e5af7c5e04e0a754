//! The file of a replica: written by `replica start`, read and edited by everybody.
//!
//! Editing changes the keys that it is about and nothing else: order, comments and references stay. What the keys are called is
//! what plugins say in their [`ReplicaDescription`]; a file may hold other pipelines too, which are left alone.

use pipeline_engine::graph::Catalog;
use pipeline_sdk::{Kind, ReplicaDescription};
use toml_edit::{Array, DocumentMut, Item, TableLike, Value, value};

use crate::list;

/// Every value of the task key.
const ALL: &str = "*";

/// What a replica of one type is made of.
#[derive(Clone, Debug)]
pub struct Kinds {
    pub replica: ReplicaDescription,
    /// The source's key whose values are the tasks (`databases`).
    pub task_key: String,
}

/// The types of replicas that plugins provide.
pub fn kinds(catalog: &dyn Catalog) -> Vec<Kinds> {
    let replicas = catalog.plugins().into_iter().filter_map(|plugin| plugin.replica.clone());
    let of = |replica: ReplicaDescription| {
        let (_, source) = catalog.component(Kind::Source, &replica.source)?;
        Some(Kinds { task_key: source.task_key.clone()?, replica })
    };
    replicas.filter_map(of).collect()
}

/// A replica that is to be made.
#[derive(Clone, Debug)]
pub struct New<'a> {
    pub id: &'a str,
    pub kinds: &'a Kinds,
    /// Addresses as the file is to hold them, with `${…}` for secrets.
    pub ends: [&'a str; 2],
    /// The same as they may be printed.
    pub shown: [&'a str; 2],
    /// The command that makes it, for people.
    pub made_by: &'a str,
    /// The command that makes the other direction.
    pub other_direction: &'a str,
    /// `["*"]` for all.
    pub values: &'a [String],
    /// Left out of all.
    pub exclude: &'a [String],
    /// How often to look for new values; 0 is never. `None` where only named ones are replicated.
    pub interval_s: Option<u64>,
    /// Only what is written from now on.
    pub from_now: bool,
    pub both: bool,
    /// When, as a text.
    pub made: &'a str,
}

impl New<'_> {
    /// The file.
    pub fn text(&self) -> String {
        let Kinds { replica, task_key } = self.kinds;
        let (source, sink) = (text_of(self.ends[0]), text_of(self.ends[1]));
        let mut keys = vec![format!("{} = {}", key(task_key), array_of(self.values))];
        if let (Some(name), false) = (&replica.exclude_key, self.exclude.is_empty()) {
            keys.push(format!("{} = {}", key(name), array_of(self.exclude)));
        }
        if let (Some(name), Some(seconds)) = (&replica.discover_interval_key, self.interval_s) {
            keys.push(format!("{} = {}", key(name), text_of(&format!("{seconds}s"))));
        }
        if let (Some((name, value)), true) = (&replica.from_now, self.from_now) {
            keys.push(format!("{} = {}", key(name), text_of(value)));
        }
        let (keys, address, id) = (keys.join("\n"), key(&replica.address_key), key(self.id));
        let body = if self.both {
            let kind = text_of(&replica.type_name);
            format!("[replica.{id}]\ntype = {kind}\nsites = {{ a = {source}, b = {sink} }}\n{keys}\n")
        } else {
            let [source_type, transform, sink_type] =
                [&replica.source, &replica.transform, &replica.sink].map(|name| text_of(name));
            format!(
                "[pipeline.{id}.source]\ntype = {source_type}\n{address} = {source}\n{keys}\n\n\
                 [pipeline.{id}.transform]\ntype = {transform}\n\n\
                 [pipeline.{id}.sink]\ntype = {sink_type}\n{address} = {sink}\n"
            )
        };
        format!("{}\n{body}", self.head())
    }

    /// Comments: what it is, how it was made, what to do with it.
    fn head(&self) -> String {
        let [from, to] = self.shown.map(printable);
        let arrow = if self.both { "↔" } else { "→" };
        let id = self.id;
        let mut lines = vec![
            format!("Replica {id}: {from} {arrow} {to}"),
            String::new(),
            format!("Made {} by `{}`.", self.made, printable(self.made_by)),
            "This file is the replica: edit it, the service sees that. The same is done by".into(),
            format!("`pipeline replica start -i {id} NAME…`, `stop {id}`, `restart {id}`, `update {id}` and `remove {id}`."),
        ];
        if !self.both {
            lines.push(format!("The other direction: `{}`.", printable(self.other_direction)));
        }
        lines.iter().map(|line| format!("# {line}").trim_end().to_owned() + "\n").collect()
    }
}

/// For a comment: on one line, whatever is in it.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn text_of(text: &str) -> String {
    Value::from(text).to_string()
}

fn key(name: &str) -> String {
    toml_edit::Key::new(name).to_string()
}

fn array_of(texts: &[String]) -> String {
    let mut array = Array::new();
    texts.iter().for_each(|text| list::push(&mut array, text));
    Value::Array(array).to_string()
}

/// A file that holds replicas.
#[derive(Debug)]
pub struct ReplicaFile {
    document: DocumentMut,
    kinds: Vec<Kinds>,
}

impl ReplicaFile {
    /// # Errors
    /// A text that is no TOML.
    pub fn parse(text: &str, kinds: &[Kinds]) -> Result<Self, String> {
        let document = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
        Ok(Self { document, kinds: kinds.to_vec() })
    }

    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Whether the file holds a replica.
    pub fn is_replica(&mut self) -> bool {
        !self.directions().is_empty()
    }

    /// Whether values that nobody named are replicated.
    pub fn takes_all(&mut self) -> bool {
        self.directions().iter().any(Direction::takes_all)
    }

    /// Values that the file names, without `*`.
    pub fn named(&mut self) -> Vec<String> {
        let mut named: Vec<String> = self.directions().iter().flat_map(Direction::values).filter(|it| it != ALL).collect();
        named.sort();
        named.dedup();
        named
    }

    /// Whether every direction replicates the value.
    pub fn has(&mut self, value: &str) -> bool {
        self.directions().iter().all(|direction| direction.has(value))
    }

    /// Replicates the value from now on. Whether that is new.
    pub fn add(&mut self, value: &str) -> bool {
        self.change(|direction| direction.add(value))
    }

    /// Names a value that is one of all. Whether it was not named.
    pub fn name(&mut self, value: &str) -> bool {
        self.change(|direction| direction.name(value))
    }

    /// Replicates the value no more. Whether it was.
    pub fn remove(&mut self, value: &str) -> bool {
        self.change(|direction| direction.remove(value))
    }

    /// Changes both directions. Whether either is another now.
    fn change(&mut self, change: impl Fn(&mut Direction) -> bool) -> bool {
        let changed: Vec<bool> = self.directions().iter_mut().map(change).collect();
        changed.contains(&true)
    }

    /// Whether nothing is replicated any more.
    pub fn is_empty(&mut self) -> bool {
        self.directions().iter().all(|direction| direction.values().is_empty())
    }

    /// Sets how often new values are looked for, 0 for never. Where the file names values, it takes new ones from then on: all but
    /// those of `existing` that it does not name. Where it takes all and is to look no more, it names those of `existing` that it
    /// takes, as all would be found again at every start.
    ///
    /// # Errors
    /// A source that does not look for new values.
    pub fn set_interval(&mut self, seconds: u64, existing: &[String]) -> Result<(), String> {
        for mut direction in self.directions() {
            let Some(interval_key) = direction.kinds.replica.discover_interval_key.clone() else {
                return Err(format!("a `{}` replica does not look for new ones", direction.kinds.replica.type_name));
            };
            match (seconds > 0, direction.takes_all()) {
                (true, false) => direction.take_all(existing)?,
                (false, true) => direction.take_named(existing),
                _ => {}
            }
            set(direction.table, &interval_key, Value::from(format!("{seconds}s")));
        }
        Ok(())
    }

    /// The tables that hold the task key of each replica.
    fn directions(&mut self) -> Vec<Direction<'_>> {
        let mut found = Vec::new();
        let kinds = &self.kinds;
        for (name, item) in self.document.iter_mut() {
            let tables = item.as_table_like_mut().into_iter().flat_map(TableLike::iter_mut);
            for (_, item) in tables {
                let table = match name.get() {
                    "replica" => item.as_table_like_mut(),
                    "pipeline" => item.as_table_like_mut().filter(|table| is_replica(*table, kinds)).and_then(|table| {
                        table.get_mut("source").and_then(Item::as_table_like_mut)
                    }),
                    _ => None,
                };
                let is_of = |table: &dyn TableLike, kinds: &&Kinds| {
                    let type_name = table.get("type").and_then(Item::as_str);
                    type_name == Some(if name.get() == "replica" { &kinds.replica.type_name } else { &kinds.replica.source })
                };
                if let Some(table) = table
                    && let Some(kinds) = kinds.iter().find(|kinds| is_of(&*table, kinds))
                {
                    found.push(Direction { table, kinds });
                }
            }
        }
        found
    }
}

/// Whether a pipeline's transforms hold the one of a replica.
fn is_replica(pipeline: &dyn TableLike, kinds: &[Kinds]) -> bool {
    let is_mark = |table: &dyn TableLike| {
        let type_name = table.get("type").and_then(Item::as_str);
        kinds.iter().any(|kinds| type_name == Some(&kinds.replica.transform))
    };
    match pipeline.get("transform") {
        Some(Item::ArrayOfTables(tables)) => tables.iter().any(|table| is_mark(table)),
        Some(Item::Value(Value::Array(tables))) => {
            tables.iter().filter_map(Value::as_inline_table).any(|table| is_mark(table))
        }
        Some(item) => item.as_table_like().is_some_and(is_mark),
        None => false,
    }
}

/// The table with the task key: a pipeline's source, or a `[replica]`.
struct Direction<'a> {
    table: &'a mut dyn TableLike,
    kinds: &'a Kinds,
}

impl Direction<'_> {
    /// The task key's values; every one where it is absent.
    fn values(&self) -> Vec<String> {
        match self.table.get(&self.kinds.task_key).and_then(Item::as_array) {
            Some(array) => list::texts(array).map(str::to_owned).collect(),
            None => vec![ALL.into()],
        }
    }

    fn excluded(&self) -> Vec<String> {
        let key = self.kinds.replica.exclude_key.as_deref();
        let array = key.and_then(|key| self.table.get(key)).and_then(Item::as_array);
        array.map(|array| list::texts(array).map(str::to_owned).collect()).unwrap_or_default()
    }

    fn takes_all(&self) -> bool {
        self.values().iter().any(|value| value == ALL)
    }

    fn has(&self, value: &str) -> bool {
        let values = self.values();
        values.iter().any(|it| it == value) || self.takes_all() && !self.excluded().iter().any(|it| it == value)
    }

    fn add(&mut self, value: &str) -> bool {
        if self.has(value) {
            return false;
        }
        if self.takes_all() {
            self.include(value);
        } else {
            self.name(value);
        }
        true
    }

    fn name(&mut self, value: &str) -> bool {
        if self.values().iter().any(|it| it == value) {
            return false;
        }
        if !self.table.contains_key(&self.kinds.task_key) {
            // An absent key is all.
            set(self.table, &self.kinds.task_key, Value::Array([ALL].into_iter().collect()));
        }
        list::push(self.array(&self.kinds.task_key), value);
        true
    }

    fn remove(&mut self, value: &str) -> bool {
        if !self.has(value) {
            return false;
        }
        if self.table.contains_key(&self.kinds.task_key) {
            list::remove(self.array(&self.kinds.task_key), value);
        }
        if let (true, Some(key)) = (self.takes_all(), &self.kinds.replica.exclude_key) {
            list::push(self.array(key), value);
        }
        true
    }

    /// From named values to all but those that exist and are not named.
    fn take_all(&mut self, existing: &[String]) -> Result<(), String> {
        let Some(exclude) = &self.kinds.replica.exclude_key else {
            return Err(format!("a `{}` replica takes all or those that are named", self.kinds.replica.type_name));
        };
        let named = self.values();
        set(self.table, &self.kinds.task_key, Value::Array([ALL].into_iter().collect()));
        for value in existing.iter().filter(|value| !named.contains(value)) {
            list::push(self.array(exclude), value);
        }
        Ok(())
    }

    /// From all to those that exist and are not excluded.
    fn take_named(&mut self, existing: &[String]) {
        let mut named = self.values();
        named.retain(|value| value != ALL);
        let found: Vec<String> = existing.iter().filter(|value| self.has(value) && !named.contains(value)).cloned().collect();
        named.extend(found);
        set(self.table, &self.kinds.task_key, Value::Array(named.into_iter().collect()));
        if let Some(exclude) = &self.kinds.replica.exclude_key {
            self.table.remove(exclude);
        }
    }

    /// No longer excluded; a list that becomes empty goes.
    fn include(&mut self, value: &str) {
        let Some(key) = self.kinds.replica.exclude_key.as_deref() else { return };
        let array = self.array(key);
        list::remove(array, value);
        if array.is_empty() {
            self.table.remove(key);
        }
    }

    /// The array of this key, made where there is none.
    fn array(&mut self, key: &str) -> &mut Array {
        if self.table.get(key).and_then(Item::as_array).is_none() {
            self.table.insert(key, value(Array::new()));
        }
        self.table.get_mut(key).and_then(Item::as_array_mut).expect("it was just made")
    }
}

/// Sets a key; comments about it stay.
fn set(table: &mut dyn TableLike, key: &str, mut new: Value) {
    match table.get_mut(key) {
        Some(item) => {
            if let Some(old) = item.as_value() {
                *new.decor_mut() = old.decor().clone();
            }
            *item = Item::Value(new);
        }
        None => {
            table.insert(key, Item::Value(new));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds() -> Vec<Kinds> {
        let replica = ReplicaDescription {
            type_name: "tape".into(),
            source: "tape-log".into(),
            transform: "mark".into(),
            sink: "tape".into(),
            site: "tape".into(),
            address_key: "dsn".into(),
            exclude_key: Some("exclude".into()),
            rename_key: None,
            discover_interval_key: Some("look-every".into()),
            from_now: Some(("begin".into(), "now".into())),
            in_mesh: None,
        };
        vec![Kinds { replica, task_key: "names".into() }]
    }

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn new(values: &[&str], exclude: &[&str], interval_s: Option<u64>, both: bool) -> String {
        let (kinds, values, exclude) = (kinds(), names(values), names(exclude));
        let ends = ["ws://:${A}@a", "ws://b"];
        let shown = ["ws://a:1", "ws://b:1"];
        let (made_by, other_direction) = ("start a b power", "start b a power");
        New { id: "abc234", kinds: &kinds[0], ends, shown, made_by, other_direction, values: &values, exclude: &exclude, interval_s, from_now: false, both, made: "today" }
            .text()
    }

    #[test]
    fn a_new_file_says_what_it_is() {
        let expect = "\
# Replica abc234: ws://a:1 → ws://b:1
#
# Made today by `start a b power`.
# This file is the replica: edit it, the service sees that. The same is done by
# `pipeline replica start -i abc234 NAME…`, `stop abc234`, `restart abc234`, `update abc234` and `remove abc234`.
# The other direction: `start b a power`.

[pipeline.abc234.source]
type = \"tape-log\"
dsn = \"ws://:${A}@a\"
names = [\"power\", '\"odd\"']

[pipeline.abc234.transform]
type = \"mark\"

[pipeline.abc234.sink]
type = \"tape\"
dsn = \"ws://b\"
";
        assert_eq!(new(&["power", "\"odd\""], &[], None, false), expect);
        let both = new(&["*"], &["old"], Some(30), true);
        let body = both.split_once("\n\n").unwrap().1;
        let expect = "[replica.abc234]\ntype = \"tape\"\nsites = { a = \"ws://:${A}@a\", b = \"ws://b\" }\n\
                      names = [\"*\"]\nexclude = [\"old\"]\nlook-every = \"30s\"\n";
        assert_eq!(body, expect);
        assert!(both.contains("ws://a:1 ↔ ws://b:1") && !both.contains("other direction"), "{both}");
    }

    #[test]
    fn values_come_and_go_and_comments_stay() {
        let text = "# head\n[pipeline.p]\nsource = { type = \"tape-log\", dsn = \"x\", names = [\"power\"] } # s\n\
                    transform = [{ type = \"other\" }, { type = \"mark\" }]\nsink = { type = \"tape\" }\n\
                    [pipeline.plain]\nsource = { type = \"tape-log\", names = [\"kept\"] }\nsink = { type = \"tape\" }\n";
        let mut file = ReplicaFile::parse(text, &kinds()).unwrap();
        assert_eq!((file.is_replica(), file.takes_all(), file.named()), (true, false, names(&["power"])));
        assert!(file.add("water") && !file.add("water") && file.has("water"));
        assert_eq!(file.text(), text.replace("[\"power\"]", "[\"power\", \"water\"]"));
        assert!(file.remove("water") && !file.remove("water"));
        assert_eq!(file.text(), text);
        assert!(file.remove("power") && file.is_empty());
    }

    #[test]
    fn what_is_taken_from_all_is_excluded() {
        let text = new(&["*"], &[], Some(30), true);
        let mut file = ReplicaFile::parse(&text, &kinds()).unwrap();
        assert!(file.takes_all() && file.has("power") && !file.add("power"));
        assert!(file.remove("power") && !file.has("power") && !file.is_empty());
        assert!(file.text().contains("exclude = [\"power\"]"), "{}", file.text());
        assert!(file.add("power"));
        assert_eq!(file.text(), text);
    }

    #[test]
    fn one_of_all_can_be_named() {
        let text = new(&["*"], &[], Some(0), true);
        for text in [text.clone(), text.replace("names = [\"*\"]\n", "")] {
            let mut file = ReplicaFile::parse(&text, &kinds()).unwrap();
            assert!(file.name("power") && !file.name("power") && file.takes_all());
            assert!(file.text().contains("names = [\"*\", \"power\"]"), "{}", file.text());
        }
    }

    #[test]
    fn an_interval_lets_a_file_of_named_ones_take_new_ones() {
        let mut file = ReplicaFile::parse(&new(&["power"], &[], None, false), &kinds()).unwrap();
        file.set_interval(5, &names(&["power", "water"])).unwrap();
        assert!(file.takes_all() && file.has("power") && !file.has("water") && file.has("made later"));
        let text = file.text().replace("look-every = \"5s\"", "look-every = \"5s\" # quick");
        let mut file = ReplicaFile::parse(&text, &kinds()).unwrap();
        file.set_interval(0, &names(&["power", "gas", "water"])).unwrap();
        let expect = text.replace("\"5s\"", "\"0s\"").replace("[\"*\"]", "[\"power\", \"gas\"]").replace("exclude = [\"water\"]\n", "");
        assert_eq!(file.text(), expect);
        file.set_interval(0, &names(&["oil"])).unwrap();
        assert_eq!(file.text(), expect);
    }
}
