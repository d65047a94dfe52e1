//! A daemon that answers as it is told, on a Unix socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

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
    let plain = path.strip_prefix("/v1.45").unwrap_or(&path);
    let reply = handler(plain).unwrap_or_else(|| match plain {
        "/_ping" => Reply::Raw(
            b"HTTP/1.1 200 OK\r\nApi-Version: 1.45\r\nServer: Docker/26.1 (fake)\r\ncontent-length: 2\r\n\r\nOK"
                .to_vec(),
        ),
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
