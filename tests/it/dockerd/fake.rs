//! A daemon that answers as it is told, on a Unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use auroraboot::units::Digest;

use crate::registry::real::TempDir;

/// What comes back for one request.
pub enum Reply {
    /// Status and body, with a length.
    Body(u16, Vec<u8>),
    /// These bytes as they are, and the end of the connection.
    Raw(Vec<u8>),
    /// This head and piece, over and over until the client goes.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, and then nothing until the client goes.
    Hang(Vec<u8>),
}

impl Reply {
    pub fn json(status: u16, text: &str) -> Self {
        Self::Body(status, text.as_bytes().to_vec())
    }
}

/// What a Docker of that version of the API says of itself.
pub fn ping(version: &str) -> Reply {
    let head = format!("HTTP/1.1 200 OK\r\nApi-Version: {version}\r\nServer: Docker/26.1 (fake)\r\n");
    Reply::Raw(format!("{head}content-length: 2\r\n\r\nOK").into_bytes())
}

/// What Docker says of an image, wherever it is asked for one of that name.
pub fn description(id: &Digest, arch: &str, diff_ids: &[Digest]) -> Reply {
    let layers: Vec<String> = diff_ids.iter().map(|id| format!("\"{id}\"")).collect();
    let rootfs = format!(r#"{{"Type": "layers", "Layers": [{}]}}"#, layers.join(", "));
    let text = format!(
        r#"{{"Id": "{id}", "Architecture": "{arch}", "Os": "linux", "Size": 5000000, "Descriptor": {{}}, "RootFS": {rootfs}}}"#
    );
    Reply::json(200, &text)
}

/// The head of an answer whose body comes in chunks, as those of both daemons do.
pub const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-tar\r\ntransfer-encoding: chunked\r\n\r\n";

/// One chunk.
pub fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

pub struct FakeDaemon {
    dir: TempDir,
    asked: Arc<Mutex<Vec<String>>>,
}

impl FakeDaemon {
    /// `handler` gets the path of a request, without the version of the API; what it leaves is answered as by an empty Docker.
    pub fn start(name: &str, handler: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let dir = TempDir::new(&format!("fake-{name}"));
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        let (asked, handler) = (Arc::new(Mutex::new(Vec::new())), Arc::new(handler));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, handler) = (Arc::clone(&seen), Arc::clone(&handler));
                std::thread::spawn(move || stream.map(|stream| serve(stream, &seen, &*handler)));
            }
        });
        Self { dir, asked }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How many requests had this in their path.
    pub fn count(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|path| path.contains(part)).count()
    }
}

fn serve(mut stream: UnixStream, seen: &Mutex<Vec<String>>, handler: &(dyn Fn(&str) -> Option<Reply> + Send + Sync)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(path) = lines.next().and_then(|line| Some(line.split(' ').nth(1)?.to_owned())) else { return };
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    seen.lock().unwrap().push(path.clone());
    let plain = match path.strip_prefix("/v1.") {
        Some(rest) => &rest[rest.find('/').unwrap()..],
        None => &path,
    };
    let reply = handler(plain).unwrap_or_else(|| match plain {
        "/_ping" => ping("1.45"),
        "/images/json" => Reply::json(200, "[]"),
        _ => Reply::json(404, r#"{"message": "No such image"}"#),
    });
    match reply {
        Reply::Body(status, body) => {
            let head = format!("HTTP/1.1 {status} It\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
        }
        Reply::Raw(bytes) => drop(stream.write_all(&bytes)),
        Reply::Endless(head, piece) => {
            let _ = stream.write_all(&head);
            while stream.write_all(&piece).is_ok() {}
        }
        Reply::Hang(bytes) => {
            let _ = stream.write_all(&bytes);
            let _ = stream.read(&mut [0; 1]);
        }
    }
}
