//! Opens an archive that lies in this host's file system.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::image::{ArchiveImage, Documents, Place, Plan, RangeReader, StoredLayer};
use super::members::{self, Members};
use super::sniff::{Content, HEAD_BYTES, sniff};
use super::spool::{Wanted, spool_counted};
use super::{ArchiveRef, Error, OpenError, Watch};
use crate::fingerprint::Fingerprint;
use crate::limits;
use crate::rootfs::{decompress, shown};
use crate::source::cache::BlobCache;
use crate::source::manifest::digest_of;
use crate::source::pull::Transferred;
use crate::storage::Extent;
use crate::units::{Arch, chain};

/// Finds an image in an archive. Of a layout and of a plain archive only the documents are read: their layers stay where they are.
/// A compressed archive is taken into the cache once, and known again by its path, size, times and inode.
///
/// # Errors
/// An archive that cannot be read or is damaged, or that holds no such image.
pub fn open(
    wanted: &ArchiveRef,
    arch: Arch,
    cache: &BlobCache,
    watch: &mut Watch<'_>,
) -> Result<ArchiveImage, OpenError> {
    let name = wanted.name.as_deref();
    let wanted_image = Wanted { kind: wanted.kind, name, arch };
    let found = open_path(&wanted.path, &wanted_image, cache, watch);
    found.map_err(|source| OpenError { image: wanted.to_string(), source: Box::new(source) })
}

fn open_path(
    path: &Path,
    wanted: &Wanted<'_>,
    cache: &BlobCache,
    watch: &mut Watch<'_>,
) -> Result<ArchiveImage, Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let metadata = std::fs::metadata(path).map_err(read)?;
    if metadata.is_dir() {
        return open_layout(path.canonicalize().map_err(read)?, wanted);
    }
    if !metadata.is_file() {
        return Err(Error::NotAFile(path.display().to_string()));
    }
    let file = Arc::new(File::open(path).map_err(read)?);
    let length = metadata.len();
    let mut head = Vec::new();
    let beginning = RangeReader::new(Arc::clone(&file), path, length).take(HEAD_BYTES as u64).read_to_end(&mut head);
    beginning.map_err(read)?;
    match sniff(&head) {
        Content::Tar => open_plain(path, &file, length, wanted),
        Content::Gzip | Content::Zstd => open_compressed(path, file, &Fingerprint::of(&metadata), wanted, cache, watch),
        Content::Other(what) => Err(Error::NotAnImage(what)),
    }
}

/// A directory with the form of an archive. Its root is canonical: what is below it without a link out of it begins so.
struct Layout {
    root: PathBuf,
}

impl Layout {
    /// A file of the directory, and its size; `None` when there is none.
    fn find(&self, name: &str) -> Result<Option<(PathBuf, u64)>, Error> {
        let path = self.root.join(members::inside(name)?);
        let read = |source| Error::Read { path: path.clone(), source };
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(read(error)),
        };
        if !real.starts_with(&self.root) {
            return Err(Error::LinkOutside { path: shown(name) });
        }
        let metadata = std::fs::metadata(&real).map_err(read)?;
        if !metadata.is_file() {
            return Err(Error::NotAFile(shown(name)));
        }
        Ok(Some((real, metadata.len())))
    }
}

impl Documents for Layout {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some((path, size)) = self.find(name)? else { return Ok(None) };
        let read = |source| Error::Read { path: path.clone(), source };
        let file = Arc::new(File::open(&path).map_err(read)?);
        document(&file, Extent { offset: 0, length: size }, name, &path).map(Some)
    }
}

fn open_layout(root: PathBuf, wanted: &Wanted<'_>) -> Result<ArchiveImage, Error> {
    let layout = Layout { root };
    // What skopeo calls dir: has a manifest.json, which is another document than that of an archive.
    if layout.find("index.json")?.is_none() {
        return Err(Error::NotALayout);
    }
    let plan = super::find(&layout, wanted.kind, wanted.name, wanted.arch)?;
    stored(plan, |name| Ok(layout.find(name)?.map(|(path, size)| (Place::Whole(path), size))))
}

/// An archive that can be read at any place.
struct Plain<'a> {
    path: &'a Path,
    file: &'a Arc<File>,
    members: Members<Extent>,
}

impl Documents for Plain<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let found = self.members.find(name)?;
        found.map(|extent| document(self.file, *extent, name, self.path)).transpose()
    }
}

