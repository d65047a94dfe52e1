//! Exporting images: from real daemons, and from one that breaks off.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use auroraboot::media::LayerSource;
use auroraboot::source::daemon::{self, Daemon, DaemonLayers, Found, Name};
use auroraboot::source::manifest::digest_of;
use auroraboot::source::{BlobCache, Transferred};
use auroraboot::units::{Arch, Digest, chain};

use super::fake::{CHUNKED, FakeDaemon, Reply, chunk, description, ping};
use super::real::{DOCKER, Engine, PODMAN, built_here};
use super::{IMPATIENT, daemon_at, daemon_with};
use crate::registry::real::{Blob, Image, TAR, TempDir, noise, tar};

/// What an observer heard.
type Heard = Arc<Mutex<Vec<Transferred>>>;

fn layers_of(found: Found, cache: &BlobCache) -> (DaemonLayers, Heard) {
    let heard = Heard::default();
    let told = Arc::clone(&heard);
    let layers = daemon::layers(found, cache, Box::new(move |_, transferred| told.lock().unwrap().push(transferred)));
    (layers, heard)
}

fn read(layers: &DaemonLayers, layer: usize) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = layers.open(layer).and_then(|mut layer| layer.read_to_end(&mut bytes));
    read.map(|_| bytes).map_err(|error| chain(&error))
}

/// From the top down, as a build reads them.
fn read_all(layers: &DaemonLayers) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..layers.count()).rev().map(|layer| read(layers, layer).unwrap()).collect();
    all.reverse();
    all
}

fn bytes_of(image: &Image) -> Vec<Vec<u8>> {
    image.layers.iter().map(|layer| layer.bytes.clone()).collect()
}

fn diff_ids(image: &Image) -> Vec<Digest> {
    image.layers.iter().map(Blob::digest).collect()
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn exported_once(engine: &Engine, title: &str) {
    let state = TempDir::new(&format!("export-{title}"));
    let cache = BlobCache::open(state.path()).unwrap();
    let daemon = daemon_at(&engine.socket);
    let wanted = name("sample/it:v1");

    let (layers, heard) = layers_of(daemon.require(&wanted, Arch::Amd64).unwrap(), &cache);
    let digests: Vec<Digest> = (0..layers.count()).map(|layer| layers.digest(layer)).collect();
    assert_eq!((digests, layers.blobs()), (diff_ids(&engine.image), Vec::new()));
    assert!(heard.lock().unwrap().is_empty(), "nothing is exported before a layer is wanted");
    assert!(read_all(&layers) == bytes_of(&engine.image), "the layers differ from what was loaded");
    let last = *heard.lock().unwrap().last().unwrap();
    assert!(last.ended && last.fetched > 1_500_000 && last.total == Some(last.here), "{last:?}");

    // The second time they come from the cache, and so they do when the daemon is not asked at all.
    let (again, heard) = layers_of(daemon.require(&wanted, Arch::Amd64).unwrap(), &cache);
    assert!(read_all(&again) == bytes_of(&engine.image));
    let heard = heard.lock().unwrap().clone();
    assert_eq!(heard.iter().map(|state| (state.fetched, state.ended)).collect::<Vec<_>>(), [(0, true)]);
    let (recalled, _) = daemon::recall(&wanted, Arch::Amd64, &cache).unwrap();
    assert_eq!((recalled.blobs(), recalled.blobs().len()), (again.blobs(), 5));
    assert!(read_all(&recalled) == bytes_of(&engine.image));
    assert!(daemon::recall(&wanted, Arch::Arm64, &cache).is_none());
    assert_eq!(cache.prune().unwrap().bytes, 0, "nothing else was left in the cache");
    let names: Vec<_> = cache.inventory().unwrap().images.into_iter().flat_map(|image| image.names).collect();
    assert_eq!(names, ["docker://sample/it:v1 amd64"]);

    // A layer that went: what the image is can still be said, and the daemon is asked again.
    std::fs::remove_file(cache.path(&engine.image.layers[0].digest())).unwrap();
    let (recalled, _) = daemon::recall(&wanted, Arch::Amd64, &cache).unwrap();
    assert_eq!(recalled.digest(0), engine.image.layers[0].digest());
    let error = read(&recalled, 0).unwrap_err();
    assert!(error.contains("layers of sample/it:v1 are not in the cache any more"), "{error}");
    let (again, _) = layers_of(daemon.require(&wanted, Arch::Amd64).unwrap(), &cache);
    assert!(read_all(&again) == bytes_of(&engine.image));
}

#[test]
fn docker_exports_what_was_loaded_once() {
    exported_once(&DOCKER, "docker");
}

#[test]
fn podman_exports_what_was_loaded_once() {
    exported_once(&PODMAN, "podman");
}

#[test]
fn what_was_found_is_exported_even_when_its_tag_moves_and_not_when_it_goes() {
    for (engine, title) in [(&*DOCKER, "docker"), (&*PODMAN, "podman")] {
        let state = TempDir::new(&format!("moving-{title}"));
        let cache = BlobCache::open(state.path()).unwrap();
        let own = Image::new("amd64", vec![Blob::new(TAR, tar("moving", title.as_bytes()))]);
        engine.load(&own, &state, "docker.io/moving/it:v1");
        let daemon = daemon_at(&engine.socket);
        let found = || daemon.require(&name("docker.io/moving/it:v1"), Arch::Amd64).unwrap();
        let (first, second) = (found(), found());
        engine.post("/images/localhost/built/here:latest/tag?repo=docker.io/moving/it&tag=v1", b"");
        let (layers, _) = layers_of(first, &cache);
        assert!(read_all(&layers) == bytes_of(&own), "{title}");
        assert_eq!(found().diff_ids, diff_ids(&built_here()), "{title}: the tag did move");

        engine.delete(&format!("/images/{}?force=1", second.id));
        cache.evict(0, &[]).unwrap();
        let (layers, _) = layers_of(second, &cache);
        let error = read(&layers, 0).unwrap_err();
        assert!(
            error.contains("no longer has the image that docker.io/moving/it:v1 was a moment ago"),
            "{title}: {error}"
        );
        assert_eq!(read(&layers, 0).unwrap_err(), error, "it is not tried again and again");
    }
}

/// Members one after the other, without the end of the archive.
fn open_tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let whole = members.iter().map(|(name, bytes)| tar(name, bytes));
    whole.flat_map(|tar| tar[..tar.len() - 1024].to_vec()).collect()
}

