//! The custom ISO: what is in it, when it is made anew, when it has to go.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::AtomicBool;

use auroraboot::media::{self, Custom, CustomError, Medium, OverlayError, Wanted};
use auroraboot::units::chain;

use super::{Place, SmallDisk, image, layers, names, read_by_isoinfo, tool};

const CONFIG: &[u8] = b"#cloud-config\npassword: secret\n";
static RUN: AtomicBool = AtomicBool::new(false);

struct Run {
    place: Place,
    medium: Medium,
    config: Option<&'static [u8]>,
    overlay: Option<PathBuf>,
}

impl Run {
    fn new(name: &str) -> Self {
        let place = Place::new(&format!("custom-{name}"));
        let medium = place.build(&image(&layers())).unwrap();
        Self { place, medium, config: Some(CONFIG), overlay: None }
    }

    fn with_overlay(name: &str) -> (Self, PathBuf) {
        let mut run = Self::new(name);
        let overlay = run.place.scratch.0.join("overlay");
        fs::create_dir_all(overlay.join("bundles")).unwrap();
        fs::write(overlay.join("bundles/airgap.tar"), "x".repeat(100_000)).unwrap();
        symlink("bundles/airgap.tar", overlay.join("newest")).unwrap();
        run.overlay = Some(overlay.clone());
        (run, overlay)
    }

    fn stamp(&self) -> PathBuf {
        self.place.scratch.0.join("stamps/custom.json")
    }

    fn customise(&self) -> Result<Option<Custom>, CustomError> {
        self.then(|medium, wanted| media::customise(medium, wanted, &RUN))
    }

    fn custom(&self) -> Custom {
        self.customise().unwrap().expect("a custom ISO")
    }

    fn seal(&self, custom: &mut Custom) {
        self.then(|_, wanted| media::seal(custom, wanted, &RUN)).unwrap();
    }

