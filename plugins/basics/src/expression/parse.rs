//! Text to tree.

use winnow::ascii::{Caseless, digit1, multispace0};
use winnow::combinator::{Infix, Postfix, Prefix, alt, cut_err, delimited, expression, fail, not, opt, preceded, repeat, separated, terminated};
use winnow::error::{ContextError, ErrMode, StrContext, StrContextValue};
use winnow::prelude::*;
use winnow::token::{none_of, one_of, take_while};

use super::{Expression, Literal, Node, Operator};

type Error = ErrMode<ContextError>;

/// Words that are no columns unless they are quoted.
const WORDS: [&str; 11] = ["and", "between", "false", "ilike", "in", "is", "like", "not", "null", "or", "true"];

/// Binding powers, loosest first.
const OR: i64 = 1;
const AND: i64 = 2;
const NOT: i64 = 3;
const COMPARISON: i64 = 4;
const SUM: i64 = 5;
const PRODUCT: i64 = 6;
const SIGN: i64 = 7;

/// # Errors
/// What was expected where, for a person.
pub(super) fn parse(text: &str) -> Result<Node, String> {
    if text.len() > Expression::BYTES_MAX {
        return Err(format!("an expression may have {} bytes at most, this one has {}", Expression::BYTES_MAX, text.len()));
    }
    preceded(multispace0, node).parse(text).map_err(|error| {
        let column = text[..error.offset()].chars().count() + 1;
        let expected = error.inner().to_string();
        let expected = if expected.is_empty() { "expected an operator or the end".into() } else { expected };
        format!("`{text}` is no expression: column {column}: {}", expected.replace('\n', ", "))
    })
}

fn node(input: &mut &str) -> ModalResult<Node> {
    expression(operand).prefix(prefix).postfix(postfix).infix(infix).parse_next(input)
}

fn prefix<'i>(input: &mut &'i str) -> ModalResult<Prefix<&'i str, Node, Error>> {
    alt((
        symbol("-").value(Prefix(SIGN, |_: &mut &'i str, of: Node| Ok(negative(of)))),
        keyword("not").value(Prefix(NOT, |_: &mut &'i str, of: Node| Ok(Node::Not(of.into())))),
        // An operand was looked for before.
        cut_err(fail).context(expected("a column or a value")),
    ))
    .parse_next(input)
}

fn infix<'i>(input: &mut &'i str) -> ModalResult<Infix<&'i str, Node, Error>> {
    macro_rules! left {
        ($power:expr, $operator:ident) => {
            Infix::Left($power, |_: &mut &'i str, one: Node, other: Node| Ok(binary(Operator::$operator, one, other)))
        };
    }
    let comparison = alt((
        alt((symbol("<>"), symbol("!="))).value(left!(COMPARISON, NotEqual)),
        symbol("<=").value(left!(COMPARISON, LessOrEqual)),
        symbol(">=").value(left!(COMPARISON, GreaterOrEqual)),
        alt((symbol("=="), symbol("="))).value(left!(COMPARISON, Equal)),
        symbol("<").value(left!(COMPARISON, Less)),
        symbol(">").value(left!(COMPARISON, Greater)),
    ));
    let arithmetic = alt((
        symbol("+").value(left!(SUM, Add)),
        symbol("-").value(left!(SUM, Subtract)),
        symbol("*").value(left!(PRODUCT, Multiply)),
        symbol("/").value(left!(PRODUCT, Divide)),
        symbol("%").value(left!(PRODUCT, Remainder)),
    ));
    let logic = alt((keyword("or").value(left!(OR, Or)), keyword("and").value(left!(AND, And))));
    alt((logic, comparison, arithmetic)).parse_next(input)
}

/// What stands behind its first operand and brings the others itself.
fn postfix<'i>(input: &mut &'i str) -> ModalResult<Postfix<&'i str, Node, Error>> {
    type Fold<'i> = fn(&mut &'i str, Node) -> ModalResult<Node>;
    let behind = |fold: Fold<'i>| Postfix(COMPARISON, fold);
    let is = (keyword("is"), cut_err(keyword("null").context(expected("`null` or `not null`"))));
    let is_not = (keyword("is"), keyword("not"), keyword("null"));
    let positive = alt((
        keyword("in").value(behind(within)),
        keyword("like").value(behind(|input, of| like(input, Operator::Like, of))),
        keyword("ilike").value(behind(|input, of| like(input, Operator::LikeAnyCase, of))),
        keyword("between").value(behind(between)),
    ));
    let negated = alt((
        keyword("in").value(behind(|input, of| within(input, of).map(inverse))),
        keyword("like").value(behind(|input, of| like(input, Operator::Like, of).map(inverse))),
        keyword("ilike").value(behind(|input, of| like(input, Operator::LikeAnyCase, of).map(inverse))),
        keyword("between").value(behind(|input, of| between(input, of).map(inverse))),
    ));
    alt((
        is_not.value(behind(|_, of| Ok(Node::IsNull { of: of.into(), is_negated: true }))),
        is.value(behind(|_, of| Ok(Node::IsNull { of: of.into(), is_negated: false }))),
        positive,
        preceded(keyword("not"), negated),
    ))
    .parse_next(input)
}

