//! Scalar functions.

use tdengine_wire::{ColumnType, DataType};

use super::bind::{BIGINT, DOUBLE, TIMESTAMP};
use super::cell::Cell;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Length,
    /// `length` of an NCHAR: four bytes a character.
    NcharLength,
    CharLength,
    Lower,
    Upper,
    Concat,
    Ltrim,
    Rtrim,
    Substr,
    Abs,
    Ceil,
    Floor,
    Round,
    Sqrt,
    Pow,
    Log,
    ToTimestamp,
    ToIso8601,
    TimeTruncate,
    Md5,
}

impl Function {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "length" => Self::Length,
            "char_length" => Self::CharLength,
            "lower" => Self::Lower,
            "upper" => Self::Upper,
            "concat" => Self::Concat,
            "ltrim" => Self::Ltrim,
            "rtrim" => Self::Rtrim,
            "substr" | "substring" => Self::Substr,
            "abs" => Self::Abs,
            "ceil" => Self::Ceil,
            "floor" => Self::Floor,
            "round" => Self::Round,
            "sqrt" => Self::Sqrt,
            "pow" => Self::Pow,
            "log" => Self::Log,
            "to_unixtimestamp" => Self::ToTimestamp,
            "to_iso8601" => Self::ToIso8601,
            "timetruncate" => Self::TimeTruncate,
            "md5" => Self::Md5,
            _ => return None,
        })
    }

    /// The function for arguments of these types.
    pub fn of(self, arguments: &[ColumnType]) -> Self {
        match self {
            Self::Length if arguments[0].data_type == DataType::Nchar => Self::NcharLength,
            other => other,
        }
    }

    /// Fewest and most arguments.
    pub fn arity(self) -> (usize, usize) {
        match self {
            Self::Concat => (2, 8),
            Self::Substr => (2, 3),
            Self::Log => (1, 2),
            Self::Pow => (2, 2),
            Self::Round | Self::ToTimestamp | Self::ToIso8601 => (1, 2),
            Self::TimeTruncate => (2, 3),
            _ => (1, 1),
        }
    }

    pub fn result(self, arguments: &[ColumnType]) -> ColumnType {
        let first = arguments[0];
        match self {
            Self::Length | Self::NcharLength | Self::CharLength | Self::ToTimestamp => BIGINT,
            Self::Lower | Self::Upper | Self::Ltrim | Self::Rtrim | Self::Substr => first,
            Self::Concat => {
                // A real server adds up widths with their length prefixes, but for one.
                let width = |argument: &ColumnType| argument.capacity().unwrap_or(0) + 2;
                let total = arguments.iter().map(width).sum::<u32>().saturating_sub(2);
                let nchar = arguments.iter().any(|argument| argument.data_type == DataType::Nchar);
                if nchar { ColumnType::nchar(total) } else { ColumnType::varchar(total) }
            }
            Self::Abs | Self::Ceil | Self::Floor | Self::Round => first,
            Self::Sqrt | Self::Pow | Self::Log => DOUBLE,
            Self::ToIso8601 => ColumnType::varchar(64),
            Self::TimeTruncate => TIMESTAMP,
            Self::Md5 => ColumnType::varchar(32),
        }
    }

    pub fn call(self, arguments: &[Cell]) -> Cell {
        if arguments.iter().any(Cell::is_null) {
            return Cell::Null;
        }
        let first = &arguments[0];
        let text = || first.shown();
        let second = || arguments.get(1).and_then(Cell::as_f64);
        match self {
            Self::Length => match first {
                Cell::Text(bytes) | Cell::Bytes(bytes) => Cell::Int(bytes.len() as i64),
                other => Cell::Int(other.shown().len() as i64),
            },
            Self::NcharLength => Cell::Int(4 * text().chars().count() as i64),
            Self::CharLength => Cell::Int(text().chars().count() as i64),
            Self::Lower => Cell::text(text().to_lowercase()),
            Self::Upper => Cell::text(text().to_uppercase()),
            Self::Concat => Cell::text(arguments.iter().map(Cell::shown).collect::<String>()),
            Self::Ltrim => Cell::text(text().trim_start()),
            Self::Rtrim => Cell::text(text().trim_end()),
            Self::Substr => substr(&text(), arguments),
            Self::Abs => match first {
                Cell::Int(value) => Cell::Int(value.wrapping_abs()),
                other => number(other, f64::abs),
            },
            Self::Ceil => rounded(first, f64::ceil),
            Self::Floor => rounded(first, f64::floor),
            Self::Round => rounded(first, f64::round),
            Self::Sqrt => number(first, f64::sqrt),
            Self::Pow => match (first.as_f64(), second()) {
                (Some(base), Some(exponent)) => Cell::Double(base.powf(exponent)),
                _ => Cell::Null,
            },
            Self::Log => match (first.as_f64(), second()) {
                (Some(value), Some(base)) => Cell::Double(value.log(base)),
                (Some(value), None) => Cell::Double(value.ln()),
                _ => Cell::Null,
            },
            Self::ToTimestamp => first.as_i64().map_or(Cell::Null, Cell::Int),
            Self::ToIso8601 => Cell::text(text()),
            Self::TimeTruncate => match (first.as_i64(), arguments[1].as_i64()) {
                (Some(time), Some(unit)) if unit > 0 => Cell::Time(time.div_euclid(unit) * unit),
                _ => Cell::Null,
            },
            Self::Md5 => match first {
                Cell::Text(bytes) | Cell::Bytes(bytes) => Cell::text(md5_hex(bytes)),
                other => Cell::text(md5_hex(other.shown().as_bytes())),
            },
        }
    }
}

