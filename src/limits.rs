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

/// Brackets within brackets of a configuration file or cloud config. Kairos' own need five; serde_yaml refuses 128.
pub const YAML_NESTED_MAX: usize = 100;

/// `[[ if ]]` within `[[ if ]]` of a template.
pub const TEMPLATE_IFS_NESTED_MAX: usize = 32;

/// Filters behind one key of a template.
pub const TEMPLATE_FILTERS_MAX: usize = 16;

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

/// How long a tag is asked for again when what it stood for in an earlier run can be used instead.
pub const REGISTRY_PATIENCE: Duration = Duration::from_secs(8);

/// What is kept of a tag: a digest of 71 bytes, a name of at most 255 + 255 + 128, an architecture.
pub const TAG_LINE_BYTES_MAX: u64 = 1 << 10;

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

/// The buffer of each download.
pub const BLOB_BUFFER_BYTES: usize = 128 << 10;

/// A download is brought to the disk in pieces of this size.
pub const FLUSH_BYTES: u64 = 64 << 20;

/// An ISO above this is refused: it is kept in memory by who boots it from the network.
pub const ISO_BYTES_MAX: u64 = 64 << 30;

/// What stands in a `.sha256` beside a file; a list of all artifacts of a release takes 20 kB.
pub const CHECKSUM_BYTES_MAX: u64 = 64 << 10;

/// What is noted of a file that was fetched: two addresses, two validators of a server.
pub const FETCH_NOTE_BYTES_MAX: u64 = 64 << 10;

/// An answer of GitHub's API; a release of Kairos with 700 artifacts takes 1 MB.
pub const GITHUB_ANSWER_BYTES_MAX: u64 = 8 << 20;

/// Pages of 100 entries that are read of a list; a release has at most 1000 assets.
pub const GITHUB_PAGES_MAX: u32 = 10;

/// Names in a message about one that does not exist.
pub const NAMES_LISTED_MAX: usize = 10;

/// How often a progress line is redrawn on a terminal.
pub const PROGRESS_REDRAW: Duration = Duration::from_millis(200);

/// How often a progress line is logged where there is no terminal.
pub const PROGRESS_LOG: Duration = Duration::from_secs(10);

/// An index above this is not looked for among the blobs of the cache; those of registries have a few kilobytes.
pub const INDEX_BYTES_MAX: u64 = 256 << 10;

// ── source: container daemons ────────────────────────────────────────────────────────────────────────────────────

/// How long a daemon may take for an answer, and all daemons together, when it is only tried whether one has an image. A healthy one takes
/// milliseconds.
pub const DAEMON_FIND_TIMEOUT: Duration = Duration::from_millis(600);

/// How long a daemon may take for an answer when the image is to come from it: one on a busy disk takes seconds.
pub const DAEMON_ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// From the request for an export to its first byte: Docker's own store and podman write the whole archive to their disk before they send
/// any of it, 6 GB at the 10 MB/s of a memory card take 10 minutes.
pub const DAEMON_EXPORT_TIMEOUT: Duration = Duration::from_secs(900);

/// How long a daemon may pause in the midst of an export.
pub const DAEMON_STALL_TIMEOUT: Duration = Duration::from_secs(60);

/// The description of an image, or a list of all; 8000 images take 4 MB.
pub const DAEMON_ANSWER_BYTES_MAX: u64 = 8 << 20;

/// The name of an image in a daemon: registry 255, repository 255, tag 128, digest 71, and what stands between them.
pub const DAEMON_NAME_BYTES_MAX: usize = 800;

/// The end of an export that is kept: Docker's last words stand there when it cannot finish.
pub const DAEMON_LAST_WORDS_BYTES_MAX: usize = 1 << 10;

// ── archives of images ───────────────────────────────────────────────────────────────────────────────────────────

/// Members of an image archive; the old form of `docker save` has four for each layer of each image.
pub const ARCHIVE_MEMBERS_MAX: usize = 100_000;

/// Links followed to one layer; Docker and skopeo make one.
pub const ARCHIVE_LINKS_FOLLOWED_MAX: usize = 16;

/// Indexes below `index.json` on the way to an image; tools make two at most.
pub const ARCHIVE_INDEXES_NESTED_MAX: usize = 4;

/// Documents read to find one image, and images in one list.
pub const ARCHIVE_DOCUMENTS_MAX: usize = 1_000;

