//! What a machine finds by TFTP: its loader and its script, even when it asks by a name that is not its own.
//!
//! iPXE 1.21.1 under UEFI asks for `autoexec.ipxe` at the root, whatever directory it came from itself. So it is noted which address
//! belongs to which machine: from the request for the loader, which came from the same address a second earlier, and from requests on
//! port 4011. Should both be missing, the root name leads to a script that asks again by MAC address: answered for machines that
//! were offered a boot a moment ago, so that guessing an address leads no further than forging a DISCOVER with it would.

use super::names::file;
use super::recent::Recent;
use super::script::{self, Network};
use super::served::Served;
use crate::limits;
use crate::units::MacAddr;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// The directory that TFTP serves; owned by the `boot` thread.
#[derive(Debug)]
pub struct BootDir {
    served: Arc<Served>,
    offered: Recent<MacAddr, ()>,
    addresses: Recent<Ipv4Addr, MacAddr>,
}

/// What a name of a TFTP request stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked<'a> {
    Script(MacAddr, Network),
    /// A script that asks again by MAC address.
    FindByMac,
    Loader(&'a str),
}

impl BootDir {
    #[must_use]
    pub fn new(served: Arc<Served>) -> Self {
        let age = limits::MACHINE_ADDRESS_AGE_MAX;
        Self {
            served,
            offered: Recent::new(limits::MACHINES_MAX, age),
            addresses: Recent::new(limits::MACHINES_MAX, age),
        }
    }

    /// Notes that `mac` was sent an OFFER.
    pub fn offered(&mut self, now: Duration, mac: MacAddr) {
        self.offered.note(now, mac, ());
    }

    /// Notes that a request of `mac` came from `address` (a DHCPREQUEST on port 4011).
    pub fn seen_at(&mut self, now: Duration, address: Ipv4Addr, mac: MacAddr) {
        if !address.is_unspecified() {
            self.addresses.note(now, address, mac);
        }
    }

    /// The file that `from` asks of `server` (our address at which the request came in) under `name`, which has no leading slash.
    pub fn open(&mut self, now: Duration, from: Ipv4Addr, server: Ipv4Addr, name: &str) -> Option<Arc<[u8]>> {
        if let Some(name) = self.served.names.parse(name) {
            self.seen_at(now, from, name.mac);
        }
        match self.asked(now, from, name)? {
            Asked::Script(mac, network) => {
                let server = SocketAddrV4::new(server, self.served.names.http_port());
                Some(self.served.script(server, mac, network)?.bytes)
            }
            Asked::FindByMac => Some(script::find_by_mac(server).into_bytes().into()),
            Asked::Loader(file) => Some(self.served.loader(file)?.1.bytes.clone()),
        }
    }

    /// The machine whose boot script `from` gets under `name`; `None` for every other file.
    #[must_use]
    pub fn script_of(&self, now: Duration, from: Ipv4Addr, name: &str) -> Option<MacAddr> {
        match self.asked(now, from, name)? {
            Asked::Script(mac, _) => Some(mac),
            Asked::FindByMac | Asked::Loader(_) => None,
        }
    }

    fn asked<'a>(&self, now: Duration, from: Ipv4Addr, name: &'a str) -> Option<Asked<'a>> {
        if let Some(name) = self.served.names.parse(name) {
            return Some(match name.file {
                file::AUTOEXEC => Asked::Script(name.mac, Network::Down),
                file::SCRIPT => Asked::Script(name.mac, Network::Up),
                other => Asked::Loader(other),
            });
        }
        if name == file::AUTOEXEC {
            let mac = self.addresses.find(now, &from);
            return Some(mac.map_or(Asked::FindByMac, |mac| Asked::Script(*mac, Network::Down)));
        }
        let rest = name.strip_prefix(script::BY_MAC)?.strip_prefix('/')?;
        let mac = rest.strip_suffix(file::AUTOEXEC)?.strip_suffix('/')?.parse().ok()?;
        self.offered.find(now, &mac)?;
        // The script that led here has brought the network up.
        Some(Asked::Script(mac, Network::Up))
    }
}

