//! Merging against a model: a map from key to columns.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tdengine_wire::block::{BlockBuilder, VERSION_TMQ};
use tdengine_wire::types::flags;
use tdengine_wire::value::Value;
use tdengine_wire::{ColumnType, DataType, Field};

use super::{Rows, Run};
use crate::schema::Schema;

/// What one write assigns: columns 2 and 3 or one of them, for some rows.
#[derive(Debug, Clone)]
struct Write {
    columns: (bool, bool),
    rows: Vec<(i64, i32, Option<i32>, Option<String>)>,
}

#[derive(Debug, Clone)]
enum Step {
    Write(Write),
    Delete(i64, i64),
    Scan,
}

type Model = BTreeMap<(i64, i32), (Option<i32>, Option<String>)>;

fn schema(composite: bool) -> Schema {
    let mut key = Field::new("k", ColumnType::of(DataType::Int), 2);
    if composite {
        key.flags |= flags::PRIMARY_KEY;
    }
    let fields = vec![
        Field::new("ts", ColumnType::of(DataType::Timestamp), 1),
        key,
        Field::new("a", ColumnType::of(DataType::Int), 3),
        Field::new("v", ColumnType::varchar(8), 4),
    ];
    Schema::of_columns(fields)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let row = (0i64..40, -2i32..3, proptest::option::of(any::<i32>()), proptest::option::of("[a-z]{0,8}"));
    let write = (any::<(bool, bool)>(), proptest::collection::vec(row, 1..12));
    let step = prop_oneof![
        6 => write.prop_map(|(columns, rows)| Step::Write(Write { columns, rows })),
        1 => (0i64..40, 0i64..40).prop_map(|(from, to)| Step::Delete(from, to)),
        1 => Just(Step::Scan),
    ];
    proptest::collection::vec(step, 1..30)
}

fn run(write: &Write, schema: &Schema) -> Run {
    let mut places = vec![0, 1];
    places.extend(write.columns.0.then_some(2));
    places.extend(write.columns.1.then_some(3));
    let mut builder = BlockBuilder::new(places.iter().map(|place| schema.fields[*place].column_type));
    for (ts, key, number, text) in &write.rows {
        for (column, place) in builder.columns_mut().iter_mut().zip(&places) {
            match place {
                0 => column.push_i64(*ts).unwrap(),
                1 => column.push_i64(i64::from(*key)).unwrap(),
                2 if number.is_some() => column.push_i64(i64::from(number.unwrap())).unwrap(),
                3 if text.is_some() => column.push_str(text.as_ref().unwrap()).unwrap(),
                _ => column.push_null(),
            }
        }
    }
    let ids: Vec<i16> = places.iter().map(|place| schema.fields[*place].id).collect();
    Run::new(ids.into(), builder.encode(VERSION_TMQ).unwrap().into()).unwrap()
}

/// Without a composite key, `k` is an ordinary column: the last write of a timestamp decides it.
fn apply(model: &mut Model, step: &Step, composite: bool) {
    match step {
        Step::Write(write) => {
            for (ts, key, number, text) in &write.rows {
                let old = model.iter().find(|((at, of), _)| at == ts && (!composite || of == key));
                let (old_key, mut row) = old.map_or(((*ts, *key), (None, None)), |(at, row)| (*at, row.clone()));
                if write.columns.0 {
                    row.0 = *number;
                }
                if write.columns.1 {
                    row.1 = text.clone();
                }
                model.remove(&old_key);
                model.insert((*ts, *key), row);
            }
        }
        Step::Delete(from, to) => model.retain(|(ts, _), _| ts < from || ts > to),
        Step::Scan => {}
    }
}

fn read(rows: &Rows, schema: &Schema) -> Vec<((i64, i32), (Option<i32>, Option<String>))> {
    let mut out = Vec::new();
    for run in rows.scan(schema).unwrap().iter() {
        let view = run.view().unwrap();
        let column = |place: usize| run.column(&view, schema.fields[place].id);
        let value = |place: usize, row: usize| column(place).map_or(Value::Null, |column| column.value(row));
        for row in 0..view.rows() {
            let number = |place| value(place, row).as_i64();
            let key = (number(0).unwrap(), number(1).unwrap() as i32);
            out.push((key, (number(2).map(|number| number as i32), value(3, row).text())));
        }
    }
    out
}

proptest! {
    #[test]
    fn merging_is_laying_columns_over_each_other(composite: bool, steps in steps(), unmerged_rows_max in 0usize..40) {
        let (schema, rows, mut model) = (schema(composite), Rows::default(), Model::new());
        for step in &steps {
            apply(&mut model, step, composite);
            match step {
                Step::Write(write) => rows.push(run(write, &schema), &schema, unmerged_rows_max).unwrap(),
                Step::Delete(from, to) => {
                    let before = rows.count(&schema).unwrap();
                    let hits = rows.hits(&schema, *from, *to).unwrap().map_or(0, |hits| hits.rows);
                    rows.delete(&schema, *from, *to).unwrap();
                    prop_assert_eq!(before - hits, rows.count(&schema).unwrap());
                }
                Step::Scan => drop(rows.scan(&schema).unwrap()),
            }
        }
        prop_assert_eq!(read(&rows, &schema), model.into_iter().collect::<Vec<_>>());
    }
}