/// As containerd's image store exports: an OCI layout whose layers are compressed, with the list of `docker save` beside it.
fn compressed_export() -> (Vec<u8>, Vec<Vec<u8>>) {
    let tars = vec![tar("low", &noise(200_000, 31)), tar("top", b"top")];
    let gzip = |bytes: &Vec<u8>| {
        let mut packed = Vec::new();
        flate2::read::GzEncoder::new(&bytes[..], flate2::Compression::fast()).read_to_end(&mut packed).unwrap();
        packed
    };
    let packed: Vec<Vec<u8>> = tars.iter().map(gzip).collect();
    let diff_ids: Vec<String> = tars.iter().map(|tar| format!("\"{}\"", digest_of(tar))).collect();
    let rootfs = format!(r#"{{"type": "layers", "diff_ids": [{}]}}"#, diff_ids.join(", "));
    let config = format!(r#"{{"architecture": "amd64", "os": "linux", "rootfs": {rootfs}}}"#).into_bytes();
    let describe = |kind: &str, bytes: &[u8]| {
        format!(
            r#"{{"mediaType": "application/vnd.oci.image.{kind}", "digest": "{}", "size": {}}}"#,
            digest_of(bytes),
            bytes.len()
        )
    };
    let layers: Vec<String> = packed.iter().map(|layer| describe("layer.v1.tar+gzip", layer)).collect();
    let config_described = describe("config.v1+json", &config);
    let manifest =
        format!(r#"{{"schemaVersion": 2, "config": {config_described}, "layers": [{}]}}"#, layers.join(", "));
    let manifest = manifest.into_bytes();
    let index = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, describe("manifest.v1+json", &manifest));
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", digest_of(bytes).hex());
    let paths: Vec<String> = packed.iter().map(|layer| format!("\"{}\"", blob(layer))).collect();
    let list = format!(r#"[{{"Config": "{}", "RepoTags": null, "Layers": [{}]}}]"#, blob(&config), paths.join(", "));
    let mut members: Vec<(String, &[u8])> =
        packed.iter().chain([&config, &manifest]).map(|b| (blob(b), &b[..])).collect();
    members.push(("index.json".to_owned(), index.as_bytes()));
    members.push(("manifest.json".to_owned(), list.as_bytes()));
    members.push(("oci-layout".to_owned(), br#"{"imageLayoutVersion": "1.0.0"}"#));
    let members: Vec<(&str, &[u8])> = members.iter().map(|(name, bytes)| (name.as_str(), *bytes)).collect();
    ([open_tar(&members), vec![0; 1024]].concat(), tars)
}

/// A daemon that has one image, whose export is `reply`.
fn with_export(title: &str, reply: impl Fn() -> Reply + Send + Sync + 'static) -> FakeDaemon {
    let (_, tars) = compressed_export();
    let ids: Vec<Digest> = tars.iter().map(|tar| digest_of(tar)).collect();
    FakeDaemon::start(title, move |path| match path {
        _ if path.ends_with("/get") => Some(reply()),
        // By its name and by its ID.
        _ if path != "/images/json" && path.ends_with("/json") => Some(description(&digest_of(b"id"), "amd64", &ids)),
        _ => None,
    })
}

fn whole(archive: &[u8]) -> Reply {
    Reply::Raw([CHUNKED, &chunk(archive), b"0\r\n\r\n"].concat())
}

#[test]
fn compressed_layers_of_containerds_store_go_by_the_digest_of_their_tar() {
    let (archive, tars) = compressed_export();
    let fake = with_export("compressed", move || whole(&archive));
    let state = TempDir::new("compressed-state");
    let cache = BlobCache::open(state.path()).unwrap();
    for exports in [1, 1] {
        let found = daemon_at(&fake.socket()).require(&name("fake/it"), Arch::Amd64).unwrap();
        let (layers, _) = layers_of(found, &cache);
        assert_eq!(layers.digest(1), digest_of(&tars[1]));
        for (layer, tar) in tars.iter().enumerate().rev() {
            let mut bytes = Vec::new();
            let blob = layers.open(layer).unwrap();
            auroraboot::rootfs::decompress(blob).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(&bytes == tar, "layer {layer}");
        }
        assert_eq!(fake.count("/get"), exports);
    }
    assert_eq!(fake.count(&format!("/v1.45/images/sha256%3A{}/get", digest_of(b"id").hex())), 1);
}

#[test]
fn one_platform_of_several_is_asked_for_where_the_api_can() {
    let (archive, tars) = compressed_export();
    let ids: Vec<Digest> = tars.iter().map(|tar| digest_of(tar)).collect();
    let fake = FakeDaemon::start("platforms", move |path| match path.split_once('?') {
        None if path == "/_ping" => Some(ping("1.49")),
        None if path == "/images/fake/it/json" => {
            Some(description(&digest_of(b"index"), "arm64", &[digest_of(b"other")]))
        }
        Some(("/images/fake/it/json", _)) => Some(description(&digest_of(b"manifest"), "amd64", &ids)),
        Some((path, _)) if path.ends_with("/get") => Some(whole(&archive)),
        _ => None,
    });
    let state = TempDir::new("platforms-state");
    let daemon = daemon_at(&fake.socket());
    let found = daemon.find(&name("fake/it"), Arch::Amd64).unwrap().unwrap();
    let (layers, _) = layers_of(found, &BlobCache::open(state.path()).unwrap());
    assert!(read(&layers, 1).is_ok());
    let query = "?platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22amd64%22%7D";
    let index = digest_of(b"index").hex();
    assert_eq!(fake.count(&format!("/v1.49/images/sha256%3A{index}/get{query}")), 1);
    let error = daemon.require(&name("fake/it"), Arch::Riscv64).unwrap_err();
    assert!(error.to_string().contains("for linux/arm64, but linux/riscv64 is wanted"), "{error}");
}

/// The files with something in them.
fn files_below(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] });
    files.filter(|path| path.metadata().unwrap().len() > 0).collect()
}

/// What an operator sees when the export goes wrong, and what is left in the cache: nothing.
fn broken(title: &str, reply: impl Fn() -> Reply + Send + Sync + 'static) -> String {
    let fake = with_export(title, reply);
    let state = TempDir::new(&format!("{title}-state"));
    let cache = BlobCache::open(state.path()).unwrap();
    let found = daemon_with(&fake.socket(), IMPATIENT).require(&name("fake/it"), Arch::Amd64).unwrap();
    let (layers, _) = layers_of(found, &cache);
    let error = read(&layers, 1).unwrap_err();
    assert!(!error.contains(['\n', '\r', '\x1b']), "one line: {error:?}");
    assert_eq!(files_below(state.path()), Vec::<PathBuf>::new(), "{title}");
    assert!(daemon::recall(&name("fake/it"), Arch::Amd64, &cache).is_none());
    error
}

#[test]
fn an_export_that_breaks_off_says_how() {
    let (archive, _) = compressed_export();
    let half = archive[..archive.len() / 2].to_vec();
    let cut = half.clone();
    let line = broken("cut", move || Reply::Raw([CHUNKED, &chunk(&cut)].concat()));
    assert!(line.starts_with("the connection to Docker 26.1 at ") && line.contains("failed: "), "{line}");
    let short = half.clone();
    let line = broken("short", move || {
        Reply::Raw([b"HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n", &short[..]].concat())
    });
    assert!(line.starts_with("the connection to Docker 26.1 at "), "{line}");
    // The stream ends as it should, and is none.
    let ended = half.clone();
    let line = broken("ended", move || whole(&ended));
    assert!(line.contains("exported as fake/it cannot be used: ") && line.contains("cut off"), "{line}");
    let words = br#"{"errorDetail":{"message":"write /var/lib: no space left on device"},"error":"x"}"#;
    let complaint = [&half[..], &words[..]].concat();
    let line = broken("words", move || whole(&complaint));
    assert!(
        line.contains("could not export fake/it: write /var/lib: no space left on device; registry://fake/it takes"),
        "{line}"
    );
}

#[test]
fn an_export_that_is_none_or_another_says_so() {
    let line = broken("refused", || Reply::json(500, r#"{"message": "unexpected EOF"}"#));
    assert!(
        line.starts_with("Docker 26.1 at ") && line.contains("could not export fake/it: unexpected EOF; "),
        "{line}"
    );
    let line = broken("html", || whole(&b"<html>hello</html>".repeat(100)));
    assert!(line.contains("exported as fake/it cannot be used: "), "{line}");
    let line = broken("empty", || whole(b""));
    assert!(line.contains("exported as fake/it cannot be used: "), "{line}");
    let zeros = vec![0; 1 << 20];
    let line = broken("endless-zeros", move || Reply::Endless(CHUNKED.to_vec(), chunk(&zeros)));
    assert!(line.contains("exported as fake/it cannot be used: "), "{line}");
}

#[test]
fn another_image_than_was_found_is_not_taken_for_it() {
    let (archive, _) = compressed_export();
    let fake = FakeDaemon::start("another", move |path| match path {
        "/images/fake/it/json" => Some(description(&digest_of(b"id"), "amd64", &[digest_of(b"a"), digest_of(b"b")])),
        _ if path.ends_with("/get") => Some(whole(&archive)),
        _ => None,
    });
    let state = TempDir::new("another-state");
    let cache = BlobCache::open(state.path()).unwrap();
    let found = daemon_at(&fake.socket()).require(&name("fake/it"), Arch::Amd64).unwrap();
    let error = read(&layers_of(found, &cache).0, 0).unwrap_err();
    assert!(error.contains("exported other layers than fake/it had a moment ago"), "{error}");
    assert!(daemon::recall(&name("fake/it"), Arch::Amd64, &cache).is_none());
}

#[test]
fn an_export_that_never_begins_or_stops_is_given_up_by_name() {
    let line = broken("never", || Reply::Hang(Vec::new()));
    assert!(line.contains("hangs: ") && line.contains("took longer than 0.6 s"), "{line}");
    let (archive, _) = compressed_export();
    let line = broken("stalled", move || Reply::Hang([CHUNKED, &chunk(&archive[..5000])].concat()));
    assert!(line.contains("hangs: waiting for the next bytes took longer than 0.9 s"), "{line}");
}

/// Ends the export from another thread while it is in the state that `reply` leads to, and measures how long that takes.
fn stopped(title: &str, reply: impl Fn() -> Reply + Send + Sync + 'static) -> (Duration, String) {
    let (sender, began) = mpsc::channel();
    let sender = Mutex::new(sender);
    let fake = with_export(title, move || {
        sender.lock().unwrap().send(()).unwrap();
        reply()
    });
    let state = TempDir::new(&format!("{title}-state"));
    let daemon: Daemon = daemon_at(&fake.socket());
    let found = daemon.require(&name("fake/it"), Arch::Amd64).unwrap();
    let (layers, _) = layers_of(found, &BlobCache::open(state.path()).unwrap());
    let reader = std::thread::spawn(move || read(&layers, 1).unwrap_err());
    began.recv().unwrap();
    let asked = Instant::now();
    daemon.stop();
    let error = reader.join().unwrap();
    (asked.elapsed(), error)
}

#[test]
fn an_export_ends_at_once_when_it_is_told_to() {
    let (archive, _) = compressed_export();
    let silent = stopped("stop-silent", || Reply::Hang(Vec::new()));
    let stalled = stopped("stop-stalled", move || Reply::Hang([CHUNKED, &chunk(&archive[..5000])].concat()));
    let head = tar("endless", b"")[..512].to_vec();
    let flowing =
        stopped("stop-flowing", move || Reply::Endless([CHUNKED, &chunk(&head)].concat(), chunk(&noise(4096, 1))));
    for (took, error) in [silent, stalled, flowing] {
        assert!(took < Duration::from_secs(2), "{took:?}: {error}");
    }
}
