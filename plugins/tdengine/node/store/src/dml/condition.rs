//! The condition of a DELETE: a range of time, and for a super table a condition on tags (FACTS F17).

use std::cmp::Ordering;

use tdengine_sql::ast::{self, Binary, Expr, Unary};
use tdengine_wire::value::Value;

use crate::error::{Result, ServerError, code};
use crate::execute::convert;
use crate::literal::Context;
use crate::schema::{Stable, TagValues};

/// A condition taken apart: every part that stands under AND is about time or about tags.
pub(crate) struct Condition<'a> {
    /// First and last timestamp; empty when the first is later.
    pub range: (i64, i64),
    /// All must hold for a child.
    pub tags: Vec<&'a Expr<'a>>,
}

/// 0x2655.
fn refused() -> ServerError {
    ServerError::new(code::INVALID_DELETE, "The DELETE statement must only have a definite time window range")
}

impl<'a> Condition<'a> {
    /// Takes `condition` apart; `timestamp` is the name of the key, `stable` the super table that is deleted from.
    ///
    /// # Errors
    /// 0x2655 for a part that is neither.
    pub fn new(
        condition: Option<&'a Expr<'a>>,
        timestamp: &str,
        stable: Option<&Stable>,
        context: &Context,
    ) -> Result<Self> {
        let mut taken = Self { range: (i64::MIN, i64::MAX), tags: Vec::new() };
        if let Some(condition) = condition {
            taken.take(condition, timestamp, stable, context)?;
        }
        Ok(taken)
    }

    fn take(&mut self, expr: &'a Expr<'a>, timestamp: &str, stable: Option<&Stable>, context: &Context) -> Result<()> {
        let is_time = |expr: &Expr<'_>| matches!(expr, Expr::Column { name, .. } if name == timestamp || name == "_rowts");
        match expr {
            Expr::Binary { operator: Binary::And, left, right } => {
                self.take(left, timestamp, stable, context)?;
                self.take(right, timestamp, stable, context)
            }
            Expr::Binary { operator, left, right } if is_time(left) => {
                self.narrow(*operator, time(right, context)?)
            }
            Expr::Binary { operator, left, right } if is_time(right) => {
                self.narrow(mirrored(*operator), time(left, context)?)
            }
            Expr::Between { operand, low, high, negated: false } if is_time(operand) => {
                self.narrow(Binary::GreaterEqual, time(low, context)?)?;
                self.narrow(Binary::LessEqual, time(high, context)?)
            }
            other if stable.is_some_and(|stable| is_about_tags(other, stable)) => {
                self.tags.push(other);
                Ok(())
            }
            _ => Err(refused()),
        }
    }

    fn narrow(&mut self, operator: Binary, time: i64) -> Result<()> {
        let (low, high) = match operator {
            Binary::Equal => (time, time),
            Binary::Greater => (time.saturating_add(1), i64::MAX),
            Binary::GreaterEqual => (time, i64::MAX),
            Binary::Less => (i64::MIN, time.saturating_sub(1)),
            Binary::LessEqual => (i64::MIN, time),
            _ => return Err(refused()),
        };
        self.range = (self.range.0.max(low), self.range.1.min(high));
        Ok(())
    }

    /// Whether a child with this name and these tags is meant.
    ///
    /// # Errors
    /// 0x2655 for an expression that is not understood here.
    pub fn picks(&self, name: &str, tags: &TagValues, stable: &Stable) -> Result<bool> {
        let row = Row { name, tags, stable };
        for expr in &self.tags {
            if row.holds(expr)? != Some(true) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn time(expr: &Expr<'_>, context: &Context) -> Result<i64> {
    match expr {
        Expr::Literal(literal) => convert::timestamp(context, literal),
        Expr::Unary { operator: Unary::Minus, operand } => Ok(time(operand, context)?.saturating_neg()),
        Expr::Cast { operand, .. } => time(operand, context),
        _ => Err(refused()),
    }
}

fn mirrored(operator: Binary) -> Binary {
    match operator {
        Binary::Less => Binary::Greater,
        Binary::LessEqual => Binary::GreaterEqual,
        Binary::Greater => Binary::Less,
        Binary::GreaterEqual => Binary::LessEqual,
        other => other,
    }
}

fn is_about_tags(expr: &Expr<'_>, stable: &Stable) -> bool {
    let all = |parts: &[&Expr<'_>]| parts.iter().all(|part| is_about_tags(part, stable));
    match expr {
        Expr::Literal(_) => true,
        Expr::Column { name, .. } => name == "tbname" || stable.tags.position(name).is_some(),
        Expr::Unary { operand, .. } | Expr::IsNull { operand, .. } => all(&[operand]),
        Expr::Binary { left, right, .. } => all(&[left, right]),
        Expr::In { operand, list, .. } => all(&[operand]) && list.iter().all(|part| is_about_tags(part, stable)),
        Expr::Between { operand, low, high, .. } => all(&[operand, low, high]),
        _ => false,
    }
}

/// A value of a tag condition.
#[derive(Debug, Clone, PartialEq)]
enum Scalar {
    Null,
    /// Whole numbers keep every digit: tags go beyond 2^53.
    Whole(i128),
    Float(f64),
    Text(String),
}

impl Scalar {
    fn number(&self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(*number as f64),
            Self::Float(number) => Some(*number),
            Self::Text(text) => text.trim().parse().ok(),
            Self::Null => None,
        }
    }

    fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Whole(left), Self::Whole(right)) => Some(left.cmp(right)),
            (Self::Text(left), Self::Text(right)) => Some(left.cmp(right)),
            _ => self.number()?.partial_cmp(&other.number()?),
        }
    }
}

