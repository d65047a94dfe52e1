//! The EFI system partition of media, judged by `fsck.vfat` and read by mtools.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use auroraboot::fat;

use crate::rootfs::oracle::Scratch;

fn run(program: &str, arguments: &[&str], image: &Path) -> Output {
    let found = Command::new(program).args(arguments).arg(image).env("MTOOLS_SKIP_CHECK", "0").output();
    found.unwrap_or_else(|error| panic!("{program} (packages dosfstools, mtools): {error}"))
}

fn shown(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&text));
    String::from_utf8(text).unwrap()
}

fn bytes(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|n| u8::try_from(n % 251).unwrap() ^ seed).collect()
}

#[test]
fn fsck_and_mtools_find_what_was_written() {
    let scratch = Scratch::new("esp");
    // As large as shim, MokManager and GRUB are, and larger: both cluster sizes.
    for grub in [2_400_000, 18_000_000] {
        let contents: [(&str, Vec<u8>); 7] = [
            ("EFI/BOOT/MokManager.efi", bytes(513, 3)),
            ("EFI/BOOT/MokManagerOther.efi", bytes(512, 4)),
            ("EFI/BOOT/bootx64.efi", bytes(950_000, 1)),
            ("EFI/BOOT/grubx64.efi", bytes(grub, 2)),
            ("EFI/BOOT/grub.cfg", b"configfile\n".to_vec()),
            ("boot/grub/grub.cfg", b"configfile\n".to_vec()),
            ("startup.nsh", Vec::new()),
        ];
        let files: Vec<(&str, &[u8])> = contents.iter().map(|(path, data)| (*path, data.as_slice())).collect();
        let image = fat::esp("EFI_LIVE", &files).unwrap();
        let path = scratch.0.join("esp.img");
        fs::write(&path, &image).unwrap();

        let report = shown(&run("fsck.vfat", &["-n", "-v"], &path));
        for complaint in ["dirty", "differ", "rror", "Label", "not supported", "Unused"] {
            assert!(!report.contains(complaint), "{report}");
        }
        let listing = shown(&run("mdir", &["-s", "-b", "-i"], &path));
        let mut listed: Vec<&str> = listing.lines().filter_map(|line| line.strip_prefix("::/")).collect();
        listed.retain(|name| !name.ends_with('/'));
        listed.sort_unstable();
        let mut expected: Vec<&str> = contents.iter().map(|(name, _)| *name).collect();
        expected.sort_unstable();
        assert_eq!(listed, expected);
        let details = shown(&run("mdir", &["-s", "-i"], &path));
        assert!(details.contains("Volume in drive : is EFI_LIVE"), "{details}");
        let dated = details.lines().filter(|line| line.contains("EFI ") || line.contains("efi ")).count();
        let fixed = details.lines().filter(|line| line.contains("1980-01-01")).count();
        assert!(fixed >= dated && dated > 0, "every entry has the fixed date: {details}");
        for (name, data) in &contents {
            let copy = scratch.0.join("copy");
            let image = path.to_str().unwrap();
            let output =
                Command::new("mcopy").args(["-n", "-o", "-i", image, &format!("::{name}")]).arg(&copy).output();
            shown(&output.unwrap());
            assert!(fs::read(&copy).unwrap() == *data, "{name}");
        }
    }
}
