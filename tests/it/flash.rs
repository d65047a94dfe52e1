//! `auroraboot flash` as it is started, on loop devices: what is written, what is refused, and what a person sees.
//!
//! Needs root and loop devices, as the kernel of every distribution has them.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

const MIB: usize = 1 << 20;

/// A directory of this test alone, with its loop devices and mounts; all removed in the end.
struct Bench {
    dir: PathBuf,
    /// Commands that undo what was set up, the last first.
    undo: Vec<Vec<String>>,
}

impl Bench {
    fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("auroraboot-flash-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("state/iso")).unwrap();
        for directory in ["state", "state/iso"] {
            fs::set_permissions(dir.join(directory), fs::Permissions::from_mode(0o700)).unwrap();
        }
        Self { dir, undo: Vec::new() }
    }

    /// A stick: a loop device over `file` in this directory, which is made with so many bytes of 0xee.
    fn stick(&mut self, file: &str, bytes: usize, options: &[&str]) -> String {
        fs::write(self.dir.join(file), vec![0xee; bytes]).unwrap();
        self.attach(file, options)
    }

    fn attach(&mut self, file: &str, options: &[&str]) -> String {
        self.attach_path(&self.dir.join(file), options)
    }

    fn attach_path(&mut self, path: &Path, options: &[&str]) -> String {
        let output = run(Command::new("losetup").args(options).args(["--find", "--show"]).arg(path));
        let device = output.trim().to_owned();
        self.undo.push(vec!["losetup".to_owned(), "--detach".to_owned(), device.clone()]);
        device
    }

    fn undo_last(&mut self) {
        let words = self.undo.pop().unwrap();
        run(Command::new(&words[0]).args(&words[1..]));
    }

    fn mount(&mut self, kind: &str, options: &str, what: &str, at: &str) -> PathBuf {
        let at = self.dir.join(at);
        fs::create_dir_all(&at).unwrap();
        run(Command::new("mount").args(["-t", kind, "-o", options, what]).arg(&at));
        self.undo.push(vec!["umount".to_owned(), at.display().to_string()]);
        at
    }

    fn iso(&self, name: &str, bytes: usize) -> PathBuf {
        let path = self.dir.join(name);
        fs::write(&path, iso(bytes)).unwrap();
        path
    }

    fn bytes(&self, file: &str) -> Vec<u8> {
        fs::read(self.dir.join(file)).unwrap()
    }

    fn flash(&self, words: &[&str]) -> (Option<i32>, String) {
        let state = format!("state_dir={}", self.dir.join("state").display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_auroraboot"));
        let output = command.args(["flash", "--set", &state]).args(words).stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "");
        outcome(&output)
    }

