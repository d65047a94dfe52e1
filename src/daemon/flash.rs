//! `auroraboot flash`: which image, which sticks, the question, a thread for each stick, and the verdict.

use crate::config::{self, ConfigError, FlashArgs};
use crate::daemon::log::redraw;
use crate::daemon::stop::Stop;
use crate::flash::checks::{self, Consent, Needs, Refusal};
use crate::flash::host::{Disk, Host, Kind};
use crate::flash::image::{self, Image, ImageError};
use crate::flash::plan::Plan;
use crate::flash::progress::{Board, Style, Text};
use crate::flash::write::{self, Failure, Phase, Source, Watch};
use crate::flash::{contents, question};
use crate::limits::{FLASH_LOCK_PATIENCE, PROGRESS_REDRAW};
use crate::sys::block::Device;
use crate::sys::terminal;
use crate::sys::user::effective_user;
use crate::units::{ByteSize, Digest, chain, clock};
use std::io::{self, BufRead, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// Why not every stick is good.
#[derive(Debug, thiserror::Error)]
pub enum FlashError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// With what there is to choose from.
    #[error("{list}")]
    NoTarget { list: String },
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Refusal(#[from] Refusal),
    #[error("nobody can be asked, for this is no terminal: add --yes if everything on {devices} may be lost")]
    CannotAsk { devices: String },
    #[error("cannot read the answer")]
    Answer(#[source] io::Error),
    #[error("nothing was written")]
    Declined,
    #[error("cannot wait for signals, or start a thread")]
    Start(#[source] io::Error),
    #[error("not flashed: {}", .names.join(", "))]
    Failed { names: Vec<String> },
}

impl FlashError {
    /// Whether it was refused before anything was written.
    #[must_use]
    pub const fn is_refusal(&self) -> bool {
        !matches!(self, Self::Failed { .. } | Self::Declined | Self::Answer(_) | Self::Start(_))
    }
}

/// Writes the sticks that the arguments name.
///
/// # Errors
/// [`FlashError`], for stderr.
pub fn run(args: &FlashArgs) -> Result<(), FlashError> {
    let state_dir = config::flash_state_dir(args)?;
    let host = Host::new();
    if args.to.is_empty() {
        return Err(FlashError::NoTarget { list: question::list(&host.disks()) });
    }
    let image = choose(args, &state_dir)?;
    let needs = needs(&image);
    let consent = Consent { yes: args.yes, allow_internal: args.allow_internal };
    let disks = checks::targets(&host, &args.to, needs, consent)?;
    tell_image(&image, args.iso.is_some());
    let sticks = disks.into_iter().map(|disk| open(disk, &image)).collect::<Result<Vec<_>, _>>()?;
    for stick in &sticks {
        let contents = contents::describe(&stick.device, &stick.disk);
        log::info!("Flash: {}: {}", stick.name(), question::describe(&stick.disk, &contents));
    }
    if !args.yes {
        confirm(&image, &sticks, consent)?;
    }
    let stop = Stop::on_signals().map_err(FlashError::Start)?;
    write_all(Arc::new(image), sticks, &stop)
}

/// The named image, or the newest ISO.
fn choose(args: &FlashArgs, state_dir: &Path) -> Result<Image, FlashError> {
    let path = match &args.iso {
        Some(path) => PathBuf::from(path),
        None => {
            let choice = image::newest(state_dir, &is_trusted)?;
            log::info!("Flash: Taking {}: {}", choice.path.display(), choice.why);
            choice.path
        }
    };
    Ok(image::open(&path)?)
}

fn needs(image: &Image) -> Needs<'_> {
    Needs { kind: image.kind, path: &image.path, size: image.size }
}

/// What is worth knowing of the image.
fn tell_image(image: &Image, is_named: bool) {
    let path = image.path.display();
    if is_named && image::is_custom(&image.path) {
        log::info!("Flash: {path} is a custom ISO, which contains the cloud config");
    }
    if !image.is_hybrid {
        log::warn!("{path} has no partition table: it boots as a CD, but hardly from a stick");
    }
    if image.expected.is_none() {
        log::info!("Flash: There is no {path}.sha256, so damage to the {} itself would not be noticed", image.kind);
    }
}

/// Whose state directory is believed: one's own, and that of whoever called sudo.
fn is_trusted(owner: u32) -> bool {
    let sudo = std::env::var("SUDO_UID").ok().and_then(|user| user.parse().ok());
    owner == effective_user() || (effective_user() == 0 && sudo == Some(owner))
}

/// A disk that is held open, so that nobody else can begin to use it.
#[derive(Debug)]
struct Stick {
    disk: Disk,
    device: Device,
    plan: Plan,
}

impl Stick {
    fn name(&self) -> String {
        self.disk.node.display().to_string()
    }

    /// Whether the kernel still knows it.
    fn is_there(&self) -> bool {
        Host::new().find(self.disk.number).is_some()
    }
}

fn open(disk: Disk, image: &Image) -> Result<Stick, Refusal> {
    let cannot = |error| checks::cannot_open(&disk, error);
    let node = || disk.node.clone();
    let device = Device::open(&disk.node).map_err(cannot)?;
    // What the checks looked at is what was opened.
    if device.number().map_err(cannot)? != disk.number {
        return Err(Refusal::Replaced { node: node() });
    }
    if !lock(&device).map_err(cannot)? {
        return Err(Refusal::Locked { node: node() });
    }
    if device.is_read_only().map_err(cannot)? {
        return Err(Refusal::ReadOnly { node: node() });
    }
    let (size, block) = (device.size().map_err(cannot)?, device.block_bytes().map_err(cannot)?);
    checks::fits(&disk, size, needs(image))?;
    let plan = Plan::new(image.size, size, block).ok_or_else(|| Refusal::Blocks { node: node(), block })?;
    if block != SECTOR_OF_TABLE && image.is_hybrid {
        log::warn!(
            "{} has blocks of {block} bytes, and the {}'s partition table is made for {SECTOR_OF_TABLE}: \
             most firmware will not boot it",
            disk.node.display(),
            image.kind
        );
    }
    if !device.is_direct() {
        log::debug!("{} takes no direct I/O; written through the page cache", disk.node.display());
    }
    Ok(Stick { disk, device, plan })
}

/// What partition tables of hybrid ISOs and of nearly all disk images count in.
const SECTOR_OF_TABLE: u64 = 512;

/// Between two attempts at a lock.
const LOCK_POLL: Duration = Duration::from_millis(20);

fn lock(device: &Device) -> io::Result<bool> {
    let deadline = Instant::now() + FLASH_LOCK_PATIENCE;
    while !device.try_lock()? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(LOCK_POLL); // flock has no timeout
    }
    Ok(true)
}

/// Asks once for all sticks, and by name for each internal disk that was not allowed before.
fn confirm(image: &Image, sticks: &[Stick], consent: Consent) -> Result<(), FlashError> {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(FlashError::CannotAsk { devices: sticks.iter().map(Stick::name).collect::<Vec<_>>().join(", ") });
    }
    for stick in sticks.iter().filter(|stick| stick.disk.kind == Kind::Internal && !consent.allow_internal) {
        if !question::is_named(&stick.disk, &answer(&question::ask_internal(&stick.disk))?) {
            return Err(FlashError::Declined);
        }
    }
    let disks: Vec<Disk> = sticks.iter().map(|stick| stick.disk.clone()).collect();
    let said = answer(&question::ask(&image.path, image.size, &disks))?;
    if question::is_yes(&said) { Ok(()) } else { Err(FlashError::Declined) }
}

