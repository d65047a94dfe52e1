//! Sockets, threads and the clock.

pub mod boot_files;
pub mod http;
pub mod log;
pub mod state;
