//! OpenTSDB's telnet protocol: `metric timestamp value tag=value…`.

use super::point::{Cell, Point, Time, invalid};
use super::{line, VALUE};
use crate::error::Fail;

/// One line. Seconds have ten digits, milliseconds thirteen.
pub(super) fn parse(text: &str) -> Result<Point, Fail> {
    let mut parts = text.split(' ').filter(|part| !part.is_empty());
    let measurement = parts.next().unwrap_or_default().to_owned();
    let time = parts.next().ok_or_else(|| invalid("invalid timestamp"))?;
    let time = time_by_digits(time.parse().map_err(|_| invalid("invalid timestamp"))?)?;
    let value = parts.next().ok_or_else(|| invalid("invalid value"))?;
    let value = line::cell(value).map_err(|_| invalid("invalid value"))?;
    let tags = parts.map(|part| {
        let (name, value) = part.split_once('=').ok_or_else(|| invalid("invalid tag"))?;
        Ok((name.to_owned(), Cell::Nchar(value.to_owned())))
    });
    let tags = tags.collect::<Result<Vec<_>, Fail>>()?;
    Ok(Point { measurement, tags, fields: vec![(VALUE.to_owned(), value)], time })
}

/// A time whose unit its number of digits tells.
pub(super) fn time_by_digits(value: i64) -> Result<Time, Fail> {
    match value.unsigned_abs().checked_ilog10().map_or(0, |digits| digits + 1) {
        0 => Ok(Time::Now),
        10 => Ok(Time::in_unit(value, 1_000_000_000)),
        13 => Ok(Time::in_unit(value, 1_000_000)),
        _ => Err(invalid("invalid timestamp: ten digits are seconds, thirteen milliseconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_by_digits() {
        let check = |line: &str, expected: Option<i128>| {
            let time = parse(line).ok().map(|point| point.time);
            assert_eq!(time, expected.map(Time::Nanoseconds), "{line}");
        };
        check("tel.m1 1700000000 12.5 host=h1 dc=x", Some(1_700_000_000_000_000_000));
        check("tel.m1 1700000001000 13 host=h2", Some(1_700_000_001_000_000_000));
        check("tel.m1 17 13 host=h2", None);
        check("tel.m1 1700000000", None);
    }
}
