//! Traces of a client: what it says and does, second by second.

use super::*;
use crate::dhcp::arp::{self, Claim};
use crate::dhcp::lease::Term;
use crate::dhcp::options::{self, message as kind};
use crate::dhcp::packet::{BOOT_REPLY, FLAG_BROADCAST, Packet};
use crate::dhcp::testing::{MAC, Message};

const SERVER: [u8; 4] = [10, 0, 0, 1];
const OTHER_SERVER: [u8; 4] = [10, 0, 0, 2];
const ADDRESS: [u8; 4] = [10, 0, 0, 5];
const NOBODY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
/// Of the test server: T1 is 1800 s, T2 3150 s.
const LEASE: u32 = 3600;

/// A client, and a clock that starts at 0.
struct Trace {
    start: Instant,
    now: Duration,
    client: Client,
}

impl Trace {
    fn new(earlier: Option<[u8; 4]>) -> Self {
        let start = Instant::now();
        let identity = Identity { mac: MAC, hostname: "box".to_owned() };
        Self { start, now: Duration::ZERO, client: Client::new(start, identity, earlier.map(Into::into), 1) }
    }

    /// Has a link, and has asked for an address once.
    fn selecting() -> Self {
        let mut trace = Self::new(None);
        assert_eq!(trace.link(true), ["DISCOVER"]);
        trace
    }

    /// Has an address since about second 1.
    fn bound() -> Self {
        let mut trace = Self::selecting();
        assert_eq!(trace.answer(kind::OFFER, SERVER), ["REQUEST 10.0.0.5 of 10.0.0.1"]);
        assert_eq!(trace.answer(kind::ACK, SERVER), ["probe 10.0.0.5"]);
        assert_eq!(trace.until(10), ["probe 10.0.0.5", "probe 10.0.0.5", "announce 10.0.0.5", "bound 10.0.0.5"]);
        trace
    }

    fn link(&mut self, has_link: bool) -> Vec<String> {
        self.client.handle_input(self.start + self.now, Input::Link(has_link));
        self.said()
    }

    /// A message of a server that lends [`ADDRESS`].
    fn answer(&mut self, kind: u8, server: [u8; 4]) -> Vec<String> {
        self.receive(self.lease(kind, server))
    }

    fn lease(&self, kind: u8, server: [u8; 4]) -> Message {
        let message = Message::bare(kind).patch(0, &[BOOT_REPLY]).xid(self.client.xid);
        let message = message.with(options::SERVER_ID, &server);
        if kind == kind::NAK {
            return message;
        }
        let message = message.patch(16, &ADDRESS).with(options::SUBNET_MASK, &[255, 255, 255, 0]);
        message.with(options::LEASE_TIME, &LEASE.to_be_bytes())
    }

    fn receive(&mut self, message: Message) -> Vec<String> {
        self.client.handle_input(self.start + self.now, Input::Message(&message.bytes()));
        self.said()
    }

    fn arp(&mut self, frame: &[u8]) -> Vec<String> {
        self.client.handle_input(self.start + self.now, Input::Arp(Claim::parse(frame).unwrap()));
        self.said()
    }

    /// Lets time pass from deadline to deadline up to this second.
    fn until(&mut self, second: u64) -> Vec<String> {
        let (end, mut said) = (Duration::from_secs(second), Vec::new());
        while let Some(at) = self.client.next_deadline().map(|at| at - self.start).filter(|at| *at <= end) {
            assert!(at >= self.now, "deadlines lie ahead");
            self.now = at;
            self.client.handle_timeout(self.start + at);
            said.extend(self.said());
        }
        self.now = end;
        said
    }

    /// The times of messages up to this second.
    fn times_until(&mut self, second: u64) -> Vec<f64> {
        let mut times = Vec::new();
        while let Some(at) = self.client.next_deadline().map(|at| at - self.start) {
            if at > Duration::from_secs(second) {
                break;
            }
            if !self.until_exactly(at).is_empty() {
                times.push(at.as_secs_f64());
            }
        }
        times
    }

