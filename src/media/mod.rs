//! Image layers in, boot set (kernel, initrd, squashfs) out.
//!
//! The layers' data goes from the decompressor into squashfs blocks in one pass ([`crate::rootfs::read_image`] feeding [`crate::squashfs::Writer`]);
//! kernel and initrd are read back out of the finished squashfs. Everything is written under names that end in `.part`, synced and renamed; the
//! stamp, which comes last, says what the files were made from. Without a stamp that fits, nothing there is used.

pub mod efi;
mod facts;
mod feed;
mod kernel;
pub mod menu;
mod stamp;

use std::fs::{self, File};
use std::io::{self, Read, Seek};
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
use crate::units::{ByteSize, Digest};

/// Where and how a boot set is made.
#[derive(Debug, Clone)]
pub struct Options<'a> {
    /// Holds nothing but the boot set; made when missing.
    pub directory: &'a Path,
    /// Name and version of this program: another one rebuilds.
    pub product: &'a str,
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

/// Builds the boot set of an image, or finds it built. One caller at a time: whoever owns the directory sees to that.
pub fn build(source: &dyn LayerSource, options: &Options<'_>, watch: &mut Watch<'_>) -> Result<BootSet, MediaError> {
    let directory = options.directory;
    let unusable = |source| MediaError::Directory { path: directory.to_owned(), source };
    fs::create_dir_all(directory).map_err(unusable)?;
    let layers: Vec<Digest> = (0..source.count()).map(|layer| source.digest(layer)).collect();
    let inputs = Inputs::new(options.product, &layers);
    if let Some(set) = stamp::load(directory, &inputs) {
        return Ok(set);
    }
    clean(directory).map_err(unusable)?;
    let built = Building { source, options, directory }.run(inputs, watch);
    if built.is_err() {
        // At once and not at the next start: a disk that is full would stay full until then.
        clean(directory).unwrap_or_else(|error| log::warn!("cannot tidy up {}: {error}", directory.display()));
    }
    built
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
    fn run(&self, inputs: Inputs, watch: &mut Watch<'_>) -> Result<BootSet, MediaError> {
        let mut done = self.attempt(ZSTD, watch)?;
        if done.facts.kernel_reads_zstd == Some(false) {
            // Known only now that the kernel's layer has come by. Every distribution kernel since 4.14 reads zstd, so guessing and
            // being wrong once in a while is cheaper than looking through all layers first.
            drop(done);
            done = self.attempt(GZIP, watch)?;
        }
        self.publish(&done, inputs)
    }

    fn attempt(&self, compression: Compression, watch: &mut Watch<'_>) -> Result<Done, MediaError> {
        let path = part(self.directory, SQUASHFS);
        let out = Arc::new(create(&path)?);
        let squash = |source| MediaError::Squashfs { path: path.clone(), source };
        let options = squashfs::Options::new(compression, self.options.workers);
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
            ReadError::Store(source) => MediaError::Write { path: path.clone(), source },
            error => MediaError::Read(error),
        })?;
        log_count(&count);
        let boot = rootfs::find_boot(&tree)?;
        let (mut writer, data) = feed.into_parts();
        // Not the time of day: equal layers make equal bytes.
        writer.set_mod_time(tree.nodes().map(|node| tree.meta(node).mtime).max().unwrap_or_default());
        let squash_tree = SquashTree::new(&tree, &data);
        let finished = writer.finish(&squash_tree).map_err(squash)?;
        let contents = Contents { tree: &tree, squash_tree: &squash_tree, finished: &finished, out: &out };
        sync(&out, &path)?;
        let kernel = self.extract(&contents, &boot.kernel, KERNEL)?;
        self.extract(&contents, &boot.initrd, INITRD)?;
        let facts = facts::gather(&contents, &boot, compression, &count).map_err(squash)?;
        let mut warnings = warnings(&boot, &facts, squash_tree.dropped_xattrs());
        warnings.extend(self.doubt_kernel(kernel, &facts)?);
        Ok(Done { facts, warnings })
    }

    fn extract(&self, contents: &Contents<'_>, file: &BootFile, name: &str) -> Result<File, MediaError> {
        let path = part(self.directory, name);
        let mut into = create(&path)?;
        let copied = contents.copy(file.node, &mut into);
        copied.map_err(|source| MediaError::Squashfs { path: path.clone(), source })?;
        sync(&into, &path)?;
        Ok(into)
    }

    /// A sentence about a kernel that is none. Not an error: there may be more kinds than are known here.
    fn doubt_kernel(&self, mut file: File, facts: &ImageFacts) -> Result<Option<String>, MediaError> {
        let mut head = Vec::new();
        let read = file.rewind().and_then(|()| (&file).take(kernel::HEAD_BYTES).read_to_end(&mut head));
        let size = read.and_then(|_| file.metadata()).map_err(|source| {
            let path = part(self.directory, KERNEL);
            MediaError::Write { path, source }
        })?;
        let (path, size) = (&facts.kernel_path, ByteSize(size.len()));
        Ok((!kernel::is_kernel(&head)).then(|| {
            format!("/{path} ({size}) does not begin as a kernel does (bzImage, EFI, ELF, Image, uImage): machines may not boot")
        }))
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
        let kernel = &facts.kernel_path;
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

/// Removes what a failed or killed run left.
fn clean(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "part") {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}