/// What may follow the end of a compressed archive, unpacked: tar fills its last record up, in practice to 10 KiB.
pub const ARCHIVE_PADDING_BYTES_MAX: u64 = 16 << 20;

/// A member of a stream up to this size waits in memory: every tool's empty layers, lists and version files.
pub const SPOOL_SMALL_BYTES_MAX: u64 = 64 << 10;

/// All members of a stream together that wait in memory.
pub const SPOOL_MEMORY_BYTES_MAX: u64 = 32 << 20;

/// Layers that are written for one stream: those of all its images, for which of them is wanted stands at its end.
pub const SPOOL_PARTS_MAX: usize = 4_096;

/// All layers together that are written for one stream.
pub const SPOOL_BYTES_MAX: u64 = 256 << 30;

// ── source: directories of this host ─────────────────────────────────────────────────────────────────────────────

/// Extended attributes of one file of a directory, names and values: Linux allows 64 KiB a value, ext4 4 KiB for all of them. Less than
/// [`TAR_EXTENSION_BYTES_MAX`], which they are read back under.
pub const DIRECTORY_FILE_XATTR_BYTES_MAX: usize = 512 << 10;

/// Extended attributes of all files of a directory, equal ones counted each time: they are in memory while it is read.
pub const DIRECTORY_XATTR_BYTES_MAX: usize = 64 << 20;

// ── rootfs ───────────────────────────────────────────────────────────────────────────────────────────────────────

/// Characters of one name, path or other text of an image in a message.
pub const SHOWN_CHARS_MAX: usize = 200;

/// Extension headers (PAX records, GNU long names) in front of one tar entry, all together.
pub const TAR_EXTENSION_BYTES_MAX: u64 = 1 << 20;

/// Pieces of data in one sparse file.
pub const TAR_SPARSE_PIECES_MAX: usize = 1 << 18;

/// A path, a link target (Linux `PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;

/// One component of a path (Linux `NAME_MAX`), although squashfs could hold one byte more.
pub const NAME_BYTES_MAX: usize = 255;

/// Entries of all layers of an image together, and different paths in them; about 100 bytes of memory each.
/// A full desktop has 0.5 M.
pub const TREE_ENTRIES_MAX: usize = 2_000_000;

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

/// Path components that symbolic links add to the lookups of one image, all together: a chain of long links
/// adds half a million to each.
pub const LINK_STEPS_MAX: u64 = 1 << 22;

// ── squashfs ─────────────────────────────────────────────────────────────────────────────────────────────────────

/// Block buffers per compression thread; each is one block before and one after compression (at most 2 MiB together).
pub const SQUASHFS_BUFFERS_PER_WORKER: usize = 2;

/// Block buffers besides those: the caller's open fragments and what waits to be written in order.
pub const SQUASHFS_BUFFERS_EXTRA: usize = 4;

/// How many steps (a block, a stretch of holes, the end of a file) the caller may be ahead of the ordered stage; bytes each.
pub const SQUASHFS_STEPS_AHEAD: usize = 256;

/// Data blocks and holes of all files of an image: 16 TiB of content at 1 MiB, 64 MB of memory for their sizes.
/// It is what stops a sparse file that claims exabytes.
pub const SQUASHFS_BLOCKS_MAX: u32 = 1 << 24;

/// Link targets longer than this cannot be followed (`PATH_MAX` less its NUL); Linux 6.9 refuses inodes with more than a page.
pub const SQUASHFS_LINK_BYTES_MAX: usize = 4095;

/// One extended attribute's value (`XATTR_SIZE_MAX` of Linux).
pub const SQUASHFS_XATTR_VALUE_BYTES_MAX: usize = 65_536;

/// All distinct sets of extended attributes of an image together; they wait in memory.
pub const SQUASHFS_XATTRS_BYTES_MAX: usize = 64 << 20;

// ── fat ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// An EFI system partition on a medium. El Torito counts its sectors of 512 bytes in 16 bits, and it grows by 4 MiB. Shim, its
/// `MokManager` and the largest signed GRUB of a distribution (Fedora) take 6 MB.
pub const ESP_BYTES_MAX: u64 = 28 << 20;

// ── media ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// A file of the image that is read as text: release files, the kernel's configuration (0.3 MB in Debian).
pub const IMAGE_TEXT_BYTES_MAX: u64 = 4 << 20;

