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
    /// [`Reason::Denied`], [`Reason::NotAllowed`] or [`Reason::Stopped`].
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
    #[error("netboot is stopped at the console")]
    Stopped,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::options;
    use crate::dhcp::packet::Packet;
    use crate::dhcp::reply::Destination;
    use crate::dhcp::testing::{self, IPXE_BIOS, IPXE_POOR, IPXE_UEFI, MAC, ON_67, ON_4011, SERVER, option};

    const DISCOVER: u8 = options::message::DISCOVER;
    const REQUEST: u8 = options::message::REQUEST;
    const INFORM: u8 = options::message::INFORM;
    const DHCP_SERVER: [u8; 4] = [10, 77, 0, 1];

    fn ask(message: testing::Message, arrival: &Arrival, image: Arch) -> Decision {
        match Request::parse(&message.bytes(), arrival.link_source) {
            Ok(request) => decide(&request, arrival, &testing::policy(image)),
            Err(refused) => Decision::Ignore(refused.reason),
        }
    }

    /// The OFFER to a DISCOVER on port 67.
    fn offer(message: testing::Message, image: Arch) -> Reply {
        match ask(message, &ON_67, image) {
            Decision::Offer(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn ignored(message: testing::Message, arrival: &Arrival) -> String {
        match ask(message, arrival, Arch::Amd64) {
            Decision::Ignore(reason) => reason.to_string(),
            other => panic!("{other:?}"),
        }
    }

    fn file(reply: &Reply) -> String {
        let packet = Packet::parse(&reply.bytes).unwrap();
        let in_header = String::from_utf8(packet.file().to_vec()).unwrap();
        let in_option = option(&reply.bytes, options::BOOT_FILE).unwrap();
        assert_eq!(in_option, format!("{in_header}\0").as_bytes(), "header and option 67 say the same");
        in_header
    }

    #[test]
    fn who_gets_what() {
        let discover = testing::Message::discover;
        let cases = [
            ("BIOS ROM", discover(0), Arch::Amd64, "T/undionly.kpxe"),
            ("x64 UEFI", discover(7), Arch::Amd64, "T/snponly.efi"),
            ("x64 UEFI as 8", discover(8), Arch::Amd64, "T/snponly.efi"),
            ("x64 UEFI as 9", discover(9), Arch::Amd64, "T/snponly.efi"),
            ("arm64 UEFI", discover(11), Arch::Arm64, "T/ipxe-arm64.efi"),
            ("x64 HTTP", discover(16), Arch::Amd64, "http://10.77.0.2:8090/T/ipxe-amd64.efi"),
            ("arm64 HTTP", discover(19), Arch::Arm64, "http://10.77.0.2:8090/T/ipxe-arm64.efi"),
            ("BIOS iPXE", discover(0).ipxe(IPXE_BIOS), Arch::Amd64, "http://10.77.0.2:8090/T/boot.ipxe"),
            ("UEFI iPXE", discover(7).ipxe(IPXE_UEFI), Arch::Amd64, "http://10.77.0.2:8090/T/boot.ipxe"),
            ("arm64 iPXE", discover(11).ipxe(IPXE_UEFI), Arch::Arm64, "http://10.77.0.2:8090/T/boot.ipxe"),
            ("VirtualBox", discover(0).ipxe(IPXE_POOR), Arch::Amd64, "tftp://10.77.0.2/T/undionly.kpxe"),
            ("UEFI iPXE without EFI", discover(7).ipxe(IPXE_BIOS), Arch::Amd64, "tftp://10.77.0.2/T/snponly.efi"),
            ("iPXE without option 175", discover(0).ipxe(&[]), Arch::Amd64, "tftp://10.77.0.2/T/undionly.kpxe"),
        ];
        for (client, message, image, expected) in cases {
            let reply = offer(message, image);
            assert_eq!(file(&reply), expected, "{client}");
            assert_eq!(reply.to, Destination::Broadcast, "{client}");
        }
    }

    #[test]
    fn option_43_is_for_bios_only() {
        let discover = testing::Message::discover;
        let vendor = |message, image| option(&offer(message, image).bytes, options::VENDOR_SPECIFIC);
        for message in [discover(0), discover(0).ipxe(IPXE_BIOS), discover(0).ipxe(IPXE_POOR)] {
            assert_eq!(vendor(message, Arch::Amd64), Some(vec![6, 1, 8, 255]));
        }
        for message in [discover(7), discover(7).ipxe(IPXE_UEFI), discover(16)] {
            assert_eq!(vendor(message, Arch::Amd64), None);
        }
        assert_eq!(vendor(discover(11), Arch::Arm64), None);
    }

    #[test]
    fn the_user_class_in_both_spellings() {
        for class in [&b"iPXE"[..], b"\x04iPXE"] {
            let message = testing::Message::discover(0)
                .with(options::USER_CLASS, class)
                .with(options::IPXE, &[0xb1, 2, 9, 9, 0x13, 1, 1, 0x18, 1, 1]);
            assert_eq!(offer(message, Arch::Amd64).boot, Boot::Script);
        }
        let other = testing::Message::discover(0).with(options::USER_CLASS, b"gPXE");
        assert_eq!(offer(other, Arch::Amd64).boot, Boot::TftpPath(Loader::UndionlyKpxe));
    }

    #[test]
    fn the_first_known_architecture_counts() {
        let message = testing::Message::bare(DISCOVER)
            .with(options::VENDOR_CLASS, b"PXEClient")
            .with(options::CLIENT_ARCH, &[0x12, 0x34, 0, 7, 0, 0]);
        assert_eq!(file(&offer(message, Arch::Amd64)), "T/snponly.efi");
    }

    #[test]
    fn each_reason_not_to_answer() {
        let discover = testing::Message::discover;
        let bare = || testing::Message::bare(DISCOVER);
        let cases = [
            (bare(), "not a network boot"),
            (bare().with(60, b"MSFT 5.0"), "not a network boot"),
            (discover(0).kind(4), "not a network boot"),
            (bare().with(60, b"PXEClient"), "no client architecture (option 93)"),
            (bare().with(60, b"PXEClient").with(93, &[0x12, 0x34]), "unknown client architecture 4660"),
            (bare().with(60, b"PXEClient").with(93, &[0, 7, 0]), "malformed at byte 254: option 93 has 3 bytes"),
            (discover(7).with(94, &[1, 3]), "malformed at byte 300: option 94 has 2 bytes"),
            (
                bare().with(60, b"PXEClient").with(93, &[0, 7]).with(97, &[0; 16]),
                "malformed at byte 258: option 97 has 16 bytes",
            ),
            (discover(6), "no boot loader for this firmware (x86 (32-bit) UEFI)"),
            (discover(22), "no boot loader for this firmware (arm64 U-Boot)"),
            (discover(11), "the image is amd64, this machine is arm64"),
            (discover(19), "the image is amd64, this machine is arm64"),
            (discover(0).mac([0xdc, 0xa6, 0x32, 1, 2, 3]), "Raspberry Pi boot code is not supported yet"),
            (discover(41), "Raspberry Pi boot code is not supported yet"),
            (discover(0).mac([2, 0, 0, 0, 0, 0xdd]), "denied by netboot.deny"),
            (discover(0).mac([2, 0, 0, 0, 0, 0xee]), "not in netboot.allow"),
            (discover(0).patch(0, &[2]), "an answer of another server"),
            (discover(0).patch(1, &[6, 6]), "malformed at byte 1: hardware address of 6 bytes"),
            (discover(0).patch(1, &[1, 17]), "malformed at byte 1: hardware address of 17 bytes"),
            (discover(0).kind(REQUEST).with(54, &DHCP_SERVER), "addressed to another server"),
            (discover(0).kind(REQUEST), "addressed to another server"),
            (discover(0).kind(INFORM), "addressed to another server"),
            (
                discover(0).with(43, &[71, 4, 0, 1, 0x80, 0, 255]),
                "asks for a signed boot server reply, which is not supported",
            ),
        ];
        for (message, expected) in cases {
            assert_eq!(ignored(message, &ON_67), expected);
        }
    }

    #[test]
    fn on_67_only_what_is_for_us_is_acknowledged() {
        let request = || testing::Message::discover(0).kind(REQUEST);
        for message in [request().with(54, &SERVER.octets()), request().with(43, &[71, 4, 0, 1, 0, 0, 255])] {
            assert!(matches!(ask(message, &ON_67, Arch::Amd64), Decision::Ack(_)));
        }
        let elsewhere = request().with(54, &DHCP_SERVER).with(43, &[71, 4, 0, 1, 0, 0, 255]);
        assert_eq!(ignored(elsewhere, &ON_67), "addressed to another server");
    }

    #[test]
    fn a_lease_asked_for_at_our_address_is_the_dhcp_servers_beside_us() {
        let request = |address: &[u8; 4]| {
            testing::Message::discover(7).kind(REQUEST).with(54, &SERVER.octets()).with(50, address)
        };
        assert_eq!(ignored(request(&[10, 77, 0, 165]), &ON_67), "addressed to another server");
        let of_ours = request(&[0; 4]); // a ROM that repeats the yiaddr of our OFFER
        assert!(matches!(ask(of_ours, &ON_67, Arch::Amd64), Decision::Ack(_)));
    }

    #[test]
    fn on_4011_every_firmware_gets_its_ack_where_it_asked_from() {
        for (arch, expected) in [(0, "T/undionly.kpxe"), (7, "T/snponly.efi")] {
            for server in [None, Some(SERVER.octets()), Some(DHCP_SERVER)] {
                let message = testing::Message::discover(arch).kind(REQUEST).ciaddr([10, 77, 0, 165]);
                let message = server.iter().fold(message, |message, id| message.with(54, id));
                let Decision::Ack(reply) = ask(message, &ON_4011, Arch::Amd64) else { panic!("no ACK") };
                assert_eq!(file(&reply), expected);
                assert_eq!(reply.to, Destination::Unicast(ON_4011.source));
                let packet = Packet::parse(&reply.bytes).unwrap();
                assert_eq!((packet.ciaddr(), packet.flags()), (*ON_4011.source.ip(), 0));
            }
        }
        let broadcast = Arrival { unicast: false, ..ON_4011 };
        let elsewhere = testing::Message::discover(7).kind(REQUEST).with(54, &DHCP_SERVER);
        assert_eq!(ignored(elsewhere, &broadcast), "addressed to another server");
        let stray = testing::Message::discover(7);
        assert!(matches!(ask(stray, &ON_4011, Arch::Amd64), Decision::Offer(_)));
    }

    #[test]
    fn an_address_of_16_bytes_is_a_guid_and_the_frame_tells_the_mac() {
        let message = testing::Message::discover(7).patch(2, &[16]).patch(28, &[0xaa; 16]);
        let reply = offer(message, Arch::Amd64);
        assert_eq!(reply.mac, MAC);
        assert_eq!(reply.bytes[28..44], [0xaa; 16], "copied back as it came");
        assert_eq!(reply.bytes[2], 16);
    }
}
