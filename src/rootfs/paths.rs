//! Every path of an image, once: a tree of names in two flat tables.

use std::hash::{BuildHasher, RandomState};

use super::shown::shown;
use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, TREE_ENTRIES_MAX, TREE_NAME_BYTES_MAX};

/// A path of the image; small numbers, so that tables can be indexed by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(u32);

impl PathId {
    pub const ROOT: Self = Self(0);

    pub const fn index(self) -> usize {
        self.0 as usize
    }

    pub(super) const fn from_raw(id: u32) -> Self {
        Self(id)
    }

    pub(super) const fn raw(self) -> u32 {
        self.0
    }
}

/// A stretch of bytes kept in a [`Paths`]: names and link targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    start: u32,
    length: u16,
}

/// Why a path is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path leaves the root directory with ..")]
    Escapes,
    #[error("the path is longer than {PATH_BYTES_MAX} bytes, or one name in it longer than {NAME_BYTES_MAX}")]
    TooLong,
    #[error("the image has more than {TREE_ENTRIES_MAX} different paths")]
    TooMany,
    #[error("the names and link targets of the image are longer than {TREE_NAME_BYTES_MAX} bytes together")]
    TooManyBytes,
}

/// The table of paths. It only grows; whether something exists at a path is somebody else's to know.
pub struct Paths {
    bytes: Vec<u8>,
    nodes: Vec<Node>,
    /// Open addressing over `nodes` by (parent, name); at most half full. 0 is free (the root is never looked up).
    buckets: Vec<u32>,
    /// Keyed, so that an image cannot choose names that collide. Order never depends on it.
    hasher: RandomState,
}

struct Node {
    parent: PathId,
    name: Text,
}

impl std::fmt::Debug for Paths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Paths").field("len", &self.nodes.len()).finish_non_exhaustive()
    }
}

impl Default for Paths {
    fn default() -> Self {
        let root = Node { parent: PathId::ROOT, name: Text { start: 0, length: 0 } };
        Self { bytes: Vec::new(), nodes: vec![root], buckets: vec![0; 64], hasher: RandomState::new() }
    }
}

impl Paths {
    /// One more than the largest [`PathId::index`].
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn parent(&self, path: PathId) -> PathId {
        self.nodes[path.index()].parent
    }

    /// The last component.
    pub fn name(&self, path: PathId) -> &[u8] {
        self.text(self.name_text(path))
    }

    pub fn name_text(&self, path: PathId) -> Text {
        self.nodes[path.index()].name
    }

    pub fn text(&self, text: Text) -> &[u8] {
        &self.bytes[text.start as usize..][..usize::from(text.length)]
    }

    /// Keeps a link target.
    pub fn keep(&mut self, bytes: &[u8]) -> Result<Text, PathError> {
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if self.bytes.len() + bytes.len() > TREE_NAME_BYTES_MAX {
            return Err(PathError::TooManyBytes);
        }
        let start = u32::try_from(self.bytes.len()).map_err(|_| PathError::TooManyBytes)?;
        let length = u16::try_from(bytes.len()).map_err(|_| PathError::TooLong)?;
        self.bytes.extend_from_slice(bytes);
        Ok(Text { start, length })
    }

    /// The path `name` in the directory `parent`.
    pub fn child(&mut self, parent: PathId, name: &[u8]) -> Result<PathId, PathError> {
        match self.probe(parent, name) {
            Ok(path) => Ok(path),
            Err(bucket) => {
                let name = self.keep(name)?;
                self.insert(bucket, parent, name)
            }
        }
    }

    /// [`Paths::child`] for a name that is kept already: a component of a link target.
    pub fn child_text(&mut self, parent: PathId, name: Text) -> Result<PathId, PathError> {
        self.probe(parent, self.text(name)).or_else(|bucket| self.insert(bucket, parent, name))
    }

    /// The components of a kept path, as [`components`].
    pub fn text_components(&self, path: Text) -> impl Iterator<Item = Text> {
        let bytes = self.text(path);
        let base = bytes.as_ptr().addr();
        components(bytes).filter_map(move |name| {
            let offset = u32::try_from(name.as_ptr().addr() - base).ok()?;
            Some(Text { start: path.start + offset, length: u16::try_from(name.len()).ok()? })
        })
    }

    /// Interns a path as an archive spells it: a leading `/` means the root, `.` nothing, `..` takes the name before it back.
    pub fn lexical(&mut self, path: &[u8]) -> Result<PathId, PathError> {
        if path.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        let mut at = PathId::ROOT;
        for name in components(path) {
            at = match name {
                b".." if at == PathId::ROOT => return Err(PathError::Escapes),
                b".." => self.parent(at),
                name => self.child(at, name)?,
            };
        }
        Ok(at)
    }

