//! The product's `media::customise` and `media::seal`, each alone.
//!
//! `customise ISO CONFIG DIRECTORY` makes DIRECTORY's custom ISO, synced and renamed; `seal` with the same arguments finds it there and
//! writes its `.sha256`. The ISO is not hashed before: that is part of fetching it.

use auroraboot::media::{self, Given, Wanted};
use auroraboot::units::Digest;
use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

pub fn main(arguments: &[String], seal: bool) -> Result<(), Box<dyn Error>> {
    let [iso, config, directory] = arguments else { return Err("usage: customise|seal ISO CONFIG DIRECTORY".into()) };
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
    if custom.reused != seal {
        return Err(if seal { "there is nothing to seal" } else { "it was there already" }.into());
    }
    if seal {
        media::seal(&mut custom, &wanted, &cancelled)?;
    }
    println!("{} in {:.3} s", if seal { "sealed" } else { "customised" }, start.elapsed().as_secs_f64());
    Ok(())
}
