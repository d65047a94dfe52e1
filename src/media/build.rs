//! Layers in, ISO out: the squashfs is written where it stays, and everything else behind it.
//!
//! The layers' data goes from the decompressor into squashfs blocks in one pass ([`crate::rootfs::read_image`] feeding
//! [`crate::squashfs::Writer`]), and these straight to their place in the ISO; kernel and initrd are read back out of the squashfs.
//! Nothing big is written a second time.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::contents::Contents;
use super::efi::{self, Content, Efi};
use super::feed::{Feed, SquashTree, StoredData};
use super::files::{self, FileError};
use super::overlay::{Identity, Overlay};
use super::overlay_layer::{self, WithOverlay};
use super::stamp::{self, FORMAT, Inputs, Stamp};
use super::{Artifact, ImageFacts, MediaError, Medium, Options, Watch, checksum, facts, kernel, menu};
use crate::iso::{self, Bios};
use crate::loaders;
use crate::rootfs::{self, Boot, BootFile, DataCount, Job, LayerSource, ReadError, Tree, WantedDirectory};
use crate::squashfs::{self, Compression, Finished};
use crate::storage::{Extent, Section, Storage};
use crate::units::{ByteSize, Digest};

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

/// Where the BIOS boot image stands on the medium.
const BIOS_IMAGE: &str = "boot/eltorito.img";

/// Builds the ISO of an image, or finds it built. One caller at a time: whoever owns the directory sees to that.
///
/// # Errors
/// [`MediaError`]; an ISO of an earlier run is then as it was.
pub fn build(source: &dyn LayerSource, options: &Options<'_>, watch: &mut Watch<'_>) -> Result<Medium, MediaError> {
    let mut order = Order::new(source, options, watch.cancelled)?;
    if let Some(medium) = order.find(watch.cancelled)? {
        return Ok(medium);
    }
    files::clean(options.directory)?;
    let iso = options.directory.join(options.name.iso());
    let building = Building { options, iso: &iso, part: files::part(&iso), menu: &order.menu, loaders: &order.loaders };
    let built = match &order.overlay {
        Some((overlay, identity)) => {
            let source = WithOverlay::new(source, Arc::clone(overlay), identity)?;
            building.run(&source, overlay_layer::doubt_owners(overlay), watch)
        }
        None => building.run(source, None, watch),
    };
    let identity = order.overlay.map(|(_, identity)| identity);
    let published = built.and_then(|done| building.publish(done, order.inputs, identity));
    if published.is_err() {
        // At once and not at the next start: a disk that is full would stay full until then.
        files::clean(options.directory).unwrap_or_else(|error| log::warn!("cannot tidy up: {error}"));
    }
    published
}

/// The ISO of an image, if an earlier run built it of the same. No layer is opened.
///
/// # Errors
/// [`MediaError`]: an overlay that cannot be read, a checksum file that cannot be written.
pub fn find(
    source: &dyn LayerSource,
    options: &Options<'_>,
    cancelled: &AtomicBool,
) -> Result<Option<Medium>, MediaError> {
    Order::new(source, options, cancelled)?.find(cancelled)
}

/// What is to be built, and what an earlier run built.
struct Order<'a> {
    options: &'a Options<'a>,
    menu: String,
    loaders: Loaders,
    overlay: Option<(Arc<Overlay>, Identity)>,
    inputs: Inputs,
    earlier: Option<Stamp>,
}

impl<'a> Order<'a> {
    fn new(source: &dyn LayerSource, options: &'a Options<'a>, cancelled: &AtomicBool) -> Result<Self, MediaError> {
        let menu = menu::grub_cfg(&options.menu)?;
        let loaders = Loaders::unpack(options)?;
        let earlier: Option<Stamp> = stamp::load(options.stamp);
        files::make_parent(&options.directory.join(options.name.iso()))?;
        let mut overlay = None;
        if let Some(path) = options.overlay_rootfs {
            let found = Overlay::scan("iso.overlay_rootfs", path, options.directory)?;
            let known = earlier.as_ref().and_then(|stamp| stamp.overlay.as_ref());
            let identity = found.identify(known, cancelled)?;
            overlay = Some((Arc::new(found), identity));
        }
        let inputs = Inputs {
            format: FORMAT,
            product: options.product.to_owned(),
            layers: (0..source.count()).map(|layer| source.digest(layer).to_string()).collect(),
            overlay: overlay.as_ref().map(|(_, identity)| identity.content.clone()),
            arch: options.menu.arch.to_string(),
            menu: Digest(Sha256::digest([menu.as_str(), &menu::redirect()].concat()).into()).hex(),
            loaders: loaders.digest().hex(),
        };
        Ok(Self { options, menu, loaders, overlay, inputs, earlier })
    }

