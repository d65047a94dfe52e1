//! A terminal line in raw mode: every byte as it comes, and the line as it was when it is dropped.

use super::cvt;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// A device and its rate, as `--console` and the kernel's `console=` name them: `/dev/ttyUSB0`, `ttyS0,115200`, `ttyAMA0,115200n8`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub path: PathBuf,
    /// Bits per second.
    pub baud: u32,
}

/// What lines run at that are told nothing else.
pub const BAUD_DEFAULT: u32 = 115_200;

/// Why a text is not a [`Line`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    #[error("{0:?} names no device; write such as /dev/ttyUSB0 or ttyS0,115200")]
    NoDevice(String),
    #[error("{0:?} is no rate of a serial line; write such as 9600, 115200 or 1500000")]
    BadRate(String),
}

impl FromStr for Line {
    type Err = BadLine;

    fn from_str(text: &str) -> Result<Self, BadLine> {
        let (device, rate) = text.split_once(',').map_or((text, None), |(device, rate)| (device, Some(rate)));
        if device.is_empty() || device.contains('\0') {
            return Err(BadLine::NoDevice(text.to_owned()));
        }
        let baud = match rate {
            None => BAUD_DEFAULT,
            // The kernel's own options may follow: parity, bits, flow control. Every console has 8 bits and no parity.
            Some(rate) => {
                let digits = rate.strip_suffix("n8").or_else(|| rate.strip_suffix("n8r")).unwrap_or(rate);
                let baud = digits.parse().ok().filter(|baud| speed(*baud).is_some());
                baud.ok_or_else(|| BadLine::BadRate(rate.to_owned()))?
            }
        };
        Ok(Self { path: Path::new("/dev").join(device), baud })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{},{}", self.path.display(), self.baud)
    }
}

/// termios(3)'s name of a rate.
fn speed(baud: u32) -> Option<libc::speed_t> {
    Some(match baud {
        1200 => libc::B1200,
        2400 => libc::B2400,
        4800 => libc::B4800,
        9600 => libc::B9600,
        19_200 => libc::B19200,
        38_400 => libc::B38400,
        57_600 => libc::B57600,
        115_200 => libc::B115200,
        230_400 => libc::B230400,
        460_800 => libc::B460800,
        500_000 => libc::B500000,
        921_600 => libc::B921600,
        1_000_000 => libc::B1000000,
        1_500_000 => libc::B1500000,
        2_000_000 => libc::B2000000,
        3_000_000 => libc::B3000000,
        4_000_000 => libc::B4000000,
        _ => return None,
    })
}

/// What a terminal is ready for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ready {
    pub read: bool,
    pub write: bool,
}

/// An open line in raw mode. Reads and writes do not wait.
#[derive(Debug)]
pub struct Tty {
    file: File,
    before: libc::termios,
}

impl Tty {
    /// Opens the device and sets it to its rate: 8 bits, no parity, no flow control, breaks and broken bytes ignored.
    ///
    /// # Errors
    /// It cannot be opened, or is no terminal (`ENOTTY`), or does not know the rate.
    pub fn open(line: &Line) -> io::Result<Self> {
        // Without O_NONBLOCK opening waits for a modem's carrier; with O_NOCTTY the line's Ctrl-C is no signal to us.
        let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(&line.path)?;
        let before = attributes(&file)?;
        let mut raw = before;
        raw.c_iflag = libc::IGNBRK | libc::IGNPAR;
        raw.c_oflag = 0;
        raw.c_lflag = 0;
        // No hang-up on close: it would reset boards whose reset line is wired to DTR.
        raw.c_cflag = libc::CS8 | libc::CREAD | libc::CLOCAL;
        raw.c_cc[libc::VMIN] = 1;
        raw.c_cc[libc::VTIME] = 0;
        let speed = speed(line.baud).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        // SAFETY: the pointer is to a live termios, and the rate is one of termios(3).
        cvt(unsafe { libc::cfsetspeed(&raw mut raw, speed) })?;
        set_attributes(&file, &raw)?;
        Ok(Self { file, before })
    }

