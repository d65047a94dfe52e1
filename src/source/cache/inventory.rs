//! What the cache holds, image by image, and what goes first when it holds too much.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::Deserialize;

use super::{BlobCache, read_tag};
use crate::limits;
use crate::source::manifest::{self, Document};
use crate::units::Digest;

/// Everything in the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The most recently used first.
    pub images: Vec<CachedImage>,
    /// Blobs that no image needs: of a tag that has moved, say.
    pub strays: Vec<Stored>,
    /// What has begun to arrive.
    pub parts: Vec<Stored>,
    /// Bytes of all of it.
    pub size: u64,
}

/// An image that is remembered by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedImage {
    /// As it was asked for, the architecture behind it.
    pub names: Vec<String>,
    /// Of the manifest.
    pub digest: Digest,
    /// Of the layers as they are stored, lowest first.
    pub layers: Vec<Digest>,
    /// Of the layers' tars, as far as the configuration is here: an image of a container daemon goes by them.
    pub diff_ids: Vec<Digest>,
    /// All that it consists of.
    pub blobs: BTreeSet<Digest>,
    /// Bytes that are here.
    pub size: u64,
    /// Of these, bytes that other images need as well.
    pub shared: u64,
    /// Blobs that are not here.
    pub missing: usize,
    pub used: SystemTime,
}

/// A file of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its name: a digest in hexadecimal, with `.part` while it arrives.
    pub file: String,
    /// Bytes.
    pub size: u64,
}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evicted {
    /// Of the images.
    pub names: Vec<String>,
    /// Those of the images among them.
    pub files: usize,
    pub bytes: u64,
}

