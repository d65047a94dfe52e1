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

/// Transfers in progress at once; further ones wait. Each holds one socket. 256 lock-step transfers fill a 1 GbE link
/// (5 MB/s each at a round trip of 0.3 ms), so more would only make each other time out.
pub const TFTP_ACTIVE_MAX: usize = 256;
/// Requests waiting for a place; above this they are answered "busy".
pub const TFTP_WAITING_MAX: usize = 4096;
/// How long a request waits without being repeated: three times the 4 s (EDK2) and 5 s (U-Boot) after which firmware repeats
/// it, because repetitions are lost too, and firmware that gets an error gives up the boot.
pub const TFTP_WAIT: Duration = Duration::from_secs(16);
/// Blocks in flight (RFC 7440), whatever the client asks; also the most that one UDP_SEGMENT send may carry.
pub const TFTP_WINDOW_BLOCKS_MAX: u16 = 64;
/// Bytes in flight; below the default socket send buffer (208 KiB), so that a window never waits for it.
pub const TFTP_WINDOW_BYTES_MAX: usize = 128 << 10;
/// Bytes of one send; UDP over IPv4 carries at most 65,507.
pub const TFTP_BURST_BYTES_MAX: usize = 65_507;
/// The first resend without a measured round trip, and the longest afterwards.
pub const TFTP_RESEND_FIRST: Duration = Duration::from_secs(1);
/// The first resend once round trips were measured is not sooner than this.
pub const TFTP_RESEND_SOONEST: Duration = Duration::from_millis(200);
/// Resends back off to this interval.
pub const TFTP_RESEND_LONGEST: Duration = Duration::from_secs(2);
/// A transfer without progress ends: later than EDK2 (6 tries of 4 s) and in time for U-Boot, which asks again every 5 s.
pub const TFTP_GIVE_UP: Duration = Duration::from_secs(30);
/// How long the final ACK is awaited; many clients leave it out, and the file is theirs by then.
pub const TFTP_GIVE_UP_FINAL: Duration = Duration::from_secs(10);
/// Error replies to requests per second, and in one burst (a Raspberry Pi asks for a dozen files that do not exist).
pub const TFTP_ERRORS_PER_SECOND: u32 = 500;
pub const TFTP_ERRORS_BURST: u32 = 1000;
/// Requests read in one turn of the loop, so that a flood of them cannot delay an OFFER.
pub const TFTP_REQUESTS_PER_TURN: usize = 64;
/// A longer request is refused; real ones stay below 200 bytes.
pub const TFTP_REQUEST_BYTES_MAX: usize = 1024;
/// Events kept until they are polled; above this, refusals are counted but not told one by one.
pub const TFTP_EVENTS_MAX: usize = 1024;

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

/// The secret behind the machines' tokens.
pub const STATE_SECRET_BYTES: usize = 32;