    /// The ISO of an earlier run, with what may have been lost of it.
    fn find(&mut self, cancelled: &AtomicBool) -> Result<Option<Medium>, MediaError> {
        let Self { options, earlier, inputs, .. } = self;
        let Some(earlier) = earlier else { return Ok(None) };
        let noted = earlier.clone();
        let Some(medium) = earlier.medium(options.directory, options.name, inputs, cancelled) else {
            return if cancelled.load(Ordering::Relaxed) { Err(MediaError::Cancelled) } else { Ok(None) };
        };
        if options.checksum_file {
            checksum::write(&medium.iso.path, medium.sha256)?;
        }
        earlier.overlay = self.overlay.as_ref().map(|(_, identity)| identity.clone());
        if *earlier != noted {
            // ISO or overlay are touched and still the same: the next run need not read it all again.
            stamp::save(options.stamp, earlier)?;
        }
        Ok(Some(medium))
    }
}

/// The boot programs that this one brings.
struct Loaders {
    eltorito: Vec<u8>,
    boot_sector: Vec<u8>,
    /// For an image without a GRUB of its own.
    efi_grub: Vec<u8>,
}

impl Loaders {
    fn unpack(options: &Options<'_>) -> Result<Self, MediaError> {
        let unpack = || -> io::Result<Self> {
            Ok(Self {
                eltorito: loaders::bios_eltorito()?,
                boot_sector: loaders::bios_boot_sector()?,
                efi_grub: efi::embedded_grub(options.menu.arch)?.unwrap_or_default(),
            })
        };
        unpack().map_err(MediaError::Loaders)
    }

    fn digest(&self) -> Digest {
        let parts = [&self.eltorito, &self.boot_sector, &self.efi_grub];
        let sum = parts.iter().fold(Sha256::new(), |sum, part| sum.chain_update(Sha256::digest(part)));
        Digest(sum.finalize().into())
    }
}

/// One build.
struct Building<'a> {
    options: &'a Options<'a>,
    iso: &'a Path,
    /// The temporary name.
    part: PathBuf,
    menu: &'a str,
    loaders: &'a Loaders,
}

/// A finished squashfs, at its place.
struct Squashed {
    tree: Tree,
    data: StoredData,
    finished: Finished,
    count: DataCount,
    compression: Compression,
}

/// A finished ISO under its temporary name.
struct Done {
    size: u64,
    sha256: Digest,
    kernel: Extent,
    initrd: Extent,
    squashfs: Extent,
    facts: ImageFacts,
    warnings: Vec<String>,
}

type Out = Arc<File>;

