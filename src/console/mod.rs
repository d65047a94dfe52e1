//! The console on a serial line: what is typed, what is shown, what is asked of the host.
//!
//! Made for a dumb terminal at 115200 baud: lines with CR LF, no cursor addressing, nothing drawn until a key is pressed. No device, no
//! clock and no thread is in here: bytes come in, bytes and [`Request`]s go out, [`Answer`]s come back.
//!
//! Whatever comes costs a bounded amount: what is typed while an answer is awaited, what waits to be shown, each line and each paste have
//! their limits, and no page is turned but by a key.

mod desk;
mod dialogs;
mod keys;
mod line;
mod protocol;
mod screen;
mod text;

pub use protocol::{Answer, Change, Host, HostStatus, InterfaceStatus, Overview, Profile, Request, Secret, Shown};

use crate::limits;
use desk::Desk;
use dialogs::Dialog;
use keys::{Key, Keys};
use line::{Edit, Kind, LineEditor};
use std::collections::VecDeque;
use std::time::Instant;

/// One terminal and whoever sits there.
///
/// After each call: [`Self::poll_output`] and [`Self::poll_request`] until neither has any more; then wait for input, for an answer, or
/// until [`Self::next_deadline`].
#[derive(Debug)]
pub struct Console {
    desk: Desk,
    dialog: Dialog,
    keys: Keys,
    editor: LineEditor,
    /// Bytes that nobody has looked at yet.
    typed: VecDeque<u8>,
    last_input: Instant,
    /// Whether the prompt of a page that is not the last is on the screen.
    shows_more: bool,
}

/// The prompt below a page that is not the last.
const MORE: &str = "-- more (Enter: next page; q: enough) --";

impl Console {
    #[must_use]
    pub fn new(profile: Profile, now: Instant) -> Self {
        Self {
            desk: Desk::new(profile, now),
            dialog: Dialog::Asleep,
            keys: Keys::default(),
            editor: LineEditor::default(),
            typed: VecDeque::new(),
            last_input: now,
            shows_more: false,
        }
    }

    /// Whether more input can be taken without loss.
    #[must_use]
    pub fn wants_input(&self) -> bool {
        self.typed.len() < limits::CONSOLE_TYPED_AHEAD_BYTES_MAX
    }

    /// Takes what was typed; what is more than [`Self::wants_input`] allows for is lost.
    pub fn handle_input(&mut self, now: Instant, bytes: &[u8]) {
        self.desk.now = now;
        self.last_input = now;
        if self.desk.is_deaf || self.dialog.is_locked() {
            return;
        }
        let room = limits::CONSOLE_TYPED_AHEAD_BYTES_MAX.max(bytes.len()).saturating_sub(self.typed.len());
        self.typed.extend(bytes.iter().take(room));
        self.go_on();
    }

