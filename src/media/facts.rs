//! What an image says about itself: its release file, its kernel and what that can mount.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::contents::Contents;
use crate::limits::{IMAGE_FACTS_MAX, IMAGE_TEXT_BYTES_MAX};
use crate::rootfs::{Boot, DataCount, NodeId, NodeKind, shown};
use crate::squashfs::{self, Compression};

/// For the operator, and for what depends on the image. Texts are fit to be shown on a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageFacts {
    /// `PRETTY_NAME` of os-release.
    pub name: Option<String>,
    /// `KAIROS_*` of kairos-release, or of os-release in images before Kairos 3.2; keys without the prefix.
    pub kairos: BTreeMap<String, String>,
    pub kernel_version: Option<String>,
    /// Paths inside the image, without a leading `/`.
    pub kernel_path: String,
    pub initrd_path: String,
    /// What the kernel's configuration says; `None` when the image has none.
    pub kernel_reads_squashfs: Option<bool>,
    pub kernel_reads_zstd: Option<bool>,
    /// `zstd` or `gzip`.
    pub compression: String,
    pub files: u64,
    /// Bytes of file data, unpacked.
    pub data_bytes: u64,
}

pub(super) fn gather(
    contents: &Contents<'_>,
    boot: &Boot,
    compression: Compression,
    count: &DataCount,
) -> Result<ImageFacts, squashfs::Error> {
    let text = |path: &[u8]| contents.tree.lookup(path).map_or(Ok(String::new()), |node| contents.text(node));
    let os_release = match text(b"etc/os-release")? {
        empty if empty.is_empty() => text(b"usr/lib/os-release")?,
        found => found,
    };
    let os_release = shell_variables(&os_release);
    let kairos_release = shell_variables(&text(b"etc/kairos-release")?);
    let kairos = os_release.iter().chain(&kairos_release);
    let kairos = kairos.filter_map(|(key, value)| Some((shown(key.strip_prefix("KAIROS_")?), shown(value))));
    let config = boot.config.map(|node| contents.text(node)).transpose()?;
    let enabled = |option: &str| config.as_deref().map(|config| is_enabled(config, option));
    Ok(ImageFacts {
        name: os_release.get("PRETTY_NAME").map(|name| shown(name)),
        kairos: kairos.take(IMAGE_FACTS_MAX).collect(),
        kernel_version: boot.version.as_deref().map(shown),
        kernel_path: shown(&boot.kernel.path),
        initrd_path: shown(&boot.initrd.path),
        kernel_reads_squashfs: enabled("CONFIG_SQUASHFS"),
        kernel_reads_zstd: enabled("CONFIG_SQUASHFS_ZSTD"),
        compression: match compression {
            Compression::Zstd { .. } => "zstd".to_owned(),
            Compression::Gzip { .. } => "gzip".to_owned(),
        },
        files: contents.tree.node_count() as u64,
        data_bytes: count.stored - count.dead,
    })
}

impl Contents<'_> {
    /// A small text file of the image; empty when it is too large to be one.
    fn text(&self, node: NodeId) -> Result<String, squashfs::Error> {
        let mut bytes = Vec::new();
        match self.tree.kind(node) {
            NodeKind::File { size, .. } if size <= IMAGE_TEXT_BYTES_MAX => self.copy(node, &mut bytes)?,
            _ => {}
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// `KEY=value` and `KEY="value"` lines.
fn shell_variables(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (key, value) = line.trim().split_once('=')?;
        let quoted = |quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote));
        let value = quoted('"').or_else(|| quoted('\'')).unwrap_or(value);
        (!key.starts_with('#')).then(|| (key.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

/// Whether a kernel configuration has an option built in or as a module.
fn is_enabled(config: &str, option: &str) -> bool {
    let set = |line: &str| line.strip_prefix(option).is_some_and(|value| matches!(value.trim(), "=y" | "=m"));
    config.lines().any(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_files_as_shells_read_them() {
        let text = "# KAIROS_X=1\nKAIROS_NAME=\"kairos-core\"\nKAIROS_FLAVOR='debian'\nVERSION=v1=2\nnonsense\n";
        let variables = shell_variables(text);
        let of = |key: &str| variables.get(key).map(String::as_str);
        assert_eq!((of("KAIROS_NAME"), of("KAIROS_FLAVOR")), (Some("kairos-core"), Some("debian")));
        assert_eq!((of("VERSION"), of("# KAIROS_X"), variables.len()), (Some("v1=2"), None, 3));
    }

    #[test]
    fn options_are_told_apart_from_longer_ones() {
        let config = "CONFIG_SQUASHFS=m\n# CONFIG_SQUASHFS_ZSTD is not set\nCONFIG_SQUASHFS_ZSTD_X=y\n";
        assert!(is_enabled(config, "CONFIG_SQUASHFS"));
        assert!(!is_enabled(config, "CONFIG_SQUASHFS_ZSTD"));
    }
}
