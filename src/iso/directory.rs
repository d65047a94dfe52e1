//! One tree of one volume on disk: directories, continuation areas, path tables.
//!
//! ```text
//! directory 1 │ its continuation areas │ directory 2 │ … │ path table, type L │ path table, type M
//! ```
//! Directories stand in the order of the path table: level by level, parents before children.

use std::collections::HashMap;

use super::names::{self, Naming};
use super::path_table::{self, Order};
use super::record::{self, DIRECTORY, NOT_LAST_SECTION, PARENT, Record, SELF};
use super::rrip::{self, Attributes, Place, SystemUse};
use super::tree::{Id, Kind, ROOT, Tree};
use super::{BLOCK, EMPTY, Error, bytes};
use crate::limits::ISO_DIRECTORIES_MAX;
use crate::storage::Extent;

/// Bytes of all sections of a file but the last: whole blocks, as many as 32 bits of bytes can say.
pub(super) const SECTION_BYTES_MAX: u64 = 0xffff_f800;

/// Whose eyes a tree is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct View {
    pub naming: Naming,
    /// Block that addresses count from.
    pub base: u32,
}

/// A tree on disk, and what the volume descriptor says of it.
#[derive(Debug)]
pub(super) struct Placed {
    /// Whole blocks.
    pub bytes: Vec<u8>,
    /// Block of the root, from the base.
    pub root: u32,
    /// Bytes of the root.
    pub root_size: u32,
    /// Bytes of one path table.
    pub path_table_size: u32,
    /// Blocks, from the base.
    pub type_l: u32,
    pub type_m: u32,
}

/// One record to be: a name, and where it leads.
struct Child {
    id: Id,
    identifier: Vec<u8>,
    system_use: SystemUse,
}

/// A directory with its entries in order.
struct Directory {
    id: Id,
    /// Its number in the path table less one, and its parent's.
    parent: usize,
    identifier: Vec<u8>,
    own: SystemUse,
    parents: SystemUse,
    children: Vec<Child>,
    /// Block, from the base.
    location: u32,
    /// Bytes, whole blocks.
    size: u32,
    /// Where its continuation areas lie, in the order of its records.
    areas: Vec<(u32, u32)>,
}

/// Lays `tree` out for `view` from block `at` of the image on.
pub(super) fn lay(tree: &Tree, view: View, at: u32) -> Result<Placed, Error> {
    let mut directories = collect(tree, view)?;
    let mut next = at.checked_sub(view.base).ok_or(Error::TooBig)?;
    for directory in &mut directories {
        next = directory.place(tree, next)?;
    }
    let locations: HashMap<Id, (u32, u32)> =
        directories.iter().map(|directory| (directory.id, (directory.location, directory.size))).collect();
    let mut bytes = Vec::new();
    for directory in &directories {
        let parent = locations[&directories[directory.parent].id];
        directory.encode(tree, view, parent, &locations, &mut bytes)?;
    }
    let type_l = next;
    let mut path_table_size = 0;
    for order in [Order::Little, Order::Big] {
        let table = path_table::encode(directories.iter().map(Directory::path_table_entry), order);
        path_table_size = table.len();
        bytes.extend_from_slice(&table);
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
    }
    let table_blocks = blocks(path_table_size as u64)?;
    Ok(Placed {
        bytes,
        root: directories[0].location,
        root_size: directories[0].size,
        path_table_size: u32::try_from(path_table_size).map_err(|_| Error::TooBig)?,
        type_l,
        type_m: type_l.checked_add(table_blocks).ok_or(Error::TooBig)?,
    })
}

/// Blocks that so many bytes take.
pub(super) fn blocks(bytes: u64) -> Result<u32, Error> {
    u32::try_from(bytes.div_ceil(BLOCK)).map_err(|_| Error::TooBig)
}

/// The sections of a file: several where 32 bits of length do not reach (ECMA-119 §6.5.1, §9.1.4). An empty file has one, too.
pub(super) fn sections(extent: Extent) -> impl Iterator<Item = Extent> {
    let count = extent.length.div_ceil(SECTION_BYTES_MAX).max(1);
    (0..count).map(move |index| {
        let before = index * SECTION_BYTES_MAX;
        Extent { offset: extent.offset + before, length: (extent.length - before).min(SECTION_BYTES_MAX) }
    })
}

