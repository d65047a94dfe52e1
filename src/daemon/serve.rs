//! The servers of one boot set: opened together, run together, ended together.

use crate::config::{Config, MachineFilter, Refused};
use crate::daemon::boot::{self, Boot, BootError, BootOptions};
use crate::daemon::boot_files::BootFiles;
use crate::daemon::http::{self, Http, HttpError};
use crate::daemon::stop::Stop;
use crate::dhcp::{Machines, Policy, Reason};
use crate::limits;
use crate::loaders;
use crate::media::Medium;
use crate::netboot::blob::Blob;
use crate::netboot::cmdline::{Cmdline, CmdlineError};
use crate::netboot::event::{self, Event};
use crate::netboot::journal::Journal;
use crate::netboot::names::Names;
use crate::netboot::served::{self, Loaders, Memory, Served};
use crate::storage::Extent;
use crate::units::MacAddr;
use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Why machines cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read the boot loader {path}")]
    Loader { path: PathBuf, source: io::Error },
    #[error("cannot start the thread {0}")]
    Thread(&'static str, #[source] io::Error),
    #[error("the thread {0} ended by a fault of this program; please report what stands above")]
    Panicked(&'static str),
}

/// The servers, all ports open.
#[derive(Debug)]
pub struct Servers {
    boot: Boot,
    http: Http,
    events: Receiver<Event>,
    journal: Journal,
}

/// Opens every port and closes it again, so that what is taken or forbidden is told before a long download and not after it.
///
/// # Errors
/// As [`Servers::bind`].
pub fn rehearse(config: &Config, names: &Names) -> Result<(), ServeError> {
    let nothing = || open(Path::new("/dev/null"), 0);
    let boot_set = served::BootSet { kernel: nothing()?, initrd: nothing()?, rootfs: nothing()?, cloud_config: None };
    Servers::bind(config, names.clone(), boot_set).map(drop)
}

/// What is served of a built image, with the cloud config.
///
/// # Errors
/// A file cannot be opened.
pub fn boot_set(config: &Config, medium: &Medium) -> Result<served::BootSet, ServeError> {
    let path = &medium.iso.path;
    let file = File::open(path).map_err(|source| ServeError::Open { path: path.to_owned(), source })?;
    let file = Arc::new(file);
    let blob = |name: &str, extents: &[Extent]| {
        Blob::new(Arc::clone(&file), extents.to_vec(), &format!("{}-{name}", medium.sha256.hex()))
    };
    let cloud_config = config.cloud_config.as_ref().map(|cloud| Memory::new(cloud.bytes()));
    Ok(served::BootSet {
        kernel: blob("kernel", &medium.kernel),
        initrd: blob("initrd", &medium.initrd),
        rootfs: blob("squashfs", &medium.squashfs),
        cloud_config,
    })
}

fn open(path: &Path, size: u64) -> Result<Blob, ServeError> {
    let failed = |source| ServeError::Open { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    let modified = file.metadata().and_then(|metadata| metadata.modified()).map_err(failed)?;
    let version = modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(Blob::whole(file, size, &format!("{version:x}-{size:x}")))
}

impl Servers {
    /// Opens every port.
    ///
    /// # Errors
    /// [`ServeError`] says which setting or process to look at.
    pub fn bind(config: &Config, names: Names, boot_set: served::BootSet) -> Result<Self, ServeError> {
        let journal = Journal::new(boot_set.cloud_config.is_some());
        let cmdline = Cmdline::new(*config.arch, config.netboot_cmdline.as_deref())?;
        let loaders = loaders(config.loaders_dir.as_deref())?;
        let served = Arc::new(Served { names: names.clone(), loaders, boot_set, cmdline });
        let (teller, events) = event::channel(limits::EVENTS_WAITING_MAX);
        let boot = Boot::bind(BootOptions {
            listen: *config.netboot_listen_addr,
            interfaces: config.interfaces.to_vec(),
            policy: Policy {
                image: *config.arch,
                machines: Box::new(Admission(config.machines.clone())),
                files: Box::new(names.clone()),
            },
            files: Arc::new(BootFiles::new(Arc::clone(&served))),
            names,
            teller: teller.clone(),
        })?;
        let address = SocketAddrV4::new(*config.netboot_listen_addr, *config.netboot_http_port);
        let sites = http::Sites { netboot: Some(http::Netboot { address, served }), media: None };
        let http = Http::bind(sites, teller, http::Options::default())?;
        Ok(Self { boot, http, events, journal })
    }

    /// The interfaces that are served.
    #[must_use]
    pub fn summary(&self) -> boot::Summary {
        self.boot.summary()
    }

    /// Serves until `stop` is asked for, and prints what happens.
    ///
    /// # Errors
    /// A loop ended by itself.
    pub fn run(self, stop: &Stop) -> Result<(), ServeError> {
        let Self { boot, http, events, journal } = self;
        let (boot_stopper, http_stopper) = (boot.stopper(), http.stopper());
        stop.tell(move || {
            boot_stopper.stop();
            http_stopper.stop();
        });
        let boot = spawn("boot", stop, move || boot.run().map_err(ServeError::from))?;
        let http = spawn("http", stop, move || http.run().map_err(ServeError::from))?;
        print_events(journal, &events);
        join("boot", boot).and(join("http", http))
    }
}

fn spawn(
    name: &'static str,
    stop: &Stop,
    run: impl FnOnce() -> Result<(), ServeError> + Send + 'static,
) -> Result<JoinHandle<Result<(), ServeError>>, ServeError> {
    /// One server that ends, even by a panic, ends the other: half a boot server only confuses machines.
    struct EndsAll(Stop);
    impl Drop for EndsAll {
        fn drop(&mut self) {
            self.0.ask();
        }
    }
    let ends_all = EndsAll(stop.clone());
    let body = move || {
        let _ends_all = ends_all;
        run()
    };
    thread::Builder::new().name(name.to_owned()).spawn(body).map_err(|error| ServeError::Thread(name, error))
}

fn join(name: &'static str, thread: JoinHandle<Result<(), ServeError>>) -> Result<(), ServeError> {
    thread.join().unwrap_or(Err(ServeError::Panicked(name)))
}

/// Turns events into log lines until both loops have ended and dropped their senders.
fn print_events(mut journal: Journal, events: &Receiver<Event>) {
    let start = Instant::now();
    loop {
        let event = match journal.next_deadline() {
            Some(deadline) => events.recv_timeout(deadline.saturating_sub(start.elapsed())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(event) => journal.handle_input(start.elapsed(), event),
            Err(RecvTimeoutError::Timeout) => journal.handle_timeout(start.elapsed()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(line) = journal.poll_output() {
            log::log!(line.level, "{}", line.text);
        }
    }
}

/// `netboot.allow` and `netboot.deny` in the words of DHCP.
#[derive(Debug)]
struct Admission(MachineFilter);

impl Machines for Admission {
    fn admit(&self, mac: MacAddr) -> Result<(), Reason> {
        self.0.check(mac).map_err(|refused| match refused {
            Refused::Denied(_) => Reason::Denied,
            Refused::NotAllowed => Reason::NotAllowed,
        })
    }
}

/// The embedded loaders, each replaced by a file of the same name in `directory` if there is one.
fn loaders(directory: Option<&Path>) -> Result<Loaders, ServeError> {
    let mut loaders = Vec::new();
    for loader in loaders::netboot() {
        let path = directory.map_or_else(|| PathBuf::from(loader.file), |directory| directory.join(loader.file));
        let bytes = match directory {
            Some(_) if path.exists() => std::fs::read(&path),
            _ => loader.bytes(),
        };
        let bytes = bytes.map_err(|source| ServeError::Loader { path, source })?;
        loaders.push((loader.file, Arc::from(bytes)));
    }
    Ok(loaders.into_iter().collect())
}
