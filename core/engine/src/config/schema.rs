//! Checks values against JSON Schema, the part of it that schemars emits, with the place of everything that is wrong.
//!
//! Stricter than the standard in one point: an object whose schema lists properties takes no others unless it says so, since an
//! unknown key is nearly always a misspelt one. Formats `duration` and `bytes` are checked, `path` is left to the graph,
//! integer formats give ranges; other formats and patterns are the plugin's to check.

use serde_json::Value as Json;

use super::problem::{Problem, listed};
use super::units::{parse_bytes, parse_duration};
use super::value::{Data, Span, Table, Text, Value, join};

/// A schema with the document its references point into.
#[derive(Clone, Copy)]
pub struct Schema<'a> {
    root: &'a Json,
    /// Names what the value is, for messages: "a `tdengine` sink".
    title: &'a str,
    /// Keys that are allowed beside those of the schema and checked elsewhere; suggested for misspelt ones.
    beside: &'a [&'a str],
}

/// Where a value stands.
#[derive(Clone, Copy)]
struct Place<'p> {
    span: &'p Span,
    path: &'p str,
}

impl Place<'_> {
    fn problem(&self, message: impl Into<String>) -> Problem {
        Problem::new(self.span, self.path, message)
    }
}

impl<'a> Schema<'a> {
    pub fn new(root: &'a Json, title: &'a str) -> Self {
        Self { root, title, beside: &[] }
    }

