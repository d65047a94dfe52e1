//! One transfer: the sender's side of RFC 1350 with the windows of RFC 7440.
//!
//! Blocks are counted with 64 bits and only written to the wire with 16, so a file may be of any length. Any block can be
//! read again from its source, so nothing is buffered. Only a new ACK or the timer makes the sender send: a repeated ACK
//! never does, or each duplicate on the network would double all later packets (the Sorcerer's Apprentice bug of RFC 783).

use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use super::Content;
use super::options::Terms;
use super::packet::{DATA_HEADER_LEN, ErrorCode, Packet, emit_data_header};
use crate::limits::{
    TFTP_BURST_BYTES_MAX, TFTP_GIVE_UP, TFTP_GIVE_UP_FINAL, TFTP_RESEND_FIRST, TFTP_RESEND_LONGEST,
    TFTP_RESEND_SOONEST, TFTP_WINDOW_BLOCKS_MAX,
};

/// Bytes that can be read at any offset. Reads happen on the network loop: memory, or a file's cached pages.
#[allow(clippy::len_without_is_empty)] // an empty file is served as any other
pub trait Source: Send + Sync {
    /// Length in bytes; stays the same.
    fn len(&self) -> u64;

    /// Fills all of `buf` from `offset`.
    ///
    /// # Errors
    /// The transfer ends and its client is told.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// All blocks are with the client, or sent and not asked for again.
    Sent,
    /// The client wanted to know size or existence, and stopped by an ERROR before it took any data to speak of.
    Probed,
    Failed(Failure),
}

/// Why a transfer failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no answer for {0} s")]
    Silent(u64),
    #[error("the client stopped it: error {code} {message:?}")]
    Client { code: u16, message: String },
    #[error("the client closed its port")]
    Gone,
    #[error("reading at byte {offset}: {kind}")]
    Read { offset: u64, kind: io::ErrorKind },
    #[error("no socket for it: {0}")]
    Socket(io::ErrorKind),
    #[error("the client began another one")]
    Replaced,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The OACK waits for ACK 0 (RFC 2347).
    Negotiating,
    Sending,
}

/// State of one transfer; blocks count from 1.
pub struct Transfer {
    source: Content,
    terms: Terms,
    phase: Phase,
    started_at: Instant,
    /// The final block, which is shorter than the others and may be empty.
    last: u64,
    /// All blocks up to this one are acknowledged.
    acked: u64,
    /// The block to send next.
    next: u64,
    /// The highest block ever sent.
    sent: u64,
    /// The OACK is to be sent.
    oack_due: bool,
    timer: Timer,
}

/// When to send again, and when to give up.
#[derive(Debug)]
struct Timer {
    resend_at: Option<Instant>,
    /// The interval that `resend_at` was set with; grows with each resend.
    interval: Duration,
    /// The interval to begin with, fixed by the client or learnt from round trips.
    first: Duration,
    fixed: bool,
    progress_at: Instant,
    /// Smoothed round trip, and the packet being measured: its block and when it left.
    round_trip: Option<Duration>,
    measured: Option<(u64, Instant)>,
}

impl Transfer {
    #[must_use]
    pub fn new(now: Instant, source: Content, terms: Terms) -> Self {
        let phase = if terms.has_oack() { Phase::Negotiating } else { Phase::Sending };
        Self {
            phase,
            started_at: now,
            last: source.len() / u64::from(terms.block_size) + 1,
            acked: 0,
            next: 1,
            sent: 0,
            oack_due: phase == Phase::Negotiating,
            timer: Timer::new(now, terms.timeout),
            source,
            terms,
        }
    }

