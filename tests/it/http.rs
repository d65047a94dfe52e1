//! The HTTP loop on real sockets, judged by curl and by raw bytes.

use auroraboot::daemon::http::{Http, HttpError, Netboot, Options, Sites, Stopper};
use auroraboot::http::exchange::Timeouts;
use auroraboot::netboot::blob::Blob;
use auroraboot::netboot::cmdline::Cmdline;
use auroraboot::netboot::event::{self, Event, Piece, Teller};
use auroraboot::netboot::names::{Names, file};
use auroraboot::netboot::served::{BootSet, Memory, Served};
use auroraboot::storage::Extent;
use auroraboot::units::{Arch, MacAddr};
use std::fs::File;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
pub const CLOUD_CONFIG: &[u8] = b"#cloud-config\nhostname: node\n";
const KERNEL_BYTES: usize = 300_000;
/// More than any socket buffer takes: a client that does not read stalls the server.
const ROOTFS_BYTES: u64 = 64 << 20;
/// For what is to happen at once; wide, because test machines are busy.
const SOON: Duration = Duration::from_secs(20);

/// The HTTP loop on a port of its own, with a kernel, an initrd, an image and a cloud config.
pub struct Server {
    pub address: SocketAddrV4,
    pub events: Receiver<Event>,
    pub names: Names,
    stopper: Stopper,
    thread: Option<JoinHandle<Result<(), HttpError>>>,
}

impl Server {
    pub fn start(options: Options) -> Self {
        let (teller, events) = event::channel(10_000);
        let served = served();
        let names = served.names.clone();
        let http = bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), served, teller, options).unwrap();
        let Some(SocketAddr::V4(address)) = http.netboot_addr() else { panic!("an IPv4 address") };
        let stopper = http.stopper();
        let thread = Some(std::thread::spawn(move || http.run()));
        Self { address, events, names, stopper, thread }
    }

    pub fn url(&self, file: &str) -> String {
        self.names.url_at(self.address, MAC, file)
    }

    fn path(&self, file: &str) -> String {
        format!("/{}", self.names.path(MAC, file))
    }

    fn connect(&self) -> TcpStream {
        connect(self.address)
    }

    /// The next event that `wanted` makes something of.
    fn wait_for<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let end = Instant::now() + SOON;
        loop {
            let event =
                self.events.recv_timeout(end.saturating_duration_since(Instant::now())).expect("the event comes");
            if let Some(found) = wanted(event) {
                return found;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the loop does not panic").expect("the loop ends well");
        }
    }
}

fn bind(address: SocketAddrV4, served: Served, teller: Teller, options: Options) -> Result<Http, HttpError> {
    let netboot = Some(Netboot { address, served: Arc::new(served) });
    Http::bind(Sites { netboot, media: None }, teller, options)
}

pub fn served() -> Served {
    let kernel = temporary_file(&pattern(KERNEL_BYTES + 100));
    let rootfs = temporary_file(&[]);
    rootfs.set_len(ROOTFS_BYTES).unwrap();
    // Two places in one file, as in an ISO.
    let half = KERNEL_BYTES as u64 / 2;
    let kernel_extents = vec![Extent { offset: 100, length: half }, Extent { offset: 100 + half, length: half }];
    let boot_set = BootSet {
        version: "v1".to_owned(),
        kernel: Blob::new(Arc::new(kernel), kernel_extents, "kernel-1"),
        initrd: Blob::whole(temporary_file(b"initrd"), 6, "initrd-1"),
        rootfs: Blob::whole(rootfs, ROOTFS_BYTES, "rootfs-1"),
        cloud_config: Some(Memory::new(CLOUD_CONFIG)),
    };
    let loaders = [("snponly.efi", Arc::from(*b"MZ not really"))].into_iter().collect();
    Served::new(Names::new([9; 32], 8090), loaders, Cmdline::new(Arch::Amd64, None).unwrap(), boot_set)
}

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn kernel() -> Vec<u8> {
    pattern(KERNEL_BYTES + 100).split_off(100)
}

/// An open file that is in no directory any more.
fn temporary_file(content: &[u8]) -> File {
    let path = temporary_path();
    let mut file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    file.write_all(content).unwrap();
    file
}

fn temporary_path() -> std::path::PathBuf {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("auroraboot-http-{}-{number}", std::process::id()))
}

fn connect(address: SocketAddrV4) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream
}

pub fn curl(args: &[&str]) -> Vec<u8> {
    let output = Command::new("curl").args(["-sS", "--max-time", "20"]).args(args).output().expect("curl is installed");
    assert!(output.status.success(), "curl {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn curl_text(args: &[&str]) -> String {
    String::from_utf8(curl(args)).unwrap()
}

/// Reads one response with a Content-Length: its head, and its body when it is not the answer to a HEAD.
fn response(stream: &mut impl BufRead, with_body: bool) -> (String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "the stream ended after {head:?}");
    }
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap();
    let mut body = vec![0; if with_body { length.parse().unwrap() } else { 0 }];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn short(timeout: Duration) -> Options {
    let timeouts = Timeouts { head: timeout, idle: timeout, stall: timeout, linger: timeout, answer: timeout };
    Options { timeouts, ..Options::default() }
}

