//! From literals of SQL to bytes of columns and tags.

mod decimal;
mod geometry;
#[cfg(test)]
mod tests;
pub(crate) mod time;

use tdengine_sql::error::{insert_near, statement_shown};
use tdengine_wire::{ColumnType, DataType, Precision};

use crate::error::{Result, ServerError, code};

/// A literal as the parser leaves it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Literal<'a> {
    Null,
    Bool(bool),
    /// Digits as they stand in the text, sign included.
    Number(&'a str),
    /// The text without quotes and escapes.
    Text(&'a str),
    /// A word that is a value of texts alone: `now`, `10s`.
    Word(&'a str),
    /// A point in time, in the precision of the database: `now`, `now + 1s`.
    Time(i64),
}

/// A literal with what errors show of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    pub literal: Literal<'a>,
    pub shown: Shown<'a>,
}

/// What an error shows of a literal.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Shown<'a> {
    /// It alone: a string, or any literal outside of INSERT.
    Alone(&'a str),
    /// The statement from there on.
    Rest(&'a str),
}

impl Given<'_> {
    pub fn refused(&self, why: &str) -> ServerError {
        match self.shown {
            Shown::Alone(text) => near(text, why),
            Shown::Rest(rest) => near(&statement_shown(rest), why),
        }
    }
}

/// What a literal means depends on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context {
    /// Unit of the database.
    pub precision: Precision,
    /// Seconds east of UTC, for times without a zone.
    pub timezone_offset_s: i32,
}

impl Context {
    /// Writes the value of a literal for a column or tag of this type behind `out`: little endian for fixed types, without
    /// prefix for variable ones. Answers whether there is a value: `false` for NULL, which the text `null` is as well where texts are
    /// no values.
    ///
    /// # Errors
    /// 0x0216 for a literal that is no value of the type, 0x2653 for one that is too long, 0x266A for no bytes.
    pub fn write(&self, given: Given<'_>, column_type: ColumnType, name: &str, out: &mut Vec<u8>) -> Result<bool> {
        let data_type = column_type.data_type;
        let is_null = match given.literal {
            Literal::Null => true,
            Literal::Text(text) => {
                !matches!(data_type, DataType::Varchar | DataType::Nchar | DataType::Varbinary) && text.eq_ignore_ascii_case("null")
            }
            _ => false,
        };
        if is_null {
            return Ok(false);
        }
        match data_type {
            DataType::Bool => out.push(u8::from(boolean(given)?)),
            DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => signed(given, data_type, out)?,
            DataType::UTinyInt | DataType::USmallInt | DataType::UInt | DataType::UBigInt => unsigned(given, data_type, out)?,
            DataType::Float => {
                let number = float(given)? as f32;
                if !number.is_finite() {
                    return Err(given.refused("illegal float data"));
                }
                out.extend_from_slice(&number.to_le_bytes());
            }
            DataType::Double => out.extend_from_slice(&float(given)?.to_le_bytes()),
            DataType::Timestamp => out.extend_from_slice(&self.timestamp(given)?.to_le_bytes()),
            DataType::Decimal | DataType::Decimal64 => decimal::write(text(given)?, column_type, out)?,
            _ => self.write_variable(given, column_type, name, out)?,
        }
        Ok(true)
    }

    fn write_variable(&self, given: Given<'_>, column_type: ColumnType, name: &str, out: &mut Vec<u8>) -> Result<()> {
        let start = out.len();
        match column_type.data_type {
            DataType::Nchar => {
                text(given)?.chars().for_each(|character| out.extend_from_slice(&u32::from(character).to_le_bytes()));
            }
            DataType::Varbinary => varbinary(given, out).ok_or_else(|| ServerError::invalid_varbinary(name))?,
            DataType::Geometry => geometry::write(text(given)?, out)?,
            DataType::Json => json(given, out)?,
            _ => out.extend_from_slice(text(given)?.as_bytes()),
        }
        let room = column_type.bytes as usize - column_type.data_type.prefix();
        if out.len() - start > room { Err(ServerError::value_too_long(name)) } else { Ok(()) }
    }

    /// A point in time in the precision of the database.
    ///
    /// # Errors
    /// 0x0216 for a text that is none.
    pub fn timestamp(&self, given: Given<'_>) -> Result<i64> {
        let time = match given.literal {
            Literal::Time(time) => Some(time),
            Literal::Number(text) => whole(text),
            Literal::Text(text) => match text.parse() {
                Ok(number) => Some(number),
                Err(_) => time::parse(text, self.precision, self.timezone_offset_s),
            },
            _ => None,
        };
        time.ok_or_else(|| given.refused("invalid timestamp"))
    }
}

/// 0x0216 with the place and the reason, as INSERT gives it.
pub(crate) fn near(shown: &str, why: &str) -> ServerError {
    ServerError::new(code::INSERT_SYNTAX, insert_near(shown, why))
}

