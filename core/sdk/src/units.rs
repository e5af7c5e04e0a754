//! Durations (`10ms`, `1m 30s`), byte sizes (`64MiB`) and types of columns (`double`, `timestamp[ms]`) as people write them.
//!
//! What [`format_duration`] and [`format_bytes`] print reads back as the same value.

use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};

/// Unit names with their length in nanoseconds, longest first.
const DURATIONS: [(&str, u64); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Unit names with their size in bytes, largest first.
const SIZES: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Reads `30s`, `1.5h` or `1m 30s`.
///
/// # Errors
/// What is wrong with the text, without its place.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration; write a number and one of d, h, m, s, ms, us, ns, such as `30s`");
    sum(text, &DURATIONS).map(Duration::from_nanos).ok_or_else(wrong)
}

/// Reads `10GiB` or `500 MB`.
///
/// # Errors
/// What is wrong with the text, without its place.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("`{text}` is no size; write a number and one of B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, such as `64MiB`")
    };
    sum(text, &SIZES).ok_or_else(wrong)
}

pub fn format_duration(duration: Duration) -> String {
    format(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX), &DURATIONS, "0s")
}

pub fn format_bytes(bytes: u64) -> String {
    // One unit: the one that divides the value and leaves the smallest number.
    let exact = SIZES.iter().filter(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size));
    match exact.max_by_key(|(_, size)| *size) {
        Some((unit, size)) => format!("{}{unit}", bytes / size),
        None => "0B".into(),
    }
}

/// Names of types beside Arrow's own.
const DATA_TYPES: [(&str, DataType); 10] = [
    ("bool", DataType::Boolean),
    ("int", DataType::Int64),
    ("double", DataType::Float64),
    ("text", DataType::Utf8),
    ("binary", DataType::Binary),
    ("date", DataType::Date32),
    ("timestamp[s]", DataType::Timestamp(TimeUnit::Second, None)),
    ("timestamp[ms]", DataType::Timestamp(TimeUnit::Millisecond, None)),
    ("timestamp[us]", DataType::Timestamp(TimeUnit::Microsecond, None)),
    ("timestamp[ns]", DataType::Timestamp(TimeUnit::Nanosecond, None)),
];

/// Reads `double`, `timestamp[ms]` or the name of an Arrow type such as `Int16`.
///
/// # Errors
/// What is wrong with the text, without its place.
pub fn parse_data_type(text: &str) -> Result<DataType, String> {
    if let Some((_, known)) = DATA_TYPES.iter().find(|(name, _)| *name == text) {
        return Ok(known.clone());
    }
    text.parse().map_err(|_| {
        let known: Vec<&str> = DATA_TYPES.iter().map(|(name, _)| *name).collect();
        format!("`{text}` is no type; write one of {}, or an Arrow type such as `Int16`", known.join(", "))
    })
}

fn format(mut value: u64, units: &[(&str, u64)], zero: &str) -> String {
    let mut parts = Vec::new();
    for (unit, size) in units {
        if value >= *size {
            parts.push(format!("{}{unit}", value / size));
            value %= size;
        }
    }
    if parts.is_empty() { zero.into() } else { parts.join(" ") }
}

/// The sum of terms `NUMBER UNIT`, or a lone `0`; `None` where the text is anything else or does not fit.
fn sum(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let tail = tail.trim_start();
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let size = units.iter().find(|(name, _)| *name == unit)?.1;
        total = total.checked_add(scaled(number, size)?)?;
        rest = tail.trim_start();
    }
    Some(total)
}

fn scaled(number: &str, size: u64) -> Option<u64> {
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(size);
    }
    let value = number.parse::<f64>().ok()? * size as f64;
    (value < u64::MAX as f64).then_some(value as u64)
}

/// `#[serde(with = "units::duration")]`
pub mod duration {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `#[serde(with = "units::optional_duration", skip_serializing_if = "Option::is_none")]`
pub mod optional_duration {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&format_duration(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_duration(&text).map_err(D::Error::custom)).transpose()
    }
}

/// `#[serde(with = "units::bytes")]`
pub mod bytes {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format_bytes(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        parse_bytes(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// `#[serde(default, with = "units::optional_bytes", skip_serializing_if = "Option::is_none")]`
pub mod optional_bytes {
    use super::*;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.serialize_some(&format_bytes(*value)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| parse_bytes(&text).map_err(D::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_print() {
        let check = |text: &str, nanos: u64, printed: &str| {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_nanos(nanos), "{text}");
            assert_eq!(format_duration(duration), printed);
            assert_eq!(parse_duration(printed).unwrap(), duration);
        };
        check("10ms", 10_000_000, "10ms");
        check("1.5h", 5_400_000_000_000, "1h 30m");
        check("1m 30s", 90_000_000_000, "1m 30s");
        check("1m30s", 90_000_000_000, "1m 30s");
        check("0s", 0, "0s");
        check("0", 0, "0s");
        for wrong in ["", "10", "s", "10 parsecs", "-1s", "1s,", "999999999999d", "1e3s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes_read_and_print() {
        let check = |text: &str, bytes: u64, printed: &str| {
            assert_eq!(parse_bytes(text).unwrap(), bytes, "{text}");
            assert_eq!(format_bytes(bytes), printed);
            assert_eq!(parse_bytes(printed).unwrap(), bytes);
        };
        check("64MiB", 64 << 20, "64MiB");
        check("10 GB", 10_000_000_000, "10GB");
        check("1.5KiB", 1_536, "1536B");
        check("0B", 0, "0B");
        for wrong in ["", "64", "64M", "GiB", "99999999TiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
