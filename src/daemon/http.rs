//! The `http` thread: one loop that serves kernel, initrd, image and scripts.
//!
//! One thread is enough: `sendfile` hands the page cache to the network card, and a slow client costs a slab entry, not a thread. Each
//! connection gets a bounded share of every turn. A file that is not in the page cache blocks this thread while the disk reads;
//! OFFERs are answered by another one.

mod connection;

use crate::http::exchange::{Expired, Timeouts};
use crate::http::response::{self, Status};
use crate::limits;
use crate::netboot::event::{Event, Teller};
use crate::netboot::served::Served;
use crate::sys::port_holder::{Transport, port_holder};
use connection::{Connection, Context, Turn};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What tests set otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    pub timeouts: Timeouts,
    pub connections_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeouts: Timeouts::default(), connections_max: limits::HTTP_CONNECTIONS_MAX }
    }
}

/// Why the server cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    #[error("HTTP cannot listen on {address}: the port is taken{}; stop what holds it", .holder.as_ref().map(|name| format!(" by {name}")).unwrap_or_default())]
    PortTaken { address: SocketAddrV4, holder: Option<String> },
    #[error("HTTP cannot listen on {address}; check netboot_http_port and netboot_listen_addr")]
    Listen { address: SocketAddrV4, source: io::Error },
    #[error("the HTTP loop cannot wait for events")]
    Poll(#[source] io::Error),
}

/// Ends [`Http::run`] from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    waker: Arc<Waker>,
    stopped: Arc<AtomicBool>,
}

impl Stopper {
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let _ = self.waker.wake(); // it fails only when the loop has gone
    }
}

/// The server: bound, and run by the thread that calls [`Http::run`].
#[derive(Debug)]
pub struct Http {
    poll: Poll,
    listener: TcpListener,
    stopper: Stopper,
    options: Options,
    connections: Slab,
    /// Connections with something to do, each at most once.
    ready: VecDeque<usize>,
    accept: Accept,
    context: Context,
    start: Instant,
    next_sweep: Duration,
}

/// Whether the listener may have a connection for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Accept {
    /// The next event will tell.
    Waiting,
    Ready,
    /// No descriptors are left; the next sweep tries again, and so does whoever closes a connection.
    Paused,
}

impl Http {
    /// Opens the port.
    ///
    /// # Errors
    /// When the port is taken (naming the holder, if it can be seen) or the address is not ours.
    pub fn bind(
        address: SocketAddrV4,
        served: Arc<Served>,
        events: Teller,
        options: Options,
    ) -> Result<Self, HttpError> {
        let listen = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => {
                HttpError::PortTaken { address, holder: port_holder(Transport::Tcp, address.port()) }
            }
            _ => HttpError::Listen { address, source },
        };
        let mut listener = TcpListener::bind(SocketAddr::V4(address)).map_err(listen)?;
        let poll = Poll::new().map_err(HttpError::Poll)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE).map_err(HttpError::Poll)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(HttpError::Poll)?);
        Ok(Self {
            poll,
            listener,
            stopper: Stopper { waker, stopped: Arc::default() },
            options,
            connections: Slab::default(),
            ready: VecDeque::new(),
            accept: Accept::Waiting,
            context: Context { served, events, buffer: vec![0; READ_BYTES].into() },
            start: Instant::now(),
            next_sweep: Duration::ZERO,
        })
    }

    /// The address that is listened on, with the port that was chosen when 0 was asked for.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// Only when waiting for events fails; nothing a client does ends the loop.
    pub fn run(mut self) -> Result<(), HttpError> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        loop {
            match self.poll.poll(&mut events, self.patience()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other.map_err(HttpError::Poll)?,
            }
            if self.stopper.stopped.load(Ordering::Acquire) {
                return Ok(());
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept = Accept::Ready,
                    WAKER => {}
                    Token(token) => {
                        let key = token - FIRST_CONNECTION;
                        if let Some(connection) = self.connections.get_mut(key) {
                            connection.note_event(event);
                            queue(&mut self.ready, connection, key);
                        }
                    }
                }
            }
            let now = self.start.elapsed();
            self.serve_ready(now); // first, so that nobody who has asked is closed to make room for somebody new
            self.accept_some(now);
            self.sweep(now);
        }
    }

    /// How long to wait for events.
    fn patience(&self) -> Option<Duration> {
        let nothing_to_do = self.ready.is_empty() && self.accept != Accept::Ready;
        let nothing_to_time = self.connections.count == 0 && self.accept != Accept::Paused;
        match (nothing_to_do, nothing_to_time) {
            (false, _) => Some(Duration::ZERO),
            (true, true) => None,
            (true, false) => Some(self.next_sweep.saturating_sub(self.start.elapsed())),
        }
    }

    fn serve_ready(&mut self, now: Duration) {
        for _ in 0..self.ready.len() {
            let Some(key) = self.ready.pop_front() else { break };
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.queued = false;
            match connection.turn(now, &mut self.context) {
                Turn::Wait => {}
                Turn::Again => queue(&mut self.ready, connection, key),
                Turn::Close => self.close(key),
            }
        }
    }

    fn accept_some(&mut self, now: Duration) {
        for _ in 0..ACCEPTS_PER_TURN {
            if self.accept != Accept::Ready {
                return;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => self.admit(now, stream, peer),
                Err(error) => self.accept_failed(now, &error),
            }
        }
    }

    fn accept_failed(&mut self, now: Duration, error: &io::Error) {
        match error.raw_os_error() {
            Some(libc::EAGAIN) => self.accept = Accept::Waiting,
            // The connection broke before it was accepted, or a firewall forbids it (accept(2)); the next one may do.
            Some(
                libc::EINTR
                | libc::ECONNABORTED
                | libc::EPERM
                | libc::EPROTO
                | libc::ENETDOWN
                | libc::ENETUNREACH
                | libc::EHOSTDOWN
                | libc::EHOSTUNREACH
                | libc::ENONET
                | libc::ENOPROTOOPT
                | libc::EOPNOTSUPP,
            ) => {}
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) if self.evict(now) => {}
            _ => {
                let what = format!("HTTP: no new connection can be accepted for now: {error}");
                self.context.events.tell(Event::Trouble { what: what.into() });
                self.accept = Accept::Paused;
            }
        }
    }

    fn admit(&mut self, now: Duration, mut stream: mio::net::TcpStream, peer: SocketAddr) {
        if self.connections.count >= self.options.connections_max && !self.evict(now) {
            turn_away(&mut stream);
            self.context.events.tell(Event::Refused { to: peer, reason: "all connections are busy".into() });
            return;
        }
        let _ = stream.set_nodelay(true); // the ends of responses are not to wait for an acknowledgement
        let key = self.connections.vacant_key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(key + FIRST_CONNECTION), interest).is_ok() {
            let connection = Connection::new(now, stream, peer, self.options.timeouts);
            self.connections.insert(key, connection);
        }
    }

    /// Makes room by closing the connection that has waited longest for a request. Whoever is being sent something is left alone.
    fn evict(&mut self, now: Duration) -> bool {
        let oldest = self.connections.iter().filter(|(_, connection)| connection.exchange.is_waiting());
        let oldest = oldest.min_by_key(|(_, connection)| connection.exchange.next_deadline()).map(|(key, _)| key);
        // One that arrived this very turn has not had its chance yet.
        let Some(key) = oldest.filter(|key| self.connections.get_mut(*key).is_some_and(|c| c.accepted < now)) else {
            return false;
        };
        self.close(key);
        true
    }

    /// Closes what has passed its deadline. One look at all connections per second is cheaper than keeping them sorted.
    fn sweep(&mut self, now: Duration) {
        if now < self.next_sweep {
            return;
        }
        self.next_sweep = now + sweep_interval(self.options.timeouts);
        if self.accept == Accept::Paused {
            self.accept = Accept::Ready;
        }
        let expired: Vec<(usize, Expired)> = self
            .connections
            .iter()
            .filter_map(|(key, connection)| Some((key, connection.exchange.handle_timeout(now)?)))
            .collect();
        for (key, expired) in expired {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.tell_expired(expired, &mut self.context);
            }
            self.close(key);
        }
    }

    fn close(&mut self, key: usize) {
        self.connections.remove(key); // dropping the stream closes it, which takes it out of the poll
        if self.accept == Accept::Paused {
            self.accept = Accept::Ready;
        }
    }
}

