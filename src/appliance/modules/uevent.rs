//! What the kernel says when a device comes or goes, as far as it concerns us: NICs and sticks that are plugged in later.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use crate::sys::module;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `bind` …
    pub action: String,
    /// Below `/sys`.
    pub path: String,
    /// `block`, `net`, `usb` …
    pub subsystem: String,
    /// By what a module is found, when the device waits for one.
    pub modalias: Option<String>,
    /// Below `/dev`, when there is a node.
    pub name: Option<String>,
}

impl Uevent {
    /// Takes a message apart: `add@/devices/…`, then `KEY=value`, with zero bytes between. `None` when it is none of the kernel's.
    #[must_use]
    pub fn parse(message: &[u8]) -> Option<Self> {
        let mut parts = message.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let head = parts.next()?;
        let (action, path) = head.split_once('@')?;
        let mut event = Self { action: action.to_owned(), path: path.to_owned(), ..Self::default() };
        for part in parts {
            match part.split_once('=') {
                Some(("SUBSYSTEM", value)) => event.subsystem = value.to_owned(),
                Some(("MODALIAS", value)) => event.modalias = Some(value.to_owned()),
                Some(("DEVNAME", value)) => event.name = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(event)
    }

    /// A device that came.
    #[must_use]
    pub fn is_add(&self) -> bool {
        self.action == "add"
    }

    /// A keyboard, button or the like that came, with its node.
    #[must_use]
    pub fn is_input(&self) -> bool {
        self.is_add() && self.subsystem == "input" && self.name.is_some()
    }

    /// A disk or partition that came.
    #[must_use]
    pub fn is_block(&self) -> bool {
        self.is_add() && self.subsystem == "block"
    }
}

/// The messages as they come.
#[derive(Debug)]
pub struct Uevents(module::Uevents);

impl Uevents {
    /// Listens from now on: before [`super::Modules::coldplug`], so that nothing is missed in between.
    ///
    /// # Errors
    /// What socket(2) and bind(2) say.
    pub fn open() -> io::Result<Self> {
        module::Uevents::open().map(Self)
    }

    /// The next message, waited for as long as `patience`.
    ///
    /// # Errors
    /// `ENOBUFS` when messages were lost: cold-plug anew.
    pub fn next(&self, patience: Duration) -> io::Result<Option<Uevent>> {
        Ok(self.0.receive(patience)?.and_then(|message| Uevent::parse(&message)))
    }
}

impl AsRawFd for Uevents {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_usb_nic() {
        let message = b"add@/devices/pci0000:00/usb1/1-1/1-1:1.0\0ACTION=add\0DEVPATH=/devices/pci0000:00/usb1/1-1/1-1:1.0\0SUBSYSTEM=usb\0\
            DEVTYPE=usb_interface\0MODALIAS=usb:v0BDAp8153d3000dc00dsc00dp00icFFiscFFip00in00\0SEQNUM=1234\0";
        let event = Uevent::parse(message).unwrap();
        assert_eq!((event.action.as_str(), event.subsystem.as_str()), ("add", "usb"));
        assert_eq!(event.modalias.as_deref(), Some("usb:v0BDAp8153d3000dc00dsc00dp00icFFiscFFip00in00"));
        assert!(event.is_add() && !event.is_block() && event.name.is_none());
    }

    #[test]
    fn a_stick_and_what_is_no_message() {
        let event =
            Uevent::parse(b"add@/devices/x/block/sda/sda1\0SUBSYSTEM=block\0DEVNAME=sda1\0DEVTYPE=partition").unwrap();
        assert!(event.is_block());
        assert_eq!(event.name.as_deref(), Some("sda1"));
        let button = |more: &str| {
            Uevent::parse(format!("add@/devices/x/input/input3\0SUBSYSTEM=input\0{more}").as_bytes()).unwrap()
        };
        assert!(
            button("DEVNAME=input/event2").is_input()
                && !button("MODALIAS=input:b0019").is_input()
                && !event.is_input()
        );
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None, "udev's own, on the other group");
        assert_eq!(Uevent::parse(b""), None);
    }
}
