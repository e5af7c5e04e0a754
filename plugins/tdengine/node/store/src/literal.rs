//! From literals of SQL to bytes of columns and tags.

mod decimal;
mod geometry;
#[cfg(test)]
mod tests;
pub(crate) mod time;

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
    /// A point in time, in the precision of the database: `now`, `now + 1s`.
    Time(i64),
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
    /// Writes the value of `literal` for a column or tag of this type behind `out`: little endian for fixed types, without
    /// prefix for variable ones. Answers whether there is a value: `false` for NULL.
    ///
    /// # Errors
    /// 0x0216 for a literal that is no value of the type, 0x2653 for one that is too long.
    pub fn write(&self, literal: Literal<'_>, column_type: ColumnType, name: &str, out: &mut Vec<u8>) -> Result<bool> {
        if literal == Literal::Null {
            return Ok(false);
        }
        match column_type.data_type {
            DataType::Bool => out.push(u8::from(boolean(literal)?)),
            DataType::TinyInt | DataType::SmallInt | DataType::Int | DataType::BigInt => {
                signed(literal, column_type.data_type, out)?;
            }
            DataType::UTinyInt | DataType::USmallInt | DataType::UInt | DataType::UBigInt => {
                unsigned(literal, column_type.data_type, out)?;
            }
            DataType::Float => out.extend_from_slice(&(float(literal, "float")? as f32).to_le_bytes()),
            DataType::Double => out.extend_from_slice(&float(literal, "double")?.to_le_bytes()),
            DataType::Timestamp => out.extend_from_slice(&self.timestamp(literal)?.to_le_bytes()),
            DataType::Decimal | DataType::Decimal64 => decimal::write(text(literal)?, column_type, out)?,
            _ => self.write_variable(literal, column_type, name, out)?,
        }
        Ok(true)
    }

    fn write_variable(
        &self,
        literal: Literal<'_>,
        column_type: ColumnType,
        name: &str,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        let start = out.len();
        let text = text(literal)?;
        match column_type.data_type {
            DataType::Nchar => text.chars().for_each(|character| out.extend_from_slice(&u32::from(character).to_le_bytes())),
            DataType::Varbinary => varbinary(text, out)?,
            DataType::Geometry => geometry::write(text, out)?,
            DataType::Json => json(text, out)?,
            _ => out.extend_from_slice(text.as_bytes()),
        }
        let room = column_type.bytes as usize - column_type.data_type.prefix();
        if out.len() - start > room { Err(ServerError::value_too_long(name)) } else { Ok(()) }
    }

    /// A point in time in the precision of the database.
    ///
    /// # Errors
    /// 0x0216 for a text that is none.
    pub fn timestamp(&self, literal: Literal<'_>) -> Result<i64> {
        match literal {
            Literal::Time(time) => Ok(time),
            Literal::Number(text) => text.parse().map_err(|_| near(text, "invalid timestamp")),
            Literal::Text(text) => match text.parse() {
                Ok(number) => Ok(number),
                Err(_) => time::parse(text, self.precision, self.timezone_offset_s)
                    .ok_or_else(|| near(text, "invalid timestamp")),
            },
            other => Err(near(shown(other), "invalid timestamp")),
        }
    }
}

/// 0x0216 with the place and the reason, as INSERT gives it.
pub(crate) fn near(text: &str, why: &str) -> ServerError {
    ServerError::new(code::INSERT_SYNTAX, format!("syntax error near '{text}' ({why})"))
}

fn shown(literal: Literal<'_>) -> &str {
    match literal {
        Literal::Null => "null",
        Literal::Bool(true) => "true",
        Literal::Bool(false) => "false",
        Literal::Number(text) | Literal::Text(text) => text,
        Literal::Time(_) => "now",
    }
}

fn text(literal: Literal<'_>) -> Result<&str> {
    match literal {
        Literal::Time(_) => Err(near("now", "invalid data or symbol")),
        other => Ok(shown(other)),
    }
}

fn boolean(literal: Literal<'_>) -> Result<bool> {
    match literal {
        Literal::Bool(value) => Ok(value),
        Literal::Text(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Literal::Text(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        Literal::Number(text) | Literal::Text(text) => {
            text.parse::<f64>().map(|number| number != 0.0).map_err(|_| near(text, "invalid bool data"))
        }
        other => Err(near(shown(other), "invalid bool data")),
    }
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

fn signed(literal: Literal<'_>, data_type: DataType, out: &mut Vec<u8>) -> Result<()> {
    let name = data_type.name().to_ascii_lowercase();
    let number = whole(literal).ok_or_else(|| near(shown(literal), &format!("invalid {name} data")))?;
    let width = data_type.width().unwrap_or(8);
    let limit = 1i128 << (width * 8 - 1);
    if !(-limit..limit).contains(&number) {
        return Err(near(shown(literal), &format!("{name} data overflow")));
    }
    out.extend_from_slice(&number.to_le_bytes()[..width]);
    Ok(())
}

fn unsigned(literal: Literal<'_>, data_type: DataType, out: &mut Vec<u8>) -> Result<()> {
    let name = data_type.name().to_ascii_lowercase();
    let name = name.strip_suffix(" unsigned").unwrap_or(&name);
    let number = whole(literal).filter(|number| *number >= 0);
    let number = number.ok_or_else(|| near(shown(literal), &format!("invalid unsigned {name} data")))?;
    let width = data_type.width().unwrap_or(8);
    if number >= 1i128 << (width * 8) {
        return Err(near(shown(literal), &format!("unsigned {name} data overflow")));
    }
    out.extend_from_slice(&number.to_le_bytes()[..width]);
    Ok(())
}

fn whole(literal: Literal<'_>) -> Option<i128> {
    match literal {
        Literal::Number(text) | Literal::Text(text) => integer(text),
        Literal::Bool(value) => Some(i128::from(value)),
        Literal::Time(time) => Some(i128::from(time)),
        Literal::Null => None,
    }
}

fn float(literal: Literal<'_>, name: &str) -> Result<f64> {
    let number = match literal {
        Literal::Number(text) | Literal::Text(text) => {
            text.parse::<f64>().ok().or_else(|| integer(text).map(|number| number as f64))
        }
        Literal::Bool(value) => Some(f64::from(u8::from(value))),
        Literal::Time(_) | Literal::Null => None,
    };
    number.filter(|number| number.is_finite()).ok_or_else(|| near(shown(literal), &format!("illegal {name} data")))
}

/// `\x00FF` as the bytes that it shows; any other text as its own bytes.
fn varbinary(text: &str, out: &mut Vec<u8>) -> Result<()> {
    match text.strip_prefix("\\x").or_else(|| text.strip_prefix("\\X")) {
        Some(digits) => hexadecimal(digits, out).ok_or_else(|| near(text, "invalid varbinary data")),
        None => {
            out.extend_from_slice(text.as_bytes());
            Ok(())
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

fn json(text: &str, out: &mut Vec<u8>) -> Result<()> {
    let is_object = text.is_empty()
        || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text).is_ok();
    if !is_object {
        return Err(near(text, "json parse error"));
    }
    out.extend_from_slice(text.as_bytes());
    Ok(())
}
