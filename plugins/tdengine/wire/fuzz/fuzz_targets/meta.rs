//! Any bytes as a change: the first two choose its type. What decodes must encode to what decodes the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tdengine_wire::meta::{RawMeta, Rendering, parse_json, render, to_json};

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, body)) = bytes.split_first_chunk::<2>() else { return };
    if let Ok(text) = std::str::from_utf8(body) {
        let _ = parse_json(text);
    }
    let Ok(raw) = RawMeta::decode(u16::from_le_bytes(*kind), body) else { return };
    if let Ok(json) = render(&raw.meta, Rendering::Exact) {
        let _ = to_json(&json);
    }
    if let Ok((raw_type, encoded)) = raw.encode() {
        let again = RawMeta::decode(raw_type, &encoded).expect("our own encoding");
        // Comparing the text lets NaN be equal to itself.
        assert_eq!(format!("{again:?}"), format!("{raw:?}"));
    }
});
