//! Makes layers by hand: tar entries as bytes, and images that live in memory.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use auroraboot::rootfs::{
    DataCount, DataRef, DataSink, Job, LayerSource, NodeId, NodeKind, ReadError, Tree, WantedDirectory, read_image,
};
use auroraboot::units::Digest;
use sha2::{Digest as _, Sha256};

/// One tar entry, written as ustar with PAX records where needed.
#[derive(Debug, Clone)]
pub struct TestEntry {
    pub path: Vec<u8>,
    pub kind: u8,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    pub link: Vec<u8>,
    pub data: Vec<u8>,
    pub device: (u32, u32),
    pub xattrs: Vec<(String, Vec<u8>)>,
}

pub fn entry(path: impl AsRef<[u8]>, kind: u8) -> TestEntry {
    TestEntry {
        path: path.as_ref().to_vec(),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: 1_000_000,
        link: Vec::new(),
        data: Vec::new(),
        device: (0, 0),
        xattrs: Vec::new(),
    }
}

pub fn file(path: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> TestEntry {
    TestEntry { data: data.as_ref().to_vec(), ..entry(path, b'0') }
}

pub fn directory(path: impl AsRef<[u8]>) -> TestEntry {
    TestEntry { mode: 0o755, ..entry(path, b'5') }
}

pub fn symlink(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> TestEntry {
    TestEntry { mode: 0o777, link: target.as_ref().to_vec(), ..entry(path, b'2') }
}

pub fn hard_link(path: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> TestEntry {
    TestEntry { link: target.as_ref().to_vec(), ..entry(path, b'1') }
}

pub fn tar(entries: &[TestEntry]) -> Vec<u8> {
    let mut archive = Vec::new();
    for entry in entries {
        append(&mut archive, entry);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

fn append(archive: &mut Vec<u8>, entry: &TestEntry) {
    let mut records = Vec::new();
    if entry.path.len() > 100 {
        pax_record(&mut records, b"path", &entry.path);
    }
    if entry.link.len() > 100 {
        pax_record(&mut records, b"linkpath", &entry.link);
    }
    for (name, value) in &entry.xattrs {
        pax_record(&mut records, format!("SCHILY.xattr.{name}").as_bytes(), value);
    }
    if !records.is_empty() {
        let header = TestEntry { data: records.clone(), ..super::layers::entry("pax", b'x') };
        block(archive, &header, records.len());
        padded(archive, &records);
    }
    block(archive, entry, entry.data.len());
    padded(archive, &entry.data);
}

pub fn pax_record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length += 1;
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

pub fn padded(archive: &mut Vec<u8>, data: &[u8]) {
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(512), 0);
}

/// One header block that claims `size` bytes of data.
pub fn block(archive: &mut Vec<u8>, entry: &TestEntry, size: usize) {
    let mut header = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &entry.path[..entry.path.len().min(100)]);
    put(100, format!("{:07o}", entry.mode).as_bytes());
    put(108, format!("{:07o}", entry.uid).as_bytes());
    put(116, format!("{:07o}", entry.gid).as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, format!("{:011o}", entry.mtime).as_bytes());
    put(156, &[entry.kind]);
    put(157, &entry.link[..entry.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", entry.device.0).as_bytes());
    put(337, format!("{:07o}", entry.device.1).as_bytes());
    seal(&mut header);
    archive.extend_from_slice(&header);
}

/// Writes the checksum.
pub fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|&b| u32::from(b)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub fn digest(blob: &[u8]) -> Digest {
    Digest(Sha256::digest(blob).into())
}

/// An image's blobs in memory, lowest first.
#[derive(Debug, Default)]
pub struct MemoryImage {
    pub blobs: Vec<Vec<u8>>,
    pub opened: AtomicUsize,
}

impl MemoryImage {
    pub fn new(blobs: Vec<Vec<u8>>) -> Self {
        Self { blobs, opened: AtomicUsize::new(0) }
    }

    pub fn of(layers: &[&[TestEntry]]) -> Self {
        Self::new(layers.iter().map(|entries| tar(entries)).collect())
    }
}

impl LayerSource for MemoryImage {
    fn count(&self) -> usize {
        self.blobs.len()
    }

    fn digest(&self, layer: usize) -> Digest {
        digest(&self.blobs[layer])
    }

    fn open(&self, layer: usize) -> io::Result<Box<dyn Read + Send>> {
        self.opened.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(Cursor::new(self.blobs[layer].clone())))
    }
}

/// Keeps the data of files in memory.
#[derive(Debug, Default)]
pub struct MemorySink(pub Vec<Vec<u8>>);

impl DataSink for MemorySink {
    fn add(&mut self, size: u64, data: &mut dyn Read) -> io::Result<DataRef> {
        let mut bytes = vec![0; usize::try_from(size).unwrap()];
        data.read_exact(&mut bytes)?;
        self.0.push(bytes);
        Ok(DataRef(u32::try_from(self.0.len() - 1).unwrap()))
    }
}

pub struct Merged {
    pub tree: Tree,
    pub count: DataCount,
    pub data: MemorySink,
}

pub fn merge(image: &dyn LayerSource) -> Result<Merged, ReadError> {
    merge_with(image, &[])
}

pub fn merge_with(image: &dyn LayerSource, wanted: &[WantedDirectory]) -> Result<Merged, ReadError> {
    let mut data = MemorySink::default();
    let cancelled = AtomicBool::new(false);
    let job = Job { source: image, sink: &mut data, wanted, cancelled: &cancelled, progress: &mut |_| {} };
    let (tree, count) = read_image(job)?;
    Ok(Merged { tree, count, data })
}

/// Everything there is to say about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: String,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
    /// The first path of the file's hard links.
    pub group: Vec<u8>,
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

pub type Listing = BTreeMap<Vec<u8>, Seen>;

impl Merged {
    pub fn listing(&self) -> Listing {
        let mut listing = Listing::new();
        let mut groups = BTreeMap::new();
        self.list(NodeId::ROOT, Vec::new(), &mut listing, &mut groups);
        name_groups(&mut listing, &groups);
        listing
    }

    fn list(&self, node: NodeId, path: Vec<u8>, listing: &mut Listing, groups: &mut BTreeMap<Vec<u8>, u64>) {
        let meta = self.tree.meta(node);
        let kind = match self.tree.kind(node) {
            NodeKind::Directory => "directory".to_owned(),
            NodeKind::File { size, data } => {
                let data = data.map_or(&[][..], |data| &self.data.0[data.0 as usize]);
                assert_eq!(data.len() as u64, size);
                format!("file {:?}", String::from_utf8_lossy(data))
            }
            NodeKind::Symlink(target) => format!("symlink {:?}", String::from_utf8_lossy(target)),
            NodeKind::CharDevice { major, minor } => format!("char {major}:{minor}"),
            NodeKind::BlockDevice { major, minor } => format!("block {major}:{minor}"),
            NodeKind::Fifo => "fifo".to_owned(),
        };
        let xattrs = self.tree.xattrs(node).iter();
        let seen = Seen {
            kind,
            mode: u32::from(meta.mode),
            uid: meta.uid,
            gid: meta.gid,
            mtime: u64::from(meta.mtime),
            group: Vec::new(),
            xattrs: xattrs.map(|(name, value)| (String::from_utf8_lossy(name).into_owned(), value.clone())).collect(),
        };
        listing.insert(path.clone(), seen);
        groups.insert(path.clone(), node.index() as u64);
        if self.tree.kind(node) == NodeKind::Directory {
            for (name, child) in self.tree.children(node) {
                self.list(child, [&path[..], b"/", name].concat(), listing, groups);
            }
        }
    }
}

/// Names each file after the first of its paths.
pub fn name_groups(listing: &mut Listing, groups: &BTreeMap<Vec<u8>, u64>) {
    let mut first: BTreeMap<u64, &Vec<u8>> = BTreeMap::new();
    for (path, id) in groups {
        first.entry(*id).or_insert(path);
    }
    for (path, seen) in listing {
        seen.group.clone_from(first[&groups[path]]);
    }
}
