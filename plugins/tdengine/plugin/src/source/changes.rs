//! From a message of the log to messages of the pipeline: decoding, stamping, and what only the source can look up.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use pipeline_sdk::describe::TELLS_REPLICATED;
use pipeline_sdk::{Change, ChangeKind, Context, Frame, Lane, Mark, Opaque, Payload, Result};
use serde_json::{Value as Json, json};
use tdengine_wire::meta::{RawMeta, Rendering, render, to_json};
use tdengine_wire::tmq::{create_requests, split};

use super::lane::Reader;
use super::pending::PendingTokens;
use super::tag_names::TagNames;
use super::{CHANGE_FORMAT, FRAME_FORMAT, SEEN_FORMAT};
use crate::client::Message as TmqMessage;
use crate::transport::Connection;
use crate::errors::wire_error;
use crate::log::change::{self, CreateTable, Stable, TableOf, kind};
use crate::log::data::DataMessage;
use crate::log::{RAW_DATA, envelope};
use crate::metadata;
use crate::sink::Shared;
use crate::token::Token;

/// What a message of the log became.
pub struct Read {
    /// Where the lane goes on.
    pub next: i64,
    pub messages: Vec<(Mark, Payload)>,
}

/// Turns entries into messages.
pub struct Changes {
    context: Context,
    cluster: String,
    database: Arc<str>,
    sql: Connection,
    pub pending: PendingTokens,
    /// Super tables of the database, by name: a DELETE names a child or a super table without saying which.
    stables: HashSet<String>,
    tag_names: TagNames,
    /// The statement that makes the database anew, asked for once.
    create_database: Option<String>,
}

impl Changes {
    pub fn new(context: Context, cluster: String, database: String, sql: Connection, pending: PendingTokens) -> Self {
        Self {
            tag_names: TagNames::new(&context),
            context,
            cluster,
            database: database.into(),
            sql,
            pending,
            stables: HashSet::new(),
            create_database: None,
        }
    }

    pub async fn read(&mut self, reader: Reader, lane: &Lane, message: &TmqMessage) -> Result<Read> {
        let body = message.body();
        if !message.has_rows() {
            let messages = match (reader, message.raw_type) {
                (Reader::Main, _) | (Reader::Meta, kind::ALTER_STABLE) => self.change(reader, lane, message).await?,
                // The main consumer brings everything else; what a replica made here is to be known, too.
                (Reader::Meta, kind::CREATE_STABLE) => {
                    if let Some(change::Change::CreateStable(stable)) =
                        change::Change::parse(message.raw_type, body).map_err(wire_error)?
                    {
                        self.tag_names.learn(&stable)?;
                    }
                    Vec::new()
                }
                (Reader::Meta, _) => Vec::new(),
            };
            return Ok(Read { next: message.offset, messages });
        }
        let data = DataMessage::parse(message.raw_type, body).map_err(wire_error)?;
        let next = data.ends(message.offset);
        let mut messages = Vec::new();
        if reader == Reader::Main {
            messages.extend(self.created_by_rows(&data.creates).await?);
            let raw = if data.creates.is_empty() { message.raw.clone() } else { rows_alone(body)?.into() };
            let (rows, tables) = (data.rows(), data.blocks.len() as u32);
            if rows > 0 || messages.is_empty() {
                let format = FRAME_FORMAT.into();
                let frame = Frame { format, data: raw, namespace: self.database.clone(), rows, tables };
                messages.push((Mark::Local, Payload::Frame(frame)));
            }
        }
        Ok(Read { next, messages })
    }

