//! Log lines on stderr, each as `2023/02/08 14:27:30 DHCP: Offering to boot …`.

use crate::sys::time::LocalTime;
use std::io::Write;

/// Starts logging; `debug` adds what only a developer or a puzzled operator wants to see.
pub fn init(debug: bool) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Warn);
    let level = if debug { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    builder.filter_module("auroraboot", level);
    builder.format(|out, record| {
        let label = match record.level() {
            log::Level::Error => "Error: ",
            log::Level::Warn => "Warning: ",
            log::Level::Info => "",
            log::Level::Debug | log::Level::Trace => "debug: ",
        };
        writeln!(out, "{} {label}{}", LocalTime::now(), record.args())
    });
    // A second call, as tests make, keeps the first logger.
    let _ = builder.try_init();
}
