//! One stick: written, read back, and only then made bootable.
//!
//! The order is what makes it safe. The head (partition table, boot code, volume descriptors) is zeroed first, the rest is written and
//! read back, and the head comes last: a stick that was pulled out, cut short by Ctrl-C or written from a damaged ISO does not boot at all,
//! instead of booting something broken. Reading the ISO and hashing it run one piece ahead of writing it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use sha2::{Digest as _, Sha256};

use super::plan::Plan;
use crate::limits::{FLASH_PIECE_BYTES, FLASH_PIECES};
use crate::storage::{Extent, Storage};
use crate::sys::block::{AlignedBuffer, Device};
use crate::units::{ByteSize, Digest};

/// A device that can be told to keep nothing back.
pub trait Medium: Storage {
    /// Waits until everything written is on the medium; the next read asks the medium and no cache.
    ///
    /// # Errors
    /// What the device reports, perhaps of an earlier write.
    fn settle(&self) -> io::Result<()>;
}

impl Medium for Device {
    fn settle(&self) -> io::Result<()> {
        Self::settle(self)
    }
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Writing,
    Verifying,
}

/// Why a stick is not good. None of them leaves it bootable, unless it cannot be written at all any more.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the ISO cannot be read at {}", ByteSize(*.offset))]
    Source { offset: u64, source: io::Error },
    #[error("writing failed at {}", ByteSize(*.offset))]
    Write { offset: u64, source: io::Error },
    #[error("the device did not keep what was written to it")]
    Settle { source: io::Error },
    #[error("reading back failed at {}", ByteSize(*.offset))]
    ReadBack { offset: u64, source: io::Error },
    #[error(
        "what was read back differs from what was written, between byte {} and {}: the device is worn out, or smaller than it claims",
        .at.offset, .at.offset.saturating_add(.at.length)
    )]
    Differs { at: Extent },
    #[error(
        "the ISO is damaged: its sha256 is {actual}, and {expected} stands in the .sha256 file beside it; make or fetch it again"
    )]
    Checksum { expected: Digest, actual: Digest },
    #[error("it was pulled out, or lost its connection")]
    Pulled,
    #[error("stopped after {}", ByteSize(*.written))]
    Stopped { written: u64 },
}

impl Failure {
    /// What is true of the stick now, and what to do.
    #[must_use]
    pub const fn state(&self) -> &'static str {
        match self {
            Self::Stopped { written: 0 } => "nothing was written",
            Self::Stopped { .. } | Self::Pulled | Self::Source { .. } => "it does not boot now; flash it again",
            Self::Checksum { .. } => "it does not boot now",
            Self::Write { .. } | Self::Settle { .. } | Self::ReadBack { .. } | Self::Differs { .. } => {
                "it does not boot now; try another port, then another stick"
            }
        }
    }
}

/// What the work reports to and listens to.
pub struct Watch<'a> {
    /// Once true, the work ends at the next piece.
    pub cancelled: &'a AtomicBool,
    /// Bytes done of [`Plan::padded`] in a phase.
    pub progress: &'a mut dyn FnMut(Phase, u64),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("cancelled", &self.cancelled).finish_non_exhaustive()
    }
}

impl Watch<'_> {
    fn tell(&mut self, phase: Phase, done: u64, written: u64) -> Result<(), Failure> {
        (self.progress)(phase, done);
        if self.cancelled.load(Ordering::Relaxed) { Err(Failure::Stopped { written }) } else { Ok(()) }
    }
}

/// Writes the ISO, reads it back and compares. The digest is the ISO's.
///
/// # Errors
/// [`Failure`]; the device does not boot then.
pub fn flash(
    iso: &dyn Storage,
    plan: &Plan,
    expected: Option<Digest>,
    medium: &dyn Medium,
    watch: &mut Watch<'_>,
) -> Result<Digest, Failure> {
    watch.tell(Phase::Writing, 0, 0)?; // until now nothing was written
    let mut head = buffer(plan.head);
    read_source(iso, plan, Extent { offset: 0, length: plan.head }, &mut head)?;
    let mut hash = Hash::new(plan);
    hash.add(Extent { offset: 0, length: plan.head }, &head);
    wipe(medium, Extent { offset: 0, length: plan.head })?;
    wipe(medium, plan.tail)?;

    let written = write_body(iso, plan, hash.clone(), medium, watch)?;
    medium.settle().map_err(|source| Failure::Settle { source })?;
    if let Some(expected) = expected.filter(|expected| *expected != written.digest) {
        return Err(Failure::Checksum { expected, actual: written.digest });
    }
    verify_body(plan, hash, &written.marks, medium, watch)?;
    write_head(medium, &head).inspect_err(|_| {
        // A head that is there but wrong would boot. If this fails as well the device is gone, and nothing can be done.
        let _ = wipe(medium, Extent { offset: 0, length: plan.head });
        let _ = medium.settle();
    })?;
    (watch.progress)(Phase::Verifying, plan.padded);
    Ok(written.digest)
}

/// What the first pass found out about the ISO.
struct Written {
    digest: Digest,
    /// The state of the hash behind each piece: the second pass says where it differs, not just that it does.
    marks: Vec<[u8; 32]>,
}

/// The sha256 of the ISO without the zeroes that fill its last block.
#[derive(Clone)]
struct Hash {
    sha256: Sha256,
    image: u64,
}

