//! Process 1: from the kernel's hands to machines that boot, and to an orderly end.

use super::boot_partition::{BootPartition, SERVER_USER, mount_stick};
use super::data;
use super::disks::{self, Volume};
use super::files::{Files, misnamed};
use super::host::{Appliance, Order, choose_layers};
use super::modules::{FOR_VFAT, Modules, Uevents};
use super::network::{self, Network};
use super::parameters::Parameters;
use super::power::{self, Action};
use super::rights::{Capability, Rights};
use super::watchdog::Watchdog;
use super::{BOOT, DATA, buttons, clock, consoles, mounts};
use crate::config::Config;
use crate::daemon::log;
use crate::daemon::ring::Ring;
use crate::daemon::supervise::{PlainHost, Program, Settings, Supervisor, Times};
use crate::flash::host::Host as Disks;
use crate::limits;
use crate::sys::mount::unmount;
use crate::sys::signal::TerminationSignals;
use crate::sys::{hostname, rtc};
use crate::units::{ByteSize, chain};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

/// Whether this process is an appliance's first: what the kernel starts as `/init`, which a container's first process is not called.
#[must_use]
pub fn is_init() -> bool {
    std::process::id() == 1 && std::env::args_os().next().is_some_and(|name| name == "/init")
}

/// Runs the appliance until it is switched off. Whatever happens, the machine comes up again.
pub fn main() -> ! {
    let ring = Ring::default();
    let outcome = panic::catch_unwind(AssertUnwindSafe(|| run(&ring)));
    let action = match outcome {
        Ok(action) => action,
        Err(_) => {
            thread::sleep(limits::PANIC_PAUSE); // time to read it
            Action::Restart
        }
    };
    ring.let_go();
    loop {
        let error = power::end(action, &[DATA.into(), BOOT.into()], |line| ring.push(&line));
        ring.push(&format!("cannot end the machine: {error:?}"));
        thread::sleep(limits::PANIC_PAUSE);
    }
}

fn run(ring: &Ring) -> Action {
    let root = Path::new("/");
    let signals = TerminationSignals::block();
    let unmounted = mounts::mount_all(root);
    log::into_ring(ring.clone());
    unmounted.iter().for_each(|error| ::log::warn!("{}", chain(error)));
    let parameters = Parameters::read(root).unwrap_or_else(|error| {
        ::log::warn!("the image does not say which board it is for: {error}");
        Parameters::unknown()
    });
    ::log::info!("auroraboot {} on {} begins", parameters.version, parameters.board);
    let (orders, ordered) = channel();
    obey_signals(signals, orders.clone());

    let (modules, mut plugged, inputs) = load_modules(root);
    obey_buttons(inputs, orders.clone());
    let mut watchdog =
        if parameters.has_watchdog { Watchdog::start(Path::new(WATCHDOG)) } else { Watchdog::disabled() };
    let clock_origin = clock::start(Path::new(RTC), seconds(parameters.build_time));
    let boot = find_boot(&mut plugged);
    let (files, mut notices) = mount_boot(boot.as_ref());
    let (settings, config, wrong) = configuration(files.as_ref());
    notices.extend(wrong);
    let network = match start_network(config.as_ref(), &parameters) {
        Ok(network) => network,
        Err(error) => {
            ::log::error!("the network cannot be started: {error}");
            return Action::Restart;
        }
    };
    let supervisor = match Supervisor::start(program(), ring.clone()) {
        Ok(supervisor) => supervisor,
        Err(error) => {
            ::log::error!("the supervisor cannot be started: {error}");
            return Action::Restart;
        }
    };
    let plain = PlainHost::new(supervisor, settings, ring.clone());
    plain.hold(Some("the data partition is being made ready"));
    let appliance = Arc::new(Appliance::new(plain, parameters, files, network, orders.clone()));
    notices.into_iter().for_each(|notice| appliance.notice(notice));
    match &clock_origin {
        Ok(origin) => appliance.clock_is(origin.words()),
        Err(error) => appliance.notice(format!("the clock cannot be set: {error}")),
    }
    let is_time_known = matches!(clock_origin, Ok(clock::Origin::Kernel | clock::Origin::Battery));
    if watchdog.did_reset() {
        appliance.notice("the watchdog restarted this machine: it had hung");
    }
    ::log::info!("Watchdog: {}", watchdog.words());
    consoles::start(&appliance);
    let boot = boot.map(Arc::new);
    let (ready, ready_boot) = (Arc::clone(&appliance), boot.clone());
    spawn(&appliance, "ready", move || make_ready(&ready, ready_boot.as_deref(), is_time_known));
    if let Some(boot) = boot {
        let watched = Arc::clone(&appliance);
        spawn(&appliance, "sticks", move || watch_sticks(&watched, &boot, &plugged, &orders));
    }
    if let Err(error) = mounts::lock_root(root) {
        appliance.notice(chain(&error));
    }
    let action = keep(&appliance, &mut watchdog, &ordered);
    ::log::info!("{}", if action == Action::PowerOff { "Switching off" } else { "Restarting" });
    let _ = watchdog.pet(); // it watches over the end, too
    appliance.plain.supervisor.end();
    drop(modules);
    action
}

