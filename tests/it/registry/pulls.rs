//! From the real registry: formats, architectures, the cache, TLS, what is not there.

use std::sync::Mutex;

use auroraboot::source::registry::recall;
use auroraboot::source::{Compression, fetch, progress, pull, resolve};
use auroraboot::units::Arch;

use super::real::{Blob, Guard, Image, RealRegistry, TAR, TAR_GZIP, TAR_ZSTD, TempDir, noise, tar};
use super::{Puller, read, shared};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::read::GzEncoder::new(bytes, flate2::Compression::fast());
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut encoder, &mut out).unwrap();
    out
}

/// Three layers in the three encodings; the last two are the same blob.
fn image(arch: &str) -> Image {
    let plain = tar("plain", &noise(300_000, 1));
    let zipped = gzip(&tar("zipped", &noise(2_000_000, 2)));
    let zstd = zstd::encode_all(&tar("zstd", &noise(700_000, 3))[..], 1).unwrap();
    let layers = vec![Blob::new(TAR, plain), Blob::new(TAR_GZIP, zipped), Blob::new(TAR_ZSTD, zstd)];
    let again = layers[2].clone();
    Image::new(arch, layers.into_iter().chain([again]).collect())
}

#[test]
fn every_encoding_by_tag_and_by_digest_and_a_second_run_without_the_registry() {
    let mut registry = RealRegistry::start("formats", Guard::default());
    let image = image("amd64");
    registry.push(&image.layout(&registry.dir), "kairos/img:v1");
    let puller = Puller::new("formats");

    let by_tag = registry.name("kairos/img:v1");
    let manifest = puller.resolve(&by_tag).unwrap();
    assert_eq!(manifest.digest, image.top().digest());
    let compressions: Vec<_> = manifest.layers.iter().map(|layer| layer.compression).collect();
    assert_eq!(compressions, [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Zstd]);
    puller.pull_and_compare(&by_tag, &image);

    registry.stop();
    let by_digest = registry.name(&format!("kairos/img@{}", image.top().digest()));
    puller.pull_and_compare(&by_digest, &image);
    let refused = puller.refusal(&by_tag);
    assert!(refused.contains("refuses the connection") && refused.contains("kairos/img:v1"), "{refused}");

    assert_eq!(puller.cache().prune().unwrap().files, 0, "all of it belongs to the image");
    puller.pull_and_compare(&by_digest, &image);
}

#[test]
fn an_index_yields_the_wanted_architecture_or_says_what_there_is() {
    let registry = RealRegistry::start("index", Guard::default());
    let (amd64, arm64) = (image("amd64"), Image::new("arm64", vec![Blob::new(TAR, tar("arm", b"64"))]));
    let index = Image::index(&[("amd64", &amd64), ("arm64", &arm64)]);
    registry.push(&index.layout(&registry.dir), "multi:latest");
    let name = registry.name("multi");

    let mut puller = Puller::new("index");
    assert_eq!(puller.resolve(&name).unwrap().digest, amd64.top().digest());
    puller.arch = Arch::Arm64;
    puller.pull_and_compare(&name, &arm64);
    puller.arch = Arch::Riscv64;
    let refused = puller.refusal(&name);
    assert!(refused.contains("linux/riscv64") && refused.contains("linux/arm64, linux/amd64"), "{refused}");
}

#[test]
fn a_single_image_of_another_architecture_is_refused_by_both_names() {
    let registry = RealRegistry::start("arch", Guard::default());
    let image = image("arm64");
    registry.push(&image.layout(&registry.dir), "arm:1");
    let refused = Puller::new("arch").refusal(&registry.name("arm:1"));
    assert!(
        refused.contains("linux/arm64") && refused.contains("linux/amd64") && refused.contains("arm:1"),
        "{refused}"
    );
}

#[test]
fn what_is_not_there_is_named() {
    let registry = RealRegistry::start("missing", Guard::default());
    registry.push(&image("amd64").layout(&registry.dir), "img:v1");
    let puller = Puller::new("missing");
    for name in [registry.name("img:v2"), registry.name("other:v1")] {
        let refused = puller.refusal(&name);
        assert!(refused.contains(&name) && refused.contains("not in its registry"), "{refused}");
    }
}

#[test]
fn tls_is_verified_unless_told_otherwise() {
    let registry = RealRegistry::start("tls", Guard { tls: true, ..Guard::default() });
    let image = image("amd64");
    registry.push(&image.layout(&registry.dir), "img:v1");
    let name = registry.name("img:v1");

    let mut puller = Puller::new("tls");
    let refused = puller.refusal(&name);
    assert!(!puller.resolve(&name).unwrap_err().is_unreachable(), "somebody else answers: never a reason to go on");
    assert!(refused.contains("ca_file") && refused.contains("allow-insecure-registries"), "{refused}");
    puller.settings.ca_file = Some(registry.ca());
    puller.pull_and_compare(&name, &image);

    let mut puller = Puller::new("tls-insecure");
    puller.settings.allow_insecure = true;
    puller.pull_and_compare(&name, &image);
}

