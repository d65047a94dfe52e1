//! ISOs of GitHub releases: which artifact is meant, whether it exists, and its download.
//!
//! The artifact is looked for under every name that it may have, where everybody downloads it: that needs neither API nor token.
//! Only when it is under none of them the API is asked: for the artifacts of a private repository, and for what to tell the operator.

mod github;
mod names;
mod version;

use std::path::Path;
use std::time::Duration;

use super::checksum::{self, is_page};
use super::client::{self, Client, Header, Trust};
use super::closest;
use super::fetch::{self, FetchedIso, Place, Progress, Unreachable, Wanted};
use super::retry::is_transient_status;
use super::secret::Secret;
use super::stamp::Stamp;
use super::url::Url;
use crate::units::{Arch, Digest, chain};
use github::{Answer, Api, Asset, Site};

pub use github::Error as ApiError;

/// A release as an operator names it.
#[derive(Debug, Clone, Copy)]
pub struct ReleaseQuery<'a> {
    /// `OWNER/NAME`.
    pub repository: &'a str,
    /// The tag.
    pub release_version: &'a str,
    pub artifact_version: &'a str,
    pub flavor: &'a str,
    pub flavor_release: Option<&'a str>,
    /// `core` or `standard`; by version when not given.
    pub variant: Option<&'a str>,
    pub platform: Arch,
    /// `generic` when not given.
    pub model: Option<&'a str>,
    /// `https://github.com` when not given.
    pub github_url: Option<&'a str>,
}

/// A login for GitHub, and the variable of the environment that it came from.
#[derive(Debug, Clone)]
pub struct Token {
    pub secret: Secret,
    pub variable: &'static str,
}

impl Token {
    /// Reads the variables through `variable`. `AURORABOOT_GITHUB_TOKEN` is for whatever `github_url` names. `GITHUB_TOKEN` and
    /// `GH_TOKEN` were set for somebody else: they go to github.com only, or to the server that runs the workflow
    /// (`GITHUB_SERVER_URL`).
    #[must_use]
    pub fn from_env(variable: impl Fn(&str) -> Option<String>, github_url: Option<&str>) -> Option<Self> {
        let read = |name: &'static str| {
            let text = variable(name).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())?;
            Some(Self { secret: Secret::new(text), variable: name })
        };
        let authority = |text: Option<&str>| Some(Site::new(text).ok()?.web.authority.to_ascii_lowercase());
        let ours = authority(github_url)?;
        let server = variable("GITHUB_SERVER_URL");
        let theirs = [authority(None), server.and_then(|server| authority(Some(&server)))];
        let is_theirs = theirs.into_iter().flatten().any(|theirs| theirs == ours);
        read("AURORABOOT_GITHUB_TOKEN")
            .or_else(|| ["GITHUB_TOKEN", "GH_TOKEN"].into_iter().filter(|_| is_theirs).find_map(read))
    }
}

/// What of a [`ReleaseQuery`] cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {value:?} is not {expected}")]
pub struct BadQuery {
    pub key: &'static str,
    pub value: String,
    pub expected: &'static str,
}

/// Why a release's ISO could not be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Query(#[from] BadQuery),
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    #[error("release {release} of {repository} has no {wanted}; {there}{hint}")]
    NoArtifact { repository: String, release: String, wanted: String, there: String, hint: &'static str },
    #[error("{repository} has no release {release}; {there}")]
    NoRelease { repository: String, release: String, there: String },
    #[error("there is no repository {repository} at {host}, or {hint}")]
    NoRepository { repository: String, host: String, hint: String },
    #[error(
        "release {release} of {repository} has no {wanted} that can be downloaded without a login, and what there is cannot be listed"
    )]
    NotListed { repository: String, release: String, wanted: String, source: Box<ApiError> },
}

impl Unreachable for Error {
    fn is_unreachable(&self) -> bool {
        match self {
            Self::Fetch(source) => source.is_unreachable(),
            Self::NotListed { source, .. } => source.is_unreachable(),
            _ => false,
        }
    }

    fn is_offline(&self) -> bool {
        matches!(self, Self::Fetch(source) if source.is_offline())
    }
}

