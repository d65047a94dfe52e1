//! Response heads, with the fields that firmware insists on.

use super::head::{Method, Request};
use super::range::{self, Selection};
use std::fmt::Write;
use std::ops::Range;

/// The status codes that are ever sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Ok,
    PartialContent,
    NotModified,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    RangeNotSatisfiable,
    HeadTooLarge,
    BadGateway,
    ServiceUnavailable,
    GatewayTimeout,
    VersionNotSupported,
}

impl Status {
    /// Code and reason phrase. The phrase is never left out: iPXE rejects a status line without a blank after the number.
    #[must_use]
    pub const fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::PartialContent => "206 Partial Content",
            Self::NotModified => "304 Not Modified",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::RangeNotSatisfiable => "416 Range Not Satisfiable",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::BadGateway => "502 Bad Gateway",
            Self::ServiceUnavailable => "503 Service Unavailable",
            Self::GatewayTimeout => "504 Gateway Timeout",
            Self::VersionNotSupported => "505 HTTP Version Not Supported",
        }
    }
}

/// What is known about a file before it is sent.
#[derive(Debug, Clone, Copy)]
pub struct Entity<'a> {
    pub size: u64,
    pub content_type: &'a str,
    /// A strong entity tag with its quotes; without one the file cannot be resumed safely.
    pub etag: Option<&'a str>,
    /// Further header lines, each with its CRLF.
    pub headers: &'a str,
}

/// A response head and the bytes of the entity that follow it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: Status,
    pub head: Vec<u8>,
    pub body: Range<u64>,
}

/// Answers `request` with `entity`: whole, in part, 304 or 416; for HEAD the same without a body.
#[must_use]
pub fn file(request: &Request, entity: Entity<'_>) -> Response {
    if let (Some(known), Some(etag)) = (&request.if_none_match, entity.etag)
        && matches_one(known, etag)
    {
        return not_modified(request, etag, entity.headers);
    }
    let selection = range::select(request.range.as_deref(), request.if_range.as_deref(), entity.etag, entity.size);
    let (status, body) = match (&selection, request.method) {
        // RFC 9110 §14.2: Range means something for GET only.
        (Selection::Whole, _) | (_, Method::Head) => (Status::Ok, 0..entity.size),
        (Selection::Part(part), Method::Get) => (Status::PartialContent, part.clone()),
        (Selection::Unsatisfiable, Method::Get) => (Status::RangeNotSatisfiable, 0..0),
    };
    let mut head = start(status.line(), request.keep_alive, body.end - body.start);
    let _ = match status {
        Status::RangeNotSatisfiable => write!(head, "Content-Range: bytes */{}\r\n", entity.size),
        Status::PartialContent => {
            write!(head, "Content-Range: bytes {}-{}/{}\r\n", body.start, body.end - 1, entity.size)
        }
        _ => Ok(()),
    };
    let _ = write!(head, "Content-Type: {}\r\nAccept-Ranges: bytes\r\n", entity.content_type);
    if let Some(etag) = entity.etag {
        let _ = write!(head, "ETag: {etag}\r\n");
    }
    head.push_str(entity.headers);
    head.push_str("\r\n");
    let body = if request.method == Method::Head { 0..0 } else { body };
    Response { status, head: head.into_bytes(), body }
}

/// Whether the list of entity tags that a client has copies of names `etag`. For this question weak tags count as well (RFC 9110 §13.1.2).
fn matches_one(known: &str, etag: &str) -> bool {
    known.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

/// Without `Content-Length`: it would have to be that of the file (RFC 9110 §15.4.5), and some clients would wait for that many bytes.
fn not_modified(request: &Request, etag: &str, headers: &str) -> Response {
    let status = Status::NotModified;
    let connection = connection(request.keep_alive);
    let head = format!("HTTP/1.1 {}\r\nServer: auroraboot\r\n{connection}ETag: {etag}\r\n{headers}\r\n", status.line());
    Response { status, head: head.into_bytes(), body: 0..0 }
}

/// A complete error response with a one-line text; `with_body` is false in the answer to a HEAD.
#[must_use]
pub fn error(status: Status, reason: &str, keep_alive: bool, with_body: bool) -> Vec<u8> {
    let text = format!("{}: {reason}\n", status.line());
    let mut response = start(status.line(), keep_alive, text.len() as u64);
    response.push_str("Content-Type: text/plain; charset=utf-8\r\n");
    if status == Status::MethodNotAllowed {
        response.push_str("Allow: GET, HEAD\r\n");
    }
    if status == Status::ServiceUnavailable {
        // iPXE waits that long and asks again.
        response.push_str("Retry-After: 2\r\n");
    }
    response.push_str("\r\n");
    if with_body {
        response.push_str(&text);
    }
    response.into_bytes()
}

/// Always with `Content-Length`: UEFI HTTP boot and GRUB need it, and iPXE crawls without it.
pub(super) fn start(status_line: &str, keep_alive: bool, length: u64) -> String {
    let connection = connection(keep_alive);
    format!("HTTP/1.1 {status_line}\r\nServer: auroraboot\r\n{connection}Content-Length: {length}\r\n")
}

/// Always sent, because HTTP/1.0 clients that asked for keep-alive wait for the confirmation.
const fn connection(keep_alive: bool) -> &'static str {
    if keep_alive { "Connection: keep-alive\r\n" } else { "Connection: close\r\n" }
}

