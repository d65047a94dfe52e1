//! The table of client architectures: who asks, and what it can be given.
//!
//! Option 93 (RFC 4578 §2.1, numbers from IANA's "Processor Architecture Types") tells processor and firmware together.
//! Everything that depends on it is a column here, so that DHCP, TFTP, HTTP and the documentation cannot disagree.

use crate::units::Arch;

/// A boot loader that this server hands out: iPXE as Debian builds it, unmodified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loader {
    /// For BIOS, on the card's own UNDI driver.
    UndionlyKpxe,
    /// For x64 UEFI, on the firmware's own network driver: builds with native drivers hang at "initialising devices" on
    /// Broadcom 57800 (netboot.xyz#839) and on HP and Dell servers (sidero#447), and under VirtualBox.
    SnponlyX64,
    /// For x64 UEFI HTTP boot.
    IpxeX64,
    /// For arm64 UEFI, PXE and HTTP.
    IpxeArm64,
}

impl Loader {
    pub const ALL: [Self; 4] = [Self::UndionlyKpxe, Self::SnponlyX64, Self::IpxeX64, Self::IpxeArm64];

    /// The name under which Debian ships it and this server serves it.
    #[must_use]
    pub const fn file_name(self) -> &'static str {
        match self {
            Self::UndionlyKpxe => "undionly.kpxe",
            Self::SnponlyX64 => "snponly.efi",
            Self::IpxeX64 => "ipxe-amd64.efi",
            Self::IpxeArm64 => "ipxe-arm64.efi",
        }
    }
}

/// What kind of firmware asks; decides how a boot file reaches it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    /// A PXE ROM: takes a real-mode program by TFTP, and option 43.
    BiosPxe,
    /// Takes an EFI program by TFTP after asking port 4011; must not be sent option 43.
    UefiPxe,
    /// Takes an EFI program by URL.
    UefiHttp,
    /// Listed by IANA, not seen in the field.
    BiosHttp,
    UBoot,
    /// The boot code of a Raspberry Pi; those in the field claim to be architecture 0.
    RaspberryPi,
    /// Registered, but dead or not a PXE machine.
    Other,
}

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientArch {
    /// The number in option 93.
    pub code: u16,
    /// As people call it.
    pub name: &'static str,
    pub firmware: Firmware,
    /// The architecture whose images it can run, where OCI has a name for it.
    pub machine: Option<Arch>,
    /// What it is given, when there is something.
    pub loader: Option<Loader>,
}

const fn row(
    code: u16,
    name: &'static str,
    firmware: Firmware,
    machine: Option<Arch>,
    loader: Option<Loader>,
) -> ClientArch {
    ClientArch { code, name, firmware, machine, loader }
}

use Arch::{Amd64, Arm64, Riscv64};
use Firmware::{BiosHttp, BiosPxe, Other, RaspberryPi, UBoot, UefiHttp, UefiPxe};
use Loader::{IpxeArm64, IpxeX64, SnponlyX64, UndionlyKpxe};

