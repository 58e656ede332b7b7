//! The house rules that the compiler does not know: which module may see which, and which crates; what names and
//! files look like; what a process's build graph may not hold.
//!
//! The rule is [`LAYERS`], read from top to bottom. A new module has to be put in a layer before it can be used, and a
//! layer has to be given each crate by name: that is the moment to think.

#[path = "architecture/source.rs"]
mod source;

use source::{SourceFile, module_of};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What a group of modules may see. Each list is words with spaces between.
struct Layer {
    name: &'static str,
    /// `a` is the file `a.rs` alone, `a::*` everything below it. The first layer that fits counts.
    modules: &'static str,
    /// Layers it may see besides itself.
    sees: &'static str,
    /// Crates it may name besides [`PLAIN_CRATES`].
    crates: &'static str,
}

/// Crates without a technology: every layer may name them.
const PLAIN_CRATES: &str = "async_trait futures ipnet serde serde_json sha2 subtle thiserror std core alloc";

/// Parts of `std` that reach out of the process; only layers that list them among their crates may name them.
const REACHING_OUT: [&str; 4] = ["std::env", "std::fs", "std::net::TcpStream", "std::process"];

/// The dependency rule.
const LAYERS: &[Layer] = &[
    Layer {
        name: "concepts",
        modules: "agent agent::hop answer audit bounds budget clock error files id job limit message model nesting principal quote readiness region secret session tool unreadable",
        sees: "",
        crates: "getrandom ulid",
    },
    Layer { name: "metrics", modules: "metrics", sees: "concepts", crates: "metrics std::fs" },
    Layer { name: "workspace", modules: "agent::workspace", sees: "concepts", crates: "lru std::fs tracing" },
    Layer { name: "tools", modules: "tools tools::*", sees: "concepts", crates: "jiff serde_path_to_error" },
    Layer {
        name: "settings",
        modules: "config config::*",
        sees: "concepts tools",
        crates: "jiff json5 schemars serde_path_to_error strsim",
    },
    Layer { name: "logs", modules: "logs", sees: "concepts", crates: "jiff tracing tracing_subscriber" },
    Layer { name: "app", modules: "app", sees: "concepts metrics settings", crates: "tokio tracing" },
    Layer {
        name: "turns",
        modules: "agent::* worker worker::*",
        sees: "concepts metrics settings workspace app",
        crates: "lru tokio tokio_util tracing",
    },
    Layer {
        name: "http",
        modules: "http http::*",
        sees: "concepts metrics settings app",
        crates: "axum base64 bytes http_body http_body_util lru serde_path_to_error tokio tracing \
                 ulid utoipa",
    },
    Layer { name: "adapters", modules: "adapters", sees: "", crates: "" },
    Layer {
        name: "folder",
        modules: "adapters::folder",
        sees: "concepts",
        crates: "cap_fs_ext cap_std rustix std::fs tokio",
    },
    Layer { name: "memory", modules: "adapters::memory adapters::memory::*", sees: "concepts", crates: "" },
    Layer {
        name: "models",
        modules: "adapters::models adapters::models::*",
        sees: "concepts settings",
        crates: "bytes http jiff reqwest tokio",
    },
    Layer {
        name: "aws",
        modules: "adapters::aws adapters::aws::*",
        sees: "concepts",
        crates: "aws_config aws_sdk_dynamodb aws_sdk_lambda aws_sdk_s3 aws_sdk_sqs aws_smithy_http_client tokio tracing",
    },
    Layer {
        name: "onprem",
        modules: "adapters::onprem adapters::onprem::*",
        sees: "concepts",
        crates: "rusqlite std::fs tokio",
    },
    Layer {
        name: "prometheus",
        modules: "adapters::prometheus",
        sees: "metrics",
        crates: "metrics metrics_exporter_prometheus",
    },
    Layer {
        name: "cloud",
        modules: "cloud cloud::*",
        sees: "concepts metrics settings logs app turns models aws folder tools",
        crates: "aws_config aws_sdk_dynamodb aws_sdk_s3 aws_sdk_sqs std::fs std::process tokio tokio_util tracing tracing_subscriber",
    },
];

