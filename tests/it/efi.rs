//! Which boot loaders are taken from images of different makers, and menus that GRUB itself reads.

use std::io::Write;
use std::process::{Command, Stdio};

use auroraboot::limits::EFI_PROGRAM_BYTES_MAX;
use auroraboot::media::efi::{self, Content, Efi, EfiError, EspError};
use auroraboot::media::menu::{self, MenuOptions};
use auroraboot::netboot::cmdline::{Cmdline, Urls};
use auroraboot::units::{Arch, MacAddr};

use crate::rootfs::layers::{MemoryImage, TestEntry, directory, file, merge, symlink};

fn find(arch: Arch, entries: &[TestEntry]) -> Result<Efi, EfiError> {
    efi::find(&merge(&MemoryImage::of(&[entries])).unwrap().tree, arch)
}

fn full(path: &str) -> TestEntry {
    file(path, path)
}

/// Name in the ESP ← path in the image (`*` for the program's own), without the texts.
fn chosen(arch: Arch, paths: &[&str]) -> Vec<String> {
    let entries: Vec<_> = paths.iter().map(|path| full(path)).collect();
    listed(&find(arch, &entries).unwrap())
}

fn listed(efi: &Efi) -> Vec<String> {
    let programs = efi.files.iter().filter_map(|(name, content)| match content {
        Content::Image(file) => Some(format!("{name} ← {}", file.path)),
        Content::Embedded => Some(format!("{name} ← *")),
        Content::Text(_) => None,
    });
    programs.collect()
}

const DEBIAN: [&str; 5] = [
    "usr/lib/shim/shimx64.efi.signed",
    "usr/lib/shim/mmx64.efi.signed",
    "usr/lib/shim/fbx64.efi.signed",
    "usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed",
    "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
];

#[test]
fn debian_has_a_grub_for_cds() {
    assert_eq!(
        chosen(Arch::Amd64, &DEBIAN),
        [
            "EFI/BOOT/bootx64.efi ← usr/lib/shim/shimx64.efi.signed",
            "EFI/BOOT/grubx64.efi ← usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed",
            "EFI/BOOT/mmx64.efi ← usr/lib/shim/mmx64.efi.signed"
        ]
    );
    let arm: Vec<String> =
        DEBIAN.iter().map(|path| path.replace("x86_64-efi", "arm64-efi").replace("x64", "aa64")).collect();
    let arm: Vec<&str> = arm.iter().map(String::as_str).collect();
    assert_eq!(
        chosen(Arch::Arm64, &arm)[1],
        "EFI/BOOT/grubaa64.efi ← usr/lib/grub/arm64-efi-signed/gcdaa64.efi.signed"
    );
    // An image without one for CDs: the other looks below its vendor's name, and two vendors call it the same.
    let without_cd: Vec<_> = DEBIAN.iter().filter(|path| !path.contains("gcd")).map(|path| full(path)).collect();
    let found = find(Arch::Amd64, &without_cd).unwrap();
    assert_eq!(listed(&found)[1], "EFI/BOOT/grubx64.efi ← usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed");
    assert_eq!(
        found.redirects,
        ["boot/grub/grub.cfg", "EFI/BOOT/grub.cfg", "EFI/debian/grub.cfg", "EFI/ubuntu/grub.cfg"]
    );
    assert_eq!(found.warning, None);
}

