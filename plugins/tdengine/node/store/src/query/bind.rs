//! From the syntax tree to an expression over the columns of a relation, with its type.

use tdengine_sql::ast::{Binary, Expr, Literal, TimeBase, Unary, unescape};
use tdengine_wire::{ColumnType, DataType, Precision};

mod constant;

use super::aggregate::{Aggregate, AggregateKind};
use super::cell::Cell;
use super::function::Function;
use super::relation::Relation;
use crate::error::{Result, ServerError, code};
use crate::literal::time;
use crate::session::Session;

pub(super) use constant::Pattern;
pub(crate) use constant::cast_type;
use constant::{near, number};

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bound {
    Constant(Cell),
    Column(usize),
    Tag(usize),
    TableName,
    WindowStart,
    WindowEnd,
    WindowDuration,
    /// The result of an aggregate.
    Aggregate(usize),
    /// A grouping expression's value.
    Group(usize),
    Minus(Box<Bound>),
    Not(Box<Bound>),
    Binary(Binary, Box<Bound>, Box<Bound>),
    Call(Function, Vec<Bound>),
    Cast(Box<Bound>, ColumnType),
    In { operand: Box<Bound>, list: Vec<Bound>, negated: bool },
    IsNull { operand: Box<Bound>, negated: bool },
    Match { operand: Box<Bound>, pattern: Pattern, negated: bool },
    Case { branches: Vec<(Bound, Bound)>, otherwise: Option<Box<Bound>> },
}

impl Bound {
    /// Whether it needs no row, only its table: tags, the name, constants.
    pub fn is_of_table(&self) -> bool {
        let mut of_table = true;
        self.visit(&mut |bound| of_table &= !matches!(bound, Self::Column(_) | Self::Aggregate(_)));
        of_table
    }

    pub fn visit(&self, see: &mut dyn FnMut(&Self)) {
        see(self);
        match self {
            Self::Minus(inner) | Self::Not(inner) | Self::Cast(inner, _) => inner.visit(see),
            Self::IsNull { operand, .. } | Self::Match { operand, .. } => operand.visit(see),
            Self::Binary(_, left, right) => {
                left.visit(see);
                right.visit(see);
            }
            Self::Call(_, arguments) => arguments.iter().for_each(|argument| argument.visit(see)),
            Self::In { operand, list, .. } => {
                operand.visit(see);
                list.iter().for_each(|item| item.visit(see));
            }
            Self::Case { branches, otherwise } => {
                for (condition, value) in branches {
                    condition.visit(see);
                    value.visit(see);
                }
                if let Some(otherwise) = otherwise {
                    otherwise.visit(see);
                }
            }
            _ => {}
        }
    }
}

pub(super) struct Binder<'a> {
    pub relation: &'a Relation,
    pub session: &'a Session,
    pub server_version: &'a str,
    /// Aggregates found so far; `None` where none are allowed (WHERE, GROUP BY).
    pub aggregates: Option<Vec<Aggregate>>,
    /// Whether the argument of an aggregate is being bound.
    pub within_aggregate: bool,
    /// Grouping expressions.
    pub groups: Vec<(Bound, ColumnType)>,
}

type Typed = (Bound, ColumnType);

pub(super) const BIGINT: ColumnType = ColumnType { data_type: DataType::BigInt, bytes: 8 };
pub(super) const DOUBLE: ColumnType = ColumnType { data_type: DataType::Double, bytes: 8 };
pub(super) const BOOL: ColumnType = ColumnType { data_type: DataType::Bool, bytes: 1 };
pub(super) const TIMESTAMP: ColumnType = ColumnType { data_type: DataType::Timestamp, bytes: 8 };
/// Width of `tbname` in results, as a real server gives it (recording b4).
pub(super) const TBNAME_LENGTH: u32 = 270;

impl<'a> Binder<'a> {
    /// Binds to a relation; no aggregates yet.
    pub fn new(relation: &'a Relation, session: &'a Session, server_version: &'a str) -> Self {
        Self { relation, session, server_version, aggregates: None, within_aggregate: false, groups: Vec::new() }
    }

