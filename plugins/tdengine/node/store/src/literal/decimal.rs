//! DECIMAL literals.

use tdengine_wire::ColumnType;

use super::near;
use crate::error::Result;

/// Writes `text` as a scaled integer of the column's width; digits beyond the scale are rounded half away from zero.
pub(super) fn write(text: &str, column_type: ColumnType, out: &mut Vec<u8>) -> Result<()> {
    let (precision, scale) = column_type.decimal_parts().unwrap_or((38, 0));
    let value = parse(text, scale).ok_or_else(|| near(text, "invalid decimal data"))?;
    if value.unsigned_abs() >= 10u128.pow(u32::from(precision.min(38))) {
        return Err(near(text, "decimal data overflow"));
    }
    let width = column_type.data_type.width().unwrap_or(16);
    out.extend_from_slice(&value.to_le_bytes()[..width]);
    Ok(())
}

fn parse(text: &str, scale: u8) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (text, 0),
    };
    let (sign, digits) = match mantissa.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() && fraction.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Digits before the point, once it has moved by the exponent and the scale.
    let all = format!("{whole}{fraction}");
    let point = i32::try_from(whole.len()).ok()? + exponent + i32::from(scale);
    if point < 0 {
        return Some(0);
    }
    let point = usize::try_from(point).ok().filter(|point| *point <= 60)?;
    let kept = format!("{all:0<point$}");
    let number = if point == 0 { 0 } else { kept[..point].parse::<i128>().ok()? };
    let rounds = kept.as_bytes().get(point).is_some_and(|digit| *digit >= b'5');
    Some(sign * (number + i128::from(rounds)))
}
