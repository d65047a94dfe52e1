//! Why an image cannot be had from a container daemon, each with what to do about it.

use std::io;
use std::time::Duration;

use super::address;
use super::name::Name;
use crate::limits;
use crate::source::{archive, client};
use crate::units::{Arch, chain};

/// Why there is no image from a daemon. `daemon` says which one: its kind and where it was reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Address(#[from] address::Error),
    #[error("cannot make a client for {place}")]
    Client { place: String, source: client::Error },
    #[error(
        "there is no Docker or podman daemon at {}; start one (systemctl start docker, or systemctl start podman.socket), or set DOCKER_HOST",
        .0.join(", ")
    )]
    NoDaemon(Vec<String>),
    #[error(
        "this user may not talk to the daemon at {0}; run as root, or join the group that owns it (usermod -aG docker USER, then log in again)"
    )]
    Denied(String),
    #[error("nobody answers at {0}; is the daemon running? (systemctl status docker, podman.socket)")]
    Refused(String),
    #[error("the daemon at {place} hangs: {what} took longer than {} s", .limit.as_secs_f32())]
    Hangs { place: String, what: &'static str, limit: Duration },
    #[error("the connection to {daemon} failed")]
    Connection { daemon: String, source: io::Error },
    #[error("cannot talk to {daemon}")]
    Talk { daemon: String, source: client::Error },
    #[error("{daemon} does not have the image {name}{}; build it there, or fetch it with {tool} pull {name}", has(.there))]
    NotFound { daemon: String, tool: &'static str, name: Name, there: String },
    #[error(
        "{daemon} has {name} for {actual}, but linux/{wanted} is wanted; set arch, or fetch that one with {tool} pull --platform linux/{wanted} {name}"
    )]
    OtherArch { daemon: String, tool: &'static str, name: Name, actual: String, wanted: Arch },
    #[error("{daemon} knows {name}, but has no layers of it; fetch it again with {tool} pull {name}")]
    NoLayers { daemon: String, tool: &'static str, name: Name },
    #[error("{name} has {count} layers in {daemon}; at most {max} are supported", max = limits::LAYERS_MAX)]
    Layers { daemon: String, name: Name, count: usize },
    #[error("{daemon} answers {status}{}", because(.message))]
    Status { daemon: String, status: u16, message: String },
    #[error("what answers at {place} is not a Docker or podman daemon; check DOCKER_HOST")]
    NotADaemon { place: String },
    #[error("{daemon} describes {name} in a way that is not understood: {what}")]
    Description { daemon: String, name: Name, what: String },
    #[error("{daemon} could not export {name}: {message}; registry://{name} takes it from its registry instead")]
    ExportRefused { daemon: String, name: Name, message: String },
    #[error("what {daemon} exported as {name} cannot be used")]
    Export { daemon: String, name: Name, source: Box<archive::Error> },
    #[error("{daemon} exported other layers than {name} had a moment ago; was it built anew meanwhile? Start again")]
    Changed { daemon: String, name: Name },
    #[error("{daemon} no longer has the image that {name} was a moment ago; was it built anew meanwhile? Start again")]
    Gone { daemon: String, name: Name },
    #[error(
        "the layers of {name} went from the cache as soon as they were there; does another run use the same state_dir?"
    )]
    NotKept { name: Name },
    #[error("no local daemon can give {name}: {}", .errors.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Several { name: Name, errors: Vec<Error> },
    #[error("stopped")]
    Stopped,
}

fn has(there: &str) -> String {
    if there.is_empty() { String::new() } else { format!("; it has {there}") }
}

fn because(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    /// Whether it is just that there is no daemon, or none that has the image for the wanted architecture. A name without prefix is then
    /// asked of its registry without further words.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        match self {
            Self::NoDaemon(_) | Self::NotFound { .. } | Self::OtherArch { .. } => true,
            Self::Several { errors, .. } => errors.iter().all(Self::is_absence),
            _ => false,
        }
    }

    /// Whether no daemon was reached that could have answered, which says nothing about the image: none runs, or it has a bad day.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::NoDaemon(_)
            | Self::Refused(_)
            | Self::Hangs { .. }
            | Self::Connection { .. }
            | Self::Talk { .. }
            | Self::Status { status: 500.., .. } => true,
            Self::Several { errors, .. } => errors.iter().all(Self::is_unreachable),
            _ => false,
        }
    }

    /// What it means that a daemon could not be talked to; `None` when nobody is there at all.
    pub(super) fn of_talk(place: &str, daemon: String, source: client::Error) -> Option<Self> {
        let place = place.to_owned();
        Some(match source {
            client::Error::Stopped => Self::Stopped,
            client::Error::Refused(_) => Self::Refused(place),
            client::Error::Timeout { what, limit, .. } => Self::Hangs { place, what, limit },
            client::Error::Io { source: io, .. } if io.kind() == io::ErrorKind::NotFound => return None,
            client::Error::Io { source: io, .. } if io.kind() == io::ErrorKind::PermissionDenied => Self::Denied(place),
            client::Error::Io { source, .. } => Self::Connection { daemon, source },
            source => Self::Talk { daemon, source },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_io(kind: io::ErrorKind) -> Option<Error> {
        let host = "/var/run/docker.sock".to_owned();
        let source = client::Error::Io { host: host.clone(), source: kind.into() };
        Error::of_talk(&host, host.clone(), source)
    }

    #[test]
    fn a_socket_that_is_not_there_is_told_from_one_that_may_not_be_used() {
        assert!(of_io(io::ErrorKind::NotFound).is_none());
        let denied = of_io(io::ErrorKind::PermissionDenied).unwrap();
        let line = denied.to_string();
        assert!(line.contains("daemon at /var/run/docker.sock") && line.contains("usermod -aG docker USER"), "{line}");
        let broken = of_io(io::ErrorKind::ConnectionReset).unwrap();
        assert!(chain(&broken).contains("the connection to /var/run/docker.sock failed: "), "{broken}");
        assert!(!denied.is_absence() && !broken.is_absence());
    }

    #[test]
    fn many_refusals_are_what_all_of_them_are() {
        let name: Name = "a".parse().unwrap();
        let none = || Error::NoDaemon(vec!["/x".to_owned()]);
        let several = |errors| Error::Several { name: name.clone(), errors };
        assert!(several(vec![none(), none()]).is_absence());
        assert!(!several(vec![none(), Error::Denied("/y".to_owned())]).is_absence());
        assert!(!Error::Stopped.is_absence());
        let denied = || Error::Denied("/y".to_owned());
        assert!(several(vec![none(), Error::Refused("/y".to_owned())]).is_unreachable());
        assert!(!several(vec![none(), denied()]).is_unreachable());
    }
}
