//! Finds out which process holds a port, so that "address in use" names somebody.

use std::fs;
use std::path::Path;

/// The transport whose port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A process bound to `port`, as `dnsmasq (pid 812)`.
///
/// `None` when it runs as another user or in another container, and we may not look.
#[must_use]
pub fn port_holder(transport: Transport, port: u16) -> Option<String> {
    let tables = match transport {
        Transport::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Transport::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let sockets: Vec<String> = tables
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| inodes_of(&table, port))
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    if sockets.is_empty() {
        return None;
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        if has_open(&process.path(), &sockets) {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim_end()));
        }
    }
    None
}

fn has_open(process: &Path, sockets: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
        .any(|target| target.to_str().is_some_and(|target| sockets.iter().any(|socket| socket == target)))
}

/// The inodes of sockets bound to `port` in a table such as `/proc/net/udp` (proc(5)).
fn inodes_of(table: &str, port: u16) -> Vec<u64> {
    let bound = |line: &&str| {
        let local = line.split_whitespace().nth(1);
        let hex = local.and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
        hex.and_then(|hex| u16::from_str_radix(hex, 16).ok()) == Some(port)
    };
    let listening_or_udp = |line: &&str| matches!(line.split_whitespace().nth(3), Some("0A" | "07"));
    let inode = |line: &str| line.split_whitespace().nth(9)?.parse().ok();
    table.lines().skip(1).filter(bound).filter(listening_or_udp).filter_map(inode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_as_the_kernel_writes_it() {
        let table = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref\n  \
             441: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 19046 2 0 0\n  \
             442: 0100007F:0FAB 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 19047 2 0 0\n";
        assert_eq!(inodes_of(table, 67), [19046]);
        assert_eq!(inodes_of(table, 4011), [19047]);
        assert_eq!(inodes_of(table, 69), [0; 0]);
        assert_eq!(inodes_of("nonsense\n a b c\n", 69), [0; 0]);
    }

    #[test]
    fn our_own_process_is_found() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let holder = port_holder(Transport::Tcp, socket.local_addr().unwrap().port()).unwrap();
        assert!(holder.ends_with(&format!("(pid {})", std::process::id())), "{holder}");
    }
}
