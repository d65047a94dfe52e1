//! A streaming tar reader: every dialect that image layers are written in.
//!
//! ustar, V7, star, GNU long names, PAX, base-256 numbers, and sparse files in all four formats. Data is read straight from the
//! decompressor. The `tar` crate was not taken because it buffers extension headers of any length and does not know PAX sparse files.
//!
//! Like Go's `archive/tar`, which containerd, Docker, podman and umoci share, it reads global PAX headers but does not apply them,
//! and takes the end of the stream between two entries for the end of the archive.

mod encode;
mod header;
mod pax;
mod sparse;

use std::io::{self, BufRead, BufReader, Read, Seek};

pub use self::encode::{END, encode};
use self::header::{BLOCK, Header, OldSparse, sparse_pieces, until_nul};
use self::pax::Pax;
use self::sparse::{Pieces, TextMap, too_many};
use crate::limits::{TAR_EXTENSION_BYTES_MAX, TAR_SPARSE_PIECES_MAX};

/// Large enough that decoders do not see the 512-byte headers, small enough to stay in the cache.
const BUFFER_BYTES: usize = 64 << 10;

/// One member of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As stored: may begin with `/` or `./`, end with `/`, contain `..`.
    pub path: Vec<u8>,
    pub kind: MemberKind,
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970; fractions are dropped.
    pub mtime: i64,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// The size counts the holes of a sparse file.
    File {
        size: u64,
    },
    Directory,
    /// The path of the member it is another name of.
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
}

/// Why an archive cannot be read; positions are bytes in the decompressed stream.
#[derive(Debug, thiserror::Error)]
pub enum TarError {
    #[error("cannot read on at byte {at}")]
    Read { at: u64, source: io::Error },
    #[error("the archive ends in the middle of an entry, at byte {at}")]
    Truncated { at: u64 },
    #[error("no tar header at byte {at}: the checksum is wrong")]
    Checksum { at: u64 },
    #[error("the {field} in the tar header at byte {at} is not a number that fits")]
    Number { field: &'static str, at: u64 },
    #[error("malformed PAX record in the header at byte {at}")]
    Pax { at: u64 },
    #[error("malformed sparse file at byte {at}: {why}")]
    Sparse { at: u64, why: &'static str },
    #[error("the name in the header at byte {at} is empty or contains a NUL")]
    Name { at: u64 },
    #[error("entry type {kind:?} at byte {at} is not supported")]
    Kind { kind: char, at: u64 },
    #[error("{what}: more than the limit of {limit}")]
    Limit { what: &'static str, limit: u64 },
}

/// Reads the members of an archive one after the other; as [`Read`], it gives the data of the current one.
pub struct Archive<R> {
    input: BufReader<R>,
    at: u64,
    body: Body,
    /// What [`Read::read`] ran into: an [`io::Error`] cannot carry it to the caller's caller.
    failure: Option<TarError>,
}

impl<R> std::fmt::Debug for Archive<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Archive").field("at", &self.at).finish_non_exhaustive()
    }
}

/// Where the reader is in the data of the current member.
#[derive(Debug, Default)]
struct Body {
    /// Bytes of data in the archive that have not been read.
    stored: u64,
    /// What fills the last block up.
    padding: u64,
    /// Bytes of the file that have not been read, holes counted.
    left: u64,
    /// Set for sparse files.
    sparse: Option<SparseBody>,
}

#[derive(Debug)]
struct SparseBody {
    position: u64,
    /// The piece at or after the position.
    piece: Option<(u64, u64)>,
    rest: std::vec::IntoIter<(u64, u64)>,
}

/// Extension headers met in front of a member.
#[derive(Debug, Default)]
struct Extensions {
    pax: Pax,
    name: Option<Vec<u8>>,
    link_name: Option<Vec<u8>>,
    bytes: u64,
}

impl<R: Read> Archive<R> {
    pub fn new(input: R) -> Self {
        Self { input: BufReader::with_capacity(BUFFER_BYTES, input), at: 0, body: Body::default(), failure: None }
    }

