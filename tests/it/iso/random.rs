//! Random trees, written and taken out again by others: by Rock Ridge, Joliet and plain names, as a whole and as partition 1.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use auroraboot::iso::{Boot, Writer};

use super::{OPTIONS, Scratch, tool};

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Node {
    Directory(u32),
    File(u32, Vec<u8>),
    Symlink(String),
}

type Tree = BTreeMap<String, Node>;

/// xorshift64: the same trees every time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len() as u64) as usize]
    }

    /// Names that are hard on one naming or another: long, equal but for case, with marks that mean something elsewhere.
    fn name(&mut self, bytes_max: usize) -> String {
        const PIECES: [&str; 16] =
            ["a", "A", "b", "é", "語", "😀", ".", "..", " ", ";1", ":", "*?", "\\", "_", "-x-", "\u{2e2e}\u{3b3b}"];
        let pieces = match self.below(10) {
            0 => 40 + self.below(60),
            1 => 12,
            _ => 1 + self.below(4),
        };
        let mut name: String = (0..pieces).map(|_| self.pick(&PIECES)).collect();
        while name.len() > bytes_max {
            name.pop();
        }
        if name.trim_matches('.').is_empty() { format!("{name}x") } else { name }
    }

    fn mode(&mut self) -> u32 {
        [0o644, 0o600, 0o755, 0o4711, 0o444][self.below(5) as usize]
    }

    fn target(&mut self, bytes_max: usize) -> String {
        let components_max = if self.below(8) == 0 { 40 } else { 4 };
        let components = 1 + self.below(components_max);
        let names: Vec<String> =
            (0..components).map(|_| if self.below(4) == 0 { "..".to_owned() } else { self.name(250) }).collect();
        let target = format!("{}{}", if self.below(3) == 0 { "/" } else { "" }, names.join("/"));
        if target.len() > bytes_max { "../short".to_owned() } else { target }
    }

    fn tree(&mut self, judge: &Judge) -> Tree {
        let mut tree = Tree::new();
        let mut directories = vec![String::new()];
        for _ in 0..(20 + self.below(300)) {
            // The newest directory more often than others: some trees get deep.
            let newest = directories.len() as u64 - 1;
            let parent = if self.below(3) == 0 { newest } else { self.below(newest + 1) };
            let kind = self.below(8);
            let name = self.name(if kind < 3 { 250 } else { judge.file_name_max });
            let path = format!("{}{name}", directories[parent as usize]);
            if tree.contains_key(&path) {
                continue;
            }
            let node = match kind {
                0 | 1 => Node::Directory([0o755, 0o700, 0o1777][self.below(3) as usize]),
                2 => Node::Symlink(self.target(judge.target_max)),
                3 => Node::File(self.mode(), Vec::new()),
                _ => {
                    let bytes = path.as_bytes().repeat(1 + self.below(200) as usize);
                    Node::File(self.mode(), bytes)
                }
            };
            if matches!(node, Node::Directory(_)) && path.len() < 1500 {
                directories.push(format!("{path}/"));
            }
            tree.insert(path, node);
        }
        tree
    }
}