/// One EFI program of the image: shim has 1 MB, GRUB 2 to 5 MB; three of this size fit into [`ESP_BYTES_MAX`].
pub const EFI_PROGRAM_BYTES_MAX: u64 = 9 << 20;

/// `KAIROS_*` values that are kept of an image; kairos-init writes two dozen.
pub const IMAGE_FACTS_MAX: usize = 100;

/// What is noted of an ISO; 512 layers take 40 kB.
pub const STAMP_BYTES_MAX: u64 = 1 << 20;

/// Files, directories and links of an overlay, all of which wait in memory (some 200 bytes each).
pub const OVERLAY_ENTRIES_MAX: usize = 200_000;

/// The name of an ISO without its endings, of which `.20261122.iso.custom.iso.sha256.part` is the longest: file systems take 255 bytes.
pub const MEDIUM_NAME_BYTES_MAX: usize = 200;

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

// ── dhcp client ──────────────────────────────────────────────────────────────────────────────────────────────────

/// The wait for an answer before a message is sent again; doubles with each try. RFC 2131 §4.1 has 4 s for a 10 Mbit/s Ethernet; the
/// first message after power-on is the one that a switch still learning its port swallows.
pub const DHCP_RETRY_WAIT: Duration = Duration::from_secs(2);
/// The longest wait between two messages while there is no address (RFC 2131 §4.1).
pub const DHCP_RETRY_WAIT_MAX: Duration = Duration::from_secs(64);
/// Messages to the server whose offer was taken, before others are asked again: 30 s in all.
pub const DHCP_REQUEST_TRIES: u32 = 4;
/// Messages that ask for the address of an earlier lease: a server that does not know it stays silent (RFC 2131 §4.3.2).
pub const DHCP_REBOOT_TRIES: u32 = 2;
/// The shortest wait between two renewals. RFC 2131 §4.4.5 has 60 s, with which a lease of two minutes would be lost with one packet.
pub const DHCP_RENEW_WAIT_MIN: Duration = Duration::from_secs(5);
/// The wait after an address that turned out to be somebody else's (RFC 2131 §3.1 (5)).
pub const DHCP_DECLINE_WAIT: Duration = Duration::from_secs(10);
/// A lease below this is nonsense that would keep client and server busy.
pub const DHCP_LEASE_MIN: Duration = Duration::from_secs(10);
/// Name servers and time servers that are taken out of one lease, each.
pub const DHCP_SERVERS_MAX: usize = 8;
/// The smallest MTU that a DHCP server can talk the appliance into: what every host takes (RFC 791).
pub const DHCP_MTU_MIN: u16 = 576;
/// Questions whether an address is in use before it is taken (RFC 5227 §2.1.1).
pub const ARP_PROBES: u32 = 3;
/// The wait for an answer to each. RFC 5227 §1.1 has up to 2 s; here all machines are on one switch and power-on waits for it.
pub const ARP_PROBE_WAIT: Duration = Duration::from_millis(300);

// ── sntp ─────────────────────────────────────────────────────────────────────────────────────────────────────────

/// How far behind the build a time may lie: a certificate that was valid then is none any more.
pub const SNTP_AHEAD_MAX: Duration = Duration::from_secs(30 * 365 * 86_400);
/// How wrong a server may say its time is (RFC 5905 appendix A.1.1, `MAXDISP`).
pub const SNTP_DISTANCE_MAX: Duration = Duration::from_secs(16);

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
/// The first resend without a measured round trip, and the longest first one after it.
pub const TFTP_RESEND_FIRST: Duration = Duration::from_secs(1);
/// The first resend once round trips were measured is not sooner than this.
pub const TFTP_RESEND_SOONEST: Duration = Duration::from_millis(200);
/// Resends back off to this interval.
pub const TFTP_RESEND_LONGEST: Duration = Duration::from_secs(2);
/// A transfer without progress ends: later than EDK2 (6 tries of 4 s) and in time for U-Boot, which asks again every 5 s.
pub const TFTP_GIVE_UP: Duration = Duration::from_secs(30);
/// How long the final ACK is awaited; many clients leave it out, and the file is theirs by then.
pub const TFTP_GIVE_UP_FINAL: Duration = Duration::from_secs(10);
/// Error replies to requests per second, since anyone can have one sent to a forged address.
pub const TFTP_ERRORS_PER_SECOND: u32 = 500;
/// Error replies in one burst: a Raspberry Pi asks for a dozen files that do not exist, and there may be a room of them.
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

