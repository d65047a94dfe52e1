//! ISOs of releases and by URL: from servers on loopback that play GitHub and misbehave.

mod artifacts;
mod faults;
mod isos;
mod tls;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use auroraboot::source::client::Timeouts;
use auroraboot::source::manifest::digest_of;
use auroraboot::source::release::ReleaseQuery;
use auroraboot::source::retry::Backoff;
use auroraboot::source::secret::Secret;
use auroraboot::source::{Client, FetchedIso, Settings, Token, Transferred, fetch_iso, fetch_release};
use auroraboot::units::{Arch, chain};

use crate::registry::fake::{FakeRegistry, Reply, Request};
use crate::registry::real::{Image, TempDir, noise};

const SIZE: usize = 1_000_000;
const NAME: &str = "kairos-opensuse-leap-v1.5.1-k3sv1.21.14+k3s1";
const DOWNLOADS: &str = "/kairos-io/provider-kairos/releases/download/v1.5.1/";
const API: &str = "/api/v3/repos/kairos-io/provider-kairos/";
const TOKEN: &str = "t0ken-of-mine";

/// A server that has what `handler` answers, and nothing else.
struct Server(FakeRegistry);

impl Server {
    fn start(handler: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let image = Image::new("amd64", Vec::new());
        Self(FakeRegistry::start(&image, move |request, before| {
            Some(handler(request, before).unwrap_or_else(|| Reply::new(404, "Not Found")))
        }))
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.0.port)
    }

    fn requests(&self) -> Vec<Request> {
        self.0.requests()
    }

    fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|request| request.path).collect()
    }

    /// From where on the file at `path` was asked for, each time.
    fn starts(&self, path: &str) -> Vec<Option<usize>> {
        self.requests().iter().filter(|request| request.path == path).map(Request::range_start).collect()
    }
}

fn iso() -> Vec<u8> {
    noise(SIZE, 3)
}

fn hex(bytes: &[u8]) -> String {
    digest_of(bytes).hex()
}

fn iso_path() -> String {
    format!("{DOWNLOADS}{NAME}.iso")
}

/// `HEX NAME`, as elemental wrote it in 2023.
fn checksum_of(bytes: &[u8]) -> String {
    format!("{} {NAME}.iso\n", hex(bytes))
}

/// A file as a good server gives it out: ranges, an entity tag, and `304` for who has it.
fn file(request: &Request, bytes: &[u8]) -> Reply {
    let etag = format!("\"{}\"", &hex(bytes)[..16]);
    if request.header("if-none-match") == Some(&etag) {
        return Reply::new(304, "").header("etag", etag);
    }
    let is_current = request.header("if-range").is_none_or(|wanted| wanted == etag);
    match request.range_start().filter(|_| is_current) {
        Some(from) if from >= bytes.len() => {
            Reply::new(416, "").header("content-range", format!("bytes */{}", bytes.len()))
        }
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[from..]).header("content-range", range).header("etag", etag)
        }
        None => Reply::new(200, bytes).header("etag", etag),
    }
}

fn json(status: u16, text: impl Into<String>) -> Reply {
    Reply::new(status, text.into()).header("content-type", "application/json; charset=utf-8")
}

/// Somebody who wants an ISO: the directory it goes to, network settings, login.
struct Host {
    dir: TempDir,
    settings: Settings,
    token: Option<Token>,
    /// What was told of the download that was last asked for.
    told: Arc<Mutex<Vec<Transferred>>>,
}

impl Host {
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
        Self { dir: TempDir::new(&format!("release-{name}")), settings, token: None, told: Arc::default() }
    }

    fn with_token(name: &str) -> Self {
        let token = Token { secret: Secret::new(TOKEN), variable: "AURORABOOT_GITHUB_TOKEN" };
        Self { token: Some(token), ..Self::new(name) }
    }

    fn iso(&self) -> PathBuf {
        self.dir.path().join("kairos.iso")
    }

    fn part(&self) -> PathBuf {
        self.dir.path().join("kairos.iso.part")
    }

    fn stamp(&self) -> PathBuf {
        self.dir.path().join("stamp")
    }

    fn client(&self) -> Client {
        Client::new(self.settings.clone()).unwrap()
    }

    fn observer(&self) -> impl FnMut(Instant, Transferred) + use<> {
        let told = Arc::clone(&self.told);
        told.lock().unwrap().clear();
        move |_, transferred| told.lock().unwrap().push(transferred)
    }

    fn fetch(&self, query: &ReleaseQuery<'_>) -> Result<FetchedIso, String> {
        let mut observer = self.observer();
        let fetched =
            fetch_release(&self.client(), query, self.token.as_ref(), &self.iso(), &self.stamp(), &mut observer);
        fetched.map_err(|error| one_line(&error))
    }

    /// The usual release from a server.
    fn fetch_from(&self, server: &Server) -> Result<FetchedIso, String> {
        let url = server.url("");
        self.fetch(&ReleaseQuery { github_url: Some(&url), ..query() })
    }

    fn fetch_iso(&self, location: &str) -> Result<FetchedIso, String> {
        let fetched = fetch_iso(&self.client(), location, &self.iso(), &self.stamp(), &mut self.observer());
        fetched.map_err(|error| one_line(&error))
    }

    /// That the ISO is here, and nothing half-made beside it.
    fn has(&self, fetched: &FetchedIso, bytes: &[u8]) {
        assert_eq!((fetched.size, fetched.sha256), (bytes.len() as u64, digest_of(bytes)));
        assert!(std::fs::read(&fetched.path).unwrap() == bytes, "the file differs from what was sent");
        let mut names: Vec<_> =
            std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| name.to_string_lossy().contains("kairos.iso") || name.to_string_lossy().contains("stamp"));
        names.sort();
        assert_eq!(names, ["kairos.iso", "stamp"]);
    }
}

/// Everything that an operator is told is one line, and shows no secret.
fn one_line(error: &dyn std::error::Error) -> String {
    let line = chain(error);
    assert!(!line.contains('\n') && !line.contains(TOKEN) && !line.contains("hunter2"), "{line}");
    line
}

fn query() -> ReleaseQuery<'static> {
    ReleaseQuery {
        repository: "kairos-io/provider-kairos",
        release_version: "v1.5.1",
        artifact_version: "v1.5.1-k3sv1.21.14+k3s1",
        flavor: "opensuse-leap",
        flavor_release: None,
        variant: None,
        platform: Arch::Amd64,
        model: None,
        github_url: None,
    }
}
