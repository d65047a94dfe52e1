//! Port 8080 on real sockets: the page, the downloads, and what clients and handlers do wrong.

use crate::http::{curl, served};
use auroraboot::daemon::http::{Http, HttpError, Media, Netboot, Options, Sites, Stopper};
use auroraboot::daemon::web::{Door, Handler, Web};
use auroraboot::http::exchange::Timeouts;
use auroraboot::limits;
use auroraboot::netboot::event::{self, Event};
use auroraboot::netboot::names::file;
use auroraboot::sys::descriptors;
use auroraboot::units::Digest;
use auroraboot::web::handlers;
use auroraboot::web::listing::{Item, Kind, Listing, ListingError, Shelf};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

const PRISTINE: &str = "kairos.iso";
const CUSTOM: &str = "kairos.iso.custom.iso";
const PRISTINE_BYTES: usize = 300_000;
/// More than any socket buffer takes: a client that does not read stalls its download.
const CUSTOM_BYTES: u64 = 64 << 20;
const SECRET: &str = "password: hunter2";
/// For what is to happen at once; wide, because test machines are busy.
const SOON: Duration = Duration::from_secs(20);

/// A folder as a run leaves it: two ISOs, and the cloud config beside them.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("auroraboot-web-{}-{number}", std::process::id()));
        fs::create_dir_all(path.join("iso")).unwrap();
        fs::write(path.join("iso").join(PRISTINE), pristine()).unwrap();
        File::create(path.join("iso").join(CUSTOM)).unwrap().set_len(CUSTOM_BYTES).unwrap();
        fs::write(path.join("iso/config.yaml"), SECRET).unwrap();
        Self(path)
    }

    fn item(&self, name: &str, kind: Kind) -> Item {
        let path = self.0.join("iso").join(name);
        let file = File::open(&path).unwrap();
        static ZEROES: OnceLock<Digest> = OnceLock::new();
        let is_all_hole = file.metadata().unwrap().blocks() == 0;
        let sha256 = if is_all_hole { *ZEROES.get_or_init(|| sha256sum(&path)) } else { sha256sum(&path) };
        Item {
            name: name.to_owned(),
            kind,
            size: file.metadata().unwrap().len(),
            file: Arc::new(file),
            sha256,
            built: UNIX_EPOCH + Duration::from_secs(1_795_384_083),
            contains_cloud_config: kind == Kind::Custom,
        }
    }

    fn listing(&self) -> Listing {
        let media = vec![self.item(PRISTINE, Kind::Pristine), self.item(CUSTOM, Kind::Custom)];
        Listing::new("quay.io/kairos/opensuse:leap", media).unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn sha256sum(path: &Path) -> Digest {
    let sum = Command::new("sha256sum").arg(path).output().unwrap().stdout;
    format!("sha256:{}", std::str::from_utf8(&sum[..64]).unwrap()).parse().unwrap()
}

fn pristine() -> Vec<u8> {
    (0..PRISTINE_BYTES).map(|n| (n * 7 + n / 251) as u8).collect()
}

/// Both servers and the web thread.
struct Server {
    media: SocketAddr,
    netboot: SocketAddrV4,
    events: Receiver<Event>,
    shelf: Shelf,
    door: Door,
    stopper: Stopper,
    threads: Vec<JoinHandle<()>>,
    folder: Folder,
}

impl Server {
    fn start(options: Options, handler: impl FnOnce(Shelf) -> Handler) -> Self {
        Self::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), options, handler)
    }

    fn start_at(address: SocketAddr, options: Options, handler: impl FnOnce(Shelf) -> Handler) -> Self {
        let folder = Folder::new();
        let (teller, events) = event::channel(10_000);
        let shelf = Shelf::new(folder.listing());
        let web = Web::bind(&folder.0.join("web"), handler(shelf.clone()), teller.clone()).unwrap();
        let door = web.door();
        let netboot = Netboot { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), served: Arc::new(served()) };
        let media = Media { address, shelf: shelf.clone(), door: door.clone() };
        let http = Http::bind(Sites { netboot: Some(netboot), media: Some(media) }, teller, options).unwrap();
        let media = http.media_addr().unwrap();
        let Some(SocketAddr::V4(netboot)) = http.netboot_addr() else { panic!("an IPv4 address") };
        let stopper = http.stopper();
        let threads = vec![
            std::thread::spawn(move || http.run().expect("the loop ends well")),
            std::thread::spawn(move || web.run()),
        ];
        Self { media, netboot, events, shelf, door, stopper, threads, folder }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.media)
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.media).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = BufReader::new(self.connect());
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\nHost: aurora\r\n\r\n").unwrap();
        let (head, body) = response(&mut stream, true);
        (status(&head), String::from_utf8(body).unwrap())
    }

    fn sha256(&self, name: &str) -> String {
        self.shelf.listing().media().iter().find(|item| item.name == name).unwrap().sha256.hex()
    }

    /// The next event that `wanted` makes something of.
    fn wait_for<T>(&self, wanted: impl Fn(Event) -> Option<T>) -> T {
        let end = Instant::now() + SOON;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if let Some(found) = wanted(self.events.recv_timeout(left).expect("the event comes")) {
                return found;
            }
        }
    }

    /// Downloads go on, on both ports.
    fn assert_downloads_work(&self) {
        assert!(curl(&[&self.url(&format!("/{PRISTINE}"))]) == pristine());
        let names = served().names;
        assert_eq!(curl(&[&names.url_at(self.netboot, crate::http::MAC, file::INITRD)]), b"initrd");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopper.stop();
        self.door.stop();
        for thread in self.threads.drain(..) {
            thread.join().expect("no thread panics");
        }
    }
}