    /// How many bytes of the stream have been read.
    pub const fn position(&self) -> u64 {
        self.at
    }

    /// The next member, past whatever is unread of the current one; `None` at the end of the archive.
    pub fn next_member(&mut self) -> Result<Option<Member>, TarError> {
        self.skip(self.body.stored)?;
        self.skip(self.body.padding)?;
        self.body = Body::default();
        let mut extensions = Extensions::default();
        loop {
            let at = self.at;
            let mut block = [0; BLOCK];
            if !self.read_header_block(&mut block)? {
                // An extension header announces a member: an archive must not end behind one.
                return if extensions.bytes == 0 { Ok(None) } else { Err(TarError::Truncated { at }) };
            }
            let header = Header::parse(&block, at)?;
            match header.kind() {
                b'x' => {
                    let records = self.extension(&header, &mut extensions)?;
                    extensions.pax.read(&records, at)?;
                }
                b'g' => {
                    let records = self.extension(&header, &mut extensions)?;
                    Pax::default().read(&records, at)?;
                }
                b'L' => {
                    let name = self.extension(&header, &mut extensions)?;
                    extensions.name = Some(until_nul(&name).to_vec());
                }
                b'K' => {
                    let name = self.extension(&header, &mut extensions)?;
                    extensions.link_name = Some(until_nul(&name).to_vec());
                }
                _ => return self.member(&header, extensions, at).map(Some),
            }
        }
    }

    /// Reads to the end of the stream, so that a digest over it is complete; at most `bytes_max` more bytes.
    pub fn finish(mut self, bytes_max: u64) -> Result<R, TarError> {
        let mut left = bytes_max;
        loop {
            let available = self.input.fill_buf();
            let available = available.map_err(|source| TarError::Read { at: self.at, source })?.len();
            if available == 0 {
                return Ok(self.input.into_inner());
            }
            left = left
                .checked_sub(available as u64)
                .ok_or(TarError::Limit { what: "bytes behind the end of the archive", limit: bytes_max })?;
            self.input.consume(available);
            self.at += available as u64;
        }
    }

    /// Whether the holes of the current member are left out of its data, so that this is no copy of the file.
    pub const fn is_sparse(&self) -> bool {
        self.body.sparse.is_some()
    }

    /// Why reading the current member's data failed, when it did.
    pub fn take_failure(&mut self) -> Option<TarError> {
        self.failure.take()
    }

    /// False at the end of the archive: two empty blocks, or the end of the stream between members.
    fn read_header_block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, TarError> {
        for empty_blocks in 0..2 {
            let got = self.read_up_to(block)?;
            if got == 0 {
                return Ok(false);
            }
            if got < BLOCK {
                return Err(TarError::Truncated { at: self.at });
            }
            if block.iter().any(|&b| b != 0) {
                // Go and GNU tar stop at one empty block too, but complain; what follows would be silently lost.
                return if empty_blocks == 0 {
                    Ok(true)
                } else {
                    Err(TarError::Checksum { at: self.at - BLOCK as u64 })
                };
            }
        }
        Ok(false)
    }