/// Every directory of the tree in the order of the path table (ECMA-119 §6.9.1).
fn collect(tree: &Tree, view: View) -> Result<Vec<Directory>, Error> {
    let mut directories = vec![Directory::new(tree, view, ROOT, 0, SELF.to_vec())];
    let mut index = 0;
    while let Some(directory) = directories.get(index) {
        let inside = directory.children.iter().filter(|child| tree.node(child.id).is_directory());
        let inside: Vec<(Id, Vec<u8>)> = inside.map(|child| (child.id, child.identifier.clone())).collect();
        for (id, identifier) in inside {
            directories.push(Directory::new(tree, view, id, index, identifier));
        }
        if directories.len() > ISO_DIRECTORIES_MAX {
            return Err(Error::TooMany { what: "directories", max: ISO_DIRECTORIES_MAX });
        }
        index += 1;
    }
    // `..` tells the parent's attributes, which are known once all directories are there.
    for index in 0..directories.len() {
        let parent = directories[directories[index].parent].id;
        directories[index].parents = system_use(tree, view, parent, Place::Dot, PARENT.len());
    }
    Ok(directories)
}

fn system_use(tree: &Tree, view: View, id: Id, place: Place<'_>, identifier_len: usize) -> SystemUse {
    if view.naming == Naming::Joliet {
        return SystemUse::new(&[], identifier_len);
    }
    let node = tree.node(id);
    let target = match &node.kind {
        Kind::Symlink(target) => Some(target.as_slice()),
        _ => None,
    };
    let directories = tree.children(id).iter().filter(|child| tree.node(**child).is_directory()).count();
    let links = if node.is_directory() { u32::try_from(directories).unwrap_or(u32::MAX - 2) + 2 } else { 1 };
    let attributes = Attributes { mode: node.mode, links, mtime: node.mtime, target };
    SystemUse::new(&rrip::entries(&attributes, place), identifier_len)
}

impl Directory {
    fn new(tree: &Tree, view: View, id: Id, parent: usize, identifier: Vec<u8>) -> Self {
        // Joliet has no symbolic links.
        let is_shown =
            |child: &&Id| view.naming == Naming::Plain || !matches!(tree.node(**child).kind, Kind::Symlink(_));
        let ids: Vec<Id> = tree.children(id).iter().filter(is_shown).copied().collect();
        let named: Vec<(&[u8], bool)> =
            ids.iter().map(|child| (tree.node(*child).name.as_slice(), tree.node(*child).is_directory())).collect();
        let identifiers = names::identifiers(&named, view.naming);
        let mut children: Vec<Child> = ids
            .into_iter()
            .zip(identifiers)
            .map(|(id, identifier)| {
                let place = Place::Child(&tree.node(id).name);
                Child { id, system_use: system_use(tree, view, id, place, identifier.len()), identifier }
            })
            .collect();
        children.sort_by(|a, b| match view.naming {
            Naming::Plain => names::order(&a.identifier, &b.identifier),
            Naming::Joliet => a.identifier.cmp(&b.identifier),
        });
        let place = if id == ROOT { Place::Root } else { Place::Dot };
        Self {
            id,
            parent,
            identifier,
            own: system_use(tree, view, id, place, SELF.len()),
            parents: SystemUse::new(&[], PARENT.len()),
            children,
            location: 0,
            size: 0,
            areas: Vec::new(),
        }
    }

    /// Takes the blocks from `location` on; returns the block behind the directory and its continuation areas.
    fn place(&mut self, tree: &Tree, location: u32) -> Result<u32, Error> {
        let dots = [(SELF.len(), &self.own, 1), (PARENT.len(), &self.parents, 1)];
        let children = self.children.iter().map(|child| {
            let sections = match tree.node(child.id).kind {
                Kind::File(extent) => sections(extent).count(),
                _ => 1,
            };
            (child.identifier.len(), &child.system_use, sections)
        });
        let (mut used, mut areas) = (0, Vec::new());
        for (identifier_len, system_use, sections) in dots.into_iter().chain(children) {
            let len = record::system_use_at(identifier_len) + system_use.inline_len();
            for _ in 0..sections {
                used = record::place(used, len + len % 2) + (len + len % 2) as u64;
            }
            areas.extend(system_use.area_lens());
        }
        self.location = location;
        let blocks_used = blocks(used)?;
        self.size = u32::try_from(u64::from(blocks_used) * BLOCK).map_err(|_| Error::TooBig)?;
        let first_area = location.checked_add(blocks_used).ok_or(Error::TooBig)?;
        let mut used = 0;
        for len in areas {
            let at = record::place(used, len);
            let block = u32::try_from(at / BLOCK).ok().and_then(|blocks| first_area.checked_add(blocks));
            self.areas.push((block.ok_or(Error::TooBig)?, (at % BLOCK) as u32));
            used = at + len as u64;
        }
        first_area.checked_add(blocks(used)?).ok_or(Error::TooBig)
    }

