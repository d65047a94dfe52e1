//! Sets the clock by SNTP: when there is a network, and every hour from then on.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token, Waker};

use super::settings::Machine;
use crate::limits;
use crate::sntp::{self, PACKET_LEN, Question, Refused};

/// The socket of the question that is open.
pub const TOKEN: Token = Token(2);

/// What is asked when neither settings nor DHCP server name a time server, nor the gateway is one.
const PUBLIC_SERVERS: [&str; 4] =
    ["0.debian.pool.ntp.org", "1.debian.pool.ntp.org", "2.debian.pool.ntp.org", "3.debian.pool.ntp.org"];

/// What the clock is doing.
#[derive(Debug)]
enum State {
    /// There is no network to ask on.
    Off,
    /// Asks all servers anew at this time.
    Waiting {
        until: Instant,
    },
    Resolving {
        name: String,
        answer: Receiver<Vec<Ipv4Addr>>,
    },
    Asking {
        server: Ipv4Addr,
        socket: UdpSocket,
        question: Question,
        sent_at: Instant,
    },
}

/// The last time that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastSet {
    pub server: Ipv4Addr,
    pub at: Instant,
}

/// Who is asked for the time, and when.
#[derive(Debug)]
pub struct Clock {
    waker: Arc<Waker>,
    /// Names or addresses in the order in which they are asked.
    servers: Vec<String>,
    /// Those that are still to be asked in this round.
    names: VecDeque<String>,
    addresses: VecDeque<Ipv4Addr>,
    state: State,
    /// Rounds in vain since the last good answer.
    failures: u32,
    pub last_set: Option<LastSet>,
    /// Why it is not set, or not any more.
    pub trouble: Option<String>,
    /// Servers that sent a kiss-o'-death.
    left_alone: Vec<Ipv4Addr>,
}

/// The servers to ask: those of the settings alone, or the DHCP server's, the gateway and public ones.
pub fn servers(settings: &[String], lease: &[Ipv4Addr], gateway: Option<Ipv4Addr>) -> Vec<String> {
    if !settings.is_empty() {
        return settings.to_vec();
    }
    let known = lease.iter().copied().chain(gateway).map(|ip| ip.to_string());
    known.chain(PUBLIC_SERVERS.map(str::to_owned)).collect()
}

impl Clock {
    /// `waker` is rung when a name was resolved.
    pub const fn new(waker: Arc<Waker>) -> Self {
        Self {
            waker,
            servers: Vec::new(),
            names: VecDeque::new(),
            addresses: VecDeque::new(),
            state: State::Off,
            failures: 0,
            last_set: None,
            trouble: None,
            left_alone: Vec::new(),
        }
    }

