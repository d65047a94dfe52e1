//! The walk through a directory: what is there, what is left out, and the digest of it all.

use std::collections::HashMap;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{DirectoryLayer, Entry, Error, State, Tree};
use crate::limits;
use crate::rootfs::tar::{Member, MemberKind};
use crate::source::retry::Stop;
use crate::sys::beneath::Beneath;
use crate::sys::user::effective_user;
use crate::sys::xattr;
use crate::units::Digest;

/// Directories at the top whose content belongs to a running system and not to an image; the original leaves out the same.
const LEFT_OUT: [&[u8]; 7] = [b"mnt", b"proc", b"sys", b"dev", b"tmp", b"host", b"run"];
/// The name of the directory itself in an archive.
const TOP: &[u8] = b"./";
/// Attributes that this host's kernel gives to files by its own policy.
const OF_THE_HOST: [&[u8]; 3] = [b"security.selinux", b"security.ima", b"security.evm"];
/// Entries between two looks at whether to stop.
const STEP: usize = 1024;

/// The walk so far.
struct Walk<'a> {
    root: PathBuf,
    device: u64,
    user: u32,
    stop: &'a Stop,
    entries: Vec<Entry>,
    /// Files with several names, by device and inode: their first name.
    names: HashMap<(u64, u64), usize>,
    mounts: Vec<String>,
    sockets: usize,
}

pub(super) fn walk(root: PathBuf, stop: &Stop) -> Result<DirectoryLayer, Error> {
    let unreadable = |source| Error::Read { path: root.clone(), source };
    let below = Beneath::open(&root).map_err(|source| denied(&root, source))?;
    let found = fs::metadata(&root).map_err(unreadable)?;
    let device = found.dev();
    let mut walk = Walk {
        root: root.clone(),
        device,
        user: effective_user(),
        stop,
        entries: Vec::new(),
        names: HashMap::new(),
        mounts: Vec::new(),
        sockets: 0,
    };
    walk.directories()?;
    if walk.entries.is_empty() {
        return Err(Error::Empty(root));
    }
    walk.enter(TOP, &found)?;
    walk.entries.sort_unstable_by(|a, b| a.member.path.cmp(&b.member.path));
    walk.join_names();
    let (warnings, digest) = (walk.warnings(), digest(&walk.entries));
    let tree = Arc::new(Tree { root, below, entries: walk.entries });
    Ok(DirectoryLayer { tree, digest, warnings })
}

fn denied(path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    if source.kind() == io::ErrorKind::PermissionDenied { Error::Denied(path) } else { Error::Read { path, source } }
}

