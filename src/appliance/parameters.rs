//! What the image says of the board it is for, and what the kernel's command line says otherwise.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The lines of `/etc/auroraboot/appliance`, each `key=value`; a word `auroraboot.key=value` of the kernel's command line takes the place of
/// all lines of that key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// Its folder in `board/`.
    pub board: String,
    pub version: String,
    /// Each a device below `/dev` and perhaps a comma and a rate in bauds: `ttyS0,115200`.
    pub consoles: Vec<String>,
    /// When the image was built: no clock is right that says an earlier time.
    pub build_time: SystemTime,
    pub has_watchdog: bool,
}

impl Parameters {
    /// Reads both.
    ///
    /// # Errors
    /// The image's file cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let lines = fs::read_to_string(root.join("etc/auroraboot/appliance"))?;
        let words = fs::read_to_string(root.join("proc/cmdline")).unwrap_or_default();
        Ok(Self::parse(&lines, &words))
    }

    /// What is assumed when the image says nothing.
    #[must_use]
    pub fn unknown() -> Self {
        Self::parse("", "")
    }

    fn parse(lines: &str, words: &str) -> Self {
        let of_image = |key: &str| values(lines.lines(), key);
        let of_kernel = |key: &str| values(words.split_ascii_whitespace(), &format!("auroraboot.{key}"));
        let all = |key: &str| Some(of_kernel(key)).filter(|found| !found.is_empty()).unwrap_or_else(|| of_image(key));
        let last = |key: &str| all(key).pop();
        let seconds = last("build_time").and_then(|seconds| seconds.parse().ok()).unwrap_or(0);
        Self {
            board: last("board").unwrap_or_else(|| "unknown".to_owned()),
            version: last("version").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            consoles: all("console").into_iter().filter(|console| !console.is_empty()).collect(),
            build_time: UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH),
            has_watchdog: last("watchdog").as_deref() != Some("no"),
        }
    }
}

fn values<'a>(words: impl Iterator<Item = &'a str>, key: &str) -> Vec<String> {
    let value =
        |word: &'a str| word.trim().split_once('=').filter(|(name, _)| *name == key).map(|(_, value)| value.to_owned());
    words.filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_takes_the_images_place() {
        let lines = "board=x86-pc\nversion=1.2\nconsole=ttyS0,115200\nconsole=tty1\nbuild_time=1700000000\nwatchdog=yes\n# junk\n";
        let parameters = Parameters::parse(lines, "quiet console=ttyS0 root=/dev/null");
        assert_eq!((&parameters.board[..], &parameters.version[..]), ("x86-pc", "1.2"));
        assert_eq!(parameters.consoles, ["ttyS0,115200", "tty1"]);
        assert_eq!(parameters.build_time, UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        assert!(parameters.has_watchdog);
        let parameters = Parameters::parse(lines, "auroraboot.watchdog=no auroraboot.console=ttyS1,9600");
        assert_eq!(parameters.consoles, ["ttyS1,9600"]);
        assert!(!parameters.has_watchdog);
        assert!(Parameters::parse(lines, "auroraboot.console=").consoles.is_empty());
    }

    #[test]
    fn nothing_at_all_is_enough_to_start() {
        let parameters = Parameters::parse("build_time=18446744073709551615\n", "");
        assert_eq!((&parameters.board[..], parameters.build_time), ("unknown", UNIX_EPOCH));
    }
}
