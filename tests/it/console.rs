//! The console as somebody sees it who sits at the other end of the line: a pseudo-terminal, a scripted host, whole transcripts.

mod host;

use auroraboot::console::{Console, Profile};
use auroraboot::daemon::console::{self, Session};
use auroraboot::daemon::stop::Stop;
use auroraboot::limits;
use auroraboot::sys::tty::{BAUD_DEFAULT, Line, Tty, pseudo_terminal, wait_readable};
use host::ScriptedHost;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long what must come is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// Whatever comes in an update of the transcripts has come by then.
const QUIET: Duration = Duration::from_millis(400);

fn profile() -> Profile {
    Profile { title: "auroraboot 0.1.0 on x86-pc".to_owned(), network: true, power: true }
}

/// Runs a session on a pseudo-terminal while `work` sits at its other end.
fn at_the_other_end<T>(host: &ScriptedHost, work: impl FnOnce(&mut File) -> T) -> T {
    let (mut near, path) = pseudo_terminal().unwrap();
    let tty = Tty::open(&Line { path, baud: BAUD_DEFAULT }).unwrap();
    let (wake, waker) = io::pipe().unwrap();
    let stop = Stop::default();
    thread::scope(|scope| {
        let patience = host.patience.unwrap_or(limits::CONSOLE_STUCK_MAX);
        let console = Console::new(profile(), Instant::now());
        let mut session = Session::new(&tty, console, host, patience);
        let (stop, wake) = (&stop, &wake);
        let session = scope.spawn(move || session.run(stop, wake));
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut near)));
        stop.ask();
        drop(waker);
        session.join().unwrap().unwrap();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Reads until that is all, or nothing more comes for so long.
fn read_until(near: &mut File, patience: Duration, mut is_all: impl FnMut(&[u8]) -> bool) -> Vec<u8> {
    let (mut got, mut buffer) = (Vec::new(), [0; 4096]);
    while !is_all(&got) && wait_readable(near.as_fd(), patience) {
        let length = near.read(&mut buffer).unwrap();
        got.extend(&buffer[..length]);
    }
    got
}

/// What came as lines of text: line ends are CR LF, and everything else that is no text has a sign of its own.
fn as_text(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let sign = |c| match c {
        '\u{8}' => '←',
        '\r' => '↵',
        '\u{7}' => '♪',
        c if c != '\n' && c.is_control() => '¿',
        c => c,
    };
    text.chars().map(sign).collect()
}

/// `\r`, `\t` and `\xff` in what is typed.
fn typed(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend(&rest.as_bytes()[..at]);
        let (byte, length) = match rest.as_bytes()[at + 1] {
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'x' => (u8::from_str_radix(&rest[at + 2..at + 4], 16).unwrap(), 4),
            other => panic!("\\{}", char::from(other)),
        };
        bytes.push(byte);
        rest = &rest[at + length..];
    }
    bytes.extend(rest.as_bytes());
    bytes
}

/// Plays a transcript: lines after `<<< ` are typed, those after them are what has to be on the screen, up to the cursor `█`. At the end
/// stands what the host was asked to do. `UPDATE=1` writes what happens instead of comparing it.
fn play(name: &str, host: ScriptedHost) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/console/golden").join(name).with_extension("txt");
    let transcript = fs::read_to_string(&path).unwrap();
    let is_update = std::env::var_os("UPDATE").is_some();
    let (head, rest) = transcript.split_once("<<< ").unwrap();
    let (steps, _) = rest.split_once("\n=== asked\n").unwrap_or((rest, ""));
    let mut played = head.to_owned();
    at_the_other_end(&host, |near| {
        for step in steps.split("\n<<< ") {
            let (keys, expected) = step.split_once('\n').unwrap_or((step, ""));
            near.write_all(&typed(keys)).unwrap();
            let patience = if is_update { QUIET } else { PATIENCE };
            let is_all = |got: &[u8]| !is_update && as_text(got) + "█" == expected;
            let got = as_text(&read_until(near, patience, is_all));
            write!(played, "<<< {keys}\n{got}█\n").unwrap();
            assert!(
                is_update || got + "█" == expected,
                "after {keys:?} of {name}:\n{played}\n--- expected ---\n{expected}"
            );
        }
    });
    writeln!(played, "=== asked").unwrap();
    host.asked.lock().unwrap().iter().for_each(|asked| writeln!(played, "{asked}").unwrap());
    if is_update {
        fs::write(&path, &played).unwrap();
    }
    assert_eq!(played, transcript, "{name}");
}

fn logged() -> Vec<String> {
    let line =
        |n: usize| format!("2026/11/23 06:{n:02}:00 HTTP: 192.168.1.{n} has {}", "the kernel and ".repeat(n % 6));
    (1..=30).map(line).collect()
}

#[test]
fn the_first_minute() {
    play("status", ScriptedHost { machines: 16, ..ScriptedHost::default() });
}

