//! Tables: children and normal ones. Raw where that is right, else SQL with a token.

use pipeline_sdk::{Change, Error, Header, Result};
use tdengine_wire::DataType;
use tdengine_wire::escape::{identifier, literal};
use tdengine_wire::meta::{Meta, RawMeta, TableAction};
use tdengine_wire::tmq::create_requests;

use super::super::origin::{OriginStable, TagNow};
use super::super::parked::{self, Parked, Takes};
use super::super::target::Target;
use super::super::{NOT_ANNOUNCED, shared, statement, tag_values};
use super::{Applying, stable};
use crate::client::ClientError;
use crate::errors::{CodeReaction, reaction_to, wire_error};
use crate::log::change::{ALTER_OPTIONS, CreateTable, SetTag, TableOf, Tag, alter_clause, create_message};
use crate::log::open_envelope;
use crate::transport::Connection;
use crate::metadata::{self, Definition};

/// Tables that one entry of the log makes.
pub struct Creation<'a> {
    pub header: &'a Header,
    pub change: &'a Change,
    /// `u32 length, u16 type, body`.
    pub raw: &'a [u8],
    pub tables: Vec<CreateTable>,
}

/// Makes the tables of entries, in none of which a name of another stands. What exists is asked for once for all of them, and not
/// remembered: a user may have dropped what is known here. Raw, in one message, what can be: normal tables, and children where the
/// ids of the tags are known to be equal (FACTS F67); else by SQL, its token the comment.
pub async fn create(target: &mut Target, connection: &Connection, creations: &[Creation<'_>]) -> Result<()> {
    let names: Vec<&str> = creations.iter().flat_map(|it| &it.tables).map(|table| table.name.as_str()).collect();
    let shared = target.shared.clone();
    let _held = shared.definitions.read().await;
    shared.refresh_tables(connection, &target.database, &names).await?;
    let (mut raw, mut created) = (Vec::new(), Vec::new());
    for creation in creations {
        let (_, body) = open_envelope(creation.raw).map_err(wire_error)?;
        let requests = create_requests(body).map_err(wire_error)?;
        let Creation { header, change, raw: bytes, .. } = *creation;
        let mut applying = Applying { target: &mut *target, connection, header, change, raw: bytes };
        for (table, request) in creation.tables.iter().zip(requests) {
            let way = match &table.of {
                TableOf::Stable { stable, suid, tags } => way_of_child(&mut applying, table, stable, *suid, tags).await?,
                TableOf::Normal { .. } => way_of_normal(&mut applying, table).await?,
            };
            match way {
                Way::None => continue,
                Way::Raw => raw.push(request),
                Way::Sql(sql, no_text) => {
                    create_by_sql(&mut applying, table, &sql).await?;
                    set_raw(&mut applying, table, &no_text).await?;
                }
            }
            created.push(table);
        }
    }
    if !raw.is_empty() {
        let raw = create_message(raw.into_iter());
        target.write_raw(connection, &raw).await?;
    }
    target.waits_since = None;
    target.context.count("changes_applied", created.len() as u64);
    for table in created {
        let group = match &table.of {
            TableOf::Stable { stable, .. } => stable,
            TableOf::Normal { .. } => &table.name,
        };
        shared.table_created(&table.name, group);
    }
    Ok(())
}

async fn create_by_sql(applying: &mut Applying<'_>, table: &CreateTable, sql: &str) -> Result<()> {
    let target = &*applying.target;
    match (target.exec(applying.connection, sql).await, &table.of) {
        (Ok(()) | Err(ClientError::Server { code: 0x0603, .. }), _) => Ok(()),
        // The definition is an older one: the user here changed it just now.
        (Err(error), TableOf::Stable { stable, .. }) if error.code().is_some_and(tag_values::is_tag_missing) => {
            target.shared.reload(applying.connection, &target.database, stable).await?;
            Err(Error::retry(error.to_string()).code(NOT_ANNOUNCED))
        }
        (Err(error), _) => Err(error.into()),
    }
}

/// Sets what no statement can hold: bytes that are no text would arrive as other ones.
async fn set_raw(applying: &mut Applying<'_>, table: &CreateTable, tags: &[Tag]) -> Result<()> {
    let target = &mut *applying.target;
    for tag in tags {
        let set = SetTag::new(&table.name, tag.id.into(), &tag.name, tag.data_type, Some(tag.bytes.clone()), table.created_ms);
        tolerate(tag_values::write_set(target, applying.connection, &table.name, &set, &tag.name).await, is_missing)?;
        tag_values::forget(target, &table.name, tag.id)?;
    }
    Ok(())
}

/// How a table is made.
enum Way {
    /// It is here, or is not to be.
    None,
    Raw,
    /// A statement, and tags that are set raw behind it.
    Sql(String, Vec<Tag>),
}

async fn way_of_child(
    applying: &mut Applying<'_>,
    table: &CreateTable,
    stable: &str,
    suid: i64,
    tags: &[Tag],
) -> Result<Way> {
    let target = &mut *applying.target;
    if target.origins.is_gone(stable, suid)? {
        return Ok(Way::None);
    }
    if let Some(group) = target.shared.group_of(&table.name) {
        if *group != *stable {
            stable::report_conflict(applying, &table.name, "it is no table of the same super table");
        } else {
            parked::discard(target, applying.connection, &table.name, |_| false).await?;
        }
        return Ok(Way::None);
    }
    // Read before the definition: a tag is made here before it counts as announced.
    let origin = target.origins.get(stable)?;
    let origin = origin.filter(|origin| origin.suid == suid);
    let tags = named_now(tags, origin.as_deref());
    let has_all = |here: &Definition| tags.iter().all(|tag| here.tag(&tag.name).is_some());
    let definition = target.shared.definition_with(applying.connection, &target.database, stable, has_all).await?;
    let Some(definition) = definition else {
        target.may_come(stable)?;
        // Dropped here: its drop is on the way to the source.
        target.context.count("changes_left_out", 1);
        return Ok(Way::None);
    };
    let (tags, missing): (Vec<Tag>, Vec<Tag>) = tags.into_iter().partition(|tag| definition.tag(&tag.name).is_some());
    for tag in &missing {
        tag_values::keep_first(target, stable, &table.name, table.created_ms, tag)?;
    }
    if missing.is_empty() && applying.target.marks && stable::tag_ids_are_equal(applying, stable, suid).await? {
        return Ok(Way::Raw);
    }
    let target = &mut *applying.target;
    let (tags, mut no_text): (Vec<Tag>, Vec<Tag>) = tags.into_iter().partition(|tag| is_text(tag) || tag.id == JSON_ID);
    if !target.marks && !no_text.is_empty() {
        target.context.count("values_left_out", no_text.len() as u64);
        tracing::warn!(table = target.place_of(&table.name), tags = no_text.len(), "tags are left out: they are no text, and a statement is");
        no_text.clear();
    }
    // Kept until they are set: what is cut off between the two is not lost.
    for tag in &no_text {
        tag_values::keep_first(target, stable, &table.name, table.created_ms, tag)?;
    }
    let mut known = table.clone();
    if let TableOf::Stable { tags: known, .. } = &mut known.of {
        *known = tags;
    }
    let comment = if target.marks { Some(target.token(applying.header)?.to_string()) } else { None };
    let first_tag = definition.tags.first().map(|tag| tag.name.as_str()).unwrap_or_default();
    Ok(Way::Sql(statement::create_table(target, &known, first_tag, comment.as_deref()), no_text))
}

fn is_text(tag: &Tag) -> bool {
    tag.data_type != DataType::Varchar || std::str::from_utf8(&tag.bytes).is_ok()
}

/// The tags by the names that they have by now.
fn named_now(tags: &[Tag], origin: Option<&OriginStable>) -> Vec<Tag> {
    let Some(origin) = origin else { return tags.to_vec() };
    let named = |tag: &Tag| match origin.tag_now(tag.id) {
        TagNow::Named(name) => Some(Tag { name: name.to_owned(), ..tag.clone() }),
        TagNow::Dropped if tag.id != JSON_ID => None,
        TagNow::Dropped | TagNow::NotAnnounced => Some(tag.clone()),
    };
    tags.iter().filter_map(named).collect()
}

/// A JSON tag is alone and has no id.
const JSON_ID: i16 = 0;

async fn way_of_normal(applying: &mut Applying<'_>, table: &CreateTable) -> Result<Way> {
    let target = &mut *applying.target;
    if target.shared.group_of(&table.name).is_some() {
        if let Some(here) = target.find(applying.connection, &table.name).await? {
            join(applying, table, &here).await?;
        }
        return Ok(Way::None);
    }
    if target.marks {
        return Ok(Way::Raw);
    }
    Ok(Way::Sql(statement::create_table(target, table, "", None), Vec::new()))
}

/// A normal table that is here already: what the other site's has and this one lacks is added, as with super tables. As plain SQL:
/// the other site finds it done. A creation that is read again adds nothing, since columns may have been dropped here meanwhile.
async fn join(applying: &mut Applying<'_>, table: &CreateTable, here: &shared::Target) -> Result<()> {
    let TableOf::Normal { columns } = &table.of else { return Ok(()) };
    if *here.group == *table.name {
        let has = |name: &str| columns.iter().any(|column| column.name == name);
        parked::discard(applying.target, applying.connection, &table.name, has).await?;
    }
    if applying.header.replayed {
        return Ok(());
    }
    let (name, target) = (applying.target.qualified(&table.name), &mut *applying.target);
    for column in columns {
        let (quoted, wanted) = (identifier(&column.name), column.column_type);
        let sql = match here.definition.column(&column.name).map(|it| it.column_type) {
            None => format!("alter table {name} add column {quoted} {wanted}"),
            Some(found) if found.data_type != wanted.data_type => {
                let why = format!("column `{}` is {wanted} at the source and {found} here", column.name);
                stable::report_conflict(applying, &table.name, &why);
                return Ok(());
            }
            Some(found) if found.is_variable() && found.bytes < wanted.bytes => {
                format!("alter table {name} modify column {quoted} {wanted}")
            }
            Some(_) => continue,
        };
        match target.exec(applying.connection, &sql).await {
            Err(ClientError::Server { code, message, .. }) if reaction_to(code) == CodeReaction::Park => {
                parked::park(target, applying.connection, Parked::new(&table.name, &sql, Takes::Nothing), code, &message).await?;
            }
            other => tolerate(other, is_done_already)?,
        }
        target.context.count("changes_applied", 1);
    }
    target.shared.group_changed(&table.name);
    Ok(())
}

/// The column exists, does not, or is that wide: by SQL, and raw (0x0524 to 0x0526, seen on 3.3.0.1).
pub fn is_done_already(code: u32) -> bool {
    matches!(code, 0x036b | 0x036c | 0x263c | 0x2602 | 0x264b | 0x2603 | 0x0618 | 0x0524..=0x0526)
}

/// Tag values and columns of normal tables: raw is right even where tag ids differ (FACTS F63). Comments and times to
/// live stay a site's own (FACTS F11).
pub async fn alter(applying: &mut Applying<'_>, name: &str, action: u8) -> Result<()> {
    if i64::from(action) == ALTER_OPTIONS {
        return Ok(());
    }
    let target = &mut *applying.target;
    let mut here = target.find(applying.connection, name).await?;
    if here.as_ref().is_some_and(|here| *here.group == *name) {
        // A user may have changed it here: what is wide enough or not there by what is known may be neither.
        target.shared.reload(applying.connection, &target.database, name).await?;
        here = target.find(applying.connection, name).await?;
    }
    let Some(here) = here else {
        target.may_come(name)?;
        target.context.count("changes_left_out", 1);
        return Ok(());
    };
    let shared = target.shared.clone();
    let _held = shared.definitions.read().await;
    if let Some(set) = SetTag::of(applying.raw).map_err(wire_error)? {
        return set_tag(applying, name, &here.group, &set).await;
    }
    let clause = alter_clause(applying.raw, &|column| here.definition.column(column).map(|column| column.column_type));
    let Some(clause) = clause.map_err(wire_error)? else { return Ok(()) };
    let (added, taken) = added_and_taken(applying.raw)?;
    let result = if target.marks {
        target.write_raw(applying.connection, applying.raw).await
    } else {
        let sql = format!("alter table {} {clause}", target.qualified(name));
        target.exec(applying.connection, &sql).await
    };
    match result {
        Err(ClientError::Server { code, message, .. }) if reaction_to(code) == CodeReaction::Park => {
            let sql = format!("alter table {} {clause}", target.qualified(name));
            let takes = taken.map_or(Takes::Nothing, Takes::Field);
            let change = Parked::new(name, &sql, takes).raw(target.marks.then_some(applying.raw));
            parked::park(target, applying.connection, change, code, &message).await?;
        }
        other => tolerate(other, is_done_already)?,
    }
    parked::discard(target, applying.connection, name, |field| added.as_deref() == Some(field)).await?;
    target.context.count("changes_applied", 1);
    if *here.group == *name {
        target.shared.group_changed(name);
    }
    Ok(())
}

/// The column that an entry adds, and the one that it takes away.
fn added_and_taken(raw: &[u8]) -> Result<(Option<String>, Option<String>)> {
    let (raw_type, body) = open_envelope(raw).map_err(wire_error)?;
    let Meta::AlterTable(alter) = RawMeta::decode(raw_type, body).map_err(wire_error)?.meta else { return Ok((None, None)) };
    Ok(match alter.action {
        TableAction::AddColumn { name, .. } => (Some(name), None),
        TableAction::DropColumn { name } => (None, Some(name)),
        TableAction::RenameColumn { name, new_name } => (Some(new_name), Some(name)),
        _ => (None, None),
    })
}

/// Sets the tag by the name that it has by now.
async fn set_tag(applying: &mut Applying<'_>, table: &str, stable: &str, set: &SetTag) -> Result<()> {
    let (target, connection) = (&mut *applying.target, applying.connection);
    let origin = target.origins.get(stable)?;
    let id = i16::try_from(set.id).unwrap_or(JSON_ID);
    let tag = match origin.as_ref().filter(|_| id != JSON_ID).map(|origin| origin.tag_now(id)) {
        Some(TagNow::Dropped) => {
            target.context.count("values_left_out", 1);
            return Ok(());
        }
        Some(TagNow::Named(name)) => name,
        Some(TagNow::NotAnnounced) | None => set.name.as_str(),
    };
    if !tag_values::has_tag(target, connection, stable, tag).await? {
        return tag_values::keep_set(target, stable, table, id, set);
    }
    match tag_values::write_set(target, connection, table, set, tag).await {
        Err(ClientError::Server { code, message, .. }) if reaction_to(code) == CodeReaction::Park => {
            let sql = tag_values::statement(target, table, set, tag);
            let raw = if target.marks { Some(set.raw_named(tag).map_err(wire_error)?) } else { None };
            let change = Parked::new(table, &sql, Takes::Field(tag.to_owned())).raw(raw.as_deref());
            parked::park(target, connection, change, code, &message).await?;
        }
        // The user here changed it just now.
        Err(error) if error.code().is_some_and(tag_values::is_tag_missing) => {
            return tag_values::keep_set(target, stable, table, id, set);
        }
        Ok(()) => parked::discard(target, connection, table, |field| field == tag).await?,
        other => tolerate(other, is_missing)?,
    }
    target.waits_since = None;
    target.context.count("changes_applied", 1);
    tag_values::forget(target, table, id)
}

/// Drops a table that is here; the token is its comment before (FACTS F7, F61).
pub async fn drop(applying: &mut Applying<'_>, name: &str) -> Result<()> {
    let target = &mut *applying.target;
    if metadata::table(applying.connection, &target.database, name).await?.is_none() {
        target.shared.table_dropped(name);
        return Ok(());
    }
    let shared = target.shared.clone();
    let _held = shared.definitions.read().await;
    let table = target.qualified(name);
    if target.marks {
        let token = literal(&target.token(applying.header)?.to_string());
        let sql = format!("alter table {table} comment {token}");
        tolerate(target.exec(applying.connection, &sql).await, is_missing)?;
    }
    parked::forget(target, name)?;
    let sql = format!("drop table if exists {table}");
    match target.exec(applying.connection, &sql).await {
        Err(ClientError::Server { code, message, .. }) if reaction_to(code) == CodeReaction::Park => {
            parked::park(target, applying.connection, Parked::new(name, &sql, Takes::Table), code, &message).await?;
        }
        other => tolerate(other, is_missing)?,
    }
    target.context.count("changes_applied", 1);
    target.shared.table_dropped(name);
    tag_values::forget_table(target, name)
}

pub fn is_missing(code: u32) -> bool {
    reaction_to(code) == CodeReaction::ApplyMetaFirst
}

pub fn tolerate(result: Result<(), ClientError>, is_fine: impl Fn(u32) -> bool) -> Result<()> {
    match result {
        Err(ClientError::Server { code, .. }) if is_fine(code) => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::origin::OriginField;
    use super::*;

    #[test]
    fn a_creation_that_comes_late_names_tags_as_they_are_now() {
        let field = |id, name: &str| OriginField { id, name: name.into(), code: 4, bytes: 4, flags: 0 };
        let origin = OriginStable {
            suid: 1,
            column_version: 1,
            tag_version: 4,
            columns: Vec::new(),
            tags: vec![field(3, "renamed"), field(5, "kept")],
            newest_id: 5,
            dropped: Vec::new(),
            target_created: None,
        };
        let tag = |id, name: &str| Tag { name: name.into(), id, data_type: DataType::Int, bytes: vec![0; 4] };
        let tags = [tag(3, "old"), tag(4, "dropped since"), tag(5, "kept"), tag(6, "not announced yet"), tag(0, "json")];
        let names = |origin| named_now(&tags, origin).into_iter().map(|tag| tag.name).collect::<Vec<_>>();
        assert_eq!(names(Some(&origin)), ["renamed", "kept", "not announced yet", "json"]);
        assert_eq!(names(None).len(), tags.len());
    }
}
