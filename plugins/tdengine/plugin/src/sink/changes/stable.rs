//! Super tables: created raw, altered by the difference between two entries, dropped by incarnation.

use pipeline_sdk::Result;
use serde_json::json;
use tdengine_wire::ColumnType;
use tdengine_wire::escape::{identifier, literal};

use super::super::origin::{FieldChange, OriginField, OriginStable, difference};
use super::super::parked::{self, Parked, Takes};
use super::super::target::Target;
use super::super::{statement, tag_values};
use super::Applying;
use super::table::{is_missing, tolerate};
use crate::client::ClientError;
use crate::errors::{CodeReaction, reaction_to};
use crate::log::change::Stable;
use crate::metadata::{self, Column, Definition};

fn origin_of(stable: &Stable, known: Option<&OriginStable>, here: Option<&Definition>) -> OriginStable {
    let known = known.filter(|known| known.suid == stable.suid);
    let before = known.map_or(0, |known| known.newest_id);
    let newest_id = stable.columns.iter().chain(&stable.tags).map(|field| field.id).fold(before, i16::max);
    let mut origin = OriginStable {
        newest_id,
        dropped: Vec::new(),
        target_created: here.and_then(|here| here.created),
        suid: stable.suid,
        column_version: stable.column_version,
        tag_version: stable.tag_version,
        columns: stable.columns.iter().map(OriginField::from).collect(),
        tags: stable.tags.iter().map(OriginField::from).collect(),
    };
    known.into_iter().for_each(|known| origin.follow(known));
    origin
}

