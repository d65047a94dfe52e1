//! Where the configuration is read from: files, URLs, standard input; each bounded.

use crate::config::{Fetching, Inputs};
use crate::limits::CLOUD_CONFIG_BYTES_MAX;
use crate::media::{FileError, write_file};
use crate::source::manifest::digest_of;
use crate::source::{Client, Settings};
use crate::units::chain;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The host's own.
#[derive(Debug, Default)]
pub struct HostInputs {
    /// What URLs brought.
    fetched: Vec<(String, Vec<u8>)>,
}

impl HostInputs {
    /// Keeps in a state directory what URLs brought, for runs that ask no server; returns how many files that were. They are for their
    /// owner's eyes only.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep(&self, state_dir: &Path) -> Result<usize, FileError> {
        for (url, bytes) in &self.fetched {
            let path = kept(state_dir, url);
            if let Some(directory) = path.parent() {
                let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
                made.map_err(|source| FileError::Directory { path: directory.to_owned(), source })?;
            }
            write_file(&path, 0o600, bytes)?;
        }
        Ok(self.fetched.len())
    }
}

impl Inputs for HostInputs {
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        read(File::open(path)?)
    }

    fn fetch_url(&mut self, url: &str, how: Fetching<'_>) -> Result<Vec<u8>, String> {
        if let Some(state_dir) = how.offline {
            let kept = fs::read(kept(state_dir, url));
            return kept.map_err(|_| {
                let place = state_dir.display();
                format!(
                    "offline is set, and it was not fetched into {place} before; \
                     run `auroraboot pull` with this configuration where there is a network"
                )
            });
        }
        let settings = Settings { ca_file: how.ca_file.map(Path::to_owned), ..Settings::from_env() };
        let client = Client::new(settings).map_err(|error| chain(&error))?;
        let bytes = client.fetch_url(url, limit()).map_err(|error| chain(&error))?;
        self.fetched.push((url.to_owned(), bytes.clone()));
        Ok(bytes)
    }

    fn read_stdin(&mut self) -> io::Result<Vec<u8>> {
        read(io::stdin().lock())
    }
}

/// By the hash of its address, which may hold a secret.
fn kept(state_dir: &Path, url: &str) -> PathBuf {
    state_dir.join("urls").join(digest_of(url.as_bytes()).hex())
}

/// At most one byte more than is allowed, so that the reader of the configuration can tell.
fn limit() -> u64 {
    CLOUD_CONFIG_BYTES_MAX as u64 + 1
}

fn read(source: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limit()).read_to_end(&mut bytes)?;
    Ok(bytes)
}
