//! Logins for registries, from the files of Docker and podman and the helpers they name.
//!
//! A credential helper (`docker-credential-X get`) is the one foreign program the product runs, and only because the
//! user's own configuration names it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use base64::Engine;
use serde::Deserialize;

use super::reference::Reference;
use super::secret::Secret;
use crate::limits;
use crate::units::chain;

/// Docker Hub's key in credential files and helpers, since the days of its first API.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB_NAMES: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];
/// The user name by which a helper says that the secret is an identity token (docker-credential-helpers).
const TOKEN_USER: &str = "<token>";

/// What is presented to a registry or its token server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        user: String,
        password: Secret,
    },
    /// An OAuth2 refresh token.
    Identity(Secret),
    /// A bearer token, sent to the registry as it is.
    Registry(Secret),
}

/// A login and where it was found, for messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    pub login: Login,
    pub origin: String,
}

/// Why looking for a login failed; that there is none is not an error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path} is larger than any credentials file: more than {max} bytes", max = limits::CREDENTIALS_BYTES_MAX)]
    TooLarge { path: PathBuf },
    #[error("the credentials in {path} are not valid JSON")]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("the credentials for {key} in {path} are not base64 of user:password")]
    Auth { path: PathBuf, key: String },
    #[error("{path} names the credential helper {helper:?}, which cannot be run")]
    Helper { path: PathBuf, helper: String, source: io::Error },
    #[error("the credential helper {helper} of {path} failed: {reason}")]
    HelperFailed { path: PathBuf, helper: String, reason: String },
}

/// The files in which logins are looked for, in order.
#[derive(Debug, Clone)]
pub struct Keychain {
    files: Vec<PathBuf>,
    helper_timeout: Duration,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct ConfigFile {
    auths: BTreeMap<String, AuthEntry>,
    #[serde(rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Keychain {
    /// The files that Docker and podman use for this user, those named by a variable first.
    #[must_use]
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Self {
        let named = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = named("HOME");
        let docker = named("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        // podman's own default where no session manager made a runtime directory.
        let runtime = named("XDG_RUNTIME_DIR").map(|dir| dir.join("containers"));
        let runtime = runtime.or_else(|| {
            let uid = std::fs::metadata("/proc/self").ok()?.uid();
            Some(PathBuf::from(format!("/run/containers/{uid}")))
        });
        let config = named("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let files = [
            named("REGISTRY_AUTH_FILE"),
            docker.map(|dir| dir.join("config.json")),
            runtime.map(|dir| dir.join("auth.json")),
            config.map(|dir| dir.join("containers/auth.json")),
        ];
        Self::with_files(files.into_iter().flatten().collect())
    }

    #[must_use]
    pub fn with_files(files: Vec<PathBuf>) -> Self {
        Self { files, helper_timeout: limits::CREDENTIAL_HELPER_TIMEOUT }
    }

    #[must_use]
    pub fn helper_timeout(self, helper_timeout: Duration) -> Self {
        Self { helper_timeout, ..self }
    }

    /// Where a login was looked for, for the message that there is none.
    #[must_use]
    pub fn searched(&self) -> String {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        files.join(", ")
    }

    /// The login for an image: the first file that has one; in it the longest prefix of `registry/repository` wins.
    ///
    /// # Errors
    /// A file that exists but cannot be understood: better said than pulled without it and told "not found".
    pub fn find(&self, image: &Reference) -> Result<Option<Credential>, Error> {
        for path in &self.files {
            let Some(config) = read_config(path)? else { continue };
            if let Some(login) = self.find_in(path, &config, image)? {
                return Ok(Some(Credential { login, origin: path.display().to_string() }));
            }
        }
        Ok(None)
    }

    fn find_in(&self, path: &Path, config: &ConfigFile, image: &Reference) -> Result<Option<Login>, Error> {
        let names = lookup_names(image);
        for name in &names {
            let helper = config.cred_helpers.iter().find(|(key, _)| normalize(key) == *name);
            if let Some((_, helper)) = helper
                && let Some(login) = self.ask_helper(path, helper, image)?
            {
                return Ok(Some(login));
            }
            for (key, entry) in config.auths.iter().filter(|(key, _)| normalize(key) == *name) {
                if let Some(login) = entry.login(path, key)? {
                    return Ok(Some(login));
                }
            }
        }
        let Some(store) = &config.creds_store else { return Ok(None) };
        // The store is asked for every registry, so that it cannot be run must not stop a pull that needs no login.
        self.ask_helper(path, store, image).or_else(|error| {
            log::warn!("{}; going on without it", chain(&error));
            Ok(None)
        })
    }

    fn ask_helper(&self, path: &Path, helper: &str, image: &Reference) -> Result<Option<Login>, Error> {
        let server = if image.is_hub() { HUB_KEY } else { image.registry() };
        let helper_error = |source| Error::Helper { path: path.to_owned(), helper: helper.to_owned(), source };
        let failed = |reason: &str| Error::HelperFailed {
            path: path.to_owned(),
            helper: helper.to_owned(),
            reason: reason.to_owned(),
        };
        if !helper.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(failed("its name may hold letters, digits, - _ . only"));
        }
        let child = Command::new(format!("docker-credential-{helper}"))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(helper_error)?;
        let (success, output) = converse(child, server, self.helper_timeout)
            .map_err(helper_error)?
            .ok_or_else(|| failed("it did not answer in time"))?;
        parse_answer(success, &output).map_err(failed)
    }
}

impl AuthEntry {
    fn login(&self, path: &Path, key: &str) -> Result<Option<Login>, Error> {
        let set = |field: &Option<String>| field.clone().filter(|value| !value.is_empty());
        if let Some(token) = set(&self.identitytoken) {
            return Ok(Some(Login::Identity(Secret::new(token))));
        }
        if let Some(token) = set(&self.registrytoken) {
            return Ok(Some(Login::Registry(Secret::new(token))));
        }
        if let Some(auth) = set(&self.auth) {
            let bad = || Error::Auth { path: path.to_owned(), key: key.to_owned() };
            let bytes = base64::engine::general_purpose::STANDARD.decode(auth.trim()).map_err(|_| bad())?;
            let text = String::from_utf8(bytes).map_err(|_| bad())?;
            let (user, password) = text.split_once(':').ok_or_else(bad)?;
            // Docker's own writer pads with NUL bytes on some versions.
            let password = Secret::new(password.trim_end_matches('\0'));
            return Ok(Some(Login::Password { user: user.to_owned(), password }));
        }
        let pair = set(&self.username).zip(set(&self.password));
        Ok(pair.map(|(user, password)| Login::Password { user, password: Secret::new(password) }))
    }
}

fn read_config(path: &Path) -> Result<Option<ConfigFile>, Error> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limits::CREDENTIALS_BYTES_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        // Under sudo it is another user's, in a container it may be the directory that Docker makes of a missing file: such a file must
        // not stop a pull that needs no login.
        Err(error) => {
            log::warn!("cannot read the credentials in {}: {error}; going on without it", path.display());
            return Ok(None);
        }
        Ok(count) if count as u64 > limits::CREDENTIALS_BYTES_MAX => {
            return Err(Error::TooLarge { path: path.to_owned() });
        }
        Ok(_) => {}
    }
    if bytes.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// `registry/a/b`, `registry/a`, `registry`: podman allows a login for part of a registry.
