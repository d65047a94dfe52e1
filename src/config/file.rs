//! The configuration file: YAML into settings, each with its line.

use super::error::ConfigError;
use super::keys;
use super::node::Node;
use super::origin::{Origin, Setting};
use super::yaml;

/// What a configuration file says.
#[derive(Debug, Default)]
pub struct File {
    /// Every known key that has a value, `cloud_config` included.
    pub settings: Vec<(&'static str, Setting<Node>)>,
    /// The data under `values:`.
    pub values: Option<Setting<Node>>,
}

/// Reads a configuration file called `name`.
///
/// # Errors
/// What is not YAML, is no group of keys, or has a key nobody knows.
pub fn parse(bytes: &[u8], name: &str) -> Result<File, ConfigError> {
    let node = yaml::parse(bytes).map_err(|error| ConfigError::NotYaml {
        name: name.to_owned(),
        reason: error.to_string().lines().collect::<Vec<_>>().join(" "),
    })?;
    let text = String::from_utf8_lossy(bytes);
    let reader = Reader { name, lines: Lines::new(&text) };
    reader.document(node).map_err(|error| {
        // A likely slip: the cloud config in the place of the configuration.
        let is_cloud_config = text.lines().take(10).any(|line| line.trim_end() == "#cloud-config");
        if is_cloud_config { ConfigError::IsCloudConfig { name: name.to_owned() } } else { error }
    })
}

struct Reader<'a> {
    name: &'a str,
    lines: Lines<'a>,
}

impl Reader<'_> {
    fn document(&self, node: Node) -> Result<File, ConfigError> {
        let mut file = File::default();
        match node {
            Node::Map(map) => {
                map.into_iter().try_for_each(|(key, node)| self.key(&key, node, &mut file))?;
                Ok(file)
            }
            Node::Null => Err(ConfigError::Empty { what: "configuration file", name: self.name.to_owned() }),
            other => Err(ConfigError::NotKeys { name: self.name.to_owned(), found: other.kind() }),
        }
    }

    fn key(&self, key: &str, node: Node, file: &mut File) -> Result<(), ConfigError> {
        let origin = Origin::File { name: self.name.to_owned(), line: self.lines.of(key) };
        if key == "values" {
            return match node {
                Node::Null => Ok(()),
                Node::Map(_) => {
                    file.values = Some(Setting { value: node, origin });
                    Ok(())
                }
                other => Err(ConfigError::WrongShape {
                    key: "values",
                    origin,
                    found: other.kind(),
                    accepted: "a group of keys",
                }),
            };
        }
        if let Some(known) = keys::find(key) {
            if node != Node::Null {
                file.settings.push((known.name, Setting { value: node, origin }));
            }
            return Ok(());
        }
        if keys::is_group(key) {
            return match node {
                Node::Null => Ok(()),
                Node::Map(map) => {
                    map.into_iter().try_for_each(|(below, node)| self.key(&format!("{key}.{below}"), node, file))
                }
                _ => Err(keys::group_error(key, origin)),
            };
        }
        Err(ConfigError::UnknownKey { origin, key: printable(key), suggestion: keys::suggest(key) })
    }
}

/// A key of a hostile file is kept to one short line.
fn printable(key: &str) -> String {
    let short: String = key.chars().take(60).collect();
    short.escape_debug().to_string()
}

