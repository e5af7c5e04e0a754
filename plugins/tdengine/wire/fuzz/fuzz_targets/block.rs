//! Any bytes as a raw block; what is one must survive Arrow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tdengine_wire::Precision;
use tdengine_wire::arrow::{from_columns, to_columns};
use tdengine_wire::block::{BlockView, VERSION_TMQ};

fuzz_target!(|bytes: &[u8]| {
    let Ok(view) = BlockView::parse(bytes) else { return };
    let Ok(columns) = to_columns(&view, Precision::Milliseconds) else { return };
    let types: Vec<_> = view.columns().iter().map(|column| column.column_type()).collect();
    let Ok(back) = from_columns(&columns, &types, VERSION_TMQ) else { return };
    let back = BlockView::parse(&back).expect("our own block");
    for (before, after) in view.columns().iter().zip(back.columns()) {
        assert_eq!(before.null_count(), after.null_count());
    }
});
