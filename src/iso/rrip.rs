//! System use entries: SUSP 1.12 and Rock Ridge (RRIP 1.09, the form that everything reads).

use super::BLOCK;
use super::bytes::{both32, record_time};
use super::record::system_use_room;

/// What Rock Ridge says of a directory entry.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attributes<'a> {
    /// POSIX `st_mode`, file type included.
    pub mode: u32,
    pub links: u32,
    /// Seconds since 1970.
    pub mtime: u32,
    pub target: Option<&'a [u8]>,
}

/// Which record the entries are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place<'a> {
    /// `.` of the root, where a reader learns that Rock Ridge is there.
    Root,
    /// `.` and `..` of the others, which have no name of their own.
    Dot,
    Child(&'a [u8]),
}

/// The longest name piece of one `NM`, and the longest piece of a link's component in one `SL`.
const NAME_PIECE_MAX: usize = 250;
const COMPONENT_PIECE_MAX: usize = 248;
/// Bytes of components in one `SL`.
const COMPONENTS_MAX: usize = 250;
/// `CE` itself.
const CONTINUATION_LEN: usize = 28;

/// NM and SL: the next entry goes on; a link's component: the next component goes on.
const CONTINUE: u8 = 1;

/// SUSP entries of one record: what stands in it, and what stands in continuation areas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SystemUse {
    inline: Vec<u8>,
    /// Each fits a block, with the `CE` that leads to the next one.
    areas: Vec<Vec<u8>>,
}

impl SystemUse {
    /// Distributes entries over a record with such an identifier and continuation areas.
    pub(super) fn new(entries: &[Vec<u8>], identifier_len: usize) -> Self {
        let room = system_use_room(identifier_len);
        let total: usize = entries.iter().map(Vec::len).sum();
        if total <= room {
            return Self { inline: entries.concat(), areas: Vec::new() };
        }
        let mut chunks = vec![Vec::new()];
        let mut left = room - CONTINUATION_LEN;
        for entry in entries {
            if entry.len() > left {
                chunks.push(Vec::new());
                left = BLOCK as usize - CONTINUATION_LEN;
            }
            left -= entry.len();
            if let Some(chunk) = chunks.last_mut() {
                chunk.extend_from_slice(entry);
            }
        }
        let areas = chunks.split_off(1);
        Self { inline: chunks.concat(), areas }
    }

    /// Bytes in the record.
    pub(super) fn inline_len(&self) -> usize {
        self.inline.len() + if self.areas.is_empty() { 0 } else { CONTINUATION_LEN }
    }

    /// Bytes of each continuation area, in their order.
    pub(super) fn area_lens(&self) -> impl Iterator<Item = usize> {
        (0..self.areas.len()).map(|index| self.area_len(index))
    }

    fn area_len(&self, index: usize) -> usize {
        let is_last = index + 1 == self.areas.len();
        self.areas[index].len() + if is_last { 0 } else { CONTINUATION_LEN }
    }

    /// The record's part and the areas, once it is known where these lie: blocks from the volume's base, and bytes in them.
    pub(super) fn encode(&self, places: &[(u32, u32)]) -> (Vec<u8>, Vec<Vec<u8>>) {
        let leading_to = |mut bytes: Vec<u8>, index: usize| {
            if let Some((block, offset)) = places.get(index) {
                bytes.extend_from_slice(&continuation(*block, *offset, self.area_len(index)));
            }
            bytes
        };
        let areas = self.areas.iter().enumerate().map(|(index, area)| leading_to(area.clone(), index + 1));
        (leading_to(self.inline.clone(), 0), areas.collect())
    }
}

/// The entries of one record, each at most 255 bytes.
pub(super) fn entries(attributes: &Attributes<'_>, place: Place<'_>) -> Vec<Vec<u8>> {
    let mut entries = Vec::new();
    if place == Place::Root {
        entries.push(entry(b"SP", &[0xbe, 0xef, 0]));
    }
    entries.push(posix(attributes));
    entries.push(times(attributes.mtime));
    if let Place::Child(name) = place {
        names(name, &mut entries);
    }
    if let Some(target) = attributes.target {
        link(target, &mut entries);
    }
    if place == Place::Root {
        entries.push(reference());
    }
    entries
}

