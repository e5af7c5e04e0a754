//! Taking bodies apart and putting them together without decoding their blocks.

use super::view::{DataView, Tail};
use crate::cursor::{Reader, Write};
use crate::error::{Result, WireError};

/// Bytes before the struct of a change: length and vgroup.
const HEAD_BYTES: usize = 8;
/// Bytes of the block count and the two flags at the end of a head.
const COUNT_AND_FLAGS_BYTES: usize = 6;

/// Splits a type-4 body into a type-2 body and the create-table requests of its tail.
///
/// Written one after the other (the requests first, see [`create_batch`]) they have the effect of the whole, and the
/// requests can be looked at before (FACTS F31).
///
/// # Errors
/// When the body is malformed.
pub fn split(metadata: &[u8]) -> Result<(Vec<u8>, Vec<&[u8]>)> {
    let view = DataView::parse(metadata)?;
    let Tail::Creates(creates) = view.tail(super::METADATA)? else {
        return Err(WireError::invalid("metadata", "no creates"));
    };
    let end = blocks_end(&view)?;
    let mut data = Vec::with_capacity(end + 8);
    data.put(&metadata[..end]);
    data.put(&0i64.to_le_bytes());
    Ok((data, creates))
}

/// The reverse of [`split`]: a type-4 body from a type-2 body and create-table requests.
///
/// # Errors
/// When the body is malformed.
pub fn join<'c>(data: &[u8], creates: impl ExactSizeIterator<Item = &'c [u8]>) -> Result<Vec<u8>> {
    let view = DataView::parse(data)?;
    let end = blocks_end(&view)?;
    let mut out = Vec::with_capacity(data.len());
    out.put(&data[..end]);
    put_creates(&mut out, creates);
    Ok(out)
}

fn blocks_end(view: &DataView<'_>) -> Result<usize> {
    view.blocks().try_fold(view.head().len(), |end, entry| Ok(end + entry?.as_bytes().len()))
}

pub(super) fn put_creates<'c>(out: &mut Vec<u8>, creates: impl ExactSizeIterator<Item = &'c [u8]>) {
    out.put(&(creates.len() as i32).to_le_bytes());
    creates.for_each(|create| out.put_binary(create));
}

/// A body of raw type 515 (create tables) from the requests of a type-4 tail. `source` is
/// [`crate::meta::SOURCE_LOCAL`] in what an ordinary client sends; the server sets the mark itself.
pub fn create_batch<'c>(vgroup_id: i32, creates: impl ExactSizeIterator<Item = &'c [u8]>, source: u8) -> Vec<u8> {
    let mut out = Vec::new();
    crate::meta::put_head(&mut out, vgroup_id, |out| {
        out.put_framed(|out| {
            out.put_zigzag(creates.len() as i64);
            creates.for_each(|create| out.put(create));
            out.push(source);
        });
    });
    out
}

/// The requests in a body of raw type 515, each with its own length in front: the reverse of [`create_batch`].
///
/// # Errors
/// When the body is malformed.
pub fn create_requests(body: &[u8]) -> Result<Vec<&[u8]>> {
    let mut reader = Reader::new(body);
    reader.take(HEAD_BYTES, "message head")?;
    reader.i32("create tables length")?;
    let count = reader.zigzag("created tables")?;
    let count = reader.count(count, 4, "created tables")?;
    let request = |_| {
        let length = reader.clone().i32("request length")?;
        let length = usize::try_from(length).map_err(|_| WireError::invalid("request length", length.to_string()))?;
        reader.take(length.saturating_add(4), "request")
    };
    (0..count).map(request).collect()
}

/// A copy of a type-2 body with only the blocks whose table `keep` wants; `None` when that is none.
///
/// # Errors
/// When the body is malformed or its blocks carry no table names.
pub fn keep_tables(data: &[u8], mut keep: impl FnMut(&str) -> bool) -> Result<Option<Vec<u8>>> {
    let view = DataView::parse(data)?;
    if view.block_count() == 0 {
        return Ok(None);
    }
    let head = view.head();
    let mut out = Vec::with_capacity(data.len());
    out.put(head);
    let mut count = 0i32;
    for entry in view.blocks() {
        let entry = entry?;
        let table = entry.table.ok_or_else(|| WireError::invalid("data", "its blocks carry no table names"))?;
        if keep(table) {
            out.put(entry.as_bytes());
            count += 1;
        }
    }
    let count_at = head.len() - COUNT_AND_FLAGS_BYTES;
    out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
    out.put(&0i64.to_le_bytes());
    Ok((count > 0).then_some(out))
}