#[cfg(test)]
mod tests {
    use super::super::served::tests::{MAC, served};
    use super::*;

    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 9);
    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn dir() -> BootDir {
        BootDir::new(Arc::new(served(Some(b"#cloud-config"))))
    }

    /// The machine whose script it is, if it is one, and the text of what is found.
    fn open(dir: &mut BootDir, seconds: u64, name: &str) -> Option<(Option<MacAddr>, String)> {
        let found = dir.open(at(seconds), CLIENT, SERVER, name)?;
        Some((dir.script_of(at(seconds), CLIENT, name), String::from_utf8(found.to_vec()).unwrap()))
    }

    #[test]
    fn a_loader_and_the_script_it_asks_for_at_the_root() {
        let mut dir = dir();
        let loader = dir.served.names.path(MAC, "snponly.efi");
        assert_eq!(open(&mut dir, 0, &loader), Some((None, "UEFI".into())));
        let (mac, script) = open(&mut dir, 1, "autoexec.ipxe").unwrap();
        assert_eq!(mac, Some(MAC));
        assert!(script.contains("http://10.0.0.1:8090/525400123456-"), "{script}");
        assert!(!script.contains("\ngoto fetch\n"), "the network is not up yet:\n{script}");
        let own = dir.served.names.path(MAC, "autoexec.ipxe");
        assert_eq!(open(&mut dir, 1, &own).unwrap().1, script);
    }

    #[test]
    fn the_request_on_port_4011_tells_the_address_too() {
        let mut dir = dir();
        dir.seen_at(at(0), CLIENT, MAC);
        dir.seen_at(at(0), Ipv4Addr::UNSPECIFIED, MacAddr([1; 6]));
        assert_eq!(open(&mut dir, 1, "autoexec.ipxe").unwrap().0, Some(MAC));
    }

    #[test]
    fn a_stranger_is_told_to_ask_by_mac_and_answered_when_it_was_offered_a_boot() {
        let mut dir = dir();
        let (mac, script) = open(&mut dir, 0, "autoexec.ipxe").unwrap();
        assert_eq!(mac, None);
        assert!(script.contains("tftp://10.0.0.1/by-mac/${net0/mac:hexhyp}/autoexec.ipxe"), "{script}");
        let by_mac = "by-mac/52-54-00-12-34-56/autoexec.ipxe";
        assert_eq!(open(&mut dir, 0, by_mac), None);
        dir.offered(at(1), MAC);
        assert_eq!(open(&mut dir, 2, by_mac).unwrap().0, Some(MAC));
        assert_eq!(open(&mut dir, 2 + limits::MACHINE_ADDRESS_AGE_MAX.as_secs(), by_mac), None);
        assert!(open(&mut dir, 2, "by-mac/52-54-00-12-34-57/autoexec.ipxe").is_none());
    }

    #[test]
    fn an_address_is_not_a_machines_for_ever() {
        let mut dir = dir();
        dir.seen_at(at(0), CLIENT, MAC);
        let later = limits::MACHINE_ADDRESS_AGE_MAX.as_secs() + 1;
        assert_eq!(open(&mut dir, later, "autoexec.ipxe").unwrap().0, None);
    }

    #[test]
    fn big_files_and_secrets_do_not_go_by_tftp() {
        let mut dir = dir();
        for file in ["kernel", "initrd", "rootfs.squashfs", "config.yaml", "", "../x"] {
            let name = dir.served.names.path(MAC, file);
            assert_eq!(open(&mut dir, 0, &name), None, "{file}");
        }
        for name in ["", "boot.ipxe", "by-mac", "by-mac/autoexec.ipxe", "by-mac//autoexec.ipxe", "snponly.efi"] {
            assert_eq!(open(&mut dir, 0, name), None, "{name}");
        }
    }
}
