//! The files and directories of an image, before they have records.

use std::collections::HashMap;

use super::Error;
use crate::limits::{ISO_ENTRIES_MAX, NAME_BYTES_MAX};
use crate::storage::Extent;

/// Where a node is in the [`Tree`].
pub(super) type Id = usize;

pub(super) const ROOT: Id = 0;

const DIRECTORY_MODE: u32 = 0o040_000;
const FILE_MODE: u32 = 0o100_000;
const SYMLINK_MODE: u32 = 0o120_000;

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Directory(Vec<Id>),
    /// Bytes of the image, from its start; the offset is that of a block.
    File(Extent),
    Symlink(Vec<u8>),
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub name: Vec<u8>,
    pub kind: Kind,
    /// POSIX `st_mode`, file type included.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

impl Node {
    pub(super) const fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory(_))
    }
}

/// Grows by paths; missing parents come into being.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// By parent and name. Without it, a directory of 100 000 files would take minutes.
    index: HashMap<(Id, Vec<u8>), Id>,
    mtime: u32,
}

impl Tree {
    /// An empty root. `mtime` is that of directories nobody named.
    pub(super) fn new(mtime: u32) -> Self {
        let root = Node { name: Vec::new(), kind: Kind::Directory(Vec::new()), mode: DIRECTORY_MODE | 0o755, mtime };
        Self { nodes: vec![root], index: HashMap::new(), mtime }
    }

    /// Gives everything another time.
    pub(super) fn set_mtime(&mut self, mtime: u32) {
        self.mtime = mtime;
        self.nodes.iter_mut().for_each(|node| node.mtime = mtime);
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// The entries of a directory, in the order they were added; none of other nodes.
    pub(super) fn children(&self, id: Id) -> &[Id] {
        match &self.nodes[id].kind {
            Kind::Directory(children) => children,
            _ => &[],
        }
    }

    /// Adds a file, directory or symbolic link with the permission bits `mode`.
    pub(super) fn add(&mut self, path: &str, kind: Kind, mode: u32, mtime: u32) -> Result<Id, Error> {
        let bad = |why| Error::Path { path: path.to_owned(), why };
        let mut parent = ROOT;
        let mut names = path.as_bytes().split(|byte| *byte == b'/').peekable();
        while let Some(name) = names.next() {
            check_name(name).map_err(bad)?;
            let found = self.child(parent, name);
            if names.peek().is_none() {
                if found.is_some() {
                    return Err(Error::Twice(path.to_owned()));
                }
                let kind_mode = match kind {
                    Kind::Directory(_) => DIRECTORY_MODE,
                    Kind::File(_) => FILE_MODE,
                    Kind::Symlink(_) => SYMLINK_MODE,
                };
                return self.push(parent, Node { name: name.to_vec(), kind, mode: kind_mode | mode & 0o7777, mtime });
            }
            parent = match found {
                Some(found) if self.nodes[found].is_directory() => found,
                Some(_) => return Err(bad("it leads through what is no directory")),
                None => {
                    let (kind, mode, mtime) = (Kind::Directory(Vec::new()), DIRECTORY_MODE | 0o755, self.mtime);
                    self.push(parent, Node { name: name.to_vec(), kind, mode, mtime })?
                }
            };
        }
        Err(bad("it is empty"))
    }

    /// The node of a path.
    pub(super) fn find(&self, path: &str) -> Option<Id> {
        path.as_bytes().split(|byte| *byte == b'/').try_fold(ROOT, |parent, name| self.child(parent, name))
    }

    fn child(&self, parent: Id, name: &[u8]) -> Option<Id> {
        self.index.get(&(parent, name.to_vec())).copied()
    }

    fn push(&mut self, parent: Id, node: Node) -> Result<Id, Error> {
        if self.nodes.len() >= ISO_ENTRIES_MAX {
            return Err(Error::TooMany { what: "entries", max: ISO_ENTRIES_MAX });
        }
        let id = self.nodes.len();
        self.index.insert((parent, node.name.clone()), id);
        self.nodes.push(node);
        if let Kind::Directory(children) = &mut self.nodes[parent].kind {
            children.push(id);
        }
        Ok(id)
    }
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("a name in it is empty"),
        b"." | b".." => Err("it has a name that means another directory"),
        name if name.len() > NAME_BYTES_MAX => Err("a name in it is too long"),
        name if name.contains(&0) => Err("it contains a zero byte"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Kind = Kind::File(Extent { offset: 0, length: 0 });

    #[test]
    fn paths_bring_their_parents() {
        let mut tree = Tree::new(7);
        let cfg = tree.add("boot/grub2/grub.cfg", FILE, 0o644, 9).unwrap();
        assert_eq!(tree.find("boot/grub2/grub.cfg"), Some(cfg));
        let grub2 = tree.node(tree.find("boot/grub2").unwrap());
        assert!(grub2.is_directory());
        assert_eq!((grub2.mode, grub2.mtime), (0o040_755, 7));
        assert_eq!((tree.node(cfg).mode, tree.node(cfg).mtime), (0o100_644, 9));
        assert_eq!((tree.find("boot/grub"), tree.children(ROOT).len()), (None, 1));
    }

    #[test]
    fn an_image_has_room_for_so_many_entries() {
        let mut tree = Tree::new(0);
        // The root and `all` are entries, too.
        for index in 2..ISO_ENTRIES_MAX {
            tree.add(&format!("all/{index}"), FILE, 0o644, 0).unwrap();
        }
        let full = tree.add("one more", FILE, 0, 0).unwrap_err();
        assert_eq!(full.to_string(), "too many entries for an ISO (at most 200000)");
    }

    #[test]
    fn bad_paths_are_refused() {
        let mut tree = Tree::new(0);
        tree.add("a", FILE, 0, 0).unwrap();
        let long = "n".repeat(NAME_BYTES_MAX + 1);
        for path in ["", "/a", "b/", "b//c", "../a", "b/./c", "b\0", "a/b", long.as_str()] {
            assert!(matches!(tree.add(path, FILE, 0, 0), Err(Error::Path { .. })), "{path:?}");
        }
        assert!(matches!(tree.add("a", FILE, 0, 0), Err(Error::Twice(_))));
    }
}
