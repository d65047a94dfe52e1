//! Mounts, news of devices, the watchdog and the end of the machine, in namespaces of their own.

use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use auroraboot::appliance::modules::Uevents;
use auroraboot::appliance::mounts;
use auroraboot::appliance::power::{self, Action};
use auroraboot::appliance::watchdog::Watchdog;
use auroraboot::sys::mount::{Flags, mount};
use auroraboot::sys::testbed;

use super::Bench;

#[test]
fn the_root_gets_its_mounts_and_is_locked() {
    testbed::own_mounts().unwrap();
    let bench = Bench::new("mounts");
    let root = bench.path("root");
    fs::create_dir(&root).unwrap();
    mount("none".as_ref(), &root, "tmpfs", Flags::NONE, "").unwrap();
    fs::create_dir(root.join("proc")).unwrap();
    let failed = mounts::mount_all(&root);
    assert!(failed.is_empty(), "{failed:?}");
    mounts::lock_root(&root).unwrap();
    let info = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    for (at, kind, options) in [
        ("proc", "proc", ["nosuid", "nodev", "noexec"]),
        ("sys", "sysfs", ["nosuid", "nodev", "noexec"]),
        ("dev", "devtmpfs", ["nosuid", "noexec", "rw"]),
        ("dev/pts", "devpts", ["nosuid", "noexec", "ptmxmode=000"]),
        ("run", "tmpfs", ["nosuid", "nodev", "size=16384k"]),
        ("tmp", "tmpfs", ["nosuid", "noexec", "size=16384k"]),
    ] {
        let wanted = format!(" {} {kind} ", root.join(at).display());
        let line = info.lines().find(|line| line.contains(&wanted)).unwrap_or_else(|| panic!("{wanted} in {info}"));
        for option in options {
            assert!(line.contains(option), "{option} in {line}");
        }
    }
    assert_eq!(fs::write(root.join("x"), "x").unwrap_err().kind(), io::ErrorKind::ReadOnlyFilesystem);
    fs::write(root.join("run/x"), "x").unwrap();
    assert_eq!(fs::write(root.join("tmp/x"), vec![0; 17 << 20]).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert!(root.join("dev/null").exists() && root.join("proc/self").exists() && root.join("sys/class").exists());
}

#[test]
fn what_cannot_be_mounted_is_told_and_the_rest_is_mounted() {
    testbed::own_mounts().unwrap();
    let bench = Bench::new("halfmounts");
    fs::write(bench.path("sys"), "a file").unwrap();
    let failed = mounts::mount_all(&bench.dir);
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0].to_string(), format!("cannot mount sysfs at {}", bench.path("sys").display()));
    assert!(bench.path("proc/self").exists());
}

#[test]
fn the_kernel_tells_of_devices_that_come() {
    let uevents = Uevents::open().unwrap();
    // Asked to, the kernel says again what it said when the device came.
    let device = "/sys/devices/virtual/mem/null/uevent";
    fs::write(device, "add").unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        assert!(Instant::now() < deadline, "no news of /dev/null");
        let Some(event) = uevents.next(Duration::from_secs(10)).unwrap() else { continue };
        if event.path == "/devices/virtual/mem/null" {
            assert!(event.is_add() && !event.is_block());
            assert_eq!((event.subsystem.as_str(), event.name.as_deref()), ("mem", Some("null")));
            return;
        }
    }
}

#[test]
fn a_watchdog_is_petted_and_stopped_by_the_magic_word() {
    let bench = Bench::new("watchdog");
    let device = bench.path("watchdog0");
    assert!(!Watchdog::start(&device).is_running());
    assert_eq!(Watchdog::start(&device).words(), "this machine has no watchdog");
    fs::write(&device, "").unwrap();
    let mut watchdog = Watchdog::start(&device);
    assert!(watchdog.is_running() && !watchdog.did_reset());
    assert_eq!(watchdog.words(), "watchdog, its time is not known");
    watchdog.pet().unwrap();
    watchdog.pet().unwrap();
    watchdog.stop().unwrap();
    assert_eq!(fs::read(&device).unwrap(), b"\0\0V");
    watchdog.pet().unwrap();
    assert!(!watchdog.is_running());
    assert_eq!(Watchdog::disabled().words(), "switched off by watchdog=no");
}

