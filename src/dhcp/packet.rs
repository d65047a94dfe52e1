//! A checked view of the bytes of one DHCP message (RFC 2131 §2).
//!
//! Nothing is copied and nothing panics, whatever the bytes are. What they mean is [`super::request`]'s business.

use std::borrow::Cow;
use std::net::Ipv4Addr;

use super::options;

/// Length of the fixed part, up to the magic cookie.
pub const HEADER_LEN: usize = 236;
/// What tells DHCP from plain BOOTP (RFC 1497).
pub const MAGIC_COOKIE: [u8; 4] = [99, 130, 83, 99];
/// Where the options start.
pub const OPTIONS_AT: usize = HEADER_LEN + MAGIC_COOKIE.len();
/// The flag with which a client asks for broadcast answers (RFC 2131 §2, figure 2).
pub const FLAG_BROADCAST: u16 = 0x8000;
/// `op` of a message from a client.
pub const BOOT_REQUEST: u8 = 1;
/// `op` of a message from a server.
pub const BOOT_REPLY: u8 = 2;

const SNAME: std::ops::Range<usize> = 44..108;
const FILE: std::ops::Range<usize> = 108..236;

/// Why bytes are not a DHCP message, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed at byte {at}: {flaw}")]
pub struct Malformed {
    /// Offset from the start of the DHCP message.
    pub at: usize,
    pub flaw: Flaw,
}

/// What is wrong with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the message ends before its fixed part is complete")]
    ShortHeader,
    #[error("not DHCP: the magic cookie is missing")]
    NoCookie,
    #[error("option {0} runs over the end")]
    OptionOverruns(u8),
    #[error("the options have no end mark")]
    NoEnd,
    #[error("option {code} has {length} bytes")]
    OptionLength { code: u8, length: usize },
    #[error("hardware address of {0} bytes")]
    HardwareLength(u8),
    #[error("the hardware address is no card's")]
    HardwareAddress,
}

/// One option as it stands in the message; long values are split over several (RFC 3396).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawOption<'a> {
    pub code: u8,
    pub data: &'a [u8],
    /// Offset of the code byte from the start of the message.
    pub at: usize,
}

/// A DHCP message whose fixed part is complete and whose options end where they should.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    overload: u8,
}

