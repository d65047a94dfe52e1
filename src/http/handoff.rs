//! A request that a handler behind this server answers: what the handler is told, and what of its answer goes out.
//!
//! The owner sends [`Handoff::to_send`] to the handler, hands in what comes back ([`Handoff::handle_input`]) and, at the end of that
//! stream, takes the response for the client ([`Handoff::finish`]). Nothing of the client's head is passed on as it came: the handler gets
//! a new one that says what was understood, so no header can be smuggled, and no claim about where a request comes from is believed.
//! An answer is passed on when it is complete and not before: a client never sees half of one.

use super::exchange::Answer;
use super::head::{Method, Request};
use super::response;
use crate::limits;
use std::fmt::Write;
use std::net::SocketAddr;

/// Why there is no answer to pass on. The words are for the client and for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    #[error("the answer is longer than this server passes on")]
    TooLong,
    #[error("the answer ended in the middle")]
    Cut,
    #[error("the answer is no HTTP response")]
    Malformed,
}

/// One request with its handler.
#[derive(Debug)]
pub struct Handoff {
    request: Vec<u8>,
    sent: usize,
    answer: Vec<u8>,
    method: Method,
    keep_alive: bool,
}

impl Handoff {
    /// Hands on the `request` of the client at `peer` that came in at the address `local`.
    ///
    /// The handler is always asked with GET, because the answer to HEAD is that of GET without its body (RFC 9110 §9.3.2), and is told to
    /// close, because the end of the stream is then the end of the answer.
    #[must_use]
    pub fn new(request: &Request, peer: SocketAddr, local: SocketAddr) -> Self {
        let mut head = String::from("GET ");
        percent_encode(&mut head, &request.path);
        let host = request.host.clone().unwrap_or_else(|| canonical(local).to_string());
        let peer = peer.ip().to_canonical();
        let _ = write!(head, " HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-For: {peer}\r\nConnection: close\r\n\r\n");
        Self {
            request: head.into_bytes(),
            sent: 0,
            answer: Vec::new(),
            method: request.method,
            keep_alive: request.keep_alive,
        }
    }

    /// What the handler is still to be sent.
    #[must_use]
    pub fn to_send(&self) -> &[u8] {
        &self.request[self.sent..]
    }

    /// Takes note that `bytes` of [`Handoff::to_send`] are on their way.
    pub fn sent(&mut self, bytes: usize) {
        self.sent = self.sent.saturating_add(bytes).min(self.request.len());
    }

    /// Takes a part of the handler's answer.
    ///
    /// # Errors
    /// [`BadAnswer::TooLong`]: do not read on.
    pub fn handle_input(&mut self, bytes: &[u8]) -> Result<(), BadAnswer> {
        if self.answer.len() + bytes.len() > limits::WEB_ANSWER_BYTES_MAX {
            return Err(BadAnswer::TooLong);
        }
        self.answer.extend_from_slice(bytes);
        Ok(())
    }

