//! A directory of the host whose content goes into an image or an ISO.

use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::fingerprint::Fingerprint;
use crate::limits::OVERLAY_ENTRIES_MAX;
use crate::units::Digest;

/// Why an overlay cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("{key}: {path} does not exist; name a directory, or take the setting away")]
    Missing { key: &'static str, path: PathBuf },
    #[error("{key}: {path} is not a directory")]
    NotADirectory { key: &'static str, path: PathBuf },
    #[error("{key}: {path} contains {output}, where the ISOs are put; name a directory of its own")]
    Circular { key: &'static str, path: PathBuf, output: PathBuf },
    #[error("{key}: {path} is {what}; only files, directories and links can be taken: remove it")]
    Special { key: &'static str, path: PathBuf, what: &'static str },
    #[error("{key}: the name of {path} {why}")]
    Name { key: &'static str, path: PathBuf, why: &'static str },
    #[error("{key}: {path} has more than {max} files, directories and links")]
    TooMany { key: &'static str, path: PathBuf, max: usize },
    #[error("{key}: cannot read {path}")]
    Read { key: &'static str, path: PathBuf, source: io::Error },
    #[error("cancelled")]
    Cancelled,
}

/// What a directory holds, in the order of the paths' bytes: directories come before what is in them.
#[derive(Debug)]
pub(super) struct Overlay {
    /// The setting that named it.
    key: &'static str,
    pub(super) root: PathBuf,
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    /// Below the root, `/` between the names.
    pub(super) path: Vec<u8>,
    pub(super) kind: Kind,
    /// Permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    print: Fingerprint,
    /// Time of the last change, name and owner included: seconds, nanoseconds. No program can set it.
    changed: (i64, i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File { size: u64 },
    Symlink { target: Vec<u8> },
}

/// What tells one state of an overlay from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    /// Of what the directories say, change times included: as long as it stays, nothing needs to be read.
    quick: String,
    /// Of everything that ends up in the image, times aside.
    pub(super) content: String,
}

impl Overlay {
    /// Looks through the directory that the setting `key` names, for ISOs in the directory `output`, which is there.
    pub(super) fn scan(key: &'static str, root: &Path, output: &Path) -> Result<Self, OverlayError> {
        let overlay = Self::scan_at_most(key, root, OVERLAY_ENTRIES_MAX)?;
        // Each run would put the ISO of the one before into its own.
        let absolute = |path: &Path| fs::canonicalize(path).ok();
        match (absolute(root), absolute(output)) {
            (Some(root), Some(output)) if output.starts_with(&root) => {
                Err(OverlayError::Circular { key, path: root, output })
            }
            _ => Ok(overlay),
        }
    }

    fn scan_at_most(key: &'static str, root: &Path, max: usize) -> Result<Self, OverlayError> {
        let unreadable = |path: &Path, source| OverlayError::Read { key, path: path.to_owned(), source };
        match fs::metadata(root) {
            Ok(found) if found.is_dir() => {}
            Ok(_) => return Err(OverlayError::NotADirectory { key, path: root.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(OverlayError::Missing { key, path: root.to_owned() });
            }
            Err(error) => return Err(unreadable(root, error)),
        }
        let mut overlay = Self { key, root: root.to_owned(), entries: Vec::new() };
        let mut waiting = vec![Vec::new()];
        while let Some(directory) = waiting.pop() {
            let place = overlay.place(&directory);
            for found in fs::read_dir(&place).map_err(|error| unreadable(&place, error))? {
                let found = found.map_err(|error| unreadable(&place, error))?;
                let metadata = found.metadata().map_err(|error| unreadable(&found.path(), error))?;
                if overlay.entries.len() >= max {
                    return Err(OverlayError::TooMany { key, path: root.to_owned(), max });
                }
                let path = join(&directory, found.file_name().as_bytes());
                let entry = overlay.entry(path, &metadata)?;
                if entry.kind == Kind::Directory {
                    waiting.push(entry.path.clone());
                }
                overlay.entries.push(entry);
            }
        }
        overlay.entries.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(overlay)
    }

    fn entry(&self, path: Vec<u8>, metadata: &Metadata) -> Result<Entry, OverlayError> {
        let place = self.place(&path);
        let kind = metadata.file_type();
        let special = |what| OverlayError::Special { key: self.key, path: place.clone(), what };
        let kind = if kind.is_dir() {
            Kind::Directory
        } else if kind.is_file() {
            Kind::File { size: metadata.len() }
        } else if kind.is_symlink() {
            let target = fs::read_link(&place).map_err(|source| self.unreadable(&path, source))?;
            Kind::Symlink { target: target.as_os_str().as_bytes().to_vec() }
        } else if kind.is_socket() {
            return Err(special("a socket"));
        } else if kind.is_fifo() {
            return Err(special("a named pipe"));
        } else {
            return Err(special("a device"));
        };
        let (mode, uid, gid) = (metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Ok(Entry { path, kind, mode, uid, gid, mtime: metadata.mtime(), print: Fingerprint::of(metadata), changed })
    }

    /// The identity; with one of an earlier run, files are read only if something has been touched since.
    pub(super) fn identify(
        &self,
        earlier: Option<&Identity>,
        cancelled: &AtomicBool,
    ) -> Result<Identity, OverlayError> {
        let quick = self.digest(|entry, hasher| {
            let (seconds, nanoseconds) = entry.changed;
            hasher.update(seconds.to_le_bytes());
            hasher.update(nanoseconds.to_le_bytes());
            hasher.update(entry.print.inode().to_le_bytes());
            Ok(())
        })?;
        let quick = quick.hex();
        if let Some(earlier) = earlier.filter(|earlier| earlier.quick == quick) {
            return Ok(earlier.clone());
        }
        let mut buffer = vec![0; 256 << 10];
        let content = self.digest(|entry, hasher| {
            if !matches!(entry.kind, Kind::File { .. }) {
                return Ok(());
            }
            let mut file = self.open(entry).map_err(|source| self.unreadable(&entry.path, source))?;
            loop {
                if cancelled.load(Ordering::Relaxed) {
                    return Err(OverlayError::Cancelled);
                }
                match file.read(&mut buffer).map_err(|source| self.unreadable(&entry.path, source))? {
                    0 => return Ok(()),
                    len => hasher.update(&buffer[..len]),
                }
            }
        })?;
        Ok(Identity { quick, content: content.hex() })
    }

    /// The digest of all entries, each with what `more` adds.
    fn digest(
        &self,
        mut more: impl FnMut(&Entry, &mut Sha256) -> Result<(), OverlayError>,
    ) -> Result<Digest, OverlayError> {
        let mut hasher = Sha256::new();
        for entry in &self.entries {
            let (tag, size, target): (u8, u64, &[u8]) = match &entry.kind {
                Kind::Directory => (b'd', 0, &[]),
                Kind::File { size } => (b'f', *size, &[]),
                Kind::Symlink { target } => (b'l', 0, target),
            };
            hasher.update([tag]);
            for number in [entry.path.len() as u64, target.len() as u64, size] {
                hasher.update(number.to_le_bytes());
            }
            hasher.update(&entry.path);
            hasher.update(target);
            for number in [entry.mode, entry.uid, entry.gid] {
                hasher.update(number.to_le_bytes());
            }
            more(entry, &mut hasher)?;
        }
        Ok(Digest(hasher.finalize().into()))
    }

    /// The data of a file as it was when the directory was looked through, or an error.
    pub(super) fn open(&self, entry: &Entry) -> io::Result<OverlayFile> {
        let Kind::File { size } = entry.kind else { return Err(io::ErrorKind::InvalidInput.into()) };
        let file = File::open(self.place(&entry.path))?;
        let file = OverlayFile { file, left: size, print: entry.print.clone() };
        file.check()?;
        Ok(file)
    }

    /// Where an entry is on the host.
    pub(super) fn place(&self, path: &[u8]) -> PathBuf {
        self.root.join(OsStr::from_bytes(path))
    }

    pub(super) fn name_error(&self, entry: &Entry, why: &'static str) -> OverlayError {
        OverlayError::Name { key: self.key, path: self.place(&entry.path), why }
    }

    /// The same for a reader that can only fail with an [`io::Error`].
    pub(super) fn named(&self, entry: &Entry, error: &io::Error) -> io::Error {
        let place = self.place(&entry.path);
        io::Error::new(error.kind(), format!("{}: {}: {error}", self.key, place.display()))
    }

    fn unreadable(&self, path: &[u8], source: io::Error) -> OverlayError {
        OverlayError::Read { key: self.key, path: self.place(path), source }
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// A file that must not change while it is read.
#[derive(Debug)]
pub(super) struct OverlayFile {
    file: File,
    left: u64,
    print: Fingerprint,
}

impl OverlayFile {
    fn check(&self) -> io::Result<()> {
        if Fingerprint::of(&self.file.metadata()?) == self.print { Ok(()) } else { Err(changed()) }
    }
}

impl Read for OverlayFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if want == 0 {
            return Ok(0);
        }
        let got = self.file.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(changed());
        }
        self.left -= got as u64;
        if self.left == 0 {
            self.check()?;
        }
        Ok(got)
    }
}

fn changed() -> io::Error {
    io::Error::other("it was changed while it was being read; run again when nothing writes to it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const KEY: &str = "iso.overlay_iso";

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("auroraboot-overlay-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn scan(&self) -> Result<Overlay, OverlayError> {
            Overlay::scan(KEY, &self.0, Path::new("/"))
        }

        fn identity(&self, earlier: Option<&Identity>) -> Identity {
            self.scan().unwrap().identify(earlier, &AtomicBool::new(false)).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn tree(scratch: &Scratch) {
        fs::create_dir_all(scratch.0.join("b/c")).unwrap();
        fs::write(scratch.0.join("b/c/data"), "data").unwrap();
        fs::write(scratch.0.join("b.txt"), "").unwrap();
        symlink("../b.txt", scratch.0.join("b/link")).unwrap();
    }

    #[test]
    fn a_directory_is_listed_parents_first() {
        let scratch = Scratch::new("list");
        tree(&scratch);
        let overlay = scratch.scan().unwrap();
        let paths: Vec<_> = overlay.entries.iter().map(|entry| String::from_utf8_lossy(&entry.path)).collect();
        assert_eq!(paths, ["b", "b.txt", "b/c", "b/c/data", "b/link"]);
        assert_eq!(overlay.entries[3].kind, Kind::File { size: 4 });
        assert_eq!(overlay.entries[4].kind, Kind::Symlink { target: b"../b.txt".to_vec() });
        let mut data = String::new();
        overlay.open(&overlay.entries[3]).unwrap().read_to_string(&mut data).unwrap();
        assert_eq!(data, "data");
    }

    #[test]
    fn what_is_no_directory_or_holds_what_no_medium_can_is_refused_by_name() {
        let scratch = Scratch::new("refused");
        let missing = scratch.0.join("none");
        assert!(
            matches!(Overlay::scan(KEY, &missing, Path::new("/")), Err(OverlayError::Missing { path, .. }) if path == missing)
        );
        fs::write(scratch.0.join("file"), "").unwrap();
        let error = Overlay::scan(KEY, &scratch.0.join("file"), Path::new("/")).unwrap_err();
        assert!(matches!(error, OverlayError::NotADirectory { .. }));
        let socket = scratch.0.join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let error = scratch.scan().unwrap_err().to_string();
        assert!(error.contains(&format!("{} is a socket", socket.display())), "{error}");
    }

    #[test]
    fn the_isos_are_not_put_into_the_overlay() {
        let scratch = Scratch::new("circular");
        tree(&scratch);
        let within = |output: &str| Overlay::scan(KEY, &scratch.0, &scratch.0.join(output));
        assert!(matches!(within("b/c"), Err(OverlayError::Circular { .. })));
        assert!(matches!(within("b/../."), Err(OverlayError::Circular { .. })));
        assert!(within("..").is_ok());
    }

    #[test]
    fn the_number_of_entries_is_bounded() {
        let scratch = Scratch::new("many");
        tree(&scratch);
        assert!(Overlay::scan_at_most(KEY, &scratch.0, 5).is_ok());
        assert!(matches!(Overlay::scan_at_most(KEY, &scratch.0, 4), Err(OverlayError::TooMany { max: 4, .. })));
    }

    #[test]
    fn the_identity_is_that_of_the_content() {
        let scratch = Scratch::new("identity");
        tree(&scratch);
        let first = scratch.identity(None);
        assert_eq!(scratch.identity(None), first);
        // Touched, but the same.
        fs::write(scratch.0.join("b/c/data"), "data").unwrap();
        let touched = scratch.identity(Some(&first));
        assert_ne!(touched.quick, first.quick);
        assert_eq!(touched.content, first.content);
        // Of the same size, but another.
        fs::write(scratch.0.join("b/c/data"), "atad").unwrap();
        assert_ne!(scratch.identity(Some(&touched)).content, first.content);
        fs::write(scratch.0.join("b/c/data"), "data").unwrap();
        assert_eq!(scratch.identity(None).content, first.content);
        fs::remove_file(scratch.0.join("b/link")).unwrap();
        symlink("b.txt", scratch.0.join("b/link")).unwrap();
        assert_ne!(scratch.identity(None).content, first.content);
    }

    #[test]
    fn an_untouched_overlay_is_not_read_again() {
        let scratch = Scratch::new("unread");
        tree(&scratch);
        let known = Identity { content: "known".to_owned(), ..scratch.identity(None) };
        assert_eq!(scratch.identity(Some(&known)).content, "known");
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_an_error() {
        let scratch = Scratch::new("changes");
        tree(&scratch);
        let overlay = scratch.scan().unwrap();
        let data = scratch.0.join("b/c/data");
        let mut opened = overlay.open(&overlay.entries[3]).unwrap();
        fs::write(&data, "da").unwrap();
        assert!(opened.read_to_end(&mut Vec::new()).is_err(), "cut");
        fs::write(&data, "atad").unwrap();
        assert!(overlay.open(&overlay.entries[3]).is_err(), "written again");
        fs::remove_file(&data).unwrap();
        assert!(overlay.open(&overlay.entries[3]).is_err(), "gone");
    }
}
