//! The merged tree of an image's layers, without unpacking them.
//!
//! [`read_image`] streams the layers ([`LayerSource`], [`tar`]) once, hands the data of files to a [`DataSink`] as it comes by, and applies the
//! entries bottom-up to a [`Tree`] by containerd's rules. Nothing here knows where blobs come from or what becomes of the data.

mod boot;
mod entry;
mod layer;
mod merge;
mod paths;
mod read;
mod shown;
pub mod tar;
mod tree;

pub use self::boot::{Boot, BootError, BootFile, compare_versions, find_boot};
pub use self::entry::{DataRef, EntryError, Meta, XattrId, XattrSet};
pub use self::layer::{LayerSource, decompress};
pub use self::merge::ApplyError;
pub use self::paths::PathError;
pub use self::read::{DataCount, DataSink, Job, Progress, ReadError, WantedDirectory, read_image};
pub use self::shown::shown;
pub use self::tree::{NodeId, NodeKind, Tree, Unresolved};
