//! One big file from a URL into its part file, going on where an earlier attempt or an earlier run ended.

use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::checksum::is_page;
use super::client::{self, Client, Header, Response, Transient, Trust};
use super::fetch::{Error, Progress};
use super::manifest::digest_of;
use super::part::{self, Broken, Flusher, GaveUp, Part, persist};
use super::pull::Transferred;
use super::registry::range_start;
use super::stamp::{self, Version};
use super::url::Url;
use crate::limits;
use crate::units::Digest;

/// What is downloaded, and where to.
pub(super) struct Download<'a> {
    pub client: &'a Client,
    pub url: &'a Url,
    pub headers: &'a [Header<'a>],
    /// Known before the first byte is here.
    pub published: Option<Digest>,
    pub part: PathBuf,
    pub note: PathBuf,
}

/// Whole, and as published.
pub(super) struct Downloaded {
    pub file: Arc<File>,
    pub digest: Digest,
    pub version: Version,
}

/// What a part file is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The hash of the address: it may hold a secret.
    address: String,
    version: Version,
    /// The kernel's boot that wrote it, as its `/proc/sys/kernel/random/boot_id` says.
    boot: String,
}

struct Growing<'a> {
    part: Part,
    note: Note,
    /// Begun by an earlier run: what is wrong with it may be that run's fault and not the server's.
    inherited: bool,
    /// Bytes that came over the network in this run.
    fetched: u64,
    progress: Progress<'a>,
}

type Fault = part::Fault<client::Error, Error>;

