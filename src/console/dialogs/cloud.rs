//! The cloud config: pasted, checked, shown back, saved.

use super::apply::Apply;
use super::{Dialog, ask_settings, menu, refused, say_setting};
use crate::console::desk::Desk;
use crate::console::line::{Field, Kind};
use crate::console::protocol::{Answer, Change};
use crate::console::text::count;
use crate::limits;

#[derive(Debug)]
pub(in crate::console) enum Cloud {
    Loading,
    Choice,
    Paste(Paste),
}

/// What came so far.
#[derive(Debug, Default)]
pub(in crate::console) struct Paste {
    text: String,
    /// The rest is swallowed: it must not be taken for choices of the menu.
    is_too_long: bool,
}

impl Cloud {
    pub(super) fn begin(desk: &mut Desk) -> Dialog {
        ask_settings(desk);
        Dialog::Cloud(Self::Loading)
    }

    pub(super) fn field(&self) -> Field {
        match self {
            Self::Loading => Field::default(),
            Self::Choice => Field::new(Kind::Choice, "Cloud config (p or -; Enter: back): "),
            Self::Paste(_) => Field::new(Kind::Paste, ""),
        }
    }

    pub(super) fn line(self, desk: &mut Desk, line: &str) -> Dialog {
        match self {
            Self::Loading => Dialog::Cloud(self),
            Self::Choice => match line.trim() {
                "p" => {
                    desk.say("Paste it now. A line with a single dot, or Ctrl-D, ends it; Ctrl-C gives up.");
                    desk.noise = 0;
                    Dialog::Cloud(Self::Paste(Paste::default()))
                }
                "-" => Apply::begin(desk, Change::CloudConfig(None), menu()),
                _ => menu(),
            },
            Self::Paste(paste) if line == "." => paste.finish(desk),
            Self::Paste(mut paste) => {
                paste.add(line);
                Dialog::Cloud(Self::Paste(paste))
            }
        }
    }

    /// Ctrl-D.
    pub(super) fn end(self, desk: &mut Desk, line: &str) -> Dialog {
        match self {
            Self::Paste(mut paste) => {
                if !line.is_empty() {
                    paste.add(line);
                }
                paste.finish(desk)
            }
            other => other.give_up(desk),
        }
    }

    pub(super) fn give_up(self, desk: &mut Desk) -> Dialog {
        if matches!(self, Self::Paste(_)) {
            desk.is_deaf = true; // the rest of it may still be arriving
            desk.say("Given up; nothing is changed.");
        }
        menu()
    }

    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        let (Self::Loading, Answer::Settings(shown)) = (self, &answer) else { return refused(desk, answer) };
        let of_cloud: Vec<_> = shown.iter().filter(|setting| setting.key.starts_with("cloud_config")).collect();
        if of_cloud.is_empty() {
            desk.say("No cloud config is set.");
        }
        of_cloud.into_iter().for_each(|setting| say_setting(desk, &setting.key, Some(setting)));
        desk.say("\np paste another one\n- take back what was pasted here: the files decide again");
        Dialog::Cloud(Self::Choice)
    }
}

impl Paste {
    fn add(&mut self, line: &str) {
        self.is_too_long |= self.text.len() + line.len() + 1 > limits::CONSOLE_PASTE_BYTES_MAX;
        if !self.is_too_long {
            self.text.push_str(line);
            self.text.push('\n');
        }
    }

    fn finish(self, desk: &mut Desk) -> Dialog {
        if self.is_too_long {
            let max = limits::CONSOLE_PASTE_BYTES_MAX >> 10;
            desk.say(&format!("That is more than the {max} KiB that can be pasted: nothing is changed.\nPut it into a file: on the boot partition, on a stick, beside the configuration."));
            return menu();
        }
        if self.text.trim().is_empty() {
            desk.say("Nothing was pasted; nothing is changed.");
            return menu();
        }
        let (lines, bytes) = (self.text.lines().count() as u64, self.text.len() as u64);
        desk.say(&format!("\nThis came, {}, {}:", count(lines, "line"), count(bytes, "byte")));
        for (index, line) in self.text.lines().enumerate() {
            desk.list(&format!("{:>5}  {line}", index + 1), 7);
        }
        if desk.noise > 0 {
            desk.say(&format!(
                "WARNING: {} that made no text came too and were left out. Look closely: the line is noisy.",
                count(desk.noise, "byte")
            ));
        }
        Apply::begin(desk, Change::CloudConfig(Some(self.text.into_bytes())), Dialog::Cloud(Cloud::Choice))
    }
}
