//! Changes of interfaces, addresses and routes; each is one request that the kernel acknowledges (rtnetlink(7)).

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use libc::c_int;

use super::{Address, HEADER_LEN, NetlinkSocket, error_in, split_message};

/// A default route, as it is added and taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Index of the interface.
    pub interface: u32,
    pub gateway: Ipv4Addr,
    /// The lower, the more preferred; also by what routes are told apart.
    pub metric: u32,
}

/// Brings an interface up or down.
///
/// # Errors
/// `ENODEV` when it is gone, `EPERM` without `CAP_NET_ADMIN`; what the driver says.
pub fn set_up(interface: u32, up: bool) -> io::Result<()> {
    let flag = libc::IFF_UP as u32;
    request(libc::RTM_NEWLINK, 0, &link_header(interface, if up { flag } else { 0 }, flag))
}

/// Sets the largest packet of an interface, in bytes.
///
/// # Errors
/// `EINVAL` when the device cannot; as [`set_up`].
pub fn set_mtu(interface: u32, mtu: u32) -> io::Result<()> {
    let mut body = link_header(interface, 0, 0);
    put(&mut body, libc::IFLA_MTU, &mtu.to_ne_bytes());
    request(libc::RTM_NEWLINK, 0, &body)
}

/// Adds an address, or sets anew how long it lasts; the kernel takes it away after `lifetime`, `None`: never.
///
/// # Errors
/// As [`set_up`].
pub fn replace_address(interface: u32, address: Address, lifetime: Option<Duration>) -> io::Result<()> {
    let mut body = address_body(interface, address);
    if address.prefix_length < 31 {
        let host_bits = u32::MAX.checked_shr(address.prefix_length.into()).unwrap_or(0);
        put(&mut body, libc::IFA_BROADCAST, &(u32::from(address.ip) | host_bits).to_be_bytes());
    }
    // ifa_cacheinfo: preferred and valid seconds, all ones for ever; two times that only the kernel sets.
    let seconds = lifetime.map_or(u32::MAX, |time| u32::try_from(time.as_secs()).unwrap_or(u32::MAX)).max(1);
    let mut cache_info = [0; 16];
    cache_info[..4].copy_from_slice(&seconds.to_ne_bytes());
    cache_info[4..8].copy_from_slice(&seconds.to_ne_bytes());
    put(&mut body, libc::IFA_CACHEINFO, &cache_info);
    request(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
}

/// Takes an address away, and with it the routes that start from it. One that is not there is no error.
///
/// # Errors
/// As [`set_up`].
pub fn delete_address(interface: u32, address: Address) -> io::Result<()> {
    unless_gone(request(libc::RTM_DELADDR, 0, &address_body(interface, address)))
}

/// Adds a default route in place of one with the same metric. `from` is the address that its packets have.
///
/// The gateway counts as a neighbour also when it is not in the interface's network: some providers lend a /32.
///
/// # Errors
/// `ENETDOWN` while the interface is down; as [`set_up`].
pub fn replace_default_route(route: DefaultRoute, from: Ipv4Addr) -> io::Result<()> {
    let mut body = route_body(route);
    put(&mut body, libc::RTA_PREFSRC, &from.octets());
    request(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_REPLACE, &body)
}

/// Takes a default route away. One that is not there is no error.
///
/// # Errors
/// As [`set_up`].
pub fn delete_default_route(route: DefaultRoute) -> io::Result<()> {
    unless_gone(request(libc::RTM_DELROUTE, 0, &route_body(route)))
}

fn unless_gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ESRCH | libc::ENODEV)) => Ok(()),
        other => other,
    }
}

/// `ifinfomsg`: family, type, index, flags, and which of them change.
fn link_header(interface: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    body.extend(interface.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(change.to_ne_bytes());
    body
}

/// `ifaddrmsg` (family, prefix, flags, scope, index) and the address.
fn address_body(interface: u32, address: Address) -> Vec<u8> {
    let mut body = vec![libc::AF_INET as u8, address.prefix_length, 0, libc::RT_SCOPE_UNIVERSE];
    body.extend(interface.to_ne_bytes());
    put(&mut body, libc::IFA_LOCAL, &address.ip.octets());
    put(&mut body, libc::IFA_ADDRESS, &address.ip.octets());
    body
}

/// `rtmsg` (family, two prefixes, TOS, table, protocol, scope, type, flags) for 0.0.0.0/0, and where it leads.
fn route_body(route: DefaultRoute) -> Vec<u8> {
    let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE);
    let mut body = vec![libc::AF_INET as u8, 0, 0, 0, table, RTPROT_DHCP, scope, libc::RTN_UNICAST];
    body.extend(u32::from(RTNH_F_ONLINK).to_ne_bytes());
    put(&mut body, libc::RTA_OIF, &route.interface.to_ne_bytes());
    put(&mut body, libc::RTA_GATEWAY, &route.gateway.octets());
    put(&mut body, libc::RTA_PRIORITY, &route.metric.to_ne_bytes());
    body
}

/// Who made the route, for whoever lists it (linux/rtnetlink.h).
const RTPROT_DHCP: u8 = 16;
/// "Pretend that the gateway is on this link" (linux/rtnetlink.h).
const RTNH_F_ONLINK: u8 = 4;

/// Adds an attribute, padded to four bytes.
fn put(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Sends one request and waits for its acknowledgement, which the kernel writes while it is being sent.
fn request(kind: u16, flags: c_int, body: &[u8]) -> io::Result<()> {
    let socket = NetlinkSocket::open(0)?;
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK | flags) as u16;
    let mut message = Vec::with_capacity(HEADER_LEN + body.len());
    message.extend(u32::try_from(HEADER_LEN + body.len()).unwrap_or(u32::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.resize(HEADER_LEN, 0); // sequence and port: this socket asks once
    message.extend(body);
    socket.send(&message)?;
    let mut buffer = [0; 4096];
    loop {
        let length = match socket.receive(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                socket.wait()?;
                continue;
            }
            Err(error) => return Err(error),
        };
        if let Some((kind, body, _)) = split_message(&buffer[..length])
            && c_int::from(kind) == libc::NLMSG_ERROR
        {
            let is_done = body.first_chunk() == Some(&[0; 4]); // errno 0 is the acknowledgement
            return if is_done { Ok(()) } else { Err(error_in(body)) };
        }
    }
}
