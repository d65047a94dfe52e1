//! Every bound of the product, by name, in one place.
//!
//! A bound is a promise about memory or time that no input can break; each has a test that reaches it.
//! Sections follow the modules; the sizes are bytes and the waits are [`Duration`]s unless the name says otherwise.

use std::time::Duration;

// ── config ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// A cloud config above this is refused; Kairos nodes skip files above about 1 MiB.
pub const CLOUD_CONFIG_BYTES_MAX: usize = 8 << 20;

// ── source ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// How long a TCP and TLS connection to a registry (or the proxy before it) may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

/// How long DNS may take to answer; musl's resolver alone would wait 5 s for each of its attempts.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take from the request to the end of its response head.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a body may stall: the wait for any one read, not for the whole.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Attempts at one request before a fault that may pass counts as lasting.
pub const ATTEMPTS_MAX: u32 = 5;

/// The wait before the second attempt; it doubles with each further one.
pub const RETRY_WAIT: Duration = Duration::from_millis(500);

/// The longest wait between two attempts, whatever `Retry-After` asks for.
pub const RETRY_WAIT_MAX: Duration = Duration::from_secs(30);

/// A download that gained this much since its last fault starts counting attempts anew.
pub const RETRY_PROGRESS_BYTES: u64 = 1 << 20;

/// Redirects followed for one request.
pub const REDIRECTS_MAX: u32 = 10;

/// A response head above this is refused.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 << 10;

/// An index, manifest or image configuration above this is refused (registries accept 4 MiB).
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// Layers of one image; Docker itself stops at 127.
pub const LAYERS_MAX: usize = 512;

/// A layer's descriptor that promises more than this is refused.
pub const LAYER_BYTES_MAX: u64 = 64 << 30;

/// What a token server may answer.
pub const TOKEN_BYTES_MAX: u64 = 1 << 20;

/// A token without a lifetime lives this long (Docker's token specification).
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60);

/// A credentials file, or the answer of a credential helper, above this is refused.
pub const CREDENTIALS_BYTES_MAX: u64 = 1 << 20;

/// How long a credential helper may run; some ask a key ring that asks a person.
pub const CREDENTIAL_HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// Layers downloading at the same time.
pub const DOWNLOADS_AT_ONCE: usize = 4;

/// The buffer of each download, and of hashing what is on disk already.
pub const BLOB_BUFFER_BYTES: usize = 128 << 10;

/// How often a progress line is redrawn on a terminal.
pub const PROGRESS_REDRAW: Duration = Duration::from_millis(200);

/// How often a progress line is logged where there is no terminal.
pub const PROGRESS_LOG: Duration = Duration::from_secs(10);

// ── rootfs ───────────────────────────────────────────────────────────────────────────────────────────────────────

// ── squashfs ─────────────────────────────────────────────────────────────────────────────────────────────────────

// ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── dhcp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── tftp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── http ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────
