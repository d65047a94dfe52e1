//! HTTP for everything that is fetched: the only user of ureq.
//!
//! Blocking calls on the caller's thread, every wait bounded by name. Redirects are followed here and not by ureq, because
//! each hop may need another proxy, and a secret must not follow to another host.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};

use super::proxy::{Proxies, authority};
use super::retry::{Backoff, Stop, is_transient_status, parse_retry_after};
use super::url::{BadUrl, Scheme, Url, is_loopback};
use crate::limits;
use crate::units::chain;

mod unix;

/// Where Linux distributions keep the roots that the machine's administrator trusts.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const SYSTEM_ROOTS_BYTES_MAX: u64 = 16 << 20;

/// The variables that name proxies (`ALL_PROXY` stands for both).
const HTTP_PROXY: &str = "HTTP_PROXY";
const HTTPS_PROXY: &str = "HTTPS_PROXY";

/// How to reach the network.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The key `allow-insecure-registries`: registries may speak plain HTTP and certificates are not verified.
    pub allow_insecure: bool,
    /// PEM certificates that are trusted beside the public roots and the system's.
    pub ca_file: Option<PathBuf>,
    /// The key `offline`: every request fails with [`Error::Offline`].
    pub offline: bool,
    pub proxies: Proxies,
    /// All requests go to the server behind this Unix socket, whatever host their address names.
    pub socket: Option<PathBuf>,
    pub timeouts: Timeouts,
    pub backoff: Backoff,
}

impl Settings {
    /// The defaults, with the proxies of the environment.
    #[must_use]
    pub fn from_env() -> Self {
        Self { proxies: Proxies::from_env(|name| std::env::var(name).ok()), ..Self::default() }
    }
}

/// Every wait, by name.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    pub resolve: Duration,
    pub connect: Duration,
    pub response: Duration,
    pub stall: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            resolve: limits::RESOLVE_TIMEOUT,
            connect: limits::CONNECT_TIMEOUT,
            response: limits::RESPONSE_TIMEOUT,
            stall: limits::STALL_TIMEOUT,
        }
    }
}

/// What can go wrong between here and a server. Hosts are named, secrets and queries are not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the certificates of ca_file {path}")]
    CaFile { path: PathBuf, source: io::Error },
    #[error("{0} holds no PEM certificate (set by ca_file)")]
    NoCertificate(PathBuf),
    #[error("the proxy of the environment variable {0} is not an address such as http://proxy:3128")]
    Proxy(&'static str),
    #[error(transparent)]
    Url(#[from] BadUrl),
    #[error("the name {0} does not resolve; check the spelling and this host's DNS server")]
    Resolve(String),
    #[error("{0} refuses the connection; is a server running on that port?")]
    Refused(String),
    #[error("{host}: {what} took longer than {} s", .limit.as_secs_f32())]
    Timeout { host: String, what: &'static str, limit: Duration },
    #[error("{host}: TLS failed: {reason}; trust its authority with ca_file{}", .trust.or(", or set allow-insecure-registries", ""))]
    Tls { host: String, reason: String, trust: Trust },
    #[error("{host} does not speak TLS; {} if it speaks plain HTTP", .trust.or("set allow-insecure-registries", "write http://"))]
    NotTls { host: String, trust: Trust },
    #[error("the connection to {host} failed")]
    Io { host: String, source: io::Error },
    #[error("{host} does not speak HTTP as it should: {reason}")]
    Protocol { host: String, reason: String },
    #[error("the proxy for {host} refused: {reason}")]
    ProxyRefused { host: String, reason: String },
    #[error("cannot reach {host} through the proxy of {variable}")]
    Proxied { host: String, variable: &'static str, source: Box<Error> },
    #[error("{0} redirects more than {max} times", max = limits::REDIRECTS_MAX)]
    Redirects(String),
    #[error("{from} redirects to plain HTTP at {to}{}", .trust.or("; set allow-insecure-registries to follow", ", which is not followed"))]
    Downgrade { from: String, to: String, trust: Trust },
    #[error("{url} is larger than {limit} bytes")]
    TooLarge { url: String, limit: u64 },
    #[error("{url}: the server answers {status}")]
    Status { url: String, status: u16 },
    #[error(
        "offline is set, so {0} is not asked; run `auroraboot pull` with this configuration where there is a network"
    )]
    Offline(String),
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// Whether nobody was reached who could have answered: also a name that does not resolve, as when the network is down.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Resolve(_) | Self::Offline(_) => true,
            Self::Proxied { source, .. } => source.is_unreachable(),
            // 502, 503, 504: the proxy is there and its way out is not. ureq gives the status only in words.
            Self::ProxyRefused { reason, .. } => reason.contains("responded 50"),
            _ => self.is_transient(),
        }
    }

    /// Whether the same request may well work a moment later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Timeout { .. } | Self::Io { .. } => true,
            Self::Status { status, .. } => is_transient_status(*status),
            Self::Proxied { source, .. } => source.is_transient(),
            _ => false,
        }
    }
}

