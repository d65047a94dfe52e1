//! Integration tests: the product against real servers and tools, on loopback and in namespaces.

mod boot;
mod cli;
mod config;
mod dhcp;
mod http;
mod limits;
mod media;
mod netboot;
mod registry;
mod rootfs;
mod squashfs;
mod tftp;
mod tidy;
