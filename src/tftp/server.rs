//! All transfers of one server: who may begin, who waits, whose turn it is to send.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::budget::ErrorBudget;
use super::name::{self, BadName};
use super::options::Terms;
use super::packet::{ErrorCode, Packet, ParseError, Request, emit_error};
use super::transfer::{End, Failure, Transfer};
use super::{Content, Files};
use crate::limits::{
    TFTP_ACTIVE_MAX, TFTP_EVENTS_MAX, TFTP_REQUEST_BYTES_MAX, TFTP_RESEND_FIRST, TFTP_WAIT, TFTP_WAITING_MAX,
};

/// Names an active transfer, and its socket in the I/O shell; used again after [`Output::Close`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TransferId(pub usize);

/// How a datagram came to port 69.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub from: SocketAddrV4,
    /// The address it was sent to.
    pub to: Ipv4Addr,
    /// The own address to answer from; differs from `to` when that is a broadcast or multicast one.
    pub local: Ipv4Addr,
    /// MTU of the interface it came by, bytes.
    pub mtu: u16,
}

/// What the I/O shell has to do next; the bytes are in the buffer given to [`Server::poll_output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// Open a socket on `local` with a port of its own: the server's transfer id (RFC 1350 §4).
    Open { id: TransferId, local: Ipv4Addr, peer: SocketAddrV4 },
    /// Send from the transfer's socket: datagrams of `datagram_len` bytes each, the last one perhaps shorter.
    Send { id: TransferId, to: SocketAddrV4, datagram_len: usize },
    /// Send one datagram from port 69 of `local`.
    Reply { local: Ipv4Addr, to: SocketAddrV4 },
    /// Close the transfer's socket.
    Close { id: TransferId },
}

/// What the operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The client has the file.
    Sent {
        name: String,
        to: SocketAddrV4,
        bytes: u64,
        took: Duration,
    },
    /// The client asked for the size or the existence only.
    Probed {
        name: String,
        to: SocketAddrV4,
    },
    Failed {
        name: String,
        to: SocketAddrV4,
        failure: Failure,
    },
    /// A request that began no transfer.
    Refused {
        name: String,
        from: SocketAddrV4,
        refusal: Refusal,
    },
}

/// Why a request began no transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("no such file")]
    NotFound,
    #[error("the name leaves the served files")]
    Climbs,
    #[error("the name is not readable")]
    BadName,
    #[error("this server is read-only")]
    Write,
    #[error("transfer mode is neither octet nor netascii")]
    Mode,
    #[error("{0}")]
    Malformed(ParseError),
    #[error("the request is too long")]
    TooLong,
    #[error("busy: too many requests wait")]
    Busy,
}

impl Refusal {
    /// The code on the wire. shim continues after code 1 and no other when one of its optional files is missing.
    #[must_use]
    pub fn code(self) -> ErrorCode {
        match self {
            Self::NotFound | Self::BadName => ErrorCode::FILE_NOT_FOUND,
            Self::Climbs | Self::Write => ErrorCode::ACCESS_VIOLATION,
            Self::Mode | Self::Malformed(_) | Self::TooLong => ErrorCode::ILLEGAL_OPERATION,
            Self::Busy => ErrorCode::UNDEFINED,
        }
    }
}

/// How many may be served and may wait at once.
#[derive(Debug, Clone, Copy)]
pub struct Capacity {
    pub active: usize,
    pub waiting: usize,
}

impl Default for Capacity {
    fn default() -> Self {
        Self { active: TFTP_ACTIVE_MAX, waiting: TFTP_WAITING_MAX }
    }
}

/// The server's state; see the module's docs for the order of calls.
pub struct Server {
    files: Arc<dyn Files>,
    capacity: Capacity,
    /// Slot `n` belongs to `TransferId(n)`.
    slots: Vec<Option<Active>>,
    free: Vec<TransferId>,
    peers: HashMap<SocketAddrV4, Place>,
    /// First come, first served.
    waiting: VecDeque<SocketAddrV4>,
    /// Transfers with something to send, each once; they take turns by bursts.
    ready: VecDeque<TransferId>,
    due: VecDeque<Due>,
    timers: BinaryHeap<Reverse<(Instant, TransferId)>>,
    /// When waiting requests are looked through for those that were not repeated.
    sweep_at: Option<Instant>,
    budget: ErrorBudget,
    events: VecDeque<Event>,
}

