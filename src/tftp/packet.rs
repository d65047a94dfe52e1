//! TFTP packets as bytes: parsed views and emitters (RFC 1350 §5, RFC 2347).
//!
//! Knows nothing of transfers or of what an option means.

use std::fmt;

/// Bytes in front of the payload of a DATA packet: opcode and block number.
pub const DATA_HEADER_LEN: usize = 4;

const RRQ: u16 = 1;
const WRQ: u16 = 2;
const DATA: u16 = 3;
const ACK: u16 = 4;
const ERROR: u16 = 5;
const OACK: u16 = 6;

/// What a server may receive; the payloads of DATA and OACK are of no interest to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    Read(Request<'a>),
    Write(Request<'a>),
    Data,
    Ack(u16),
    Error { code: ErrorCode, message: &'a [u8] },
    OptionAck,
}

/// A read or write request (RFC 1350 §5, figure 5-1; options as RFC 2347 appends them).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// As sent: not cleaned, not necessarily UTF-8.
    pub name: &'a [u8],
    /// `octet`, `netascii` or `mail` in any case.
    pub mode: &'a [u8],
    options: &'a [u8],
}

/// Why bytes are not a TFTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("{0} bytes are too short for a TFTP packet")]
    Short(usize),
    #[error("opcode {0} is unknown")]
    Opcode(u16),
    #[error("the request's {0} has no end (a zero byte)")]
    Unterminated(&'static str),
}

impl<'a> Packet<'a> {
    /// # Errors
    /// [`ParseError`] when the bytes cannot be a packet; options that make no sense are not errors, they are left out.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let short = ParseError::Short(bytes.len());
        let (opcode, rest) = split_u16(bytes).ok_or(short)?;
        match opcode {
            RRQ => Request::parse(rest).map(Self::Read),
            WRQ => Request::parse(rest).map(Self::Write),
            DATA => Ok(Self::Data),
            ACK => split_u16(rest).map(|(block, _)| Self::Ack(block)).ok_or(short),
            ERROR => {
                let (code, text) = split_u16(rest).ok_or(short)?;
                // Some firmware leaves out the final zero; its message is still worth a log line.
                let message = split_text(text).map_or(text, |(message, _)| message);
                Ok(Self::Error { code: ErrorCode(code), message })
            }
            OACK => Ok(Self::OptionAck),
            other => Err(ParseError::Opcode(other)),
        }
    }
}

impl<'a> Request<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (name, rest) = split_text(bytes).ok_or(ParseError::Unterminated("file name"))?;
        let (mode, options) = split_text(rest).ok_or(ParseError::Unterminated("mode"))?;
        Ok(Self { name, mode, options })
    }

    /// Name and value of each whole option; a last one without its zero byte is left out.
    pub fn options(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let mut rest = self.options;
        std::iter::from_fn(move || {
            let (name, after_name) = split_text(rest)?;
            let (value, after_value) = split_text(after_name)?;
            rest = after_value;
            Some((name, value))
        })
    }
}

/// The error codes of RFC 1350 (appendix) and RFC 2347.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    pub const UNDEFINED: Self = Self(0);
    pub const FILE_NOT_FOUND: Self = Self(1);
    pub const ACCESS_VIOLATION: Self = Self(2);
    pub const ILLEGAL_OPERATION: Self = Self(4);
    pub const UNKNOWN_TRANSFER_ID: Self = Self(5);
    pub const OPTION_NEGOTIATION: Self = Self(8);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error {}", self.0)
    }
}

/// Starts a DATA packet; the caller appends the payload.
pub fn emit_data_header(block: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(&DATA.to_be_bytes());
    out.extend_from_slice(&block.to_be_bytes());
}

/// Appends a whole ERROR packet.
pub fn emit_error(code: ErrorCode, message: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(&ERROR.to_be_bytes());
    out.extend_from_slice(&code.0.to_be_bytes());
    out.extend_from_slice(message.as_bytes());
    out.push(0);
}

/// Appends a whole OACK packet (RFC 2347).
pub fn emit_oack(options: &[(&str, u64)], out: &mut Vec<u8>) {
    out.extend_from_slice(&OACK.to_be_bytes());
    for (name, value) in options {
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.extend_from_slice(value.to_string().as_bytes());
        out.push(0);
    }
}

fn split_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<2>()?;
    Some((u16::from_be_bytes(*first), rest))
}

fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|&byte| byte == 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OVMF's size probe, as its PXE client sends it.
    const PROBE: &[u8] = b"\0\x01snponly.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0";

    #[test]
    fn a_request_comes_apart() {
        let Ok(Packet::Read(request)) = Packet::parse(PROBE) else { panic!("not a read request") };
        assert_eq!((request.name, request.mode), (&b"snponly.efi"[..], &b"octet"[..]));
        let options: Vec<_> = request.options().collect();
        let expected: [(&[u8], &[u8]); 3] = [(b"tsize", b"0"), (b"blksize", b"1468"), (b"windowsize", b"4")];
        assert_eq!(options, expected);
    }

    #[test]
    fn every_truncation_is_an_error_or_a_request_with_fewer_options() {
        let mandatory = b"\0\x01snponly.efi\0octet\0".len();
        for len in 0..PROBE.len() {
            match Packet::parse(&PROBE[..len]) {
                Ok(Packet::Read(request)) => assert!(len >= mandatory && request.options().count() < 3, "{len}"),
                Ok(other) => panic!("{len} bytes parsed as {other:?}"),
                Err(_) => assert!(len < mandatory, "{len}"),
            }
        }
    }

    #[test]
    fn the_small_packets() {
        let parsed = |bytes| Packet::parse(bytes);
        assert_eq!(parsed(b"\0\x04\x12\x34"), Ok(Packet::Ack(0x1234)));
        assert_eq!(parsed(b"\0\x04\x12"), Err(ParseError::Short(3)));
        assert_eq!(parsed(b"\0\x09"), Err(ParseError::Opcode(9)));
        let error = |message| Ok(Packet::Error { code: ErrorCode(8), message });
        assert_eq!(parsed(b"\0\x05\0\x08User aborted\0"), error(&b"User aborted"[..]));
        assert_eq!(parsed(b"\0\x05\0\x08no end"), error(&b"no end"[..]), "firmware that forgets the zero byte");
        assert_eq!(parsed(b"\0\x05\0\x08"), error(&b""[..]));
    }

    #[test]
    fn what_is_emitted_is_what_the_rfc_draws() {
        let mut out = Vec::new();
        emit_data_header(0xfffe, &mut out);
        assert_eq!(out, b"\0\x03\xff\xfe");
        out.clear();
        emit_error(ErrorCode::FILE_NOT_FOUND, "no such file", &mut out);
        assert_eq!(out, b"\0\x05\0\x01no such file\0");
        out.clear();
        emit_oack(&[("blksize", 1468), ("tsize", 5_000_000_000)], &mut out);
        assert_eq!(out, b"\0\x06blksize\x001468\0tsize\x005000000000\0");
    }
}
