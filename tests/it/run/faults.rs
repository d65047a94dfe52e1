//! Images and disks that are not as they should be: one clear line, and the good ISO stays.

use super::*;
use crate::registry::real::noise;
use crate::rootfs::layers::{block, entry, gzip};

/// The names of the media, and when each was written.
fn media(site: &Site) -> Vec<(String, std::time::SystemTime)> {
    let mut files: Vec<_> = std::fs::read_dir(site.iso(""))
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().modified().unwrap()))
        .collect();
    files.sort();
    files
}

/// Runs with `registry` and expects one line that contains all of `words`; the good ISO is still the one in use.
fn refused(site: &Site, good: &str, name: &str, words: &[&str]) {
    let before = media(site);
    let outcome = site.build(name);
    let error = outcome.error();
    for word in words {
        assert!(error.contains(word), "{word:?} is not in {error:?}");
    }
    assert!(!outcome.said("panicked"), "{outcome:#?}");
    assert!(site.build(good).reused(), "after {error}");
    assert_eq!(media(site), before, "after {error}");
}

#[test]
fn images_that_cannot_boot_are_refused_in_one_line() {
    let site = Site::new("images");
    let good = image(&bootable());
    let registry = site.good_registry(&good);
    let good = pinned(&registry, &good);
    site.build(&good).succeeded();
    let whole = gzip(&tar(&bootable()));
    let endless = {
        let mut archive = Vec::new();
        block(&mut archive, &entry("x", b'x'), 8 << 20);
        archive.resize(archive.len() + (9 << 20), b'a');
        archive
    };
    let bomb = {
        let mut archive = tar(&bootable());
        archive.truncate(archive.len() - 1024);
        block(&mut archive, &entry("huge", b'0'), 0o77_777_777_777);
        archive.resize(archive.len() + (1 << 20), 0);
        archive
    };
    let other = if Arch::host() == Arch::Amd64 { "arm64" } else { "amd64" };
    for (wrong, words) in [
        (image(&[file("etc/hostname", "x")]), &["kernel"][..]),
        (image(&bootable()[..3]), &["initrd"]),
        (Image::new(other, vec![Blob::new(TAR_GZIP, whole.clone())]), &["linux/", other]),
        (image_of(whole[..whole.len() / 2].to_vec()), &["layer sha256:"]),
        (image_of(b"this is no archive at all".to_vec()), &["layer sha256:"]),
        (image(&bootable_with(file("../../etc/passwd", "x"))), &["layer sha256:", "../../etc/passwd"]),
        (image(&bootable_with(file("a/../../b", "x"))), &["layer sha256:", "a/../../b"]),
        (image_of(gzip(&endless)), &["layer sha256:"]),
        (image_of(gzip(&bomb)), &["layer sha256:"]),
    ] {
        let registry = site.good_registry(&wrong);
        refused(&site, &good, &registry.name(), words);
    }
    assert!(site.leftovers().is_empty());
}

#[test]
fn of_two_kernels_the_one_that_the_image_boots_is_taken() {
    let site = Site::new("kernels");
    let mut entries = bootable();
    entries.extend([
        file("boot/vmlinuz-6.9", "newer"),
        file("boot/initrd.img-6.9", "newer"),
        directory("lib/modules/6.9"),
    ]);
    let image = image(&entries);
    let registry = site.good_registry(&image);
    site.build(&registry.name()).succeeded();
    assert_eq!(site.in_iso("kairos.iso", "/boot/kernel"), kernel().as_bytes());
}

#[test]
fn registries_that_refuse_or_lie_are_told_in_one_line() {
    let site = Site::new("refusals");
    let good = image(&bootable());
    let registry = site.good_registry(&good);
    let good_name = pinned(&registry, &good);
    site.build(&good_name).succeeded();
    refused(&site, &good_name, &registry.name().replace(":it", ":missing"), &["missing"]);

    let other = image(&bootable_with(file("etc/motd", "other")));
    let login =
        site.registry(&other, |_, _| Some(Reply::new(401, "{}").header("www-authenticate", "Basic realm=\"it\"")));
    refused(&site, &good_name, &login.name(), &["127.0.0.1", "login"]);

    let layer = other.layers[0].digest().to_string();
    let liar = site.registry(&other, move |request, _| {
        let bytes = gzip(&tar(&bootable_with(file("etc/motd", "hello"))));
        request.path.ends_with(&layer).then(|| Reply::new(200, bytes))
    });
    refused(&site, &good_name, &liar.name(), &["layer sha256:"]);
}

#[test]
fn a_full_disk_is_named_and_the_next_run_succeeds() {
    // The layer itself does not fit; the squashfs beside it does not fit.
    for mib in [2, 5] {
        let site = Site::new("full");
        let image = image(&bootable_with(file("usr/noise", noise(4 << 20, 1))));
        let registry = site.good_registry(&image);
        let disk = SmallDisk::mount(&site.state(), mib);
        let outcome = site.build(&registry.name());
        let error = outcome.error();
        let names_it = error.contains("full") || error.contains("No space left on device");
        assert!(names_it && error.contains(site.state().to_str().unwrap()), "{error}");
        assert!(!site.iso("kairos.iso").exists());
        disk.enlarge(64);
        let again = site.build(&registry.name());
        assert!(!again.reused());
        assert!(site.leftovers().is_empty(), "{:?}", site.leftovers());
    }
}