/// The product's handler.
fn pages(shelf: Shelf) -> Handler {
    Box::new(move |request| handlers::respond(&shelf, request))
}

/// The product's handler behind one that hangs at `/hang`, until the sender is dropped, and dies at `/die`.
fn faulty(shelf: Shelf) -> (Handler, Sender<()>, Arc<AtomicUsize>) {
    let (release, hold) = channel();
    let hold: Mutex<Receiver<()>> = Mutex::new(hold);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let handler = Box::new(move |request: tiny_http::Request| {
        counted.fetch_add(1, Ordering::SeqCst);
        match request.url() {
            "/hang" => drop(hold.lock().unwrap().recv()),
            "/die" => panic!("as the test wants"),
            _ => {}
        }
        handlers::respond(&shelf, request);
    });
    (handler, release, calls)
}

fn quick(answer: Duration) -> Options {
    Options { timeouts: Timeouts { answer, ..Timeouts::default() }, ..Options::default() }
}

/// Reads one response with a Content-Length: its head, and its body when it is not the answer to a HEAD.
fn response(stream: &mut impl BufRead, with_body: bool) -> (String, Vec<u8>) {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).unwrap() > 0, "the stream ended after {head:?}");
    }
    let length = head.split("Content-Length: ").nth(1).and_then(|rest| rest.lines().next()).unwrap_or("0");
    let mut body = vec![0; if with_body { length.parse().unwrap() } else { 0 }];
    stream.read_exact(&mut body).unwrap();
    (head, body)
}

