//! A session on each console of the board.

use super::host::Appliance;
use crate::console::Host;
use crate::daemon::console;
use crate::daemon::stop::Stop;
use crate::sys::tty::Line;
use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;

/// Starts them. One that cannot be is told at the others.
pub fn start(appliance: &Arc<Appliance>) {
    let stop = Stop::default(); // they end with the machine
    for named in &appliance.parameters.consoles {
        let line = match named.parse() {
            Ok(line) => line,
            Err(error) => {
                appliance.notice(format!("console={named}: {error}"));
                continue;
            }
        };
        greet(&line, appliance);
        let host = Arc::clone(appliance) as Arc<dyn Host + Send + Sync>;
        if let Err(error) = console::start(line, appliance.profile(), host, &stop) {
            appliance.notice(format!("console={named}: {error}"));
        }
    }
}

/// A black screen looks like a box that is dead; on a serial line, which may lead to a program, nothing is said unasked.
fn greet(line: &Line, appliance: &Appliance) {
    if !is_screen(line) {
        return;
    }
    let greeting = format!("\r\n{}. Press Enter.\r\n", appliance.profile().title);
    let greeted =
        OpenOptions::new().write(true).open(&line.path).and_then(|mut screen| screen.write_all(greeting.as_bytes()));
    drop(greeted); // a board without a screen
}

/// Whether it is one of the kernel's virtual terminals: `tty1`.
fn is_screen(line: &Line) -> bool {
    let name = line.path.file_name().unwrap_or_default().to_string_lossy();
    name.strip_prefix("tty")
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn screens_are_told_from_lines() {
        for (name, expected) in [("tty1", true), ("tty12", true), ("ttyS0", false), ("ttyAMA0", false), ("tty", false)]
        {
            assert_eq!(is_screen(&name.parse().unwrap()), expected, "{name}");
        }
    }
}
