//! The `boot` thread: DHCP, port 4011 and TFTP in one loop, none of them ever waiting for another.
//!
//! The loop does no blocking call and prints nothing: what happens goes to the main thread as an
//! [`Event`](crate::netboot::event::Event). DHCP is read first in every turn, so that a room full of transfers delays no OFFER.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token, Waker};

use super::boot_files::BootFiles;
use super::dhcp_io::{DhcpIo, DhcpIoError};
use super::interfaces::{Selection, listed};
use super::pulse::Pulse;
use super::tftp_io::{TftpIo, TftpIoError};
use crate::dhcp::{Policy, Server};
use crate::limits;
use crate::netboot::event::{Event, Protocol, Teller};
use crate::netboot::names::Names;
use crate::tftp;

/// The other threads' call.
const WAKER: Token = Token(0);
/// The listener of port 69 and its transfers; the DHCP sockets' tokens are below it and from 2³² on.
const TFTP: usize = 16;

/// What the `boot` thread needs.
#[derive(Debug)]
pub struct BootOptions {
    /// `netboot_listen_addr`; unspecified: every address of the interfaces.
    pub listen: Ipv4Addr,
    /// `interfaces`; empty: every suitable one.
    pub interfaces: Vec<String>,
    pub policy: Policy,
    /// What TFTP serves, told by DHCP whom it answered.
    pub files: Arc<BootFiles>,
    /// To keep tokens out of what is told.
    pub names: Names,
    pub teller: Teller,
}

/// Why the servers of the `boot` thread could not start.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    #[error("cannot set up the event loop")]
    Poll(#[source] io::Error),
    #[error(transparent)]
    Dhcp(#[from] DhcpIoError),
    #[error(transparent)]
    Tftp(#[from] TftpIoError),
}

/// All sockets open, nothing running yet.
#[derive(Debug)]
pub struct Boot {
    poll: Poll,
    dhcp: DhcpIo,
    tftp: TftpIo,
    files: Arc<BootFiles>,
    names: Names,
    teller: Teller,
    stop: Stopper,
    pulse: Pulse,
}

/// Ends [`Boot::run`] from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    asked: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Asks the loop to return; it does within one turn.
    pub fn stop(&self) {
        self.asked.store(true, Ordering::Release);
        // It fails only when the loop's poll is gone, and with it the loop.
        let _ = self.waker.wake();
    }
}

impl Boot {
    /// Opens all sockets, so that everything that can go wrong does so before the first machine is answered.
    ///
    /// # Errors
    /// What the operator has to change.
    pub fn bind(options: BootOptions) -> Result<Self, BootError> {
        let poll = Poll::new().map_err(BootError::Poll)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(BootError::Poll)?);
        let selection = Selection {
            names: options.interfaces,
            address: Some(options.listen).filter(|address| !address.is_unspecified()),
        };
        let server = Server::new(options.policy);
        let BootOptions { files, names, teller, .. } = options;
        let dhcp = DhcpIo::bind(poll.registry(), selection, server, Arc::clone(&files), teller.clone())?;
        let tftp = TftpIo::bind(options.listen, poll.registry(), TftpIo::tokens(TFTP), files.clone())?;
        let pulse = Pulse::new(Arc::clone(&waker));
        Ok(Self { poll, dhcp, tftp, files, names, teller, stop: Stopper { asked: Arc::default(), waker }, pulse })
    }

    /// What is served where.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { served: listed(self.dhcp.served()), skipped: self.dhcp.skipped().to_string() }
    }

    /// The handle that ends [`Self::run`].
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stop.clone()
    }

    /// Tells whether [`Self::run`] turns.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
    }

    /// Serves until [`Stopper::stop`].
    ///
    /// # Errors
    /// Only when epoll itself fails; nothing that comes from the network ends the loop.
    pub fn run(mut self) -> Result<(), BootError> {
        let mut events = Events::with_capacity(limits::POLL_EVENTS);
        let mut more = true; // sockets are read once before the first wait
        while !self.stop.asked.load(Ordering::Acquire) {
            let timeout = if more { Some(Duration::ZERO) } else { self.until_deadline(Instant::now()) };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result.map_err(BootError::Poll)?,
            }
            self.pulse.beat();
            let now = Instant::now();
            for event in events.iter().filter(|event| DhcpIo::owns(event.token())) {
                self.dhcp.handle_ready(event.token(), now);
            }
            self.dhcp.handle_timeout(now, self.poll.registry());
            more = self.dhcp.turn(now);
            let transfers = TftpIo::tokens(TFTP);
            for event in events.iter().filter(|event| transfers.contains(&event.token().0)) {
                self.tftp.handle_ready(event.token(), now);
            }
            self.tftp.handle_timeout(now);
            while let Some(event) = self.tftp.poll_event() {
                self.tell_tftp(event);
            }
        }
        Ok(())
    }

    fn tell_tftp(&mut self, event: tftp::Event) {
        let public = |name: &str| self.names.public_name(name);
        let event = match event {
            tftp::Event::Sent { name, to, bytes, took } => match self.files.script_of(*to.ip(), &name) {
                Some(mac) => Event::ScriptSent { mac, to: to.into(), by: Protocol::Tftp },
                None => Event::TftpSent { name: public(&name), to: to.into(), bytes, took },
            },
            tftp::Event::Failed { name, to, failure } => {
                Event::TftpFailed { name: public(&name), to: to.into(), reason: failure.to_string().into() }
            }
            tftp::Event::Refused { name, from, refusal } => {
                Event::TftpFailed { name: public(&name), to: from.into(), reason: refusal.to_string().into() }
            }
            // Firmware asks for the size first; the transfer itself follows and is told.
            tftp::Event::Probed { .. } => return,
        };
        self.teller.tell(event);
    }

    fn until_deadline(&self, now: Instant) -> Option<Duration> {
        let deadlines = [self.dhcp.next_deadline(), self.tftp.next_deadline(now)];
        let wait = deadlines.into_iter().flatten().min()?.saturating_duration_since(now);
        // One more: epoll counts whole milliseconds and would wake us just too early.
        Some(if wait.is_zero() { wait } else { wait + Duration::from_millis(1) })
    }
}

/// What the start-up summary says of the `boot` thread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Interfaces and our address on each.
    pub served: String,
    /// The others and why, as one line; may be empty.
    pub skipped: String,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.served)
    }
}
