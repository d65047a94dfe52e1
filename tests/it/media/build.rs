//! Image layers in, ISO out.

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use auroraboot::limits;
use auroraboot::media::names::Date;
use auroraboot::media::{MediaError, Medium};
use auroraboot::units::{Arch, chain};

use super::{Place, SmallDisk, bytes, image, initrd, kernel, layers, names, tool};
use crate::rootfs::layers::{MemoryImage, file, merge_with};
use crate::rootfs::oracle::list_tree;

#[test]
fn an_iso_holds_the_images_kernel_initrd_and_tree() {
    let place = Place::new("tree");
    let medium = place.build(&image(&layers())).unwrap();
    let iso = &medium.iso.path;
    assert_eq!(bytes(iso, &medium.kernel), kernel().as_bytes());
    assert_eq!(bytes(iso, &medium.initrd), initrd().as_bytes());
    assert_eq!(medium.iso.size, fs::metadata(iso).unwrap().len());
    assert_eq!(names(&place.iso()), ["kairos.iso", "kairos.iso.sha256"]);
    let sum = tool("sha256sum", &[iso.to_str().unwrap()]);
    assert_eq!(sum.split(' ').next(), Some(medium.sha256.hex().as_str()));
    let checked = Command::new("sha256sum").args(["-c", "kairos.iso.sha256"]).current_dir(place.iso()).output();
    assert_eq!(String::from_utf8_lossy(&checked.unwrap().stdout), "kairos.iso: OK\n");
    let facts = &medium.facts;
    assert_eq!((facts.name.as_deref(), facts.kairos["NAME"].as_str()), (Some("Test OS 1"), "kairos-core"));
    assert_eq!((facts.kernel_version.as_deref(), facts.kernel_path.as_str()), (Some("6.1"), "boot/vmlinuz-6.1"));
    assert_eq!((facts.compression.as_str(), facts.kernel_reads_zstd), ("zstd", None));
    assert!(!medium.reused && medium.warnings.is_empty(), "{:?}", medium.warnings);

    let (root, offset) = (place.scratch.0.join("root"), medium.squashfs[0].offset.to_string());
    let at = ["-no-progress", "-o", &offset, "-d", root.to_str().unwrap(), iso.to_str().unwrap()];
    tool("unsquashfs", &at); // needs root
    let expected = merge_with(&image(&layers()), &[]).unwrap().listing();
    let found = list_tree(&root);
    for (path, seen) in &expected {
        assert_eq!(found.get(path), Some(seen), "{:?}", String::from_utf8_lossy(path));
    }
    let made: Vec<_> =
        found.keys().filter(|path| !expected.contains_key(*path)).map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(made, ["/mnt", "/oem", "/proc", "/run", "/sys", "/tmp", "/usr/local"]);
    assert_eq!((found[&b"/proc"[..]].mode, found[&b"/tmp"[..]].mode), (0o555, 0o1777));
}

#[test]
fn the_same_image_makes_the_same_bytes() {
    let build = |name: &str, workers| {
        let place = Place { workers, ..Place::new(name) };
        let medium = place.build(&image(&layers())).unwrap();
        (fs::read(&medium.iso.path).unwrap(), medium)
    };
    let (one, medium) = build("same-one", 1);
    assert!(one == build("same-three", 3).0);
    // The superblock's time (offset 8) is the newest of the image's, and no clock's.
    let squashfs = usize::try_from(medium.squashfs[0].offset).unwrap();
    assert_eq!(one[squashfs + 8..squashfs + 12], 1_000_000_u32.to_le_bytes());
}

#[test]
fn the_same_image_is_not_built_twice() {
    let mut place = Place::new("reuse");
    let first = image(&layers());
    let built = place.build(&first).unwrap();
    let opened = first.opened.load(Ordering::Relaxed);
    fs::remove_file(place.iso().join("kairos.iso.sha256")).unwrap();
    let again = place.build(&first).unwrap();
    assert!(again.reused);
    assert_eq!(first.opened.load(Ordering::Relaxed), opened);
    assert_eq!(Medium { reused: false, ..again }, built);
    assert_eq!(names(&place.iso()), ["kairos.iso", "kairos.iso.sha256"], "a lost checksum is written again");

    // Another image, other arguments, a file that somebody touched, a stamp that is none: built anew.
    let mut changed = layers();
    changed[1].push(file("etc/motd", "hello"));
    assert!(!place.build(&image(&changed)).unwrap().reused);
    assert!(!place.build(&first).unwrap().reused);
    place.workers = 1;
    assert!(place.build(&first).unwrap().reused);
    place.extend_cmdline = Some("quiet");
    assert!(!place.build(&first).unwrap().reused);
    place.arch = Arch::Arm64;
    assert!(!place.build(&first).unwrap().reused);
    fs::write(&built.iso.path, "not the ISO").unwrap();
    assert!(!place.build(&first).unwrap().reused);
    for stamp in ["", "{}", "null", &"x".repeat(2 << 20)] {
        fs::write(place.stamp(), stamp).unwrap();
        assert!(!place.build(&first).unwrap().reused, "{stamp:.10}");
    }
}

