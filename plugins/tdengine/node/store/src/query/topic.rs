//! What a topic with a condition or a query makes of rows as they come out of a log.

use std::sync::Arc;

use tdengine_wire::Field;

use super::{Condition, Projection};
use crate::database::{Topic, TopicKind};
use crate::entry::SubmitTable;
use crate::error::Result;
use crate::store::Store;

/// Made once for a run of entries: it holds the tables and tags of that moment.
pub struct TopicFilter {
    store: Store,
    database: String,
    rule: Rule,
}

enum Rule {
    All,
    Tags(Condition),
    Query(Projection, Arc<[Field]>),
}

impl std::fmt::Debug for TopicFilter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TopicFilter").field("database", &self.database).finish_non_exhaustive()
    }
}

impl Store {
    /// What `topic` makes of rows.
    ///
    /// # Errors
    /// As running its query: a table or column of it is gone.
    pub fn topic_filter(&self, topic: &Topic) -> Result<TopicFilter> {
        let database = topic.database.clone();
        let rule = match (&topic.kind, &topic.query) {
            (TopicKind::Stable { name, condition: Some(condition), .. }, _) => {
                Rule::Tags(Condition::new(self, &database, name, condition)?)
            }
            (TopicKind::Select { .. }, Some(query)) => {
                let projection = Projection::new(self, &database, query)?;
                let fields = projection.fields().into();
                Rule::Query(projection, fields)
            }
            _ => Rule::All,
        };
        Ok(TopicFilter { store: self.clone(), database, rule })
    }
}

impl TopicFilter {
    /// The rows that a consumer of the topic gets; `None` for none.
    ///
    /// # Errors
    /// When the block is malformed.
    pub fn take(&self, rows: SubmitTable) -> Result<Option<SubmitTable>> {
        if let Rule::All = self.rule {
            return Ok(Some(rows));
        }
        let Some(table) = self.store.table(&self.database, &rows.table).filter(|table| table.uid == rows.uid) else {
            return Ok(None);
        };
        match &self.rule {
            Rule::All => Ok(Some(rows)),
            Rule::Tags(condition) => Ok(condition.takes(&table).then_some(rows)),
            Rule::Query(projection, _) if !projection.reads(rows.uid) => Ok(None),
            Rule::Query(projection, fields) => {
                let ids: Vec<i16> = rows.fields.iter().map(|field| field.id).collect();
                let block = projection.apply(&table, &ids, &rows.block)?;
                Ok(block.map(|block| SubmitTable { block: block.into(), fields: fields.clone(), create: None, ..rows }))
            }
        }
    }
}