    fn until_exactly(&mut self, at: Duration) -> Vec<String> {
        self.now = at;
        self.client.handle_timeout(self.start + at);
        self.said()
    }

    fn said(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.client.poll_output()).map(|output| words(&output)).collect()
    }
}

fn words(output: &Output) -> String {
    match output {
        Output::Broadcast { source, message } if *source == NOBODY => describe(message),
        Output::Broadcast { source, message } => format!("{} from {source} to all", describe(message)),
        Output::Unicast { source, server, message } => format!("{} from {source} to {server}", describe(message)),
        Output::Probe(address) => format!("probe {address}"),
        Output::Announce(address) => format!("announce {address}"),
        Output::Event(Event::Bound(lease)) => format!("bound {}", lease.address),
        Output::Event(Event::Lost { address, loss }) => format!("lost {address}: {loss}"),
        Output::Event(Event::Refused { server }) => format!("refused by {server}"),
        Output::Event(Event::Taken { address, by }) => format!("{address} taken by {by}"),
        Output::Event(Event::Ignored(reason)) => format!("ignored: {reason}"),
    }
}

/// The name of a message, what it asks for, and whether all else is as table 5 of RFC 2131 wants it.
fn describe(message: &[u8]) -> String {
    let packet = Packet::parse(message).unwrap();
    assert!(message.len() >= 300 && packet.op() == 1 && packet.chaddr()[..6] == MAC.0);
    assert_eq!(packet.option(options::CLIENT_ID).unwrap()[..], [&[1][..], &MAC.0].concat());
    let ip = |code| packet.option_array::<4>(code).unwrap().map(Ipv4Addr::from);
    let (wanted, server) = (ip(options::REQUESTED_ADDRESS), ip(options::SERVER_ID));
    let [code] = packet.option_array(options::MESSAGE_TYPE).unwrap().unwrap();
    let name = match code {
        kind::DISCOVER => "DISCOVER",
        kind::REQUEST => "REQUEST",
        kind::DECLINE => "DECLINE",
        kind::RELEASE => "RELEASE",
        other => panic!("a client never sends type {other}"),
    };
    let is_answered = matches!(code, kind::DISCOVER | kind::REQUEST);
    assert_eq!(packet.option(options::PARAMETER_LIST).is_some(), is_answered);
    assert_eq!(packet.option(options::HOSTNAME).is_some_and(|name| *name == *b"box"), is_answered);
    let mut words = name.to_owned();
    let parts = [(" ", wanted), (" of ", server), (" for ", Some(packet.ciaddr()).filter(|own| *own != NOBODY))];
    for (word, address) in parts {
        words += &address.map(|address| format!("{word}{address}")).unwrap_or_default();
    }
    if packet.flags() & FLAG_BROADCAST != 0 { words + " (broadcast)" } else { words }
}

#[test]
fn an_address_is_discovered_requested_probed_and_used() {
    let trace = Trace::bound();
    let (lease, until) = trace.client.lease().unwrap();
    assert_eq!((lease.address, lease.prefix_length), (ADDRESS.into(), 24));
    assert_eq!(until.unwrap() - trace.start, Duration::from_secs(LEASE.into()), "counted from the request");
    assert_eq!(trace.client.phase(), Phase::Bound);
}

#[test]
fn lost_messages_are_sent_again_ever_more_slowly_and_for_ever() {
    let mut trace = Trace::selecting();
    let times = trace.times_until(3600);
    let waits: Vec<f64> = [0.0].iter().chain(&times).zip(&times).map(|(before, after)| after - before).collect();
    for (wait, longest) in waits.iter().zip([2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 64.0, 64.0]) {
        assert!((longest * 0.75..=longest).contains(wait), "{waits:?}");
    }
    assert!(waits[5..].iter().all(|wait| (48.0..=64.0).contains(wait)), "{waits:?}");
    let distinct: std::collections::HashSet<u64> = waits.iter().map(|wait| wait.to_bits()).collect();
    assert!(distinct.len() > 10, "jitter: {waits:?}");
    assert!(matches!(trace.client.phase(), Phase::Asking { tries, .. } if tries > 50));
    assert_eq!(trace.answer(kind::OFFER, SERVER), ["REQUEST 10.0.0.5 of 10.0.0.1 (broadcast)"], "an hour later");
}

