//! Sockets, threads and the clock.

pub mod log;
pub mod state;
