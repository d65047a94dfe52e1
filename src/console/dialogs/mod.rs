//! What the console is in the midst of: each dialog tells what it asks for and what becomes of it with a line, or with an answer.

mod act;
mod apply;
mod cloud;
mod edit;
mod image;
mod log;
mod login;
mod machines;
mod menu;
mod network;
mod settings;

pub(super) use login::WrongPasswords;
pub(super) use menu::ROWS as MENU_ROWS;

use super::desk::Desk;
use super::line::{Field, Kind};
use super::protocol::{Answer, Request, Shown};
use std::time::Instant;

/// A dialog, in the state it is in.
#[derive(Debug)]
pub(super) enum Dialog {
    /// Nobody is there; nothing is drawn.
    Asleep,
    Login(login::Login),
    Menu(menu::Menu),
    Machines(machines::Machines),
    Settings(settings::Settings),
    Image(image::Image),
    Cloud(cloud::Cloud),
    Network(network::Network),
    Edit(edit::Edit),
    Apply(apply::Apply),
    Act(act::Act),
    Log(log::Log),
}

impl Dialog {
    /// Somebody is there.
    pub(super) fn wake(desk: &mut Desk) -> Self {
        Self::Login(login::Login::begin(desk))
    }

    /// What is asked for.
    pub(super) fn field(&self, desk: &Desk) -> Field {
        match self {
            Self::Asleep | Self::Settings(_) => Field::default(),
            Self::Login(_) => Field::new(Kind::Secret, "Password: "),
            Self::Menu(_) => Field::new(Kind::Choice, "Choice (h: help): "),
            Self::Machines(_) => Field::new(Kind::Choice, "Machine (its number; Enter: back): "),
            Self::Image(image) => image.field(),
            Self::Cloud(cloud) => cloud.field(),
            Self::Network(network) => network.field(),
            Self::Edit(edit) => edit.field(),
            Self::Apply(apply) => apply.field(desk),
            Self::Act(act) => act.field(),
            Self::Log(log) => log.field(),
        }
    }

    /// A line was typed.
    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Self {
        match self {
            Self::Asleep | Self::Settings(_) => self,
            Self::Login(login) => login.line(desk, line),
            Self::Menu(menu) => menu.line(desk, line),
            Self::Machines(machines) => machines.line(desk, line),
            Self::Image(image) => image.line(desk, line),
            Self::Cloud(cloud) => cloud.line(desk, line),
            Self::Network(network) => network.line(desk, line),
            Self::Edit(edit) => edit.line(desk, line),
            Self::Apply(apply) => apply.line(desk, line),
            Self::Act(act) => act.line(desk, line),
            Self::Log(log) => log.line(desk, line),
        }
    }

    /// The host has answered.
    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Self {
        match self {
            Self::Asleep => self,
            Self::Login(login) => login.answer(desk, answer),
            Self::Menu(menu) => menu.answer(desk, answer),
            Self::Machines(machines) => machines.answer(desk, answer),
            Self::Settings(settings) => settings.answer(desk, answer),
            Self::Image(image) => image.answer(desk, answer),
            Self::Cloud(cloud) => cloud.answer(desk, answer),
            Self::Network(network) => network.answer(desk, answer),
            Self::Edit(edit) => edit.answer(desk, answer),
            Self::Apply(apply) => apply.answer(desk, answer),
            Self::Act(act) => act.answer(desk, answer),
            Self::Log(log) => log.answer(desk, answer),
        }
    }

    /// Ctrl-C: nothing is changed, and what waits to be confirmed is not.
    pub(super) fn give_up(self, desk: &mut Desk) -> Self {
        match self {
            Self::Asleep | Self::Login(_) => Self::Asleep,
            Self::Cloud(cloud) => cloud.give_up(desk),
            Self::Apply(apply) => apply.give_up(desk),
            _ => menu(),
        }
    }

    /// Ctrl-D, after what was typed before it.
    pub(super) fn end(self, desk: &mut Desk, line: &str) -> Self {
        match self {
            Self::Cloud(cloud) => cloud.end(desk, line),
            Self::Menu(_) => leave(desk),
            other => other.give_up(desk),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Login(login) => login.deadline(),
            Self::Apply(apply) => apply.deadline(),
            Self::Log(log) => log.deadline(),
            _ => None,
        }
    }

    pub(super) fn handle_timeout(self, desk: &mut Desk) -> Self {
        match self {
            Self::Login(login) => login.handle_timeout(desk),
            Self::Apply(apply) => apply.handle_timeout(desk),
            Self::Log(log) => log.handle_timeout(desk),
            other => other,
        }
    }

    /// Whether lines come by themselves until a key is pressed.
    pub(super) fn is_following(&self) -> bool {
        matches!(self, Self::Log(log) if log.is_following())
    }

    /// Whether each line is one of a text.
    pub(super) fn is_pasting(&self) -> bool {
        matches!(self, Self::Cloud(cloud::Cloud::Paste(_)))
    }

    /// Whether no key is taken now.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self, Self::Login(login) if login.is_locked())
    }
}

fn menu() -> Dialog {
    Dialog::Menu(menu::Menu::default())
}

/// The session ends.
pub(super) fn leave(desk: &mut Desk) -> Dialog {
    desk.say("Logged off. Any key begins again.");
    Dialog::Asleep
}

/// What is said to an answer of another kind than the request wants, and to a refusal.
fn refused(desk: &mut Desk, answer: Answer) -> Dialog {
    match answer {
        Answer::Refused(why) => desk.say(&format!("Not possible: {why}")),
        _ => desk.say("Not possible: the answer makes no sense."),
    }
    menu()
}

/// The settings with these keys.
fn with_key<'a>(shown: &'a [Shown], key: &str) -> Option<&'a Shown> {
    shown.iter().find(|setting| setting.key == key)
}

/// A setting in a list: what it is, and who set it.
fn say_setting(desk: &mut Desk, name: &str, setting: Option<&Shown>) {
    let (value, origin) = setting.map_or(("-", ""), |setting| (&*setting.value, &*setting.origin));
    let origin = if origin.is_empty() { String::new() } else { format!("  ({origin})") };
    desk.list(&format!("{name:<26}{value}{origin}"), 26);
}

/// What a line that sets a value means.
enum Typed {
    /// Nothing: it stays.
    Kept,
    /// What the console has set goes, the files decide again.
    Dropped,
    Value(String),
}

fn typed(line: &str) -> Typed {
    match line.trim() {
        "" => Typed::Kept,
        "-" => Typed::Dropped,
        "\"\"" => Typed::Value(String::new()),
        value => Typed::Value(value.to_owned()),
    }
}

fn is_yes(line: &str) -> bool {
    ["y", "yes"].iter().any(|yes| line.trim().eq_ignore_ascii_case(yes))
}

fn is_no(line: &str) -> bool {
    ["n", "no"].iter().any(|no| line.trim().eq_ignore_ascii_case(no))
}

fn ask_settings(desk: &mut Desk) {
    desk.ask(Request::Settings);
}
