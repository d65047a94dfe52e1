//! Where images come from: OCI registries.
//!
//! ```text
//! Reference ─▶ registry::resolve ─▶ ImageManifest ─▶ pull::fetch ─▶ Layers ─▶ LayerReader (compressed bytes)
//!                │ auth, credentials, manifest        │ cache        (readable while they still arrive)
//!                └────────────── client (ureq) ───────┘
//! ```
//! A layer is read while it downloads, but its last byte is given out only when the sha256 of the whole has been
//! verified: a reader that saw the end saw what the manifest names.

pub mod archive;
pub mod auth;
pub mod blob;
pub mod cache;
pub mod checksum;
pub mod client;
mod closest;
pub mod credentials;
pub mod daemon;
pub mod directory;
mod download;
pub mod fetch;
pub mod location;
pub mod manifest;
pub mod part;
pub mod progress;
pub mod proxy;
pub mod pull;
pub mod reference;
pub mod registry;
pub mod release;
mod resume;
pub mod retry;
pub mod secret;
mod stamp;
pub mod url;
pub mod verified;

pub use archive::{ArchiveImage, ArchiveKind, ArchiveRef};
pub use blob::LayerReader;
pub use cache::BlobCache;
pub use client::{Client, Settings};
pub use fetch::{FetchedIso, Verified, fetch_iso};
pub use location::{BadLocation, Location};
pub use manifest::{Compression, ImageManifest, Layer};
pub use pull::{Layers, Transferred, fetch};
pub use reference::Reference;
pub use registry::{Registry, resolve};
pub use release::{ReleaseQuery, Token, fetch_release};