#[test]
fn broadcast_answers_are_asked_for_when_others_do_not_arrive() {
    let mut trace = Trace::selecting();
    assert_eq!(trace.until(10), ["DISCOVER", "DISCOVER (broadcast)"]);
    assert_eq!(trace.answer(kind::OFFER, SERVER), ["REQUEST 10.0.0.5 of 10.0.0.1 (broadcast)"], "stays with it");
}

#[test]
fn the_first_acceptable_offer_is_taken_and_the_second_server_ignored() {
    let mut trace = Trace::selecting();
    assert_eq!(trace.answer(kind::OFFER, SERVER), ["REQUEST 10.0.0.5 of 10.0.0.1"]);
    assert_eq!(trace.answer(kind::OFFER, OTHER_SERVER), [""; 0]);
    assert_eq!(trace.answer(kind::ACK, OTHER_SERVER), ["ignored: not the server whose offer was taken"]);
    assert_eq!(trace.answer(kind::NAK, OTHER_SERVER), ["ignored: not the server whose offer was taken"]);
    assert_eq!(trace.answer(kind::ACK, SERVER), ["probe 10.0.0.5"]);
    assert_eq!(trace.answer(kind::ACK, SERVER), [""; 0], "a copy");
}

#[test]
fn proxies_other_clients_and_nonsense_change_nothing() {
    let mut trace = Trace::selecting();
    let proxy = Message::bare(kind::OFFER).patch(0, &[BOOT_REPLY]).xid(trace.client.xid);
    let proxy = proxy.with(options::SERVER_ID, &OTHER_SERVER).with(options::VENDOR_CLASS, b"PXEClient");
    assert_eq!(trace.receive(proxy), [""; 0]);
    let of_others = trace.lease(kind::OFFER, SERVER).xid(7);
    assert_eq!(trace.receive(of_others), [""; 0]);
    let own_question = Message::bare(kind::DISCOVER).xid(trace.client.xid);
    assert_eq!(trace.receive(own_question), [""; 0]);
    let nowhere = trace.lease(kind::OFFER, SERVER).patch(16, &[255; 4]);
    assert_eq!(trace.receive(nowhere), ["ignored: 255.255.255.255 is no address for a machine"]);
    assert_eq!(trace.answer(kind::ACK, SERVER), [""; 0], "nothing was requested");
    assert_eq!(trace.answer(kind::NAK, SERVER), [""; 0]);
    assert_eq!(trace.answer(kind::OFFER, SERVER), ["REQUEST 10.0.0.5 of 10.0.0.1"]);
}

#[test]
fn a_server_that_never_confirms_is_left_for_another() {
    let mut trace = Trace::selecting();
    trace.answer(kind::OFFER, SERVER);
    let again = "REQUEST 10.0.0.5 of 10.0.0.1";
    let said = trace.until(33);
    assert_eq!(said[..5], [again, again, again, "refused by 10.0.0.1", "DISCOVER"]);
    assert_eq!(trace.answer(kind::OFFER, SERVER), [""; 0], "kept until it is clear that there is no other");
    assert_eq!(trace.answer(kind::OFFER, OTHER_SERVER), ["REQUEST 10.0.0.5 of 10.0.0.2 (broadcast)"]);
}

