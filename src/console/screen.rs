//! What is shown of the status: at a glance, and the machines.

use super::protocol::{HostStatus, Overview, Profile};
use super::text::{self, fit, span};
use crate::limits::CONSOLE_ROWS;
use crate::status::{Machine, Phase, Status, Step};

/// Lines that no overview takes: a blank line, the menu and the prompt.
const ROWS_BELOW: usize = 1 + super::dialogs::MENU_ROWS + 1;
const INTERFACES_MAX: usize = 4;
const NOTICE_ROWS_MAX: usize = 3;
/// The rows for machines, whatever else there is to tell.
const MACHINES_MIN: usize = 3;
/// `IFNAMSIZ` without the zero byte.
const NAME_MAX: usize = 15;
/// A name or a value stands so far in.
const INDENT: usize = 10;

/// Everything at a glance: with the menu below it on one screen, or with every notice in full.
pub(super) fn overview(profile: &Profile, overview: &Overview, in_full: bool) -> Vec<String> {
    let mut rows = title(profile, &overview.host);
    interfaces(&overview.host, &mut rows);
    server(overview, &mut rows);
    if !overview.host.data.is_empty() {
        item("Data", &overview.host.data, &mut rows);
    }
    let room = |rows: &[String]| (CONSOLE_ROWS - ROWS_BELOW).saturating_sub(rows.len());
    let for_notices = if in_full { usize::MAX } else { room(&rows).saturating_sub(MACHINES_MIN) };
    notices(&overview.host.notices, for_notices, &mut rows);
    let machines = overview.server.as_ref().map_or(&[][..], |server| &server.machines);
    some_machines(machines, room(&rows).max(MACHINES_MIN), &mut rows);
    rows
}

fn title(profile: &Profile, host: &HostStatus) -> Vec<String> {
    let name = if host.name.is_empty() { String::new() } else { format!(" - {}", host.name) };
    let clock = if host.clock.is_empty() { String::new() } else { format!(", {}", host.clock) };
    let mut rows = text::wrap(&format!("{}{name}", profile.title), 2);
    rows.extend(text::wrap(&format!("up {}{clock}", span(host.uptime)), 2));
    rows.push(String::new());
    rows
}

fn item(name: &str, value: &str, rows: &mut Vec<String>) {
    rows.extend(text::wrap(&format!("{name:INDENT$}{value}"), INDENT));
}

fn interfaces(host: &HostStatus, rows: &mut Vec<String>) {
    if host.interfaces.is_empty() {
        item("Network", "no interface", rows);
    }
    let shown = if host.interfaces.len() > INTERFACES_MAX { INTERFACES_MAX - 1 } else { INTERFACES_MAX };
    let longest = host.interfaces.iter().map(|interface| text::columns(&interface.name)).max().unwrap_or_default();
    for (index, interface) in host.interfaces.iter().take(shown).enumerate() {
        let address = if interface.address.is_empty() { "-" } else { &interface.address };
        let text = format!(
            "{}  {}  {}",
            fit(&interface.name, longest.min(NAME_MAX)),
            fit(address, 18),
            text::clean(&interface.state)
        );
        item(if index == 0 { "Network" } else { "" }, text.trim_end(), rows);
    }
    if host.interfaces.len() > shown {
        item("", &format!("... and {} more", host.interfaces.len() - shown), rows);
    }
}

fn server(overview: &Overview, rows: &mut Vec<String>) {
    let (host, Some(server)) = (&overview.host, &overview.server) else {
        let state = if overview.host.server.is_empty() { "not running" } else { &overview.host.server };
        item("Server", &format!("{state}{}", restarts(&overview.host)), rows);
        return;
    };
    item("Image", server.image.as_deref().unwrap_or("none is set"), rows);
    if let Some(progress) = &server.progress {
        item("", progress, rows);
    }
    item("Netboot", &netboot(server), rows);
    let troubled = if host.server.is_empty() { String::new() } else { format!("; {}", host.server) };
    if host.restarts > 0 || !troubled.is_empty() {
        item("Server", &format!("running{troubled}{}", restarts(host)), rows);
    }
}

