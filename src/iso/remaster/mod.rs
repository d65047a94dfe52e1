//! Patches an image into another: files added and replaced, everything else kept as it is.
//!
//! ```text
//! source: │ descriptors │ data, directories           │ partitions behind it │ backup GPT │
//! target: │ the same, its pointers changed            │ new files │ new directories, path tables │ those partitions │ backup GPT │
//!         └────────── the caller copies keep() bytes ─┘
//! ```
//! Nothing that an image boots from moves, but a partition that stands in the way of the growing one (an appended EFI system
//! partition): it goes to the new end, and El Torito, MBR and GPT follow it. Directories that change are written anew, and what
//! leads to them is changed where it stands: records of their parents, `..` of their children, Rock Ridge's `CL` and `PL`, path
//! tables, descriptors; in the Rock Ridge and in the Joliet tree, and in both again where a partition is a volume of its own.
//!
//! Checksums over the whole image that stand in it (isomd5sum's, libisofs') no longer hold and are dropped. Lines of `md5sum.txt` and
//! its like that speak of a replaced file are dropped, too: what they still list is true. The date of the volume stays: it is the UUID
//! by which grub-mkrescue's loader finds its image. A UDF file system in the same image is not changed.

mod change;
mod checksums;
mod descriptors;
mod node;
mod partitions;
mod path_tables;
mod place;

use std::collections::HashSet;
use std::io::{self, Read};
use std::ops::Range;

use super::read::{self, Image, Names, Tree};
use super::{BLOCK, gpt};
use crate::limits::{ISO_BUFFER_BYTES, ISO_ENTRIES_MAX, NAME_BYTES_MAX};
use crate::storage::{Extent, Storage};
use change::Change;
use partitions::Partitions;

/// What is to be in the new image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addition {
    /// From the root, with or without a slash before it. Directories that are missing on the way come into being.
    pub path: String,
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One that is there already stays with all that is in it.
    Directory,
    /// Takes the place of a file or link of this name.
    File { size: u64 },
    /// Only Rock Ridge can say it; where the image has none, nothing is added.
    Symlink { target: String },
}

