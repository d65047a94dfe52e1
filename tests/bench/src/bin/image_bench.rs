//! Builds a boot set from an OCI image layout and prints what it took.
//!
//! `image_bench LAYOUT OUT [WORKERS]`: the first manifest of the layout's index (as `skopeo copy … oci:LAYOUT:tag` writes it) becomes OUT/kernel,
//! OUT/initrd and OUT/rootfs.squashfs. One line: wall and CPU seconds, peak RSS.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, Read};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use auroraboot::media::{self, LayerSource, Options, Watch};
use auroraboot::units::{ByteSize, Digest};
use serde_json::Value;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // as the product

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

fn run() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (layout, out) = args.next().zip(args.next()).ok_or("usage: image_bench LAYOUT OUT [WORKERS]")?;
    let cores = std::thread::available_parallelism()?;
    let workers = args.next().map_or(Ok(cores), |n| n.parse::<NonZeroUsize>())?;
    let layout = Layout::open(Path::new(&layout))?;
    let options = Options { directory: Path::new(&out), product: "image_bench", workers };
    let mut bytes = 0;
    let start = Instant::now();
    let cancelled = AtomicBool::new(false);
    let set =
        media::build(&layout, &options, &mut Watch { cancelled: &cancelled, progress: &mut |p| bytes = p.bytes })?;
    let wall = start.elapsed().as_secs_f64();
    println!(
        "wall {wall:.2} s, cpu {:.2} s, peak rss {} MB: {} of {} layers -> {} squashfs, {} kernel, {} initrd{}",
        cpu_seconds()?,
        peak_rss_kb()? / 1024,
        ByteSize(bytes),
        layout.layers.len(),
        ByteSize(set.squashfs.size),
        ByteSize(set.kernel.size),
        ByteSize(set.initrd.size),
        if set.reused { " (reused)" } else { "" },
    );
    Ok(())
}

/// User and system time of this process, from `/proc/self/stat` in ticks of 10 ms.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("stat")?.1.split_whitespace().collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}

fn peak_rss_kb() -> Result<u64, Box<dyn Error>> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn main() {
    if let Err(error) = run() {
        eprintln!("image_bench: {error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
        std::process::exit(1);
    }
}
