//! One image's registry: asks it for documents and blobs, logs in when it must, and resolves a name to layers.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::auth::{self, Authorizer, parse_challenges};
use super::cache::{self, BlobCache};
use super::client::{self, Body, Client, Header, Response, Transient, Trust};
use super::credentials::{self, Keychain, Login};
use super::manifest::{self, ACCEPT, Document, ImageManifest};
use super::reference::Reference;
use super::retry::is_transient_status;
use super::url::{Scheme, Url, is_loopback};
use crate::limits;
use crate::units::{Arch, Digest, chain};

/// Why an image could not be had from its registry. Every message names the image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot pull {image}")]
    Client { image: String, source: client::Error },
    #[error("cannot log in for {image}")]
    Credentials { image: String, source: credentials::Error },
    #[error("cannot log in for {image}")]
    Auth { image: String, source: auth::Error },
    #[error("the registry refuses {image} ({status}): {hint}")]
    Denied { image: String, status: u16, hint: String },
    #[error("{image} is not in its registry: {detail}")]
    NotFound { image: String, detail: String },
    #[error("the registry answers {status} for {image}: {detail}")]
    Status { image: String, status: u16, detail: String },
    #[error("cannot use {image}")]
    Document { image: String, source: manifest::Error },
    #[error("cannot keep the manifest of {image}")]
    Cache { image: String, source: cache::Error },
    #[error("the registry sends bytes {range:?} of layer {digest} when asked for those from {from}")]
    Range { digest: Digest, from: u64, range: String },
    #[error("layer {digest} has {have} bytes in the registry, but its manifest promises more")]
    Short { digest: Digest, have: u64 },
}

impl Error {
    /// Whether the registry could not be asked, which says nothing about the image: no network, no name, nobody there, a bad day. A
    /// registry that answers, whatever it is, and one that is not whom it should be, are something else.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Client { source, .. } | Self::Auth { source: auth::Error::Unreachable(source), .. } => {
                source.is_unreachable()
            }
            _ => self.is_transient(),
        }
    }
}

impl Transient for Error {
    fn is_transient(&self) -> bool {
        match self {
            Self::Client { source, .. } => source.is_transient(),
            Self::Auth { source, .. } => source.is_transient(),
            Self::Status { status, .. } => is_transient_status(*status),
            _ => false,
        }
    }
}

impl<T: Transient> Transient for Box<T> {
    fn is_transient(&self) -> bool {
        (**self).is_transient()
    }
}

/// A failed attempt, and when the server wants to be asked again.
pub(super) type Failure = (Box<Error>, Option<Duration>);

/// Resolves a name to the layers of its image for one architecture. The tag is always asked for, and what it stands for is
/// remembered for [`recall`]; what a digest names is taken from the cache when it is there, so such an image needs no network
/// the second time.
///
/// # Errors
/// See [`Error`].
pub fn resolve(registry: &Registry, arch: Arch, cache: &BlobCache) -> Result<ImageManifest, Error> {
    let image = match registry.reference.digest() {
        Some(digest) => {
            let bytes = registry.manifest(digest, cache)?;
            follow(registry, arch, cache, digest, &bytes)?
        }
        None => resolve_tag(registry, arch, cache)?,
    };
    let remembered = cache.remember(&tag_name(&registry.reference, arch), &image.digest);
    // It is for a later start only, so that it cannot be written must not stop this one.
    remembered.unwrap_or_else(|error| log::warn!("{}", chain(&error)));
    Ok(image)
}

fn resolve_tag(registry: &Registry, arch: Arch, cache: &BlobCache) -> Result<ImageManifest, Error> {
    // Where there is something to go on with, nobody waits for long.
    let patience = recall(&registry.reference, arch, cache).map(|_| limits::REGISTRY_PATIENCE);
    let (digest, bytes) = registry.tagged(cache, patience)?;
    follow(registry, arch, cache, digest, &bytes)
}

