//! A DHCP client: gets an address and keeps it (RFC 2131 §4.4).
//!
//! ```text
//!            link, address known                link
//!   Rebooting ◀───────────────────── NoLink ───────────▶ Selecting ◀──────────── Waiting
//!       │ ACK     nobody knows it, NAK                      │ OFFER               ▲   ▲
//!       │        └───────────────────────────▶ Selecting    ▼                NAK  │   │ somebody has it
//!       │                                               Requesting ───────────────┘   │ (DECLINE)
//!       ▼                                                   │ ACK                     │
//!    Probing ◀──────────────────────────────────────────────┘                         │
//!       │  └──────────────────────────────────────────────────────────────────────────┘
//!       ▼              T1              T2
//!     Bound ◀──ACK── Renewing ──▶ Rebinding ── NAK, lease over ──▶ Selecting
//! ```
//! A lease outlives what is asked meanwhile: when a cable was pulled and put back, its address stays in use while a server is asked
//! whether that is right, until the lease is over or a server says no.
//!
//! Mutate once ([`Client::handle_input`], [`Client::handle_timeout`]), drain [`Client::poll_output`], wait until
//! [`Client::next_deadline`], repeat. Time is monotonic: setting the clock changes no lease.

mod message;

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::arp::Claim;
use super::lease::{Answer, Lease, Unacceptable};
use crate::limits;
use crate::units::MacAddr;
use message::Question;

/// DISCOVERs without the broadcast flag before there are some with it. Answers to its hardware address reach this client before it
/// has an IP address, and spare everybody else; but some bridges and relays pass on broadcasts only.
const TRIES_WITHOUT_BROADCAST: u32 = 2;

/// By what a server knows this client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub mac: MacAddr,
    /// Option 12: the name that many servers enter into the LAN's DNS.
    pub hostname: String,
}

/// What happens to a client.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// The interface has got a link, or lost it.
    Link(bool),
    /// A DHCP message came to port 68.
    Message(&'a [u8]),
    /// An ARP packet was seen.
    Arp(Claim),
}

/// What a client wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send from this address, port 68, to port 67 of everybody.
    Broadcast {
        source: Ipv4Addr,
        message: Vec<u8>,
    },
    /// Send from this address, port 68, to port 67 of the server.
    Unicast {
        source: Ipv4Addr,
        server: Ipv4Addr,
        message: Vec<u8>,
    },
    /// Ask by ARP whether somebody has this address.
    Probe(Ipv4Addr),
    /// Tell everybody by ARP that this address is ours.
    Announce(Ipv4Addr),
    Event(Event),
}

/// What the owner of the interface should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The lease to use from now on, in place of any earlier one: new, renewed or with other terms.
    Bound(Lease),
    /// The address may not be used any more.
    Lost { address: Ipv4Addr, loss: Loss },
    /// A server has refused what it had offered, or nobody answers for it.
    Refused { server: Ipv4Addr },
    /// Another machine uses the address that a server has lent.
    Taken { address: Ipv4Addr, by: MacAddr },
    /// Something else than hoped for has come from a server, as far as it says who it is.
    Ignored(Unacceptable),
}

/// Why an address was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    #[error("the lease has ended and nobody has renewed it")]
    Expired,
    #[error("the DHCP server {0} says that it is not ours")]
    Refused(Ipv4Addr),
    #[error("the machine {0} uses it")]
    Taken(MacAddr),
}

