//! What stands in a statement as it is: numbers, patterns, types.

use regex::Regex;
use tdengine_sql::ast::TypeName;
use tdengine_wire::{ColumnType, DataType};

use super::{BIGINT, Bound, DOUBLE, Typed};
use crate::error::{Result, ServerError, code};
use crate::query::cell::Cell;

/// A regular expression, equal to another by its text.
#[derive(Clone, Debug)]
pub(in crate::query) struct Pattern(Regex);

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Pattern {
    pub fn new(text: &str) -> Result<Self> {
        let wrong = |_| ServerError::new(code::OPERATION_NOT_SUPPORTED, "Operation not supported");
        Regex::new(text).map(Self).map_err(wrong)
    }

    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

pub(super) fn number(text: &str) -> Result<Typed> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let radix = match digits.get(..2) {
        Some("0x" | "0X") => Some(16),
        Some("0b" | "0B") => Some(2),
        _ => None,
    };
    let integer = match radix {
        Some(radix) => i128::from_str_radix(&digits[2..], radix).ok(),
        None => digits.parse::<i128>().ok(),
    };
    if let Some(integer) = integer {
        let integer = if negative { -integer } else { integer };
        if let Ok(value) = i64::try_from(integer) {
            return Ok((Bound::Constant(Cell::Int(value)), BIGINT));
        }
        if let Ok(value) = u64::try_from(integer) {
            return Ok((Bound::Constant(Cell::UInt(value)), ColumnType::of(DataType::UBigInt)));
        }
    }
    let value: f64 = text.parse().map_err(|_| near(text))?;
    Ok((Bound::Constant(Cell::Double(value)), DOUBLE))
}

pub(super) fn near(text: &str) -> ServerError {
    ServerError::new(code::SYNTAX, format!("syntax error near \"{text}\""))
}

/// A type as SQL names it.
pub(crate) fn cast_type(name: &TypeName, from: ColumnType) -> ColumnType {
    let data_type = DataType::from_name(name.name).unwrap_or(DataType::Varchar);
    match (name.length, data_type) {
        (Some(length), _) if data_type.is_variable() => ColumnType::sized(data_type, length),
        (None, _) if data_type.is_variable() => ColumnType::sized(data_type, from.capacity().unwrap_or(64).max(64)),
        (Some(precision), DataType::Decimal) => ColumnType::decimal(precision as u8, name.scale.unwrap_or(0) as u8),
        _ => ColumnType::of(data_type),
    }
}
