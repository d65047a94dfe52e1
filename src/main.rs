//! `auroraboot`: flags → configuration → run → exit code.

use auroraboot::appliance::start;
use auroraboot::config::cli::{self, Command};
use auroraboot::daemon::attended;
use auroraboot::daemon::cache::{self, Report};
use auroraboot::daemon::run::{self, RunError};
use auroraboot::daemon::{flash, log};
use auroraboot::loaders;
use auroraboot::sys::memory;
use auroraboot::units::chain;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc; // musl's own is 2.7 to 7.6 times slower (measured)

/// The work failed.
const FAILED: u8 = 1;
/// The command line or the configuration is wrong; nothing was begun.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    if start::is_init() {
        start::main()
    }
    let _ = memory::use_small_pages(); // a kernel without huge pages needs no asking
    memory::give_back_at_once();
    match cli::parse(std::env::args_os().skip(1)) {
        Err(error) => fail(&error, USAGE),
        Ok(Command::Help(verb)) => print(&cli::help_of(verb)),
        Ok(Command::Version) => print(&format!("auroraboot {}\n", env!("CARGO_PKG_VERSION"))),
        Ok(Command::Licenses) => match loaders::notices() {
            Ok(text) => print(&text),
            Err(error) => fail(&error, FAILED),
        },
        Ok(Command::Run(args)) if !args.console.is_empty() && !args.dry_run => {
            log::init(args.debug);
            match attended::run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.is_usage() => fail(&error, USAGE),
                Err(error) => fail(&error, FAILED),
            }
        }
        Ok(Command::Run(args)) => {
            log::init(args.debug);
            ran(run::run(&args))
        }
        Ok(Command::Pull(args)) => {
            log::init(args.debug);
            ran(run::pull(&args))
        }
        Ok(Command::Cache(args)) => {
            log::init(args.debug);
            match cache::run(&args) {
                Ok(Report { text, is_well }) => {
                    let printed = print(&text);
                    if is_well { printed } else { ExitCode::from(FAILED) }
                }
                Err(error) if error.is_usage() => fail(&error, USAGE),
                Err(error) => fail(&error, FAILED),
            }
        }
        Ok(Command::Flash(args)) => {
            log::init(args.debug);
            match flash::run(&args) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) if error.is_refusal() => fail(&error, USAGE),
                Err(error) => fail(&error, FAILED),
            }
        }
    }
}

fn ran(outcome: Result<String, RunError>) -> ExitCode {
    match outcome {
        Ok(report) => print(&report),
        Err(error) if error.is_usage() => fail(&error, USAGE),
        Err(error) => fail(&error, FAILED),
    }
}

/// Text on stdout. A reader that left early, as `| head` does, is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error, FAILED),
        _ => ExitCode::SUCCESS,
    }
}

/// The error and its causes on one line: none repeats what its source says.
fn fail(error: &dyn Error, code: u8) -> ExitCode {
    log::last_words(&chain(error));
    ExitCode::from(code)
}
