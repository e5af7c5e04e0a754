//! Statements as trees. Values of an INSERT stay slices of the text, so that many rows read without an allocation a value.

use std::borrow::Cow;

/// A table's name as a statement gives it; unquoted names are folded to lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub database: Option<String>,
    pub table: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement<'a> {
    CreateDatabase { name: String, if_not_exists: bool, options: Vec<DatabaseOption> },
    AlterDatabase { name: String, options: Vec<DatabaseOption> },
    DropDatabase { name: String, if_exists: bool },
    Use { database: String },
    CreateStable(CreateStable),
    CreateTables(Vec<CreateTable<'a>>),
    DropStable { name: Name, if_exists: bool },
    DropTables(Vec<DropTable>),
    /// ALTER TABLE or ALTER STABLE.
    Alter { name: Name, stable: bool, action: AlterAction<'a> },
    Insert(Insert<'a>),
    InsertQuery(InsertQuery<'a>),
    Delete { table: Name, condition: Option<Expr<'a>> },
    Select(Box<Select<'a>>),
    Show(Show<'a>),
    Describe(Name),
    CreateTopic(CreateTopic<'a>),
    DropTopic { name: String, if_exists: bool },
    /// Of tags.
    CreateIndex { name: String, table: Name, tags: Vec<String> },
    DropIndex { name: Name, if_exists: bool },
    DropConsumerGroup { group: String, topic: String, if_exists: bool },
    CreateUser { name: String, password: String },
    AlterUser { name: String, password: Option<String> },
    DropUser { name: String },
    /// Accepted and without effect here: what it begins with (`kill`, `trim`, `grant`, …).
    NoOperation(&'a str),
    Flush { database: String },
    KillQuery(&'a str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseOption {
    /// Lower case.
    pub name: String,
    /// Without quotes; several values (RETENTIONS, KEEP) stand with commas between.
    pub value: String,
}

/// A type as it is written: `VARCHAR` and the number in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName {
    /// Upper case, aliases resolved: BINARY is VARCHAR, INTEGER is INT; `… UNSIGNED` with one blank.
    pub name: &'static str,
    pub length: Option<u32>,
    pub scale: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub data_type: TypeName,
    pub primary_key: bool,
    pub encode: Option<String>,
    pub compress: Option<String>,
    pub level: Option<String>,
    pub comment: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct TableOptions {
    pub comment: Option<String>,
    pub ttl_days: Option<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateStable {
    pub name: Name,
    pub if_not_exists: bool,
    pub columns: Vec<Column>,
    pub tags: Vec<Column>,
    pub options: TableOptions,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTable<'a> {
    pub name: Name,
    pub if_not_exists: bool,
    pub kind: CreateKind<'a>,
    pub options: TableOptions,
}

#[derive(Clone, Debug, PartialEq)]
pub enum CreateKind<'a> {
    Normal(Vec<Column>),
    Child(Using<'a>),
}

/// `USING stable [(tags)] TAGS (values)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Using<'a> {
    pub stable: Name,
    /// Names of the tags that are given; `None`: all, in order.
    pub tags: Option<Vec<String>>,
    pub values: Vec<Value<'a>>,
    /// Where the values end.
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DropTable {
    pub name: Name,
    pub if_exists: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum AlterAction<'a> {
    AddColumn(Column),
    DropColumn(String),
    ModifyColumn { name: String, data_type: TypeName },
    RenameColumn { from: String, to: String },
    /// MODIFY COLUMN … ENCODE / COMPRESS / LEVEL.
    CompressColumn { name: String, encode: Option<String>, compress: Option<String>, level: Option<String> },
    AddTag(Column),
    DropTag(String),
    ModifyTag { name: String, data_type: TypeName },
    RenameTag { from: String, to: String },
    SetTags(Vec<(String, Value<'a>)>),
    Options(TableOptions),
}

/// A literal with its place in the text, from which errors are shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Value<'a> {
    pub literal: Literal<'a>,
    /// Byte offset in the statement.
    pub at: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Literal<'a> {
    Null,
    Bool(bool),
    /// With its sign, as it is written: `-12`, `1.5e3`, `0x1F`.
    Number(Cow<'a, str>),
    /// The inside of a string with its escapes; see [`unescape`].
    Text(&'a str),
    /// `now`, `today` or a number or text of time, with durations added: `now + 1d`. A sign without a duration has an empty one.
    Time {
        base: TimeBase<'a>,
        offsets: Vec<(bool, &'a str)>,
        /// Where the first sign stands.
        sign_at: usize,
    },
    /// `10s`.
    Duration(&'a str),
    /// `?`
    Parameter,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TimeBase<'a> {
    Now,
    Today,
    Number(&'a str),
    Text(&'a str),
}

/// Undoes the escapes of a string: backslashes and doubled quotes. `\%` and `\_` stay, as LIKE reads them.
pub fn unescape(text: &str) -> Cow<'_, str> {
    if !text.contains(['\\', '\'', '"']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(character) = chars.next() {
        match character {
            '\\' => match chars.next() {
                Some('n') => out.push('\n'),
                Some('r') => out.push('\r'),
                Some('t') => out.push('\t'),
                Some(escaped @ ('%' | '_' | 'x')) => out.extend(['\\', escaped]),
                Some(escaped) => out.push(escaped),
                None => out.push('\\'),
            },
            quote @ ('\'' | '"') if chars.peek() == Some(&quote) => {
                chars.next();
                out.push(quote);
            }
            other => out.push(other),
        }
    }
    Cow::Owned(out)
}

#[derive(Clone, Debug, PartialEq)]
pub struct Insert<'a> {
    pub tables: Vec<InsertTable<'a>>,
    /// What ends the last table too early. A server reads and checks value by value, so what is wrong before it comes first.
    pub broken: Option<Broken>,
}

/// `INSERT INTO table [(columns)] SELECT …`.
#[derive(Clone, Debug, PartialEq)]
pub struct InsertQuery<'a> {
    pub table: Name,
    /// `None`: all columns, in order.
    pub columns: Option<Vec<String>>,
    pub query: Box<Select<'a>>,
}

/// Where the text of an INSERT stops to be one.
#[derive(Clone, Debug, PartialEq)]
pub enum Broken {
    Error(crate::SyntaxError),
    /// Behind a value stands neither a comma nor a bracket; which of them is missing depends on the number of columns.
    AfterValue { at: usize },
}

#[derive(Clone, Debug, PartialEq)]
pub struct InsertTable<'a> {
    pub target: InsertTarget,
    pub using: Option<Using<'a>>,
    /// `None`: all columns, in order. `tbname` may be among them.
    pub columns: Option<Vec<String>>,
    /// Row after row; behind them those of a row that is broken.
    pub values: Vec<Value<'a>>,
    pub rows: Vec<InsertRow>,
    /// Where VALUES stands.
    pub at: usize,
}

/// A whole row of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InsertRow {
    /// Number of its values.
    pub length: u32,
    /// Where its bracket closes.
    pub end: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InsertTarget {
    Table(Name),
    Parameter,
}

#[derive(Clone, Debug, PartialEq)]
pub struct CreateTopic<'a> {
    pub name: String,
    pub if_not_exists: bool,
    pub meta: TopicMeta,
    pub source: TopicSource<'a>,
    /// The statement behind AS.
    pub text: &'a str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicMeta {
    None,
    With,
    Only,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TopicSource<'a> {
    Database(String),
    /// The text of the condition on tags.
    Stable { name: Name, condition: Option<&'a str> },
    Select(Box<Select<'a>>),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Show<'a> {
    Databases { user: bool },
    Tables { database: Option<String>, like: Option<&'a str>, kind: TableKind },
    Stables { database: Option<String>, like: Option<&'a str> },
    Vgroups { database: Option<String> },
    Topics,
    Consumers,
    Subscriptions,
    Dnodes,
    Variables,
    Cluster,
    ClusterAlive,
    Alive { database: Option<String> },
    Grants,
    Users,
    Connections,
    Functions,
    Streams,
    Views,
    Indexes { table: Name },
    Queries,
    Licences,
    LocalVariables,
    Mnodes,
    Qnodes,
    Snodes,
    Transactions,
    Tags { table: Name },
    CreateDatabase(String),
    CreateTable(Name),
    CreateStable(Name),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    All,
    Normal,
    Child,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct Select<'a> {
    pub distinct: bool,
    /// `SELECT TAGS`: one row a table.
    pub tags: bool,
    pub items: Vec<Item<'a>>,
    pub from: Option<From<'a>>,
    pub condition: Option<Expr<'a>>,
    pub partition_by: Vec<Expr<'a>>,
    pub interval: Option<Interval<'a>>,
    pub group_by: Vec<Expr<'a>>,
    pub having: Option<Expr<'a>>,
    /// What is joined to this, in order; ORDER BY and LIMIT are those of the whole.
    pub union: Vec<UnionPart<'a>>,
    pub order_by: Vec<Order<'a>>,
    pub slimit: Option<Limit>,
    pub limit: Option<Limit>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct UnionPart<'a> {
    /// Rows that are there already are kept.
    pub all: bool,
    pub select: Select<'a>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Item<'a> {
    pub expr: Expr<'a>,
    pub alias: Option<String>,
    /// The expression as it is written: the column's name where there is no alias.
    pub text: &'a str,
}

#[derive(Clone, Debug, PartialEq)]
pub enum From<'a> {
    Table { name: Name, alias: Option<String> },
    Select { select: Box<Select<'a>>, alias: Option<String> },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Interval<'a> {
    pub width: &'a str,
    pub offset: Option<&'a str>,
    pub sliding: Option<&'a str>,
    pub fill: Option<Fill<'a>>,
}

/// What stands in windows without rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Fill<'a> {
    pub mode: FillMode<'a>,
    /// Where no window has a row, too.
    pub is_forced: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum FillMode<'a> {
    Null,
    /// One for each column that is computed.
    Value(Vec<Expr<'a>>),
    Previous,
    Next,
    Linear,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Order<'a> {
    pub expr: Expr<'a>,
    pub descending: bool,
    pub nulls_first: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    pub rows: u64,
    pub offset: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Expr<'a> {
    Literal(Literal<'a>),
    /// `*` or `table.*`.
    Star,
    Column { table: Option<String>, name: String, quoted: bool },
    Unary { operator: Unary, operand: Box<Expr<'a>> },
    Binary { operator: Binary, left: Box<Expr<'a>>, right: Box<Expr<'a>> },
    /// Name in lower case.
    Call { name: String, arguments: Vec<Expr<'a>> },
    Cast { operand: Box<Expr<'a>>, data_type: TypeName },
    In { operand: Box<Expr<'a>>, list: Vec<Expr<'a>>, negated: bool },
    Between { operand: Box<Expr<'a>>, low: Box<Expr<'a>>, high: Box<Expr<'a>>, negated: bool },
    IsNull { operand: Box<Expr<'a>>, negated: bool },
    Case { operand: Option<Box<Expr<'a>>>, branches: Vec<(Expr<'a>, Expr<'a>)>, otherwise: Option<Box<Expr<'a>>> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unary {
    Minus,
    Not,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Like,
    NotLike,
    Match,
    NotMatch,
    /// `->` of a JSON tag.
    Arrow,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    BitAnd,
    BitOr,
}
