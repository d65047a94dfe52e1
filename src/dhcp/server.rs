//! The ProxyDHCP server: [`decide`] and the little it has to remember.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Instant;

use super::decide::{self, Arrival, Boot, Decision, Policy, Reason};
use super::request::{Message, Refused, Request};
use crate::limits;
use crate::units::MacAddr;

/// What happened to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whose it was, if that could be told.
    pub mac: Option<MacAddr>,
    pub decision: Decision,
}

/// Answers network-boot requests on all interfaces.
#[derive(Debug)]
pub struct Server {
    policy: Policy,
    seen: Seen,
    loops: Loops,
}

impl Server {
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self { policy, seen: Seen::default(), loops: Loops::default() }
    }

    /// Decides about one message; the answer, if any, is in the decision.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8], arrival: &Arrival) -> Outcome {
        let request = match Request::parse(bytes, arrival.link_source) {
            Ok(request) => request,
            Err(Refused { mac, reason }) => return Outcome { mac, decision: Decision::Ignore(reason) },
        };
        let mac = Some(request.mac);
        if self.seen.is_copy(now, &request, arrival.interface) {
            return Outcome { mac, decision: Decision::Ignore(Reason::Duplicate) };
        }
        let decision = match decide::decide(&request, arrival, &self.policy) {
            Decision::Offer(reply) => match self.loops.note(now, &request, reply.boot) {
                Ok(()) => Decision::Offer(reply),
                Err(reason) => Decision::Ignore(reason),
            },
            other => other,
        };
        Outcome { mac, decision }
    }
}

/// Messages of the last moments, to know a broadcast that reaches us on two interfaces (a macvlan and its parent, two
/// cards on one switch). The same message on the same interface is the client trying again, and is answered.
#[derive(Debug, Default)]
struct Seen {
    interfaces: HashMap<Copied, u32>,
    order: VecDeque<(Instant, Copied)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Copied {
    xid: u32,
    mac: MacAddr,
    secs: u16,
    message: u8,
    giaddr: Ipv4Addr,
}

impl Seen {
    fn is_copy(&mut self, now: Instant, request: &Request<'_>, interface: u32) -> bool {
        while let Some((then, old)) = self.order.front().copied()
            && (now.saturating_duration_since(then) > limits::DHCP_COPY_WINDOW
                || self.order.len() >= limits::DHCP_SEEN_MAX)
        {
            self.order.pop_front();
            self.interfaces.remove(&old);
        }
        let key = Copied {
            xid: request.packet.xid(),
            mac: request.mac,
            secs: request.packet.secs(),
            message: request.message as u8,
            giaddr: request.packet.giaddr(),
        };
        match self.interfaces.get(&key) {
            Some(&first) => first != interface,
            None => {
                self.interfaces.insert(key, interface);
                self.order.push_back((now, key));
                false
            }
        }
    }
}

/// Machines whose own iPXE cannot run our script and so are given ours to load. If they come back with the poor one again and
/// again, ours does not start there, and offering it for ever would keep the machine from its next boot device.
#[derive(Debug, Default)]
struct Loops {
    machines: HashMap<MacAddr, Tries>,
}

#[derive(Debug, Clone, Copy)]
struct Tries {
    since: Instant,
    xid: u32,
    count: u32,
}

impl Loops {
    fn note(&mut self, now: Instant, request: &Request<'_>, boot: Boot) -> Result<(), Reason> {
        if request.message != Message::Discover || !matches!(boot, Boot::TftpUrl(_)) {
            self.machines.remove(&request.mac); // it got further
            return Ok(());
        }
        self.make_room(now);
        let xid = request.packet.xid();
        let tries = self.machines.entry(request.mac).or_insert(Tries { since: now, xid, count: 1 });
        if now.saturating_duration_since(tries.since) > limits::DHCP_LOOP_WINDOW {
            *tries = Tries { since: now, xid, count: 1 };
        } else if tries.xid != xid {
            // iPXE draws a new transaction id each time it starts; repeats of one DISCOVER keep theirs.
            tries.xid = xid;
            tries.count = tries.count.saturating_add(1);
        }
        if tries.count > limits::DHCP_LOOP_TRIES { Err(Reason::LoaderLoop(limits::DHCP_LOOP_TRIES)) } else { Ok(()) }
    }