impl Building<'_> {
    fn run(
        &self,
        source: &dyn LayerSource,
        warning: Option<String>,
        watch: &mut Watch<'_>,
    ) -> Result<Done, MediaError> {
        let out: Out = Arc::new(files::create(&self.part)?);
        let options = iso::Options { volume_id: menu::LABEL, mtime: 0, application: self.options.product };
        let writer = iso::Writer::new(Arc::clone(&out), options).map_err(|source| self.iso_error(source))?;
        let section = Section::new(Arc::clone(&out), writer.position());
        let squash = |compression, watch: &mut Watch<'_>| -> Result<(Squashed, Boot, ImageFacts), MediaError> {
            let squashed = self.squash(&section, source, compression, watch)?;
            let boot = rootfs::find_boot(&squashed.tree)?;
            let facts = self.facts(&section, &squashed, &boot)?;
            Ok((squashed, boot, facts))
        };
        let (mut squashed, mut boot, mut facts) = squash(ZSTD, watch)?;
        if facts.kernel_reads_zstd == Some(false) {
            // Known only now that the kernel's layer has come by. Every distribution kernel since 4.14 reads zstd, so guessing and
            // being wrong once in a while is cheaper than looking through all layers first.
            out.set_len(0).map_err(|source| self.unwritable(source))?;
            (squashed, boot, facts) = squash(GZIP, watch)?;
        }
        let mut done = self.assemble(writer, (&out, &section), &squashed, &boot, facts)?;
        done.warnings.extend(warning);
        done.sha256 = self.seal(&out, done.size, watch)?;
        Ok(done)
    }

    /// Writes the squashfs where it will be in the ISO.
    fn squash(
        &self,
        section: &Section<Out>,
        source: &dyn LayerSource,
        compression: Compression,
        watch: &mut Watch<'_>,
    ) -> Result<Squashed, MediaError> {
        let options = squashfs::Options::new(compression, self.options.workers);
        let failed = |source| self.squashfs_error(source);
        let writer = squashfs::Writer::new(section.clone(), options).map_err(failed)?;
        let mut feed = Feed::new(writer).map_err(failed)?;
        let job = Job {
            source,
            sink: &mut feed,
            wanted: &LIVE_DIRECTORIES,
            cancelled: watch.cancelled,
            progress: &mut *watch.progress,
        };
        let (tree, count) = rootfs::read_image(job).map_err(|error| match error {
            ReadError::Cancelled => MediaError::Cancelled,
            ReadError::Store(source) => self.unwritable(source),
            error => MediaError::Read(error),
        })?;
        log_count(&count);
        let (mut writer, data) = feed.into_parts();
        writer.set_mod_time(newest(&tree));
        let finished = writer.finish(&SquashTree::new(&tree, &data)).map_err(failed)?;
        Ok(Squashed { tree, data, finished, count, compression })
    }

    fn facts(&self, section: &Section<Out>, squashed: &Squashed, boot: &Boot) -> Result<ImageFacts, MediaError> {
        let squash_tree = SquashTree::new(&squashed.tree, &squashed.data);
        let contents = squashed.contents(&squash_tree, section);
        let facts = facts::gather(&contents, boot, squashed.compression, &squashed.count);
        facts.map_err(|source| self.squashfs_error(source))
    }

    /// Makes an ISO around the squashfs.
    fn assemble(
        &self,
        mut writer: iso::Writer<'_, Out>,
        (out, section): (&Out, &Section<Out>),
        squashed: &Squashed,
        boot: &Boot,
        facts: ImageFacts,
    ) -> Result<Done, MediaError> {
        let squash_tree = SquashTree::new(&squashed.tree, &squashed.data);
        let contents = squashed.contents(&squash_tree, section);
        let efi = efi::find(contents.tree, self.options.menu.arch)?;
        // Not the time of day: equal layers make equal bytes.
        writer.set_mtime(newest(contents.tree));
        let mut medium = Assembly { building: self, out, contents: &contents, writer };
        let squashfs = medium.adopt(menu::SQUASHFS_PATH, squashed.finished.size)?;
        let kernel = medium.copy(menu::KERNEL_PATH, &boot.kernel)?;
        let initrd = medium.copy(menu::INITRD_PATH, &boot.initrd)?;
        medium.add(menu::MENU_PATH, self.menu.as_bytes())?;
        medium.add_efi(&efi)?;
        medium.add(BIOS_IMAGE, &self.loaders.eltorito)?;
        let mut warnings = warnings(boot, &facts, squash_tree.dropped_xattrs());
        warnings.extend(self.doubt_kernel(out, kernel, &facts)?);
        let esp = efi.esp(&mut |file| contents.bytes(file.node))?;
        let size = medium.finish(&esp)?;
        warnings.extend(efi.warning);
        Ok(Done { size, sha256: Digest([0; 32]), kernel, initrd, squashfs, facts, warnings })
    }

    /// A sentence about a kernel that is none. Not an error: there may be more kinds than are known here.
    fn doubt_kernel(&self, out: &Out, kernel: Extent, facts: &ImageFacts) -> Result<Option<String>, MediaError> {
        let mut head = vec![0; usize::try_from(kernel.length.min(kernel::HEAD_BYTES)).unwrap_or(0)];
        let read = out.read_exact_at(&mut head, kernel.offset);
        read.map_err(|source| FileError::Read { path: self.part.clone(), source })?;
        let (path, size) = (&facts.kernel_path, ByteSize(kernel.length));
        Ok((!kernel::is_kernel(&head)).then(|| {
            format!("/{path} ({size}) does not begin as a kernel does (bzImage, EFI, ELF, Image, uImage): machines may not boot")
        }))
    }

    /// Brings the file to the disk and, while the disk works, hashes it.
    fn seal(&self, out: &Out, size: u64, watch: &Watch<'_>) -> Result<Digest, MediaError> {
        let (hashed, synced) = thread::scope(|scope| {
            let hashing = scope.spawn(|| checksum::hash(out, size, watch.cancelled));
            let synced = out.sync_all();
            (hashing.join(), synced)
        });
        synced.map_err(|source| self.unwritable(source))?;
        let hashed = hashed.unwrap_or_else(|_| Err(io::Error::other("the thread that hashes it has ended")));
        let hashed = hashed.map_err(|source| FileError::Read { path: self.part.clone(), source })?;
        hashed.ok_or(MediaError::Cancelled)
    }

    /// Gives the ISO its name; the stamp last, so that a run killed in between leaves nothing that is believed.
    fn publish(&self, done: Done, inputs: Inputs, overlay: Option<Identity>) -> Result<Medium, MediaError> {
        files::remove(self.options.stamp)?;
        files::remove(&checksum::path(self.iso))?;
        files::publish(self.iso)?;
        if self.options.checksum_file {
            checksum::write(self.iso, done.sha256)?;
        }
        let found = std::fs::metadata(self.iso).and_then(|found| found.modified());
        let built: SystemTime = found.map_err(|source| FileError::Read { path: self.iso.to_owned(), source })?;
        let medium = Medium {
            iso: Artifact { path: self.iso.to_owned(), size: done.size },
            sha256: done.sha256,
            kernel: vec![done.kernel],
            initrd: vec![done.initrd],
            squashfs: vec![done.squashfs],
            facts: done.facts,
            kernel_arch: None,
            warnings: done.warnings,
            reused: false,
            built,
        };
        stamp::save(self.options.stamp, &Stamp::of(&medium, inputs, overlay)?)?;
        Ok(medium)
    }

    fn unwritable(&self, source: io::Error) -> MediaError {
        FileError::Write { path: self.part.clone(), source }.into()
    }

    fn squashfs_error(&self, source: squashfs::Error) -> MediaError {
        MediaError::Squashfs { path: self.part.clone(), source }
    }

    fn iso_error(&self, source: iso::Error) -> MediaError {
        MediaError::Iso { path: self.part.clone(), source }
    }
}

