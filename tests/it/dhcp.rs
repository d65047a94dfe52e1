//! What real firmware sent, and what it gets for it.

use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use auroraboot::dhcp::decide::decide;
use auroraboot::dhcp::frame::{self, Datagram, UdpChecksum};
use auroraboot::dhcp::packet::{OPTIONS_AT, Packet};
use auroraboot::dhcp::{Arrival, BootFiles, Decision, Loader, Machines, Policy, Port, Reason, Reply, Request};
use auroraboot::units::{Arch, MacAddr};

/// Lets everybody boot an amd64 image.
pub fn policy() -> Policy {
    Policy { image: Arch::Amd64, machines: Box::new(Everybody), files: Box::new(PlainNames) }
}

#[derive(Debug)]
struct Everybody;

impl Machines for Everybody {
    fn admit(&self, _mac: MacAddr) -> Result<(), Reason> {
        Ok(())
    }
}

#[derive(Debug)]
struct PlainNames;

impl BootFiles for PlainNames {
    fn tftp_name(&self, mac: MacAddr, loader: Loader) -> String {
        format!("{mac}/{}", loader.file_name())
    }

    fn loader_url(&self, server: Ipv4Addr, mac: MacAddr, loader: Loader) -> String {
        format!("http://{server}:8090/{mac}/{}", loader.file_name())
    }

    fn script_url(&self, server: Ipv4Addr, mac: MacAddr) -> String {
        format!("http://{server}:8090/{mac}/boot.ipxe")
    }
}

/// The frames of a capture in the classic format of libpcap, as tcpdump writes it.
pub fn frames(capture: &str) -> Vec<Vec<u8>> {
    let bytes = fs::read(data(capture)).unwrap();
    assert_eq!(bytes[..4], 0xa1b2_c3d4_u32.to_le_bytes(), "{capture} is little-endian with microseconds");
    let mut frames = Vec::new();
    let mut rest = &bytes[24..];
    while let Some((header, tail)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        frames.push(tail[..length].to_vec());
        rest = &tail[length..];
    }
    frames
}

/// The DHCP messages of a capture, as they would reach us.
pub fn messages(capture: &str) -> Vec<(Arrival, Vec<u8>)> {
    let dhcp = |frame: &Vec<u8>| {
        let Datagram { link_source, source, destination, payload } = frame::parse(frame, UdpChecksum::Filled).ok()?;
        let port = match destination.port() {
            67 => Port::Dhcp,
            4011 => Port::Pxe,
            _ => return None,
        };
        let unicast = !destination.ip().is_broadcast();
        let server = Ipv4Addr::new(10, 77, 0, 2);
        let link_source = Some(link_source);
        Some((Arrival { port, interface: 2, server, source, link_source, unicast }, payload.to_vec()))
    };
    frames(capture).iter().filter_map(dhcp).collect()
}

fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/pcap").join(name)
}

pub const OVMF: &str = "ovmf202211-x64-proxydhcp-binl-4011-tftp-ipxe2-autoexec.pcap";
pub const OVMF_ALONE: &str = "ovmf-nobootfile.pcap";
pub const SEABIOS_IPXE: &str = "seabios-ipxerom2019-proxydhcp-url.pcap";

fn verdict(arrival: &Arrival, message: &[u8]) -> Decision {
    match Request::parse(message, arrival.link_source) {
        Ok(request) => decide(&request, arrival, &policy()),
        Err(refused) => Decision::Ignore(refused.reason),
    }
}

fn describe(out: &mut String, reply: &Reply) {
    let packet = Packet::parse(&reply.bytes).unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    writeln!(out, "  to {:?}, for {}", reply.to, reply.client).unwrap();
    writeln!(
        out,
        "  {} bytes, flags {:#06x}, ciaddr {}, yiaddr {}, siaddr {}, giaddr {}, sname {}, file {}",
        reply.bytes.len(),
        packet.flags(),
        packet.ciaddr(),
        packet.yiaddr(),
        packet.siaddr(),
        packet.giaddr(),
        text(packet.sname()),
        text(packet.file())
    )
    .unwrap();
    for option in packet.options() {
        writeln!(out, "  option {} = {}", option.code, option.data.escape_ascii()).unwrap();
    }
}

fn transcript(capture: &str) -> String {
    let mut out = String::new();
    for (number, (arrival, message)) in messages(capture).iter().enumerate() {
        let port = arrival.port.number();
        write!(out, "message {number} from {} to port {port}: ", arrival.source).unwrap();
        match verdict(arrival, message) {
            Decision::Ignore(reason) => writeln!(out, "ignored: {reason}").unwrap(),
            Decision::Offer(reply) => {
                out.push_str("OFFER\n");
                describe(&mut out, &reply);
            }
            Decision::Ack(reply) => {
                out.push_str("ACK\n");
                describe(&mut out, &reply);
            }
        }
    }
    out
}

/// Run with `UPDATE=1` to write the transcripts anew, then read what has changed.
#[test]
fn captures_of_real_firmware_get_the_answers_on_record() {
    for capture in [OVMF, OVMF_ALONE, SEABIOS_IPXE] {
        let golden = data(capture).with_extension("txt");
        let now = transcript(capture);
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&golden, &now).unwrap();
        }
        let before = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(now, before, "{capture}");
    }
}

fn all_messages() -> Vec<(Arrival, Vec<u8>)> {
    [OVMF, OVMF_ALONE, SEABIOS_IPXE].iter().flat_map(|capture| messages(capture)).collect()
}

#[test]
fn a_message_cut_anywhere_is_ignored_as_malformed() {
    for (arrival, message) in all_messages() {
        for length in 0..message.len() {
            let decision = verdict(&arrival, &message[..length]);
            assert!(matches!(decision, Decision::Ignore(Reason::Malformed(_))), "{length}: {decision:?}");
        }
    }
}

#[test]
fn an_option_with_a_wrong_length_never_misleads() {
    for (arrival, message) in all_messages() {
        let right = verdict(&arrival, &message);
        let lengths: Vec<usize> = Packet::parse(&message).unwrap().options().map(|option| option.at + 1).collect();
        for at in lengths {
            assert!(at > OPTIONS_AT);
            for length in 0..=255 {
                let mut wrong = message.clone();
                wrong[at] = length;
                match verdict(&arrival, &wrong) {
                    Decision::Ignore(reason) => assert!(!reason.to_string().is_empty()),
                    // Some wrong lengths only hide options the answer does not depend on, and it still goes to the same
                    // machine; a loader of another kind must never come of it.
                    Decision::Offer(reply) | Decision::Ack(reply) => {
                        let (Decision::Offer(expected) | Decision::Ack(expected)) = &right else {
                            panic!("answered what is ignored when it is right: byte {at} = {length}")
                        };
                        assert_eq!((reply.mac, reply.client.arch), (expected.mac, expected.client.arch));
                        assert!(Packet::parse(&reply.bytes).is_ok());
                    }
                }
            }
        }
    }
}

#[test]
fn no_single_byte_of_a_message_makes_it_panic() {
    for (arrival, message) in [OVMF, SEABIOS_IPXE].iter().flat_map(|capture| messages(capture).into_iter().take(1)) {
        for at in 0..message.len() {
            for value in 0..=255 {
                let mut wrong = message.clone();
                wrong[at] = value;
                if let Decision::Offer(reply) = verdict(&arrival, &wrong) {
                    assert!(Packet::parse(&reply.bytes).is_ok(), "byte {at} = {value}");
                }
            }
        }
    }
}