impl Layer {
    fn holds(&self, module: &str) -> bool {
        self.modules.split_whitespace().any(|pattern| match pattern.strip_suffix("::*") {
            Some(parent) => module.strip_prefix(parent).is_some_and(|rest| rest.starts_with("::")),
            None => pattern == module,
        })
    }

    fn may_see(&self, other: &Layer) -> bool {
        self.name == other.name || lists(self.sees, other.name)
    }

    fn may_name(&self, name: &str) -> bool {
        lists(PLAIN_CRATES, name) || lists(self.crates, name)
    }
}

fn lists(words: &str, wanted: &str) -> bool {
    words.split_whitespace().any(|word| word == wanted)
}

/// Crates that a process's entry point may not name: what they do has a home in `shared`.
const NOT_FOR_FUNCTIONS: [&str; 2] = ["rusqlite", "reqwest"];

/// Words that say nothing, or that mean something else here.
const WORDS_TO_AVOID: [&str; 11] = [
    "Manager",
    "Service",
    "Helper",
    "Util",
    "Utils",
    "Engine",
    "Impl",
    "Conversation",
    "Thread",
    "Task",
    "Bot",
];

/// A file is one concept.
const MAX_LINES: usize = 800;

fn layer_of(module: &str) -> Option<&'static Layer> {
    LAYERS.iter().find(|layer| layer.holds(module))
}

/// What is wrong with the library's files.
fn violations(files: &[SourceFile]) -> BTreeSet<String> {
    let modules: BTreeSet<&str> = files.iter().map(|file| file.module.as_str()).collect();
    let mut found = BTreeSet::new();
    for file in files.iter().filter(|file| !file.module.is_empty()) {
        let Some(layer) = layer_of(&file.module) else {
            found.insert(format!("{}: is in no layer", file.module));
            continue;
        };
        for path in &file.paths {
            if let Some(inner) = path.strip_prefix("crate::") {
                let target = owner(inner, &modules);
                let Some(seen) = layer_of(target) else { continue };
                if !layer.may_see(seen) {
                    found.insert(format!(
                        "{}: {} may not see {} ({path})",
                        file.module, layer.name, seen.name
                    ));
                }
            } else if let Some(part) = REACHING_OUT.iter().find(|part| starts_with(path, part)) {
                if !layer.may_name(part) {
                    found.insert(format!("{}: {} may not reach out by {path}", file.module, layer.name));
                }
            } else if !layer.may_name(path.split("::").next().unwrap_or(path)) {
                found.insert(format!("{}: {} may not name {path}", file.module, layer.name));
            }
        }
        found.extend(names_and_size(file));
    }
    found
}

/// What is wrong with any file of the product, whatever its layer.
fn names_and_size(file: &SourceFile) -> Vec<String> {
    let mut found = Vec::new();
    for name in &file.types {
        if let Some(word) = words(name).into_iter().find(|word| WORDS_TO_AVOID.contains(word)) {
            found.push(format!("{}: the name {name} holds the word {word}", file.module));
        }
    }
    if file.lines > MAX_LINES {
        found.push(format!("{}: {} lines are more than one concept", file.module, file.lines));
    }
    for spawn in ["tokio::spawn", "tokio::task::spawn"] {
        if file.paths.contains(spawn) {
            found.push(format!("{}: {spawn} outlives the reply", file.module));
        }
    }
    found
}

/// The module that a path within the crate leads to: its longest beginning that is a file.
fn owner<'a>(path: &'a str, modules: &BTreeSet<&str>) -> &'a str {
    let mut end = path.len();
    loop {
        if modules.contains(&path[..end]) {
            return &path[..end];
        }
        match path[..end].rfind("::") {
            Some(at) => end = at,
            None => return &path[..end],
        }
    }
}

