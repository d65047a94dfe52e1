//! What the writer asks of a directory tree.

use super::DataId;

/// A node of a [`Tree`]: a dense index, so the writer keeps its own notes in plain arrays.
pub type NodeIndex = u32;

/// A directory tree with the metadata of its nodes. Nodes reached by several names are hard links of one inode.
pub trait Tree {
    /// Every [`NodeIndex`] is below this. Indexes that are not reachable from the root cost four bytes each, no more.
    fn node_bound(&self) -> usize;

    /// The root directory.
    fn root(&self) -> NodeIndex;

    /// The entries of a directory in ascending order of the name's bytes; asked twice, with the same answer.
    fn children(&self, dir: NodeIndex) -> impl Iterator<Item = (&[u8], NodeIndex)>;

    /// Owner, mode, time, kind and extended attributes of one node.
    fn meta(&self, node: NodeIndex) -> Meta<'_>;
}

/// The metadata of one node.
#[derive(Debug, Clone, Copy)]
pub struct Meta<'a> {
    /// Permission bits with set-user-id, set-group-id and sticky (`0o7777`); other bits are ignored.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970; squashfs has 32 bits for it.
    pub mtime: u32,
    pub kind: Kind<'a>,
    /// Only `user.`, `trusted.` and `security.` can be stored; others are counted in [`super::Counts::xattrs_dropped`].
    pub xattrs: &'a [Xattr],
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    Directory,
    /// A regular file whose content was given to [`super::Writer::add_file`].
    File(DataId),
    /// The target's bytes.
    Symlink(&'a [u8]),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
    Socket,
}

/// A device number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// At most 12 bits.
    pub major: u32,
    /// At most 20 bits.
    pub minor: u32,
}

/// One extended attribute: the full name (`security.capability`) and its value.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Xattr {
    pub name: Box<[u8]>,
    pub value: Box<[u8]>,
}
