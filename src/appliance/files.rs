//! The configuration on the boot partition: which of its files count, what a stick brought, what worked last.
//!
//! ```text
//! auroraboot.yaml ◂ stick.yaml ◂ console.yaml                        key by key, the last one wins
//! cloud-config.yaml ◂ stick-cloud-config.yaml ◂ console-cloud-config.yaml   the last one that is there
//! last-good/                                                         what of them could be read last
//! ```

use super::boot_partition::BootPartition;
use crate::config::Args;
use crate::daemon::supervise::{CONSOLE_CLOUD_FILE, CONSOLE_FILE, Layers, Store};
use crate::limits;
use crate::units::chain;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What people write on their own computer.
const HAND: &str = "auroraboot.yaml";
const HAND_CLOUD: &str = "cloud-config.yaml";
/// What a stick brought.
const STICK: &str = "stick.yaml";
const STICK_CLOUD: &str = "stick-cloud-config.yaml";
/// Those that make the configuration, the weakest first.
const ALL: [&str; 6] = [HAND, STICK, CONSOLE_FILE, HAND_CLOUD, STICK_CLOUD, CONSOLE_CLOUD_FILE];
const LAST_GOOD: &str = "last-good";
/// Says that the data partition is to be made anew.
const RESET_MARK: &str = "factory-reset";

/// The file that an image is flashed with: it sets nothing.
pub const TEMPLATE: &str = include_str!("../../image/boot/auroraboot.yaml");

/// The boot partition as a place for configuration. Clones share it.
#[derive(Clone)]
pub struct Files {
    store: Arc<dyn Store>,
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files").field("directory", &self.directory()).finish()
    }
}

impl Store for BootPartition {
    fn directory(&self) -> &Path {
        self.path()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.write(name, bytes).map_err(|error| chain(&error))
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        self.remove(name).map_err(|error| chain(&error))
    }
}

impl Store for Files {
    fn directory(&self) -> &Path {
        self.store.directory()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.store.write(name, bytes)
    }

    fn remove(&self, name: &str) -> Result<(), String> {
        self.store.remove(name)
    }
}

impl Files {
    #[must_use]
    pub fn new(store: impl Store + 'static) -> Self {
        Self { store: Arc::new(store) }
    }

    /// What the files say, less what consoles have set: that is laid over it elsewhere.
    #[must_use]
    pub fn layers(&self, settings: &[&str]) -> Layers {
        self.layers_in(self.directory(), settings)
    }

    /// What is used in the place of files that cannot be read, the best first: what worked last with what consoles have set, all that
    /// worked last, what consoles have set alone, nothing.
    #[must_use]
    pub fn fallbacks(&self, settings: &[&str]) -> [Layers; 4] {
        let directory = self.directory().join(LAST_GOOD);
        let nothing = Layers { is_fallback: true, ..self.layers_in(&directory.join("nothing"), settings) };
        let good = Layers { is_fallback: true, ..self.layers_in(&directory, settings) };
        let mut all_good = Layers { is_complete: true, ..good.clone() };
        let kept = |name: &str| Some(directory.join(name)).filter(|path| path.exists()).map(|path| text(&path));
        all_good.args.with.extend(kept(CONSOLE_FILE));
        all_good.args.cloud_config = kept(CONSOLE_CLOUD_FILE).or(all_good.args.cloud_config);
        [good, all_good, nothing.clone(), Layers { is_complete: true, ..nothing }]
    }

    fn layers_in(&self, directory: &Path, settings: &[&str]) -> Layers {
        let present = |name: &str| {
            Some(directory.join(name)).filter(|path| path.exists() && !is_blank(path)).map(|path| text(&path))
        };
        let args = Args {
            config: present(HAND),
            with: present(STICK).into_iter().collect(),
            set: settings.iter().map(|setting| (*setting).to_owned()).collect(),
            cloud_config: present(STICK_CLOUD).or_else(|| present(HAND_CLOUD)),
            ..Args::default()
        };
        // There is no network yet when they are looked at first.
        Layers { args, ..Layers::default() }
    }

