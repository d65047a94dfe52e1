//! Archives made by hand in every dialect, and damaged ones.

use std::io::Cursor;

use super::*;

/// A ustar header and its data, padded.
fn raw(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    with_header(name, kind, data.len() as u64, data, |_| {})
}

fn with_header(name: &[u8], kind: u8, size: u64, data: &[u8], change: impl FnOnce(&mut [u8; BLOCK])) -> Vec<u8> {
    let mut header = [0; BLOCK];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    header[156] = kind;
    header[257..265].copy_from_slice(b"ustar\x0000");
    change(&mut header);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let mut bytes = header.to_vec();
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn gnu(header: &mut [u8; BLOCK]) {
    header[257..265].copy_from_slice(b"ustar  \0");
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut text = String::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let length = (body + 1..).find(|length| *length == body + length.to_string().len()).unwrap();
        text.push_str(&format!("{length} {key}={value}\n"));
    }
    raw(b"pax", b'x', text.as_bytes())
}

/// Every member with its data.
fn read(archive: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, TarError> {
    let mut archive = Archive::new(archive);
    let mut members = Vec::new();
    while let Some(member) = archive.next_member()? {
        let mut data = Vec::new();
        if let Err(error) = archive.by_ref().take(1 << 20).read_to_end(&mut data) {
            return Err(archive.take_failure().unwrap_or_else(|| panic!("{error}")));
        }
        members.push((member, data));
    }
    Ok(members)
}

fn one(archive: &[u8]) -> (Member, Vec<u8>) {
    let mut members = read(archive).unwrap();
    assert_eq!(members.len(), 1);
    members.remove(0)
}

fn end() -> Vec<u8> {
    vec![0; 2 * BLOCK]
}

#[test]
fn members_follow_each_other_whether_their_data_is_read_or_not() {
    let archive = [raw(b"a", b'0', &[7; 513]), raw(b"b/", b'5', b""), raw(b"c", b'0', b"x"), end()].concat();
    let names: Vec<_> = read(&archive).unwrap().into_iter().map(|(member, data)| (member.path, data.len())).collect();
    assert_eq!(names, [(b"a".to_vec(), 513), (b"b/".to_vec(), 0), (b"c".to_vec(), 1)]);

    let mut unread = Archive::new(&archive[..]);
    assert_eq!(unread.next_member().unwrap().unwrap().kind, MemberKind::File { size: 513 });
    assert_eq!(unread.next_member().unwrap().unwrap().kind, MemberKind::Directory);
    unread.next_member().unwrap();
    assert_eq!(unread.next_member().unwrap(), None);
}

#[test]
fn long_names_prefixes_and_links() {
    let long = vec![b'n'; 300];
    let gnu_names = [raw(b"././@LongLink", b'L', &[&long[..], b"\0"].concat()), raw(b"././@LongLink", b'K', &long)];
    let link = [gnu_names.concat(), with_header(b"short", b'2', 0, b"", gnu)].concat();
    assert_eq!(one(&link).0.path, long);
    assert_eq!(one(&link).0.kind, MemberKind::Symlink(long.clone()));

    let prefixed = with_header(b"name", b'0', 0, b"", |header| header[345..350].copy_from_slice(b"a/b/c"));
    assert_eq!(one(&prefixed).0.path, b"a/b/c/name");
    // In GNU headers the same bytes are times.
    let times = with_header(b"name", b'0', 0, b"", |header| {
        gnu(header);
        header[345..350].copy_from_slice(b"14567");
    });
    assert_eq!(one(&times).0.path, b"name");

    let records = [pax(&[("path", "é/long"), ("linkpath", "target")]), raw(b"short", b'1', b"")].concat();
    assert_eq!(one(&records).0.path, "é/long".as_bytes());
    assert_eq!(one(&records).0.kind, MemberKind::HardLink(b"target".to_vec()));
}

#[test]
fn pax_records_beat_the_header_and_only_for_their_own_member() {
    let records =
        [("uid", "3000000000"), ("gid", "7"), ("mtime", "1700000000.9"), ("SCHILY.xattr.user.a", "v"), ("size", "3")];
    let mut archive = pax(&records);
    archive.extend(with_header(b"a", b'0', 0, b"abc", |_| {}));
    archive.extend(raw(b"b", b'0', b""));
    let members = read(&archive).unwrap();
    let (a, data) = &members[0];
    assert_eq!((a.uid, a.gid, a.mtime, data.as_slice()), (3_000_000_000, 7, 1_700_000_000, &b"abc"[..]));
    assert_eq!(a.xattrs, [(b"user.a".to_vec(), b"v".to_vec())]);
    assert_eq!((members[1].0.uid, members[1].0.xattrs.len()), (0, 0));
}

#[test]
fn global_records_are_passed_over() {
    let global = [raw(b"g", b'g', b"18 path=not-a-name\n"), raw(b"a", b'0', b"")].concat();
    assert!(read(&global).is_err(), "but they must be records");
    let global = [raw(b"g", b'g', b"19 path=not-a-name\n"), raw(b"a", b'0', b"")].concat();
    assert_eq!(one(&global).0.path, b"a");
}

#[test]
fn large_numbers_and_devices() {
    let large = with_header(b"a", b'0', 0, b"", |header| {
        header[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 5]);
        header[108..116].copy_from_slice(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xfe]);
    });
    let member = Archive::new(&large[..]).next_member().unwrap().unwrap();
    assert_eq!((member.kind, member.uid), (MemberKind::File { size: (2 << 32) + 5 }, u32::MAX - 1));

    let device = |header: &mut [u8; BLOCK]| {
        header[329..336].copy_from_slice(b"0000007");
        header[337..344].copy_from_slice(b"0000372");
    };
    assert_eq!(one(&with_header(b"d", b'4', 0, b"", device)).0.kind, MemberKind::BlockDevice { major: 7, minor: 250 });
    let records = [pax(&[("SCHILY.devmajor", "259"), ("SCHILY.devminor", "70000")]), raw(b"d", b'3', b"")].concat();
    assert_eq!(one(&records).0.kind, MemberKind::CharDevice { major: 259, minor: 70_000 });
}

