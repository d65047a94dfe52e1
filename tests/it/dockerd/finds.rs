//! Finding images in real daemons.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use auroraboot::source::daemon::{Daemon, Found};
use auroraboot::units::{Arch, Digest};

use super::real::{DOCKER, Engine, PODMAN};
use super::{daemon_at, one_line, refusal};

fn find(engine: &Engine, name: &str, arch: Arch) -> Option<Found> {
    daemon_at(&engine.socket).find(&name.parse().unwrap(), arch).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn by_every_name(engine: &Engine, daemon: &str) {
    let config = engine.image.blobs[engine.image.layers.len()].digest();
    let layers: Vec<Digest> = engine.image.layers.iter().map(|layer| layer.digest()).collect();
    let (id, start) = (config.to_string(), config.short());
    for name in ["sample/it:v1", "docker.io/sample/it:v1", &id] {
        let found = find(engine, name, Arch::Amd64).expect(name);
        assert_eq!((&found.diff_ids, found.id.as_str(), found.arch), (&layers, &*id, Arch::Amd64));
        assert!(found.size > 700_000, "{}", found.size);
        assert!(found.daemon().starts_with(daemon) && found.daemon().ends_with("/socket"), "{}", found.daemon());
    }
    // A name that is none, but how an ID begins: only when the daemon was meant.
    assert!(find(engine, &start, Arch::Amd64).is_none());
    let found = daemon_at(&engine.socket).require(&start.parse().unwrap(), Arch::Amd64).unwrap();
    assert_eq!(found.id.as_str(), id);
}

fn not_there(engine: &Engine, tool: &str) {
    for name in ["sample/it:v2", "sample/it", "nowhere.example/sample/it:v1"] {
        assert!(find(engine, name, Arch::Amd64).is_none(), "{name}");
        let line = refusal(&daemon_at(&engine.socket), name);
        let it_has = line.split_once("it has ").expect(&line).1;
        assert!(it_has.contains("sample/it:v1") && line.contains(&format!("does not have the image {name}")), "{line}");
        assert!(line.contains(&format!("{tool} pull {name}")), "{line}");
    }
}

fn of_another_architecture(engine: &Engine, tool: &str) {
    assert!(find(engine, "sample/arm:v1", Arch::Arm64).is_some());
    assert!(find(engine, "sample/arm:v1", Arch::Amd64).is_none());
    let line = refusal(&daemon_at(&engine.socket), "sample/arm:v1");
    let wants = format!("{tool} pull --platform linux/amd64 sample/arm:v1");
    assert!(line.contains("for linux/arm64, but linux/amd64 is wanted") && line.ends_with(&wants), "{line}");
}

/// A name without prefix is asked of the daemon before its registry is, so it must not be felt. Generous, for the machine is shared.
fn in_no_time(engine: &Engine) {
    let daemon = daemon_at(&engine.socket);
    let name = "sample/nowhere:v1".parse().unwrap();
    let fastest = (0..5).map(|_| {
        let started = Instant::now();
        assert!(daemon.find(&name, Arch::Amd64).unwrap().is_none());
        started.elapsed()
    });
    let fastest = fastest.min().unwrap();
    assert!(fastest < Duration::from_millis(200), "{fastest:?}");
}

#[test]
fn docker_is_asked_by_every_name_that_it_knows() {
    by_every_name(&DOCKER, "Docker ");
    not_there(&DOCKER, "docker");
    of_another_architecture(&DOCKER, "docker");
    in_no_time(&DOCKER);
}

#[test]
fn podman_is_asked_by_every_name_that_it_knows() {
    by_every_name(&PODMAN, "podman ");
    not_there(&PODMAN, "podman");
    of_another_architecture(&PODMAN, "podman");
    in_no_time(&PODMAN);
    // As `podman build -t built/here` leaves it.
    assert!(find(&PODMAN, "built/here", Arch::Amd64).is_some());
    assert!(find(&PODMAN, "localhost/built/here", Arch::Amd64).is_some());
}

/// Lets the daemon behind a socket be reached by TCP, as `dockerd -H tcp://` does.
fn over_tcp(socket: PathBuf) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((client, _)) = listener.accept() {
            let daemon = UnixStream::connect(&socket).unwrap();
            let (client_too, daemon_too) = (client.try_clone().unwrap(), daemon.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &client_too, &mut &daemon_too);
                daemon_too.shutdown(Shutdown::Write)
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut &daemon, &mut &client);
                TcpStream::shutdown(&client, Shutdown::Both)
            });
        }
    });
    port
}

#[test]
fn a_daemon_is_reached_over_tcp() {
    let ask = |port: u16, name: &str| {
        // A proxy is for the registries of the Internet.
        let variable = |name: &str| match name {
            "DOCKER_HOST" => Some(format!("tcp://127.0.0.1:{port}")),
            "http_proxy" => Some("http://127.0.0.1:1".to_owned()),
            _ => None,
        };
        Daemon::from_env(variable).unwrap().require(&name.parse().unwrap(), Arch::Amd64)
    };
    let port = over_tcp(DOCKER.socket.clone());
    let found = ask(port, "sample/it:v1").unwrap();
    assert!(found.daemon().ends_with(&format!(" at 127.0.0.1:{port}")), "{}", found.daemon());
    assert!(one_line(&ask(port, "sample/it:v2").unwrap_err()).contains("sample/it:v1"));
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(one_line(&ask(nobody, "a").unwrap_err()).contains("nobody answers at 127.0.0.1:"));
}