#[test]
fn the_only_server_is_asked_again_whatever_it_did() {
    let mut trace = Trace::selecting();
    trace.answer(kind::OFFER, SERVER);
    assert_eq!(trace.answer(kind::NAK, SERVER), ["refused by 10.0.0.1"]);
    assert!(matches!(trace.client.phase(), Phase::Waiting { .. }));
    assert_eq!(trace.until(2), ["DISCOVER"]);
    trace.answer(kind::OFFER, SERVER);
    assert_eq!(trace.until(4), ["REQUEST 10.0.0.5 of 10.0.0.1"]);
    assert_eq!(trace.answer(kind::ACK, SERVER), ["probe 10.0.0.5"]);
}

#[test]
fn a_server_that_always_refuses_does_not_keep_the_network_busy() {
    let mut trace = Trace::selecting();
    let mut requests = 0;
    let hour = Duration::from_secs(3600);
    while trace.now < hour {
        requests += trace.answer(kind::OFFER, SERVER).len();
        if let State::Requesting { .. } = trace.client.state {
            requests += 1;
            trace.answer(kind::NAK, SERVER);
        }
        let next = trace.client.next_deadline().unwrap() - trace.start;
        trace.until_exactly(next);
    }
    assert!(requests < 150, "{requests}");
}

#[test]
fn a_lease_is_renewed_at_its_server_from_t1_on() {
    let mut trace = Trace::bound();
    assert_eq!(trace.until(1799), [""; 0]);
    assert_eq!(trace.until(1800), ["REQUEST for 10.0.0.5 from 10.0.0.5 to 10.0.0.1"]);
    assert_eq!(trace.answer(kind::ACK, SERVER), ["bound 10.0.0.5"], "without probing: it is in use");
    let (_, until) = trace.client.lease().unwrap();
    assert_eq!(until.unwrap() - trace.start, Duration::from_secs(1800 + 3600));
    assert_eq!(trace.until(3600), ["REQUEST for 10.0.0.5 from 10.0.0.5 to 10.0.0.1"], "T1 of the renewed lease");
}

#[test]
fn renewals_come_closer_and_from_t2_on_go_to_everybody() {
    let mut trace = Trace::bound();
    let renewals = trace.until(3140);
    assert!(renewals.iter().all(|said| said.ends_with("to 10.0.0.1")), "{renewals:?}");
    assert!((6..=10).contains(&renewals.len()), "halving 1350 s down to 5 s: {}", renewals.len());
    assert_eq!(trace.until(3150).last().unwrap(), "REQUEST for 10.0.0.5 from 10.0.0.5 to all");
    assert!(matches!(trace.client.phase(), Phase::Renewing { anybody: true, .. }));
    assert_eq!(trace.answer(kind::ACK, OTHER_SERVER), ["bound 10.0.0.5"], "any server may");
    assert_eq!(trace.client.lease().unwrap().0.server, Ipv4Addr::from(OTHER_SERVER));
}

#[test]
fn a_lease_that_nobody_renews_ends_and_all_begins_anew() {
    let mut trace = Trace::bound();
    let said = trace.until(3600);
    let end = ["lost 10.0.0.5: the lease has ended and nobody has renewed it", "DISCOVER 10.0.0.5"];
    assert_eq!(said[said.len() - 2..], end);
    assert_eq!(trace.client.lease(), None);
    assert_eq!(trace.client.known_address(), Some(ADDRESS.into()));
}

#[test]
fn a_machine_that_was_held_up_for_longer_than_a_lease_loses_it_at_once() {
    let mut trace = Trace::bound();
    trace.now = Duration::from_secs(100_000);
    let message = trace.lease(kind::ACK, SERVER);
    let said = trace.receive(message);
    assert_eq!(said[0], "lost 10.0.0.5: the lease has ended and nobody has renewed it", "whatever comes first");
    assert_eq!(said[1], "DISCOVER 10.0.0.5");
}

#[test]
fn past_t2_at_once_everybody_is_asked() {
    let mut trace = Trace::bound();
    assert_eq!(trace.until_exactly(Duration::from_secs(3200)), ["REQUEST for 10.0.0.5 from 10.0.0.5 to all"]);
}

