//! One connection: from a head to a response and back to waiting, with a deadline for everything.
//!
//! The owner hands in what it read ([`Exchange::handle_input`]), takes a request when there is one ([`Exchange::poll_request`]),
//! gives the answer ([`Exchange::answer`]), sends what [`Exchange::to_send`] names and says how far it came ([`Exchange::sent`]). It
//! closes the connection when [`Exchange::handle_timeout`] or [`Next::Close`] says so. Bodies are ranges of bytes that the owner
//! knows how to send: the exchange never holds one.

use super::head::{self, Refusal, Request};
use crate::limits;
use std::ops::Range;
use std::time::Duration;

/// How long each state may last.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a request (or from the connection being made) to the end of its head.
    pub head: Duration,
    /// Between two requests on one connection.
    pub idle: Duration,
    /// Without the client taking a single byte of a response.
    pub stall: Duration,
    /// After the last response, for the client to close its side.
    pub linger: Duration,
    /// For the answer to a request that was handed on.
    pub answer: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            head: limits::HTTP_HEAD_TIMEOUT,
            idle: limits::HTTP_IDLE_TIMEOUT,
            stall: limits::HTTP_STALL_TIMEOUT,
            linger: limits::HTTP_LINGER_TIMEOUT,
            answer: limits::HTTP_ANSWER_TIMEOUT,
        }
    }
}

/// The deadline that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expired {
    Head,
    Idle,
    Stall,
    Linger,
    /// The client is still owed an answer: give it one that says so.
    Answer,
}

impl Expired {
    /// In words for the log.
    #[must_use]
    pub const fn explain(self) -> &'static str {
        match self {
            Self::Head => "no complete request came in time",
            Self::Idle => "no further request came",
            Self::Stall => "the client took no byte for too long",
            Self::Linger => "the client did not close its side",
            Self::Answer => "the answer was not ready in time",
        }
    }
}

/// A response ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Everything that is small: the head, and the body of an error.
    pub head: Vec<u8>,
    /// The bytes of the owner's body that follow.
    pub body: Range<u64>,
    pub keep_alive: bool,
}

/// What to send next.
#[derive(Debug, PartialEq, Eq)]
pub enum ToSend<'a> {
    Nothing,
    /// These bytes; when `body_follows`, the owner may let the kernel join them with what comes.
    Head {
        bytes: &'a [u8],
        body_follows: bool,
    },
    Body(Range<u64>),
}

/// What follows from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// There is more to send.
    Send,
    /// The response is out; read, or ask [`Exchange::poll_request`] for a pipelined request.
    Read,
    /// The response is out and was the last: shut the sending side, then read (and discard) until the client closes.
    Shut,
    /// Close the connection.
    Close,
}

#[derive(Debug)]
enum State {
    /// For a head, of which `input` may hold the beginning.
    Waiting,
    /// For the owner, who has the request and takes time to answer it.
    Deferred,
    Sending {
        answer: Answer,
        head_sent: usize,
    },
    /// The sending side is shut. Closing at once would make the kernel send a reset when unread bytes wait, and that can take
    /// the end of the response away from the client.
    Lingering,
}

/// One connection.
#[derive(Debug)]
pub struct Exchange {
    timeouts: Timeouts,
    state: State,
    /// Bytes that were read and not yet understood: at most a head and one read's worth of pipelined requests.
    input: Vec<u8>,
    /// Whether the deadline of `Waiting` is that of a head, not that of an idle connection.
    head_began: bool,
    deadline: Duration,
}

impl Exchange {
    /// A connection that was just accepted: its first head has to come within the head's time.
    #[must_use]
    pub fn new(now: Duration, timeouts: Timeouts) -> Self {
        Self { timeouts, state: State::Waiting, input: Vec::new(), head_began: true, deadline: now + timeouts.head }
    }

    /// Whether the owner should read. Between a request and the end of its response it should not: what waits in the socket is the bound
    /// on pipelining.
    #[must_use]
    pub const fn wants_input(&self) -> bool {
        matches!(self.state, State::Waiting | State::Lingering)
    }

