//! From the name of an image in this host's container daemon to an ISO.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use auroraboot::limits;
use auroraboot::source::manifest::digest_of;

use super::*;
use crate::dockerd::fake::{self, CHUNKED, FakeDaemon, chunk, description};
use crate::dockerd::real::{DOCKER, Engine, PODMAN};
use crate::registry::real::TAR;

impl Site {
    /// Builds with the daemon behind that socket.
    fn build_with(&self, socket: &Path, image: &str) -> Outcome {
        self.start_with(socket, image).outcome()
    }

    fn start_with(&self, socket: &Path, image: &str) -> Run {
        let mut command = self.command(image, MEDIA_ONLY);
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        self.start(command)
    }
}

/// An image of two layers, as daemons have them: uncompressed.
fn local_image() -> Image {
    let layers = [tar(&bootable()), tar(&[file("etc/motd", "built here")])];
    Image::new(Arch::host().name(), layers.map(|layer| Blob::new(TAR, layer)).to_vec())
}

fn from_daemon(engine: &Engine, title: &str) {
    let site = Site::new(title);
    engine.load(&local_image(), &site.dir, "docker.io/boot/it:v1");
    let built = site.build_with(&engine.socket, "docker://boot/it:v1");
    assert!(!built.reused() && built.said("Export: Waiting for "), "{built:#?}");
    assert_eq!(site.in_iso("kairos.iso", "/boot/kernel"), kernel().as_bytes());

    // The name alone means the daemon's image too, and nothing of it is exported twice.
    let again = site.build_with(&engine.socket, "boot/it:v1");
    assert!(again.reused() && !again.said("Export: Waiting for "), "{again:#?}");
    std::fs::remove_file(site.state().join("stamps/iso.json")).unwrap();
    let again = site.build_with(&engine.socket, "docker://boot/it:v1");
    assert!(!again.reused() && !again.said("Export: Waiting for "), "{again:#?}");

    let missing = site.build_with(&engine.socket, "docker://boot/it:v2");
    let line = missing.error();
    assert!(line.contains("does not have the image boot/it:v2; it has ") && line.contains("boot/it:v1"), "{line}");
}

#[test]
fn an_image_of_docker_is_exported_and_built_once() {
    from_daemon(&DOCKER, "docker");
}

#[test]
fn an_image_of_podman_is_exported_and_built_once() {
    from_daemon(&PODMAN, "podman");
}

#[test]
fn without_a_daemon_it_is_said_and_a_bare_name_is_pulled() {
    let site = Site::new("no-daemon");
    let nowhere = site.dir.path().join("nowhere.sock");
    let missing = site.build_with(&nowhere, "docker://boot/it:v1");
    assert!(missing.error().contains(&format!("no Docker or podman daemon at {}", nowhere.display())), "{missing:#?}");
    let registry = site.good_registry(&image(&bootable()));
    let pulled = site.build_with(&nowhere, &registry.name());
    assert!(pulled.succeeded().said("Download") && !pulled.said("Docker"), "{pulled:#?}");
}

/// As Docker's own store exports: a directory for each layer, and at the end the list of them.
fn export_of(image: &Image) -> Vec<u8> {
    let [config, ..] = &image.blobs[image.layers.len()..] else { panic!("an image has a configuration") };
    let name = |layer: &Blob| format!("{}/layer.tar", layer.digest().hex());
    let mut entries: Vec<_> = image.layers.iter().map(|layer| file(name(layer), &layer.bytes)).collect();
    let config_name = format!("{}.json", config.digest().hex());
    let layers: Vec<String> = image.layers.iter().map(|layer| format!("\"{}\"", name(layer))).collect();
    let list = format!(r#"[{{"Config": "{config_name}", "RepoTags": null, "Layers": [{}]}}]"#, layers.join(", "));
    entries.extend([file(config_name, &config.bytes), file("manifest.json", list)]);
    tar(&entries)
}

/// A daemon whose exports stop in the middle as often as that, and then are whole.
fn hangs_at_first(title: &str, hangs: usize) -> FakeDaemon {
    let image = local_image();
    let diff_ids: Vec<_> = image.layers.iter().map(Blob::digest).collect();
    let (archive, exports) = (export_of(&image), Mutex::new(AtomicUsize::new(0)));
    FakeDaemon::start(title, move |path| match path {
        _ if path.ends_with("/get") => {
            let before = exports.lock().unwrap().fetch_add(1, Ordering::SeqCst);
            Some(match before < hangs {
                true => fake::Reply::Hang([CHUNKED, &chunk(&archive[..archive.len() / 2])].concat()),
                false => fake::Reply::Raw([CHUNKED, &chunk(&archive), b"0\r\n\r\n"].concat()),
            })
        }
        "/images/boot/it/json" => Some(description(&digest_of(b"id"), Arch::host().name(), &diff_ids)),
        _ => None,
    })
}

#[test]
fn an_export_is_interrupted_and_killed_and_then_goes_well() {
    let site = Site::new("killed-export");
    let daemon = hangs_at_first("killed", 2);
    for signal in ["INT", "KILL"] {
        let mut run = site.start_with(&daemon.socket(), "docker://boot/it");
        run.wait_for("Export: Reading");
        let asked = Instant::now();
        run.signal(signal);
        let ended = run.outcome();
        assert!(asked.elapsed() < limits::STOP_PATIENCE, "{signal}: {:?}", asked.elapsed());
        assert_ne!(ended.code, Some(0), "{ended:#?}");
    }
    let built = site.build_with(&daemon.socket(), "docker://boot/it");
    assert!(!built.reused(), "{built:#?}");
    assert_eq!(site.in_iso("kairos.iso", "/boot/kernel"), kernel().as_bytes());
    assert_eq!(daemon.count("/get"), 3);
    assert!(site.build_with(&daemon.socket(), "boot/it").reused());
}

#[test]
fn without_its_daemon_an_image_is_what_it_was_in_an_earlier_run() {
    let site = Site::new("daemon-gone");
    let daemon = hangs_at_first("gone", 0);
    site.build_with(&daemon.socket(), "docker://boot/it").succeeded();
    std::fs::remove_file(daemon.socket()).unwrap();
    let again = site.build_with(&daemon.socket(), "docker://boot/it");
    assert!(again.reused() && again.said("using what docker://boot/it was on 2"), "{again:#?}");
    std::fs::remove_file(site.state().join("stamps/iso.json")).unwrap();
    assert!(!site.build_with(&daemon.socket(), "docker://boot/it").reused(), "made again of the cached layers");
    let bare = site.build_with(&daemon.socket(), "boot/it");
    assert!(bare.reused() && bare.said("using what this host's daemon had"), "{bare:#?}");
    let other = site.build_with(&daemon.socket(), "docker://boot/other");
    assert!(other.error().contains("no Docker or podman daemon at "), "{other:#?}");
}
