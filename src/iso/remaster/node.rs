//! Directories of the image in memory: the records they have, the entries they are to get.

use std::collections::{HashMap, HashSet};

use super::Error;
use crate::iso::BLOCK;
use crate::iso::bytes::u32_at;
use crate::iso::names::{Naming, identifiers};
use crate::iso::read::{self, Budget, Child, Directory, Disk, Names, Pointer, Tree};
use crate::storage::{Extent, Storage};

/// A record as it is in the source.
#[derive(Debug, Clone)]
pub(super) struct OldRecord {
    /// Byte of the image.
    pub(super) at: u64,
    pub(super) bytes: Vec<u8>,
    /// CL of an entry, PL of a `..`.
    pub(super) pointer: Option<Pointer>,
}

/// What an entry of a directory stands for.
#[derive(Debug)]
pub(super) enum What {
    /// What it did in the source. A file may have several records.
    Old {
        records: Vec<OldRecord>,
        is_directory: bool,
    },
    File {
        extent: Extent,
        mode: u32,
        mtime: u32,
    },
    Symlink {
        target: Vec<u8>,
        mode: u32,
        mtime: u32,
    },
    /// A new one.
    Directory {
        node: usize,
        mtime: u32,
    },
    /// No longer there.
    Gone,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) identifier: Vec<u8>,
    pub(super) what: What,
}

impl Entry {
    /// Where the data of a file of the source begins, and how much its first record names.
    pub(super) fn data(&self, base: u64) -> Option<Extent> {
        let What::Old { records, is_directory: false } = &self.what else { return None };
        let bytes = &records.first()?.bytes;
        let offset = base.saturating_add(u32_at(bytes, 2).into()).saturating_mul(BLOCK);
        let length = u32_at(bytes, 10).into();
        (length > 0).then_some(Extent { offset, length })
    }
}

/// One directory.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) parent: usize,
    /// Its block in the source, from the base; a new one has none.
    pub(super) old: Option<u32>,
    /// `.` and `..` of the source.
    pub(super) dots: Vec<OldRecord>,
    pub(super) entries: Vec<Entry>,
    /// Whether it gets a new extent.
    pub(super) is_changed: bool,
    /// Of a new one.
    pub(super) identifier: Vec<u8>,
    pub(super) mtime: u32,
    by_name: HashMap<Vec<u8>, usize>,
    taken: HashSet<Vec<u8>>,
}

impl Node {
    pub(super) fn new(parent: usize, identifier: Vec<u8>, mtime: u32) -> Self {
        Self {
            parent,
            old: None,
            dots: Vec::new(),
            entries: Vec::new(),
            is_changed: true,
            identifier,
            mtime,
            by_name: HashMap::new(),
            taken: HashSet::new(),
        }
    }

    /// From the source.
    pub(super) fn load<S: Storage + ?Sized>(
        disk: Disk<'_, S>,
        tree: &Tree,
        directory: &Directory,
        parent: usize,
        fold: bool,
        budget: &mut Budget,
    ) -> Result<Self, Error> {
        let start = tree.base.saturating_add(directory.location.into()).saturating_mul(BLOCK);
        let mut node = Self { old: Some(directory.location), is_changed: false, ..Self::new(parent, Vec::new(), 0) };
        node.dots = dots(disk, tree, directory, budget)?;
        for child in Child::all(disk, tree, directory, budget)? {
            let is_directory = child.is_directory();
            let pointer = child.rock_ridge.child;
            let records = child.records.iter().map(|record| OldRecord {
                at: start + record.at as u64,
                bytes: record.bytes.to_vec(),
                pointer,
            });
            let what = What::Old { records: records.collect(), is_directory };
            let identifier = child.records[0].identifier().to_vec();
            node.push(tree.names, fold, Entry { name: child.name, identifier, what });
        }
        Ok(node)
    }

    pub(super) fn push(&mut self, names: Names, fold: bool, entry: Entry) -> usize {
        let index = self.entries.len();
        self.by_name.entry(key(&entry.name, fold)).or_insert(index);
        self.taken.insert(key(&read::stored_name(names, &entry.identifier), true));
        self.entries.push(entry);
        index
    }

    /// The entry of that name. Names that are too long for the tree, or have characters it does not allow, are looked for as they
    /// would be stored.
    pub(super) fn find(&self, names: Names, fold: bool, name: &[u8], is_directory: bool) -> Option<usize> {
        if let Some(&index) = self.by_name.get(&key(name, fold)) {
            return Some(index);
        }
        if matches!(names, Names::RockRidge { .. }) {
            return None;
        }
        let natural = identifiers(&[(name, is_directory)], naming(names)).pop()?;
        self.entries.iter().position(|entry| entry.identifier == natural)
    }

    /// The entry of a file with that data.
    pub(super) fn find_data(&self, base: u64, data: Extent) -> Option<usize> {
        self.entries.iter().position(|entry| entry.data(base) == Some(data))
    }

    /// An identifier for a new entry, different from all that are there.
    pub(super) fn identifier_for(&self, names: Names, name: &[u8], is_directory: bool) -> Result<Vec<u8>, Error> {
        let mut tried = 1;
        while tried / 16 <= self.taken.len() {
            // Equal names get numbers: one more of them than is taken brings a free one.
            let candidates = identifiers(&vec![(name, is_directory); tried], naming(names));
            let is_free =
                |identifier: &Vec<u8>| !self.taken.contains(&key(&read::stored_name(names, identifier), true));
            if let Some(identifier) = candidates.into_iter().find(is_free) {
                return Ok(identifier);
            }
            tried *= 16;
        }
        Err(Error::TooMany("names that are alike"))
    }
}

/// `.` and `..` of a directory.
pub(super) fn dots<S: Storage + ?Sized>(
    disk: Disk<'_, S>,
    tree: &Tree,
    directory: &Directory,
    budget: &mut Budget,
) -> Result<Vec<OldRecord>, Error> {
    let start = tree.base.saturating_add(directory.location.into()).saturating_mul(BLOCK);
    let mut dots = Vec::new();
    for record in directory.records().take(2) {
        let record = record?;
        if record.identifier() != [dots.len() as u8] {
            return Err(Error::Damaged("a directory does not begin with itself and its parent"));
        }
        let pointer = read::rock_ridge(disk, tree, record, budget)?.parent;
        dots.push(OldRecord { at: start + record.at as u64, bytes: record.bytes.to_vec(), pointer });
    }
    if dots.len() < 2 {
        return Err(Error::Damaged("a directory does not begin with itself and its parent"));
    }
    Ok(dots)
}

pub(super) const fn naming(names: Names) -> Naming {
    match names {
        Names::Joliet => Naming::Joliet,
        Names::Plain | Names::RockRidge { .. } => Naming::Plain,
    }
}

/// What two names have in common that count as one; `fold` where upper and lower case do.
fn key(name: &[u8], fold: bool) -> Vec<u8> {
    if fold { String::from_utf8_lossy(name).to_lowercase().into_bytes() } else { name.to_vec() }
}
