//! The walk through a directory: what is there, what is left out, and the digest of it all.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::{DirectoryLayer, Entry, Error, State, Tree};
use crate::limits;
use crate::rootfs::tar::{Member, MemberKind};
use crate::rootfs::{XattrSet, shown};
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

/// The walk so far. Everything is looked at through a descriptor of the directory that it is in: a path could lead elsewhere by then.
struct Walk<'a> {
    root: PathBuf,
    below: Beneath,
    device: u64,
    user: u32,
    stop: &'a Stop,
    entries: Vec<Entry>,
    /// What names, targets and attributes take together.
    name_bytes: usize,
    xattr_bytes: usize,
    mounts: Vec<String>,
    sockets: usize,
}

pub(super) fn walk(root: PathBuf, stop: &Stop) -> Result<DirectoryLayer, Error> {
    let below = Beneath::open(&root).map_err(|source| failed(&root, source))?;
    let found = below.metadata().map_err(|source| failed(&root, source))?;
    let mut walk = Walk {
        root,
        below,
        device: found.dev(),
        user: effective_user(),
        stop,
        entries: Vec::new(),
        name_bytes: 0,
        xattr_bytes: 0,
        mounts: Vec::new(),
        sockets: 0,
    };
    walk.directories()?;
    if walk.entries.is_empty() {
        return Err(Error::Empty(walk.root));
    }
    walk.enter(TOP, &walk.below.place_of(OsStr::new("")), &found)?;
    walk.entries.sort_unstable_by(|a, b| a.member.path.cmp(&b.member.path));
    join_names(&mut walk.entries);
    let (warnings, digest) = (walk.warnings(), digest(&walk.entries));
    let Walk { root, below, entries, .. } = walk;
    Ok(DirectoryLayer { tree: Arc::new(Tree { root, below, entries }), digest, warnings })
}

/// An error at `path`, which is there to be told.
fn failed(path: &Path, source: io::Error) -> Error {
    let path = path.to_owned();
    match source.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => Error::Denied(path),
        // It was there a moment ago.
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => Error::Changed(path),
        _ => Error::Read { path, source },
    }
}

