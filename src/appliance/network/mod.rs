//! Brings the appliance onto the network and keeps it there.
//!
//! One thread owns the interfaces: it waits for links, asks for an address or sets the static one, keeps route, resolver and
//! hostname in step, and sets the clock. It never gives up: whatever is missing is told in the [`Report`] and tried again.
//!
//! Without `network.interface` all Ethernet interfaces with a link are asked, and the first that gets an address is used; the others
//! are asked again only when that one has lost its link for a while, or its lease.

mod choice;
mod clock;
mod duplicate;
mod install;
mod link;
mod owner;
mod report;
mod settings;

pub use report::{InterfaceReport, LeaseReport, Report};
pub use settings::{DEFAULT_HOSTNAME, Machine, Settings};

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use mio::{Poll, Waker};

use owner::Owner;
use report::Snapshot;

/// The running network. Its thread ends when this is dropped; addresses stay, as the machine may go on to use them.
#[derive(Debug)]
pub struct Network {
    /// `None` when it is being dropped.
    commands: Option<Sender<Settings>>,
    waker: Arc<Waker>,
    shared: Arc<Mutex<Snapshot>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// Starts the thread; nothing is waited for.
    ///
    /// # Errors
    /// The process has no descriptor, memory or thread left, or lacks `CAP_NET_RAW`.
    pub fn start(settings: Settings, machine: Machine) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), owner::WAKER)?);
        let (commands, received) = channel();
        let shared = Arc::new(Mutex::new(Snapshot::default()));
        let owner = Owner::open(poll, Arc::clone(&waker), received, Arc::clone(&shared), settings, machine)?;
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || {
            if let Err(error) = owner.run() {
                log::error!("The network is not looked after any more: {error}");
            }
        })?;
        Ok(Self { commands: Some(commands), waker, shared, thread: Some(thread) })
    }

    /// Takes other settings; what does not change stays as it is.
    pub fn apply(&self, settings: Settings) {
        if let Some(commands) = &self.commands {
            let _ = commands.send(settings); // fails when the thread has ended, which it has told
        }
        let _ = self.waker.wake();
    }

    /// How it is now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).report(Instant::now())
    }

    /// Ends the thread, within one turn of it. The lease is not given back: whoever asks again gets the same address as a rule.
    pub fn stop(self) {}
}

impl Drop for Network {
    fn drop(&mut self) {
        self.commands = None;
        let _ = self.waker.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A number that nobody on the network can guess: the standard library's hash keys come from the kernel's random numbers.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}
