//! Changes as JSON, what `fetch_json_meta` delivers (PROTOCOL 9.4).
//!
//! Less is in it than in the binary form, and some of it is wrong (FACTS F19, F21–F23): it is for clients that know
//! nothing else.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};

use crate::error::{Result, WireError};

const BATCH_VERSION: &str = "1.0";

/// A change as JSON tells it.
#[derive(Debug, Clone, PartialEq)]
pub enum MetaJson {
    /// A super table.
    CreateStable {
        /// Its name.
        name: String,
        /// Columns, the timestamp first.
        columns: Vec<ColumnJson>,
        /// Tags.
        tags: Vec<ColumnJson>,
    },
    /// A normal table.
    CreateNormal {
        /// Its name.
        name: String,
        /// Columns, the timestamp first.
        columns: Vec<ColumnJson>,
    },
    /// Child tables, one or more, of one or several super tables.
    CreateChildren(Vec<ChildJson>),
    /// Any ALTER.
    Alter(AlterJson),
    /// A super table.
    DropStable {
        /// Its name.
        name: String,
    },
    /// Child or normal tables.
    DropTables(Vec<String>),
    /// A delete, its statement cut at 255 bytes (FACTS F19).
    Delete {
        /// The statement.
        sql: String,
    },
}

/// A column or tag; tags have no more than the first three.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ColumnJson {
    /// Its name.
    pub name: String,
    /// Type code.
    #[serde(rename = "type")]
    pub code: u8,
    /// Of variable types: bytes, characters of NCHAR.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<i32>,
    /// Second column of a composite primary key; the server's spelling has a small k (trap T14).
    #[serde(rename = "isPrimarykey", alias = "isPrimaryKey", default, skip_serializing_if = "Option::is_none")]
    pub is_primary_key: Option<bool>,
    /// As SQL's ENCODE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encode: Option<String>,
    /// As SQL's COMPRESS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// As SQL's LEVEL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
}

/// A child table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChildJson {
    /// Its name.
    pub table_name: String,
    /// Its super table.
    pub using: String,
    /// Tags of the super table.
    #[serde(default)]
    pub tag_num: i64,
    /// The values that are not NULL.
    #[serde(default)]
    pub tags: Vec<TagJson>,
}

/// A tag value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TagJson {
    /// The tag.
    pub name: String,
    /// Type code.
    #[serde(rename = "type")]
    pub code: u8,
    /// A number, or text: strings in quotes that are part of it.
    #[serde(default)]
    pub value: Json,
}

impl TagJson {
    /// Text without the quotes around it; what is inside is not escaped (FACTS F22). `None` for numbers and null.
    pub fn text(&self) -> Option<&str> {
        self.value.as_str().map(unquoted)
    }
}

/// Takes the quotes off a tag's text; a lone quote is an empty text.
pub(super) fn unquoted(text: &str) -> &str {
    match text.strip_prefix('"') {
        Some(inner) => inner.strip_suffix('"').unwrap_or(inner),
        None => text,
    }
}

/// What kind of table an ALTER is for; options of a child say "normal" (FACTS F23).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TableKind {
    /// Super table.
    Super,
    /// Child table.
    Child,
    /// Normal table.
    #[default]
    Normal,
}

/// An ALTER.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AlterJson {
    /// What kind of table.
    pub table_type: TableKind,
    /// Its name.
    pub table_name: String,
    /// See [`super::alter_type`]; newer numbers are kept.
    pub alter_type: u8,
    /// The column or tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub col_name: Option<String>,
    /// Its type code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub col_type: Option<u8>,
    /// Its length as in [`ColumnJson::length`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub col_length: Option<i32>,
    /// Its new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub col_new_name: Option<String>,
    /// A tag's new value as text, strings in quotes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub col_value: Option<String>,
    /// Whether a tag's new value is NULL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub col_value_null: Option<bool>,
    /// As SQL's ENCODE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encode: Option<String>,
    /// As SQL's COMPRESS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compress: Option<String>,
    /// As SQL's LEVEL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Keys of newer servers, such as the list of alterType 15.
    #[serde(flatten)]
    pub other: Map<String, Json>,
}

/// Every other object, with the server's keys in its order.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    #[serde(rename = "type")]
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    table_type: Option<TableKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    using: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag_num: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    columns: Option<Vec<ColumnJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tags: Option<Vec<Json>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_list: Option<Vec<ChildJson>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    table_name_list: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
}

/// Reads the `data` of a `fetch_json_meta` reply: one change, a batch, or null for none.
///
/// # Errors
/// When the text is no JSON, or an object in it is no known change.
pub fn parse_json(text: &str) -> Result<Vec<MetaJson>> {
    let json: Json = serde_json::from_str(text).map_err(|error| WireError::invalid("meta", error.to_string()))?;
    match json {
        Json::Null => Ok(Vec::new()),
        Json::Object(mut object) => match object.remove("metas") {
            Some(Json::Array(metas)) => metas.into_iter().map(parse_one).collect(),
            Some(_) => Err(WireError::invalid("meta", "metas is no array")),
            None => Ok(vec![parse_one(Json::Object(object))?]),
        },
        _ => Err(WireError::invalid("meta", "no JSON object")),
    }
}

