//! Any bytes as TMQ raw data, request or stmt2 bind data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tdengine_wire::envelope::{BinaryReply, BinaryRequest};
use tdengine_wire::stmt2::{BindData, BindRows};
use tdengine_wire::tmq::{self, DataView};

fuzz_target!(|bytes: &[u8]| {
    let _ = (BinaryRequest::decode(bytes), BinaryReply::decode(bytes));
    let _ = (BindData::decode(bytes), BindRows::decode(bytes));
    let _ = (tmq::split(bytes), tmq::keep_tables(bytes, |table| table.len() % 2 == 0));
    let Ok(view) = DataView::parse(bytes) else { return };
    for entry in view.blocks().map_while(Result::ok) {
        let _ = (entry.view(), entry.fields.map(|fields| fields.to_vec()));
    }
});
