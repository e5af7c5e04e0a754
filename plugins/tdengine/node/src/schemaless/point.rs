//! One measurement, whichever protocol it came by, and the table that it belongs to.

use std::fmt::Write as _;

use md5::{Digest, Md5};
use tdengine_wire::value::nchar_bytes;
use tdengine_wire::{ColumnType, DataType, Precision};

use crate::error::Fail;

/// A value with the type that its text asks for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell {
    Bool(bool),
    /// Any signed or unsigned integer type.
    Integer(DataType, i128),
    Float(f32),
    Double(f64),
    Varchar(String),
    Nchar(String),
    Varbinary(Vec<u8>),
}

/// When it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Time {
    Now,
    Nanoseconds(i128),
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Point {
    pub measurement: String,
    pub tags: Vec<(String, Cell)>,
    pub fields: Vec<(String, Cell)>,
    pub time: Time,
}

impl Cell {
    pub fn data_type(&self) -> DataType {
        match self {
            Self::Bool(_) => DataType::Bool,
            Self::Integer(data_type, _) => *data_type,
            Self::Float(_) => DataType::Float,
            Self::Double(_) => DataType::Double,
            Self::Varchar(_) => DataType::Varchar,
            Self::Nchar(_) => DataType::Nchar,
            Self::Varbinary(_) => DataType::Varbinary,
        }
    }

    /// The type of a column that can hold it: variable ones get the next power of two above their bytes, as the real
    /// server chooses it (recording e2).
    pub fn column_type(&self) -> ColumnType {
        /// Longest VARCHAR and NCHAR that a column can have.
        const BYTES_MAX: usize = 65_517;
        const CHARACTERS_MAX: usize = 16_379;
        let room = |bytes: usize, max: usize| (bytes + 1).next_power_of_two().min(max) as u32;
        match self {
            Self::Varchar(text) => ColumnType::varchar(room(text.len(), BYTES_MAX)),
            Self::Nchar(text) => ColumnType::nchar(room(text.len(), CHARACTERS_MAX)),
            Self::Varbinary(bytes) => ColumnType::sized(DataType::Varbinary, room(bytes.len(), BYTES_MAX)),
            other => ColumnType::of(other.data_type()),
        }
    }

    /// The bytes of the value as blocks and tags hold it, without a length prefix.
    pub fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Bool(value) => vec![u8::from(*value)],
            Self::Integer(data_type, value) => value.to_le_bytes()[..data_type.width().unwrap_or(8)].to_vec(),
            Self::Float(value) => value.to_le_bytes().to_vec(),
            Self::Double(value) => value.to_le_bytes().to_vec(),
            Self::Varchar(text) => text.clone().into_bytes(),
            Self::Nchar(text) => nchar_bytes(text),
            Self::Varbinary(bytes) => bytes.clone(),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Bool(value) => value.to_string(),
            Self::Integer(_, value) => value.to_string(),
            Self::Float(value) => value.to_string(),
            Self::Double(value) => value.to_string(),
            Self::Varchar(text) | Self::Nchar(text) => text.clone(),
            Self::Varbinary(bytes) => bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
        }
    }
}

impl Time {
    /// From a number in a unit of so many nanoseconds.
    pub fn in_unit(value: i64, unit_ns: i128) -> Self {
        Self::Nanoseconds(i128::from(value) * unit_ns)
    }

    /// In the precision of the database.
    ///
    /// # Errors
    /// 0x060B when it does not fit.
    pub fn in_precision(self, precision: Precision) -> Result<i64, Fail> {
        let nanoseconds = match self {
            Self::Nanoseconds(nanoseconds) => nanoseconds,
            Self::Now => jiff::Timestamp::now().as_nanosecond(),
        };
        let unit = 1_000_000_000 / i128::from(precision.per_second());
        i64::try_from(nanoseconds.div_euclid(unit)).map_err(|_| Fail::new(0x060B, "Timestamp data out of range"))
    }
}

impl Point {
    /// Name of the super table: dots become underscores.
    pub fn stable(&self) -> String {
        self.measurement.replace('.', "_")
    }

    /// Name of the child: `t_` and the MD5 of super table and sorted tags (recording e2), or what the tag `name_key`
    /// says, which is no tag then.
    pub fn child(&mut self, name_key: Option<&str>) -> String {
        let named = name_key.and_then(|key| self.tags.iter().position(|(tag, _)| tag == key));
        if let Some(at) = named {
            return self.tags.remove(at).1.text();
        }
        let mut tags: Vec<(&String, String)> = self.tags.iter().map(|(name, cell)| (name, cell.text())).collect();
        tags.sort();
        let mut digest = Md5::new();
        digest.update(self.stable());
        for (name, value) in tags {
            digest.update(format!(",{name}={value}"));
        }
        digest.finalize().iter().fold(String::from("t_"), |mut name, byte| {
            let _ = write!(name, "{byte:02x}");
            name
        })
    }
}

/// Nanoseconds of a precision as `insert` names it. The empty one and those that do not exist count as `ns`
/// (recording e2).
pub(super) fn unit_ns(precision: &str) -> i128 {
    match precision {
        "h" => 3_600_000_000_000,
        "m" => 60_000_000_000,
        "s" => 1_000_000_000,
        "ms" => 1_000_000,
        "us" | "u" => 1_000,
        _ => 1,
    }
}

/// 0x3002 with the text of the parser.
pub(super) fn invalid(why: impl Into<String>) -> Fail {
    Fail::new(0x3002, why.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_named_as_the_real_server_names_them() {
        let check = |tags: &[(&str, &str)], name: &str| {
            let tags = tags.iter().map(|(name, value)| ((*name).to_owned(), Cell::Nchar((*value).to_owned()))).collect();
            let mut point = Point { measurement: "meas".into(), tags, fields: Vec::new(), time: Time::Now };
            assert_eq!(point.child(None), name);
        };
        check(&[("host", "h1"), ("reg", "r1")], "t_d247cfc56fac17636867cfd69aab1b00");
        check(&[("host", "h1"), ("reg", "r1"), ("newtag", "z")], "t_9f476091bb72f32264edce918cd85ea6");
        check(&[("host", "h2")], "t_fe5bbf0c2b190938dbf7fb60384cd9b1");
    }

    #[test]
    fn a_tag_may_name_the_child_and_is_none_then() {
        let tags = [("host", "h1"), ("name", "mine")].map(|(name, value)| (name.to_owned(), Cell::Nchar(value.to_owned())));
        let mut point = Point { measurement: "m".into(), tags: tags.to_vec(), fields: Vec::new(), time: Time::Now };
        assert_eq!(point.child(Some("name")), "mine");
        assert_eq!(point.tags, tags[..1]);
        assert!(point.child(Some("name")).starts_with("t_"), "without that tag as ever");
    }

    #[test]
    fn columns_get_the_next_power_of_two() {
        let check = |cell: Cell, capacity| assert_eq!(cell.column_type().capacity(), Some(capacity), "{cell:?}");
        check(Cell::Varchar("str".into()), 4);
        check(Cell::Nchar("涛".into()), 4);
        check(Cell::Nchar("z".into()), 2);
        check(Cell::Nchar("h1".into()), 4);
        check(Cell::Varchar("four".into()), 8);
    }
}
