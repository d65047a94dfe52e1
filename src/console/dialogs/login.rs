//! Who wants in: a password, if one is set.

use super::{Dialog, menu};
use crate::console::desk::Desk;
use crate::console::protocol::{Answer, Request, Secret};
use crate::limits;
use std::time::Instant;

#[derive(Debug)]
pub(in crate::console) struct Login {
    /// Whether the password that is being checked was typed; the first one is empty and asks whether one is needed.
    is_typed: bool,
    locked_until: Option<Instant>,
}

/// What is remembered of wrong passwords, from one session to the next.
#[derive(Debug, Default)]
pub(in crate::console) struct WrongPasswords {
    count: u32,
    locked_until: Option<Instant>,
}

impl Login {
    pub(super) fn begin(desk: &mut Desk) -> Self {
        let locked_until = desk.wrong.locked_until.filter(|until| *until > desk.now);
        if let Some(until) = locked_until {
            say_wait(desk, until);
        } else {
            desk.ask(Request::Password(Secret(String::new())));
        }
        Self { is_typed: false, locked_until }
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        if !line.is_empty() {
            desk.ask(Request::Password(Secret(line.to_owned())));
        }
        Dialog::Login(Self { is_typed: true, ..self })
    }

    pub(super) fn answer(mut self, desk: &mut Desk, answer: Answer) -> Dialog {
        match answer {
            Answer::Done(_) => {
                desk.wrong = WrongPasswords::default();
                return menu::Menu::greet(desk);
            }
            Answer::Refused(why) if self.is_typed => {
                desk.say(&format!("Not accepted: {why}"));
                self.locked_until = desk.wrong.add(desk.now);
                if let Some(until) = self.locked_until {
                    say_wait(desk, until);
                }
            }
            _ => {
                let title = desk.profile.title.clone();
                desk.say(&title);
            }
        }
        Dialog::Login(self)
    }

    pub(super) fn is_locked(&self) -> bool {
        self.locked_until.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.locked_until
    }

    pub(super) fn handle_timeout(mut self, desk: &mut Desk) -> Dialog {
        if self.locked_until.is_some_and(|until| until <= desk.now) {
            self.locked_until = None;
        }
        Dialog::Login(self)
    }
}

impl WrongPasswords {
    /// One more; how long nobody is heard now.
    fn add(&mut self, now: Instant) -> Option<Instant> {
        self.count = self.count.saturating_add(1);
        let doublings = self.count.checked_sub(limits::CONSOLE_PASSWORDS_MAX)?;
        let wait = limits::CONSOLE_PASSWORD_WAIT.saturating_mul(2_u32.saturating_pow(doublings));
        self.locked_until = Some(now + wait.min(limits::CONSOLE_PASSWORD_WAIT_MAX));
        self.locked_until
    }
}

fn say_wait(desk: &mut Desk, until: Instant) {
    let seconds = until.saturating_duration_since(desk.now).as_secs_f64().ceil();
    desk.say(&format!("Too many wrong passwords: wait {seconds} s."));
}
