//! Every bound of the product, by name, in one place.
//!
//! A bound is a promise about memory or time that no input can break; each has a test that reaches it.
//! Sections follow the modules; the sizes are bytes and the waits are [`Duration`]s unless the name says otherwise.

use std::time::Duration;

// ── config ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// A cloud config above this is refused; Kairos nodes skip files above about 1 MiB.
pub const CLOUD_CONFIG_BYTES_MAX: usize = 8 << 20;

// ── source ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// How long a TCP and TLS connection to a registry may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);

// ── rootfs ───────────────────────────────────────────────────────────────────────────────────────────────────────

// ── squashfs ─────────────────────────────────────────────────────────────────────────────────────────────────────

// ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── dhcp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// How long a DHCP message that comes in on a second interface counts as a copy of the first.
pub const DHCP_COPY_WINDOW: Duration = Duration::from_millis(500);
/// Messages remembered to know copies by; more than arrive within the window at the rate the server is built for.
pub const DHCP_SEEN_MAX: usize = 8_192;
/// Times a machine is given our iPXE because its own is too poor, within [`DHCP_LOOP_WINDOW`], before it is left alone.
pub const DHCP_LOOP_TRIES: u32 = 2;
/// See [`DHCP_LOOP_TRIES`].
pub const DHCP_LOOP_WINDOW: Duration = Duration::from_secs(60);
/// Machines watched for such a loop.
pub const DHCP_LOOPS_MAX: usize = 4_096;

// ── tftp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── http ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────
