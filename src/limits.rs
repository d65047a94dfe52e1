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

/// Layers of one image; overlayfs stops Docker at 127.
pub const LAYERS_MAX: usize = 1024;

/// Extension headers (PAX records, GNU long names) in front of one tar entry, all together.
pub const TAR_EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// Pieces of data in one sparse file.
pub const TAR_SPARSE_PIECES_MAX: usize = 1 << 18;

/// A path, a link target (Linux `PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;

/// One component of a path (Linux `NAME_MAX`).
pub const NAME_BYTES_MAX: usize = 255;

/// Entries of all layers of an image together, and different paths in them; about 100 bytes of memory each.
/// A full desktop has 0.5 M.
pub const TREE_ENTRIES_MAX: usize = 4_000_000;

/// Names and link targets of all entries of an image together.
pub const TREE_NAME_BYTES_MAX: usize = 256 << 20;

/// Extended attributes of all entries of an image together; equal sets are stored once.
pub const TREE_XATTR_BYTES_MAX: usize = 16 << 20;

/// File data of all layers of an image together, unpacked: what a decompression bomb runs into.
/// Nodes keep the compressed image in RAM, so real ones are far below.
pub const IMAGE_BYTES_MAX: u64 = 64 << 30;

/// Window a zstd layer may ask for, as a power of two: 128 MiB is what the `zstd` tool accepts unasked.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Symbolic links followed for one path (containerd's own bound; Linux stops at 40).
pub const SYMLINKS_FOLLOWED_MAX: usize = 255;

/// Path components looked up for one image: symbolic links can make each lookup long. A 100,000-file image needs 1 M.
pub const PATH_STEPS_MAX: u64 = 1 << 28;

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

/// A file of the image that is read as text: release files, the kernel's configuration (0.3 MB in Debian).
pub const IMAGE_TEXT_BYTES_MAX: u64 = 4 << 20;

/// The stamp beside a boot set; 1,024 layers take 80 kB.
pub const STAMP_BYTES_MAX: u64 = 1 << 20;

// ── dhcp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── tftp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── http ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

// ── daemon ───────────────────────────────────────────────────────────────────────────────────────────────────────
