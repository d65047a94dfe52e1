//! Codes of the DHCP options and PXE sub-options that network booting uses.

/// Fills an area to an even length; has no length byte (RFC 2132 §3.1).
pub const PAD: u8 = 0;
/// Which bits of an address are the network's (RFC 2132 §3.3).
pub const SUBNET_MASK: u8 = 1;
/// Routers of the network, the preferred one first (RFC 2132 §3.5).
pub const ROUTER: u8 = 3;
/// Name servers, the preferred one first (RFC 2132 §3.8).
pub const DNS: u8 = 6;
/// A client's own name (RFC 2132 §3.14).
pub const HOSTNAME: u8 = 12;
/// The domain in which a client looks names up (RFC 2132 §3.17).
pub const DOMAIN: u8 = 15;
/// The largest packet of the network (RFC 2132 §5.1).
pub const INTERFACE_MTU: u8 = 26;
/// Time servers, the preferred one first (RFC 2132 §8.3).
pub const NTP: u8 = 42;
/// The address a client would like (RFC 2132 §9.1).
pub const REQUESTED_ADDRESS: u8 = 50;
/// Seconds for which an address is lent; all ones: for ever (RFC 2132 §9.2).
pub const LEASE_TIME: u8 = 51;
/// Which of `sname` and `file` hold options instead (RFC 2132 §9.3).
pub const OVERLOAD: u8 = 52;
/// What kind of message this is (RFC 2132 §9.6).
pub const MESSAGE_TYPE: u8 = 53;
/// The address by which a server is known (RFC 2132 §9.7).
pub const SERVER_ID: u8 = 54;
/// The options that a client would like to have (RFC 2132 §9.8).
pub const PARAMETER_LIST: u8 = 55;
/// The largest message a client takes (RFC 2132 §9.10).
pub const MAX_MESSAGE_SIZE: u8 = 57;
/// Seconds after which a lease is renewed at its server, T1 (RFC 2132 §9.11).
pub const RENEWAL_TIME: u8 = 58;
/// Seconds after which it is renewed at any server, T2 (RFC 2132 §9.12).
pub const REBINDING_TIME: u8 = 59;
/// `PXEClient…` or `HTTPClient…` (RFC 2132 §9.13).
pub const VENDOR_CLASS: u8 = 60;
/// PXE's own sub-options (RFC 2132 §8.4, PXE 2.1 table 2-1).
pub const VENDOR_SPECIFIC: u8 = 43;
/// By what a server knows a client: a hardware type and address, or anything else (RFC 2132 §9.14).
pub const CLIENT_ID: u8 = 61;
/// TFTP server name (RFC 2132 §9.4).
pub const TFTP_SERVER: u8 = 66;
/// Boot file name (RFC 2132 §9.5).
pub const BOOT_FILE: u8 = 67;
/// Who is asking: iPXE writes its name here (RFC 3004).
pub const USER_CLASS: u8 = 77;
/// What a relay agent adds and wants back unchanged, last of all (RFC 3046).
pub const RELAY_AGENT_INFO: u8 = 82;
/// Processor architecture and firmware (RFC 4578 §2.1).
pub const CLIENT_ARCH: u8 = 93;
/// Version of the network driver interface (RFC 4578 §2.2).
pub const CLIENT_NDI: u8 = 94;
/// The machine's UUID (RFC 4578 §2.3).
pub const CLIENT_GUID: u8 = 97;
/// iPXE's encapsulated features and settings.
pub const IPXE: u8 = 175;
/// Ends an area; has no length byte (RFC 2132 §3.2).
pub const END: u8 = 255;

/// Sub-options of [`VENDOR_SPECIFIC`] (PXE 2.1 table 2-1).
pub mod pxe {
    pub const DISCOVERY_CONTROL: u8 = 6;
    pub const BOOT_ITEM: u8 = 71;
    pub const END: u8 = 255;

    /// Discovery control: do not look for boot servers, load the file this packet names.
    pub const SKIP_DISCOVERY: u8 = 8;
}

/// Sub-options of [`IPXE`] that tell what an iPXE build can do (iPXE, `src/include/ipxe/features.h`).
pub mod ipxe {
    pub const FEATURE_HTTP: u8 = 0x13;
    pub const FEATURE_BZIMAGE: u8 = 0x18;
    pub const FEATURE_EFI: u8 = 0x24;
}

/// Values of [`MESSAGE_TYPE`].
pub mod message {
    pub const DISCOVER: u8 = 1;
    pub const OFFER: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const DECLINE: u8 = 4;
    pub const ACK: u8 = 5;
    pub const NAK: u8 = 6;
    pub const RELEASE: u8 = 7;
    pub const INFORM: u8 = 8;
}

/// Finds one sub-option in an encapsulated list of code, length, value; `None` also when the list is broken before it.
///
/// Nothing here can be trusted further than that: iPXE's own list is sound, but VirtualBox' and vendors' derivatives are
/// seen by nobody before they boot.
#[must_use]
pub fn find_suboption(list: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = list;
    while let [code, tail @ ..] = rest {
        match *code {
            PAD => rest = tail,
            END => return None,
            code => {
                let (&length, tail) = tail.split_first()?;
                let (value, after) = tail.split_at_checked(usize::from(length))?;
                if code == wanted {
                    return Some(value);
                }
                rest = after;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Option 175 of QEMU's iPXE ROM, as `seabios-ipxerom2019-proxydhcp-url.pcap` has it.
    const IPXE_ROM_2019: [u8; 48] = [
        0xb1, 5, 1, 0x80, 0x86, 0x10, 0x0e, 0xeb, 3, 1, 0, 0, 0x17, 1, 1, 0x22, 1, 1, 0x13, 1, 1, 0x11, 1, 1, 0x27, 1,
        1, 0x19, 1, 1, 0x29, 1, 1, 0x10, 1, 2, 0x21, 1, 1, 0x15, 1, 1, 0x18, 1, 1, 0x12, 1, 1,
    ];

    #[test]
    fn features_are_found_and_others_are_not() {
        assert_eq!(find_suboption(&IPXE_ROM_2019, ipxe::FEATURE_HTTP), Some(&[1][..]));
        assert_eq!(find_suboption(&IPXE_ROM_2019, ipxe::FEATURE_BZIMAGE), Some(&[1][..]));
        assert_eq!(find_suboption(&IPXE_ROM_2019, ipxe::FEATURE_EFI), None);
    }

    #[test]
    fn a_list_cut_anywhere_is_never_read_past_its_end() {
        for length in 0..IPXE_ROM_2019.len() {
            let found = find_suboption(&IPXE_ROM_2019[..length], ipxe::FEATURE_BZIMAGE);
            assert_eq!(found.is_some(), length >= 45, "{length}");
        }
        assert_eq!(find_suboption(&[0, 0, 255, 6, 1, 8], pxe::DISCOVERY_CONTROL), None, "nothing counts after the end");
    }
}
