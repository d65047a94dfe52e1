//! What consoles are answered on the appliance: all that any host answers, its network and its power.

use super::files::Files;
use super::network::{self, Network};
use super::parameters::Parameters;
use super::question::{Patience, Questions};
use crate::config::{Args, Config};
use crate::console::{Answer, Change, Host, InterfaceStatus, Overview, Profile, Request};
use crate::daemon::supervise::{Folder, Layers, PlainHost, Settings, Store};
use crate::limits;
use crate::sys::disk;
use crate::units::{ByteSize, chain};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What process 1 is to do with the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Reboot,
    PowerOff,
}

/// The appliance.
#[derive(Debug)]
pub struct Appliance {
    pub plain: PlainHost,
    pub parameters: Parameters,
    /// None when there is no boot partition, or it cannot be used.
    pub files: Option<Files>,
    pub network: Network,
    orders: Mutex<Sender<Order>>,
    trial: Mutex<Option<Trial>>,
    /// Sentences for the operator that do not change until the next start.
    notices: Mutex<Vec<String>>,
    /// Where caches and logs lie, when it could be mounted.
    data: Mutex<Result<(), String>>,
    /// What set the clock before the network could.
    clock: Mutex<&'static str>,
    questions: Questions,
}

/// A network that was set and is not confirmed yet: whoever set it may have cut off his own branch.
#[derive(Debug)]
struct Trial {
    change: Change,
    before: network::Settings,
    ends: Instant,
}

impl Appliance {
    #[must_use]
    pub fn new(
        plain: PlainHost,
        parameters: Parameters,
        files: Option<Files>,
        network: Network,
        orders: Sender<Order>,
    ) -> Self {
        let data = Mutex::new(Err("it was not looked for yet".to_owned()));
        let (orders, trial, notices, clock) =
            (Mutex::new(orders), Mutex::default(), Mutex::default(), Mutex::default());
        let questions = Questions::new(Patience::default());
        Self { plain, parameters, files, network, orders, trial, notices, data, clock, questions }
    }

    /// What this host offers at its consoles.
    #[must_use]
    pub fn profile(&self) -> Profile {
        let Parameters { version, board, .. } = &self.parameters;
        Profile { title: format!("auroraboot {version} on {board}"), network: true, power: true }
    }

    /// Tells the operator something until the next start.
    pub fn notice(&self, what: impl Into<String>) {
        let what = what.into();
        self.plain.ring.push(&what);
        lock(&self.notices).push(what);
    }

    /// What set the clock at the start.
    pub fn clock_is(&self, origin: &'static str) {
        log::info!("Clock: {origin}");
        *lock(&self.clock) = origin;
    }

    /// How the data partition is: in use, or why not.
    pub fn data_is(&self, state: Result<(), String>) {
        *lock(&self.data) = state;
    }

    /// Brings a network back that nobody confirmed in time. Call it now and then.
    pub fn handle_timeout(&self) {
        let is_over = lock(&self.trial).as_ref().is_some_and(|trial| Instant::now() >= trial.ends);
        if is_over {
            self.plain.ring.push("Nobody confirmed the network that was set: it is what it was before");
            self.revert();
        }
    }

    /// Whether the data partition may be made anew, of which `why` says what is wrong. Somebody at a console is asked; where nobody is, or
    /// answers, the appliance goes on by itself.
    #[must_use]
    pub fn may_remake(&self, why: &str) -> bool {
        self.plain.hold(Some("it waits for the answer to a question"));
        self.data_is(Err(format!("{why}; it waits for the answer to a question")));
        let minutes = limits::QUESTION_PATIENCE.as_secs() / 60;
        let question = format!(
            "{why}. May it be made anew? Nothing is on it but images and logs; without an answer it is, {minutes} min after it was asked."
        );
        let answer = self.questions.ask(question);
        self.plain.hold(Some("the data partition is being made ready"));
        answer.unwrap_or(true)
    }

    fn overview(&self) -> Overview {
        let mut overview = self.plain.overview();
        let report = self.network.report();
        let host = &mut overview.host;
        host.name.clone_from(&report.hostname);
        let origin = Some(*lock(&self.clock)).filter(|origin| !origin.is_empty() && !report.is_clock_set);
        let origin = origin.map(|origin| format!("{origin}; ")).unwrap_or_default();
        host.clock = format!("{} ({origin}{})", host.clock, report.clock);
        host.uptime = uptime().unwrap_or(host.uptime);
        host.interfaces = {
            let has_others = report.interfaces.len() > 1;
            report.interfaces.iter().map(|interface| interface_status(interface, has_others)).collect()
        };
        host.data = match &*lock(&self.data) {
            Ok(()) => disk::free(Path::new(super::DATA))
                .map_or_else(|error| error.to_string(), |free| format!("{} free", ByteSize(free))),
            Err(why) => why.clone(),
        };
        host.notices.splice(0..0, lock(&self.notices).clone());
        host.notices.extend(report.notices);
        host.question = self.questions.text();
        if let Some(trial) = &*lock(&self.trial) {
            let left = trial.ends.saturating_duration_since(Instant::now()).as_secs();
            host.notices.push(format!("the network goes back to what it was in {left} s unless it is confirmed"));
        }
        overview
    }

