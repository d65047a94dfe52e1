//! Applies the layers' entries bottom-up, as containerd applies them to a directory.
//!
//! * Links in the directory part of a path are followed inside the root; the last component never is.
//! * Whiteouts and opaque marks act on lower layers only, wherever they stand in their layer (OCI image spec, "Whiteouts"; umoci does so,
//!   containerd's plain whiteout also hides what stands before it in its own layer).
//! * A directory over a directory takes the new metadata, everything else replaces what is there.
//! * A hard link is another name of what the target's path holds at that moment; its own header's owner and mode say nothing (as in umoci).
//! * Missing parents are made: root's, mode 0755, with the time of the entry that needs them.

use super::entry::{Entry, Kind, Meta, XattrId};
use super::paths::{PathError, PathId, Paths};
use crate::limits::{LINK_STEPS_MAX, SYMLINKS_FOLLOWED_MAX, TREE_ENTRIES_MAX};

/// Why an entry cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Path(#[from] PathError),
    #[error("{0} on its way is not a directory")]
    NotADirectory(String),
    #[error("more than {SYMLINKS_FOLLOWED_MAX} symbolic links on its way: they form a loop")]
    Loop,
    #[error("resolving the image's symbolic links takes more than {LINK_STEPS_MAX} steps")]
    Steps,
    #[error("a hard link to {0}, which does not exist")]
    NoTarget(String),
    #[error("a hard link to {0}, which is a directory")]
    DirectoryTarget(String),
}

/// An entry that is alive at a path, as an index into [`Merge::entries`].
pub(super) type EntryIndex = u32;

const NOTHING: u32 = u32::MAX;

/// What is at each path right now. Live siblings are linked, so that removing and listing cost what is there.
#[derive(Debug, Clone, Copy)]
struct Place {
    entry: EntryIndex,
    first_child: u32,
    next: u32,
    previous: u32,
    /// The last layer (+ 1) that put something at this path or below it.
    touched: u16,
    /// The last layer (+ 1) before which everything below has been hidden.
    cleared: u16,
}

impl Place {
    const EMPTY: Self =
        Self { entry: NOTHING, first_child: NOTHING, next: NOTHING, previous: NOTHING, touched: 0, cleared: 0 };
}

/// The tree while layers are being applied.
#[derive(Debug)]
pub(super) struct Merge {
    pub(super) paths: Paths,
    pub(super) entries: Vec<Entry>,
    places: Vec<Place>,
    steps: u64,
}

impl Merge {
    pub(super) fn new(paths: Paths, entries: Vec<Entry>) -> Result<Self, ApplyError> {
        let places = vec![Place::EMPTY; paths.len()];
        let mut merge = Self { paths, entries, places, steps: 0 };
        merge.places[PathId::ROOT.index()].entry = merge.make_up_directory(PathId::ROOT, 0o755, 0)?;
        Ok(merge)
    }

    /// Applies one entry of `layer`; entries come in the order of their layer's archive.
    pub(super) fn apply(&mut self, index: EntryIndex, layer: u16) -> Result<(), ApplyError> {
        let entry = self.entries[index as usize];
        match entry.kind {
            Kind::Opaque => {
                let directory = self.resolve(entry.path, true)?;
                self.clear_lower(directory, layer);
                Ok(())
            }
            Kind::Whiteout => {
                let path = self.resolve(entry.path, false)?;
                if self.place(path).touched == layer + 1 {
                    self.clear_lower(path, layer);
                } else {
                    self.remove(path);
                }
                Ok(())
            }
            _ => self.put(index, entry, layer),
        }
    }

    /// Makes a directory (and its parents) unless something is there.
    pub(super) fn ensure_directory(&mut self, path: &[u8], mode: u16, mtime: u32) -> Result<(), ApplyError> {
        let path = self.paths.lexical(path)?;
        let path = self.resolve(path, true)?;
        if self.at(path).is_some() {
            return Ok(());
        }
        self.ensure_directories(self.paths.parent(path), mtime)?;
        let index = self.make_up_directory(path, mode, mtime)?;
        self.place_mut(path).entry = index;
        self.link(path);
        Ok(())
    }

    /// The live names in a directory, in no particular order.
    pub(super) fn children(&self, directory: PathId) -> impl Iterator<Item = (PathId, EntryIndex)> {
        let mut next = self.place(directory).first_child;
        std::iter::from_fn(move || {
            let place = self.places.get(next as usize)?;
            let child = (PathId::from_raw(next), place.entry);
            next = place.next;
            Some(child)
        })
    }

    pub(super) fn at(&self, path: PathId) -> Option<EntryIndex> {
        let entry = self.place(path).entry;
        (entry != NOTHING).then_some(entry)
    }

    fn put(&mut self, index: EntryIndex, entry: Entry, layer: u16) -> Result<(), ApplyError> {
        let path = self.resolve(entry.path, false)?;
        if path == PathId::ROOT {
            self.place_mut(path).entry = index; // the root is always there, and a directory
            return Ok(());
        }
        self.ensure_directories(self.paths.parent(path), entry.meta.mtime)?;
        let stays = entry.kind == Kind::Directory && self.is_directory(path);
        if !stays {
            self.remove(path);
        }
        let alive = match entry.kind {
            Kind::HardLink(target) => self.link_target(target)?,
            _ => index,
        };
        self.place_mut(path).entry = alive;
        if !stays {
            self.link(path);
        }
        self.touch(path, layer);
        Ok(())
    }

    fn link_target(&mut self, target: PathId) -> Result<EntryIndex, ApplyError> {
        let path = self.resolve(target, false)?;
        let Some(entry) = self.at(path) else { return Err(ApplyError::NoTarget(self.paths.display(target))) };
        match self.entries[entry as usize].kind {
            Kind::Directory => Err(ApplyError::DirectoryTarget(self.paths.display(target))),
            _ => Ok(entry),
        }
    }

