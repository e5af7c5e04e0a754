//! From syntax trees to what the parts of the store take.

use std::borrow::Cow;
use std::sync::Arc;

use tdengine_sql::ast::{self, AlterAction, Expr, TimeBase, TypeName, Value};
use tdengine_wire::{ColumnType, DataType};

use crate::database::Database;
use crate::ddl::alter_table::{TagChange, unknown_tag};
use crate::ddl::{AlterKind, ColumnSpec, Compression};
use crate::error::{Result, ServerError, code};
use crate::literal::{Context, Given, Literal, Shown, near, time};
use crate::schema::{Stable, TagValues};
use crate::session::Session;
use crate::store::inner::Inner;
use crate::write::child::{NewChild, put_tag, tag_names};

/// What literals for this database mean.
pub(crate) fn context(database: &Database, session: &Session) -> Context {
    Context { precision: database.options.precision(), timezone_offset_s: session.timezone_offset_s }
}

/// A type with its width.
///
/// # Errors
/// 0x2600 for a type that columns cannot have.
pub(crate) fn column_type(name: &TypeName) -> Result<ColumnType> {
    let syntax = || ServerError::new(code::SYNTAX, format!("syntax error near \"{}\"", name.name));
    if name.name == "DECIMAL" {
        let (precision, scale) = (name.length.unwrap_or(0), name.scale.unwrap_or(0));
        if !(1..=38).contains(&precision) || scale > precision {
            return Err(syntax());
        }
        return Ok(ColumnType::decimal(precision as u8, scale as u8));
    }
    let data_type = DataType::from_name(name.name).ok_or_else(syntax)?;
    match name.length {
        Some(0) if data_type.is_variable() => {
            Err(ServerError::new(code::COLUMN_LENGTH, "Invalid column length for var length type"))
        }
        Some(length) => Ok(ColumnType::sized(data_type, length)),
        None => Ok(ColumnType::of(data_type)),
    }
}

/// Columns or tags of a CREATE.
pub(crate) fn columns(columns: &[ast::Column]) -> Result<Vec<ColumnSpec>> {
    columns.iter().map(column).collect()
}

fn column(column: &ast::Column) -> Result<ColumnSpec> {
    let ast::Column { encode, compress, level, .. } = column;
    Ok(ColumnSpec {
        name: column.name.clone(),
        column_type: column_type(&column.data_type)?,
        primary_key: column.primary_key,
        compression: compression(encode.as_deref(), compress.as_deref(), level.as_deref())?,
    })
}

fn compression(encode: Option<&str>, compress: Option<&str>, level: Option<&str>) -> Result<Compression> {
    const ENCODES: [&str; 5] = ["", "simple8b", "delta-i", "bit-packing", "delta-d"];
    const COMPRESSES: [&str; 6] = ["", "lz4", "zlib", "zstd", "tsz", "xz"];
    const LEVELS: [&str; 4] = ["", "low", "medium", "high"];
    let find = |known: &[&str], text: Option<&str>| {
        let Some(text) = text else { return Ok(None) };
        if text.eq_ignore_ascii_case("disabled") {
            return Ok(Some(u8::MAX));
        }
        let place = known.iter().position(|name| !name.is_empty() && name.eq_ignore_ascii_case(text));
        let unknown = || ServerError::new(code::INVALID_ALTER, format!("Invalid encode/compress/level option: {text}"));
        place.map(|place| Some(place as u8)).ok_or_else(unknown)
    };
    Ok(Compression { encode: find(&ENCODES, encode)?, compress: find(&COMPRESSES, compress)?, level: find(&LEVELS, level)? })
}

/// `TTL`, 0 without one.
pub(crate) fn ttl(options: &ast::TableOptions) -> i32 {
    options.ttl_days.map_or(0, |days| i32::try_from(days).unwrap_or(i32::MAX))
}

/// ALTER, but for SET TAG.
pub(crate) fn alter(action: &AlterAction<'_>) -> Result<AlterKind> {
    Ok(match action {
        AlterAction::AddColumn(added) => AlterKind::AddColumn(column(added)?),
        AlterAction::DropColumn(name) => AlterKind::DropColumn(name.clone()),
        AlterAction::ModifyColumn { name, data_type } => {
            AlterKind::ModifyColumn { name: name.clone(), column_type: column_type(data_type)? }
        }
        AlterAction::RenameColumn { from, to } => AlterKind::RenameColumn { from: from.clone(), to: to.clone() },
        AlterAction::CompressColumn { name, encode, compress, level } => {
            let compression = compression(encode.as_deref(), compress.as_deref(), level.as_deref())?;
            AlterKind::CompressColumn { name: name.clone(), compression }
        }
        AlterAction::AddTag(added) => AlterKind::AddTag(column(added)?),
        AlterAction::DropTag(name) => AlterKind::DropTag(name.clone()),
        AlterAction::ModifyTag { name, data_type } => {
            AlterKind::ModifyTag { name: name.clone(), column_type: column_type(data_type)? }
        }
        AlterAction::RenameTag { from, to } => AlterKind::RenameTag { from: from.clone(), to: to.clone() },
        AlterAction::Options(options) => AlterKind::Options {
            ttl_days: options.ttl_days.map(|_| ttl(options)),
            comment: options.comment.clone(),
        },
        AlterAction::SetTags(_) => return Err(ServerError::new(code::INVALID_ALTER, "Invalid alter table statement")),
    })
}

