//! What process 1 does to the machine, on loop devices and in namespaces: partitions grow, broken ones are made anew, rights go.
//!
//! Needs root and loop devices.

mod data;
mod labels;
mod rights;
mod system;
mod table;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use auroraboot::appliance::disks::{self, Volume};
use auroraboot::flash::host::Host;

const MIB: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// A directory of this test alone, and the commands that undo what was set up, the last first.
struct Bench {
    dir: PathBuf,
    undo: Vec<Vec<String>>,
    /// Who looks for disks opens them all, and a partition that is open cannot be removed: one test at a time has loop devices.
    turn: Option<MutexGuard<'static, ()>>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Bench {
    fn new(name: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("auroraboot-init-{name}-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir).unwrap();
        Self { dir, undo: Vec::new(), turn: None }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// A loop device over `file`, which is one file system.
    fn attach_plain(&mut self, file: &Path, options: &[&str]) -> PathBuf {
        if self.turn.is_none() {
            self.turn = Some(TURN.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let device = run(Command::new("losetup").args(options).args(["--find", "--show"]).arg(file)).trim().to_owned();
        self.undo.push(words(&["losetup", "--detach", &device]));
        device.into()
    }

    /// A loop device over `file`, and the partitions of its table as the kernel would find them (this machine's may not know GPT).
    fn attach(&mut self, file: &Path, options: &[&str]) -> PathBuf {
        let path = self.attach_plain(file, options);
        let device = path.to_str().unwrap();
        for (number, start, sectors) in partitions(file) {
            let (number, start, sectors) = (number.to_string(), start.to_string(), sectors.to_string());
            if !Path::new(&format!("{device}p{number}")).exists() {
                run(Command::new("addpart").args([device, &number, &start, &sectors]));
            }
            self.undo.push(words(&["delpart", device, &number]));
        }
        path
    }

    fn detach(&mut self) {
        // What a test that failed left mounted would keep the loop device busy.
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap_or_default();
        for at in mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|at| Path::new(at).starts_with(&self.dir))
        {
            let _ = auroraboot::sys::mount::unmount(at.as_ref(), false);
        }
        while let Some(words) = self.undo.pop() {
            let _ = Command::new(&words[0]).args(&words[1..]).output();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.detach();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether this root may grow a mounted ext4 (`CAP_SYS_RESOURCE`): in containers and on some build machines not even root may.
fn may_grow() -> bool {
    const CAP_SYS_RESOURCE: u64 = 1 << 24;
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let set = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(set.trim(), 16).unwrap() & CAP_SYS_RESOURCE != 0
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Number, first sector and sectors of each partition, as sfdisk reads them.
fn partitions(file: &Path) -> Vec<(u32, u64, u64)> {
    let dump = run(Command::new("sfdisk").arg("-d").arg(file));
    let field = |line: &str, name: &str| {
        let after = line.split(name).nth(1).unwrap_or_else(|| panic!("{name} in {line}"));
        after.trim_start_matches([' ', '=']).split([',', ' ']).next().unwrap().parse().unwrap()
    };
    let lines = dump.lines().filter(|line| line.contains(" : start="));
    lines
        .map(|line| {
            let name = line.split(" :").next().unwrap();
            let number = name.trim_start_matches(file.to_str().unwrap()).trim_start_matches('p').parse().unwrap();
            (number, field(line, "start"), field(line, "size"))
        })
        .filter(|(_, _, sectors)| *sectors > 0)
        .collect()
}

/// The disk of an x86 appliance as it is shipped, put on a medium of `bytes`: BIOS boot, FAT `APPLIANCE`, and the seed.
fn gpt_disk(bench: &Bench, bytes: u64) -> PathBuf {
    let path = bench.path("disk.img");
    File::create(&path).unwrap().set_len(110 * MIB).unwrap();
    let table = [
        "--new=1:2048:+3M",
        "--typecode=1:ef02",
        "--new=2:0:+34M",
        "--typecode=2:ef00",
        "--new=3:0:+64M",
        "--typecode=3:8300",
    ];
    run(Command::new("sgdisk").args(table).arg(&path));
    fill(bench, &path, bytes)
}

/// The disk of an arm64 appliance.
fn mbr_disk(bench: &Bench, bytes: u64) -> PathBuf {
    let path = bench.path("disk.img");
    File::create(&path).unwrap().set_len(110 * MIB).unwrap();
    let script = bench.path("table");
    fs::write(&script, "label: dos\nstart=2048, size=69632, type=c, bootable\nstart=71680, size=131072, type=83\n")
        .unwrap();
    let stdin = File::open(&script).unwrap();
    run(Command::new("sfdisk").arg("-q").arg(&path).stdin(stdin));
    fill(bench, &path, bytes)
}

/// The last but one partition becomes the FAT, the last one the seed; then the medium is larger than the image.
fn fill(bench: &Bench, path: &Path, bytes: u64) -> PathBuf {
    let partitions = partitions(path);
    let [.., boot, data] = partitions[..] else { panic!("{partitions:?}") };
    let fat = bench.path("boot.fat");
    File::create(&fat).unwrap().set_len(boot.2 * SECTOR).unwrap();
    run(Command::new("mkfs.vfat").args(["-F", "32", "-n", "APPLIANCE"]).arg(&fat));
    put(path, &fs::read(&fat).unwrap(), boot.1 * SECTOR);
    put(path, &seed(), data.1 * SECTOR);
    OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
    path.to_owned()
}

/// The file system that the builder puts into images.
fn seed() -> Vec<u8> {
    let packed = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/appliance/data.ext4.zst");
    zstd::decode_all(File::open(packed).unwrap()).unwrap()
}

/// Writes what is not zero.
fn put(path: &Path, bytes: &[u8], at: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    for (index, block) in bytes.chunks(4096).enumerate().filter(|(_, block)| block.iter().any(|byte| *byte != 0)) {
        file.write_all_at(block, at + index as u64 * 4096).unwrap();
    }
}

/// What is found on the loop device, in place of all disks of this machine.
fn volumes_on(device: &Path) -> Vec<Volume> {
    disks::volumes(&Host::new()).into_iter().filter(|volume| *volume.disk == *device).collect()
}

fn output(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn run(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = output(command);
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}
