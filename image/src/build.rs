//! A board's disk image, from its facts, the product's binary and Debian's packages.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use auroraboot::{fat, loaders};
use flate2::{Compression, GzBuilder};
use sha2::{Digest, Sha256};

use crate::board::{self, Board, Table};
use crate::deb::{self, Package};
use crate::disk::{self, Kind, Part};
use crate::initramfs;
use crate::lock::{self, Lock, Row};
use crate::modules::{self, Modules};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Board(#[from] board::Error),
    #[error(transparent)]
    Lock(#[from] lock::Error),
    #[error(transparent)]
    Package(#[from] deb::Error),
    #[error(transparent)]
    Modules(#[from] modules::Error),
    #[error("cannot make the file system {0}")]
    Fat(&'static str, #[source] fat::Error),
    #[error(transparent)]
    Disk(#[from] disk::Error),
    #[error("cannot read {}{hint}", .path.display())]
    Read { path: PathBuf, hint: String, source: io::Error },
    #[error("cannot write {}", .0.display())]
    Write(PathBuf, #[source] io::Error),
    #[error("{source_of:?} is not a source of a file: PACKAGE:PATH, kernel:PATH, gzip:SOURCE or text:NAME")]
    Source { source_of: String },
    #[error("SOURCE_DATE_EPOCH is {0:?}, which is not a number of seconds")]
    Date(String),
}

/// Where things are.
#[derive(Debug)]
pub struct Paths {
    /// The root of the source tree.
    pub tree: PathBuf,
    pub boards: PathBuf,
    pub lock: PathBuf,
    pub debs: PathBuf,
    pub out: PathBuf,
    /// The product's binary instead of the one that cargo has built for the board's target.
    pub binary: Option<PathBuf>,
}

/// What was made.
#[derive(Debug)]
pub struct Made {
    pub image: PathBuf,
    pub bytes: u64,
    pub compressed_bytes: u64,
    pub initrd_bytes: usize,
    pub modules: usize,
    pub sha256: String,
}

/// Above this nothing gets smaller and everything takes longer: most of an image is compressed already.
const ZSTD_LEVEL: i32 = 9;

/// Writes `auroraboot-ID.img`, its compressed form and their digests.
///
/// # Errors
/// Something is missing, or cannot be read or written.
pub fn build(paths: &Paths, id: &str) -> Result<Made, Error> {
    let board = Board::read(&paths.boards, id)?;
    let mut inputs = Inputs::new(paths, &board)?;
    let wanted = board.wanted_modules(&paths.boards)?;
    let version = inputs.version.clone();
    let modules = Modules::collect(inputs.package(&board.kernel)?, &version, &wanted)?;
    let firmware = board.firmware.iter().map(|name| inputs.open(name)).collect::<Result<Vec<_>, _>>()?;
    let binary = inputs.binary()?;
    let build_time = inputs.build_time()?;
    let initrd = initramfs::build(&initramfs::Parts {
        board: &board,
        kernel_version: &version,
        binary: &binary,
        modules: &modules,
        firmware: &firmware,
        build_time,
    })?;
    let boot_partition = u64::from(board.disk.bios.is_some()) + 2;
    let mut files = inputs.files(&board.boot, boot_partition)?;
    files.insert("initrd.img".to_owned(), initrd);
    let esp = inputs.files(&board.esp, boot_partition)?;
    inputs.common_files(&mut files)?;
    let initrd_bytes = files["initrd.img"].len();
    let image = paths.out.join(format!("auroraboot-{id}.img"));
    let layout = Layout { board: &board, esp: &esp, boot: &files };
    let part = with_suffix(&image, "part");
    fs::create_dir_all(&paths.out).map_err(|error| Error::Write(paths.out.clone(), error))?;
    layout.write(&mut inputs, &part)?;
    let (sha256, compressed_bytes) = finish(&part, &image)?;
    let bytes = fs::metadata(&image).map_err(|error| Error::Write(image.clone(), error))?.len();
    Ok(Made { image, bytes, compressed_bytes, initrd_bytes, modules: modules.by_name.len(), sha256 })
}

/// What an image is made of, as it is read.
struct Inputs<'a> {
    paths: &'a Paths,
    board: &'a Board,
    lock: Lock,
    /// What `uname -r` will say.
    version: String,
    /// By the name in the lock.
    packages: BTreeMap<String, Package>,
}

impl<'a> Inputs<'a> {
    fn new(paths: &'a Paths, board: &'a Board) -> Result<Self, Error> {
        let lock = Lock::read(&paths.lock)?;
        let kernel = &lock.find(&board.kernel, &board.architecture)?.package;
        let version = kernel.strip_prefix("linux-image-").unwrap_or(kernel).to_owned();
        let mut inputs = Self { paths, board, lock, version, packages: BTreeMap::new() };
        let kernel = inputs.open(&board.kernel)?;
        inputs.packages.insert(board.kernel.clone(), kernel);
        Ok(inputs)
    }

    fn row(&self, package: &str) -> Result<&Row, Error> {
        Ok(self.lock.find(package, &self.board.architecture)?)
    }

    fn open(&self, name: &str) -> Result<Package, Error> {
        Ok(Package::open(&self.paths.debs, self.row(name)?)?)
    }

    fn package(&mut self, name: &str) -> Result<&Package, Error> {
        if !self.packages.contains_key(name) {
            let package = self.open(name)?;
            self.packages.insert(name.to_owned(), package);
        }
        Ok(&self.packages[name])
    }

    fn binary(&self) -> Result<Vec<u8>, Error> {
        let target = &self.board.target;
        let built = || self.paths.tree.join("target").join(target).join("release/auroraboot");
        let path = self.paths.binary.clone().unwrap_or_else(built);
        read(&path, &format!("; build it: cargo build --release --target {target}"))
    }

    /// From SOURCE_DATE_EPOCH; else when Debian built the kernel, which is as good a date before which this image was not made.
    fn build_time(&mut self) -> Result<u64, Error> {
        match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text.parse().map_err(|_| Error::Date(text)),
            Err(_) => Ok(self.package(&self.board.kernel)?.built),
        }
    }

    fn files(
        &mut self,
        sources: &BTreeMap<String, String>,
        boot_partition: u64,
    ) -> Result<BTreeMap<String, Vec<u8>>, Error> {
        let mut files = BTreeMap::new();
        for (destination, source) in sources {
            files.insert(destination.clone(), self.source(source, boot_partition)?);
        }
        Ok(files)
    }

    fn source(&mut self, source: &str, boot_partition: u64) -> Result<Vec<u8>, Error> {
        let unknown = || Error::Source { source_of: source.to_owned() };
        let (place, path) = source.split_once(':').ok_or_else(unknown)?;
        match place {
            "gzip" => gzip(&self.source(path, boot_partition)?).map_err(|error| Error::Write(path.into(), error)),
            "text" => Ok(self.text(path)?.replace("@boot_partition@", &boot_partition.to_string()).into_bytes()),
            "kernel" => {
                let path = path.replace("{version}", &self.version);
                Ok(self.package(&self.board.kernel)?.read(&path)?)
            }
            package => Ok(self.package(package)?.read(path)?),
        }
    }

    /// A text of the board, else one that boards share, with what is written between `@` filled in.
    fn text(&self, name: &str) -> Result<String, Error> {
        let own = self.board.directory.join(name);
        let path = if own.is_file() { own } else { self.paths.tree.join("image/boot").join(name) };
        let text = String::from_utf8_lossy(&read(&path, "")?).into_owned();
        Ok(text
            .replace("@command_line@", &self.board.command_line)
            .replace("@title@", &self.board.title)
            .replace("@version@", env!("CARGO_PKG_VERSION")))
    }

    /// What every boot partition has: what a person reads and edits, and the notices of all that is on the disk.
    fn common_files(&mut self, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
        for name in ["README.txt", "auroraboot.yaml", "cloud-config.yaml.example"] {
            // Notepad of older Windows shows nothing but one line otherwise.
            let lines = self.text(name)?.replace('\n', "\r\n");
            files.insert(name.to_owned(), lines.into_bytes());
        }
        let mut sources = String::from(
            "Source packages of Debian, with their versions; what they are under; what of them is here.\n\n",
        );
        for (name, row) in self.used()? {
            sources += &format!("{} {}\n    {}\n    {}\n\n", row.source, row.source_version, row.licence, row.package);
            let Some(package) = self.packages.get(&name) else { continue };
            let path = format!("usr/share/doc/{}/copyright", row.package);
            // grub-pc-bin's is a link to grub-common's, which is among the notices of the binary below.
            if name != GRUB_BIOS {
                files.insert(format!("licences/{}.txt", name.trim_end_matches('-')), package.read(&path)?);
            }
        }
        files.insert("licences/sources.txt".to_owned(), sources.into_bytes());
        let notices = loaders::notices().map_err(|error| Error::Write("licences".into(), error))?;
        files.insert("licences/auroraboot.txt".to_owned(), notices.into_bytes());
        Ok(())
    }

    /// The packages that this image has something of.
    fn used(&mut self) -> Result<Vec<(String, Row)>, Error> {
        for name in &self.board.firmware {
            self.package(name)?;
        }
        if self.board.disk.bios.is_some() {
            self.package(GRUB_BIOS)?;
        }
        self.packages.keys().map(|name| Ok((name.clone(), self.row(name)?.clone()))).collect()
    }
}

/// Where GRUB's boot sector for BIOS is.
const GRUB_BIOS: &str = "grub-pc-bin";
const BOOT_SECTOR: &str = "usr/lib/grub/i386-pc/boot.img";

/// What goes where on the disk.
struct Layout<'a> {
    board: &'a Board,
    esp: &'a BTreeMap<String, Vec<u8>>,
    boot: &'a BTreeMap<String, Vec<u8>>,
}

impl Layout<'_> {
    fn write(&self, inputs: &mut Inputs<'_>, path: &Path) -> Result<(), Error> {
        let esp = fat::esp("EFI", &borrowed(self.esp)).map_err(|error| Error::Fat("of EFI", error))?;
        let data = zstd::decode_all(&read(&inputs.paths.tree.join(SEED), "; image/seed makes it")?[..])
            .map_err(|source| Error::Read { path: SEED.into(), hint: String::new(), source })?;
        let boot_bytes = self.board.disk.boot_mib << 20;
        let (mut core, mut boot_sector) = (None, Vec::new());
        if let Some(name) = &self.board.disk.bios {
            let bytes = deb::fetched(&inputs.paths.debs, inputs.row(name)?, "img")?;
            core = Some(disk::placed_core(&bytes, disk::ALIGNMENT / 512)?);
            boot_sector = inputs.package(GRUB_BIOS)?.read(BOOT_SECTOR)?;
        }
        let mut parts = Vec::new();
        let aligned = |content: &[u8]| (content.len() as u64).next_multiple_of(disk::ALIGNMENT);
        if let Some(core) = &core {
            parts.push(Part { kind: Kind::BiosBoot, content: core, length: aligned(core) });
        }
        if self.board.disk.table == Table::Gpt {
            parts.push(Part { kind: Kind::Esp, content: &esp, length: aligned(&esp) });
        }
        let boot_at = disk::places(&parts)[parts.len()] / 512;
        let boot_at = u32::try_from(boot_at).map_err(|_| disk::Error::TooFar { name: "APPLIANCE" })?;
        let boot = fat::fat32("APPLIANCE", &borrowed(self.boot), boot_bytes, boot_at)
            .map_err(|error| Error::Fat("APPLIANCE", error))?;
        parts.push(Part { kind: Kind::Boot, content: &boot, length: boot_bytes });
        parts.push(Part { kind: Kind::Data, content: &data, length: aligned(&data) });
        let image = File::create(path).map_err(|error| Error::Write(path.to_owned(), error))?;
        let seed = self.board.id.as_bytes();
        match self.board.disk.table {
            Table::Gpt => {
                disk::write_gpt(&image, &parts, core.as_ref().map(|_| &boot_sector[..]), seed)?;
            }
            Table::Mbr => disk::write_mbr(&image, &parts, seed)?,
        }
        image.sync_all().map_err(|error| Error::Write(path.to_owned(), error))
    }
}

const SEED: &str = "src/appliance/data.ext4.zst";

fn borrowed(files: &BTreeMap<String, Vec<u8>>) -> Vec<(&str, &[u8])> {
    files.iter().map(|(path, content)| (path.as_str(), content.as_slice())).collect()
}

fn read(path: &Path, hint: &str) -> Result<Vec<u8>, Error> {
    fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), hint: hint.to_owned(), source })
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    name.into()
}