impl Hash {
    fn new(plan: &Plan) -> Self {
        Self { sha256: Sha256::new(), image: plan.image }
    }

    fn add(&mut self, at: Extent, bytes: &[u8]) {
        let here = self.image.saturating_sub(at.offset);
        let length = usize::try_from(here).unwrap_or(usize::MAX).min(bytes.len());
        self.sha256.update(&bytes[..length]);
    }

    fn mark(&self) -> [u8; 32] {
        self.sha256.clone().finalize().into()
    }
}

fn write_body(
    iso: &dyn Storage,
    plan: &Plan,
    mut hash: Hash,
    medium: &dyn Medium,
    watch: &mut Watch<'_>,
) -> Result<Written, Failure> {
    let mut marks = Vec::new();
    overlap(
        plan.body(),
        |piece, bytes| {
            read_source(iso, plan, piece, bytes)?;
            hash.add(piece, bytes);
            marks.push(hash.mark());
            Ok(())
        },
        |piece, bytes| {
            medium
                .write_all_at(bytes, piece.offset)
                .map_err(|source| Failure::Write { offset: piece.offset, source })?;
            let done = piece.offset.saturating_add(piece.length);
            watch.tell(Phase::Writing, done, done)
        },
    )?;
    Ok(Written { digest: Digest(hash.mark()), marks })
}

fn verify_body(
    plan: &Plan,
    mut hash: Hash,
    marks: &[[u8; 32]],
    medium: &dyn Medium,
    watch: &mut Watch<'_>,
) -> Result<(), Failure> {
    let mut marks = marks.iter();
    watch.tell(Phase::Verifying, plan.head, plan.padded)?;
    overlap(
        plan.body(),
        |piece, bytes| {
            let read = medium.read_exact_at(bytes, piece.offset);
            read.map_err(|source| Failure::ReadBack { offset: piece.offset, source })
        },
        |piece, bytes| {
            hash.add(piece, bytes);
            if marks.next() != Some(&hash.mark()) {
                return Err(Failure::Differs { at: piece });
            }
            watch.tell(Phase::Verifying, piece.offset.saturating_add(piece.length), plan.padded)
        },
    )
}

/// The last write: from here on the stick boots.
fn write_head(medium: &dyn Medium, head: &[u8]) -> Result<(), Failure> {
    medium.write_all_at(head, 0).map_err(|source| Failure::Write { offset: 0, source })?;
    medium.settle().map_err(|source| Failure::Settle { source })?;
    let mut back = AlignedBuffer::new(head.len());
    medium.read_exact_at(&mut back, 0).map_err(|source| Failure::ReadBack { offset: 0, source })?;
    if *back != *head {
        return Err(Failure::Differs { at: Extent { offset: 0, length: head.len() as u64 } });
    }
    Ok(())
}

/// Zeroes the head or the tail, each a MiB at most.
fn wipe(medium: &dyn Medium, whole: Extent) -> Result<(), Failure> {
    if whole.length == 0 {
        return Ok(());
    }
    let zeroes = buffer(whole.length);
    medium.write_all_at(&zeroes, whole.offset).map_err(|source| Failure::Write { offset: whole.offset, source })
}

/// Fills `bytes` from the ISO, and with zeroes behind its end.
fn read_source(iso: &dyn Storage, plan: &Plan, piece: Extent, bytes: &mut [u8]) -> Result<(), Failure> {
    let here = usize::try_from(plan.image.saturating_sub(piece.offset)).unwrap_or(usize::MAX).min(bytes.len());
    let (data, padding) = bytes.split_at_mut(here);
    padding.fill(0);
    iso.read_exact_at(data, piece.offset).map_err(|source| Failure::Source { offset: piece.offset, source })
}

fn buffer(length: u64) -> AlignedBuffer {
    AlignedBuffer::new(usize::try_from(length).unwrap_or(usize::MAX))
}

/// Fills buffers in a thread of its own while `drain` empties those that are full, in order. Ends with the first error of either.
fn overlap(
    pieces: impl Iterator<Item = Extent> + Send,
    mut fill: impl FnMut(Extent, &mut [u8]) -> Result<(), Failure> + Send,
    mut drain: impl FnMut(Extent, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (give_full, full) = mpsc::sync_channel::<(Extent, AlignedBuffer)>(FLASH_PIECES);
    let (give_empty, empty) = mpsc::channel();
    for _ in 0..FLASH_PIECES {
        let _ = give_empty.send(AlignedBuffer::new(FLASH_PIECE_BYTES)); // the receiver lives
    }
    thread::scope(|scope| {
        let filler = scope.spawn(move || {
            for piece in pieces {
                // Whoever drains has ended: its error is the one that counts.
                let Ok(mut buffer) = empty.recv() else { return Ok(()) };
                fill(piece, &mut buffer[..length(piece)])?;
                if give_full.send((piece, buffer)).is_err() {
                    return Ok(());
                }
            }
            Ok(())
        });
        // Moved in, so that an error drops both ends and the filler does not wait for ever.
        let drained = (move || {
            for (piece, buffer) in full {
                drain(piece, &buffer[..length(piece)])?;
                let _ = give_empty.send(buffer); // a filler that is done needs none
            }
            Ok(())
        })();
        let filled = filler.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        drained.and(filled)
    })
}

fn length(piece: Extent) -> usize {
    usize::try_from(piece.length).unwrap_or(usize::MAX).min(FLASH_PIECE_BYTES)
}
