//! GEOMETRY literals: points, lines and polygons as text (WKT), or any geometry as `\x` and the digits of its WKB.

use super::{hexadecimal, near};
use crate::error::Result;

/// Writes `text` as little-endian WKB.
pub(super) fn write(text: &str, out: &mut Vec<u8>) -> Result<()> {
    if let Some(digits) = text.strip_prefix("\\x") {
        return hexadecimal(digits, out).ok_or_else(|| near(text, "invalid geometry data"));
    }
    parse(text, out).ok_or_else(|| near(text, "invalid geometry data"))
}

fn parse(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let (kind, rest) = text.trim().split_once('(')?;
    let body = rest.trim_end().strip_suffix(')')?;
    let code: u32 = match kind.trim().to_ascii_uppercase().as_str() {
        "POINT" => 1,
        "LINESTRING" => 2,
        "POLYGON" => 3,
        _ => return None,
    };
    out.push(1);
    out.extend_from_slice(&code.to_le_bytes());
    match code {
        1 => point(body, out),
        2 => points(body, out),
        _ => {
            let rings: Vec<&str> = body.split(')').filter_map(|ring| ring.split_once('(')).map(|(_, ring)| ring).collect();
            out.extend_from_slice(&u32::try_from(rings.len()).ok()?.to_le_bytes());
            rings.into_iter().try_for_each(|ring| points(ring, out))
        }
    }
}

fn points(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let count = text.split(',').count();
    out.extend_from_slice(&u32::try_from(count).ok()?.to_le_bytes());
    text.split(',').try_for_each(|pair| point(pair, out))
}

fn point(text: &str, out: &mut Vec<u8>) -> Option<()> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().ok());
    let (x, y) = (numbers.next()??, numbers.next()??);
    out.extend_from_slice(&x.to_le_bytes());
    out.extend_from_slice(&y.to_le_bytes());
    numbers.next().is_none().then_some(())
}
