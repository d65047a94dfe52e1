//! The members of an archive by name: duplicates, links, and names that lead elsewhere.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use super::Error;
use crate::limits;
use crate::rootfs::shown;
use crate::rootfs::tar::{Archive, Member, MemberKind};
use crate::storage::Extent;

/// The lists that say what else there is: two of one name are two answers to one question.
const LISTS: [&str; 3] = ["index.json", "manifest.json", "oci-layout"];

/// First components of a root file system's members. No tool makes image archives with such.
const ROOT_DIRECTORIES: [&str; 12] =
    ["bin", "boot", "dev", "etc", "home", "lib", "lib64", "proc", "root", "sbin", "usr", "var"];

/// What each name stands for; `T` tells where a file's data is. Of two members with one name the last counts, as for tar itself.
#[derive(Debug)]
pub(super) struct Members<T> {
    entries: HashMap<String, Entry<T>>,
    count: usize,
}

#[derive(Debug)]
enum Entry<T> {
    File(T),
    /// Another member's name.
    Link(String),
    Other,
}

/// What is to be done with a member.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is a file of this name and size; its data is to be taken, and told with [`Members::add`].
    File { name: String, size: u64 },
    /// It is noted, or means nothing.
    Done,
}

impl<T> Default for Members<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), count: 0 }
    }
}

impl<T> Members<T> {
    /// Notes the next member of an archive.
    pub fn take(&mut self, member: &Member, is_sparse: bool) -> Result<Taken, Error> {
        self.count += 1;
        if self.count > limits::ARCHIVE_MEMBERS_MAX {
            return Err(Error::Limit { what: "members in the archive", limit: limits::ARCHIVE_MEMBERS_MAX as u64 });
        }
        let printable = || shown(&String::from_utf8_lossy(&member.path));
        // Names of image archives are ASCII; others mean nothing here.
        let Ok(path) = std::str::from_utf8(&member.path) else { return Ok(Taken::Done) };
        let name = resolve("", path).ok_or_else(|| Error::Outside(printable()))?;
        if name.is_empty() {
            return Ok(Taken::Done);
        }
        if is_root_directory(&name) {
            return Err(Error::NotAnImage(format!(
                "with {:?} it looks like a root file system; unpack it as root, and name the directory with dir:PATH",
                shown(&name)
            )));
        }
        if LISTS.contains(&name.as_str()) && self.entries.contains_key(&name) {
            return Err(Error::Twice(name));
        }
        let entry = match &member.kind {
            MemberKind::File { .. } if is_sparse => return Err(Error::Sparse(printable())),
            MemberKind::File { size } => return bounded(name, *size),
            MemberKind::Directory => return Ok(Taken::Done),
            MemberKind::HardLink(target) => {
                Entry::Link(target_of("", target).ok_or_else(|| Error::Outside(printable()))?)
            }
            MemberKind::Symlink(target) => {
                let parent = name.rsplit_once('/').map_or("", |(parent, _)| parent);
                Entry::Link(target_of(parent, target).ok_or_else(|| Error::Outside(printable()))?)
            }
            _ => Entry::Other,
        };
        self.entries.insert(name, entry);
        Ok(Taken::Done)
    }

    /// Notes where the data of a file is.
    pub fn add(&mut self, name: String, place: T) {
        self.entries.insert(name, Entry::File(place));
    }

    /// The file of that name, links followed; `None` when there is none.
    pub fn find(&self, name: &str) -> Result<Option<&T>, Error> {
        let mut name = inside(name)?;
        for _ in 0..limits::ARCHIVE_LINKS_FOLLOWED_MAX {
            match self.entries.get(&name) {
                None => return Ok(None),
                Some(Entry::File(place)) => return Ok(Some(place)),
                Some(Entry::Link(target)) => name.clone_from(target),
                Some(Entry::Other) => return Err(Error::NotAFile(shown(&name))),
            }
        }
        Err(Error::Limit { what: "links followed to one file", limit: limits::ARCHIVE_LINKS_FOLLOWED_MAX as u64 })
    }
}

/// A list is small, and a layer is bounded: what claims more is not even begun.
fn bounded(name: String, size: u64) -> Result<Taken, Error> {
    if LISTS.contains(&name.as_str()) && size > limits::MANIFEST_BYTES_MAX {
        return Err(Error::TooLarge { path: name, size });
    }
    if size > limits::LAYER_BYTES_MAX {
        return Err(Error::Limit { what: "bytes in one member", limit: limits::LAYER_BYTES_MAX });
    }
    Ok(Taken::File { name, size })
}

/// Reads the headers of a plain archive, and nothing else of it.
pub(super) fn index(file: &Arc<File>, length: u64) -> Result<Members<Extent>, Error> {
    let mut archive = Archive::new(&**file);
    let mut members = Members::default();
    while let Some(member) = archive.next_member()? {
        if let Taken::File { name, size } = members.take(&member, archive.is_sparse())? {
            let offset = archive.position();
            if offset.checked_add(size).is_none_or(|end| end > length) {
                return Err(Error::Truncated { member: shown(&name) });
            }
            members.add(name, Extent { offset, length: size });
        }
        archive.seek_past_data()?;
        if archive.position() > length {
            return Err(Error::CutOff { at: length });
        }
    }
    Ok(members)
}

