//! One tree of directories as it will be: additions put where they belong.

use std::collections::HashMap;

use super::node::{Entry, Node, What};
use super::{Error, Item, ItemKind};
use crate::iso::bytes::u32_at;
use crate::iso::read::{Budget, Directory, Disk, Names, Set, Tree};
use crate::limits::ISO_ENTRIES_MAX;
use crate::storage::{Extent, Storage};

/// The directories that additions lead through, the root first. The others are not even read.
pub(super) struct Change<'a, S: ?Sized> {
    pub(super) disk: Disk<'a, S>,
    pub(super) tree: &'a Tree,
    pub(super) nodes: Vec<Node>,
    pub(super) budget: Budget,
    /// By their block in the source.
    by_location: HashMap<u32, usize>,
    /// Whether upper and lower case are one. Not beside Rock Ridge, whose names all trees follow.
    fold: bool,
}

/// Level 2 and 3 have 31 characters and a version.
const IDENTIFIER_LEN_KEPT: usize = 37;

impl<'a, S: Storage + ?Sized> Change<'a, S> {
    pub(super) fn new(disk: Disk<'a, S>, set: &Set, tree: &'a Tree) -> Result<Self, Error> {
        let fold = !set.trees.iter().any(|tree| matches!(tree.names, Names::RockRidge { .. }));
        let (nodes, by_location) = (Vec::new(), HashMap::new());
        let mut change = Self { disk, tree, nodes, budget: Budget::new(), by_location, fold };
        let root = Directory::load(disk, tree, tree.root, tree.root_size, &mut change.budget)?;
        change.load(&root, 0)?;
        Ok(change)
    }

    /// Puts one addition into its place. `replaced` is the file that it replaced in another tree: names that were cut or made plain by
    /// whoever wrote the image cannot be told from the path, but the data is the same.
    pub(super) fn add(&mut self, item: &Item, replaced: &mut Option<Extent>) -> Result<(), Error> {
        let (parents, name) = item.path.rsplit_once('/').unwrap_or(("", &item.path));
        let mut node = 0;
        for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
            node = self.enter(node, parent, item)?;
        }
        match &item.kind {
            ItemKind::Directory => self.enter(node, name, item).map(drop),
            ItemKind::File(extent) => {
                let what = What::File { extent: *extent, mode: item.mode, mtime: item.mtime };
                self.put(node, name, what, item, replaced)
            }
            ItemKind::Symlink(target) => {
                let what = match self.tree.names {
                    Names::RockRidge { .. } => {
                        What::Symlink { target: target.clone(), mode: item.mode, mtime: item.mtime }
                    }
                    Names::Joliet | Names::Plain => What::Gone,
                };
                self.put(node, name, what, item, replaced)
            }
        }
    }

    fn put(
        &mut self,
        node: usize,
        name: &str,
        what: What,
        item: &Item,
        replaced: &mut Option<Extent>,
    ) -> Result<(), Error> {
        let by_name = self.nodes[node].find(self.tree.names, self.fold, name.as_bytes(), false);
        let by_data = || replaced.and_then(|extent| self.nodes[node].find_data(self.tree.base, extent));
        match by_name.or_else(by_data) {
            Some(found) => {
                *replaced = replaced.or_else(|| self.nodes[node].entries[found].data(self.tree.base));
                self.shorten(node, found, name)?;
                let entry = &mut self.nodes[node].entries[found];
                if matches!(entry.what, What::Old { is_directory: true, .. } | What::Directory { .. }) {
                    return Err(Error::IsDirectory(item.path.clone()));
                }
                entry.what = what;
            }
            None if matches!(what, What::Gone) => return Ok(()),
            None => {
                self.push(node, name, what, false)?;
            }
        }
        self.nodes[node].is_changed = true;
        Ok(())
    }

    /// Gives an entry that is replaced an identifier that leaves room for Rock Ridge, if the old one does not: ISO 9660:1999 allows 207.
    fn shorten(&mut self, node: usize, found: usize, name: &str) -> Result<(), Error> {
        let node = &mut self.nodes[node];
        let is_long = node.entries[found].identifier.len() > IDENTIFIER_LEN_KEPT;
        if is_long && matches!(self.tree.names, Names::RockRidge { .. }) {
            node.entries[found].identifier = node.identifier_for(self.tree.names, name.as_bytes(), false)?;
        }
        Ok(())
    }

    /// The directory `name` in a node; made if it is not there.
    fn enter(&mut self, node: usize, name: &str, item: &Item) -> Result<usize, Error> {
        let Some(found) = self.nodes[node].find(self.tree.names, self.fold, name.as_bytes(), true) else {
            let index = self.nodes.len();
            if index >= ISO_ENTRIES_MAX {
                return Err(Error::TooMany("directories"));
            }
            let identifier = self.push(node, name, What::Directory { node: index, mtime: item.mtime }, true)?;
            self.nodes[node].is_changed = true;
            self.nodes.push(Node::new(node, identifier, item.mtime));
            return Ok(index);
        };
        let entry = &self.nodes[node].entries[found];
        match &entry.what {
            What::Directory { node, .. } => Ok(*node),
            What::Old { records, is_directory: true } => {
                let record = &records[0];
                let location = record.pointer.map_or(u32_at(&record.bytes, 2), |pointer| pointer.location);
                let size = record.pointer.is_none().then(|| u32_at(&record.bytes, 10));
                self.open(location, size, node)
            }
            _ => Err(Error::NotDirectory { path: item.path.clone(), at: name.to_owned() }),
        }
    }

    fn push(&mut self, node: usize, name: &str, what: What, is_directory: bool) -> Result<Vec<u8>, Error> {
        let (names, fold, parent) = (self.tree.names, self.fold, &mut self.nodes[node]);
        let identifier = parent.identifier_for(names, name.as_bytes(), is_directory)?;
        parent.push(names, fold, Entry { name: name.into(), identifier: identifier.clone(), what });
        Ok(identifier)
    }

    /// Reads a directory of the source, once. Without a size, its own first record says it.
    pub(super) fn open(&mut self, location: u32, size: Option<u32>, parent: usize) -> Result<usize, Error> {
        if let Some(&node) = self.by_location.get(&location) {
            return Ok(node);
        }
        let directory = match size {
            Some(size) => Directory::load(self.disk, self.tree, location, size, &mut self.budget)?,
            None => Directory::load_at(self.disk, self.tree, location, &mut self.budget)?,
        };
        self.load(&directory, parent)
    }

    fn load(&mut self, directory: &Directory, parent: usize) -> Result<usize, Error> {
        let node = Node::load(self.disk, self.tree, directory, parent, self.fold, &mut self.budget)?;
        let index = self.nodes.len();
        self.by_location.insert(directory.location, index);
        self.nodes.push(node);
        Ok(index)
    }
}
