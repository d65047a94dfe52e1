//! The cloud config: where it is, its bytes, its template rendered.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::ConfigError;
use super::mask::printable;
use super::origin::{Origin, Setting};
use super::survey::survey;
use super::template;
use super::warning::Warning;
use super::{Args, Config, Fetching, Inputs};
use crate::limits::{CLOUD_CONFIG_BYTES_MAX, CLOUD_CONFIG_BYTES_WARN};
use crate::units::Digest;

const WHAT: &str = "cloud config";

/// What `-` is called.
pub const STDIN: &str = "standard input";

/// The cloud config as the machines get it.
#[derive(Clone)]
pub struct CloudConfig {
    bytes: Vec<u8>,
    digest: Digest,
    name: String,
    origin: Origin,
    summary: Option<String>,
}

// By hand: it holds passwords.
impl fmt::Debug for CloudConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CloudConfig({}, {} bytes, {})", self.name, self.bytes.len(), self.digest)
    }
}

impl CloudConfig {
    /// The rendered bytes; apart from placeholders they are those that were given.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The sha256 of [`CloudConfig::bytes`].
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The file, URL (credentials masked) or key it was read from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What named it.
    #[must_use]
    pub const fn origin(&self) -> &Origin {
        &self.origin
    }

    /// What it makes a machine do, in one line, when it could be read.
    #[must_use]
    pub fn summary(&self) -> Option<&str> {
        self.summary.as_deref()
    }
}

/// Where something is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    Stdin,
    Url(String),
    Path(String),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdin => f.write_str(STDIN),
            Self::Url(url) => f.write_str(&printable(url)),
            Self::Path(path) => f.write_str(&printable(path)),
        }
    }
}

impl Location {
    /// `-`, an http(s) URL, or a path (relative to the working directory).
    pub fn parse(named: &str, what: &'static str) -> Result<Self, ConfigError> {
        if named == "-" {
            return Ok(Self::Stdin);
        }
        match named.split_once("://") {
            Some((scheme, _)) if ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) => {
                Ok(Self::Url(named.to_owned()))
            }
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Err(ConfigError::Scheme { what, name: printable(named) })
            }
            _ if is_home(named) => Err(ConfigError::Tilde { place: format!("the {what} {}", printable(named)) }),
            _ => Ok(Self::Path(named.to_owned())),
        }
    }

    /// The content, which is not empty and not above `max` bytes.
    pub fn read(
        &self,
        what: &'static str,
        max: usize,
        how: Fetching<'_>,
        inputs: &mut dyn Inputs,
    ) -> Result<Vec<u8>, ConfigError> {
        let bytes = match self {
            Self::Stdin => inputs.read_stdin().map_err(|error| explain(&error)),
            Self::Path(path) => inputs.read_file(Path::new(path)).map_err(|error| explain(&error)),
            Self::Url(url) => inputs.fetch_url(url, how).map_err(|reason| {
                let reason = printable(&reason);
                // It says once more which URL it was.
                reason.strip_prefix(&format!("{self}: ")).map_or(reason.clone(), str::to_owned)
            }),
        };
        let name = || self.to_string();
        let mut bytes = bytes.map_err(|reason| ConfigError::Read { what, name: name(), reason })?;
        // Editors of Windows write marks in front of a text: U+FEFF in UTF-8, or in two bytes each character (RFC 2781 §3.2).
        if bytes.starts_with("\u{feff}".as_bytes()) {
            bytes.drain(..3);
        }
        if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
            let reason = "it is UTF-16 text; save it as UTF-8".to_owned();
            return Err(ConfigError::Read { what, name: name(), reason });
        }
        if bytes.len() > max {
            return Err(ConfigError::TooBig { what, name: name(), max });
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(ConfigError::Empty { what, name: name() });
        }
        Ok(bytes)
    }
}

