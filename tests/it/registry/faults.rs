//! From the registry that misbehaves: each fault is outlived or told in one line, and nothing unverified is kept.

use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use auroraboot::limits;
use auroraboot::source::pull;

use super::fake::{FakeRegistry, Reply, Request};
use super::real::{Blob, Image, TAR, TempDir, noise};
use super::{Puller, read};

const SIZE: usize = 1_000_000;

fn image() -> Image {
    Image::new("amd64", vec![Blob::new(TAR, noise(SIZE, 7))])
}

/// The layer's bytes, if that is what is asked for.
fn layer(image: &Image) -> impl Fn(&Request) -> Option<Vec<u8>> + Send + Sync + 'static {
    let (digest, bytes) = (image.layers[0].digest().to_string(), image.layers[0].bytes.clone());
    move |request| request.path.ends_with(&digest).then(|| bytes.clone())
}

fn layer_requests(registry: &FakeRegistry, image: &Image) -> Vec<Request> {
    let digest = image.layers[0].digest().to_string();
    registry.requests().into_iter().filter(|request| request.path.ends_with(&digest)).collect()
}

/// No blob under its final name, and no part that a later run would trust.
fn nothing_kept(puller: &Puller, image: &Image) {
    let path = puller.cache().path(&image.layers[0].digest());
    assert!(!path.exists(), "{} is there", path.display());
}

#[test]
fn a_connection_cut_at_90_percent_is_resumed_where_it_broke() {
    let image = image();
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, before| {
        bytes(request).filter(|_| before == 0).map(|bytes| Reply::new(200, bytes).cut(SIZE / 10 * 9))
    });
    Puller::new("cut").pull_and_compare(&registry.name(), &image);
    let starts: Vec<_> = layer_requests(&registry, &image).iter().map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(SIZE / 10 * 9)]);
}

#[test]
fn a_connection_that_is_always_cut_ends_with_how_far_it_came() {
    let image = image();
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, _| {
        let bytes = bytes(request)?;
        let from = request.range_start().unwrap_or(0);
        let range = format!("bytes {from}-{}/{SIZE}", SIZE - 1);
        let status = if from == 0 { 200 } else { 206 };
        let until = if from == 0 { SIZE / 10 * 9 } else { 0 };
        Some(Reply::new(status, &bytes[from..]).header("content-range", range).cut(until))
    });
    let puller = Puller::new("always-cut");
    let error = puller.pull(&registry.name()).unwrap_err();
    assert!(error.contains("stopped at 900.0 kB of 1.0 MB"), "{error}");
    assert_eq!(layer_requests(&registry, &image).len(), limits::ATTEMPTS_MAX as usize);
    nothing_kept(&puller, &image);
}

#[test]
fn a_server_that_ignores_range_is_read_past_what_is_here() {
    let image = image();
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, before| {
        let reply = Reply::new(200, bytes(request)?);
        Some(if before < 2 { reply.cut(SIZE / 3 * (before + 1)) } else { reply })
    });
    Puller::new("no-range").pull_and_compare(&registry.name(), &image);
    assert_eq!(layer_requests(&registry, &image).len(), 3);
}

#[test]
fn another_range_than_asked_for_is_not_written() {
    let image = image();
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, before| match before {
        0 => Some(Reply::new(200, bytes(request)?).cut(1000)),
        _ => Some(Reply::new(206, bytes(request)?).header("content-range", format!("bytes 0-{}/{SIZE}", SIZE - 1))),
    });
    let puller = Puller::new("other-range");
    let error = puller.pull(&registry.name()).unwrap_err();
    assert!(error.contains("when asked for those from 1000"), "{error}");
    nothing_kept(&puller, &image);
}

#[test]
fn a_wrong_digest_never_reads_as_finished() {
    let image = image();
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, _| {
        let mut bytes = bytes(request)?;
        bytes[SIZE / 2] ^= 1;
        Some(Reply::new(200, bytes))
    });
    let puller = Puller::new("digest");
    let error = puller.pull(&registry.name()).unwrap_err();
    assert!(
        error.contains("arrived with the digest") && error.contains(&image.layers[0].digest().to_string()),
        "{error}"
    );
    nothing_kept(&puller, &image);
    assert!(!puller.cache().part_path(&image.layers[0].digest()).exists());
}

