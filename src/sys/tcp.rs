//! Listening on every address of the host at once.

use super::{bind, cvt, set_option, socket};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::AsRawFd;

/// Opens `port` on every IPv6 and IPv4 address; on IPv4 alone where the kernel has no IPv6. The listener does not block.
///
/// # Errors
/// What `bind(2)` returns.
pub fn listen_on_all(port: u16) -> io::Result<TcpListener> {
    match listen_v6(port) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)) => {
            let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        }
        other => other,
    }
}

fn listen_v6(port: u16) -> io::Result<TcpListener> {
    let socket = socket(libc::AF_INET6, libc::SOCK_STREAM, 0)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    // Some administrators switch it on for everybody (net.ipv6.bindv6only), and IPv4 clients would find nobody.
    set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 0)?;
    let address = libc::sockaddr_in6 {
        sin6_family: libc::AF_INET6 as libc::sa_family_t,
        sin6_port: port.to_be(),
        sin6_flowinfo: 0,
        sin6_addr: libc::in6_addr { s6_addr: [0; 16] },
        sin6_scope_id: 0,
    };
    bind(&socket, &address)?;
    // SAFETY: no pointers are passed.
    cvt(unsafe { libc::listen(socket.as_raw_fd(), BACKLOG) })?;
    Ok(TcpListener::from(socket))
}

/// Connections that may wait to be accepted; the kernel's own bound (net.core.somaxconn) is 4096.
const BACKLOG: libc::c_int = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn both_kinds_of_address_are_listened_on_and_a_taken_port_is_told() {
        let listener = listen_on_all(0).unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["127.0.0.1", "::1"] {
            TcpStream::connect((host, port)).unwrap();
        }
        assert_eq!(listen_on_all(port).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
