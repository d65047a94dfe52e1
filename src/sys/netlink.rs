//! The network interfaces of this host, the news of their changes, and changes of them (rtnetlink(7)).

mod change;

pub use change::{
    DefaultRoute, delete_address, delete_default_route, replace_address, replace_default_route, set_mtu, set_up,
};

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::c_int;

use super::{bind, cvt, cvt_len, set_option, socket};
use crate::units::MacAddr;

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    pub index: u32,
    pub name: String,
    /// `None` when it is not an Ethernet-like interface.
    pub mac: Option<MacAddr>,
    pub up: bool,
    /// Whether there is a link: cable, association, peer.
    pub carrier: bool,
    pub loopback: bool,
    pub mtu: u32,
    /// What makes it, for those that are no hardware: `bridge`, `vlan`, `veth`, `macvlan`, …
    pub kind: Option<String>,
    /// The bridge, bond or other interface it is a port of, by index.
    pub master: Option<u32>,
    /// IPv4 addresses in the kernel's order, which has the primary ones first.
    pub addresses: Vec<Address>,
}

/// An IPv4 address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    pub ip: Ipv4Addr,
    pub prefix_length: u8,
}

/// Lists all interfaces in order of their index.
///
/// The kernel answers while the request is being made, so this does not wait for anything.
///
/// # Errors
/// When the kernel refuses, which it does for want of memory or descriptors only.
pub fn interfaces() -> io::Result<Vec<Interface>> {
    let socket = NetlinkSocket::open(0)?;
    let mut interfaces = Vec::new();
    socket.dump(libc::RTM_GETLINK, libc::RTM_NEWLINK, |body| interfaces.extend(parse_link(body)))?;
    socket.dump(libc::RTM_GETADDR, libc::RTM_NEWADDR, |body| {
        let Some((index, address)) = parse_address(body) else { return };
        if let Some(interface) = interfaces.iter_mut().find(|interface: &&mut Interface| interface.index == index) {
            interface.addresses.push(address);
        }
    })?;
    interfaces.sort_by_key(|interface| interface.index);
    Ok(interfaces)
}

/// Becomes readable when an interface or an IPv4 address comes, goes or changes.
#[derive(Debug)]
pub struct InterfaceNews {
    socket: NetlinkSocket,
}

impl InterfaceNews {
    /// # Errors
    /// When the process has no descriptor left.
    pub fn subscribe() -> io::Result<Self> {
        let groups = (libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR) as u32;
        Ok(Self { socket: NetlinkSocket::open(groups)? })
    }

    /// Forgets the news that have come so far: what they say is asked anew with [`interfaces`]. Never waits.
    pub fn drain(&self) {
        let mut buffer = [0; 8192];
        loop {
            match self.socket.receive(&mut buffer) {
                // ENOBUFS: some were lost, which is no matter as none are read.
                Err(error) if !matches!(error.raw_os_error(), Some(libc::EINTR | libc::ENOBUFS)) => return,
                _ => {}
            }
        }
    }
}

impl AsRawFd for InterfaceNews {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.fd.as_raw_fd()
    }
}

#[derive(Debug)]
struct NetlinkSocket {
    fd: OwnedFd,
}

/// `nlmsghdr`: length, type, flags, sequence, port.
const HEADER_LEN: usize = 16;
/// `ifinfomsg`.
const LINK_HEADER_LEN: usize = 16;
/// `ifaddrmsg`.
const ADDRESS_HEADER_LEN: usize = 8;
/// `ARPHRD_ETHER`, also what Wi-Fi and most virtual interfaces claim to be.
const ETHERNET: u16 = libc::ARPHRD_ETHER;

