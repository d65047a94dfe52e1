//! What a DHCP message from a client means to a boot server.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;

use super::arch::{self, ClientArch, Firmware};
use super::decide::Reason;
use super::options::{self, ipxe, pxe};
use super::packet::{BOOT_REQUEST, Flaw, Malformed, Packet};
use crate::units::MacAddr;

/// The hardware type of Ethernet and of what looks like it (RFC 1700).
const ETHERNET: u8 = 1;

/// The messages a client sends that a boot server has an answer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    Discover,
    Request,
    Inform,
}

/// What a client says it is, in option 60.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VendorClass {
    Pxe,
    Http,
}

impl VendorClass {
    /// What the answer's option 60 says: firmware compares these bytes only, and drops an answer of the other class.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pxe => "PXEClient",
            Self::Http => "HTTPClient",
        }
    }
}

/// What the iPXE that asks was built with, out of option 175.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpxeFeatures {
    pub http: bool,
    pub bzimage: bool,
    pub efi: bool,
}

/// Which kind of program asks; prints as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    pub arch: &'static ClientArch,
    pub ipxe: Option<IpxeFeatures>,
}

impl Client {
    /// Whether this iPXE can fetch our script, and start a kernel on this firmware.
    #[must_use]
    pub fn runs_scripts(&self) -> bool {
        self.ipxe.is_some_and(|can| {
            let boots = if self.arch.firmware == Firmware::BiosPxe { can.bzimage } else { can.efi };
            can.http && boots
        })
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let program = match self.ipxe {
            None => "",
            Some(_) if self.runs_scripts() => ", iPXE",
            Some(_) => ", limited iPXE",
        };
        write!(f, "{}{program}", self.arch.name)
    }
}

/// A network-boot request: a [`Packet`] understood.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    pub packet: Packet<'a>,
    pub message: Message,
    pub mac: MacAddr,
    pub class: VendorClass,
    pub client: Client,
    /// Option 97 as it came, to be sent back.
    pub guid: Option<[u8; 17]>,
    /// Option 54: the server the client has chosen.
    pub server_id: Option<Ipv4Addr>,
    /// Option 43.71: the boot server type and layer the client asks for.
    pub boot_item: Option<[u8; 4]>,
    /// Option 57.
    pub max_message_size: Option<u16>,
    /// Option 82, to be sent back last.
    pub relay_agent_info: Option<Cow<'a, [u8]>>,
}

impl<'a> Request<'a> {
    /// Reads a message. `link_source` is the Ethernet address it came from, when it came straight from the machine.
    ///
    /// # Errors
    /// Why it is nothing a boot server answers, in the order an operator would ask: is it DHCP, is it a network boot, is it sound.
    pub fn parse(bytes: &'a [u8], link_source: Option<MacAddr>) -> Result<Self, Refused> {
        let anonymous = |reason| Refused { mac: None, reason };
        let packet = Packet::parse(bytes).map_err(|flaw| anonymous(Reason::Malformed(flaw)))?;
        if packet.op() != BOOT_REQUEST {
            return Err(anonymous(Reason::NotARequest));
        }
        let mac = hardware_address(&packet, link_source).map_err(anonymous)?;
        Self::understand(packet, mac).map_err(|reason| Refused { mac: Some(mac), reason })
    }

    fn understand(packet: Packet<'a>, mac: MacAddr) -> Result<Self, Reason> {
        let message = message(&packet)?;
        let class = vendor_class(&packet)?;
        let guid = packet.option(options::CLIENT_GUID);
        let client = Client { arch: client_arch(&packet, mac, guid.as_deref())?, ipxe: ipxe_features(&packet) };
        let guid = guid.map(|guid| check_guid(&packet, &guid)).transpose()?;
        // Option 94 says nothing we need, but a wrong length shows that the options are not to be trusted.
        packet.option_array::<3>(options::CLIENT_NDI)?;
        Ok(Self {
            packet,
            message,
            mac,
            class,
            client,
            guid,
            server_id: packet.option_array::<4>(options::SERVER_ID)?.map(Ipv4Addr::from),
            boot_item: boot_item(&packet),
            max_message_size: packet.option_array(options::MAX_MESSAGE_SIZE)?.map(u16::from_be_bytes),
            relay_agent_info: packet.option(options::RELAY_AGENT_INFO),
        })
    }
}

/// A message that is not answered, and whose it was if that could be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    pub mac: Option<MacAddr>,
    pub reason: Reason,
}

