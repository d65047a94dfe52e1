//! Kernel modules: found by the names that devices give themselves, loaded with all that they need.
//!
//! The lists are kmod's, as the builder of the image wrote them (modules.alias(5), modules.dep(5)); no depmod runs here.

mod glob;
mod lists;
mod uevent;

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use lists::{Lists, plain};
pub use uevent::{Uevent, Uevents};

use crate::limits::{DEVICES_MAX, DEVICES_NESTED_MAX, MODALIAS_BYTES_MAX, MODULE_LIST_BYTES_MAX};
use crate::sys::module;

/// What comes before vfat can be mounted with our options: no modprobe answers when the kernel asks for them.
pub const FOR_VFAT: [&str; 3] = ["nls_cp437", "nls_ascii", "vfat"];

/// Why modules cannot be found or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the list of kernel modules {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the list of kernel modules {path} is larger than {MODULE_LIST_BYTES_MAX} bytes")]
    TooLarge { path: PathBuf },
    #[error("there is no kernel module {0}")]
    Unknown(String),
    #[error("cannot load the kernel module {name}")]
    Insert { name: String, source: io::Error },
}

/// The modules of one kernel, and which of them were loaded already.
pub struct Modules {
    /// `/lib/modules/<release>`.
    directory: PathBuf,
    lists: Lists,
    /// Names that need no second attempt: loaded, built in, or failed.
    done: BTreeSet<String>,
    insert: Box<Insert>,
}

/// Loads the module in a file: finit_module(2), but for tests.
pub type Insert = dyn FnMut(&Path) -> io::Result<()> + Send;

impl std::fmt::Debug for Modules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Modules").field("directory", &self.directory).field("done", &self.done).finish_non_exhaustive()
    }
}

/// What an attempt at several modules came to.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Names in the order in which they were loaded.
    pub loaded: Vec<String>,
    pub failed: Vec<Error>,
}

impl Modules {
    /// Those below `root` (`/`) of the running kernel.
    ///
    /// # Errors
    /// A list that is missing, unreadable or too large.
    pub fn of_running_kernel(root: &Path) -> Result<Self, Error> {
        let directory = root.join("lib/modules").join(crate::sys::mount::kernel_release());
        Self::new(directory, Box::new(module::insert))
    }

    /// Those in `directory`.
    ///
    /// # Errors
    /// A list that is missing, unreadable or too large.
    pub fn new(directory: PathBuf, insert: Box<Insert>) -> Result<Self, Error> {
        let lists = Lists::read(&directory)?;
        Ok(Self { directory, lists, done: BTreeSet::new(), insert })
    }

    /// Loads the module called `name` (dashes and underscores mean the same), or those that bear it as an alias, with what they need.
    ///
    /// # Errors
    /// There is none, or it or something that it needs cannot be loaded; at the second attempt there is no error.
    pub fn load(&mut self, name: &str) -> Result<Vec<String>, Error> {
        let mut loaded = Vec::new();
        self.load_named(name, &mut loaded).map(|()| loaded)
    }

    /// Loads every module whose alias fits a device's.
    pub fn load_for(&mut self, modalias: &str) -> Loaded {
        let mut result = Loaded::default();
        for name in self.lists.matching(modalias) {
            if let Err(error) = self.load_closure(&name, &mut result.loaded) {
                result.failed.push(error);
            }
        }
        result
    }

    /// Loads what the devices below `sys` (`/sys`) ask for, and then what the devices ask for that appeared by that, until none is new.
    pub fn coldplug(&mut self, sys: &Path) -> Loaded {
        let mut total = Loaded::default();
        let mut seen = HashSet::new();
        loop {
            let new: Vec<String> = modaliases(&sys.join("devices"), DEVICES_MAX)
                .into_iter()
                .filter(|alias| !seen.contains(alias))
                .collect();
            if new.is_empty() {
                return total;
            }
            for alias in new {
                let Loaded { loaded, failed } = self.load_for(&alias);
                total.loaded.extend(loaded);
                total.failed.extend(failed);
                seen.insert(alias);
            }
        }
    }

    /// A module, or what goes by that name: ext4 asks for `crypto-crc32c`, which is `crc32c_generic` and `crc32c_intel`. One that loads is enough.
    fn load_named(&mut self, name: &str, loaded: &mut Vec<String>) -> Result<(), Error> {
        let module = plain(name);
        let named = self.lists.matching(name);
        if self.lists.files(&module).is_some() || self.lists.is_built_in(&module) || named.is_empty() {
            return self.load_closure(&module, loaded);
        }
        let results: Vec<_> = named.iter().map(|module| self.load_closure(module, loaded)).collect();
        if results.iter().any(Result::is_ok) {
            return Ok(());
        }
        results.into_iter().collect()
    }

    /// Dependencies first, as modules.dep lists them last to first; soft ones before and after, whose failure is none.
    fn load_closure(&mut self, name: &str, loaded: &mut Vec<String>) -> Result<(), Error> {
        if !self.done.insert(name.to_owned()) || self.lists.is_built_in(name) {
            return Ok(());
        }
        let Some(files) = self.lists.files(name) else { return Err(Error::Unknown(name.to_owned())) };
        for file in files.iter().skip(1).rev() {
            let module = plain(lists::stem(file));
            if self.done.insert(module.clone()) {
                self.load_one(file, &module, loaded)?;
            }
        }
        files.first().map_or(Ok(()), |file| self.load_one(file, name, loaded))
    }

    /// With its soft dependencies, which modules.dep does not list: what is needed has some as well (jbd2 under ext4).
    fn load_one(&mut self, file: &str, name: &str, loaded: &mut Vec<String>) -> Result<(), Error> {
        let (before, after) = self.lists.soft(name);
        for soft in before {
            let _ = self.load_named(&soft, loaded);
        }
        if self.insert_one(file, name)? {
            loaded.push(name.to_owned());
        }
        for soft in after {
            let _ = self.load_named(&soft, loaded);
        }
        Ok(())
    }

    /// `false` when it was there already, or when it is for hardware that this machine turns out not to have.
    fn insert_one(&mut self, file: &str, name: &str) -> Result<bool, Error> {
        match (self.insert)(&self.directory.join(file)) {
            Ok(()) => Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::EEXIST | libc::ENODEV)) => Ok(false),
            Err(source) => Err(Error::Insert { name: name.to_owned(), source }),
        }
    }
}

/// What every device below `devices` says of itself, sorted, each once. Links are not followed: they lead in circles.
fn modaliases(devices: &Path, directories_max: usize) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![(devices.to_owned(), 0)];
    let mut visited = 0;
    while let Some((directory, depth)) = waiting.pop() {
        visited += 1;
        if visited > directories_max {
            break;
        }
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() && depth < DEVICES_NESTED_MAX => waiting.push((entry.path(), depth + 1)),
                Ok(kind) if kind.is_file() && entry.file_name() == "modalias" => {
                    let text = fs::read_to_string(entry.path()).unwrap_or_default();
                    let alias = text.trim_end();
                    if !alias.is_empty() && alias.len() <= MODALIAS_BYTES_MAX {
                        found.insert(alias.to_owned());
                    }
                }
                _ => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