impl NetlinkSocket {
    fn open(groups: u32) -> io::Result<Self> {
        let fd = socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)?;
        // SAFETY: all-zero bytes are a valid sockaddr_nl, which has private padding.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = groups;
        bind(&fd, &address)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, (1 << 20) as c_int)?;
        Ok(Self { fd })
    }

    /// Asks for a list and gives the body of each of its messages to `each`.
    fn dump(&self, request: u16, answer: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        self.send_dump_request(request)?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = match self.receive(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                // Not here yet: only on a kernel under great pressure. Wait for it, but not for ever.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait()?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let mut rest = &buffer[..length];
            while let Some((kind, body, tail)) = split_message(rest) {
                rest = tail;
                match c_int::from(kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return Err(error_in(body)),
                    _ if kind == answer => each(body),
                    _ => {}
                }
            }
        }
    }

    fn send_dump_request(&self, request: u16) -> io::Result<()> {
        const LENGTH: usize = HEADER_LEN + LINK_HEADER_LEN;
        let mut message = [0; LENGTH];
        message[..4].copy_from_slice(&(LENGTH as u32).to_ne_bytes());
        message[4..6].copy_from_slice(&request.to_ne_bytes());
        message[6..8].copy_from_slice(&((libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16).to_ne_bytes());
        // The family comes first in both ifinfomsg and ifaddrmsg; for links the kernel ignores it.
        message[HEADER_LEN] = libc::AF_INET as u8;
        self.send(&message)
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `message`.
        cvt_len(unsafe { libc::send(self.fd.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) }).map(drop)
    }

    fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        // SAFETY: the pointer and the length describe `buffer`.
        cvt_len(unsafe { libc::recv(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) })
    }

    fn wait(&self) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd is passed and counted as one.
        match cvt(unsafe { libc::poll(&raw mut poll, 1, 1000) })? {
            0 => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

fn error_in(body: &[u8]) -> io::Error {
    let errno = body.first_chunk().map_or(libc::EIO, |bytes| -c_int::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(errno)
}

/// Takes one netlink message off the front: its type, its body, the rest.
fn split_message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(u32::from_ne_bytes(*bytes.first_chunk()?)).ok()?;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let body = bytes.get(HEADER_LEN..length)?;
    Some((kind, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

/// The attributes (`rtattr`) in a message body, type without its flag bits.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn parse_link(body: &[u8]) -> Option<Interface> {
    let hardware = u16::from_ne_bytes(body.get(2..4)?.try_into().ok()?);
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    let flags = c_int::from_ne_bytes(body.get(8..12)?.try_into().ok()?);
    let mut interface = Interface {
        index,
        up: flags & libc::IFF_UP != 0,
        // Not IFF_RUNNING, which the kernel sets up to a second later.
        carrier: flags & libc::IFF_LOWER_UP != 0,
        loopback: flags & libc::IFF_LOOPBACK != 0,
        ..Interface::default()
    };
    for (kind, value) in attributes(body.get(LINK_HEADER_LEN..)?) {
        match kind {
            libc::IFLA_IFNAME => interface.name = text(value),
            libc::IFLA_ADDRESS if hardware == ETHERNET => interface.mac = value.try_into().ok().map(MacAddr),
            libc::IFLA_MTU => interface.mtu = number(value).unwrap_or(0),
            libc::IFLA_MASTER => interface.master = number(value),
            libc::IFLA_LINKINFO => {
                let made_by = attributes(value).find(|&(kind, _)| kind == libc::IFLA_INFO_KIND);
                interface.kind = made_by.map(|(_, name)| text(name));
            }
            _ => {}
        }
    }
    Some(interface)
}

/// Index of the interface, and the address.
fn parse_address(body: &[u8]) -> Option<(u32, Address)> {
    let [family, prefix_length, _flags, _scope] = *body.first_chunk()?;
    if c_int::from(family) != libc::AF_INET {
        return None;
    }
    let index = u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?);
    // IFA_LOCAL is ours; IFA_ADDRESS is the peer's on a point-to-point link.
    let (_, value) = attributes(body.get(ADDRESS_HEADER_LEN..)?).find(|&(kind, _)| kind == libc::IFA_LOCAL)?;
    let ip = Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?);
    Some((index, Address { ip, prefix_length }))
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_has_a_loopback_interface() {
        let all = interfaces().unwrap();
        let lo = all.iter().find(|interface| interface.name == "lo").unwrap();
        assert!(lo.loopback && lo.mac.is_none(), "{lo:?}");
        if lo.up {
            assert_eq!(lo.addresses[0], Address { ip: Ipv4Addr::LOCALHOST, prefix_length: 8 });
        }
    }

    #[test]
    fn cut_messages_end_the_list() {
        assert_eq!(split_message(&[]), None);
        assert_eq!(
            split_message(&[200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            None,
            "longer than what there is"
        );
        assert_eq!(split_message(&[3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None, "shorter than its header");
        assert_eq!(attributes(&[8, 0, 1, 0, 1]).count(), 0);
        assert_eq!(attributes(&[0, 0, 1, 0, 1]).count(), 0);
        assert_eq!(parse_link(&[0; 11]), None);
        assert_eq!(parse_address(&[libc::AF_INET as u8; 7]), None);
    }
}