/// What the name stood for when [`resolve`] last succeeded, taken from the cache alone; and when that was, for a tag. A digest always
/// stands for the same.
#[must_use]
pub fn recall(reference: &Reference, arch: Arch, cache: &BlobCache) -> Option<(ImageManifest, Option<SystemTime>)> {
    if let Some(digest) = reference.digest() {
        return Some((recall_digest(digest, arch, cache)?, None));
    }
    let (digest, when) = cache.recall(&tag_name(reference, arch))?;
    Some((recall_digest(digest, arch, cache)?, Some(when)))
}

pub(super) fn recall_digest(mut digest: Digest, arch: Arch, cache: &BlobCache) -> Option<ImageManifest> {
    let document = |digest| cache.read_document(&digest, limits::MANIFEST_BYTES_MAX);
    let parse = |digest| manifest::parse(&document(digest)?).ok();
    let mut documents = vec![digest];
    let found = match parse(digest)? {
        Document::Manifest(found) => found,
        Document::Index(index) => {
            digest = index.choose(arch).ok()?;
            documents.push(digest);
            let Document::Manifest(found) = parse(digest)? else { return None };
            found
        }
    };
    let config = found.config().ok()?;
    documents.push(config);
    manifest::check_config(&document(config)?, arch).ok()?;
    Some(ImageManifest { digest, arch, layers: found.layers().ok()?, documents })
}

/// One tag has an image for each architecture.
fn tag_name(reference: &Reference, arch: Arch) -> String {
    format!("{reference} {arch}")
}

/// From the document that a name stands for to the layers.
fn follow(
    registry: &Registry,
    arch: Arch,
    cache: &BlobCache,
    mut digest: Digest,
    bytes: &[u8],
) -> Result<ImageManifest, Error> {
    let mut documents = vec![digest];
    let found = match registry.usable(manifest::parse(bytes))? {
        Document::Manifest(found) => found,
        Document::Index(index) => {
            digest = registry.usable(index.choose(arch))?;
            documents.push(digest);
            match registry.usable(manifest::parse(&registry.manifest(digest, cache)?))? {
                Document::Manifest(found) => found,
                Document::Index(_) => return registry.usable(Err(manifest::Error::Nested(arch))),
            }
        }
    };
    let config = registry.usable(found.config())?;
    documents.push(config);
    registry.usable(manifest::check_config(&registry.config(config, cache)?, arch))?;
    let layers = registry.usable(found.layers())?;
    Ok(ImageManifest { digest, arch, layers, documents })
}

/// The conversation with one registry about one image. Shared by the threads that download its layers.
#[derive(Debug)]
pub struct Registry {
    client: Client,
    reference: Reference,
    authorizer: Authorizer,
    /// Where logins were looked for.
    searched: String,
    /// Scheme and host, once it is known whether TLS is spoken.
    base: Mutex<Option<Url>>,
}

impl Registry {
    /// Looks up the login; does not touch the network yet.
    ///
    /// # Errors
    /// When credential files cannot be understood.
    pub fn new(client: &Client, keychain: &Keychain, reference: Reference) -> Result<Self, Error> {
        let image = reference.to_string();
        let credential = match keychain.find(&reference) {
            Ok(credential) => credential,
            Err(source) => return Err(Error::Credentials { image, source }),
        };
        let client = client.fork().map_err(|source| Error::Client { image, source })?;
        let authorizer = Authorizer::new(credential, reference.repository());
        Ok(Self { client, reference, authorizer, searched: keychain.searched(), base: Mutex::default() })
    }

