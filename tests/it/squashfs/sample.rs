//! Trees to be written: by hand and at random.

use auroraboot::squashfs::{
    Compression, DataId, Device, Extent, Finished, Kind, Meta, NodeIndex, Options, Tree, Writer, Xattr,
};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that goes away with the value.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> TempDir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("auroraboot-squashfs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        TempDir(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn options(compression: Compression, block_size: u32, workers: usize) -> Options {
    let workers = NonZeroUsize::new(workers).unwrap();
    Options { block_size, mod_time: 1_700_000_000, ..Options::new(compression, workers) }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[derive(Debug, Clone)]
pub enum Body {
    Directory(BTreeMap<Vec<u8>, NodeIndex>),
    Plain(Vec<u8>),
    Sparse { size: u64, extents: Vec<(u64, Vec<u8>)> },
    Symlink(Vec<u8>),
    Char(Device),
    Block(Device),
    Fifo,
    Socket,
}

#[derive(Debug, Clone)]
pub struct Node {
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u32,
    pub body: Body,
    pub xattrs: Vec<Xattr>,
}

/// A tree with its content; node 0 is the root.
pub struct Sample {
    pub nodes: Vec<Node>,
}

/// A written image.
pub struct Image {
    directory: TempDir,
    pub file: Arc<File>,
    pub finished: Finished,
    pub ids: Vec<Option<DataId>>,
}

impl Image {
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}

impl Sample {
    pub fn new() -> Sample {
        let root =
            Node { mode: 0o755, uid: 0, gid: 0, mtime: 5, body: Body::Directory(BTreeMap::new()), xattrs: vec![] };
        Sample { nodes: vec![root] }
    }

    pub fn node(&mut self, parent: NodeIndex, name: &[u8], body: Body) -> NodeIndex {
        let index = self.nodes.len() as NodeIndex;
        self.nodes.push(Node { mode: 0o644, uid: 1000, gid: 100, mtime: 1_600_000_000, body, xattrs: vec![] });
        self.link(parent, name, index);
        index
    }

    pub fn file(&mut self, parent: NodeIndex, name: &[u8], body: Body) -> NodeIndex {
        self.node(parent, name, body)
    }

    pub fn directory(&mut self, parent: NodeIndex, name: &[u8], mode: u16) -> NodeIndex {
        let index = self.node(parent, name, Body::Directory(BTreeMap::new()));
        self.nodes[index as usize].mode = mode;
        index
    }

    pub fn link(&mut self, parent: NodeIndex, name: &[u8], node: NodeIndex) {
        self.entries(parent).insert(name.to_vec(), node);
    }

    pub fn unlink(&mut self, parent: NodeIndex, name: &[u8]) {
        self.entries(parent).remove(name).unwrap();
    }

    pub fn xattr(&mut self, node: NodeIndex, name: &str, value: &[u8]) {
        self.nodes[node as usize].xattrs.push(Xattr { name: name.as_bytes().into(), value: value.into() });
    }

    fn entries(&mut self, directory: NodeIndex) -> &mut BTreeMap<Vec<u8>, NodeIndex> {
        match &mut self.nodes[directory as usize].body {
            Body::Directory(entries) => entries,
            other => panic!("{other:?} is no directory"),
        }
    }

    /// The tree as the writer wants it; files have the content of `ids`, or one that does not exist.
    pub fn tree<'a>(&'a self, ids: &'a [Option<DataId>]) -> SampleTree<'a> {
        // An id can only be had from a writer.
        let directory = TempDir::new();
        let file = File::create_new(directory.path().join("other")).unwrap();
        let mut other = Writer::new(file, options(Compression::Zstd { level: 1 }, 4096, 1)).unwrap();
        let unknown = other.add_file(0, &mut std::io::empty()).unwrap();
        SampleTree { sample: self, ids, unknown }
    }

    pub fn write(&self, options: Options) -> Image {
        let directory = TempDir::new();
        let path = directory.path().join("image");
        let file = Arc::new(File::options().read(true).write(true).create_new(true).open(path).unwrap());
        let mut writer = Writer::new(file.clone(), options).unwrap();
        let mut ids = Vec::new();
        for node in &self.nodes {
            ids.push(match &node.body {
                Body::Plain(bytes) => Some(writer.add_file(bytes.len() as u64, &mut &bytes[..]).unwrap()),
                Body::Sparse { size, extents } => {
                    let map: Vec<Extent> = extents
                        .iter()
                        .map(|(offset, data)| Extent { offset: *offset, len: data.len() as u64 })
                        .collect();
                    let data: Vec<u8> = extents.iter().flat_map(|(_, data)| data.iter().copied()).collect();
                    Some(writer.add_sparse(*size, &map, &mut &data[..]).unwrap())
                }
                _ => None,
            });
        }
        let finished = writer.finish(&self.tree(&ids)).unwrap();
        Image { directory, file, finished, ids }
    }
}

pub struct SampleTree<'a> {
    sample: &'a Sample,
    ids: &'a [Option<DataId>],
    unknown: DataId,
}

