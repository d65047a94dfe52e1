//! The compression threads: full blocks in, hashed and compressed blocks out.
//!
//! Every thread takes the next job; nothing here depends on which one does, or on the order in which they end.

use super::Error;
use super::codec::Compressor;
use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::{Builder, JoinHandle};

/// Identifies content: the first 128 bits of its BLAKE3 hash, out of reach for accidents, and forging an equal pair takes
/// 2^64 hashes (and spoils only the forger's own image).
pub(super) type ContentHash = [u8; 16];

pub(super) fn content_hash(bytes: &[u8]) -> ContentHash {
    let mut short = ContentHash::default();
    short.copy_from_slice(&blake3::hash(bytes).as_bytes()[..16]);
    short
}

/// The stored size of a block, as block lists and the fragment table have it: bit 24 says "stored plain".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SizeWord(pub(super) u32);

impl SizeWord {
    /// A block of zeros, of which nothing is stored.
    pub(super) const HOLE: SizeWord = SizeWord(0);
    const PLAIN: u32 = 1 << 24;

    fn new(len: usize, plain: bool) -> SizeWord {
        // At most 1 MiB: blocks are no longer than that.
        SizeWord(len as u32 | if plain { SizeWord::PLAIN } else { 0 })
    }

    pub(super) fn stored_len(self) -> u32 {
        self.0 & !SizeWord::PLAIN
    }

    pub(super) fn is_plain(self) -> bool {
        self.0 & SizeWord::PLAIN != 0
    }
}

/// A block before and after compression; recycled, so that memory is bounded by their number.
pub(super) struct Buffers {
    pub(super) input: Vec<u8>,
    pub(super) output: Vec<u8>,
}

impl Buffers {
    pub(super) fn new(block_size: usize) -> Buffers {
        Buffers { input: vec![0; block_size], output: vec![0; block_size] }
    }
}

/// What a block is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JobKind {
    /// A file's own block: may be a hole, may be stored already.
    Data,
    /// Tail ends of many files, deduplicated before.
    Fragment,
}

pub(super) struct Job {
    pub(super) sequence: u64,
    pub(super) kind: JobKind,
    /// Bytes of `buffers.input` that count.
    pub(super) len: usize,
    pub(super) buffers: Buffers,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Outcome {
    /// All zeros.
    Hole,
    /// A block with these bytes is in the image already; not compressed again.
    Known(ContentHash),
    /// Compressed (or plain, as the size word says). Data blocks have their hash with them.
    Packed { hash: ContentHash, size: SizeWord },
}

pub(super) struct Done {
    pub(super) sequence: u64,
    pub(super) outcome: Outcome,
    pub(super) buffers: Buffers,
}

impl Done {
    /// The bytes to store.
    pub(super) fn bytes(&self) -> &[u8] {
        match self.outcome {
            Outcome::Packed { size, .. } if size.is_plain() => &self.buffers.input[..size.stored_len() as usize],
            Outcome::Packed { size, .. } => &self.buffers.output[..size.stored_len() as usize],
            Outcome::Hole | Outcome::Known(_) => &[],
        }
    }
}

/// A data block of the image, for finding it again by content.
#[derive(Debug, Clone, Copy)]
pub(super) struct StoredBlock {
    pub(super) start: u64,
    pub(super) size: SizeWord,
}

/// Every data block that is in the image to stay. Grows only, so a worker that looks too early merely compresses in vain.
pub(super) type KnownBlocks = RwLock<HashMap<ContentHash, StoredBlock>>;

/// Starts the threads. They end when the sender of `jobs` is gone or nobody takes results any more.
///
/// # Errors
/// [`Error::Thread`]: the system has none left.
pub(super) fn start(
    compressors: Vec<Compressor>,
    jobs: Receiver<Job>,
    done: &Sender<Done>,
    known: &Arc<KnownBlocks>,
) -> Result<Vec<JoinHandle<()>>, Error> {
    let jobs = Arc::new(Mutex::new(jobs));
    compressors
        .into_iter()
        .map(|mut compressor| {
            let (jobs, done, known) = (jobs.clone(), done.clone(), known.clone());
            Builder::new()
                .name("squashfs-pack".into())
                .spawn(move || {
                    while let Some(job) = next(&jobs)
                        && done.send(pack(job, &mut compressor, &known)).is_ok()
                    {}
                })
                .map_err(Error::Thread)
        })
        .collect()
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().ok()?.recv().ok()
}

fn pack(job: Job, compressor: &mut Compressor, known: &KnownBlocks) -> Done {
    let Job { sequence, kind, len, mut buffers } = job;
    let outcome = match kind {
        JobKind::Data => pack_data(&mut buffers, len, compressor, known),
        JobKind::Fragment => {
            Outcome::Packed { hash: ContentHash::default(), size: squeeze(&mut buffers, len, compressor) }
        }
    };
    Done { sequence, outcome, buffers }
}

fn pack_data(buffers: &mut Buffers, len: usize, compressor: &mut Compressor, known: &KnownBlocks) -> Outcome {
    let input = &buffers.input[..len];
    if is_zero(input) {
        return Outcome::Hole;
    }
    let hash = content_hash(input);
    if known.read().is_ok_and(|known| known.contains_key(&hash)) {
        return Outcome::Known(hash);
    }
    Outcome::Packed { hash, size: squeeze(buffers, len, compressor) }
}

fn squeeze(buffers: &mut Buffers, len: usize, compressor: &mut Compressor) -> SizeWord {
    match compressor.compress(&buffers.input[..len], &mut buffers.output) {
        Some(packed) => SizeWord::new(packed, false),
        None => SizeWord::new(len, true),
    }
}

fn is_zero(bytes: &[u8]) -> bool {
    // Zero, and equal to itself shifted by one: both comparisons are memcmp, which stops at the first difference.
    bytes.first().is_none_or(|first| *first == 0) && bytes.get(1..).is_none_or(|rest| *rest == bytes[..rest.len()])
}

#[cfg(test)]
mod tests {
    use super::super::Compression;
    use super::*;