/// Finds the line of a key. serde_yaml tells no positions, so this looks for the line that begins with the key:
/// right for files written one key a line, and no line at all for the others.
struct Lines<'a> {
    lines: Vec<&'a str>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { lines: text.trim_start_matches('\u{feff}').lines().collect() }
    }

    /// The line of a dotted key, counted from 1.
    fn of(&self, key: &str) -> Option<usize> {
        let top_indent = self.lines.iter().find(|line| begins_entry(line)).map(|line| indent(line))?;
        let named = |line: &str, key: &str| {
            let line = line.trim_start().trim_start_matches(['"', '\'']);
            line.strip_prefix(key)
                .is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
        };
        let top = |key: &str| self.lines.iter().position(|line| indent(line) == top_indent && named(line, key));
        if let Some(line) = top(key) {
            return Some(line + 1);
        }
        let (group, below) = key.split_once('.')?;
        let start = top(group)?;
        let inside = self.lines[start + 1..].iter().take_while(|line| !begins_entry(line) || indent(line) > top_indent);
        let line = inside.clone().position(|line| named(line, below)).map_or(start, |at| start + 1 + at);
        Some(line + 1)
    }
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn begins_entry(line: &str) -> bool {
    let line = line.trim();
    !(line.is_empty() || line.starts_with('#') || line.starts_with("---") || line.starts_with('%'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(yaml: &str, key: &str) -> Option<usize> {
        let file = parse(yaml.as_bytes(), "a.yaml").unwrap();
        let (_, setting) = file.settings.into_iter().find(|(name, _)| *name == key).unwrap();
        match setting.origin {
            Origin::File { line, .. } => line,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn keys_know_their_line() {
        let yaml = "\u{feff}# flavor: no\n---\ncloud_config: |\n  flavor: no\n\n  model: no\nflavor: x\n\"model\" : y\nnetboot:\n  # c\n\n  \
                    allow: [a]\n  cmdline: z\n";
        for (key, line) in
            [("cloud_config", 3), ("flavor", 7), ("model", 8), ("netboot.allow", 12), ("netboot.cmdline", 13)]
        {
            assert_eq!(line_of(yaml, key), Some(line), "{key}");
        }
        assert_eq!(line_of("netboot: {allow: [a]}\nflavor: x", "netboot.allow"), Some(1));
        assert_eq!(line_of("netboot.cmdline: a", "netboot.cmdline"), Some(1));
        assert_eq!(line_of("  flavor: a\n  model: b", "model"), Some(2));
        assert_eq!(line_of("{flavor: a, model: b}", "model"), None);
    }

    #[test]
    fn each_mistake_has_its_own_line() {
        for (yaml, message) in [
            ("", "the configuration file a.yaml is empty"),
            ("# only a comment\n", "the configuration file a.yaml is empty"),
            ("just text", "a.yaml is a value and no configuration; it needs lines such as"),
            ("- a\n- b\n", "a.yaml is a list and no configuration"),
            (
                "#cloud-config\n\ninstall:\n  auto: true\n",
                "a.yaml is a cloud config, not a configuration of auroraboot",
            ),
            ("a: [", "a.yaml is not YAML: "),
            ("\nflavor: x\nflavor: y\n", "a.yaml is not YAML: duplicate entry"),
            (
                "flavor: x\n\ncontaner_image: y\n",
                "a.yaml:3: unknown key contaner_image, did you mean container_image?; data",
            ),
            (
                "kairos:\n  password: x\n",
                "a.yaml:1: unknown key kairos; data for the cloud config's template goes under",
            ),
            ("netboot:\n  cmdlin: x\n", "a.yaml:2: unknown key netboot.cmdlin, did you mean netboot.cmdline?"),
            (
                "netboot: true\n",
                "a.yaml:1: netboot is a group; its keys are netboot.cmdline, netboot.allow, netboot.deny",
            ),
            ("values: 1\n", "a.yaml:1: values is a value; it takes a group of keys"),
        ] {
            let error = parse(yaml.as_bytes(), "a.yaml").unwrap_err().to_string();
            assert!(error.starts_with(message), "{yaml:?}: {error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }

    #[test]
    fn keys_without_a_value_are_not_set() {
        let file = parse(b"flavor:\nnetboot:\nvalues:\nmodel: ~\nvariant: core\n", "a.yaml").unwrap();
        assert_eq!(file.settings.len(), 1);
        assert!(file.values.is_none());
    }
}
