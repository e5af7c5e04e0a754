//! What a query reads: stored tables, or rows in memory (system tables, subqueries, nothing).

use std::sync::Arc;

use tdengine_wire::block::ColumnView;
use tdengine_wire::{ColumnType, Field, Precision};

use super::cell::Cell;
use crate::result::ResultField;
use crate::schema::{Schema, TagValues};
use crate::table::{Table, TableBody};

pub(super) enum Relation {
    Stored(Stored),
    Memory(Memory),
}

/// A table, or the children of a super table.
pub(super) struct Stored {
    pub precision: Precision,
    pub columns: Arc<Schema>,
    pub tags: Arc<Schema>,
    pub tables: Vec<StoredTable>,
    /// Whether `*` holds the tags.
    pub is_super: bool,
}

pub(super) struct StoredTable {
    pub table: Arc<Table>,
    pub tags: Option<Arc<TagValues>>,
}

impl StoredTable {
    pub fn new(table: Arc<Table>) -> Self {
        let tags = match &table.meta().body {
            TableBody::Child { tags, .. } => Some(tags.clone()),
            TableBody::Normal { .. } => None,
        };
        Self { table, tags }
    }

    pub fn tag(&self, field: &Field) -> Cell {
        self.tags.as_ref().map_or(Cell::Null, |tags| Cell::of(tags.value(field), field.column_type))
    }
}

#[derive(Default)]
pub(super) struct Memory {
    pub fields: Vec<ResultField>,
    pub precision: Precision,
    pub rows: Vec<Vec<Cell>>,
}

impl Memory {
    /// One row without columns: what SELECT without FROM reads.
    pub fn nothing() -> Self {
        Self { rows: vec![Vec::new()], ..Self::default() }
    }
}

impl Relation {
    pub fn precision(&self) -> Precision {
        match self {
            Self::Stored(stored) => stored.precision,
            Self::Memory(memory) => memory.precision,
        }
    }

    /// Names and types of what `*` stands for.
    pub fn all(&self) -> Vec<(String, ColumnType)> {
        match self {
            Self::Stored(stored) => {
                let tags = stored.tags.fields.iter().filter(|_| stored.is_super);
                let fields = stored.columns.fields.iter().chain(tags);
                fields.map(|field| (field.name.clone(), field.column_type)).collect()
            }
            Self::Memory(memory) => memory.fields.iter().map(|field| (field.name.clone(), field.column_type)).collect(),
        }
    }
}

/// The row that an expression is computed for.
#[derive(Clone, Copy)]
pub(super) enum Row<'a> {
    Stored { stored: &'a Stored, table: &'a StoredTable, columns: &'a [Option<ColumnView<'a>>], at: usize },
    /// Of a table alone, without rows: its tags and name.
    Table { stored: &'a Stored, table: &'a StoredTable },
    Memory(&'a [Cell]),
}

impl Row<'_> {
    pub fn column(&self, index: usize) -> Cell {
        match self {
            Self::Stored { stored, columns, at, .. } => match columns.get(index).copied().flatten() {
                Some(column) => Cell::of(column.value(*at), stored.columns.fields[index].column_type),
                None => Cell::Null,
            },
            Self::Table { .. } => Cell::Null,
            Self::Memory(cells) => cells.get(index).cloned().unwrap_or(Cell::Null),
        }
    }

    /// Bytes of a text, without copying it; `None` for NULL.
    pub fn byte_length(&self, index: usize) -> Option<usize> {
        match self {
            Self::Stored { columns, at, .. } => columns.get(index).copied().flatten()?.bytes(*at).map(<[u8]>::len),
            other => match other.column(index) {
                Cell::Null => None,
                Cell::Text(bytes) | Cell::Bytes(bytes) => Some(bytes.len()),
                cell => Some(cell.shown().len()),
            },
        }
    }

    pub fn tag(&self, index: usize) -> Cell {
        match self {
            Self::Stored { stored, table, .. } | Self::Table { stored, table } => table.tag(&stored.tags.fields[index]),
            Self::Memory(_) => Cell::Null,
        }
    }

    pub fn table_name(&self) -> Cell {
        match self {
            Self::Stored { table, .. } | Self::Table { table, .. } => Cell::text(&*table.table.name),
            Self::Memory(_) => Cell::Null,
        }
    }
}