// ── web ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Requests that are with the web thread at once; each costs that thread's server a thread and two descriptors.
pub const WEB_REQUESTS_MAX: usize = 8;

/// Requests that wait for one of those places; above this they are answered 503 at once.
pub const WEB_WAITING_MAX: usize = 256;

/// From a request for a page to its answer, the wait for a place included; then 504. Pages are made from memory, in a millisecond.
pub const HTTP_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A page above this is not passed on. The page of a dozen media has 20 kB.
pub const WEB_ANSWER_BYTES_MAX: usize = 1 << 20;

/// How soon the web thread opens its door again when that failed.
pub const WEB_RETRY: Duration = Duration::from_secs(1);

// ── netboot ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Events that may wait for the journal; about 100 bytes each.
pub const EVENTS_WAITING_MAX: usize = 4096;

/// A kernel command line with everything in it: `COMMAND_LINE_SIZE` is 2048 on x86 and arm64, one of them a NUL.
pub const CMDLINE_BYTES_MAX: usize = 2047;

/// Room that is kept for each URL in the command line.
pub const URL_BYTES_MAX: usize = 96;

/// Machines whose progress and address are remembered; the longest unseen are forgotten.
pub const MACHINES_MAX: usize = 4096;

/// Machines that consoles are shown; with all their steps about 5 MB at most.
pub const MACHINES_WATCHED_MAX: usize = 512;

/// Steps that are kept of one machine, the latest: a boot takes 7 to 20.
pub const MACHINE_STEPS_MAX: usize = 64;

/// How long an OFFER, or the address of a machine, counts as its own. Firmware comes back within seconds; DHCP servers do not give
/// an address to another machine that soon.
pub const MACHINE_ADDRESS_AGE_MAX: Duration = Duration::from_secs(600);

/// A machine that was not heard of for so long begins anew in the log.
pub const BOOT_AGE_MAX: Duration = Duration::from_secs(3600);

/// The same complaint about the same machine is one line, and one more with a count at the end of each such interval.
pub const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Complaints that are told apart; about 200 bytes each.
pub const COMPLAINTS_MAX: usize = 1024;

/// More lines than this in one second are counted instead of written. A room of 100 machines that are switched on together makes 500.
pub const LOG_LINES_PER_SECOND_MAX: u32 = 1000;

/// Boot sets served at one time: the present one, and one before it for machines that were loading when another took its place.
pub const BOOT_SETS_MAX: usize = 2;

// ── iso: partition tables, reader, remaster ──────────────────────────────────────────────────────────────────────

/// Entries of a GUID partition table; every tool makes 128, xorriso 248 at most.
pub const GPT_ENTRIES_MAX: u32 = 1024;

/// Volume descriptors in one set; real images have up to five.
pub const ISO_DESCRIPTORS_MAX: u64 = 64;

/// One directory: a hundred thousand files with Rock Ridge.
pub const ISO_DIRECTORY_BYTES_MAX: usize = 16 << 20;

/// One continuation area of Rock Ridge entries; Linux stops at one block.
pub const ISO_CONTINUATION_BYTES_MAX: u32 = 32 << 10;

/// Directories and continuation areas read for one lookup, all together.
pub const ISO_LOOKUP_BYTES_MAX: u64 = 256 << 20;

/// Components of one path with those that symbolic links add.
pub const ISO_PATH_STEPS_MAX: usize = 255;

/// An El Torito boot catalog: entries of 32 bytes.
pub const ISO_BOOT_CATALOG_BYTES_MAX: u64 = 2048;

/// Partitions behind the file system of an image that is patched; xorriso appends up to three.
pub const ISO_TAIL_PARTITIONS_MAX: usize = 16;

/// A path table of an image that is patched: 65,535 directories with names of 40 bytes.
pub const ISO_PATH_TABLE_BYTES_MAX: u32 = 4 << 20;

/// A `md5sum.txt` above this is left as it is when an image is patched; Debian's largest media have 0.3 MB.
pub const ISO_CHECKSUM_LIST_BYTES_MAX: u64 = 16 << 20;

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

