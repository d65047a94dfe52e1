//! Which kernel modules an image carries, and the tables by which they are found.
//!
//! A board names folders and modules; what these need comes along. `modules.dep`, `modules.alias` and `modules.softdep` are written in
//! kmod's own text forms (modules.dep(5), depmod(8)), so that kmod's tools can judge them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io;

use crate::deb::{self, Package};
use crate::modinfo::{self, ModInfo};

/// Why modules cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Package(#[from] deb::Error),
    #[error(
        "the kernel has no module {0:?}, and it is not built in: mark it with ? in the list if other kernels have it"
    )]
    Unknown(String),
    #[error("the kernel has no modules in {0:?}")]
    EmptyFolder(String),
    #[error("module {module} needs {needed}, which the kernel does not have")]
    Needs { module: String, needed: String },
    #[error("{0} cannot be decompressed")]
    Damaged(String, #[source] io::Error),
    #[error("{0} is not a kernel module")]
    Form(String),
}

/// One module, as it is in the package.
#[derive(Debug)]
pub struct Module {
    /// Below `/lib/modules/VERSION/`.
    pub path: String,
    /// Compressed; the kernel decompresses it (CONFIG_MODULE_DECOMPRESS).
    pub content: Vec<u8>,
    pub info: ModInfo,
}

/// The modules of an image by name, with `_` where their files have `-`.
#[derive(Debug, Default)]
pub struct Modules {
    pub by_name: BTreeMap<String, Module>,
    /// `modules.builtin` of the kernel.
    pub builtin: String,
}

impl Modules {
    /// Reads the wanted modules, and what they need, out of a kernel package.
    ///
    /// `wanted` holds a line each: a folder below `kernel/` with a `/` at its end, or a module's name. A `?` in front allows that there is none, a `-` takes
    /// modules out (`*` at its end: all that begin so), unless another one needs them.
    ///
    /// # Errors
    /// A name that the kernel does not have.
    pub fn collect(package: &Package, version: &str, wanted: &[String]) -> Result<Self, Error> {
        let folder = format!("usr/lib/modules/{version}/");
        let all: BTreeMap<String, &str> = package
            .names()
            .filter_map(|path| path.strip_prefix(&folder))
            .filter(|path| path.ends_with(SUFFIX))
            .map(|path| (name_of(path), path))
            .collect();
        let builtin = String::from_utf8_lossy(&package.read(&format!("{folder}modules.builtin"))?).into_owned();
        let built_in: BTreeSet<String> = builtin.lines().map(name_of).collect();
        let mut queue: Vec<String> = select(&all, &built_in, wanted)?.into_iter().collect();
        let mut modules = Self { by_name: BTreeMap::new(), builtin };
        while let Some(name) = queue.pop() {
            let Some(path) = all.get(&name) else { continue };
            if modules.by_name.contains_key(&name) {
                continue;
            }
            let content = package.read(&format!("{folder}{path}"))?;
            let elf = deb::unxz(&content).map_err(|error| Error::Damaged((*path).to_owned(), error))?;
            let info = modinfo::parse(&elf).ok_or_else(|| Error::Form((*path).to_owned()))?;
            for needed in info.depends.iter().map(|needed| plain(needed)) {
                if !all.contains_key(&needed) && !built_in.contains(&needed) {
                    return Err(Error::Needs { module: name, needed });
                }
                queue.push(needed);
            }
            // Often an alias ("crypto-crc32c"), or what another architecture has: taken when there is one of this name.
            queue.extend(info.softdeps.iter().flat_map(|line| line.split_whitespace()).map(plain));
            modules.by_name.insert(name, Module { path: (*path).to_owned(), content, info });
        }
        Ok(modules)
    }

    /// A line for each module: its file, then all that it needs, in the order in which kmod unloads them.
    pub fn dep(&self) -> String {
        let mut text = String::new();
        for (name, module) in &self.by_name {
            let mut needed = Vec::new();
            self.load_order(name, &mut needed);
            needed.pop(); // itself
            text += &module.path;
            text.push(':');
            for path in needed.iter().rev().filter_map(|name| self.by_name.get(*name)).map(|module| &module.path) {
                text.push(' ');
                text += path;
            }
            text.push('\n');
        }
        text
    }

