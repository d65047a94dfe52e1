//! Whole dialogs, as traces of keys and screens.

use super::*;
use crate::status::{Machine, Status, Step};
use crate::units::MacAddr;
use std::time::Duration;

/// A terminal that is strict: lines end with CR LF and fit, no screen is longer than it, nothing steers it.
#[derive(Default)]
struct Screen {
    column: usize,
    rows: usize,
    after_cr: bool,
}

impl Screen {
    fn show(&mut self, bytes: &[u8]) {
        for c in std::str::from_utf8(bytes).expect("UTF-8").chars() {
            match c {
                '\r' => self.column = 0,
                '\n' => {
                    assert!(self.after_cr, "a line feed alone");
                    self.rows += 1;
                }
                '\u{8}' => self.column = self.column.checked_sub(1).expect("not beyond the left margin"),
                '\u{7}' => {}
                c => {
                    assert_eq!(text::shown(c), c, "{c:?} is not for a terminal");
                    self.column += text::width(c);
                    assert!(self.column <= 80);
                }
            }
            self.after_cr = c == '\r';
        }
    }
}

/// A console, whoever sits there, and the host.
struct Trace {
    console: Console,
    start: Instant,
    now: Instant,
    screen: Screen,
    /// Everything that was asked but for what only looks.
    asked: Vec<Request>,
    host: fn(&Request) -> Answer,
    is_following: bool,
}

const SOME_LINES: usize = 50;

/// Answers everything, and needs no password.
fn host(request: &Request) -> Answer {
    match request {
        Request::Status => Answer::Status(Box::new(overview(40))),
        Request::Machine(_) => {
            Answer::Machine((0..40).map(|n| Step { at_ms: n * 1100, what: format!("step {n}") }).collect())
        }
        Request::Log => Answer::Log((0..SOME_LINES).map(|n| format!("line {n}")).collect()),
        Request::Settings => {
            let setting = |key: &str| Shown { key: key.into(), value: format!("old {key}"), origin: "file:1".into() };
            Answer::Settings(["container_image", "network.address", "cloud_config"].map(setting).to_vec())
        }
        _ => Answer::Done(String::new()),
    }
}

fn locked_host(request: &Request) -> Answer {
    match request {
        Request::Password(Secret(typed)) if typed != "open" => Answer::Refused("wrong password".into()),
        other => host(other),
    }
}

fn overview(machines: usize) -> Overview {
    let machine = |n: usize| Machine {
        mac: MacAddr([2, 0, 0, 0, 0, n as u8]),
        address: None,
        state: "\u{1b}[31mkernel\r\nsent \u{202e}".into(),
        since: 5,
        last: 2,
    };
    let server = Status { netboot: true, machines: (0..machines).map(machine).collect(), ..Status::default() };
    let host = HostStatus { name: "\u{9b}box\u{7}".into(), notices: vec!["bad\nnews".into()], ..HostStatus::default() };
    Overview { host, server: Some(server) }
}

impl Trace {
    fn new(host: fn(&Request) -> Answer) -> Self {
        let start = Instant::now();
        let profile = Profile { title: "box 1.0".into(), network: true, power: true };
        let (console, screen) = (Console::new(profile, start), Screen::default());
        Self { console, start, now: start, screen, asked: Vec::new(), host, is_following: false }
    }

    /// One who is in, and sees the menu.
    fn awake(host: fn(&Request) -> Answer) -> Self {
        let mut trace = Self::new(host);
        trace.send(b"\r");
        assert!(matches!(trace.console.dialog, Dialog::Menu(_)));
        trace
    }

    /// What is shown for these bytes.
    fn send(&mut self, bytes: &[u8]) -> String {
        let mut shown = String::new();
        for byte in bytes {
            self.screen.rows = 0;
            self.console.handle_input(self.now, &[*byte]);
            shown += &self.drain();
        }
        shown
    }

    /// What is shown by itself until then.
    fn wait(&mut self, seconds: f64) -> String {
        let until = self.now + Duration::from_secs_f64(seconds);
        let mut shown = String::new();
        while let Some(deadline) = self.console.next_deadline().filter(|deadline| *deadline <= until) {
            assert!(deadline >= self.now);
            self.now = deadline;
            self.screen.rows = 0;
            self.console.handle_timeout(deadline);
            shown += &self.drain();
            assert_ne!(self.console.next_deadline(), Some(deadline), "a deadline that does not pass");
        }
        self.now = until;
        shown
    }

