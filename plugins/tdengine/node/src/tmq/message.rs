//! From entries of a log to one message, by the engine's rules (PROTOCOL 6.6).
//!
//! A message is a contiguous run of entries of one vgroup, either rows or changes: a run of rows ends before a change that
//! the consumer will get. What the consumer does not get (marked entries for an excluding one, changes of a topic
//! without meta, other super tables) is stepped over and still advances the offset.

use std::sync::Arc;

use bytes::Bytes;
use tdengine_store::database::{Topic, TopicKind, TopicMeta};
use tdengine_store::session::MARK;
use tdengine_store::{Entry, EntryKind, Store, SubmitTable, TopicFilter, VgroupId};
use tdengine_wire::block::BlockHeader;
use tdengine_wire::envelope::message_type;
use tdengine_wire::{Field, Precision};

use crate::error::Fail;

/// How much one message may hold, and what it leaves out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Selection {
    pub excluded: bool,
    pub batch_meta: bool,
    /// A run of rows ends once it has so many.
    pub rows_min: usize,
    /// A batch of changes, or the blocks of a message, are so many at most.
    pub parts_max: usize,
    /// Bytes of log read at once.
    pub read_bytes: usize,
}

/// One table's rows.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    pub table: Arc<str>,
    pub fields: Arc<[Field]>,
    pub block: Bytes,
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Meta {
    pub raw_type: u16,
    pub body: Bytes,
}

/// What a message holds.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// Rows, and requests to create their tables where the writer gave any.
    Rows { blocks: Vec<Block>, created: Vec<Bytes> },
    /// One change.
    Meta(Meta),
    /// Several changes, for a consumer that asked for batches; also when there is but one.
    Metas(Vec<Meta>),
}

/// What a scan found, and up to where it read.
#[derive(Debug)]
pub(crate) struct Scan {
    pub content: Option<Content>,
    /// Rows of the content.
    pub rows: usize,
    /// Next version to read.
    pub next: i64,
}

/// A message that was handed out.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub id: u64,
    pub topic: String,
    pub database: String,
    pub vgroup: VgroupId,
    pub precision: Precision,
    /// Rows of a topic that selects say no table (PROTOCOL 8).
    pub has_table_names: bool,
    /// Where the run starts and what comes after it.
    pub start: i64,
    pub next: i64,
    pub content: Content,
}

impl Message {
    /// 1 rows, 2 changes, 3 rows with the creation of tables.
    pub fn kind(&self) -> i32 {
        match &self.content {
            Content::Rows { created, .. } if created.is_empty() => message_type::DATA,
            Content::Rows { .. } => message_type::METADATA,
            Content::Meta(_) | Content::Metas(_) => message_type::META,
        }
    }

    /// Rows: where it starts. Changes: what comes after (FACTS F36).
    pub fn offset(&self) -> i64 {
        match self.content {
            Content::Rows { .. } => self.start,
            Content::Meta(_) | Content::Metas(_) => self.next,
        }
    }
}

/// What the first look at a log reads, and by how much each further one grows up to the limit.
const READ_BYTES_FIRST: usize = 16 << 10;
const READ_GROWTH: usize = 4;

/// Reads on from `from` until a message is full, a change follows rows, or the log ends.
///
/// # Errors
/// When the vgroup is gone or its log cannot be read.
pub(crate) fn scan(
    store: &Store,
    topic: &Topic,
    vgroup: VgroupId,
    from: i64,
    selection: Selection,
) -> Result<Scan, Fail> {
    let mut run = Run { store, topic, selection, filter: None, content: None, rows: 0 };
    let mut next = from;
    // A change at once ends the message: little is read at first, and more where that was not enough.
    let mut read_bytes = selection.read_bytes.min(READ_BYTES_FIRST);
    loop {
        let entries = store.read_wal(vgroup, next, read_bytes)?;
        read_bytes = (read_bytes * READ_GROWTH).min(selection.read_bytes);
        if entries.is_empty() {
            return Ok(Scan { content: run.content, rows: run.rows, next });
        }
        for entry in entries {
            let version = entry.version;
            if !run.take(entry)? {
                return Ok(Scan { content: run.content, rows: run.rows, next: version });
            }
            next = version + 1;
            if run.is_full() {
                return Ok(Scan { content: run.content, rows: run.rows, next });
            }
        }
    }
}

