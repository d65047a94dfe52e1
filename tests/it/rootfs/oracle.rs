//! The same images through `umoci unpack` and through our merge, the trees compared in full.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::layers::{
    Listing, MemoryImage, Seen, TestEntry, digest, directory, entry, file, gzip, hard_link, merge, name_groups,
    symlink, tar,
};

pub type Layers = Vec<Vec<TestEntry>>;

/// A directory of its own that is gone when the test ends.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("auroraboot-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// umoci keeps owners, devices and attributes only for root.
fn needs_umoci() {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    let tools = ["umoci", "getfattr"].iter().all(|tool| Command::new(tool).arg("--version").output().is_ok());
    assert!(root && tools, "needs umoci, getfattr and root: run tests/run");
}

fn blobs(layers: &Layers) -> Vec<Vec<u8>> {
    let packed = layers.iter().map(|entries| tar(entries));
    packed.enumerate().map(|(n, tar)| if n % 2 == 1 { gzip(&tar) } else { tar }).collect()
}

fn write_layout(directory: &Path, layers: &Layers) {
    let store = directory.join("blobs/sha256");
    let _ = fs::remove_dir_all(directory);
    fs::create_dir_all(&store).unwrap();
    let put = |blob: &[u8]| {
        let digest = digest(blob);
        fs::write(store.join(digest.hex()), blob).unwrap();
        digest.to_string()
    };
    let mut descriptors = Vec::new();
    let mut diff_ids = Vec::new();
    for (n, blob) in blobs(layers).iter().enumerate() {
        let kind = if n % 2 == 1 { "tar+gzip" } else { "tar" };
        let kind = format!("application/vnd.oci.image.layer.v1.{kind}");
        diff_ids.push(digest(&tar(&layers[n])).to_string());
        descriptors.push(serde_json::json!({"mediaType": kind, "digest": put(blob), "size": blob.len()}));
    }
    let json = |value: serde_json::Value| serde_json::to_vec(&value).unwrap();
    let config = json(serde_json::json!({"architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids}}));
    let manifest = json(serde_json::json!({"schemaVersion": 2, "layers": descriptors, "config":
        {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": put(&config), "size": config.len()}}));
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": put(&manifest), "size": manifest.len(),
        "annotations": {"org.opencontainers.image.ref.name": "test"}}]});
    fs::write(directory.join("index.json"), json(index)).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// The tree umoci makes, or what it says.
pub fn umoci(scratch: &Path, layers: &Layers) -> Result<Listing, String> {
    let (image, root) = (scratch.join("image"), scratch.join("root"));
    write_layout(&image, layers);
    let _ = fs::remove_dir_all(&root);
    let image = format!("{}:test", image.display());
    let output = Command::new("umoci").args(["raw", "unpack", "--image", &image]).arg(&root).output().unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(list_tree(&root))
}

/// All there is below a directory on disk.
pub fn list_tree(root: &Path) -> Listing {
    let mut listing = Listing::new();
    let mut groups = BTreeMap::new();
    let mut directories = vec![(root.to_owned(), Vec::new())];
    list(root, Vec::new(), &mut listing, &mut groups);
    while let Some((on_disk, path)) = directories.pop() {
        for child in fs::read_dir(&on_disk).unwrap() {
            let child = child.unwrap();
            let path = [&path[..], b"/", child.file_name().as_bytes()].concat();
            list(&child.path(), path.clone(), &mut listing, &mut groups);
            if child.file_type().unwrap().is_dir() {
                directories.push((child.path(), path));
            }
        }
    }
    name_groups(&mut listing, &groups);
    read_xattrs(root, &mut listing);
    listing
}

fn list(on_disk: &Path, path: Vec<u8>, listing: &mut Listing, groups: &mut BTreeMap<Vec<u8>, u64>) {
    let meta = fs::symlink_metadata(on_disk).unwrap();
    let kind = meta.file_type();
    let device = || format!("{}:{}", (meta.rdev() >> 8) & 0xfff, meta.rdev() & 0xff);
    let kind = if kind.is_dir() {
        "directory".to_owned()
    } else if kind.is_symlink() {
        format!("symlink {:?}", String::from_utf8_lossy(&fs::read_link(on_disk).unwrap().into_os_string().into_vec()))
    } else if kind.is_file() {
        format!("file {:?}", String::from_utf8_lossy(&fs::read(on_disk).unwrap()))
    } else if kind.is_char_device() {
        format!("char {}", device())
    } else if kind.is_block_device() {
        format!("block {}", device())
    } else {
        assert!(kind.is_fifo());
        "fifo".to_owned()
    };
    let seen = Seen {
        kind,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        mtime: u64::try_from(meta.mtime()).unwrap(),
        group: Vec::new(),
        xattrs: BTreeMap::new(),
    };
    listing.insert(path.clone(), seen);
    groups.insert(path, meta.ino());
}

fn read_xattrs(root: &Path, listing: &mut Listing) {
    let output =
        Command::new("getfattr").args(["-R", "-P", "-h", "-d", "-m", "-", "-e", "hex", "."]).current_dir(root).output();
    let mut path = Vec::new();
    for line in String::from_utf8(output.unwrap().stdout).unwrap().lines() {
        if let Some(name) = line.strip_prefix("# file: ") {
            let name = name.trim_start_matches("./");
            path = if name == "." { Vec::new() } else { format!("/{name}").into_bytes() };
        } else if let Some((name, value)) = line.split_once("=0x") {
            let bytes = (0..value.len() / 2).map(|n| u8::from_str_radix(&value[n * 2..n * 2 + 2], 16).unwrap());
            listing.get_mut(&path).unwrap().xattrs.insert(name.to_owned(), bytes.collect());
        }
    }
}

fn ours(layers: &Layers) -> Result<Listing, String> {
    let merged = merge(&MemoryImage::new(blobs(layers)));
    merged.map(|merged| merged.listing()).map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        format!("{error}: {}", cause.unwrap_or_default())
    })
}

/// umoci leaves directories nobody described with today's time; ours have the time of the entry that needed them.
fn forget_made_up_times(theirs: &mut Listing, ours: &mut Listing) {
    for (path, seen) in theirs {
        if seen.kind == "directory" && seen.mtime > 1_500_000_000 {
            seen.mtime = 0;
            if let Some(seen) = ours.get_mut(path) {
                seen.mtime = 0;
            }
        }
    }
}

/// Both agree on the tree, or that there is none. Returns whether there is one.
fn assert_agreement(scratch: &Path, name: &str, layers: &Layers) -> bool {
    match (umoci(scratch, layers), ours(layers)) {
        (Ok(mut theirs), Ok(mut ours)) => {
            forget_made_up_times(&mut theirs, &mut ours);
            for (path, seen) in &theirs {
                assert_eq!(ours.get(path), Some(seen), "{name}: {:?}\n{layers:#?}", String::from_utf8_lossy(path));
            }
            let extra: Vec<_> = ours.keys().filter(|path| !theirs.contains_key(*path)).collect();
            assert!(extra.is_empty(), "{name}: only ours has {extra:?}\n{layers:#?}");
            true
        }
        (Err(_), Err(_)) => false,
        (Err(theirs), Ok(_)) => panic!("{name}: only umoci refuses: {theirs}\n{layers:#?}"),
        (Ok(_), Err(ours)) => panic!("{name}: only we refuse: {ours}\n{layers:#?}"),
    }
}

fn whiteout(path: &str) -> TestEntry {
    let (directory, name) = path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
    file(format!("{directory}/.wh.{name}"), "")
}

fn opaque(path: &str) -> TestEntry {
    file(format!("{path}/.wh..wh..opq"), "")
}

fn with(entry: TestEntry, change: impl FnOnce(&mut TestEntry)) -> TestEntry {
    let mut entry = entry;
    change(&mut entry);
    entry
}

#[allow(clippy::too_many_lines)] // a table
pub fn hard_cases() -> Vec<(&'static str, Layers)> {
    let capability = || vec![("security.capability".to_owned(), [&[1, 0, 0, 2, 0, 0x20][..], &[0; 14]].concat())];
    vec![
        (
            "through a symlink of a lower layer",
            vec![
                vec![directory("usr/"), directory("usr/lib"), file("usr/lib/x", "old"), symlink("lib", "usr/lib")],
                vec![file("lib/x", "new"), file("lib/y/z", "deep"), directory("lib/")],
            ],
        ),
        (
            "through an absolute and a climbing symlink",
            vec![
                vec![symlink("a", "/r/s/../t"), symlink("b", "../../../r"), directory("r")],
                vec![file("a/f", "1"), file("b/g", "2"), whiteout("b/t/f"), file("b/t/h", "3")],
            ],
        ),
        (
            "a hard link keeps a whited-out file",
            vec![
                vec![file("a", "data"), file("c", "other")],
                vec![hard_link("b", "a"), hard_link("d/e", "/c")],
                vec![whiteout("a"), file("c", "replaced")],
            ],
        ),
        (
            "a hidden file whose data a link of its own layer needs",
            vec![
                vec![file("a", "data"), hard_link("b", "a"), hard_link("c", "b")],
                vec![whiteout("a"), file("b", "new")],
            ],
        ),
        (
            "a hard link to a replaced file, and to a symlink",
            vec![
                vec![file("a", "1"), symlink("s", "a")],
                vec![hard_link("b", "a"), file("a", "22"), hard_link("t", "s")],
            ],
        ),
        (
            "one path twice",
            vec![vec![file("a", "1"), file("a", "22"), directory("d"), file("d/x", "3"), file("d", "file")]],
        ),
        (
            "whiteouts after what they must not hide",
            vec![
                vec![file("a", "1"), file("d/old", "1"), file("o/old", "1"), file("o/p/old", "1")],
                vec![
                    file("a", "2"),
                    whiteout("a"),
                    file("d/new", "2"),
                    whiteout("d"),
                    file("o/p/new", "2"),
                    opaque("o"),
                ],
            ],
        ),
        (
            "whiteouts before",
            vec![
                vec![file("a", "1"), file("d/old", "1"), file("o/old", "1"), directory("o/sub")],
                vec![whiteout("a"), file("a/b", "2"), whiteout("d"), opaque("o"), file("o/new", "2")],
            ],
        ),
        (
            "whiteouts and opaque marks through links",
            vec![
                vec![file("r/f", "1"), file("r/g", "1"), symlink("l", "/r"), file("q/f", "1"), symlink("m", "q")],
                vec![whiteout("l/f"), opaque("m")],
            ],
        ),
        (
            "whiteouts of nothing",
            vec![vec![file("a", "1")], vec![whiteout("x/y"), opaque("z"), whiteout("n"), opaque("a")]],
        ),
        ("an opaque root", vec![vec![file("a", "1"), file("d/e", "1")], vec![file("d/f", "2"), opaque(".")]]),
        (
            "types change",
            vec![
                vec![
                    file("a", "1"),
                    directory("d"),
                    file("d/x", "1"),
                    symlink("l", "d"),
                    directory("e"),
                    file("e/k", "1"),
                ],
                vec![
                    directory("a"),
                    file("a/y", "2"),
                    file("d", "file"),
                    directory("l"),
                    file("l/z", "2"),
                    symlink("e", "a"),
                ],
                vec![directory("d"), file("d/again", "3"), file("e/through", "3")],
            ],
        ),
        (
            "a directory's metadata changes",
            vec![
                vec![
                    directory("d"),
                    file("d/x", "1"),
                    with(directory("u"), |e| e.xattrs = vec![("user.a".into(), b"1".to_vec())]),
                ],
                vec![
                    with(directory("d"), |e| (e.mode, e.uid, e.gid, e.mtime) = (0o2750, 5, 6, 7)),
                    with(directory("u"), |e| e.xattrs = vec![("user.b".into(), b"2".to_vec())]),
                    with(directory("./"), |e| (e.mode, e.uid) = (0o700, 9)),
                ],
            ],
        ),
        (
            "owners, setuid, devices, capabilities, odd names",
            vec![vec![
                with(file("su", "x"), |e| (e.mode, e.uid, e.gid) = (0o6755, 1000, 0x1f_ffff)),
                with(entry("null", b'3'), |e| e.device = (1, 3)),
                with(entry("loop", b'4'), |e| e.device = (7, 250)),
                entry("fifo", b'6'),
                with(file("ping", "x"), |e| e.xattrs = capability()),
                file([b'n', 0xff, 0xfe, b'\n', b'x'], "not utf-8"),
                file(vec![b'x'; 255], "long"),
                file(format!("{}/f", ["0123456789abcdef"; 12].join("/")), "deep"),
                symlink("far", "t/".repeat(90)),
                hard_link("twice", "ping"),
            ]],
        ),
        ("a file on the way", vec![vec![file("a", "1")], vec![file("a/b", "2")]]),
        ("a link to a file on the way", vec![vec![file("a", "1"), symlink("l", "a")], vec![file("l/b", "2")]]),
        ("links in a circle on the way", vec![vec![symlink("a", "b"), symlink("b", "a"), file("a/x", "1")]]),
        ("a hard link to nothing", vec![vec![file("a", "1")], vec![whiteout("a"), hard_link("b", "a")]]),
        ("a hard link to itself", vec![vec![file("a", "1"), hard_link("a", "a")]]),
        ("a hard link to a directory", vec![vec![directory("a"), hard_link("b", "a")]]),
    ]
}

#[test]
fn the_hard_cases_give_umocis_tree() {
    needs_umoci();
    let scratch = Scratch::new("umoci-cases");
    let mut made = 0;
    let cases = hard_cases();
    for (name, layers) in &cases {
        made += usize::from(assert_agreement(&scratch.0, name, layers));
    }
    assert_eq!(made, cases.len() - 6, "the last six are refused");
}

/// xorshift64*: the same images every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len())]
    }

    /// Few names, so that layers get into each other's way.
    fn path(&mut self) -> String {
        let depth = 1 + self.roll(3);
        (0..depth).map(|_| self.pick(&["a", "b", "c", "lib", "usr"])).collect::<Vec<_>>().join("/")
    }

    fn entry(&mut self, stamp: usize) -> TestEntry {
        let path = self.path();
        let mut entry = match self.roll(20) {
            0..=5 => file(path, format!("data {stamp}")),
            6..=8 => directory(path),
            9..=11 => {
                let up = self.pick(&["", "", "/", "../", "../../", "./"]);
                let target = format!("{up}{}", self.path());
                symlink(path, target)
            }
            12..=14 => {
                let target = self.path();
                hard_link(path, target)
            }
            15 => entry(path, b'6'),
            16 => with(entry(path, b'3'), |entry| entry.device = (1, 5)),
            17..=18 => whiteout(&path),
            _ => opaque(&path),
        };
        entry.mtime = 1000 + stamp as u64;
        if entry.kind != b'2' && entry.kind != b'1' {
            entry.mode = [0o644, 0o755, 0o700, 0o4755][self.roll(4)];
            entry.uid = [0, 1000][self.roll(2)];
            if entry.kind != b'3' && entry.kind != b'6' && self.roll(4) == 0 {
                entry.xattrs = vec![(format!("user.{stamp}"), b"v".to_vec())];
            }
        }
        entry
    }
}

/// Random images, each repaired until umoci takes it: what it refuses we refuse too.
#[test]
fn random_images_give_umocis_tree() {
    needs_umoci();
    let images = std::env::var("AURORABOOT_ORACLE_IMAGES").ok().and_then(|n| n.parse().ok()).unwrap_or(40);
    let scratch = Scratch::new("umoci-random");
    for seed in 1..=images {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut layers: Layers = vec![Vec::new(); 4];
        for stamp in 0..28 {
            let layer = stamp / 7;
            let entry = dice.entry(stamp);
            layers[layer].push(entry);
            // Only what can be applied may stay, or the first refusal would hide the rest.
            if ours(&layers).is_err() && dice.roll(30) != 0 {
                layers[layer].pop();
            }
        }
        assert_agreement(&scratch.0, &format!("image {seed}"), &layers);
    }
}
