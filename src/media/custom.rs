//! The custom ISO: a copy of a medium with the operator's cloud config and overlay in it.
//!
//! The medium's bytes are copied by the kernel (`copy_file_range`: shared, not copied, where the file system can), and what is new is
//! put behind them ([`crate::iso::remaster`]). What takes time then is the checksum: it covers a gigabyte that was never read, and no
//! part of the medium's own can be used again, because its first blocks change. So it is begun while the kernel copies and the disk
//! writes, and ended ([`seal`]) when the ISO is there.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::files::{self, FileError};
use super::overlay::{self, Entry, Identity, Overlay, OverlayError};
use super::stamp::{self, FORMAT};
use super::{Artifact, Hashing, Medium, checksum, names};
use crate::fingerprint::Fingerprint;
use crate::iso::remaster::{self, Addition, Kind, Plan};
use crate::limits;
use crate::units::Digest;

/// What goes into a custom ISO, and where it is put.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Becomes `/config.yaml`.
    pub config: Option<&'a [u8]>,
    /// A directory whose content is laid over the ISO's root.
    pub overlay: Option<&'a Path>,
    /// Holds the custom ISO under its medium's name and `.custom.iso`, and `config.yaml`.
    pub directory: &'a Path,
    /// Where it is noted what the custom ISO was made from.
    pub stamp: &'a Path,
    /// Name and version of this program: another one makes it anew.
    pub product: &'a str,
}

/// A custom ISO. It is for its owner's eyes only (mode 0600), as the cloud config in it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Custom {
    pub iso: Artifact,
    /// `None` until [`seal`] has been called.
    pub sha256: Option<Digest>,
    /// How far the checksum is already.
    pub hashing: Option<Hashing>,
    /// For the operator, one sentence each.
    pub warnings: Vec<String>,
    /// True when an earlier run made it from the same inputs.
    pub reused: bool,
}

/// Why there is no custom ISO.
#[derive(Debug, thiserror::Error)]
pub enum CustomError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Overlay(OverlayError),
    #[error("cannot make {path}")]
    Remaster { path: PathBuf, source: remaster::Error },
    #[error("cancelled")]
    Cancelled,
}

impl From<OverlayError> for CustomError {
    fn from(error: OverlayError) -> Self {
        if matches!(error, OverlayError::Cancelled) { Self::Cancelled } else { Self::Overlay(error) }
    }
}

/// The name under which nodes are given the cloud config; the installer reads every YAML file of the medium.
const CONFIG: &str = "config.yaml";
/// The cloud config holds passwords and tokens.
const SECRET_MODE: u32 = 0o600;
/// 1980-01-01, as everything in the ESP has it: equal input makes an equal ISO.
const CONFIG_TIME: u32 = 315_532_800;

/// Everything that a custom ISO depends on; digests in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Inputs {
    format: u32,
    product: String,
    medium: String,
    config: Option<String>,
    /// Of the overlay's content.
    overlay: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    inputs: Inputs,
    /// The overlay as it was looked through.
    overlay: Option<Identity>,
    /// Name of the file.
    iso: String,
    print: Fingerprint,
    /// Once it is known.
    sha256: Option<String>,
    warnings: Vec<String>,
}

