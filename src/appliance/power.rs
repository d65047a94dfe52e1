//! The orderly end of the machine, and what process 1 does for processes without parents.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use crate::limits::{PROCESS_END_POLL, PROCESS_END_TIMEOUT, PROCESS_KILL_TIMEOUT};
use crate::sys::mount::unmount;
pub use crate::sys::reboot::Action;
use crate::sys::reboot::{catch_ctrl_alt_del, kill, reap, reboot, sync};

/// Has Ctrl-Alt-Del arrive as SIGINT, for an orderly restart, where the kernel would restart at once.
///
/// # Errors
/// `EPERM` for all but root.
pub fn own_ctrl_alt_del() -> io::Result<()> {
    catch_ctrl_alt_del()
}

/// Ends everything and the machine: every process is asked to end and then made to, what is `mounted` is unmounted (lazily if it is
/// still in use), everything is written, and the kernel does the rest. What went wrong on the way goes to `log`; it delays nothing.
///
/// # Errors
/// Returns only when the kernel refuses.
pub fn end(action: Action, mounted: &[PathBuf], mut log: impl FnMut(String)) -> io::Result<()> {
    end_processes();
    sync();
    for path in mounted {
        let result = unmount(path, false).or_else(|_| unmount(path, true));
        match result {
            Err(error) if error.raw_os_error() != Some(libc::EINVAL) => {
                log(format!("cannot unmount {}: {error}", path.display()));
            }
            _ => {}
        }
    }
    sync();
    reboot(action)
}

/// Asks every process but this one to end, and ends those that do not.
fn end_processes() {
    for (signal, patience) in [(libc::SIGTERM, PROCESS_END_TIMEOUT), (libc::SIGKILL, PROCESS_KILL_TIMEOUT)] {
        if kill(-1, signal).is_err() {
            return; // there is none
        }
        let deadline = Instant::now() + patience;
        while reap_all(Path::new("/proc"), &BTreeSet::new()) && Instant::now() < deadline {
            thread::sleep(PROCESS_END_POLL);
        }
    }
}

/// Takes the exit status of every process that has ended and that process 1 inherited. Children that somebody waits for are `kept`.
pub fn reap_orphans(kept: &BTreeSet<u32>) {
    reap_all(Path::new("/proc"), kept);
}

/// Reaps, and returns whether user processes besides this one are left.
fn reap_all(proc: &Path, kept: &BTreeSet<u32>) -> bool {
    let own = std::process::id();
    let mut are_left = false;
    for process in processes(proc).filter(|process| process.pid != own && !process.is_kernel) {
        let may_reap = process.is_zombie && process.parent == own && !kept.contains(&process.pid);
        are_left |= !(may_reap && i32::try_from(process.pid).is_ok_and(reap));
    }
    are_left
}

/// A line of `/proc/<pid>/stat` (proc_pid_stat(5)).
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    is_zombie: bool,
    is_kernel: bool,
}

fn processes(proc: &Path) -> impl Iterator<Item = Process> + use<> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        parse(&fs::read_to_string(entry.path().join("stat")).ok()?)
    })
}

/// The name in brackets may hold anything, brackets included: what follows the last one counts.
fn parse(stat: &str) -> Option<Process> {
    const KTHREADD: u32 = 2;
    let (before, after) = stat.rsplit_once(')')?;
    let pid = before.split_once(' ')?.0.parse().ok()?;
    let mut fields = after.split_whitespace();
    let is_zombie = fields.next()? == "Z";
    let parent = fields.next()?.parse().ok()?;
    Some(Process { pid, parent, is_zombie, is_kernel: pid == KTHREADD || parent == KTHREADD })
}