impl<'a> Packet<'a> {
    /// Checks the fixed part, and walks all options, also those in `file` and `sname` (RFC 2132 §9.3).
    ///
    /// Messages below BOOTP's 300 bytes pass: several ROMs do not pad.
    ///
    /// # Errors
    /// The first flaw and its offset.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_LEN {
            return Err(Malformed { at: bytes.len(), flaw: Flaw::ShortHeader });
        }
        if bytes.get(HEADER_LEN..OPTIONS_AT) != Some(&MAGIC_COOKIE[..]) {
            return Err(Malformed { at: HEADER_LEN, flaw: Flaw::NoCookie });
        }
        let mut packet = Self { bytes, overload: 0 };
        packet.overload = packet.read_overload()?;
        for option in packet.walk() {
            option?;
        }
        Ok(packet)
    }

    #[must_use]
    pub fn op(&self) -> u8 {
        self.bytes[0]
    }

    /// Hardware type; 1 is Ethernet.
    #[must_use]
    pub fn htype(&self) -> u8 {
        self.bytes[1]
    }

    /// Length of the hardware address as claimed; [`Self::chaddr`] is 16 bytes whatever this says.
    #[must_use]
    pub fn hlen(&self) -> u8 {
        self.bytes[2]
    }

    /// Transaction id.
    #[must_use]
    pub fn xid(&self) -> u32 {
        u32::from_be_bytes(self.array(4))
    }

    /// Seconds since the client began; iPXE keeps `tries << 2 | heard a DHCP offer << 1 | heard a proxy's` here.
    #[must_use]
    pub fn secs(&self) -> u16 {
        u16::from_be_bytes(self.array(8))
    }

    #[must_use]
    pub fn flags(&self) -> u16 {
        u16::from_be_bytes(self.array(10))
    }

    /// The client's own address, when it has one that it can answer for.
    #[must_use]
    pub fn ciaddr(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.array(12))
    }

    /// `yiaddr`: the address a server leases (a proxy leases none).
    #[must_use]
    pub fn yiaddr(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.array(16))
    }

    /// `siaddr`: the server to load from.
    #[must_use]
    pub fn siaddr(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.array(20))
    }

    /// The relay agent that passed this on, or 0.0.0.0.
    #[must_use]
    pub fn giaddr(&self) -> Ipv4Addr {
        Ipv4Addr::from(self.array(24))
    }

    /// The client's hardware address and its padding.
    #[must_use]
    pub fn chaddr(&self) -> [u8; 16] {
        self.array(28)
    }

    /// `sname` up to its first NUL, or whole when it has none; empty when it holds options.
    #[must_use]
    pub fn sname(&self) -> &'a [u8] {
        if self.overload & 2 == 0 { until_nul(&self.bytes[SNAME]) } else { &[] }
    }

    /// `file` up to its first NUL, or whole when it has none; empty when it holds options.
    #[must_use]
    pub fn file(&self) -> &'a [u8] {
        if self.overload & 1 == 0 { until_nul(&self.bytes[FILE]) } else { &[] }
    }

    /// All options in the order of RFC 3396 §5: the options field, then `file`, then `sname`.
    pub fn options(&self) -> impl Iterator<Item = RawOption<'a>> + use<'a> {
        self.walk().map_while(Result::ok)
    }

    /// The value of an option, its parts joined (RFC 3396).
    #[must_use]
    pub fn option(&self, code: u8) -> Option<Cow<'a, [u8]>> {
        let mut parts = self.options().filter(|option| option.code == code).map(|option| option.data);
        let mut value = Cow::Borrowed(parts.next()?);
        for part in parts {
            value.to_mut().extend_from_slice(part);
        }
        Some(value)
    }

    /// The value of an option whose length is fixed.
    ///
    /// # Errors
    /// When the option is there with another length.
    pub fn option_array<const N: usize>(&self, code: u8) -> Result<Option<[u8; N]>, Malformed> {
        let Some(value) = self.option(code) else { return Ok(None) };
        value.as_ref().try_into().map(Some).map_err(|_| self.bad_length(code, value.len()))
    }

    /// The complaint about an option of a wrong length, at its place.
    #[must_use]
    pub fn bad_length(&self, code: u8, length: usize) -> Malformed {
        let at = self.options().find(|option| option.code == code).map_or(OPTIONS_AT, |option| option.at);
        Malformed { at, flaw: Flaw::OptionLength { code, length } }
    }

    fn read_overload(&self) -> Result<u8, Malformed> {
        let mut overload = 0;
        for option in (Walk { bytes: self.bytes, at: OPTIONS_AT, areas: [self.bytes.len(), 0, 0] }) {
            let RawOption { code, data, at } = option?;
            if code == options::OVERLOAD {
                let [value @ 1..=3] = *data else {
                    return Err(Malformed { at, flaw: Flaw::OptionLength { code, length: data.len() } });
                };
                overload = value;
            }
        }
        Ok(overload)
    }

    fn walk(&self) -> Walk<'a> {
        let file = if self.overload & 1 == 0 { 0 } else { FILE.end };
        let sname = if self.overload & 2 == 0 { 0 } else { SNAME.end };
        Walk { bytes: self.bytes, at: OPTIONS_AT, areas: [self.bytes.len(), file, sname] }
    }

    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[at..at + N]); // within HEADER_LEN, which parse() has checked
        array
    }
}

/// Goes through the options of each area in turn; after a flaw it is over.
#[derive(Debug)]
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Ends of the options field, of `file` and of `sname`; 0 where there is nothing (more) to read.
    areas: [usize; 3],
}

impl<'a> Walk<'a> {
    fn next_area(&mut self) {
        self.areas.rotate_left(1);
        self.areas[2] = 0;
        if self.areas[0] == 0 {
            self.areas.swap(0, 1);
        }
        self.at = if self.areas[0] == FILE.end { FILE.start } else { SNAME.start };
    }