fn text(given: Given<'_>) -> Result<&str> {
    match given.literal {
        Literal::Bool(true) => Ok("true"),
        Literal::Bool(false) => Ok("false"),
        Literal::Number(text) | Literal::Text(text) | Literal::Word(text) => Ok(text),
        Literal::Null | Literal::Time(_) => Err(given.refused("invalid data or symbol")),
    }
}

fn boolean(given: Given<'_>) -> Result<bool> {
    let value = match given.literal {
        Literal::Bool(value) => Some(value),
        Literal::Text(text) if text.eq_ignore_ascii_case("true") => Some(true),
        Literal::Text(text) if text.eq_ignore_ascii_case("false") => Some(false),
        Literal::Number(text) | Literal::Text(text) => {
            let number = text.parse::<f64>().ok().map(|number| number != 0.0);
            number.or_else(|| integer(text).map(|number| number != 0))
        }
        _ => None,
    };
    value.ok_or_else(|| given.refused("invalid bool data"))
}

/// A number without fraction.
fn whole(text: &str) -> Option<i64> {
    let is_plain = !text.contains('.') && (text.contains(['x', 'X']) || !text.contains(['e', 'E']));
    integer(text).filter(|_| is_plain).and_then(|number| i64::try_from(number).ok())
}

/// A whole number: decimal, `0x…`, `0b…`, or a fraction, which is rounded.
fn integer(text: &str) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let magnitude = match lower.as_deref() {
        Some("0x") => i128::from_str_radix(&digits[2..], 16).ok(),
        Some("0b") => i128::from_str_radix(&digits[2..], 2).ok(),
        _ if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
        _ => digits.parse::<f64>().ok().filter(|number| number.abs() < 1e30).map(|number| number.round() as i128),
    };
    magnitude.map(|magnitude| sign * magnitude)
}

fn signed(given: Given<'_>, data_type: DataType, out: &mut Vec<u8>) -> Result<()> {
    let name = data_type.name().to_ascii_lowercase();
    let number = number(given).and_then(|number| i64::try_from(number).ok());
    let number = number.ok_or_else(|| given.refused(&format!("invalid {name} data")))?;
    let width = data_type.width().unwrap_or(8);
    let limit = 1i128 << (width * 8 - 1);
    if !(-limit..limit).contains(&i128::from(number)) {
        return Err(given.refused(&format!("{name} data overflow")));
    }
    out.extend_from_slice(&number.to_le_bytes()[..width]);
    Ok(())
}

fn unsigned(given: Given<'_>, data_type: DataType, out: &mut Vec<u8>) -> Result<()> {
    let name = data_type.name().to_ascii_lowercase();
    let name = name.strip_suffix(" unsigned").unwrap_or(&name);
    let number = number(given).and_then(|number| u64::try_from(number).ok());
    let number = number.ok_or_else(|| given.refused(&format!("invalid unsigned {name} data")))?;
    let width = data_type.width().unwrap_or(8);
    if i128::from(number) >= 1i128 << (width * 8) {
        return Err(given.refused(&format!("unsigned {name} data overflow")));
    }
    out.extend_from_slice(&number.to_le_bytes()[..width]);
    Ok(())
}

fn number(given: Given<'_>) -> Option<i128> {
    match given.literal {
        Literal::Number(text) | Literal::Text(text) => integer(text),
        _ => None,
    }
}

/// One that is too large or too small for a double is refused.
fn float(given: Given<'_>) -> Result<f64> {
    let parse = |text: &str| {
        let is_too_small = |number: f64| {
            let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
            number == 0.0 && mantissa.contains(|digit: char| digit.is_ascii_digit() && digit != '0')
        };
        match text.parse::<f64>() {
            Ok(number) => Some(number).filter(|number| number.is_finite() && !is_too_small(*number)),
            Err(_) => integer(text).map(|number| number as f64),
        }
    };
    let number = match given.literal {
        Literal::Number(text) | Literal::Text(text) => parse(text),
        _ => None,
    };
    number.ok_or_else(|| given.refused("illegal float data"))
}

/// `\x00FF` as the bytes that it shows; any other text as its own bytes.
fn varbinary(given: Given<'_>, out: &mut Vec<u8>) -> Option<()> {
    let Literal::Text(text) = given.literal else { return None };
    match text.strip_prefix("\\x").or_else(|| text.strip_prefix("\\X")) {
        Some(digits) => hexadecimal(digits, out),
        None => {
            out.extend_from_slice(text.as_bytes());
            Some(())
        }
    }
}

fn hexadecimal(digits: &str, out: &mut Vec<u8>) -> Option<()> {
    if !digits.len().is_multiple_of(2) || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for place in (0..digits.len()).step_by(2) {
        out.push(u8::from_str_radix(&digits[place..place + 2], 16).ok()?);
    }
    Some(())
}

fn json(given: Given<'_>, out: &mut Vec<u8>) -> Result<()> {
    let text = text(given)?;
    if !text.is_empty() {
        let value = serde_json::from_str::<serde_json::Value>(text).map_err(|_| given.refused("json parse error"))?;
        if !value.is_object() {
            return Err(given.refused("json error invalide value"));
        }
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}
