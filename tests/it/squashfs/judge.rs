//! Compares what unsquashfs extracts and what the kernel mounts with what was written.

use super::sample::{Body, Image, Node, Sample, TempDir};
use auroraboot::squashfs::{Device, NodeIndex, Xattr};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Everything unsquashfs, the kernel and our own reader can see of `image` is as in `sample`.
pub fn judge(sample: &Sample, image: &Image) {
    read_back(sample, image);
    let extracted = TempDir::new();
    let root = extracted.path().join("root");
    run(Command::new("unsquashfs").args(["-no-progress", "-quiet", "-dest"]).arg(&root).arg(image.path()));
    Comparison { sample, kernel: false, links: HashMap::new() }.compare(&root);
    judge_mounted(sample, image);
}

/// The kernel's half of [`judge`], for trees that take long to extract; `false` when this kernel has no squashfs.
pub fn judge_mounted(sample: &Sample, image: &Image) -> bool {
    let Some(mount) = Mount::new(&image.path()) else { return false };
    Comparison { sample, kernel: true, links: HashMap::new() }.compare(mount.0.path());
    true
}

/// How many names unsquashfs lists, the root included.
pub fn listed_names(image: &Image) -> usize {
    run(Command::new("unsquashfs").arg("-l").arg(image.path()))
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .count()
}

/// Runs a tool of the test; its standard output.
fn run(command: &mut Command) -> Vec<u8> {
    let name = command.get_program().to_os_string();
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => panic!("cannot run {name:?} ({error}): run tests/run, which installs what tests need"),
    };
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// The image mounted by the kernel, until dropped.
struct Mount(TempDir);

impl Mount {
    fn new(image: &Path) -> Option<Mount> {
        if !fs::read_to_string("/proc/filesystems").unwrap().contains("squashfs") {
            eprintln!("this kernel has no squashfs: only unsquashfs judges");
            return None;
        }
        let directory = TempDir::new();
        run(Command::new("mount").args(["-t", "squashfs", "-o", "loop,ro"]).arg(image).arg(directory.path()));
        Some(Mount(directory))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

fn read_back(sample: &Sample, image: &Image) {
    for (node, id) in sample.nodes.iter().zip(&image.ids) {
        let (Body::Plain(expected), Some(id)) = (&node.body, id) else { continue };
        let mut bytes = Vec::new();
        image.finished.copy_file(&*image.file, *id, &mut bytes).unwrap();
        assert!(bytes == *expected, "copy_file gives other bytes for {id:?}");
        assert_eq!(image.finished.file_size(*id), Some(bytes.len() as u64));
    }
}

struct Comparison<'a> {
    sample: &'a Sample,
    /// The kernel's view is exact; a copy in another file system has its own blocks and directory sizes.
    kernel: bool,
    /// Inode number and link count of each node, and how many names were seen.
    links: HashMap<NodeIndex, (u64, u64, u64)>,
}

impl Comparison<'_> {
    fn compare(mut self, root: &Path) {
        let mut with_xattrs = 0;
        let mut stack: Vec<(PathBuf, NodeIndex)> = vec![(root.to_path_buf(), 0)];
        while let Some((path, index)) = stack.pop() {
            let node = &self.sample.nodes[index as usize];
            let metadata = fs::symlink_metadata(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            self.compare_metadata(&path, node, &metadata);
            self.compare_body(&path, node, &metadata);
            if !node.xattrs.is_empty() {
                with_xattrs += 1;
                assert_eq!(xattrs(&path), sorted(&node.xattrs), "{path:?}");
            }
            if let Body::Directory(entries) = &node.body {
                let mut names: Vec<Vec<u8>> =
                    fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().as_bytes().to_vec()).collect();
                if self.kernel {
                    assert!(names.is_sorted(), "{path:?} is not in order");
                }
                names.sort_unstable();
                assert!(names.iter().eq(entries.keys()), "{path:?} has other names");
                stack.extend(entries.iter().map(|(name, node)| (path.join(OsStr::from_bytes(name)), *node)));
                assert!(!path.join("no such name").exists());
            } else {
                let seen = self.links.entry(index).or_insert((metadata.ino(), metadata.nlink(), 0));
                seen.2 += 1;
                assert_eq!(seen.0, metadata.ino(), "{path:?} is another inode than its hard link");
            }
        }
        for (node, (_, links, names)) in &self.links {
            assert_eq!(links, names, "links of node {node}");
        }
        if self.kernel && with_xattrs == 0 {
            return; // without the table, Linux says "not supported" rather than "none"
        }
        let dump = run(Command::new("getfattr").args(["-R", "-h", "-P", "-m", "-", "--absolute-names"]).arg(root));
        let listed = String::from_utf8_lossy(&dump).lines().filter(|line| line.starts_with("# file: ")).count();
        assert_eq!(listed, with_xattrs, "nodes with attributes");
    }

