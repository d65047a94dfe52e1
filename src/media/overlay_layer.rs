//! An overlay of the root file system as one more layer on top of the image's.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use super::overlay::{Entry, Identity, Kind, Overlay, OverlayError, OverlayFile};
use crate::rootfs::LayerSource;
use crate::rootfs::tar::{self, Member, MemberKind};
use crate::units::Digest;

/// An image with an overlay.
pub(super) struct WithOverlay<'a> {
    image: &'a dyn LayerSource,
    overlay: Arc<Overlay>,
    digest: Digest,
}

impl<'a> WithOverlay<'a> {
    pub(super) fn new(
        image: &'a dyn LayerSource,
        overlay: Arc<Overlay>,
        identity: &Identity,
    ) -> Result<Self, OverlayError> {
        let is_whiteout = |entry: &&Entry| {
            let name = entry.path.rsplit(|byte| *byte == b'/').next();
            name.is_some_and(|name| name.starts_with(b".wh."))
        };
        if let Some(entry) = overlay.entries.iter().find(is_whiteout) {
            return Err(overlay.name_error(entry, "begins with .wh., which means a removed file in an image"));
        }
        let digest = format!("sha256:{}", identity.content).parse().unwrap_or(Digest([0; 32]));
        Ok(Self { image, overlay, digest })
    }
}

impl LayerSource for WithOverlay<'_> {
    fn count(&self) -> usize {
        self.image.count() + 1
    }

    fn digest(&self, layer: usize) -> Digest {
        if layer < self.image.count() { self.image.digest(layer) } else { self.digest }
    }

    fn open(&self, layer: usize) -> io::Result<Box<dyn Read + Send>> {
        if layer < self.image.count() {
            return self.image.open(layer);
        }
        Ok(Box::new(TarStream { overlay: Arc::clone(&self.overlay), next: 0, header: Cursor::default(), file: None }))
    }
}

/// A sentence about files that will not belong to root, which is seldom meant: a checkout belongs to whoever made it.
pub(super) fn doubt_owners(overlay: &Overlay) -> Option<String> {
    let foreign = overlay.entries.iter().filter(|entry| entry.uid != 0).count();
    (foreign > 0).then(|| {
        let total = overlay.entries.len();
        format!(
            "{foreign} of {total} files of iso.overlay_rootfs do not belong to root on this host, and will not in the image; if that is not \
             meant: chown -R root: {}",
            overlay.root.display()
        )
    })
}

/// The overlay as a tar archive (POSIX.1-2001, pax), made while it is read.
struct TarStream {
    overlay: Arc<Overlay>,
    /// Of the entries.
    next: usize,
    /// Headers, or what fills the last block of a file up.
    header: Cursor<Vec<u8>>,
    file: Option<(OverlayFile, u64)>,
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let got = self.header.read(buffer)?;
            if got > 0 {
                return Ok(got);
            }
            if let Some((file, size)) = &mut self.file {
                let entry = &self.overlay.entries[self.next - 1];
                let got = file.read(buffer).map_err(|error| self.overlay.named(entry, &error))?;
                if got > 0 {
                    return Ok(got);
                }
                self.header = Cursor::new(vec![0; tar::padding(*size) as usize]);
                self.file = None;
            } else if let Some(entry) = self.overlay.entries.get(self.next) {
                self.next += 1;
                self.header = Cursor::new(tar::encode(&member(entry)));
                if let Kind::File { size } = entry.kind {
                    let file = self.overlay.open(entry).map_err(|error| self.overlay.named(entry, &error))?;
                    self.file = Some((file, size));
                }
            } else if self.next == self.overlay.entries.len() {
                self.next += 1; // the end is written once
                self.header = Cursor::new(tar::END.to_vec());
            } else {
                return Ok(0);
            }
        }
    }
}

/// An entry as a member of an archive.
fn member(entry: &Entry) -> Member {
    let kind = match &entry.kind {
        Kind::Directory => MemberKind::Directory,
        Kind::File { size } => MemberKind::File { size: *size },
        Kind::Symlink { target } => MemberKind::Symlink(target.clone()),
    };
    let mode = (entry.mode & 0o7777) as u16;
    let Entry { path, uid, gid, mtime, .. } = entry;
    Member { path: path.clone(), kind, mode, uid: *uid, gid: *gid, mtime: *mtime, xattrs: Vec::new() }
}
