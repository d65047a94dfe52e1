//! Broken and hostile archives: one clear line for each, and never a wrong byte.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::symlink as link;
use std::process::Command;

use auroraboot::limits;
use auroraboot::source::Compression;
use serde_json::{Value, json};

use super::sample::{Sample, bytes, compress, descriptor, index, layout_entries, write_layout};
use super::{Place, tar_of, tars};
use crate::rootfs::layers::{TestEntry, block, digest, directory, entry, file, gzip, hard_link, symlink, tar};

fn layout(sample: &Sample) -> Vec<TestEntry> {
    layout_entries(&sample.blobs(), &[sample.entry(&[])])
}

fn without(mut members: Vec<TestEntry>, end: &str) -> Vec<TestEntry> {
    let before = members.len();
    members.retain(|member| !member.path.ends_with(end.as_bytes()));
    assert_ne!(members.len(), before, "{end}");
    members
}

impl Place {
    /// What is said of an archive, which must be the same whether it is read in place, compressed or as a stream.
    fn says(&self, members: &[TestEntry]) -> String {
        let archive = tar(members);
        self.write("x.tar", &archive);
        self.write("x.tar.gz", &gzip(&archive));
        let said = |text: &str| self.refusal(text).split_once(": ").unwrap().1.to_owned();
        let plain = said("file:~/x.tar");
        assert_eq!(said("file:~/x.tar.gz"), plain, "compressed");
        assert_eq!(self.spool(&mut &archive[..], None).unwrap_err(), plain, "as a stream");
        assert_eq!(self.blobs(), [""; 0], "{plain}");
        plain
    }
}

#[test]
fn what_is_missing_is_named() {
    let (place, sample) = (Place::new("missing"), Sample::new());
    let missing =
        |path: &str| format!("{path} is not there, though the archive's own list names it; the archive is incomplete");
    let path = |blob: &[u8]| format!("blobs/sha256/{}", digest(blob).hex());
    for blob in [&sample.manifest(), &sample.config(), &sample.stored()[1]] {
        let path = path(blob);
        assert_eq!(place.says(&without(layout(&sample), &path)), missing(&path));
    }
    let legacy = sample.legacy("x:v1");
    let config = format!("{}.json", digest(&sample.config()).hex());
    assert_eq!(place.says(&without(legacy.clone(), &config)), missing(&config));
    // The layer that a link points to.
    let id = String::from_utf8(legacy.iter().find(|member| member.kind == b'2').unwrap().path.clone()).unwrap();
    let mut gone = legacy.clone();
    let target = digest(b"0").hex()[1..].to_owned();
    gone.retain(|member| !String::from_utf8_lossy(&member.path).contains(&format!("{target}/layer.tar")));
    assert!([missing(&id), missing(&format!("f{target}/layer.tar"))].contains(&place.says(&gone)));
    let neither = "it holds neither index.json nor manifest.json: it is no image archive, or is cut off";
    assert_eq!(place.says(&without(layout(&sample), "index.json")), neither);
    assert_eq!(place.says(&without(legacy, "manifest.json")), neither);
    assert_eq!(place.says(&[]), neither);
}

