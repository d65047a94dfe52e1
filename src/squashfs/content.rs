//! The caller's side of the content: cuts files into blocks and packs their tail ends into fragments.

use super::codec::Compressor;
use super::commit::{Committer, Placement, Step, Wiring};
use super::pipeline::{self, Buffers, ContentHash, Job, JobKind, KnownBlocks, content_hash};
use super::{DataId, Error, Extent, Options};
use crate::limits;
use crate::storage::Storage;
use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, mpsc};
use std::thread::{Builder, JoinHandle};

/// Where the bytes after a file's last full block are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tail {
    pub(super) fragment: u32,
    pub(super) offset: u32,
}

/// One file as it was added.
#[derive(Debug, Clone, Copy)]
pub(super) struct File {
    pub(super) size: u64,
    /// Index into [`Placement::run_of`]; files of less than a block have none.
    pub(super) run: Option<u32>,
    pub(super) tail: Option<Tail>,
}

/// A fragment that is being filled. There is one: one per kind of content (text, binary, packed) was tried and made a
/// 1.2 GB root file system 0.07 % smaller, while reading one directory would then need several fragments.
struct OpenFragment {
    number: u32,
    len: usize,
    buffers: Buffers,
}

/// The ends of the channels that the caller holds; when they go, the threads end.
struct Link {
    jobs: Sender<Job>,
    steps: SyncSender<Step>,
    free: Receiver<Buffers>,
}

pub(super) struct Content {
    block_size: usize,
    link: Option<Link>,
    committer: Option<JoinHandle<Result<Placement, Error>>>,
    workers: Vec<JoinHandle<()>>,
    buffers_left: usize,
    spare: Option<Buffers>,
    sequence: u64,
    blocks: u32,
    runs: u32,
    files: Vec<File>,
    open: Option<OpenFragment>,
    fragments: u32,
    tails: HashMap<ContentHash, Tail>,
}