#[test]
fn sparse_files_in_all_four_formats() {
    let expected = [&[0; 10][..], b"abc", &[0; 7], b"de", &[0; 8]].concat();
    let old = with_header(b"s", b'S', 5, b"abcde", |header| {
        gnu(header);
        for (at, number) in [(386, 10), (398, 3), (410, 20), (422, 2), (483, 30)] {
            header[at..at + 11].copy_from_slice(format!("{number:011o}").as_bytes());
        }
    });
    let sparse = |records: &[(&str, &str)], data: &[u8]| [pax(records), raw(b"GNUSparseFile.0/s", b'0', data)].concat();
    let v00 = sparse(
        &[
            ("GNU.sparse.size", "30"),
            ("GNU.sparse.numblocks", "2"),
            ("GNU.sparse.offset", "10"),
            ("GNU.sparse.numbytes", "3"),
            ("GNU.sparse.offset", "20"),
            ("GNU.sparse.numbytes", "2"),
        ],
        b"abcde",
    );
    let v01 = sparse(&[("GNU.sparse.size", "30"), ("GNU.sparse.map", "10,3,20,2"), ("GNU.sparse.name", "s")], b"abcde");
    let mut with_map = b"2\n10\n3\n20\n2\n".to_vec();
    with_map.resize(BLOCK, 0);
    with_map.extend_from_slice(b"abcde");
    let v10 = sparse(
        &[
            ("GNU.sparse.major", "1"),
            ("GNU.sparse.minor", "0"),
            ("GNU.sparse.name", "s"),
            ("GNU.sparse.realsize", "30"),
        ],
        &with_map,
    );
    for (format, archive) in [("old", old), ("0.0", v00), ("0.1", v01), ("1.0", v10)] {
        let archive = [archive, raw(b"next", b'0', b"n")].concat();
        let members = read(&archive).unwrap();
        assert_eq!(members[0].0.kind, MemberKind::File { size: 30 }, "{format}");
        assert_eq!(members[0].1, expected, "{format}");
        assert_eq!(members[1].1, b"n", "{format}");
    }
}