#[test]
fn what_is_altered_is_not_given_out() {
    let (place, sample) = (Place::new("altered"), Sample::new());
    let alter = |members: &mut Vec<TestEntry>, blob: &[u8], change: &dyn Fn(&mut Vec<u8>)| {
        let member = members.iter_mut().find(|member| member.data == blob).unwrap();
        change(&mut member.data);
    };
    let flip = |data: &mut Vec<u8>| {
        let middle = data.len() / 2;
        data[middle] ^= 4;
    };
    for document in [sample.manifest(), sample.config()] {
        let mut members = layout(&sample);
        alter(&mut members, &document, &flip);
        let line = place.says(&members);
        assert!(line.starts_with("blobs/sha256/") && line.contains("damaged, or was altered"), "{line}");
    }
    for layer in 0..2 {
        let (mut oci, mut docker) = (layout(&sample), sample.legacy("x:v1"));
        alter(&mut oci, &sample.stored()[layer], &flip);
        alter(&mut docker, &sample.tars[layer], &flip);
        for members in [oci, docker] {
            let archive = tar(&members);
            place.write("x.tar", &archive);
            let image = place.open("file:~/x.tar").unwrap();
            let line = tar_of(&image, layer).unwrap_err();
            assert!(line.contains("damaged, or was altered") || line.contains("corrupt"), "{line}");
            let line = place.spool(&mut &archive[..], None).unwrap_err();
            assert!(line.contains("damaged, or was altered"), "{line}");
        }
    }
    let mut members = layout(&sample);
    alter(&mut members, &sample.stored()[1], &|data| data.push(0));
    place.write("x.tar", &tar(&members));
    let line = place.refusal("file:~/x.tar");
    assert!(line.contains(" bytes instead of "), "{line}");
    assert_eq!(place.blobs(), [""; 0]);
}

#[test]
fn of_two_members_with_one_name_the_last_counts_but_lists_are_unique() {
    let (place, sample) = (Place::new("twice"), Sample::new());
    for members in [layout(&sample), sample.legacy("x:v1"), sample.modern("x:v1")] {
        let name =
            if members.iter().any(|member| member.path == b"index.json") { "index.json" } else { "manifest.json" };
        let again = file(name, "[]");
        assert_eq!(
            place.says(&[members.clone(), vec![again]].concat()),
            format!("it has {name:?} twice; nobody can say which one counts")
        );
    }
    let layer = |members: &[TestEntry]| members.iter().position(|member| member.data == sample.tars[1]).unwrap();
    let good = sample.legacy("x:v1");
    let evil = TestEntry { data: tar(&[file("evil", vec![1; 200_000])]), ..good[layer(&good)].clone() };
    let mut first = good.clone();
    first.insert(0, evil.clone());
    place.write("first.tar", &tar(&first));
    assert!(tars(&place.open("docker-archive:~/first.tar").unwrap()) == sample.tars);
    let spooled = place.spool(&mut &tar(&first)[..], None).unwrap();
    assert!(tars(&spooled.image(&place.cache()).unwrap()) == sample.tars);
    let mut last = good;
    last.push(evil);
    place.write("last.tar", &tar(&last));
    assert!(tar_of(&place.open("docker-archive:~/last.tar").unwrap(), 1).unwrap_err().contains("has the digest"));
    assert!(place.spool(&mut &tar(&last)[..], None).unwrap_err().contains("has the digest"));
}