fn entry(signature: &[u8; 2], data: &[u8]) -> Vec<u8> {
    let length = (data.len() + 4).to_le_bytes()[0];
    [&[signature[0], signature[1], length, 1], data].concat()
}

/// `PX` (RRIP §4.1.1): mode, links, owner, group. Everything belongs to root, as on a medium that nobody writes.
fn posix(attributes: &Attributes<'_>) -> Vec<u8> {
    let fields = [attributes.mode, attributes.links, 0, 0].map(both32);
    entry(b"PX", fields.as_flattened())
}

/// `TF` (§4.1.6): modification, access and attribute change.
fn times(mtime: u32) -> Vec<u8> {
    const FLAGS: u8 = 0x0e;
    let time = record_time(mtime);
    entry(b"TF", &[&[FLAGS][..], &time, &time, &time].concat())
}

/// `NM` (§4.1.4).
fn names(name: &[u8], entries: &mut Vec<Vec<u8>>) {
    let mut pieces = name.chunks(NAME_PIECE_MAX).peekable();
    while let Some(piece) = pieces.next() {
        let flags = if pieces.peek().is_some() { CONTINUE } else { 0 };
        entries.push(entry(b"NM", &[&[flags], piece].concat()));
    }
}

/// `SL` (§4.1.3): the target, component by component.
fn link(target: &[u8], entries: &mut Vec<Vec<u8>>) {
    let mut bodies = vec![Vec::new()];
    for component in components(target) {
        match bodies.last_mut() {
            Some(body) if body.len() + component.len() <= COMPONENTS_MAX => body.extend(component),
            _ => bodies.push(component),
        }
    }
    let last = bodies.len() - 1;
    for (index, body) in bodies.into_iter().enumerate() {
        let flags = if index == last { 0 } else { CONTINUE };
        entries.push(entry(b"SL", &[&[flags], body.as_slice()].concat()));
    }
}

/// Component records: flags, length, content.
fn components(target: &[u8]) -> Vec<Vec<u8>> {
    const CURRENT: u8 = 2;
    const PARENT: u8 = 4;
    const ROOT: u8 = 8;
    let mut records = Vec::new();
    if target.first() == Some(&b'/') {
        records.push(vec![ROOT, 0]);
    }
    for component in target.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
        match component {
            b"." => records.push(vec![CURRENT, 0]),
            b".." => records.push(vec![PARENT, 0]),
            name => {
                let mut pieces = name.chunks(COMPONENT_PIECE_MAX).peekable();
                while let Some(piece) = pieces.next() {
                    let flags = if pieces.peek().is_some() { CONTINUE } else { 0 };
                    records.push([&[flags, piece.len().to_le_bytes()[0]], piece].concat());
                }
            }
        }
    }
    records
}

/// `ER` (SUSP §5.5), in the words by which mkisofs and xorriso name Rock Ridge; readers compare the identifier.
fn reference() -> Vec<u8> {
    const IDENTIFIER: &[u8] = b"RRIP_1991A";
    entry(b"ER", &[&[IDENTIFIER.len().to_le_bytes()[0], 0, 0, 1], IDENTIFIER].concat())
}