impl BlobCache {
    /// Looks at everything that is there; the contents of layers are not read.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn inventory(&self) -> io::Result<Inventory> {
        let stored = self.stored()?;
        let sizes: BTreeMap<Digest, u64> =
            stored.iter().filter_map(|stored| Some((stored.digest()?, stored.size))).collect();
        let mut images = self.remembered()?;
        let mut users: BTreeMap<Digest, usize> = BTreeMap::new();
        self.add_indexes(&mut images, &sizes);
        for blob in images.iter().flat_map(|image| &image.blobs) {
            *users.entry(*blob).or_default() += 1;
        }
        for image in &mut images {
            for blob in &image.blobs {
                let Some(size) = sizes.get(blob) else {
                    image.missing += 1;
                    continue;
                };
                image.size += size;
                image.shared += if users.get(blob) > Some(&1) { *size } else { 0 };
            }
        }
        images.sort_by_key(|image| std::cmp::Reverse(image.used));
        let size = stored.iter().map(|stored| stored.size).sum();
        let (parts, blobs): (Vec<_>, Vec<_>) = stored.into_iter().partition(|stored| stored.digest().is_none());
        let is_stray = |stored: &Stored| stored.digest().is_some_and(|digest| !users.contains_key(&digest));
        Ok(Inventory { images, strays: blobs.into_iter().filter(is_stray).collect(), parts, size })
    }

    /// Removes what no image needs, and half downloads.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn prune(&self) -> io::Result<Evicted> {
        let Inventory { strays, parts, .. } = self.inventory()?;
        let mut evicted = Evicted::default();
        strays.iter().chain(&parts).for_each(|stored| self.remove(stored, &mut evicted));
        Ok(evicted)
    }

    /// Makes the cache no larger than `limit` bytes: first goes what no image needs, then the least recently used image, and so on.
    /// `keep` are blobs that are in use: neither they nor an image they belong to are touched, however large they are.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn evict(&self, limit: u64, keep: &[Digest]) -> io::Result<Evicted> {
        let Inventory { mut images, strays, parts, size } = self.inventory()?;
        let mut evicted = Evicted::default();
        if size <= limit {
            return Ok(evicted);
        }
        let in_use = |stored: &&Stored| !stored.digest_of_part().is_some_and(|digest| keep.contains(&digest));
        strays.iter().chain(&parts).filter(in_use).for_each(|stored| self.remove(stored, &mut evicted));
        while size.saturating_sub(evicted.bytes) > limit {
            // Its manifest in use is an image in use; other blobs may be shared.
            let Some(oldest) = images.iter().rposition(|image| !keep.contains(&image.digest)) else { break };
            let image = images.remove(oldest);
            // The names first: what is killed in between leaves strays, and no name of half an image.
            image.names.iter().for_each(|name| drop(fs::remove_file(self.tag_path(name))));
            let needed: BTreeSet<&Digest> = images.iter().flat_map(|image| &image.blobs).chain(keep).collect();
            for blob in image.blobs.iter().filter(|blob| !needed.contains(blob)) {
                let size = fs::metadata(self.path(blob)).map_or(0, |metadata| metadata.len());
                self.remove(&Stored { file: blob.hex(), size }, &mut evicted);
            }
            evicted.names.extend(image.names);
        }
        Ok(evicted)
    }

    fn remove(&self, stored: &Stored, evicted: &mut Evicted) {
        if fs::remove_file(self.dir.join(&stored.file)).is_ok() {
            evicted.files += 1;
            evicted.bytes += stored.size;
        }
    }

    /// The blobs that are whole.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn blobs(&self) -> io::Result<Vec<Stored>> {
        let mut blobs = self.stored()?;
        blobs.retain(|stored| stored.digest().is_some());
        Ok(blobs)
    }

    fn stored(&self) -> io::Result<Vec<Stored>> {
        let mut stored = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // What vanishes meanwhile, as a part that becomes a blob does, is no longer of interest.
            let Ok(metadata) = entry.metadata() else { continue };
            if let (Ok(file), true) = (entry.file_name().into_string(), metadata.is_file()) {
                stored.push(Stored { file, size: metadata.len() });
            }
        }
        stored.sort_by(|a, b| a.file.cmp(&b.file));
        Ok(stored)
    }

    /// The images that names are remembered for, as far as their manifests are here.
    fn remembered(&self) -> io::Result<Vec<CachedImage>> {
        let mut images: BTreeMap<Digest, CachedImage> = BTreeMap::new();
        for entry in fs::read_dir(&self.tags)? {
            let path = entry?.path();
            let Some((digest, name, _)) = read_tag(&path).filter(|(_, name, _)| self.tag_path(name) == path) else {
                continue;
            };
            if let Some(image) = images.get_mut(&digest) {
                image.names.push(name);
            } else if let Some(image) = self.image(digest, name) {
                images.insert(digest, image);
            }
        }
        let mut images: Vec<CachedImage> = images.into_values().collect();
        images.iter_mut().for_each(|image| image.names.sort());
        Ok(images)
    }

    fn image(&self, digest: Digest, name: String) -> Option<CachedImage> {
        let document = self.read_document(&digest, limits::MANIFEST_BYTES_MAX)?;
        let Ok(Document::Manifest(found)) = manifest::parse(&document) else { return None };
        let layers: Vec<Digest> = found.layers().ok()?.iter().map(|layer| layer.digest).collect();
        let used = fs::metadata(self.path(&digest)).and_then(|metadata| metadata.modified()).ok()?;
        let config = found.config().ok()?;
        let diff_ids = self.diff_ids(&config).unwrap_or_default();
        let blobs = [digest, config].into_iter().chain(layers.iter().copied()).collect();
        Some(CachedImage { names: vec![name], digest, layers, diff_ids, blobs, size: 0, shared: 0, missing: 0, used })
    }

    fn diff_ids(&self, config: &Digest) -> Option<Vec<Digest>> {
        let document = self.read_document(config, limits::MANIFEST_BYTES_MAX)?;
        let Config { rootfs } = serde_json::from_slice(&document).ok()?;
        rootfs.diff_ids.iter().map(|id| id.parse().ok()).collect()
    }

    /// An index that leads to an image belongs to it: it is what a digest in the image's name may stand for.
    fn add_indexes(&self, images: &mut [CachedImage], sizes: &BTreeMap<Digest, u64>) {
        let known: BTreeSet<Digest> = images.iter().flat_map(|image| image.blobs.iter().copied()).collect();
        let unknown =
            sizes.iter().filter(|(digest, size)| !known.contains(digest) && **size <= limits::INDEX_BYTES_MAX);
        for (digest, _) in unknown {
            let Some(document) = self.read_document(digest, limits::INDEX_BYTES_MAX) else { continue };
            let Ok(Document::Index(index)) = manifest::parse(&document) else { continue };
            for image in images.iter_mut().filter(|image| index.lists(&image.digest)) {
                image.blobs.insert(*digest);
            }
        }
    }
}