#[test]
fn names_and_links_stay_inside() {
    let (place, sample) = (Place::new("outside"), Sample::new());
    let base = sample.legacy("x:v1");
    let with = |member: TestEntry| [vec![member], base.clone()].concat();
    let outside = |name: &str| format!("the member {name:?} leads out of the archive");
    for name in ["/tmp/x", "../x", "a/../../x"] {
        assert_eq!(place.says(&with(file(name, "x"))), outside(name));
        assert_eq!(place.says(&with(symlink("a/layer.tar", format!("../../{name}")))), outside("a/layer.tar"));
        assert_eq!(place.says(&with(hard_link("a/layer.tar", format!("/{name}")))), outside("a/layer.tar"));
    }
    let listing = |layer: &str| {
        let mut members = base.clone();
        let list = members.iter_mut().find(|member| member.path == b"manifest.json").unwrap();
        let mut value: Value = serde_json::from_slice(&list.data).unwrap();
        value[0]["Layers"][1] = json!(layer);
        list.data = bytes(&value);
        members
    };
    assert_eq!(place.says(&listing("../../../etc/shadow")), outside("../../../etc/shadow"));
    let mut pipe = listing("pipe");
    pipe.push(entry("pipe", b'6'));
    assert_eq!(place.says(&pipe), r#""pipe" is neither a file nor a link to one"#);
    let mut circle = listing("a");
    circle.extend([symlink("a", "b"), symlink("b", "a")]);
    assert_eq!(place.says(&circle), "links followed to one file: more than the limit of 16");
    assert!(place.says(&listing("blobs")).starts_with("blobs is not there"));
}

#[test]
fn a_layout_is_not_left_by_links() {
    let (place, sample) = (Place::new("escape"), Sample::new());
    let root = place.path("dir");
    let blob = root.join("blobs/sha256").join(digest(&sample.stored()[1]).hex());
    let fresh = || {
        let _ = fs::remove_dir_all(&root);
        write_layout(&root, &layout(&sample));
    };
    let outside = place.write("outside", &sample.stored()[1]);
    fresh();
    fs::remove_file(&blob).unwrap();
    link(&outside, &blob).unwrap();
    assert!(
        place
            .refusal("oci:~/dir")
            .ends_with("is a symbolic link out of the layout's directory; copy what it points to")
    );
    fs::remove_file(&blob).unwrap();
    fs::copy(&outside, root.join("elsewhere")).unwrap();
    link("../../elsewhere", &blob).unwrap();
    assert!(tars(&place.open("oci:~/dir").unwrap()) == sample.tars, "inside it may be a link");
    fs::remove_file(&blob).unwrap();
    assert!(Command::new("mkfifo").arg(&blob).status().unwrap().success());
    assert!(place.refusal("oci:~/dir").ends_with("is neither a file nor a link to one"));
    fresh();
    fs::rename(root.join("blobs"), place.path("moved")).unwrap();
    link(place.path("moved"), root.join("blobs")).unwrap();
    assert!(place.refusal("oci:~/dir").contains("is a symbolic link out of the layout's directory"));
    // The file may go, or become another, between opening and reading.
    fresh_image_is_verified(&place, &sample);
    assert!(place.refusal("oci:~/nowhere").ends_with("nowhere: No such file or directory (os error 2)"));
    assert!(Command::new("mkfifo").arg(place.path("pipe")).status().unwrap().success());
    assert!(place.refusal("file:~/pipe").contains("is neither a file nor a link to one"));
}

fn fresh_image_is_verified(place: &Place, sample: &Sample) {
    let root = place.path("swapped");
    write_layout(&root, &layout(sample));
    let image = place.open("oci:~/swapped").unwrap();
    let blob = root.join("blobs/sha256").join(digest(&sample.stored()[2]).hex());
    let mut altered = fs::read(&blob).unwrap();
    altered[1000] ^= 1;
    fs::write(&blob, &altered).unwrap();
    assert!(tar_of(&image, 2).unwrap_err().contains("damaged, or was altered"));
    fs::write(&blob, &altered[..5000]).unwrap();
    assert!(tar_of(&image, 2).unwrap_err().contains("was cut while it was read"));
    fs::remove_file(&blob).unwrap();
    let line = tar_of(&image, 2).unwrap_err();
    assert!(line.contains(&digest(&sample.stored()[2]).hex()) && line.contains("No such file"), "{line}");
}

#[test]
fn what_is_no_image_archive_is_told_with_the_right_prefix() {
    let place = Place::new("others");
    let root = tar(&[directory("./"), file("./.dockerenv", ""), directory("./bin"), file("./bin/sh", "x")]);
    let mut iso = vec![0; 40_000];
    iso[32_769..32_774].copy_from_slice(b"CD001");
    let mut squashfs = b"hsqs".to_vec();
    squashfs.resize(4096, 0);
    let mut disk = vec![0xeb; 4096];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let rows: [(&[u8], &str); 8] = [
        (&root, "root file system; unpack it as root, and name the directory with dir:PATH"),
        (&iso, "it is an ISO image; the prefix iso: takes it"),
        (&squashfs, "it is a squashfs image; unpack it as root with unsquashfs, and name the directory with dir:PATH"),
        (&disk, "it is a disk image; name the container image or ISO that it was made from"),
        (b"QFI\xfb\0\0\0\x03", "it is a disk image (qcow2); name the container image or ISO that it was made from"),
        (b"\xfd7zXZ\0\0", "it is compressed with xz; unpack it with xz -d"),
        (b"hello", "it is neither a tar file, nor one compressed with gzip or zstd"),
        (b"", "it is empty"),
    ];
    for (content, said) in rows {
        place.write("x", content);
        let line = place.refusal("file:~/x");
        assert!(line.contains("it is no image archive: ") && line.ends_with(said), "{line}");
        place.write("x.zst", &compress(content, Compression::Zstd));
        let line = place.refusal("file:~/x.zst");
        assert!(line.contains("it is no image archive: ") && line.ends_with(said), "{line}");
    }
    place.write("x", &gzip(&gzip(&root)));
    assert!(place.refusal("file:~/x").ends_with("it is compressed twice"));
    fs::create_dir_all(place.path("root/etc")).unwrap();
    let line = place.refusal("oci:~/root");
    assert!(line.ends_with("the prefix dir: takes a directory as a root file system"), "{line}");
}

#[test]
fn a_cut_archive_never_ends_well() {
    let (place, sample) = (Place::new("cut"), Sample::other("amd64", "x"));
    for members in [layout(&sample), sample.legacy("x:v1")] {
        let archive = tar(&members);
        // Without the two empty blocks at its end nothing is lost.
        for at in (0..archive.len() - 1024).step_by(100) {
            place.write("x.tar", &archive[..at]);
            let line = place.refusal("file:~/x.tar");
            let known = ["cut off", "ends in the middle", "it is empty", "it is neither", "neither index.json"];
            assert!(known.iter().any(|words| line.contains(words)), "{at}: {line}");
            let line = place.spool(&mut &archive[..at], None).unwrap_err();
            assert!(known.iter().any(|words| line.contains(words)), "{at}: {line}");
        }
        for compression in [Compression::Gzip, Compression::Zstd] {
            let whole = compress(&archive, compression);
            for at in 0..whole.len() {
                place.write("x.tar.z", &whole[..at]);
                let _ = place.refusal("file:~/x.tar.z");
            }
            let mut wrong = whole.clone();
            let last = wrong.len() - 5;
            wrong[last] ^= 1;
            place.write("x.tar.z", &wrong);
            let _ = place.refusal("file:~/x.tar.z");
            assert_eq!(place.blobs(), [""; 0]);
        }
    }
}

#[test]
fn counts_and_sizes_are_bounded() {
    let place = Place::new("bounds");
    let many = Sample { arch: "amd64", tars: vec![tar(&[]); 10_000], compression: vec![Compression::None; 10_000] };
    let said = "it has 10000 layers; at most 512 are supported";
    assert_eq!(place.says(&layout_entries(&many.blobs(), &[many.entry(&[])])), said);
    assert_eq!(place.says(&many.skopeo("x:v1")), said);
    let different = (0..600).map(|n| tar(&[file(format!("{n}"), "x")])).collect();
    let different = Sample { arch: "amd64", tars: different, compression: vec![Compression::None; 600] };
    assert_eq!(place.says(&different.legacy("x:v1")), "it has 600 layers; at most 512 are supported");
    // Two million would be 1 GB: they are refused when the limit is passed.
    let mut one = Vec::new();
    block(&mut one, &file("x", ""), 0);
    let mut endless = Endless { block: one, at: 0, given: 0 };
    assert!(place.spool(&mut endless, None).unwrap_err().starts_with("members in the archive"));
    assert!(endless.given < (limits::ARCHIVE_MEMBERS_MAX * 512 + (1 << 20)) as u64);
}

/// One block without end.
struct Endless {
    block: Vec<u8>,
    at: usize,
    given: u64,
}

impl Read for Endless {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (&self.block[self.at..]).read(buffer)?;
        self.at = (self.at + count) % self.block.len();
        self.given += count as u64;
        Ok(count)
    }
}