/// Longer than the supervisor's health checks take, which decide about the petting, and short enough to be noticed by nobody.
#[test]
fn the_machine_is_reset_in_time() {
    use auroraboot::limits::{CONTROL_PATIENCE, HEALTH_INTERVAL, WATCHDOG_TIMEOUT};
    assert!(WATCHDOG_TIMEOUT > CONTROL_PATIENCE + HEALTH_INTERVAL && WATCHDOG_TIMEOUT <= Duration::from_secs(60));
}

const PROCESS_1: &str = "AURORABOOT_TEST_PROCESS_1";

/// In a PID namespace of its own a test can be process 1; reboot(2) there ends the namespace, by SIGHUP for a restart and SIGINT for "off".
fn ends_by(action: &str) -> (Option<i32>, String) {
    let bench = Bench::new("power");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--mount", "--fork", "--mount-proc"]).arg(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "appliance_init::system::the_first_process"]);
    command.env(PROCESS_1, format!("{action} {}", bench.dir.display())).stdout(Stdio::piped());
    let output = command.output().unwrap();
    let said = fs::read_to_string(bench.path("said")).unwrap_or_default();
    (output.status.signal().or(output.status.code().map(|code| code - 128)), said)
}

#[test]
fn the_machine_ends_in_order() {
    for (action, signal) in [("restart", libc::SIGHUP), ("off", libc::SIGINT)] {
        let began = Instant::now();
        let (ended_by, said) = ends_by(action);
        assert_eq!(ended_by, Some(signal), "{action}: {said}");
        assert_eq!(said, "asked\n", "who heeds SIGTERM has the time to end; nothing went wrong");
        assert!(began.elapsed() > Duration::from_secs(5), "who does not heed it is waited for");
    }
}

#[test]
#[ignore = "runs as process 1 of a namespace, for the_machine_ends_in_order"]
fn the_first_process() {
    let task = std::env::var(PROCESS_1).unwrap();
    let (action, directory) = task.split_once(' ').unwrap();
    let directory = PathBuf::from(directory);
    assert_eq!(std::process::id(), 1);
    orphans_are_reaped();
    let mounted = directory.join("data");
    fs::create_dir(&mounted).unwrap();
    mount("none".as_ref(), &mounted, "tmpfs", Flags::NONE, "").unwrap();
    let shell = |script: &str| Command::new("sh").args(["-c", script]).current_dir(&directory).spawn().unwrap();
    let mut heeds = shell("trap 'echo asked >>said; exit' TERM; touch ready1; while :; do sleep 0.05; done");
    let mut does_not = shell("trap '' TERM; cd data; touch ../ready2; while :; do sleep 0.05; done");
    while !(directory.join("ready1").exists() && directory.join("ready2").exists()) {
        std::thread::yield_now();
    }
    let action = if action == "off" { Action::PowerOff } else { Action::Restart };
    let said = directory.join("said");
    let log = |line: String| fs::write(&said, line).unwrap();
    let not_mounted = directory.clone();
    let error = power::end(action, &[mounted, not_mounted], log).unwrap_err();
    let _ = (heeds.wait(), does_not.wait());
    panic!("still there: {error}");
}

/// A grandchild whose parent ends becomes ours; a child that somebody waits for is left to them.
fn orphans_are_reaped() {
    let mut parent = Command::new("sh").args(["-c", "sleep 0.01 & exit 7"]).spawn().unwrap();
    let kept = [parent.id()].into();
    let zombies = || {
        let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            entry.file_name().to_str()?.parse::<u32>().ok()?;
            fs::read_to_string(entry.path().join("stat")).ok()
        });
        stats.filter(|stat| stat.contains("(sleep)") || stat.contains(") Z ")).count()
    };
    let deadline = Instant::now() + Duration::from_secs(20);
    while zombies() != 1 {
        assert!(Instant::now() < deadline, "the shell is the only one left");
        power::reap_orphans(&kept);
    }
    assert_eq!(parent.wait().unwrap().code(), Some(7));
}

#[test]
fn nobody_else_is_reaped() {
    let mut child = Command::new("true").spawn().unwrap();
    let stat = PathBuf::from(format!("/proc/{}/stat", child.id()));
    let is_zombie = |stat: &Path| fs::read_to_string(stat).unwrap_or_default().contains(") Z ");
    while !is_zombie(&stat) {
        std::thread::yield_now();
    }
    power::reap_orphans(&[child.id()].into());
    assert!(is_zombie(&stat) && child.wait().unwrap().success());
}
