//! The sockets of the ProxyDHCP server: reads messages, asks the core, sends what it decides.
//!
//! Listens on each served interface with a packet socket, so that port 67 may belong to a DHCP server on this host, and on
//! UDP port 4011 in the ordinary way. Interfaces may come, go and change while it runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Instant;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::boot_files::BootFiles;
use super::interfaces::{Choice, Selection, Served, listed};
use crate::dhcp::frame::{self, UdpChecksum};
use crate::dhcp::{Arrival, Decision, Destination, Outcome, Port, Reply, Server};
use crate::limits;
use crate::netboot::event::{Event, Teller};
use crate::sys::netlink::{self, Interface, InterfaceNews};
use crate::sys::packet_socket::{Batch, Frame, PacketSocket};
use crate::sys::pktinfo::{PktInfoSocket, PortHolder, Received};
use crate::sys::port_holder::{Transport, port_holder};
use crate::sys::raw_ip::RawIpSocket;

/// News of the interfaces.
const NEWS: Token = Token(1);
/// UDP port 4011.
const PXE: Token = Token(2);
/// The first of the packet sockets; each has its interface's index added.
const LINKS: usize = 1 << 32;
const LINKS_END: usize = 1 << 33;

const DHCP_CLIENT_PORT: u16 = 68;

