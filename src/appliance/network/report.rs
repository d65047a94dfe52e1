//! What the network looks like, in words for a person.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::clock::LastSet;
use crate::dhcp::client::Phase;
use crate::dhcp::lease::Lease;
use crate::sys::netlink::{Address, Interface};
use crate::units::MacAddr;

/// The network at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// The Ethernet interfaces, in the kernel's order.
    pub interfaces: Vec<InterfaceReport>,
    /// Of the interface that is used: what resolves names.
    pub dns: Vec<Ipv4Addr>,
    pub hostname: String,
    /// Such as `set by 192.168.1.1, 3 s ago` or `no time server has told it yet: 192.168.1.1 does not answer`.
    pub clock: String,
    /// Whether a time server has told the time.
    pub is_clock_set: bool,
    /// What is wrong and what to do about it, one sentence each; empty when all is well.
    pub notices: Vec<String>,
}

impl Report {
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

/// What the thread leaves for whoever asks; the words are made when they are read, as they tell how long ago things were.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    pub interfaces: Vec<InterfaceSnapshot>,
    /// `network.interface`.
    pub named: Option<String>,
    pub dns: Vec<Ipv4Addr>,
    pub hostname: String,
    pub clock_set: Option<LastSet>,
    pub clock_trouble: Option<String>,
    /// Whether there is an address.
    pub has_network: bool,
    pub troubles: Vec<String>,
    /// The static address, and who has it besides.
    pub taken: Option<(Ipv4Addr, MacAddr)>,
    /// Whether the interfaces were looked at: before, nothing is known to be missing.
    pub has_looked: bool,
}

#[derive(Debug, Clone)]
pub struct InterfaceSnapshot {
    pub interface: Interface,
    pub mac: MacAddr,
    pub is_used: bool,
    pub state: State,
}

/// What is done with an interface.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // there is one for each interface
pub enum State {
    Dhcp {
        phase: Phase,
        lease: Option<Box<(Lease, Option<Instant>)>>,
        complaint: Option<String>,
    },
    Static {
        gateway: Option<Ipv4Addr>,
    },
    /// Another has the static address.
    Spare,
    /// `network.interface` names another.
    NotNamed,
}

impl Snapshot {
    pub fn report(&self, now: Instant) -> Report {
        let used = self.interfaces.iter().find(|interface| interface.is_used);
        let used = used.map(|used| used.interface.name.as_str());
        Report {
            interfaces: self.interfaces.iter().map(|interface| interface.report(used, now)).collect(),
            dns: self.dns.clone(),
            hostname: self.hostname.clone(),
            clock: self.clock(now),
            is_clock_set: self.clock_set.is_some(),
            notices: self.notices(),
        }
    }

    fn clock(&self, now: Instant) -> String {
        match (&self.clock_set, &self.clock_trouble) {
            (Some(LastSet { server, at }), trouble) => {
                let trouble = trouble.as_ref().map(|trouble| format!("; since then {trouble}")).unwrap_or_default();
                format!("set by {server}, {} ago{trouble}", span(now.saturating_duration_since(*at)))
            }
            (None, _) if !self.has_network => "no time server can be asked: there is no network".to_owned(),
            (None, Some(trouble)) => format!("no time server has told it yet: {trouble}"),
            (None, None) => "a time server is being asked".to_owned(),
        }
    }

    fn notices(&self) -> Vec<String> {
        let mut notices = self.troubles.clone();
        if let Some((address, by)) = self.taken {
            notices.push(format!("{address} is used by the machine {by} as well: give one of the two another address"));
        }
        if !self.has_looked {
            return notices;
        }
        let names: Vec<&str> = self.interfaces.iter().map(|found| found.interface.name.as_str()).collect();
        match &self.named {
            Some(named) if !names.contains(&named.as_str()) => {
                let names = if names.is_empty() { "none yet".to_owned() } else { names.join(", ") };
                notices.push(format!(
                    "network.interface names {named:?}, but there is no such interface (there are: {names})"
                ));
            }
            None if names.is_empty() => notices.push("No Ethernet interface was found".to_owned()),
            _ => {}
        }
        if !names.is_empty() && self.interfaces.iter().all(|found| !found.interface.carrier) {
            notices.push("No interface has a link: plug in a network cable".to_owned());
        }
        notices
    }
}

