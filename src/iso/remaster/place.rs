//! Gives changed directories their new places, and changes what leads to them.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};

use super::change::Change;
use super::node::{Entry, Node, OldRecord, What, dots};
use super::path_tables::{self, Tables};
use super::{Error, Patches, block};
use crate::iso::BLOCK;
use crate::iso::bytes::{both32, record_time, u32_at};
use crate::iso::directory::sections;
use crate::iso::names::order;
use crate::iso::read::{Directory, Names, Place as Site, Tree};
use crate::iso::record::{self, DIRECTORY, NOT_LAST_SECTION, PARENT, Record, SELF};
use crate::iso::rrip::{self, Attributes, Place, SystemUse};
use crate::storage::Storage;

/// What descriptors say of a tree.
pub(super) struct Root {
    /// Block and bytes of the root directory.
    pub(super) place: Spot,
    pub(super) tables: Tables,
}

/// Where a directory lies: block from the base, and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) location: u32,
    pub(super) size: u32,
}

/// Old block → new place, for directories of the source that move.
type Moved = HashMap<u32, Spot>;

/// Writes the changed directories of one tree from byte `at` on. Only the first `keep` bytes of the source are there to be changed.
/// Returns what the descriptors need to know, and the byte behind everything.
pub(super) fn place<S: Storage + ?Sized>(
    mut change: Change<'_, S>,
    keep: u64,
    at: u64,
    patches: &mut Patches,
) -> Result<(Root, u64), Error> {
    let tree = change.tree;
    open_moved_parents(&mut change)?;
    let mut cursor = Cursor { tree, at };
    let mut drafts = Vec::new();
    for (index, node) in change.nodes.iter().enumerate().filter(|(_, node)| node.is_changed) {
        drafts.push(Draft::new(index, node, tree, &mut cursor)?);
    }
    let spots: HashMap<usize, Spot> = drafts.iter().map(|draft| (draft.node, draft.spot)).collect();
    let old = |index: &usize| change.nodes[*index].old;
    let moved: Moved = spots.iter().filter_map(|(index, spot)| Some((old(index)?, *spot))).collect();
    let mut fixes = Fixes { keep, moved: &moved, patches };
    for node in &mut change.nodes {
        fixes.node(node)?;
    }
    fixes.children(&mut change)?;
    for draft in &drafts {
        let bytes = draft.encode(&change.nodes, tree, &spots)?;
        patches.push((tree.base + u64::from(draft.spot.location)) * BLOCK, bytes);
    }
    let tables = path_tables::change(&change, &moved, &spots, keep, &mut cursor, patches)?;
    let place = moved.get(&tree.root).copied().unwrap_or(Spot { location: tree.root, size: tree.root_size });
    Ok((Root { place, tables }, cursor.at))
}

/// Hands out blocks at the end of the image.
pub(super) struct Cursor<'a> {
    tree: &'a Tree,
    at: u64,
}

impl Cursor<'_> {
    /// Room for `len` bytes: the block from the tree's base.
    pub(super) fn take(&mut self, len: u64) -> Result<u32, Error> {
        let extent = super::take(&mut self.at, len)?;
        u32::try_from(u64::from(block(extent.offset)?).saturating_sub(self.tree.base)).map_err(|_| Error::TooBig)
    }
}

/// A directory that Rock Ridge moved has a second parent, where its record stands: that one must be changed, too.
fn open_moved_parents<S: Storage + ?Sized>(change: &mut Change<'_, S>) -> Result<(), Error> {
    let physical = |node: &Node| {
        let dotdot = node.dots.get(1).filter(|dotdot| node.is_changed && dotdot.pointer.is_some())?;
        Some(u32_at(&dotdot.bytes, 2))
    };
    let locations: Vec<u32> = change.nodes.iter().filter_map(physical).collect();
    for location in locations {
        change.open(location, None, 0)?;
    }
    Ok(())
}

