//! What the ISO writer makes, in the eyes of other tools: xorriso, isoinfo, sgdisk. Kernels mount it in the lab.

mod random;

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use auroraboot::iso::{Bios, Boot, Error, Options, Writer, read};
use auroraboot::limits::ISO_BOOT_IMAGE_BYTES_MAX;
use auroraboot::storage::{Extent, Section, Storage};

use crate::remaster::sources::noise;

const OPTIONS: Options<'static> =
    Options { volume_id: "COS_LIVE", mtime: 1_700_000_000, application: "AURORABOOT TEST" };

/// A folder that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("auroraboot-iso-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn image(&self) -> (PathBuf, Arc<File>) {
        let path = self.0.join("image.iso");
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        (path, Arc::new(file))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).env("PATH", path()).env("LC_ALL", "C.UTF-8").output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed (tests/packages it): {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

fn path() -> String {
    format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default())
}

/// A FAT file system as far as its first sector.
fn esp() -> Vec<u8> {
    let mut esp = noise(4 << 20, 9);
    esp[510..512].copy_from_slice(&[0x55, 0xaa]);
    esp
}

const LONG: &str = "a name that is longer than what a directory record has room for beside the other entries, and longer than Joliet allows, \
    so that it goes on in a continuation area and is cut elsewhere.yaml";

/// An image as the product makes one, in small.
fn hybrid(file: &Arc<File>) -> u64 {
    let mut writer = Writer::new(Arc::clone(file), OPTIONS).unwrap();
    let squashfs = noise(300_001, 1);
    Section::new(Arc::clone(file), writer.position()).write_all_at(&squashfs, 0).unwrap();
    writer.adopt("rootfs.squashfs", squashfs.len() as u64, 0o644).unwrap();
    for (path, bytes) in [
        ("boot/kernel", noise(70_000, 2)),
        ("boot/initrd", noise(90_000, 3)),
        ("boot/eltorito.img", noise(60_000, 4)),
        ("boot/grub2/grub.cfg", b"menuentry".to_vec()),
        ("EFI/BOOT/grub.cfg", b"search".to_vec()),
        ("empty", Vec::new()),
        (LONG, b"long".to_vec()),
        ("d/e/e/p/e/r/t/h/a/n/eight", b"deep".to_vec()),
    ] {
        writer.add_file(path, bytes.len() as u64, &mut &bytes[..], 0o644).unwrap();
    }
    let mbr = noise(512, 5);
    let boot = Boot { bios: Some(Bios { image: "boot/eltorito.img", mbr: &mbr }), esp: Some(&esp()) };
    writer.finish(&boot).unwrap().size
}

#[test]
fn other_tools_find_nothing_to_complain_of() {
    let scratch = Scratch::new("tools");
    let (path, file) = scratch.image();
    let size = hybrid(&file);
    assert_eq!(fs::metadata(&path).unwrap().len(), size);
    let path = path.to_str().unwrap();

    let report = tool("xorriso", &["-indev", path, "-report_el_torito", "plain", "-report_system_area", "plain"]);
    for expected in [
        "Volume id    : 'COS_LIVE'",
        "El Torito images   :   N  Pltf  B   Emul  Ld_seg  Hdpt  Ldsiz         LBA",
        "El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4",
        "El Torito boot img :   2  UEFI  y   none  0x0000  0x00   8192",
        "El Torito img opts :   1  boot-info-table grub2-boot-info",
        "System area summary: MBR protective-msdos-label grub2-mbr cyl-align-off GPT",
        "GPT partition name :   1",
    ] {
        assert!(report.contains(expected), "{expected:?} is not in: {report}");
    }
    let report = tool("isoinfo", &["-d", "-i", path]);
    assert!(report.contains(&format!("Volume size is: {}\n", size / 2048)), "{report}");
    let report = tool("sgdisk", &["-v", path]);
    assert!(report.contains("No problems found"), "{report}");
    let report = tool("isoinfo", &["-J", "-f", "-i", path]);
    assert!(report.contains("/boot/grub2/grub.cfg") && report.contains("/d/e/e/p/e/r/t/h/a/n/eight"), "{report}");
    let report = tool("isoinfo", &["-R", "-f", "-i", path]);
    assert!(report.contains(&format!("/{LONG}")), "{report}");
    let report = tool("isoinfo", &["-f", "-i", path]);
    assert!(report.contains("/ROOTFS.SQUASHFS;1"), "{report}");
}

