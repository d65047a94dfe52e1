//! Volume descriptors (ECMA-119 §8, Joliet, El Torito): a block each.

use super::BLOCK;
use super::bytes::{both16, both32, descriptor_time, record_time};
use super::directory::Placed;
use super::names::Naming;
use super::record::{DIRECTORY, Record, SELF};

/// What a primary or supplementary volume descriptor says.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    pub naming: Naming,
    pub id: &'a str,
    /// Who made it.
    pub application: &'a str,
    /// Blocks of the volume, from its base.
    pub blocks: u32,
    pub tree: &'a Placed,
    /// Seconds since 1970.
    pub mtime: u32,
}

/// UCS-2 level 3 (Joliet).
const JOLIET_ESCAPE: &[u8] = b"%/E";

/// What a boot record is known by.
pub(super) const EL_TORITO: &[u8] = b"EL TORITO SPECIFICATION";

impl Volume<'_> {
    pub(super) fn encode(&self) -> Vec<u8> {
        const PRIMARY: u8 = 1;
        const SUPPLEMENTARY: u8 = 2;
        let (kind, escape) = match self.naming {
            Naming::Plain => (PRIMARY, &b""[..]),
            Naming::Joliet => (SUPPLEMENTARY, JOLIET_ESCAPE),
        };
        let mut out = begin(kind);
        out.push(0);
        self.text(&mut out, "", 32); // system identifier
        self.text(&mut out, self.id, 32);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&both32(self.blocks));
        out.extend_from_slice(escape);
        out.resize(120, 0);
        out.extend_from_slice(&both16(1)); // volumes in the set
        out.extend_from_slice(&both16(1)); // number of this one
        out.extend_from_slice(&both16(BLOCK as u16));
        out.extend_from_slice(&both32(self.tree.path_table_size));
        out.extend_from_slice(&self.tree.type_l.to_le_bytes());
        out.extend_from_slice(&[0; 4]); // no optional copies
        out.extend_from_slice(&self.tree.type_m.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        self.root().encode(&mut out);
        for text in ["", "", ""] {
            self.text(&mut out, text, 128); // volume set, publisher, preparer
        }
        self.text(&mut out, self.application, 128);
        for text in ["", "", ""] {
            self.text(&mut out, text, 37); // files of copyright, abstract, bibliography
        }
        let time = descriptor_time(self.mtime);
        let never = *b"0000000000000000\0";
        for time in [time, time, never, never] {
            out.extend_from_slice(&time); // creation, modification, expiration, effect
        }
        out.push(1); // file structure version
        out.resize(BLOCK as usize, 0);
        out
    }

    fn root(&self) -> Record<'_> {
        Record {
            location: self.tree.root,
            size: self.tree.root_size,
            flags: DIRECTORY,
            time: record_time(self.mtime),
            identifier: SELF,
            system_use: &[],
        }
    }

    /// A field of `len` bytes, filled up with spaces.
    fn text(&self, out: &mut Vec<u8>, text: &str, len: usize) {
        let end = out.len() + len;
        match self.naming {
            Naming::Plain => {
                out.extend(text.bytes().take(len));
                out.resize(end, b' ');
            }
            Naming::Joliet => {
                out.extend(text.encode_utf16().take(len / 2).flat_map(u16::to_be_bytes));
                while out.len() + 1 < end {
                    out.extend_from_slice(&[0, b' ']);
                }
                out.resize(end, 0); // fields of 37 bytes
            }
        }
    }
}

/// El Torito's boot record, which leads to the boot catalog.
pub(super) fn boot_record(catalog: u32) -> Vec<u8> {
    let mut out = begin(0);
    out.extend_from_slice(EL_TORITO);
    out.resize(71, 0);
    out.extend_from_slice(&catalog.to_le_bytes());
    out.resize(BLOCK as usize, 0);
    out
}

/// The end of a set (§8.3).
pub(super) fn terminator() -> Vec<u8> {
    let mut out = begin(255);
    out.resize(BLOCK as usize, 0);
    out
}

fn begin(kind: u8) -> Vec<u8> {
    let mut out = Vec::with_capacity(BLOCK as usize);
    out.push(kind);
    out.extend_from_slice(b"CD001\x01");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> Placed {
        Placed { bytes: Vec::new(), root: 300, root_size: 2048, path_table_size: 22, type_l: 302, type_m: 303 }
    }

    fn volume(naming: Naming, tree: &Placed) -> Vec<u8> {
        Volume { naming, id: "COS_LIVE", application: "AURORABOOT", blocks: 500, tree, mtime: 1_700_000_000 }.encode()
    }

    #[test]
    fn a_primary_descriptor() {
        let bytes = volume(Naming::Plain, &placed());
        assert_eq!(bytes.len() as u64, BLOCK);
        assert_eq!(bytes[..8], *b"\x01CD001\x01\0");
        assert_eq!(bytes[40..50], *b"COS_LIVE  ");
        assert_eq!((&bytes[80..88], &bytes[128..132]), (&both32(500)[..], &[0, 8, 8, 0][..]));
        assert_eq!((&bytes[132..140], &bytes[140..144]), (&both32(22)[..], &302_u32.to_le_bytes()[..]));
        assert_eq!(bytes[148..152], 303_u32.to_be_bytes());
        assert_eq!((bytes[156], &bytes[158..162]), (34, &300_u32.to_le_bytes()[..]));
        assert_eq!(bytes[574..584], *b"AURORABOOT");
        assert_eq!(bytes[813..829], *b"2023111422132000");
        assert_eq!((bytes[829], bytes[881]), (0, 1));
    }

    #[test]
    fn a_joliet_descriptor_is_told_by_its_escape_sequence() {
        let bytes = volume(Naming::Joliet, &placed());
        assert_eq!((bytes[0], &bytes[88..92]), (2, &b"%/E\0"[..]));
        assert_eq!(bytes[40..58], *b"\0C\0O\0S\0_\0L\0I\0V\0E\0 ");
        assert_eq!(bytes.len() as u64, BLOCK);
    }

    #[test]
    fn the_boot_record_leads_to_the_catalog() {
        let bytes = boot_record(77);
        assert_eq!(bytes[..30], *b"\0CD001\x01EL TORITO SPECIFICATION");
        assert_eq!((bytes[71], bytes.len() as u64), (77, BLOCK));
        assert_eq!(terminator()[..7], *b"\xffCD001\x01");
    }
}
