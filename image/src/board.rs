//! Reads `board/ID/board.toml`: the facts about one kind of machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Deserialize;

/// Why there is no such board.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("there is no board {id:?}; there are: {}", .known.join(", "))]
    Unknown { id: String, known: Vec<String> },
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    #[error("{} is not a description of a board", .path.display())]
    Form { path: PathBuf, source: Box<toml::de::Error> },
}

/// What `board.toml` says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    /// The directory's name.
    #[serde(skip)]
    pub id: String,
    /// Where its own files are.
    #[serde(skip)]
    pub directory: PathBuf,
    /// For people.
    pub title: String,
    /// As Debian calls it.
    pub architecture: String,
    /// The Rust target of the product's binary.
    pub target: String,
    /// Package of the kernel; with a `-` at its end the one that begins so.
    pub kernel: String,
    /// Every one gets a session of the console: `ttyS0,115200`, `tty1`.
    pub consoles: Vec<String>,
    /// Whether a hardware watchdog is opened when there is one.
    pub watchdog: bool,
    pub command_line: String,
    /// Files in `board/` with names of modules.
    pub module_lists: Vec<String>,
    /// More lines as they stand in such files.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Packages with firmware that the kernel loads; what its modules name is taken out of them.
    #[serde(default)]
    pub firmware: Vec<String>,
    pub disk: Disk,
    /// Files of the EFI system partition, on disks with GPT: destination, source.
    #[serde(default)]
    pub esp: BTreeMap<String, String>,
    /// Files of the boot partition: destination, source.
    pub boot: BTreeMap<String, String>,
    /// For people: what to mind.
    #[serde(default)]
    pub quirks: Vec<String>,
    /// How an image is tried in QEMU: the arguments, with `IMAGE` for the image.
    #[serde(default)]
    pub qemu: Vec<Qemu>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Disk {
    pub table: Table,
    /// Package and name of GRUB's core for BIOS, on disks with GPT.
    pub bios: Option<String>,
    pub boot_mib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    Gpt,
    Mbr,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qemu {
    pub name: String,
    pub command: String,
}

impl Board {
    /// Reads the board `id` in the directory of boards.
    ///
    /// # Errors
    /// There is no such directory, or its file says something unknown.
    pub fn read(boards: &Path, id: &str) -> Result<Self, Error> {
        let directory = boards.join(id);
        let path = directory.join("board.toml");
        if id.contains('/') || !path.is_file() {
            return Err(Error::Unknown { id: id.to_owned(), known: known(boards)? });
        }
        let text = fs::read_to_string(&path).map_err(|error| Error::Read(path.clone(), error))?;
        let form = |source| Error::Form { path, source: Box::new(source) };
        let board: Self = toml::from_str(&text).map_err(form)?;
        Ok(Self { id: id.to_owned(), directory, ..board })
    }

    /// The lines of all its lists of modules.
    ///
    /// # Errors
    /// A list cannot be read.
    pub fn wanted_modules(&self, boards: &Path) -> Result<Vec<String>, Error> {
        let mut lines = Vec::new();
        for list in &self.module_lists {
            let path = boards.join(list);
            let text = fs::read_to_string(&path).map_err(|error| Error::Read(path, error))?;
            let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
            lines.extend(names.filter(|line| !line.is_empty()).map(ToOwned::to_owned));
        }
        lines.extend(self.modules.iter().cloned());
        Ok(lines)
    }
}

/// Every directory with a `board.toml` is a board.
///
/// # Errors
/// The directory cannot be read.
pub fn known(boards: &Path) -> Result<Vec<String>, Error> {
    let failed = |error| Error::Read(boards.to_owned(), error);
    let mut known = Vec::new();
    for entry in fs::read_dir(boards).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.path().join("board.toml").is_file() {
            known.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    known.sort();
    Ok(known)
}
