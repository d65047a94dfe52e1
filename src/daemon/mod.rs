//! Sockets, threads and the clock.

pub mod http;
