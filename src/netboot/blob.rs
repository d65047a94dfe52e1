//! A file to serve: byte ranges of an open file, wherever they lie in it.
//!
//! Kernel, initrd and squashfs may be three files or three places in one ISO; who serves them sees no difference.

use crate::storage::Extent;
use std::fs::File;
use std::sync::Arc;

/// The bytes of some extents of an open file, one after the other. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Blob {
    file: Arc<File>,
    extents: Arc<[Extent]>,
    size: u64,
    etag: Arc<str>,
}

impl Blob {
    /// `version` names the content (a digest, say): two blobs of one version hold the same bytes. It becomes the entity tag, so it
    /// has to be made of letters, digits and the like.
    #[must_use]
    pub fn new(file: Arc<File>, extents: Vec<Extent>, version: &str) -> Self {
        let size = extents.iter().fold(0_u64, |size, extent| size.saturating_add(extent.length));
        let version: String = version.chars().filter(|c| c.is_ascii_graphic() && *c != '"').collect();
        Self { file, extents: extents.into(), size, etag: format!("\"{version}\"").into() }
    }

    /// The whole of a file that has `size` bytes.
    #[must_use]
    pub fn whole(file: File, size: u64, version: &str) -> Self {
        Self::new(Arc::new(file), vec![Extent { offset: 0, length: size }], version)
    }

    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The strong entity tag, with its quotes.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.etag
    }

    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where byte number `position` lies in the file, and how many bytes follow it there without a gap. `None` behind the end.
    #[must_use]
    pub fn locate(&self, position: u64) -> Option<Extent> {
        let mut before = position;
        for extent in self.extents.iter() {
            if before < extent.length {
                return Some(Extent { offset: extent.offset.checked_add(before)?, length: extent.length - before });
            }
            before -= extent.length;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_found_in_their_extents() {
        let file = Arc::new(File::open("/dev/null").unwrap());
        let extents = vec![(100, 10), (0, 0), (50, 5)];
        let extents = extents.into_iter().map(|(offset, length)| Extent { offset, length }).collect();
        let blob = Blob::new(file, extents, "sha256:ab\"\r\n");
        assert_eq!((blob.size(), blob.etag()), (15, "\"sha256:ab\""));
        let place = |position| blob.locate(position).map(|extent| (extent.offset, extent.length));
        assert_eq!(place(0), Some((100, 10)));
        assert_eq!(place(9), Some((109, 1)));
        assert_eq!(place(10), Some((50, 5)));
        assert_eq!(place(14), Some((54, 1)));
        assert_eq!(place(15), None);
        assert_eq!(place(u64::MAX), None);
    }
}
