//! Batches of `CREATE TABLE`: the requests of an entry as they are, taken apart and put together.

use tdengine_wire::Result;
use tdengine_wire::cursor::{Reader, Write as _};

/// The requests in the body of a CREATE TABLE entry.
///
/// # Errors
/// When bytes are missing or impossible.
pub fn requests(body: &[u8]) -> Result<Vec<&[u8]>> {
    let mut reader = Reader::new(body);
    reader.take(12, "message head and struct length")?;
    let count = reader.zigzag("created tables")?;
    (0..reader.count(count, 4, "created tables")?)
        .map(|_| {
            let length = reader.clone().i32("request length")?;
            reader.take(4 + length.max(0) as usize, "request")
        })
        .collect()
}

/// The body of an entry with these requests: message head, struct length, count, the requests, no source. `of` is the body of
/// the message that they came in, which tells the vgroup.
pub fn body_of(requests: &[&[u8]], of: &[u8]) -> Vec<u8> {
    let vgroup = if of.first().is_some_and(|first| *first >= 100) { &[0; 4][..] } else { &of[4..8] };
    let bytes: usize = requests.iter().map(|request| request.len()).sum();
    let mut framed = Vec::with_capacity(16 + bytes);
    framed.put_framed(|body| {
        body.put_zigzag(requests.len() as i64);
        requests.iter().for_each(|request| body.put(request));
        body.push(0);
    });
    let mut body = Vec::with_capacity(8 + framed.len());
    body.put(&((8 + framed.len()) as i32).to_le_bytes());
    body.put(vgroup);
    body.put(&framed);
    body
}