#[test]
fn ubuntu_links_its_shim_absolutely_through_alternatives() {
    let entries = [
        symlink("usr/lib/shim/shimx64.efi.signed", "/etc/alternatives/shimx64.efi.signed"),
        symlink("etc/alternatives/shimx64.efi.signed", "/usr/lib/shim/shimx64.efi.signed.latest"),
        full("usr/lib/shim/shimx64.efi.signed.latest"),
        full("usr/lib/shim/mmx64.efi"),
        full("usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
    ];
    assert_eq!(
        listed(&find(Arch::Amd64, &entries).unwrap()),
        [
            "EFI/BOOT/bootx64.efi ← usr/lib/shim/shimx64.efi.signed.latest",
            "EFI/BOOT/grubx64.efi ← usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed",
            "EFI/BOOT/mmx64.efi ← usr/lib/shim/mmx64.efi"
        ]
    );
}

#[test]
fn the_others_have_their_own_places_and_names() {
    let suse =
        ["usr/share/efi/x86_64/shim.efi", "usr/share/efi/x86_64/grub.efi", "usr/share/efi/x86_64/MokManager.efi"];
    assert_eq!(
        chosen(Arch::Amd64, &suse),
        [
            "EFI/BOOT/bootx64.efi ← usr/share/efi/x86_64/shim.efi",
            "EFI/BOOT/grub.efi ← usr/share/efi/x86_64/grub.efi",
            "EFI/BOOT/MokManager.efi ← usr/share/efi/x86_64/MokManager.efi"
        ]
    );
    for vendor in ["fedora", "rocky", "redhat", "almalinux"] {
        for parent in ["boot/efi/EFI", "usr/lib/bootupd/updates/EFI"] {
            for shim in ["shim.efi", "shimaa64.efi"] {
                let base = format!("{parent}/{vendor}");
                let entries = [full(&format!("{base}/{shim}")), full(&format!("{base}/grubaa64.efi"))];
                let found = find(Arch::Arm64, &entries).unwrap();
                assert_eq!(
                    listed(&found),
                    [
                        format!("EFI/BOOT/bootaa64.efi ← {base}/{shim}"),
                        format!("EFI/BOOT/grubaa64.efi ← {base}/grubaa64.efi")
                    ]
                );
                assert_eq!(found.redirects[2..], [format!("EFI/{vendor}/grub.cfg")]);
                assert_eq!(found.warning, None);
            }
        }
    }
}

#[test]
fn without_loaders_of_the_image_it_is_our_grub_and_the_operator_is_told() {
    let warning = |paths: &[&str]| {
        let entries: Vec<_> = paths.iter().map(|path| full(path)).collect();
        let found = find(Arch::Amd64, &entries).unwrap();
        (listed(&found), found.warning.unwrap())
    };
    let ours = vec!["EFI/BOOT/bootx64.efi ← *".to_owned()];
    let (files, text) = warning(&["etc/os-release"]);
    assert_eq!(files, ours);
    assert!(
        text.starts_with("the image has neither shim nor GRUB") && text.contains("Secure Boot switched off"),
        "{text}"
    );
    let (files, text) = warning(&["usr/lib/shim/shimx64.efi.signed"]);
    assert_eq!(files, ours, "shim would find nothing that it may start");
    assert!(text.contains("shim, /usr/lib/shim/shimx64.efi.signed, but no GRUB"), "{text}");
    let (files, text) = warning(&["usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"]);
    assert_eq!(files, ["EFI/BOOT/bootx64.efi ← usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"]);
    assert!(text.starts_with("the image has GRUB but no shim"), "{text}");
    let unsigned = "usr/lib/grub/x86_64-efi/grubx64.efi";
    let (files, text) = warning(&["usr/lib/shim/shimx64.efi.signed", unsigned]);
    assert_eq!(files[1], format!("EFI/BOOT/grubx64.efi ← {unsigned}"));
    assert!(text.contains("its GRUB, /usr/lib/grub/x86_64-efi/grubx64.efi, has no signature"), "{text}");
    // What is no file is not there: a link to nowhere, a directory, an empty file.
    let entries = [
        symlink("usr/lib/shim/shimx64.efi.signed", "/nowhere"),
        directory("usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed"),
        file("usr/share/efi/x86_64/grub.efi", ""),
    ];
    assert_eq!(listed(&find(Arch::Amd64, &entries).unwrap()), ours);
}

#[test]
fn riscv64_starts_grub_itself_or_from_the_shell() {
    let grub = "usr/lib/grub/riscv64-efi/monolithic/gcdriscv64.efi";
    let found = find(Arch::Riscv64, &[full(grub)]).unwrap();
    assert_eq!(listed(&found), [format!("EFI/BOOT/bootriscv64.efi ← {grub}")]);
    assert_eq!(found.warning, None);
    let (name, Content::Text(script)) = &found.files[1] else { panic!("{found:?}") };
    assert!(name == "startup.nsh" && script.contains(r"%d:\EFI\BOOT\bootriscv64.efi"), "{script}");
    let error = find(Arch::Riscv64, &[full("etc/os-release")]).unwrap_err().to_string();
    assert!(error.contains(grub) && error.contains("grub-efi-riscv64-bin"), "{error}");
}

#[test]
fn what_is_too_large_to_be_a_boot_loader_is_refused() {
    let path = "usr/lib/shim/shimx64.efi.signed";
    let size = usize::try_from(EFI_PROGRAM_BYTES_MAX).unwrap();
    assert!(find(Arch::Amd64, &[file(path, vec![1; size])]).is_ok());
    let refused = find(Arch::Amd64, &[file(path, vec![1; size + 1])]);
    assert_eq!(refused, Err(EfiError::TooLarge { path: path.to_owned(), size: EFI_PROGRAM_BYTES_MAX + 1 }));
}

#[test]
fn the_esp_holds_the_programs_and_the_way_to_the_menu() {
    let entries: Vec<_> = DEBIAN.iter().map(|path| full(path)).collect();
    let found = find(Arch::Amd64, &entries).unwrap();
    let mut read = Vec::new();
    let image = found
        .esp(&mut |file| {
            read.push(file.path.clone());
            Ok(file.path.clone().into_bytes())
        })
        .unwrap();
    assert_eq!(read, [DEBIAN[0], DEBIAN[3], DEBIAN[1]]);
    let holds = |text: &str| image.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("EFI_LIVE") && holds(DEBIAN[3]) && holds(&menu::redirect()));
    let failed = found.esp(&mut |_| Err(std::io::ErrorKind::UnexpectedEof.into()));
    assert!(matches!(failed, Err(EspError::Read { path, .. }) if path == DEBIAN[0]));
}

