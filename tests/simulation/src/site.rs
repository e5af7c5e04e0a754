//! What a site holds, read through SQL as any client would.

use pipeline_tdengine::client::sql::Connection;

use crate::model::{Group, Kind, State, Table};
use crate::world::DATABASE;

type Texts = Vec<Vec<Option<String>>>;

/// Everything in the replicated database.
///
/// # Errors
/// The site cannot be read, or holds what no operation makes.
pub async fn read(connection: &Connection) -> Result<State, String> {
    let mut state = State::default();
    for name in column(connection, &format!("select stable_name from information_schema.ins_stables where db_name = '{DATABASE}'")).await? {
        let group = read_group(connection, &name, true).await?;
        state.groups.insert(name, group);
    }
    let normal = format!("select table_name from information_schema.ins_tables where db_name = '{DATABASE}' and type = 'NORMAL_TABLE'");
    for name in column(connection, &normal).await? {
        let group = read_group(connection, &name, false).await?;
        state.groups.insert(name, group);
    }
    Ok(state)
}

async fn read_group(connection: &Connection, name: &str, is_stable: bool) -> Result<Group, String> {
    let mut group = Group { is_stable, ..Group::default() };
    for row in query(connection, &format!("describe {DATABASE}.`{name}`")).await?.1 {
        let [Some(field), Some(kind), Some(length), note] = &row[..4] else { return Err(format!("DESCRIBE of {name} says {row:?}")) };
        if field == "ts" {
            continue;
        }
        let kind = Kind::described(kind, length.parse().map_err(|_| format!("{name}.{field} is {length} long"))?);
        let kind = kind.ok_or_else(|| format!("{name}.{field} is of a type that no operation makes"))?;
        let is_tag = note.as_deref() == Some("TAG");
        (if is_tag { &mut group.tags } else { &mut group.columns }).insert(field.clone(), kind);
    }
    if is_stable {
        let of = format!("where db_name = '{DATABASE}' and stable_name = '{name}'");
        for table in column(connection, &format!("select table_name from information_schema.ins_tables {of}")).await? {
            group.tables.insert(table, Table::default());
        }
        let tags = format!("select table_name, tag_name, tag_value from information_schema.ins_tags {of}");
        for row in query(connection, &tags).await?.1 {
            let [Some(table), Some(tag), value] = &row[..] else { return Err(format!("a tag of {name} is {row:?}")) };
            let value = value.as_deref().map(|text| match group.tags.get(tag) {
                // Shown with all its digits here.
                Some(Kind::Double) => text.parse::<f64>().map_or_else(|_| text.to_owned(), |value| value.to_string()),
                _ => text.to_owned(),
            });
            if let Some(value) = value {
                group.tables.entry(table.clone()).or_default().tags.insert(tag.clone(), value);
            }
        }
    } else {
        group.tables.insert(name.to_owned(), Table::default());
    }
    let selected: Vec<String> = group.columns.keys().map(|column| format!(", `{column}`")).collect();
    let table_name = if is_stable { "tbname" } else { "ts" };
    let (names, rows) = query(connection, &format!("select {table_name}, ts{} from {DATABASE}.`{name}`", selected.concat())).await?;
    for row in rows {
        let table = if is_stable { row[0].as_deref().ok_or("a row of no table")? } else { name };
        let time = row[1].as_deref().and_then(|time| time.parse().ok()).ok_or("a row without its time")?;
        let values = names.iter().zip(&row).skip(2).filter_map(|(column, value)| Some((column.clone(), value.clone()?)));
        group.tables.entry(table.to_owned()).or_default().rows.insert(time, values.collect());
    }
    Ok(group)
}

async fn column(connection: &Connection, sql: &str) -> Result<Vec<String>, String> {
    Ok(query(connection, sql).await?.1.into_iter().filter_map(|mut row| row.swap_remove(0)).collect())
}

async fn query(connection: &Connection, sql: &str) -> Result<(Vec<String>, Texts), String> {
    let failed = |error: pipeline_tdengine::client::ClientError| format!("{sql}: {error}");
    let result = connection.query(sql).await.map_err(failed)?;
    let names = result.fields.iter().map(|(name, _)| name.clone()).collect();
    Ok((names, result.texts().map_err(failed)?))
}
