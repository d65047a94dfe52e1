//! The members of an archive by name: duplicates, links, and names that lead elsewhere.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use super::Error;
use crate::limits;
use crate::rootfs::shown;
use crate::rootfs::tar::{Archive, Member, MemberKind, TarError};
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
            MemberKind::File { size } => return Ok(Taken::File { name, size: *size }),
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
            return Err(Error::Tar(TarError::Truncated { at: length }));
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