/// How much to trust the other side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Certificates are verified, and no redirect may leave TLS.
    Verified,
    /// As `allow-insecure-registries` says.
    AsConfigured,
}

impl Trust {
    /// What an operator can do about a server that is not trusted: the setting is of no use where all must be verified.
    const fn or(self, as_configured: &'static str, verified: &'static str) -> &'static str {
        match self {
            Self::AsConfigured => as_configured,
            Self::Verified => verified,
        }
    }
}

/// A header of a request.
pub type Header<'a> = (&'static str, &'a str);

/// Makes requests; cheap to clone, and clones share connections.
#[derive(Debug, Clone)]
pub struct Client {
    settings: Settings,
    roots: RootCerts,
    verified: Agents,
    unverified: Option<Agents>,
    /// For a whole request, beside the bounds of its parts.
    limit: Option<Duration>,
    stop: Stop,
}

/// ureq ties one proxy to an agent, so there is one for each.
#[derive(Debug, Clone)]
struct Agents {
    direct: ureq::Agent,
    http_proxy: Option<ureq::Agent>,
    https_proxy: Option<ureq::Agent>,
}

impl Client {
    /// # Errors
    /// When `ca_file` or a proxy of the environment cannot be used.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        // No TLS is spoken on a socket of this machine, and reading the roots takes longer than asking there.
        let roots = match settings.socket {
            Some(_) => RootCerts::WebPki,
            None => root_certificates(settings.ca_file.as_deref())?,
        };
        Self::with_roots(settings, roots)
    }

    fn with_roots(settings: Settings, roots: RootCerts) -> Result<Self, Error> {
        let verified = Agents::new(&settings, TlsConfig::builder().root_certs(roots.clone()).build())?;
        let unverified = if settings.allow_insecure {
            Some(Agents::new(&settings, TlsConfig::builder().disable_verification(true).build())?)
        } else {
            None
        };
        Ok(Self { settings, roots, verified, unverified, limit: None, stop: Stop::default() })
    }

    /// A client of the same settings that can be stopped by itself.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn fork(&self) -> Result<Self, Error> {
        Self::with_roots(self.settings.clone(), self.roots.clone())
    }

    /// The same client, whose requests take at most so long each, body and all. Both are stopped together.
    #[must_use]
    pub fn within(&self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self.clone() }
    }

    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends all requests, also those that wait for a server; every later one fails with [`Error::Stopped`].
    pub fn stop(&self) {
        self.stop.stop();
        for agents in [Some(&self.verified), self.unverified.as_ref()].into_iter().flatten() {
            agents.shutdown();
        }
    }

    #[must_use]
    pub fn stopper(&self) -> &Stop {
        &self.stop
    }

    /// One GET, redirects followed. The status is the caller's to judge.
    ///
    /// # Errors
    /// Whatever keeps an answer from coming.
    pub fn get(&self, url: &Url, headers: &[Header<'_>], trust: Trust) -> Result<Response, Error> {
        let mut url = url.clone();
        let mut secrets_allowed = true;
        for _ in 0..=limits::REDIRECTS_MAX {
            let mut request = ureq::http::Request::get(url.target());
            for (name, value) in headers {
                if secrets_allowed || !name.eq_ignore_ascii_case("authorization") {
                    request = request.header(*name, *value);
                }
            }
            if let Some(userinfo) = url.userinfo.as_ref().filter(|_| secrets_allowed) {
                request = request.header("authorization", basic(userinfo.expose()));
            }
            let request = request.body(()).map_err(|error| protocol(&url, error))?;
            let response = self.run(&url, trust, |agent| agent.run(self.limited(agent, request)))?;
            let Some(location) = response.redirect() else { return Ok(response) };
            let next = url.join(location)?;
            if url.scheme == Scheme::Https && next.scheme == Scheme::Http && !self.may_be_plain(trust) {
                return Err(Error::Downgrade { from: url.authority, to: next.authority, trust });
            }
            secrets_allowed = secrets_allowed && url.may_share_secrets_with(&next);
            url = Url { userinfo: if secrets_allowed { url.userinfo } else { None }, ..next };
        }
        Err(Error::Redirects(url.authority))
    }

    /// One POST of a form; redirects are not followed, for the body is a secret.
    ///
    /// # Errors
    /// Whatever keeps an answer from coming.
    pub fn post_form(&self, url: &Url, form: &str, trust: Trust) -> Result<Response, Error> {
        let request = ureq::http::Request::post(url.target())
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form)
            .map_err(|error| protocol(url, error))?;
        self.run(url, trust, |agent| agent.run(self.limited(agent, request)))
    }

    /// Fetches a small file, such as a cloud config, whole, trying again when a fault may pass.
    ///
    /// # Errors
    /// A status other than 200, more than `bytes_max` bytes, or no answer.
    pub fn fetch_url(&self, address: &str, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let url: Url = address.parse()?;
        self.retrying(|| {
            let response = self.get(&url, &[], Trust::Verified)?;
            match response.status() {
                200 => response.read_to_vec(bytes_max).map_err(|error| (error, None)),
                status => Err((Error::Status { url: url.to_string(), status }, response.retry_after())),
            }
        })
    }

    /// Repeats `attempt` while its fault may pass and the back-off allows.
    fn retrying<T, E: Transient>(&self, attempt: impl FnMut() -> Result<T, (E, Option<Duration>)>) -> Result<T, E> {
        self.retrying_for(None, attempt)
    }

    /// [`Client::retrying`]; no attempt begins later than `patience` after the first.
    pub(super) fn retrying_for<T, E: Transient>(
        &self,
        patience: Option<Duration>,
        mut attempt: impl FnMut() -> Result<T, (E, Option<Duration>)>,
    ) -> Result<T, E> {
        let (mut faults, started) = (0, Instant::now());
        loop {
            let (error, retry_after) = match attempt() {
                Ok(value) => return Ok(value),
                Err(fault) => fault,
            };
            faults += 1;
            let wait = self.settings.backoff.wait_after(faults, retry_after).filter(|wait| {
                error.is_transient() && patience.is_none_or(|patience| started.elapsed() + *wait <= patience)
            });
            let Some(wait) = wait else { return Err(error) };
            log::warn!("{}; trying again in {:.1} s", chain(&error), wait.as_secs_f32());
            if self.stop.wait(wait) {
                return Err(error);
            }
        }
    }

    /// Whether a password may go over plain HTTP: to this machine itself, or where the operator said so.
    #[must_use]
    pub fn may_send_secrets_plainly(&self, url: &Url) -> bool {
        self.settings.allow_insecure || is_loopback(&url.authority)
    }

    fn may_be_plain(&self, trust: Trust) -> bool {
        trust == Trust::AsConfigured && self.settings.allow_insecure
    }

    fn limited<S: ureq::AsSendBody>(
        &self,
        agent: &ureq::Agent,
        request: ureq::http::Request<S>,
    ) -> ureq::http::Request<S> {
        match self.limit {
            Some(limit) => agent.configure_request(request).timeout_global(Some(limit)).build(),
            None => request,
        }
    }

    fn run(
        &self,
        url: &Url,
        trust: Trust,
        call: impl FnOnce(&ureq::Agent) -> Result<ureq::http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Response, Error> {
        if self.stop.is_stopped() {
            return Err(Error::Stopped);
        }
        if self.settings.offline {
            return Err(Error::Offline(url.authority.clone()));
        }
        let agents = match (&self.unverified, trust) {
            (Some(unverified), Trust::AsConfigured) => unverified,
            _ => &self.verified,
        };
        let proxy = self.settings.proxies.for_url(url);
        let (agent, variable) = match (proxy, url.scheme) {
            (None, _) => (Some(&agents.direct), ""),
            (Some(_), Scheme::Http) => (agents.http_proxy.as_ref(), HTTP_PROXY),
            (Some(_), Scheme::Https) => (agents.https_proxy.as_ref(), HTTPS_PROXY),
        };
        let timeouts = self.settings.timeouts;
        let socket = self.settings.socket.as_ref().map(|path| path.display().to_string());
        let faults = Faults {
            host: socket.unwrap_or_else(|| url.authority.clone()),
            proxy: proxy.map(|address| (variable, authority(address).to_owned())),
            timeouts: Timeouts { response: self.limit.unwrap_or(timeouts.response), ..timeouts },
            trust,
            stop: self.stop.clone(),
        };
        match call(agent.unwrap_or(&agents.direct)) {
            Ok(inner) => Ok(Response { inner, url: url.clone(), faults }),
            Err(error) => Err(faults.explain(error)),
        }
    }
}

