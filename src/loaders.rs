//! The boot loaders inside the binary: stock iPXE builds, compressed, with their notices.
//!
//! They are Debian's own, unmodified (`image/loaders.lock` pins them), so everything that Debian's package says of their
//! source and licence holds for them.

use std::fmt::Write as _;

include!(concat!(env!("OUT_DIR"), "/loaders.rs"));

/// One embedded file and where it comes from.
#[derive(Debug)]
pub struct Loader {
    /// Its name in Debian's package and in a TFTP or HTTP request.
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
    /// Whether this is a boot loader and not the notices that come with them.
    #[must_use]
    pub fn is_program(&self) -> bool {
        self.file != COPYRIGHT
    }

    /// The file's bytes.
    ///
    /// # Errors
    /// Only if this binary itself is damaged.
    pub fn bytes(&self) -> std::io::Result<Vec<u8>> {
        zstd::bulk::decompress(self.compressed, self.size)
    }
}

/// The embedded file of that name.
#[must_use]
pub fn find(file: &str) -> Option<&'static Loader> {
    LOADERS.iter().find(|loader| loader.file == file)
}

/// What `auroraboot --licenses` prints about the loaders: file, exact package, exact source, and Debian's copyright notices.
///
/// # Errors
/// As [`Loader::bytes`].
pub fn notices() -> std::io::Result<String> {
    let mut text = String::from(
        "This program carries the following boot loaders, unmodified, as Debian built them. They are separate programs that run on the\n\
         machines being booted. `apt-get source PACKAGE=VERSION` on Debian brings the exact source of each.\n\n",
    );
    for loader in LOADERS.iter().filter(|loader| loader.is_program()) {
        let _ = writeln!(
            text,
            "{}\n    binary package {} {}\n    source package {} {}\n    {}\n",
            loader.file, loader.package, loader.version, loader.source, loader.source_version, loader.licence
        );
    }
    if let Some(copyright) = find(COPYRIGHT) {
        text.push_str("The notices of the package:\n\n");
        text.push_str(&String::from_utf8_lossy(&copyright.bytes()?));
    }
    Ok(text)
}

/// Not a loader: what Debian says of the package.
const COPYRIGHT: &str = "copyright";

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
    fn the_notices_name_the_source_of_each_loader() {
        let text = notices().expect("text");
        for loader in LOADERS.iter().filter(|loader| loader.is_program()) {
            assert!(text.contains(loader.file) && text.contains(loader.source_version), "{}", loader.file);
        }
        assert!(text.contains("GPL-2"), "the licence itself");
    }
}
