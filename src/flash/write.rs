//! One stick: written, read back, and only then made bootable.
//!
//! The order is what makes it safe. The head (partition table, boot code, volume descriptors) is zeroed first, the rest is written and
//! read back, and the head comes last: a stick that was pulled out, cut short by Ctrl-C or written from a damaged image does not boot at all,
//! instead of booting something broken. Reading the image and hashing it run one piece ahead of writing it.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use sha2::{Digest as _, Sha256};

use super::image::Kind;
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
    #[error("the {kind} cannot be read at {}", ByteSize(*.offset))]
    Source { kind: Kind, offset: u64, source: io::Error },
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
        "the {kind} is damaged: its sha256 is {actual}, and {expected} stands in the .sha256 file beside it; make or fetch it again"
    )]
    Checksum { kind: Kind, expected: Digest, actual: Digest },
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

/// What is written.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub bytes: &'a dyn Storage,
    pub kind: Kind,
    /// What its sha256 should be.
    pub expected: Option<Digest>,
}

impl std::fmt::Debug for Source<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("kind", &self.kind).field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// Writes the image, reads it back and compares. The digest is the image's.
///
/// # Errors
/// [`Failure`]; the device does not boot then.
pub fn flash(image: Source<'_>, plan: &Plan, medium: &dyn Medium, watch: &mut Watch<'_>) -> Result<Digest, Failure> {
    watch.tell(Phase::Writing, 0, 0)?; // until now nothing was written
    let mut head = buffer(plan.head);
    read_source(image, plan, Extent { offset: 0, length: plan.head }, &mut head)?;
    let mut hash = Hash::new(plan);
    hash.add(Extent { offset: 0, length: plan.head }, &head);
    wipe(medium, Extent { offset: 0, length: plan.head })?;
    wipe(medium, plan.tail)?;

    let written = write_body(image, plan, hash.clone(), medium, watch)?;
    medium.settle().map_err(|source| Failure::Settle { source })?;
    if let Some(expected) = image.expected.filter(|expected| *expected != written.digest) {
        return Err(Failure::Checksum { kind: image.kind, expected, actual: written.digest });
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

/// What the first pass found out about the image.
struct Written {
    digest: Digest,
    /// The state of the hash behind each piece: the second pass says where it differs, not just that it does.
    marks: Vec<[u8; 32]>,
}

/// The sha256 of the image without the zeroes that fill its last block.
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
    image: Source<'_>,
    plan: &Plan,
    mut hash: Hash,
    medium: &dyn Medium,
    watch: &mut Watch<'_>,
) -> Result<Written, Failure> {
    let mut marks = Vec::new();
    overlap(
        plan.body(),
        |piece, bytes| {
            read_source(image, plan, piece, bytes)?;
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

/// Fills `bytes` from the image, and with zeroes behind its end.
fn read_source(image: Source<'_>, plan: &Plan, piece: Extent, bytes: &mut [u8]) -> Result<(), Failure> {
    let here = usize::try_from(plan.image.saturating_sub(piece.offset)).unwrap_or(usize::MAX).min(bytes.len());
    let (data, padding) = bytes.split_at_mut(here);
    padding.fill(0);
    let read = image.bytes.read_exact_at(data, piece.offset);
    read.map_err(|source| Failure::Source { kind: image.kind, offset: piece.offset, source })
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

#[cfg(test)]
mod tests {
    use super::super::plan::pieces;
    use super::*;
    use std::sync::Mutex;

    const MIB: usize = 1 << 20;
    const ISO_BYTES: usize = 9 * MIB + 2048;

    /// What a stick did, and how it misbehaves.
    #[derive(Default)]
    struct Stick {
        bytes: Mutex<Vec<u8>>,
        log: Mutex<Vec<String>>,
        /// Writes that touch this byte fail.
        dead_from: Option<u64>,
        /// Reads of this byte fail.
        unreadable: Option<u64>,
        /// This byte is never kept.
        worn: Option<usize>,
        /// Bytes from here on are taken and forgotten, as by a stick that is smaller than it claims.
        claims_from: Option<usize>,
        fails_to_settle: bool,
    }

    impl Stick {
        fn new() -> Self {
            Self { bytes: Mutex::new(vec![0xee; 32 * MIB]), ..Self::default() }
        }

        fn note(&self, what: String) {
            self.log.lock().unwrap().push(what);
        }

        fn log(&self) -> Vec<String> {
            std::mem::take(&mut self.log.lock().unwrap())
        }

        /// Whether firmware would find anything in the first MiB.
        fn boots(&self) -> bool {
            self.bytes.lock().unwrap()[..MIB].iter().any(|byte| *byte != 0)
        }
    }

    fn dead() -> io::Error {
        io::Error::from_raw_os_error(libc::EIO)
    }

    impl Storage for Stick {
        fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
            assert_eq!(
                (bytes.as_ptr().addr() % 4096, bytes.len() % 512, offset % 512),
                (0, 0, 0),
                "direct I/O refuses it"
            );
            let at = usize::try_from(offset).unwrap();
            let zero = if bytes.iter().all(|byte| *byte == 0) { " zeroes" } else { "" };
            self.note(format!("write {at} +{}{zero}", bytes.len()));
            if self.dead_from.is_some_and(|dead| dead < offset + bytes.len() as u64 && zero.is_empty()) {
                return Err(dead());
            }
            let mut kept = self.bytes.lock().unwrap();
            kept[at..at + bytes.len()].copy_from_slice(bytes);
            if let Some(worn) = self.worn {
                kept[worn] = 0;
            }
            if let Some(end) = self.claims_from {
                kept[end..].fill(0);
            }
            Ok(())
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            assert_eq!(
                (bytes.as_ptr().addr() % 4096, bytes.len() % 512, offset % 512),
                (0, 0, 0),
                "direct I/O refuses it"
            );
            self.note(format!("read {offset} +{}", bytes.len()));
            let at = usize::try_from(offset).unwrap();
            if self.unreadable.is_some_and(|bad| (offset..offset + bytes.len() as u64).contains(&bad)) {
                return Err(dead());
            }
            bytes.copy_from_slice(&self.bytes.lock().unwrap()[at..at + bytes.len()]);
            Ok(())
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl Medium for Stick {
        fn settle(&self) -> io::Result<()> {
            self.note("settle".to_owned());
            if self.fails_to_settle { Err(dead()) } else { Ok(()) }
        }
    }

    /// An ISO in memory.
    struct Iso(Vec<u8>);

    impl Storage for Iso {
        fn write_all_at(&self, _bytes: &[u8], _offset: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }

        fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
            let rest = self.0.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
            let from = rest.get(..bytes.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            bytes.copy_from_slice(from);
            Ok(())
        }

        fn set_len(&self, _len: u64) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    fn iso() -> Iso {
        Iso((0..ISO_BYTES).map(|index| (index / 512 % 251) as u8 + 1).collect())
    }

    fn plan(block: u64) -> Plan {
        Plan::new(ISO_BYTES as u64, 32 * MIB as u64, block).unwrap()
    }

    fn run(iso: &Iso, stick: &Stick, expected: Option<Digest>) -> Result<Digest, Failure> {
        let mut quiet = |_, _| {};
        let cancelled = AtomicBool::new(false);
        let image = Source { bytes: iso, kind: Kind::Iso, expected };
        flash(image, &plan(512), stick, &mut Watch { cancelled: &cancelled, progress: &mut quiet })
    }

    #[test]
    fn the_head_comes_last_and_only_after_all_else_was_read_back() {
        let (iso, stick) = (iso(), Stick::new());
        let digest = run(&iso, &stick, None).unwrap();
        assert_eq!(digest.0, <[u8; 32]>::from(Sha256::digest(&iso.0)));
        let log = stick.log();
        // Reading back runs ahead of nothing else, so the order is the same each time.
        assert_eq!(
            log,
            [
                "write 0 +1048576 zeroes",
                "write 32505856 +1048576 zeroes",
                "write 1048576 +3145728",
                "write 4194304 +4194304",
                "write 8388608 +1050624",
                "settle",
                "read 1048576 +3145728",
                "read 4194304 +4194304",
                "read 8388608 +1050624",
                "write 0 +1048576",
                "settle",
                "read 0 +1048576",
            ]
        );
        let bytes = stick.bytes.lock().unwrap();
        assert_eq!(bytes[..ISO_BYTES], iso.0[..]);
        assert!(bytes[ISO_BYTES..31 * MIB].iter().all(|byte| *byte == 0xee), "the rest is left alone");
        assert!(bytes[31 * MIB..].iter().all(|byte| *byte == 0), "no old backup of a partition table");
    }

    #[test]
    fn blocks_of_4096_bytes_are_filled_with_zeroes() {
        let (iso, stick) = (iso(), Stick::new());
        let mut quiet = |_, _| {};
        let mut watch = Watch { cancelled: &AtomicBool::new(false), progress: &mut quiet };
        let image = Source { bytes: &iso, kind: Kind::Disk, expected: None };
        let digest = flash(image, &plan(4096), &stick, &mut watch).unwrap();
        assert_eq!(digest.0, <[u8; 32]>::from(Sha256::digest(&iso.0)), "the padding is not the ISO's");
        let bytes = stick.bytes.lock().unwrap();
        assert_eq!(bytes[..ISO_BYTES], iso.0[..]);
        assert_eq!(bytes[ISO_BYTES..ISO_BYTES + 2049], [&[0; 2048][..], &[0xee]].concat());
    }

    #[test]
    fn whatever_goes_wrong_the_stick_does_not_boot() {
        let worn = 5 * MIB + 77;
        for (stick, message) in [
            (Stick { dead_from: Some(5 * MIB as u64), ..Stick::new() }, "writing failed at 4.2 MB"),
            (Stick { unreadable: Some(worn as u64), ..Stick::new() }, "reading back failed at 4.2 MB"),
            (
                Stick { worn: Some(worn), ..Stick::new() },
                "what was read back differs from what was written, between byte 4194304 and 8388608: ",
            ),
            (
                Stick { claims_from: Some(9 * MIB), ..Stick::new() },
                "what was read back differs from what was written, between byte 8388608 and 9439232: ",
            ),
            (Stick { fails_to_settle: true, ..Stick::new() }, "the device did not keep what was written to it"),
            (
                Stick { worn: Some(1000), ..Stick::new() },
                "what was read back differs from what was written, between byte 0 and 1048576: ",
            ),
            (Stick { unreadable: Some(0), ..Stick::new() }, "reading back failed at 0 B"),
        ] {
            let failure = run(&iso(), &stick, None).unwrap_err();
            assert!(failure.to_string().starts_with(message), "{failure}");
            assert!(!stick.boots(), "{failure}");
            assert!(failure.state().starts_with("it does not boot now"), "{failure}");
        }
    }

    #[test]
    fn a_damaged_iso_is_noticed_in_the_same_pass() {
        let mut damaged = iso();
        let good = Digest(Sha256::digest(&damaged.0).into());
        assert_eq!(run(&damaged, &Stick::new(), Some(good)).unwrap(), good);
        damaged.0[7 * MIB] ^= 1;
        let stick = Stick::new();
        let failure = run(&damaged, &stick, Some(good)).unwrap_err();
        assert!(matches!(failure, Failure::Checksum { expected, .. } if expected == good), "{failure}");
        assert!(!stick.boots());
        assert!(!stick.log().iter().any(|line| line.starts_with("read")), "nothing is verified in vain");
    }

    #[test]
    fn an_iso_that_was_cut_meanwhile_is_an_error() {
        let (mut iso, stick) = (iso(), Stick::new());
        iso.0.truncate(6 * MIB);
        let failure = run(&iso, &stick, None).unwrap_err();
        assert!(failure.to_string().starts_with("the ISO cannot be read at 4.2 MB"), "{failure}");
        assert!(!stick.boots());
    }

    #[test]
    fn stopping_takes_effect_at_the_next_piece() {
        for (at, written, state) in [
            ((Phase::Writing, 0), 0, "nothing was written"),
            ((Phase::Writing, 8 * MIB as u64), 8 * MIB as u64, "it does not boot now; flash it again"),
            ((Phase::Verifying, 8 * MIB as u64), ISO_BYTES as u64, "it does not boot now; flash it again"),
        ] {
            let (cancelled, stick) = (AtomicBool::new(false), Stick::new());
            let mut progress = |phase, done| {
                if (phase, done) == at {
                    cancelled.store(true, Ordering::Relaxed);
                }
            };
            let mut watch = Watch { cancelled: &cancelled, progress: &mut progress };
            let image = Source { bytes: &iso(), kind: Kind::Iso, expected: None };
            let failure = flash(image, &plan(512), &stick, &mut watch).unwrap_err();
            assert!(matches!(failure, Failure::Stopped { written: so_far } if so_far == written), "{failure}");
            assert_eq!(failure.state(), state);
            assert_eq!(stick.boots(), written == 0, "untouched, or cleared");
        }
    }

    #[test]
    fn two_pieces_of_each_stick_are_in_memory() {
        let inside = std::sync::atomic::AtomicUsize::new(0);
        let most = std::sync::atomic::AtomicUsize::new(0);
        let pieces = pieces(Extent { offset: 0, length: 50 * FLASH_PIECE_BYTES as u64 });
        overlap(
            pieces,
            |_, bytes| {
                assert!(bytes.len() <= FLASH_PIECE_BYTES);
                most.fetch_max(1 + inside.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
                Ok(())
            },
            |_, _| {
                inside.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            },
        )
        .unwrap();
        assert!((1..=FLASH_PIECES).contains(&most.load(Ordering::SeqCst)));
    }
}
