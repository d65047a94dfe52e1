//! Downloads the layers of an image, several at once, each readable while it arrives.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use super::blob::{Blob, LayerReader};
use super::cache::{self, BlobCache};
use super::download::Download;
use super::manifest::ImageManifest;
use super::part;
use super::registry::{self, Registry};
use super::retry::Stop;
use crate::limits;
use crate::units::{ByteSize, Digest, chain};

/// Why a layer could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("layer {digest} stopped at {have} of {size}", have = ByteSize(*.have), size = ByteSize(*.size))]
    Interrupted { digest: Digest, have: u64, size: u64, source: Box<registry::Error> },
    #[error(transparent)]
    Registry(#[from] Box<registry::Error>),
    #[error("layer {wanted} arrived with the digest {actual}; the registry or something before it altered it")]
    Digest { wanted: Digest, actual: Digest },
    #[error("layer {digest} is longer than the {size} bytes that its manifest promises")]
    TooLong { digest: Digest, size: u64 },
    #[error(transparent)]
    Part(part::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error("cannot start a thread for downloads")]
    Spawn(#[source] io::Error),
    #[error("the image has no layer number {0}")]
    NoLayer(usize),
    #[error("the download was stopped")]
    Stopped,
}

impl From<part::Error> for Error {
    fn from(error: part::Error) -> Self {
        match error {
            part::Error::Stopped => Self::Stopped,
            error => Self::Part(error),
        }
    }
}

/// How far the download is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Transferred {
    /// Bytes that are here, whether they came now or were in the cache.
    pub here: u64,
    /// Bytes that came over the network in this run.
    pub fetched: u64,
    /// `None` while nobody knows.
    pub total: Option<u64>,
    /// No more is coming: all is here, or it was given up.
    pub ended: bool,
}

/// Told how far the download is, now and then and once at the end.
pub type Observer = Box<dyn FnMut(Instant, Transferred) + Send>;

/// The layers of an image, downloading. Dropping it stops what still runs.
#[derive(Debug)]
pub struct Layers {
    shared: Arc<Shared>,
    /// For each layer of the manifest its blob; two layers may have the same.
    blobs: Vec<Arc<Blob>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    registry: Registry,
    cache: BlobCache,
    queue: Mutex<VecDeque<Arc<Blob>>>,
    /// The first failure: it ends everything and is what every reader is told.
    failure: Mutex<Option<Arc<Error>>>,
    counters: Counters,
    total: u64,
    working: AtomicUsize,
    ended: Stop,
}

/// Bytes, as in [`Transferred`].
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub here: AtomicU64,
    pub fetched: AtomicU64,
}

/// The order in which the squashfs wants them: the top layer decides what of the lower ones is still seen.
#[must_use]
pub fn top_first(image: &ImageManifest) -> Vec<usize> {
    (0..image.layers.len()).rev().collect()
}

/// Starts downloading. `order` lists layer numbers (0 is the lowest); what it leaves out follows.
///
/// # Errors
/// When threads cannot be started; all else is told by the readers.
pub fn fetch(
    registry: Registry,
    image: &ImageManifest,
    cache: &BlobCache,
    order: &[usize],
    observer: Observer,
) -> Result<Layers, Error> {
    let mut distinct: Vec<Arc<Blob>> = Vec::new();
    let blobs: Vec<Arc<Blob>> = image
        .layers
        .iter()
        .map(|layer| {
            if let Some(blob) = distinct.iter().find(|blob| blob.layer.digest == layer.digest) {
                return Arc::clone(blob);
            }
            let blob = Arc::new(Blob::new(layer.clone()));
            distinct.push(Arc::clone(&blob));
            blob
        })
        .collect();
    let mut queue: VecDeque<Arc<Blob>> = VecDeque::new();
    for blob in order.iter().filter_map(|&index| blobs.get(index)).chain(&distinct) {
        if !queue.iter().any(|queued| Arc::ptr_eq(queued, blob)) {
            queue.push_back(Arc::clone(blob));
        }
    }
    let workers = limits::DOWNLOADS_AT_ONCE.min(queue.len());
    let shared = Arc::new(Shared {
        registry,
        cache: cache.clone(),
        queue: Mutex::new(queue),
        failure: Mutex::default(),
        counters: Counters::default(),
        total: image.total_size(),
        working: AtomicUsize::new(workers),
        ended: Stop::default(),
    });
    let mut layers = Layers { shared, blobs, threads: Vec::new() };
    for number in 0..workers {
        layers.spawn(format!("download {number}"), Shared::work)?;
    }
    if workers == 0 {
        layers.shared.ended.stop();
    }
    layers.spawn("progress".to_owned(), |shared| shared.observe(observer))?;
    Ok(layers)
}

