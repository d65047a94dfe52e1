//! The command line: one table of flags drives parsing and the help text.
//!
//! Nothing is read and nothing is resolved here, so `--help` and `--version` work whatever the configuration says.

use std::ffi::OsString;
use std::fmt;

use lexopt::Arg;

use super::keys::{self, Support};
use super::mask::printable;
use super::suggest::closest;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Resolve the configuration and run it (or, with [`Args::dry_run`], print it).
    Run(Args),
    /// Write an ISO to USB sticks.
    Flash(FlashArgs),
    /// Print [`help`].
    Help,
    /// Print [`flash_help`].
    FlashHelp,
    /// Print [`version`].
    Version,
    /// Print the notices of what is embedded in the binary.
    Licenses,
}

/// The command line as it was typed; [`super::load`] resolves it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Args {
    /// The configuration file: a path, an http(s) URL, or `-` for standard input.
    pub config: Option<String>,
    /// Every `--set`, in order, as typed.
    pub set: Vec<String>,
    /// `--cloud-config`: a path, an http(s) URL, or `-` for standard input.
    pub cloud_config: Option<String>,
    /// Print the resolved configuration and stop.
    pub dry_run: bool,
    /// Log debug lines.
    pub debug: bool,
}

// By hand, because `--set kairos.password=…` must not end up in a log.
impl fmt::Debug for Args {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Args")
            .field("config", &self.config.as_deref().map(printable))
            .field("set", &format_args!("{} values", self.set.len()))
            .field("cloud_config", &self.cloud_config.as_deref().map(printable))
            .field("dry_run", &self.dry_run)
            .field("debug", &self.debug)
            .finish()
    }
}

/// The command line of `auroraboot flash`, as it was typed.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct FlashArgs {
    /// Path of the ISO; `None`: the newest of the state directory.
    pub iso: Option<String>,
    /// The devices, in order.
    pub to: Vec<String>,
    /// Every `--set`, in order, as typed; [`super::flash_state_dir`] resolves it.
    pub set: Vec<String>,
    /// Do not ask.
    pub yes: bool,
    /// Internal disks may be written as sticks are.
    pub allow_internal: bool,
    /// Log debug lines.
    pub debug: bool,
}

// By hand, as for `Args`: a wrong `--set` may hold a secret.
impl fmt::Debug for FlashArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlashArgs")
            .field("iso", &self.iso)
            .field("to", &self.to)
            .field("set", &format_args!("{} values", self.set.len()))
            .field("yes", &self.yes)
            .field("allow_internal", &self.allow_internal)
            .field("debug", &self.debug)
            .finish()
    }
}

/// Why a command line cannot be read. Always exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("unknown flag {flag}{}; `auroraboot --help` lists the flags", did_you_mean(.suggestion.as_deref()))]
    UnknownFlag { flag: String, suggestion: Option<String> },
    #[error("{flag} needs a value: {flag} {placeholder}")]
    MissingValue { flag: &'static str, placeholder: &'static str },
    #[error("{flag} {placeholder}: a part of it is empty; write {flag} /dev/sdX, or {flag} /dev/sdX,/dev/sdY")]
    EmptyPart { flag: &'static str, placeholder: &'static str },
    #[error("{flag} goes with the command flash: auroraboot flash {flag}")]
    OnlyFlash { flag: &'static str },
    #[error("flash has no {flag}; `auroraboot flash --help` lists its flags")]
    NotFlash { flag: &'static str },
    #[error("two ISOs, {first:?} and {second:?}; give one (devices go behind --to)")]
    TwoIsos { first: String, second: String },
    #[error("flash writes an ISO, and {0} is a device: to write to it, auroraboot flash --to {0}")]
    DeviceAsIso(String),
    #[error(
        "flash takes an ISO, not the configuration {0:?}; name the directory that it was made in: --set state_dir=PATH"
    )]
    ConfigAsIso(String),
    #[error("{flag} takes no value")]
    UnexpectedValue { flag: String },
    #[error("{flag} may be given only once")]
    Twice { flag: &'static str },
    #[error("two configuration files, {first:?} and {second:?}; give one (settings go behind --set)")]
    TwoConfigs { first: String, second: String },
    #[error("an argument is not UTF-8: {0}")]
    NotUtf8(String),
    #[error("{0}")]
    Other(String),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// Which field of [`Args`] or which [`Command`] a flag stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Id {
    Set,
    CloudConfig,
    DryRun,
    To,
    Yes,
    AllowInternal,
    Debug,
    Licenses,
    Help,
    Version,
}

