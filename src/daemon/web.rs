//! The `web` thread: tiny_http on a Unix socket that only the `http` loop can reach.
//!
//! tiny_http's listener does not survive a want of descriptors: an `accept` that fails ends it, and a `dup` that fails panics in it, in
//! which case nobody is told. So the loop in front lets it have a connection only while there are descriptors to spare, knocks at
//! [`Door::broken`] when the socket answers no more, and this thread then opens a new one.

use crate::limits;
use crate::netboot::event::{Event, Teller};
use crate::units::chain;
use std::borrow::Cow;
use std::fmt;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Answers one request; it may block.
pub type Handler = Box<dyn Fn(tiny_http::Request) + Send>;

/// Why the web thread cannot start.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    #[error("cannot use {path} for the socket of the web thread")]
    Directory { path: PathBuf, source: io::Error },
    #[error("cannot open the socket of the web thread in {path}")]
    Listen { path: PathBuf, source: io::Error },
}

/// The server behind the door, run by the thread that calls [`Web::run`].
pub struct Web {
    door: Door,
    handler: Handler,
    events: Teller,
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Web").field("door", &self.door).finish_non_exhaustive()
    }
}

/// The way in for the loop in front; also ends [`Web::run`].
#[derive(Debug, Clone)]
pub struct Door(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    socket: PathBuf,
    /// Kept open: the socket is reached through it, because a socket's path has room for 107 bytes only. It stands below the server in
    /// `state`, which reaches for its socket once more when it is dropped.
    directory: File,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("socket", &self.socket).finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    /// None while a new one is being opened.
    server: Option<Arc<tiny_http::Server>>,
    broken: bool,
    stopped: bool,
}

impl Web {
    /// Opens the socket in `directory`, which is made if it is not there and is closed to all other users.
    ///
    /// # Errors
    /// [`WebError`], when that cannot be done.
    pub fn bind(directory: &Path, handler: Handler, events: Teller) -> Result<Self, WebError> {
        let failed = |source| WebError::Directory { path: directory.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        fs::set_permissions(directory, Permissions::from_mode(0o700)).map_err(failed)?;
        let opened = File::open(directory).map_err(failed)?;
        let socket = PathBuf::from(format!("/proc/self/fd/{}/{SOCKET}", opened.as_raw_fd()));
        let shared = Shared { state: Mutex::default(), changed: Condvar::new(), socket, directory: opened };
        let door = Door(Arc::new(shared));
        door.open().map_err(|source| WebError::Listen { path: directory.to_owned(), source })?;
        Ok(Self { door, handler, events })
    }

    #[must_use]
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Answers requests until [`Door::stop`].
    pub fn run(mut self) {
        while let Some(server) = self.door.server() {
            let why = self.serve(&server);
            drop(server); // the last but one: the door's own goes when it opens again
            if !self.reopen(&why) {
                return;
            }
        }
    }

    /// Answers until the server ends; tells why it did.
    fn serve(&mut self, server: &tiny_http::Server) -> String {
        loop {
            let request = match server.recv() {
                Ok(request) => request,
                Err(error) => return chain(&error),
            };
            // A page that cannot be made is no reason to make no others; tiny_http answers 500 for it.
            if catch_unwind(AssertUnwindSafe(|| (self.handler)(request))).is_err() {
                self.tell("a page could not be made, by a fault of this program; please report what stands above");
            }
        }
    }

    fn tell(&mut self, what: impl Into<Cow<'static, str>>) {
        self.events.tell(Event::Trouble { what: what.into() });
    }

    /// Opens the door again, as often as it takes; false when that is not wanted any more.
    fn reopen(&mut self, why: &str) -> bool {
        let old = self.door.lock().server.take();
        drop(old); // not under the lock, for which the loop in front would have to wait
        let mut state = self.door.lock();
        let was_broken = std::mem::take(&mut state.broken);
        if state.stopped {
            return false;
        }
        drop(state);
        let why = if was_broken { "it did not answer" } else { why };
        self.tell(format!("the server of the web pages is started again: {why}"));
        while let Err(error) = self.door.open() {
            self.tell(format!("the web pages cannot be served for now: {error}"));
            let state = self.door.lock();
            let waiting = self.door.0.changed.wait_timeout_while(state, limits::WEB_RETRY, |state| !state.stopped);
            if waiting.unwrap_or_else(PoisonError::into_inner).0.stopped {
                return false;
            }
        }
        true
    }
}

impl Door {
    /// A connection to the server behind; it is there at once or not at all.
    ///
    /// # Errors
    /// When there are too few descriptors for both sides of it, or nobody answers.
    pub fn connect(&self) -> io::Result<mio::net::UnixStream> {
        let spare: Vec<File> =
            (0..DESCRIPTORS_PER_CONNECTION).map(|_| self.0.directory.try_clone()).collect::<Result<_, _>>()?;
        drop(spare);
        mio::net::UnixStream::connect(&self.0.socket)
    }

    /// Has the server replaced: its socket does not answer.
    pub fn broken(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.broken, true)
            && let Some(server) = &state.server
        {
            server.unblock();
        }
    }

    /// Ends [`Web::run`].
    pub fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        if let Some(server) = &state.server {
            server.unblock();
        }
        self.0.changed.notify_all();
    }

    /// None also for one that was opened while the end was asked for: nobody would unblock it.
    fn server(&self) -> Option<Arc<tiny_http::Server>> {
        let state = self.lock();
        state.server.clone().filter(|_| !state.stopped)
    }

    fn open(&self) -> io::Result<()> {
        let _ = fs::remove_file(&self.0.socket); // of an earlier run that was killed
        let listener = UnixListener::bind(&self.0.socket)?;
        // It starts threads, and panics when there can be no more of them.
        let server = catch_unwind(|| tiny_http::Server::from_listener(listener, None));
        let server = server.map_err(|_| io::Error::other("no threads are left"))?.map_err(io::Error::other)?;
        self.lock().server = Some(Arc::new(server));
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SOCKET: &str = "web.sock";
/// Ours, the one that `accept` makes of it, and the copy of that one which tiny_http reads from.
const DESCRIPTORS_PER_CONNECTION: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netboot::event;

    #[test]
    fn an_end_that_comes_while_the_door_is_closed_is_not_lost() {
        let folder = std::env::temp_dir().join(format!("auroraboot-web-{}", std::process::id()));
        let (teller, _events) = event::channel(10);
        let web = Web::bind(&folder, Box::new(drop), teller).unwrap();
        let door = web.door();
        // As in `reopen`: the old server is gone, the end is asked for, and then there is a new one.
        drop(door.lock().server.take());
        door.stop();
        door.open().unwrap();
        web.run();
        fs::remove_dir_all(&folder).unwrap();
    }
}