#[test]
fn more_or_fewer_bytes_than_promised_are_an_error() {
    let image = image();
    for (length, part) in [(SIZE + 1, "longer than the 1000000 bytes"), (SIZE - 1, "promises more")] {
        let bytes = layer(&image);
        let registry = FakeRegistry::start(&image, move |request, _| {
            let mut bytes = bytes(request)?;
            bytes.resize(length, 0);
            match request.range_start() {
                Some(from) if from >= length => Some(Reply::new(416, "")),
                _ => Some(Reply::new(200, bytes)),
            }
        });
        let puller = Puller::new(&format!("length-{length}"));
        let error = puller.pull(&registry.name()).unwrap_err();
        assert!(error.contains(part), "{error}");
        nothing_kept(&puller, &image);
    }
}

#[test]
fn a_server_on_a_bad_day_is_asked_again() {
    let image = image();
    let registry = FakeRegistry::start(&image, |request, before| match (before, request.path.as_str()) {
        (_, "/v2/") => None,
        (0, _) => Some(Reply::new(500, "oops")),
        (1, _) => Some(Reply::new(429, "slow down").header("retry-after", "1000000")),
        (2, _) => Some(Reply::new(503, "")),
        _ => None,
    });
    let started = Instant::now();
    Puller::new("bad-day").pull_and_compare(&registry.name(), &image);
    assert!(started.elapsed() < Duration::from_secs(60), "Retry-After is bounded");
}

#[test]
fn a_server_that_stays_down_is_told_with_its_words() {
    let image = image();
    let registry = FakeRegistry::start(&image, |request, _| {
        let body = "{\"errors\": [{\"code\": \"X\", \"message\": \"maintenance\\u001b[2J until noon\"}]}";
        (request.path != "/v2/").then(|| Reply::new(503, body))
    });
    let refused = Puller::new("down").refusal(&registry.name());
    assert!(refused.contains("503") && refused.contains("maintenance[2J until noon"), "{refused}");
    assert_eq!(registry.requests().len(), 1 + limits::ATTEMPTS_MAX as usize);
}

#[test]
fn a_stall_is_noticed_and_resumed() {
    let image = image();
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, before| {
        bytes(request).filter(|_| before == 0).map(|bytes| Reply::new(200, bytes).stall(SIZE / 2))
    });
    Puller::new("stall").pull_and_compare(&registry.name(), &image);
    assert_eq!(layer_requests(&registry, &image)[1].range_start(), Some(SIZE / 2));
}

#[test]
fn an_oversized_manifest_is_not_read_to_its_end() {
    let image = image();
    let too_large = usize::try_from(limits::MANIFEST_BYTES_MAX).unwrap() + 1;
    let registry = FakeRegistry::start(&image, move |request, _| {
        request.path.contains("/manifests/").then(|| Reply::new(200, vec![b' '; too_large]))
    });
    let refused = Puller::new("oversized").refusal(&registry.name());
    assert!(refused.contains("is larger than 4194304 bytes"), "{refused}");
}

#[test]
fn a_manifest_must_have_the_digest_it_is_asked_for_by_or_said_to_have() {
    let image = image();
    let registry = FakeRegistry::start(&image, |request, _| {
        let header = format!("sha256:{}", "0".repeat(64));
        request.path.contains("/manifests/").then(|| Reply::new(200, "{}").header("docker-content-digest", header))
    });
    let by_digest = format!("127.0.0.1:{}/it/img@{}", registry.port, image.top().digest());
    for name in [registry.name(), by_digest] {
        let refused = Puller::new("manifest-digest").refusal(&name);
        assert!(refused.contains("instead of sha256:"), "{refused}");
    }
}

