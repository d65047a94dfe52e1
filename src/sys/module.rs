//! Kernel modules: loading one (finit_module(2)) and hearing of devices that come later (netlink, `KOBJECT_UEVENT`).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use libc::c_int;

use super::{bind, cvt, cvt_len, set_option, socket, socklen};

/// Loads the module in `path` without parameters. Compressed files are handed over as they are: Debian's kernels have
/// `CONFIG_MODULE_DECOMPRESS`, so no decompressor is needed here.
///
/// # Errors
/// What finit_module(2) says: `EEXIST` when it is loaded already, `ENOENT` for an unknown symbol, `ENOEXEC`.
pub fn insert(path: &Path) -> io::Result<()> {
    const COMPRESSED: c_int = 4; // MODULE_INIT_COMPRESSED_FILE (linux/module.h, since 5.17)
    let file = File::open(path)?;
    let is_plain = path.extension().is_some_and(|extension| extension == "ko");
    let flags = if is_plain { 0 } else { COMPRESSED };
    // SAFETY: the descriptor is open, and the parameters are an empty string that lives for ever.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), flags) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// News of devices, as the kernel sends them to udev.
#[derive(Debug)]
pub struct Uevents {
    fd: OwnedFd,
}

impl Uevents {
    /// Listens from now on.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub fn open() -> io::Result<Self> {
        const KERNEL_GROUP: u32 = 1;
        let fd = socket(libc::AF_NETLINK, libc::SOCK_DGRAM, libc::NETLINK_KOBJECT_UEVENT)?;
        // A hub with many ports says much at once.
        set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, 1 << 20)?;
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut address: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        address.nl_family = libc::AF_NETLINK as libc::sa_family_t;
        address.nl_groups = KERNEL_GROUP;
        bind(&fd, &address)?;
        Ok(Self { fd })
    }

    /// The next message, for which `patience` is had; `None` when none came. Lost messages (`ENOBUFS`) come as
    /// [`io::ErrorKind::OutOfMemory`] or what the kernel says: whoever listens looks at everything anew then.
    ///
    /// # Errors
    /// What poll(2) and recvfrom(2) say.
    pub fn receive(&self, patience: Duration) -> io::Result<Option<Vec<u8>>> {
        let mut poll = libc::pollfd { fd: self.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        let millis = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the pointer is to one live pollfd.
        if cvt(unsafe { libc::poll(&raw mut poll, 1, millis) })? == 0 {
            return Ok(None);
        }
        // lib/kobject_uevent.c: UEVENT_BUFFER_SIZE is 2048, to which the action and the path are added.
        let mut buffer = vec![0; 16 << 10];
        // SAFETY: all-zero bytes are a valid sockaddr_nl.
        let mut from: libc::sockaddr_nl = unsafe { std::mem::zeroed() };
        let mut length = socklen::<libc::sockaddr_nl>();
        // SAFETY: pointers and lengths describe `buffer` and `from`.
        let received = cvt_len(unsafe {
            let (bytes, address) = (buffer.as_mut_ptr().cast(), (&raw mut from).cast());
            libc::recvfrom(self.fd.as_raw_fd(), bytes, buffer.len(), 0, address, &raw mut length)
        });
        let received = match received {
            Ok(received) => received,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        // Only the kernel has port 0: what other programs send is no news.
        buffer.truncate(if from.nl_pid == 0 { received } else { 0 });
        Ok((!buffer.is_empty()).then_some(buffer))
    }
}

impl AsRawFd for Uevents {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}
