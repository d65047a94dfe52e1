//! Sockets, threads and the clock.

pub mod http;
pub mod log;
pub mod state;
