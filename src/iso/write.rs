//! The writer: file data first, as it comes; everything that needs sizes and places afterwards.

use std::io::Read;

use sha2::{Digest, Sha256};

use super::descriptor::{self, Volume};
use super::directory::{self, Placed, View};
use super::eltorito::{self, Bios, Boot, Efi};
use super::gpt::{self, Gpt, Guid, Partition};
use super::mbr::{self, Mbr, SECTOR};
use super::names::Naming;
use super::tree::{Kind, Tree};
use super::{BLOCK, DESCRIPTORS, EMPTY, Error, PARTITION_BASE};
use crate::limits::{ISO_BOOT_IMAGE_BYTES_MAX, ISO_BUFFER_BYTES, PATH_BYTES_MAX};
use crate::storage::{Extent, Storage};

/// Where the data of the first file begins: behind the second set of descriptors. 128 KiB suit every block size of what is inside.
pub const DATA: u64 = (EMPTY as u64 + 1) * BLOCK;

/// What an image is called.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// At most 32 of `A`–`Z`, `0`–`9` and `_`.
    pub volume_id: &'a str,
    /// Seconds since 1970: every time in the image.
    pub mtime: u32,
    /// Name and version of the program that makes it.
    pub application: &'a str,
}

/// An image being written. Until [`Writer::finish`] the output is no image.
#[derive(Debug)]
pub struct Writer<'a, S> {
    out: S,
    options: Options<'a>,
    tree: Tree,
    position: u64,
}

/// A finished image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Bytes.
    pub size: u64,
}

/// The four trees, in the order in which they stand.
const VIEWS: [View; 4] = [
    View { naming: Naming::Plain, base: 0 },
    View { naming: Naming::Joliet, base: 0 },
    View { naming: Naming::Plain, base: PARTITION_BASE },
    View { naming: Naming::Joliet, base: PARTITION_BASE },
];

impl<'a, S: Storage> Writer<'a, S> {
    /// Begins an image at offset 0 of `out`, which holds nothing but what is going to be adopted: whatever is not written stays as it
    /// is, and has to be zero.
    ///
    /// # Errors
    /// A volume id with other characters than it may have.
    pub fn new(out: S, options: Options<'a>) -> Result<Self, Error> {
        let id = options.volume_id;
        let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if id.is_empty() || id.len() > 32 || !id.chars().all(allowed) {
            return Err(Error::VolumeId(id.to_owned()));
        }
        Ok(Self { out, options, tree: Tree::new(options.mtime), position: DATA })
    }

    /// The image's time, when it is known only now: instead of [`Options::mtime`].
    pub fn set_mtime(&mut self, seconds: u32) {
        self.options.mtime = seconds;
        self.tree.set_mtime(seconds);
    }

    /// Where the data of the next file begins: a multiple of [`BLOCK`].
    pub const fn position(&self) -> u64 {
        self.position
    }

    /// Makes a file of `length` bytes that somebody has written at [`Writer::position`].
    ///
    /// # Errors
    /// A path that cannot be, or is there already; an image that grows too big.
    pub fn adopt(&mut self, path: &str, length: u64, mode: u32) -> Result<Extent, Error> {
        let extent = Extent { offset: self.position, length };
        let end = self.position.checked_add(length).ok_or(Error::TooBig)?;
        let next = end.checked_next_multiple_of(BLOCK).ok_or(Error::TooBig)?;
        directory::blocks(next)?;
        self.tree.add(path, Kind::File(extent), mode, self.options.mtime)?;
        self.position = next;
        Ok(extent)
    }

    /// Adds a file: exactly `length` bytes of `data`.
    ///
    /// # Errors
    /// As [`Writer::adopt`]; data that cannot be read or ends early; a failed write.
    pub fn add_file(&mut self, path: &str, length: u64, data: &mut dyn Read, mode: u32) -> Result<Extent, Error> {
        let mut buffer = vec![0; ISO_BUFFER_BYTES];
        let mut written = 0;
        while written < length {
            let room = usize::try_from(length - written).unwrap_or(usize::MAX).min(buffer.len());
            let count = match data.read(&mut buffer[..room]) {
                Ok(0) => return Err(Error::Short { path: path.to_owned(), missing: length - written }),
                Ok(count) => count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(Error::Data { path: path.to_owned(), source }),
            };
            self.out.write_all_at(&buffer[..count], self.position + written).map_err(Error::Write)?;
            written += count as u64;
        }
        self.adopt(path, length, mode)
    }

