//! What the host lacks or has taken: told before anything is downloaded.

use super::*;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};

const NOBODY: u32 = 65_534;

/// A run that must end before the registry is asked anything.
fn refused_at_once(site: &Site, settings: &[&str]) -> String {
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let outcome = site.start(site.command(&registry.name(), settings)).outcome();
    assert!(registry.requests().is_empty(), "{outcome:#?}");
    outcome.error().to_owned()
}

#[test]
fn a_taken_port_is_told_with_its_holder_before_any_download() {
    let site = Site::new("ports");
    let holder = format!("(process {})", std::process::id());
    for port in [69, 4011] {
        let _taken = within(&site.lan.server, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let error = refused_at_once(&site, &[]);
        assert!(error.contains(&format!(" {port} ")) && error.contains(&holder), "{error}");
    }
    let _taken = within(&site.lan.server, || TcpListener::bind("0.0.0.0:8090").unwrap());
    let error = refused_at_once(&site, &[]);
    assert!(error.contains(":8090") && error.contains(&holder), "{error}");
    let _media = within(&site.lan.server, || TcpListener::bind("0.0.0.0:8080").unwrap());
    let error = refused_at_once(&site, &["disable_netboot=true"]);
    assert!(error.contains(":8080") && error.contains(&holder) && error.contains("listen_addr"), "{error}");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    site.serve(&registry.name(), &["netboot_http_port=8091", "listen_addr=:8081"]);
}

#[test]
fn a_host_without_a_suitable_interface_is_told_which_and_why() {
    let site = Site::new("interfaces");
    let error = refused_at_once(&site, &["interfaces=eth7"]);
    assert!(error.contains("eth7") && error.contains("it has lo, eth0"), "{error}");
    ip(&["-n", &site.lan.server, "link", "set", "eth0", "down"]);
    let error = refused_at_once(&site, &[]);
    assert_eq!(error, "no network interface to serve on: lo: loopback; eth0: down");
}

#[test]
fn an_ordinary_user_builds_but_does_not_serve() {
    let site = Site::new("nobody");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let program = site.dir.path().join("auroraboot"); // where this user can reach it
    std::fs::copy(env!("CARGO_BIN_EXE_auroraboot"), &program).unwrap();
    std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let as_nobody = |settings: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args([&format!("--reuid={NOBODY}"), &format!("--regid={NOBODY}"), "--clear-groups"]);
        command.args(["--inh-caps=-all", "--bounding-set=-all"]).arg(&program);
        site.arguments(&mut command, &registry.name(), settings);
        command.env("HOME", "/nonexistent");
        site.start(command).outcome()
    };
    let refused = as_nobody(&[]);
    assert!(refused.error().contains("needs CAP_NET_RAW: run with sudo"), "{refused:#?}");
    assert!(registry.requests().is_empty());
    as_nobody(MEDIA_ONLY).succeeded();
    assert!(as_nobody(MEDIA_ONLY).reused());
}

#[test]
fn a_state_directory_that_is_none_is_refused() {
    let site = Site::new("state");
    let settings = &["disable_netboot=true"];
    let state = site.state();

    std::fs::write(&state, "a file").unwrap();
    let error = refused_at_once(&site, settings);
    assert!(error.contains(state.to_str().unwrap()) && error.contains("--set state_dir=PATH"), "{error}");
    std::fs::remove_file(&state).unwrap();

    symlink(site.dir.path(), &state).unwrap();
    let error = refused_at_once(&site, settings);
    assert!(error.contains("holds other things than auroraboot's"), "{error}");
    lchown(&state, Some(NOBODY), None).unwrap();
    let error = refused_at_once(&site, settings);
    assert!(error.contains("belongs to user 65534"), "a link that somebody else can turn: {error}");
    std::fs::remove_file(&state).unwrap();

    std::fs::create_dir(&state).unwrap();
    chown(&state, Some(NOBODY), None).unwrap();
    let error = refused_at_once(&site, settings);
    assert!(error.contains("belongs to user 65534, not to this one (0)"), "{error}");
    assert_eq!(std::fs::read_dir(&state).unwrap().count(), 0);
}

#[test]
fn a_second_run_leaves_the_first_alone() {
    let site = Site::new("twice");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let first = site.serve(&registry.name(), &[]);
    let error = refused_at_once(&site, &["disable_netboot=true"]);
    assert!(
        error.ends_with("is in use by another auroraboot; end that one, or name another with --set state_dir=PATH")
    );
    first.signal("TERM");
    first.outcome().succeeded();
    let files = |path: &Path| {
        let entries = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut entries: Vec<_> = entries.collect();
        entries.sort();
        entries
    };
    assert_eq!(files(&site.state()), ["blobs", "iso", "lock", "secret", "stamps", "web"]);
    assert_eq!(files(&site.iso("")), ["kairos.iso", "kairos.iso.sha256"]);
    assert!(files(&site.state().join("web")).is_empty(), "the socket goes with the server");
}

#[test]
fn a_dry_run_leaves_no_trace() {
    let site = Site::new("dry");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let mut command = site.command(&registry.name(), &[]);
    command.arg("--dry-run");
    let outcome = site.start(command).outcome();
    assert!(outcome.succeeded().out.contains(&registry.name()));
    assert!(registry.requests().is_empty() && !site.state().exists());
}
