//! Which process holds a port, for the message that it is taken.

use std::fs;
use std::path::Path;

/// A table of `/proc/net`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// Names the process that listens on `port`, as `nginx (process 4711)`. `None` when there is none or it may not be seen: another
/// user's descriptors are visible to root only.
#[must_use]
pub fn port_holder(transport: Transport, port: u16) -> Option<String> {
    // Of the calling thread's network namespace, which need not be the process's.
    let tables = match transport {
        Transport::Tcp => ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"],
        Transport::Udp => ["/proc/thread-self/net/udp", "/proc/thread-self/net/udp6"],
    };
    let inodes: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| table.lines().filter_map(|line| holder_inode(line, transport, port)).collect::<Vec<_>>())
        .collect();
    let sockets: Vec<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let id = process.file_name().into_string().unwrap_or_default();
        if id.bytes().all(|byte| byte.is_ascii_digit()) && holds_one_of(&process.path(), &sockets) {
            let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (process {id})", name.trim()));
        }
    }
    None
}

/// The inode in a line of a table, when the line is that of a socket bound to `port` (for TCP: one that listens).
fn holder_inode(line: &str, transport: Transport, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let local_port = u16::from_str_radix(fields.get(1)?.rsplit_once(':')?.1, 16).ok()?;
    let bound = transport == Transport::Udp || *fields.get(3)? == TCP_LISTEN;
    (local_port == port && bound).then(|| fields.get(9).map(|inode| (*inode).to_owned()))?
}

fn holds_one_of(process: &Path, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false; // another user's, or gone by now
    };
    descriptors.flatten().any(|descriptor| {
        fs::read_link(descriptor.path())
            .is_ok_and(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str()))
    })
}

const TCP_LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    #[test]
    fn this_process_is_found_by_its_ports() {
        let me = format!("(process {})", std::process::id());
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let found = port_holder(Transport::Tcp, tcp.local_addr().unwrap().port()).unwrap();
        assert!(found.ends_with(&me), "{found}");
        let found = port_holder(Transport::Udp, udp.local_addr().unwrap().port()).unwrap();
        assert!(found.ends_with(&me), "{found}");
    }

    #[test]
    fn a_client_does_not_hold_the_port_it_speaks_to_or_from() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert_eq!(port_holder(Transport::Tcp, client.local_addr().unwrap().port()), None);
    }
}
