//! UDP sockets that tell to which of our addresses a datagram came (ip(7), `IP_PKTINFO`).

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void};

use super::packet_socket::{DROP_ALL, attach_filter};
use super::{bind, cvt_len, from_sockaddr_in, set_option, sockaddr_in, socket, socklen};

/// Where a datagram came from and to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub length: usize,
    pub source: SocketAddrV4,
    /// Our address on the way back: the one it was sent to, or for a broadcast the interface's own.
    pub local: Ipv4Addr,
    /// The address in the packet, a broadcast one too.
    pub destination: Ipv4Addr,
    pub interface: u32,
}

/// A bound UDP socket that answers from the address and interface it was asked on.
#[derive(Debug)]
pub struct PktInfoSocket {
    fd: OwnedFd,
}

/// Room for one `in_pktinfo` control message, aligned as the kernel's `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// `CMSG_SPACE(sizeof(struct in_pktinfo))`, rounded up.
const CONTROL_LEN: usize = 64;

impl PktInfoSocket {
    /// Binds without `SO_REUSEADDR`, so that a port in use is an error.
    ///
    /// # Errors
    /// `EADDRINUSE`, `EADDRNOTAVAIL`, `EACCES` for a port below 1024 without the capability.
    pub fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
        set_option(&fd, libc::IPPROTO_IP, libc::IP_PKTINFO, 1 as c_int)?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_BROADCAST, 1 as c_int)?;
        bind(&fd, &sockaddr_in(address))?;
        Ok(Self { fd })
    }

    /// Receives one datagram. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` when there is none.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = Control([0; CONTROL_LEN]);
        let mut source = sockaddr_in(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let mut vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        let mut header = message_header(&mut source, &mut vector, &mut control);
        // SAFETY: `header` describes buffers that live until the call returns.
        let received = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
        let length = cvt_len(received)?;
        let info = packet_info(&header).ok_or_else(|| io::Error::from_raw_os_error(libc::EPROTO))?;
        Ok(Received {
            length,
            source: from_sockaddr_in(&source),
            local: u32::from_be(info.ipi_spec_dst.s_addr).into(),
            destination: u32::from_be(info.ipi_addr.s_addr).into(),
            interface: u32::try_from(info.ipi_ifindex).unwrap_or(0),
        })
    }

    /// Sends one datagram from our address `local` through `interface`. Never waits.
    ///
    /// # Errors
    /// What sendmsg(2) says: `ENETUNREACH`, `WouldBlock`, `ECONNREFUSED` of an earlier datagram, …
    pub fn send(&self, bytes: &[u8], to: SocketAddrV4, local: Ipv4Addr, interface: u32) -> io::Result<()> {
        let mut control = Control([0; CONTROL_LEN]);
        let mut destination = sockaddr_in(to);
        let mut vector = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
        let mut header = message_header(&mut destination, &mut vector, &mut control);
        let info = libc::in_pktinfo {
            ipi_ifindex: c_int::try_from(interface).unwrap_or(0),
            ipi_spec_dst: libc::in_addr { s_addr: u32::from(local).to_be() },
            ipi_addr: libc::in_addr { s_addr: 0 },
        };
        put_packet_info(&mut header, info);
        // SAFETY: `header` describes buffers that live until the call returns; the kernel only reads them.
        cvt_len(unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) }).map(drop)
    }
}

impl AsRawFd for PktInfoSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn message_header(address: &mut libc::sockaddr_in, vector: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr (musl's has private padding, so it cannot be written out).
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut *address).cast::<c_void>();
    header.msg_namelen = socklen::<libc::sockaddr_in>();
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut *control).cast::<c_void>();
    header.msg_controllen = CONTROL_LEN as _; // size_t with glibc, u32 with musl
    header
}

fn packet_info(header: &libc::msghdr) -> Option<libc::in_pktinfo> {
    // SAFETY: `header` and its control buffer were filled in by recvmsg.
    let control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    if control.cmsg_level != libc::IPPROTO_IP || control.cmsg_type != libc::IP_PKTINFO {
        return None;
    }
    // SAFETY: an IP_PKTINFO message holds one in_pktinfo; the read makes no claim on its alignment.
    Some(unsafe { libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().read_unaligned() })
}

fn put_packet_info(header: &mut libc::msghdr, info: libc::in_pktinfo) {
    let length = socklen::<libc::in_pktinfo>();
    // SAFETY: pure arithmetic on a length.
    let (space, filled) = unsafe { (libc::CMSG_SPACE(length), libc::CMSG_LEN(length)) };
    // SAFETY: the control buffer is CONTROL_LEN (64) zeroed, aligned bytes, more than CMSG_SPACE(12), so the first header
    // exists and its data fits behind it.
    unsafe {
        let control = libc::CMSG_FIRSTHDR(header);
        (*control).cmsg_level = libc::IPPROTO_IP;
        (*control).cmsg_type = libc::IP_PKTINFO;
        (*control).cmsg_len = filled as _;
        libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().write_unaligned(info);
    }
    header.msg_controllen = space as _;
}

/// Holds a UDP port without ever receiving anything.
///
/// While nobody is bound to a port, the kernel answers unicast datagrams to it with ICMP "port unreachable", also when a packet
/// socket has read them; some relays then give up on us.
#[derive(Debug)]
pub struct PortHolder {
    _fd: OwnedFd,
}

impl PortHolder {
    /// Takes the port if it is free.
    ///
    /// A DHCP server that starts on this host later must not be kept out, nor lose its unicast renewals to us: after our own
    /// bind the socket allows sharing, and the kernel prefers the socket bound last.
    ///
    /// # Errors
    /// `EADDRINUSE` when another program holds it, which serves the purpose as well.
    pub fn bind(address: SocketAddrV4) -> io::Result<Self> {
        let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
        attach_filter(&fd, &DROP_ALL)?;
        bind(&fd, &sockaddr_in(address))?;
        set_option(&fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1 as c_int)?;
        Ok(Self { _fd: fd })
    }
}
