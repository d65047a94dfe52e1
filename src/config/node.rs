//! A tree of texts: what a configuration file, `values:` and `--set` have in common.
//!
//! Scalars stay the text that was written: `flavor_release: 22.10` is not the number 22.1.

use std::collections::BTreeMap;
use std::fmt;

/// A value as it was written.
#[derive(Clone, PartialEq, Eq)]
pub enum Node {
    /// `key:` with nothing behind it, `~`, `null`.
    Null,
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Node>),
}

// By hand: template data are passwords, and must not end up in a log by accident.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Node({})", self.kind())
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::Map(BTreeMap::new())
    }
}

impl Node {
    /// What it is, for messages.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "a value",
            Self::List(_) => "a list",
            Self::Map(_) => "a group of keys",
        }
    }

    /// What stands under `path`; a number picks from a list, counted from 0.
    #[must_use]
    pub fn lookup<'a>(&self, mut path: impl Iterator<Item = &'a str>) -> Option<&Self> {
        path.try_fold(self, |node, part| match node {
            Self::Map(map) => map.get(part),
            Self::List(list) => list.get(part.parse::<usize>().ok()?),
            Self::Null | Self::Text(_) => None,
        })
    }

    /// Puts a text under `path`, over whatever a lower layer has there or on the way.
    pub fn insert<'a>(&mut self, mut path: impl Iterator<Item = &'a str>, text: &str) {
        let Some(part) = path.next() else {
            *self = Self::Text(text.to_owned());
            return;
        };
        if !matches!(self, Self::Map(_)) {
            *self = Self::default();
        }
        if let Self::Map(map) = self {
            map.entry(part.to_owned()).or_default().insert(path, text);
        }
    }

    /// Puts a stronger layer's tree over this one: its groups are joined with ours, all else takes the place of what is there.
    pub fn merge(&mut self, over: Self) {
        match (self, over) {
            (Self::Map(ours), Self::Map(theirs)) => {
                for (part, node) in theirs {
                    ours.entry(part).or_insert(Self::Null).merge(node);
                }
            }
            (ours, theirs) => *ours = theirs,
        }
    }

    /// Every leaf and its dotted path, in order.
    #[must_use]
    pub fn leaves(&self) -> Vec<(String, &Self)> {
        let mut leaves = Vec::new();
        self.collect_leaves("", &mut leaves);
        leaves
    }

    fn collect_leaves<'a>(&'a self, path: &str, leaves: &mut Vec<(String, &'a Self)>) {
        let below = |part: &str| if path.is_empty() { part.to_owned() } else { format!("{path}.{part}") };
        match self {
            Self::Map(map) => map.iter().for_each(|(part, node)| node.collect_leaves(&below(part), leaves)),
            Self::List(list) => {
                list.iter().enumerate().for_each(|(n, node)| node.collect_leaves(&below(&n.to_string()), leaves));
            }
            Self::Null | Self::Text(_) => leaves.push((path.to_owned(), self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_two_layers_are_joined() {
        let tree = |keys: &[(&str, &str)]| {
            let mut tree = Node::default();
            keys.iter().for_each(|(key, value)| tree.insert(key.split('.'), value));
            tree
        };
        let mut under = tree(&[("a.b", "1"), ("a.c", "2"), ("d", "3")]);
        under.merge(tree(&[("a.c", "4"), ("d.e", "5"), ("f.g", "6")]));
        assert_eq!(under, tree(&[("a.b", "1"), ("a.c", "4"), ("d.e", "5"), ("f.g", "6")]));
    }

    #[test]
    fn later_values_replace_what_is_in_their_way() {
        let mut tree = Node::default();
        tree.insert("a".split('.'), "1");
        tree.insert("a.b.c".split('.'), "2");
        tree.insert("a.b.d".split('.'), "3");
        let shown: Vec<String> = tree.leaves().into_iter().map(|(path, _)| path).collect();
        assert_eq!(shown, ["a.b.c", "a.b.d"]);
        assert_eq!(tree.lookup("a.b.d".split('.')), Some(&Node::Text("3".into())));
        assert_eq!(tree.lookup("a.b.d.e".split('.')), None);
        tree.insert("a".split('.'), "4");
        assert_eq!(tree.lookup("a".split('.')), Some(&Node::Text("4".into())));
    }
}
