//! The policy: which machine is answered, and with what.
//!
//! A decision is a value. The log line and the tests print the same [`Reason`].

use std::net::{Ipv4Addr, SocketAddrV4};

use super::arch::Loader;
use super::options;
use super::packet::Malformed;
use super::reply::{self, Reply};
use super::request::{Client, Message, Request, VendorClass};
use crate::units::{Arch, MacAddr};

/// The service a message came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// 67: the DHCP server's, on which a proxy listens in.
    Dhcp,
    /// 4011: the PXE boot server's own.
    Pxe,
}

impl Port {
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Dhcp => 67,
            Self::Pxe => 4011,
        }
    }
}

/// How a message reached us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub port: Port,
    /// The interface's index.
    pub interface: u32,
    /// Our address there: the answer comes from it and names it.
    pub server: Ipv4Addr,
    pub source: SocketAddrV4,
    /// The frame's sender, where frames are seen.
    pub link_source: Option<MacAddr>,
    /// Whether it was sent to our address, not broadcast.
    pub unicast: bool,
}

/// Names under which machines are served their files.
pub trait BootFiles: std::fmt::Debug {
    /// The path of a loader for TFTP, without a leading slash.
    fn tftp_name(&self, mac: MacAddr, loader: Loader) -> String;
    /// The `http://` URL of a loader.
    fn loader_url(&self, server: Ipv4Addr, mac: MacAddr, loader: Loader) -> String;
    /// The `http://` URL of the machine's boot script.
    fn script_url(&self, server: Ipv4Addr, mac: MacAddr) -> String;
}

/// Which machines the operator lets boot.
pub trait Machines: std::fmt::Debug {
    /// Whether this one may.
    ///
    /// # Errors
    /// [`Reason::Denied`] or [`Reason::NotAllowed`].
    fn admit(&self, mac: MacAddr) -> Result<(), Reason>;
}

/// What the operator has set.
#[derive(Debug)]
pub struct Policy {
    /// The architecture of the image being served.
    pub image: Arch,
    pub machines: Box<dyn Machines + Send>,
    pub files: Box<dyn BootFiles + Send>,
}

/// What is to be done about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Offer(Reply),
    Ack(Reply),
    Ignore(Reason),
}

/// Why a message is not answered; each is one sentence for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    #[error("{0}")]
    Malformed(Malformed),
    #[error("an answer of another server")]
    NotARequest,
    #[error("not a network boot")]
    NotPxe,
    #[error("no client architecture (option 93)")]
    NoClientArch,
    #[error("unknown client architecture {0}")]
    UnknownClientArch(u16),
    #[error("Raspberry Pi boot code is not supported yet")]
    RaspberryPi,
    #[error("denied by netboot.deny")]
    Denied,
    #[error("not in netboot.allow")]
    NotAllowed,
    #[error("no boot loader for this firmware ({0})")]
    NoLoader(&'static str),
    #[error("the image is {image}, this machine is {machine}")]
    WrongArch { image: Arch, machine: Arch },
    #[error("addressed to another server")]
    OtherServer,
    #[error("asks for a signed boot server reply, which is not supported")]
    SignedReply,
    #[error("the answer would be larger than the client takes ({0} bytes)")]
    ReplyTooLong(usize),
    #[error("a copy of a message already answered on another interface")]
    Duplicate,
    #[error("its iPXE lacks what a boot needs and so does the one we gave it: stopped after {0} tries")]
    LoaderLoop(u32),
}

impl Reason {
    /// Whether the operator should hear of it. The rest is ordinary life on a LAN: leases being renewed, other servers' traffic.
    #[must_use]
    pub const fn is_news(&self) -> bool {
        !matches!(self, Self::NotARequest | Self::NotPxe | Self::OtherServer | Self::Duplicate)
    }
}

/// What a machine is told to load, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Boot {
    /// A path on our TFTP server.
    TftpPath(Loader),
    /// A whole `tftp://` URL: iPXE takes a bare name for one on the *DHCP server's* address when option 43 says to skip
    /// discovery (pixiecore, smee and booter all write it out).
    TftpUrl(Loader),
    HttpUrl(Loader),
    /// The boot script, by HTTP.
    Script,
}

/// Decides about one request. Pure: the same arguments give the same answer.
#[must_use]
pub fn decide(request: &Request<'_>, arrival: &Arrival, policy: &Policy) -> Decision {
    let verdict = answer_kind(request, arrival)
        .and_then(|kind| policy.machines.admit(request.mac).map(|()| kind))
        .and_then(|kind| choose_boot(request, policy.image).map(|boot| (kind, boot)))
        .and_then(|(kind, boot)| {
            reply::compose(request, arrival, kind, boot, &*policy.files).map(|reply| (kind, reply))
        });
    match verdict {
        Ok((AnswerKind::Offer, reply)) => Decision::Offer(reply),
        Ok((AnswerKind::Ack, reply)) => Decision::Ack(reply),
        Err(reason) => Decision::Ignore(reason),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerKind {
    Offer,
    Ack,
}

/// Which message answers this one, by port (PXE 2.1 §2.2, figure 2-1).
fn answer_kind(request: &Request<'_>, arrival: &Arrival) -> Result<AnswerKind, Reason> {
    if request.boot_item.is_some_and(|item| item[2] & 0x80 != 0) {
        return Err(Reason::SignedReply);
    }
    let for_us = request.server_id.map(|id| id == arrival.server);
    match (arrival.port, request.message) {
        // A DISCOVER on 4011 is not in the specification, but has been seen.
        (_, Message::Discover) => Ok(AnswerKind::Offer),
        // What was sent to our own address there is for us, whichever server the client has its lease from.
        (Port::Pxe, _) if arrival.unicast || for_us != Some(false) => Ok(AnswerKind::Ack),
        // It asks for a lease (RFC 2131 table 5) and names our address: that is the DHCP server on this very host. With an ACK
        // of ours beside the server's, EDK2 declines the lease ("Lease confirmed isn't the same as that in the offer").
        (Port::Dhcp, Message::Request) if asks_for_lease(request) => Err(Reason::OtherServer),
        // On 67 the client talks to its DHCP server, unless it names us (some AMI, Supermicro and Intel ROMs do), or
        // asks any boot server for an item (PXE 2.1 §2.2.4, discovery by broadcast).
        (Port::Dhcp, Message::Request) if for_us == Some(true) => Ok(AnswerKind::Ack),
        (Port::Dhcp, _) if for_us.is_none() && request.boot_item.is_some() => Ok(AnswerKind::Ack),
        _ => Err(Reason::OtherServer),
    }
}

/// Whether the client has taken an offer of an address. A boot server offers none: its clients ask for 0.0.0.0, or for nothing.
fn asks_for_lease(request: &Request<'_>) -> bool {
    let address = request.packet.option_array::<4>(options::REQUESTED_ADDRESS);
    request.boot_item.is_none() && matches!(address, Ok(Some(address)) if address != [0; 4])
}

fn choose_boot(request: &Request<'_>, image: Arch) -> Result<Boot, Reason> {
    let Client { arch, ipxe } = request.client;
    let loader = arch.loader.ok_or(Reason::NoLoader(arch.name))?;
    match arch.machine {
        Some(machine) if machine != image => return Err(Reason::WrongArch { image, machine }),
        _ => {}
    }
    Ok(if request.client.runs_scripts() {
        Boot::Script
    } else if request.class == VendorClass::Http {
        Boot::HttpUrl(loader)
    } else if ipxe.is_some() {
        Boot::TftpUrl(loader)
    } else {
        Boot::TftpPath(loader)
    })
}