fn inverse(of: Node) -> Node {
    Node::Not(of.into())
}

fn within(input: &mut &str, of: Node) -> ModalResult<Node> {
    let list = delimited(symbol("("), separated(1.., node, symbol(",")), symbol(")").context(expected("`)`")));
    let list = cut_err(list).context(expected("a list: `(1, 2)`")).parse_next(input)?;
    Ok(Node::In { of: of.into(), list })
}

fn like(input: &mut &str, operator: Operator, of: Node) -> ModalResult<Node> {
    let pattern = cut_err(text).context(expected("a pattern: `'%.wav'`")).parse_next(input)?;
    Ok(binary(operator, of, Node::Literal(Literal::Text(pattern))))
}

fn between(input: &mut &str, of: Node) -> ModalResult<Node> {
    let (least, _, most) = cut_err((sum, keyword("and"), sum)).context(expected("`LEAST and MOST`")).parse_next(input)?;
    let from = binary(Operator::GreaterOrEqual, of.clone(), least);
    Ok(binary(Operator::And, from, binary(Operator::LessOrEqual, of, most)))
}

/// An expression that ends before a comparison, `and` or `or`.
fn sum(input: &mut &str) -> ModalResult<Node> {
    expression(operand).prefix(prefix).infix(infix).current_precedence_level(COMPARISON).parse_next(input)
}

fn operand(input: &mut &str) -> ModalResult<Node> {
    alt((
        delimited(symbol("("), cut_err(node), cut_err(symbol(")").context(expected("`)`")))),
        number,
        text.map(|text| Node::Literal(Literal::Text(text))),
        keyword("true").value(Node::Literal(Literal::Bool(true))),
        keyword("false").value(Node::Literal(Literal::Bool(false))),
        keyword("null").value(Node::Literal(Literal::Null)),
        column,
    ))
    .parse_next(input)
}

fn number(input: &mut &str) -> ModalResult<Node> {
    let exponent = (one_of(['e', 'E']), opt(one_of(['+', '-'])), digit1);
    let written = (digit1, opt(('.', digit1)), opt(exponent)).take();
    let literal = written.verify_map(|text: &str| match text.parse::<i64>() {
        Ok(whole) => Some(Literal::Integer(whole)),
        Err(_) => text.parse().ok().map(Literal::Float),
    });
    token(literal).map(Node::Literal).parse_next(input)
}

/// `'it''s'`
fn text(input: &mut &str) -> ModalResult<String> {
    quoted('\'', "''", input)
}

fn column(input: &mut &str) -> ModalResult<Node> {
    let plain = take_while(1.., is_of_word).verify(|name: &str| {
        !name.starts_with(|first: char| first.is_ascii_digit()) && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(name))
    });
    let plain = token(plain).map(str::to_owned);
    let name = alt((|input: &mut &str| quoted('"', "\"\"", input), |input: &mut &str| quoted('`', "``", input), plain));
    name.map(Node::Column).parse_next(input)
}