#[test]
fn data_can_be_passed_over_without_reading_it() {
    let large = vec![7; 3 * BUFFER_BYTES + 1];
    let sparse = [pax(&[("GNU.sparse.size", "9"), ("GNU.sparse.map", "4,5")]), raw(b"sparse", b'0', b"abcde")].concat();
    let archive =
        [raw(b"large", b'0', &large), raw(b"d/", b'5', b""), sparse, raw(b"small", b'0', b"x"), end()].concat();
    let mut reader = Archive::new(Cursor::new(&archive));
    let mut seen = Vec::new();
    while let Some(member) = reader.next_member().unwrap() {
        let at = usize::try_from(reader.position()).unwrap();
        seen.push((String::from_utf8(member.path).unwrap(), archive[at], reader.is_sparse()));
        reader.seek_past_data().unwrap();
    }
    let expected = [("large", 7, false), ("d/", b'p', false), ("sparse", b'a', true), ("small", b'x', false)];
    assert_eq!(seen, expected.map(|(name, first, sparse)| (name.to_owned(), first, sparse)));

    let huge = with_header(b"huge", b'0', 0, b"", |header| {
        header[124..136].copy_from_slice(b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff");
    });
    let mut reader = Archive::new(Cursor::new(huge));
    reader.next_member().unwrap();
    assert!(reader.seek_past_data().is_err(), "an offset that cannot be");
}

#[test]
fn an_old_sparse_map_may_go_on_in_further_blocks() {
    let mut archive = with_header(b"s", b'S', 6, b"", |header| {
        gnu(header);
        for n in 0..4 {
            header[386 + n * 24..][..11].copy_from_slice(format!("{:011o}", n * 10).as_bytes());
            header[398 + n * 24..][..11].copy_from_slice(b"00000000001");
        }
        header[482] = 1;
        header[483..494].copy_from_slice(format!("{:011o}", 60).as_bytes());
    });
    let mut more = [0; BLOCK];
    for n in 0..2 {
        more[n * 24..][..11].copy_from_slice(format!("{:011o}", 40 + n * 10).as_bytes());
        more[n * 24 + 12..][..11].copy_from_slice(b"00000000001");
    }
    archive.extend_from_slice(&more);
    archive.extend_from_slice(b"abcdef");
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    let (_, data) = one(&archive);
    let letters: Vec<u8> = data.iter().copied().step_by(10).collect();
    assert_eq!((data.len(), letters), (60, b"abcdef".to_vec()));
}

#[test]
fn too_many_sparse_pieces_are_refused() {
    let map = vec!["0,0"; TAR_SPARSE_PIECES_MAX + 1].join(",");
    // As one PAX record it hits the limit of extension headers first; in the data it has its own.
    let text = format!("{}\n", TAR_SPARSE_PIECES_MAX + 1);
    let records = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "30")];
    let archive = [pax(&records), raw(b"s", b'0', &[text.as_bytes(), &[0; BLOCK]].concat())].concat();
    assert!(matches!(read(&archive), Err(TarError::Limit { what: "pieces of a sparse file", .. })));
    assert!(map.len() > usize::try_from(TAR_EXTENSION_BYTES_MAX).unwrap() / 2);
}

#[test]
fn extension_headers_are_bounded_each_and_together() {
    let limit = usize::try_from(TAR_EXTENSION_BYTES_MAX).unwrap();
    let name = raw(b"L", b'L', &vec![b'a'; limit - BLOCK]);
    assert_eq!(read(&[name.clone(), raw(b"x", b'0', b"")].concat()).unwrap().len(), 1);
    // One that claims more than it may is refused before it is read, and so are many in a row.
    let claims = with_header(b"L", b'L', TAR_EXTENSION_BYTES_MAX, b"", |_| {});
    let endless = pax(&[("comment", "x")]).repeat(limit / BLOCK + 1);
    for archive in [claims, [name, raw(b"K", b'K', b"")].concat(), endless] {
        assert!(matches!(read(&archive), Err(TarError::Limit { .. })), "{} bytes", archive.len());
    }
}

