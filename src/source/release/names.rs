//! How Kairos names the artifacts of its releases: four ways since 2023, told apart by the release's version.
//!
//! The reading of a version is Go's ([`super::version`]), for it is Go code that the names were made for:
//!
//! | release | name |
//! |---|---|
//! | in 2023, all | `kairos-<flavor>-<artifact_version>` |
//! | below v2.4.0, or no version | the same for `standard`, `core-<flavor>-<artifact_version>` for `core` |
//! | below v2.4.2 | `kairos-<variant>-<flavor>-<platform>-<model>-<artifact_version>` |
//! | from v2.4.2 on | `kairos-<flavor>-<flavor_release>-<variant>-<platform>-<model>-<artifact_version>` |

use std::cmp::Ordering;

use super::ReleaseQuery;
use super::version::compare;

/// The first release whose names tell variant and platform.
const WITH_PLATFORM: &str = "v2.4.0";
/// The first release whose names tell the flavor's release.
const WITH_FLAVOR_RELEASE: &str = "v2.4.2";
const MODEL: &str = "generic";

/// A way of naming artifacts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Year2023,
    Legacy,
    WithPlatform,
    WithFlavorRelease,
}

impl Scheme {
    /// All of them, the likeliest for a release first.
    fn likeliest(release_version: &str) -> [Self; 4] {
        let is_below = |version| compare(release_version, version) == Ordering::Less;
        if is_below(WITH_PLATFORM) {
            [Self::Legacy, Self::Year2023, Self::WithPlatform, Self::WithFlavorRelease]
        } else if is_below(WITH_FLAVOR_RELEASE) {
            [Self::WithPlatform, Self::WithFlavorRelease, Self::Legacy, Self::Year2023]
        } else {
            [Self::WithFlavorRelease, Self::WithPlatform, Self::Legacy, Self::Year2023]
        }
    }

    fn name(self, query: &ReleaseQuery<'_>, variant: &str) -> String {
        let ReleaseQuery { flavor, artifact_version, platform, .. } = query;
        let model = query.model.unwrap_or(MODEL);
        match self {
            Self::Year2023 => format!("kairos-{flavor}-{artifact_version}"),
            Self::Legacy => {
                let product = if variant == "standard" { "kairos" } else { "core" };
                format!("{product}-{flavor}-{artifact_version}")
            }
            Self::WithPlatform => format!("kairos-{variant}-{flavor}-{platform}-{model}-{artifact_version}"),
            Self::WithFlavorRelease => {
                let release = query.flavor_release.map(|release| format!("-{release}")).unwrap_or_default();
                format!("kairos-{flavor}{release}-{variant}-{platform}-{model}-{artifact_version}")
            }
        }
    }
}

