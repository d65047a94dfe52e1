//! `auroraboot cache` and `auroraboot pull`, as somebody types them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::registry::fake::FakeRegistry;
use crate::registry::real::{Blob, Image, TAR_GZIP, TempDir};
use crate::rootfs::layers::{TestEntry, directory, file, gzip, symlink, tar};
use auroraboot::units::Arch;

/// A state directory, and images that differ in a file.
struct Desk {
    dir: TempDir,
}

impl Desk {
    fn new(name: &str) -> Self {
        Self { dir: TempDir::new(&format!("cache-{name}")) }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_auroraboot"));
        command.args(words).args(["--set", &format!("state_dir={}", self.state().display())]);
        command.stdin(Stdio::null()).env("TZ", "UTC").env("no_proxy", "127.0.0.1");
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    /// What a command that succeeds prints.
    fn print(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn build(&self, registry: &FakeRegistry, more: &[&str]) -> Output {
        let image = format!("container_image={}", registry.name());
        let base = ["--set", &image, "--set", "disable_netboot=true", "--set", "disable_http_server=true"];
        let output = self.run(&[&base, more].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output
    }

    fn blobs(&self) -> PathBuf {
        self.state().join("blobs/sha256")
    }
}

fn image(motd: &str) -> Image {
    let entries: Vec<TestEntry> = vec![
        directory("boot"),
        file("boot/vmlinuz-6.1", "kernel ".repeat(1000)),
        symlink("boot/vmlinuz", "vmlinuz-6.1"),
        file("boot/initrd.img-6.1", "initrd ".repeat(1000)),
        directory("lib/modules/6.1"),
    ];
    let own = vec![file("etc/motd", motd.repeat(5_000))];
    let layer = |entries: &[TestEntry]| Blob::new(TAR_GZIP, gzip(&tar(entries)));
    Image::new(Arch::host().name(), vec![layer(&entries), layer(&own)])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Numbers, digests and dates give way to `#`.
fn masked(text: &str) -> String {
    let mut masked = String::new();
    for word in text.split_inclusive([' ', '\n']) {
        let (body, end) = word.split_at(word.trim_end().len());
        let is_value = body.starts_with("sha256:") || body.starts_with(|c: char| c.is_ascii_digit());
        let end_mark = if body.ends_with(',') { "," } else { "" };
        masked.push_str(if is_value { "#" } else { body });
        masked.push_str(if is_value { end_mark } else { "" });
        masked.push_str(end);
    }
    masked
}

#[test]
fn the_list_says_what_is_there_why_and_how_big() {
    let desk = Desk::new("list");
    let registry = FakeRegistry::start(&image("one"), |_, _| None);
    desk.build(&registry, &[]);
    std::fs::write(desk.blobs().join("0".repeat(64) + ".part"), "half").unwrap();
    std::fs::write(desk.blobs().join("0".repeat(64)), "stray").unwrap();
    let list = desk.print(&["cache"]);
    let wanted = format!(
        "Images in {}: # kB of # GB (cache_limit)\n  127.0.0.1:#/it/img:it ({})\n      #, # kB in # layers, used # #\n  \
         # blob that no image needs: # B; `auroraboot cache prune` removes it\n  \
         # half download: # B; `auroraboot cache prune` removes it\n\
         ISOs: # MB\n  iso/kairos.iso\n      # MB, # #, built of 127.0.0.1:#/it/img:it\nFree on that disk: # GB\n",
        desk.state().display(),
        Arch::host()
    );
    let port = registry.port.to_string();
    assert_eq!(
        masked(&list.replace(&port, "#").replace("127.0.0.1", "IP")),
        masked(&wanted.replace("127.0.0.1", "IP"))
    );
    assert!(list.lines().filter(|line| !line.contains('/')).all(|line| line.len() <= 80), "{list}");
    let pruned = desk.print(&["cache", "prune"]);
    assert!(pruned.starts_with("removed 2 files, 9 B\n") && pruned.ends_with("left, in 1 image\n"), "{pruned}");
    assert!(!desk.print(&["cache", "list"]).contains("prune"));
}

/// Who boots from ISOs of others has no images.
#[test]
fn a_state_directory_of_isos_is_listed_verified_and_pruned_too() {
    let desk = Desk::new("isos");
    let registry = FakeRegistry::start(&image("one"), |_, _| None);
    desk.build(&registry, &[]);
    let given = desk.dir.path().join("given.iso");
    std::fs::rename(desk.state().join("iso/kairos.iso"), &given).unwrap();
    std::fs::remove_dir_all(desk.state()).unwrap();
    let url = format!("iso_url={}", given.display());
    let base = ["--set", &url, "--set", "disable_netboot=true", "--set", "disable_http_server=true"];
    assert!(desk.run(&base).status.success());
    assert!(!desk.state().join("blobs").exists());
    std::fs::write(desk.state().join("iso/other.iso"), "nobody knows").unwrap();
    std::fs::write(desk.state().join("iso/other.iso.part"), "half").unwrap();
    let list = desk.print(&["cache"]);
    assert!(list.contains(": 0 B of ") && list.contains(&format!("fetched from {}", given.display())), "{list}");
    assert!(list.contains("  1 half-written: 4 B; `auroraboot cache prune` removes it\n"), "{list}");
    let said = desk.print(&["cache", "verify"]);
    assert!(said.contains("other.iso: nothing is noted about it") && said.contains("\n1 file, 7"), "{said}");
    assert_eq!(desk.print(&["cache", "prune"]), "removed 1 file, 4 B\n0 B left, in 0 images\n");
    assert!(!desk.state().join("blobs").exists(), "none was made");
    flip(&desk.state().join("iso/kairos.iso"), 2_000_000);
    let verdict = desk.run(&["cache", "verify"]);
    assert!(text(&verdict.stdout).starts_with("damaged, and removed: "), "{verdict:?}");
    for gone in ["stamps/iso.json", "iso/kairos.iso", "iso/kairos.iso.sha256"] {
        assert!(!desk.state().join(gone).exists(), "{gone} would pass for sound");
    }
    assert!(desk.run(&base).status.success());
    assert!(desk.print(&["cache", "verify"]).ends_with("all as it should be\n"));
}

#[test]
fn damage_is_found_told_and_repaired_by_the_next_run() {
    let desk = Desk::new("verify");
    let registry = FakeRegistry::start(&image("one"), |_, _| None);
    desk.build(&registry, &[]);
    assert!(desk.print(&["cache", "verify"]).ends_with("read: all as it should be\n"));
    let mut blobs = std::fs::read_dir(desk.blobs()).unwrap().map(|entry| entry.unwrap().path());
    let layer = blobs.find(|path| std::fs::read(path).unwrap().starts_with(&[0x1f, 0x8b])).unwrap();
    flip(&layer, 50);
    flip(&desk.state().join("iso/kairos.iso"), 2_000_000);
    let verdict = desk.run(&["cache", "verify"]);
    let said = text(&verdict.stdout);
    assert_eq!(verdict.status.code(), Some(1), "{said}");
    assert!(said.contains(&format!("damaged, and removed: {}", layer.display())), "{said}");
    assert!(said.contains("iso/kairos.iso (7") && said.ends_with("2 were damaged\n"), "{said}");
    assert!(said.contains("not all here: 127.0.0.1"), "and whose it was: {said}");
    desk.build(&registry, &[]);
    assert!(desk.print(&["cache", "verify"]).ends_with("all as it should be\n"));
}

/// What a compressed archive held is read out of the cache, and verified only while it is read.
#[test]
fn a_run_that_meets_damage_repairs_it_itself() {
    let desk = Desk::new("heal");
    let layout = image("one").layout(&desk.dir);
    let archive = desk.dir.path().join("image.tar.gz");
    let packed = Command::new("tar").arg("-C").arg(&layout).arg("-czf").arg(&archive).arg(".").status().unwrap();
    assert!(packed.success());
    let name = format!("container_image=oci-archive:{}", archive.display());
    let quiet = ["--set", &name, "--set", "disable_netboot=true", "--set", "disable_http_server=true"];
    let build = || {
        let output = desk.run(&quiet);
        assert!(output.status.success(), "{output:?}");
        text(&output.stderr)
    };
    build();
    let iso = std::fs::read(desk.state().join("iso/kairos.iso")).unwrap();
    for command in [&quiet[..], &["pull", "--set", &name]] {
        let mut blobs = std::fs::read_dir(desk.blobs()).unwrap().map(|entry| entry.unwrap().path());
        let layer = blobs.find(|path| std::fs::read(path).unwrap().starts_with(&[0x1f, 0x8b])).unwrap();
        flip(&layer, 50);
        if command.len() > 3 {
            std::fs::remove_file(desk.state().join("stamps/iso.json")).unwrap();
        }
        let output = desk.run(command);
        let said = text(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(said.contains(&format!("{} was damaged, and is removed", layer.display())), "{said}");
        assert!(desk.print(&["cache", "verify"]).ends_with("all as it should be\n"));
        assert!(std::fs::read(desk.state().join("iso/kairos.iso")).unwrap() == iso);
    }
    assert!(build().contains("Using what an earlier run made"));
}

/// Changes a byte and nothing else that a look at the file would show.
fn flip(path: &Path, at: usize) {
    let modified = path.metadata().unwrap().modified().unwrap();
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    std::fs::File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
}

#[test]
fn what_was_used_longest_ago_goes_when_there_is_too_much() {
    let desk = Desk::new("evict");
    let registries = ["one", "two", "three"].map(|motd| FakeRegistry::start(&image(motd), |_, _| None));
    for registry in &registries {
        desk.build(registry, &[]);
    }
    let said = text(&desk.build(&registries[0], &["--set", "cache_limit=1kB"]).stderr);
    let gone = said.lines().find(|line| line.contains("Cache: Removed ")).unwrap();
    assert!(gone.contains(&registries[1].name()) && gone.contains(&registries[2].name()), "{said}");
    let list = desk.print(&["cache"]);
    assert!(list.contains(&registries[0].name()) && !list.contains(&registries[1].name()), "{list}");
    assert!(text(&desk.build(&registries[0], &[]).stderr).contains("Using what an earlier run made"));
}

#[test]
fn a_directory_that_is_none_and_one_in_use_are_told() {
    let desk = Desk::new("none");
    for words in [&["cache"][..], &["cache", "verify"], &["cache", "prune"]] {
        let output = desk.run(words);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).starts_with("auroraboot: there is no auroraboot state in "), "{output:?}");
        assert!(!desk.state().exists(), "and none was made");
    }
    let registry = FakeRegistry::start(&image("one"), |_, _| None);
    desk.build(&registry, &[]);
    let lock = std::fs::File::options().write(true).open(desk.state().join("lock")).unwrap();
    lock.lock().unwrap();
    assert!(desk.print(&["cache"]).ends_with("An auroraboot uses it now.\n"));
    let output = desk.run(&["cache", "verify"]);
    assert!(text(&output.stderr).contains("is in use by another auroraboot"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
    let config = desk.dir.write("aurora.yaml", "container_image: x\ncache_limit: none\n");
    assert!(desk.print(&["cache", config.to_str().unwrap()]).contains(" kB\n"), "a limit of the file holds");
    let output = desk.run(&["cache", "--set", "arch=arm64"]);
    assert!(text(&output.stderr).contains("cache uses no keys but state_dir and cache_limit"), "{output:?}");
}

#[test]
fn a_pull_fetches_all_that_a_run_without_a_network_needs() {
    let desk = Desk::new("pull");
    let image = image("one");
    let registry = FakeRegistry::start(&image, |request, _| {
        (request.path == "/cc.yaml").then(|| crate::registry::fake::Reply::new(200, "#cloud-config\n# by URL\n"))
    });
    let name = format!("container_image={}", registry.name());
    let cloud = format!("http://127.0.0.1:{}/cc.yaml", registry.port);
    let arguments = ["--set", &name, "--cloud-config", &cloud];
    let said = desk.print(&[&["pull"][..], &arguments].concat());
    assert!(said.contains("is in ") && said.contains("offline=true"), "{said}");
    let custom = desk.state().join("iso/kairos.iso.custom.iso");
    assert!(!custom.exists(), "the cloud config is for later");
    let requests = registry.requests().len();

    let carried = desk.dir.path().join("carried");
    let copied = Command::new("cp").arg("-r").arg(desk.state()).arg(&carried).status().unwrap();
    assert!(copied.success());
    std::fs::set_permissions(&carried, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    std::fs::remove_dir_all(desk.state()).unwrap();
    std::fs::rename(&carried, desk.state()).unwrap();
    let offline = ["--set", "offline=true", "--set", "disable_netboot=true", "--set", "disable_http_server=true"];
    let output = desk.run(&[&arguments[..], &offline].concat());
    let said = text(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Pull: offline: ") && custom.exists(), "{said}");
    assert_eq!(registry.requests().len(), requests, "nobody was asked");
    let refused = desk.run(&[&["pull"][..], &arguments, &["--set", "offline=true"]].concat());
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("a pull is there to ask servers"), "{refused:?}");
}

#[test]
fn a_state_directory_that_was_copied_needs_no_second_build() {
    let desk = Desk::new("copied");
    let registry = FakeRegistry::start(&image("one"), |_, _| None);
    let cloud = desk.dir.write("cloud.yaml", "#cloud-config\nusers: []\n");
    let settings = ["--cloud-config", cloud.to_str().unwrap()];
    desk.build(&registry, &settings);
    let isos = ["kairos.iso", "kairos.iso.custom.iso"].map(|name| desk.state().join("iso").join(name));
    let before = isos.each_ref().map(|iso| std::fs::read(iso).unwrap());

    let carried = desk.dir.path().join("carried");
    let copied = Command::new("cp").arg("-r").arg(desk.state()).arg(&carried).status().unwrap();
    assert!(copied.success());
    std::fs::remove_dir_all(desk.state()).unwrap();
    std::fs::rename(&carried, desk.state()).unwrap();
    let offline = [&settings[..], &["--set", "offline=true"]].concat();
    let said = text(&desk.build(&registry, &offline).stderr);
    for iso in &isos {
        assert!(said.contains(&format!("ISO: Checking {} (", iso.display())), "{said}");
    }
    let is_used = |said: &str| {
        said.contains("Build: Using what an earlier run made")
            && said.contains("of an earlier run, with the cloud config")
    };
    assert!(is_used(&said), "{said}");
    let again = text(&desk.build(&registry, &offline).stderr);
    assert!(is_used(&again) && !again.contains("Checking"), "what was found out is noted: {again}");
    assert!(isos.each_ref().map(|iso| std::fs::read(iso).unwrap()) == before);

    // Of the same size, and not the same.
    flip(&isos[0], 2_000_000);
    std::fs::File::options().append(true).open(&isos[0]).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
    let said = text(&desk.build(&registry, &offline).stderr);
    assert!(said.contains("kairos.iso is not what it was") && said.contains("of layers became"), "{said}");
    assert!(isos.each_ref().map(|iso| std::fs::read(iso).unwrap()) == before);
}

#[test]
fn what_a_killed_run_left_half_written_goes_when_the_next_one_begins() {
    let desk = Desk::new("leftovers");
    let registry = FakeRegistry::start(&image("one"), |_, _| None);
    desk.build(&registry, &[]);
    std::fs::create_dir(desk.state().join("netboot")).unwrap();
    let half = ["iso/kairos.iso.part", "netboot/boot.iso.part", "blobs/sha256/spool-0.part", "stamps/iso.json.new"];
    let half = half.map(|name| desk.state().join(name));
    for path in &half {
        std::fs::write(path, "half").unwrap();
    }
    let layer = desk.blobs().join("0".repeat(64) + ".part");
    std::fs::write(&layer, "half").unwrap();
    let output = desk.build(&registry, &[]);
    let said = text(&output.stderr);
    assert!(said.contains("Removed 16 B that an earlier run left half-written\n"), "{said}");
    assert!(half.iter().all(|path| !path.exists()) && layer.exists());
}
