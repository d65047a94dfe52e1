//! The boot loop on a LAN of network namespaces: real frames, a real DHCP server beside it.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use auroraboot::daemon::boot::{Boot, BootError, BootOptions, Stopper};
use auroraboot::daemon::boot_files::BootFiles;
use auroraboot::dhcp::Policy;
use auroraboot::dhcp::frame::{self, UdpChecksum};
use auroraboot::dhcp::options;
use auroraboot::dhcp::packet::Packet;
use auroraboot::limits;
use auroraboot::netboot::blob::Blob;
use auroraboot::netboot::cmdline::Cmdline;
use auroraboot::netboot::event::{self, Event};
use auroraboot::netboot::names::Names;
use auroraboot::netboot::served::{BootSet, Served};
use auroraboot::sys::netlink;
use auroraboot::sys::packet_socket::{BATCH, Batch, PacketSocket};
use auroraboot::sys::testbed;
use auroraboot::units::{Arch, MacAddr};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

use crate::dhcp::{OVMF, messages, policy};

pub const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 165);
/// The machine in the capture.
pub const MACHINE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 0x0a]);
/// What should happen does at once; a loaded machine may take longer.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Two namespaces joined by a cable: the server's and the machines'.
pub struct Lan {
    pub server: String,
    pub machines: String,
}

impl Lan {
    fn new() -> Self {
        Self::named("ab-dhcp")
    }

    /// The namespaces' names begin with `prefix`.
    pub fn named(prefix: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |role| format!("{prefix}-{}-{number}-{role}", std::process::id());
        let lan = Self { server: name("srv"), machines: name("mac") };
        for namespace in [&lan.server, &lan.machines] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        lan.plug_in();
        ip(&["-n", &lan.machines, "addr", "add", &format!("{CLIENT}/24"), "dev", "eth0"]);
        lan
    }

    fn plug_in(&self) {
        let (server, machines) = (&self.server, &self.machines);
        ip(&["-n", machines, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", server]);
        ip(&["-n", server, "addr", "add", &format!("{SERVER}/24"), "brd", "+", "dev", "eth0"]);
        for namespace in [server, machines] {
            ip(&["-n", namespace, "link", "set", "eth0", "up"]);
        }
    }

    /// Runs something in the machines' namespace; what it opens stays there.
    pub fn as_machine<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        within(&self.machines, work)
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in [&self.server, &self.machines] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
    }
}

pub fn within<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            testbed::enter_namespace(namespace).unwrap();
            work()
        });
        thread.join().unwrap()
    })
}

pub fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("needs iproute2: run tests/run");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments:?}: {error} (needs root and network namespaces: run tests/run)");
}

/// The product's boot thread in the server's namespace.
struct Running {
    events: Receiver<Event>,
    stop: Stopper,
    thread: Option<JoinHandle<()>>,
    summary: String,
}

fn bind(lan: &Lan, listen: Ipv4Addr, interfaces: &[&str]) -> Result<(Boot, Receiver<Event>), BootError> {
    let (options, events) = options(listen, interfaces);
    within(&lan.server, || Boot::bind(options)).map(|boot| (boot, events))
}

fn names() -> Names {
    Names::new([7; 32], 8090)
}

/// Serves a loader of 5,000 bytes, and nothing to boot after it.
fn options(listen: Ipv4Addr, interfaces: &[&str]) -> (BootOptions, Receiver<Event>) {
    let (teller, events) = event::channel(4096);
    let nothing = || Blob::whole(File::open("/dev/null").unwrap(), 0, "");
    let (kernel, initrd, rootfs) = (nothing(), nothing(), nothing());
    let boot_set = BootSet { version: String::new(), kernel, initrd, rootfs, cloud_config: None };
    let loaders = [("snponly.efi", Arc::from(vec![0x5a; 5_000]))].into_iter().collect();
    let served = Served::new(names(), loaders, Cmdline::new(Arch::Amd64, None).unwrap(), boot_set);
    let options = BootOptions {
        listen,
        interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
        policy: Policy { files: Box::new(names()), ..policy() },
        files: Arc::new(BootFiles::new(Arc::new(served))),
        names: names(),
        teller,
    };
    (options, events)
}

