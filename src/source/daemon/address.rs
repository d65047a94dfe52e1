//! Where container daemons are: `DOCKER_HOST`, Docker's context, or the sockets that Docker and podman make by default.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::limits;
use crate::rootfs::shown;
use crate::source::manifest::digest_of;

/// How a daemon is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    Socket(PathBuf),
    /// `HOST:PORT`; plain HTTP.
    Tcp(String),
}

/// Why it cannot be told where the daemon is.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{origin} names the daemon {value:?}, but only unix:///PATH and tcp://HOST:PORT are supported{hint}")]
    Unsupported { origin: String, value: String, hint: &'static str },
    #[error("cannot read {path}, which says which Docker daemon to use; set DOCKER_HOST")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path}, which says which Docker daemon to use, is not JSON of its kind; set DOCKER_HOST")]
    Json { path: PathBuf, source: serde_json::Error },
}

/// What to do about a daemon on another host.
const SSH_HINT: &str = "; bring its socket here with ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock USER@HOST and set \
    DOCKER_HOST=unix:///tmp/docker.sock";
const TLS_HINT: &str = ", without TLS; bring its socket here with ssh -nNT -L /tmp/docker.sock:/var/run/docker.sock USER@HOST and \
    set DOCKER_HOST=unix:///tmp/docker.sock";
const PORT_DEFAULT: &str = "2375";

/// The daemons to ask, in this order. What the operator names is the only one; else there are the places where Docker and podman
/// listen, for the system and for this user.
pub(super) fn candidates(variable: impl Fn(&str) -> Option<String>) -> Result<Vec<Address>, Error> {
    let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(host) = variable("DOCKER_HOST") {
        let tls = variable("DOCKER_TLS_VERIFY").is_some() || variable("DOCKER_CERT_PATH").is_some();
        return Ok(vec![parse(&host, "DOCKER_HOST", tls)?]);
    }
    if let Some(address) = of_context(&variable)? {
        return Ok(vec![address]);
    }
    let system = [PathBuf::from("/var/run/docker.sock"), PathBuf::from("/run/podman/podman.sock")];
    let own = variable("XDG_RUNTIME_DIR").map(PathBuf::from).or_else(own_runtime_directory);
    // With sudo, the images are most often those of the user who typed it.
    let caller = variable("SUDO_UID").and_then(|uid| uid.parse::<u32>().ok()).map(runtime_directory);
    let of_users =
        own.into_iter().chain(caller).flat_map(|dir| [dir.join("podman/podman.sock"), dir.join("docker.sock")]);
    Ok(system.into_iter().chain(of_users).map(Address::Socket).collect())
}

/// Where a session manager would have made it, when nothing says.
fn own_runtime_directory() -> Option<PathBuf> {
    fs::metadata("/proc/self").ok().map(|metadata| runtime_directory(metadata.uid()))
}

fn runtime_directory(uid: u32) -> PathBuf {
    PathBuf::from(format!("/run/user/{uid}"))
}

fn parse(value: &str, origin: &str, tls: bool) -> Result<Address, Error> {
    let unsupported = |hint| Error::Unsupported { origin: origin.to_owned(), value: shown(value), hint };
    let (scheme, rest) = value.split_once("://").ok_or_else(|| unsupported(""))?;
    match scheme {
        "unix" if rest.starts_with('/') => Ok(Address::Socket(PathBuf::from(rest))),
        "tcp" | "http" if tls => Err(unsupported(TLS_HINT)),
        "tcp" | "http" => {
            let authority = rest.trim_end_matches('/');
            let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
            if authority.is_empty() || !authority.chars().all(clean) {
                return Err(unsupported(""));
            }
            let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let has_port = has_port && (!authority.starts_with('[') || authority.contains("]:"));
            Ok(Address::Tcp(if has_port { authority.to_owned() } else { format!("{authority}:{PORT_DEFAULT}") }))
        }
        "ssh" => Err(unsupported(SSH_HINT)),
        "https" => Err(unsupported(TLS_HINT)),
        _ => Err(unsupported("")),
    }
}

#[derive(Deserialize)]
struct ConfigFile {
    #[serde(rename = "currentContext", default)]
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct Context {
    #[serde(rename = "Endpoints", default)]
    endpoints: Endpoints,
}

#[derive(Deserialize, Default)]
struct Endpoints {
    #[serde(default)]
    docker: Endpoint,
}

#[derive(Deserialize, Default)]
struct Endpoint {
    #[serde(rename = "Host", default)]
    host: String,
}

/// The daemon that `docker context use` chose, or `DOCKER_CONTEXT` names. Contexts lie in folders named by the sha256 of their name.
fn of_context(variable: &impl Fn(&str) -> Option<String>) -> Result<Option<Address>, Error> {
    let dir = variable("DOCKER_CONFIG").map(PathBuf::from);
    let Some(dir) = dir.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".docker"))) else { return Ok(None) };
    let chosen = match variable("DOCKER_CONTEXT") {
        None => read::<ConfigFile>(&dir.join("config.json"))?.and_then(|config| config.current_context),
        named => named,
    };
    let Some(name) = chosen.filter(|name| !name.is_empty() && name != "default") else { return Ok(None) };
    let folder = digest_of(name.as_bytes()).hex();
    let path = dir.join("contexts/meta").join(&folder).join("meta.json");
    let missing = || Error::Read { path: path.clone(), source: io::ErrorKind::NotFound.into() };
    let host = read::<Context>(&path)?.ok_or_else(missing)?.endpoints.docker.host;
    let tls = dir.join("contexts/tls").join(folder).exists();
    parse(&host, &format!("the Docker context {:?}", shown(&name)), tls).map(Some)
}

