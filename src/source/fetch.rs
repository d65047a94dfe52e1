//! An ISO by its path or URL: verified, and used again by later runs.
//!
//! ```text
//! <location>.sha256 ─▶ is it what `stamp` says of `into`? ─▶ yes: nothing more is asked
//!                                       └ no ─▶ into.part (resume) ─▶ sha256 ─▶ fsync ─▶ stamp ─▶ rename to `into`
//! ```
//! Without a published checksum the server is asked whether the file is still the one that it sent before. When it cannot be
//! reached, what an earlier run fetched from there is used.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use sha2::Digest as _;

use super::checksum;
use super::client::{self, Client, Header, Trust};
use super::manifest::digest_of;
use super::part::{self, hash_file};
use super::pull::Transferred;
use super::resume::{Download, forget};
use super::retry::Stop;
use super::stamp::{self, Stamp, Version, with_suffix};
use super::url::Url;
use crate::fingerprint::Fingerprint;
use crate::limits;
use crate::units::{ByteSize, Digest, chain};

/// Told how far a download is, now and then and once at the end.
pub type Progress<'a> = &'a mut dyn FnMut(Instant, Transferred);

/// What the sha256 of a file was held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verified {
    /// The checksum that is published beside it.
    Published,
    /// Nothing: none is published.
    Unpublished,
}

/// An ISO, whole and at its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchedIso {
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    pub sha256: Digest,
    pub verified: Verified,
    /// Where it came from, fit for a log: without user, password and query.
    pub url: String,
    /// An earlier run had fetched it.
    pub reused: bool,
}

/// Why a file could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("the checksum cannot be had")]
    NoChecksum(#[from] checksum::Error),
    #[error("{url} does not exist")]
    NotFound { url: String },
    #[error("the server refuses {url} ({status}); it needs a login, or yours may not have it")]
    Denied { url: String, status: u16 },
    #[error("{url} is a web page and not an ISO; is it the address of the file itself?")]
    Page { url: String },
    #[error(
        "{url} has {actual}, but {published} is published; it was altered on the way or is not complete on the server"
    )]
    Checksum { url: String, published: Digest, actual: Digest },
    #[error("{path} has {actual}, but {published} stands in {path}.sha256", path = .path.display())]
    LocalChecksum { path: PathBuf, published: Digest, actual: Digest },
    #[error("{url} is larger than {length} bytes, which no ISO is")]
    TooLarge { url: String, length: u64 },
    #[error("{url}: the server sends {range:?} when asked for the bytes from {from}")]
    Range { url: String, from: u64, range: String },
    #[error("{url} stopped at {have}{of}; the next start goes on from there", have = ByteSize(*.have), of = of(*.size))]
    Interrupted { url: String, have: u64, size: Option<u64>, source: client::Error },
    #[error(transparent)]
    Part(part::Error),
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    #[error("the download was stopped; the next start goes on from here")]
    Stopped,
}

fn of(size: Option<u64>) -> String {
    size.map(|size| format!(" of {}", ByteSize(size))).unwrap_or_default()
}

impl From<part::Error> for Error {
    fn from(error: part::Error) -> Self {
        match error {
            part::Error::Stopped => Self::Stopped,
            error => Self::Part(error),
        }
    }
}

impl Error {
    /// Whether nobody was reached who could have answered.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Client(source) | Self::Interrupted { source, .. } => source.is_unreachable(),
            Self::NoChecksum(checksum::Error::Client(source)) => source.is_unreachable(),
            _ => false,
        }
    }
}

/// Brings the ISO at `location`, a path or an `http(s)` URL, to `into`. `stamp` is where it is noted what `into` holds, so that a
/// later run need not fetch it again. The directories of both exist.
///
/// # Errors
/// See [`Error`]; `into` is then as it was.
pub fn fetch_iso(
    client: &Client,
    location: &str,
    into: &Path,
    stamp: &Path,
    progress: Progress<'_>,
) -> Result<FetchedIso, Error> {
    let place = Place { into, stamp, stop: client.stopper() };
    if !location.contains("://") {
        return place.copy(Path::new(location), progress);
    }
    let url: Url = location.parse().map_err(client::Error::from)?;
    let key = digest_of(url.target().as_bytes()).hex();
    let fetched = fetch_url(client, &url, &key, place, progress);
    place.or_earlier(&key, fetched)
}

