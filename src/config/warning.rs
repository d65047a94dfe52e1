//! What the operator should know, though it stops nothing.

use super::origin::Origin;
use crate::limits::CLOUD_CONFIG_BYTES_WARN;
use crate::units::ByteSize;

/// One line of advice; the cloud config is the one the configuration names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Warning {
    #[error("no cloud config is given: machines boot the image, and nothing is installed or configured")]
    NoCloudConfig,
    #[error("{name} has no line `#cloud-config` among its first 9: nodes ignore it, and say nothing")]
    NoHeader { name: String },
    #[error(
        "{name} is {}: nodes skip files above {}", ByteSize(*.bytes as u64), ByteSize(CLOUD_CONFIG_BYTES_WARN as u64)
    )]
    Big { name: String, bytes: usize },
    #[error(
        "{place}: looks like a template of the original and stays as it is; here are [[ .key | filter ]] and [[ if .key ]]"
    )]
    ForeignTemplate { place: String },
    #[error("{name} cannot be read as YAML, and hardly by the nodes: {reason}")]
    NotYaml { name: String, reason: String },
    #[error(
        "{name} installs automatically but has no user in the group admin: Kairos 3.3 and later refuse to install \
         (add `groups: [admin]` to a user, or `install.nousers: true`)"
    )]
    NoAdminUser { name: String },
    #[error("{name}: `install:` is empty, yet {keys} stand beside it; indent them to put them under install")]
    InstallNotIndented { name: String, keys: String },
    #[error("{origin}: {key} is a key of the original AuroraBoot that is not supported yet; it has no effect")]
    NotSupported { key: String, origin: Origin },
    #[error("{origin}: {key} is for the appliance; this host's network stays as it is")]
    OfAppliance { key: &'static str, origin: Origin },
    #[error("--set {key} has no effect: it is not a key of the configuration, and no template uses it")]
    Unused { key: String },
}
