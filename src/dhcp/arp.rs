//! Whether an address is in use: ARP probes, announcements and claims (RFC 5227).

use std::net::Ipv4Addr;

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr};

use crate::units::MacAddr;

/// Length of an Ethernet header without a VLAN tag.
const ETHERNET_LEN: usize = 14;
/// Length of an ARP packet for Ethernet and IPv4.
const ARP_LEN: usize = 28;

/// What an ARP packet says about an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    pub mac: MacAddr,
    /// The sender's address; 0.0.0.0 when it only asks whether it may have one.
    pub sender: Ipv4Addr,
    /// The address that is asked for.
    pub target: Ipv4Addr,
}

impl Claim {
    /// Reads an untagged Ethernet frame; `None` when it is no whole ARP packet for IPv4.
    #[must_use]
    pub fn parse(frame: &[u8]) -> Option<Self> {
        let ethernet = EthernetFrame::new_checked(frame).ok()?;
        if ethernet.ethertype() != EthernetProtocol::Arp {
            return None;
        }
        let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
        let ArpRepr::EthernetIpv4 { source_hardware_addr, source_protocol_addr, target_protocol_addr, .. } =
            ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        let mac = MacAddr(source_hardware_addr.0);
        Some(Self { mac, sender: source_protocol_addr, target: target_protocol_addr })
    }

    /// Whether a host with the hardware address `own` cannot have `address`: another one uses it, or probes for it at this very
    /// moment (RFC 5227 §2.1.1).
    #[must_use]
    pub fn conflicts_with(&self, own: MacAddr, address: Ipv4Addr) -> bool {
        let probes_for_it = self.sender.is_unspecified() && self.target == address;
        self.mac != own && (self.sender == address || probes_for_it)
    }
}

/// A frame that asks who has `address`, without claiming it.
#[must_use]
pub fn probe(own: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    request(own, Ipv4Addr::UNSPECIFIED, address)
}

/// A frame that tells everybody that `address` is ours now, so that tables with an earlier owner are put right.
#[must_use]
pub fn announcement(own: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    request(own, address, address)
}

fn request(own: MacAddr, sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET_LEN + ARP_LEN];
    let header = EthernetRepr {
        src_addr: EthernetAddress(own.0),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Arp,
    };
    header.emit(&mut EthernetFrame::new_unchecked(&mut frame[..ETHERNET_LEN]));
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(own.0),
        source_protocol_addr: sender,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: target,
    };
    arp.emit(&mut ArpPacket::new_unchecked(&mut frame[ETHERNET_LEN..]));
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const OTHER: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn a_probe_is_what_the_standard_says() {
        let mut expected = vec![0xff; 6];
        expected.extend([2, 0, 0, 0, 0, 1, 8, 6]); // from us, ARP
        expected.extend([0, 1, 8, 0, 6, 4, 0, 1]); // Ethernet, IPv4, lengths, request
        expected.extend([2, 0, 0, 0, 0, 1, 0, 0, 0, 0]); // sender: our card, no address
        expected.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 5]); // target: nobody yet, the address
        assert_eq!(probe(OWN, ADDRESS), expected);
    }

    #[test]
    fn users_and_other_probers_are_in_the_way_and_nobody_else() {
        let claim = |frame: &[u8]| Claim::parse(frame).unwrap();
        assert!(claim(&announcement(OTHER, ADDRESS)).conflicts_with(OWN, ADDRESS));
        assert!(claim(&probe(OTHER, ADDRESS)).conflicts_with(OWN, ADDRESS));
        assert!(!claim(&probe(OWN, ADDRESS)).conflicts_with(OWN, ADDRESS), "our own, come back");
        assert!(!claim(&announcement(OTHER, Ipv4Addr::new(10, 0, 0, 6))).conflicts_with(OWN, ADDRESS));
        let asks = request(OTHER, Ipv4Addr::new(10, 0, 0, 9), ADDRESS);
        assert!(!claim(&asks).conflicts_with(OWN, ADDRESS), "a host that only wants to talk to its user");
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let whole = probe(OWN, ADDRESS);
        for length in 0..whole.len() {
            assert_eq!(Claim::parse(&whole[..length]), None, "{length}");
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut frame = whole.clone();
                frame[at] = value;
                let _ = Claim::parse(&frame);
            }
        }
    }
}