    /// The path from the root, without a leading `/`; for messages, see [`shown`].
    pub fn display(&self, path: PathId) -> String {
        let mut names = Vec::new();
        let mut at = path;
        while at != PathId::ROOT {
            names.push(String::from_utf8_lossy(self.name(at)));
            at = self.parent(at);
        }
        names.reverse();
        if names.is_empty() { "/".to_owned() } else { shown(&names.join("/")) }
    }

    /// The path, or the free bucket where it belongs.
    fn probe(&self, parent: PathId, name: &[u8]) -> Result<PathId, usize> {
        let mask = self.buckets.len() - 1;
        #[allow(clippy::cast_possible_truncation)] // any bits of the hash will do
        let mut bucket = self.hasher.hash_one((parent.0, name)) as usize & mask;
        loop {
            let id = self.buckets[bucket];
            if id == 0 {
                return Err(bucket);
            }
            let node = &self.nodes[id as usize];
            if node.parent == parent && self.text(node.name) == name {
                return Ok(PathId(id));
            }
            bucket = (bucket + 1) & mask;
        }
    }

    fn insert(&mut self, bucket: usize, parent: PathId, name: Text) -> Result<PathId, PathError> {
        if usize::from(name.length) > NAME_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if self.nodes.len() >= TREE_ENTRIES_MAX {
            return Err(PathError::TooMany);
        }
        let id = u32::try_from(self.nodes.len()).map_err(|_| PathError::TooMany)?;
        self.nodes.push(Node { parent, name });
        self.buckets[bucket] = id;
        if self.nodes.len() * 2 > self.buckets.len() {
            self.grow();
        }
        Ok(PathId(id))
    }

    fn grow(&mut self) {
        self.buckets = vec![0; self.buckets.len() * 2];
        for (id, node) in self.nodes.iter().enumerate().skip(1) {
            if let (Err(bucket), Ok(id)) = (self.probe(node.parent, self.text(node.name)), u32::try_from(id)) {
                self.buckets[bucket] = id;
            }
        }
    }
}

/// The names of a path; empty ones and `.` say nothing.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_the_same_however_it_is_spelt() {
        let mut paths = Paths::default();
        let path = paths.lexical(b"usr/lib/x").unwrap();
        for spelling in [&b"/usr/lib/x"[..], b"./usr//lib/./x/", b"usr/bin/../lib/x"] {
            assert_eq!(paths.lexical(spelling), Ok(path), "{}", String::from_utf8_lossy(spelling));
        }
        assert_eq!(paths.lexical(b"./"), Ok(PathId::ROOT));
        assert_eq!(paths.display(path), "usr/lib/x");
        assert_eq!(paths.name(path), b"x");
        assert_eq!(paths.lexical(b"usr/lib"), Ok(paths.parent(path)));
    }

    #[test]
    fn components_of_a_kept_target_are_found_without_a_copy() {
        let mut paths = Paths::default();
        let target = paths.keep(b"/usr/./lib//x").unwrap();
        let names: Vec<Text> = paths.text_components(target).collect();
        let kept = paths.bytes.len();
        let path = names.iter().fold(PathId::ROOT, |at, &name| paths.child_text(at, name).unwrap());
        assert_eq!(paths.display(path), "usr/lib/x");
        assert_eq!(paths.bytes.len(), kept);
    }

    #[test]
    fn names_in_different_directories_are_different() {
        let mut paths = Paths::default();
        let ids: std::collections::HashSet<_> =
            (0..1000).map(|n| paths.lexical(format!("{}/{}", n % 30, n / 30).as_bytes()).unwrap()).collect();
        assert_eq!(ids.len(), 1000);
    }

    #[test]
    fn what_leaves_the_root_or_is_too_long_is_refused() {
        let mut paths = Paths::default();
        assert_eq!(paths.lexical(b"../x"), Err(PathError::Escapes));
        assert_eq!(paths.lexical(b"a/../../x"), Err(PathError::Escapes));
        assert_eq!(paths.lexical(&[b'a'; NAME_BYTES_MAX + 1]), Err(PathError::TooLong));
        assert_eq!(paths.lexical(&b"a/".repeat(PATH_BYTES_MAX / 2 + 1)), Err(PathError::TooLong));
        assert!(paths.lexical(&[b'a'; NAME_BYTES_MAX]).is_ok());
    }

    #[test]
    fn paths_and_their_bytes_are_bounded() {
        let mut paths = Paths::default();
        let met =
            (0..u32::MAX).map(|n| paths.lexical(format!("{n}{}", "/d".repeat(2000)).as_bytes())).find_map(Result::err);
        assert_eq!(met, Some(PathError::TooMany));
        assert_eq!(paths.len(), TREE_ENTRIES_MAX);

        let mut paths = Paths::default();
        let met = (0..u32::MAX).map(|_| paths.keep(&[b'x'; PATH_BYTES_MAX])).find_map(Result::err);
        assert_eq!(met, Some(PathError::TooManyBytes));
    }
}