/// Makes the custom ISO of a medium, or finds it made. Without a config and an overlay there is none: what an earlier run made is
/// removed.
///
/// # Errors
/// [`CustomError`]; a custom ISO of an earlier run is then as it was.
pub fn customise(medium: &Medium, wanted: &Wanted<'_>, cancelled: &AtomicBool) -> Result<Option<Custom>, CustomError> {
    let iso = wanted.path(medium);
    files::make_parent(&iso)?;
    files::clean_matching(wanted.directory, &[".custom.iso.part", ".custom.iso.sha256.part", "config.yaml.part"])?;
    let scan = |path| Overlay::scan("iso.overlay_iso", path, wanted.directory);
    let overlay = wanted.overlay.map(scan).transpose()?;
    let mut earlier: Option<Stamp> = stamp::load(wanted.stamp);
    write_config(wanted)?;
    if wanted.config.is_none() && overlay.is_none() {
        remove_stale(&iso, wanted, earlier.as_mut(), cancelled)?;
        return Ok(None);
    }
    let known = earlier.as_ref().and_then(|stamp| stamp.overlay.as_ref());
    let identity = overlay.as_ref().map(|overlay| overlay.identify(known, cancelled)).transpose()?;
    let inputs = Inputs {
        format: FORMAT,
        product: wanted.product.to_owned(),
        medium: medium.sha256.hex(),
        config: wanted.config.map(|config| Digest(Sha256::digest(config).into()).hex()),
        overlay: identity.as_ref().map(|identity| identity.content.clone()),
    };
    if let Some(mut earlier) = earlier
        && earlier.inputs == inputs
        && let noted = earlier.clone()
        && let Some(custom) = earlier.custom(&iso, cancelled)
    {
        earlier.overlay = identity;
        if earlier != noted {
            stamp::save(wanted.stamp, &earlier)?;
        }
        return Ok(Some(custom));
    }
    let job = Job { medium, iso: &iso, part: files::part(&iso), cancelled };
    let additions = Additions::new(wanted.config, overlay.as_ref())?;
    let made = job.run(&additions).and_then(|made| job.publish(made, additions.warnings, inputs, identity, wanted));
    if made.is_err() {
        files::remove(&job.part).map(drop).unwrap_or_else(|error| log::warn!("cannot tidy up: {error}"));
    }
    made.map(Some)
}

/// Makes the checksum of a custom ISO, and its `.sha256`, unless it has them.
///
/// # Errors
/// The ISO cannot be read, the checksum not written; cancelled.
pub fn seal(custom: &mut Custom, wanted: &Wanted<'_>, cancelled: &AtomicBool) -> Result<Digest, CustomError> {
    let path = &custom.iso.path;
    if let Some(sha256) = custom.sha256 {
        checksum::write(path, sha256)?;
        return Ok(sha256);
    }
    let (size, mut hashing) = (custom.iso.size, custom.hashing.take().unwrap_or_default());
    let hashed = File::open(path).and_then(|file| hashing.go_on(&file, size, cancelled));
    hashed.map_err(|source| FileError::Read { path: path.clone(), source })?;
    let sha256 = hashing.digest(size).ok_or(CustomError::Cancelled)?;
    checksum::write(path, sha256)?;
    if let Some(mut stamp) = stamp::load::<Stamp>(wanted.stamp) {
        stamp.sha256 = Some(sha256.to_string());
        stamp::save(wanted.stamp, &stamp)?;
    }
    custom.sha256 = Some(sha256);
    Ok(sha256)
}

impl Wanted<'_> {
    fn path(&self, medium: &Medium) -> PathBuf {
        let name = medium.iso.path.file_name().unwrap_or_default().to_string_lossy();
        self.directory.join(names::custom(&name))
    }
}

/// Keeps the cloud config beside the ISOs, as long as there is one.
fn write_config(wanted: &Wanted<'_>) -> Result<(), CustomError> {
    let path = wanted.directory.join(CONFIG);
    match wanted.config {
        Some(config) if is_written(&path, config) => {}
        Some(config) => files::write(&path, SECRET_MODE, config)?,
        None if files::remove(&path)? => {
            log::info!("ISO: Removed {} of an earlier run: this one has no cloud config", path.display());
        }
        None => {}
    }
    Ok(())
}

/// Whether a file is what it should be, and nobody else's to read.
fn is_written(path: &Path, bytes: &[u8]) -> bool {
    let same = |found: fs::Metadata| {
        found.is_file() && found.mode() & 0o7777 == SECRET_MODE && found.len() == bytes.len() as u64
    };
    fs::symlink_metadata(path).is_ok_and(same) && fs::read(path).is_ok_and(|found| found == bytes)
}

/// Removes the custom ISO of an earlier run: it would install what nobody asks for any more.
fn remove_stale(
    iso: &Path,
    wanted: &Wanted<'_>,
    earlier: Option<&mut Stamp>,
    cancelled: &AtomicBool,
) -> Result<(), CustomError> {
    let of_stamp = earlier.filter(|stamp| is_file_name(&stamp.iso)).and_then(|stamp| {
        let path = wanted.directory.join(&stamp.iso);
        stamp.is_of(&path, cancelled).then_some(path)
    });
    for path in std::iter::once(iso.to_owned()).chain(of_stamp) {
        files::remove(&checksum::path(&path))?;
        if files::remove(&path)? {
            log::info!(
                "ISO: Removed {} of an earlier run: this one has neither cloud config nor overlay",
                path.display()
            );
        }
    }
    files::remove(wanted.stamp)?;
    Ok(())
}