/// How long the work may take to end after SIGINT or SIGTERM before it is cut off: a resolver or a connection that is being made cannot be
/// interrupted. Half of what Docker waits before it kills.
pub const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// How long a log line waits for whoever reads stderr; longer, and a paused terminal would hold up the work and the end.
pub const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// How long a layer that has half arrived waits for a run that goes on with it: an image that is wanted is asked for again sooner.
pub const PART_AGE_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// How long a start waits for the lock of its state directory before it says that another one has it.
pub const STATE_LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// The secret behind the machines' tokens.
pub const STATE_SECRET_BYTES: usize = 32;

// ── iso ──────────────────────────────────────────────────────────────────────────────────────────────────────────

/// Files, directories and links of one ISO; four trees of them are held in memory, one after the other.
pub const ISO_ENTRIES_MAX: usize = 200_000;

/// Directories of one ISO: a path table numbers them with 16 bits (ECMA-119 §9.4.4).
pub const ISO_DIRECTORIES_MAX: usize = 65_535;

/// What the kernel copies from one file to another between two looks at whether to stop.
pub const COPY_STEP_BYTES: u64 = 32 << 20;

/// What is read and written at once while a file is copied into an ISO.
pub const ISO_BUFFER_BYTES: usize = 1 << 20;

/// A boot image for the BIOS that is larger than this is none: GRUB's is below 256 KiB.
pub const ISO_BOOT_IMAGE_BYTES_MAX: usize = 16 << 20;
// ── flash ────────────────────────────────────────────────────────────────────────────────────────────────────────

/// One write to a stick, one read back from it. Two such buffers per stick are the memory that flashing needs.
pub const FLASH_PIECE_BYTES: usize = 4 << 20;
/// Pieces in memory per stick: one is filled while the other is written.
pub const FLASH_PIECES: usize = 2;
/// The beginning of the ISO, with its partition table and boot code, is written when all the rest was read back and found equal.
pub const FLASH_HEAD_BYTES: u64 = 1 << 20;
/// The end of the stick that is wiped: a GPT keeps its copy in the last 34 sectors, RAID and ZFS their marks in the last 512 KiB.
pub const FLASH_TAIL_BYTES: u64 = 1 << 20;
/// Sticks written at the same time.
pub const FLASH_DEVICES_MAX: usize = 16;
/// How long the lock of a device is waited for: udev holds it for the moment in which it looks at a stick that was just plugged in.
pub const FLASH_LOCK_PATIENCE: Duration = Duration::from_secs(5);
/// Characters of a model, a serial number or a label that a device claims.
pub const DEVICE_TEXT_CHARS_MAX: usize = 64;
/// Volumes on top of volumes that are looked through for what is mounted on a disk.
pub const HOLDERS_NESTED_MAX: usize = 8;

// ── network of the appliance ─────────────────────────────────────────────────────────────────────────────────────

/// How long the used interface may be without a link before others are asked for an address: a switch that restarts is back by then.
pub const NETWORK_SWITCH_AFTER: Duration = Duration::from_secs(30);
/// Receive buffer of each packet socket of the DHCP client: it is sent a few messages only.
pub const NETWORK_RECEIVE_BUFFER_BYTES: usize = 256 << 10;
/// Batches read from one of these sockets before the others have their turn.
pub const NETWORK_BATCHES_PER_TURN: usize = 4;
/// How often an interface's complaint about a server goes into the log.
pub const NETWORK_COMPLAINT_EVERY: Duration = Duration::from_secs(60);
/// How often another user of a static address is looked for, once there was one.
pub const NETWORK_DUPLICATE_EVERY: Duration = Duration::from_secs(60);
/// Interfaces that are looked after; a board with more has them in a bridge or bond.
pub const NETWORK_INTERFACES_MAX: usize = 64;
/// Name servers in resolv.conf: resolvers read three (resolv.conf(5), `MAXNS`).
pub const NETWORK_DNS_MAX: usize = 3;
/// How long a time server has to answer.
pub const NTP_PATIENCE: Duration = Duration::from_secs(3);
/// Packets read as an answer to one question before other work has its turn.
pub const NTP_ANSWERS_PER_TURN: usize = 16;
/// The wait after all time servers were asked in vain; doubles up to [`NTP_RETRY_WAIT_MAX`], or [`NTP_EVERY`] once the clock was set.
pub const NTP_RETRY_WAIT: Duration = Duration::from_secs(4);
/// See [`NTP_RETRY_WAIT`].
pub const NTP_RETRY_WAIT_MAX: Duration = Duration::from_secs(64);
/// How often the time is asked for when all is well.
pub const NTP_EVERY: Duration = Duration::from_secs(3600);
/// A clock that is less than this off is left alone.
pub const NTP_OFFSET_MIN: Duration = Duration::from_millis(100);
/// Addresses of one time server's name that are asked.
pub const NTP_ADDRESSES_MAX: usize = 2;
/// Time servers that asked to be left alone and are (RFC 5905 §7.4).
pub const NTP_LEFT_ALONE_MAX: usize = 64;

