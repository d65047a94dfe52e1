//! Path tables (ECMA-119 §9.4) of a tree that changes: new places, new directories.

use std::collections::HashMap;

use super::change::Change;
use super::place::{Cursor, Spot};
use super::{Error, Patches};
use crate::iso::BLOCK;
use crate::iso::names::order;
use crate::iso::path_table::{Entry, Order, encode};
use crate::iso::read::{Names, Tree};
use crate::limits::{ISO_DIRECTORIES_MAX, ISO_PATH_TABLE_BYTES_MAX};
use crate::storage::Storage;

/// What a descriptor says of its path tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tables {
    pub(super) size: u32,
    /// Type L, its copy, type M, its copy; 0 is none.
    pub(super) blocks: [u32; 4],
}

/// One directory.
struct Row {
    identifier: Vec<u8>,
    location: u32,
    parent: usize,
}

impl Row {
    fn entry(&self) -> Entry<'_> {
        let parent = u16::try_from(self.parent + 1).unwrap_or(u16::MAX); // below ISO_DIRECTORIES_MAX
        Entry { identifier: &self.identifier, location: self.location, parent }
    }
}

/// Writes the tables anew: where they were, if they are as long as before.
pub(super) fn change<S: Storage + ?Sized>(
    change: &Change<'_, S>,
    moved: &HashMap<u32, Spot>,
    spots: &HashMap<usize, Spot>,
    keep: u64,
    cursor: &mut Cursor<'_>,
    patches: &mut Patches,
) -> Result<Tables, Error> {
    let tree = change.tree;
    let old = Tables { size: tree.path_tables.size, blocks: tree.path_tables.blocks };
    if old.size == 0 || old.blocks[0] == 0 || moved.is_empty() {
        return Ok(old);
    }
    let mut rows = read(change, tree)?;
    add_new(change, spots, &mut rows)?;
    for row in &mut rows {
        row.location = moved.get(&row.location).map_or(row.location, |spot| spot.location);
    }
    let rows = numbered(&rows, tree.names);
    let table = |order| encode(rows.iter().map(Row::entry), order);
    let size = table(Order::Little).len();
    let mut new = Tables { size: u32::try_from(size).map_err(|_| Error::TooBig)?, ..old };
    for (index, block) in new.blocks.iter_mut().enumerate().filter(|(_, block)| **block != 0) {
        let bytes = table(if index < 2 { Order::Little } else { Order::Big });
        let is_old = new.size == old.size;
        if !is_old {
            *block = cursor.take(size as u64)?;
        }
        let at = tree.base.saturating_add((*block).into()).saturating_mul(BLOCK);
        if is_old && at.saturating_add(size as u64) > keep {
            return Err(Error::Damaged("a path table lies behind the file system"));
        }
        patches.push(at, bytes);
    }
    Ok(new)
}

/// The type L table of the source.
fn read<S: Storage + ?Sized>(change: &Change<'_, S>, tree: &Tree) -> Result<Vec<Row>, Error> {
    let damaged = || Error::Damaged("its path table is broken");
    if tree.path_tables.size > ISO_PATH_TABLE_BYTES_MAX {
        return Err(Error::TooMany("directories"));
    }
    let at = tree.base.saturating_add(tree.path_tables.blocks[0].into()).saturating_mul(BLOCK);
    let bytes = change.disk.read(at, tree.path_tables.size.into())?;
    let mut rest = bytes.as_slice();
    let mut rows: Vec<Row> = Vec::new();
    while let [len, _, a, b, c, d, low, high, ..] = *rest {
        let len = usize::from(len);
        let identifier = rest.get(8..8 + len).filter(|identifier| !identifier.is_empty()).ok_or_else(damaged)?;
        let parent = usize::from(u16::from_le_bytes([low, high]));
        // Parents stand before their children; the root is its own.
        if parent == 0 || parent > rows.len().max(1) {
            return Err(damaged());
        }
        rows.push(Row {
            identifier: identifier.to_vec(),
            location: u32::from_le_bytes([a, b, c, d]),
            parent: parent - 1,
        });
        rest = rest.get(8 + len + len % 2..).unwrap_or_default();
    }
    if rows.is_empty() { Err(damaged()) } else { Ok(rows) }
}

/// Adds the directories that were made, in the order in which they were: parents first.
fn add_new<S: Storage + ?Sized>(
    change: &Change<'_, S>,
    spots: &HashMap<usize, Spot>,
    rows: &mut Vec<Row>,
) -> Result<(), Error> {
    let mut row_at: HashMap<u32, usize> = rows.iter().enumerate().map(|(index, row)| (row.location, index)).collect();
    for (index, node) in change.nodes.iter().enumerate().filter(|(_, node)| node.old.is_none()) {
        let parent = &change.nodes[node.parent];
        let parent_location = parent.old.or_else(|| spots.get(&node.parent).map(|spot| spot.location));
        let parent = parent_location.and_then(|location| row_at.get(&location).copied());
        let (Some(parent), Some(spot)) = (parent, spots.get(&index)) else {
            return Err(Error::Damaged("a directory is missing in its path table"));
        };
        row_at.insert(spot.location, rows.len());
        rows.push(Row { identifier: node.identifier.clone(), location: spot.location, parent });
    }
    if rows.len() > ISO_DIRECTORIES_MAX {
        return Err(Error::TooMany("directories"));
    }
    Ok(())
}

/// The rows level by level, children in the order of their names within each parent (§6.9.1), with their parents' new numbers.
fn numbered(rows: &[Row], names: Names) -> Vec<Row> {
    let compare = |a: &[u8], b: &[u8]| if names == Names::Joliet { a.cmp(b) } else { order(a, b) };
    let mut children: Vec<Vec<usize>> = vec![Vec::new(); rows.len()];
    for (index, row) in rows.iter().enumerate().skip(1) {
        children[row.parent].push(index);
    }
    for siblings in &mut children {
        siblings.sort_by(|&a, &b| compare(&rows[a].identifier, &rows[b].identifier));
    }
    let mut order = vec![(0, 0)];
    let mut next = 0;
    while let Some(&(row, _)) = order.get(next) {
        order.extend(children[row].iter().map(|&child| (child, next)));
        next += 1;
    }
    let row = |&(row, parent): &(usize, usize)| Row {
        identifier: rows[row].identifier.clone(),
        location: rows[row].location,
        parent,
    };
    order.iter().map(row).collect()
}
