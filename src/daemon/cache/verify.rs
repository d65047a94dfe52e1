//! `auroraboot cache verify`: everything that has a digest is read and held against it, on all cores.

use super::media::{self, Medium};
use super::{CacheError, Report, counted, inventory};
use crate::config::mask_urls;
use crate::daemon::progress;
use crate::limits::PROGRESS_REDRAW;
use crate::source::{BlobCache, Transferred};
use crate::units::{ByteSize, Digest};
use sha2::{Digest as _, Sha256};
use std::cmp::Reverse;
use std::fmt::Write;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Instant;

/// A file, and what it should be.
struct Item {
    path: PathBuf,
    /// Bytes.
    size: u64,
    wanted: Digest,
    /// What says of an ISO that it is as it was made, and goes with it: its note, its checksum.
    notes: Vec<PathBuf>,
}

enum Verdict {
    Sound,
    Altered,
    Unreadable(io::Error),
}

/// Removes what is damaged, and drops the notes about ISOs that are not as they were.
///
/// # Errors
/// [`CacheError`]
pub fn verify(state_dir: &Path, cache: Option<&BlobCache>) -> Result<Report, CacheError> {
    let media = media::media(state_dir)?;
    let mut items = blobs(state_dir, cache)?;
    items.extend(media.iter().filter_map(iso));
    // The largest first: whoever has it last would keep all other cores waiting.
    items.sort_by_key(|item| Reverse(item.size));
    let verdicts = check(&items)?;
    let (mut text, mut damaged) = (String::new(), 0);
    for (item, verdict) in items.iter().zip(&verdicts) {
        let (path, size) = (item.path.display(), ByteSize(item.size));
        let what = match verdict {
            Verdict::Sound => continue,
            Verdict::Altered => "damaged".to_owned(),
            Verdict::Unreadable(error) => format!("cannot be read ({error})"),
        };
        damaged += 1;
        item.remove()?;
        let again = if item.notes.is_empty() { "fetches" } else { "makes or fetches" };
        let _ = writeln!(text, "{what}, and removed: {path} ({size}); the next run {again} it again");
    }
    for medium in media.iter().filter(|medium| medium.expected().is_none()) {
        let _ = writeln!(text, "not verified: {}: nothing is noted about it", medium.path.display());
    }
    tell_incomplete(&mut text, state_dir, cache)?;
    let verdict = match damaged {
        0 => "all as it should be".to_owned(),
        1 => "1 was damaged".to_owned(),
        many => format!("{many} were damaged"),
    };
    let read = items.iter().map(|item| item.size).sum();
    let _ = writeln!(text, "{}, {} read: {verdict}", counted(items.len(), "file"), ByteSize(read));
    Ok(Report { text, is_well: damaged == 0 })
}

fn blobs(state_dir: &Path, cache: Option<&BlobCache>) -> Result<Vec<Item>, CacheError> {
    let Some(cache) = cache else { return Ok(Vec::new()) };
    let blobs = cache.blobs().map_err(|source| CacheError::Read { path: state_dir.join("blobs"), source })?;
    let items = blobs.iter().filter_map(|blob| {
        let wanted = blob.digest()?;
        let path = cache.path(&wanted);
        Some(Item { path, size: blob.size, wanted, notes: Vec::new() })
    });
    Ok(items.collect())
}

fn iso(medium: &Medium) -> Option<Item> {
    let (stamp, _) = medium.stamp.as_ref()?;
    let mut checksum = medium.path.clone().into_os_string();
    checksum.push(".sha256");
    let notes = vec![stamp.clone(), checksum.into()];
    Some(Item { path: medium.path.clone(), size: medium.size, wanted: medium.expected()?, notes })
}

/// Says which images lack something, be it that it was damaged.
fn tell_incomplete(text: &mut String, state_dir: &Path, cache: Option<&BlobCache>) -> Result<(), CacheError> {
    for image in inventory(state_dir, cache)?.images.iter().filter(|image| image.missing > 0) {
        let names: Vec<String> = image.names.iter().map(|name| mask_urls(name)).collect();
        let _ = writeln!(text, "not all here: {}; the next run fetches the rest", names.join(", "));
    }
    Ok(())
}

/// Reads all of them, and shows how far it is.
fn check(items: &[Item]) -> Result<Vec<Verdict>, CacheError> {
    let total = items.iter().map(|item| item.size).sum();
    let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(items.len());
    let (next, read) = (AtomicUsize::new(0), AtomicU64::new(0));
    let mut progress = progress::of_checking("Verify");
    let mut show = |ended| {
        let here = read.load(Ordering::Relaxed);
        progress(Instant::now(), Transferred { here, fetched: here, total: Some(total), ended });
    };
    let mut verdicts: Vec<Verdict> = items.iter().map(|_| Verdict::Sound).collect();
    thread::scope(|scope| {
        let (tell, told) = channel();
        for worker in 0..workers {
            let (tell, next, read) = (tell.clone(), &next, &read);
            let work = move || {
                let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|index| *index < items.len());
                while let Some(index) = take() {
                    let _ = tell.send((index, items[index].check(read)));
                }
            };
            let thread = thread::Builder::new().name(format!("verify {worker}"));
            thread.spawn_scoped(scope, work).map_err(CacheError::Thread)?;
        }
        drop(tell);
        loop {
            match told.recv_timeout(PROGRESS_REDRAW) {
                Ok((index, verdict)) => verdicts[index] = verdict,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            show(false);
        }
        show(true);
        Ok(verdicts)
    })
}

impl Item {
    /// The notes first: without them nobody takes what is left for sound.
    fn remove(&self) -> Result<(), CacheError> {
        for path in self.notes.iter().chain([&self.path]) {
            match fs::remove_file(path) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(CacheError::Remove { path: path.clone(), source });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self, read: &AtomicU64) -> Verdict {
        match digest(&self.path, read) {
            Ok(actual) if actual == self.wanted => Verdict::Sound,
            Ok(_) => Verdict::Altered,
            Err(error) => Verdict::Unreadable(error),
        }
    }
}

/// The sha256 of a file; `counted` hears of what was read of it.
fn digest(path: &Path, counted: &AtomicU64) -> io::Result<Digest> {
    const BUFFER_BYTES: usize = 1 << 20;
    let mut file = File::open(path)?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; BUFFER_BYTES]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Digest(hash.finalize().into())),
            count => {
                hash.update(&buffer[..count]);
                counted.fetch_add(count as u64, Ordering::Relaxed);
            }
        }
    }
}
