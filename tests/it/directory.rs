//! Root file systems of this host as images.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use auroraboot::limits;
use auroraboot::rootfs::LayerSource;
use auroraboot::source::directory::{self, DirectoryLayer, Error};
use auroraboot::source::retry::Stop;
use auroraboot::units::Digest;

use crate::media;
use crate::registry::real::TempDir;
use crate::rootfs::layers::{Listing, directory as directory_entry, merge};
use crate::rootfs::oracle::{Scratch, hard_cases, list_tree, umoci};
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
    sparse.write_all_at(b"in the middle", 3 << 20).unwrap();
    sparse.write_all_at(b"and at the end", (5 << 20) - 14).unwrap();
    File::create(root.join("var/hole")).unwrap().set_len(70_000).unwrap();
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

/// Something that is mounted, until the test ends.
struct Bound(PathBuf);

impl Bound {
    fn mount(from: &Path, to: &Path) -> Self {
        run("mount", &["--bind", from.to_str().unwrap(), to.to_str().unwrap()]);
        Self(to.to_owned())
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn nor_is_what_of_the_same_file_system_is_mounted_there() {
    let (dir, root) = sample("bound");
    fs::create_dir_all(dir.path().join("home/me")).unwrap();
    fs::create_dir(root.join("home")).unwrap();
    let _bound = Bound::mount(&dir.path().join("home"), &root.join("home"));
    let layer = open(&root).unwrap();
    assert!(layer.warnings[0].ends_with("rootfs, and left out: /home"), "{:?}", layer.warnings);
    let listing = merge(&layer).unwrap().listing();
    assert!(listing.contains_key(&b"/home"[..]) && !listing.contains_key(&b"/home/me"[..]));
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

/// Its owner swaps a directory for a link to one of somebody else's while root walks.
#[test]
fn the_walk_is_not_led_out_of_the_directory() {
    let dir = TempDir::new("directory-race");
    let (root, secrets) = (dir.path().join("rootfs"), dir.path().join("secrets"));
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    fs::create_dir(&secrets).unwrap();
    symlink("x", secrets.join("name-of-a-secret")).unwrap();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let (place, aside, link) = (root.join("usr"), root.join("aside"), root.join("link"));
            symlink(&secrets, &link).unwrap();
            for rounds in (0..100).cycle().take_while(|_| !is_over.load(Ordering::Relaxed)) {
                fs::rename(&place, &aside).unwrap();
                fs::rename(&link, &place).unwrap();
                (0..rounds).for_each(|_| thread::yield_now());
                fs::rename(&place, &link).unwrap();
                fs::rename(&aside, &place).unwrap();
                (0..rounds).for_each(|_| thread::yield_now());
            }
        });
        for _ in 0..3000 {
            let Ok(layer) = open(&root) else { continue };
            let mut archive = Vec::new();
            let _ = layer.open(0).unwrap().read_to_end(&mut archive);
            if archive.windows(16).any(|name| name == b"name-of-a-secret") {
                is_over.store(true, Ordering::Relaxed);
                panic!("it was led out");
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
}

#[test]
fn attributes_no_image_can_hold_are_refused_by_name() {
    let (_dir, root) = sample("attributes");
    let passwd = root.join("etc/passwd");
    let set =
        |path: &Path, name: &str, value: &str| run("setfattr", &["-n", name, "-v", value, path.to_str().unwrap()]);
    set(&passwd, "user.a=b", "c");
    let error = open(&root).unwrap_err();
    assert!(matches!(&error, Error::Attributes(path) if *path == passwd), "{error}");
    run("setfattr", &["-x", "user.a=b", passwd.to_str().unwrap()]);
    let _disk = SmallDisk::mount(&root, 4);
    fs::create_dir(root.join("etc")).unwrap();
    fs::write(&passwd, "").unwrap();
    for number in 0..8 {
        set(&passwd, &format!("trusted.{number}"), &"x".repeat(60_000));
    }
    let archive = merge(&open(&root).unwrap()).unwrap().listing();
    assert_eq!(archive[&b"/etc/passwd"[..]].xattrs.len(), 8, "still fits");
    set(&passwd, "trusted.8", &"x".repeat(60_000));
    const {
        assert!(8 * 60_000 < limits::DIRECTORY_FILE_XATTR_BYTES_MAX);
        assert!(9 * 60_000 > limits::DIRECTORY_FILE_XATTR_BYTES_MAX);
    }
    let error = open(&root).unwrap_err();
    assert!(matches!(&error, Error::Attributes(path) if *path == passwd), "{error}");
}

#[test]
fn names_cannot_steer_a_terminal() {
    let (_dir, root) = sample("terminal");
    fs::write(root.join("etc/.wh.\x1b[31m"), "").unwrap();
    let error = open(&root).unwrap_err().to_string();
    assert!(error.contains("etc/.wh.\u{fffd}[31m begins"), "{error:?}");
}

/// What umoci unpacks of an image is that image again.
#[test]
fn an_unpacked_image_is_the_image() {
    let scratch = Scratch::new("directory-umoci");
    let mut made = 0;
    for (name, layers) in hard_cases() {
        let Ok(tree) = umoci(&scratch.0, &layers) else { continue };
        let got = merge(&open(&scratch.0.join("root")).unwrap()).unwrap().listing();
        assert_eq!(got, tree, "{name}");
        made += 1;
    }
    assert!(made > 10);
}

#[test]
fn an_unpacked_image_makes_the_same_medium() {
    let mut layers = media::layers();
    let parents =
        ["usr", "usr/bin", "usr/lib", "usr/lib/modules", "usr/lib/shim", "usr/lib/grub", "boot", "etc", "dev"];
    let parents = parents.iter().chain(["usr/lib/grub/x86_64-efi-signed"].iter()).map(directory_entry);
    layers[0].retain(|entry| entry.path != b"dev/null"); // left out
    layers[0].splice(1..1, parents);
    let place = media::Place::new("unpacked");
    umoci(&place.scratch.0, &layers).unwrap();
    let (image, root) = (media::image(&layers), place.scratch.0.join("root"));
    let content = |source: &dyn LayerSource| {
        let medium = place.build(source).unwrap();
        assert!(!medium.reused);
        let offset = medium.squashfs[0].offset.to_string();
        let listed = media::tool("unsquashfs", &["-o", &offset, "-lln", medium.iso.path.to_str().unwrap()]);
        let into = place.scratch.0.join("content");
        let _ = fs::remove_dir_all(&into);
        media::tool(
            "unsquashfs",
            &["-no-progress", "-o", &offset, "-d", into.to_str().unwrap(), medium.iso.path.to_str().unwrap()],
        );
        (listed, list_tree(&into))
    };
    let (of_image, of_directory) = (content(&image), content(&open(&root).unwrap()));
    assert_eq!(of_image.0, of_directory.0);
    assert_eq!(of_image.1, of_directory.1);
    assert!(place.build(&open(&root).unwrap()).unwrap().reused, "an equal tree is known again");
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
    // Deeper than any path may be.
    let name = "d".repeat(limits::NAME_BYTES_MAX);
    let script =
        format!("cd '{}' && for i in $(seq 20); do mkdir {name} && cd -P {name} || exit 1; done", root.display());
    let deep = Command::new("sh").args(["-c", &script]).status().unwrap();
    assert!(deep.success());
    let error = words(&root);
    assert!(error.contains("takes 4096 bytes or more"), "{error}");
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
