//! The appliance: what this program is as process 1 of a machine of its own.

pub mod boot_partition;
pub mod clock;
pub mod data;
pub mod disks;
pub mod modules;
pub mod mounts;
pub mod power;
pub mod rights;
pub mod watchdog;
