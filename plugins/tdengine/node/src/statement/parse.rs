//! A text with question marks: an INSERT becomes a template, anything else keeps the places of its marks and is read by the
//! store once its values are in it.

use serde_json::Value as Json;
use tdengine_sql::Statement;
use tdengine_sql::ast::{self, Broken, Insert, InsertTable, InsertTarget, Literal, unescape};
use tdengine_wire::{Field, Precision};

use super::template::{Name, Slot, Template, Using, misuse};
use super::value::tag;
use crate::error::Fail;

/// A prepared text.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prepared {
    Insert(Template),
    Query(Query),
}

/// A text between its question marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query(Vec<String>);

impl Query {
    pub fn parameters(&self) -> usize {
        self.0.len() - 1
    }

    /// The text with values, given as SQL, for its question marks.
    pub fn with_values(&self, values: &[String]) -> String {
        let mut text = self.0[0].clone();
        for (value, piece) in values.iter().zip(&self.0[1..]) {
            text.push_str(value);
            text.push_str(piece);
        }
        text
    }
}

/// Reads a text.
///
/// # Errors
/// The parser's, and [`misuse`] for an INSERT of several tables or rows, which no values can be bound to.
pub(super) fn prepare(sql: &str) -> Result<Prepared, Fail> {
    let failed = |error: tdengine_sql::SyntaxError| Fail::new(error.code.into(), error.message);
    match tdengine_sql::parse(sql).map_err(failed)? {
        Statement::Insert(Insert { broken: Some(broken), .. }) => Err(match broken {
            Broken::Error(error) => failed(error),
            Broken::AfterValue { at } => failed(tdengine_sql::SyntaxError::insert(") expected", &sql[at..])),
        }),
        Statement::Insert(insert) => match <[InsertTable<'_>; 1]>::try_from(insert.tables) {
            Ok([table]) if table.rows.len() == 1 => template(table).map(Prepared::Insert),
            _ => Err(misuse()),
        },
        _ => Ok(Prepared::Query(Query(pieces(sql)))),
    }
}

fn template(table: InsertTable<'_>) -> Result<Template, Fail> {
    let slots = |values: &[ast::Value<'_>]| {
        values.iter().map(|value| slot(&value.literal)).collect::<Result<Vec<_>, _>>()
    };
    let using = table.using.map(|using| {
        let tags = slots(&using.values)?;
        Ok::<_, Fail>(Using { stable: name(using.stable), tag_names: using.tags, tags })
    });
    Ok(Template {
        table: match table.target {
            InsertTarget::Table(table) => Some(name(table)),
            InsertTarget::Parameter => None,
        },
        using: using.transpose()?,
        columns: table.columns,
        values: slots(&table.values)?,
    })
}

fn name(name: ast::Name) -> Name {
    Name { database: name.database, table: name.table }
}

fn slot(literal: &Literal<'_>) -> Result<Slot, Fail> {
    let number = |text: &str| {
        let whole = text.parse::<i64>().map(Json::from).or_else(|_| text.parse::<u64>().map(Json::from));
        whole.or_else(|_| text.parse::<f64>().map(Json::from)).ok()
    };
    let constant = match literal {
        Literal::Parameter => return Ok(Slot::Parameter),
        Literal::Null => Some(Json::Null),
        Literal::Bool(value) => Some(Json::Bool(*value)),
        Literal::Text(text) => Some(unescape(text).into_owned().into()),
        Literal::Number(text) => number(text),
        Literal::Time { .. } | Literal::Duration(_) => None,
    };
    constant.map(Slot::Constant).ok_or_else(|| Fail::new(0x0216, format!("bind {literal:?} instead of writing it")))
}

/// The text around its question marks; those in quotes and comments are none.
fn pieces(sql: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    let (mut start, mut at) = (0, 0);
    while let Some(character) = sql[at..].chars().next() {
        let rest = &sql[at..];
        at += match character {
            '\'' | '"' => quoted(rest, character),
            '`' => rest[1..].find('`').map_or(rest.len(), |end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '?' => {
                pieces.push(sql[start..at].to_owned());
                start = at + 1;
                1
            }
            other => other.len_utf8(),
        };
    }
    pieces.push(sql[start..].to_owned());
    pieces
}

/// Bytes of a quoted text, quotes included. A doubled quote is two texts to this scan, which finds the same marks.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = true;
    for (at, character) in text.char_indices() {
        if !escaped && character == quote {
            return at + 1;
        }
        escaped = !escaped && character == '\\';
    }
    text.len()
}

/// The bytes of a constant of the text; `None` for NULL.
///
/// # Errors
/// When it does not fit the field.
pub(super) fn constant(json: &Json, field: &Field, precision: Precision) -> Result<Option<Vec<u8>>, Fail> {
    tag(field, &vec![json.clone()], 0, precision)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tdengine_wire::{ColumnType, DataType};

    use super::*;

    #[test]
    fn inserts_are_taken_apart() {
        let insert = |sql: &str| match prepare(sql) {
            Ok(Prepared::Insert(template)) => template,
            other => panic!("{sql}: {other:?}"),
        };
        let template = insert("INSERT INTO ? USING db.`St` (t1, T2) TAGS(?, 'a,?)') (ts, v) VALUES (?, 1.5);");
        assert_eq!(template.table, None);
        let using = template.using.unwrap();
        assert_eq!(using.stable, Name { database: Some("db".into()), table: "St".into() });
        assert_eq!(using.tag_names.unwrap(), ["t1", "t2"]);
        assert_eq!(using.tags, [Slot::Parameter, Slot::Constant(json!("a,?)"))]);
        assert_eq!(template.columns.unwrap(), ["ts", "v"]);
        assert_eq!(template.values, [Slot::Parameter, Slot::Constant(json!(1.5))]);
        let template = insert("insert into st(tbname, ts, v) values(?,?,?)");
        assert_eq!(template.columns.unwrap()[0], "tbname");
        for sql in ["insert into ? values", "insert t", "insert into t values (?) (?)", "insert into a values (?) b values (?)"] {
            assert!(prepare(sql).is_err(), "{sql}");
        }
    }

    #[test]
    fn a_query_keeps_its_text_but_for_the_marks() {
        let Prepared::Query(query) = prepare("select '?' , `?` from t where /* ? */ a > ? and b = ?").unwrap() else {
            panic!("a query");
        };
        assert_eq!(query.parameters(), 2);
        let text = query.with_values(&["1".into(), "'x'".into()]);
        assert_eq!(text, "select '?' , `?` from t where /* ? */ a > 1 and b = 'x'");
        assert_eq!(pieces(r"a 'it''s ?' 'q\'?' ?"), [r"a 'it''s ?' 'q\'?' ", ""]);
    }

    #[test]
    fn constants_fit_or_are_refused() {
        let check = |constant_: Json, column_type, expected: Option<Option<&[u8]>>| {
            let field = Field::new("c", column_type, 1);
            let bytes = constant(&constant_, &field, Precision::Milliseconds).ok();
            assert_eq!(bytes.as_ref().map(|bytes| bytes.as_deref()), expected, "{constant_}");
        };
        check(json!(7), ColumnType::of(DataType::TinyInt), Some(Some(&[7])));
        check(json!(700), ColumnType::of(DataType::TinyInt), None);
        check(Json::Null, ColumnType::varchar(3), Some(None));
        check(json!("it's"), ColumnType::varchar(9), Some(Some(b"it's")));
    }
}