    pub fn bind(&mut self, expr: &Expr<'_>) -> Result<Typed> {
        let typed = self.bind_inner(expr)?;
        let group = self.groups.iter().position(|(group, _)| *group == typed.0);
        Ok(match group {
            Some(index) if self.aggregates.is_some() => (Bound::Group(index), typed.1),
            _ => typed,
        })
    }

    fn bind_inner(&mut self, expr: &Expr<'_>) -> Result<Typed> {
        match expr {
            Expr::Literal(literal) => self.literal(literal),
            Expr::Star => Err(ServerError::new(code::SYNTAX, "syntax error near \"*\"")),
            Expr::Column { name, quoted, .. } => self.column(name, *quoted),
            Expr::Unary { operator: Unary::Minus, operand } => {
                let (operand, data_type) = self.bind(operand)?;
                let data_type = if data_type.data_type == DataType::BigInt { BIGINT } else { DOUBLE };
                Ok((Bound::Minus(Box::new(operand)), data_type))
            }
            Expr::Unary { operator: Unary::Not, operand } => {
                Ok((Bound::Not(Box::new(self.bind(operand)?.0)), BOOL))
            }
            Expr::Binary { operator, left, right } => self.binary(*operator, left, right),
            Expr::Call { name, arguments } => self.call(name, arguments),
            Expr::Cast { operand, data_type } => {
                let (operand, from) = self.bind(operand)?;
                let target = cast_type(data_type, from);
                Ok((Bound::Cast(Box::new(operand), target), target))
            }
            Expr::In { operand, list, negated } => {
                let (operand, of) = self.bind(operand)?;
                let list = list.iter().map(|item| Ok(self.bind_as(item, of)?.0)).collect::<Result<_>>()?;
                Ok((Bound::In { operand: Box::new(operand), list, negated: *negated }, BOOL))
            }
            Expr::Between { operand, low, high, negated } => {
                let low = self.binary(Binary::GreaterEqual, operand, low)?.0;
                let high = self.binary(Binary::LessEqual, operand, high)?.0;
                let both = Bound::Binary(Binary::And, Box::new(low), Box::new(high));
                Ok((if *negated { Bound::Not(Box::new(both)) } else { both }, BOOL))
            }
            Expr::IsNull { operand, negated } => {
                let operand = Box::new(self.bind(operand)?.0);
                Ok((Bound::IsNull { operand, negated: *negated }, BOOL))
            }
            Expr::Case { operand, branches, otherwise } => self.case(operand.as_deref(), branches, otherwise.as_deref()),
        }
    }

    /// Binds what is compared with a value of type `of`: a text becomes a time where that is a time.
    fn bind_as(&mut self, expr: &Expr<'_>, of: ColumnType) -> Result<Typed> {
        if of.data_type == DataType::Timestamp
            && let Expr::Literal(Literal::Text(text)) = expr
        {
            return Ok((Bound::Constant(Cell::Time(self.time_text(text)?)), TIMESTAMP));
        }
        self.bind(expr)
    }

    fn time_text(&self, text: &str) -> Result<i64> {
        let text = unescape(text);
        let parsed = time::parse(&text, self.precision(), self.session.timezone_offset_s);
        parsed.or_else(|| text.parse().ok()).ok_or_else(|| {
            ServerError::new(0x0127, "Invalid timestamp format")
        })
    }

    fn today(&self) -> i64 {
        time::day_of(time::now(self.precision()), self.precision(), self.session.timezone_offset_s)
    }

    fn precision(&self) -> Precision {
        self.relation.precision()
    }

    fn literal(&self, literal: &Literal<'_>) -> Result<Typed> {
        Ok(match literal {
            Literal::Null => (Bound::Constant(Cell::Null), ColumnType::varchar(0)),
            Literal::Bool(value) => (Bound::Constant(Cell::Bool(*value)), BOOL),
            Literal::Number(text) => number(text)?,
            Literal::Text(text) => {
                let text = unescape(text).into_owned();
                let column_type = ColumnType::varchar(text.len() as u32);
                (Bound::Constant(Cell::text(text)), column_type)
            }
            Literal::Duration(text) => {
                let ticks = time::duration(text, self.precision()).ok_or_else(|| near(text))?;
                (Bound::Constant(Cell::Int(ticks)), BIGINT)
            }
            Literal::Time { base, offsets, .. } => {
                let mut value = match base {
                    TimeBase::Now => time::now(self.precision()),
                    TimeBase::Today => self.today(),
                    TimeBase::Number(text) => text.parse().map_err(|_| near(text))?,
                    TimeBase::Text(text) => self.time_text(text)?,
                };
                for (minus, duration) in offsets {
                    let ticks = time::duration(duration, self.precision()).ok_or_else(|| near(duration))?;
                    value = value.wrapping_add(if *minus { -ticks } else { ticks });
                }
                (Bound::Constant(Cell::Time(value)), TIMESTAMP)
            }
            Literal::Parameter => return Err(near("?")),
        })
    }

