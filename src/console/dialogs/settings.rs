//! Every setting and where it comes from.

use super::{Dialog, menu, refused, say_setting};
use crate::console::desk::Desk;
use crate::console::protocol::Answer;

#[derive(Debug)]
pub(in crate::console) struct Settings;

impl Settings {
    pub(super) fn answer(self, desk: &mut Desk, answer: Answer) -> Dialog {
        match answer {
            Answer::Settings(shown) => {
                shown.iter().for_each(|setting| say_setting(desk, &setting.key, Some(setting)));
                menu()
            }
            other => refused(desk, other),
        }
    }
}