    pub fn beside(self, keys: &'a [&'a str]) -> Self {
        Self { beside: keys, ..self }
    }

    /// Everything that is wrong with a table whose header stands at `span`.
    pub fn check(&self, table: &Table, span: &Span, path: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.object(self.root, table, Place { span, path }, true, &mut problems);
        problems
    }

    fn value(&self, schema: &'a Json, value: &Value, path: &str, problems: &mut Vec<Problem>) {
        let schema = self.resolve(schema);
        let Some(rules) = schema.as_object() else {
            if schema == &Json::Bool(false) {
                problems.push(Problem::new(&value.span, path, "nothing is allowed here"));
            }
            return;
        };
        if let Some(choices) = self.choices(schema) {
            return self.choice(&choices, value, path, problems);
        }
        if let Some(branches) = rules.get("oneOf").or(rules.get("anyOf")).and_then(Json::as_array)
            && !matches!(value.data, Data::Table(_) if rules.contains_key("properties"))
        {
            return self.branches(branches, value, path, problems);
        }
        if !self.type_fits(schema, value) {
            let expected = self.expected(schema);
            return problems.push(with_description(unexpected(value, path, &expected), schema));
        }
        let place = Place { span: &value.span, path };
        match &value.data {
            Data::Text(text) => {
                let length = (text.value.chars().count() as f64, " characters");
                problems.extend(range(schema, ("minLength", "maxLength"), length, place));
                problems.extend(format(schema, text, place));
            }
            Data::Integer(number) => problems.extend(number_range(schema, *number as f64, place)),
            Data::Float(number) => problems.extend(number_range(schema, *number, place)),
            Data::Array(items) => self.array(schema, items, place, problems),
            Data::Table(table) => self.object(schema, table, place, false, problems),
            Data::Boolean(_) | Data::Datetime(_) => {}
        }
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        // A reference that leads nowhere allows everything, rather than refusing what the plugin will take.
        for _ in 0..16 {
            let Some(reference) = schema.get("$ref").and_then(Json::as_str) else { break };
            match self.root.pointer(reference.trim_start_matches('#')) {
                Some(target) => schema = target,
                None => return &Json::Bool(true),
            }
        }
        schema
    }

    /// The values of an enumeration: `enum`, `const`, or branches that are all of these.
    fn choices(&self, schema: &'a Json) -> Option<Vec<&'a Json>> {
        let schema = self.resolve(schema);
        if let Some(values) = schema.get("enum").and_then(Json::as_array) {
            return Some(values.iter().collect());
        }
        if let Some(value) = schema.get("const") {
            return Some(vec![value]);
        }
        let branches = schema.get("oneOf").or(schema.get("anyOf"))?.as_array()?;
        let nested: Option<Vec<Vec<&Json>>> = branches
            .iter()
            .filter(|branch| branch.get("type") != Some(&Json::from("null")))
            .map(|branch| self.choices(branch))
            .collect();
        nested.map(|values| values.concat())
    }

    fn choice(&self, choices: &[&Json], value: &Value, path: &str, problems: &mut Vec<Problem>) {
        let json = value.to_json();
        if choices.contains(&&json) {
            return;
        }
        let texts: Vec<&str> = choices.iter().filter_map(|choice| choice.as_str()).collect();
        problems.push(match value.as_text() {
            Some(text) => Problem::new(&value.span, path, format!("unknown value `{}`", text.shown()))
                .suggest(text.shown(), texts),
            None => unexpected(value, path, &format!("one of {}", listed(&texts))),
        });
    }

    /// Takes the branch that the value seems to mean, and says what is wrong with that one.
    fn branches(&self, branches: &'a [Json], value: &Value, path: &str, problems: &mut Vec<Problem>) {
        let fitting: Vec<&Json> =
            branches.iter().map(|branch| self.resolve(branch)).filter(|branch| self.shape_fits(branch, value)).collect();
        if fitting.is_empty() {
            if let Some(problem) = self.wrong_tag(branches, value, path) {
                return problems.push(problem);
            }
            let mut expected: Vec<String> = branches.iter().map(|branch| self.expected(self.resolve(branch))).collect();
            expected.retain(|kind| kind != "nothing");
            expected.dedup();
            return problems.push(unexpected(value, path, &expected.join(" or ")));
        }
        let tried = fitting.iter().map(|branch| {
            let mut problems = Vec::new();
            self.value(branch, value, path, &mut problems);
            problems
        });
        problems.extend(tried.min_by_key(Vec::len).unwrap_or_default());
    }

    /// Of a table that no branch takes: what is wrong with the key that tells the branches apart.
    fn wrong_tag(&self, branches: &'a [Json], value: &Value, path: &str) -> Option<Problem> {
        let table = value.as_table()?;
        let mut tags: Vec<(&str, &str)> = Vec::new();
        for properties in branches.iter().filter_map(|it| self.resolve(it).get("properties")?.as_object()) {
            let constant = |(key, rule): (&'a String, &'a Json)| Some((key.as_str(), self.resolve(rule).get("const")?.as_str()?));
            tags.extend(properties.iter().filter_map(constant));
        }
        let (key, _) = *tags.first()?;
        let known = tags.iter().filter(|(name, _)| *name == key).map(|(_, value)| *value);
        match table.get(key) {
            Some(given) => {
                let text = given.as_text().map_or(given.kind(), |text| text.shown());
                Some(Problem::new(&given.span, join(path, key), format!("unknown value `{text}`")).suggest(text, known))
            }
            None => Some(Problem::new(&value.span, path, format!("missing key `{key}`")).suggest("", known)),
        }
    }

    /// Whether type and tags (properties with one possible value) are those of the branch.
    fn shape_fits(&self, branch: &'a Json, value: &Value) -> bool {
        if !self.type_fits(branch, value) {
            return false;
        }
        let (Data::Table(table), Some(properties)) = (&value.data, branch.get("properties").and_then(Json::as_object))
        else {
            return true;
        };
        properties.iter().all(|(key, property)| match (table.get(key), self.resolve(property).get("const")) {
            (Some(value), Some(constant)) => value.to_json() == *constant,
            _ => true,
        })
    }

    fn types(&self, schema: &'a Json) -> Vec<&'a str> {
        match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(many)) => many.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        }
    }

    fn type_fits(&self, schema: &'a Json, value: &Value) -> bool {
        if let Some(choices) = self.choices(schema) {
            return choices.iter().any(|choice| choice.is_string() == value.as_text().is_some());
        }
        if let Some(branches) = schema.get("oneOf").or(schema.get("anyOf")).and_then(Json::as_array)
            && schema.get("type").is_none()
        {
            return branches.iter().any(|branch| self.type_fits(self.resolve(branch), value));
        }
        let types = self.types(schema);
        types.is_empty()
            || types.iter().any(|name| match *name {
                "string" => matches!(value.data, Data::Text(_) | Data::Datetime(_)),
                "integer" => matches!(value.data, Data::Integer(_)),
                "number" => matches!(value.data, Data::Integer(_) | Data::Float(_)),
                "boolean" => matches!(value.data, Data::Boolean(_)),
                "array" => matches!(value.data, Data::Array(_)),
                "object" => matches!(value.data, Data::Table(_)),
                _ => false,
            })
    }

    /// What the schema wants, in words.
    fn expected(&self, schema: &'a Json) -> String {
        if let Some(choices) = self.choices(schema) {
            let texts: Vec<&str> = choices.iter().filter_map(|choice| choice.as_str()).collect();
            return format!("one of {}", listed(&texts));
        }
        let format = schema.get("format").and_then(Json::as_str);
        let mut words: Vec<&str> = self
            .types(schema)
            .into_iter()
            .filter_map(|name| match (name, format) {
                ("string", Some("duration")) => Some("a duration such as \"30s\""),
                ("string", Some("freshness")) => Some("a duration such as \"10ms\", or \"adaptive\""),
                ("string", Some("bytes")) => Some("a size such as \"64MiB\""),
                ("string", _) => Some("a string"),
                ("integer", _) => Some("an integer"),
                ("number", _) => Some("a number"),
                ("boolean", _) => Some("true or false"),
                ("array", _) => Some("an array"),
                ("object", _) => Some("a table"),
                _ => None,
            })
            .collect();
        words.dedup();
        if words.is_empty() { "nothing".into() } else { words.join(" or ") }
    }

    fn array(&self, schema: &'a Json, items: &[Value], place: Place<'_>, problems: &mut Vec<Problem>) {
        problems.extend(range(schema, ("minItems", "maxItems"), (items.len() as f64, " items"), place));
        let tuple = schema.get("prefixItems").and_then(Json::as_array);
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", place.path);
            let rule = tuple.and_then(|tuple| tuple.get(index)).or(schema.get("items"));
            if let Some(rule) = rule {
                self.value(rule, item, &path, problems);
            }
            let unique = schema.get("uniqueItems") == Some(&Json::Bool(true));
            if unique && items[..index].iter().any(|earlier| earlier.to_json() == item.to_json()) {
                problems.push(Problem::new(&item.span, path, "is there twice"));
            }
        }
    }

    fn object(
        &self,
        schema: &'a Json,
        table: &Table,
        place: Place<'_>,
        is_root: bool,
        problems: &mut Vec<Problem>,
    ) {
        let mut known = Vec::new();
        self.properties(schema, table, &mut known);
        let has = |key: &str| known.iter().find(|(name, _)| *name == key).map(|(_, rule)| *rule);
        let additional = schema.get("additionalProperties");
        for entry in &table.entries {
            let path = join(place.path, &entry.key);
            match (has(&entry.key), additional) {
                (Some(rule), _) => self.value(rule, &entry.value, &path, problems),
                (None, Some(rule @ Json::Object(_))) => self.value(rule, &entry.value, &path, problems),
                (None, Some(Json::Bool(true))) => {}
                (None, None) if known.is_empty() && !is_root => {}
                (None, _) => {
                    let beside = if is_root { self.beside } else { &[] };
                    let names = known.iter().map(|(name, _)| *name).chain(beside.iter().copied());
                    let owner = if is_root { format!(" of {}", self.title) } else { String::new() };
                    let message = format!("unknown key `{}`{owner}", entry.key);
                    problems.push(Problem::new(&entry.key_span, path, message).suggest(&entry.key, names));
                }
            }
        }
        let required = schema.get("required").and_then(Json::as_array).into_iter().flatten();
        for key in required.filter_map(Json::as_str).filter(|key| table.get(key).is_none()) {
            let owner = if is_root { format!(" of {}", self.title) } else { String::new() };
            let problem = Problem::new(place.span, place.path, format!("missing key `{key}`{owner}"));
            problems.push(match has(key) {
                Some(rule) => with_description(problem, self.described(rule)),
                None => problem,
            });
        }
    }

    /// The schema that describes a property: the property itself where it does, else what it refers to.
    fn described(&self, rule: &'a Json) -> &'a Json {
        if rule.get("description").is_some() { rule } else { self.resolve(rule) }
    }

    /// Properties of the schema and of the branches it is made of (`allOf`, and the branch of `oneOf` that fits).
    fn properties(&self, schema: &'a Json, table: &Table, known: &mut Vec<(&'a str, &'a Json)>) {
        let own = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
        known.extend(own.map(|(name, rule)| (name.as_str(), rule)));
        for key in ["allOf", "oneOf", "anyOf"] {
            for branch in schema.get(key).and_then(Json::as_array).into_iter().flatten() {
                let branch = self.resolve(branch);
                let whole = Value { span: 0..0, data: Data::Table(table.clone()) };
                if key == "allOf" || self.shape_fits(branch, &whole) {
                    self.properties(branch, table, known);
                }
            }
        }
    }
}

