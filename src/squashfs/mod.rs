//! A multi-core squashfs 4.0 writer.
//!
//! ```text
//! add_file ─ blocks, full fragments ─▶ workers: hash, compress ─▶ committer: in order, deduplicate, write
//! finish(tree) ─▶ inode, directory, fragment, export, id and xattr tables ─▶ superblock
//! ```
//! File content is given first, in any order of files; the tree that refers to it comes last. The image depends only on
//! the options, the content in its order and the tree: never on the number of workers, the clock or the machine.

mod codec;
mod commit;
mod content;
mod directory;
mod finish;
mod inode;
mod metadata;
mod pipeline;
mod plan;
mod reader;
mod superblock;
mod tally;
mod tree;
mod xattr;

use content::Content;
use finish::Stored;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::storage::Storage;
pub use tree::{Device, Kind, Meta, NodeIndex, Tree, Xattr};
pub use xattr::xattr_storable;

/// How blocks are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Needs `CONFIG_SQUASHFS_ZSTD` in the kernel that mounts it. Levels 1 to 22.
    Zstd { level: i32 },
    /// Every kernel with squashfs reads it. Levels 1 to 9.
    Gzip { level: u32 },
}

/// How an image is made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub compression: Compression,
    /// Bytes of one data block: a power of two from 4 KiB to 1 MiB.
    pub block_size: u32,
    /// How many threads compress.
    pub workers: NonZeroUsize,
    /// The image's own time in the superblock, seconds since 1970.
    pub mod_time: u32,
}

impl Options {
    /// 1 MiB blocks, time 0.
    pub fn new(compression: Compression, workers: NonZeroUsize) -> Options {
        Options { compression, block_size: 1 << 20, workers, mod_time: 0 }
    }
}

/// The content of one regular file inside the image being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataId(u32);

/// A stretch of a sparse file that holds data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub offset: u64,
    pub len: u64,
}

