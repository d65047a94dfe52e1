//! Everything that is served to machines, and which name means what.

use super::blob::Blob;
use super::cmdline::Cmdline;
use super::event::Piece;
use super::names::{Names, file};
use super::script::{self, Network};
use crate::http::response;
use crate::units::MacAddr;
use sha2::{Digest, Sha256};
use std::net::SocketAddrV4;
use std::sync::Arc;

/// What one start of the server serves. It never changes; a new one takes its place when the image does.
#[derive(Debug)]
pub struct Served {
    pub names: Names,
    pub loaders: Loaders,
    pub boot_set: BootSet,
    pub cmdline: Cmdline,
}

/// The operating system.
#[derive(Debug, Clone)]
pub struct BootSet {
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
        let piece = |piece, body: Body| (What::Piece(name.mac, piece), body);
        let blob = |blob: &Blob| Body::Blob(blob.clone());
        let (what, body) = match name.file {
            file::SCRIPT => (What::Script(name.mac), self.script(local, name.mac, Network::Up)),
            file::AUTOEXEC => (What::Script(name.mac), self.script(local, name.mac, Network::Down)),
            file::KERNEL => piece(Piece::Kernel, blob(&self.boot_set.kernel)),
            file::INITRD => piece(Piece::Initrd, blob(&self.boot_set.initrd)),
            file::ROOTFS => piece(Piece::Rootfs, blob(&self.boot_set.rootfs)),
            file::CLOUD_CONFIG => piece(Piece::CloudConfig, Body::Memory(self.boot_set.cloud_config.clone()?)),
            other => {
                let (loader, memory) = self.loader(other)?;
                piece(Piece::Loader(loader), Body::Memory(memory.clone()))
            }
        };
        Some(Found { what, content_type: response::content_type(name.file), body })
    }

    /// A machine's boot script.
    #[must_use]
    pub fn script(&self, server: SocketAddrV4, mac: MacAddr, network: Network) -> Body {
        let has_config = self.boot_set.cloud_config.is_some();
        Body::Memory(Memory::text(script::boot(&self.names, server, mac, &self.cmdline, has_config, network)))
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

    pub fn served(cloud_config: Option<&'static [u8]>) -> Served {
        let blob = |size, version| Blob::whole(File::open("/dev/null").unwrap(), size, version);
        Served {
            names: Names::new([3; 32], 8090),
            loaders: [("undionly.kpxe", Arc::from(*b"BIOS")), ("snponly.efi", Arc::from(*b"UEFI"))]
                .into_iter()
                .collect(),
            boot_set: BootSet {
                kernel: blob(1, "k"),
                initrd: blob(2, "i"),
                rootfs: blob(3, "r"),
                cloud_config: cloud_config.map(Memory::new),
            },
            cmdline: Cmdline::new(Arch::Amd64, None).unwrap(),
        }
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
    fn other_names_are_nobodys() {
        let served = served(None);
        let token = served.names.token(MAC);
        for path in ["/kernel", "/autoexec.ipxe", "/525400123456-0/kernel", &format!("/{token}"), &format!("/{token}/")]
        {
            assert!(served.find(LOCAL, path).is_none(), "{path}");
        }
        for file in ["config.yaml", "../kernel", "./kernel", "kernel/", "KERNEL", "kernel\0", "by-mac"] {
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
