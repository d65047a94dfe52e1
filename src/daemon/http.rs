//! The `http` thread: one loop that serves machines on one port (kernel, initrd, image, scripts) and people on another (ISOs, pages).
//!
//! One thread is enough: `sendfile` hands the page cache to the network card, and a slow client costs a slab entry, not a thread. Each
//! connection gets a bounded share of every turn. A file that is not in the page cache blocks this thread while the disk reads;
//! OFFERs are answered by another one.

mod connection;
mod pages;
mod slab;

use crate::daemon::pulse::Pulse;
use crate::daemon::web::Door;
use crate::http::exchange::{Expired, Timeouts};
use crate::http::response::{self, Status};
use crate::limits;
use crate::netboot::event::{Event, Teller};
use crate::netboot::served::Served;
use crate::sys::port_holder::{Transport, port_holder};
use crate::sys::tcp::listen_on_all;
use crate::web::listing::Shelf;
use connection::{Connection, Context, Site, Turn};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};
use pages::{Outcome, Pages};
use slab::Slab;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The servers of this loop; each has a port of its own, and one that is not there has none.
#[derive(Debug, Default)]
pub struct Sites {
    pub netboot: Option<Netboot>,
    pub media: Option<Media>,
}

/// Port 8090: what machines boot.
#[derive(Debug)]
pub struct Netboot {
    pub address: SocketAddrV4,
    pub served: Arc<Served>,
}

