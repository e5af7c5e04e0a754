//! `pipeline plugin new`: a small project that builds, with a test and a pipeline file. Its files are in `templates/`.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use crate::error::{CommandError, CommandResult};
use crate::output::Output;

/// Start a plugin: a small project that builds, with a test and a pipeline file
///
/// In Rust a library and a shared library made of it; in C one file, the header and a Makefile. The component does something small
/// and true: a source counts, a transform turns texts into capitals (in C it passes on the first rows), a sink writes lines, a service
/// greets who connects.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Name of the plugin and of its component: small letters, digits, hyphens
    name: String,
    /// What the component is
    #[arg(long)]
    kind: KindName,
    #[arg(long, default_value = "rust")]
    lang: Language,
    /// Where it is made
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    into: PathBuf,
    /// The folder of the SDK (`core/sdk` of pipeline's sources), for Rust. Without it the published version is named, or the folder of
    /// the sources where this executable was built in them
    #[arg(long, value_name = "FOLDER")]
    sdk: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  pipeline plugin new upper --kind transform
  pipeline plugin new my-source --kind source --into plugins
  pipeline plugin new first --kind transform --lang c";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum KindName {
    Source,
    Transform,
    Sink,
    Service,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Language {
    Rust,
    C,
}

const HEADER: &str = include_str!("../../../../sdk/include/pipeline_plugin.h");

macro_rules! template {
    ($name:literal) => {
        include_str!(concat!("../../../templates/", $name))
    };
}

impl Args {
    pub fn run(self, output: &Output) -> CommandResult {
        let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if !self.name.starts_with(|c: char| c.is_ascii_lowercase()) || !self.name.chars().all(is_name) || self.name.ends_with('-') {
            let error = CommandError::bad_usage(format!("`{}` is no name of a plugin", self.name));
            return Err(error.hint("small letters, digits and hyphens, a letter first: `my-source`"));
        }
        let folder = self.into.join(&self.name);
        if folder.exists() {
            let error = CommandError::failed(format!("{} exists", folder.display()));
            return Err(error.hint("nothing is overwritten: take another name or another --into"));
        }
        let files = match self.lang {
            Language::Rust => self.rust(),
            Language::C => self.c(),
        };
        for (path, text) in files {
            let path = folder.join(path);
            write(&path, &text).map_err(|error| CommandError::failed(format!("{}: {error}", path.display())))?;
        }
        output.line(&format!("{} is there. Next:\n\n  cd {}", folder.display(), folder.display()));
        let library = format!("libpipeline_plugin_{}.so", self.crate_name());
        output.line(&match self.lang {
            Language::Rust => format!("  cargo test && cargo build --workspace\n  pipeline plugin check target/debug/{library}"),
            Language::C => "  make && make test".to_owned(),
        });
        output.line(&format!("  pipeline run --plugin-path {} pipeline.toml", self.libraries()));
        Ok(())
    }

    fn crate_name(&self) -> String {
        self.name.replace('-', "_")
    }

    fn libraries(&self) -> &'static str {
        match self.lang {
            Language::Rust => "target/debug",
            Language::C => ".",
        }
    }

    fn filled(&self, text: &str) -> String {
        let (sdk, dylib_sdk) = self.sdk_dependency();
        let dependencies = match self.kind {
            KindName::Service => "tokio = { version = \"1\", features = [\"io-util\", \"macros\", \"net\"] }\n",
            _ => "",
        };
        let kind = format!("{:?}", self.kind).to_uppercase();
        let common = [("{{common}}", template!("c/common.c.txt")), ("{{library}}", template!("c/library.c.txt"))];
        let values = [
            ("{{name}}", self.name.as_str()),
            ("{{crate}}", &self.crate_name()),
            ("{{KIND}}", &kind),
            ("{{libraries}}", self.libraries()),
            ("{{sdk}}", &sdk),
            ("{{dylib-sdk}}", &dylib_sdk),
            ("{{dependencies}}", dependencies),
        ];
        let with_common = common.iter().fold(text.to_owned(), |text, (key, value)| text.replace(key, value));
        values.iter().fold(with_common, |text, (key, value)| text.replace(key, value))
    }

    /// As Cargo wants it, for the project and for the folder below it.
    fn sdk_dependency(&self) -> (String, String) {
        let built_from = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk"));
        let given = self.sdk.as_deref().or_else(|| built_from.join("Cargo.toml").exists().then_some(built_from));
        match given.map(|path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())) {
            Some(path) => {
                let text = format!("path = {:?}", path.display().to_string());
                (text.clone(), text)
            }
            None => {
                let text = format!("version = \"{}\"", env!("CARGO_PKG_VERSION"));
                (text.clone(), text)
            }
        }
    }

    fn pipeline_file(&self) -> (PathBuf, String) {
        let text = match self.kind {
            KindName::Source => template!("source.toml.txt"),
            KindName::Transform => template!("transform.toml.txt"),
            KindName::Sink => template!("sink.toml.txt"),
            KindName::Service => template!("service.toml.txt"),
        };
        ("pipeline.toml".into(), self.filled(text))
    }

    fn rust(&self) -> Vec<(PathBuf, String)> {
        let (component, test) = match self.kind {
            KindName::Source => (template!("rust/source.rs.txt"), template!("rust/source-test.rs.txt")),
            KindName::Transform => (template!("rust/transform.rs.txt"), template!("rust/transform-test.rs.txt")),
            KindName::Sink => (template!("rust/sink.rs.txt"), template!("rust/sink-test.rs.txt")),
            KindName::Service => (template!("rust/service.rs.txt"), template!("rust/service-test.rs.txt")),
        };
        let text = |path: &str, text: &str| (PathBuf::from(path), self.filled(text));
        vec![
            text("Cargo.toml", template!("rust/Cargo.toml.txt")),
            text("src/lib.rs", component),
            text("tests/component.rs", test),
            text("dylib/Cargo.toml", template!("rust/dylib-Cargo.toml.txt")),
            text("dylib/src/lib.rs", template!("rust/dylib-lib.rs.txt")),
            text("README.md", template!("rust/README.md.txt")),
            text(".gitignore", template!("gitignore.txt")),
            self.pipeline_file(),
        ]
    }

    fn c(&self) -> Vec<(PathBuf, String)> {
        let component = match self.kind {
            KindName::Source => template!("c/source.c.txt"),
            KindName::Transform => template!("c/transform.c.txt"),
            KindName::Sink => template!("c/sink.c.txt"),
            KindName::Service => template!("c/service.c.txt"),
        };
        vec![
            (format!("{}.c", self.crate_name()).into(), self.filled(component)),
            ("pipeline_plugin.h".into(), HEADER.to_owned()),
            ("Makefile".into(), self.filled(template!("c/Makefile.txt"))),
            ("README.md".into(), self.filled(template!("c/README.md.txt"))),
            (".gitignore".into(), self.filled(template!("gitignore.txt"))),
            self.pipeline_file(),
        ]
    }
}

fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(path, text)
}
