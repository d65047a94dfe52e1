//! Images and ISOs in, bootable ISOs out: what is in them, their reuse, and what must never be left behind.

mod build;
mod custom;
mod inspect;
mod judges;
mod overlay;

use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use auroraboot::media::menu::MenuOptions;
use auroraboot::media::{self, LayerSource, MediaError, Medium, Options, Watch};
use auroraboot::storage::Extent;
use auroraboot::units::Arch;

use crate::rootfs::layers::{MemoryImage, TestEntry, directory, entry, file, gzip, hard_link, symlink, tar};
use crate::rootfs::oracle::Scratch;

/// A state directory, and how ISOs are made in it.
pub struct Place {
    pub scratch: Scratch,
    pub workers: usize,
    pub arch: Arch,
    pub overlay: Option<PathBuf>,
    pub extend_cmdline: Option<&'static str>,
    pub name: media::names::Name,
}

impl Place {
    pub fn new(name: &str) -> Self {
        Self {
            scratch: Scratch::new(&format!("media-{name}")),
            workers: 2,
            arch: Arch::Amd64,
            overlay: None,
            extend_cmdline: None,
            name: "kairos".parse().unwrap(),
        }
    }

    pub fn iso(&self) -> PathBuf {
        self.scratch.0.join("iso")
    }

    pub fn stamp(&self) -> PathBuf {
        self.scratch.0.join("stamps/iso.json")
    }

    pub fn build(&self, image: &dyn LayerSource) -> Result<Medium, MediaError> {
        self.build_watched(image, &AtomicBool::new(false), |_| {})
    }

    pub fn build_watched(
        &self,
        image: &dyn LayerSource,
        cancelled: &AtomicBool,
        mut progress: impl FnMut(media::Progress),
    ) -> Result<Medium, MediaError> {
        let options = Options {
            directory: &self.iso(),
            name: &self.name,
            checksum_file: true,
            stamp: &self.stamp(),
            product: "test 1",
            menu: MenuOptions { arch: self.arch, live_console: None, extend_cmdline: self.extend_cmdline },
            overlay_rootfs: self.overlay.as_deref(),
            workers: NonZeroUsize::new(self.workers).unwrap(),
        };
        media::build(image, &options, &mut Watch { cancelled, progress: &mut progress })
    }
}

/// It begins as those with an EFI stub.
pub fn kernel() -> String {
    format!("MZ{}", "kernel ".repeat(40_000))
}

pub fn initrd() -> String {
    "initrd ".repeat(300_000)
}

/// A small image with all that matters, in two layers.
pub fn layers() -> Vec<Vec<TestEntry>> {
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
            file("boot/initrd", initrd()),
            directory("lib/modules/6.1"),
            file("usr/lib/shim/shimx64.efi.signed", "MZ shim"),
            file("usr/lib/grub/x86_64-efi-signed/gcdx64.efi.signed", "MZ grub"),
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

pub fn image(layers: &[Vec<TestEntry>]) -> MemoryImage {
    MemoryImage::new(layers.iter().map(|entries| gzip(&tar(entries))).collect())
}

/// The files of a directory, sorted; none where there is no directory.
pub fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The bytes of some extents.
pub fn bytes(path: &Path, extents: &[Extent]) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let mut bytes = Vec::new();
    for extent in extents {
        let mut piece = vec![0; usize::try_from(extent.length).unwrap()];
        file.read_exact_at(&mut piece, extent.offset).unwrap();
        bytes.extend(piece);
    }
    bytes
}

/// What a tool of the host says; it has to be content.
pub fn tool(program: &str, args: &[&str]) -> String {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program).args(args).env("PATH", path).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}: run tests/run"));
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

/// A file of an ISO by its Rock Ridge name, as another program reads it.
pub fn read_by_isoinfo(iso: &Path, path: &str) -> Vec<u8> {
    let output = Command::new("isoinfo").arg("-i").arg(iso).args(["-R", "-x", path]).output();
    output.expect("isoinfo is not installed: run tests/run").stdout
}

/// A small file system in memory, as root may mount it.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path, kib: u32) -> Self {
        fs::create_dir_all(path).unwrap();
        let size = format!("size={kib}k");
        tool("mount", &["-t", "tmpfs", "-o", &size, "tmpfs", path.to_str().unwrap()]);
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Another test that starts a program just now may hold a file of it for a moment: detached, it goes when that ends.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