    /// Adds a directory. Only empty ones, and those with another mode than 0755, need it.
    ///
    /// # Errors
    /// A path that cannot be, or is there already.
    pub fn add_directory(&mut self, path: &str, mode: u32) -> Result<(), Error> {
        self.tree.add(path, Kind::Directory(Vec::new()), mode, self.options.mtime).map(drop)
    }

    /// Adds a symbolic link, which only Rock Ridge shows.
    ///
    /// # Errors
    /// As [`Writer::add_directory`]; a target that is empty or longer than Linux follows.
    pub fn add_symlink(&mut self, path: &str, target: &str) -> Result<(), Error> {
        if target.is_empty() || target.len() >= PATH_BYTES_MAX {
            return Err(Error::Path {
                path: path.to_owned(),
                why: "as a link it leads to nothing, or to a path above 4095 bytes",
            });
        }
        self.tree.add(path, Kind::Symlink(target.as_bytes().to_vec()), 0o777, self.options.mtime).map(drop)
    }

    /// Writes directories, descriptors and what boots; the output then is a complete image (not synced to disk).
    ///
    /// # Errors
    /// A boot image that was not added or is none; more directories than path tables can number; a failed write.
    pub fn finish(mut self, boot: &Boot<'_>) -> Result<Finished, Error> {
        let bios = boot.bios.as_ref().map(|bios| self.prepare_boot_image(bios)).transpose()?;
        let mut identity = Sha256::new();
        let trees = self.write_trees(&mut identity)?;
        let catalog = directory::blocks(self.position)?;
        let volume_end = self.position + BLOCK;
        let volume_blocks = directory::blocks(volume_end)?;
        let efi = boot.esp.map(|esp| Efi { location: volume_blocks, size: esp.len() as u64 });
        self.write(&eltorito::catalog(bios, efi), self.position)?;
        let mut end = volume_end;
        if let Some(esp) = boot.esp {
            self.write(esp, volume_end)?;
            identity.update(esp);
            end = (volume_end + esp.len() as u64).next_multiple_of(BLOCK);
        }
        // The backup copy of the partition table ends the image: 32 sectors of entries and the header.
        let size = (end + 33 * SECTOR).next_multiple_of(BLOCK);
        self.write_descriptors(&trees, [directory::blocks(size)?, volume_blocks - PARTITION_BASE], catalog)?;
        let identity: [u8; 32] = identity.finalize().into();
        self.write_partitions(boot, bios, &Span { volume_end, size }, &identity)?;
        Ok(Finished { size })
    }

    /// Tells the boot image where it lies; returns that block.
    fn prepare_boot_image(&self, bios: &Bios<'_>) -> Result<u32, Error> {
        let node = self.tree.find(bios.image).map(|id| &self.tree.node(id).kind);
        let Some(Kind::File(extent)) = node else { return Err(Error::NoBootImage(bios.image.to_owned())) };
        let bad = || Error::BootImage { path: bios.image.to_owned() };
        let length = usize::try_from(extent.length).ok().filter(|length| *length <= ISO_BOOT_IMAGE_BYTES_MAX);
        let mut image = vec![0; length.ok_or_else(bad)?];
        self.out.read_exact_at(&mut image, extent.offset).map_err(Error::ReadBack)?;
        let location = directory::blocks(extent.offset)?;
        if !eltorito::patch_boot_image(&mut image, location) {
            return Err(bad());
        }
        self.write(&image, extent.offset)?;
        Ok(location)
    }

