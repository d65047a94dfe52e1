//! Modules of a machine that does not exist.

use super::*;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

/// `/lib/modules/<release>` and `/sys` of a machine that does not exist, removed in the end.
struct Tree(PathBuf);

impl Tree {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("auroraboot-modules-{}-{count}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let tree = Self(root);
        tree.write("modules/modules.dep", DEPENDENCIES);
        tree.write("modules/modules.alias", ALIASES);
        tree
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn device(&self, path: &str, modalias: &str) {
        self.write(&format!("sys/devices/{path}/modalias"), &format!("{modalias}\n"));
    }

    /// Files are noted in place of being loaded; `fate` may do more, or fail.
    fn modules(&self, fate: impl Fn(&str) -> io::Result<()> + Send + 'static) -> (Modules, Arc<Mutex<Vec<String>>>) {
        let noted = Arc::new(Mutex::new(Vec::new()));
        let notes = Arc::clone(&noted);
        let insert = move |path: &Path| {
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            fate(&name)?;
            notes.lock().unwrap().push(name);
            Ok(())
        };
        (Modules::new(self.0.join("modules"), Box::new(insert)).unwrap(), noted)
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const DEPENDENCIES: &str = "\
kernel/drivers/net/virtio_net.ko.xz: kernel/net/core/failover.ko.xz kernel/drivers/virtio/virtio.ko.xz
kernel/net/core/failover.ko.xz:
kernel/drivers/virtio/virtio.ko.xz:
kernel/drivers/block/virtio_blk.ko.xz: kernel/drivers/virtio/virtio.ko.xz
kernel/drivers/usb/storage/usb-storage.ko.xz: kernel/drivers/scsi/scsi_mod.ko.xz
kernel/drivers/scsi/scsi_mod.ko.xz:
kernel/drivers/net/r8169.ko.xz:
kernel/drivers/net/phy/realtek.ko:
kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz
kernel/fs/fat/fat.ko.xz:
a line that is none
";

const ALIASES: &str = "\
# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias virtio:d00000002v* virtio_blk
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb-storage
alias pci:v000010ECd00008168sv*sd*bc*sc*i* r8169
alias of:N*T*Cgone,gone gone
alias short
";

#[test]
fn what_is_needed_comes_first_and_nothing_twice() {
    let tree = Tree::new();
    let (mut modules, noted) = tree.modules(|_| Ok(()));
    assert_eq!(modules.load("virtio-net").unwrap(), ["virtio", "failover", "virtio_net"]);
    assert_eq!(modules.load("virtio_blk").unwrap(), ["virtio_blk"]);
    assert_eq!(modules.load("virtio_blk").unwrap(), Vec::<String>::new());
    assert_eq!(modules.load("usb-storage").unwrap(), ["scsi_mod", "usb_storage"]);
    assert_eq!(
        *noted.lock().unwrap(),
        [
            "virtio.ko.xz",
            "failover.ko.xz",
            "virtio_net.ko.xz",
            "virtio_blk.ko.xz",
            "scsi_mod.ko.xz",
            "usb-storage.ko.xz"
        ]
    );
    assert_eq!(modules.load("nls_cp437").unwrap_err().to_string(), "there is no kernel module nls_cp437");
    let shown = format!("{modules:?}");
    assert!(shown.contains("virtio_net"), "{shown}");
}

#[test]
fn built_in_ones_and_those_that_are_there_are_no_failure() {
    let tree = Tree::new();
    tree.write("modules/modules.builtin", "kernel/fs/nls/nls_cp437.ko\nkernel/fs/nls/nls_ascii.ko\n");
    let (mut modules, _) = tree.modules(|name| match name {
        "fat.ko.xz" => Err(io::Error::from_raw_os_error(libc::EEXIST)),
        _ => Ok(()),
    });
    let loaded: Vec<String> = FOR_VFAT.iter().flat_map(|name| modules.load(name).unwrap()).collect();
    assert_eq!(loaded, ["vfat"]);
}

#[test]
fn soft_dependencies_are_loaded_around_and_may_be_missing() {
    let tree = Tree::new();
    tree.write("modules/modules.softdep", "# comment\nsoftdep r8169 pre: realtek missing post: virtio-blk r8169\n");
    let (mut modules, _) = tree.modules(|_| Ok(()));
    assert_eq!(modules.load("r8169").unwrap(), ["realtek", "r8169", "virtio", "virtio_blk"]);
}

/// Debian's ext4 has no dependency on crc32c that modules.dep would list; without it, mounting ends in ENOENT.
#[test]
fn a_soft_dependency_may_be_an_alias_and_one_of_those_who_bear_it_is_enough() {
    let tree = Tree::new();
    let dependencies = "kernel/ext4.ko.xz: kernel/jbd2.ko.xz\nkernel/jbd2.ko.xz:\nkernel/crc32c_generic.ko.xz:\nkernel/crc32c-intel.ko.xz:\n";
    tree.write("modules/modules.dep", dependencies);
    tree.write("modules/modules.softdep", "softdep jbd2 pre: crypto-crc32c\nsoftdep ext4 pre: crypto-crc32c\n");
    tree.write(
        "modules/modules.alias",
        "alias crypto-crc32c crc32c_intel\nalias crypto-crc32c crc32c_generic\nalias bad missing\n",
    );
    let (mut modules, _) = tree.modules(|name| match name {
        "crc32c-intel.ko.xz" => Err(io::Error::from_raw_os_error(libc::ENODEV)),
        _ => Ok(()),
    });
    assert_eq!(modules.load("ext4").unwrap(), ["crc32c_generic", "jbd2", "ext4"]);
    assert_eq!(modules.load("crypto-crc32c").unwrap(), Vec::<String>::new());
    assert_eq!(modules.load("bad").unwrap_err().to_string(), "there is no kernel module missing");
}

#[test]
fn devices_that_appear_by_loading_are_found_too() {
    let tree = Tree::new();
    tree.device("pci0000:00/0000:00:03.0", "pci:v000010ECd00008168sv00001AF4sd00001100bc02sc00i00");
    tree.device("pci0000:00/0000:00:14.0/usb1/1-1/1-1:1.0", "usb:v0781p5581d0100dc00dsc00dp00ic08isc06ip50in00");
    tree.device("platform/soc", "of:NsocT(null)Cgone,gone");
    tree.device("platform/nothing", "");
    symlink(tree.0.join("sys/devices"), tree.0.join("sys/devices/platform/loop")).unwrap();
    let devices = tree.0.clone();
    let (mut modules, _) = tree.modules(move |name| {
        if name == "r8169.ko.xz" {
            let late = Tree(devices.clone());
            late.device("virtual/late", "virtio:d00000002v00001AF4");
            std::mem::forget(late);
        }
        match name {
            "scsi_mod.ko.xz" => Err(io::Error::from_raw_os_error(libc::ENOEXEC)),
            _ => Ok(()),
        }
    });
    let Loaded { loaded, failed } = modules.coldplug(&tree.0.join("sys"));
    assert_eq!(loaded, ["r8169", "virtio", "virtio_blk"]);
    let failed: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert_eq!(failed, ["there is no kernel module gone", "cannot load the kernel module scsi_mod"]);
    let again = modules.coldplug(&tree.0.join("sys"));
    assert!(again.loaded.is_empty() && again.failed.is_empty(), "one failure is told once: {again:?}");
}

#[test]
fn an_alias_that_names_several_modules_loads_them_all() {
    let tree = Tree::new();
    tree.write(
        "modules/modules.alias",
        "alias pci:v*d*sv*sd*bc02* virtio_net\nalias pci:v000010ECd* r8169\nalias pci:v000010ECd*sv* r8169\n",
    );
    let lists = Lists::read(&tree.0.join("modules")).unwrap();
    let found = lists.matching("pci:v000010ECd00008168sv00001AF4sd00001100bc02sc00i00");
    assert_eq!(found, ["virtio_net", "r8169"]);
}

#[test]
fn lists_that_are_missing_or_too_large_are_refused() {
    let tree = Tree::new();
    let directory = tree.0.join("modules");
    let open = || Modules::new(directory.clone(), Box::new(|_| Ok(()))).map(drop).map_err(|error| error.to_string());
    fs::File::create(directory.join("modules.softdep")).unwrap().set_len(MODULE_LIST_BYTES_MAX + 1).unwrap();
    assert!(open().unwrap_err().contains("is larger than 16777216 bytes"));
    fs::remove_file(directory.join("modules.softdep")).unwrap();
    open().unwrap();
    fs::remove_file(directory.join("modules.dep")).unwrap();
    assert!(open().unwrap_err().starts_with("cannot read the list of kernel modules"));
}

#[test]
fn the_walk_through_devices_is_bounded() {
    let tree = Tree::new();
    let deep = "d/".repeat(DEVICES_NESTED_MAX - 1);
    tree.device(&format!("{deep}in"), "virtio:d00000001v00001AF4");
    tree.device(&format!("{deep}in/out"), "virtio:d00000002v00001AF4");
    tree.device("long", &"x".repeat(MODALIAS_BYTES_MAX + 1));
    let found = modaliases(&tree.0.join("sys/devices"), DEVICES_MAX);
    assert_eq!(found.into_iter().collect::<Vec<_>>(), ["virtio:d00000001v00001AF4"]);
    assert!(modaliases(&tree.0.join("sys/devices"), 3).is_empty(), "so many directories and no more");
}

/// Debian's kernel has 20 000 aliases; a server has some hundred devices. Compared with each other as they are that takes seconds on a Pi.
#[test]
fn many_aliases_cost_what_few_do() {
    let tree = Tree::new();
    let lines: String =
        (0..20_000).map(|n| format!("alias pci:v{:08X}d{n:08X}sv*sd*bc*sc*i* r8169\n", n % 40)).collect();
    tree.write("modules/modules.alias", &lines);
    let lists = Lists::read(&tree.0.join("modules")).unwrap();
    let began = std::time::Instant::now();
    for device in 0..500 {
        let found = lists.matching(&format!("pci:v{:08X}d{device:08X}sv00001AF4sd00001100bc02sc00i00", device % 40));
        assert_eq!(found, ["r8169"]);
    }
    assert!(began.elapsed().as_millis() < 500, "{:?}", began.elapsed());
}