#[test]
fn a_lease_for_ever_needs_no_renewal() {
    let mut trace = Trace::selecting();
    let for_ever = |trace: &Trace, kind| trace.lease(kind, SERVER).patch(257, &[255; 4]);
    trace.receive(for_ever(&trace, kind::OFFER));
    trace.receive(for_ever(&trace, kind::ACK));
    trace.until(10);
    assert_eq!((trace.client.phase(), trace.client.next_deadline()), (Phase::Bound, None));
    assert_eq!(trace.client.lease().unwrap().1, None);
}

#[test]
fn the_longest_lease_that_ends_does_not_overflow() {
    let mut trace = Trace::selecting();
    let long = |trace: &Trace, kind| trace.lease(kind, SERVER).patch(257, &[255, 255, 255, 254]);
    trace.receive(long(&trace, kind::OFFER));
    trace.receive(long(&trace, kind::ACK));
    trace.until(10);
    let term = trace.client.lease().unwrap().0.term.unwrap();
    assert_eq!(term, Term { lease: term.lease, renew: term.lease / 2, rebind: term.lease / 8 * 7 });
    assert!(trace.client.next_deadline().is_some());
}

#[test]
fn a_renewal_that_is_refused_or_changed() {
    let mut trace = Trace::bound();
    trace.until(1800);
    assert_eq!(trace.answer(kind::NAK, OTHER_SERVER), ["ignored: not the server whose offer was taken"]);
    let changed = trace.lease(kind::ACK, SERVER).patch(16, &[10, 0, 0, 9]);
    assert_eq!(trace.receive(changed), ["ignored: it renews the lease of 10.0.0.9, which is not ours"]);
    let refusal = "lost 10.0.0.5: the DHCP server 10.0.0.1 says that it is not ours";
    assert_eq!(trace.answer(kind::NAK, SERVER), [refusal, "DISCOVER"], "nothing of it is asked for again");
}

#[test]
fn an_address_that_somebody_has_is_declined() {
    let mut trace = Trace::selecting();
    let other = MacAddr([2, 0, 0, 0, 0, 9]);
    trace.answer(kind::OFFER, SERVER);
    trace.answer(kind::ACK, SERVER);
    assert_eq!(trace.arp(&arp::announcement(MAC, ADDRESS.into())), [""; 0], "our own, come back");
    let said = trace.arp(&arp::announcement(other, ADDRESS.into()));
    assert_eq!(said, ["10.0.0.5 taken by 02:00:00:00:00:09", "DECLINE 10.0.0.5 of 10.0.0.1"]);
    assert_eq!(trace.until(9), [""; 0], "RFC 2131 §3.1 (5): ten seconds");
    assert_eq!(trace.until(10), ["DISCOVER"]);
    trace.answer(kind::OFFER, SERVER);
    trace.answer(kind::ACK, SERVER);
    trace.until(20);
    assert_eq!(trace.client.phase(), Phase::Bound);
    assert_eq!(trace.arp(&arp::announcement(other, ADDRESS.into())), [""; 0], "only asked while probing");
}

#[test]
fn a_remembered_address_is_asked_for_again() {
    let mut trace = Trace::new(Some(ADDRESS));
    assert_eq!(trace.link(true), ["REQUEST 10.0.0.5"]);
    assert_eq!(trace.answer(kind::ACK, SERVER), ["probe 10.0.0.5"]);
}

#[test]
fn a_remembered_address_that_nobody_knows_any_more() {
    let mut trace = Trace::new(Some(ADDRESS));
    trace.link(true);
    assert_eq!(trace.until(6), ["REQUEST 10.0.0.5", "DISCOVER 10.0.0.5"], "silence: a server that does not know it");
    let mut trace = Trace::new(Some(ADDRESS));
    trace.link(true);
    assert_eq!(trace.answer(kind::NAK, SERVER), ["DISCOVER"], "another network");
}

