//! Whether another machine has the static address too (RFC 5227).
//!
//! The address is used all the same: whoever set it may know better, and without it nobody could reach the appliance to set another. So
//! the probes go out beside its use, and their outcome is told.

use std::net::Ipv4Addr;
use std::time::Instant;

use mio::{Registry, Token};

use super::link::Socket;
use crate::dhcp::arp::{self, Claim};
use crate::limits;
use crate::sys::netlink::Interface;
use crate::sys::packet_socket::{Batch, PacketSocket};
use crate::units::MacAddr;

/// The socket of the check.
pub const TOKEN: Token = Token(3);

/// Probes as a client of DHCP sends them, again every minute while somebody else has the address.
#[derive(Debug)]
pub struct Check {
    interface: u32,
    name: String,
    mac: MacAddr,
    address: Ipv4Addr,
    /// Open during a round of probes.
    socket: Option<Socket>,
    /// Probes sent in this round.
    sent: u32,
    due: Option<Instant>,
    seen: Option<MacAddr>,
    /// Who has it, as the last whole round has shown, or this one.
    pub taken_by: Option<MacAddr>,
}

impl Check {
    /// Begins with the next [`Check::turn`]. `None` when the interface is no Ethernet.
    pub fn new(now: Instant, interface: &Interface, address: Ipv4Addr) -> Option<Self> {
        let (name, mac) = (interface.name.clone(), interface.mac?);
        let due = Some(now);
        Some(Self {
            interface: interface.index,
            name,
            mac,
            address,
            socket: None,
            sent: 0,
            due,
            seen: None,
            taken_by: None,
        })
    }

    /// Whether it is about this address on this interface.
    pub fn is_of(&self, interface: &Interface, address: Ipv4Addr) -> bool {
        (self.interface, Some(self.mac), self.address) == (interface.index, interface.mac, address)
    }

    pub const fn address(&self) -> Ipv4Addr {
        self.address
    }

    pub const fn next_deadline(&self) -> Option<Instant> {
        self.due
    }

    pub fn handle_ready(&mut self) {
        if let Some(socket) = &mut self.socket {
            socket.set_ready();
        }
    }

    /// Sends what is due and reads what has come; `own` are the machine's own cards. Returns whether there may be more to read.
    pub fn turn(&mut self, now: Instant, registry: &Registry, batch: &mut Batch, own: &[MacAddr]) -> bool {
        let mut claims = Vec::new();
        if let Some(socket) = &mut self.socket {
            socket.read(batch, |frame| claims.extend(Claim::parse(frame.bytes)));
        }
        for claim in claims {
            self.take(claim, own);
        }
        if self.due.is_some_and(|due| due <= now) {
            self.act(now, registry);
        }
        self.socket.as_ref().is_some_and(Socket::is_ready)
    }

    /// Others that only ask for the address are no users: they learn from the kernel's answer that it is taken. The kernel also
    /// answers through a second card on the same switch.
    fn take(&mut self, claim: Claim, own: &[MacAddr]) {
        if claim.sender != self.address || claim.mac == self.mac || own.contains(&claim.mac) {
            return;
        }
        if self.taken_by != Some(claim.mac) {
            log::warn!("{}: {} is used by the machine {} as well", self.name, self.address, claim.mac);
        }
        (self.seen, self.taken_by) = (Some(claim.mac), Some(claim.mac));
    }

    fn act(&mut self, now: Instant, registry: &Registry) {
        if self.sent < limits::ARP_PROBES {
            self.sent += 1;
            self.due = Some(now + limits::ARP_PROBE_WAIT);
            return self.send(registry, &arp::probe(self.mac, self.address));
        }
        match self.seen.take() {
            Some(_) => self.due = Some(now + limits::NETWORK_DUPLICATE_EVERY),
            None => {
                self.send(registry, &arp::announcement(self.mac, self.address));
                self.due = None;
            }
        }
        if self.due.is_none() && self.taken_by.take().is_some() {
            log::info!("{}: {} is used by nobody else any more", self.name, self.address);
        }
        (self.socket, self.sent) = (None, 0);
    }

    /// A link that is just going, or has just come, loses a packet: the next round tells.
    fn send(&mut self, registry: &Registry, frame: &[u8]) {
        if self.socket.is_none() {
            let opened = PacketSocket::open_arp(self.interface, limits::NETWORK_RECEIVE_BUFFER_BYTES);
            match opened.and_then(|socket| Socket::register(registry, socket, TOKEN)) {
                Ok(socket) => self.socket = Some(socket),
                Err(error) => log::debug!("{}: cannot look for other users of the address: {error}", self.name),
            }
        }
        let sent = self.socket.as_ref().map_or(Ok(()), |socket| socket.send(frame));
        if let Err(error) = sent {
            log::debug!("{}: {error}", self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const SECOND: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 3]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn users_are_others_that_speak_from_the_address() {
        let interface = Interface { index: u32::MAX, mac: Some(OWN), ..Interface::default() };
        let mut check = Check::new(Instant::now(), &interface, ADDRESS).unwrap();
        assert!(check.is_of(&interface, ADDRESS) && !check.is_of(&interface, Ipv4Addr::LOCALHOST));
        for harmless in [
            arp::announcement(OWN, ADDRESS),
            arp::announcement(SECOND, ADDRESS),
            arp::probe(OTHER, ADDRESS),
            arp::announcement(OTHER, Ipv4Addr::new(10, 0, 0, 6)),
        ] {
            check.take(Claim::parse(&harmless).unwrap(), &[OWN, SECOND]);
            assert_eq!(check.taken_by, None);
        }
        check.take(Claim::parse(&arp::announcement(OTHER, ADDRESS)).unwrap(), &[OWN, SECOND]);
        assert_eq!(check.taken_by, Some(OTHER));
    }

    #[test]
    fn an_address_in_use_is_looked_for_again() {
        let poll = mio::Poll::new().unwrap();
        let registry = poll.registry();
        let mut batch = Batch::default();
        let interface = Interface { index: u32::MAX, mac: Some(OWN), ..Interface::default() }; // nobody's: nothing is sent
        let start = Instant::now();
        let mut check = Check::new(start, &interface, ADDRESS).unwrap();
        let mut now = start;
        let mut round = |check: &mut Check, claim: Option<MacAddr>| {
            for _ in 0..=limits::ARP_PROBES {
                check.turn(now, registry, &mut batch, &[OWN]);
                if let Some(mac) = claim {
                    check.take(Claim { mac, sender: ADDRESS, target: ADDRESS }, &[OWN]);
                }
                now = check.next_deadline().unwrap_or(now);
            }
            now - start
        };
        let probing = limits::ARP_PROBE_WAIT * limits::ARP_PROBES;
        check.take(Claim { mac: OTHER, sender: ADDRESS, target: ADDRESS }, &[OWN]);
        assert_eq!(round(&mut check, None), probing + limits::NETWORK_DUPLICATE_EVERY);
        assert_eq!(check.taken_by, Some(OTHER), "until a whole round has shown that it has gone");
        round(&mut check, None);
        assert_eq!((check.taken_by, check.next_deadline()), (None, None));
    }
}
