//! Schemaless inserts (`insert` on `/ws`): super tables appear and grow as lines need it, children are named by their tags
//! (PROTOCOL 2, recording e2).
//!
//! The rows are unmarked as those of any user. The ALTERs are marked, as the real server marks them by mistake (FACTS
//! F10), so that whoever relies on exclusion can be tried against it.

mod json;
mod line;
mod point;
mod telnet;

use std::collections::HashMap;

use tdengine_store::session::MARK;
use tdengine_store::store::{CreateChild, TableWrite};
use tdengine_store::{Session, Store, TableSchema};
use tdengine_wire::block::{BlockBuilder, BlockView, VERSION_TMQ};
use tdengine_wire::envelope::Insert;
use tdengine_wire::{ColumnType, DataType, Field, Precision, escape};

use self::point::{Cell, Point, invalid, unit_ns};
use crate::error::Fail;

/// The column that holds the time, the one of protocols with a single value, and the tag of lines without tags.
const TIME: &str = "_ts";
const VALUE: &str = "_value";
const NO_TAG: &str = "_tag_null";

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Written {
    pub affected_rows: u64,
    pub total_rows: u64,
}

/// Writes the lines of a request.
///
/// # Errors
/// 0x2616 without a database, 0x3000 for an unknown protocol, 0x3002 and 0x0221 for lines that cannot be read, 0x3004
/// where the types of one request contradict each other, and whatever the store answers.
pub(crate) fn insert(store: &Store, session: &Session, request: &Insert) -> Result<Written, Fail> {
    let name = session.database.as_deref().ok_or_else(|| Fail::new(0x2616, "Database not specified"))?;
    let precision = store.database(name)?.options.precision();
    let points = parse(request)?;
    let total_rows = points.len() as u64;
    let mut batch = Batch { store, session, database: name, precision, ttl_days: request.ttl.max(0) };
    let mut affected_rows = 0;
    for (stable, mut points) in by_stable(points) {
        affected_rows += batch.write(&stable, &mut points, request.table_name_key.as_deref())?;
    }
    Ok(Written { affected_rows, total_rows })
}

fn parse(request: &Insert) -> Result<Vec<Point>, Fail> {
    let lines = || request.data.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let unit = unit_ns(&request.precision);
    let points: Vec<Point> = match request.protocol {
        1 => lines().map(|line| line::parse(line, unit)).collect::<Result<_, _>>()?,
        2 => lines().map(telnet::parse).collect::<Result<_, _>>()?,
        3 => json::parse(&request.data)?,
        _ => return Err(Fail::new(0x3000, "protocol invalidate")),
    };
    if points.is_empty() {
        return Err(invalid("line num is invalid"));
    }
    Ok(points)
}

/// Points by super table, in the order in which those first appear.
fn by_stable(points: Vec<Point>) -> Vec<(String, Vec<Point>)> {
    let mut groups: Vec<(String, Vec<Point>)> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for point in points {
        let stable = point.stable();
        let place = *places.entry(stable.clone()).or_insert_with(|| {
            groups.push((stable, Vec::new()));
            groups.len() - 1
        });
        groups[place].1.push(point);
    }
    groups
}

struct Batch<'a> {
    store: &'a Store,
    session: &'a Session,
    database: &'a str,
    precision: Precision,
    /// Of children that are made.
    ttl_days: i32,
}

/// Names and the types that hold all values of a request, in the order in which they first appear.
type Needed = Vec<(String, ColumnType)>;

