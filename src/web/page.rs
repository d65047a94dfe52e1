//! The page for people.

use super::listing::Listing;

pub fn media(listing: &Listing, host: &str) -> String {
    format!("{} {host}", listing.media().len())
}

pub fn not_found() -> String {
    String::new()
}

pub fn content_security_policy() -> &'static str {
    "default-src 'none'"
}