impl InterfaceSnapshot {
    fn report(&self, used: Option<&str>, now: Instant) -> InterfaceReport {
        let Interface { name, carrier, addresses, .. } = &self.interface;
        let lease = match &self.state {
            State::Dhcp { lease: Some(held), .. } => Some(LeaseReport {
                server: held.0.server,
                gateway: held.0.gateway,
                remaining: held.1.map(|until| until.saturating_duration_since(now)),
            }),
            _ => None,
        };
        InterfaceReport {
            name: name.clone(),
            mac: self.mac,
            has_link: *carrier,
            is_used: self.is_used,
            addresses: addresses.clone(),
            state: self.words(used, now),
            lease,
        }
    }

    fn words(&self, used: Option<&str>, now: Instant) -> String {
        let no_link = "no link (cable or switch missing)";
        match &self.state {
            State::NotNamed => "not used: network.interface names another".to_owned(),
            _ if !self.interface.up => "down".to_owned(),
            State::Static { gateway } => {
                let link = if self.interface.carrier { "" } else { ", but there is no link" };
                let gateway = gateway.map(|gateway| format!(", gateway {gateway}")).unwrap_or_default();
                format!("static address{gateway}{link}")
            }
            State::Dhcp { lease: Some(held), .. } if !self.interface.carrier => {
                format!("{no_link}; the address is kept{}", remaining(held.1, now))
            }
            _ if !self.interface.carrier => no_link.to_owned(),
            State::Spare => spare(used),
            State::Dhcp { phase: Phase::NoLink | Phase::Released, .. } => spare(used),
            State::Dhcp { phase, lease, complaint } => {
                let until = lease.as_ref().map(|held| held.1);
                let complaint = complaint.as_ref().map(|complaint| format!("; {complaint}")).unwrap_or_default();
                format!("{}{complaint}", phase_words(*phase, until, now))
            }
        }
    }
}

fn spare(used: Option<&str>) -> String {
    used.map_or_else(|| "not used".to_owned(), |used| format!("not used: {used} is"))
}

/// `until` is there with a lease: when it ends, unless it is for ever.
fn phase_words(phase: Phase, until: Option<Option<Instant>>, now: Instant) -> String {
    let ago = |since: Instant| span(now.saturating_duration_since(since));
    let kept = until.map(|until| format!("; the earlier address is kept{}", remaining(until, now))).unwrap_or_default();
    match phase {
        Phase::NoLink => "no link".to_owned(),
        Phase::Asking { since, tries: ..2 } => format!("asking for an address ({}){kept}", ago(since)),
        Phase::Asking { since, .. } => format!("asking for an address, nobody answers yet ({}){kept}", ago(since)),
        Phase::Verifying { address, since } => format!("asking whether {address} still holds ({}){kept}", ago(since)),
        Phase::Requesting { address, server } => format!("asking {server} for {address}"),
        Phase::Probing { address } => format!("looking whether somebody else has {address}"),
        Phase::Waiting { until } => {
            format!("asking again in {}{kept}", span(until.saturating_duration_since(now)))
        }
        Phase::Bound => format!("address by DHCP{}", remaining(until.flatten(), now)),
        Phase::Renewing { since, anybody } => {
            let whom = if anybody { "nobody renews" } else { "its server does not renew" };
            format!("address by DHCP{}; {whom} it yet ({})", remaining(until.flatten(), now), ago(since))
        }
        Phase::Released => "given back".to_owned(),
    }
}

fn remaining(until: Option<Instant>, now: Instant) -> String {
    until.map(|until| format!(", for another {}", span(until.saturating_duration_since(now)))).unwrap_or_default()
}

