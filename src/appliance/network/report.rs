//! What the network looks like, in words for a person.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::sys::netlink::Address;
use crate::units::MacAddr;

/// The network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The Ethernet interfaces, in the kernel's order.
    pub interfaces: Vec<InterfaceReport>,
    /// Of the interface that is used: what resolves names.
    pub dns: Vec<Ipv4Addr>,
    pub hostname: String,
    /// Such as `set by 192.168.1.1, 3 s ago` or `not set yet: 192.168.1.1 does not answer`.
    pub clock: String,
    /// What is wrong and what to do about it, one sentence each; empty when all is well.
    pub notices: Vec<String>,
}

impl Report {
    /// Whether a time server has told the time.
    #[must_use]
    pub fn is_clock_set(&self) -> bool {
        self.clock.starts_with("set by")
    }

    /// The interface that the appliance uses, once it has an address.
    #[must_use]
    pub fn used(&self) -> Option<&InterfaceReport> {
        self.interfaces.iter().find(|interface| interface.is_used && !interface.addresses.is_empty())
    }
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InterfaceReport {
    pub name: String,
    pub mac: MacAddr,
    /// Whether there is a cable with somebody at its other end.
    pub has_link: bool,
    /// Whether the appliance's address is, or is to be, on it.
    pub is_used: bool,
    pub addresses: Vec<Address>,
    /// Such as `asking for an address, nobody answers yet (12 s)`.
    pub state: String,
    pub lease: Option<LeaseReport>,
}

/// What a DHCP server has lent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseReport {
    pub server: Ipv4Addr,
    pub gateway: Option<Ipv4Addr>,
    /// `None`: for ever.
    pub remaining: Option<Duration>,
}
