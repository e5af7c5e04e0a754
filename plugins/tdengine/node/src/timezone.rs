//! Time zones by name, as clients name them: `Asia/Shanghai`, `+08:00`, `UTC`.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::{Offset, TimeZone};
use tdengine_wire::Precision;

/// A zone by its IANA name or as an offset from UTC; `None` for anything else.
pub(crate) fn parse(name: &str) -> Option<TimeZone> {
    if name.eq_ignore_ascii_case("utc") || name == "Z" {
        return Some(TimeZone::UTC);
    }
    fixed_offset(name).map(TimeZone::fixed).or_else(|| TimeZone::get(name).ok())
}

/// Seconds east of UTC at this moment.
pub(crate) fn offset_seconds(name: &str) -> Option<i32> {
    parse(name).map(|zone| zone.to_offset(Timestamp::now()).seconds())
}

/// `+08:00`, `+0800` or `-8`.
fn fixed_offset(name: &str) -> Option<Offset> {
    let sign = match name.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = name[1..].chars().filter(|character| *character != ':').collect();
    let (hours, minutes) = if digits.len() > 2 { digits.split_at(digits.len() - 2) } else { (&*digits, "0") };
    let seconds = hours.parse::<i32>().ok()? * 3_600 + minutes.parse::<i32>().ok()? * 60;
    Offset::from_seconds(sign * seconds).ok()
}

/// RFC 3339 with as many digits as the precision has, `Z` for UTC; the number itself when it is no time.
pub(crate) fn rfc3339(value: i64, precision: Precision, zone: &TimeZone) -> String {
    let per_second = i128::from(precision.per_second());
    let nanoseconds = i128::from(value) * (1_000_000_000 / per_second);
    let format = match precision {
        Precision::Milliseconds => "%Y-%m-%dT%H:%M:%S.%3f",
        Precision::Microseconds => "%Y-%m-%dT%H:%M:%S.%6f",
        Precision::Nanoseconds => "%Y-%m-%dT%H:%M:%S.%9f",
    };
    let text = Timestamp::from_nanosecond(nanoseconds).ok().and_then(|timestamp| {
        let zoned = timestamp.to_zoned_datetime(zone.clone());
        let time = strtime::format(format, &zoned).ok()?;
        let offset = if *zone == TimeZone::UTC { "Z".into() } else { strtime::format("%:z", &zoned).ok()? };
        Some(time + &offset)
    });
    text.unwrap_or_else(|| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_by_name_and_by_offset() {
        let check = |name: &str, seconds| assert_eq!(offset_seconds(name), seconds, "{name}");
        check("Asia/Shanghai", Some(8 * 3_600));
        check("UTC", Some(0));
        check("+05:30", Some(5 * 3_600 + 1_800));
        check("-0800", Some(-8 * 3_600));
        check("+8", Some(8 * 3_600));
        check("Nowhere/Land", None);
        check("", None);
    }

    #[test]
    fn times_as_the_adapter_writes_them() {
        let check = |value, precision, zone: &str, text: &str| {
            assert_eq!(rfc3339(value, precision, &parse(zone).unwrap()), text);
        };
        check(1_795_427_489_554, Precision::Milliseconds, "UTC", "2026-11-23T09:51:29.554Z");
        check(1_795_427_489_554, Precision::Milliseconds, "Asia/Shanghai", "2026-11-23T17:51:29.554+08:00");
        check(1, Precision::Nanoseconds, "UTC", "1970-01-01T00:00:00.000000001Z");
        check(-1, Precision::Microseconds, "UTC", "1969-12-31T23:59:59.999999Z");
    }
}
