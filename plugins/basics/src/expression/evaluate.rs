//! A tree over a batch: every step is one kernel over whole columns.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Datum, Float64Array, Int64Array, NullArray, Scalar, StringArray, StringBuilder};
use arrow::compute::kernels::{boolean, cmp, numeric};
use arrow::compute::{CastOptions, cast_with_options, ilike, like};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use pipeline_sdk::{Error, Result, Rows, Run};

use super::{Expression, Literal, Node, Operator};

/// What is not a column of the batch but known of each row: its table, group and namespace.
const OF_RUNS: [(&str, fn(&Run) -> &Arc<str>); 3] =
    [("_table", |run| &run.table), ("_group", |run| &run.group), ("_namespace", |run| &run.namespace)];

/// A column, or one value for all rows.
enum Value {
    Column(ArrayRef),
    One(Scalar<ArrayRef>),
}

impl Expression {
    /// Which rows it is true for.
    ///
    /// # Errors
    /// Rejected: a column that is not there, values that cannot be compared, a sum that does not fit its type.
    pub fn mask(&self, rows: &Rows) -> Result<BooleanArray> {
        let value = self.value(&self.root, rows)?;
        self.truth(value, rows.batch.num_rows())
    }

    /// The value for each row.
    ///
    /// # Errors
    /// As [`Self::mask`].
    pub fn column(&self, rows: &Rows) -> Result<ArrayRef> {
        match self.value(&self.root, rows)? {
            Value::Column(column) => Ok(column),
            Value::One(one) => broadcast(&one.into_inner(), rows.batch.num_rows()).map_err(|error| self.failed(&error)),
        }
    }

    fn value(&self, node: &Node, rows: &Rows) -> Result<Value> {
        Ok(match node {
            Node::Column(name) => Value::Column(self.find(name, rows)?),
            Node::Literal(literal) => Value::One(Scalar::new(array_of(literal))),
            Node::Not(of) => {
                let truth = self.truth(self.value(of, rows)?, rows.batch.num_rows())?;
                self.bools(boolean::not(&truth))?
            }
            Node::Negative(of) => {
                let value = self.value(of, rows)?;
                let negative = numeric::neg(value.array()).map_err(|error| self.failed(&error))?;
                value.again(negative)
            }
            Node::IsNull { of, is_negated } => {
                let value = self.value(of, rows)?;
                let array = value.array();
                let is_null = if *is_negated { boolean::is_not_null(array) } else { boolean::is_null(array) };
                let is_null = is_null.map_err(|error| self.failed(&error))?;
                value.again(Arc::new(is_null))
            }
            Node::Binary(operator, one, other) => self.binary(*operator, self.value(one, rows)?, self.value(other, rows)?, rows)?,
            Node::In { of, list } => {
                let mut found = BooleanArray::from(vec![false; rows.batch.num_rows()]);
                for item in list {
                    let equal = self.binary(Operator::Equal, self.value(of, rows)?, self.value(item, rows)?, rows)?;
                    let equal = self.truth(equal, rows.batch.num_rows())?;
                    found = boolean::or_kleene(&found, &equal).map_err(|error| self.failed(&error))?;
                }
                Value::Column(Arc::new(found))
            }
        })
    }

    fn binary(&self, operator: Operator, one: Value, other: Value, rows: &Rows) -> Result<Value> {
        let count = rows.batch.num_rows();
        if matches!(operator, Operator::And | Operator::Or) {
            let (one, other) = (self.truth(one, count)?, self.truth(other, count)?);
            let joined = if operator == Operator::And { boolean::and_kleene(&one, &other) } else { boolean::or_kleene(&one, &other) };
            return self.bools(joined);
        }
        let (one, other) = self.alike(one, other, matches!(operator, Operator::Like | Operator::LikeAnyCase))?;
        let (left, right) = (one.datum(), other.datum());
        let result: Result<ArrayRef, ArrowError> = match operator {
            Operator::Equal => cmp::eq(left, right).map(shared),
            Operator::NotEqual => cmp::neq(left, right).map(shared),
            Operator::Less => cmp::lt(left, right).map(shared),
            Operator::LessOrEqual => cmp::lt_eq(left, right).map(shared),
            Operator::Greater => cmp::gt(left, right).map(shared),
            Operator::GreaterOrEqual => cmp::gt_eq(left, right).map(shared),
            Operator::Like => like(left, right).map(shared),
            Operator::LikeAnyCase => ilike(left, right).map(shared),
            Operator::Add => numeric::add(left, right),
            Operator::Subtract => numeric::sub(left, right),
            Operator::Multiply => numeric::mul(left, right),
            Operator::Divide => numeric::div(left, right),
            Operator::Remainder => numeric::rem(left, right),
            Operator::And | Operator::Or => return Err(Error::fatal("`and` and `or` were handled above")),
        };
        let result = result.map_err(|error| self.failed(&error))?;
        Ok(match (&one, &other) {
            (Value::One(_), Value::One(_)) => Value::One(Scalar::new(result)),
            _ => Value::Column(result),
        })
    }

