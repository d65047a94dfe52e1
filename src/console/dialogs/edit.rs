//! Any setting, by its key.

use super::apply::Apply;
use super::{Dialog, Typed, ask_settings, menu, refused, say_setting, typed, with_key};
use crate::console::desk::Desk;
use crate::console::line::{Field, Kind};
use crate::console::protocol::{Answer, Change};

#[derive(Debug, Clone)]
pub(in crate::console) enum Edit {
    Key,
    /// The settings are on their way, to show what the key is now.
    Loading {
        key: String,
    },
    Value {
        key: String,
    },
    /// A secret is typed twice, for it is not seen.
    Again {
        key: String,
        first: String,
    },
}

impl Edit {
    pub(super) fn begin(desk: &mut Desk) -> Dialog {
        desk.say("Which setting? Its key, such as netboot_http_port (v lists them).");
        Dialog::Edit(Self::Key)
    }

    pub(super) fn field(&self) -> Field {
        let secret = |key: &str| if is_secret(key) { Kind::Secret } else { Kind::Value };
        match self {
            Self::Key => Field::new(Kind::Value, "Key (Enter: back): "),
            Self::Loading { .. } => Field::default(),
            Self::Value { key } => Field::new(secret(key), "New value: "),
            Self::Again { key, .. } => Field::new(secret(key), "Once more: "),
        }
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        match self {
            Self::Key if line.trim().is_empty() => menu(),
            Self::Key if line.trim().starts_with("network.") && !desk.profile.network => {
                desk.say("The network is this host's own; it is not set here.");
                menu()
            }
            Self::Key => {
                let key = line.trim().to_owned();
                ask_settings(desk);
                Dialog::Edit(Self::Loading { key })
            }
            Self::Loading { .. } => Dialog::Edit(self),
            Self::Value { key } => match typed(line) {
                Typed::Kept => {
                    desk.say("Nothing is changed.");
                    menu()
                }
                Typed::Dropped => apply(desk, key, None),
                Typed::Value(value) if is_secret(&key) => {
                    // As it is, blanks at its ends included.
                    let first = if value.is_empty() { value } else { line.to_owned() };
                    Dialog::Edit(Self::Again { key, first })
                }
                Typed::Value(value) => apply(desk, key, Some(value)),
            },
            Self::Again { key, first } if first == line || (first.is_empty() && line.trim() == "\"\"") => {
                apply(desk, key, Some(first))
            }
            Self::Again { key, .. } => {
                desk.say("That was not the same; nothing is changed.");
                Dialog::Edit(Self::Value { key })
            }
        }
    }

    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        let (Self::Loading { key }, Answer::Settings(shown)) = (self, &answer) else { return refused(desk, answer) };
        say_setting(desk, &key, with_key(shown, &key));
        desk.say("Enter leaves it, - takes back what was set at consoles, \"\" makes it empty.");
        Dialog::Edit(Self::Value { key })
    }
}

fn apply(desk: &mut Desk, key: String, value: Option<String>) -> Dialog {
    let back = Dialog::Edit(Edit::Value { key: key.clone() });
    let change =
        if key.starts_with("network.") { Change::Network(vec![(key, value)]) } else { Change::Setting { key, value } };
    Apply::begin(desk, change, back)
}

fn is_secret(key: &str) -> bool {
    key.ends_with("password")
}
