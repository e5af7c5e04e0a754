//! Scalars that clients send as string, number or boolean alike (PROTOCOL 6.2).

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A scalar whose JSON kind is kept, because the server treats `"1"`, `1` and `true` differently (FACTS F4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scalar {
    /// A JSON string.
    Text(String),
    /// A JSON number in its shortest form.
    Number(String),
    /// A JSON boolean.
    Bool(bool),
}

impl Scalar {
    /// The value as text: `1`, `true`, `earliest`.
    pub fn as_text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Number(text) => text,
            Self::Bool(true) => "true",
            Self::Bool(false) => "false",
        }
    }

    /// Whether it is a JSON number.
    pub fn is_number(&self) -> bool {
        matches!(self, Self::Number(_))
    }
}

impl From<&str> for Scalar {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl Serialize for Scalar {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Number(text) => match (text.parse::<i64>(), text.parse::<u64>(), text.parse::<f64>()) {
                (Ok(value), ..) => serializer.serialize_i64(value),
                (_, Ok(value), _) => serializer.serialize_u64(value),
                (.., Ok(value)) => serializer.serialize_f64(value),
                _ => serializer.serialize_str(text),
            },
        }
    }
}

struct ScalarVisitor;

impl Visitor<'_> for ScalarVisitor {
    type Value = Scalar;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a string, a number or a boolean")
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(value.to_owned()))
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value.to_string()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value.to_string()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value.to_string()))
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// A number given as a number, a string of one, or null (which is the default).
fn lenient<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: std::str::FromStr + Default,
{
    match Option::<Scalar>::deserialize(deserializer)? {
        None => Ok(T::default()),
        Some(Scalar::Text(text)) if text.is_empty() => Ok(T::default()),
        Some(scalar) => {
            let text = scalar.as_text();
            text.parse().map_err(|_| de::Error::custom(format!("{text:?} is no number in range")))
        }
    }
}

/// For `deserialize_with`: see [`lenient`].
pub fn u64_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    lenient(deserializer)
}

/// For `deserialize_with`: see [`lenient`].
pub fn i64_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    lenient(deserializer)
}

/// For `deserialize_with`: see [`lenient`].
pub fn i32_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i32, D::Error> {
    lenient(deserializer)
}

/// For `deserialize_with`: text given as a string, number or boolean; null is empty.
pub fn text_or_default<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(match Option::<Scalar>::deserialize(deserializer)? {
        None => String::new(),
        Some(Scalar::Text(text) | Scalar::Number(text)) => text,
        Some(Scalar::Bool(value)) => value.to_string(),
    })
}
