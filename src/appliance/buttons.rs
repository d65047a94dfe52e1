//! The power button: of the case (ACPI, a pin of the board), and the key of that name that some keyboards have.
//!
//! The kernel only reports it; without anybody who listens a PC goes off hard after four seconds, and a virtual machine never.

use std::collections::BTreeSet;
use std::ffi::c_ulong;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::thread;

use crate::limits::POWER_BUTTONS_MAX;

/// Listens to every power button there is, and looks for new ones whenever `plugged` says so. Returns when that is closed.
pub fn obey(root: &Path, plugged: &Receiver<()>, press: impl Fn() + Clone + Send + 'static) {
    let mut watched = BTreeSet::new();
    loop {
        for path in find_new(&root.join("sys"), &mut watched) {
            let node = root.join("dev/input").join(path.file_name().unwrap_or_default());
            if let Err(error) = listen(node, press.clone()) {
                log::warn!("the power button {} has no effect: {error}", path.display());
            }
        }
        if plugged.recv().is_err() {
            return;
        }
    }
}

/// Those that are to be `watched` besides; who comes back has another path, as the kernel counts on.
fn find_new(sys: &Path, watched: &mut BTreeSet<PathBuf>) -> Vec<PathBuf> {
    watched.retain(|path| path.exists());
    let mut new = find(sys);
    new.retain(|path| watched.len() < POWER_BUTTONS_MAX && watched.insert(path.clone()));
    new
}

/// The directories of the event devices that have the key.
fn find(sys: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(sys.join("class/input")).into_iter().flatten().flatten();
    let events = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"event"));
    let has_key = |path: &PathBuf| {
        fs::read_to_string(path.join("device/capabilities/key")).is_ok_and(|keys| has_key(&keys, KEY_POWER))
    };
    events.filter_map(|entry| fs::canonicalize(entry.path()).ok()).filter(has_key).collect()
}

/// From linux/input-event-codes.h, as the next two.
const KEY_POWER: u16 = 116;
const EV_KEY: u16 = 1;
const PRESSED: i32 = 1;

/// Whether a bitmap as sysfs writes it, words in hexadecimal with the highest first, has the bit of `key`.
fn has_key(bitmap: &str, key: u16) -> bool {
    let (word, bit) = (u32::from(key) / c_ulong::BITS, u32::from(key) % c_ulong::BITS);
    let word = bitmap.split_whitespace().rev().nth(word as usize);
    word.and_then(|word| c_ulong::from_str_radix(word, 16).ok()).is_some_and(|word| word >> bit & 1 == 1)
}

fn listen(node: PathBuf, press: impl Fn() + Send + 'static) -> io::Result<()> {
    let wait = move || {
        let outcome = File::open(&node).and_then(|mut device| {
            loop {
                wait_for_press(&mut device)?;
                press();
            }
        });
        let Err::<(), _>(error) = outcome else { return };
        log::debug!("{}: {error}", node.display()); // unplugged, most of all
    };
    thread::Builder::new().name("button".to_owned()).spawn(wait).map(drop)
}

/// Reads events until one says that the key was pressed.
fn wait_for_press(device: &mut impl Read) -> io::Result<()> {
    let mut events = [0; 64 * EVENT_BYTES];
    loop {
        let length = match device.read(&mut events) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if events[..length].chunks_exact(EVENT_BYTES).any(is_press) {
            return Ok(());
        }
    }
}

/// `struct input_event` (linux/input.h): the time in two longs, type, code, value. The kernel gives whole ones only.
const EVENT_BYTES: usize = 2 * size_of::<c_ulong>() + 8;

