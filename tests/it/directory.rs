//! Root file systems of this host as images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use auroraboot::limits;
use auroraboot::rootfs::LayerSource;
use auroraboot::source::directory::{self, DirectoryLayer, Error};
use auroraboot::source::retry::Stop;
use auroraboot::units::Digest;

use crate::registry::real::TempDir;
use crate::rootfs::layers::{Listing, merge};
use crate::rootfs::oracle::list_tree;
use crate::run::SmallDisk;

fn open(path: &Path) -> Result<DirectoryLayer, Error> {
    directory::open(path, Path::new("/nowhere"), &Stop::default())
}

fn digest(path: &Path) -> Digest {
    open(path).unwrap().digest(0)
}

fn run(program: &str, arguments: &[&str]) {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).status();
    assert!(status.unwrap_or_else(|_| panic!("{program}: tests/packages it")).success(), "{program} {arguments:?}");
}

/// A root file system with something of everything.
fn sample(name: &str) -> (TempDir, PathBuf) {
    let dir = TempDir::new(&format!("directory-{name}"));
    let root = dir.path().join("rootfs");
    for path in ["etc", "usr/bin", "var/empty", "dev/pts", "proc", "tmp", "deep"] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    let write = |path: &str, data: &[u8]| fs::write(root.join(path), data).unwrap();
    write("etc/passwd", b"root:x:0:0::/:/bin/sh\n");
    write("usr/bin/ping", &[7; 70_000]);
    write("usr/bin/sudo", b"#!");
    write("tmp/left-out", b"");
    write("proc/1", b"");
    write("var/empty/file", b"");
    fs::set_permissions(root.join("usr/bin/sudo"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(root.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o751)).unwrap();
    chown(root.join("etc/passwd"), Some(3_000_000), Some(70_000)).unwrap();
    fs::hard_link(root.join("usr/bin/ping"), root.join("etc/ping")).unwrap();
    symlink("../../outside", root.join("etc/link")).unwrap();
    lchown(root.join("etc/link"), Some(5), Some(6)).unwrap();
    File::create(root.join(OsStr::from_bytes(b"etc/n\xffme"))).unwrap();
    let path_of = |path: &str| root.join(path).to_str().unwrap().to_owned();
    run("mknod", &[&path_of("usr/null"), "c", "1", "3"]);
    run("mknod", &[&path_of("usr/disk"), "b", "259", "3"]);
    run("mkfifo", &[&path_of("usr/fifo")]);
    run("setcap", &["cap_net_raw+ep", &path_of("usr/bin/ping")]);
    run("setfattr", &["-n", "user.note", "-v", "hello", &path_of("etc/passwd")]);
    let sparse = File::create(root.join("var/sparse")).unwrap();
    sparse.set_len(5 << 20).unwrap();
    let long = root.join("deep").join("d".repeat(200)).join("e".repeat(200));
    fs::create_dir_all(&long).unwrap();
    fs::write(long.join("f".repeat(200)), "deep").unwrap();
    (dir, root)
}

/// What is below the directories whose content belongs to a running system.
fn without_content(mut listing: Listing, top: &[&str]) -> Listing {
    listing.retain(|path, _| !top.iter().any(|top| path.starts_with(format!("/{top}/").as_bytes())));
    listing
}

#[test]
fn everything_of_a_root_file_system_gets_into_its_layer() {
    let (_dir, root) = sample("all");
    let socket = UnixListener::bind(root.join("usr/socket")).unwrap();
    let layer = open(&root).unwrap();
    assert_eq!(layer.warnings.len(), 1, "{:?}", layer.warnings);
    assert!(layer.warnings[0].starts_with("1 sockets in "), "{:?}", layer.warnings);
    drop(socket);
    fs::remove_file(root.join("usr/socket")).unwrap();
    let wanted = without_content(list_tree(&root), &["proc", "dev", "tmp"]);
    let layer = open(&root).unwrap();
    assert!(layer.warnings.is_empty(), "{:?}", layer.warnings);
    let got = merge(&layer).unwrap().listing();
    for (path, seen) in &wanted {
        assert_eq!(got.get(path), Some(seen), "{}", String::from_utf8_lossy(path));
    }
    assert_eq!(got.len(), wanted.len());
    assert_eq!(got[&b"/usr/bin/ping"[..]].group, b"/etc/ping");
    assert!(got[&b"/etc/ping"[..]].xattrs.contains_key("security.capability"));
}

#[test]
fn tar_reads_what_it_makes() {
    let (dir, root) = sample("tar");
    let archive = dir.path().join("rootfs.tar");
    let mut file = File::create(&archive).unwrap();
    io::copy(&mut open(&root).unwrap().open(0).unwrap(), &mut file).unwrap();
    let unpacked = dir.path().join("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let (archive, into) = (archive.to_str().unwrap(), unpacked.to_str().unwrap());
    run("tar", &["-C", into, "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-owner", "-xpf", archive]);
    assert_eq!(list_tree(&unpacked), without_content(list_tree(&root), &["proc", "dev", "tmp"]));
}

#[test]
fn an_equal_tree_has_an_equal_digest_and_every_change_another() {
    let (_dir, root) = sample("digest");
    let before = digest(&root);
    assert_eq!(digest(&root), before);
    let mut seen = BTreeMap::from([(before, "nothing")]);
    let mut changed = |what: &'static str| {
        if let Some(same) = seen.insert(digest(&root), what) {
            panic!("{what} makes no difference to {same}");
        }
    };
    fs::write(root.join("tmp/more"), "x").unwrap();
    fs::write(root.join("etc/passwd"), "toor:x:0:0::/:/bin/sh\n").unwrap();
    changed("other content of the same length");
    fs::set_permissions(root.join("etc/passwd"), Permissions::from_mode(0o600)).unwrap();
    changed("mode");
    lchown(root.join("etc/link"), Some(7), None).unwrap();
    changed("owner of a link");
    fs::remove_file(root.join("etc/link")).unwrap();
    symlink("elsewhere", root.join("etc/link")).unwrap();
    changed("target");
    run("setfattr", &["-n", "user.note", "-v", "jello", root.join("etc/passwd").to_str().unwrap()]);
    changed("attribute");
    fs::remove_file(root.join("etc/ping")).unwrap();
    fs::copy(root.join("usr/bin/ping"), root.join("etc/ping")).unwrap();
    changed("a copy where there was a second name");
    fs::rename(root.join("etc/ping"), root.join("etc/pong")).unwrap();
    changed("name");
    fs::create_dir(root.join("etc/new")).unwrap();
    changed("directory");
}

#[test]
fn other_file_systems_below_it_are_left_out() {
    let (_dir, root) = sample("mounts");
    fs::create_dir(root.join("data")).unwrap();
    let _mounted = SmallDisk::mount(&root.join("data"), 1);
    let _dev = SmallDisk::mount(&root.join("dev"), 1);
    fs::write(root.join("data/file"), "").unwrap();
    let layer = open(&root).unwrap();
    assert!(layer.warnings[0].ends_with("rootfs, and left out: /data"), "{:?}", layer.warnings);
    let listing = merge(&layer).unwrap().listing();
    assert!(listing.contains_key(&b"/data"[..]) && !listing.contains_key(&b"/data/file"[..]));
}

#[test]
fn what_changes_while_it_is_read_is_an_error_that_names_it() {
    let (_dir, root) = sample("changes");
    type Ruin = fn(&Path);
    let ruin: [(&str, Ruin); 4] = [
        ("grows", |path| File::options().append(true).open(path).unwrap().write_all(b"x").unwrap()),
        ("shrinks", |path| File::options().write(true).open(path).unwrap().set_len(1).unwrap()),
        ("vanishes", |path| fs::remove_file(path).unwrap()),
        ("becomes a link", |path| {
            fs::remove_file(path).unwrap();
            symlink("/etc/passwd", path).unwrap();
        }),
    ];
    for (what, ruin) in ruin {
        let victim = root.join("usr/bin/sudo");
        let _ = fs::remove_file(&victim);
        fs::write(&victim, "#! sudo").unwrap();
        let layer = open(&root).unwrap();
        ruin(&victim);
        let error = io::copy(&mut layer.open(0).unwrap(), &mut io::sink()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: ", victim.display())), "{what}: {error}");
    }
}

#[test]
fn a_directory_swapped_for_a_link_leads_nowhere() {
    let (dir, root) = sample("swapped");
    fs::create_dir(dir.path().join("secrets")).unwrap();
    fs::write(dir.path().join("secrets/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let layer = open(&root).unwrap();
    fs::rename(root.join("etc"), root.join("etc.old")).unwrap();
    symlink("../secrets", root.join("etc")).unwrap();
    let error = io::copy(&mut layer.open(0).unwrap(), &mut io::sink()).unwrap_err();
    assert!(error.to_string().contains("rootfs/etc/"), "{error}");
}

#[test]
fn what_is_no_root_file_system_is_refused_by_name() {
    let (dir, root) = sample("refused");
    let words = |path: &Path| open(path).unwrap_err().to_string();
    assert!(words(&dir.path().join("missing")).contains("missing does not exist"));
    assert!(words(&root.join("etc/passwd")).contains("is not a directory"));
    assert!(words(Path::new("/")).contains("is the root of this host"));
    fs::create_dir(dir.path().join("empty")).unwrap();
    assert!(words(&dir.path().join("empty")).ends_with("empty is empty"));
    let holds = directory::open(dir.path(), &root, &Stop::default()).unwrap_err();
    assert!(matches!(holds, Error::HoldsState { .. }), "{holds}");
    fs::write(root.join("etc/.wh.passwd"), "").unwrap();
    assert!(words(&root).contains("begins with .wh."));
    fs::remove_file(root.join("etc/.wh.passwd")).unwrap();
    let stop = Stop::default();
    stop.stop();
    assert!(matches!(directory::open(&root, Path::new("/nowhere"), &stop), Err(Error::Stopped)));
    // Deeper than any path may be: only a walk by descriptors gets there.
    let name = "d".repeat(limits::NAME_BYTES_MAX);
    let script =
        format!("cd '{}' && for i in $(seq 20); do mkdir {name} && cd -P {name} || exit 1; done", root.display());
    let deep = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(deep.success());
    let error = words(&root);
    assert!(error.contains("is longer than") || error.contains("cannot read"), "{error}");
    run("rm", &["-rf", root.to_str().unwrap()]);
}

/// As an ordinary user, who owns some files and cannot read others.
#[test]
fn an_ordinary_user_is_told_before_any_work() {
    let (dir, root) = sample("user");
    let state = dir.path().join("state");
    let try_it = |more: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", env!("CARGO_BIN_EXE_auroraboot")]);
        command.args(["--set", &format!("container_image=dir:{}", root.display())]);
        command.args(["--set", &format!("state_dir={}", state.display())]);
        command.args(["--set", "disable_netboot=true", "--set", "disable_http_server=true"]).args(more);
        let output = command.stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    chown(&state, Some(65534), Some(65534)).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(&root, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("etc/passwd"), Permissions::from_mode(0o600)).unwrap();
    let (code, said) = try_it(&[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("etc/passwd cannot be read by this user; run as root, or in `podman unshare`"), "{said}");
    chown(root.join("etc/passwd"), Some(65534), None).unwrap();
    let (_, said) = try_it(&[]);
    assert!(said.contains("1 of ") && said.contains("belong to user 65534 and will in the image"), "{said}");
    assert!(said.contains("no kernel"), "then it is what is in it that counts: {said}");
}
