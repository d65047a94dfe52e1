//! The container image: the static binary, and nothing that it does not need.
//!
//! One archive for each architecture, which every `docker load`, `podman load` and `ctr image import` takes (an OCI image layout, with the
//! `manifest.json` of `docker save` beside it), and one with all of them for registries.

use auroraboot::civil::Civil;
use auroraboot::rootfs::tar::{self, Member, MemberKind};
use auroraboot::units::{Arch, Digest};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The name that the image has once it is loaded.
pub const NAME: &str = "auroraboot";

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    #[error("cannot read {}; build it: cargo build --release --bin auroraboot --target {target}", .path.display())]
    Binary { path: PathBuf, target: &'static str, source: io::Error },
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
}

/// What goes into an image: a binary for one architecture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub arch: Arch,
    pub bytes: Vec<u8>,
}

impl Program {
    /// Reads the release build.
    ///
    /// # Errors
    /// It is not there.
    pub fn read(target_directory: &Path, arch: Arch) -> Result<Self, ContainerError> {
        let target = match arch {
            Arch::Amd64 => "x86_64-unknown-linux-musl",
            Arch::Arm64 => "aarch64-unknown-linux-musl",
            Arch::Riscv64 => "riscv64gc-unknown-linux-musl",
        };
        let path = target_directory.join(target).join("release/auroraboot");
        match fs::read(&path) {
            Ok(bytes) => Ok(Self { arch, bytes }),
            Err(source) => Err(ContainerError::Binary { path, target, source }),
        }
    }
}

/// Writes `auroraboot-container-ARCH.tar` for each program and `auroraboot-container.tar` for all into `directory`; all times in them are
/// `epoch`, in seconds since 1970. Returns the files and their sizes in bytes.
///
/// # Errors
/// A file cannot be written.
pub fn write(
    directory: &Path,
    programs: &[Program],
    version: &str,
    epoch: u64,
) -> Result<Vec<(PathBuf, u64)>, ContainerError> {
    fs::create_dir_all(directory).map_err(|source| ContainerError::Write(directory.to_owned(), source))?;
    let images: Vec<Image> = programs.iter().map(|program| Image::of(program, version, epoch)).collect();
    let mut written = Vec::new();
    for image in &images {
        let name = format!("auroraboot-container-{}.tar", image.arch);
        written.push(put(directory.join(name), &image.archive(version, epoch))?);
    }
    written.push(put(directory.join("auroraboot-container.tar"), &archive_of_all(&images, version, epoch))?);
    Ok(written)
}

/// The time of everything in an image, in seconds since 1970: `SOURCE_DATE_EPOCH`, else none, as the program in it says its version itself.
#[must_use]
pub fn epoch() -> u64 {
    std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(0)
}

fn put(path: PathBuf, bytes: &[u8]) -> Result<(PathBuf, u64), ContainerError> {
    let temporary = path.with_extension("part");
    let written = fs::write(&temporary, bytes).and_then(|()| fs::rename(&temporary, &path));
    match written {
        Ok(()) => Ok((path, bytes.len() as u64)),
        Err(source) => Err(ContainerError::Write(path, source)),
    }
}

/// A blob of the OCI image layout.
#[derive(Debug, Clone)]
struct Blob {
    digest: Digest,
    bytes: Vec<u8>,
}

impl Blob {
    fn new(bytes: Vec<u8>) -> Self {
        Self { digest: Digest(Sha256::digest(&bytes).into()), bytes }
    }

    fn document(value: &Value) -> Self {
        Self::new(value.to_string().into_bytes())
    }

    fn path(&self) -> String {
        format!("blobs/sha256/{}", self.digest.hex())
    }

    /// Its descriptor (OCI image specification, descriptor.md).
    fn descriptor(&self, media_type: &str) -> Value {
        json!({ "mediaType": media_type, "digest": self.digest.to_string(), "size": self.bytes.len() })
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image for one architecture.
#[derive(Debug)]
struct Image {
    arch: Arch,
    layer: Blob,
    config: Blob,
    manifest: Blob,
}

impl Image {
    fn of(program: &Program, version: &str, epoch: u64) -> Self {
        let root = root(program, epoch);
        let diff_id = Blob::new(root.clone()).digest;
        let layer = Blob::new(gzip(&root));
        let config = Blob::document(&json!({
            "created": time(epoch),
            "architecture": program.arch.to_string(),
            "os": "linux",
            "config": { "Entrypoint": ["/auroraboot"], "Env": ["PATH=/"], "WorkingDir": "/", "Labels": labels(version) },
            "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
            "history": [{ "created": time(epoch), "created_by": "cargo run -p image -- --container" }],
        }));
        let manifest = Blob::document(&json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [layer.descriptor("application/vnd.oci.image.layer.v1.tar+gzip")],
            "annotations": labels(version),
        }));
        Self { arch: program.arch, layer, config, manifest }
    }