    /// Both of one type, so that they can be compared and reckoned with.
    fn alike(&self, one: Value, other: Value, is_text: bool) -> Result<(Value, Value)> {
        let (left, right) = (one.data_type(), other.data_type());
        if left == right && !(is_text && left.is_null()) {
            return Ok((one, other));
        }
        let wanted = match (&one, &other) {
            (Value::Column(_), Value::One(literal)) => for_literal(&left, literal),
            (Value::One(literal), Value::Column(_)) => for_literal(&right, literal),
            _ => common(&left, &right),
        };
        let wanted = if is_text { Some(DataType::Utf8) } else { wanted };
        let Some(wanted) = wanted else {
            let error = Error::rejected(format!("`{}`: {left} and {right} cannot be compared", self.text));
            return Err(error.code("expression.types").hint("cast one of them with `select` before"));
        };
        Ok((self.cast(one, &wanted)?, self.cast(other, &wanted)?))
    }

    fn cast(&self, value: Value, to: &DataType) -> Result<Value> {
        if value.data_type() == *to {
            return Ok(value);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let array = cast_with_options(value.array(), to, &options).map_err(|error| self.failed(&error))?;
        Ok(value.again(array))
    }

    fn truth(&self, value: Value, count: usize) -> Result<BooleanArray> {
        let array = match value {
            Value::Column(array) => array,
            Value::One(one) => broadcast(&one.into_inner(), count).map_err(|error| self.failed(&error))?,
        };
        match array.as_any().downcast_ref::<BooleanArray>() {
            Some(truth) => Ok(truth.clone()),
            None if array.data_type().is_null() => Ok(BooleanArray::new_null(count)),
            None => {
                let message = format!("`{}`: {} is neither true nor false", self.text, array.data_type());
                Err(Error::rejected(message).code("expression.types").hint("compare it: `x > 0`"))
            }
        }
    }

    fn find(&self, name: &str, rows: &Rows) -> Result<ArrayRef> {
        if let Some(column) = rows.batch.column_by_name(name) {
            return Ok(match column.data_type() {
                // Kernels take plain values: nothing else here knows dictionaries.
                DataType::Dictionary(_, values) => {
                    cast_with_options(column, values, &CastOptions::default()).map_err(|error| self.failed(&error))?
                }
                _ => column.clone(),
            });
        }
        if let Some((_, of)) = OF_RUNS.iter().find(|(known, _)| *known == name) {
            return Ok(of_runs(rows, *of));
        }
        let schema = rows.batch.schema();
        let known: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let error = Error::rejected(format!("`{}`: the rows have no column `{name}`", self.text)).code("expression.column");
        Err(error.hint(format!("they have {}", known.join(", "))))
    }

    fn bools(&self, result: Result<BooleanArray, ArrowError>) -> Result<Value> {
        result.map(|array| Value::Column(Arc::new(array))).map_err(|error| self.failed(&error))
    }

    fn failed(&self, error: &ArrowError) -> Error {
        Error::rejected(format!("`{}`: {error}", self.text)).code("expression")
    }
}

impl Value {
    fn datum(&self) -> &dyn Datum {
        match self {
            Self::Column(array) => array,
            Self::One(scalar) => scalar,
        }
    }

    fn array(&self) -> &dyn Array {
        match self {
            Self::Column(array) => array,
            Self::One(scalar) => scalar.get().0,
        }
    }

    fn data_type(&self) -> DataType {
        self.array().data_type().clone()
    }