    /// Waits until bytes can be read, or written if `wants_write`, or `wake` can be read; for `patience` at most, for ever without one.
    /// Of a terminal that has gone both are told: reading it then says so.
    ///
    /// # Errors
    /// Only what poll(2) says of broken descriptors.
    pub fn wait(
        &self,
        wants_read: bool,
        wants_write: bool,
        wake: BorrowedFd<'_>,
        patience: Option<Duration>,
    ) -> io::Result<Ready> {
        let wanted = if wants_read { libc::POLLIN } else { 0 } | if wants_write { libc::POLLOUT } else { 0 };
        let mut polls = [
            libc::pollfd { fd: self.file.as_raw_fd(), events: wanted, revents: 0 },
            libc::pollfd { fd: wake.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        ];
        poll(&mut polls, patience)?;
        let has = |events| polls[0].revents & (events | libc::POLLERR | libc::POLLHUP | libc::POLLNVAL) != 0;
        Ok(Ready { read: has(libc::POLLIN), write: has(libc::POLLOUT) })
    }

    /// Reads what is there; nothing (`WouldBlock`), when nothing is.
    ///
    /// # Errors
    /// The terminal has gone (`UnexpectedEof`, or `EIO` and others).
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match (&self.file).read(buffer)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            length => Ok(length),
        }
    }

    /// Writes as much as the line takes now.
    ///
    /// # Errors
    /// It takes nothing (`WouldBlock`), or has gone.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        (&self.file).write(bytes)
    }

    /// Drops what was written and not sent yet: a line that is stuck would be waited for when it is closed.
    pub fn discard_output(&self) {
        // SAFETY: no pointers are passed. A terminal that has gone has nothing to drop.
        unsafe { libc::tcflush(self.file.as_raw_fd(), libc::TCOFLUSH) };
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // One that has gone keeps what it has.
        let _ = set_attributes(&self.file, &self.before);
    }
}

