//! A prepared INSERT: what its text fixes, what is bound later, and the table that both end up in.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use tdengine_store::store::CreateChild;
use tdengine_store::{Session, Store, TableKind};
use tdengine_wire::envelope::StmtField;
use tdengine_wire::{ColumnType, DataType, Field, Precision};

use super::value::{Bound, Constant, block, tag};
use crate::error::Fail;

/// A value of the text: bound later, or a constant.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Slot {
    Parameter,
    Constant(Json),
}

/// A table by its names; the database may be the session's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub database: Option<String>,
    pub table: String,
}

/// `USING stable [(tags)] TAGS (…)`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Using {
    pub stable: Name,
    pub tag_names: Option<Vec<String>>,
    pub tags: Vec<Slot>,
}

/// The text of an INSERT, taken apart.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Template {
    /// `None` for a question mark.
    pub table: Option<Name>,
    pub using: Option<Using>,
    pub columns: Option<Vec<String>>,
    pub values: Vec<Slot>,
}

/// What a question mark stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parameter {
    Table,
    Tag(usize),
    Column(usize),
}

/// A template whose names are looked up: the fields that it writes, in order.
#[derive(Debug)]
pub(super) struct Target {
    pub database: String,
    pub precision: Precision,
    /// The table of the text; `None` when it is bound.
    pub table: Option<String>,
    /// The super table whose child is made when missing.
    pub stable: Option<String>,
    pub tags: Vec<(Field, Fixed)>,
    pub columns: Vec<(Field, Fixed)>,
    /// In the order of the question marks.
    pub parameters: Vec<Parameter>,
}

/// `None` for what is bound; else the constant's bytes, `Some(None)` being NULL.
pub(super) type Fixed = Option<Option<Vec<u8>>>;

/// Rows of one table, ready to be written.
#[derive(Debug)]
pub(super) struct Write {
    pub database: String,
    pub table: String,
    pub names: Vec<String>,
    pub block: Vec<u8>,
    pub rows: usize,
    pub create: Option<CreateChild>,
}

impl Name {
    /// As `set_table_name` and bound names give it: `[database.]table`, each with or without back-quotes.
    pub fn parse(text: &str) -> Self {
        let unquote = |part: &str| match part.strip_prefix('`').and_then(|part| part.strip_suffix('`')) {
            Some(inner) => inner.to_owned(),
            None => part.to_owned(),
        };
        let split = if text.starts_with('`') { text.find("`.").map(|at| at + 1) } else { text.find('.') };
        match split {
            Some(at) => Self { database: Some(unquote(&text[..at])), table: unquote(&text[at + 1..]) },
            None => Self { database: None, table: unquote(text) },
        }
    }

    fn database(&self, session: &Session) -> Result<String, Fail> {
        let database = self.database.clone().or_else(|| session.database.clone());
        database.ok_or_else(|| Fail::new(0x2616, "Database not specified"))
    }
}

impl Template {
    /// Looks the names up. `bound` is the table's name where the text has a question mark.
    ///
    /// # Errors
    /// 0x2603 for a missing table, 0x2602 and 0x260E for columns and tags that it does not have, 0x263F for numbers of
    /// values that do not match, and [`name_needed`] when a bound name is needed and missing.
    pub fn target(&self, store: &Store, session: &Session, bound: Option<&str>) -> Result<Target, Fail> {
        let named = self.table.clone().or_else(|| bound.map(Name::parse));
        let schema_of = match (&self.using, &named) {
            (Some(using), _) => using.stable.clone(),
            (None, Some(named)) => named.clone(),
            (None, None) => return Err(name_needed()),
        };
        let database = named.as_ref().unwrap_or(&schema_of).database.clone();
        let database = Name { database, table: String::new() }.database(session).or_else(|_| schema_of.database(session))?;
        let schema = store.describe(&schema_of.database(session).unwrap_or_else(|_| database.clone()), &schema_of.table)?;
        let precision = store.database(&database)?.options.precision();
        let constant = |slot: &Slot, field: &Field| -> Result<Fixed, Fail> {
            match slot {
                Slot::Parameter => Ok(None),
                Slot::Constant(json) => Ok(Some(super::parse::constant(json, field, precision)?)),
            }
        };
        let mut target = Target {
            database,
            precision,
            table: named.map(|named| named.table).filter(|_| self.table.is_some()),
            stable: self.using.as_ref().map(|using| using.stable.table.clone()),
            tags: Vec::new(),
            columns: Vec::new(),
            parameters: Vec::new(),
        };
        if self.table.is_none() {
            target.parameters.push(Parameter::Table);
        }
        if let Some(using) = &self.using {
            for (field, slot) in listed(&schema.tags.fields, using.tag_names.as_deref(), &using.tags, tag_missing)? {
                if *slot == Slot::Parameter {
                    target.parameters.push(Parameter::Tag(target.tags.len()));
                }
                target.tags.push((field.clone(), constant(slot, field)?));
            }
        }
        if schema.kind == TableKind::Super && self.using.is_none() {
            target.stable = Some(schema_of.table.clone());
            target.table = None;
            return self.into_stable(target, &schema.columns.fields, &schema.tags.fields, constant);
        }
        for (field, slot) in listed(&schema.columns.fields, self.columns.as_deref(), &self.values, column_missing)? {
            if *slot == Slot::Parameter {
                target.parameters.push(Parameter::Column(target.columns.len()));
            }
            target.columns.push((field.clone(), constant(slot, field)?));
        }
        Ok(target)
    }