    /// As [`Self::flash`], on a terminal of 80 columns that util-linux's script plays.
    fn terminal(&self, words: &str) -> Terminal {
        let program = env!("CARGO_BIN_EXE_auroraboot");
        let line = format!("stty cols 80 rows 24; exec {program} flash {words}");
        let mut command = Command::new("timeout"); // a text that never comes is to fail the test, not to hang it
        command
            .args(["60", "script", "-q", "-e", "-c", &line, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        Terminal { child: command.spawn().unwrap(), seen: String::new() }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        while let Some(words) = self.undo.pop() {
            let _ = Command::new(&words[0]).args(&words[1..]).status();
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

struct Terminal {
    child: Child,
    seen: String,
}

impl Terminal {
    /// Reads until the screen has shown `text`.
    fn wait_for(&mut self, text: &str) {
        let out = self.child.stdout.as_mut().unwrap();
        let mut byte = [0];
        while !self.seen.contains(text) {
            assert_eq!(out.read(&mut byte).unwrap(), 1, "it ended without {text:?}: {}", self.seen);
            self.seen.push(char::from(byte[0]));
        }
    }

    fn type_in(&mut self, text: &str) {
        self.child.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// Exit code, and all that was shown.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = Vec::new();
        self.child.stdout.take().unwrap().read_to_end(&mut rest).unwrap();
        let code = self.child.wait().unwrap().code();
        (code, self.seen + &String::from_utf8_lossy(&rest))
    }
}

/// What the command says on stdout; it has to succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn outcome(output: &Output) -> (Option<i32>, String) {
    (output.status.code(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// A hybrid ISO of so many bytes: a volume descriptor, an MBR with one partition from sector 64 on, and content.
fn iso(bytes: usize) -> Vec<u8> {
    let mut iso: Vec<u8> = (0..bytes).map(|index| (index / 512 % 251) as u8 + 1).collect();
    iso[..17 * 2048].fill(0);
    let sectors = u32::try_from(bytes / 512).unwrap();
    iso[446 + 4] = 0x17;
    iso[446 + 8..446 + 12].copy_from_slice(&64_u32.to_le_bytes());
    iso[446 + 12..446 + 16].copy_from_slice(&(sectors - 64).to_le_bytes());
    iso[510..512].copy_from_slice(&[0x55, 0xaa]);
    let descriptor = &mut iso[16 * 2048..];
    descriptor[..7].copy_from_slice(b"\x01CD001\x01");
    descriptor[40..72].copy_from_slice(b"COS_LIVE                        ");
    descriptor[80..84].copy_from_slice(&(sectors / 4).to_le_bytes());
    descriptor[128..130].copy_from_slice(&2048_u16.to_le_bytes());
    iso
}

fn hex_digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn two_sticks_get_the_iso_and_lose_what_an_older_table_left_at_their_ends() {
    let mut bench = Bench::new("two");
    let (a, b) = (bench.stick("a", 24 * MIB, &["--partscan"]), bench.stick("b", 16 * MIB, &[]));
    let old_partition = add_partition(&a);
    let iso = bench.iso("kairos.iso", 10 * MIB + 2048);
    let content = fs::read(&iso).unwrap();
    fs::write(bench.dir.join("kairos.iso.sha256"), format!("{}  kairos.iso\n", hex_digest(&content))).unwrap();
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &format!("{a},{b}"), "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    for (file, device) in [("a", &a), ("b", &b)] {
        let stick = bench.bytes(file);
        assert!(stick[..content.len()] == content[..], "{file}");
        let (middle, end) = stick[content.len()..].split_at(stick.len() - MIB - content.len());
        assert!(middle.iter().all(|byte| *byte == 0xee), "{file}: what is in the way of nothing is left alone");
        assert!(end.iter().all(|byte| *byte == 0), "{file}: no stale backup GPT");
        let told = format!("Flash: {device} is good: 10.5 MB written, read back and equal in 0:0");
        assert!(err.contains(&told) && err.contains(&hex_digest(&content)), "{err}");
        assert!(
            err.contains(&format!("Flash: {device}: the file ")) && err.contains("; on it now: nothing known"),
            "{err}"
        );
    }
    assert!(!err.contains("sha256, so damage") && !err.contains('\x1b'), "{err}");
    // The kernel has read the partition table anew, if it knows any; it has forgotten the old one in any case.
    let start = fs::read_to_string(old_partition.join("start")).unwrap_or_default();
    assert!(["", "64\n"].contains(&start.as_str()), "{start}");
    // And the disk is free again.
    assert!(OpenOptions::new().write(true).custom_flags(libc::O_EXCL).open(&a).is_ok());
}

#[test]
fn without_a_name_the_newest_custom_iso_of_the_state_directory_is_written() {
    let mut bench = Bench::new("newest");
    let stick = bench.stick("a", 8 * MIB, &[]);
    let (code, err) = bench.flash(&["--to", &stick, "--yes"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("there is no ISO in ") && err.contains("state/iso; name one"), "{err}");
    bench.iso("state/iso/kairos.iso", 4 * MIB);
    bench.iso("state/iso/kairos.iso.custom.iso", 5 * MIB);
    let (code, err) = bench.flash(&["--to", &stick, "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("kairos.iso.custom.iso: the custom ISO, which contains the cloud config"), "{err}");
    assert!(bench.bytes("a")[..5 * MIB] == iso(5 * MIB)[..]);
    fs::set_permissions(bench.dir.join("state/iso"), fs::Permissions::from_mode(0o777)).unwrap();
    let (code, err) = bench.flash(&["--to", &stick, "--yes"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("can be written by other users"), "{err}");
    let (code, err) = bench.flash(&["--set", "flavor=x", "--to", &stick]);
    assert_eq!(code, Some(2));
    assert!(err.contains("--set flavor: flash uses no key but state_dir"), "{err}");
}

#[test]
fn a_stick_with_blocks_of_4096_bytes_is_written_and_warned_of() {
    let mut bench = Bench::new("4096");
    let stick = bench.stick("a", 8 * MIB, &["--sector-size", "4096"]);
    let iso = bench.iso("a.iso", 3 * MIB + 2048);
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &stick, "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("has blocks of 4096 bytes"), "{err}");
    let bytes = bench.bytes("a");
    assert!(bytes[..3 * MIB + 2048] == fs::read(&iso).unwrap()[..]);
    assert_eq!(bytes[3 * MIB + 2048..3 * MIB + 4097], [&[0; 2048][..], &[0xee]].concat());
}

#[test]
fn a_disk_in_use_is_refused_and_not_touched() {
    let mut bench = Bench::new("use");
    let iso = bench.iso("a.iso", 3 * MIB);
    fs::write(bench.dir.join("disk"), table(16 * MIB)).unwrap();
    let disk = bench.attach("disk", &["--partscan"]);
    add_partition(&disk);
    let partition = format!("{disk}p1");
    run(Command::new("mkfs.ext4").args(["-q", "-L", "PRECIOUS", &partition]));
    let refused = |bench: &Bench, device: &str, message: &str| {
        let before = Sha256::digest(bench.bytes("disk"));
        let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", device, "--yes", "--allow-internal"]);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(message), "{err}");
        assert_eq!(Sha256::digest(bench.bytes("disk")), before, "{message}");
    };
    refused(
        &bench,
        &partition,
        &format!("{partition} is a partition of {disk}, and an ISO takes the whole stick: --to {disk}"),
    );
    let at = bench.mount("ext4", "ro", &partition, "precious");
    refused(&bench, &disk, &format!("{disk} is in use: {partition} is mounted at {}", at.display()));
    bench.undo_last();

    // A loop device over the partition, as for an encrypted or nested disk.
    let inner = bench.attach_path(Path::new(&partition), &[]);
    let name = inner.trim_start_matches("/dev/");
    refused(&bench, &disk, &format!("{disk} is in use: {partition} is what {name} stands on"));
    bench.undo_last();

    // What no file of /proc tells, as a mount of another container: the kernel's own claim.
    let claim = OpenOptions::new().read(true).custom_flags(libc::O_EXCL).open(&partition).unwrap();
    refused(&bench, &disk, &format!("{disk} is in use by something that this process cannot see"));
    drop(claim);
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &disk, "--yes"]);
    assert_eq!(code, Some(0), "{err}");
    assert!(err.contains("; on it now: MBR with ext2/3/4 \"PRECIOUS\" 8.4 MB"), "{err}");
}

/// Gives the disk a partition 1, as its table would where the kernel reads tables. Returns its directory in `/sys`.
fn add_partition(disk: &str) -> PathBuf {
    let name = disk.trim_start_matches("/dev/");
    let directory = PathBuf::from(format!("/sys/block/{name}/{name}p1"));
    if !directory.exists() {
        run(Command::new("addpart").args([disk, "1", "2048", "16384"]));
    }
    directory
}

/// A disk of so many bytes with one partition.
fn table(bytes: usize) -> Vec<u8> {
    let mut disk = iso(bytes);
    disk[512..].fill(0);
    disk[446 + 8..446 + 16].copy_from_slice(&[0, 8, 0, 0, 0, 0x40, 0, 0]); // sectors 2048 to 18431
    disk
}

#[test]
fn swap_is_in_use() {
    let mut bench = Bench::new("swap");
    let stick = bench.stick("a", 8 * MIB, &[]);
    run(Command::new("mkswap").args(["-q", &stick]));
    run(Command::new("swapon").arg(&stick));
    bench.undo.push(vec!["swapoff".to_owned(), stick.clone()]);
    let iso = bench.iso("a.iso", 3 * MIB);
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &stick, "--yes"]);
    assert_eq!(code, Some(2));
    assert!(err.contains(&format!("{stick} is in use: {stick} is swap")), "{err}");
}

#[test]
fn each_wrong_target_has_its_own_sentence() {
    let mut bench = Bench::new("wrong");
    let stick = bench.stick("a", 8 * MIB, &[]);
    let small = bench.stick("small", MIB, &[]);
    let guarded = bench.stick("guarded", 8 * MIB, &["--read-only"]);
    let iso = bench.iso("a.iso", 3 * MIB);
    let link = bench.dir.join("by-id");
    std::os::unix::fs::symlink(&stick, &link).unwrap();
    let file = bench.dir.join("file");
    fs::write(&file, "").unwrap();
    let twice = format!("{stick},{}", link.display());
    let root = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let root = root.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    let root = root.split(" - ").nth(1).unwrap().split(' ').nth(1).unwrap().to_owned();
    let cases = [
        (file.to_str().unwrap(), "file is a file, not a disk; ".to_owned()),
        ("/dev", "/dev is a directory, not a disk; ".to_owned()),
        ("/dev/null", "/dev/null is a character device, not a disk; ".to_owned()),
        ("/dev/sdzz", "there is no /dev/sdzz; ".to_owned()),
        (&stick[5..], format!("there is no {}, did you mean {stick}?; ", &stick[5..])),
        (&twice, format!("by-id is {stick} again; name each stick once")),
        (&small, format!("{small} is too small: it holds 1.0 MB, the ISO needs 3.1 MB (2097152 bytes more)")),
        (&guarded, format!("{guarded} is write-protected; ")),
        (&root, " holds the running system (/)".to_owned()),
    ];
    for (to, message) in cases {
        if to == root && !root.starts_with("/dev/") {
            continue; // the system is on no disk
        }
        let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", to, "--yes", "--allow-internal"]);
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(&message), "{message}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &stick]);
    assert_eq!(code, Some(2));
    assert!(err.contains(&format!("this is no terminal: add --yes if everything on {stick} may be lost")), "{err}");
    let (code, err) = bench.flash(&[file.to_str().unwrap(), "--to", &stick, "--yes"]);
    assert_eq!(code, Some(2));
    assert!(err.contains("file is neither an ISO 9660 image nor a disk image with partitions"), "{err}");
    let (code, err) = bench.flash(&[]);
    assert_eq!(code, Some(2));
    assert!(
        err.contains("which stick? ") || err.contains("no USB stick, SD card or other removable disk is here"),
        "{err}"
    );
    assert!(bench.bytes("a").iter().all(|byte| *byte == 0xee), "nothing was written");
}

#[test]
fn who_may_not_open_the_device_is_told_to_be_root() {
    let mut bench = Bench::new("root");
    let stick = bench.stick("a", 8 * MIB, &[]);
    let iso = bench.iso("a.iso", 3 * MIB);
    let program = bench.dir.join("auroraboot");
    fs::copy(env!("CARGO_BIN_EXE_auroraboot"), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&program);
    let output = command.args(["flash", iso.to_str().unwrap(), "--to", &stick, "--yes"]).output().unwrap();
    let (code, err) = outcome(&output);
    assert_eq!(code, Some(2));
    assert!(err.contains(&format!("{stick} may only be opened by root: sudo auroraboot flash")), "{err}");
}

#[test]
fn a_lock_is_waited_for_and_then_respected() {
    let mut bench = Bench::new("lock");
    let stick = bench.stick("a", 8 * MIB, &[]);
    let iso = bench.iso("a.iso", 3 * MIB);
    let other = File::open(&stick).unwrap();
    other.lock_shared().unwrap(); // as udev does while it looks
    let started = Instant::now();
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &stick, "--yes"]);
    assert_eq!(code, Some(2));
    assert!(err.contains(&format!("another program holds the lock of {stick}")), "{err}");
    assert!(started.elapsed() >= Duration::from_secs(5));
    let mut child = Command::new(env!("CARGO_BIN_EXE_auroraboot"))
        .args(["flash", iso.to_str().unwrap(), "--to", &stick, "--yes"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().contains("There is no "), "it has come as far as the lock");
    other.unlock().unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_stick_that_fails_does_not_stop_the_other_and_does_not_boot() {
    let mut bench = Bench::new("eio");
    // A loop device over a file that its file system has no room for answers with an I/O error in the middle.
    bench.mount("tmpfs", "size=7m", "tmpfs", "small");
    File::create(bench.dir.join("small/disk")).unwrap().set_len(64 << 20).unwrap();
    let bad = bench.attach("small/disk", &[]);
    let good = bench.stick("a", 24 * MIB, &[]);
    let iso = bench.iso("a.iso", 12 * MIB);
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &bad, "--to", &good, "--yes"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(&format!("Error: {bad}: writing failed at ")), "{err}");
    assert!(err.contains("; it does not boot now; try another port, then another stick"), "{err}");
    assert!(err.contains(&format!("Flash: {good} is good: ")), "{err}");
    assert!(err.ends_with(&format!("auroraboot: not flashed: {bad}\n")), "{err}");
    assert!(bench.bytes("a")[..12 * MIB] == fs::read(&iso).unwrap()[..]);
    let mut head = vec![1; MIB];
    File::open(bench.dir.join("small/disk")).unwrap().read_exact_at(&mut head, 0).unwrap();
    assert!(head.iter().all(|byte| *byte == 0));
}

#[test]
fn a_damaged_iso_leaves_a_stick_that_does_not_boot() {
    let mut bench = Bench::new("damaged");
    let stick = bench.stick("a", 16 * MIB, &[]);
    let iso = bench.iso("a.iso", 10 * MIB);
    let wrong = "0".repeat(64);
    fs::write(bench.dir.join("a.iso.sha256"), format!("{wrong}  a.iso\n")).unwrap();
    let (code, err) = bench.flash(&[iso.to_str().unwrap(), "--to", &stick, "--yes"]);
    assert_eq!(code, Some(1), "{err}");
    let actual = hex_digest(&fs::read(&iso).unwrap());
    assert!(
        err.contains(&format!("the ISO is damaged: its sha256 is sha256:{actual}, and sha256:{wrong} stands in")),
        "{err}"
    );
    assert!(err.contains("; it does not boot now\n"), "{err}");
    assert!(bench.bytes("a")[..MIB].iter().all(|byte| *byte == 0));
}

#[test]
fn a_disk_image_that_was_cut_is_refused_before_anything_is_written_and_called_an_image() {
    let mut bench = Bench::new("cut");
    let stick = bench.stick("a", 16 * MIB, &[]);
    for label in ["gpt", "dos"] {
        let path = bench.dir.join(format!("{label}.img"));
        File::create(&path).unwrap().set_len(8 << 20).unwrap();
        let script = format!("label: {label}\nstart=2048, size=4096\nstart=6144, size=8192\n");
        let mut sfdisk = Command::new("sfdisk").arg("-q").arg(&path).stdin(Stdio::piped()).spawn().unwrap();
        sfdisk.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        let whole = fs::read(&path).unwrap();
        let flash = |bench: &Bench| bench.flash(&[path.to_str().unwrap(), "--to", &stick, "--yes"]);

        fs::write(&path, &whole[..3 * MIB]).unwrap();
        let (code, err) = flash(&bench);
        assert_eq!((code, err.lines().count()), (Some(2), 1), "{err}");
        // A GPT ends with its backup, the disk with it; the second partition ends at sector 14336.
        let wanted = if label == "gpt" { whole.len() } else { 14_336 * 512 };
        let message = format!(".img is cut short: it has 3145728 bytes, and {wanted} are needed; download it again");
        assert!(err.contains(&message), "{err}");
        assert!(bench.bytes("a").iter().all(|byte| *byte == 0xee), "nothing was written");

        fs::write(&path, &whole).unwrap();
        let (code, err) = flash(&bench);
        assert_eq!(code, Some(0), "{err}");
        assert!(err.contains("so damage to the image itself would not be noticed") && !err.contains("ISO"), "{err}");
        fs::write(bench.dir.join("a"), vec![0xee; 16 * MIB]).unwrap();
    }
    let small = bench.stick("small", MIB, &[]);
    let image = bench.dir.join("gpt.img");
    let (code, err) = bench.flash(&[image.to_str().unwrap(), "--to", &small, "--yes"]);
    assert_eq!(code, Some(2), "{err}");
    assert!(err.contains(&format!("{small} is too small: it holds 1.0 MB, the image needs 8.4 MB")), "{err}");
}

#[test]
fn a_person_is_asked_and_sees_how_far_it_is() {
    let mut bench = Bench::new("ask");
    let stick = bench.stick("a", 40 * MIB, &[]);
    let iso = bench.iso("a.iso", 32 * MIB);
    let words = format!("{} --to {stick}", iso.display());
    for answer in ["n\n", "\n", "yess\n"] {
        let mut terminal = bench.terminal(&words);
        terminal.wait_for("Everything on it is lost. [y/N] ");
        terminal.type_in(answer);
        let (code, seen) = terminal.end();
        assert_eq!(code, Some(1), "{seen}");
        assert!(seen.contains("auroraboot: nothing was written"), "{seen}");
        assert!(bench.bytes("a").iter().all(|byte| *byte == 0xee));
    }
    let mut terminal = bench.terminal(&words);
    let question = format!("Write a.iso (33.6 MB) to {stick} (the file ");
    terminal.wait_for(&question);
    terminal.wait_for(", 41.9 MB)? Everything on it is lost. [y/N] ");
    terminal.type_in("y\n");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(0), "{seen}");
    assert!(seen.contains(&format!("\r\x1b[J{stick}  writing     0 %  0 B of 33.6 MB\r")), "{seen:?}");
    assert!(seen.contains(&format!("Flash: {stick} is good: ")), "{seen}");
    assert!(bench.bytes("a")[..32 * MIB] == fs::read(&iso).unwrap()[..]);
}

#[test]
fn ctrl_c_leaves_a_stick_that_does_not_boot_and_says_so() {
    let mut bench = Bench::new("stop");
    // Large enough that nobody flashes it between the line and the key.
    let iso = bench.iso("a.iso", 17 * 2048 + 100 * 2048);
    let descriptor = u32::to_le_bytes(1 << 20);
    let file = OpenOptions::new().write(true).open(&iso).unwrap();
    file.write_all_at(&descriptor, 16 * 2048 + 80).unwrap();
    file.set_len(2 << 30).unwrap();
    File::create(bench.dir.join("a")).unwrap().set_len(3 << 30).unwrap();
    let stick = bench.attach("a", &[]);
    let mut terminal = bench.terminal(&format!("{} --to {stick} --yes", iso.display()));
    terminal.wait_for("writing     0 %");
    terminal.type_in("\x03");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(1), "{seen}");
    assert!(seen.contains(&format!("Error: {stick}: stopped after ")), "{seen}");
    assert!(seen.contains("; it does not boot now; flash it again"), "{seen}");
    let mut head = vec![1; MIB];
    File::open(bench.dir.join("a")).unwrap().read_exact_at(&mut head, 0).unwrap();
    assert!(head.iter().all(|byte| *byte == 0));
}
