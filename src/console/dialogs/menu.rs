//! The menu: one letter, and Enter.

use super::{Dialog, act, ask_settings, cloud, edit, image, leave, log, machines, menu, network, refused, settings};
use crate::console::desk::Desk;
use crate::console::protocol::{Answer, Request};
use crate::console::screen;
use crate::console::text::clean;
use crate::limits;
use std::time::Instant;

/// The rows that the menu takes.
pub(in crate::console) const ROWS: usize = 3;

#[derive(Debug, Default)]
pub(in crate::console) struct Menu {
    awaits: Awaits,
    /// When the status was shown last.
    shown: Option<Instant>,
}

/// What the answer is for.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Awaits {
    #[default]
    Nothing,
    Status,
    /// The status with the menu below it.
    Greeting,
    /// Whether netboot is on, to turn it the other way.
    Netboot,
}

impl Menu {
    /// The first thing that is seen.
    pub(super) fn greet(desk: &mut Desk) -> Dialog {
        Self::wait(desk, Awaits::Greeting)
    }

    fn wait(desk: &mut Desk, awaits: Awaits) -> Dialog {
        desk.ask(Request::Status);
        Dialog::Menu(Self { awaits, shown: None })
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        let line = line.trim();
        let is_fresh = self.shown.is_some_and(|shown| desk.now < shown + limits::CONSOLE_REFRESH_MIN);
        if line.is_empty() && is_fresh {
            return Dialog::Menu(self);
        }
        let before = std::mem::take(&mut desk.nonsense);
        let (network, power) = (desk.profile.network, desk.profile.power);
        match line {
            "" | "s" | "status" => Self::wait(desk, Awaits::Status),
            "m" | "machines" => machines::Machines::begin(desk),
            "i" | "image" => image::Image::begin(desk),
            "c" | "cloud" => cloud::Cloud::begin(desk),
            "n" | "network" if network => network::Network::begin(desk),
            "v" | "settings" => {
                ask_settings(desk);
                Dialog::Settings(settings::Settings)
            }
            "e" | "edit" => edit::Edit::begin(desk),
            "b" | "netboot" => Self::wait(desk, Awaits::Netboot),
            "r" | "restart" => act::Act::restart(),
            "l" | "log" => log::Log::begin(desk),
            "p" | "power" if power => act::Act::power(desk),
            "h" | "?" | "help" => {
                help(desk);
                menu()
            }
            "q" | "quit" | "exit" => leave(desk),
            line => self.nonsense(desk, line, before + 1),
        }
    }

    /// Nobody types nonsense for long: it is another program's prompt, or a line that hums.
    fn nonsense(self, desk: &mut Desk, line: &str, times: u32) -> Dialog {
        if times >= limits::CONSOLE_NONSENSE_MAX {
            desk.is_deaf = true;
            desk.say("Nobody seems to be there.");
            return leave(desk);
        }
        desk.nonsense = times;
        let line: String = clean(line).chars().take(20).collect();
        desk.say(&format!("There is no choice {line:?}; h lists them."));
        Dialog::Menu(self)
    }

    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        let overview = match answer {
            Answer::Status(overview) => overview,
            other => return refused(desk, other),
        };
        if self.awaits == Awaits::Netboot {
            return match &overview.server {
                Some(server) if server.netboot => act::Act::stop_netboot(),
                Some(_) => act::Act::start_netboot(desk),
                None => refused(desk, Answer::Refused("no server runs; s shows why".to_owned())),
            };
        }
        for row in screen::overview(&desk.profile, &overview, self.awaits == Awaits::Status) {
            desk.list(&row, 2);
        }
        if let Some(question) = &overview.host.question {
            return act::Act::asked(desk, question);
        }
        if self.awaits == Awaits::Greeting {
            desk.say("");
            choices(desk);
        }
        Dialog::Menu(Self { awaits: Awaits::Nothing, shown: Some(desk.now) })
    }
}

fn choices(desk: &mut Desk) {
    let network = if desk.profile.network { "n network" } else { "" };
    let power = if desk.profile.power { "p power" } else { "" };
    let rows = [
        ["s status", "m machines", "i image", "c cloud config", network],
        ["v settings", "e edit one", "b netboot", "r restart", "l log"],
        ["h help", "q leave", power, "", ""],
    ];
    for row in rows {
        desk.say(row.map(|choice| format!("{choice:16}")).concat().trim_end());
    }
}

fn help(desk: &mut Desk) {
    choices(desk);
    desk.say(
        "
Type a letter and Enter; Enter alone shows the status again.

s  status: addresses, image and progress, netboot, the latest machines
m  machines: all that were seen lately, and what happened to each, step by step
i  image: what is booted - a container image, an ISO, or a release
c  cloud config: paste one; it is checked, shown, and saved when you say so
v  every setting and who set it     e  sets one by its key
b  machines that boot from the network are answered, or left alone
r  ends the server and starts it again; machines that load from it start over
l  log, page by page; f follows it",
    );
    if desk.profile.network {
        desk.say(
            "n  address, gateway, DNS, NTP and name of this box; a change that cuts you off\n   goes back by itself",
        );
    }
    if desk.profile.power {
        desk.say("p  reboot, power off, factory reset");
    }
    desk.say("\nWhat is set here wins over the files. Ctrl-C gives up whatever you are in;\nBackspace, Ctrl-U, Ctrl-W and the arrow keys edit.");
}
