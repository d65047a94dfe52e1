//! Which interfaces of the machine are asked for an address, or get the static one.

use std::time::Instant;

use crate::limits;
use crate::sys::netlink::Interface;

/// The interface that has the appliance's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    /// Index of the interface.
    pub interface: u32,
    /// Since when it has no link.
    pub without_link_since: Option<Instant>,
}

/// The interfaces that may carry the appliance's address: Ethernet, and no port of a bridge or bond.
pub fn candidates<'a>(all: &'a [Interface], named: Option<&'a str>) -> impl Iterator<Item = &'a Interface> {
    let may = move |interface: &&Interface| match named {
        Some(name) => interface.name == name,
        // What somebody has made on top of the hardware is used when it is named; veth is a container's Ethernet.
        None => interface.master.is_none() && interface.kind.as_deref().is_none_or(|kind| kind == "veth"),
    };
    let ethernet = all.iter().filter(|interface| interface.mac.is_some() && !interface.loopback);
    ethernet.filter(may).take(limits::NETWORK_INTERFACES_MAX)
}

/// Whether DHCP servers are asked on a candidate now: on the used one while it has its link, else on all.
pub fn is_asked(candidate: &Interface, used: Option<Used>, now: Instant) -> bool {
    match used {
        Some(used) if used.interface != candidate.index => is_overdue(used, now),
        _ => true,
    }
}

/// Whether the used interface has been without a link for so long that another takes its place.
pub fn is_overdue(used: Used, now: Instant) -> bool {
    used.without_link_since.is_some_and(|since| since + limits::NETWORK_SWITCH_AFTER <= now)
}

/// Which candidate gets a static address: the one that has it, the first with a link, or any for the time being.
pub fn for_static<'a>(candidates: &[&'a Interface], used: Option<Used>, now: Instant) -> Option<&'a Interface> {
    let current = used.and_then(|used| candidates.iter().find(|interface| interface.index == used.interface));
    let with_link = candidates.iter().find(|interface| interface.carrier);
    let is_overdue = used.is_some_and(|used| is_overdue(used, now));
    match current {
        Some(current) if current.carrier || !is_overdue || with_link.is_none() => Some(current),
        _ => with_link.or(candidates.first()).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::MacAddr;
    use std::time::Duration;

    fn interface(index: u32, name: &str, carrier: bool) -> Interface {
        let mac = Some(MacAddr([2, 0, 0, 0, 0, 1]));
        Interface { index, name: name.to_owned(), mac, up: true, carrier, ..Interface::default() }
    }

    #[test]
    fn hardware_by_itself_and_anything_by_name() {
        let all = [
            Interface { loopback: true, ..interface(1, "lo", true) },
            interface(2, "eth0", true),
            Interface { kind: Some("bridge".into()), ..interface(3, "br0", true) },
            Interface { master: Some(3), ..interface(4, "eth1", true) },
            Interface { mac: None, ..interface(5, "wg0", true) },
            Interface { kind: Some("veth".into()), ..interface(6, "eth2", true) },
        ];
        let names = |named| candidates(&all, named).map(|found| found.name.as_str()).collect::<Vec<_>>();
        assert_eq!(names(None), ["eth0", "eth2"]);
        assert_eq!(names(Some("br0")), ["br0"]);
        assert_eq!(names(Some("lo")), [""; 0]);
        let many: Vec<_> = (1..200).map(|index| interface(index, "eth", true)).collect();
        assert_eq!(candidates(&many, None).count(), limits::NETWORK_INTERFACES_MAX);
    }

    #[test]
    fn others_are_asked_when_the_used_one_has_had_no_link_for_a_while() {
        let now = Instant::now();
        let used = Used { interface: 2, without_link_since: None };
        let other = interface(3, "eth1", true);
        assert!(is_asked(&other, None, now));
        assert!(!is_asked(&other, Some(used), now));
        let pulled = Some(Used { without_link_since: Some(now), ..used });
        assert!(!is_asked(&other, pulled, now + limits::NETWORK_SWITCH_AFTER / 2));
        assert!(is_asked(&other, pulled, now + limits::NETWORK_SWITCH_AFTER));
        assert!(is_asked(&interface(2, "eth0", true), pulled, now));
    }

    #[test]
    fn a_static_address_goes_where_the_cable_is() {
        let now = Instant::now();
        let (eth0, eth1) = (interface(2, "eth0", false), interface(3, "eth1", false));
        let plugged = interface(3, "eth1", true);
        let chosen = |candidates: &[&Interface], used| for_static(candidates, used, now).map(|found| found.index);
        let used = |since: Option<Instant>| Some(Used { interface: 2, without_link_since: since });
        let overdue = used(now.checked_sub(limits::NETWORK_SWITCH_AFTER + Duration::from_secs(1)));
        assert_eq!(chosen(&[], None), None);
        assert_eq!(chosen(&[&eth0, &eth1], None), Some(2), "no cable anywhere: ready for one");
        assert_eq!(chosen(&[&eth0, &plugged], None), Some(3));
        assert_eq!(chosen(&[&eth0, &plugged], used(Some(now))), Some(2), "it may come back");
        assert_eq!(chosen(&[&eth0, &plugged], overdue), Some(3));
        assert_eq!(chosen(&[&eth0, &eth1], overdue), Some(2), "nowhere better");
    }
}
