//! Image layers in, boot set out: the files, their reuse, and what must never be left behind.

use std::fs;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use auroraboot::limits;
use auroraboot::media::{self, BootSet, MediaError, Options, Watch};

use crate::rootfs::layers::{
    MemoryImage, TestEntry, directory, entry, file, gzip, hard_link, merge_with, symlink, tar,
};
use crate::rootfs::oracle::{Scratch, list_tree};

fn build(image: &MemoryImage, directory: &Path) -> Result<BootSet, MediaError> {
    build_with(image, directory, 2)
}

fn build_with(image: &MemoryImage, directory: &Path, workers: usize) -> Result<BootSet, MediaError> {
    let workers = NonZeroUsize::new(workers).unwrap();
    let options = Options { directory, product: "test 1", workers };
    let cancelled = AtomicBool::new(false);
    media::build(image, &options, &mut Watch { cancelled: &cancelled, progress: &mut |_| {} })
}

/// It begins as those with an EFI stub.
fn kernel() -> String {
    format!("MZ{}", "kernel ".repeat(40_000))
}

/// A small image with all that matters, in two layers.
fn layers() -> Vec<Vec<TestEntry>> {
    let mut ping = file("usr/bin/ping", "ping");
    ping.xattrs = vec![("security.capability".to_owned(), [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat())];
    let mut device = entry("dev/null", b'3');
    device.device = (1, 3);
    let mut sudo = file("usr/bin/sudo", "sudo");
    (sudo.mode, sudo.uid, sudo.gid) = (0o4755, 1000, 100);
    let large: Vec<u8> = (0..700_000_u32).flat_map(|n| (n / 7).wrapping_mul(n).to_le_bytes()).collect();
    vec![
        vec![
            directory("./"),
            directory("usr/lib"),
            symlink("lib", "usr/lib"),
            file("boot/vmlinuz-6.1", kernel()),
            symlink("boot/vmlinuz", "/boot/vmlinuz-6.1"),
            file("boot/initrd", "initrd ".repeat(300_000)),
            directory("lib/modules/6.1"),
            file("etc/os-release", "PRETTY_NAME=\"Test OS 1\"\nKAIROS_NAME=old\n"),
            file("large", large),
            file("gone", "gone"),
            ping,
            sudo,
            device,
            entry("pipe", b'6'),
        ],
        vec![
            file("etc/kairos-release", "KAIROS_NAME=\"kairos-core\"\nKAIROS_VERSION=\"v1.0.0\"\n"),
            file(".wh.gone", ""),
            hard_link("usr/bin/ping6", "usr/bin/ping"),
            file("lib/late", ""),
        ],
    ]
}

fn image(layers: &[Vec<TestEntry>]) -> MemoryImage {
    MemoryImage::new(layers.iter().map(|entries| gzip(&tar(entries))).collect())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_boot_set_holds_the_images_kernel_initrd_and_tree() {
    let scratch = Scratch::new("media-tree");
    let set = build(&image(&layers()), &scratch.0.join("set")).unwrap();
    assert_eq!(fs::read(&set.kernel.path).unwrap(), kernel().as_bytes());
    assert_eq!(fs::read(&set.initrd.path).unwrap(), "initrd ".repeat(300_000).as_bytes());
    assert_eq!(set.squashfs.size, fs::metadata(&set.squashfs.path).unwrap().len());
    assert_eq!(names(&scratch.0.join("set")), ["boot-set.json", "initrd", "kernel", "rootfs.squashfs"]);
    let facts = &set.facts;
    assert_eq!((facts.name.as_deref(), facts.kairos["NAME"].as_str()), (Some("Test OS 1"), "kairos-core"));
    assert_eq!((facts.kernel_version.as_deref(), facts.kernel_path.as_str()), (Some("6.1"), "boot/vmlinuz-6.1"));
    assert_eq!((facts.compression.as_str(), facts.kernel_reads_zstd), ("zstd", None));
    assert!(!set.reused && set.warnings.is_empty(), "{:?}", set.warnings);

    let root = scratch.0.join("root");
    let unsquashfs =
        Command::new("unsquashfs").args(["-no-progress", "-d"]).arg(&root).arg(&set.squashfs.path).output();
    let output = unsquashfs.expect("unsquashfs is not installed: run tests/run");
    assert!(output.status.success(), "needs root: {}", String::from_utf8_lossy(&output.stderr));
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
fn the_same_layers_make_the_same_bytes() {
    let scratch = Scratch::new("media-same");
    let squashfs = |name: &str, workers| {
        let set = build_with(&image(&layers()), &scratch.0.join(name), workers).unwrap();
        fs::read(set.squashfs.path).unwrap()
    };
    let one = squashfs("one", 1);
    assert!(one == squashfs("three", 3));
    // The superblock's time (offset 8) is the newest of the image's, and no clock's.
    assert_eq!(one[8..12], 1_000_000_u32.to_le_bytes());
}

#[test]
fn the_same_image_is_not_built_twice() {
    let scratch = Scratch::new("media-reuse");
    let first = image(&layers());
    let built = build(&first, &scratch.0).unwrap();
    let opened = first.opened.load(Ordering::Relaxed);
    let again = build(&first, &scratch.0).unwrap();
    assert!(again.reused);
    assert_eq!(first.opened.load(Ordering::Relaxed), opened);
    assert_eq!(BootSet { reused: false, ..again }, built);

    // Another image, a file that somebody touched, a stamp that is none: built anew.
    let mut changed = layers();
    changed[1].push(file("etc/motd", "hello"));
    assert!(!build(&image(&changed), &scratch.0).unwrap().reused);
    assert!(!build(&first, &scratch.0).unwrap().reused);
    assert!(build_with(&first, &scratch.0, 1).unwrap().reused);
    fs::write(&built.kernel.path, "not the kernel").unwrap();
    assert!(!build_with(&first, &scratch.0, 1).unwrap().reused);
    for stamp in ["", "{}", "null", &"x".repeat(2 << 20)] {
        fs::write(scratch.0.join("boot-set.json"), stamp).unwrap();
        assert!(!build_with(&first, &scratch.0, 1).unwrap().reused, "{:.10}", stamp);
    }
}

#[test]
fn what_a_killed_run_left_is_neither_used_nor_kept() {
    let scratch = Scratch::new("media-killed");
    let small = image(&layers());
    build(&small, &scratch.0).unwrap();
    // Killed after the old stamp had gone and one file had its new name.
    fs::remove_file(scratch.0.join("boot-set.json")).unwrap();
    fs::write(scratch.0.join("rootfs.squashfs"), "half").unwrap();
    fs::write(scratch.0.join("kernel.part"), "half").unwrap();
    fs::write(scratch.0.join("left.part"), "half").unwrap();
    let set = build(&small, &scratch.0).unwrap();
    assert!(!set.reused && set.squashfs.size > 1000);
    assert_eq!(names(&scratch.0), ["boot-set.json", "initrd", "kernel", "rootfs.squashfs"]);
}

#[test]
fn a_failed_or_cancelled_build_keeps_the_old_boot_set() {
    let scratch = Scratch::new("media-failed");
    let good = image(&layers());
    build(&good, &scratch.0).unwrap();
    let broken = MemoryImage::new(vec![good.blobs[0].clone(), good.blobs[1][..40].to_vec()]);
    let outcome = build(&broken, &scratch.0);
    assert!(matches!(outcome, Err(MediaError::Read(_))), "{outcome:?}");
    let no_kernel = image(&[vec![file("etc/hostname", "x")]]);
    assert!(matches!(build(&no_kernel, &scratch.0), Err(MediaError::Boot(_))));

    let cancelled = AtomicBool::new(false);
    let workers = NonZeroUsize::MIN;
    let options = Options { directory: &scratch.0, product: "test 2", workers };
    let mut progress = |_| cancelled.store(true, Ordering::Relaxed);
    let outcome = media::build(&good, &options, &mut Watch { cancelled: &cancelled, progress: &mut progress });
    assert!(matches!(outcome, Err(MediaError::Cancelled)));

    assert!(build(&good, &scratch.0).unwrap().reused);
}

#[test]
fn a_kernel_that_cannot_read_zstd_gets_gzip() {
    let scratch = Scratch::new("media-gzip");
    let with_config = |config: &str| {
        let mut layers = layers();
        layers[0].push(file("boot/config-6.1", config));
        build(&image(&layers), &scratch.0).unwrap()
    };
    let old = with_config("CONFIG_SQUASHFS=y\n# CONFIG_SQUASHFS_ZSTD is not set\n");
    assert_eq!((old.facts.compression.as_str(), old.warnings.len()), ("gzip", 0));
    // The superblock's compression id (offset 20): 1 is gzip, 6 zstd.
    assert_eq!(fs::read(&old.squashfs.path).unwrap()[20], 1);
    let new = with_config("CONFIG_SQUASHFS=m\nCONFIG_SQUASHFS_ZSTD=y\n");
    assert_eq!((new.facts.compression.as_str(), fs::read(&new.squashfs.path).unwrap()[20]), ("zstd", 6));
    let none = with_config("# CONFIG_SQUASHFS is not set\n");
    assert!(none.warnings[0].contains("cannot mount squashfs"));
}

#[test]
fn what_squashfs_cannot_store_is_said_once() {
    let scratch = Scratch::new("media-acl");
    let mut layers = layers();
    for name in ["a", "b"] {
        let mut with_acl = file(name, "x");
        with_acl.xattrs = vec![("system.posix_acl_access".to_owned(), vec![2, 0, 0, 0])];
        layers[1].push(with_acl);
    }
    let set = build(&image(&layers), &scratch.0).unwrap();
    assert_eq!(set.warnings.len(), 1);
    assert!(set.warnings[0].starts_with("2 files have POSIX ACLs"), "{}", set.warnings[0]);
}

#[test]
fn a_full_disk_is_named_and_nothing_is_believed() {
    let scratch = Scratch::new("media-full");
    let mount = |args: &[&str]| {
        Command::new(args[0]).args(&args[1..]).arg(&scratch.0).output().is_ok_and(|o| o.status.success())
    };
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs"]), "needs root: run tests/run");
    let outcome = build(&image(&layers()), &scratch.0);
    let left = names(&scratch.0);
    assert!(mount(&["umount"]));
    let mut text = String::new();
    let error = outcome.unwrap_err();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        text = format!("{text}{error}: ");
        cause = error.source();
    }
    assert!(text.contains("No space left on device"), "{text}");
    assert!(!left.contains(&"boot-set.json".to_owned()));
}

#[test]
fn a_release_file_too_large_to_be_one_is_not_read() {
    let scratch = Scratch::new("media-text");
    let text_max = usize::try_from(auroraboot::limits::IMAGE_TEXT_BYTES_MAX).unwrap();
    for (padding, name) in [(0, Some("Test OS 2")), (text_max, None)] {
        let mut layers = layers();
        layers[1].push(file("etc/os-release", format!("PRETTY_NAME=\"Test OS 2\"\n{}", "#".repeat(padding))));
        assert_eq!(build(&image(&layers), &scratch.0).unwrap().facts.name.as_deref(), name);
    }
}

#[test]
fn a_kernel_that_is_none_is_doubted() {
    let scratch = Scratch::new("media-doubt");
    let mut layers = layers();
    layers[1].push(file("boot/vmlinuz-6.1", "hello"));
    let set = build(&image(&layers), &scratch.0).unwrap();
    assert_eq!(set.warnings.len(), 1);
    assert!(
        set.warnings[0].starts_with("/boot/vmlinuz-6.1 (5 B) does not begin as a kernel does"),
        "{:?}",
        set.warnings
    );
    assert_eq!(build(&image(&layers), &scratch.0).unwrap().warnings, set.warnings, "said again by the next run");
}

#[test]
fn what_an_image_says_of_itself_cannot_steer_a_terminal() {
    let scratch = Scratch::new("media-hostile");
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
    let set = build(&image(&[entries]), &scratch.0).unwrap();
    let facts = &set.facts;
    let mut texts = vec![facts.kernel_path.as_str(), facts.initrd_path.as_str()];
    texts.extend([facts.name.as_deref().unwrap(), facts.kernel_version.as_deref().unwrap()]);
    texts.extend(facts.kairos.iter().flat_map(|(key, value)| [key.as_str(), value]));
    texts.extend(set.warnings.iter().map(String::as_str));
    assert_eq!((facts.kairos.len(), set.warnings.len()), (limits::IMAGE_FACTS_MAX, 2));
    for text in texts {
        assert!(text.chars().count() < 2 * limits::SHOWN_CHARS_MAX, "{text:?}");
        assert!(!text.contains(|c: char| c.is_control() || c == '\u{202e}'), "{text:?}");
    }
}
