//! The tables: inodes, directories, fragments, export, ids, attributes, superblock.
//!
//! Kernels check that every table ends where the next begins, so the order here is part of the format.

use super::codec::Compressor;
use super::commit::Placement;
use super::content::File;
use super::directory::{Entry, ListingWriter};
use super::inode::{self, Common, DirectoryBody, Encoder, FileBody, Type};
use super::metadata::{IndexedTable, MetadataWriter};
use super::plan::Plan;
use super::superblock::{NO_TABLE, SUPERBLOCK_LEN, Superblock, compressor_options};
use super::tree::{Kind, Meta, NodeIndex, Tree};
use super::xattr::XattrTable;
use super::{Counts, DataId, Error, Options};
use crate::limits;
use crate::storage::Storage;
use std::collections::HashMap;

/// Inode bytes that may wait in memory before they are written.
const INODE_BYTES_WAITING: usize = 1 << 20;

/// The image is padded to this, so that a loop device with any block size can hold it.
const PADDING: u64 = 4096;

/// An inode that has no place yet.
const UNWRITTEN: u64 = u64::MAX;

/// The content as it was stored, which inodes refer to.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) files: Vec<File>,
    pub(super) placement: Placement,
}

/// Size of the image and what it holds; the files the tree refers to are marked in `live`.
pub(super) struct Summary {
    pub(super) size: u64,
    pub(super) counts: Counts,
    pub(super) live: Vec<bool>,
}

/// Where the image begins to hold content.
pub(super) fn content_start(options: &Options) -> u64 {
    SUPERBLOCK_LEN + compressor_options(options.compression).len() as u64
}

struct Tables<'a, T: Tree, F: Storage> {
    out: &'a F,
    tree: &'a T,
    plan: Plan,
    stored: &'a Stored,
    block_size: u64,
    position: u64,
    inodes: MetadataWriter,
    directories: MetadataWriter,
    xattrs: XattrTable,
    ids: Ids,
    encoder: Encoder,
    /// By inode number less one.
    references: Vec<u64>,
    live: Vec<bool>,
    block_words: usize,
    counts: Counts,
}

/// Writes everything after the content, the superblock last: an image that is not finished is none.
pub(super) fn write<T: Tree, F: Storage>(
    out: &F,
    options: &Options,
    tree: &T,
    stored: &Stored,
) -> Result<Summary, Error> {
    let compressor = || Compressor::new(options.compression);
    let plan = Plan::new(tree)?;
    let inode_table = stored.placement.end;
    let mut tables = Tables {
        out,
        tree,
        stored,
        block_size: u64::from(options.block_size),
        position: inode_table,
        inodes: MetadataWriter::new(compressor()?),
        directories: MetadataWriter::new(compressor()?),
        xattrs: XattrTable::new(compressor()?),
        ids: Ids::default(),
        encoder: Encoder::default(),
        references: vec![UNWRITTEN; plan.inodes as usize],
        live: vec![false; stored.files.len()],
        block_words: 0,
        counts: Counts { inodes: u64::from(plan.inodes), ..Counts::default() },
        plan,
    };
    tables.write_inodes_and_directories()?;
    let directory_table = tables.position;
    let listings = tables.directories.take();
    tables.append(&listings)?;

    let fragments = stored.placement.fragments.iter().map(|fragment| {
        let mut record = [0; 16];
        record[..8].copy_from_slice(&fragment.start.to_le_bytes());
        record[8..12].copy_from_slice(&fragment.size.0.to_le_bytes());
        record
    });
    let fragment_table = tables.append_indexed(compressor()?, fragments)?;
    let references = std::mem::take(&mut tables.references);
    let export_table = tables.append_indexed(compressor()?, references.iter().map(|inode| inode.to_le_bytes()))?;
    let ids = std::mem::take(&mut tables.ids.values);
    let id_table = tables.append_indexed(compressor()?, ids.iter().map(|id| id.to_le_bytes()))?;
    let xattrs = std::mem::replace(&mut tables.xattrs, XattrTable::new(compressor()?));
    tables.counts.xattrs_dropped = xattrs.dropped;
    let mut xattr_table = NO_TABLE;
    if let Some((bytes, start)) = xattrs.finish(compressor()?, tables.position) {
        xattr_table = start;
        tables.append(&bytes)?;
    }

    let superblock = Superblock {
        inodes: tables.plan.inodes,
        mod_time: options.mod_time,
        block_size: options.block_size,
        fragments: stored.placement.fragments.len() as u32,
        compression: options.compression,
        ids: ids.len() as u16,
        root_inode: references[0],
        bytes_used: tables.position,
        id_table,
        xattr_table,
        inode_table,
        directory_table,
        fragment_table,
        export_table,
    };
    let size = tables.position.next_multiple_of(PADDING);
    // Cut first: a duplicate given up at the very end may have reached beyond; what is added reads as zeros.
    out.set_len(tables.position).and_then(|()| out.set_len(size)).map_err(Error::Write)?;
    let head = [superblock.encode(), compressor_options(options.compression)].concat();
    out.write_all_at(&head, 0).map_err(Error::Write)?;
    Ok(Summary { size, counts: tables.counts, live: tables.live })
}

