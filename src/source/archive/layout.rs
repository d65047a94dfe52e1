//! OCI image layout: from `index.json` to the image of one name and architecture (OCI image specification 1.1, "Image Layout").

use std::cell::Cell;
use std::collections::HashMap;

use serde::Deserialize;

use super::Error;
use super::image::{Check, Documents, Plan, PlannedLayer, diff_ids, listed, same_name};
use crate::limits;
use crate::rootfs::shown;
use crate::source::manifest::{self, Document, ImageManifest, digest_of};
use crate::units::{Arch, Digest};

#[derive(Deserialize)]
struct IndexFile {
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    digest: String,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<HashMap<String, String>>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
}

/// The annotations that carry names: of the specification (a tag, or with some tools a whole name), and containerd's whole name.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

impl Entry {
    fn names(&self) -> impl Iterator<Item = &str> {
        NAMES.iter().filter_map(|key| self.annotations.as_ref()?.get(*key)).map(String::as_str)
    }

    fn architecture(&self) -> Option<&str> {
        self.platform.as_ref().map(|platform| platform.architecture.as_str()).filter(|name| !name.is_empty())
    }
}

/// Where a layout keeps a blob.
pub(super) fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Finds the image in a layout whose `index.json` is given.
pub(super) fn find(documents: &dyn Documents, index: &[u8], name: Option<&str>, arch: Arch) -> Result<Plan, Error> {
    let json = |source| Error::Json { path: "index.json".to_owned(), source };
    let index: IndexFile = serde_json::from_slice(index).map_err(json)?;
    if index.manifests.len() > limits::ARCHIVE_DOCUMENTS_MAX {
        return Err(Error::Limit { what: "images in the archive", limit: limits::ARCHIVE_DOCUMENTS_MAX as u64 });
    }
    let lookup = Lookup { documents, arch, left: Cell::new(limits::ARCHIVE_DOCUMENTS_MAX) };
    let start = match name.and_then(|name| name.strip_prefix('@')) {
        Some(id) => match id.parse() {
            Ok(digest) if documents.read(&blob_path(&digest))?.is_some() => digest,
            Ok(_) => return Err(no_such_image(id, &index)),
            Err(_) => numbered(&index, id)?,
        },
        None => choose(&index, name, arch)?,
    };
    lookup.follow(start, 0)
}

fn numbered(index: &IndexFile, number: &str) -> Result<Digest, Error> {
    let entry = number.parse().ok().and_then(|number: usize| index.manifests.get(number));
    let found = entry.and_then(|entry| entry.digest.parse().ok());
    found.ok_or_else(|| no_such_image(&format!("@{number}"), index))
}

/// The entry that is meant. Attestations (provenance, SBOM) are listed for the architecture `unknown` and are no images.
fn choose(index: &IndexFile, name: Option<&str>, arch: Arch) -> Result<Digest, Error> {
    let images = index.manifests.iter().filter(|entry| entry.architecture() != Some("unknown"));
    let mut meant: Vec<&Entry> =
        images.filter(|entry| name.is_none_or(|wanted| entry.names().any(|name| same_name(name, wanted)))).collect();
    meant.sort_by(|a, b| a.digest.cmp(&b.digest));
    meant.dedup_by(|a, b| a.digest == b.digest);
    if meant.len() > 1 && meant.iter().filter(|entry| entry.architecture() == Some(arch.name())).count() == 1 {
        meant.retain(|entry| entry.architecture() == Some(arch.name()));
    }
    match meant[..] {
        [entry] => entry
            .digest
            .parse()
            .map_err(|_| Error::Missing(format!("an image with the digest {}", shown(&entry.digest)))),
        [] => Err(name.map_or(Error::NoImages, |name| no_such_image(name, index))),
        _ => Err(Error::Several(names_of(index))),
    }
}

fn no_such_image(wanted: &str, index: &IndexFile) -> Error {
    Error::NoSuchImage { wanted: wanted.to_owned(), there: names_of(index) }
}

/// How the operator can name each: a name that several have is of no use.
fn names_of(index: &IndexFile) -> Vec<String> {
    let names: Vec<Option<&str>> = index.manifests.iter().map(|entry| entry.names().next()).collect();
    let shown_name = |(entry, name): (&Entry, &Option<&str>)| match name {
        Some(text) if names.iter().filter(|other| *other == name).count() == 1 => shown(text),
        _ => format!("@{}", shown(&entry.digest)),
    };
    listed(index.manifests.iter().zip(&names).map(shown_name))
}

struct Lookup<'a> {
    documents: &'a dyn Documents,
    arch: Arch,
    /// How many documents may still be read: indexes may name each other in great numbers.
    left: Cell<usize>,
}

impl Lookup<'_> {
    fn blob(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let limit = limits::ARCHIVE_DOCUMENTS_MAX;
        let left = self.left.get().checked_sub(1);
        self.left.set(left.ok_or(Error::Limit { what: "documents read for one image", limit: limit as u64 })?);
        let path = blob_path(digest);
        let bytes = self.documents.read(&path)?.ok_or_else(|| Error::Missing(path.clone()))?;
        let actual = digest_of(&bytes);
        if actual == *digest { Ok(bytes) } else { Err(Error::Corrupt { path, wanted: *digest, actual }) }
    }

    /// From an index or manifest to the image. What an index lists without a platform is looked into.
    fn follow(&self, digest: Digest, depth: usize) -> Result<Plan, Error> {
        if depth > limits::ARCHIVE_INDEXES_NESTED_MAX {
            return Err(manifest::Error::Nested(self.arch).into());
        }
        let bytes = self.blob(&digest)?;
        let index = match manifest::parse(&bytes)? {
            Document::Manifest(found) => return self.image(digest, bytes, &found),
            Document::Index(index) => index,
        };
        let none = match index.choose(self.arch) {
            Ok(chosen) => return self.follow(chosen, depth + 1),
            Err(none) => none,
        };
        for unspecified in index.unspecified() {
            match self.follow(unspecified, depth + 1) {
                Err(Error::Document(manifest::Error::NoArch { .. } | manifest::Error::OtherArch { .. })) => {}
                found => return found,
            }
        }
        Err(none.into())
    }

    fn image(&self, digest: Digest, bytes: Vec<u8>, found: &manifest::Manifest) -> Result<Plan, Error> {
        let config = found.config()?;
        let config_bytes = self.blob(&config)?;
        manifest::check_config(&config_bytes, self.arch)?;
        let layers = found.layers()?;
        let diff_ids = diff_ids(&config_bytes, &blob_path(&config), layers.len())?;
        let planned = layers.iter().map(|layer| PlannedLayer {
            path: blob_path(&layer.digest),
            size: Some(layer.size),
            check: Check::Blob(layer.digest),
        });
        Ok(Plan {
            layers: planned.collect(),
            diff_ids,
            arch: self.arch,
            config: (config, config_bytes),
            manifest: Some((ImageManifest { digest, arch: self.arch, layers, documents: vec![digest, config] }, bytes)),
        })
    }
}
