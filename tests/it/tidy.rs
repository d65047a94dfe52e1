//! The tree's own rules: who imports whom, what a core may not touch, how files begin and how long they grow.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The layers from the ground up; a module imports only from layers below its own, or from itself.
const LAYERS: [&[&str]; 10] = [
    &["units", "civil", "limits", "loaders", "storage"],
    &["status"],
    &["dhcp", "sntp", "tftp", "http", "squashfs", "iso", "fat", "rootfs", "config", "fingerprint", "console"],
    &["netboot", "media"],
    &["sys"],
    &["source"],
    &["flash", "web"],
    &["daemon"],
    &["appliance"],
    &["main"],
];

/// What the cores (layers up to `netboot media`) do not name: they get time, bytes and readers as arguments.
const NOT_IN_CORES: [&str; 8] = [
    "Instant::now",
    "SystemTime::now",
    "std::net::TcpStream",
    "std::net::TcpListener",
    "std::net::UdpSocket",
    "mio::",
    "libc::",
    "ureq::",
];

/// Exceptions to [`NOT_IN_CORES`] and to the layers, each with its reason.
const EXCEPTIONS: [(&str, &str, &str); 0] = [];

const FILE_LINES_MAX: usize = 800;

/// Files of `src` that are compiled for tests only.
const TEST_FILES: [&str; 2] = ["/tests.rs", "/testing.rs"];

struct Source {
    /// Path below the package, such as `src/dhcp/packet.rs`.
    path: String,
    text: String,
}

impl Source {
    /// The module below `src` that the file belongs to.
    fn module(&self) -> &str {
        let inside = self.path.strip_prefix("src/").expect("a source file");
        let module = inside.split('/').next().expect("a name");
        module.strip_suffix(".rs").unwrap_or(module)
    }

    /// The lines of the product itself: no tests, no comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let is_tests = TEST_FILES.iter().any(|name| self.path.ends_with(name));
        let product = if is_tests { "" } else { self.text.split("#[cfg(test)]\nmod ").next().expect("a first part") };
        let is_code = |(_, line): &(usize, &str)| !line.trim_start().starts_with("//");
        product.lines().enumerate().map(|(index, line)| (index + 1, line)).filter(is_code)
    }
}

fn sources() -> Vec<Source> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).expect("a readable folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    paths.sort();
    let relative = |path: &Path| path.strip_prefix(root).expect("below the root").display().to_string();
    paths.iter().map(|path| Source { path: relative(path), text: fs::read_to_string(path).expect("UTF-8") }).collect()
}

fn layer(module: &str) -> Option<usize> {
    if module == "lib" {
        return None;
    }
    let found = LAYERS.iter().position(|modules| modules.contains(&module));
    Some(
        found.unwrap_or_else(|| {
            panic!("src/{module} stands in no layer: add it to LAYERS and to the docs of src/lib.rs")
        }),
    )
}

fn is_exception(path: &str, what: &str) -> bool {
    EXCEPTIONS.iter().any(|(file, allowed, _reason)| path == *file && what == *allowed)
}

#[test]
fn imports_point_downwards_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some(own) = layer(source.module()) else { continue };
        for (number, line) in source.code() {
            for crate_name in ["crate::", "auroraboot::"] {
                for (at, _) in line.match_indices(crate_name) {
                    let rest = &line[at + crate_name.len()..];
                    let rest = rest.strip_prefix('{').unwrap_or(rest);
                    let other: String = rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                    let Some(below) = LAYERS.iter().position(|modules| modules.contains(&other.as_str())) else {
                        continue;
                    };
                    if other != source.module() && below >= own && !is_exception(&source.path, &other) {
                        wrong.push(format!("{}:{number}: {} may not import {other}", source.path, source.module()));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn cores_get_time_and_sockets_as_arguments() {
    let mut wrong = Vec::new();
    for source in sources() {
        if layer(source.module()).is_none_or(|layer| layer > 3) {
            continue;
        }
        for (number, line) in source.code() {
            for name in NOT_IN_CORES.iter().filter(|name| line.contains(**name)) {
                if !is_exception(&source.path, name) {
                    wrong.push(format!("{}:{number}: a core names {name}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_stays_in_sys() {
    let wrong: Vec<String> = sources()
        .iter()
        .filter(|source| source.module() != "sys")
        .flat_map(|source| {
            let lines =
                source.code().filter(|(_, line)| line.contains("unsafe ") || line.contains("allow(unsafe_code)"));
            lines.map(|(number, _)| format!("{}:{number}", source.path)).collect::<Vec<_>>()
        })
        .collect();
    assert!(wrong.is_empty(), "unsafe outside src/sys: {}", wrong.join(" "));
}

#[test]
fn every_file_says_what_it_is_for_and_stays_readable() {
    let mut wrong = Vec::new();
    for source in sources() {
        let first = source.text.lines().next().unwrap_or_default();
        if !first.starts_with("//! ") {
            wrong.push(format!("{}: the first line is no //! tagline", source.path));
        }
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines; split what does two things", source.path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_limit_is_used_and_explained() {
    let all = sources();
    let limits = all.iter().find(|source| source.path == "src/limits.rs").expect("src/limits.rs");
    let lines = all.iter().flat_map(Source::code).filter(|(_, line)| !line.starts_with("pub const "));
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let used: BTreeSet<&str> = lines.flat_map(|(_, line)| line.split(move |c: char| !is_word(c))).collect();
    let mut wrong = Vec::new();
    let mut before = "";
    for line in limits.text.lines() {
        if let Some(rest) = line.strip_prefix("pub const ") {
            let name = rest.split(':').next().expect("a name");
            if !used.contains(name) {
                wrong.push(format!("{name} bounds nothing"));
            }
            if !before.starts_with("///") {
                wrong.push(format!("{name} has no doc comment"));
            }
        }
        before = line;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_explains_every_dependency() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("Cargo.toml");
    let readme = fs::read_to_string(root.join("README.md")).expect("README.md");
    let section = manifest.split("[dependencies]\n").nth(1).expect("[dependencies]");
    let names = section.lines().take_while(|line| !line.starts_with('[')).filter_map(|line| line.split(" = ").next());
    let missing: Vec<&str> =
        names.filter(|name| !name.is_empty() && !readme.contains(&format!("| {name} |"))).collect();
    assert!(missing.is_empty(), "the README's table of dependencies lacks {missing:?}");
}
