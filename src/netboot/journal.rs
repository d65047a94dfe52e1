//! What the operator reads: events in, log lines out, the same line never twice a minute.
//!
//! Anyone on the network can cause most of these lines, so each kind of complaint is told at once and then counted, and there is a
//! bound on all lines together. The lines have the form that AuroraBoot's have had since its first release.

use super::event::{Event, Piece};
use super::recent::Recent;
use crate::limits;
use crate::units::{ByteSize, MacAddr};
use log::Level;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// A line without its time stamp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub level: Level,
    pub text: String,
}

/// Turns events into lines. After every `handle_…`: drain [`Journal::poll_output`], then wait until [`Journal::next_deadline`].
#[derive(Debug)]
pub struct Journal {
    /// The pieces that make a machine complete.
    wanted: BTreeSet<Piece>,
    machines: Recent<MacAddr, Machine>,
    repeats: HashMap<Complaint, Repeats>,
    /// Complaints that found no room in `repeats`.
    other_complaints: u64,
    /// When the counts are told; set while there is something to count.
    minute_ends: Option<Duration>,
    second: Second,
    lines: VecDeque<Line>,
}

/// How far a machine has come.
#[derive(Debug)]
struct Machine {
    /// Its first OFFER of this boot, or whatever was seen first.
    since: Duration,
    /// Where it asked from, once that has been told: the lines of its files name the address alone.
    address: Option<IpAddr>,
    has: BTreeSet<Piece>,
}

/// Something that is told once and then counted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Complaint {
    verb: Verb,
    of: Source,
    reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Verb {
    IgnoredDhcp,
    RefusedHttp,
    FailedTftp,
    BrokenHttp,
    Trouble,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Mac(MacAddr),
    Address(IpAddr),
    Unknown,
}

#[derive(Debug)]
struct Repeats {
    since: Duration,
    /// Since the last line.
    count: u64,
}

/// The bound on all lines together.
#[derive(Debug, Default)]
struct Second {
    ends: Duration,
    lines: u32,
    left_out: u64,
}

impl Journal {
    /// `with_cloud_config` says whether a machine is complete only when it has fetched one.
    #[must_use]
    pub fn new(with_cloud_config: bool) -> Self {
        let pieces = [Piece::Kernel, Piece::Initrd, Piece::Rootfs].into_iter();
        Self {
            wanted: pieces.chain(with_cloud_config.then_some(Piece::CloudConfig)).collect(),
            machines: Recent::new(limits::MACHINES_MAX, limits::BOOT_AGE_MAX),
            repeats: HashMap::new(),
            other_complaints: 0,
            minute_ends: None,
            second: Second::default(),
            lines: VecDeque::new(),
        }
    }

    pub fn handle_input(&mut self, now: Duration, event: Event) {
        match event {
            Event::Offered { mac, client } => {
                self.boot_begins(now, mac);
                self.tell(now, Level::Info, format!("DHCP: Offering to boot {mac}"));
                self.tell(now, Level::Debug, format!("DHCP: {mac} is {client}"));
            }
            Event::Acked { mac, to } => {
                self.tell(now, Level::Debug, format!("PXE: Told {mac} at {to} what to load"));
            }
            Event::Ignored { mac, reason } => {
                let of = mac.map_or(Source::Unknown, Source::Mac);
                let text = match mac {
                    Some(mac) => format!("DHCP: Ignoring a request of {mac}: {reason}"),
                    None => format!("DHCP: Ignoring a request: {reason}"),
                };
                self.complain(now, Verb::IgnoredDhcp, of, &reason, Level::Info, text);
            }
            Event::TftpSent { name, to, .. } => {
                self.tell(now, Level::Info, format!("TFTP: Sent {name:?} to {to}"));
            }
            Event::TftpFailed { name, to, reason } => {
                let text = match &name[..] {
                    "" => format!("TFTP: Ignoring a packet of {to}: {reason}"),
                    name => format!("TFTP: Sending {name:?} to {to} failed: {reason}"),
                };
                self.complain(now, Verb::FailedTftp, Source::Address(to.ip()), &reason, Level::Info, text);
            }
            Event::ScriptSent { mac, to, by } => {
                self.tell(now, Level::Info, format!("{by}: Sending ipxe boot script to {to}"));
                let address = Some(to.ip());
                if std::mem::replace(&mut self.machine(now, mac).address, address) != address {
                    self.tell(now, Level::Info, format!("{mac}: has the address {}", to.ip()));
                }
            }
            Event::FileSent { mac, piece, to, .. } => {
                self.tell(now, Level::Info, format!("HTTP: Sent file \"{}\" to {to}", piece.log_name()));
                self.has(now, mac, piece);
            }
            Event::FileBroken { mac, piece, to, sent, size, reason } => {
                let (sent, size) = (ByteSize(sent), ByteSize(size));
                let name = piece.log_name();
                let text = format!("HTTP: Sending file \"{name}\" to {to} ended after {sent} of {size}: {reason}");
                self.complain(now, Verb::BrokenHttp, Source::Mac(mac), &reason, Level::Warn, text);
            }
            Event::DownloadSent { name, to, .. } => {
                self.tell(now, Level::Info, format!("HTTP: Sent {name:?} to {to}"));
            }
            Event::DownloadBroken { name, to, sent, size, reason } => {
                let (sent, size) = (ByteSize(sent), ByteSize(size));
                let text = format!("HTTP: Sending {name:?} to {to} ended after {sent} of {size}: {reason}");
                self.complain(now, Verb::BrokenHttp, Source::Address(to.ip()), &reason, Level::Info, text);
            }
            Event::Refused { to, reason } => {
                let text = format!("HTTP: Refused a request of {to}: {reason}");
                self.complain(now, Verb::RefusedHttp, Source::Address(to.ip()), &reason, Level::Info, text);
            }
            Event::Serving { .. } => {} // what changed was told
            Event::News { what } => self.tell(now, Level::Info, what.into_owned()),
            Event::Trouble { what } => {
                self.complain(now, Verb::Trouble, Source::Unknown, &what, Level::Warn, what.to_string());
            }
            Event::Lost { events } => {
                self.tell(now, Level::Warn, format!("{events} events came faster than they could be logged"));
            }
        }
    }

