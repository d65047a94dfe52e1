//! One client: its socket, its exchange, and what is being sent to it.

use super::pages::NoPage;
use crate::http::exchange::{Answer, Exchange, Expired, Next, Timeouts, ToSend};
use crate::http::handoff::{Handoff, canonical};
use crate::http::head::{Method, Refusal, Request};
use crate::http::response::{self, Entity, Status};
use crate::netboot::event::{Event, Protocol, Teller};
use crate::netboot::served::{Body, Served, What};
use crate::sys::sendfile::{send_before_more, sendfile};
use crate::web::listing::Shelf;
use mio::event::Event as Readiness;
use mio::net::TcpStream;
use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Context {
    pub served: Option<Arc<Served>>,
    pub shelf: Shelf,
    pub events: Teller,
    pub buffer: Box<[u8]>,
}

/// Which of the two servers a client came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Site {
    /// Port 8090: what machines boot.
    Netboot,
    /// Port 8080: ISOs, and pages for people.
    Media,
}

/// What a connection's turn came to.
#[derive(Debug)]
pub(super) enum Turn {
    /// Nothing can be done before the next event.
    Wait,
    /// Its share of this turn is used up; it has more to do.
    Again,
    /// The web thread is to be asked; the answer goes to [`Connection::answer_page`].
    Ask(Handoff),
    Close,
}

#[derive(Debug)]
pub(super) struct Connection {
    site: Site,
    stream: TcpStream,
    peer: SocketAddr,
    pub exchange: Exchange,
    pub accepted: Duration,
    /// Whether it stands in the loop's queue.
    pub queued: bool,
    /// Events tell changes only, so these hold until the kernel says `WouldBlock`.
    readable: bool,
    writable: bool,
    sending: Option<Sending>,
    /// What the web thread was asked and has not answered yet.
    page: Option<PageRequest>,
}

/// How to answer when the web thread does not.
#[derive(Debug)]
struct PageRequest {
    method: Method,
    keep_alive: bool,
}

/// The body that is on its way.
#[derive(Debug)]
struct Sending {
    what: Sent,
    body: Body,
    range: Range<u64>,
    /// Bytes of `range` that the kernel has taken.
    sent: u64,
    began: Duration,
}

/// What a body is, for the log.
#[derive(Debug)]
enum Sent {
    Boot(What),
    Download(Arc<str>),
}

/// What a path stands for, and the header lines of its site.
struct Found {
    what: Sent,
    content_type: &'static str,
    headers: Arc<str>,
    body: Body,
}

impl Connection {
    pub fn new(now: Duration, site: Site, stream: TcpStream, peer: SocketAddr, timeouts: Timeouts) -> Self {
        Self {
            site,
            stream,
            peer: canonical(peer),
            exchange: Exchange::new(now, timeouts),
            accepted: now,
            queued: false,
            readable: false,
            writable: false,
            sending: None,
            page: None,
        }
    }

    /// Takes note of what the poll says. Errors and hang-ups count as both: the next read or write tells which it was.
    pub fn note_event(&mut self, event: &Readiness) {
        let broken = event.is_error();
        self.readable |= event.is_readable() || event.is_read_closed() || broken;
        self.writable |= event.is_writable() || event.is_write_closed() || broken;
    }

    /// Does what can be done at once, within a share that leaves the others theirs.
    pub fn turn(&mut self, now: Duration, context: &mut Context) -> Turn {
        let mut share = TURN_BYTES;
        loop {
            if share == 0 {
                return Turn::Again;
            }
            let step = if self.exchange.to_send() != ToSend::Nothing {
                self.send(now, share, context)
            } else if let Some(request) = self.exchange.poll_request() {
                self.answer(now, request, context)
            } else if !self.exchange.wants_input() {
                Err(Turn::Wait)
            } else {
                self.read(now, context)
            };
            match step {
                Ok(bytes) => share = share.saturating_sub(bytes),
                Err(turn) => return turn,
            }
        }
    }

