//! The kernel's file systems and the memory disks of the appliance, and a root that nobody can write.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sys::mount::{Flags, mount};

/// A mount that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot mount {kind} at {path}")]
    Mount { kind: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot make the root file system read-only")]
    Lock(#[source] io::Error),
}

struct Mount {
    kind: &'static str,
    /// Below the root.
    at: &'static str,
    flags: Flags,
    options: &'static str,
}

/// `NO_SUID | NO_DEV | NO_EXEC`, which everything bears that holds neither devices nor programs.
const SEALED: Flags = Flags::NO_SUID.and(Flags::NO_DEV).and(Flags::NO_EXEC);

/// What holds devices.
const DEVICES: Flags = Flags::NO_SUID.and(Flags::NO_EXEC);

/// In this order: `/dev/pts` lies in `/dev`.
///
/// `/run` and `/tmp` are memory, of which they may take a part only: a box of 512 MB has to boot machines with the rest.
const MOUNTS: [Mount; 6] = [
    Mount { kind: "proc", at: "proc", flags: SEALED, options: "" },
    Mount { kind: "sysfs", at: "sys", flags: SEALED, options: "" },
    Mount { kind: "devtmpfs", at: "dev", flags: DEVICES, options: "mode=0755" },
    Mount { kind: "devpts", at: "dev/pts", flags: DEVICES, options: "mode=0600,ptmxmode=0000" },
    Mount { kind: "tmpfs", at: "run", flags: SEALED, options: "mode=0755,size=16m,nr_inodes=4096" },
    Mount { kind: "tmpfs", at: "tmp", flags: SEALED, options: "mode=1777,size=16m,nr_inodes=4096" },
];

/// Mounts what the kernel offers and the memory disks below `root` (`/`), each in its order. What is mounted already stays
/// (`CONFIG_DEVTMPFS_MOUNT` does so with `/dev`). All are tried; what failed comes back.
#[must_use]
pub fn mount_all(root: &Path) -> Vec<Error> {
    MOUNTS.iter().filter_map(|wanted| mount_one(root, wanted).err()).collect()
}

fn mount_one(root: &Path, wanted: &Mount) -> Result<(), Error> {
    let Mount { kind, at, flags, options } = *wanted;
    let path = root.join(at);
    match fs::create_dir(&path) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(Error::Directory { path, source }),
        _ => {}
    }
    match mount(Path::new(kind), &path, kind, flags, options) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        result => result.map_err(|source| Error::Mount { kind, path, source }),
    }
}

/// Nothing in `root` (`/`), which lies in memory, can be written from now on; what is mounted below keeps its own rules.
///
/// # Errors
/// What the kernel says.
pub fn lock_root(root: &Path) -> Result<(), Error> {
    let flags = Flags::REMOUNT.and(Flags::BIND).and(Flags::READ_ONLY).and(Flags::NO_SUID).and(Flags::NO_DEV);
    mount(Path::new("none"), root, "", flags, "").map_err(Error::Lock)
}
