//! A machine's way through the names, the scripts and the journal, over real HTTP.

use crate::http::{CLOUD_CONFIG, MAC, Server, curl};
use auroraboot::daemon::boot_files::BootFiles;
use auroraboot::daemon::http::Options;
use auroraboot::dhcp::{BootFiles as _, Loader};
use auroraboot::netboot::journal::Journal;
use auroraboot::netboot::names::file;
use auroraboot::tftp::Files;
use log::Level;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

/// The URLs that stand in a script after these words.
fn url_after<'a>(script: &'a str, words: &str) -> &'a str {
    let rest = script.split(words).nth(1).unwrap_or_else(|| panic!("{words:?} is not in\n{script}"));
    rest.split_whitespace().next().unwrap()
}

#[test]
fn what_the_script_names_is_served_and_the_journal_tells_the_story() {
    let server = Server::start(Options::default());
    let script = String::from_utf8(curl(&[&server
        .names
        .script_url(Ipv4Addr::LOCALHOST, MAC)
        .replace(":8090", &format!(":{}", server.address.port()))]))
    .unwrap();
    assert!(script.starts_with("#!ipxe\n"));
    for words in ["kernel --name kernel ", "initrd --name initrd0 ", "root=live:"] {
        assert!(!curl(&[url_after(&script, words)]).is_empty(), "{words}");
    }
    assert_eq!(curl(&[url_after(&script, "config_url=")]), CLOUD_CONFIG);

    let mut journal = Journal::new(true);
    let mut lines = Vec::new();
    for second in 0..5 {
        journal.handle_input(Duration::from_secs(second), server.events.recv_timeout(Duration::from_secs(20)).unwrap());
        lines.extend(std::iter::from_fn(|| journal.poll_output()));
    }
    let token = server.names.token(MAC);
    assert!(lines.iter().all(|line| line.level == Level::Info && !line.text.contains(&token)), "{lines:?}");
    let starts = [
        "HTTP: Sending ipxe boot script to 127.0.0.1:",
        "52:54:00:12:34:56: has the address 127.0.0.1",
        "HTTP: Sent file \"kernel\" to 127.0.0.1:",
        "HTTP: Sent file \"initrd-0\" to 127.0.0.1:",
        "HTTP: Sent file \"other-0\" to 127.0.0.1:",
        "HTTP: Sent file \"other-1\" to 127.0.0.1:",
        "52:54:00:12:34:56: has everything after 4 s: kernel, initrd, image, cloud config",
    ];
    assert_eq!(lines.len(), starts.len(), "{lines:?}");
    for (line, start) in lines.iter().zip(starts) {
        assert!(line.text.starts_with(start), "{line:?}");
    }
}

#[test]
fn a_uefi_machine_finds_its_script_at_the_root_after_its_loader() {
    let served = crate::http::served();
    let names = served.names.clone();
    let dir = BootFiles::new(Arc::new(served));
    let (client, server) = (SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 9), 1069), Ipv4Addr::new(10, 0, 0, 1));
    let text = |name: &str| {
        let content = dir.open(client, server, name)?;
        let mut bytes = vec![0; usize::try_from(content.len()).unwrap()];
        content.read_at(0, &mut bytes).unwrap();
        Some(String::from_utf8(bytes).unwrap())
    };
    assert!(text("autoexec.ipxe").unwrap().contains("by-mac"), "nobody is known yet");
    assert!(text("by-mac/52-54-00-12-34-56/autoexec.ipxe").is_none());
    dir.offered(MAC);
    assert!(text("by-mac/52-54-00-12-34-56/autoexec.ipxe").is_some());
    assert_eq!(text(&names.tftp_name(MAC, Loader::SnponlyX64)).unwrap(), "MZ not really");
    let script = text("autoexec.ipxe").unwrap();
    assert!(script.contains(&names.url(server, MAC, &format!("v1/{}", file::KERNEL))), "{script}");
    assert!(text(&names.path(MAC, file::KERNEL)).is_none(), "big files go by HTTP");
}