    /// `INSERT INTO stable (tbname, columns, tags) VALUES (…)`: which is which, the names tell.
    fn into_stable(
        &self,
        mut target: Target,
        columns: &[Field],
        tags: &[Field],
        constant: impl Fn(&Slot, &Field) -> Result<Fixed, Fail>,
    ) -> Result<Target, Fail> {
        let names = self.columns.as_deref().ok_or_else(name_needed)?;
        if names.len() != self.values.len() {
            return Err(wrong_count());
        }
        let name_field = Field::new("tbname", ColumnType::varchar(192), 0);
        for (name, slot) in names.iter().zip(&self.values) {
            let is_bound = *slot == Slot::Parameter;
            if name == "tbname" {
                match constant(slot, &name_field)? {
                    None => target.parameters.push(Parameter::Table),
                    Some(name) => target.table = name.and_then(|name| String::from_utf8(name).ok()),
                }
            } else if let Some(field) = columns.iter().find(|field| field.name == *name) {
                target.parameters.extend(is_bound.then_some(Parameter::Column(target.columns.len())));
                target.columns.push((field.clone(), constant(slot, field)?));
            } else if let Some(field) = tags.iter().find(|field| field.name == *name) {
                target.parameters.extend(is_bound.then_some(Parameter::Tag(target.tags.len())));
                target.tags.push((field.clone(), constant(slot, field)?));
            } else {
                return Err(column_missing(name));
            }
        }
        Ok(target)
    }
}

impl Target {
    /// The fields that version 1 binds as tags or columns.
    pub fn bound(fields: &[(Field, Fixed)]) -> impl Iterator<Item = &Field> {
        fields.iter().filter(|(_, fixed)| fixed.is_none()).map(|(field, _)| field)
    }

    /// The fields of the question marks, as version 2 tells them.
    pub fn parameter_fields(&self) -> Vec<StmtField> {
        const COLUMN: i8 = 1;
        const TAG: i8 = 2;
        const TABLE: i8 = 4;
        let name = || Field::new("tbname", ColumnType::varchar(269), 0);
        let field = |parameter: &Parameter| match parameter {
            Parameter::Table => stmt_field(&name(), self.precision, Some(TABLE)),
            Parameter::Tag(at) => stmt_field(&self.tags[*at].0, self.precision, Some(TAG)),
            Parameter::Column(at) => stmt_field(&self.columns[*at].0, self.precision, Some(COLUMN)),
        };
        self.parameters.iter().map(field).collect()
    }

    /// The values of the tags, `bound` being those of the question marks among them. `None` where no child is to be made.
    pub fn create(&self, bound: &[&dyn Bound], row: usize) -> Result<Option<CreateChild>, Fail> {
        let Some(stable) = &self.stable else {
            return Ok(None);
        };
        let mut bound = bound.iter();
        let mut values = Vec::with_capacity(self.tags.len());
        for (field, fixed) in &self.tags {
            values.push(match fixed {
                Some(value) => value.clone(),
                None => tag(field, *bound.next().ok_or_else(wrong_count)?, row, self.precision)?,
            });
        }
        if bound.next().is_some() {
            return Err(wrong_count());
        }
        let tag_names = self.tags.iter().map(|(field, _)| field.name.clone()).collect();
        Ok(Some(CreateChild { stable: stable.clone(), tag_names: Some(tag_names), tag_values: values, ttl_days: 0 }))
    }

