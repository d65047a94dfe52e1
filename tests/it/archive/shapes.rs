//! Every shape of archive, as a directory, a plain file, a compressed one, and a stream.

use auroraboot::rootfs::LayerSource;
use auroraboot::source::Compression;
use auroraboot::units::Arch;
use serde_json::json;

use super::sample::{Sample, bytes, compress, index, layout_entries, write_layout};
use super::{Place, tars};
use crate::rootfs::layers::{TestEntry, digest, file, hard_link, tar};

fn named_layout(sample: &Sample, tag: &str) -> Vec<TestEntry> {
    layout_entries(&sample.blobs(), &[sample.entry(&[("org.opencontainers.image.ref.name", tag)])])
}

#[test]
fn every_shape_gives_the_same_layers() {
    let (place, sample) = (Place::new("shapes"), Sample::new());
    let stored: Vec<_> = sample.stored().iter().map(|blob| digest(blob)).collect();
    let diff_ids: Vec<_> = sample.tars.iter().map(|tar| digest(tar)).collect();
    let shapes = [
        ("layout", named_layout(&sample, "v1"), "v1", &stored),
        ("legacy", sample.legacy("x/y:v1"), "x/y:v1", &diff_ids),
        ("modern", sample.modern("y:v1"), "y:v1", &stored),
        ("skopeo", sample.skopeo("localhost:5000/x/y:v1"), "localhost:5000/x/y:v1", &diff_ids),
    ];
    for (shape, members, name, digests) in shapes {
        let plain = tar(&members);
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let file_name = format!("{shape}-{compression:?}.tar");
            place.write(&file_name, &compress(&plain, compression));
            for text in [format!("file:~/{file_name}"), format!("oci-archive:~/{file_name}:{name}")] {
                let image = place.open(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
                assert!(tars(&image) == sample.tars, "{text}");
                let told: Vec<_> = (0..image.count()).map(|layer| image.digest(layer)).collect();
                assert_eq!((&told, &image.diff_ids), (digests, &diff_ids), "{text}");
            }
        }
        let before = place.blobs();
        let spooled = place.spool(&mut &plain[..], Some(name)).unwrap();
        assert_eq!(spooled.diff_ids, diff_ids);
        assert!(tars(&spooled.image(&place.cache()).unwrap()) == sample.tars, "{shape} as a stream");
        assert_eq!(place.blobs(), before, "the compressed file left the same in the cache");
    }
    write_layout(&place.path("dir"), &named_layout(&sample, "v1"));
    for text in ["oci:~/dir", "oci:~/dir:v1", "file:~/dir:v1"] {
        assert!(tars(&place.open(text).unwrap()) == sample.tars, "{text}");
    }
}

#[test]
fn what_can_be_read_in_place_is_not_copied() {
    let (place, sample) = (Place::new("in-place"), Sample::new());
    place.write("modern.tar", &tar(&sample.modern("y:v1")));
    write_layout(&place.path("dir"), &named_layout(&sample, "v1"));
    for text in ["oci-archive:~/modern.tar", "docker-archive:~/modern.tar", "oci:~/dir"] {
        let image = place.open(text).unwrap();
        assert!(tars(&image) == sample.tars, "{text}");
        assert_eq!(place.blobs(), [""; 0], "{text}");
    }
}

/// A `docker save` of today is two archives in one; by the list of Docker its layers go by their diff_ids.
#[test]
fn docker_archive_means_dockers_list() {
    let (place, sample) = (Place::new("both"), Sample::new());
    place.write("modern.tar", &tar(&sample.modern("y:v1")));
    let image = place.open("docker-archive:~/modern.tar:y:v1").unwrap();
    let told: Vec<_> = (0..image.count()).map(|layer| image.digest(layer)).collect();
    assert_eq!(told, image.diff_ids);
    assert!(tars(&image) == sample.tars);
    assert_ne!(image.manifest.digest, digest(&sample.manifest()));
    assert_eq!(place.open("oci-archive:~/modern.tar:y:v1").unwrap().manifest.digest, digest(&sample.manifest()));
}

