//! Over TLS from a real server, with an authority of one's own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use auroraboot::source::Verified;

use super::*;
use crate::registry::real::make_certificates;

/// `openssl s_server -HTTP`, which gives out files that hold whole responses.
struct TlsServer {
    child: Child,
    port: u16,
    dir: TempDir,
}

impl TlsServer {
    fn start() -> Self {
        let dir = TempDir::new("release-tls-server");
        make_certificates(dir.path());
        let response = |name: &str, body: &[u8]| {
            let path = dir.path().join(format!("{}{name}", &DOWNLOADS[1..]));
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            std::fs::write(path, [head.as_bytes(), body].concat()).unwrap();
        };
        response(&format!("{NAME}.iso"), &iso());
        response(&format!("{NAME}.iso.sha256"), checksum_of(&iso()).as_bytes());
        let mut child = Command::new("openssl")
            .args(["s_server", "-HTTP", "-accept", "127.0.0.1:0", "-cert", "server.pem", "-key", "server.key"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("openssl: {error}; `tests/run` installs what the tests need"));
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        let port = loop {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "openssl ended");
            if let Some(port) = line.trim().strip_prefix("ACCEPT 127.0.0.1:") {
                break port.parse().unwrap();
            }
        };
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Self { child, port, dir }
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn an_authority_of_ones_own_is_trusted_when_it_is_named() {
    let server = TlsServer::start();
    let url = format!("https://127.0.0.1:{}", server.port);
    let query = ReleaseQuery { github_url: Some(&url), ..query() };
    let mut host = Host::new("tls");
    let error = host.fetch(&query).unwrap_err();
    assert!(error.contains("TLS failed") && error.contains("ca_file"), "{error}");
    host.settings.ca_file = Some(server.dir.path().join("ca.pem"));
    let fetched = host.fetch(&query).unwrap();
    host.has(&fetched, &iso());
    assert_eq!(fetched.verified, Verified::Published);
}