/// A small file of JSON, if it is there.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let error = |source| Error::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(error)?,
    };
    let mut bytes = Vec::new();
    file.take(limits::CREDENTIALS_BYTES_MAX).read_to_end(&mut bytes).map_err(error)?;
    serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Json { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::chain;

    fn found(variables: &[(&str, &str)]) -> Result<Vec<Address>, Error> {
        candidates(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn sockets(paths: &[&str]) -> Vec<Address> {
        paths.iter().map(|path| Address::Socket(PathBuf::from(path))).collect()
    }

    #[test]
    fn the_usual_places_in_order() {
        assert_eq!(
            found(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("SUDO_UID", "1000"), ("DOCKER_HOST", "")]).unwrap(),
            sockets(&[
                "/var/run/docker.sock",
                "/run/podman/podman.sock",
                "/run/user/7/podman/podman.sock",
                "/run/user/7/docker.sock",
                "/run/user/1000/podman/podman.sock",
                "/run/user/1000/docker.sock",
            ])
        );
        let own = runtime_directory(fs::metadata("/proc/self").unwrap().uid()).join("docker.sock");
        assert_eq!(found(&[("SUDO_UID", "../x")]).unwrap().last(), Some(&Address::Socket(own)));
    }

    #[test]
    fn docker_host_is_the_only_one() {
        let host = |host: &str| found(&[("DOCKER_HOST", host)]).unwrap();
        assert_eq!(host("unix:///run/user/1000/docker.sock"), sockets(&["/run/user/1000/docker.sock"]));
        for (named, authority) in [
            ("tcp://10.0.0.1:2375", "10.0.0.1:2375"),
            ("tcp://10.0.0.1/", "10.0.0.1:2375"),
            ("http://docker.lan:80", "docker.lan:80"),
            ("tcp://[::1]", "[::1]:2375"),
            ("tcp://[::1]:1", "[::1]:1"),
        ] {
            assert_eq!(host(named), [Address::Tcp(authority.to_owned())], "{named}");
        }
    }

    #[test]
    fn what_is_not_supported_says_what_is() {
        for named in ["ssh://me@host", "npipe:////./pipe/docker_engine", "fd://", "/run/docker.sock", "unix://run/x"] {
            let line = found(&[("DOCKER_HOST", named)]).unwrap_err().to_string();
            assert!(
                line.contains("DOCKER_HOST names the daemon") && line.contains("unix:///PATH and tcp://"),
                "{line}"
            );
            assert_eq!(line.contains("ssh -nNT -L"), named.starts_with("ssh"), "{line}");
        }
        for named in ["tcp://", "tcp://a b", "tcp://a/../b", "tcp://a\r\nx:1", "tcp://u@h:1"] {
            assert!(found(&[("DOCKER_HOST", named)]).is_err(), "{named}");
        }
        for tls in ["DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"] {
            let line = found(&[("DOCKER_HOST", "tcp://h:2376"), (tls, "1")]).unwrap_err().to_string();
            assert!(line.contains("supported, without TLS; bring its socket here"), "{line}");
            assert!(found(&[("DOCKER_HOST", "unix:///x"), (tls, "1")]).is_ok(), "a socket has none");
        }
    }

    #[test]
    fn the_context_that_docker_uses() {
        let dir = std::env::temp_dir().join(format!("auroraboot-contexts-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        let meta = dir.join("contexts/meta").join(digest_of(b"mine").hex());
        fs::create_dir_all(&meta).unwrap();
        let config = dir.display().to_string();
        let usual = found(&[]).unwrap();
        let with = |variables: &[(&str, &str)]| found(&[variables, &[("DOCKER_CONFIG", &config)]].concat());
        assert_eq!(with(&[]).unwrap(), usual, "no configuration");
        fs::write(dir.join("config.json"), r#"{"auths": {}}"#).unwrap();
        assert_eq!(with(&[]).unwrap(), usual, "no context");
        fs::write(dir.join("config.json"), r#"{"currentContext": "mine"}"#).unwrap();
        let error = chain(&with(&[]).unwrap_err());
        assert!(error.contains("meta.json, which says which Docker daemon to use; set DOCKER_HOST: "), "{error}");
        let host = |host: &str| {
            let text =
                format!(r#"{{"Name": "mine", "Metadata": {{}}, "Endpoints": {{"docker": {{"Host": "{host}"}}}}}}"#);
            fs::write(meta.join("meta.json"), text).unwrap();
        };
        host("unix:///run/user/1000/docker.sock");
        assert_eq!(with(&[]).unwrap(), sockets(&["/run/user/1000/docker.sock"]));
        assert_eq!(with(&[("DOCKER_CONTEXT", "default")]).unwrap(), usual);
        assert_eq!(with(&[("DOCKER_HOST", "unix:///x")]).unwrap(), sockets(&["/x"]));
        host("ssh://me@host");
        let error = with(&[]).unwrap_err().to_string();
        assert!(error.starts_with("the Docker context \"mine\" names the daemon \"ssh://me@host\""), "{error}");
        host("tcp://host:2376");
        assert!(with(&[]).is_ok());
        fs::create_dir_all(dir.join("contexts/tls").join(digest_of(b"mine").hex())).unwrap();
        assert!(with(&[]).unwrap_err().to_string().contains("without TLS"));
        fs::write(dir.join("config.json"), "{").unwrap();
        assert!(chain(&with(&[]).unwrap_err()).contains("is not JSON of its kind; set DOCKER_HOST: "));
        fs::remove_dir_all(&dir).unwrap();
    }
}