impl Walk<'_> {
    fn directories(&mut self) -> Result<(), Error> {
        let mut waiting = vec![Vec::new()];
        while let Some(directory) = waiting.pop() {
            let Some(here) = self.open(&directory)? else { continue };
            let unreadable = |walk: &Self, source| failed(&walk.place(&directory), source);
            for found in fs::read_dir(here.place_of(OsStr::new(""))).map_err(|error| unreadable(self, error))? {
                let found = found.map_err(|error| unreadable(self, error))?;
                let path = join(&directory, found.file_name().as_bytes());
                let metadata = found.metadata().map_err(|error| failed(&self.place(&path), error))?;
                if self.entries.len().is_multiple_of(STEP) && self.stop.is_stopped() {
                    return Err(Error::Stopped);
                }
                if self.enter(&path, &found.path(), &metadata)? {
                    waiting.push(path);
                }
            }
        }
        Ok(())
    }

    /// `None` for one that something is mounted on, be it a directory of the same file system.
    fn open(&mut self, directory: &[u8]) -> Result<Option<Beneath>, Error> {
        let path = if directory.is_empty() { b"." } else { directory };
        match self.below.directory(Path::new(OsStr::from_bytes(path))) {
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                self.leave_out(directory);
                Ok(None)
            }
            opened => opened.map(Some).map_err(|error| failed(&self.place(directory), error)),
        }
    }

    fn leave_out(&mut self, mount: &[u8]) {
        self.mounts.push(format!("/{}", shown(&String::from_utf8_lossy(mount))));
    }

    /// Takes what is called `path` in the image, and is for now at `place`; says whether it is a directory to look into.
    fn enter(&mut self, path: &[u8], place: &Path, metadata: &Metadata) -> Result<bool, Error> {
        self.check_name(path)?;
        let kind = metadata.file_type();
        let (major, minor) = (major_of(metadata.rdev()), minor_of(metadata.rdev()));
        let kind = if kind.is_dir() {
            MemberKind::Directory
        } else if kind.is_file() {
            self.check_readable(path, metadata)?;
            MemberKind::File { size: metadata.size() }
        } else if kind.is_symlink() {
            let target = fs::read_link(place).map_err(|error| failed(&self.place(path), error))?;
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
        let xattrs = self.xattrs(path, place)?;
        let mode = (metadata.mode() & 0o7777) as u16;
        let (uid, gid, mtime) = (metadata.uid(), metadata.gid(), metadata.mtime());
        let member = Member { path: path.to_vec(), kind, mode, uid, gid, mtime, xattrs };
        self.count(&member)?;
        self.entries.push(Entry { member, state: State::of(metadata) });
        if !is_directory || LEFT_OUT.contains(&path) {
            return Ok(false);
        }
        let is_mount = metadata.dev() != self.device;
        if is_mount {
            self.leave_out(path);
        }
        Ok(!is_mount)
    }

    fn xattrs(&self, path: &[u8], place: &Path) -> Result<XattrSet, Error> {
        let mut xattrs =
            xattr::list(place, limits::DIRECTORY_FILE_XATTR_BYTES_MAX).map_err(|error| match error.raw_os_error() {
                Some(libc::E2BIG) => Error::Attributes(self.place(path)),
                _ => failed(&self.place(path), error),
            })?;
        xattrs.retain(|(name, _)| !OF_THE_HOST.contains(&name.as_slice()));
        // The key of a record in an archive ends with the first =.
        if xattrs.iter().any(|(name, _)| name.contains(&b'=')) {
            return Err(Error::Attributes(self.place(path)));
        }
        Ok(xattrs)
    }

    fn check_name(&self, path: &[u8]) -> Result<(), Error> {
        // The system calls count the byte that ends a path.
        if path.len() >= limits::PATH_BYTES_MAX {
            return Err(Error::Long(self.place(path)));
        }
        if path.rsplit(|byte| *byte == b'/').next().is_some_and(|name| name.starts_with(b".wh.")) {
            return Err(Error::Whiteout(self.place(path)));
        }
        Ok(())
    }

    /// Told now and not after minutes of work: an ordinary user can seldom read all of a root file system, and root in a container
    /// not always.
    fn check_readable(&self, path: &[u8], metadata: &Metadata) -> Result<(), Error> {
        let is_everybodys = metadata.mode() & 0o444 == 0o444;
        if is_everybodys || metadata.uid() == self.user && metadata.mode() & 0o400 != 0 {
            return Ok(());
        }
        let opened = self.below.file(Path::new(OsStr::from_bytes(path)));
        opened.map(drop).map_err(|error| failed(&self.place(path), error))
    }

    /// Keeps what hostile trees can take of the memory within bounds.
    fn count(&mut self, member: &Member) -> Result<(), Error> {
        let target = if let MemberKind::Symlink(target) = &member.kind { target.len() } else { 0 };
        let attributes = member.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.name_bytes += member.path.len() + target;
        self.xattr_bytes += attributes;
        let counts = [
            (self.entries.len() + 1, limits::TREE_ENTRIES_MAX, "files"),
            (self.name_bytes, limits::TREE_NAME_BYTES_MAX, "bytes of names"),
            (self.xattr_bytes, limits::DIRECTORY_XATTR_BYTES_MAX, "bytes of extended attributes"),
        ];
        match counts.into_iter().find(|(count, max, _)| count > max) {
            Some((_, max, what)) => Err(Error::TooMany { path: self.root.clone(), max, what }),
            None => Ok(()),
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

/// Of a file with several names the first holds the data, and the others lead to it.
fn join_names(entries: &mut [Entry]) {
    let mut names = HashMap::new();
    for number in 0..entries.len() {
        let Entry { member, state } = &entries[number];
        // File systems of virtual machines and networks give inode numbers out twice: then more than these differs.
        if member.kind == MemberKind::Directory || state.links < 2 {
            continue;
        }
        let first = *names.entry(*state).or_insert(number);
        if first != number {
            let target = entries[first].member.path.clone();
            entries[number].member.kind = MemberKind::HardLink(target);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str, links: u64, size: u64) -> Entry {
        let member = Member {
            path: path.as_bytes().to_vec(),
            kind: MemberKind::File { size },
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: 0,
            xattrs: Vec::new(),
        };
        let state = State { device: 1, inode: 2, links, size, modified: (0, 0), changed: (0, 0) };
        Entry { member, state }
    }

    #[test]
    fn only_names_of_one_file_are_joined() {
        let join = |mut entries: Vec<Entry>| {
            join_names(&mut entries);
            let is_link = |entry: &Entry| matches!(&entry.member.kind, MemberKind::HardLink(first) if first == b"a");
            entries.iter().map(is_link).collect::<Vec<_>>()
        };
        assert_eq!(join(vec![file("a", 3, 9), file("b", 3, 9), file("c", 3, 9)]), [false, true, true]);
        assert_eq!(join(vec![file("a", 1, 9), file("b", 1, 9)]), [false, false], "an inode number given out twice");
        assert_eq!(join(vec![file("a", 2, 9), file("b", 2, 8)]), [false, false], "twice, to files with links");
    }

    #[test]
    fn what_a_tree_takes_of_the_memory_is_bounded() {
        let root = std::env::temp_dir();
        let mut walk = Walk {
            below: Beneath::open(&root).unwrap(),
            root,
            device: 0,
            user: 0,
            stop: &Stop::default(),
            entries: Vec::new(),
            name_bytes: 0,
            xattr_bytes: limits::DIRECTORY_XATTR_BYTES_MAX - 10,
            mounts: Vec::new(),
            sockets: 0,
        };
        let mut member = file("a", 1, 0).member;
        member.xattrs = vec![(b"user.a".to_vec(), b"1234".to_vec())];
        walk.count(&member).unwrap();
        let error = walk.count(&member).unwrap_err();
        assert!(error.to_string().ends_with("has more than 67108864 bytes of extended attributes"), "{error}");
        walk.name_bytes = limits::TREE_NAME_BYTES_MAX;
        let error = walk.count(&file("a", 1, 0).member).unwrap_err();
        assert!(matches!(error, Error::TooMany { what: "bytes of names", .. }), "{error}");
    }
}