    fn load_order<'a>(&'a self, name: &'a str, order: &mut Vec<&'a str>) {
        let Some((name, module)) = self.by_name.get_key_value(name) else { return };
        for needed in &module.info.depends {
            if let Some((needed, _)) = self.by_name.get_key_value(&plain(needed))
                && !order.contains(&needed.as_str())
            {
                self.load_order(needed, order);
            }
        }
        order.push(name);
    }

    pub fn alias(&self) -> String {
        self.lines(|text, name, info| {
            for alias in &info.aliases {
                let _ = writeln!(text, "alias {alias} {name}"); // a String takes everything
            }
        })
    }

    pub fn softdep(&self) -> String {
        self.lines(|text, name, info| {
            for softdep in &info.softdeps {
                let _ = writeln!(text, "softdep {name} {softdep}");
            }
        })
    }

    fn lines(&self, line: impl Fn(&mut String, &str, &ModInfo)) -> String {
        let mut text = String::new();
        for (name, module) in &self.by_name {
            line(&mut text, name, &module.info);
        }
        text
    }

    /// Files below `/lib/firmware` that one of them may ask for.
    pub fn firmware(&self) -> BTreeSet<&str> {
        self.by_name.values().flat_map(|module| &module.info.firmware).map(String::as_str).collect()
    }
}

const SUFFIX: &str = ".ko.xz";

/// `kernel/drivers/net/virtio-net.ko.xz` → `virtio_net`.
fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    plain(file.split(".ko").next().unwrap_or(file))
}

/// `-` and `_` are the same in the name of a module.
fn plain(name: &str) -> String {
    name.replace('-', "_")
}

fn select(
    all: &BTreeMap<String, &str>,
    built_in: &BTreeSet<String>,
    wanted: &[String],
) -> Result<BTreeSet<String>, Error> {
    let mut selected = BTreeSet::new();
    for line in wanted.iter().filter(|line| !line.starts_with('-')) {
        let (optional, line) = line.strip_prefix('?').map_or((false, line.as_str()), |line| (true, line));
        let before = selected.len();
        if line.ends_with('/') {
            let folder = format!("kernel/{line}");
            selected.extend(all.iter().filter(|(_, path)| path.starts_with(&folder)).map(|(name, _)| name.clone()));
            if selected.len() == before && !optional {
                return Err(Error::EmptyFolder(line.to_owned()));
            }
        } else if all.contains_key(&plain(line)) {
            selected.insert(plain(line));
        } else if !optional && !built_in.contains(&plain(line)) {
            return Err(Error::Unknown(line.to_owned()));
        }
    }
    for name in wanted.iter().filter_map(|line| line.strip_prefix('-')).map(plain) {
        match name.strip_suffix('*') {
            Some(beginning) => selected.retain(|selected| !selected.starts_with(beginning)),
            None => drop(selected.remove(&name)),
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(entries: &[(&str, &[&str])]) -> Modules {
        let mut modules = Modules::default();
        for (name, depends) in entries {
            let info =
                ModInfo { depends: depends.iter().map(|name| (*name).to_owned()).collect(), ..ModInfo::default() };
            let module = Module { path: format!("kernel/{name}.ko.xz"), content: Vec::new(), info };
            modules.by_name.insert(plain(name), module);
        }
        modules
    }

    #[test]
    fn what_a_module_needs_is_listed_last_loaded_first() {
        let dep = modules(&[("a", &["b", "c"]), ("b", &["d-e"]), ("c", &["d_e", "builtin"]), ("d-e", &[])]).dep();
        let lines: Vec<&str> = dep.lines().collect();
        assert_eq!(lines[0], "kernel/a.ko.xz: kernel/c.ko.xz kernel/b.ko.xz kernel/d-e.ko.xz");
        assert_eq!(lines[3], "kernel/d-e.ko.xz:");
    }

    #[test]
    fn lists_name_folders_modules_and_exceptions() {
        let all = BTreeMap::from([
            ("one".to_owned(), "kernel/net/one.ko.xz"),
            ("two_b".to_owned(), "kernel/net/deep/two-b.ko.xz"),
            ("three".to_owned(), "kernel/fs/three.ko.xz"),
        ]);
        let built_in = BTreeSet::from(["four".to_owned()]);
        let select = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|line| (*line).to_owned()).collect();
            select(&all, &built_in, &wanted).map(|names| names.into_iter().collect::<Vec<_>>())
        };
        assert_eq!(select(&["net/", "-two-*", "three", "four", "?five", "?none/"]).unwrap(), ["one", "three"]);
        assert_eq!(select(&["net/", "-one"]).unwrap(), ["two_b"]);
        assert!(matches!(select(&["five"]), Err(Error::Unknown(name)) if name == "five"));
        assert!(matches!(select(&["none/"]), Err(Error::EmptyFolder(_))));
    }
}