impl Content {
    /// Starts the threads; content begins at `position` of `out`.
    ///
    /// # Errors
    /// Options out of range, no threads left.
    pub(super) fn start<F: Storage + 'static>(out: Arc<F>, position: u64, options: &Options) -> Result<Content, Error> {
        let workers = options.workers.get();
        let compressors = (0..workers).map(|_| Compressor::new(options.compression)).collect::<Result<Vec<_>, _>>()?;
        let (jobs, jobs_end) = channel();
        let (done, done_end) = channel();
        let (steps, steps_end) = sync_channel(limits::SQUASHFS_STEPS_AHEAD);
        let (free, free_end) = channel();
        let known = Arc::new(KnownBlocks::default());
        let mut content = Content {
            block_size: options.block_size as usize,
            link: Some(Link { jobs, steps, free: free_end }),
            committer: None,
            workers: Vec::new(),
            buffers_left: workers * limits::SQUASHFS_BUFFERS_PER_WORKER + limits::SQUASHFS_BUFFERS_EXTRA,
            spare: None,
            sequence: 0,
            blocks: 0,
            runs: 0,
            files: Vec::new(),
            open: None,
            fragments: 0,
            tails: HashMap::new(),
        };
        content.workers = pipeline::start(compressors, jobs_end, &done, &known)?;
        let committer = Committer::new(out, position, Wiring { steps: steps_end, done: done_end, free, known });
        let thread = Builder::new().name("squashfs-write".into()).spawn(move || committer.run());
        content.committer = Some(thread.map_err(Error::Thread)?);
        Ok(content)
    }

    pub(super) fn files(&self) -> &[File] {
        &self.files
    }

    /// See [`super::Writer::add_sparse`].
    pub(super) fn add(&mut self, size: u64, extents: &[Extent], reader: &mut dyn Read) -> Result<DataId, Error> {
        let mut source = Source::new(size, extents, reader)?;
        let block_size = self.block_size as u64;
        let full_blocks = self.count_blocks(size / block_size)?;
        let mut block = 0;
        while block < full_blocks {
            let start = u64::from(block) * block_size;
            let holes = (source.hole_after(start) / block_size).min(u64::from(full_blocks - block)) as u32;
            if holes > 0 {
                self.step(Step::Holes(holes))?;
                block += holes;
            } else {
                let mut buffers = self.take_buffers()?;
                source.fill(start, &mut buffers.input)?;
                self.submit(JobKind::Data, self.block_size, buffers, Step::Block)?;
                block += 1;
            }
        }
        let run = if full_blocks > 0 { Some(self.end_run()?) } else { None };
        let tail_len = (size % block_size) as usize;
        let tail =
            if tail_len > 0 { Some(self.add_tail(size - tail_len as u64, tail_len, &mut source)?) } else { None };
        let id = u32::try_from(self.files.len()).map_err(|_| Error::TooMany("files"))?;
        self.files.push(File { size, run, tail });
        Ok(DataId(id))
    }

    /// Ends the content: writes what is open and waits for the threads.
    pub(super) fn finish(mut self) -> Result<(Vec<File>, Placement), Error> {
        if let Some(open) = self.open.take() {
            self.submit_fragment(open)?;
        }
        let placement = self.stop()?;
        Ok((std::mem::take(&mut self.files), placement))
    }

    fn count_blocks(&mut self, more: u64) -> Result<u32, Error> {
        let more = u32::try_from(more).map_err(|_| Error::TooMany("data blocks"))?;
        self.blocks = self
            .blocks
            .checked_add(more)
            .filter(|blocks| *blocks <= limits::SQUASHFS_BLOCKS_MAX)
            .ok_or(Error::TooMany("data blocks"))?;
        Ok(more)
    }

    fn end_run(&mut self) -> Result<u32, Error> {
        self.step(Step::EndRun)?;
        self.runs += 1; // never more than blocks
        Ok(self.runs - 1)
    }

    /// Reads the last bytes of a file where they may stay: at the end of the open fragment, else in a new one.
    fn add_tail(&mut self, start: u64, len: usize, source: &mut Source<'_>) -> Result<Tail, Error> {
        let fits = self.open.as_ref().is_some_and(|open| open.len + len <= self.block_size);
        let mut target = match self.open.take() {
            Some(open) if fits => open,
            other => {
                self.open = other;
                self.new_fragment()?
            }
        };
        let space = &mut target.buffers.input[target.len..target.len + len];
        source.fill(start, space)?;
        let hash = content_hash(space);
        if let Some(tail) = self.tails.get(&hash).copied() {
            if fits {
                self.open = Some(target)
            } else {
                self.spare = Some(target.buffers)
            }
            return Ok(tail);
        }
        if target.len == 0 {
            target.number = self.fragments;
            self.fragments += 1;
        }
        let tail = Tail { fragment: target.number, offset: target.len as u32 };
        target.len += len;
        self.tails.insert(hash, tail);
        self.keep_open(target)?;
        Ok(tail)
    }

    /// Keeps the emptier of the open fragment and `other`; the fuller one goes to be compressed.
    fn keep_open(&mut self, other: OpenFragment) -> Result<(), Error> {
        let (keep, full) = match self.open.take() {
            None => (other, None),
            Some(open) if open.len <= other.len => (open, Some(other)),
            Some(open) => (other, Some(open)),
        };
        self.open = Some(keep);
        full.map_or(Ok(()), |full| self.submit_fragment(full))
    }

    fn new_fragment(&mut self) -> Result<OpenFragment, Error> {
        // Its number is given when it is known to be kept.
        Ok(OpenFragment { number: 0, len: 0, buffers: self.take_buffers()? })
    }

    fn submit_fragment(&mut self, fragment: OpenFragment) -> Result<(), Error> {
        self.submit(JobKind::Fragment, fragment.len, fragment.buffers, Step::Fragment(fragment.number))
    }

    fn submit(&mut self, kind: JobKind, len: usize, buffers: Buffers, step: Step) -> Result<(), Error> {
        let job = Job { sequence: self.sequence, kind, len, buffers };
        self.sequence += 1;
        if self.link.as_ref().is_none_or(|link| link.jobs.send(job).is_err()) {
            return Err(self.failure());
        }
        self.step(step)
    }

    fn step(&mut self, step: Step) -> Result<(), Error> {
        if self.link.as_ref().is_none_or(|link| link.steps.send(step).is_err()) {
            return Err(self.failure());
        }
        Ok(())
    }

    /// A free pair of buffers; waits for the ordered stage to return one when all are in use.
    fn take_buffers(&mut self) -> Result<Buffers, Error> {
        if let Some(spare) = self.spare.take() {
            return Ok(spare);
        }
        let Some(link) = &self.link else { return Err(Error::Stopped) };
        let free = match link.free.try_recv() {
            Err(mpsc::TryRecvError::Empty) if self.buffers_left > 0 => {
                self.buffers_left -= 1;
                Ok(Buffers::new(self.block_size))
            }
            Err(mpsc::TryRecvError::Empty) => link.free.recv().map_err(|_| ()),
            other => other.map_err(|_| ()),
        };
        free.map_err(|()| self.failure())
    }

    /// Why the threads hung up.
    fn failure(&mut self) -> Error {
        self.stop().err().unwrap_or(Error::Stopped)
    }

    fn stop(&mut self) -> Result<Placement, Error> {
        self.link = None;
        let result = self.committer.take().map(JoinHandle::join);
        for worker in self.workers.drain(..) {
            // A worker has nothing to tell; had it panicked, the ordered stage would have missed its block.
            let _ = worker.join();
        }
        match result {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(Error::Stopped),
        }
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        // Abandoned, or finished before: then there is nothing left to join.
        let _ = self.stop();
    }
}

