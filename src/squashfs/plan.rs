//! The first look at the tree: checks names, numbers inodes, counts links.

use super::Error;
use super::tree::{Kind, NodeIndex, Tree};
use crate::limits;

/// Inode numbers and link counts of all reachable nodes.
#[derive(Debug)]
pub(super) struct Plan {
    /// By node; 0 for nodes that are not reachable.
    numbers: Vec<u32>,
    links: Vec<u32>,
    /// How many inodes there are; numbers go from 1 to this.
    pub(super) inodes: u32,
    /// Every directory and its parent's inode number, parents before children.
    pub(super) directories: Vec<(NodeIndex, u32)>,
}

impl Plan {
    /// Numbers the entries of a directory in a row: listings store numbers as 16-bit differences.
    ///
    /// # Errors
    /// A name squashfs cannot hold, entries out of order, a directory reached twice, too many inodes.
    pub(super) fn new<T: Tree>(tree: &T) -> Result<Plan, Error> {
        let root = tree.root();
        let bound = tree.node_bound();
        let mut plan = Plan { numbers: vec![0; bound], links: vec![0; bound], inodes: 0, directories: Vec::new() };
        if tree.meta(root).kind != Kind::Directory {
            return Err(Error::Root);
        }
        plan.visit(root)?;
        // No recursion: a hostile tree may be as deep as its paths are long.
        let mut stack = vec![(root, 0)];
        while let Some((directory, parent)) = stack.pop() {
            plan.directories.push((directory, parent));
            let number = plan.number(directory);
            let mut previous: Option<&[u8]> = None;
            for (name, node) in tree.children(directory) {
                check_name(name, previous)?;
                previous = Some(name);
                let first = plan.visit(node)?;
                if tree.meta(node).kind == Kind::Directory {
                    if !first {
                        return Err(Error::DirectoryTwice(lossy(name)));
                    }
                    stack.push((node, number));
                }
            }
        }
        // As mksquashfs has it: the root's parent is a number no inode has.
        plan.directories[0].1 = plan.inodes + 1;
        Ok(plan)
    }

    pub(super) fn number(&self, node: NodeIndex) -> u32 {
        self.numbers[node as usize]
    }

    pub(super) fn links(&self, node: NodeIndex) -> u32 {
        self.links[node as usize]
    }

    /// Counts a name of `node`; whether it is the first.
    fn visit(&mut self, node: NodeIndex) -> Result<bool, Error> {
        let index = node as usize;
        let (Some(number), Some(links)) = (self.numbers.get_mut(index), self.links.get_mut(index)) else {
            return Err(Error::NodeBound(node));
        };
        *links = links.checked_add(1).ok_or(Error::TooMany("links of one file"))?;
        if *number != 0 {
            return Ok(false);
        }
        // The number after the last one is the root's parent.
        self.inodes = self.inodes.checked_add(1).filter(|n| *n < u32::MAX).ok_or(Error::TooMany("inodes"))?;
        *number = self.inodes;
        Ok(true)
    }
}

fn check_name(name: &[u8], previous: Option<&[u8]>) -> Result<(), Error> {
    let bad = name.is_empty() || name.len() > limits::NAME_BYTES_MAX;
    if bad || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Error::Name(lossy(name)));
    }
    match previous {
        Some(previous) if previous >= name => Err(Error::Order(lossy(name))),
        _ => Ok(()),
    }
}

fn lossy(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::tree::Meta;
    use super::*;

    type Entries = Vec<(&'static [u8], NodeIndex)>;

    /// Node 0 is the root; a node with an entry here is a directory.
    struct Names(Vec<(NodeIndex, Entries)>);

    impl Tree for Names {
        fn node_bound(&self) -> usize {
            10
        }

        fn root(&self) -> NodeIndex {
            0
        }

        fn children(&self, dir: NodeIndex) -> impl Iterator<Item = (&[u8], NodeIndex)> {
            self.0.iter().filter(move |entry| entry.0 == dir).flat_map(|entry| entry.1.iter().copied())
        }

        fn meta(&self, node: NodeIndex) -> Meta<'_> {
            let directory = self.0.iter().any(|entry| entry.0 == node);
            let kind = if directory { Kind::Directory } else { Kind::Fifo };
            Meta { mode: 0, uid: 0, gid: 0, mtime: 0, kind, xattrs: &[] }
        }
    }

    #[test]
    fn entries_of_a_directory_are_numbered_in_a_row_and_links_counted() {
        let tree = Names(vec![(0, vec![(b"a", 1), (b"b", 2), (b"c", 3)]), (2, vec![(b"hard", 1), (b"x", 4)])]);
        let plan = Plan::new(&tree).unwrap();
        assert_eq!(plan.inodes, 5);
        assert_eq!([0, 1, 2, 3, 4].map(|node| plan.number(node)), [1, 2, 3, 4, 5]);
        assert_eq!(plan.links(1), 2);
        assert_eq!(plan.directories, [(0, 6), (2, 1)]);
    }

    #[test]
    fn names_that_no_directory_may_have_are_refused() {
        let long: &'static [u8] = &[b'n'; limits::NAME_BYTES_MAX + 1];
        for bad in [&b""[..], b".", b"..", b"a/b", b"a\0", long] {
            assert!(matches!(Plan::new(&Names(vec![(0, vec![(bad, 1)])])), Err(Error::Name(_))));
        }
        assert!(Plan::new(&Names(vec![(0, vec![(&long[1..], 1)])])).is_ok());
    }

    #[test]
    fn order_loops_and_bounds_are_checked() {
        let twice = Names(vec![(0, vec![(b"a", 1), (b"a", 2)])]);
        assert!(matches!(Plan::new(&twice), Err(Error::Order(name)) if name == "a"));
        let shared = Names(vec![(0, vec![(b"a", 1), (b"b", 1)]), (1, vec![])]);
        assert!(matches!(Plan::new(&shared), Err(Error::DirectoryTwice(name)) if name == "b"));
        let cycle = Names(vec![(0, vec![(b"a", 0)])]);
        assert!(matches!(Plan::new(&cycle), Err(Error::DirectoryTwice(_))));
        assert!(matches!(Plan::new(&Names(vec![(0, vec![(b"a", 10)])])), Err(Error::NodeBound(10))));
        assert!(matches!(Plan::new(&Names(vec![])), Err(Error::Root)));
    }

    #[test]
    fn a_very_deep_tree_needs_no_stack() {
        struct Deep(u32);
        impl Tree for Deep {
            fn node_bound(&self) -> usize {
                self.0 as usize
            }
            fn root(&self) -> NodeIndex {
                0
            }
            fn children(&self, dir: NodeIndex) -> impl Iterator<Item = (&[u8], NodeIndex)> {
                (dir + 1 < self.0).then_some((&b"d"[..], dir + 1)).into_iter()
            }
            fn meta(&self, _: NodeIndex) -> Meta<'_> {
                Meta { mode: 0, uid: 0, gid: 0, mtime: 0, kind: Kind::Directory, xattrs: &[] }
            }
        }
        assert_eq!(Plan::new(&Deep(1_000_000)).unwrap().inodes, 1_000_000);
    }
}