#[test]
fn redirects_end_somewhere() {
    let image = image();
    let registry = FakeRegistry::start(&image, |request, _| {
        (request.path != "/v2/").then(|| Reply::new(302, "").header("location", request.path.as_str()))
    });
    let refused = Puller::new("redirects").refusal(&registry.name());
    assert!(refused.contains("redirects more than 10 times"), "{refused}");
    assert_eq!(registry.requests().len(), 1 + 1 + limits::REDIRECTS_MAX as usize);
}

#[test]
fn a_full_disk_is_told_with_what_is_missing() {
    let image = image();
    let registry = FakeRegistry::start(&image, |_, _| None);
    let puller = Puller::new("full");
    let part = puller.cache().part_path(&image.layers[0].digest());
    std::os::unix::fs::symlink("/dev/full", &part).unwrap();
    let error = puller.pull(&registry.name()).unwrap_err();
    assert!(error.contains("is full; 1.0 MB more are needed") && error.contains(part.to_str().unwrap()), "{error}");
}

#[test]
fn a_reader_gets_bytes_before_the_download_is_over() {
    let image = image();
    let bytes = layer(&image);
    // The second half is sent only after the reader has had the first.
    let (had_half, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let registry = FakeRegistry::start(&image, move |request, before| {
        let bytes = bytes(request)?;
        if before == 0 {
            return Some(Reply::new(200, bytes).cut(SIZE / 2));
        }
        gate.lock().unwrap_or_else(PoisonError::into_inner).recv().unwrap();
        None
    });
    let puller = Puller::new("growing");
    let layers = puller.start(&registry.name());
    let mut reader = layers.open(0).unwrap();
    let mut half = vec![0; SIZE / 2];
    reader.read_exact(&mut half).unwrap();
    had_half.send(()).unwrap();
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
    assert!([half, rest].concat() == image.layers[0].bytes);
    assert!(read(&layers, 0).is_ok(), "and once more from the start");
}

#[test]
fn the_top_layers_come_first_and_only_so_many_at_once() {
    const AT_ONCE: usize = limits::DOWNLOADS_AT_ONCE;
    let image = Image::new("amd64", (0..10).map(|seed| Blob::new(TAR, noise(1000, seed))).collect());
    let layers: Vec<String> = image.layers.iter().map(|layer| layer.digest().to_string()).collect();
    // The first requests wait for each other; each writes down its layer, and how many are on their way.
    let (order, running, barrier) = (Mutex::new(Vec::new()), AtomicUsize::new(0), Barrier::new(AT_ONCE));
    let seen = Arc::new((order, AtomicUsize::new(0)));
    let sink = Arc::clone(&seen);
    let registry = FakeRegistry::start(&image, move |request, _| {
        let number = layers.iter().position(|digest| request.path.ends_with(digest))?;
        sink.1.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        let place = {
            let mut order = sink.0.lock().unwrap_or_else(PoisonError::into_inner);
            order.push(number);
            order.len()
        };
        if place <= AT_ONCE {
            barrier.wait();
        }
        running.fetch_sub(1, Ordering::SeqCst);
        None
    });
    let mut puller = Puller::new("order");
    puller.settings.timeouts.stall = Duration::from_secs(30);
    puller.pull_and_compare(&registry.name(), &image);
    let mut first = seen.0.lock().unwrap()[..AT_ONCE].to_vec();
    first.sort_unstable();
    assert_eq!(first, [6, 7, 8, 9]);
    assert_eq!(seen.1.load(Ordering::SeqCst), AT_ONCE);
}

#[test]
fn stopping_does_not_wait_for_a_server_that_sends_nothing() {
    let image = image();
    let bytes = layer(&image);
    let registry =
        FakeRegistry::start(&image, move |request, _| bytes(request).map(|bytes| Reply::new(200, bytes).stall(1000)));
    let mut puller = Puller::new("stop");
    puller.settings.timeouts.stall = Duration::from_secs(3600);
    let layers = puller.start(&registry.name());
    let mut reader = layers.open(0).unwrap();
    reader.read_exact(&mut [0; 1000]).unwrap();
    layers.stop();
    assert!(matches!(&*layers.wait().unwrap_err(), pull::Error::Stopped), "{:?}", layers.wait());
    assert!(reader.read(&mut [0; 1]).is_err());
    drop(layers);
    nothing_kept(&puller, &image);
}

const VICTIM_IMAGE: &str = "AURORABOOT_IT_VICTIM_IMAGE";
const VICTIM_STATE: &str = "AURORABOOT_IT_VICTIM_STATE";

/// The process that the next test starts and kills.
#[test]
#[ignore = "a part of the next test"]
fn victim() {
    let (Ok(image), Ok(state)) = (std::env::var(VICTIM_IMAGE), std::env::var(VICTIM_STATE)) else { return };
    let mut puller = Puller::new("victim");
    puller.state = TempDir::existing(state.into());
    puller.settings.timeouts.stall = Duration::from_secs(3600);
    let _ = puller.pull(&image);
}

#[test]
fn a_run_that_is_killed_leaves_what_the_next_one_goes_on_with() {
    let image = image();
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, before| {
        bytes(request).filter(|_| before == 0).map(|bytes| Reply::new(200, bytes).stall(SIZE / 2))
    });
    let puller = Puller::new("killed");
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "registry::faults::victim", "--ignored"])
        .env(VICTIM_IMAGE, registry.name())
        .env(VICTIM_STATE, puller.state.path())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let part = puller.state.path().join("blobs/sha256").join(image.layers[0].digest().hex()).with_extension("part");
    while std::fs::metadata(&part).map_or(0, |metadata| metadata.len()) < SIZE as u64 / 2 {
        if victim.try_wait().unwrap().is_some() {
            panic!("it ended: {}", std::io::read_to_string(victim.stderr.take().unwrap()).unwrap());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();

    puller.pull_and_compare(&registry.name(), &image);
    let starts: Vec<_> = layer_requests(&registry, &image).iter().map(Request::range_start).collect();
    assert_eq!(starts, [None, Some(SIZE / 2)]);
}

#[test]
fn the_first_failure_is_what_every_reader_is_told() {
    let image = Image::new("amd64", (0..8).map(|seed| Blob::new(TAR, noise(1000, seed))).collect());
    let missing = image.layers[7].digest().to_string();
    let registry =
        FakeRegistry::start(&image, move |request, _| request.path.ends_with(&missing).then(|| Reply::new(404, "")));
    let puller = Puller::new("first-failure");
    let layers = puller.start(&registry.name());
    let error = read(&layers, 7).unwrap_err();
    assert!(error.contains("is missing there"), "{error}");
    assert!(layers.wait().is_err());
}

#[test]
fn a_name_that_does_not_resolve_and_a_port_that_nobody_has() {
    let refused = Puller::new("dns").refusal("registry.invalid/img:1");
    assert!(refused.contains("registry.invalid does not resolve"), "{refused}");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let refused = Puller::new("refused").refusal(&format!("127.0.0.1:{port}/img:1"));
    assert!(refused.contains("refuses the connection"), "{refused}");
}

#[test]
fn a_download_that_gains_ground_is_not_given_up() {
    const STEP: usize = 1 << 20;
    let cuts = 2 * limits::ATTEMPTS_MAX as usize;
    let size = cuts * STEP + 1;
    let image = Image::new("amd64", vec![Blob::new(TAR, noise(size, 9))]);
    let bytes = layer(&image);
    let registry = FakeRegistry::start(&image, move |request, _| {
        let bytes = bytes(request)?;
        let from = request.range_start().unwrap_or(0);
        let range = format!("bytes {from}-{}/{size}", size - 1);
        let reply = if from == 0 { Reply::new(200, bytes) } else { Reply::new(206, &bytes[from..]) };
        Some(reply.header("content-range", range).cut(STEP))
    });
    Puller::new("ground").pull_and_compare(&registry.name(), &image);
    assert_eq!(layer_requests(&registry, &image).len(), cuts + 1);
}

#[test]
fn a_server_that_never_answers_is_given_up_by_name() {
    let image = image();
    let (_hold, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let registry = FakeRegistry::start(&image, move |request, _| {
        if request.path != "/v2/" {
            let _ = gate.lock().unwrap_or_else(PoisonError::into_inner).recv();
        }
        None
    });
    let mut puller = Puller::new("silent");
    puller.settings.timeouts.response = Duration::from_millis(100);
    puller.settings.backoff.attempts_max = 2;
    let refused = puller.refusal(&registry.name());
    assert!(refused.contains("waiting for an answer took longer than 0.1 s"), "{refused}");
}

#[test]
fn a_server_that_never_shakes_hands_is_given_up_by_name() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut puller = Puller::new("no-handshake");
    puller.settings.timeouts.connect = Duration::from_millis(100);
    puller.settings.timeouts.response = Duration::from_millis(100);
    puller.settings.backoff.attempts_max = 1;
    let refused = puller.refusal(&format!("127.0.0.1:{}/img:1", listener.local_addr().unwrap().port()));
    assert!(refused.contains("connecting took longer than 0.1 s"), "{refused}");
}

#[test]
fn an_endless_response_head_is_refused() {
    let image = image();
    let registry = FakeRegistry::start(&image, |request, _| {
        let long = "x".repeat(limits::RESPONSE_HEAD_BYTES_MAX);
        (request.path != "/v2/").then(|| Reply::new(200, "").header("x-long", long))
    });
    let refused = Puller::new("head").refusal(&registry.name());
    assert!(refused.contains("header is too big"), "{refused}");
}

#[test]
fn small_files_are_fetched_whole_or_not_at_all() {
    let image = image();
    let registry = FakeRegistry::start(&image, |request, before| match (request.path.as_str(), before) {
        ("/config", 0) => Some(Reply::new(502, "")),
        ("/config", _) => Some(Reply::new(200, "#cloud-config\n")),
        ("/moved", _) => Some(Reply::new(301, "").header("location", "config")),
        ("/cut", _) => Some(Reply::new(200, "#cloud-config\n").cut(5)),
        _ => Some(Reply::new(404, "")),
    });
    let client = auroraboot::source::Client::new(Puller::new("small").settings).unwrap();
    let fetch = |path: &str, bytes_max| {
        let result = client.fetch_url(&format!("http://bob:hunter2@127.0.0.1:{}{path}", registry.port), bytes_max);
        result.map_err(|error| auroraboot::units::chain(&error))
    };
    assert_eq!(fetch("/config", 14).unwrap(), b"#cloud-config\n");
    assert_eq!(fetch("/moved", 14).unwrap(), b"#cloud-config\n");
    assert_eq!(registry.requests()[0].header("authorization"), Some("Basic Ym9iOmh1bnRlcjI="));
    let too_long = fetch("/config", 13).unwrap_err();
    assert!(too_long.contains("is larger than 13 bytes") && !too_long.contains("hunter2"), "{too_long}");
    let missing = fetch("/other?token=SECRET", 14).unwrap_err();
    assert!(missing.contains("404") && !missing.contains("SECRET"), "{missing}");
    assert!(fetch("/cut", 14).is_err());
}

#[test]
fn an_image_of_an_earlier_run_is_not_waited_for() {
    let image = image();
    let registry = FakeRegistry::start(&image, |request, before| {
        (before > 0 && request.path.contains("/manifests/"))
            .then(|| Reply::new(503, "").header("retry-after", limits::REGISTRY_PATIENCE.as_secs().to_string()))
    });
    let mut puller = Puller::new("patience");
    puller.settings.backoff.wait_max = limits::REGISTRY_PATIENCE;
    puller.resolve(&registry.name()).unwrap();
    // The server asks for as long a wait as there is patience, so the first refusal is the last.
    assert!(puller.resolve(&registry.name()).unwrap_err().is_unreachable());
    let asked = |requests: Vec<Request>| requests.iter().filter(|request| request.path.contains("/manifests/")).count();
    assert_eq!(asked(registry.requests()), 2);
}