    fn write_trees(&mut self, identity: &mut Sha256) -> Result<[Placed; 4], Error> {
        let mut lay = |view| {
            let mut placed = directory::lay(&self.tree, view, directory::blocks(self.position)?)?;
            self.out.write_all_at(&placed.bytes, self.position).map_err(Error::Write)?;
            identity.update(&placed.bytes);
            self.position += placed.bytes.len() as u64;
            placed.bytes = Vec::new();
            Ok(placed)
        };
        Ok([lay(VIEWS[0])?, lay(VIEWS[1])?, lay(VIEWS[2])?, lay(VIEWS[3])?])
    }

    /// Both sets, of volumes of so many blocks. As xorriso has it, the first one is all of the image: UEFI takes an EFI image above
    /// 32 MiB to end where the volume does (edk2's `ElTorito.c`), and who copies a CD by its volume's size copies everything. Only it
    /// leads to the boot catalog: firmware reads CDs from their start.
    fn write_descriptors(&self, trees: &[Placed; 4], blocks: [u32; 2], catalog: u32) -> Result<(), Error> {
        let volume = |index: usize| {
            let View { naming, .. } = VIEWS[index];
            let Options { volume_id: id, application, mtime } = self.options;
            Volume { naming, id, application, blocks: blocks[index / 2], tree: &trees[index], mtime }.encode()
        };
        let first = [volume(0), descriptor::boot_record(catalog), volume(1), descriptor::terminator()];
        let second = [volume(2), volume(3), descriptor::terminator()];
        self.write(&first.concat(), u64::from(DESCRIPTORS) * BLOCK)?;
        self.write(&second.concat(), u64::from(PARTITION_BASE + DESCRIPTORS) * BLOCK)
    }

    /// MBR and both copies of the GPT.
    fn write_partitions(
        &self,
        boot: &Boot<'_>,
        bios: Option<u32>,
        span: &Span,
        identity: &[u8; 32],
    ) -> Result<(), Error> {
        let sectors = span.size / SECTOR;
        let guid = |index| derived_guid(identity, index);
        let first_lba = u64::from(PARTITION_BASE) * BLOCK / SECTOR;
        let mut table = Gpt::new(guid(0), sectors);
        let volume_sectors = span.volume_end / SECTOR - first_lba;
        table.partitions.push(Partition::new(gpt::TYPE_BASIC_DATA, guid(1), first_lba, volume_sectors, "ISO9660"));
        if let Some(esp) = boot.esp {
            let esp_sectors = (esp.len() as u64).div_ceil(SECTOR);
            table.partitions.push(Partition::new(gpt::TYPE_ESP, guid(2), span.volume_end / SECTOR, esp_sectors, "ESP"));
        }
        for (offset, bytes) in table.encode().map_err(|_| Error::TooBig)? {
            self.write(&bytes, offset)?;
        }
        let mut code = [0; mbr::CODE_LEN];
        if let (Some(bios), Some(location)) = (boot.bios, bios) {
            const CODE_BYTES: usize = 440; // a disk signature follows
            let len = bios.mbr.len().min(CODE_BYTES);
            code[..len].copy_from_slice(&bios.mbr[..len]);
            eltorito::patch_mbr_code(&mut code, location);
        }
        let mut entries =
            [mbr::Entry::protective(sectors), mbr::Entry::default(), mbr::Entry::default(), mbr::Entry::default()];
        // Some BIOSes boot no disk without an active partition. An entry of type 0 is none to every reader of the table.
        entries[1] = mbr::Entry { status: 0x80, sectors: 1, ..mbr::Entry::default() };
        self.write(&Mbr { code, entries }.encode(), 0)?;
        self.out.set_len(span.size).map_err(Error::Write)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Error> {
        self.out.write_all_at(bytes, offset).map_err(Error::Write)
    }
}

/// A GUID that depends on the image alone: version 8, "custom" (RFC 9562 §5.8).
fn derived_guid(identity: &[u8; 32], index: u8) -> Guid {
    let hash = Sha256::new().chain_update(identity).chain_update([index]).finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    bytes[7] = 0x80 | bytes[7] & 0x0f; // the third field is little-endian on disk
    bytes[8] = 0x80 | bytes[8] & 0x3f;
    Guid(bytes)
}

/// Where partition 1 ends, and the image; bytes.
struct Span {
    volume_end: u64,
    size: u64,
}