/// Why the sockets could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DhcpIoError {
    #[error("cannot list the network interfaces")]
    List(#[source] io::Error),
    #[error("`interfaces` names {0:?}, but this host has no such interface (it has {1})")]
    NoSuchInterface(String, String),
    #[error("no network interface to serve on: {0}")]
    NoInterface(String),
    #[error(
        "reading DHCP on {0} needs CAP_NET_RAW: run with sudo, or \
         `setcap cap_net_raw,cap_net_bind_service+ep` on the auroraboot binary"
    )]
    NotPermitted(String),
    #[error("cannot read DHCP on {0}")]
    Link(String, #[source] io::Error),
    #[error("cannot take UDP port 4011 (PXE boot server){}", held_by(.holder.as_deref()))]
    PxePort {
        holder: Option<String>,
        #[source]
        source: io::Error,
    },
    #[error("cannot set up the event loop")]
    Register(#[source] io::Error),
}

/// `: dnsmasq (process 812) holds it` when that is known.
fn held_by(holder: Option<&str>) -> String {
    holder.map(|holder| format!(": {holder} holds it")).unwrap_or_default()
}

/// One served interface.
#[derive(Debug)]
struct Link {
    served: Served,
    socket: PacketSocket,
    /// Whether there may be more to read: readiness is told once, so it has to be remembered until `WouldBlock`.
    ready: bool,
}

/// All sockets of the ProxyDHCP server, and the core behind them.
#[derive(Debug)]
pub struct DhcpIo {
    answering: Answering,
    selection: Selection,
    links: Vec<Link>,
    skipped: Choice,
    news: InterfaceNews,
    look_again_at: Option<Instant>,
    pxe_ready: bool,
    batch: Batch,
}

/// What turns a message into an answer on the wire.
#[derive(Debug)]
struct Answering {
    server: Server,
    /// Told whom was answered, so that a file asked for without a token finds its machine.
    files: Arc<BootFiles>,
    teller: Teller,
    pxe: PktInfoSocket,
    /// Where [`Self::dhcp_port`] is bound.
    listen: Ipv4Addr,
    /// Keeps the kernel from refusing what relays send to port 67. Not taken before a relay talks to us: dnsmasq in its usual
    /// wildcard mode could not start on this host any more, and with it the LAN's DHCP.
    dhcp_port: Option<PortHolder>,
    /// For unicast answers from port 67.
    routed: RawIpSocket,
    /// The packet being built, kept for its room.
    out: Vec<u8>,
}

impl DhcpIo {
    /// Opens everything; afterwards only single interfaces can fail, and they are tried again.
    ///
    /// # Errors
    /// One for each thing the operator has to change.
    pub fn bind(
        registry: &Registry,
        selection: Selection,
        server: Server,
        files: Arc<BootFiles>,
        teller: Teller,
    ) -> Result<Self, DhcpIoError> {
        let news = InterfaceNews::subscribe().map_err(DhcpIoError::List)?;
        let all = netlink::interfaces().map_err(DhcpIoError::List)?;
        check_names(&all, &selection)?;
        let mut choice = Choice::of(&all, &selection);
        if choice.served.is_empty() {
            return Err(DhcpIoError::NoInterface(choice.to_string()));
        }
        let mut links = Vec::with_capacity(choice.served.len());
        for served in choice.served.drain(..) {
            links.push(open_link(registry, served)?);
        }
        let routed = RawIpSocket::open().map_err(|error| not_permitted(&links[0].served.interface.name, error))?;
        let address = selection.address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        let pxe = bind_pxe_port(address)?;
        register(registry, &news, NEWS)?;
        register(registry, &pxe, PXE)?;
        Ok(Self {
            answering: Answering {
                server,
                files,
                teller,
                pxe,
                listen: address,
                dhcp_port: None,
                routed,
                out: Vec::new(),
            },
            selection,
            links,
            skipped: choice,
            news,
            look_again_at: None,
            pxe_ready: false,
            batch: Batch::default(),
        })
    }

    /// The interfaces being served.
    pub fn served(&self) -> impl Iterator<Item = &Served> {
        self.links.iter().map(|link| &link.served)
    }

    /// The interfaces that were not, when they were last looked at.
    #[must_use]
    pub const fn skipped(&self) -> &Choice {
        &self.skipped
    }

    /// Whether a token is one of ours.
    #[must_use]
    pub fn owns(token: Token) -> bool {
        token == NEWS || token == PXE || (LINKS..LINKS_END).contains(&token.0)
    }

    /// Notes that a socket is readable; [`Self::turn`] reads it.
    pub fn handle_ready(&mut self, token: Token, now: Instant) {
        match token {
            NEWS => {
                self.news.drain();
                self.look_again_at.get_or_insert(now + limits::INTERFACE_SETTLE);
            }
            PXE => self.pxe_ready = true,
            Token(number) => {
                if let Some(link) = self.links.iter_mut().find(|link| link_token(&link.served.interface).0 == number) {
                    link.ready = true;
                }
            }
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<Instant> {
        self.look_again_at
    }

    /// Looks at the interfaces again when news of them have settled.
    pub fn handle_timeout(&mut self, now: Instant, registry: &Registry) {
        if self.look_again_at.is_some_and(|at| at <= now) {
            self.look_again_at = None;
            if let Err(error) = self.look_again(now, registry) {
                self.look_again_at = Some(now + limits::INTERFACE_RETRY);
                self.answering.teller.tell(Event::Trouble { what: format!("{error}; trying again").into() });
            }
        }
    }

    /// Reads and answers a bounded number of messages from every readable socket. Returns whether more may be waiting.
    pub fn turn(&mut self, now: Instant) -> bool {
        for index in 0..self.links.len() {
            self.read_link(now, index);
        }
        if self.pxe_ready {
            self.read_pxe(now);
        }
        self.pxe_ready || self.links.iter().any(|link| link.ready)
    }

    fn read_link(&mut self, now: Instant, index: usize) {
        let Self { answering, links, batch, .. } = self;
        let link = &mut links[index];
        let mut errors = 0;
        for _ in 0..limits::DHCP_BATCHES_PER_TURN {
            if !link.ready {
                return;
            }
            match link.socket.receive(batch) {
                Ok(_) => batch.frames().for_each(|frame| answering.handle_frame(now, link, frame)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => link.ready = false,
                // ENETDOWN and the like are told once, before what may still be queued; the news of the interfaces say what
                // became of it. A socket that knows nothing but errors must not keep the loop busy.
                Err(_) => {
                    errors += 1;
                    link.ready = errors < 2;
                }
            }
        }
    }

    fn read_pxe(&mut self, now: Instant) {
        let mut buffer = [0; limits::PXE_MESSAGE_BYTES_MAX];
        for _ in 0..limits::PXE_MESSAGES_PER_TURN {
            match self.answering.pxe.receive(&mut buffer) {
                Ok(received) => self.handle_pxe(now, &buffer[..received.length], received),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pxe_ready = false;
                    return;
                }
                Err(_) => {} // what an earlier answer met with: reading takes it off the socket
            }
        }
    }

    fn handle_pxe(&mut self, now: Instant, bytes: &[u8], received: Received) {
        let has_address = |link: &&Link| link.served.interface.addresses.iter().any(|own| own.ip == received.local);
        let came_in_on = |link: &&Link| link.served.interface.index == received.interface;
        let found = self.links.iter().find(came_in_on).or_else(|| self.links.iter().find(has_address));
        let Some(link) = found else { return };
        let unicast = received.destination == received.local;
        let arrival = Arrival {
            port: Port::Pxe,
            interface: received.interface,
            server: if unicast { received.local } else { link.served.address },
            source: received.source,
            link_source: None,
            unicast,
        };
        self.answering.handle(now, link, bytes, &arrival);
    }

    /// Brings the open sockets in line with the interfaces there are now.
    fn look_again(&mut self, now: Instant, registry: &Registry) -> Result<(), DhcpIoError> {
        let all = netlink::interfaces().map_err(DhcpIoError::List)?;
        let choice = Choice::of(&all, &self.selection);
        let before = listed(self.served());
        let still = |link: &Link| choice.served.iter().any(|served| same_interface(served, &link.served));
        let (kept, gone): (Vec<_>, Vec<_>) = self.links.drain(..).partition(still);
        self.links = kept;
        for link in gone {
            // Its descriptor leaves the poll when it is closed; an error here means that it has done so already.
            let _ = registry.deregister(&mut SourceFd(&link.socket.as_raw_fd()));
            self.tell_gone(&link.served, &choice);
        }
        self.skipped = Choice { served: Vec::new(), skipped: choice.skipped };
        for served in choice.served {
            if let Some(link) = self.links.iter_mut().find(|link| same_interface(&link.served, &served)) {
                if link.served.address != served.address {
                    let what = format!("{}: now serving from {}", served.interface.name, served.address);
                    self.answering.teller.tell(Event::Trouble { what: what.into() });
                }
                link.served = served;
                continue;
            }
            let what = format!("{}: serving machines from {}", served.interface.name, served.address);
            match open_link(registry, served) {
                Ok(link) => self.links.push(link),
                Err(error) => {
                    self.look_again_at = Some(now + limits::INTERFACE_RETRY);
                    return Err(error);
                }
            }
            self.answering.teller.tell(Event::News { what: what.into() });
        }
        let on = listed(self.served());
        if on != before {
            self.answering.teller.tell(Event::Serving { on });
        }
        Ok(())
    }

    fn tell_gone(&mut self, served: &Served, choice: &Choice) {
        let name = &served.interface.name;
        let reason = choice.skipped.iter().find(|(skipped, _)| skipped == name);
        let reason = reason.map_or_else(|| "gone or replaced".to_owned(), |(_, reason)| reason.to_string());
        let what = format!("{name}: {reason}; machines there get no answer until it is back");
        self.answering.teller.tell(Event::Trouble { what: what.into() });
    }
}

impl Answering {
    fn handle_frame(&mut self, now: Instant, link: &Link, frame: Frame<'_>) {
        let checksum = if frame.checksum_not_ready { UdpChecksum::NotReady } else { UdpChecksum::Filled };
        let Ok(datagram) = frame::parse(frame.bytes, checksum) else { return };
        let Some(server) = our_address(&link.served, *datagram.destination.ip()) else { return };
        let arrival = Arrival {
            port: Port::Dhcp,
            interface: link.served.interface.index,
            server,
            source: datagram.source,
            link_source: Some(datagram.link_source),
            unicast: *datagram.destination.ip() == server,
        };
        self.handle(now, link, datagram.payload, &arrival);
    }

    fn handle(&mut self, now: Instant, link: &Link, bytes: &[u8], arrival: &Arrival) {
        let Outcome { mac, decision } = self.server.handle_input(now, bytes, arrival);
        let (reply, event) = match decision {
            Decision::Ignore(reason) => {
                if reason.is_news() {
                    self.teller.tell(Event::Ignored { mac, reason: reason.to_string().into() });
                }
                return;
            }
            Decision::Offer(reply) => {
                self.files.offered(reply.mac);
                let event = Event::Offered { mac: reply.mac, client: reply.client.to_string().into() };
                (reply, event)
            }
            Decision::Ack(reply) => {
                self.files.seen_at(*arrival.source.ip(), reply.mac);
                let event = Event::Acked { mac: reply.mac, to: arrival.source.into() };
                (reply, event)
            }
        };
        match self.send(&reply, arrival, link) {
            Ok(()) => self.teller.tell(event),
            Err(error) => {
                let name = &link.served.interface.name;
                self.teller
                    .tell(Event::Trouble { what: format!("{name}: cannot answer {}: {error}", reply.mac).into() });
            }
        }
    }

    fn send(&mut self, reply: &Reply, arrival: &Arrival, link: &Link) -> io::Result<()> {
        let source = SocketAddrV4::new(arrival.server, arrival.port.number());
        match (reply.to, arrival.port) {
            (Destination::Broadcast, _) => {
                let Some(mac) = link.served.interface.mac else { return Ok(()) };
                frame::emit_broadcast(&mut self.out, mac, source, DHCP_CLIENT_PORT, &reply.bytes);
                link.socket.send(&self.out)
            }
            (Destination::Unicast(to), Port::Dhcp) => {
                if arrival.unicast && self.dhcp_port.is_none() {
                    // Taken by somebody else: as good.
                    self.dhcp_port = PortHolder::bind(SocketAddrV4::new(self.listen, Port::Dhcp.number())).ok();
                }
                frame::emit_packet(&mut self.out, source, to, &reply.bytes);
                self.routed.send(&self.out, *to.ip())
            }
            // The way it came; where routes lead back another way, that one.
            (Destination::Unicast(to), Port::Pxe) => self
                .pxe
                .send(&reply.bytes, to, arrival.server, arrival.interface)
                .or_else(|_| self.pxe.send(&reply.bytes, to, arrival.server, 0)),
        }
    }
}

/// Whether a socket opened for one still serves the other; only addresses may differ.
fn same_interface(one: &Served, other: &Served) -> bool {
    one.interface.index == other.interface.index && one.interface.mac == other.interface.mac
}

/// The address to answer from when a message was sent to `destination`; `None` when it only passes through this host.
fn our_address(served: &Served, destination: Ipv4Addr) -> Option<Ipv4Addr> {
    let addresses = &served.interface.addresses;
    let is_broadcast = destination.is_broadcast()
        || addresses.iter().any(|own| {
            let host_bits = u32::MAX.checked_shr(own.prefix_length.into()).unwrap_or(0);
            u32::from(destination) == u32::from(own.ip) | host_bits
        });
    if addresses.iter().any(|own| own.ip == destination) {
        Some(destination)
    } else {
        is_broadcast.then_some(served.address)
    }
}

fn check_names(all: &[Interface], selection: &Selection) -> Result<(), DhcpIoError> {
    match selection.names.iter().find(|name| !all.iter().any(|interface| interface.name == **name)) {
        None => Ok(()),
        Some(missing) => {
            let names: Vec<&str> = all.iter().map(|interface| interface.name.as_str()).collect();
            Err(DhcpIoError::NoSuchInterface(missing.clone(), names.join(", ")))
        }
    }
}

fn open_link(registry: &Registry, served: Served) -> Result<Link, DhcpIoError> {
    let name = &served.interface.name;
    let socket = PacketSocket::open(served.interface.index, Port::Dhcp.number(), limits::PACKET_RECEIVE_BUFFER_BYTES)
        .map_err(|error| not_permitted(name, error))?;
    register(registry, &socket, link_token(&served.interface))?;
    Ok(Link { served, socket, ready: true })
}

fn not_permitted(name: &str, error: io::Error) -> DhcpIoError {
    if error.kind() == io::ErrorKind::PermissionDenied {
        DhcpIoError::NotPermitted(name.to_owned())
    } else {
        DhcpIoError::Link(name.to_owned(), error)
    }
}

fn bind_pxe_port(address: Ipv4Addr) -> Result<PktInfoSocket, DhcpIoError> {
    let port = Port::Pxe.number();
    PktInfoSocket::bind(SocketAddrV4::new(address, port)).map_err(|source| {
        let taken = source.kind() == io::ErrorKind::AddrInUse;
        let holder = taken.then(|| port_holder(Transport::Udp, port)).flatten();
        DhcpIoError::PxePort { holder, source }
    })
}

fn register(registry: &Registry, socket: &impl AsRawFd, token: Token) -> Result<(), DhcpIoError> {
    registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE).map_err(DhcpIoError::Register)
}

fn link_token(interface: &Interface) -> Token {
    Token(LINKS + interface.index as usize)
}