impl<T: Tree, F: Storage> Tables<'_, T, F> {
    /// Children before their directory, so that a listing knows where its inodes are.
    fn write_inodes_and_directories(&mut self) -> Result<(), Error> {
        let directories = std::mem::take(&mut self.plan.directories);
        for &(directory, parent) in directories.iter().rev() {
            let tree = self.tree;
            let mut links = 2;
            for (_, node) in tree.children(directory) {
                let meta = tree.meta(node);
                if meta.kind == Kind::Directory {
                    links += 1;
                } else if self.references[self.plan.number(node) as usize - 1] == UNWRITTEN {
                    self.write_inode(node, &meta)?;
                }
            }
            self.write_directory(directory, parent, links)?;
        }
        self.inodes.end_block();
        self.directories.end_block();
        self.flush_inodes()
    }

    fn write_directory(&mut self, directory: NodeIndex, parent: u32, links: u32) -> Result<(), Error> {
        let mut listing = ListingWriter::new(&mut self.directories);
        for (name, node) in self.tree.children(directory) {
            let number = self.plan.number(node);
            let inode = self.references[number as usize - 1];
            listing.add(&Entry { name, inode, number, kind: entry_type(self.tree.meta(node).kind) })?;
        }
        let listing = listing.finish()?;
        let common = self.common(directory, &self.tree.meta(directory), links)?;
        let body = DirectoryBody {
            listing: listing.len,
            block: u32::try_from(listing.start.block).map_err(|_| Error::TooMany("directory entries"))?,
            offset: listing.start.offset,
            parent,
            index_count: listing.index_count,
            index: &listing.index,
        };
        self.place(common.number)?;
        self.inodes.write(self.encoder.directory(&common, &body));
        self.counts.directories += 1;
        self.flush_when_much_waits()
    }

    fn write_inode(&mut self, node: NodeIndex, meta: &Meta<'_>) -> Result<(), Error> {
        let common = self.common(node, meta, self.plan.links(node))?;
        self.place(common.number)?;
        let kind = entry_type(meta.kind);
        let bytes = match meta.kind {
            Kind::File(id) => {
                let body = file_body(self.stored, self.block_size, id)?;
                self.live[id.0 as usize] = true;
                self.counts.files += 1;
                self.block_words += body.blocks.len();
                if self.block_words > limits::SQUASHFS_BLOCKS_MAX as usize {
                    return Err(Error::TooMany("data blocks"));
                }
                self.encoder.file(&common, &body)
            }
            Kind::Symlink(target) if target.is_empty() || target.len() > limits::SQUASHFS_LINK_BYTES_MAX => {
                return Err(Error::Symlink(target.len()));
            }
            Kind::Symlink(target) => self.encoder.symlink(&common, target),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                let number = inode::encode_device(device).ok_or(Error::Device(device.major, device.minor))?;
                self.encoder.device(&common, kind, number)
            }
            Kind::Fifo | Kind::Socket | Kind::Directory => self.encoder.ipc(&common, kind),
        };
        self.inodes.write(bytes);
        self.flush_when_much_waits()
    }

    fn common(&mut self, node: NodeIndex, meta: &Meta<'_>, links: u32) -> Result<Common, Error> {
        Ok(Common {
            mode: if matches!(meta.kind, Kind::Symlink(_)) { 0o777 } else { meta.mode },
            uid_index: self.ids.index(meta.uid)?,
            gid_index: self.ids.index(meta.gid)?,
            mtime: meta.mtime,
            number: self.plan.number(node),
            links,
            xattr: self.xattrs.add(meta.xattrs)?,
        })
    }

    /// The next inode is this one.
    fn place(&mut self, number: u32) -> Result<(), Error> {
        let position = self.inodes.position();
        // Directory entries have 32 bits for it.
        u32::try_from(position.block).map_err(|_| Error::TooMany("inodes"))?;
        self.references[number as usize - 1] = position.reference();
        Ok(())
    }

    fn flush_when_much_waits(&mut self) -> Result<(), Error> {
        if self.inodes.waiting() < INODE_BYTES_WAITING { Ok(()) } else { self.flush_inodes() }
    }

    fn flush_inodes(&mut self) -> Result<(), Error> {
        let bytes = self.inodes.take();
        self.append(&bytes)
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all_at(bytes, self.position).map_err(Error::Write)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    /// Appends a table and its index; where the index is.
    fn append_indexed<R: AsRef<[u8]>>(
        &mut self,
        compressor: Compressor,
        records: impl Iterator<Item = R>,
    ) -> Result<u64, Error> {
        let table = IndexedTable::new(compressor, records, self.position);
        self.append(&table.blocks)?;
        let start = self.position;
        self.append(&table.index)?;
        Ok(start)
    }
}

