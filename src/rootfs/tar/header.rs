//! The 512-byte tar header: fields, numbers, checksum.
//!
//! Four dialects share the layout: V7, POSIX ustar, old GNU and star. They differ in the magic and in what follows byte 345.

use super::TarError;

pub(super) const BLOCK: usize = 512;

/// A header block whose checksum has been found right.
#[derive(Debug)]
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    dialect: Dialect,
    /// Position of the block in the archive, for messages.
    at: u64,
}

/// What an old GNU header says about a sparse file.
pub(super) struct OldSparse {
    /// Offset and length of up to four pieces.
    pub pieces: Vec<(u64, u64)>,
    /// Whether blocks with more pieces follow.
    pub more: bool,
    /// The file's size with the holes.
    pub size: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl<'a> Header<'a> {
    pub(super) fn parse(block: &'a [u8; BLOCK], at: u64) -> Result<Self, TarError> {
        let header = Self { block, dialect: Dialect::of(block), at };
        let wanted = header.number(148..156, "checksum")?;
        // Some old writers summed signed bytes; either sum is accepted, as everywhere.
        let bytes = || block.iter().enumerate().map(|(i, &b)| if (148..156).contains(&i) { b' ' } else { b });
        let unsigned: i64 = bytes().map(i64::from).sum();
        let signed: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
        if wanted != unsigned && wanted != signed {
            return Err(TarError::Checksum { at });
        }
        Ok(header)
    }

    pub(super) const fn kind(&self) -> u8 {
        self.block[156]
    }

    /// The name with the ustar prefix in front.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = self.text(0..100);
        let prefix = match self.dialect {
            Dialect::V7 | Dialect::Gnu => &[][..],
            Dialect::Ustar => self.text(345..500),
            Dialect::Star => self.text(345..476),
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, name].join(&b'/') }
    }

    pub(super) fn link_name(&self) -> Vec<u8> {
        self.text(157..257).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i64, TarError> {
        self.number(100..108, "mode")
    }

    pub(super) fn uid(&self) -> Result<i64, TarError> {
        self.number(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<i64, TarError> {
        self.number(116..124, "gid")
    }

    pub(super) fn size(&self) -> Result<u64, TarError> {
        let size = self.number(124..136, "size")?;
        u64::try_from(size).map_err(|_| TarError::Number { field: "size", at: self.at })
    }

    pub(super) fn mtime(&self) -> Result<i64, TarError> {
        self.number(136..148, "mtime")
    }

    /// Major and minor number of a device; V7 has none.
    pub(super) fn device(&self) -> Result<(i64, i64), TarError> {
        if self.dialect == Dialect::V7 {
            return Ok((0, 0));
        }
        Ok((self.number(329..337, "device major")?, self.number(337..345, "device minor")?))
    }

    /// The old GNU sparse fields.
    pub(super) fn sparse(&self) -> Result<OldSparse, TarError> {
        if self.dialect != Dialect::Gnu {
            return Err(TarError::Sparse { at: self.at, why: "the header is not in GNU format" });
        }
        let pieces = sparse_pieces(&self.block[386..482], self.at)?;
        let size = self.number(483..495, "sparse size")?;
        let size = u64::try_from(size).map_err(|_| TarError::Number { field: "sparse size", at: self.at })?;
        Ok(OldSparse { pieces, more: self.block[482] != 0, size })
    }

    fn text(&self, range: std::ops::Range<usize>) -> &'a [u8] {
        until_nul(&self.block[range])
    }

    fn number(&self, range: std::ops::Range<usize>, field: &'static str) -> Result<i64, TarError> {
        number(&self.block[range]).ok_or(TarError::Number { field, at: self.at })
    }
}

impl Dialect {
    fn of(block: &[u8; BLOCK]) -> Self {
        match &block[257..265] {
            b"ustar  \0" => Self::Gnu,
            [b'u', b's', b't', b'a', b'r', 0, ..] if &block[508..] == b"tar\0" => Self::Star,
            [b'u', b's', b't', b'a', b'r', 0, ..] => Self::Ustar,
            _ => Self::V7,
        }
    }
}

/// Reads (offset, length) pairs up to the first empty one: the old GNU sparse map.
pub(super) fn sparse_pieces(fields: &[u8], at: u64) -> Result<Vec<(u64, u64)>, TarError> {
    let read = |field: &[u8]| {
        number(field).and_then(|n| u64::try_from(n).ok()).ok_or(TarError::Number { field: "sparse map", at })
    };
    let mut pieces = Vec::new();
    for pair in fields.chunks_exact(24) {
        if pair[0] == 0 {
            break;
        }
        pieces.push((read(&pair[..12])?, read(&pair[12..])?));
    }
    Ok(pieces)
}

pub(super) fn until_nul(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Octal digits between blanks, or base-256 (top bit set): how GNU and star write what octal cannot hold.
fn number(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement; bit 6 of the first byte is the sign.
        let start = if first & 0x40 == 0 { i64::from(first & 0x3f) } else { i64::from(first.cast_signed()) };
        return field[1..].iter().try_fold(start, |n, &b| n.checked_mul(256)?.checked_add(i64::from(b)));
    }
    let blank = |b: &u8| matches!(b, b' ' | 0);
    let start = field.iter().position(|b| !blank(b)).unwrap_or(field.len());
    let digits = until_nul(&field[start..]).trim_ascii_end();
    digits.iter().try_fold(0_i64, |n, &b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_octal_and_base_256() {
        for (field, value) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"77777777", Some(0o7777_7777)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\x01", Some((2 << 32) + 1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"0000848\0", None),
            (b"-000001\0", None),
            (b"", None),
        ] {
            assert_eq!(number(field), value, "{field:?}");
        }
    }
}