    /// The next line to write.
    pub fn poll_output(&mut self) -> Option<Line> {
        self.lines.pop_front()
    }

    /// When [`Journal::handle_timeout`] has something to tell.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let second = (self.second.left_out > 0).then_some(self.second.ends);
        self.minute_ends.into_iter().chain(second).min()
    }

    /// Tells the counts that are due.
    pub fn handle_timeout(&mut self, now: Duration) {
        if now >= self.second.ends {
            let left_out = std::mem::take(&mut self.second.left_out);
            if left_out > 0 {
                self.tell(now, Level::Warn, format!("{left_out} more lines were left out"));
            }
        }
        if self.minute_ends.is_some_and(|ends| now >= ends) {
            self.tell_counts(now);
        }
    }

    fn tell_counts(&mut self, now: Duration) {
        let mut lines = Vec::new();
        self.repeats.retain(|complaint, repeats| {
            if repeats.count > 0 {
                lines.push(format!(
                    "{complaint}, {} more time{}",
                    repeats.count,
                    if repeats.count == 1 { "" } else { "s" }
                ));
                repeats.count = 0;
                return true;
            }
            now.saturating_sub(repeats.since) < limits::COMPLAINT_INTERVAL
        });
        lines.sort_unstable();
        if self.other_complaints > 0 {
            lines.push(format!("{} more requests of other machines were ignored or failed", self.other_complaints));
            self.other_complaints = 0;
        }
        for line in lines {
            self.tell(now, Level::Info, line);
        }
        self.minute_ends = (!self.repeats.is_empty()).then_some(now + limits::COMPLAINT_INTERVAL);
    }

    /// The first time it is a line, then it is counted.
    fn complain(&mut self, now: Duration, verb: Verb, of: Source, reason: &str, level: Level, text: String) {
        let complaint = Complaint { verb, of, reason: reason.to_owned() };
        self.minute_ends.get_or_insert(now + limits::COMPLAINT_INTERVAL);
        if let Some(repeats) = self.repeats.get_mut(&complaint) {
            repeats.count += 1;
        } else if self.repeats.len() < limits::COMPLAINTS_MAX {
            self.repeats.insert(complaint, Repeats { since: now, count: 0 });
            self.tell(now, level, text);
        } else {
            self.other_complaints += 1;
        }
    }

    fn tell(&mut self, now: Duration, level: Level, text: String) {
        if now >= self.second.ends && self.second.left_out == 0 {
            self.second = Second { ends: now + Duration::from_secs(1), ..Second::default() };
        }
        if self.second.lines >= limits::LOG_LINES_PER_SECOND_MAX {
            self.second.left_out += 1;
        } else {
            self.second.lines += 1;
            self.lines.push_back(Line { level, text });
        }
    }

    fn machine(&mut self, now: Duration, mac: MacAddr) -> &mut Machine {
        self.machines.renew(now, mac, || Machine { since: now, address: None, has: BTreeSet::new() })
    }

    /// An OFFER to a machine that has fetched something is the beginning of its next boot; before that it is one of the several
    /// that firmware and iPXE ask for on the way.
    fn boot_begins(&mut self, now: Duration, mac: MacAddr) {
        let machine = self.machine(now, mac);
        if !machine.has.is_empty() {
            *machine = Machine { since: now, address: None, has: BTreeSet::new() };
        }
    }

    fn has(&mut self, now: Duration, mac: MacAddr, piece: Piece) {
        if !self.wanted.contains(&piece) {
            return;
        }
        let wanted = self.wanted.clone();
        let machine = self.machine(now, mac);
        let news = machine.has.insert(piece);
        if news && machine.has == wanted {
            let seconds = now.saturating_sub(machine.since).as_secs();
            let pieces: Vec<&str> = wanted.iter().map(|piece| piece.what()).collect();
            self.tell(now, Level::Info, format!("{mac}: has everything after {seconds} s: {}", pieces.join(", ")));
        }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.verb {
            Verb::IgnoredDhcp => "DHCP: Ignored requests",
            Verb::RefusedHttp => "HTTP: Refused requests",
            Verb::FailedTftp => "TFTP: Failed transfers",
            Verb::BrokenHttp => "HTTP: Broken transfers",
            Verb::Trouble => "Again",
        })?;
        match self.of {
            Source::Mac(mac) => write!(f, " of {mac}")?,
            Source::Address(address) => write!(f, " of {address}")?,
            Source::Unknown => {}
        }
        write!(f, ": {}", self.reason)
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

    fn client(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 168, 68, 113], port))
    }

    fn drain(journal: &mut Journal) -> Vec<String> {
        std::iter::from_fn(|| journal.poll_output())
            .filter(|line| line.level <= Level::Info)
            .map(|line| line.text)
            .collect()
    }

    fn lines(journal: &mut Journal, seconds: u64, event: Event) -> Vec<String> {
        journal.handle_input(at(seconds), event);
        drain(journal)
    }

    fn offered(mac: MacAddr) -> Event {
        Event::Offered { mac, client: "UEFI x64".into() }
    }

    fn sent(piece: Piece) -> Event {
        Event::FileSent { mac: MAC, piece, to: client(45435), bytes: 5, took: at(1) }
    }

    fn ignored(mac: Option<MacAddr>, reason: &'static str) -> Event {
        Event::Ignored { mac, reason: reason.into() }
    }

    #[test]
    fn a_boot_reads_as_it_always_did_and_ends_with_a_summary() {
        let mut journal = Journal::new(true);
        let journal = &mut journal;
        assert_eq!(lines(journal, 0, offered(MAC)), ["DHCP: Offering to boot 08:00:27:54:1a:d1"]);
        let name = "08:00:27:54:1a:d1/undionly.kpxe".to_owned();
        let tftp = Event::TftpSent { name, to: client(6489), bytes: 100, took: at(0) };
        assert_eq!(lines(journal, 0, tftp), ["TFTP: Sent \"08:00:27:54:1a:d1/undionly.kpxe\" to 192.168.68.113:6489"]);
        assert_eq!(lines(journal, 6, offered(MAC)), ["DHCP: Offering to boot 08:00:27:54:1a:d1"]);
        let script = Event::ScriptSent { mac: MAC, to: client(45435), by: Protocol::Http };
        assert_eq!(
            lines(journal, 6, script.clone()),
            [
                "HTTP: Sending ipxe boot script to 192.168.68.113:45435",
                "08:00:27:54:1a:d1: has the address 192.168.68.113"
            ]
        );
        assert_eq!(lines(journal, 6, script), ["HTTP: Sending ipxe boot script to 192.168.68.113:45435"]);
        assert_eq!(lines(journal, 7, sent(Piece::Kernel)), ["HTTP: Sent file \"kernel\" to 192.168.68.113:45435"]);
        assert_eq!(lines(journal, 8, sent(Piece::Initrd)), ["HTTP: Sent file \"initrd-0\" to 192.168.68.113:45435"]);
        assert_eq!(lines(journal, 13, sent(Piece::Rootfs)), ["HTTP: Sent file \"other-0\" to 192.168.68.113:45435"]);
        assert_eq!(
            lines(journal, 14, sent(Piece::CloudConfig)),
            [
                "HTTP: Sent file \"other-1\" to 192.168.68.113:45435",
                "08:00:27:54:1a:d1: has everything after 14 s: kernel, initrd, image, cloud config"
            ]
        );
        assert_eq!(lines(journal, 15, sent(Piece::CloudConfig)).len(), 1, "the agent reads it again");
    }

    #[test]
    fn downloads_by_people_have_their_name_in_the_log() {
        let mut journal = Journal::new(false);
        let (name, to) = (std::sync::Arc::from("kairos.iso.custom.iso"), client(567));
        let sent = Event::DownloadSent { name: std::sync::Arc::clone(&name), to, bytes: 5, took: at(1) };
        assert_eq!(lines(&mut journal, 0, sent), ["HTTP: Sent \"kairos.iso.custom.iso\" to 192.168.68.113:567"]);
        let broken = Event::DownloadBroken { name, to, sent: 5_000, size: 9_000, reason: "the client left".into() };
        let line = "HTTP: Sending \"kairos.iso.custom.iso\" to 192.168.68.113:567 ended after 5.0 kB of 9.0 kB: the client left";
        assert_eq!(lines(&mut journal, 1, broken.clone()), [line]);
        assert!(lines(&mut journal, 2, broken).is_empty(), "a browser that tries again and again is counted");
    }

    #[test]
    fn the_next_boot_is_counted_from_its_own_offer() {
        let mut journal = Journal::new(false);
        let boot = |journal: &mut Journal, start: u64| {
            lines(journal, start, offered(MAC));
            lines(journal, start + 1, sent(Piece::Kernel));
            lines(journal, start + 2, sent(Piece::Initrd));
            lines(journal, start + 9, sent(Piece::Rootfs)).pop().unwrap()
        };
        let summary = "08:00:27:54:1a:d1: has everything after 9 s: kernel, initrd, image";
        assert_eq!(boot(&mut journal, 0), summary);
        assert_eq!(boot(&mut journal, 100), summary);
    }

    #[test]
    fn complaints_are_told_once_and_then_counted_each_minute() {
        let mut journal = Journal::new(false);
        let journal = &mut journal;
        let first = lines(journal, 0, ignored(Some(MAC), "it is on the deny list"));
        assert_eq!(first, ["DHCP: Ignoring a request of 08:00:27:54:1a:d1: it is on the deny list"]);
        for second in 1..5 {
            assert!(lines(journal, second, ignored(Some(MAC), "it is on the deny list")).is_empty());
        }
        assert_eq!(lines(journal, 5, ignored(None, "too short")), ["DHCP: Ignoring a request: too short"]);
        assert_eq!(journal.next_deadline(), Some(at(60)));
        journal.handle_timeout(at(60));
        let count = "DHCP: Ignored requests of 08:00:27:54:1a:d1: it is on the deny list, 4 more times";
        assert_eq!(drain(journal), [count]);
        assert_eq!(journal.next_deadline(), Some(at(120)));
        journal.handle_timeout(at(120));
        assert_eq!(journal.next_deadline(), None, "nothing is left to count");
        assert_eq!(lines(journal, 121, ignored(Some(MAC), "it is on the deny list")).len(), 1);
    }

    #[test]
    fn a_broken_transfer_says_how_far_it_came() {
        let mut journal = Journal::new(false);
        let reason = "the client left".into();
        let (sent, size) = (123_400_000, 700_000_000);
        let event = Event::FileBroken { mac: MAC, piece: Piece::Rootfs, to: client(7), sent, size, reason };
        let line =
            "HTTP: Sending file \"other-0\" to 192.168.68.113:7 ended after 123.4 MB of 700.0 MB: the client left";
        assert_eq!(lines(&mut journal, 0, event), [line]);
    }

    #[test]
    fn names_of_strangers_cannot_forge_lines() {
        let mut journal = Journal::new(false);
        let name = "x\n2023/02/08 14:27:30 DHCP: \u{1b}[2J".to_owned();
        let event = Event::TftpFailed { name, to: client(1), reason: "no such file".into() };
        let told = lines(&mut journal, 0, event);
        assert!(told[0].chars().all(|c| !c.is_control()), "{told:?}");
    }

    #[test]
    fn strangers_cannot_fill_the_memory_or_the_log() {
        let mut journal = Journal::new(false);
        let mac = |n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            MacAddr([2, 0, a, b, c, d])
        };
        let mut told = 0;
        for n in 0..100_000 {
            told += lines(&mut journal, 0, offered(mac(n))).len();
            told += lines(&mut journal, 0, ignored(Some(mac(n)), "no")).len();
        }
        assert!(told <= limits::LOG_LINES_PER_SECOND_MAX as usize, "{told}");
        assert!(journal.machines.len() <= limits::MACHINES_MAX);
        assert_eq!(journal.repeats.len(), limits::COMPLAINTS_MAX);
        assert_eq!(journal.next_deadline(), Some(at(1)));
        journal.handle_timeout(at(1));
        let left_out = drain(&mut journal);
        assert!(left_out.len() == 1 && left_out[0].ends_with("more lines were left out"), "{left_out:?}");
        journal.handle_timeout(at(60));
        let others = 100_000 - limits::COMPLAINTS_MAX;
        let line = format!("{others} more requests of other machines were ignored or failed");
        assert_eq!(drain(&mut journal), [line]);
    }
}