/// The values of SET TAG.
pub(crate) fn tag_changes(stable: &Stable, tags: &[(String, Value<'_>)], context: &Context) -> Result<Vec<TagChange>> {
    let change = |(name, value): &(String, Value<'_>)| {
        let field = stable.tags.field(name).ok_or_else(|| unknown_tag(name))?;
        let mut bytes = Vec::new();
        let there = write(context, None, value, field.column_type, name, &mut bytes)?;
        Ok((name.clone(), there.then_some(bytes)))
    };
    tags.iter().map(change).collect()
}

/// `USING stable [(tags)] TAGS (values)` of a CREATE TABLE.
///
/// # Errors
/// 0x2603 for the super table, 0x260D for the number of values, 0x260E for a tag's name, 0x0216 and 0x2653 for a value.
pub(crate) fn child(
    inner: &Inner,
    session: &Session,
    database: &Database,
    using: &ast::Using<'_>,
) -> Result<NewChild> {
    let of_stable = using.stable.database.as_ref().map(|name| inner.database(name).ok_or_else(ServerError::table_missing));
    let id = of_stable.transpose()?.map_or(database.id, |database| database.id);
    let stable = inner.catalog.read().stable(id, &using.stable.table).cloned();
    let stable = stable.filter(|_| id == database.id).ok_or_else(ServerError::table_missing)?;
    let names = tag_names(&stable.tags, using.tags.as_deref())?;
    if names.len() != using.values.len() {
        return Err(ServerError::new(code::TAGS_NOT_MATCHED, "Tags number not matched"));
    }
    new_child(stable, names, using, &context(database, session), None)
}

/// A child with the values of `using` for the tags `names`; `sql` is the text of an INSERT.
pub(crate) fn new_child(
    stable: Arc<Stable>,
    names: Vec<String>,
    using: &ast::Using<'_>,
    context: &Context,
    sql: Option<&str>,
) -> Result<NewChild> {
    let mut tags = TagValues::default();
    for (name, value) in names.iter().zip(&using.values) {
        let Some(field) = stable.tags.field(name) else { continue };
        let mut bytes = Vec::new();
        let there = write(context, sql, value, field.column_type, name, &mut bytes)?;
        put_tag(&mut tags, &stable.tags, name, there.then_some(bytes))?;
    }
    Ok(NewChild { stable, tag_names: names, tags, ttl_days: 0, comment: None })
}

/// Writes a literal of the syntax tree as bytes; `false` for NULL. `sql` is the text of an INSERT, whose errors show the rest of it.
pub(crate) fn write(
    context: &Context,
    sql: Option<&str>,
    value: &Value<'_>,
    column_type: ColumnType,
    name: &str,
    out: &mut Vec<u8>,
) -> Result<bool> {
    let rest = sql.and_then(|sql| sql.get(value.at..));
    let unescaped: Cow<'_, str>;
    let (literal, alone) = match &value.literal {
        ast::Literal::Null => (Literal::Null, "null"),
        ast::Literal::Bool(value) => (Literal::Bool(*value), if *value { "true" } else { "false" }),
        ast::Literal::Number(text) => (Literal::Number(text), text.as_ref()),
        ast::Literal::Duration(text) => (Literal::Word(text), *text),
        ast::Literal::Parameter => {
            let given = Given { literal: Literal::Null, shown: rest.map_or(Shown::Alone("?"), Shown::Rest) };
            return Err(given.refused("? only used in stmt"));
        }
        ast::Literal::Text(text) => {
            unescaped = ast::unescape(text);
            (Literal::Text(&unescaped), unescaped.as_ref())
        }
        ast::Literal::Time { base, offsets, .. } => {
            let (plain, alone) = match base {
                TimeBase::Now => (Literal::Word("now"), "now"),
                TimeBase::Today => (Literal::Word("today"), "today"),
                TimeBase::Number(text) => (Literal::Number(text), *text),
                TimeBase::Text(text) => {
                    unescaped = ast::unescape(text);
                    (Literal::Text(&unescaped), unescaped.as_ref())
                }
            };
            match column_type.data_type {
                DataType::Timestamp => {
                    let shown = shown(plain, alone, rest);
                    (Literal::Time(point_in_time(context, Given { literal: plain, shown }, base, offsets)?), alone)
                }
                _ => (plain, alone),
            }
        }
    };
    context.write(Given { literal, shown: shown(literal, alone, rest) }, column_type, name, out)
}

fn shown<'a>(literal: Literal<'_>, alone: &'a str, rest: Option<&'a str>) -> Shown<'a> {
    match (literal, rest) {
        (Literal::Text(_), _) | (_, None) => Shown::Alone(alone),
        (_, Some(rest)) => Shown::Rest(rest),
    }
}

