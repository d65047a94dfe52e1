//! Daemons that misbehave: each fault by name, in time.

use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use auroraboot::limits;
use auroraboot::source::daemon::{Daemon, Patience};
use auroraboot::units::Arch;

use super::fake::{FakeDaemon, Reply};
use super::{IMPATIENT, daemon_at, daemon_with, one_line, refusal};
use crate::registry::real::TempDir;

const PING_ENDLESS: &[u8] = b"HTTP/1.1 200 OK\r\n";

#[test]
fn without_a_daemon_it_is_said_where_one_was_looked_for() {
    let dir = TempDir::new("no-daemon");
    let runtime = dir.path().display().to_string();
    let daemon = daemon_at(&dir.path().join("socket"));
    let started = Instant::now();
    assert!(daemon.find(&"a".parse().unwrap(), Arch::Amd64).unwrap().is_none());
    assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
    let line = refusal(&daemon, "a");
    assert!(line.contains(&format!("no Docker or podman daemon at {runtime}/socket")), "{line}");
    assert!(line.contains("systemctl start docker") && line.contains("DOCKER_HOST"), "{line}");
}

#[test]
fn a_socket_that_nobody_serves_is_told_from_one_that_is_not_there() {
    let dir = TempDir::new("stale-socket");
    drop(UnixListener::bind(dir.path().join("socket")).unwrap());
    let daemon = daemon_at(&dir.path().join("socket"));
    let line = refusal(&daemon, "a");
    assert!(line.contains("nobody answers at") && line.contains("is the daemon running?"), "{line}");
    let error = daemon.find(&"a".parse().unwrap(), Arch::Amd64).unwrap_err();
    assert!(!error.is_absence(), "an operator wants to hear of it");
}

#[test]
fn a_daemon_that_hangs_is_given_up_by_name_and_in_time() {
    let silent = FakeDaemon::start("silent", |_| Some(Reply::Hang(Vec::new())));
    let dripping = FakeDaemon::start("dripping", |path| match path {
        "/_ping" => None,
        _ => Some(Reply::Hang(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec())),
    });
    let endless =
        FakeDaemon::start("endless-head", |_| Some(Reply::Endless(PING_ENDLESS.to_vec(), b"x: y\r\n".to_vec())));
    for fake in [&silent, &dripping, &endless] {
        let daemon = daemon_with(&fake.socket(), IMPATIENT);
        let started = Instant::now();
        let error = daemon.find(&"a".parse().unwrap(), Arch::Amd64).unwrap_err();
        let took = started.elapsed();
        assert!(took < IMPATIENT.find * 10, "{took:?}: {error}");
        assert!(one_line(&error).contains("/socket"), "{error}");
    }
    let line = refusal(&daemon_with(&silent.socket(), IMPATIENT), "a");
    assert!(line.contains("hangs") && line.contains("0.6 s"), "{line}");
}

#[test]
fn all_daemons_together_are_given_the_time_of_one() {
    let silent = FakeDaemon::start("silent-too", |_| Some(Reply::Hang(Vec::new())));
    let podman = silent.dir().join("podman");
    std::fs::create_dir(&podman).unwrap();
    std::fs::rename(silent.socket(), silent.dir().join("docker.sock")).unwrap();
    std::os::unix::fs::symlink("../docker.sock", podman.join("podman.sock")).unwrap();
    let runtime = silent.dir().display().to_string();
    let variable = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone());
    let daemon = Daemon::with_patience(variable, IMPATIENT).unwrap();
    let error = daemon.find(&"auroraboot/it/nowhere".parse().unwrap(), Arch::Amd64).unwrap_err();
    assert!(one_line(&error).contains("podman.sock hangs"), "{error}");
    assert_eq!(silent.count("/_ping"), 1, "the second was not asked any more");
}

#[test]
fn the_daemon_is_given_the_named_time() {
    let patience = Patience::default();
    assert_eq!(
        [patience.find, patience.require, patience.export, patience.stall],
        [
            limits::DAEMON_FIND_TIMEOUT,
            limits::DAEMON_ANSWER_TIMEOUT,
            limits::DAEMON_EXPORT_TIMEOUT,
            limits::DAEMON_STALL_TIMEOUT
        ]
    );
}

