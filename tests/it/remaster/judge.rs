//! Compares an image with its patched form: every file through every tree, tables, what boots.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use auroraboot::iso::read::{Image, Kind};
use auroraboot::storage::Storage;

use super::Files;
use super::sources::Memory;

/// A folder that goes away.
pub struct Scratch(PathBuf);

pub fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("auroraboot-remaster-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&path);
    fs::create_dir(&path).unwrap();
    Scratch(path)
}

impl Scratch {
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn tool_in(dir: &Path, program: &str, arguments: &[&str]) -> String {
    tool(Some(dir), program, arguments)
}

pub fn tool(dir: Option<&Path>, program: &str, arguments: &[&str]) -> String {
    let (success, text) = run(dir, program, arguments);
    assert!(success, "{program} {arguments:?}: {text}");
    text
}

fn run(dir: Option<&Path>, program: &str, arguments: &[&str]) -> (bool, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path).current_dir(dir.unwrap_or(Path::new("/")));
    let output = command.output().unwrap_or_else(|error| panic!("{program} is needed (tests/packages it): {error}"));
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// Every file in the eyes of our reader, by its path.
pub fn read_all(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let storage = Memory::new(bytes.to_vec());
    let image = Image::open(&storage, storage.len()).unwrap();
    let mut all = BTreeMap::new();
    let mut todo = vec![String::new()];
    while let Some(dir) = todo.pop() {
        for entry in image.list(if dir.is_empty() { "/" } else { &dir }).unwrap() {
            let path = format!("{dir}/{}", entry.name);
            match entry.kind {
                Kind::Directory => todo.push(path),
                Kind::Symlink(target) => drop(all.insert(path, target.into_bytes())),
                Kind::File => {
                    assert_eq!(image.find(&path).unwrap().unwrap().extents, entry.extents, "{path}");
                    let mut content = vec![0; entry.size as usize];
                    let mut rest = content.as_mut_slice();
                    for extent in entry.extents {
                        let (piece, behind) = rest.split_at_mut(extent.length as usize);
                        storage.read_exact_at(piece, extent.offset).unwrap();
                        rest = behind;
                    }
                    all.insert(path, content);
                }
            }
        }
    }
    all
}

/// Every file in the eyes of xorriso.
fn extracted(dir: &Path, image: &str, names: &str) -> BTreeMap<String, Vec<u8>> {
    let out = dir.join("out");
    let _ = run(Some(dir), "chmod", &["-R", "u+rwX", "out"]);
    let _ = fs::remove_dir_all(&out);
    tool_in(dir, "xorriso", &["-read_fs", names, "-indev", image, "-osirrox", "on", "-extract", "/", "out"]);
    let _ = run(Some(dir), "chmod", &["-R", "u+rwX", "out"]);
    let mut all = BTreeMap::new();
    let mut todo = vec![out.clone()];
    while let Some(folder) = todo.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            let kind = entry.file_type().unwrap();
            let path = format!("/{}", entry.path().strip_prefix(&out).unwrap().display());
            if kind.is_dir() {
                todo.push(entry.path());
            } else if kind.is_symlink() {
                all.insert(path, fs::read_link(entry.path()).unwrap().into_os_string().into_encoded_bytes());
            } else {
                all.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    all
}

/// The old files are all there and the same, but those that were to be replaced; the new ones are there, by their names or by what
/// the tree makes of them, and nothing else is.
fn compare(what: &str, before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>, files: &Files) {
    let is_added = |path: &str| files.iter().any(|(added, _)| simple(path) == simple(added));
    let is_catalog = |path: &str| path.to_lowercase().contains("boot.cat"); // names the place of the EFI partition
    for (path, content) in before.iter().filter(|(path, _)| !is_added(path) && !is_catalog(path)) {
        assert!(after.get(path) == Some(content), "{what}: {path} is not what it was");
    }
    for (path, content) in files.iter().filter(|(path, _)| path.len() < 60) {
        let found = after.iter().find(|(found, _)| simple(found) == simple(path));
        assert!(found.map(|(_, found)| found) == Some(content), "{what}: {path} is not there as it was added");
    }
    let new = after.keys().filter(|path| !before.contains_key(*path)).count();
    assert!(new <= files.len(), "{what}: {new} new files");
    let missing = files.iter().filter(|(path, _)| !before.keys().any(|old| simple(old) == simple(path))).count();
    assert_eq!(new, missing, "{what}: new files");
}

/// What the plainest names leave of a path: eight characters, and three behind the dot.
fn simple(path: &str) -> String {
    let simple = |name: &str| {
        let name = name.split(';').next().unwrap().to_lowercase();
        let (stem, extension) = name.rsplit_once('.').unwrap_or((&name, ""));
        let cut = |text: &str, len| {
            text.chars().take(len).map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect::<String>()
        };
        format!("{}.{}", cut(stem, 8), cut(extension, 3))
    };
    path.trim_start_matches('/').split('/').map(simple).collect::<Vec<_>>().join("/")
}

/// Numbers aside, what a tool says of two images.
fn lines(text: &str, marks: &[&str]) -> BTreeSet<String> {
    let shape = |line: &str| {
        let text: String = line.chars().filter(|c| !c.is_ascii_digit()).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    text.lines().filter(|line| marks.iter().any(|mark| line.contains(mark))).map(shape).collect()
}

pub fn judge(dir: &Path, before: &[u8], after: &[u8], files: &Files) {
    fs::write(dir.join("before.iso"), before).unwrap();
    fs::write(dir.join("after.iso"), after).unwrap();
    compare("our reader", &read_all(before), &read_all(after), files);
    compare_reports(dir);
    let bases: &[usize] = if before.get(32 * 2048 + 1..32 * 2048 + 6) == Some(b"CD001") && before[32 * 2048] == 1 {
        &[0, 16]
    } else {
        &[0]
    };
    for &base in bases {
        fs::write(dir.join("before.part"), &before[base * 2048..]).unwrap();
        fs::write(dir.join("after.part"), &after[base * 2048..]).unwrap();
        for names in ["nojoliet", "norock"] {
            let what = format!("xorriso -read_fs {names} from block {base}");
            compare(&what, &extracted(dir, "before.part", names), &extracted(dir, "after.part", names), files);
        }
        compare_plain(dir, files);
        path_tables(dir, after, base);
    }
}

/// El Torito, MBR and GPT are of the same kind as before, and xorriso and sgdisk find no more to complain of.
fn compare_reports(dir: &Path) {
    let report = |image: &str| {
        tool_in(dir, "xorriso", &["-indev", image, "-report_el_torito", "plain", "-report_system_area", "plain"])
    };
    let (before, after) = (report("before.iso"), report("after.iso"));
    let kinds = [
        "El Torito boot img",
        "El Torito img opts",
        "System area summary",
        "MBR partition  ",
        "GPT partname",
        "GPT type GUID",
    ];
    let gone = |line: &String| line.contains("Gap"); // fillers behind the volume
    let of = |text: &str| lines(text, &kinds).into_iter().filter(|line| !gone(line)).collect::<BTreeSet<_>>();
    assert_eq!(of(&before), of(&after));
    let complaints = ["WARNING", "SORRY", "FAILURE", "MISHAP"];
    assert!(lines(&after, &complaints).is_subset(&lines(&before, &complaints)), "{after}");
    let verify =
        |image: &str| lines(&run(Some(dir), "sgdisk", &["-v", image]).1, &["Problem", "Warning", "overlap", "Error"]);
    let (before, after) = (verify("before.iso"), verify("after.iso"));
    assert!(after.is_subset(&before), "{before:?} {after:?}");
}

/// Through the plain names, which only isoinfo shows.
fn compare_plain(dir: &Path, files: &Files) {
    let list = |image: &str| tool_in(dir, "isoinfo", &["-f", "-i", image]);
    let (before, after) = (list("before.part"), list("after.part"));
    for path in before.lines() {
        assert!(after.lines().any(|other| other == path), "plain names: {path} is gone");
    }
    for (path, content) in files.iter().filter(|(path, _)| path.len() < 27) {
        let is_it = |line: &&str| simple(line) == simple(path);
        let stored = after.lines().find(is_it);
        // Rock Ridge keeps what is deep elsewhere; there it is judged by its own names.
        let Some(stored) = stored.filter(|_| !path.starts_with("1/")) else {
            assert!(path.starts_with("1/"), "plain names: {path} is missing in {after}");
            continue;
        };
        let output =
            Command::new("isoinfo").args(["-i", "after.part", "-x", stored]).current_dir(dir).output().unwrap();
        assert!(output.stdout == *content, "plain names: {stored}");
    }
}

/// Both path tables of every volume descriptor name exactly the directories that the tree has, in an order that numbers allow.
fn path_tables(dir: &Path, image: &[u8], base: usize) {
    let word = |at: usize| u32::from_le_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    let big = |at: usize| u32::from_be_bytes(image[at..at + 4].try_into().unwrap()) as usize;
    for descriptor in (16 + base..).map(|block| block * 2048).take_while(|&at| image[at] != 255) {
        if !matches!(image[descriptor], 1 | 2) {
            continue;
        }
        let size = word(descriptor + 132);
        let table = |block: usize| &image[(base + block) * 2048..][..size];
        let little = rows(table(word(descriptor + 140)), u32::from_le_bytes, u16::from_le_bytes);
        assert_eq!(little, rows(table(big(descriptor + 148)), u32::from_be_bytes, u16::from_be_bytes));
        assert!(little.windows(2).all(|pair| pair[0].1 <= pair[1].1), "parents in their order");
        let listed = tool_in(
            dir,
            "isoinfo",
            if image[descriptor] == 2 { &["-J", "-l", "-i", "after.part"] } else { &["-l", "-i", "after.part"] },
        );
        let of_dots = listed.lines().filter(|line| line.starts_with('d') && line.trim_end().ends_with(" ."));
        let mut walked: Vec<u32> = of_dots
            .map(|line| line[line.find('[').unwrap() + 1..].split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        let mut numbered: Vec<u32> = little.iter().map(|row| row.0).collect();
        walked.sort_unstable();
        numbered.sort_unstable();
        assert_eq!(walked, numbered, "descriptor at {descriptor}");
    }
}

/// Places and parents.
fn rows(table: &[u8], long: impl Fn([u8; 4]) -> u32, short: impl Fn([u8; 2]) -> u16) -> Vec<(u32, u16)> {
    let (mut rows, mut at) = (Vec::new(), 0);
    while at < table.len() {
        let len = usize::from(table[at]);
        rows.push((long(table[at + 2..at + 6].try_into().unwrap()), short(table[at + 6..at + 8].try_into().unwrap())));
        at += 8 + len + len % 2;
    }
    rows
}
