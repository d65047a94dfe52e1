//! The sockets of one interface's DHCP client.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use crate::dhcp::arp::{self, Claim};
use crate::dhcp::client::{Client, Event, Identity, Input, Output};
use crate::dhcp::frame::{self, UdpChecksum};
use crate::limits;
use crate::sys::netlink::Interface;
use crate::sys::packet_socket::{Batch, Frame, PacketSocket};
use crate::sys::raw_ip::RawIpSocket;
use crate::units::MacAddr;

/// The first token of the interfaces' sockets: two each.
pub const TOKENS: usize = 1 << 32;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

/// A packet socket, and whether there may be more to read: readiness is told once, so it has to be remembered until `WouldBlock`.
#[derive(Debug)]
pub struct Socket {
    socket: PacketSocket,
    ready: bool,
}

/// One interface that is asked for an address.
#[derive(Debug)]
pub struct Link {
    /// As it was when it was looked at last.
    pub interface: Interface,
    pub mac: MacAddr,
    pub client: Client,
    complaint: Option<Complaint>,
    dhcp: Option<Socket>,
    /// Only while it is of interest.
    arp: Option<Socket>,
    events: VecDeque<Event>,
    /// Where the message came from that is being worked on.
    answering: Ipv4Addr,
    /// The frame being built, kept for its room.
    out: Vec<u8>,
}

impl Link {
    /// `None` when the interface is no Ethernet.
    pub fn new(
        now: Instant,
        interface: &Interface,
        hostname: &str,
        earlier: Option<Ipv4Addr>,
        seed: u64,
    ) -> Option<Self> {
        let mac = interface.mac?;
        let identity = Identity { mac, hostname: hostname.to_owned() };
        Some(Self {
            interface: interface.clone(),
            mac,
            client: Client::new(now, identity, earlier, seed),
            complaint: None,
            dhcp: None,
            arp: None,
            events: VecDeque::new(),
            answering: Ipv4Addr::UNSPECIFIED,
            out: Vec::new(),
        })
    }

    /// Whether an interface is still the one whose client this is.
    pub fn is_of(&self, interface: &Interface) -> bool {
        self.interface.index == interface.index && interface.mac == Some(self.mac)
    }

    /// Begins to ask, or leaves off.
    pub fn set_asking(&mut self, now: Instant, tools: &mut Tools<'_>, is_asking: bool) {
        if is_asking && self.dhcp.is_none() {
            let (index, token) = (self.interface.index, self.token(0));
            let opened = PacketSocket::open(index, CLIENT_PORT, limits::NETWORK_RECEIVE_BUFFER_BYTES);
            match opened.and_then(|socket| Socket::register(tools.registry, socket, token)) {
                Ok(socket) => self.dhcp = Some(socket),
                Err(error) => return self.complain(now, format!("cannot listen for DHCP: {error}")),
            }
        }
        self.client.handle_input(now, Input::Link(is_asking));
        self.flush(now, tools);
        if !is_asking {
            self.dhcp = None; // a closed descriptor leaves the poll by itself
        }
    }

    /// Whether it wants to ask but could not open its socket.
    pub const fn is_deaf(&self) -> bool {
        self.dhcp.is_none()
    }

    /// Gives the lease back.
    pub fn release(&mut self, now: Instant, tools: &mut Tools<'_>) {
        self.client.release();
        self.flush(now, tools);
    }

    pub fn handle_ready(&mut self, token: Token) {
        for (number, socket) in [(0, &mut self.dhcp), (1, &mut self.arp)] {
            if let Some(socket) = socket
                && token.0 == TOKENS + 2 * self.interface.index as usize + number
            {
                socket.ready = true;
            }
        }
    }

    pub fn handle_timeout(&mut self, now: Instant, tools: &mut Tools<'_>) {
        self.client.handle_timeout(now);
        self.flush(now, tools);
    }

