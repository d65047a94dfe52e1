//! The program itself, in a network namespace of its own: whole runs, and everything that goes wrong in them.

mod attended;
mod daemons;
mod faults;
mod hosts;
mod media;
mod pulls;
mod serving;
mod stops;
mod warm;

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use auroraboot::iso::read::Image as Image9660;
use auroraboot::units::Arch;

use crate::boot::{Lan, PATIENCE, ip, within};
use crate::registry::fake::{FakeRegistry, Reply, Request};
use crate::registry::real::{Blob, Image, TAR_GZIP, TempDir};
use crate::rootfs::layers::{TestEntry, directory, file, gzip, symlink, tar};

/// No servers: the program ends when the ISOs are made.
const MEDIA_ONLY: &[&str] = &["disable_netboot=true", "disable_http_server=true"];

/// A host with one network card, a registry on its loopback, and machines on the other end of the cable.
pub struct Site {
    lan: Lan,
    dir: TempDir,
}

impl Site {
    fn new(name: &str) -> Self {
        Self { lan: Lan::named("ab-run"), dir: TempDir::new(&format!("run-{name}")) }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// A registry that misbehaves as `handler` says, in the host's namespace.
    fn registry(
        &self,
        image: &Image,
        handler: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static,
    ) -> FakeRegistry {
        within(&self.lan.server, || FakeRegistry::start(image, handler))
    }

    fn good_registry(&self, image: &Image) -> FakeRegistry {
        self.registry(image, |_, _| None)
    }

    /// The program with an image and this site's state directory.
    fn command(&self, image: &str, settings: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_auroraboot"));
        self.arguments(&mut command, image, settings);
        command
    }

    fn arguments(&self, command: &mut Command, image: &str, settings: &[&str]) {
        command.args(["--set", &format!("container_image={image}")]);
        command.args(["--set", &format!("state_dir={}", self.state().display())]);
        for setting in settings {
            command.args(["--set", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            command.env_remove(name); // the tests' registry is on loopback
        }
    }

    fn start(&self, mut command: Command) -> Run {
        Run::new(within(&self.lan.server, || command.spawn().unwrap()))
    }

    /// Pulls and builds, without serving.
    fn build(&self, image: &str) -> Outcome {
        self.start(self.command(image, MEDIA_ONLY)).outcome()
    }

    /// A file of the media.
    fn iso(&self, name: &str) -> PathBuf {
        self.state().join("iso").join(name)
    }

    /// What is in the ISO under a path.
    fn in_iso(&self, iso: &str, path: &str) -> Vec<u8> {
        let file = File::open(self.iso(iso)).unwrap();
        let image = Image9660::open(&file, file.metadata().unwrap().len()).unwrap();
        let entry = image.find(path).unwrap().unwrap_or_else(|| panic!("{iso} has no {path}"));
        let mut bytes = Vec::new();
        for extent in entry.extents {
            let at = bytes.len();
            bytes.resize(at + usize::try_from(extent.length).unwrap(), 0);
            file.read_exact_at(&mut bytes[at..], extent.offset).unwrap();
        }
        bytes
    }

    /// Whether `sha256sum -c` accepts every checksum beside the ISOs.
    fn verify_checksums(&self) {
        let checked =
            Command::new("sh").args(["-c", "sha256sum --check --strict *.sha256"]).current_dir(self.iso("")).output();
        let checked = checked.unwrap();
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
    }

    /// Starts, and waits until machines are served.
    fn serve(&self, image: &str, settings: &[&str]) -> Run {
        let mut run = self.start(self.command(image, settings));
        run.wait_for("Ready: ");
        run
    }

    /// Everything half-written in the state directory.
    fn leftovers(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut directories = vec![self.state()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "part" || extension == "new") {
                    found.push(path);
                }
            }
        }
        found
    }
}

/// A started program. Nothing of it outlives the test.
struct Run {
    child: Child,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    /// What it has said on stderr.
    log: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    out: String,
    log: Vec<String>,
}

impl Run {
    fn new(mut child: Child) -> Self {
        let stdout = lines(child.stdout.take());
        let stderr = lines(child.stderr.take());
        Self { child, stdout, stderr, log: Vec::new() }
    }

