//! What consoles ask of the host they run on, and what it answers.

use crate::status::{Status, Step};
use crate::units::MacAddr;
use std::fmt;

/// What a host offers at its consoles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// Such as `auroraboot 0.1.0 on x86-pc`.
    pub title: String,
    /// Whether the console sets the host's own network.
    pub network: bool,
    /// Whether it reboots the host, switches it off and resets it.
    pub power: bool,
}

/// What a console wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    Status,
    /// What happened to one machine, step by step.
    Machine(MacAddr),
    /// The latest lines of the log.
    Log,
    /// Every setting and where it comes from.
    Settings,
    /// Whether a change would be accepted; nothing is changed.
    Check(Change),
    Save(Change),
    /// The network works as it was set last: it stays.
    ConfirmNetwork,
    /// The network goes back to what it was before it was set last.
    RevertNetwork,
    /// Whether machines that boot from the network are answered.
    Netboot(bool),
    /// Ends the server and starts it again.
    Restart,
    /// The answer to [`HostStatus::question`].
    Answer(bool),
    Reboot,
    PowerOff,
    /// As it was flashed: the configuration goes, and all that is kept on the data partition.
    FactoryReset,
    /// Whether this is the password that consoles ask for.
    Password(Secret),
}

/// What must not be printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A change of the configuration.
#[derive(Clone, PartialEq, Eq)]
pub enum Change {
    /// One key; without a value it is again what the files say.
    Setting { key: String, value: Option<String> },
    /// Several keys that belong together, such as the parts of a release.
    Settings(Vec<(String, Option<String>)>),
    /// The cloud config; without one it is again what the files say.
    CloudConfig(Option<Vec<u8>>),
    /// Keys below `network`, all at once.
    Network(Vec<(String, Option<String>)>),
}

// By hand: it may hold passwords.
impl fmt::Debug for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setting { key, .. } => write!(f, "Setting({key})"),
            Self::Settings(keys) => write!(f, "Settings({} keys)", keys.len()),
            Self::CloudConfig(bytes) => write!(f, "CloudConfig({} bytes)", bytes.as_ref().map_or(0, Vec::len)),
            Self::Network(keys) => write!(f, "Network({} keys)", keys.len()),
        }
    }
}

/// The answer to a [`Request`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Status(Box<Overview>),
    Machine(Vec<Step>),
    /// The oldest first.
    Log(Vec<String>),
    Settings(Vec<Shown>),
    /// It is done, or would be accepted; one or more lines for the operator, which may be empty.
    Done(String),
    /// Why not, in one or more lines.
    Refused(String),
}

/// Everything at a glance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overview {
    pub host: HostStatus,
    /// None while no server runs.
    pub server: Option<Status>,
}

/// The host that the server runs on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostStatus {
    pub name: String,
    /// Seconds since it was switched on, or since this program was started.
    pub uptime: u64,
    /// The date and time, and who set it.
    pub clock: String,
    pub interfaces: Vec<InterfaceStatus>,
    /// Such as `14.2 GB, 11.0 GB free`; empty where there is none.
    pub data: String,
    /// What the server does while it is not there to be asked, such as `no image is set`.
    pub server: String,
    /// How often the server ended by itself and was started again, since its configuration was changed.
    pub restarts: u32,
    /// What the operator should know, a sentence each.
    pub notices: Vec<String>,
    /// What the host cannot decide alone: yes or no, by [`Request::Answer`].
    pub question: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceStatus {
    pub name: String,
    /// Such as `192.168.1.5/24`; empty without one.
    pub address: String,
    /// Such as `dhcp of 192.168.1.1` or `no cable`.
    pub state: String,
}

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub key: String,
    /// Secrets are masked.
    pub value: String,
    pub origin: String,
}

/// Who answers a console. It may block for as long as a server takes to answer.
pub trait Host: Sync {
    fn handle(&self, request: Request) -> Answer;
}
