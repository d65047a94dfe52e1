//! The appliance: this program as process 1 of a machine of its own.
//!
//! ```text
//! kernel ─▶ /init: mounts ▸ modules ▸ boot partition ▸ configuration ▸ network ▸ consoles ▸ data partition ▸ time ─▶ supervisor ─▶ server
//! ```
//! [`start`] is the way from top to bottom. A server that fails is started again; what fails here is told at the console and gone
//! without, for there is nobody to start this again but the watchdog.

pub mod boot_partition;
pub mod buttons;
pub mod clock;
mod consoles;
pub mod data;
pub mod disks;
pub mod files;
pub mod host;
pub mod modules;
pub mod mounts;
pub mod network;
pub mod parameters;
pub mod power;
pub mod question;
pub mod rights;
pub mod start;
pub mod watchdog;

/// Where the boot partition is mounted.
pub const BOOT: &str = "/boot";
/// Where the data partition is mounted.
pub const DATA: &str = "/data";
