//! An archive that can be read only once, such as a daemon's export or a compressed file: its layers go into the cache as they come.
//!
//! Most archives have the list of what they hold at their end, so everything large is written as parts, and what the list does not
//! name is removed. Small members wait in memory: they are documents, or layers with next to nothing in them.

use std::io::{self, Read};

use super::image::{ArchiveImage, Check, Documents, Plan, PlannedLayer, make_manifest};
use super::members::{Members, Taken};
use super::parts::{self, Parts};
use super::{ArchiveKind, Error, Watch};
use crate::limits;
use crate::rootfs::shown;
use crate::rootfs::tar::{Archive, TarError};
use crate::source::cache::BlobCache;
use crate::source::manifest::{Compression, ImageManifest, Layer, digest_of};
use crate::source::pull::Transferred;
use crate::source::retry::Stop;
use crate::units::{Arch, Digest};

/// An image whose layers are whole in the cache, with its manifest and its configuration.
#[derive(Debug)]
pub struct Spooled {
    /// Of an image without an OCI manifest, one that was made for it.
    pub manifest: ImageManifest,
    /// The sha256 of each layer's tar, lowest first.
    pub diff_ids: Vec<Digest>,
}

impl Spooled {
    /// Its layers, from the cache.
    #[must_use]
    pub fn image(&self, cache: &BlobCache) -> Option<ArchiveImage> {
        ArchiveImage::cached(&self.manifest.digest, self.manifest.arch, cache)
    }
}

/// Enough of a member's beginning to tell JSON from tar and what compressed it.
const HEAD_BYTES: u64 = 8;

/// Where a member went.
#[derive(Debug)]
enum Kept {
    Memory(Vec<u8>),
    Disk(parts::Spooled),
}

/// Reads an archive from its beginning to its end, and puts one image of it into the cache: the only one, or the one of that name.
///
/// # Errors
/// A stream that breaks off, an archive that is damaged or holds no such image, a cache that cannot be written. No blob of it is in
/// the cache then, but for those that were there before.
pub fn spool(
    stream: &mut dyn Read,
    name: Option<&str>,
    arch: Arch,
    cache: &BlobCache,
    watch: &mut Watch<'_>,
) -> Result<Spooled, Error> {
    let wanted = Wanted { kind: ArchiveKind::Any, name, arch };
    let mut here = 0;
    let spooled = spool_counted(stream, &wanted, cache, watch.stop, &mut |count| {
        here += count;
        (watch.progress)(Transferred { here, fetched: here, total: None, ended: false });
    });
    (watch.progress)(Transferred { here, fetched: here, total: spooled.is_ok().then_some(here), ended: true });
    spooled
}

/// Which image is to be spooled.
#[derive(Debug)]
pub(super) struct Wanted<'a> {
    pub kind: ArchiveKind,
    pub name: Option<&'a str>,
    pub arch: Arch,
}

/// [`spool`], where `told` hears of every piece that was read.
pub(super) fn spool_counted(
    stream: &mut dyn Read,
    wanted: &Wanted<'_>,
    cache: &BlobCache,
    stop: &Stop,
    told: &mut dyn FnMut(u64),
) -> Result<Spooled, Error> {
    let mut parts = Parts::open(cache, stop)?;
    match read_members(Counted { stream, stop, told }, &mut parts) {
        Err(_) if stop.is_stopped() => Err(Error::Stopped),
        members => keep(&members?, parts, wanted, cache),
    }
}

fn read_members(stream: Counted<'_>, parts: &mut Parts<'_>) -> Result<Members<Kept>, Error> {
    let mut archive = Archive::new(stream);
    let mut members = Members::default();
    let mut memory = 0;
    while let Some(member) = archive.next_member()? {
        let Taken::File { name, size } = members.take(&member, archive.is_sparse())? else { continue };
        let kept = keep_member(&mut archive, &name, size, &mut memory, parts);
        let kept = kept.map_err(|error| match archive.take_failure().map_or(error, Error::from) {
            Error::CutOff { .. } => Error::Truncated { member: shown(&name) },
            error => error,
        });
        members.add(name, kept?);
    }
    // Behind the end come the checksums of what compressed it.
    archive.finish(limits::ARCHIVE_PADDING_BYTES_MAX)?;
    Ok(members)
}

