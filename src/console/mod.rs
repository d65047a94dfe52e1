//! The console on a serial line: what is typed, what is shown, what is asked of the host.
//!
//! Made for a dumb terminal at 115200 baud: lines with CR LF, no cursor addressing, nothing drawn until a key is pressed. No device, no
//! clock and no thread is in here: bytes come in, bytes and [`Request`]s go out, [`Answer`]s come back.

mod protocol;

pub use protocol::{Answer, Change, Host, HostStatus, InterfaceStatus, Overview, Profile, Request, Shown};
