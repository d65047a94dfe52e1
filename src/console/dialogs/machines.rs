//! The machines that were seen lately, and what happened to one of them.

use super::{Dialog, menu, refused};
use crate::console::desk::Desk;
use crate::console::protocol::{Answer, Request};
use crate::console::screen;
use crate::units::MacAddr;

/// The machines as they are numbered on the screen.
#[derive(Debug)]
pub(in crate::console) struct Machines(Vec<MacAddr>);

impl Machines {
    pub(super) fn begin(desk: &mut Desk) -> Dialog {
        desk.ask(Request::Status);
        Dialog::Machines(Self(Vec::new()))
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        let line = line.trim();
        if line.is_empty() || line == "q" {
            return menu();
        }
        let by_number = line.parse::<usize>().ok().and_then(|number| self.0.get(number.checked_sub(1)?).copied());
        match by_number.or_else(|| line.parse().ok().filter(|mac| self.0.contains(mac))) {
            Some(mac) => {
                desk.say(&mac.to_string());
                desk.ask(Request::Machine(mac));
            }
            None => desk.say(&format!("There is no such machine; type a number from 1 to {}.", self.0.len())),
        }
        Dialog::Machines(self)
    }

    pub(super) fn answer(mut self, desk: &mut Desk, answer: Answer) -> Dialog {
        match answer {
            Answer::Status(overview) => {
                let machines = overview.server.map(|server| server.machines).unwrap_or_default();
                if machines.is_empty() {
                    desk.say("No machine was seen yet: none has asked the network for something to boot.");
                    return menu();
                }
                screen::machines(&machines).iter().for_each(|row| desk.list(row, 6));
                self.0 = machines.into_iter().map(|machine| machine.mac).collect();
            }
            Answer::Machine(steps) if steps.is_empty() => desk.say("Nothing is known of it any more."),
            Answer::Machine(steps) => screen::steps(&steps).iter().for_each(|row| desk.list(row, 24)),
            other => return refused(desk, other),
        }
        Dialog::Machines(self)
    }
}
