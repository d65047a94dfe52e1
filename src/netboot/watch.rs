//! Where each machine is, and what happened to it step by step: for whoever stands before a machine that does not come up.
//!
//! The journal tells everything once and forgets it; this keeps the last boot of the machines seen lately, within bounds.

use super::event::{Event, Piece};
use super::recent::Recent;
use crate::limits;
use crate::status::{self, Step};
use crate::units::{ByteSize, MacAddr};
use std::collections::{BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

/// The machines seen lately.
#[derive(Debug)]
pub struct Watch {
    /// What makes a machine complete.
    wanted: BTreeSet<Piece>,
    machines: Recent<MacAddr, Machine>,
    /// TFTP knows addresses only.
    macs: Recent<IpAddr, MacAddr>,
}

#[derive(Debug)]
struct Machine {
    since: Duration,
    last: Duration,
    address: Option<IpAddr>,
    state: String,
    has: BTreeSet<Piece>,
    /// Times since the start of the program, and what was seen.
    steps: VecDeque<(Duration, String)>,
}

impl Watch {
    /// `with_cloud_config` says whether a machine is complete only when it has fetched one.
    #[must_use]
    pub fn new(with_cloud_config: bool) -> Self {
        let pieces = [Piece::Kernel, Piece::Initrd, Piece::Rootfs].into_iter();
        Self {
            wanted: pieces.chain(with_cloud_config.then_some(Piece::CloudConfig)).collect(),
            machines: Recent::new(limits::MACHINES_WATCHED_MAX, limits::BOOT_AGE_MAX),
            macs: Recent::new(limits::MACHINES_WATCHED_MAX, limits::BOOT_AGE_MAX),
        }
    }

    pub fn handle_input(&mut self, now: Duration, event: &Event) {
        match event {
            Event::Offered { mac, client } => {
                // After it has fetched something, an OFFER begins its next boot.
                if self.machines.find(now, mac).is_some_and(|machine| !machine.has.is_empty()) {
                    self.machines.note(now, *mac, Machine::new(now));
                }
                self.step(now, *mac, "offered", format!("DHCP DISCOVER of {client} -> OFFER of a boot file"));
            }
            Event::Acked { mac, to } => {
                self.macs.note(now, to.ip(), *mac);
                self.step(now, *mac, "told what to load", format!("PXE REQUEST from {to} -> ACK with a boot file"));
            }
            Event::Ignored { mac: Some(mac), reason } => {
                self.step(now, *mac, "ignored", format!("DHCP request -> no answer: {reason}"));
            }
            Event::TftpSent { name, to, bytes, took } => {
                let what = format!("TFTP RRQ {name:?} -> {} in {} ms", ByteSize(*bytes), took.as_millis());
                self.step_of(now, to.ip(), "loader sent", what);
            }
            Event::TftpFailed { name, to, reason } => {
                self.step_of(now, to.ip(), "TFTP failed", format!("TFTP RRQ {name:?} -> failed: {reason}"));
            }
            Event::ScriptSent { mac, to, by } => {
                self.macs.note(now, to.ip(), *mac);
                let machine =
                    self.step(now, *mac, "boot script sent", format!("{by} GET boot script from {to} -> sent"));
                machine.address = Some(to.ip());
            }
            Event::FileSent { mac, piece, to, bytes, took } => self.sent(now, *mac, *piece, (to.ip(), *bytes, *took)),
            Event::FileBroken { mac, piece, sent, size, reason, .. } => {
                let (name, sent, size) = (piece.what(), ByteSize(*sent), ByteSize(*size));
                let what = format!("HTTP GET {name} -> broken off after {sent} of {size}: {reason}");
                self.step(now, *mac, &format!("{name} broken off"), what);
            }
            Event::Ignored { mac: None, .. }
            | Event::DownloadSent { .. }
            | Event::DownloadBroken { .. }
            | Event::Refused { .. }
            | Event::Serving { .. }
            | Event::News { .. }
            | Event::Trouble { .. }
            | Event::Lost { .. } => {}
        }
    }

    fn sent(&mut self, now: Duration, mac: MacAddr, piece: Piece, (from, bytes, took): (IpAddr, u64, Duration)) {
        self.macs.note(now, from, mac);
        let wanted = self.wanted.clone();
        let what = format!("HTTP GET {} -> {} in {} ms", piece.what(), ByteSize(bytes), took.as_millis());
        let machine = self.step(now, mac, &format!("{} sent", piece.what()), what);
        machine.address = Some(from);
        if wanted.contains(&piece) {
            machine.has.insert(piece);
        }
        if machine.has == wanted {
            "has everything".clone_into(&mut machine.state);
        }
    }

    /// The machines, the latest first.
    pub fn machines(&mut self, now: Duration) -> Vec<status::Machine> {
        let seconds = |since: Duration| now.saturating_sub(since).as_secs();
        let young = |machine: &Machine| now.saturating_sub(machine.last) <= limits::BOOT_AGE_MAX;
        let shown = |(mac, machine): (&MacAddr, &mut Machine)| {
            young(machine).then(|| status::Machine {
                mac: *mac,
                address: machine.address,
                state: machine.state.clone(),
                since: seconds(machine.since),
                last: seconds(machine.last),
            })
        };
        let mut machines: Vec<status::Machine> = self.machines.values_mut().filter_map(shown).collect();
        machines.sort_by_key(|machine| (machine.last, machine.mac));
        machines
    }

    /// What is kept of one machine, the oldest first; times count from there.
    #[must_use]
    pub fn steps(&self, now: Duration, mac: MacAddr) -> Vec<Step> {
        let Some(machine) = self.machines.find(now, &mac) else { return Vec::new() };
        let first = machine.steps.front().map_or(now, |(at, _)| *at);
        let step = |(at, what): &(Duration, String)| Step {
            at_ms: u64::try_from(at.saturating_sub(first).as_millis()).unwrap_or(u64::MAX),
            what: what.clone(),
        };
        machine.steps.iter().map(step).collect()
    }

    fn step_of(&mut self, now: Duration, from: IpAddr, state: &str, what: String) {
        if let Some(mac) = self.macs.find(now, &from).copied() {
            self.step(now, mac, state, what);
        }
    }

    fn step(&mut self, now: Duration, mac: MacAddr, state: &str, what: String) -> &mut Machine {
        let machine = self.machines.renew(now, mac, || Machine::new(now));
        machine.last = now;
        state.clone_into(&mut machine.state);
        if machine.steps.len() >= limits::MACHINE_STEPS_MAX {
            machine.steps.pop_front();
        }
        machine.steps.push_back((now, what));
        machine
    }
}

impl Machine {
    fn new(now: Duration) -> Self {
        let (state, has, steps) = (String::new(), BTreeSet::new(), VecDeque::new());
        Self { since: now, last: now, address: None, state, has, steps }
    }
}

#[cfg(test)]
mod tests {
    use super::super::event::Protocol;
    use super::*;
    use std::net::SocketAddr;

    const MAC: MacAddr = MacAddr([0x08, 0, 0x27, 0x54, 0x1a, 0xd1]);

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn client() -> SocketAddr {
        SocketAddr::from(([192, 168, 68, 113], 1024))
    }

    fn offered(mac: MacAddr) -> Event {
        Event::Offered { mac, client: "UEFI x64".into() }
    }

    fn sent(piece: Piece) -> Event {
        Event::FileSent { mac: MAC, piece, to: client(), bytes: 5_000_000, took: Duration::from_millis(70) }
    }

    fn state(watch: &mut Watch, seconds: u64) -> (String, u64, u64) {
        let machine = watch.machines(at(seconds)).remove(0);
        (machine.state, machine.since, machine.last)
    }

    #[test]
    fn a_boot_is_followed_to_its_end_and_the_next_begins_anew() {
        let mut watch = Watch::new(false);
        let input = |watch: &mut Watch, seconds, event| watch.handle_input(at(seconds), &event);
        input(&mut watch, 10, offered(MAC));
        assert_eq!(state(&mut watch, 12), ("offered".to_owned(), 2, 2));
        input(&mut watch, 12, Event::Acked { mac: MAC, to: client() });
        let loader = Event::TftpSent { name: "snponly.efi".into(), to: client(), bytes: 284_672, took: at(1) };
        input(&mut watch, 13, loader);
        assert_eq!(state(&mut watch, 13).0, "loader sent");
        input(&mut watch, 14, Event::ScriptSent { mac: MAC, to: client(), by: Protocol::Http });
        for (seconds, piece) in [(15, Piece::Kernel), (16, Piece::Initrd), (20, Piece::Rootfs)] {
            input(&mut watch, seconds, sent(piece));
        }
        assert_eq!(state(&mut watch, 21), ("has everything".to_owned(), 11, 1));
        assert_eq!(watch.machines(at(21))[0].address, Some(client().ip()));
        let steps = watch.steps(at(21), MAC);
        let shown: Vec<String> = steps.iter().map(|step| format!("{} {}", step.at_ms, step.what)).collect();
        assert_eq!(shown.len(), 7);
        assert_eq!(shown[0], "0 DHCP DISCOVER of UEFI x64 -> OFFER of a boot file");
        assert_eq!(shown[2], format!("3000 TFTP RRQ \"snponly.efi\" -> {} in 1000 ms", ByteSize(284_672)));
        assert_eq!(shown[6], format!("10000 HTTP GET image -> {} in 70 ms", ByteSize(5_000_000)));

        input(&mut watch, 100, offered(MAC));
        assert_eq!(state(&mut watch, 100), ("offered".to_owned(), 0, 0));
        assert_eq!(watch.steps(at(100), MAC).len(), 1);
        assert!(watch.machines(at(101) + limits::BOOT_AGE_MAX).is_empty());
        assert!(watch.steps(at(101) + limits::BOOT_AGE_MAX, MAC).is_empty());
    }

    #[test]
    fn machines_and_steps_are_bounded() {
        let mut watch = Watch::new(false);
        for n in 0..3 * u32::try_from(limits::MACHINES_WATCHED_MAX).unwrap() {
            let [a, b, c, d] = n.to_be_bytes();
            watch.handle_input(at(1), &offered(MacAddr([2, 0, a, b, c, d])));
        }
        assert!(watch.machines(at(1)).len() <= limits::MACHINES_WATCHED_MAX);
        for _ in 0..=limits::MACHINE_STEPS_MAX {
            watch.handle_input(at(2), &Event::Ignored { mac: Some(MAC), reason: "denied".into() });
        }
        assert_eq!(watch.steps(at(2), MAC).len(), limits::MACHINE_STEPS_MAX);
        assert_eq!(watch.machines(at(2))[0].mac, MAC, "the latest first");
    }
}