/// A time in the unit that a person would name it in.
pub fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds @ ..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(state: State, carrier: bool) -> InterfaceSnapshot {
        let mac = MacAddr([2, 0, 0, 0, 0, 1]);
        let interface =
            Interface { name: "eth0".to_owned(), mac: Some(mac), up: true, carrier, ..Interface::default() };
        InterfaceSnapshot { interface, mac, is_used: false, state }
    }

    fn dhcp(phase: Phase) -> State {
        State::Dhcp { phase, lease: None, complaint: None }
    }

    #[test]
    fn a_line_for_each_state() {
        let since = Instant::now();
        let now = since + Duration::from_secs(12);
        let address = Ipv4Addr::new(10, 0, 0, 5);
        let words = |state| interface(state, true).words(Some("eth1"), now);
        let asking = Phase::Asking { since, tries: 4 };
        assert_eq!(words(dhcp(asking)), "asking for an address, nobody answers yet (12 s)");
        assert_eq!(words(dhcp(Phase::Asking { since, tries: 1 })), "asking for an address (12 s)");
        let complaint = Some("the answer of 10.0.0.9 is not taken: it does not say for how long".to_owned());
        assert_eq!(
            words(State::Dhcp { phase: asking, lease: None, complaint }),
            "asking for an address, nobody answers yet (12 s); the answer of 10.0.0.9 is not taken: it does not say for how long"
        );
        assert_eq!(words(dhcp(Phase::Verifying { address, since })), "asking whether 10.0.0.5 still holds (12 s)");
        assert_eq!(words(dhcp(Phase::Probing { address })), "looking whether somebody else has 10.0.0.5");
        assert_eq!(words(dhcp(Phase::NoLink)), "not used: eth1 is");
        assert_eq!(words(State::Static { gateway: Some(address) }), "static address, gateway 10.0.0.5");
        assert_eq!(words(State::NotNamed), "not used: network.interface names another");
        let until = Some(Some(now + Duration::from_secs(3600)));
        assert_eq!(phase_words(Phase::Bound, until, now), "address by DHCP, for another 60 min");
        assert_eq!(
            phase_words(Phase::Renewing { since, anybody: true }, until, now),
            "address by DHCP, for another 60 min; nobody renews it yet (12 s)"
        );
        assert_eq!(phase_words(Phase::Bound, Some(None), now), "address by DHCP");
        assert_eq!(interface(dhcp(asking), false).words(None, now), "no link (cable or switch missing)");
    }

    #[test]
    fn what_is_wrong_is_said() {
        let now = Instant::now();
        assert_eq!(Snapshot::default().report(now).notices, [""; 0], "nobody has looked yet");
        let mut snapshot = Snapshot { has_looked: true, ..Snapshot::default() };
        assert_eq!(snapshot.report(now).notices, ["No Ethernet interface was found"]);
        assert_eq!(snapshot.report(now).clock, "no time server can be asked: there is no network");
        snapshot.interfaces.push(interface(State::Spare, false));
        snapshot.named = Some("eth7".to_owned());
        assert_eq!(
            snapshot.report(now).notices,
            [
                "network.interface names \"eth7\", but there is no such interface (there are: eth0)",
                "No interface has a link: plug in a network cable"
            ]
        );
        snapshot.clock_set = Some(LastSet { server: [10, 0, 0, 1].into(), at: now });
        snapshot.clock_trouble = Some("10.0.0.1 does not answer".to_owned());
        let later = now + Duration::from_secs(7200);
        assert_eq!(snapshot.report(later).clock, "set by 10.0.0.1, 2 h ago; since then 10.0.0.1 does not answer");
        snapshot.clock_set = None;
        snapshot.has_network = true;
        assert_eq!(snapshot.report(now).clock, "no time server has told it yet: 10.0.0.1 does not answer");
        snapshot.clock_trouble = None;
        assert_eq!(snapshot.report(now).clock, "a time server is being asked");
        snapshot.taken = Some(([10, 0, 0, 5].into(), MacAddr([2, 0, 0, 0, 0, 9])));
        assert_eq!(
            snapshot.report(now).notices[0],
            "10.0.0.5 is used by the machine 02:00:00:00:00:09 as well: give one of the two another address"
        );
    }
}