fn queue(ready: &mut VecDeque<usize>, connection: &mut Connection, key: usize) {
    if !connection.queued {
        connection.queued = true;
        ready.push_back(key);
    }
}

/// Says 503 as well as can be done without waiting: the socket is new, so there is room for it; what the client has sent so far is
/// read, because unread bytes would turn the close into a reset that overtakes the response.
fn turn_away(stream: &mut mio::net::TcpStream) {
    let _ = stream.read(&mut [0; 2048]);
    let _ = stream.write(&response::error(Status::ServiceUnavailable, "too many connections", false, true));
    let _ = stream.shutdown(std::net::Shutdown::Write);
}

/// Often enough that no deadline is overrun by more than a quarter, and at least once a second.
fn sweep_interval(timeouts: Timeouts) -> Duration {
    let shortest = timeouts.head.min(timeouts.idle).min(timeouts.stall).min(timeouts.linger);
    (shortest / 4).clamp(Duration::from_millis(1), Duration::from_secs(1))
}

/// Connections by a small number that stays theirs.
#[derive(Debug, Default)]
struct Slab {
    /// Boxed: growing moves pointers, not half a kilobyte each.
    entries: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    count: usize,
}

impl Slab {
    /// The key that the next [`Slab::insert`] is to use.
    fn vacant_key(&self) -> usize {
        self.free.last().copied().unwrap_or(self.entries.len())
    }

    fn insert(&mut self, key: usize, connection: Connection) {
        if self.free.last() == Some(&key) {
            self.free.pop();
        } else if key == self.entries.len() {
            self.entries.push(None);
        }
        if let Some(entry) = self.entries.get_mut(key) {
            *entry = Some(Box::new(connection));
            self.count += 1;
        }
    }

    fn get_mut(&mut self, key: usize) -> Option<&mut Connection> {
        self.entries.get_mut(key)?.as_deref_mut()
    }

    fn remove(&mut self, key: usize) {
        if self.entries.get_mut(key).and_then(Option::take).is_some() {
            self.free.push(key);
            self.count -= 1;
        }
    }

    fn iter(&self) -> impl Iterator<Item = (usize, &Connection)> {
        self.entries.iter().enumerate().filter_map(|(key, entry)| Some((key, entry.as_deref()?)))
    }
}

const LISTENER: Token = Token(0);
const WAKER: Token = Token(1);
const FIRST_CONNECTION: usize = 2;
const EVENTS_PER_TURN: usize = 256;
const ACCEPTS_PER_TURN: usize = 64;
/// One buffer for all connections: reading is followed by understanding at once.
const READ_BYTES: usize = 16 << 10;
