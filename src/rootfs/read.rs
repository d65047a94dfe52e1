//! Reads an image's layers, each once, the top one first, and merges them.
//!
//! Top-down, an entry that a layer above replaces or hides is known when it comes by, so its data is not compressed; and the
//! top layers, mostly small, are done while the base is still being downloaded. What hides what is told by the paths as they are
//! spelt. That can be wrong where links are on the way, and it is only about work: the merge itself runs afterwards, bottom-up,
//! by the full rules. A live file whose data was passed over is fetched by reading its layer again; data that was stored
//! for nothing stays unreferenced.

use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::entry::{DataRef, Entry, EntryError, FileData, Kind, XattrSets};
use super::layer::{LayerSource, decompress};
use super::merge::{ApplyError, Merge};
use super::paths::{PathId, Paths};
use super::shown::shown;
use super::tar::{Archive, TarError};
use super::tree::{Missing, NodeId, Tree};
use crate::limits::{IMAGE_BYTES_MAX, LAYERS_MAX, TREE_ENTRIES_MAX};
use crate::units::Digest;

/// Takes the data of files.
pub trait DataSink {
    /// Stores exactly `size` bytes, more than none; what the reader fails with may be passed on or replaced.
    fn add(&mut self, size: u64, data: &mut dyn Read) -> io::Result<DataRef>;
}

/// A directory that is to exist whether the layers have it or not.
#[derive(Debug, Clone, Copy)]
pub struct WantedDirectory {
    pub path: &'static str,
    pub mode: u16,
}

/// How far reading has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub layers_done: usize,
    pub layers: usize,
    /// Bytes of decompressed layers so far.
    pub bytes: u64,
}

/// What the reader needs beside the layers.
pub struct Job<'a> {
    pub source: &'a dyn LayerSource,
    pub sink: &'a mut dyn DataSink,
    pub wanted: &'a [WantedDirectory],
    /// Ends the work with [`ReadError::Cancelled`].
    pub cancelled: &'a AtomicBool,
    /// Called after every entry and every read of data.
    pub progress: &'a mut dyn FnMut(Progress),
}

impl std::fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Job").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// What became of the layers' data, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DataCount {
    /// Handed to the sink.
    pub stored: u64,
    /// Of that, what no name leads to.
    pub dead: u64,
    /// Passed over because a layer above hides it.
    pub skipped: u64,
    /// Files that were passed over wrongly and came from a second reading.
    pub read_again: u64,
}

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("cannot open layer {layer}")]
    Open { layer: Digest, source: io::Error },
    #[error("layer {layer}")]
    Archive { layer: Digest, source: TarError },
    #[error("layer {layer}, entry {entry:?}")]
    Entry { layer: Digest, entry: String, source: EntryError },
    #[error("layer {layer}, entry {entry:?}")]
    Apply { layer: Digest, entry: String, source: ApplyError },
    #[error("cannot make the directory {path}")]
    Wanted { path: &'static str, source: ApplyError },
    #[error("layer {layer}: the image unpacks to more than {IMAGE_BYTES_MAX} bytes")]
    TooManyBytes { layer: Digest },
    #[error("layer {layer}: the image has more than {TREE_ENTRIES_MAX} entries")]
    TooManyEntries { layer: Digest },
    #[error("the image has {0} layers; at most {LAYERS_MAX} are supported")]
    TooManyLayers(usize),
    #[error("layer {layer} has changed between two readings")]
    Changed { layer: Digest },
    #[error("cannot store file data")]
    Store(#[source] io::Error),
    #[error("cancelled")]
    Cancelled,
}

/// Reads and merges the layers of an image.
pub fn read_image(job: Job<'_>) -> Result<(Tree, DataCount), ReadError> {
    let layers = job.source.count();
    if layers > LAYERS_MAX {
        return Err(ReadError::TooManyLayers(layers));
    }
    let mut reader = Reader {
        progress: Progress { layers, ..Progress::default() },
        job,
        paths: Paths::default(),
        xattrs: XattrSets::default(),
        entries: Vec::new(),
        ranges: vec![0..0; layers],
        marks: Vec::new(),
        bytes: 0,
        count: DataCount::default(),
    };
    for layer in (0..layers).rev() {
        reader.read_layer(layer)?;
    }
    reader.merge()
}

/// What layers above say about a path, as layer numbers + 1; 0 is "nothing".
#[derive(Debug, Clone, Copy, Default)]
struct Mark {
    /// The uppermost layer that has something at the path.
    replaced: u16,
    /// The uppermost layer that hides what is below the path.
    hidden_below: u16,
    /// The last layer read that has an entry here.
    seen: u16,
    /// A hard link of a layer above needs the file that is here.
    wanted: bool,
}

struct Reader<'a> {
    job: Job<'a>,
    paths: Paths,
    xattrs: XattrSets,
    /// All layers' entries, the top layer's first.
    entries: Vec<Entry>,
    /// Each layer's stretch of `entries`.
    ranges: Vec<Range<usize>>,
    marks: Vec<Mark>,
    /// Of `IMAGE_BYTES_MAX`.
    bytes: u64,
    count: DataCount,
    progress: Progress,
}

