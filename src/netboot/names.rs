//! The unguessable names under which a machine finds its files.
//!
//! Everything a machine is given lives under a token of its own: its MAC address and a keyed hash of it. The hash is derived
//! again from the MAC whenever a name comes in, so every thread can map a name to its machine without shared state. It keeps
//! casual readers away from the cloud config; a host on the LAN that forges a DISCOVER still learns the token of that MAC.

use crate::dhcp::{BootFiles, Loader};
use crate::units::MacAddr;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The file of a machine that a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name<'a> {
    pub mac: MacAddr,
    /// What follows the token, e.g. `kernel`.
    pub file: &'a str,
}

/// Makes and reads tokens. Cheap to clone.
#[derive(Clone)]
pub struct Names {
    secret: [u8; 32],
    http_port: u16,
}

impl std::fmt::Debug for Names {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Names").field("http_port", &self.http_port).finish_non_exhaustive()
    }
}

impl Names {
    /// `secret` is kept from run to run, so that a machine that is still loading survives a restart of the server.
    #[must_use]
    pub const fn new(secret: [u8; 32], http_port: u16) -> Self {
        Self { secret, http_port }
    }

    /// The directory of a machine: `525400123456-` and 32 hexadecimal digits.
    #[must_use]
    pub fn token(&self, mac: MacAddr) -> String {
        let hash = Sha256::new().chain_update(self.secret).chain_update(mac.0).finalize();
        let mut token = hex(&mac.0);
        token.push('-');
        token.push_str(&hex(&hash[..HASH_BYTES]));
        token
    }

    /// Reads `<token>/<file>`, with or without slashes in front. `None` when the token is not one of ours.
    #[must_use]
    pub fn parse<'a>(&self, path: &'a str) -> Option<Name<'a>> {
        let (token, file) = path.trim_start_matches('/').split_once('/')?;
        let mac: MacAddr = token.get(..MAC_DIGITS)?.parse().ok()?;
        equal_in_constant_time(token.as_bytes(), self.token(mac).as_bytes()).then_some(Name { mac, file })
    }

    /// The name as it may be logged: every token in it gives way to its MAC address, `52:54:00:12:34:56/undionly.kpxe`.
    #[must_use]
    pub fn public_name(&self, path: &str) -> String {
        let public = |part: &str| match self.parse(&format!("{part}/")) {
            Some(name) => name.mac.to_string(),
            None => part.to_owned(),
        };
        path.split('/').map(public).collect::<Vec<_>>().join("/")
    }

    /// `<token>/<file>`: what a machine asks for by TFTP.
    #[must_use]
    pub fn path(&self, mac: MacAddr, file: &str) -> String {
        format!("{}/{file}", self.token(mac))
    }

    /// `http://<server>:<port>/<token>/<file>`.
    #[must_use]
    pub fn url(&self, server: Ipv4Addr, mac: MacAddr, file: &str) -> String {
        self.url_at(SocketAddrV4::new(server, self.http_port), mac, file)
    }

    /// The same for a server whose port is known from a connection.
    #[must_use]
    pub fn url_at(&self, server: SocketAddrV4, mac: MacAddr, file: &str) -> String {
        format!("http://{server}/{}", self.path(mac, file))
    }

    /// The port of the URLs.
    #[must_use]
    pub const fn http_port(&self) -> u16 {
        self.http_port
    }
}

/// What DHCP tells machines.
impl BootFiles for Names {
    fn tftp_name(&self, mac: MacAddr, loader: Loader) -> String {
        self.path(mac, loader.file_name())
    }

    fn loader_url(&self, server: Ipv4Addr, mac: MacAddr, loader: Loader) -> String {
        self.url(server, mac, loader.file_name())
    }

    fn script_url(&self, server: Ipv4Addr, mac: MacAddr) -> String {
        self.url(server, mac, file::SCRIPT)
    }
}

/// The names below a token. Paths, not queries: dracut's livenet takes the URL's last part as the name of the file it saves.
pub mod file {
    pub const SCRIPT: &str = "boot.ipxe";
    /// What a UEFI iPXE asks for by itself before it does any DHCP.
    pub const AUTOEXEC: &str = "autoexec.ipxe";
    pub const KERNEL: &str = "kernel";
    pub const INITRD: &str = "initrd";
    pub const ROOTFS: &str = "rootfs.squashfs";
    pub const CLOUD_CONFIG: &str = "config.yaml";
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares without telling by its duration how many bytes were right.
fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && std::hint::black_box(a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b))) == 0
}

/// Hexadecimal digits of a MAC address in a token.
const MAC_DIGITS: usize = 12;
/// Bytes of the hash in a token: 128 bits, the strength of a random UUID and more, in 32 digits.
const HASH_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    fn names() -> Names {
        Names::new([7; 32], 8090)
    }

    #[test]
    fn a_name_leads_back_to_its_machine() {
        let path = names().path(MAC, file::KERNEL);
        assert_eq!(path.len(), 12 + 1 + 32 + "/kernel".len());
        assert!(path.starts_with("525400123456-"), "{path}");
        for path in [path.clone(), format!("/{path}"), format!("//{path}")] {
            assert_eq!(names().parse(&path), Some(Name { mac: MAC, file: "kernel" }));
        }
        assert_eq!(names().public_name(&path), "52:54:00:12:34:56/kernel");
        let twice = format!("/{path}/../{path}");
        assert_eq!(names().public_name(&twice), "/52:54:00:12:34:56/kernel/../52:54:00:12:34:56/kernel");
    }

    #[test]
    fn a_wrong_token_is_nobodys() {
        let token = names().token(MAC);
        for position in 0..token.len() {
            let mut wrong = token.clone().into_bytes();
            wrong[position] = if wrong[position] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(names().parse(&format!("{wrong}/kernel")), None, "{wrong}");
        }
        for path in ["", "/", "kernel", "525400123456/kernel", "é/kernel", "52:54:00:12:34:56/kernel", &token] {
            assert_eq!(names().parse(path), None, "{path}");
        }
        assert_eq!(names().parse(&format!("{}0/kernel", token)), None);
        assert_eq!(names().parse(&format!("{}/kernel", token.to_uppercase())), None);
        assert_eq!(Names::new([8; 32], 8090).parse(&names().path(MAC, "kernel")), None);
    }

    #[test]
    fn names_fit_the_128_bytes_of_a_dhcp_file_field() {
        let highest = Ipv4Addr::new(255, 255, 255, 255);
        for longest in Loader::ALL.map(|loader| names().loader_url(highest, MAC, loader)) {
            assert!(longest.len() < 128, "{longest}");
        }
        let longest = names().script_url(highest, MAC);
        assert!(longest.len() < 128, "{longest}");
        let longest_of_all = names().url(highest, MAC, file::ROOTFS);
        assert!(longest_of_all.len() <= crate::limits::URL_BYTES_MAX, "{longest_of_all}");
        assert!(longest.starts_with("http://255.255.255.255:8090/525400123456-"));
    }

    #[test]
    fn the_secret_is_never_printed() {
        assert_eq!(format!("{:?}", names()), "Names { http_port: 8090, .. }");
    }
}