// ── control ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// How long a loop may take for one turn when it is asked whether it turns. None of them waits for anything but events; a machine that
/// swaps, or a storm of packets, is forgiven.
pub const HEALTH_PATIENCE: Duration = Duration::from_secs(5);

/// How long a supervisor waits for an answer: all loops may be asked for their health one after another.
pub const CONTROL_PATIENCE: Duration = Duration::from_secs(15);

/// One question or answer: a status with [`MACHINES_WATCHED_MAX`] machines takes a tenth of it.
pub const CONTROL_LINE_BYTES_MAX: usize = 1 << 20;

/// How often a supervisor asks a server for its health.
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(10);

/// A server that did not answer for its health for half of this is killed; after all of it the watchdog is let go.
pub const UNWELL_MAX: Duration = Duration::from_secs(60);

/// How long a server may take to end; what it is in the midst of is cut off, and that is safe at any point.
pub const SERVER_END_PATIENCE: Duration = Duration::from_secs(5);

/// The wait before a server that ended by itself is started again; each further one doubles it.
pub const RESTART_WAIT: Duration = Duration::from_secs(1);

/// The longest such wait. After a server that ran for so long before it ended they begin with the shortest again.
pub const RESTART_WAIT_MAX: Duration = Duration::from_secs(60);

/// Lines of the log that are kept in memory; with [`LOG_RING_LINE_CHARS_MAX`] 2 MB at most, and 200 kB as lines are.
pub const LOG_RING_LINES_MAX: usize = 2000;

/// A longer line is cut.
pub const LOG_RING_LINE_CHARS_MAX: usize = 1024;

/// The file that the lines are kept in as well; there are two of them, the younger and the older.
pub const LOG_FILE_BYTES_MAX: u64 = 1 << 20;

/// What consoles set, as a file; about 200 keys.
pub const CONSOLE_SETTINGS_BYTES_MAX: usize = 64 << 10;

// ── appliance: init ──────────────────────────────────────────────────────────────────────────────────────────────

/// `modules.dep`, `modules.alias` and the other lists of kernel modules, each; Debian's complete ones take 1.3 MB.
pub const MODULE_LIST_BYTES_MAX: u64 = 16 << 20;

/// Directories of `/sys/devices` that are looked into for devices; a server with 256 cores has about 20 000.
pub const DEVICES_MAX: usize = 200_000;

/// Directories within directories of `/sys/devices`: hubs behind hubs come to about 25.
pub const DEVICES_NESTED_MAX: usize = 40;

/// What a device says of itself; the kernel's own buffer holds 2048.
pub const MODALIAS_BYTES_MAX: usize = 4096;

/// What is read of a FAT's root directory to find its label, which formatting puts first.
pub const FAT_ROOT_BYTES_MAX: u64 = 1 << 20;

/// What the watchdog is asked for: longer than the slowest health check that is still one, shorter than a person's patience.
pub const WATCHDOG_TIMEOUT: Duration = Duration::from_secs(30);

/// How long processes may take to end when they are asked to, before the machine goes down.
pub const PROCESS_END_TIMEOUT: Duration = Duration::from_secs(5);

/// How long processes may take to go when they are made to: one that waits for a broken disk never does.
pub const PROCESS_KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two looks at whether they have gone.
pub const PROCESS_END_POLL: Duration = Duration::from_millis(20);

/// The data partition grows when it gains at least as much.
pub const GROWTH_BYTES_MIN: u64 = 8 << 20;

/// How long the kernel may take to show a partition that the table lists; it takes milliseconds.
pub const PARTITION_PATIENCE: Duration = Duration::from_secs(5);

/// Power buttons that are listened to at a time: a thread each, and a keyboard may have one.
pub const POWER_BUTTONS_MAX: usize = 16;

/// How long a network that was set at a console is tried before it goes back to what it was, unless it is confirmed.
pub const NETWORK_TRIAL: Duration = Duration::from_secs(60);

