//! Everything that can be wrong with a configuration, one line each.

use super::cloud::STDIN;
use super::origin::Origin;
use super::template::TemplateError;
use crate::units::ByteSize;

/// Why there is no configuration. Always the operator's to mend, so always exit code 2.
///
/// URLs in it are masked; values of template data are never part of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    // Reading.
    #[error("cannot read the {what} {}: {reason}", on(.name))]
    Read { what: &'static str, name: String, reason: String },
    #[error("the {what} {} is empty", on(.name))]
    Empty { what: &'static str, name: String },
    #[error("the cloud config {} is empty once its template is rendered", on(.name))]
    EmptyRendered { name: String },
    #[error("the {what} {} is larger than {}", on(.name), ByteSize(*.max as u64))]
    TooBig { what: &'static str, name: String, max: usize },
    #[error("the {what} {name} has a scheme that cannot be fetched; use http:// or https://, or a path")]
    Scheme { what: &'static str, name: String },
    #[error("standard input cannot be both the configuration file and the cloud config")]
    StdinTwice,
    #[error("{place}: `~` is not expanded here; write the full path")]
    Tilde { place: String },

    // The file.
    #[error("{name} cannot be read as YAML: {reason}")]
    NotYaml { name: String, reason: String },
    #[error("{name} is {found} and no configuration; it needs lines such as `container_image: …`")]
    NotKeys { name: String, found: &'static str },
    #[error("{name} is a cloud config, not a configuration of auroraboot: pass it with --cloud-config {}", typed(.name))]
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

    #[error("--set {key}: flash uses no key but state_dir; a custom ISO contains its configuration already")]
    NotOfFlash { key: String },
    #[error("--set {key}: cache uses no keys but state_dir and cache_limit")]
    NotOfCache { key: String },

    // Values.
    #[error("{}: {value:?} is not {accepted}", place(.key, .value, .origin))]
    BadValue { key: &'static str, value: String, origin: Origin, accepted: &'static str },
    #[error("{origin}: {key} is {found}; it takes {accepted}")]
    WrongShape { key: &'static str, origin: Origin, found: &'static str, accepted: &'static str },
    #[error("{origin}: {key} is a group; its keys are {members}")]
    IsGroup { key: String, origin: Origin, members: String },

    // The whole.
    #[error(
        "nothing to boot: give --set container_image=IMAGE, or iso_url=ISO, or a release by repository, release_version, \
         artifact_version and flavor"
    )]
    NoSource,
    #[error(
        "nothing to boot: the release lacks {missing}; give --set KEY=VALUE for each, or --set container_image=IMAGE"
    )]
    ReleaseIncomplete { missing: String },
    #[error("nothing to do: disable_iso and disable_netboot are both set; leave one away")]
    NothingToDo,
    #[error(transparent)]
    Template(#[from] TemplateError),
}

fn suggest(suggestion: &Option<&'static str>) -> String {
    suggestion.map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

/// A name behind what it is the name of: the cloud config `c.yaml`, but the cloud config *on* standard input.
fn on(name: &str) -> String {
    if name == STDIN { format!("on {name}") } else { name.to_owned() }
}

/// A name as it is given on the command line.
fn typed(name: &str) -> &str {
    if name == STDIN { "-" } else { name }
}

/// Where the value stands, in the words the operator used: `aurora.yaml:3: key`, `--set key=value`.
pub fn place(key: &str, value: &str, origin: &Origin) -> String {
    match origin {
        Origin::Set => format!("--set {key}={value}"),
        other => format!("{other}: {key}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::template::render;
    use crate::units::chain;

    /// One of each; a new variant does not compile before it is here.
    fn all() -> Vec<ConfigError> {
        use ConfigError as E;
        let (name, key, typed) = (|| "name".to_owned(), || "a.key".to_owned(), || "typed".to_owned());
        let (what, origin) = ("cloud config", Origin::Set);
        let template = render(b"[[ .a ]]", &crate::config::Node::default(), &|_| name()).unwrap_err();
        let all = vec![
            E::Read { what, name: name(), reason: "reason".into() },
            E::Empty { what, name: name() },
            E::EmptyRendered { name: name() },
            E::TooBig { what, name: name(), max: 1 },
            E::Scheme { what, name: name() },
            E::StdinTwice,
            E::Tilde { place: name() },
            E::NotYaml { name: name(), reason: "reason".into() },
            E::NotKeys { name: name(), found: "a list" },
            E::IsCloudConfig { name: name() },
            E::UnknownKey { origin: origin.clone(), key: key(), suggestion: Some("other") },
            E::SetWithoutValue { typed: typed() },
            E::SetBadKey { key: key() },
            E::SetTooDeep { key: key(), max: 1 },
            E::SetSlip { key: key(), suggestion: "other" },
            E::SetConflict { short: key(), long: name() },
            E::SetCloudConfig,
            E::SetValues { key: key() },
            E::BadValue { key: "k", value: typed(), origin: origin.clone(), accepted: "a port" },
            E::WrongShape { key: "k", origin: origin.clone(), found: "a list", accepted: "one value" },
            E::IsGroup { key: key(), origin, members: name() },
            E::NoSource,
            E::ReleaseIncomplete { missing: name() },
            E::NothingToDo,
            E::Template(template),
        ];
        for error in &all {
            match error {
                E::Read { .. } | E::Empty { .. } | E::EmptyRendered { .. } | E::TooBig { .. } | E::Scheme { .. } => {}
                E::StdinTwice | E::Tilde { .. } | E::NotYaml { .. } | E::NotKeys { .. } | E::IsCloudConfig { .. } => {}
                E::UnknownKey { .. } | E::SetWithoutValue { .. } | E::SetBadKey { .. } | E::SetTooDeep { .. } => {}
                E::SetSlip { .. } | E::SetConflict { .. } | E::SetCloudConfig | E::SetValues { .. } => {}
                E::NotOfCache { .. }
                | E::NotOfFlash { .. }
                | E::BadValue { .. }
                | E::WrongShape { .. }
                | E::IsGroup { .. }
                | E::NoSource => {}
                E::ReleaseIncomplete { .. } | E::NothingToDo | E::Template(_) => {}
            }
        }
        all
    }

    #[test]
    fn no_error_repeats_its_source() {
        for error in all() {
            let line = chain(&error);
            assert_eq!(line.matches(&error.to_string()).count(), 1, "{line}");
            assert_eq!(line.lines().count(), 1, "{line}");
        }
    }

    #[test]
    fn standard_input_is_called_as_people_do() {
        let empty = ConfigError::Empty { what: "cloud config", name: STDIN.into() };
        assert_eq!(empty.to_string(), "the cloud config on standard input is empty");
        let slip = ConfigError::IsCloudConfig { name: STDIN.into() }.to_string();
        assert!(slip.ends_with("pass it with --cloud-config -"), "{slip}");
    }
}
