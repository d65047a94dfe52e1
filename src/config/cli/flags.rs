//! The table of flags.

/// The command that the first word names; without one of these words it is a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Run,
    Pull,
    Cache,
    Flash,
}

impl Verb {
    /// The word of each command but a run.
    pub const WORDS: [(&'static str, Self); 3] = [("pull", Self::Pull), ("cache", Self::Cache), ("flash", Self::Flash)];

    /// What stands for it on a command line.
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, verb)| *verb == self).map_or("", |(word, _)| word)
    }
}

/// Which field of [`Args`] or which [`Command`] a flag stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    Set,
    CloudConfig,
    With,
    Console,
    Control,
    DryRun,
    To,
    Yes,
    AllowInternal,
    Debug,
    Licenses,
    Help,
    Version,
}

/// The commands that each flag goes with.
const ALL: &[Verb] = &[Verb::Run, Verb::Pull, Verb::Cache, Verb::Flash];
const WITH_CONFIG: &[Verb] = &[Verb::Run, Verb::Pull];
const RUN: &[Verb] = &[Verb::Run];
const FLASH: &[Verb] = &[Verb::Flash];

/// One row of the table.
pub struct Flag {
    pub id: Id,
    pub of: &'static [Verb],
    /// With its dashes.
    pub long: &'static str,
    pub short: &'static [char],
    /// What stands for the value in the help; empty when the flag takes none.
    pub placeholder: &'static str,
    /// One or more lines.
    pub help: &'static str,
}

pub const FLAGS: &[Flag] = &[
    Flag {
        id: Id::Set,
        of: ALL,
        long: "--set",
        short: &[],
        placeholder: "KEY=VALUE",
        help: "Set a key of the configuration, over the file's; any other KEY is\n\
               data for the cloud config's template. May be repeated",
    },
    Flag {
        id: Id::CloudConfig,
        of: WITH_CONFIG,
        long: "--cloud-config",
        short: &[],
        placeholder: "FILE|URL|-",
        help: "The cloud config the machines get, instead of the file's;\n\
               - reads standard input",
    },
    Flag {
        id: Id::With,
        of: WITH_CONFIG,
        long: "--with",
        short: &[],
        placeholder: "FILE|URL",
        help: "Another configuration file, whose keys win over those of CONFIG.\n\
               May be repeated: the last one wins",
    },
    Flag {
        id: Id::Console,
        of: RUN,
        long: "--console",
        short: &[],
        placeholder: "DEV[,BAUD]",
        help: "Offer a console on this serial line (default 115200 baud) or\n\
               terminal. May be repeated",
    },
    // For supervisors: no help, so it is not listed.
    Flag { id: Id::Control, of: RUN, long: "--control", short: &[], placeholder: "FD", help: "" },
    Flag {
        id: Id::DryRun,
        of: WITH_CONFIG,
        long: "--dry-run",
        short: &[],
        placeholder: "",
        help: "Print the resolved configuration, and where each value came from",
    },
    Flag {
        id: Id::To,
        of: FLASH,
        long: "--to",
        short: &[],
        placeholder: "DEV[,DEV]",
        help: "The stick to write, such as /dev/sdb or /dev/disk/by-id/usb-...;\n\
               several are written at the same time. May be repeated",
    },
    Flag {
        id: Id::Yes,
        of: FLASH,
        long: "--yes",
        short: &['y'],
        placeholder: "",
        help: "Do not ask before everything on the stick is lost",
    },
    Flag {
        id: Id::AllowInternal,
        of: FLASH,
        long: "--allow-internal",
        short: &[],
        placeholder: "",
        help: "Also write disks that are neither removable nor on USB without\n\
               their name being typed; never a disk that is in use",
    },
    Flag {
        id: Id::Debug,
        of: ALL,
        long: "--debug",
        short: &[],
        placeholder: "",
        help: "Log what is being done, and why",
    },
    Flag {
        id: Id::Licenses,
        of: RUN,
        long: "--licenses",
        short: &[],
        placeholder: "",
        help: "Print the notices of the embedded boot loaders",
    },
    Flag { id: Id::Help, of: ALL, long: "--help", short: &['h'], placeholder: "", help: "Print this help" },
    Flag {
        id: Id::Version,
        of: ALL,
        long: "--version",
        short: &['V', 'v'],
        placeholder: "",
        help: "Print the version",
    },
];
