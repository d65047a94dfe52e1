//! The configuration file: YAML into settings, each with its line.

use std::collections::BTreeMap;

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
    pub values: Option<Values>,
}

/// The data under `values:`.
#[derive(Debug)]
pub struct Values {
    pub node: Node,
    /// Where each leaf stands, by its dotted path.
    pub origins: BTreeMap<String, Origin>,
}

/// Reads a configuration file called `name`.
///
/// # Errors
/// What is not YAML, is no group of keys, or has a key nobody knows.
pub fn parse(bytes: &[u8], name: &str) -> Result<File, ConfigError> {
    let node = yaml::parse(bytes)
        .map_err(|error| ConfigError::NotYaml { name: name.to_owned(), reason: error.to_string() })?;
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
                    file.values = Some(self.values(node));
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

impl Reader<'_> {
    fn values(&self, node: Node) -> Values {
        let origin =
            |path: &str| Origin::File { name: self.name.to_owned(), line: self.lines.of(&format!("values.{path}")) };
        let origins = node.leaves().into_iter().map(|(path, _)| (path.clone(), origin(&path))).collect();
        Values { node, origins }
    }
}

/// A key of a hostile file is kept to one short line.
fn printable(key: &str) -> String {
    let short: String = key.chars().take(60).collect();
    short.escape_debug().to_string()
}

/// The line of each key. serde_yaml tells no positions, so this goes by the indentation of lines that look like `key:`:
/// right for files written one key a line; what stands within a line or a list has the line of the nearest key around it.
struct Lines<'a> {
    /// By the line of the key around it (0: none) and the key itself, counted from 1; of two the first.
    lines: BTreeMap<(usize, &'a str), usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let mut lines = BTreeMap::new();
        let mut around: Vec<(usize, usize)> = Vec::new(); // indent and line of the keys this one stands below
        for (index, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            let Some(key) = key_of(line) else { continue };
            let indent = line.len() - line.trim_start().len();
            while around.pop_if(|(above, _)| *above >= indent).is_some() {}
            let above = around.last().map_or(0, |(_, line)| *line);
            lines.entry((above, key)).or_insert(index + 1);
            around.push((indent, index + 1));
        }
        Self { lines }
    }

    /// The line of a dotted key.
    fn of(&self, key: &str) -> Option<usize> {
        let (mut found, mut rest) = (None, key);
        loop {
            let above = found.unwrap_or(0);
            // A dotted key may be written in one, too.
            if let Some(line) = self.lines.get(&(above, rest)) {
                return Some(*line);
            }
            let Some((first, below)) = rest.split_once('.') else { return found };
            let Some(line) = self.lines.get(&(above, first)) else { return found };
            (found, rest) = (Some(*line), below);
        }
    }
}

/// The key that a line begins with.
fn key_of(line: &str) -> Option<&str> {
    let (key, _) = line.trim_start().split_once(':')?;
    let key = key.trim_end().trim_matches(['"', '\'']);
    (!key.is_empty() && !key.starts_with(['#', '-', '%'])).then_some(key)
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

        let yaml = "values:\n  flavor:\n    b: 1\n    c.d: 2\n  l:\n  - x: 3\n    a: 4\n  f: {g: 5}\nflavor:\n";
        let values = parse(yaml.as_bytes(), "a.yaml").unwrap().values.unwrap();
        let shown: Vec<String> = values.origins.iter().map(|(path, origin)| format!("{path} {origin}")).collect();
        let wanted = ["f.g a.yaml:8", "flavor.b a.yaml:3", "flavor.c.d a.yaml:4", "l.0.a a.yaml:5", "l.0.x a.yaml:5"];
        assert_eq!(shown, wanted);
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
            ("a: [", "a.yaml cannot be read as YAML: "),
            ("a: 1\n---\nb: 2\n", "a.yaml cannot be read as YAML: it has more than one document"),
            ("\nflavor: x\nflavor: y\n", "a.yaml cannot be read as YAML: duplicate entry"),
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
