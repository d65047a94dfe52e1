//! UDP sends of many datagrams at once, and what came back as ICMP errors.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use libc::{c_int, c_void};

use super::{bind, cvt, cvt_len, from_sockaddr_in, set_option, sockaddr_in, socket, socklen};

/// The most datagrams of one call: what `UDP_SEGMENT` took first (64 since Linux 4.18, 128 since 6.9).
pub const BATCH_MAX: usize = 64;

/// `IPPROTO_UDP`'s option and control message for segmentation by the kernel (udp(7)).
const UDP_SEGMENT: c_int = 103;

/// A socket on a free port of `local` that reports ICMP errors of all its peers and lets routers fragment.
///
/// Path MTU discovery is off because a boot ROM behind a small-MTU hop would otherwise never get its first full block.
///
/// # Errors
/// `EADDRNOTAVAIL` when the address is gone, `EMFILE` and its kin.
pub fn open(local: Ipv4Addr) -> io::Result<UdpSocket> {
    let fd = socket(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    set_option(&fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)?;
    set_option(&fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1 as c_int)?;
    bind(&fd, &sockaddr_in(SocketAddrV4::new(local, 0)))?;
    Ok(UdpSocket::from(fd))
}

/// Asks for a receive buffer of `bytes`; without `CAP_NET_ADMIN` the kernel gives what `net.core.rmem_max` allows.
///
/// # Errors
/// None are known for an open socket.
pub fn set_receive_buffer(socket: &impl AsRawFd, bytes: c_int) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, bytes)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, bytes))
}

/// Sends `bytes` cut into datagrams of `datagram_len` bytes, the last one perhaps shorter. Never waits.
///
/// One buffer goes through the stack as one (`UDP_SEGMENT`) where path and device allow it, else as a batch of messages.
///
/// # Errors
/// What sendmsg(2) says: `WouldBlock` (some datagrams may have left), `ECONNREFUSED` of an earlier datagram, …
pub fn send_segments(socket: &impl AsRawFd, bytes: &[u8], datagram_len: usize, to: SocketAddrV4) -> io::Result<()> {
    if bytes.len() > datagram_len {
        match send_segmented(socket, bytes, datagram_len, to) {
            // The segment is larger than the path's MTU, or the device cannot checksum: both only mean "not this way".
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE | libc::EIO)) => {}
            done => return done,
        }
    }
    send_batch(socket, bytes, datagram_len, to)
}

fn send_segmented(socket: &impl AsRawFd, bytes: &[u8], datagram_len: usize, to: SocketAddrV4) -> io::Result<()> {
    #[repr(C, align(8))]
    struct Control([u8; 32]);
    let segment = u16::try_from(datagram_len).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut control = Control([0; 32]);
    let mut address = sockaddr_in(to);
    let mut vector = iovec(bytes);
    let mut header = message_header(&mut address, &mut vector);
    // SAFETY: pure arithmetic on a length.
    let (space, filled) = unsafe { (libc::CMSG_SPACE(2), libc::CMSG_LEN(2)) };
    header.msg_control = control.0.as_mut_ptr().cast::<c_void>();
    header.msg_controllen = space as _; // size_t with glibc, u32 with musl; CMSG_SPACE(2) is 24 of the 32 bytes
    // SAFETY: the control buffer is aligned and has room for one header and its two bytes, so the first one exists.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::IPPROTO_UDP;
        (*message).cmsg_type = UDP_SEGMENT;
        (*message).cmsg_len = filled as _;
        libc::CMSG_DATA(message).cast::<u16>().write_unaligned(segment);
    }
    // SAFETY: `header` describes buffers that live until the call returns; the kernel only reads them.
    cvt_len(unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const header, libc::MSG_DONTWAIT) }).map(drop)
}

fn send_batch(socket: &impl AsRawFd, bytes: &[u8], datagram_len: usize, to: SocketAddrV4) -> io::Result<()> {
    let mut address = sockaddr_in(to);
    let mut vectors: Vec<libc::iovec> = bytes.chunks(datagram_len.max(1)).take(BATCH_MAX).map(iovec).collect();
    let mut messages: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| libc::mmsghdr { msg_hdr: message_header(&mut address, vector), msg_len: 0 })
        .collect();
    let mut rest = &mut messages[..];
    while !rest.is_empty() {
        let count = libc::c_uint::try_from(rest.len()).unwrap_or(libc::c_uint::MAX);
        // SAFETY: `rest` is `count` headers whose buffers live until the call returns.
        let sent =
            cvt(unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), count, libc::MSG_DONTWAIT as _) })?;
        rest = &mut rest[usize::try_from(sent).unwrap_or(0).max(1)..];
    }
    Ok(())
}