impl Layers {
    #[must_use]
    pub fn len(&self) -> usize {
        self.blobs.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blobs.is_empty()
    }

    /// A reader of a layer from its start (0 is the lowest); any number of them may exist.
    ///
    /// # Errors
    /// [`Error::NoLayer`].
    pub fn open(&self, index: usize) -> Result<LayerReader, Error> {
        self.blobs.get(index).map(|blob| LayerReader::new(Arc::clone(blob))).ok_or(Error::NoLayer(index))
    }

    /// Waits until every layer is whole and verified.
    ///
    /// # Errors
    /// The failure that ended the download.
    pub fn wait(&self) -> Result<(), Arc<Error>> {
        self.blobs.iter().try_for_each(|blob| blob.wait())
    }

    #[must_use]
    pub fn transferred(&self) -> Transferred {
        self.shared.transferred()
    }

    /// Stops what runs; readers that have not reached their end get an error.
    pub fn stop(&self) {
        self.shared.give_up(Error::Stopped);
    }

    fn spawn(&mut self, name: String, run: impl FnOnce(&Shared) + Send + 'static) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name(name).spawn(move || run(&shared)).map_err(Error::Spawn)?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Layers {
    fn drop(&mut self) {
        // What is whole is still brought to the disk: a committing thread is waited for, not interrupted.
        self.stop();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn work(&self) {
        while let Some(blob) = self.next() {
            if let Err(error) = self.load(&blob) {
                blob.fail(&self.give_up(error));
            }
        }
        if self.working.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.ended.stop();
        }
    }

    fn next(&self) -> Option<Arc<Blob>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Ends everything, and returns why: the first who gives up decides.
    fn give_up(&self, error: Error) -> Arc<Error> {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = Arc::clone(failure.get_or_insert_with(|| Arc::new(error)));
        self.registry.client().stop();
        for blob in self.queue.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            blob.fail(&failure);
        }
        failure
    }

    fn transferred(&self) -> Transferred {
        // First, so that "ended" never comes with counts from before the end.
        let ended = self.ended.is_stopped();
        let here = self.counters.here.load(Ordering::Relaxed);
        let fetched = self.counters.fetched.load(Ordering::Relaxed);
        Transferred { here, fetched, total: Some(self.total), ended }
    }

    fn observe(&self, mut observer: Observer) {
        loop {
            let transferred = self.transferred();
            observer(Instant::now(), transferred);
            if transferred.ended {
                return;
            }
            let _ = self.ended.wait(limits::PROGRESS_REDRAW);
        }
    }

    /// Makes a blob whole and verified, from the cache or the network.
    fn load(&self, blob: &Blob) -> Result<(), Error> {
        let (digest, size) = (blob.layer.digest, blob.layer.size);
        let download = Download { registry: &self.registry, cache: &self.cache, blob, counters: &self.counters };
        if let Some(file) = download.cached()? {
            self.counters.here.fetch_add(size, Ordering::Relaxed);
            blob.complete(&Arc::new(file));
            return Ok(());
        }
        let part = download.run()?;
        blob.complete(&part);
        // The run has what it needs; that the next one must download again is worth a line, not a failure.
        self.cache.commit(&part, &digest).unwrap_or_else(|error| log::warn!("{}", chain(&error)));
        Ok(())
    }
}
