//! Integration tests: the product against real servers and tools, on loopback and in namespaces.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, clippy::print_stderr)] // a test may stop on anything

mod appliance_init;
mod archive;
mod boot;
mod cache;
mod cli;
mod config;
mod console;
mod dhcp;
mod directory;
mod dockerd;
mod efi;
mod fat;
mod flash;
mod http;
mod iso;
mod limits;
mod media;
mod netboot;
mod registry;
mod release;
mod remaster;
mod rootfs;
mod run;
mod squashfs;
mod tftp;
mod tidy;
mod web;