impl Agents {
    fn new(settings: &Settings, tls: TlsConfig) -> Result<Self, Error> {
        let config = |proxy: Option<ureq::Proxy>| {
            ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .proxy(proxy)
                .tls_config(tls.clone())
                .user_agent(concat!("auroraboot/", env!("CARGO_PKG_VERSION")))
                // A digest is over the bytes as stored, so no encoding on top of them.
                .accept_encoding("identity")
                .max_response_header_size(limits::RESPONSE_HEAD_BYTES_MAX)
                .max_idle_connections_per_host(limits::DOWNLOADS_AT_ONCE)
                .timeout_resolve(Some(settings.timeouts.resolve))
                .timeout_connect(Some(settings.timeouts.connect))
                .timeout_recv_response(Some(settings.timeouts.response))
                .timeout_per_read(Some(settings.timeouts.stall))
                .timeout_per_write(Some(settings.timeouts.stall))
                .build()
        };
        if let Some(socket) = &settings.socket {
            let direct = ureq::Agent::with_parts(config(None), unix::SocketConnector(socket.clone()), unix::NoNames);
            return Ok(Self { direct, http_proxy: None, https_proxy: None });
        }
        let agent = |proxy| config(proxy).new_agent();
        let proxied = |address: &Option<String>, name| {
            let proxy = address.as_deref().map(ureq::Proxy::new).transpose();
            proxy.map(|proxy| proxy.map(|proxy| agent(Some(proxy)))).map_err(|_| Error::Proxy(name))
        };
        Ok(Self {
            direct: agent(None),
            http_proxy: proxied(&settings.proxies.http, HTTP_PROXY)?,
            https_proxy: proxied(&settings.proxies.https, HTTPS_PROXY)?,
        })
    }

