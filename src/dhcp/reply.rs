//! The OFFER or ACK that tells a machine what to load, as bytes.

use std::net::{Ipv4Addr, SocketAddrV4};

use super::arch::Firmware;
use super::decide::{AnswerKind, Arrival, Boot, BootFiles, Port, Reason};
use super::frame::IP_UDP_LEN;
use super::options::{self, pxe};
use super::packet::{BOOT_REPLY, FLAG_BROADCAST, HEADER_LEN, MAGIC_COOKIE};
use super::request::{Client, Request};
use crate::units::MacAddr;

/// Where an answer goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// 255.255.255.255:68 on the interface the request came in on: the client has no address yet.
    Broadcast,
    /// A relay agent's port 67, or a client that has an address.
    Unicast(SocketAddrV4),
}

/// An answer, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub bytes: Vec<u8>,
    pub to: Destination,
    pub mac: MacAddr,
    pub client: Client,
    pub boot: Boot,
}

/// `file` holds this many bytes and a NUL.
const FILE_LEN_MAX: usize = 127;
/// Below BOOTP's length some relays and ROMs drop a message (RFC 1542 §2.1).
const LENGTH_MIN: usize = 300;
/// What every client takes, IP and UDP header included (RFC 2131 §2).
const MESSAGE_SIZE_DEFAULT: u16 = 576;
const DHCP_CLIENT_PORT: u16 = 68;

/// Writes the answer.
///
/// # Errors
/// [`Reason::ReplyTooLong`] when it cannot be made short enough for the client.
pub(super) fn compose(
    request: &Request<'_>,
    arrival: &Arrival,
    kind: AnswerKind,
    boot: Boot,
    files: &dyn BootFiles,
) -> Result<Reply, Reason> {
    let file = boot_file(request, arrival.server, boot, files);
    let limit = usize::from(request.max_message_size.unwrap_or(0).max(MESSAGE_SIZE_DEFAULT)) - IP_UDP_LEN;
    // Options 66 and 67 only repeat what the header fields say: the first things to leave out when there is no room.
    let bytes = [true, false]
        .into_iter()
        .map(|repeat_names| emit(request, arrival, kind, &file, repeat_names))
        .find(|bytes| bytes.len() <= limit && file.len() <= FILE_LEN_MAX)
        .ok_or(Reason::ReplyTooLong(limit))?;
    Ok(Reply { bytes, to: destination(request, arrival), mac: request.mac, client: request.client, boot })
}

fn boot_file(request: &Request<'_>, server: Ipv4Addr, boot: Boot, files: &dyn BootFiles) -> String {
    let mac = request.mac;
    match boot {
        Boot::TftpPath(loader) => files.tftp_name(mac, loader),
        Boot::TftpUrl(loader) => format!("tftp://{server}/{}", files.tftp_name(mac, loader)),
        Boot::HttpUrl(loader) => files.loader_url(server, mac, loader),
        Boot::Script => files.script_url(server, mac),
    }
}

/// Relays drop broadcasts (smee#382), so they get their answer addressed to them; who has an address gets it there (on 4011
/// at the very port it asked from: OVMF asks from 4011); everyone else by broadcast, whatever the broadcast flag says, as there is
/// no `yiaddr` to send to.
fn destination(request: &Request<'_>, arrival: &Arrival) -> Destination {
    let (giaddr, ciaddr) = (request.packet.giaddr(), request.packet.ciaddr());
    if arrival.port == Port::Pxe && !arrival.source.ip().is_unspecified() {
        Destination::Unicast(arrival.source)
    } else if !giaddr.is_unspecified() {
        Destination::Unicast(SocketAddrV4::new(giaddr, Port::Dhcp.number()))
    } else if !ciaddr.is_unspecified() {
        Destination::Unicast(SocketAddrV4::new(ciaddr, DHCP_CLIENT_PORT))
    } else {
        Destination::Broadcast
    }
}

