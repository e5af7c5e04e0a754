//! Batches as rows of `COPY … (FORMAT binary)` (PostgreSQL, "COPY", binary format).
//!
//! Each column becomes big-endian bytes first, the whole column at once; then the columns are laid into the rows, one after the
//! other. Nothing is decided or allocated for a single value.

mod column;
mod number;

use std::ops::Range;

use bytes::{Bytes, BytesMut};

pub use column::{Column, Options, Refused, column};

/// Signature, flags, length of the extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1i16).to_be_bytes();
/// One message of the protocol.
const PIECE_BYTES: usize = 256 << 10;

/// Rows in their binary form; any range of them can be copied alone.
pub struct Encoded {
    bytes: Bytes,
    /// Where each row begins, and where the last ends.
    starts: Vec<usize>,
}

impl Encoded {
    /// Columns of `count` values each; row `i` gets the number `first_row + i` as a last column where one is given.
    pub fn new(columns: &[Column], count: usize, first_row: Option<usize>) -> Self {
        let fields = columns.len() + usize::from(first_row.is_some());
        let mut starts = Vec::with_capacity(count + 1);
        let mut at = 0;
        // First the lengths, which are collected one behind their place.
        let mut lengths = vec![2 + 4 * fields + if first_row.is_some() { 4 } else { 0 }; count];
        columns.iter().for_each(|column| column.add_lengths(&mut lengths));
        for length in &lengths {
            starts.push(at);
            at += length;
        }
        starts.push(at);
        let mut bytes = vec![0; at];
        // From here on: where the next field of each row goes.
        let mut ends = lengths;
        let field_count = u16::try_from(fields).unwrap_or(u16::MAX).to_be_bytes();
        for (end, start) in ends.iter_mut().zip(&starts) {
            bytes[*start..*start + 2].copy_from_slice(&field_count);
            *end = start + 2;
        }
        columns.iter().for_each(|column| column.write(&mut bytes, &mut ends));
        if let Some(first) = first_row {
            for (row, end) in ends.iter().enumerate() {
                bytes[*end..*end + 4].copy_from_slice(&4i32.to_be_bytes());
                let number = i32::try_from(first + row).unwrap_or(i32::MAX);
                bytes[*end + 4..*end + 8].copy_from_slice(&number.to_be_bytes());
            }
        }
        Self { bytes: bytes.into(), starts }
    }

    pub fn count(&self) -> usize {
        self.starts.len() - 1
    }

    /// A whole copy of these rows of each, in pieces.
    pub fn copy(parts: &[(&Self, Range<usize>)]) -> Vec<Bytes> {
        let mut pieces = vec![Bytes::from_static(HEADER)];
        for (encoded, rows) in parts {
            let mut rest = encoded.bytes.slice(encoded.starts[rows.start]..encoded.starts[rows.end]);
            while !rest.is_empty() {
                pieces.push(rest.split_to(rest.len().min(PIECE_BYTES)));
            }
        }
        pieces.push(BytesMut::from(&TRAILER[..]).freeze());
        pieces
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int32Array, StringArray};

    use super::*;
    use crate::kinds::Kind;

    #[test]
    fn rows_are_laid_out_and_any_range_of_them_is_a_copy() {
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("ab"), Some(""), None]));
        let options = Options { cut_nanoseconds: false };
        let columns = [column(&numbers, Kind::Int2, options).unwrap(), column(&texts, Kind::Text, options).unwrap()];
        let encoded = Encoded::new(&columns, 3, Some(7));
        let row = |fields: &[Option<&[u8]>]| {
            let mut row = (fields.len() as u16).to_be_bytes().to_vec();
            for field in fields {
                row.extend(field.map_or(-1, |it| it.len() as i32).to_be_bytes());
                row.extend(field.unwrap_or_default());
            }
            row
        };
        let rows = [
            row(&[Some(&[0, 1]), Some(b"ab"), Some(&[0, 0, 0, 7])]),
            row(&[None, Some(b""), Some(&[0, 0, 0, 8])]),
            row(&[Some(&[0, 3]), None, Some(&[0, 0, 0, 9])]),
        ];
        for range in [0..3, 1..2, 2..3, 0..0] {
            let expected = [HEADER, &rows[range.clone()].concat(), &[0xff, 0xff]].concat();
            assert_eq!(Encoded::copy(&[(&encoded, range.clone())]).concat(), expected, "{range:?}");
        }
    }
}