    fn encode(
        &self,
        tree: &Tree,
        view: View,
        parent: (u32, u32),
        locations: &HashMap<Id, (u32, u32)>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let start = out.len();
        let mut areas = Areas { places: &self.areas, contents: Vec::new() };
        let own = (self.location, self.size);
        for (identifier, (location, size), system_use) in [(SELF, own, &self.own), (PARENT, parent, &self.parents)] {
            let time = bytes::record_time(tree.node(self.id).mtime);
            let system_use = &areas.take(system_use);
            push(Record { location, size, flags: DIRECTORY, time, identifier, system_use }, start, out);
        }
        for child in &self.children {
            let node = tree.node(child.id);
            let (identifier, time) = (child.identifier.as_slice(), bytes::record_time(node.mtime));
            let system_use = &areas.take(&child.system_use);
            match node.kind {
                Kind::Directory(_) => {
                    let (location, size) = locations[&child.id];
                    push(Record { location, size, flags: DIRECTORY, time, identifier, system_use }, start, out);
                }
                // Readers take the link's target from Rock Ridge; to others it is an empty file.
                Kind::Symlink(_) => {
                    let record =
                        Record { location: EMPTY - view.base, size: 0, flags: 0, time, identifier, system_use };
                    push(record, start, out);
                }
                Kind::File(extent) => {
                    let mut sections = sections(extent).peekable();
                    while let Some(section) = sections.next() {
                        let flags = if sections.peek().is_some() { NOT_LAST_SECTION } else { 0 };
                        let block = if section.length == 0 { EMPTY } else { blocks(section.offset)? };
                        let location = block.checked_sub(view.base).ok_or(Error::TooBig)?;
                        let size = u32::try_from(section.length).map_err(|_| Error::TooBig)?;
                        push(Record { location, size, flags, time, identifier, system_use }, start, out);
                    }
                }
            }
        }
        out.resize(start + self.size as usize, 0);
        areas.write(out);
        Ok(())
    }

    fn path_table_entry(&self) -> path_table::Entry<'_> {
        let parent = u16::try_from(self.parent + 1).unwrap_or(u16::MAX); // below ISO_DIRECTORIES_MAX
        path_table::Entry { identifier: &self.identifier, location: self.location, parent }
    }
}

/// Appends a record to the directory that begins at `start` of `out`.
fn push(record: Record<'_>, start: usize, out: &mut Vec<u8>) {
    let used = (out.len() - start) as u64;
    out.resize(start + record::place(used, record.len()) as usize, 0);
    record.encode(out);
}

/// The continuation areas of one directory as its records are written.
struct Areas<'a> {
    places: &'a [(u32, u32)],
    contents: Vec<((u32, u32), Vec<u8>)>,
}