/// As `cp -r` of the state directory does it, and `touch`.
#[test]
fn an_iso_that_was_copied_is_known_by_its_sha256() {
    let place = Place::new("copied");
    let first = image(&layers());
    let built = place.build(&first).unwrap();
    let opened = first.opened.load(Ordering::Relaxed);
    let iso = &built.iso.path;
    let copy = |bytes: &[u8]| {
        fs::remove_file(iso).unwrap();
        fs::write(iso, bytes).unwrap();
    };
    let mut bytes = fs::read(iso).unwrap();
    copy(&bytes);
    let cancelled = AtomicBool::new(true);
    assert!(matches!(place.build_watched(&first, &cancelled, |_| {}), Err(MediaError::Cancelled)));
    let stamp = fs::read(place.stamp()).unwrap();
    let again = place.build(&first).unwrap();
    assert!(again.reused && again.sha256 == built.sha256);
    assert_eq!(first.opened.load(Ordering::Relaxed), opened);
    let noted = fs::read(place.stamp()).unwrap();
    assert!(noted != stamp, "so that the next run need not read it all");
    assert!(place.build(&first).unwrap().reused);
    assert!(fs::read(place.stamp()).unwrap() == noted);

    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    copy(&bytes);
    let anew = place.build(&first).unwrap();
    assert!(!anew.reused, "one byte was altered, and the size is what it was");
    assert_eq!(anew.sha256, built.sha256);
}

#[test]
fn an_iso_that_is_used_again_keeps_its_date() {
    let mut place = Place::new("dates");
    let dated = |day| "x".parse::<auroraboot::media::names::Name>().unwrap().dated(Date { year: 2026, month: 11, day });
    let first = image(&layers());
    place.name = dated(22);
    assert!(place.build(&first).unwrap().iso.path.ends_with("x.20261122.iso"));
    place.name = dated(23);
    let again = place.build(&first).unwrap();
    assert!(again.reused && again.iso.path.ends_with("x.20261122.iso"));
    assert_eq!(names(&place.iso()), ["x.20261122.iso", "x.20261122.iso.sha256"]);
    place.name = "x".parse().unwrap();
    assert!(!place.build(&first).unwrap().reused, "another name");
}

#[test]
fn what_a_killed_run_left_is_neither_used_nor_kept() {
    let place = Place::new("killed");
    let small = image(&layers());
    let built = place.build(&small).unwrap();
    // Killed after the old stamp had gone and the ISO had its new name.
    fs::remove_file(place.stamp()).unwrap();
    fs::write(&built.iso.path, "half").unwrap();
    fs::write(place.iso().join("kairos.iso.part"), "half").unwrap();
    fs::write(place.iso().join("kairos.20200101.iso.part"), "half").unwrap();
    let medium = place.build(&small).unwrap();
    assert!(!medium.reused);
    assert_eq!(medium.sha256, built.sha256);
    assert_eq!(names(&place.iso()), ["kairos.iso", "kairos.iso.sha256"]);
}

#[test]
fn a_failed_or_cancelled_build_keeps_the_old_iso() {
    let place = Place::new("failed");
    let good = image(&layers());
    place.build(&good).unwrap();
    let broken = MemoryImage::new(vec![good.blobs[0].clone(), good.blobs[1][..40].to_vec()]);
    let outcome = place.build(&broken);
    assert!(matches!(outcome, Err(MediaError::Read(_))), "{outcome:?}");
    let no_kernel = image(&[vec![file("etc/hostname", "x")]]);
    assert!(matches!(place.build(&no_kernel), Err(MediaError::Boot(_))));

    let cancelled = AtomicBool::new(false);
    let mut changed = layers();
    changed[1].push(file("etc/motd", "hello"));
    let outcome = place.build_watched(&image(&changed), &cancelled, |_| cancelled.store(true, Ordering::Relaxed));
    assert!(matches!(outcome, Err(MediaError::Cancelled)));

    assert!(place.build(&good).unwrap().reused);
    assert_eq!(names(&place.iso()), ["kairos.iso", "kairos.iso.sha256"]);
}

#[test]
fn a_kernel_that_cannot_read_zstd_gets_gzip() {
    let place = Place::new("gzip");
    let with_config = |config: &str| {
        let mut layers = layers();
        layers[0].push(file("boot/config-6.1", config));
        let medium = place.build(&image(&layers)).unwrap();
        // The superblock's compression id (offset 20): 1 is gzip, 6 zstd.
        let id = bytes(&medium.iso.path, &medium.squashfs)[20];
        (medium, id)
    };
    let (old, id) = with_config("CONFIG_SQUASHFS=y\n# CONFIG_SQUASHFS_ZSTD is not set\n");
    assert_eq!((old.facts.compression.as_str(), old.warnings.len(), id), ("gzip", 0, 1));
    let (new, id) = with_config("CONFIG_SQUASHFS=m\nCONFIG_SQUASHFS_ZSTD=y\n");
    assert_eq!((new.facts.compression.as_str(), id), ("zstd", 6));
    let (none, _) = with_config("# CONFIG_SQUASHFS is not set\n");
    assert!(none.warnings[0].contains("cannot mount squashfs"));
}