fn restarts(host: &HostStatus) -> String {
    match host.restarts {
        0 => String::new(),
        1 => "; it ended by itself once (l shows why)".to_owned(),
        times => format!("; it ended by itself {times} times (l shows why)"),
    }
}

fn netboot(server: &Status) -> String {
    let on = server.serving.as_deref();
    match server.phase {
        Phase::Starting => "not yet: the server starts".to_owned(),
        Phase::Preparing => "not yet: the image is being prepared".to_owned(),
        Phase::Stopping => "the server stops".to_owned(),
        Phase::Serving if !server.netboot => "off: machines are not answered (b starts it)".to_owned(),
        Phase::Serving => on.map_or_else(|| "on".to_owned(), |on| format!("on: {on}")),
    }
}

/// The notices on so many rows, the last of which tells how many there are besides.
fn notices(notices: &[String], room: usize, rows: &mut Vec<String>) {
    let mut wrapped: Vec<Vec<String>> = Vec::new();
    for notice in notices {
        let mut notice = text::wrap(&format!("{:INDENT$}{notice}", "Notice"), INDENT);
        if notice.len() > NOTICE_ROWS_MAX && room < usize::MAX {
            notice.truncate(NOTICE_ROWS_MAX);
            notice.push(format!("{:INDENT$}... (s shows all of it)", ""));
        }
        wrapped.push(notice);
    }
    let mut used = 0;
    let is_shown = |notice: &&Vec<String>| {
        used += notice.len();
        used < room
    };
    let shown = wrapped.iter().take_while(is_shown).count();
    wrapped.iter().take(shown).for_each(|notice| rows.extend_from_slice(notice));
    if notices.len() > shown {
        item("Notice", &format!("... {} more (s shows them)", notices.len() - shown), rows);
    }
}

/// The latest machines on so many rows, the last of which tells how many there are besides.
fn some_machines(machines: &[Machine], room: usize, rows: &mut Vec<String>) {
    if machines.is_empty() {
        return item("Machines", "none seen yet", rows);
    }
    let shown = if machines.len() > room { room - 1 } else { machines.len() };
    for (index, machine) in machines.iter().take(shown).enumerate() {
        let name = if index == 0 { "Machines" } else { "" };
        rows.push(format!("{name:INDENT$}{}", self::machine(machine)));
    }
    if machines.len() > shown {
        item("", &format!("... and {} more (m lists them)", machines.len() - shown), rows);
    }
}

/// A machine on one row, 69 columns wide at most.
fn machine(machine: &Machine) -> String {
    let address = machine.address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let state = fit(&machine.state, 19);
    format!("{}  {}  {state}  {} ago", machine.mac, fit(&address, 15), span(machine.last)).trim_end().to_owned()
}

/// All machines, numbered from 1.
pub(super) fn machines(machines: &[Machine]) -> Vec<String> {
    let mut rows = vec![format!("{:>4}  {:17}  {:15}  {:19}  {}", "", "machine", "address", "state", "last seen")];
    rows.extend(
        machines.iter().enumerate().map(|(index, machine)| format!("{:>4}  {}", index + 1, self::machine(machine))),
    );
    rows
}

/// What happened to a machine, with the time since the first step and since the one before.
pub(super) fn steps(steps: &[Step]) -> Vec<String> {
    let mut rows = vec![format!("{:>10}  {:>10}  {}", "after", "step took", "what")];
    let mut before = steps.first().map_or(0, |step| step.at_ms);
    for step in steps {
        let took = step.at_ms.saturating_sub(before);
        before = step.at_ms;
        let row = format!("{}  {}  {}", seconds(step.at_ms), seconds(took), text::clean(&step.what));
        rows.extend(text::wrap(&row, 24));
    }
    rows
}

fn seconds(ms: u64) -> String {
    format!("{:>4}.{:03} s", ms / 1000, ms % 1000)
}