/// The machine's MAC address.
///
/// Old EDK2 can be set to send its UUID as a 16-byte `chaddr` (`SendGUID`): then the frame tells the address.
fn hardware_address(packet: &Packet<'_>, link_source: Option<MacAddr>) -> Result<MacAddr, Reason> {
    let [a, b, c, d, e, f, ..] = packet.chaddr();
    let claimed = MacAddr([a, b, c, d, e, f]);
    match (packet.htype(), packet.hlen()) {
        // No network card has a group address (IEEE 802 §8.2) or none at all.
        (ETHERNET, 6) if claimed.0[0] & 1 == 1 || claimed.0 == [0; 6] => {
            Err(Reason::Malformed(Malformed { at: 28, flaw: Flaw::HardwareAddress }))
        }
        (ETHERNET, 6) => Ok(claimed),
        (ETHERNET, 7..=16) if packet.giaddr().is_unspecified() => Ok(link_source.unwrap_or(claimed)),
        (ETHERNET, 7..=16) => Ok(claimed),
        (_, length) => Err(Reason::Malformed(Malformed { at: 1, flaw: Flaw::HardwareLength(length) })),
    }
}

fn message(packet: &Packet<'_>) -> Result<Message, Reason> {
    let Some([kind]) = packet.option_array(options::MESSAGE_TYPE)? else { return Err(Reason::NotPxe) };
    match kind {
        options::message::DISCOVER => Ok(Message::Discover),
        options::message::REQUEST => Ok(Message::Request),
        options::message::INFORM => Ok(Message::Inform),
        _ => Err(Reason::NotPxe), // DECLINE, RELEASE: for the DHCP server
    }
}

fn vendor_class(packet: &Packet<'_>) -> Result<VendorClass, Reason> {
    match packet.option(options::VENDOR_CLASS) {
        Some(class) if class.starts_with(b"PXEClient") => Ok(VendorClass::Pxe),
        Some(class) if class.starts_with(b"HTTPClient") => Ok(VendorClass::Http),
        // U-Boot's own `pxe` command; the arch table knows that there is nothing for it yet.
        Some(class) if class.starts_with(b"U-Boot") => Ok(VendorClass::Pxe),
        _ => Err(Reason::NotPxe),
    }
}

/// The first architecture in option 93 that is known; a client may list several (RFC 4578 §2.1).
fn client_arch(packet: &Packet<'_>, mac: MacAddr, guid: Option<&[u8]>) -> Result<&'static ClientArch, Reason> {
    let Some(list) = packet.option(options::CLIENT_ARCH) else { return Err(Reason::NoClientArch) };
    let (codes, rest) = list.as_chunks::<2>();
    let Some(&first) = codes.first().filter(|_| rest.is_empty()) else {
        return Err(packet.bad_length(options::CLIENT_ARCH, list.len()).into());
    };
    let known = codes.iter().find_map(|&code| arch::client_arch(u16::from_be_bytes(code)));
    let row = known.ok_or(Reason::UnknownClientArch(u16::from_be_bytes(first)))?;
    if row.firmware == Firmware::RaspberryPi || (row.code == 0 && arch::is_raspberry_pi(mac.0, guid)) {
        return Err(Reason::RaspberryPi);
    }
    Ok(row)
}

/// Option 97 must be what RFC 4578 §2.3 says, or it could not be sent back.
fn check_guid(packet: &Packet<'_>, guid: &[u8]) -> Result<[u8; 17], Reason> {
    match <[u8; 17]>::try_from(guid) {
        Ok(guid) if guid[0] == 0 => Ok(guid),
        _ => Err(packet.bad_length(options::CLIENT_GUID, guid.len()).into()),
    }
}

/// iPXE says its name plainly (`iPXE`) or, from 2.0 on when asked to, as RFC 3004 wants it: with a length in front.
fn ipxe_features(packet: &Packet<'_>) -> Option<IpxeFeatures> {
    let class = packet.option(options::USER_CLASS)?;
    if !matches!(class.as_ref(), b"iPXE" | b"\x04iPXE") {
        return None;
    }
    let list = packet.option(options::IPXE).unwrap_or_default();
    let has = |feature| options::find_suboption(&list, feature).is_some_and(|value| value != [0]);
    Some(IpxeFeatures {
        http: has(ipxe::FEATURE_HTTP),
        bzimage: has(ipxe::FEATURE_BZIMAGE),
        efi: has(ipxe::FEATURE_EFI),
    })
}

fn boot_item(packet: &Packet<'_>) -> Option<[u8; 4]> {
    let list = packet.option(options::VENDOR_SPECIFIC)?;
    options::find_suboption(&list, pxe::BOOT_ITEM)?.try_into().ok()
}

impl From<Malformed> for Reason {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}
