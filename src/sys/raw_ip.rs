//! Sends whole IPv4 packets and lets the kernel route them (raw(7), `IP_HDRINCL`).
//!
//! For unicast answers that must come from port 67 while another program holds that port.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use super::{cvt_len, sockaddr_in, socket, socklen};

/// A socket that only sends.
#[derive(Debug)]
pub struct RawIpSocket {
    fd: OwnedFd,
}

impl RawIpSocket {
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`.
    pub fn open() -> io::Result<Self> {
        Ok(Self { fd: socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)? })
    }

    /// Sends a packet, header included, to where `destination` is. Never waits: the kernel queues it until ARP has answered.
    ///
    /// # Errors
    /// `ENETUNREACH` without a route, `WouldBlock` when the queue is full.
    pub fn send(&self, packet: &[u8], destination: Ipv4Addr) -> io::Result<()> {
        let to = sockaddr_in(SocketAddrV4::new(destination, 0));
        // SAFETY: both pointers come with the length of what they point to.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                libc::MSG_DONTWAIT,
                (&raw const to).cast(),
                socklen::<libc::sockaddr_in>(),
            )
        };
        cvt_len(sent).map(drop)
    }
}