fn status(head: &str) -> u16 {
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

fn text(args: &[&str]) -> String {
    String::from_utf8_lossy(&curl(args)).into_owned()
}

#[test]
fn the_page_tells_everything_and_loads_nothing() {
    let server = Server::start(Options::default(), pages);
    let page = text(&["-i", &server.url("/")]);
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    for wanted in [
        "HTTP/1.1 200 OK",
        "Content-Type: text/html; charset=utf-8",
        "Content-Security-Policy: default-src 'none'; style-src 'sha256-",
        "X-Content-Type-Options: nosniff",
        "Server: auroraboot",
    ] {
        assert!(head.contains(wanted), "{wanted}: {head}");
    }
    assert!(!head.contains("Transfer-Encoding"), "{head}");
    let custom_hash = server.sha256(CUSTOM);
    for wanted in [
        "quay.io/kairos/opensuse:leap",
        PRISTINE,
        CUSTOM,
        "67.1 MB",
        "2026-11-22 21:48 UTC",
        &custom_hash,
        "Contains your cloud config",
        "can read the",
        &format!("curl -C - -o {CUSTOM} http://{}/{CUSTOM}", server.media),
        "sudo dd if=",
        "auroraboot flash",
        "balenaEtcher",
        "DD Image mode",
    ] {
        assert!(body.contains(wanted), "{wanted}: {body}");
    }
    for loaded in ["src=", "<script", "@import", "url("] {
        assert!(!body.contains(loaded), "{loaded}: {body}");
    }
}

#[test]
fn scripts_get_json_and_sha256sum_agrees_with_the_checksum() {
    let server = Server::start(Options::default(), pages);
    let json: serde_json::Value = serde_json::from_slice(&curl(&[&server.url("/media.json")])).unwrap();
    assert_eq!(json["image"], "quay.io/kairos/opensuse:leap");
    let custom = &json["media"][1];
    assert_eq!(
        (custom["name"].as_str(), custom["kind"].as_str(), custom["size"].as_u64()),
        (Some(CUSTOM), Some("custom"), Some(CUSTOM_BYTES))
    );
    assert_eq!(
        (custom["date"].as_str(), &custom["contains_cloud_config"]),
        (Some("2026-11-22T21:48:03Z"), &true.into())
    );
    assert_eq!(json["media"][0]["contains_cloud_config"], false);
    for item in json["media"].as_array().unwrap() {
        let (name, url) = (item["name"].as_str().unwrap(), item["url"].as_str().unwrap());
        let folder = &server.folder.0;
        fs::write(folder.join(name), curl(&[url])).unwrap();
        let sum = curl(&[item["sha256_url"].as_str().unwrap()]);
        assert!(sum.starts_with(item["sha256"].as_str().unwrap().as_bytes()));
        let mut check = Command::new("sha256sum").arg("-c").current_dir(folder).stdin(Stdio::piped()).spawn().unwrap();
        check.stdin.take().unwrap().write_all(&sum).unwrap();
        assert!(check.wait().unwrap().success(), "{name}");
    }
    let told: Vec<String> = (0..4)
        .map(|_| {
            server.wait_for(|event| match event {
                Event::DownloadSent { name, .. } => Some(name.to_string()),
                other => panic!("{other:?}"),
            })
        })
        .collect();
    assert_eq!(told, [PRISTINE, "kairos.iso.sha256", CUSTOM, "kairos.iso.custom.iso.sha256"]);
}

#[test]
fn curl_resumes_and_asks_whether_it_has_the_newest() {
    let server = Server::start(Options::default(), pages);
    let url = server.url(&format!("/{PRISTINE}"));
    let head = text(&["--head", &url]);
    let etag = format!("ETag: \"{}\"\r\n", server.sha256(PRISTINE));
    for wanted in [
        "HTTP/1.1 200 OK\r\n",
        "Content-Length: 300000\r\n",
        "Accept-Ranges: bytes\r\n",
        "Content-Disposition: attachment; filename=\"kairos.iso\"\r\n",
        "Last-Modified: Sun, 22 Nov 2026 21:48:03 GMT\r\n",
        &etag,
    ] {
        assert!(head.contains(wanted), "{wanted}: {head}");
    }
    let path = server.folder.0.join("partial.iso");
    let path = path.to_str().unwrap();
    fs::write(path, &pristine()[..123_456]).unwrap();
    curl(&["-C", "-", "-o", path, &url]);
    assert!(fs::read(path).unwrap() == pristine());
    curl(&["-C", "-", "-o", path, &url]); // a second time: there is nothing left to get
    assert_eq!(curl(&["-r", "-7", &url]), pristine()[PRISTINE_BYTES - 7..]);

    let code =
        |args: &[&str]| text(&[&["-o", "/dev/null", "-w", "%{http_code} %{size_download}"], args, &[&url]].concat());
    let quoted = format!("\"{}\"", server.sha256(PRISTINE));
    assert_eq!(code(&["-r", "5-9", "-H", &format!("If-Range: {quoted}")]), "206 5");
    assert_eq!(code(&["-r", "5-9", "-H", "If-Range: \"older\""]), "200 300000");
    assert_eq!(code(&["-H", &format!("If-None-Match: {quoted}")]), "304 0");
    assert_eq!(code(&["-H", "If-None-Match: \"older\""]), "200 300000");
    assert_eq!(code(&["-r", "300000-"]), "416 0");
}

#[test]
fn one_connection_serves_pages_and_downloads_in_order() {
    let server = Server::start(Options::default(), pages);
    let mut stream = BufReader::new(server.connect());
    let requests = format!(
        "GET / HTTP/1.1\r\nHost: x\r\n\r\nHEAD /media.json HTTP/1.1\r\n\r\nGET /none HTTP/1.1\r\n\r\n\
         GET /{PRISTINE} HTTP/1.1\r\nRange: bytes=0-9\r\n\r\nGET /media.json HTTP/1.1\r\n\r\n"
    );
    stream.get_mut().write_all(requests.as_bytes()).unwrap();
    assert!(response(&mut stream, true).1.starts_with(b"<!doctype html>"));
    let (head, _) = response(&mut stream, false);
    assert!(head.contains("Content-Type: application/json") && !head.contains("Content-Length: 0\r\n"), "{head}");
    let (head, body) = response(&mut stream, true);
    assert!(status(&head) == 404 && body.starts_with(b"<!doctype html>"), "{head}");
    assert_eq!(response(&mut stream, true).1, pristine()[..10]);
    assert!(response(&mut stream, true).1.starts_with(b"{"));
    let connects =
        text(&["-o", "/dev/null", "-w", "%{num_connects}", &server.url("/"), "-o", "/dev/null", &server.url("/")]);
    assert_eq!(connects, "10", "curl uses its connection again");
}

#[test]
fn only_what_stands_in_the_table_is_served() {
    let server = Server::start(Options::default(), pages);
    for path in [
        "/config.yaml",
        "/iso/config.yaml",
        "/../config.yaml",
        "/%2e%2e/config.yaml",
        "/..%2fconfig.yaml",
        "/kairos.iso/../config.yaml",
        "/./config.yaml",
        "/kairos.iso%00",
        "/kairos.iso/",
        "/KAIROS.ISO",
        "/kairos",
        "/etc/passwd",
        "//etc/passwd",
        "/web/web.sock",
        "/proc/self/environ",
        "/media.json/x",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
    ] {
        let answer = text(&["--path-as-is", "-w", "%{http_code}", &server.url(path)]);
        let refused = answer.ends_with("404") || answer.ends_with("400");
        // A slash too many at the end is forgiven, as everywhere in this server.
        assert!(refused || path == "/kairos.iso/", "{path}: {answer}");
        assert!(!answer.contains(SECRET) && !answer.contains("alert(1)"), "{path}: {answer}");
    }
}

#[test]
fn names_that_are_no_isos_do_not_get_into_the_table() {
    let folder = Folder::new();
    let named = |name: &str| {
        let item = Item { name: name.to_owned(), ..folder.item(PRISTINE, Kind::Pristine) };
        Listing::new("", vec![item])
    };
    for name in
        ["config.yaml", "", ".iso", "a/b.iso", "../x.iso", "a\nb.iso", "a\\b.iso", &format!("{}.iso", "x".repeat(250))]
    {
        assert_eq!(named(name).unwrap_err(), ListingError::BadName(name.to_owned()));
    }
    let twice = vec![folder.item(PRISTINE, Kind::Pristine), folder.item(PRISTINE, Kind::Custom)];
    assert_eq!(Listing::new("", twice).unwrap_err(), ListingError::Twice(PRISTINE.to_owned()));
}

#[test]
fn hostile_names_are_only_names() {
    let server = Server::start(Options::default(), pages);
    let names = ["<script>alert(1)<&\">.iso", "it's $(reboot) a b;c?d#e%41.iso", "Käse.iso", "-rf.iso"];
    let items = names.map(|name| Item { name: name.to_owned(), ..server.folder.item(PRISTINE, Kind::Pristine) });
    server.shelf.replace(Listing::new("<img src=x onerror=alert(2)>", items.to_vec()).unwrap());
    let page = text(&[&server.url("/")]);
    for harm in ["<script", "<img", "-o it's", "-o -rf.iso"] {
        assert!(!page.contains(harm), "{harm}: {page}");
    }
    assert!(page.contains("&lt;script&gt;alert(1)&lt;&amp;&quot;&gt;.iso"), "{page}");
    let json: serde_json::Value = serde_json::from_slice(&curl(&[&server.url("/media.json")])).unwrap();
    for (item, name) in json["media"].as_array().unwrap().iter().zip(names) {
        assert_eq!(item["name"], name);
        let answer = text(&["--head", item["url"].as_str().unwrap()]);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.matches("\r\n\r\n").count() == 1, "{answer}");
        let disposition = answer.lines().find(|line| line.starts_with("Content-Disposition: attachment; filename"));
        assert!(disposition.is_some_and(|line| line.matches('"').count() != 3 && !line.contains('ä')), "{answer}");
    }
}

