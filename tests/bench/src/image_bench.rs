//! Builds an ISO from an OCI image layout and prints what it took.
//!
//! `image LAYOUT OUT [WORKERS]`: the first manifest of the layout's index (as `skopeo copy … oci:LAYOUT:tag` writes it) becomes
//! OUT/bench.iso. One line: wall and CPU seconds, peak RSS.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use crate::cost::{own_cpu_seconds, own_peak_rss_mib};
use auroraboot::media::menu::MenuOptions;
use auroraboot::media::{self, LayerSource, Options, Watch};
use auroraboot::units::{Arch, ByteSize, Digest};
use serde_json::Value;

struct Layout {
    blobs: PathBuf,
    layers: Vec<Digest>,
}

impl Layout {
    fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let blobs = path.join("blobs/sha256");
        let json = |path: PathBuf| -> Result<Value, Box<dyn Error>> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
        let digest = |value: &Value| value["digest"].as_str().ok_or("no digest").map(str::parse::<Digest>);
        let index = json(path.join("index.json"))?;
        let manifest = json(blobs.join(digest(&index["manifests"][0])??.hex()))?;
        let layers = manifest["layers"].as_array().ok_or("no layers")?;
        let layers = layers.iter().map(|layer| Ok(digest(layer)??)).collect::<Result<_, Box<dyn Error>>>()?;
        Ok(Self { blobs, layers })
    }
}

impl LayerSource for Layout {
    fn count(&self) -> usize {
        self.layers.len()
    }

    fn digest(&self, layer: usize) -> Digest {
        self.layers[layer]
    }

    fn open(&self, layer: usize) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(File::open(self.blobs.join(self.layers[layer].hex()))?))
    }
}

pub fn main(arguments: Vec<String>) -> Result<(), Box<dyn Error>> {
    let mut args = arguments.into_iter();
    let (layout, out) = args.next().zip(args.next()).ok_or("usage: image LAYOUT OUT [WORKERS]")?;
    let cores = std::thread::available_parallelism()?;
    let workers = args.next().map_or(Ok(cores), |n| n.parse::<NonZeroUsize>())?;
    let layout = Layout::open(Path::new(&layout))?;
    let (directory, name) = (Path::new(&out), "bench".parse()?);
    let options = Options {
        directory,
        name: &name,
        checksum_file: false,
        stamp: &directory.join("stamp.json"),
        product: "bench",
        menu: MenuOptions { arch: Arch::Amd64, live_console: None, extend_cmdline: None },
        overlay_rootfs: None,
        workers,
    };
    let mut bytes = 0;
    let start = Instant::now();
    let cancelled = AtomicBool::new(false);
    let medium =
        media::build(&layout, &options, &mut Watch { cancelled: &cancelled, progress: &mut |p| bytes = p.bytes })?;
    let wall = start.elapsed().as_secs_f64();
    println!(
        "wall {wall:.2} s, cpu {:.2} s, peak rss {} MB: {} of {} layers -> {}{}",
        own_cpu_seconds(),
        own_peak_rss_mib(),
        ByteSize(bytes),
        layout.layers.len(),
        ByteSize(medium.iso.size),
        if medium.reused { " (reused)" } else { "" },
    );
    Ok(())
}