#[test]
fn an_answer_that_makes_no_sense_says_which_daemon_gave_it() {
    let sha = "0".repeat(64);
    let layers = |count: usize| vec![format!("\"sha256:{sha}\""); count].join(",");
    let image = |layers: &str| {
        format!(
            r#"{{"Id": "sha256:{sha}", "Architecture": "amd64", "Os": "linux", "Size": -1, "RootFS": {{"Layers": {layers}}}}}"#
        )
    };
    let cases = [
        (
            Reply::json(500, r#"{"message": "layer store\nis on fire"}"#),
            "Docker 26.1 at",
            "answers 500: layer store\u{fffd}is on fire",
        ),
        (Reply::json(500, "<html>"), "Docker 26.1 at", "answers 500"),
        (Reply::json(404, "<html>"), "is not a Docker or podman daemon", "DOCKER_HOST"),
        (Reply::json(200, "<html>"), "describes a/b:c in a way that is not understood", "expected value"),
        (Reply::json(200, r#"{"Id": 1}"#), "in a way that is not understood", "integer"),
        (Reply::json(200, &image("null")), "has no layers of it", "docker pull a/b:c"),
        (Reply::json(200, &image(r#"["sha256:x\u001b[2J"]"#)), "is no digest", "sha256:x"),
        (Reply::json(200, &image(&format!("[{}]", layers(limits::LAYERS_MAX + 1)))), "513 layers", "at most 512"),
        (Reply::json(200, &image("[]").replace(&format!("sha256:{sha}"), "../../x")), "has no layers", ""),
        (
            Reply::json(200, &image(&format!("[{}]", layers(1))).replacen(&format!("sha256:{sha}"), "../../x", 1)),
            "in a way that is not understood",
            "no image name",
        ),
        (Reply::Raw(b"SSH-2.0-OpenSSH\r\n".to_vec()), " Docker 26.1 at", "does not speak HTTP"),
        (Reply::Raw(Vec::new()), " Docker 26.1 at", ""),
        (Reply::Raw(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()), " Docker 26.1 at", ""),
    ];
    for (number, (reply, what, why)) in cases.into_iter().enumerate() {
        let reply = std::sync::Mutex::new(Some(reply));
        let fake = FakeDaemon::start(&format!("nonsense-{number}"), move |path| {
            path.starts_with("/images/a/b%3Ac/json").then(|| reply.lock().unwrap().take().expect("one request"))
        });
        let line = refusal(&daemon_at(&fake.socket()), "a/b:c");
        assert!(line.contains(what) && line.contains(why), "case {number}: {line}");
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n[".to_vec();
    let fake = FakeDaemon::start("endless", move |path| {
        path.ends_with("/json").then(|| Reply::Endless(head.clone(), vec![b' '; 1 << 16]))
    });
    let line = refusal(&daemon_at(&fake.socket()), "a");
    assert!(line.contains(&format!("larger than {} bytes", limits::DAEMON_ANSWER_BYTES_MAX)), "{line}");
}

#[test]
fn several_daemons_are_asked_in_turn() {
    let dir = TempDir::new("several");
    let runtime = dir.path().display().to_string();
    std::fs::create_dir(dir.path().join("podman")).unwrap();
    drop(UnixListener::bind(dir.path().join("podman/podman.sock")).unwrap());
    let docker = FakeDaemon::start("second", |path| {
        (path == "/images/auroraboot/it/here/json").then(|| {
            let digest = format!("sha256:{}", "1".repeat(64));
            let rootfs = format!(r#"{{"Layers": ["{digest}"]}}"#);
            Reply::json(200, &format!(r#"{{"Id": "{digest}", "Architecture": "amd64", "RootFS": {rootfs}}}"#))
        })
    });
    std::os::unix::fs::symlink(docker.socket(), dir.path().join("docker.sock")).unwrap();
    let variable = |name: &str| (name == "XDG_RUNTIME_DIR").then(|| runtime.clone());
    let daemon = Daemon::from_env(variable).unwrap();
    let found = daemon.find(&"auroraboot/it/here".parse().unwrap(), Arch::Amd64).unwrap().unwrap();
    assert_eq!(found.daemon(), format!("Docker 26.1 at {runtime}/docker.sock"));
    assert!(daemon.find(&"auroraboot/it/nowhere".parse().unwrap(), Arch::Amd64).is_err());
    assert_eq!(docker.count("/images/json"), 0, "a list takes time, and is not shown here");
    let line = refusal(&daemon, "auroraboot/it/nowhere");
    assert_eq!(docker.count("/images/json"), 1);
    assert!(line.contains("no local daemon can give auroraboot/it/nowhere: "), "{line}");
    assert!(line.contains("nobody answers at") && line.contains("; Docker 26.1 at"), "{line}");
}