type Tar = Archive<Box<dyn Read + Send>>;

impl Reader<'_> {
    fn read_layer(&mut self, layer: usize) -> Result<(), ReadError> {
        let digest = self.job.source.digest(layer);
        let refuse = |source| ReadError::Archive { layer: digest, source };
        let number = u16::try_from(layer + 1).map_err(|_| ReadError::TooManyLayers(layer))?;
        let mut archive = self.open(layer)?;
        let start = self.entries.len();
        while let Some(member) = archive.next_member().map_err(refuse)? {
            self.advance(archive.position())?;
            if self.entries.len() >= TREE_ENTRIES_MAX {
                return Err(ReadError::TooManyEntries { layer: digest });
            }
            if self.progress.bytes + archive.position() > IMAGE_BYTES_MAX {
                return Err(ReadError::TooManyBytes { layer: digest });
            }
            let name = member.path.clone();
            let mut entry = Entry::keep(member, &mut self.paths, &mut self.xattrs).map_err(|source| {
                ReadError::Entry { layer: digest, entry: shown(&String::from_utf8_lossy(&name)), source }
            })?;
            if let Kind::File { size, data } = &mut entry.kind
                && *data == FileData::Skipped
            {
                self.bytes = self.bytes.saturating_add(*size);
                if self.bytes > IMAGE_BYTES_MAX {
                    return Err(ReadError::TooManyBytes { layer: digest });
                }
                if self.is_needed(entry.path, number) {
                    *data = FileData::Stored(self.store(&mut archive, *size, digest)?);
                } else {
                    self.count.skipped += *size;
                }
            }
            self.mark(&entry, number);
            self.entries.push(entry);
        }
        self.ranges[layer] = start..self.entries.len();
        self.progress.bytes += archive.position();
        archive.finish(IMAGE_BYTES_MAX - self.bytes).map_err(refuse)?;
        self.progress.layers_done += 1;
        self.advance(0)
    }

    fn open(&self, layer: usize) -> Result<Tar, ReadError> {
        let digest = self.job.source.digest(layer);
        let blob = self.job.source.open(layer).and_then(decompress);
        Ok(Archive::new(blob.map_err(|source| ReadError::Open { layer: digest, source })?))
    }

    fn store(&mut self, archive: &mut Tar, size: u64, layer: Digest) -> Result<DataRef, ReadError> {
        let before = self.progress;
        let progress = &mut self.job.progress;
        let mut data = Watched { archive, cancelled: self.job.cancelled, before, progress };
        let stored = self.job.sink.add(size, &mut data);
        match stored {
            Ok(stored) => {
                self.count.stored += size;
                Ok(stored)
            }
            Err(error) => Err(match archive.take_failure() {
                Some(source) => ReadError::Archive { layer, source },
                None if self.job.cancelled.load(Ordering::Relaxed) => ReadError::Cancelled,
                None => ReadError::Store(error),
            }),
        }
    }

    /// Reports progress, `position` bytes into the current layer; stops when told to.
    fn advance(&mut self, position: u64) -> Result<(), ReadError> {
        if self.job.cancelled.load(Ordering::Relaxed) {
            return Err(ReadError::Cancelled);
        }
        (self.job.progress)(Progress { bytes: self.progress.bytes + position, ..self.progress });
        Ok(())
    }

    /// Whether a file's data will be alive, as far as the paths say.
    fn is_needed(&mut self, path: PathId, layer: u16) -> bool {
        let mark = self.mark_at(path);
        if std::mem::take(&mut mark.wanted) {
            return true;
        }
        if mark.replaced > layer {
            return false;
        }
        let mut at = path;
        while at != PathId::ROOT {
            at = self.paths.parent(at);
            if self.marks.get(at.index()).is_some_and(|mark| mark.hidden_below > layer) {
                return false;
            }
        }
        true
    }

    fn mark(&mut self, entry: &Entry, layer: u16) {
        if let Kind::HardLink(target) = entry.kind {
            let target = self.mark_at(target);
            // A target of its own layer has come by already: archives name a file before its links.
            target.wanted |= target.seen != layer;
        }
        let mark = self.mark_at(entry.path);
        if entry.kind != Kind::Opaque {
            mark.replaced = mark.replaced.max(layer);
            mark.seen = layer;
        }
        if entry.kind != Kind::Directory {
            mark.hidden_below = mark.hidden_below.max(layer);
        }
    }

    fn mark_at(&mut self, path: PathId) -> &mut Mark {
        if self.marks.len() <= path.index() {
            self.marks.resize(self.paths.len(), Mark::default());
        }
        &mut self.marks[path.index()]
    }

    fn merge(mut self) -> Result<(Tree, DataCount), ReadError> {
        self.marks = Vec::new();
        let root = |source| ReadError::Wanted { path: "/", source };
        let paths = std::mem::take(&mut self.paths);
        let mut merge = Merge::new(paths, std::mem::take(&mut self.entries)).map_err(root)?;
        for layer in 0..self.ranges.len() {
            for index in self.ranges[layer].clone() {
                let applied = match (u32::try_from(index), u16::try_from(layer)) {
                    (Ok(index), Ok(layer)) => merge.apply(index, layer),
                    _ => return Err(ReadError::TooManyLayers(layer)),
                };
                applied.map_err(|source| {
                    let entry = merge.paths.display(merge.entries[index].path);
                    ReadError::Apply { layer: self.job.source.digest(layer), entry, source }
                })?;
            }
            self.advance(0)?;
        }
        let newest = merge.entries.iter().map(|entry| entry.meta.mtime).max().unwrap_or_default();
        for &WantedDirectory { path, mode } in self.job.wanted {
            let made = merge.ensure_directory(path.as_bytes(), mode, newest);
            made.map_err(|source| ReadError::Wanted { path, source })?;
        }
        let (mut tree, missing) = Tree::freeze(merge, std::mem::take(&mut self.xattrs));
        self.read_missing(&mut tree, missing)?;
        self.count.dead = self.count.stored.saturating_sub(live_bytes(&tree));
        Ok((tree, self.count))
    }

    /// Reads layers again for files that are alive though their paths looked hidden.
    fn read_missing(&mut self, tree: &mut Tree, mut missing: Vec<Missing>) -> Result<(), ReadError> {
        missing.sort_unstable_by_key(|missing| missing.entry);
        for layer in (0..self.ranges.len()).rev() {
            let range = self.ranges[layer].clone();
            let of_layer: Vec<(usize, NodeId)> = missing
                .iter()
                .map(|missing| (missing.entry as usize, missing.node))
                .filter(|(entry, _)| range.contains(entry))
                .map(|(entry, node)| (entry - range.start, node))
                .collect();
            if !of_layer.is_empty() {
                self.read_again(tree, layer, &of_layer)?;
            }
        }
        Ok(())
    }

    /// Stores the data of the members with these numbers, in ascending order.
    fn read_again(&mut self, tree: &mut Tree, layer: usize, wanted: &[(usize, NodeId)]) -> Result<(), ReadError> {
        let digest = self.job.source.digest(layer);
        let mut archive = self.open(layer)?;
        let mut next_number = 0;
        for &(number, node) in wanted {
            let mut size = None;
            while next_number <= number {
                self.advance(archive.position())?;
                let member = archive.next_member().map_err(|source| ReadError::Archive { layer: digest, source })?;
                size = match member.ok_or(ReadError::Changed { layer: digest })?.kind {
                    super::tar::MemberKind::File { size } => Some(size),
                    _ => None,
                };
                next_number += 1;
            }
            let size = size.ok_or(ReadError::Changed { layer: digest })?;
            tree.set_data(node, self.store(&mut archive, size, digest)?);
            self.count.read_again += size;
        }
        Ok(())
    }
}

fn live_bytes(tree: &Tree) -> u64 {
    tree.files().map(|(size, _)| size).sum()
}

/// A member's data on its way to the sink.
struct Watched<'a, 'p> {
    archive: &'a mut Tar,
    cancelled: &'a AtomicBool,
    before: Progress,
    progress: &'a mut &'p mut dyn FnMut(Progress),
}

impl Read for Watched<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        let got = self.archive.read(buffer)?;
        let bytes = self.before.bytes + self.archive.position();
        (self.progress)(Progress { bytes, ..self.before });
        Ok(got)
    }
}
