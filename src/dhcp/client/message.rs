//! The messages a client sends (RFC 2131 §4.4.1, table 5).

use std::net::Ipv4Addr;

use super::Identity;
use crate::dhcp::options::{self, message};
use crate::dhcp::packet::{BOOT_REQUEST, FLAG_BROADCAST, MAGIC_COOKIE, OPTIONS_AT};

/// What is asked for; table 5 says which of the address fields and options each has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    Discover {
        wanted: Option<Ipv4Addr>,
    },
    /// REQUEST in SELECTING: takes an offer.
    Request {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// REQUEST in INIT-REBOOT: verifies an earlier lease.
    Reboot {
        address: Ipv4Addr,
    },
    /// REQUEST in RENEWING and REBINDING.
    Renew {
        address: Ipv4Addr,
    },
    Decline {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    Release {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
}

/// Ethernet, in `htype` and in front of the client id.
const ETHERNET: u8 = 1;
/// What BOOTP messages have at least: some relays drop shorter ones (RFC 1542 §2.1).
const MESSAGE_LEN_MIN: usize = 300;
/// Fits an ordinary Ethernet frame.
const MESSAGE_LEN_MAX: u16 = 1500;
const WANTED_OPTIONS: [u8; 11] = [
    options::SUBNET_MASK,
    options::ROUTER,
    options::DNS,
    options::HOSTNAME,
    options::DOMAIN,
    options::INTERFACE_MTU,
    options::NTP,
    options::LEASE_TIME,
    options::SERVER_ID,
    options::RENEWAL_TIME,
    options::REBINDING_TIME,
];

/// Writes a message; `wants_broadcast` is how it is to be answered.
pub fn write(identity: &Identity, xid: u32, seconds: u16, wants_broadcast: bool, question: Question) -> Vec<u8> {
    let (kind, own, wanted, server) = fields(question);
    let is_answered = !matches!(question, Question::Decline { .. } | Question::Release { .. });
    let flags = if is_answered && wants_broadcast { FLAG_BROADCAST } else { 0 };
    let mut bytes = vec![BOOT_REQUEST, ETHERNET, 6, 0];
    bytes.extend(xid.to_be_bytes());
    bytes.extend(seconds.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend(own.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
    bytes.resize(28, 0);
    bytes.extend(identity.mac.0);
    bytes.resize(OPTIONS_AT - MAGIC_COOKIE.len(), 0);
    bytes.extend(MAGIC_COOKIE);
    put(&mut bytes, options::MESSAGE_TYPE, &[kind]);
    let mut client_id = vec![ETHERNET];
    client_id.extend(identity.mac.0);
    put(&mut bytes, options::CLIENT_ID, &client_id);
    if let Some(address) = wanted {
        put(&mut bytes, options::REQUESTED_ADDRESS, &address.octets());
    }
    if let Some(server) = server {
        put(&mut bytes, options::SERVER_ID, &server.octets());
    }
    if is_answered {
        put(&mut bytes, options::MAX_MESSAGE_SIZE, &MESSAGE_LEN_MAX.to_be_bytes());
        put(&mut bytes, options::HOSTNAME, identity.hostname.as_bytes());
        put(&mut bytes, options::PARAMETER_LIST, &WANTED_OPTIONS);
    }
    bytes.push(options::END);
    bytes.resize(bytes.len().max(MESSAGE_LEN_MIN), options::PAD);
    bytes
}

/// Type, `ciaddr`, option 50 and option 54.
fn fields(question: Question) -> (u8, Option<Ipv4Addr>, Option<Ipv4Addr>, Option<Ipv4Addr>) {
    match question {
        Question::Discover { wanted } => (message::DISCOVER, None, wanted, None),
        Question::Request { address, server } => (message::REQUEST, None, Some(address), Some(server)),
        Question::Reboot { address } => (message::REQUEST, None, Some(address), None),
        Question::Renew { address } => (message::REQUEST, Some(address), None, None),
        Question::Decline { address, server } => (message::DECLINE, None, Some(address), Some(server)),
        Question::Release { address, server } => (message::RELEASE, Some(address), None, Some(server)),
    }
}

/// Adds an option; an empty one says nothing and is left out.
fn put(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    let value = &value[..value.len().min(255)];
    if !value.is_empty() {
        bytes.extend([code, value.len().to_le_bytes()[0]]);
        bytes.extend(value);
    }
}
