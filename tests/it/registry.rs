//! Pulling images: from Debian's docker-registry, and from one that misbehaves.

pub mod fake;
mod faults;
mod logins;
pub mod proxies;
mod pulls;
pub mod real;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use auroraboot::source::client::Timeouts;
use auroraboot::source::credentials::Keychain;
use auroraboot::source::retry::Backoff;
use auroraboot::source::{
    BlobCache, Client, ImageManifest, Layers, Registry, Settings, fetch, pull, registry, resolve,
};
use auroraboot::units::Arch;
use auroraboot::units::chain;

use real::{Image, TempDir};

/// One machine that pulls: its state directory, network settings and logins.
struct Puller {
    state: TempDir,
    settings: Settings,
    keychain: Keychain,
    arch: Arch,
}

impl Puller {
    fn new(name: &str) -> Self {
        let settings = Settings {
            timeouts: Timeouts { stall: Duration::from_millis(300), ..Timeouts::default() },
            backoff: Backoff {
                wait: Duration::from_millis(1),
                wait_max: Duration::from_millis(50),
                ..Backoff::default()
            },
            ..Settings::default()
        };
        let keychain = Keychain::with_files(vec![PathBuf::from("/nowhere/config.json")]);
        Self { state: TempDir::new(&format!("state-{name}")), settings, keychain, arch: Arch::Amd64 }
    }

    fn cache(&self) -> BlobCache {
        BlobCache::open(self.state.path()).unwrap()
    }

    fn registry(&self, image: &str) -> Registry {
        let client = Client::new(self.settings.clone()).unwrap();
        Registry::new(&client, &self.keychain, image.parse().unwrap()).unwrap()
    }

    fn resolve(&self, image: &str) -> Result<ImageManifest, registry::Error> {
        resolve(&self.registry(image), self.arch, &self.cache())
    }

    /// The line that an operator sees when the image cannot be resolved.
    fn refusal(&self, image: &str) -> String {
        let error = self.resolve(image).expect_err(image);
        let line = chain(&error);
        assert!(!line.contains('\n'), "one line: {line}");
        line
    }

    fn start(&self, image: &str) -> Layers {
        let registry = self.registry(image);
        let cache = self.cache();
        let manifest = resolve(&registry, self.arch, &cache).unwrap_or_else(|error| panic!("{}", chain(&error)));
        fetch(registry, &manifest, &cache, &pull::top_first(&manifest), Box::new(|_, _| ())).unwrap()
    }

    fn pull(&self, image: &str) -> Result<Vec<Vec<u8>>, String> {
        let layers = self.start(image);
        (0..layers.len()).map(|index| read(&layers, index)).collect()
    }

    /// Pulls, and holds every byte against what was pushed.
    fn pull_and_compare(&self, name: &str, image: &Image) {
        let pulled = self.pull(name).unwrap();
        let pushed: Vec<&[u8]> = image.layers.iter().map(|layer| layer.bytes.as_slice()).collect();
        assert!(pulled == pushed, "the layers of {name} differ from what was pushed");
    }
}

fn read(layers: &Layers, index: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    match layers.open(index).unwrap().read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(chain(&error)),
    }
}

fn shared<T>(value: T) -> Arc<T> {
    Arc::new(value)
}
