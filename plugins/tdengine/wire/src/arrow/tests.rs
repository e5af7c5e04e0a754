use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, StringArray};
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Int32Type, Schema};
use proptest::prelude::*;

use super::*;
use crate::block::{BlockBuilder, BlockView, VERSION_TMQ};
use crate::tests::{any_block, any_damage, mutate};
use crate::types::{ColumnType, DataType, Precision};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("c{index}")).collect()
}

/// Bytes and NULLs of every value: what must survive.
fn contents(block: &[u8]) -> Vec<(ColumnType, Vec<Option<Vec<u8>>>)> {
    let view = BlockView::parse(block).unwrap();
    let values = |column: &crate::block::ColumnView<'_>| {
        (0..column.rows()).map(|row| column.bytes(row).map(<[u8]>::to_vec)).collect()
    };
    view.columns().iter().map(|column| (column.column_type(), values(column))).collect()
}

proptest! {
    #[test]
    fn there_and_back(block in any_block(), from in 0usize..40) {
        let bytes = block.encode(VERSION_TMQ).unwrap();
        let view = BlockView::parse(&bytes).unwrap();
        let names = names(view.columns().len());
        let batch = to_batch(&view, names.iter().map(String::as_str), Precision::Nanoseconds).unwrap();
        for (field, column) in batch.schema().fields().iter().zip(view.columns()) {
            prop_assert_eq!(column_type_of(field).unwrap(), column.column_type());
        }
        let back = from_batch(&batch, VERSION_TMQ).unwrap();
        prop_assert_eq!(contents(&back), contents(&bytes));
        // A slice begins anywhere in a byte of the bitmaps.
        let from = from % view.rows();
        let slice = from_batch(&batch.slice(from, view.rows() - from), VERSION_TMQ).unwrap();
        for ((_, part), (_, whole)) in contents(&slice).into_iter().zip(contents(&bytes)) {
            prop_assert_eq!(&part[..], &whole[from..]);
        }
    }

    #[test]
    fn damaged_blocks_never_panic(block in any_block(), (changes, cut) in any_damage()) {
        let mut bytes = block.encode(VERSION_TMQ).unwrap();
        mutate(&mut bytes, &changes, cut);
        if let Ok(view) = BlockView::parse(&bytes) && let Ok(columns) = to_columns(&view, Precision::Milliseconds) {
            let types: Vec<_> = view.columns().iter().map(|column| column.column_type()).collect();
            let _ = from_columns(&columns, &types, VERSION_TMQ);
            for row in 0..view.rows() {
                view.columns().iter().for_each(|column| drop(column.value(row).to_sql(column.column_type())));
            }
        }
    }
}

#[test]
fn invalid_text_loses_nothing() {
    let mut block = BlockBuilder::new([ColumnType::varchar(8), ColumnType::nchar(8)]);
    block.column(0).push_bytes(&[0xff, b'a']).unwrap();
    block.column(0).push_bytes(b"ok").unwrap();
    block.column(1).push_bytes(&[0, 0xd8, 0, 0]).unwrap();
    block.column(1).push_bytes(&[1]).unwrap();
    let bytes = block.encode(VERSION_TMQ).unwrap();
    let batch = to_batch(&BlockView::parse(&bytes).unwrap(), ["v", "n"], Precision::Milliseconds).unwrap();
    assert!(batch.columns().iter().all(|array| *array.data_type() == ArrowType::Binary));
    assert_eq!(from_batch(&batch, VERSION_TMQ).unwrap(), bytes);
}

#[test]
fn batches_from_elsewhere() {
    let fields = vec![ArrowField::new("i", ArrowType::Int32, true), ArrowField::new("s", ArrowType::Utf8, true)];
    let fields = [fields, vec![ArrowField::new("b", ArrowType::Boolean, true)]].concat();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int32Array::from(vec![Some(-1), None])),
        Arc::new(StringArray::from(vec![None, Some("x")])),
        Arc::new(BooleanArray::from(vec![Some(true), None])),
    ];
    let batch = arrow::array::RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.clone()).unwrap();
    let bytes = from_batch(&batch, VERSION_TMQ).unwrap();
    let view = BlockView::parse(&bytes).unwrap();
    let types: Vec<_> = view.columns().iter().map(crate::block::ColumnView::data_type).collect();
    assert_eq!(types, [DataType::Int, DataType::Varchar, DataType::Bool]);
    let back = to_columns(&view, Precision::Milliseconds).unwrap();
    assert_eq!(back[0].as_primitive::<Int32Type>(), columns[0].as_primitive::<Int32Type>());
    assert!(back[1].is_null(0) && back[1].as_string::<i32>().value(1) == "x");

    let error = from_columns(&columns[..1], &[ColumnType::of(DataType::BigInt)], VERSION_TMQ).unwrap_err();
    assert!(error.to_string().contains("Int32 does not go into BIGINT"), "{error}");
    let list = ArrowField::new("l", ArrowType::Date32, true);
    assert!(column_type_of(&list).unwrap_err().to_string().contains("TDengine does not have"));
}
