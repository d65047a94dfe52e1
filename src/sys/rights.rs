//! Giving up rights between fork and exec: user, capabilities, landlock, seccomp (credentials(7), capabilities(7), landlock(7), seccomp(2)).

use std::ffi::{c_int, c_long, c_ulong};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::cvt;

/// Everything that a child gives up, prepared: between fork and exec nothing may be allocated (signal-safety(7)).
#[derive(Debug)]
pub struct Plan {
    pub uid: u32,
    pub gid: u32,
    /// Bit n set: capability n is kept, and survives exec.
    pub capabilities: u64,
    pub landlock: Option<Ruleset>,
    pub filter: Option<Filter>,
}

impl Plan {
    /// Has `command` give up its rights before it becomes the other program. One that cannot is not started.
    pub fn confine(self, command: &mut Command) {
        // SAFETY: `apply` makes system calls only, on values that were prepared before the fork.
        unsafe { command.pre_exec(move || self.apply()) };
    }

    /// Gives up the rights of the calling thread. Async-signal-safe.
    ///
    /// The order matters: dropping from the bounding set needs `CAP_SETPCAP`, so it comes before the user is changed; the ambient
    /// set can take only what is inheritable; landlock and seccomp demand "no new privileges".
    ///
    /// # Errors
    /// The first call that failed; nothing is taken back.
    pub fn apply(&self) -> io::Result<()> {
        let no_core = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: the pointer is to a live rlimit.
        cvt(unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const no_core) })?;
        self.bound()?;
        prctl(libc::PR_SET_KEEPCAPS, 1, 0)?;
        self.become_user()?;
        self.keep_capabilities()?;
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        if let Some(Ruleset(fd)) = &self.landlock {
            // SAFETY: the descriptor is a ruleset of ours; no pointers are passed.
            syscall(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, fd.as_raw_fd(), 0) })?;
        }
        if let Some(filter) = &self.filter {
            filter.install()?;
        }
        Ok(())
    }

    /// Takes what is not kept out of the bounding set, so that no program can ever give it back.
    fn bound(&self) -> io::Result<()> {
        for capability in (0..CAPABILITIES_MAX).filter(|number| self.capabilities & 1 << number == 0) {
            match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
                Ok(()) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break, // the kernel knows no more
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// By the system calls themselves: the C library's functions talk to other threads, which after a fork are not there.
    fn become_user(&self) -> io::Result<()> {
        // SAFETY: an empty list needs no memory; the others take numbers only.
        unsafe {
            syscall(libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()))?;
            syscall(libc::syscall(libc::SYS_setresgid, self.gid, self.gid, self.gid))?;
            syscall(libc::syscall(libc::SYS_setresuid, self.uid, self.uid, self.uid))
        }
    }

    fn keep_capabilities(&self) -> io::Result<()> {
        /// `struct __user_cap_header_struct`, version 3 (linux/capability.h).
        #[repr(C)]
        struct Header {
            version: u32,
            pid: i32,
        }
        const VERSION_3: u32 = 0x2008_0522;
        let header = Header { version: VERSION_3, pid: 0 };
        let (low, high) = (self.capabilities as u32, (self.capabilities >> 32) as u32);
        // Two of `struct __user_cap_data_struct`: effective, permitted, inheritable.
        let data = [low, low, low, high, high, high];
        // SAFETY: version 3 reads one header and two data structures of three u32 each.
        syscall(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
        for capability in (0..CAPABILITIES_MAX).filter(|number| self.capabilities & 1 << number != 0) {
            prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as c_ulong, capability)?;
        }
        Ok(())
    }
}

/// Numbers of capabilities are bits of 64 (linux/capability.h); 41 are in use.
const CAPABILITIES_MAX: c_ulong = 64;

fn prctl(option: c_int, first: c_ulong, second: c_ulong) -> io::Result<()> {
    const NONE: c_ulong = 0; // prctl refuses garbage in what it does not use
    // SAFETY: only options that take numbers are passed here.
    cvt(unsafe { libc::prctl(option, first, second, NONE, NONE) }).map(drop)
}