    fn try_network(&self, change: Change) -> Answer {
        let now = match self.plain.settings.load_with(&change) {
            Ok((config, _)) => network::Settings::from(&config.network),
            Err(error) => return Answer::Refused(chain(&error)),
        };
        let mut trial = lock(&self.trial);
        let before = match trial.take() {
            Some(earlier) => earlier.before,
            None => match self.plain.settings.load() {
                Ok((config, _)) => network::Settings::from(&config.network),
                Err(error) => return Answer::Refused(chain(&error)),
            },
        };
        self.network.apply(now);
        *trial = Some(Trial { change, before, ends: Instant::now() + limits::NETWORK_TRIAL });
        Answer::Done(format!(
            "It is on trial: confirm it within {} s, or it goes back to what it was",
            limits::NETWORK_TRIAL.as_secs()
        ))
    }

    fn confirm(&self) -> Answer {
        let Some(trial) = lock(&self.trial).take() else {
            return Answer::Refused("there is no network to confirm: it went back to what it was".to_owned());
        };
        match self.save(&trial.change) {
            Ok(()) => Answer::Done(String::new()),
            Err(error) => {
                self.network.apply(trial.before);
                Answer::Refused(error)
            }
        }
    }

    fn revert(&self) {
        if let Some(trial) = lock(&self.trial).take() {
            self.network.apply(trial.before);
        }
    }

    fn save(&self, change: &Change) -> Result<(), String> {
        let Some(files) = &self.files else {
            return Err("there is no boot partition to keep it on".to_owned());
        };
        let (files, settings) = (files.clone(), Arc::clone(&self.plain.settings));
        self.plain.save(change, move || {
            if settings.load().is_ok() && !settings.is_fallback() { files.keep_as_good() } else { Ok(()) }
        })
    }

    fn answer(&self, yes: bool) -> Answer {
        if self.questions.answer(yes) {
            Answer::Done(String::new())
        } else {
            Answer::Refused("nothing is asked any more".to_owned())
        }
    }

    fn reset(&self) -> Answer {
        match self.files.as_ref().map_or(Ok(()), Files::reset) {
            Ok(()) => self.order(Order::Reboot),
            Err(error) => Answer::Refused(error),
        }
    }

    fn order(&self, order: Order) -> Answer {
        match lock(&self.orders).send(order) {
            Ok(()) => Answer::Done(String::new()),
            Err(_) => Answer::Refused("the appliance is ending already".to_owned()),
        }
    }
}

impl Host for Appliance {
    fn handle(&self, request: Request) -> Answer {
        self.questions.visited();
        match request {
            Request::Answer(yes) => self.answer(yes),
            Request::Status => Answer::Status(Box::new(self.overview())),
            Request::Check(Change::Setting { key, value }) if is_of_network(&key) => {
                self.plain.handle(Request::Check(Change::Network(vec![(key, value)])))
            }
            Request::Save(Change::Setting { key, value }) if is_of_network(&key) => {
                self.try_network(Change::Network(vec![(key, value)]))
            }
            Request::Save(change @ Change::Network(_)) => self.try_network(change),
            Request::Save(change) => match self.save(&change) {
                Ok(()) => Answer::Done(String::new()),
                Err(error) => Answer::Refused(error),
            },
            Request::ConfirmNetwork => self.confirm(),
            Request::RevertNetwork => {
                self.revert();
                Answer::Done(String::new())
            }
            Request::Reboot => self.order(Order::Reboot),
            Request::PowerOff => self.order(Order::PowerOff),
            Request::FactoryReset => self.reset(),
            other => self.plain.handle(other),
        }
    }
}

/// The files that make the configuration: those that are there, or when these cannot be read the first of [`Files::fallbacks`] that can.
/// The second value is the configuration, the third says what is wrong with the files.
#[must_use]
pub fn choose_layers(files: &Files, settings: &[&str]) -> (Settings, Option<Config>, Option<String>) {
    let store = || Box::new(files.clone()) as Box<dyn Store>;
    let present = Settings::new(files.layers(settings), store());
    let error = match present.load_sound() {
        Ok((config, _)) => return (present, Some(config), None),
        Err(error) => chain(&error),
    };
    for layers in files.fallbacks(settings) {
        let settings = Settings::new(layers, store());
        if let Ok((config, _)) = settings.load_sound() {
            return (
                settings,
                Some(config),
                Some(format!("{error}; the configuration that worked last stays in force")),
            );
        }
    }
    (present, None, Some(error))
}

/// The settings of an appliance that has no place for configuration.
#[must_use]
pub fn nothing_configured(settings: &[&str]) -> (Settings, Option<Config>) {
    let args = Args { set: settings.iter().map(|setting| (*setting).to_owned()).collect(), ..Args::default() };
    let layers = Layers { args, is_complete: true, ..Layers::default() };
    let settings = Settings::new(layers, Box::new(Folder(super::BOOT.into())));
    let config = settings.load().ok().map(|(config, _)| config);
    (settings, config)
}

fn is_of_network(key: &str) -> bool {
    key.starts_with("network.")
}

fn interface_status(interface: &network::InterfaceReport, has_others: bool) -> InterfaceStatus {
    // By which the sockets at the back of the box are told apart.
    let mac = if has_others { format!(", {}", interface.mac) } else { String::new() };
    let address = interface.addresses.first().map(|address| format!("{}/{}", address.ip, address.prefix_length));
    InterfaceStatus {
        name: interface.name.clone(),
        address: address.unwrap_or_default(),
        state: format!("{}{mac}", interface.state),
    }
}

/// Seconds since the kernel started.
fn uptime() -> Option<u64> {
    std::fs::read_to_string("/proc/uptime").ok()?.split('.').next()?.parse().ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
