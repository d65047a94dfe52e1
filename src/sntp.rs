//! SNTP: one question to a time server, and whether its answer can be believed (RFC 5905 §14, RFC 4330 §5).
//!
//! The question carries nothing but a random number in place of the time; a true server sends it back, which a blind forger cannot
//! (RFC 5905 §8, "originate timestamp").

use std::time::Duration;

use crate::limits;

/// UDP port of NTP.
pub const PORT: u16 = 123;
/// Length of a packet without extensions.
pub const PACKET_LEN: usize = 48;

/// Leap indicator 0, version 4, mode 3 (client).
const CLIENT: u8 = 0b00_100_011;
/// Mode of a server's answer.
const MODE_SERVER: u8 = 4;
/// Leap indicator of a server whose own clock is not set.
const LEAP_UNSYNCHRONISED: u8 = 3;
/// From 1900, where NTP begins, to 1970 (RFC 5905 figure 4).
const SECONDS_TO_1970: u64 = 2_208_988_800;
/// Bits of a timestamp behind the point.
const FRACTION_BITS: u32 = 32;

/// Why the time is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Forged, or late: nothing to tell anybody.
    #[error("not an answer to our question")]
    NotOurs,
    #[error("it asks to be left alone ({})", .0.escape_ascii())]
    KissOfDeath([u8; 4]),
    #[error("its own clock is not set")]
    Unsynchronised,
    #[error("it says nonsense: {0}")]
    Nonsense(&'static str),
    #[error("its time lies before this program was built")]
    BeforeBuild,
    #[error("its time lies too far in the future")]
    TooLate,
}

/// One question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    nonce: [u8; 8],
}

impl Question {
    /// `nonce` is a random number that nobody can guess.
    #[must_use]
    pub const fn new(nonce: u64) -> Self {
        Self { nonce: nonce.to_be_bytes() }
    }

    #[must_use]
    pub fn bytes(&self) -> [u8; PACKET_LEN] {
        let mut bytes = [0; PACKET_LEN];
        bytes[0] = CLIENT;
        bytes[40..].copy_from_slice(&self.nonce);
        bytes
    }

    /// The time since 1970 at the moment the answer came, `round_trip` after the question went.
    ///
    /// `built` is when this program was built: no time before it is believed, and it tells in which of NTP's eras of 136 years we are.
    ///
    /// # Errors
    /// Why the answer is not believed.
    pub fn time(&self, answer: &[u8], round_trip: Duration, built: Duration) -> Result<Duration, Refused> {
        let Some(answer) = answer.first_chunk::<PACKET_LEN>() else { return Err(Refused::NotOurs) };
        let (leap, version, mode) = (answer[0] >> 6, answer[0] >> 3 & 7, answer[0] & 7);
        if answer[24..32] != self.nonce || mode != MODE_SERVER || !(1..=4).contains(&version) {
            return Err(Refused::NotOurs);
        }
        if answer[1] == 0 {
            return Err(Refused::KissOfDeath([answer[12], answer[13], answer[14], answer[15]]));
        }
        if leap == LEAP_UNSYNCHRONISED || answer[1] > 15 {
            return Err(Refused::Unsynchronised);
        }
        check_root(answer)?;
        let received = Timestamp::at(answer, 32, built);
        let sent = Timestamp::at(answer, 40, built);
        if answer[40..] == [0; 8] {
            return Err(Refused::Nonsense("no time"));
        }
        // RFC 5905 §8: half of the way there and back, without what the server took in between.
        let in_server = sent.0.checked_sub(received.0).filter(|took| *took <= round_trip);
        let on_the_way = round_trip - in_server.ok_or(Refused::Nonsense("it took longer than the answer"))?;
        let time = sent.0.saturating_add(on_the_way / 2).checked_sub(Duration::from_secs(SECONDS_TO_1970));
        match time {
            Some(time) if time < built => Err(Refused::BeforeBuild),
            Some(time) if time - built > limits::SNTP_AHEAD_MAX => Err(Refused::TooLate),
            Some(time) => Ok(time),
            None => Err(Refused::BeforeBuild),
        }
    }
}

/// Root delay and dispersion: how wrong the server says it may be itself (RFC 5905 §11.1, `MAXDISP`).
fn check_root(answer: &[u8; PACKET_LEN]) -> Result<(), Refused> {
    let short = |at: usize| u64::from(u32::from_be_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]));
    let distance = Duration::from_secs(1) * (u32::try_from((short(4) / 2 + short(8)) >> 16).unwrap_or(u32::MAX));
    if distance > limits::SNTP_DISTANCE_MAX {
        return Err(Refused::Nonsense("its time may be wrong by many seconds"));
    }
    Ok(())
}

/// A time since 1900, in the era in which it is nearest to the time of the build.
struct Timestamp(Duration);

