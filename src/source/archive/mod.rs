//! Images out of archives: OCI layouts, tar files of these, and what `docker save` writes, old and new.
//!
//! ```text
//! oci:DIR ───────────────┐ documents   ┌ layout (index.json)    ┐
//! FILE, plain ─ members ─┼───────────▶ │                        ├─▶ Plan ─▶ ArchiveImage: ranges of the file, or blobs
//! FILE, gzip or zstd ────┤             └ docker (manifest.json) ┘           of the cache, each read through `verified`
//! a daemon's export ─────┴─ spool ─▶ blobs in the cache
//! ```
//! What can be read at any place is never copied: of a plain archive only the headers are read, once. A stream is read once and its
//! large members go straight into the cache ([`spool`]). No member is ever written under the name that the archive gives it.

mod docker;
mod image;
mod layout;
mod members;
mod name;
mod open;
mod parts;
mod sniff;
mod spool;

use std::io;
use std::path::PathBuf;

use self::image::{Documents, Plan};

pub use self::image::ArchiveImage;
pub(in crate::source) use self::image::diff_ids;
pub use self::name::{ArchiveKind, ArchiveRef, BadArchive};
pub use self::open::open;
pub use self::spool::{Spooled, spool};
use super::pull::Transferred;
use super::retry::Stop;
use super::{cache, manifest, part};
use crate::limits;
use crate::rootfs::tar::TarError;
use crate::units::{Arch, ByteSize, Digest};

/// What work on an archive is told, and tells.
pub struct Watch<'a> {
    /// Ends it with [`Error::Stopped`].
    pub stop: &'a Stop,
    /// Hears now and then how many bytes were read.
    pub progress: &'a mut dyn FnMut(Transferred),
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watch").field("stop", &self.stop).finish_non_exhaustive()
    }
}

/// An archive that cannot be used, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot use {image}")]
pub struct OpenError {
    /// As the operator wrote it.
    pub image: String,
    pub source: Box<Error>,
}

/// Why an archive cannot be used. The messages do not name it: whoever opened it does.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the archive cannot be read")]
    Tar(#[source] TarError),
    #[error("the archive is cut off in the middle of {member:?}; copy it again")]
    Truncated { member: String },
    #[error("the archive is cut off at byte {at}; copy it again")]
    CutOff { at: u64 },
    #[error("it is no image archive: {0}")]
    NotAnImage(String),
    #[error("it holds neither index.json nor manifest.json: it is no image archive, or is cut off")]
    NoDocuments,
    #[error("it is no OCI layout: it has no index.json; the prefix dir: takes a directory as a root file system")]
    NotALayout,
    #[error("it has {0:?} twice; nobody can say which one counts")]
    Twice(String),
    #[error("the member {0:?} leads out of the archive")]
    Outside(String),
    #[error("{path:?} is a symbolic link out of the layout's directory; copy what it points to")]
    LinkOutside { path: String },
    #[error("{0:?} is neither a file nor a link to one")]
    NotAFile(String),
    #[error("{0:?} is stored as a sparse file; write the archive without --sparse")]
    Sparse(String),
    #[error("{0} is not there, though the archive's own list names it; the archive is incomplete")]
    Missing(String),
    #[error("{path} is not valid JSON of its kind")]
    Json { path: String, source: serde_json::Error },
    #[error(transparent)]
    Document(#[from] manifest::Error),
    #[error("{path} has the digest {actual} instead of {wanted}: it is damaged, or was altered")]
    Corrupt { path: String, wanted: Digest, actual: Digest },
    #[error("{path} has {actual} bytes instead of {wanted}: it is damaged, or was altered")]
    Size { path: String, wanted: u64, actual: u64 },
    #[error("the image's configuration lists {diff_ids} layers, but its manifest {layers}")]
    LayerCount { diff_ids: usize, layers: usize },
    #[error("it holds several images; put the name of one behind the path: {}", .0.join(", "))]
    Several(Vec<String>),
    #[error("its list of images is empty")]
    NoImages,
    #[error("it holds no image {wanted:?}; there is {}", .there.join(", "))]
    NoSuchImage { wanted: String, there: Vec<String> },
    #[error("{what}: more than the limit of {limit}")]
    Limit { what: &'static str, limit: u64 },
    #[error("{path} has {size}; documents of at most {max} are read", size = ByteSize(*.size), max = ByteSize(limits::MANIFEST_BYTES_MAX))]
    TooLarge { path: String, size: u64 },
    #[error(transparent)]
    Part(part::Error),
    #[error(transparent)]
    Cache(#[from] cache::Error),
    #[error("stopped")]
    Stopped,
}

impl From<part::Error> for Error {
    fn from(error: part::Error) -> Self {
        match error {
            part::Error::Stopped => Self::Stopped,
            error => Self::Part(error),
        }
    }
}

impl From<TarError> for Error {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Truncated { at } => Self::CutOff { at },
            // What compressed it ends too early.
            TarError::Read { at, source } if source.kind() == io::ErrorKind::UnexpectedEof => Self::CutOff { at },
            error => Self::Tar(error),
        }
    }
}

/// Finds one image among an archive's documents. Where the archive is both, an OCI layout and a `docker save`, its kind decides.
fn find(documents: &dyn Documents, kind: ArchiveKind, name: Option<&str>, arch: Arch) -> Result<Plan, Error> {
    let lists = (documents.read("index.json")?, documents.read("manifest.json")?);
    match lists {
        (Some(index), None) => layout::find(documents, &index, name, arch),
        (Some(index), Some(_)) if kind != ArchiveKind::DockerArchive => layout::find(documents, &index, name, arch),
        (_, Some(list)) => docker::find(documents, &list, name, arch),
        (None, None) => Err(Error::NoDocuments),
    }
}
