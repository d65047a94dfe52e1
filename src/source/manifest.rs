//! Indexes, manifests and image configurations (OCI image specification 1.1, Docker schema 2): bytes in, decisions out.

use serde::Deserialize;
use sha2::Digest as _;

use crate::limits;
use crate::units::{Arch, ByteSize, Digest};

/// What we ask a registry for, in one `Accept` header: some registries look at the first only when there are several.
pub const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// How a layer's tar is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

/// One layer of an image: a compressed tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Of the bytes as stored, that is compressed.
    pub digest: Digest,
    /// Bytes as stored.
    pub size: u64,
    pub compression: Compression,
}

/// An image for one architecture: what to fetch, lowest layer first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageManifest {
    /// Of the manifest for this architecture, not of an index above it.
    pub digest: Digest,
    pub arch: Arch,
    pub layers: Vec<Layer>,
    /// The index if there is one, the manifest, the configuration: with the layers, all that the cache needs to keep.
    pub documents: Vec<Digest>,
}

impl ImageManifest {
    /// Every blob of the image, for [`super::BlobCache::evict`].
    #[must_use]
    pub fn blobs(&self) -> Vec<Digest> {
        self.documents.iter().copied().chain(self.layers.iter().map(|layer| layer.digest)).collect()
    }

    /// Bytes to download when nothing is cached.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        let mut layers: Vec<&Layer> = self.layers.iter().collect();
        layers.sort_by_key(|layer| layer.digest);
        layers.dedup_by_key(|layer| layer.digest);
        layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add)
    }
}

/// What is wrong with a document of a registry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the {what} is not valid JSON of its kind")]
    Json { what: &'static str, source: serde_json::Error },
    #[error("the {what} has the digest {actual} instead of {wanted}; the registry or something before it altered it")]
    Digest { what: &'static str, wanted: Digest, actual: Digest },
    #[error("there is no image for linux/{wanted}; there is one for {}", .there.join(", "))]
    NoArch { wanted: Arch, there: Vec<String> },
    #[error("the image is for {actual}, but linux/{wanted} is wanted; set arch, or name an image for {wanted}")]
    OtherArch { wanted: Arch, actual: String },
    #[error("it is an image of Docker's old schema 1; push it again with a current tool")]
    Schema1,
    #[error("it is not a container image but {0:?}")]
    NotAnImage(String),
    #[error("layer {layer} has the media type {media_type:?}; known are tar, tar+gzip and tar+zstd")]
    MediaType { layer: usize, media_type: String },
    #[error(
        "layer {0} may not be distributed by registries and is not stored in this one; such images cannot be pulled"
    )]
    Foreign(usize),
    #[error("an index names another index for linux/{0}, and that one another again")]
    Nested(Arch),
    #[error("it has {0} layers; at most {max} are supported", max = limits::LAYERS_MAX)]
    Layers(usize),
    #[error("layer {layer} has {size}; at most {max} are supported", size = ByteSize(*.size), max = ByteSize(limits::LAYER_BYTES_MAX))]
    LayerSize { layer: usize, size: u64 },
}

/// A document that a tag or digest stands for.
#[derive(Debug)]
pub enum Document {
    Index(Index),
    Manifest(Manifest),
}

/// Manifests of one image for several platforms.
#[derive(Debug, Deserialize)]
pub struct Index {
    manifests: Vec<Descriptor>,
}

/// The configuration and layers of one image.
#[derive(Debug, Deserialize)]
pub struct Manifest {
    config: Descriptor,
    layers: Vec<Descriptor>,
}

/// What names a blob (OCI image specification, "Content Descriptors").
#[derive(Debug, Deserialize)]
pub struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    urls: Option<Vec<String>>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct Platform {
    architecture: String,
    os: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
    #[serde(rename = "schemaVersion", default)]
    schema_version: u32,
    #[serde(default)]
    manifests: Option<serde::de::IgnoredAny>,
    #[serde(rename = "artifactType", default)]
    artifact_type: Option<String>,
}

