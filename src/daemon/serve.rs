//! The servers of one run: opened together, run together, ended together.

use crate::config::{Config, MachineFilter, Origin, Refused, Setting};
use crate::daemon::boot::{self, Boot, BootError, BootOptions};
use crate::daemon::boot_files::BootFiles;
use crate::daemon::http::{self, Http, HttpError};
use crate::daemon::monitor::Monitor;
use crate::daemon::prepare::Prepared;
use crate::daemon::stop::Stop;
use crate::daemon::web::{Web, WebError};
use crate::dhcp::{Machines, Policy, Reason};
use crate::limits;
use crate::loaders;
use crate::media::Artifact;
use crate::netboot::blob::Blob;
use crate::netboot::cmdline::{Cmdline, CmdlineError};
use crate::netboot::event::{self, Event, Teller};
use crate::netboot::journal::Journal;
use crate::netboot::names::Names;
use crate::netboot::served::{self, Loaders, Memory, Served};
use crate::storage::Extent;
use crate::units::{Arch, Digest, MacAddr};
use crate::web::handlers;
use crate::web::listing::{Item, Kind, Listing, ListingError, Shelf};
use std::fs::File;
use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::path::{self, Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime};

/// Why machines cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error(transparent)]
    Boot(#[from] BootError),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Web(#[from] WebError),
    #[error(transparent)]
    Listing(#[from] ListingError),
    #[error(transparent)]
    Cmdline(#[from] CmdlineError),
    #[error("cannot open {path}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read the boot loader {path}")]
    Loader { path: PathBuf, source: io::Error },
    #[error("it is for {now} now, and {is} is served: start again to serve it")]
    OtherArch { is: Arch, now: Arch },
    #[error("cannot start the thread {0}")]
    Thread(&'static str, #[source] io::Error),
    #[error("the thread {0} ended by a fault of this program; please report what stands above")]
    Panicked(&'static str),
}

/// The servers, all ports open.
#[derive(Debug)]
pub struct Servers {
    boot: Option<Boot>,
    http: Http,
    web: Option<Web>,
    events: Receiver<Event>,
    journal: Journal,
    swap: Swap,
    monitor: Monitor,
}

/// Puts other media in the place of those that are served.
#[derive(Debug, Clone)]
pub struct Swap {
    arch: Arch,
    served: Option<Arc<Served>>,
    shelf: Option<Shelf>,
}

impl Swap {
    /// Serves `offer` from now on; what has begun ends with what it began with.
    ///
    /// # Errors
    /// It is for machines of another architecture, which other boot loaders and names belong to.
    pub fn replace(&self, offer: Offer) -> Result<(), ServeError> {
        if offer.arch != self.arch {
            return Err(ServeError::OtherArch { is: self.arch, now: offer.arch });
        }
        if let (Some(served), Some(boot_set)) = (&self.served, offer.boot_set) {
            served.replace(boot_set);
        }
        if let (Some(shelf), Some(listing)) = (&self.shelf, offer.listing) {
            shelf.replace(listing);
        }
        Ok(())
    }
}

/// What is served to whom.
#[derive(Debug)]
pub struct Offer {
    /// Whom the boot set is for.
    pub arch: Arch,
    /// To machines.
    pub boot_set: Option<served::BootSet>,
    /// To people.
    pub listing: Option<Listing>,
}

impl Offer {
    /// What the configuration wants served of `prepared`.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn new(config: &Config, image: &str, prepared: &Prepared) -> Result<Self, ServeError> {
        let Prepared { medium, arch, custom } = prepared;
        let file = Arc::new(open(&medium.iso.path)?);
        let boot_set = (!*config.disable_netboot).then(|| {
            // Two files of one content are one to clients that go on with a download.
            let blob = |extents: &[Extent]| Blob::new(Arc::clone(&file), extents.to_vec(), &medium.sha256.hex());
            let cloud_config = config.cloud_config.as_ref().map(|cloud| Memory::new(cloud.bytes()));
            let (kernel, initrd) = (blob(&medium.kernel), blob(&medium.initrd));
            let version = medium.sha256.short();
            served::BootSet { version, kernel, initrd, rootfs: blob(&medium.squashfs), cloud_config }
        });
        let listing = serves_media(config).then(|| {
            let pristine = item(&medium.iso, Kind::Pristine, Arc::clone(&file), medium.sha256, medium.built, false);
            let mut media = vec![pristine];
            if let Some(custom) = custom {
                let file = Arc::new(open(&custom.iso.path)?);
                let built = modified(&file, &custom.iso.path)?;
                media.push(item(&custom.iso, Kind::Custom, file, custom.sha256, built, custom.has_cloud_config));
            }
            let listing = Listing::new(image, media)?;
            Ok::<_, ServeError>(match &config.state_dir {
                Setting { origin: Origin::Default, .. } => listing,
                Setting { value, .. } => listing.kept_in(path::absolute(value).unwrap_or_default().to_string_lossy()),
            })
        });
        Ok(Self { arch: *arch, boot_set, listing: listing.transpose()? })
    }
}

/// Whether ISOs are served.
#[must_use]
pub fn serves_media(config: &Config) -> bool {
    !*config.disable_http_server && !*config.disable_iso
}

fn item(
    iso: &Artifact,
    kind: Kind,
    file: Arc<File>,
    sha256: Digest,
    built: SystemTime,
    contains_cloud_config: bool,
) -> Item {
    let name = iso.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Item { name, kind, file, size: iso.size, sha256, built, contains_cloud_config }
}

fn open(path: &Path) -> Result<File, ServeError> {
    File::open(path).map_err(|source| ServeError::Open { path: path.to_owned(), source })
}

fn modified(file: &File, path: &Path) -> Result<SystemTime, ServeError> {
    let modified = file.metadata().and_then(|metadata| metadata.modified());
    modified.map_err(|source| ServeError::Open { path: path.to_owned(), source })
}

/// Opens every port and closes it again, so that what is taken or forbidden is told before a long download and not after it.
///
/// # Errors
/// As [`Servers::bind`].
pub fn rehearse(config: &Config, names: &Names, web_directory: &Path) -> Result<(), ServeError> {
    let nothing = Blob::new(Arc::new(open(Path::new("/dev/null"))?), Vec::new(), "");
    let [kernel, initrd, rootfs] = [nothing.clone(), nothing.clone(), nothing];
    let boot_set = served::BootSet { version: String::new(), kernel, initrd, rootfs, cloud_config: None };
    let offer = Offer {
        arch: config.boots_arch(),
        boot_set: (!*config.disable_netboot).then_some(boot_set),
        listing: serves_media(config).then(Listing::default),
    };
    Servers::bind(config, names.clone(), offer, web_directory, &Monitor::default()).map(drop)
}

impl Servers {
    /// Opens every port. `web_directory` is for the socket between the pages and the loop in front of them.
    ///
    /// # Errors
    /// [`ServeError`] says which setting or process to look at.
    pub fn bind(
        config: &Config,
        names: Names,
        offer: Offer,
        web_directory: &Path,
        monitor: &Monitor,
    ) -> Result<Self, ServeError> {
        let has_config = offer.boot_set.as_ref().is_some_and(|boot_set| boot_set.cloud_config.is_some());
        let journal = Journal::new(has_config);
        let (teller, events) = event::channel(limits::EVENTS_WAITING_MAX);
        let admission = || Admission { machines: config.machines.clone(), is_on: monitor.netboot() };
        let netboot = offer
            .boot_set
            .map(|boot_set| bind_netboot(config, names, (offer.arch, boot_set), admission(), &teller))
            .transpose()?;
        let (boot, netboot) = netboot.unzip();
        let served = netboot.as_ref().map(|netboot| Arc::clone(&netboot.served));
        let mut swap = Swap { arch: offer.arch, served, shelf: None };
        let mut sites = http::Sites { netboot, media: None };
        let mut web = None;
        if let Some(listing) = offer.listing {
            let shelf = Shelf::new(listing);
            let described = shelf.clone();
            swap.shelf = Some(shelf.clone());
            let handler = Box::new(move |request| handlers::respond(&described, request));
            let server = Web::bind(web_directory, handler, teller.clone())?;
            sites.media = Some(http::Media { address: *config.listen_addr, shelf, door: server.door() });
            web = Some(server);
        }
        let http = Http::bind(sites, teller, http::Options::default())?;
        let pulses = boot.iter().map(Boot::pulse).chain([http.pulse()]).collect();
        monitor.serves(boot.as_ref().map(|boot| boot.summary().to_string()), has_config, pulses);
        Ok(Self { boot, http, web, events, journal, swap, monitor: monitor.clone() })
    }

    /// What replaces what they serve, while they run.
    #[must_use]
    pub fn swap(&self) -> Swap {
        self.swap.clone()
    }

    /// The interfaces that machines are served on, if they are.
    #[must_use]
    pub fn summary(&self) -> Option<boot::Summary> {
        self.boot.as_ref().map(Boot::summary)
    }

    /// Where people are served, if they are.
    #[must_use]
    pub fn media_addr(&self) -> Option<SocketAddr> {
        self.http.media_addr()
    }

    /// Serves until `stop` is asked for, and prints what happens.
    ///
    /// # Errors
    /// A loop ended by itself.
    pub fn run(self, stop: &Stop) -> Result<(), ServeError> {
        let Self { boot, http, web, events, journal, swap: _, monitor } = self;
        let (boot_stopper, http_stopper) = (boot.as_ref().map(Boot::stopper), http.stopper());
        let door = web.as_ref().map(Web::door);
        stop.tell(move || {
            if let Some(stopper) = &boot_stopper {
                stopper.stop();
            }
            http_stopper.stop();
            if let Some(door) = &door {
                door.stop();
            }
        });
        let boot = boot.map(|boot| spawn("boot", stop, move || boot.run().map_err(ServeError::from))).transpose()?;
        let http = spawn("http", stop, move || http.run().map_err(ServeError::from))?;
        let run_web = |web: Web| {
            web.run();
            Ok(())
        };
        let web = web.map(|web| spawn("web", stop, move || run_web(web))).transpose()?;
        tell(journal, &monitor, &events);
        monitor.stops();
        let ended = [("boot", boot), ("http", Some(http)), ("web", web)];
        ended.into_iter().filter_map(|(name, thread)| Some(join(name, thread?))).collect()
    }
}

fn bind_netboot(
    config: &Config,
    names: Names,
    (arch, boot_set): (Arch, served::BootSet),
    admission: Admission,
    teller: &Teller,
) -> Result<(Boot, http::Netboot), ServeError> {
    let cmdline = Cmdline::new(arch, config.netboot_cmdline.as_deref())?;
    let loaders = loaders(config.loaders_dir.as_deref())?;
    let served = Arc::new(Served::new(names.clone(), loaders, cmdline, boot_set));
    let boot = Boot::bind(BootOptions {
        listen: *config.netboot_listen_addr,
        interfaces: config.interfaces.to_vec(),
        policy: Policy { image: arch, machines: Box::new(admission), files: Box::new(names.clone()) },
        files: Arc::new(BootFiles::new(Arc::clone(&served))),
        names,
        teller: teller.clone(),
    })?;
    let address = SocketAddrV4::new(*config.netboot_listen_addr, *config.netboot_http_port);
    Ok((boot, http::Netboot { address, served }))
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

/// Turns events into log lines, and into what consoles are told, until both loops have ended and dropped their senders.
fn tell(mut journal: Journal, monitor: &Monitor, events: &Receiver<Event>) {
    let start = Instant::now();
    loop {
        let event = match journal.next_deadline() {
            Some(deadline) => events.recv_timeout(deadline.saturating_sub(start.elapsed())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(event) => {
                monitor.handle_input(&event);
                journal.handle_input(start.elapsed(), event);
            }
            Err(RecvTimeoutError::Timeout) => journal.handle_timeout(start.elapsed()),
            Err(RecvTimeoutError::Disconnected) => return,
        }
        while let Some(line) = journal.poll_output() {
            log::log!(line.level, "{}", line.text);
        }
    }
}

/// `netboot.allow` and `netboot.deny` in the words of DHCP, and the switch at the console.
#[derive(Debug)]
struct Admission {
    machines: MachineFilter,
    is_on: Arc<AtomicBool>,
}

impl Machines for Admission {
    fn admit(&self, mac: MacAddr) -> Result<(), Reason> {
        if !self.is_on.load(Ordering::Relaxed) {
            return Err(Reason::Stopped);
        }
        self.machines.check(mac).map_err(|refused| match refused {
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
