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

/// 2026-01-01: no build of this program is older, also when nobody knows how old it is.
const EARLIEST: Duration = Duration::from_secs(1_767_225_600);

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
    /// Where servers listen; tests have another.
    port: u16,
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
            port: sntp::PORT,
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
        let built = machine.build_time.duration_since(UNIX_EPOCH).unwrap_or_default().max(EARLIEST);
        let mut buffer = [0; 2 * PACKET_LEN];
        // The socket is connected, so only this server and its host's refusals get in; a forger has a few tries before the deadline.
        for _ in 0..limits::NTP_ANSWERS_PER_TURN {
            let answer = match socket.recv(&mut buffer) {
                Ok(length) => question.time(&buffer[..length], now.saturating_duration_since(sent_at), built),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return self.fail(now, registry, unreachable(server, &error)),
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
                match self.ask(now, registry, server) {
                    Ok(asking) => return self.state = asking,
                    Err(error) => self.trouble = Some(unreachable(server, &error)),
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

    fn ask(&self, now: Instant, registry: &Registry, server: Ipv4Addr) -> io::Result<State> {
        // A port of its own for each question: one thing more that a forger has to guess.
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        socket.connect((server, self.port))?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), TOKEN, Interest::READABLE)?;
        let question = Question::new(super::random());
        socket.send(&question.bytes())?;
        Ok(State::Asking { server, socket, question, sent_at: now })
    }
}

