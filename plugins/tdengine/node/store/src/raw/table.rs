//! Raw changes of children and normal tables.

use std::cmp::Ordering;
use std::sync::Arc;

use tdengine_wire::types::flags;
use tdengine_wire::{DataType, Field};

use super::Raw;
use crate::body::read::{RawAlter, RawCreate, RawCreateKind, RawSchema, RawTag};
use crate::ddl::table::{CreateKind, CreateTable, DropTable};
use crate::ddl::{AlterKind, ColumnSpec, Compression};
use crate::error::{Result, ServerError, code};
use crate::schema::{Stable, TagValues};
use crate::session::MARK;
use crate::write::child::NewChild;

impl Raw<'_> {
    /// CREATE TABLE: one whose super table is missing is passed over, one that is there is left as it is, both with
    /// success (FACTS F32).
    pub(super) fn create_tables(&self, requests: Vec<RawCreate>) -> Result<u64> {
        let mut tables = Vec::new();
        for request in requests {
            if self.stable(&request.name).is_some() {
                continue;
            }
            let RawCreate { name, ttl_days, comment, kind } = request;
            let kind = match kind {
                RawCreateKind::Child { stable, tag_names, tags, is_json } => {
                    let Some(stable) = self.stable(&stable) else { continue };
                    let tags = if is_json { json_tags(&stable, &tags) } else { self.by_name(&stable, &tag_names, tags)? };
                    CreateKind::Child(NewChild { stable, tag_names, tags, ttl_days, comment })
                }
                RawCreateKind::Normal { columns, compression } => {
                    CreateKind::Normal { columns: specs(&columns, &compression), ttl_days, comment }
                }
            };
            tables.push(CreateTable { database: self.database.clone(), name, if_not_exists: true, kind });
        }
        self.inner.create_tables(tables, MARK)?;
        Ok(0)
    }

    pub(super) fn stable(&self, name: &str) -> Option<Arc<Stable>> {
        self.inner.catalog.read().stable(self.database.id, name).cloned()
    }

    /// The tags with the ids that their names have here, as libtaos gives them: it pairs names and values by place,
    /// leaves the values in their old order, and the server then looks for them by bisection, which misses those that
    /// stand out of order (FACTS F67).
    fn by_name(&self, stable: &Stable, names: &[String], mut tags: Vec<RawTag>) -> Result<TagValues> {
        for (tag, name) in tags.iter_mut().zip(names) {
            if let Some(field) = stable.tags.field(name) {
                tag.id = field.id;
            }
        }
        if self.is_strict() {
            tags.sort_by_key(|tag| tag.id);
        }
        check_types(stable, &tags, self.is_strict())?;
        let mut values = TagValues::default();
        for field in &stable.tags.fields {
            if let Some(tag) = bisect(&tags, field.id) {
                values.0.insert(field.id, tag.bytes.clone());
            }
        }
        Ok(values)
    }

    /// ALTER TABLE; a table that is missing is passed over, and so are table options (PROTOCOL 10.4).
    pub(super) fn alter_table(&self, table: &str, alter: RawAlter) -> Result<u64> {
        if self.inner.find_table(&self.database, table)?.is_none() {
            return Ok(0);
        }
        let kind = match alter {
            RawAlter::SetTag { name, value, .. } => {
                let changes = |_: &Stable| Ok(vec![(name.clone(), value.clone())]);
                self.inner.set_tags(&self.database, table, changes, MARK)?;
                return Ok(0);
            }
            RawAlter::AddColumn { name, column_type } => {
                let compression = Compression::default();
                AlterKind::AddColumn(ColumnSpec { name, column_type, primary_key: false, compression })
            }
            RawAlter::DropColumn(name) => AlterKind::DropColumn(name),
            RawAlter::ModifyColumn { name, column_type } => AlterKind::ModifyColumn { name, column_type },
            RawAlter::RenameColumn { from, to } => AlterKind::RenameColumn { from, to },
            RawAlter::Other(_) => return Ok(0),
        };
        self.inner.alter_table(&self.database, table, &kind, MARK)?;
        Ok(0)
    }

    /// DROP TABLE by name; its entry carries no mark (FACTS F7).
    pub(super) fn drop_tables(&self, names: &[String]) -> Result<u64> {
        let table = |name: &String| DropTable { database: self.database.clone(), name: name.clone(), if_exists: true };
        self.inner.drop_tables(&names.iter().map(table).collect::<Vec<_>>(), self.drop_source())?;
        Ok(0)
    }
}

