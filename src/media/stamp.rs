//! What a boot set was made from, kept beside it, so that the same image is not built twice.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Artifact, BootSet, INITRD, ImageFacts, KERNEL, SQUASHFS, part, sync_directory};
use crate::limits::STAMP_BYTES_MAX;
use crate::units::Digest;

const STAMP: &str = "boot-set.json";

/// Raised when the same inputs give other files.
const FORMAT: u32 = 3;

/// Everything that the files depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Inputs {
    format: u32,
    product: String,
    layers: Vec<String>,
}

impl Inputs {
    pub(super) fn new(product: &str, layers: &[Digest]) -> Self {
        let layers = layers.iter().map(Digest::to_string).collect();
        Self { format: FORMAT, product: product.to_owned(), layers }
    }
}

/// A file as it was when the stamp was made; hashing it all at every start would take seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Fingerprint {
    size: u64,
    mtime: i64,
    mtime_nsec: i64,
    inode: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    inputs: Inputs,
    squashfs: Fingerprint,
    kernel: Fingerprint,
    initrd: Fingerprint,
    facts: ImageFacts,
    warnings: Vec<String>,
}

/// The boot set in a directory, if it was made from these inputs and nobody has touched it.
pub(super) fn load(directory: &Path, inputs: &Inputs) -> Option<BootSet> {
    let path = directory.join(STAMP);
    if fs::metadata(&path).ok()?.len() > STAMP_BYTES_MAX {
        return None;
    }
    let stamp: Stamp = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    let same = |name, wanted: &Fingerprint| fingerprint(&directory.join(name)).is_ok_and(|found| found == *wanted);
    let untouched = same(SQUASHFS, &stamp.squashfs) && same(KERNEL, &stamp.kernel) && same(INITRD, &stamp.initrd);
    if stamp.inputs != *inputs || !untouched {
        return None;
    }
    stamp.boot_set(directory, true).ok()
}

pub(super) fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_file(directory.join(STAMP)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_directory(directory),
    }
}

impl Stamp {
    /// Describes the finished files in a directory.
    pub(super) fn of(directory: &Path, inputs: Inputs, facts: ImageFacts, warnings: Vec<String>) -> io::Result<Self> {
        let print = |name| fingerprint(&directory.join(name));
        Ok(Self { inputs, squashfs: print(SQUASHFS)?, kernel: print(KERNEL)?, initrd: print(INITRD)?, facts, warnings })
    }

    pub(super) fn save(&self, directory: &Path) -> io::Result<()> {
        let temporary = part(directory, STAMP);
        let mut file = File::create(&temporary)?;
        file.write_all(&serde_json::to_vec_pretty(self)?)?;
        file.sync_all()?;
        fs::rename(temporary, directory.join(STAMP))?;
        sync_directory(directory)
    }

    pub(super) fn boot_set(&self, directory: &Path, reused: bool) -> io::Result<BootSet> {
        let artifact = |name, print: &Fingerprint| Artifact { path: directory.join(name), size: print.size };
        Ok(BootSet {
            kernel: artifact(KERNEL, &self.kernel),
            initrd: artifact(INITRD, &self.initrd),
            squashfs: artifact(SQUASHFS, &self.squashfs),
            facts: self.facts.clone(),
            warnings: self.warnings.clone(),
            reused,
            built: fs::metadata(directory.join(SQUASHFS))?.modified()?,
        })
    }
}

fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let found = fs::symlink_metadata(path)?;
    Ok(Fingerprint { size: found.size(), mtime: found.mtime(), mtime_nsec: found.mtime_nsec(), inode: found.ino() })
}
