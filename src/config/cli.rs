//! The command line: one table of flags drives parsing and the help text.
//!
//! Nothing is read and nothing is resolved here, so `--help` and `--version` work whatever the configuration says.

mod flags;
mod help;

use std::ffi::OsString;
use std::fmt;

use lexopt::Arg;

use super::mask::printable;
use super::suggest::closest;
use flags::{FLAGS, Flag, Id};

pub use flags::Verb;
pub use help::{help_of, version};

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Resolve the configuration and run it (or, with [`Args::dry_run`], print it).
    Run(Args),
    /// Fetch what such a run needs, and stop.
    Pull(Args),
    /// Look after what is kept of images.
    Cache(CacheArgs),
    /// Write an ISO to USB sticks.
    Flash(FlashArgs),
    /// Print [`help_of`] a command.
    Help(Verb),
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
    /// `--with`: configurations over [`Args::config`], in order; each a path or an http(s) URL.
    pub with: Vec<String>,
    /// Every `--console`, as typed: a device, and perhaps a comma and its rate in bauds.
    pub console: Vec<String>,
    /// `--control`: the descriptor of the channel to a supervisor.
    pub control: Option<i32>,
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
            .field("with", &self.with.iter().map(|with| printable(with)).collect::<Vec<_>>())
            .field("console", &self.console)
            .field("control", &self.control)
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

/// The command line of `auroraboot cache`, as it was typed.
#[derive(Clone, PartialEq, Eq)]
pub struct CacheArgs {
    pub action: CacheAction,
    /// The configuration file that names the state directory.
    pub config: Option<String>,
    /// Every `--set`, in order, as typed.
    pub set: Vec<String>,
    /// Log debug lines.
    pub debug: bool,
}

// By hand, as for `Args`.
impl fmt::Debug for CacheArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheArgs")
            .field("action", &self.action)
            .field("config", &self.config.as_deref().map(printable))
            .field("set", &format_args!("{} values", self.set.len()))
            .field("debug", &self.debug)
            .finish()
    }
}

/// What is done with what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheAction {
    List,
    Verify,
    Prune,
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
    #[error("{flag} goes with the command {command}: auroraboot {command} {flag}")]
    OfCommand { flag: &'static str, command: &'static str },
    #[error("{command} has no {flag}; `auroraboot {command} --help` lists its flags")]
    NotOfCommand { flag: &'static str, command: &'static str },
    #[error("cache does not know {0:?}; it is one of list, verify and prune")]
    CacheAction(String),
    #[error("two ISOs, {first:?} and {second:?}; give one (devices go behind --to)")]
    TwoIsos { first: String, second: String },
    #[error("flash writes an ISO, and {0} is a device: to write to it, auroraboot flash --to {0}")]
    DeviceAsIso(String),
    #[error(
        "flash takes an ISO, not the configuration {0:?}; name the directory that it was made in: --set state_dir=PATH"
    )]
    ConfigAsIso(String),
    #[error("--control takes the number of an open descriptor, not {0:?}")]
    Channel(String),
    #[error("{flag} takes no value")]
    UnexpectedValue { flag: String },
    #[error("{flag} may be given only once")]
    Twice { flag: &'static str },
    #[error(
        "two configuration files, {first:?} and {second:?}; give one (settings go behind --set, a second file behind --with)"
    )]
    TwoConfigs { first: String, second: String },
    #[error("an argument is not UTF-8: {0}")]
    NotUtf8(String),
    #[error("{0}")]
    Other(String),
}

