//! GitHub as far as releases need it: where downloads and the API are, and what the API says of a release.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::{BadQuery, ReleaseQuery, Token};
use crate::limits;
use crate::rootfs::shown;
use crate::source::client::{self, Client, Header, Response, Transient, Trust};
use crate::source::retry::is_transient_status;
use crate::source::url::Url;
use crate::units::Digest;

pub(super) const GITHUB: &str = "https://github.com";
/// Assets embedded in a release may be its first page only; that has at least so many.
const ASSETS_EMBEDDED_SURELY: usize = 30;
const PAGE: usize = 100;

/// Why the API does not say what there is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Client(#[from] client::Error),
    #[error("{host} refuses the token of {variable}: it is wrong or has expired")]
    TokenRefused { host: String, variable: &'static str },
    #[error("{host} answers no more requests for now{}; {hint}", after(*.wait))]
    RateLimited { host: String, wait: Option<Duration>, hint: &'static str },
    #[error("{host} refuses to tell ({status}): {reason}")]
    Refused { host: String, status: u16, reason: String },
    #[error("{0} has no GitHub API")]
    NoApi(String),
}

/// `wait` in words, and how late that is: whoever reads the line later wants to know too.
fn after(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(" (again in {} min)", wait.as_secs().div_ceil(60))).unwrap_or_default()
}

impl Error {
    /// Whether it says nothing of the release; a limit of requests does not either.
    pub(super) fn is_unreachable(&self) -> bool {
        match self {
            Self::Client(source) => source.is_unreachable(),
            Self::RateLimited { .. } => true,
            _ => false,
        }
    }
}

impl Transient for Error {
    fn is_transient(&self) -> bool {
        matches!(self, Self::Client(source) if source.is_transient())
    }
}

impl From<Error> for (Error, Option<Duration>) {
    fn from(error: Error) -> Self {
        (error, None)
    }
}

/// GitHub itself, an Enterprise server, or a mirror of the downloads.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub web: Url,
    pub api: Url,
}

impl Site {
    /// `https://github.com` has its API at a host of its own, and so has `SUBDOMAIN.ghe.com` (GitHub Enterprise Cloud with data
    /// residency); an Enterprise server has it below `/api/v3`.
    pub fn new(github_url: Option<&str>) -> Result<Self, BadQuery> {
        let text = github_url.unwrap_or(GITHUB);
        let bad = || BadQuery {
            key: "github_url",
            value: text.split('@').next_back().unwrap_or_default().to_owned(),
            expected: "an address such as https://github.example.com",
        };
        let mut web: Url = text.parse().map_err(|_| bad())?;
        if web.path.contains('?') {
            return Err(bad());
        }
        web.path.truncate(web.path.trim_end_matches('/').len());
        let host = web.authority.to_ascii_lowercase();
        let api = if host == "github.com" || host.ends_with(".ghe.com") {
            Url { authority: format!("api.{host}"), path: String::new(), ..web.clone() }
        } else {
            Url { path: format!("{}/api/v3", web.path), ..web.clone() }
        };
        Ok(Self { web, api })
    }

    /// Where everybody downloads an artifact of a release.
    pub fn download(&self, query: &ReleaseQuery<'_>, file: &str) -> Url {
        let path = format!("{}/{}/releases/download/{}/{file}", self.web.path, query.repository, query.release_version);
        Url { path, ..self.web.clone() }
    }
}

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Asset {
    pub id: u64,
    pub name: String,
    /// `sha256:…`, which GitHub itself calculates of what is uploaded since 2025.
    #[serde(default)]
    digest: Option<String>,
    /// `uploaded`, or that of a file which is not whole yet.
    #[serde(default)]
    state: Option<String>,
}

impl Asset {
    pub fn digest(&self) -> Option<Digest> {
        self.digest.as_deref()?.parse().ok()
    }
}

/// What there is under the names of a query.
#[derive(Debug)]
pub(super) enum Answer {
    Assets(Vec<Asset>),
    /// No such release, but these tags.
    NoRelease(Vec<String>),
    NoRepository,
}

/// The conversation with the API about one repository.
pub(super) struct Api<'a> {
    pub client: &'a Client,
    pub site: &'a Site,
    pub repository: &'a str,
    pub token: Option<&'a Token>,
    /// See [`Client::retrying_for`].
    pub patience: Option<Duration>,
}

