//! Who is served what: names, scripts, machines, events.
//!
//! The DHCP, TFTP and HTTP loops ask here what a name means ([`served`], [`names`]) and tell here what they did ([`event`]);
//! [`journal`] turns that into the lines the operator reads, [`watch`] into where each machine is. No sockets, no clock, no paths.

pub mod blob;
pub mod boot_dir;
pub mod cmdline;
pub mod event;
pub mod journal;
pub mod names;
pub mod recent;
pub mod script;
pub mod served;
pub mod watch;