impl Running {
    fn start(lan: &Lan) -> Self {
        let (boot, events) = bind(lan, Ipv4Addr::UNSPECIFIED, &[]).unwrap();
        let (stop, summary) = (boot.stopper(), boot.summary().to_string());
        // Interfaces are listed anew when they change, so the thread has to live in the namespace.
        let namespace = lan.server.clone();
        let thread = std::thread::spawn(move || {
            testbed::enter_namespace(&namespace).unwrap();
            boot.run().unwrap();
        });
        Self { events, stop, thread: Some(thread), summary }
    }

    /// Waits for an event that satisfies the test, and returns it.
    fn wait_for(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left).expect("the event did not come");
            if wanted(&event) {
                return event;
            }
        }
    }

    fn wait_for_trouble(&self, text: &str) {
        self.wait_for(|event| matches!(event, Event::Trouble { what } | Event::News { what } if what.contains(text)));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.stop();
        let result = self.thread.take().unwrap().join();
        assert!(result.is_ok() || std::thread::panicking(), "the boot thread panicked");
    }
}

/// A machine's network card: sends and sees whole frames.
pub struct Card {
    socket: PacketSocket,
    poll: Poll,
    mac: MacAddr,
}

impl Card {
    /// Listens to what comes to the DHCP client's port.
    pub fn new(lan: &Lan, interface: &str) -> Self {
        lan.as_machine(|| {
            let all = netlink::interfaces().unwrap();
            let found = all.iter().find(|found| found.name == interface).unwrap();
            let socket = PacketSocket::open(found.index, 68, 8 << 20).unwrap();
            let poll = Poll::new().unwrap();
            poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(0), Interest::READABLE).unwrap();
            Self { socket, poll, mac: found.mac.unwrap() }
        })
    }

    pub fn broadcast(&self, message: &[u8]) {
        self.socket.send(&self.frame(message)).unwrap();
    }

    fn frame(&self, message: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        let source = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
        frame::emit_broadcast(&mut frame, self.mac, source, 67, message);
        frame
    }

    /// Waits for the next messages to port 68 until one satisfies the test; returns its sender and bytes.
    pub fn wait_for(&mut self, mut wanted: impl FnMut(&Packet<'_>) -> bool) -> (SocketAddrV4, Vec<u8>) {
        let deadline = Instant::now() + PATIENCE;
        let (mut batch, mut events) = (Batch::default(), Events::with_capacity(1));
        loop {
            if self.socket.receive(&mut batch).is_ok() {
                for received in batch.frames() {
                    let checksum =
                        if received.checksum_not_ready { UdpChecksum::NotReady } else { UdpChecksum::Filled };
                    let datagram = frame::parse(received.bytes, checksum).unwrap();
                    if wanted(&Packet::parse(datagram.payload).unwrap()) {
                        return (datagram.source, datagram.payload.to_vec());
                    }
                }
                continue;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "no answer came");
            self.poll.poll(&mut events, Some(left)).unwrap();
        }
    }

    pub fn wait_for_xid(&mut self, xid: u32) -> (SocketAddrV4, Vec<u8>) {
        self.wait_for(|packet| packet.xid() == xid && packet.siaddr() != Ipv4Addr::UNSPECIFIED)
    }
}