/// The name as one below the archive's root.
pub(super) fn inside(name: &str) -> Result<String, Error> {
    resolve("", name).ok_or_else(|| Error::Outside(shown(name)))
}

fn target_of(parent: &str, target: &[u8]) -> Option<String> {
    resolve(parent, std::str::from_utf8(target).ok()?)
}

/// `path`, as seen from the directory `parent`, without `.` and `..`; `None` when that is outside of the archive.
fn resolve(parent: &str, path: &str) -> Option<String> {
    if path.starts_with('/') || path.len() > limits::PATH_BYTES_MAX {
        return None;
    }
    let mut parts: Vec<&str> = parent.split('/').filter(|part| !part.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

fn is_root_directory(name: &str) -> bool {
    ROOT_DIRECTORIES.contains(&name.split('/').next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(path: &str, kind: MemberKind) -> Member {
        let path = path.as_bytes().to_vec();
        Member { path, kind, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() }
    }

    fn file(path: &str) -> Member {
        member(path, MemberKind::File { size: 1 })
    }

    /// Members as an archive has them; each file is known by its number.
    fn members(list: &[Member]) -> Result<Members<usize>, Error> {
        let mut members = Members::default();
        for (number, member) in list.iter().enumerate() {
            if let Taken::File { name, .. } = members.take(member, false)? {
                members.add(name, number);
            }
        }
        Ok(members)
    }

    #[test]
    fn names_are_what_they_mean() {
        let list = [file("./a//b/./c"), file("x"), member("x/", MemberKind::Directory), file("x")];
        let members = members(&list).unwrap();
        assert_eq!(members.find("a/b/c").unwrap(), Some(&0));
        assert_eq!(members.find("./a/z/../b/c").unwrap(), Some(&0));
        assert_eq!(members.find("x").unwrap(), Some(&3), "the last one counts");
        assert_eq!(members.find("a/b").unwrap(), None);
        assert!(matches!(members.find("../x"), Err(Error::Outside(_))));
        assert!(matches!(members.find("/x"), Err(Error::Outside(_))));
    }

    #[test]
    fn links_are_followed_inside_only() {
        let symlink = |path, target: &str| member(path, MemberKind::Symlink(target.as_bytes().to_vec()));
        let hard_link = |path, target: &str| member(path, MemberKind::HardLink(target.as_bytes().to_vec()));
        let list = [
            symlink("a/layer.tar", "../b/layer.tar"),
            file("b/layer.tar"),
            hard_link("c/layer.tar", "a/layer.tar"),
            symlink("d", "e"),
            symlink("e", "d"),
            symlink("f", "nowhere"),
            member("g", MemberKind::Fifo),
        ];
        let found = members(&list).unwrap();
        for name in ["a/layer.tar", "b/layer.tar", "c/layer.tar"] {
            assert_eq!(found.find(name).unwrap(), Some(&1), "{name}");
        }
        assert!(matches!(found.find("d"), Err(Error::Limit { .. })));
        assert_eq!(found.find("f").unwrap(), None);
        assert!(matches!(found.find("g"), Err(Error::NotAFile(_))));
        for target in ["/etc/passwd", "../../x", "b/../../../x"] {
            assert!(matches!(members(&[symlink("a/b", target)]), Err(Error::Outside(_))), "{target}");
        }
        assert!(matches!(members(&[hard_link("a/b", "../b")]), Err(Error::Outside(_))));
    }

    #[test]
    fn what_is_refused_at_once() {
        assert!(matches!(members(&[file("/x")]), Err(Error::Outside(_))));
        assert!(matches!(members(&[file("a/../../x")]), Err(Error::Outside(_))));
        assert!(matches!(members(&[file("index.json"), file("./index.json")]), Err(Error::Twice(_))));
        assert!(matches!(members(&[member("./etc/", MemberKind::Directory)]), Err(Error::NotAnImage(_))));
        assert!(matches!(Members::<()>::default().take(&file("x"), true), Err(Error::Sparse(_))));
        let size = limits::MANIFEST_BYTES_MAX + 1;
        assert!(matches!(members(&[member("manifest.json", MemberKind::File { size })]), Err(Error::TooLarge { .. })));
        let size = limits::LAYER_BYTES_MAX + 1;
        assert!(matches!(members(&[member("x", MemberKind::File { size })]), Err(Error::Limit { .. })));
        let many = vec![file("x"); limits::ARCHIVE_MEMBERS_MAX + 1];
        assert!(members(&many[1..]).is_ok());
        assert!(matches!(members(&many), Err(Error::Limit { what: "members in the archive", .. })));
    }
}
