//! The boot programs inside the binary: stock iPXE and GRUB builds, compressed, with their notices.
//!
//! They are Debian's own (`image/loaders.lock` pins them), so everything that Debian's packages say of their source and licence
//! holds for them. iPXE goes over the network; GRUB goes onto media, as the whole of BIOS booting and, under UEFI, where an image
//! brings no boot loader of its own.

use std::fmt::Write as _;

include!(concat!(env!("OUT_DIR"), "/loaders.rs"));

/// What an embedded file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// iPXE: served by TFTP and HTTP.
    Netboot,
    /// GRUB: written onto media.
    Medium,
    /// Copyright notices and licences.
    Notice,
}

/// One embedded file and where it comes from.
#[derive(Debug)]
pub struct Loader {
    pub role: Role,
    /// Its name; for iPXE that in a TFTP or HTTP request.
    pub file: &'static str,
    /// Bytes once decompressed.
    size: usize,
    package: &'static str,
    version: &'static str,
    source: &'static str,
    source_version: &'static str,
    licence: &'static str,
    /// zstd.
    compressed: &'static [u8],
}

impl Loader {
    /// The file's bytes.
    ///
    /// # Errors
    /// Only if this binary itself is damaged.
    pub fn bytes(&self) -> std::io::Result<Vec<u8>> {
        zstd::bulk::decompress(self.compressed, self.size)
    }
}

/// What is served over the network.
pub fn netboot() -> impl Iterator<Item = &'static Loader> {
    with_role(Role::Netboot)
}

/// The embedded file of that name.
#[must_use]
pub fn find(file: &str) -> Option<&'static Loader> {
    LOADERS.iter().find(|loader| loader.file == file)
}

/// The El Torito image that boots a BIOS from CD: GRUB with every module that a medium's menu needs, prefix `/boot/grub2`.
///
/// # Errors
/// As [`Loader::bytes`].
pub fn bios_eltorito() -> std::io::Result<Vec<u8>> {
    bytes_of("grub-eltorito.img")
}

/// The boot sector that boots the same file as a disk: GRUB's, of which the first 440 bytes are code.
///
/// # Errors
/// As [`Loader::bytes`].
pub fn bios_boot_sector() -> std::io::Result<Vec<u8>> {
    bytes_of("boot_hybrid.img")
}

/// GRUB for the ESP of an image that has none, unsigned, prefix `/boot/grub`: `x64` or `aa64`. There is none for riscv64: it would take
/// 1.5 MB, and the distributions with riscv64 bring theirs.
///
/// # Errors
/// As [`Loader::bytes`]; another name is none in this binary.
pub fn efi_grub(arch: &str) -> std::io::Result<Vec<u8>> {
    bytes_of(&format!("gcd{arch}.efi"))
}

/// What `auroraboot --licenses` prints about the loaders: file, exact package, exact source, Debian's copyright notices and the
/// licences that they refer to.
///
/// # Errors
/// As [`Loader::bytes`].
pub fn notices() -> std::io::Result<String> {
    let mut text = String::from(
        "This program carries the following boot programs as Debian built them; grub-eltorito.img is put together from the unmodified files of\n\
         its package by Debian's grub-mkimage. They are separate programs that run on the machines being booted. `apt-get source PACKAGE=VERSION` on\n\
         Debian, with the source package named here, brings the exact source of each.\n\n",
    );
    for loader in LOADERS.iter().filter(|loader| loader.role != Role::Notice) {
        let _ = writeln!(
            text,
            "{}\n    binary package {} {}\n    source package {} {}\n    {}\n",
            loader.file, loader.package, loader.version, loader.source, loader.source_version, loader.licence
        );
    }
    for notice in with_role(Role::Notice) {
        let _ =
            writeln!(text, "──── {} (of Debian's package {} {}) ────\n", notice.file, notice.package, notice.version);
        text.push_str(&String::from_utf8_lossy(&notice.bytes()?));
        text.push('\n');
    }
    Ok(text)
}

fn with_role(role: Role) -> impl Iterator<Item = &'static Loader> {
    LOADERS.iter().filter(move |loader| loader.role == role)
}

fn bytes_of(file: &str) -> std::io::Result<Vec<u8>> {
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, format!("{file} is not in this binary"));
    find(file).ok_or_else(missing)?.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loader_comes_out_as_it_went_in() {
        for loader in LOADERS {
            assert_eq!(loader.bytes().expect("a whole file").len(), loader.size, "{}", loader.file);
        }
        let snponly = find("snponly.efi").expect("UEFI machines need it").bytes().expect("bytes");
        assert_eq!(&snponly[..2], b"MZ", "an EFI program is a PE file");
    }

    #[test]
    fn only_ipxe_is_served() {
        let served: Vec<&str> = netboot().map(|loader| loader.file).collect();
        assert_eq!(served, ["undionly.kpxe", "snponly.efi", "ipxe-amd64.efi", "ipxe-arm64.efi"]);
    }

    #[test]
    fn grub_is_what_its_formats_say() {
        let sector = bios_boot_sector().expect("bytes");
        assert_eq!((sector.len(), &sector[510..]), (512, &[0x55, 0xAA][..]), "a boot sector");
        let core = bios_eltorito().expect("bytes");
        assert!(core.len() > 64 << 10, "a core image with its modules: {} bytes", core.len());
        // grub-mkimage writes the prefix, which is where the menu is looked for, into the uncompressed head of the core image or into
        // its compressed part; the boot tests see to it. What can be seen here is where the boot information table goes (bytes 8 to 64).
        assert_eq!(core[8..24], [0; 16], "cdboot.img leaves room for the boot information table");
        // PE machine types (PE format, COFF header): 0x8664 x64, 0xAA64 ARM64.
        for (arch, machine) in [("x64", 0x8664_u16), ("aa64", 0xAA64)] {
            let program = efi_grub(arch).expect("bytes");
            let header = usize::from(u16::from_le_bytes([program[0x3C], program[0x3D]]));
            assert_eq!(&program[header..header + 4], b"PE\0\0");
            assert_eq!(program[header + 4..header + 6], machine.to_le_bytes());
        }
        assert!(efi_grub("riscv64").is_err());
    }

    #[test]
    fn the_notices_name_the_source_of_each_loader() {
        let text = notices().expect("text");
        for loader in LOADERS.iter().filter(|loader| loader.role != Role::Notice) {
            let source = format!(
                "{}\n    binary package {} {}\n    source package {} {}",
                loader.file, loader.package, loader.version, loader.source, loader.source_version
            );
            assert!(text.contains(&source), "{}", loader.file);
        }
        for title in [
            "GNU GENERAL PUBLIC LICENSE\n                       Version 2",
            "GNU GENERAL PUBLIC LICENSE\n                       Version 3",
        ] {
            assert!(text.contains(title), "the licences themselves");
        }
    }
}
