//! The squashfs writer, judged by unsquashfs and by the kernel's own reader.
//!
//! Needs root (owners, devices, `trusted.` attributes), squashfs-tools and attr; a kernel without squashfs judges nothing.

mod judge;
mod sample;

use auroraboot::limits;
use auroraboot::squashfs::{Compression, Device, Error, Extent, Options, Writer};
use auroraboot::storage::Storage;
use judge::{judge, judge_mounted, listed_names};
use sample::{Body, Random, Sample, TempDir, noise, options};
use std::fs::File;
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MIB: u64 = 1 << 20;
const ZSTD: Compression = Compression::Zstd { level: 3 };
const GZIP: Compression = Compression::Gzip { level: 9 };

#[test]
fn every_kind_of_node_survives() {
    let mut sample = Sample::new();
    let etc = sample.directory(0, b"etc", 0o750);
    sample.nodes[etc as usize].mtime = u32::MAX;
    let ping = sample.file(etc, b"ping", Body::Plain(b"binary".to_vec()));
    sample.nodes[ping as usize].mode = 0o4755;
    sample.xattr(ping, "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    sample.xattr(ping, "user.comment", b"");
    let copy = sample.file(etc, b"ping2", Body::Plain(b"binary".to_vec()));
    sample.xattr(copy, "security.capability", b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    sample.xattr(etc, "trusted.overlay.opaque", b"y");
    sample.link(0, b"hard", ping);
    sample.link(etc, b"hard too", ping);
    let fifo = sample.node(0, b"fifo", Body::Fifo);
    sample.link(0, b"fifo2", fifo);
    sample.xattr(fifo, "trusted.fifo", &[0, 255]);
    sample.node(0, b"socket", Body::Socket);
    let tty = sample.node(0, b"tty", Body::Char(Device { major: 4, minor: 64 }));
    sample.xattr(tty, "trusted.tty", b"1");
    sample.node(0, b"nvme", Body::Block(Device { major: 259, minor: 0xf_ff01 }));
    let lib = sample.node(0, b"lib", Body::Symlink(b"usr/lib".to_vec()));
    sample.xattr(lib, "trusted.link", b"2");
    sample.node(0, b"long", Body::Symlink(vec![b'x'; limits::SQUASHFS_LINK_BYTES_MAX]));
    sample.file(0, b"empty", Body::Plain(Vec::new()));
    sample.file(0, b"\xff\xfe not utf-8 \\ \n", Body::Plain(b"x".to_vec()));
    sample.file(0, &[b'n'; limits::NAME_BYTES_MAX], Body::Plain(b"y".to_vec()));
    let tmp = sample.directory(0, b"tmp", 0o1777);
    sample.nodes[tmp as usize].uid = 4_000_000_000;
    sample.nodes[tmp as usize].gid = 65_534;
    for compression in [ZSTD, GZIP, Compression::Zstd { level: 15 }] {
        let image = sample.write(options(compression, 131_072, 2));
        assert_eq!(image.finished.counts.duplicates, 1);
        judge(&sample, &image);
    }
}

#[test]
fn sizes_around_the_block_and_duplicates() {
    let mut sample = Sample::new();
    let mut bodies = Vec::new();
    for block in [4096_usize, 1 << 20] {
        for len in [1, block - 1, block, block + 1, 2 * block, 3 * block + 17] {
            bodies.push(noise(len, len as u64));
            bodies.push(vec![b'a'; len]);
            bodies.push(vec![0; len]);
        }
    }
    let one = noise(5 * 4096 + 9, 77);
    bodies.push(one.clone());
    // Blocks and tail of `one`, each beside something else: shared by block or by tail, never as a whole.
    bodies.push([&noise(4096, 1)[..], &one].concat());
    bodies.push([&one[..4 * 4096], &noise(4096, 2), &one[5 * 4096..]].concat());
    for (at, body) in bodies.iter().enumerate() {
        sample.file(0, format!("{at:03}").as_bytes(), Body::Plain(body.clone()));
    }
    let unique = sample.write(options(ZSTD, 4096, 2)).finished;
    let again = sample.directory(0, b"again", 0o755);
    for (at, body) in bodies.iter().enumerate() {
        sample.file(again, format!("{at:03}").as_bytes(), Body::Plain(body.clone()));
    }
    for compression in [ZSTD, GZIP] {
        for block_size in [4096, 1 << 20] {
            let image = sample.write(options(compression, block_size, 2));
            judge(&sample, &image);
        }
    }
    let twice = sample.write(options(ZSTD, 4096, 2)).finished;
    assert_eq!(twice.counts.duplicates - unique.counts.duplicates, bodies.len() as u64);
    assert!(twice.size < unique.size + 8192, "{} against {}", twice.size, unique.size);
}

#[test]
fn sparse_files_beyond_4_gib() {
    let mut sample = Sample::new();
    let extents =
        vec![(3, b"near the start".to_vec()), (5 << 30, noise(3_000_000, 5)), ((6 << 30) - 5, b"last".to_vec())];
    sample.file(0, b"sparse", Body::Sparse { size: 6 << 30, extents });
    sample.file(0, b"only hole", Body::Sparse { size: (4 << 30) + 1, extents: Vec::new() });
    sample.file(0, b"after", Body::Plain(b"after".to_vec()));
    let image = sample.write(options(ZSTD, 1 << 20, 2));
    assert!(image.finished.size < 4 * MIB, "{}", image.finished.size);
    judge(&sample, &image);
}

#[test]
fn seventy_thousand_names_in_one_directory() {
    let mut sample = Sample::new();
    let big = sample.directory(0, b"big", 0o755);
    for number in 0..70_000 {
        sample.file(big, format!("a rather long name, {number:06}").as_bytes(), Body::Plain(Vec::new()));
    }
    // Distances of inode numbers beyond 16 bits.
    let (first, last) = (sample.nodes.len() as u32 - 70_000, sample.nodes.len() as u32 - 1);
    sample.link(big, b"z1", first);
    sample.link(big, b"z2", last);
    sample.link(big, b"z3", first);
    let image = sample.write(options(ZSTD, 1 << 20, 2));
    assert_eq!(listed_names(&image), 70_005);
    if !judge_mounted(&sample, &image) {
        judge(&sample, &image);
    }
}

#[test]
fn deep_trees() {
    let mut sample = Sample::new();
    let mut parent = 0;
    for level in 0..300 {
        parent = sample.directory(parent, format!("d{level}").as_bytes(), 0o755);
    }
    sample.file(parent, b"bottom", Body::Plain(b"!".to_vec()));
    judge(&sample, &sample.write(options(GZIP, 4096, 1)));
}

#[test]
fn an_empty_tree_and_one_with_only_directories() {
    let mut sample = Sample::new();
    judge(&sample, &sample.write(options(ZSTD, 1 << 20, 1)));
    sample.directory(0, b"proc", 0o555);
    judge(&sample, &sample.write(options(GZIP, 1 << 20, 1)));
}

#[test]
fn random_trees_are_the_same_bytes_for_any_number_of_workers() {
    for seed in 1..=12 {
        let sample = Random::new(seed).sample();
        let compression = if seed % 2 == 0 { ZSTD } else { Compression::Gzip { level: 6 } };
        let block_size = [4096, 8192, 131_072][seed as usize % 3];
        let one = sample.write(options(compression, block_size, 1));
        for workers in [2, 4] {
            let other = sample.write(options(compression, block_size, workers));
            assert!(one.bytes() == other.bytes(), "seed {seed}: {workers} workers make other bytes");
        }
        judge(&sample, &one);
    }
}

#[test]
fn content_nobody_refers_to_is_harmless_and_counted() {
    let mut sample = Sample::new();
    let keep = sample.file(0, b"keep", Body::Plain(noise(10_000, 1)));
    let drop = sample.file(0, b"drop", Body::Plain(noise(50_000, 2)));
    sample.file(0, b"same as keep", Body::Plain(noise(10_000, 1)));
    assert_eq!(sample.write(options(ZSTD, 4096, 2)).finished.counts.dead_bytes, 0);
    sample.unlink(0, b"drop");
    sample.unlink(0, b"keep");
    let image = sample.write(options(ZSTD, 4096, 2));
    assert_eq!(image.finished.counts.dead_bytes, 50_000);
    judge(&sample, &image);
    assert_ne!(keep, drop);
}

#[test]
fn nothing_of_an_abandoned_duplicate_is_left_at_the_end() {
    let mut sample = Sample::new();
    // The second file is given up only when its last block is known: by then its blocks may be past the image's end.
    sample.file(0, b"a", Body::Plain(noise(3_000_000, 1)));
    sample.file(0, b"b", Body::Plain(noise(3_000_000, 1)));
    let image = sample.write(options(ZSTD, 4096, 4));
    assert_eq!(image.bytes().len() as u64, image.finished.size);
    assert_eq!(image.finished.size % 4096, 0);
    assert!(image.finished.size < 3_100_000);
    judge(&sample, &image);
}

/// Yields bytes until `fail_at`, then an error.
struct Breaking {
    left: usize,
}

impl Read for Breaking {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::new(io::ErrorKind::ConnectionReset, "registry hung up"));
        }
        let len = self.left.min(into.len());
        into[..len].fill(7);
        self.left -= len;
        Ok(len)
    }
}

