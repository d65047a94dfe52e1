//! From a path to an entry: names, links, relocated directories, files of several sections.

use std::collections::{HashSet, VecDeque};

use super::directory::{Directory, Record};
use super::disk::{Budget, Disk};
use super::susp::{self, RockRidge};
use super::volume::{Names, Tree};
use super::{Entry, Error, Kind};
use crate::iso::BLOCK;
use crate::limits::ISO_PATH_STEPS_MAX;
use crate::storage::{Extent, Storage};

/// What a directory says of one of its children: one record, or several for a file of several sections.
#[derive(Debug)]
pub(in crate::iso) struct Child<'a> {
    pub(in crate::iso) records: Vec<Record<'a>>,
    /// As the tree's kind of names has it, in UTF-8 as far as it is text.
    pub(in crate::iso) name: Vec<u8>,
    pub(in crate::iso) rock_ridge: RockRidge,
}

impl<'a> Child<'a> {
    /// The children of a directory in their order, without `.` and `..`.
    pub(in crate::iso) fn all<S: Storage + ?Sized>(
        disk: Disk<'_, S>,
        tree: &Tree,
        directory: &'a Directory,
        budget: &mut Budget,
    ) -> Result<Vec<Self>, Error> {
        let mut children: Vec<Self> = Vec::new();
        let mut is_open = false;
        for record in directory.records() {
            let record = record?;
            if record.is_dot() {
                continue;
            }
            match children.last_mut() {
                Some(child) if is_open && child.records[0].identifier() == record.identifier() => {
                    child.records.push(record)
                }
                _ => children.push(Self::new(disk, tree, record, budget)?),
            }
            is_open = record.is_continued();
        }
        Ok(children)
    }

    fn new<S: Storage + ?Sized>(
        disk: Disk<'_, S>,
        tree: &Tree,
        record: Record<'a>,
        budget: &mut Budget,
    ) -> Result<Self, Error> {
        let rock_ridge = rock_ridge(disk, tree, record, budget)?;
        let name = rock_ridge.name.clone().unwrap_or_else(|| stored_name(tree.names, record.identifier()));
        Ok(Self { records: vec![record], name, rock_ridge })
    }

    pub(in crate::iso) fn is_directory(&self) -> bool {
        self.records[0].is_directory() || self.rock_ridge.child.is_some()
    }

    /// The directory it stands for, wherever that lies.
    pub(in crate::iso) fn open<S: Storage + ?Sized>(
        &self,
        disk: Disk<'_, S>,
        tree: &Tree,
        budget: &mut Budget,
    ) -> Result<Directory, Error> {
        let record = self.records[0];
        match self.rock_ridge.child {
            Some(child) => Directory::load_at(disk, tree, child.location, budget),
            None => Directory::load(disk, tree, record.location(), record.size(), budget),
        }
    }

    fn entry(&self, tree: &Tree, size: u64) -> Result<Entry, Error> {
        let name = String::from_utf8_lossy(&self.name).into_owned();
        let mode = self.rock_ridge.mode;
        if self.is_directory() {
            return Ok(Entry { name, kind: Kind::Directory, size: 0, extents: Vec::new(), mode });
        }
        if let Some(target) = &self.rock_ridge.target {
            let kind = Kind::Symlink(String::from_utf8_lossy(target).into_owned());
            return Ok(Entry { name, kind, size: 0, extents: Vec::new(), mode });
        }
        let extents = self.extents(tree, size)?;
        let size = extents.iter().map(|extent| extent.length).sum();
        Ok(Entry { name, kind: Kind::File, size, extents, mode })
    }

    /// Where its sections lie; neighbours become one.
    pub(in crate::iso) fn extents(&self, tree: &Tree, size: u64) -> Result<Vec<Extent>, Error> {
        let mut extents: Vec<Extent> = Vec::new();
        for record in self.records.iter().filter(|record| record.size() > 0) {
            let offset = tree.base.saturating_add(record.location().into()).saturating_mul(BLOCK);
            let length = u64::from(record.size());
            if offset.saturating_add(length) > size {
                return Err(Error::Beyond { offset: offset.saturating_add(length), size });
            }
            match extents.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += length,
                _ => extents.push(Extent { offset, length }),
            }
        }
        Ok(extents)
    }

    /// Why the bytes of its extents are not the bytes of the file.
    fn not_in_place(&self) -> Option<&'static str> {
        if self.rock_ridge.is_compressed {
            return Some("compressed with zisofs");
        }
        self.records.iter().any(Record::is_interleaved).then_some("interleaved")
    }
}

/// What Rock Ridge says of a record, in a tree that has it.
pub(in crate::iso) fn rock_ridge<S: Storage + ?Sized>(
    disk: Disk<'_, S>,
    tree: &Tree,
    record: Record<'_>,
    budget: &mut Budget,
) -> Result<RockRidge, Error> {
    match tree.names {
        Names::RockRidge { skip } => susp::parse(disk, tree.base, record, skip, budget),
        Names::Plain | Names::Joliet => Ok(RockRidge::default()),
    }
}

pub(super) fn find<S: Storage + ?Sized>(disk: Disk<'_, S>, tree: &Tree, path: &str) -> Result<Option<Entry>, Error> {
    Ok(walk(disk, tree, path, &mut Budget::new())?.map(|(entry, _)| entry))
}