impl ReleaseQuery<'_> {
    /// What can be told without a network.
    ///
    /// # Errors
    /// The first key whose value cannot be part of a release's address.
    pub fn check(&self) -> Result<(), BadQuery> {
        let is_part = |text: &str| {
            let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"._+~-".contains(&byte);
            !text.is_empty() && text != "." && text != ".." && text.bytes().all(is_good)
        };
        let bad = |key, value: &str, expected| Err(BadQuery { key, value: value.to_owned(), expected });
        if !self.repository.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name)) {
            return bad("repository", self.repository, "OWNER/NAME, such as kairos-io/kairos");
        }
        let parts = [
            ("release_version", Some(self.release_version)),
            ("artifact_version", Some(self.artifact_version)),
            ("flavor", Some(self.flavor)),
            ("flavor_release", self.flavor_release),
            ("variant", self.variant),
            ("model", self.model),
        ];
        let wrong = parts.into_iter().find_map(|(key, value)| Some((key, value.filter(|value| !is_part(value))?)));
        if let Some((key, value)) = wrong {
            return bad(key, value, "part of a release's name: letters, digits and ._+~- only");
        }
        Site::new(self.github_url).map(|_| ())
    }
}

/// Brings the release's ISO to `into`. `stamp` is where it is noted what `into` holds, so that a later run need not fetch it again. The
/// directories of both exist.
///
/// # Errors
/// See [`Error`]; `into` is then as it was.
pub fn fetch_release(
    client: &Client,
    query: &ReleaseQuery<'_>,
    token: Option<&Token>,
    into: &Path,
    stamp: &Path,
    progress: Progress<'_>,
) -> Result<FetchedIso, Error> {
    query.check()?;
    let site = Site::new(query.github_url)?;
    let names = names::candidates(query);
    let key = format!("{} {}", site.download(query, ""), names.join(" "));
    let place = Place { into, stamp, stop: client.stopper() };
    let search = Search { client, query, token, site, names, key: &key, place };
    place.or_earlier(&key, search.fetch(progress))
}

/// What it takes to find an artifact.
struct Search<'a> {
    client: &'a Client,
    query: &'a ReleaseQuery<'a>,
    token: Option<&'a Token>,
    site: Site,
    /// Without suffixes, likeliest first.
    names: Vec<String>,
    key: &'a str,
    place: Place<'a>,
}

/// An artifact that exists.
struct Artifact {
    name: String,
    url: Url,
    /// For an asset that the API gives out.
    login: Option<Option<Secret>>,
    published: Option<Digest>,
}