#[test]
fn documents_are_bounded_before_they_are_read() {
    let place = Place::new("documents");
    let huge = |name: &str, size: u64| {
        let mut head = Vec::new();
        block(&mut head, &file(name, ""), usize::try_from(size).unwrap());
        head.push(b'[');
        let mut file = fs::File::create(place.path("huge.tar")).unwrap();
        file.write_all(&head).unwrap();
        file.set_len(512 + size + 1024).unwrap();
    };
    for name in ["index.json", "manifest.json"] {
        huge(name, 1 << 30);
        let said = format!("{name} has 1.1 GB; documents of at most 4.2 MB are read");
        assert!(place.refusal("file:~/huge.tar").ends_with(&said), "{}", place.refusal("file:~/huge.tar"));
        let mut stream = fs::File::open(place.path("huge.tar")).unwrap();
        assert_eq!(place.spool(&mut stream, None).unwrap_err(), said);
    }
    // A configuration that is no list, but as large.
    let sample = Sample::new();
    let mut members = sample.skopeo("x:v1");
    let config = members.iter_mut().find(|member| member.data == sample.config()).unwrap();
    config.data.resize(usize::try_from(limits::MANIFEST_BYTES_MAX).unwrap() + 1, b' ');
    let line = place.says(&members);
    assert!(line.ends_with("has 4.2 MB; documents of at most 4.2 MB are read"), "{line}");
}

