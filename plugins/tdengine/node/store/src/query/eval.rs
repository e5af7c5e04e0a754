//! Computing a bound expression for a row.

use std::cmp::Ordering;

use tdengine_sql::ast::Binary;
use tdengine_wire::{ColumnType, DataType};

use super::bind::Bound;
use super::cell::Cell;
use super::function::{Function, json_member, like};
use super::relation::Row;

/// What there is beside the row: results of a group.
#[derive(Clone, Copy, Default)]
pub(super) struct Group<'a> {
    pub values: &'a [Cell],
    pub aggregates: &'a [Cell],
    /// Start and end of its window.
    pub window: Option<(i64, i64)>,
}

pub(super) fn eval(bound: &Bound, row: Row<'_>, group: Group<'_>) -> Cell {
    let inner = |bound: &Bound| eval(bound, row, group);
    match bound {
        Bound::Constant(cell) => cell.clone(),
        Bound::Column(index) => row.column(*index),
        Bound::Tag(index) => row.tag(*index),
        Bound::TableName => row.table_name(),
        Bound::WindowStart => group.window.map_or(Cell::Null, |(start, _)| Cell::Time(start)),
        Bound::WindowEnd => group.window.map_or(Cell::Null, |(_, end)| Cell::Time(end)),
        Bound::WindowDuration => group.window.map_or(Cell::Null, |(start, end)| Cell::Int(end - start)),
        Bound::Aggregate(index) => group.aggregates.get(*index).cloned().unwrap_or(Cell::Null),
        Bound::Group(index) => group.values.get(*index).cloned().unwrap_or(Cell::Null),
        Bound::Minus(operand) => minus(&inner(operand)),
        Bound::Not(operand) => match inner(operand) {
            Cell::Null => Cell::Null,
            cell => Cell::Bool(!cell.is_true()),
        },
        Bound::Binary(operator, left, right) => match operator {
            Binary::And => and(&inner(left), || inner(right)),
            Binary::Or => or(&inner(left), || inner(right)),
            _ => binary(*operator, &inner(left), &inner(right)),
        },
        Bound::Call(Function::Length, arguments) if matches!(arguments[..], [Bound::Column(_)]) => {
            let [Bound::Column(index)] = arguments[..] else { return Cell::Null };
            row.byte_length(index).map_or(Cell::Null, |length| Cell::Int(length as i64))
        }
        Bound::Call(function, arguments) => {
            let cells: Vec<Cell> = arguments.iter().map(inner).collect();
            function.call(&cells)
        }
        Bound::Cast(operand, target) => cast(inner(operand), *target),
        Bound::In { operand, list, negated } => match inner(operand) {
            Cell::Null => Cell::Null,
            cell => {
                let found = list.iter().any(|item| cell.compare(&inner(item)) == Some(Ordering::Equal));
                Cell::Bool(found != *negated)
            }
        },
        Bound::IsNull { operand, negated } => Cell::Bool(inner(operand).is_null() != *negated),
        Bound::Match { operand, pattern, negated } => match inner(operand) {
            Cell::Null => Cell::Null,
            cell => Cell::Bool(pattern.is_in(&cell.shown()) != *negated),
        },
        Bound::Case { branches, otherwise } => {
            let branch = branches.iter().find(|(condition, _)| inner(condition).is_true());
            let value = branch.map(|(_, value)| value).or(otherwise.as_deref());
            value.map_or(Cell::Null, inner)
        }
    }
}

fn minus(cell: &Cell) -> Cell {
    match cell {
        Cell::Null => Cell::Null,
        Cell::Int(value) => Cell::Int(value.wrapping_neg()),
        other => other.as_f64().map_or(Cell::Null, |value| Cell::Double(-value)),
    }
}

fn and(left: &Cell, right: impl FnOnce() -> Cell) -> Cell {
    if !left.is_null() && !left.is_true() {
        return Cell::Bool(false);
    }
    let right = right();
    match (left.is_null(), right.is_null()) {
        (_, false) if !right.is_true() => Cell::Bool(false),
        (false, false) => Cell::Bool(true),
        _ => Cell::Null,
    }
}

fn or(left: &Cell, right: impl FnOnce() -> Cell) -> Cell {
    if left.is_true() {
        return Cell::Bool(true);
    }
    let right = right();
    if right.is_true() {
        return Cell::Bool(true);
    }
    if left.is_null() || right.is_null() { Cell::Null } else { Cell::Bool(false) }
}