/// The media type of a file by its name. UEFI HTTP boot refuses types it does not know, and takes these three.
#[must_use]
pub fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "efi" => "application/efi",
        "iso" => "application/vnd.efi-iso",
        "img" => "application/vnd.efi-img",
        "ipxe" | "txt" | "yaml" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head;

    const ENTITY: Entity<'static> =
        Entity { size: 10, content_type: "application/efi", etag: Some("\"v1\""), headers: "" };

    fn answer(request: &str) -> (String, Range<u64>) {
        let request = head::parse(request.as_bytes()).unwrap().unwrap().0;
        let response = file(&request, ENTITY);
        (String::from_utf8(response.head).unwrap(), response.body)
    }

    #[test]
    fn a_whole_file() {
        let (head, body) = answer("GET /x HTTP/1.1\r\n\r\n");
        assert_eq!(
            head,
            "HTTP/1.1 200 OK\r\nServer: auroraboot\r\nConnection: keep-alive\r\nContent-Length: 10\r\n\
             Content-Type: application/efi\r\nAccept-Ranges: bytes\r\nETag: \"v1\"\r\n\r\n"
        );
        assert_eq!(body, 0..10);
    }

    #[test]
    fn a_head_request_is_told_the_length_of_the_whole_and_gets_nothing() {
        let (head, body) = answer("HEAD /x HTTP/1.1\r\nRange: bytes=2-3\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Length: 10\r\n"), "{head}");
        assert_eq!(body, 0..0);
    }

    #[test]
    fn a_part_and_a_part_that_is_not_there() {
        let (head, body) = answer("GET /x HTTP/1.1\r\nRange: bytes=8-\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 206 Partial Content\r\n"), "{head}");
        assert!(head.contains("Content-Range: bytes 8-9/10\r\n") && head.contains("Content-Length: 2\r\n"), "{head}");
        assert_eq!(body, 8..10);
        let (head, body) = answer("GET /x HTTP/1.1\r\nRange: bytes=10-\r\n\r\n");
        assert!(head.starts_with("HTTP/1.1 416 Range Not Satisfiable\r\n"), "{head}");
        assert!(head.contains("Content-Range: bytes */10\r\n") && head.contains("Content-Length: 0\r\n"), "{head}");
        assert_eq!(body, 0..0);
    }

    #[test]
    fn what_the_client_has_already_is_not_sent_again() {
        let ask = |tags: &str| answer(&format!("GET /x HTTP/1.1\r\nIf-None-Match: {tags}\r\nRange: bytes=0-1\r\n\r\n"));
        for tags in ["\"v1\"", "\"v0\", W/\"v1\"", "*"] {
            let (head, body) = ask(tags);
            assert!(head.starts_with("HTTP/1.1 304 Not Modified\r\n") && head.contains("ETag: \"v1\"\r\n"), "{head}");
            assert!(!head.contains("Content-Length") && body.is_empty(), "{head}");
        }
        for tags in ["\"v0\"", "v1", ""] {
            assert!(ask(tags).0.starts_with("HTTP/1.1 206 "), "{tags}");
        }
    }

    #[test]
    fn an_error_has_a_length_too() {
        let text = String::from_utf8(error(Status::MethodNotAllowed, "no", false, true)).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("Allow: GET, HEAD") && head.contains("Connection: close"), "{head}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
        let without_body = error(Status::NotFound, "no such file", true, false);
        assert!(without_body.ends_with(b"\r\n\r\n"));
    }

    #[test]
    fn types_that_firmware_knows() {
        let names = ["a.efi", "a.iso", "a.img", "boot.ipxe", "kernel", "rootfs.squashfs"].map(content_type);
        let octets = "application/octet-stream";
        let text = "text/plain; charset=utf-8";
        assert_eq!(
            names,
            ["application/efi", "application/vnd.efi-iso", "application/vnd.efi-img", text, octets, octets]
        );
    }
}
