//! Build script: puts the boot programs of `image/loaders.d` into the binary, compressed.
//!
//! The files are stock Debian builds, fetched by `image/loaders` and pinned by `image/loaders.lock`. A build without them, or
//! with other bytes than the lock names, stops here. What it writes, `$OUT_DIR/loaders.rs`, is one table of [`Loader`]s.
//!
//! [`Loader`]: ../src/loaders.rs
#![allow(clippy::print_stdout, clippy::print_stderr, clippy::exit)] // how a build script speaks to cargo

use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::{env, fs, process};

/// The loaders are read once per start, so the slow, small end of the scale.
const ZSTD_LEVEL: i32 = 19;

fn main() {
    println!("cargo::rerun-if-changed=image/embed.rs");
    println!("cargo::rerun-if-changed=image/loaders.lock");
    println!("cargo::rerun-if-changed=image/loaders.d");
    if let Err(why) = embed() {
        eprintln!("{why}");
        process::exit(1);
    }
}

fn embed() -> Result<(), String> {
    let image = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").ok_or("cargo sets CARGO_MANIFEST_DIR")?).join("image");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let lock_path = image.join("loaders.lock");
    let lock =
        fs::read_to_string(&lock_path).map_err(|error| format!("cannot read {}: {error}", lock_path.display()))?;
    let mut table = String::from("pub static LOADERS: &[Loader] = &[\n");
    for line in lock.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [role, file, sha256, size, package, version, source, source_version, licence] = columns[..] else {
            return Err(format!("{}: not nine columns: {line:?}", lock_path.display()));
        };
        let role = match role {
            "netboot" => "Netboot",
            "medium" => "Medium",
            "notice" => "Notice",
            _ => return Err(format!("{}: no such role: {line:?}", lock_path.display())),
        };
        let compressed = out.join(format!("{file}.zst"));
        fs::write(&compressed, compress(&image.join("loaders.d").join(file), sha256)?)
            .map_err(|error| error.to_string())?;
        writeln!(
            table,
            "    Loader {{ role: Role::{role}, file: {file:?}, size: {size}, package: {package:?}, version: {version:?}, source: {source:?}, \
             source_version: {source_version:?}, licence: {licence:?}, compressed: include_bytes!({compressed:?}) }},"
        )
        .map_err(|error| error.to_string())?;
    }
    table.push_str("];\n");
    fs::write(out.join("loaders.rs"), table).map_err(|error| error.to_string())
}

/// Reads a loader, holds it against its pinned digest and compresses it.
fn compress(path: &PathBuf, sha256: &str) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let bytes =
        fs::read(path).map_err(|error| format!("cannot read the boot loader {shown}: {error}; run image/loaders"))?;
    let found = Sha256::digest(&bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    if found != sha256 {
        return Err(format!(
            "{shown} is not what image/loaders.lock pins (sha256 {found}, not {sha256}); run image/loaders"
        ));
    }
    zstd::bulk::compress(&bytes, ZSTD_LEVEL).map_err(|error| format!("cannot compress {shown}: {error}"))
}
