//! The directory that TFTP serves, as the `boot` thread's two protocols share it.

use crate::netboot::boot_dir::BootDir;
use crate::netboot::served::Served;
use crate::tftp::{Content, Files};
use crate::units::MacAddr;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A [`BootDir`] with a clock. DHCP notes in it whom it answered, TFTP opens what those machines ask for. Both run on the `boot`
/// thread, so its lock is never waited for.
#[derive(Debug)]
pub struct BootFiles {
    dir: Mutex<BootDir>,
    start: Instant,
}

impl BootFiles {
    #[must_use]
    pub fn new(served: Arc<Served>) -> Self {
        Self { dir: Mutex::new(BootDir::new(served)), start: Instant::now() }
    }

    /// Notes that `mac` was sent an OFFER.
    pub fn offered(&self, mac: MacAddr) {
        self.lock().offered(self.now(), mac);
    }

    /// Notes that a request of `mac` on port 4011 came from `address`.
    pub fn seen_at(&self, address: Ipv4Addr, mac: MacAddr) {
        self.lock().seen_at(self.now(), address, mac);
    }

    /// The machine whose boot script a client at `address` gets under `name`, if that is what it stands for.
    #[must_use]
    pub fn script_of(&self, address: Ipv4Addr, name: &str) -> Option<MacAddr> {
        self.lock().script_of(self.now(), address, name)
    }

    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// A panic elsewhere leaves the tables as they are: they are only notes.
    fn lock(&self) -> MutexGuard<'_, BootDir> {
        self.dir.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for BootFiles {
    fn open(&self, from: SocketAddrV4, server: Ipv4Addr, name: &str) -> Option<Content> {
        let bytes = self.lock().open(self.now(), *from.ip(), server, name)?;
        Some(Arc::new(bytes))
    }
}
