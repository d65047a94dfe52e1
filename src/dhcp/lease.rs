//! What a DHCP server's answer means to a client (RFC 2131 §4.3.1), and why it is not taken.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::options::{self, message};
use super::packet::{BOOT_REPLY, Malformed, Packet};
use crate::limits;
use crate::units::MacAddr;

/// An address on loan, and what comes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub address: Ipv4Addr,
    pub prefix_length: u8,
    /// Option 54: by what the server is known; it need not be the address its packets come from.
    pub server: Ipv4Addr,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub ntp: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub hostname: Option<String>,
    pub mtu: Option<u16>,
    /// `None`: for ever.
    pub term: Option<Term>,
}

/// How long a lease lasts, counted from the request it answers (RFC 2131 §4.4.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    pub lease: Duration,
    /// T1: from here on its server is asked to renew it.
    pub renew: Duration,
    /// T2: from here on any server is.
    pub rebind: Duration,
}

/// What a server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Offer(Lease),
    Ack(Lease),
    /// The address asked for is not to be had.
    Nak {
        server: Ipv4Addr,
    },
}

/// Why an answer is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// Another client's, or one to an earlier question.
    #[error("the answer is for somebody else")]
    NotForUs,
    #[error("the answer is no DHCP: {0}")]
    Malformed(#[from] Malformed),
    #[error("a message of type {0} is no answer")]
    NotAnAnswer(u8),
    #[error("the answer does not say which server it is from")]
    NoServer,
    /// Of a ProxyDHCP server, which tells machines only what to boot.
    #[error("it lends no address")]
    NoAddress,
    #[error("{0} is no address for a machine")]
    BadAddress(Ipv4Addr),
    #[error("{0} is no network mask")]
    BadMask(Ipv4Addr),
    #[error("it does not say for how long")]
    NoLeaseTime,
    #[error("it lends an address for {0} s only")]
    ShortLease(u32),
    #[error("not the server whose offer was taken")]
    NotChosen,
    #[error("it renews the lease of {0}, which is not ours")]
    OtherAddress(Ipv4Addr),
}

impl Unacceptable {
    /// Whether somebody should know. Answers to other clients and the proxies that live on such a network are no news.
    #[must_use]
    pub const fn is_news(self) -> bool {
        !matches!(self, Self::NotForUs | Self::NoAddress)
    }
}

impl Answer {
    /// Reads the answer to the question with transaction id `xid`.
    ///
    /// # Errors
    /// Why nothing can be done with it. Options that only add to an address are left out when they are broken.
    pub fn parse(bytes: &[u8], mac: MacAddr, xid: u32) -> Result<Self, Unacceptable> {
        // Whose it is comes first: what other clients get is not judged.
        if bytes.len() >= 34 && (bytes[4..8] != xid.to_be_bytes() || bytes[28..34] != mac.0) {
            return Err(Unacceptable::NotForUs);
        }
        let packet = Packet::parse(bytes)?;
        if packet.op() != BOOT_REPLY {
            return Err(Unacceptable::NotForUs);
        }
        let kind = packet.option_array(options::MESSAGE_TYPE)?.map_or(0, |[kind]: [u8; 1]| kind);
        match kind {
            message::OFFER => Ok(Self::Offer(lease(&packet)?)),
            message::ACK => Ok(Self::Ack(lease(&packet)?)),
            message::NAK => Ok(Self::Nak { server: server(&packet)? }),
            other => Err(Unacceptable::NotAnAnswer(other)),
        }
    }
}

fn lease(packet: &Packet<'_>) -> Result<Lease, Unacceptable> {
    let address = packet.yiaddr();
    let seconds = packet.option_array(options::LEASE_TIME)?.map(u32::from_be_bytes);
    if address.is_unspecified() {
        return Err(Unacceptable::NoAddress);
    }
    let server = server(packet)?;
    let prefix_length = prefix_length(packet, address)?;
    if !is_host(address, prefix_length) || address == server {
        return Err(Unacceptable::BadAddress(address));
    }
    let is_gateway = |ip: &Ipv4Addr| is_host(*ip, 32) && *ip != address;
    Ok(Lease {
        address,
        prefix_length,
        server,
        gateway: addresses(packet, options::ROUTER).into_iter().find(is_gateway),
        dns: addresses(packet, options::DNS),
        ntp: addresses(packet, options::NTP),
        domain: name(packet, options::DOMAIN),
        hostname: name(packet, options::HOSTNAME),
        mtu: mtu(packet),
        term: term(packet, seconds.ok_or(Unacceptable::NoLeaseTime)?)?,
    })
}

fn server(packet: &Packet<'_>) -> Result<Ipv4Addr, Unacceptable> {
    let server = packet.option_array::<4>(options::SERVER_ID)?.map(Ipv4Addr::from);
    server.filter(|server| is_host(*server, 32)).ok_or(Unacceptable::NoServer)
}