/// Every command of the page in a shell, with a file for a stick and without root.
#[test]
fn the_commands_on_the_page_do_what_they_say() {
    let server = Server::start(Options::default(), pages);
    let stick = server.folder.0.join("stick");
    for name in [PRISTINE, "it's $(touch harm) a b;c#d%41&.iso"] {
        let item = Item { name: name.to_owned(), ..server.folder.item(PRISTINE, Kind::Pristine) };
        server.shelf.replace(Listing::new("", vec![item]).unwrap());
        let page = text(&[&server.url("/")]);
        let commands = page.split("<pre><code>").skip(1).map(|rest| rest.split("</code>").next().unwrap());
        let run = |command: &str| {
            let plain =
                command.replace("<mark>/dev/sdX</mark>", "$STICK").replace("sudo ", "").replace("oflag=direct ", "");
            let plain = plain.replace("&#39;", "'").replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">");
            let mut sh = Command::new("sh");
            sh.args(["-ec", &plain.replace("&amp;", "&")]).env("STICK", &stick).current_dir(&server.folder.0);
            let output = sh.output().unwrap();
            assert!(output.status.success(), "{plain}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        };
        let mut ran = Vec::new();
        for command in commands {
            let first = command.trim_start_matches("sudo ").split(' ').next().unwrap();
            match first {
                "dd" => drop(run(command)),
                "curl" if command.contains("sha256sum -c") => assert_eq!(run(command), format!("{name}: OK\n")),
                "curl" if command.contains(" -o ") => assert_eq!(run(command), ""),
                // To the stick and back: the sum is the one on the page.
                "curl" | "head" => assert!(run(command).starts_with(&server.sha256(name)), "{command}"),
                "auroraboot" | "lsblk" | "umount" | "certutil" => continue,
                other => panic!("an unknown command: {other}"),
            }
            ran.push(first);
        }
        assert_eq!(ran, ["curl", "curl", "curl", "curl", "dd", "head", "curl"]);
        assert!(fs::read(&stick).unwrap() == pristine());
        fs::remove_file(&stick).unwrap();
        assert!(!server.folder.0.join("harm").exists());
    }
}

#[test]
fn a_host_that_is_no_host_is_not_repeated() {
    let server = Server::start(Options::default(), pages);
    for host in ["x$(reboot)", "<b>x</b>", "x y", "x\"y", &"x".repeat(300)] {
        let page = text(&["-H", &format!("Host: {host}"), &server.url("/")]);
        assert!(!page.contains(host) && page.contains(&format!("http://{}/{CUSTOM}", server.media)), "{page}");
    }
    let named = text(&["-H", "Host: aurora.lan:8080", &server.url("/media.json")]);
    assert!(named.contains("\"http://aurora.lan:8080/kairos.iso\""), "{named}");
}

#[test]
fn what_a_client_claims_about_itself_does_not_reach_the_handler() {
    let echo = |_| -> Handler {
        Box::new(|request: tiny_http::Request| {
            let heads: String = request.headers().iter().map(|header| format!("{header}\n")).collect();
            let text = format!("{} {}\n{heads}", request.method(), request.url());
            request.respond(tiny_http::Response::from_string(text)).unwrap();
        })
    };
    let server = Server::start(Options::default(), echo);
    let claims =
        ["X-Forwarded-For: 10.9.9.9", "x-forwarded-FOR: 10.9.9.9", "Forwarded: for=10.9.9.9", "X-Real-IP: 10.9.9.9"];
    let args: Vec<&str> = claims.iter().flat_map(|claim| ["-H", claim]).collect();
    let told = text(&[&args[..], &[&server.url("/a%20b?c=d")]].concat());
    assert_eq!(told, format!("GET /a%20b\nHost: {}\nX-Forwarded-For: 127.0.0.1\nConnection: close\n", server.media));
}

#[test]
fn what_is_no_request_never_reaches_the_handler() {
    let (mut calls, mut hold) = (None, None);
    let server = Server::start(Options::default(), |shelf| {
        let (handler, release, counted) = faulty(shelf);
        (calls, hold) = (Some(counted), Some(release));
        handler
    });
    let refused = |request: &[u8]| {
        let mut stream = server.connect();
        // The server may close before everything is sent: that is the point.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        status(&String::from_utf8_lossy(&answer))
    };
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20));
    assert_eq!(refused(endless.as_bytes()), 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(200));
    assert_eq!(refused(many.as_bytes()), 431);
    let body = format!("POST / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n{}", "x".repeat(1 << 20));
    assert_eq!(refused(body.as_bytes()), 405);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n"), 400);
    assert_eq!(refused(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), 400);
    assert_eq!(refused(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"), 400);
    assert_eq!(server.get("/").0, 200);
    assert_eq!(calls.unwrap().load(Ordering::SeqCst), 1, "the page that was asked for properly");
}

#[test]
fn a_thousand_slow_clients_delay_nobody() {
    let _ = descriptors::raise_limit();
    let (mut calls, mut hold) = (None, None);
    let server = Server::start(Options::default(), |shelf| {
        let (handler, release, counted) = faulty(shelf);
        (calls, hold) = (Some(counted), Some(release));
        handler
    });
    let mut slow: Vec<TcpStream> = (0..1_000).map(|_| server.connect()).collect();
    for byte in "GET / HTTP/1.1\r\nHost".bytes() {
        for stream in &mut slow {
            stream.write_all(&[byte]).unwrap();
        }
    }
    let asked = Instant::now();
    assert_eq!(server.get("/").0, 200);
    server.assert_downloads_work();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    assert_eq!(calls.unwrap().load(Ordering::SeqCst), 1, "half a request is nobody's business");
}

#[test]
fn a_handler_that_hangs_costs_its_client_a_page_and_nobody_else_anything() {
    let mut hold = None;
    let server = Server::start(quick(Duration::from_millis(400)), |shelf| {
        let (handler, release, _) = faulty(shelf);
        hold = Some(release);
        handler
    });
    let hanging: Vec<_> = (0..limits::WEB_REQUESTS_MAX).map(|_| server.ask("/hang")).collect();
    server.assert_downloads_work();
    for mut stream in hanging {
        let (head, body) = response(&mut stream, true);
        assert_eq!((status(&head), &body[..4]), (504, &b"504 "[..]));
    }
    // The handlers hang on, so their places are taken; who comes now waits for one, but not for ever.
    let (code, reason) = server.get("/");
    assert!(code == 503 && reason.contains("too many requests"), "{code} {reason}");
    server.assert_downloads_work();
    drop(hold);
    let end = Instant::now() + SOON;
    while server.get("/").0 != 200 {
        assert!(Instant::now() < end, "the pages come back");
    }
}

#[test]
fn more_requests_for_pages_than_there_is_room_for_are_refused_at_once() {
    let _ = descriptors::raise_limit();
    let mut hold = None;
    let server = Server::start(Options::default(), |shelf| {
        let (handler, release, _) = faulty(shelf);
        hold = Some(release);
        handler
    });
    let room = limits::WEB_REQUESTS_MAX + limits::WEB_WAITING_MAX;
    let mut all: Vec<_> = (0..=room).map(|_| server.ask("/hang")).collect();
    // Whichever came last is told at once, while the handler still holds all the others.
    let refused = server.wait_for(|event| match event {
        Event::Refused { to, .. } => Some(to),
        _ => None,
    });
    let position = all.iter().position(|stream| stream.get_ref().local_addr().unwrap() == refused).unwrap();
    assert_eq!(status(&response(&mut all.remove(position), true).0), 503);
    drop(hold);
    for mut stream in all {
        assert_eq!(status(&response(&mut stream, true).0), 404, "each gets its answer in the end");
    }
}

#[test]
fn a_handler_that_dies_answers_500_and_the_next_one_lives() {
    let mut hold = None;
    let server = Server::start(Options::default(), |shelf| {
        let (handler, release, _) = faulty(shelf);
        hold = Some(release);
        handler
    });
    for _ in 0..3 {
        assert_eq!(server.get("/die").0, 500);
        assert_eq!(server.get("/").0, 200);
    }
}

#[test]
fn a_handler_that_answers_without_end_is_cut() {
    let endless = |_| -> Handler {
        Box::new(|request: tiny_http::Request| {
            let response =
                tiny_http::Response::new(200.into(), Vec::new(), std::io::repeat(b'x'), Some(usize::MAX), None);
            assert!(
                request.respond(response.with_chunked_threshold(usize::MAX)).is_ok(),
                "it is told that nobody listens"
            );
        })
    };
    let server = Server::start(Options::default(), endless);
    let (code, reason) = server.get("/");
    assert!(code == 502 && reason.contains("longer than this server passes on"), "{code} {reason}");
    server.assert_downloads_work();
}

#[test]
fn a_web_thread_that_does_not_answer_is_replaced() {
    let server = Server::start(Options::default(), pages);
    fs::remove_file(server.folder.0.join("web/web.sock")).unwrap();
    let (code, reason) = server.get("/");
    assert!(code == 503 && reason.contains("no page can be made"), "{code} {reason}");
    server.assert_downloads_work();
    let trouble = server.wait_for(|event| match event {
        Event::Trouble { what } => Some(what),
        _ => None,
    });
    assert!(trouble.contains("started again"), "{trouble}");
    let end = Instant::now() + SOON;
    while server.get("/").0 != 200 {
        assert!(Instant::now() < end, "the pages come back");
    }
    server.door.stop(); // as if it had died for good
    while server.get("/").0 != 503 {
        assert!(Instant::now() < end, "the thread ends");
    }
    server.assert_downloads_work();
}

#[test]
fn a_client_that_stops_reading_is_cut_and_told() {
    let timeouts = Timeouts { stall: Duration::from_millis(300), ..Timeouts::default() };
    let server = Server::start(Options { timeouts, ..Options::default() }, pages);
    let mut stalled = server.ask(&format!("/{CUSTOM}"));
    assert_eq!(server.get("/").0, 200);
    let (name, sent, reason) = server.wait_for(|event| match event {
        Event::DownloadBroken { name, sent, reason, .. } => Some((name, sent, reason)),
        _ => None,
    });
    assert_eq!((&*name, &*reason), (CUSTOM, "the client took no byte for too long"));
    assert!(sent < CUSTOM_BYTES);
    assert!(std::io::copy(&mut stalled, &mut std::io::sink()).map_or(true, |bytes| bytes < CUSTOM_BYTES));
}

#[test]
fn a_download_ends_with_the_file_it_began_with() {
    let server = Server::start(Options::default(), pages);
    let mut stream = server.ask(&format!("/{CUSTOM}"));
    let mut head = [0; 100_000];
    stream.read_exact(&mut head).unwrap();
    let path = server.folder.0.join("iso").join(CUSTOM);
    fs::write(path.with_extension("part"), vec![b'N'; CUSTOM_BYTES as usize]).unwrap();
    fs::rename(path.with_extension("part"), &path).unwrap();
    server.shelf.replace(server.folder.listing());
    let mut rest = Vec::new();
    stream.get_mut().shutdown(std::net::Shutdown::Write).unwrap();
    let left = CUSTOM_BYTES as usize - 100_000;
    rest.resize(left, 1);
    stream.read_exact(&mut rest).unwrap();
    assert!(rest.iter().all(|byte| *byte == 0), "not one byte of the new file");
    assert_eq!(curl(&["-r", "0-3", &server.url(&format!("/{CUSTOM}"))]), b"NNNN");
}

#[test]
fn each_server_can_be_there_alone() {
    let (teller, _events) = event::channel(10);
    let folder = Folder::new();
    let shelf = Shelf::new(folder.listing());
    let web = Web::bind(&folder.0.join("web"), pages(shelf.clone()), teller.clone()).unwrap();
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let media = Some(Media { address: local, shelf, door: web.door() });
    let http = Http::bind(Sites { netboot: None, media }, teller.clone(), Options::default()).unwrap();
    assert!(http.netboot_addr().is_none() && http.media_addr().is_some());
    let netboot = Netboot { address: SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), served: Arc::new(served()) };
    let http = Http::bind(Sites { netboot: Some(netboot), media: None }, teller.clone(), Options::default()).unwrap();
    assert!(http.netboot_addr().is_some() && http.media_addr().is_none());
    let http = Http::bind(Sites::default(), teller, Options::default()).unwrap();
    http.stopper().stop();
    http.run().unwrap();
}