/// The part of an image's configuration that tells what its layers are.
#[derive(Deserialize)]
struct Config {
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    diff_ids: Vec<String>,
}

impl Stored {
    /// Of a blob that is whole.
    #[must_use]
    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.file).parse().ok()
    }

    /// Of a blob, whole or not.
    fn digest_of_part(&self) -> Option<Digest> {
        let stem = Path::new(&self.file).file_stem()?.to_str()?;
        format!("sha256:{stem}").parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::StateDir;
    use super::*;
    use crate::source::manifest::digest_of;
    use std::time::Duration;

    /// Puts an image of some layers into the cache, last used so many hours ago.
    fn put(cache: &BlobCache, name: &str, layers: &[&str], hours: u64) -> Digest {
        let keep = |bytes: &[u8]| {
            let digest = digest_of(bytes);
            cache.write_document(&digest, bytes).unwrap();
            digest
        };
        let config = format!("{{\"architecture\":\"amd64\",\"os\":\"linux\",\"x\":\"{name}\"}}");
        let descriptor = |kind: &str, digest: Digest, size: usize| {
            format!("{{\"mediaType\":\"application/vnd.oci.image.{kind}\",\"digest\":\"{digest}\",\"size\":{size}}}")
        };
        let layers: Vec<String> =
            layers.iter().map(|layer| descriptor("layer.v1.tar", keep(layer.as_bytes()), layer.len())).collect();
        let config = descriptor("config.v1+json", keep(config.as_bytes()), config.len());
        let manifest = format!("{{\"schemaVersion\":2,\"config\":{config},\"layers\":[{}]}}", layers.join(","));
        let digest = keep(manifest.as_bytes());
        cache.remember(name, &digest).unwrap();
        let used = SystemTime::now() - Duration::from_secs(hours * 3600);
        fs::File::options().append(true).open(cache.path(&digest)).unwrap().set_modified(used).unwrap();
        digest
    }

    fn names(inventory: &Inventory) -> Vec<&str> {
        inventory.images.iter().flat_map(|image| &image.names).map(String::as_str).collect()
    }

    /// 10,000 bytes.
    fn large(letter: &str) -> String {
        letter.repeat(10_000)
    }

    #[test]
    fn images_are_counted_with_what_they_share() {
        let state = StateDir::new("inventory");
        let cache = state.cache();
        let (base, own) = (large("b"), large("o"));
        put(&cache, "old amd64", &[&base], 5);
        let new = put(&cache, "new amd64", &[&base, &own], 1);
        cache.remember("also-new amd64", &new).unwrap();
        cache.write_document(&digest_of(b"stray"), b"stray").unwrap();
        cache.open_part(&digest_of(b"half")).unwrap().set_len(7).unwrap();
        fs::remove_file(cache.path(&digest_of(own.as_bytes()))).unwrap();
        let inventory = cache.inventory().unwrap();
        assert_eq!(names(&inventory), ["also-new amd64", "new amd64", "old amd64"]);
        assert_eq!(inventory.images.iter().map(|image| image.missing).collect::<Vec<_>>(), [1, 0]);
        assert!(inventory.images.iter().all(|image| image.shared == 10_000 && image.size < 12_000), "{inventory:#?}");
        assert_eq!(inventory.strays.iter().map(|stray| stray.size).collect::<Vec<_>>(), [5]);
        assert_eq!(inventory.parts.iter().map(|part| part.size).collect::<Vec<_>>(), [7]);
        assert!((10_012..12_000).contains(&inventory.size), "{inventory:#?}");
    }

    #[test]
    fn an_image_tells_what_its_layers_are_when_they_are_unpacked() {
        let state = StateDir::new("diff-ids");
        let cache = state.cache();
        let keep = |text: String| {
            let digest = digest_of(text.as_bytes());
            cache.write_document(&digest, text.as_bytes()).unwrap();
            digest
        };
        let id = digest_of(b"tar");
        let config = keep(format!("{{\"rootfs\":{{\"type\":\"layers\",\"diff_ids\":[\"{id}\"]}}}}"));
        let digest =
            keep(format!("{{\"schemaVersion\":2,\"config\":{{\"digest\":\"{config}\",\"size\":1}},\"layers\":[]}}"));
        cache.remember("a amd64", &digest).unwrap();
        put(&cache, "b amd64", &["layer"], 1);
        let inventory = cache.inventory().unwrap();
        let ids: Vec<&[Digest]> = inventory.images.iter().map(|image| &image.diff_ids[..]).collect();
        assert_eq!(ids, [&[id][..], &[]], "the other's configuration has none");
    }

    #[test]
    fn the_least_recently_used_image_goes_first_and_what_is_in_use_stays() {
        let state = StateDir::new("evict");
        let cache = state.cache();
        let (base, a, b, c) = (large("0"), large("a"), large("b"), large("c"));
        let oldest = put(&cache, "a amd64", &[&base, &a], 9);
        put(&cache, "b amd64", &[&base, &b], 5);
        put(&cache, "c amd64", &[&c], 1);
        cache.write_document(&digest_of(b"stray"), b"stray").unwrap();
        assert_eq!(cache.evict(1 << 30, &[]).unwrap(), Evicted::default(), "below the limit nothing goes");
        let evicted = cache.evict(32_000, &[oldest]).unwrap();
        assert_eq!(evicted.names, ["b amd64"], "the oldest one is in use");
        assert!(cache.path(&digest_of(base.as_bytes())).exists(), "it is shared");
        assert!(!cache.path(&digest_of(b.as_bytes())).exists() && !cache.path(&digest_of(b"stray")).exists());
        assert_eq!(cache.recall("b amd64"), None);
        let inventory = cache.inventory().unwrap();
        assert_eq!(names(&inventory), ["c amd64", "a amd64"]);
        assert!(inventory.strays.is_empty() && inventory.images.iter().all(|image| image.missing == 0));
        let evicted = cache.evict(0, &[oldest, digest_of(a.as_bytes())]).unwrap();
        assert_eq!(evicted.names, ["c amd64"]);
        assert!(cache.inventory().unwrap().size > 10_000, "what is in use may be larger than the limit");
    }

    #[test]
    fn pruning_leaves_whole_images() {
        let state = StateDir::new("prune");
        let cache = state.cache();
        put(&cache, "a amd64", &["layer"], 1);
        let before = cache.inventory().unwrap();
        cache.write_document(&digest_of(b"stray"), b"stray").unwrap();
        cache.open_part(&digest_of(b"half")).unwrap().set_len(7).unwrap();
        let evicted = cache.prune().unwrap();
        assert_eq!((evicted.names.len(), evicted.files, evicted.bytes), (0, 2, 12));
        assert_eq!(cache.inventory().unwrap(), before);
    }

    #[test]
    fn an_index_stays_with_its_image_and_damaged_names_count_for_nothing() {
        let state = StateDir::new("index");
        let cache = state.cache();
        let image = put(&cache, "a amd64", &["layer"], 1);
        let index = format!(
            "{{\"schemaVersion\":2,\"manifests\":[{{\"digest\":\"{image}\",\"size\":1,\"platform\":{{\"architecture\":\"amd64\",\"os\":\"linux\"}}}}]}}"
        );
        cache.write_document(&digest_of(index.as_bytes()), index.as_bytes()).unwrap();
        fs::write(cache.tags.join("nonsense"), "\0").unwrap();
        fs::write(cache.tags.join("0000"), format!("{image} elsewhere\n")).unwrap();
        let inventory = cache.inventory().unwrap();
        assert_eq!(names(&inventory), ["a amd64"]);
        assert!(inventory.strays.is_empty() && inventory.images[0].blobs.contains(&digest_of(index.as_bytes())));
    }
}