impl Api<'_> {
    /// What there is in release `tag`.
    pub fn ask(&self, tag: &str) -> Result<Answer, Error> {
        #[derive(Deserialize)]
        struct Release {
            id: u64,
            #[serde(default)]
            assets: Vec<Asset>,
        }
        #[derive(Deserialize)]
        struct Tag {
            name: String,
        }
        if let Some(release) = self.get::<Release>(&format!("releases/tags/{tag}"))? {
            let is_whole = release.assets.len() < ASSETS_EMBEDDED_SURELY;
            let assets =
                if is_whole { Some(release.assets) } else { self.pages(&format!("releases/{}/assets", release.id))? };
            let mut assets = assets.unwrap_or_default();
            assets.retain(|asset| asset.state.as_deref().is_none_or(|state| state == "uploaded"));
            return Ok(Answer::Assets(assets));
        }
        // Not `releases`: that brings every asset of each of them, 1 MB per release of Kairos.
        let tags = self.pages::<Tag>("tags")?;
        Ok(tags.map_or(Answer::NoRepository, |tags| Answer::NoRelease(tags.into_iter().map(|tag| tag.name).collect())))
    }

    /// Where the API gives out an asset, also of a private repository.
    pub fn asset(&self, asset: &Asset) -> Url {
        self.url(&format!("releases/assets/{}", asset.id))
    }

    /// The login, where it may be sent.
    pub fn authorization(&self) -> Option<String> {
        let is_safe = self.site.api.scheme == crate::source::url::Scheme::Https
            || self.client.may_send_secrets_plainly(&self.site.api);
        let token = self.token.filter(|_| is_safe && self.site.api.userinfo.is_none())?;
        Some(format!("Bearer {}", token.secret.expose()))
    }

    fn url(&self, path: &str) -> Url {
        Url { path: format!("{}/repos/{}/{path}", self.site.api.path, self.repository), ..self.site.api.clone() }
    }

    fn pages<T: DeserializeOwned>(&self, path: &str) -> Result<Option<Vec<T>>, Error> {
        let mut all = Vec::new();
        for page in 1..=limits::GITHUB_PAGES_MAX {
            let Some(entries) = self.get::<Vec<T>>(&format!("{path}?per_page={PAGE}&page={page}"))? else {
                return Ok(None);
            };
            let is_last = entries.len() < PAGE;
            all.extend(entries);
            if is_last {
                break;
            }
        }
        Ok(Some(all))
    }

    /// A document, or `None` when there is none of that name.
    fn get<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Error> {
        let url = self.url(path);
        let authorization = self.authorization();
        let mut headers: Vec<Header<'_>> = vec![("accept", "application/vnd.github+json")];
        headers.extend(authorization.as_deref().map(|value| ("authorization", value)));
        self.client.retrying_for(self.patience, || {
            let response = self.client.get(&url, &headers, Trust::Verified).map_err(Error::from)?;
            match response.status() {
                200 => {
                    let body = response.read_to_vec(limits::GITHUB_ANSWER_BYTES_MAX).map_err(Error::from)?;
                    Ok(Some(serde_json::from_slice(&body).map_err(|_| self.no_api())?))
                }
                404 if is_json(&response) => Ok(None),
                404 => Err(self.no_api().into()),
                _ => Err(self.refusal(response)),
            }
        })
    }

    fn refusal(&self, response: Response) -> (Error, Option<Duration>) {
        let (host, status) = (self.site.api.authority.clone(), response.status());
        match (status, self.token) {
            (401, Some(token)) if self.authorization().is_some() => {
                (Error::TokenRefused { host, variable: token.variable }, None)
            }
            (403 | 429, _) if is_rate_limit(&response) => {
                let hint = match self.token {
                    None => "set AURORABOOT_GITHUB_TOKEN to a token of GitHub, which may ask more often",
                    Some(_) => "try again then",
                };
                (Error::RateLimited { host, wait: rate_limit_ends(&response, SystemTime::now()), hint }, None)
            }
            _ if is_transient_status(status) => {
                let (url, retry_after) = (response.url().to_string(), response.retry_after());
                (Error::Client(client::Error::Status { url, status }), retry_after)
            }
            _ => (Error::Refused { host, status, reason: reason(response) }, None),
        }
    }

    fn no_api(&self) -> Error {
        Error::NoApi(self.site.web.authority.clone())
    }
}

fn is_json(response: &Response) -> bool {
    response.header("content-type").is_some_and(|text| text.contains("json"))
}

/// GitHub, "Rate limits for the REST API": the primary limit says that nothing remains, the secondary one when to come back.
fn is_rate_limit(response: &Response) -> bool {
    response.header("x-ratelimit-remaining").is_some_and(|left| left.trim() == "0")
        || response.header("retry-after").is_some()
}

fn rate_limit_ends(response: &Response, now: SystemTime) -> Option<Duration> {
    if let Some(wait) = response.retry_after() {
        return Some(wait);
    }
    let reset = response.header("x-ratelimit-reset")?.trim().parse().ok()?;
    (UNIX_EPOCH.checked_add(Duration::from_secs(reset))?).duration_since(now).ok()
}

/// What GitHub itself says, fit for one line.
fn reason(response: Response) -> String {
    #[derive(Deserialize)]
    struct Reason {
        message: String,
    }
    let body = response.read_to_vec(limits::GITHUB_ANSWER_BYTES_MAX).unwrap_or_default();
    serde_json::from_slice(&body).map_or_else(|_| "it gives no reason".to_owned(), |Reason { message }| shown(&message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_api_is() {
        for (github_url, web, api) in [
            (None, "https://github.com", "https://api.github.com"),
            (Some("https://GitHub.com/"), "https://GitHub.com", "https://api.github.com"),
            (Some("https://octo.ghe.com"), "https://octo.ghe.com", "https://api.octo.ghe.com"),
            (Some("https://ghe.example:8443//"), "https://ghe.example:8443", "https://ghe.example:8443/api/v3"),
            (Some("http://mirror/github"), "http://mirror/github", "http://mirror/github/api/v3"),
        ] {
            let site = Site::new(github_url).unwrap();
            assert_eq!((site.web.target().as_str(), site.api.target().as_str()), (web, api));
        }
        for github_url in ["github.com", "ftp://github.com", "https://", "https://x/?y=1"] {
            assert!(Site::new(Some(github_url)).is_err(), "{github_url}");
        }
        let error = Site::new(Some("https://u:secret@x/?y")).unwrap_err().to_string();
        assert!(!error.contains("secret"), "{error}");
    }

    #[test]
    fn a_rate_limit_says_how_long() {
        let text = |wait| Error::RateLimited { host: "h".to_owned(), wait, hint: "later" }.to_string();
        assert_eq!(text(Some(Duration::from_secs(61))), "h answers no more requests for now (again in 2 min); later");
        assert_eq!(text(None), "h answers no more requests for now; later");
    }
}