fn emit(request: &Request<'_>, arrival: &Arrival, kind: AnswerKind, file: &str, repeat_names: bool) -> Vec<u8> {
    let server_name = arrival.server.to_string();
    let mut out = Writer { bytes: Vec::with_capacity(LENGTH_MIN * 2) };
    emit_header(&mut out, request, arrival, kind, &server_name, file);
    let message = if kind == AnswerKind::Offer { options::message::OFFER } else { options::message::ACK };
    out.option(options::MESSAGE_TYPE, &[message]);
    out.option(options::SERVER_ID, &arrival.server.octets());
    out.option(options::VENDOR_CLASS, request.class.name().as_bytes());
    if let Some(guid) = request.guid {
        out.option(options::CLIENT_GUID, &guid);
    }
    let vendor = vendor_options(request);
    if !vendor.is_empty() {
        out.option(options::VENDOR_SPECIFIC, &vendor);
    }
    if repeat_names {
        out.option(options::TFTP_SERVER, server_name.as_bytes());
        // With a NUL: EDK2 writes one over the byte that follows the name, which would be the next option's code.
        out.option(options::BOOT_FILE, &[file.as_bytes(), &[0]].concat());
    }
    if let Some(info) = &request.relay_agent_info {
        out.option(options::RELAY_AGENT_INFO, info); // last of all: RFC 3046 §2.1
    }
    out.bytes.push(options::END);
    if out.bytes.len() < LENGTH_MIN {
        out.bytes.resize(LENGTH_MIN, options::PAD);
    }
    out.bytes
}

/// The fixed part. `siaddr`, `sname` and `file` say the same as options 54, 66 and 67: U-Boot and shim read only the header,
/// others the options first.
fn emit_header(
    out: &mut Writer,
    request: &Request<'_>,
    arrival: &Arrival,
    kind: AnswerKind,
    server_name: &str,
    file: &str,
) {
    let packet = &request.packet;
    let ciaddr = if kind == AnswerKind::Ack { packet.ciaddr() } else { Ipv4Addr::UNSPECIFIED };
    let unaddressed = ciaddr.is_unspecified() && packet.giaddr().is_unspecified();
    let flags = if unaddressed { packet.flags() | FLAG_BROADCAST } else { packet.flags() };
    out.bytes.extend([BOOT_REPLY, packet.htype(), packet.hlen(), 0]);
    out.bytes.extend(packet.xid().to_be_bytes());
    out.bytes.extend([0, 0]); // secs
    out.bytes.extend(flags.to_be_bytes());
    out.bytes.extend(ciaddr.octets());
    out.bytes.extend(Ipv4Addr::UNSPECIFIED.octets()); // yiaddr: a proxy leases nothing
    out.bytes.extend(arrival.server.octets()); // siaddr: without it iPXE does not take the offer for complete
    out.bytes.extend(packet.giaddr().octets());
    out.bytes.extend(packet.chaddr());
    out.text_field(server_name, 64);
    out.text_field(file, 128);
    debug_assert_eq!(out.bytes.len(), HEADER_LEN);
    out.bytes.extend(MAGIC_COOKIE);
}

/// Option 43. BIOS ROMs are told to load the file at once. UEFI must never see it: EDK2 before April 2017 (bug 469,
/// tianocore/edk2#6944, in countless boards) drops the first proxy offer that carries valid discovery options.
/// The exception is the boot item that a client asked for: without it back it would not know its answer.
fn vendor_options(request: &Request<'_>) -> Vec<u8> {
    let mut list = Vec::new();
    if request.client.arch.firmware == Firmware::BiosPxe {
        list.extend([pxe::DISCOVERY_CONTROL, 1, pxe::SKIP_DISCOVERY]);
    }
    if let Some(item) = request.boot_item {
        list.extend([pxe::BOOT_ITEM, 4]);
        list.extend(item);
    }
    if !list.is_empty() {
        list.push(pxe::END);
    }
    list
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// Longer values are split (RFC 3396).
    fn option(&mut self, code: u8, value: &[u8]) {
        for part in value.chunks(255) {
            self.bytes.extend([code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
            self.bytes.extend(part);
        }
        if value.is_empty() {
            self.bytes.extend([code, 0]);
        }
    }

    /// A NUL-padded field; what does not fit with its NUL is left out whole.
    fn text_field(&mut self, text: &str, width: usize) {
        let end = self.bytes.len() + width;
        if text.len() < width {
            self.bytes.extend(text.as_bytes());
        }
        self.bytes.resize(end, 0);
    }
}
