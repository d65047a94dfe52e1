//! Image layers in, boot set (kernel, initrd, squashfs) out.
//!
//! The layers' data goes from the decompressor into squashfs blocks in one pass ([`crate::rootfs::read_image`] feeding [`crate::squashfs::Writer`]);
//! kernel and initrd are read back out of the finished squashfs. Everything is written under names that end in `.part`, synced and renamed; the
//! stamp, which comes last, says what the files were made from. Without a stamp that fits, nothing there is used.

mod facts;
mod feed;
mod stamp;

use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

pub use self::facts::ImageFacts;
use self::feed::{Feed, SquashTree};
use self::stamp::{Inputs, Stamp};
use crate::rootfs::{self, Boot, BootError, BootFile, DataCount, Job, NodeKind, ReadError, Tree, WantedDirectory};
pub use crate::rootfs::{LayerSource, Progress};
use crate::squashfs::{self, Compression, Finished};
use crate::units::Digest;

/// Where and how a boot set is made.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Holds nothing but the boot set; made when missing.
    pub directory: &'a Path,
    /// Name and version of this program: another one rebuilds.
    pub product: &'a str,
    /// When the image was made (its config's `created`), seconds since 1970; 0 when unknown. Goes into the squashfs superblock.
    pub created: u32,
    /// Threads that compress.
    pub workers: NonZeroUsize,
}

/// What the caller keeps an eye and a hand on while a boot set is being built.
pub struct Watch<'a> {
    /// Set it to end the work with [`MediaError::Cancelled`].
    pub cancelled: &'a AtomicBool,
    /// Called very often: do little.
    pub progress: &'a mut dyn FnMut(Progress),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

/// One file of a boot set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    pub path: PathBuf,
    pub size: u64,
}

/// What machines boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootSet {
    pub kernel: Artifact,
    pub initrd: Artifact,
    pub squashfs: Artifact,
    pub facts: ImageFacts,
    /// For the operator, one sentence each.
    pub warnings: Vec<String>,
    /// True when an earlier run built it from the same layers.
    pub reused: bool,
    /// When it was built.
    pub built: SystemTime,
}

/// Why there is no boot set.
#[derive(Debug, thiserror::Error)]
pub enum MediaError {
    #[error("cannot use the directory {path}")]
    Directory { path: PathBuf, source: io::Error },
    #[error("another auroraboot is building in {path}; wait for it, or give this one its own state_dir")]
    Busy { path: PathBuf },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read the image")]
    Read(#[source] ReadError),
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error("cannot write {path}")]
    Squashfs { path: PathBuf, source: squashfs::Error },
    #[error("cancelled")]
    Cancelled,
}

const SQUASHFS: &str = "rootfs.squashfs";
const KERNEL: &str = "kernel";
const INITRD: &str = "initrd";
const LOCK: &str = "lock";

/// zstd 3: 12 % larger than level 15 and 17 times quicker (measured on a Debian root).
const ZSTD: Compression = Compression::Zstd { level: 3 };
const GZIP: Compression = Compression::Gzip { level: 6 };

/// What a live boot needs: dracut refuses a root without `/proc`, the others are mount points and Kairos' state.
const LIVE_DIRECTORIES: [WantedDirectory; 9] = [
    WantedDirectory { path: "proc", mode: 0o555 },
    WantedDirectory { path: "sys", mode: 0o555 },
    WantedDirectory { path: "dev", mode: 0o755 },
    WantedDirectory { path: "run", mode: 0o755 },
    WantedDirectory { path: "tmp", mode: 0o1777 },
    WantedDirectory { path: "boot", mode: 0o755 },
    WantedDirectory { path: "oem", mode: 0o755 },
    WantedDirectory { path: "usr/local", mode: 0o755 },
    WantedDirectory { path: "mnt", mode: 0o755 },
];

/// Builds the boot set of an image, or finds it built.
pub fn build(source: &dyn LayerSource, options: &Options<'_>, watch: &mut Watch<'_>) -> Result<BootSet, MediaError> {
    let directory = options.directory;
    let unusable = |source| MediaError::Directory { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(unusable)?;
    let _lock = Lock::of(directory)?;
    let layers: Vec<Digest> = (0..source.count()).map(|layer| source.digest(layer)).collect();
    let inputs = Inputs::new(options.product, options.created, &layers);
    if let Some(set) = stamp::load(directory, &inputs) {
        return Ok(set);
    }
    clean(directory).map_err(unusable)?;
    let building = Building { source, options, directory };
    let mut done = building.attempt(ZSTD, watch)?;
    if done.facts.kernel_reads_zstd == Some(false) {
        // Known only now that the kernel's layer has come by. Every distribution kernel since 4.14 reads zstd, so guessing and being
        // wrong once in a while is cheaper than looking through all layers first.
        drop(done);
        done = building.attempt(GZIP, watch)?;
    }
    building.publish(&done, inputs)
}

/// One build in a directory.
struct Building<'a> {
    source: &'a dyn LayerSource,
    options: &'a Options<'a>,
    directory: &'a Path,
}

/// Files under their temporary names.
struct Done {
    facts: ImageFacts,
    warnings: Vec<String>,
}