/// Makes a file its owner's alone, if it is not.
fn restrict(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.mode() & 0o077 == 0 {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(SECRET_MODE))
}

fn is_file_name(name: &str) -> bool {
    Path::new(name).file_name().is_some_and(|file| file == name)
}

impl Stamp {
    /// The custom ISO, if nobody has altered it.
    fn custom(&mut self, path: &Path, cancelled: &AtomicBool) -> Option<Custom> {
        let same = path.file_name().is_some_and(|name| name == self.iso.as_str());
        if !same || !self.is_of(path, cancelled) {
            return None;
        }
        // Not every way to copy a file keeps its mode.
        restrict(path).unwrap_or_else(|error| log::warn!("others may read {}: {error}", path.display()));
        Some(Custom {
            iso: Artifact { path: path.to_owned(), size: self.print.size() },
            sha256: self.sha256(),
            hashing: None,
            warnings: self.warnings.clone(),
            reused: true,
        })
    }

    /// Whether the file at `path` is the one that was noted; its present fingerprint is then noted here.
    fn is_of(&mut self, path: &Path, cancelled: &AtomicBool) -> bool {
        let sha256 = self.sha256();
        stamp::is_unaltered(&mut self.print, path, sha256, cancelled)
    }

    fn sha256(&self) -> Option<Digest> {
        self.sha256.as_ref()?.parse().ok()
    }
}

/// What is added to the medium.
struct Additions<'a> {
    list: Vec<Addition>,
    /// Where the data of each comes from.
    sources: Vec<Source<'a>>,
    warnings: Vec<String>,
}

enum Source<'a> {
    Bytes(&'a [u8]),
    Overlay(&'a Overlay, &'a Entry),
}

impl<'a> Additions<'a> {
    fn new(config: Option<&'a [u8]>, overlay: Option<&'a Overlay>) -> Result<Self, CustomError> {
        let mut additions = Self { list: Vec::new(), sources: Vec::new(), warnings: Vec::new() };
        for (overlay, entry) in
            overlay.into_iter().flat_map(|overlay| overlay.entries.iter().map(move |entry| (overlay, entry)))
        {
            if config.is_some() && entry.path == CONFIG.as_bytes() {
                let path = overlay.place(&entry.path);
                let text = format!("{} is not in the custom ISO: the cloud config takes its place", path.display());
                additions.warnings.push(text);
                continue;
            }
            let text = |bytes: &[u8]| {
                let not_text = |_| overlay.name_error(entry, "or its target is not UTF-8, which an ISO cannot hold");
                String::from_utf8(bytes.to_vec()).map_err(not_text)
            };
            let kind = match &entry.kind {
                overlay::Kind::Directory => Kind::Directory,
                overlay::Kind::File { size } => Kind::File { size: *size },
                overlay::Kind::Symlink { target } => Kind::Symlink { target: text(target)? },
            };
            let mtime = u32::try_from(entry.mtime.max(0)).unwrap_or(u32::MAX);
            additions.list.push(Addition { path: text(&entry.path)?, kind, mode: entry.mode, mtime });
            additions.sources.push(Source::Overlay(overlay, entry));
        }
        if let Some(config) = config {
            let kind = Kind::File { size: config.len() as u64 };
            additions.list.push(Addition { path: CONFIG.to_owned(), kind, mode: SECRET_MODE, mtime: CONFIG_TIME });
            additions.sources.push(Source::Bytes(config));
        }
        Ok(additions)
    }
}

/// The making of one custom ISO.
struct Job<'a> {
    medium: &'a Medium,
    iso: &'a Path,
    /// The temporary name.
    part: PathBuf,
    cancelled: &'a AtomicBool,
}

/// A custom ISO under its temporary name.
struct Made {
    size: u64,
    hashing: Hashing,
}

