//! GEOMETRY values as SQL says them: WKB in hexadecimal is not taken (FACTS F22), so shapes are written out.

use std::fmt::Write as _;

use crate::cursor::Reader;
use crate::error::{Result, WireError};

/// Well-known text of little-endian WKB: points, lines and polygons in two dimensions, the shapes that a server takes.
///
/// # Errors
/// When the bytes end early or are another shape.
pub fn to_wkt(wkb: &[u8]) -> Result<String> {
    let mut reader = Reader::new(wkb);
    let order = reader.u8("byte order")?;
    if order != 1 {
        return Err(WireError::invalid("byte order", order.to_string()));
    }
    let mut text = String::new();
    match reader.u32("shape")? {
        1 => {
            text.push_str("POINT(");
            point(&mut reader, &mut text)?;
        }
        2 => {
            text.push_str("LINESTRING(");
            points(&mut reader, &mut text)?;
        }
        3 => {
            text.push_str("POLYGON(");
            for ring in 0..count(&mut reader, 4)? {
                text.push_str(if ring == 0 { "(" } else { ",(" });
                points(&mut reader, &mut text)?;
                text.push(')');
            }
        }
        other => return Err(WireError::invalid("shape", other.to_string())),
    }
    text.push(')');
    Ok(text)
}

fn count(reader: &mut Reader<'_>, bytes_each: usize) -> Result<usize> {
    let count = reader.u32("points")?;
    reader.count(i64::from(count), bytes_each, "points")
}

fn points(reader: &mut Reader<'_>, text: &mut String) -> Result<()> {
    for at in 0..count(reader, 16)? {
        if at > 0 {
            text.push(',');
        }
        point(reader, text)?;
    }
    Ok(())
}

fn point(reader: &mut Reader<'_>, text: &mut String) -> Result<()> {
    let (x, y) = (f64::from_bits(reader.u64("x")?), f64::from_bits(reader.u64("y")?));
    // Writing to a String cannot fail.
    let _ = write!(text, "{x} {y}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let wkb = |shape: u32, counts: &[u32], numbers: &[f64]| {
            let mut bytes = vec![1];
            bytes.extend(shape.to_le_bytes());
            bytes.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
            bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
            bytes
        };
        assert_eq!(to_wkt(&wkb(1, &[], &[1.0, 2.5])).unwrap(), "POINT(1 2.5)");
        assert_eq!(to_wkt(&wkb(2, &[2], &[1.0, 2.0, -3.0, 4.0])).unwrap(), "LINESTRING(1 2,-3 4)");
        assert_eq!(to_wkt(&wkb(3, &[1, 2], &[1.0, 2.0, 3.0, 4.0])).unwrap(), "POLYGON((1 2,3 4))");
        for bad in [&[][..], &[0, 1, 0, 0, 0], &wkb(9, &[], &[]), &wkb(1, &[], &[1.0]), &wkb(2, &[u32::MAX], &[1.0])] {
            assert!(to_wkt(bad).is_err(), "{bad:?}");
        }
    }
}