    /// The response for the client, when the handler's stream has ended.
    ///
    /// # Errors
    /// [`BadAnswer`], when there is no complete one.
    pub fn finish(self) -> Result<Answer, BadAnswer> {
        let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS_MAX];
        let mut head = httparse::Response::new(&mut headers);
        let body_at = match head.parse(&self.answer) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Err(BadAnswer::Cut),
            Err(_) => return Err(BadAnswer::Malformed),
        };
        let code = head.code.filter(|code| (200..600).contains(code)).ok_or(BadAnswer::Malformed)?;
        let body = &self.answer[body_at..];
        let find = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        // Only a length tells a whole answer from one whose handler died over it; a coding would have to be undone first.
        let length =
            find("Content-Length").and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok());
        if find("Transfer-Encoding").is_some() || length.is_none() {
            return Err(BadAnswer::Malformed);
        }
        if length != Some(body.len() as u64) {
            return Err(BadAnswer::Cut);
        }
        let status_line = format!("{code} {}", head.reason.unwrap_or_default());
        let mut out = response::start(&status_line, self.keep_alive, body.len() as u64).into_bytes();
        for header in head.headers.iter().filter(|header| is_passed_on(header.name)) {
            out.extend_from_slice(header.name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(header.value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if self.method == Method::Get {
            out.extend_from_slice(body);
        }
        Ok(Answer { head: out, body: 0..0, keep_alive: self.keep_alive })
    }
}

/// An IPv4 client of an IPv6 socket under its IPv4 address.
#[must_use]
pub fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// All but those that belong to one connection (RFC 9110 §7.6.1) and those that this server says itself.
fn is_passed_on(name: &str) -> bool {
    const OURS: [&str; 8] =
        ["connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "content-length", "server"];
    !OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// Writes a decoded path so that it survives a request line (RFC 3986 §3.3).
pub fn percent_encode(out: &mut String, path: &str) {
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head;

    const PEER: &str = "10.0.0.9:5000";

    fn handoff(request: &str) -> Handoff {
        let request = head::parse(request.as_bytes()).unwrap().unwrap().0;
        Handoff::new(&request, PEER.parse().unwrap(), "[::ffff:10.0.0.1]:8080".parse().unwrap())
    }

    fn told(request: &str) -> String {
        String::from_utf8(handoff(request).to_send().to_vec()).unwrap()
    }

    fn answered(request: &str, answer: &str) -> Result<String, BadAnswer> {
        let mut handoff = handoff(request);
        handoff.handle_input(answer.as_bytes())?;
        handoff.finish().map(|answer| String::from_utf8(answer.head).unwrap())
    }

    #[test]
    fn the_handler_gets_a_head_of_our_own() {
        assert_eq!(
            told("GET /a%20b?x=1 HTTP/1.1\r\nHost: aurora.lan:8080\r\nCookie: x\r\nAccept: */*\r\n\r\n"),
            "GET /a%20b HTTP/1.1\r\nHost: aurora.lan:8080\r\nX-Forwarded-For: 10.0.0.9\r\nConnection: close\r\n\r\n"
        );
        let without_host = told("HEAD / HTTP/1.0\r\n\r\n");
        assert!(without_host.starts_with("GET / HTTP/1.1\r\nHost: 10.0.0.1:8080\r\n"), "{without_host}");
    }

    #[test]
    fn no_claim_of_the_client_reaches_the_handler() {
        for claim in [
            "X-Forwarded-For: 127.0.0.1",
            "x-forwarded-for: 127.0.0.1",
            "Forwarded: for=127.0.0.1",
            "X-Real-IP: 127.0.0.1",
            "X-Forwarded-Host: 127.0.0.1",
            "Host: 127.0.0.1/<script>",
            "Connection: X-Forwarded-For",
        ] {
            let head = told(&format!("GET / HTTP/1.1\r\n{claim}\r\n\r\n"));
            assert!(!head.contains("127.0.0.1") && head.matches("Forwarded").count() == 1, "{claim}: {head}");
        }
    }

    #[test]
    fn a_handler_is_sent_its_head_in_pieces() {
        let mut handoff = handoff("GET / HTTP/1.1\r\n\r\n");
        let length = handoff.to_send().len();
        handoff.sent(10);
        assert_eq!(handoff.to_send().len(), length - 10);
        handoff.sent(usize::MAX);
        assert!(handoff.to_send().is_empty());
    }

    #[test]
    fn an_answer_goes_out_with_our_own_framing() {
        let answer = "HTTP/1.1 404 Not Found\r\nServer: tiny\r\nConnection: close\r\nContent-Type: text/html\r\n\
                      Content-Security-Policy: default-src 'none'\r\nContent-Length: 4\r\n\r\nbody";
        let framed = "HTTP/1.1 404 Not Found\r\nServer: auroraboot\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\
                      Content-Type: text/html\r\nContent-Security-Policy: default-src 'none'\r\n\r\n";
        assert_eq!(answered("GET / HTTP/1.1\r\n\r\n", answer), Ok(format!("{framed}body")));
        assert_eq!(answered("HEAD / HTTP/1.1\r\n\r\n", answer), Ok(framed.to_owned()));
        let closing = answered("GET / HTTP/1.0\r\n\r\n", answer).unwrap();
        assert!(closing.contains("Connection: close\r\n") && !closing.contains("keep-alive"), "{closing}");
    }

    #[test]
    fn what_is_not_a_whole_answer_is_none() {
        let get = |answer: &str| answered("GET / HTTP/1.1\r\n\r\n", answer);
        for (answer, why) in [
            ("", BadAnswer::Cut),
            ("HTTP/1.1 200 OK\r\nContent-Le", BadAnswer::Cut),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nbody", BadAnswer::Cut),
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbody", BadAnswer::Cut),
            ("HTTP/1.1 200 OK\r\n\r\nbody", BadAnswer::Malformed),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nbody", BadAnswer::Malformed),
            ("HTTP/1.1 101 Switching Protocols\r\nContent-Length: 0\r\n\r\n", BadAnswer::Malformed),
            ("SSH-2.0-OpenSSH\r\n", BadAnswer::Malformed),
        ] {
            assert_eq!(get(answer), Err(why), "{answer}");
        }
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_survived() {
        const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nbody";
        let finish = |answer: &[u8]| {
            let mut handoff = handoff("GET / HTTP/1.1\r\n\r\n");
            handoff.handle_input(answer).unwrap();
            handoff.finish()
        };
        for end in 0..ANSWER.len() {
            assert!(finish(&ANSWER[..end]).is_err(), "cut at {end}");
        }
        for at in 0..ANSWER.len() {
            for byte in 0..=255 {
                let mut bytes = ANSWER.to_vec();
                bytes[at] = byte;
                if let Ok(answer) = finish(&bytes) {
                    let ends = answer.head.windows(4).filter(|window| window == b"\r\n\r\n").count();
                    assert!(ends == 1 && answer.head.ends_with(&bytes[bytes.len() - 4..]), "byte {at} = {byte}");
                }
            }
        }
    }

    #[test]
    fn an_answer_is_bounded() {
        let head = |bytes: usize| format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        let bytes = limits::WEB_ANSWER_BYTES_MAX - head(limits::WEB_ANSWER_BYTES_MAX).len();
        let get = |bytes: usize| answered("GET / HTTP/1.1\r\n\r\n", &(head(bytes) + &"x".repeat(bytes)));
        assert!(get(bytes).is_ok());
        assert_eq!(get(bytes + 1), Err(BadAnswer::TooLong));
    }
}
