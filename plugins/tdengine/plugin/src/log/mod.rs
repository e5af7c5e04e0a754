//! Entries of a TDengine log: rows ([`data`]) and changes ([`change`]), as the source and the sink look at them. What
//! their bytes mean, the wire library alone knows.

pub mod change;
pub mod data;

pub use tdengine_wire::tmq::{DATA as RAW_DATA, METADATA as RAW_METADATA, pack as envelope, unpack as open_envelope};