fn entry_type(kind: Kind<'_>) -> Type {
    match kind {
        Kind::Directory => Type::Directory,
        Kind::File(_) => Type::File,
        Kind::Symlink(_) => Type::Symlink,
        Kind::BlockDevice(_) => Type::BlockDevice,
        Kind::CharDevice(_) => Type::CharDevice,
        Kind::Fifo => Type::Fifo,
        Kind::Socket => Type::Socket,
    }
}

fn file_body(stored: &Stored, block_size: u64, id: DataId) -> Result<FileBody<'_>, Error> {
    let file = stored.files.get(id.0 as usize).ok_or(Error::UnknownContent)?;
    let (fragment, offset) = file.tail.map_or((inode::NONE, 0), |tail| (tail.fragment, tail.offset));
    let mut body = FileBody { size: file.size, start: 0, sparse: 0, fragment, offset, blocks: &[] };
    if let Some(run) = file.run {
        let run = stored.placement.run(run);
        body.start = run.start;
        body.blocks = stored.placement.sizes_of(run);
        body.sparse = u64::from(run.holes) * block_size;
    }
    Ok(body)
}

/// User and group numbers, each stored once.
#[derive(Default)]
struct Ids {
    values: Vec<u32>,
    indexes: HashMap<u32, u16>,
}

impl Ids {
    fn index(&mut self, id: u32) -> Result<u16, Error> {
        if let Some(index) = self.indexes.get(&id) {
            return Ok(*index);
        }
        // The superblock counts them in 16 bits, so the last index is 65534.
        let index = u16::try_from(self.values.len()).ok().filter(|index| *index < u16::MAX);
        let index = index.ok_or(Error::TooMany("different user and group numbers"))?;
        self.values.push(id);
        self.indexes.insert(id, index);
        Ok(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_stored_once_and_counted_in_16_bits() {
        let mut ids = Ids::default();
        assert_eq!(ids.index(1000).unwrap(), 0);
        assert_eq!(ids.index(0).unwrap(), 1);
        assert_eq!(ids.index(1000).unwrap(), 0);
        for id in 0..65_534 {
            ids.index(id).unwrap();
        }
        assert_eq!(ids.values.len(), 65_534);
        ids.index(65_534).unwrap();
        assert!(matches!(ids.index(65_535), Err(Error::TooMany(_))));
    }
}