#[test]
fn indexes_are_followed_so_far_and_no_further() {
    let place = Place::new("indexes");
    let sample = Sample::other("amd64", "deep");
    let mut blobs = sample.blobs();
    let mut top = sample.entry(&[]);
    let mut nested = |depth: usize| {
        for _ in 0..depth {
            let next = index(&[top.clone()]);
            top = descriptor(super::sample::INDEX, &next);
            blobs.push(next);
        }
        layout_entries(&blobs, &[top.clone()])
    };
    place.write("deep.tar", &tar(&nested(limits::ARCHIVE_INDEXES_NESTED_MAX)));
    assert!(tars(&place.open("oci-archive:~/deep.tar").unwrap()) == sample.tars);
    let line = place.says(&nested(1));
    assert!(line.starts_with("an index names another index"), "{line}");
    // One index of the next, all of them read for nothing.
    let others: Vec<Sample> =
        (0..limits::ARCHIVE_DOCUMENTS_MAX).map(|n| Sample::other("arm64", &n.to_string())).collect();
    let entries: Vec<Value> = others.iter().map(|other| other.entry(&[])).collect();
    let wide = index(&entries);
    let blobs: Vec<Vec<u8>> = others.iter().flat_map(Sample::blobs).chain([wide.clone()]).collect();
    let line = place.says(&layout_entries(&blobs, &[descriptor(super::sample::INDEX, &wide)]));
    assert_eq!(line, "documents read for one image: more than the limit of 1000");
    let list: Vec<Value> =
        vec![json!({"Config": "x", "RepoTags": null, "Layers": []}); limits::ARCHIVE_DOCUMENTS_MAX + 1];
    let too_many = index(&vec![sample.entry(&[]); limits::ARCHIVE_DOCUMENTS_MAX + 1]);
    assert_eq!(place.says(&[file("index.json", too_many)]), "images in the archive: more than the limit of 1000");
    assert_eq!(
        place.says(&[file("manifest.json", bytes(&json!(list)))]),
        "images in the archive: more than the limit of 1000"
    );
}