fn syscall(result: c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A landlock ruleset: writing, and starting programs, are forbidden but for what [`Ruleset::allow`] named.
#[derive(Debug)]
pub struct Ruleset(OwnedFd);

/// What may be done below a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Write,
    Execute,
}

// LANDLOCK_ACCESS_FS_… of linux/landlock.h, with the version of the interface that brought them.
const EXECUTE: u64 = 1;
const WRITE_FILE: u64 = 1 << 1;
/// Removing, and making files, directories and the rest: bits 4 to 12.
const CHANGE_DIRECTORY: u64 = 0x1ff << 4;
const REFER: u64 = 1 << 13; // 2
const TRUNCATE: u64 = 1 << 14; // 3
const IOCTL_DEVICE: u64 = 1 << 15; // 5

/// Version of landlock's interface; `None` when the kernel has none or does not use it.
#[must_use]
pub fn landlock_version() -> Option<u32> {
    const LANDLOCK_CREATE_RULESET_VERSION: c_int = 1;
    let none = std::ptr::null::<u8>();
    // SAFETY: with this flag the call takes no attribute and returns a number.
    let version =
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0_usize, LANDLOCK_CREATE_RULESET_VERSION) };
    u32::try_from(version).ok().filter(|version| *version > 0)
}

impl Ruleset {
    /// A ruleset that allows nothing yet, as strict as `version` can express. Where the kernel knows scopes (6), signals to, and
    /// abstract Unix sockets of, processes outside are forbidden too.
    ///
    /// # Errors
    /// What landlock_create_ruleset(2) says.
    pub fn new(version: u32) -> io::Result<Self> {
        /// `struct landlock_ruleset_attr`; shorter before.
        #[repr(C)]
        struct Attributes {
            handled_access_fs: u64,
            handled_access_net: u64,
            scoped: u64,
        }
        const SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL: u64 = 3;
        let size: usize = match version {
            ..=3 => 8,
            4..=5 => 16,
            _ => 24,
        };
        let attributes = Attributes {
            handled_access_fs: known(
                EXECUTE | WRITE_FILE | CHANGE_DIRECTORY | REFER | TRUNCATE | IOCTL_DEVICE,
                version,
            ),
            handled_access_net: 0,
            scoped: SCOPE_ABSTRACT_UNIX_SOCKET_AND_SIGNAL,
        };
        // SAFETY: `size` is at most that of the structure that the pointer is to.
        let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0) };
        syscall(fd)?;
        let fd = c_int::try_from(fd).map_err(io::Error::other)?;
        // SAFETY: the descriptor is new (and close-on-exec), so nobody else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Allows `access` to the file at `path`, or to everything below the directory.
    ///
    /// # Errors
    /// What open(2) and landlock_add_rule(2) say.
    pub fn allow(&self, version: u32, path: &Path, access: Access) -> io::Result<()> {
        /// `struct landlock_path_beneath_attr`.
        #[repr(C, packed)]
        struct Beneath {
            allowed_access: u64,
            parent_fd: i32,
        }
        const LANDLOCK_RULE_PATH_BENEATH: c_int = 1;
        let place = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_CLOEXEC).open(path)?;
        let wanted = match access {
            Access::Execute => EXECUTE,
            Access::Write if place.metadata()?.is_dir() => WRITE_FILE | TRUNCATE | CHANGE_DIRECTORY | REFER,
            Access::Write => WRITE_FILE | TRUNCATE,
        };
        let rule = Beneath { allowed_access: known(wanted, version), parent_fd: place.as_raw_fd() };
        // SAFETY: the pointer is to a live structure of the type that this rule has; both descriptors are open.
        syscall(unsafe {
            let (ruleset, kind) = (self.0.as_raw_fd(), LANDLOCK_RULE_PATH_BENEATH);
            libc::syscall(libc::SYS_landlock_add_rule, ruleset, kind, &raw const rule, 0)
        })
    }
}

