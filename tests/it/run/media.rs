//! What stands in the state directory after a run, and what is served of it: for each way to say what is wanted.

use super::*;
use crate::registry::real::noise;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};

const CLOUD: &str = "#cloud-config\nhostname: made-by-a-test\n";

impl Site {
    /// A run that ends when its media are made: with these settings and, maybe, a cloud config.
    fn make(&self, settings: &[&str], cloud: Option<&str>) -> Outcome {
        let settings = [settings, MEDIA_ONLY].concat();
        let mut command = Command::new(env!("CARGO_BIN_EXE_auroraboot"));
        command.args(["--set", &format!("state_dir={}", self.state().display())]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        if let Some(text) = cloud {
            command.arg("--cloud-config").arg(self.dir.write("cloud.yaml", text));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        self.start(command).outcome()
    }

    fn media(&self) -> Vec<String> {
        names_in(&self.iso(""))
    }

    fn listens(&self, port: u16) -> bool {
        within(&self.lan.server, || TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    /// The whole answer of port 8080.
    pub(super) fn get_media(&self, path: &str) -> Vec<u8> {
        within(&self.lan.server, || {
            let mut stream = TcpStream::connect("127.0.0.1:8080").unwrap();
            write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            answer
        })
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn container(name: &str) -> String {
    format!("container_image={name}")
}

const ALL_FIVE: [&str; 5] =
    ["config.yaml", "kairos.iso", "kairos.iso.custom.iso", "kairos.iso.custom.iso.sha256", "kairos.iso.sha256"];

#[test]
fn each_switch_takes_away_its_own_and_nothing_else() {
    let image = image(&bootable());
    for (settings, ports, iso_folder) in [
        (&[][..], [true, true], true),
        (&["disable_http_server=true"], [true, false], true),
        (&["disable_netboot=true"], [false, true], true),
        (&["disable_iso=true"], [true, false], false),
        (&["disable_iso=true", "disable_http_server=true"], [true, false], false),
    ] {
        let site = Site::new("switches");
        let registry = site.good_registry(&image);
        let mut run = site.start(site.command(&registry.name(), settings));
        run.wait_for("Ready");
        assert_eq!([site.listens(8090), site.listens(8080)], ports, "{settings:?}");
        run.signal("TERM");
        run.outcome().succeeded();
        assert_eq!(site.state().join("iso").exists(), iso_folder, "{settings:?}");
        assert_eq!(site.state().join("netboot/boot.iso").exists(), !iso_folder, "{settings:?}");
    }
    let site = Site::new("switches");
    let outcome = site.make(&["container_image=a", "disable_iso=true"], None);
    assert_eq!(outcome.code, Some(2));
    assert!(outcome.log[0].contains("disable_iso and disable_netboot are both set"), "{outcome:#?}");
}

#[test]
fn the_media_are_named_as_wanted() {
    let site = Site::new("names");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let image = container(&registry.name());
    site.make(&[&image], Some(CLOUD)).succeeded();
    assert_eq!(site.media(), ALL_FIVE);
    assert_eq!(site.in_iso("kairos.iso.custom.iso", "/config.yaml"), CLOUD.as_bytes());
    assert_eq!(std::fs::metadata(site.iso("config.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    site.verify_checksums();

    site.make(&[&image, "iso.override_name=my lab", "iso.include_date=true"], Some(CLOUD)).succeeded();
    let mine: Vec<String> = site.media().into_iter().filter(|name| name.starts_with("my lab.2")).collect();
    assert_eq!(mine.len(), 4, "{mine:?}");
    assert!(mine[0].ends_with(".iso") && mine[0].len() == "my lab.20261122.iso".len(), "{mine:?}");
    site.verify_checksums();
    for name in ["../x", "a/b", ".hidden", "/etc/x"] {
        let outcome = site.make(&[&image, &format!("iso.override_name={name}")], None);
        assert_eq!(outcome.code, Some(2), "{name}: {outcome:#?}");
        assert!(outcome.log[0].contains("iso.override_name"), "{outcome:#?}");
    }
}

#[test]
fn what_other_inputs_made_is_not_used() {
    let site = Site::new("stale");
    let (first, second) = (image(&bootable()), image(&bootable_with(file("etc/motd", "another"))));
    let (first, second) = (site.good_registry(&first), site.good_registry(&second));
    let image = container(&first.name());
    site.make(&[&image], Some(CLOUD)).succeeded();
    let digest = || std::fs::read_to_string(site.iso("kairos.iso.custom.iso.sha256")).unwrap();
    let made = digest();
    let again = site.make(&[&image], Some(CLOUD));
    assert!(again.reused() && again.said("of an earlier run, with the cloud config in it"), "{again:#?}");
    assert_eq!(digest(), made);

    let other = "#cloud-config\nhostname: other\n";
    assert!(site.make(&[&image], Some(other)).reused(), "the image is the same");
    assert_eq!(site.in_iso("kairos.iso.custom.iso", "/config.yaml"), other.as_bytes());
    assert_ne!(digest(), made);

    assert!(!site.make(&[&container(&second.name())], Some(other)).succeeded().reused());
    site.verify_checksums();
    site.make(&[&image], None).succeeded();
    assert_eq!(site.media(), ["kairos.iso", "kairos.iso.sha256"], "no config, no custom ISO");

    // Somebody cuts the custom ISO; somebody writes into the other one, and its size stays.
    site.make(&[&image], Some(CLOUD)).succeeded();
    File::options().write(true).open(site.iso("kairos.iso.custom.iso")).unwrap().set_len(1 << 20).unwrap();
    File::options().write(true).open(site.iso("kairos.iso")).unwrap().write_all_at(b"touched", 1 << 20).unwrap();
    assert!(!site.make(&[&image], Some(CLOUD)).succeeded().reused());
    site.verify_checksums();
    assert_eq!(site.in_iso("kairos.iso.custom.iso", "/config.yaml"), CLOUD.as_bytes());
}

#[test]
fn overlays_go_where_they_belong_and_are_looked_through_again() {
    let site = Site::new("overlays");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let image = container(&registry.name());
    let (onto_iso, onto_root) = (site.dir.path().join("iso overlay"), site.dir.path().join("root"));
    std::fs::create_dir_all(onto_iso.join("bundles")).unwrap();
    std::fs::create_dir_all(onto_root.join("etc")).unwrap();
    std::fs::write(onto_iso.join("bundles/airgap.tar"), "bundle").unwrap();
    std::fs::write(onto_root.join("etc/os-release"), "PRETTY_NAME=\"Laid over\"\n").unwrap();
    symlink("airgap.tar", onto_iso.join("bundles/latest")).unwrap();
    let overlays =
        [format!("iso.overlay_iso={}", onto_iso.display()), format!("iso.overlay_rootfs={}", onto_root.display())];
    let settings = [image.as_str(), &overlays[0], &overlays[1]];
    site.make(&settings, None).succeeded();
    assert_eq!(site.in_iso("kairos.iso.custom.iso", "/bundles/latest"), b"bundle");
    let stamp = std::fs::read_to_string(site.state().join("stamps/iso.json")).unwrap();
    assert!(stamp.contains("Laid over"), "{stamp}");

    assert!(site.make(&settings, None).reused());
    std::fs::write(onto_iso.join("bundles/airgap.tar"), "newer").unwrap();
    assert!(site.make(&settings, None).reused(), "the image is as it was");
    assert_eq!(site.in_iso("kairos.iso.custom.iso", "/bundles/latest"), b"newer");
    std::fs::write(onto_root.join("etc/os-release"), "PRETTY_NAME=\"Again\"\n").unwrap();
    assert!(!site.make(&settings, None).succeeded().reused());
    site.verify_checksums();
}

#[test]
fn isos_of_others_are_used_or_refused_by_name() {
    let site = Site::new("others");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    site.build(&registry.name()).succeeded();
    let (good, given) = (site.dir.path().join("good.iso"), site.dir.path().join("given.iso"));
    std::fs::rename(site.iso("kairos.iso"), &good).unwrap();
    std::fs::remove_dir_all(site.state()).unwrap();
    let setting = format!("iso_url={}", given.display());
    let whole = std::fs::read(&good).unwrap();

    std::fs::write(&given, &whole).unwrap();
    let made = site.make(&[&setting, "iso.live_console=console=ttyS1"], Some(CLOUD));
    assert!(made.succeeded().said("iso.live_console and iso.extend-live-cmdline have no effect"), "{made:#?}");
    assert_eq!(site.media(), ALL_FIVE);
    assert_eq!(site.in_iso("kairos.iso.custom.iso", "/config.yaml"), CLOUD.as_bytes());
    site.verify_checksums();
    std::fs::remove_dir_all(site.state()).unwrap();

    for (bytes, words) in
        [(&whole[..whole.len() / 2], "truncated"), (&noise(1 << 20, 3)[..], "not an ISO"), (&[][..], "not an ISO")]
    {
        std::fs::write(&given, bytes).unwrap();
        let outcome = site.make(&[&setting], Some(CLOUD));
        assert!(outcome.error().contains(words), "{words}: {outcome:#?}");
        assert_eq!(site.media(), Vec::<String>::new(), "what is no ISO does not stay");
    }
    std::fs::write(&given, &whole).unwrap();
    site.make(&[&setting], Some(CLOUD)).succeeded();
    std::fs::write(&given, "no ISO any more").unwrap();
    assert!(site.make(&[&setting], Some(CLOUD)).error().contains("not an ISO"));
    assert_eq!(site.media(), ALL_FIVE, "and what was there is not lost");
    let link = site.dir.path().join("link.iso");
    std::os::unix::fs::symlink(site.iso("kairos.iso.custom.iso"), &link).unwrap();
    for own in [site.iso("kairos.iso.custom.iso"), link] {
        let outcome = site.make(&[&format!("iso_url={}", own.display())], None);
        assert!(outcome.error().contains("where the ISOs are put; move it elsewhere"), "{outcome:#?}");
        assert_eq!(site.media(), ALL_FIVE, "what is made is no source, and does not go");
    }
    std::fs::remove_dir_all(site.state()).unwrap();
    std::fs::remove_file(&given).unwrap();
    assert!(Command::new("mkfifo").arg(&given).status().unwrap().success());
    assert!(site.make(&[&setting], None).error().ends_with("given.iso is not a file"), "and nobody waits for a writer");
    std::fs::remove_file(&given).unwrap();
    // Of somebody else's kind: fine to be customised, not to be booted from the network.
    let plain = site.dir.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join("readme.txt"), "hello").unwrap();
    let made = Command::new("genisoimage").args(["-quiet", "-R", "-J", "-o"]).arg(&given).arg(&plain).status();
    assert!(made.expect("genisoimage: tests/packages it").success());
    site.make(&[&setting], Some(CLOUD)).succeeded();
    assert_eq!(site.in_iso("kairos.iso.custom.iso", "/readme.txt"), b"hello");
    let mut command = Command::new(env!("CARGO_BIN_EXE_auroraboot"));
    command.args(["--set", &setting, "--set", &format!("state_dir={}", site.state().display())]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let outcome = site.start(command).outcome();
    assert!(outcome.error().contains("no /boot/kernel, no /boot/initrd, no /rootfs.squashfs"), "{outcome:#?}");
}

#[test]
fn port_8080_offers_the_isos_and_never_the_cloud_config() {
    let site = Site::new("offers");
    let image = image(&bootable());
    let registry = site.good_registry(&image);
    let mut command = site.command(&registry.name(), &["disable_netboot=true"]);
    command.arg("--cloud-config").arg(site.dir.write("cloud.yaml", CLOUD));
    let mut run = site.start(command);
    run.wait_for("Ready");
    let page = String::from_utf8(site.get_media("/")).unwrap();
    assert!(page.contains("kairos.iso.custom.iso") && page.contains("Contains your cloud config"), "{page}");
    let custom = site.get_media("/kairos.iso.custom.iso");
    assert!(custom.ends_with(&std::fs::read(site.iso("kairos.iso.custom.iso")).unwrap()));
    for path in ["/config.yaml", "/../iso/config.yaml", "/%2e%2e/secret", "/iso/config.yaml", "/stamps/iso.json"] {
        let answer = String::from_utf8_lossy(&site.get_media(path)).into_owned();
        assert!(answer.starts_with("HTTP/1.1 40") && !answer.contains("made-by-a-test"), "{path}: {answer}");
    }
    run.signal("TERM");
    run.outcome().succeeded();
}

#[test]
fn a_disk_that_fills_up_at_any_point_is_named_and_the_next_run_succeeds() {
    let image = image(&bootable_with(file("usr/noise", noise(4 << 20, 1))));
    // The ISO is about 16 MiB beside a layer of 4: from "not even the layer" to "not the custom ISO".
    for mib in [3, 8, 12, 18, 22, 28, 34] {
        let site = Site::new("fills");
        let registry = site.good_registry(&image);
        let disk = SmallDisk::mount(&site.state(), mib);
        let outcome = site.make(&[&container(&registry.name())], Some(CLOUD));
        if outcome.code != Some(0) {
            let error = outcome.error();
            let names_it = error.contains("full") || error.contains("No space left on device");
            assert!(names_it && error.contains(site.state().to_str().unwrap()), "{mib}: {error}");
            assert!(!site.iso("kairos.iso.custom.iso").exists());
            disk.enlarge(128);
            site.make(&[&container(&registry.name())], Some(CLOUD)).succeeded();
        }
        assert!(site.leftovers().is_empty(), "{mib}: {:?}", site.leftovers());
        site.verify_checksums();
        assert_eq!(site.media(), ALL_FIVE);
    }
}

#[test]
fn killed_at_any_moment_it_leaves_nothing_that_is_believed() {
    let image = image(&bootable_with(file("usr/noise", noise(12 << 20, 1))));
    let site = Site::new("killed");
    let registry = site.good_registry(&image);
    let settings = [container(&registry.name())];
    let settings = [settings[0].as_str()];
    let started = Instant::now();
    site.make(&settings, Some(CLOUD)).succeeded();
    let whole = started.elapsed();
    const MOMENTS: u32 = 12;
    for moment in 0..MOMENTS {
        // The same directory again and again, with the media of an earlier run in it and another cloud config every time.
        let cloud = format!("{CLOUD}moment: {moment}\n");
        if moment % 3 == 0 {
            std::fs::remove_dir_all(site.iso("")).unwrap();
        }
        let mut command = site.command(&registry.name(), MEDIA_ONLY);
        command.arg("--cloud-config").arg(site.dir.write("cloud.yaml", &cloud));
        let run = site.start(command);
        std::thread::sleep(whole * moment / MOMENTS); // the moment is what is tested
        run.signal("KILL");
        run.outcome();
        site.make(&settings, Some(&cloud)).succeeded();
        assert!(site.leftovers().is_empty(), "{moment}: {:?}", site.leftovers());
        site.verify_checksums();
        assert_eq!(site.in_iso("kairos.iso.custom.iso", "/config.yaml"), cloud.as_bytes());
    }
}
