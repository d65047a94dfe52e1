//! The stream of an export, and what it means when it breaks off.

use std::io::{self, Read};

use serde::Deserialize;

use super::{Error, Found};
use crate::limits;
use crate::rootfs::shown;
use crate::source::archive;
use crate::source::client::{self, Body};

/// An image on its way out of a daemon.
pub(super) struct Export {
    body: Body,
    failure: Option<client::Error>,
    /// The last bytes that came.
    tail: Vec<u8>,
}

/// What Docker writes behind an archive that it cannot finish: the status was sent long before.
#[derive(Deserialize)]
struct LastWords {
    #[serde(rename = "errorDetail")]
    detail: Detail,
}

#[derive(Deserialize)]
struct Detail {
    message: String,
}

impl Export {
    /// Asks the daemon for it, and waits until it begins to come.
    pub fn start(found: &Found) -> Result<Self, Error> {
        Ok(Self { body: found.engine.export(found)?, failure: None, tail: Vec::new() })
    }

    /// Why what came is no whole image.
    pub fn explain(self, found: &Found, error: archive::Error) -> Error {
        let (daemon, name) = (found.daemon().to_owned(), found.name.clone());
        if let archive::Error::Stopped = error {
            return Error::Stopped;
        }
        if let Some(failure) = self.failure {
            return found.engine.talk(failure);
        }
        match last_words(&self.tail) {
            Some(message) => Error::ExportRefused { daemon, name, message },
            None => Error::Export { daemon, name, source: Box::new(error) },
        }
    }
}

impl Read for Export {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.body.read(buffer) {
            Ok(count) => {
                remember(&mut self.tail, &buffer[..count]);
                Ok(count)
            }
            Err(error) => {
                let told = error.to_string();
                self.failure = Some(error);
                Err(io::Error::other(told))
            }
        }
    }
}

fn remember(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(&bytes[bytes.len().saturating_sub(limits::DAEMON_LAST_WORDS_BYTES_MAX)..]);
    tail.drain(..tail.len().saturating_sub(limits::DAEMON_LAST_WORDS_BYTES_MAX));
}

fn last_words(tail: &[u8]) -> Option<String> {
    let start = b"{\"errorDetail\"";
    let at = tail.windows(start.len()).rposition(|window| window == start)?;
    let words: LastWords = serde_json::Deserializer::from_slice(&tail[at..]).into_iter().next()?.ok()?;
    Some(shown(words.detail.message.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_found_behind_whatever_came_before() {
        let words = br#"{"errorDetail":{"message":"no space left\non device"},"error":"no space left on device"}"#;
        let mut tail = Vec::new();
        for byte in [&[0; 3000][..], words, b"\r\n"].concat() {
            remember(&mut tail, &[byte]);
        }
        assert_eq!(tail.len(), limits::DAEMON_LAST_WORDS_BYTES_MAX);
        assert_eq!(last_words(&tail).as_deref(), Some("no space left\u{fffd}on device"));
        remember(&mut tail, &[0; 5000]);
        assert_eq!((tail.len(), last_words(&tail)), (limits::DAEMON_LAST_WORDS_BYTES_MAX, None));
        assert_eq!(last_words(&words[..40]), None);
        assert_eq!(last_words(b""), None);
    }
}