    fn blobs(&self) -> [&Blob; 3] {
        [&self.layer, &self.config, &self.manifest]
    }

    fn descriptor(&self) -> Value {
        let mut descriptor = self.manifest.descriptor(MANIFEST);
        descriptor["platform"] = json!({ "architecture": self.arch.to_string(), "os": "linux" });
        descriptor
    }

    fn archive(&self, version: &str, epoch: u64) -> Vec<u8> {
        let tags = [version, "latest"];
        // containerd takes both names from the layout. podman 4.3 takes but one image from a layout: of two it turns to manifest.json,
        // and has both names as well (measured; with one name in the layout it knew nothing of `latest`).
        let named = |tag| {
            let mut descriptor = self.descriptor();
            descriptor["annotations"] = name(tag);
            descriptor
        };
        let mut archive = layout(self.blobs(), &tags.map(named), epoch);
        // Docker before 25 reads nothing but this.
        let tags = tags.map(|tag| format!("{NAME}:{tag}"));
        let entry = json!({ "Config": self.config.path(), "RepoTags": tags, "Layers": [self.layer.path()] });
        file(&mut archive, "manifest.json", json!([entry]).to_string().as_bytes(), 0o644, epoch);
        archive.extend_from_slice(&tar::END);
        archive
    }
}

fn archive_of_all(images: &[Image], version: &str, epoch: u64) -> Vec<u8> {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let manifests: Vec<Value> = images.iter().map(Image::descriptor).collect();
    let index = Blob::document(&json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }));
    let mut descriptor = index.descriptor(INDEX);
    // One name alone: skopeo asks which image is meant when there are several.
    descriptor["annotations"] = name(version);
    let mut archive = layout(images.iter().flat_map(Image::blobs).chain([&index]), &[descriptor], epoch);
    archive.extend_from_slice(&tar::END);
    archive
}

/// An OCI image layout (image-layout.md) with an index of these descriptors, without its end.
fn layout<'a>(blobs: impl IntoIterator<Item = &'a Blob>, index: &[Value], epoch: u64) -> Vec<u8> {
    let mut archive = Vec::new();
    file(&mut archive, "oci-layout", json!({ "imageLayoutVersion": "1.0.0" }).to_string().as_bytes(), 0o644, epoch);
    let index = json!({ "schemaVersion": 2, "manifests": index });
    file(&mut archive, "index.json", index.to_string().as_bytes(), 0o644, epoch);
    for blob in blobs {
        file(&mut archive, &blob.path(), &blob.bytes, 0o644, epoch);
    }
    archive
}

/// The root file system: the program, a directory for its state, and a name for the user that it runs as.
fn root(program: &Program, epoch: u64) -> Vec<u8> {
    let mut root = Vec::new();
    member(&mut root, "tmp", MemberKind::Directory, 0o1777, epoch);
    member(&mut root, "etc", MemberKind::Directory, 0o755, epoch);
    file(&mut root, "etc/passwd", b"root:x:0:0:root:/:/auroraboot\n", 0o644, epoch);
    file(&mut root, "auroraboot", &program.bytes, 0o755, epoch);
    root.extend_from_slice(&tar::END);
    root
}

fn file(archive: &mut Vec<u8>, path: &str, bytes: &[u8], mode: u16, epoch: u64) {
    member(archive, path, MemberKind::File { size: bytes.len() as u64 }, mode, epoch);
    archive.extend_from_slice(bytes);
    archive.resize(archive.len().next_multiple_of(TAR_BLOCK), 0);
}

fn member(archive: &mut Vec<u8>, path: &str, kind: MemberKind, mode: u16, epoch: u64) {
    let (path, mtime) = (path.as_bytes().to_vec(), i64::try_from(epoch).unwrap_or(i64::MAX));
    archive.extend_from_slice(&tar::encode(&Member { path, kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() }));
}

/// Bytes that members of a tar archive are padded to (POSIX.1-2001, pax).
const TAR_BLOCK: usize = 512;

/// Without a time or a name in the header, so that equal input gives equal bytes.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    // A vector takes everything.
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// RFC 3339, as the OCI image configuration wants it.
fn time(epoch: u64) -> String {
    Civil::at(epoch).iso_8601()
}

fn labels(version: &str) -> Value {
    json!({
        "org.opencontainers.image.title": NAME,
        "org.opencontainers.image.description": "Brings machines up from nothing: boots every machine on the LAN out of a container image",
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.licenses": "Apache-2.0",
    })
}