pub(super) fn list<S: Storage + ?Sized>(disk: Disk<'_, S>, tree: &Tree, path: &str) -> Result<Vec<Entry>, Error> {
    let mut budget = Budget::new();
    let Some((_, Some(directory))) = walk(disk, tree, path, &mut budget)? else {
        return Err(Error::NotDirectory { path: path.to_owned() });
    };
    let children = Child::all(disk, tree, &directory, &mut budget)?;
    // Rock Ridge shows a moved directory where it belongs, not where it lies.
    children.iter().filter(|child| !child.rock_ridge.is_moved).map(|child| child.entry(tree, disk.size)).collect()
}

/// Follows a path from the root. For a directory, it comes with what it leads to.
fn walk<S: Storage + ?Sized>(
    disk: Disk<'_, S>,
    tree: &Tree,
    path: &str,
    budget: &mut Budget,
) -> Result<Option<(Entry, Option<Directory>)>, Error> {
    let root = Directory::load(disk, tree, tree.root, tree.root_size, budget)?;
    let mut todo: VecDeque<Vec<u8>> = components(path.as_bytes()).collect();
    let mut above: Vec<Directory> = Vec::new();
    let mut here = root;
    let mut entry = Entry { name: "/".into(), kind: Kind::Directory, size: 0, extents: Vec::new(), mode: None };
    let mut steps = 0;
    while let Some(component) = todo.pop_front() {
        steps += 1;
        if steps > ISO_PATH_STEPS_MAX {
            return Err(Error::TooDeep { path: path.to_owned() });
        }
        if component == b".." {
            here = above.pop().unwrap_or(here); // above the root is the root
            continue;
        }
        let children = Child::all(disk, tree, &here, budget)?;
        let Some(child) = children.iter().find(|child| same_name(tree.names, &child.name, &component)) else {
            return Ok(None);
        };
        entry = child.entry(tree, disk.size)?;
        match &entry.kind {
            Kind::Directory => {
                let next = child.open(disk, tree, budget)?;
                drop(children);
                above.push(std::mem::replace(&mut here, next));
            }
            Kind::Symlink(target) => {
                if target.starts_with('/') {
                    above.truncate(1);
                    here = above.pop().unwrap_or(here);
                }
                components(target.as_bytes()).rev().for_each(|component| todo.push_front(component));
            }
            Kind::File if todo.is_empty() => {
                return match child.not_in_place() {
                    Some(how) => Err(Error::NotInPlace { path: path.to_owned(), how }),
                    None => Ok(Some((entry, None))),
                };
            }
            Kind::File => return Ok(None),
        }
    }
    // After `..` the last entry is not where the path ended, but it is a directory all the same.
    let entry = Entry { kind: Kind::Directory, size: 0, extents: Vec::new(), ..entry };
    Ok(Some((entry, Some(here))))
}

/// The byte behind the last directory, file and path table of a tree.
pub(in crate::iso) fn data_end<S: Storage + ?Sized>(
    disk: Disk<'_, S>,
    tree: &Tree,
    budget: &mut Budget,
) -> Result<u64, Error> {
    let byte = |block: u32| tree.base.saturating_add(block.into()).saturating_mul(BLOCK);
    let tables = tree.path_tables.blocks.iter().filter(|block| **block != 0);
    let mut end = tables.map(|block| byte(*block).saturating_add(tree.path_tables.size.into())).max().unwrap_or(0);
    let mut todo = vec![Directory::load(disk, tree, tree.root, tree.root_size, budget)?];
    let mut seen = HashSet::from([tree.root]);
    while let Some(directory) = todo.pop() {
        end = end.max(byte(directory.location).saturating_add(directory.bytes.len() as u64));
        for child in Child::all(disk, tree, &directory, budget)? {
            if child.is_directory() {
                let next = child.open(disk, tree, budget)?;
                todo.extend(seen.insert(next.location).then_some(next));
            } else {
                let extents = child.extents(tree, disk.size)?;
                end = extents.iter().map(|extent| extent.offset + extent.length).fold(end, u64::max);
            }
        }
    }
    Ok(end)
}

fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = Vec<u8>> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec)
}

/// Whether a name of the image is the one that is looked for. Only Rock Ridge tells upper from lower case.
pub(in crate::iso) fn same_name(names: Names, stored: &[u8], wanted: &[u8]) -> bool {
    match names {
        Names::RockRidge { .. } => stored == wanted,
        Names::Joliet | Names::Plain => {
            let (stored, wanted) = (String::from_utf8_lossy(stored), String::from_utf8_lossy(wanted));
            stored.to_lowercase() == wanted.to_lowercase()
        }
    }
}

/// The name that an identifier stands for.
pub(in crate::iso) fn stored_name(names: Names, identifier: &[u8]) -> Vec<u8> {
    match names {
        Names::Joliet => joliet_name(identifier),
        Names::Plain | Names::RockRidge { .. } => plain_name(identifier),
    }
}

/// Without version number, and without the dot of an empty extension.
fn plain_name(identifier: &[u8]) -> Vec<u8> {
    let name = without_version(identifier);
    name.strip_suffix(b".").filter(|name| !name.is_empty()).unwrap_or(name).to_vec()
}

/// From UCS-2 (in practice UTF-16), big-endian.
fn joliet_name(identifier: &[u8]) -> Vec<u8> {
    let units: Vec<u16> = identifier.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]])).collect();
    without_version(String::from_utf16_lossy(&units).as_bytes()).to_vec()
}

fn without_version(name: &[u8]) -> &[u8] {
    match name.iter().rposition(|&byte| byte == b';') {
        Some(at) if at > 0 && name[at + 1..].iter().all(u8::is_ascii_digit) => &name[..at],
        _ => name,
    }
}
