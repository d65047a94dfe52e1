//! Request heads: what a client may ask, and which answer it gets when it may not.

use super::response::Status;
use crate::limits;

/// The methods that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
}

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Percent-decoded, without query and empty segments, beginning with `/`. `.` and `..` are ordinary characters here: no file
    /// system is behind it.
    pub path: String,
    /// `Range` and `If-Range` (RFC 9110 §14.2, §13.1.5), as sent.
    pub range: Option<String>,
    pub if_range: Option<String>,
    /// `If-None-Match` (RFC 9110 §13.1.2), as sent.
    pub if_none_match: Option<String>,
    /// `Host`, when it looks like one: a name or address, and perhaps a port. It is the client's word, good for links that it will follow
    /// itself and for nothing else.
    pub host: Option<String>,
    /// Whether the client may send another request on this connection.
    pub keep_alive: bool,
}

/// A request that cannot be answered; the connection ends after saying so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub status: Status,
    /// One short phrase for the client and for the log.
    pub reason: &'static str,
}

/// Reads the request at the beginning of `bytes`: the request and its length, or `None` while its end has not come yet.
///
/// # Errors
/// A [`Refusal`] for what will not become a request by reading more of it.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refusal> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HTTP_HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    // A head that is complete within the limit is taken, whatever follows it.
    let window = &bytes[..bytes.len().min(limits::HTTP_HEAD_BYTES_MAX)];
    match head.parse(window) {
        Ok(httparse::Status::Complete(length)) => Ok(Some((request(&head)?, length))),
        Ok(httparse::Status::Partial) if bytes.len() < limits::HTTP_HEAD_BYTES_MAX => Ok(None),
        Ok(httparse::Status::Partial) => Err(HEAD_TOO_LONG),
        Err(httparse::Error::TooManyHeaders) => Err(TOO_MANY_HEADERS),
        Err(httparse::Error::Version) => Err(VERSION),
        Err(_) => Err(MALFORMED),
    }
}

fn request(head: &httparse::Request<'_, '_>) -> Result<Request, Refusal> {
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => return Err(METHOD),
    };
    let mut request = Request {
        method,
        path: clean_path(head.path.unwrap_or_default()).ok_or(BAD_PATH)?,
        range: None,
        if_range: None,
        if_none_match: None,
        host: None,
        keep_alive: head.version == Some(1), // RFC 9112 §9.3: 1.1 keeps alive, 1.0 closes, unless said otherwise
    };
    // No Host header is asked for (RFC 9112 §3.2 would have it so): nothing here depends on it, and boot ROMs are what they are.
    for header in head.headers.iter() {
        let text = || std::str::from_utf8(header.value).ok().map(|value| value.trim().to_owned());
        if header.name.eq_ignore_ascii_case("range") {
            request.range = text();
        } else if header.name.eq_ignore_ascii_case("if-range") {
            request.if_range = text();
        } else if header.name.eq_ignore_ascii_case("if-none-match") {
            request.if_none_match = text();
        } else if header.name.eq_ignore_ascii_case("host") {
            request.host = text().filter(|host| is_host(host));
        } else if header.name.eq_ignore_ascii_case("connection") {
            request.keep_alive = keeps_alive(&text().unwrap_or_default(), request.keep_alive);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding")
            || (header.name.eq_ignore_ascii_case("content-length") && header.value != b"0")
        {
            return Err(BODY);
        }
    }
    Ok(request)
}

