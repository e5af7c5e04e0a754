//! Raw rows, with or without the tables that they made (types 2 and 4).

use std::collections::HashMap;

use tdengine_wire::Field;
use tdengine_wire::block::BlockView;
use tdengine_wire::meta::{CreateTable, TableBody};
use tdengine_wire::tmq::{BlockEntry, DataView, METADATA, Tail};

use super::{Raw, table};
use crate::error::{Result, ServerError, code};
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