/// A file's bytes in order: data from the reader, zeros between the extents.
struct Source<'a> {
    extents: &'a [Extent],
    /// Bytes of the first extent that are read already.
    used: u64,
    reader: &'a mut dyn Read,
}

impl<'a> Source<'a> {
    fn new(size: u64, extents: &'a [Extent], reader: &'a mut dyn Read) -> Result<Source<'a>, Error> {
        let mut end = 0;
        for extent in extents {
            if extent.offset < end {
                return Err(Error::Extents);
            }
            end = extent.offset.checked_add(extent.len).ok_or(Error::Extents)?;
        }
        if end > size { Err(Error::Extents) } else { Ok(Source { extents, used: 0, reader }) }
    }

    /// How many bytes from `position` are zeros without data; endless after the last extent.
    fn hole_after(&mut self, position: u64) -> u64 {
        while let [first, rest @ ..] = self.extents
            && self.used == first.len
        {
            self.extents = rest;
            self.used = 0;
        }
        self.extents.first().map_or(u64::MAX, |extent| (extent.offset + self.used).saturating_sub(position))
    }

    /// Fills `into` with the file's bytes from `position`; called with rising positions.
    fn fill(&mut self, mut position: u64, mut into: &mut [u8]) -> Result<(), Error> {
        while !into.is_empty() {
            let hole = usize::try_from(self.hole_after(position)).unwrap_or(usize::MAX).min(into.len());
            let (zeros, rest) = into.split_at_mut(hole);
            zeros.fill(0);
            position += hole as u64;
            let left = self.extents.first().map_or(0, |extent| extent.len - self.used);
            let data = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
            let (data, rest) = rest.split_at_mut(data);
            self.read(data)?;
            position += data.len() as u64;
            into = rest;
        }
        Ok(())
    }

    fn read(&mut self, mut into: &mut [u8]) -> Result<(), Error> {
        while !into.is_empty() {
            match self.reader.read(into) {
                Ok(0) => {
                    let left: u64 = self.extents.iter().map(|extent| extent.len).sum();
                    return Err(Error::Short { missing: left - self.used });
                }
                Ok(len) => {
                    self.used += len as u64;
                    into = into.get_mut(len..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::Read(error)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, len: u64) -> Extent {
        Extent { offset, len }
    }

    #[test]
    fn a_source_puts_zeros_between_its_extents() {
        let extents = [extent(2, 3), extent(5, 0), extent(7, 1)];
        let mut reader: &[u8] = b"abcd";
        let mut source = Source::new(10, &extents, &mut reader).unwrap();
        let mut first = [9; 4];
        source.fill(0, &mut first).unwrap();
        assert_eq!(&first, b"\0\0ab");
        let mut second = [9; 6];
        source.fill(4, &mut second).unwrap();
        assert_eq!(&second, b"c\0\0d\0\0");
        assert_eq!(source.hole_after(10), u64::MAX);
    }

    #[test]
    fn extents_that_overlap_or_pass_the_end_are_refused() {
        for (size, extents) in [
            (10, vec![extent(0, 11)]),
            (10, vec![extent(4, 4), extent(2, 1)]),
            (10, vec![extent(4, 4), extent(7, 1)]),
            (u64::MAX, vec![extent(u64::MAX, 2)]),
        ] {
            assert!(matches!(Source::new(size, &extents, &mut io::empty()), Err(Error::Extents)));
        }
    }

    #[test]
    fn a_short_reader_says_how_much_is_missing() {
        let extents = [extent(0, 4), extent(6, 4)];
        let mut reader: &[u8] = b"abcde";
        let mut source = Source::new(10, &extents, &mut reader).unwrap();
        assert!(matches!(source.fill(0, &mut [0; 10]), Err(Error::Short { missing: 3 })));
    }
}
