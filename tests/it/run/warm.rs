//! Second starts: what is here is served at once, and replaced when the source has something else by now.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::serving::{get, names};
use super::*;
use crate::boot::MACHINE;
use crate::registry::real::{Guard, RealRegistry};

fn body(response: &[u8]) -> &[u8] {
    let head = response.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| {
        panic!("no response: {}", String::from_utf8_lossy(response));
    });
    &response[head + 4..]
}

/// What a machine gets under a name, whole.
fn fetch(site: &Site, file: &str) -> Vec<u8> {
    body(&get(site, &names(site).path(MACHINE, file))).to_vec()
}

/// The version of the boot set that a machine would begin with.
fn version(site: &Site) -> String {
    let script = String::from_utf8(fetch(site, "boot.ipxe")).unwrap();
    let url = script.split_once("kernel --name kernel ").unwrap().1.split_once("/kernel").unwrap().0;
    url.rsplit('/').next().unwrap().to_owned()
}

#[test]
fn a_second_start_serves_before_the_registry_has_answered() {
    let site = Site::new("hanging");
    let image = image(&bootable());
    let hangs = Arc::new(AtomicBool::new(false));
    let silent = Arc::clone(&hangs);
    let registry = site.registry(&image, move |_, _| {
        silent.load(Ordering::SeqCst).then(|| Reply { silent: true, ..Reply::default() })
    });
    site.build(&registry.name()).succeeded();
    hangs.store(true, Ordering::SeqCst);
    let mut run = site.serve(&registry.name(), &[]);
    assert!(run.log.iter().any(|line| line.contains("as it was on 2")), "{:#?}", run.log);
    assert_eq!(fetch(&site, "kernel"), kernel().as_bytes());
    run.wait_for("Pull: Asking for");
    run.signal("TERM");
    let outcome = run.outcome();
    assert!(outcome.succeeded().said("Stopped"), "a registry that hangs does not hold up the end: {outcome:#?}");
}

#[test]
fn a_tag_that_has_moved_is_built_and_takes_the_others_place() {
    let site = Site::new("moved");
    let first = image(&bootable());
    let mut entries = bootable();
    entries[1] = file("boot/vmlinuz-6.1", "another ".repeat(1000));
    let second = image(&entries);
    let registry = within(&site.lan.server, || {
        let registry = RealRegistry::start("run-moved", Guard::default());
        registry.push(&first.layout(&site.dir), "it/img:1");
        registry
    });
    let name = registry.name("it/img:1");
    site.build(&name).succeeded();
    within(&site.lan.server, || registry.push(&second.layout(&site.dir), "it/img:1"));
    let mut run = site.serve(&name, &[]);
    run.wait_for("is another one now: machines that begin from now on get it");
    let new = version(&site);
    assert_eq!(fetch(&site, &format!("{new}/kernel")), "another ".repeat(1000).as_bytes());
    assert_eq!(site.in_iso("kairos.iso", "/boot/kernel"), "another ".repeat(1000).as_bytes());
    let page = String::from_utf8_lossy(&site.get_media("/kairos.iso.sha256")).into_owned();
    assert_eq!(page.split_once("\r\n\r\n").unwrap().1, std::fs::read_to_string(site.iso("kairos.iso.sha256")).unwrap());
    run.signal("TERM");
    run.outcome().succeeded();
    // The next start finds the second image as the first one's heir, and nothing moves again.
    let mut run = site.serve(&name, &[]);
    assert_eq!(version(&site), new);
    run.wait_for("Build: Using what an earlier run made");
    run.signal("TERM");
    assert!(!run.outcome().succeeded().said("another one now"));
}

#[test]
fn offline_no_server_is_asked() {
    let site = Site::new("no-network");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let offline = |name: &str, more: &[&str]| {
        let settings = [MEDIA_ONLY, &["offline=true"], more].concat();
        site.start(site.command(name, &settings)).outcome()
    };
    let missing = offline(&registry.name(), &[]);
    assert!(missing.error().contains("run `auroraboot pull` with this configuration"), "{missing:#?}");
    site.build(&registry.name()).succeeded();
    let requests = registry.requests().len();
    assert!(offline(&registry.name(), &[]).reused());
    assert!(offline(&pinned(&registry, &image), &[]).reused(), "by digest, too");
    std::fs::remove_file(site.state().join("stamps/iso.json")).unwrap();
    assert!(!offline(&registry.name(), &[]).reused(), "made again of what is here");
    let url = format!("http://127.0.0.1:{}/x.iso", registry.port);
    let mut command = Command::new(env!("CARGO_BIN_EXE_auroraboot"));
    command.args(["--set", &format!("iso_url={url}"), "--set", "offline=true"]);
    command.args(["--set", &format!("state_dir={}", site.state().display())]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let refused = site.start(command).outcome();
    assert!(refused.error().contains("offline is set, so 127.0.0.1"), "{refused:#?}");
    assert_eq!(registry.requests().len(), requests, "nobody was asked");
}
