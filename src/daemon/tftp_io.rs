//! Sockets for the TFTP server: port 69, and one port for each transfer.
//!
//! No parsing and no policy: datagrams in, the core's outputs out. Transfers' sockets are not connected, so that the core sees
//! strangers and can answer them by ERROR 5 (RFC 1350 §4); ICMP errors are asked for instead (`IP_RECVERR`).

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::limits::{TFTP_ACTIVE_MAX, TFTP_REQUEST_BYTES_MAX, TFTP_REQUESTS_PER_TURN};
use crate::sys::pktinfo::PktInfoSocket;
use crate::sys::port_holder::{Transport, port_holder};
use crate::sys::udp;
use crate::tftp::{Arrival, Capacity, Event, Files, Output, Server, TransferId};

/// The well-known port.
pub const TFTP_PORT: u16 = 69;
/// For a room of machines that are switched on together: some 4,000 requests (the kernel counts about 1 KiB for each).
const LISTENER_RECEIVE_BUFFER: i32 = 4 << 20;

/// When an interface cannot be asked.
const ETHERNET_MTU: u32 = 1500;
/// The routing table chooses by the source address.
const ANY_INTERFACE: u32 = 0;

/// Why the TFTP server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TftpIoError {
    #[error("cannot take UDP port {port} (TFTP): it is taken{}; stop the TFTP server that holds it", .holder.as_ref().map(|name| format!(" by {name}")).unwrap_or_default())]
    Taken { port: u16, holder: Option<String> },
    #[error(
        "UDP port {0} (TFTP) needs CAP_NET_BIND_SERVICE: run with sudo, or with the capabilities that the README names"
    )]
    Forbidden(u16),
    #[error("cannot listen on udp {0}; check netboot_listen_addr")]
    Bind(SocketAddrV4, #[source] io::Error),
    #[error("setting up the TFTP sockets")]
    Setup(#[source] io::Error),
}

/// The server with its sockets; lives on the boot loop.
///
/// After any `handle_…`: take the events by [`TftpIo::poll_event`], wait until [`TftpIo::next_deadline`].
pub struct TftpIo {
    server: Server,
    listener: PktInfoSocket,
    registry: Registry,
    /// The first is the listener's, then one for each transfer.
    tokens: Range<usize>,
    /// By transfer id.
    sockets: Vec<Option<TransferSocket>>,
    /// The listener had more than one turn's requests.
    has_backlog: bool,
    /// Filled and emptied within one call.
    buffer: Vec<u8>,
}

struct TransferSocket {
    socket: UdpSocket,
    peer: SocketAddrV4,
}

impl TftpIo {
    /// Listens on port 69 of `addr`; see [`TftpIo::bind_to`].
    ///
    /// # Errors
    /// [`TftpIoError`]
    pub fn bind(
        addr: Ipv4Addr,
        registry: &Registry,
        tokens: Range<usize>,
        files: Arc<dyn Files>,
    ) -> Result<Self, TftpIoError> {
        Self::bind_to(SocketAddrV4::new(addr, TFTP_PORT), registry, tokens, files)
    }

    /// Listens on any port. Each transfer needs a token besides the listener's; fewer tokens are fewer transfers at once.
    ///
    /// # Errors
    /// [`TftpIoError`]
    pub fn bind_to(
        listen: SocketAddrV4,
        registry: &Registry,
        tokens: Range<usize>,
        files: Arc<dyn Files>,
    ) -> Result<Self, TftpIoError> {
        let listener = PktInfoSocket::bind(listen).map_err(|error| refused(listen, error))?;
        udp::set_receive_buffer(&listener, LISTENER_RECEIVE_BUFFER).map_err(TftpIoError::Setup)?;
        let registry = registry.try_clone().map_err(TftpIoError::Setup)?;
        let source = listener.as_raw_fd();
        let registered = registry.register(&mut SourceFd(&source), Token(tokens.start), Interest::READABLE);
        registered.map_err(TftpIoError::Setup)?;
        let capacity = Capacity { active: tokens.len().saturating_sub(1).max(1), ..Capacity::default() };
        Ok(Self {
            server: Server::new(files, capacity),
            listener,
            registry,
            tokens,
            sockets: Vec::new(),
            has_backlog: false,
            buffer: Vec::new(),
        })
    }

    /// As many tokens as the server can make use of, from `first` on.
    #[must_use]
    pub fn tokens(first: usize) -> Range<usize> {
        first..first + 1 + TFTP_ACTIVE_MAX
    }

    /// The poll reported `token`, one of the tokens given at the start.
    pub fn handle_ready(&mut self, token: Token, now: Instant) {
        if token.0 == self.tokens.start {
            self.receive_requests(now);
        } else if self.tokens.contains(&token.0) {
            self.receive_answers(now, TransferId(token.0 - self.tokens.start - 1));
        }
        self.send_outputs(now);
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.has_backlog {
            self.receive_requests(now);
        }
        self.server.handle_timeout(now);
        self.send_outputs(now);
    }

    /// When to call [`TftpIo::handle_timeout`]: `now` while requests are left to read.
    #[must_use]
    pub fn next_deadline(&self, now: Instant) -> Option<Instant> {
        if self.has_backlog { Some(now) } else { self.server.next_deadline() }
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.server.poll_event()
    }

    /// Reads one turn's requests, so that a flood of them leaves time for the loop's other work.
    fn receive_requests(&mut self, now: Instant) {
        self.buffer.resize(TFTP_REQUEST_BYTES_MAX + 1, 0);
        self.has_backlog = false;
        for _ in 0..TFTP_REQUESTS_PER_TURN {
            let received = match self.listener.receive(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => continue, // an ICMP error to an earlier reply, or Interrupted: the next read goes on
            };
            let mtu = udp::interface_mtu(&self.listener, received.interface).unwrap_or(ETHERNET_MTU);
            let arrival = Arrival {
                from: received.source,
                to: received.destination,
                local: received.local,
                mtu: u16::try_from(mtu).unwrap_or(u16::MAX),
            };
            self.server.handle_request(now, &arrival, &self.buffer[..received.length]);
        }
        self.has_backlog = true;
    }

    fn receive_answers(&mut self, now: Instant, id: TransferId) {
        let mut buffer = [0; 512]; // ACKs have 4 bytes; an ERROR's text may be cut
        while let Some(own) = self.sockets.get(id.0).and_then(Option::as_ref) {
            match own.socket.recv_from(&mut buffer) {
                Ok((len, SocketAddr::V4(from))) => self.server.handle_datagram(now, id, from, &buffer[..len]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) if udp::take_refusals(&own.socket, own.peer) => self.server.handle_gone(now, id),
                Ok(_) | Err(_) => {} // another ICMP error; the next read goes on
            }
            // At once: the transfer may have ended, and its id may already be another's.
            self.send_outputs(now);
        }
    }

    fn send_outputs(&mut self, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        while let Some(output) = self.server.poll_output(now, &mut buffer) {
            self.perform(now, output, &buffer);
        }
        self.buffer = buffer;
    }

    fn perform(&mut self, now: Instant, output: Output, bytes: &[u8]) {
        match output {
            Output::Open { id, local, peer } => {
                if let Err(error) = self.open(id, local, peer) {
                    self.server.handle_no_socket(now, id, error.kind());
                }
            }
            Output::Send { id, to, datagram_len } => self.send(now, id, bytes, datagram_len, to),
            // A reply that cannot leave is as good as lost on the way.
            Output::Reply { local, to } => drop(self.listener.send(bytes, to, local, ANY_INTERFACE)),
            Output::Close { id } => {
                // Closing the descriptor takes it out of the poll too.
                self.sockets.get_mut(id.0).map(Option::take);
            }
        }
    }

    fn open(&mut self, id: TransferId, local: Ipv4Addr, peer: SocketAddrV4) -> io::Result<()> {
        let socket = udp::open(local)?;
        let token = Token(self.tokens.start + 1 + id.0);
        self.registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        if self.sockets.len() <= id.0 {
            self.sockets.resize_with(id.0 + 1, || None);
        }
        self.sockets[id.0] = Some(TransferSocket { socket, peer });
        Ok(())
    }

    fn send(&mut self, now: Instant, id: TransferId, bytes: &[u8], datagram_len: usize, to: SocketAddrV4) {
        let Some(own) = self.sockets.get(id.0).and_then(Option::as_ref) else { return };
        // An ICMP error to an earlier datagram is reported instead of sending; twice in a row is a loss like any other.
        for _ in 0..2 {
            match udp::send_segments(&own.socket, bytes, datagram_len, to) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    if udp::take_refusals(&own.socket, own.peer) {
                        return self.server.handle_gone(now, id);
                    }
                }
                Ok(()) | Err(_) => return,
            }
        }
    }
}

impl fmt::Debug for TftpIo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TftpIo {{ {:?} }}", self.server)
    }
}

fn refused(listen: SocketAddrV4, source: io::Error) -> TftpIoError {
    let port = listen.port();
    match source.kind() {
        io::ErrorKind::AddrInUse => TftpIoError::Taken { port, holder: port_holder(Transport::Udp, port) },
        io::ErrorKind::PermissionDenied => TftpIoError::Forbidden(port),
        _ => TftpIoError::Bind(listen, source),
    }
}
