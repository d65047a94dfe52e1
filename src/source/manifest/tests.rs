//! Tests of [`super`]: documents as registries really serve them.

use super::*;

const A: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const B: &str = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
const C: &str = "sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc";

fn index(manifests: &[(&str, &str)]) -> Index {
    let entries: Vec<String> = manifests
        .iter()
        .map(|(platform, digest)| format!(r#"{{"digest": "{digest}", "size": 1, "platform": {platform}}}"#))
        .collect();
    let text = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, entries.join(","));
    match parse(text.as_bytes()).unwrap() {
        Document::Index(index) => index,
        Document::Manifest(_) => panic!("an index"),
    }
}

fn manifest(layers: &str) -> Result<Vec<Layer>, Error> {
    let text = format!(
        r#"{{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {{"mediaType": "application/vnd.oci.image.config.v1+json", "digest": "{A}", "size": 2}},
            "layers": [{layers}]}}"#
    );
    match parse(text.as_bytes())? {
        Document::Manifest(manifest) => manifest.layers(),
        Document::Index(_) => panic!("a manifest"),
    }
}

fn layer(media_type: &str, size: u64) -> String {
    format!(r#"{{"mediaType": "{media_type}", "digest": "{B}", "size": {size}}}"#)
}

#[test]
fn an_exact_variant_is_preferred_and_attestations_are_no_images() {
    let index = index(&[
        (r#"{"architecture": "unknown", "os": "unknown"}"#, C),
        (r#"{"architecture": "amd64", "os": "linux", "variant": "v3"}"#, A),
        (r#"{"architecture": "amd64", "os": "linux"}"#, B),
        (r#"{"architecture": "arm64", "os": "windows"}"#, A),
        (r#"{"architecture": "arm64", "os": "linux", "variant": "v9"}"#, A),
        (r#"{"architecture": "arm64", "os": "linux", "variant": "v8"}"#, C),
    ]);
    assert_eq!(index.choose(Arch::Amd64).unwrap().to_string(), B);
    assert_eq!(index.choose(Arch::Arm64).unwrap().to_string(), C);
    let error = index.choose(Arch::Riscv64).unwrap_err().to_string();
    assert!(error.contains("linux/riscv64") && error.contains("linux/amd64/v3, linux/amd64,"), "{error}");
    assert!(!error.contains("unknown/unknown"), "{error}");
}

#[test]
fn documents_are_told_apart_by_media_type_and_shape() {
    assert!(matches!(parse(br#"{"schemaVersion": 1, "fsLayers": []}"#), Err(Error::Schema1)));
    assert!(matches!(parse(br#"{"mediaType": "application/x"}"#), Err(Error::NotAnImage(_))));
    assert!(matches!(parse(b"<html>"), Err(Error::Json { .. })));
    assert!(matches!(parse(b""), Err(Error::Json { .. })));
    let list = br#"{"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json", "manifests": []}"#;
    assert!(matches!(parse(list), Ok(Document::Index(_))));
    let artifact = format!(
        r#"{{"schemaVersion": 2, "artifactType": "application/vnd.x", "config": {{"digest": "{A}", "size": 2}}, "layers": []}}"#
    );
    assert!(matches!(parse(artifact.as_bytes()), Err(Error::NotAnImage(_))));
    let chart = format!(
        r#"{{"schemaVersion": 2, "config": {{"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": "{A}", "size": 2}}, "layers": []}}"#
    );
    let Ok(Document::Manifest(chart)) = parse(chart.as_bytes()) else { panic!("a manifest") };
    assert!(matches!(chart.config(), Err(Error::NotAnImage(_))));
}

#[test]
fn every_layer_media_type_of_docker_and_oci() {
    for (media_type, compression) in [
        ("application/vnd.docker.image.rootfs.diff.tar", Compression::None),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
        ("application/vnd.docker.image.rootfs.diff.tar.zstd", Compression::Zstd),
        ("application/vnd.oci.image.layer.v1.tar", Compression::None),
        ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
        ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Compression::Gzip),
    ] {
        assert_eq!(manifest(&layer(media_type, 7)).unwrap()[0].compression, compression, "{media_type}");
    }
    for media_type in [
        "",
        "text/plain",
        "application/vnd.oci.image.layer.v1.tar+xz",
        "application/vnd.oci.image.layer.v1.tar+encrypted",
    ] {
        assert!(matches!(manifest(&layer(media_type, 7)), Err(Error::MediaType { layer: 1, .. })), "{media_type}");
    }
    let foreign = format!(
        r#"{{"mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", "digest": "{B}", "size": 1, "urls": ["https://x/"]}}"#
    );
    assert!(matches!(manifest(&foreign), Err(Error::Foreign(1))));
}

#[test]
fn bounds_are_reached() {
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let many = |count: usize| vec![layer(tar, 1); count].join(",");
    assert_eq!(manifest(&many(limits::LAYERS_MAX)).unwrap().len(), limits::LAYERS_MAX);
    assert!(matches!(manifest(&many(limits::LAYERS_MAX + 1)), Err(Error::Layers(_))));
    assert!(manifest(&layer(tar, limits::LAYER_BYTES_MAX)).is_ok());
    assert!(matches!(manifest(&layer(tar, limits::LAYER_BYTES_MAX + 1)), Err(Error::LayerSize { .. })));
    assert!(manifest(&layer(tar, 0).replace("0}", "-1}")).is_err());
}

#[test]
fn a_single_image_of_another_architecture_names_both() {
    assert!(check_config(br#"{"architecture": "amd64", "os": "linux"}"#, Arch::Amd64).is_ok());
    let error = check_config(br#"{"architecture": "arm64", "os": "linux", "variant": "v8"}"#, Arch::Amd64).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("linux/arm64/v8") && text.contains("linux/amd64"), "{text}");
    assert!(check_config(br#"{"architecture": "amd64", "os": "windows"}"#, Arch::Amd64).is_err());
    assert!(check_config(b"1", Arch::Amd64).is_err());
}

#[test]
fn bytes_must_have_the_digest_they_were_asked_for_by() {
    let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855".parse().unwrap();
    assert!(verify("manifest", b"", empty).is_ok());
    assert!(matches!(verify("manifest", b"x", empty), Err(Error::Digest { .. })));
}

#[test]
fn a_layer_that_comes_twice_is_counted_once() {
    let layers = manifest(&vec![layer("application/vnd.oci.image.layer.v1.tar", 5); 2].join(",")).unwrap();
    let image = ImageManifest { digest: layers[0].digest, arch: Arch::Amd64, layers, documents: Vec::new() };
    assert_eq!(image.total_size(), 5);
    let line = summary(&"quay.io/a:1", &image);
    assert_eq!(line, "Image quay.io/a:1 for amd64: sha256:bbbbbbbbbbbb, 2 layers, 5 B");
}