fn did_you_mean(suggestion: Option<&str>) -> String {
    suggestion.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// Reads the arguments behind the program's name. Flags may stand anywhere, also behind CONFIG.
///
/// # Errors
/// [`UsageError`] for the first argument that makes no sense; `--help`, `--version` and `--licenses` win over what follows them.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut typed = Typed::default();
    let (mut run, mut flash) = (Args::default(), FlashArgs::default());
    while let Some(argument) = parser.next().map_err(usage)? {
        let flag = match argument {
            Arg::Value(value) => {
                typed.words.push(utf8(value)?);
                continue;
            }
            Arg::Long(name) => find(&format!("--{name}"), |flag| flag.long.strip_prefix("--") == Some(name))?,
            Arg::Short(letter) => find(&format!("-{letter}"), |flag| flag.short.contains(&letter))?,
        };
        typed.flags.push(flag);
        match flag.id {
            Id::Set => run.set.push(value_of(flag, &mut parser)?),
            Id::CloudConfig => {
                if run.cloud_config.replace(value_of(flag, &mut parser)?).is_some() {
                    return Err(UsageError::Twice { flag: flag.long });
                }
            }
            Id::With => run.with.push(value_of(flag, &mut parser)?),
            Id::Console => run.console.push(value_of(flag, &mut parser)?),
            Id::Control => {
                let value = value_of(flag, &mut parser)?;
                run.control = Some(value.parse().map_err(|_| UsageError::Channel(printable(&value)))?);
            }
            Id::DryRun => run.dry_run = true,
            Id::Debug => run.debug = true,
            Id::To => flash.to.extend(devices(flag, &value_of(flag, &mut parser)?)?),
            Id::Yes => flash.yes = true,
            Id::AllowInternal => flash.allow_internal = true,
            Id::Licenses => return Ok(Command::Licenses),
            Id::Help => return Ok(Command::Help(typed.verb().0)),
            Id::Version => return Ok(Command::Version),
        }
    }
    let (verb, words) = typed.verb();
    typed.check_flags(verb)?;
    Ok(match verb {
        Verb::Run => Command::Run(finish_run(run, words)?),
        Verb::Pull => Command::Pull(finish_run(run, words)?),
        Verb::Cache => Command::Cache(finish_cache(run, words)?),
        Verb::Flash => {
            (flash.set, flash.debug) = (run.set, run.debug);
            Command::Flash(finish_flash(flash, words)?)
        }
    })
}

/// What has been read of a command line.
#[derive(Default)]
struct Typed {
    words: Vec<String>,
    flags: Vec<&'static Flag>,
}

impl Typed {
    /// The command, and the words behind it. A configuration file called `flash` is `./flash`.
    fn verb(&self) -> (Verb, &[String]) {
        let named = self.words.split_first().and_then(|(first, rest)| {
            let (_, verb) = Verb::WORDS.into_iter().find(|(word, _)| word == first)?;
            Some((verb, rest))
        });
        named.unwrap_or((Verb::Run, &self.words))
    }

    fn check_flags(&self, verb: Verb) -> Result<(), UsageError> {
        match self.flags.iter().find(|flag| !flag.of.contains(&verb)) {
            None => Ok(()),
            Some(flag) if verb == Verb::Run => {
                let owner = flag.of.first().map_or("", |verb| verb.word());
                Err(UsageError::OfCommand { flag: flag.long, command: owner })
            }
            Some(flag) => Err(UsageError::NotOfCommand { flag: flag.long, command: verb.word() }),
        }
    }
}

fn finish_run(mut args: Args, words: &[String]) -> Result<Args, UsageError> {
    match words {
        [] => {}
        [config] => args.config = Some(config.clone()),
        [first, second, ..] => {
            return Err(UsageError::TwoConfigs { first: printable(first), second: printable(second) });
        }
    }
    Ok(args)
}

fn finish_cache(args: Args, words: &[String]) -> Result<CacheArgs, UsageError> {
    let actions = [("list", CacheAction::List), ("verify", CacheAction::Verify), ("prune", CacheAction::Prune)];
    let named = words.first().and_then(|first| actions.into_iter().find(|(word, _)| word == first));
    let (action, words) = named.map_or((CacheAction::List, words), |(_, action)| (action, &words[1..]));
    if let [word] = words
        && !word.contains(['.', '/'])
    {
        return Err(UsageError::CacheAction(printable(word)));
    }
    let Args { config, set, debug, .. } = finish_run(args, words)?;
    Ok(CacheArgs { action, config, set, debug })
}