/// The tags with the ids of the source (FACTS F30, F67).
pub(super) fn by_id(stable: &Stable, tags: &[RawTag], is_strict: bool) -> Result<TagValues> {
    check_types(stable, tags, is_strict)?;
    Ok(TagValues(tags.iter().map(|tag| (tag.id, tag.bytes.clone())).collect()))
}

/// A value of another type than its tag kills a real server, and again at each start (FACTS F31).
fn check_types(stable: &Stable, tags: &[RawTag], is_strict: bool) -> Result<()> {
    let differs = |tag: &&RawTag| {
        let field = stable.tags.fields.iter().find(|field| field.id == tag.id);
        field.is_some_and(|field| field.column_type.data_type.code() != tag.code)
    };
    let Some(tag) = tags.iter().find(differs) else { return Ok(()) };
    if is_strict {
        return Err(ServerError::invalid_parameter("a tag has another type at the target"));
    }
    tracing::error!(
        stable = %stable.name,
        tag = tag.id,
        "raw child with a tag of another type: a real server dies of this and of every restart after it; nothing was written"
    );
    Err(ServerError::new(code::SERVICE_OUT, "some vnode/qnode/mnode(s) out of service"))
}

fn bisect(tags: &[RawTag], id: i16) -> Option<&RawTag> {
    let (mut low, mut high) = (0i64, tags.len() as i64 - 1);
    while low <= high {
        let middle = (low + high) / 2;
        let tag = &tags[middle as usize];
        match tag.id.cmp(&id) {
            Ordering::Less => low = middle + 1,
            Ordering::Greater => high = middle - 1,
            Ordering::Equal => return Some(tag),
        }
    }
    None
}

/// The object of a JSON tag, as text.
pub(super) fn json_tags(stable: &Stable, tags: &[RawTag]) -> TagValues {
    let mut object = serde_json::Map::new();
    for RawTag { key, code, bytes, .. } in tags {
        let value = match DataType::from_code(*code) {
            Ok(DataType::Bool) => bytes.first().is_some_and(|byte| *byte != 0).into(),
            Ok(DataType::Double) => {
                let number = bytes.as_slice().try_into().map_or(f64::NAN, f64::from_le_bytes);
                if number.fract() == 0.0 && number.abs() < 9e15 { (number as i64).into() } else { number.into() }
            }
            Ok(DataType::Nchar) => tdengine_wire::value::nchar_text(bytes).into(),
            _ => serde_json::Value::Null,
        };
        object.insert(key.clone(), value);
    }
    let mut values = TagValues::default();
    if let Some(field) = stable.tags.fields.first().filter(|_| !object.is_empty()) {
        values.0.insert(field.id, serde_json::Value::Object(object).to_string().into_bytes());
    }
    values
}

fn specs(columns: &RawSchema, compression: &[(i16, u32)]) -> Vec<ColumnSpec> {
    let spec = |field: &Field| {
        let word = compression.iter().find(|(id, _)| *id == field.id).map(|(_, word)| word.to_le_bytes());
        let part = |place: usize| word.map(|word| word[place]);
        ColumnSpec {
            name: field.name.clone(),
            column_type: field.column_type,
            primary_key: field.flags & flags::PRIMARY_KEY != 0,
            compression: Compression { encode: part(3), compress: part(1), level: part(0) },
        }
    };
    columns.fields.iter().map(spec).collect()
}
