//! The ordered stage: writes finished blocks in the order they were given and drops what is stored already.
//!
//! One thread. It follows the caller's [`Step`]s, so positions depend on that order alone.

use super::Error;
use super::pipeline::{Buffers, ContentHash, Done, KnownBlocks, Outcome, SizeWord, StoredBlock};
use crate::storage::Storage;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

/// What the caller did, in order. Blocks and fragments are numbered in the same order by [`super::pipeline::Job::sequence`].
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// The next job is a block of the current file.
    Block,
    /// So many blocks of the current file are holes.
    Holes(u32),
    /// All blocks of the current file were given.
    EndRun,
    /// The next job is the fragment block of this number.
    Fragment(u32),
}

/// The blocks of a file, one after the other in the image; equal files share one run.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Absolute offset of the first block, 0 when every block is a hole.
    pub(super) start: u64,
    /// Where its size words are.
    pub(super) sizes: Range<u32>,
    pub(super) holes: u32,
    /// Stored bytes.
    pub(super) stored: u64,
}

/// Where all content lies.
#[derive(Debug, Default)]
pub(super) struct Placement {
    /// The first free byte after the content.
    pub(super) end: u64,
    pub(super) runs: Vec<Run>,
    /// The run of each [`Step::EndRun`], in order.
    pub(super) run_of: Vec<u32>,
    pub(super) sizes: Vec<SizeWord>,
    pub(super) fragments: Vec<StoredBlock>,
    /// Files whose blocks were all stored before.
    pub(super) repeated_runs: u64,
}

impl Placement {
    /// The run of the file that was the `ordinal`-th to end one.
    pub(super) fn run(&self, ordinal: u32) -> &Run {
        &self.runs[self.run_of[ordinal as usize] as usize]
    }

    pub(super) fn sizes_of(&self, run: &Run) -> &[SizeWord] {
        &self.sizes[run.sizes.start as usize..run.sizes.end as usize]
    }
}

/// The channels of the ordered stage.
pub(super) struct Wiring {
    pub(super) steps: Receiver<Step>,
    pub(super) done: Receiver<Done>,
    pub(super) free: Sender<Buffers>,
    pub(super) known: Arc<KnownBlocks>,
}

/// A block of the current file: what it is and where it goes.
struct Pending {
    hash: ContentHash,
    block: StoredBlock,
    /// Stored by an earlier file at this offset, to be copied from there if the current file turns out to be new.
    copy_from: Option<u64>,
}

pub(super) struct Committer<F: Storage> {
    out: Arc<F>,
    wiring: Wiring,
    position: u64,
    sequence: u64,
    early: BTreeMap<u64, Done>,
    pending: Vec<Pending>,
    run_sizes: Vec<SizeWord>,
    run_hash: blake3::Hasher,
    run_index: HashMap<ContentHash, u32>,
    placement: Placement,
}

impl<F: Storage> Committer<F> {
    pub(super) fn new(out: Arc<F>, position: u64, wiring: Wiring) -> Committer<F> {
        Committer {
            out,
            wiring,
            position,
            sequence: 0,
            early: BTreeMap::new(),
            pending: Vec::new(),
            run_sizes: Vec::new(),
            run_hash: blake3::Hasher::new(),
            run_index: HashMap::new(),
            placement: Placement::default(),
        }
    }

    /// Runs until the caller hangs up.
    ///
    /// # Errors
    /// A failed write. The caller notices by its own channels and joins this thread to learn which.
    pub(super) fn run(mut self) -> Result<Placement, Error> {
        while let Ok(step) = self.wiring.steps.recv() {
            match step {
                Step::Block => self.block()?,
                Step::Holes(count) => {
                    for _ in 0..count {
                        self.hole();
                    }
                }
                Step::EndRun => self.end_run()?,
                Step::Fragment(number) => self.fragment(number)?,
            }
        }
        self.placement.end = self.position;
        Ok(self.placement)
    }

    fn block(&mut self) -> Result<(), Error> {
        let done = self.next_done()?;
        match done.outcome {
            Outcome::Hole => self.hole(),
            Outcome::Known(hash) => self.known_block(hash)?,
            Outcome::Packed { hash, size } => {
                self.out.write_all_at(done.bytes(), self.position).map_err(Error::Write)?;
                self.append(hash, size, None);
            }
        }
        self.recycle(done);
        Ok(())
    }