impl Squashed {
    fn contents<'a>(&'a self, squash_tree: &'a SquashTree<'a>, out: &'a dyn Storage) -> Contents<'a> {
        Contents { tree: &self.tree, squash_tree, finished: &self.finished, out }
    }
}

/// The ISO being put together.
struct Assembly<'a> {
    building: &'a Building<'a>,
    out: &'a Out,
    contents: &'a Contents<'a>,
    writer: iso::Writer<'a, Out>,
}

/// Files of the medium are for everybody to read.
const FILE_MODE: u32 = 0o644;

impl Assembly<'_> {
    fn adopt(&mut self, path: &str, length: u64) -> Result<Extent, MediaError> {
        self.writer.adopt(path, length, FILE_MODE).map_err(|source| self.building.iso_error(source))
    }

    fn add(&mut self, path: &str, mut bytes: &[u8]) -> Result<(), MediaError> {
        let added = self.writer.add_file(path, bytes.len() as u64, &mut bytes, FILE_MODE);
        added.map(drop).map_err(|source| self.building.iso_error(source))
    }

    /// Streams a file of the image to its place.
    fn copy(&mut self, path: &str, file: &BootFile) -> Result<Extent, MediaError> {
        let mut into = WriteAt { out: self.out, offset: self.writer.position() };
        self.contents.copy(file.node, &mut into).map_err(|error| match error {
            squashfs::Error::Into(source) => self.building.unwritable(source),
            error => self.building.squashfs_error(error),
        })?;
        self.adopt(path, self.contents.size(file.node))
    }

    /// What the ESP holds stands in the ISO as well: programs that copy an ISO's files to a FAT stick look for it there.
    fn add_efi(&mut self, efi: &Efi) -> Result<(), MediaError> {
        for (path, content) in &efi.files {
            match content {
                Content::Image(file) => self.copy(path, file).map(drop)?,
                Content::Embedded => self.add(path, &self.building.loaders.efi_grub)?,
                Content::Text(text) => self.add(path, text.as_bytes())?,
            }
        }
        efi.redirects.iter().try_for_each(|path| self.add(path, menu::redirect().as_bytes()))
    }

    /// Returns the size of the whole.
    fn finish(self, esp: &[u8]) -> Result<u64, MediaError> {
        let bios = Bios { image: BIOS_IMAGE, mbr: &self.building.loaders.boot_sector };
        let finished = self.writer.finish(&iso::Boot { bios: Some(bios), esp: Some(esp) });
        Ok(finished.map_err(|source| self.building.iso_error(source))?.size)
    }
}

/// Writes on from an offset.
struct WriteAt<'a> {
    out: &'a Out,
    offset: u64,
}

impl Write for WriteAt<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all_at(bytes, self.offset)?;
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The newest time in the image.
fn newest(tree: &Tree) -> u32 {
    tree.nodes().map(|node| tree.meta(node).mtime).max().unwrap_or_default()
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