struct Run<'a> {
    store: &'a Store,
    topic: &'a Topic,
    selection: Selection,
    /// Made when the first rows need it.
    filter: Option<TopicFilter>,
    content: Option<Content>,
    rows: usize,
}

impl Run<'_> {
    /// Takes an entry in, or steps over it; false when it belongs to the next message.
    fn take(&mut self, entry: Entry) -> Result<bool, Fail> {
        match entry.kind {
            EntryKind::Marker => Ok(true),
            EntryKind::Submit(tables) => self.take_rows(tables),
            EntryKind::Meta { raw_type, source, body, suid } => {
                if self.leaves_out(source) || !self.takes_meta(suid) {
                    return Ok(true);
                }
                Ok(self.take_meta(Meta { raw_type, body }))
            }
        }
    }

    fn take_meta(&mut self, meta: Meta) -> bool {
        match (&mut self.content, self.selection.batch_meta) {
            (content @ None, false) => *content = Some(Content::Meta(meta)),
            (content @ None, true) => *content = Some(Content::Metas(vec![meta])),
            (Some(Content::Metas(metas)), true) => metas.push(meta),
            (Some(_), _) => return false,
        }
        true
    }

    fn take_rows(&mut self, mut tables: Vec<SubmitTable>) -> Result<bool, Fail> {
        let only_created = self.topic.meta == TopicMeta::Only;
        tables.retain(|table| !self.leaves_out(table.flags) && self.takes_table(table));
        if only_created && tables.iter().all(|table| table.create.is_none()) {
            return Ok(true);
        }
        if self.has_rule() {
            tables = self.filter(tables)?;
        }
        if tables.is_empty() {
            return Ok(true);
        }
        if matches!(self.content, Some(Content::Meta(_) | Content::Metas(_))) {
            return Ok(false);
        }
        let content = self.content.get_or_insert_with(|| Content::Rows { blocks: Vec::new(), created: Vec::new() });
        let Content::Rows { blocks, created } = content else {
            return Ok(false);
        };
        for table in tables {
            self.rows += BlockHeader::parse(&table.block)?.rows;
            if self.topic.meta != TopicMeta::None {
                created.extend(table.create);
            }
            let SubmitTable { table, fields, block, .. } = table;
            blocks.push(Block { table, fields, block });
        }
        Ok(true)
    }

    fn has_rule(&self) -> bool {
        matches!(self.topic.kind, TopicKind::Select { .. } | TopicKind::Stable { condition: Some(_), .. })
    }

    fn filter(&mut self, tables: Vec<SubmitTable>) -> Result<Vec<SubmitTable>, Fail> {
        let filter = match self.filter.take() {
            Some(filter) => filter,
            None => self.store.topic_filter(self.topic)?,
        };
        let taken = tables.into_iter().map(|table| filter.take(table));
        let taken = taken.filter_map(Result::transpose).collect::<Result<_, _>>();
        self.filter = Some(filter);
        taken.map_err(Fail::from)
    }

    fn is_full(&self) -> bool {
        match &self.content {
            None => false,
            Some(Content::Meta(_)) => true,
            Some(Content::Metas(metas)) => metas.len() >= self.selection.parts_max,
            Some(Content::Rows { blocks, .. }) => {
                self.rows >= self.selection.rows_min || blocks.len() >= self.selection.parts_max
            }
        }
    }

    fn leaves_out(&self, flags: u8) -> bool {
        self.selection.excluded && flags & MARK != 0
    }

    fn takes_meta(&self, suid: i64) -> bool {
        self.topic.meta != TopicMeta::None
            && match self.topic.kind {
                TopicKind::Database => true,
                TopicKind::Stable { suid: of, .. } => suid == of,
                TopicKind::Select { .. } => false,
            }
    }

    fn takes_table(&self, table: &SubmitTable) -> bool {
        match &self.topic.kind {
            TopicKind::Database | TopicKind::Select { .. } => true,
            TopicKind::Stable { suid, .. } => table.suid == *suid,
        }
    }
}