fn fetch_url(
    client: &Client,
    url: &Url,
    key: &str,
    place: Place<'_>,
    progress: Progress<'_>,
) -> Result<FetchedIso, Error> {
    // Before the query, which may sign the address: then it signs one that does not exist, and there is no checksum.
    let (path, query) = url.path.split_once('?').map_or((url.path.as_str(), ""), |(path, query)| (path, query));
    let separator = if query.is_empty() { "" } else { "?" };
    let beside = Url { path: format!("{path}.sha256{separator}{query}"), ..url.clone() };
    let name = path.rsplit('/').next().unwrap_or_default();
    let published = checksum::ask(client, &beside, &[], place.patience(key), name)?;
    place.fetch(client, &Wanted { key, artifact: None, url, headers: &[], published }, progress)
}

/// Where the file goes, and the note about it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    pub into: &'a Path,
    pub stamp: &'a Path,
    /// Ends the reading of what an earlier run left.
    pub stop: &'a Stop,
}

/// What is to be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// What was asked for: stands for the same file as long as its server says so.
    pub key: &'a str,
    /// The name of a release's artifact.
    pub artifact: Option<&'a str>,
    pub url: &'a Url,
    pub headers: &'a [Header<'a>],
    pub published: Option<Digest>,
}

impl Place<'_> {
    /// What an earlier run brought here for the same key.
    pub fn earlier(self, key: &str) -> Option<Stamp> {
        Stamp::read(self.stamp, self.into, self.stop).filter(|stamp| stamp.key == key)
    }

    /// Where there is something to go on with, nobody waits for long.
    pub fn patience(self, key: &str) -> Option<std::time::Duration> {
        self.earlier(key).map(|_| limits::REGISTRY_PATIENCE)
    }

    /// What an earlier run brought here, when the server cannot be reached now.
    pub fn or_earlier<E: Unreachable>(self, key: &str, fetched: Result<FetchedIso, E>) -> Result<FetchedIso, E> {
        let error = match fetched {
            Err(error) if error.is_unreachable() => error,
            fetched => return fetched,
        };
        match self.earlier(key).and_then(|stamp| self.reused(&stamp)) {
            // That is as it was wanted.
            Some(iso) if error.is_offline() => Ok(iso),
            Some(iso) => {
                log::warn!("{}; using {}, which was downloaded from there earlier", chain(&error), self.into.display());
                Ok(iso)
            }
            None => Err(error),
        }
    }

    /// Downloads what is wanted, unless it is here.
    pub fn fetch(self, client: &Client, wanted: &Wanted<'_>, progress: Progress<'_>) -> Result<FetchedIso, Error> {
        if wanted.published.is_none() {
            log::warn!("{}: no sha256 is published beside it, so it cannot be verified", wanted.url);
        }
        if let Some(iso) = self.find(client, wanted)? {
            return Ok(iso);
        }
        let part = with_suffix(self.into, ".part");
        let download = Download {
            client,
            url: wanted.url,
            headers: wanted.headers,
            published: wanted.published,
            part: part.clone(),
            note: self.part_note(),
        };
        let downloaded = download.run(progress)?;
        let stamp = Stamp {
            key: wanted.key.to_owned(),
            artifact: wanted.artifact.map(str::to_owned),
            url: wanted.url.to_string(),
            version: downloaded.version,
            sha256: downloaded.digest.hex(),
            verified: wanted.published.is_some(),
            file: self.id(&downloaded.file)?,
        };
        self.commit(&downloaded.file, &part, &stamp)?;
        let _ = std::fs::remove_file(&download.note);
        Ok(self.described(&stamp, downloaded.digest, false))
    }

    /// What is wanted, when it is here: it has the published checksum, or the server says that it has not changed.
    fn find(self, client: &Client, wanted: &Wanted<'_>) -> Result<Option<FetchedIso>, Error> {
        let Some(mut stamp) = Stamp::read(self.stamp, self.into, self.stop) else { return Ok(None) };
        let is_same = match wanted.published {
            Some(published) => stamp.digest() == Some(published),
            None => stamp.key == wanted.key && is_unchanged(client, wanted, &stamp.version)?,
        };
        if !is_same {
            return Ok(None);
        }
        let verified = wanted.published.is_some();
        if stamp.key != wanted.key || stamp.verified != verified {
            let artifact = wanted.artifact.map(str::to_owned);
            stamp = Stamp { key: wanted.key.to_owned(), artifact, url: wanted.url.to_string(), verified, ..stamp };
            stamp::write(self.stamp, &stamp).map_err(|source| self.write_error(self.stamp, source))?;
        }
        Ok(self.reused(&stamp))
    }

    fn reused(self, stamp: &Stamp) -> Option<FetchedIso> {
        Some(self.described(stamp, stamp.digest()?, true))
    }

    fn described(self, stamp: &Stamp, sha256: Digest, reused: bool) -> FetchedIso {
        FetchedIso {
            path: self.into.to_owned(),
            size: stamp.file.size(),
            sha256,
            verified: if stamp.verified { Verified::Published } else { Verified::Unpublished },
            url: stamp.url.clone(),
            reused,
        }
    }

    /// Gives a verified part its name, durably. The stamp comes first: it fits no file until then, and whoever dies between the two
    /// leaves a part that is whole.
    fn commit(self, file: &File, part: &Path, stamp: &Stamp) -> Result<(), Error> {
        file.sync_all().map_err(|source| part::Error::of_write(part, 0, source))?;
        stamp::write(self.stamp, stamp).map_err(|source| self.write_error(self.stamp, source))?;
        let rename = std::fs::rename(part, self.into).and_then(|()| stamp::sync_directory(self.into));
        rename.map_err(|source| self.write_error(self.into, source))
    }

    /// The note about what `into.part` is a part of.
    fn part_note(self) -> PathBuf {
        with_suffix(self.stamp, ".part")
    }

    fn id(self, file: &File) -> Result<Fingerprint, Error> {
        let metadata = file.metadata();
        metadata.map(|metadata| Fingerprint::of(&metadata)).map_err(|source| self.read_error(self.into, source))
    }

    fn write_error(self, path: &Path, source: io::Error) -> Error {
        part::Error::of_write(path, 0, source).into()
    }

    fn read_error(self, path: &Path, source: io::Error) -> Error {
        part::Error::Read { path: path.to_owned(), source }.into()
    }

    /// Copies a file of this machine; a file system that can share the data does.
    fn copy(self, path: &Path, progress: Progress<'_>) -> Result<FetchedIso, Error> {
        let read_error = |source| self.read_error(path, source);
        // Before it is opened: to open a named pipe is to wait for who writes to it.
        if !path.metadata().map_err(read_error)?.is_file() {
            return Err(Error::NotAFile(path.to_owned()));
        }
        let source = File::open(path).map_err(read_error)?;
        let metadata = source.metadata().map_err(read_error)?;
        let published = self.local_checksum(path)?;
        let key = local_key(path, &metadata);
        if let Some(stamp) = self.earlier(&key)
            && published.is_none_or(|published| stamp.digest() == Some(published))
        {
            return self.reused(&stamp).ok_or(Error::Stopped);
        }
        let part = with_suffix(self.into, ".part");
        forget(&self.part_note())?;
        let write_error = |source| Error::from(part::Error::of_write(&part, metadata.len(), source));
        let open = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o644).open(&part);
        let copy = open.map_err(write_error)?;
        let length = match self.copy_content(&source, &copy, metadata.len(), progress).map_err(write_error)? {
            Some(length) => length,
            None => {
                let _ = std::fs::remove_file(&part);
                return Err(Error::Stopped);
            }
        };
        let sha256 = Digest(hash_file(&copy, &part, length, self.stop)?.finalize().into());
        if let Some(published) = published.filter(|published| *published != sha256) {
            let _ = std::fs::remove_file(&part);
            return Err(Error::LocalChecksum { path: path.to_owned(), published, actual: sha256 });
        }
        let stamp = Stamp {
            key,
            artifact: None,
            url: path.display().to_string(),
            version: Version::default(),
            sha256: sha256.hex(),
            verified: published.is_some(),
            file: self.id(&copy)?,
        };
        self.commit(&copy, &part, &stamp)?;
        Ok(self.described(&stamp, sha256, false))
    }

    /// Returns how many bytes there were, `None` if it was stopped.
    fn copy_content(
        self,
        source: &File,
        mut copy: &File,
        total: u64,
        progress: Progress<'_>,
    ) -> io::Result<Option<u64>> {
        let mut tell = |here, ended| {
            progress(Instant::now(), Transferred { here, fetched: here, total: Some(total), ended });
        };
        let mut done = 0;
        let outcome = loop {
            if self.stop.is_stopped() {
                break Ok(None);
            }
            // Between files this is copy_file_range(2), by which a file system shares what it can.
            match io::copy(&mut source.take(limits::COPY_STEP_BYTES), &mut copy) {
                Ok(0) => break Ok(Some(done)),
                Ok(copied) => done += copied,
                Err(error) => break Err(error),
            }
            tell(done, false);
        };
        tell(done, true);
        outcome
    }

    fn local_checksum(self, path: &Path) -> Result<Option<Digest>, Error> {
        let beside = with_suffix(path, ".sha256");
        let text = match File::open(&beside) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.and_then(|file| io::read_to_string(file.take(limits::CHECKSUM_BYTES_MAX))),
        };
        let text = text.map_err(|source| self.read_error(&beside, source))?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let none = || checksum::Error::None { url: beside.display().to_string(), name: name.clone() };
        Ok(Some(checksum::parse(&text, &name).ok_or_else(none)?))
    }
}

