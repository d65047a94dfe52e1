//! The TFTP server on loopback against stock clients and against clients of its own that misbehave.

mod sim;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use auroraboot::daemon::tftp_io::TftpIo;
use auroraboot::tftp::{Content, Event, Files, Refusal};

const LISTENER: usize = 10;

#[derive(Default)]
struct Shelf(HashMap<String, Content>);

impl Files for Shelf {
    fn open(&self, _from: SocketAddrV4, _server: Ipv4Addr, name: &str) -> Option<Content> {
        self.0.get(name).cloned()
    }
}

fn pattern(len: usize) -> Arc<[u8]> {
    (0..len).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// The server on a thread; ends when dropped.
struct Server {
    address: SocketAddrV4,
    events: mpsc::Receiver<Event>,
    waker: Arc<mio::Waker>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    fn start(files: &[(&str, &Arc<[u8]>)], places: usize) -> Self {
        let shelf = files.iter().map(|(name, bytes)| {
            let content: Content = Arc::new(Arc::clone(bytes));
            ((*name).to_owned(), content)
        });
        let mut poll = mio::Poll::new().unwrap();
        let free = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, free);
        let tokens = LISTENER..LISTENER + 1 + places;
        let mut tftp = TftpIo::bind_to(address, poll.registry(), tokens, Arc::new(Shelf(shelf.collect()))).unwrap();
        let (sender, events) = mpsc::channel();
        let waker = Arc::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let thread = std::thread::spawn(move || {
            let mut ready = mio::Events::with_capacity(256);
            loop {
                let now = Instant::now();
                let wait = tftp.next_deadline(now).map(|at| at.saturating_duration_since(now));
                match poll.poll(&mut ready, wait) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    done => done.unwrap(),
                }
                let now = Instant::now();
                for event in &ready {
                    match event.token() {
                        mio::Token(0) => return,
                        token => tftp.handle_ready(token, now),
                    }
                }
                tftp.handle_timeout(now);
                while let Some(event) = tftp.poll_event() {
                    let _ = sender.send(event); // the test may not care
                }
            }
        });
        Self { address, events, waker, thread: Some(thread) }
    }

    fn event(&self) -> Event {
        self.events.recv_timeout(Duration::from_secs(20)).expect("an event")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.waker.wake().unwrap();
        self.thread.take().unwrap().join().unwrap();
    }
}

/// A client socket, not connected: the server answers from a port of its own.
struct Client {
    socket: UdpSocket,
    server: SocketAddr,
}

impl Client {
    fn new(server: &Server) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { socket, server: server.address.into() }
    }

    fn ask(&mut self, request: &[u8]) -> Vec<u8> {
        self.socket.send_to(request, self.server).unwrap();
        let (answer, from) = self.receive();
        assert_ne!(from, self.server, "a transfer has a port of its own");
        self.server = from;
        answer
    }

    fn receive(&self) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 65_536];
        let (len, from) = self.socket.recv_from(&mut buffer).expect("an answer");
        (buffer[..len].to_vec(), from)
    }

    fn send(&self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.server).unwrap();
    }

    fn ack(&self, block: u16) {
        self.send(&[&[0, 4], &block.to_be_bytes()[..]].concat());
    }

    /// Takes the rest of the file, lock-step, after its first DATA packet.
    fn take_rest(&self, first: &[u8]) -> Vec<u8> {
        let block_len = 512;
        let (mut block, mut got) = (1_u16, first[4..].to_vec());
        self.ack(1);
        while got.len() % block_len == 0 {
            let (packet, _) = self.receive();
            assert_eq!(packet[..2], [0, 3]);
            if packet[2..4] == block.wrapping_add(1).to_be_bytes() {
                block = block.wrapping_add(1);
                got.extend_from_slice(&packet[4..]);
            }
            self.ack(block);
        }
        got
    }
}

