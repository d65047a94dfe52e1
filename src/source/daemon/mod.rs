//! Images of the container daemon on this host, Docker or podman, through its API (Docker Engine API 1.24 and later; podman speaks it too).
//!
//! ```text
//! Name ─▶ Daemon::find ─▶ Found ─▶ DaemonLayers ─▶ layers, out of the blob cache
//!           │ inspect: cheap          │ export: begins with the first layer that is opened
//! ```
//! To look for an image costs milliseconds, and little more when a daemon hangs: a name without prefix is asked of the daemon before
//! its registry is.

mod address;
mod api;
mod error;
mod export;
mod layers;
mod name;

use std::time::{Duration, Instant};

pub use self::address::Error as AddressError;
use self::api::{Engine, Place};
pub use self::error::Error;
pub use self::layers::{DaemonLayers, layers, recall};
pub use self::name::{BadName, Name};
use crate::limits;
use crate::units::{Arch, Digest};

/// The container daemons that this host may have, in the order in which they are asked.
#[derive(Debug, Clone)]
pub struct Daemon {
    candidates: Vec<Place>,
    patience: Patience,
}

/// An image that a daemon has.
#[derive(Debug, Clone)]
pub struct Found {
    pub name: Name,
    /// As the daemon identifies it: the digest of its configuration, or in containerd's image store of its manifest or index.
    pub id: Name,
    /// The sha256 of each layer's uncompressed tar, lowest first.
    pub diff_ids: Vec<Digest>,
    pub arch: Arch,
    /// Bytes, as the daemon counts them: an estimate of what an export brings.
    pub size: u64,
    /// Whether there may be images for other platforms under the same ID, and an export can be asked for this one.
    by_platform: bool,
    engine: Engine,
}

/// How long a daemon may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For each answer, when it is only tried whether some daemon has the image.
    pub find: Duration,
    /// For each answer, when the image is to come from a daemon.
    pub require: Duration,
    /// From the request for an export to its first byte.
    pub export: Duration,
    /// For each further piece of an export.
    pub stall: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            find: limits::DAEMON_FIND_TIMEOUT,
            require: limits::DAEMON_ANSWER_TIMEOUT,
            export: limits::DAEMON_EXPORT_TIMEOUT,
            stall: limits::DAEMON_STALL_TIMEOUT,
        }
    }
}

impl Daemon {
    /// The daemon that the environment names, or those at the usual places of this host. Nobody is asked yet.
    ///
    /// # Errors
    /// When what names the daemon cannot be read, or names one that cannot be reached from here.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        Self::with_patience(variable, Patience::default())
    }

    /// [`Daemon::from_env`] with other bounds of time.
    ///
    /// # Errors
    /// As there.
    pub fn with_patience(variable: impl Fn(&str) -> Option<String>, patience: Patience) -> Result<Self, Error> {
        let addresses = address::candidates(variable)?;
        let candidates: Result<Vec<_>, _> =
            addresses.into_iter().map(|address| Place::new(address, patience)).collect();
        Ok(Self { candidates: candidates?, patience })
    }

    /// Looks whether a daemon has the image for this architecture; in passing, for a name that its registry may be asked for instead.
    ///
    /// # Errors
    /// When it could not be found out, which need not stop anybody.
    pub fn find(&self, name: &Name, arch: Arch) -> Result<Option<Found>, Error> {
        // A list of what there is instead takes Docker long, and nobody would read it.
        match self.search(name, arch, self.patience.find, |_| String::new()) {
            Ok(found) => Ok(Some(found).filter(|found| !found.is_by_id())),
            Err(error) if error.is_absence() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Looks for an image that is to come from a daemon and from nowhere else.
    ///
    /// # Errors
    /// No daemon has it, and what each of them says.
    pub fn require(&self, name: &Name, arch: Arch) -> Result<Found, Error> {
        self.search(name, arch, self.patience.require, |engine| engine.names_like(name))
    }

    /// Ends all that is asked or exported, by whatever clone; every later request fails.
    pub fn stop(&self) {
        self.candidates.iter().for_each(|place| place.client.stop());
    }

    /// `there` tells what a daemon has that does not have the image.
    fn search(
        &self,
        name: &Name,
        arch: Arch,
        patience: Duration,
        there: impl Fn(&Engine) -> String,
    ) -> Result<Found, Error> {
        let started = Instant::now();
        let mut errors = Vec::new();
        for place in &self.candidates {
            let Some(engine) = Engine::connect(place, patience).transpose() else { continue };
            let looked = engine.and_then(|engine| {
                let found = engine.look_for(name, arch)?;
                found.ok_or_else(|| engine.not_found(name, there(&engine)))
            });
            match looked {
                Ok(found) => return Ok(found),
                Err(Error::Stopped) => return Err(Error::Stopped),
                Err(error) => errors.push(error),
            }
            // One that hangs is enough: the bound is for all of them.
            if started.elapsed() >= patience {
                break;
            }
        }
        match errors.len() {
            0 => Err(Error::NoDaemon(self.candidates.iter().map(|place| place.shown.clone()).collect())),
            1 => Err(errors.remove(0)),
            _ => Err(Error::Several { name: name.clone(), errors }),
        }
    }
}

impl Found {
    /// Which daemon has it, for messages: `Docker 26.1.5 at /var/run/docker.sock`.
    #[must_use]
    pub fn daemon(&self) -> &str {
        self.engine.shown()
    }

    /// Whether the name was taken for the beginning of an ID, as daemons do with `cafe` when no image has that name.
    fn is_by_id(&self) -> bool {
        let id = self.id.as_str().strip_prefix("sha256:").unwrap_or(self.id.as_str());
        self.name.is_hexadecimal() && id.starts_with(self.name.as_str())
    }
}
