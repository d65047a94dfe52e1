//! TFTP (RFC 1350, 2347-2349, 7440) as a sans-IO core: read requests only.
//!
//! [`Server`] holds the transfers and speaks through its outputs; `daemon::tftp_io` gives it sockets and the clock.
//! After every `handle_…` call: drain [`Server::poll_output`] and [`Server::poll_event`], then wait until
//! [`Server::next_deadline`].

mod budget;
mod name;
pub mod options;
pub mod packet;
mod server;
mod transfer;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

pub use server::{Arrival, Capacity, Event, Output, Refusal, Server, TransferId};
pub use transfer::{Failure, Source};

/// The bytes of one served file, shared by all its transfers.
pub type Content = Arc<dyn Source>;

/// Which names are served to whom.
pub trait Files: Send + Sync {
    /// The content under a cleaned name: no leading slash, `/` between parts, no `.` or `..` parts, no control
    /// characters; in the case that the client used. `server` is our address at which the request came in.
    fn open(&self, from: SocketAddrV4, server: Ipv4Addr, name: &str) -> Option<Content>;
}

impl Source for Arc<[u8]> {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let bytes = usize::try_from(offset).ok().and_then(|start| self.get(start..)?.get(..buf.len()));
        buf.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