/// A changed directory with its entries in order and its place, to be written when all places are known.
struct Draft {
    node: usize,
    spot: Spot,
    /// Entries in their new order, with what stands in the system use area of new ones.
    entries: Vec<(usize, SystemUse)>,
    /// System use of `.` and `..` of a new directory.
    dot: SystemUse,
    /// Where continuation areas lie, in the order of the entries.
    areas: Vec<(u32, u32)>,
    /// Bytes with the blocks of continuation areas.
    len: u64,
}

impl Draft {
    fn new(index: usize, node: &Node, tree: &Tree, cursor: &mut Cursor<'_>) -> Result<Self, Error> {
        let entries: Vec<(usize, SystemUse)> = sorted(&node.entries, tree.names)
            .into_iter()
            .map(|at| (at, system_use(&node.entries[at], tree.names)))
            .collect();
        let dot = attributes(tree.names, 0o040_755, 2, node.mtime, None, Place::Dot, SELF.len());
        let mut used = 0;
        let mut area_lens = Vec::new();
        let mut add = |len: usize| used = record::place(used, len) + len as u64;
        match node.dots.as_slice() {
            [] => [SELF, PARENT].iter().for_each(|id| add(new_len(id.len(), &dot, tree.names))),
            old => old.iter().for_each(|record| add(record.bytes.len())),
        }
        for (at, system_use) in &entries {
            let entry = &node.entries[*at];
            match &entry.what {
                What::Old { records, .. } => records.iter().for_each(|record| add(record.bytes.len())),
                What::File { extent, .. } => {
                    (0..sections(*extent).count())
                        .for_each(|_| add(new_len(entry.identifier.len(), system_use, tree.names)));
                }
                _ => add(new_len(entry.identifier.len(), system_use, tree.names)),
            }
            area_lens.extend(system_use.area_lens());
        }
        let size = used.next_multiple_of(BLOCK);
        let mut areas = Vec::new();
        let mut end = size;
        for len in area_lens {
            let at = record::place(end, len);
            areas.push((block(at)?, (at % BLOCK) as u32));
            end = at + len as u64;
        }
        let location = cursor.take(end)?;
        areas.iter_mut().for_each(|(block, _)| *block = block.saturating_add(location));
        let size = u32::try_from(size).map_err(|_| Error::TooBig)?;
        Ok(Self { node: index, spot: Spot { location, size }, entries, dot, areas, len: end.next_multiple_of(BLOCK) })
    }

    fn encode(&self, nodes: &[Node], tree: &Tree, spots: &HashMap<usize, Spot>) -> Result<Vec<u8>, Error> {
        let node = &nodes[self.node];
        let mut out = Vec::with_capacity(usize::try_from(self.len).map_err(|_| Error::TooBig)?);
        if node.dots.is_empty() {
            // The parent of a new directory has a new entry, so it has a new place.
            let parent = spots.get(&node.parent).copied().unwrap_or(self.spot);
            for (identifier, spot) in [(SELF, self.spot), (PARENT, parent)] {
                let system_use = padded(tree.names, self.dot.encode(&[]).0);
                push(directory_record(spot, identifier, node.mtime, &system_use), &mut out);
            }
        }
        node.dots.iter().for_each(|record| push_bytes(&record.bytes, &mut out));
        let mut places = self.areas.as_slice();
        let mut contents = Vec::new();
        for (at, system_use) in &self.entries {
            let (own, rest) = places.split_at(system_use.area_lens().count());
            places = rest;
            let (inline, areas) = system_use.encode(own);
            contents.extend(own.iter().copied().zip(areas));
            encode_entry(&node.entries[*at], nodes, tree, spots, &padded(tree.names, inline), &mut out)?;
        }
        out.resize(self.spot.size as usize, 0);
        for ((block, offset), content) in contents {
            out.resize((block - self.spot.location) as usize * BLOCK as usize + offset as usize, 0);
            out.extend_from_slice(&content);
        }
        Ok(out)
    }
}

