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

/// Block buffers per compression thread; each is one block before and one after compression (at most 2 MiB together).
pub const SQUASHFS_BUFFERS_PER_WORKER: usize = 2;

/// Block buffers besides those: the caller's open fragments and what waits to be written in order.
pub const SQUASHFS_BUFFERS_EXTRA: usize = 4;

/// Data blocks and holes of all files of an image: 16 TiB of content at 1 MiB, 64 MB of memory for their sizes.
/// It is what stops a sparse file that claims exabytes.
pub const SQUASHFS_BLOCKS_MAX: u32 = 1 << 24;

/// Names longer than this cannot be opened on Linux (`NAME_MAX`), although squashfs could hold one byte more.
pub const SQUASHFS_NAME_BYTES_MAX: usize = 255;

/// Link targets longer than this cannot be followed (`PATH_MAX` less its NUL); Linux 6.9 refuses inodes with more than a page.
pub const SQUASHFS_LINK_BYTES_MAX: usize = 4095;

/// One extended attribute's value (`XATTR_SIZE_MAX` of Linux).
pub const SQUASHFS_XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// All distinct sets of extended attributes of an image together; they wait in memory.
pub const SQUASHFS_XATTRS_BYTES_MAX: usize = 64 << 20;

// ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── dhcp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── tftp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── http ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────
