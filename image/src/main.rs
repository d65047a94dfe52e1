//! Builds what is flashed: disk images of the appliance.
//!
//! Needs no root, no loop device and no other program; the same inputs give the same bytes. `image/README.md` is its manual.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for a terminal

mod board;
mod build;
mod container;
mod cpio;
mod deb;
mod disk;
mod initramfs;
mod lock;
mod modinfo;
mod modules;

use auroraboot::units::Arch;
use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use crate::board::Board;
use crate::build::Paths;

const USAGE: &str = "\
usage: cargo run -p image -- --board ID…
       cargo run -p image -- --container
  --board ID      a directory of board/; writes target/image/auroraboot-ID.img, .img.zst and .img.sha256
  --show          tells about the boards instead: what to mind, how to try them in QEMU
  --binary FILE   the product's binary (default target/TARGET/release/auroraboot)
  --out DIR       where images go (default target/image)
  --debs DIR      where image/debs has put the packages (default as there)
  --lock FILE     the lock of the packages (default image/debs.lock)
  --boards DIR    (default board)";

/// What the command line asks for.
struct Wanted {
    paths: Paths,
    boards: Vec<String>,
    container: bool,
    show: bool,
}

fn main() -> ExitCode {
    let wanted = match parse() {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("image: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if wanted.container
        && let Err(error) = make_container(&wanted.paths)
    {
        eprintln!("image: {}", chain(&error));
        return ExitCode::FAILURE;
    }
    for id in &wanted.boards {
        let started = Instant::now();
        let outcome = if wanted.show { show(&wanted.paths, id) } else { make(&wanted.paths, id, started) };
        if let Err(error) = outcome {
            eprintln!("image: board {id}: {}", chain(&error));
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn make(paths: &Paths, id: &str, started: Instant) -> Result<(), build::Error> {
    let made = build::build(paths, id)?;
    println!(
        "{}: {} MiB, {:.1} MiB as .zst (initrd {:.1} MiB, {} modules), sha256 {}, in {:.1} s",
        made.image.display(),
        made.bytes >> 20,
        mib(made.compressed_bytes),
        mib(made.initrd_bytes as u64),
        made.modules,
        made.sha256,
        started.elapsed().as_secs_f64()
    );
    Ok(())
}

fn show(paths: &Paths, id: &str) -> Result<(), build::Error> {
    let board = Board::read(&paths.boards, id)?;
    println!("{id}: {}", board.title);
    for quirk in &board.quirks {
        println!("  mind: {quirk}");
    }
    for qemu in &board.qemu {
        println!("  QEMU, {}:\n    {}", qemu.name, qemu.command);
    }
    Ok(())
}

fn parse() -> Result<Option<Wanted>, lexopt::Error> {
    use lexopt::prelude::*;
    // The source tree of this very program: it is run out of it.
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("..")).to_owned();
    let mut paths = Paths {
        boards: tree.join("board"),
        lock: tree.join("image/debs.lock"),
        out: tree.join("target/image"),
        debs: default_debs(),
        binary: None,
        tree,
    };
    let mut boards = Vec::new();
    let (mut container, mut show) = (false, false);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("board") => boards.push(parser.value()?.string()?),
            Long("container") => container = true,
            Long("show") => show = true,
            Long("binary") => paths.binary = Some(parser.value()?.into()),
            Long("out") => paths.out = parser.value()?.into(),
            Long("debs") => paths.debs = parser.value()?.into(),
            Long("lock") => paths.lock = parser.value()?.into(),
            Long("boards") => paths.boards = parser.value()?.into(),
            Long("help") | Short('h') => return Ok(None),
            other => return Err(other.unexpected()),
        }
    }
    if boards.is_empty() && show {
        boards = board::known(&paths.boards).map_err(|error| error.to_string())?;
    }
    if boards.is_empty() && !container {
        return Err("no --board is given".into());
    }
    Ok(Some(Wanted { paths, boards, container, show }))
}

/// The container image, of the release builds for both architectures.
fn make_container(paths: &Paths) -> Result<(), container::ContainerError> {
    let programs = [Arch::Amd64, Arch::Arm64].map(|arch| container::Program::read(&paths.tree.join("target"), arch));
    let programs = programs.into_iter().collect::<Result<Vec<_>, _>>()?;
    for (path, bytes) in container::write(&paths.out, &programs, env!("CARGO_PKG_VERSION"), container::epoch())? {
        println!("{}: {:.1} MiB", path.display(), mib(bytes));
    }
    Ok(())
}

/// As image/debs has it.
fn default_debs() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = || set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache"))).unwrap_or_default();
    set("AURORABOOT_DEBS").unwrap_or_else(|| cache().join("auroraboot-debs"))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

/// The error and what it came from, on one line.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}"); // a String takes everything
        cause = error.source();
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
