//! What the image cost: content stored once for several files, and content nobody refers to.

use super::finish::Stored;
use std::collections::HashSet;

/// Files whose content had been stored for an earlier one; empty files are none.
pub(super) fn duplicates(stored: &Stored) -> u64 {
    let places = stored.files.iter().filter(|file| file.size > 0).map(|file| {
        let run = file.run.map(|run| stored.placement.run_of[run as usize]);
        (run, file.tail)
    });
    let mut seen = HashSet::new();
    places.filter(|place| !seen.insert(*place)).count() as u64
}

/// Bytes of the image that hold content of files that are not in the tree. A fragment counts by its dead share.
pub(super) fn dead_bytes(stored: &Stored, live: &[bool], block_size: u32) -> u64 {
    let placement = &stored.placement;
    let mut live_runs = vec![false; placement.runs.len()];
    let mut live_tails = HashSet::new();
    for (file, _) in stored.files.iter().zip(live).filter(|(_, live)| **live) {
        if let Some(run) = file.run {
            live_runs[placement.run_of[run as usize] as usize] = true;
        }
        live_tails.extend(file.tail);
    }
    let dead_runs = placement.runs.iter().zip(&live_runs).filter(|(_, live)| !**live);
    let in_blocks: u64 = dead_runs.map(|(run, _)| run.stored).sum();

    let mut counted = HashSet::new();
    let mut fragments = vec![(0_u64, 0_u64); placement.fragments.len()];
    for file in &stored.files {
        let Some(tail) = file.tail.filter(|tail| counted.insert(*tail)) else { continue };
        let len = file.size % u64::from(block_size);
        let (all, dead) = &mut fragments[tail.fragment as usize];
        *all += len;
        *dead += if live_tails.contains(&tail) { 0 } else { len };
    }
    let share = |((all, dead), packed): (&(u64, u64), u64)| (packed * dead).checked_div(*all).unwrap_or(0);
    let packed = placement.fragments.iter().map(|fragment| u64::from(fragment.size.stored_len()));
    in_blocks + fragments.iter().zip(packed).map(share).sum::<u64>()
}