/// The names, without a suffix, that the artifact may have: likeliest first, none twice.
pub(super) fn candidates(query: &ReleaseQuery<'_>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for variant in variants(query) {
        for scheme in Scheme::likeliest(query.release_version) {
            let name = scheme.name(query, variant);
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// Whether artifacts of that release have the flavor's release in their names.
pub(super) fn want_flavor_release(query: &ReleaseQuery<'_>) -> bool {
    Scheme::likeliest(query.release_version)[0] == Scheme::WithFlavorRelease
}

/// `standard` means that Kubernetes is in the image, and the artifact's version says so. The original knows k3s only and takes an image
/// with k0s for `core`, under which name there never was one with k0s in its version: the other name cannot be a mistake.
fn variants<'a>(query: &ReleaseQuery<'a>) -> Vec<&'a str> {
    match query.variant {
        Some(variant) => vec![variant],
        None if query.artifact_version.contains("k3s") => vec!["standard"],
        None if query.artifact_version.contains("k0s") => vec!["core", "standard"],
        None => vec!["core"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Arch;

    fn query<'a>(release: &'a str, artifact: &'a str) -> ReleaseQuery<'a> {
        ReleaseQuery {
            repository: "kairos-io/kairos",
            release_version: release,
            artifact_version: artifact,
            flavor: "rockylinux",
            flavor_release: Some("9"),
            variant: None,
            platform: Arch::Amd64,
            model: None,
            github_url: None,
        }
    }

    #[test]
    fn the_likeliest_name_is_the_one_that_the_original_asks_for() {
        let k3s = |version: &str| format!("{version}-k3sv1.26.1+k3s1");
        // Kairos' own test vectors (AuroraBoot, schema/artifact_test.go), and the borders between them.
        for (release, artifact, name) in [
            ("v2.4.2", "v2.4.2".to_owned(), "kairos-rockylinux-9-core-amd64-generic-v2.4.2"),
            ("v2.4.2", k3s("v2.4.2"), "kairos-rockylinux-9-standard-amd64-generic-v2.4.2-k3sv1.26.1+k3s1"),
            ("v2.4.1", "v2.4.1".to_owned(), "kairos-core-rockylinux-amd64-generic-v2.4.1"),
            ("v2.4.1", k3s("v2.4.1"), "kairos-standard-rockylinux-amd64-generic-v2.4.1-k3sv1.26.1+k3s1"),
            ("v2.4.0", "v2.4.0".to_owned(), "kairos-core-rockylinux-amd64-generic-v2.4.0"),
            ("v2.3.0", "v2.3.0".to_owned(), "core-rockylinux-v2.3.0"),
            ("v2.3.0", k3s("v2.3.0"), "kairos-rockylinux-v2.3.0-k3sv1.26.1+k3s1"),
            ("v2.4.0-rc1", "v2.4.0-rc1".to_owned(), "core-rockylinux-v2.4.0-rc1"),
            ("v2.4.2-rc1", "v2.4.2-rc1".to_owned(), "kairos-core-rockylinux-amd64-generic-v2.4.2-rc1"),
            ("v3.0.0", "v3.0.0".to_owned(), "kairos-rockylinux-9-core-amd64-generic-v3.0.0"),
            // Without its v it is no version to Go, and so below all of them.
            ("3.0.0", "v3.0.0".to_owned(), "core-rockylinux-v3.0.0"),
            ("latest", k3s("v3.0.0"), "kairos-rockylinux-v3.0.0-k3sv1.26.1+k3s1"),
        ] {
            assert_eq!(candidates(&query(release, &artifact))[0], name, "{release} {artifact}");
        }
    }

    #[test]
    fn the_name_of_2023_is_tried_for_every_old_release() {
        assert_eq!(candidates(&query("v1.5.0", "v1.5.0"))[..2], ["core-rockylinux-v1.5.0", "kairos-rockylinux-v1.5.0"]);
        let standard = candidates(&query("v1.5.1", "v1.5.1-k3sv1.21.14+k3s1"));
        assert_eq!(standard.iter().filter(|name| *name == "kairos-rockylinux-v1.5.1-k3sv1.21.14+k3s1").count(), 1);
    }

    #[test]
    fn what_is_given_outweighs_what_is_guessed() {
        let given = ReleaseQuery {
            variant: Some("standard"),
            platform: Arch::Arm64,
            model: Some("rpi4"),
            ..query("v3.0.0", "v3.0.0")
        };
        assert_eq!(candidates(&given)[0], "kairos-rockylinux-9-standard-arm64-rpi4-v3.0.0");
        let without = ReleaseQuery { flavor_release: None, ..query("v3.0.0", "v3.0.0") };
        assert_eq!(candidates(&without)[0], "kairos-rockylinux-core-amd64-generic-v3.0.0");
    }

    #[test]
    fn an_image_with_k0s_is_found_under_either_variant() {
        let names = candidates(&query("v3.0.0", "v3.0.0-k0sv1.30.0+k0s.0"));
        let position = |name: &str| names.iter().position(|other| other == name);
        let core = position("kairos-rockylinux-9-core-amd64-generic-v3.0.0-k0sv1.30.0+k0s.0");
        let standard = position("kairos-rockylinux-9-standard-amd64-generic-v3.0.0-k0sv1.30.0+k0s.0");
        assert!(core == Some(0) && standard > core, "{names:?}");
    }
}
