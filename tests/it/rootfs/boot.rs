//! Which kernel and initrd are found in images of different makers.

use auroraboot::rootfs::{Boot, BootError, find_boot};

use super::layers::{MemoryImage, TestEntry, directory, file, merge, symlink};

fn boot(entries: &[TestEntry]) -> Result<Boot, BootError> {
    find_boot(&merge(&MemoryImage::of(&[entries])).unwrap().tree)
}

/// Kernel, initrd, version.
fn found(entries: &[TestEntry]) -> (String, String, Option<String>) {
    let boot = boot(entries).unwrap();
    (boot.kernel.path, boot.initrd.path, boot.version)
}

fn expect(kernel: &str, initrd: &str, version: &str) -> (String, String, Option<String>) {
    (kernel.to_owned(), initrd.to_owned(), Some(version.to_owned()))
}

fn full(path: &str) -> TestEntry {
    file(path, path)
}

fn modules(version: &str) -> TestEntry {
    directory(format!("usr/lib/modules/{version}"))
}

#[test]
fn kairos_links_its_kernel_absolutely_and_has_one_initrd() {
    let entries = [
        full("boot/vmlinuz-6.1.0-9-amd64"),
        full("boot/vmlinuz-6.1.0-10-amd64"),
        symlink("boot/vmlinuz", "/boot/vmlinuz-6.1.0-9-amd64"),
        full("boot/initrd"),
        full("boot/initrd.img-6.1.0-9-amd64"),
        full("boot/config-6.1.0-9-amd64"),
        symlink("lib", "usr/lib"),
        modules("6.1.0-9-amd64"),
    ];
    assert_eq!(found(&entries), expect("boot/vmlinuz-6.1.0-9-amd64", "boot/initrd", "6.1.0-9-amd64"));
    let boot = boot(&entries).unwrap();
    assert!(boot.has_modules && boot.config.is_some());
}

#[test]
fn without_a_link_the_highest_complete_version_is_taken() {
    let pair = |version: &str| {
        [full(&format!("boot/vmlinuz-{version}")), full(&format!("boot/initrd.img-{version}")), modules(version)]
    };
    let mut entries = [pair("6.9.1"), pair("6.10.0-rc1"), pair("6.2")].concat();
    assert_eq!(found(&entries), expect("boot/vmlinuz-6.10.0-rc1", "boot/initrd.img-6.10.0-rc1", "6.10.0-rc1"));
    // One without an initrd, one without modules, and one that is not for booting.
    entries.extend([
        full("boot/vmlinuz-6.12"),
        full("boot/vmlinuz-6.11"),
        full("boot/initrd.img-6.11"),
        full("boot/vmlinuz-7.1.hmac"),
    ]);
    assert_eq!(found(&entries).2.as_deref(), Some("6.10.0-rc1"));
}

#[test]
fn the_initrd_belongs_to_the_kernel() {
    for (initrd, fits) in [
        ("initrd-6.1", true),
        ("initrd.img-6.1", true),
        ("initramfs-6.1.img", true),
        ("initramfs-6.1", true),
        ("initrd-6.1.zst", true),
        ("initrd-6.1.2", false),
        ("initramfs-6.1kdump.img", false),
        ("initrd-5.10", false),
    ] {
        let entries = [full("boot/vmlinuz-6.1"), full(&format!("boot/{initrd}")), modules("6.1")];
        assert_eq!(boot(&entries).is_ok(), fits, "{initrd}");
    }
    // A plain name counts when it leads to the version or tells none.
    let base = [full("boot/vmlinuz-6.1"), full("boot/initrd-5.10"), modules("6.1")];
    assert!(boot(&[&base[..], &[symlink("boot/initrd", "initrd-5.10")]].concat()).is_err());
    let plain = [&base[..], &[full("boot/initramfs.img")]].concat();
    assert_eq!(found(&plain), expect("boot/vmlinuz-6.1", "boot/initramfs.img", "6.1"));
}

#[test]
fn other_distributions() {
    let fedora = [full("usr/lib/modules/6.9.4/vmlinuz"), full("usr/lib/modules/6.9.4/initramfs.img")];
    assert_eq!(found(&fedora), expect("usr/lib/modules/6.9.4/vmlinuz", "usr/lib/modules/6.9.4/initramfs.img", "6.9.4"));
    let opensuse = [
        symlink("boot/vmlinuz", "vmlinuz-6.4.0-default"),
        symlink("boot/vmlinuz-6.4.0-default", "../usr/lib/modules/6.4.0-default/vmlinuz"),
        full("usr/lib/modules/6.4.0-default/vmlinuz"),
        symlink("boot/initrd", "initrd-6.4.0-default"),
        full("boot/initrd-6.4.0-default"),
    ];
    let kernel = "usr/lib/modules/6.4.0-default/vmlinuz";
    assert_eq!(found(&opensuse), expect(kernel, "boot/initrd-6.4.0-default", "6.4.0-default"));
    let alpine = [full("boot/vmlinuz-lts"), full("boot/initramfs-lts"), directory("lib/modules/6.6.30-0-lts")];
    assert_eq!(found(&alpine), expect("boot/vmlinuz-lts", "boot/initramfs-lts", "6.6.30-0-lts"));
    let arm = [full("boot/Image"), full("boot/initrd"), directory("lib/modules/6.1.0-rpi")];
    assert_eq!(found(&arm), expect("boot/Image", "boot/initrd", "6.1.0-rpi"));
}

#[test]
fn a_link_out_of_the_image_is_no_kernel() {
    let dangling = [symlink("boot/vmlinuz", "/boot/vmlinuz-5"), full("boot/vmlinuz-6"), full("boot/initrd-6")];
    assert_eq!(found(&dangling).0, "boot/vmlinuz-6");
}

#[test]
fn the_errors_say_what_was_found() {
    let text = |entries: &[TestEntry]| boot(entries).unwrap_err().to_string();
    assert!(text(&[full("etc/hostname")]).contains("there is no /boot"));
    assert!(text(&[directory("boot")]).contains("/boot is empty"));
    let listed = text(&[symlink("boot/vmlinuz", "/vmlinuz-5"), full("boot/grub.cfg")]);
    assert!(listed.contains("grub.cfg, vmlinuz → /vmlinuz-5 (which does not exist in the image)"), "{listed}");
    let flawed = text(&[file("boot/Image", ""), directory("boot/kernel"), symlink("boot/vmlinuz", "vmlinuz")]);
    let flaws = "Image (which is empty), kernel (which is a directory), vmlinuz → vmlinuz (which is a link to itself)";
    assert!(flawed.contains(flaws), "{flawed}");
    let long: Vec<_> = (10..40).map(|n| symlink(format!("boot/{n}{}", "\x1b".repeat(240)), "x".repeat(4000))).collect();
    let cut = text(&long);
    assert!(cut.len() < 4000 && cut.contains(" more") && !cut.contains('\x1b'), "{cut}");
    let many: Vec<_> = (10..40).map(|n| full(&format!("boot/x{n}"))).collect();
    assert!(text(&many).contains("x29 and 10 more"));
    let no_initrd = text(&[full("boot/vmlinuz-6.1"), full("boot/initrd-6.2")]);
    assert!(
        no_initrd.contains("/boot/vmlinuz-6.1") && no_initrd.contains("\"-6.1\"") && no_initrd.contains("initrd-6.2"),
        "{no_initrd}"
    );
}
