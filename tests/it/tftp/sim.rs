//! The TFTP core on a network that loses, doubles and reorders, against clients as firmware has them.
//!
//! Time is simulated and every run is decided by its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use auroraboot::tftp::{Arrival, Capacity, Content, Event, Files, Output, Server, TransferId};

const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

struct OneFile(Arc<[u8]>);

impl Files for OneFile {
    fn open(&self, _from: SocketAddrV4, _server: Ipv4Addr, _name: &str) -> Option<Content> {
        Some(Arc::new(Arc::clone(&self.0)))
    }
}

/// What sets clients apart when something goes wrong.
#[derive(Debug, Clone, Copy)]
struct Kind {
    options: &'static str,
    block_size: usize,
    window: u64,
    /// After this long it sends its last packet again.
    timer_ms: u64,
    on_unexpected: OnUnexpected,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum OnUnexpected {
    /// U-Boot: a block that is not the next one is dropped without a word.
    Silent,
    /// EDK2: each such block makes it acknowledge the last good one.
    AckEach,
    /// The way of RFC 7440: the first one after a good block does.
    AckOnce,
}

const fn kind(options: &'static str, block_size: usize, window: u64, timer_ms: u64, on: OnUnexpected) -> Kind {
    Kind { options, block_size, window, timer_ms, on_unexpected: on }
}

const KINDS: [Kind; 5] = [
    kind("", 512, 1, 1000, OnUnexpected::AckEach),
    kind("timeout 1 blksize 1468", 1468, 1, 5000, OnUnexpected::Silent),
    kind("blksize 1468 windowsize 4", 1468, 4, 4000, OnUnexpected::AckEach),
    kind("blksize 1024 windowsize 16", 1024, 16, 1000, OnUnexpected::AckOnce),
    kind("tsize 0 blksize 1432", 1432, 1, 500, OnUnexpected::AckEach),
];

struct Client {
    kind: Kind,
    last_sent: Vec<u8>,
    resend_at_ms: u64,
    block: u64,
    acked: u64,
    told: bool,
    got: Vec<u8>,
    done: bool,
    /// The server's transfer that it heard first.
    transfer: Option<usize>,
}

impl Client {
    fn new(kind: Kind) -> Self {
        let options = if kind.options.is_empty() { String::new() } else { kind.options.replace(' ', "\0") + "\0" };
        let last_sent = format!("\0\x01loader\0octet\0{options}").into_bytes();
        let (resend_at_ms, block, acked) = (0, 0, 0);
        Self { kind, last_sent, resend_at_ms, block, acked, told: false, got: Vec::new(), done: false, transfer: None }
    }

    fn ack(&mut self) -> Option<Vec<u8>> {
        self.acked = self.block;
        self.last_sent = vec![0, 4, (self.block >> 8) as u8, self.block as u8];
        Some(self.last_sent.clone())
    }

