//! Runs with a console: what is changed there, and what becomes of a change with which nothing works.

use std::io::Write;
use std::os::fd::AsFd;

use auroraboot::sys::tty::{pseudo_terminal, wait_readable};

use super::serving::get;
use super::*;

/// The other end of a console's line, and everything that it showed.
struct Terminal {
    near: File,
    shown: String,
}

impl Terminal {
    /// Types a line, and waits until `shown` is there behind what was there before.
    fn line(&mut self, typed: &str, shown: &str) {
        self.near.write_all(format!("{typed}\r").as_bytes()).unwrap();
        let (before, mut buffer) = (self.shown.len(), [0; 4096]);
        while !self.shown[before..].contains(shown) {
            assert!(wait_readable(self.near.as_fd(), PATIENCE), "no {shown:?} in {}", &self.shown[before..]);
            let length = self.near.read(&mut buffer).unwrap();
            self.shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    }
}

/// Starts the program with a console.
fn attended(site: &Site, image: &str, settings: &[&str]) -> (Run, Terminal) {
    let (near, path) = pseudo_terminal().unwrap();
    let mut command = site.command(image, settings);
    command.arg("--console").arg(path);
    (site.start(command), Terminal { near, shown: String::new() })
}

fn console_file(site: &Site) -> PathBuf {
    site.state().join("console.yaml")
}

#[test]
fn a_change_with_which_nothing_is_served_is_taken_back() {
    let site = Site::new("taken-back");
    let registry = site.good_registry(&image(&bootable()));
    let (mut run, mut terminal) = attended(&site, &registry.name(), &[]);
    run.wait_for("Ready: ");
    terminal.line("", "Choice");
    terminal.line("e\rinterfaces\reth7", "The server starts again with it");
    terminal.line("y", "Saved");
    run.wait_for("which is taken back: `interfaces` names \"eth7\"");
    run.wait_for("Ready: ");
    assert!(!console_file(&site).exists());
    terminal.line("s", "was taken back");
    // One that works stays.
    terminal.line("e\rnetboot_http_port\r8091\ry", "Saved");
    run.wait_for("http 8091");
    run.wait_for("Ready: ");
    assert!(console_file(&site).exists());
    run.signal("TERM");
    run.outcome().succeeded();
}

#[test]
fn what_is_wrong_on_its_face_is_not_saved() {
    let site = Site::new("on-its-face");
    let registry = site.good_registry(&image(&bootable()));
    let (mut run, mut terminal) = attended(&site, &registry.name(), &[]);
    run.wait_for("Ready: ");
    terminal.line("", "Choice");
    terminal.line("e\riso.overlay_iso\r/nowhere", "Not accepted: ");
    terminal.line("\re\rconsole.password\rsha256:abc\rsha256:abc", "64 digits");
    terminal.line("\re\rconsole.password\rsesame\rsesame\ry", "Saved");
    assert!(!get(&site, "/").is_empty(), "the server is the same: a password is none of its business");
    run.signal("TERM");
    let outcome = run.outcome();
    outcome.succeeded();
    assert_eq!(outcome.log.iter().filter(|line| line.contains("Ready: ")).count(), 1, "{:#?}", outcome.log);
}

#[test]
fn what_consoles_have_set_is_left_out_when_it_is_damaged() {
    let site = Site::new("damaged");
    let registry = site.good_registry(&image(&bootable()));
    site.build(&registry.name()).succeeded();
    std::fs::write(console_file(&site), "{\"netboot_http_port\": \"80a\"}").unwrap();
    let (mut run, mut terminal) = attended(&site, &registry.name(), &[]);
    run.wait_for("what consoles have set is left out");
    run.wait_for("Ready: ");
    // Mended at the console, it counts again.
    terminal.line("", "Choice");
    terminal.line("e\rnetboot_http_port\r8092\ry", "Saved");
    run.wait_for("http 8092");
    run.signal("TERM");
    run.outcome().succeeded();
}

#[test]
fn a_run_that_serves_nobody_stays_for_its_console() {
    let site = Site::new("nobody");
    let registry = site.good_registry(&image(&bootable()));
    let (mut run, mut terminal) = attended(&site, &registry.name(), MEDIA_ONLY);
    run.wait_for("/iso/kairos.iso");
    terminal.line("", "Choice");
    terminal.line("s", "Netboot   off");
    run.signal("TERM");
    let outcome = run.outcome();
    assert!(!outcome.succeeded().said("started again"));
}

#[test]
fn what_is_no_terminal_is_refused() {
    let site = Site::new("no-terminal");
    let mut command = site.command("example.com/a:1", &[]);
    command.args(["--console", "/dev/null"]);
    let outcome = site.start(command).outcome();
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.said("--console /dev/null,115200 cannot be opened"));
}
