//! `customise ISO CONFIG DIRECTORY`: the product's `media::customise` and `media::seal`, and how long each took.
//!
//! The first makes DIRECTORY's custom ISO, synced and renamed, the second its `.sha256`. The ISO itself is not hashed before: that is part
//! of fetching it.

use auroraboot::media::{self, Given, Wanted};
use auroraboot::units::Digest;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

pub fn main(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let [iso, config, directory] = arguments else { return Err("usage: customise ISO CONFIG DIRECTORY".into()) };
    let (config, directory) = (std::fs::read(config)?, Path::new(directory));
    let cancelled = AtomicBool::new(false);
    let given = Given {
        iso: Path::new(iso),
        sha256: Some(Digest([0; 32])),
        checksum_file: false,
        must_boot: true,
        reused: true,
    };
    let medium = media::inspect(&given, &cancelled)?;
    let stamp = directory.join("stamp.json");
    let wanted = Wanted { config: Some(&config), overlay: None, directory, stamp: &stamp, product: "bench" };
    let start = Instant::now();
    let mut custom = media::customise(&medium, &wanted, &cancelled)?.ok_or("no custom ISO")?;
    let customised = start.elapsed().as_secs_f64();
    if custom.reused {
        return Err("it was there already".into());
    }
    let start = Instant::now();
    media::seal(&mut custom, &wanted, &cancelled)?;
    println!("customised in {customised:.3} s, sealed in {:.3} s", start.elapsed().as_secs_f64());
    Ok(())
}