#[test]
fn every_address_means_ipv6_too() {
    let server = Server::start_at("[::]:0".parse().unwrap(), Options::default(), pages);
    let port = server.media.port();
    for host in ["127.0.0.1", "[::1]"] {
        let url = format!("http://{host}:{port}/media.json");
        assert!(text(&[&url]).contains(&format!("\"http://{host}:{port}/kairos.iso\"")));
        curl(&[&format!("http://{host}:{port}/{PRISTINE}")]);
        let to = server.wait_for(|event| match event {
            Event::DownloadSent { to, .. } => Some(to),
            _ => None,
        });
        assert!(to.to_string().starts_with(&format!("{host}:")), "{to}");
    }
}

#[test]
fn a_taken_port_says_who_has_it_and_which_setting_to_change() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = Folder::new();
    let (teller, _events) = event::channel(10);
    let shelf = Shelf::new(folder.listing());
    let web = Web::bind(&folder.0.join("web"), pages(shelf.clone()), teller.clone()).unwrap();
    let bind = |address| {
        let media = Some(Media { address, shelf: shelf.clone(), door: web.door() });
        Http::bind(Sites { netboot: None, media }, teller.clone(), Options::default()).unwrap_err()
    };
    let taken = bind(holder.local_addr().unwrap()).to_string();
    assert!(taken.contains(&std::process::id().to_string()) && taken.contains("listen_addr"), "{taken}");
    let elsewhere = bind("192.0.2.1:0".parse().unwrap());
    assert!(matches!(elsewhere, HttpError::Listen { settings: "listen_addr", .. }), "{elsewhere}");
}

