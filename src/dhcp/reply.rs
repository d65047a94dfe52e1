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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::decide::{Decision, decide};
    use crate::dhcp::packet::Packet;
    use crate::dhcp::testing::{self, GUID, MAC, ON_67, SERVER, option};
    use crate::units::Arch;

    fn offer(message: testing::Message) -> Result<Reply, Reason> {
        let bytes = message.bytes();
        let request = Request::parse(&bytes, None).unwrap();
        match decide(&request, &ON_67, &testing::policy(Arch::Amd64)) {
            Decision::Offer(reply) => Ok(reply),
            Decision::Ignore(reason) => Err(reason),
            Decision::Ack(_) => panic!("an ACK to a DISCOVER"),
        }
    }

    #[test]
    fn every_field_of_an_offer() {
        let bytes = offer(testing::Message::discover(0).xid(0x1234_5678)).unwrap().bytes;
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!((packet.op(), packet.htype(), packet.hlen(), bytes[3]), (2, 1, 6, 0));
        assert_eq!((packet.xid(), packet.secs(), packet.flags()), (0x1234_5678, 0, FLAG_BROADCAST));
        assert_eq!((packet.ciaddr(), packet.yiaddr()), (Ipv4Addr::UNSPECIFIED, Ipv4Addr::UNSPECIFIED));
        assert_eq!((packet.siaddr(), packet.giaddr()), (SERVER, Ipv4Addr::UNSPECIFIED));
        assert_eq!(packet.chaddr()[..6], MAC.0);
        assert_eq!((packet.sname(), packet.file()), (&b"10.77.0.2"[..], &b"T/undionly.kpxe"[..]));
        let options: Vec<(u8, Vec<u8>)> = packet.options().map(|option| (option.code, option.data.to_vec())).collect();
        let expected: [(u8, &[u8]); 7] = [
            (53, &[2]),
            (54, &[10, 77, 0, 2]),
            (60, b"PXEClient"),
            (97, &GUID),
            (43, &[6, 1, 8, 255]),
            (66, b"10.77.0.2"),
            (67, b"T/undionly.kpxe\0"),
        ];
        assert_eq!(options, expected.map(|(code, data)| (code, data.to_vec())));
        assert!(bytes.len() >= LENGTH_MIN, "{}", bytes.len());
    }

    #[test]
    fn http_clients_hear_their_own_class() {
        let bytes = offer(testing::Message::discover(16)).unwrap().bytes;
        assert_eq!(option(&bytes, options::VENDOR_CLASS).unwrap(), b"HTTPClient");
    }

    #[test]
    fn a_relay_gets_its_answer_and_its_option_82_last() {
        let relayed = testing::Message::discover(7).giaddr([10, 9, 0, 1]).with(82, &[1, 2, 0xab, 0xcd]);
        let reply = offer(relayed).unwrap();
        assert_eq!(reply.to, Destination::Unicast(SocketAddrV4::new([10, 9, 0, 1].into(), 67)));
        let packet = Packet::parse(&reply.bytes).unwrap();
        assert_eq!((packet.giaddr(), packet.flags()), ([10, 9, 0, 1].into(), 0));
        let last = packet.options().last().unwrap();
        assert_eq!((last.code, last.data), (82, &[1, 2, 0xab, 0xcd][..]));
    }

    #[test]
    fn names_are_not_repeated_where_there_is_no_room() {
        let relayed = |length| testing::Message::discover(7).giaddr([10, 9, 0, 1]).with(82, &vec![7; length]);
        let with_room = offer(relayed(200).with(options::MAX_MESSAGE_SIZE, &1472_u16.to_be_bytes())).unwrap();
        assert!(option(&with_room.bytes, options::BOOT_FILE).is_some());
        let roomy = with_room.bytes.len();
        // 576 is the least a client may name, and what counts when it names none.
        for size in [None, Some(10_u16)] {
            let message = size
                .iter()
                .fold(relayed(254), |message, size| message.with(options::MAX_MESSAGE_SIZE, &size.to_be_bytes()));
            let tight = offer(message).unwrap().bytes;
            assert!(tight.len() <= 548 && tight.len() > 300, "{} ({roomy})", tight.len());
            assert_eq!(option(&tight, options::BOOT_FILE), None);
            assert_eq!(Packet::parse(&tight).unwrap().file(), b"T/snponly.efi");
            assert_eq!(option(&tight, 82), Some(vec![7; 254]));
        }
        assert_eq!(offer(relayed(400)), Err(Reason::ReplyTooLong(548)));
    }

    #[test]
    fn a_boot_item_comes_back_also_to_uefi() {
        let asked = testing::Message::discover(7).with(43, &[71, 4, 0x80, 0, 0, 0, 255]);
        let vendor = option(&offer(asked).unwrap().bytes, options::VENDOR_SPECIFIC);
        assert_eq!(vendor, Some(vec![71, 4, 0x80, 0, 0, 0, 255]));
    }
}