#[test]
fn what_squashfs_cannot_store_is_said_once() {
    let mut layers = layers();
    for name in ["a", "b"] {
        let mut with_acl = file(name, "x");
        with_acl.xattrs = vec![("system.posix_acl_access".to_owned(), vec![2, 0, 0, 0])];
        layers[1].push(with_acl);
    }
    let medium = Place::new("acl").build(&image(&layers)).unwrap();
    assert_eq!(medium.warnings.len(), 1);
    assert!(medium.warnings[0].starts_with("2 files have POSIX ACLs"), "{}", medium.warnings[0]);
}

/// Room grows from nothing by a sixteenth of the ISO: the build ends in the squashfs, the kernel, the initrd, the ESP and the tables.
#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let place = Place::new("full");
    let small = image(&layers());
    let needed = place.build(&small).unwrap().iso.size / 1024;
    let mut failures = 0;
    for part in 1..=20 {
        let kib = u32::try_from(needed * part / 16).unwrap();
        let disk = SmallDisk::mount(&place.iso(), kib);
        let _ = fs::remove_file(place.stamp());
        let outcome = place.build(&small);
        let left = names(&place.iso());
        drop(disk);
        let Err(error) = outcome else { break };
        failures += 1;
        let text = chain(&error);
        assert!(text.contains("No space left on device"), "{kib} KiB: {text}");
        assert_eq!(left, [""; 0], "{kib} KiB");
        assert!(!place.stamp().exists());
    }
    assert!((10..20).contains(&failures), "{failures}");
}

#[test]
fn an_image_without_efi_files_boots_with_the_embedded_grub_and_says_so() {
    let mut layers = layers();
    layers[1].extend([file("usr/lib/shim/.wh..wh..opq", ""), file("usr/lib/grub/.wh..wh..opq", "")]);
    let place = Place::new("efi");
    let medium = place.build(&image(&layers)).unwrap();
    assert_eq!(medium.warnings.len(), 1, "{:?}", medium.warnings);
    assert!(medium.warnings[0].contains("Secure Boot"), "{:?}", medium.warnings);
    let program = super::read_by_isoinfo(&medium.iso.path, "/EFI/BOOT/bootx64.efi");
    assert_eq!(Some(program), auroraboot::media::efi::embedded_grub(Arch::Amd64).unwrap());
    assert_eq!(place.build(&image(&layers)).unwrap().warnings, medium.warnings, "said again by the next run");
}

#[test]
fn a_release_file_too_large_to_be_one_is_not_read() {
    let place = Place::new("text");
    let text_max = usize::try_from(auroraboot::limits::IMAGE_TEXT_BYTES_MAX).unwrap();
    for (padding, name) in [(0, Some("Test OS 2")), (text_max, None)] {
        let mut layers = layers();
        layers[1].push(file("etc/os-release", format!("PRETTY_NAME=\"Test OS 2\"\n{}", "#".repeat(padding))));
        assert_eq!(place.build(&image(&layers)).unwrap().facts.name.as_deref(), name);
    }
}

#[test]
fn a_kernel_that_is_none_is_doubted() {
    let place = Place::new("doubt");
    let mut layers = layers();
    layers[1].push(file("boot/vmlinuz-6.1", "hello"));
    let medium = place.build(&image(&layers)).unwrap();
    assert_eq!(medium.warnings.len(), 1);
    assert!(
        medium.warnings[0].starts_with("/boot/vmlinuz-6.1 (5 B) does not begin as a kernel does"),
        "{:?}",
        medium.warnings
    );
    assert_eq!(place.build(&image(&layers)).unwrap().warnings, medium.warnings, "said again by the next run");
}

#[test]
fn what_an_image_says_of_itself_cannot_steer_a_terminal() {
    let place = Place::new("hostile");
    let hostile = "\x1b]0;owned\x07\x1b[2J\u{202e}x";
    let mut release = format!("PRETTY_NAME=\"{hostile}\"\nKAIROS_{hostile}={hostile}\n");
    for n in 0..=limits::IMAGE_FACTS_MAX {
        release += &format!("KAIROS_{n}={}\n", "y".repeat(10_000));
    }
    let version = format!("6{hostile}");
    let entries = vec![
        file(format!("boot/vmlinuz-{version}"), "hello"),
        file(format!("boot/initrd-{version}"), "initrd"),
        file("etc/os-release", release),
    ];
    let medium = place.build(&image(&[entries])).unwrap();
    let facts = &medium.facts;
    let mut texts = vec![facts.kernel_path.as_str(), facts.initrd_path.as_str()];
    texts.extend([facts.name.as_deref().unwrap(), facts.kernel_version.as_deref().unwrap()]);
    texts.extend(facts.kairos.iter().flat_map(|(key, value)| [key.as_str(), value]));
    texts.extend(medium.warnings.iter().map(String::as_str));
    assert_eq!((facts.kairos.len(), medium.warnings.len()), (limits::IMAGE_FACTS_MAX, 3));
    for text in texts {
        assert!(text.chars().count() < 2 * limits::SHOWN_CHARS_MAX, "{text:?}");
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
    }
}
