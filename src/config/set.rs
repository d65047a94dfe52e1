//! `--set KEY=VALUE`: split, checked, sorted into settings and template data.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::keys;
use super::mask::printable;
use super::origin::Origin;
use crate::limits::KEY_PARTS_MAX;

/// Reads every `--set` of the command line: dotted keys, and values that keep every character behind the first `=`. Of two
/// for one key the last wins, as in the original.
///
/// # Errors
/// The first that cannot be meant.
pub fn parse(typed: &[String]) -> Result<BTreeMap<String, String>, ConfigError> {
    let assignments: BTreeMap<String, String> = typed.iter().map(|typed| parse_one(typed)).collect::<Result<_, _>>()?;
    check_conflicts(&assignments)?;
    Ok(assignments)
}

fn parse_one(typed: &str) -> Result<(String, String), ConfigError> {
    let Some((key, value)) = typed.split_once('=') else {
        return Err(ConfigError::SetWithoutValue { typed: printable(typed) });
    };
    let key = key.trim().to_owned();
    let good = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_'));
    if !key.split('.').all(good) {
        return Err(ConfigError::SetBadKey { key: printable(&key) });
    }
    if key.split('.').count() > KEY_PARTS_MAX {
        return Err(ConfigError::SetTooDeep { key, max: KEY_PARTS_MAX });
    }
    if key.replace('-', "_") == "cloud_config" {
        return Err(ConfigError::SetCloudConfig);
    }
    if key == "values" || key.starts_with("values.") {
        return Err(ConfigError::SetValues { key });
    }
    if keys::is_group(&key) {
        return Err(keys::group_error(&key, Origin::Set));
    }
    if keys::find(&key).is_none()
        && let Some(suggestion) = keys::one_slip(&key)
    {
        return Err(ConfigError::SetSlip { key, suggestion });
    }
    Ok((key, value.to_owned()))
}

/// `a=1` and `a.b=2` in one command line: whichever won, the other would be lost silently.
fn check_conflicts(assignments: &BTreeMap<String, String>) -> Result<(), ConfigError> {
    for long in assignments.keys() {
        let mut above = long.match_indices('.').map(|(dot, _)| &long[..dot]);
        if let Some(short) = above.find(|short| assignments.contains_key(*short)) {
            return Err(ConfigError::SetConflict { short: short.to_owned(), long: long.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(typed: &[&str]) -> Result<Vec<(String, String)>, ConfigError> {
        let typed: Vec<String> = typed.iter().map(|&text| text.to_owned()).collect();
        Ok(super::parse(&typed)?.into_iter().collect())
    }

    #[test]
    fn splits_at_the_first_equals_sign_and_keeps_the_rest() {
        for (typed, key, value) in [
            ("netboot.cmdline=console=ttyS0,115200 a=\"b\"", "netboot.cmdline", "console=ttyS0,115200 a=\"b\""),
            ("a-b.c-d=\\(1+1)\\n", "a-b.c-d", "\\(1+1)\\n"),
            ("empty=", "empty", ""),
            (" spaced = x ", "spaced", " x "),
            ("1.0.x=numbers", "1.0.x", "numbers"),
        ] {
            assert_eq!(parse(&[typed]), Ok(vec![(key.to_owned(), value.to_owned())]));
        }
    }

    #[test]
    fn the_last_of_two_wins() {
        let set = parse(&["a=1", "b=2", "a=3"]).unwrap();
        assert_eq!(set, [("a".to_owned(), "3".to_owned()), ("b".to_owned(), "2".to_owned())]);
    }

    #[test]
    fn each_mistake_has_its_own_line() {
        for (typed, message) in [
            (&["disable_netboot"][..], "--set disable_netboot: there is no `=`; write --set KEY=VALUE"),
            (&["=x"], "--set : \"\" is not a key; "),
            (&["a..b=x"], "--set a..b: \"a..b\" is not a key; "),
            (&["a[0]=x"], "--set a[0]: \"a[0]\" is not a key; "),
            (&["contaner_image=x"], "--set contaner_image: unknown key, did you mean container_image? "),
            (&["allow_insecure_registries=true"], "--set allow_insecure_registries: unknown key, did you mean allow-i"),
            (&["netboot.cmdlin=x"], "--set netboot.cmdlin: unknown key, did you mean netboot.cmdline?"),
            (&["cloud_config=x"], "--set cloud_config: name the cloud config with --cloud-config"),
            (&["cloud-config=x"], "--set cloud_config: name the cloud config with --cloud-config"),
            (&["netboot=x"], "--set: netboot is a group; its keys are netboot.cmdline, netboot.allow, netboot.deny"),
            (&["values.a=x"], "--set values.a: everything set is data for the template already"),
            (&["a.b=1", "a=2"], "--set a and --set a.b: one cannot be both"),
        ] {
            let error = parse(typed).unwrap_err().to_string();
            assert!(error.starts_with(message), "{typed:?}: {error}");
        }
    }

    #[test]
    fn a_key_has_a_bounded_number_of_parts() {
        let key = |parts: usize| format!("{}=x", vec!["a"; parts].join("."));
        assert!(parse(&[&key(KEY_PARTS_MAX)]).is_ok());
        assert!(matches!(parse(&[&key(KEY_PARTS_MAX + 1)]), Err(ConfigError::SetTooDeep { .. })));
    }
}