    fn receive(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        match bytes[1] {
            6 if self.block == 0 => return self.ack(),
            6 => return None,
            3 => {}
            _ => panic!("the server gave up: {bytes:?}"),
        }
        if u16::from_be_bytes([bytes[2], bytes[3]]) != (self.block + 1) as u16 {
            let tells = match self.kind.on_unexpected {
                OnUnexpected::Silent => false,
                OnUnexpected::AckEach => true,
                OnUnexpected::AckOnce => !self.told,
            };
            self.told = true;
            return if tells { self.ack() } else { None };
        }
        self.block += 1;
        self.told = false;
        self.got.extend_from_slice(&bytes[4..]);
        self.done = bytes.len() - 4 < self.kind.block_size;
        if self.done || self.block - self.acked >= self.kind.window { self.ack() } else { None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    Server(usize),
    Client { client: usize, transfer: usize },
}

/// Per cent of the packets that meet each fate.
#[derive(Debug, Clone, Copy)]
struct Faults {
    lost: u64,
    doubled: u64,
    /// Late by up to 3 ms, so that they overtake and are overtaken.
    late: u64,
}

const NO_FAULTS: Faults = Faults { lost: 0, doubled: 0, late: 0 };

/// When it arrives (ms), a number that keeps the order of equal times, where to, bytes.
type Packet = (u64, u64, To, Vec<u8>);

struct Network {
    at_ms: u64,
    faults: Faults,
    random: u64,
    packets: BinaryHeap<Reverse<Packet>>,
    /// How many were handed over, before any loss.
    sent: u64,
}

impl Network {
    fn strikes(&mut self, percent: u64) -> bool {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % 100 < percent
    }

    fn send(&mut self, to: To, bytes: &[u8]) {
        let copies = if self.strikes(self.faults.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            self.sent += 1;
            if !self.strikes(self.faults.lost) {
                let late = if self.strikes(self.faults.late) { self.random % 3 + 1 } else { 0 };
                self.packets.push(Reverse((self.at_ms + 1 + late, self.sent, to, bytes.to_vec())));
            }
        }
    }
}

struct World {
    server: Server,
    clients: Vec<Client>,
    network: Network,
    start: Instant,
    /// The client of each open socket of the server.
    transfers: Vec<Option<usize>>,
    events: Vec<Event>,
}

fn address(client: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 77), u16::try_from(10_000 + client).unwrap())
}

impl World {
    fn new(bytes: &Arc<[u8]>, kinds: &[Kind], faults: Faults, seed: u64, capacity: Capacity) -> Self {
        let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Self {
            server: Server::new(Arc::new(OneFile(Arc::clone(bytes))), capacity),
            clients: kinds.iter().map(|kind| Client::new(*kind)).collect(),
            network: Network { at_ms: 0, faults, random, packets: BinaryHeap::new(), sent: 0 },
            start: Instant::now(),
            transfers: Vec::new(),
            events: Vec::new(),
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.network.at_ms)
    }

    fn next_ms(&self) -> Option<u64> {
        let packet = self.network.packets.peek().map(|Reverse((at, ..))| *at);
        let timer = self.clients.iter().filter(|client| !client.done).map(|client| client.resend_at_ms).min();
        let server = self.server.next_deadline().map(|at| {
            let nanos = at.saturating_duration_since(self.start).as_nanos();
            u64::try_from(nanos.div_ceil(1_000_000)).unwrap()
        });
        [packet, timer, server].into_iter().flatten().min()
    }

    /// Until all clients have their file and the server has forgotten them.
    fn run(&mut self) {
        let mut turns = 0;
        while let Some(at) = self.next_ms() {
            turns += 1;
            assert!(turns < 10_000_000, "stuck at {} ms", self.network.at_ms);
            self.network.at_ms = self.network.at_ms.max(at);
            self.client_timers();
            while self.network.packets.peek().is_some_and(|Reverse((at, ..))| *at <= self.network.at_ms) {
                let Some(Reverse((_, _, to, bytes))) = self.network.packets.pop() else { break };
                self.deliver(to, &bytes);
            }
            self.server.handle_timeout(self.now());
            self.server_outputs();
        }
    }

    fn client_timers(&mut self) {
        for (index, client) in self.clients.iter_mut().enumerate() {
            if !client.done && client.resend_at_ms <= self.network.at_ms {
                client.resend_at_ms = self.network.at_ms + client.kind.timer_ms;
                self.network.send(To::Server(index), &client.last_sent);
            }
        }
    }

    fn deliver(&mut self, to: To, bytes: &[u8]) {
        match to {
            To::Server(index) if bytes[1] == 1 => {
                let arrival = Arrival { from: address(index), to: SERVER, local: SERVER, mtu: 1500 };
                self.server.handle_request(self.now(), &arrival, bytes);
            }
            To::Server(index) => {
                // A closed socket's packets reach nobody; its number may be another's by now.
                let id = self.clients[index].transfer.filter(|id| self.transfers[*id] == Some(index));
                if let Some(id) = id {
                    self.server.handle_datagram(self.now(), TransferId(id), address(index), bytes);
                }
            }
            To::Client { client: index, transfer } => {
                let client = &mut self.clients[index];
                if client.done {
                    return;
                }
                client.transfer.get_or_insert(transfer);
                if let Some(answer) = client.receive(bytes) {
                    client.resend_at_ms = self.network.at_ms + client.kind.timer_ms;
                    self.network.send(To::Server(index), &answer);
                }
            }
        }
        self.server_outputs();
    }