fn is_press(event: &[u8]) -> bool {
    let tail = &event[EVENT_BYTES - 8..];
    let (kind, code) = (u16::from_ne_bytes([tail[0], tail[1]]), u16::from_ne_bytes([tail[2], tail[3]]));
    let value = i32::from_ne_bytes([tail[4], tail[5], tail[6], tail[7]]);
    (kind, code, value) == (EV_KEY, KEY_POWER, PRESSED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::symlink;
    use std::process::Command;
    use std::sync::mpsc::{channel, sync_channel};

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut event = vec![0xff; EVENT_BYTES - 8];
        event.extend([kind.to_ne_bytes(), code.to_ne_bytes()].concat());
        event.extend(value.to_ne_bytes());
        event
    }

    #[test]
    fn a_key_is_found_in_the_kernels_bitmaps() {
        // A PC's button; a keyboard of QEMU's; a mouse; a keyboard's keys for volume and power.
        assert!(has_key("10000000000000 0", KEY_POWER));
        assert!(has_key("402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe", 1));
        assert!(!has_key("1f0000 0 0 0 0", KEY_POWER));
        assert!(has_key("c000 10000000000000 0\n", KEY_POWER));
        for (none, key) in [("", 0), ("0", KEY_POWER), ("xyz 0", KEY_POWER), ("10000000000000 0", KEY_POWER + 1)] {
            assert!(!has_key(none, key), "{none:?}");
        }
    }

    #[test]
    fn only_the_press_of_the_key_counts() {
        let others = [event(0, 0, 0), event(EV_KEY, 115, 1), event(EV_KEY, KEY_POWER, 0), event(4, KEY_POWER, 1)];
        let repeat = event(EV_KEY, KEY_POWER, 2);
        let none = [others.concat(), repeat].concat();
        assert_eq!(wait_for_press(&mut &none[..]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let pressed = [none, event(EV_KEY, KEY_POWER, 1)].concat();
        wait_for_press(&mut &pressed[..]).unwrap();
    }

    /// A machine of files in which each event device is a pipe.
    struct Machine(PathBuf);

    impl Machine {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("auroraboot-buttons-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&root);
            for directory in ["sys/class/input", "dev/input"] {
                fs::create_dir_all(root.join(directory)).unwrap();
            }
            Self(root)
        }

        /// Device `input` with the event device `event`, as they are numbered.
        fn plug(&self, input: u32, event: u32, keys: &str) {
            let device = self.0.join(format!("sys/devices/input{input}"));
            let directory = device.join(format!("event{event}"));
            fs::create_dir_all(device.join("capabilities")).unwrap();
            fs::create_dir_all(&directory).unwrap();
            fs::write(device.join("capabilities/key"), keys).unwrap();
            symlink(&device, directory.join("device")).unwrap();
            symlink(&directory, self.0.join(format!("sys/class/input/event{event}"))).unwrap();
            let node = self.node(event);
            assert!(Command::new("mkfifo").arg(node).status().unwrap().success());
        }

        fn unplug(&self, input: u32, event: u32) {
            fs::remove_file(self.0.join(format!("sys/class/input/event{event}"))).unwrap();
            fs::remove_dir_all(self.0.join(format!("sys/devices/input{input}"))).unwrap();
            fs::remove_file(self.node(event)).unwrap();
        }

        fn node(&self, event: u32) -> PathBuf {
            self.0.join(format!("dev/input/event{event}"))
        }

        /// Waits until somebody listens; what is written stays with the pipe as long as it is open.
        fn press(&self, event: u32) -> File {
            let mut pipe = File::options().write(true).open(self.node(event)).unwrap();
            pipe.write_all(&self::event(EV_KEY, KEY_POWER, 1)).unwrap();
            pipe
        }
    }

    impl Drop for Machine {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const BUTTON: &str = "10000000000000 0\n";

    #[test]
    fn a_button_is_obeyed_also_one_that_is_plugged_in_later_or_again() {
        let machine = Machine::new("later");
        let (plug, plugged) = channel();
        let (press, pressed) = sync_channel(9);
        machine.plug(1, 0, BUTTON);
        machine.plug(2, 1, "1f0000 0 0 0 0\n");
        let root = machine.0.clone();
        let obeying = thread::spawn(move || obey(&root, &plugged, move || press.send(()).unwrap()));
        let first = machine.press(0);
        pressed.recv().unwrap();
        machine.plug(3, 2, BUTTON);
        plug.send(()).unwrap();
        let _second = machine.press(2);
        pressed.recv().unwrap();
        // The same name again, before anybody has looked.
        machine.unplug(1, 0);
        machine.plug(4, 0, BUTTON);
        plug.send(()).unwrap();
        let _again = machine.press(0);
        pressed.recv().unwrap();
        drop((first, plug));
        obeying.join().unwrap();
        assert!(pressed.try_recv().is_err());
    }

    #[test]
    fn only_so_many_buttons_are_listened_to() {
        let machine = Machine::new("many");
        let all = POWER_BUTTONS_MAX as u32 + 5;
        (0..all).for_each(|number| machine.plug(number, number, BUTTON));
        let sys = machine.0.join("sys");
        let mut watched = BTreeSet::new();
        assert_eq!(find_new(&sys, &mut watched).len(), POWER_BUTTONS_MAX);
        assert!(find_new(&sys, &mut watched).is_empty());
        let gone = watched.iter().take(3).cloned().collect::<Vec<_>>();
        gone.iter().for_each(|path| fs::remove_dir_all(path).unwrap());
        assert_eq!(find_new(&sys, &mut watched).len(), 3);
    }
}