/// Takes the reports of failed datagrams (ip(7), `IP_RECVERR`) and says whether one to `peer` met a closed port.
pub fn take_refusals(socket: &impl AsRawFd, peer: SocketAddrV4) -> bool {
    let mut refused = false;
    loop {
        let mut address = sockaddr_in(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0));
        let mut nothing = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        let mut control = [0_u64; 64]; // 512 bytes, aligned for a cmsghdr
        let mut header = message_header(&mut address, &mut nothing);
        header.msg_control = control.as_mut_ptr().cast::<c_void>();
        header.msg_controllen = mem::size_of_val(&control) as _;
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: `header` describes buffers that live until the call returns.
        if unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut header, flags) } < 0 {
            return refused;
        }
        // SAFETY: `header` and its control buffer were filled in by recvmsg.
        let Some(message) = (unsafe { libc::CMSG_FIRSTHDR(&raw const header).as_ref() }) else { continue };
        if message.cmsg_level == libc::IPPROTO_IP && message.cmsg_type == libc::IP_RECVERR {
            // SAFETY: an IP_RECVERR message holds one sock_extended_err; the read makes no claim on its alignment.
            let report = unsafe { libc::CMSG_DATA(message).cast::<libc::sock_extended_err>().read_unaligned() };
            let is_refusal = report.ee_errno == libc::ECONNREFUSED.unsigned_abs();
            refused |= is_refusal && from_sockaddr_in(&address) == peer;
        }
    }
}

/// The MTU of an interface in bytes.
///
/// # Errors
/// `ENODEV`/`ENXIO` when there is no such interface.
pub fn interface_mtu(socket: &impl AsRawFd, index: u32) -> io::Result<u32> {
    // SAFETY: all-zero bytes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // SAFETY: ifr_name has IF_NAMESIZE bytes, as the call asks.
    if unsafe { libc::if_indextoname(index, request.ifr_name.as_mut_ptr()) }.is_null() {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `request` is a whole ifreq and lives until the call returns.
    cvt(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFMTU as _, &raw mut request) })?;
    // SAFETY: SIOCGIFMTU has filled in this member of the union.
    let mtu = unsafe { request.ifr_ifru.ifru_mtu };
    u32::try_from(mtu).map_err(|_| io::Error::from_raw_os_error(libc::ERANGE))
}

fn iovec(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

fn message_header(address: &mut libc::sockaddr_in, vector: &mut libc::iovec) -> libc::msghdr {
    // SAFETY: all-zero bytes are a valid msghdr (musl's has private padding, so it cannot be written out).
    let mut header: libc::msghdr = unsafe { mem::zeroed() };
    header.msg_name = (&raw mut *address).cast::<c_void>();
    header.msg_namelen = socklen::<libc::sockaddr_in>();
    header.msg_iov = vector;
    header.msg_iovlen = 1;
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(socket: &UdpSocket) -> SocketAddrV4 {
        match socket.local_addr().unwrap() {
            std::net::SocketAddr::V4(address) => address,
            std::net::SocketAddr::V6(_) => unreachable!("bound to IPv4"),
        }
    }

    #[test]
    fn one_buffer_becomes_datagrams_either_way() {
        let sender = open(Ipv4Addr::LOCALHOST).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bytes: Vec<u8> = (0..2500).map(|n| u8::try_from(n % 251).unwrap()).collect();
        type Send = fn(&UdpSocket, &[u8], usize, SocketAddrV4) -> io::Result<()>;
        let ways: [Send; 2] = [|s, b, n, to| send_segmented(s, b, n, to), |s, b, n, to| send_batch(s, b, n, to)];
        for send in ways {
            send(&sender, &bytes, 1000, address(&receiver)).unwrap();
            let (mut got, mut buffer) = (Vec::new(), [0; 2000]);
            for expected in [1000, 1000, 500] {
                let len = receiver.recv(&mut buffer).unwrap();
                assert_eq!(len, expected);
                got.extend_from_slice(&buffer[..len]);
            }
            assert_eq!(got, bytes);
        }
    }

    #[test]
    fn a_segment_too_large_for_the_kernel_still_goes_out() {
        let sender = open(Ipv4Addr::LOCALHOST).unwrap();
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let bytes = vec![7; 130_000];
        send_segments(&sender, &bytes, 65_000, address(&receiver)).unwrap();
        let mut buffer = vec![0; 65_536];
        assert_eq!([receiver.recv(&mut buffer).unwrap(), receiver.recv(&mut buffer).unwrap()], [65_000, 65_000]);
    }

    #[test]
    fn a_closed_port_is_told_with_its_address() {
        let socket = open(Ipv4Addr::LOCALHOST).unwrap();
        let closed = address(&open(Ipv4Addr::LOCALHOST).unwrap());
        let other = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        socket.send_to(b"x", closed).unwrap();
        assert_eq!(socket.recv(&mut [0]).unwrap_err().raw_os_error(), Some(libc::ECONNREFUSED));
        assert!(take_refusals(&socket, closed));
        assert!(!take_refusals(&socket, closed), "taken");
        socket.send_to(b"x", closed).unwrap();
        assert!(!take_refusals(&socket, other));
    }

    #[test]
    fn the_loopback_has_an_mtu() {
        let socket = open(Ipv4Addr::LOCALHOST).unwrap();
        assert!(interface_mtu(&socket, 1).unwrap() >= 576);
        assert!(interface_mtu(&socket, u32::MAX).is_err());
    }
}