/// The sha256 of some bytes.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> Digest {
    Digest(sha2::Sha256::digest(bytes).into())
}

/// Checks bytes against the digest they were asked for by.
///
/// # Errors
/// [`Error::Digest`].
pub fn verify(what: &'static str, bytes: &[u8], wanted: Digest) -> Result<(), Error> {
    let actual = digest_of(bytes);
    if actual == wanted { Ok(()) } else { Err(Error::Digest { what, wanted, actual }) }
}

/// Reads an index or a manifest; the document's own `mediaType` decides, without it whether it lists manifests.
///
/// # Errors
/// What is neither.
pub fn parse(bytes: &[u8]) -> Result<Document, Error> {
    let json = |source| Error::Json { what: "manifest", source };
    let kind: Kind = serde_json::from_slice(bytes).map_err(json)?;
    if kind.schema_version == 1 {
        return Err(Error::Schema1);
    }
    let is_index = match kind.media_type.as_deref() {
        Some(
            "application/vnd.oci.image.index.v1+json" | "application/vnd.docker.distribution.manifest.list.v2+json",
        ) => true,
        Some("application/vnd.oci.image.manifest.v1+json" | "application/vnd.docker.distribution.manifest.v2+json") => {
            false
        }
        None => kind.manifests.is_some(),
        Some(other) => return Err(Error::NotAnImage(other.to_owned())),
    };
    if is_index {
        return Ok(Document::Index(serde_json::from_slice(bytes).map_err(json)?));
    }
    if let Some(artifact) = kind.artifact_type.filter(|kind| !kind.is_empty()) {
        return Err(Error::NotAnImage(artifact));
    }
    Ok(Document::Manifest(serde_json::from_slice(bytes).map_err(json)?))
}

impl Index {
    /// The manifest for an architecture. Of several the one without a variant, or with the base variant, is taken:
    /// `arm64/v8` is what every 64-bit ARM runs, `amd64/v3` is not what every PC runs.
    ///
    /// # Errors
    /// [`Error::NoArch`] with what there is instead.
    pub fn choose(&self, wanted: Arch) -> Result<Digest, Error> {
        let matching = self.manifests.iter().filter_map(|descriptor| {
            let platform = descriptor.platform.as_ref()?;
            let fits = platform.architecture == wanted.name() && matches!(platform.os.as_str(), "linux" | "");
            fits.then(|| (variant_rank(wanted, platform.variant.as_deref()), descriptor))
        });
        let best = matching.min_by_key(|(rank, _)| *rank);
        let digest = best.and_then(|(_, descriptor)| descriptor.digest.parse().ok());
        digest.ok_or_else(|| Error::NoArch { wanted, there: self.platforms() })
    }

    /// Whether it leads to that manifest.
    #[must_use]
    pub fn lists(&self, manifest: &Digest) -> bool {
        self.manifests.iter().any(|descriptor| descriptor.digest.parse() == Ok(*manifest))
    }

    /// What is listed without a platform: further indexes, and manifests whose configuration tells.
    pub fn unspecified(&self) -> impl Iterator<Item = Digest> {
        self.manifests.iter().filter(|entry| entry.platform.is_none()).filter_map(|entry| entry.digest.parse().ok())
    }

    fn platforms(&self) -> Vec<String> {
        // Attestations (provenance, SBOM) are listed as manifests for `unknown/unknown`.
        let known = self.manifests.iter().filter_map(|d| d.platform.as_ref()).filter(|p| p.architecture != "unknown");
        let mut names: Vec<String> = known.map(Platform::to_string).collect();
        names.dedup();
        if names.is_empty() { vec!["no known platform".to_owned()] } else { names }
    }
}

fn variant_rank(arch: Arch, variant: Option<&str>) -> u8 {
    match (arch, variant.unwrap_or_default()) {
        (_, "") => 0,
        (Arch::Arm64, "v8") | (Arch::Amd64, "v1") => 1,
        _ => 2,
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", shown(&self.os), shown(&self.architecture))?;
        match &self.variant {
            Some(variant) => write!(f, "/{}", shown(variant)),
            None => Ok(()),
        }
    }
}