    fn extension(&mut self, header: &Header<'_>, extensions: &mut Extensions) -> Result<Vec<u8>, TarError> {
        let size = header.size()?;
        let limit = TAR_EXTENSION_BYTES_MAX;
        extensions.bytes = extensions.bytes.saturating_add(size).saturating_add(BLOCK as u64);
        if extensions.bytes > limit {
            return Err(TarError::Limit { what: "bytes of extension headers in front of one entry", limit });
        }
        let mut bytes = vec![0; usize::try_from(size).unwrap_or_default()];
        self.read_all(&mut bytes)?;
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn member(&mut self, header: &Header<'_>, extensions: Extensions, at: u64) -> Result<Member, TarError> {
        let Extensions { pax, name, link_name, .. } = extensions;
        let path = pax.sparse.name.clone().or(pax.path).or(name).unwrap_or_else(|| header.name());
        let link = pax.link_path.or(link_name).unwrap_or_else(|| header.link_name());
        if path.is_empty() || path.contains(&0) {
            return Err(TarError::Name { at });
        }
        let device = || {
            let (major, minor) = header.device()?;
            let fit = |number: i64| u32::try_from(number).map_err(|_| TarError::Number { field: "device number", at });
            Ok((fit(pax.device.0.unwrap_or(major))?, fit(pax.device.1.unwrap_or(minor))?))
        };
        let kind = match header.kind() {
            // V7 had no type for directories.
            0 if path.ends_with(b"/") => MemberKind::Directory,
            0 | b'0' | b'7' | b'S' => {
                let stored = pax.size.map_or_else(|| header.size(), Ok)?;
                MemberKind::File { size: self.start_body(header, &pax.sparse, stored, at)? }
            }
            // What the size field of the others says is not followed by data (so does Go).
            b'1' => MemberKind::HardLink(link),
            b'2' => MemberKind::Symlink(link),
            b'3' => device().map(|(major, minor)| MemberKind::CharDevice { major, minor })?,
            b'4' => device().map(|(major, minor)| MemberKind::BlockDevice { major, minor })?,
            b'5' => MemberKind::Directory,
            b'6' => MemberKind::Fifo,
            kind => return Err(TarError::Kind { kind: char::from(kind), at }),
        };
        let id = |number: i64, field| u32::try_from(number).map_err(|_| TarError::Number { field, at });
        Ok(Member {
            path,
            kind,
            mode: u16::try_from(header.mode()? & 0o7777).unwrap_or_default(),
            uid: id(pax.uid.map_or_else(|| header.uid(), Ok)?, "uid")?,
            gid: id(pax.gid.map_or_else(|| header.gid(), Ok)?, "gid")?,
            mtime: pax.mtime.map_or_else(|| header.mtime(), Ok)?,
            xattrs: pax.xattrs,
        })
    }

    /// Prepares for the data of a file; returns its size with the holes.
    fn start_body(
        &mut self,
        header: &Header<'_>,
        pax: &sparse::PaxSparse,
        stored: u64,
        at: u64,
    ) -> Result<u64, TarError> {
        self.body = Body { stored, padding: padding(stored), left: stored, sparse: None };
        let (pieces, size) = if header.kind() == b'S' {
            self.gnu_sparse(header, stored, at)?
        } else if pax.map_in_data() {
            let size = pax.size.ok_or(TarError::Sparse { at, why: "its size is missing" })?;
            let numbers = self.text_map(at)?;
            (Pieces::from_numbers(&numbers, size, self.body.stored, at)?, size)
        } else if let Some(map) = &pax.map {
            let size = pax.size.ok_or(TarError::Sparse { at, why: "its size is missing" })?;
            (Pieces::from_numbers(map, size, stored, at)?, size)
        } else {
            return Ok(stored);
        };
        let mut rest = pieces.into_iter();
        self.body.left = size;
        self.body.sparse = Some(SparseBody { position: 0, piece: rest.next(), rest });
        Ok(size)
    }

    fn gnu_sparse(&mut self, header: &Header<'_>, stored: u64, at: u64) -> Result<(Pieces, u64), TarError> {
        let OldSparse { mut pieces, mut more, size } = header.sparse()?;
        while more {
            let mut block = [0; BLOCK];
            self.read_all(&mut block)?;
            pieces.extend(sparse_pieces(&block[..504], at)?);
            if pieces.len() > TAR_SPARSE_PIECES_MAX {
                return Err(too_many());
            }
            more = block[504] != 0;
        }
        Ok((Pieces::new(pieces, size, stored, at)?, size))
    }

    fn text_map(&mut self, at: u64) -> Result<Vec<u64>, TarError> {
        let mut map = TextMap::default();
        loop {
            let mut block = [0; BLOCK];
            let stored = self.body.stored.checked_sub(BLOCK as u64);
            self.body.stored = stored.ok_or(TarError::Sparse { at, why: "its map is longer than its data" })?;
            self.read_all(&mut block)?;
            if map.block(&block, at)? {
                return Ok(map.into_numbers());
            }
        }
    }

    fn skip(&mut self, mut count: u64) -> Result<(), TarError> {
        while count > 0 {
            let available = self.input.fill_buf();
            let available = available.map_err(|source| TarError::Read { at: self.at, source })?.len();
            if available == 0 {
                return Err(TarError::Truncated { at: self.at });
            }
            let step = count.min(available as u64);
            self.input.consume(usize::try_from(step).unwrap_or(available));
            self.at += step;
            count -= step;
        }
        Ok(())
    }

    fn read_all(&mut self, buffer: &mut [u8]) -> Result<(), TarError> {
        let wanted = buffer.len();
        if self.read_up_to(buffer)? == wanted { Ok(()) } else { Err(TarError::Truncated { at: self.at }) }
    }

    /// Fills the buffer unless the stream ends.
    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, TarError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(got) => {
                    filled += got;
                    self.at += got as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(TarError::Read { at: self.at, source }),
            }
        }
        Ok(filled)
    }

