//! Where in the state directory a run's media are.

use crate::config::{Config, Origin};
use crate::media::names::{BadName, Date, Name};
use crate::sys::time::LocalTime;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What a stamp names as the maker.
pub const PRODUCT: &str = concat!("auroraboot ", env!("CARGO_PKG_VERSION"));

/// What is behind the name of a file that has not arrived yet.
const PART: &str = ".part";

/// The paths of one run.
#[derive(Debug, Clone)]
pub struct Places {
    /// Holds the ISO.
    pub directory: PathBuf,
    pub name: Name,
    /// Whether the ISO is for people, not for netboot alone.
    pub is_public: bool,
    /// Where it is noted what the ISO was made from.
    pub stamp: PathBuf,
    /// The same of the custom ISO.
    pub custom_stamp: PathBuf,
}

/// The ISO's name as the configuration has it.
///
/// # Errors
/// `iso.override_name` is no file name.
pub fn name(config: &Config) -> Result<Name, (Origin, BadName)> {
    const DEFAULT: &str = "kairos";
    let setting = &config.iso.override_name;
    let name: Name = setting.as_deref().unwrap_or(DEFAULT).parse().map_err(|error| (setting.origin.clone(), error))?;
    if !*config.iso.include_date {
        return Ok(name);
    }
    let (year, month, day) = LocalTime::now().date();
    Ok(name.dated(Date { year, month, day }))
}

impl Places {
    /// The places below `state_dir` for a medium called `name`; the directories are made.
    ///
    /// # Errors
    /// A directory cannot be made.
    pub fn new(state_dir: &Path, name: Name, disable_iso: bool) -> Result<Self, (PathBuf, io::Error)> {
        let folder = |name| {
            let path = state_dir.join(name);
            fs::create_dir_all(&path).map(|()| path.clone()).map_err(|error| (path, error))
        };
        let stamps = folder("stamps")?;
        if disable_iso {
            const BOOT: &str = "boot";
            let (directory, stamp) = (folder("netboot")?, stamps.join("netboot.json"));
            let name = BOOT.parse().unwrap_or(name);
            return Ok(Self { directory, name, is_public: false, stamp, custom_stamp: stamps.join("custom.json") });
        }
        let (directory, stamp) = (folder("iso")?, stamps.join("iso.json"));
        Ok(Self { directory, name, is_public: true, stamp, custom_stamp: stamps.join("custom.json") })
    }

    /// Where an ISO that is fetched and not built goes: to the one an earlier run fetched, whatever date it has in its name.
    #[must_use]
    pub fn iso(&self) -> PathBuf {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let whole = names.iter().map(String::as_str).filter(|name| self.name.is_iso(name)).max();
        // Begun yesterday, gone on with today.
        let begun = names.iter().filter_map(|name| name.strip_suffix(PART)).filter(|name| self.name.is_iso(name)).max();
        self.directory.join(whole.or(begun).map_or_else(|| self.name.iso(), str::to_owned))
    }

    /// What a download of an earlier run left for one of this run to go on with: as much of the ISO as came, and the note about it.
    #[must_use]
    pub fn begun(&self) -> [PathBuf; 2] {
        [self.iso(), self.stamp.clone()].map(|path| {
            let mut name = path.into_os_string();
            name.push(PART);
            name.into()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_download_that_was_begun_yesterday_is_gone_on_with_today() {
        let state = std::env::temp_dir().join(format!("auroraboot-places-{}", std::process::id()));
        let _ = fs::remove_dir_all(&state);
        let name = "x".parse::<Name>().unwrap().dated(Date { year: 2026, month: 11, day: 23 });
        let places = Places::new(&state, name, false).unwrap();
        let of = |name: &str| places.directory.join(name);
        assert_eq!(places.iso(), of("x.20261123.iso"));
        assert_eq!(places.begun(), [of("x.20261123.iso.part"), state.join("stamps/iso.json.part")]);
        fs::write(of("x.20261122.iso.part"), "").unwrap();
        fs::write(of("y.20261124.iso.part"), "").unwrap();
        fs::write(of("x.20261122.iso.custom.iso.part"), "").unwrap();
        assert_eq!(places.iso(), of("x.20261122.iso"));
        assert_eq!(places.begun()[0], of("x.20261122.iso.part"));
        fs::write(of("x.20261121.iso"), "").unwrap();
        assert_eq!(places.iso(), of("x.20261121.iso"), "it may be the one that is wanted");
        fs::remove_dir_all(&state).unwrap();
    }
}