fn needs(program: &str) {
    let mut directories =
        std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    assert!(directories.any(|dir| dir.join(program).exists()), "{program} is not installed: run tests/run");
}

/// Runs a client in a folder of its own and gives what it saved as `out`.
fn fetched_by(program: &str, args: &[&str], label: &str) -> Vec<u8> {
    let dir = std::env::temp_dir().join(format!("ab-tftp-{}-{label}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let run = Command::new(program).args(args).current_dir(&dir).output().unwrap();
    let got = std::fs::read(Path::new(&dir).join("out"));
    std::fs::remove_dir_all(&dir).unwrap();
    got.unwrap_or_else(|error| panic!("{program} {args:?}: {error}: {run:?}"))
}

#[test]
fn stock_clients_get_the_right_bytes() {
    let (big, empty, even) = (pattern(3_000_001), pattern(0), pattern(512 * 4));
    let server = Server::start(&[("dir/big", &big), ("empty", &empty), ("even", &even)], 8);
    let (host, port) = ("127.0.0.1", server.address.port().to_string());
    for (name, bytes) in [("dir/big", &big), ("empty", &empty), ("even", &even)] {
        needs("curl");
        let url = format!("tftp://{host}:{port}/{name}");
        assert!(fetched_by("curl", &["-s", "-o", "out", &url], "curl")[..] == bytes[..], "curl {name}");
        let large = ["-s", "--tftp-blksize", "8192", "-o", "out", &url];
        assert!(fetched_by("curl", &large, "curl")[..] == bytes[..], "curl, large blocks, {name}");
        needs("atftp");
        for option in ["blksize 1468", "windowsize 16", "tsize", "timeout 3"] {
            let args = ["--option", option, "-g", "-r", name, "-l", "out", host, &port];
            assert!(fetched_by("atftp", &args, "atftp")[..] == bytes[..], "atftp {option} {name}");
        }
        needs("tftp");
        for mode in ["binary", "netascii"] {
            let args = ["-m", mode, host, &port, "-c", "get", name, "out"];
            assert!(fetched_by("tftp", &args, "hpa")[..] == bytes[..], "tftp-hpa {mode} {name}");
        }
    }
}

#[test]
fn a_size_probe_then_the_file_as_ovmf_asks() {
    let bytes = pattern(100_000);
    let server = Server::start(&[("loader.efi", &bytes)], 8);
    let mut probe = Client::new(&server);
    let oack = probe.ask(b"\0\x01loader.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0");
    assert_eq!(oack, b"\0\x06tsize\x00100000\0blksize\x001468\0windowsize\x004\0");
    probe.send(b"\0\x05\0\x08User aborted the transfer\0");
    assert!(matches!(server.event(), Event::Probed { .. }));
    let mut client = Client::new(&server);
    client.ask(b"\0\x01/loader.efi\0octet\0blksize\x001468\0windowsize\x004\0");
    client.ack(0);
    let mut got = Vec::new();
    for block in 1..=69_u16 {
        let (packet, _) = client.receive();
        assert_eq!(packet[2..4], block.to_be_bytes());
        got.extend_from_slice(&packet[4..]);
        if block % 4 == 0 || block == 69 {
            client.ack(block);
        }
    }
    assert!(got[..] == bytes[..]);
    let Event::Sent { name, bytes, .. } = server.event() else { panic!("not sent") };
    assert_eq!((name.as_str(), bytes), ("loader.efi", 100_000));
}

#[test]
fn errors_on_the_wire() {
    let bytes = pattern(1000);
    let server = Server::start(&[("file", &bytes)], 8);
    let cases: [(&[u8], u8, Refusal); 3] = [
        (b"\0\x01missing\0octet\0", 1, Refusal::NotFound),
        (b"\0\x01../file\0octet\0", 2, Refusal::Climbs),
        (b"\0\x02file\0octet\0", 2, Refusal::Write),
    ];
    for (request, code, expected) in cases {
        let client = Client::new(&server);
        client.send(request);
        let (answer, _) = client.receive();
        assert_eq!(answer[..4], [0, 5, 0, code]);
        let Event::Refused { refusal, .. } = server.event() else { panic!("not refused") };
        assert_eq!(refusal, expected);
    }
}

#[test]
fn strangers_are_told_and_a_closed_client_frees_its_place() {
    let bytes = pattern(3000);
    let server = Server::start(&[("file", &bytes)], 1);
    let mut client = Client::new(&server);
    let first = client.ask(b"\0\x01file\0octet\0");
    // From another port: an ERROR 5, then from a port that is closed before the answer comes.
    let stranger = Client { server: client.server, ..Client::new(&server) };
    stranger.ack(1);
    assert_eq!(stranger.receive().0[..4], [0, 5, 0, 5]);
    stranger.ack(1);
    drop(stranger);
    assert!(client.take_rest(&first)[..] == bytes[..], "the transfer goes on");
    assert!(matches!(server.event(), Event::Sent { .. }));
    // The only place is taken by a client that goes away; its host says so at the next resend.
    let mut leaves = Client::new(&server);
    leaves.ask(b"\0\x01file\0octet\0");
    leaves.ack(1);
    leaves.receive();
    drop(leaves);
    let mut waits = Client::new(&server);
    let first = waits.ask(b"\0\x01file\0octet\0");
    assert!(waits.take_rest(&first)[..] == bytes[..]);
    assert!(matches!(server.event(), Event::Failed { .. }));
}

#[test]
fn two_thousand_clients_at_once_all_finish() {
    // 2,000 sockets and the server's; many shells allow 1,024. Where this fails, the first missing socket says so.
    let pid = std::process::id().to_string();
    let _ = Command::new("prlimit").args(["--pid", &pid, "--nofile=8192"]).status();
    let bytes = pattern(20_000);
    let server = Server::start(&[("file", &bytes)], 256);
    assert_eq!(crowd(&server, &bytes, 2000), 2000);
    let sent = (0..2000).filter(|_| matches!(server.event(), Event::Sent { .. })).count();
    assert_eq!(sent, 2000);
}

/// Lock-step clients in one loop; gives how many got the right bytes.
fn crowd(server: &Server, bytes: &[u8], count: usize) -> usize {
    let mut poll = mio::Poll::new().unwrap();
    let mut clients: Vec<_> = (0..count)
        .map(|index| {
            let mut socket = mio::net::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).expect("see ulimit -n");
            poll.registry().register(&mut socket, mio::Token(index), mio::Interest::READABLE).unwrap();
            socket.send_to(b"\0\x01file\0octet\0", server.address.into()).unwrap();
            (socket, Vec::new())
        })
        .collect();
    let mut events = mio::Events::with_capacity(256);
    let (mut done, start) = (0, Instant::now());
    while done < count {
        assert!(start.elapsed() < Duration::from_secs(60), "{done} of {count}");
        poll.poll(&mut events, Some(Duration::from_secs(1))).unwrap();
        if events.is_empty() {
            // A request was lost in a full receive buffer: ask again, as firmware does.
            for (socket, _) in clients.iter().filter(|(_, got)| got.is_empty()) {
                socket.send_to(b"\0\x01file\0octet\0", server.address.into()).unwrap();
            }
        }
        for event in &events {
            let (socket, got) = &mut clients[event.token().0];
            let mut buffer = [0; 1024];
            while let Ok((len, from)) = socket.recv_from(&mut buffer) {
                assert_eq!(buffer[1], 3, "{}", String::from_utf8_lossy(&buffer[4..len]));
                let next = u16::try_from(got.len() / 512 + 1).unwrap();
                if buffer[2..4] == next.to_be_bytes() && got.len() < bytes.len() {
                    got.extend_from_slice(&buffer[4..len]);
                    done += usize::from(got[..] == *bytes);
                }
                socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
            }
        }
    }
    done
}
