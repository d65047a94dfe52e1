//! ProxyDHCP: packets, options, and what to answer to whom.
//!
//! A ProxyDHCP server never leases an address. It listens beside the LAN's own DHCP server and tells a machine that
//! boots from the network only *what to load* (PXE specification 2.1 §2.2):
//!
//! ```text
//! machine                 DHCP server            this server
//!    │── DISCOVER (67) ───────▶│──────────────────────▶│
//!    │◀── OFFER: an address ───│                       │
//!    │◀── OFFER: yiaddr 0, our siaddr and boot file ───│
//!    │── REQUEST / ACK ───────▶│                       │
//!    │── REQUEST (4011) ──────────────────────────────▶│   UEFI, and a few BIOS ROMs
//!    │◀── ACK: the same boot file ─────────────────────│
//! ```
//!
//! [`packet`] is the bytes that came in, [`request`] their meaning, [`decide`] the policy, [`reply`] the bytes that go out,
//! [`server`] the little memory it takes (copies of one broadcast, loaders that come back for ever).
//! [`frame`] wraps and unwraps Ethernet, IPv4 and UDP. Nothing here touches a socket or a clock.
//!
//! The appliance is a DHCP client too: [`client`] gets it an address and keeps it, [`lease`] reads what servers answer,
//! [`arp`] asks whether somebody else uses that address.

pub mod arch;
pub mod arp;
pub mod client;
pub mod decide;
pub mod frame;
pub mod lease;
pub mod options;
pub mod packet;
pub mod reply;
pub mod request;
pub mod server;
#[cfg(test)]
mod testing;

pub use arch::Loader;
pub use decide::{Arrival, BootFiles, Decision, Machines, Policy, Port, Reason};
pub use reply::{Destination, Reply};
pub use request::{Client, Request};
pub use server::{Outcome, Server};