    /// Asks these servers from now on; at once when they are others than before. None: there is no network.
    pub fn set_servers(&mut self, now: Instant, servers: Vec<String>) {
        if servers == self.servers {
            return;
        }
        self.servers = servers;
        self.failures = 0;
        self.left_alone.clear();
        self.state = if self.servers.is_empty() { State::Off } else { State::Waiting { until: now } };
    }

    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Off | State::Resolving { .. } => None,
            State::Waiting { until } => Some(*until),
            State::Asking { sent_at, .. } => Some(*sent_at + limits::NTP_PATIENCE),
        }
    }

    /// Reads an answer or a resolved name, notices when there is none, and goes on to the next server.
    pub fn turn(&mut self, now: Instant, registry: &Registry, machine: &Machine) {
        match &self.state {
            State::Off => {}
            State::Waiting { until } if *until <= now => {
                self.names = self.servers.iter().cloned().collect();
                self.addresses.clear();
                self.ask_next(now, registry);
            }
            State::Waiting { .. } => {}
            State::Resolving { name, answer } => match answer.try_recv() {
                Err(TryRecvError::Empty) => {}
                answer => {
                    let found = answer.unwrap_or_default();
                    if found.is_empty() {
                        self.trouble = Some(format!("{name} cannot be resolved"));
                    }
                    self.addresses = found.into();
                    self.ask_next(now, registry);
                }
            },
            State::Asking { .. } => self.read_answer(now, registry, machine),
        }
    }

    fn read_answer(&mut self, now: Instant, registry: &Registry, machine: &Machine) {
        let State::Asking { server, socket, question, sent_at } = &self.state else { return };
        let (server, sent_at) = (*server, *sent_at);
        let built = machine.build_time.duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut buffer = [0; 2 * PACKET_LEN];
        // The socket is connected, so only this server and its host's refusals get in; a forger has a few tries before the deadline.
        for _ in 0..limits::NTP_ANSWERS_PER_TURN {
            let answer = match socket.recv(&mut buffer) {
                Ok(length) => question.time(&buffer[..length], now.saturating_duration_since(sent_at), built),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.fail(now, registry, format!("{server}: {error}")),
            };
            match answer {
                Ok(time) => return self.set(now, registry, machine, server, time),
                Err(Refused::NotOurs) => {}
                Err(refused) => {
                    if matches!(refused, Refused::KissOfDeath(_)) && self.left_alone.len() < limits::NTP_LEFT_ALONE_MAX
                    {
                        self.left_alone.push(server);
                    }
                    return self.fail(now, registry, format!("{server}: {refused}"));
                }
            }
        }
        if sent_at + limits::NTP_PATIENCE <= now {
            self.fail(now, registry, format!("{server} does not answer"));
        }
    }

    fn fail(&mut self, now: Instant, registry: &Registry, why: String) {
        self.trouble = Some(why);
        self.ask_next(now, registry);
    }

    fn set(&mut self, now: Instant, registry: &Registry, machine: &Machine, server: Ipv4Addr, time: Duration) {
        let offset = UNIX_EPOCH.elapsed().map_or(Duration::MAX, |ours| ours.abs_diff(time));
        let time: SystemTime = UNIX_EPOCH + time;
        if offset >= limits::NTP_OFFSET_MIN {
            if let Err(error) = (machine.set_clock)(time) {
                return self.fail(now, registry, format!("the clock cannot be set: {error}"));
            }
            log::info!("The clock is set by {server}; it was {} off", seconds(offset));
        }
        self.last_set = Some(LastSet { server, at: now });
        self.trouble = None;
        self.failures = 0;
        self.state = State::Waiting { until: now + limits::NTP_EVERY };
    }

    /// Asks the next address, resolves the next name, or waits for the next round.
    fn ask_next(&mut self, now: Instant, registry: &Registry) {
        loop {
            while let Some(server) = self.addresses.pop_front() {
                if self.left_alone.contains(&server) {
                    continue;
                }
                match Self::ask(now, registry, server) {
                    Ok(asking) => return self.state = asking,
                    Err(error) => self.trouble = Some(format!("{server}: {error}")),
                }
            }
            let Some(name) = self.names.pop_front() else { return self.wait(now) };
            match name.parse() {
                Ok(address) => self.addresses.push_back(address),
                Err(_) => match resolve(&name, Arc::clone(&self.waker)) {
                    Ok(answer) => return self.state = State::Resolving { name, answer },
                    Err(error) => self.trouble = Some(format!("{name}: {error}")),
                },
            }
        }
    }

    fn wait(&mut self, now: Instant) {
        let longest = if self.last_set.is_some() { limits::NTP_EVERY } else { limits::NTP_RETRY_WAIT_MAX };
        let wait = limits::NTP_RETRY_WAIT.saturating_mul(2_u32.saturating_pow(self.failures)).min(longest);
        if self.failures == 0 {
            let why = self.trouble.as_deref().unwrap_or("no time server is left to ask");
            log::warn!("The clock cannot be set by a time server: {why}; trying again");
        }
        self.failures = self.failures.saturating_add(1);
        self.state = State::Waiting { until: now + wait };
    }

    fn ask(now: Instant, registry: &Registry, server: Ipv4Addr) -> io::Result<State> {
        // A port of its own for each question: one thing more that a forger has to guess.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect((server, sntp::PORT))?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), TOKEN, Interest::READABLE)?;
        let question = Question::new(super::random());
        socket.send(&question.bytes())?;
        Ok(State::Asking { server, socket, question, sent_at: now })
    }
}

/// Resolves a name on a thread of its own: the system's resolver may take many seconds. One is under way at a time; when nobody waits
/// for it any more, it ends with the resolver's own patience.
fn resolve(name: &str, waker: Arc<Waker>) -> io::Result<Receiver<Vec<Ipv4Addr>>> {
    let (sender, answer) = sync_channel(1);
    let target = (name.to_owned(), sntp::PORT);
    std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        let found = target.to_socket_addrs().map(|found| {
            let ipv4 = found.filter_map(|address| match address.ip() {
                IpAddr::V4(ip) => Some(ip),
                IpAddr::V6(_) => None,
            });
            ipv4.take(limits::NTP_ADDRESSES_MAX).collect()
        });
        let _ = sender.send(found.unwrap_or_default());
        let _ = waker.wake();
    })?;
    Ok(answer)
}

fn seconds(time: Duration) -> String {
    format!("{}.{} s", time.as_secs(), time.subsec_millis() / 100)
}