/// Fetches a file by the plainest TFTP there is.
pub fn fetch(name: &str) -> Vec<u8> {
    let socket = UdpSocket::bind((CLIENT, 0)).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = [b"\0\x01", name.as_bytes(), b"\0octet\0"].concat();
    socket.send_to(&request, (SERVER, 69)).unwrap();
    let (mut content, mut buffer) = (Vec::new(), [0; 600]);
    loop {
        let (length, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(buffer[..2], [0, 3], "DATA: {}", buffer[..length].escape_ascii());
        content.extend_from_slice(&buffer[4..length]);
        socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
        if length < 516 {
            return content;
        }
    }
}

/// OVMF's DISCOVER, under another transaction id.
pub fn discover(xid: u32) -> Vec<u8> {
    let (_, mut message) = messages(OVMF).remove(0);
    message[4..8].copy_from_slice(&xid.to_be_bytes());
    message
}

/// OVMF's REQUEST to port 4011; it says that it comes from 10.77.0.165.
fn pxe_request() -> Vec<u8> {
    messages(OVMF).pop().unwrap().1
}

/// An ordinary DHCP server that holds port 67.
struct Dnsmasq(Child);

impl Dnsmasq {
    fn start(namespace: &str) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", namespace, "dnsmasq", "--keep-in-foreground", "--log-facility=-", "--port=0"])
            .args(["--conf-file=/dev/null", "--no-ping", "--leasefile-ro", "--pid-file", "--user=root"])
            .args(["--dhcp-range=10.77.0.100,10.77.0.150,1h", "--dhcp-authoritative"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let started = lines.any(|line| line.unwrap().contains("DHCP, IP range"));
        assert!(started, "dnsmasq did not start (is it installed? run tests/run)");
        std::thread::spawn(move || lines.for_each(drop)); // it must not block on a full pipe
        Self(child)
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_machine_is_answered_beside_a_dhcp_server_on_the_same_host() {
    let lan = Lan::new();
    let _dnsmasq = Dnsmasq::start(&lan.server);
    let running = Running::start(&lan);
    assert_eq!(running.summary, "eth0 (10.77.0.2)");
    let mut card = Card::new(&lan, "eth0");
    card.broadcast(&discover(7));
    let ours = |packet: &Packet<'_>| packet.yiaddr().is_unspecified();
    let (from, offer) = card.wait_for(ours);
    assert_eq!(from, SocketAddrV4::new(SERVER, 67));
    let offer = Packet::parse(&offer).unwrap();
    assert_eq!((offer.xid(), offer.siaddr()), (7, SERVER));
    let file = names().path(MACHINE, "snponly.efi");
    assert_eq!(offer.file(), file.as_bytes());
    let offered = running.wait_for(|event| matches!(event, Event::Offered { .. }));
    assert_eq!(offered, Event::Offered { mac: MACHINE, client: "x64 UEFI".into() });
    // The DHCP server has heard it as well and leases an address. It is the first message to differ, so asking anew will do.
    card.broadcast(&discover(8));
    card.wait_for(|packet| packet.xid() == 8 && !packet.yiaddr().is_unspecified());

    let socket = lan.as_machine(|| UdpSocket::bind((CLIENT, 4011)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.send_to(&pxe_request(), (SERVER, 4011)).unwrap();
    let mut buffer = [0; 1500];
    let (length, from) = socket.recv_from(&mut buffer).unwrap();
    assert_eq!(from, SocketAddrV4::new(SERVER, 4011).into());
    let ack = Packet::parse(&buffer[..length]).unwrap();
    assert_eq!(ack.option(options::MESSAGE_TYPE).unwrap().as_ref(), [options::message::ACK]);
    assert_eq!((ack.ciaddr(), ack.file()), (CLIENT, file.as_bytes()));
    running.wait_for(|event| matches!(event, Event::Acked { .. }));

    assert_eq!(lan.as_machine(|| fetch(&file)), [0x5a; 5_000]);
    let sent = running.wait_for(|event| matches!(event, Event::TftpSent { .. }));
    assert!(matches!(sent, Event::TftpSent { name, .. } if name == "52:54:00:00:00:0a/snponly.efi"));
}

#[test]
fn a_dhcp_server_on_the_same_host_may_start_after_us() {
    let lan = Lan::new();
    let _running = Running::start(&lan);
    let _dnsmasq = Dnsmasq::start(&lan.server);
    let mut card = Card::new(&lan, "eth0");
    card.broadcast(&discover(1));
    card.wait_for(|packet| !packet.yiaddr().is_unspecified());
}

#[test]
fn an_interface_that_goes_down_or_away_is_served_again_when_it_is_back() {
    let lan = Lan::new();
    let running = Running::start(&lan);
    ip(&["-n", &lan.server, "link", "set", "eth0", "down"]);
    running.wait_for_trouble("eth0: down; machines there get no answer");
    ip(&["-n", &lan.server, "link", "set", "eth0", "up"]);
    running.wait_for_trouble("eth0: serving machines from 10.77.0.2");
    let mut card = Card::new(&lan, "eth0");
    card.broadcast(&discover(1));
    card.wait_for_xid(1);

    ip(&["-n", &lan.server, "link", "del", "eth0"]);
    running.wait_for_trouble("eth0: gone or replaced");
    lan.plug_in();
    running.wait_for_trouble("eth0: serving machines from 10.77.0.2");
    let mut card = Card::new(&lan, "eth0");
    card.broadcast(&discover(2));
    card.wait_for_xid(2);

    // A new address: the next answer comes from it.
    ip(&["-n", &lan.server, "addr", "add", "10.77.0.3/25", "brd", "+", "dev", "eth0"]);
    ip(&["-n", &lan.server, "addr", "del", "10.77.0.2/24", "dev", "eth0"]);
    running.wait_for_trouble("eth0: now serving from 10.77.0.3");
    card.broadcast(&discover(3));
    assert_eq!(card.wait_for_xid(3).0, SocketAddrV4::new([10, 77, 0, 3].into(), 67));
}

#[test]
fn a_wrong_checksum_is_ignored_and_an_unfilled_one_accepted() {
    let lan = Lan::new();
    let _running = Running::start(&lan);
    let mut card = Card::new(&lan, "eth0");
    let mut wrong = card.frame(&discover(1));
    *wrong.last_mut().unwrap() ^= 0xff;
    card.socket.send(&wrong).unwrap();
    card.broadcast(&discover(2));
    let (_, first) = card.wait_for(|_| true);
    assert_eq!(Packet::parse(&first).unwrap().xid(), 2, "the first answer is to the second message");

    // A UDP socket on a veth leaves the checksum to a card that does not exist.
    let socket = lan.as_machine(|| UdpSocket::bind((CLIENT, 68)).unwrap());
    socket.set_broadcast(true).unwrap();
    socket.send_to(&discover(3), (Ipv4Addr::BROADCAST, 67)).unwrap();
    card.wait_for_xid(3);
}

#[test]
fn a_relay_is_answered_at_its_address_with_its_option_back() {
    let lan = Lan::new();
    let _running = Running::start(&lan);
    let mut message = discover(4);
    message[24..28].copy_from_slice(&CLIENT.octets());
    assert_eq!(message.pop(), Some(options::END));
    message.extend([82, 4, 1, 2, 0xab, 0xcd, options::END]);
    let relay = lan.as_machine(|| UdpSocket::bind((CLIENT, 67)).unwrap());
    relay.set_read_timeout(Some(PATIENCE)).unwrap();
    relay.connect((SERVER, 67)).unwrap(); // so that "port unreachable" would come back as an error
    let mut buffer = [0; 1500];
    // To the first one it may: the port is not held before a relay shows up.
    relay.send(&message).unwrap();
    let _ = relay.recv(&mut buffer).or_else(|_| relay.recv(&mut buffer)).unwrap();
    relay.send(&message).unwrap();
    let length = relay.recv(&mut buffer).unwrap();
    let offer = Packet::parse(&buffer[..length]).unwrap();
    assert_eq!((offer.xid(), offer.giaddr(), offer.siaddr()), (4, CLIENT, SERVER));
    let last = offer.options().last().unwrap();
    assert_eq!((last.code, last.data), (82, &[1, 2, 0xab, 0xcd][..]));
    assert!(relay.take_error().unwrap().is_none());
}

#[test]
fn bursts_longer_than_one_turn_of_the_loop_are_answered_completely() {
    let lan = Lan::new();
    let running = Running::start(&lan);
    let mut card = Card::new(&lan, "eth0");
    let burst = u32::try_from(BATCH * limits::DHCP_BATCHES_PER_TURN * 2 + 1).unwrap();
    for xid in 0..burst {
        card.broadcast(&discover(xid));
    }
    let mut answered = HashSet::new();
    card.wait_for(|packet| {
        answered.insert(packet.xid());
        answered.len() == burst as usize
    });

    let socket = lan.as_machine(|| UdpSocket::bind((CLIENT, 4011)).unwrap());
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut buffer = [0; 1500];
    for _ in 0..=limits::PXE_MESSAGES_PER_TURN {
        socket.send_to(&pxe_request(), (SERVER, 4011)).unwrap();
    }
    for _ in 0..=limits::PXE_MESSAGES_PER_TURN {
        socket.recv_from(&mut buffer).unwrap();
    }
    let mut long = pxe_request();
    long.resize(limits::PXE_MESSAGE_BYTES_MAX, options::PAD);
    *long.iter_mut().rfind(|byte| **byte == options::END).unwrap() = options::PAD;
    long.push(options::END);
    socket.send_to(&long, (SERVER, 4011)).unwrap();
    let reason = "malformed at byte 2048: the options have no end mark";
    running.wait_for(|event| matches!(event, Event::Ignored { reason: told, .. } if told == reason));
}

#[test]
fn frames_of_a_vlan_this_host_is_not_in_are_not_answered() {
    let lan = Lan::new();
    let _running = Running::start(&lan);
    let mut card = Card::new(&lan, "eth0");
    let tagged = |message: &[u8], vlan: u16| {
        let mut frame = card.frame(message);
        let [high, low] = vlan.to_be_bytes();
        frame.splice(12..12, [0x81, 0x00, high, low]);
        frame
    };
    card.socket.send(&tagged(&discover(6), 5)).unwrap();
    card.socket.send(&tagged(&discover(7), 0xe000)).unwrap(); // a priority and no VLAN
    let (_, first) = card.wait_for(|_| true);
    assert_eq!(Packet::parse(&first).unwrap().xid(), 7);
}

#[test]
fn what_keeps_the_servers_from_starting_is_said() {
    let lan = Lan::new();
    let error = |listen: Ipv4Addr, interfaces: &[&str]| bind(&lan, listen, interfaces).unwrap_err().to_string();
    assert_eq!(
        error(Ipv4Addr::UNSPECIFIED, &["eth7"]),
        "`interfaces` names \"eth7\", but this host has no such interface (it has lo, eth0)"
    );
    assert_eq!(
        error(Ipv4Addr::new(10, 1, 1, 1), &[]),
        "no network interface to serve on: lo: loopback; \
         eth0: does not have the address 10.1.1.1 of `netboot_listen_addr`"
    );
    let holder = within(&lan.server, || UdpSocket::bind("0.0.0.0:4011").unwrap());
    let text = error(Ipv4Addr::UNSPECIFIED, &[]);
    assert!(text.starts_with("cannot take UDP port 4011 (PXE boot server): "), "{text}");
    assert!(text.ends_with(&format!("(process {}) holds it", std::process::id())), "{text}");
    drop(holder);
    let unprivileged = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            testbed::enter_namespace(&lan.server).unwrap();
            testbed::drop_capabilities().unwrap();
            let (options, _events) = options(Ipv4Addr::UNSPECIFIED, &[]);
            Boot::bind(options).unwrap_err().to_string()
        });
        thread.join().unwrap()
    });
    assert!(unprivileged.starts_with("reading DHCP on eth0 needs CAP_NET_RAW: run with sudo"), "{unprivileged}");
    ip(&["-n", &lan.server, "addr", "flush", "dev", "eth0"]);
    assert_eq!(
        error(Ipv4Addr::UNSPECIFIED, &[]),
        "no network interface to serve on: lo: loopback; eth0: no IPv4 address"
    );
}