fn lookup_names(image: &Reference) -> Vec<String> {
    let full = format!("{}/{}", image.registry(), image.repository());
    std::iter::successors(Some(full), |name| name.rsplit_once('/').map(|(shorter, _)| shorter.to_owned())).collect()
}

/// Keys are written as `host`, `https://host`, `https://host/v1/` …; Docker Hub has several names.
fn normalize(key: &str) -> String {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.split_once('/').map_or((key, ""), |(host, path)| (host, path));
    let host = if HUB_NAMES.contains(&host) { "docker.io".to_owned() } else { host.to_ascii_lowercase() };
    if path.is_empty() { host } else { format!("{host}/{path}") }
}

/// Reads a helper's answer: JSON, or the protocol's one way to say "I have none", on stdout.
fn parse_answer(success: bool, output: &[u8]) -> Result<Option<Login>, &'static str> {
    if !success {
        let none = String::from_utf8_lossy(output).contains("credentials not found");
        return if none { Ok(None) } else { Err("it reported an error") };
    }
    let answer: HelperAnswer = serde_json::from_slice(output).map_err(|_| "its answer is not valid")?;
    let secret = Secret::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Login::Identity(secret),
        _ => Login::Password { user: answer.username, password: secret },
    }))
}

/// Writes the question, reads the answer; `None` when it took too long, and the child is gone then.
fn converse(mut child: Child, question: &str, limit: Duration) -> io::Result<Option<(bool, Vec<u8>)>> {
    let deadline = Instant::now() + limit;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input may still answer, so a broken pipe is no failure.
        let _ = stdin.write_all(question.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::Builder::new().name("credentials".to_owned()).spawn(move || {
            let mut output = Vec::new();
            let result = stdout.take(limits::CREDENTIALS_BYTES_MAX).read_to_end(&mut output);
            let _ = sender.send(result.map(|_| output));
        })?;
    }
    let output = receiver.recv_timeout(limit);
    // Its end follows the end of its output; std has no wait with a limit.
    while output.is_ok() && Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return output.map_err(io::Error::other)?.map(|output| Some((status.success(), output)));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill()?;
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests;
