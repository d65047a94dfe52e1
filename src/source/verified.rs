//! A reader that gives its end out only when the sha256 of all that it read is the wanted one.

use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::units::Digest;

/// The bytes are not those that were promised.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} has the digest {actual} instead of {wanted}: it is damaged, or was altered")]
pub struct Mismatch {
    pub what: String,
    pub wanted: Digest,
    pub actual: Digest,
}

/// Passes on what `inner` gives, all but the last byte: with it goes the promise that the digest was right. No decompressor and no
/// tar reader sees its end without that byte, so whoever saw the end saw what the digest names.
pub struct Reader<R> {
    inner: R,
    what: String,
    wanted: Digest,
    hash: Sha256,
    /// The last byte that was read; there may be no other behind it.
    held: Option<u8>,
    verified: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("what", &self.what).field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl<R: Read> Reader<R> {
    /// `what` names the bytes in [`Mismatch`].
    pub fn new(inner: R, wanted: Digest, what: String) -> Self {
        Self { inner, what, wanted, hash: Sha256::new(), held: None, verified: false }
    }

    /// The end: the verdict.
    fn finish(&mut self) -> io::Result<()> {
        let actual = Digest(self.hash.clone().finalize().into());
        if actual != self.wanted {
            let mismatch = Mismatch { what: self.what.clone(), wanted: self.wanted, actual };
            return Err(io::Error::new(io::ErrorKind::InvalidData, mismatch));
        }
        self.verified = true;
        Ok(())
    }

    /// Room for one byte only: the next one takes the place of the one that is held.
    fn read_byte(&mut self, place: &mut u8, held: u8) -> io::Result<usize> {
        let mut next = [0];
        if self.inner.read(&mut next)? == 0 {
            self.finish()?;
            self.held = None;
        } else {
            self.hash.update(next);
            self.held = Some(next[0]);
        }
        *place = held;
        Ok(1)
    }
}

impl<R: Read> Read for Reader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.verified {
            return Ok(0);
        }
        if let ([place], Some(held)) = (&mut *buffer, self.held) {
            return self.read_byte(place, held);
        }
        loop {
            let before = usize::from(self.held.is_some());
            if let Some(held) = self.held {
                buffer[0] = held;
            }
            let count = self.inner.read(&mut buffer[before..])?;
            if count == 0 {
                self.finish()?;
                self.held = None;
                return Ok(before);
            }
            self.hash.update(&buffer[before..before + count]);
            let given = before + count - 1;
            self.held = Some(buffer[given]);
            if given > 0 {
                return Ok(given);
            }
            if let [place] = &mut *buffer {
                let held = std::mem::take(place);
                return self.read_byte(place, held);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifest::digest_of;

    /// Gives its bytes out in pieces of a certain length.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.1.min(buffer.len()).min(self.0.len());
            buffer[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    fn read(reader: &mut impl Read, room: usize) -> (Vec<u8>, io::Result<()>) {
        let (mut all, mut buffer) = (Vec::new(), vec![0; room]);
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => return (all, Ok(())),
                Ok(count) => all.extend_from_slice(&buffer[..count]),
                Err(error) => return (all, Err(error)),
            }
        }
    }

    #[test]
    fn everything_comes_through_whatever_the_pieces() {
        for data in [&b""[..], b"a", b"ab", b"abcdefghij"] {
            for piece in 1..=11 {
                for room in 1..=12 {
                    let mut reader = Reader::new(Pieces(data, piece), digest_of(data), "x".to_owned());
                    let (all, end) = read(&mut reader, room);
                    assert_eq!(all, data, "pieces of {piece}, room for {room}");
                    end.unwrap();
                    assert_eq!(reader.read(&mut [0; 4]).unwrap(), 0, "the end stays the end");
                }
            }
        }
    }

    #[test]
    fn the_last_byte_of_what_is_wrong_never_comes() {
        let data = b"abcdefghij";
        for piece in 1..=11 {
            for room in 1..=12 {
                let mut reader = Reader::new(Pieces(data, piece), digest_of(b"other"), "layer 1 of x".to_owned());
                let (all, end) = read(&mut reader, room);
                assert_eq!(all, data[..9], "pieces of {piece}, room for {room}");
                let text = end.unwrap_err().to_string();
                assert!(text.starts_with("layer 1 of x has the digest sha256:72399361"), "{text}");
                assert!(reader.read(&mut [0; 4]).is_err(), "it stays wrong");
            }
        }
        let mut empty = Reader::new(&b""[..], digest_of(b"other"), "x".to_owned());
        assert!(empty.read(&mut [0; 4]).is_err(), "nothing instead of something");
    }
}