/// What is wrong with the input, or what failed below.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("squashfs block size {0} is not a power of two from 4096 to 1048576")]
    BlockSize(u32),
    #[error("compression level is out of range (zstd 1 to 22, gzip 1 to 9)")]
    Level,
    /// The reader's own error, unchanged.
    #[error("cannot read file content for the squashfs image")]
    Read(#[source] io::Error),
    #[error("file content ended {missing} bytes early")]
    Short { missing: u64 },
    #[error("extents of a sparse file overlap, are out of order or pass its end")]
    Extents,
    #[error("the tree's root is not a directory")]
    Root,
    #[error("the tree names node {0}, which is beyond its own bound")]
    NodeBound(NodeIndex),
    #[error("{0:?} cannot be a name in a directory")]
    Name(String),
    #[error("directory entry {0:?} is out of order or there twice")]
    Order(String),
    #[error("directory {0:?} has two names or contains itself")]
    DirectoryTwice(String),
    #[error("a symbolic link's target of {0} bytes cannot be stored (1 to 4095)")]
    Symlink(usize),
    #[error("device number {0}:{1} does not fit squashfs (12 and 20 bits)")]
    Device(u32, u32),
    #[error("extended attribute {0:?} has a longer name or value than Linux allows")]
    Xattr(String),
    #[error("a file of the tree refers to content that was never added")]
    UnknownContent,
    #[error("too many {0} for one squashfs image")]
    TooMany(&'static str),
    #[error("cannot start a compression thread")]
    Thread(#[source] io::Error),
    #[error("a compression thread ended unexpectedly")]
    Stopped,
    #[error("cannot read the squashfs image back")]
    ReadBack(#[source] io::Error),
    #[error("cannot write a file taken from the squashfs image")]
    Into(#[source] io::Error),
    #[error("cannot write the squashfs image")]
    Write(#[source] io::Error),
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub inodes: u64,
    pub files: u64,
    pub directories: u64,
    pub fragments: u64,
    /// Files whose content had been stored before.
    pub duplicates: u64,
    /// Attributes that squashfs cannot store.
    pub xattrs_dropped: u64,
    /// Bytes of the image that hold content no node of the tree refers to.
    pub dead_bytes: u64,
}

/// A file system being written. Dropping it ends its threads and leaves the output unfinished.
pub struct Writer<F: Storage> {
    out: Arc<F>,
    options: Options,
    content: Content,
}

impl<F: Storage> std::fmt::Debug for Writer<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("options", &self.options).finish_non_exhaustive()
    }
}

impl<F: Storage + 'static> Writer<F> {
    /// Starts an image at offset 0 of `out` and its compression threads.
    ///
    /// # Errors
    /// Options out of range; threads that cannot be started.
    pub fn new(out: F, options: Options) -> Result<Writer<F>, Error> {
        if !options.block_size.is_power_of_two() || !(4096..=1 << 20).contains(&options.block_size) {
            return Err(Error::BlockSize(options.block_size));
        }
        let out = Arc::new(out);
        let content = Content::start(out.clone(), finish::content_start(&options), &options)?;
        Ok(Writer { out, options, content })
    }

    /// Stores the content of one regular file: exactly `size` bytes of `reader`. Equal content is stored once.
    /// After an error the image cannot be finished: drop the writer.
    ///
    /// # Errors
    /// The reader's error unchanged, content shorter than `size`, or a failed write of any earlier content.
    pub fn add_file(&mut self, size: u64, reader: &mut dyn Read) -> Result<DataId, Error> {
        self.add_sparse(size, &[Extent { offset: 0, len: size }], reader)
    }

    /// As [`Writer::add_file`] for a file of `size` bytes with holes: `reader` yields the bytes of `extents` one after the
    /// other (ascending, not overlapping), everything between them is zero.
    ///
    /// # Errors
    /// As [`Writer::add_file`].
    pub fn add_sparse(&mut self, size: u64, extents: &[Extent], reader: &mut dyn Read) -> Result<DataId, Error> {
        self.content.add(size, extents, reader)
    }

    /// The time of the image as a whole, when it is known only now; instead of [`Options::mod_time`].
    pub fn set_mod_time(&mut self, seconds: u32) {
        self.options.mod_time = seconds;
    }

    /// Bytes of a file that was added.
    pub fn file_size(&self, id: DataId) -> Option<u64> {
        self.content.files().get(id.0 as usize).map(|file| file.size)
    }

    /// Writes the tables for `tree` and the superblock; the output then is a complete image (not synced to disk).
    ///
    /// # Errors
    /// A name, link target, device or count that squashfs cannot hold; a failed write.
    pub fn finish<T: Tree>(self, tree: &T) -> Result<Finished, Error> {
        let Writer { out, options, content } = self;
        let (files, placement) = content.finish()?;
        let stored = Stored { files, placement };
        let summary = finish::write(&*out, &options, tree, &stored)?;
        let mut counts = summary.counts;
        counts.fragments = stored.placement.fragments.len() as u64;
        counts.duplicates = tally::duplicates(&stored);
        counts.dead_bytes = tally::dead_bytes(&stored, &summary.live, options.block_size);
        Ok(Finished { size: summary.size, counts, options, stored })
    }
}

/// A finished image: its size, and where the content of every file lies.
#[derive(Debug)]
pub struct Finished {
    /// Bytes of the image, padded to 4 KiB.
    pub size: u64,
    pub counts: Counts,
    options: Options,
    stored: Stored,
}

impl Finished {
    /// Bytes of one file; `None` for an id of another image.
    pub fn file_size(&self, id: DataId) -> Option<u64> {
        self.stored.files.get(id.0 as usize).map(|file| file.size)
    }

    /// Reads one file back out of the image in `out` into `into`.
    ///
    /// # Errors
    /// A failed read or write; damaged data.
    pub fn copy_file<F: Storage + ?Sized>(&self, out: &F, id: DataId, into: &mut dyn Write) -> Result<(), Error> {
        let format = (self.options.compression, self.options.block_size);
        reader::copy_file(out, format, &self.stored, id, into)
    }
}