#[test]
fn a_cable_pulled_and_put_back() {
    let mut trace = Trace::bound();
    trace.until(100);
    assert_eq!(trace.link(false), [""; 0]);
    assert_eq!(trace.client.phase(), Phase::NoLink);
    assert!(trace.client.lease().is_some(), "still in use");
    assert_eq!(trace.until(200), [""; 0]);
    assert_eq!(trace.link(true), ["REQUEST 10.0.0.5"]);
    assert_eq!(trace.link(true), [""; 0], "told twice");
    assert_eq!(trace.answer(kind::ACK, SERVER), ["probe 10.0.0.5"]);
    assert_eq!(trace.until(203)[2..], ["announce 10.0.0.5", "bound 10.0.0.5"]);
}

#[test]
fn a_cable_put_into_another_network() {
    let mut trace = Trace::bound();
    trace.link(false);
    trace.link(true);
    let said = trace.answer(kind::NAK, OTHER_SERVER);
    assert_eq!(said, ["lost 10.0.0.5: the DHCP server 10.0.0.2 says that it is not ours", "DISCOVER"]);
    // Where the server says nothing to what it does not know, a new address takes the old one's place.
    let mut trace = Trace::bound();
    trace.link(false);
    trace.link(true);
    assert_eq!(trace.until(17)[..2], ["REQUEST 10.0.0.5", "DISCOVER 10.0.0.5"]);
    assert!(trace.client.lease().is_some(), "in use meanwhile");
    let address = |trace: &Trace, kind| trace.lease(kind, OTHER_SERVER).patch(16, &[10, 0, 0, 77]);
    trace.receive(address(&trace, kind::OFFER));
    assert_eq!(trace.receive(address(&trace, kind::ACK)), ["probe 10.0.0.77"]);
    assert_eq!(trace.until(20)[2..], ["announce 10.0.0.77", "bound 10.0.0.77"]);
}

#[test]
fn a_lease_ends_even_without_a_link() {
    let mut trace = Trace::bound();
    trace.link(false);
    assert_eq!(trace.until(3601), ["lost 10.0.0.5: the lease has ended and nobody has renewed it"]);
    assert_eq!(trace.link(true), ["REQUEST 10.0.0.5"], "asked for again all the same");
}

#[test]
fn an_address_taken_while_the_cable_was_out_is_lost() {
    let mut trace = Trace::bound();
    trace.link(false);
    trace.link(true);
    trace.answer(kind::ACK, SERVER);
    let said = trace.arp(&arp::probe(MacAddr([2, 0, 0, 0, 0, 9]), ADDRESS.into()));
    assert_eq!(said[2], "lost 10.0.0.5: the machine 02:00:00:00:00:09 uses it");
}

#[test]
fn a_lease_is_given_back() {
    let mut trace = Trace::bound();
    trace.client.release();
    assert_eq!(trace.said(), ["RELEASE of 10.0.0.1 for 10.0.0.5 from 10.0.0.5 to 10.0.0.1"]);
    assert_eq!((trace.client.next_deadline(), trace.client.lease()), (None, None));
    assert_eq!(trace.link(false), [""; 0]);
    assert_eq!(trace.link(true), [""; 0]);
}

#[test]
fn every_cut_and_changed_byte_of_an_answer_is_survived() {
    let offer = Trace::selecting().lease(kind::OFFER, SERVER).bytes();
    for at in 0..offer.len() {
        for value in [0, 1, 4, 0x7f, 0xff] {
            let mut trace = Trace::selecting();
            let mut bytes = offer.clone();
            bytes[at] = value;
            trace.client.handle_input(trace.start, Input::Message(&bytes));
            bytes.truncate(at);
            trace.client.handle_input(trace.start, Input::Message(&bytes));
            assert!(trace.client.next_deadline().is_some());
        }
    }
}
