//! Traces of the server: requests in, answers and events out.

use super::*;
use crate::limits::TFTP_ERRORS_BURST;

const LOCAL: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const REQUEST: &[u8] = b"\0\x01dir/loader\0octet\0";

struct Shelf;

impl Files for Shelf {
    fn open(&self, _from: SocketAddrV4, _server: Ipv4Addr, name: &str) -> Option<Content> {
        let bytes: Arc<[u8]> = vec![7; 1000].into();
        (name == "dir/loader" || name == "other").then(|| Arc::new(bytes) as Content)
    }
}

struct Trace {
    server: Server,
    start: Instant,
}

fn trace(active: usize, waiting: usize) -> Trace {
    Trace { server: Server::new(Arc::new(Shelf), Capacity { active, waiting }), start: Instant::now() }
}

fn peer(port: u16) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 77), port)
}

impl Trace {
    fn at(&self, ms: u64) -> Instant {
        self.start + Duration::from_millis(ms)
    }

    /// A request from a port, and all that comes of it.
    fn ask(&mut self, ms: u64, port: u16, bytes: &[u8]) -> Vec<String> {
        self.ask_via(ms, &Arrival { from: peer(port), to: LOCAL, local: LOCAL, mtu: 1500 }, bytes)
    }

    fn ask_via(&mut self, ms: u64, arrival: &Arrival, bytes: &[u8]) -> Vec<String> {
        self.server.handle_request(self.at(ms), arrival, bytes);
        self.out(ms)
    }

    fn answer(&mut self, ms: u64, id: usize, port: u16, bytes: &[u8]) -> Vec<String> {
        self.server.handle_datagram(self.at(ms), TransferId(id), peer(port), bytes);
        self.out(ms)
    }

    fn timeout(&mut self, ms: u64) -> Vec<String> {
        self.server.handle_timeout(self.at(ms));
        self.out(ms)
    }

    fn out(&mut self, ms: u64) -> Vec<String> {
        let (now, mut bytes, mut shown) = (self.at(ms), Vec::new(), Vec::new());
        while let Some(output) = self.server.poll_output(now, &mut bytes) {
            shown.push(match output {
                Output::Open { id, .. } => format!("open {}", id.0),
                Output::Close { id } => format!("close {}", id.0),
                Output::Send { id, to, .. } => format!("{} to {}: {}", id.0, to.port(), packet(&bytes)),
                Output::Reply { to, .. } => format!("69 to {}: {}", to.port(), packet(&bytes)),
            });
        }
        shown
    }

    fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.server.poll_event()).collect()
    }
}

fn packet(bytes: &[u8]) -> String {
    match bytes[1] {
        3 => format!("DATA {}", u16::from_be_bytes([bytes[2], bytes[3]])),
        5 => format!("ERROR {} {}", bytes[3], String::from_utf8_lossy(&bytes[4..bytes.len() - 1])),
        6 => "OACK".into(),
        _ => unreachable!("a server sends nothing else: {bytes:?}"),
    }
}

#[test]
fn from_request_to_the_last_ack() {
    let mut t = trace(8, 8);
    assert_eq!(t.ask(0, 5000, REQUEST), ["open 0", "0 to 5000: DATA 1"]);
    assert_eq!(t.answer(1, 0, 5000, b"\0\x04\0\x01"), ["0 to 5000: DATA 2"]);
    assert_eq!(t.answer(5, 0, 5000, b"\0\x04\0\x02"), ["close 0"]);
    let took = Duration::from_millis(5);
    assert_eq!(t.events(), [Event::Sent { name: "dir/loader".into(), to: peer(5000), bytes: 1000, took }]);
    assert_eq!(t.answer(6, 0, 5000, b"\0\x04\0\x02"), [""; 0], "a stray for a closed transfer");
    assert_eq!(t.timeout(60_000), [""; 0]);
    assert_eq!((t.server.active(), t.server.next_deadline()), (0, None));
}