    /// Rows for `table` out of the values of the question marks among the columns.
    pub fn write(&self, table: &str, create: Option<CreateChild>, bound: &[&dyn Bound]) -> Result<Write, Fail> {
        let name = Name::parse(table);
        let rows = bound.first().map_or(1, |bound| bound.rows());
        let constants: BTreeMap<usize, Constant<'_>> = self.columns.iter().enumerate().filter_map(|(at, (_, fixed))| {
            fixed.as_ref().map(|value| (at, Constant { value: value.as_deref(), rows }))
        }).collect();
        let mut bound = bound.iter();
        let mut columns: Vec<(&Field, &dyn Bound)> = Vec::with_capacity(self.columns.len());
        for (at, (field, _)) in self.columns.iter().enumerate() {
            match constants.get(&at) {
                Some(constant) => columns.push((field, constant)),
                None => columns.push((field, *bound.next().ok_or_else(wrong_count)?)),
            }
        }
        if bound.next().is_some() {
            return Err(wrong_count());
        }
        Ok(Write {
            database: name.database.unwrap_or_else(|| self.database.clone()),
            table: name.table,
            names: self.columns.iter().map(|(field, _)| field.name.clone()).collect(),
            block: block(&columns, self.precision)?,
            rows,
            create,
        })
    }
}

/// A field as clients are told of it.
pub(super) fn stmt_field(field: &Field, precision: Precision, bind_type: Option<i8>) -> StmtField {
    let column = field.column_type;
    let (digits, scale) = column.decimal_parts().unwrap_or_default();
    let is_time = column.data_type == DataType::Timestamp;
    StmtField {
        name: field.name.clone(),
        field_type: column.data_type.code(),
        precision: if is_time { precision.code() } else { digits },
        scale,
        bytes: column.data_type.width().map_or(column.bytes, |width| width as i32),
        bind_type,
    }
}

/// The named fields, or all of them in order, each with its slot.
fn listed<'a>(
    fields: &'a [Field],
    names: Option<&[String]>,
    slots: &'a [Slot],
    missing: fn(&str) -> Fail,
) -> Result<Vec<(&'a Field, &'a Slot)>, Fail> {
    let fields: Vec<&Field> = match names {
        None => fields.iter().collect(),
        Some(names) => {
            let find = |name: &String| fields.iter().find(|field| field.name == *name).ok_or_else(|| missing(name));
            names.iter().map(find).collect::<Result<_, _>>()?
        }
    };
    if fields.len() != slots.len() {
        return Err(wrong_count());
    }
    Ok(fields.into_iter().zip(slots).collect())
}

fn column_missing(name: &str) -> Fail {
    Fail::new(0x2602, format!("Invalid column name: {name}"))
}

fn tag_missing(name: &str) -> Fail {
    Fail::new(0x260E, format!("Invalid tag name: {name}"))
}

/// The engine's answer to a call that does not fit the statement's state.
pub(crate) fn misuse() -> Fail {
    Fail::new(0x022A, "Stmt API usage error")
}

fn wrong_count() -> Fail {
    Fail::new(0x0118, "Invalid parameters: the numbers of values and of columns or tags differ")
}

/// A table's name has to be bound first.
pub(super) fn name_needed() -> Fail {
    Fail::new(0x022C, "Table name is not bound")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bound_table_names() {
        let check = |text: &str, database: Option<&str>, table: &str| {
            let name = Name::parse(text);
            assert_eq!((name.database.as_deref(), name.table.as_str()), (database, table), "{text}");
        };
        check("s1", None, "s1");
        check("jq.s1", Some("jq"), "s1");
        check("`s.1`", None, "s.1");
        check("`d.b`.`s.1`", Some("d.b"), "s.1");
        check("`Aa`.b", Some("Aa"), "b");
    }
}