/// Which command a flag goes with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Run,
    Flash,
    Both,
}

/// One row of the table.
struct Flag {
    id: Id,
    of: Of,
    /// With its dashes.
    long: &'static str,
    short: &'static [char],
    /// What stands for the value in the help; empty when the flag takes none.
    placeholder: &'static str,
    /// One or more lines.
    help: &'static str,
}

const FLAGS: &[Flag] = &[
    Flag {
        id: Id::Set,
        of: Of::Both,
        long: "--set",
        short: &[],
        placeholder: "KEY=VALUE",
        help: "Set a key of the configuration, over the file's; any other KEY is\n\
               data for the cloud config's template. May be repeated",
    },
    Flag {
        id: Id::CloudConfig,
        of: Of::Run,
        long: "--cloud-config",
        short: &[],
        placeholder: "FILE|URL|-",
        help: "The cloud config the machines get, instead of the file's;\n\
               - reads standard input",
    },
    Flag {
        id: Id::DryRun,
        of: Of::Run,
        long: "--dry-run",
        short: &[],
        placeholder: "",
        help: "Print the resolved configuration, and where each value came from",
    },
    Flag {
        id: Id::To,
        of: Of::Flash,
        long: "--to",
        short: &[],
        placeholder: "DEV[,DEV]",
        help: "The stick to write, such as /dev/sdb or /dev/disk/by-id/usb-...;\n\
               several are written at the same time. May be repeated",
    },
    Flag {
        id: Id::Yes,
        of: Of::Flash,
        long: "--yes",
        short: &['y'],
        placeholder: "",
        help: "Do not ask before everything on the stick is lost",
    },
    Flag {
        id: Id::AllowInternal,
        of: Of::Flash,
        long: "--allow-internal",
        short: &[],
        placeholder: "",
        help: "Also write disks that are neither removable nor on USB without\n\
               their name being typed; never a disk that is in use",
    },
    Flag {
        id: Id::Debug,
        of: Of::Both,
        long: "--debug",
        short: &[],
        placeholder: "",
        help: "Log what is being done, and why",
    },
    Flag {
        id: Id::Licenses,
        of: Of::Run,
        long: "--licenses",
        short: &[],
        placeholder: "",
        help: "Print the notices of the embedded boot loaders",
    },
    Flag { id: Id::Help, of: Of::Both, long: "--help", short: &['h'], placeholder: "", help: "Print this help" },
    Flag {
        id: Id::Version,
        of: Of::Both,
        long: "--version",
        short: &['V', 'v'],
        placeholder: "",
        help: "Print the version",
    },
];

/// The first word that makes the command line one of [`FlashArgs`]. A configuration file of that name is `./flash`.
const FLASH: &str = "flash";

/// Reads the arguments behind the program's name. Flags may stand anywhere, also behind CONFIG.
///
/// # Errors
/// [`UsageError`] for the first argument that makes no sense; `--help`, `--version` and `--licenses` win over what follows them.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let (mut words, mut seen) = (Vec::new(), Vec::new());
    let (mut run, mut flash) = (Args::default(), FlashArgs::default());
    while let Some(argument) = parser.next().map_err(usage)? {
        let flag = match argument {
            Arg::Value(value) => {
                words.push(utf8(value)?);
                continue;
            }
            Arg::Long(name) => find(&format!("--{name}"), |flag| flag.long.strip_prefix("--") == Some(name))?,
            Arg::Short(letter) => find(&format!("-{letter}"), |flag| flag.short.contains(&letter))?,
        };
        seen.push(flag);
        match flag.id {
            Id::Set => run.set.push(value_of(flag, &mut parser)?),
            Id::CloudConfig => {
                if run.cloud_config.replace(value_of(flag, &mut parser)?).is_some() {
                    return Err(UsageError::Twice { flag: flag.long });
                }
            }
            Id::DryRun => run.dry_run = true,
            Id::Debug => run.debug = true,
            Id::To => flash.to.extend(devices(flag, &value_of(flag, &mut parser)?)?),
            Id::Yes => flash.yes = true,
            Id::AllowInternal => flash.allow_internal = true,
            Id::Licenses => return Ok(Command::Licenses),
            Id::Help if words.first().is_some_and(|word| word == FLASH) => return Ok(Command::FlashHelp),
            Id::Help => return Ok(Command::Help),
            Id::Version => return Ok(Command::Version),
        }
    }
    if words.first().is_some_and(|word| word == FLASH) {
        (flash.set, flash.debug) = (run.set, run.debug);
        return finish_flash(flash, &words[1..], &seen).map(Command::Flash);
    }
    finish_run(run, &words, &seen).map(Command::Run)
}

