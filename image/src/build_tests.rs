//! The builder as a whole, on made-up packages, judged by the tools that people have.

use std::process::Command;

use super::*;
use crate::modinfo::tests::module;

/// A directory that goes away.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("image-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn write_xz(&self, path: &str, content: &[u8]) {
        let mut encoder = liblzma::read::XzEncoder::new(content, 0);
        let mut compressed = Vec::new();
        encoder.read_to_end(&mut compressed).unwrap();
        self.write(path, compressed);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn run(program: &str, arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> String {
    let mut command = Command::new(program);
    for argument in arguments {
        command.arg(argument.as_ref());
    }
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}; tests/packages installs it"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// dpkg-deb makes a package of a directory; into the cache with it, and a line for the lock comes back.
fn package(scratch: &Scratch, name: &str, architecture: &str) -> String {
    scratch.write(
        &format!("{name}/DEBIAN/control"),
        format!("Package: {name}\nVersion: 1\nArchitecture: {architecture}\nMaintainer: t <t@test>\nDescription: t\n"),
    );
    scratch.write(&format!("{name}/usr/share/doc/{name}/copyright"), format!("of {name}"));
    let deb = scratch.0.join(format!("{name}.deb"));
    run("dpkg-deb", &[&"-Zxz", &"--root-owner-group", &"-b", &scratch.0.join(name), &deb]);
    let bytes = fs::read(&deb).unwrap();
    let sha256 = crate::hex(&Sha256::digest(&bytes));
    scratch.write(&format!("debs/{sha256}.deb"), bytes);
    format!("{name}\t{architecture}\t1\t{sha256}\t0\tsource-of-{name}\t1\tMIT\n")
}

const BOARD: &str = r#"
title = "Made up"
architecture = "arm64"
target = "none"
kernel = "linux-image-"
consoles = ["ttyS0,115200"]
watchdog = false
command_line = "panic=10"
module_lists = ["common/net.list"]
firmware = ["firmware-x"]
[disk]
table = "TABLE"
boot_mib = 160
[esp]
"EFI/BOOT/BOOTAA64.EFI" = "loader:usr/lib/loader.efi"
[boot]
"vmlinuz" = "kernel:boot/vmlinuz-{version}"
"kernel8.img" = "gzip:kernel:boot/vmlinuz-{version}"
"cmdline.txt" = "text:cmdline.txt"
"#;

/// A kernel with three modules, firmware, a boot loader, and a board for each kind of partition table.
fn made_up(scratch: &Scratch) -> Paths {
    let folder = "linux-image-6.0/usr/lib/modules/6.0";
    scratch.write("linux-image-6.0/boot/vmlinuz-6.0", "the kernel");
    scratch.write(&format!("{folder}/modules.builtin"), "kernel/lib/always.ko\n");
    scratch.write_xz(
        &format!("{folder}/kernel/drivers/net/card-a.ko.xz"),
        &module(&[
            "alias=pci:v1*",
            "depends=helper,always",
            "softdep=pre: phy",
            "firmware=card/a.fw",
            "firmware=none.fw",
        ]),
    );
    scratch.write_xz(&format!("{folder}/kernel/lib/helper.ko.xz"), &module(&["depends="]));
    scratch.write_xz(&format!("{folder}/kernel/drivers/phy/phy.ko.xz"), &module(&["alias=phy:x"]));
    scratch.write_xz(&format!("{folder}/kernel/drivers/gpu/unwanted.ko.xz"), &module(&[]));
    scratch.write("firmware-x/usr/lib/firmware/card/a.fw", "firmware");
    scratch.write("loader/usr/lib/loader.efi", "MZ");
    let lock: String = [("linux-image-6.0", "arm64"), ("firmware-x", "all"), ("loader", "arm64")]
        .map(|(name, architecture)| package(scratch, name, architecture))
        .concat();
    scratch.write("debs.lock", lock);
    scratch.write("board/common/net.list", "drivers/net/ # comment\n\n?not-here\n");
    for table in ["gpt", "mbr"] {
        scratch.write(&format!("board/{table}/board.toml"), BOARD.replace("TABLE", table));
        scratch.write(&format!("board/{table}/cmdline.txt"), "@command_line@");
    }
    scratch.write("init", "the binary");
    Paths {
        tree: Path::new(env!("CARGO_MANIFEST_DIR")).join(".."),
        boards: scratch.0.join("board"),
        lock: scratch.0.join("debs.lock"),
        debs: scratch.0.join("debs"),
        out: scratch.0.join("out"),
        binary: Some(scratch.0.join("init")),
    }
}

/// The partition as a file.
fn cut(image: &Path, number: usize, to: &Path) -> PathBuf {
    let dump = run("sfdisk", &[&"--dump", &image]);
    let row = dump.lines().filter(|line| line.contains("start=")).nth(number - 1).unwrap();
    let field = |name: &str| {
        let text = row.split_once(name).unwrap().1.split(',').next().unwrap();
        text.trim().parse::<usize>().unwrap() * 512
    };
    let (start, size) = (field("start="), field("size="));
    fs::write(to, &fs::read(image).unwrap()[start..start + size]).unwrap();
    to.to_owned()
}

#[test]
fn tools_find_nothing_wrong_and_two_builds_are_equal() {
    let scratch = Scratch::new("build");
    let mut paths = made_up(&scratch);
    let made = build(&paths, "gpt").unwrap();
    assert_eq!(made.modules, 3);
    run("sfdisk", &[&"--verify", &made.image]);
    assert!(run("sgdisk", &[&"--verify", &made.image]).contains("No problems found"));
    for (number, name) in [(1, "esp"), (2, "boot")] {
        run("fsck.vfat", &[&"-n", &cut(&made.image, number, &scratch.0.join(name))]);
    }
    run("e2fsck", &[&"-fn", &cut(&made.image, 3, &scratch.0.join("data"))]);
    let file = |name: &str| run("mtype", &[&"-i", &scratch.0.join("boot"), &format!("::{name}")]);
    assert_eq!((file("vmlinuz"), file("cmdline.txt")), ("the kernel".into(), "panic=10".into()));
    assert_eq!(file("licences/firmware-x.txt"), "of firmware-x");
    assert!(file("licences/sources.txt").contains("source-of-linux-image-6.0 1"));

    paths.out = scratch.0.join("again");
    let again = build(&paths, "gpt").unwrap();
    assert_eq!((made.sha256, made.compressed_bytes), (again.sha256, again.compressed_bytes));
    run("cmp", &[&made.image, &again.image]);
    let sums = run("cat", &[&with_suffix(&again.image, "sha256")]);
    assert_eq!(sums.lines().count(), 2);
    assert!(run("sha256sum", &[&again.image]).starts_with(&sums[..64]));
}

#[test]
fn small_boards_get_a_plain_master_boot_record() {
    let scratch = Scratch::new("mbr");
    let made = build(&made_up(&scratch), "mbr").unwrap();
    run("sfdisk", &[&"--verify", &made.image]);
    let dump = run("sfdisk", &[&"--dump", &made.image]);
    assert!(dump.contains("label: dos") && dump.contains("type=c, bootable") && dump.contains("type=83"), "{dump}");
    let boot = cut(&made.image, 1, &scratch.0.join("boot"));
    run("fsck.vfat", &[&"-n", &boot]);
    run("mcopy", &[&"-i", &boot, &"::kernel8.img", &"::initrd.img", &scratch.0]);
    assert_eq!(run("gzip", &[&"-dc", &scratch.0.join("kernel8.img")]), "the kernel");

    let initrd = fs::read(scratch.0.join("initrd.img")).unwrap();
    let text = String::from_utf8_lossy(&initrd);
    assert!(text.contains("board=mbr\nconsole=ttyS0,115200\nbuild_time="));
    assert!(text.contains("kernel/drivers/net/card-a.ko.xz: kernel/lib/helper.ko.xz\n"));
    assert!(text.contains("alias pci:v1* card_a\n") && text.contains("softdep card_a pre: phy\n"));
    assert!(text.contains("lib/firmware/card/a.fw\0") && !text.contains("none.fw\0") && !text.contains("unwanted"));
}

#[test]
fn what_is_missing_is_named() {
    let scratch = Scratch::new("missing");
    let mut paths = made_up(&scratch);
    let refused = |paths: &Paths, id: &str| crate::chain(&build(paths, id).unwrap_err());
    assert!(refused(&paths, "rpi9").contains("there are: gpt, mbr"));
    let binary = paths.binary.replace(scratch.0.join("nothing"));
    assert!(refused(&paths, "gpt").contains("cargo build --release --target none"));
    paths.binary = binary;
    // A package that is another than the lock names.
    let lock = fs::read_to_string(&paths.lock).unwrap();
    let sha256 = lock.split('\t').nth(3).unwrap();
    let deb = paths.debs.join(format!("{sha256}.deb"));
    for entry in fs::read_dir(&paths.debs).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "tar") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::write(&deb, "another").unwrap();
    assert!(refused(&paths, "gpt").contains("has sha256"));
    fs::remove_file(&deb).unwrap();
    assert!(refused(&paths, "gpt").contains("run image/debs"));
    // A kernel's name that no package has.
    fs::write(&paths.lock, "# nothing\n").unwrap();
    assert!(refused(&paths, "gpt").contains("image/debs --update-lock"));
}

/// Every board of the tree says what the builder understands, and its lists can be read.
#[test]
fn the_boards_of_the_tree_are_understood() {
    let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../board");
    let known = board::known(&boards).unwrap();
    assert!(known.len() >= 3, "{known:?}");
    for id in known {
        let board = Board::read(&boards, &id).unwrap();
        assert!(board.wanted_modules(&boards).unwrap().len() > 10, "{id}");
        assert!(board.command_line.contains("panic=10"), "{id}");
        let serial = board.consoles.iter().filter(|console| console.contains(','));
        let last = board.command_line.split_whitespace().filter_map(|word| word.strip_prefix("console=")).next_back();
        assert_eq!(last, serial.map(String::as_str).next(), "{id}: the last console= is the serial one");
        assert!(board.directory.join("README.md").is_file(), "{id} has no README.md");
    }
}
