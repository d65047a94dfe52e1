//! One image in every shape that archives have, byte for byte as the tools lay them out.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use auroraboot::source::Compression;
use serde_json::{Value, json};

use crate::rootfs::layers::{TestEntry, digest, directory, file, gzip, symlink, tar};

/// An image by its layers' tars.
#[derive(Clone)]
pub struct Sample {
    pub arch: &'static str,
    pub tars: Vec<Vec<u8>>,
    /// How layouts store the layers; Docker's archives have them plain.
    pub compression: Vec<Compression>,
}

impl Sample {
    /// Three layers, the first and the last of them the same, compressed in all three ways.
    pub fn new() -> Self {
        let base = tar(&[directory("etc"), file("etc/os-release", "NAME=x\n"), file("large", noise(300_000))]);
        let middle = tar(&[file("etc/middle", noise(100_000)), file(".wh.gone", "")]);
        let tars = vec![base.clone(), middle, base];
        Self { arch: "amd64", tars, compression: vec![Compression::Gzip, Compression::Zstd, Compression::None] }
    }

    /// Another image, of one small layer.
    pub fn other(arch: &'static str, content: &str) -> Self {
        Self { arch, tars: vec![tar(&[file("etc/name", content)])], compression: vec![Compression::Gzip] }
    }

    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<String> = self.tars.iter().map(|tar| digest(tar).to_string()).collect();
        bytes(
            &json!({"architecture": self.arch, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}),
        )
    }

    /// The layers as a layout stores them.
    pub fn stored(&self) -> Vec<Vec<u8>> {
        let pairs = self.tars.iter().zip(&self.compression);
        pairs.map(|(tar, compression)| compress(tar, *compression)).collect()
    }

    pub fn manifest(&self) -> Vec<u8> {
        let (stored, config) = (self.stored(), self.config());
        let layers: Vec<Value> = stored
            .iter()
            .zip(&self.compression)
            .map(|(blob, compression)| {
                let suffix = match compression {
                    Compression::None => "",
                    Compression::Gzip => "+gzip",
                    Compression::Zstd => "+zstd",
                };
                descriptor(&format!("application/vnd.oci.image.layer.v1.tar{suffix}"), blob)
            })
            .collect();
        bytes(&json!({"schemaVersion": 2, "mediaType": MANIFEST, "layers": layers,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config)}))
    }

    /// Layers, configuration and manifest.
    pub fn blobs(&self) -> Vec<Vec<u8>> {
        [self.stored(), vec![self.config(), self.manifest()]].concat()
    }

    /// The entry of an index for it.
    pub fn entry(&self, names: &[(&str, &str)]) -> Value {
        let mut entry = descriptor(MANIFEST, &self.manifest());
        entry["annotations"] = names.iter().map(|(key, name)| ((*key).to_owned(), json!(name))).collect();
        entry
    }

    /// `docker save` up to 24: a directory for each layer under its ID of Docker's first format, sorted by name. A layer that is
    /// there twice is a link, which may come before what it points to.
    pub fn legacy(&self, name: &str) -> Vec<TestEntry> {
        let (id, first) = (Self::id_of, self.first());
        let mut entries = Vec::new();
        for layer in (0..self.tars.len()).rev() {
            let (id, tar) = (id(layer), &self.tars[layer]);
            entries.push(directory(format!("{id}/")));
            entries.push(file(format!("{id}/VERSION"), "1.0"));
            entries.push(file(format!("{id}/json"), bytes(&json!({"id": id, "os": "linux"}))));
            entries.push(match first[layer] {
                first if first == layer => file(format!("{id}/layer.tar"), tar),
                first => symlink(format!("{id}/layer.tar"), format!("../{}/layer.tar", Self::id_of(first))),
            });
        }
        let config = self.config();
        let config_name = format!("{}.json", digest(&config).hex());
        let layers: Vec<String> = (0..self.tars.len()).map(|layer| format!("{}/layer.tar", id(layer))).collect();
        let (repository, tag) = name.rsplit_once(':').unwrap();
        entries.push(file(&config_name, config));
        entries.push(file(
            "manifest.json",
            bytes(&json!([{"Config": config_name, "RepoTags": [name], "Layers": layers}])),
        ));
        entries.push(file("repositories", bytes(&json!({repository: {tag: id(self.tars.len() - 1)}}))));
        entries
    }

    /// For each layer the lowest one that is the same.
    fn first(&self) -> Vec<usize> {
        let mut seen = HashMap::new();
        self.tars.iter().enumerate().map(|(layer, tar)| *seen.entry(digest(tar)).or_insert(layer)).collect()
    }

    /// An ID that sorts an upper layer before a lower one.
    fn id_of(layer: usize) -> String {
        format!("{:x}{}", 15 - layer % 16, &digest(format!("{layer}").as_bytes()).hex()[1..])
    }

    /// `docker save` since 25: an OCI layout, and Docker's list beside it.
    pub fn modern(&self, name: &str) -> Vec<TestEntry> {
        let tag = name.rsplit(':').next().unwrap();
        let full = format!("docker.io/library/{name}");
        let entry = self.entry(&[("io.containerd.image.name", &full), ("org.opencontainers.image.ref.name", tag)]);
        let mut entries = layout_entries(&self.blobs(), &[entry]);
        let path = |blob: &Vec<u8>| format!("blobs/sha256/{}", digest(blob).hex());
        let layers: Vec<String> = self.stored().iter().map(path).collect();
        let list = json!([{"Config": path(&self.config()), "RepoTags": [name], "Layers": layers}]);
        entries.insert(entries.len() - 1, file("manifest.json", bytes(&list)));
        entries
    }

    /// What skopeo and Podman write: layers by their digests, links for readers of the first format, the list last.
    pub fn skopeo(&self, name: &str) -> Vec<TestEntry> {
        let first = self.first();
        let path = |tar: &Vec<u8>| format!("{}.tar", digest(tar).hex());
        let mut entries: Vec<TestEntry> = Vec::new();
        for (layer, tar) in self.tars.iter().enumerate() {
            if first[layer] == layer {
                entries.push(file(path(tar), tar));
            }
            entries.push(symlink(format!("{}/layer.tar", Self::id_of(layer)), format!("../{}", path(tar))));
        }
        let config = self.config();
        let config_name = format!("{}.json", digest(&config).hex());
        let layers: Vec<String> = self.tars.iter().map(path).collect();
        entries.push(file(&config_name, config));
        entries.push(file(
            "manifest.json",
            bytes(&json!([{"Config": config_name, "RepoTags": [name], "Layers": layers}])),
        ));
        entries
    }
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn bytes(value: &Value) -> Vec<u8> {
    serde_json::to_vec(value).unwrap()
}