    /// Whether it waits for a request (and could be closed to make room without breaking one).
    #[must_use]
    pub const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting)
    }

    /// Takes what was read; an empty slice is the end of the stream.
    pub fn handle_input(&mut self, now: Duration, bytes: &[u8]) -> Next {
        match self.state {
            _ if bytes.is_empty() => Next::Close,
            State::Lingering => Next::Read,
            State::Waiting | State::Deferred | State::Sending { .. } => {
                self.input.extend_from_slice(bytes);
                if !self.head_began {
                    self.head_began = true;
                    self.deadline = now + self.timeouts.head;
                }
                Next::Read
            }
        }
    }

    /// The next request, when it is complete and the response before it is out.
    pub fn poll_request(&mut self) -> Option<Result<Request, Refusal>> {
        if !self.is_waiting() || self.input.is_empty() {
            return None;
        }
        match head::parse(&self.input) {
            Ok(None) => None,
            Ok(Some((request, length))) => {
                self.input.drain(..length);
                if self.input.is_empty() {
                    self.input = Vec::new(); // an idle connection costs no buffer
                }
                Some(Ok(request))
            }
            Err(refusal) => Some(Err(refusal)),
        }
    }

    /// Takes note that the answer will take time; nothing is read and no further request comes out before [`Exchange::answer`].
    pub fn defer(&mut self, now: Duration) {
        self.deadline = now + self.timeouts.answer;
        self.state = State::Deferred;
    }

    /// Gives the answer to the request that [`Exchange::poll_request`] returned.
    pub fn answer(&mut self, now: Duration, answer: Answer) {
        self.deadline = now + self.timeouts.stall;
        self.state = State::Sending { answer, head_sent: 0 };
    }

    /// What goes out next.
    #[must_use]
    pub fn to_send(&self) -> ToSend<'_> {
        match &self.state {
            State::Sending { answer, head_sent } if *head_sent < answer.head.len() => {
                ToSend::Head { bytes: &answer.head[*head_sent..], body_follows: !answer.body.is_empty() }
            }
            State::Sending { answer, .. } if !answer.body.is_empty() => ToSend::Body(answer.body.clone()),
            _ => ToSend::Nothing,
        }
    }

    /// Takes note that `bytes` of what [`Exchange::to_send`] named are in the kernel's hands.
    pub fn sent(&mut self, now: Duration, bytes: u64) -> Next {
        let State::Sending { answer, head_sent } = &mut self.state else {
            return Next::Read;
        };
        if bytes > 0 {
            self.deadline = now + self.timeouts.stall;
        }
        let head_left = answer.head.len() - *head_sent;
        if head_left > 0 {
            *head_sent += usize::try_from(bytes).map_or(head_left, |bytes| bytes.min(head_left));
        } else {
            answer.body.start = answer.body.start.saturating_add(bytes).min(answer.body.end);
        }
        if *head_sent < answer.head.len() || !answer.body.is_empty() {
            return Next::Send;
        }
        if answer.keep_alive {
            self.state = State::Waiting;
            self.head_began = !self.input.is_empty();
            self.deadline = now + if self.head_began { self.timeouts.head } else { self.timeouts.idle };
            Next::Read
        } else {
            self.state = State::Lingering;
            self.input = Vec::new();
            self.deadline = now + self.timeouts.linger;
            Next::Shut
        }
    }

    /// When [`Exchange::handle_timeout`] wants to be called at the latest.
    #[must_use]
    pub const fn next_deadline(&self) -> Duration {
        self.deadline
    }

    /// The deadline that has passed, if one has: close the connection.
    #[must_use]
    pub fn handle_timeout(&self, now: Duration) -> Option<Expired> {
        (now >= self.deadline).then_some(match self.state {
            State::Waiting if self.head_began => Expired::Head,
            State::Waiting => Expired::Idle,
            State::Deferred => Expired::Answer,
            State::Sending { .. } => Expired::Stall,
            State::Lingering => Expired::Linger,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::response::Status;

    const GET: &[u8] = b"GET /a HTTP/1.1\r\n\r\n";

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const TIMEOUTS: Timeouts = Timeouts { head: at(10), idle: at(60), stall: at(30), linger: at(5), answer: at(20) };

    fn exchange() -> Exchange {
        Exchange::new(at(0), TIMEOUTS)
    }

    fn answer(body: Range<u64>, keep_alive: bool) -> Answer {
        Answer { head: b"HEAD".to_vec(), body, keep_alive }
    }

    fn path(exchange: &mut Exchange) -> Option<String> {
        exchange.poll_request().map(|request| request.unwrap().path)
    }

    #[test]
    fn a_request_and_its_response_in_pieces() {
        let mut exchange = exchange();
        assert_eq!(exchange.handle_input(at(1), &GET[..5]), Next::Read);
        assert_eq!(path(&mut exchange), None);
        assert_eq!(exchange.handle_input(at(2), &GET[5..]), Next::Read);
        assert_eq!(path(&mut exchange).as_deref(), Some("/a"));
        exchange.answer(at(2), answer(100..110, true));
        assert!(!exchange.wants_input());
        assert_eq!(exchange.to_send(), ToSend::Head { bytes: b"HEAD", body_follows: true });
        assert_eq!(exchange.sent(at(3), 3), Next::Send);
        assert_eq!(exchange.to_send(), ToSend::Head { bytes: b"D", body_follows: true });
        assert_eq!(exchange.sent(at(3), 1), Next::Send);
        assert_eq!(exchange.to_send(), ToSend::Body(100..110));
        assert_eq!(exchange.sent(at(4), 4), Next::Send);
        assert_eq!(exchange.to_send(), ToSend::Body(104..110));
        assert_eq!(exchange.sent(at(5), 6), Next::Read);
        assert_eq!(exchange.to_send(), ToSend::Nothing);
        assert_eq!(exchange.next_deadline(), at(65));
    }

    #[test]
    fn pipelined_requests_are_answered_in_turn() {
        let mut exchange = exchange();
        exchange.handle_input(at(0), b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3");
        assert_eq!(path(&mut exchange).as_deref(), Some("/1"));
        exchange.answer(at(0), answer(0..0, true));
        assert_eq!(path(&mut exchange), None, "the first response is not out yet");
        assert_eq!(exchange.sent(at(1), 4), Next::Read);
        assert_eq!(path(&mut exchange).as_deref(), Some("/2"));
        exchange.answer(at(1), answer(0..0, true));
        assert_eq!(exchange.sent(at(2), 4), Next::Read);
        assert_eq!(path(&mut exchange), None);
        assert_eq!(exchange.next_deadline(), at(12), "the third head has begun");
    }

    #[test]
    fn an_answer_that_takes_time_has_a_deadline_and_nothing_is_read_meanwhile() {
        let mut exchange = exchange();
        exchange.handle_input(at(0), b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        assert_eq!(path(&mut exchange).as_deref(), Some("/1"));
        exchange.defer(at(1));
        assert!(!exchange.wants_input() && !exchange.is_waiting());
        assert_eq!((path(&mut exchange), exchange.to_send()), (None, ToSend::Nothing));
        assert_eq!(exchange.handle_timeout(at(20)), None);
        assert_eq!(exchange.handle_timeout(at(21)), Some(Expired::Answer));
        exchange.answer(at(21), answer(0..0, true));
        assert_eq!(exchange.sent(at(22), 4), Next::Read);
        assert_eq!(path(&mut exchange).as_deref(), Some("/2"));
    }

    #[test]
    fn the_last_response_is_followed_by_lingering() {
        let mut exchange = exchange();
        exchange.handle_input(at(0), GET);
        assert!(exchange.poll_request().is_some());
        exchange.answer(at(0), answer(0..0, false));
        assert_eq!(exchange.sent(at(1), 4), Next::Shut);
        assert_eq!(exchange.handle_input(at(2), GET), Next::Read);
        assert_eq!(exchange.poll_request(), None, "what comes now is discarded");
        assert_eq!(exchange.handle_timeout(at(5)), None);
        assert_eq!(exchange.handle_timeout(at(6)), Some(Expired::Linger));
        assert_eq!(exchange.handle_input(at(6), b""), Next::Close);
    }

    #[test]
    fn a_slow_head_has_one_deadline_however_it_drips() {
        let mut exchange = exchange();
        for (second, byte) in (1..10).zip(GET.chunks(1)) {
            exchange.handle_input(at(second), byte);
            assert_eq!(exchange.poll_request(), None);
            assert_eq!(exchange.handle_timeout(at(second)), None);
        }
        assert_eq!(exchange.handle_timeout(at(10)), Some(Expired::Head));
    }

    #[test]
    fn idle_and_stalled_connections_end_and_progress_counts() {
        let mut exchange = exchange();
        exchange.handle_input(at(0), GET);
        assert!(exchange.poll_request().is_some());
        exchange.answer(at(0), answer(0..1_000, true));
        exchange.sent(at(0), 4);
        assert_eq!(exchange.sent(at(29), 1), Next::Send);
        assert_eq!(exchange.handle_timeout(at(58)), None, "a slow client is not a stalled one");
        assert_eq!(exchange.sent(at(58), 0), Next::Send);
        assert_eq!(exchange.handle_timeout(at(59)), Some(Expired::Stall));
        assert_eq!(exchange.sent(at(59), 999), Next::Read);
        assert_eq!(exchange.handle_timeout(at(118)), None);
        assert_eq!(exchange.handle_timeout(at(119)), Some(Expired::Idle));
    }

    #[test]
    fn refusals_come_out_and_the_input_stays_bounded() {
        let mut exchange = exchange();
        exchange.handle_input(at(0), &[b'a'; limits::HTTP_HEAD_BYTES_MAX]);
        let refusal = exchange.poll_request().unwrap().unwrap_err();
        assert_eq!(refusal.status, Status::HeadTooLarge);
        exchange.answer(at(0), answer(0..0, false));
        assert_eq!(exchange.sent(at(0), 4), Next::Shut);
        exchange.handle_input(at(1), &[0; 1 << 16]);
        assert!(exchange.input.capacity() == 0, "nothing is kept of what is discarded");
    }

    #[test]
    fn an_idle_connection_keeps_no_buffer() {
        let mut exchange = exchange();
        exchange.handle_input(at(0), GET);
        assert!(exchange.poll_request().is_some());
        assert_eq!(exchange.input.capacity(), 0);
        assert!(size_of::<Exchange>() <= 256, "{}", size_of::<Exchange>());
    }
}
