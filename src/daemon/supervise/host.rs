//! What consoles are answered on any Linux host: all but its network and its power, which are its own business.

use super::{Settings, Supervisor, TakeBack};
use crate::config::{Args, ConfigError, Password, Warning};
use crate::console::{Answer, Change, Host, HostStatus, InterfaceStatus, Overview, Request};
use crate::daemon::ring::Ring;
use crate::status::{Phase, Question, Reply};
use crate::sys::netlink;
use crate::sys::time::LocalTime;
use crate::units::chain;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// The server, its settings and its log.
#[derive(Debug)]
pub struct PlainHost {
    pub supervisor: Supervisor,
    pub settings: Arc<Settings>,
    pub ring: Ring,
    pub started: Instant,
    /// What `console.password` was when the configuration could be read last.
    password: Mutex<Option<Password>>,
    /// Why no server runs for now, whatever the settings say.
    held: Mutex<Option<String>>,
}

impl PlainHost {
    #[must_use]
    pub fn new(supervisor: Supervisor, settings: Settings, ring: Ring) -> Self {
        let settings = Arc::new(settings);
        Self { supervisor, settings, ring, started: Instant::now(), password: Mutex::default(), held: Mutex::default() }
    }

    /// Runs no server until this is called with `None`, and says why.
    pub fn hold(&self, why: Option<&str>) {
        let before =
            std::mem::replace(&mut *self.held.lock().unwrap_or_else(PoisonError::into_inner), why.map(str::to_owned));
        if before.is_some() != why.is_some() {
            let _ = self.apply(); // the overview tells
        }
    }

    fn held(&self) -> Option<String> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs the server with the settings as they are now; none, while there is nothing to boot.
    ///
    /// # Errors
    /// What is wrong with the settings, or missing; the server that ran is ended.
    pub fn apply(&self) -> Result<(), ConfigError> {
        self.apply_or(None)
    }

    fn apply_or(&self, take_back: Option<TakeBack>) -> Result<(), ConfigError> {
        let loaded = self.settings.load().and_then(|(config, _)| config.image().map(drop));
        let runs = loaded.is_ok() && self.held().is_none();
        self.supervisor.run_or(runs.then(|| arguments(&self.settings.args())), take_back);
        loaded
    }

    /// What a change would bring; nothing is changed.
    ///
    /// # Errors
    /// Why it would not be accepted.
    pub fn check(&self, change: &Change) -> Result<String, String> {
        let mut said = self.settings.check(change).map_err(|error| chain(&error))?;
        if concerns_server(change) && self.is_serving() {
            said.push_str("\nThe server starts again with it: machines that are loading start over.");
        }
        Ok(said)
    }

    /// Makes a change and runs the server with it. When one served before, and none does with the change, it is taken back. `kept` is
    /// called whenever the files have changed.
    ///
    /// # Errors
    /// Why it is not accepted, or could not be kept.
    pub fn save(&self, change: &Change, kept: impl Fn() -> Result<(), String> + Send + 'static) -> Result<(), String> {
        let before = self.settings.kept();
        self.settings.save(change).map_err(|error| chain(&error))?;
        self.supervisor.tell(&format!("Console: {} was changed", names(change)));
        kept()?;
        if !concerns_server(change) {
            return Ok(());
        }
        let settings = Arc::clone(&self.settings);
        let take_back = before.ok().filter(|_| self.is_serving()).map(|before| {
            TakeBack(Box::new(move || {
                let restored = settings.restore(&before).map_err(|error| chain(&error)).and_then(|()| kept());
                restored.is_ok().then(|| arguments(&settings.args()))
            }))
        });
        let _ = self.apply_or(take_back); // the overview tells
        Ok(())
    }

    fn is_serving(&self) -> bool {
        self.supervisor.status().is_some_and(|status| status.phase == Phase::Serving)
    }