#[test]
fn refused_at_once_with_the_code_that_fits() {
    let long = [b"\0\x01", &[b'a'; TFTP_REQUEST_BYTES_MAX][..], b"\0octet\0"].concat();
    let cases: [(&[u8], &str); 10] = [
        (b"\0\x01revocations_sbat.efi\0octet\0", "ERROR 1 no such file"),
        (b"\0\x01../../etc/passwd\0octet\0", "ERROR 2 the name leaves the served files"),
        (b"\0\x01dir\\..\\..\\x\0octet\0", "ERROR 2 the name leaves the served files"),
        (b"\0\x01\xff\0octet\0", "ERROR 1 the name is not readable"),
        (b"\0\x01\0octet\0", "ERROR 1 the name is not readable"),
        (b"\0\x02dir/loader\0octet\0", "ERROR 2 this server is read-only"),
        (b"\0\x01dir/loader\0mail\0", "ERROR 4 transfer mode is neither octet nor netascii"),
        (b"\0\x01dir/loader", "ERROR 4 the request's file name has no end (a zero byte)"),
        (b"\0\x09", "ERROR 4 opcode 9 is unknown"),
        (&long, "ERROR 4 the request is too long"),
    ];
    let mut t = trace(8, 8);
    for (request, answer) in cases {
        assert_eq!(t.ask(0, 5000, request), [format!("69 to 5000: {answer}")]);
        assert!(matches!(t.events()[..], [Event::Refused { .. }]), "{answer}");
    }
    for mode in ["netascii", "NETASCII", "Octet"] {
        let request = format!("\0\x01\\dir//loader\0{mode}\0");
        assert_eq!(t.ask(0, 5000, request.as_bytes()).len(), 2, "{mode}");
        t.server.handle_gone(t.at(0), TransferId(0));
        t.out(0);
    }
}

#[test]
fn never_a_party_to_a_flood() {
    let mut t = trace(8, 8);
    let good = Arrival { from: peer(5000), to: LOCAL, local: LOCAL, mtu: 1500 };
    let broadcast = Ipv4Addr::BROADCAST;
    let bad = [
        Arrival { from: SocketAddrV4::new(broadcast, 5000), ..good },
        Arrival { from: SocketAddrV4::new(Ipv4Addr::new(224, 0, 0, 1), 5000), ..good },
        Arrival { from: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 5000), ..good },
        Arrival { from: peer(0), ..good },
        Arrival { to: broadcast, ..good },
    ];
    for arrival in bad {
        assert_eq!(t.ask_via(0, &arrival, REQUEST), [""; 0], "{arrival:?}");
    }
    for stray in [&b"\0\x05\0\0x\0"[..], b"\0\x04\0\x01", b"\0\x03\0\x01x", b"\0\x06tsize\x001\0"] {
        assert_eq!(t.ask(0, 5000, stray), [""; 0]);
    }
    assert_eq!(t.events(), []);
    let replies = (0..5000).map(|_| t.ask(0, 5000, b"\0\x01nothing\0octet\0").len()).sum::<usize>();
    assert_eq!(replies, TFTP_ERRORS_BURST as usize, "error replies are bounded");
    assert_eq!(t.events().len(), TFTP_EVENTS_MAX, "and what is told of them");
}

#[test]
fn a_repeated_request_is_the_same_transfer() {
    let mut t = trace(8, 8);
    t.ask(0, 5000, REQUEST);
    assert_eq!(t.ask(500, 5000, REQUEST), ["0 to 5000: DATA 1"], "the first block was lost");
    t.answer(600, 0, 5000, b"\0\x04\0\x01");
    assert_eq!(t.ask(700, 5000, REQUEST), [""; 0], "doubled by the network");
    let again = ["close 0", "open 0", "0 to 5000: DATA 1"];
    assert_eq!(t.ask(1700, 5000, REQUEST), again, "the machine was reset");
    assert_eq!(t.ask(1800, 5000, b"\0\x01other\0octet\0"), again, "the Raspberry Pi's ROM keeps one port");
    let replaced = Event::Failed { name: "dir/loader".into(), to: peer(5000), failure: Failure::Replaced };
    assert_eq!(t.events(), [replaced.clone(), replaced]);
}