/// Why a server cannot be asked, for somebody who does not know the C library's words.
fn unreachable(server: Ipv4Addr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => format!("{server} is no time server"),
        io::ErrorKind::NetworkUnreachable => format!("there is no way to {server} (no gateway)"),
        io::ErrorKind::HostUnreachable => format!("{server} is not there"),
        _ => format!("{server}: {error}"),
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

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use std::path::PathBuf;
    use std::sync::mpsc::channel;

    /// A clock that asks a server on the loopback.
    struct Bench {
        poll: Poll,
        events: Events,
        clock: Clock,
        machine: Machine,
        set: Receiver<SystemTime>,
        server: UdpSocket,
        now: Instant,
    }

    impl Bench {
        fn new(build_time: SystemTime) -> Self {
            let poll = Poll::new().unwrap();
            let server = UdpSocket::bind("127.0.0.1:0").unwrap();
            server.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut clock = Clock::new(Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()));
            clock.port = server.local_addr().unwrap().port();
            let (sender, set) = channel();
            let machine = Machine {
                resolv_conf: PathBuf::new(),
                build_time,
                set_clock: Box::new(move |time| sender.send(time).map_err(io::Error::other)),
                set_hostname: Box::new(|_| Ok(())),
            };
            let mut bench =
                Self { poll, events: Events::with_capacity(8), clock, machine, set, server, now: Instant::now() };
            bench.clock.set_servers(bench.now, vec!["127.0.0.1".to_owned()]);
            bench.turn();
            bench
        }

        fn turn(&mut self) {
            self.clock.turn(self.now, self.poll.registry(), &self.machine);
        }

        /// Lets time pass up to the next deadline, and returns how long that was.
        fn pass(&mut self) -> Duration {
            let at = self.clock.next_deadline().unwrap();
            let passed = at - self.now;
            self.now = at;
            self.turn();
            passed
        }

        /// Answers the open question: this time since 1970, with these first two bytes.
        fn answer(&mut self, time: Duration, head: [u8; 2], copies: usize) {
            let mut question = [0; 64];
            let (_, from) = self.server.recv_from(&mut question).unwrap();
            let mut answer = [0; PACKET_LEN];
            answer[..2].copy_from_slice(&head);
            answer[12..16].copy_from_slice(b"RATE");
            answer[24..32].copy_from_slice(&question[40..48]);
            let seconds = (time.as_secs() + 2_208_988_800) as u32;
            let fraction = ((u64::from(time.subsec_nanos()) << 32) / 1_000_000_000) as u32;
            for at in [32, 40] {
                answer[at..at + 4].copy_from_slice(&seconds.to_be_bytes());
                answer[at + 4..at + 8].copy_from_slice(&fraction.to_be_bytes());
            }
            for _ in 1..copies {
                self.server.send_to(b"forged", from).unwrap();
            }
            self.server.send_to(&answer, from).unwrap();
            self.poll.poll(&mut self.events, Some(Duration::from_secs(20))).unwrap();
            self.turn();
        }

        fn time() -> Duration {
            UNIX_EPOCH.elapsed().unwrap()
        }
    }

    const SOUND: [u8; 2] = [0x24, 2];

    #[test]
    fn a_clock_that_is_off_is_set_and_asked_for_again_in_an_hour() {
        let mut bench = Bench::new(UNIX_EPOCH);
        bench.answer(Bench::time() + 2 * limits::NTP_OFFSET_MIN, SOUND, 1);
        bench.set.try_recv().unwrap();
        assert_eq!(bench.clock.last_set.as_ref().unwrap().server, Ipv4Addr::LOCALHOST);
        assert_eq!(bench.pass(), limits::NTP_EVERY);
        bench.answer(Bench::time(), SOUND, 1);
        bench.set.try_recv().expect_err("less than a tenth of a second off");
        assert_eq!(bench.pass(), limits::NTP_EVERY);
    }

    #[test]
    fn servers_that_are_silent_are_asked_again_ever_more_slowly() {
        let mut bench = Bench::new(UNIX_EPOCH);
        let mut waits = Vec::new();
        for _ in 0..7 {
            assert_eq!(bench.pass(), limits::NTP_PATIENCE);
            waits.push(bench.pass().as_secs());
        }
        assert_eq!(waits, [4, 8, 16, 32, 64, 64, 64]);
        assert_eq!(waits[0], limits::NTP_RETRY_WAIT.as_secs());
        assert_eq!(waits[6], limits::NTP_RETRY_WAIT_MAX.as_secs());
        assert_eq!(bench.clock.trouble.as_deref(), Some("127.0.0.1 does not answer"));
        for _ in 0..8 {
            bench.server.recv(&mut [0; 64]).unwrap(); // the questions so far
        }
        drop(bench);
    }

    #[test]
    fn a_server_that_wants_to_be_left_alone_is() {
        let mut bench = Bench::new(UNIX_EPOCH);
        bench.answer(Bench::time(), [0x24, 0], 1);
        let trouble = "127.0.0.1: it asks to be left alone (RATE)";
        assert_eq!(bench.clock.trouble.as_deref(), Some(trouble));
        for _ in 0..200 {
            bench.pass();
        }
        bench.server.set_nonblocking(true).unwrap();
        assert!(bench.server.recv(&mut [0; 64]).is_err(), "not a word more");
        bench.clock.left_alone = vec![Ipv4Addr::BROADCAST; limits::NTP_LEFT_ALONE_MAX];
        bench.server.set_nonblocking(false).unwrap();
        bench.pass();
        bench.answer(Bench::time(), [0x24, 0], 1);
        assert_eq!(bench.clock.left_alone.len(), limits::NTP_LEFT_ALONE_MAX, "bounded");
    }

    #[test]
    fn a_flood_of_forgeries_costs_one_turn_little() {
        let mut bench = Bench::new(UNIX_EPOCH);
        bench.answer(Bench::time(), SOUND, limits::NTP_ANSWERS_PER_TURN + 1);
        assert_eq!(bench.clock.last_set, None, "the true answer is behind them");
        bench.turn();
        assert!(bench.clock.last_set.is_some());
    }

    #[test]
    fn a_time_before_the_build_is_told_and_not_taken() {
        let mut bench = Bench::new(SystemTime::now() + Duration::from_secs(86_400));
        bench.answer(Bench::time(), SOUND, 1);
        bench.set.try_recv().unwrap_err();
        let trouble = "127.0.0.1: its time lies before this program was built";
        assert_eq!(bench.clock.trouble.as_deref(), Some(trouble));
    }

    #[test]
    fn names_are_resolved_beside_the_loop_and_few_of_their_addresses_taken() {
        let poll = Poll::new().unwrap();
        let waker = Arc::new(Waker::new(poll.registry(), Token(0)).unwrap());
        let found = resolve("localhost", Arc::clone(&waker)).unwrap().recv().unwrap();
        assert!(found.contains(&Ipv4Addr::LOCALHOST) && found.len() <= limits::NTP_ADDRESSES_MAX, "{found:?}");
        let nothing = resolve("", waker).unwrap().recv().unwrap();
        assert!(nothing.len() <= limits::NTP_ADDRESSES_MAX, "{nothing:?}");
    }

    #[test]
    fn who_is_asked_in_which_order() {
        let (lease, gateway) = ([[10, 0, 0, 3].into()], Some([10, 0, 0, 1].into()));
        assert_eq!(servers(&["ntp.example".to_owned()], &lease, gateway), ["ntp.example"]);
        assert_eq!(servers(&[], &lease, gateway)[..3], ["10.0.0.3", "10.0.0.1", PUBLIC_SERVERS[0]]);
        assert_eq!(servers(&[], &[], None), PUBLIC_SERVERS);
    }
}