    /// Reads what has come, within bounds. Returns whether there may be more.
    pub fn turn(&mut self, now: Instant, tools: &mut Tools<'_>) -> bool {
        let mut claims = Vec::new();
        if let Some(arp) = &mut self.arp {
            arp.read(tools.batch, |frame| claims.extend(Claim::parse(frame.bytes)));
        }
        for claim in claims {
            self.client.handle_input(now, Input::Arp(claim));
            self.flush(now, tools);
        }
        let mut messages = Vec::new();
        if let Some(dhcp) = &mut self.dhcp {
            dhcp.read(tools.batch, |frame| messages.extend(message(frame)));
        }
        for (from, message) in messages {
            self.client.handle_input(now, Input::Message(&message));
            self.answering = from;
            self.flush(now, tools);
        }
        [&self.dhcp, &self.arp].into_iter().flatten().any(|socket| socket.ready)
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What stands in the way, for the report.
    pub fn complaint(&self) -> Option<&str> {
        self.complaint.as_ref().map(|complaint| complaint.text.as_str())
    }

    /// Notes what stands in the way. Whoever can send packets must not be able to fill the log: it is told now and then only.
    pub fn complain(&mut self, now: Instant, text: String) {
        let quiet_until = self.complaint.as_ref().map(|last| last.told_at + limits::NETWORK_COMPLAINT_EVERY);
        let is_told = quiet_until.is_none_or(|until| until <= now);
        if is_told {
            log::warn!("{}: {text}", self.interface.name);
        }
        let told_at = self.complaint.take().filter(|_| !is_told).map_or(now, |last| last.told_at);
        self.complaint = Some(Complaint { text, told_at });
    }

    /// All is well again.
    pub fn forget_complaint(&mut self) {
        self.complaint = None;
    }

    /// Does what the client wants.
    fn flush(&mut self, now: Instant, tools: &mut Tools<'_>) {
        self.listen_for_arp(now, tools);
        while let Some(output) = self.client.poll_output() {
            match output {
                Output::Event(Event::Ignored(reason)) => {
                    let text = format!("the answer of {} is not taken: {reason}", self.answering);
                    self.complain(now, text);
                }
                Output::Event(event) => self.events.push_back(event),
                output => self.put(output, tools),
            }
        }
    }

    /// Opens the ARP socket before the first probe goes out, and closes it afterwards.
    fn listen_for_arp(&mut self, now: Instant, tools: &Tools<'_>) {
        if !self.client.is_probing() {
            self.arp = None;
        } else if self.arp.is_none() {
            let opened = PacketSocket::open_arp(self.interface.index, limits::NETWORK_RECEIVE_BUFFER_BYTES);
            match opened.and_then(|socket| Socket::register(tools.registry, socket, self.token(1))) {
                Ok(socket) => self.arp = Some(socket),
                Err(error) => self.complain(now, format!("cannot look for other users of the address: {error}")),
            }
        }
    }

    fn put(&mut self, output: Output, tools: &mut Tools<'_>) {
        let sent = match output {
            Output::Event(_) => Ok(()),
            Output::Broadcast { source, message } => {
                let source = SocketAddrV4::new(source, CLIENT_PORT);
                frame::emit_broadcast(&mut self.out, self.mac, source, SERVER_PORT, &message);
                self.send_frame()
            }
            Output::Unicast { source, server, message } => {
                let (source, server) = (SocketAddrV4::new(source, CLIENT_PORT), SocketAddrV4::new(server, SERVER_PORT));
                frame::emit_packet(&mut self.out, source, server, &message);
                tools.routed.send(&self.out, *server.ip())
            }
            Output::Probe(address) => {
                self.out = arp::probe(self.mac, address);
                self.send_frame()
            }
            Output::Announce(address) => {
                self.out = arp::announcement(self.mac, address);
                self.send_frame()
            }
        };
        // The client sends again: a full queue or a link that is just going is no news.
        if let Err(error) = sent {
            log::debug!("{}: {error}", self.interface.name);
        }
    }

    fn send_frame(&self) -> io::Result<()> {
        self.dhcp.as_ref().map_or(Ok(()), |dhcp| dhcp.socket.send(&self.out))
    }

    fn token(&self, number: usize) -> Token {
        Token(TOKENS + 2 * self.interface.index as usize + number)
    }
}

/// What all links share.
#[derive(Debug)]
pub struct Tools<'a> {
    pub registry: &'a Registry,
    pub routed: &'a RawIpSocket,
    pub batch: &'a mut Batch,
}

/// Something that stood in the way.
#[derive(Debug)]
struct Complaint {
    text: String,
    told_at: Instant,
}

/// Sender and content of a frame with a DHCP message.
fn message(frame: Frame<'_>) -> Option<(Ipv4Addr, Vec<u8>)> {
    let checksum = if frame.checksum_not_ready { UdpChecksum::NotReady } else { UdpChecksum::Filled };
    let datagram = frame::parse(frame.bytes, checksum).ok()?;
    Some((*datagram.source.ip(), datagram.payload.to_vec()))
}

impl Socket {
    /// Has the poll tell when there is something to read.
    pub fn register(registry: &Registry, socket: PacketSocket, token: Token) -> io::Result<Self> {
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { socket, ready: true })
    }

    pub const fn set_ready(&mut self) {
        self.ready = true;
    }

    pub const fn is_ready(&self) -> bool {
        self.ready
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame)
    }

    /// Reads what has come, within bounds.
    pub fn read(&mut self, batch: &mut Batch, mut each: impl FnMut(Frame<'_>)) {
        let mut errors = 0;
        for _ in 0..limits::NETWORK_BATCHES_PER_TURN {
            if !self.ready {
                return;
            }
            match self.socket.receive(batch) {
                Ok(_) => batch.frames().for_each(&mut each),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.ready = false,
                // ENETDOWN is told once, before what may still be queued.
                Err(_) => {
                    errors += 1;
                    self.ready = errors < 2;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_told_now_and_then_only() {
        let now = Instant::now();
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
        let interface = Interface { name: "eth0".to_owned(), mac, ..Interface::default() };
        let mut link = Link::new(now, &interface, "box", None, 1).unwrap();
        let told_at = |link: &Link| link.complaint.as_ref().unwrap().told_at;
        link.complain(now, "one".to_owned());
        let soon = now + limits::NETWORK_COMPLAINT_EVERY / 2;
        link.complain(soon, "another".to_owned());
        assert_eq!((link.complaint(), told_at(&link)), (Some("another"), now), "shown, but not told");
        let later = now + limits::NETWORK_COMPLAINT_EVERY;
        link.complain(later, "a third".to_owned());
        assert_eq!((link.complaint(), told_at(&link)), (Some("a third"), later));
        link.forget_complaint();
        assert_eq!(link.complaint(), None);
    }
}