#[test]
fn a_password_stands_before_everything() {
    play("password", ScriptedHost { password: Some("correct horse"), machines: 1, ..ScriptedHost::default() });
}

#[test]
fn machines_and_the_log() {
    let host = ScriptedHost { machines: 30, ..ScriptedHost::default() };
    host.state.lock().unwrap().log = logged();
    play("machines", host);
}

#[test]
fn image_and_cloud_config() {
    play("image", ScriptedHost::default());
}

#[test]
fn the_network_and_other_settings() {
    play("network", ScriptedHost::default());
}

#[test]
fn power_and_the_server() {
    play("power", ScriptedHost::default());
}

#[test]
fn editing_on_the_line() {
    play("editing", ScriptedHost::default());
}

#[test]
fn noise_from_the_line_is_survived() {
    let host = ScriptedHost { machines: 3, ..ScriptedHost::default() };
    at_the_other_end(&host, |near| {
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut noise = vec![0; 64 << 10];
        for byte in &mut noise {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            *byte = (state >> 32) as u8;
        }
        for piece in noise.chunks(512) {
            near.write_all(piece).unwrap();
            read_until(near, Duration::ZERO, |_| false);
        }
        // Whatever it is in by now: silence, Ctrl-C, and it is the menu, or it sleeps and wakes.
        let found = (0..20).any(|_| {
            read_until(near, 2 * limits::CONSOLE_QUIET, |_| false);
            near.write_all(b"\x03\x03\rh\r").unwrap();
            let got = read_until(near, Duration::from_secs(3), |got| as_text(got).contains("Ctrl-C gives up"));
            as_text(&got).contains("Ctrl-C gives up")
        });
        assert!(found);
    });
}

#[test]
fn a_line_that_takes_nothing_is_let_go() {
    let host = ScriptedHost { patience: Some(Duration::from_millis(200)), ..ScriptedHost::default() };
    at_the_other_end(&host, |near| {
        near.write_all(b"\rn\r2\rdhcp\rw\ry\r").unwrap();
        read_until(near, PATIENCE, |got| as_text(got).ends_with("60 s left: "));
        // Each of these shows the prompt again. Nobody reads that, and nobody can confirm the network.
        near.write_all(&[0x0c; 3000]).unwrap();
        let begun = Instant::now();
        while host.asked.lock().unwrap().last().is_none_or(|asked| asked != "RevertNetwork") {
            assert!(begun.elapsed() < PATIENCE);
            thread::yield_now();
        }
        // Some was on its way already; then there is silence until a key begins a new session.
        read_until(near, QUIET, |_| false);
        near.write_all(b"\r").unwrap();
        let got = as_text(&read_until(near, PATIENCE, |got| as_text(got).ends_with("Choice (h: help): ")));
        assert!(got.starts_with("\nauroraboot 0.1.0 on x86-pc"), "{got}");
    });
}

#[test]
fn a_device_that_comes_back_has_its_console_again() {
    let folder = std::env::temp_dir().join(format!("auroraboot-console-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let device: PathBuf = folder.join("ttyUSB0");
    let stop = Stop::default();
    let line = Line { path: device.clone(), baud: BAUD_DEFAULT };
    let console = console::start(line, profile(), Arc::new(ScriptedHost::default()), &stop).unwrap();
    for _ in 0..2 {
        let (mut near, path) = pseudo_terminal().unwrap();
        let _ = fs::remove_file(&device);
        std::os::unix::fs::symlink(path, &device).unwrap();
        let begun = Instant::now();
        let mut got = String::new();
        // What is typed before the console is there is echoed by the terminal itself.
        while !got.contains("Choice (h: help): ") && begun.elapsed() < PATIENCE {
            near.write_all(b"\r").unwrap();
            got += &as_text(&read_until(&mut near, Duration::from_millis(200), |got| as_text(got).contains("help): ")));
        }
        assert!(got.contains("auroraboot 0.1.0 on x86-pc - pxe-box"), "{got}");
        assert!(begun.elapsed() < limits::CONSOLE_REOPEN_WAIT + PATIENCE);
    }
    stop.ask();
    console.join().unwrap();
    fs::remove_dir_all(&folder).unwrap();
}

/// To see it with one's own eyes: `cargo test --test it console::by_hand -- --ignored --nocapture`; `CONSOLE=/dev/pts/7` names another
/// terminal than this one.
#[test]
#[ignore = "for a person at a terminal"]
fn by_hand() {
    let host = ScriptedHost { machines: 30, password: Some("secret"), ..ScriptedHost::default() };
    host.state.lock().unwrap().log = logged();
    let path = std::env::var_os("CONSOLE").unwrap_or_else(|| "/dev/tty".into());
    let tty = Tty::open(&Line { path: path.into(), baud: BAUD_DEFAULT }).unwrap();
    let (wake, _waker) = io::pipe().unwrap();
    let console = Console::new(profile(), Instant::now());
    Session::new(&tty, console, &host, limits::CONSOLE_STUCK_MAX).run(&Stop::default(), &wake).unwrap();
}
