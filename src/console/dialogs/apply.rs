//! A change: checked, confirmed, saved; and when it may cut off whoever made it, confirmed once more or taken back.

use super::{Dialog, is_yes, menu, refused};
use crate::console::desk::Desk;
use crate::console::line::{Field, Kind};
use crate::console::protocol::{Answer, Change, Request};
use crate::limits;
use std::time::Instant;

#[derive(Debug)]
pub(in crate::console) struct Apply {
    change: Change,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Where to go when it is refused.
    Checking {
        back: Box<Dialog>,
    },
    Confirm,
    Saving,
    /// The network is changed, and goes back to what it was at this time.
    Keep {
        until: Instant,
    },
    /// Kept or taken back; what is said then.
    Ending(&'static str),
}

impl Apply {
    /// Has the change checked; `back` asks again when it is refused.
    pub(super) fn begin(desk: &mut Desk, change: Change, back: Dialog) -> Dialog {
        desk.check(&change);
        Dialog::Apply(Self { change, state: State::Checking { back: Box::new(back) } })
    }

    pub(super) fn field(&self, desk: &Desk) -> Field {
        let prompt = match &self.state {
            State::Confirm => "Save it? [y/N] ".to_owned(),
            State::Keep { until } => {
                let left = until.saturating_duration_since(desk.now).as_secs();
                format!("Keep it? y keeps it, n goes back, Enter shows the network; {left} s left: ")
            }
            State::Checking { .. } | State::Saving | State::Ending(_) => String::new(),
        };
        Field::new(Kind::Choice, prompt)
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        let line = line.trim();
        match self.state {
            State::Confirm if is_yes(line) => {
                desk.ask(Request::Save(self.change.clone()));
                Dialog::Apply(Self { state: State::Saving, ..self })
            }
            State::Confirm => {
                desk.say("Nothing is changed.");
                menu()
            }
            State::Keep { .. } if is_yes(line) => {
                desk.ask(Request::ConfirmNetwork);
                self.ending("The network stays as it is now.")
            }
            State::Keep { .. } if line.eq_ignore_ascii_case("n") || line.eq_ignore_ascii_case("no") => {
                self.revert(desk)
            }
            State::Keep { .. } => {
                desk.ask(Request::Status);
                Dialog::Apply(self)
            }
            State::Checking { .. } | State::Saving | State::Ending(_) => Dialog::Apply(self),
        }
    }

    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        match (self.state, answer) {
            (State::Checking { back }, Answer::Refused(why)) => {
                desk.say(&format!("Not accepted: {why}"));
                *back
            }
            (State::Checking { .. }, Answer::Done(said)) => {
                desk.say_if_any(&said);
                Dialog::Apply(Self { change: self.change, state: State::Confirm })
            }
            (State::Saving, Answer::Done(said)) => {
                desk.say_if_any(&said);
                let saved = Self { change: self.change, state: State::Saving };
                saved.saved(desk)
            }
            (State::Keep { until }, Answer::Status(overview)) => {
                for interface in &overview.host.interfaces {
                    desk.say(format!("{}  {}  {}", interface.name, interface.address, interface.state).trim_end());
                }
                Dialog::Apply(Self { change: self.change, state: State::Keep { until } })
            }
            // The network may well be what is wrong: it still waits to be confirmed.
            (State::Keep { until }, _) => Dialog::Apply(Self { change: self.change, state: State::Keep { until } }),
            (State::Ending(said), Answer::Done(more)) => {
                desk.say(said);
                desk.say_if_any(&more);
                menu()
            }
            (_, answer) => refused(desk, answer),
        }
    }

    /// A network that works differently from now on is kept only when somebody who can still be here says so.
    fn saved(self, desk: &mut Desk) -> Dialog {
        let Change::Network(keys) = &self.change else {
            desk.say("Saved; s shows what becomes of it.");
            return menu();
        };
        if keys.iter().all(|(key, _)| HARMLESS.contains(&key.as_str())) {
            desk.ask(Request::ConfirmNetwork);
            return self.ending("Saved.");
        }
        let until = desk.after(limits::CONSOLE_NETWORK_PATIENCE);
        desk.say("Saved. The network changes now: see whether the box can be reached, then confirm.");
        Dialog::Apply(Self { state: State::Keep { until }, ..self })
    }

    fn ending(self, said: &'static str) -> Dialog {
        Dialog::Apply(Self { state: State::Ending(said), ..self })
    }

    fn revert(self, desk: &mut Desk) -> Dialog {
        desk.ask(Request::RevertNetwork);
        self.ending("The network goes back to what it was.")
    }

    pub(super) fn give_up(self, desk: &mut Desk) -> Dialog {
        match self.state {
            State::Keep { .. } => self.revert(desk),
            _ => menu(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Keep { until } => Some(until),
            _ => None,
        }
    }

    pub(super) fn handle_timeout(self, desk: &mut Desk) -> Dialog {
        match self.state {
            State::Keep { until } if until <= desk.now => {
                desk.say("Not confirmed in time.");
                self.revert(desk)
            }
            _ => Dialog::Apply(self),
        }
    }
}

/// Keys of the network that cut nobody off.
const HARMLESS: [&str; 2] = ["network.hostname", "network.ntp"];