#[test]
fn documents_of_other_kinds_are_told() {
    let place = Place::new("kinds");
    let sample = Sample::other("amd64", "x");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut manifest: Value = serde_json::from_slice(&sample.manifest()).unwrap();
        change(&mut manifest);
        let manifest = bytes(&manifest);
        let blobs = [sample.stored(), vec![sample.config(), manifest.clone()]].concat();
        layout_entries(&blobs, &[descriptor(super::sample::MANIFEST, &manifest)])
    };
    let layer =
        |media_type: &'static str| move |manifest: &mut Value| manifest["layers"][0]["mediaType"] = json!(media_type);
    let foreign = |manifest: &mut Value| {
        manifest["layers"][0]["mediaType"] = json!("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip");
        manifest["layers"][0]["urls"] = json!(["https://example.com/x"]);
    };
    let rows: [(Vec<TestEntry>, &str); 7] = [
        (with(&layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip")), "layer 1 has the media type"),
        (with(&layer("")), "layer 1 has the media type"),
        (with(&foreign), "layer 1 may not be distributed"),
        (
            with(&|manifest| manifest["config"]["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json")),
            "it is not a container image",
        ),
        (with(&|manifest| manifest["schemaVersion"] = json!(1)), "it is an image of Docker's old schema 1"),
        (
            with(&|manifest| manifest["layers"] = json!([])),
            "the image's configuration lists 1 layers, but its manifest 0",
        ),
        (with(&|manifest| manifest["layers"] = json!(3)), "the manifest is not valid JSON of its kind"),
    ];
    for (members, said) in rows {
        let line = place.says(&members);
        assert!(line.starts_with(said), "{line}");
    }
    for (name, text, said) in [
        ("index.json", "{", "index.json is not valid JSON of its kind"),
        ("index.json", r#"{"manifests": []}"#, "its list of images is empty"),
        ("index.json", r#"{"manifests": [{"digest": "md5:1"}]}"#, "an image with the digest md5:1 is not there"),
        ("manifest.json", "[]", "its list of images is empty"),
        ("manifest.json", "[{}]", "manifest.json is not valid JSON of its kind"),
        ("manifest.json", &"[".repeat(100_000), "manifest.json is not valid JSON of its kind"),
    ] {
        let line = place.says(&[file(name, text)]);
        assert!(line.starts_with(said), "{line}");
    }
}

/// Whatever becomes of an archive: an error, or the right bytes.
#[test]
fn seeded_mutations_give_the_right_bytes_or_an_error() {
    let (place, sample) = (Place::new("mutations"), Sample::other("amd64", "x"));
    let shapes = [layout(&sample), sample.legacy("x:v1"), sample.modern("x:v1"), sample.skopeo("x:v1")];
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % bound as u64).unwrap()
    };
    let (mut good, mut bad) = (0, 0);
    for round in 0..1000 {
        let mut archive = tar(&shapes[round % shapes.len()]);
        for _ in 0..=random(3) {
            let at = random(archive.len() - 600);
            match random(5) {
                0 => archive[at] ^= 1 << random(8),
                1 => archive[at] = b"0123456789/.x\0\xff\""[random(16)],
                2 => drop(archive.drain(at..at + random(600))),
                3 => archive.copy_within(at..at + 512, at - at % 512),
                _ => {
                    let piece = archive[at..at + 512].to_vec();
                    let to = at - at % 512;
                    archive.splice(to..to, piece);
                }
            }
        }
        place.write("x.tar", &archive);
        let opened = [
            place.open("file:~/x.tar"),
            place.open("docker-archive:~/x.tar"),
            place.spool(&mut &archive[..], None).map(|spooled| spooled.image(&place.cache()).unwrap()),
        ];
        for image in opened.into_iter().flatten() {
            match tar_of(&image, 0) {
                Ok(tar) => {
                    assert!(tar == sample.tars[0], "round {round}");
                    good += 1;
                }
                Err(_) => bad += 1,
            }
        }
    }
    assert!(good > 100 && bad > 10, "{good} right, {bad} refused while they were read");
}