/// Option 1; without it the network is as large as the address' class (RFC 950 §2).
fn prefix_length(packet: &Packet<'_>, address: Ipv4Addr) -> Result<u8, Unacceptable> {
    let Some(mask) = packet.option_array(options::SUBNET_MASK)?.map(u32::from_be_bytes) else {
        return Ok(match address.octets()[0] {
            ..128 => 8,
            128..192 => 16,
            192.. => 24,
        });
    };
    let ones = mask.leading_ones();
    match u8::try_from(ones) {
        Ok(length @ 1..) if mask.count_ones() == ones => Ok(length),
        _ => Err(Unacceptable::BadMask(Ipv4Addr::from(mask))),
    }
}

/// Whether one machine can have the address: not "this network", a loopback, a group or reserved, nor its network's own or broadcast.
fn is_host(address: Ipv4Addr, prefix_length: u8) -> bool {
    let host_mask = u32::MAX.checked_shr(prefix_length.into()).unwrap_or(0);
    let host_bits = u32::from(address) & host_mask;
    let is_whole_network = prefix_length < 31 && (host_bits == 0 || host_bits == host_mask);
    let first = address.octets()[0];
    (1..224).contains(&first) && first != 127 && !is_whole_network
}

fn term(packet: &Packet<'_>, seconds: u32) -> Result<Option<Term>, Unacceptable> {
    if seconds == u32::MAX {
        return Ok(None);
    }
    let lease = Duration::from_secs(seconds.into());
    if lease < limits::DHCP_LEASE_MIN {
        return Err(Unacceptable::ShortLease(seconds));
    }
    let told = |code| match packet.option_array(code) {
        Ok(Some(value)) => Some(Duration::from_secs(u32::from_be_bytes(value).into())),
        _ => None,
    };
    let renew = told(options::RENEWAL_TIME).unwrap_or(lease / 2);
    let rebind = told(options::REBINDING_TIME).unwrap_or(lease / 8 * 7);
    // Servers are seen that send both as 0, or longer than the lease.
    let is_in_order = !renew.is_zero() && renew < rebind && rebind < lease;
    let (renew, rebind) = if is_in_order { (renew, rebind) } else { (lease / 2, lease / 8 * 7) };
    Ok(Some(Term { lease, renew, rebind }))
}

fn addresses(packet: &Packet<'_>, code: u8) -> Vec<Ipv4Addr> {
    let value = packet.option(code).unwrap_or_default();
    let (list, _) = value.as_chunks::<4>();
    let list = list.iter().map(|bytes| Ipv4Addr::from(*bytes)).filter(|ip| !ip.is_unspecified() && !ip.is_multicast());
    list.take(limits::DHCP_SERVERS_MAX).collect()
}

/// A name that can stand in resolv.conf and on a console: labels of letters, digits, hyphens and underscores.
fn name(packet: &Packet<'_>, code: u8) -> Option<String> {
    let value = packet.option(code)?;
    let text = std::str::from_utf8(&value).ok()?.trim_end_matches('\0').trim_end_matches('.');
    let is_label = |label: &str| {
        let is_plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        (1..=63).contains(&label.len()) && is_plain && !label.starts_with('-')
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_owned())
}

