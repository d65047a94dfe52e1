//! Debian's dockerd and podman on sockets of their own, with a few small images, one of each for all tests.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::{LazyLock, mpsc};

use crate::registry::real::{Blob, Image, TAR, TempDir, noise, tar};

/// A running daemon. It ends, and its directory goes, with the process of the tests.
pub struct Engine {
    pub socket: PathBuf,
    /// `sample/it:v1`, amd64.
    pub image: Image,
    /// `sample/arm:v1`, arm64.
    pub arm: Image,
}

pub static DOCKER: LazyLock<Engine> = LazyLock::new(|| {
    let options = "--storage-driver vfs --bridge none --iptables=false --ip6tables=false --ip-forward=false --log-level info \
        --containerd-namespace auroraboot-it --containerd-plugins-namespace auroraboot-it-plugins \
        --data-root DIR/root --exec-root DIR/exec --pidfile DIR/pid -H unix://DIR/socket";
    Engine::start("docker", &format!("dockerd {options}"), "API listen on")
});

pub static PODMAN: LazyLock<Engine> = LazyLock::new(|| {
    let options = "--root DIR/root --runroot DIR/run --tmpdir DIR/tmp --storage-driver vfs --cgroup-manager cgroupfs \
        --events-backend none --log-level info";
    // Locks of its own: by default all podmans of a host share theirs.
    let service = format!(
        "printf '[engine]\\nlock_type = \"file\"\\n' >DIR/containers.conf; CONTAINERS_CONF=DIR/containers.conf \
         podman {options} system service --time=0 unix://DIR/socket"
    );
    Engine::start("podman", &service, "API service listening on")
});

impl Engine {
    fn start(name: &str, command: &str, ready: &str) -> Self {
        // It is never dropped: the shell below removes it.
        let dir = std::mem::ManuallyDrop::new(TempDir::new(name));
        let path = dir.path().display().to_string();
        let daemon = command.replace("DIR", &path);
        // Statics are not dropped, so the kernel tells the shell when the tests end, and the shell ends the daemon. What that mounted goes
        // with its namespace, however it ended.
        let script =
            format!("trap 'kill $daemon' TERM; unshare --mount {daemon} & daemon=$!; wait; wait; rm -rf {path}");
        let mut log = BufReader::new(spawn_for_life(script));
        let mut seen = String::new();
        while !seen[seen.trim_end().rfind('\n').unwrap_or(0)..].contains(ready) {
            assert!(log.read_line(&mut seen).unwrap() > 0, "{name} ended: {seen}");
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let engine = Self { socket: dir.path().join("socket"), image: sample(), arm: arm_sample() };
        engine.load(&engine.image, &dir, "docker.io/sample/it:v1");
        engine.load(&engine.arm, &dir, "docker.io/sample/arm:v1");
        engine.load(&built_here(), &dir, "localhost/built/here:latest");
        engine
    }

    /// As `docker load` does it.
    pub fn load(&self, image: &Image, dir: &TempDir, name: &str) {
        let archive = dir.path().join(format!("{}.tar", image.top().digest().short()));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet"]).arg(format!("oci:{}:it", image.layout(dir).display()));
        skopeo.arg(format!("docker-archive:{}:{name}", archive.display()));
        let output = skopeo.output().unwrap_or_else(|error| panic!("skopeo: {error}; `tests/run` installs it"));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let answer = self.post("/images/load", &std::fs::read(archive).unwrap());
        assert!(answer.contains("Loaded image"), "{answer}");
    }

    pub fn post(&self, path: &str, body: &[u8]) -> String {
        exchange(&self.socket, "POST", path, body)
    }

    pub fn delete(&self, path: &str) -> String {
        exchange(&self.socket, "DELETE", path, b"")
    }
}

fn exchange(socket: &Path, method: &str, path: &str, body: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: it\r\nconnection: close\r\ncontent-type: application/x-tar\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Runs a shell from a thread that ends only with the process: `PR_SET_PDEATHSIG` is about the thread that forked.
fn spawn_for_life(script: String) -> ChildStderr {
    let (sender, started) = mpsc::channel();
    std::thread::spawn(move || {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM", "sh", "-c", &script]).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child: Child =
            command.spawn().unwrap_or_else(|error| panic!("setpriv: {error}; `tests/run` installs it"));
        sender.send(child.stderr.take().unwrap()).unwrap();
        child.wait()
    });
    started.recv().unwrap()
}

fn sample() -> Image {
    let layer = |name: &str, size, seed| Blob::new(TAR, tar(name, &noise(size, seed)));
    Image::new("amd64", vec![layer("low", 1_500_000, 21), layer("middle", 700, 22), layer("top", 60_000, 23)])
}

fn arm_sample() -> Image {
    Image::new("arm64", vec![Blob::new(TAR, tar("arm", b"64"))])
}

pub fn built_here() -> Image {
    Image::new("amd64", vec![Blob::new(TAR, tar("built", b"here"))])
}
