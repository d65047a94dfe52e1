//! The appliance's network in namespaces: a real dnsmasq, a scripted server, cables that are pulled.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auroraboot::appliance::network::{Machine, Network, Report, Settings};
use auroraboot::config::Address;
use auroraboot::dhcp::options::{self, message};
use auroraboot::dhcp::packet::{MAGIC_COOKIE, Packet};
use auroraboot::limits;
use auroraboot::sys::{netlink, packet_socket};

use crate::boot::{ip, within};

/// What should happen does within seconds; a loaded machine may take longer.
const PATIENCE: Duration = Duration::from_secs(60);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 55, 0, 1);
/// 2026-11-01.
const BUILT: Duration = Duration::from_secs(1_793_491_200);

/// The appliance's namespace, and that of everybody else, joined by a cable (and a second one where asked for).
struct Lan {
    appliance: String,
    others: String,
    dir: PathBuf,
}

impl Lan {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = |role| format!("ab-net-{}-{number}-{role}", std::process::id());
        let dir = std::env::temp_dir().join(name("files"));
        fs::create_dir_all(&dir).unwrap();
        let lan = Self { appliance: name("box"), others: name("lan"), dir };
        for namespace in [&lan.appliance, &lan.others] {
            ip(&["netns", "add", namespace]);
        }
        lan.cable("eth0");
        ip(&["-n", &lan.others, "addr", "add", &format!("{SERVER}/24"), "brd", "+", "dev", "eth0"]);
        ip(&["-n", &lan.others, "link", "set", "lo", "up"]);
        lan.plug("eth0", true);
        lan
    }

    /// A cable whose far end is not plugged in yet; the appliance's end is down, as after power-on.
    fn cable(&self, name: &str) {
        ip(&["-n", &self.appliance, "link", "add", name, "type", "veth", "peer", "name", name, "netns", &self.others]);
    }

    fn plug(&self, name: &str, plugged: bool) {
        ip(&["-n", &self.others, "link", "set", name, if plugged { "up" } else { "down" }]);
    }

    fn start(&self, settings: Settings) -> Running {
        let (set_clock, clock) = channel();
        let (set_hostname, hostname) = channel();
        let machine = Machine {
            resolv_conf: self.dir.join("resolv.conf"),
            build_time: UNIX_EPOCH + BUILT,
            set_clock: Box::new(move |time| set_clock.send(time).map_err(std::io::Error::other)),
            set_hostname: Box::new(move |name| set_hostname.send(name.to_owned()).map_err(std::io::Error::other)),
        };
        let network = within(&self.appliance, || Network::start(settings, machine)).unwrap();
        Running { network, clock, hostname }
    }

    fn dnsmasq(&self, arguments: &[&str]) -> Dnsmasq {
        let leases = format!("--dhcp-leasefile={}", self.dir.join("leases").display());
        let _ = fs::remove_file(self.dir.join("leases"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.others, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null"]);
        command.args([
            "--port=0",
            "--interface=eth0",
            "--bind-interfaces",
            "--dhcp-authoritative",
            "--no-ping",
            &leases,
        ]);
        let log = self.dir.join("dnsmasq.log");
        command.arg(format!("--log-facility={}", log.display()));
        command.arg(format!("--pid-file={}", self.dir.join("dnsmasq.pid").display())); // another's would end it
        command.args(["--user=root", "--log-dhcp"]).args(arguments).stdin(Stdio::null());
        Dnsmasq { process: command.spawn().expect("needs dnsmasq: run tests/run"), log }
    }

    /// What `ip` prints of the appliance.
    fn show(&self, arguments: &[&str]) -> String {
        let output = Command::new("ip").args(["-n", &self.appliance]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn resolv_conf(&self) -> String {
        fs::read_to_string(self.dir.join("resolv.conf")).unwrap_or_default()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for namespace in [&self.appliance, &self.others] {
            let _ = Command::new("ip").args(["netns", "del", namespace]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A real DHCP server; ends with the test.
struct Dnsmasq {
    process: Child,
    log: PathBuf,
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            println!("dnsmasq ({:?}):\n{log}", self.process.try_wait());
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const RANGE: &str = "--dhcp-range=10.55.0.50,10.55.0.99,255.255.255.0,2m";

struct Running {
    network: Network,
    clock: Receiver<SystemTime>,
    hostname: Receiver<String>,
}

impl Running {
    /// Waits for a report that satisfies the test. The network tells nobody that it has changed: it is asked.
    fn wait_for(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.network.report();
            if wanted(&report) {
                return report;
            }
            assert!(Instant::now() < deadline, "{what}: {report:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits for a settled lease, and returns its address.
    fn wait_for_lease(&self, what: &str, wanted: impl Fn(Ipv4Addr) -> bool) -> Ipv4Addr {
        let is_settled =
            |report: &Report| address(report).is_some_and(&wanted) && state(report).starts_with("address by DHCP");
        address(&self.wait_for(what, is_settled)).unwrap()
    }
}

fn address(report: &Report) -> Option<Ipv4Addr> {
    report.used().map(|used| used.addresses[0].ip)
}

fn state(report: &Report) -> &str {
    report.interfaces.first().map_or("", |interface| interface.state.as_str())
}

fn in_range(ip: Ipv4Addr, range: std::ops::RangeInclusive<u8>) -> bool {
    let [a, b, c, host] = ip.octets();
    [a, b, c] == [10, 55, 0] && range.contains(&host)
}

#[test]
fn a_lease_brings_everything_with_it() {
    let lan = Lan::new();
    let _dnsmasq = lan.dnsmasq(&[
        RANGE,
        "--dhcp-option=option:router,10.55.0.254",
        "--dhcp-option=option:dns-server,10.55.0.7,10.55.0.8",
        "--dhcp-option=option:mtu,1400",
        "--domain=lab.example",
    ]);
    let running = lan.start(Settings::default());
    let own = running.wait_for_lease("a lease", |ip| in_range(ip, 50..=99));
    let report = running.wait_for("settled", |report| report.hostname == "auroraboot");
    assert_eq!(report.dns, [Ipv4Addr::new(10, 55, 0, 7), Ipv4Addr::new(10, 55, 0, 8)]);
    assert_eq!(report.notices, [""; 0]);
    let lease = report.interfaces[0].lease.as_ref().unwrap();
    assert_eq!((lease.server, lease.gateway), (SERVER, Some([10, 55, 0, 254].into())));
    assert!(lease.remaining.unwrap() <= Duration::from_secs(120));
    assert_eq!(lan.resolv_conf(), "nameserver 10.55.0.7\nnameserver 10.55.0.8\nsearch lab.example\n");
    let routes = lan.show(&["route", "show", "default"]);
    assert!(routes.contains("default via 10.55.0.254 dev eth0") && routes.contains("metric 100"), "{routes}");
    assert!(routes.contains(&format!("src {own}")), "{routes}");
    let link = lan.show(&["addr", "show", "dev", "eth0"]);
    assert!(link.contains("mtu 1400") && link.contains(&format!("{own}/24 brd 10.55.0.255")), "{link}");
    assert!(
        !link.contains("valid_lft forever preferred_lft forever\n    inet "),
        "the kernel knows of its end: {link}"
    );
    assert!(lan.show(&["link", "show", "lo"]).contains("LOWER_UP"));
    assert_eq!(running.hostname.try_iter().collect::<Vec<_>>(), ["auroraboot"]);
    let leases = fs::read_to_string(lan.dir.join("leases")).unwrap();
    assert!(leases.contains(&format!("{own} auroraboot 01:")), "name and client id: {leases}");
    let began = Instant::now();
    running.network.stop();
    assert!(began.elapsed() < Duration::from_secs(2), "the thread ends promptly");
    assert!(lan.show(&["addr", "show", "dev", "eth0"]).contains(&own.to_string()), "what runs on may use it");
}

#[test]
fn a_server_that_comes_later_is_found() {
    let lan = Lan::new();
    let running = lan.start(Settings::default());
    running.wait_for("told", |report| state(report).contains("nobody answers yet"));
    let _dnsmasq = lan.dnsmasq(&[RANGE]);
    running.wait_for_lease("a lease", |ip| in_range(ip, 50..=99));
}

#[test]
fn no_cable_at_power_on_is_told_and_one_that_comes_is_used() {
    let lan = Lan::new();
    lan.plug("eth0", false);
    let _dnsmasq = lan.dnsmasq(&[RANGE]);
    let running = lan.start(Settings::default());
    let notice = "No interface has a link: plug in a network cable";
    running.wait_for("told", |report| report.notices == [notice] && state(report).starts_with("no link"));
    lan.plug("eth0", true);
    running.wait_for_lease("a lease", |ip| in_range(ip, 50..=99));
}

#[test]
fn a_cable_pulled_and_put_back_keeps_its_address() {
    let lan = Lan::new();
    let _dnsmasq = lan.dnsmasq(&[RANGE, "--dhcp-option=option:router,10.55.0.254"]);
    let running = lan.start(Settings::default());
    let own = running.wait_for_lease("a lease", |_| true);
    lan.plug("eth0", false);
    running.wait_for("no link", |report| {
        state(report).starts_with("no link (cable or switch missing); the address is kept")
    });
    lan.plug("eth0", true);
    running.wait_for("verified", |report| !state(report).starts_with("no link"));
    assert_eq!(running.wait_for_lease("the lease", |_| true), own);
    assert!(lan.show(&["route", "show", "default"]).contains("10.55.0.254"));
}

#[test]
fn a_cable_put_into_another_network_gets_another_address() {
    let lan = Lan::new();
    let dnsmasq = lan.dnsmasq(&[RANGE]);
    let running = lan.start(Settings::default());
    let old = running.wait_for_lease("a lease", |ip| in_range(ip, 50..=99));
    lan.plug("eth0", false);
    running.wait_for("no link", |report| state(report).starts_with("no link"));
    drop(dnsmasq);
    let _other = lan.dnsmasq(&["--dhcp-range=10.55.0.150,10.55.0.199,255.255.255.0,2m"]);
    lan.plug("eth0", true);
    running.wait_for_lease("a lease of the other range", |ip| in_range(ip, 150..=199));
    assert!(!lan.show(&["addr", "show", "dev", "eth0"]).contains(&format!("{old}/")), "the old one is gone");
}

#[test]
fn an_address_that_another_host_uses_is_not_taken() {
    let lan = Lan::new();
    ip(&["-n", &lan.others, "addr", "add", "10.55.0.60/32", "dev", "lo"]);
    let all = within(&lan.appliance, netlink::interfaces).unwrap();
    let mac = all.iter().find(|found| found.name == "eth0").unwrap().mac.unwrap();
    let _dnsmasq = lan.dnsmasq(&[RANGE, &format!("--dhcp-host={mac},10.55.0.60")]);
    let running = lan.start(Settings::default());
    running.wait_for("told", |report| state(report).contains("lends 10.55.0.60, which the machine"));
    let own = running.wait_for_lease("another", |ip| in_range(ip, 50..=99));
    assert_ne!(own, Ipv4Addr::new(10, 55, 0, 60));
}

#[test]
fn static_settings_and_back() {
    let lan = Lan::new();
    let _dnsmasq = lan.dnsmasq(&[RANGE]);
    let fixed = Settings {
        interface: Some("eth0".to_owned()),
        address: Address::Static { ip: [10, 55, 0, 5].into(), prefix_length: 24 },
        gateway: Some([10, 55, 0, 254].into()),
        dns: vec![[10, 55, 0, 7].into()],
        hostname: Some("fixed".to_owned()),
        ..Settings::default()
    };
    let running = lan.start(fixed.clone());
    let own = Ipv4Addr::new(10, 55, 0, 5);
    let is_fixed =
        |report: &Report| address(report) == Some(own) && state(report) == "static address, gateway 10.55.0.254";
    running.wait_for("static", is_fixed);
    assert_eq!(lan.resolv_conf(), "nameserver 10.55.0.7\n");
    assert!(lan.show(&["route", "show", "default"]).contains("default via 10.55.0.254 dev eth0"));
    assert_eq!(running.hostname.recv().unwrap(), "fixed");
    running.network.apply(Settings { gateway: None, ..fixed.clone() });
    running.wait_for("no gateway", |report| state(report) == "static address");
    assert_eq!(lan.show(&["route", "show", "default"]), "");
    running.network.apply(Settings { address: Address::Dhcp, gateway: None, ..fixed.clone() });
    running.wait_for_lease("a lease", |ip| in_range(ip, 50..=99));
    assert!(!lan.show(&["addr", "show", "dev", "eth0"]).contains("10.55.0.5/"));
    running.network.apply(fixed);
    running.wait_for("static again", is_fixed);
    let left = lan.show(&["-4", "addr", "show", "dev", "eth0"]);
    assert_eq!(left.matches("inet ").count(), 1, "{left}");
}

#[test]
fn a_static_address_that_another_host_has_is_told_until_it_has_gone() {
    let lan = Lan::new();
    ip(&["-n", &lan.others, "addr", "add", "10.55.0.5/32", "dev", "lo"]);
    let other = within(&lan.others, netlink::interfaces).unwrap();
    let other = other.iter().find(|found| found.name == "eth0").unwrap().mac.unwrap();
    let own = Ipv4Addr::new(10, 55, 0, 5);
    let address_is = Address::Static { ip: own, prefix_length: 24 };
    let running = lan.start(Settings { address: address_is, ..Settings::default() });
    let notice = format!("10.55.0.5 is used by the machine {other} as well: give one of the two another address");
    running.wait_for("told, and used", |report| report.notices == [notice.clone()] && address(report) == Some(own));
    // The other one leaves; with the cable put back it is looked for at once.
    ip(&["-n", &lan.others, "addr", "del", "10.55.0.5/32", "dev", "lo"]);
    lan.plug("eth0", false);
    running.wait_for("no link", |report| report.notices == ["No interface has a link: plug in a network cable"]);
    lan.plug("eth0", true);
    let neighbours = || {
        let output = Command::new("ip").args(["-n", &lan.others, "neigh", "show", "10.55.0.5"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    ip(&["-n", &lan.others, "neigh", "add", "10.55.0.5", "lladdr", "02:00:00:00:00:01", "nud", "stale", "dev", "eth0"]);
    running.wait_for("all is well", |report| report.notices.is_empty() && !neighbours().contains("02:00:00:00:00:01"));
}

#[test]
fn the_interface_whose_server_answers_is_used() {
    let lan = Lan::new();
    lan.cable("eth1");
    lan.plug("eth1", true);
    ip(&["-n", &lan.others, "addr", "add", "10.56.0.1/24", "dev", "eth1"]);
    let _dnsmasq =
        lan.dnsmasq(&["--interface=eth1", "--no-dhcp-interface=eth0", "--dhcp-range=10.56.0.9,10.56.0.99,2m"]);
    let running = lan.start(Settings::default());
    let report = running.wait_for("a lease on eth1", |report| report.used().is_some_and(|used| used.name == "eth1"));
    assert_eq!(state(&report), "not used: eth1 is");
    running.network.apply(Settings { interface: Some("eth7".to_owned()), ..Settings::default() });
    running.wait_for("told", |report| {
        report.notices.iter().any(|notice| notice.contains("\"eth7\", but there is no such"))
    });
    assert!(!lan.show(&["addr", "show", "dev", "eth1"]).contains("inet 10.56"));
    running.network.apply(Settings { interface: Some("eth1".to_owned()), ..Settings::default() });
    running.wait_for("a lease again", |report| report.used().is_some_and(|used| used.name == "eth1"));
}

/// A DHCP server that does what the test says.
struct Scripted {
    socket: UdpSocket,
}

impl Scripted {
    fn new(lan: &Lan) -> Self {
        let socket = within(&lan.others, || UdpSocket::bind("0.0.0.0:67")).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { socket }
    }

    /// Waits for a message of this type, and returns it with its sender.
    fn receive(&self, kind: u8) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 2048];
        loop {
            let (length, from) = self.socket.recv_from(&mut buffer).expect("a message of the client");
            let packet = Packet::parse(&buffer[..length]).unwrap();
            if packet.option_array(options::MESSAGE_TYPE).unwrap() == Some([kind]) {
                return (buffer[..length].to_vec(), from);
            }
        }
    }

    /// Lends 10.55.0.77 for 12 s, to be renewed after 2 s.
    fn answer(&self, question: &[u8], kind: u8) {
        let mut bytes = question[..236].to_vec();
        bytes[0] = 2;
        bytes[16..20].copy_from_slice(&[10, 55, 0, 77]);
        bytes.extend(MAGIC_COOKIE);
        bytes.extend([options::MESSAGE_TYPE, 1, kind, options::SERVER_ID, 4]);
        bytes.extend(SERVER.octets());
        bytes.extend([options::SUBNET_MASK, 4, 255, 255, 255, 0, options::LEASE_TIME, 4, 0, 0, 0, 12]);
        bytes.extend([options::RENEWAL_TIME, 4, 0, 0, 0, 2, options::REBINDING_TIME, 4, 0, 0, 0, 8, options::END]);
        self.socket.send_to(&bytes, "10.55.0.255:68").unwrap();
    }
}

#[test]
fn a_short_lease_is_renewed_and_ends_when_nobody_renews_it() {
    let lan = Lan::new();
    let server = Scripted::new(&lan);
    let running = lan.start(Settings::default());
    let (discover, _) = server.receive(message::DISCOVER);
    server.answer(&discover, message::OFFER);
    let (request, _) = server.receive(message::REQUEST);
    server.answer(&request, message::ACK);
    running.wait_for_lease("a lease", |ip| ip == Ipv4Addr::new(10, 55, 0, 77));
    let (renewal, from) = server.receive(message::REQUEST);
    assert_eq!(from, "10.55.0.77:68".parse().unwrap(), "straight to its server, from its own address");
    assert_eq!(Packet::parse(&renewal).unwrap().ciaddr(), Ipv4Addr::new(10, 55, 0, 77));
    let before = running.network.report().interfaces[0].lease.as_ref().unwrap().remaining.unwrap();
    server.answer(&renewal, message::ACK);
    running.wait_for("renewed", |report| report.interfaces[0].lease.as_ref().unwrap().remaining.unwrap() > before);
    let renewed = Instant::now();
    running.wait_for("its end", |report| report.interfaces[0].addresses.is_empty());
    assert!(renewed.elapsed() > Duration::from_secs(8), "used until its end");
    assert!(!state(&running.network.report()).starts_with("address"));
    server.receive(message::DISCOVER);
}

/// Whoever is on the network can send to port 68; the true answer gets through all the same, and no message is worked on twice.
#[test]
fn a_flood_on_the_clients_port_is_got_over() {
    let lan = Lan::new();
    let server = Scripted::new(&lan);
    let running = lan.start(Settings::default());
    let (discover, _) = server.receive(message::DISCOVER);
    let mut others = discover.clone();
    others[4] ^= 1; // of another transaction
    for _ in 0..2 * limits::NETWORK_BATCHES_PER_TURN * packet_socket::BATCH {
        server.answer(&others, message::OFFER);
    }
    // More than the socket has room for: what comes then is lost, and asked for again.
    let junk = vec![0; 1400];
    for _ in 0..limits::NETWORK_RECEIVE_BUFFER_BYTES / 1400 {
        server.socket.send_to(&junk, "10.55.0.255:68").unwrap();
    }
    let (discover, _) = server.receive(message::DISCOVER);
    server.answer(&discover, message::OFFER);
    let (request, _) = server.receive(message::REQUEST);
    server.answer(&request, message::ACK);
    running.wait_for_lease("a lease", |ip| ip == Ipv4Addr::new(10, 55, 0, 77));
}

#[test]
fn the_clock_is_set_by_the_server_that_answers_sensibly() {
    let lan = Lan::new();
    ip(&["-n", &lan.others, "addr", "add", "10.55.0.2/24", "dev", "eth0"]);
    let fixed = Settings {
        address: Address::Static { ip: [10, 55, 0, 5].into(), prefix_length: 24 },
        ntp: ["10.55.0.3", "10.55.0.1", "10.55.0.2"].map(str::to_owned).to_vec(), // the first is nobody
        ..Settings::default()
    };
    let bind = |address: &str| {
        let socket = within(&lan.others, || UdpSocket::bind(address)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let (unset, right) = (bind("10.55.0.1:123"), bind("10.55.0.2:123"));
    let running = lan.start(fixed);
    let told = UNIX_EPOCH + BUILT + Duration::from_secs(1000);
    for (server, leap) in [(&unset, 3_u8), (&right, 0)] {
        let mut question = [0; 48];
        let (_, from) = server.recv_from(&mut question).unwrap();
        let seconds = u32::try_from(BUILT.as_secs() + 1000 + 2_208_988_800).unwrap().to_be_bytes();
        let mut answer = [0; 48];
        answer[..2].copy_from_slice(&[leap << 6 | 0b100_100, 2]);
        answer[24..32].copy_from_slice(&question[40..]);
        answer[32..36].copy_from_slice(&seconds);
        answer[40..44].copy_from_slice(&seconds);
        server.send_to(&answer, from).unwrap();
    }
    let set = running.clock.recv_timeout(PATIENCE).unwrap();
    assert!(set.duration_since(told).unwrap() < Duration::from_secs(5), "{set:?}");
    running.wait_for("told", |report| report.clock.starts_with("set by 10.55.0.2, "));
}