/// What skopeo, podman and containerd call it.
fn name(tag: &str) -> Value {
    let full = format!("docker.io/library/{NAME}:{tag}");
    json!({ "org.opencontainers.image.ref.name": tag, "io.containerd.image.name": full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn program(arch: Arch) -> Program {
        Program { arch, bytes: vec![7; 1000] }
    }

    /// The members of an archive with their data.
    fn members(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        let mut members = Vec::new();
        while let Some(member) = archive.next_member().unwrap() {
            let mut data = Vec::new();
            archive.read_to_end(&mut data).unwrap();
            members.push((String::from_utf8(member.path).unwrap(), data));
        }
        members
    }

    #[test]
    fn every_blob_has_the_digest_of_its_name_and_every_name_a_blob() {
        let images = [Arch::Amd64, Arch::Arm64].map(|arch| Image::of(&program(arch), "1.0", 5));
        for archive in [images[0].archive("1.0", 5), archive_of_all(&images, "1.0", 5)] {
            let members = members(&archive);
            let documents: String =
                members.iter().map(|(_, data)| String::from_utf8_lossy(data).into_owned()).collect();
            for (path, data) in members.iter().filter(|(path, _)| path.starts_with("blobs/")) {
                assert_eq!(*path, Blob::new(data.clone()).path());
                assert!(documents.contains(path.rsplit('/').next().unwrap()), "{path} is named by something");
            }
        }
        assert_eq!(members(&images[1].archive("1.0", 5)).len(), 6);
    }

    #[test]
    fn docker_podman_and_containerd_find_both_names_and_skopeo_one_in_the_archive_of_all() {
        let image = Image::of(&program(Arch::Amd64), "1.0", 5);
        let document = |archive: &[u8], name: &str| -> Value {
            let (_, data) = members(archive).into_iter().find(|(path, _)| path == name).unwrap();
            serde_json::from_slice(&data).unwrap()
        };
        let names = |archive: &[u8]| -> Vec<(String, String)> {
            let index = document(archive, "index.json");
            let text = |value: &Value| value.as_str().unwrap().to_owned();
            let manifests = index["manifests"].as_array().unwrap().iter();
            manifests.map(|one| (text(&one["digest"]), text(&one["annotations"]["io.containerd.image.name"]))).collect()
        };
        let archive = image.archive("1.0", 5);
        let digest = image.manifest.digest.to_string();
        let full = |tag| (digest.clone(), format!("docker.io/library/auroraboot:{tag}"));
        assert_eq!(names(&archive), [full("1.0"), full("latest")]);
        let tags = &document(&archive, "manifest.json")[0]["RepoTags"];
        assert_eq!(*tags, json!(["auroraboot:1.0", "auroraboot:latest"]));
        assert_eq!(names(&archive_of_all(&[image], "1.0", 5)).len(), 1);
    }

    /// The two files of the Secret in the example for Kubernetes.
    struct Secret;

    impl auroraboot::config::Inputs for Secret {
        fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
            let manifest = include_str!("../kubernetes/auroraboot.yaml");
            let (_, text) = manifest.split_once(&format!("\n  {}: |\n", path.display())).unwrap();
            let lines = text.lines().map_while(|line| line.strip_prefix("    "));
            Ok(lines.flat_map(|line| [line, "\n"]).collect::<String>().into_bytes())
        }

        fn fetch_url(&mut self, url: &str, _: auroraboot::config::Fetching<'_>) -> Result<Vec<u8>, String> {
            Err(url.to_owned())
        }

        fn read_stdin(&mut self) -> io::Result<Vec<u8>> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    #[test]
    fn the_pod_as_it_is_shipped_installs_nothing_and_boots_nobody() {
        let args = auroraboot::config::Args {
            config: Some("auroraboot.yaml".to_owned()),
            cloud_config: Some("cloud-config.yaml".to_owned()),
            ..Default::default()
        };
        let (config, warnings) = auroraboot::config::load(&args, &mut Secret).unwrap();
        assert!(warnings.is_empty(), "{warnings:?}");
        let allowed: Vec<String> = config.machines.allow.iter().map(ToString::to_string).collect();
        assert_eq!(allowed, ["00:00:5e:00:53:01"], "of RFC 7042 §2.1.1, for documentation");
        let cloud_config = config.cloud_config.unwrap();
        let summary = cloud_config.summary().unwrap();
        assert_eq!(summary, "installs nothing by itself (no `install.auto: true`); users kairos");
    }

    #[test]
    fn the_root_holds_the_program_and_equal_input_gives_equal_bytes() {
        let paths: Vec<String> = members(&root(&program(Arch::Amd64), 5)).into_iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["tmp", "etc", "etc/passwd", "auroraboot"]);
        let archive = || Image::of(&program(Arch::Amd64), "1.0", 5).archive("1.0", 5);
        assert_eq!(archive(), archive());
        assert_eq!(time(1_700_000_000), "2023-11-14T22:13:20Z");
    }
}
