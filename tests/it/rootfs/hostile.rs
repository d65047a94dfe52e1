//! Layers that somebody made to hurt, and what the reading does without a second look.

use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};

use auroraboot::limits;
use auroraboot::rootfs::{Job, ReadError, WantedDirectory, read_image};

use super::layers::{
    MemoryImage, MemorySink, TestEntry, block, directory, entry, file, gzip, hard_link, merge, merge_with, symlink, tar,
};

/// The error with its causes, as the operator sees it.
fn refusal(image: &MemoryImage) -> String {
    let error = merge(image).err().expect("the image must be refused");
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn refused(entries: &[TestEntry]) -> String {
    let image = MemoryImage::of(&[&[file("fine", "1")], entries]);
    let text = refusal(&image);
    let layer = auroraboot::rootfs::LayerSource::digest(&image, 1).to_string();
    assert!(text.contains(&layer), "the layer is named: {text}");
    text
}

#[test]
fn what_escapes_the_root_is_refused_by_name() {
    let text = refused(&[file("a/../../etc/passwd", "x")]);
    assert!(text.contains("\"a/../../etc/passwd\"") && text.contains("leaves the root"), "{text}");
    let text = refused(&[hard_link("shadow", "../../etc/shadow")]);
    assert!(text.contains("\"shadow\"") && text.contains("../../etc/shadow"), "{text}");
    // Links climb no higher than the root.
    let merged = merge(&MemoryImage::of(&[&[symlink("up", "../../.."), file("up/etc/passwd", "inside")]])).unwrap();
    assert_eq!(merged.listing()[&b"/etc/passwd"[..]].kind, "file \"inside\"");
}

#[test]
fn whiteouts_of_the_root_links_in_circles_and_chains_are_refused() {
    for path in [".wh..", ".wh...", "a/.wh.", "/.wh.."] {
        assert!(refused(&[file(path, "")]).contains("whiteout"), "{path}");
    }
    assert!(refused(&[symlink("a", "b"), symlink("b", "a/x"), file("a/f", "")]).contains("loop"));
    let chain: Vec<_> =
        (0..=limits::SYMLINKS_FOLLOWED_MAX + 1).map(|n| symlink(format!("l{n}"), format!("l{}", n + 1))).collect();
    assert!(refused(&[&chain[..], &[file("l0/f", "")]].concat()).contains("loop"));
    assert!(merge(&MemoryImage::of(&[&[&chain[2..], &[file("l2/f", "")]].concat()])).is_ok());
}

/// Each lookup through such links takes half a million steps; a few hundred entries would take minutes.
#[test]
fn lookups_that_links_make_long_are_bounded_together() {
    let long = "d/../".repeat(810);
    let mut entries = vec![directory("d")];
    entries.extend((0..250).map(|n| symlink(format!("l{n}"), format!("{long}l{}", n + 1))));
    entries.push(symlink("l250", "d"));
    entries.extend((0..2000).map(|n| file(format!("l0/{n}"), "")));
    assert!(refused(&entries).contains("steps"));
}

#[test]
fn truncated_and_damaged_layers_are_refused() {
    let whole = tar(&[file("a", "x".repeat(5000))]);
    let packed = gzip(&whole);
    for blob in [&whole[..3000], &packed[..packed.len() - 20], &b"<html>not found</html>"[..]] {
        let text = refusal(&MemoryImage::new(vec![blob.to_vec()]));
        assert!(text.contains("sha256:"), "{text}");
    }
    let mut damaged = packed.clone();
    let at = damaged.len() - 6;
    damaged[at] ^= 1;
    assert!(refusal(&MemoryImage::new(vec![damaged])).contains("layer"));
}

#[test]
fn bombs_hit_their_bounds() {
    // A sparse file of 1 TiB in 1 KiB of layer.
    let size = 1_u64 << 40;
    let records = format!("22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n37 GNU.sparse.realsize={size:013}\n");
    let mut archive = Vec::new();
    let header = entry("pax", b'x');
    block(&mut archive, &header, records.len());
    super::layers::padded(&mut archive, records.as_bytes());
    block(&mut archive, &entry("bomb", b'0'), 512);
    super::layers::padded(&mut archive, b"0\n");
    assert!(refusal(&MemoryImage::new(vec![archive])).contains("unpacks to more than"));

    // Two million directories in 4 KiB of layer each.
    let path = |n: usize| format!("{n}{}", "/d".repeat(2000));
    let deep: Vec<_> = (0..=limits::TREE_ENTRIES_MAX / 2000).map(|n| directory(path(n))).collect();
    assert!(refused(&deep).contains("different paths"));

    let layers = vec![tar(&[]); limits::LAYERS_MAX + 1];
    assert!(refusal(&MemoryImage::new(layers)).contains("layers"));
}

/// Replacing and hiding a full directory again and again must not cost its size every time.
#[test]
fn hiding_a_large_directory_many_times_is_cheap() {
    let mut entries: Vec<_> = (0..5000).map(|n| file(format!("d/{n}"), "")).collect();
    for _ in 0..5000 {
        entries.extend([file(".wh.d", ""), file("d/.wh..wh..opq", ""), file("d", ""), directory("d")]);
    }
    let merged = merge(&MemoryImage::of(&[&entries])).unwrap();
    assert_eq!(merged.listing().len(), 2);
}

#[test]
fn hidden_data_is_passed_over_and_every_layer_is_opened_once() {
    let image = MemoryImage::of(&[
        &[file("a", "hidden"), file("d/x", "hidden"), file("o/x", "hidden"), file("w", "hidden"), file("keep", "kept")],
        &[file("a", "new"), file("d", "file"), file("o/.wh..wh..opq", ""), file(".wh.w", "")],
    ]);
    let merged = merge(&image).unwrap();
    assert_eq!(merged.count.skipped, 4 * 6);
    assert_eq!((merged.count.stored, merged.count.dead, merged.count.read_again), (11, 0, 0));
    assert_eq!(image.opened.load(Ordering::Relaxed), 2);
}

#[test]
fn a_hard_link_from_above_keeps_hidden_data_without_a_second_reading() {
    let image = MemoryImage::of(&[&[file("a", "data")], &[hard_link("b", "a")], &[file("a", "new")]]);
    let merged = merge(&image).unwrap();
    assert_eq!(merged.listing()[&b"/b"[..]].kind, "file \"data\"");
    assert_eq!(image.opened.load(Ordering::Relaxed), 3);
}

/// The spelling says `lib/x` is gone with `lib`; in truth it is at `usr/lib/x`.
#[test]
fn what_only_looked_hidden_is_read_again() {
    let image = MemoryImage::of(&[
        &[directory("usr/lib"), symlink("lib", "usr/lib"), file("usr/lib/y", "y")],
        &[file("lib/x", "lives"), file("lib/z", "lives too")],
        &[symlink("lib", "usr/lib")],
    ]);
    let merged = merge(&image).unwrap();
    assert_eq!(merged.listing()[&b"/usr/lib/x"[..]].kind, "file \"lives\"");
    assert_eq!(merged.listing()[&b"/usr/lib/z"[..]].kind, "file \"lives too\"");
    assert_eq!(merged.count.read_again, 14);
    assert_eq!(image.opened.load(Ordering::Relaxed), 4);
}

#[test]
fn wanted_directories_are_made_unless_something_is_there() {
    let wanted = [("proc", 0o555), ("tmp", 0o1777), ("usr/local", 0o755), ("run", 0o755)];
    let wanted = wanted.map(|(path, mode)| WantedDirectory { path, mode });
    let image = MemoryImage::of(&[&[directory("tmp"), symlink("run", "var/run"), file("late", "")]]);
    let listing = merge_with(&image, &wanted).unwrap().listing();
    let seen = |path: &str| (listing[path.as_bytes()].kind.clone(), listing[path.as_bytes()].mode);
    assert_eq!(seen("/proc"), ("directory".to_owned(), 0o555));
    assert_eq!(seen("/tmp"), ("directory".to_owned(), 0o755));
    assert_eq!(seen("/usr/local"), ("directory".to_owned(), 0o755));
    assert_eq!(seen("/var/run"), ("directory".to_owned(), 0o755), "a link gets the directory it leads to");
    assert_eq!(listing[&b"/proc"[..]].mtime, 1_000_000, "times come from the image");
}

#[test]
fn reading_ends_when_told_to() {
    let image = MemoryImage::of(&[&[file("a", "data"), file("b", "data")]]);
    let cancelled = AtomicBool::new(false);
    let mut data = MemorySink::default();
    let mut progress = |_| cancelled.store(true, Ordering::Relaxed);
    let job = Job { source: &image, sink: &mut data, wanted: &[], cancelled: &cancelled, progress: &mut progress };
    assert!(matches!(read_image(job), Err(ReadError::Cancelled)));
    assert!(data.0.is_empty());
}

#[test]
fn long_and_hostile_names_do_not_fill_or_steer_the_terminal() {
    let deep = "d/".repeat(5000) + "\x1b]0;owned\x07";
    let deepest = "d/".repeat(2000);
    for text in [
        refused(&[file(deep.as_str(), "x")]),
        refused(&[hard_link("fine2", deep.as_str())]),
        refused(&[file(deepest.trim_end_matches('/'), "x"), hard_link("l", "\x1b[2J")]),
        refused(&[directory(deepest.as_str()), hard_link("l", deepest.as_str())]),
    ] {
        assert!(text.len() < 1000 && !text.contains('\x1b'), "{text}");
    }
}
