//! A reader of ISO 9660 images: where a file's bytes lie.
//!
//! Names are taken from Rock Ridge, else from Joliet, else they are the plain ones. Only what a lookup needs is read, and
//! nothing that an image says is believed: sizes are bounded, circles end, what points past the end is an error.

mod directory;
mod disk;
mod eltorito;
mod lookup;
mod susp;
mod volume;

use std::io;

use crate::limits;
use crate::storage::{Extent, Storage};

pub(in crate::iso) use directory::Directory;
pub(in crate::iso) use disk::{Budget, Disk};
pub use eltorito::{BootImage, PLATFORM_BIOS, PLATFORM_EFI};
pub(in crate::iso) use lookup::{Child, data_end, rock_ridge, stored_name};
pub(in crate::iso) use susp::{Place, Pointer};
pub(in crate::iso) use volume::{Names, Set, Tree};

/// Why an image, or something in it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read the ISO at byte {offset}")]
    Read { offset: u64, source: io::Error },
    #[error("this is not an ISO 9660 image: there is no volume descriptor at byte 32768")]
    NotAnIso,
    #[error("the ISO is truncated: it goes on to byte {volume}, the file ends at {size}; download or copy it again")]
    Truncated { volume: u64, size: u64 },
    #[error("the ISO is damaged: volume descriptor at block {block}: {what}")]
    Descriptors { block: u64, what: &'static str },
    #[error("the ISO is damaged: it points to byte {offset}, and ends at {size}")]
    Beyond { offset: u64, size: u64 },
    #[error("the ISO has a directory of {size} bytes at byte {offset}; 1 to {max} are supported", max = limits::ISO_DIRECTORY_BYTES_MAX)]
    DirectorySize { offset: u64, size: u32 },
    #[error("the ISO is damaged: there is no directory at byte {offset}")]
    NotADirectory { offset: u64 },
    #[error("the ISO is damaged: a directory has a broken record at its byte {at}")]
    Record { at: usize },
    #[error("the ISO is damaged: {len} bytes of Rock Ridge continue at byte {offset}")]
    Continuation { offset: u64, len: u32 },
    #[error("the ISO's directories go in circles, or are larger than {} bytes together", limits::ISO_LOOKUP_BYTES_MAX)]
    TooMuch,
    #[error("{path:?} leads through more than {} directories and links of the ISO", limits::ISO_PATH_STEPS_MAX)]
    TooDeep { path: String },
    #[error("{path:?} is not a directory of the ISO")]
    NotDirectory { path: String },
    #[error("{path:?} is stored in the ISO in a way that cannot be read in place ({how})")]
    NotInPlace { path: String, how: &'static str },
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// With the target as it is stored.
    Symlink(String),
}

/// A file, directory or link of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub kind: Kind,
    /// Bytes of a file; 0 for everything else.
    pub size: u64,
    /// Where a file's bytes lie in the image. Neighbours are one; an empty file has none.
    pub extents: Vec<Extent>,
    /// `st_mode` as Rock Ridge has it.
    pub mode: Option<u32>,
}

/// An image, opened.
#[derive(Debug)]
pub struct Image<'a, S: ?Sized> {
    disk: Disk<'a, S>,
    sets: Vec<Set>,
    boot_images: Vec<BootImage>,
}

impl<'a, S: Storage + ?Sized> Image<'a, S> {
    /// Reads the descriptors of an image of `size` bytes.
    ///
    /// # Errors
    /// It is not an ISO, it is truncated, it is damaged, it cannot be read.
    pub fn open(storage: &'a S, size: u64) -> Result<Self, Error> {
        let disk = Disk { storage, size };
        let mut sets = volume::sets(disk)?;
        let boot_images = match sets[0].boot_catalog {
            Some(block) => eltorito::boot_images(disk, block)?,
            None => Vec::new(),
        };
        // An EFI partition behind the volume is cut off where the volume is not.
        let boot_end = boot_images.iter().map(|image| image.extent().offset + image.extent().length).max().unwrap_or(0);
        if boot_end > size {
            return Err(Error::Truncated { volume: boot_end, size });
        }
        sets.iter_mut().for_each(|set| volume::add_copies(disk, set, &boot_images));
        Ok(Self { disk, sets, boot_images })
    }

    /// The volume identifier of the primary descriptor: what `root=live:CDLABEL=` looks for.
    pub fn volume_id(&self) -> &str {
        &self.sets[0].volume_id
    }

    /// What firmware may start from it as a CD (El Torito), in the catalog's order.
    pub fn boot_images(&self) -> &[BootImage] {
        &self.boot_images
    }

    /// What an absolute path leads to, links followed. `None` when there is nothing.
    ///
    /// # Errors
    /// Damage on the way, too many links, a file that is not stored as it is.
    pub fn find(&self, path: &str) -> Result<Option<Entry>, Error> {
        lookup::find(self.disk, self.tree(), path)
    }

    /// The entries of a directory, in the order in which they are stored.
    ///
    /// # Errors
    /// As [`Image::find`]; the path leads to something that is not a directory, or to nothing.
    pub fn list(&self, path: &str) -> Result<Vec<Entry>, Error> {
        lookup::list(self.disk, self.tree(), path)
    }

    pub(in crate::iso) const fn disk(&self) -> Disk<'a, S> {
        self.disk
    }

    pub(in crate::iso) fn sets(&self) -> &[Set] {
        &self.sets
    }

    /// The tree with the best names.
    fn tree(&self) -> &Tree {
        let trees = &self.sets[0].trees;
        let joliet = trees.iter().find(|tree| tree.names == Names::Joliet);
        match trees[0].names {
            Names::Plain => joliet.unwrap_or(&trees[0]),
            _ => &trees[0],
        }
    }
}