#[test]
fn curl_gets_every_piece_and_each_is_told() {
    let server = Server::start(Options::default());
    assert!(curl(&[&server.url(file::KERNEL)]) == kernel());
    assert_eq!(curl(&[&server.url(file::INITRD)]), b"initrd");
    assert_eq!(curl(&[&server.url(file::CLOUD_CONFIG)]), CLOUD_CONFIG);
    let told: Vec<(Piece, u64)> = (0..3)
        .map(|_| {
            server.wait_for(|event| match event {
                Event::FileSent { mac: MAC, piece, bytes, .. } => Some((piece, bytes)),
                other => panic!("{other:?}"),
            })
        })
        .collect();
    let config_bytes = CLOUD_CONFIG.len() as u64;
    assert_eq!(told, [(Piece::Kernel, KERNEL_BYTES as u64), (Piece::Initrd, 6), (Piece::CloudConfig, config_bytes)]);
}

#[test]
fn curl_asks_for_heads_and_ranges_and_resumes() {
    let server = Server::start(Options::default());
    let url = server.url(file::KERNEL);
    let head = curl_text(&["--head", &url]);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 300000\r\n"), "{head}");
    let loader = curl_text(&["--head", &server.url("snponly.efi")]);
    assert!(loader.contains("Content-Type: application/efi\r\n"), "{loader}");
    assert_eq!(curl(&["-r", "149990-150009", &url]), kernel()[149_990..150_010], "across two extents");
    assert_eq!(curl(&["-r", "-7", &url]), kernel()[KERNEL_BYTES - 7..]);
    assert_eq!(curl(&["-r", "0-1,5-6", &url]).len(), KERNEL_BYTES, "several ranges at once are not served");
    assert_eq!(curl_text(&["-o", "/dev/null", "-w", "%{http_code}", "-r", "300000-", &url]), "416");

    let path = temporary_path();
    std::fs::write(&path, &kernel()[..123_456]).unwrap();
    curl(&["-C", "-", "-o", path.to_str().unwrap(), &url]);
    assert!(std::fs::read(&path).unwrap() == kernel());
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_resumed_file_is_told_when_its_end_is_sent_and_a_middle_is_not() {
    let server = Server::start(Options::default());
    let url = server.url(file::KERNEL);
    curl(&["-r", "100-199", &url]);
    curl(&["-r", "200000-", &url]);
    let bytes = server.wait_for(|event| match event {
        Event::FileSent { bytes, .. } => Some(bytes),
        _ => None,
    });
    assert_eq!(bytes, 100_000);
}

#[test]
fn one_connection_serves_many_requests_and_http_1_0_gets_one() {
    let server = Server::start(Options::default());
    let url = server.url(file::INITRD);
    let connections =
        ["-o", "/dev/null", "-w", "%{num_connects}", &url, "-o", "/dev/null", &url, "-o", "/dev/null", &url];
    assert_eq!(curl_text(&connections), "100");
    assert_eq!(curl(&["--http1.0", &url]), b"initrd");

    let mut stream = server.connect();
    write!(stream, "GET {} HTTP/1.0\r\n\r\n", server.path(file::INITRD)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(text.contains("Connection: close\r\n") && text.ends_with("\r\n\r\ninitrd"), "{text}");
}

#[test]
fn firmware_asks_head_then_get_on_one_connection_and_pipelining_is_answered_in_order() {
    let server = Server::start(Options::default());
    let (kernel_path, initrd) = (server.path(file::KERNEL), server.path(file::INITRD));
    let mut stream = BufReader::new(server.connect());
    let requests = format!(
        "HEAD {kernel_path} HTTP/1.1\r\nHost: x\r\n\r\nGET {kernel_path} HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\nGET {initrd} HTTP/1.1\r\n\r\n"
    );
    stream.get_mut().write_all(requests.as_bytes()).unwrap();
    let (head, _) = response(&mut stream, false);
    assert!(head.contains("Content-Length: 300000\r\n"), "{head}");
    assert!(response(&mut stream, true).1 == kernel());
    assert!(response(&mut stream, true).0.starts_with("HTTP/1.1 404 Not Found\r\n"));
    assert_eq!(response(&mut stream, true).1, b"initrd");
}

#[test]
fn what_is_not_served_is_404_and_what_is_no_request_is_refused() {
    let server = Server::start(Options::default());
    let token = server.names.token(MAC);
    for path in [
        "/none",
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        &format!("/{token}"),
        &format!("/{token}/../kernel"),
    ] {
        let url = format!("http://{}{path}", server.address);
        assert_eq!(curl_text(&["--path-as-is", "-o", "/dev/null", "-w", "%{http_code}", &url]), "404", "{path}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(20_000));
    let refused =
        [("nonsense\r\n\r\n", "400"), ("POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"), (&long, "431")];
    for (request, status) in refused {
        let mut stream = server.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap(); // to its end: the connection is closed, and not by a reset
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    let front = curl_text(&[&format!("http://{}/", server.address)]);
    assert!(front.starts_with("This is auroraboot.") && !front.contains(&token), "{front}");
}

#[test]
fn a_client_that_closes_its_sending_side_still_gets_everything() {
    let server = Server::start(Options::default());
    let mut stream = server.connect();
    write!(stream, "GET {} HTTP/1.1\r\n\r\n", server.path(file::ROOTFS)).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let bytes = std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    assert!(bytes > ROOTFS_BYTES, "{bytes}");
}

#[test]
fn a_client_that_leaves_in_the_middle_is_told_with_how_far_it_came() {
    let server = Server::start(Options::default());
    let mut stream = server.connect();
    write!(stream, "GET {} HTTP/1.1\r\n\r\n", server.path(file::ROOTFS)).unwrap();
    stream.read_exact(&mut [0; 100_000]).unwrap();
    drop(stream); // with unread bytes: a reset
    let (sent, size, reason) = server.wait_for(|event| match event {
        Event::FileBroken { piece: Piece::Rootfs, sent, size, reason, .. } => Some((sent, size, reason)),
        _ => None,
    });
    assert!((90_000..ROOTFS_BYTES).contains(&sent) && size == ROOTFS_BYTES, "{sent} of {size}");
    assert_eq!(reason, "the client left");
    assert_eq!(curl(&[&server.url(file::INITRD)]), b"initrd", "others are served on");
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_delays_nobody() {
    let server = Server::start(short(Duration::from_millis(300)));
    let mut stalled = server.connect();
    write!(stalled, "GET {} HTTP/1.1\r\n\r\n", server.path(file::ROOTFS)).unwrap();
    assert_eq!(curl(&[&server.url(file::INITRD)]), b"initrd");
    let reason = server.wait_for(|event| match event {
        Event::FileBroken { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reason, "the client took no byte for too long");
    let received = std::io::copy(&mut stalled, &mut std::io::sink());
    assert!(received.is_err() || received.unwrap() < ROOTFS_BYTES);
}

#[test]
fn silent_and_idle_connections_are_closed() {
    let server = Server::start(short(Duration::from_millis(100)));
    let mut silent = server.connect();
    assert_eq!(silent.read(&mut [0; 10]).unwrap(), 0);
    let mut idle = BufReader::new(server.connect());
    write!(idle.get_mut(), "GET {} HTTP/1.1\r\n\r\n", server.path(file::INITRD)).unwrap();
    assert_eq!(response(&mut idle, true).1, b"initrd");
    assert_eq!(idle.read(&mut [0; 10]).unwrap(), 0);
}

#[test]
fn when_full_the_longest_waiting_makes_room_and_the_busy_are_left_alone() {
    let server = Server::start(Options { connections_max: 2, ..Options::default() });
    let mut waiting = server.connect();
    let mut busy = server.connect();
    write!(busy, "GET {} HTTP/1.1\r\n\r\n", server.path(file::ROOTFS)).unwrap();
    busy.read_exact(&mut [0; 1000]).unwrap();
    let mut second = server.connect();
    assert_eq!(waiting.read(&mut [0; 10]).unwrap(), 0, "the first connection has made room");
    write!(second, "GET {} HTTP/1.1\r\n\r\n", server.path(file::ROOTFS)).unwrap();
    second.read_exact(&mut [0; 1000]).unwrap();
    let mut refused = String::new();
    server.connect().read_to_string(&mut refused).unwrap();
    assert!(refused.starts_with("HTTP/1.1 503 ") && refused.contains("Retry-After: 2\r\n"), "{refused}");
    busy.read_exact(&mut [0; 1000]).unwrap();
}

#[test]
fn a_file_that_becomes_shorter_ends_the_response_not_the_server() {
    let rootfs = temporary_file(&[]);
    rootfs.set_len(ROOTFS_BYTES).unwrap();
    let served = served();
    let nothing = Blob::whole(temporary_file(&[]), 0, "nothing");
    served.replace(BootSet {
        version: "v2".to_owned(),
        kernel: nothing.clone(),
        initrd: nothing,
        rootfs: Blob::whole(rootfs.try_clone().unwrap(), ROOTFS_BYTES, "r"),
        cloud_config: None,
    });
    let names = served.names.clone();
    let (teller, events) = event::channel(100);
    let http = bind("127.0.0.1:0".parse().unwrap(), served, teller, Options::default()).unwrap();
    let Some(SocketAddr::V4(address)) = http.netboot_addr() else { panic!("an IPv4 address") };
    let stopper = http.stopper();
    let thread = std::thread::spawn(move || http.run());
    let mut stream = connect(address);
    write!(stream, "GET /{} HTTP/1.1\r\n\r\n", names.path(MAC, file::ROOTFS)).unwrap();
    stream.read_exact(&mut [0; 1000]).unwrap();
    rootfs.set_len(1000).unwrap();
    assert!(std::io::copy(&mut stream, &mut std::io::sink()).unwrap() < ROOTFS_BYTES);
    let Event::FileBroken { reason, .. } = events.recv_timeout(SOON).unwrap() else { panic!("another event") };
    assert_eq!(reason, "the file has become shorter");
    stopper.stop();
    thread.join().unwrap().unwrap();
}

#[test]
fn a_taken_port_is_an_error_that_names_the_holder() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let SocketAddr::V4(address) = holder.local_addr().unwrap() else { panic!("an IPv4 address") };
    let (teller, _events) = event::channel(1);
    let error = bind(address, served(), teller, Options::default()).unwrap_err().to_string();
    assert!(error.contains("the port is taken by ") && error.contains(&std::process::id().to_string()), "{error}");
    let (teller, _events) = event::channel(1);
    let elsewhere = "192.0.2.1:0".parse().unwrap();
    let error = bind(elsewhere, served(), teller, Options::default()).unwrap_err();
    assert!(matches!(error, HttpError::Listen { .. }), "{error}");
}

/// The loop in a process of its own, so that its memory and its descriptors can be looked at and bounded.
struct Process {
    child: Child,
    /// Kept open: the test harness in the child wants to report at its end.
    _stdout: Lines<BufReader<ChildStdout>>,
    address: SocketAddrV4,
}

impl Process {
    fn start(descriptors: u32) -> Self {
        let mut child = Command::new("sh")
            .args(["-c", "ulimit -n $0; exec \"$1\" --ignored --exact http::serve_for_another_test --nocapture"])
            .arg(descriptors.to_string())
            .arg(std::env::current_exe().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| Some(line.unwrap().split_once("listening on ")?.1.parse().unwrap()));
        Self { child, _stdout: lines, address: address.expect("the server starts") }
    }

    fn rss_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn get_initrd(&self) -> Vec<u8> {
        let mut stream = BufReader::new(connect(self.address));
        request_initrd(&mut stream)
    }

    fn connection_after_a_request(&self) -> BufReader<TcpStream> {
        let mut stream = BufReader::with_capacity(512, connect(self.address));
        assert_eq!(request_initrd(&mut stream), b"initrd");
        stream
    }
}

fn request_initrd(stream: &mut BufReader<TcpStream>) -> Vec<u8> {
    let path = Names::new([9; 32], 8090).path(MAC, file::INITRD);
    write!(stream.get_mut(), "GET /{path} HTTP/1.1\r\n\r\n").unwrap();
    response(stream, true).1
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // tells it to end
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "it is run by other tests, in a process of its own"]
fn serve_for_another_test() {
    let server = Server::start(Options::default());
    println!("\nlistening on {}", server.address);
    let _ = std::io::stdin().read(&mut [0]);
}

#[test]
fn a_thousand_slow_clients_neither_delay_a_quick_one_nor_cost_memory() {
    let server = Process::start(2_000);
    assert_eq!(server.get_initrd(), b"initrd");
    let before = server.rss_kib();
    let mut slow: Vec<TcpStream> = (0..1_000).map(|_| connect(server.address)).collect();
    for _ in 0..20 {
        for stream in &mut slow {
            let _ = stream.write_all(b"G");
        }
    }
    let asked = Instant::now();
    assert_eq!(server.get_initrd(), b"initrd");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown <= 8 << 10, "{grown} KiB for 1,000 connections");
}

#[test]
fn a_thousand_idle_connections_cost_little() {
    let server = Process::start(2_000);
    assert_eq!(server.get_initrd(), b"initrd");
    let before = server.rss_kib();
    let idle: Vec<BufReader<TcpStream>> = (0..1_000).map(|_| server.connection_after_a_request()).collect();
    let grown = server.rss_kib().saturating_sub(before);
    assert!(grown <= 8 << 10, "{grown} KiB for {} connections", idle.len());
}

#[test]
fn without_descriptors_left_it_serves_on() {
    let server = Process::start(40);
    let crowd: Vec<TcpStream> = (0..200).map(|_| connect(server.address)).collect();
    assert_eq!(server.get_initrd(), b"initrd", "the longest waiting have made room");
    drop(crowd);
    assert_eq!(server.get_initrd(), b"initrd");
}