    fn drain(&mut self) -> String {
        let mut shown = Vec::new();
        loop {
            assert!(self.console.desk.out.len() < 2 * limits::CONSOLE_OUTPUT_BYTES_MAX);
            if let Some(bytes) = self.console.poll_output() {
                self.screen.show(&bytes);
                shown.extend(bytes);
                continue;
            }
            let Some(request) = self.console.poll_request() else { break };
            let answer = (self.host)(&request);
            let looks = [Request::Status, Request::Log, Request::Settings];
            if !looks.contains(&request) && !matches!(request, Request::Machine(_)) {
                self.asked.push(request);
            }
            self.console.handle_answer(self.now, answer);
        }
        assert!(self.screen.rows <= limits::CONSOLE_ROWS || self.is_following, "{} rows", self.screen.rows);
        String::from_utf8(shown).unwrap()
    }

    fn is_asleep(&self) -> bool {
        matches!(self.console.dialog, Dialog::Asleep)
    }

    fn asked(&mut self) -> Vec<Request> {
        self.asked.retain(|request| !matches!(request, Request::Password(_)));
        std::mem::take(&mut self.asked)
    }
}

#[test]
fn nothing_is_drawn_until_a_key_is_pressed() {
    let mut trace = Trace::new(|request| {
        let mut answer = host(request);
        if let Answer::Status(overview) = &mut answer {
            overview.host.notices = vec!["bad\nnews ".repeat(40); 5];
        }
        answer
    });
    assert_eq!(trace.wait(100_000.0), "");
    assert_eq!(trace.send(b"\0\xff\x13\x1b[A\x03\x04\x7f\xc3\xc3"), "", "noise is no key");
    assert_eq!(trace.console.next_deadline(), None);
    let shown = trace.send(b"\r");
    assert!(shown.starts_with("\r\nbox 1.0 - ?box?\r\n"), "{shown:?}");
    assert!(shown.ends_with("Choice (h: help): ") && shown.contains("c cloud config"), "{shown}");
    assert!(shown.contains("?[31mkernel"), "{shown}");
    assert!(
        shown.contains("... and 37 more (m lists them)") && shown.contains("... 3 more (s shows them)\r\n"),
        "{shown}"
    );
}

#[test]
fn the_overview_fills_one_screen_and_no_more() {
    let profile = Profile { title: "box 1.0".into(), network: true, power: true };
    let mut busy = overview(40);
    busy.host.notices.truncate(1);
    for machines in [0, 1, 3, 11, 12, 13, 40] {
        busy.server.as_mut().unwrap().machines = overview(machines).server.unwrap().machines;
        let rows = screen::overview(&profile, &busy, false);
        assert!(rows.len() + 1 + dialogs::MENU_ROWS < limits::CONSOLE_ROWS, "{machines}: {rows:#?}");
        let listed = rows.iter().filter(|row| row.contains("02:00:00")).count();
        let more = machines - listed;
        assert_eq!(
            more > 0,
            rows.last().unwrap().ends_with(&format!("... and {more} more (m lists them)")),
            "{rows:#?}"
        );
    }
}

#[test]
fn a_password_is_asked_for_and_wrong_ones_take_longer_and_longer() {
    let mut trace = Trace::new(locked_host);
    assert!(trace.send(b"x").ends_with("box 1.0\r\nPassword: "));
    assert_eq!(trace.send(b"\r"), "\r\nPassword: ", "no try");
    for _ in 0..2 {
        assert_eq!(trace.send(b"nope\r"), "\r\nNot accepted: wrong password\r\nPassword: ");
    }
    let mut wait = limits::CONSOLE_PASSWORD_WAIT.as_secs();
    for _ in 0..9 {
        assert!(trace.send(b"nope\r").ends_with(&format!("Too many wrong passwords: wait {wait} s.\r\n")));
        assert_eq!(trace.send(b"open\r\x03"), "", "nobody is heard");
        let shown = trace.wait(wait as f64);
        if shown.contains("Logged off") {
            assert!(wait > limits::CONSOLE_LOGIN_IDLE_MAX.as_secs());
            trace.send(b"\r");
        }
        wait = (2 * wait).min(limits::CONSOLE_PASSWORD_WAIT_MAX.as_secs());
    }
    trace.send(b"nope\r");
    trace.wait(limits::CONSOLE_LOGIN_IDLE_MAX.as_secs_f64());
    assert!(trace.is_asleep());
    assert!(trace.send(b"\r").contains("wait 240 s"), "going away does not shorten it");
    trace.wait(300.0);
    trace.send(b"\r");
    let shown = trace.send(b"open\r");
    assert!(shown.contains("c cloud config") && !shown.contains("open"), "{shown}");
    assert!(!trace.send(b"\x1b[A\x1b[A").contains("open"), "not in the history");
}