/// GRUB's own parser.
fn checked(script: &str) -> Result<(), String> {
    let mut child = Command::new("grub-script-check")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("grub-script-check (package grub-common)");
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn grub_reads_the_menu_whatever_the_operator_adds() {
    checked("menuentry {").expect_err("the judge judges");
    checked(&menu::redirect()).unwrap();
    for arch in Arch::ALL {
        for extension in [None, Some("quiet"), Some("a=\"} b\"\n { ; | & $x ${ # < > ( ) * ? [ ] ~ ` ! é")] {
            let options = MenuOptions { arch, live_console: extension, extend_cmdline: extension };
            let text = menu::grub_cfg(&options).unwrap();
            checked(&text).unwrap_or_else(|error| panic!("{error}{text}"));
            assert_eq!(text.matches("\nmenuentry ").count(), 6);
        }
    }
}

#[test]
fn the_menu_and_the_network_start_kairos_alike() {
    for arch in Arch::ALL {
        let urls = Urls { rootfs: "URL", cloud_config: None };
        let network = Cmdline::new(arch, None).unwrap().render(MacAddr([0; 6]), urls);
        let text = menu::grub_cfg(&MenuOptions { arch, live_console: None, extend_cmdline: None }).unwrap();
        let first = text.lines().find(|line| line.trim().starts_with("linux ")).unwrap();
        let of_the_network = ["rd.neednet", "ip", "root", "netboot", "BOOTIF", "console"];
        for word in network.split(' ').filter(|word| !of_the_network.contains(&word.split('=').next().unwrap())) {
            assert!(first.split(' ').any(|other| other == word), "{word} is missing in {first}");
        }
    }
}
