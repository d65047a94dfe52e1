//! AuroraBoot: an OS image and a cloud config in, running machines out.
//!
//! # The flow
//! ```text
//! flags + file + cloud config ─▶ config ─▶ source ─▶ media ──────────▶ one ISO in state_dir ─┬─▶ + cloud config ─▶ :8080, flash ─▶ sticks
//!                                          registry  rootfs ▸ squashfs                       │
//!                                          release   ▸ iso                                   └─▶ netboot: DHCP ▸ TFTP ▸ HTTP :8090 ─▶ machines
//!                                          ISO
//! ```
//! Layers are never unpacked: they are merged as an index ([`rootfs`]) while their file data is compressed straight into the squashfs
//! ([`squashfs`]) on all cores, at its place in the ISO ([`iso`]); [`media`] joins the three. Kernel and initrd are read back out of the
//! finished squashfs. Machines are served ranges of that ISO, or of one that others made; the cloud config goes into a patched copy of it.
//!
//! # Who may import whom
//! ```text
//! units civil limits loaders storage
//!  ▲ status
//!   ▲ dhcp sntp tftp http squashfs iso fat rootfs config console   cores and writers: no sockets, paths, clock or thread of their own*
//!   ▲ fingerprint                                     by what files are known again
//!     ▲ netboot media                                 what is served to whom; image → ISO
//!       ▲ sys                                         the only unsafe
//!       ▲ source                                      where images come from; the only user of the network client
//!         ▲ flash web                                 USB sticks; the pages of port 8080
//!           ▲ daemon                                  sockets, threads, the clock; a server that is looked after
//!             ▲ appliance                             process 1 of a machine of its own
//!               ▲ main
//! ```
//! (*) `squashfs` owns its compression workers. `tests/it/tidy.rs` reads the tree and holds it to this table.
//!
//! # Cores speak one language
//! `handle_input(now, …)`, `handle_timeout(now)`, `poll_output()`, `next_deadline()`: mutate once, drain the outputs, wait until the
//! deadline, repeat. A DHCP decision is a value (`Offer | Ack | Ignore(reason)`); the log line and the tests print the same reason.
//!
//! # Threads
//! | thread | owns |
//! |---|---|
//! | `main` | the journal: every event of the other threads becomes a log line here, so a blocked terminal delays nobody |
//! | `boot` (mio) | raw DHCP sockets, udp 4011, udp 69 and its transfers |
//! | `http` (mio) | tcp 8090 and 8080: bounded heads, deadlines, `sendfile` |
//! | `web` (tiny_http) | the pages of 8080, asked for by `http` through a Unix socket; what it does, hang included, delays no download |
//! | `signals` | turns Ctrl-C, SIGTERM and SIGHUP into an orderly end, and a second one into an end at once |
//! | `download N`, squashfs workers | fetch layers and compress blocks, before the servers start |
//! | `flash NAME` | one for each stick that is written, with one that reads the ISO for it |
//! | `control` | answers the supervisor ([`status`]) through an inherited socket, when there is one |
//!
//! With `--console`, and on the appliance, the server is a process of its own. In the one that started it:
//!
//! | thread | does |
//! |---|---|
//! | `main` | waits for the end; on the appliance it pets the watchdog and obeys orders |
//! | `supervisor`, `health`, `server log` | start the server again and again, ask how it is, read what it says |
//! | `console` | one for each serial line |
//! | `modules`, `network`, `ready` | the appliance's hardware, addresses and time; what the server has to wait for |

pub mod appliance;
pub mod civil;

pub mod config;
pub mod console;
pub mod daemon;
pub mod dhcp;
pub mod fat;
pub mod fingerprint;
pub mod flash;
pub mod http;
pub mod iso;
pub mod limits;
pub mod loaders;
pub mod media;
pub mod netboot;
pub mod rootfs;
pub mod sntp;
pub mod source;
pub mod squashfs;
pub mod status;
pub mod storage;
pub mod sys;
pub mod tftp;
pub mod units;
pub mod web;