    /// Reads once; what it costs, or how the turn ends.
    fn read(&mut self, now: Duration, context: &mut Context) -> Result<u64, Turn> {
        if !self.readable {
            return Err(Turn::Wait);
        }
        match self.stream.read(&mut context.buffer) {
            Ok(bytes) => match self.exchange.handle_input(now, &context.buffer[..bytes]) {
                Next::Close => Err(Turn::Close),
                _ => Ok(bytes as u64),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.readable = false;
                Err(Turn::Wait)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(1),
            Err(_) => Err(Turn::Close),
        }
    }

    /// Sends once, at most `share` bytes of a body; what it costs, or how the turn ends.
    fn send(&mut self, now: Duration, share: u64, context: &mut Context) -> Result<u64, Turn> {
        if !self.writable {
            return Err(Turn::Wait);
        }
        let sent = match (self.exchange.to_send(), &self.sending) {
            (ToSend::Head { bytes, body_follows: true }, _) => send_before_more(&self.stream, bytes),
            (ToSend::Head { bytes, body_follows: false }, _) => (&self.stream).write(bytes),
            (ToSend::Body(range), Some(sending)) => send_body(&self.stream, &sending.body, range, share),
            _ => return Err(Turn::Close),
        };
        match sent {
            Ok(bytes) => {
                let was_body = matches!(self.exchange.to_send(), ToSend::Body(_));
                if let Some(sending) = self.sending.as_mut().filter(|_| was_body) {
                    sending.sent += bytes as u64;
                }
                let next = self.exchange.sent(now, bytes as u64);
                if next != Next::Send {
                    self.tell_sent(now, context);
                }
                if next == Next::Shut {
                    let _ = self.stream.shutdown(Shutdown::Write);
                }
                Ok(bytes as u64)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.writable = false;
                Err(Turn::Wait)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(1),
            Err(error) => {
                let reason = match error.kind() {
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Cow::from("the client left"),
                    _ => Cow::from(error.to_string()),
                };
                self.tell_broken(reason, context);
                Err(Turn::Close)
            }
        }
    }

    /// Answers a request, or says who has to.
    fn answer(&mut self, now: Duration, request: Result<Request, Refusal>, context: &mut Context) -> Result<u64, Turn> {
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                let head = response::error(refusal.status, refusal.reason, false, true);
                context.events.tell(Event::Refused { to: self.peer, reason: refusal.reason.into() });
                self.exchange.answer(now, Answer { head, body: 0..0, keep_alive: false });
                return Ok(REQUEST_COST);
            }
        };
        let Ok(local) = self.stream.local_addr() else { return Err(Turn::Close) }; // the connection is gone
        match (self.find(local, &request.path, context), self.site) {
            (Some(found), _) => self.answer_file(now, &request, found),
            (None, Site::Media) => {
                self.exchange.defer(now);
                self.page = Some(PageRequest { method: request.method, keep_alive: request.keep_alive });
                return Err(Turn::Ask(Handoff::new(&request, self.peer, local)));
            }
            (None, Site::Netboot) => {
                context.events.tell(Event::Refused { to: self.peer, reason: NOT_SERVED.into() });
                self.answer_error(now, Status::NotFound, NOT_SERVED, request.method, request.keep_alive);
            }
        }
        Ok(REQUEST_COST)
    }

    fn find(&self, local: SocketAddr, path: &str, context: &Context) -> Option<Found> {
        match self.site {
            Site::Netboot => {
                let SocketAddr::V4(local) = local else { return None };
                let found = context.served.as_ref()?.find(local, path)?;
                let headers = Arc::from("");
                Some(Found {
                    what: Sent::Boot(found.what),
                    content_type: found.content_type,
                    headers,
                    body: found.body,
                })
            }
            Site::Media => {
                let listing = context.shelf.listing();
                let found = listing.find(path)?;
                Some(Found {
                    what: Sent::Download(Arc::clone(&found.name)),
                    content_type: found.content_type,
                    headers: Arc::clone(&found.headers),
                    body: found.body.clone(),
                })
            }
        }
    }

