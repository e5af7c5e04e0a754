//! Raw rows, with or without the tables that they made (types 2 and 4).

use std::collections::HashMap;

use tdengine_wire::Field;
use tdengine_wire::block::BlockView;
use tdengine_wire::meta::{CreateTable, TableBody};
use tdengine_wire::tmq::{BlockEntry, DataView, METADATA, Tail};

use super::{Raw, table};
use crate::error::{Result, ServerError, code};
use crate::rows::timestamps;
use crate::session::MARK;
use crate::write::child::NewChild;
use crate::write::{Columns, Write};

impl Raw<'_> {
    /// Rows by name, marked. A table that is missing and that the message does not bring is 0x2603, and nothing of its
    /// vgroup is written then.
    pub(super) fn data(&self, raw_type: u16, body: &[u8]) -> Result<u64> {
        let view = DataView::parse(body)?;
        let entries = view.blocks().collect::<Result<Vec<_>, _>>()?;
        let schemas = entries.iter().map(fields).collect::<Result<Vec<_>>>()?;
        check_merge(&entries, &schemas)?;
        let creates = if raw_type == METADATA { self.creates(&view)? } else { HashMap::new() };
        let mut writes = Vec::with_capacity(entries.len());
        for (entry, fields) in entries.iter().zip(&schemas) {
            let table = entry.table.ok_or_else(ServerError::invalid_message)?;
            let create = creates.get(table).map(|create| self.new_child(create)).transpose()?;
            if create.is_none() && self.inner.find_table(&self.database, table)?.is_none() {
                return Err(ServerError::table_missing());
            }
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            let columns = if self.is_strict() {
                Columns::Named(BlockView::parse(entry.block)?, names)
            } else {
                Columns::Faithful(entry.block, names)
            };
            writes.push(Write { table, columns, create, flags: MARK });
        }
        self.inner.write_rows(&self.database, writes)
    }

    fn creates(&self, view: &DataView<'_>) -> Result<HashMap<String, CreateTable>> {
        let Tail::Creates(requests) = view.tail(METADATA)? else { return Err(ServerError::invalid_message()) };
        let request = |request: &&[u8]| {
            let create = CreateTable::decode(request)?;
            Ok((create.name.clone(), create))
        };
        requests.iter().map(request).collect()
    }

    /// The child with the ids of tags as the source has them: where ids differ, values land in the wrong tags, without a
    /// word (FACTS F67).
    fn new_child(&self, create: &CreateTable) -> Result<NewChild> {
        let TableBody::Child { stable, tags, names, .. } = &create.body else {
            return Err(ServerError::invalid_message());
        };
        let stable = self.stable(stable).ok_or_else(ServerError::table_missing)?;
        if self.is_strict() && names.iter().any(|name| stable.tags.position(name).is_none()) {
            return Err(ServerError::new(code::INVALID_TAG, "a tag is missing at the target"));
        }
        let tags = match tags.is_json {
            true => table::json_tags(&stable, tags),
            false => table::by_id(&stable, &tags.entries, self.is_strict())?,
        };
        let (ttl_days, comment) = (create.ttl, create.comment.clone().filter(|comment| !comment.is_empty()));
        Ok(NewChild { stable, tag_names: names.clone(), tags, ttl_days, comment })
    }
}

fn fields(entry: &BlockEntry<'_>) -> Result<Vec<Field>> {
    Ok(entry.fields.ok_or_else(ServerError::invalid_message)?.to_vec()?)
}

/// What the blocks of a table in one message come to.
#[derive(Default)]
struct Merged<'a> {
    blocks: usize,
    newest: Option<i64>,
    /// A time that is not newer than all before it: rows are sorted, and those of one time merged.
    is_sorted: bool,
    /// For each column: blocks that have it, whether a value stands there, whether a NULL.
    columns: HashMap<&'a str, (usize, bool, bool)>,
}

/// libtaos puts the blocks of a table together. Where it must sort them, and a column has values, NULLs and is absent from a block,
/// it ends its process: the adapter with all its connections (seen with 3.3.0.1).
fn check_merge<'a>(entries: &[BlockEntry<'a>], schemas: &'a [Vec<Field>]) -> Result<()> {
    if schemas.windows(2).all(|pair| pair[0] == pair[1]) {
        return Ok(());
    }
    let mut tables: HashMap<&str, Merged<'_>> = HashMap::new();
    for (entry, fields) in entries.iter().zip(schemas) {
        let table = tables.entry(entry.table.unwrap_or_default()).or_default();
        let view = BlockView::parse(entry.block)?;
        table.blocks += 1;
        for time in timestamps(&view) {
            table.is_sorted |= table.newest.is_some_and(|newest| time <= newest);
            table.newest = table.newest.max(Some(time));
        }
        for (field, column) in fields.iter().zip(view.columns()) {
            let (blocks, has_value, has_null) = table.columns.entry(&field.name).or_default();
            let nulls = column.null_count();
            *blocks += 1;
            *has_value |= nulls < view.rows();
            *has_null |= nulls > 0;
        }
    }
    let is_fatal = |table: &Merged<'_>| {
        table.is_sorted && table.columns.values().any(|(blocks, value, null)| *blocks < table.blocks && *value && *null)
    };
    let Some((table, _)) = tables.iter().find(|(_, table)| is_fatal(table)) else { return Ok(()) };
    tracing::error!(table, "raw rows with two sets of columns: a real server's adapter dies of this; nothing was written");
    Err(ServerError::new(code::SERVICE_OUT, "some vnode/qnode/mnode(s) out of service"))
}
