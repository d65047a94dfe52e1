//! A multi-core squashfs 4.0 writer.
//!
//! ```text
//! add_file ─ blocks, full fragments ─▶ workers: hash, compress ─▶ committer: in order, deduplicate, write
//! finish(tree) ─▶ inode, directory, fragment, export, id and xattr tables ─▶ superblock
//! ```
//! File content is given first, in any order of files; the tree that refers to it comes last. The image depends only on
//! the options, the content in its order and the tree: never on the number of workers, the clock or the machine.

mod output;
mod tree;

use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

pub use output::Output;
pub use tree::{Device, Kind, Meta, NodeIndex, Tree, Xattr, xattr_storable};

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
#[derive(Debug)]
pub struct Writer<F: Output> {
    out: F,
}

impl<F: Output + 'static> Writer<F> {
    /// Starts an image at offset 0 of `out` and its compression threads.
    ///
    /// # Errors
    /// Options out of range; threads that cannot be started.
    pub fn new(out: F, _options: Options) -> Result<Writer<F>, Error> {
        Ok(Writer { out })
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
    pub fn add_sparse(&mut self, _size: u64, _extents: &[Extent], _reader: &mut dyn Read) -> Result<DataId, Error> {
        Ok(DataId(0))
    }

    /// Writes the tables for `tree` and the superblock; the output then is a complete image.
    ///
    /// # Errors
    /// A name, link target, device or count that squashfs cannot hold; a failed write.
    pub fn finish<T: Tree>(self, _tree: &T) -> Result<Finished, Error> {
        drop(self.out);
        Ok(Finished { size: 0, counts: Counts::default() })
    }
}

/// A finished image: its size, and where the content of every file lies.
#[derive(Debug)]
pub struct Finished {
    /// Bytes of the image, padded to 4 KiB.
    pub size: u64,
    pub counts: Counts,
}

impl Finished {
    /// Bytes of one file.
    pub fn file_size(&self, _id: DataId) -> u64 {
        0
    }

    /// Reads one file back out of the image in `out` into `into`.
    ///
    /// # Errors
    /// A failed read or write; damaged data.
    pub fn copy_file<F: Output>(&self, _out: &F, _id: DataId, _into: &mut dyn Write) -> Result<(), Error> {
        Ok(())
    }
}
