//! Puts the root file system together: the product's binary as `/init`, modules, firmware, and what the image is.

use std::collections::BTreeSet;

use crate::board::Board;
use crate::cpio::Cpio;
use crate::deb::{self, Package};
use crate::modules::Modules;

/// What goes in.
#[derive(Debug)]
pub struct Parts<'a> {
    pub board: &'a Board,
    pub kernel_version: &'a str,
    pub binary: &'a [u8],
    pub modules: &'a Modules,
    pub firmware: &'a [Package],
    /// In seconds since 1970: the time before which the appliance's clock never is.
    pub build_time: u64,
}

/// Mount points; `/boot` and `/data` are the disk's two partitions, `/stick` a USB stick with configuration.
const MOUNT_POINTS: [&str; 8] = ["proc", "sys", "dev", "run", "tmp", "boot", "data", "stick"];

/// The archive. Nothing is compressed but the modules, as Debian did.
///
/// # Errors
/// A package cannot be read.
pub fn build(parts: &Parts<'_>) -> Result<Vec<u8>, deb::Error> {
    let mut cpio = Cpio::new(parts.build_time);
    for name in MOUNT_POINTS {
        cpio.directory(name, 0o755);
    }
    // The kernel opens it as the standard streams of the first process, before anything is mounted.
    cpio.character_device("dev/console", 0o600, (5, 1));
    cpio.directory("etc", 0o755);
    cpio.symlink("etc/resolv.conf", "/run/resolv.conf");
    cpio.directory("etc/auroraboot", 0o755);
    cpio.file("etc/auroraboot/appliance", 0o644, appliance(parts).as_bytes());
    cpio.file("init", 0o755, parts.binary);
    let mut tree = Tree { cpio, known: BTreeSet::new() };
    let folder = format!("lib/modules/{}", parts.kernel_version);
    for module in parts.modules.by_name.values() {
        tree.file(&format!("{folder}/{}", module.path), &module.content);
    }
    let tables = [
        ("modules.dep", parts.modules.dep()),
        ("modules.alias", parts.modules.alias()),
        ("modules.softdep", parts.modules.softdep()),
        ("modules.builtin", parts.modules.builtin.clone()),
    ];
    for (name, text) in tables {
        tree.file(&format!("{folder}/{name}"), text.as_bytes());
    }
    for name in parts.modules.firmware() {
        let path = format!("usr/lib/firmware/{name}");
        // Debian does not have all that modules may ask for; they do without or say so.
        if let Some(package) = parts.firmware.iter().find(|package| package.names().any(|name| name == path)) {
            tree.file(&format!("lib/firmware/{name}"), &package.read(&path)?);
        }
    }
    Ok(tree.cpio.finish())
}

/// `/etc/auroraboot/appliance`: what `auroraboot` as the first process reads before anything else.
fn appliance(parts: &Parts<'_>) -> String {
    let board = parts.board;
    let consoles: String = board.consoles.iter().map(|console| format!("console={console}\n")).collect();
    let watchdog = if board.watchdog { "yes" } else { "no" };
    format!(
        "board={}\n{consoles}build_time={}\nwatchdog={watchdog}\nversion={}\n",
        board.id,
        parts.build_time,
        env!("CARGO_PKG_VERSION")
    )
}

/// Makes folders as they are needed.
struct Tree {
    cpio: Cpio,
    known: BTreeSet<String>,
}

impl Tree {
    fn file(&mut self, path: &str, content: &[u8]) {
        for (end, _) in path.match_indices('/') {
            if self.known.insert(path[..end].to_owned()) {
                self.cpio.directory(&path[..end], 0o755);
            }
        }
        self.cpio.file(path, 0o644, content);
    }
}
