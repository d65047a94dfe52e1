//! HTTP/1.1 (RFC 9110, 9112) for serving files: heads, ranges, responses, sans-IO.
//!
//! [`exchange::Exchange`] is one connection: bytes in, a [`head::Request`] out, an [`exchange::Answer`] in, pieces to send out.
//! [`handoff::Handoff`] is a request that somebody else answers: what that one is told, and what of its answer goes out.
//! Only GET and HEAD exist here; there are no request bodies, no transfer codings and no paths of a file system.

pub mod exchange;
pub mod handoff;
pub mod head;
pub mod range;
pub mod response;
