//! A host that answers consoles as an appliance would, from a script.

use auroraboot::console::{Answer, Change, Host, HostStatus, InterfaceStatus, Overview, Request, Shown};
use auroraboot::status::{Machine, Phase, Status, Step};
use auroraboot::units::MacAddr;
use std::sync::Mutex;
use std::time::Duration;

/// What it is asked is kept, but for what only looks.
#[derive(Default)]
pub struct ScriptedHost {
    pub password: Option<&'static str>,
    pub machines: usize,
    /// Of the session with a line that takes nothing.
    pub patience: Option<Duration>,
    pub asked: Mutex<Vec<String>>,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    set: Vec<(String, String)>,
    pub log: Vec<String>,
    netboot_is_off: bool,
    times_logged: usize,
}

impl Host for ScriptedHost {
    fn handle(&self, request: Request) -> Answer {
        self.note(&request);
        match request {
            Request::Password(typed) => match self.password {
                Some(password) if typed.0 != password => Answer::Refused("wrong password".to_owned()),
                _ => done(""),
            },
            Request::Status => Answer::Status(Box::new(self.overview())),
            Request::Machine(mac) => Answer::Machine(steps(mac)),
            Request::Settings => Answer::Settings(self.settings()),
            Request::Check(change) => check(&change),
            Request::Save(change) => {
                let keys = match change {
                    Change::Setting { key, value } => vec![(key, value)],
                    Change::Settings(keys) | Change::Network(keys) => keys,
                    Change::CloudConfig(text) => vec![("cloud_config".to_owned(), text.map(|_| "1.2 kB".to_owned()))],
                };
                let mut state = self.state.lock().unwrap();
                for (key, value) in keys {
                    state.set.retain(|(set, _)| *set != key);
                    state.set.extend(value.map(|value| (key, value)));
                }
                done("")
            }
            Request::Netboot(is_on) => {
                self.state.lock().unwrap().netboot_is_off = !is_on;
                done("")
            }
            Request::Log => {
                let mut state = self.state.lock().unwrap();
                state.times_logged += 1;
                if state.times_logged > 1 {
                    let line =
                        format!("2026/11/23 06:30:{:02} DHCP: Offering to boot 52:54:00:12:34:56", state.times_logged);
                    state.log.push(line);
                }
                Answer::Log(state.log.clone())
            }
            _ => done(""),
        }
    }
}

impl ScriptedHost {
    fn note(&self, request: &Request) {
        let text = match request {
            Request::Status | Request::Machine(_) | Request::Log | Request::Settings | Request::Password(_) => return,
            Request::Save(Change::CloudConfig(Some(text))) => format!("Save({:?})", String::from_utf8_lossy(text)),
            Request::Save(Change::Setting { key, value }) => format!("Save({key}={value:?})"),
            Request::Save(Change::Settings(keys) | Change::Network(keys)) => format!("Save({keys:?})"),
            other => format!("{other:?}"),
        };
        self.asked.lock().unwrap().push(text);
    }

    fn overview(&self) -> Overview {
        let state = self.state.lock().unwrap();
        let interface = |name: &str, address: &str, state: &str| InterfaceStatus {
            name: name.to_owned(),
            address: address.to_owned(),
            state: state.to_owned(),
        };
        let host = HostStatus {
            name: "pxe-box".to_owned(),
            uptime: 11_520,
            clock: "2026-11-23 06:20:11 UTC, set by ntp 192.168.1.1".to_owned(),
            interfaces: vec![
                interface("eth0", "192.168.1.5/24", "dhcp of 192.168.1.1"),
                interface("enx00e04c680001", "", "no cable"),
            ],
            data: "14.2 GB, 11.0 GB free".to_owned(),
            server: String::new(),
            restarts: 1,
            notices: vec![
                "auroraboot.yaml line 3: netboot_http_port: 80a is not a port; the earlier configuration stays in force".to_owned(),
            ],
            question: None,
        };
        let server = Status {
            phase: Phase::Serving,
            image: Some("quay.io/kairos/ubuntu:24.04-core-amd64-generic-v3.5.0".to_owned()),
            progress: None,
            serving: Some("eth0 192.168.1.5".to_owned()),
            netboot: !state.netboot_is_off,
            machines: (0..self.machines).map(machine).collect(),
        };
        Overview { host, server: Some(server) }
    }

    fn settings(&self) -> Vec<Shown> {
        let state = self.state.lock().unwrap();
        let mut shown: Vec<Shown> = DEFAULTS
            .iter()
            .map(|(key, value, origin)| Shown {
                key: (*key).to_owned(),
                value: (*value).to_owned(),
                origin: (*origin).to_owned(),
            })
            .collect();
        for (key, value) in &state.set {
            let value = if key.ends_with("password") { "***" } else { value };
            let set = Shown { key: key.clone(), value: value.to_owned(), origin: "console".to_owned() };
            match shown.iter_mut().find(|shown| shown.key == *key) {
                Some(shown) => *shown = set,
                None => shown.push(set),
            }
        }
        shown
    }
}

