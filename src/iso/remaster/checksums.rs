//! Lists of checksums in an image, kept true: lines that speak of a replaced file go.

use super::{Error, Item, ItemKind};
use crate::iso::read::{Image, Kind};
use crate::limits::ISO_CHECKSUM_LIST_BYTES_MAX;
use crate::storage::Storage;

/// Debian's installer and live media, Ubuntu's, Arch's.
const LISTS: [&str; 4] = ["md5sum.txt", "sha256sum.txt", "MD5SUMS", "SHA256SUMS"];

/// A list as it is to be.
pub(super) struct List {
    pub(super) path: String,
    pub(super) content: Vec<u8>,
    pub(super) mode: u32,
    pub(super) mtime: u32,
}

/// The lists in the root of the image that have to change. A file that is added is not in them, which does no harm.
pub(super) fn lists<S: Storage + ?Sized>(image: &Image<'_, S>, items: &[Item]) -> Result<Vec<List>, Error> {
    let mtime = items.iter().map(|item| item.mtime).max().unwrap_or(0);
    let is_replaced = |path: &[u8]| {
        items.iter().any(|item| !matches!(item.kind, ItemKind::Directory) && item.path.as_bytes() == path)
    };
    let mut lists = Vec::new();
    for path in LISTS.into_iter().filter(|path| !is_replaced(path.as_bytes())) {
        let Ok(Some(entry)) = image.find(path) else { continue };
        if entry.kind != Kind::File || entry.size > ISO_CHECKSUM_LIST_BYTES_MAX {
            continue;
        }
        let mut old = Vec::new();
        for extent in &entry.extents {
            old.extend(image.disk().read(extent.offset, extent.length)?);
        }
        let lines = old.split_inclusive(|&byte| byte == b'\n');
        let content: Vec<u8> = lines.filter(|line| !listed(line).is_some_and(is_replaced)).flatten().copied().collect();
        if content.len() < old.len() {
            lists.push(List { path: path.to_owned(), content, mode: entry.mode.unwrap_or(0o444), mtime });
        }
    }
    Ok(lists)
}

/// The path that a line `<hex>  ./path` or `<hex> *path` speaks of.
fn listed(line: &[u8]) -> Option<&[u8]> {
    let at = line.iter().position(|&byte| byte == b' ').filter(|&at| at >= 32)?;
    let path = line[at + 1..].trim_ascii_end();
    let path = path.strip_prefix(b" ").or_else(|| path.strip_prefix(b"*")).unwrap_or(path);
    Some(path.strip_prefix(b"./").or_else(|| path.strip_prefix(b"/")).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::listed;

    #[test]
    fn every_form_of_a_line() {
        let sum = "0123456789abcdef0123456789abcdef";
        for form in ["  ./a/b c\n", "  a/b c\r\n", " *a/b c\n", "  /a/b c"] {
            assert_eq!(listed(format!("{sum}{form}").as_bytes()), Some(&b"a/b c"[..]), "{form:?}");
        }
        assert_eq!(listed(b"# a/b c\n"), None);
        assert_eq!(listed(b"\n"), None);
    }
}
