//! Everything that is served to machines, and which name means what.
//!
//! Another boot set may take the present one's place at any time. A machine's script names its set, so that a machine which began with
//! one ends with it: a kernel with the modules of another does not come up.

use super::blob::Blob;
use super::cmdline::Cmdline;
use super::event::Piece;
use super::names::{Names, file};
use super::script::{self, Fetched, Network};
use crate::http::response;
use crate::limits;
use crate::units::MacAddr;
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::sync::{Arc, PoisonError, RwLock};

/// What the server serves.
#[derive(Debug)]
pub struct Served {
    pub names: Names,
    pub loaders: Loaders,
    pub cmdline: Cmdline,
    /// The present one first, then those before it that machines may still be loading.
    boot_sets: RwLock<VecDeque<Arc<BootSet>>>,
}

/// The operating system.
#[derive(Debug, Clone)]
pub struct BootSet {
    /// Sets with the same bytes have the same one. It is part of paths: letters and digits.
    pub version: String,
    pub kernel: Blob,
    pub initrd: Blob,
    pub rootfs: Blob,
    pub cloud_config: Option<Memory>,
}

/// The iPXE binaries, by file name.
#[derive(Debug, Clone, Default)]
pub struct Loaders(Vec<(&'static str, Memory)>);

impl FromIterator<(&'static str, Arc<[u8]>)> for Loaders {
    fn from_iter<I: IntoIterator<Item = (&'static str, Arc<[u8]>)>>(files: I) -> Self {
        Self(files.into_iter().map(|(name, bytes)| (name, Memory::new(bytes))).collect())
    }
}

/// Bytes that are served from memory.
#[derive(Debug, Clone)]
pub struct Memory {
    pub bytes: Arc<[u8]>,
    /// The strong entity tag, with its quotes; none for what is made anew for each request.
    pub etag: Option<Arc<str>>,
}

impl Memory {
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let hash = Sha256::digest(&bytes).iter().take(8).fold(0_u64, |hash, byte| hash << 8 | u64::from(*byte));
        Self { bytes, etag: Some(format!("\"{hash:016x}\"").into()) }
    }

    fn text(text: String) -> Self {
        Self { bytes: text.into_bytes().into(), etag: None }
    }
}

/// A body, wherever its bytes are.
#[derive(Debug, Clone)]
pub enum Body {
    Memory(Memory),
    Blob(Blob),
}

impl Body {
    #[must_use]
    pub fn size(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.bytes.len() as u64,
            Self::Blob(blob) => blob.size(),
        }
    }

    #[must_use]
    pub fn etag(&self) -> Option<&str> {
        match self {
            Self::Memory(memory) => memory.etag.as_deref(),
            Self::Blob(blob) => Some(blob.etag()),
        }
    }
}

/// What a name stands for, so that sending it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The page under `/`.
    Front,
    Script(MacAddr),
    Piece(MacAddr, Piece),
}

/// A name that is served.
#[derive(Debug, Clone)]
pub struct Found {
    pub what: What,
    pub content_type: &'static str,
    pub body: Body,
}

impl Served {
    #[must_use]
    pub fn new(names: Names, loaders: Loaders, cmdline: Cmdline, boot_set: BootSet) -> Self {
        Self { names, loaders, cmdline, boot_sets: RwLock::new(VecDeque::from([Arc::new(boot_set)])) }
    }

    /// Gives another boot set to machines that begin from now on.
    pub fn replace(&self, boot_set: BootSet) {
        let mut sets = self.boot_sets.write().unwrap_or_else(PoisonError::into_inner);
        sets.retain(|set| set.version != boot_set.version);
        sets.push_front(Arc::new(boot_set));
        sets.truncate(limits::BOOT_SETS_MAX);
    }

    fn present(&self) -> Option<Arc<BootSet>> {
        self.boot_sets.read().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    fn boot_set(&self, version: &str) -> Option<Arc<BootSet>> {
        let sets = self.boot_sets.read().unwrap_or_else(PoisonError::into_inner);
        sets.iter().find(|set| set.version == version).cloned()
    }

    /// What an HTTP `path` stands for at the server address `local`, at which the request came in: scripts name that address, not
    /// what a `Host` header claims. `None` for every name that is not served, without telling why.
    #[must_use]
    pub fn find(&self, local: SocketAddrV4, path: &str) -> Option<Found> {
        if path == "/" {
            let text = Memory::text(FRONT.to_owned());
            return Some(Found {
                what: What::Front,
                content_type: response::content_type(".txt"),
                body: Body::Memory(text),
            });
        }
        let name = self.names.parse(path)?;
        let (what, body) = match name.file {
            file::SCRIPT => (What::Script(name.mac), Body::Memory(self.script(local, name.mac, Network::Up)?)),
            file::AUTOEXEC => (What::Script(name.mac), Body::Memory(self.script(local, name.mac, Network::Down)?)),
            other => {
                let (piece, body) = self.piece(other)?;
                (What::Piece(name.mac, piece), body)
            }
        };
        Some(Found { what, content_type: response::content_type(name.file), body })
    }

    /// A loader, or `<version>/<file>` of a boot set; without a version, of the present one.
    fn piece(&self, name: &str) -> Option<(Piece, Body)> {
        let (boot_set, file) = match name.split_once('/') {
            Some((version, file)) => (self.boot_set(version)?, file),
            None => (self.present()?, name),
        };
        let blob = |blob: &Blob| Body::Blob(blob.clone());
        Some(match file {
            file::KERNEL => (Piece::Kernel, blob(&boot_set.kernel)),
            file::INITRD => (Piece::Initrd, blob(&boot_set.initrd)),
            file::ROOTFS => (Piece::Rootfs, blob(&boot_set.rootfs)),
            file::CLOUD_CONFIG => (Piece::CloudConfig, Body::Memory(boot_set.cloud_config.clone()?)),
            _ => {
                let (loader, memory) = self.loader(name)?;
                (Piece::Loader(loader), Body::Memory(memory.clone()))
            }
        })
    }

    /// A machine's boot script.
    #[must_use]
    pub fn script(&self, server: SocketAddrV4, mac: MacAddr, network: Network) -> Option<Memory> {
        let boot_set = self.present()?;
        let fetched = Fetched { version: &boot_set.version, has_config: boot_set.cloud_config.is_some() };
        Some(Memory::text(script::boot(&self.names, server, mac, &self.cmdline, fetched, network)))
    }

    /// A loader by its file name.
    #[must_use]
    pub fn loader(&self, file: &str) -> Option<(&'static str, &Memory)> {
        self.loaders.0.iter().find(|(name, _)| *name == file).map(|(name, memory)| (*name, memory))
    }
}

const FRONT: &str = "This is auroraboot. It boots machines from the network: switch on network boot in the machine's firmware and restart it.\n\
    There is nothing to see here; every machine is given an address of its own.\n";

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::units::Arch;
    use std::fs::File;
    use std::net::Ipv4Addr;