const DEFAULTS: [(&str, &str, &str); 27] = [
    ("container_image", "quay.io/kairos/ubuntu:24.04-core-amd64-generic-v3.5.0", "auroraboot.yaml:4"),
    ("arch", "amd64", "default"),
    ("state_dir", "/data/state", "--set"),
    ("cache_limit", "20.0 GB", "default"),
    ("offline", "false", "default"),
    ("interfaces", "every suitable one", "default"),
    ("netboot_listen_addr", "0.0.0.0", "default"),
    ("netboot_http_port", "8090", "default"),
    ("netboot.cmdline", "-", "default"),
    ("netboot.allow", "every machine", "default"),
    ("netboot.deny", "none", "default"),
    ("listen_addr", ":8080", "default"),
    ("disable_netboot", "false", "default"),
    ("disable_http_server", "false", "default"),
    ("disable_iso", "false", "default"),
    ("iso.override_name", "kairos", "default"),
    ("iso.include_date", "false", "default"),
    ("iso.overlay_iso", "-", "default"),
    ("iso.overlay_rootfs", "-", "default"),
    ("allow-insecure-registries", "false", "default"),
    ("network.interface", "-", "default"),
    ("network.address", "dhcp", "default"),
    ("network.gateway", "-", "default"),
    ("network.dns", "-", "default"),
    ("network.ntp", "-", "default"),
    ("network.hostname", "pxe-box", "auroraboot.yaml:9"),
    ("console.password", "-", "default"),
];

fn done(text: &str) -> Answer {
    Answer::Done(text.to_owned())
}

fn check(change: &Change) -> Answer {
    let keys = match change {
        Change::Setting { key, value } => vec![(key.clone(), value.clone())],
        Change::Settings(keys) | Change::Network(keys) => keys.clone(),
        Change::CloudConfig(None) => Vec::new(),
        Change::CloudConfig(Some(text)) if text.starts_with(b"#cloud-config\n") => {
            return done(
                "no user is in group admin\neach machine: installs to the largest disk without asking, then reboots",
            );
        }
        Change::CloudConfig(Some(_)) => {
            return done("the first line is not #cloud-config: machines ignore it without a word");
        }
    };
    for (key, value) in keys {
        let value = value.unwrap_or_default();
        let is_known =
            key == "cloud_config" || DEFAULTS.iter().any(|(known, ..)| *known == key) || IMAGE_KEYS.contains(&&*key);
        if !is_known {
            return Answer::Refused(format!("unknown key {key}"));
        }
        if key == "netboot_http_port" && !value.is_empty() && value.parse::<u16>().is_err() {
            return Answer::Refused(format!("netboot_http_port: {value:?} is not a port, 1 to 65535"));
        }
        if key == "network.address" && value != "dhcp" && !value.contains('/') && !value.is_empty() {
            return Answer::Refused(format!(
                "network.address: {value:?} is not dhcp, or an address with its prefix, such as 192.168.1.5/24"
            ));
        }
    }
    done("")
}

const IMAGE_KEYS: [&str; 7] =
    ["iso_url", "repository", "release_version", "artifact_version", "flavor", "flavor_release", "variant"];

fn machine(index: usize) -> Machine {
    let states = ["kernel sent", "has everything", "\u{1b}[2Joffered\u{202e}", "loader sent"];
    let number = u8::try_from(index % 200).unwrap();
    Machine {
        mac: MacAddr([0x52, 0x54, 0, 0x12, 0x34, number]),
        address: (index % 4 != 2).then(|| [192, 168, 1, 20 + number].into()),
        state: states[index % 4].to_owned(),
        since: 60 * index as u64,
        last: 45 * index as u64,
    }
}

fn steps(mac: MacAddr) -> Vec<Step> {
    let step = |at_ms, what: &str| Step { at_ms, what: what.to_owned() };
    vec![
        step(0, "DHCPDISCOVER from UEFI x86-64 (PXEClient:Arch:00007), asks 192.168.1.5 for a loader"),
        step(4, "DHCPOFFER: boot snponly.efi from 192.168.1.5"),
        step(3021, "TFTP: snponly.efi, 1 MB in 0.4 s"),
        step(5144, &format!("TFTP: autoexec.ipxe for {mac}")),
        step(5320, "HTTP: kernel, 14 MB in 0.1 s"),
        step(9870, "HTTP: squashfs, 512 MB in 4.5 s\u{7}\u{1b}]0;owned\u{7}"),
    ]
}
