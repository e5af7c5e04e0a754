//! A site as a user sees it: SQL over `/rest/sql`, and a dump of a database that two sites are compared by.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine;
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Site {
    /// HOST:PORT of its WebSocket and REST port.
    pub address: String,
}

/// Everything that must be equal at two sites: super tables, tables with their tags, rows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dump {
    /// Columns and tags by name, as the order of tags may differ between sites (FACTS F67).
    pub schemas: BTreeMap<String, Vec<String>>,
    pub tags: BTreeMap<String, BTreeMap<String, String>>,
    pub rows: BTreeMap<String, Vec<String>>,
}

impl Site {
    pub fn new(address: impl Into<String>) -> Self {
        Self { address: address.into() }
    }

    pub fn dsn(&self) -> String {
        format!("ws://root:taosdata@{}", self.address)
    }

    /// Rows of a statement, or the server's code.
    pub fn try_sql(&self, sql: &str) -> Result<Result<Vec<Vec<Value>>, (u64, String)>> {
        self.try_sql_in("", sql)
    }

    /// As [`Site::try_sql`], with a current database.
    pub fn try_sql_in(&self, database: &str, sql: &str) -> Result<Result<Vec<Vec<Value>>, (u64, String)>> {
        let token = base64::engine::general_purpose::STANDARD.encode("root:taosdata");
        let path = if database.is_empty() { String::new() } else { format!("/{database}") };
        let body = ureq::post(format!("http://{}/rest/sql{path}", self.address))
            .config()
            .timeout_global(Some(Duration::from_secs(60)))
            .build()
            .header("Authorization", format!("Basic {token}"))
            .send(sql)
            .with_context(|| format!("{}: {sql}", self.address))?
            .body_mut()
            .with_config()
            .limit(1 << 30)
            .read_to_string()?;
        let reply: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
        match reply["code"].as_u64() {
            Some(0) => {}
            Some(code) => return Ok(Err((code, reply["desc"].as_str().unwrap_or_default().to_owned()))),
            None => bail!("{sql}: {body}"),
        }
        let rows = reply["data"].as_array().cloned().unwrap_or_default();
        Ok(Ok(rows.into_iter().map(|row| row.as_array().cloned().unwrap_or_default()).collect()))
    }

    /// Rows of a statement that must succeed; one that meets a passing state of the server is tried again for a while.
    pub fn sql(&self, sql: &str) -> Vec<Vec<Value>> {
        self.sql_in("", sql)
    }

    /// As [`Site::sql`], with a current database.
    pub fn sql_in(&self, database: &str, sql: &str) -> Vec<Vec<Value>> {
        for _ in 0..100 {
            match self.try_sql_in(database, sql).unwrap_or_else(|error| panic!("{error:#}")) {
                Ok(rows) => return rows,
                // Conflicting transaction, or a table that is being created.
                Err((0x03d3 | 0x0618, _)) => std::thread::sleep(Duration::from_millis(100)),
                Err((code, text)) => panic!("{}: {sql}: {code:#06x} {text}", self.address),
            }
        }
        panic!("{}: {sql}: did not succeed within 10 s", self.address)
    }

    pub fn answers(&self) -> bool {
        self.try_sql("select server_version()").is_ok_and(|reply| reply.is_ok())
    }

    /// A database as it stands. An error where something changed while it was read.
    pub fn dump(&self, database: &str) -> Result<Dump> {
        let mut dump = Dump::default();
        let list = |sql: String| -> Result<Vec<Vec<Value>>> {
            self.try_sql(&sql)?.map_err(|(code, text)| anyhow::anyhow!("{sql}: {code:#06x} {text}"))
        };
        let of = |table: &str| format!("information_schema.{table} where db_name = '{database}'");
        let mut described: Vec<String> = Vec::new();
        for row in list(format!("select stable_name from {}", of("ins_stables")))? {
            described.push(string(&row[0]));
        }
        let tables = list(format!("select table_name, stable_name from {}", of("ins_tables")))?;
        for row in &tables {
            if row[1].is_null() {
                described.push(string(&row[0]));
            }
        }
        for name in described {
            let mut lines: Vec<String> = list(format!("describe `{database}`.{}", quote(&name)))?
                .iter()
                .map(|row| format!("{} {} {} {}", row[0], row[1], row[2], row[3]))
                .collect();
            lines[1..].sort();
            dump.schemas.insert(name, lines);
        }
        for row in list(format!("select table_name, tag_name, tag_value from {}", of("ins_tags")))? {
            dump.tags.entry(string(&row[0])).or_default().insert(string(&row[1]), row[2].to_string());
        }
        // All tables of a super table in one query: one each is what most of the time went to.
        let mut sources: BTreeSet<String> = BTreeSet::new();
        for row in tables {
            let name = string(&row[0]);
            sources.insert(row[1].as_str().unwrap_or(&name).to_owned());
            dump.rows.insert(name, Vec::new());
        }
        for source in sources {
            // Columns by name: their order at two sites may differ after alters.
            let definition = dump.schemas.get(&source).cloned().unwrap_or_default();
            let columns = definition.iter().filter(|line| !line.contains("\"TAG\"")).map(|line| line.split('"').nth(1).unwrap_or_default());
            let columns: Vec<String> = columns.map(quote).collect();
            for mut row in list(format!("select tbname, {} from `{database}`.{}", columns.join(", "), quote(&source)))? {
                let values = row.split_off(1);
                dump.rows.entry(string(&row[0])).or_default().push(Value::from(values).to_string());
            }
        }
        dump.rows.values_mut().for_each(|rows| rows.sort());
        Ok(dump)
    }
}

impl Dump {
    pub fn row_count(&self) -> usize {
        self.rows.values().map(Vec::len).sum()
    }

    /// What differs, for a person: at most 20 lines.
    pub fn differences(&self, other: &Dump) -> Vec<String> {
        let mut lines = Vec::new();
        compare("schema", &self.schemas, &other.schemas, &mut lines);
        compare("tags", &self.tags, &other.tags, &mut lines);
        let names: BTreeSet<_> = self.rows.keys().chain(other.rows.keys()).collect();
        for name in names {
            let (left, right) = (self.rows.get(name), other.rows.get(name));
            let (Some(left), Some(right)) = (left, right) else {
                lines.push(format!("table {name}: at A {}, at B {}", left.is_some(), right.is_some()));
                continue;
            };
            let missing = |of: &[String], from: &[String]| -> Vec<String> {
                let from: BTreeSet<_> = from.iter().collect();
                of.iter().filter(|row| !from.contains(row)).take(3).cloned().collect()
            };
            if left != right {
                lines.push(format!(
                    "table {name}: {} and {} rows, only at A {:?}, only at B {:?}",
                    left.len(),
                    right.len(),
                    missing(left, right),
                    missing(right, left)
                ));
            }
        }
        lines.truncate(20);
        lines
    }
}

fn compare<V: PartialEq + std::fmt::Debug>(
    what: &str,
    left: &BTreeMap<String, V>,
    right: &BTreeMap<String, V>,
    lines: &mut Vec<String>,
) {
    let names: BTreeSet<_> = left.keys().chain(right.keys()).collect();
    for name in names {
        if left.get(name) != right.get(name) {
            lines.push(format!("{what} of {name}: A {:?}, B {:?}", left.get(name), right.get(name)));
        }
    }
}

fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

fn string(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
