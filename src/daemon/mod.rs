//! Sockets, threads and the clock.

pub mod boot;
pub mod boot_files;
pub mod cache;
pub mod check;
pub mod dhcp_io;
pub mod fetch;
pub mod flash;
pub mod http;
pub mod image;
pub mod inputs;
pub mod interfaces;
pub mod job;
pub mod leftovers;
pub mod log;
pub mod places;
pub mod prepare;
pub mod progress;
pub mod registry_layers;
pub mod run;
pub mod serve;
pub mod state;
pub mod stop;
pub mod tftp_io;
pub mod web;