fn finish_run(mut args: Args, words: &[String], seen: &[&Flag]) -> Result<Args, UsageError> {
    if let Some(flag) = seen.iter().find(|flag| flag.of == Of::Flash) {
        return Err(UsageError::OnlyFlash { flag: flag.long });
    }
    match words {
        [] => {}
        [config] => args.config = Some(config.clone()),
        [first, second, ..] => {
            return Err(UsageError::TwoConfigs { first: printable(first), second: printable(second) });
        }
    }
    Ok(args)
}

fn finish_flash(mut args: FlashArgs, words: &[String], seen: &[&Flag]) -> Result<FlashArgs, UsageError> {
    if let Some(flag) = seen.iter().find(|flag| flag.of == Of::Run) {
        return Err(UsageError::NotFlash { flag: flag.long });
    }
    for word in words {
        if word.starts_with("/dev/") {
            return Err(UsageError::DeviceAsIso(printable(word)));
        }
        if word.ends_with(".yaml") || word.ends_with(".yml") {
            return Err(UsageError::ConfigAsIso(printable(word)));
        }
        if let Some(first) = args.iso.replace(word.clone()) {
            return Err(UsageError::TwoIsos { first: printable(&first), second: printable(word) });
        }
    }
    Ok(args)
}

/// The devices of one `--to`. No name that udev makes has a comma.
fn devices(flag: &Flag, value: &str) -> Result<Vec<String>, UsageError> {
    let parts: Vec<String> = value.split(',').map(|part| part.trim().to_owned()).collect();
    if parts.iter().any(String::is_empty) {
        return Err(UsageError::EmptyPart { flag: flag.long, placeholder: flag.placeholder });
    }
    Ok(parts)
}

fn find(typed: &str, matches: impl Fn(&Flag) -> bool) -> Result<&'static Flag, UsageError> {
    FLAGS.iter().find(|flag| matches(flag)).ok_or_else(|| UsageError::UnknownFlag {
        flag: typed.to_owned(),
        suggestion: closest(typed, FLAGS.iter().map(|flag| flag.long)).map(str::to_owned),
    })
}

/// The flag's value, which a following flag is not: `--cloud-config --debug` forgot it.
fn value_of(flag: &'static Flag, parser: &mut lexopt::Parser) -> Result<String, UsageError> {
    let missing = || UsageError::MissingValue { flag: flag.long, placeholder: flag.placeholder };
    let value = utf8(parser.value().map_err(|_| missing())?)?;
    if value.is_empty() || value.starts_with("--") { Err(missing()) } else { Ok(value) }
}

fn utf8(value: OsString) -> Result<String, UsageError> {
    value.into_string().map_err(|value| UsageError::NotUtf8(value.to_string_lossy().into_owned()))
}

fn usage(error: lexopt::Error) -> UsageError {
    match error {
        lexopt::Error::UnexpectedValue { option, .. } => UsageError::UnexpectedValue { flag: option },
        other => UsageError::Other(other.to_string()),
    }
}

/// The text of `--version`, without a line end.
#[must_use]
pub const fn version() -> &'static str {
    concat!("auroraboot ", env!("CARGO_PKG_VERSION"))
}

/// The text of `--help`.
#[must_use]
pub fn help() -> String {
    let mut text = String::from(
        "Brings machines up out of an image and a cloud config: over the network, and by an ISO for sticks.\n\n\
         Usage: auroraboot [CONFIG] [--set KEY=VALUE]... [--cloud-config FILE|URL|-]\n       \
         auroraboot flash [ISO] --to DEV[,DEV]    write an ISO to USB sticks; see flash --help\n\n\
         Arguments:\n  [CONFIG]  The configuration file: a path, a URL, or - for standard input\n\n\
         Flags:\n",
    );
    list_flags(&mut text, Of::Run);
    text.push_str("\nKeys of CONFIG and --set:\n");
    for key in keys::with(Support::Now) {
        text.push_str(&format!("  {:28}{}\n", key.name, key.help));
    }
    text.push_str(
        "\nExamples:\n  \
         auroraboot --set container_image=quay.io/kairos/core-rockylinux:v1.5.0 --cloud-config config.yaml\n  \
         auroraboot aurora.yaml --set netboot.allow=52:54:00 --dry-run\n\n\
         Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.\n",
    );
    text
}

