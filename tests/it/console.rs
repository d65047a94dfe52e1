//! The console as somebody sees it who sits at the other end of the line: a pseudo-terminal, a scripted host, whole transcripts.

mod host;

use auroraboot::console::{Console, Profile};
use auroraboot::daemon::console::Session;
use auroraboot::daemon::stop::Stop;
use auroraboot::sys::tty::{BAUD_DEFAULT, Line, Tty};
use host::ScriptedHost;
use std::io;
use std::time::Instant;

fn profile() -> Profile {
    Profile { title: "auroraboot 0.1.0 on x86-pc".to_owned(), network: true, power: true }
}

/// To see it with one's own eyes: `cargo test --test it console::by_hand -- --ignored --nocapture`, and Ctrl-C in another terminal.
#[test]
#[ignore = "for a person at a terminal"]
fn by_hand() {
    let log = (1..=60)
        .map(|n| format!("2026/11/23 06:{:02}:00 {}", n % 60, "something was logged ".repeat(1 + n % 7)))
        .collect();
    let host = ScriptedHost { machines: 30, password: Some("secret"), ..ScriptedHost::default() };
    host.state.lock().unwrap().log = log;
    let tty = Tty::open(&Line { path: "/dev/tty".into(), baud: BAUD_DEFAULT }).unwrap();
    let (wake, _waker) = io::pipe().unwrap();
    let console = Console::new(profile(), Instant::now());
    Session::new(&tty, console, &host).run(&Stop::default(), &wake).unwrap();
}
