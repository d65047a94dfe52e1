//! The remaster, judged by xorriso, isoinfo and sgdisk on images made by everybody's tools. Kernels mount them in the lab.

mod bounds;
mod judge;
pub mod sources;

use std::io::Cursor;

use auroraboot::iso::remaster::{Addition, Error, Kind, Plan};
use judge::{judge, read_all, scratch};
use sources::{Memory, own, tree};

/// What a test adds: a path and the content of a file there.
pub type Files = Vec<(String, Vec<u8>)>;

/// A config, an overlay in directories that are new and in one that is there, names that need continuation areas.
fn files() -> Files {
    let long = format!("a very long name {}.yaml", "x".repeat(200));
    [
        ("config.yaml", b"#cloud-config\npatched: true\n".to_vec()),
        ("overlay/deep/er/bundle.tar", sources::noise(300_001, 3)),
        ("overlay/deep/empty", Vec::new()),
        ("boot/zz added.cfg", b"added".to_vec()),
        (long.as_str(), b"long".to_vec()),
    ]
    .map(|(path, content)| (path.to_owned(), content))
    .to_vec()
}

fn additions(files: &Files) -> Vec<Addition> {
    let file = |(path, content): &(String, Vec<u8>)| addition(path, Kind::File { size: content.len() as u64 });
    files.iter().map(file).collect()
}

fn addition(path: &str, kind: Kind) -> Addition {
    Addition { path: path.into(), kind, mode: 0o600, mtime: 1_700_000_000 }
}

/// Patches in memory, as the product does on disk: what is copied is changed piece by piece, and as it will be from then on.
fn patch(source: &[u8], files: &Files) -> Vec<u8> {
    let source = Memory::new(source.to_vec());
    let plan = Plan::new(&source, source.len(), &additions(files)).unwrap();
    let target = Memory::new(source.bytes()[..usize::try_from(plan.keep()).unwrap()].to_vec());
    const PIECE: usize = 5000;
    for start in (0..plan.keep()).step_by(PIECE) {
        plan.patch(&target, start..plan.keep().min(start + PIECE as u64)).unwrap();
    }
    let kept = target.bytes();
    let written = plan.write(&source, &target, &mut |index| Ok(Box::new(Cursor::new(files[index].1.clone())))).unwrap();
    assert_eq!((written.size, plan.size()), (target.len(), target.len()));
    assert!(target.bytes().starts_with(&kept), "what was hashed meanwhile has changed");
    target.bytes()
}

/// Patches, judges, patches again with other content in the same places, judges.
fn patched_twice(name: &str, make: impl FnOnce(&std::path::Path) -> Vec<u8>) {
    let dir = scratch(name);
    let source = make(dir.path());
    let once = patch(&source, &files());
    assert!(once == patch(&source, &files()), "{name}: equal input, other bytes");
    judge(dir.path(), &source, &once, &files());
    let mut again = files();
    again[0].1 = sources::noise(9000, 7);
    again[1].1.truncate(10);
    again.push(("overlay/deep/er/more/added".into(), b"more".to_vec()));
    let twice = patch(&once, &again);
    judge(dir.path(), &once, &twice, &again);
}

#[test]
fn an_image_of_ours() {
    patched_twice("own", |_| own());
}

#[test]
fn an_image_with_an_appended_efi_partition() {
    patched_twice("appended", sources::appended);
}

#[test]
fn an_image_that_xorriso_patched_in_place_or_anew() {
    patched_twice("in-place", |dir| sources::patched_by_xorriso(dir, true));
    patched_twice("anew", |dir| sources::patched_by_xorriso(dir, false));
}

#[test]
fn an_image_of_grub_mkrescue() {
    patched_twice("mkrescue", sources::grub_mkrescue);
}

#[test]
fn images_with_isolinux() {
    patched_twice("isolinux", |dir| sources::isolinux(dir, false));
    patched_twice("isohybrid", |dir| sources::isolinux(dir, true));
}

#[test]
fn images_of_genisoimage_with_and_without_rock_ridge_and_joliet() {
    for (name, options) in [("both", "-R -J"), ("rock", "-R"), ("joliet", "-J"), ("plain", "-iso-level 3")] {
        patched_twice(name, |dir| sources::genisoimage(dir, options));
    }
}

#[test]
fn directories_that_rock_ridge_moved() {
    let dir = scratch("moved");
    let source = sources::genisoimage(dir.path(), "-R -J");
    let mut files = files();
    for path in ["1/2/3/4/5/6/7/8/new", "1/2/3/4/5/6/7/8/9/10/f", "1/2/3/4/5/6/7/here", "1/2/3/4/5/6/7/8/made/x"] {
        files.push((path.into(), path.into()));
    }
    judge(dir.path(), &source, &patch(&source, &files), &files);
}

