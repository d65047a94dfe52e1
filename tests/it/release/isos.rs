//! An ISO by its path or URL.

use std::fs::File;

use auroraboot::limits;
use auroraboot::source::{Verified, fetch};

use super::*;

fn server() -> Server {
    Server::start(|request, _| match request.path.as_str() {
        "/x.iso?key=hunter2" | "/x.iso" => Some(file(request, &iso())),
        "/x.iso.sha256?key=hunter2" => Some(Reply::new(200, format!("{}  old-name.iso\n", hex(&iso())))),
        _ => None,
    })
}

#[test]
fn an_iso_by_url_and_the_checksum_beside_it() {
    let (server, host) = (server(), Host::new("url"));
    let url = server.url("/x.iso?key=hunter2");
    let fetched = host.fetch_iso(&url).unwrap();
    host.has(&fetched, &iso());
    assert_eq!((fetched.verified, fetched.url), (Verified::Published, server.url("/x.iso")));
    assert!(host.fetch_iso(&url).unwrap().reused);
    let plain = host.fetch_iso(&server.url("/x.iso")).unwrap();
    assert_eq!((plain.verified, plain.reused), (Verified::Unpublished, false), "another address, not vouched for");
}

#[test]
fn the_login_of_an_address_goes_to_its_host_only() {
    let store = Server::start(|request, _| (request.path == "/x").then(|| file(request, &iso())));
    let location = store.url("/x");
    let server = Server::start(move |request, _| {
        (request.path == "/x.iso").then(|| Reply::new(302, "").header("location", location.clone()))
    });
    let url = server.url("/x.iso").replace("http://", "http://bob:hunter2@");
    let host = Host::new("login");
    let fetched = host.fetch_iso(&url).unwrap();
    host.has(&fetched, &iso());
    assert_eq!(fetched.url, server.url("/x.iso"));
    assert!(server.requests().iter().all(|request| request.header("authorization") == Some("Basic Ym9iOmh1bnRlcjI=")));
    assert!(store.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[test]
fn statuses_are_told_in_words() {
    let host = Host::new("statuses");
    for (status, words) in [
        (404, "/x.iso does not exist"),
        (403, "refuses "),
        (410, "does not exist"),
        (500, "answers 500"),
        (418, "answers 418"),
    ] {
        let server = Server::start(move |request, _| (request.path == "/x.iso").then(|| Reply::new(status, "")));
        let error = host.fetch_iso(&server.url("/x.iso")).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let error = host.fetch_iso("ftp://example.com/x.iso").unwrap_err();
    assert!(error.contains("is not an http:// or https:// address"), "{error}");
}

#[test]
fn an_iso_of_this_machine_is_copied_once() {
    let host = Host::new("path");
    let (path, beside) = (host.dir.path().join("mine.img"), host.dir.path().join("mine.img.sha256"));
    std::fs::write(&path, iso()).unwrap();
    let location = path.to_str().unwrap();
    let fetched = host.fetch_iso(location).unwrap();
    host.has(&fetched, &iso());
    assert_eq!((fetched.verified, fetched.reused, fetched.url.as_str()), (Verified::Unpublished, false, location));
    assert!(host.fetch_iso(location).unwrap().reused);

    std::fs::write(&path, noise(SIZE, 8)).unwrap();
    std::fs::write(&beside, hex(&noise(SIZE, 8))).unwrap();
    let newer = host.fetch_iso(location).unwrap();
    host.has(&newer, &noise(SIZE, 8));
    assert_eq!((newer.verified, newer.reused), (Verified::Published, false));

    std::fs::write(&beside, hex(b"other")).unwrap();
    let error = host.fetch_iso(location).unwrap_err();
    assert!(error.contains(&format!("but sha256:{} stands in {location}.sha256", hex(b"other"))), "{error}");
    host.has(&newer, &noise(SIZE, 8));
}

#[test]
fn a_copy_is_told_and_can_be_stopped() {
    let host = Host::new("stopped-copy");
    let path = host.dir.path().join("mine.img");
    let large = File::create(&path).unwrap();
    large.set_len(3 * limits::COPY_STEP_BYTES).unwrap();
    let client = host.client();
    let mut told = Vec::new();
    let stopped = fetch_iso(&client, path.to_str().unwrap(), &host.iso(), &host.stamp(), &mut |_, now| {
        told.push((now.here, now.total, now.ended));
        client.stopper().stop();
    });
    assert!(matches!(stopped, Err(fetch::Error::Stopped)), "{stopped:?}");
    let (step, total) = (limits::COPY_STEP_BYTES, Some(3 * limits::COPY_STEP_BYTES));
    assert_eq!(told, [(step, total, false), (step, total, true)]);
    assert!(!host.iso().exists() && !host.part().exists());
    let whole = host.fetch_iso(path.to_str().unwrap()).unwrap();
    assert_eq!(whole.size, 3 * step);
    assert_eq!(host.told.lock().unwrap().iter().map(|now| now.here / step).collect::<Vec<_>>(), [1, 2, 3, 3]);
}

#[test]
fn a_path_without_a_file_is_told() {
    let host = Host::new("no-path");
    for (location, words) in [("/nowhere/x.iso", "cannot read /nowhere/x.iso"), ("/proc", "/proc is not a file")] {
        let error = host.fetch_iso(location).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
}

#[test]
fn a_copy_that_was_ended_is_not_taken_for_a_part_of_a_download() {
    let server = Server::start(|request, before| match request.path.as_str() {
        "/x.iso" if before == 0 => Some(file(request, &iso()).cut(SIZE / 2)),
        "/x.iso" if before < 5 => Some(Reply::new(503, "")),
        "/x.iso" => Some(file(request, &iso())),
        _ => None,
    });
    let host = Host::new("mixed");
    host.fetch_iso(&server.url("/x.iso")).unwrap_err();
    // A copy ends half-way: its checksum is not that of the file.
    let path = host.dir.path().join("mine.img");
    std::fs::write(&path, noise(SIZE, 8)).unwrap();
    std::fs::write(host.dir.path().join("mine.img.sha256"), hex(b"other")).unwrap();
    host.fetch_iso(path.to_str().unwrap()).unwrap_err();
    std::fs::write(host.part(), noise(SIZE / 2, 8)).unwrap();
    let fetched = host.fetch_iso(&server.url("/x.iso")).unwrap();
    host.has(&fetched, &iso());
}
