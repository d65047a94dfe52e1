//! Sparse files in a tar: a map of pieces, and only their data stored.
//!
//! Four ways to write the map exist: in old GNU headers, and in PAX formats 0.0 (repeated records), 0.1 (one record)
//! and 1.0 (text in front of the data). All end as a [`Pieces`] that has been checked.

use super::TarError;
use super::pax::decimal;
use crate::limits::TAR_SPARSE_PIECES_MAX;

/// The `GNU.sparse.*` records of an entry.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    pub name: Option<Vec<u8>>,
    pub version: (Option<u64>, Option<u64>),
    /// The file's size with the holes.
    pub size: Option<u64>,
    /// Formats 0.0 and 0.1: offset, length, offset, length …
    pub map: Option<Vec<u64>>,
}

impl PaxSparse {
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"name" => self.name = Some(value.to_vec()),
            b"major" => self.version.0 = Some(decimal(value)?),
            b"minor" => self.version.1 = Some(decimal(value)?),
            b"realsize" | b"size" => self.size = Some(decimal(value)?),
            b"offset" | b"numbytes" => {
                let map = self.map.get_or_insert_default();
                // Offset and length must take turns.
                if map.len().is_multiple_of(2) != (key == b"offset") {
                    return None;
                }
                map.push(decimal(value)?);
            }
            b"map" => {
                let numbers = value.split(|&b| b == b',').filter(|text| !text.is_empty());
                self.map = Some(numbers.map(decimal).collect::<Option<_>>()?);
            }
            _ => {} // numblocks: the map says it too
        }
        Some(())
    }

    /// Whether the map is text in front of the data.
    pub(super) fn map_in_data(&self) -> bool {
        self.version == (Some(1), Some(0))
    }
}

/// Reads a 1.0 map line by line; `None` asks for more input.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    line: Vec<u8>,
    numbers: Vec<u64>,
    /// How many numbers follow the first line.
    wanted: Option<usize>,
}

impl TextMap {
    /// Takes one block of the map; true when the map is complete.
    pub(super) fn block(&mut self, block: &[u8], at: u64) -> Result<bool, TarError> {
        for &byte in block {
            if byte != b'\n' {
                self.line.push(byte);
                if self.line.len() > 20 {
                    return Err(TarError::Sparse { at, why: "its map is not made of numbers" });
                }
                continue;
            }
            let number = decimal(&self.line).ok_or(TarError::Sparse { at, why: "its map is not made of numbers" })?;
            self.line.clear();
            if let Some(wanted) = self.wanted {
                self.numbers.push(number);
                if self.numbers.len() == wanted {
                    return Ok(true);
                }
            } else {
                let pieces = usize::try_from(number).unwrap_or(usize::MAX);
                if pieces > TAR_SPARSE_PIECES_MAX {
                    return Err(too_many());
                }
                self.wanted = Some(pieces * 2);
                if pieces == 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    pub(super) fn into_numbers(self) -> Vec<u64> {
        self.numbers
    }
}

pub(super) const fn too_many() -> TarError {
    TarError::Limit { what: "pieces of a sparse file", limit: TAR_SPARSE_PIECES_MAX as u64 }
}

/// The checked map of a sparse file: pieces of data in ascending order, holes between them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pieces(Vec<(u64, u64)>);

impl Pieces {
    pub(super) fn from_numbers(numbers: &[u64], size: u64, stored: u64, at: u64) -> Result<Self, TarError> {
        if !numbers.len().is_multiple_of(2) {
            return Err(TarError::Sparse { at, why: "its map ends in the middle" });
        }
        Self::new(numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect(), size, stored, at)
    }

    /// `size` is the file's with the holes, `stored` what the archive holds of it.
    pub(super) fn new(mut pieces: Vec<(u64, u64)>, size: u64, stored: u64, at: u64) -> Result<Self, TarError> {
        if pieces.len() > TAR_SPARSE_PIECES_MAX {
            return Err(too_many());
        }
        let mut end = 0;
        let mut sum = 0_u64;
        for &(offset, length) in &pieces {
            let piece_end = offset.checked_add(length).filter(|&piece_end| offset >= end && piece_end <= size);
            end = piece_end.ok_or(TarError::Sparse { at, why: "its pieces overlap or pass its end" })?;
            sum += length; // cannot pass `size`: the pieces are disjoint
        }
        if sum != stored {
            return Err(TarError::Sparse { at, why: "its pieces are not as long as its data" });
        }
        pieces.retain(|&(_, length)| length > 0);
        Ok(Self(pieces))
    }

    pub(super) fn into_iter(self) -> std::vec::IntoIter<(u64, u64)> {
        self.0.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_checked() {
        let map = |pieces: &[(u64, u64)], size, stored| Pieces::new(pieces.to_vec(), size, stored, 0);
        assert_eq!(map(&[(0, 3), (9, 1), (20, 0)], 20, 4).unwrap(), Pieces(vec![(0, 3), (9, 1)]));
        assert!(map(&[(0, 3), (2, 2)], 20, 5).is_err(), "overlap");
        assert!(map(&[(5, 1), (0, 1)], 20, 2).is_err(), "descending");
        assert!(map(&[(15, 6)], 20, 6).is_err(), "past the end");
        assert!(map(&[(u64::MAX, 2)], 20, 2).is_err(), "overflow");
        assert!(map(&[(0, 3)], 20, 4).is_err(), "data left over");
    }

    #[test]
    fn a_text_map_may_span_blocks() {
        let mut map = TextMap::default();
        assert!(!map.block(b"2\n0\n1", 0).unwrap());
        assert!(map.block(b"0\n20\n5\nrest", 0).unwrap());
        assert_eq!(map.into_numbers(), [0, 10, 20, 5]);
        assert!(TextMap::default().block(b"999999999\n", 0).is_err(), "more than the bound");
        assert!(TextMap::default().block(b"x\n", 0).is_err());
        assert!(TextMap::default().block(&[b'1'; 30], 0).is_err());
    }
}