impl Walk<'_> {
    fn directories(&mut self) -> Result<(), Error> {
        let mut waiting = vec![Vec::new()];
        while let Some(directory) = waiting.pop() {
            let place = self.place(&directory);
            for found in fs::read_dir(&place).map_err(|error| denied(&place, error))? {
                let found = found.map_err(|error| denied(&place, error))?;
                let metadata = found.metadata().map_err(|error| denied(&found.path(), error))?;
                let path = join(&directory, found.file_name().as_bytes());
                if self.entries.len().is_multiple_of(STEP) && self.stop.is_stopped() {
                    return Err(Error::Stopped);
                }
                if self.enter(&path, &metadata)? {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }

    /// Takes what is at `path`; says whether it is a directory to look into.
    fn enter(&mut self, path: &[u8], metadata: &Metadata) -> Result<bool, Error> {
        let place = self.place(path);
        if path.len() > limits::PATH_BYTES_MAX {
            return Err(Error::Long(place));
        }
        if path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b".wh.")) {
            return Err(Error::Whiteout(place));
        }
        if self.entries.len() >= limits::TREE_ENTRIES_MAX {
            return Err(Error::TooMany { path: self.root.clone() });
        }
        let kind = metadata.file_type();
        let (major, minor) = (major_of(metadata.rdev()), minor_of(metadata.rdev()));
        let kind = if kind.is_dir() {
            MemberKind::Directory
        } else if kind.is_file() {
            self.check_readable(&place, metadata)?;
            MemberKind::File { size: metadata.size() }
        } else if kind.is_symlink() {
            let target = fs::read_link(&place).map_err(|error| denied(&place, error))?;
            MemberKind::Symlink(target.as_os_str().as_bytes().to_vec())
        } else if kind.is_char_device() {
            MemberKind::CharDevice { major, minor }
        } else if kind.is_block_device() {
            MemberKind::BlockDevice { major, minor }
        } else if kind.is_fifo() {
            MemberKind::Fifo
        } else {
            self.sockets += 1;
            return Ok(false);
        };
        let is_directory = kind == MemberKind::Directory;
        let mut xattrs = xattr::list(&place).map_err(|error| denied(&place, error))?;
        xattrs.retain(|(name, _)| !OF_THE_HOST.contains(&name.as_slice()));
        let mode = (metadata.mode() & 0o7777) as u16;
        let (uid, gid, mtime) = (metadata.uid(), metadata.gid(), metadata.mtime());
        let member = Member { path: path.to_vec(), kind, mode, uid, gid, mtime, xattrs };
        self.entries.push(Entry { member, state: State::of(metadata) });
        let is_mount = is_directory && metadata.dev() != self.device;
        if is_mount && !LEFT_OUT.contains(&path) {
            self.mounts.push(format!("/{}", String::from_utf8_lossy(path)));
        }
        Ok(is_directory && !is_mount && !LEFT_OUT.contains(&path))
    }

    /// Told now and not after minutes of work: an ordinary user can seldom read all of a root file system.
    fn check_readable(&self, place: &Path, metadata: &Metadata) -> Result<(), Error> {
        let is_plain = self.user == 0 || metadata.mode() & 0o004 != 0;
        if is_plain || metadata.uid() == self.user && metadata.mode() & 0o400 != 0 {
            return Ok(());
        }
        File::open(place).map(drop).map_err(|error| denied(place, error))
    }

    /// Of a file with several names the first holds the data, and the others lead to it.
    fn join_names(&mut self) {
        for number in 0..self.entries.len() {
            let Entry { member, state } = &self.entries[number];
            if !matches!(member.kind, MemberKind::File { .. }) {
                continue;
            }
            let first = *self.names.entry((state.device, state.inode)).or_insert(number);
            if first != number {
                let target = self.entries[first].member.path.clone();
                self.entries[number].member.kind = MemberKind::HardLink(target);
            }
        }
    }

    fn warnings(&self) -> Vec<String> {
        let root = self.root.display();
        let mut warnings = Vec::new();
        let owned = self.entries.iter().filter(|entry| entry.member.uid == self.user).count();
        if self.user != 0 && owned > 0 {
            warnings.push(format!(
                "{owned} of {} files in {root} belong to user {} and will in the image; if they are root's there, run in `podman unshare` or as root",
                self.entries.len(),
                self.user
            ));
        }
        if !self.mounts.is_empty() {
            warnings
                .push(format!("other file systems are mounted in {root}, and left out: {}", self.mounts.join(", ")));
        }
        if self.sockets > 0 {
            warnings.push(format!("{} sockets in {root} are left out: an image cannot hold them", self.sockets));
        }
        warnings
    }

    fn place(&self, path: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path))
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// Everything that ends up in the image, and what changes with the content of files.
fn digest(entries: &[Entry]) -> Digest {
    let mut hasher = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hasher.update((bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    put(b"auroraboot directory 1");
    for Entry { member, state } in entries {
        let (kind, more): (u8, &[u8]) = match &member.kind {
            MemberKind::Directory => (b'd', &[]),
            MemberKind::File { .. } => (b'f', &[]),
            MemberKind::HardLink(target) => (b'h', target),
            MemberKind::Symlink(target) => (b'l', target),
            MemberKind::CharDevice { major, minor } => (b'c', &[major.to_le_bytes(), minor.to_le_bytes()].concat()),
            MemberKind::BlockDevice { major, minor } => (b'b', &[major.to_le_bytes(), minor.to_le_bytes()].concat()),
            MemberKind::Fifo => (b'p', &[]),
        };
        put(&[kind]);
        put(&member.path);
        put(more);
        let Member { mode, uid, gid, mtime, .. } = member;
        put(&[u32::from(*mode), *uid, *gid].map(u32::to_le_bytes).concat());
        put(&mtime.to_le_bytes());
        if kind == b'f' {
            let numbers = [state.size, state.inode].map(u64::to_le_bytes).concat();
            let times = [state.modified.1, state.changed.0, state.changed.1].map(i64::to_le_bytes).concat();
            put(&[numbers, times].concat());
        }
        for (name, value) in &member.xattrs {
            put(name);
            put(value);
        }
    }
    Digest(hasher.finalize().into())
}

/// Of a device number, as glibc and the kernel split it.
const fn major_of(device: u64) -> u32 {
    ((device >> 8 & 0xfff) | (device >> 32 & 0xffff_f000)) as u32
}

const fn minor_of(device: u64) -> u32 {
    (device & 0xff | device >> 12 & 0xffff_ff00) as u32
}
