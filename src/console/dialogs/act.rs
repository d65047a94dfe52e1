//! What is done at once when it was confirmed: power, the server, netboot.

use super::{Dialog, is_no, is_yes, menu, refused};
use crate::console::desk::Desk;
use crate::console::line::{Field, Kind};
use crate::console::protocol::{Answer, Request};

#[derive(Debug)]
pub(in crate::console) enum Act {
    /// Which of the three.
    Power,
    Confirm(Deed),
    /// The host wants to know something.
    Asked,
    Doing {
        done: &'static str,
    },
}

/// Something to confirm.
#[derive(Debug)]
pub(in crate::console) struct Deed {
    request: Request,
    question: &'static str,
    /// What has to be typed; none: y.
    word: Option<&'static str>,
    done: &'static str,
}

impl Act {
    pub(super) fn power(desk: &mut Desk) -> Dialog {
        desk.say("1 reboot\n2 power off\n3 factory reset: as it was flashed");
        Dialog::Act(Self::Power)
    }

    /// Hands on what the host cannot decide alone.
    pub(super) fn asked(desk: &mut Desk, question: &str) -> Dialog {
        desk.say(&format!("\n{question}"));
        Dialog::Act(Self::Asked)
    }

    pub(super) fn restart() -> Dialog {
        Dialog::Act(Self::Confirm(Deed {
            request: Request::Restart,
            question: "Restart the server? Machines that load from it start over. [y/N] ",
            word: None,
            done: "The server is started again.",
        }))
    }

    pub(super) fn stop_netboot() -> Dialog {
        Dialog::Act(Self::Confirm(Deed {
            request: Request::Netboot(false),
            question: "Stop answering machines that boot from the network? [y/N] ",
            word: None,
            done: "Netboot is off until it is started here, or this host starts anew.",
        }))
    }

    pub(super) fn start_netboot(desk: &mut Desk) -> Dialog {
        desk.ask(Request::Netboot(true));
        Dialog::Act(Self::Doing { done: "Netboot is on." })
    }

    pub(super) fn field(&self) -> Field {
        let prompt = match self {
            Self::Power => "Power (1-3; Enter: back): ",
            Self::Confirm(deed) => deed.question,
            Self::Asked => "y or n (Enter: later): ",
            Self::Doing { .. } => "",
        };
        Field::new(Kind::Choice, prompt)
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        match self {
            Self::Power => choose(desk, line),
            Self::Confirm(deed) => {
                let is_meant = deed.word.map_or_else(|| is_yes(line), |word| line.trim() == word);
                if !is_meant {
                    desk.say("Nothing is done.");
                    return menu();
                }
                desk.ask(deed.request);
                Dialog::Act(Self::Doing { done: deed.done })
            }
            Self::Asked if is_yes(line) => answer(desk, true),
            Self::Asked if is_no(line) => answer(desk, false),
            Self::Asked if line.trim().is_empty() => menu(),
            Self::Asked => {
                desk.say("y or n, please.");
                Dialog::Act(self)
            }
            Self::Doing { .. } => Dialog::Act(self),
        }
    }

    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        let (Self::Doing { done }, Answer::Done(said)) = (self, &answer) else { return refused(desk, answer) };
        desk.say(if said.trim().is_empty() { done } else { said });
        menu()
    }
}

fn answer(desk: &mut Desk, is_yes: bool) -> Dialog {
    desk.ask(Request::Answer(is_yes));
    Dialog::Act(Act::Doing { done: "So be it." })
}

fn choose(desk: &mut Desk, line: &str) -> Dialog {
    let deed = match line.trim() {
        "1" => Deed { request: Request::Reboot, question: "Reboot this box? [y/N] ", word: None, done: "It reboots." },
        "2" => Deed {
            request: Request::PowerOff,
            question: "Switch this box off? Somebody has to switch it on again. [y/N] ",
            word: None,
            done: "It switches itself off.",
        },
        "3" => {
            desk.say("The whole configuration goes, what was written to the boot partition by hand too, and so do the images and logs on the data partition.");
            Deed {
                request: Request::FactoryReset,
                question: "Type the word reset to do it: ",
                word: Some("reset"),
                done: "It is as it was delivered, and reboots.",
            }
        }
        _ => return menu(),
    };
    Dialog::Act(Act::Confirm(deed))
}