/// `memory` counts what all small members take.
fn keep_member(
    archive: &mut Archive<Counted<'_>>,
    name: &str,
    size: u64,
    memory: &mut u64,
    parts: &mut Parts<'_>,
) -> Result<Kept, Error> {
    let read_error = |source| TarError::Read { at: 0, source };
    let mut head = Vec::new();
    archive.by_ref().take(HEAD_BYTES).read_to_end(&mut head).map_err(read_error)?;
    let looks_like_json = matches!(head[..], [b'{' | b'[', ..]);
    let mut data = head.chain(archive);
    if size > limits::SPOOL_SMALL_BYTES_MAX && !(looks_like_json && size <= limits::MANIFEST_BYTES_MAX) {
        return parts.spool(name, size, &mut data).map(Kept::Disk);
    }
    *memory += size;
    if *memory > limits::SPOOL_MEMORY_BYTES_MAX {
        return Err(Error::Limit {
            what: "bytes of small files in the archive",
            limit: limits::SPOOL_MEMORY_BYTES_MAX,
        });
    }
    let mut bytes = Vec::new();
    data.read_to_end(&mut bytes).map_err(read_error)?;
    Ok(Kept::Memory(bytes))
}

/// Finds the image among the members, and makes its blobs and documents part of the cache.
fn keep(members: &Members<Kept>, parts: Parts<'_>, wanted: &Wanted<'_>, cache: &BlobCache) -> Result<Spooled, Error> {
    let plan = super::find(members, wanted.kind, wanted.name, wanted.arch)?;
    let (mut layers, mut on_disk, mut in_memory) = (Vec::new(), Vec::new(), Vec::new());
    for planned in &plan.layers {
        let kept = members.find(&planned.path)?.ok_or_else(|| Error::Missing(shown(&planned.path)))?;
        let layer = match kept {
            Kept::Memory(bytes) => {
                let digest = digest_of(bytes);
                in_memory.push((digest, bytes));
                Layer { digest, size: bytes.len() as u64, compression: parts::compression_of(bytes) }
            }
            Kept::Disk(spooled) => {
                on_disk.push(spooled.clone());
                Layer { digest: spooled.digest, size: spooled.size, compression: spooled.compression }
            }
        };
        planned.check(&layer)?;
        layers.push(layer);
    }
    parts.commit(&on_disk)?;
    let Plan { manifest, config, arch, diff_ids, .. } = plan;
    let (manifest, bytes) = manifest.unwrap_or_else(|| make_manifest(&config, arch, layers));
    let documents = [(config.0, &config.1), (manifest.digest, &bytes)];
    for (digest, bytes) in in_memory.into_iter().chain(documents) {
        if cache.open_blob(&digest, bytes.len() as u64).is_none() {
            cache.write_document(&digest, bytes)?;
        }
    }
    Ok(Spooled { manifest, diff_ids })
}

impl PlannedLayer {
    /// Holds what came against what was promised. What is inside a compressed layer is seen when it is read.
    fn check(&self, layer: &Layer) -> Result<(), Error> {
        let wanted = match self.check {
            Check::Tar(_) if layer.compression != Compression::None => return Ok(()),
            Check::Blob(wanted) | Check::Tar(wanted) => wanted,
        };
        if layer.digest == wanted {
            return Ok(());
        }
        Err(Error::Corrupt { path: shown(&self.path), wanted, actual: layer.digest })
    }
}

impl Documents for Members<Kept> {
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        match self.find(path)? {
            None => Ok(None),
            Some(Kept::Memory(bytes)) => Ok(Some(bytes.clone())),
            Some(Kept::Disk(spooled)) => Err(Error::TooLarge { path: shown(path), size: spooled.size }),
        }
    }
}

/// A stream that can be stopped.
struct Counted<'a> {
    stream: &'a mut dyn Read,
    stop: &'a Stop,
    told: &'a mut dyn FnMut(u64),
}

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_stopped() {
            return Err(io::Error::other("stopped"));
        }
        let count = self.stream.read(buffer)?;
        (self.told)(count as u64);
        Ok(count)
    }
}