    fn read_stored(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.body.stored).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let failure = match self.input.read(&mut buffer[..wanted]) {
            Ok(0) => TarError::Truncated { at: self.at },
            Ok(got) => {
                self.at += got as u64;
                self.body.stored -= got as u64;
                return Ok(got);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(source) => TarError::Read { at: self.at, source },
        };
        let error = io::Error::other(failure.to_string());
        self.failure = Some(failure);
        Err(error)
    }
}

impl<R: Read + Seek> Archive<R> {
    /// Goes past the data of the current member without reading it. Seeking beyond the end is no error: whether the input holds
    /// the data is for the caller to know.
    pub fn seek_past_data(&mut self) -> Result<(), TarError> {
        let body = std::mem::take(&mut self.body);
        let length = body.stored.checked_add(body.padding).filter(|length| self.at.checked_add(*length).is_some());
        let offset = length.and_then(|length| i64::try_from(length).ok());
        let (Some(length), Some(offset)) = (length, offset) else { return Err(TarError::Truncated { at: self.at }) };
        self.input.seek_relative(offset).map_err(|source| TarError::Read { at: self.at, source })?;
        self.at += length;
        Ok(())
    }
}

impl<R: Read> Read for Archive<R> {
    /// The data of the current member, holes as zeros.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.body.left).unwrap_or(usize::MAX));
        if wanted == 0 {
            return Ok(0);
        }
        let buffer = &mut buffer[..wanted];
        let Some(sparse) = &mut self.body.sparse else {
            let got = self.read_stored(buffer)?;
            self.body.left -= got as u64;
            return Ok(got);
        };
        let until = |end: u64| wanted.min(usize::try_from(end).unwrap_or(usize::MAX));
        let got = match sparse.piece {
            Some((offset, length)) if offset <= sparse.position => {
                let in_piece = until(offset + length - sparse.position);
                self.read_stored(&mut buffer[..in_piece])?
            }
            next => {
                let hole = next.map_or(wanted, |(offset, _)| until(offset - sparse.position));
                buffer[..hole].fill(0);
                hole
            }
        };
        if let Some(sparse) = &mut self.body.sparse {
            sparse.position += got as u64;
            if sparse.piece.is_some_and(|(offset, length)| sparse.position >= offset + length) {
                sparse.piece = sparse.rest.next();
            }
        }
        self.body.left -= got as u64;
        Ok(got)
    }
}

pub const fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

#[cfg(test)]
mod tests;