    async fn change(&mut self, reader: Reader, lane: &Lane, message: &TmqMessage) -> Result<Vec<(Mark, Payload)>> {
        let parsed = change::Change::parse(message.raw_type, message.body()).map_err(wire_error)?;
        let Some(parsed) = parsed else {
            let detail = json!({ "type": message.raw_type, "lane": lane.as_str(), "offset": message.offset });
            self.context.incident("unknown-entry", "an entry of an unknown kind was left out", detail);
            return Ok(Vec::new());
        };
        let detail: Json =
            message.json.as_deref().and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Json::Null);
        let raw = message.raw.clone();
        let position = message.offset;
        Ok(match parsed {
            change::Change::CreateStable(stable) => {
                self.stables.insert(stable.name.clone());
                self.tag_names.learn(&stable)?;
                let mut detail = detail;
                if let Json::Object(detail) = &mut detail {
                    detail.insert("database".into(), self.create_database().await?.into());
                }
                vec![(Mark::Local, Payload::Change(self.stable(ChangeKind::CreateGroup, &stable, detail, raw)))]
            }
            change::Change::AlterStable(stable) => self.alter_stable(reader, lane, position, stable, detail, raw)?,
            change::Change::DropStable { name, suid } => {
                self.stables.remove(&name);
                self.tag_names.forget(suid)?;
                self.tell_sinks(&name);
                let mark = mark_of(self.pending.drop_of(lane.as_str(), &name, position)?);
                let identity = format!("{}:{suid}:drop", self.cluster);
                let mut change = self.build(ChangeKind::DropGroup, detail, raw);
                change.identity = identity;
                change.group = Some(name.into());
                self.and_seen(mark, change)
            }
            change::Change::CreateTables(tables) => {
                let requests = create_requests(message.body()).map_err(wire_error)?;
                self.created(tables.into_iter().zip(requests).collect()).await?
            }
            change::Change::AlterTable { name, action } => {
                let token = Token::find(&raw).filter(|token| token.origin != self.cluster);
                if i64::from(action) == change::ALTER_OPTIONS {
                    self.pending.comment(lane.as_str(), &name, position, token.as_ref())?;
                }
                self.tell_sinks(&name);
                let detail = neutral_alter(message).map_err(wire_error)?;
                let mut change = self.build(ChangeKind::AlterTable, detail, raw);
                change.tables = vec![name.into()];
                vec![(mark_of(token.map(|token| token.origin)), Payload::Change(change))]
            }
            change::Change::DropTables(tables) => self.drops(lane, position, tables, raw)?,
            change::Change::Delete(delete) => self.delete(lane, position, delete, detail, raw).await?,
        })
    }

    /// Sinks of this process that write to this site know of the change before what comes next.
    fn tell_sinks(&self, name: &str) {
        Shared::changed_at(self.sql.place(), &self.database, name);
    }

    fn build(&self, kind: ChangeKind, detail: Json, raw: bytes::Bytes) -> Change {
        Change {
            kind,
            identity: String::new(),
            namespace: self.database.clone(),
            group: None,
            tables: Vec::new(),
            detail,
            raw: Some(Opaque { format: CHANGE_FORMAT.into(), data: raw }),
        }
    }

    fn stable(&self, kind: ChangeKind, stable: &Stable, detail: Json, raw: bytes::Bytes) -> Change {
        let text = xxhash_rust::xxh3::xxh3_64(&stable.statement);
        let mut change = self.build(kind, detail, raw);
        let (columns, tags) = (stable.column_version, stable.tag_version);
        change.identity = format!("{}:{}:{columns}:{tags}:{text:016x}", self.cluster, stable.suid);
        change.group = Some(stable.name.as_str().into());
        change
    }

    /// A change of a super table. In a replica the filter of loops drops what the other site's made, so that its sink is told beside
    /// it what to know: else it would go by ids and names of before.
    fn and_seen(&self, mark: Mark, change: Change) -> Vec<(Mark, Payload)> {
        let is_to_be_known = mark != Mark::Local && self.context.negotiated(TELLS_REPLICATED);
        let seen = is_to_be_known.then(|| {
            let raw = change.raw.clone().map(|raw| Opaque { format: SEEN_FORMAT.into(), ..raw });
            (Mark::Local, Payload::Change(Change { kind: ChangeKind::AlterGroup, detail: Json::Null, raw, ..change.clone() }))
        });
        std::iter::once((mark, Payload::Change(change))).chain(seen).collect()
    }

    fn alter_stable(
        &mut self,
        reader: Reader,
        lane: &Lane,
        position: i64,
        stable: Stable,
        detail: Json,
        raw: bytes::Bytes,
    ) -> Result<Vec<(Mark, Payload)>> {
        self.stables.insert(stable.name.clone());
        self.tag_names.learn(&stable)?;
        self.tell_sinks(&stable.name);
        // We never write this kind raw: a marked one is a schemaless write's (FACTS F10), and only the second consumer
        // sees it. The unmarked ones come through the first.
        if reader == Reader::Meta && !stable.is_marked {
            return Ok(Vec::new());
        }
        let token = Token::find(&raw).filter(|token| token.origin != self.cluster);
        if detail["alterType"].as_i64() == Some(change::ALTER_OPTIONS) {
            self.pending.comment(lane.as_str(), &stable.name, position, token.as_ref())?;
        }
        let mark = mark_of(token.map(|token| token.origin));
        let change = self.stable(ChangeKind::AlterGroup, &stable, detail, raw);
        Ok(self.and_seen(mark, change))
    }

    /// Rows that were written with `USING … TAGS` bring the creation of their table each time (FACTS F13): the first of each
    /// table is enough, since nothing comes between the rows of one message.
    async fn created_by_rows(&mut self, requests: &[&[u8]]) -> Result<Vec<(Mark, Payload)>> {
        let mut names = HashSet::new();
        let mut created = Vec::new();
        for request in requests {
            let table = change::parse_create(request).map_err(wire_error)?;
            if names.insert(table.name.clone()) {
                created.push((table, *request));
            }
        }
        self.created(created).await
    }

    /// One change for all tables; one for each where any was made by a replica.
    async fn created(&mut self, tables: Vec<(CreateTable, &[u8])>) -> Result<Vec<(Mark, Payload)>> {
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let mut corrected = Vec::with_capacity(tables.len());
        for (mut table, request) in tables {
            let request = self.tag_names.correct(&self.sql, &self.database, &mut table, request).await?;
            corrected.push((table, request));
        }
        let tables = corrected;
        let origin = |table: &CreateTable| {
            Token::find(table.comment.as_bytes()).filter(|token| token.origin != self.cluster).map(|token| token.origin)
        };
        let origins: Vec<Option<String>> = tables.iter().map(|(table, _)| origin(table)).collect();
        if origins.iter().all(Option::is_none) {
            return Ok(vec![(Mark::Local, self.create(&tables).await?)]);
        }
        let mut messages = Vec::with_capacity(tables.len());
        for (table, origin) in tables.iter().zip(origins) {
            messages.push((mark_of(origin), self.create(std::slice::from_ref(table)).await?));
        }
        Ok(messages)
    }

    async fn create(&mut self, tables: &[(CreateTable, Cow<'_, [u8]>)]) -> Result<Payload> {
        let raw = change::create_message(tables.iter().map(|(_, request)| &**request));
        // The server's own JSON may name the tags wrongly, too.
        let mut each = tables.iter().map(|(table, _)| neutral_create(table));
        let detail = match tables {
            [_] => each.next().unwrap_or_default(),
            _ => json!({ "type": "create", "createList": each.collect::<Vec<_>>() }),
        };
        let mut change = self.build(ChangeKind::CreateTable, detail, raw.into());
        let of_stable = |(table, _): &(CreateTable, Cow<'_, [u8]>)| match &table.of {
            TableOf::Stable { stable, .. } => Some(stable.clone()),
            TableOf::Normal { .. } => None,
        };
        let stables: HashSet<Option<String>> = tables.iter().map(of_stable).collect();
        if stables.contains(&None) {
            let statement = self.create_database().await?;
            if let Json::Object(detail) = &mut change.detail {
                detail.insert("database".into(), statement.into());
            }
        }
        if stables.len() == 1 {
            change.group = stables.into_iter().next().flatten().map(Arc::from);
        }
        change.tables = tables.iter().map(|(table, _)| table.name.as_str().into()).collect();
        Ok(Payload::Change(change))
    }

    fn drops(
        &mut self,
        lane: &Lane,
        position: i64,
        tables: Vec<(String, i64)>,
        raw: bytes::Bytes,
    ) -> Result<Vec<(Mark, Payload)>> {
        let mut messages = Vec::with_capacity(tables.len());
        for (name, suid) in tables {
            self.tell_sinks(&name);
            let mark = mark_of(self.pending.drop_of(lane.as_str(), &name, position)?);
            let detail = json!({ "type": "drop", "tableNameList": [name.as_str()], "suid": suid });
            let mut change = self.build(ChangeKind::DropTable, detail, raw.clone());
            change.tables = vec![name.into()];
            messages.push((mark, Payload::Change(change)));
        }
        Ok(messages)
    }

    /// A delete of a super table is resolved to the tables it hit: its text has lost the condition (FACTS F17, F18). One
    /// that hit nothing is not sent.
    async fn delete(
        &mut self,
        lane: &Lane,
        position: i64,
        delete: change::Delete,
        mut detail: Json,
        raw: bytes::Bytes,
    ) -> Result<Vec<(Mark, Payload)>> {
        if delete.affected == 0 {
            return Ok(Vec::new());
        }
        let origin = self.pending.delete_from(lane.as_str(), &delete.table, position);
        let mut tables = vec![delete.table.clone()];
        let mut group = None;
        if delete.suid != 0 && self.is_stable(&delete.table).await? {
            tables = metadata::tables_of_uids(&self.sql, &self.database, &delete.uids).await?;
            group = Some(Arc::from(delete.table.as_str()));
        }
        if let Json::Object(detail) = &mut detail {
            detail.insert("from".into(), delete.from.into());
            detail.insert("to".into(), delete.to.into());
        }
        let mut change = self.build(ChangeKind::Delete, detail, raw);
        change.group = group;
        change.tables = tables.into_iter().map(Arc::from).collect();
        Ok(vec![(mark_of(origin), Payload::Change(change))])
    }

    async fn is_stable(&mut self, name: &str) -> Result<bool> {
        if self.stables.contains(name) {
            return Ok(true);
        }
        self.stables = metadata::stables(&self.sql, &self.database).await?.into_iter().collect();
        Ok(self.stables.contains(name))
    }

    async fn create_database(&mut self) -> Result<String> {
        if let Some(statement) = &self.create_database {
            return Ok(statement.clone());
        }
        let statement = metadata::create_database_statement(&self.sql, &self.database).await?;
        self.create_database = Some(statement.clone());
        Ok(statement)
    }
}

fn mark_of(origin: Option<String>) -> Mark {
    origin.map_or(Mark::Local, |site| Mark::Replicated { site: Some(site.into()) })
}

/// The change of one table in JSON, for readers that are no TDengine.
fn neutral_create(table: &CreateTable) -> Json {
    match &table.of {
        TableOf::Stable { stable, tags, .. } => {
            let tags: Vec<Json> = tags
                .iter()
                .map(|tag| json!({ "name": tag.name, "type": tag.data_type.code(), "literal": tag.to_sql() }))
                .collect();
            json!({ "type": "create", "tableType": "child", "tableName": table.name, "using": stable, "tags": tags })
        }
        TableOf::Normal { columns } => {
            let columns: Vec<Json> = columns
                .iter()
                .map(|column| json!({ "name": column.name, "type": column.column_type.data_type.code() }))
                .collect();
            json!({ "type": "create", "tableType": "normal", "tableName": table.name, "columns": columns })
        }
    }
}

/// The change of a table in JSON, from its bytes: the server's own is not asked for.
fn neutral_alter(message: &TmqMessage) -> tdengine_wire::Result<Json> {
    let change = RawMeta::decode(message.raw_type, message.body())?.meta;
    let text = to_json(&render(&change, Rendering::Exact)?)?;
    Ok(serde_json::from_str(&text).unwrap_or_default())
}

/// The rows of a message that brings their tables too: those are changes of their own.
fn rows_alone(body: &[u8]) -> Result<Vec<u8>> {
    let (rows, _) = split(body).map_err(wire_error)?;
    Ok(envelope(RAW_DATA, &rows))
}