    /// The length of the file.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.source.len()
    }

    /// When the transfer began.
    #[must_use]
    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    /// When the client was last heard with something new.
    #[must_use]
    pub fn progress_at(&self) -> Instant {
        self.timer.progress_at
    }

    /// Whether the client has answered at all.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.phase == Phase::Sending && (self.acked > 0 || self.terms.has_oack())
    }

    pub fn handle_packet(&mut self, now: Instant, packet: &Packet<'_>) -> Option<End> {
        match packet {
            Packet::Ack(number) => self.handle_ack(now, *number),
            Packet::Error { code, message } => Some(self.stopped(*code, message)),
            // Nothing else makes sense on a transfer's port, and no answer would help.
            Packet::Read(_) | Packet::Write(_) | Packet::Data | Packet::OptionAck => None,
        }
    }

    /// The client's host said that its port is closed (ICMP port unreachable).
    #[must_use]
    pub fn handle_gone(&self) -> End {
        match self.sent {
            sent if sent >= self.last => End::Sent,
            0 | 1 => End::Probed,
            _ => End::Failed(Failure::Gone),
        }
    }

    /// Sends again what is not acknowledged, or gives up.
    pub fn handle_timeout(&mut self, now: Instant) -> Option<End> {
        if now >= self.give_up_at() {
            let silence = now.saturating_duration_since(self.timer.progress_at).as_secs();
            return Some(if self.sent >= self.last { End::Sent } else { End::Failed(Failure::Silent(silence)) });
        }
        if self.timer.resend_at.is_some_and(|at| now >= at) {
            self.timer.back_off();
            self.resend();
        }
        None
    }

    /// The request came once more before anything was acknowledged: its first answer was lost.
    pub fn resend(&mut self) {
        self.oack_due = self.phase == Phase::Negotiating;
        self.next = self.acked + 1;
        self.timer.measured = None;
        self.timer.resend_at = None;
    }

    #[must_use]
    pub fn next_deadline(&self) -> Instant {
        let give_up_at = self.give_up_at();
        self.timer.resend_at.map_or(give_up_at, |at| at.min(give_up_at))
    }

    /// Whether [`Transfer::poll_output`] has something.
    #[must_use]
    pub fn has_output(&self) -> bool {
        match self.phase {
            Phase::Negotiating => self.oack_due,
            Phase::Sending => self.next <= self.window_end(),
        }
    }

    /// Appends the next datagrams: all of the length returned, only the last may be shorter.
    ///
    /// # Errors
    /// The [`Failure`] that ends the transfer.
    pub fn poll_output(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<Option<usize>, Failure> {
        if !self.has_output() {
            return Ok(None);
        }
        match self.phase {
            Phase::Negotiating => {
                self.oack_due = false;
                self.terms.emit_oack(out);
                self.timer.start(now, None);
                Ok(Some(out.len()))
            }
            Phase::Sending => {
                // Karn: a round trip counts only when nothing in it was sent twice.
                let is_new = self.next > self.sent;
                let datagram_len = self.emit_burst(out)?;
                self.timer.start(now, is_new.then_some(self.sent));
                Ok(Some(datagram_len))
            }
        }
    }

    fn emit_burst(&mut self, out: &mut Vec<u8>) -> Result<usize, Failure> {
        let block_size = usize::from(self.terms.block_size);
        let datagram_len = DATA_HEADER_LEN + block_size;
        let datagrams = (TFTP_BURST_BYTES_MAX / datagram_len).clamp(1, usize::from(TFTP_WINDOW_BLOCKS_MAX));
        let end = self.window_end().min(self.next - 1 + datagrams as u64);
        while self.next <= end {
            let offset = (self.next - 1) * u64::from(self.terms.block_size);
            let left = self.source.len().saturating_sub(offset);
            let len = usize::try_from(left).map_or(block_size, |left| left.min(block_size));
            emit_data_header(self.wire_number(self.next), out);
            let payload = out.len();
            out.resize(payload + len, 0);
            let read = self.source.read_at(offset, &mut out[payload..]);
            read.map_err(|error| Failure::Read { offset, kind: error.kind() })?;
            self.sent = self.sent.max(self.next);
            self.next += 1;
        }
        Ok(datagram_len)
    }

    fn handle_ack(&mut self, now: Instant, number: u16) -> Option<End> {
        if self.phase == Phase::Negotiating {
            if number == 0 {
                self.phase = Phase::Sending;
                self.timer.progress(now, 0);
            }
            return None;
        }
        // Anything outside of what is in flight is old, doubled or invented.
        let block = (self.acked + 1..=self.sent).rev().find(|&block| self.wire_number(block) == number)?;
        self.acked = block;
        // An ACK inside of the window says that the block after it is missing (RFC 7440 §4): go on from there.
        self.next = block + 1;
        self.timer.progress(now, block);
        (block == self.last).then_some(End::Sent)
    }

    fn stopped(&self, code: ErrorCode, message: &[u8]) -> End {
        if self.acked == 0 && self.sent <= 1 {
            // EDK2 ends its size probe by ERROR 8, Intel's ROM by ERROR 0, the Raspberry Pi's after block 1.
            return End::Probed;
        }
        let message = super::name::printable(message);
        End::Failed(Failure::Client { code: code.0, message })
    }

    fn window_end(&self) -> u64 {
        self.last.min(self.acked + u64::from(self.terms.window))
    }

    /// The number on the wire of a block: 16 bits, and after 65535 comes 0, or 1 for clients that asked so.
    fn wire_number(&self, block: u64) -> u16 {
        let rollover = u64::from(self.terms.rollover);
        let number = if block <= 0xffff { block } else { (block - rollover) % (0x1_0000 - rollover) + rollover };
        u16::try_from(number).unwrap_or_default()
    }

    fn give_up_at(&self) -> Instant {
        let wait = if self.sent >= self.last { TFTP_GIVE_UP_FINAL } else { TFTP_GIVE_UP };
        // A client that dictates a longer interval gets at least a few resends.
        self.timer.progress_at + if self.timer.fixed { wait.max(self.timer.first * 4) } else { wait }
    }
}

