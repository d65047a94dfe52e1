//! Images out of archives: every shape that tools write, compressed or not, read in place or as a stream, whole, broken and hostile.

mod hostile;
pub mod sample;
mod shapes;
mod spools;
mod tools;

use std::fs;
use std::io::Read;
use std::path::PathBuf;

use auroraboot::rootfs::{LayerSource, decompress};
use auroraboot::source::archive::{self, ArchiveImage, ArchiveKind, ArchiveRef, Watch};
use auroraboot::source::retry::Stop;
use auroraboot::source::{BlobCache, Transferred};
use auroraboot::units::{Arch, chain};

use crate::rootfs::oracle::Scratch;

/// A directory with archives in it, and a state directory.
struct Place {
    scratch: Scratch,
    stop: Stop,
}

impl Place {
    fn new(name: &str) -> Self {
        Self { scratch: Scratch::new(&format!("archive-{name}")), stop: Stop::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn cache(&self) -> BlobCache {
        BlobCache::open(&self.path("state")).unwrap()
    }

    /// The files of the cache.
    fn blobs(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path("state/blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "spool.part")
            .collect();
        names.sort();
        names
    }

    /// Opens what an operator would write; `~` is this directory.
    fn open(&self, text: &str) -> Result<ArchiveImage, String> {
        self.open_for(text, Arch::Amd64)
    }

    fn open_for(&self, text: &str, arch: Arch) -> Result<ArchiveImage, String> {
        let wanted = wanted(&text.replace('~', self.scratch.0.to_str().unwrap()))?;
        let mut progress = |_: Transferred| {};
        let mut watch = Watch { stop: &self.stop, progress: &mut progress };
        archive::open(&wanted, arch, &self.cache(), &mut watch).map_err(|error| one_line(&error))
    }

    /// The line that an operator sees.
    fn refusal(&self, text: &str) -> String {
        match self.open(text) {
            Ok(image) => panic!("{text} is an image of {} layers", image.count()),
            Err(line) => line,
        }
    }

    fn spool(&self, stream: &mut dyn Read, name: Option<&str>) -> Result<archive::Spooled, String> {
        let mut progress = |_: Transferred| {};
        let mut watch = Watch { stop: &self.stop, progress: &mut progress };
        archive::spool(stream, name, Arch::Amd64, &self.cache(), &mut watch).map_err(|error| one_line(&error))
    }
}

fn wanted(text: &str) -> Result<ArchiveRef, String> {
    let (prefix, rest) = text.split_once(':').unwrap();
    let kind = match prefix {
        "oci" => ArchiveKind::OciLayout,
        "oci-archive" => ArchiveKind::OciArchive,
        "docker-archive" => ArchiveKind::DockerArchive,
        "file" => ArchiveKind::Any,
        other => panic!("{other}"),
    };
    ArchiveRef::parse(kind, rest).map_err(|error| one_line(&error))
}

fn one_line(error: &dyn std::error::Error) -> String {
    let line = chain(error);
    assert!(!line.contains('\n') && line.chars().count() < 1500, "one line: {line}");
    line
}

/// The tar of a layer, read to its end.
fn tar_of(image: &dyn LayerSource, layer: usize) -> Result<Vec<u8>, String> {
    let mut tar = Vec::new();
    let opened = image.open(layer).and_then(decompress);
    match opened.and_then(|mut reader| reader.read_to_end(&mut tar)) {
        Ok(_) => Ok(tar),
        Err(error) => Err(one_line(&error)),
    }
}

fn tars(image: &dyn LayerSource) -> Vec<Vec<u8>> {
    (0..image.count()).map(|layer| tar_of(image, layer).unwrap()).collect()
}
