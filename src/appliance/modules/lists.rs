//! kmod's lists of one kernel's modules: which there are, what each needs, which device each is for.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Error, glob};
use crate::limits::MODULE_LIST_BYTES_MAX;

/// The lists in `/lib/modules/<release>`.
#[derive(Debug, Default)]
pub struct Lists {
    /// Name → its file and those that it needs, nearest first, as modules.dep has them.
    files: HashMap<String, Vec<String>>,
    /// Pattern and module, under what the pattern begins with up to its first wildcard: `pci:v00008086d…` is looked for among those of
    /// its first bytes only, so that thousands of aliases cost what a few do.
    aliases: HashMap<Vec<u8>, Vec<(String, String)>>,
    /// Lengths of the keys of `aliases`.
    lengths: BTreeSet<usize>,
    /// Name → names or aliases of what is loaded before it and behind it, if it can be.
    soft: HashMap<String, (Vec<String>, Vec<String>)>,
    built_in: BTreeSet<String>,
}

impl Lists {
    /// `modules.dep` and `modules.alias` must be there; `modules.softdep` and `modules.builtin` need not.
    ///
    /// # Errors
    /// A file that is missing, unreadable or too large.
    pub fn read(directory: &Path) -> Result<Self, Error> {
        let mut lists = Self::default();
        lists.add_dependencies(&text(directory, "modules.dep", true)?);
        lists.add_aliases(&text(directory, "modules.alias", true)?);
        lists.add_soft(&text(directory, "modules.softdep", false)?);
        let built_in = text(directory, "modules.builtin", false)?;
        lists.built_in = built_in.lines().map(|line| plain(stem(line.trim()))).collect();
        Ok(lists)
    }

    /// `kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz`
    fn add_dependencies(&mut self, text: &str) {
        for line in text.lines() {
            let Some((file, needs)) = line.split_once(':') else { continue };
            let files = std::iter::once(file).chain(needs.split_whitespace()).map(str::to_owned).collect();
            self.files.insert(plain(stem(file)), files);
        }
    }

    /// `alias virtio:d00000001v* virtio_net`
    fn add_aliases(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("alias"), Some(pattern), Some(module)) = (words.next(), words.next(), words.next()) else {
                continue;
            };
            let fixed = pattern.bytes().take_while(|byte| !b"*?[".contains(byte)).count();
            self.lengths.insert(fixed);
            let key = pattern.as_bytes()[..fixed].to_vec();
            self.aliases.entry(key).or_default().push((pattern.to_owned(), plain(module)));
        }
    }

    /// `softdep r8169 pre: realtek post: foo`
    fn add_soft(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(module)) = (words.next(), words.next()) else { continue };
            let (before, after) = self.soft.entry(plain(module)).or_default();
            let mut list = None;
            for word in words {
                match word {
                    "pre:" => list = Some(&mut *before),
                    "post:" => list = Some(&mut *after),
                    name => list.iter_mut().for_each(|list| list.push(name.to_owned())),
                }
            }
        }
    }

    /// The modules whose alias fits a device's, in the order of the list.
    #[must_use]
    pub fn matching(&self, modalias: &str) -> Vec<String> {
        let text = modalias.as_bytes();
        let keys = self.lengths.iter().filter_map(|length| text.get(..*length));
        let candidates = keys.filter_map(|key| self.aliases.get(key)).flatten();
        let mut found: Vec<String> = Vec::new();
        for (pattern, module) in candidates {
            if !found.contains(module) && glob::fits(pattern.as_bytes(), text) {
                found.push(module.clone());
            }
        }
        found
    }

    /// The module's file and those that it needs, the furthest last.
    #[must_use]
    pub fn files(&self, name: &str) -> Option<Vec<String>> {
        self.files.get(name).cloned()
    }

    /// What is loaded before and after it, if it can be.
    #[must_use]
    pub fn soft(&self, name: &str) -> (Vec<String>, Vec<String>) {
        self.soft.get(name).cloned().unwrap_or_default()
    }

    #[must_use]
    pub fn is_built_in(&self, name: &str) -> bool {
        self.built_in.contains(name)
    }
}

/// The name under which the kernel knows a module: files may have dashes where it has underscores.
#[must_use]
pub fn plain(name: &str) -> String {
    name.replace('-', "_")
}

/// `kernel/fs/fat/vfat.ko.xz` → `vfat`.
#[must_use]
pub fn stem(file: &str) -> &str {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split_once(".ko").map_or(name, |(stem, _)| stem)
}

fn text(directory: &Path, name: &str, is_needed: bool) -> Result<String, Error> {
    let path = directory.join(name);
    let mut text = String::new();
    let read = File::open(&path).and_then(|file| file.take(MODULE_LIST_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 > MODULE_LIST_BYTES_MAX => Err(Error::TooLarge { path }),
        Ok(_) => Ok(text),
        Err(error) if !is_needed && error.kind() == io::ErrorKind::NotFound => Ok(text),
        Err(source) => Err(Error::Read { path, source }),
    }
}
