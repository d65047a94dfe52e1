//! Where the configuration is read from: files, URLs, standard input; each bounded.

use crate::config::Inputs;
use crate::limits::CLOUD_CONFIG_BYTES_MAX;
use crate::source::{Client, Settings};
use crate::units::chain;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The host's own.
#[derive(Debug, Default)]
pub struct HostInputs;

impl Inputs for HostInputs {
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        read(File::open(path)?)
    }

    fn fetch_url(&mut self, url: &str, ca_file: Option<&Path>) -> Result<Vec<u8>, String> {
        let settings = Settings { ca_file: ca_file.map(Path::to_owned), ..Settings::from_env() };
        let client = Client::new(settings).map_err(|error| chain(&error))?;
        client.fetch_url(url, limit()).map_err(|error| chain(&error))
    }

    fn read_stdin(&mut self) -> io::Result<Vec<u8>> {
        read(io::stdin().lock())
    }
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