impl Job<'_> {
    fn run(&self, additions: &Additions<'_>) -> Result<Made, CustomError> {
        let pristine = &self.medium.iso;
        let unreadable = |source| FileError::Read { path: pristine.path.clone(), source };
        let source = File::open(&pristine.path).map_err(unreadable)?;
        let size = source.metadata().map_err(unreadable)?.len();
        let failed = |source| CustomError::Remaster { path: self.part.clone(), source };
        let plan = Plan::new(&source, size, &additions.list).map_err(failed)?;
        files::remove(&self.part)?;
        let target = files::create_new(&self.part, SECRET_MODE)?;
        let mut open = |index: usize| additions.open(index, self.cancelled);
        let is_there = AtomicBool::new(false);
        thread::scope(|scope| {
            let (tell, told) = channel();
            let hashing = scope.spawn(|| follow(&target, told, &is_there));
            let written = self.copy(&source, &target, &plan, &tell).and_then(|()| {
                let summary = plan.write(&source, &target, &mut open).map_err(|error| match error {
                    _ if self.cancelled.load(Ordering::Relaxed) => CustomError::Cancelled,
                    error => failed(error),
                })?;
                let _ = tell.send(summary.size);
                target.sync_all().map_err(|source| self.unwritable(source))?;
                Ok(summary.size)
            });
            is_there.store(true, Ordering::Relaxed);
            drop(tell);
            let hashing = hashing.join().unwrap_or_default();
            written.map(|size| Made { size, hashing })
        })
    }

    /// Copies what stays, by the kernel (`io::copy` between files is `copy_file_range`), and changes it at once: it is `told` how much
    /// of the target is as it will be.
    fn copy(&self, source: &File, mut target: &File, plan: &Plan, tell: &Sender<u64>) -> Result<(), CustomError> {
        thread::scope(|scope| {
            let (wake, woken) = sync_channel(1);
            // What the disk has got by the end of the copy need not be waited for then: 0.3 s for 1 GB.
            scope.spawn(move || woken.into_iter().for_each(|()| drop(target.sync_data())));
            let mut done = 0;
            while done < plan.keep() {
                if self.cancelled.load(Ordering::Relaxed) {
                    return Err(CustomError::Cancelled);
                }
                let step = io::copy(&mut source.take((plan.keep() - done).min(limits::COPY_STEP_BYTES)), &mut target);
                let step = step.map_err(|source| self.unwritable(source))?;
                if step == 0 {
                    let source = io::ErrorKind::UnexpectedEof.into();
                    return Err(FileError::Read { path: self.medium.iso.path.clone(), source }.into());
                }
                plan.patch(target, done..done + step).map_err(|source| self.unwritable(source))?;
                done += step;
                let _ = tell.send(done);
                // While the last one is at work there is no hurry.
                let _ = wake.try_send(());
            }
            Ok(())
        })
    }

    fn unwritable(&self, source: io::Error) -> CustomError {
        FileError::Write { path: self.part.clone(), source }.into()
    }

    /// Gives the ISO its name; the stamp last, so that a run killed in between leaves nothing that is believed.
    fn publish(
        &self,
        made: Made,
        warnings: Vec<String>,
        inputs: Inputs,
        overlay: Option<Identity>,
        wanted: &Wanted<'_>,
    ) -> Result<Custom, CustomError> {
        files::remove(wanted.stamp)?;
        files::remove(&checksum::path(self.iso))?;
        files::publish(self.iso)?;
        let print = Fingerprint::at(self.iso);
        let print = print.map_err(|source| FileError::Read { path: self.iso.to_owned(), source })?;
        let iso = self.iso.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stamp = Stamp { inputs, overlay, iso, print, sha256: None, warnings };
        stamp::save(wanted.stamp, &stamp)?;
        let iso = Artifact { path: self.iso.to_owned(), size: made.size };
        Ok(Custom { iso, sha256: None, hashing: Some(made.hashing), warnings: stamp.warnings, reused: false })
    }
}

/// Hashes a file up to where it is told to, for as long as the rest of it takes. Whatever it cannot read, [`seal`] reports.
fn follow(file: &File, told: Receiver<u64>, is_there: &AtomicBool) -> Hashing {
    let mut hashing = Hashing::default();
    for end in told {
        if hashing.go_on(file, end, is_there).is_err() {
            break;
        }
    }
    hashing
}

impl Additions<'_> {
    /// The content of an addition.
    fn open(&self, index: usize, cancelled: &AtomicBool) -> io::Result<Box<dyn Read>> {
        if cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::other("cancelled"));
        }
        match &self.sources[index] {
            Source::Bytes(bytes) => Ok(Box::new(io::Cursor::new(bytes.to_vec()))),
            Source::Overlay(overlay, entry) => {
                let file = overlay.open(entry).map_err(|error| overlay.named(entry, &error))?;
                Ok(Box::new(file))
            }
        }
    }
}
