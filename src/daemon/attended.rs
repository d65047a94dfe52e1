//! A run with consoles: the server as a child that is looked after, and a session on each serial line that was named.

use crate::config::{self, Args, ConfigError};
use crate::console::{Host, Profile};
use crate::daemon::check::{self, CheckError};
use crate::daemon::console;
use crate::daemon::inputs::HostInputs;
use crate::daemon::ring::Ring;
use crate::daemon::state::{StateDir, StateError};
use crate::daemon::stop::Stop;
use crate::daemon::supervise::{Folder, Layers, PlainHost, Program, Settings, Supervisor, Times};
use crate::sys::tty::{BadLine, Line, Tty};
use crate::sys::user::effective_user;
use crate::units::chain;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Why there is no such run.
#[derive(Debug, thiserror::Error)]
pub enum AttendedError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("--console")]
    Line(#[from] BadLine),
    #[error("--console {line} cannot be opened")]
    Device { line: Line, source: io::Error },
    #[error("with --console, {0} cannot be standard input: it is read anew whenever the server starts")]
    Stdin(&'static str),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot start the server")]
    Start(#[source] io::Error),
}

impl AttendedError {
    /// Whether the command line or the configuration is to blame, before anything was begun.
    #[must_use]
    pub const fn is_usage(&self) -> bool {
        matches!(self, Self::Config(_) | Self::Check(_) | Self::Line(_) | Self::Device { .. } | Self::Stdin(_))
    }
}

/// Runs until Ctrl-C. What consoles set is kept in the state directory.
///
/// # Errors
/// [`AttendedError`], for one line on stderr.
pub fn run(args: &Args) -> Result<(), AttendedError> {
    let lines = args.console.iter().map(|console| console.parse()).collect::<Result<Vec<Line>, _>>()?;
    for line in &lines {
        Tty::open(line).map(drop).map_err(|source| AttendedError::Device { line: line.clone(), source })?;
    }
    let base = Args { console: Vec::new(), ..args.clone() };
    for (named, what) in [(&base.config, "the configuration"), (&base.cloud_config, "the cloud config")] {
        if named.as_deref() == Some("-") {
            return Err(AttendedError::Stdin(what));
        }
    }
    let (config, _) = config::load(&base, &mut HostInputs::default())?;
    check::check(&config)?;
    let stop = Stop::on_signals().map_err(AttendedError::Start)?;
    // The server takes the directory's lock itself.
    let directory = StateDir::open(&config.state_dir, effective_user())?.path().to_owned();
    let ring = Ring::default();
    let supervisor = Supervisor::start(program(), ring.clone()).map_err(AttendedError::Start)?;
    let layers = Layers { args: base, fetches: true, ..Layers::default() };
    let mut settings = Settings::new(layers.clone(), Box::new(Folder(directory.clone())));
    if let Err(error) = settings.load() {
        // What was given is good: it is the consoles' own that is not.
        ::log::warn!("{}; what consoles have set is left out", chain(&error));
        let without = Layers { is_complete: true, is_fallback: true, ..layers };
        settings = Settings::new(without, Box::new(Folder(directory)));
    }
    let host = Arc::new(PlainHost::new(supervisor, settings, ring));
    let profile = Profile { title: config::cli::version().to_owned(), network: false, power: false };
    for line in lines {
        let host = Arc::clone(&host) as Arc<dyn Host + Send + Sync>;
        console::start(line, profile.clone(), host, &stop).map_err(AttendedError::Start)?;
    }
    if let Err(error) = host.apply() {
        ::log::warn!("{}", chain(&error));
    }
    stop.wait();
    host.supervisor.end();
    Ok(())
}

/// This program itself, once more.
fn program() -> Program {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("/proc/self/exe"));
    let echo = Arc::new(|line: &str| drop(writeln!(io::stderr(), "{line}"))); // a closed stderr stops nobody
    Program { path, prepare: Box::new(|_| Ok(())), echo, times: Times::default() }
}
