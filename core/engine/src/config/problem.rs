//! What is wrong with a file, with its exact place.
//!
//! A [`Report`] holds all that was found at once. It shows the line, a caret, the dotted path and a hint; secrets in the line
//! shown are covered.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::Serialize;

use super::secret::Redactor;

/// Lines wider than this are cut around the caret.
const WIDTH_MAX: usize = 140;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Bytes of the text that are to blame; `None` where the file as a whole is.
    pub span: Option<Range<usize>>,
    /// The dotted path of the key, empty at the top.
    pub path: String,
    pub message: String,
    pub hint: Option<String>,
}

impl Problem {
    pub fn new(span: &Range<usize>, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { span: Some(span.clone()), path: path.into(), message: message.into(), hint: None }
    }

    pub fn of_file(message: impl Into<String>) -> Self {
        Self { span: None, path: String::new(), message: message.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With a hint that names the candidate closest to `wrong`, or else the whole list.
    pub fn suggest<'a>(self, wrong: &str, candidates: impl IntoIterator<Item = &'a str>) -> Self {
        let candidates: Vec<&str> = candidates.into_iter().collect();
        match (closest(wrong, &candidates), candidates.is_empty()) {
            (Some(close), _) => self.hint(format!("did you mean `{close}`?")),
            (None, false) => self.hint(format!("known: {}", listed(&candidates))),
            (None, true) => self,
        }
    }
}

/// The candidate that a person most likely meant.
pub fn closest<'a>(wrong: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let normal = |text: &str| text.to_lowercase().replace('_', "-");
    let wrong = normal(wrong);
    candidates
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&wrong, &normal(candidate)), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len().max(wrong.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// `` `a`, `b` and `c` ``
pub(crate) fn listed<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{}`", name.as_ref())).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => "none".into(),
    }
}

/// The text that problems point into.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The file's name as it was given.
    pub name: String,
    /// With secrets covered.
    pub text: Arc<str>,
}

/// Line and column of a place in a text, from 1; the column in characters.
pub(crate) fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(at)];
    (before.matches('\n').count() + 1, before.rsplit('\n').next().unwrap_or_default().chars().count() + 1)
}

/// All that is wrong with one file, in the order of the file.
#[derive(Clone, Debug)]
pub struct Report {
    pub source: Source,
    pub problems: Vec<Problem>,
}

/// One problem as a script wants it.
#[derive(Debug, Serialize)]
pub struct Place<'a> {
    pub file: &'a str,
    /// From 1; absent where the file as a whole is wrong.
    pub line: Option<usize>,
    /// In characters, from 1.
    pub column: Option<usize>,
    pub path: &'a str,
    pub message: &'a str,
    pub hint: Option<&'a str>,
}

impl Report {
    /// Takes secrets out of everything that will be shown, and orders the problems by place.
    pub(crate) fn new(name: &str, text: &str, redactor: &Redactor, mut problems: Vec<Problem>) -> Self {
        for problem in &mut problems {
            problem.message = redactor.redact(&problem.message);
            problem.hint = problem.hint.as_deref().map(|hint| redactor.redact(hint));
        }
        problems.sort_by_key(|problem| problem.span.as_ref().map(|span| (span.start, span.end)));
        problems.dedup();
        let source = Source { name: name.into(), text: redactor.cover(text).into() };
        Self { source, problems }
    }

    /// Every problem with line, caret, path and hint.
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDTH_MAX);
        let shown: Vec<String> = self.problems.iter().map(|problem| self.one(problem, &renderer)).collect();
        shown.join("\n\n")
    }

    fn one(&self, problem: &Problem, renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(&problem.message);
        let mut group = match &problem.span {
            Some(span) => {
                let label = if problem.path.is_empty() { String::new() } else { format!("at {}", problem.path) };
                let annotation = AnnotationKind::Primary.span(self.visible(span)).label(label);
                let snippet =
                    Snippet::source(&*self.source.text).path(&*self.source.name).annotation(annotation);
                Group::with_title(title).element(snippet)
            }
            None => Group::with_title(title).element(annotate_snippets::Origin::path(&*self.source.name)),
        };
        if let Some(hint) = &problem.hint {
            group = group.element(Level::HELP.with_name("hint").message(hint));
        }
        renderer.render(&[group])
    }

    /// The part of a span on its first line: a table of twenty lines is not underlined as a whole.
    fn visible(&self, span: &Range<usize>) -> Range<usize> {
        let text = &self.source.text;
        let start = span.start.min(text.len());
        let end = span.end.clamp(start, text.len());
        let line = text[start..end].find('\n').map_or(end, |at| start + at);
        start..line
    }

    /// Problems with line and column, for `--json`.
    pub fn places(&self) -> Vec<Place<'_>> {
        self.problems.iter().map(|problem| self.place(problem)).collect()
    }

    fn place<'a>(&'a self, problem: &'a Problem) -> Place<'a> {
        let at = problem.span.as_ref().map(|span| line_and_column(&self.source.text, span.start));
        Place {
            file: &self.source.name,
            line: at.map(|(line, _)| line),
            column: at.map(|(_, column)| column),
            path: &problem.path,
            message: &problem.message,
            hint: problem.hint.as_deref(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}
