//! The program while machines boot from it: what it says, to whom, and what cannot hold it up.

use super::*;
use crate::boot::{CLIENT, Card, MACHINE, SERVER, discover};
use auroraboot::dhcp::options;
use auroraboot::dhcp::packet::Packet;
use auroraboot::netboot::names::Names;
use std::io::{Write, pipe};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const SECRET_WORDS: &str = "do-not-repeat-this";
/// No answer may take longer, whatever else goes on; the product's own measure is milliseconds, a busy test machine's is not.
const AT_ONCE: Duration = Duration::from_secs(2);

/// A machine that asks once and is answered.
fn boots(card: &mut Card, xid: u32) {
    let asked = Instant::now();
    card.broadcast(&discover(xid));
    card.wait_for_xid(xid);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
}

/// A DISCOVER of a machine of another architecture (option 93, RFC 4578).
fn discover_of(arch: u16, xid: u32) -> Vec<u8> {
    let mut message = discover(xid);
    let at = message.windows(4).position(|window| window[..3] == [93, 2, 0]).unwrap();
    message[at + 2..at + 4].copy_from_slice(&arch.to_be_bytes());
    message
}

pub(super) fn get(site: &Site, path: &str) -> Vec<u8> {
    site.lan.as_machine(|| {
        let mut stream = TcpStream::connect((SERVER, 8090)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /{path} HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        response
    })
}

/// What the running program names its files by.
pub(super) fn names(site: &Site) -> Names {
    let secret = std::fs::read(site.state().join("secret")).unwrap();
    Names::new(secret.try_into().unwrap(), 8090)
}

#[test]
fn the_log_has_the_seeds_form_and_neither_tokens_nor_the_cloud_config() {
    let site = Site::new("log");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let cloud =
        site.dir.write("cloud.yaml", &format!("#cloud-config\nusers:\n- {{name: kairos, passwd: {SECRET_WORDS}}}\n"));
    let mut command = site.command(&registry.name(), &[]);
    command.arg("--debug").arg("--cloud-config").arg(&cloud);
    let mut run = site.start(command);
    run.wait_for("Ready: ");
    let mut card = Card::new(&site.lan, "eth0");
    boots(&mut card, 1);
    let line = run.wait_for("DHCP: Offering to boot");
    assert!(has_stamp(&line) && line[20..] == format!("DHCP: Offering to boot {MACHINE}"), "{line}");
    let names = names(&site);
    let config = get(&site, &names.path(MACHINE, auroraboot::netboot::names::file::CLOUD_CONFIG));
    assert!(String::from_utf8_lossy(&config).contains(SECRET_WORDS), "{}", config.escape_ascii());
    get(&site, &names.path(MACHINE, "no-such-file"));
    site.lan.as_machine(|| crate::boot::fetch(&names.path(MACHINE, "snponly.efi")));
    run.wait_for("TFTP: ");
    run.signal("TERM");
    let outcome = run.outcome();
    let token = names.token(MACHINE);
    for line in &outcome.succeeded().log {
        assert!(has_stamp(line) && !line.contains(&token) && !line.contains(SECRET_WORDS), "{line}");
    }
    let grep =
        Command::new("grep").args(["--recursive", "--files-with-matches", SECRET_WORDS]).arg(site.state()).output();
    // Both hold it by design, and are for the owner's eyes only.
    let found = String::from_utf8(grep.unwrap().stdout).unwrap();
    let mut found: Vec<&str> = found.lines().collect();
    found.sort_unstable();
    let (config, custom) = (site.iso("config.yaml"), site.iso("kairos.iso.custom.iso"));
    assert_eq!(found, [config.to_str().unwrap(), custom.to_str().unwrap()]);
    for path in [config, custom] {
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
    }
}

#[test]
fn machines_that_may_not_boot_or_cannot_are_told_once() {
    let site = Site::new("refuse");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let denied = format!("netboot.deny={MACHINE}");
    let mut run = site.serve(&registry.name(), &[&denied]);
    let card = Card::new(&site.lan, "eth0");
    for xid in 0..50 {
        card.broadcast(&discover(xid));
    }
    run.wait_for(&format!("DHCP: Ignoring a request of {MACHINE}"));
    run.signal("TERM");
    let outcome = run.outcome();
    let told = outcome.succeeded().log.iter().filter(|line| line.contains(&MACHINE.to_string())).count();
    assert!(told <= 2, "one line and at most a count of the others: {outcome:#?}");
    assert!(!outcome.said("Offering"));

    let mut run = site.serve(&registry.name(), &["netboot.allow=52:54:00"]);
    let mut card = Card::new(&site.lan, "eth0");
    let other = if Arch::host() == Arch::Amd64 { 11 } else { 7 };
    card.broadcast(&discover_of(other, 1));
    let line = run.wait_for("DHCP: Ignoring a request of");
    let reason = line.split_once(&format!("{MACHINE}: ")).unwrap().1;
    let (own, other) = if Arch::host() == Arch::Amd64 { ("amd64", "arm64") } else { ("arm64", "amd64") };
    assert_eq!(reason, format!("the image is {own}, this machine is {other}"));
    if Arch::host() == Arch::Amd64 {
        boots(&mut card, 2);
    }
}

#[test]
fn a_stderr_that_nobody_reads_holds_nothing_up() {
    let site = Site::new("blocked");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let (reader, mut writer) = pipe().unwrap();
    writer.write_all(&vec![b'x'; 64 << 10]).unwrap(); // all that a pipe holds
    let full = writer.try_clone().unwrap();
    let mut command = site.command(&registry.name(), &[]);
    command.stderr(writer);
    let run = site.start(command);
    wait_until_served(&site);
    let mut card = Card::new(&site.lan, "eth0");
    for xid in 1..20 {
        boots(&mut card, xid);
    }
    assert!(get(&site, &names(&site).path(MACHINE, "kernel")).starts_with(b"HTTP/1.1 200"));
    let told = Instant::now();
    run.signal("TERM");
    assert_eq!(run.outcome().code, Some(0));
    assert!(told.elapsed() < Duration::from_secs(5), "{:?}", told.elapsed());

    let mut command = site.command(&registry.name().replace(":it", ":missing"), &[]);
    command.stderr(full);
    assert_eq!(site.start(command).outcome().code, Some(1), "its last words wait for nobody either");
    drop(reader);
}

/// Without a log to look at: until the port answers.
fn wait_until_served(site: &Site) {
    let deadline = Instant::now() + PATIENCE;
    // The ports are rehearsed and closed before the download; what answers a request is the server itself.
    let answers = || {
        site.lan.as_machine(|| {
            let Ok(mut stream) = TcpStream::connect((SERVER, 8090)) else { return false };
            let asked = write!(stream, "HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n");
            let mut answer = Vec::new();
            asked.is_ok() && stream.read_to_end(&mut answer).is_ok() && !answer.is_empty()
        })
    };
    while !answers() {
        assert!(Instant::now() < deadline, "it does not serve");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn closed_outputs_are_no_reason_to_stop() {
    let site = Site::new("closed");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" >&- 2>&-", env!("CARGO_BIN_EXE_auroraboot")]);
    site.arguments(&mut command, &registry.name(), &[]);
    let run = site.start(command);
    wait_until_served(&site);
    boots(&mut Card::new(&site.lan, "eth0"), 1);
    run.signal("TERM");
    assert_eq!(run.outcome().code, Some(0));

    // And a reader that goes away later.
    let (reader, writer) = pipe().unwrap();
    let mut command = site.command(&registry.name(), &[]);
    command.stderr(writer);
    let run = site.start(command);
    wait_until_served(&site);
    drop(reader);
    let mut card = Card::new(&site.lan, "eth0");
    boots(&mut card, 1);
    boots(&mut card, 2);
    run.signal("TERM");
    assert_eq!(run.outcome().code, Some(0));
}

#[test]
fn a_thousand_slow_connections_delay_no_offer() {
    let site = Site::new("loris");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    // As most shells have it: fewer descriptors than the product may need.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_auroraboot")]);
    site.arguments(&mut command, &registry.name(), &[]);
    let mut run = site.start(command);
    run.wait_for("Ready: ");
    let mut card = Card::new(&site.lan, "eth0");
    boots(&mut card, 1);
    let before = run.status_value("VmRSS");
    let mut slow: Vec<TcpStream> =
        site.lan.as_machine(|| (0..1_000).map(|_| TcpStream::connect((SERVER, 8090)).unwrap()).collect());
    for round in 0..5 {
        for stream in &mut slow {
            let _ = stream.write_all(b"G");
        }
        boots(&mut card, 10 + round);
    }
    let open = std::fs::read_dir(format!("/proc/{}/fd", run.child.id())).unwrap().count();
    assert!(open > 1_000, "all of them are kept: {open}");
    assert!(get(&site, &names(&site).path(MACHINE, "kernel")).starts_with(b"HTTP/1.1 200"));
    let grown = run.status_value("VmRSS").saturating_sub(before);
    assert!(grown <= 8 << 10, "{grown} KiB for 1,000 connections");
}

#[test]
fn a_cable_that_is_pulled_and_put_back_is_told_and_served() {
    let site = Site::new("cable");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let mut run = site.serve(&registry.name(), &[]);
    ip(&["-n", &site.lan.server, "link", "set", "eth0", "down"]);
    run.wait_for("eth0: down; machines there get no answer");
    ip(&["-n", &site.lan.server, "link", "set", "eth0", "up"]);
    run.wait_for("eth0: serving machines from 10.77.0.2");
    let mut card = Card::new(&site.lan, "eth0");
    card.broadcast(&discover(3));
    let (from, offer) = card.wait_for(|packet| packet.xid() == 3);
    let offer = Packet::parse(&offer).unwrap();
    assert_eq!((*from.ip(), offer.option(options::MESSAGE_TYPE).unwrap().as_ref()), (SERVER, &[2][..]));
    assert_ne!(CLIENT, SERVER);
}

#[test]
fn a_rack_that_gets_its_power_back_while_we_look_elsewhere_is_answered() {
    const MACHINES: u32 = 3_000;
    let site = Site::new("rack");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let run = site.serve(&registry.name(), &[]);
    let mut card = Card::new(&site.lan, "eth0");
    boots(&mut card, 1);
    run.signal("STOP");
    for xid in 0..MACHINES {
        card.broadcast(&discover(1000 + xid));
    }
    run.signal("CONT");
    let mut answered = std::collections::HashSet::new();
    card.wait_for(|packet| {
        answered.insert(packet.xid());
        answered.len() > MACHINES as usize - 1
    });
}
