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

// ── tftp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── http ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A longer request head is answered with 431. Firmware sends 150 bytes, browsers 1 to 2 KiB.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 << 10;

/// More header fields than this are answered with 431.
pub const HTTP_HEADERS_MAX: usize = 64;

/// Connections at once; when they are all taken, the one that has waited longest for a request makes room.
pub const HTTP_CONNECTIONS_MAX: usize = 4096;

/// From the first byte of a request to the last of its head.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Between two requests on one connection. iPXE keeps connections in a pool while it works on something else.
pub const HTTP_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// Without the client taking a single byte. Above TCP's first resends (1, 2, 4 … s), so that a link that comes back is used.
pub const HTTP_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// After the last response, for the client to close its side.
pub const HTTP_LINGER_TIMEOUT: Duration = Duration::from_secs(5);

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Events that may wait for the journal; about 100 bytes each.
pub const EVENTS_WAITING_MAX: usize = 4096;

/// A kernel command line with everything in it: `COMMAND_LINE_SIZE` is 2048 on x86 and arm64, one of them a NUL.
pub const CMDLINE_BYTES_MAX: usize = 2047;

/// Room that is kept for each URL in the command line.
pub const URL_BYTES_MAX: usize = 96;

/// Machines whose progress and address are remembered; the longest unseen are forgotten.
pub const MACHINES_MAX: usize = 4096;

/// How long an OFFER, or the address of a machine, counts as its own. Firmware comes back within seconds; DHCP servers do not give
/// an address to another machine that soon.
pub const MACHINE_ADDRESS_AGE_MAX: Duration = Duration::from_secs(600);

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────
