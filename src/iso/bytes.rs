//! Numbers and times as ECMA-119 stores them.

use crate::civil::Civil;

/// Both byte orders, one after the other (§7.2.3).
pub(super) fn both16(value: u16) -> [u8; 4] {
    let (little, big) = (value.to_le_bytes(), value.to_be_bytes());
    [little[0], little[1], big[0], big[1]]
}

/// Both byte orders, one after the other (§7.3.3).
pub(super) fn both32(value: u32) -> [u8; 8] {
    let mut both = [0; 8];
    both[..4].copy_from_slice(&value.to_le_bytes());
    both[4..].copy_from_slice(&value.to_be_bytes());
    both
}

/// A little-endian number, or that half of one in both byte orders. As the other two, it panics where `bytes` is too short.
pub(super) const fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(super) const fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// All times in an image are UTC: a time zone would be the builder's, not the image's.
const UTC: u8 = 0;

/// The 7 bytes of a directory record (§9.1.5) and of Rock Ridge's `TF`.
pub(super) fn record_time(seconds: u32) -> [u8; 7] {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::at(seconds.into());
    let years = year - 1900; // up to 2106 in 32 bits of seconds
    [years.to_le_bytes()[0], month, day, hour, minute, second, UTC]
}

/// The 17 bytes of a volume descriptor (§8.4.26.1).
pub(super) fn descriptor_time(seconds: u32) -> [u8; 17] {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::at(seconds.into());
    let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00");
    let mut bytes = [UTC; 17];
    bytes[..16].copy_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_orders() {
        assert_eq!(both16(0x1234), [0x34, 0x12, 0x12, 0x34]);
        let both = both32(0x1234_5678);
        assert_eq!(both, [0x78, 0x56, 0x34, 0x12, 0x12, 0x34, 0x56, 0x78]);
        assert_eq!(
            (u16_at(&both, 1), u32_at(&both, 0), u64_at(&both, 0)),
            (0x3456, 0x1234_5678, 0x7856_3412_1234_5678)
        );
    }

    #[test]
    fn times_as_date_prints_them() {
        for (seconds, text) in [
            (0, "1970010100000000"),
            (951_782_399, "2000022823595900"),
            (951_782_400, "2000022900000000"),
            (1_700_000_000, "2023111422132000"),
            (u32::MAX, "2106020706281500"),
        ] {
            assert_eq!(&descriptor_time(seconds)[..16], text.as_bytes(), "{seconds}");
        }
        assert_eq!(record_time(1_700_000_000), [123, 11, 14, 22, 13, 20, 0]);
    }
}
