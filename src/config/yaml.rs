//! YAML into a [`Node`], every scalar kept as it was written.

mod depth;

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize as _;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{Mapping, Value};

use self::depth::is_deeper_than;
use super::node::Node;
use crate::limits::YAML_NESTED_MAX;

/// Why a text cannot be read; one line.
#[derive(Debug, thiserror::Error)]
pub enum YamlError {
    #[error("it is nested deeper than {YAML_NESTED_MAX}")]
    TooDeep,
    #[error("it has more than one document")]
    Documents,
    /// The parser's, with line and column.
    #[error("{0}")]
    Syntax(String),
}

impl From<serde_yaml::Error> for YamlError {
    fn from(error: serde_yaml::Error) -> Self {
        Self::Syntax(error.to_string().lines().collect::<Vec<_>>().join(" "))
    }
}

/// Reads one YAML document.
///
/// serde_yaml's own [`Value`] turns `1.10` into a number and loses the zero. Asked for a string it hands out the
/// scalar's text, but it must be told where one is: so the document is read twice, first for its shape.
///
/// # Errors
/// [`YamlError`].
pub fn parse(bytes: &[u8]) -> Result<Node, YamlError> {
    if is_deeper_than(YAML_NESTED_MAX, bytes) {
        return Err(YamlError::TooDeep);
    }
    let mut documents = serde_yaml::Deserializer::from_slice(bytes);
    let shape = documents.next().map_or(Ok(Value::Null), Value::deserialize)?;
    if documents.next().is_some() {
        return Err(YamlError::Documents);
    }
    Ok(Shape(&shape).deserialize(serde_yaml::Deserializer::from_slice(bytes))?)
}

/// Reads a value whose shape is known, scalars as text.
struct Shape<'a>(&'a Value);

impl<'de> DeserializeSeed<'de> for Shape<'_> {
    type Value = Node;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        match self.0 {
            Value::Null => deserializer.deserialize_ignored_any(NullVisitor),
            Value::Bool(_) | Value::Number(_) | Value::String(_) => deserializer.deserialize_str(TextVisitor),
            Value::Sequence(items) => deserializer.deserialize_seq(ListVisitor(items)),
            Value::Mapping(entries) => deserializer.deserialize_map(MapVisitor(entries)),
            Value::Tagged(tagged) => Shape(&tagged.value).deserialize(deserializer),
        }
    }
}

struct NullVisitor;

impl Visitor<'_> for NullVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("nothing")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Null)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_str<E>(self, text: &str) -> Result<Node, E> {
        Ok(Node::Text(text.to_owned()))
    }
}

struct ListVisitor<'a>(&'a [Value]);

impl<'de> Visitor<'de> for ListVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        for shape in self.0 {
            list.extend(items.next_element_seed(Shape(shape))?);
        }
        Ok(Node::List(list))
    }
}

struct MapVisitor<'a>(&'a Mapping);

impl<'de> Visitor<'de> for MapVisitor<'_> {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("keys and values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = BTreeMap::new();
        for shape in self.0.values() {
            let Some(key) = entries.next_key::<String>()? else { break };
            map.insert(key, entries.next_value_seed(Shape(shape))?);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(yaml: &str) -> Vec<(String, String)> {
        let node = parse(yaml.as_bytes()).unwrap();
        let text = |node: &Node| match node {
            Node::Text(text) => text.clone(),
            other => other.kind().to_owned(),
        };
        node.leaves().into_iter().map(|(path, leaf)| (path, text(leaf))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn scalars_keep_the_text_they_were_written_with() {
        let yaml = "a: 1.10\nb: 0644\nc: yes\nd: 0x1F\ne: ~\nf: true\ng: 'x: y'\nh: 1_000\n1: |\n  two\n  lines\n";
        let expected = [
            ("1", "two\nlines\n"),
            ("a", "1.10"),
            ("b", "0644"),
            ("c", "yes"),
            ("d", "0x1F"),
            ("e", "nothing"),
            ("f", "true"),
            ("g", "x: y"),
            ("h", "1_000"),
        ];
        assert_eq!(leaves(yaml), pairs(&expected));
    }

    #[test]
    fn lists_groups_tags_and_aliases() {
        let yaml = "a: &x {b: 1.0}\nc: [*x, 2.0, !t 3.0]\nd: *x\n";
        let expected = [("a.b", "1.0"), ("c.0.b", "1.0"), ("c.1", "2.0"), ("c.2", "3.0"), ("d.b", "1.0")];
        assert_eq!(leaves(yaml), pairs(&expected));
    }

    #[test]
    fn there_is_one_document_however_empty() {
        for yaml in ["a: 1\n---\nb: 2", "---\n---\na: 1", "---\n# only a comment\n---\na: 1", "a: 1\n...\n---\nb: 2"] {
            assert!(matches!(parse(yaml.as_bytes()), Err(YamlError::Documents)), "{yaml}");
        }
        for yaml in ["---\na: 1\n...\n", "%YAML 1.2\n---\na: 1\n", "# a\n---\na: 1\n# b\n"] {
            assert_eq!(leaves(yaml), pairs(&[("a", "1")]), "{yaml}");
        }
    }

    #[test]
    fn nesting_is_bounded_before_it_takes_quadratic_time() {
        let nested = |depth: usize| format!("x: {}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(nested(YAML_NESTED_MAX).as_bytes()).is_ok());
        assert!(matches!(parse(nested(YAML_NESTED_MAX + 1).as_bytes()), Err(YamlError::TooDeep)));
        let maps = "x: ".to_owned() + &"{a: ".repeat(1 << 18);
        assert!(matches!(parse(maps.as_bytes()), Err(YamlError::TooDeep)), "a minute, were it left to the parser");
    }

    #[test]
    fn hostile_documents_are_errors() {
        let bomb: String = std::iter::once("a0: &a0 [x,x,x,x,x,x,x,x]\n".to_owned())
            .chain((1..20).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 8].join(","))))
            .collect();
        for yaml in [bomb.as_str(), &"[".repeat(10_000), "a: 1\na: 2", "a: 1\n---\nb: 2", "a: [", "*a", "a: \"\\q\""] {
            assert!(parse(yaml.as_bytes()).is_err(), "{}", &yaml[..yaml.len().min(30)]);
        }
        assert!(parse(b"\xff\xfe").is_err() || parse(b"\xff\xfe").is_ok_and(|node| node == Node::Null));
    }
}