    /// Keeps the present files as those that worked last. They are written only when they are others than before.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn keep_as_good(&self) -> Result<(), String> {
        for name in ALL {
            let kept = format!("{LAST_GOOD}/{name}");
            let (now, before) = (read(&self.directory().join(name)), read(&self.directory().join(&kept)));
            match now.map_err(|error| format!("cannot read {name}: {error}"))? {
                Some(bytes) if before.ok().flatten().as_ref() != Some(&bytes) => self.write(&kept, &bytes)?,
                Some(_) => {}
                None => self.remove(&kept)?,
            }
        }
        Ok(())
    }

    /// Takes the configuration of a stick that is mounted at `stick`; tells which files that were.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn import(&self, stick: &Path) -> Result<Vec<&'static str>, String> {
        let news = self.news_of(stick)?;
        news.iter().try_for_each(|(_, ours, bytes)| self.write(ours, bytes))?;
        Ok(news.into_iter().map(|(theirs, ..)| theirs).collect())
    }

    /// The files of a stick that are not here as they are there: their names there and here, and their content.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn news_of(&self, stick: &Path) -> Result<Vec<News>, String> {
        let mut news = Vec::new();
        for (theirs, ours) in [(HAND, STICK), (HAND_CLOUD, STICK_CLOUD)] {
            let found =
                read(&stick.join(theirs)).map_err(|error| format!("cannot read {theirs} of the stick: {error}"))?;
            let Some(bytes) = found else { continue };
            if read(&self.directory().join(ours)).ok().flatten().as_ref() != Some(&bytes) {
                news.push((theirs, ours, bytes));
            }
        }
        Ok(news)
    }

    /// What an earlier stick brought, and the one at `stick` does not.
    #[must_use]
    pub fn of_earlier_stick(&self, stick: &Path) -> Vec<&'static str> {
        let stays =
            |(theirs, ours): &(&str, &str)| !stick.join(theirs).exists() && self.directory().join(ours).exists();
        [(HAND, STICK), (HAND_CLOUD, STICK_CLOUD)].into_iter().filter(stays).map(|(theirs, _)| theirs).collect()
    }

    /// As it was flashed: nothing is configured, and the next start makes the data partition anew.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn reset(&self) -> Result<(), String> {
        self.write(RESET_MARK, b"")?;
        for name in ALL {
            self.remove(&format!("{LAST_GOOD}/{name}"))?;
            self.remove(name)?;
        }
        self.write(HAND, TEMPLATE.as_bytes())
    }

    /// Whether a reset was begun.
    #[must_use]
    pub fn is_resetting(&self) -> bool {
        self.directory().join(RESET_MARK).exists()
    }

    /// The reset is complete.
    ///
    /// # Errors
    /// One sentence for the operator.
    pub fn end_reset(&self) -> Result<(), String> {
        self.remove(RESET_MARK)
    }
}

/// What a file is called on a stick and here, and what is in it.
pub type News = (&'static str, &'static str, Vec<u8>);