impl Tree for SampleTree<'_> {
    fn node_bound(&self) -> usize {
        self.sample.nodes.len()
    }

    fn root(&self) -> NodeIndex {
        0
    }

    fn children(&self, dir: NodeIndex) -> impl Iterator<Item = (&[u8], NodeIndex)> {
        let Body::Directory(entries) = &self.sample.nodes[dir as usize].body else { panic!("{dir} is no directory") };
        entries.iter().map(|(name, node)| (&name[..], *node))
    }

    fn meta(&self, node: NodeIndex) -> Meta<'_> {
        let index = node as usize;
        let Node { mode, uid, gid, mtime, body, xattrs } = &self.sample.nodes[index];
        let kind = match body {
            Body::Directory(_) => Kind::Directory,
            Body::Plain(_) | Body::Sparse { .. } => {
                Kind::File(self.ids.get(index).copied().flatten().unwrap_or(self.unknown))
            }
            Body::Symlink(target) => Kind::Symlink(target),
            Body::Char(device) => Kind::CharDevice(*device),
            Body::Block(device) => Kind::BlockDevice(*device),
            Body::Fifo => Kind::Fifo,
            Body::Socket => Kind::Socket,
        };
        Meta { mode: *mode, uid: *uid, gid: *gid, mtime: *mtime, kind, xattrs }
    }
}

/// xorshift64*: small, and the same on every machine.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound
    }

    /// A tree of some hundred nodes: nested directories, repeated content, hard links, attributes.
    pub fn sample(&mut self) -> Sample {
        let mut sample = Sample::new();
        let mut directories = vec![0];
        let mut others: Vec<NodeIndex> = Vec::new();
        for number in 0..150 + self.below(150) {
            let parent = directories[self.below(directories.len() as u64) as usize];
            let mut name = format!("{number}-").into_bytes();
            name.extend((0..self.below(30)).map(|_| [b'a', b' ', 0xc3, b'\n', 1][self.below(5) as usize]));
            let node = match self.below(12) {
                0 | 1 => {
                    let node = sample.directory(parent, &name, 0o700);
                    directories.push(node);
                    node
                }
                2 if !others.is_empty() => {
                    let node = others[self.below(others.len() as u64) as usize];
                    sample.link(parent, &name, node);
                    continue;
                }
                3 => sample.node(parent, &name, Body::Symlink(vec![b't'; 1 + self.below(90) as usize])),
                4 => sample.node(parent, &name, Body::Fifo),
                5 => sample.file(parent, &name, self.sparse()),
                _ => sample.file(parent, &name, Body::Plain(self.content())),
            };
            self.decorate(&mut sample, node);
            if !directories.contains(&node) {
                others.push(node);
            }
        }
        sample
    }

    fn decorate(&mut self, sample: &mut Sample, node: NodeIndex) {
        let entry = &mut sample.nodes[node as usize];
        entry.mode = (self.next() & 0o7777) as u16;
        entry.uid = self.below(5) as u32 * 1000;
        entry.gid = self.below(300) as u32;
        entry.mtime = self.next() as u32;
        for number in 0..self.below(8).saturating_sub(5) {
            let len = self.below(60) as usize;
            sample.xattr(node, &format!("trusted.x{number}"), &noise(len, len as u64));
        }
    }

    /// Few seeds and few lengths, so that files and tails repeat; lengths around multiples of a block.
    fn content(&mut self) -> Vec<u8> {
        let len = (self.below(6) * 4096 + self.below(3)).saturating_sub(1) as usize;
        match self.below(4) {
            0 => vec![0; len],
            1 => noise(len, self.below(3)),
            2 => noise(64, self.below(3)).into_iter().cycle().take(len).collect(),
            _ => noise(self.below(9000) as usize, self.next()),
        }
    }

    fn sparse(&mut self) -> Body {
        let mut extents = Vec::new();
        let mut offset = 0;
        for _ in 0..self.below(4) {
            offset += self.below(30_000);
            let data = noise(self.below(9000) as usize, offset);
            extents.push((offset, data.clone()));
            offset += data.len() as u64;
        }
        Body::Sparse { size: offset + self.below(20_000), extents }
    }
}
