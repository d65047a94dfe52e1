//! Every bound of the product, by name, in one place.
//!
//! A bound is a promise about memory or time that no input can break; each has a test that reaches it.
//! Sections follow the modules; the sizes are bytes and the waits are [`Duration`]s unless the name says otherwise.

use std::time::Duration;

// ── config ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// A cloud config above this is refused; Kairos nodes skip files above about 1 MiB.
pub const CLOUD_CONFIG_BYTES_MAX: usize = 8 << 20;

/// A cloud config above this gets a warning, and no look at what it says: kairos-agent skips larger files.
pub const CLOUD_CONFIG_BYTES_WARN: usize = 1 << 20;

/// A configuration file above this is refused.
pub const CONFIG_FILE_BYTES_MAX: usize = 1 << 20;

/// Parts of a dotted `--set` key; the tree that is made of them is walked by recursion.
pub const KEY_PARTS_MAX: usize = 32;

/// `[[ if ]]` within `[[ if ]]` of a template.
pub const TEMPLATE_IFS_NESTED_MAX: usize = 32;

/// Filters behind one key of a template.
pub const TEMPLATE_FILTERS_MAX: usize = 16;

// ── source ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// How long a TCP and TLS connection to a registry may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

// ── rootfs ───────────────────────────────────────────────────────────────────────────────────────────────────────

// ── squashfs ─────────────────────────────────────────────────────────────────────────────────────────────────────

// ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── dhcp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── tftp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── http ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────