fn spawn(appliance: &Appliance, name: &str, body: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).spawn(body) {
        appliance.notice(format!("no thread is left for {name}: {error}"));
    }
}

const WATCHDOG: &str = "/dev/watchdog0";
const RTC: &str = "/dev/rtc0";
const STICK: &str = "/stick";

/// The main loop: the watchdog, what is due, and what consoles order.
fn keep(appliance: &Appliance, watchdog: &mut Watchdog, ordered: &Receiver<Order>) -> Action {
    loop {
        if appliance.plain.supervisor.is_well() {
            let _ = watchdog.pet(); // a watchdog that cannot be petted resets the machine, which is what it is for
        }
        appliance.handle_timeout();
        match ordered.recv_timeout(limits::WATCHDOG_INTERVAL) {
            Ok(Order::Reboot) => return Action::Restart,
            Ok(Order::PowerOff) => return Action::PowerOff,
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Action::Restart,
        }
    }
}

/// Ctrl-Alt-Del, which is SIGINT here.
fn obey_signals(signals: io::Result<TerminationSignals>, orders: Sender<Order>) {
    let _ = power::own_ctrl_alt_del(); // without it the kernel restarts at once, as every machine does
    let Ok(signals) = signals else { return };
    let wait = move || {
        while signals.wait().is_ok() {
            let _ = orders.send(Order::Reboot);
        }
    };
    if let Err(error) = thread::Builder::new().name("signals".to_owned()).spawn(wait) {
        ::log::warn!("Ctrl-Alt-Del has no effect: {error}");
    }
}

fn obey_buttons(plugged: Receiver<()>, orders: Sender<Order>) {
    let press = move || {
        ::log::info!("The power button was pressed");
        let _ = orders.send(Order::PowerOff); // an error means that it is ending already
    };
    let obey = move || buttons::obey(Path::new("/"), &plugged, press);
    if let Err(error) = thread::Builder::new().name("buttons".to_owned()).spawn(obey) {
        ::log::warn!("the power button has no effect: {error}");
    }
}

/// Loads what the hardware needs, then and whenever something is plugged in; a message comes for each disk, and for each input device.
fn load_modules(root: &Path) -> (Option<thread::JoinHandle<()>>, Receiver<()>, Receiver<()>) {
    let ((disk, plugged), (input, inputs)) = (channel(), channel());
    let mut modules = match Modules::of_running_kernel(root) {
        Ok(modules) => modules,
        Err(error) => {
            ::log::warn!("{}", chain(&error));
            return (None, plugged, inputs);
        }
    };
    let uevents = Uevents::open();
    for name in FOR_VFAT.into_iter().chain(["ext4"]) {
        modules.load(name).map(drop).unwrap_or_else(|error| ::log::warn!("{}", chain(&error)));
    }
    let sys = root.join("sys");
    tell(modules.coldplug(&sys));
    let listen = move || {
        let Ok(uevents) = uevents else { return };
        loop {
            match uevents.next(limits::UEVENT_PATIENCE) {
                Ok(Some(event)) if event.is_block() => drop(disk.send(())),
                Ok(Some(event)) if event.is_input() => drop(input.send(())),
                Ok(Some(event)) if event.is_add() => {
                    if let Some(modalias) = &event.modalias {
                        tell(modules.load_for(modalias));
                    }
                }
                Ok(_) => {}
                Err(_) => {
                    tell(modules.coldplug(&sys)); // some messages were lost
                    let _ = (disk.send(()), input.send(()));
                }
            }
        }
    };
    (thread::Builder::new().name("modules".to_owned()).spawn(listen).ok(), plugged, inputs)
}

fn tell(loaded: super::modules::Loaded) {
    if !loaded.loaded.is_empty() {
        ::log::info!("Modules: {}", loaded.loaded.join(" "));
    }
    loaded.failed.iter().for_each(|error| ::log::warn!("{}", chain(error)));
}

