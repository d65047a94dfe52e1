//! Packs a directory tree with the product's squashfs writer and prints what it cost.
//!
//! `squashfs DIR OUT [zstd|gzip] [LEVEL] [WORKERS] [BLOCK]`, beside
//! `mksquashfs DIR OUT -comp zstd -Xcompression-level 3 -b 1M -processors 2 -noappend -no-xattrs`.
//! Files are read by the thread that feeds the writer, in the order of their paths. Attributes are not read.

use crate::cost::{own_cpu_seconds, own_peak_rss_mib};
use auroraboot::squashfs::{Compression, DataId, Device, Kind, Meta, NodeIndex, Options, Tree, Writer};
use std::collections::HashMap;
use std::error::Error;
use std::fs::{self, File, Metadata};
use std::num::NonZeroUsize;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// One inode of the directory tree.
struct Node {
    metadata: Metadata,
    content: Option<DataId>,
    target: Vec<u8>,
    children: Vec<(Box<[u8]>, NodeIndex)>,
}

#[derive(Default)]
struct Nodes {
    nodes: Vec<Node>,
    /// Device and inode number of files with several links.
    linked: HashMap<(u64, u64), NodeIndex>,
}

impl Nodes {
    /// Reads `path` and what is below it, content into `writer`.
    fn scan(&mut self, path: &Path, writer: &mut Writer<File>) -> Outcome<NodeIndex> {
        let metadata = fs::symlink_metadata(path)?;
        let identity = (metadata.dev(), metadata.ino());
        let linked = metadata.nlink() > 1 && !metadata.is_dir();
        if let Some(node) = self.linked.get(&identity).filter(|_| linked) {
            return Ok(*node);
        }
        let index = NodeIndex::try_from(self.nodes.len())?;
        let content =
            if metadata.is_file() { Some(writer.add_file(metadata.len(), &mut File::open(path)?)?) } else { None };
        let target =
            if metadata.is_symlink() { fs::read_link(path)?.as_os_str().as_bytes().to_vec() } else { Vec::new() };
        let directory = metadata.is_dir();
        self.nodes.push(Node { metadata, content, target, children: Vec::new() });
        if linked {
            self.linked.insert(identity, index);
        }
        if directory {
            let mut names: Vec<_> =
                fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
            names.sort_unstable_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
            let mut children = Vec::with_capacity(names.len());
            for name in names {
                children.push((name.as_bytes().into(), self.scan(&path.join(&name), writer)?));
            }
            self.nodes[index as usize].children = children;
        }
        Ok(index)
    }
}

impl Tree for Nodes {
    fn node_bound(&self) -> usize {
        self.nodes.len()
    }

    fn root(&self) -> NodeIndex {
        0
    }

    fn children(&self, dir: NodeIndex) -> impl Iterator<Item = (&[u8], NodeIndex)> {
        self.nodes[dir as usize].children.iter().map(|(name, node)| (&**name, *node))
    }

    fn meta(&self, node: NodeIndex) -> Meta<'_> {
        let Node { metadata, content, target, .. } = &self.nodes[node as usize];
        let kind = metadata.file_type();
        let device = Device {
            major: (metadata.rdev() >> 8 & 0xfff) as u32,
            minor: (metadata.rdev() & 0xff | metadata.rdev() >> 12 & 0xf_ff00) as u32,
        };
        let kind = match content {
            Some(id) => Kind::File(*id),
            None if kind.is_dir() => Kind::Directory,
            None if kind.is_symlink() => Kind::Symlink(target),
            None if kind.is_char_device() => Kind::CharDevice(device),
            None if kind.is_block_device() => Kind::BlockDevice(device),
            None if kind.is_fifo() => Kind::Fifo,
            None => Kind::Socket,
        };
        let mtime = u32::try_from(metadata.mtime()).unwrap_or(0);
        Meta { mode: metadata.mode() as u16, uid: metadata.uid(), gid: metadata.gid(), mtime, kind, xattrs: &[] }
    }
}

pub fn main(arguments: &[String]) -> Outcome<()> {
    let [dir, out, rest @ ..] = arguments else {
        return Err("usage: squashfs DIR OUT [zstd|gzip] [LEVEL] [WORKERS] [BLOCK]".into());
    };
    let level = rest.get(1).map_or(Ok(3), |level| level.parse())?;
    let compression = match rest.first().map(String::as_str) {
        None | Some("zstd") => Compression::Zstd { level },
        Some("gzip") => Compression::Gzip { level: level.try_into()? },
        Some(other) => return Err(format!("unknown compression {other}").into()),
    };
    let workers = rest.get(2).map_or(NonZeroUsize::new(2).ok_or("workers"), |n| n.parse().map_err(|_| "workers"))?;
    let block_size = rest.get(3).map_or(Ok(1 << 20), |n| n.parse())?;
    let began = Instant::now();
    let file = File::options().read(true).write(true).create(true).truncate(true).open(out)?;
    let mut writer = Writer::new(file, Options { block_size, ..Options::new(compression, workers) })?;
    let mut nodes = Nodes::default();
    nodes.scan(Path::new(dir), &mut writer)?;
    let finished = writer.finish(&nodes)?;
    let wall = began.elapsed().as_secs_f64();
    println!("wall {wall:.2} cpu {:.2} rss_mb {} size {}", own_cpu_seconds(), own_peak_rss_mib(), finished.size);
    println!("{:?}", finished.counts);
    Ok(())
}
