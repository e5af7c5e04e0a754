//! Points in time as text.

use tdengine_wire::Precision;

use crate::store::inner::now_ms;

const NANOSECONDS: i64 = 1_000_000_000;

/// Now, in this precision.
pub(crate) fn now(precision: Precision) -> i64 {
    let elapsed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    match precision {
        Precision::Milliseconds => now_ms(),
        Precision::Microseconds => i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX),
        Precision::Nanoseconds => i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX),
    }
}

/// `2024-01-31 12:30:00.123`, with `T` for the blank, with `Z`, `+08:00` or `+0800` behind it, or a date alone.
pub(crate) fn parse(text: &str, precision: Precision, timezone_offset_s: i32) -> Option<i64> {
    let text = text.trim();
    let (date, rest) = text.split_at_checked(10)?;
    let days = days_of(date)?;
    let clock = rest.strip_prefix(['T', 't', ' ']).unwrap_or(rest);
    let (clock, offset_s) = zone(clock, timezone_offset_s)?;
    let (seconds, nanoseconds) = if clock.is_empty() { (0, 0) } else { clock_of(clock)? };
    let seconds = days * 86_400 + seconds - i64::from(offset_s);
    let per_second = precision.per_second();
    seconds.checked_mul(per_second)?.checked_add(nanoseconds / (NANOSECONDS / per_second))
}

/// Days since 1970 of `YYYY-MM-DD`.
fn days_of(date: &str) -> Option<i64> {
    let mut parts = date.split('-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    // Years that begin in March put the leap day at their end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * month + 2) / 5 + day - 1;
    Some(era * 146_097 + year * 365 + year / 4 - year / 100 + day_of_year - 719_468)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

/// The clock without its zone, and the zone's offset.
fn zone(clock: &str, timezone_offset_s: i32) -> Option<(&str, i32)> {
    if let Some(clock) = clock.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let Some(place) = clock.rfind(['+', '-']) else { return Some((clock, timezone_offset_s)) };
    let (clock, zone) = clock.split_at(place);
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let numbers: String = zone[1..].chars().filter(|character| *character != ':').collect();
    let (hours, minutes) = match numbers.len() {
        1 | 2 => (digits(&numbers)?, 0),
        4 => (digits(&numbers[..2])?, digits(&numbers[2..])?),
        _ => return None,
    };
    (hours <= 14 && minutes < 60).then(|| (clock, sign * (hours * 3_600 + minutes * 60) as i32))
}

/// Seconds and nanoseconds of `HH:MM[:SS[.fraction]]`.
fn clock_of(clock: &str) -> Option<(i64, i64)> {
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':');
    let (hours, minutes) = (digits(parts.next()?)?, digits(parts.next()?)?);
    let seconds = parts.next().map_or(Some(0), digits)?;
    if parts.next().is_some() || hours > 23 || minutes > 59 || seconds > 59 {
        return None;
    }
    let nanoseconds = if fraction.is_empty() { 0 } else { digits(&format!("{fraction:0<9}")[..9])? };
    Some((hours * 3_600 + minutes * 60 + seconds, nanoseconds))
}

/// A duration of SQL (`10s`, `1d`; units b, u, a, s, m, h, d, w, and n and y as 30 and 365 days) in this precision.
pub(crate) fn duration(text: &str, precision: Precision) -> Option<i64> {
    let (unit_at, unit) = text.char_indices().next_back()?;
    let number: i64 = text[..unit_at].parse().ok()?;
    let nanoseconds: i128 = match unit.to_ascii_lowercase() {
        'b' => 1,
        'u' => 1_000,
        'a' => 1_000_000,
        's' => 1_000_000_000,
        'm' => 60_000_000_000,
        'h' => 3_600_000_000_000,
        'd' => 86_400_000_000_000,
        'w' => 604_800_000_000_000,
        'n' => 2_592_000_000_000_000,
        'y' => 31_536_000_000_000_000,
        _ => return None,
    };
    let ticks = i128::from(number) * nanoseconds / i128::from(NANOSECONDS / precision.per_second());
    i64::try_from(ticks).ok()
}

/// The start of the day of `time` in a zone.
pub(crate) fn day_of(time: i64, precision: Precision, timezone_offset_s: i32) -> i64 {
    let (per_second, day) = (precision.per_second(), 86_400 * precision.per_second());
    let offset = i64::from(timezone_offset_s) * per_second;
    time - (time + offset).rem_euclid(day)
}