/// How long a stick may take to appear after the start and still be one that was there at the start.
pub const STICK_PATIENCE: Duration = Duration::from_secs(30);

/// How long somebody who is at a console may think about a question before the appliance decides.
pub const QUESTION_PATIENCE: Duration = Duration::from_secs(60);

/// How long it waits for somebody to come to a console at all, once there is a question.
pub const VISITOR_PATIENCE: Duration = Duration::from_secs(15);

/// How long the boot partition may take to appear: slow USB sticks take 5 to 10 s.
pub const BOOT_PARTITION_PATIENCE: Duration = Duration::from_secs(30);

/// How long the first start of the server waits for the time of day, once there is an address.
pub const CLOCK_PATIENCE: Duration = Duration::from_secs(10);

/// How often process 1 looks whether an address and the time have come.
pub const READY_POLL: Duration = Duration::from_millis(100);

/// How often the watchdog is petted: several times within the shortest that boards have, 15 s.
pub const WATCHDOG_INTERVAL: Duration = Duration::from_secs(1);

/// How long the listener for new hardware sleeps at most.
pub const UEVENT_PATIENCE: Duration = Duration::from_secs(3600);

/// How long the last words of a process 1 that failed can be read before the machine restarts.
pub const PANIC_PAUSE: Duration = Duration::from_secs(10);

// ── console ──────────────────────────────────────────────────────────────────────────────────────────────────────

/// Characters of a line that is typed: the longest URL that servers take (RFC 9110 §4.1 asks for 8000) fits nearly always.
pub const CONSOLE_LINE_CHARS_MAX: usize = 4096;

/// A cloud config that is pasted; at 115200 baud that takes 23 s. Larger ones come by the boot partition, a stick or a URL.
pub const CONSOLE_PASTE_BYTES_MAX: usize = 256 << 10;

/// An escape sequence that is longer is none.
pub const CONSOLE_ESCAPE_BYTES_MAX: usize = 256;

/// Lines that come back with the arrow keys.
pub const CONSOLE_HISTORY_LINES_MAX: usize = 32;

/// What is typed while an answer is awaited; more is lost, as a terminal loses it.
pub const CONSOLE_TYPED_AHEAD_BYTES_MAX: usize = 4096;

/// What waits to be shown; no key is looked at while there is more. A page is 2 kB.
pub const CONSOLE_OUTPUT_BYTES_MAX: usize = 16 << 10;

/// Lines of a screen; a VT100 has 24.
pub const CONSOLE_ROWS: usize = 24;

/// Lines of one answer of the host that are shown, all pages together.
pub const CONSOLE_ANSWER_LINES_MAX: usize = 20_000;

/// Without a key for so long, whoever was there has gone.
pub const CONSOLE_IDLE_MAX: Duration = Duration::from_secs(600);

/// The same where a password is asked for.
pub const CONSOLE_LOGIN_IDLE_MAX: Duration = Duration::from_secs(60);

/// Wrong passwords before there is a wait.
pub const CONSOLE_PASSWORDS_MAX: u32 = 3;

/// The wait after the last of these; each further one doubles it.
pub const CONSOLE_PASSWORD_WAIT: Duration = Duration::from_secs(5);

/// The longest such wait: a typing error must not cost an afternoon.
pub const CONSOLE_PASSWORD_WAIT_MAX: Duration = Duration::from_secs(300);

/// How often a log that is followed is asked for.
pub const CONSOLE_FOLLOW_INTERVAL: Duration = Duration::from_secs(1);

/// An empty line asks for the status again when the last one is so old.
pub const CONSOLE_REFRESH_MIN: Duration = Duration::from_secs(1);

/// Lines in a row that make no sense; behind these there is no person, but another program's login prompt or a line that hums.
pub const CONSOLE_NONSENSE_MAX: u32 = 10;

/// A paste that was given up goes on arriving: what comes is dropped until nothing came for so long.
pub const CONSOLE_QUIET: Duration = Duration::from_millis(500);

/// A line that takes nothing for so long is stuck: its session ends.
pub const CONSOLE_STUCK_MAX: Duration = Duration::from_secs(10);

/// The wait before a device that went away, such as a USB adapter, is looked for again.
pub const CONSOLE_REOPEN_WAIT: Duration = Duration::from_secs(2);