    /// Another array of the same shape.
    fn again(&self, array: ArrayRef) -> Self {
        match self {
            Self::Column(_) => Self::Column(array),
            Self::One(_) => Self::One(Scalar::new(array)),
        }
    }
}

fn shared(array: BooleanArray) -> ArrayRef {
    Arc::new(array)
}

fn array_of(literal: &Literal) -> ArrayRef {
    match literal {
        Literal::Null => Arc::new(NullArray::new(1)),
        Literal::Bool(value) => Arc::new(BooleanArray::from(vec![*value])),
        Literal::Integer(value) => Arc::new(Int64Array::from(vec![*value])),
        Literal::Float(value) => Arc::new(Float64Array::from(vec![*value])),
        Literal::Text(value) => Arc::new(StringArray::from(vec![value.as_str()])),
    }
}

fn broadcast(one: &ArrayRef, count: usize) -> Result<ArrayRef, ArrowError> {
    let indices = arrow::array::UInt32Array::from(vec![0; count]);
    arrow::compute::take(one, &indices, None)
}

/// The type in which a column is compared with a literal: the column's own where the literal can be one without loss.
fn for_literal(column: &DataType, literal: &Scalar<ArrayRef>) -> Option<DataType> {
    let array = literal.get().0;
    let of_literal = array.data_type();
    let fits = || cast_with_options(array, column, &CastOptions::default()).is_ok_and(|cast| cast.null_count() == 0);
    match of_literal {
        DataType::Null => Some(column.clone()),
        DataType::Int64 if column.is_integer() && !fits() => common(column, of_literal),
        DataType::Int64 if column.is_numeric() => Some(column.clone()),
        DataType::Float64 if column.is_floating() => Some(column.clone()),
        DataType::Float64 if column.is_numeric() => Some(DataType::Float64),
        // A moment, a day, bytes: written as text, read as what the column is. Text that is none is an error of the cast.
        DataType::Utf8 if !column.is_numeric() => Some(column.clone()),
        _ => None,
    }
}

/// The type in which two columns are compared.
fn common(one: &DataType, other: &DataType) -> Option<DataType> {
    let is_text = |it: &DataType| matches!(it, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match (one, other) {
        (DataType::Null, known) | (known, DataType::Null) => Some(known.clone()),
        _ if one.is_integer() && other.is_integer() => Some(DataType::Int64),
        _ if one.is_numeric() && other.is_numeric() => Some(DataType::Float64),
        _ if is_text(one) && is_text(other) => Some(DataType::Utf8),
        (DataType::Timestamp(one, zone), DataType::Timestamp(other, _)) => Some(DataType::Timestamp(finer(*one, *other), zone.clone())),
        (DataType::Timestamp(..), DataType::Date32 | DataType::Date64) => Some(one.clone()),
        (DataType::Date32 | DataType::Date64, DataType::Timestamp(..)) => Some(other.clone()),
        _ => None,
    }
}

fn finer(one: TimeUnit, other: TimeUnit) -> TimeUnit {
    let order = [TimeUnit::Nanosecond, TimeUnit::Microsecond, TimeUnit::Millisecond, TimeUnit::Second];
    order.into_iter().find(|unit| *unit == one || *unit == other).unwrap_or(one)
}

/// What is known of each run, for each of its rows.
fn of_runs(rows: &Rows, of: fn(&Run) -> &Arc<str>) -> ArrayRef {
    let count = rows.batch.num_rows();
    let mut builder = StringBuilder::with_capacity(count, count * 8);
    for (index, run) in rows.runs.iter().enumerate() {
        let end = rows.runs.get(index + 1).map_or(count, |next| next.first_row as usize);
        for _ in run.first_row as usize..end {
            builder.append_value(of(run));
        }
    }
    Arc::new(builder.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::{Float32Array, Int32Array, RecordBatch, TimestampMillisecondArray, UInt8Array};
    use arrow::datatypes::{Field, Schema};

    use super::*;

    fn rows() -> Rows {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("i", Arc::new(Int32Array::from(vec![Some(1), Some(2), None, Some(4)]))),
            ("u", Arc::new(UInt8Array::from(vec![0, 100, 200, 255]))),
            ("f", Arc::new(Float32Array::from(vec![0.1, 0.2, -3.0, 4.5]))),
            ("s", Arc::new(StringArray::from(vec![Some("anna"), Some("Bob"), Some("it's"), None]))),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![0, 86_400_000, 172_800_000, 1]))),
            ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]))),
        ];
        let fields: Vec<Field> = columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
        let run = |first_row, table: &str| Run { first_row, table: table.into(), ..Run::default() };
        Rows { batch, runs: vec![run(0, "d1"), run(1, "d2")] }
    }

    #[test]
    fn rows_are_selected_as_in_sql() {
        let rows = rows();
        let check = |text: &str, expected: &[usize]| {
            let mask = Expression::parse(text).unwrap().mask(&rows).unwrap_or_else(|error| panic!("{text}: {error}"));
            let chosen: Vec<usize> = (0..4).filter(|row| mask.is_valid(*row) && mask.value(*row)).collect();
            assert_eq!(chosen, expected, "{text}");
        };
        check("i > 1", &[1, 3]);
        check("i <> 2", &[0, 3]);
        check("not i = 2 or i is null", &[0, 2, 3]);
        check("i = 3000000000 or u >= 200", &[2, 3]);
        check("u < -1", &[]);
        check("i + 1 = 2 and f = 0.1", &[0]);
        check("f > i", &[3]);
        check("-f * 2 = 6", &[2]);
        check("i > 1.5", &[1, 3]);
        check("s in ('anna', 'it''s')", &[0, 2]);
        check("s not in ('anna')", &[1, 2]);
        check("s like '%b'", &[1]);
        check("s ilike 'b%' or s is null", &[1, 3]);
        check("t >= '1970-01-02' and t < '1970-01-02T12:00:00'", &[1]);
        check("b", &[0, 3]);
        check("b = false", &[1]);
        check("i between 2 and 4", &[1, 3]);
        check("_table = 'd2' and i % 2 = 0", &[1, 3]);
        check("1 + 1 = 2", &[0, 1, 2, 3]);
        check("null", &[]);
        check("i = null", &[]);
    }

    #[test]
    fn what_cannot_be_is_rejected_and_says_why() {
        let check = |text: &str, expected: &str| {
            let error = Expression::parse(text).unwrap().mask(&rows()).unwrap_err();
            assert_eq!(error.reaction, pipeline_sdk::Reaction::Rejected);
            assert!(error.to_string().contains(expected), "{text}: {error}");
        };
        check("missing = 1", "the rows have no column `missing`");
        check("s > 1", "cannot be compared");
        check("i = 'one'", "cannot be compared");
        check("i", "neither true nor false");
        check("t = 'noon'", "noon");
        check("i / 0 = 1", "zero");
    }
}
