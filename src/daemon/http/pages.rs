//! Requests that are with the web thread: how many, for how long, and what became of them.

use super::slab::Slab;
use crate::daemon::web::Door;
use crate::http::exchange::Answer;
use crate::http::handoff::{BadAnswer, Handoff};
use crate::http::response::Status;
use crate::limits;
use mio::event::Event as Readiness;
use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};

/// Why a client gets no page.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoPage {
    #[error("too many requests for pages at once")]
    Busy,
    #[error("no page can be made for now: {0}")]
    Closed(io::Error),
    #[error("the page came to nothing: {0}")]
    Bad(#[from] BadAnswer),
    #[error("the page was not ready in time")]
    Late,
}

impl NoPage {
    pub const fn status(&self) -> Status {
        match self {
            Self::Busy | Self::Closed(_) => Status::ServiceUnavailable,
            Self::Bad(_) => Status::BadGateway,
            Self::Late => Status::GatewayTimeout,
        }
    }
}

/// The page for the client with this key, or why there is none.
pub(super) type Outcome = (usize, Result<Answer, NoPage>);

/// What the web thread has to do, and who waits for it.
#[derive(Debug)]
pub(super) struct Pages {
    door: Door,
    running: Slab<Running>,
    waiting: VecDeque<(usize, Handoff)>,
}

#[derive(Debug)]
struct Running {
    stream: UnixStream,
    handoff: Handoff,
    /// None when the client has been answered otherwise. The place stays taken until the handler is done: a handler that hangs must not
    /// be joined by any number of others.
    client: Option<usize>,
}

/// How far a handler has come.
enum Step {
    Waits,
    Done,
    Failed(BadAnswer),
}

impl Pages {
    pub fn new(door: Door) -> Self {
        Self { door, running: Slab::default(), waiting: VecDeque::new() }
    }

    /// Hands on a request, now or as soon as there is a place.
    pub fn ask(&mut self, registry: &Registry, client: usize, handoff: Handoff) -> Result<(), NoPage> {
        if self.running.len() < limits::WEB_REQUESTS_MAX {
            return self.start(registry, client, handoff);
        }
        if self.waiting.len() >= limits::WEB_WAITING_MAX {
            return Err(NoPage::Busy);
        }
        self.waiting.push_back((client, handoff));
        Ok(())
    }

    /// Nobody waits for the page of this client any more. Says why it came to nothing: no place, or no answer.
    pub fn forget(&mut self, client: usize) -> NoPage {
        self.waiting.retain(|(waiting, _)| *waiting != client);
        let key = self.running.iter().find(|(_, running)| running.client == Some(client)).map(|(key, _)| key);
        let Some(running) = key.and_then(|key| self.running.get_mut(key)) else { return NoPage::Busy };
        running.client = None;
        NoPage::Late
    }

    /// Goes on with what the poll has news of; what came of it is added to `outcomes`.
    pub fn handle_event(
        &mut self,
        registry: &Registry,
        event: &Readiness,
        buffer: &mut [u8],
        outcomes: &mut Vec<Outcome>,
    ) {
        let Some(key) = event.token().0.checked_sub(FIRST_PAGE) else { return };
        let Some(running) = self.running.get_mut(key) else { return };
        let result = match running.step(buffer) {
            Step::Waits => return,
            Step::Done => None,
            Step::Failed(error) => Some(error),
        };
        let Some(running) = self.running.remove(key) else { return };
        let Running { client, handoff, .. } = *running;
        if let Some(client) = client {
            outcomes.push((client, result.map_or_else(|| handoff.finish(), Err).map_err(NoPage::from)));
        }
        while self.running.len() < limits::WEB_REQUESTS_MAX
            && let Some((client, handoff)) = self.waiting.pop_front()
        {
            if let Err(error) = self.start(registry, client, handoff) {
                outcomes.push((client, Err(error)));
            }
        }
    }

    fn start(&mut self, registry: &Registry, client: usize, handoff: Handoff) -> Result<(), NoPage> {
        let key = self.running.vacant_key();
        let stream = self.door.connect().and_then(|mut stream| {
            registry.register(&mut stream, Token(FIRST_PAGE + key), Interest::READABLE | Interest::WRITABLE)?;
            Ok(stream)
        });
        match stream {
            Ok(stream) => {
                self.running.insert(key, Running { stream, handoff, client: Some(client) });
                Ok(())
            }
            Err(error) => {
                if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) {
                    self.door.broken();
                }
                Err(NoPage::Closed(error))
            }
        }
    }
}

impl Running {
    /// Sends and reads what can be at once. An answer is bounded, so this ends however fast the handler writes.
    fn step(&mut self, buffer: &mut [u8]) -> Step {
        while !self.handoff.to_send().is_empty() {
            match self.stream.write(self.handoff.to_send()) {
                Ok(bytes) => self.handoff.sent(bytes),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waits,
                Err(_) => return Step::Failed(BadAnswer::Cut),
            }
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Step::Done,
                Ok(bytes) => {
                    if let Err(error) = self.handoff.handle_input(&buffer[..bytes]) {
                        return Step::Failed(error);
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Step::Waits,
                Err(_) => return Step::Failed(BadAnswer::Cut),
            }
        }
    }
}

/// The first of [`limits::WEB_REQUESTS_MAX`] tokens.
pub(super) const FIRST_PAGE: usize = 3;