fn answer(question: &str) -> Result<String, FlashError> {
    redraw(question);
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(FlashError::Answer)?;
    if line.ends_with('\n') {
        redraw("\n"); // the terminal has shown the end of the line: no progress is up
    }
    Ok(line)
}

/// What a stick's thread tells.
enum News {
    Progress(Phase, u64),
    Ended(Result<Digest, Failure>),
}

fn write_all(image: Arc<Image>, sticks: Vec<Stick>, stop: &Stop) -> Result<(), FlashError> {
    let style = match terminal::size(&io::stderr()) {
        Some((columns, rows)) => Style::Terminal { columns, rows },
        None => Style::Lines,
    };
    let mut board = Board::new(style, sticks.iter().map(|stick| (stick.name(), stick.plan.padded)));
    let names: Vec<String> = sticks.iter().map(Stick::name).collect();
    log::info!("Flash: Writing {} to {}; Ctrl-C stops", ByteSize(image.size), names.join(", "));
    let (send, news) = mpsc::channel();
    let mut workers = Vec::new();
    let started = Instant::now();
    for (index, stick) in sticks.into_iter().enumerate() {
        let (image, asked, send) = (Arc::clone(&image), stop.clone(), send.clone());
        let worker = thread::Builder::new().name(format!("flash {}", stick.disk.name));
        let work = move || write_one(&image, &stick, &asked, &|news| drop(send.send((index, news))));
        workers.push(worker.spawn(work).map_err(|error| {
            stop.ask();
            FlashError::Start(error)
        })?);
    }
    drop(send);
    let mut good = vec![false; names.len()];
    loop {
        match news.recv_timeout(PROGRESS_REDRAW) {
            Ok((index, News::Progress(phase, done))) => board.update(Instant::now(), index, phase, done),
            Ok((index, News::Ended(result))) => {
                board.end(index);
                board.clear().into_iter().for_each(show);
                good[index] = result.is_ok();
                tell_end(&names[index], result, image.size, started.elapsed());
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        board.text(Instant::now()).into_iter().for_each(show);
    }
    for worker in workers {
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    }
    let failed: Vec<String> = names.into_iter().zip(good).filter(|(_, good)| !good).map(|(name, _)| name).collect();
    if failed.is_empty() { Ok(()) } else { Err(FlashError::Failed { names: failed }) }
}

fn show(text: Text) {
    match text {
        Text::Redraw(text) => redraw(&text),
        Text::Lines(lines) => lines.iter().for_each(|line| log::info!("Flash: {line}")),
    }
}

fn write_one(image: &Image, stick: &Stick, stop: &Stop, tell: &dyn Fn(News)) {
    let mut progress = |phase, done| tell(News::Progress(phase, done));
    let mut watch = Watch { cancelled: stop.flag(), progress: &mut progress };
    let source = Source { bytes: &image.file, kind: image.kind, expected: image.expected };
    let result = write::flash(source, &stick.plan, &stick.device, &mut watch);
    if result.is_ok()
        && let Err(error) = stick.device.reread_partitions()
    {
        // A loop device has no partitions, and a desktop may have been quicker; the stick is good all the same.
        log::debug!("{}: the partition table was not read anew: {error}", stick.name());
    }
    let result = result.map_err(|failure| if stick.is_there() { failure } else { Failure::Pulled });
    tell(News::Ended(result));
}

fn tell_end(name: &str, result: Result<Digest, Failure>, size: u64, took: Duration) {
    match result {
        Ok(digest) => {
            let took = clock(took.as_secs());
            log::info!("Flash: {name} is good: {} written, read back and equal in {took} ({digest})", ByteSize(size));
        }
        Err(failure) => log::error!("{name}: {}; {}", chain(&failure), failure.state()),
    }
}