/// Those of the rights that this version of landlock has heard of.
const fn known(rights: u64, version: u32) -> u64 {
    let unknown = match version {
        ..=1 => REFER | TRUNCATE | IOCTL_DEVICE,
        2 => TRUNCATE | IOCTL_DEVICE,
        3..=4 => IOCTL_DEVICE,
        _ => 0,
    };
    rights & !unknown
}

/// A program for seccomp's virtual machine: which system calls are answered with an error.
pub struct Filter(Vec<libc::sock_filter>);

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Filter").field("instructions", &self.0.len()).finish()
    }
}

/// Whether the kernel takes filters.
#[must_use]
pub fn has_seccomp() -> bool {
    // SAFETY: the pointer is to a live u32, which the call reads.
    unsafe {
        let (operation, action) = (libc::SECCOMP_GET_ACTION_AVAIL, libc::SECCOMP_RET_ERRNO);
        libc::syscall(libc::SYS_seccomp, operation, 0, &raw const action) == 0
    }
}

#[cfg(target_arch = "x86_64")]
const AUDIT_ARCH: u32 = 0xc000_003e; // AUDIT_ARCH_X86_64 of linux/audit.h
#[cfg(target_arch = "aarch64")]
const AUDIT_ARCH: u32 = 0xc000_00b7; // AUDIT_ARCH_AARCH64

impl Filter {
    /// Answers the calls `denied` with `EPERM`, and with them those of any other instruction set (32 bits, x32). So it does with `clone` into
    /// new namespaces; `clone3`, whose flags no filter can see, does not exist (`ENOSYS`), on which C libraries fall back to `clone`.
    #[must_use]
    pub fn denying(denied: &[c_long]) -> Self {
        const ARCH_AT: u32 = 4; // offsets in `struct seccomp_data`
        const NUMBER_AT: u32 = 0;
        const FIRST_ARGUMENT_AT: u32 = 16; // its low half: both architectures are little-endian
        let (load, is, is_from, has) = (0x20, 0x15, 0x35, 0x45); // BPF_LD|W|ABS; BPF_JMP with JEQ, JGE, JSET and K
        let answer = |errno: c_int| jump(0x06, libc::SECCOMP_RET_ERRNO | errno as u32, 0, 0); // BPF_RET|K
        let allow = jump(0x06, libc::SECCOMP_RET_ALLOW, 0, 0);
        let mut program = vec![jump(load, ARCH_AT, 0, 0), jump(is, AUDIT_ARCH, 1, 0), answer(libc::EPERM)];
        program.push(jump(load, NUMBER_AT, 0, 0));
        #[cfg(target_arch = "x86_64")]
        program.extend([jump(is_from, X32_BIT, 0, 1), answer(libc::EPERM)]);
        #[cfg(not(target_arch = "x86_64"))]
        let _ = is_from;
        for number in denied {
            program.extend([jump(is, *number as u32, 0, 1), answer(libc::EPERM)]);
        }
        program.extend([jump(is, libc::SYS_clone3 as u32, 0, 1), answer(libc::ENOSYS)]);
        program.extend([jump(is, libc::SYS_clone as u32, 0, 3), jump(load, FIRST_ARGUMENT_AT, 0, 0)]);
        program.extend([jump(has, NEW_NAMESPACES, 0, 1), answer(libc::EPERM), allow]);
        Self(program)
    }

    fn install(&self) -> io::Result<()> {
        let len = u16::try_from(self.0.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the program is read only, and lives until the call returns.
        syscall(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
    }
}

/// System calls of x86-64 with 32-bit pointers have this bit (`__X32_SYSCALL_BIT`).
#[cfg(target_arch = "x86_64")]
const X32_BIT: u32 = 0x4000_0000;

const NEW_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// One instruction: the jumps count instructions to skip.
const fn jump(code: u16, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt: if_true, jf: if_false, k }
}