    fn shutdown(&self) {
        for agent in [Some(&self.direct), self.http_proxy.as_ref(), self.https_proxy.as_ref()].into_iter().flatten() {
            agent.clone().shutdown();
        }
    }
}

/// An answer whose body is still to be read.
#[derive(Debug)]
pub struct Response {
    inner: ureq::http::Response<ureq::Body>,
    url: Url,
    faults: Faults,
}

impl Response {
    #[must_use]
    pub fn status(&self) -> u16 {
        self.inner.status().as_u16()
    }

    /// Where the answer came from, after redirects.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.inner.headers().get(name)?.to_str().ok()
    }

    /// All values of a header that may come several times, such as `WWW-Authenticate`.
    pub fn headers(&self, name: &str) -> impl Iterator<Item = &str> {
        self.inner.headers().get_all(name).iter().filter_map(|value| value.to_str().ok())
    }

    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.header("retry-after").and_then(parse_retry_after)
    }

    /// Reads the whole body.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above `bytes_max`, or a fault of the connection.
    pub fn read_to_vec(self, bytes_max: u64) -> Result<Vec<u8>, Error> {
        let url = self.url.to_string();
        let mut bytes = Vec::new();
        let mut body = self.into_body();
        let mut buffer = [0; 16 << 10];
        loop {
            match body.read(&mut buffer)? {
                0 => return Ok(bytes),
                count => bytes.extend_from_slice(&buffer[..count]),
            }
            if bytes.len() as u64 > bytes_max {
                return Err(Error::TooLarge { url, limit: bytes_max });
            }
        }
    }

    #[must_use]
    pub fn into_body(self) -> Body {
        Body { inner: self.inner.into_body().into_reader(), faults: self.faults }
    }

    fn redirect(&self) -> Option<&str> {
        matches!(self.status(), 301 | 302 | 303 | 307 | 308).then(|| self.header("location")).flatten()
    }
}

/// The body of a [`Response`], read piece by piece.
pub struct Body {
    inner: ureq::BodyReader<'static>,
    faults: Faults,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("host", &self.faults.host).finish_non_exhaustive()
    }
}

impl Body {
    /// # Errors
    /// A body that ends before the length its head promised, a stall, a broken connection.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        self.inner.read(buffer).map_err(|error| self.faults.explain(error.into()))
    }
}

