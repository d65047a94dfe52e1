//! What UEFI firmware finds on a medium: which shim and GRUB of the image, under which names.
//!
//! Firmware starts `\EFI\BOOT\BOOT<arch>.EFI` of the ESP (UEFI 2.10 §3.5.1.1). That is the image's shim, which starts the GRUB beside it,
//! and so on to the kernel, each signed by who built the image's distribution: with Secure Boot the three have to fit together, which is
//! why they come from the image. Without them it is the GRUB of this program, unsigned.

use std::io;

use super::menu;
use crate::fat;
use crate::limits::EFI_PROGRAM_BYTES_MAX;
use crate::loaders;
use crate::rootfs::{BootFile, NodeKind, Tree, shown};
use crate::units::Arch;

/// What a file of the ESP holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A file of the image.
    Image(BootFile),
    /// The GRUB of this program.
    Embedded,
    Text(String),
}

/// What UEFI firmware boots a medium with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Efi {
    pub arch: Arch,
    /// Path in the ESP and content, in the order in which they are written.
    pub files: Vec<(String, Content)>,
    /// Where [`menu::redirect`] belongs, in the ESP (where a GRUB from a USB stick looks) and on the medium itself (where one from a CD does).
    pub redirects: Vec<String>,
    /// For the operator: what of this does not work with Secure Boot, and what to do.
    pub warning: Option<String>,
}

/// Why a medium would not boot under UEFI.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EfiError {
    #[error(
        "no EFI boot loader in the image, and riscv64 boots in no other way: looked for GRUB at {places}. Install grub-efi-riscv64-bin \
         (Debian, Ubuntu) when building the image"
    )]
    NoLoader { places: String },
    #[error("/{path} of the image has {size} bytes, too many for an EFI boot loader ({EFI_PROGRAM_BYTES_MAX} at most)")]
    TooLarge { path: String, size: u64 },
}

