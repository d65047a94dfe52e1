//! A child with the server's rights tries what it may and what it may not.

use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use auroraboot::appliance::rights::{Capability, Rights};
use auroraboot::sys::mount::{self, Flags};
use auroraboot::sys::{module, reboot, rtc, testbed};

use super::{Bench, run};

const DIRECTORY: &str = "AURORABOOT_TEST_CONFINED";

fn rights(bench: &Bench) -> Rights {
    let own = std::env::current_exe().unwrap();
    let libraries = ["/lib", "/lib64", "/usr/lib"].map(PathBuf::from).into_iter().filter(|path| path.exists());
    Rights {
        uid: 700,
        gid: 700,
        capabilities: vec![Capability::NetRaw, Capability::NetBindService],
        writable: vec![bench.path("state"), "/dev/null".into()],
        executable: std::iter::once(own).chain(libraries).collect(),
    }
}

#[test]
fn a_confined_child_can_do_its_work_and_nothing_else() {
    let bench = Bench::new("rights");
    for name in ["state", "open"] {
        fs::create_dir(bench.path(name)).unwrap();
        std::os::unix::fs::chown(bench.path(name), Some(700), Some(700)).unwrap();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--ignored", "--exact", "--nocapture", "appliance_init::rights::the_confined_child"]);
    child.env(DIRECTORY, &bench.dir);
    let applied = rights(&bench).confine(&mut child).unwrap();
    let said = run(&mut child);
    assert!(said.contains("1 passed"), "{said}");
    let shown = applied.to_string();
    assert!(shown.starts_with("user 700:700, capabilities NET_RAW + NET_BIND_SERVICE, no new privileges, "), "{shown}");
    assert!(applied.seccomp, "every kernel that is tested on has it");
}

/// One field of `/proc/self/status`.
fn status(name: &str) -> String {
    let text = fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name} in {text}"));
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
#[ignore = "runs as the child of a_confined_child_can_do_its_work_and_nothing_else"]
fn the_confined_child() {
    let directory = PathBuf::from(std::env::var_os(DIRECTORY).unwrap());
    let kept = "0000000000002400";
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(set), kept, "{set}");
    }
    for (field, expected) in
        [("Uid", "700 700 700 700"), ("Gid", "700 700 700 700"), ("Groups", ""), ("NoNewPrivs", "1"), ("Seccomp", "2")]
    {
        assert_eq!(status(field), expected, "{field}");
    }
    assert!(
        fs::read_to_string("/proc/self/limits").unwrap().contains("Max core file size        0                    0 ")
    );
    what_it_may(&directory);
    what_landlock_denies(&directory);
    what_seccomp_denies();
}

fn what_it_may(directory: &Path) {
    drop(UdpSocket::bind("127.0.0.1:77").unwrap()); // nobody's, below 1024
    auroraboot::sys::packet_socket::PacketSocket::open(1, 67, 1 << 16)
        .map(drop)
        .unwrap_or_else(|error| panic!("packet socket: {error}"));
    let state = directory.join("state");
    fs::create_dir(state.join("iso")).unwrap();
    fs::write(state.join("iso/a.part"), "x").unwrap();
    fs::rename(state.join("iso/a.part"), state.join("a")).unwrap();
    std::os::unix::net::UnixListener::bind(state.join("socket")).unwrap();
    fs::write("/dev/null", "x").unwrap();
    fs::read("/proc/self/maps").unwrap();
    let listed = Command::new(std::env::current_exe().unwrap()).arg("--list").output().unwrap();
    assert!(listed.status.success(), "itself it may start");
    assert!(std::thread::spawn(|| 7).join().is_ok());
}

fn what_landlock_denies(directory: &Path) {
    if auroraboot::sys::rights::landlock_version().is_none() {
        return;
    }
    // Its own directory by owner and mode, so that nothing but landlock stands in the way.
    let open = directory.join("open");
    for result in [
        fs::write(open.join("x"), "x"),
        fs::create_dir(open.join("d")),
        fs::rename(directory.join("state/a"), open.join("a")),
        std::os::unix::net::UnixListener::bind(open.join("socket")).map(drop),
        Command::new("/bin/true").status().map(drop),
    ] {
        let error = result.unwrap_err();
        // A move between directories with different rights is EXDEV, so that programs copy (landlock(7)).
        assert!(matches!(error.raw_os_error(), Some(libc::EACCES | libc::EXDEV)), "{error}");
    }
}

fn what_seccomp_denies() {
    let nowhere = Path::new("/nonexistent");
    let results = [
        ("mount", mount::mount("none".as_ref(), nowhere, "tmpfs", Flags::NONE, "")),
        ("umount2", mount::unmount(nowhere, true)),
        ("unshare", testbed::own_mounts()),
        ("reboot", reboot::catch_ctrl_alt_del()),
        ("clock_settime", rtc::set_clock(Duration::from_secs(1))),
        ("finit_module", module::insert(Path::new("/dev/null"))),
    ];
    for (call, result) in results {
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EPERM), "{call}");
    }
}

#[test]
fn a_child_that_cannot_be_confined_is_not_started() {
    let bench = Bench::new("norights");
    let error = rights(&bench).confine(&mut Command::new("/bin/true")).unwrap_err().to_string();
    assert!(error.contains("state"), "a directory that is not there: {error}");
}

#[test]
fn no_namespace_can_be_made_by_clone_either() {
    let bench = Bench::new("clone");
    fs::create_dir(bench.path("state")).unwrap();
    let mut rights = rights(&bench);
    rights.executable = vec!["/".into()];
    let mut child = Command::new("unshare");
    child.args(["--user", "true"]);
    rights.confine(&mut child).unwrap();
    let output = child.output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("Operation not permitted"), "{output:?}");
}