    fn compare_metadata(&self, path: &Path, node: &Node, metadata: &Metadata) {
        let symlink = matches!(node.body, Body::Symlink(_));
        let mode = if symlink { 0o777 } else { u32::from(node.mode) };
        assert_eq!(metadata.mode() & 0o7777, mode, "mode of {path:?}");
        assert_eq!((metadata.uid(), metadata.gid()), (node.uid, node.gid), "owner of {path:?}");
        assert_eq!(metadata.mtime(), i64::from(node.mtime), "time of {path:?}");
        let kind = metadata.file_type();
        let as_expected = match node.body {
            Body::Directory(_) => kind.is_dir(),
            Body::Plain(_) | Body::Sparse { .. } => kind.is_file(),
            Body::Symlink(_) => kind.is_symlink(),
            Body::Char(_) => kind.is_char_device(),
            Body::Block(_) => kind.is_block_device(),
            Body::Fifo => kind.is_fifo(),
            Body::Socket => kind.is_socket(),
        };
        assert!(as_expected, "{path:?} is {kind:?}");
    }

    fn compare_body(&self, path: &Path, node: &Node, metadata: &Metadata) {
        match &node.body {
            Body::Plain(expected) => {
                assert_eq!(metadata.len(), expected.len() as u64, "length of {path:?}");
                assert!(fs::read(path).unwrap() == *expected, "{path:?} has other bytes");
            }
            Body::Sparse { size, extents } => {
                assert_eq!(metadata.len(), *size, "length of {path:?}");
                compare_sparse(path, *size, extents);
                if self.kernel && extents.is_empty() {
                    assert!(metadata.blocks() * 512 < 1 << 20, "{path:?} takes {} blocks", metadata.blocks());
                }
            }
            Body::Symlink(target) => {
                assert_eq!(fs::read_link(path).unwrap().as_os_str().as_bytes(), target);
            }
            Body::Char(Device { major, minor }) | Body::Block(Device { major, minor }) => {
                let device = metadata.rdev();
                let found = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xf_ff00);
                assert_eq!(found, (u64::from(*major), u64::from(*minor)), "device {path:?}");
            }
            Body::Directory(entries) => {
                let directories = entries
                    .values()
                    .filter(|node| matches!(self.sample.nodes[**node as usize].body, Body::Directory(_)));
                if self.kernel {
                    assert_eq!(metadata.nlink(), 2 + directories.count() as u64, "links of {path:?}");
                }
            }
            Body::Fifo | Body::Socket => {}
        }
    }
}

/// The data, and some zeros before and after each stretch of it.
fn compare_sparse(path: &Path, size: u64, extents: &[(u64, Vec<u8>)]) {
    const MARGIN: u64 = 70_000;
    let file = File::open(path).unwrap();
    let mut wanted: Vec<u64> =
        extents.iter().flat_map(|(offset, data)| [*offset, offset + data.len() as u64]).collect();
    wanted.extend([0, size]);
    for edge in wanted {
        let start = edge.saturating_sub(MARGIN);
        let end = (edge + MARGIN).min(size);
        let mut expected = vec![0; (end - start) as usize];
        for (offset, data) in extents {
            for (at, byte) in (*offset..).zip(data).filter(|(at, _)| (start..end).contains(at)) {
                expected[(at - start) as usize] = *byte;
            }
        }
        let mut found = vec![1; expected.len()];
        file.read_exact_at(&mut found, start).unwrap();
        assert!(found == expected, "{path:?} has other bytes around {edge}");
    }
}

fn sorted(xattrs: &[Xattr]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut pairs: Vec<_> = xattrs.iter().map(|xattr| (xattr.name.to_vec(), xattr.value.to_vec())).collect();
    pairs.sort();
    pairs
}

/// All attributes of one file, through getfattr.
fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let dump = run(Command::new("getfattr").args(["-h", "-d", "-m", "-", "-e", "hex", "--absolute-names"]).arg(path));
    let dump = String::from_utf8_lossy(&dump);
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> = dump
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(|line| {
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            let digits = value.trim_start_matches("0x").as_bytes();
            let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
            (name.as_bytes().to_vec(), digits.chunks(2).map(byte).collect())
        })
        .collect();
    pairs.sort();
    pairs
}