#[test]
fn whoever_goes_away_is_logged_off_and_leaves_nothing() {
    let mut trace = Trace::awake(host);
    trace.send(b"e\rsecret key\r\r");
    assert_eq!(trace.wait(limits::CONSOLE_IDLE_MAX.as_secs_f64() - 1.0), "");
    assert!(trace.wait(1.0).ends_with("Nobody was here for a while.\r\nLogged off. Any key begins again.\r\n"));
    assert!(trace.is_asleep());
    assert_eq!(trace.wait(100_000.0), "");
    trace.send(b"\r");
    trace.send(b"e\r");
    assert_eq!(trace.send(b"\x1b[A"), "", "no history");
    trace.send(b"\r");
    assert!(trace.send(b"q\r").contains("Logged off"));
    trace.send(b"\r");
    assert!(trace.send(b"\x04").contains("Logged off") && trace.is_asleep());
}

#[test]
fn an_empty_line_refreshes_the_status_but_not_a_thousand_times_a_second() {
    let mut trace = Trace::awake(host);
    assert_eq!(trace.send(b"\r"), "\r\nChoice (h: help): ");
    trace.wait(limits::CONSOLE_REFRESH_MIN.as_secs_f64());
    assert!(trace.send(b"\r").contains("Machines"));
    assert!(trace.send(b"s\r").contains("Machines"), "who asks for it gets it");
}

#[test]
fn machines_are_listed_picked_and_shown_step_by_step() {
    let mut trace = Trace::awake(host);
    let shown = trace.send(b"m\r");
    assert!(shown.contains("\r\n   1  02:00:00:00:00:00") && shown.ends_with(MORE), "{shown}");
    assert!(trace.send(b" ").ends_with("back): "));
    let shown = trace.send(b"2\r");
    assert!(shown.contains("02:00:00:00:00:01\r\n") && shown.contains("   1.100 s     1.100 s  step 1\r\n"), "{shown}");
    assert!(trace.send(b"q").ends_with("back): "), "enough");
    assert!(trace.send(b"41\r").contains("a number from 1 to 40"));
    assert!(trace.send(b"02:00:00:00:00:05\r").contains("step 3"));
    trace.send(b"\x03\x03");
    assert!(matches!(trace.console.dialog, Dialog::Menu(_)));
    trace.host = |_| Answer::Refused("the server does not answer".into());
    assert!(trace.send(b"m\r").ends_with("Not possible: the server does not answer\r\nChoice (h: help): "));
}

#[test]
fn settings_are_edited_checked_and_saved() {
    let mut trace = Trace::awake(|request| match request {
        Request::Check(Change::Setting { value: Some(value), .. }) if value == "bad" => {
            Answer::Refused("no port".into())
        }
        Request::Check(_) => Answer::Done("a warning".into()),
        other => host(other),
    });
    assert!(trace.send(b"e\rcontainer_image\r").contains("old container_image  (file:1)"));
    assert!(trace.send(b"bad\r").ends_with("Not accepted: no port\r\nNew value: "));
    assert!(trace.send(b"good\r").ends_with("a warning\r\nSave it? [y/N] "));
    assert!(trace.send(b"y\r").contains("Saved"));
    let change = |key: &str, value: Option<&str>| Change::Setting { key: key.into(), value: value.map(str::to_owned) };
    assert_eq!(trace.asked().last(), Some(&Request::Save(change("container_image", Some("good")))));
    trace.send(b"e\rx\r-\ry\r");
    assert_eq!(trace.asked().last(), Some(&Request::Save(change("x", None))));
    trace.send(b"e\rx\r\"\"\rn\r");
    assert_eq!(trace.asked(), [Request::Check(change("x", Some("")))], "nothing but y saves");
    let shown = trace.send(b"e\rconsole.password\rpass\rpass\ry\r");
    assert!(!shown.contains("pass\r") && shown.contains("Once more: "), "{shown}");
    assert_eq!(trace.asked().last(), Some(&Request::Save(change("console.password", Some("pass")))));
    assert!(trace.send(b"e\rconsole.password\ra\rb\r").contains("not the same"));
    trace.send(b"\x03");
    trace.send(b"e\rnetwork.address\rdhcp\ry\r");
    assert!(
        matches!(trace.asked().last(), Some(Request::Save(Change::Network(_)))),
        "it is confirmed like one of the form"
    );
    assert!(trace.send(b"y\r").contains("stays"));
    assert!(trace.send(b"v\r").contains("cloud_config              old cloud_config  (file:1)"));
}

