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
    /// Print [`help`].
    Help,
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

/// Why a command line cannot be read. Always exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    #[error("unknown flag {flag}{}; `auroraboot --help` lists the flags", did_you_mean(.suggestion.as_deref()))]
    UnknownFlag { flag: String, suggestion: Option<String> },
    #[error("{flag} needs a value: {flag} {placeholder}")]
    MissingValue { flag: &'static str, placeholder: &'static str },
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
    Debug,
    Licenses,
    Help,
    Version,
}

/// One row of the table.
struct Flag {
    id: Id,
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
        long: "--set",
        short: &[],
        placeholder: "KEY=VALUE",
        help: "Set a key of the configuration, over the file's; any other KEY is\n\
               data for the cloud config's template. May be repeated",
    },
    Flag {
        id: Id::CloudConfig,
        long: "--cloud-config",
        short: &[],
        placeholder: "FILE|URL|-",
        help: "The cloud config the machines get, instead of the file's;\n\
               - reads standard input",
    },
    Flag {
        id: Id::DryRun,
        long: "--dry-run",
        short: &[],
        placeholder: "",
        help: "Print the resolved configuration, and where each value came from",
    },
    Flag { id: Id::Debug, long: "--debug", short: &[], placeholder: "", help: "Log what is being done, and why" },
    Flag {
        id: Id::Licenses,
        long: "--licenses",
        short: &[],
        placeholder: "",
        help: "Print the notices of the embedded boot loaders",
    },
    Flag { id: Id::Help, long: "--help", short: &['h'], placeholder: "", help: "Print this help" },
    Flag { id: Id::Version, long: "--version", short: &['V', 'v'], placeholder: "", help: "Print the version" },
];

/// Reads the arguments behind the program's name. Flags may stand anywhere, also behind CONFIG.
///
/// # Errors
/// [`UsageError`] for the first argument that makes no sense; `--help`, `--version` and `--licenses` win over what follows them.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut args = Args::default();
    while let Some(argument) = parser.next().map_err(usage)? {
        let flag = match argument {
            Arg::Value(value) => {
                let value = utf8(value)?;
                if let Some(first) = args.config {
                    return Err(UsageError::TwoConfigs { first: printable(&first), second: printable(&value) });
                }
                args.config = Some(value);
                continue;
            }
            Arg::Long(name) => find(&format!("--{name}"), |flag| flag.long.strip_prefix("--") == Some(name))?,
            Arg::Short(letter) => find(&format!("-{letter}"), |flag| flag.short.contains(&letter))?,
        };
        match flag.id {
            Id::Set => args.set.push(value_of(flag, &mut parser)?),
            Id::CloudConfig => {
                if args.cloud_config.replace(value_of(flag, &mut parser)?).is_some() {
                    return Err(UsageError::Twice { flag: flag.long });
                }
            }
            Id::DryRun => args.dry_run = true,
            Id::Debug => args.debug = true,
            Id::Licenses => return Ok(Command::Licenses),
            Id::Help => return Ok(Command::Help),
            Id::Version => return Ok(Command::Version),
        }
    }
    Ok(Command::Run(args))
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
        "Boots every machine on the LAN out of a container image and a cloud config.\n\n\
         Usage: auroraboot [CONFIG] [--set KEY=VALUE]... [--cloud-config FILE|URL|-]\n\n\
         Arguments:\n  [CONFIG]  The configuration file: a path, a URL, or - for standard input\n\n\
         Flags:\n",
    );
    for flag in FLAGS {
        let shorts: String = flag.short.iter().take(1).map(|letter| format!("-{letter}, ")).collect();
        let head = format!("  {:4}{} {}", shorts, flag.long, flag.placeholder);
        for (row, line) in flag.help.lines().enumerate() {
            let head = if row == 0 { head.trim_end() } else { "" };
            text.push_str(format!("{head:34}{line}").trim_end());
            text.push('\n');
        }
    }
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
            assert!(help.contains(flag.long) && help.contains(flag.placeholder), "{}", flag.long);
        }
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
