//! Port 8080: what is offered for download, and the pages about it.
//!
//! [`listing`] is the table of what is served: a name is served when it stands there, and no path of a file system is ever made of what a
//! client asks for. Its downloads go out of the `http` loop by `sendfile`. The pages ([`page`]) are made by [`handlers`] on the `web`
//! thread, behind a Unix socket: tiny_http has no timeouts, buffers endless headers and starts a thread per connection, so it never meets
//! a client itself.

mod escape;
pub mod handlers;
pub mod listing;
pub mod page;
