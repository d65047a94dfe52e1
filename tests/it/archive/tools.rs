//! Archives that skopeo, umoci and tar make of one image, against the same image out of a registry.

use std::process::Command;

use auroraboot::media::Medium;
use auroraboot::rootfs::LayerSource;
use auroraboot::source::credentials::Keychain;
use auroraboot::source::{Client, Compression, Registry, Settings, fetch, pull, resolve};
use auroraboot::units::Arch;

use super::sample::{Sample, layout_entries, write_layout};
use super::{Place, tars};
use crate::dockerd::real::{DOCKER, PODMAN};
use crate::media::{self, bytes, tool};
use crate::registry::real::{Guard, RealRegistry};
use crate::rootfs::layers::{MemoryImage, gzip, merge_with, tar};

/// A layout of the sample. Docker's formats know no zstd, and skopeo compresses what is not.
fn prepared(name: &str) -> (Place, Sample) {
    let sample = Sample { compression: vec![Compression::Gzip; 3], ..Sample::new() };
    let place = Place::new(name);
    let entry = sample.entry(&[("org.opencontainers.image.ref.name", "it")]);
    write_layout(&place.path("src"), &layout_entries(&sample.blobs(), &[entry]));
    (place, sample)
}

impl Place {
    fn skopeo(&self, arguments: &[&str], to: &str) {
        let here = |text: &str| text.replace('~', self.scratch.0.to_str().unwrap());
        let (from, to) = (here("oci:~/src:it"), here(to));
        tool("skopeo", &[&["copy", "--quiet"], arguments, &[&from, &to]].concat());
    }
}