/// Port 8080: ISOs, and pages for people.
#[derive(Debug)]
pub struct Media {
    /// `[::]` is every address, IPv4 ones included, and does without IPv6 where the kernel has none.
    pub address: SocketAddr,
    pub shelf: Shelf,
    /// Who makes the pages.
    pub door: Door,
}

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
    #[error("HTTP cannot listen on {address}: the port is taken{}; stop what holds it, or set {settings}", .holder.as_ref().map(|name| format!(" by {name}")).unwrap_or_default())]
    PortTaken { address: SocketAddr, holder: Option<String>, settings: &'static str },
    #[error("HTTP cannot listen on {address}; check {settings}")]
    Listen { address: SocketAddr, settings: &'static str, source: io::Error },
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
    listening: Vec<Listening>,
    stopper: Stopper,
    pulse: Pulse,
    options: Options,
    connections: Slab<Connection>,
    /// Connections with something to do, each at most once.
    ready: VecDeque<usize>,
    pages: Option<Pages>,
    context: Context,
    start: Instant,
    next_sweep: Duration,
}

/// A port.
#[derive(Debug)]
struct Listening {
    site: Site,
    listener: TcpListener,
    accept: Accept,
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
    /// Opens the ports.
    ///
    /// # Errors
    /// When a port is taken (naming the holder, if it can be seen) or an address is not ours.
    pub fn bind(sites: Sites, events: Teller, options: Options) -> Result<Self, HttpError> {
        let poll = Poll::new().map_err(HttpError::Poll)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).map_err(HttpError::Poll)?);
        let mut http = Self {
            poll,
            listening: Vec::new(),
            pulse: Pulse::new(Arc::clone(&waker)),
            stopper: Stopper { waker, stopped: Arc::default() },
            options,
            connections: Slab::default(),
            ready: VecDeque::new(),
            pages: None,
            context: Context { served: None, shelf: Shelf::default(), events, buffer: vec![0; READ_BYTES].into() },
            start: Instant::now(),
            next_sweep: Duration::ZERO,
        };
        if let Some(Netboot { address, served }) = sites.netboot {
            http.listen(Site::Netboot, SocketAddr::V4(address), "netboot_http_port and netboot_listen_addr")?;
            http.context.served = Some(served);
        }
        if let Some(Media { address, shelf, door }) = sites.media {
            http.listen(Site::Media, address, "listen_addr")?;
            http.context.shelf = shelf;
            http.pages = Some(Pages::new(door));
        }
        Ok(http)
    }

    fn listen(&mut self, site: Site, address: SocketAddr, settings: &'static str) -> Result<(), HttpError> {
        let every_address = address.ip() == IpAddr::from(Ipv6Addr::UNSPECIFIED);
        let listener = if every_address {
            listen_on_all(address.port()).map(TcpListener::from_std)
        } else {
            TcpListener::bind(address)
        };
        let mut listener = listener.map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => {
                HttpError::PortTaken { address, holder: port_holder(Transport::Tcp, address.port()), settings }
            }
            _ => HttpError::Listen { address, settings, source },
        })?;
        let token = Token(self.listening.len());
        self.poll.registry().register(&mut listener, token, Interest::READABLE).map_err(HttpError::Poll)?;
        self.listening.push(Listening { site, listener, accept: Accept::Waiting });
        Ok(())
    }

    /// The address of the netboot server, with the port that was chosen when 0 was asked for.
    #[must_use]
    pub fn netboot_addr(&self) -> Option<SocketAddr> {
        self.local_addr(Site::Netboot)
    }

    /// The address of the media server, with the port that was chosen when 0 was asked for.
    #[must_use]
    pub fn media_addr(&self) -> Option<SocketAddr> {
        self.local_addr(Site::Media)
    }

    fn local_addr(&self, site: Site) -> Option<SocketAddr> {
        self.listening.iter().find(|listening| listening.site == site)?.listener.local_addr().ok()
    }

    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Tells whether [`Http::run`] turns.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        self.pulse.clone()
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
            self.pulse.beat();
            if self.stopper.stopped.load(Ordering::Acquire) {
                return Ok(());
            }
            let now = self.start.elapsed();
            for event in &events {
                self.note_event(now, event);
            }
            self.serve_ready(now); // first, so that nobody who has asked is closed to make room for somebody new
            self.accept_some(now);
            self.sweep(now);
        }
    }

    fn note_event(&mut self, now: Duration, event: &mio::event::Event) {
        match event.token() {
            WAKER => {}
            Token(token) if token >= FIRST_CONNECTION => {
                let key = token - FIRST_CONNECTION;
                if let Some(connection) = self.connections.get_mut(key) {
                    connection.note_event(event);
                    queue(&mut self.ready, connection, key);
                }
            }
            Token(token) if token >= pages::FIRST_PAGE => {
                let mut outcomes = Vec::new();
                if let Some(pages) = &mut self.pages {
                    pages.handle_event(self.poll.registry(), event, &mut self.context.buffer, &mut outcomes);
                }
                for outcome in outcomes {
                    self.answer_page(now, outcome);
                }
            }
            Token(token) => {
                if let Some(listening) = self.listening.get_mut(token) {
                    listening.accept = Accept::Ready;
                }
            }
        }
    }

    fn answer_page(&mut self, now: Duration, (client, outcome): Outcome) {
        if let Some(connection) = self.connections.get_mut(client) {
            connection.answer_page(now, outcome, &mut self.context);
            queue(&mut self.ready, connection, client);
        }
    }

    /// How long to wait for events.
    fn patience(&self) -> Option<Duration> {
        let any = |accept| self.listening.iter().any(|listening| listening.accept == accept);
        let nothing_to_do = self.ready.is_empty() && !any(Accept::Ready);
        let nothing_to_time = self.connections.len() == 0 && !any(Accept::Paused);
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
                Turn::Ask(handoff) => {
                    let Some(pages) = &mut self.pages else { continue };
                    if let Err(no_page) = pages.ask(self.poll.registry(), key, handoff) {
                        self.answer_page(now, (key, Err(no_page)));
                    }
                }
                Turn::Close => self.close(key),
            }
        }
    }

    fn accept_some(&mut self, now: Duration) {
        for which in 0..self.listening.len() {
            for _ in 0..ACCEPTS_PER_TURN {
                let Some(listening) = self.listening.get(which).filter(|listening| listening.accept == Accept::Ready)
                else {
                    break;
                };
                let site = listening.site;
                match listening.listener.accept() {
                    Ok((stream, peer)) => self.admit(now, site, stream, peer),
                    Err(error) => self.accept_failed(now, which, &error),
                }
            }
        }
    }

    fn accept_failed(&mut self, now: Duration, which: usize, error: &io::Error) {
        let accept = match error.raw_os_error() {
            Some(libc::EAGAIN) => Accept::Waiting,
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
            ) => Accept::Ready,
            Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) if self.evict(now) => Accept::Ready,
            _ => {
                let what = format!("HTTP: no new connection can be accepted for now: {error}");
                self.context.events.tell(Event::Trouble { what: what.into() });
                Accept::Paused
            }
        };
        if let Some(listening) = self.listening.get_mut(which) {
            listening.accept = accept;
        }
    }

    fn admit(&mut self, now: Duration, site: Site, mut stream: mio::net::TcpStream, peer: SocketAddr) {
        if self.connections.len() >= self.options.connections_max && !self.evict(now) {
            turn_away(&mut stream);
            self.context.events.tell(Event::Refused { to: peer, reason: "all connections are busy".into() });
            return;
        }
        let _ = stream.set_nodelay(true); // the ends of responses are not to wait for an acknowledgement
        let key = self.connections.vacant_key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(key + FIRST_CONNECTION), interest).is_ok() {
            let connection = Connection::new(now, site, stream, peer, self.options.timeouts);
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
        self.accept_again();
        let expired: Vec<(usize, Expired)> = self
            .connections
            .iter()
            .filter_map(|(key, connection)| Some((key, connection.exchange.handle_timeout(now)?)))
            .collect();
        for (key, expired) in expired {
            if let (Expired::Answer, Some(pages)) = (expired, &mut self.pages) {
                let no_page = pages.forget(key);
                self.answer_page(now, (key, Err(no_page)));
                continue;
            }
            if let Some(connection) = self.connections.get_mut(key) {
                connection.tell_expired(expired, &mut self.context);
            }
            self.close(key);
        }
    }

    fn close(&mut self, key: usize) {
        self.connections.remove(key); // dropping the stream closes it, which takes it out of the poll
        self.accept_again();
    }

    /// There may be descriptors again.
    fn accept_again(&mut self) {
        for listening in self.listening.iter_mut().filter(|listening| listening.accept == Accept::Paused) {
            listening.accept = Accept::Ready;
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
    let shortest = timeouts.head.min(timeouts.idle).min(timeouts.stall).min(timeouts.linger).min(timeouts.answer);
    (shortest / 4).clamp(Duration::from_millis(1), Duration::from_secs(1))
}

/// Listeners have the tokens 0 and 1.
const WAKER: Token = Token(2);
const FIRST_CONNECTION: usize = pages::FIRST_PAGE + limits::WEB_REQUESTS_MAX;
const EVENTS_PER_TURN: usize = 256;
const ACCEPTS_PER_TURN: usize = 64;
/// One buffer for all connections: reading is followed by understanding at once.
const READ_BYTES: usize = 16 << 10;