enum Place {
    Active(TransferId),
    Waiting(Ask),
}

/// An accepted request.
struct Ask {
    name: String,
    /// The whole request, to recognize its repetition.
    request: Box<[u8]>,
    content: Content,
    terms: Terms,
    local: Ipv4Addr,
    asked_at: Instant,
}

struct Active {
    peer: SocketAddrV4,
    name: String,
    request: Box<[u8]>,
    transfer: Transfer,
    is_ready: bool,
    /// The earliest timer in the heap that is this transfer's.
    armed_at: Option<Instant>,
}

/// Outputs besides DATA, in order.
enum Due {
    Plain(Output),
    WithBytes(Output, Vec<u8>),
}

impl Server {
    #[must_use]
    pub fn new(files: Arc<dyn Files>, capacity: Capacity) -> Self {
        Self {
            files,
            capacity,
            slots: Vec::new(),
            free: Vec::new(),
            peers: HashMap::new(),
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            due: VecDeque::new(),
            timers: BinaryHeap::new(),
            sweep_at: None,
            budget: ErrorBudget::new(),
            events: VecDeque::new(),
        }
    }

    /// Transfers that hold a socket.
    #[must_use]
    pub fn active(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// A datagram came to port 69.
    pub fn handle_request(&mut self, now: Instant, arrival: &Arrival, bytes: &[u8]) {
        if !is_answerable(arrival) {
            return;
        }
        let (name, outcome) = match Packet::parse(bytes) {
            Ok(Packet::Read(request)) => {
                (name::printable(request.name), self.read_request(now, arrival, &request, bytes))
            }
            Ok(Packet::Write(request)) => (name::printable(request.name), Err(Refusal::Write)),
            // An answer to an ERROR could be answered in turn; the others are strays of ended transfers.
            Ok(Packet::Error { .. } | Packet::Data | Packet::Ack(_) | Packet::OptionAck) => return,
            Err(error) => (String::new(), Err(Refusal::Malformed(error))),
        };
        if let Err(refusal) = outcome {
            self.refuse(now, arrival, name, refusal);
        }
    }

    /// A datagram came to a transfer's own port.
    pub fn handle_datagram(&mut self, now: Instant, id: TransferId, from: SocketAddrV4, bytes: &[u8]) {
        let Some(active) = self.slots.get_mut(id.0).and_then(Option::as_mut) else { return };
        let Ok(packet) = Packet::parse(bytes) else { return };
        if from != active.peer {
            // RFC 1350 §4: tell the stranger, leave the transfer alone. An ERROR is never answered.
            if !matches!(packet, Packet::Error { .. }) && from.port() != 0 && self.budget.take(now) {
                self.send_error(id, from, ErrorCode::UNKNOWN_TRANSFER_ID, "unknown transfer id");
            }
            return;
        }
        match active.transfer.handle_packet(now, &packet) {
            Some(end) => self.end(now, id, end),
            None => self.schedule(id),
        }
    }

    /// The peer's host answered that its port is closed.
    pub fn handle_gone(&mut self, now: Instant, id: TransferId) {
        let end = self.slots.get(id.0).and_then(Option::as_ref).map(|active| active.transfer.handle_gone());
        if let Some(end) = end {
            self.end(now, id, end);
        }
    }

    /// The socket of [`Output::Open`] could not be had.
    pub fn handle_no_socket(&mut self, now: Instant, id: TransferId, error: std::io::ErrorKind) {
        self.end(now, id, End::Failed(Failure::Socket(error)));
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&Reverse((at, id))) = self.timers.peek() {
            if at > now {
                break;
            }
            self.timers.pop();
            let Some(active) = self.slots.get_mut(id.0).and_then(Option::as_mut) else { continue };
            if active.armed_at != Some(at) {
                continue; // of the slot's former owner, or replaced by an earlier one
            }
            active.armed_at = None;
            match active.transfer.handle_timeout(now) {
                Some(end) => self.end(now, id, end),
                None => self.schedule(id),
            }
        }
        if self.sweep_at.is_some_and(|at| now >= at) {
            self.sweep(now);
        }
    }

