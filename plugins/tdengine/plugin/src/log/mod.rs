//! Entries of a TDengine log as `fetch_raw` delivers them: rows ([`data`]) and changes ([`change`]). No I/O.
//!
//! Decoders take untrusted bytes: they answer an error or a value and never panic.

pub mod change;
pub mod data;

/// Raw type of rows (PROTOCOL 8).
pub const RAW_DATA: u16 = 2;
/// Raw type of rows with the creation of their tables.
pub const RAW_METADATA: u16 = 4;

/// `u32 length, u16 type, body`: the form in which raw messages are fetched and written back.
pub fn envelope(raw_type: u16, body: &[u8]) -> Vec<u8> {
    let mut raw = Vec::with_capacity(6 + body.len());
    raw.extend_from_slice(&(body.len() as u32).to_le_bytes());
    raw.extend_from_slice(&raw_type.to_le_bytes());
    raw.extend_from_slice(body);
    raw
}

/// Type and body of [`envelope`]'s form.
///
/// # Errors
/// When bytes are missing.
pub fn open_envelope(raw: &[u8]) -> tdengine_wire::Result<(u16, &[u8])> {
    let mut reader = tdengine_wire::cursor::Reader::new(raw);
    let length = reader.u32("raw length")? as usize;
    let raw_type = reader.u16("raw type")?;
    Ok((raw_type, reader.take(length, "raw body")?))
}
