//! What is offered for download.

use super::escape::is_deceptive;
use crate::civil::Civil;
use crate::http::handoff::percent_encode;
use crate::http::response;
use crate::netboot::blob::Blob;
use crate::netboot::served::{Body, Memory};
use crate::storage::Extent;
use crate::units::Digest;
use std::fmt::Write;
use std::fs::File;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

/// Whether an ISO is as it was built or downloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Pristine,
    /// With a cloud config or other files added.
    Custom,
}

impl Kind {
    /// The word for scripts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pristine => "pristine",
            Self::Custom => "custom",
        }
    }
}

/// One ISO.
#[derive(Debug, Clone)]
pub struct Item {
    /// The name it is served under, such as `kairos.iso`.
    pub name: String,
    pub kind: Kind,
    /// Opened once: a download goes on with the file it began with, whatever takes its name meanwhile.
    pub file: Arc<File>,
    /// Bytes.
    pub size: u64,
    pub sha256: Digest,
    pub built: SystemTime,
    /// Whoever downloads it can read the cloud config in it.
    pub contains_cloud_config: bool,
}

impl Item {
    /// The name of the file with its checksum.
    #[must_use]
    pub fn checksum_name(&self) -> String {
        format!("{}.sha256", self.name)
    }

    /// The path to ask for.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = "/".to_owned();
        percent_encode(&mut path, &self.name);
        path
    }
}

/// What a client gets for a name.
#[derive(Debug, Clone)]
pub struct Download {
    pub name: Arc<str>,
    pub content_type: &'static str,
    /// Header lines that browsers go by.
    pub headers: Arc<str>,
    pub body: Body,
}

/// Why something is not offered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListingError {
    #[error("{0:?} cannot be served under this name; it has to be a file name that ends in .iso")]
    BadName(String),
    #[error("there are two media with the name {0:?}")]
    Twice(String),
}

/// Everything that is offered at one time. It never changes; a new one takes its place in the [`Shelf`].
#[derive(Debug, Clone, Default)]
pub struct Listing {
    image: String,
    state_dir: Option<String>,
    media: Vec<Item>,
    downloads: Vec<Download>,
}

impl Listing {
    /// Offers `media`, each with its checksum. `image` says in a line what they were made of.
    ///
    /// # Errors
    /// [`ListingError`], for a name that is not an ISO's or is there twice. This is also what keeps the cloud config from ever being
    /// served by itself: only what ends in `.iso` gets into the table.
    pub fn new(image: impl Into<String>, media: Vec<Item>) -> Result<Self, ListingError> {
        let mut downloads: Vec<Download> = Vec::new();
        for item in &media {
            if !is_iso_name(&item.name) {
                return Err(ListingError::BadName(item.name.clone()));
            }
            if downloads.iter().any(|other| *other.name == *item.name) {
                return Err(ListingError::Twice(item.name.clone()));
            }
            downloads.extend([iso(item), checksum(item)]);
        }
        Ok(Self { image: image.into(), state_dir: None, media, downloads })
    }

    /// Names the state directory where it is not the usual one: who flashes on this host has to say it.
    #[must_use]
    pub fn kept_in(self, state_dir: impl Into<String>) -> Self {
        Self { state_dir: Some(state_dir.into()), ..self }
    }

    /// The state directory, when it is not the usual one.
    #[must_use]
    pub fn state_dir(&self) -> Option<&str> {
        self.state_dir.as_deref()
    }

    /// What the media were made of.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    #[must_use]
    pub fn media(&self) -> &[Item] {
        &self.media
    }

    /// What a decoded request path stands for.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<&Download> {
        let name = path.strip_prefix('/')?;
        self.downloads.iter().find(|download| *download.name == *name)
    }
}

/// The present [`Listing`], for the thread that serves it and the one that describes it.
#[derive(Debug, Clone, Default)]
pub struct Shelf(Arc<RwLock<Arc<Listing>>>);

impl Shelf {
    #[must_use]
    pub fn new(listing: Listing) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(listing))))
    }

    #[must_use]
    pub fn listing(&self) -> Arc<Listing> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Offers something else from now on. Downloads that have begun are not touched.
    pub fn replace(&self, listing: Listing) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(listing);
    }
}

fn iso(item: &Item) -> Download {
    let extents = vec![Extent { offset: 0, length: item.size }];
    Download {
        name: item.name.as_str().into(),
        content_type: response::content_type(".iso"),
        headers: headers("attachment", &item.name, item.built),
        // The digest is the version: a download goes on after a restart, and with a file that was built anew to the same bytes.
        body: Body::Blob(Blob::new(Arc::clone(&item.file), extents, &item.sha256.hex())),
    }
}

/// Made here and not read from the disk, so that it belongs to the file that is served.
fn checksum(item: &Item) -> Download {
    let name = item.checksum_name();
    let text = format!("{}  {}\n", item.sha256.hex(), item.name);
    Download {
        headers: headers("inline", &name, item.built),
        name: name.into(),
        content_type: response::content_type(".txt"),
        body: Body::Memory(Memory::new(text.into_bytes())),
    }
}

/// A plain file name: what every file system, `sha256sum` and a header line can hold without quoting rules of their own.
fn is_iso_name(name: &str) -> bool {
    let is_file_name = !name.contains(['/', '\\']) && !name.chars().any(is_deceptive);
    is_file_name && name.len() > ".iso".len() && name.len() <= NAME_BYTES_MAX && name.ends_with(".iso")
}

/// `no-cache` lets a client keep a copy and makes it ask whether it still holds: the entity tag answers that.
fn headers(disposition: &str, name: &str, built: SystemTime) -> Arc<str> {
    let mut headers = format!("Content-Disposition: {disposition}; ");
    if name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"') {
        let _ = write!(headers, "filename=\"{name}\"");
    } else {
        // RFC 6266 §4.3, RFC 8187: every browser since 2012.
        headers.push_str("filename*=UTF-8''");
        percent_encode(&mut headers, name);
    }
    let modified = Civil::from(built).http_date();
    let _ = write!(
        headers,
        "\r\nLast-Modified: {modified}\r\nCache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n"
    );
    headers.into()
}

/// Of a file system, less what `.sha256` takes.
const NAME_BYTES_MAX: usize = 255 - ".sha256".len();