/// Text of a stranger, fit for one line of a terminal.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(32).collect()
}

impl Manifest {
    /// The configuration's digest, which must be fetched to learn the architecture.
    ///
    /// # Errors
    /// When it is not an image's configuration, as of a Helm chart.
    pub fn config(&self) -> Result<Digest, Error> {
        let known = matches!(
            self.config.media_type.as_str(),
            "" | "application/vnd.oci.image.config.v1+json" | "application/vnd.docker.container.image.v1+json"
        );
        let digest = self.config.digest.parse().ok().filter(|_| known);
        digest.ok_or_else(|| Error::NotAnImage(shown(&self.config.media_type)))
    }

    /// The layers, lowest first.
    ///
    /// # Errors
    /// A layer that cannot be pulled or read, and bounds.
    pub fn layers(&self) -> Result<Vec<Layer>, Error> {
        if self.layers.len() > limits::LAYERS_MAX {
            return Err(Error::Layers(self.layers.len()));
        }
        self.layers.iter().enumerate().map(|(index, descriptor)| descriptor.layer(index + 1)).collect()
    }
}

impl Descriptor {
    fn layer(&self, number: usize) -> Result<Layer, Error> {
        let unknown = || Error::MediaType { layer: number, media_type: shown(&self.media_type) };
        let (kind, compression) = match self.media_type.as_str() {
            "application/vnd.docker.image.rootfs.diff.tar" => ("", Compression::None),
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => ("", Compression::Gzip),
            "application/vnd.docker.image.rootfs.diff.tar.zstd" => ("", Compression::Zstd),
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => ("foreign", Compression::Gzip),
            other => {
                let kind = other.strip_prefix("application/vnd.oci.image.layer.").ok_or_else(unknown)?;
                let (kind, suffix) = kind.split_once("v1.tar").ok_or_else(unknown)?;
                let compression = match suffix {
                    "" => Compression::None,
                    "+gzip" => Compression::Gzip,
                    "+zstd" => Compression::Zstd,
                    _ => return Err(unknown()),
                };
                match kind {
                    "" => ("", compression),
                    "nondistributable." => ("foreign", compression),
                    _ => return Err(unknown()),
                }
            }
        };
        // Since OCI 1.1 such a layer may be stored like any other; one that names addresses elsewhere is not.
        if kind == "foreign" && self.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            return Err(Error::Foreign(number));
        }
        if self.size > limits::LAYER_BYTES_MAX {
            return Err(Error::LayerSize { layer: number, size: self.size });
        }
        let digest = self.digest.parse().map_err(|_| unknown())?;
        Ok(Layer { digest, size: self.size, compression })
    }
}

/// Checks that an image's configuration is for the wanted architecture. A registry takes an image under any claim.
///
/// # Errors
/// [`Error::OtherArch`] names both.
pub fn check_config(bytes: &[u8], wanted: Arch) -> Result<(), Error> {
    let platform: Platform =
        serde_json::from_slice(bytes).map_err(|source| Error::Json { what: "image configuration", source })?;
    let os_fits = matches!(platform.os.as_str(), "linux" | "");
    if os_fits && (platform.architecture == wanted.name() || platform.architecture.is_empty()) {
        return Ok(());
    }
    Err(Error::OtherArch { wanted, actual: platform.to_string() })
}

/// The line that says what was found.
#[must_use]
pub fn summary(reference: &dyn std::fmt::Display, image: &ImageManifest) -> String {
    let (count, size) = (image.layers.len(), ByteSize(image.total_size()));
    let layers = if count == 1 { "1 layer".to_owned() } else { format!("{count} layers") };
    format!("Image {reference} for {}: sha256:{}, {layers}, {size}", image.arch, image.digest.short())
}

#[cfg(test)]
mod tests;