#[test]
fn the_image_is_one_of_three_and_the_others_make_way() {
    let mut trace = Trace::awake(host);
    let mut saved = |keys: &[u8]| {
        trace.send(keys);
        trace.asked().pop()
    };
    let settings = |keys: &[(&str, Option<&str>)]| {
        let owned = |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
        Some(Request::Save(Change::Settings(keys.iter().map(owned).collect())))
    };
    assert_eq!(saved(b"i\r1\r a:1 \ry\r"), settings(&[("container_image", Some("a:1"))]));
    assert_eq!(
        saved(b"i\r2\rhttp://h/x.iso\ry\r"),
        settings(&[("iso_url", Some("http://h/x.iso")), ("container_image", Some(""))])
    );
    let release = [
        ("repository", Some("o/n")),
        ("release_version", Some("v1")),
        ("artifact_version", Some("v1+k3s")),
        ("flavor", Some("ubuntu")),
        ("flavor_release", None),
        ("variant", Some("core")),
        ("container_image", Some("")),
        ("iso_url", Some("")),
    ];
    assert_eq!(saved(b"i\r3\ro/n\rv1\r\rv1+k3s\rubuntu\r\rcore\ry\r"), settings(&release));
    let Some(Request::Save(Change::Settings(keys))) = saved(b"i\r-\ry\r") else { panic!("not saved") };
    assert!(keys.len() == release.len() && keys.iter().all(|(_, value)| value.is_none()), "{keys:?}");
    assert_eq!(saved(b"i\r1\r\ri\r\r"), None);
}

#[test]
fn a_change_of_the_network_goes_back_unless_it_is_confirmed() {
    let fill = b"n\r2\r10.0.0.5/8\rw\ry\r";
    type End = fn(&mut Trace) -> String;
    let ends: [(&str, End, Request); 5] = [
        ("stays as it is now", |trace| trace.send(b"y\r"), Request::ConfirmNetwork),
        ("goes back", |trace| trace.send(b"n\r"), Request::RevertNetwork),
        ("goes back", |trace| trace.send(b"\x03"), Request::RevertNetwork),
        ("Not confirmed in time.", |trace| trace.wait(limits::NETWORK_TRIAL.as_secs_f64()), Request::RevertNetwork),
        (
            "",
            |trace| {
                trace.console.hang_up(trace.now);
                trace.drain()
            },
            Request::RevertNetwork,
        ),
    ];
    for (said, end, request) in ends {
        let mut trace = Trace::awake(host);
        let shown = trace.send(fill);
        assert!(shown.contains("*2  address    10.0.0.5/8  (not saved)"), "{shown}");
        assert!(shown.ends_with("Keep it? y keeps it, n goes back, Enter shows the network; 60 s left: "), "{shown}");
        trace.wait(20.0);
        assert!(trace.send(b"\rwhat\r").ends_with("40 s left: "));
        trace.asked();
        let shown = end(&mut trace);
        assert!(shown.contains(said), "{shown}");
        assert_eq!(trace.asked(), [request]);
    }
    let mut trace = Trace::awake(host);
    trace.send(b"n\r6\rbox\rw\ry\r");
    assert_eq!(trace.asked().last(), Some(&Request::ConfirmNetwork), "a name cuts nobody off");
    assert!(trace.send(b"n\r3\r-\r9\rw\rn\r").contains("as the files say  (not saved)"));
    assert_eq!(trace.asked().pop(), Some(Request::Check(Change::Network(vec![("network.gateway".into(), None)]))));
}

