//! HTTP/1.1 (RFC 9110, 9112) for serving files: heads, ranges, responses, sans-IO.
//!
//! [`exchange::Exchange`] is one connection: bytes in, a [`head::Request`] out, an [`exchange::Answer`] in, pieces to send out.
//! Only GET and HEAD exist here; there are no request bodies, no transfer codings and no paths of a file system.

pub mod exchange;
pub mod head;
pub mod range;
pub mod response;
