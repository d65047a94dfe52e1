//! Through a proxy: which requests take it, and that the host's own DNS is not asked then.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use super::Puller;
use super::fake::FakeRegistry;
use super::real::{Blob, Image, TAR, noise};

/// A proxy that leads every CONNECT to one port, and keeps what it was asked.
pub fn proxy(to: u16) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://bob:hun%3Ater2@{}", listener.local_addr().unwrap());
    let heads: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&heads);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || tunnel(client.unwrap(), to, &seen));
        }
    });
    (address, heads)
}

fn tunnel(client: TcpStream, to: u16, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(client.try_clone().unwrap());
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    seen.lock().unwrap().push(head);
    let mut client = client;
    let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
    let (mut from_server, mut to_server) = (server.try_clone().unwrap(), server);
    client.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").unwrap();
    std::thread::spawn(move || std::io::copy(&mut reader, &mut to_server));
    let _ = std::io::copy(&mut from_server, &mut client);
    let _ = client.shutdown(std::net::Shutdown::Both);
}

#[test]
fn each_scheme_takes_its_own_proxy_with_its_login() {
    let image = Image::new("amd64", vec![Blob::new(TAR, noise(10_000, 1))]);
    let registry = FakeRegistry::start(&image, |_, _| None);
    let (address, heads) = proxy(registry.port);
    let mut puller = Puller::new("proxy");
    puller.settings.allow_insecure = true;
    puller.settings.proxies.http = Some(address);
    // The name is known to nobody: https, which has no proxy, fails; http reaches the registry through its own.
    puller.pull_and_compare("registry.invalid/it/img:it", &image);
    let heads = heads.lock().unwrap();
    assert!(heads.iter().all(|head| head.starts_with("CONNECT registry.invalid:80 ")), "{heads:?}");
    // base64 of bob:hun:ter2
    assert!(heads[0].to_lowercase().contains("proxy-authorization: basic ym9iomh1bjp0zxiy"), "{heads:?}");
}

#[test]
fn no_proxy_and_this_machine_itself_go_directly() {
    let image = Image::new("amd64", vec![Blob::new(TAR, noise(10_000, 1))]);
    let registry = FakeRegistry::start(&image, |_, _| None);
    let (address, heads) = proxy(registry.port);
    let mut puller = Puller::new("no-proxy");
    puller.settings.proxies.http = Some(address.clone());
    puller.settings.proxies.https = Some(address);
    puller.settings.proxies.none = "registry.invalid".to_owned();
    puller.pull_and_compare(&registry.name(), &image);
    assert!(puller.refusal("registry.invalid/it/img:it").contains("does not resolve"));
    assert!(puller.resolve("registry.invalid/it/img:it").unwrap_err().is_unreachable());
    assert_eq!(heads.lock().unwrap().len(), 0);
}

/// A proxy that answers every CONNECT with one status.
fn refusing_proxy(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://bob:hunter2@{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let head = BufReader::new(client.try_clone().unwrap()).lines();
            let _ = head.take_while(|line| line.as_ref().is_ok_and(|line| !line.is_empty())).count();
            let _ = client.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes());
        }
    });
    address
}

#[test]
fn a_proxy_that_refuses_is_blamed_without_its_password() {
    // 503 is what a proxy without a way out answers; 407 is the operator's to put right.
    for (status, unreachable) in [("407 Proxy Authentication Required", false), ("503 Service Unavailable", true)] {
        let mut puller = Puller::new("proxy-refuses");
        puller.settings.proxies.https = Some(refusing_proxy(status));
        let refused = puller.refusal("registry.invalid/it/img:it");
        let blamed = refused.contains("the proxy for registry.invalid refused");
        assert!(blamed && !refused.contains("hunter2"), "{refused}");
        assert_eq!(puller.resolve("registry.invalid/it/img:it").unwrap_err().is_unreachable(), unreachable, "{status}");
    }
}

#[test]
fn a_proxy_that_is_not_there_is_not_taken_for_the_registry() {
    let mut puller = Puller::new("proxy-down");
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    puller.settings.proxies.https = Some(format!("http://bob:hunter2@{closed}"));
    let refused = puller.refusal("registry.invalid/it/img:it");
    let words = format!(
        "cannot reach registry.invalid through the proxy of HTTPS_PROXY: {closed} refuses the connection; is a server running"
    );
    assert!(refused.contains(&words) && !refused.contains("hunter2"), "{refused}");
    assert!(puller.resolve("registry.invalid/it/img:it").unwrap_err().is_unreachable());
    puller.settings.proxies.https = Some("http://proxy.invalid:3128".to_owned());
    let refused = puller.refusal("registry.invalid/it/img:it");
    assert!(refused.contains("the name proxy.invalid:3128 does not resolve"), "{refused}");
}