impl Search<'_> {
    fn fetch(&self, progress: Progress<'_>) -> Result<FetchedIso, Error> {
        let artifact = match self.find_download()? {
            Some(artifact) if artifact.published.is_none() => {
                Artifact { published: self.digest_of_github(&artifact.name), ..artifact }
            }
            Some(artifact) => artifact,
            None => self.find_asset()?,
        };
        if self.names.first() != Some(&artifact.name) {
            log::info!("Release: it is {}.iso", artifact.name);
        }
        let headers = artifact.headers();
        let wanted = Wanted {
            key: self.key,
            artifact: Some(&artifact.name),
            url: &artifact.url,
            headers: &headers,
            published: artifact.published,
        };
        Ok(self.place.fetch(self.client, &wanted, progress)?)
    }

    /// The artifact where everybody downloads it; what an earlier run found is looked for first.
    fn find_download(&self) -> Result<Option<Artifact>, fetch::Error> {
        let earlier = self.place.earlier(self.key).and_then(|Stamp { artifact, .. }| artifact);
        let patience = self.place.patience(self.key);
        let others = self.names.iter().filter(|name| Some(*name) != earlier.as_ref());
        for name in earlier.iter().chain(others) {
            let url = self.site.download(self.query, &format!("{name}.iso"));
            let beside = Url { path: format!("{}.sha256", url.path), ..url.clone() };
            let published = checksum::ask(self.client, &beside, &[], patience, &format!("{name}.iso"))?;
            if published.is_some() || self.exists(&url, patience)? {
                return Ok(Some(Artifact { name: name.clone(), url, login: None, published }));
            }
        }
        Ok(None)
    }

    fn exists(&self, url: &Url, patience: Option<Duration>) -> Result<bool, client::Error> {
        self.client.retrying_for(patience, || {
            let response = self.client.get(url, &[("range", "bytes=0-0")], Trust::Verified)?;
            match response.status() {
                200 | 206 => Ok(!is_page(response.header("content-type"))),
                status if is_transient_status(status) => {
                    Err((client::Error::Status { url: url.to_string(), status }, response.retry_after()))
                }
                _ => Ok(false),
            }
        })
    }

    /// What GitHub calculated itself, where no checksum is published. It is asked once: a server without an API is none the worse for it.
    fn digest_of_github(&self, name: &str) -> Option<Digest> {
        match self.api(Some(Duration::ZERO)).ask(self.query.release_version) {
            Ok(Answer::Assets(assets)) => assets.iter().find(|asset| asset.name == format!("{name}.iso"))?.digest(),
            Ok(_) => None,
            Err(error) => {
                log::debug!("{}", chain(&error));
                None
            }
        }
    }

    fn api(&self, patience: Option<Duration>) -> Api<'_> {
        Api { client: self.client, site: &self.site, repository: self.query.repository, token: self.token, patience }
    }

    /// The artifact that the API gives out, or what is wrong with its name.
    fn find_asset(&self) -> Result<Artifact, Error> {
        let ReleaseQuery { repository, release_version, .. } = *self.query;
        let (owned_repository, release) = (repository.to_owned(), release_version.to_owned());
        let api = self.api(None);
        match api.ask(release_version) {
            Ok(Answer::Assets(assets)) => self.choose(&api, &assets),
            Ok(Answer::NoRelease(tags)) => {
                let there = if tags.is_empty() {
                    "it has none at all".to_owned()
                } else {
                    format!("its tags are {}", closest::list(tags, release_version))
                };
                Err(Error::NoRelease { repository: owned_repository, release, there })
            }
            Ok(Answer::NoRepository) => {
                let hint = match self.token {
                    None => "it is private: set AURORABOOT_GITHUB_TOKEN".to_owned(),
                    Some(token) => format!("the token of {} may not see it", token.variable),
                };
                Err(Error::NoRepository { repository: owned_repository, host: self.site.web.authority.clone(), hint })
            }
            Err(source) => {
                let (wanted, source) = (self.wanted(), Box::new(source));
                Err(Error::NotListed { repository: owned_repository, release, wanted, source })
            }
        }
    }

    fn choose(&self, api: &Api<'_>, assets: &[Asset]) -> Result<Artifact, Error> {
        let named = |file: &str| assets.iter().find(|asset| asset.name == file);
        let found = self.names.iter().find_map(|name| Some((name, named(&format!("{name}.iso"))?)));
        let Some((name, asset)) = found else { return Err(self.no_artifact(assets)) };
        let mut artifact = Artifact {
            name: name.clone(),
            url: api.asset(asset),
            login: Some(api.authorization().map(Secret::new)),
            published: asset.digest(),
        };
        if let Some(beside) = named(&format!("{name}.iso.sha256")) {
            let asked = checksum::ask(self.client, &api.asset(beside), &artifact.headers(), None, &asset.name);
            artifact.published = asked.map_err(fetch::Error::from)?.or(artifact.published);
        }
        Ok(artifact)
    }

    fn no_artifact(&self, assets: &[Asset]) -> Error {
        let isos: Vec<String> =
            assets.iter().map(|asset| asset.name.clone()).filter(|name| name.ends_with(".iso")).collect();
        let wanted = self.names.first().map(|name| format!("{name}.iso")).unwrap_or_default();
        let there = match (isos.len(), assets.len()) {
            (0, 0) => "it has no files at all".to_owned(),
            (0, files) => format!("none of its {files} files is an ISO"),
            _ => format!("its ISOs are {}", closest::list(isos, &wanted)),
        };
        let hint = match self.query.flavor_release {
            None if names::want_flavor_release(self.query) => "; flavor_release is not set",
            _ => "",
        };
        Error::NoArtifact {
            repository: self.query.repository.to_owned(),
            release: self.query.release_version.to_owned(),
            wanted: self.wanted(),
            there,
            hint,
        }
    }

    /// All names that were tried, for a message.
    fn wanted(&self) -> String {
        let files: Vec<String> = self.names.iter().map(|name| format!("{name}.iso")).collect();
        files.join(" or ")
    }
}

