//! The product's TFTP server alone: every file of a folder, read into memory, on one loop.
//!
//! `tftp-serve ADDRESS PORT FOLDER [PLACES]`; prints one line when it listens.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Instant;

use auroraboot::daemon::tftp_io::TftpIo;
use auroraboot::tftp::{Content, Files};

struct Folder(HashMap<String, Content>);

impl Files for Folder {
    fn open(&self, _from: SocketAddrV4, _server: Ipv4Addr, name: &str) -> Option<Content> {
        self.0.get(name).cloned()
    }
}

pub fn main(arguments: &[String]) {
    let [address, port, folder, rest @ ..] = arguments else {
        panic!("usage: tftp-serve ADDRESS PORT FOLDER [PLACES]")
    };
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let bytes: Arc<[u8]> = std::fs::read(&path).expect("a file").into();
        let content: Content = Arc::new(bytes);
        files.insert(path.file_name().expect("a name").to_string_lossy().into_owned(), content);
    }
    let listen = SocketAddrV4::new(address.parse::<Ipv4Addr>().expect("an address"), port.parse().expect("a port"));
    let places = rest.first().map_or(256, |places| places.parse().expect("a number"));
    let mut poll = mio::Poll::new().expect("a poll");
    let mut tftp = TftpIo::bind_to(listen, poll.registry(), 0..1 + places, Arc::new(Folder(files))).expect("the port");
    println!("listening on {listen}");
    let mut ready = mio::Events::with_capacity(256);
    loop {
        let now = Instant::now();
        let wait = tftp.next_deadline(now).map(|at| at.saturating_duration_since(now));
        match poll.poll(&mut ready, wait) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            done => done.expect("a poll"),
        }
        let now = Instant::now();
        ready.iter().for_each(|event| tftp.handle_ready(event.token(), now));
        tftp.handle_timeout(now);
        while tftp.poll_event().is_some() {}
    }
}