/// A child as conditions see it.
struct Row<'a> {
    name: &'a str,
    tags: &'a TagValues,
    stable: &'a Stable,
}

impl Row<'_> {
    /// True, false, or unknown as SQL has it.
    fn holds(&self, expr: &Expr<'_>) -> Result<Option<bool>> {
        Ok(match expr {
            Expr::Binary { operator: Binary::And, left, right } => match (self.holds(left)?, self.holds(right)?) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            },
            Expr::Binary { operator: Binary::Or, left, right } => match (self.holds(left)?, self.holds(right)?) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            },
            Expr::Unary { operator: Unary::Not, operand } => self.holds(operand)?.map(|holds| !holds),
            Expr::IsNull { operand, negated } => Some((self.value(operand)? == Scalar::Null) != *negated),
            Expr::In { operand, list, negated } => {
                let value = self.value(operand)?;
                let mut found = Some(false);
                for element in list {
                    match value.compare(&self.value(element)?) {
                        Some(Ordering::Equal) => found = Some(true),
                        None => found = found.filter(|found| *found),
                        Some(_) => {}
                    }
                }
                found.map(|found| found != *negated)
            }
            Expr::Between { operand, low, high, negated } => {
                let value = self.value(operand)?;
                let (low, high) = (value.compare(&self.value(low)?), value.compare(&self.value(high)?));
                low.zip(high).map(|(low, high)| (low.is_ge() && high.is_le()) != *negated)
            }
            Expr::Binary { operator, left, right } => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                return compare(*operator, &left, &right);
            }
            _ => return Err(refused()),
        })
    }

    fn value(&self, expr: &Expr<'_>) -> Result<Scalar> {
        match expr {
            Expr::Column { name, .. } if name == "tbname" => Ok(Scalar::Text(self.name.to_owned())),
            Expr::Column { name, .. } => {
                let field = self.stable.tags.field(name).ok_or_else(refused)?;
                Ok(scalar(self.tags.value(field)))
            }
            Expr::Literal(literal) => literal_value(literal),
            Expr::Unary { operator: Unary::Minus, operand } => match self.value(operand)? {
                Scalar::Whole(number) => Ok(Scalar::Whole(-number)),
                other => Ok(other.number().map_or(Scalar::Null, |number| Scalar::Float(-number))),
            },
            _ => Err(refused()),
        }
    }
}

fn compare(operator: Binary, left: &Scalar, right: &Scalar) -> Result<Option<bool>> {
    let order = left.compare(right);
    Ok(match operator {
        Binary::Equal => order.map(Ordering::is_eq),
        Binary::NotEqual => order.map(Ordering::is_ne),
        Binary::Less => order.map(Ordering::is_lt),
        Binary::LessEqual => order.map(Ordering::is_le),
        Binary::Greater => order.map(Ordering::is_gt),
        Binary::GreaterEqual => order.map(Ordering::is_ge),
        Binary::Like | Binary::NotLike => {
            let (Scalar::Text(text), Scalar::Text(pattern)) = (left, right) else { return Ok(None) };
            let (text, pattern): (Vec<char>, Vec<char>) = (text.chars().collect(), pattern.chars().collect());
            Some(like(&text, &pattern) == (operator == Binary::Like))
        }
        _ => return Err(refused()),
    })
}

fn literal_value(literal: &ast::Literal<'_>) -> Result<Scalar> {
    Ok(match literal {
        ast::Literal::Null => Scalar::Null,
        ast::Literal::Bool(value) => Scalar::Whole(i128::from(*value)),
        ast::Literal::Number(text) => match (text.parse(), text.parse()) {
            (Ok(whole), _) => Scalar::Whole(whole),
            (_, Ok(float)) => Scalar::Float(float),
            _ => return Err(refused()),
        },
        ast::Literal::Text(text) => Scalar::Text(ast::unescape(text).into_owned()),
        _ => return Err(refused()),
    })
}

fn scalar(value: Value<'_>) -> Scalar {
    match value {
        Value::Null => Scalar::Null,
        Value::Bool(value) => Scalar::Whole(i128::from(value)),
        Value::Int(value) | Value::Timestamp(value) => Scalar::Whole(i128::from(value)),
        Value::UInt(value) => Scalar::Whole(i128::from(value)),
        Value::Decimal(value) => Scalar::Whole(value),
        Value::Float(value) => Scalar::Float(f64::from(value)),
        Value::Double(value) => Scalar::Float(value),
        other => other.text().map_or(Scalar::Null, Scalar::Text),
    }
}

/// `%` for any text, `_` for one character.
fn like(text: &[char], pattern: &[char]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        (['%', rest @ ..], _) => (0..=text.len()).any(|start| like(&text[start..], rest)),
        (['\\', escaped, rest @ ..], [first, text @ ..]) => escaped == first && like(text, rest),
        (['_', rest @ ..], [_, text @ ..]) => like(text, rest),
        ([wanted, rest @ ..], [first, text @ ..]) => wanted == first && like(text, rest),
        (_, []) => false,
    }
}