    #[must_use]
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// One attempt at a blob from byte `from` on. The second value is how many bytes come before that: a server that
    /// ignores `Range` sends all of it (RFC 9110 §14.2 allows that).
    pub(super) fn blob(&self, digest: Digest, from: u64) -> Result<(Body, u64), Failure> {
        let range = format!("bytes={from}-");
        let headers: &[Header<'_>] = if from > 0 { &[("range", &range)] } else { &[] };
        let response = self.get(&format!("blobs/{digest}"), headers)?;
        match response.status() {
            200 => Ok((response.into_body(), from)),
            206 => {
                let range = response.header("content-range").unwrap_or_default().to_owned();
                if range_start(&range) == Some(from) {
                    return Ok((response.into_body(), 0));
                }
                Err(Error::Range { digest, from, range }.into())
            }
            416 => Err(Error::Short { digest, have: from }.into()),
            404 => {
                let detail = format!("layer {digest} is missing there");
                Err(Error::NotFound { image: self.image(), detail }.into())
            }
            _ => Err(self.unexpected(response)),
        }
    }

    /// What the tag stands for now.
    fn tagged(&self, cache: &BlobCache, patience: Option<Duration>) -> Result<(Digest, Vec<u8>), Error> {
        let (bytes, promised) = self.small(&format!("manifests/{}", self.reference.version()), patience)?;
        let digest = manifest::digest_of(&bytes);
        if let Some(wanted) = promised {
            self.usable(manifest::verify("manifest", &bytes, wanted))?;
        }
        self.keep(cache, digest, &bytes)?;
        Ok((digest, bytes))
    }

    fn manifest(&self, digest: Digest, cache: &BlobCache) -> Result<Vec<u8>, Error> {
        self.addressed("manifest", &format!("manifests/{digest}"), digest, cache)
    }

    fn config(&self, digest: Digest, cache: &BlobCache) -> Result<Vec<u8>, Error> {
        self.addressed("image configuration", &format!("blobs/{digest}"), digest, cache)
    }

    fn addressed(&self, what: &'static str, path: &str, digest: Digest, cache: &BlobCache) -> Result<Vec<u8>, Error> {
        if let Some(bytes) = cache.read_document(&digest, limits::MANIFEST_BYTES_MAX) {
            return Ok(bytes);
        }
        let (bytes, _) = self.small(path, None)?;
        self.usable(manifest::verify(what, &bytes, digest))?;
        self.keep(cache, digest, &bytes)?;
        Ok(bytes)
    }

    fn keep(&self, cache: &BlobCache, digest: Digest, bytes: &[u8]) -> Result<(), Error> {
        let written = cache.write_document(&digest, bytes);
        written.map_err(|source| Error::Cache { image: self.image(), source })
    }

    /// A document whole, and the digest that the registry says it has.
    fn small(&self, path: &str, patience: Option<Duration>) -> Result<(Vec<u8>, Option<Digest>), Error> {
        let result = self.client.retrying_for(patience, || {
            let response = self.get(path, &[("accept", ACCEPT)])?;
            match response.status() {
                200 => {
                    let promised = response.header("docker-content-digest").and_then(|text| text.parse().ok());
                    let body = response.read_to_vec(limits::MANIFEST_BYTES_MAX);
                    body.map(|bytes| (bytes, promised)).map_err(|source| self.client_error(source).into())
                }
                404 => {
                    let detail = detail(response);
                    Err(Error::NotFound { image: self.image(), detail }.into())
                }
                _ => Err(self.unexpected(response)),
            }
        });
        result.map_err(|error: Box<Error>| *error)
    }

    /// One GET below `/v2/<repository>/`, logging in as often as it helps.
    fn get(&self, path: &str, extra: &[Header<'_>]) -> Result<Response, Failure> {
        let url = Url { path: format!("/v2/{}/{path}", self.reference.repository()), ..self.base()? };
        let auth = |source| Failure::from(Error::Auth { image: self.image(), source });
        // Thrice: a token that ended, one that another thread renewed meanwhile, and the answer.
        for _ in 0..3 {
            let sent = self.authorizer.header(&self.client, Instant::now()).map_err(auth)?;
            let login = sent.as_ref().map(|value| ("authorization", value.expose()));
            let headers: Vec<Header<'_>> = extra.iter().copied().chain(login).collect();
            let response = self.client.get(&url, &headers, Trust::AsConfigured);
            let response = response.map_err(|source| Failure::from(self.client_error(source)))?;
            match response.status() {
                // A challenge from where the registry redirects to is not the registry's: no login is sent for it.
                401 if response.url().authority == url.authority => {
                    let challenges = parse_challenges(response.headers("www-authenticate"));
                    let answered = self.authorizer.answer(&self.client, &challenges, sent.as_ref(), Instant::now());
                    if !answered.map_err(auth)? {
                        return Err(self.denied(401).into());
                    }
                }
                status @ (401 | 403) => return Err(self.denied(status).into()),
                _ => return Ok(response),
            }
        }
        Err(self.denied(401).into())
    }

    /// `https://host`, or `http://host` where that is allowed and TLS is not spoken: with `allow-insecure-registries`,
    /// and on this machine itself, as Docker does.
    fn base(&self) -> Result<Url, Failure> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(url) = &*base {
            return Ok(url.clone());
        }
        let host = self.reference.api_host();
        let https = Url { scheme: Scheme::Https, authority: host.to_owned(), path: "/v2/".to_owned(), userinfo: None };
        let may_be_plain = is_loopback(host) || self.client.settings().allow_insecure;
        let url = if may_be_plain { self.probe(https)? } else { https };
        Ok(base.insert(url).clone())
    }

    fn probe(&self, https: Url) -> Result<Url, Failure> {
        let failure = |source| Failure::from(self.client_error(source));
        let error = match self.client.get(&https, &[], Trust::AsConfigured) {
            Ok(_) => return Ok(https),
            // It speaks TLS, and is not whom it should be: no reason to go on without.
            Err(error @ (client::Error::Tls { .. } | client::Error::Stopped)) => return Err(failure(error)),
            Err(error) => error,
        };
        let http = Url { scheme: Scheme::Http, ..https };
        match self.client.get(&http, &[], Trust::AsConfigured) {
            Ok(_) => Ok(http),
            Err(second) if matches!(error, client::Error::NotTls { .. }) => Err(failure(second)),
            Err(_) => Err(failure(error)),
        }
    }

    fn denied(&self, status: u16) -> Error {
        let registry = self.reference.registry();
        let hint = match self.authorizer.credential() {
            None => format!(
                "it does not exist, or needs a login for {registry}, and there is none in {}; use docker login or podman login",
                self.searched
            ),
            Some(credential) => {
                let who = match &credential.login {
                    Login::Password { user, .. } => format!("user {user:?}"),
                    Login::Identity(_) | Login::Registry(_) => "a token".to_owned(),
                };
                format!("the login of {who} for {registry} from {} is wrong or may not pull it", credential.origin)
            }
        };
        Error::Denied { image: self.image(), status, hint }
    }

    fn unexpected(&self, response: Response) -> Failure {
        let (status, retry_after) = (response.status(), response.retry_after());
        (Box::new(Error::Status { image: self.image(), status, detail: detail(response) }), retry_after)
    }

    pub(super) fn client_error(&self, source: client::Error) -> Error {
        Error::Client { image: self.image(), source }
    }

    fn usable<T>(&self, result: Result<T, manifest::Error>) -> Result<T, Error> {
        result.map_err(|source| Error::Document { image: self.image(), source })
    }

    fn image(&self) -> String {
        self.reference.to_string()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        (Box::new(error), None)
    }
}

/// `bytes 100-199/200` → 100.
pub(super) fn range_start(header: &str) -> Option<u64> {
    header.trim().strip_prefix("bytes")?.trim_start().split_once('-')?.0.parse().ok()
}

/// What the registry itself says (OCI distribution specification, "Error Codes"), fit for one line.
fn detail(response: Response) -> String {
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<ErrorEntry>,
    }
    #[derive(serde::Deserialize)]
    struct ErrorEntry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: Option<String>,
    }
    const BODY_MAX: u64 = 64 << 10;
    const SHOWN_MAX: usize = 200;
    let errors = response.read_to_vec(BODY_MAX).ok().and_then(|body| serde_json::from_slice::<Errors>(&body).ok());
    let first = errors.and_then(|errors| errors.errors.into_iter().next());
    let text = first.map_or_else(
        || "it gives no reason".to_owned(),
        |entry| entry.message.filter(|message| !message.is_empty()).unwrap_or(entry.code),
    );
    text.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_content_range() {
        assert_eq!(range_start("bytes 100-199/200"), Some(100));
        assert_eq!(range_start("bytes 0-0/*"), Some(0));
        for header in ["", "bytes */200", "bytes -5", "lines 1-2/3", "bytes x-1/2"] {
            assert_eq!(range_start(header), None, "{header}");
        }
    }
}
