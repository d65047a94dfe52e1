//! Downloads that break, end, differ or do not fit: resumed where that is right, and never half-used.

use std::process::{Command, Stdio};

use auroraboot::limits;
use auroraboot::source::Verified;

use super::*;
use crate::run::SmallDisk;

/// A release whose ISO is given out as `handler` says.
fn release(checksum: Option<String>, handler: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Server {
    Server::start(move |request, before| match request.path.strip_prefix(&iso_path())? {
        "" => Some(handler(request, before)),
        ".sha256" => checksum.clone().map(|text| Reply::new(200, text)),
        _ => None,
    })
}

/// [`release`], where the first request for the ISO gets `length` bytes of it.
fn cut_once(checksum: Option<String>, length: usize) -> Server {
    release(checksum, move |request, before| {
        let reply = file(request, &iso());
        if before == 0 { reply.cut(length) } else { reply }
    })
}

fn good() -> Option<String> {
    Some(checksum_of(&iso()))
}

#[test]
fn a_connection_that_breaks_is_resumed_where_it_broke() {
    // Without a checksum it is asked first whether the file is there.
    for (checksum, first) in [(good(), &[None][..]), (None, &[Some(0), None])] {
        let breaking = first.len() - 1;
        let server = release(checksum, move |request, before| {
            if request.header("range") == Some("bytes=0-0") {
                return Reply::new(206, "x");
            }
            let reply = file(request, &iso());
            if before == breaking { reply.cut(SIZE / 10 * 9) } else { reply }
        });
        let host = Host::new("broken");
        let fetched = host.fetch_from(&server).unwrap();
        host.has(&fetched, &iso());
        let ranges: Vec<_> = server.requests().into_iter().filter(|request| request.path == iso_path()).collect();
        let last = ranges.last().unwrap();
        assert_eq!((ranges.len(), last.range_start()), (first.len() + 1, Some(SIZE / 10 * 9)));
        assert!(last.header("if-range").is_some());
        assert_eq!(host.told.lock().unwrap().last().unwrap().fetched, SIZE as u64, "nothing came twice");
    }
}

#[test]
fn a_download_that_was_given_up_is_resumed_by_the_next_run() {
    let until = Arc::new(Mutex::new(SIZE / 2));
    let open = Arc::clone(&until);
    let server = release(good(), move |request, _| {
        let reply = file(request, &iso());
        let left = open.lock().unwrap().saturating_sub(request.range_start().unwrap_or(0));
        if left < reply.body.len() { reply.cut(left) } else { reply }
    });
    let host = Host::new("given-up");
    let error = host.fetch_from(&server).unwrap_err();
    assert!(error.contains("stopped at 500.0 kB of 1.0 MB; the next start goes on from there"), "{error}");
    assert!(!host.iso().exists() && host.part().exists());
    *until.lock().unwrap() = usize::MAX;
    let fetched = host.fetch_from(&server).unwrap();
    host.has(&fetched, &iso());
    let told = host.told.lock().unwrap();
    assert_eq!((told[0].here, told.last().unwrap().fetched), (SIZE as u64 / 2, SIZE as u64 / 2));
    drop(told);
    assert_eq!(server.starts(&iso_path()).last(), Some(&Some(SIZE / 2)));
}

#[test]
fn a_file_that_changed_in_between_is_fetched_from_its_start() {
    for is_published in [true, false] {
        let version = Arc::new(Mutex::new(1));
        let current = Arc::clone(&version);
        let server = Server::start(move |request, _| {
            let version = *current.lock().unwrap();
            let bytes = noise(SIZE, version);
            match request.path.strip_prefix("/x.iso")? {
                "" if version == 1 => Some(file(request, &bytes).cut(SIZE / 2))
                    .filter(|_| request.range_start().is_none())
                    .or(Some(Reply::new(500, ""))),
                "" => Some(file(request, &bytes)),
                ".sha256" if is_published => Some(Reply::new(200, hex(&bytes))),
                _ => None,
            }
        });
        let host = Host::new("changed");
        host.fetch_iso(&server.url("/x.iso")).unwrap_err();
        assert_eq!(std::fs::metadata(host.part()).unwrap().len(), SIZE as u64 / 2);
        *version.lock().unwrap() = 2;
        let fetched = host.fetch_iso(&server.url("/x.iso")).unwrap();
        host.has(&fetched, &noise(SIZE, 2));
    }
}

#[test]
fn a_part_of_another_address_is_not_gone_on_with() {
    let host = Host::new("other-address");
    let first = Server::start(|request, before| {
        (request.path == "/x.iso" && before == 0).then(|| file(request, &noise(SIZE, 1)).cut(SIZE / 2))
    });
    host.fetch_iso(&first.url("/x.iso")).unwrap_err();
    assert!(host.part().exists());
    let second = Server::start(|request, _| (request.path == "/y.iso").then(|| file(request, &iso())));
    let fetched = host.fetch_iso(&second.url("/y.iso")).unwrap();
    host.has(&fetched, &iso());
    assert_eq!(second.starts("/y.iso"), [None]);
}

#[test]
fn a_part_of_before_a_crash_needs_a_checksum_to_be_gone_on_with() {
    for is_published in [true, false] {
        let server = Server::start(move |request, before| match request.path.as_str() {
            "/x.iso" if before == 0 => Some(file(request, &iso()).cut(SIZE / 2)),
            "/x.iso" if before < limits::ATTEMPTS_MAX as usize => Some(Reply::new(500, "")),
            "/x.iso" => Some(file(request, &iso())),
            "/x.iso.sha256" if is_published => Some(Reply::new(200, hex(&iso()))),
            _ => None,
        });
        let host = Host::new("crash");
        host.fetch_iso(&server.url("/x.iso")).unwrap_err();
        // The machine went down: pages that had not reached the disk read as zeros.
        let mut part = std::fs::read(host.part()).unwrap();
        part[1000..2000].fill(0);
        std::fs::write(host.part(), part).unwrap();
        let note = host.dir.path().join("stamp.part");
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let text = std::fs::read_to_string(&note).unwrap();
        assert!(text.contains(boot.trim()), "{text}");
        std::fs::write(&note, text.replace(boot.trim(), "00000000-0000-0000-0000-000000000000")).unwrap();
        let fetched = host.fetch_iso(&server.url("/x.iso")).unwrap();
        host.has(&fetched, &iso());
    }
}

#[test]
fn a_server_without_ranges_is_read_past_what_is_here() {
    let server = release(good(), |_, before| {
        let reply = Reply::new(200, iso()).header("last-modified", "Wed, 08 Feb 2023 14:27:30 GMT");
        if before < 2 { reply.cut(SIZE / 3 * (before + 1)) } else { reply }
    });
    let host = Host::new("no-ranges");
    let fetched = host.fetch_from(&server).unwrap();
    host.has(&fetched, &iso());
    let asked = server.starts(&iso_path());
    assert_eq!(asked, [None, Some(SIZE / 3), Some(SIZE / 3 * 2)]);
}

#[test]
fn a_server_that_vouches_for_nothing_is_read_from_the_start_unless_a_checksum_tells() {
    for checksum in [good(), None] {
        let server = Server::start(move |request, before| match request.path.as_str() {
            "/x.iso" if before == 0 => Some(Reply::new(200, iso()).cut(SIZE / 2)),
            // What is repeated differs: only a checksum would have noticed.
            "/x.iso" => Some(Reply::new(200, noise(SIZE, 9))),
            "/x.iso.sha256" => checksum.clone().map(|text| Reply::new(200, text)),
            _ => None,
        });
        let host = Host::new("vouches");
        match host.fetch_iso(&server.url("/x.iso")) {
            Ok(fetched) => host.has(&fetched, &noise(SIZE, 9)),
            Err(error) => assert!(error.contains("is published; it was altered"), "{error}"),
        }
    }
}

#[test]
fn a_checksum_that_does_not_fit_is_told_and_the_file_not_used() {
    let server = cut_once(Some(checksum_of(b"something else")), SIZE / 2);
    let host = Host::new("mismatch");
    std::fs::write(host.iso(), "the good one of before").unwrap();
    let error = host.fetch_from(&server).unwrap_err();
    let both = format!("has sha256:{}, but sha256:{} is published", hex(&iso()), hex(b"something else"));
    assert!(error.contains(&both), "{error}");
    assert_eq!(std::fs::read(host.iso()).unwrap(), b"the good one of before");
    assert!(!host.part().exists());
}

#[test]
fn a_part_that_is_damaged_costs_a_download_and_no_more() {
    let server = release(good(), |request, before| match before {
        0 => file(request, &iso()).cut(SIZE / 2),
        before if before < limits::ATTEMPTS_MAX as usize => Reply::new(503, ""),
        _ => file(request, &iso()),
    });
    let host = Host::new("damaged");
    host.fetch_from(&server).unwrap_err();
    let mut part = std::fs::read(host.part()).unwrap();
    part[7] ^= 1;
    std::fs::write(host.part(), part).unwrap();
    let fetched = host.fetch_from(&server).unwrap();
    host.has(&fetched, &iso());
    let starts = server.starts(&iso_path());
    assert_eq!(starts[starts.len() - 2..], [Some(SIZE / 2), None]);
}

#[test]
fn a_file_that_is_cut_short_on_the_server_is_told() {
    let server = release(good(), |request, _| file(request, &iso()[..SIZE / 2]));
    let error = Host::new("cut-short").fetch_from(&server).unwrap_err();
    assert!(error.contains("it was altered on the way or is not complete on the server"), "{error}");
}

#[test]
fn a_range_that_was_not_asked_for_is_not_written() {
    let server = release(good(), |request, before| match before {
        0 => file(request, &iso()).cut(1000),
        _ => Reply::new(206, &iso()[2000..])
            .header("content-range", format!("bytes 2000-{}/{SIZE}", SIZE - 1))
            .header("etag", file(request, &iso()).headers.iter().find(|(name, _)| name == "etag").unwrap().1.clone()),
    });
    let host = Host::new("other-range");
    let error = host.fetch_from(&server).unwrap_err();
    assert!(error.contains("sends \"bytes 2000-999999/1000000\" when asked for the bytes from 1000"), "{error}");
    assert!(!host.iso().exists());
}

#[test]
fn what_is_too_large_to_be_an_iso_is_refused_before_it_comes() {
    let length = usize::try_from(limits::ISO_BYTES_MAX).unwrap() + 1;
    let server = Server::start(move |request, _| {
        let claimed = Reply { claim: Some(length), ..Reply::new(200, "x") };
        (request.path == "/x.iso").then_some(claimed)
    });
    let error = Host::new("too-large").fetch_iso(&server.url("/x.iso")).unwrap_err();
    assert!(error.contains("is larger than") && error.contains("which no ISO is"), "{error}");
}

#[test]
fn a_checksum_file_that_is_none_is_told() {
    let length = usize::try_from(limits::CHECKSUM_BYTES_MAX).unwrap() + 1;
    for (text, words) in [("hello\n".to_owned(), "holds no sha256 of"), ("x".repeat(length), "is larger than")] {
        let server = release(Some(text), |request, _| file(request, &iso()));
        let error = Host::new("no-sha256").fetch_from(&server).unwrap_err();
        assert!(error.contains(words) && error.contains(".iso.sha256"), "{error}");
    }
}

#[test]
fn a_full_disk_is_named_and_the_next_run_goes_on() {
    let bytes = noise(4 << 20, 5);
    let sent = bytes.clone();
    let server = Server::start(move |request, _| (request.path == "/x.iso").then(|| file(request, &sent)));
    let host = Host::new("full");
    let disk = SmallDisk::mount(host.dir.path(), 2);
    let error = host.fetch_iso(&server.url("/x.iso")).unwrap_err();
    let words = format!("the disk of {} is full; ", host.part().display());
    assert!(error.contains(&words) && error.ends_with(" MB more are needed for this file alone"), "{error}");
    let have = std::fs::metadata(host.part()).unwrap().len();
    assert!(have > 1 << 20 && !host.iso().exists());
    disk.enlarge(16);
    let fetched = host.fetch_iso(&server.url("/x.iso")).unwrap();
    host.has(&fetched, &bytes);
    let resumed = server.starts("/x.iso").last().unwrap().unwrap() as u64;
    assert!(resumed > 1 << 20 && resumed <= have, "{resumed}");
}

#[test]
fn stopping_does_not_wait_for_a_server_that_sends_nothing() {
    let server = release(good(), |request, _| file(request, &iso()).stall(SIZE / 2));
    let mut host = Host::new("stop");
    host.settings.timeouts.stall = Duration::from_secs(3600);
    let client = host.client();
    let stopper = client.clone();
    let url = server.url("");
    let query = ReleaseQuery { github_url: Some(&url), ..query() };
    let mut stop_halfway = |_: Instant, transferred: Transferred| {
        if transferred.here >= SIZE as u64 / 2 {
            stopper.stop();
        }
    };
    let error = fetch_release(&client, &query, None, &host.iso(), &host.stamp(), &mut stop_halfway).unwrap_err();
    assert!(one_line(&error).contains("stopped"), "{error}");
    assert!(!host.iso().exists() && host.part().exists());
}

const VICTIM_URL: &str = "AURORABOOT_IT_RELEASE_VICTIM_URL";
const VICTIM_DIR: &str = "AURORABOOT_IT_RELEASE_VICTIM_DIR";

/// The process that the next test starts and kills.
#[test]
#[ignore = "a part of the next test"]
fn victim_of_a_kill() {
    let (Ok(url), Ok(dir)) = (std::env::var(VICTIM_URL), std::env::var(VICTIM_DIR)) else { return };
    let mut host = Host::new("victim");
    host.dir = TempDir::existing(dir.into());
    host.settings.timeouts.stall = Duration::from_secs(3600);
    let _ = host.fetch_iso(&url);
}

#[test]
fn a_run_that_is_killed_is_gone_on_with_by_the_next() {
    for is_published in [true, false] {
        let server = Server::start(move |request, before| match request.path.as_str() {
            "/x.iso" if before == 0 => Some(file(request, &iso()).stall(SIZE / 2)),
            "/x.iso" => Some(file(request, &iso())),
            "/x.iso.sha256" if is_published => Some(Reply::new(200, hex(&iso()))),
            _ => None,
        });
        let host = Host::new("killed");
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "release::faults::victim_of_a_kill", "--ignored"])
            .env(VICTIM_URL, server.url("/x.iso"))
            .env(VICTIM_DIR, host.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        while std::fs::metadata(host.part()).map_or(0, |metadata| metadata.len()) < SIZE as u64 / 2 {
            assert!(victim.try_wait().unwrap().is_none(), "it ended by itself");
            std::thread::yield_now();
        }
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert!(!host.iso().exists());
        let fetched = host.fetch_iso(&server.url("/x.iso")).unwrap();
        host.has(&fetched, &iso());
        assert_eq!(server.starts("/x.iso"), [None, Some(SIZE / 2)]);
    }
}