#[test]
fn an_archive_may_end_between_members_only() {
    let archive = [pax(&[("path", "long")]), raw(b"a", b'0', &[1; 700]), raw(b"b", b'0', b"x")].concat();
    let boundaries = [0, 1024 + 512 + 1024, archive.len()];
    for length in 0..=archive.len() {
        let outcome = read(&archive[..length]);
        assert_eq!(outcome.is_ok(), boundaries.contains(&length), "{length}: {outcome:?}");
    }
    assert_eq!(read(&[archive.clone(), end()].concat()).unwrap().len(), 2);
    // One empty block and then more: what follows must not be lost in silence.
    assert!(read(&[archive.clone(), vec![0; BLOCK], archive].concat()).is_err());
}

#[test]
fn what_is_no_tar_or_not_supported_is_refused() {
    let bad_sum = {
        let mut archive = raw(b"a", b'0', b"");
        archive[0] = b'b';
        archive
    };
    assert!(matches!(read(&bad_sum), Err(TarError::Checksum { at: 0 })));
    assert!(matches!(read(&raw(b"v", b'V', b"")), Err(TarError::Kind { kind: 'V', at: 0 })));
    assert!(matches!(read(&raw(b"", b'0', b"")), Err(TarError::Name { at: 0 })));
    let negative = with_header(b"a", b'0', 0, b"", |header| header[124..136].fill(0xff));
    assert!(matches!(read(&negative), Err(TarError::Number { field: "size", .. })));
}

#[test]
fn bytes_behind_the_end_are_read_up_to_a_bound() {
    let archive = [raw(b"a", b'0', b"x"), end(), vec![9; 5000]].concat();
    let finish = |bytes_max| {
        let mut reader = Archive::new(Cursor::new(archive.clone()));
        while reader.next_member().unwrap().is_some() {}
        reader.finish(bytes_max).map(|input| input.position())
    };
    assert_eq!(finish(5000).unwrap(), archive.len() as u64);
    assert!(matches!(finish(4999), Err(TarError::Limit { .. })));
}

/// Damaged archives end in an error or in other members, never in a panic or more memory than they are long.
#[test]
fn damaged_archives_do_no_harm() {
    let mut with_map = b"1\n3\n2\n".to_vec();
    with_map.resize(BLOCK + 2, 0);
    let archive = [
        pax(&[("path", "p"), ("mtime", "1.5"), ("SCHILY.xattr.user.a", "v")]),
        raw(b"a", b'0', &[1; 700]),
        raw(b"L", b'L', b"long name"),
        with_header(b"s", b'S', 3, b"abc", |header| {
            gnu(header);
            header[386..397].copy_from_slice(b"00000000000");
            header[398..409].copy_from_slice(b"00000000003");
            header[483..494].copy_from_slice(b"00000000011");
        }),
        pax(&[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9")]),
        raw(b"t", b'0', &with_map),
        raw(b"d", b'3', b""),
    ]
    .concat();
    assert_eq!(read(&archive).unwrap().len(), 4);
    let mut state = 0x1234_5678_9abc_def1_u64;
    let mut roll = |sides: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % sides
    };
    let mut refused = 0;
    for _ in 0..20_000 {
        let mut damaged = archive.clone();
        for _ in 0..=roll(3) {
            let at = roll(damaged.len());
            damaged[at] = [0, b'0', b'7', b'9', b' ', b'\n', 0x80, 0xff, 1][roll(9)];
            // Most damage would stop at the checksum: mend it.
            if roll(4) != 0 {
                let header = at / BLOCK * BLOCK;
                let block = &mut damaged[header..header + BLOCK];
                block[148..156].fill(b' ');
                let sum: u32 = block.iter().map(|&b| u32::from(b)).sum();
                block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            }
        }
        refused += usize::from(read(&damaged).is_err());
    }
    assert!((2_000..20_000).contains(&refused), "{refused}");
}