/// The text of `flash --help`.
#[must_use]
pub fn flash_help() -> String {
    let mut text = String::from(
        "Writes an ISO to USB sticks, reads it back and compares.\n\n\
         Usage: auroraboot flash [ISO] --to DEV[,DEV]... [--yes] [--set state_dir=PATH]\n\n\
         Arguments:\n  [ISO]  Path of the ISO (default: the newest custom ISO in state_dir/iso,\n         \
         which contains the cloud config; without one, the newest other ISO)\n\n\
         Flags:\n",
    );
    list_flags(&mut text, Of::Flash);
    text.push_str(
        "\nWithout --to it lists the sticks that it sees. A disk in use is never written: mounted, swap,\n\
         part of a RAID, LVM or encrypted volume. Of an internal disk the name has to be typed.\n\
         A stick boots only after all of it was read back and found equal.\n\n\
         Examples:\n  \
         auroraboot flash --to /dev/sdb\n  \
         auroraboot flash kairos.iso --to /dev/sdb,/dev/sdc --yes\n\n\
         Exit codes: 0 all sticks are good, 1 one is not, 2 refused and nothing written.\n",
    );
    text
}

/// Adds the rows of one command's flags.
fn list_flags(text: &mut String, command: Of) {
    for flag in FLAGS.iter().filter(|flag| flag.of == command || flag.of == Of::Both) {
        let shorts: String = flag.short.iter().take(1).map(|letter| format!("-{letter}, ")).collect();
        let head = format!("  {:4}{} {}", shorts, flag.long, flag.placeholder);
        let help = if flag.id == Id::Set && command == Of::Flash {
            "Only state_dir=PATH, which holds iso/ (default /tmp/auroraboot)"
        } else {
            flag.help
        };
        for (row, line) in help.lines().enumerate() {
            let head = if row == 0 { head.trim_end() } else { "" };
            text.push_str(format!("{head:34}{line}").trim_end());
            text.push('\n');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> Result<Command, UsageError> {
        parse(words.iter().map(OsString::from))
    }

    fn run(words: &[&str]) -> Args {
        match args(words).unwrap() {
            Command::Run(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_stand_anywhere_and_values_keep_every_character() {
        let typed = run(&[
            "aurora.yaml",
            "--set",
            "a=b,c=\"d\\n\"",
            "--cloud-config",
            "-",
            "--set=e=f",
            "--debug",
            "--dry-run",
        ]);
        assert_eq!(typed.config.as_deref(), Some("aurora.yaml"));
        assert_eq!(typed.set, ["a=b,c=\"d\\n\"", "e=f"]);
        assert_eq!(typed.cloud_config.as_deref(), Some("-"));
        assert!(typed.debug && typed.dry_run);
        assert_eq!(run(&["--debug", "aurora.yaml"]).config.as_deref(), Some("aurora.yaml"));
    }

    fn flash(words: &[&str]) -> FlashArgs {
        match args(words).unwrap() {
            Command::Flash(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flash_takes_its_flags_anywhere() {
        let typed =
            flash(&["--to", "/dev/sdb,/dev/sdc", "--debug", "flash", "a.iso", "-y", "--to=/dev/sdd", "--set", "a=b"]);
        assert_eq!(typed.iso.as_deref(), Some("a.iso"));
        assert_eq!(typed.to, ["/dev/sdb", "/dev/sdc", "/dev/sdd"]);
        assert_eq!(typed.set, ["a=b"]);
        assert!(typed.yes && typed.debug && !typed.allow_internal);
        let bare = flash(&["flash"]);
        assert!(bare.to.is_empty() && bare.iso.is_none() && !bare.yes, "it lists the sticks");
        assert!(flash(&["flash", "--allow-internal"]).allow_internal);
        assert_eq!(run(&["./flash"]).config.as_deref(), Some("./flash"));
        assert_eq!(run(&["--set", "flash"]).set, ["flash"], "a value is no command");
        assert_eq!(args(&["flash", "--to", "/dev/sdb", "-h"]), Ok(Command::FlashHelp));
        assert_eq!(args(&["--help", "flash"]), Ok(Command::Help));
        assert!(!format!("{:?}", flash(&["flash", "--set", "password=hunter2"])).contains("hunter2"));
    }

    #[test]
    fn help_version_and_licenses_win_over_what_follows() {
        for (word, wanted) in [
            ("--help", Command::Help),
            ("-h", Command::Help),
            ("--version", Command::Version),
            ("-V", Command::Version),
            ("-v", Command::Version),
            ("--licenses", Command::Licenses),
        ] {
            assert_eq!(args(&["missing.yaml", word, "--nonsense"]), Ok(wanted), "{word}");
        }
    }

    #[test]
    fn each_mistake_has_its_own_line() {
        for (words, message) in [
            (&["--cloud-confg", "x"][..], "unknown flag --cloud-confg, did you mean --cloud-config?; "),
            (&["-x"], "unknown flag -x; "),
            (&["--set"], "--set needs a value: --set KEY=VALUE"),
            (&["--set", ""], "--set needs a value"),
            (&["--cloud-config", "--debug"], "--cloud-config needs a value: --cloud-config FILE|URL|-"),
            (&["--cloud-config", "a", "--cloud-config", "b"], "--cloud-config may be given only once"),
            (&["--debug=yes"], "--debug takes no value"),
            (&["a.yaml", "b.yaml"], "two configuration files, \"a.yaml\" and \"b.yaml\"; "),
            (&["--to", "/dev/sdb"], "--to goes with the command flash: auroraboot flash --to"),
            (&["a.yaml", "flash", "--yes"], "--yes goes with the command flash"),
            (&["flash", "--cloud-config", "c"], "flash has no --cloud-config; "),
            (&["flash", "--too", "x"], "unknown flag --too, did you mean --to?; "),
            (&["flash", "--allow-interal"], "unknown flag --allow-interal, did you mean --allow-internal?; "),
            (&["flash", "--to"], "--to needs a value: --to DEV[,DEV]"),
            (&["flash", "--to", "--yes"], "--to needs a value: --to DEV[,DEV]"),
            (&["flash", "--to", "/dev/sdb,"], "--to DEV[,DEV]: a part of it is empty; "),
            (&["flash", "--yes=no"], "--yes takes no value"),
            (&["flash", "a.iso", "b.iso"], "two ISOs, \"a.iso\" and \"b.iso\"; "),
            (
                &["flash", "/dev/sdb"],
                "flash writes an ISO, and /dev/sdb is a device: to write to it, auroraboot flash --to /dev/sdb",
            ),
            (&["flash", "aurora.yaml"], "flash takes an ISO, not the configuration \"aurora.yaml\"; "),
        ] {
            let error = args(words).unwrap_err().to_string();
            assert!(error.starts_with(message), "{words:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn arguments_that_are_not_utf8_are_an_error() {
        use std::os::unix::ffi::OsStringExt;
        let error = parse([OsString::from_vec(b"\xff.yaml".to_vec())]).unwrap_err();
        assert!(matches!(error, UsageError::NotUtf8(_)), "{error}");
    }

    #[test]
    fn help_mentions_every_flag_and_key_within_80_columns() {
        let help = help();
        for flag in FLAGS {
            for (text, command) in [(&help, Of::Run), (&flash_help(), Of::Flash)] {
                let shown = text.contains(&format!("  {} {}", flag.long, flag.placeholder).trim_end().to_owned())
                    || text.contains(&format!(", {} {}", flag.long, flag.placeholder).trim_end().to_owned());
                assert_eq!(shown, flag.of == command || flag.of == Of::Both, "{}", flag.long);
            }
        }
        assert!(flash_help().lines().all(|line| line.len() <= 100), "{}", flash_help());
        for key in keys::with(Support::Now) {
            assert!(help.contains(&format!("\n  {} ", key.name)), "{}", key.name);
        }
        assert!(!help.contains("docker://"), "it is refused yet");
        let example = help.find("Examples:").unwrap();
        assert!(help[..example].lines().all(|line| line.len() <= 100), "{help}");
    }

    #[test]
    fn debug_output_of_the_arguments_has_no_secret() {
        let typed = run(&["https://me:hunter2@host/a.yaml", "--set", "kairos.password=hunter2"]);
        assert!(!format!("{typed:?}").contains("hunter2"));
    }
}