fn unexpected(value: &Value, path: &str, expected: &str) -> Problem {
    Problem::new(&value.span, path, format!("expected {expected}, found {}", value.kind()))
}

/// With the first line of a schema's description as hint.
fn with_description(problem: Problem, schema: &Json) -> Problem {
    match schema.get("description").and_then(Json::as_str).and_then(|text| text.lines().next()) {
        Some(line) => problem.hint(line.to_owned()),
        None => problem,
    }
}

fn format(schema: &Json, text: &Text, place: Place<'_>) -> Option<Problem> {
    // A reference that could not be resolved was reported; its empty text is no second error.
    if text.value.is_empty() && text.template.is_some() {
        return None;
    }
    let result = match schema.get("format").and_then(Json::as_str) {
        Some("duration") => parse_duration(&text.value).map(drop),
        Some("bytes") => parse_bytes(&text.value).map(drop),
        Some("freshness") if text.value != "adaptive" => {
            parse_duration(&text.value).map(drop).map_err(|message| format!("{message}, or `adaptive`"))
        }
        _ => Ok(()),
    };
    result.err().map(|message| place.problem(message))
}

fn number_range(schema: &Json, number: f64, place: Place<'_>) -> Option<Problem> {
    let bound = |key| schema.get(key).and_then(Json::as_f64);
    if let Some(problem) = range(schema, ("minimum", "maximum"), (number, ""), place) {
        return Some(problem);
    }
    if let Some(least) = bound("exclusiveMinimum").filter(|least| number <= *least) {
        return Some(place.problem(format!("{number} is too small: more than {least} is needed")));
    }
    if let Some(most) = bound("exclusiveMaximum").filter(|most| number >= *most) {
        return Some(place.problem(format!("{number} is too large: less than {most} is allowed")));
    }
    let (least, most) = match schema.get("format").and_then(Json::as_str)? {
        "int8" => (i64::from(i8::MIN), i64::from(i8::MAX)),
        "int16" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        "int32" => (i64::from(i32::MIN), i64::from(i32::MAX)),
        "uint8" => (0, i64::from(u8::MAX)),
        "uint16" => (0, i64::from(u16::MAX)),
        "uint32" => (0, i64::from(u32::MAX)),
        "uint64" | "uint" => (0, i64::MAX),
        _ => return None,
    };
    let inside = number >= least as f64 && number <= most as f64;
    (!inside).then(|| place.problem(format!("{number} is out of range: {least} to {most} is allowed")))
}

/// Bounds of a number, a length or a count.
fn range(schema: &Json, (least, most): (&str, &str), (found, unit): (f64, &str), place: Place<'_>) -> Option<Problem> {
    let bound = |key| schema.get(key).and_then(Json::as_f64);
    let (small, large) = if unit.is_empty() { ("is too small", "is too large") } else { ("are too few", "are too many") };
    if let Some(least) = bound(least).filter(|least| found < *least) {
        return Some(place.problem(format!("{found}{unit} {small}: at least {least} is needed")));
    }
    let most = bound(most).filter(|most| found > *most)?;
    Some(place.problem(format!("{found}{unit} {large}: at most {most} is allowed")))
}