/// Why an image cannot be patched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Image(#[from] read::Error),
    #[error("{path:?} cannot be a path in an ISO: {why}")]
    Path { path: String, why: &'static str },
    #[error("{0:?} is to be added to the ISO twice")]
    Twice(String),
    #[error("{0:?} is a directory of the ISO, and a file of that name is to be added")]
    IsDirectory(String),
    #[error("{path:?} cannot be added to the ISO: {at:?} is a file there, not a directory")]
    NotDirectory { path: String, at: String },
    #[error("the ISO would have too many {0}")]
    TooMany(&'static str),
    #[error("the ISO would become larger than its addresses reach")]
    TooBig,
    #[error("the ISO is damaged: {0}")]
    Damaged(&'static str),
    #[error("the ISO's partition table cannot be changed")]
    PartitionTable(#[from] gpt::Error),
    #[error("cannot read what is to become {path:?} in the ISO")]
    Data { path: String, source: io::Error },
    #[error("what is to become {path:?} in the ISO has not the {size} bytes it had before")]
    Changed { path: String, size: u64 },
    #[error("cannot read the ISO that is to be patched")]
    ReadSource(#[source] io::Error),
    #[error("cannot write the patched ISO")]
    Write(#[source] io::Error),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of the new image.
    pub size: u64,
}

/// Where everything goes.
#[derive(Debug)]
pub struct Plan {
    keep: u64,
    size: u64,
    files: Vec<File>,
    /// Runs of the source that move.
    moves: Vec<(Extent, u64)>,
    patches: Patches,
}

/// A new file's data.
#[derive(Debug)]
struct File {
    path: String,
    content: Content,
    extent: Extent,
}

#[derive(Debug)]
enum Content {
    /// The caller has it, as addition number so-and-so.
    Given(usize),
    Known(Vec<u8>),
}

/// Bytes that replace others at their place.
#[derive(Debug, Default)]
struct Patches(Vec<(u64, Vec<u8>)>);

impl Patches {
    fn push(&mut self, offset: u64, bytes: impl Into<Vec<u8>>) {
        self.0.push((offset, bytes.into()));
    }
}

/// An addition as the trees see it.
#[derive(Debug)]
struct Item {
    path: String,
    kind: ItemKind,
    mode: u32,
    mtime: u32,
}

#[derive(Debug, Clone)]
enum ItemKind {
    Directory,
    File(Extent),
    Symlink(Vec<u8>),
}

impl Plan {
    /// Works out how `source`, of `size` bytes, is changed to hold `additions`. Reads directories, writes nothing.
    ///
    /// # Errors
    /// The source is no ISO or damaged; a path is not one; a file stands where a directory is needed or the other way round.
    pub fn new<S: Storage + ?Sized>(source: &S, size: u64, additions: &[Addition]) -> Result<Self, Error> {
        let image = Image::open(source, size)?;
        let mut paths = check(additions)?;
        let partitions = Partitions::read(&image)?;
        let keep = partitions.keep();
        let mut end = keep.next_multiple_of(BLOCK);
        let mut files = Vec::new();
        let mut items = Vec::new();
        for (index, (addition, path)) in additions.iter().zip(paths.drain(..)).enumerate() {
            let kind = match &addition.kind {
                Kind::Directory => ItemKind::Directory,
                Kind::Symlink { target } => ItemKind::Symlink(target.clone().into_bytes()),
                Kind::File { size } => {
                    let extent = take(&mut end, *size)?;
                    files.push(File { path: path.clone(), content: Content::Given(index), extent });
                    ItemKind::File(extent)
                }
            };
            items.push(Item { path, kind, mode: addition.mode, mtime: addition.mtime });
        }
        for list in checksums::lists(&image, &items)? {
            let extent = take(&mut end, list.content.len() as u64)?;
            files.push(File { path: list.path.clone(), content: Content::Known(list.content), extent });
            items.push(Item { path: list.path, kind: ItemKind::File(extent), mode: list.mode, mtime: list.mtime });
        }
        let mut patches = Patches::default();
        let mut roots = Vec::new();
        let mut replaced = vec![None; items.len()];
        for set in image.sets() {
            // Joliet's names before plain ones, which may be too short to tell which file is meant.
            let has_rock_ridge = set.trees.iter().any(|tree| matches!(tree.names, Names::RockRidge { .. }));
            let mut trees: Vec<&Tree> = set.trees.iter().collect();
            trees.sort_by_key(|tree| !has_rock_ridge && tree.names == Names::Plain);
            for tree in trees {
                let mut change = Change::new(image.disk(), set, tree)?;
                items.iter().zip(&mut replaced).try_for_each(|(item, replaced)| change.add(item, replaced))?;
                let (root, behind) = place::place(change, keep, end, &mut patches)?;
                roots.push((tree, root));
                end = behind;
            }
        }
        let tail = partitions.place(end, &mut patches)?;
        for (tree, root) in roots {
            descriptors::patch(tree, &root, keep, &tail, &mut patches)?;
        }
        descriptors::drop_checksums(&image, &mut patches)?;
        Ok(Self { keep, size: tail.size, files, moves: tail.moves, patches })
    }

    /// How many bytes of the source the target begins with: what the caller copies before [`Plan::write`].
    pub const fn keep(&self) -> u64 {
        self.keep
    }

    /// Bytes of the new image.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Changes what `range` of the target, which holds what the source has there, will have of its own. [`Plan::write`] does it for all;
    /// who wants to use the target's beginning while the rest is still copied calls this before.
    ///
    /// # Errors
    /// What the target reports.
    pub fn patch<T: Storage + ?Sized>(&self, target: &T, range: Range<u64>) -> io::Result<()> {
        for (offset, bytes) in &self.patches.0 {
            let (from, to) = (range.start.max(*offset), range.end.min(*offset + bytes.len() as u64));
            if from < to {
                let part = (from - offset) as usize..(to - offset) as usize;
                target.write_all_at(&bytes[part], from)?;
            }
        }
        Ok(())
    }

    /// Completes `target`, which holds the first [`Plan::keep`] bytes of the source. `open` is asked for the content of the additions
    /// that are files, by their number.
    ///
    /// # Errors
    /// Content that cannot be read or has not the size it was given with; what the storages report. The target is no image then.
    pub fn write<S: Storage + ?Sized, T: Storage + ?Sized>(
        &self,
        source: &S,
        target: &T,
        open: &mut dyn FnMut(usize) -> io::Result<Box<dyn Read>>,
    ) -> Result<Summary, Error> {
        // Cut first: between new data lie zeros, not what a longer copy left there.
        target.set_len(self.keep).map_err(Error::Write)?;
        target.set_len(self.size).map_err(Error::Write)?;
        // One for all: a megabyte is asked of the kernel and given back anew each time.
        let mut buffer = vec![0; ISO_BUFFER_BYTES];
        for file in &self.files {
            let failed = |source| Error::Data { path: file.path.clone(), source };
            match &file.content {
                Content::Given(index) => copy_file(&mut *open(*index).map_err(failed)?, file, target, &mut buffer)?,
                Content::Known(bytes) => target.write_all_at(bytes, file.extent.offset).map_err(Error::Write)?,
            }
        }
        for (from, to) in &self.moves {
            copy_run(source, *from, target, *to, &mut buffer)?;
        }
        for (offset, bytes) in &self.patches.0 {
            target.write_all_at(bytes, *offset).map_err(Error::Write)?;
        }
        Ok(Summary { size: self.size })
    }
}

/// The next `len` bytes of the new image, in whole blocks.
fn take(end: &mut u64, len: u64) -> Result<Extent, Error> {
    let extent = Extent { offset: *end, length: len };
    *end = end.checked_add(len).and_then(|end| end.checked_next_multiple_of(BLOCK)).ok_or(Error::TooBig)?;
    block(*end)?;
    Ok(extent)
}

/// The block that begins at byte `offset`.
fn block(offset: u64) -> Result<u32, Error> {
    u32::try_from(offset / BLOCK).map_err(|_| Error::TooBig)
}

/// The paths without the slash before them, if each is one and none is there twice.
fn check(additions: &[Addition]) -> Result<Vec<String>, Error> {
    if additions.len() > ISO_ENTRIES_MAX {
        return Err(Error::TooMany("additions"));
    }
    let mut seen = HashSet::new();
    let mut paths = Vec::with_capacity(additions.len());
    for addition in additions {
        let path = addition.path.strip_prefix('/').unwrap_or(&addition.path);
        if let Some(why) = path.split('/').find_map(fault) {
            return Err(Error::Path { path: addition.path.clone(), why });
        }
        if !seen.insert(path) {
            return Err(Error::Twice(addition.path.clone()));
        }
        if let Kind::Symlink { target } = &addition.kind
            && (target.is_empty() || target.contains('\0'))
        {
            return Err(Error::Path {
                path: addition.path.clone(),
                why: "its target is empty or contains a zero byte",
            });
        }
        paths.push(path.to_owned());
    }
    Ok(paths)
}

/// What is wrong with a name.
fn fault(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("a name in it is empty"),
        "." | ".." => Some("it has a name that means another directory"),
        name if name.len() > NAME_BYTES_MAX => Some("a name in it is too long"),
        name if name.contains('\0') => Some("it contains a zero byte"),
        _ => None,
    }
}

fn copy_file<T: Storage + ?Sized>(
    content: &mut dyn Read,
    file: &File,
    target: &T,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let changed = || Error::Changed { path: file.path.clone(), size: file.extent.length };
    let mut done = 0;
    loop {
        let read = match content.read(buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(Error::Data { path: file.path.clone(), source }),
        };
        if done + read as u64 > file.extent.length {
            return Err(changed());
        }
        target.write_all_at(&buffer[..read], file.extent.offset + done).map_err(Error::Write)?;
        done += read as u64;
    }
    if done == file.extent.length { Ok(()) } else { Err(changed()) }
}

fn copy_run<S: Storage + ?Sized, T: Storage + ?Sized>(
    source: &S,
    from: Extent,
    target: &T,
    to: u64,
    buffer: &mut [u8],
) -> Result<(), Error> {
    let mut done = 0;
    while done < from.length {
        let piece = buffer.len().min(usize::try_from(from.length - done).unwrap_or(usize::MAX));
        source.read_exact_at(&mut buffer[..piece], from.offset + done).map_err(Error::ReadSource)?;
        target.write_all_at(&buffer[..piece], to + done).map_err(Error::Write)?;
        done += piece as u64;
    }
    Ok(())
}
