//! What killed runs left half-written: what no run can go on with goes when the next one begins.
//!
//! | where | what | goes |
//! |---|---|---|
//! | `iso`, `netboot` | `*.part`: an ISO on its way | unless this run fetches one there: it goes on with it |
//! | `stamps` | `*.part`, `*.new`: notes | with what they are about |
//! | `urls`, `blobs/tags` | `*.part`: small files | always |
//! | `blobs/sha256` | `spool*.part`: an archive on its way out of its compression | always: it begins anew |
//! | | `<hex>.part`: a layer | after a week: until then whoever asks for the image goes on with it |
//!
//! Whoever calls this holds the lock of the state directory, and has begun nothing yet.

use crate::limits::PART_AGE_MAX;
use std::fs::{self, DirEntry};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Directories below the state directory, and how files end that are half-written.
const HALF_WRITTEN: [(&str, &[&str]); 6] = [
    ("iso", &[".part"]),
    ("netboot", &[".part"]),
    ("stamps", &[".part", ".new"]),
    ("urls", &[".part"]),
    ("blobs/tags", &[".part"]),
    (BLOBS, &[".part"]),
];
const BLOBS: &str = "blobs/sha256";

/// What was removed.
#[derive(Debug, Default)]
pub struct Removed {
    pub files: usize,
    pub bytes: u64,
}

/// Removes what was left below `state_dir`, but for the files in `resumed`. Whatever cannot be removed stays: that is no reason not to run.
pub fn remove(state_dir: &Path, resumed: &[PathBuf], now: SystemTime) -> Removed {
    let mut removed = Removed::default();
    for (directory, endings) in HALF_WRITTEN {
        for entry in fs::read_dir(state_dir.join(directory)).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let is_half = endings.iter().any(|ending| name.as_encoded_bytes().ends_with(ending.as_bytes()));
            let waits = directory == BLOBS && is_layer(&entry) && is_young(&entry, now);
            if !is_half || waits || resumed.contains(&path) {
                continue;
            }
            let length = entry.metadata().map_or(0, |found| found.len());
            match fs::remove_file(&path) {
                Ok(()) => {
                    removed.files += 1;
                    removed.bytes += length;
                }
                Err(error) => log::warn!("cannot remove {}: {error}", path.display()),
            }
        }
    }
    removed
}

/// The sizes of the ISOs that are half-written.
pub fn isos(state_dir: &Path) -> Vec<u64> {
    let half = ["iso", "netboot"].into_iter().flat_map(|directory| fs::read_dir(state_dir.join(directory)));
    let half = half.flatten().flatten().filter(|entry| entry.file_name().as_encoded_bytes().ends_with(b".iso.part"));
    half.filter_map(|entry| Some(entry.metadata().ok()?.len())).collect()
}

/// Its name is a digest.
fn is_layer(entry: &DirEntry) -> bool {
    entry.path().file_stem().is_some_and(|stem| stem.len() == 64)
}

/// What seems to come out of the future was written before a host without a battery-backed clock was started again: it waits, too.
fn is_young(entry: &DirEntry, now: SystemTime) -> bool {
    let written = entry.metadata().and_then(|found| found.modified());
    written.is_ok_and(|written| now.duration_since(written).unwrap_or_default() <= PART_AGE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::time::Duration;

    /// A state directory that goes when the test ends.
    struct StateDir(PathBuf);

    impl StateDir {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("auroraboot-leftovers-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            Self(path)
        }

        fn put(&self, name: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "half").unwrap();
            path
        }
    }

    impl Drop for StateDir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_no_run_can_go_on_with_goes_and_the_rest_stays() {
        let state = StateDir::new("go");
        let layer = "0a".repeat(32);
        let whole = [
            "iso/kairos.iso",
            "iso/kairos.iso.sha256",
            "stamps/iso.json",
            &format!("urls/{layer}"),
            &format!("blobs/tags/{layer}"),
            &format!("blobs/sha256/{layer}"),
            "blobs/sha256/spool-0.parts",
            "secret",
            "lock",
            "elsewhere/x.part",
        ];
        let half = [
            "iso/kairos.iso.custom.iso.part",
            "iso/kairos.20260101.iso.part",
            "netboot/boot.iso.part",
            "stamps/netboot.json.part",
            "stamps/iso.json.new",
            &format!("urls/{layer}.part"),
            &format!("blobs/tags/{layer}.part"),
            "blobs/sha256/spool-7.part",
            "blobs/sha256/spool.part",
        ];
        let resumed = ["iso/kairos.iso.part", "stamps/iso.json.part"].map(|name| state.put(name));
        let whole = whole.map(|name| state.put(name));
        let half = half.map(|name| state.put(name));
        fs::create_dir(state.0.join("iso/directory.part")).unwrap();
        remove(&state.0, &resumed, SystemTime::now());
        for path in whole.iter().chain(&resumed) {
            assert!(path.exists(), "{}", path.display());
        }
        for path in &half {
            assert!(!path.exists(), "{}", path.display());
        }
        remove(&state.0, &[], SystemTime::now());
        assert!(!resumed.iter().any(|path| path.exists()), "this run fetches no ISO");
        remove(&state.0.join("none"), &[], SystemTime::now());
        assert!(!state.0.join("none").exists());
    }

    #[test]
    fn a_layer_waits_a_week_to_be_gone_on_with() {
        let state = StateDir::new("layer");
        let now = SystemTime::now();
        let second = Duration::from_secs(1);
        for (written, is_kept) in [
            (now, true),
            (now - PART_AGE_MAX + second, true),
            (now - PART_AGE_MAX - second, false),
            (now + 9 * PART_AGE_MAX, true),
            (SystemTime::UNIX_EPOCH, false),
        ] {
            let layer = state.put(&format!("blobs/sha256/{}.part", "0a".repeat(32)));
            File::options().append(true).open(&layer).unwrap().set_modified(written).unwrap();
            remove(&state.0, &[], now);
            assert_eq!(layer.exists(), is_kept, "{written:?}");
        }
    }
}