    /// What every host tells of itself.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let report = self.supervisor.report();
        let loaded = self.settings.load();
        let notices = loaded.as_ref().map(|(_, warnings)| worth_a_notice(warnings)).unwrap_or_default();
        let loaded = loaded.and_then(|(config, _)| config.image().map(drop));
        let server = match (loaded, report.is_running, report.why) {
            (Err(ConfigError::NoSource), ..) => NO_IMAGE.to_owned(),
            (Err(error), ..) => chain(&error),
            (Ok(_), true, _) => String::new(),
            (Ok(_), false, Some(why)) => format!("it ended and is started again: {why}"),
            (Ok(_), false, None) => self.held().unwrap_or_else(|| "it is being started".to_owned()),
        };
        let host = HostStatus {
            name: std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned(),
            uptime: self.started.elapsed().as_secs(),
            clock: LocalTime::now().to_string(),
            interfaces: interfaces(),
            data: String::new(),
            server,
            restarts: report.restarts,
            notices: report.taken_back.map(taken_back).into_iter().chain(notices).collect(),
            question: None,
        };
        Overview { host, server: self.supervisor.status() }
    }

    fn ask(&self, question: Question) -> Answer {
        match self.supervisor.ask(question) {
            Some(Reply::Done) => Answer::Done(String::new()),
            Some(Reply::Machine(steps)) => Answer::Machine(steps),
            Some(Reply::Refused(why)) => Answer::Refused(why),
            Some(Reply::Status(_)) | None => Answer::Refused("the server does not answer; see its log".to_owned()),
        }
    }

    fn password(&self, typed: &str) -> Answer {
        let mut set = self.password.lock().unwrap_or_else(PoisonError::into_inner);
        // A mistake elsewhere in the configuration lets nobody in, and shuts nobody out.
        if let Ok((config, _)) = self.settings.load() {
            *set = config.console_password.value;
        }
        match &*set {
            None => Answer::Done(String::new()),
            Some(set) if set.is(typed) => Answer::Done(String::new()),
            Some(_) => {
                // The first question of every session is an empty one, which asks whether a password is needed.
                if !typed.is_empty() {
                    self.supervisor.tell("Console: a wrong password was typed");
                }
                Answer::Refused("wrong password".to_owned())
            }
        }
    }
}

impl Host for PlainHost {
    fn handle(&self, request: Request) -> Answer {
        match request {
            Request::Status => Answer::Status(Box::new(self.overview())),
            Request::Machine(mac) => self.ask(Question::Machine(mac)),
            Request::Netboot(is_on) => self.ask(Question::Netboot(is_on)),
            Request::Log => Answer::Log(self.ring.lines()),
            Request::Settings => match self.settings.shown() {
                Ok(shown) => Answer::Settings(shown),
                Err(error) => Answer::Refused(chain(&error)),
            },
            Request::Check(change) => self.check(&change).map_or_else(Answer::Refused, Answer::Done),
            Request::Save(change) => match self.save(&change, || Ok(())) {
                Ok(()) => Answer::Done(String::new()), // what there is to say was said when it was checked
                Err(error) => Answer::Refused(error),
            },
            Request::Restart => {
                self.supervisor.tell("Console: the server is restarted");
                self.supervisor.restart();
                Answer::Done(String::new())
            }
            Request::Password(typed) => self.password(&typed.0),
            Request::Answer(_) => Answer::Refused("nothing is asked".to_owned()),
            Request::ConfirmNetwork | Request::RevertNetwork => {
                Answer::Refused("the network is this host's own".to_owned())
            }
            Request::Reboot | Request::PowerOff | Request::FactoryReset => {
                Answer::Refused("this is not an appliance: its power is not ours to switch".to_owned())
            }
        }
    }
}

/// What the overview says before anything was set.
pub const NO_IMAGE: &str = "no image is set";

fn taken_back(why: String) -> String {
    format!("what was changed last was taken back, for the server did not run with it: {why}")
}

/// What is probably a mistake. To have no cloud config, or keys for an appliance on a plain host, is none.
fn worth_a_notice(warnings: &[Warning]) -> Vec<String> {
    let is_mistake = |warning: &&Warning| !matches!(warning, Warning::NoCloudConfig | Warning::OfAppliance { .. });
    warnings.iter().filter(is_mistake).map(Warning::to_string).collect()
}

/// Whether the server has to be started again for it: the host's own network and its consoles are none of the server's business.
fn concerns_server(change: &Change) -> bool {
    match change {
        Change::Setting { key, .. } => key != "console.password" && !key.starts_with("network."),
        Change::Network(_) => false,
        Change::Settings(_) | Change::CloudConfig(_) => true,
    }
}

/// What is changed, without the values, which may be secret.
fn names(change: &Change) -> String {
    match change {
        Change::Setting { key, .. } => key.clone(),
        Change::Settings(keys) | Change::Network(keys) => {
            keys.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>().join(", ")
        }
        Change::CloudConfig(_) => "the cloud config".to_owned(),
    }
}

/// The command line of a server.
#[must_use]
pub fn arguments(args: &Args) -> Vec<OsString> {
    let mut words: Vec<&str> = args.config.as_deref().into_iter().collect();
    args.with.iter().for_each(|with| words.extend(["--with", with]));
    args.set.iter().for_each(|set| words.extend(["--set", set]));
    args.cloud_config.iter().for_each(|cloud| words.extend(["--cloud-config", cloud]));
    words.extend(args.debug.then_some("--debug"));
    words.into_iter().map(OsString::from).collect()
}

fn interfaces() -> Vec<InterfaceStatus> {
    let shown = |interface: netlink::Interface| InterfaceStatus {
        address: interface
            .addresses
            .first()
            .map(|address| format!("{}/{}", address.ip, address.prefix_length))
            .unwrap_or_default(),
        state: if interface.carrier { String::new() } else { "no link".to_owned() },
        name: interface.name,
    };
    let all = netlink::interfaces().unwrap_or_default().into_iter();
    all.filter(|interface| !interface.loopback && interface.mac.is_some()).map(shown).collect()
}