#[test]
fn strangers_are_told_and_the_transfer_goes_on() {
    let mut t = trace(8, 8);
    t.ask(0, 5000, REQUEST);
    let told = ["0 to 6000: ERROR 5 unknown transfer id"];
    assert_eq!(t.answer(1, 0, 6000, b"\0\x04\0\x01"), told);
    assert_eq!(t.answer(1, 0, 6000, b"\0\x05\0\0x\0"), [""; 0], "no ERROR for an ERROR");
    assert_eq!(t.answer(2, 0, 5000, b"\0\x04\0\x01"), ["0 to 5000: DATA 2"]);
}

#[test]
fn more_than_there_are_places_for_wait_their_turn() {
    let mut t = trace(1, 2);
    t.ask(0, 5000, REQUEST);
    assert_eq!(t.ask(1, 5001, REQUEST), [""; 0]);
    assert_eq!(t.ask(2, 5002, REQUEST), [""; 0]);
    assert_eq!(t.ask(3, 5001, REQUEST), [""; 0], "asked again, keeps its place");
    assert_eq!(t.ask(4, 5003, REQUEST), ["69 to 5003: ERROR 0 busy: too many requests wait"]);
    t.answer(5, 0, 5000, b"\0\x04\0\x01");
    assert_eq!(t.answer(6, 0, 5000, b"\0\x04\0\x02"), ["close 0", "open 0", "0 to 5001: DATA 1"]);
    // Who stays silent for 16 s is let go.
    assert_eq!(t.timeout(16_001), ["0 to 5001: DATA 1"]);
    assert_eq!(t.timeout(16_003), ["69 to 5002: ERROR 0 busy: too many requests wait"]);
    assert_eq!(t.server.peers.len(), 1);
}

#[test]
fn no_answer_at_all_frees_the_place() {
    let mut t = trace(1, 2);
    t.ask(0, 5000, b"\0\x01dir/loader\0octet\0tsize\x000\0");
    let mut last = Vec::new();
    while let Some(at) = t.server.next_deadline() {
        last = t.timeout(u64::try_from(at.duration_since(t.start).as_millis()).unwrap() + 1);
    }
    assert_eq!(last, ["0 to 5000: ERROR 0 no answer for 30 s", "close 0"]);
    let failure = Failure::Silent(30);
    assert_eq!(t.events(), [Event::Failed { name: "dir/loader".into(), to: peer(5000), failure }]);
}

#[test]
fn no_socket_is_a_failure_of_that_transfer_only() {
    let mut t = trace(2, 2);
    t.ask(0, 5000, REQUEST);
    t.server.handle_no_socket(t.at(0), TransferId(0), std::io::ErrorKind::Other);
    assert_eq!(t.out(0), ["close 0"]);
    assert_eq!(t.ask(0, 5001, REQUEST), ["open 0", "0 to 5001: DATA 1"]);
}

#[test]
fn no_bytes_whatever_do_harm() {
    let mut t = trace(4, 4);
    let request = b"\0\x01dir/loader\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0timeout\x005\0";
    for len in 0..=request.len() {
        t.ask(0, 5000, &request[..len]);
    }
    for at in 0..request.len() {
        for value in 0..=255 {
            let mut bytes = *request;
            bytes[at] = value;
            t.ask(0, 5000 + u16::from(value), &bytes);
            t.answer(0, usize::from(value % 5), 5000 + u16::from(value), &bytes);
        }
    }
    assert!(t.server.active() <= 4 && t.server.waiting.len() <= 4);
}