    fn then<T>(&self, act: impl FnOnce(&Medium, &Wanted<'_>) -> T) -> T {
        let wanted = Wanted {
            config: self.config,
            overlay: self.overlay.as_deref(),
            directory: &self.place.iso(),
            stamp: &self.stamp(),
            product: "test 1",
        };
        act(&self.medium, &wanted)
    }

    fn names(&self) -> Vec<String> {
        names(&self.place.iso())
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

const ALL: [&str; 5] =
    ["config.yaml", "kairos.iso", "kairos.iso.custom.iso", "kairos.iso.custom.iso.sha256", "kairos.iso.sha256"];

#[test]
fn a_custom_iso_is_the_medium_with_the_cloud_config() {
    let run = Run::new("config");
    let pristine = fs::read(&run.medium.iso.path).unwrap();
    let mut custom = run.custom();
    assert_eq!((custom.reused, custom.sha256), (false, None));
    run.seal(&mut custom);
    let iso = &custom.iso.path;
    assert_eq!(run.names(), ALL);
    assert!(fs::read(&run.medium.iso.path).unwrap() == pristine, "the medium is never changed");
    assert_eq!(custom.iso.size, fs::metadata(iso).unwrap().len());
    assert_eq!(read_by_isoinfo(iso, "/config.yaml"), CONFIG);
    let listing = tool("isoinfo", &["-i", iso.to_str().unwrap(), "-R", "-l"]);
    let line = listing.lines().find(|line| line.contains("config.yaml")).unwrap();
    assert!(line.starts_with("-rw-------"), "{line}");
    assert_eq!(read_by_isoinfo(iso, "/boot/kernel"), super::kernel().as_bytes());

    assert_eq!(fs::read(run.place.iso().join("config.yaml")).unwrap(), CONFIG);
    assert_eq!((mode(&run.place.iso().join("config.yaml")), mode(iso)), (0o600, 0o600));
    let checked = Command::new("sha256sum")
        .args(["-c", "kairos.iso.custom.iso.sha256", "kairos.iso.sha256"])
        .current_dir(run.place.iso())
        .output();
    let text = String::from_utf8_lossy(&checked.unwrap().stdout).into_owned();
    assert_eq!(text, "kairos.iso.custom.iso: OK\nkairos.iso: OK\n");
    assert!(tool("sgdisk", &["-v", iso.to_str().unwrap()]).contains("No problems found"));
}

#[test]
fn an_overlay_lies_over_the_root_of_the_iso() {
    let (mut run, overlay) = Run::with_overlay("overlay");
    fs::create_dir_all(overlay.join("boot/grub2")).unwrap();
    fs::write(overlay.join("boot/grub2/grub.cfg"), "own menu").unwrap();
    fs::write(overlay.join("config.yaml"), "the overlay's").unwrap();
    let custom = run.custom();
    let iso = &custom.iso.path;
    assert_eq!(read_by_isoinfo(iso, "/bundles/airgap.tar"), "x".repeat(100_000).as_bytes());
    assert_eq!(read_by_isoinfo(iso, "/boot/grub2/grub.cfg"), b"own menu");
    assert_eq!(read_by_isoinfo(iso, "/config.yaml"), CONFIG);
    let listing = tool("isoinfo", &["-i", iso.to_str().unwrap(), "-R", "-l"]);
    assert!(listing.contains("newest -> bundles/airgap.tar"), "{listing}");
    assert!(custom.warnings[0].contains("the cloud config takes its place"), "{:?}", custom.warnings);
    // The overlay by itself makes a custom ISO, too.
    run.config = None;
    let custom = run.custom();
    assert!(!custom.reused && custom.warnings.is_empty());
    assert_eq!(read_by_isoinfo(&custom.iso.path, "/config.yaml"), b"the overlay's");
    assert_eq!(run.names(), ["kairos.iso", "kairos.iso.custom.iso", "kairos.iso.sha256"]);
}

#[test]
fn the_same_custom_iso_is_not_made_twice() {
    let (mut run, overlay) = Run::with_overlay("reuse");
    let mut first = run.custom();
    run.seal(&mut first);
    let bytes = fs::read(&first.iso.path).unwrap();
    let again = run.custom();
    assert_eq!(again, Custom { reused: true, ..first.clone() });
    // Touched, but the same.
    fs::write(overlay.join("bundles/airgap.tar"), "x".repeat(100_000)).unwrap();
    assert!(run.custom().reused);

    fs::write(overlay.join("bundles/airgap.tar"), "y".repeat(100_000)).unwrap();
    let changed = run.custom();
    assert_eq!((changed.reused, changed.sha256), (false, None));
    assert!(!run.names().contains(&ALL[3].to_owned()), "the old checksum is gone");
    assert_eq!(read_by_isoinfo(&changed.iso.path, "/bundles/airgap.tar"), "y".repeat(100_000).as_bytes());

    run.config = Some(b"#cloud-config\n");
    assert!(!run.custom().reused);
    fs::write(run.place.iso().join(ALL[2]), "not the ISO").unwrap();
    assert!(!run.custom().reused);
    for stamp in ["", "{}", "null"] {
        fs::write(run.stamp(), stamp).unwrap();
        assert!(!run.custom().reused);
    }
    // Equal input makes equal bytes; the time of a file is an input.
    run.config = Some(CONFIG);
    let time = fs::metadata(overlay.join("bundles/airgap.tar")).unwrap().modified().unwrap();
    fs::write(overlay.join("bundles/airgap.tar"), "x".repeat(100_000)).unwrap();
    let one = fs::read(run.custom().iso.path).unwrap();
    fs::remove_file(run.stamp()).unwrap();
    assert!(fs::read(run.custom().iso.path).unwrap() == one && time > std::time::UNIX_EPOCH);
    assert_eq!(one.len(), bytes.len());
}

/// As `cp -r` of the state directory does it on a disk without modes.
#[test]
fn a_custom_iso_that_was_copied_is_known_by_its_sha256_and_is_private_again() {
    let mut run = Run::new("copied");
    let mut first = run.custom();
    let iso = first.iso.path.clone();
    let copy = |bytes: &[u8]| {
        fs::remove_file(&iso).unwrap();
        fs::write(&iso, bytes).unwrap();
        fs::set_permissions(&iso, fs::Permissions::from_mode(0o644)).unwrap();
    };
    let mut bytes = fs::read(&iso).unwrap();
    copy(&bytes);
    assert!(!run.custom().reused, "killed before its sha256 was known");
    run.seal(&mut first);
    copy(&bytes);
    let again = run.custom();
    assert_eq!(again, Custom { reused: true, ..first.clone() });
    assert_eq!(fs::metadata(&iso).unwrap().mode() & 0o777, 0o600);
    let noted = fs::read(run.stamp()).unwrap();
    assert!(run.custom().reused && fs::read(run.stamp()).unwrap() == noted, "what was found out is noted");

    *bytes.last_mut().unwrap() ^= 1;
    copy(&bytes);
    let mut anew = run.custom();
    assert!(!anew.reused, "its size is what it was");
    run.seal(&mut anew);

    // Its medium has another name by now, and it was copied: what nobody asks for any more goes all the same.
    let copied = fs::read(&iso).unwrap();
    copy(&copied);
    let renamed = run.place.iso().join("other.iso");
    fs::rename(&run.medium.iso.path, &renamed).unwrap();
    run.medium.iso.path = renamed;
    run.config = None;
    assert_eq!(run.customise().unwrap(), None);
    assert!(!iso.exists());
}

#[test]
fn without_config_and_overlay_what_an_earlier_run_made_is_removed() {
    let mut run = Run::new("stale");
    let mut custom = run.custom();
    run.seal(&mut custom);
    assert_eq!(run.names(), ALL);
    run.config = None;
    assert_eq!(run.customise().unwrap(), None);
    assert_eq!(run.names(), ["kairos.iso", "kairos.iso.sha256"]);
    assert!(!run.stamp().exists());
    assert_eq!(run.customise().unwrap(), None);
}

#[test]
fn what_a_killed_run_left_is_neither_used_nor_kept() {
    let run = Run::new("killed");
    run.custom();
    // Killed after the old stamp had gone and the ISO had its new name; another one in the middle of its copy.
    fs::remove_file(run.stamp()).unwrap();
    fs::write(run.place.iso().join(ALL[2]), "half").unwrap();
    fs::write(run.place.iso().join("kairos.20200101.iso.custom.iso.part"), "half").unwrap();
    fs::write(run.place.iso().join("other.iso.part"), "a download").unwrap();
    let mut custom = run.custom();
    run.seal(&mut custom);
    assert!(!custom.reused);
    assert_eq!(read_by_isoinfo(&custom.iso.path, "/config.yaml"), CONFIG);
    let mut all = ALL.to_vec();
    all.push("other.iso.part");
    assert_eq!(run.names(), all, "what somebody else downloads stays");
}

#[test]
fn a_custom_iso_that_cannot_be_made_leaves_the_old_one() {
    let (mut run, overlay) = Run::with_overlay("failed");
    let mut first = run.custom();
    run.seal(&mut first);
    let bytes = fs::read(&first.iso.path).unwrap();

    run.overlay = Some(overlay.join("none"));
    let outcome = run.customise();
    assert!(matches!(outcome, Err(CustomError::Overlay(OverlayError::Missing { .. }))), "{outcome:?}");
    run.overlay = Some(overlay.join("bundles/airgap.tar"));
    assert!(matches!(run.customise(), Err(CustomError::Overlay(OverlayError::NotADirectory { .. }))));
    run.overlay = Some(overlay.clone());
    fs::create_dir(overlay.join("boot")).unwrap();
    fs::create_dir(overlay.join("boot/kernel")).unwrap();
    assert!(matches!(run.customise(), Err(CustomError::Remaster { .. })), "a directory where a file is");
    fs::remove_dir_all(overlay.join("boot")).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(overlay.join("socket")).unwrap();
    assert!(matches!(run.customise(), Err(CustomError::Overlay(OverlayError::Special { .. }))));
    drop(socket);
    fs::remove_file(overlay.join("socket")).unwrap();
    run.config = Some(b"#cloud-config\nother: true\n");
    let stopped = AtomicBool::new(true);
    let outcome = run.then(|medium, wanted| media::customise(medium, wanted, &stopped));
    assert!(matches!(outcome, Err(CustomError::Cancelled)), "{outcome:?}");

    assert!(fs::read(&first.iso.path).unwrap() == bytes);
    assert_eq!(run.names(), ALL);
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    let run = Run::new("full");
    let (elsewhere, needed) = (run.place.scratch.0.join("small"), run.medium.iso.size / 1024);
    for part in [1, 5, 10, 15, 16] {
        let kib = u32::try_from(needed * part / 16).unwrap();
        let disk = SmallDisk::mount(&elsewhere, kib);
        let outcome =
            run.then(|medium, wanted| media::customise(medium, &Wanted { directory: &elsewhere, ..*wanted }, &RUN));
        let left = names(&elsewhere);
        drop(disk);
        let text = chain(&outcome.unwrap_err());
        assert!(text.contains("No space left on device"), "{kib} KiB: {text}");
        assert_eq!(left, ["config.yaml"], "{kib} KiB");
        assert!(!run.stamp().exists());
    }
}
