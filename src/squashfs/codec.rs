//! Compresses and inflates single blocks: zstd frames or zlib streams.

use super::{Compression, Error};
use flate2::{Compress, Decompress, FlushCompress, FlushDecompress, Status};
use std::io;

/// A compressor that is used for many blocks; one per thread.
pub(super) enum Compressor {
    Zstd(zstd::bulk::Compressor<'static>),
    Gzip(Box<Compress>),
}

impl Compressor {
    /// # Errors
    /// A level out of range, no memory.
    pub(super) fn new(compression: Compression) -> Result<Compressor, Error> {
        match compression {
            Compression::Zstd { level } if (1..=22).contains(&level) => {
                zstd::bulk::Compressor::new(level).map(Compressor::Zstd).map_err(Error::Write)
            }
            Compression::Gzip { level } if (1..=9).contains(&level) => {
                Ok(Compressor::Gzip(Box::new(Compress::new(flate2::Compression::new(level), true))))
            }
            _ => Err(Error::Level),
        }
    }

    /// Compresses `input` into the start of `output`; the compressed length, or `None` when it would not be shorter
    /// and the block is to be stored plain. `output` is at least as long as `input`.
    pub(super) fn compress(&mut self, input: &[u8], output: &mut [u8]) -> Option<usize> {
        let limit = input.len().checked_sub(1)?;
        let output = output.get_mut(..limit)?;
        match self {
            // "Destination too small" is the only error a healthy compressor has; stored plain is always correct.
            Compressor::Zstd(zstd) => zstd.compress_to_buffer(input, output).ok(),
            Compressor::Gzip(zlib) => {
                zlib.reset();
                match zlib.compress(input, output, FlushCompress::Finish) {
                    Ok(Status::StreamEnd) => usize::try_from(zlib.total_out()).ok(),
                    _ => None,
                }
            }
        }
    }
}

/// Inflates one block into the start of `output` and returns its length.
///
/// # Errors
/// Damaged data, or more of it than `output` holds.
pub(super) fn decompress(compression: Compression, input: &[u8], output: &mut [u8]) -> io::Result<usize> {
    match compression {
        Compression::Zstd { .. } => zstd::bulk::decompress_to_buffer(input, output),
        Compression::Gzip { .. } => {
            let mut zlib = Decompress::new(true);
            match zlib.decompress(input, output, FlushDecompress::Finish) {
                Ok(Status::StreamEnd) => usize::try_from(zlib.total_out()).map_err(io::Error::other),
                Ok(_) => Err(io::Error::from(io::ErrorKind::InvalidData)),
                Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Compression; 2] = [Compression::Zstd { level: 3 }, Compression::Gzip { level: 9 }];

    /// Bytes no compressor can shorten (xorshift).
    fn noise(len: usize) -> Vec<u8> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 24) as u8
            })
            .collect()
    }

    #[test]
    fn round_trip_with_a_reused_compressor_gives_the_same_bytes_each_time() {
        for compression in BOTH {
            let mut compressor = Compressor::new(compression).unwrap();
            let input: Vec<u8> = (0..100_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
            let mut first = vec![0; input.len()];
            let len = compressor.compress(&input, &mut first).unwrap();
            // Another block in between must leave no trace: the image may not depend on which worker took which block.
            let mut other = vec![0; 50_000];
            compressor.compress(&noise(50_000), &mut other);
            compressor.compress(&input[..9_999], &mut other).unwrap();
            let mut again = vec![0; input.len()];
            assert_eq!(compressor.compress(&input, &mut again), Some(len));
            assert_eq!(first[..len], again[..len]);
            let mut back = vec![0; input.len()];
            assert_eq!(decompress(compression, &first[..len], &mut back).unwrap(), input.len());
            assert_eq!(back, input);
        }
    }

    #[test]
    fn what_does_not_shrink_is_stored_plain() {
        for compression in BOTH {
            let mut compressor = Compressor::new(compression).unwrap();
            for input in [&b""[..], b"a", &noise(5000)] {
                assert_eq!(compressor.compress(input, &mut vec![0; 8192]), None);
            }
        }
    }

    #[test]
    fn damaged_and_oversized_blocks_are_errors() {
        for compression in BOTH {
            let mut packed = vec![0; 8192];
            let len = Compressor::new(compression).unwrap().compress(&[7; 8192], &mut packed).unwrap();
            assert!(decompress(compression, &packed[..len], &mut [0; 8191]).is_err());
            assert!(decompress(compression, &packed[..len / 2], &mut [0; 8192]).is_err());
            assert!(decompress(compression, b"not compressed", &mut [0; 8192]).is_err());
        }
    }

    #[test]
    fn levels_out_of_range_are_refused() {
        for bad in [Compression::Zstd { level: 0 }, Compression::Zstd { level: 23 }, Compression::Gzip { level: 10 }] {
            assert!(matches!(Compressor::new(bad), Err(Error::Level)));
        }
    }
}
