//! The blocking side: which page a path is, and the tiny_http request that asks for it.

use super::listing::{Listing, Shelf};
use super::page;
use crate::civil::Civil;
use serde::Serialize;
use tiny_http::{Header, Request, Response};

/// A page in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    pub status: u16,
    pub content_type: &'static str,
    pub body: String,
}

/// The page at a decoded `path`; `host` is the name or address and port that the client knows this server by.
#[must_use]
pub fn page(listing: &Listing, path: &str, host: &str) -> Page {
    match path {
        "/" => Page { status: 200, content_type: HTML, body: page::media(listing, host) },
        "/media.json" => Page { status: 200, content_type: JSON, body: json(listing, host) },
        _ => Page { status: 404, content_type: HTML, body: page::not_found() },
    }
}

/// Answers one request that the loop in front has let through. That the client is gone by now is its own affair.
pub fn respond(shelf: &Shelf, request: Request) {
    let header = |name: &'static str| {
        let header = request.headers().iter().find(|header| header.field.equiv(name));
        header.map_or("", |header| header.value.as_str())
    };
    let page = page(&shelf.listing(), request.url(), header("Host"));
    log::debug!("HTTP: {} asked for {:?}: {}", header("X-Forwarded-For"), request.url(), page.status);
    let fields = [
        ("Content-Type", page.content_type),
        ("Content-Security-Policy", page::content_security_policy()),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
        // What is offered can change at any time, and asking again costs nothing.
        ("Cache-Control", "no-store"),
    ];
    // Without the threshold, tiny_http sends 32 KiB and more in chunks and without a length.
    let response = Response::from_string(page.body).with_status_code(page.status).with_chunked_threshold(usize::MAX);
    let headers = fields.iter().filter_map(|(name, value)| Header::from_bytes(*name, *value).ok());
    let response = headers.fold(response, Response::with_header);
    if let Err(error) = request.respond(response) {
        log::debug!("HTTP: a page was not taken: {error}");
    }
}

/// `/media.json`.
#[derive(Serialize)]
struct MediaJson<'a> {
    image: &'a str,
    media: Vec<ItemJson<'a>>,
}

#[derive(Serialize)]
struct ItemJson<'a> {
    name: &'a str,
    kind: &'static str,
    size: u64,
    sha256: String,
    date: String,
    contains_cloud_config: bool,
    url: String,
    sha256_url: String,
}

fn json(listing: &Listing, host: &str) -> String {
    let media = listing.media().iter().map(|item| ItemJson {
        name: &item.name,
        kind: item.kind.name(),
        size: item.size,
        sha256: item.sha256.hex(),
        date: Civil::from(item.built).iso_8601(),
        contains_cloud_config: item.contains_cloud_config,
        url: format!("http://{host}{}", item.path()),
        sha256_url: format!("http://{host}{}.sha256", item.path()),
    });
    let document = MediaJson { image: listing.image(), media: media.collect() };
    // It has no maps with odd keys and no numbers that JSON lacks, so it cannot fail.
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
