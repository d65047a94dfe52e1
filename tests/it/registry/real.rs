//! Debian's docker-registry on loopback, and images pushed into it by skopeo.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use auroraboot::source::manifest::digest_of;
use auroraboot::units::Digest;

/// A directory that goes with its owner.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("auroraboot-it-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn existing(path: PathBuf) -> Self {
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How the registry is guarded.
#[derive(Default)]
pub struct Guard {
    pub htpasswd: Option<(&'static str, &'static str)>,
    pub tls: bool,
}

pub struct RealRegistry {
    child: Child,
    pub port: u16,
    pub dir: TempDir,
    guard: Guard,
}

impl RealRegistry {
    pub fn start(name: &str, guard: Guard) -> Self {
        let dir = TempDir::new(name);
        let mut config = format!(
            "version: 0.1\nlog: {{ level: info, accesslog: {{ disabled: true }} }}\nstorage: {{ filesystem: {{ rootdirectory: {}/data }} }}\n\
             http:\n  addr: 127.0.0.1:0\n",
            dir.path().display()
        );
        if guard.tls {
            make_certificates(dir.path());
            let tls = format!("  tls: {{ certificate: {0}/server.pem, key: {0}/server.key }}\n", dir.path().display());
            config += &tls;
        }
        if let Some((user, password)) = guard.htpasswd {
            let entry = run(Command::new("htpasswd").args(["-Bbn", "-C", "4", user, password]));
            let path = dir.write("htpasswd", &String::from_utf8(entry.stdout).unwrap());
            writeln!(config, "auth: {{ htpasswd: {{ realm: it, path: {} }} }}", path.display()).unwrap();
        }
        let config = dir.write("config.yml", &config);
        let mut child = spawn(
            Command::new("docker-registry").arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::piped()),
        );
        // It logs the port it was given; the rest of the log is drained so that it never blocks.
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let port = loop {
            let start = seen.len();
            assert!(log.read_line(&mut seen).unwrap() > 0, "docker-registry ended: {seen}");
            if let Some((_, rest)) = seen[start..].split_once("listening on 127.0.0.1:") {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                break digits.parse().unwrap();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, port, dir, guard }
    }

    pub fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }

    pub fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Pushes an image as it is, byte for byte.
    pub fn push(&self, layout: &Path, image: &str) {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--all", "--preserve-digests", "--dest-tls-verify=false"]);
        if let Some((user, password)) = self.guard.htpasswd {
            skopeo.arg(format!("--dest-creds={user}:{password}"));
        }
        skopeo.arg(format!("oci:{}:it", layout.display())).arg(format!("docker://{}", self.name(image)));
        run(&mut skopeo);
    }

    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        self.stop();
    }
}

pub fn make_certificates(dir: &Path) {
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let openssl = |arguments: &str| {
        run(Command::new("openssl").current_dir(dir).args(arguments.split(' ')));
    };
    openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=it-ca -keyout ca.key -out ca.pem");
    openssl("req -newkey rsa:2048 -nodes -subj /CN=it -keyout server.key -out server.csr");
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem");
}

fn spawn(command: &mut Command) -> Child {
    let program = command.get_program().to_string_lossy().into_owned();
    command.spawn().unwrap_or_else(|error| panic!("{program}: {error}; `tests/run` installs what the tests need"))
}

fn run(command: &mut Command) -> Output {
    let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A blob that a manifest names.
#[derive(Clone)]
pub struct Blob {
    pub bytes: Vec<u8>,
    pub media_type: &'static str,
}

impl Blob {
    pub fn new(media_type: &'static str, bytes: Vec<u8>) -> Self {
        Self { bytes, media_type }
    }

    pub fn digest(&self) -> Digest {
        digest_of(&self.bytes)
    }

    pub fn descriptor(&self, extra: &str) -> String {
        let (digest, size) = (self.digest(), self.bytes.len());
        format!(r#"{{"mediaType": "{}", "digest": "{digest}", "size": {size}{extra}}}"#, self.media_type)
    }
}

/// An image's documents: every blob and, last, what a tag stands for.
pub struct Image {
    pub blobs: Vec<Blob>,
    pub layers: Vec<Blob>,
}

pub const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
pub const TAR_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
pub const TAR_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

impl Image {
    pub fn new(arch: &str, layers: Vec<Blob>) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|layer| format!("\"{}\"", layer.digest())).collect();
        let config = format!(
            r#"{{"architecture": "{arch}", "os": "linux", "config": {{}}, "rootfs": {{"type": "layers", "diff_ids": [{}]}}}}"#,
            diff_ids.join(", ")
        );
        let config = Blob::new("application/vnd.oci.image.config.v1+json", config.into_bytes());
        let descriptors: Vec<String> = layers.iter().map(|layer| layer.descriptor("")).collect();
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        let manifest = format!(
            r#"{{"schemaVersion": 2, "mediaType": "{media_type}", "config": {}, "layers": [{}]}}"#,
            config.descriptor(""),
            descriptors.join(", ")
        );
        let manifest = Blob::new(media_type, manifest.into_bytes());
        let blobs = layers.iter().cloned().chain([config, manifest]).collect();
        Self { blobs, layers }
    }

    /// One image for several architectures, with the attestation that buildx adds.
    pub fn index(images: &[(&str, &Image)]) -> Self {
        let mut entries: Vec<String> = images
            .iter()
            .map(|(arch, image)| {
                let platform = format!(r#", "platform": {{"architecture": "{arch}", "os": "linux"}}"#);
                image.top().descriptor(&platform)
            })
            .collect();
        entries.reverse();
        let media_type = "application/vnd.oci.image.index.v1+json";
        let text =
            format!(r#"{{"schemaVersion": 2, "mediaType": "{media_type}", "manifests": [{}]}}"#, entries.join(", "));
        let blobs = images.iter().flat_map(|(_, image)| image.blobs.clone());
        Self { blobs: blobs.chain([Blob::new(media_type, text.into_bytes())]).collect(), layers: Vec::new() }
    }

    pub fn top(&self) -> &Blob {
        self.blobs.last().unwrap()
    }

    /// As an OCI image layout, which is what skopeo reads.
    pub fn layout(&self, dir: &TempDir) -> PathBuf {
        let layout = dir.path().join(format!("layout-{}", self.top().digest().short()));
        std::fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
        for blob in &self.blobs {
            std::fs::write(layout.join("blobs/sha256").join(blob.digest().hex()), &blob.bytes).unwrap();
        }
        let tag = r#", "annotations": {"org.opencontainers.image.ref.name": "it"}"#;
        let index = format!(r#"{{"schemaVersion": 2, "manifests": [{}]}}"#, self.top().descriptor(tag));
        std::fs::write(layout.join("index.json"), index).unwrap();
        std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).unwrap();
        layout
    }
}

/// Bytes that no compressor shrinks and that differ at every offset.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// A tar of one file, as small as tars get.
pub fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = [0_u8; 512];
    header[..name.len()].copy_from_slice(name.as_bytes());
    header[100..108].copy_from_slice(b"0000644\0");
    header[124..136].copy_from_slice(format!("{:011o}\0", content.len()).as_bytes());
    header[148..156].fill(b' ');
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut bytes = header.to_vec();
    bytes.write_all(content).unwrap();
    bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
    bytes
}