/// A time with at most one duration added, as a server takes it; no month and no year.
fn point_in_time(context: &Context, given: Given<'_>, base: &TimeBase<'_>, offsets: &[(bool, &str)]) -> Result<i64> {
    let now = time::now(context.precision);
    let point = match base {
        TimeBase::Now => now,
        TimeBase::Today => time::day_of(now, context.precision, context.timezone_offset_s),
        TimeBase::Number(_) | TimeBase::Text(_) => context.timestamp(given)?,
    };
    let invalid = || given.refused("invalid timestamp");
    let (minus, text) = match offsets {
        [] => return Ok(point),
        [(minus, text)] if !text.ends_with(['n', 'N', 'y', 'Y']) => (*minus, *text),
        _ => return Err(invalid()),
    };
    let duration = time::duration(text, context.precision).ok_or_else(invalid)?;
    Ok(if minus { point.saturating_sub(duration) } else { point.saturating_add(duration) })
}

/// A literal as a point in time.
pub(crate) fn timestamp(context: &Context, literal: &ast::Literal<'_>) -> Result<i64> {
    let mut bytes = Vec::new();
    let value = Value { literal: literal.clone(), at: 0 };
    write(context, None, &value, ColumnType::of(DataType::Timestamp), "", &mut bytes)?;
    let bytes: [u8; 8] = bytes.try_into().map_err(|_| near("null", "invalid timestamp"))?;
    Ok(i64::from_le_bytes(bytes))
}

/// The super table or table of a topic's query, and the columns and tags that the query uses.
pub(crate) fn topic_columns(
    inner: &Inner,
    database: &Database,
    table: &str,
    select: &ast::Select<'_>,
) -> Result<(String, Vec<String>)> {
    let missing = || ServerError::new(code::TABLE_INFO, "Fail to get table info, error: Table does not exist");
    let stable = inner.catalog.read().stable(database.id, table).cloned();
    let schema = match stable {
        Some(stable) => stable.schema(),
        None => {
            let found = inner.find_table(database, table)?.ok_or_else(missing)?;
            inner.vgroup(found.vgroup)?.index().schema(&found)?
        }
    };
    let mut names = Vec::new();
    for item in &select.items {
        collect(&item.expr, &mut names);
    }
    select.condition.iter().for_each(|condition| collect(condition, &mut names));
    let all = || schema.columns.fields.iter().chain(&schema.tags.fields).map(|field| field.name.clone());
    if names.iter().any(|name| name == "*") {
        return Ok((schema.stable.clone().unwrap_or_else(|| table.to_owned()), all().collect()));
    }
    let known: Vec<String> = all().chain(["tbname".to_owned()]).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(name) && !name.starts_with('_')) {
        return Err(ServerError::invalid_column(unknown));
    }
    Ok((schema.stable.clone().unwrap_or_else(|| table.to_owned()), names))
}

fn collect(expr: &Expr<'_>, names: &mut Vec<String>) {
    match expr {
        Expr::Literal(_) => {}
        Expr::Star => names.push("*".to_owned()),
        Expr::Column { name, .. } => names.push(name.clone()),
        Expr::Unary { operand, .. } | Expr::Cast { operand, .. } | Expr::IsNull { operand, .. } => collect(operand, names),
        Expr::Binary { left, right, .. } => [left, right].into_iter().for_each(|side| collect(side, names)),
        Expr::Call { arguments, .. } => arguments.iter().for_each(|argument| collect(argument, names)),
        Expr::In { operand, list, .. } => {
            collect(operand, names);
            list.iter().for_each(|element| collect(element, names));
        }
        Expr::Between { operand, low, high, .. } => {
            [operand, low, high].into_iter().for_each(|part| collect(part, names));
        }
        Expr::Case { operand, branches, otherwise } => {
            operand.iter().chain(otherwise).for_each(|part| collect(part, names));
            branches.iter().for_each(|(when, then)| [when, then].into_iter().for_each(|part| collect(part, names)));
        }
    }
}
