//! Sockets, threads and the clock.

pub mod boot;
pub mod boot_files;
pub mod dhcp_io;
pub mod http;
pub mod interfaces;
pub mod log;
pub mod port_holder;
pub mod state;
pub mod tftp_io;