fn quoted(mark: char, doubled: &'static str, input: &mut &str) -> ModalResult<String> {
    let inside = repeat(0.., alt((doubled.value(mark), none_of(mark))));
    let end = cut_err(mark.context(expected("the closing quote")));
    token(delimited(mark, inside, end)).parse_next(input)
}

fn token<'i, O>(inner: impl Parser<&'i str, O, Error>) -> impl Parser<&'i str, O, Error> {
    terminated(inner, multispace0)
}

fn symbol<'i>(text: &'static str) -> impl Parser<&'i str, (), Error> {
    token(text).void()
}

fn keyword<'i>(word: &'static str) -> impl Parser<&'i str, (), Error> {
    token((Caseless(word), not(one_of(is_of_word)))).void()
}

fn is_of_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn expected(what: &'static str) -> StrContext {
    StrContext::Expected(StrContextValue::Description(what))
}

fn binary(operator: Operator, one: Node, other: Node) -> Node {
    Node::Binary(operator, one.into(), other.into())
}

fn negative(of: Node) -> Node {
    match of {
        Node::Literal(Literal::Integer(value)) => Node::Literal(Literal::Integer(-value)),
        Node::Literal(Literal::Float(value)) => Node::Literal(Literal::Float(-value)),
        of => Node::Negative(of.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree with all its brackets.
    fn shown(node: &Node) -> String {
        match node {
            Node::Column(name) => name.clone(),
            Node::Literal(Literal::Null) => "null".into(),
            Node::Literal(Literal::Bool(value)) => value.to_string(),
            Node::Literal(Literal::Integer(value)) => value.to_string(),
            Node::Literal(Literal::Float(value)) => format!("{value:?}"),
            Node::Literal(Literal::Text(value)) => format!("'{value}'"),
            Node::Not(of) => format!("(Not {})", shown(of)),
            Node::Negative(of) => format!("(Negative {})", shown(of)),
            Node::IsNull { of, is_negated } => format!("({} IsNull {is_negated})", shown(of)),
            Node::Binary(operator, one, other) => format!("({} {operator:?} {})", shown(one), shown(other)),
            Node::In { of, list } => format!("({} In {})", shown(of), list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        }
    }

    #[test]
    fn operators_bind_as_in_sql() {
        let check = |text: &str, expected: &str| match parse(text) {
            Ok(node) => assert_eq!(shown(&node), expected, "{text}"),
            Err(error) => panic!("{error}"),
        };
        check("a = 1 or b < 2 and not c >= 3", "((a Equal 1) Or ((b Less 2) And (Not (c GreaterOrEqual 3))))");
        check(" a+2*-b - 1 <> .5e0 "/* a fraction needs its digit */.replace(".5", "0.5").as_str(), "(((a Add (2 Multiply (Negative b))) Subtract 1) NotEqual 0.5)");
        check("x between -1 and 2 + 3 and y", "(((x GreaterOrEqual -1) And (x LessOrEqual (2 Add 3))) And y)");
        check("name NOT IN ('a', 'it''s') AND notes Is Not Null", "((Not (name In 'a' 'it's')) And (notes IsNull true))");
        check("\"order\" like 'x%' or `in` ilike '_' or t is null", "(((order Like 'x%') Or (in LikeAnyCase '_')) Or (t IsNull false))");
        check("(a or b) and true", "((a Or b) And true)");
        check("温度 > 9223372036854775808", "(温度 Greater 9.223372036854776e18)");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_column() {
        let check = |text: &str, expected: &str| {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        };
        check("", "column 1: expected a column or a value");
        check("a >", "column 4: expected a column or a value");
        check("a > 'x", "column 7: expected the closing quote");
        check("(a = 1", "column 7: expected `)`");
        check("a b", "column 3: expected an operator or the end");
        check("a in ()", "expected a column or a value");
        check("a is 5", "column 6: expected `null` or `not null`");
        check("in = 1", "column 1");
    }
}