impl Download<'_> {
    /// Downloads until the file is whole, and verifies it.
    pub fn run(&self, progress: Progress<'_>) -> Result<Downloaded, Error> {
        let mut growing = self.open(progress)?;
        let outcome = self.fill_and_verify(&mut growing);
        let size = if outcome.is_ok() { Some(growing.part.have) } else { growing.size() };
        growing.tell(size, true);
        outcome.map(|digest| Downloaded { file: growing.part.file, digest, version: growing.note.version })
    }

    fn fill_and_verify(&self, growing: &mut Growing<'_>) -> Result<Digest, Error> {
        loop {
            self.fill(growing)?;
            let actual = growing.part.digest();
            let Some(published) = self.published.filter(|published| *published != actual) else { return Ok(actual) };
            if !growing.inherited {
                let _ = std::fs::remove_file(&self.part);
                let _ = std::fs::remove_file(&self.note);
                return Err(Error::Checksum { url: self.url.to_string(), published, actual });
            }
            log::warn!("what an earlier run left of {} is not as published; starting over", self.url);
            self.start_over(growing)?;
        }
    }

    fn open<'p>(&self, progress: Progress<'p>) -> Result<Growing<'p>, Error> {
        let path = &self.part;
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o644).open(path);
        let file = Arc::new(open.map_err(|source| part::Error::of_write(path, 0, source))?);
        let length = file.metadata().map_err(|source| part::Error::Read { path: path.clone(), source })?.len();
        let new = Note {
            address: digest_of(self.url.target().as_bytes()).hex(),
            version: Version::default(),
            boot: boot_id(),
        };
        let earlier = stamp::read(&self.note).filter(|earlier| self.can_use(earlier, &new, length));
        let inherited = earlier.is_some();
        let (part, note) = match earlier {
            Some(note) => (Part::resumed(file, path, length, self.client.stopper())?, note),
            None => {
                forget(&self.note)?;
                (Part::empty(file, path)?, new)
            }
        };
        Ok(Growing { part, note, inherited, fetched: 0, progress })
    }

    /// Whether what an earlier run left is a beginning. After a crash of the machine the part may have holes where data had not reached
    /// the disk; only a checksum would tell.
    fn can_use(&self, earlier: &Note, now: &Note, length: u64) -> bool {
        let is_written = self.published.is_some() || earlier.boot == now.boot && !now.boot.is_empty();
        length > 0
            && earlier.address == now.address
            && is_written
            && earlier.version.length.is_none_or(|all| length <= all)
    }

    fn start_over(&self, growing: &mut Growing<'_>) -> Result<(), Error> {
        forget(&self.note)?;
        growing.part = Part::empty(Arc::clone(&growing.part.file), &self.part)?;
        growing.note.version = Version::default();
        growing.note.boot = boot_id();
        growing.inherited = false;
        Ok(())
    }

    fn fill(&self, growing: &mut Growing<'_>) -> Result<(), Error> {
        let url = || self.url.to_string();
        // Faults name the host or the whole address themselves.
        let path = self.url.path.split('?').next().unwrap_or_default();
        let what = path.rsplit('/').next().unwrap_or_default();
        let have = |growing: &Growing<'_>| growing.part.have;
        persist(self.client, what, growing, have, |growing| self.attempt(growing)).map_err(|given_up| match given_up {
            GaveUp::Faults(source) if growing.part.have == 0 => source.into(),
            GaveUp::Faults(source) => {
                Error::Interrupted { url: url(), have: growing.part.have, size: growing.size(), source }
            }
            GaveUp::Lasting(error) => error,
            GaveUp::Stopped => Error::Stopped,
        })
    }

    /// One request, from where the part ends; a second one when the server has another file by now.
    fn attempt(&self, growing: &mut Growing<'_>) -> Result<(), Fault> {
        let have = growing.part.have;
        let is_whole = growing.note.version.length == Some(have);
        if is_whole && self.published.is_some() {
            return Ok(()); // an earlier run was ended before it could verify it
        }
        // Of what is whole the last byte is asked for again: with it comes whether it is still the same file.
        let from = have.saturating_sub(u64::from(is_whole));
        let response = self.request(from, &growing.note.version)?;
        // It is shorter now than what is here of it.
        if response.status() == 416 && from > 0 {
            self.start_over(growing).map_err(Fault::Lasting)?;
            return self.attempt(growing);
        }
        let (start, version) = self.understand(&response, from)?;
        if have > 0 && !self.goes_on(&growing.note.version, &version) {
            log::warn!("{}: it is another file now; starting over", self.url);
            self.start_over(growing).map_err(Fault::Lasting)?;
            if start > 0 {
                return self.attempt(growing);
            }
        }
        self.receive(growing, response, start, version)
    }

    /// From which byte on the response brings which file.
    fn understand(&self, response: &Response, from: u64) -> Result<(u64, Version), Fault> {
        let url = || self.url.to_string();
        let (start, version) = match response.status() {
            200 => (0, Version::of(response, number(response.header("content-length")))),
            206 => {
                let range = response.header("content-range").unwrap_or_default();
                let length = range.rsplit_once('/').and_then(|(_, length)| number(Some(length)));
                let start = range_start(range).filter(|start| *start <= from);
                let bad = || Error::Range { url: url(), from, range: crate::rootfs::shown(range) };
                (start.ok_or_else(|| Fault::Lasting(bad()))?, Version::of(response, length))
            }
            _ => return Err(self.refused(response)),
        };
        if is_page(response.header("content-type")) {
            return Err(Fault::Lasting(Error::Page { url: url() }));
        }
        match version.length.filter(|length| *length > limits::ISO_BYTES_MAX) {
            Some(length) => Err(Fault::Lasting(Error::TooLarge { url: url(), length })),
            None => Ok((start, version)),
        }
    }

    fn request(&self, from: u64, version: &Version) -> Result<Response, Fault> {
        let range = format!("bytes={from}-");
        let mut headers = self.headers.to_vec();
        if from > 0 {
            headers.push(("range", &range));
            headers.extend(version.if_range().map(|value| ("if-range", value)));
        }
        self.client.get(self.url, &headers, Trust::Verified).map_err(Fault::from)
    }

    /// Whether `now` is the file that the part is of. A server that says nothing of its files is believed when a checksum will tell.
    fn goes_on(&self, part: &Version, now: &Version) -> bool {
        part.is_same(now).unwrap_or_else(|| self.published.is_some())
    }

    /// Appends what the response brings from byte `start` on. What is here of that already is passed over.
    fn receive(
        &self,
        growing: &mut Growing<'_>,
        response: Response,
        start: u64,
        version: Version,
    ) -> Result<(), Fault> {
        let size = version.length;
        growing.note.version = version;
        // Without the note the next run starts over; a disk that is full is told by what is to be written on it.
        let noted = stamp::write(&self.note, &growing.note);
        noted.unwrap_or_else(|error| log::debug!("{}: {error}", self.note.display()));
        growing.tell(size, false);
        let Growing { part, fetched, progress, .. } = growing;
        let skip = part.have.saturating_sub(start);
        let mut flusher = Flusher::new(&part.file);
        let mut told = |part: &Part, fresh| {
            *fetched += fresh;
            flusher.grown(part.have);
            let now = Transferred { here: part.have, fetched: *fetched, total: size, ended: false };
            progress(Instant::now(), now);
        };
        let poured = part.pour(&mut response.into_body(), skip, size, self.client.stopper(), &mut told);
        match poured {
            Ok(()) if size.is_none_or(|size| size == part.have) => Ok(()),
            Ok(()) => Err(Fault::Passing(self.ended_early(), None)),
            Err(Broken::Connection(error)) => Err(error.into()),
            Err(Broken::TooLong) => Err(Fault::Lasting(Error::TooLarge {
                url: self.url.to_string(),
                length: size.unwrap_or(limits::ISO_BYTES_MAX),
            })),
            Err(Broken::Part(error)) => Err(Fault::Lasting(error.into())),
        }
    }

    fn refused(&self, response: &Response) -> Fault {
        let (url, status) = (self.url.to_string(), response.status());
        match status {
            404 | 410 => Fault::Lasting(Error::NotFound { url }),
            401 | 403 => Fault::Lasting(Error::Denied { url, status }),
            _ => Fault::from((client::Error::Status { url, status }, response.retry_after())),
        }
    }

    fn ended_early(&self) -> client::Error {
        client::Error::Io { host: self.url.authority.clone(), source: ErrorKind::UnexpectedEof.into() }
    }
}

impl Growing<'_> {
    fn size(&self) -> Option<u64> {
        self.note.version.length
    }

    fn tell(&mut self, total: Option<u64>, ended: bool) {
        let now = Transferred { here: self.part.have, fetched: self.fetched, total, ended };
        (self.progress)(Instant::now(), now);
    }
}

impl From<client::Error> for Fault {
    fn from(error: client::Error) -> Self {
        Self::from((error, None))
    }
}

impl From<(client::Error, Option<Duration>)> for Fault {
    fn from((error, retry_after): (client::Error, Option<Duration>)) -> Self {
        if Transient::is_transient(&error) { Self::Passing(error, retry_after) } else { Self::Lasting(error.into()) }
    }
}

/// Removes the note about a part, before the part gets other bytes than it says.
pub(super) fn forget(note: &Path) -> Result<(), Error> {
    match std::fs::remove_file(note) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(part::Error::Write { path: note.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}

fn number(header: Option<&str>) -> Option<u64> {
    header?.trim().parse().ok()
}

/// Empty where the kernel does not tell: then nothing is known to be of this boot.
fn boot_id() -> String {
    std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).unwrap_or_default().trim().to_owned()
}