#[test]
fn images_that_debian_ships() {
    for path in ["/usr/lib/ipxe/ipxe.iso", "/usr/lib/memtest86+/memtest86+x64.iso"] {
        patched_twice("shipped", |_| std::fs::read(path).expect("tests/packages it"));
    }
}

#[test]
fn checksums_in_an_image_stay_true_or_go() {
    let dir = scratch("sums");
    let root = tree(dir.path());
    let sum = "0123456789abcdef0123456789abcdef";
    std::fs::write(root.join("md5sum.txt"), format!("{sum}  ./boot/kernel\n{sum}  ./config.yaml\n{sum}  ./link\n"))
        .unwrap();
    let mut source = sources::xorriso(dir.path(), &["--md5", "-R", "-J"]);
    let application_use = 16 * 2048 + 883;
    let implanted = b"ISO MD5SUM = 0123456789abcdef0123456789abcdef;SKIPSECTORS = 15;";
    source[application_use..application_use + implanted.len()].copy_from_slice(implanted);
    let patched = patch(&source, &files());
    let all = read_all(&patched);
    assert_eq!(all["/md5sum.txt"], format!("{sum}  ./boot/kernel\n{sum}  ./link\n").as_bytes());
    assert!(patched[application_use..application_use + 512].iter().all(|&byte| byte == b' '));
    let tag = b"libisofs_sb_checksum_tag_v1";
    let holds = |image: &[u8]| image[..64 * 2048].windows(tag.len()).any(|window| window == tag);
    assert!(holds(&source) && !holds(&patched));
}

#[test]
fn links_and_directories() {
    let source = own();
    let storage = Memory::new(source.clone());
    let more = [
        addition("boot", Kind::Directory),
        addition("made/on the way", Kind::Directory),
        addition("boot/link", Kind::Symlink { target: "../config.yaml".into() }),
        addition("loop", Kind::Symlink { target: "/loop".into() }),
    ];
    let plan = Plan::new(&storage, storage.len(), &more).unwrap();
    let target = Memory::new(source[..usize::try_from(plan.keep()).unwrap()].to_vec());
    plan.write(&storage, &target, &mut |_| unreachable!()).unwrap();
    let image = auroraboot::iso::read::Image::open(&target, target.len()).unwrap();
    let size = image.find("/config.yaml").unwrap().unwrap().size;
    assert_eq!(image.find("/boot/link").unwrap().unwrap().size, size);
    assert!(image.list("/made/on the way").unwrap().is_empty());
    assert!(image.find("/loop").unwrap_err().to_string().contains("255"));
    assert_eq!(image.find("/nothing/here").unwrap(), None);
}

#[test]
fn what_cannot_be_added_is_said() {
    let storage = Memory::new(own());
    let plan = |path: &str, kind| Plan::new(&storage, storage.len(), &[addition(path, kind)]).unwrap_err();
    for path in ["", "/", "../x", "a/../../x", "a//b", "./a", "a/", "a\0b", &"n".repeat(256)] {
        assert!(matches!(plan(path, Kind::Directory), Error::Path { .. }), "{path:?}");
    }
    assert!(matches!(plan("boot", Kind::File { size: 1 }), Error::IsDirectory(_)));
    assert!(matches!(plan("config.yaml/x", Kind::File { size: 1 }), Error::NotDirectory { .. }));
    assert!(matches!(plan("config.yaml", Kind::Directory), Error::NotDirectory { .. }));
    assert!(matches!(plan("x", Kind::File { size: u64::MAX - 1 }), Error::TooBig));
    assert!(matches!(plan("l", Kind::Symlink { target: String::new() }), Error::Path { .. }));
    let twice = [addition("x", Kind::Directory), addition("/x", Kind::File { size: 1 })];
    assert!(matches!(Plan::new(&storage, storage.len(), &twice), Err(Error::Twice(_))));
}

#[test]
fn content_that_changed_meanwhile_is_said() {
    let storage = Memory::new(own());
    for content in ["", "longer than before"] {
        let plan = Plan::new(&storage, storage.len(), &[addition("x", Kind::File { size: 5 })]).unwrap();
        let target = Memory::new(storage.bytes()[..usize::try_from(plan.keep()).unwrap()].to_vec());
        let error = plan.write(&storage, &target, &mut |_| Ok(Box::new(Cursor::new(content)))).unwrap_err();
        assert!(matches!(error, Error::Changed { size: 5, .. }), "{error}");
    }
}