/// All registered architectures, in order of their number.
///
/// 7, 8 and 9 are all x64: RFC 4578 had 7 and 9 the wrong way round (erratum 1802), and laptops that send 8 and 9 are known
/// (linuxserver/docker-netbootxyz#8).
pub const CLIENT_ARCHES: [ClientArch; 42] = [
    row(0, "x86 BIOS", BiosPxe, Some(Amd64), Some(UndionlyKpxe)),
    row(1, "NEC PC-98", Other, None, None),
    row(2, "Itanium UEFI", Other, None, None),
    row(3, "DEC Alpha", Other, None, None),
    row(4, "Arc x86", Other, None, None),
    row(5, "Intel Lean Client", Other, None, None),
    row(6, "x86 (32-bit) UEFI", UefiPxe, None, None),
    row(7, "x64 UEFI", UefiPxe, Some(Amd64), Some(SnponlyX64)),
    row(8, "x64 UEFI", UefiPxe, Some(Amd64), Some(SnponlyX64)),
    row(9, "x64 UEFI", UefiPxe, Some(Amd64), Some(SnponlyX64)),
    row(10, "ARM (32-bit) UEFI", UefiPxe, None, None),
    row(11, "arm64 UEFI", UefiPxe, Some(Arm64), Some(IpxeArm64)),
    row(12, "PowerPC Open Firmware", Other, None, None),
    row(13, "PowerPC ePAPR", Other, None, None),
    row(14, "POWER OPAL", Other, None, None),
    row(15, "x86 (32-bit) UEFI HTTP", UefiHttp, None, None),
    row(16, "x64 UEFI HTTP", UefiHttp, Some(Amd64), Some(IpxeX64)),
    row(17, "EFI byte code HTTP", UefiHttp, None, None),
    row(18, "ARM (32-bit) UEFI HTTP", UefiHttp, None, None),
    row(19, "arm64 UEFI HTTP", UefiHttp, Some(Arm64), Some(IpxeArm64)),
    row(20, "x86 BIOS HTTP", BiosHttp, Some(Amd64), None),
    row(21, "ARM (32-bit) U-Boot", UBoot, None, None),
    row(22, "arm64 U-Boot", UBoot, Some(Arm64), None),
    row(23, "ARM (32-bit) U-Boot HTTP", UBoot, None, None),
    row(24, "arm64 U-Boot HTTP", UBoot, Some(Arm64), None),
    row(25, "RISC-V (32-bit) UEFI", UefiPxe, None, None),
    row(26, "RISC-V (32-bit) UEFI HTTP", UefiHttp, None, None),
    row(27, "RISC-V (64-bit) UEFI", UefiPxe, Some(Riscv64), None),
    row(28, "RISC-V (64-bit) UEFI HTTP", UefiHttp, Some(Riscv64), None),
    row(29, "RISC-V (128-bit) UEFI", UefiPxe, None, None),
    row(30, "RISC-V (128-bit) UEFI HTTP", UefiHttp, None, None),
    row(31, "s390 Basic", Other, None, None),
    row(32, "s390 Extended", Other, None, None),
    row(33, "MIPS (32-bit) UEFI", UefiPxe, None, None),
    row(34, "MIPS (64-bit) UEFI", UefiPxe, None, None),
    row(35, "Sunway (32-bit) UEFI", UefiPxe, None, None),
    row(36, "Sunway (64-bit) UEFI", UefiPxe, None, None),
    row(37, "LoongArch (32-bit) UEFI", UefiPxe, None, None),
    row(38, "LoongArch (32-bit) UEFI HTTP", UefiHttp, None, None),
    row(39, "LoongArch (64-bit) UEFI", UefiPxe, None, None),
    row(40, "LoongArch (64-bit) UEFI HTTP", UefiHttp, None, None),
    row(41, "ARM rpiboot", RaspberryPi, Some(Arm64), None),
];

/// The row of a number, if it is registered.
#[must_use]
pub fn client_arch(code: u16) -> Option<&'static ClientArch> {
    CLIENT_ARCHES.get(usize::from(code))
}

/// MAC prefixes of Raspberry Pi boards, whose boot code says "architecture 0" like a PC (Raspberry Pi documentation,
/// "network boot"; IEEE OUI registry).
const RASPBERRY_PI_OUIS: [[u8; 3]; 7] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

/// Whether a machine that says "architecture 0" is a Raspberry Pi: by its MAC, or by the made-up UUID of its boot code
/// (Pi 3: 0x44 throughout; Pi 4 and later: `RPi4`, `RPi5`, … in front).
#[must_use]
pub fn is_raspberry_pi(mac: [u8; 6], guid: Option<&[u8]>) -> bool {
    let uuid = guid.and_then(|guid| guid.get(1..)).unwrap_or_default();
    RASPBERRY_PI_OUIS.iter().any(|oui| mac.starts_with(oui))
        || uuid.starts_with(b"RPi")
        || (!uuid.is_empty() && uuid.iter().all(|&byte| byte == 0x44))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_at_their_number() {
        for (index, row) in CLIENT_ARCHES.iter().enumerate() {
            assert_eq!(usize::from(row.code), index, "{}", row.name);
        }
        assert_eq!(client_arch(42), None);
    }

    #[test]
    fn a_loader_fits_the_machine_it_is_given_to() {
        for row in &CLIENT_ARCHES {
            let fits = match row.loader {
                None => true,
                Some(UndionlyKpxe) => row.firmware == BiosPxe, // a BIOS has 500 KiB for it and runs no EFI program
                Some(SnponlyX64) => row.firmware == UefiPxe && row.machine == Some(Amd64),
                Some(IpxeX64) => row.firmware == UefiHttp && row.machine == Some(Amd64),
                Some(IpxeArm64) => row.machine == Some(Arm64),
            };
            assert!(fits, "{row:?}");
        }
    }

    #[test]
    fn raspberry_pis_by_address_and_by_uuid() {
        let pc = [0x52, 0x54, 0, 0, 0, 1];
        assert!(is_raspberry_pi([0xdc, 0xa6, 0x32, 1, 2, 3], None));
        assert!(is_raspberry_pi(pc, Some(b"\0RPi4\x14\x31\xc0\0aaaaaaaa")));
        assert!(is_raspberry_pi(pc, Some(&[0x44; 17])));
        assert!(!is_raspberry_pi(pc, Some(&[0; 17])));
        assert!(!is_raspberry_pi(pc, Some(&[])));
        assert!(!is_raspberry_pi(pc, None));
    }
}