impl Areas<'_> {
    /// The part of `system_use` that stands in the record; the rest takes the next places.
    fn take(&mut self, system_use: &SystemUse) -> Vec<u8> {
        let (own, rest) = self.places.split_at(system_use.area_lens().count());
        let (inline, contents) = system_use.encode(own);
        self.contents.extend(own.iter().copied().zip(contents));
        self.places = rest;
        inline
    }

    /// Writes them behind the directory, in whole blocks.
    fn write(self, out: &mut Vec<u8>) {
        let Some(((first, _), _)) = self.contents.first() else { return };
        let (first, start) = (*first, out.len());
        for ((block, offset), content) in self.contents {
            out.resize(start + (block - first) as usize * BLOCK as usize + offset as usize, 0);
            out.extend_from_slice(&content);
        }
        out.resize(start + (out.len() - start).next_multiple_of(BLOCK as usize), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(naming: Naming, base: u32) -> View {
        View { naming, base }
    }

    fn file(offset: u64, length: u64) -> Kind {
        Kind::File(Extent { offset, length })
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
    }

    #[test]
    fn a_small_tree_from_both_bases() {
        let mut tree = Tree::new(1);
        tree.add("boot/kernel", file(64 * BLOCK, 5000), 0o644, 1).unwrap();
        for base in [0, 16] {
            let placed = lay(&tree, view(Naming::Plain, base), 100).unwrap();
            // Two directories and two path tables, a block each.
            assert_eq!(placed.bytes.len() as u64, 4 * BLOCK);
            assert_eq!((placed.root, placed.type_l, placed.type_m), (100 - base, 102 - base, 103 - base));
            assert_eq!(placed.path_table_size, 10 + 12);
            let boot = &placed.bytes[BLOCK as usize..];
            let kernel = boot[0] as usize + boot[boot[0] as usize] as usize;
            assert_eq!((u32_at(boot, kernel + 2), u32_at(boot, kernel + 10)), (64 - base, 5000));
            assert_eq!(&boot[kernel + 33..kernel + 42], b"KERNEL.;1");
            assert_eq!(u32_at(boot, boot[0] as usize + 2), 100 - base, "`..` is the root");
        }
    }

    #[test]
    fn a_file_above_4_gib_has_several_records() {
        let extent = Extent { offset: 10 * BLOCK, length: 2 * SECTION_BYTES_MAX + 5 };
        let lengths: Vec<u64> = sections(extent).map(|section| section.length).collect();
        assert_eq!(lengths, [SECTION_BYTES_MAX, SECTION_BYTES_MAX, 5]);
        let mut tree = Tree::new(0);
        tree.add("rootfs.squashfs", Kind::File(extent), 0o644, 0).unwrap();
        let placed = lay(&tree, view(Naming::Joliet, 0), 50).unwrap();
        let flags: Vec<u8> = records(&placed.bytes[..BLOCK as usize]).map(|record| record[25]).collect();
        assert_eq!(flags, [DIRECTORY, DIRECTORY, NOT_LAST_SECTION, NOT_LAST_SECTION, 0]);
        assert_eq!(sections(Extent { offset: 0, length: 0 }).count(), 1);
    }

    /// The records of one block.
    fn records(block: &[u8]) -> impl Iterator<Item = &[u8]> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let len = usize::from(*block.get(at)?);
            at += len;
            (len > 0).then(|| &block[at - len..at])
        })
    }

    #[test]
    fn a_directory_of_many_blocks_with_continuations() {
        let mut tree = Tree::new(0);
        for index in 0..100 {
            tree.add(&format!("{index:03}{}", "n".repeat(200)), file(0, 0), 0o644, 0).unwrap();
        }
        let placed = lay(&tree, view(Naming::Plain, 0), 1000).unwrap();
        let size = placed.root_size as usize;
        assert!(size > BLOCK as usize && size.is_multiple_of(BLOCK as usize));
        let found: Vec<&[u8]> = placed.bytes[..size].chunks(BLOCK as usize).flat_map(records).collect();
        assert_eq!(found.len(), 102);
        for record in &found[2..] {
            let ce = record.windows(4).position(|bytes| bytes == b"CE\x1c\x01").expect("a long name");
            let (block, offset) = (u32_at(record, ce + 4), u32_at(record, ce + 12));
            let at = (block - placed.root) as usize * BLOCK as usize + offset as usize;
            assert_eq!(placed.bytes[at..at + 2], *b"NM");
        }
    }

    #[test]
    fn what_is_empty_lies_where_no_directory_does() {
        let mut tree = Tree::new(0);
        // As the last file of an image: the root directory follows where its bytes would be.
        tree.add("empty", file(100 * BLOCK, 0), 0o644, 0).unwrap();
        tree.add("link", Kind::Symlink(b"empty".to_vec()), 0o777, 0).unwrap();
        let placed = lay(&tree, view(Naming::Plain, 16), 100).unwrap();
        let locations: Vec<u32> = records(&placed.bytes[..BLOCK as usize]).map(|record| u32_at(record, 2)).collect();
        assert_eq!(locations, [84, 84, EMPTY - 16, EMPTY - 16]);
    }

    #[test]
    fn path_tables_number_so_many_directories() {
        let mut tree = Tree::new(0);
        for index in 0..256 {
            for inner in 0..256 {
                tree.add(&format!("{index}/{inner}"), Kind::Directory(Vec::new()), 0o755, 0).unwrap();
            }
        }
        let error = lay(&tree, view(Naming::Joliet, 0), 20).unwrap_err();
        assert_eq!(error.to_string(), "too many directories for an ISO (at most 65535)");
    }

    #[test]
    fn joliet_shows_no_links() {
        let mut tree = Tree::new(0);
        tree.add("link", Kind::Symlink(b"target".to_vec()), 0o777, 0).unwrap();
        let count = |naming| records(&lay(&tree, view(naming, 0), 20).unwrap().bytes[..BLOCK as usize]).count();
        assert_eq!((count(Naming::Plain), count(Naming::Joliet)), (3, 2));
    }
}