fn mtu(packet: &Packet<'_>) -> Option<u16> {
    let mtu = u16::from_be_bytes(packet.option_array(options::INTERFACE_MTU).ok().flatten()?);
    (mtu >= limits::DHCP_MTU_MIN).then_some(mtu)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{MAC, Message};
    use super::*;

    const XID: u32 = 0xcafe_0001;

    fn ack() -> Message {
        Message::bare(message::ACK)
            .patch(0, &[BOOT_REPLY])
            .patch(16, &[10, 0, 0, 5])
            .with(options::SERVER_ID, &[10, 0, 0, 1])
            .with(options::SUBNET_MASK, &[255, 255, 255, 0])
            .with(options::LEASE_TIME, &3600_u32.to_be_bytes())
    }

    fn parse(message: Message) -> Result<Lease, Unacceptable> {
        match Answer::parse(&message.bytes(), MAC, XID)? {
            Answer::Ack(lease) | Answer::Offer(lease) => Ok(lease),
            Answer::Nak { .. } => panic!("no lease"),
        }
    }

    #[test]
    fn everything_that_comes_with_an_address() {
        let message = ack()
            .with(options::ROUTER, &[0, 0, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2])
            .with(options::DNS, &[10, 0, 0, 1, 9, 9, 9, 9])
            .with(options::NTP, &[10, 0, 0, 3])
            .with(options::DOMAIN, b"lab.example.")
            .with(options::HOSTNAME, b"box\0")
            .with(options::INTERFACE_MTU, &1400_u16.to_be_bytes())
            .with(options::RENEWAL_TIME, &600_u32.to_be_bytes())
            .with(options::REBINDING_TIME, &1200_u32.to_be_bytes());
        let seconds = Duration::from_secs;
        assert_eq!(
            parse(message).unwrap(),
            Lease {
                address: [10, 0, 0, 5].into(),
                prefix_length: 24,
                server: [10, 0, 0, 1].into(),
                gateway: Some([10, 0, 0, 1].into()),
                dns: vec![[10, 0, 0, 1].into(), [9, 9, 9, 9].into()],
                ntp: vec![[10, 0, 0, 3].into()],
                domain: Some("lab.example".to_owned()),
                hostname: Some("box".to_owned()),
                mtu: Some(1400),
                term: Some(Term { lease: seconds(3600), renew: seconds(600), rebind: seconds(1200) }),
            }
        );
    }

    #[test]
    fn what_a_server_leaves_out_has_its_defaults() {
        let lease = parse(ack()).unwrap();
        let term = lease.term.unwrap();
        assert_eq!((term.renew, term.rebind), (Duration::from_secs(1800), Duration::from_secs(3150)));
        assert_eq!((lease.gateway, lease.dns.len(), lease.domain, lease.mtu), (None, 0, None, None));
        let for_ever = ack().patch(257, &[255; 4]);
        assert_eq!(parse(for_ever).unwrap().term, None);
        let nonsense = ack().with(options::RENEWAL_TIME, &[0; 4]).with(options::REBINDING_TIME, &[255; 4]);
        assert_eq!(parse(nonsense).unwrap().term, Some(term));
        let classful = |first| {
            let without_mask = Message::bare(message::OFFER)
                .patch(0, &[BOOT_REPLY])
                .patch(16, &[first, 0, 0, 5])
                .with(options::SERVER_ID, &[10, 0, 0, 1])
                .with(options::LEASE_TIME, &[0, 0, 1, 0]);
            parse(without_mask).unwrap().prefix_length
        };
        assert_eq!([classful(10), classful(172), classful(192)], [8, 16, 24]);
    }

    #[test]
    fn each_reason_not_to_take_an_answer() {
        let bare = |kind| Message::bare(kind).patch(0, &[BOOT_REPLY]).patch(16, &[10, 0, 0, 5]);
        let server = |message: Message| message.with(options::SERVER_ID, &[10, 0, 0, 1]);
        let lent = |seconds: u32| server(bare(message::OFFER)).with(options::LEASE_TIME, &seconds.to_be_bytes());
        let mask = |mask: [u8; 4]| lent(99).with(options::SUBNET_MASK, &mask);
        let address = |ip: [u8; 4]| mask([255, 255, 255, 0]).patch(16, &ip);
        let bad = |ip: [u8; 4]| Unacceptable::BadAddress(ip.into());
        for (message, reason) in [
            (ack().xid(7), Unacceptable::NotForUs),
            (ack().mac([2, 9, 9, 9, 9, 9]), Unacceptable::NotForUs),
            (ack().patch(0, &[1]), Unacceptable::NotForUs),
            (bare(message::DISCOVER), Unacceptable::NotAnAnswer(message::DISCOVER)),
            (bare(message::OFFER).with(options::LEASE_TIME, &[0, 1, 0, 0]), Unacceptable::NoServer),
            (bare(message::NAK), Unacceptable::NoServer),
            (ack().patch(16, &[0; 4]), Unacceptable::NoAddress),
            (server(bare(message::OFFER)), Unacceptable::NoLeaseTime),
            (lent(9), Unacceptable::ShortLease(9)),
            (mask([255, 0, 255, 0]), Unacceptable::BadMask([255, 0, 255, 0].into())),
            (mask([0; 4]), Unacceptable::BadMask([0; 4].into())),
            (address([10, 0, 0, 255]), bad([10, 0, 0, 255])),
            (address([10, 0, 0, 0]), bad([10, 0, 0, 0])),
            (address([10, 0, 0, 1]), bad([10, 0, 0, 1])), // the server's own
            (address([127, 0, 0, 5]), bad([127, 0, 0, 5])),
            (address([224, 0, 0, 5]), bad([224, 0, 0, 5])),
        ] {
            assert_eq!(parse(message).unwrap_err(), reason);
        }
        assert!(parse(lent(10)).is_ok() && parse(mask([255; 4])).is_ok());
    }

    #[test]
    fn a_proxy_that_only_names_a_boot_file_lends_nothing() {
        let proxy = Message::bare(message::OFFER)
            .patch(0, &[BOOT_REPLY])
            .with(options::SERVER_ID, &[10, 0, 0, 2])
            .with(options::VENDOR_CLASS, b"PXEClient")
            .with(options::BOOT_FILE, b"ipxe.efi");
        let reason = parse(proxy).unwrap_err();
        assert_eq!(reason, Unacceptable::NoAddress);
        assert!(!reason.is_news());
    }

    #[test]
    fn broken_extras_are_left_out_and_many_are_too_many() {
        let many: Vec<u8> = (1..=20).flat_map(|n| [10, 0, 1, n]).collect();
        let message = ack()
            .with(options::DNS, &many)
            .with(options::ROUTER, &[10, 0, 0])
            .with(options::DOMAIN, b"evil\nnameserver 6.6.6.6")
            .with(options::HOSTNAME, b"\x1b[2J")
            .with(options::INTERFACE_MTU, &68_u16.to_be_bytes());
        let lease = parse(message).unwrap();
        assert_eq!(lease.dns.len(), limits::DHCP_SERVERS_MAX);
        assert_eq!((lease.gateway, lease.domain, lease.hostname, lease.mtu), (None, None, None, None));
    }
}
