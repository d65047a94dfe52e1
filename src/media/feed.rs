//! Joins the merged tree and the squashfs writer: data on the way in, metadata at the end.

use std::io::{self, Read};

use crate::rootfs::{self, DataRef, DataSink, NodeId, NodeKind};
use crate::squashfs::{self, DataId, Device, Kind, Meta, NodeIndex, Writer, Xattr, xattr_storable};
use crate::storage::Storage;

/// Stores files' data as it comes by.
pub(super) struct Feed<F: Storage> {
    writer: Writer<F>,
    data: StoredData,
}

/// Where the data of files is; [`DataRef`] is the position.
#[derive(Debug)]
pub(super) struct StoredData {
    ids: Vec<DataId>,
    /// What empty files have.
    empty: DataId,
}

impl<F: Storage + 'static> Feed<F> {
    pub(super) fn new(mut writer: Writer<F>) -> Result<Self, squashfs::Error> {
        let empty = writer.add_file(0, &mut io::empty())?;
        Ok(Self { writer, data: StoredData { ids: Vec::new(), empty } })
    }

    pub(super) fn into_parts(self) -> (Writer<F>, StoredData) {
        (self.writer, self.data)
    }
}

impl<F: Storage + 'static> DataSink for Feed<F> {
    fn add(&mut self, size: u64, data: &mut dyn Read) -> io::Result<DataRef> {
        let index = u32::try_from(self.data.ids.len()).map_err(io::Error::other)?;
        let id = self.writer.add_file(size, data).map_err(io::Error::other)?;
        self.data.ids.push(id);
        Ok(DataRef(index))
    }
}

/// The merged tree as the squashfs writer asks for it.
#[derive(Debug)]
pub(super) struct SquashTree<'a> {
    tree: &'a rootfs::Tree,
    data: &'a StoredData,
    /// The storable attributes of each set of the tree, and how many are not.
    xattrs: Vec<(Vec<Xattr>, usize)>,
}

impl<'a> SquashTree<'a> {
    pub(super) fn new(tree: &'a rootfs::Tree, data: &'a StoredData) -> Self {
        let xattrs = tree.xattr_sets().iter().map(|set| {
            let storable: Vec<Xattr> = set
                .iter()
                .filter(|(name, _)| xattr_storable(name))
                .map(|(name, value)| Xattr { name: name.as_slice().into(), value: value.as_slice().into() })
                .collect();
            let dropped = set.len() - storable.len();
            (storable, dropped)
        });
        Self { tree, data, xattrs: xattrs.collect() }
    }

    pub(super) fn data_id(&self, data: DataRef) -> DataId {
        self.data.ids[data.0 as usize]
    }

    /// How many files have attributes that squashfs cannot store.
    pub(super) fn dropped_xattrs(&self) -> u64 {
        let dropped = |node: &NodeId| self.xattrs[self.tree.meta(*node).xattrs.index()].1 > 0;
        self.tree.nodes().filter(dropped).count() as u64
    }
}

impl squashfs::Tree for SquashTree<'_> {
    fn node_bound(&self) -> usize {
        self.tree.node_count()
    }

    fn root(&self) -> NodeIndex {
        NodeId::ROOT.number()
    }

    fn children(&self, dir: NodeIndex) -> impl Iterator<Item = (&[u8], NodeIndex)> {
        self.tree.children(NodeId::from_number(dir)).map(|(name, node)| (name, node.number()))
    }

    fn meta(&self, node: NodeIndex) -> Meta<'_> {
        let node = NodeId::from_number(node);
        let meta = self.tree.meta(node);
        let kind = match self.tree.kind(node) {
            NodeKind::Directory => Kind::Directory,
            NodeKind::File { data, .. } => Kind::File(data.map_or(self.data.empty, |data| self.data_id(data))),
            NodeKind::Symlink(target) => Kind::Symlink(target),
            NodeKind::CharDevice { major, minor } => Kind::CharDevice(Device { major, minor }),
            NodeKind::BlockDevice { major, minor } => Kind::BlockDevice(Device { major, minor }),
            NodeKind::Fifo => Kind::Fifo,
        };
        let xattrs = &self.xattrs[meta.xattrs.index()].0;
        Meta { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, kind, xattrs }
    }
}
