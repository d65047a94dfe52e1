//! Option negotiation: what was asked, what is granted (RFC 2347-2349, 7440).
//!
//! A pure function: an option that is unknown or makes no sense is left out of the OACK, as RFC 2347 allows, because
//! firmware that asks for nonsense still boots without it while an ERROR 8 ends its boot.

use std::time::Duration;

use super::packet::{Request, emit_oack};
use crate::limits::{TFTP_WINDOW_BLOCKS_MAX, TFTP_WINDOW_BYTES_MAX};

/// Block size when none was negotiated (RFC 1350).
const BLOCK_SIZE_DEFAULT: u16 = 512;
/// The bounds of RFC 2348.
const BLOCK_SIZE_MIN: u64 = 8;
const BLOCK_SIZE_MAX: u64 = 65464;
/// IPv4, UDP and DATA headers: what a block needs besides itself to cross a path in one piece. Many ROMs cannot
/// reassemble fragments (dnsmasq 2.51 began to clamp for them).
const PATH_OVERHEAD: u16 = 32;

/// What both sides go by; [`Terms::default`] is a request without options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Bytes per block.
    pub block_size: u16,
    /// Blocks in flight (RFC 7440).
    pub window: u16,
    /// The resend interval that the client dictated (RFC 2349).
    pub timeout: Option<Duration>,
    /// The number after block 65535: 0, or 1 for clients that ask for it by option `rollover`.
    pub rollover: u16,
    /// The options to acknowledge, in the order asked.
    granted: Vec<(&'static str, u64)>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { block_size: BLOCK_SIZE_DEFAULT, window: 1, timeout: None, rollover: 0, granted: Vec::new() }
    }
}

impl Terms {
    /// Decides on the request's options for a file of `len` bytes over a path of `mtu` bytes.
    #[must_use]
    pub fn negotiate(request: &Request<'_>, len: u64, mtu: u16) -> Self {
        let mut terms = Self::default();
        for (name, value) in request.options() {
            if let Some(value) = decimal(value) {
                terms.consider(name, value, len, mtu);
            }
        }
        terms.fit_window();
        terms
    }

    /// Whether the transfer starts with an OACK; without one it starts with DATA 1.
    #[must_use]
    pub fn has_oack(&self) -> bool {
        !self.granted.is_empty()
    }

    /// Appends the OACK.
    pub fn emit_oack(&self, out: &mut Vec<u8>) {
        emit_oack(&self.granted, out);
    }

    fn consider(&mut self, name: &[u8], asked: u64, len: u64, mtu: u16) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let granted = if is("blksize") && asked >= BLOCK_SIZE_MIN {
            let fits = u64::from(mtu.saturating_sub(PATH_OVERHEAD)).clamp(BLOCK_SIZE_MIN, BLOCK_SIZE_MAX);
            self.block_size = narrow(asked.min(fits));
            ("blksize", u64::from(self.block_size))
        } else if is("tsize") && len > 0 {
            // curl (seen in 7.88) takes a size of 0 for an illegal answer.
            ("tsize", len)
        } else if is("timeout") && (1..=255).contains(&asked) {
            self.timeout = Some(Duration::from_secs(asked));
            ("timeout", asked)
        } else if is("windowsize") && (1..=65535).contains(&asked) {
            self.window = narrow(asked.min(u64::from(TFTP_WINDOW_BLOCKS_MAX)));
            ("windowsize", u64::from(self.window))
        } else if is("rollover") && asked <= 1 {
            self.rollover = narrow(asked);
            ("rollover", asked)
        } else {
            return;
        };
        // An option may be asked once (RFC 2347); of a client that repeats itself the last word counts.
        self.granted.retain(|(name, _)| *name != granted.0);
        self.granted.push(granted);
    }

    /// Keeps the bytes in flight within the bound, whatever block size was asked before or after the window.
    fn fit_window(&mut self) {
        let fits = TFTP_WINDOW_BYTES_MAX / usize::from(self.block_size);
        self.window = self.window.min(u16::try_from(fits).unwrap_or(u16::MAX)).max(1);
        let window = u64::from(self.window);
        self.granted.iter_mut().filter(|(name, _)| *name == "windowsize").for_each(|(_, value)| *value = window);
    }
}

/// A decimal number and nothing else; firmware pads with neither signs nor spaces.
fn decimal(text: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(text).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// For values that were bounded by a 16-bit one just before.
fn narrow(value: u64) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tftp::packet::Packet;

    fn negotiate(options: &str) -> (Terms, String) {
        let bytes = format!("\0\x01f\0octet\0{}", options.replace(' ', "\0"));
        let bytes = if options.is_empty() { bytes } else { bytes + "\0" };
        let Ok(Packet::Read(request)) = Packet::parse(bytes.as_bytes()) else { panic!("{options}") };
        let terms = Terms::negotiate(&request, 6_000_000_000, 1500);
        let mut oack = Vec::new();
        terms.emit_oack(&mut oack);
        let oack = String::from_utf8_lossy(&oack[2..]).replace('\0', " ").trim_end().to_owned();
        (terms, oack)
    }

    #[test]
    fn what_is_granted() {
        // (what the client asks, what the OACK says)
        let cases = [
            ("", ""),
            ("tsize 0 blksize 1468 windowsize 4", "tsize 6000000000 blksize 1468 windowsize 4"), // OVMF's probe
            ("TSIZE 0 BlkSize 1024", "tsize 6000000000 blksize 1024"),                           // names are case-blind
            ("blksize 65464", "blksize 1468"),                                                   // a path of 1500 bytes
            ("blksize 99999999999999999999", ""),
            ("blksize 4294967304", "blksize 1468"), // no wrap to 8
            ("blksize 8", "blksize 8"),
            ("blksize 7", ""),
            ("blksize -512 windowsize +4", ""),
            ("blksize 512x windowsize  tsize", ""),
            ("timeout 5", "timeout 5"), // U-Boot
            ("timeout 0", ""),
            ("timeout 255", "timeout 255"),
            ("timeout 256", ""),
            ("windowsize 0", ""),
            ("windowsize 65535", "windowsize 64"),
            ("windowsize 65536", ""),
            ("rollover 1", "rollover 1"),
            ("rollover 2", ""),
            ("multicast 1 x-nobody-knows 7", ""),
            ("blksize 512 blksize 1024", "blksize 1024"),
        ];
        for (asked, granted) in cases {
            assert_eq!(negotiate(asked).1, granted, "{asked}");
        }
        assert_eq!(negotiate("").0, Terms::default());
        assert!(!negotiate("multicast 1").0.has_oack(), "an OACK without options would confuse");
        assert!(negotiate("tsize 0").0.has_oack());
    }

    #[test]
    fn bytes_in_flight_are_bounded_whatever_the_order() {
        for options in ["windowsize 64 blksize 65464", "blksize 65464 windowsize 64"] {
            let bytes = format!("\0\x01f\0octet\0{}\0", options.replace(' ', "\0"));
            let Ok(Packet::Read(request)) = Packet::parse(bytes.as_bytes()) else { panic!() };
            let terms = Terms::negotiate(&request, 0, u16::MAX);
            assert_eq!((terms.block_size, terms.window), (65464, 2));
            assert!(terms.granted.contains(&("windowsize", 2)));
        }
    }

    #[test]
    fn a_silly_mtu_still_gives_a_legal_block() {
        let Ok(Packet::Read(request)) = Packet::parse(b"\0\x01f\0octet\0blksize\x001468\0") else { panic!() };
        assert_eq!(Terms::negotiate(&request, 0, 0).block_size, 8);
    }
}