fn md5_hex(bytes: &[u8]) -> String {
    use md5::{Digest, Md5};
    Md5::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(cell: &Cell, compute: fn(f64) -> f64) -> Cell {
    cell.as_f64().map_or(Cell::Null, |value| Cell::Double(compute(value)))
}

fn rounded(cell: &Cell, compute: fn(f64) -> f64) -> Cell {
    match cell {
        Cell::Int(_) | Cell::UInt(_) => cell.clone(),
        other => number(other, compute),
    }
}

fn substr(text: &str, arguments: &[Cell]) -> Cell {
    let characters: Vec<char> = text.chars().collect();
    let start = arguments[1].as_i64().unwrap_or(1);
    let start = if start > 0 { start as usize - 1 } else { characters.len().saturating_sub(start.unsigned_abs() as usize) };
    let length = arguments.get(2).and_then(Cell::as_i64).map_or(usize::MAX, |length| length.max(0) as usize);
    Cell::text(characters.into_iter().skip(start).take(length).collect::<String>())
}

/// LIKE without regard to case: `%` any characters, `_` one, `\` the next one itself.
pub(super) fn like(text: &str, pattern: &str) -> bool {
    let text: Vec<char> = text.to_lowercase().chars().collect();
    let pattern: Vec<char> = pattern.to_lowercase().chars().collect();
    // Where to go on after the last `%` when what follows it does not fit.
    let (mut t, mut p, mut retry) = (0, 0, None);
    while t < text.len() {
        let (literal, width) = match pattern.get(p) {
            Some('\\') if p + 1 < pattern.len() => (Some(pattern[p + 1]), 2),
            Some('%') => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            Some('_') => (Some(text[t]), 1),
            Some(other) => (Some(*other), 1),
            None => (None, 0),
        };
        if literal == Some(text[t]) {
            t += 1;
            p += width;
        } else if let Some((after, from)) = retry {
            (p, t) = (after, from + 1);
            retry = Some((after, from + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|character| *character == '%')
}

/// `tag -> 'key'`
pub(super) fn json_member(json: &Cell, key: &Cell) -> Cell {
    let value = serde_json::from_str::<serde_json::Value>(&json.shown()).ok();
    match value.as_ref().and_then(|value| value.get(key.shown())) {
        None | Some(serde_json::Value::Null) => Cell::Null,
        Some(serde_json::Value::String(text)) => Cell::text(text.as_str()),
        Some(serde_json::Value::Bool(value)) => Cell::Bool(*value),
        Some(serde_json::Value::Number(number)) => number.as_f64().map_or(Cell::Null, Cell::Double),
        Some(other) => Cell::text(other.to_string()),
    }
}
