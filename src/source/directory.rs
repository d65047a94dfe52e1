//! `dir:PATH`: a root file system of this host as an image of one layer.
//!
//! The directory is walked once; what the walk saw is the layer's identity, so an equal tree is known again without reading a file. Its
//! tar is made while it is read. Every file is opened below the directory with no link followed and held against what the walk saw: the
//! tree may be another user's, and whoever writes to it meanwhile gets an error, never an image of two halves.

mod stream;
mod walk;

use std::fs::Metadata;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::stream::TarStream;
use super::retry::Stop;
use crate::limits;
use crate::rootfs::tar::Member;
use crate::rootfs::{LayerSource, shown};
use crate::sys::beneath::Beneath;
use crate::units::Digest;

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
    #[error("cannot read {}", words(path))]
    Read { path: PathBuf, source: io::Error },
    #[error("{} cannot be read by this user; run as root, or in `podman unshare` if podman unpacked it", words(.0))]
    Denied(PathBuf),
    #[error("{} was changed while the directory was being looked through; run again when nothing writes to it", words(.0))]
    Changed(PathBuf),
    #[error("the name of {} begins with .wh., which means a removed file in an image; rename it", words(.0))]
    Whiteout(PathBuf),
    #[error("the path of {} takes {max} bytes or more", words(.0), max = limits::PATH_BYTES_MAX)]
    Long(PathBuf),
    #[error(
        "the extended attributes of {} take more than {max} bytes, or have a name with =, which no image can hold", words(.0),
        max = limits::DIRECTORY_FILE_XATTR_BYTES_MAX
    )]
    Attributes(PathBuf),
    #[error("{path} has more than {max} {what}")]
    TooMany { path: PathBuf, max: usize, what: &'static str },
    #[error("stopped")]
    Stopped,
}

/// The tree may be another user's: a name in it must not steer the operator's terminal.
fn words(path: &Path) -> String {
    shown(&path.to_string_lossy())
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    device: u64,
    inode: u64,
    /// Names of the file, those outside the tree counted.
    links: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl State {
    fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            links: found.nlink(),
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

impl LayerSource for DirectoryLayer {
    fn count(&self) -> usize {
        1
    }

    fn digest(&self, _layer: usize) -> Digest {
        self.digest
    }

    fn open(&self, _layer: usize) -> io::Result<Box<dyn Read + Send>> {
        let tree = Arc::clone(&self.tree);
        Ok(Box::new(TarStream::new(tree)))
    }
}
