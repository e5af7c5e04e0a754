//! What of this site's own the generator finds at the site, and then keeps up with: added columns and extra tables.
//!
//! It is read when a connection is made, so that a generator that starts again, or lost a reply, goes on where the site is.

use pipeline_sdk::{Error, Result};
use tdengine_wire::{DataType, Precision};

use super::names::Names;
use crate::transport::Connection;
use crate::metadata;

/// Columns that every row has.
pub const COLUMNS: [&str; 4] = ["ts", "current", "voltage", "phase"];

/// A column that this site added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddedColumn {
    pub name: String,
    pub kind: ColumnKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    Int,
    Double,
    Bool,
    /// Width in bytes.
    Varchar(u32),
    /// Width in characters.
    Nchar(u32),
}

impl ColumnKind {
    pub fn sql(self) -> String {
        match self {
            Self::Int => "INT".into(),
            Self::Double => "DOUBLE".into(),
            Self::Bool => "BOOL".into(),
            Self::Varchar(width) => format!("VARCHAR({width})"),
            Self::Nchar(width) => format!("NCHAR({width})"),
        }
    }

    fn of(column: &metadata::Column) -> Option<Self> {
        let width = column.column_type.capacity().unwrap_or_default();
        Some(match column.column_type.data_type {
            DataType::Int => Self::Int,
            DataType::Double => Self::Double,
            DataType::Bool => Self::Bool,
            DataType::Varchar => Self::Varchar(width),
            DataType::Nchar => Self::Nchar(width),
            _ => return None,
        })
    }
}

/// What is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    pub precision: Precision,
    pub columns: Vec<AddedColumn>,
    /// Numbers of the extra tables that exist.
    pub extra_tables: Vec<u32>,
    /// A number is never used again, so that no table is made under the name of one that was dropped.
    pub next_extra_table: u32,
    pub next_column: u32,
}

impl Known {
    /// Timestamps count in these.
    pub fn ticks_per_ms(&self) -> i64 {
        self.precision.per_second() / 1_000
    }

    /// Reads it by SQL.
    ///
    /// # Errors
    /// Fatal where the super table is another one than the generator makes.
    pub async fn read(connection: &Connection, names: &Names) -> Result<Self> {
        let place = || format!("{} at {}", names.qualified(&names.stable), connection.place());
        let database = metadata::database(connection, &names.database).await?;
        let definition = metadata::describe(connection, &names.database, &names.stable).await?.unwrap_or_default();
        let has_all = COLUMNS.iter().all(|name| definition.column(name).is_some());
        if !has_all || definition.tag("group_id").is_none() || definition.tag("location").is_none() {
            return Err(Error::fatal(format!("{} is no super table of this generator's", place()))
                .code("tdengine.meters")
                .hint("set `stable` to a name that is free, or drop the table"));
        }
        let mut known = Self { precision: database.map(|it| it.precision).unwrap_or_default(), ..Self::default() };
        for column in &definition.columns {
            let Some(number) = names.number_of_column(&column.name) else { continue };
            known.next_column = known.next_column.max(number + 1);
            known.columns.extend(
                ColumnKind::of(column).map(|kind| AddedColumn { name: column.name.clone(), kind }),
            );
        }
        let tables = metadata::tables(connection, &names.database).await?;
        known.extra_tables = tables.keys().filter_map(|table| names.number_of_extra_table(table)).collect();
        known.extra_tables.sort_unstable();
        known.next_extra_table = known.extra_tables.last().map_or(0, |last| last + 1);
        Ok(known)
    }
}
