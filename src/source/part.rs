//! A file that grows from the network: hashed while it is written, filled up however often the connection breaks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use super::client::{self, Body, Client};
use super::retry::Stop;
use crate::fingerprint;
use crate::limits;
use crate::units::{ByteSize, Digest, chain};

/// Why a file cannot grow.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the disk of {path} is full; {need} more are needed for this file alone", need = ByteSize(*.need))]
    DiskFull { path: PathBuf, need: u64 },
    #[error("cannot write {path}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the download was stopped")]
    Stopped,
}

impl Error {
    /// A write went wrong in a file that lacks `need` bytes (0: nobody knows).
    pub(super) fn of_write(path: &Path, need: u64, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded if need > 0 => Self::DiskFull { path, need },
            _ => Self::Write { path, source },
        }
    }
}

/// The file as far as it goes. The hash runs along, so nothing is read twice.
#[derive(Debug)]
pub(super) struct Part {
    pub file: Arc<File>,
    path: PathBuf,
    pub have: u64,
    hash: Sha256,
}

/// Why a body did not go into its part to the end.
#[derive(Debug)]
pub(super) enum Broken {
    Connection(client::Error),
    /// It is longer than was promised.
    TooLong,
    Part(Error),
}

impl Part {
    /// A part with nothing in it; what the file held is gone.
    pub fn empty(file: Arc<File>, path: &Path) -> Result<Self, Error> {
        let write = |source| Error::Write { path: path.to_owned(), source };
        if file.metadata().map_err(write)?.len() > 0 {
            file.set_len(0).map_err(write)?;
        }
        Ok(Self { file, path: path.to_owned(), have: 0, hash: Sha256::new() })
    }

    /// A part whose first `have` bytes are there already; they are read once, for the hash.
    pub fn resumed(file: Arc<File>, path: &Path, have: u64, stop: &Stop) -> Result<Self, Error> {
        let hash = hash_file(&file, path, have, stop)?;
        Ok(Self { file, path: path.to_owned(), have, hash })
    }

    /// The sha256 of what is here.
    pub fn digest(&self) -> Digest {
        Digest(self.hash.clone().finalize().into())
    }

    /// Appends a body, all but its first `skip` bytes: a server that ignored `Range` repeats what is here. `told` hears of every
    /// piece. Its end is no promise that the part is whole.
    pub fn pour(
        &mut self,
        body: &mut Body,
        mut skip: u64,
        size: Option<u64>,
        stop: &Stop,
        mut told: impl FnMut(&Self, u64),
    ) -> Result<(), Broken> {
        let mut buffer = vec![0; limits::BLOB_BUFFER_BYTES];
        loop {
            let count = body.read(&mut buffer).map_err(Broken::Connection)?;
            if count == 0 {
                return Ok(());
            }
            let repeated = usize::try_from(skip).unwrap_or(usize::MAX).min(count);
            skip -= repeated as u64;
            let fresh = &buffer[repeated..count];
            self.append(fresh, size)?;
            told(self, fresh.len() as u64);
            if stop.is_stopped() {
                return Err(Broken::Part(Error::Stopped));
            }
        }
    }

    fn append(&mut self, bytes: &[u8], size: Option<u64>) -> Result<(), Broken> {
        let length = bytes.len() as u64;
        let size_max = size.unwrap_or(limits::ISO_BYTES_MAX);
        if length > size_max.saturating_sub(self.have) {
            return Err(Broken::TooLong);
        }
        let lacks = size.map_or(length, |size| size - self.have);
        let written = self.file.write_all_at(bytes, self.have);
        written.map_err(|source| Broken::Part(Error::of_write(&self.path, lacks, source)))?;
        self.hash.update(bytes);
        self.have += length;
        Ok(())
    }
}

/// Why an attempt ended before the part was whole.
#[derive(Debug)]
pub(super) enum Fault<E, L> {
    /// It may go better a moment later, or after as long as the server asks for.
    Passing(E, Option<Duration>),
    Lasting(L),
}

/// Why [`persist`] ended without success.
#[derive(Debug)]
pub(super) enum GaveUp<E, L> {
    /// The last fault of too many.
    Faults(E),
    Lasting(L),
    Stopped,
}

/// Repeats `attempt` until it succeeds or there is no hope. A download that gains ground is not given up; ground that is gained
/// again after a new beginning does not count.
pub(super) fn persist<P, E: std::error::Error, L>(
    client: &Client,
    what: &str,
    part: &mut P,
    have: impl Fn(&P) -> u64,
    mut attempt: impl FnMut(&mut P) -> Result<(), Fault<E, L>>,
) -> Result<(), GaveUp<E, L>> {
    let (mut faults, mut furthest) = (0, have(part));
    loop {
        let (source, retry_after) = match attempt(part) {
            Ok(()) => return Ok(()),
            Err(Fault::Lasting(error)) => return Err(GaveUp::Lasting(error)),
            Err(Fault::Passing(source, retry_after)) => (source, retry_after),
        };
        if have(part).saturating_sub(furthest) >= limits::RETRY_PROGRESS_BYTES {
            faults = 0;
        }
        furthest = furthest.max(have(part));
        faults += 1;
        let Some(wait) = client.settings().backoff.wait_after(faults, retry_after) else {
            return Err(GaveUp::Faults(source));
        };
        log::warn!("{what}: {}; trying again in {:.1} s", chain(&source), wait.as_secs_f32());
        if client.stopper().wait(wait) {
            return Err(GaveUp::Stopped);
        }
    }
}

/// Has a file brought to the disk while more of it arrives, so that nobody waits long for that in the end: 0.5 s to 4 s for 1 GB.
#[derive(Debug)]
pub(super) struct Flusher {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
    flushed: u64,
}

impl Flusher {
    /// Without a thread, where none can be had, it does nothing: whoever needs the bytes on the disk asks for that in the end.
    pub fn new(file: &Arc<File>) -> Self {
        let (wake, woken) = sync_channel(1);
        let file = Arc::clone(file);
        let flush = move || woken.into_iter().for_each(|()| drop(file.sync_data()));
        let thread = std::thread::Builder::new().name("flush".to_owned()).spawn(flush).ok();
        Self { wake: Some(wake), thread, flushed: 0 }
    }

    /// Tells how long the file is by now.
    pub fn grown(&mut self, have: u64) {
        if have.saturating_sub(self.flushed) >= limits::FLUSH_BYTES {
            self.flushed = have;
            // While the last one is at work there is no hurry.
            let _ = self.wake.as_ref().map(|wake| wake.try_send(()));
        }
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        drop(self.wake.take());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The hash of the first `length` bytes of a file.
pub(super) fn hash_file(file: &File, path: &Path, length: u64, stop: &Stop) -> Result<Sha256, Error> {
    let hash = fingerprint::hash(file, length, &|| stop.is_stopped());
    hash.map_err(|source| Error::Read { path: path.to_owned(), source })?.ok_or(Error::Stopped)
}