#[test]
fn a_refused_network_is_mended_where_it_was() {
    let mut trace = Trace::awake(|request| match request {
        Request::Check(_) => Answer::Refused("no prefix".into()),
        other => host(other),
    });
    assert!(trace.send(b"n\r2\r10.0.0.5\rw\r").contains("Not accepted: no prefix"));
    let shown = trace.send(b"2\r10.0.0.5/8\r");
    assert!(shown.contains("*2  address    10.0.0.5/8"), "{shown}");
}

#[test]
fn a_cloud_config_is_pasted_shown_checked_and_saved() {
    let mut trace = Trace::awake(|request| match request {
        Request::Check(_) => Answer::Done("each machine: installs".into()),
        other => host(other),
    });
    let text = "#cloud-config\r\nusers:\r\n\t- name: é\n- key: \x1b[31m\r\r\n";
    trace.send(b"c\rp\r");
    trace.send(text.as_bytes());
    trace.send(&[b'k'; 200]);
    let shown = trace.send(b"\xff\xfe\r.\r");
    assert!(
        shown.contains("    1  #cloud-config\r\n    2  users:\r\n    3   - name: ?")
            || shown.contains("    3   - name: é\r\n"),
        "{shown}"
    );
    assert!(
        shown.contains("WARNING: 2 bytes that made no text") && shown.contains("each machine: installs"),
        "{shown}"
    );
    trace.send(b"y\r");
    let kept = format!("#cloud-config\nusers:\n\t- name: é\n- key: \n\n{}\n", "k".repeat(200));
    assert_eq!(trace.asked().pop(), Some(Request::Save(Change::CloudConfig(Some(kept.into_bytes())))));
    trace.send(b"c\rp\ra: 1\rb\x04y\r");
    assert_eq!(trace.asked().pop(), Some(Request::Save(Change::CloudConfig(Some(b"a: 1\nb\n".to_vec())))));
    trace.send(b"c\rp\r");
    trace.send(b"many\r".repeat(100).as_slice());
    assert!(trace.send(b".\r").ends_with(MORE));
    let shown = trace.send(b"q");
    assert!(shown.ends_with("each machine: installs\r\nSave it? [y/N] "), "the check is not skipped: {shown}");
    trace.send(b"n\rc\r-\ry\r");
    assert_eq!(trace.asked().pop(), Some(Request::Save(Change::CloudConfig(None))));
    assert!(trace.send(b"c\rp\r\r.\r").contains("Nothing was pasted"));
}

#[test]
fn what_follows_a_paste_that_was_given_up_is_no_choice() {
    let mut trace = Trace::awake(host);
    trace.send(b"c\rp\ra: 1\r");
    assert!(trace.send(b"\x03").contains("Given up"));
    for _ in 0..20 {
        assert_eq!(trace.send(b"p\r1\ry\rq\r"), "");
        trace.wait(limits::CONSOLE_QUIET.as_secs_f64() * 0.9);
    }
    trace.wait(limits::CONSOLE_QUIET.as_secs_f64());
    assert_eq!(trace.asked(), []);
    assert!(trace.send(b"h\r").contains("Ctrl-C"));
}

#[test]
fn what_is_pasted_behind_the_dot_answers_nothing() {
    let mut trace = Trace::awake(host);
    trace.send(b"c\rp\r");
    trace.console.handle_input(trace.now, b"a: 1\r\n.\r\ny\r\nr\r\ny\r\n"); // in one go
    let shown = trace.drain();
    assert!(shown.contains("left out") && shown.ends_with("Save it? [y/N] "), "{shown}");
    assert!(!trace.asked().iter().any(|request| matches!(request, Request::Save(_))));
    assert_eq!(trace.send(b"y\r"), "", "more of it");
    trace.wait(limits::CONSOLE_QUIET.as_secs_f64());
    trace.send(b"y\r");
    assert_eq!(trace.asked().pop(), Some(Request::Save(Change::CloudConfig(Some(b"a: 1\n".to_vec())))));
}

#[test]
fn the_network_of_a_host_that_has_its_own_is_not_set_and_a_password_can_be_emptied() {
    let mut trace = Trace::awake(host);
    trace.console.desk.profile.network = false;
    assert!(trace.send(b"e\rnetwork.address\r").contains("this host's own"));
    assert_eq!(trace.asked(), []);
    trace.send(b"e\rconsole.password\r\"\"\r\"\"\ry\r");
    assert_eq!(
        trace.asked().pop(),
        Some(Request::Save(Change::Setting { key: "console.password".into(), value: Some(String::new()) }))
    );
}