    fn server_outputs(&mut self) {
        let mut bytes = Vec::new();
        while let Some(output) = self.server.poll_output(self.now(), &mut bytes) {
            match output {
                Output::Open { id, peer, .. } => {
                    self.transfers.resize(self.transfers.len().max(id.0 + 1), None);
                    self.transfers[id.0] = Some(usize::from(peer.port()) - 10_000);
                }
                Output::Close { id } => self.transfers[id.0] = None,
                Output::Send { id, to, datagram_len } => {
                    let client = usize::from(to.port()) - 10_000;
                    assert_eq!(self.transfers[id.0], Some(client), "sent through its own socket");
                    for datagram in bytes.chunks(datagram_len) {
                        self.network.send(To::Client { client, transfer: id.0 }, datagram);
                    }
                }
                Output::Reply { to, .. } => panic!("refused {to}: {bytes:?}"),
            }
        }
        self.events.extend(std::iter::from_fn(|| self.server.poll_event()));
    }
}

#[test]
fn every_client_gets_its_bytes_through_any_loss() {
    let bytes = super::pattern(100_000);
    for lost in [0, 5, 15, 30] {
        for kind in KINDS {
            for seed in 1..=10 {
                let faults = Faults { lost, doubled: 10, late: 30 };
                let mut world = World::new(&bytes, &[kind], faults, seed, Capacity::default());
                world.run();
                let context = format!("{kind:?}, {faults:?}, seed {seed}: {:?}", world.events);
                assert!(world.clients[0].got[..] == bytes[..], "{context}");
                assert!(world.events.iter().any(|event| matches!(event, Event::Sent { .. })), "{context}");
            }
        }
    }
}

#[test]
fn without_loss_nothing_is_sent_twice() {
    let bytes = super::pattern(1_000_000);
    for kind in KINDS {
        let mut world = World::new(&bytes, &[kind], NO_FAULTS, 1, Capacity::default());
        world.run();
        let blocks = (bytes.len() / kind.block_size + 1) as u64;
        let first = if kind.options.is_empty() { 1 } else { 3 }; // RRQ, OACK, ACK 0
        assert_eq!(world.network.sent, first + blocks + blocks.div_ceil(kind.window), "{kind:?}");
        assert!(world.clients[0].got[..] == bytes[..], "{kind:?}");
    }
}

#[test]
fn doubled_packets_do_not_double_what_follows() {
    let bytes = super::pattern(300_000);
    for kind in KINDS.into_iter().filter(|kind| kind.window == 1) {
        let faults = Faults { doubled: 100, ..NO_FAULTS };
        let mut world = World::new(&bytes, &[kind], faults, 1, Capacity::default());
        world.run();
        let blocks = (bytes.len() / kind.block_size + 1) as u64;
        assert!(world.clients[0].got[..] == bytes[..], "{kind:?}");
        // Each block and each ACK twice, and an ACK (twice) for the second copy; the Sorcerer's Apprentice adds a copy per block.
        assert!(world.network.sent <= 6 * blocks + 20, "{kind:?}: {} packets, {blocks} blocks", world.network.sent);
    }
}

#[test]
fn a_crowd_waits_for_its_turn_on_a_bad_network() {
    let bytes = super::pattern(20_000);
    let kinds: Vec<Kind> = (0..500).map(|index| KINDS[index % KINDS.len()]).collect();
    let faults = Faults { lost: 5, doubled: 2, late: 20 };
    let mut world = World::new(&bytes, &kinds, faults, 1, Capacity { active: 64, waiting: 4096 });
    world.run();
    assert!(world.clients.iter().all(|client| client.got[..] == bytes[..]));
}
