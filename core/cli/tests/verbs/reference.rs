//! The pages of `docs/reference` say what the plugins say of themselves.

use std::path::Path;

use crate::pipeline;

#[test]
fn every_page_is_what_its_plugin_says() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference"));
    let renew = |name: &str| format!("pipeline plugin describe {name} --format markdown > docs/reference/{name}.md");
    let pages: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        // A workspace of its own: `tests/sql/run` compares its page.
        .filter(|name| name != "sql")
        .collect();
    for name in &pages {
        let page = std::fs::read_to_string(folder.join(format!("{name}.md"))).unwrap();
        let output = pipeline(folder, &["plugin", "describe", name, "--format", "markdown"]);
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(said == page, "docs/reference/{name}.md is out of date; renew it:\n  {}", renew(name));
    }
}
