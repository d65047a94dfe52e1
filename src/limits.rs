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

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Receive buffer of each packet socket: thousands of DISCOVERs, when a rack gets its power back while we look elsewhere.
pub const PACKET_RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// Events taken from the kernel per turn of a loop.
pub const POLL_EVENTS: usize = 256;
/// Batches of DHCP messages read per interface before the loop looks after its transfers again.
pub const DHCP_BATCHES_PER_TURN: usize = 8;
/// Messages read from port 4011 per turn of the loop.
pub const PXE_MESSAGES_PER_TURN: usize = 64;
/// The longest DHCP message read on port 4011; longer ones are cut, and so malformed.
pub const PXE_MESSAGE_BYTES_MAX: usize = 2048;
/// How long changes of the interfaces are collected before all are looked at anew.
pub const INTERFACE_SETTLE: Duration = Duration::from_millis(50);
/// When to try again an interface that could not be opened.
pub const INTERFACE_RETRY: Duration = Duration::from_secs(2);

/// The secret behind the machines' tokens.
pub const STATE_SECRET_BYTES: usize = 32;