/// Files that were meant for ours and are called otherwise, a sentence each: Windows hides `.txt`, and adds it.
#[must_use]
pub fn misnamed(directory: &Path) -> Vec<String> {
    let meant = |name: &str| {
        let plain = name.to_ascii_lowercase();
        let plain = plain.strip_suffix(".txt").unwrap_or(&plain);
        let plain = plain.strip_suffix(".yml").or_else(|| plain.strip_suffix(".yaml"))?;
        [HAND, HAND_CLOUD]
            .into_iter()
            .find(|ours| ours.strip_suffix(".yaml") == Some(plain) && !ours.eq_ignore_ascii_case(name))
    };
    let names = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let mut told: Vec<String> = names
        .filter_map(|name| {
            let name = name.to_string_lossy();
            Some(format!("{name} is not read: rename it to {}", meant(&name)?))
        })
        .collect();
    told.sort();
    told
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Whether there is nothing but comments in it, as in the file that an image is flashed with.
fn is_blank(path: &PathBuf) -> bool {
    fs::read_to_string(path).is_ok_and(|text| {
        text.trim_start_matches('\u{feff}')
            .lines()
            .all(|line| line.trim_start().starts_with('#') || line.trim().is_empty())
    })
}

/// A file of settings, if it is there.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let mut bytes = Vec::new();
    file.take(limits::CLOUD_CONFIG_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limits::CLOUD_CONFIG_BYTES_MAX {
        return Err(io::Error::other("it is larger than any configuration"));
    }
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::super::host::choose_layers;
    use super::*;
    use crate::daemon::supervise::Folder;
    use std::fs;

    /// A boot partition as it was flashed.
    fn flashed(name: &str) -> (Files, PathBuf) {
        let folder = std::env::temp_dir().join(format!("auroraboot-files-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join(LAST_GOOD)).unwrap();
        fs::write(folder.join(HAND), TEMPLATE).unwrap();
        (Files::new(Folder(folder.clone())), folder)
    }

    /// The image that is booted, where that is said, and what is wrong.
    fn image(files: &Files) -> (Option<String>, String, Option<String>) {
        let (_, config, wrong) = choose_layers(files, &["state_dir=/data/state"]);
        let image = config.unwrap().container_image;
        (image.value, image.origin.to_string().rsplit('/').next().unwrap().to_owned(), wrong)
    }

    #[test]
    fn what_windows_makes_of_the_names_is_told() {
        let (_, folder) = flashed("names");
        for name in ["auroraboot.yaml.txt", "cloud-config.yml", "Auroraboot.YML.txt", "readme.txt", "._auroraboot.yaml"]
        {
            fs::write(folder.join(name), "").unwrap();
        }
        let told = misnamed(&folder).join("; ");
        assert_eq!(
            told,
            "Auroraboot.YML.txt is not read: rename it to auroraboot.yaml; \
             auroraboot.yaml.txt is not read: rename it to auroraboot.yaml; \
             cloud-config.yml is not read: rename it to cloud-config.yaml"
        );
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_is_flashed_sets_nothing() {
        let (files, folder) = flashed("template");
        assert_eq!(image(&files), (None, "default".to_owned(), None));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn the_console_wins_over_the_stick_and_the_stick_over_what_was_written_by_hand() {
        let (files, folder) = flashed("layers");
        files.write(HAND, b"container_image: hand\n").unwrap();
        assert_eq!(image(&files).0.as_deref(), Some("hand"));
        let stick = folder.join("a stick");
        fs::create_dir(&stick).unwrap();
        fs::write(stick.join(HAND), "container_image: stick\n").unwrap();
        fs::write(stick.join(HAND_CLOUD), "#cloud-config\n").unwrap();
        assert_eq!(files.import(&stick).unwrap(), [HAND, HAND_CLOUD]);
        assert_eq!(files.import(&stick).unwrap(), [""; 0], "it is here already");
        assert_eq!(files.of_earlier_stick(&stick), [""; 0]);
        assert_eq!(files.of_earlier_stick(&folder.join("another stick")), [HAND, HAND_CLOUD]);
        assert_eq!(image(&files).1, "stick.yaml:1");
        files.write(CONSOLE_FILE, b"container_image: console\n").unwrap();
        assert_eq!(image(&files), (Some("console".to_owned()), "console.yaml:1".to_owned(), None));
        files.reset().unwrap();
        assert!(files.is_resetting());
        files.end_reset().unwrap();
        assert_eq!((image(&files).0, files.is_resetting()), (None, false));
        assert!(!folder.join(STICK_CLOUD).exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_worked_last_stays_in_force() {
        let (files, folder) = flashed("fallback");
        files.write(HAND, b"container_image: good\n").unwrap();
        files.keep_as_good().unwrap();
        files.write(HAND, b"container_image: quay.io/kairos/Ubuntu:1\n").unwrap();
        assert!(image(&files).2.is_some_and(|wrong| wrong.contains("Ubuntu") && wrong.ends_with("stays in force")));
        files.write(HAND, b"container_image: new\nnetboot_http_port: 80a\n").unwrap();
        let (used, _, wrong) = image(&files);
        assert_eq!(used.as_deref(), Some("good"));
        let wrong = wrong.unwrap();
        assert!(wrong.contains("auroraboot.yaml:2") && wrong.ends_with("stays in force"), "{wrong}");
        // Consoles go on to work beside it.
        files.write(CONSOLE_FILE, b"container_image: console\n").unwrap();
        assert_eq!(image(&files).0.as_deref(), Some("console"));
        files.write(CONSOLE_FILE, b"{").unwrap();
        assert_eq!(image(&files).0.as_deref(), Some("good"), "their damaged file is left out");
        // Nothing has ever worked: the appliance is there, and boots nobody.
        for name in ALL {
            files.remove(&format!("{LAST_GOOD}/{name}")).unwrap();
        }
        let (used, _, wrong) = image(&files);
        assert!(used.is_none() && wrong.is_some());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_what_changed_is_written_again() {
        let (files, folder) = flashed("good");
        files.write(HAND_CLOUD, b"#cloud-config\n").unwrap();
        files.keep_as_good().unwrap();
        let kept = folder.join(LAST_GOOD).join(HAND_CLOUD);
        let before = fs::metadata(&kept).unwrap().modified().unwrap();
        files.keep_as_good().unwrap();
        assert_eq!(fs::metadata(&kept).unwrap().modified().unwrap(), before);
        files.remove(HAND_CLOUD).unwrap();
        files.keep_as_good().unwrap();
        assert!(!kept.exists());
        fs::write(folder.join(STICK), vec![b'#'; limits::CLOUD_CONFIG_BYTES_MAX + 1]).unwrap();
        assert!(files.keep_as_good().unwrap_err().contains("larger than any configuration"));
        fs::remove_dir_all(folder).unwrap();
    }
}
