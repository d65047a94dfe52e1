//! A layer that one thread fills and others read, and what a reader may see of it when.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::manifest::Layer;
use super::pull::Error;

/// A layer on its way into the cache.
#[derive(Debug)]
pub(super) struct Blob {
    pub layer: Layer,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    /// Bytes from the start that readers may have.
    readable: u64,
    outcome: Option<Result<(), Arc<Error>>>,
}

impl Blob {
    pub fn new(layer: Layer) -> Self {
        Self { layer, state: Mutex::default(), changed: Condvar::new() }
    }

    /// Lets readers see the first `written` bytes, except the very last of the layer: with it goes the promise that the
    /// digest was right, and no decompressor reports its end before it has that byte.
    pub fn expose(&self, file: &Arc<File>, written: u64) {
        let mut state = self.lock();
        if state.file.is_none() {
            state.file = Some(Arc::clone(file));
        }
        state.readable = written.min(self.layer.size.saturating_sub(1));
        self.changed.notify_all();
    }

    /// The digest was right: readers may have it all.
    pub fn complete(&self, file: &Arc<File>) {
        let mut state = self.lock();
        state.file = Some(Arc::clone(file));
        state.readable = self.layer.size;
        state.outcome = Some(Ok(()));
        self.changed.notify_all();
    }

    /// Readers get this error from where they are. The first outcome stays.
    pub fn fail(&self, error: &Arc<Error>) {
        self.lock().outcome.get_or_insert_with(|| Err(Arc::clone(error)));
        self.changed.notify_all();
    }

    /// Waits for the outcome.
    pub fn wait(&self) -> Result<(), Arc<Error>> {
        let mut state = self.lock();
        loop {
            if let Some(outcome) = &state.outcome {
                return outcome.clone();
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until there is something to read at `at`: the file, and where its readable part ends.
    fn readable(&self, at: u64) -> Result<Option<(Arc<File>, u64)>, Arc<Error>> {
        let mut state = self.lock();
        loop {
            match (&state.outcome, &state.file) {
                (Some(Err(error)), _) => return Err(Arc::clone(error)),
                (_, Some(file)) if at < state.readable => return Ok(Some((Arc::clone(file), state.readable))),
                (Some(Ok(())), _) => return Ok(None),
                _ => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The compressed bytes of a layer, while they arrive. Blocks where there are none yet; its end is the promise that the
/// sha256 of all that was read is the one the manifest names.
#[derive(Debug, Clone)]
pub struct LayerReader {
    blob: Arc<Blob>,
    at: u64,
}

impl LayerReader {
    pub(super) fn new(blob: Arc<Blob>) -> Self {
        Self { blob, at: 0 }
    }
}

impl Read for LayerReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let Some((file, end)) = self.blob.readable(self.at).map_err(|error| io::Error::other(Failed(error)))? else {
            return Ok(0);
        };
        let room = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len());
        match file.read_at(&mut buffer[..room], self.at)? {
            // What turned out to be wrong is cut first and told then.
            0 => Err(match self.blob.wait() {
                Err(error) => io::Error::other(Failed(error)),
                Ok(()) => io::Error::new(io::ErrorKind::UnexpectedEof, "the layer's file was cut while it was read"),
            }),
            count => {
                self.at += count as u64;
                Ok(count)
            }
        }
    }
}

/// One failure, told to every reader that waits.
#[derive(Debug)]
struct Failed(Arc<Error>);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifest::{Compression, digest_of};

    fn blob(bytes: &[u8]) -> (Arc<Blob>, Arc<File>) {
        let name = format!("auroraboot-blob-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, bytes).unwrap();
        let file = Arc::new(File::open(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let layer = Layer { digest: digest_of(bytes), size: bytes.len() as u64, compression: Compression::None };
        (Arc::new(Blob::new(layer)), file)
    }

    #[test]
    fn the_last_byte_comes_only_with_the_verdict() {
        let (blob, file) = blob(b"abc");
        let mut reader = LayerReader::new(Arc::clone(&blob));
        blob.expose(&file, 1);
        let mut buffer = [0; 8];
        assert_eq!(reader.read(&mut buffer).unwrap(), 1);
        blob.expose(&file, 3);
        assert_eq!(reader.read(&mut buffer).unwrap(), 1, "b, and not yet c");
        let rest = std::thread::spawn(move || io::read_to_string(reader));
        blob.complete(&file);
        assert_eq!(rest.join().unwrap().unwrap(), "c");
    }

    #[test]
    fn a_failure_wakes_readers_and_outweighs_bytes_that_are_there() {
        let (blob, file) = blob(b"abc");
        let mut reader = LayerReader::new(Arc::clone(&blob));
        blob.expose(&file, 2);
        blob.fail(&Arc::new(Error::Stopped));
        assert_eq!(reader.read(&mut [0; 8]).unwrap_err().to_string(), Error::Stopped.to_string());
        assert!(blob.wait().is_err());
    }

    #[test]
    fn a_file_that_is_cut_means_that_the_reason_is_coming() {
        let (blob, file) = blob(b"abc");
        blob.expose(&Arc::new(File::open("/dev/null").unwrap()), 2);
        let reader = LayerReader::new(Arc::clone(&blob));
        let read = std::thread::spawn(move || io::read_to_string(reader).unwrap_err().to_string());
        blob.fail(&Arc::new(Error::Stopped));
        assert_eq!(read.join().unwrap(), Error::Stopped.to_string());
        drop(file);
    }

    #[test]
    fn an_empty_layer_ends_at_once() {
        let (blob, file) = blob(b"");
        blob.complete(&file);
        assert_eq!(LayerReader::new(blob).read(&mut [0; 8]).unwrap(), 0);
    }
}
