//! Sockets, threads and the clock.

pub mod log;
pub mod state;
pub mod tftp_io;
