//! Serves one file with the product's HTTP loop, as a machine's image: for load generators.
//!
//! `http-serve PORT FILE` prints the URL and runs until it is killed.

use auroraboot::daemon::http::{Http, Netboot, Options, Sites};
use auroraboot::netboot::blob::Blob;
use auroraboot::netboot::cmdline::Cmdline;
use auroraboot::netboot::event;
use auroraboot::netboot::names::{Names, file};
use auroraboot::netboot::served::{BootSet, Loaders, Served};
use auroraboot::units::{Arch, MacAddr};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

pub fn main(arguments: &[String]) {
    let [port, path] = arguments else { panic!("usage: http-serve PORT FILE") };
    let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port.parse().expect("a port"));
    let opened = std::fs::File::open(path).expect("the file");
    let size = opened.metadata().expect("its size").len();
    let blob = Blob::whole(opened, size, "bench");
    let (kernel, initrd) = (blob.clone(), blob.clone());
    let boot_set = BootSet { version: String::new(), kernel, initrd, rootfs: blob, cloud_config: None };
    let cmdline = Cmdline::new(Arch::host(), None).expect("the default command line");
    let names = Names::new([0; 32], address.port());
    let served = Served::new(names, Loaders::default(), cmdline, boot_set);
    println!("{}", served.names.url_at(address, MacAddr([0x52, 0x54, 0, 0, 0, 1]), file::ROOTFS));
    let (teller, _events) = event::channel(1);
    let netboot = Some(Netboot { address, served: Arc::new(served) });
    let http = Http::bind(Sites { netboot, media: None }, teller, Options::default()).expect("the port");
    http.run().expect("the loop");
}