/// Every file of the image as another program takes it out.
#[test]
fn xorriso_takes_out_what_went_in_from_both_sets() {
    let scratch = Scratch::new("extract");
    let (path, file) = scratch.image();
    hybrid(&file);
    for (name, offset) in [("whole", "0"), ("partition", "32768")] {
        // Partition 1 is a volume of its own; a tool that knows nothing of partitions takes it as a file that begins there.
        let image = scratch.0.join(name);
        let mut bytes = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut bytes).unwrap();
        fs::write(&image, &bytes[offset.parse::<usize>().unwrap()..]).unwrap();
        let out = scratch.0.join(format!("{name}-files"));
        tool("xorriso", &["-osirrox", "on", "-indev", image.to_str().unwrap(), "-extract", "/", out.to_str().unwrap()]);
        assert!(fs::read(out.join("rootfs.squashfs")).unwrap() == noise(300_001, 1), "{name}");
        assert!(fs::read(out.join("boot/kernel")).unwrap() == noise(70_000, 2), "{name}");
        assert_eq!(fs::read(out.join("empty")).unwrap(), b"");
        assert_eq!(fs::read(out.join(LONG)).unwrap(), b"long");
        assert_eq!(fs::read(out.join("d/e/e/p/e/r/t/h/a/n/eight")).unwrap(), b"deep");
        tool("chmod", &["-R", "u+w", out.to_str().unwrap()]);
    }
}

#[test]
fn our_own_reader_finds_every_file() {
    let scratch = Scratch::new("reader");
    let (_, file) = scratch.image();
    let size = hybrid(&file);
    let image = read::Image::open(&file, size).unwrap();
    assert_eq!(image.volume_id(), "COS_LIVE");
    let kernel = image.find("/boot/kernel").unwrap().expect("the kernel");
    let mut bytes = vec![0; 70_000];
    assert_eq!(kernel.extents.iter().map(|extent| extent.length).sum::<u64>(), 70_000);
    FileExt::read_exact_at(&*file, &mut bytes, kernel.extents[0].offset).unwrap();
    assert!(bytes == noise(70_000, 2));
    assert!(image.find(LONG).unwrap().is_some() && image.find("/boot/none").unwrap().is_none());
}

#[test]
fn a_file_above_4_gib_is_whole() {
    let scratch = Scratch::new("large");
    let (path, file) = scratch.image();
    let mut writer = Writer::new(Arc::clone(&file), OPTIONS).unwrap();
    let (length, at) = (5 << 30, writer.position());
    // Sparse: only the marks take room.
    for (offset, mark) in [(0, b"first"), ((4_u64 << 30) - 2, b"cross"), (length - 5, b"last.")] {
        file.write_all_at(mark, at + offset).unwrap();
    }
    writer.adopt("large", length, 0o644).unwrap();
    writer.add_file("small", 5, &mut &b"small"[..], 0o600).unwrap();
    let size = writer.finish(&Boot::default()).unwrap().size;
    let report =
        tool("xorriso", &["-indev", path.to_str().unwrap(), "-find", "/", "-type", "f", "-exec", "report_lba"]);
    let sections: Vec<&str> = report.lines().filter(|line| line.contains("'/large'")).collect();
    assert_eq!(sections.len(), 2, "{report}");
    assert!(sections.iter().all(|line| line.contains(" 5368709120 ,")), "{report}");
    let image = read::Image::open(&file, size).unwrap();
    let total: u64 = image.find("large").unwrap().unwrap().extents.iter().map(|extent| extent.length).sum();
    assert_eq!(total, length);
}

#[test]
fn equal_input_makes_equal_bytes() {
    let scratch = Scratch::new("equal");
    let (path, file) = scratch.image();
    hybrid(&file);
    let first = fs::read(&path).unwrap();
    let (path, file) = scratch.image();
    let size = hybrid(&file) as usize;
    let second = fs::read(&path).unwrap();
    assert_eq!((first.len(), size), (size, second.len()));
    let difference = first.iter().zip(&second).position(|(a, b)| a != b);
    assert_eq!(difference.map(|at| at / 2048), None, "the first different block");
}

#[test]
fn what_cannot_be_written_says_why() {
    let scratch = Scratch::new("errors");
    let (_, file) = scratch.image();
    let writer = || Writer::new(Arc::clone(&file), OPTIONS).unwrap();
    assert!(matches!(
        Writer::new(Arc::clone(&file), Options { volume_id: "cos live", ..OPTIONS }),
        Err(Error::VolumeId(_))
    ));
    let short = writer().add_file("f", 10, &mut &b"12345"[..], 0).unwrap_err();
    assert_eq!(short.to_string(), "what is to become \"f\" in the ISO ended 5 bytes early");
    let boot = Boot { bios: Some(Bios { image: "boot/eltorito.img", mbr: &[] }), esp: None };
    assert!(matches!(writer().finish(&boot), Err(Error::NoBootImage(_))));
    let mut with_image = writer();
    with_image.add_file("boot/eltorito.img", 100, &mut &[0; 100][..], 0).unwrap();
    assert!(matches!(with_image.finish(&boot), Err(Error::BootImage { .. })));
    let mut with_image = writer();
    with_image.adopt("boot/eltorito.img", ISO_BOOT_IMAGE_BYTES_MAX as u64 + 1, 0).unwrap();
    assert!(matches!(with_image.finish(&boot), Err(Error::BootImage { .. })));
    let Extent { offset, .. } = writer().adopt("huge", 1 << 42, 0o644).unwrap();
    assert_eq!(offset, writer().position());
    assert!(matches!(writer().adopt("huger", 1 << 44, 0o644), Err(Error::TooBig)));
}