#[test]
fn a_reader_error_comes_back_unchanged_and_the_threads_end() {
    let directory = TempDir::new();
    let file = Arc::new(File::create_new(directory.path().join("image")).unwrap());
    let mut writer = Writer::new(file.clone(), options(ZSTD, 4096, 2)).unwrap();
    writer.add_file(3 * 4096, &mut io::repeat(1).take(3 * 4096)).unwrap();
    match writer.add_file(MIB, &mut Breaking { left: 300_000 }) {
        Err(Error::Read(error)) => assert_eq!(error.to_string(), "registry hung up"),
        other => panic!("{other:?}"),
    }
    match writer.add_file(100, &mut io::empty()) {
        Err(Error::Short { missing: 100 }) => {}
        other => panic!("{other:?}"),
    }
    drop(writer);
    // Every thread has dropped its handle, so every thread has ended.
    assert_eq!(Arc::strong_count(&file), 1);
}

/// A disk with room for `left` bytes that counts what was written.
struct SmallDisk {
    file: File,
    room: u64,
    written: AtomicU64,
}

impl SmallDisk {
    fn new(directory: &TempDir, room: u64) -> Arc<SmallDisk> {
        let path = directory.path().join("image");
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        Arc::new(SmallDisk { file, room, written: AtomicU64::new(0) })
    }
}