fn open_plain(path: &Path, file: &Arc<File>, length: u64, wanted: &Wanted<'_>) -> Result<ArchiveImage, Error> {
    let plain = Plain { path, file, members: members::index(file, length)? };
    let plan = super::find(&plain, wanted.kind, wanted.name, wanted.arch)?;
    stored(plan, |name| {
        let extent = plain.members.find(name)?;
        Ok(extent.map(|found| (Place::Range(Arc::clone(file), path.to_owned(), found.offset), found.length)))
    })
}

/// A small file, whole.
fn document(file: &Arc<File>, extent: Extent, name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    if extent.length > limits::MANIFEST_BYTES_MAX {
        return Err(Error::TooLarge { path: shown(name), size: extent.length });
    }
    let mut bytes = vec![0; usize::try_from(extent.length).unwrap_or_default()];
    let read = file.read_exact_at(&mut bytes, extent.offset);
    read.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// The image, when all of its layers are there with the sizes that its manifest gives.
fn stored(plan: Plan, find: impl Fn(&str) -> Result<Option<(Place, u64)>, Error>) -> Result<ArchiveImage, Error> {
    let layers = plan.layers.iter().map(|planned| {
        let path = || shown(&planned.path);
        let (place, size) = find(&planned.path)?.ok_or_else(|| Error::Missing(path()))?;
        match planned.size {
            Some(wanted) if wanted != size => Err(Error::Size { path: path(), wanted, actual: size }),
            _ => Ok(StoredLayer { place, size, check: planned.check }),
        }
    });
    let layers = layers.collect::<Result<_, _>>()?;
    Ok(ArchiveImage::new(plan, layers))
}

fn open_compressed(
    path: &Path,
    file: Arc<File>,
    id: &Fingerprint,
    wanted: &Wanted<'_>,
    cache: &BlobCache,
    watch: &mut Watch<'_>,
) -> Result<ArchiveImage, Error> {
    let known_as = remembered_name(path, id, wanted);
    let recalled = cache.recall(&known_as);
    if let Some(image) = recalled.and_then(|(digest, _)| ArchiveImage::cached(&digest, wanted.arch, cache)) {
        return Ok(image);
    }
    let (read, length) = (Arc::new(AtomicU64::new(0)), id.size());
    let range = RangeReader::new(file, path, length);
    let compressed = Counted { inner: range, read: Arc::clone(&read) };
    let unpacked = decompress(Box::new(compressed)).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    let mut unpacked = BufReader::with_capacity(HEAD_BYTES, unpacked);
    let mut head = Vec::new();
    let beginning = unpacked.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head);
    beginning.map_err(|source| Error::Read { path: path.to_owned(), source })?;
    match sniff(&head) {
        Content::Tar => {}
        Content::Other(what) => return Err(Error::NotAnImage(format!("inside its compression, {what}"))),
        Content::Gzip | Content::Zstd => return Err(Error::NotAnImage("it is compressed twice".to_owned())),
    }
    let told = |ended| {
        let here = read.load(Ordering::Relaxed);
        Transferred { here, fetched: here, total: Some(length), ended }
    };
    let mut stream = head.chain(unpacked);
    let spooled = spool_counted(&mut stream, wanted, cache, watch.stop, &mut |_| (watch.progress)(told(false)));
    (watch.progress)(told(true));
    let spooled = spooled?;
    // It is for a later run only, so that it cannot be written must not stop this one.
    let remembered = cache.remember(&known_as, &spooled.manifest.digest);
    remembered.unwrap_or_else(|error| log::warn!("{}", chain(&error)));
    spooled.image(cache).ok_or_else(|| {
        Error::Missing(format!("a layer that was just written to {}", cache.path(&spooled.manifest.digest).display()))
    })
}

/// Under which name the cache remembers what was in a compressed archive. A file that was touched has another one.
fn remembered_name(path: &Path, id: &Fingerprint, wanted: &Wanted<'_>) -> String {
    let Wanted { kind, name, arch } = wanted;
    let name = name.unwrap_or_default();
    let everything = format!("{} {path:?} {name} {arch} {id:?}", kind.prefix());
    // Whoever lists the cache wants to read what it was.
    let file: String = path.display().to_string().chars().take(limits::SHOWN_CHARS_MAX).collect();
    let short: String = name.chars().take(limits::SHOWN_CHARS_MAX).collect();
    let (colon, state) = (if name.is_empty() { "" } else { ":" }, digest_of(everything.as_bytes()));
    // The architecture comes last, as in every name.
    format!("{}{file}{colon}{short} as of {} {arch}", kind.prefix(), state.short())
}

/// Counts what was read.
struct Counted<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
