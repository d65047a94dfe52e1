//! A registry that misbehaves on demand: HTTP/1.1 over std, one connection per request.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::real::Image;

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered, and how the connection goes wrong.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The length that is claimed, when it is not the body's.
    pub claim: Option<usize>,
    /// After the body, wait for the client to give up instead of closing.
    pub stall: bool,
}

impl Reply {
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Only the first `length` bytes of what is promised, then the connection ends.
    pub fn cut(mut self, length: usize) -> Self {
        self.claim = Some(self.body.len());
        self.body.truncate(length);
        self
    }

    pub fn stall(mut self, length: usize) -> Self {
        self.stall = true;
        self.cut(length)
    }
}

type Handler = dyn Fn(&Request, usize) -> Option<Reply> + Send + Sync;

/// A server whose handler is asked first; what it leaves is answered as a good registry would.
pub struct FakeRegistry {
    pub port: u16,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl FakeRegistry {
    /// `handler` gets the request and how many came for the same path before.
    pub fn start(image: &Image, handler: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests: Arc<Mutex<Vec<Request>>> = Arc::default();
        let blobs: Vec<(String, String, Vec<u8>)> = image
            .blobs
            .iter()
            .map(|blob| (blob.digest().to_string(), blob.media_type.to_owned(), blob.bytes.clone()))
            .chain([("it".to_owned(), image.top().media_type.to_owned(), image.top().bytes.clone())])
            .collect();
        let (seen, blobs, handler) = (Arc::clone(&requests), Arc::new(blobs), Arc::new(handler));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, blobs, handler) = (Arc::clone(&seen), Arc::clone(&blobs), Arc::clone(&handler));
                std::thread::spawn(move || stream.map(|stream| serve(stream, &seen, &blobs, &*handler)));
            }
        });
        Self { port, requests }
    }

    pub fn name(&self) -> String {
        format!("127.0.0.1:{}/it/img:it", self.port)
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(stream: TcpStream, seen: &Mutex<Vec<Request>>, blobs: &[(String, String, Vec<u8>)], handler: &Handler) {
    let mut reader = BufReader::new(stream);
    let Some(request) = read_request(&mut reader) else { return };
    let before = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|other| other.path == request.path).count();
        seen.push(request.clone());
        before
    };
    let reply = handler(&request, before).unwrap_or_else(|| good_reply(&request, blobs));
    let mut head = format!("HTTP/1.1 {} It\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", reply.claim.unwrap_or(reply.body.len()));
    let mut stream = reader.into_inner();
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&reply.body));
    if reply.stall && sent.is_ok() {
        let _ = stream.read(&mut [0; 1]);
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    // A TLS record starts with 22: this server speaks none, and says so by closing.
    if reader.fill_buf().ok()?.first() == Some(&22) {
        return None;
    }
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
    let mut request = Request { method, path, headers, body: String::new() };
    if let Some(length) = request.header("content-length").and_then(|length| length.parse().ok()) {
        reader.take(length).read_to_string(&mut request.body).ok()?;
    }
    Some(request)
}

fn good_reply(request: &Request, blobs: &[(String, String, Vec<u8>)]) -> Reply {
    if request.path == "/v2/" {
        return Reply::new(200, "{}");
    }
    let path = request.path.split('?').next().unwrap_or_default();
    let wanted = path.rsplit('/').next().unwrap_or_default();
    let Some((_, media_type, bytes)) = blobs.iter().find(|(name, ..)| name == wanted) else {
        return Reply::new(404, r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#);
    };
    match request.range_start() {
        Some(from) => {
            let range = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206, &bytes[from..]).header("content-range", range)
        }
        None => Reply::new(200, bytes.as_slice()).header("content-type", media_type),
    }
}
