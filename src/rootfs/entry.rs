//! The entries of all layers, kept small: what the merge needs to know about each.

use std::collections::HashMap;

use super::paths::{PathError, PathId, Paths, Text};
use super::shown::shown;
use super::tar::{Member, MemberKind};
use crate::limits::{PATH_BYTES_MAX, TREE_XATTR_BYTES_MAX};

/// Names a file's data in the sink it was written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct DataRef(pub u32);

/// One entry of one layer, or a directory that had to be made up.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// As the archive spells it, links unresolved. For whiteouts: what they hide.
    pub path: PathId,
    pub meta: Meta,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// Permission, setuid, setgid and sticky bits.
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970, as far as squashfs can say it.
    pub mtime: u32,
    pub xattrs: XattrId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Directory,
    File {
        size: u64,
        data: FileData,
    },
    Symlink(Text),
    CharDevice {
        major: u32,
        minor: u32,
    },
    BlockDevice {
        major: u32,
        minor: u32,
    },
    Fifo,
    HardLink(PathId),
    /// `.wh.name`: hides `name` of the layers below.
    Whiteout,
    /// `.wh..wh..opq`: hides what the layers below have in the directory.
    Opaque,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileData {
    Empty,
    /// A layer above seemed to hide it.
    Skipped,
    Stored(DataRef),
}

/// A set of extended attributes in an [`XattrSets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct XattrId(u32);

impl XattrId {
    pub const NONE: Self = Self(0);

    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Name and value of the attributes of one file, sorted by name.
pub type XattrSet = Vec<(Vec<u8>, Vec<u8>)>;

/// Equal sets are kept once: an SELinux image has as many sets as labels, not as files.
#[derive(Debug)]
pub struct XattrSets {
    sets: Vec<XattrSet>,
    ids: HashMap<XattrSet, XattrId>,
    bytes: usize,
}

impl Default for XattrSets {
    fn default() -> Self {
        Self { sets: vec![Vec::new()], ids: HashMap::new(), bytes: 0 }
    }
}

impl XattrSets {
    pub fn get(&self, id: XattrId) -> &XattrSet {
        &self.sets[id.index()]
    }

    /// All sets; the position is [`XattrId::index`].
    pub fn all(&self) -> &[XattrSet] {
        &self.sets
    }

    pub fn keep(&mut self, mut set: XattrSet) -> Result<XattrId, EntryError> {
        if set.is_empty() {
            return Ok(XattrId::NONE);
        }
        set.sort();
        if let Some(id) = self.ids.get(&set) {
            return Ok(*id);
        }
        self.bytes += set.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        if self.bytes > TREE_XATTR_BYTES_MAX {
            return Err(EntryError::Xattrs);
        }
        let id = XattrId(u32::try_from(self.sets.len()).map_err(|_| EntryError::Xattrs)?);
        self.sets.push(set.clone());
        self.ids.insert(set, id);
        Ok(id)
    }
}

/// Why a member of an archive cannot be part of the tree.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("its link target {0:?}: {1}")]
    Target(String, PathError),
    #[error("a symbolic link without a target")]
    EmptyTarget,
    #[error("a whiteout that does not name a file")]
    Whiteout,
    #[error("the root of the tree can only be a directory")]
    Root,
    #[error("the extended attributes of the image take more than {TREE_XATTR_BYTES_MAX} bytes together")]
    Xattrs,
}

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

impl Entry {
    /// Keeps what matters of a member. A file's data counts as skipped until the caller has stored it.
    pub fn keep(member: Member, paths: &mut Paths, xattrs: &mut XattrSets) -> Result<Self, EntryError> {
        let name = last_name(&member.path);
        let whiteout = name.starts_with(WHITEOUT).then(|| name.to_vec());
        let path = paths.lexical(&member.path)?;
        let meta = Meta {
            mode: member.mode,
            uid: member.uid,
            gid: member.gid,
            // Before 1970 and past 2106 squashfs has no words for it.
            mtime: u32::try_from(member.mtime.max(0)).unwrap_or(u32::MAX),
            xattrs: if whiteout.is_none() { xattrs.keep(member.xattrs)? } else { XattrId::NONE },
        };
        if let Some(name) = whiteout {
            let directory = paths.parent(path);
            if name == OPAQUE {
                return Ok(Self { path: directory, meta, kind: Kind::Opaque });
            }
            return match &name[WHITEOUT.len()..] {
                b"" | b"." | b".." => Err(EntryError::Whiteout),
                hidden => Ok(Self { path: paths.child(directory, hidden)?, meta, kind: Kind::Whiteout }),
            };
        }
        let kind = Kind::keep(member.kind, paths)?;
        if path == PathId::ROOT && kind != Kind::Directory {
            return Err(EntryError::Root);
        }
        Ok(Self { path, meta, kind })
    }
}

