//! An image that was found in an archive: which layers it has, where they are, and what each is held against.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::limits;
use crate::rootfs::{LayerSource, decompress};
use crate::source::cache::BlobCache;
use crate::source::manifest::{self, Compression, Document, ImageManifest, Layer, digest_of};
use crate::source::{Reference, verified};
use crate::units::{Arch, Digest};

/// What an image can be found by.
pub(super) trait Documents {
    /// A small file, by its name in the archive; `None` when there is none.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error>;
}

/// What a layer must turn out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    /// The digest of the bytes as they are stored.
    Blob(Digest),
    /// The digest of the tar inside: all that `docker save` tells.
    Tar(Digest),
}

/// A layer as the archive's documents have it.
#[derive(Debug)]
pub(super) struct PlannedLayer {
    pub path: String,
    pub size: Option<u64>,
    pub check: Check,
}

/// An image as the archive's documents have it. Whether its layers are there is another question.
#[derive(Debug)]
pub(super) struct Plan {
    pub layers: Vec<PlannedLayer>,
    pub diff_ids: Vec<Digest>,
    pub arch: Arch,
    pub config: (Digest, Vec<u8>),
    /// The image's own manifest; `docker save` has none.
    pub manifest: Option<(ImageManifest, Vec<u8>)>,
}

/// Where the stored bytes of a layer are.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A stretch of a file that goes by this path.
    Range(Arc<File>, PathBuf, u64),
    Whole(PathBuf),
}

#[derive(Debug)]
pub(super) struct StoredLayer {
    pub place: Place,
    /// Bytes as stored.
    pub size: u64,
    pub check: Check,
}

/// An image in an archive or in the cache. Its layers are read where they are, and verified while they are.
#[derive(Debug)]
pub struct ArchiveImage {
    /// Of an image without an OCI manifest, one that was made for it.
    pub manifest: ImageManifest,
    /// The sha256 of each layer's tar, lowest first.
    pub diff_ids: Vec<Digest>,
    layers: Vec<StoredLayer>,
}

impl ArchiveImage {
    pub(super) fn new(plan: Plan, layers: Vec<StoredLayer>) -> Self {
        let manifest = plan.manifest.map(|(manifest, _)| manifest).unwrap_or_else(|| {
            // What is read of such layers is what their diff_ids say, however they are stored.
            let told = plan.diff_ids.iter().zip(&layers);
            let told =
                told.map(|(id, stored)| Layer { digest: *id, size: stored.size, compression: Compression::None });
            make_manifest(&plan.config, plan.arch, told.collect()).0
        });
        Self { manifest, diff_ids: plan.diff_ids, layers }
    }

    /// The image of a manifest that is in the cache, when all of it is there.
    #[must_use]
    pub fn cached(manifest_digest: &Digest, arch: Arch, cache: &BlobCache) -> Option<Self> {
        let document = |digest: &Digest| cache.read_document(digest, limits::MANIFEST_BYTES_MAX);
        let bytes = document(manifest_digest)?;
        let Document::Manifest(found) = manifest::parse(&bytes).ok()? else { return None };
        let config = found.config().ok()?;
        let config_bytes = document(&config)?;
        manifest::check_config(&config_bytes, arch).ok()?;
        let layers = found.layers().ok()?;
        let diff_ids = diff_ids(&config_bytes, "", layers.len()).ok()?;
        let is_made = serde_json::from_slice::<Made>(&bytes).is_ok_and(|made| made.annotations.is_ours());
        let stored = layers.iter().zip(&diff_ids).map(|(layer, id)| {
            cache.open_blob(&layer.digest, layer.size)?;
            let check = if is_made { Check::Tar(*id) } else { Check::Blob(layer.digest) };
            Some(StoredLayer { place: Place::Whole(cache.path(&layer.digest)), size: layer.size, check })
        });
        let stored: Vec<StoredLayer> = stored.collect::<Option<_>>()?;
        let documents = vec![*manifest_digest, config];
        let manifest = ImageManifest { digest: *manifest_digest, arch, layers, documents };
        Some(Self { manifest, diff_ids, layers: stored })
    }
}

impl LayerSource for ArchiveImage {
    fn count(&self) -> usize {
        self.layers.len()
    }

    /// The digest that the image's manifest has for the layer; of an image without one, the layer's diff_id.
    fn digest(&self, layer: usize) -> Digest {
        match self.layers[layer].check {
            Check::Blob(digest) | Check::Tar(digest) => digest,
        }
    }

