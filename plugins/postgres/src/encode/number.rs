//! The server's `numeric`: groups of four decimal digits (PostgreSQL, `numeric_send`).

use arrow::datatypes::i256;

const GROUP: u32 = 10_000;
const NEGATIVE: u16 = 0x4000;

/// A number without its sign, divided by small ones.
pub trait Magnitude: Copy {
    /// Quotient and remainder.
    fn divide(self, by: u32) -> (Self, u32);
    fn is_zero(self) -> bool;
}

impl Magnitude for u128 {
    fn divide(self, by: u32) -> (Self, u32) {
        (self / u128::from(by), (self % u128::from(by)) as u32)
    }

    fn is_zero(self) -> bool {
        self == 0
    }
}

impl Magnitude for i256 {
    fn divide(self, by: u32) -> (Self, u32) {
        let by = Self::from_i128(i128::from(by));
        let rest = self.wrapping_rem(by).to_i128().unwrap_or_default();
        (self.wrapping_div(by), rest as u32)
    }

    fn is_zero(self) -> bool {
        self == Self::ZERO
    }
}

/// Appends `magnitude / 10^scale` in binary form.
pub fn append(is_negative: bool, magnitude: impl Magnitude, scale: u8, to: &mut Vec<u8>) {
    // Groups from the last digit on: the first of them is filled up with zeros behind the scale.
    let mut groups = [0u16; 24];
    let (mut count, mut rest) = (0, magnitude);
    let mut weight = -(i16::from(scale).div_euclid(4) + i16::from(!scale.is_multiple_of(4)));
    let partial = u32::from(scale % 4);
    if partial > 0 {
        let (next, digits) = rest.divide(10u32.pow(partial));
        groups[0] = (digits * 10u32.pow(4 - partial)) as u16;
        (count, rest) = (1, next);
    }
    while !rest.is_zero() {
        let (next, digits) = rest.divide(GROUP);
        groups[count] = digits as u16;
        count += 1;
        rest = next;
    }
    // Zeros at the end are left out, as the server does it.
    let zeros = groups[..count].iter().take_while(|group| **group == 0).count();
    weight += zeros as i16;
    let digits = &groups[zeros..count];
    let first = if digits.is_empty() { 0 } else { weight + digits.len() as i16 - 1 };
    let sign = if is_negative && !digits.is_empty() { NEGATIVE } else { 0 };
    for part in [digits.len() as u16, first as u16, sign, u16::from(scale)].iter().chain(digits.iter().rev()) {
        to.extend(part.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_groups_of_four_digits() {
        let check = |value: i128, scale: u8, expected: &[u16]| {
            let (mut narrow, mut wide) = (Vec::new(), Vec::new());
            append(value < 0, value.unsigned_abs(), scale, &mut narrow);
            append(value < 0, i256::from_i128(value).wrapping_abs(), scale, &mut wide);
            let read: Vec<u16> = narrow.chunks(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
            assert_eq!(read, expected, "{value} {scale}");
            assert_eq!(wide, narrow);
        };
        check(0, 2, &[0, 0, 0, 2]);
        check(1, 0, &[1, 0, 0, 0, 1]);
        check(10_000, 0, &[1, 1, 0, 0, 1]);
        check(12_345_678, 0, &[2, 1, 0, 0, 1234, 5678]);
        // 123456.78: 12 3456 . 7800
        check(12_345_678, 2, &[3, 1, 0, 2, 12, 3456, 7800]);
        // -0.0001 and 0.00001
        check(-1, 4, &[1, 0xffff, 0x4000, 4, 1]);
        check(1, 5, &[1, 0xfffe, 0, 5, 1000]);
        check(100_000, 5, &[1, 0, 0, 5, 1]);
    }
}
