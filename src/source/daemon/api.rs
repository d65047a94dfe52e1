//! The talk with one daemon: who it is, what it has, and the export of an image.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::address::Address;
use super::{Error, Found, Name, Patience};
use crate::limits;
use crate::rootfs::shown;
use crate::source::client::{self, Body, Client, Response, Settings, Timeouts, Trust};
use crate::source::closest;
use crate::source::proxy::Proxies;
use crate::source::url::{Scheme, Url, percent_encode};
use crate::units::{Arch, Digest};

/// The versions of the API from which on an export and an inspection can be asked for one platform of several.
const EXPORTS_BY_PLATFORM: Version = Version(1, 48);
const INSPECTS_BY_PLATFORM: Version = Version(1, 49);

/// Where a daemon may be.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub client: Client,
    base: Url,
    /// The path of the socket, or host and port.
    pub shown: String,
}

impl Place {
    pub fn new(address: Address, patience: Patience) -> Result<Self, Error> {
        // On a socket the host of the address is for the looks.
        let (socket, authority, shown) = match address {
            Address::Socket(path) => (Some(path.clone()), "localhost".to_owned(), path.display().to_string()),
            Address::Tcp(authority) => (None, authority.clone(), authority),
        };
        let timeouts = Timeouts { response: patience.export, stall: patience.stall, ..Timeouts::default() };
        let settings = Settings { socket, timeouts, proxies: Proxies::default(), ..Settings::default() };
        let client = Client::new(settings).map_err(|source| Error::Client { place: shown.clone(), source })?;
        Ok(Self { client, base: Url { scheme: Scheme::Http, authority, path: String::new(), userinfo: None }, shown })
    }
}

/// A version of the API, `major.minor`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version(u32, u32);

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let (major, minor) = text.split_once('.')?;
        Some(Self(major.parse().ok()?, minor.parse().ok()?))
    }
}

/// A daemon that answers.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    place: Place,
    patience: Duration,
    version: Option<Version>,
    /// The program that operators use with it.
    tool: &'static str,
    shown: String,
}

#[derive(Deserialize)]
struct Inspected {
    #[serde(rename = "Id")]
    id: String,
    #[serde(rename = "Architecture", default)]
    architecture: String,
    #[serde(rename = "Os", default)]
    os: String,
    #[serde(rename = "Size", default)]
    size: i64,
    #[serde(rename = "RootFS", default)]
    rootfs: RootFs,
    /// Only containerd's image store, which may hold several platforms under one name, has one.
    #[serde(rename = "Descriptor", default)]
    descriptor: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize, Default)]
struct RootFs {
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Listed {
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
}

/// How Docker and podman say what is wrong.
#[derive(Deserialize)]
struct Complaint {
    message: String,
}

impl Engine {
    /// Finds out who is there; `None` when nobody is.
    pub fn connect(place: &Place, patience: Duration) -> Result<Option<Self>, Error> {
        let url = Url { path: "/_ping".to_owned(), ..place.base.clone() };
        let response = match place.client.within(patience).get(&url, &[], Trust::Verified) {
            Ok(response) => response,
            Err(source) => return Error::of_talk(&place.shown, place.shown.clone(), source).map_or(Ok(None), Err),
        };
        let is_podman = response.header("libpod-api-version").is_some();
        let (kind, tool) = if is_podman { ("podman", "podman") } else { ("Docker", "docker") };
        // `Docker/26.1.5 (linux)`, `Libpod/4.3.1 (linux)`
        let server = response.header("server").and_then(|server| server.split(' ').next()?.split_once('/'));
        let release = server.map(|(_, release)| format!(" {}", shown(release))).unwrap_or_default();
        Ok(Some(Self {
            version: response.header("api-version").and_then(Version::parse),
            shown: format!("{kind}{release} at {}", place.shown),
            place: place.clone(),
            patience,
            tool,
        }))
    }

    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Looks for an image for one architecture; `None` when there is none of that name.
    pub fn look_for(&self, name: &Name, arch: Arch) -> Result<Option<Found>, Error> {
        let Some(mut image) = self.inspect(name, None)? else { return Ok(None) };
        if !image.is_for(arch) && self.version >= Some(INSPECTS_BY_PLATFORM) {
            // Containerd's image store keeps several platforms under one name and one ID; the ID of a platform alone is exported by none.
            let other = self.inspect(name, Some(arch))?.filter(|other| other.is_for(arch));
            image = other.map(|other| Inspected { id: image.id.clone(), ..other }).unwrap_or(image);
        }
        self.found(name.clone(), arch, image).map(Some)
    }

    fn found(&self, name: Name, arch: Arch, image: Inspected) -> Result<Found, Error> {
        let (daemon, tool) = (self.shown.clone(), self.tool);
        if !image.is_for(arch) {
            let actual = format!("{}/{}", shown(&image.os), shown(&image.architecture));
            return Err(Error::OtherArch { daemon, tool, name, actual, wanted: arch });
        }
        let layers = image.rootfs.layers.unwrap_or_default();
        if layers.is_empty() {
            return Err(Error::NoLayers { daemon, tool, name });
        }
        if layers.len() > limits::LAYERS_MAX {
            return Err(Error::Layers { daemon, name, count: layers.len() });
        }
        let digest = |text: &String| text.parse().map_err(|_| format!("{:?} is no digest", shown(text)));
        let diff_ids: Result<Vec<Digest>, String> = layers.iter().map(digest).collect();
        // The ID goes into the path of the export.
        let id = image.id.parse::<Name>().map_err(|error| error.to_string());
        match (diff_ids, id) {
            (Ok(diff_ids), Ok(id)) => Ok(Found {
                id,
                diff_ids,
                arch,
                size: u64::try_from(image.size).unwrap_or_default(),
                by_platform: image.descriptor.is_some() && self.version >= Some(EXPORTS_BY_PLATFORM),
                engine: self.clone(),
                name,
            }),
            (Err(what), _) | (_, Err(what)) => Err(Error::Description { daemon, name, what }),
        }
    }

