//! HTTP clients in numbers: throughput and the server's CPU time, idle connections, slow-loris.
//!
//! `http-load URL [--clients N] [--requests M] [--pid PID]…` fetches URL M times with each of N clients, throws the bytes away and
//! prints GB/s; with `--pid` also the CPU seconds that those processes spent per GB. With `--seconds S` it goes on for so long.
//! `http-load URL --idle N` opens N connections, makes one HEAD request on each and keeps them open until stdin ends; with `--pid`
//! prints by how much those processes grew. `http-load URL --slow N` drips one byte of a request per second on each.

use crate::cost::{cpu_seconds, rss_kib};
use auroraboot::sys::discard::discard;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub fn main(arguments: Vec<String>) {
    let options = Options::from(arguments);
    match (options.idle, options.slow) {
        (0, 0) => load(&options),
        (idle, 0) => hold_idle(&options, idle),
        (_, slow) => drip(&options, slow),
    }
}

struct Options {
    address: SocketAddr,
    path: String,
    clients: usize,
    requests: usize,
    seconds: Option<Duration>,
    idle: usize,
    slow: usize,
    pids: Vec<u32>,
}

impl Options {
    fn from(arguments: Vec<String>) -> Self {
        let mut args = arguments.into_iter();
        let url = args.next().expect("a URL");
        let (authority, path) = url.strip_prefix("http://").expect("an http:// URL").split_once('/').expect("a path");
        let address = authority.parse().expect("an address and a port");
        let path = format!("/{path}");
        let mut options =
            Self { address, path, clients: 1, requests: 1, seconds: None, idle: 0, slow: 0, pids: Vec::new() };
        while let Some(flag) = args.next() {
            let number: usize = args.next().expect("a value").parse().expect("a number");
            match flag.as_str() {
                "--clients" => options.clients = number,
                "--requests" => options.requests = number,
                "--seconds" => options.seconds = Some(Duration::from_secs(number as u64)),
                "--idle" => options.idle = number,
                "--slow" => options.slow = number,
                "--pid" => options.pids.push(u32::try_from(number).expect("a process id")),
                other => panic!("{other} is not an option"),
            }
        }
        if options.seconds.is_some() {
            options.requests = usize::MAX;
        }
        options
    }
}

/// One client of [`load`].
struct Client {
    stream: TcpStream,
    unsent: Vec<u8>,
    head: Vec<u8>,
    body_left: u64,
    requests_left: usize,
    first_byte: Option<Duration>,
}

fn load(options: &Options) {
    let cpu_before = cpu_seconds(&options.pids);
    let start = Instant::now();
    let mut poll = Poll::new().expect("a poll");
    let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\n\r\n", options.path, options.address).into_bytes();
    let mut clients: Vec<Client> = (0..options.clients)
        .map(|n| {
            let mut stream = TcpStream::connect(options.address).expect("a connection");
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(n), both).expect("to register");
            let unsent = request.clone();
            Client { stream, unsent, head: Vec::new(), body_left: 0, requests_left: options.requests, first_byte: None }
        })
        .collect();
    let mut events = Events::with_capacity(256);
    let (mut bytes, mut running) = (0, clients.len());
    while running > 0 && options.seconds.is_none_or(|seconds| start.elapsed() < seconds) {
        poll.poll(&mut events, Some(Duration::from_secs(60))).expect("events");
        assert!(!events.is_empty(), "the server has sent nothing for a minute");
        for event in &events {
            let client = &mut clients[event.token().0];
            if client.requests_left > 0 {
                bytes += client.advance(&request, start);
                running -= usize::from(client.requests_left == 0);
            }
        }
    }
    let (seconds, gigabytes) = (start.elapsed().as_secs_f64(), bytes as f64 / 1e9);
    let cpu = cpu_seconds(&options.pids) - cpu_before;
    let last = clients.iter().filter_map(|client| client.first_byte).max().unwrap_or_default();
    println!(
        "{gigabytes:.3} GB in {seconds:.3} s: {:.3} GB/s, server CPU {:.3} s/GB, last first byte after {:.0} ms",
        gigabytes / seconds,
        cpu / gigabytes,
        last.as_secs_f64() * 1e3
    );
}

impl Client {
    /// Writes and reads what can be; returns the bytes of bodies that arrived.
    fn advance(&mut self, request: &[u8], start: Instant) -> u64 {
        let mut bytes = 0;
        loop {
            while !self.unsent.is_empty() {
                match self.stream.write(&self.unsent) {
                    Ok(written) => drop(self.unsent.drain(..written)),
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                        return bytes;
                    }
                    Err(error) => panic!("sending a request: {error}"),
                }
            }
            let taken = if self.body_left > 0 { self.take_body() } else { self.take_head() };
            match taken {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(taken) => bytes += taken,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return bytes,
                Err(error) => panic!("receiving: {error}"),
            }
            self.first_byte.get_or_insert_with(|| start.elapsed());
            if self.body_left == 0 && self.head.is_empty() {
                self.requests_left -= 1;
                if self.requests_left == 0 {
                    return bytes;
                }
                self.unsent = request.to_vec();
            }
        }
    }

    fn take_body(&mut self) -> std::io::Result<u64> {
        let taken = discard(&self.stream, usize::try_from(self.body_left).unwrap_or(usize::MAX).min(4 << 20))? as u64;
        self.body_left -= taken;
        Ok(taken)
    }

    /// Reads a head byte by byte: what follows it is to be discarded, not read.
    fn take_head(&mut self) -> std::io::Result<u64> {
        let mut buffer = [0; 1];
        let taken = self.stream.read(&mut buffer)?;
        self.head.extend_from_slice(&buffer[..taken]);
        if self.head.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&self.head).to_lowercase();
            assert!(head.starts_with("http/1.1 200 "), "{head}");
            let length = head.split("content-length: ").nth(1).expect("a length");
            self.body_left = length.lines().next().unwrap_or_default().trim().parse().expect("a number");
            self.head.clear();
        }
        Ok(taken as u64)
    }
}

fn hold_idle(options: &Options, connections: usize) {
    let before = rss_kib(&options.pids);
    let request = format!("HEAD {} HTTP/1.1\r\nHost: {}\r\n\r\n", options.path, options.address);
    let idle: Vec<std::net::TcpStream> = (0..connections)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(options.address).expect("a connection");
            stream.write_all(request.as_bytes()).expect("to send");
            let taken = stream.read(&mut [0; 4096]).expect("to receive");
            assert!(taken > 0, "the server has closed the connection");
            stream
        })
        .collect();
    println!("{} idle connections: server RSS {before} KiB -> {} KiB", idle.len(), rss_kib(&options.pids));
    let _ = std::io::stdin().read(&mut [0]);
}

fn drip(options: &Options, connections: usize) {
    let connect = || std::net::TcpStream::connect(options.address).expect("a connection");
    let mut slow: Vec<std::net::TcpStream> = (0..connections).map(|_| connect()).collect();
    println!("{connections} connections drip");
    loop {
        let mut replaced = 0;
        for stream in &mut slow {
            if stream.write_all(b"G").is_err() {
                *stream = connect();
                replaced += 1;
            }
        }
        println!("{replaced} were closed by the server and opened again; server RSS {} KiB", rss_kib(&options.pids));
        std::thread::sleep(Duration::from_secs(1));
    }
}