#[test]
fn the_socket_is_nobody_elses_and_its_folder_may_have_a_long_name() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let (teller, _events) = event::channel(10);
    let long = folder.0.join("x".repeat(200)).join("web");
    let web = Web::bind(&long, pages(Shelf::default()), teller.clone()).unwrap();
    assert_eq!(fs::metadata(&long).unwrap().permissions().mode() & 0o777, 0o700);
    drop(web.door().connect().unwrap());
    drop(web);
    assert!(!long.join("web.sock").exists());
    // As a run that was killed leaves it.
    fs::write(long.join("web.sock"), "").unwrap();
    fs::set_permissions(&long, fs::Permissions::from_mode(0o755)).unwrap();
    drop(Web::bind(&long, pages(Shelf::default()), teller).unwrap().door().connect().unwrap());
    assert_eq!(fs::metadata(&long).unwrap().permissions().mode() & 0o777, 0o700);
}

impl Server {
    /// Asks and does not wait for the answer.
    fn ask(&self, path: &str) -> BufReader<TcpStream> {
        let mut stream = BufReader::new(self.connect());
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\n\r\n").unwrap();
        stream
    }
}

/// The servers in a process of their own, so that its descriptors can be bounded.
#[test]
fn without_descriptors_pages_wait_and_downloads_go_on() {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -n 60; exec \"$0\" --ignored --exact web::serve_for_another_test --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null()) // tiny_http panics in its own thread
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = lines.find_map(|line| Some(line.unwrap().split_once("listening on ")?.1.to_owned())).unwrap();
    let (address, socket) = line.split_once(' ').unwrap();
    let (address, socket): (SocketAddr, &Path) = (address.parse().unwrap(), Path::new(socket));
    let get = |path: &str| {
        let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
        stream.get_ref().set_read_timeout(Some(SOON)).unwrap();
        write!(stream.get_mut(), "GET {path} HTTP/1.1\r\n\r\n").unwrap();
        let (head, body) = response(&mut stream, true);
        (status(&head), body)
    };
    let page_comes_back = || {
        let end = Instant::now() + SOON;
        while get("/").0 != 200 {
            assert!(Instant::now() < end, "the pages come back");
        }
    };
    assert_eq!(get("/").0, 200);
    // Clients take all descriptors: there is no page, but there are downloads.
    let crowd: Vec<TcpStream> = (0..200).map(|_| TcpStream::connect(address).unwrap()).collect();
    assert_eq!(get("/").0, 503);
    assert!(get(&format!("/{PRISTINE}")).1 == pristine());
    drop(crowd);
    page_comes_back();
    // Past the loop, straight at tiny_http: its listener ends, and is opened again.
    let crowd: Vec<_> = (0..200).map_while(|_| std::os::unix::net::UnixStream::connect(socket).ok()).collect();
    assert!(crowd.len() > 20, "{}", crowd.len());
    assert!(get(&format!("/{PRISTINE}")).1 == pristine());
    drop(crowd);
    page_comes_back();
    drop(child.stdin.take()); // tells it to end
    // All of its lines are read: it cannot end while the pipe is full of them.
    let again = lines.filter(|line| line.as_ref().unwrap().contains("is started again")).count();
    assert_ne!(again, 0, "the listener had really ended");
    child.wait().unwrap();
}

#[test]
#[ignore = "it is run by another test, in a process of its own"]
fn serve_for_another_test() {
    let server = Server::start(Options::default(), pages);
    println!("\nlistening on {} {}", server.media, server.folder.0.join("web/web.sock").display());
    let _ = std::io::stdin().read(&mut [0]);
    server.events.try_iter().for_each(|event| println!("{event:?}"));
}
