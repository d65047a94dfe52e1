//! Which machines may boot: `netboot.allow` and `netboot.deny`.

use std::fmt;
use std::str::FromStr;

use super::origin::{Origin, Setting};
use crate::units::MacAddr;

/// The first octets of MAC addresses, or a whole one (all six).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MacPrefix {
    octets: [u8; 6],
    length: usize,
}

impl MacPrefix {
    /// Whether `mac` begins with this prefix.
    #[must_use]
    pub fn matches(&self, mac: MacAddr) -> bool {
        self.octets[..self.length] == mac.0[..self.length]
    }
}

impl fmt::Display for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, octet) in self.octets[..self.length].iter().enumerate() {
            write!(f, "{}{octet:02x}", if n == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for MacPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is no [`MacPrefix`]; the reader knows which text and says what is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadMacPrefix;

impl FromStr for MacPrefix {
    type Err = BadMacPrefix;

    /// One to six pairs of hexadecimal digits with `:`, `-` or nothing between them, in either case.
    fn from_str(text: &str) -> Result<Self, BadMacPrefix> {
        let pairs: Vec<&[u8]> = if text.contains([':', '-']) {
            text.split([':', '-']).map(str::as_bytes).collect()
        } else {
            text.as_bytes().chunks(2).collect()
        };
        let mut prefix = Self { octets: [0; 6], length: pairs.len() };
        if pairs.is_empty() || pairs.len() > prefix.octets.len() {
            return Err(BadMacPrefix);
        }
        for (octet, pair) in prefix.octets.iter_mut().zip(pairs) {
            let [high, low] = *pair else { return Err(BadMacPrefix) };
            *octet = hex_digit(high)? << 4 | hex_digit(low)?;
        }
        Ok(prefix)
    }
}

/// `u8::from_str_radix` would take `+f` for a pair.
fn hex_digit(byte: u8) -> Result<u8, BadMacPrefix> {
    match byte {
        b'0'..=b'9' => Ok(byte - b'0'),
        b'a'..=b'f' => Ok(byte - b'a' + 10),
        b'A'..=b'F' => Ok(byte - b'A' + 10),
        _ => Err(BadMacPrefix),
    }
}

/// Who may boot. Both lists empty: everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFilter {
    /// When not empty, only these.
    pub allow: Setting<Vec<MacPrefix>>,
    /// Never these, also when allowed.
    pub deny: Setting<Vec<MacPrefix>>,
}

impl MachineFilter {
    /// Lets every machine boot.
    #[must_use]
    pub const fn everybody() -> Self {
        Self {
            allow: Setting { value: Vec::new(), origin: Origin::Default },
            deny: Setting { value: Vec::new(), origin: Origin::Default },
        }
    }

    /// Whether this machine may boot.
    ///
    /// # Errors
    /// [`Refused`], which says the reason in words.
    pub fn check(&self, mac: MacAddr) -> Result<(), Refused> {
        if let Some(prefix) = self.deny.iter().find(|prefix| prefix.matches(mac)) {
            return Err(Refused::Denied(*prefix));
        }
        if self.allow.is_empty() || self.allow.iter().any(|prefix| prefix.matches(mac)) {
            Ok(())
        } else {
            Err(Refused::NotAllowed)
        }
    }
}

/// Why a machine may not boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("netboot.deny lists {0}")]
    Denied(MacPrefix),
    #[error("netboot.allow does not list it")]
    NotAllowed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_in_every_common_spelling() {
        for (text, shown) in [
            ("52", "52"),
            ("52:54:00", "52:54:00"),
            ("52-54-00-E2-E0-01", "52:54:00:e2:e0:01"),
            ("525400e2e001", "52:54:00:e2:e0:01"),
        ] {
            assert_eq!(text.parse::<MacPrefix>().map(|prefix| prefix.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "5", "52:", ":52", "5:2", "52:54:00:e2:e0:01:02", "+2", "zz", "é", "52 54", "*"] {
            assert_eq!(text.parse::<MacPrefix>(), Err(BadMacPrefix), "{text}");
        }
    }

    #[test]
    fn deny_beats_allow_and_an_empty_list_allows_everybody() {
        let list = |text: &str| Setting::default(text.split(',').flat_map(str::parse).collect::<Vec<MacPrefix>>());
        let check = |allow: &str, deny: &str, mac: &str| {
            let filter = MachineFilter { allow: list(allow), deny: list(deny) };
            filter.check(mac.parse().unwrap()).map_err(|refused| refused.to_string())
        };
        let mac = "52:54:00:00:00:01";
        assert_eq!(check("", "", mac), Ok(()));
        assert_eq!(check("52:54:00", "", mac), Ok(()));
        assert_eq!(check("52:54:01", "", mac), Err("netboot.allow does not list it".into()));
        assert_eq!(check("52:54", mac, mac), Err("netboot.deny lists 52:54:00:00:00:01".into()));
        assert_eq!(check("", "52:54:00:00:00:02", mac), Ok(()));
        assert_eq!(MachineFilter::everybody().check(mac.parse().unwrap()), Ok(()));
    }
}
