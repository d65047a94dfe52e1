//! `dir:PATH`: a root file system of this host as an image of one layer.
//!
//! The directory is walked once; what the walk saw is the layer's identity, so an equal tree is known again without reading a file. Its
//! tar is made while it is read. Every file is opened below the directory with no link followed and held against what the walk saw: the
//! tree may be another user's, and whoever writes to it meanwhile gets an error, never an image of two halves.

mod walk;

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::limits;
use crate::rootfs::LayerSource;
use crate::rootfs::tar::{self, Member, MemberKind};
use crate::sys::beneath::Beneath;
use crate::units::Digest;

use super::retry::Stop;

/// Why a directory cannot be an image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0} does not exist; dir: takes the directory of a root file system")]
    Missing(PathBuf),
    #[error("{0} is not a directory; dir: takes the directory of a root file system")]
    NotADirectory(PathBuf),
    #[error("{0} is the root of this host; copy what is to be booted to a directory of its own")]
    Host(PathBuf),
    #[error("{path} contains state_dir {state_dir}; name a state_dir elsewhere")]
    HoldsState { path: PathBuf, state_dir: PathBuf },
    #[error("{0} is empty")]
    Empty(PathBuf),
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} cannot be read by this user; run as root, or in `podman unshare` if podman unpacked it")]
    Denied(PathBuf),
    #[error("the name of {0} begins with .wh., which means a removed file in an image; rename it")]
    Whiteout(PathBuf),
    #[error("the path of {0} is longer than {max} bytes", max = limits::PATH_BYTES_MAX)]
    Long(PathBuf),
    #[error("{path} has more than {max} files", max = limits::TREE_ENTRIES_MAX)]
    TooMany { path: PathBuf },
    #[error("stopped")]
    Stopped,
}

/// A root file system of this host. Nothing of it is copied before its layer is read.
#[derive(Debug)]
pub struct DirectoryLayer {
    tree: Arc<Tree>,
    digest: Digest,
    /// For the operator, a sentence each.
    pub warnings: Vec<String>,
}

#[derive(Debug)]
struct Tree {
    root: PathBuf,
    below: Beneath,
    /// In the order of the paths' bytes: directories come before what is in them.
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    member: Member,
    state: State,
}

/// What changes when somebody writes to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            size: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }
}

/// Looks through the directory at `path`, which must not hold `state_dir`.
///
/// # Errors
/// See [`Error`].
pub fn open(path: &Path, state_dir: &Path, stop: &Stop) -> Result<DirectoryLayer, Error> {
    let root = match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(path.to_owned())),
        root => root.map_err(|source| Error::Read { path: path.to_owned(), source })?,
    };
    if !root.is_dir() {
        return Err(Error::NotADirectory(path.to_owned()));
    }
    if root == Path::new("/") {
        return Err(Error::Host(path.to_owned()));
    }
    if let Ok(state_dir) = state_dir.canonicalize()
        && state_dir.starts_with(&root)
    {
        return Err(Error::HoldsState { path: path.to_owned(), state_dir });
    }
    walk::walk(root, stop)
}

impl Tree {
    fn place(&self, entry: &Entry) -> PathBuf {
        self.root.join(OsStr::from_bytes(&entry.member.path))
    }

    fn open(&self, entry: &Entry) -> io::Result<OpenFile> {
        let file = self.below.file(Path::new(OsStr::from_bytes(&entry.member.path)))?;
        let open = OpenFile { file, left: entry.state.size, state: entry.state };
        open.check()?;
        Ok(open)
    }

    fn named(&self, entry: &Entry, error: &io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.place(entry).display()))
    }
}

impl LayerSource for DirectoryLayer {
    fn count(&self) -> usize {
        1
    }

    fn digest(&self, _layer: usize) -> Digest {
        self.digest
    }

    fn open(&self, _layer: usize) -> io::Result<Box<dyn Read + Send>> {
        let tree = Arc::clone(&self.tree);
        Ok(Box::new(TarStream { tree, next: 0, block: Cursor::default(), file: None }))
    }
}

/// The tree as a tar archive.
struct TarStream {
    tree: Arc<Tree>,
    /// Of the entries.
    next: usize,
    /// Headers, or what fills the last block of a file up.
    block: Cursor<Vec<u8>>,
    file: Option<OpenFile>,
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let got = self.block.read(buffer)?;
            if got > 0 {
                return Ok(got);
            }
            if let Some(file) = &mut self.file {
                let entry = &self.tree.entries[self.next - 1];
                let got = file.read(buffer).map_err(|error| self.tree.named(entry, &error))?;
                if got > 0 {
                    return Ok(got);
                }
                self.block = Cursor::new(vec![0; tar::padding(entry.state.size) as usize]);
                self.file = None;
            } else if let Some(entry) = self.tree.entries.get(self.next) {
                self.next += 1;
                self.block = Cursor::new(tar::encode(&entry.member));
                if matches!(entry.member.kind, MemberKind::File { .. }) {
                    self.file = Some(self.tree.open(entry).map_err(|error| self.tree.named(entry, &error))?);
                }
            } else if self.next == self.tree.entries.len() {
                self.next += 1; // the end is written once
                self.block = Cursor::new(tar::END.to_vec());
            } else {
                return Ok(0);
            }
        }
    }
}

/// A file that must not change while it is read.
struct OpenFile {
    file: File,
    left: u64,
    state: State,
}

impl OpenFile {
    fn check(&self) -> io::Result<()> {
        if State::of(&self.file.metadata()?) == self.state { Ok(()) } else { Err(changed()) }
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.file.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(changed());
        }
        self.left -= got as u64;
        if self.left == 0 {
            self.check()?;
        }
        Ok(got)
    }
}

fn changed() -> io::Error {
    io::Error::other("it was changed while the directory was being read; run again when nothing writes to it")
}