#[test]
fn a_paste_that_is_too_long_is_swallowed_to_its_end() {
    for line in [100, limits::CONSOLE_PASTE_BYTES_MAX] {
        let mut trace = Trace::awake(host);
        trace.send(b"c\rp\r");
        let line = [vec![b'x'; line], b"\rq\r".to_vec()].concat();
        for bytes in line.repeat(limits::CONSOLE_PASTE_BYTES_MAX / line.len() + 1).chunks(999) {
            trace.console.handle_input(trace.now, bytes);
            assert!(trace.console.wants_input());
            trace.screen.rows = 0;
            trace.drain();
        }
        assert!(trace.send(b".\r").contains("more than the 256 KiB that can be pasted"));
        assert_eq!(trace.asked(), []);
        assert!(matches!(trace.console.dialog, Dialog::Menu(_)));
    }
}

#[test]
fn power_the_server_and_netboot_are_confirmed() {
    let mut trace = Trace::awake(host);
    for (keys, request) in [
        (&b"p\r1\ry\r"[..], Request::Reboot),
        (b"p\r2\ry\r", Request::PowerOff),
        (b"p\r3\rreset\r", Request::FactoryReset),
        (b"r\rYES\r", Request::Restart),
        (b"b\ry\r", Request::Netboot(false)),
    ] {
        trace.send(keys);
        assert_eq!(trace.asked(), [request]);
        for byte in [b"n\r", b"\r\r", b"\x03\r"] {
            trace.send(&[&keys[..keys.len() - 2 - 4 * usize::from(keys.ends_with(b"reset\r"))], byte].concat());
            assert_eq!(trace.asked(), [], "{keys:?}");
        }
    }
    trace.host = |request| match request {
        Request::Status => {
            let mut overview = overview(0);
            overview.server.as_mut().unwrap().netboot = false;
            Answer::Status(Box::new(overview))
        }
        Request::Netboot(_) => Answer::Refused("no socket".into()),
        other => host(other),
    };
    assert!(trace.send(b"b\r").contains("Not possible: no socket"));
    assert_eq!(trace.asked(), [Request::Netboot(true)]);
}

#[test]
fn what_the_host_cannot_decide_is_asked() {
    let mut trace = Trace::new(|request| {
        let mut answer = host(request);
        if let Answer::Status(overview) = &mut answer {
            overview.host.question = Some("The data partition is damaged. May it be made anew?".into());
        }
        answer
    });
    assert!(trace.send(b"\r").ends_with("May it be made anew?\r\ny or n (Enter: later): "));
    trace.send(b"\r");
    assert!(trace.send(b"s\r").ends_with("later): "), "it is asked again");
    trace.send(b"perhaps\rs\ry\r");
    trace.send(b"s\rN\r");
    assert_eq!(trace.asked(), [Request::Answer(true), Request::Answer(false)]);
}

#[test]
fn a_plain_host_offers_neither_network_nor_power() {
    let mut trace = Trace::new(host);
    trace.console.desk.profile = Profile { network: false, power: false, ..trace.console.desk.profile.clone() };
    let shown = trace.send(b"\r") + &trace.send(b"h\r");
    assert!(!shown.contains("n network") && !shown.contains("power"), "{shown}");
    assert!(trace.send(b"n\r").contains("no choice \"n\"") && trace.send(b"p\r").contains("no choice \"p\""));
}

#[test]
fn the_log_is_paged_backwards_and_followed() {
    let mut trace = Trace::awake(host);
    let shown = trace.send(b"l\r");
    assert!(
        shown.contains("\nline 49\r\n") && shown.contains("line 28\r\n") && !shown.contains("line 27\r\n"),
        "{shown}"
    );
    assert!(trace.send(b"\r").contains("line 27\r\n"));
    let shown = trace.send(b"\r");
    assert!(shown.contains("line 0\r\n") && shown.ends_with("Log (f: follow; Enter: back): "), "{shown}");
    trace.is_following = true;
    assert!(trace.send(b"f\r").ends_with("line 49\r\n-- following the log; any key stops --\r\n"));
    assert_eq!(trace.wait(3.0), "");
    trace.host = |request| match request {
        Request::Log => Answer::Log((10..SOME_LINES + 2).map(|n| format!("line {n}")).collect()),
        other => host(other),
    };
    assert_eq!(trace.wait(3.0), "line 50\r\nline 51\r\n");
    trace.host = |request| match request {
        Request::Log => Answer::Log((0..500).map(|n| format!("other {n} {}", "x".repeat(200))).collect()),
        other => host(other),
    };
    let shown = trace.wait(1.0);
    assert!(shown.starts_with("... 493 lines left out\r\nother 493 "), "{shown}");
    assert_eq!(trace.send(b"x"), "Choice (h: help): ");
    assert_eq!(trace.wait(10.0), "");
    trace.host = |_| Answer::Log(Vec::new());
    assert!(trace.send(b"l\r").contains("Nothing was logged yet."));
}