    fn inspect(&self, name: &Name, platform: Option<Arch>) -> Result<Option<Inspected>, Error> {
        let query = platform_query(platform);
        let response = self.ask(&format!("/images/{}/json{query}", name.path()))?;
        match response.status() {
            200 => {
                let understood = self.read::<Inspected>(response)?;
                let what = |source: serde_json::Error| Error::Description {
                    daemon: self.shown.clone(),
                    name: name.clone(),
                    what: source.to_string(),
                };
                understood.map(Some).map_err(what)
            }
            404 => match self.complaint(response) {
                Some(_) => Ok(None),
                // A web server that knows nothing of images.
                None => Err(Error::NotADaemon { place: self.place.shown.clone() }),
            },
            _ => Err(self.refused(response)),
        }
    }

    /// It has no image of that name.
    pub fn not_found(&self, name: &Name, there: String) -> Error {
        Error::NotFound { daemon: self.shown.clone(), tool: self.tool, name: name.clone(), there }
    }

    /// The names of its images, the nearest to one that it does not have first; none when it does not tell.
    pub fn names_like(&self, name: &Name) -> String {
        let response = self.ask("/images/json").ok().filter(|response| response.status() == 200);
        let listed = response.and_then(|response| self.read::<Vec<Listed>>(response).ok()?.ok()).unwrap_or_default();
        let tags = listed.into_iter().filter_map(|image| image.tags).flatten();
        // How Docker lists an image without a name.
        closest::list(tags.filter(|tag| tag != "<none>:<none>").collect(), name.as_str())
    }

    /// Starts the export of an image; what comes is an archive as `docker save` writes it.
    pub fn export(&self, found: &Found) -> Result<Body, Error> {
        // By its ID, for the name may mean another image by now.
        let query = platform_query(Some(found.arch).filter(|_| found.by_platform));
        let url = self.url(&format!("/images/{}/get{query}", found.id.path()));
        let response = self.place.client.get(&url, &[], Trust::Verified).map_err(|source| self.talk(source))?;
        match response.status() {
            200 => Ok(response.into_body()),
            _ => {
                let (daemon, name, status) = (self.shown.clone(), found.name.clone(), response.status());
                let message = self.complaint(response).unwrap_or_else(|| format!("it answers {status}"));
                // Docker's own store answers 500 for an ID that it does not have.
                let is_gone = self.inspect(&found.id, None).is_ok_and(|image| image.is_none());
                Err(if is_gone { Error::Gone { daemon, name } } else { Error::ExportRefused { daemon, name, message } })
            }
        }
    }

    pub fn client(&self) -> &Client {
        &self.place.client
    }

    /// What it means that the talk broke off.
    pub fn talk(&self, source: client::Error) -> Error {
        let error = Error::of_talk(&self.place.shown, self.shown.clone(), source);
        error.unwrap_or_else(|| Error::Refused(self.place.shown.clone()))
    }

    fn url(&self, path: &str) -> Url {
        // Its own version is one that a daemon always speaks; without any it means the same, and is said to go away.
        let version = self.version.map(|Version(major, minor)| format!("/v{major}.{minor}")).unwrap_or_default();
        Url { path: format!("{version}{path}"), ..self.place.base.clone() }
    }

    fn ask(&self, path: &str) -> Result<Response, Error> {
        let client = self.place.client.within(self.patience);
        client.get(&self.url(path), &[], Trust::Verified).map_err(|source| self.talk(source))
    }

    fn read<T: DeserializeOwned>(&self, response: Response) -> Result<serde_json::Result<T>, Error> {
        let bytes = response.read_to_vec(limits::DAEMON_ANSWER_BYTES_MAX).map_err(|source| self.talk(source))?;
        Ok(serde_json::from_slice(&bytes))
    }

    fn complaint(&self, response: Response) -> Option<String> {
        let complaint = self.read::<Complaint>(response).ok()?.ok()?;
        Some(shown(complaint.message.trim()))
    }

    fn refused(&self, response: Response) -> Error {
        let status = response.status();
        let message = self.complaint(response).unwrap_or_default();
        Error::Status { daemon: self.shown.clone(), status, message }
    }
}

impl Inspected {
    fn is_for(&self, arch: Arch) -> bool {
        self.architecture == arch.name() && matches!(self.os.as_str(), "linux" | "")
    }
}

/// Asks for one platform of several.
fn platform_query(arch: Option<Arch>) -> String {
    let platform = arch.map(|arch| percent_encode(&format!(r#"{{"os":"linux","architecture":"{arch}"}}"#)));
    platform.map(|platform| format!("?platform={platform}")).unwrap_or_default()
}
