//! A real shared library over the engine's loader: the loop-marking plugin's.

use std::path::Path;

use pipeline_engine::config::PluginPin;
use pipeline_engine::graph::Catalog;
use pipeline_engine::host::{LoadOptions, Plugins, SearchPath};
use pipeline_sdk::Kind;
use pipeline_tests::binary;

/// The library says which types it has: it stays closed where none of them is wanted.
#[test]
fn only_libraries_with_a_wanted_type_are_opened() {
    let scene = tempfile::tempdir().unwrap();
    for name in ["loop_mark", "files", "tdengine", "basics"] {
        let name = format!("libpipeline_plugin_{name}.so");
        std::fs::copy(binary().with_file_name(&name), scene.path().join(&name)).unwrap();
    }
    let opened = |wanted: &[&str]| {
        let wanted = wanted.iter().map(|it| (*it).to_owned()).collect();
        let search = SearchPath { folders: vec![scene.path().to_owned()] };
        let plugins = Plugins::load(&LoadOptions { search, wanted: Some(wanted), ..LoadOptions::default() });
        assert!(plugins.problems().is_empty(), "{:?}", plugins.problems());
        plugins.loaded().iter().map(|it| it.description.name.clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(opened(&["files"]), "files");
    assert_eq!(opened(&["files", "where"]), "basics files");
    // The replica that a plugin makes up of components has the transform of another one.
    assert_eq!(opened(&["tdengine"]), "tdengine loop-mark");
    // What is there instead of what is nowhere belongs into the error.
    assert_eq!(opened(&["fles"]), "basics files loop-mark tdengine");
}

fn load(folder: &Path, pin: Option<&str>) -> Plugins {
    let pins = pin.map(|sha256| ("loop-mark".to_owned(), PluginPin { sha256: sha256.into() }));
    Plugins::load(&LoadOptions {
        search: SearchPath { folders: vec![folder.to_owned()] },
        wanted: None,
        copies: Some(folder.join("copies")),
        pins: pins.into_iter().collect(),
        accept_stale: false,
    })
}

#[test]
fn a_shared_library_is_opened_from_a_copy_under_its_hash() {
    let name = "libpipeline_plugin_loop_mark.so";
    let scene = tempfile::tempdir().unwrap();
    let folder = scene.path();
    std::fs::copy(binary().with_file_name(name), folder.join(name)).unwrap();
    let plugins = load(folder, None);
    assert!(plugins.problems().is_empty(), "{:?}", plugins.problems());
    let loaded = &plugins.loaded()[0];
    assert_eq!(loaded.description.name, "loop-mark");
    assert!(plugins.component(Kind::Transform, "loop-mark").is_some());
    assert!(plugins.lint(Kind::Transform, "loop-mark", &serde_json::json!({})).is_empty());
    assert!(!plugins.lint(Kind::Transform, "loop-mark", &serde_json::json!({ "odd": 1 })).is_empty());
    let copies: Vec<_> = std::fs::read_dir(folder.join("copies")).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(copies.len(), 1);
    assert!(copies[0].to_string_lossy().contains(&loaded.sha256[..16]));

    // A copy that a loss of power left behind, as long as it should be: put in its place, as the old one is in use.
    let copy = folder.join("copies").join(&copies[0]);
    let whole = std::fs::read(&copy).unwrap();
    std::fs::write(folder.join("zeros"), vec![0; whole.len()]).unwrap();
    std::fs::rename(folder.join("zeros"), &copy).unwrap();
    assert!(load(folder, None).problems().is_empty());
    assert_eq!(std::fs::read(&copy).unwrap(), whole);

    let right = loaded.sha256.to_uppercase();
    assert!(load(folder, Some(&right)).problems().is_empty());
    let wrong = load(folder, Some(&"0".repeat(64)));
    assert_eq!(wrong.problems()[0].error.code, "plugin.pin");
}