/// Why there is no ESP image.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    #[error("cannot read {path} of the image")]
    Read { path: String, source: io::Error },
    #[error("cannot unpack the GRUB of this program; the binary is damaged")]
    Embedded(#[source] io::Error),
    #[error(transparent)]
    Fat(#[from] fat::Error),
}

/// Label of the ESP.
pub const ESP_LABEL: &str = "EFI_LIVE";

/// How distributions call things on one architecture.
struct Names {
    /// Shim and GRUB: `shimx64.efi`.
    short: &'static str,
    /// openSUSE: `/usr/share/efi/x86_64`.
    long: &'static str,
    /// GRUB: `/usr/lib/grub/x86_64-efi`.
    platform: &'static str,
}

const fn names(arch: Arch) -> Names {
    match arch {
        Arch::Amd64 => Names { short: "x64", long: "x86_64", platform: "x86_64-efi" },
        Arch::Arm64 => Names { short: "aa64", long: "aarch64", platform: "arm64-efi" },
        Arch::Riscv64 => Names { short: "riscv64", long: "riscv64", platform: "riscv64-efi" },
    }
}

/// Directories of the Red Hat family, in this order; a shim and a GRUB of one of them belong together. The first directory is the ESP as
/// packages fill it, the second where images that update their ESP later (bootupd) keep the same.
const VENDORS: [&str; 8] = ["fedora", "rocky", "redhat", "almalinux", "centos", "ol", "BOOT", "opensuse"];
const VENDOR_PARENTS: [&str; 2] = ["boot/efi/EFI", "usr/lib/bootupd/updates/EFI"];

/// A program in the image, and where the GRUB that it is looks for its configuration.
struct Found {
    file: BootFile,
    /// As it stands in the list of places, before links.
    place: String,
    signed: bool,
}

/// Chooses the files for `arch`.
///
/// # Errors
/// When there is nothing at all to boot with, or a file that cannot be meant.
pub fn find(tree: &Tree, arch: Arch) -> Result<Efi, EfiError> {
    let shim = if arch == Arch::Riscv64 { None } else { first(tree, &shim_places(arch))? };
    let grub = first(tree, &grub_places(arch))?;
    let warning = warning(arch, shim.as_ref(), grub.as_ref());
    let boot = format!("EFI/BOOT/boot{}.efi", names(arch).short);
    let mut redirects = vec!["boot/grub/grub.cfg".to_owned(), "EFI/BOOT/grub.cfg".to_owned()];
    let mut files = Vec::new();
    match (shim, grub) {
        (Some(shim), Some(grub)) => {
            redirects.extend(vendor_redirects(&grub.place));
            let (second, manager) = (second_stage(&shim.place, arch), mok_manager(tree, &shim.place, arch)?);
            files.push((boot, Content::Image(shim.file)));
            files.push((format!("EFI/BOOT/{second}"), Content::Image(grub.file)));
            files.extend(manager.map(|(name, file)| (format!("EFI/BOOT/{name}"), Content::Image(file))));
        }
        (None, Some(grub)) => {
            redirects.extend(vendor_redirects(&grub.place));
            files.push((boot, Content::Image(grub.file)));
        }
        (_, None) if arch == Arch::Riscv64 => {
            let places: Vec<_> = grub_places(arch).into_iter().map(|place| format!("/{}", place.0)).collect();
            return Err(EfiError::NoLoader { places: places.join(", ") });
        }
        (_, None) => files.push((boot, Content::Embedded)),
    }
    if arch == Arch::Riscv64 {
        let text = menu::startup_nsh(&files[0].0);
        files.push(("startup.nsh".to_owned(), Content::Text(text)));
    }
    Ok(Efi { arch, files, redirects, warning })
}

impl Efi {
    /// The ESP with these files; `read` brings the bytes of a file of the image.
    ///
    /// # Errors
    /// Those of `read`, and what [`fat::esp`] refuses.
    pub fn esp(&self, read: &mut dyn FnMut(&BootFile) -> io::Result<Vec<u8>>) -> Result<Vec<u8>, EspError> {
        let mut contents: Vec<(&str, Vec<u8>)> = Vec::new();
        for (path, content) in &self.files {
            let bytes = match content {
                Content::Image(file) => {
                    read(file).map_err(|source| EspError::Read { path: shown(&file.path), source })?
                }
                Content::Embedded => loaders::efi_grub(names(self.arch).short).map_err(EspError::Embedded)?,
                Content::Text(text) => text.clone().into_bytes(),
            };
            contents.push((path, bytes));
        }
        contents.extend(self.redirects.iter().map(|path| (path.as_str(), menu::redirect().into_bytes())));
        let files: Vec<(&str, &[u8])> = contents.iter().map(|(path, bytes)| (*path, bytes.as_slice())).collect();
        Ok(fat::esp(ESP_LABEL, &files)?)
    }
}

/// The GRUB of this program for an architecture, if it has one.
///
/// # Errors
/// Only if this binary itself is damaged.
pub fn embedded_grub(arch: Arch) -> io::Result<Option<Vec<u8>>> {
    match arch {
        Arch::Amd64 | Arch::Arm64 => loaders::efi_grub(names(arch).short).map(Some),
        Arch::Riscv64 => Ok(None),
    }
}

/// Paths of shim in the order in which they are taken: openSUSE; Debian and Ubuntu, whose plain name is a link to one of the others;
/// the Red Hat family.
fn shim_places(arch: Arch) -> Vec<(String, bool)> {
    let Names { short, long, .. } = names(arch);
    let mut places = vec![format!("usr/share/efi/{long}/shim.efi")];
    places.extend(["dualsigned", "signed.latest", "signed"].map(|end| format!("usr/lib/shim/shim{short}.efi.{end}")));
    places.extend(vendor_places(&[&format!("shim{short}.efi"), "shim.efi"]));
    places.into_iter().map(|place| (place, true)).collect()
}

/// Paths of GRUB in the order in which they are taken, and whether what is there is signed. The builds for CDs (`gcd`) first: they can read
/// ISO 9660 and look for their configuration in /boot/grub and not where the installed system would have it.
fn grub_places(arch: Arch) -> Vec<(String, bool)> {
    let Names { short, long, platform } = names(arch);
    let mut places = vec![
        (format!("usr/lib/grub/{platform}-signed/gcd{short}.efi.signed"), true),
        (format!("usr/share/efi/{long}/grub.efi"), true),
        (format!("usr/lib/grub/{platform}-signed/grub{short}.efi.signed"), true),
    ];
    let vendors = vendor_places(&[&format!("gcd{short}.efi"), &format!("grub{short}.efi")]);
    places.extend(vendors.into_iter().map(|place| (place, true)));
    places.extend(
        ["monolithic/gcd", "grub", "monolithic/grub"]
            .map(|name| (format!("usr/lib/grub/{platform}/{name}{short}.efi"), false)),
    );
    places
}

fn vendor_places(file_names: &[&str]) -> Vec<String> {
    let directories = VENDOR_PARENTS.iter().flat_map(|parent| VENDORS.map(|vendor| format!("{parent}/{vendor}")));
    directories.flat_map(|directory| file_names.iter().map(move |name| format!("{directory}/{name}"))).collect()
}

/// The name under which a shim looks for GRUB is built into it: openSUSE's own, the architecture's with all others.
fn second_stage(shim: &str, arch: Arch) -> String {
    if shim.starts_with("usr/share/efi/") { "grub.efi".to_owned() } else { format!("grub{}.efi", names(arch).short) }
}

/// `MokManager`, which shim starts under this name when a key is to be enrolled. Not `fbx64.efi`, which often lies beside it: shim would
/// start that one instead of GRUB, to write boot entries for a disk.
fn mok_manager(tree: &Tree, shim: &str, arch: Arch) -> Result<Option<(String, BootFile)>, EfiError> {
    let directory = shim.rsplit_once('/').map_or("", |(directory, _)| directory);
    let manager = format!("mm{}.efi", names(arch).short);
    for name in [format!("{manager}.signed"), manager.clone(), "MokManager.efi".to_owned()] {
        if let Some(file) = program(tree, &format!("{directory}/{name}"))? {
            return Ok(Some((name.trim_end_matches(".signed").to_owned(), file)));
        }
    }
    Ok(None)
}

/// Where else a GRUB looks: builds for disks have their vendor's directory of the ESP built in. Debian's and Ubuntu's are called the same.
fn vendor_redirects(grub: &str) -> Vec<String> {
    if grub.contains("/gcd") {
        return Vec::new();
    }
    if grub.starts_with("usr/lib/grub/") {
        return ["debian", "ubuntu"].map(|vendor| format!("EFI/{vendor}/grub.cfg")).to_vec();
    }
    let vendor = VENDORS.iter().find(|vendor| **vendor != "BOOT" && grub.contains(&format!("/EFI/{vendor}/")));
    vendor.map(|vendor| format!("EFI/{vendor}/grub.cfg")).into_iter().collect()
}

fn warning(arch: Arch, shim: Option<&Found>, grub: Option<&Found>) -> Option<String> {
    const PACKAGES: &str = "shim-signed with grub-efi-amd64-signed or grub-efi-arm64-signed (Debian, Ubuntu), shim and grub2-efi (Red Hat \
                            family, openSUSE)";
    let without_secure_boot = "starts only on machines with Secure Boot switched off";
    let (what, has) = match (shim, grub) {
        _ if arch == Arch::Riscv64 => return None, // no shim is signed for it
        (Some(_), Some(grub)) if grub.signed => return None,
        (Some(_), Some(grub)) => ("the image's", format!("its GRUB, /{}, has no signature", grub.place)),
        (None, Some(_)) => ("the image's", "the image has GRUB but no shim".to_owned()),
        (Some(shim), None) => ("Debian's", format!("the image has shim, /{}, but no GRUB for UEFI", shim.place)),
        (None, None) => ("Debian's", "the image has neither shim nor GRUB for UEFI".to_owned()),
    };
    let unsigned = if grub.is_some() { "own" } else { "unsigned" };
    Some(format!(
        "{has}: under UEFI the medium boots with {what} {unsigned} GRUB and {without_secure_boot}. To boot with Secure Boot, add to the image: {PACKAGES}"
    ))
}

fn first(tree: &Tree, places: &[(String, bool)]) -> Result<Option<Found>, EfiError> {
    for (place, signed) in places {
        if let Some(file) = program(tree, place)? {
            return Ok(Some(Found { file, place: place.clone(), signed: *signed }));
        }
    }
    Ok(None)
}

/// A regular file with content, links resolved inside the image.
fn program(tree: &Tree, place: &str) -> Result<Option<BootFile>, EfiError> {
    let Ok((node, path)) = tree.resolve(place.as_bytes()) else { return Ok(None) };
    let (Ok(path), NodeKind::File { size, data: Some(_) }) = (String::from_utf8(path), tree.kind(node)) else {
        return Ok(None);
    };
    if size > EFI_PROGRAM_BYTES_MAX {
        return Err(EfiError::TooLarge { path: shown(&path), size });
    }
    Ok(Some(BootFile { path, node }))
}