#[test]
fn a_part_that_is_whole_is_not_fetched_again() {
    for is_published in [true, false] {
        let server = Server::start(move |request, _| match request.path.as_str() {
            "/x.iso" => Some(file(request, &iso())),
            "/x.iso.sha256" if is_published => Some(Reply::new(200, hex(&iso()))),
            _ => None,
        });
        // As if it had died between the last byte and the rename.
        let host = Host::new("whole");
        let etag = format!("\\\"{}\\\"", &hex(&iso())[..16]);
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        let note = format!(
            r#"{{"address": "{}", "version": {{"etag": "{etag}", "last_modified": null, "length": {SIZE}}}, "boot": "{}"}}"#,
            hex(server.url("/x.iso").as_bytes()),
            boot.trim()
        );
        std::fs::write(host.dir.path().join("stamp.part"), note).unwrap();
        std::fs::write(host.part(), iso()).unwrap();
        let fetched = host.fetch_iso(&server.url("/x.iso")).unwrap();
        host.has(&fetched, &iso());
        let verified = if is_published { Verified::Published } else { Verified::Unpublished };
        assert_eq!(fetched.verified, verified);
        let asked = if is_published { Vec::new() } else { vec![Some(SIZE - 1)] };
        assert_eq!(server.starts("/x.iso"), asked, "published: {is_published}");
    }
}