fn encode_entry(
    entry: &Entry,
    nodes: &[Node],
    tree: &Tree,
    spots: &HashMap<usize, Spot>,
    system_use: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let identifier = entry.identifier.as_slice();
    match &entry.what {
        What::Old { records, .. } => records.iter().for_each(|record| push_bytes(&record.bytes, out)),
        What::Directory { node, .. } => {
            let spot = spots.get(node).copied().ok_or(Error::Damaged("a new directory has no place"))?;
            push(directory_record(spot, identifier, nodes[*node].mtime, system_use), out);
        }
        What::File { extent, mtime, .. } => {
            let mut sections = sections(*extent).peekable();
            while let Some(section) = sections.next() {
                let flags = if sections.peek().is_some() { NOT_LAST_SECTION } else { 0 };
                let location = u64::from(block(section.offset)?).saturating_sub(tree.base);
                let location = u32::try_from(location).map_err(|_| Error::TooBig)?;
                let size = u32::try_from(section.length).map_err(|_| Error::TooBig)?;
                push(Record { location, size, flags, time: record_time(*mtime), identifier, system_use }, out);
            }
        }
        What::Symlink { mtime, .. } => {
            push(Record { location: 0, size: 0, flags: 0, time: record_time(*mtime), identifier, system_use }, out);
        }
        What::Gone => {}
    }
    Ok(())
}

fn directory_record<'a>(spot: Spot, identifier: &'a [u8], mtime: u32, system_use: &'a [u8]) -> Record<'a> {
    let Spot { location, size } = spot;
    Record { location, size, flags: DIRECTORY, time: record_time(mtime), identifier, system_use }
}

fn push(record: Record<'_>, out: &mut Vec<u8>) {
    out.resize(record::place(out.len() as u64, record.len()) as usize, 0);
    record.encode(out);
}

/// A record of the source, as long as it says it is.
fn push_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.resize(record::place(out.len() as u64, bytes.len()) as usize, 0);
    out.extend_from_slice(bytes);
}

/// The entries that remain, new ones between the old ones, which keep their order whoever made it.
fn sorted(entries: &[Entry], names: Names) -> Vec<usize> {
    let is_old = |index: &usize| matches!(entries[*index].what, What::Old { .. });
    let remain = (0..entries.len()).filter(|index| !matches!(entries[*index].what, What::Gone));
    let (old, mut new): (Vec<usize>, Vec<usize>) = remain.partition(is_old);
    let compare = |a: usize, b: usize| match names {
        Names::Joliet => entries[a].identifier.cmp(&entries[b].identifier),
        Names::Plain | Names::RockRidge { .. } => order(&entries[a].identifier, &entries[b].identifier),
    };
    new.sort_by(|a, b| compare(*a, *b));
    let mut new = new.into_iter().peekable();
    let mut all = Vec::with_capacity(entries.len());
    for index in old {
        while let Some(next) = new.next_if(|next| compare(*next, index) == Ordering::Less) {
            all.push(next);
        }
        all.push(index);
    }
    all.extend(new);
    all
}

/// What Rock Ridge says of a new entry.
fn system_use(entry: &Entry, names: Names) -> SystemUse {
    let (mode, mtime, target) = match &entry.what {
        What::File { mode, mtime, .. } => (0o100_000 | mode & 0o7777, *mtime, None),
        What::Symlink { target, mode, mtime } => (0o120_000 | mode & 0o7777, *mtime, Some(target.as_slice())),
        What::Directory { mtime, .. } => (0o040_755, *mtime, None),
        What::Old { .. } | What::Gone => return SystemUse::new(&[], entry.identifier.len()),
    };
    let links = if matches!(entry.what, What::Directory { .. }) { 2 } else { 1 };
    attributes(names, mode, links, mtime, target, Place::Child(&entry.name), entry.identifier.len())
}