impl Batch<'_> {
    fn write(&mut self, stable: &str, points: &mut [Point], name_key: Option<&str>) -> Result<u64, Fail> {
        let children: Vec<String> = points.iter_mut().map(|point| point.child(name_key)).collect();
        let fields = needed(points.iter().flat_map(|point| &point.fields))?;
        let mut tags = needed(points.iter().flat_map(|point| &point.tags))?;
        if tags.is_empty() {
            tags.push((NO_TAG.to_owned(), ColumnType::nchar(1)));
        }
        let schema = self.prepare(stable, &fields, &tags)?;
        let rows = runs(points, &children);
        let blocks = rows.iter().map(|run| self.block(run, &schema)).collect::<Result<Vec<_>, _>>()?;
        let writes = rows.iter().zip(&blocks).map(|(run, block)| {
            let names = [TIME].into_iter().chain(run.points[0].fields.iter().map(|(name, _)| name.as_str()));
            Ok(TableWrite {
                table: run.child,
                block: BlockView::parse(block)?,
                names: Some(names.collect()),
                create: Some(create_child(stable, &run.points[0].tags, self.ttl_days)),
                flags: 0,
            })
        });
        let writes = writes.collect::<Result<Vec<_>, Fail>>()?;
        Ok(self.store.write_tables(self.database, &writes)?)
    }

    /// Makes or grows the super table and tells its schema.
    fn prepare(&mut self, stable: &str, fields: &Needed, tags: &Needed) -> Result<TableSchema, Fail> {
        if self.store.stable(self.database, stable).is_none() {
            let list = |needed: &Needed| {
                let columns = needed.iter().map(|(name, column)| format!("{} {column}", escape::identifier(name)));
                columns.collect::<Vec<_>>().join(", ")
            };
            let (name, time) = (escape::qualified(self.database, stable), escape::identifier(TIME));
            let (columns, tags) = (list(fields), list(tags));
            self.execute(0, &format!("CREATE STABLE IF NOT EXISTS {name} ({time} TIMESTAMP, {columns}) TAGS ({tags})"))?;
        }
        let before = self.store.describe(self.database, stable)?;
        self.grow(stable, "COLUMN", &before.columns.fields, fields)?;
        self.grow(stable, "TAG", &before.tags.fields, tags)?;
        Ok(self.store.describe(self.database, stable)?)
    }

    fn grow(&mut self, stable: &str, what: &str, have: &[Field], need: &Needed) -> Result<(), Fail> {
        let table = escape::qualified(self.database, stable);
        for (name, column) in need {
            let quoted = escape::identifier(name);
            let how = match have.iter().find(|field| field.name == *name) {
                None => "ADD",
                Some(field) if field.column_type.data_type != column.data_type => {
                    return Err(invalid("Invalid data format"));
                }
                Some(field) if field.column_type.bytes < column.bytes => "MODIFY",
                Some(_) => continue,
            };
            self.execute(MARK, &format!("ALTER STABLE {table} {how} {what} {quoted} {column}"))?;
        }
        Ok(())
    }

    fn execute(&self, source: u8, sql: &str) -> Result<(), Fail> {
        let mut session = Session { source, ..self.session.clone() };
        self.store.execute(&mut session, sql)?;
        Ok(())
    }

    fn block(&self, run: &Run<'_>, schema: &TableSchema) -> Result<Vec<u8>, Fail> {
        let column_type = |name: &str| {
            let field = schema.columns.field(name);
            field.map(|field| field.column_type).ok_or_else(|| invalid(format!("column {name} is gone")))
        };
        let fields = &run.points[0].fields;
        let types = fields.iter().map(|(name, _)| column_type(name)).collect::<Result<Vec<_>, _>>()?;
        let time = ColumnType::of(DataType::Timestamp);
        let mut builder = BlockBuilder::new([time].into_iter().chain(types));
        for point in &run.points {
            builder.column(0).push_i64(point.time.in_precision(self.precision)?)?;
            for (place, (_, cell)) in point.fields.iter().enumerate() {
                builder.column(place + 1).push_bytes(&cell.bytes())?;
            }
        }
        Ok(builder.encode(VERSION_TMQ)?)
    }
}

/// Points of one child, one after another, that assign the same columns.
struct Run<'a> {
    child: &'a str,
    points: Vec<&'a Point>,
}

/// Children in the order in which they first appear; within a child, a new run wherever the assigned columns change.
fn runs<'a>(points: &'a [Point], children: &'a [String]) -> Vec<Run<'a>> {
    let mut by_child: Vec<(&str, Vec<Run<'a>>)> = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (point, child) in points.iter().zip(children) {
        let place = *places.entry(child).or_insert_with(|| {
            by_child.push((child, Vec::new()));
            by_child.len() - 1
        });
        let runs = &mut by_child[place].1;
        match runs.last_mut().filter(|run| same_columns(run.points[0], point)) {
            Some(run) => run.points.push(point),
            None => runs.push(Run { child, points: vec![point] }),
        }
    }
    by_child.into_iter().flat_map(|(_, runs)| runs).collect()
}

fn same_columns(one: &Point, other: &Point) -> bool {
    one.fields.len() == other.fields.len() && one.fields.iter().zip(&other.fields).all(|((a, _), (b, _))| a == b)
}

fn create_child(stable: &str, tags: &[(String, Cell)], ttl_days: i32) -> CreateChild {
    let (names, values) = match tags {
        [] => (vec![NO_TAG.to_owned()], vec![None]),
        tags => tags.iter().map(|(name, cell)| (name.clone(), Some(cell.bytes()))).unzip(),
    };
    CreateChild { stable: stable.to_owned(), tag_names: Some(names), tag_values: values, ttl_days }
}

/// The types that hold all of these values.
fn needed<'a>(cells: impl Iterator<Item = &'a (String, Cell)>) -> Result<Needed, Fail> {
    let mut needed: Needed = Vec::new();
    let mut places: HashMap<&str, usize> = HashMap::new();
    for (name, cell) in cells {
        let column = cell.column_type();
        let place = *places.entry(name).or_insert_with(|| {
            needed.push((name.clone(), column));
            needed.len() - 1
        });
        let known = &mut needed[place].1;
        if known.data_type != column.data_type {
            return Err(Fail::new(0x3004, format!("the type is not the same like before:{name}")));
        }
        known.bytes = known.bytes.max(column.bytes);
    }
    Ok(needed)
}
