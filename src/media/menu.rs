//! The GRUB menu of a medium, and the short texts that lead to it.
//!
//! The kernel arguments are those of the original's menu: dracut mounts the medium by its label and the squashfs on it, Kairos sees a live
//! system and what it is to do.

use std::fmt::Write as _;

use crate::limits::CMDLINE_BYTES_MAX;
use crate::units::Arch;

/// Volume label of the medium; dracut looks for it, and so does GRUB.
pub const LABEL: &str = "COS_LIVE";
/// Where the menu stands on the medium, and what it starts.
pub const MENU_PATH: &str = "boot/grub2/grub.cfg";
pub const KERNEL_PATH: &str = "boot/kernel";
pub const INITRD_PATH: &str = "boot/initrd";
pub const SQUASHFS_PATH: &str = "rootfs.squashfs";

/// What the operator can change about the menu.
#[derive(Debug, Clone, Copy)]
pub struct MenuOptions<'a> {
    pub arch: Arch,
    /// `iso.live_console`: the `console=` arguments.
    pub live_console: Option<&'a str>,
    /// `iso.extend-live-cmdline`: more kernel arguments for all entries.
    pub extend_cmdline: Option<&'a str>,
}

/// Why there is no menu.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MenuError {
    #[error("{key} contains {character:?}, which GRUB cannot hand to a kernel unchanged")]
    Character { key: &'static str, character: char },
    #[error("{key} has a \" without its second one")]
    Quote { key: &'static str },
    #[error("with {key} a kernel command line of the menu has {bytes} bytes; kernels read {CMDLINE_BYTES_MAX} at most")]
    TooLong { key: &'static str, bytes: usize },
}

const LIVE_CONSOLE: &str = "iso.live_console";
const EXTEND_CMDLINE: &str = "iso.extend-live-cmdline";

/// One line of the menu.
struct Entry {
    title: &'static str,
    hotkey: char,
    /// Whether Kairos keeps away from an installed system's partitions (`rd.cos.disable`).
    live: bool,
    /// What makes this entry do what its title says.
    words: &'static str,
}

/// The first is what happens when nobody is there. It carries two words for one thing: images of 2023 install by themselves on
/// `nodepair.enable` and do not know `install-mode`, today's on either; the same goes for the two words of the interactive installer.
/// An image ignores the word that it does not know, and one default entry serves all of them.
const ENTRIES: [Entry; 6] = [
    Entry {
        title: "Kairos: install as the cloud config says",
        hotkey: 'a',
        live: true,
        words: "install-mode nodepair.enable",
    },
    Entry { title: "Kairos: live system, nothing is installed", hotkey: 'l', live: true, words: "" },
    Entry {
        title: "Kairos: install, asking at the screen",
        hotkey: 'i',
        live: true,
        words: "install-mode-interactive interactive-install",
    },
    Entry { title: "Kairos: recovery from afar", hotkey: 'r', live: true, words: "kairos.remote_recovery_mode" },
    Entry {
        title: "Kairos: start the system installed on this machine",
        hotkey: 's',
        live: false,
        words: "kairos.boot_live_mode",
    },
    Entry {
        title: "Kairos: live system, showing all that goes on at start-up",
        hotkey: 'd',
        live: true,
        words: "console=tty0 rd.debug rd.shell rd.immucore.debug",
    },
];

const RAM_TITLE: &str = "Kairos: run from memory ...";
const RAM_ENTRIES: [Entry; 2] = [
    Entry { title: "Run from memory, disks are left alone", hotkey: 'm', live: true, words: "kairos.ram" },
    Entry {
        title: "Run from memory, partitions for lasting data are created",
        hotkey: 'p',
        live: true,
        words: "kairos.ram kairos.ram.create_partitions",
    },
];

/// What comes before the entries. `serial` and `gfxpayload` only where GRUB is on its own, that is on a BIOS: under UEFI the firmware's
/// console includes its serial lines, and a second driver on the same port would take its keys; the screen is as the firmware set it.
/// 1280x1024 is what the original asks for (as `vga=795`, which GRUB calls deprecated): the QR code of Kairos' installer does not
/// fit on 80x25 characters. A screen that has none of these modes stays in text mode.
const HEAD: &str = "\
set default=0
set timeout=10
set timeout_style=menu
if [ \"$grub_platform\" = pc ]; then
    if serial --unit=0 --speed=115200; then
        terminal_input console serial
        terminal_output console serial
    fi
    set gfxpayload=1280x1024x32,1280x1024x24,1024x768x32,1024x768x24
    export gfxpayload
fi
";

/// What comes after them: a kernel without a framebuffer driver (those for clouds) shows nothing on a screen in a graphics mode.
const TAIL: &str = "\
if [ \"$grub_platform\" = pc ]; then
    menuentry \"Screen: use text mode for what is chosen next\" --hotkey=t {
        set gfxpayload=text
    }
fi
";

/// The menu.
///
/// # Errors
/// When an argument of the operator's cannot be written into it.
pub fn grub_cfg(options: &MenuOptions<'_>) -> Result<String, MenuError> {
    let arguments = Arguments::new(options)?;
    let mut text = HEAD.to_owned();
    for entry in &ENTRIES {
        write_entry(&mut text, "", entry, &arguments);
    }
    let _ = writeln!(text, "submenu \"{RAM_TITLE}\" --hotkey=m {{");
    for entry in &RAM_ENTRIES {
        write_entry(&mut text, "    ", entry, &arguments);
    }
    text.push_str("}\n");
    text.push_str(TAIL);
    Ok(text)
}

/// What stands at each place where a GRUB looks for its configuration: the way to the menu. The medium is where this GRUB came from (a CD),
/// or has to be found, when it came from the ESP of a USB stick: by its label, because some systems have a /boot/kernel.
#[must_use]
pub fn redirect() -> String {
    format!(
        "if [ ! -f /{KERNEL_PATH} ]; then search --no-floppy --set=root --label {LABEL}; fi\n\
         set prefix=($root)/boot/grub2\n\
         configfile ($root)/{MENU_PATH}\n"
    )
}

/// Runs GRUB from the UEFI shell, where some riscv64 boards end up.
#[must_use]
pub fn startup_nsh(program: &str) -> String {
    let program = program.replace('/', "\\");
    format!(
        "@echo -off\r\nfor %d in fs0 fs1 fs2 fs3 fs4 fs5\r\n  if exist %d:\\{program} then\r\n    %d:\\{program}\r\n  endif\r\nendfor\r\n"
    )
}

/// The operator's part of the kernel arguments, ready for GRUB.
struct Arguments {
    console: String,
    nomodeset: &'static str,
    extension: String,
}

impl Arguments {
    fn new(options: &MenuOptions<'_>) -> Result<Self, MenuError> {
        let console = options.live_console.filter(|text| !text.trim().is_empty());
        let arguments = Self {
            console: words(LIVE_CONSOLE, console.unwrap_or(default_console(options.arch)))?,
            nomodeset: if options.arch == Arch::Amd64 { "nomodeset" } else { "" },
            extension: words(EXTEND_CMDLINE, options.extend_cmdline.unwrap_or_default())?,
        };
        let lines = ENTRIES.iter().chain(&RAM_ENTRIES).map(|entry| arguments.render(entry).len());
        let bytes = lines.max().unwrap_or(0) + "BOOT_IMAGE= ".len() + KERNEL_PATH.len() + 1; // GRUB's own first word
        let key = if arguments.console.len() > arguments.extension.len() { LIVE_CONSOLE } else { EXTEND_CMDLINE };
        if bytes > CMDLINE_BYTES_MAX { Err(MenuError::TooLong { key, bytes }) } else { Ok(arguments) }
    }

    fn render(&self, entry: &Entry) -> String {
        let root = format!("root=live:CDLABEL={LABEL}");
        let squashfs = format!("rd.live.squashimg={SQUASHFS_PATH}");
        let parts = [
            "cdroot",
            &root,
            "rd.live.dir=/",
            &squashfs,
            "net.ifnames=1",
            &self.console,
            if entry.live { "rd.cos.disable" } else { "" },
            self.nomodeset,
            entry.words,
            "selinux=0",
            "rd.live.overlay.overlayfs",
            &self.extension,
        ];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// The last one is `/dev/console`. A kernel passes over those that the machine does not have; arm64 servers and QEMU have a PL011.
const fn default_console(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 | Arch::Riscv64 => "console=ttyS0 console=tty1",
        Arch::Arm64 => "console=ttyAMA0 console=ttyS0 console=tty1",
    }
}

fn write_entry(text: &mut String, indent: &str, entry: &Entry, arguments: &Arguments) {
    let _ = write!(
        text,
        "{indent}menuentry \"{}\" --hotkey={} {{\n\
         {indent}    echo \"Loading the kernel ...\"\n\
         {indent}    linux /{KERNEL_PATH} {}\n\
         {indent}    echo \"Loading the initial RAM disk ...\"\n\
         {indent}    initrd /{INITRD_PATH}\n\
         {indent}}}\n",
        entry.title,
        entry.hotkey,
        arguments.render(entry),
    );
}

/// The operator's kernel arguments as words of a GRUB script. Line ends are blanks, for a value written over several lines; between
/// double quotes blanks belong to the word, as the kernel reads its line (`parse_args`). GRUB puts such quotes around a word with a blank
/// itself, and a backslash before each quote and backslash in it, which the kernel does not take away again: these are refused.
fn words(key: &'static str, text: &str) -> Result<String, MenuError> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in text.chars() {
        match character {
            '"' => quoted = !quoted,
            ' ' | '\t' | '\r' | '\n' if !quoted => words.push(String::new()),
            '\'' | '\\' => return Err(MenuError::Character { key, character }),
            _ if character.is_control() => return Err(MenuError::Character { key, character }),
            _ => words.last_mut().into_iter().for_each(|word| word.push(character)),
        }
    }
    if quoted {
        return Err(MenuError::Quote { key });
    }
    let words = words.into_iter().filter(|word| !word.is_empty());
    Ok(words.map(|word| if is_plain(&word) { word } else { format!("'{word}'") }).collect::<Vec<_>>().join(" "))
}

/// Whether a word means nothing to GRUB's script language.
fn is_plain(word: &str) -> bool {
    word.chars().all(|c| c.is_ascii_alphanumeric() || "=.,:/_-+@%".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: MenuOptions<'static> = MenuOptions { arch: Arch::Amd64, live_console: None, extend_cmdline: None };

    fn kernel_lines(options: &MenuOptions<'_>) -> Vec<String> {
        let text = grub_cfg(options).unwrap();
        text.lines().filter_map(|line| line.trim().strip_prefix("linux /boot/kernel ")).map(str::to_owned).collect()
    }

    #[test]
    fn the_first_entry_installs() {
        assert_eq!(
            kernel_lines(&PLAIN)[0],
            "cdroot root=live:CDLABEL=COS_LIVE rd.live.dir=/ rd.live.squashimg=rootfs.squashfs net.ifnames=1 console=ttyS0 console=tty1 \
             rd.cos.disable nomodeset install-mode nodepair.enable selinux=0 rd.live.overlay.overlayfs"
        );
    }

    #[test]
    fn every_entry_does_one_thing() {
        let lines = kernel_lines(&PLAIN);
        assert_eq!(lines.len(), 8);
        let having = |word: &str| -> Vec<usize> {
            (0..lines.len()).filter(|&n| lines[n].split(' ').any(|other| other == word)).collect()
        };
        assert_eq!(having("install-mode"), [0]);
        assert_eq!(having("install-mode-interactive"), [2]);
        assert_eq!(having("kairos.remote_recovery_mode"), [3]);
        assert_eq!(having("kairos.boot_live_mode"), [4]);
        assert_eq!(having("rd.cos.disable"), [0, 1, 2, 3, 5, 6, 7]);
        assert_eq!(having("rd.immucore.debug"), [5]);
        assert_eq!(having("kairos.ram"), [6, 7]);
        assert_eq!(having("kairos.ram.create_partitions"), [7]);
    }

    #[test]
    fn consoles_and_modes_by_architecture() {
        let arm = MenuOptions { arch: Arch::Arm64, ..PLAIN };
        assert!(kernel_lines(&arm).iter().all(|line| line.contains("console=ttyAMA0 ") && !line.contains("nomodeset")));
        let own = MenuOptions { live_console: Some("console=ttyS1,115200\n"), ..PLAIN };
        assert!(kernel_lines(&own).iter().all(|line| line.contains(" net.ifnames=1 console=ttyS1,115200 ")), "{own:?}");
        assert!(!kernel_lines(&own)[0].contains("tty1"), "the operator's consoles and no others");
    }

    #[test]
    fn the_operators_arguments_cannot_leave_their_line() {
        let extended = |extension: &str| {
            let options = MenuOptions { extend_cmdline: Some(extension), ..PLAIN };
            grub_cfg(&options).map(|_| kernel_lines(&options)[0].split_once("overlayfs").unwrap().1.to_owned())
        };
        assert_eq!(extended("a=1\r\n  b\n").unwrap(), " a=1 b");
        assert_eq!(extended("x}; reboot; # $y").unwrap(), " 'x};' 'reboot;' '#' '$y'");
        assert_eq!(extended("dyndbg=\"file x +p\" q").unwrap(), " 'dyndbg=file x +p' q");
        assert_eq!(extended("a\"b"), Err(MenuError::Quote { key: EXTEND_CMDLINE }));
        for character in ['\'', '\\', '\u{1b}', '\0'] {
            assert_eq!(
                extended(&format!("a{character}")),
                Err(MenuError::Character { key: EXTEND_CMDLINE, character })
            );
        }
    }

    #[test]
    fn a_line_that_kernels_would_cut_is_refused() {
        let fixed = kernel_lines(&PLAIN).iter().map(String::len).max().unwrap() + "BOOT_IMAGE=/boot/kernel ".len();
        let most = "x".repeat(CMDLINE_BYTES_MAX - fixed - 1);
        let fits = MenuOptions { extend_cmdline: Some(&most), ..PLAIN };
        assert!(grub_cfg(&fits).is_ok());
        let long = format!("{most}x");
        let error = grub_cfg(&MenuOptions { extend_cmdline: Some(&long), ..PLAIN }).unwrap_err();
        assert_eq!(error, MenuError::TooLong { key: EXTEND_CMDLINE, bytes: CMDLINE_BYTES_MAX + 1 });
    }
}