/// Letters, digits and what addresses are written with (RFC 3986 §3.2.2, less what nobody's machine is called): text that means nothing
/// to HTML or a shell.
fn is_host(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:[]".contains(&byte);
    (1..=HOST_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

fn keeps_alive(connection: &str, default: bool) -> bool {
    connection.split(',').fold(default, |keep, option| match option.trim() {
        option if option.eq_ignore_ascii_case("close") => false,
        option if option.eq_ignore_ascii_case("keep-alive") => true,
        _ => keep,
    })
}

/// The path of a request target in origin form or absolute form (RFC 9112 §3.2.1, §3.2.2).
fn clean_path(target: &str) -> Option<String> {
    let path = match target.get(..7) {
        Some(scheme) if scheme.eq_ignore_ascii_case("http://") => {
            let rest = &target[7..];
            rest.find('/').map_or("/", |slash| &rest[slash..])
        }
        _ => target,
    };
    let path = path.split(['?', '#']).next().filter(|path| path.starts_with('/'))?;
    let decoded = percent_decoded(path)?;
    if decoded.chars().any(char::is_control) {
        return None;
    }
    let mut clean = String::with_capacity(decoded.len());
    for segment in decoded.split('/').filter(|segment| !segment.is_empty()) {
        clean.push('/');
        clean.push_str(segment);
    }
    if clean.is_empty() {
        clean.push('/');
    }
    Some(clean)
}

fn percent_decoded(path: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                u8::try_from(high * 16 + low).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

/// A DNS name (RFC 1035 §2.3.4), a colon and a port.
const HOST_BYTES_MAX: usize = 255 + 6;
const MALFORMED: Refusal = Refusal { status: Status::BadRequest, reason: "this is not an HTTP request" };
const BAD_PATH: Refusal = Refusal { status: Status::BadRequest, reason: "the path cannot be read" };
const BODY: Refusal = Refusal { status: Status::BadRequest, reason: "requests with a body are not taken" };
const METHOD: Refusal = Refusal { status: Status::MethodNotAllowed, reason: "only GET and HEAD are served" };
const HEAD_TOO_LONG: Refusal = Refusal { status: Status::HeadTooLarge, reason: "the request head is too long" };
const TOO_MANY_HEADERS: Refusal = Refusal { status: Status::HeadTooLarge, reason: "the request has too many headers" };
const VERSION: Refusal =
    Refusal { status: Status::VersionNotSupported, reason: "only HTTP/1.0 and HTTP/1.1 are served" };

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Option<(Request, usize)>, Refusal> {
        parse(text.as_bytes())
    }

    fn path(target: &str) -> Option<String> {
        parsed(&format!("GET {target} HTTP/1.1\r\n\r\n")).ok().flatten().map(|(request, _)| request.path)
    }

    /// What OVMF's HTTP boot sends, from a capture.
    const UEFI: &str = "HEAD /t/snponly.efi HTTP/1.1\r\nHost: 192.168.77.2:8090\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n";

    #[test]
    fn a_firmware_request() {
        let (request, length) = parsed(UEFI).unwrap().unwrap();
        assert_eq!(length, UEFI.len());
        assert_eq!((request.method, request.path.as_str(), request.keep_alive), (Method::Head, "/t/snponly.efi", true));
        let pipelined = format!("{UEFI}GET / HTTP/1.1\r\n\r\n");
        assert_eq!(parsed(&pipelined).unwrap().unwrap().1, UEFI.len());
    }

    #[test]
    fn keep_alive_by_version_and_header() {
        let keeps = |text: &str| parsed(text).unwrap().unwrap().0.keep_alive;
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
        assert!(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
    }

    #[test]
    fn paths_are_decoded_and_cleaned() {
        for (target, clean) in [
            ("/", Some("/")),
            ("//a///b/", Some("/a/b")),
            ("/a%2Fb%20c?x=%zz#y", Some("/a/b c")),
            ("http://10.0.0.1:8090/a/b?c", Some("/a/b")),
            ("HTTP://host", Some("/")),
            ("/../etc/%2e%2e/passwd", Some("/../etc/../passwd")),
            ("/%e2%82%ac", Some("/€")),
            ("/%ff", None),
            ("/%00", None),
            ("/%0d%0aSet-Cookie", None),
            ("/%2", None),
            ("/%zz", None),
            ("*", None),
            ("a/b", None),
            ("ftp://x/y", None),
        ] {
            assert_eq!(path(target).as_deref(), clean, "{target}");
        }
    }

    #[test]
    fn what_is_refused_and_how() {
        let status = |text: &str| parsed(text).map_err(|refusal| refusal.status);
        assert_eq!(status("POST / HTTP/1.1\r\n\r\n"), Err(Status::MethodNotAllowed));
        assert_eq!(status("get / HTTP/1.1\r\n\r\n"), Err(Status::MethodNotAllowed));
        assert_eq!(status("GET / HTTP/2.0\r\n\r\n"), Err(Status::VersionNotSupported));
        assert_eq!(status("\x16\x03\x01\x02"), Err(Status::BadRequest)); // TLS
        assert_eq!(status("GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello"), Err(Status::BadRequest));
        assert_eq!(status("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Err(Status::BadRequest));
        assert!(status("GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").is_ok());
    }

    #[test]
    fn a_head_is_bounded_in_bytes_and_headers() {
        let filler = "x".repeat(limits::HTTP_HEAD_BYTES_MAX);
        assert_eq!(parsed(&format!("GET /{filler}")), Err(HEAD_TOO_LONG));
        let exactly = limits::HTTP_HEAD_BYTES_MAX - "GET / HTTP/1.1\r\na: \r\n\r\n".len();
        let head = |bytes: usize| format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(bytes));
        assert!(matches!(parsed(&head(exactly)), Ok(Some(_))));
        assert_eq!(parsed(&head(exactly + 1)), Err(HEAD_TOO_LONG));
        let many = |n: usize| format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(n));
        assert!(matches!(parsed(&many(limits::HTTP_HEADERS_MAX)), Ok(Some(_))));
        assert_eq!(parsed(&many(limits::HTTP_HEADERS_MAX + 1)), Err(TOO_MANY_HEADERS));
    }

    #[test]
    fn every_truncation_and_every_changed_byte_is_survived() {
        for end in 0..UEFI.len() {
            assert_eq!(parsed(&UEFI[..end]), Ok(None), "cut at {end}");
        }
        for at in 0..UEFI.len() {
            for byte in 0..=255 {
                let mut bytes = UEFI.as_bytes().to_vec();
                bytes[at] = byte;
                if let Ok(Some((request, length))) = parse(&bytes) {
                    assert!(length <= bytes.len() && request.path.starts_with('/'), "byte {at} = {byte}");
                }
            }
        }
    }
}