fn binary(operator: Binary, left: &Cell, right: &Cell) -> Cell {
    if left.is_null() || right.is_null() {
        return Cell::Null;
    }
    let compared = |wanted: &[Ordering]| match left.compare(right) {
        Some(found) => Cell::Bool(wanted.contains(&found)),
        None => Cell::Bool(false),
    };
    let number = |compute: fn(f64, f64) -> f64| match (left.as_f64(), right.as_f64()) {
        (Some(left), Some(right)) => Cell::Double(compute(left, right)),
        _ => Cell::Null,
    };
    let bits = |compute: fn(i64, i64) -> i64| match (left.as_i64(), right.as_i64()) {
        (Some(left), Some(right)) => Cell::Int(compute(left, right)),
        _ => Cell::Null,
    };
    match operator {
        Binary::Equal => compared(&[Ordering::Equal]),
        Binary::NotEqual => compared(&[Ordering::Less, Ordering::Greater]),
        Binary::Less => compared(&[Ordering::Less]),
        Binary::LessEqual => compared(&[Ordering::Less, Ordering::Equal]),
        Binary::Greater => compared(&[Ordering::Greater]),
        Binary::GreaterEqual => compared(&[Ordering::Greater, Ordering::Equal]),
        Binary::Like => Cell::Bool(like(&left.shown(), &right.shown())),
        Binary::NotLike => Cell::Bool(!like(&left.shown(), &right.shown())),
        Binary::Arrow => json_member(left, right),
        Binary::Add | Binary::Subtract if matches!((left, right), (Cell::Time(_), _) | (_, Cell::Time(_))) => {
            let sign = if operator == Binary::Add { 1 } else { -1 };
            match (left.as_i64(), right.as_i64()) {
                (Some(a), Some(b)) => {
                    let value = a.wrapping_add(b.wrapping_mul(sign));
                    let both = matches!((left, right), (Cell::Time(_), Cell::Time(_)));
                    if both { Cell::Int(value) } else { Cell::Time(value) }
                }
                _ => Cell::Null,
            }
        }
        // Arithmetic goes through double (FACTS F57).
        Binary::Add => number(|left, right| left + right),
        Binary::Subtract => number(|left, right| left - right),
        Binary::Multiply => number(|left, right| left * right),
        Binary::Divide if right.as_f64() == Some(0.0) => Cell::Null,
        Binary::Divide => number(|left, right| left / right),
        Binary::Remainder if right.as_f64() == Some(0.0) => Cell::Null,
        Binary::Remainder => number(|left, right| left % right),
        Binary::BitAnd => bits(|left, right| left & right),
        Binary::BitOr => bits(|left, right| left | right),
        Binary::And | Binary::Or | Binary::Match | Binary::NotMatch => unreachable!("taken apart before"),
    }
}

pub(super) fn cast(cell: Cell, target: ColumnType) -> Cell {
    if cell.is_null() {
        return cell;
    }
    match target.data_type {
        DataType::Bool => Cell::Bool(cell.is_true()),
        DataType::Timestamp => cell.as_i64().map_or(Cell::Null, Cell::Time),
        DataType::TinyInt => cell.as_i64().map_or(Cell::Null, |value| Cell::Int(i64::from(value as i8))),
        DataType::SmallInt => cell.as_i64().map_or(Cell::Null, |value| Cell::Int(i64::from(value as i16))),
        DataType::Int => cell.as_i64().map_or(Cell::Null, |value| Cell::Int(i64::from(value as i32))),
        DataType::BigInt => cell.as_i64().map_or(Cell::Null, Cell::Int),
        DataType::UTinyInt | DataType::USmallInt | DataType::UInt | DataType::UBigInt => {
            cell.as_i64().map_or(Cell::Null, |value| Cell::UInt(value as u64))
        }
        DataType::Float => cell.as_f64().map_or(Cell::Null, |value| Cell::Float(value as f32)),
        DataType::Double => Cell::Double(cell.as_f64().unwrap_or(0.0)),
        DataType::Varbinary => match cell {
            Cell::Text(bytes) | Cell::Bytes(bytes) => Cell::Bytes(cut(bytes, target)),
            other => Cell::Bytes(cut(other.shown().into_bytes(), target)),
        },
        _ => {
            let text = match cell {
                Cell::Text(bytes) | Cell::Bytes(bytes) => bytes,
                other => other.shown().into_bytes(),
            };
            Cell::Text(cut(text, target))
        }
    }
}

/// A text cut to the width that it is cast to.
fn cut(mut text: Vec<u8>, target: ColumnType) -> Vec<u8> {
    let capacity = target.capacity().unwrap_or(u32::MAX) as usize;
    if target.data_type == DataType::Nchar {
        let cut: String = String::from_utf8_lossy(&text).chars().take(capacity).collect();
        return cut.into_bytes();
    }
    text.truncate(capacity);
    text
}