#[test]
fn what_skopeo_copies_is_read_as_what_it_was_copied_from() {
    let (place, sample) = prepared("skopeo");
    let rows: [(&[&str], &str, &str); 7] = [
        (&[], "oci-archive:~/plain.tar:v1", "oci-archive:~/plain.tar:v1"),
        (&["--dest-compress-format=zstd", "--dest-compress"], "oci:~/zstd:v1", "oci:~/zstd:v1"),
        (&["--format=oci"], "oci:~/oci:v1", "oci:~/oci"),
        (&[], "docker-archive:~/docker.tar:example.com/x/y:v1", "docker-archive:~/docker.tar:example.com/x/y:v1"),
        (&[], "docker-archive:~/unnamed.tar", "docker-archive:~/unnamed.tar"),
        (&["--format=v2s2"], "docker-archive:~/v2s2.tar:y:v1", "file:~/v2s2.tar:y:v1"),
        (&["--format=v2s2"], "dir:~/v2s2", ""),
    ];
    for (arguments, to, text) in rows {
        place.skopeo(arguments, to);
        if text.is_empty() {
            continue;
        }
        let image = place.open(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(tars(&image) == sample.tars, "{text}");
    }
    assert_eq!(place.blobs(), [""; 0], "nothing of them was copied");
    // The directory that skopeo calls dir: is neither a layout nor a root file system.
    assert!(place.refusal("oci:~/v2s2").contains("it is no OCI layout"));
    for (packer, name) in [("gzip", "plain.tar"), ("zstd", "docker.tar")] {
        let path = place.path(name);
        tool(packer, &["-q", "-k", path.to_str().unwrap()]);
    }
    for text in ["oci-archive:~/plain.tar.gz:v1", "docker-archive:~/docker.tar.zst:example.com/x/y:v1"] {
        assert!(tars(&place.open(text).unwrap()) == sample.tars, "{text}");
    }
}

#[test]
fn every_transport_gives_the_image_of_the_registry() {
    let (place, sample) = prepared("registry");
    let registry = RealRegistry::start("archives", Guard::default());
    registry.push(&place.path("src"), "x/y:v1");
    let (client, keychain) = (Client::new(Settings::default()).unwrap(), Keychain::with_files(Vec::new()));
    let image = Registry::new(&client, &keychain, registry.name("x/y:v1").parse().unwrap()).unwrap();
    let cache = place.cache();
    let pulled = resolve(&image, Arch::Amd64, &cache).unwrap();
    let layers = fetch(image, &pulled, &cache, &pull::top_first(&pulled), Box::new(|_, _| ())).unwrap();
    layers.wait().unwrap();
    let from = format!("docker://{}", registry.name("x/y:v1"));
    let here = |text: &str| text.replace('~', place.scratch.0.to_str().unwrap());
    for to in ["oci:~/copy:v1", "oci-archive:~/copy.tar:v1", "docker-archive:~/docker.tar:x/y:v1"] {
        tool("skopeo", &["copy", "--quiet", "--src-tls-verify=false", &from, &here(to)]);
        let image = place.open(to).unwrap();
        if !to.starts_with("docker") {
            // Documents and layers are known by the same digests: the ISO of the one is the ISO of the other.
            assert_eq!(image.manifest.digest, pulled.digest, "{to}");
            assert_eq!(image.manifest.layers, pulled.layers, "{to}");
        }
        assert!(tars(&image) == sample.tars, "{to}");
        let expected = merge_with(&MemoryImage::new(sample.stored()), &[]).unwrap().listing();
        assert_eq!(merge_with(&image, &[]).unwrap().listing(), expected, "{to}");
        assert_eq!(image.count(), pulled.layers.len());
    }
}

#[test]
fn an_iso_is_the_same_whatever_brought_its_image() {
    let sample = Sample {
        arch: "amd64",
        tars: media::layers().iter().map(|entries| tar(entries)).collect(),
        compression: vec![Compression::Gzip; 2],
    };
    let place = Place::new("iso");
    let expected = media::Place::new("archive-registry");
    let pulled = expected.build(&MemoryImage::new(sample.stored())).unwrap();
    let whole = std::fs::read(&pulled.iso.path).unwrap();
    write_layout(&place.path("dir"), &layout_entries(&sample.blobs(), &[sample.entry(&[])]));
    place.write("legacy.tar", &tar(&sample.legacy("x:v1")));
    place.write("modern.tar.gz", &gzip(&tar(&sample.modern("x:v1"))));
    for (name, text) in
        [("layout", "oci:~/dir"), ("legacy", "docker-archive:~/legacy.tar"), ("modern", "oci-archive:~/modern.tar.gz")]
    {
        let built = media::Place::new(&format!("archive-{name}"));
        let image = place.open(text).unwrap();
        let medium = built.build(&image).unwrap();
        let squashfs = |medium: &Medium| bytes(&medium.iso.path, &medium.squashfs);
        assert!(squashfs(&medium) == squashfs(&pulled), "{text}");
        if name != "legacy" {
            assert!(std::fs::read(&medium.iso.path).unwrap() == whole, "{text}: layers of the same digests");
        }
        assert!(built.build(&place.open(text).unwrap()).unwrap().reused, "{text}");
    }
}

#[test]
fn layouts_that_umoci_changed_and_tar_packed() {
    let (place, sample) = prepared("umoci");
    let layout = place.path("src");
    let image = |tag: &str| format!("{}:{tag}", layout.display());
    tool("umoci", &["tag", "--image", &image("it"), "second"]);
    tool("umoci", &["config", "--image", &image("second"), "--tag", "third", "--config.user", "nobody"]);
    for tag in ["it", "second", "third"] {
        assert!(tars(&place.open(&format!("oci:~/src:{tag}")).unwrap()) == sample.tars, "{tag}");
    }
    let line = place.refusal("oci:~/src");
    assert!(line.contains("it holds several images") && line.contains("third"), "{line}");
    let root = layout.to_str().unwrap();
    let pack = |options: &[&str], name: &str| {
        let archive = place.path(name);
        tool("tar", &[&["-C", root, "-cf", archive.to_str().unwrap()], options, &["."]].concat());
    };
    pack(&[], "gnu.tar");
    pack(&["--format=pax"], "pax.tar");
    pack(&["--format=v7"], "v7.tar");
    pack(&["-z"], "gnu.tgz");
    pack(&["--zstd"], "gnu.tzst");
    for name in ["gnu.tar", "pax.tar", "v7.tar", "gnu.tgz", "gnu.tzst"] {
        assert!(tars(&place.open(&format!("file:~/{name}:third")).unwrap()) == sample.tars, "{name}");
    }
    let holes = std::fs::File::create(layout.join("holes")).unwrap();
    holes.set_len(1 << 20).unwrap();
    pack(&["--sparse"], "sparse.tar");
    let line = place.refusal("file:~/sparse.tar:third");
    assert!(line.ends_with(r#""./holes" is stored as a sparse file; write the archive without --sparse"#), "{line}");
    assert!(Command::new("umoci").args(["ls", "--layout", root]).status().unwrap().success());
}

/// As `docker save a b` and `podman save --multi-image-archive a b` write them.
#[test]
fn what_daemons_save_is_read_by_name() {
    let place = Place::new("saved");
    for (daemon, engine) in [("docker", &*DOCKER), ("podman", &*PODMAN)] {
        let (path, socket) = (place.path(&format!("{daemon}.tar")), engine.socket.to_str().unwrap());
        let url = "http://localhost/images/get?names=docker.io/sample/it:v1&names=docker.io/sample/arm:v1";
        tool("curl", &["-sSf", "--unix-socket", socket, "-o", path.to_str().unwrap(), url]);
        let text = |name: &str| format!("docker-archive:~/{daemon}.tar:{name}");
        let expected: Vec<&[u8]> = engine.image.layers.iter().map(|layer| layer.bytes.as_slice()).collect();
        for name in ["sample/it:v1", "docker.io/sample/it:v1"] {
            let image = place.open(&text(name)).unwrap_or_else(|error| panic!("{daemon}: {error}"));
            assert!(tars(&image) == expected, "{daemon}, {name}");
        }
        let spooled = place.spool(&mut std::fs::File::open(&path).unwrap(), Some("sample/it:v1")).unwrap();
        assert!(tars(&spooled.image(&place.cache()).unwrap()) == expected, "{daemon} as a stream");
        let line = place.refusal(&text("sample/arm:v1"));
        assert!(line.contains("the image is for linux/arm64, but linux/amd64 is wanted"), "{line}");
        let line = place.refusal(&format!("docker-archive:~/{daemon}.tar"));
        assert!(line.contains("it holds several images") && line.contains("sample/it:v1"), "{line}");
    }
}
