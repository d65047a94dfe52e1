//! A directory of the host over the image's root file system.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use auroraboot::media::{MediaError, OverlayError};

use super::{Place, image, layers, names, tool};
use crate::rootfs::layers::Seen;
use crate::rootfs::oracle::list_tree;

fn place(name: &str) -> (Place, PathBuf) {
    let mut place = Place::new(name);
    let overlay = place.scratch.0.join("overlay");
    fs::create_dir_all(overlay.join("etc/deep")).unwrap();
    fs::write(overlay.join("etc/os-release"), "PRETTY_NAME=\"Overlaid\"\n").unwrap();
    fs::write(overlay.join("etc/deep/script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(overlay.join("etc/deep/script"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::write(overlay.join("etc").join("n".repeat(200)), "long name").unwrap();
    symlink("t".repeat(150), overlay.join("link")).unwrap();
    place.overlay = Some(overlay.clone());
    (place, overlay)
}

fn unpack(place: &Place, iso: &std::path::Path, offset: u64) -> BTreeMap<Vec<u8>, Seen> {
    let (root, offset) = (place.scratch.0.join("root"), offset.to_string());
    tool("unsquashfs", &["-no-progress", "-o", &offset, "-d", root.to_str().unwrap(), iso.to_str().unwrap()]);
    list_tree(&root)
}

#[test]
fn an_overlay_is_the_images_uppermost_layer() {
    let (place, overlay) = place("overlay");
    let medium = place.build(&image(&layers())).unwrap();
    assert_eq!(medium.facts.name.as_deref(), Some("Overlaid"));
    let found = unpack(&place, &medium.iso.path, medium.squashfs[0].offset);
    assert_eq!(found[&b"/etc/os-release"[..]].kind, "file \"PRETTY_NAME=\\\"Overlaid\\\"\\n\"");
    let script = &found[&b"/etc/deep/script"[..]];
    let on_host = fs::metadata(overlay.join("etc/deep/script")).unwrap();
    assert_eq!((script.mode, script.uid, script.gid), (0o4750, on_host.uid(), on_host.gid()));
    assert_eq!(i64::try_from(script.mtime).unwrap(), on_host.mtime());
    assert_eq!(found[&[b"/etc/", &[b'n'; 200][..]].concat()].kind, "file \"long name\"");
    assert_eq!(found[&b"/link"[..]].kind, format!("symlink {:?}", "t".repeat(150)));
    assert!(found.contains_key(&b"/etc/kairos-release"[..]), "the image's own files stay");
    assert!(medium.warnings.is_empty(), "{:?}", medium.warnings);
}

#[test]
fn a_change_of_the_overlay_is_noticed() {
    let (mut place, overlay) = place("overlay-change");
    let small = image(&layers());
    let built = place.build(&small).unwrap();
    assert!(place.build(&small).unwrap().reused);
    // Written again, but the same.
    fs::write(overlay.join("etc/os-release"), "PRETTY_NAME=\"Overlaid\"\n").unwrap();
    assert!(place.build(&small).unwrap().reused);
    fs::write(overlay.join("etc/os-release"), "PRETTY_NAME=\"Overload\"\n").unwrap();
    let changed = place.build(&small).unwrap();
    assert!(!changed.reused && changed.sha256 != built.sha256);
    place.overlay = None;
    assert_eq!(place.build(&small).unwrap().facts.name.as_deref(), Some("Test OS 1"));
}

#[test]
fn files_that_do_not_belong_to_root_are_doubted() {
    let (place, overlay) = place("overlay-owner");
    std::os::unix::fs::chown(overlay.join("etc/deep"), Some(1000), Some(1000)).expect("needs root");
    let medium = place.build(&image(&layers())).unwrap();
    assert!(
        medium.warnings[0].starts_with("1 of 6 files of iso.overlay_rootfs do not belong to root"),
        "{:?}",
        medium.warnings
    );
}

#[test]
fn an_overlay_that_cannot_be_is_an_error_before_anything_is_read() {
    let (mut place, overlay) = place("overlay-bad");
    let small = image(&layers());
    let outcome = |place: &Place| match place.build(&small) {
        Err(MediaError::Overlay(error)) => error,
        other => panic!("{other:?}"),
    };
    fs::write(overlay.join(".wh.etc"), "").unwrap();
    assert!(matches!(outcome(&place), OverlayError::Name { .. }));
    tool("mkfifo", &[overlay.join("pipe").to_str().unwrap()]);
    assert!(matches!(outcome(&place), OverlayError::Special { path, .. } if path == overlay.join("pipe")));
    place.overlay = Some(overlay.join("link-to-nothing"));
    assert!(matches!(outcome(&place), OverlayError::Missing { .. }));
    place.overlay = Some(overlay.join("etc/os-release"));
    assert!(matches!(outcome(&place), OverlayError::NotADirectory { .. }));
    assert_eq!(small.opened.load(std::sync::atomic::Ordering::Relaxed), 0);
    assert_eq!(names(&place.iso()), [""; 0]);
}