impl Artifact {
    fn headers(&self) -> Vec<Header<'_>> {
        let Some(login) = &self.login else { return Vec::new() };
        let accept = ("accept", "application/octet-stream");
        std::iter::once(accept).chain(login.as_ref().map(|login| ("authorization", login.expose()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUERY: ReleaseQuery<'static> = ReleaseQuery {
        repository: "kairos-io/kairos",
        release_version: "v1.5.1",
        artifact_version: "v1.5.1-k3sv1.21.14+k3s1",
        flavor: "opensuse-leap",
        flavor_release: None,
        variant: None,
        platform: Arch::Amd64,
        model: None,
        github_url: None,
    };

    #[test]
    fn addresses_keep_their_plus_sign() {
        let site = Site::new(None).unwrap();
        assert_eq!(
            site.download(&QUERY, &format!("{}.iso", names::candidates(&QUERY)[0])).target(),
            "https://github.com/kairos-io/kairos/releases/download/v1.5.1/kairos-opensuse-leap-v1.5.1-k3sv1.21.14+k3s1.iso"
        );
    }

    #[test]
    fn what_would_leave_the_address_is_refused() {
        assert_eq!(QUERY.check(), Ok(()));
        for (query, key) in [
            (ReleaseQuery { repository: "kairos", ..QUERY }, "repository"),
            (ReleaseQuery { repository: "a/b/c", ..QUERY }, "repository"),
            (ReleaseQuery { repository: "../x", ..QUERY }, "repository"),
            (ReleaseQuery { repository: "https://github.com/kairos-io/kairos", ..QUERY }, "repository"),
            (ReleaseQuery { release_version: "..", ..QUERY }, "release_version"),
            (ReleaseQuery { artifact_version: "v1/../..", ..QUERY }, "artifact_version"),
            (ReleaseQuery { flavor: "a b", ..QUERY }, "flavor"),
            (ReleaseQuery { flavor_release: Some(""), ..QUERY }, "flavor_release"),
            (ReleaseQuery { variant: Some("core\r\nX: y"), ..QUERY }, "variant"),
            (ReleaseQuery { model: Some("%2e"), ..QUERY }, "model"),
            (ReleaseQuery { github_url: Some("github.com"), ..QUERY }, "github_url"),
        ] {
            assert_eq!(query.check().unwrap_err().key, key, "{query:?}");
        }
    }

    #[test]
    fn a_token_goes_where_it_is_meant_for() {
        let enterprise = Some("https://ghe.example");
        let all = ["AURORABOOT_GITHUB_TOKEN", "GITHUB_TOKEN", "GH_TOKEN"];
        for (set, github_url, found) in [
            (&all[..], None, Some("AURORABOOT_GITHUB_TOKEN")),
            (&all[1..], None, Some("GITHUB_TOKEN")),
            (&all[2..], Some("https://github.com/"), Some("GH_TOKEN")),
            (&[], None, None),
            (&all, enterprise, Some("AURORABOOT_GITHUB_TOKEN")),
            (&all[1..], enterprise, None),
            (&["GH_TOKEN", "GITHUB_SERVER_URL"], enterprise, Some("GH_TOKEN")),
            (&["GH_TOKEN", "GITHUB_SERVER_URL"], Some("https://mirror.example"), None),
        ] {
            let variable = |name: &str| {
                let value = if name == "GITHUB_SERVER_URL" { "https://GHE.example/" } else { " t0ken\n" };
                set.contains(&name).then(|| value.to_owned())
            };
            let token = Token::from_env(variable, github_url);
            assert_eq!(token.as_ref().map(|token| token.variable), found, "{set:?} {github_url:?}");
            assert!(
                token.is_none_or(|token| token.secret.expose() == "t0ken" && !format!("{token:?}").contains("t0ken"))
            );
        }
        assert!(Token::from_env(|name| (name == "GH_TOKEN").then(String::new), None).is_none(), "empty is unset");
    }
}
