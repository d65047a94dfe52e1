//! A finished squashfs as a place to read the image's files from.

use std::io;

use super::feed::SquashTree;
use crate::rootfs::{NodeId, NodeKind, Tree};
use crate::squashfs::{self, Finished};
use crate::storage::Storage;

/// A finished squashfs and the way from the tree's nodes to the data in it.
pub(super) struct Contents<'a> {
    pub(super) tree: &'a Tree,
    pub(super) squash_tree: &'a SquashTree<'a>,
    pub(super) finished: &'a Finished,
    /// Begins where the squashfs begins.
    pub(super) out: &'a dyn Storage,
}

impl Contents<'_> {
    /// Streams a file.
    pub(super) fn copy(&self, node: NodeId, into: &mut dyn io::Write) -> Result<(), squashfs::Error> {
        match self.tree.kind(node) {
            NodeKind::File { data: Some(data), .. } => {
                self.finished.copy_file(self.out, self.squash_tree.data_id(data), into)
            }
            _ => Ok(()),
        }
    }

    /// A whole file, for small ones.
    pub(super) fn bytes(&self, node: NodeId) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy(node, &mut bytes).map_err(io::Error::other)?;
        Ok(bytes)
    }

    /// Bytes of a file.
    pub(super) fn size(&self, node: NodeId) -> u64 {
        match self.tree.kind(node) {
            NodeKind::File { size, .. } => size,
            _ => 0,
        }
    }
}
