//! Everything that can be wrong with a configuration, one line each.

use super::origin::Origin;
use super::template::TemplateError;
use crate::units::ByteSize;

/// Why there is no configuration. Always the operator's to mend, so always exit code 2.
///
/// URLs in it are masked; values of template data are never part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    // Reading.
    #[error("cannot read the {what} {name}: {reason}")]
    Read { what: &'static str, name: String, reason: String },
    #[error("the {what} {name} is empty")]
    Empty { what: &'static str, name: String },
    #[error("the cloud config {name} is empty once its template is rendered")]
    EmptyRendered { name: String },
    #[error("the {what} {name} is larger than {}", ByteSize(*.max as u64))]
    TooBig { what: &'static str, name: String, max: usize },
    #[error("the {what} {name} has a scheme that cannot be fetched; use http:// or https://, or a path")]
    Scheme { what: &'static str, name: String },
    #[error("standard input cannot be both the configuration file and the cloud config")]
    StdinTwice,

    // The file.
    #[error("{name} is not YAML: {reason}")]
    NotYaml { name: String, reason: String },
    #[error("{name} is {found} and no configuration; it needs lines such as `container_image: …`")]
    NotKeys { name: String, found: &'static str },
    #[error("{name} is a cloud config, not a configuration of auroraboot: pass it with --cloud-config {name}")]
    IsCloudConfig { name: String },
    #[error("{origin}: unknown key {key}{}; data for the cloud config's template goes under values:", suggest(.suggestion))]
    UnknownKey { origin: Origin, key: String, suggestion: Option<&'static str> },

    // --set.
    #[error("--set {typed}: there is no `=`; write --set KEY=VALUE")]
    SetWithoutValue { typed: String },
    #[error("--set {key}: {key:?} is not a key; use letters, digits, - and _, and a dot between the parts")]
    SetBadKey { key: String },
    #[error("--set {key}: the key has more than {max} parts")]
    SetTooDeep { key: String, max: usize },
    #[error("--set {key}: unknown key, did you mean {suggestion}? (as data for the template, give it another name)")]
    SetSlip { key: String, suggestion: &'static str },
    #[error("--set {short} and --set {long}: one cannot be both a value and a group of keys")]
    SetConflict { short: String, long: String },
    #[error("--set cloud_config: name the cloud config with --cloud-config FILE, URL or -")]
    SetCloudConfig,
    #[error("--set {key}: everything set is data for the template already; leave `values.` away")]
    SetValues { key: String },

    // Values.
    #[error("{}: {value:?} is not {accepted}", place(.key, .value, .origin))]
    BadValue { key: &'static str, value: String, origin: Origin, accepted: &'static str },
    #[error("{origin}: {key} is {found}; it takes {accepted}")]
    WrongShape { key: &'static str, origin: Origin, found: &'static str, accepted: &'static str },
    #[error("{origin}: {key} is a group; its keys are {members}")]
    IsGroup { key: String, origin: Origin, members: String },

    // The whole.
    #[error(
        "nothing to boot: give --set container_image=IMAGE (or a release: repository, release_version, artifact_version \
         and flavor)"
    )]
    NoSource,
    #[error("the release is incomplete: set {missing} too (or container_image instead)")]
    ReleaseIncomplete { missing: String },
    #[error("{0}")]
    Template(#[from] TemplateError),
}

fn suggest(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// Where the value stands, in the words the operator used: `aurora.yaml:3: key`, `--set key=value`.
fn place(key: &str, value: &str, origin: &Origin) -> String {
    match origin {
        Origin::Set => format!("--set {key}={value}"),
        other => format!("{other}: {key}"),
    }
}