    pub const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8090);

    fn boot_set(version: &str, size: u64, cloud_config: Option<&'static [u8]>) -> BootSet {
        let blob = |size, version| Blob::whole(File::open("/dev/null").unwrap(), size, version);
        let (kernel, initrd, rootfs) = (blob(size, "k"), blob(size + 1, "i"), blob(size + 2, "r"));
        BootSet { version: version.to_owned(), kernel, initrd, rootfs, cloud_config: cloud_config.map(Memory::new) }
    }

    pub fn served(cloud_config: Option<&'static [u8]>) -> Served {
        let loaders = [("undionly.kpxe", Arc::from(*b"BIOS")), ("snponly.efi", Arc::from(*b"UEFI"))];
        let cmdline = Cmdline::new(Arch::Amd64, None).unwrap();
        let names = Names::new([3; 32], 8090);
        Served::new(names, loaders.into_iter().collect(), cmdline, boot_set("v1", 1, cloud_config))
    }

    #[test]
    fn every_name_of_a_machine() {
        let served = served(Some(b"#cloud-config"));
        for (file, what, size, content_type) in [
            ("kernel", What::Piece(MAC, Piece::Kernel), 1, "application/octet-stream"),
            ("initrd", What::Piece(MAC, Piece::Initrd), 2, "application/octet-stream"),
            ("rootfs.squashfs", What::Piece(MAC, Piece::Rootfs), 3, "application/octet-stream"),
            ("config.yaml", What::Piece(MAC, Piece::CloudConfig), 13, "text/plain; charset=utf-8"),
            ("snponly.efi", What::Piece(MAC, Piece::Loader("snponly.efi")), 4, "application/efi"),
        ] {
            let found = served.find(LOCAL, &format!("/{}", served.names.path(MAC, file))).unwrap();
            assert_eq!((found.what, found.body.size(), found.content_type), (what, size, content_type));
            assert!(found.body.etag().is_some(), "{file} can be resumed");
        }
        for file in ["boot.ipxe", "autoexec.ipxe"] {
            let found = served.find(LOCAL, &format!("/{}", served.names.path(MAC, file))).unwrap();
            assert_eq!((found.what, found.body.etag()), (What::Script(MAC), None));
        }
    }

    #[test]
    fn a_machine_ends_with_the_set_it_began_with() {
        let served = served(None);
        let size = |file: &str| {
            let found = served.find(LOCAL, &format!("/{}", served.names.path(MAC, file)))?;
            Some(found.body.size())
        };
        let script = || {
            let script = served.script(LOCAL, MAC, Network::Up).unwrap();
            String::from_utf8(script.bytes.to_vec()).unwrap()
        };
        assert!(script().contains("/v1/kernel ") && script().contains("/v1/rootfs.squashfs "), "{}", script());
        served.replace(boot_set("v2", 10, None));
        assert!(script().contains("/v2/kernel ") && !script().contains("/v1/"), "{}", script());
        assert_eq!([size("v1/initrd"), size("v2/initrd"), size("initrd")], [Some(2), Some(11), Some(11)]);
        served.replace(boot_set("v2", 10, None));
        assert_eq!(size("v1/initrd"), Some(2), "the same again changes nothing");
        for number in 0..limits::BOOT_SETS_MAX {
            served.replace(boot_set(&format!("w{number}"), 20, None));
        }
        assert_eq!([size("v2/kernel"), size("w0/kernel")], [None, Some(20)], "and old ones go");
    }

    #[test]
    fn other_names_are_nobodys() {
        let served = served(None);
        let token = served.names.token(MAC);
        for path in ["/kernel", "/autoexec.ipxe", "/525400123456-0/kernel", &format!("/{token}"), &format!("/{token}/")]
        {
            assert!(served.find(LOCAL, path).is_none(), "{path}");
        }
        for file in [
            "config.yaml",
            "../kernel",
            "./kernel",
            "kernel/",
            "KERNEL",
            "kernel\0",
            "by-mac",
            "v2/kernel",
            "v1/undionly.kpxe",
        ] {
            assert!(served.find(LOCAL, &format!("/{token}/{file}")).is_none(), "{file}");
        }
    }

    #[test]
    fn the_front_page_tells_no_names() {
        let served = served(None);
        let Some(Found { what: What::Front, body: Body::Memory(memory), .. }) = served.find(LOCAL, "/") else {
            panic!("no front page");
        };
        let text = String::from_utf8(memory.bytes.to_vec()).unwrap();
        assert!(text.contains("auroraboot") && !text.contains('-'), "{text}");
    }
}
