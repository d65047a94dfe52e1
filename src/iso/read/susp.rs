//! What SUSP and Rock Ridge (IEEE P1281, P1282) say in a record's system use area and its continuations.

use super::Error;
use super::directory::Record;
use super::disk::{Budget, Disk};
use crate::iso::BLOCK;
use crate::iso::bytes::u32_at;
use crate::limits::ISO_CONTINUATION_BYTES_MAX;
use crate::storage::Storage;

/// Where a field stands: in the record itself, or in a continuation area.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::iso) enum Place {
    /// Byte of the record.
    Record(usize),
    /// Byte of the image.
    Disk(u64),
}

/// A block number, and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::iso) struct Pointer {
    pub(in crate::iso) location: u32,
    pub(in crate::iso) place: Place,
}

/// What one record's entries say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::iso) struct RockRidge {
    /// NM.
    pub(in crate::iso) name: Option<Vec<u8>>,
    /// PX: as `st_mode`.
    pub(in crate::iso) mode: Option<u32>,
    /// SL.
    pub(in crate::iso) target: Option<Vec<u8>>,
    /// CL: this record stands for a directory that lies elsewhere.
    pub(in crate::iso) child: Option<Pointer>,
    /// PL, in a moved directory's `..`: its parent.
    pub(in crate::iso) parent: Option<Pointer>,
    /// RE: this directory is reached through a CL.
    pub(in crate::iso) is_moved: bool,
    /// ZF: the data is compressed (zisofs).
    pub(in crate::iso) is_compressed: bool,
}

/// Reads the entries of a record. `skip` bytes of its area belong to somebody else.
pub(in crate::iso) fn parse<S: Storage + ?Sized>(
    disk: Disk<'_, S>,
    base: u64,
    record: Record<'_>,
    skip: u8,
    budget: &mut Budget,
) -> Result<RockRidge, Error> {
    let mut found = Found::default();
    let start = usize::from(skip);
    let area = record.system_use().get(start..).unwrap_or_default();
    let mut next = found.area(area, |at| Place::Record(record.system_use_at() + start + at));
    while let Some(Continuation { block, offset, len }) = next {
        let at = base.saturating_add(block.into()).saturating_mul(BLOCK).saturating_add(offset.into());
        if len > ISO_CONTINUATION_BYTES_MAX {
            return Err(Error::Continuation { offset: at, len });
        }
        budget.charge(len.into())?;
        let bytes = disk.read(at, len.into())?;
        next = found.area(&bytes, |position| Place::Disk(at + position as u64));
    }
    Ok(found.finish())
}

/// CE: where the entries go on.
struct Continuation {
    block: u32,
    offset: u32,
    len: u32,
}

/// What was found so far. Names and targets may be spread over several entries.
#[derive(Default)]
struct Found {
    rock_ridge: RockRidge,
    target: Target,
}

impl Found {
    /// Takes the entries of one area, up to its end or to an ST; what is malformed ends it too, as in Linux.
    fn area(&mut self, mut area: &[u8], place: impl Fn(usize) -> Place) -> Option<Continuation> {
        let mut continuation = None;
        let mut at = 0;
        while let [a, b, len, _, ..] = *area {
            let len = usize::from(len);
            let Some(entry) = area.get(4..len) else { break };
            match &[a, b] {
                b"ST" => break,
                b"CE" if entry.len() >= 24 => {
                    let (block, offset, len) = (u32_at(entry, 0), u32_at(entry, 8), u32_at(entry, 16));
                    continuation = Some(Continuation { block, offset, len });
                }
                signature => self.entry(signature, entry, || place(at + 4)),
            }
            at += len;
            area = &area[len..];
        }
        continuation
    }

    fn entry(&mut self, signature: &[u8; 2], entry: &[u8], place: impl Fn() -> Place) {
        let rock_ridge = &mut self.rock_ridge;
        let pointer = || (entry.len() >= 8).then(|| Pointer { location: u32_at(entry, 0), place: place() });
        match signature {
            // The flags for "." and ".." have no name behind them, and such records need none.
            b"NM" if entry.first().is_some_and(|flags| flags & 0x06 == 0) => {
                rock_ridge.name.get_or_insert_default().extend_from_slice(&entry[1..]);
            }
            b"PX" if entry.len() >= 32 => rock_ridge.mode = Some(u32_at(entry, 0)),
            b"SL" if !entry.is_empty() => self.target.add(&entry[1..]),
            b"CL" => rock_ridge.child = pointer(),
            b"PL" => rock_ridge.parent = pointer(),
            b"RE" => rock_ridge.is_moved = true,
            b"ZF" => rock_ridge.is_compressed = true,
            _ => {}
        }
    }

    fn finish(self) -> RockRidge {
        RockRidge { target: self.target.text, ..self.rock_ridge }
    }
}

/// The target of a symbolic link, put together from component records (P1282 §4.1.3.1).
#[derive(Default)]
struct Target {
    text: Option<Vec<u8>>,
    /// The last component goes on in the next one.
    is_open: bool,
}

impl Target {
    fn add(&mut self, mut components: &[u8]) {
        let text = self.text.get_or_insert_default();
        while let [flags, len, ..] = *components {
            let Some(content) = components.get(2..2 + usize::from(len)) else { break };
            components = &components[2 + usize::from(len)..];
            if !self.is_open && !text.is_empty() && !text.ends_with(b"/") {
                text.push(b'/');
            }
            match flags & 0x0e {
                0x02 => text.push(b'.'),
                0x04 => text.extend_from_slice(b".."),
                0x08 => *text = b"/".to_vec(),
                _ => text.extend_from_slice(content),
            }
            self.is_open = flags & 0x01 != 0;
        }
    }
}
