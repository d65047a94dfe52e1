//! One client: its socket, its exchange, and what is being sent to it.

use crate::http::exchange::{Answer, Exchange, Expired, Next, Timeouts, ToSend};
use crate::http::head::{Method, Refusal, Request};
use crate::http::response::{self, Entity, Status};
use crate::netboot::event::{Event, Protocol, Teller};
use crate::netboot::served::{Body, Served, What};
use crate::sys::sendfile::{send_before_more, sendfile};
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
    pub served: Arc<Served>,
    pub events: Teller,
    pub buffer: Box<[u8]>,
}

/// What a connection's turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing can be done before the next event.
    Wait,
    /// Its share of this turn is used up; it has more to do.
    Again,
    Close,
}

#[derive(Debug)]
pub(super) struct Connection {
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
}

/// The body that is on its way.
#[derive(Debug)]
struct Sending {
    what: What,
    body: Body,
    range: Range<u64>,
    /// Bytes of `range` that the kernel has taken.
    sent: u64,
    began: Duration,
}

impl Connection {
    pub fn new(now: Duration, stream: TcpStream, peer: SocketAddr, timeouts: Timeouts) -> Self {
        Self {
            stream,
            peer,
            exchange: Exchange::new(now, timeouts),
            accepted: now,
            queued: false,
            readable: false,
            writable: false,
            sending: None,
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
                self.answer(now, request, context);
                Ok(REQUEST_COST)
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

    fn answer(&mut self, now: Duration, request: Result<Request, Refusal>, context: &mut Context) {
        let request = match request {
            Ok(request) => request,
            Err(refusal) => {
                let head = response::error(refusal.status, refusal.reason, false, true);
                context.events.tell(Event::Refused { to: self.peer, reason: refusal.reason.into() });
                return self.exchange.answer(now, Answer { head, body: 0..0, keep_alive: false });
            }
        };
        let keep_alive = request.keep_alive;
        let local = match self.stream.local_addr() {
            Ok(SocketAddr::V4(local)) => Some(local),
            _ => None, // the connection is gone; the next write tells
        };
        let Some(found) = local.and_then(|local| context.served.find(local, &request.path)) else {
            context.events.tell(Event::Refused { to: self.peer, reason: NOT_SERVED.into() });
            let head = response::error(Status::NotFound, NOT_SERVED, keep_alive, request.method == Method::Get);
            return self.exchange.answer(now, Answer { head, body: 0..0, keep_alive });
        };
        let size = found.body.size();
        let entity = Entity { size, content_type: found.content_type, etag: found.body.etag() };
        let response::Response { head, body, .. } = response::file(&request, entity);
        self.exchange.answer(now, Answer { head, body: body.clone(), keep_alive });
        // A HEAD, or a range that is not there, sends nothing that is worth telling.
        self.sending = (!body.is_empty()).then_some(Sending {
            what: found.what,
            body: found.body,
            range: body,
            sent: 0,
            began: now,
        });
    }

    fn tell_sent(&mut self, now: Duration, context: &mut Context) {
        let Some(sending) = self.sending.take() else { return };
        let size = sending.body.size();
        match sending.what {
            What::Front => {}
            // The middle of a file, asked for by a range, is no news.
            _ if sending.range.end != size => {}
            What::Script(mac) => {
                context.events.tell(Event::ScriptSent { mac, to: self.peer, by: Protocol::Http });
            }
            What::Piece(mac, piece) => {
                let took = now.saturating_sub(sending.began);
                context.events.tell(Event::FileSent { mac, piece, to: self.peer, bytes: sending.sent, took });
            }
        }
    }

    fn tell_broken(&mut self, reason: Cow<'static, str>, context: &mut Context) {
        if let Some(Sending { what: What::Piece(mac, piece), body, range, sent, .. }) = self.sending.take() {
            let (sent, size) = (range.start + sent, body.size());
            context.events.tell(Event::FileBroken { mac, piece, to: self.peer, sent, size, reason });
        }
    }

    /// Tells what the loop is about to close, and why.
    pub fn tell_expired(&mut self, expired: Expired, context: &mut Context) {
        match expired {
            Expired::Head => {
                context.events.tell(Event::Refused { to: self.peer, reason: expired.explain().into() });
            }
            Expired::Stall => self.tell_broken(expired.explain().into(), context),
            Expired::Idle | Expired::Linger => {}
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
