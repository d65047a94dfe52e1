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

/// Transfers in progress at once; further ones wait. Each holds one socket. 256 lock-step transfers fill a 1 GbE link
/// (5 MB/s each at a round trip of 0.3 ms), so more would only make each other time out.
pub const TFTP_ACTIVE_MAX: usize = 256;
/// Requests waiting for a place; above this they are answered "busy".
pub const TFTP_WAITING_MAX: usize = 4096;
/// How long a request waits without being repeated: longer than the 4 s (EDK2) and 5 s (U-Boot) after which firmware
/// repeats it, since firmware that gets an error gives up the boot.
pub const TFTP_WAIT: Duration = Duration::from_secs(6);
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
pub const TFTP_RESEND_LONGEST: Duration = Duration::from_secs(4);
/// A transfer without progress ends: later than EDK2 (6 tries of 4 s) and in time for U-Boot, which asks again every 5 s.
pub const TFTP_GIVE_UP: Duration = Duration::from_secs(30);
/// How long the final ACK is awaited; many clients leave it out, and the file is theirs by then.
pub const TFTP_GIVE_UP_FINAL: Duration = Duration::from_secs(10);
/// Error replies to requests per second, and in one burst (a Raspberry Pi asks for a dozen files that do not exist).
pub const TFTP_ERRORS_PER_SECOND: u32 = 500;
pub const TFTP_ERRORS_BURST: u32 = 1000;
/// A longer request is refused; real ones stay below 200 bytes.
pub const TFTP_REQUEST_BYTES_MAX: usize = 1024;
/// Events kept until they are polled; above this, refusals are counted but not told one by one.
pub const TFTP_EVENTS_MAX: usize = 1024;

// ── http ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// The secret behind the machines' tokens.
pub const STATE_SECRET_BYTES: usize = 32;
