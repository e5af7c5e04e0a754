//! What is found, and what is said of what cannot be loaded.

use std::path::{Path, PathBuf};

use pipeline_sdk::abi::glue::Runtime;
use pipeline_sdk::{ComponentDescription, Context, Kind, Plugin, Service, ServiceConfig};

use super::*;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Nothing {}

impl ServiceConfig for Nothing {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("nothing", Kind::Service, "")
    }

    fn build(self, _: Context) -> pipeline_sdk::Result<Box<dyn Service>> {
        Err(Error::fatal("never built"))
    }
}

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Reserved {
    #[expect(dead_code, reason = "only its name matters")]
    buffer: u32,
}

impl ServiceConfig for Reserved {
    fn describe() -> ComponentDescription {
        ComponentDescription::new("reserved", Kind::Service, "")
    }

    fn build(self, _: Context) -> pipeline_sdk::Result<Box<dyn Service>> {
        Err(Error::fatal("never built"))
    }
}

fn one() -> Plugin {
    Plugin::new("one", "1.0.0", "").service::<Nothing>()
}

fn two() -> Plugin {
    Plugin::new("two", "1.0.0", "").service::<Nothing>()
}

fn reserved() -> Plugin {
    Plugin::new("reserved", "1.0.0", "").service::<Reserved>()
}

#[test]
fn what_two_plugins_both_have_and_keys_of_the_engine_are_refused() {
    let check = |roots: Vec<&'static Root>, code: &str| {
        let error = Plugins::linked(roots).err().expect("it must be refused");
        assert_eq!(error.code, code, "{error}");
    };
    check(vec![pipeline_sdk::root!(Runtime::None, one), pipeline_sdk::root!(Runtime::None, two)], "plugin.component");
    check(vec![pipeline_sdk::root!(Runtime::None, one), pipeline_sdk::root!(Runtime::None, one)], "plugin.twice");
    check(vec![pipeline_sdk::root!(Runtime::None, reserved)], "plugin.reserved");
}

fn options(folders: &[&Path]) -> LoadOptions {
    let folders = folders.iter().map(|it| it.to_path_buf()).collect();
    LoadOptions { search: SearchPath { folders }, accept_stale: true, ..LoadOptions::default() }
}

#[test]
fn what_is_no_plugin_is_kept_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let check = |bytes: &[u8], code: &str| {
        std::fs::write(folder.path().join("libpipeline_plugin_x.so"), bytes).unwrap();
        let plugins = Plugins::load(&options(&[folder.path()]));
        let problem = &plugins.problems()[0];
        assert_eq!((problem.error.code.as_str(), plugins.loaded().len()), (code, 0), "{}", problem.error);
        assert!(problem.error.hint.is_some(), "{}", problem.error);
        let missing = plugins.library(Kind::Sink, "x").err().unwrap();
        assert!(missing.message.contains("libpipeline_plugin_x.so"), "{missing}");
    };
    check(b"text", "plugin.machine");
    let mut header = vec![0; 64];
    header[..4].copy_from_slice(b"\x7fELF");
    header[18] = 40;
    check(&header, "plugin.machine");
    header[18] = if cfg!(target_arch = "x86_64") { 62 } else { 183 };
    check(&header, "plugin.open");
    let missing = Plugins::load(&options(&[Path::new("/nowhere")])).library(Kind::Sink, "x").err().unwrap();
    assert!(missing.message.contains("/nowhere") && missing.hint.unwrap().contains("cargo build"));
}

#[test]
fn earlier_folders_come_first_and_other_files_are_left_alone() {
    let (near, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, names) in [(&near, ["libpipeline_plugin_a.so", "libother.so"]), (&far, ["libpipeline_plugin_a.so", "libpipeline_plugin_b.so"])] {
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
    }
    let search = SearchPath::new(&[near.path().to_owned()], Some(&format!(":{}:", far.path().display())), Some(Path::new("/bin/pipeline")));
    assert_eq!(search.folders[2..], [PathBuf::from("/bin"), PathBuf::from(SYSTEM_FOLDER)]);
    assert_eq!(search.files(), [near.path().join("libpipeline_plugin_a.so"), far.path().join("libpipeline_plugin_b.so")]);
}

#[test]
fn a_library_older_than_its_sources_is_stale() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let source = path("a source.rs");
    std::fs::write(&source, "").unwrap();
    std::fs::write(path("libpipeline_plugin_x.so"), "").unwrap();
    let library = path("libpipeline_plugin_x.so");
    let rules = format!("{}: {}\n", library.display(), source.display().to_string().replace(' ', "\\ "));
    std::fs::write(path("libpipeline_plugin_x.d"), rules).unwrap();
    stale::check(&library).unwrap();
    let later = std::time::SystemTime::now() + std::time::Duration::from_secs(60);
    std::fs::File::options().write(true).open(&source).unwrap().set_modified(later).unwrap();
    let error = stale::check(&library).unwrap_err();
    assert!(error.message.contains("a source.rs") && error.hint.unwrap().contains("cargo build"));
}
