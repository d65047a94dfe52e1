//! An overlay of the root file system as one more layer on top of the image's.

use std::io::{self, Cursor, Read};
use std::sync::Arc;

use super::overlay::{Entry, Identity, Kind, Overlay, OverlayError, OverlayFile};
use crate::rootfs::LayerSource;
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

const BLOCK: usize = 512;

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
                self.header = Cursor::new(vec![0; padding(*size)]);
                self.file = None;
            } else if let Some(entry) = self.overlay.entries.get(self.next) {
                self.next += 1;
                self.header = Cursor::new(headers(entry));
                if let Kind::File { size } = entry.kind {
                    let file = self.overlay.open(entry).map_err(|error| self.overlay.named(entry, &error))?;
                    self.file = Some((file, size));
                }
            } else if self.next == self.overlay.entries.len() {
                self.next += 1; // the end is written once
                self.header = Cursor::new(vec![0; 2 * BLOCK]);
            } else {
                return Ok(0);
            }
        }
    }
}

/// Bytes from the end of a file's data to that of its last block.
fn padding(size: u64) -> usize {
    (BLOCK - (size % BLOCK as u64) as usize) % BLOCK
}

/// The largest number of 7 and of 11 octal digits.
const SMALL_MAX: u64 = 0o7_777_777;
const LARGE_MAX: u64 = 0o77_777_777_777;

/// The header of an entry, with a pax header in front if anything does not fit it.
fn headers(entry: &Entry) -> Vec<u8> {
    let (kind, size, target) = match &entry.kind {
        Kind::Directory => (b'5', 0, &[][..]),
        Kind::File { size } => (b'0', *size, &[][..]),
        Kind::Symlink { target } => (b'2', 0, target.as_slice()),
    };
    let mut records = Vec::new();
    for (key, value) in [("path", entry.path.as_slice()), ("linkpath", target)] {
        if value.len() > 100 {
            pax_record(&mut records, key, value);
        }
    }
    let numbers =
        [("uid", u64::from(entry.uid), SMALL_MAX), ("gid", u64::from(entry.gid), SMALL_MAX), ("size", size, LARGE_MAX)];
    for (key, number, max) in numbers {
        if number > max {
            pax_record(&mut records, key, number.to_string().as_bytes());
        }
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        header(&mut bytes, b'x', b"pax", &[], records.len() as u64, None);
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    header(&mut bytes, kind, &entry.path, target, size, Some(entry));
    bytes
}

fn pax_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn header(bytes: &mut Vec<u8>, kind: u8, path: &[u8], target: &[u8], size: u64, entry: Option<&Entry>) {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    let (mode, uid, gid, mtime) =
        entry.map_or((0o644, 0, 0, 0), |entry| (entry.mode, entry.uid, entry.gid, entry.mtime));
    put(0, &path[..path.len().min(100)]);
    put(100, format!("{mode:07o}").as_bytes());
    put(108, format!("{:07o}", u64::from(uid).min(SMALL_MAX)).as_bytes());
    put(116, format!("{:07o}", u64::from(gid).min(SMALL_MAX)).as_bytes());
    put(124, format!("{:011o}", size.min(LARGE_MAX)).as_bytes());
    put(136, format!("{:011o}", u64::try_from(mtime).unwrap_or(0).min(LARGE_MAX)).as_bytes());
    put(148, b"        ");
    put(156, &[kind]);
    put(157, &target[..target.len().min(100)]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    bytes.extend_from_slice(&block);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootfs::tar::{Archive, MemberKind};

    fn read_back(entry: &Entry) -> (Vec<u8>, MemberKind, u64, u64) {
        let mut archive = Archive::new(Cursor::new(headers(entry)));
        let member = archive.next_member().unwrap().unwrap();
        (member.path, member.kind, u64::from(member.uid), u64::from(member.gid))
    }

    #[test]
    fn what_does_not_fit_a_header_stands_before_it() {
        let mut entry = Entry::new("file", Kind::File { size: 5 });
        assert_eq!(headers(&entry).len(), BLOCK);
        assert_eq!(read_back(&entry), (b"file".to_vec(), MemberKind::File { size: 5 }, 0, 0));
        (entry.uid, entry.gid) = (3_000_000, u32::MAX);
        entry.kind = Kind::File { size: 9 << 30 };
        entry.path = [b'p'; 101].to_vec();
        let (uid, gid) = (3_000_000, u64::from(u32::MAX));
        assert_eq!(read_back(&entry), (entry.path.clone(), MemberKind::File { size: 9 << 30 }, uid, gid));
        // Lengths of records around those where the length itself gets a digit more.
        for len in (80..110).chain(980..1010) {
            entry.kind = Kind::Symlink { target: vec![b't'; len] };
            assert_eq!(read_back(&entry).1, MemberKind::Symlink(vec![b't'; len]), "{len}");
        }
    }
}