    /// When [`Server::handle_timeout`] wants to be called; may be earlier than needed.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        [timer, self.sweep_at].into_iter().flatten().min()
    }

    /// What to do next; `bytes` is emptied first. To be called until it returns `None`.
    pub fn poll_output(&mut self, now: Instant, bytes: &mut Vec<u8>) -> Option<Output> {
        loop {
            bytes.clear();
            match self.due.pop_front() {
                Some(Due::Plain(output)) => return Some(output),
                Some(Due::WithBytes(output, datagram)) => {
                    bytes.extend_from_slice(&datagram);
                    return Some(output);
                }
                None => {}
            }
            let id = self.ready.pop_front()?;
            let Some(active) = self.slots.get_mut(id.0).and_then(Option::as_mut) else { continue };
            active.is_ready = false;
            let to = active.peer;
            match active.transfer.poll_output(now, bytes) {
                Ok(None) => {}
                Ok(Some(datagram_len)) => {
                    self.schedule(id);
                    return Some(Output::Send { id, to, datagram_len });
                }
                Err(failure) => self.end(now, id, End::Failed(failure)),
            }
        }
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn read_request(
        &mut self,
        now: Instant,
        arrival: &Arrival,
        request: &Request<'_>,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        if bytes.len() > TFTP_REQUEST_BYTES_MAX {
            return Err(Refusal::TooLong);
        }
        // netascii is served as octet: no boot file is text that needs its line ends changed, and clients that ask for
        // it (Debian's tftp by default) then get the bytes as they are.
        if !["octet", "netascii"].iter().any(|mode| request.mode.eq_ignore_ascii_case(mode.as_bytes())) {
            return Err(Refusal::Mode);
        }
        if self.is_repetition(now, arrival.from, bytes) {
            return Ok(());
        }
        let name = name::clean(request.name).map_err(|bad| match bad {
            BadName::Climbs => Refusal::Climbs,
            BadName::Unreadable => Refusal::BadName,
        })?;
        let content = self.files.open(arrival.from, arrival.local, &name).ok_or(Refusal::NotFound)?;
        let ask = Ask {
            name,
            request: bytes.into(),
            terms: Terms::negotiate(request, content.len(), arrival.mtu),
            content,
            local: arrival.local,
            asked_at: now,
        };
        self.accept(now, arrival.from, ask)
    }

    /// Whether the peer's request is already being served or waits; then all is done that it needs.
    fn is_repetition(&mut self, now: Instant, from: SocketAddrV4, bytes: &[u8]) -> bool {
        let id = match self.peers.get_mut(&from) {
            Some(Place::Waiting(ask)) if *ask.request == *bytes => {
                ask.asked_at = now;
                return true;
            }
            Some(Place::Active(id)) => *id,
            _ => return false,
        };
        let Some(active) = self.slots.get_mut(id.0).and_then(Option::as_mut) else { return false };
        if *active.request != *bytes {
            return false;
        }
        if !active.transfer.is_answered() {
            active.transfer.resend();
            self.schedule(id);
            return true;
        }
        // Doubled by the network when the transfer runs; from a machine that was reset when it does not.
        now.saturating_duration_since(active.transfer.progress_at()) < TFTP_RESEND_FIRST
    }

    fn accept(&mut self, now: Instant, peer: SocketAddrV4, ask: Ask) -> Result<(), Refusal> {
        match self.peers.get_mut(&peer) {
            Some(Place::Waiting(waiting)) => {
                *waiting = ask; // keeps its place in the queue
                return Ok(());
            }
            Some(Place::Active(id)) => {
                let id = *id;
                self.end(now, id, End::Failed(Failure::Replaced));
            }
            None => {}
        }
        if self.waiting.is_empty() && self.active() < self.capacity.active {
            self.start(now, peer, ask);
        } else if self.waiting.len() < self.capacity.waiting {
            self.sweep_at.get_or_insert(now + TFTP_WAIT);
            self.waiting.push_back(peer);
            self.peers.insert(peer, Place::Waiting(ask));
        } else {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    fn start(&mut self, now: Instant, peer: SocketAddrV4, ask: Ask) {
        let id = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            TransferId(self.slots.len() - 1)
        });
        let transfer = Transfer::new(now, ask.content, ask.terms);
        let active = Active { peer, name: ask.name, request: ask.request, transfer, is_ready: false, armed_at: None };
        self.slots[id.0] = Some(active);
        self.peers.insert(peer, Place::Active(id));
        self.due.push_back(Due::Plain(Output::Open { id, local: ask.local, peer }));
        self.schedule(id);
    }

    /// Notes what the transfer now wants: a turn to send, a timer.
    fn schedule(&mut self, id: TransferId) {
        let Some(active) = self.slots.get_mut(id.0).and_then(Option::as_mut) else { return };
        if active.transfer.has_output() && !active.is_ready {
            active.is_ready = true;
            self.ready.push_back(id);
        }
        // A timer that turns out too early is set again when it fires: most deadlines move on with every ACK.
        let at = active.transfer.next_deadline();
        if active.armed_at.is_none_or(|armed_at| at < armed_at) {
            active.armed_at = Some(at);
            self.timers.push(Reverse((at, id)));
        }
    }

    fn end(&mut self, now: Instant, id: TransferId, end: End) {
        let Some(active) = self.slots.get_mut(id.0).and_then(Option::take) else { return };
        let Active { peer: to, name, transfer, .. } = active;
        self.peers.remove(&to);
        self.free.push(id);
        if let End::Failed(failure @ (Failure::Read { .. } | Failure::Silent(_))) = &end {
            self.send_error(id, to, ErrorCode::UNDEFINED, &failure.to_string());
        }
        self.due.push_back(Due::Plain(Output::Close { id }));
        let took = now.saturating_duration_since(transfer.started_at());
        self.tell(match end {
            End::Sent => Event::Sent { name, to, bytes: transfer.bytes(), took },
            End::Probed => Event::Probed { name, to },
            End::Failed(failure) => Event::Failed { name, to, failure },
        });
        self.admit(now);
    }

    fn admit(&mut self, now: Instant) {
        while self.active() < self.capacity.active {
            let Some(peer) = self.waiting.pop_front() else { return };
            if let Some(Place::Waiting(ask)) = self.peers.remove(&peer) {
                self.start(now, peer, ask);
            }
        }
    }

    /// Lets those go who have waited without asking again.
    fn sweep(&mut self, now: Instant) {
        let (mut kept, mut next) = (VecDeque::with_capacity(self.waiting.len()), None::<Instant>);
        for peer in std::mem::take(&mut self.waiting) {
            let Some(Place::Waiting(ask)) = self.peers.get(&peer) else { continue };
            let until = ask.asked_at + TFTP_WAIT;
            if now < until {
                next = Some(next.map_or(until, |next| next.min(until)));
                kept.push_back(peer);
            } else if let Some(Place::Waiting(ask)) = self.peers.remove(&peer) {
                let arrival = Arrival { from: peer, to: ask.local, local: ask.local, mtu: 0 };
                self.refuse(now, &arrival, ask.name, Refusal::Busy);
            }
        }
        self.waiting = kept;
        self.sweep_at = next;
    }

    fn refuse(&mut self, now: Instant, arrival: &Arrival, name: String, refusal: Refusal) {
        if self.budget.take(now) {
            let mut bytes = Vec::new();
            emit_error(refusal.code(), &refusal.to_string(), &mut bytes);
            self.due.push_back(Due::WithBytes(Output::Reply { local: arrival.local, to: arrival.from }, bytes));
        }
        self.tell(Event::Refused { name, from: arrival.from, refusal });
    }

    fn send_error(&mut self, id: TransferId, to: SocketAddrV4, code: ErrorCode, message: &str) {
        let mut bytes = Vec::new();
        emit_error(code, message, &mut bytes);
        let output = Output::Send { id, to, datagram_len: bytes.len() };
        self.due.push_back(Due::WithBytes(output, bytes));
    }

    fn tell(&mut self, event: Event) {
        if self.events.len() < TFTP_EVENTS_MAX {
            self.events.push_back(event);
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server {{ {} active, {} waiting }}", self.active(), self.waiting.len())
    }
}

/// Never answers what could make it a party to a flood: requests sent to all, or from an address that is nobody's.
fn is_answerable(arrival: &Arrival) -> bool {
    let from = arrival.from.ip();
    let from_one = !(from.is_multicast() || from.is_broadcast() || from.is_unspecified()) && arrival.from.port() != 0;
    from_one && arrival.to == arrival.local
}

#[cfg(test)]
mod tests;