/// Without a name and a time in it.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(6));
    encoder.write_all(bytes)?;
    encoder.finish()
}

/// Compresses, notes the digests of both forms, and gives all three files their names.
fn finish(part: &Path, image: &Path) -> Result<(String, u64), Error> {
    let (compressed, sums) = (with_suffix(image, "zst"), with_suffix(image, "sha256"));
    let compressed_part = with_suffix(&compressed, "part");
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::Write(path, error)
    };
    let mut digest = Sha256::new();
    let result = (|| {
        let mut input = File::open(part)?;
        let mut encoder = zstd::Encoder::new(File::create(&compressed_part)?, ZSTD_LEVEL)?;
        encoder.include_checksum(true)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let length = input.read(&mut buffer)?;
            if length == 0 {
                break;
            }
            digest.update(&buffer[..length]);
            encoder.write_all(&buffer[..length])?;
        }
        encoder.finish()?.sync_all()?;
        fs::read(&compressed_part)
    })();
    let bytes = result.map_err(failed(&compressed_part))?;
    let sha256 = crate::hex(&digest.finalize());
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    let text = format!("{sha256}  {name}\n{}  {name}.zst\n", crate::hex(&Sha256::digest(&bytes)));
    fs::write(&sums, text).map_err(failed(&sums))?;
    fs::rename(&compressed_part, &compressed).map_err(failed(&compressed))?;
    fs::rename(part, image).map_err(failed(image))?;
    Ok((sha256, bytes.len() as u64))
}

#[cfg(test)]
#[path = "build_tests.rs"]
mod tests;