impl Timestamp {
    fn at(answer: &[u8; PACKET_LEN], at: usize, built: Duration) -> Self {
        const ERA: u64 = 1 << 32;
        let word = |at: usize| u32::from_be_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
        let built = built.as_secs().saturating_add(SECONDS_TO_1970);
        // The distance on the circle of an era, taken as forward up to its half and as backward beyond.
        let ahead = u64::from(word(at)).wrapping_sub(built) % ERA;
        let seconds = if ahead < ERA / 2 { built.saturating_add(ahead) } else { built.saturating_sub(ERA - ahead) };
        let nanoseconds = (u64::from(word(at + 4)) * 1_000_000_000) >> FRACTION_BITS;
        Self(Duration::from_secs(seconds) + Duration::from_nanos(nanoseconds))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-23 06:30:00.
    const BUILT: Duration = Duration::from_secs(1_795_415_400);
    const QUESTION: Question = Question::new(0x0123_4567_89ab_cdef);

    /// A sound answer of a server whose clock is `ahead` of the build, and which took 10 ms.
    fn answer(ahead: i64) -> [u8; PACKET_LEN] {
        let seconds = (BUILT.as_secs() + SECONDS_TO_1970).wrapping_add_signed(ahead) as u32;
        let mut bytes = [0; PACKET_LEN];
        bytes[..4].copy_from_slice(&[0b00_100_100, 2, 6, 0xec]);
        bytes[24..32].copy_from_slice(&QUESTION.nonce);
        bytes[32..36].copy_from_slice(&seconds.to_be_bytes());
        bytes[40..44].copy_from_slice(&seconds.to_be_bytes());
        bytes[44..48].copy_from_slice(&42_949_673_u32.to_be_bytes()); // 10 ms
        bytes
    }

    fn time(bytes: &[u8]) -> Result<Duration, Refused> {
        QUESTION.time(bytes, Duration::from_millis(30), BUILT)
    }

    #[test]
    fn the_time_counts_from_when_the_answer_came() {
        let time = time(&answer(60)).unwrap();
        let expected = BUILT + Duration::from_secs(60) + Duration::from_millis(10 + 10);
        assert!(time.abs_diff(expected) < Duration::from_micros(1), "{time:?}");
    }

    #[test]
    fn a_question_tells_nothing_of_the_asker() {
        let bytes = QUESTION.bytes();
        assert_eq!((bytes[0], &bytes[1..40]), (0x23, &[0; 39][..]));
        assert_eq!(bytes[40..], 0x0123_4567_89ab_cdef_u64.to_be_bytes());
    }

    #[test]
    fn the_era_after_2036_is_understood() {
        let ten_years = 10 * 366 * 86_400;
        let after = answer(ten_years);
        assert!(u32::from_be_bytes(after[40..44].try_into().unwrap()) < 1 << 28, "the count has begun anew");
        assert_eq!(time(&after).unwrap().as_secs(), BUILT.as_secs() + ten_years as u64);
    }

    #[test]
    fn each_reason_not_to_believe_an_answer() {
        let with = |at: usize, bytes: &[u8]| {
            let mut answer = answer(60);
            answer[at..at + bytes.len()].copy_from_slice(bytes);
            time(&answer).unwrap_err()
        };
        assert_eq!(time(&answer(60)[..47]), Err(Refused::NotOurs));
        assert_eq!(with(24, &[9]), Refused::NotOurs);
        assert_eq!(with(0, &[0b00_100_011]), Refused::NotOurs, "a client's");
        assert_eq!(with(0, &[0b00_111_100]), Refused::NotOurs, "version 7");
        assert_eq!(with(1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'R', b'A', b'T', b'E']), Refused::KissOfDeath(*b"RATE"));
        assert_eq!(with(0, &[0b11_100_100]), Refused::Unsynchronised);
        assert_eq!(with(1, &[16]), Refused::Unsynchronised);
        assert!(matches!(with(8, &[0, 17, 0, 0]), Refused::Nonsense(_)));
        assert!(matches!(with(40, &[0; 8]), Refused::Nonsense(_)));
        assert!(matches!(with(44, &[0x40]), Refused::Nonsense(_)), "250 ms of 30");
        assert!(matches!(with(36, &[0x40]), Refused::Nonsense(_)), "sent before it was received");
        assert_eq!(Refused::KissOfDeath(*b"\x1b[2J").to_string(), "it asks to be left alone (\\x1b[2J)");
    }

    #[test]
    fn no_time_before_the_build_nor_far_behind_it() {
        assert_eq!(time(&answer(-1)), Err(Refused::BeforeBuild));
        assert_eq!(time(&answer(-40 * 365 * 86_400)), Err(Refused::BeforeBuild));
        let most = i64::try_from(limits::SNTP_AHEAD_MAX.as_secs()).unwrap();
        assert!(time(&answer(most - 1)).is_ok());
        assert_eq!(time(&answer(most + 1)), Err(Refused::TooLate));
    }

    #[test]
    fn no_byte_of_an_answer_makes_it_panic() {
        for built in [Duration::ZERO, BUILT, Duration::from_secs(u64::MAX)] {
            for at in 0..PACKET_LEN {
                for value in 0..=255 {
                    let mut answer = answer(60);
                    answer[at] = value;
                    let _ = QUESTION.time(&answer, Duration::from_millis(30), built);
                }
            }
        }
    }
}