/// Where a client is, for a status line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    NoLink,
    /// Asks everybody for an address.
    Asking {
        since: Instant,
        tries: u32,
    },
    /// Asks everybody whether the address of an earlier lease still holds.
    Verifying {
        address: Ipv4Addr,
        since: Instant,
    },
    /// Has taken an offer and waits for the server to confirm it.
    Requesting {
        address: Ipv4Addr,
        server: Ipv4Addr,
    },
    /// Looks whether somebody else uses the address.
    Probing {
        address: Ipv4Addr,
    },
    /// Pauses after a refusal.
    Waiting {
        until: Instant,
    },
    Bound,
    /// Asks its server (T1), or any server (T2), to renew the lease.
    Renewing {
        since: Instant,
        anybody: bool,
    },
    /// The lease was given back.
    Released,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    NoLink,
    /// Holds the offer of a shunned server until it is clear that there is no other.
    Selecting {
        spare: Option<Lease>,
    },
    Requesting {
        offer: Lease,
    },
    Rebooting {
        address: Ipv4Addr,
    },
    Probing {
        lease: Lease,
        asked_at: Instant,
    },
    Waiting,
    Bound,
    Renewing,
    Rebinding,
    Released,
}

/// A lease in use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    lease: Lease,
    /// Of a lease that ends: T1, T2 and the end.
    times: Option<Times>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    renew_at: Instant,
    rebind_at: Instant,
    expires_at: Instant,
}