/// Says of itself whether it is that nobody could be reached.
pub(super) trait Unreachable: std::error::Error {
    fn is_unreachable(&self) -> bool;
    /// Nobody was to be reached.
    fn is_offline(&self) -> bool;
}

impl Unreachable for Error {
    fn is_unreachable(&self) -> bool {
        Error::is_unreachable(self)
    }

    fn is_offline(&self) -> bool {
        matches!(
            self,
            Self::Client(client::Error::Offline(_))
                | Self::NoChecksum(checksum::Error::Client(client::Error::Offline(_)))
        )
    }
}

/// Asks whether the server still has what it sent before (RFC 9110 §13.1). One that says nothing of its files must send it again.
fn is_unchanged(client: &Client, wanted: &Wanted<'_>, version: &Version) -> Result<bool, Error> {
    let mut headers = wanted.headers.to_vec();
    headers.extend(version.etag.as_deref().map(|etag| ("if-none-match", etag)));
    headers.extend(version.last_modified.as_deref().map(|date| ("if-modified-since", date)));
    let response = client.retrying_for(Some(limits::REGISTRY_PATIENCE), || {
        let response = client.get(wanted.url, &headers, Trust::Verified)?;
        match response.status() {
            status if super::retry::is_transient_status(status) => {
                Err((client::Error::Status { url: wanted.url.to_string(), status }, response.retry_after()))
            }
            _ => Ok(response),
        }
    })?;
    let length = response.header("content-length").and_then(|length| length.parse().ok());
    Ok(match response.status() {
        304 => true,
        200 => version.is_same(&Version::of(&response, length)) == Some(true),
        _ => false,
    })
}

/// A file of this machine as it is now.
fn local_key(path: &Path, metadata: &Metadata) -> String {
    let (device, id) = (metadata.dev(), Fingerprint::of(metadata));
    digest_of(format!("{device} {id:?} {}", path.display()).as_bytes()).hex()
}