    fn make_room(&mut self, now: Instant) {
        if self.machines.len() >= limits::DHCP_LOOPS_MAX {
            self.machines.retain(|_, tries| now.saturating_duration_since(tries.since) <= limits::DHCP_LOOP_WINDOW);
        }
        if self.machines.len() >= limits::DHCP_LOOPS_MAX {
            self.machines.clear(); // a flood of made-up addresses: forgetting is harmless
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::testing::{self, IPXE_BIOS, IPXE_POOR, ON_67};
    use crate::units::Arch;
    use std::time::Duration;

    struct Lan {
        server: Server,
        start: Instant,
    }

    impl Lan {
        fn new() -> Self {
            Self { server: Server::new(testing::policy(Arch::Amd64)), start: Instant::now() }
        }

        /// `None` when answered.
        fn at(&mut self, ms: u64, interface: u32, message: testing::Message) -> Option<Reason> {
            let now = self.start + Duration::from_millis(ms);
            let outcome = self.server.handle_input(now, &message.bytes(), &Arrival { interface, ..ON_67 });
            match outcome.decision {
                Decision::Ignore(reason) => Some(reason),
                Decision::Offer(_) | Decision::Ack(_) => None,
            }
        }
    }

    #[test]
    fn copies_on_another_interface_are_not_answered_but_repeats_are() {
        let mut lan = Lan::new();
        let message = || testing::Message::discover(7).xid(1);
        assert_eq!(lan.at(0, 2, message()), None);
        assert_eq!(lan.at(1, 3, message()), Some(Reason::Duplicate));
        assert_eq!(lan.at(2, 2, message()), None, "the client asks again");
        assert_eq!(lan.at(3, 3, message().patch(8, &[0, 4])), None, "a later try, heard first on the other interface");
        assert_eq!(lan.at(4, 3, message().giaddr([10, 9, 0, 1])), None, "a relay's own");
        let window = u64::try_from(limits::DHCP_COPY_WINDOW.as_millis()).unwrap();
        assert_eq!(lan.at(window + 1, 3, message()), None);
    }

    #[test]
    fn the_memory_for_copies_is_bounded() {
        let mut lan = Lan::new();
        for xid in 0..=u32::try_from(limits::DHCP_SEEN_MAX).unwrap() {
            assert_eq!(lan.at(0, 2, testing::Message::discover(7).xid(xid)), None);
        }
        assert_eq!(lan.server.seen.order.len(), limits::DHCP_SEEN_MAX);
        assert_eq!(lan.server.seen.interfaces.len(), limits::DHCP_SEEN_MAX);
        assert_eq!(lan.at(0, 3, testing::Message::discover(7).xid(0)), None, "the oldest is forgotten");
    }

    #[test]
    fn a_loader_that_changes_nothing_is_offered_twice() {
        let mut lan = Lan::new();
        let poor = |xid| testing::Message::discover(0).ipxe(IPXE_POOR).xid(xid);
        assert_eq!(lan.at(0, 2, poor(1)), None);
        assert_eq!(lan.at(1_000, 2, poor(1)), None, "the same try");
        assert_eq!(lan.at(9_000, 2, poor(2)), None);
        assert_eq!(lan.at(18_000, 2, poor(3)), Some(Reason::LoaderLoop(2)));
        assert_eq!(lan.at(19_000, 2, poor(3)), Some(Reason::LoaderLoop(2)));
        assert_eq!(lan.at(60_001, 2, poor(4)), None, "a minute later it may try again");
        assert_eq!(lan.at(61_000, 2, testing::Message::discover(0).ipxe(IPXE_BIOS).xid(5)), None, "ours runs");
        for xid in 6..8 {
            assert_eq!(lan.at(62_000, 2, poor(xid)), None, "and the count starts anew");
        }
    }

    #[test]
    fn the_memory_for_loops_is_bounded() {
        let mut lan = Lan::new();
        for number in 0..=u32::try_from(limits::DHCP_LOOPS_MAX).unwrap() {
            let [_, b, c, d] = number.to_be_bytes();
            let message = testing::Message::discover(0).ipxe(IPXE_POOR).mac([2, b, c, d, 0, 1]).xid(number);
            assert_eq!(lan.at(0, 2, message), None);
        }
        assert!(lan.server.loops.machines.len() <= limits::DHCP_LOOPS_MAX);
    }
}
