//! What the server may do: a user of its own, two capabilities, files below two directories, no system calls of administrators.

use std::ffi::c_long;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use crate::sys::rights::{Access, Filter, Plan, Ruleset, has_seccomp, landlock_version};

/// A capability that may be kept (capabilities(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Capability {
    /// Ports below 1024: DHCP, TFTP.
    NetBindService = 10,
    /// Packet sockets.
    NetRaw = 13,
}

impl Capability {
    const fn name(self) -> &'static str {
        match self {
            Self::NetBindService => "NET_BIND_SERVICE",
            Self::NetRaw => "NET_RAW",
        }
    }
}

/// The rights that a child is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    pub uid: u32,
    pub gid: u32,
    pub capabilities: Vec<Capability>,
    /// Directories below which it may write, and files (such as `/dev/null`) to which it may.
    pub writable: Vec<PathBuf>,
    /// The programs that it may start: itself, and what loads it when it is not static.
    pub executable: Vec<PathBuf>,
}

/// Why a child cannot be confined.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot make a landlock ruleset")]
    Ruleset(#[source] io::Error),
    #[error("cannot allow the server to use {path}")]
    Path { path: PathBuf, source: io::Error },
}

/// Which of the fences stand, for the status and the log. Not every kernel has them all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    pub uid: u32,
    pub gid: u32,
    pub capabilities: Vec<Capability>,
    /// Version of landlock's interface, when the kernel has it.
    pub landlock: Option<u32>,
    pub seccomp: bool,
}

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.capabilities.iter().map(|capability| capability.name()).collect();
        let names = if names.is_empty() { "none".to_owned() } else { names.join(" + ") };
        write!(f, "user {}:{}, capabilities {names}, no new privileges, ", self.uid, self.gid)?;
        match self.landlock {
            Some(version) => write!(f, "landlock {version}, ")?,
            None => f.write_str("no landlock in this kernel, ")?,
        }
        f.write_str(if self.seccomp { "seccomp" } else { "no seccomp in this kernel" })
    }
}

impl Rights {
    /// Has `command` start with these rights and no others; it is not started when one of them cannot be given up.
    ///
    /// # Errors
    /// A path that is not there.
    pub fn confine(&self, command: &mut Command) -> Result<Applied, Error> {
        let version = landlock_version();
        let landlock = version.map(|version| self.ruleset(version)).transpose()?;
        let seccomp = has_seccomp();
        let plan = Plan {
            uid: self.uid,
            gid: self.gid,
            capabilities: self.capabilities.iter().fold(0, |set, capability| set | 1 << *capability as u8),
            landlock,
            filter: seccomp.then(|| Filter::denying(DENIED)),
        };
        plan.confine(command);
        let Self { uid, gid, ref capabilities, .. } = *self;
        Ok(Applied { uid, gid, capabilities: capabilities.clone(), landlock: version, seccomp })
    }

    fn ruleset(&self, version: u32) -> Result<Ruleset, Error> {
        let ruleset = Ruleset::new(version).map_err(Error::Ruleset)?;
        let writable = self.writable.iter().map(|path| (path, Access::Write));
        let executable = self.executable.iter().map(|path| (path, Access::Execute));
        for (path, access) in writable.chain(executable) {
            ruleset.allow(version, path, access).map_err(|source| Error::Path { path: path.clone(), source })?;
        }
        Ok(ruleset)
    }
}

/// The libc crate lacks it for aarch64 with musl; the number is that of asm-generic/unistd.h.
#[cfg(target_arch = "x86_64")]
const KEXEC_FILE_LOAD: c_long = libc::SYS_kexec_file_load;
#[cfg(not(target_arch = "x86_64"))]
const KEXEC_FILE_LOAD: c_long = 294;

/// What only administrators do, and what has let programs out of their fences before. It is denied to root in a user namespace, too,
/// and where landlock is missing.
const DENIED: &[c_long] = &[
    // file systems
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_mknodat,
    // other processes
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_setns,
    libc::SYS_unshare,
    // the kernel
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    KEXEC_FILE_LOAD,
    libc::SYS_reboot,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    // the clock
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];