fn write(tree: &Tree, scratch: &Scratch) -> String {
    let (path, file) = scratch.image();
    let mut writer = Writer::new(Arc::clone(&file), OPTIONS).unwrap();
    for (path, node) in tree {
        match node {
            Node::Directory(mode) => writer.add_directory(path, *mode).unwrap(),
            Node::Symlink(target) => writer.add_symlink(path, target).unwrap(),
            Node::File(mode, bytes) => {
                writer.add_file(path, bytes.len() as u64, &mut &bytes[..], *mode).map(drop).unwrap();
            }
        }
    }
    writer.finish(&Boot::default()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Who takes an image apart, and how it is told to go by Rock Ridge, and then by Joliet or plain names.
struct Judge {
    /// Names of files up to here. libarchive 3.6 wants continuation areas before a file's data (`register_CE`: "Invalid parameter in
    /// SUSP CE extension"), which no image has to which something was added later; ours has all directories behind the data.
    file_name_max: usize,
    /// It loses the slash where a link goes on in another `SL`, which libisofs and Linux put there.
    target_max: usize,
    namings: &'static [&'static str],
    take_out: fn(&str, &str, &str),
}

const LIBARCHIVE: Judge = Judge {
    file_name_max: 110,
    target_max: 200,
    namings: &["iso9660:!joliet", "iso9660:!rockridge", "iso9660:!rockridge,iso9660:!joliet"],
    take_out: |image, naming, out| {
        fs::create_dir(out).unwrap();
        tool("bsdtar", &["-x", "-p", "-P", "-f", image, "-C", out, "--options", naming]);
    },
};

const XORRISO: Judge = Judge {
    file_name_max: 250,
    target_max: 4000,
    namings: &["nojoliet", "norock"],
    take_out: |image, naming, out| {
        tool("xorriso", &["-osirrox", "on", "-read_fs", naming, "-indev", image, "-extract", "/", out]);
    },
};

impl Judge {
    fn taken_out(&self, image: &str, naming: &str, scratch: &Scratch) -> Tree {
        let out = scratch.0.join("out");
        (self.take_out)(image, naming, out.to_str().unwrap());
        let mut tree = Tree::new();
        read(&out, "", &mut tree);
        fs::remove_dir_all(&out).unwrap();
        tree
    }

    fn judge(&self, seed: u64) {
        let scratch = Scratch::new(&format!("random-{seed}"));
        let tree = Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)).tree(self);
        let whole = write(&tree, &scratch);
        let partition = scratch.0.join("partition").to_str().unwrap().to_owned();
        let mut from = fs::File::open(&whole).unwrap();
        from.seek(SeekFrom::Start(16 * 2048)).unwrap();
        std::io::copy(&mut from, &mut fs::File::create(&partition).unwrap()).unwrap();
        for image in [&whole, &partition] {
            let found = self.taken_out(image, self.namings[0], &scratch);
            for path in found.keys().chain(tree.keys()) {
                assert_eq!(found.get(path), tree.get(path), "{path:?}, seed {seed}, {image}");
            }
            for naming in &self.namings[1..] {
                let found = self.taken_out(image, naming, &scratch);
                assert!(contents(&found) == contents(&tree), "seed {seed}, {image}, {naming}");
            }
        }
    }
}

fn read(directory: &Path, prefix: &str, tree: &mut Tree) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let (path, meta) = (format!("{prefix}{}", entry.file_name().to_str().unwrap()), entry.metadata().unwrap());
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_symlink() {
            let target = fs::read_link(entry.path()).unwrap();
            tree.insert(path, Node::Symlink(target.to_str().unwrap().to_owned()));
        } else {
            assert_eq!(meta.mtime(), i64::from(OPTIONS.mtime), "{path}");
            if meta.is_dir() {
                read(&entry.path(), &format!("{path}/"), tree);
                tree.insert(path, Node::Directory(mode));
            } else {
                tree.insert(path, Node::File(mode, fs::read(entry.path()).unwrap()));
            }
        }
    }
}

/// Contents of the files, which say the paths they were at, and how many directories there are. Empty files say nothing: plain names
/// show links as such.
fn contents(tree: &Tree) -> (BTreeSet<&[u8]>, usize) {
    let files = tree.values().filter_map(|node| if let Node::File(_, bytes) = node { Some(&bytes[..]) } else { None });
    let directories = tree.values().filter(|node| matches!(node, Node::Directory(_))).count();
    (files.filter(|bytes| !bytes.is_empty()).collect(), directories)
}

#[test]
fn libarchive_takes_out_of_every_tree_what_went_in() {
    (1..=4).for_each(|seed| LIBARCHIVE.judge(seed));
}

#[test]
fn xorriso_takes_out_of_every_tree_what_went_in() {
    (11..=14).for_each(|seed| XORRISO.judge(seed));
}