    fn open(&self, layer: usize) -> io::Result<Box<dyn Read + Send>> {
        let wanted = self.layers.get(layer).ok_or_else(|| io::Error::other(format!("there is no layer {layer}")))?;
        let stored = wanted.place.open(wanted.size)?;
        let what = format!("layer {} in {}", layer + 1, wanted.place);
        Ok(match wanted.check {
            Check::Blob(digest) => Box::new(verified::Reader::new(stored, digest, what)),
            Check::Tar(digest) => Box::new(verified::Reader::new(decompress(Box::new(stored))?, digest, what)),
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Range(_, path, offset) => write!(f, "{} at byte {offset}", path.display()),
            Self::Whole(path) => path.display().fmt(f),
        }
    }
}

impl Place {
    fn open(&self, size: u64) -> io::Result<RangeReader> {
        match self {
            Self::Range(file, path, offset) => {
                Ok(RangeReader { file: Arc::clone(file), path: path.clone(), at: *offset, left: size })
            }
            Self::Whole(path) => {
                Ok(RangeReader { file: Arc::new(open_regular(path)?), path: path.clone(), at: 0, left: size })
            }
        }
    }
}

/// Opens a file and nothing else: a pipe would wait for a writer for ever.
fn open_regular(path: &Path) -> io::Result<File> {
    if !std::fs::metadata(path).map_err(|error| named(path, error))?.is_file() {
        return Err(io::Error::other(format!("{} is no regular file", path.display())));
    }
    File::open(path).map_err(|error| named(path, error))
}

/// The same error, with the file that it is about; to be tried again it stays as it is.
fn named(path: &Path, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::Interrupted => error,
        kind => io::Error::new(kind, format!("{}: {error}", path.display())),
    }
}

/// Reads a stretch of a file that others may read at the same time.
#[derive(Debug)]
pub(super) struct RangeReader {
    file: Arc<File>,
    /// For messages.
    path: PathBuf,
    at: u64,
    left: u64,
}

impl RangeReader {
    /// The first `length` bytes of a file.
    pub fn new(file: Arc<File>, path: &Path, length: u64) -> Self {
        Self { file, path: path.to_owned(), at: 0, left: length }
    }
}

impl Read for RangeReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let count = self.file.read_at(&mut buffer[..room], self.at).map_err(|error| named(&self.path, error))?;
        if count == 0 {
            let cut = format!("{} was cut while it was read", self.path.display());
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, cut));
        }
        self.at += count as u64;
        self.left -= count as u64;
        Ok(count)
    }
}

/// A manifest that we write for an image that has none (OCI image specification, "Image Manifest").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewManifest {
    schema_version: u32,
    media_type: &'static str,
    config: NewDescriptor,
    layers: Vec<NewDescriptor>,
    annotations: Annotations,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewDescriptor {
    media_type: &'static str,
    digest: String,
    size: u64,
}

#[derive(Deserialize)]
struct Made {
    annotations: Annotations,
}

/// What tells our manifests from others: their layers are known by the configuration's diff_ids.
#[derive(Serialize, Deserialize)]
struct Annotations {
    #[serde(rename = "auroraboot.layers")]
    layers: String,
}

impl Annotations {
    const BY_DIFF_ID: &str = "by diff_id";

    fn is_ours(&self) -> bool {
        self.layers == Self::BY_DIFF_ID
    }
}

/// The manifest for an image without one, and its bytes.
pub(super) fn make_manifest(config: &(Digest, Vec<u8>), arch: Arch, layers: Vec<Layer>) -> (ImageManifest, Vec<u8>) {
    let describe = |layer: &Layer| NewDescriptor {
        media_type: match layer.compression {
            Compression::None => "application/vnd.oci.image.layer.v1.tar",
            Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        },
        digest: layer.digest.to_string(),
        size: layer.size,
    };
    let new = NewManifest {
        schema_version: 2,
        media_type: "application/vnd.oci.image.manifest.v1+json",
        config: NewDescriptor {
            media_type: "application/vnd.oci.image.config.v1+json",
            digest: config.0.to_string(),
            size: config.1.len() as u64,
        },
        layers: layers.iter().map(describe).collect(),
        annotations: Annotations { layers: Annotations::BY_DIFF_ID.to_owned() },
    };
    // Strings and numbers always become JSON.
    let bytes = serde_json::to_vec(&new).unwrap_or_default();
    let digest = digest_of(&bytes);
    (ImageManifest { digest, arch, layers, documents: vec![digest, config.0] }, bytes)
}

/// The diff_ids of a configuration, one for each layer.
pub(in crate::source) fn diff_ids(config: &[u8], path: &str, layers: usize) -> Result<Vec<Digest>, Error> {
    #[derive(Deserialize)]
    struct Config {
        rootfs: RootFs,
    }
    #[derive(Deserialize)]
    struct RootFs {
        #[serde(default)]
        diff_ids: Option<Vec<String>>,
    }
    let json = |source| Error::Json { path: path.to_owned(), source };
    let config: Config = serde_json::from_slice(config).map_err(json)?;
    let listed = config.rootfs.diff_ids.unwrap_or_default();
    let ids: Vec<Digest> = listed.iter().filter_map(|id| id.parse().ok()).collect();
    if ids.len() != layers {
        return Err(Error::LayerCount { diff_ids: ids.len(), layers });
    }
    Ok(ids)
}

/// Whether a name in an archive is the one that is wanted: as it is spelt, or as both are meant (`alpine` is
/// `docker.io/library/alpine:latest`).
pub(super) fn same_name(name: &str, wanted: &str) -> bool {
    if name == wanted {
        return true;
    }
    let whole = |name: &str| name.parse::<Reference>().ok();
    whole(name).is_some_and(|name| whole(wanted) == Some(name))
}

/// Names for a message: not too many.
pub(super) fn listed(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.collect();
    names.dedup();
    let more = names.len().saturating_sub(limits::NAMES_LISTED_MAX);
    names.truncate(limits::NAMES_LISTED_MAX);
    if more > 0 {
        names.push(format!("and {more} more"));
    }
    if names.is_empty() {
        names.push("none".to_owned());
    }
    names
}
