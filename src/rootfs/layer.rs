//! Where layers come from, and what is inside their wrapping.

use std::io::{self, BufReader, Cursor, Read};

use crate::limits::ZSTD_WINDOW_LOG_MAX;
use crate::units::Digest;

/// The layers of one image in the manifest's order: 0 is the lowest.
pub trait LayerSource: Sync {
    fn count(&self) -> usize;

    /// What the manifest calls the layer.
    fn digest(&self, layer: usize) -> Digest;

    /// The layer's blob as it is stored, compressed or not, from its beginning. It may block while the blob is still arriving, and must
    /// fail at the end when the digest does not match. Layers are read from the top one down; a few are opened a second time.
    fn open(&self, layer: usize) -> io::Result<Box<dyn Read + Send>>;
}

const BUFFER_BYTES: usize = 256 << 10;

/// The tar inside a blob. Its compression is told by its first bytes: media types are wrong often enough
/// that containerd does the same.
pub fn decompress(mut blob: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let mut start = Vec::with_capacity(6);
    blob.by_ref().take(6).read_to_end(&mut start)?;
    let magic: [u8; 6] = std::array::from_fn(|i| start.get(i).copied().unwrap_or_default());
    let blob = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(start).chain(blob));
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        // A frame, or a skippable frame as zstd:chunked and pzstd put in front.
        [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(blob)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', ..] => return Err(unsupported("bzip2")),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(unsupported("xz")),
        _ => Box::new(blob),
    })
}

fn unsupported(format: &str) -> io::Error {
    let message = format!("the layer is compressed with {format}; OCI knows gzip, zstd and none");
    io::Error::new(io::ErrorKind::Unsupported, message)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    fn read(blob: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut data = Vec::new();
        decompress(Box::new(Cursor::new(blob)))?.read_to_end(&mut data)?;
        Ok(data)
    }

    #[test]
    fn gzip_members_zstd_frames_and_plain() {
        assert_eq!(read([gzip(b"one "), gzip(b"two")].concat()).unwrap(), b"one two");
        let skippable = b"\x50\x2a\x4d\x18\x02\0\0\0xx".to_vec();
        let frame = |data: &[u8]| zstd::encode_all(data, 3).unwrap();
        assert_eq!(read([skippable, frame(b"one "), frame(b"two")].concat()).unwrap(), b"one two");
        assert_eq!(read(b"plain".to_vec()).unwrap(), b"plain");
        assert_eq!(read(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn what_is_cut_off_or_unknown_is_an_error() {
        let whole = gzip(&[7; 5000]);
        assert!(read(whole[..whole.len() - 9].to_vec()).is_err());
        let whole = zstd::encode_all(&[7; 5000][..], 3).unwrap();
        assert!(read(whole[..whole.len() - 1].to_vec()).is_err());
        assert!(read(b"BZh91AY&SY".to_vec()).unwrap_err().to_string().contains("bzip2"));
    }

    #[test]
    fn a_zstd_window_above_the_limit_is_refused() {
        let frame = |log| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.include_contentsize(false).unwrap();
            encoder.write_all(&[1; 100_000]).unwrap();
            encoder.finish().unwrap()
        };
        assert_eq!(read(frame(ZSTD_WINDOW_LOG_MAX)).unwrap().len(), 100_000);
        assert!(read(frame(ZSTD_WINDOW_LOG_MAX + 1)).is_err());
    }
}
