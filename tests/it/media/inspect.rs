//! ISOs that others made.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use auroraboot::iso::read;
use auroraboot::media::{self, Given, InspectError, Medium};
use auroraboot::units::chain;

use super::{Place, bytes, image, layers, names, tool};
use crate::rootfs::oracle::Scratch;

fn inspect(iso: &Path) -> Result<Medium, InspectError> {
    inspect_for(iso, true)
}

fn inspect_for(iso: &Path, must_boot: bool) -> Result<Medium, InspectError> {
    let given = Given { iso, sha256: None, checksum_file: true, must_boot, reused: false };
    media::inspect(&given, &AtomicBool::new(false))
}

/// An ISO of these files, made by another program.
fn made_by(program: &str, scratch: &Scratch, files: &[(&str, &[u8])]) -> PathBuf {
    let (root, iso) = (scratch.0.join("root"), scratch.0.join(format!("{program}.iso")));
    for (path, data) in files {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), data).unwrap();
    }
    let (root, out) = (root.to_str().unwrap(), iso.to_str().unwrap());
    match program {
        "xorriso" => tool(program, &["-as", "mkisofs", "-R", "-J", "-V", "THEIRS", "-o", out, root]),
        _ => tool(program, &["-quiet", "-R", "-J", "-V", "THEIRS", "-o", out, root]),
    };
    iso
}

#[test]
fn our_own_iso_is_found_to_be_what_it_is() {
    let place = Place::new("inspect-own");
    let built = place.build(&image(&layers())).unwrap();
    let found = inspect(&built.iso.path).unwrap();
    assert_eq!((&found.iso, found.sha256, found.built), (&built.iso, built.sha256, built.built));
    assert_eq!((&found.kernel, &found.initrd, &found.squashfs), (&built.kernel, &built.initrd, &built.squashfs));
    assert_eq!(found.facts.compression, "zstd");
    assert!(found.warnings.is_empty(), "{:?}", found.warnings);
}

#[test]
fn kernel_initrd_and_squashfs_of_others_isos() {
    let mut kernel = vec![0; 100_000];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20e..0x210].copy_from_slice(&0x1000_u16.to_le_bytes());
    kernel[0x1200..0x1215].copy_from_slice(b"6.4.0-150600.23-x y#1");
    let mut squashfs = vec![7; 50_000];
    squashfs[..8].copy_from_slice(b"hsqs\x39\x05\0\0");
    squashfs[20] = 4;
    let files: [(&str, &[u8]); 3] =
        [("boot/kernel", &kernel), ("boot/initrd", b"initrd"), ("rootfs.squashfs", &squashfs)];
    for program in ["xorriso", "genisoimage"] {
        let scratch = Scratch::new(&format!("inspect-{program}"));
        let iso = made_by(program, &scratch, &files);
        let found = inspect(&iso).unwrap();
        assert_eq!(bytes(&iso, &found.kernel), kernel, "{program}");
        assert_eq!(bytes(&iso, &found.initrd), b"initrd");
        assert_eq!(bytes(&iso, &found.squashfs), squashfs);
        let facts = &found.facts;
        assert_eq!(facts.kernel_version.as_deref(), Some("6.4.0-150600.23-x"));
        assert_eq!((facts.compression.as_str(), facts.files), ("xz", 0x539));
        assert_eq!(found.warnings, [""; 0]);
        let checksum = fs::read_to_string(scratch.0.join(format!("{program}.iso.sha256"))).unwrap();
        assert_eq!(checksum, format!("{}  {program}.iso\n", found.sha256.hex()));
    }
}

#[test]
fn what_does_not_look_right_is_said() {
    let scratch = Scratch::new("inspect-odd");
    let iso =
        made_by("xorriso", &scratch, &[("boot/kernel", b"hello"), ("boot/initrd", b"x"), ("rootfs.squashfs", b"y")]);
    let found = inspect(&iso).unwrap();
    assert_eq!(found.warnings.len(), 2);
    assert!(found.warnings[0].starts_with("/boot/kernel (5 B) of the ISO does not begin as a kernel does"));
    assert!(found.warnings[1].starts_with("/rootfs.squashfs (1 B) of the ISO is not a squashfs"));
    assert_eq!(found.facts.kernel_version, None);
}

#[test]
fn an_iso_without_the_expected_files_is_refused_by_their_names() {
    let scratch = Scratch::new("inspect-missing");
    let iso = made_by("xorriso", &scratch, &[("boot/kernel", b"MZ"), ("casper/filesystem.squashfs", b"x")]);
    let error = inspect(&iso).unwrap_err().to_string();
    for expected in ["no /boot/initrd, no /rootfs.squashfs", "THEIRS", "boot, casper", "xorriso.iso"] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(!error.contains("/boot/kernel"), "{error}");
    assert_eq!(names(&scratch.0), ["root", "xorriso.iso"], "no checksum of what is refused");
    let empty =
        made_by("genisoimage", &scratch, &[("boot/kernel", b""), ("boot/initrd", b"x"), ("rootfs.squashfs", b"x")]);
    assert!(matches!(inspect(&empty), Err(InspectError::Empty { file: "boot/kernel", .. })));
}

#[test]
fn what_is_no_iso_or_not_all_of_one_is_refused() {
    let place = Place::new("inspect-not");
    let built = place.build(&image(&layers())).unwrap();
    let path = place.scratch.0.join("cut.iso");
    let whole = fs::read(&built.iso.path).unwrap();
    let outcome = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        inspect(&path).unwrap_err()
    };
    for bytes in [&b""[..], b"<!DOCTYPE html>", &[0; 100_000]] {
        let error = outcome(bytes);
        assert!(matches!(&error, InspectError::Iso { source: read::Error::NotAnIso, .. }), "{}", chain(&error));
    }
    let error = outcome(&whole[..whole.len() / 2]);
    assert!(matches!(&error, InspectError::Iso { source: read::Error::Truncated { .. }, .. }), "{}", chain(&error));
    assert!(matches!(inspect(&place.scratch.0.join("none")), Err(InspectError::File(_))));
}
