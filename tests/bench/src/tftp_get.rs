//! A TFTP load generator: N clients at once in one loop, with windows (RFC 7440) and made-up loss.
//!
//! `tftp-get HOST PORT NAME [--blksize N] [--windowsize N] [--parallel N] [--loss PERCENT] [--delay-us N] [--hold SECONDS]`
//! prints clients that finished, bytes, seconds and MB/s. With `--hold` each client stops acknowledging after its first block, so
//! that the server's memory can be looked at. `--delay-us` lets each datagram arrive that much later, for kernels without netem.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Events, Interest, Poll, Token};

/// As U-Boot's and EDK2's timers: seconds, not milliseconds.
const RESEND: Duration = Duration::from_secs(1);

struct Options {
    server: SocketAddr,
    name: String,
    block_size: Option<usize>,
    window: Option<u64>,
    parallel: usize,
    loss_percent: u64,
    delay: Duration,
    hold: Option<Duration>,
}

fn options(arguments: &[String]) -> Options {
    let [host, port, name, flags @ ..] = arguments else {
        panic!(
            "usage: tftp-get HOST PORT NAME [--blksize N] [--windowsize N] [--parallel N] [--loss PERCENT] [--hold S]"
        )
    };
    let host: Ipv4Addr = host.parse().expect("an IPv4 address");
    let server = SocketAddrV4::new(host, port.parse().expect("a port")).into();
    let mut options = Options {
        server,
        name: name.clone(),
        block_size: None,
        window: None,
        parallel: 1,
        loss_percent: 0,
        delay: Duration::ZERO,
        hold: None,
    };
    for pair in flags.chunks(2) {
        let [flag, value] = pair else { panic!("{pair:?} has no value") };
        let number: u64 = value.parse().expect("a number");
        match flag.as_str() {
            "--blksize" => options.block_size = Some(number as usize),
            "--windowsize" => options.window = Some(number),
            "--parallel" => options.parallel = number as usize,
            "--loss" => options.loss_percent = number,
            "--delay-us" => options.delay = Duration::from_micros(number),
            "--hold" => options.hold = Some(Duration::from_secs(number)),
            other => panic!("unknown flag {other}"),
        }
    }
    options
}

struct Client {
    socket: UdpSocket,
    /// Port 69 first, then the transfer's.
    server: SocketAddr,
    last_sent: Vec<u8>,
    resend_at: Instant,
    block_size: usize,
    window: u64,
    /// The last block received in order, and the one acknowledged last.
    block: u64,
    acked: u64,
    /// A gap was told; it is told once until the next block in order comes.
    told_gap: bool,
    bytes: u64,
    done: bool,
    failed: Option<String>,
}

impl Client {
    fn start(options: &Options) -> Self {
        let socket = UdpSocket::bind("0.0.0.0:0".parse().expect("an address")).expect("a socket");
        let mut request = format!("\0\x01{}\0octet\0", options.name);
        if let Some(size) = options.block_size {
            request += &format!("blksize\0{size}\0");
        }
        if let Some(window) = options.window {
            request += &format!("windowsize\0{window}\0");
        }
        Self {
            socket,
            server: options.server,
            last_sent: request.into_bytes(),
            resend_at: Instant::now(),
            block_size: 512,
            window: 1,
            block: 0,
            acked: 0,
            told_gap: false,
            bytes: 0,
            done: false,
            failed: None,
        }
    }

    fn send(&mut self, now: Instant, loss: &mut Loss) {
        if !loss.strikes() {
            let _ = self.socket.send_to(&self.last_sent, self.server); // lost is lost
        }
        self.resend_at = now + RESEND;
    }

    fn ack(&mut self, now: Instant, loss: &mut Loss) {
        self.acked = self.block;
        self.last_sent = vec![0, 4, (self.block >> 8) as u8, self.block as u8];
        self.send(now, loss);
    }

    /// Moves what the kernel has onto the delay line.
    fn receive(&mut self, index: usize, arrived_at: Instant, line: &mut VecDeque<Delayed>) {
        let mut buffer = [0; 65_536];
        loop {
            match self.socket.recv_from(&mut buffer) {
                Ok((len, from)) => line.push_back(Delayed { index, arrived_at, from, bytes: buffer[..len].to_vec() }),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {}
            }
        }
    }