/// Every lane brings the entry; the first applies it, the others find it done.
pub async fn create(applying: &mut Applying<'_>, stable: Stable) -> Result<()> {
    let target = &mut *applying.target;
    let shared = target.shared.clone();
    let _held = shared.definitions.write().await;
    if target.origins.is_gone(&stable.name, stable.suid)? {
        return Ok(());
    }
    let known = target.origins.get(&stable.name)?;
    if known.as_ref().is_some_and(|known| {
        known.suid == stable.suid && known.covers(stable.column_version, stable.tag_version)
    }) {
        return Ok(());
    }
    // Another lane, or the user here, may have made it since this one looked.
    target.shared.group_changed(&stable.name);
    let here = target.shared.definition(applying.connection, &target.database, &stable.name).await?;
    match here {
        None => {
            if target.marks {
                target.write_raw(applying.connection, applying.raw).await?;
                target.shared.group_changed(&stable.name);
            }
            // A server may ignore a raw creation and say nothing (PROTOCOL 10.4): look.
            if target.shared.definition(applying.connection, &target.database, &stable.name).await?.is_none() {
                let mut sql = statement::create_stable(target, &stable);
                if target.marks {
                    sql = format!("{sql} comment {}", literal(&target.token(applying.header)?.to_string()));
                }
                match target.exec(applying.connection, &sql).await {
                    Ok(()) | Err(ClientError::Server { code: 0x0360, .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        // Made on both sides: what one has and the other lacks is added on each.
        Some(here) => {
            let steps = steps_to_union(&stable, &here);
            take_steps(applying, &stable.name, steps).await?;
        }
    }
    let target = &mut *applying.target;
    target.shared.group_changed(&stable.name);
    let here = target.shared.definition(applying.connection, &target.database, &stable.name).await?;
    let mut origin = origin_of(&stable, known.as_deref(), here.as_deref());
    let early = target.origins.early(&stable.name, stable.suid)?;
    if let (Some(early), Some(here)) = (early.clone(), &here) {
        origin = grow(applying, &stable.name, origin, early, here).await?;
    }
    put(applying, &stable.name, &origin).await?;
    if early.is_some() { applying.target.origins.delete_early(&stable.name) } else { Ok(()) }
}

/// Applies what was kept until the creation was.
async fn grow(
    applying: &mut Applying<'_>,
    name: &str,
    origin: OriginStable,
    early: OriginStable,
    here: &Definition,
) -> Result<OriginStable> {
    if origin.covers(early.column_version, early.tag_version) {
        return Ok(origin);
    }
    let steps = steps_of_difference(&origin, &early, here)?;
    take_steps(applying, name, steps).await?;
    applying.target.shared.group_changed(name);
    let newest_id = early.newest_id.max(origin.newest_id);
    let mut grown = OriginStable { newest_id, target_created: origin.target_created, ..early };
    grown.follow(&origin);
    Ok(grown)
}

/// Counts a super table as known so, once everything that follows from it is done: where that is cut off, the entry comes again and is
/// not passed over.
async fn put(applying: &mut Applying<'_>, name: &str, origin: &OriginStable) -> Result<()> {
    tag_values::settle(applying.target, applying.connection, name, origin).await?;
    let has = |field: &str| origin.columns.iter().chain(&origin.tags).any(|known| known.name == field);
    parked::discard(applying.target, applying.connection, name, has).await?;
    applying.target.origins.put(name, origin)
}

pub async fn alter(applying: &mut Applying<'_>, stable: Stable) -> Result<()> {
    let target = &mut *applying.target;
    let shared = target.shared.clone();
    let _held = shared.definitions.write().await;
    if target.origins.is_gone(&stable.name, stable.suid)? {
        return Ok(());
    }
    let any = target.origins.get(&stable.name)?;
    let is_another = any.as_ref().is_some_and(|known| known.suid != stable.suid);
    let known = any.filter(|known| known.suid == stable.suid);
    if known.as_ref().is_some_and(|known| known.covers(stable.column_version, stable.tag_version)) {
        return Ok(());
    }
    target.shared.group_changed(&stable.name);
    let here = target.shared.definition(applying.connection, &target.database, &stable.name).await?;
    if stable.is_marked && known.is_none() && (here.is_none() || is_another) {
        return keep_early(target, &stable);
    }
    let Some(here) = here else {
        target.may_come(&stable.name)?;
        // Dropped here: its drop is on the way to the source.
        target.context.count("changes_left_out", 1);
        return target.origins.put(&stable.name, &origin_of(&stable, known.as_deref(), None));
    };
    let after = origin_of(&stable, known.as_deref(), Some(&*here));
    report_two_renames(applying, &stable.name, &here);
    let steps = steps_of(&applying.change.detail, &stable, known.as_deref(), &after, &here)?;
    take_steps(applying, &stable.name, steps).await?;
    applying.target.shared.group_changed(&stable.name);
    put(applying, &stable.name, &after).await
}

/// A change that came from here: the source has it now, and its ids and names are those of its log from here on.
pub async fn learn(applying: &mut Applying<'_>, stable: &Stable) -> Result<()> {
    let target = &mut *applying.target;
    let shared = target.shared.clone();
    let _held = shared.definitions.write().await;
    if target.origins.is_gone(&stable.name, stable.suid)? {
        return Ok(());
    }
    let known = target.origins.get(&stable.name)?.filter(|known| known.suid == stable.suid);
    if known.as_ref().is_some_and(|known| known.covers(stable.column_version, stable.tag_version)) {
        return Ok(());
    }
    let here = target.shared.definition(applying.connection, &target.database, &stable.name).await?;
    // The user here may make what is not here at any time: that it was missing is not remembered.
    target.shared.group_changed(&stable.name);
    put(applying, &stable.name, &origin_of(stable, known.as_deref(), here.as_deref())).await
}

/// A drop that came from here.
pub fn learn_gone(target: &Target, name: &str, suid: i64) -> Result<()> {
    if !target.origins.is_gone(name, suid)? {
        target.origins.put_gone(name, suid)?;
        tag_values::forget_stable(target, name)?;
    }
    Ok(())
}

/// Keeps a change of what has not been created here yet: creating it applies the change.
fn keep_early(target: &Target, stable: &Stable) -> Result<()> {
    if !target.origins.put_early(&stable.name, &origin_of(stable, None, None))? {
        let detail = json!({ "name": stable.name, "suid": stable.suid });
        let message = format!("too many changes wait for a creation: one of `{}`.`{}` was left out", target.database, stable.name);
        target.context.incident("left-out", message, detail);
    }
    Ok(())
}

/// Drops the incarnation that the entry names, once. The token is the comment before (FACTS F7, F61).
pub async fn drop(applying: &mut Applying<'_>, name: &str, suid: i64) -> Result<()> {
    let target = &mut *applying.target;
    let shared = target.shared.clone();
    let _held = shared.definitions.write().await;
    if target.origins.is_gone(name, suid)? {
        return Ok(());
    }
    target.shared.group_changed(name);
    let here = target.shared.definition(applying.connection, &target.database, name).await?;
    if here.is_some() {
        let stable = target.qualified(name);
        if target.marks {
            let token = literal(&target.token(applying.header)?.to_string());
            tolerate(target.exec(applying.connection, &format!("alter stable {stable} comment {token}")).await, is_missing)?;
        }
        parked::forget(target, name)?;
        let sql = format!("drop stable if exists {stable}");
        match target.exec(applying.connection, &sql).await {
            Err(ClientError::Server { code, message, .. }) if reaction_to(code) == CodeReaction::Park => {
                parked::park(target, applying.connection, Parked::new(name, &sql, Takes::Stable), code, &message).await?;
            }
            other => tolerate(other, is_missing)?,
        }
    }
    learn_gone(target, name, suid)?;
    target.shared.group_dropped(name);
    Ok(())
}

/// One `ALTER STABLE`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AlterStep {
    /// Behind `ALTER STABLE name`.
    clause: String,
    takes: Takes,
}

/// The statement of a step; with a token in its text where the pipeline is a replica.
fn alter_with(stable: &str, step: &AlterStep, token: Option<&str>) -> String {
    let comment = token.map(|token| format!(" /* {token} */")).unwrap_or_default();
    format!("alter stable {stable} {}{comment}", step.clause)
}

async fn take_steps(applying: &mut Applying<'_>, name: &str, steps: Vec<AlterStep>) -> Result<()> {
    let target = &mut *applying.target;
    let token = if target.marks { Some(target.token(applying.header)?.to_string()) } else { None };
    let stable = target.qualified(name);
    for step in steps {
        let sql = alter_with(&stable, &step, token.as_deref());
        match target.exec(applying.connection, &sql).await {
            Ok(()) => target.context.count("changes_applied", 1),
            // Done already: by the user here, or before a restart.
            Err(ClientError::Server { code, .. }) if is_done_already(code) => {}
            Err(ClientError::Server { code, message, .. }) if reaction_to(code) == CodeReaction::Park => {
                parked::park(target, applying.connection, Parked::new(name, &sql, step.takes), code, &message).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Column or tag exists, does not exist, is that wide already.
pub fn is_done_already(code: u32) -> bool {
    matches!(code, 0x0369 | 0x036a | 0x036b | 0x036c | 0x263c | 0x2602 | 0x260e | 0x264b)
}

/// An entry's alter type (PROTOCOL 9.4).
const RENAME_TAG: i64 = 3;

/// What is a column and what a tag, for one list of fields.
#[derive(Clone, Copy)]
enum Part {
    Column,
    Tag,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Part::Column => "column",
            Part::Tag => "tag",
        }
    }

    fn find<'a>(self, here: &'a Definition, name: &str) -> Option<&'a Column> {
        match self {
            Part::Column => here.column(name),
            Part::Tag => here.tag(name),
        }
    }
}

fn step(clause: String) -> AlterStep {
    AlterStep { clause, takes: Takes::Nothing }
}

fn add(part: Part, name: &str, column_type: ColumnType, here: &Definition) -> Option<AlterStep> {
    match part.find(here, name) {
        None => Some(step(format!("add {} {} {column_type}", part.word(), identifier(name)))),
        Some(_) => widen(part, name, column_type, here),
    }
}

fn widen(part: Part, name: &str, column_type: ColumnType, here: &Definition) -> Option<AlterStep> {
    let found = part.find(here, name)?;
    let wider = found.column_type.data_type == column_type.data_type && found.column_type.bytes < column_type.bytes;
    (wider && column_type.is_variable())
        .then(|| step(format!("modify {} {} {column_type}", part.word(), identifier(name))))
}

fn remove(part: Part, name: &str, here: &Definition) -> Option<AlterStep> {
    let takes = Takes::Field(name.to_owned());
    part.find(here, name).map(|_| AlterStep { clause: format!("drop {} {}", part.word(), identifier(name)), takes })
}

fn rename_tag(from: &str, to: &str, here: &Definition) -> Option<AlterStep> {
    let open = here.tag(from).is_some() && here.tag(to).is_none();
    let takes = Takes::Field(from.to_owned());
    open.then(|| AlterStep { clause: format!("rename tag {} {}", identifier(from), identifier(to)), takes })
}

fn steps_of_difference(before: &OriginStable, after: &OriginStable, here: &Definition) -> Result<Vec<AlterStep>> {
    let mut steps = Vec::new();
    let parts = [(Part::Column, &before.columns, &after.columns), (Part::Tag, &before.tags, &after.tags)];
    for (part, before, after) in parts {
        let changes = difference(before, after);
        let dropped: Vec<&str> = changes
            .iter()
            .filter_map(|change| match change {
                FieldChange::Dropped(field) => Some(field.name.as_str()),
                _ => None,
            })
            .collect();
        for change in &changes {
            steps.extend(match change {
                FieldChange::Renamed { from, to } => rename_tag(from, &to.name, here),
                FieldChange::Dropped(field) => remove(part, &field.name, here),
                // Dropped and made again under its name: what is here now is about to go.
                FieldChange::Added(field) if dropped.contains(&field.name.as_str()) => {
                    let name = identifier(&field.name);
                    Some(step(format!("add {} {name} {}", part.word(), field.column_type()?)))
                }
                FieldChange::Added(field) => add(part, &field.name, field.column_type()?, here),
                FieldChange::Widened(field) => widen(part, &field.name, field.column_type()?, here),
            });
        }
    }
    Ok(steps)
}

/// What an entry changes. A statement's says so itself (the alter type of PROTOCOL 9.4): the difference from what is known
/// would hold replicated changes, too, which this side never sees, and bring back here what was dropped here since. But for
/// what schemaless writes grew before it: their entries come another way (FACTS F10), and behind this one are passed over. A
/// schemaless write's only adds.
fn steps_of(
    detail: &serde_json::Value,
    stable: &Stable,
    known: Option<&OriginStable>,
    after: &OriginStable,
    here: &Definition,
) -> Result<Vec<AlterStep>> {
    let text = |key: &str| detail[key].as_str().unwrap_or_default();
    let name = text("colName");
    let of_column = stable.columns.iter().find(|column| column.name == name).map(|column| column.column_type);
    let of_tag = stable.tags.iter().find(|tag| tag.name == name).map(|tag| tag.column_type);
    let one = match (detail["alterType"].as_i64(), of_column, of_tag) {
        (Some(1), _, Some(column_type)) => add(Part::Tag, name, column_type, here),
        (Some(2), ..) => remove(Part::Tag, name, here),
        (Some(RENAME_TAG), ..) => rename_tag(name, text("colNewName"), here),
        (Some(5 | 14), Some(column_type), _) => add(Part::Column, name, column_type, here),
        (Some(6), ..) => remove(Part::Column, name, here),
        (Some(7), Some(column_type), _) => widen(Part::Column, name, column_type, here),
        (Some(8), _, Some(column_type)) => widen(Part::Tag, name, column_type, here),
        (Some(_), ..) => None,
        (None, ..) => match known {
            Some(known) => return steps_of_difference(known, after, here),
            None => return Ok(steps_to_union(stable, here)),
        },
    };
    let mut steps = known.map_or_else(Vec::new, |known| steps_to_grow(known, stable, here));
    steps.extend(one.filter(|one| !steps.contains(one)));
    Ok(steps)
}

/// Adds what is newer than everything known, and widens what is wider than known. Neither was undone here: it was never told.
fn steps_to_grow(known: &OriginStable, stable: &Stable, here: &Definition) -> Vec<AlterStep> {
    let parts = [(Part::Column, &stable.columns, &known.columns), (Part::Tag, &stable.tags, &known.tags)];
    let grown = parts.into_iter().flat_map(|(part, fields, known_fields)| {
        fields.iter().filter_map(move |field| match known_fields.iter().find(|known| known.id == field.id) {
            None if field.id > known.newest_id => add(part, &field.name, field.column_type, here),
            Some(known) if known.bytes < field.column_type.bytes => widen(part, &field.name, field.column_type, here),
            _ => None,
        })
    });
    grown.collect()
}

/// Adds and widens only.
fn steps_to_union(stable: &Stable, here: &Definition) -> Vec<AlterStep> {
    let columns = stable.columns.iter().map(|column| (Part::Column, column));
    let tags = stable.tags.iter().map(|tag| (Part::Tag, tag));
    columns.chain(tags).filter_map(|(part, field)| add(part, &field.name, field.column_type, here)).collect()
}

/// Whether a raw creation of a child puts the tags where they belong: the ids of the tags here must be those at the source
/// (FACTS F67). Here they are known only of a super table that was never altered: they follow the columns in order.
pub async fn tag_ids_are_equal(applying: &mut Applying<'_>, name: &str, suid: i64) -> Result<bool> {
    let target = &mut *applying.target;
    let Some(origin) = target.origins.get(name)?.filter(|origin| origin.suid == suid) else { return Ok(false) };
    let Some(here) = target.shared.definition(applying.connection, &target.database, name).await? else {
        return Ok(false);
    };
    let first = here.columns.len() as i16 + 1;
    let in_order = here.tags.len() == origin.tags.len()
        && here.tags.iter().zip(&origin.tags).enumerate().all(|(index, (here, origin))| {
            here.name == origin.name
                && here.column_type.data_type.code() == origin.code
                && here.column_type.bytes == origin.bytes
                && origin.id == first + index as i16
        });
    if !in_order {
        return Ok(false);
    }
    let key = format!("unaltered/{name}/{}", target.shared.generation());
    if target.unaltered.as_deref() == Some(key.as_str()) {
        return Ok(true);
    }
    let altered = metadata::stable_was_altered(applying.connection, &target.database, name).await?;
    if !altered {
        target.unaltered = Some(key);
    }
    Ok(!altered)
}

/// A tag that was renamed at the source and is here by neither name was renamed or dropped here meanwhile: nothing tells who was last.
fn report_two_renames(applying: &Applying<'_>, name: &str, here: &Definition) {
    let detail = &applying.change.detail;
    let (Some(from), Some(to)) = (detail["colName"].as_str(), detail["colNewName"].as_str()) else { return };
    if detail["alterType"] == RENAME_TAG && here.tag(from).is_none() && here.tag(to).is_none() {
        let why = format!("tag `{from}` was renamed to `{to}` at the source, and renamed or dropped here at the same time");
        report_conflict(applying, name, &why);
    }
}

/// Reports that two sites made one name differently.
pub fn report_conflict(applying: &Applying<'_>, name: &str, why: &str) {
    let detail = json!({ "name": name, "why": why, "lane": applying.header.lane.as_str() });
    let message = format!("`{}`.`{name}` differs between the sites: {why}", applying.target.database);
    applying.target.context.incident("conflict", message, detail);
}

#[cfg(test)]
mod tests {
    use tdengine_wire::Field;

    use super::*;

    fn origin(version: i32, columns: &[(i16, &str, u32)]) -> OriginStable {
        let columns = columns
            .iter()
            .map(|(id, name, width)| OriginField {
                id: *id,
                name: (*name).into(),
                code: 8,
                bytes: ColumnType::varchar(*width).bytes,
                flags: 0,
            })
            .collect();
        OriginStable { suid: 1, column_version: version, tag_version: 1, columns, tags: Vec::new(), newest_id: 9, dropped: Vec::new(), target_created: None }
    }

    fn here(columns: &[(&str, u32)]) -> Definition {
        let columns = columns
            .iter()
            .map(|(name, width)| Column {
                name: (*name).into(),
                column_type: ColumnType::varchar(*width),
                is_primary_key: false,
            })
            .collect();
        Definition { columns, ..Definition::default() }
    }

    #[test]
    fn only_what_differs_here_is_sent() {
        let base = [(1, "a", 8)];
        for (what, after, here, expect) in [
            ("added", &[(1, "a", 8), (2, "b", 4)][..], here(&[("a", 8)]), vec!["add column `b` VARCHAR(4)"]),
            ("added, here already", &[(1, "a", 8), (2, "b", 4)], here(&[("a", 8), ("b", 4)]), vec![]),
            ("added, narrower here", &[(1, "a", 8), (2, "b", 9)], here(&[("b", 4)]), vec!["modify column `b` VARCHAR(9)"]),
            ("wider", &[(1, "a", 9)], here(&[("a", 8)]), vec!["modify column `a` VARCHAR(9)"]),
            ("wider, wider still here", &[(1, "a", 9)], here(&[("a", 20)]), vec![]),
            ("dropped", &[], here(&[("a", 8)]), vec!["drop column `a`"]),
            ("dropped, here too", &[], here(&[]), vec![]),
            ("made again", &[(2, "a", 4)], here(&[("a", 8)]), vec!["drop column `a`", "add column `a` VARCHAR(4)"]),
            ("not touched, gone here", &[(1, "a", 8)], here(&[]), vec![]),
        ] {
            let steps = steps_of_difference(&origin(1, &base), &origin(2, after), &here).unwrap();
            let clauses: Vec<&str> = steps.iter().map(|step| step.clause.as_str()).collect();
            assert_eq!(clauses, expect, "{what}");
        }
    }

    #[test]
    fn a_statement_changes_only_what_it_says() {
        let field = |name: &str, id| Field::new(name, ColumnType::varchar(4), id);
        let columns = vec![field("a", 1), field("from_here", 2), field("b", 3)];
        let stable = Stable {
            name: "s".into(),
            suid: 1,
            column_version: 5,
            columns,
            tag_version: 1,
            tags: Vec::new(),
            statement: Vec::new(),
            is_marked: false,
        };
        let known = origin(2, &[(1, "a", 4)]);
        let after = origin_of(&stable, Some(&known), None);
        // `from_here` came to the source from here, and was dropped here since.
        for (detail, expect) in [
            (json!({ "alterType": 5, "colName": "b" }), vec!["add column `b` VARCHAR(4)"]),
            (json!({ "alterType": 6, "colName": "a" }), vec!["drop column `a`"]),
            (json!({ "alterType": 6, "colName": "gone" }), vec![]),
            (json!({ "alterType": 9 }), vec![]),
            (json!(null), vec!["add column `from_here` VARCHAR(4)", "add column `b` VARCHAR(4)"]),
        ] {
            let steps = steps_of(&detail, &stable, Some(&known), &after, &here(&[("a", 4)])).unwrap();
            assert_eq!(steps.iter().map(|step| step.clause.as_str()).collect::<Vec<_>>(), expect, "{detail}");
        }
    }

    #[test]
    fn a_statement_brings_what_schemaless_writes_grew_before_it() {
        let field = |name: &str, width, id| Field::new(name, ColumnType::varchar(width), id);
        let stable = Stable {
            name: "s".into(),
            suid: 1,
            column_version: 5,
            columns: vec![field("a", 8, 1), field("b", 4, 2), field("x", 4, 4), field("y", 4, 5)],
            tag_version: 1,
            tags: Vec::new(),
            statement: Vec::new(),
            is_marked: false,
        };
        // `b` was dropped here; `a` grew and `x` came by schemaless writes.
        let known = OriginStable { newest_id: 3, ..origin(2, &[(1, "a", 4), (2, "b", 4)]) };
        let (grown, new) = ("modify column `a` VARCHAR(8)", "add column `x` VARCHAR(4)");
        for (detail, here, expect) in [
            (json!({ "alterType": 5, "colName": "y" }), here(&[("a", 4)]), vec![grown, new, "add column `y` VARCHAR(4)"]),
            (json!({ "alterType": 5, "colName": "y" }), here(&[("a", 9), ("x", 4)]), vec!["add column `y` VARCHAR(4)"]),
            (json!({ "alterType": 6, "colName": "c" }), here(&[("a", 8), ("c", 4), ("y", 4)]), vec![new, "drop column `c`"]),
        ] {
            let after = origin_of(&stable, Some(&known), None);
            let steps = steps_of(&detail, &stable, Some(&known), &after, &here).unwrap();
            assert_eq!(steps.iter().map(|step| step.clause.as_str()).collect::<Vec<_>>(), expect, "{detail}");
        }
    }
}