fn attributes(
    names: Names,
    mode: u32,
    links: u32,
    mtime: u32,
    target: Option<&[u8]>,
    place: Place<'_>,
    identifier_len: usize,
) -> SystemUse {
    match names {
        // What SUSP is to skip takes room as a longer name would.
        Names::RockRidge { skip } => {
            let attributes = Attributes { mode, links, mtime, target };
            SystemUse::new(&rrip::entries(&attributes, place), identifier_len + usize::from(skip))
        }
        Names::Joliet | Names::Plain => SystemUse::new(&[], identifier_len),
    }
}

/// Bytes of a record that is made here.
fn new_len(identifier_len: usize, system_use: &SystemUse, names: Names) -> usize {
    let len = record::system_use_at(identifier_len) + padded(names, Vec::new()).len() + system_use.inline_len();
    len.next_multiple_of(2)
}

/// With the bytes before it that SUSP is to skip.
fn padded(names: Names, system_use: Vec<u8>) -> Vec<u8> {
    match names {
        Names::RockRidge { skip } if skip > 0 => [vec![0; skip.into()], system_use].concat(),
        _ => system_use,
    }
}

/// Changes pointers to directories that move, in memory or on disk.
struct Fixes<'a> {
    keep: u64,
    moved: &'a Moved,
    patches: &'a mut Patches,
}

impl Fixes<'_> {
    /// The records of a directory that was read.
    fn node(&mut self, node: &mut Node) -> Result<(), Error> {
        let of_entries = node.entries.iter_mut().filter_map(|entry| match &mut entry.what {
            What::Old { records, is_directory: true } => Some(records),
            _ => None,
        });
        for record in node.dots.iter_mut().chain(of_entries.flatten()) {
            self.record(record, !node.is_changed)?;
        }
        Ok(())
    }

    /// `..` of the directories in a changed one that were not read: all that is needed of them is their first block.
    fn children<S: Storage + ?Sized>(&mut self, change: &mut Change<'_, S>) -> Result<(), Error> {
        let read: HashSet<u32> = change.nodes.iter().filter_map(|node| node.old).collect();
        let new: HashSet<u32> = self.moved.values().map(|spot| spot.location).collect();
        for node in change.nodes.iter().filter(|node| node.is_changed) {
            for entry in &node.entries {
                let What::Old { records, is_directory: true } = &entry.what else { continue };
                // Its own record was changed above if it moved; the others lead where they did.
                let location = records[0].pointer.map_or(u32_at(&records[0].bytes, 2), |pointer| pointer.location);
                if read.contains(&location) || new.contains(&location) {
                    continue;
                }
                let child = Directory::load(change.disk, change.tree, location, BLOCK as u32, &mut change.budget)?;
                for mut record in dots(change.disk, change.tree, &child, &mut change.budget)? {
                    self.record(&mut record, true)?;
                }
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &mut OldRecord, on_disk: bool) -> Result<(), Error> {
        let is_directory = record.bytes.get(25).is_some_and(|flags| flags & DIRECTORY != 0);
        let spot = self.moved.get(&u32_at(&record.bytes, 2)).filter(|_| is_directory);
        if let Some(spot) = spot {
            let bytes = [both32(spot.location), both32(spot.size)].concat();
            record.bytes[2..18].copy_from_slice(&bytes);
            if on_disk {
                self.patch(record.at + 2, bytes)?;
            }
        }
        let Some(pointer) = record.pointer else { return Ok(()) };
        let Some(spot) = self.moved.get(&pointer.location) else { return Ok(()) };
        let bytes = both32(spot.location);
        match pointer.place {
            Site::Disk(at) => self.patch(at, bytes)?,
            Site::Record(at) => {
                record.bytes[at..at + bytes.len()].copy_from_slice(&bytes);
                if on_disk {
                    self.patch(record.at + at as u64, bytes)?;
                }
            }
        }
        Ok(())
    }

    fn patch(&mut self, at: u64, bytes: impl Into<Vec<u8>>) -> Result<(), Error> {
        let bytes = bytes.into();
        if at.saturating_add(bytes.len() as u64) > self.keep {
            return Err(Error::Damaged("a directory lies behind the file system"));
        }
        self.patches.push(at, bytes);
        Ok(())
    }
}