pub fn descriptor(media_type: &str, blob: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": digest(blob).to_string(), "size": blob.len()})
}

pub fn compress(tar: &[u8], compression: Compression) -> Vec<u8> {
    match compression {
        Compression::None => tar.to_vec(),
        Compression::Gzip => gzip(tar),
        Compression::Zstd => zstd::encode_all(tar, 1).unwrap(),
    }
}

/// An index of several images.
pub fn index(entries: &[Value]) -> Vec<u8> {
    bytes(&json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}))
}

/// A layout as the members of an archive, in the order in which a walk finds them.
pub fn layout_entries(blobs: &[Vec<u8>], entries: &[Value]) -> Vec<TestEntry> {
    let mut members = vec![directory("blobs/"), directory("blobs/sha256/")];
    let mut files: Vec<TestEntry> =
        blobs.iter().map(|blob| file(format!("blobs/sha256/{}", digest(blob).hex()), blob)).collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    members.extend(files);
    members.push(file("index.json", index(entries)));
    members.push(file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#));
    members
}

/// The members as files of a directory.
pub fn write_layout(root: &Path, members: &[TestEntry]) {
    for member in members {
        let path = root.join(std::str::from_utf8(&member.path).unwrap());
        match member.kind {
            b'5' => fs::create_dir_all(path).unwrap(),
            b'0' => fs::write(path, &member.data).unwrap(),
            b'2' => std::os::unix::fs::symlink(std::str::from_utf8(&member.link).unwrap(), path).unwrap(),
            kind => panic!("{kind}"),
        }
    }
}

fn noise(length: usize) -> Vec<u8> {
    crate::registry::real::noise(length, 7)
}
