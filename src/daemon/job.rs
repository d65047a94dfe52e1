//! What every step of a preparation needs to know.

use crate::config::Config;
use crate::daemon::check::menu_options;
use crate::daemon::places::{PRODUCT, Places};
use crate::daemon::stop::Stop;
use crate::media;
use crate::source::daemon::{self, Daemon};
use crate::source::retry as source;
use crate::source::{BlobCache, Client, Settings, cache, client};
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

/// The wishes of one run, where what is made of them goes, and how it is ended.
#[derive(Debug, Clone, Copy)]
pub struct Job<'a> {
    pub config: &'a Config,
    pub state_dir: &'a Path,
    pub places: &'a Places,
    pub stop: &'a Stop,
}

impl<'a> Job<'a> {
    /// Whoever asks a server for this run; it ends when the run does.
    ///
    /// # Errors
    /// `ca_file` or a proxy of the environment cannot be used.
    pub fn client(&self) -> Result<Client, client::Error> {
        let client = Client::new(Settings {
            ca_file: (*self.config.ca_file).clone(),
            offline: *self.config.offline,
            ..Settings::from_env()
        })?;
        self.ends(&client);
        Ok(client)
    }

    /// The same for registries, which may be allowed to be insecure.
    ///
    /// # Errors
    /// As [`Job::client`].
    pub fn registry_client(&self) -> Result<Client, client::Error> {
        Client::new(Settings {
            allow_insecure: *self.config.allow_insecure_registries,
            ca_file: (*self.config.ca_file).clone(),
            offline: *self.config.offline,
            ..Settings::from_env()
        })
    }

    /// Ends a client's requests when the run is to end.
    pub fn ends(&self, client: &Client) {
        let client = client.clone();
        self.stop.tell(move || client.stop());
    }

    /// The same wish to end, for work that is no request.
    #[must_use]
    pub fn source_stop(&self) -> source::Stop {
        let stop = source::Stop::default();
        let asked = stop.clone();
        self.stop.tell(move || asked.stop());
        stop
    }

    /// The container daemons of this host. Offline there are only those behind a socket.
    ///
    /// # Errors
    /// What names the daemon cannot be read, or names one that cannot be reached.
    pub fn daemon(&self) -> Result<Option<Daemon>, daemon::Error> {
        let variable = |name: &str| std::env::var(name).ok();
        if *self.config.offline && variable("DOCKER_HOST").is_some_and(|host| host.starts_with("tcp:")) {
            return Ok(None);
        }
        let daemon = Daemon::from_env(variable)?;
        let asked = daemon.clone();
        self.stop.tell(move || asked.stop());
        Ok(Some(daemon))
    }

    /// # Errors
    /// The cache's directory cannot be made.
    pub fn cache(&self) -> Result<BlobCache, cache::Error> {
        BlobCache::open(self.state_dir)
    }

    /// How the ISO of a container image is made.
    #[must_use]
    pub fn media_options(&self) -> media::Options<'a> {
        media::Options {
            directory: &self.places.directory,
            name: &self.places.name,
            checksum_file: self.places.is_public,
            stamp: &self.places.stamp,
            product: PRODUCT,
            menu: menu_options(self.config),
            overlay_rootfs: self.config.iso.overlay_rootfs.as_deref(),
            workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}
