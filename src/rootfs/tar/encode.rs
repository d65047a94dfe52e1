//! Members as a tar archive has them: ustar headers, and pax records for what these have no room for (POSIX.1-2001).

use super::header::BLOCK;
use super::{Member, MemberKind};

/// What ends an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// What stands in front of a member's data, if it has any.
#[must_use]
pub fn encode(member: &Member) -> Vec<u8> {
    let header = Fields::of(member);
    let mut records = Vec::new();
    for (key, value) in [("path", header.path), ("linkpath", header.target)] {
        if value.len() > TEXT_MAX {
            pax_record(&mut records, key.as_bytes(), value);
        }
    }
    let numbers = [
        ("uid", u64::from(header.uid), SMALL_MAX),
        ("gid", u64::from(header.gid), SMALL_MAX),
        ("size", header.size, LARGE_MAX),
    ];
    for (key, number, max) in numbers {
        if number > max {
            pax_record(&mut records, key.as_bytes(), number.to_string().as_bytes());
        }
    }
    if u64::try_from(member.mtime).is_err() || member.mtime.unsigned_abs() > LARGE_MAX {
        pax_record(&mut records, b"mtime", member.mtime.to_string().as_bytes());
    }
    for (name, value) in &member.xattrs {
        pax_record(&mut records, &[super::pax::XATTR, name].concat(), value);
    }
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let size = records.len() as u64;
        bytes.extend_from_slice(&Fields { path: b"pax", kind: b'x', size, ..Fields::EMPTY }.block());
        bytes.extend_from_slice(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend_from_slice(&header.block());
    bytes
}

/// Bytes of a path or target in a header.
const TEXT_MAX: usize = 100;
/// The largest number of 7 and of 11 octal digits.
const SMALL_MAX: u64 = 0o7_777_777;
const LARGE_MAX: u64 = 0o77_777_777_777;

/// The fields of a ustar header.
struct Fields<'a> {
    path: &'a [u8],
    target: &'a [u8],
    kind: u8,
    size: u64,
    mode: u16,
    uid: u32,
    gid: u32,
    mtime: u64,
    device: (u32, u32),
}

impl<'a> Fields<'a> {
    const EMPTY: Fields<'static> =
        Fields { path: &[], target: &[], kind: 0, size: 0, mode: 0o644, uid: 0, gid: 0, mtime: 0, device: (0, 0) };

    fn of(member: &'a Member) -> Self {
        let Member { path, kind, mode, uid, gid, mtime, .. } = member;
        let mtime = u64::try_from(*mtime).unwrap_or(0);
        let base = Self { path, mode: *mode, uid: *uid, gid: *gid, mtime, ..Self::EMPTY };
        match kind {
            MemberKind::File { size } => Self { kind: b'0', size: *size, ..base },
            MemberKind::HardLink(target) => Self { kind: b'1', target, ..base },
            MemberKind::Symlink(target) => Self { kind: b'2', target, ..base },
            MemberKind::CharDevice { major, minor } => Self { kind: b'3', device: (*major, *minor), ..base },
            MemberKind::BlockDevice { major, minor } => Self { kind: b'4', device: (*major, *minor), ..base },
            MemberKind::Directory => Self { kind: b'5', ..base },
            MemberKind::Fifo => Self { kind: b'6', ..base },
        }
    }

    fn block(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
        let small = |number: u64| format!("{:07o}", number.min(SMALL_MAX));
        let large = |number: u64| format!("{:011o}", number.min(LARGE_MAX));
        put(0, &self.path[..self.path.len().min(TEXT_MAX)]);
        put(100, small(self.mode.into()).as_bytes());
        put(108, small(self.uid.into()).as_bytes());
        put(116, small(self.gid.into()).as_bytes());
        put(124, large(self.size).as_bytes());
        put(136, large(self.mtime).as_bytes());
        put(148, b"        "); // while the sum is taken
        put(156, &[self.kind]);
        put(157, &self.target[..self.target.len().min(TEXT_MAX)]);
        put(257, b"ustar\x0000");
        put(329, small(self.device.0.into()).as_bytes());
        put(337, small(self.device.1.into()).as_bytes());
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        block
    }
}

fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::super::Archive;
    use super::*;

    fn member(path: &[u8], kind: MemberKind) -> Member {
        Member { path: path.to_vec(), kind, mode: 0o644, uid: 0, gid: 0, mtime: 1, xattrs: Vec::new() }
    }

    fn comes_back(member: &Member) {
        let read = Archive::new(Cursor::new(encode(member))).next_member().unwrap().unwrap();
        assert_eq!(read, *member);
    }

    #[test]
    fn every_kind_comes_back_as_it_was() {
        for kind in [
            MemberKind::File { size: 5 },
            MemberKind::Directory,
            MemberKind::HardLink(b"a/b".to_vec()),
            MemberKind::Symlink(b"../\xff".to_vec()),
            MemberKind::CharDevice { major: 5, minor: 1 },
            MemberKind::BlockDevice { major: 259, minor: 70_000 },
            MemberKind::Fifo,
        ] {
            let member = Member { mode: 0o7755, uid: 1000, gid: 7, ..member(b"dir/na\xffme", kind) };
            assert_eq!(encode(&member).len(), BLOCK, "nothing needs a pax record");
            comes_back(&member);
        }
    }

    #[test]
    fn what_does_not_fit_a_header_stands_before_it() {
        let mut large = member(&[b'p'; 101], MemberKind::File { size: 9 << 30 });
        (large.uid, large.gid, large.mtime) = (3_000_000, u32::MAX, -5);
        large.xattrs = vec![
            (b"security.capability".to_vec(), b"\x01\0\0\x02 \0\n=\0".to_vec()),
            (b"user.empty".to_vec(), Vec::new()),
        ];
        comes_back(&large);
        comes_back(&Member { mtime: 1 << 40, ..large });
        // Lengths of records around those where the length itself gets a digit more.
        for len in (80..110).chain(980..1010) {
            comes_back(&member(b"link", MemberKind::Symlink(vec![b't'; len])));
        }
    }
}