    fn column(&self, name: &str, quoted: bool) -> Result<Typed> {
        if let Some(found) = self.stored_column(name) {
            return Ok(found);
        }
        if !quoted {
            match name {
                "tbname" => return Ok((Bound::TableName, ColumnType::varchar(TBNAME_LENGTH))),
                "_rowts" | "_c0" => return Ok((Bound::Column(0), TIMESTAMP)),
                "_wstart" => return Ok((Bound::WindowStart, TIMESTAMP)),
                "_wend" => return Ok((Bound::WindowEnd, TIMESTAMP)),
                "_wduration" => return Ok((Bound::WindowDuration, BIGINT)),
                _ => {}
            }
        }
        Err(ServerError::invalid_column(name))
    }

    fn stored_column(&self, name: &str) -> Option<Typed> {
        match self.relation {
            Relation::Stored(stored) => {
                let column = stored.columns.position(name);
                let column = column.map(|at| (Bound::Column(at), stored.columns.fields[at].column_type));
                column.or_else(|| {
                    let at = stored.tags.position(name)?;
                    Some((Bound::Tag(at), stored.tags.fields[at].column_type))
                })
            }
            Relation::Memory(memory) => {
                let at = memory.fields.iter().position(|field| field.name == name)?;
                Some((Bound::Column(at), memory.fields[at].column_type))
            }
        }
    }

    /// `MATCH`: the pattern is a constant, read once.
    fn matches(&mut self, negated: bool, left: &Expr<'_>, right: &Expr<'_>) -> Result<Typed> {
        let operand = Box::new(self.bind(left)?.0);
        let Expr::Literal(Literal::Text(pattern)) = right else {
            return Err(ServerError::new(code::OPERATION_NOT_SUPPORTED, "Operation not supported"));
        };
        let pattern = Pattern::new(pattern)?;
        Ok((Bound::Match { operand, pattern, negated }, BOOL))
    }

    fn binary(&mut self, operator: Binary, left: &Expr<'_>, right: &Expr<'_>) -> Result<Typed> {
        if let Binary::Match | Binary::NotMatch = operator {
            return self.matches(operator == Binary::NotMatch, left, right);
        }
        let compares = !matches!(
            operator,
            Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder | Binary::Arrow
        );
        let (right, right_type, left, left_type) = if compares && matches!(left, Expr::Literal(_)) {
            let (right, right_type) = self.bind(right)?;
            let (left, left_type) = self.bind_as(left, right_type)?;
            (right, right_type, left, left_type)
        } else {
            let (left, left_type) = self.bind(left)?;
            let (right, right_type) = self.bind_as(right, if compares { left_type } else { BIGINT })?;
            (right, right_type, left, left_type)
        };
        let is_time = |column_type: ColumnType| column_type.data_type == DataType::Timestamp;
        let result = match operator {
            Binary::BitAnd | Binary::BitOr => BIGINT,
            Binary::Arrow => ColumnType::varchar(4095),
            Binary::Add | Binary::Subtract if is_time(left_type) || is_time(right_type) => {
                if is_time(left_type) && is_time(right_type) { BIGINT } else { TIMESTAMP }
            }
            Binary::Add | Binary::Subtract | Binary::Multiply | Binary::Divide | Binary::Remainder => DOUBLE,
            _ => BOOL,
        };
        Ok((Bound::Binary(operator, Box::new(left), Box::new(right)), result))
    }

