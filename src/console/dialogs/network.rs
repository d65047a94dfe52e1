//! How this box is on the network.

use super::apply::Apply;
use super::{Dialog, Typed, ask_settings, menu, refused, typed, with_key};
use crate::console::desk::Desk;
use crate::console::line::{Field, Kind};
use crate::console::protocol::{Answer, Change, Shown};

const KEYS: [(&str, &str); 6] = [
    ("network.interface", "Interface, such as eth0 (-: the one where DHCP answers)"),
    ("network.address", "Address: dhcp, or such as 192.168.1.5/24"),
    ("network.gateway", "Gateway, such as 192.168.1.1"),
    ("network.dns", "Name servers, with commas between them"),
    ("network.ntp", "Time servers, with commas between them"),
    ("network.hostname", "Name of this box"),
];

/// The form, and what is filled in and not saved.
#[derive(Debug, Default)]
pub(in crate::console) struct Network {
    shown: Vec<Shown>,
    staged: [Option<Option<String>>; KEYS.len()],
    /// The key whose value is asked for.
    editing: Option<usize>,
}

impl Network {
    pub(super) fn begin(desk: &mut Desk) -> Dialog {
        ask_settings(desk);
        Dialog::Network(Self::default())
    }

    pub(super) fn field(&self) -> Field {
        match self.editing {
            Some(index) => Field::new(Kind::Value, format!("{}: ", KEYS[index].1)),
            None if self.is_changed() => Field::new(Kind::Choice, "1-6 changes one; w saves all; Ctrl-C gives up: "),
            None => Field::new(Kind::Choice, "1-6 changes one; Enter: back: "),
        }
    }

    pub(super) fn line(mut self, desk: &mut Desk, line: &str) -> Dialog {
        if let Some(index) = self.editing.take() {
            match typed(line) {
                Typed::Kept => {}
                Typed::Dropped => self.staged[index] = Some(None),
                Typed::Value(value) => self.staged[index] = Some(Some(value)),
            }
            self.say(desk);
            return Dialog::Network(self);
        }
        match line.trim() {
            "w" if self.is_changed() => {
                let staged = KEYS.iter().zip(&self.staged);
                let keys = staged.filter_map(|((key, _), value)| Some(((*key).to_owned(), value.clone()?))).collect();
                self.editing = None;
                Apply::begin(desk, Change::Network(keys), Dialog::Network(self))
            }
            "" if !self.is_changed() => menu(),
            choice => {
                let index = choice.parse::<usize>().ok().and_then(|number| number.checked_sub(1));
                self.editing = index.filter(|index| *index < KEYS.len());
                match self.editing {
                    Some(_) => desk.say("Enter leaves it, - takes back what was set at consoles."),
                    None => self.say(desk),
                }
                Dialog::Network(self)
            }
        }
    }

    pub(super) fn answer(mut self, desk: &mut Desk, answer: Answer) -> Dialog {
        match answer {
            Answer::Settings(shown) => {
                self.shown = shown;
                self.say(desk);
                Dialog::Network(self)
            }
            other => refused(desk, other),
        }
    }

    fn is_changed(&self) -> bool {
        self.staged.iter().any(Option::is_some)
    }

    /// The form; a star is before what is not saved.
    fn say(&self, desk: &mut Desk) {
        for (index, ((key, _), staged)) in KEYS.iter().zip(&self.staged).enumerate() {
            let name = key.trim_start_matches("network.");
            let setting = with_key(&self.shown, key);
            let (sign, value) = match (staged, setting) {
                (Some(Some(value)), _) => ('*', format!("{value}  (not saved)")),
                (Some(None), _) => ('*', "as the files say  (not saved)".to_owned()),
                (None, Some(setting)) if setting.origin.is_empty() => (' ', setting.value.clone()),
                (None, Some(setting)) => (' ', format!("{}  ({})", setting.value, setting.origin)),
                (None, None) => (' ', "-".to_owned()),
            };
            desk.list(&format!("{sign}{}  {name:<11}{value}", index + 1), 15);
        }
    }
}