impl Storage for SmallDisk {
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if offset + bytes.len() as u64 > self.room {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        self.written.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        Storage::write_all_at(&self.file, bytes, offset)
    }

    fn read_exact_at(&self, bytes: &mut [u8], offset: u64) -> io::Result<()> {
        Storage::read_exact_at(&self.file, bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        Storage::set_len(&self.file, len)
    }
}

#[test]
fn a_full_disk_is_said_while_content_is_added_or_at_the_end() {
    for room in [100_000, 300, 96] {
        let directory = TempDir::new();
        let disk = SmallDisk::new(&directory, room);
        let mut writer = Writer::new(disk.clone(), options(ZSTD, 4096, 2)).unwrap();
        let mut sample = Sample::new();
        sample.file(0, b"f", Body::Plain(Vec::new()));
        let content = noise(if room == 100_000 { 8_000_000 } else { 500 }, 3);
        let result = writer.add_file(content.len() as u64, &mut &content[..]).map(|_| ());
        let result = result.and(writer.finish(&sample.tree(&[])).map(|_| ()));
        match result {
            Err(Error::Write(error)) => assert_eq!(error.kind(), io::ErrorKind::StorageFull),
            other => panic!("{other:?}"),
        }
        assert_eq!(Arc::strong_count(&disk), 1);
    }
}

/// Fails the test when more was read than the buffers can hold besides what is written.
struct Watching {
    inner: Vec<u8>,
    read: usize,
    disk: Arc<SmallDisk>,
    bound: u64,
}

impl Read for Watching {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let len = into.len().min(self.inner.len() - self.read);
        into[..len].copy_from_slice(&self.inner[self.read..self.read + len]);
        self.read += len;
        let ahead = self.read as u64 - self.disk.written.load(Ordering::SeqCst);
        assert!(ahead <= self.bound, "{ahead} bytes in memory, the bound is {}", self.bound);
        Ok(len)
    }
}

