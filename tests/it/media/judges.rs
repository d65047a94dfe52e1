//! What the tools of others say of our ISOs.

use std::fs;

use auroraboot::media::menu;
use auroraboot::units::Arch;

use super::{Place, bytes, image, layers, read_by_isoinfo, tool};
use crate::rootfs::layers::file;
use auroraboot::storage::Extent;

/// First and last sector of a partition.
fn partition(iso: &str, number: &str) -> (u64, u64) {
    let text = tool("sgdisk", &["-i", number, iso]);
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{text}"));
        line.trim().split(' ').next().unwrap().parse().unwrap()
    };
    (field("First sector:"), field("Last sector:"))
}

#[test]
fn others_find_nothing_to_complain_of() {
    let place = Place::new("judges");
    let medium = place.build(&image(&layers())).unwrap();
    let iso = medium.iso.path.to_str().unwrap();
    let report = tool("xorriso", &["-indev", iso, "-report_el_torito", "plain", "-report_system_area", "plain"]);
    for expected in ["Volume id    : 'COS_LIVE'", "BIOS", "UEFI", "/boot/eltorito.img", "grub2-mbr", "GPT"] {
        assert!(report.contains(expected), "{expected}: {report}");
    }
    assert!(!report.contains("FAILURE") && !report.contains("SORRY") && !report.contains("WARNING"), "{report}");
    let checked = tool("sgdisk", &["-v", iso]);
    assert!(checked.contains("No problems found"), "{checked}");

    let (first, last) = partition(iso, "2");
    let esp = [Extent { offset: first * 512, length: (last + 1 - first) * 512 }];
    let esp_file = place.scratch.0.join("esp");
    fs::write(&esp_file, bytes(&medium.iso.path, &esp)).unwrap();
    tool("fsck.vfat", &["-n", esp_file.to_str().unwrap()]);
    let in_esp = |path: &str| tool("mtype", &["-i", esp_file.to_str().unwrap(), &format!("::{path}")]);
    assert_eq!((in_esp("EFI/BOOT/bootx64.efi"), in_esp("EFI/BOOT/grubx64.efi")), ("MZ shim".into(), "MZ grub".into()));
    assert_eq!(in_esp("boot/grub/grub.cfg"), menu::redirect());

    let offset = medium.squashfs[0].offset.to_string();
    assert!(tool("unsquashfs", &["-lls", "-o", &offset, iso]).contains("squashfs-root/boot/vmlinuz-6.1"));
    let (first, _) = partition(iso, "1");
    assert_eq!(first, 64, "a volume of its own, 32 KiB into the medium");
}

#[test]
fn the_layout_is_what_kairos_and_grub_look_for() {
    let place = Place { extend_cmdline: Some("panic=5"), ..Place::new("layout") };
    let medium = place.build(&image(&layers())).unwrap();
    let iso = &medium.iso.path;
    let listing = tool("isoinfo", &["-i", iso.to_str().unwrap(), "-R", "-f"]);
    for path in [
        "/rootfs.squashfs",
        "/boot/kernel",
        "/boot/initrd",
        "/boot/grub2/grub.cfg",
        "/boot/grub/grub.cfg",
        "/boot/eltorito.img",
        "/EFI/BOOT/grub.cfg",
        "/EFI/BOOT/bootx64.efi",
        "/EFI/BOOT/grubx64.efi",
    ] {
        assert!(listing.lines().any(|line| line == path), "{path}: {listing}");
    }
    let cfg = String::from_utf8(read_by_isoinfo(iso, "/boot/grub2/grub.cfg")).unwrap();
    assert!(cfg.contains("root=live:CDLABEL=COS_LIVE") && cfg.contains("panic=5"), "{cfg}");
    assert_eq!(read_by_isoinfo(iso, "/boot/kernel"), super::kernel().as_bytes());
    assert_eq!(read_by_isoinfo(iso, "/boot/initrd"), super::initrd().as_bytes());
}

#[test]
fn other_architectures_have_their_own_efi_names() {
    for (arch, from, name) in [
        (Arch::Arm64, "usr/lib/grub/arm64-efi-signed/gcdaa64.efi.signed", "/EFI/BOOT/bootaa64.efi"),
        (Arch::Riscv64, "usr/lib/grub/riscv64-efi/monolithic/gcdriscv64.efi", "/EFI/BOOT/bootriscv64.efi"),
    ] {
        let place = Place { arch, ..Place::new(arch.name()) };
        let mut layers = layers();
        layers[1].push(file(from, "MZ own"));
        let medium = place.build(&image(&layers)).unwrap();
        let iso = medium.iso.path.to_str().unwrap();
        assert_eq!(read_by_isoinfo(&medium.iso.path, name), b"MZ own", "{arch}");
        let report = tool("xorriso", &["-indev", iso, "-report_el_torito", "plain"]);
        assert!(report.contains("BIOS") && report.contains("UEFI"), "{report}");
        assert!(tool("sgdisk", &["-v", iso]).contains("No problems found"));
    }
}
