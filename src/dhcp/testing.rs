//! Scripted network-boot clients and a server's policy, for the tests of this module.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::arch::Loader;
use super::decide::{Arrival, BootFiles, Machines, Policy, Port, Reason};
use super::options::{self, message};
use super::packet::{MAGIC_COOKIE, Packet};
use crate::units::{Arch, MacAddr};

pub const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x0a]);
pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const GUID: [u8; 17] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16];

/// Features of an iPXE that can do all we need on a BIOS, on UEFI, and of VirtualBox' (no HTTP, no bzImage).
pub const IPXE_BIOS: &[u8] = &[0x13, 1, 1, 0x18, 1, 1];
pub const IPXE_UEFI: &[u8] = &[0x13, 1, 1, 0x24, 1, 1];
pub const IPXE_POOR: &[u8] = &[0x11, 1, 1, 0x15, 1, 1];

/// A client's message, written field by field.
#[derive(Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A DISCOVER of a machine that says this architecture in option 93.
    pub fn discover(arch: u16) -> Self {
        let class = if matches!(arch, 15..=20) { "HTTPClient" } else { "PXEClient" };
        Self::bare(message::DISCOVER)
            .with(options::CLIENT_ARCH, &arch.to_be_bytes())
            .with(options::VENDOR_CLASS, format!("{class}:Arch:{arch:05}:UNDI:003000").as_bytes())
            .with(options::CLIENT_GUID, &GUID)
    }

    /// A message with nothing but its type.
    pub fn bare(kind: u8) -> Self {
        let mut bytes = vec![1, 1, 6, 0, 0xca, 0xfe, 0, 1];
        bytes.resize(28, 0);
        bytes.extend(MAC.0);
        bytes.resize(236, 0);
        bytes.extend(MAGIC_COOKIE);
        Self { bytes }.with(options::MESSAGE_TYPE, &[kind])
    }

    pub fn with(mut self, code: u8, value: &[u8]) -> Self {
        for part in value.chunks(255) {
            self.bytes.extend([code, part.len() as u8]);
            self.bytes.extend(part);
        }
        self
    }

    /// Writes into the fixed part.
    pub fn patch(mut self, at: usize, bytes: &[u8]) -> Self {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub fn xid(self, xid: u32) -> Self {
        self.patch(4, &xid.to_be_bytes())
    }

    pub fn kind(self, kind: u8) -> Self {
        self.patch(242, &[kind])
    }

    pub fn ciaddr(self, ip: [u8; 4]) -> Self {
        self.patch(12, &ip)
    }

    pub fn giaddr(self, ip: [u8; 4]) -> Self {
        self.patch(24, &ip)
    }

    pub fn mac(self, mac: [u8; 6]) -> Self {
        self.patch(28, &mac)
    }

    pub fn ipxe(self, features: &[u8]) -> Self {
        self.with(options::USER_CLASS, b"iPXE").with(options::IPXE, features)
    }

    pub fn bytes(mut self) -> Vec<u8> {
        self.bytes.push(options::END);
        self.bytes
    }
}

pub const ON_67: Arrival = Arrival {
    port: Port::Dhcp,
    interface: 2,
    server: SERVER,
    source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
    link_source: Some(MAC),
    unicast: false,
};

pub const ON_4011: Arrival = Arrival {
    port: Port::Pxe,
    source: SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 165), 4011),
    link_source: None,
    unicast: true,
    ..ON_67
};

/// Serves an image of this architecture to everybody whose MAC address does not end in 0xdd or 0xee.
pub fn policy(image: Arch) -> Policy {
    Policy { image, machines: Box::new(NotDdNotEe), files: Box::new(TestFiles) }
}

#[derive(Debug)]
struct NotDdNotEe;

impl Machines for NotDdNotEe {
    fn admit(&self, mac: MacAddr) -> Result<(), Reason> {
        match mac.0[5] {
            0xdd => Err(Reason::Denied),
            0xee => Err(Reason::NotAllowed),
            _ => Ok(()),
        }
    }
}

#[derive(Debug)]
struct TestFiles;

impl BootFiles for TestFiles {
    fn tftp_name(&self, _mac: MacAddr, loader: Loader) -> String {
        format!("T/{}", loader.file_name())
    }

    fn loader_url(&self, server: Ipv4Addr, _mac: MacAddr, loader: Loader) -> String {
        format!("http://{server}:8090/T/{}", loader.file_name())
    }

    fn script_url(&self, server: Ipv4Addr, _mac: MacAddr) -> String {
        format!("http://{server}:8090/T/boot.ipxe")
    }
}

/// An option of an answer.
pub fn option(bytes: &[u8], code: u8) -> Option<Vec<u8>> {
    Packet::parse(bytes).expect("our own answer").option(code).map(|value| value.into_owned())
}