    /// Follows the links on the way to a path (and the last one if asked) inside the root. What does not exist is taken as it is spelt.
    fn resolve(&mut self, path: PathId, follow_last: bool) -> Result<PathId, ApplyError> {
        // Names still to be walked, the next one last.
        let mut names = Vec::new();
        let mut at = path;
        while at != PathId::ROOT {
            names.push(self.paths.name_text(at));
            at = self.paths.parent(at);
        }
        let mut links = 0;
        while let Some(name) = names.pop() {
            self.steps += u64::from(links > 0);
            if self.steps > LINK_STEPS_MAX {
                return Err(ApplyError::Steps);
            }
            if self.paths.text(name) == b".." {
                at = self.paths.parent(at);
                continue;
            }
            let child = self.paths.child_text(at, name)?;
            let target = match self.at(child).map(|entry| self.entries[entry as usize].kind) {
                Some(Kind::Symlink(target)) if follow_last || !names.is_empty() => target,
                _ => {
                    at = child;
                    continue;
                }
            };
            links += 1;
            if links > SYMLINKS_FOLLOWED_MAX {
                return Err(ApplyError::Loop);
            }
            if self.paths.text(target).starts_with(b"/") {
                at = PathId::ROOT;
            }
            let parts: Vec<_> = self.paths.text_components(target).collect();
            names.extend(parts.into_iter().rev());
        }
        Ok(at)
    }

    /// Makes the missing directories down to `path`.
    fn ensure_directories(&mut self, path: PathId, mtime: u32) -> Result<(), ApplyError> {
        let mut missing = Vec::new();
        let mut at = path;
        while self.at(at).is_none() {
            missing.push(at);
            at = self.paths.parent(at);
        }
        if !self.is_directory(at) {
            return Err(ApplyError::NotADirectory(self.paths.display(at)));
        }
        for path in missing.into_iter().rev() {
            let index = self.make_up_directory(path, 0o755, mtime)?;
            self.place_mut(path).entry = index;
            self.link(path);
        }
        Ok(())
    }

    fn make_up_directory(&mut self, path: PathId, mode: u16, mtime: u32) -> Result<EntryIndex, ApplyError> {
        // One entry can need many directories, and a whiteout can take them away for the next one.
        if self.entries.len() >= 2 * TREE_ENTRIES_MAX {
            return Err(ApplyError::Path(PathError::TooMany));
        }
        let index = u32::try_from(self.entries.len()).map_err(|_| PathError::TooMany)?;
        let meta = Meta { mode, uid: 0, gid: 0, mtime, xattrs: XattrId::NONE };
        self.entries.push(Entry { path, meta, kind: Kind::Directory });
        Ok(index)
    }

    /// Marks a path and what is above it as this layer's.
    fn touch(&mut self, mut path: PathId, layer: u16) {
        while self.place(path).touched != layer + 1 {
            self.place_mut(path).touched = layer + 1;
            path = self.paths.parent(path);
        }
    }

    /// Removes what lower layers have below a directory. What it keeps was put there by this layer, so a second time is for nothing.
    fn clear_lower(&mut self, directory: PathId, layer: u16) {
        let mut directories = vec![directory];
        while let Some(directory) = directories.pop() {
            if self.place(directory).cleared == layer + 1 {
                continue;
            }
            self.place_mut(directory).cleared = layer + 1;
            let mut next = self.place(directory).first_child;
            while next != NOTHING {
                let child = PathId::from_raw(next);
                next = self.place(child).next;
                if self.place(child).touched == layer + 1 {
                    directories.push(child);
                } else {
                    self.remove(child);
                }
            }
        }
    }

    /// Removes what is at a path and below it.
    fn remove(&mut self, path: PathId) {
        if self.at(path).is_none() || path == PathId::ROOT {
            return;
        }
        let Place { next, previous, .. } = *self.place(path);
        if let Some(next) = self.places.get_mut(next as usize) {
            next.previous = previous;
        }
        match self.places.get_mut(previous as usize) {
            Some(previous) => previous.next = next,
            None => {
                let parent = self.paths.parent(path);
                self.place_mut(parent).first_child = next;
            }
        }
        let mut doomed = vec![path];
        while let Some(path) = doomed.pop() {
            let mut child = self.place(path).first_child;
            while child != NOTHING {
                doomed.push(PathId::from_raw(child));
                child = self.place(PathId::from_raw(child)).next;
            }
            *self.place_mut(path) = Place::EMPTY;
        }
    }

    /// Puts a path that has just come alive among its siblings.
    fn link(&mut self, path: PathId) {
        let parent = self.paths.parent(path);
        let own = path.raw();
        let first = std::mem::replace(&mut self.place_mut(parent).first_child, own);
        if let Some(first) = self.places.get_mut(first as usize) {
            first.previous = own;
        }
        let place = self.place_mut(path);
        place.next = first;
        place.previous = NOTHING;
    }

    fn is_directory(&self, path: PathId) -> bool {
        self.at(path).is_some_and(|entry| self.entries[entry as usize].kind == Kind::Directory)
    }

    fn place(&self, path: PathId) -> &Place {
        // Paths that resolving met first have no place yet: nothing is there.
        self.places.get(path.index()).unwrap_or(&Place::EMPTY)
    }

    fn place_mut(&mut self, path: PathId) -> &mut Place {
        if self.places.len() <= path.index() {
            self.places.resize(self.paths.len(), Place::EMPTY);
        }
        &mut self.places[path.index()]
    }
}