    fn answer_file(&mut self, now: Duration, request: &Request, found: Found) {
        let (size, etag) = (found.body.size(), found.body.etag());
        let entity = Entity { size, content_type: found.content_type, etag, headers: &found.headers };
        let response::Response { head, body, .. } = response::file(request, entity);
        self.exchange.answer(now, Answer { head, body: body.clone(), keep_alive: request.keep_alive });
        // A HEAD, or a range that is not there, sends nothing that is worth telling.
        self.sending = (!body.is_empty()).then_some(Sending {
            what: found.what,
            body: found.body,
            range: body,
            sent: 0,
            began: now,
        });
    }

    fn answer_error(&mut self, now: Duration, status: Status, reason: &str, method: Method, keep_alive: bool) {
        let head = response::error(status, reason, keep_alive, method == Method::Get);
        self.exchange.answer(now, Answer { head, body: 0..0, keep_alive });
    }

    /// Gives the web thread's answer, or says why there is none.
    pub fn answer_page(&mut self, now: Duration, outcome: Result<Answer, NoPage>, context: &mut Context) {
        let Some(asked) = self.page.take() else { return };
        let error = match outcome {
            Ok(answer) => return self.exchange.answer(now, answer),
            Err(error) => error,
        };
        let reason = error.to_string();
        context.events.tell(Event::Refused { to: self.peer, reason: reason.clone().into() });
        self.answer_error(now, error.status(), &reason, asked.method, asked.keep_alive);
    }

    fn tell_sent(&mut self, now: Duration, context: &mut Context) {
        let Some(sending) = self.sending.take() else { return };
        if sending.range.end != sending.body.size() {
            return; // the middle of a file, asked for by a range, is no news
        }
        let (to, bytes, took) = (self.peer, sending.sent, now.saturating_sub(sending.began));
        context.events.tell(match sending.what {
            Sent::Boot(What::Front) => return,
            Sent::Boot(What::Script(mac)) => Event::ScriptSent { mac, to, by: Protocol::Http },
            Sent::Boot(What::Piece(mac, piece)) => Event::FileSent { mac, piece, to, bytes, took },
            Sent::Download(name) => Event::DownloadSent { name, to, bytes, took },
        });
    }

    fn tell_broken(&mut self, reason: Cow<'static, str>, context: &mut Context) {
        let Some(Sending { what, body, range, sent, .. }) = self.sending.take() else { return };
        let (to, sent, size) = (self.peer, range.start + sent, body.size());
        context.events.tell(match what {
            Sent::Boot(What::Piece(mac, piece)) => Event::FileBroken { mac, piece, to, sent, size, reason },
            Sent::Boot(_) => return,
            Sent::Download(name) => Event::DownloadBroken { name, to, sent, size, reason },
        });
    }

    /// Tells what the loop is about to close, and why.
    pub fn tell_expired(&mut self, expired: Expired, context: &mut Context) {
        match expired {
            Expired::Head => {
                context.events.tell(Event::Refused { to: self.peer, reason: expired.explain().into() });
            }
            Expired::Stall => self.tell_broken(expired.explain().into(), context),
            Expired::Idle | Expired::Linger | Expired::Answer => {}
        }
    }
}

/// Hands up to `share` bytes of `range` to the kernel.
fn send_body(stream: &TcpStream, body: &Body, range: Range<u64>, share: u64) -> io::Result<usize> {
    let wanted = (range.end - range.start).min(share);
    let gone = || io::Error::new(ErrorKind::UnexpectedEof, "the file has become shorter");
    match body {
        Body::Memory(memory) => {
            let start = usize::try_from(range.start).map_err(|_| gone())?;
            let rest = memory.bytes.get(start..).ok_or_else(gone)?;
            let wanted = usize::try_from(wanted).map_or(rest.len(), |wanted| wanted.min(rest.len()));
            let mut stream = stream;
            stream.write(&rest[..wanted])
        }
        Body::Blob(blob) => {
            let place = blob.locate(range.start).ok_or_else(gone)?;
            match sendfile(stream, blob.file(), place.offset, place.length.min(wanted))? {
                0 => Err(gone()),
                bytes => Ok(bytes),
            }
        }
    }
}

const NOT_SERVED: &str = "nothing is served under this name";
/// A connection's share of a turn.
const TURN_BYTES: u64 = 1 << 20;
/// What answering counts for, so that pipelined requests for nothing share fairly too.
const REQUEST_COST: u64 = 16 << 10;