/// The client of one interface.
#[derive(Debug)]
pub struct Client {
    identity: Identity,
    dice: Dice,
    state: State,
    held: Option<Held>,
    /// The address of an earlier lease, asked for again.
    wanted: Option<Ipv4Addr>,
    /// The server whose last offer came to nothing: others are taken first.
    shunned: Option<Ipv4Addr>,
    /// Refusals and conflicts in a row, which make the pauses longer.
    setbacks: u32,
    xid: u32,
    /// When this transaction began, as option `secs` tells servers.
    began: Instant,
    /// When its last message was sent.
    sent_at: Instant,
    /// Messages or probes sent in this state.
    tries: u32,
    /// Whether answers are to be broadcast.
    wants_broadcast: bool,
    /// When the state does something by itself.
    due: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Client {
    /// A client without a link. `earlier` is the address of a lease from before, perhaps before a restart; `seed` a random number, which
    /// transaction ids and the jitter of the waits come from.
    #[must_use]
    pub fn new(now: Instant, identity: Identity, earlier: Option<Ipv4Addr>, seed: u64) -> Self {
        Self {
            identity,
            dice: Dice(seed),
            state: State::NoLink,
            held: None,
            wanted: earlier,
            shunned: None,
            setbacks: 0,
            xid: 0,
            began: now,
            sent_at: now,
            tries: 0,
            wants_broadcast: false,
            due: None,
            outputs: VecDeque::new(),
        }
    }

    /// The lease in use, and until when.
    #[must_use]
    pub fn lease(&self) -> Option<(&Lease, Option<Instant>)> {
        self.held.as_ref().map(|held| (&held.lease, held.times.map(|times| times.expires_at)))
    }

    /// The address to ask for when a client begins anew.
    #[must_use]
    pub fn known_address(&self) -> Option<Ipv4Addr> {
        self.held.as_ref().map(|held| held.lease.address).or(self.wanted)
    }

    /// Whether ARP packets are of interest now.
    #[must_use]
    pub const fn is_probing(&self) -> bool {
        matches!(self.state, State::Probing { .. })
    }

    #[must_use]
    pub fn phase(&self) -> Phase {
        let since = self.began;
        match &self.state {
            State::NoLink => Phase::NoLink,
            State::Selecting { .. } => Phase::Asking { since, tries: self.tries },
            State::Requesting { offer } => Phase::Requesting { address: offer.address, server: offer.server },
            State::Rebooting { address } => Phase::Verifying { address: *address, since },
            State::Probing { lease, .. } => Phase::Probing { address: lease.address },
            State::Waiting => Phase::Waiting { until: self.due.unwrap_or(since) },
            State::Bound => Phase::Bound,
            State::Renewing => Phase::Renewing { since, anybody: false },
            State::Rebinding => Phase::Renewing { since, anybody: true },
            State::Released => Phase::Released,
        }
    }

    pub fn handle_input(&mut self, now: Instant, input: Input<'_>) {
        self.expire(now);
        match input {
            Input::Link(true) => self.handle_link(now),
            Input::Link(false) => self.pause(),
            Input::Message(bytes) => self.handle_message(now, bytes),
            Input::Arp(claim) => self.handle_claim(now, claim),
        }
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.expire(now);
        if self.due.is_some_and(|due| due <= now) {
            self.act(now);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let expires_at = self.held.as_ref().and_then(|held| held.times).map(|times| times.expires_at);
        [self.due, expires_at].into_iter().flatten().min()
    }

    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Gives the lease back; the address is not to be used afterwards. The client does nothing more.
    pub fn release(&mut self) {
        if let Some(held) = self.held.take() {
            self.xid = self.dice.roll();
            let Lease { address, server, .. } = held.lease;
            let message = self.message(self.sent_at, Question::Release { address, server });
            self.outputs.push_back(Output::Unicast { source: address, server, message });
        }
        self.state = State::Released;
        self.due = None;
    }

    // ── links ────────────────────────────────────────────────────────────────────────────────────────────────────

    fn handle_link(&mut self, now: Instant) {
        if self.state != State::NoLink {
            return;
        }
        self.setbacks = 0;
        self.shunned = None;
        match self.known_address() {
            Some(address) => self.enter(now, State::Rebooting { address }),
            None => self.select(now),
        }
    }

    fn pause(&mut self) {
        match &self.state {
            State::Released => return,
            State::Probing { lease, .. } => self.wanted = Some(lease.address), // it was lent, after all
            _ => {}
        }
        self.state = State::NoLink;
        self.due = None;
    }

    // ── what comes ───────────────────────────────────────────────────────────────────────────────────────────────

    fn handle_message(&mut self, now: Instant, bytes: &[u8]) {
        let is_asking = !matches!(self.state, State::NoLink | State::Waiting | State::Bound | State::Released)
            && !self.is_probing();
        if !is_asking {
            return; // copies and latecomers
        }
        match Answer::parse(bytes, self.identity.mac, self.xid) {
            Ok(Answer::Offer(lease)) => self.handle_offer(now, lease),
            Ok(Answer::Ack(lease)) => self.handle_ack(now, lease),
            Ok(Answer::Nak { server }) => self.handle_nak(now, server),
            Err(reason) => self.ignore(reason),
        }
    }

    fn handle_offer(&mut self, now: Instant, lease: Lease) {
        // In any other state it is a second server's, which was too late.
        let State::Selecting { spare } = &mut self.state else { return };
        if self.shunned == Some(lease.server) {
            spare.get_or_insert(lease);
        } else {
            self.request(now, lease);
        }
    }

    fn handle_ack(&mut self, now: Instant, lease: Lease) {
        let asked_at = self.sent_at;
        match &self.state {
            State::Requesting { offer } if offer.server != lease.server => self.ignore(Unacceptable::NotChosen),
            State::Requesting { .. } | State::Rebooting { .. } => self.enter(now, State::Probing { lease, asked_at }),
            State::Renewing | State::Rebinding => {
                if self.held.as_ref().is_some_and(|held| held.lease.address == lease.address) {
                    self.hold(asked_at, lease);
                } else {
                    self.ignore(Unacceptable::OtherAddress(lease.address));
                }
            }
            _ => {} // an ACK before anything was requested
        }
    }

    fn handle_nak(&mut self, now: Instant, server: Ipv4Addr) {
        let is_our_server = self.held.as_ref().is_some_and(|held| held.lease.server == server);
        match &self.state {
            State::Requesting { offer } if offer.server == server => {
                self.outputs.push_back(Output::Event(Event::Refused { server }));
                self.wanted = None;
                self.set_back(now, Some(server), Duration::ZERO);
            }
            // The network has changed, or the server's memory: any server of this network may say so.
            State::Rebooting { .. } | State::Rebinding => self.give_up_address(now, server),
            State::Renewing if is_our_server => self.give_up_address(now, server),
            State::Selecting { .. } => {}
            _ => self.ignore(Unacceptable::NotChosen),
        }
    }

    fn give_up_address(&mut self, now: Instant, server: Ipv4Addr) {
        self.lose(Loss::Refused(server));
        self.wanted = None;
        self.select(now);
    }

    fn handle_claim(&mut self, now: Instant, claim: Claim) {
        let State::Probing { lease, .. } = &self.state else { return };
        let Lease { address, server, .. } = *lease;
        if !claim.conflicts_with(self.identity.mac, address) {
            return;
        }
        self.outputs.push_back(Output::Event(Event::Taken { address, by: claim.mac }));
        self.xid = self.dice.roll();
        let message = self.message(now, Question::Decline { address, server });
        self.outputs.push_back(Output::Broadcast { source: Ipv4Addr::UNSPECIFIED, message });
        if self.held.as_ref().is_some_and(|held| held.lease.address == address) {
            self.lose(Loss::Taken(claim.mac));
        }
        self.wanted = None;
        self.set_back(now, None, limits::DHCP_DECLINE_WAIT);
    }

    fn ignore(&mut self, reason: Unacceptable) {
        if reason.is_news() {
            self.outputs.push_back(Output::Event(Event::Ignored(reason)));
        }
    }

    // ── what the states do by themselves ─────────────────────────────────────────────────────────────────────────

    /// Begins a transaction.
    fn enter(&mut self, now: Instant, state: State) {
        if !matches!(state, State::Requesting { .. } | State::Probing { .. }) {
            self.xid = self.dice.roll();
            self.began = now;
            self.wants_broadcast = false;
        }
        self.state = state;
        self.tries = 0;
        self.act(now);
    }

    fn select(&mut self, now: Instant) {
        self.enter(now, State::Selecting { spare: None });
    }

    fn request(&mut self, now: Instant, offer: Lease) {
        self.enter(now, State::Requesting { offer });
    }

    /// Does what is due in this state: the first message of it or the next.
    fn act(&mut self, now: Instant) {
        let nobody = Ipv4Addr::UNSPECIFIED;
        match self.state.clone() {
            State::NoLink | State::Released => self.due = None,
            State::Waiting => self.select(now),
            State::Selecting { spare: Some(offer) } => self.request(now, offer),
            State::Selecting { spare: None } => {
                self.wants_broadcast = self.tries >= TRIES_WITHOUT_BROADCAST;
                self.ask(now, nobody, Question::Discover { wanted: self.wanted });
            }
            State::Requesting { offer } if self.tries >= limits::DHCP_REQUEST_TRIES => {
                self.outputs.push_back(Output::Event(Event::Refused { server: offer.server }));
                self.set_back(now, Some(offer.server), Duration::ZERO);
            }
            State::Requesting { offer: Lease { address, server, .. } } => {
                self.ask(now, nobody, Question::Request { address, server });
            }
            // With a lease in use it stays so: only a new one, or its end, takes its place.
            State::Rebooting { .. } if self.tries >= limits::DHCP_REBOOT_TRIES => self.select(now),
            State::Rebooting { address } => self.ask(now, nobody, Question::Reboot { address }),
            State::Probing { lease, asked_at } if self.tries >= limits::ARP_PROBES => {
                self.outputs.push_back(Output::Announce(lease.address));
                self.hold(asked_at, lease);
            }
            State::Probing { lease, .. } => {
                self.tries += 1;
                self.outputs.push_back(Output::Probe(lease.address));
                self.due = Some(now + limits::ARP_PROBE_WAIT);
            }
            State::Bound | State::Renewing | State::Rebinding => self.renew(now),
        }
    }

    /// Sends a message to everybody, and sets the time of the next.
    fn ask(&mut self, now: Instant, source: Ipv4Addr, question: Question) {
        let message = self.message(now, question);
        self.outputs.push_back(Output::Broadcast { source, message });
        self.due = Some(now + self.wait(self.tries));
        self.tries += 1;
        self.sent_at = now;
    }

    /// T1 and T2 (RFC 2131 §4.4.5): its own server first, then anybody, each after half of the time that is left.
    fn renew(&mut self, now: Instant) {
        let Some(Held { lease: Lease { address, server, .. }, times: Some(times) }) = &self.held else {
            self.due = None; // lent for ever
            return;
        };
        let (address, server, times) = (*address, *server, *times);
        let (state, until) = if now < times.renew_at {
            self.due = Some(times.renew_at);
            return;
        } else if now < times.rebind_at {
            (State::Renewing, times.rebind_at)
        } else {
            (State::Rebinding, times.expires_at)
        };
        if self.state != state {
            self.xid = self.dice.roll();
            if self.state == State::Bound {
                self.began = now;
            }
            self.wants_broadcast = false;
            self.tries = 0;
        }
        let message = self.message(now, Question::Renew { address });
        self.outputs.push_back(match state {
            State::Renewing => Output::Unicast { source: address, server, message },
            _ => Output::Broadcast { source: address, message },
        });
        self.state = state;
        self.tries += 1;
        self.sent_at = now;
        let wait = ((until - now) / 2).max(limits::DHCP_RENEW_WAIT_MIN);
        self.due = Some(until.min(now + wait));
    }

    /// Begins to use a lease, which counts from when it was asked for.
    fn hold(&mut self, asked_at: Instant, lease: Lease) {
        let times = lease.term.and_then(|term| {
            Some(Times {
                renew_at: asked_at.checked_add(term.renew)?,
                rebind_at: asked_at.checked_add(term.rebind)?,
                expires_at: asked_at.checked_add(term.lease)?,
            })
        });
        self.state = State::Bound;
        self.due = times.map(|times| times.renew_at);
        self.wanted = Some(lease.address);
        self.shunned = None;
        self.setbacks = 0;
        self.outputs.push_back(Output::Event(Event::Bound(lease.clone())));
        self.held = Some(Held { lease, times });
    }

    fn expire(&mut self, now: Instant) {
        let times = self.held.as_ref().and_then(|held| held.times);
        if times.is_none_or(|times| now < times.expires_at) {
            return;
        }
        self.lose(Loss::Expired);
        if matches!(self.state, State::Bound | State::Renewing | State::Rebinding) {
            self.select(now);
        }
    }

    fn lose(&mut self, loss: Loss) {
        if let Some(held) = self.held.take() {
            self.outputs.push_back(Output::Event(Event::Lost { address: held.lease.address, loss }));
        }
    }

    /// Pauses before everything begins anew: a server that refuses what it offers must not keep the network busy.
    fn set_back(&mut self, now: Instant, shunned: Option<Ipv4Addr>, at_least: Duration) {
        let wait = self.wait(self.setbacks).max(at_least);
        self.setbacks += 1;
        self.shunned = shunned;
        self.state = State::Waiting;
        self.due = Some(now + wait);
    }

    /// Doubles with each try, up to its bound; up to a quarter is taken off at random, so that the machines of a rack that got power
    /// at the same moment do not ask at the same moments (RFC 2131 §4.1).
    fn wait(&mut self, tries: u32) -> Duration {
        let wait = limits::DHCP_RETRY_WAIT.saturating_mul(2_u32.saturating_pow(tries));
        let wait = wait.min(limits::DHCP_RETRY_WAIT_MAX);
        wait - wait / 4 * (self.dice.roll() >> 16) / (1 << 16)
    }

    fn message(&self, now: Instant, question: Question) -> Vec<u8> {
        let seconds = now.saturating_duration_since(self.began).as_secs();
        let seconds = u16::try_from(seconds).unwrap_or(u16::MAX);
        message::write(&self.identity, self.xid, seconds, self.wants_broadcast, question)
    }
}

/// SplitMix64: enough for transaction ids that are not to be guessed from another machine's, and for jitter.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests;
