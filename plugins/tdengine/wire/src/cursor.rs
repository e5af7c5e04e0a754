//! Reading and writing the primitives that every TDengine format is made of: little-endian integers, LEB128
//! varints (plain and zig-zag) and strings whose length counts their closing NUL.
//!
//! [`Reader`] never panics and never reads past its slice.

use crate::error::{Result, WireError};

/// A position in a byte slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! read_le {
    ($($name:ident: $type:ty),*) => {$(
        #[doc = concat!("Reads a little-endian `", stringify!($type), "`.")]
        pub fn $name(&mut self, what: &'static str) -> Result<$type> {
            self.array(what).map(<$type>::from_le_bytes)
        }
    )*};
}

impl<'a> Reader<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Number of bytes not read yet.
    pub fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Everything read so far.
    pub fn taken(&self) -> &'a [u8] {
        &self.bytes[..self.at]
    }

    /// Everything not read yet, without reading it.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// Reads `count` bytes.
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8]> {
        if count > self.left() {
            return Err(WireError::Truncated { what, at: self.at, need: count, left: self.left() });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    /// Reads a fixed number of bytes.
    pub fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    read_le!(u8: u8, i8: i8, u16: u16, i16: i16, u32: u32, i32: i32, u64: u64, i64: i64);

    /// Reads an unsigned LEB128 varint (`uv`).
    pub fn uvarint(&mut self, what: &'static str) -> Result<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(what)?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                break;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(WireError::invalid(what, "varint longer than 64 bits"))
    }

    /// Reads a zig-zag varint (`zz`).
    pub fn zigzag(&mut self, what: &'static str) -> Result<i64> {
        let value = self.uvarint(what)?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// Reads a zig-zag varint that must fit 32 bits.
    pub fn zigzag32(&mut self, what: &'static str) -> Result<i32> {
        let value = self.zigzag(what)?;
        i32::try_from(value).map_err(|_| WireError::invalid(what, format!("{value} does not fit 32 bits")))
    }

    /// Reads a varint length and that many bytes (`binary`).
    pub fn binary(&mut self, what: &'static str) -> Result<&'a [u8]> {
        let length = self.uvarint(what)?;
        self.take(usize::try_from(length).unwrap_or(usize::MAX), what)
    }

    /// Reads a string whose length counts its closing NUL (`cstr`) and checks that it is UTF-8.
    pub fn cstr(&mut self, what: &'static str) -> Result<&'a str> {
        let bytes = self.binary(what)?;
        let Some((0, text)) = bytes.split_last() else {
            return Err(WireError::invalid(what, "string without closing NUL"));
        };
        std::str::from_utf8(text).map_err(|error| WireError::invalid(what, error.to_string()))
    }

    /// Reads an element count and checks it against what is left, so that a lie cannot make us allocate.
    pub fn count(&mut self, count: i64, bytes_each_min: usize, what: &'static str) -> Result<usize> {
        let most = self.left() / bytes_each_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= most => Ok(count),
            _ => Err(WireError::invalid(what, format!("count {count} with {} bytes left", self.left()))),
        }
    }
}

/// Appends primitives to a byte vector.
pub trait Write {
    /// Appends an unsigned LEB128 varint.
    fn put_uvarint(&mut self, value: u64);
    /// Appends a zig-zag varint.
    fn put_zigzag(&mut self, value: i64);
    /// Appends a varint length and the bytes.
    fn put_binary(&mut self, bytes: &[u8]);
    /// Appends a string with its NUL, the length counting it.
    fn put_cstr(&mut self, text: &str);
    /// Appends bytes as they are.
    fn put(&mut self, bytes: &[u8]);
    /// Runs `body` and puts before what it wrote an `i32` with its length.
    fn put_framed(&mut self, body: impl FnOnce(&mut Self));
}

impl Write for Vec<u8> {
    fn put_uvarint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_zigzag(&mut self, value: i64) {
        self.put_uvarint(((value << 1) ^ (value >> 63)) as u64);
    }

    fn put_binary(&mut self, bytes: &[u8]) {
        self.put_uvarint(bytes.len() as u64);
        self.put(bytes);
    }

    fn put_cstr(&mut self, text: &str) {
        self.put_uvarint(text.len() as u64 + 1);
        self.put(text.as_bytes());
        self.push(0);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_framed(&mut self, body: impl FnOnce(&mut Self)) {
        let start = self.len();
        self.put(&[0; 4]);
        body(self);
        let length = (self.len() - start - 4) as i32;
        self[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}