    /// Takes the answer to the request that was polled last.
    pub fn handle_answer(&mut self, now: Instant, answer: Answer) {
        self.desk.now = now;
        self.desk.answered();
        self.step(|dialog, desk| dialog.answer(desk, answer));
        self.go_on();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.desk.now = now;
        if self.desk.is_deaf && now >= self.last_input + limits::CONSOLE_QUIET {
            self.desk.is_deaf = false;
        }
        if self.idle_until().is_some_and(|until| until <= now) {
            return self.log_off("Nobody was here for a while.");
        }
        if self.dialog.deadline().is_some_and(|deadline| deadline <= now) && !self.desk.is_awaiting() {
            self.start_line();
            self.step(Dialog::handle_timeout);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called; `None` while nobody is there.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let quiet = self.desk.is_deaf.then(|| self.last_input + limits::CONSOLE_QUIET);
        let dialog = self.dialog.deadline().filter(|_| !self.desk.is_awaiting());
        [quiet, dialog, self.idle_until()].into_iter().flatten().min()
    }

    /// Bytes for the terminal.
    pub fn poll_output(&mut self) -> Option<Vec<u8>> {
        let out = std::mem::take(&mut self.desk.out);
        self.go_on(); // with what was typed, now that there is room
        (!out.is_empty()).then_some(out)
    }

    /// A question to the host, which is to be answered with [`Self::handle_answer`].
    pub fn poll_request(&mut self) -> Option<Request> {
        self.desk.poll_request()
    }

    /// The terminal is gone, or does not take what is shown: nobody is there any more.
    pub fn hang_up(&mut self, now: Instant) {
        self.desk.now = now;
        self.typed.clear();
        self.log_off("");
        self.desk.out.clear();
    }

    fn go_on(&mut self) {
        while !self.desk.is_awaiting()
            && !self.desk.is_deaf
            && self.desk.out.len() < limits::CONSOLE_OUTPUT_BYTES_MAX
            && let Some(byte) = self.typed.pop_front()
        {
            let key = self.keys.push(byte);
            self.desk.noise = self.desk.noise.saturating_add(self.keys.take_noise());
            if let Some(key) = key {
                self.key(key);
            }
        }
        if self.desk.is_deaf || self.dialog.is_locked() {
            self.typed.clear();
        }
    }

    fn key(&mut self, key: Key) {
        if matches!(self.dialog, Dialog::Asleep) {
            if matches!(key, Key::Enter | Key::Char(_)) {
                self.desk.new_line();
                self.desk.turn_page();
                self.step(|_, desk| Dialog::wake(desk));
            }
            return;
        }
        if self.dialog.is_locked() {
            return;
        }
        if self.desk.has_more() {
            return self.turn_page(key);
        }
        if self.dialog.is_following() {
            self.desk.turn_page();
            return self.step(|dialog, desk| dialog.line(desk, ""));
        }
        let field = self.dialog.field(&self.desk);
        match self.editor.key(key, &field, &mut self.desk.out) {
            Edit::Going => {}
            Edit::Line(line) => {
                let was_paste = field.kind == Kind::Paste;
                self.typed_line(|dialog, desk| dialog.line(desk, &line));
                if was_paste && !self.dialog.is_pasting() {
                    self.drop_rest_of_paste();
                }
            }
            Edit::End(line) => self.typed_line(|dialog, desk| dialog.end(desk, &line)),
            Edit::GivenUp => {
                self.desk.out.extend(b"^C");
                self.typed_line(Dialog::give_up);
            }
            Edit::Redraw => {
                self.desk.new_line();
                self.editor.begin(&field, &mut self.desk.out);
            }
        }
    }

    fn typed_line(&mut self, dialog: impl FnOnce(Dialog, &mut Desk) -> Dialog) {
        self.desk.new_line();
        self.desk.turn_page();
        self.step(dialog);
    }

    /// What comes in one go with a line that ends a paste was pasted too, and is no answer to what is asked next.
    fn drop_rest_of_paste(&mut self) {
        if self.typed.iter().any(|byte| !matches!(byte, b'\r' | b'\n' | 0)) {
            self.desk.is_deaf = true; // more of it may be on its way
            self.desk.say("What was pasted behind the line with the dot is left out.");
        }
    }

    /// A key below a page that is not the last.
    fn turn_page(&mut self, key: Key) {
        let is_enough = matches!(key, Key::Char('q' | 'Q') | Key::Interrupt | Key::EndOfInput);
        if !is_enough && !matches!(key, Key::Enter | Key::Char(_)) {
            return;
        }
        self.wipe(MORE.len());
        self.shows_more = false;
        self.desk.turn_page();
        if is_enough {
            self.desk.skip();
        }
        self.step(|dialog, _| dialog);
    }

    /// Has the dialog do something, shows what it said, and asks for what it wants next.
    fn step(&mut self, work: impl FnOnce(Dialog, &mut Desk) -> Dialog) {
        let dialog = std::mem::replace(&mut self.dialog, Dialog::Asleep);
        self.dialog = work(dialog, &mut self.desk);
        self.desk.show();
        if matches!(self.dialog, Dialog::Asleep) {
            return self.fall_asleep();
        }
        if self.desk.has_more() {
            if !std::mem::replace(&mut self.shows_more, true) {
                self.desk.out.extend(MORE.as_bytes());
            }
        } else if !self.desk.is_awaiting() && !self.dialog.is_locked() {
            let field = self.dialog.field(&self.desk);
            self.editor.begin(&field, &mut self.desk.out);
        }
    }

    /// What one leaves is not for the next to find.
    fn fall_asleep(&mut self) {
        self.editor.clear();
        self.editor.forget_history();
        self.desk.drop_more();
        self.desk.nonsense = 0;
        self.shows_more = false;
    }

    fn log_off(&mut self, why: &str) {
        if matches!(self.dialog, Dialog::Asleep) {
            return;
        }
        self.start_line();
        self.step(|dialog, desk| {
            desk.drop_more();
            drop(dialog.give_up(desk));
            desk.drop_more();
            desk.say_if_any(why);
            dialogs::leave(desk)
        });
    }

    /// Goes to the beginning of a line, from wherever the cursor is.
    fn start_line(&mut self) {
        if !self.dialog.is_following() {
            self.desk.new_line();
        }
    }

    fn wipe(&mut self, columns: usize) {
        let out = &mut self.desk.out;
        out.push(b'\r');
        out.extend(std::iter::repeat_n(b' ', columns));
        out.push(b'\r');
    }

    fn idle_until(&self) -> Option<Instant> {
        match self.dialog {
            Dialog::Asleep => None,
            Dialog::Login(_) => Some(self.last_input + limits::CONSOLE_LOGIN_IDLE_MAX),
            _ => Some(self.last_input + limits::CONSOLE_IDLE_MAX),
        }
    }
}

#[cfg(test)]
mod tests;
