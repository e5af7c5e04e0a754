//! Numbers as C prints them in JSON (FACTS F21).

use serde_json::{Number, Value as Json};

/// A double with 15 digits, or with 17 where 15 give another value, as cJSON decides it.
pub(super) fn through_double(value: f64) -> Json {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        return Json::from(value as i64);
    }
    let short = general(value, 15);
    let read: f64 = short.parse().unwrap_or(value);
    let close = (read - value).abs() <= read.abs().max(value.abs()) * f64::EPSILON;
    let text = if close { short } else { general(value, 17) };
    text.parse::<f64>().ok().and_then(Number::from_f64).map_or(Json::Null, Json::Number)
}

/// `%e` of C: six digits and an exponent of at least two.
pub(super) fn exponent(value: f64) -> String {
    let text = format!("{value:.6e}");
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{digits}e{}", signed(exponent)),
        None => text,
    }
}

/// So many digits, those that are zero at the end left out.
fn general(value: f64, digits: usize) -> String {
    format!("{value:.*e}", digits - 1)
}

fn signed(exponent: &str) -> String {
    match exponent.strip_prefix('-') {
        Some(digits) => format!("-{digits:0>2}"),
        None => format!("+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_as_the_recordings_have_them() {
        let check = |value: f64, text: &str| {
            assert_eq!(through_double(value), serde_json::from_str::<Json>(text).unwrap(), "{value}");
        };
        check(9_007_199_254_740_993i64 as f64, "9.00719925474099e+15");
        check(i64::MIN as f64, "-9.2233720368547758e+18");
        check(u64::MAX as f64, "1.8446744073709552e+19");
        check(0.1, "0.1");
        check(f64::from(0.1f32), "0.10000000149011612");
        check(1.0, "1");
        check(1_700_000_000_001.0, "1700000000001");
        assert_eq!(exponent(0.3), "3.000000e-01");
        assert_eq!(exponent(-1.5e300), "-1.500000e+300");
    }
}