/// Turns what ureq says into what an operator can act on.
#[derive(Debug, Clone)]
struct Faults {
    host: String,
    /// Whom the connection is made to instead: the variable that says so, and the address without its login.
    proxy: Option<(&'static str, String)>,
    timeouts: Timeouts,
    trust: Trust,
    stop: Stop,
}

impl Faults {
    fn explain(&self, error: ureq::Error) -> Error {
        if self.stop.is_stopped() {
            return Error::Stopped;
        }
        let (host, trust) = (self.host.clone(), self.trust);
        match error {
            ureq::Error::HostNotFound => self.of_connecting(Error::Resolve),
            ureq::Error::Timeout(which) => self.timeout(which),
            ureq::Error::Io(source) => self.explain_io(source),
            ureq::Error::Rustls(error) => Error::Tls { host, reason: error.to_string(), trust },
            ureq::Error::Tls(reason) => Error::Tls { host, reason: reason.to_owned(), trust },
            ureq::Error::ConnectProxyFailed(reason) => Error::ProxyRefused { host, reason },
            other => Error::Protocol { host, reason: other.to_string() },
        }
    }

    fn timeout(&self, which: ureq::Timeout) -> Error {
        let (what, limit) = match which {
            ureq::Timeout::Resolve => ("resolving the name", self.timeouts.resolve),
            ureq::Timeout::Connect => ("connecting", self.timeouts.connect),
            ureq::Timeout::PerRead => ("waiting for the next bytes", self.timeouts.stall),
            ureq::Timeout::PerWrite => ("sending the request", self.timeouts.stall),
            _ => ("waiting for an answer", self.timeouts.response),
        };
        match which {
            ureq::Timeout::Resolve | ureq::Timeout::Connect => {
                self.of_connecting(|host| Error::Timeout { host, what, limit })
            }
            _ => Error::Timeout { host: self.host.clone(), what, limit },
        }
    }

    /// A fault of making the connection is the proxy's where there is one: it resolves the server's name and connects to it.
    fn of_connecting(&self, fault: impl FnOnce(String) -> Error) -> Error {
        match &self.proxy {
            None => fault(self.host.clone()),
            Some((variable, address)) => {
                let source = Box::new(fault(address.clone()));
                Error::Proxied { host: self.host.clone(), variable, source }
            }
        }
    }

    fn explain_io(&self, source: io::Error) -> Error {
        let (host, trust) = (self.host.clone(), self.trust);
        let text = source.to_string();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => self.of_connecting(Error::Refused),
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                self.of_connecting(|host| Error::Io { host, source })
            }
            // rustls reports through io::Error; a record type that TLS does not have is a server speaking plain text.
            io::ErrorKind::InvalidData if text.contains("InvalidContentType") => Error::NotTls { host, trust },
            io::ErrorKind::InvalidData => Error::Tls { host, reason: text, trust },
            // getaddrinfo's failures have no kind of their own.
            _ if text.contains("failed to lookup address") => self.of_connecting(Error::Resolve),
            _ => Error::Io { host, source },
        }
    }
}

/// A fault that says of itself whether it may pass.
pub(super) trait Transient: std::error::Error {
    fn is_transient(&self) -> bool;
}

impl Transient for Error {
    fn is_transient(&self) -> bool {
        Error::is_transient(self)
    }
}

impl From<Error> for (Error, Option<Duration>) {
    fn from(error: Error) -> Self {
        (error, None)
    }
}

/// The value of an `Authorization` header for `user:password` (RFC 7617).
#[must_use]
pub fn basic(user_and_password: &str) -> String {
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(user_and_password))
}

fn protocol(url: &Url, error: impl std::fmt::Display) -> Error {
    Error::Protocol { host: url.authority.clone(), reason: error.to_string() }
}

/// Public roots, what the system trusts, and `ca_file`: `RootCerts::Specific` replaces the built-in set, so all go in one list.
fn root_certificates(ca_file: Option<&Path>) -> Result<RootCerts, Error> {
    let mut roots: Vec<Certificate<'static>> =
        webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let system = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = system.or_else(|| SYSTEM_ROOTS.iter().map(PathBuf::from).find(|path| path.is_file()));
    if let Some(pem) = system.and_then(|path| read_bounded(&path).ok()) {
        roots.extend(certificates(&pem));
    }
    if let Some(path) = ca_file {
        let pem = read_bounded(path).map_err(|source| Error::CaFile { path: path.to_owned(), source })?;
        let before = roots.len();
        roots.extend(certificates(&pem));
        if roots.len() == before {
            return Err(Error::NoCertificate(path.to_owned()));
        }
    }
    Ok(RootCerts::from(roots))
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(SYSTEM_ROOTS_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn certificates(pem: &[u8]) -> impl Iterator<Item = Certificate<'static>> + '_ {
    ureq::tls::parse_pem(pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    })
}