/// Waits until `fd` can be read; for `patience` at most.
pub fn wait_readable(fd: BorrowedFd<'_>, patience: Duration) {
    let poll_fd = libc::pollfd { fd: fd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let _ = poll(&mut [poll_fd], Some(patience));
}

/// A signal ends it as time does.
fn poll(polls: &mut [libc::pollfd], patience: Option<Duration>) -> io::Result<()> {
    // Rounded up: a deadline that is a part of a millisecond away must not be polled for again and again.
    let millis = |patience: Duration| i32::try_from(patience.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX);
    let count = libc::nfds_t::try_from(polls.len()).unwrap_or_default();
    // SAFETY: the pointer and the number describe `polls`, which lives until the call returns.
    match cvt(unsafe { libc::poll(polls.as_mut_ptr(), count, patience.map_or(-1, millis)) }) {
        Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

fn attributes(file: &File) -> io::Result<libc::termios> {
    // SAFETY: termios is plain numbers; all zeroes is a valid value of it.
    let mut attributes: libc::termios = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live termios.
    cvt(unsafe { libc::tcgetattr(file.as_raw_fd(), &raw mut attributes) })?;
    Ok(attributes)
}

/// At once: waiting for the output, as `TCSADRAIN` does, could take for ever.
fn set_attributes(file: &File, attributes: &libc::termios) -> io::Result<()> {
    // SAFETY: the pointer is to a live termios, which the call only reads.
    cvt(unsafe { libc::tcsetattr(file.as_raw_fd(), libc::TCSANOW, &raw const *attributes) }).map(drop)
}

/// A pair of a terminal's two ends, for tests: whoever sits there, and the path of the device that [`Tty::open`] opens.
///
/// # Errors
/// There is no `/dev/pts`, or no terminal left.
pub fn pseudo_terminal() -> io::Result<(File, PathBuf)> {
    let near = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/ptmx")?;
    let mut name = [0_u8; 64];
    // SAFETY: the descriptor is a multiplexer's, and the pointer and the length describe `name`.
    unsafe {
        cvt(libc::grantpt(near.as_raw_fd()))?;
        cvt(libc::unlockpt(near.as_raw_fd()))?;
        let errno = libc::ptsname_r(near.as_raw_fd(), name.as_mut_ptr().cast(), name.len());
        if errno != 0 {
            return Err(io::Error::from_raw_os_error(errno));
        }
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok((near, PathBuf::from(String::from_utf8_lossy(&name[..end]).into_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn devices_and_rates_as_people_and_kernels_write_them() {
        for (text, path, baud) in [
            ("/dev/ttyUSB0", "/dev/ttyUSB0", 115_200),
            ("/dev/ttyUSB0,9600", "/dev/ttyUSB0", 9600),
            ("ttyS0,115200n8", "/dev/ttyS0", 115_200),
            ("ttyS2,1500000n8r", "/dev/ttyS2", 1_500_000),
            ("tty1", "/dev/tty1", 115_200),
        ] {
            assert_eq!(text.parse(), Ok(Line { path: path.into(), baud }));
        }
        assert_eq!("ttyS0,9600".parse::<Line>().unwrap().to_string(), "/dev/ttyS0,9600");
        for text in ["ttyS0,", "ttyS0,fast", "ttyS0,115201", "ttyS0,115200e7", "ttyS0,-9600"] {
            assert!(matches!(text.parse::<Line>(), Err(BadLine::BadRate(_))), "{text}");
        }
        for text in ["", ",9600", "a\0b"] {
            assert!(matches!(text.parse::<Line>(), Err(BadLine::NoDevice(_))), "{text}");
        }
    }

    #[test]
    fn a_line_is_raw_while_it_is_open_and_as_before_when_it_is_closed() {
        let (mut near, path) = pseudo_terminal().unwrap();
        let far = OpenOptions::new().read(true).custom_flags(libc::O_NOCTTY).open(&path).unwrap();
        let before = attributes(&far).unwrap();
        assert_ne!(before.c_lflag & libc::ECHO, 0);
        let (wake, _kept) = io::pipe().unwrap();
        let tty = Tty::open(&Line { path, baud: 9600 }).unwrap();
        let raw = attributes(&far).unwrap();
        assert_eq!((raw.c_lflag, raw.c_oflag), (0, 0));
        // SAFETY: the pointer is to a live termios.
        assert_eq!(unsafe { libc::cfgetospeed(&raw const raw) }, libc::B9600);
        let mut buffer = [0; 16];
        assert_eq!(tty.read(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(tty.wait(true, true, wake.as_fd(), None).unwrap(), Ready { read: false, write: true });
        near.write_all(b"\x03\r\n\xff").unwrap();
        assert!(tty.wait(true, false, wake.as_fd(), None).unwrap().read);
        assert_eq!(tty.read(&mut buffer).unwrap(), 4);
        assert_eq!(&buffer[..4], b"\x03\r\n\xff");
        tty.write(b"\n").unwrap();
        assert_eq!(near.read(&mut buffer).unwrap(), 1, "a line feed stays alone");
        drop(tty);
        assert_eq!(attributes(&far).unwrap().c_lflag, before.c_lflag);
    }

    #[test]
    fn who_has_gone_is_noticed_and_what_is_no_terminal_is_told() {
        let (near, path) = pseudo_terminal().unwrap();
        let tty = Tty::open(&Line { path, baud: BAUD_DEFAULT }).unwrap();
        let (wake, waker) = io::pipe().unwrap();
        drop(waker);
        assert_eq!(tty.wait(true, false, wake.as_fd(), None).unwrap(), Ready::default(), "woken by the pipe");
        drop(near);
        assert!(tty.wait(true, false, wake.as_fd(), None).unwrap().read);
        assert!(tty.read(&mut [0; 16]).is_err_and(|error| error.kind() != io::ErrorKind::WouldBlock));
        let line = Line { path: "/dev/null".into(), baud: BAUD_DEFAULT };
        assert_eq!(Tty::open(&line).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
    }
}