    fn known_block(&mut self, hash: ContentHash) -> Result<(), Error> {
        let stored = self.wiring.known.read().ok().and_then(|known| known.get(&hash).copied());
        let stored = stored.ok_or(Error::Stopped)?;
        self.append(hash, stored.size, Some(stored.start));
        Ok(())
    }

    fn append(&mut self, hash: ContentHash, size: SizeWord, copy_from: Option<u64>) {
        let block = StoredBlock { start: self.position, size };
        self.position += u64::from(size.stored_len());
        self.run_sizes.push(size);
        self.run_hash.update(&hash);
        self.pending.push(Pending { hash, block, copy_from });
    }

    fn hole(&mut self) {
        self.run_sizes.push(SizeWord::HOLE);
        // No block hashes to this: BLAKE3 preimages of zero are not known.
        self.run_hash.update(&ContentHash::default());
    }

    /// The current file is complete: new, or the same blocks as an earlier one, whose place it then shares.
    fn end_run(&mut self) -> Result<(), Error> {
        let mut key = ContentHash::default();
        self.run_hash.finalize_xof().fill(&mut key);
        self.run_hash.reset();
        let start = self.pending.first().map_or(0, |first| first.block.start);
        if let Some(run) = self.run_index.get(&key) {
            self.placement.run_of.push(*run);
            self.placement.repeated_runs += 1;
            if !self.pending.is_empty() {
                self.position = start;
            }
        } else {
            self.copy_known_blocks()?;
            self.keep_run(key, start);
        }
        self.pending.clear();
        self.run_sizes.clear();
        Ok(())
    }

    /// A new file has blocks of an older one: squashfs wants a file's blocks in a row, so the packed bytes are copied.
    fn copy_known_blocks(&self) -> Result<(), Error> {
        for pending in &self.pending {
            if let Some(from) = pending.copy_from {
                let mut bytes = vec![0; pending.block.size.stored_len() as usize];
                self.out.read_exact_at(&mut bytes, from).map_err(Error::Write)?;
                self.out.write_all_at(&bytes, pending.block.start).map_err(Error::Write)?;
            }
        }
        Ok(())
    }

    fn keep_run(&mut self, key: ContentHash, start: u64) {
        let placement = &mut self.placement;
        let first = placement.sizes.len() as u32; // below SQUASHFS_BLOCKS_MAX, which the caller counts against
        placement.sizes.extend_from_slice(&self.run_sizes);
        let holes = (self.run_sizes.len() - self.pending.len()) as u32;
        let stored = self.pending.iter().map(|pending| u64::from(pending.block.size.stored_len())).sum();
        let run = placement.runs.len() as u32;
        placement.runs.push(Run { start, sizes: first..placement.sizes.len() as u32, holes, stored });
        placement.run_of.push(run);
        self.run_index.insert(key, run);
        if let Ok(mut known) = self.wiring.known.write() {
            for pending in &self.pending {
                known.entry(pending.hash).or_insert(pending.block);
            }
        }
    }

    fn fragment(&mut self, number: u32) -> Result<(), Error> {
        let done = self.next_done()?;
        let Outcome::Packed { size, .. } = done.outcome else { return Err(Error::Stopped) };
        self.out.write_all_at(done.bytes(), self.position).map_err(Error::Write)?;
        let fragments = &mut self.placement.fragments;
        let number = number as usize;
        if fragments.len() <= number {
            // Fragments that are still open have lower numbers than some that are full; their entries follow.
            fragments.resize(number + 1, StoredBlock { start: 0, size: SizeWord::HOLE });
        }
        fragments[number] = StoredBlock { start: self.position, size };
        self.position += u64::from(size.stored_len());
        self.recycle(done);
        Ok(())
    }

    fn next_done(&mut self) -> Result<Done, Error> {
        let wanted = self.sequence;
        self.sequence += 1;
        loop {
            if let Some(done) = self.early.remove(&wanted) {
                return Ok(done);
            }
            let done = self.wiring.done.recv().map_err(|_| Error::Stopped)?;
            self.early.insert(done.sequence, done);
        }
    }

    fn recycle(&self, done: Done) {
        // Nobody takes it once the caller has given its last block.
        let _ = self.wiring.free.send(done.buffers);
    }
}