/// Waits for the boot partition: a USB stick takes seconds to appear.
fn find_boot(plugged: &mut Receiver<()>) -> Option<Boot> {
    let deadline = Instant::now() + limits::BOOT_PARTITION_PATIENCE;
    loop {
        let volumes = disks::volumes(&Disks::default());
        if let Some(boot) = disks::find_boot(&volumes) {
            let others = boot.others.iter().map(|other| other.node.clone()).collect();
            let data = disks::find_data(&volumes, boot.volume).cloned();
            let stick = disks::find_stick(&volumes, Some(boot.volume)).cloned();
            return Some(Boot { volume: boot.volume.clone(), data, stick, others });
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // News of a disk may come before its partitions do.
        let _ = plugged.recv_timeout(left.min(Duration::from_secs(1)));
    }
}

/// The disk that the appliance came from.
struct Boot {
    volume: Volume,
    data: Option<Volume>,
    stick: Option<Volume>,
    /// Others that look like boot partitions.
    others: Vec<PathBuf>,
}

/// Mounts the boot partition and takes what a stick brings; what the operator should know.
fn mount_boot(boot: Option<&Boot>) -> (Option<Files>, Vec<String>) {
    let mut notices = Vec::new();
    let Some(boot) = boot else {
        return (None, vec!["there is no partition labelled APPLIANCE: nothing can be configured".to_owned()]);
    };
    for other in &boot.others {
        let (ours, other) = (boot.volume.node.display(), other.display());
        notices.push(format!("{other} is a boot partition too, of another disk; {ours} is the one that is used"));
    }
    let files = match BootPartition::mount(&boot.volume, Path::new(BOOT)) {
        Ok(partition) => Files::new(partition),
        Err(error) => {
            notices.push(chain(&error));
            return (None, notices);
        }
    };
    notices.extend(misnamed(Path::new(BOOT)));
    if let Some(stick) = &boot.stick {
        notices.extend(import(stick, &files).unwrap_or_else(Some));
    }
    (Some(files), notices)
}

/// Takes what a stick brings, and says what that was; nothing when it is here already.
fn import(stick: &Volume, files: &Files) -> Result<Option<String>, String> {
    let at = Path::new(STICK);
    let taken = on_stick(stick, || {
        let taken = files.import(at)?;
        Ok((taken, files.of_earlier_stick(at), misnamed(at)))
    });
    let (taken, stays, misnamed) = taken?;
    let stick = stick.node.display();
    let mut told = Vec::new();
    if !taken.is_empty() {
        told.push(format!("taken from the stick {stick}: {}", taken.join(", ")));
        told.extend(stays.iter().map(|name| format!("{name} of an earlier stick stays in force")));
    }
    told.extend(misnamed.iter().map(|name| format!("on the stick {stick} {name}")));
    Ok((!told.is_empty()).then(|| told.join("; ")))
}

/// Looks into a stick.
fn on_stick<T>(stick: &Volume, look: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let seen = mount_stick(stick, Path::new(STICK)).map_err(|error| chain(&error)).and_then(|()| look());
    let _ = unmount(Path::new(STICK), true); // it is read-only, and may be pulled out
    seen.map_err(|error| format!("the stick {}: {error}", stick.node.display()))
}

/// Takes the configuration of sticks that were slow to appear, and starts the machine anew with it. Of those that are plugged in later it
/// is only told that they wait for the next start: machines may be loading.
fn watch_sticks(appliance: &Appliance, boot: &Boot, plugged: &Receiver<()>, orders: &Sender<Order>) {
    let Some(files) = &appliance.files else { return };
    let started = Instant::now();
    let mut last = None;
    while plugged.recv().is_ok() {
        let volumes = disks::volumes(&Disks::default());
        let stick = disks::find_stick(&volumes, Some(&boot.volume)).cloned();
        if stick == std::mem::replace(&mut last, stick.clone()) {
            continue; // news of another disk
        }
        let Some(stick) = stick else { continue };
        let news = on_stick(&stick, || files.news_of(Path::new(STICK)));
        let was_slow = started.elapsed() < limits::STICK_PATIENCE;
        match news.map(|news| !news.is_empty()) {
            Ok(false) => {}
            Ok(true) if was_slow => {
                let told = import(&stick, files).unwrap_or_else(Some);
                appliance.notice(format!("{}; the appliance starts anew with it", told.unwrap_or_default()));
                let _ = orders.send(Order::Reboot); // an error means that it is ending already
            }
            Ok(true) => {
                let stick = stick.node.display();
                appliance
                    .notice(format!("the stick {stick} brings another configuration: it is taken at the next start"));
            }
            Err(error) => appliance.notice(error),
        }
    }
}

/// The settings that every server of the appliance has.
const SET: [&str; 1] = ["state_dir=/data/state"];

fn configuration(files: Option<&Files>) -> (Settings, Option<Config>, Option<String>) {
    let Some(files) = files else {
        let (settings, config) = super::host::nothing_configured(&SET);
        return (settings, config, None);
    };
    let chosen = choose_layers(files, &SET);
    if chosen.2.is_none()
        && let Err(error) = files.keep_as_good()
    {
        ::log::warn!("{error}");
    }
    chosen
}

fn start_network(config: Option<&Config>, parameters: &Parameters) -> io::Result<Network> {
    let settings = config.map(|config| network::Settings::from(&config.network)).unwrap_or_default();
    let machine = network::Machine {
        resolv_conf: "/run/resolv.conf".into(),
        build_time: parameters.build_time,
        set_clock: Box::new(|time| {
            rtc::set_clock(time.duration_since(SystemTime::UNIX_EPOCH).map_err(io::Error::other)?)?;
            clock::keep(Path::new(RTC)).map(drop)
        }),
        set_hostname: Box::new(hostname::set),
    };
    Network::start(settings, machine)
}

/// The server: this program again, with as few rights as it needs.
fn program() -> Program {
    let prepare = |command: &mut Command| {
        let rights = Rights {
            uid: SERVER_USER,
            gid: SERVER_USER,
            capabilities: vec![Capability::NetRaw, Capability::NetBindService],
            writable: ["/data/state", "/tmp", "/dev/null"].map(PathBuf::from).to_vec(),
            executable: vec!["/init".into()],
        };
        let applied = rights.confine(command).map_err(|error| io::Error::other(chain(&error)))?;
        ::log::info!("The server runs as {applied}");
        Ok(())
    };
    Program { path: "/init".into(), prepare: Box::new(prepare), echo: Arc::new(|_| {}), times: Times::default() }
}

/// Mounts the data partition. One that cannot be mounted is made anew: it holds nothing that cannot be fetched again.
fn mount_data(appliance: &Appliance, boot: Option<&Boot>) -> Result<(), String> {
    let volume =
        &find_or_make_data(appliance, boot.ok_or("there is no boot partition to find the data partition by")?)?;
    let at = Path::new(DATA);
    if let Some(files) = appliance.files.as_ref().filter(|files| files.is_resetting()) {
        data::remake(volume).map_err(|error| chain(&error))?;
        files.end_reset()?;
        appliance.notice("everything is as it was flashed");
    }
    let opened = match data::open(volume, at).map_err(|error| chain(&error))? {
        data::Outcome::NeedsRemake(why) => {
            let why = format!("the data partition {} cannot be used: {why}", volume.node.display());
            if !appliance.may_remake(&why) {
                return Err(why);
            }
            data::remake(volume).map_err(|error| format!("{why}; {}", chain(&error)))?;
            appliance.notice(format!("{why}; it was made anew, and images are fetched again"));
            data::open(volume, at).map_err(|error| chain(&error))?
        }
        mounted @ data::Outcome::Mounted(_) => mounted,
    };
    match opened {
        data::Outcome::Mounted(mounted) => {
            if let Some(before) = mounted.grown_from {
                ::log::info!("The data partition grew from {} to {}", ByteSize(before), ByteSize(mounted.bytes));
            }
            mounted.notices.into_iter().for_each(|notice| appliance.notice(notice));
            Ok(())
        }
        data::Outcome::NeedsRemake(why) => Err(format!("the data partition cannot be used, even made anew: {why}")),
    }
}

fn find_or_make_data(appliance: &Appliance, boot: &Boot) -> Result<Volume, String> {
    if let Some(volume) = &boot.data {
        return Ok(volume.clone());
    }
    let failed = |error| format!("there is no data partition, and none can be made: {}", chain(&error));
    let made = data::make::make(&Disks::default(), &boot.volume).map_err(failed)?;
    appliance.notice(format!("there was no data partition: {} was made, {}", made.node.display(), ByteSize(made.size)));
    Ok(made)
}

/// Everything that the server has to wait for: its disk, an address, the time.
fn make_ready(appliance: &Appliance, boot: Option<&Boot>, is_time_known: bool) {
    match mount_data(appliance, boot) {
        Ok(()) => {
            appliance.data_is(Ok(()));
            let log = Path::new(DATA).join("log/auroraboot.log");
            if let Err(error) = appliance.plain.ring.keep_in(&log) {
                appliance.notice(format!("the log is not kept: {}: {error}", log.display()));
            }
        }
        Err(why) => {
            let instead = data::in_memory(Path::new(DATA)).map_err(|error| chain(&error));
            let instead = instead.err().unwrap_or_else(|| "images are kept in memory".to_owned());
            appliance.notice(format!("{why}; {instead}"));
            appliance.data_is(Err(instead));
        }
    }
    appliance.plain.hold(Some("it waits for an address"));
    while appliance.network.report().used().is_none() {
        thread::sleep(limits::READY_POLL);
    }
    // TLS believes no certificate before the time is known: boards without a battery have to ask for it. What is cached can do without.
    appliance.plain.hold(Some("it waits for the time"));
    let deadline = Instant::now() + limits::CLOCK_PATIENCE;
    while !is_time_known && !appliance.network.report().is_clock_set && Instant::now() < deadline {
        thread::sleep(limits::READY_POLL);
    }
    appliance.plain.hold(None);
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