fn parse_one(json: Json) -> Result<MetaJson> {
    if json.get("type").and_then(Json::as_str) == Some("alter") {
        let mut alter: AlterJson = from_json(json)?;
        alter.other.remove("type");
        return Ok(MetaJson::Alter(alter));
    }
    let object: Object = from_json(json)?;
    let name = object.table_name.clone().unwrap_or_default();
    match (object.kind.as_str(), object.table_type) {
        ("create", Some(TableKind::Super)) => Ok(MetaJson::CreateStable {
            name,
            columns: object.columns.unwrap_or_default(),
            tags: objects(object.tags)?,
        }),
        ("create", Some(TableKind::Normal)) => {
            Ok(MetaJson::CreateNormal { name, columns: object.columns.unwrap_or_default() })
        }
        ("create", Some(TableKind::Child)) => Ok(MetaJson::CreateChildren(children(name, object)?)),
        ("drop", Some(TableKind::Super)) => Ok(MetaJson::DropStable { name }),
        ("drop", _) => Ok(MetaJson::DropTables(object.table_name_list.unwrap_or_default())),
        ("delete", _) => Ok(MetaJson::Delete { sql: object.sql.unwrap_or_default() }),
        (kind, table_type) => Err(WireError::invalid("meta", format!("type {kind:?}, tableType {table_type:?}"))),
    }
}

/// The list names the first table again; it is empty when there is one table, absent in older servers.
fn children(table_name: String, object: Object) -> Result<Vec<ChildJson>> {
    if let Some(list) = object.create_list.filter(|list| !list.is_empty()) {
        return Ok(list);
    }
    let using = object.using.unwrap_or_default();
    let tags = objects(object.tags)?;
    Ok(vec![ChildJson { table_name, using, tag_num: object.tag_num.unwrap_or_default(), tags }])
}

fn objects<T: serde::de::DeserializeOwned>(list: Option<Vec<Json>>) -> Result<Vec<T>> {
    list.unwrap_or_default().into_iter().map(from_json).collect()
}

fn from_json<T: serde::de::DeserializeOwned>(json: Json) -> Result<T> {
    serde_json::from_value(json).map_err(|error| WireError::invalid("meta", error.to_string()))
}

/// One change as the server writes it.
pub fn to_json(meta: &MetaJson) -> Result<String> {
    if let MetaJson::Alter(alter) = meta {
        #[derive(Serialize)]
        struct Tagged<'a> {
            #[serde(rename = "type")]
            kind: &'static str,
            #[serde(flatten)]
            alter: &'a AlterJson,
        }
        return text(&Tagged { kind: "alter", alter });
    }
    text(&object(meta)?)
}

/// Several changes in the form that newer servers use for `enable_batch_meta`.
pub fn to_json_batch(metas: &[MetaJson]) -> Result<String> {
    let metas = metas.iter().map(to_json).collect::<Result<Vec<_>>>()?;
    Ok(format!("{{\"tmq_meta_version\":\"{BATCH_VERSION}\",\"metas\":[{}]}}", metas.join(",")))
}

fn object(meta: &MetaJson) -> Result<Object> {
    let named = |kind: &str, table_type, name: &str| Object {
        kind: kind.to_owned(),
        table_type: Some(table_type),
        table_name: Some(name.to_owned()),
        ..Object::default()
    };
    Ok(match meta {
        MetaJson::CreateStable { name, columns, tags } => Object {
            columns: Some(columns.clone()),
            tags: Some(values(tags)?),
            ..named("create", TableKind::Super, name)
        },
        MetaJson::CreateNormal { name, columns } => Object {
            columns: Some(columns.clone()),
            tags: Some(Vec::new()),
            ..named("create", TableKind::Normal, name)
        },
        MetaJson::CreateChildren(tables) => {
            let first = tables.first().ok_or_else(|| WireError::unencodable("meta", "no table"))?;
            Object {
                using: Some(first.using.clone()),
                tag_num: Some(first.tag_num),
                tags: Some(values(&first.tags)?),
                create_list: Some(if tables.len() > 1 { tables.clone() } else { Vec::new() }),
                ..named("create", TableKind::Child, &first.table_name)
            }
        }
        MetaJson::DropStable { name } => named("drop", TableKind::Super, name),
        MetaJson::DropTables(names) => {
            Object { kind: "drop".to_owned(), table_name_list: Some(names.clone()), ..Object::default() }
        }
        MetaJson::Delete { sql } => Object { kind: "delete".to_owned(), sql: Some(sql.clone()), ..Object::default() },
        MetaJson::Alter(_) => return Err(WireError::unencodable("meta", "an ALTER has a form of its own")),
    })
}

fn values<T: Serialize>(list: &[T]) -> Result<Vec<Json>> {
    let value = |one| serde_json::to_value(one).map_err(|error| WireError::unencodable("meta", error.to_string()));
    list.iter().map(value).collect()
}

fn text(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| WireError::unencodable("meta", error.to_string()))
}