impl Building<'_> {
    fn attempt(&self, compression: Compression, watch: &mut Watch<'_>) -> Result<Done, MediaError> {
        let path = part(self.directory, SQUASHFS);
        let out = Arc::new(create(&path)?);
        let squash = |source| MediaError::Squashfs { path: path.clone(), source };
        let mut options = squashfs::Options::new(compression, self.options.workers);
        options.mod_time = self.options.created;
        let writer = squashfs::Writer::new(Arc::clone(&out), options).map_err(squash)?;
        let mut feed = Feed::new(writer).map_err(squash)?;
        let job = Job {
            source: self.source,
            sink: &mut feed,
            wanted: &LIVE_DIRECTORIES,
            cancelled: watch.cancelled,
            progress: &mut *watch.progress,
        };
        let (tree, count) = rootfs::read_image(job).map_err(|error| match error {
            ReadError::Cancelled => MediaError::Cancelled,
            error => MediaError::Read(error),
        })?;
        log_count(&count);
        let boot = rootfs::find_boot(&tree)?;
        let (writer, data) = feed.into_parts();
        let squash_tree = SquashTree::new(&tree, &data);
        let finished = writer.finish(&squash_tree).map_err(squash)?;
        let contents = Contents { tree: &tree, squash_tree: &squash_tree, finished: &finished, out: &out };
        sync(&out, &path)?;
        self.extract(&contents, &boot.kernel, KERNEL)?;
        self.extract(&contents, &boot.initrd, INITRD)?;
        let facts = facts::gather(&contents, &boot, compression, &count).map_err(squash)?;
        let warnings = warnings(&boot, &facts, squash_tree.dropped_xattrs());
        Ok(Done { facts, warnings })
    }

    fn extract(&self, contents: &Contents<'_>, file: &BootFile, name: &str) -> Result<(), MediaError> {
        let path = part(self.directory, name);
        let mut into = create(&path)?;
        let copied = contents.copy(file.node, &mut into);
        copied.map_err(|source| MediaError::Squashfs { path: path.clone(), source })?;
        sync(&into, &path)
    }

    /// Gives the files their names; the stamp last, so that a run killed in between leaves nothing that is believed.
    fn publish(&self, done: &Done, inputs: Inputs) -> Result<BootSet, MediaError> {
        let directory = self.directory;
        let unusable = |source| MediaError::Directory { path: directory.to_owned(), source };
        stamp::remove(directory).map_err(unusable)?;
        for name in [SQUASHFS, KERNEL, INITRD] {
            fs::rename(part(directory, name), directory.join(name)).map_err(unusable)?;
        }
        sync_directory(directory).map_err(unusable)?;
        let stamp = Stamp::of(directory, inputs, done.facts.clone(), done.warnings.clone()).map_err(unusable)?;
        stamp.save(directory).map_err(unusable)?;
        stamp.boot_set(directory, false).map_err(unusable)
    }
}

/// A finished squashfs and the way from the tree's nodes to the data in it.
struct Contents<'a> {
    tree: &'a Tree,
    squash_tree: &'a SquashTree<'a>,
    finished: &'a Finished,
    out: &'a File,
}

impl Contents<'_> {
    fn copy(&self, node: rootfs::NodeId, into: &mut dyn io::Write) -> Result<(), squashfs::Error> {
        match self.tree.kind(node) {
            NodeKind::File { data: Some(data), .. } => {
                self.finished.copy_file(self.out, self.squash_tree.data_id(data), into)
            }
            _ => Ok(()),
        }
    }
}

fn warnings(boot: &Boot, facts: &ImageFacts, dropped_xattrs: u64) -> Vec<String> {
    let mut warnings = Vec::new();
    if dropped_xattrs > 0 {
        warnings.push(format!(
            "{dropped_xattrs} files have POSIX ACLs or other system.* attributes: squashfs cannot store them, they are left out"
        ));
    }
    if !boot.has_modules {
        let kernel = &boot.kernel.path;
        warnings.push(format!("the image has no /lib/modules for its kernel /{kernel}: drivers will be missing"));
    }
    if facts.kernel_reads_squashfs == Some(false) {
        warnings
            .push("the kernel's configuration says that it cannot mount squashfs: machines will not boot".to_owned());
    }
    warnings
}

fn log_count(count: &DataCount) {
    log::debug!(
        "image data: {} bytes stored ({} of them unused), {} hidden by upper layers, {} read again",
        count.stored,
        count.dead,
        count.skipped,
        count.read_again
    );
}

fn part(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.part"))
}

fn create(path: &Path) -> Result<File, MediaError> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
    file.map_err(|source| MediaError::Write { path: path.to_owned(), source })
}

fn sync(file: &File, path: &Path) -> Result<(), MediaError> {
    file.sync_all().map_err(|source| MediaError::Write { path: path.to_owned(), source })
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Held while building: two processes would write into each other's `.part` files.
struct Lock(File);

impl Lock {
    fn of(directory: &Path) -> Result<Self, MediaError> {
        let file = create(&directory.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(fs::TryLockError::WouldBlock) => Err(MediaError::Busy { path: directory.to_owned() }),
            Err(fs::TryLockError::Error(source)) => Err(MediaError::Directory { path: directory.to_owned(), source }),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing is not enough: a child that another thread is just starting holds a copy of the descriptor until it execs.
        let _ = self.0.unlock();
    }
}

/// Removes what a killed run left.
fn clean(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
