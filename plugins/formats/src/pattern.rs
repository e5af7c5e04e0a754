//! Topics and subjects with names for levels: `meters/{location}/{device}` asks for `meters/+/+` and gives two columns.

use pipeline_sdk::{Error, Result};

/// How a broker writes its filters.
#[derive(Clone, Copy, Debug)]
pub struct Syntax {
    pub separator: char,
    /// Stands for one level.
    pub one: &'static str,
    /// Stands for all levels from there on.
    pub rest: &'static str,
    /// Levels in front that are no part of what messages carry, where the first one is this: `$share`, of two levels.
    pub prefix: Option<(&'static str, usize)>,
}

pub const MQTT: Syntax = Syntax { separator: '/', one: "+", rest: "#", prefix: Some(("$share", 2)) };
pub const NATS: Syntax = Syntax { separator: '.', one: "*", rest: ">", prefix: None };

/// Filters, and the columns that their named levels give.
#[derive(Debug)]
pub struct Patterns {
    syntax: Syntax,
    patterns: Vec<Pattern>,
    columns: Vec<String>,
}

#[derive(Debug)]
struct Pattern {
    filter: String,
    /// The levels that messages carry.
    levels: Vec<String>,
    /// Which level has which name, by its index in `columns`.
    named: Vec<(usize, usize)>,
}

impl Patterns {
    /// Of what comes without a topic.
    pub fn none() -> Self {
        Self { syntax: MQTT, patterns: Vec::new(), columns: Vec::new() }
    }

    /// # Errors
    /// Fatal, with the place in `key`: it is no filter.
    pub fn new(texts: &[String], syntax: Syntax, key: &str) -> Result<Self> {
        let mut all = Self { syntax, patterns: Vec::new(), columns: Vec::new() };
        for (index, text) in texts.iter().enumerate() {
            let pattern = all.pattern(text).map_err(|why| Error::fatal(format!("`{text}`: {why}")).path(format!("{key}[{index}]")))?;
            all.patterns.push(pattern);
        }
        Ok(all)
    }

    fn pattern(&mut self, text: &str) -> std::result::Result<Pattern, String> {
        let Syntax { separator, one, rest, prefix } = self.syntax;
        let levels: Vec<&str> = text.split(separator).collect();
        let skipped = prefix.map_or(0, |(first, count)| if levels[0] == first { count } else { 0 });
        let (mut filter, mut named) = (Vec::with_capacity(levels.len()), Vec::new());
        for (index, level) in levels.iter().enumerate() {
            match level.strip_prefix('{').and_then(|it| it.strip_suffix('}')) {
                Some(name) if !name.is_empty() && !name.contains(['{', '}']) => {
                    let column = self.columns.iter().position(|it| it == name).unwrap_or_else(|| {
                        self.columns.push(name.to_owned());
                        self.columns.len() - 1
                    });
                    if index < skipped || named.iter().any(|(_, it)| *it == column) {
                        return Err(format!("`{{{name}}}` cannot stand there"));
                    }
                    named.push((index - skipped, column));
                    filter.push(one.to_owned());
                }
                _ if level.contains(['{', '}']) => return Err(format!("a name stands for a whole level: `a{separator}{{name}}{separator}b`")),
                _ if *level == rest && index + 1 < levels.len() => return Err(format!("`{rest}` is the last level")),
                _ if level.len() > 1 && [one, rest].iter().any(|it| level.contains(it)) => {
                    return Err(format!("`{one}` and `{rest}` stand for whole levels"));
                }
                _ => filter.push((*level).to_owned()),
            }
        }
        let whole = filter.join(&separator.to_string());
        if whole.is_empty() || whole.len() > u16::MAX.into() || whole.contains('\0') {
            return Err("it has 1 to 65535 bytes, without a NUL".into());
        }
        Ok(Pattern { filter: whole, levels: filter.split_off(skipped.min(filter.len())), named })
    }

    /// As the broker takes them.
    pub fn filters(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|it| it.filter.as_str())
    }

    /// Names of levels of all patterns, in the order in which they come first.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The levels of a message's topic that have names, each at its column's index.
    pub(crate) fn levels<'t>(&self, topic: &'t str, found: &mut Vec<Option<&'t str>>) {
        found.clear();
        found.resize(self.columns.len(), None);
        if self.columns.is_empty() {
            return;
        }
        let Some(pattern) = self.patterns.iter().find(|it| it.is_match(topic, self.syntax)) else { return };
        for (level, text) in topic.split(self.syntax.separator).enumerate() {
            if let Some((_, column)) = pattern.named.iter().find(|(it, _)| *it == level) {
                found[*column] = Some(text);
            }
        }
    }
}

impl Pattern {
    fn is_match(&self, topic: &str, syntax: Syntax) -> bool {
        let mut levels = self.levels.iter();
        let mut topic = topic.split(syntax.separator);
        loop {
            match (levels.next(), topic.next()) {
                (Some(level), _) if level == syntax.rest => return true,
                (None, None) => return true,
                (Some(level), Some(_)) if level == syntax.one => {}
                (Some(level), Some(text)) if level == text => {}
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_names() {
        let topics: Vec<String> = ["meters/{location}/{device}", "$share/g/alarms/{device}/#", "plain/+"].map(Into::into).into();
        let topics = Patterns::new(&topics, MQTT, "topics").unwrap();
        assert_eq!(topics.filters().collect::<Vec<_>>(), ["meters/+/+", "$share/g/alarms/+/#", "plain/+"]);
        assert_eq!(topics.columns(), ["location", "device"]);
        let mut found = Vec::new();
        for (topic, expected) in [
            ("meters/hall/d1", [Some("hall"), Some("d1")]),
            ("alarms/d2/high/now", [None, Some("d2")]),
            ("alarms/d2", [None, Some("d2")]),
            ("plain/x", [None, None]),
            ("meters/hall", [None, None]),
        ] {
            topics.levels(topic, &mut found);
            assert_eq!(found, expected, "{topic}");
        }
        let subjects = Patterns::new(&["a.{x}.>".into()], NATS, "subjects").unwrap();
        assert_eq!(subjects.filters().next(), Some("a.*.>"));
    }

    #[test]
    fn what_is_no_filter_is_refused() {
        for wrong in ["", "a/{}", "a/x{b}", "#/a", "a+/b", "{a}/{a}", "a/{b", "$share/{g}/a"] {
            let error = Patterns::new(&[wrong.into()], MQTT, "topics").unwrap_err().to_string();
            assert!(error.starts_with("topics[0]: "), "{wrong}: {error}");
        }
    }
}
