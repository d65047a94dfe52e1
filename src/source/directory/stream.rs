//! The tar archive of a directory, made while it is read.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;

use super::{Entry, State, Tree, words};
use crate::rootfs::tar::{self, MemberKind};
use crate::sys::holes::next_data;

/// What `st_blocks` counts in.
const BLOCK_BYTES: u64 = 512;

impl Tree {
    fn open(&self, entry: &Entry) -> io::Result<OpenFile> {
        let file = self.below.file(Path::new(OsStr::from_bytes(&entry.member.path)));
        OpenFile::new(file.map_err(gone)?, entry.state)
    }

    fn named(&self, entry: &Entry, error: &io::Error) -> io::Error {
        let place = self.root.join(OsStr::from_bytes(&entry.member.path));
        io::Error::new(error.kind(), format!("{}: {error}", words(&place)))
    }
}

pub(super) struct TarStream {
    tree: Arc<Tree>,
    /// Of the entries.
    next: usize,
    /// Headers, or what fills the last block of a file up.
    block: Cursor<Vec<u8>>,
    file: Option<OpenFile>,
}

impl TarStream {
    pub(super) fn new(tree: Arc<Tree>) -> Self {
        Self { tree, next: 0, block: Cursor::default(), file: None }
    }
}

impl Read for TarStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let got = self.block.read(buffer)?;
            if got > 0 {
                return Ok(got);
            }
            if let Some(file) = &mut self.file {
                let entry = &self.tree.entries[self.next - 1];
                let got = file.read(buffer).map_err(|error| self.tree.named(entry, &error))?;
                if got > 0 {
                    return Ok(got);
                }
                self.block = Cursor::new(vec![0; tar::padding(entry.state.size) as usize]);
                self.file = None;
            } else if let Some(entry) = self.tree.entries.get(self.next) {
                self.next += 1;
                self.block = Cursor::new(tar::encode(&entry.member));
                if matches!(entry.member.kind, MemberKind::File { .. }) {
                    self.file = Some(self.tree.open(entry).map_err(|error| self.tree.named(entry, &error))?);
                }
            } else if self.next == self.tree.entries.len() {
                self.next += 1; // the end is written once
                self.block = Cursor::new(tar::END.to_vec());
            } else {
                return Ok(0);
            }
        }
    }
}

/// A file that must not change while it is read.
struct OpenFile {
    file: File,
    at: u64,
    /// The stretch of data at or behind `at`. Holes are not read: the kernel would fill its cache with their zeros, which took 27 s
    /// for 8 GiB on ext4, and `lastlog` of a host with large user ids has hundreds.
    data: (u64, u64),
    state: State,
}

impl OpenFile {
    fn new(file: File, state: State) -> io::Result<Self> {
        let found = file.metadata()?;
        if State::of(&found) != state {
            return Err(changed());
        }
        let is_sparse = found.blocks() < state.size.div_ceil(BLOCK_BYTES);
        Ok(Self { file, at: 0, data: if is_sparse { (0, 0) } else { (0, u64::MAX) }, state })
    }

    /// How far it is from here to the end of the hole, or of the data, and which it is.
    fn stretch(&mut self) -> io::Result<(u64, bool)> {
        if self.at >= self.data.1 {
            self.data = next_data(&self.file, self.at)?.unwrap_or((u64::MAX, u64::MAX));
        }
        let (start, end) = self.data;
        Ok(if self.at < start { (start - self.at, true) } else { (end - self.at, false) })
    }
}

impl Read for OpenFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.state.size - self.at;
        if left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let (stretch, is_hole) = self.stretch()?;
        let want = usize::try_from(left.min(stretch)).unwrap_or(usize::MAX).min(buffer.len());
        let buffer = &mut buffer[..want];
        let got = if is_hole {
            buffer.fill(0);
            want
        } else {
            self.file.read_at(buffer, self.at)?
        };
        if got == 0 {
            return Err(changed());
        }
        self.at += got as u64;
        if self.at == self.state.size && State::of(&self.file.metadata()?) != self.state {
            return Err(changed());
        }
        Ok(got)
    }
}

/// What the walk saw is no longer there, or has become a link.
fn gone(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => changed(),
        _ => error,
    }
}

fn changed() -> io::Error {
    io::Error::other("it was changed while the directory was being read; run again when nothing writes to it")
}