#[test]
fn blocks_in_memory_are_bounded_by_the_named_limits() {
    let directory = TempDir::new();
    let disk = SmallDisk::new(&directory, u64::MAX);
    let mut writer = Writer::new(disk.clone(), options(ZSTD, 4096, 3)).unwrap();
    let buffers = 3 * limits::SQUASHFS_BUFFERS_PER_WORKER + limits::SQUASHFS_BUFFERS_EXTRA;
    // Noise is stored plain, so bytes read and written can be compared.
    let inner = noise(4_096_000, 9);
    let mut reader = Watching { inner, read: 0, disk: disk.clone(), bound: buffers as u64 * 4096 };
    writer.add_file(4_096_000, &mut reader).unwrap();
    assert_eq!(reader.read, 4_096_000);
}

#[test]
fn more_steps_than_may_be_ahead_wait_for_each_other() {
    let directory = TempDir::new();
    let disk = SmallDisk::new(&directory, u64::MAX);
    let mut writer = Writer::new(disk.clone(), options(ZSTD, 4096, 1)).unwrap();
    // Holes take no buffers: only the steps' own bound holds the caller back.
    for _ in 0..4 * limits::SQUASHFS_STEPS_AHEAD {
        writer.add_sparse(4096, &[], &mut io::empty()).unwrap();
    }
    let finished = writer.finish(&Sample::new().tree(&[])).unwrap();
    assert_eq!(finished.counts.duplicates, 4 * limits::SQUASHFS_STEPS_AHEAD as u64 - 1);
    assert_eq!(finished.size, 4096);
}

#[test]
fn what_squashfs_cannot_hold_is_an_error() {
    let directory = TempDir::new();
    let disk = SmallDisk::new(&directory, u64::MAX);
    for block_size in [0, 2048, 5000, 1 << 21] {
        let bad = Options { block_size, ..Options::new(ZSTD, NonZeroUsize::MIN) };
        assert!(matches!(Writer::new(disk.clone(), bad), Err(Error::BlockSize(size)) if size == block_size));
    }
    let bad = Options::new(Compression::Gzip { level: 0 }, NonZeroUsize::MIN);
    assert!(matches!(Writer::new(disk.clone(), bad), Err(Error::Level)));

    let mut writer = Writer::new(disk.clone(), options(ZSTD, 4096, 1)).unwrap();
    let size = (u64::from(limits::SQUASHFS_BLOCKS_MAX) + 1) * 4096;
    assert!(matches!(writer.add_sparse(size, &[], &mut io::empty()), Err(Error::TooMany("data blocks"))));
    assert!(matches!(writer.add_sparse(u64::MAX, &[], &mut io::empty()), Err(Error::TooMany("data blocks"))));
    let extents = [Extent { offset: 0, len: 2 }, Extent { offset: 1, len: 1 }];
    assert!(matches!(writer.add_sparse(9, &extents, &mut io::empty()), Err(Error::Extents)));
    drop(writer);

    let finish = |sample: &Sample| {
        let writer = Writer::new(disk.clone(), options(ZSTD, 4096, 1)).unwrap();
        writer.finish(&sample.tree(&[])).map(|_| ())
    };
    for target in [Vec::new(), vec![b'x'; limits::SQUASHFS_LINK_BYTES_MAX + 1]] {
        let mut sample = Sample::new();
        sample.node(0, b"link", Body::Symlink(target.clone()));
        assert!(matches!(finish(&sample), Err(Error::Symlink(len)) if len == target.len()));
    }
    let mut sample = Sample::new();
    sample.node(0, b"device", Body::Char(Device { major: 4096, minor: 0 }));
    assert!(matches!(finish(&sample), Err(Error::Device(4096, 0))));
    let mut sample = Sample::new();
    sample.file(0, b"file", Body::Plain(Vec::new()));
    assert!(matches!(finish(&sample), Err(Error::UnknownContent)));
}
