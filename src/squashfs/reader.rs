//! Reads files back out of a finished image: the kernel and the initrd are taken from there.

use super::codec;
use super::finish::Stored;
use super::pipeline::{SizeWord, StoredBlock};
use super::{Compression, DataId, Error};
use crate::storage::Storage;
use std::io::{self, Write};

/// Streams one file into `into`; holds two blocks in memory.
pub(super) fn copy_file<F: Storage + ?Sized>(
    out: &F,
    (compression, block_size): (Compression, u32),
    stored: &Stored,
    id: DataId,
    into: &mut dyn Write,
) -> Result<(), Error> {
    let file = stored.files.get(id.0 as usize).ok_or(Error::UnknownContent)?;
    let mut blocks = Blocks { out, compression, packed: Vec::new(), block: vec![0; block_size as usize] };
    if let Some(run) = file.run {
        let run = stored.placement.run(run);
        let mut start = run.start;
        for &size in stored.placement.sizes_of(run) {
            let block = blocks.read(StoredBlock { start, size })?;
            if block.len() != block_size as usize {
                return Err(damaged());
            }
            into.write_all(block).map_err(Error::Into)?;
            start += u64::from(size.stored_len());
        }
    }
    if let Some(tail) = file.tail {
        let fragment = stored.placement.fragments.get(tail.fragment as usize).ok_or_else(damaged)?;
        let from = tail.offset as usize;
        let len = (file.size % u64::from(block_size)) as usize;
        let bytes = blocks.read(*fragment)?.get(from..from + len).ok_or_else(damaged)?;
        into.write_all(bytes).map_err(Error::Into)?;
    }
    Ok(())
}

struct Blocks<'a, F: Storage + ?Sized> {
    out: &'a F,
    compression: Compression,
    packed: Vec<u8>,
    block: Vec<u8>,
}

impl<F: Storage + ?Sized> Blocks<'_, F> {
    fn read(&mut self, block: StoredBlock) -> Result<&[u8], Error> {
        if block.size == SizeWord::HOLE {
            self.block.fill(0);
            return Ok(&self.block);
        }
        self.packed.resize(block.size.stored_len() as usize, 0);
        self.out.read_exact_at(&mut self.packed, block.start).map_err(Error::ReadBack)?;
        if block.size.is_plain() {
            return Ok(&self.packed);
        }
        let len = codec::decompress(self.compression, &self.packed, &mut self.block).map_err(Error::ReadBack)?;
        Ok(&self.block[..len])
    }
}

fn damaged() -> Error {
    Error::ReadBack(io::Error::from(io::ErrorKind::InvalidData))
}