fn finish_flash(mut args: FlashArgs, words: &[String]) -> Result<FlashArgs, UsageError> {
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

#[cfg(test)]
mod tests {
    use super::super::keys::{self, Support};
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
        assert_eq!(args(&["flash", "--to", "/dev/sdb", "-h"]), Ok(Command::Help(Verb::Flash)));
        assert_eq!(args(&["--help", "flash"]), Ok(Command::Help(Verb::Run)));
        assert!(!format!("{:?}", flash(&["flash", "--set", "password=hunter2"])).contains("hunter2"));
    }

    #[test]
    fn help_version_and_licenses_win_over_what_follows() {
        for (word, wanted) in [
            ("--help", Command::Help(Verb::Run)),
            ("-h", Command::Help(Verb::Run)),
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
            (&["pull", "--yes"], "pull has no --yes; `auroraboot pull --help`"),
            (&["cache", "--cloud-config", "x"], "cache has no --cloud-config; "),
            (&["cache", "clean"], "cache does not know \"clean\"; it is one of list, verify and prune"),
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
    fn pull_takes_what_a_run_takes() {
        let pulled = args(&["pull", "a.yaml", "--set", "a=b", "--cloud-config", "c"]);
        let Ok(Command::Pull(pulled)) = pulled else { panic!("{pulled:?}") };
        assert_eq!(pulled, run(&["a.yaml", "--set", "a=b", "--cloud-config", "c"]));
        assert_eq!(args(&["pull", "-h"]), Ok(Command::Help(Verb::Pull)));
    }

    #[test]
    fn cache_lists_unless_told_otherwise() {
        let cache = |words: &[&str]| match args(words).unwrap() {
            Command::Cache(CacheArgs { action, config, set, .. }) => (action, config, set),
            other => panic!("{other:?}"),
        };
        let (yaml, set) = (Some("a.yaml".to_owned()), vec!["state_dir=x".to_owned()]);
        assert_eq!(cache(&["cache"]), (CacheAction::List, None, vec![]));
        assert_eq!(cache(&["cache", "a.yaml"]), (CacheAction::List, yaml.clone(), vec![]));
        assert_eq!(cache(&["cache", "verify", "--set", "state_dir=x"]), (CacheAction::Verify, None, set));
        assert_eq!(cache(&["cache", "prune", "a.yaml"]), (CacheAction::Prune, yaml, vec![]));
        assert!(!format!("{:?}", args(&["cache", "--set", "password=hunter2"]).unwrap()).contains("hunter2"));
    }

    #[test]
    fn help_mentions_every_flag_and_key_within_80_columns() {
        for (_, verb) in Verb::WORDS.into_iter().chain([("", Verb::Run)]) {
            let text = help_of(verb);
            for flag in FLAGS.iter().filter(|flag| !flag.help.is_empty()) {
                let shown = text.contains(&format!("  {} {}", flag.long, flag.placeholder).trim_end().to_owned())
                    || text.contains(&format!(", {} {}", flag.long, flag.placeholder).trim_end().to_owned());
                assert_eq!(shown, flag.of.contains(&verb), "{verb:?} {}", flag.long);
            }
            let example = text.find("Examples:").unwrap();
            assert!(text[..example].lines().all(|line| line.len() <= 104), "{text}");
        }
        for key in keys::with(Support::Now) {
            assert!(help_of(Verb::Run).contains(&format!("\n  {} ", key.name)), "{}", key.name);
        }
    }

    #[test]
    fn debug_output_of_the_arguments_has_no_secret() {
        let typed = run(&["https://me:hunter2@host/a.yaml", "--set", "kairos.password=hunter2"]);
        assert!(!format!("{typed:?}").contains("hunter2"));
    }
}
