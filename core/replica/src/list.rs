//! Adding to and taking from an array of texts in a TOML file that a person may have written: comments stay with what they are
//! about, lines stay lines.
//!
//! What stands between two items, the text before the later one, is up to its first line's end about the earlier one (a comment
//! behind it), and from there on about the later one.

use toml_edit::{Array, Value};

/// Texts of the array.
pub fn texts(array: &Array) -> impl Iterator<Item = &str> {
    array.iter().filter_map(Value::as_str)
}

/// Appends a text, on a line of its own where the array's items have one.
pub fn push(array: &mut Array, text: &str) {
    let indent = array.iter().map(before).find_map(|text| text.rsplit_once('\n').map(|(_, indent)| indent.to_owned()));
    let mut value = Value::from(text);
    match (indent, array.is_empty()) {
        (Some(indent), _) if array.trailing_comma() => {
            let (behind, rest) = split(array.trailing().as_str().unwrap_or_default());
            let behind = if behind.is_empty() { "\n".to_owned() } else { behind };
            value.decor_mut().set_prefix(format!("{behind}{indent}"));
            array.push_formatted(value);
            array.set_trailing(format!("\n{rest}"));
        }
        (Some(indent), _) => {
            // The last item's own decoration ends the last line.
            let last = array.len() - 1;
            let behind = array.get_mut(last).map(|last| after(last)).unwrap_or_default();
            if let Some(last) = array.get_mut(last) {
                last.decor_mut().set_suffix("");
            }
            value.decor_mut().set_prefix(match behind.contains('\n') {
                true => format!("{}{indent}", split(&behind).0),
                false => format!("\n{indent}"),
            });
            value.decor_mut().set_suffix("\n");
            array.push_formatted(value);
        }
        (None, is_first) => {
            value.decor_mut().set_prefix(if is_first { "" } else { " " });
            array.push_formatted(value);
        }
    }
}

/// Takes a text out, everywhere. Whether it was there.
pub fn remove(array: &mut Array, text: &str) -> bool {
    let mut found = false;
    loop {
        let index = array.iter().position(|value| value.as_str() == Some(text));
        let Some(index) = index else { return found };
        found = true;
        let before_removed = before(array.get(index).expect("it was just found"));
        array.remove(index);
        let (earlier, _) = split(&before_removed);
        match array.get_mut(index) {
            Some(next) => {
                let (_, own) = split(&before(next));
                let is_lines = before_removed.contains('\n') || before(next).contains('\n');
                next.decor_mut().set_prefix(if is_lines { format!("{earlier}{own}") } else { before_removed });
            }
            None if before_removed.contains('\n') => {
                let (_, rest) = split(array.trailing().as_str().unwrap_or_default());
                array.set_trailing(format!("{earlier}{rest}"));
            }
            None => {}
        }
    }
}

/// Up to and with the first line's end, and the rest; all is the rest where there is no line's end.
fn split(text: &str) -> (String, String) {
    match text.split_once('\n') {
        Some((first, rest)) => (format!("{first}\n"), rest.to_owned()),
        None => (String::new(), text.to_owned()),
    }
}

fn before(value: &Value) -> String {
    value.decor().prefix().and_then(|raw| raw.as_str()).unwrap_or_default().to_owned()
}

fn after(value: &Value) -> String {
    value.decor().suffix().and_then(|raw| raw.as_str()).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toml_edit::DocumentMut;

    fn edited(text: &str, edit: impl Fn(&mut Array)) -> String {
        let mut document: DocumentMut = format!("list = {text}\n").parse().unwrap();
        edit(document["list"].as_array_mut().unwrap());
        let text = document.to_string();
        text.parse::<DocumentMut>().unwrap_or_else(|error| panic!("{error}:\n{text}"));
        text["list = ".len()..].trim_end().to_owned()
    }

    const LINES: &str = "[\n  \"power\", # main\n  # of the works\n  \"water\", # second\n  \"gas\",\n  # end\n]";

    #[test]
    fn items_are_added_as_a_person_would() {
        let check = |text: &str, expect: &str| assert_eq!(edited(text, |array| push(array, "new")), expect);
        check("[]", r#"["new"]"#);
        check(r#"["power"]"#, r#"["power", "new"]"#);
        check("[\n  \"a\",\n  \"b\",\n]", "[\n  \"a\",\n  \"b\",\n  \"new\",\n]");
        check("[\n  \"a\",\n  \"b\", # why\n]", "[\n  \"a\",\n  \"b\", # why\n  \"new\",\n]");
        check("[\n  \"a\",\n  \"b\"\n]", "[\n  \"a\",\n  \"b\",\n  \"new\"\n]");
    }

    #[test]
    fn comments_survive_what_they_are_not_about() {
        let check = |text: &str, gone: &str, expect: &str| {
            assert_eq!(edited(text, |array| assert!(remove(array, gone))), expect, "without {gone}");
        };
        check(r#"["a", "b", "c"]"#, "a", r#"["b", "c"]"#);
        check(r#"["a", "b", "c"]"#, "b", r#"["a", "c"]"#);
        check(r#"["a", "b", "c"]"#, "c", r#"["a", "b"]"#);
        check(LINES, "water", "[\n  \"power\", # main\n  \"gas\",\n  # end\n]");
        check(LINES, "gas", "[\n  \"power\", # main\n  # of the works\n  \"water\", # second\n  # end\n]");
        check(LINES, "power", "[\n  # of the works\n  \"water\", # second\n  \"gas\",\n  # end\n]");
        assert!(!remove(&mut Array::new(), "a"));
    }
}
