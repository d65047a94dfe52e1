//! Which network interfaces machines are served on, and why the others are not.

use std::fmt;
use std::net::Ipv4Addr;

use crate::sys::netlink::Interface;

/// What the operator asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The `interfaces` key: only these, whatever they are. Empty: every suitable one.
    pub names: Vec<String>,
    /// `netboot_listen_addr`: only the interface that has this address.
    pub address: Option<Ipv4Addr>,
}

/// An interface that is served, and our address there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub interface: Interface,
    pub address: Ipv4Addr,
}

/// The interfaces that are served, and our address on each: `eth0 (192.168.1.5), eth1 (10.0.0.1)`.
pub fn listed<'a>(served: impl Iterator<Item = &'a Served>) -> String {
    let one = |served: &Served| format!("{} ({})", served.interface.name, served.address);
    served.map(one).collect::<Vec<_>>().join(", ")
}

/// Why an interface is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unsuitable {
    #[error("loopback")]
    Loopback,
    #[error("not named in `interfaces`")]
    NotNamed,
    #[error("does not have the address {0} of `netboot_listen_addr`")]
    OtherAddress(Ipv4Addr),
    #[error("not Ethernet")]
    NotEthernet,
    #[error("a network of containers")]
    Containers,
    #[error("a port of {0}")]
    PortOf(String),
    #[error("down")]
    Down,
    #[error("no link (cable or peer missing)")]
    NoCarrier,
    #[error("no IPv4 address")]
    NoAddress,
    #[error("no such interface")]
    Missing,
}

/// All interfaces, divided.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    pub served: Vec<Served>,
    /// By name.
    pub skipped: Vec<(String, Unsuitable)>,
}

impl Choice {
    /// Divides the interfaces of this host.
    #[must_use]
    pub fn of(all: &[Interface], selection: &Selection) -> Self {
        let mut choice = Self::default();
        for interface in all {
            match suits(interface, all, selection) {
                Ok(address) => choice.served.push(Served { interface: interface.clone(), address }),
                Err(reason) => choice.skipped.push((interface.name.clone(), reason)),
            }
        }
        for name in &selection.names {
            if !all.iter().any(|interface| interface.name == *name) {
                choice.skipped.push((name.clone(), Unsuitable::Missing));
            }
        }
        choice
    }
}

/// One line: each interface that is not served and why, without those that never could be.
impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for (name, reason) in &self.skipped {
            write!(f, "{separator}{name}: {reason}")?;
            separator = "; ";
        }
        Ok(())
    }
}

/// Our address on a suitable interface.
fn suits(interface: &Interface, all: &[Interface], selection: &Selection) -> Result<Ipv4Addr, Unsuitable> {
    let named = selection.names.contains(&interface.name);
    if !named && !selection.names.is_empty() {
        return Err(Unsuitable::NotNamed);
    }
    if interface.loopback {
        return Err(Unsuitable::Loopback);
    }
    if interface.mac.is_none() {
        return Err(Unsuitable::NotEthernet);
    }
    let pinned = selection.address.filter(|pinned| interface.addresses.iter().any(|address| address.ip == *pinned));
    if let Some(wanted) = selection.address
        && pinned.is_none()
    {
        return Err(Unsuitable::OtherAddress(wanted));
    }
    if !named && pinned.is_none() {
        suits_by_itself(interface, all)?;
    }
    if !interface.up {
        return Err(Unsuitable::Down);
    }
    if !interface.carrier {
        return Err(Unsuitable::NoCarrier);
    }
    pinned.or_else(|| primary_address(interface)).ok_or(Unsuitable::NoAddress)
}

/// What keeps away only from interfaces that nobody has named.
fn suits_by_itself(interface: &Interface, all: &[Interface]) -> Result<(), Unsuitable> {
    if is_container_network(&interface.name) {
        return Err(Unsuitable::Containers);
    }
    let master = interface.master.and_then(|index| all.iter().find(|other| other.index == index));
    match master {
        // Frames of a port go to its bridge or bond, which is served itself.
        Some(master) if !matches!(master.kind.as_deref(), Some("vrf")) => Err(Unsuitable::PortOf(master.name.clone())),
        _ => Ok(()),
    }
}

