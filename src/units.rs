//! Small values that every layer shares: MAC addresses, digests, architectures; rates; and how an error is told.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// An Ethernet (IEEE 802) address; prints as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr(pub [u8; 6]);

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Why a text is not a [`MacAddr`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address; write six hexadecimal pairs such as 52:54:00:12:34:56")]
pub struct BadMacAddr(pub String);

impl FromStr for MacAddr {
    type Err = BadMacAddr;

    /// Accepts `:` or `-` between the pairs, or nothing, in either case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadMacAddr(text.to_owned());
        let digits = match text.split([':', '-']).collect::<Vec<_>>()[..] {
            [digits] => digits.to_owned(),
            ref pairs if pairs.len() == 6 && pairs.iter().all(|pair| pair.len() == 2) => pairs.concat(),
            _ => return Err(bad()),
        };
        let mut octets = [0; 6];
        parse_hex(digits.as_bytes(), &mut octets).ok_or_else(bad)?;
        Ok(Self(octets))
    }
}

/// A sha256 digest in the OCI form `sha256:<64 hex>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The 64 hexadecimal digits without the algorithm's name.
    #[must_use]
    pub fn hex(&self) -> String {
        use fmt::Write;
        self.0.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
    }

    /// The first 12 digits, for log lines.
    #[must_use]
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not a [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest; write sha256: and 64 hexadecimal digits")]
pub struct BadDigest(pub String);

impl FromStr for Digest {
    type Err = BadDigest;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadDigest(text.to_owned());
        let hex = text.strip_prefix("sha256:").ok_or_else(bad)?;
        let mut bytes = [0; 32];
        parse_hex(hex.as_bytes(), &mut bytes).ok_or_else(bad)?;
        Ok(Self(bytes))
    }
}

/// Reads exactly as many hexadecimal digits as fill `bytes`, nothing else (`u8::from_str_radix` would take a sign).
fn parse_hex(digits: &[u8], bytes: &mut [u8]) -> Option<()> {
    if digits.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = u8::try_from(value(pair[0])? << 4 | value(pair[1])?).ok()?;
    }
    Some(())
}

/// A machine architecture, under the names OCI (Go's `GOARCH`) gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Arch {
    Amd64,
    Arm64,
    Riscv64,
}

impl Arch {
    pub const ALL: [Self; 3] = [Self::Amd64, Self::Arm64, Self::Riscv64];

    /// The architecture this binary runs on.
    #[must_use]
    pub const fn host() -> Self {
        if cfg!(target_arch = "aarch64") {
            Self::Arm64
        } else if cfg!(target_arch = "riscv64") {
            Self::Riscv64
        } else {
            Self::Amd64
        }
    }

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
            Self::Riscv64 => "riscv64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a text is not an [`Arch`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an architecture; use amd64, arm64 or riscv64")]
pub struct BadArch(pub String);

impl FromStr for Arch {
    type Err = BadArch;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|arch| arch.name() == text).ok_or_else(|| BadArch(text.to_owned()))
    }
}

/// Prints a number of bytes for people: `17 B`, `1.4 MB`, `2.0 GB` (powers of ten, as disks and links are sold).
#[derive(Debug, Clone, Copy)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    #[allow(clippy::cast_precision_loss)] // two digits are shown
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0 as f64;
        match self.0 {
            0..1_000 => write!(f, "{} B", self.0),
            1_000..1_000_000 => write!(f, "{:.1} kB", bytes / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.1} MB", bytes / 1e6),
            _ => write!(f, "{:.1} GB", bytes / 1e9),
        }
    }
}

/// Neither a number of bytes nor a size such as `20GB`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size such as 20GB or 500 MiB")]
pub struct BadByteSize(pub String);

impl FromStr for ByteSize {
    type Err = BadByteSize;

    /// `20GB`, `1.5 TB`, `500MiB`, `4096`: the units of SI and of IEC 80000-13, whatever their case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const UNITS: [(&str, u64); 10] = [
            ("", 1),
            ("b", 1),
            ("kb", 1_000),
            ("mb", 1_000_000),
            ("gb", 1_000_000_000),
            ("tb", 1_000_000_000_000),
            ("kib", 1 << 10),
            ("mib", 1 << 20),
            ("gib", 1 << 30),
            ("tib", 1 << 40),
        ];
        let parse = || {
            let trimmed = text.trim();
            let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
            let (number, unit) = trimmed.split_at(digits);
            let unit = unit.trim_start().to_ascii_lowercase();
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
            let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
            let mut bytes = whole.parse::<u64>().ok()?.checked_mul(*factor)?;
            let mut share = *factor;
            for digit in fraction.bytes() {
                share /= 10;
                bytes = bytes.checked_add(u64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * share)?;
            }
            Some(Self(bytes))
        };
        parse().ok_or_else(|| BadByteSize(text.to_owned()))
    }
}

/// Bytes per second; unknown as long as no millisecond has passed.
#[must_use]
pub fn per_second(bytes: u64, time: Duration) -> Option<u64> {
    let millis = u64::try_from(time.as_millis()).ok()?;
    bytes.saturating_mul(1000).checked_div(millis)
}

/// `0:07`, `12:34`, `1:02:03`.
#[must_use]
pub fn clock(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// An error and its causes as one line, `a: b: c`: no error of this program repeats what its source says.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_and_durations() {
        assert_eq!([7, 754, 3723].map(clock), ["0:07", "12:34", "1:02:03"]);
        assert_eq!(per_second(500, Duration::from_millis(250)), Some(2000));
        assert_eq!(per_second(500, Duration::ZERO), None);
    }

    #[test]
    fn mac_addresses_in_every_common_spelling() {
        let mac = MacAddr([0x52, 0x54, 0, 0xe2, 0xe0, 1]);
        for text in ["52:54:00:e2:e0:01", "52-54-00-E2-E0-01", "525400e2e001"] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "52:54:00:e2:e0:01");
        for text in [
            "",
            "52:54",
            "52:54:00:e2:e0:0g",
            "52:54:00:e2:e001",
            "é2:54:00:e2:e0:1",
            "+2:54:00:e2:e0:01",
            "5:2540:0:e2:e0:01",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text}");
        }
    }

    #[test]
    fn digests_round_trip_and_refuse_what_is_not_one() {
        let text = format!("sha256:{}", "0f".repeat(32));
        assert_eq!(text.parse::<Digest>().map(|digest| digest.to_string()), Ok(text.clone()));
        for text in ["sha256:00", "sha512:00", &text[..70], &format!("sha256:{}", "zz".repeat(32))] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_for_people() {
        let shown: Vec<String> = [999, 1_000, 1_449_999, 2_000_000_000].map(|n| ByteSize(n).to_string()).into();
        assert_eq!(shown, ["999 B", "1.0 kB", "1.4 MB", "2.0 GB"]);
    }

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("20GB", 20_000_000_000),
            (" 1.5 tb ", 1_500_000_000_000),
            ("500MiB", 500 << 20),
            ("0.25kB", 250),
            ("17 B", 17),
        ] {
            assert_eq!(text.parse::<ByteSize>().map(|size| size.0), Ok(bytes), "{text}");
        }
        for text in ["", "GB", "-1", "1..5GB", "1.2.3", "20 GBs", "99999999999TB", "1,5GB", "20G"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