/// `CE` (SUSP §5.1).
fn continuation(block: u32, offset: u32, len: usize) -> Vec<u8> {
    let len = u32::try_from(len).unwrap_or(u32::MAX); // below a block
    let fields = [block, offset, len].map(both32);
    entry(b"CE", fields.as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Attributes<'_> = Attributes { mode: 0o100_644, links: 1, mtime: 1_700_000_000, target: None };

    /// Signatures and lengths.
    fn shape(entries: &[Vec<u8>]) -> Vec<(String, usize)> {
        entries.iter().map(|entry| (String::from_utf8_lossy(&entry[..2]).into_owned(), entry[2] as usize)).collect()
    }

    #[test]
    fn a_file_the_root_and_a_dot() {
        let of = |entries: &[(&str, usize)]| entries.iter().map(|(s, n)| ((*s).to_owned(), *n)).collect::<Vec<_>>();
        assert_eq!(shape(&entries(&FILE, Place::Child(b"kernel"))), of(&[("PX", 36), ("TF", 26), ("NM", 11)]));
        assert_eq!(shape(&entries(&FILE, Place::Root)), of(&[("SP", 7), ("PX", 36), ("TF", 26), ("ER", 18)]));
        assert_eq!(shape(&entries(&FILE, Place::Dot)), of(&[("PX", 36), ("TF", 26)]));
        assert!(entries(&FILE, Place::Child(b"x")).iter().all(|entry| entry.len() == entry[2] as usize));
    }

    #[test]
    fn a_short_record_needs_no_continuation() {
        let system_use = SystemUse::new(&entries(&FILE, Place::Child(b"kernel")), 9);
        assert_eq!((system_use.inline_len(), system_use.area_lens().count()), (73, 0));
        assert_eq!(system_use.encode(&[]).0.len(), 73);
    }

    #[test]
    fn a_long_name_goes_on_in_a_continuation_area() {
        let name = [b'n'; 255];
        let system_use = SystemUse::new(&entries(&FILE, Place::Child(&name)), 33);
        assert_eq!(system_use.inline_len(), 36 + 26 + 28);
        assert_eq!(system_use.area_lens().collect::<Vec<_>>(), [255 + 10]);
        let (inline, areas) = system_use.encode(&[(77, 100)]);
        let ce = &inline[62..];
        assert_eq!(
            (&ce[..4], &ce[4..8], &ce[12..16], &ce[20..24]),
            (&b"CE\x1c\x01"[..], &[77, 0, 0, 0][..], &[100, 0, 0, 0][..], &[9, 1, 0, 0][..])
        );
        assert_eq!(areas[0][..5], *b"NM\xff\x01\x01");
        assert_eq!(areas[0][255..260], *b"NM\x0a\x01\x00");
    }

    #[test]
    fn the_longest_target_takes_several_areas_that_lead_to_each_other() {
        let target =
            [b"/".to_vec(), vec![b'd'; 255], b"/../x/.".to_vec(), [b"/yyyy".as_slice(); 760].concat()].concat();
        let link = Attributes { target: Some(&target), mode: 0o120_777, ..FILE };
        let system_use = SystemUse::new(&entries(&link, Place::Child(b"l")), 4);
        let lens: Vec<usize> = system_use.area_lens().collect();
        assert!(lens.len() > 1 && lens.iter().all(|len| *len <= BLOCK as usize), "{lens:?}");
        let places: Vec<(u32, u32)> = (0..lens.len()).map(|index| (100 + index as u32, 0)).collect();
        let (_, areas) = system_use.encode(&places);
        assert_eq!(areas.iter().map(Vec::len).collect::<Vec<_>>(), lens);
        let ce = &areas[0][areas[0].len() - 28..];
        assert_eq!((&ce[..2], ce[4]), (&b"CE"[..], 101));
        assert!(!areas[areas.len() - 1].windows(4).any(|bytes| bytes == b"CE\x1c\x01"));
    }

    #[test]
    fn a_target_is_taken_apart() {
        assert_eq!(components(b"/a/../b"), [vec![8, 0], vec![0, 1, b'a'], vec![4, 0], vec![0, 1, b'b']]);
        assert_eq!(components(b"./x//y"), [vec![2, 0], vec![0, 1, b'x'], vec![0, 1, b'y']]);
        let long = components(&[b'z'; 255]);
        assert_eq!((long[0][..2].to_vec(), long[1][..2].to_vec()), (vec![1, 248], vec![0, 7]));
    }
}