/// As `tar` itself would store a layer that the file system has under two names.
#[test]
fn layers_may_be_hard_links_and_names_may_begin_with_a_dot() {
    let (place, sample) = (Place::new("links"), Sample::other("amd64", "one"));
    let mut members = sample.skopeo("x:v1");
    members.retain(|member| member.kind == b'0');
    let (layer, copy) = (members[0].path.clone(), [b"./copy-", &members[0].path[..]].concat());
    members[0].path = copy.clone();
    members.insert(1, hard_link(&layer, &copy));
    for member in &mut members {
        member.path = [b"./", &member.path[..]].concat();
    }
    let archive = tar(&members);
    place.write("links.tar", &archive);
    assert!(tars(&place.open("docker-archive:~/links.tar:x:v1").unwrap()) == sample.tars);
    assert!(tars(&place.spool(&mut &archive[..], None).unwrap().image(&place.cache()).unwrap()) == sample.tars);
}

#[test]
fn of_several_images_one_is_taken_by_name_digest_or_number() {
    let place = Place::new("several");
    let samples = ["one", "two", "three"].map(|content| Sample::other("amd64", content));
    let names = ["docker.io/library/a:v1", "v2", "localhost/c:v3"];
    let entries: Vec<_> = samples
        .iter()
        .zip(names)
        .map(|(sample, name)| sample.entry(&[("org.opencontainers.image.ref.name", name)]))
        .collect();
    let blobs: Vec<_> = samples.iter().flat_map(Sample::blobs).collect();
    let members = layout_entries(&blobs, &entries);
    write_layout(&place.path("dir"), &members);
    place.write("oci.tar", &tar(&members));
    let mut docker = Vec::new();
    let mut list = Vec::new();
    for (sample, name) in samples.iter().zip(["a:v1", "b:v2", "localhost:5000/c:v3"]) {
        let mut members = sample.skopeo(name);
        let own = members.pop().unwrap();
        list.extend(serde_json::from_slice::<Vec<serde_json::Value>>(&own.data).unwrap());
        docker.extend(members);
    }
    list[1]["RepoTags"] = json!(null);
    docker.push(file("manifest.json", bytes(&json!(list))));
    docker.dedup_by(|a, b| a.path == b.path);
    place.write("docker.tar", &tar(&docker));
    place.write("docker.tar.gz", &compress(&tar(&docker), Compression::Gzip));

    let id = |sample: &Sample| digest(&sample.config());
    let manifest = |sample: &Sample| digest(&sample.manifest());
    let rows = [
        (0, format!("oci:~/dir:{}", names[0])),
        (0, "oci:~/dir:a:v1".to_owned()),
        (1, "oci:~/dir:v2".to_owned()),
        (2, "oci-archive:~/oci.tar:localhost/c:v3".to_owned()),
        (1, format!("oci-archive:~/oci.tar@{}", manifest(&samples[1]))),
        (2, "oci-archive:~/oci.tar:@2".to_owned()),
        (0, "docker-archive:~/docker.tar:a:v1".to_owned()),
        (0, "docker-archive:~/docker.tar:docker.io/library/a:v1".to_owned()),
        (1, "docker-archive:~/docker.tar:@1".to_owned()),
        (1, format!("docker-archive:~/docker.tar@{}", id(&samples[1]))),
        (2, "docker-archive:~/docker.tar.gz:localhost:5000/c:v3".to_owned()),
    ];
    for (number, text) in rows {
        let image = place.open(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert!(tars(&image) == samples[number].tars, "{text}");
    }
    let several = "it holds several images; put the name of one behind the path: ";
    let here = place.scratch.0.display();
    assert_eq!(
        place.refusal("oci:~/dir"),
        format!("cannot use oci:{here}/dir: {several}docker.io/library/a:v1, v2, localhost/c:v3")
    );
    assert_eq!(
        place.refusal("docker-archive:~/docker.tar"),
        format!("cannot use docker-archive:{here}/docker.tar: {several}a:v1, @1, localhost:5000/c:v3")
    );
    let absent = place.refusal("oci-archive:~/oci.tar:v9");
    assert!(
        absent.ends_with(r#"it holds no image "v9"; there is docker.io/library/a:v1, v2, localhost/c:v3"#),
        "{absent}"
    );
    let unknown = format!("oci:~/dir@{}", digest(b"unknown"));
    for text in ["docker-archive:~/docker.tar:@3", "docker-archive:~/docker.tar:v2", "oci:~/dir:@7", &unknown] {
        assert!(place.refusal(text).contains("it holds no image"), "{text}");
    }
    // What is not wanted leaves nothing.
    assert_eq!(place.blobs().len(), 3, "layer, configuration and manifest: {:?}", place.blobs());
}

#[test]
fn an_architecture_is_found_through_nested_indexes() {
    let place = Place::new("arch");
    let (pc, arm) = (Sample::other("amd64", "pc"), Sample::other("arm64", "arm"));
    let platform = |sample: &Sample| {
        let mut entry = sample.entry(&[]);
        entry["platform"] = json!({"architecture": sample.arch, "os": "linux"});
        entry
    };
    let attestation = {
        let mut entry = Sample::other("unknown", "sbom").entry(&[]);
        entry["platform"] = json!({"architecture": "unknown", "os": "unknown"});
        entry
    };
    let inner = index(&[attestation, platform(&pc), platform(&arm)]);
    let nested = index(&[super::sample::descriptor(super::sample::INDEX, &inner)]);
    let blobs = [pc.blobs(), arm.blobs(), vec![inner.clone(), nested.clone()]].concat();
    let of = |top: &[u8]| layout_entries(&blobs, &[super::sample::descriptor(super::sample::INDEX, top)]);
    write_layout(&place.path("inner"), &of(&inner));
    write_layout(&place.path("nested"), &of(&nested));
    write_layout(&place.path("flat"), &layout_entries(&blobs, &[platform(&pc), platform(&arm)]));
    write_layout(&place.path("plain"), &layout_entries(&blobs, &[pc.entry(&[]), arm.entry(&[])]));
    for layout in ["inner", "nested", "flat"] {
        for (sample, arch) in [(&pc, Arch::Amd64), (&arm, Arch::Arm64)] {
            let image = place.open_for(&format!("oci:~/{layout}"), arch).unwrap_or_else(|e| panic!("{layout}: {e}"));
            assert!(tars(&image) == sample.tars, "{layout}, {arch}");
        }
    }
    let refusal = |layout: &str| place.open_for(&format!("oci:~/{layout}"), Arch::Riscv64).unwrap_err();
    for layout in ["inner", "nested"] {
        let line = refusal(layout);
        assert!(line.contains("there is no image for linux/riscv64"), "{line}");
    }
    assert!(refusal("inner").ends_with("there is one for linux/amd64, linux/arm64"), "{}", refusal("inner"));
    assert!(refusal("plain").contains("it holds several images"), "{}", refusal("plain"));
    let line = place.open_for(&format!("oci:~/plain@{}", digest(&pc.manifest())), Arch::Arm64).unwrap_err();
    assert!(
        line.ends_with("the image is for linux/amd64, but linux/arm64 is wanted; set arch, or name an image for arm64"),
        "{line}"
    );
    let docker = tar(&pc.legacy("x:v1"));
    place.write("docker.tar", &docker);
    let line = place.open_for("docker-archive:~/docker.tar", Arch::Arm64).unwrap_err();
    assert!(line.contains("the image is for linux/amd64"), "{line}");
}

#[test]
fn one_name_may_stand_for_one_image_of_each_architecture() {
    let place = Place::new("per-arch");
    let samples = [Sample::other("amd64", "pc"), Sample::other("arm64", "arm")];
    let mut members = Vec::new();
    let mut list = Vec::new();
    for sample in &samples {
        let mut own = sample.skopeo("x:v1");
        list.extend(serde_json::from_slice::<Vec<serde_json::Value>>(&own.pop().unwrap().data).unwrap());
        members.extend(own);
    }
    members.push(file("manifest.json", bytes(&json!(list))));
    place.write("x.tar", &tar(&members));
    for (sample, arch) in samples.iter().zip([Arch::Amd64, Arch::Arm64]) {
        assert!(tars(&place.open_for("docker-archive:~/x.tar:x:v1", arch).unwrap()) == sample.tars, "{arch}");
    }
    let line = place.open_for("docker-archive:~/x.tar:x:v1", Arch::Riscv64).unwrap_err();
    assert!(line.contains("several images"), "{line}");
    let line = place.refusal("docker-archive:~/x.tar");
    assert!(line.ends_with("put the name of one behind the path: @0, @1"), "{line}");
}