/// Whether a shell would have put the home directory in the place of the `~`.
pub fn is_home(path: &str) -> bool {
    path == "~" || path.starts_with("~/")
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file".to_owned(),
        io::ErrorKind::IsADirectory => "it is a directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

/// What was named, before its template is rendered.
struct Source {
    bytes: Vec<u8>,
    name: String,
    /// What stands between name and line in errors.
    line_mark: &'static str,
    origin: Origin,
}

/// Reads and renders the cloud config that the flag names, or else the file's.
///
/// # Errors
/// It cannot be read, is empty, or its template lacks something.
pub fn load(
    args: &Args,
    in_file: Setting<Option<String>>,
    config: &Config,
    inputs: &mut dyn Inputs,
    warnings: &mut Vec<Warning>,
) -> Result<Option<CloudConfig>, ConfigError> {
    let unused = |used: &BTreeSet<String>| {
        let unused = config.data.from_set.iter().filter(|key| !is_used(key, used));
        unused.map(|key| Warning::Unused { key: key.clone() }).collect::<Vec<_>>()
    };
    let Some(source) = source(args, in_file, config, inputs)? else {
        if !*config.disable_netboot {
            warnings.push(Warning::NoCloudConfig);
        }
        warnings.extend(unused(&BTreeSet::new()));
        return Ok(None);
    };
    let Source { bytes, name, line_mark, origin } = source;
    let place = |line: usize| format!("{name}{line_mark}{line}");
    let template::Rendered { bytes, used, foreign } = template::render(&bytes, &config.data.tree, &place)?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ConfigError::EmptyRendered { name });
    }
    warnings.extend(foreign.map(|place| Warning::ForeignTemplate { place }));
    let summary = inspect(&bytes, &name, warnings);
    warnings.extend(unused(&used));
    let digest = Digest(Sha256::digest(&bytes).into());
    Ok(Some(CloudConfig { digest, bytes, name, origin, summary }))
}

fn source(
    args: &Args,
    in_file: Setting<Option<String>>,
    config: &Config,
    inputs: &mut dyn Inputs,
) -> Result<Option<Source>, ConfigError> {
    let (named, origin) = match (args.cloud_config.as_deref(), in_file.value) {
        (Some(named), _) => (named.to_owned(), Origin::CloudConfigFlag),
        (None, Some(text)) if is_content(&text) => {
            let file = match &in_file.origin {
                Origin::File { name, .. } => name.as_str(),
                _ => "the configuration",
            };
            let name = format!("cloud_config of {file}");
            return Ok(Some(Source { bytes: text.into_bytes(), name, line_mark: ", line ", origin: in_file.origin }));
        }
        (None, Some(text)) if !text.trim().is_empty() => (text.trim().to_owned(), in_file.origin),
        (None, _) => return Ok(None),
    };
    let location = Location::parse(&named, WHAT)?;
    if location == Location::Stdin && args.config.as_deref() == Some("-") {
        return Err(ConfigError::StdinTwice);
    }
    let offline = config.offline.then_some(config.state_dir.as_path());
    let how = Fetching { ca_file: config.ca_file.as_deref(), offline };
    let bytes = location.read(WHAT, CLOUD_CONFIG_BYTES_MAX, how, inputs)?;
    let line_mark = if matches!(location, Location::Path(_)) { ":" } else { ", line " };
    Ok(Some(Source { bytes, name: location.to_string(), line_mark, origin }))
}

/// Whether a template names this key, something above or something below it.
fn is_used(key: &str, used: &BTreeSet<String>) -> bool {
    let below = |long: &str, short: &str| long.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
    used.iter().any(|path| path == key || below(path, key) || below(key, path))
}

/// What the operator should know about the rendered cloud config, and what it does in one line.
fn inspect(bytes: &[u8], name: &str, warnings: &mut Vec<Warning>) -> Option<String> {
    let name = || name.to_owned();
    if !has_header(bytes) {
        warnings.push(Warning::NoHeader { name: name() });
    }
    if bytes.len() > CLOUD_CONFIG_BYTES_WARN {
        warnings.push(Warning::Big { name: name(), bytes: bytes.len() });
        return None;
    }
    match survey(bytes) {
        Ok(survey) => {
            if survey.lacks_admin() {
                warnings.push(Warning::NoAdminUser { name: name() });
            }
            if !survey.outdented().is_empty() {
                warnings.push(Warning::InstallNotIndented { name: name(), keys: survey.outdented().join(", ") });
            }
            Some(survey.summary())
        }
        Err(reason) => {
            // The node replaces `{{ … }}` before it reads YAML, so only without any can we tell.
            if !bytes.windows(2).any(|pair| pair == b"{{") {
                warnings.push(Warning::NotYaml { name: name(), reason });
            }
            None
        }
    }
}

/// kairos-sdk's rule (collector.HasValidHeader): a whole line, in one of three spellings. It splits the text into at most
/// ten pieces and looks at each, so in a longer file the tenth line is one piece with all that follow, and never matches.
fn has_header(bytes: &[u8]) -> bool {
    let mut pieces = bytes.splitn(10, |byte| *byte == b'\n');
    pieces.any(|piece| matches!(piece.trim_ascii_end(), b"#cloud-config" | b"#kairos-config" | b"#node-config"))
}

/// Whether the file's `cloud_config` is the content itself, and not the name of it.
fn is_content(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('#') || text.contains('\n')
}