impl fmt::Debug for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Transfer {{ {:?}, {}..{} of {} }}", self.phase, self.acked, self.sent, self.last)
    }
}

impl Timer {
    fn new(now: Instant, dictated: Option<Duration>) -> Self {
        let first = dictated.unwrap_or(TFTP_RESEND_FIRST);
        Self {
            resend_at: None,
            interval: first,
            first,
            fixed: dictated.is_some(),
            progress_at: now,
            round_trip: None,
            measured: None,
        }
    }

    /// Something left; its round trip is measured by the ACK of `block`.
    fn start(&mut self, now: Instant, block: Option<u64>) {
        self.resend_at = Some(now + self.interval);
        self.measured = self.measured.or(block.map(|block| (block, now)));
    }

    fn back_off(&mut self) {
        // Not doubled: at 30 % loss both ways, a block must survive some twenty tries within the patience of firmware.
        self.interval = (self.interval * 3 / 2).min(TFTP_RESEND_LONGEST.max(self.first));
    }

    /// The client acknowledged `block`, which is news.
    fn progress(&mut self, now: Instant, block: u64) {
        self.progress_at = now;
        self.resend_at = None;
        if let Some((measured, left_at)) = self.measured.take()
            && block >= measured
        {
            let trip = now.saturating_duration_since(left_at);
            let smoothed = self.round_trip.map_or(trip, |smoothed| (smoothed * 7 + trip) / 8);
            self.round_trip = Some(smoothed);
            if !self.fixed {
                // The client's own work (flash, a slow console) is in the round trip; four of them leave it room.
                self.first = (smoothed * 4).clamp(TFTP_RESEND_SOONEST, TFTP_RESEND_FIRST);
            }
        }
        self.interval = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    struct Trace {
        transfer: Transfer,
        start: Instant,
    }

    fn trace(len: usize, options: &str) -> Trace {
        let bytes: Arc<[u8]> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let request =
            format!("\0\x01f\0octet\0{}", options.replace(' ', "\0") + if options.is_empty() { "" } else { "\0" });
        let Ok(Packet::Read(request)) = Packet::parse(request.as_bytes()) else { panic!("{options}") };
        let terms = Terms::negotiate(&request, len as u64, 1500);
        let start = Instant::now();
        Trace { transfer: Transfer::new(start, Arc::new(bytes), terms), start }
    }

    impl Trace {
        fn at(&self, ms: u64) -> Instant {
            self.start + Duration::from_millis(ms)
        }

        /// All that leaves now: `OACK`, or the block numbers.
        fn out(&mut self, ms: u64) -> String {
            let (now, mut shown) = (self.at(ms), Vec::new());
            let mut bytes = Vec::new();
            while let Some(datagram_len) = self.transfer.poll_output(now, &mut bytes).unwrap() {
                shown.extend(bytes.chunks(datagram_len).map(|datagram| match datagram[1] {
                    6 => "OACK".to_owned(),
                    _ => u16::from_be_bytes([datagram[2], datagram[3]]).to_string(),
                }));
                bytes.clear();
            }
            shown.join(" ")
        }

        fn ack(&mut self, ms: u64, number: u16) -> Option<End> {
            let now = self.at(ms);
            self.transfer.handle_packet(now, &Packet::Ack(number))
        }

        fn error(&mut self, ms: u64, code: u16) -> Option<End> {
            let now = self.at(ms);
            self.transfer.handle_packet(now, &Packet::Error { code: ErrorCode(code), message: b"stop" })
        }

        fn deadline_ms(&self) -> u128 {
            self.transfer.next_deadline().duration_since(self.start).as_nanos().div_ceil(1_000_000)
        }

        /// Runs the timers until the transfer ends: when each resend happened, and the end.
        fn silence(&mut self) -> (Vec<u128>, End) {
            let mut resends = Vec::new();
            loop {
                let ms = self.deadline_ms();
                let now = self.at(u64::try_from(ms).unwrap());
                if let Some(end) = self.transfer.handle_timeout(now) {
                    return (resends, end);
                }
                if !self.out(u64::try_from(ms).unwrap()).is_empty() {
                    resends.push(ms);
                }
            }
        }
    }

    #[test]
    fn lock_step_without_options() {
        let mut t = trace(1200, "");
        assert_eq!(t.out(0), "1");
        assert_eq!(t.out(0), "", "one block until it is acknowledged");
        assert_eq!((t.ack(1, 1), t.out(1)), (None, "2".into()));
        assert_eq!((t.ack(2, 2), t.out(2)), (None, "3".into()));
        assert_eq!(t.ack(3, 3), Some(End::Sent));
    }

    #[test]
    fn the_final_block_is_shorter_even_if_empty() {
        for (len, blocks) in [(0, 1), (511, 1), (512, 2), (1024, 3)] {
            let mut t = trace(len, "");
            for block in 1..=blocks {
                assert_eq!(t.out(0), block.to_string(), "{len}");
                assert_eq!(t.ack(0, block), (block == blocks).then_some(End::Sent), "{len}");
            }
        }
    }

    #[test]
    fn options_are_agreed_before_data() {
        let mut t = trace(1200, "blksize 512 windowsize 2");
        assert_eq!(t.out(0), "OACK");
        assert_eq!((t.ack(1, 1), t.out(1)), (None, String::new()), "nothing was sent that this could acknowledge");
        assert_eq!((t.ack(2, 0), t.out(2)), (None, "1 2".into()));
        assert_eq!((t.ack(3, 0), t.out(3)), (None, String::new()), "a second ACK 0 starts nothing");
        assert_eq!((t.ack(4, 2), t.out(4)), (None, "3".into()));
        assert_eq!(t.ack(5, 3), Some(End::Sent));
    }

    #[test]
    fn a_repeated_ack_is_never_answered() {
        let mut t = trace(5000, "");
        assert_eq!(t.out(0), "1");
        assert_eq!((t.ack(1, 1), t.out(1)), (None, "2".into()));
        for number in [1, 0, 3, 65535] {
            assert_eq!((t.ack(2, number), t.out(2)), (None, String::new()), "{number}");
        }
        assert_eq!((t.ack(3, 2), t.out(3)), (None, "3".into()));
    }

    #[test]
    fn an_ack_inside_of_the_window_goes_back() {
        let mut t = trace(100_000, "windowsize 4");
        assert_eq!((t.out(0), t.ack(0, 0), t.out(0)), ("OACK".into(), None, "1 2 3 4".into()));
        assert_eq!((t.ack(1, 2), t.out(1)), (None, "3 4 5 6".into()), "3 was lost");
        assert_eq!((t.ack(1, 2), t.out(1)), (None, String::new()), "EDK2 tells a gap once for each later block");
        assert_eq!((t.ack(2, 1), t.out(2)), (None, String::new()), "late");
        assert_eq!((t.ack(3, 4), t.out(3)), (None, "5 6 7 8".into()), "reordered: 4 came after all");
        assert_eq!((t.ack(4, 8), t.out(4)), (None, "9 10 11 12".into()));
    }

    #[test]
    fn the_timer_resends_the_window_and_backs_off_until_it_gives_up() {
        let mut t = trace(100_000, "windowsize 4");
        assert_eq!((t.out(0), t.ack(0, 0), t.out(0)), ("OACK".into(), None, "1 2 3 4".into()));
        let (resends, end) = t.silence();
        let every_two_seconds = (4500..30_000).step_by(2000);
        assert_eq!(resends, [1000, 2500].into_iter().chain(every_two_seconds).collect::<Vec<u128>>());
        assert_eq!(end, End::Failed(Failure::Silent(30)));
        assert_eq!(t.deadline_ms(), 30_000);
    }

    #[test]
    fn round_trips_shorten_the_timer_and_resent_blocks_do_not_count() {
        let mut t = trace(100_000, "");
        t.out(0);
        t.ack(10, 1);
        t.out(10);
        assert_eq!(t.deadline_ms(), 210, "four round trips of 10 ms, but not sooner than 200 ms");
        t.transfer.handle_timeout(t.at(210));
        assert_eq!((t.out(210), t.deadline_ms()), ("2".into(), 510));
        t.ack(500, 2); // to either copy
        t.out(500);
        assert_eq!(t.deadline_ms(), 700);
    }

    #[test]
    fn a_dictated_timeout_is_kept() {
        let mut t = trace(100_000, "timeout 10");
        assert_eq!(t.out(0), "OACK");
        let (resends, end) = t.silence();
        assert_eq!(
            (resends, end),
            (vec![10_000, 20_000, 30_000], End::Failed(Failure::Silent(40))),
            "RFC 2349: as asked"
        );
        let mut t = trace(100_000, "timeout 255");
        t.out(0);
        assert_eq!(t.silence().0, [255_000, 510_000, 765_000]);
    }

    #[test]
    fn a_missing_final_ack_is_no_failure() {
        let mut t = trace(600, "");
        t.out(0);
        t.ack(1, 1);
        t.out(1);
        let (resends, end) = t.silence();
        assert!(resends.len() >= 5 && end == End::Sent, "{resends:?} {end:?}");
        assert_eq!(t.transfer.handle_gone(), End::Sent);
    }

    #[test]
    fn an_error_ends_a_probe_or_a_transfer() {
        for code in [0, 8] {
            let mut t = trace(100_000, "tsize 0 blksize 1468");
            assert_eq!((t.out(0), t.error(1, code)), ("OACK".into(), Some(End::Probed)));
        }
        let mut t = trace(100_000, "");
        assert_eq!((t.out(0), t.error(1, 0)), ("1".into(), Some(End::Probed)), "Raspberry Pi");
        let mut t = trace(100_000, "");
        assert_eq!((t.out(0), t.ack(1, 1), t.out(1)), ("1".into(), None, "2".into()));
        assert_eq!(t.transfer.handle_gone(), End::Failed(Failure::Gone));
        let failure = Failure::Client { code: 3, message: "stop".into() };
        assert_eq!(failure.to_string(), "the client stopped it: error 3 \"stop\"");
        assert_eq!(t.error(2, 3), Some(End::Failed(failure)));
    }

    #[test]
    fn block_numbers_roll_over_to_0_or_1() {
        for (options, after) in [("blksize 8 windowsize 64", 0), ("blksize 8 windowsize 64 rollover 1", 1)] {
            let mut t = trace(8 * 140_000, options);
            t.out(0);
            t.ack(0, 0);
            let (mut expected, mut seen) = (1_u16, 0);
            let end = loop {
                let sent = t.out(0);
                let numbers: Vec<u16> = sent.split(' ').map(|number| number.parse().unwrap()).collect();
                for &number in &numbers {
                    assert_eq!(number, expected, "block {seen}");
                    expected = expected.checked_add(1).unwrap_or(after);
                    seen += 1;
                }
                if let Some(end) = t.ack(0, *numbers.last().unwrap()) {
                    break end;
                }
            };
            assert_eq!((end, seen), (End::Sent, 140_001));
        }
    }

    #[test]
    fn a_source_that_fails_ends_the_transfer() {
        struct Broken;
        impl Source for Broken {
            fn len(&self) -> u64 {
                10_000_000_000
            }
            fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
                Err(io::ErrorKind::UnexpectedEof.into())
            }
        }
        let mut transfer = Transfer::new(Instant::now(), Arc::new(Broken), Terms::default());
        let failure = transfer.poll_output(Instant::now(), &mut Vec::new()).unwrap_err();
        assert_eq!(failure, Failure::Read { offset: 0, kind: io::ErrorKind::UnexpectedEof });
    }
}