fn starts_with(path: &str, beginning: &str) -> bool {
    path.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// `RateLimiter` is `Rate`, `Limiter`.
fn words(name: &str) -> Vec<&str> {
    let mut starts: Vec<_> = name.match_indices(char::is_uppercase).map(|(at, _)| at).collect();
    starts.push(name.len());
    starts.windows(2).map(|pair| &name[pair[0]..pair[1]]).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn rust_files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}

/// All Rust files of a `src` folder, unit tests in files of their own left out.
fn parsed(src: &Path) -> Vec<SourceFile> {
    let mut paths = Vec::new();
    rust_files(src, &mut paths);
    let files = paths.into_iter().filter_map(|path| {
        let inner = path.strip_prefix(src).unwrap();
        assert_ne!(inner.file_name().unwrap(), "mod.rs", "{}: modules are foo.rs + foo/", path.display());
        let module = module_of(inner);
        let text = fs::read_to_string(&path).unwrap();
        (!module.ends_with("tests")).then(|| SourceFile::parse(&module, &text))
    });
    files.collect()
}

#[test]
fn every_module_of_the_library_sees_only_what_its_layer_may() {
    let files = parsed(&root().join("shared/src"));
    assert!(files.len() > 20, "the library was not found");
    assert_eq!(violations(&files), BTreeSet::new());
}

#[test]
fn functions_only_wire() {
    let mut found = Vec::new();
    let entries = fs::read_dir(root().join("functions")).unwrap().map(|entry| entry.unwrap().path());
    for function in entries.filter(|path| path.join("Cargo.toml").exists()) {
        for file in parsed(&function.join("src")) {
            found.extend(names_and_size(&file));
            let named = file.paths.iter().map(|path| path.split("::").next().unwrap_or(path));
            let unwanted: BTreeSet<_> = named.filter(|name| NOT_FOR_FUNCTIONS.contains(name)).collect();
            found.extend(unwanted.into_iter().map(|name| format!("{}: names {name}", file.module)));
        }
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn no_layer_lists_what_it_does_not_use() {
    let files = parsed(&root().join("shared/src"));
    let mut found = Vec::new();
    for layer in LAYERS {
        let own: Vec<_> = files
            .iter()
            .filter(|file| layer_of(&file.module).is_some_and(|of| of.name == layer.name))
            .collect();
        assert!(!own.is_empty(), "nobody lives in {}", layer.name);
        for name in layer.crates.split_whitespace() {
            let used = own.iter().any(|file| file.paths.iter().any(|path| starts_with(path, name)));
            if !used {
                found.push(format!("{} lists {name}", layer.name));
            }
        }
        for seen in layer.sees.split_whitespace() {
            assert!(
                LAYERS.iter().any(|other| other.name == seen),
                "{} sees {seen}, which is none",
                layer.name
            );
        }
    }
    assert_eq!(found, [""; 0]);
}

#[test]
fn every_dependency_of_the_library_is_used() {
    let manifest = fs::read_to_string(root().join("shared/Cargo.toml")).unwrap();
    let (_, rest) = manifest.split_once("\n[dependencies]\n").unwrap();
    let (dependencies, _) = rest.split_once("\n[").unwrap();
    let names = dependencies.lines().filter_map(|line| line.split(['.', ' ', '=']).next());
    let names: BTreeSet<_> =
        names.filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect();
    assert!(names.contains("serde"), "the dependencies were not found: {names:?}");
    let files = parsed(&root().join("shared/src"));
    let used =
        |name: &&String| files.iter().any(|file| file.paths.iter().any(|path| starts_with(path, name)));
    assert_eq!(names.iter().filter(|name| !used(name)).collect::<Vec<_>>(), [""; 0]);
}

#[test]
fn planted_violations_are_found() {
    let clean = "
        use crate::error::Error;
        use serde::Serialize;
        pub struct RateLimiter { error: Error, at: std::time::Duration }
        #[cfg(test)]
        mod tests { use tokio::sync::Mutex; use crate::http::router; }
    ";
    let planted = |module: &str, text: &str| {
        let mut files = vec![
            SourceFile::parse("error", "pub struct Error;"),
            SourceFile::parse("http", "pub fn router() {}"),
            SourceFile::parse("agent", "pub struct Agent;"),
            SourceFile::parse("agent::runner", "pub struct Runner;"),
            SourceFile::parse("adapters::memory", "pub struct MemoryJobQueue;"),
            SourceFile::parse("adapters::onprem", "pub struct SqliteJobQueue;"),
        ];
        files.push(SourceFile::parse(module, text));
        violations(&files).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(planted("limit", clean), [""; 0]);
    for (module, text, expected) in [
        ("limit", "use tokio::sync::Mutex;", "limit: concepts may not name tokio::sync::Mutex"),
        ("limit", "fn f(c: rusqlite::Connection) {}", "limit: concepts may not name rusqlite::Connection"),
        ("limit", "use ::axum::{Json, Router as R};", "limit: concepts may not name axum::Json"),
        ("limit", "fn f() { tracing::info!(\"x\"); }", "limit: concepts may not name tracing::info"),
        ("limit", "fn f() { std::fs::read(\"x\"); }", "limit: concepts may not reach out by std::fs::read"),
        ("limit", "use crate::http::router;", "limit: concepts may not see http (crate::http::router)"),
        (
            "session",
            "use super::agent::runner::Runner;",
            "session: concepts may not see turns (crate::agent::runner::Runner)",
        ),
        (
            "http::chat",
            "use crate::adapters::memory as m; fn f() { m::MemoryJobQueue; }",
            "http::chat: http may not see memory (crate::adapters::memory)",
        ),
        (
            "http::chat",
            "fn f() { vec![crate::agent::runner::Runner]; }",
            "http::chat: http may not see turns (crate::agent::runner::Runner)",
        ),
        (
            "adapters::onprem::sql",
            "use super::super::memory::MemoryJobQueue;",
            "adapters::onprem::sql: onprem may not see memory (crate::adapters::memory::MemoryJobQueue)",
        ),
        (
            "adapters::models::anthropic",
            "mod inner { use super::super::super::super::http::router; }",
            "adapters::models::anthropic: models may not see http (crate::http::router)",
        ),
        ("adapters::redis", "", "adapters::redis: is in no layer"),
        ("limit", "struct LimitManager;", "limit: the name LimitManager holds the word Manager"),
        (
            "worker",
            "use tokio::task; fn f() { task::spawn(g()); }",
            "worker: tokio::task::spawn outlives the reply",
        ),
        (
            "worker",
            "fn f() { tokio::select! { _ = tokio::spawn(g()) => {} } }",
            "worker: tokio::spawn outlives the reply",
        ),
    ] {
        let found = planted(module, text);
        assert!(found.iter().any(|line| line == expected), "{expected:?} was not found in {found:?}");
    }
    assert_eq!(planted("limit", &"\n".repeat(801)), ["limit: 801 lines are more than one concept"]);
}

/// The crates that are built for a package of the workspace, from Cargo itself.
fn build_graph(package: &str, flags: &[&str]) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .current_dir(root())
        .args(["tree", "--offline", "--locked", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .args(["--package", package])
        .args(flags)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

#[test]
fn a_companys_own_server_is_built_without_the_cloud() {
    let graph = build_graph("reef", &[]);
    assert!(graph.contains("rusqlite"), "the graph is not the server's: {graph:?}");
    // `aws-lc-*` is the TLS library's cryptography, and knows no cloud.
    let cloud: Vec<_> =
        graph.iter().filter(|name| name.starts_with("aws-") && !name.starts_with("aws-lc-")).collect();
    assert_eq!(cloud, [""; 0]);
}

#[test]
fn the_functions_are_built_without_a_companys_own_store() {
    for function in ["gateway", "agent-invoke", "queue-worker"] {
        let graph = build_graph(function, &[]);
        assert!(graph.contains("aws-sdk-dynamodb"), "the graph is not the function's: {graph:?}");
        for own in ["rusqlite", "libsqlite3-sys", "tikv-jemallocator", "clap"] {
            assert!(!graph.contains(own), "{function} holds {own}");
        }
    }
}

#[test]
fn the_library_without_features_holds_no_store() {
    let graph = build_graph("shared", &["--no-default-features"]);
    assert!(graph.contains("serde"), "the graph is not the library's: {graph:?}");
    for store in ["rusqlite", "libsqlite3-sys", "sqlx", "redis", "aws-sdk-dynamodb"] {
        assert!(!graph.contains(store), "{store} is built without being asked for");
    }
}
