//! Load generators and parts of the product alone, for `tests/bench/run`: one program, because each link takes a minute.

#![allow(clippy::print_stdout)]

mod cost;
mod customise;
mod dhcp_flood;
mod http_load;
mod http_serve;
mod image_bench;
mod squashfs_bench;
mod tftp_get;
mod tftp_serve;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // as the product

const USAGE: &str = "\
usage: auroraboot-bench TOOL ARGUMENT…
  http-load      HTTP clients: throughput, idle connections, slow-loris
  http-serve     one file, served by the product's HTTP loop
  tftp-get       TFTP clients, with windows and made-up loss
  tftp-serve     a folder, served by the product's TFTP loop
  dhcp-flood     machines that send DISCOVERs at a rate
  dhcp-first     one that asks until its first OFFER
  squashfs       a directory tree, packed by the product's writer
  image          an ISO out of an OCI layout
  customise      a cloud config put into an ISO, and its checksum
The head of each tool's source says what it takes.";

fn main() {
    // As the product does: its loops are measured here with its memory.
    let _ = auroraboot::sys::memory::use_small_pages();
    auroraboot::sys::memory::give_back_at_once();
    let mut arguments = std::env::args().skip(1);
    let tool = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let outcome = match tool.as_str() {
        "http-load" => return http_load::main(arguments),
        "dhcp-first" => return dhcp_flood::first(&arguments),
        "http-serve" => return http_serve::main(&arguments),
        "tftp-get" => return tftp_get::main(&arguments),
        "tftp-serve" => return tftp_serve::main(&arguments),
        "dhcp-flood" => return dhcp_flood::main(&arguments),
        "squashfs" => squashfs_bench::main(&arguments),
        "image" => image_bench::main(arguments),
        "customise" => customise::main(&arguments),
        _ => Err(USAGE.into()),
    };
    if let Err(error) = outcome {
        eprintln!("{error}");
        let mut cause = error.source();
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
        std::process::exit(1);
    }
}