    fn handle(&mut self, packet: &Delayed, now: Instant, loss: &mut Loss, is_held: bool) {
        if self.done || loss.strikes() {
            return;
        }
        self.server = packet.from;
        let bytes = &packet.bytes;
        match bytes[1] {
            6 => self.take_options(&bytes[2..], now, loss),
            3 => self.take_data(&bytes[2..], now, loss, is_held),
            _ => {
                self.failed = Some(String::from_utf8_lossy(&bytes[4..]).into_owned());
                self.done = true;
            }
        }
    }

    fn take_options(&mut self, bytes: &[u8], now: Instant, loss: &mut Loss) {
        let words: Vec<String> = bytes.split(|byte| *byte == 0).map(|w| String::from_utf8_lossy(w).into()).collect();
        for pair in words.chunks_exact(2) {
            let value: u64 = pair[1].parse().expect("a number in the OACK");
            match pair[0].to_ascii_lowercase().as_str() {
                "blksize" => self.block_size = value as usize,
                "windowsize" => self.window = value,
                _ => {}
            }
        }
        if self.block == 0 {
            self.ack(now, loss);
        }
    }

    fn take_data(&mut self, bytes: &[u8], now: Instant, loss: &mut Loss, is_held: bool) {
        let number = u16::from_be_bytes([bytes[0], bytes[1]]);
        if number != (self.block + 1) as u16 {
            // RFC 7440 §4: name the last block before the gap, so that the server goes on from there.
            if self.window > 1 && !self.told_gap {
                self.told_gap = true;
                self.ack(now, loss);
            }
            return;
        }
        let len = bytes.len() - 2;
        self.block += 1;
        self.bytes += len as u64;
        self.told_gap = false;
        self.done = len < self.block_size;
        if !is_held && (self.done || self.block - self.acked >= self.window) {
            self.ack(now, loss);
        }
    }
}

/// A datagram on its way.
struct Delayed {
    index: usize,
    arrived_at: Instant,
    from: SocketAddr,
    bytes: Vec<u8>,
}

/// Loses packets both ways by a fixed sequence.
struct Loss {
    percent: u64,
    state: u64,
}

impl Loss {
    fn strikes(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % 100 < self.percent
    }
}

pub fn main(arguments: &[String]) {
    let options = options(arguments);
    let mut poll = Poll::new().expect("a poll");
    let mut loss = Loss { percent: options.loss_percent, state: 0x9e37_79b9_7f4a_7c15 };
    let start = Instant::now();
    let mut clients: Vec<Client> = (0..options.parallel).map(|_| Client::start(&options)).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        poll.registry().register(&mut client.socket, Token(index), Interest::READABLE).expect("a registration");
        client.send(start, &mut loss);
    }
    let mut events = Events::with_capacity(1024);
    let mut line: VecDeque<Delayed> = VecDeque::new();
    let mut look_at = start + RESEND;
    while clients.iter().any(|client| !client.done) {
        let now = Instant::now();
        if options.hold.is_some_and(|hold| now > start + hold) {
            break;
        }
        if now >= look_at {
            look_at = now + RESEND / 10;
            let is_late = |client: &&mut Client| !client.done && now >= client.resend_at;
            if options.hold.is_none() {
                clients.iter_mut().filter(is_late).for_each(|client| client.send(now, &mut loss));
            }
        }
        // A poll waits whole milliseconds; while something is on the delay line, short sleeps are nearer to the truth.
        let wait = if line.is_empty() { look_at.saturating_duration_since(now) } else { Duration::ZERO };
        poll.poll(&mut events, Some(wait)).expect("a poll");
        let now = Instant::now();
        for event in &events {
            let index = event.token().0;
            clients[index].receive(index, now, &mut line);
        }
        while let Some(packet) = line.pop_front_if(|packet| packet.arrived_at + options.delay <= now) {
            clients[packet.index].handle(&packet, now, &mut loss, options.hold.is_some());
        }
        if let Some(packet) = line.front() {
            let left = (packet.arrived_at + options.delay).saturating_duration_since(Instant::now());
            std::thread::sleep(left.min(Duration::from_micros(50)));
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes: u64 = clients.iter().map(|client| client.bytes).sum();
    let finished = clients.iter().filter(|client| client.done && client.failed.is_none()).count();
    for error in clients.iter().filter_map(|client| client.failed.as_ref()).take(3) {
        eprintln!("server: {error}");
    }
    println!("{finished} clients, {bytes} bytes, {seconds:.4} s, {:.2} MB/s", bytes as f64 / seconds / 1e6);
}