#[test]
fn another_programs_prompt_is_not_talked_to_for_ever() {
    let mut trace = Trace::awake(host);
    let mut shown = String::new();
    for _ in 0..limits::CONSOLE_NONSENSE_MAX {
        shown += &trace.send(b"Login incorrect\r");
    }
    assert!(shown.ends_with("Nobody seems to be there.\r\nLogged off. Any key begins again.\r\n"), "{shown}");
    assert_eq!(trace.send(b"login: \r\r\r"), "", "what answers that is not heard");
    trace.wait(limits::CONSOLE_QUIET.as_secs_f64());
    assert!(trace.send(b"\r").contains("c cloud config"), "who comes later is");
}

#[test]
fn what_is_typed_ahead_waits_and_is_bounded() {
    let mut trace = Trace::awake(host);
    trace.console.handle_input(trace.now, b"s\rm\rq1\r");
    trace.console.handle_input(trace.now, &[b'\r'; 3 * limits::CONSOLE_TYPED_AHEAD_BYTES_MAX]);
    assert!(!trace.console.wants_input());
    trace.console.handle_input(trace.now, b"lost");
    assert!(trace.console.typed.len() <= 3 * limits::CONSOLE_TYPED_AHEAD_BYTES_MAX);
    trace.is_following = true; // no rows are counted: the keys came before them
    let shown = trace.drain();
    assert!(shown.contains("step 3") && !shown.contains("lost"));
    assert!(trace.console.wants_input());
}

#[test]
fn an_answer_without_end_is_cut() {
    let mut trace = Trace::awake(|request| match request {
        Request::Machine(_) => {
            Answer::Machine(vec![Step { at_ms: 0, what: "x".repeat(79) }; 2 * limits::CONSOLE_ANSWER_LINES_MAX])
        }
        other => host(other),
    });
    trace.send(b"m\rq1\r");
    let most = limits::CONSOLE_ANSWER_LINES_MAX / 20;
    let pages = (0..=most).take_while(|_| !trace.send(b"\r").ends_with("back): ")).count();
    assert!((800..most).contains(&pages), "{pages}");
}

/// xorshift64, so that a failure comes again.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

#[test]
fn noise_breaks_nothing_and_ctrl_c_leads_back_to_the_menu() {
    let keys = b"smicnvebrlphq123f-w.y\r\r\r\r\r\r\x03\x04\x0c\x1b[A\x7f\x15\x17";
    for seed in 1..=60 {
        let mut trace = Trace::new(host);
        trace.is_following = true;
        let mut noise = noise(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        for turn in 0..400 {
            let length = usize::from(noise.next().unwrap()) % 40;
            // One half is nothing but noise, the other half is noise of somebody who knows the keys.
            let bytes: Vec<u8> = noise.by_ref().take(length).collect();
            let picked = bytes.iter().map(|byte| keys[usize::from(*byte) % keys.len()]).collect();
            let bytes = if turn % 2 == 0 { bytes } else { picked };
            trace.console.handle_input(trace.now, &bytes);
            trace.drain();
            trace.wait(f64::from(noise.next().unwrap()) / 16.0);
        }
        trace.wait(1.0); // the quiet after a paste that was given up
        if trace.is_asleep() {
            trace.send(b"\r");
        }
        trace.send(b"\x03\x03"); // the first one may end a page
        trace.wait(1.0);
        assert!(matches!(trace.console.dialog, Dialog::Menu(_)), "{seed}: {:?}", trace.console.dialog);
        assert!(trace.send(b"h\r").contains("Ctrl-C gives up"), "{seed}");
        assert!(trace.start < trace.now);
    }
}