    fn run(input: &[u8], kind: JobKind, known: &KnownBlocks) -> Done {
        let mut compressor = Compressor::new(Compression::Zstd { level: 3 }).unwrap();
        let mut buffers = Buffers::new(8192);
        buffers.input[..input.len()].copy_from_slice(input);
        pack(Job { sequence: 7, kind, len: input.len(), buffers }, &mut compressor, known)
    }

    #[test]
    fn a_block_of_zeros_is_a_hole_but_never_as_a_fragment() {
        let known = KnownBlocks::default();
        assert!(matches!(run(&[0; 4096], JobKind::Data, &known).outcome, Outcome::Hole));
        assert!(matches!(run(&[0; 4096], JobKind::Fragment, &known).outcome, Outcome::Packed { .. }));
        let mut almost = [0; 4096];
        almost[4095] = 1;
        assert!(matches!(run(&almost, JobKind::Data, &known).outcome, Outcome::Packed { .. }));
    }

    #[test]
    fn a_known_block_is_not_compressed_again() {
        let known = KnownBlocks::default();
        let block = [5; 4096];
        let Outcome::Packed { hash, size } = run(&block, JobKind::Data, &known).outcome else { panic!("not packed") };
        assert!(!size.is_plain());
        known.write().unwrap().insert(hash, StoredBlock { start: 96, size });
        assert!(matches!(run(&block, JobKind::Data, &known).outcome, Outcome::Known(again) if again == hash));
    }

    #[test]
    fn the_size_word_says_whether_a_block_is_plain() {
        let known = KnownBlocks::default();
        let done = run(b"x", JobKind::Data, &known);
        assert_eq!(done.bytes(), b"x");
        let Outcome::Packed { size, .. } = done.outcome else { panic!("not packed") };
        assert_eq!(size, SizeWord(1 | 1 << 24));
        let done = run(&[5; 4096], JobKind::Data, &known);
        let Outcome::Packed { size, .. } = done.outcome else { panic!("not packed") };
        assert_eq!(done.bytes().len(), size.stored_len() as usize);
        assert_eq!(done.bytes(), &done.buffers.output[..size.0 as usize]);
    }
}