impl Kind {
    fn keep(kind: MemberKind, paths: &mut Paths) -> Result<Self, EntryError> {
        let refuse = |target: &[u8], error| EntryError::Target(shown(&String::from_utf8_lossy(target)), error);
        Ok(match kind {
            MemberKind::File { size: 0 } => Self::File { size: 0, data: FileData::Empty },
            MemberKind::File { size } => Self::File { size, data: FileData::Skipped },
            MemberKind::Directory => Self::Directory,
            MemberKind::Symlink(target) if target.is_empty() => return Err(EntryError::EmptyTarget),
            MemberKind::Symlink(target) if target.len() >= PATH_BYTES_MAX => {
                return Err(EntryError::Path(PathError::TooLong));
            }
            MemberKind::Symlink(target) => Self::Symlink(paths.keep(&target)?),
            MemberKind::HardLink(target) => {
                Self::HardLink(paths.lexical(&target).map_err(|error| refuse(&target, error))?)
            }
            MemberKind::CharDevice { major, minor } => Self::CharDevice { major, minor },
            MemberKind::BlockDevice { major, minor } => Self::BlockDevice { major, minor },
            MemberKind::Fifo => Self::Fifo,
        })
    }
}

/// The last component as it is spelt; `.` and `..` count, so that `.wh.x/..` is no whiteout.
fn last_name(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&b| b != b'/').map_or(0, |last| last + 1);
    let start = path[..end].iter().rposition(|&b| b == b'/').map_or(0, |slash| slash + 1);
    &path[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, kind: MemberKind) -> Member {
        let path = path.as_bytes().to_vec();
        Member { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: -5, xattrs: Vec::new() }
    }

    fn keep(path: &str, kind: MemberKind) -> Result<(String, Kind), EntryError> {
        let mut paths = Paths::default();
        let entry = Entry::keep(member(path, kind), &mut paths, &mut XattrSets::default())?;
        Ok((paths.display(entry.path), entry.kind))
    }

    #[test]
    fn whiteouts_name_what_they_hide() {
        let file = || MemberKind::File { size: 0 };
        assert_eq!(keep("etc/.wh.motd", file()), Ok(("etc/motd".to_owned(), Kind::Whiteout)));
        assert_eq!(keep("etc/.wh..wh..opq", file()), Ok(("etc".to_owned(), Kind::Opaque)));
        assert_eq!(keep(".wh..wh..opq", file()), Ok(("/".to_owned(), Kind::Opaque)));
        for path in ["etc/.wh.", "etc/.wh..", ".wh..", ".wh...", "/.wh.//"] {
            assert_eq!(keep(path, file()), Err(EntryError::Whiteout), "{path}");
        }
    }

    #[test]
    fn what_cannot_be_part_of_a_tree_is_refused() {
        assert_eq!(keep("./", MemberKind::Fifo), Err(EntryError::Root));
        assert_eq!(keep("a/../../b", MemberKind::Fifo), Err(EntryError::Path(PathError::Escapes)));
        assert_eq!(keep("l", MemberKind::Symlink(Vec::new())), Err(EntryError::EmptyTarget));
        let target = MemberKind::HardLink(b"../../etc/shadow".to_vec());
        assert_eq!(keep("l", target), Err(EntryError::Target("../../etc/shadow".to_owned(), PathError::Escapes)));
        let endless = MemberKind::Symlink(vec![b'x'; PATH_BYTES_MAX]);
        assert_eq!(keep("l", endless), Err(EntryError::Path(PathError::TooLong)));
    }

    #[test]
    fn equal_attribute_sets_are_kept_once_and_all_of_them_are_bounded() {
        let set = |name: &str, value: usize| vec![(name.as_bytes().to_vec(), vec![1; value])];
        let mut sets = XattrSets::default();
        let one = sets.keep(set("user.a", 10)).unwrap();
        assert_eq!(sets.keep(set("user.a", 10)), Ok(one));
        assert_ne!(sets.keep(set("user.a", 11)), Ok(one));
        assert_eq!(sets.get(one), &set("user.a", 10));
        assert_eq!(sets.keep(Vec::new()), Ok(XattrId::NONE));
        assert_eq!(sets.keep(set("user.b", TREE_XATTR_BYTES_MAX)), Err(EntryError::Xattrs));
    }
}
