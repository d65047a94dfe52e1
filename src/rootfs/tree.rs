//! The finished tree: what an image's root directory contains.

use std::collections::HashMap;

use super::entry::{DataRef, FileData, Kind, Meta, XattrSet, XattrSets};
use super::merge::{EntryIndex, Merge};
use super::paths::{PathId, Paths, Text, components};
use crate::limits::SYMLINKS_FOLLOWED_MAX;

/// A file, directory, link … of the tree. Names that are hard links of each other lead to the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(u32);

impl NodeId {
    pub const ROOT: Self = Self(0);

    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub const fn number(self) -> u32 {
        self.0
    }

    /// Must be the number of a node of the tree it is used with.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind<'a> {
    Directory,
    /// The data is `None` for an empty file.
    File {
        size: u64,
        data: Option<DataRef>,
    },
    Symlink(&'a [u8]),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Why a path leads to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unresolved {
    Missing,
    /// Links that lead back to themselves.
    Loop,
}

/// An image's root directory.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    /// The names in all directories: sorted in each, the directories one after the other.
    names: Vec<(Text, NodeId)>,
    paths: Paths,
    xattrs: XattrSets,
}

#[derive(Debug)]
struct Node {
    meta: Meta,
    kind: Kind,
    /// For a directory: its stretch of [`Tree::names`].
    names: (u32, u32),
}

/// A live file whose data has not been stored yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Missing {
    pub(super) entry: EntryIndex,
    pub(super) node: NodeId,
}

impl Tree {
    /// Numbers what is alive, breadth first; also says which files still need their data.
    pub(super) fn freeze(merge: Merge, xattrs: XattrSets) -> (Self, Vec<Missing>) {
        let mut nodes = Vec::new();
        let mut names = Vec::new();
        let mut missing = Vec::new();
        let mut known: HashMap<EntryIndex, NodeId> = HashMap::new();
        let mut directories = std::collections::VecDeque::new();
        let mut number = |path: PathId, index: EntryIndex, directories: &mut std::collections::VecDeque<_>| {
            let entry = &merge.entries[index as usize];
            let id = NodeId(u32::try_from(nodes.len()).unwrap_or(u32::MAX)); // fewer than entries
            let hard_linked = entry.kind != Kind::Directory;
            if hard_linked && let Some(id) = known.get(&index) {
                return *id;
            }
            match entry.kind {
                Kind::Directory => directories.push_back((path, id)),
                Kind::File { data: FileData::Skipped, .. } => missing.push(Missing { entry: index, node: id }),
                _ => {}
            }
            if hard_linked {
                known.insert(index, id);
            }
            nodes.push(Node { meta: entry.meta, kind: entry.kind, names: (0, 0) });
            id
        };
        let mut stretches = Vec::new();
        if let Some(root) = merge.at(PathId::ROOT) {
            number(PathId::ROOT, root, &mut directories);
        }
        while let Some((path, id)) = directories.pop_front() {
            let mut children: Vec<_> = merge.children(path).collect();
            children.sort_unstable_by(|a, b| merge.paths.name(a.0).cmp(merge.paths.name(b.0)));
            let start = names.len();
            for (path, index) in children {
                names.push((merge.paths.name_text(path), number(path, index, &mut directories)));
            }
            stretches.push((id, start, names.len()));
        }
        for (id, start, end) in stretches {
            let position = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
            nodes[id.index()].names = (position(start), position(end));
        }
        (Self { nodes, names, paths: merge.paths, xattrs }, missing)
    }

    /// How many nodes there are: one more than the largest [`NodeId::index`].
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    pub fn nodes(&self) -> impl Iterator<Item = NodeId> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).map(NodeId)
    }

    /// The names in a directory, in the order of their bytes.
    pub fn children(&self, directory: NodeId) -> impl ExactSizeIterator<Item = (&[u8], NodeId)> {
        let (start, end) = self.nodes[directory.index()].names;
        self.names[start as usize..end as usize].iter().map(|&(name, node)| (self.paths.text(name), node))
    }

    pub fn meta(&self, node: NodeId) -> Meta {
        self.nodes[node.index()].meta
    }

    pub fn kind(&self, node: NodeId) -> NodeKind<'_> {
        match self.nodes[node.index()].kind {
            Kind::File { size, data: FileData::Stored(data) } => NodeKind::File { size, data: Some(data) },
            Kind::File { size, .. } => NodeKind::File { size, data: None },
            Kind::Symlink(target) => NodeKind::Symlink(self.paths.text(target)),
            Kind::CharDevice { major, minor } => NodeKind::CharDevice { major, minor },
            Kind::BlockDevice { major, minor } => NodeKind::BlockDevice { major, minor },
            Kind::Fifo => NodeKind::Fifo,
            // Marks and hard links are never alive themselves.
            Kind::Directory | Kind::HardLink(_) | Kind::Whiteout | Kind::Opaque => NodeKind::Directory,
        }
    }

    pub fn xattrs(&self, node: NodeId) -> &XattrSet {
        self.xattrs.get(self.meta(node).xattrs)
    }

    /// All attribute sets of the tree, by [`XattrId::index`](super::XattrId::index).
    pub fn xattr_sets(&self) -> &[XattrSet] {
        self.xattrs.all()
    }

    /// The node `name` in a directory; no links are followed.
    pub fn child(&self, directory: NodeId, name: &[u8]) -> Option<NodeId> {
        let (start, end) = self.nodes[directory.index()].names;
        let names = &self.names[start as usize..end as usize];
        let found = names.binary_search_by(|&(other, _)| self.paths.text(other).cmp(name)).ok()?;
        Some(names[found].1)
    }

    /// The node at a path from the root. Symbolic links are followed inside the tree, an absolute target from the tree's root.
    pub fn lookup(&self, path: &[u8]) -> Option<NodeId> {
        self.resolve(path).ok().map(|(node, _)| node)
    }

    /// [`Tree::lookup`], also giving the path without links that was arrived at, or why there is nothing.
    pub fn resolve(&self, path: &[u8]) -> Result<(NodeId, Vec<u8>), Unresolved> {
        let mut names: Vec<&[u8]> = components(path).rev().collect();
        let mut trail: Vec<(&[u8], NodeId)> = Vec::new();
        let mut links = 0;
        while let Some(name) = names.pop() {
            if name == b".." {
                trail.pop();
                continue;
            }
            let at = trail.last().map_or(NodeId::ROOT, |last| last.1);
            let node = self.child(at, name).ok_or(Unresolved::Missing)?;
            let NodeKind::Symlink(target) = self.kind(node) else {
                trail.push((name, node));
                continue;
            };
            links += 1;
            if links > SYMLINKS_FOLLOWED_MAX {
                return Err(Unresolved::Loop);
            }
            if target.starts_with(b"/") {
                trail.clear();
            }
            names.extend(components(target).rev());
        }
        let node = trail.last().map_or(NodeId::ROOT, |last| last.1);
        let names: Vec<&[u8]> = trail.iter().map(|part| part.0).collect();
        Ok((node, names.join(&b'/')))
    }

    /// Size and data of every file that has some, each once.
    pub fn files(&self) -> impl Iterator<Item = (u64, DataRef)> {
        self.nodes.iter().filter_map(|node| match node.kind {
            Kind::File { size, data: FileData::Stored(data) } => Some((size, data)),
            _ => None,
        })
    }

    pub(super) fn set_data(&mut self, node: NodeId, stored: DataRef) {
        if let Kind::File { data, .. } = &mut self.nodes[node.index()].kind {
            *data = FileData::Stored(stored);
        }
    }
}