    fn call(&mut self, name: &str, arguments: &[Expr<'_>]) -> Result<Typed> {
        if let Some(kind) = AggregateKind::named(name) {
            return self.aggregate(kind, name, arguments);
        }
        if let Some(constant) = self.session_function(name) {
            return Ok(constant);
        }
        let function = Function::named(name).ok_or_else(|| ServerError::new(0x0374, "Func not exists"))?;
        let (low, high) = function.arity();
        if arguments.len() < low || arguments.len() > high {
            return Err(ServerError::new(0x2801, format!("Invalid number of parameters : {name}")));
        }
        let bound = arguments.iter().map(|argument| self.bind(argument)).collect::<Result<Vec<_>>>()?;
        let types: Vec<ColumnType> = bound.iter().map(|(_, column_type)| *column_type).collect();
        let result = function.result(&types);
        let function = function.of(&types);
        Ok((Bound::Call(function, bound.into_iter().map(|(bound, _)| bound).collect()), result))
    }

    fn session_function(&self, name: &str) -> Option<Typed> {
        let text = |text: String| (Bound::Constant(Cell::text(text.as_str())), ColumnType::varchar(text.len() as u32));
        Some(match name {
            "server_version" | "client_version" => text(self.server_version.to_owned()),
            "server_status" => (Bound::Constant(Cell::Int(1)), ColumnType::of(DataType::Int)),
            "database" => match &self.session.database {
                Some(database) => text(database.clone()),
                None => (Bound::Constant(Cell::Null), ColumnType::varchar(0)),
            },
            "current_user" | "user" => text(format!("{}@%", self.session.user)),
            "timezone" => text("UTC (UTC, +0000)".to_owned()),
            "now" => (Bound::Constant(Cell::Time(time::now(self.precision()))), TIMESTAMP),
            "today" => (Bound::Constant(Cell::Time(self.today())), TIMESTAMP),
            _ => return None,
        })
    }

    fn aggregate(&mut self, kind: AggregateKind, name: &str, arguments: &[Expr<'_>]) -> Result<Typed> {
        let [argument] = arguments else {
            return Err(ServerError::new(0x2801, format!("Invalid number of parameters : {name}")));
        };
        if self.within_aggregate {
            return Err(ServerError::new(0x2627, "Aggregate functions do not support nesting"));
        }
        let Some(mut aggregates) = self.aggregates.take() else {
            return Err(ServerError::new(0x2608, "There mustn't be aggregation"));
        };
        self.within_aggregate = true;
        let (argument, argument_type) = match argument {
            Expr::Star => (None, BIGINT),
            expr => {
                let (argument, column_type) = self.bind(expr)?;
                (Some(argument), column_type)
            }
        };
        self.within_aggregate = false;
        let result = kind
            .result(argument_type)
            .ok_or_else(|| ServerError::new(0x2802, format!("Invalid parameter data type : {name}")))?;
        let aggregate = Aggregate { kind, argument, argument_type };
        let index = aggregates.iter().position(|known| *known == aggregate).unwrap_or_else(|| {
            aggregates.push(aggregate);
            aggregates.len() - 1
        });
        self.aggregates = Some(aggregates);
        Ok((Bound::Aggregate(index), result))
    }

    fn case(
        &mut self,
        operand: Option<&Expr<'_>>,
        branches: &[(Expr<'_>, Expr<'_>)],
        otherwise: Option<&Expr<'_>>,
    ) -> Result<Typed> {
        let mut result = None;
        let mut bound = Vec::new();
        for (condition, value) in branches {
            let condition = match operand {
                Some(operand) => self.binary(Binary::Equal, operand, condition)?.0,
                None => self.bind(condition)?.0,
            };
            let (value, column_type) = self.bind(value)?;
            result = Some(wider(result, column_type));
            bound.push((condition, value));
        }
        let otherwise = match otherwise {
            Some(otherwise) => {
                let (otherwise, column_type) = self.bind(otherwise)?;
                result = Some(wider(result, column_type));
                Some(Box::new(otherwise))
            }
            None => None,
        };
        Ok((Bound::Case { branches: bound, otherwise }, result.unwrap_or(BIGINT)))
    }
}

fn wider(known: Option<ColumnType>, next: ColumnType) -> ColumnType {
    match known {
        Some(known) if known.data_type == next.data_type && known.bytes >= next.bytes => known,
        Some(known) if next.bytes == 2 && next.is_variable() => known,
        _ => next,
    }
}