    /// Waits for a line on stderr that contains `text`.
    fn wait_for(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    self.log.push(line);
                    if let Some(line) = self.log.last().filter(|line| line.contains(text)) {
                        return line.clone();
                    }
                }
                Err(error) => panic!("{text:?}: {error}; it said {:#?}", self.log),
            }
        }
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(status.unwrap().success());
    }

    /// Waits for the end, which has to come soon.
    fn outcome(mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.stderr.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => self.log.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("it does not end; it said {:#?}", self.log),
            }
        }
        let out = self.stdout.iter().map(|line| line + "\n").collect();
        let code = self.child.wait().unwrap().code();
        Outcome { code, out, log: std::mem::take(&mut self.log) }
    }

    fn status_value(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of a stream, read by a thread so that the program never waits for the test.
fn lines(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, lines) = channel();
    if let Some(stream) = stream {
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    lines
}

impl Outcome {
    /// The one line that is no log line, after the program's name; all others have the seed's form.
    fn error(&self) -> &str {
        let errors: Vec<&str> = self.log.iter().filter_map(|line| line.strip_prefix("auroraboot: ")).collect();
        assert_eq!(errors.len(), 1, "{self:#?}");
        let is_log = |line: &&String| !has_stamp(line) && !line.starts_with("auroraboot: ");
        let strange: Vec<&String> = self.log.iter().filter(is_log).collect();
        assert!(strange.is_empty(), "{strange:#?} in {self:#?}");
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{self:#?}");
        errors[0]
    }

    fn succeeded(&self) -> &Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    fn said(&self, text: &str) -> bool {
        self.log.iter().any(|line| line.contains(text))
    }

    /// Whether it used what an earlier run had made.
    fn reused(&self) -> bool {
        self.succeeded().said("Build: Using what an earlier run made")
    }
}

/// Whether a line begins as `2023/02/08 14:27:30 `.
fn has_stamp(line: &str) -> bool {
    let pattern = b"dddd/dd/dd dd:dd:dd ";
    let fits = |(found, wanted): (u8, &u8)| if *wanted == b'd' { found.is_ascii_digit() } else { found == *wanted };
    line.len() >= pattern.len() && line.bytes().zip(pattern).all(fits)
}

fn kernel() -> String {
    "kernel ".repeat(1000)
}

/// The smallest tree that boots.
fn bootable() -> Vec<TestEntry> {
    vec![
        directory("boot"),
        file("boot/vmlinuz-6.1", kernel()),
        symlink("boot/vmlinuz", "vmlinuz-6.1"),
        file("boot/initrd.img-6.1", "initrd ".repeat(1000)),
        directory("lib/modules/6.1"),
        file("etc/os-release", "PRETTY_NAME=\"Test OS 1\"\n"),
    ]
}

fn bootable_with(more: TestEntry) -> Vec<TestEntry> {
    let mut entries = bootable();
    entries.push(more);
    entries
}

fn image(entries: &[TestEntry]) -> Image {
    image_of(gzip(&tar(entries)))
}

/// An image of one layer, whatever its bytes are.
fn image_of(layer: Vec<u8>) -> Image {
    Image::new(Arch::host().name(), vec![Blob::new(TAR_GZIP, layer)])
}

/// The image by digest, as one names it who wants the same every time.
fn pinned(registry: &FakeRegistry, image: &Image) -> String {
    format!("127.0.0.1:{}/it/img@{}", registry.port, image.top().digest())
}

/// A tmpfs of that many MiB; unmounted when the test ends.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn mount(path: &Path, mib: u32) -> Self {
        std::fs::create_dir_all(path).unwrap();
        mount(&["-t", "tmpfs", "-o", &format!("size={mib}m,mode=0700"), "tmpfs"], path);
        Self(path.to_owned())
    }

    pub fn enlarge(&self, mib: u32) {
        mount(&["-o", &format!("remount,size={mib}m")], &self.0);
    }
}

fn mount(arguments: &[&str], path: &Path) {
    let output = Command::new("mount").args(arguments).arg(path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