#[test]
fn a_ca_file_that_is_none_is_refused_before_anything_is_asked() {
    let dir = TempDir::new("ca-file");
    for (path, part) in [(dir.path().join("missing.pem"), "cannot read"), (dir.write("empty.pem", "x"), "no PEM")] {
        let mut settings = Puller::new("ca-file").settings;
        settings.ca_file = Some(path.clone());
        let error = auroraboot::source::Client::new(settings).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(&path.display().to_string()), "{error}");
    }
}

#[test]
fn damage_in_the_cache_is_repaired_by_itself() {
    let registry = RealRegistry::start("damage", Guard::default());
    let image = image("amd64");
    registry.push(&image.layout(&registry.dir), "img:v1");
    let name = registry.name("img:v1");
    let puller = Puller::new("damage");
    puller.pull_and_compare(&name, &image);

    let blobs = puller.state.path().join("blobs/sha256");
    let of = |index: usize| blobs.join(image.layers[index].digest().hex());
    let mut altered = image.layers[0].bytes.clone();
    altered[1000] ^= 1;
    std::fs::write(of(0), altered).unwrap();
    std::fs::write(of(1), &image.layers[1].bytes[..1000]).unwrap();
    std::fs::remove_file(of(2)).unwrap();
    puller.pull_and_compare(&name, &image);
    assert!(std::fs::read(of(0)).unwrap() == image.layers[0].bytes, "the repaired blob is kept");
}

#[test]
fn what_a_killed_run_left_is_continued_only_if_it_is_right() {
    let registry = RealRegistry::start("parts", Guard::default());
    let image = image("amd64");
    registry.push(&image.layout(&registry.dir), "img:v1");
    let puller = Puller::new("parts");
    let blobs = puller.state.path().join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let part = |index: usize| blobs.join(image.layers[index].digest().hex()).with_extension("part");
    std::fs::write(part(0), &image.layers[0].bytes[..100_000]).unwrap();
    std::fs::write(part(1), vec![0; 1_000_000]).unwrap();
    std::fs::write(part(2), vec![0; 10_000_000]).unwrap();
    puller.pull_and_compare(&registry.name("img:v1"), &image);
    assert!((0..3).all(|index| !part(index).exists()));
}

#[test]
fn progress_is_told_to_the_end() {
    let registry = RealRegistry::start("progress", Guard::default());
    let image = image("amd64");
    registry.push(&image.layout(&registry.dir), "img:v1");
    let puller = Puller::new("progress");
    let session = puller.registry(&registry.name("img:v1"));
    let cache = puller.cache();
    let manifest = resolve(&session, Arch::Amd64, &cache).unwrap();
    let lines = shared(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let mut shown = progress::Progress::new(progress::DOWNLOAD, progress::Style::Lines);
    let observer = Box::new(move |now, state| sink.lock().unwrap().extend(shown.update(now, state)));
    let layers = fetch(session, &manifest, &cache, &pull::top_first(&manifest), observer).unwrap();
    layers.wait().unwrap();
    let total = layers.transferred();
    assert_eq!((total.here, total.fetched), (manifest.total_size(), manifest.total_size()));
    assert!(read(&layers, 1).is_ok());
    drop(layers);
    let lines = lines.lock().unwrap();
    assert!(lines.first().unwrap().starts_with("Downloading:"), "{lines:?}");
    assert!(lines.last().unwrap().starts_with("Downloaded 3.1 MB in 0:0"), "{lines:?}");
}

#[test]
fn what_a_tag_was_is_recalled_for_its_architecture_and_only_when_the_registry_is_out_of_reach() {
    let mut registry = RealRegistry::start("recall", Guard::default());
    let (amd64, arm64) = (image("amd64"), Image::new("arm64", vec![Blob::new(TAR, tar("arm", b"64"))]));
    let index = Image::index(&[("amd64", &amd64), ("arm64", &arm64)]);
    registry.push(&index.layout(&registry.dir), "multi:v1");
    let name = registry.name("multi:v1");
    let puller = Puller::new("recall");
    let recalled = |arch| recall(&name.parse().unwrap(), arch, &puller.cache());
    assert!(recalled(Arch::Amd64).is_none());
    let resolved = puller.resolve(&name).unwrap();
    assert!(!puller.resolve(&registry.name("multi:v2")).unwrap_err().is_unreachable(), "the registry says no");

    registry.stop();
    assert!(puller.resolve(&name).unwrap_err().is_unreachable());
    let (image, when) = recalled(Arch::Amd64).unwrap();
    assert_eq!((image.digest, image.layers), (resolved.digest, resolved.layers));
    assert!(when.unwrap().elapsed().unwrap() < std::time::Duration::from_secs(600));
    assert!(recalled(Arch::Arm64).is_none(), "it was never asked for");
    std::fs::write(puller.cache().path(&image.digest), "damaged").unwrap();
    assert!(recalled(Arch::Amd64).is_none(), "only what has its digest is gone on with");
}
