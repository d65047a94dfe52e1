//! Notes beside a file that was fetched: what it is a copy of, so that a later run need not fetch it again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::client::Response;
use super::retry::Stop;
use crate::fingerprint::{Fingerprint, Known};
use crate::limits;
use crate::units::Digest;

/// Which state of a file a server has: what HTTP calls its validators (RFC 9110 §8.8), and its length.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Version {
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Of the whole file in bytes; some servers do not tell.
    pub length: Option<u64>,
}

impl Version {
    /// `length` is that of the whole file, which a response to a range tells elsewhere than others.
    pub fn of(response: &Response, length: Option<u64>) -> Self {
        let header = |name| response.header(name).map(str::to_owned);
        Self { etag: header("etag"), last_modified: header("last-modified"), length }
    }

    /// Whether the server says that both are the same bytes; `None` when it says nothing.
    pub fn is_same(&self, other: &Self) -> Option<bool> {
        if self.length != other.length {
            return Some(false);
        }
        match (&self.etag, &other.etag) {
            (Some(a), Some(b)) => Some(a == b),
            _ => Some(self.last_modified.as_ref()? == other.last_modified.as_ref()?),
        }
    }

    /// What `If-Range` may carry: a weak entity tag does not vouch for bytes (RFC 9110 §13.1.5).
    pub fn if_range(&self) -> Option<&str> {
        self.etag.as_deref().filter(|etag| !etag.starts_with("W/")).or(self.last_modified.as_deref())
    }
}

/// What a fetched file is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// What was asked for.
    pub key: String,
    /// The artifact of a release that it is.
    pub artifact: Option<String>,
    /// Where it came from, for people.
    pub url: String,
    pub version: Version,
    pub sha256: String,
    /// Whether the sha256 was held against a published one.
    pub verified: bool,
    pub file: Fingerprint,
}

impl Stamp {
    /// The stamp, when `file` is still what it says. A file that was copied or touched may have to be read for that, once: what comes
    /// out is noted.
    pub fn read(path: &Path, file: &Path, stop: &Stop) -> Option<Self> {
        let mut stamp: Self = read(path)?;
        let noted = match stamp.file.check(file, stamp.digest(), &|| stop.is_stopped()) {
            Known::Untouched => return Some(stamp),
            Known::Other => return None,
            // No stamp: it need not be read again to be told from what is wanted.
            Known::Altered => {
                let _ = std::fs::remove_file(path);
                return None;
            }
            Known::Unaltered(now) => {
                stamp.file = now;
                write(path, &stamp)
            }
        };
        noted.unwrap_or_else(|error| log::debug!("{}: {error}", path.display()));
        Some(stamp)
    }

    pub fn digest(&self) -> Option<Digest> {
        format!("sha256:{}", self.sha256).parse().ok()
    }
}

/// Reads a note; one that is damaged is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limits::FETCH_NOTE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// Writes a note durably, or leaves the one that is there.
pub(super) fn write<T: Serialize>(path: &Path, note: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec_pretty(note)?;
    let new = with_suffix(path, ".new");
    let mut file = File::create(&new)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    sync_directory(path)
}

/// Makes a rename in `path`'s directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => File::open(".")?.sync_all(),
    }
}

/// `a/kairos.iso` and `.part` → `a/kairos.iso.part`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::manifest::digest_of;

    fn version(etag: Option<&str>, modified: Option<&str>, length: Option<u64>) -> Version {
        Version { etag: etag.map(str::to_owned), last_modified: modified.map(str::to_owned), length }
    }

    #[test]
    fn what_a_server_vouches_for() {
        let base = version(Some("\"a\""), Some("Mon"), Some(5));
        for (other, same) in [
            (base.clone(), Some(true)),
            (version(Some("\"b\""), Some("Mon"), Some(5)), Some(false)),
            (version(Some("\"a\""), Some("Mon"), Some(6)), Some(false)),
            (version(None, Some("Mon"), Some(5)), Some(true)),
            (version(None, Some("Tue"), Some(5)), Some(false)),
            (version(None, None, Some(5)), None),
        ] {
            assert_eq!(base.is_same(&other), same, "{other:?}");
        }
        assert_eq!(base.if_range(), Some("\"a\""));
        assert_eq!(version(Some("W/\"a\""), Some("Mon"), None).if_range(), Some("Mon"));
        assert_eq!(version(Some("W/\"a\""), None, None).if_range(), None);
    }

    #[test]
    fn a_stamp_holds_until_its_file_is_altered() {
        let dir = std::env::temp_dir().join(format!("auroraboot-stamp-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let (file, path, stop) = (dir.join("x.iso"), dir.join("x"), Stop::default());
        std::fs::write(&file, "iso").unwrap();
        let stamp = Stamp {
            key: "k".to_owned(),
            artifact: None,
            url: "https://example.com/x.iso".to_owned(),
            version: Version::default(),
            sha256: digest_of(b"iso").hex(),
            verified: true,
            file: Fingerprint::at(&file).unwrap(),
        };
        let read_stamp = || Stamp::read(&path, &file, &stop);
        assert_eq!(read_stamp(), None, "not there yet");
        write(&path, &stamp).unwrap();
        assert_eq!(read_stamp().as_ref(), Some(&stamp));
        assert_eq!(stamp.digest(), Some(digest_of(b"iso")));

        let copy = dir.join("copy");
        std::fs::write(&copy, "iso").unwrap();
        std::fs::rename(&copy, &file).unwrap();
        let copied = Stamp { file: Fingerprint::at(&file).unwrap(), ..stamp.clone() };
        assert_eq!(read_stamp().as_ref(), Some(&copied));
        assert_eq!(read::<Stamp>(&path), Some(copied), "and noted");

        std::fs::write(&copy, "ISO").unwrap();
        std::fs::rename(&copy, &file).unwrap();
        assert_eq!(read_stamp(), None, "altered");
        assert!(!path.exists(), "so that it is read once");

        write(&path, &stamp).unwrap();
        std::fs::write(&file, "iso!").unwrap();
        assert_eq!(read_stamp(), None, "another size");
        assert!(path.exists(), "it may be the stamp of another file");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(read_stamp(), None, "gone");
        let bytes_max = usize::try_from(limits::FETCH_NOTE_BYTES_MAX).unwrap();
        write(&path, &Stamp { url: "x".repeat(bytes_max), ..stamp }).unwrap();
        assert_eq!(read::<Stamp>(&path), None, "bounded");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