/// Names that Docker, Podman, CNI plug-ins and LXC give their bridges and pairs: no machine boots there, and answering would only
/// put noise into the log. `virbr*` is left in: virtual machines do boot from it.
fn is_container_network(name: &str) -> bool {
    const PREFIXES: [&str; 8] = ["docker", "veth", "podman", "cni", "flannel", "cali", "lxcbr", "lxdbr"];
    let docker_bridge = |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || name.strip_prefix("br-").is_some_and(docker_bridge)
}

/// The first address that other subnets could reach; a link-local one (169.254/16) if there is no other.
fn primary_address(interface: &Interface) -> Option<Ipv4Addr> {
    let addresses = || interface.addresses.iter().map(|address| address.ip);
    addresses().find(|ip| !ip.is_link_local() && !ip.is_loopback()).or_else(|| addresses().next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::Address;
    use crate::units::MacAddr;

    fn interface(index: u32, name: &str, ips: &[[u8; 4]]) -> Interface {
        let addresses = ips.iter().map(|&ip| Address { ip: ip.into(), prefix_length: 24 }).collect();
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
        Interface { index, name: name.to_owned(), mac, up: true, carrier: true, addresses, ..Interface::default() }
    }

    fn host() -> Vec<Interface> {
        let lo = Interface { loopback: true, mac: None, ..interface(1, "lo", &[[127, 0, 0, 1]]) };
        let port = Interface { master: Some(5), ..interface(3, "eth1", &[]) };
        let bridge = Interface { kind: Some("bridge".into()), ..interface(5, "br0", &[[10, 0, 5, 1]]) };
        let unplugged = Interface { carrier: false, ..interface(6, "virbr0", &[[192, 168, 122, 1]]) };
        let down = Interface { up: false, ..interface(7, "eth2", &[]) };
        let tunnel = Interface { mac: None, ..interface(10, "wg0", &[[10, 9, 0, 1]]) };
        vec![
            lo,
            interface(2, "eth0", &[[169, 254, 3, 4], [10, 0, 0, 2], [10, 0, 0, 3]]),
            port,
            interface(4, "docker0", &[[172, 17, 0, 1]]),
            bridge,
            unplugged,
            down,
            interface(8, "br-0123456789ab", &[[172, 18, 0, 1]]),
            interface(9, "eth3", &[]),
            tunnel,
        ]
    }

    fn served(selection: &Selection) -> Vec<(String, String)> {
        let choice = Choice::of(&host(), selection);
        choice.served.into_iter().map(|served| (served.interface.name, served.address.to_string())).collect()
    }

    #[test]
    fn every_suitable_interface_and_a_reason_for_each_other() {
        let choice = Choice::of(&host(), &Selection::default());
        assert_eq!(
            choice.to_string(),
            "lo: loopback; eth1: a port of br0; docker0: a network of containers; virbr0: no link (cable or peer missing); \
             eth2: down; br-0123456789ab: a network of containers; eth3: no IPv4 address; wg0: not Ethernet"
        );
        assert_eq!(
            served(&Selection::default()),
            [("eth0".into(), "10.0.0.2".into()), ("br0".into(), "10.0.5.1".into())]
        );
    }

    #[test]
    fn a_named_interface_is_served_whatever_it_is() {
        let selection = Selection { names: vec!["docker0".into(), "eth9".into()], address: None };
        assert_eq!(served(&selection), [("docker0".into(), "172.17.0.1".into())]);
        let skipped = Choice::of(&host(), &selection).skipped;
        assert!(skipped.contains(&("eth9".into(), Unsuitable::Missing)), "{skipped:?}");
        assert!(skipped.contains(&("eth0".into(), Unsuitable::NotNamed)), "{skipped:?}");
    }

    #[test]
    fn a_listen_address_pins_interface_and_address() {
        let pin = |ip: [u8; 4]| Selection { names: Vec::new(), address: Some(ip.into()) };
        assert_eq!(served(&pin([10, 0, 0, 3])), [("eth0".into(), "10.0.0.3".into())]);
        assert_eq!(served(&pin([172, 17, 0, 1])), [("docker0".into(), "172.17.0.1".into())]);
        assert_eq!(served(&pin([10, 1, 1, 1])), []);
    }
}