    fn fail(&mut self, at: usize, flaw: Flaw) -> Option<Result<RawOption<'a>, Malformed>> {
        self.areas = [0; 3];
        Some(Err(Malformed { at, flaw }))
    }
}

impl<'a> Iterator for Walk<'a> {
    type Item = Result<RawOption<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let end = self.areas[0];
            if end == 0 {
                return None;
            }
            let at = self.at;
            match self.bytes[..end].get(at) {
                // RFC 2131 §4.1: "The last option must always be the 'end' option"; without it the message was cut.
                None => return self.fail(at, Flaw::NoEnd),
                Some(&options::END) => self.next_area(),
                Some(&options::PAD) => self.at += 1,
                Some(&code) => {
                    let Some(&length) = self.bytes[..end].get(at + 1) else {
                        return self.fail(at, Flaw::OptionOverruns(code));
                    };
                    let data_at = at + 2;
                    let Some(data) = self.bytes[..end].get(data_at..data_at + usize::from(length)) else {
                        return self.fail(at, Flaw::OptionOverruns(code));
                    };
                    self.at = data_at + data.len();
                    return Some(Ok(RawOption { code, data, at }));
                }
            }
        }
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with these option bytes after the cookie.
    fn message(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_LEN];
        bytes.extend(MAGIC_COOKIE);
        bytes.extend(options);
        bytes
    }

    #[test]
    fn options_are_joined_over_all_three_areas() {
        let mut bytes = message(&[43, 2, 1, 2, 52, 1, 3, 0, 43, 1, 3, 255, 9, 9]);
        bytes[FILE][..7].copy_from_slice(&[0, 43, 1, 4, 255, 43, 1]);
        bytes[SNAME][..4].copy_from_slice(&[43, 1, 5, 255]);
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.option(43).unwrap().as_ref(), [1, 2, 3, 4, 5]);
        assert_eq!(packet.file(), b"", "holds options, not a name");
        assert_eq!(packet.option(60), None);
    }

    #[test]
    fn only_sname_overloaded() {
        let mut bytes = message(&[52, 1, 2, 255]);
        bytes[SNAME][..4].copy_from_slice(&[43, 1, 5, 255]);
        bytes[FILE].fill(b'x');
        let packet = Packet::parse(&bytes).unwrap();
        assert_eq!(packet.option(43).unwrap().as_ref(), [5]);
        assert_eq!(packet.file(), [b'x'; 128], "a name without a NUL is the whole field");
    }

    #[test]
    fn an_overloaded_area_must_end_too() {
        let mut bytes = message(&[52, 1, 1, 255]);
        assert_eq!(Packet::parse(&bytes).unwrap_err(), Malformed { at: 236, flaw: Flaw::NoEnd });
        bytes[FILE][126] = 43;
        bytes[FILE][127] = 1;
        assert_eq!(Packet::parse(&bytes).unwrap_err(), Malformed { at: 234, flaw: Flaw::OptionOverruns(43) });
    }

    #[test]
    fn flaws_name_their_place() {
        let cases: [(&[u8], usize, Flaw); 5] = [
            (&[], 240, Flaw::NoEnd),
            (&[53], 240, Flaw::OptionOverruns(53)),
            (&[53, 1], 240, Flaw::OptionOverruns(53)),
            (&[0, 53, 2, 1, 255], 245, Flaw::NoEnd),
            (&[52, 1, 4, 255], 240, Flaw::OptionLength { code: 52, length: 1 }),
        ];
        for (options, at, flaw) in cases {
            assert_eq!(Packet::parse(&message(options)).unwrap_err(), Malformed { at, flaw }, "{options:?}");
        }
        assert_eq!(Packet::parse(&[1; 100]).unwrap_err(), Malformed { at: 100, flaw: Flaw::ShortHeader });
        assert_eq!(Packet::parse(&[1; 300]).unwrap_err(), Malformed { at: 236, flaw: Flaw::NoCookie });
    }
}
