//! Images of the container daemon: from Debian's dockerd and podman, and from one that misbehaves.

mod exports;
pub mod fake;
mod faults;
mod finds;
pub mod real;

use std::path::Path;
use std::time::Duration;

use auroraboot::source::daemon::{Daemon, Error, Patience};
use auroraboot::units::{Arch, chain};

/// Bounds that a test does not wait long for, where it means to reach them.
const IMPATIENT: Patience = Patience {
    find: Duration::from_millis(300),
    require: Duration::from_millis(600),
    export: Duration::from_millis(600),
    stall: Duration::from_millis(900),
};

/// The daemon behind one socket, as `DOCKER_HOST` names it.
fn daemon_at(socket: &Path) -> Daemon {
    daemon_with(socket, Patience::default())
}

fn daemon_with(socket: &Path, patience: Patience) -> Daemon {
    let host = format!("unix://{}", socket.display());
    Daemon::with_patience(|name| (name == "DOCKER_HOST").then(|| host.clone()), patience).unwrap()
}

/// The line that an operator sees when a daemon cannot give the image.
fn refusal(daemon: &Daemon, name: &str) -> String {
    one_line(&daemon.require(&name.parse().unwrap(), Arch::Amd64).expect_err(name))
}

fn one_line(error: &Error) -> String {
    let line = chain(error);
    assert!(!line.contains(['\n', '\r', '\x1b']), "one line: {line:?}");
    line
}
