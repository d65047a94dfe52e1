//! What the server loops tell the main thread, and the way it travels.
//!
//! The loops never print: a blocked terminal would delay an OFFER. They send [`Event`]s through a bounded channel and
//! drop (but count) what does not fit.

use crate::units::MacAddr;
use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// One thing that happened to one machine, or to a request that belongs to none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A ProxyDHCP OFFER went out. `client` is the kind of firmware in a few words, e.g. `UEFI x64`.
    Offered { mac: MacAddr, client: Cow<'static, str> },
    /// A request on port 4011 was answered with a DHCPACK.
    Acked { mac: MacAddr, to: SocketAddr },
    /// A DHCP request that looked like a network boot got no answer.
    Ignored { mac: Option<MacAddr>, reason: Cow<'static, str> },
    /// A whole file went out by TFTP. `name` is free of tokens: see [`Names::public_name`](super::names::Names::public_name).
    TftpSent { name: String, to: SocketAddr, bytes: u64, took: Duration },
    /// A TFTP transfer that began did not end well, or was refused.
    TftpFailed { name: String, to: SocketAddr, reason: Cow<'static, str> },
    /// The boot script of a machine was sent.
    ScriptSent { mac: MacAddr, to: SocketAddr, by: Protocol },
    /// The last byte of a piece went out by HTTP.
    FileSent { mac: MacAddr, piece: Piece, to: SocketAddr, bytes: u64, took: Duration },
    /// A client left (or was cut) in the middle of a piece: `sent` of `size` bytes had gone out.
    FileBroken { mac: MacAddr, piece: Piece, to: SocketAddr, sent: u64, size: u64, reason: Cow<'static, str> },
    /// The last byte of an ISO, or of its checksum, went out to somebody who asked for it by `name`.
    DownloadSent { name: Arc<str>, to: SocketAddr, bytes: u64, took: Duration },
    /// Somebody left (or was cut) in the middle of a download: `sent` of `size` bytes had gone out.
    DownloadBroken { name: Arc<str>, to: SocketAddr, sent: u64, size: u64, reason: Cow<'static, str> },
    /// An HTTP request or connection was refused.
    Refused { to: SocketAddr, reason: Cow<'static, str> },
    /// Something the operator may want to know and need not mend: an interface is served again.
    News { what: Cow<'static, str> },
    /// Machines are served on these interfaces and addresses from now on, as the start-up summary names them.
    Serving { on: String },
    /// Something on our side of the wire: an interface that went away, no descriptors left.
    Trouble { what: Cow<'static, str> },
    /// This many events did not fit into the channel.
    Lost { events: u64 },
}

/// How a boot script went out: UEFI's iPXE asks for it by the protocol that brought iPXE itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Tftp,
    Http,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tftp => "TFTP",
            Self::Http => "HTTP",
        })
    }
}

/// A part of what a machine needs to boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Piece {
    /// An iPXE binary, by its file name (UEFI HTTP boot).
    Loader(&'static str),
    Kernel,
    Initrd,
    Rootfs,
    CloudConfig,
}

impl Piece {
    /// The name in the log, which is the one AuroraBoot has used since its first release: the squashfs and the cloud config
    /// are its "other" files number 0 and 1.
    #[must_use]
    pub const fn log_name(self) -> &'static str {
        match self {
            Self::Loader(file) => file,
            Self::Kernel => "kernel",
            Self::Initrd => "initrd-0",
            Self::Rootfs => "other-0",
            Self::CloudConfig => "other-1",
        }
    }

    /// What it is, in a word.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Loader(_) => "loader",
            Self::Kernel => "kernel",
            Self::Initrd => "initrd",
            Self::Rootfs => "image",
            Self::CloudConfig => "cloud config",
        }
    }
}

/// The sending end that each loop owns.
#[derive(Debug)]
pub struct Teller {
    events: SyncSender<Event>,
    lost: u64,
}

/// A channel for at most `capacity` waiting events.
#[must_use]
pub fn channel(capacity: usize) -> (Teller, Receiver<Event>) {
    let (events, receiver) = sync_channel(capacity);
    (Teller { events, lost: 0 }, receiver)
}

impl Teller {
    /// Sends without ever waiting. What does not fit is counted, and the count goes out as [`Event::Lost`] as soon as
    /// there is room again.
    pub fn tell(&mut self, event: Event) {
        if self.lost > 0 && self.events.try_send(Event::Lost { events: self.lost }).is_ok() {
            self.lost = 0;
        }
        match self.events.try_send(event) {
            // Nobody listens any more: the process is ending.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(_)) => self.lost = self.lost.saturating_add(1),
        }
    }
}

impl Clone for Teller {
    /// A teller for another thread; losses are counted by each for itself.
    fn clone(&self) -> Self {
        Self { events: self.events.clone(), lost: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn trouble(what: &'static str) -> Event {
        Event::Trouble { what: what.into() }
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told() {
        let (mut teller, events) = channel(2);
        for what in ["a", "b", "lost", "lost too"] {
            teller.tell(trouble(what));
        }
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [trouble("a"), trouble("b")]);
        teller.tell(trouble("c"));
        assert_eq!(events.try_iter().collect::<Vec<_>>(), [Event::Lost { events: 2 }, trouble("c")]);
    }

    #[test]
    fn the_channel_of_the_product_is_bounded() {
        let (mut teller, events) = channel(limits::EVENTS_WAITING_MAX);
        for _ in 0..=limits::EVENTS_WAITING_MAX {
            teller.tell(trouble("one more"));
        }
        assert_eq!(events.try_iter().count(), limits::EVENTS_WAITING_MAX);
    }
}
