//! The kernel command line of a machine that boots from the network.

use crate::limits;
use crate::units::{Arch, MacAddr};

/// What all machines' command lines have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cmdline {
    arch: Arch,
    custom: Option<String>,
}

/// What belongs to one machine.
#[derive(Debug, Clone, Copy)]
pub struct Urls<'a> {
    pub rootfs: &'a str,
    /// Without a cloud config there is no `config_url`: the agent would wait for it.
    pub cloud_config: Option<&'a str>,
}

/// Why a `netboot.cmdline` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    #[error("netboot.cmdline contains {0:?}; it has to be one line of printable characters")]
    Unprintable(char),
    #[error("netboot.cmdline contains {0:?} as a word of its own, which the boot loader would take for its own syntax")]
    ScriptSyntax(String),
    #[error(
        "netboot.cmdline makes a command line of {bytes} bytes; kernels read {} at most",
        limits::CMDLINE_BYTES_MAX
    )]
    TooLong { bytes: usize },
}

impl Cmdline {
    /// `custom` is the operator's `netboot.cmdline`: it replaces everything but `root=` and `config_url=`.
    ///
    /// # Errors
    /// When it does not fit into an iPXE script or a kernel's command line.
    pub fn new(arch: Arch, custom: Option<&str>) -> Result<Self, CmdlineError> {
        let custom = custom.map(str::trim).filter(|custom| !custom.is_empty());
        if let Some(bad) = custom.and_then(|custom| custom.chars().find(|c| c.is_control())) {
            return Err(CmdlineError::Unprintable(bad));
        }
        if let Some(bad) = custom.and_then(|custom| custom.split(' ').find(|word| ["&&", "||"].contains(word))) {
            return Err(CmdlineError::ScriptSyntax(bad.to_owned()));
        }
        let cmdline = Self { arch, custom: custom.map(str::to_owned) };
        let longest_url = "u".repeat(limits::URL_BYTES_MAX);
        let longest = Urls { rootfs: &longest_url, cloud_config: Some(&longest_url) };
        let bytes = INITRD.len() + cmdline.render(MacAddr([0; 6]), longest).len();
        if bytes > limits::CMDLINE_BYTES_MAX {
            return Err(CmdlineError::TooLong { bytes });
        }
        Ok(cmdline)
    }

    /// The command line of one machine, without the `initrd=` that goes before it.
    #[must_use]
    pub fn render(&self, mac: MacAddr, urls: Urls<'_>) -> String {
        let root = format!("root=live:{}", urls.rootfs);
        let config = urls.cloud_config.map(|url| format!("config_url={url}"));
        let words: Vec<String> = match &self.custom {
            Some(custom) => [Some(root), config, Some(custom.clone())].into_iter().flatten().collect(),
            None => BEFORE_ROOT
                .iter()
                .map(|word| (*word).to_owned())
                .chain([root])
                .chain(INSTALL.iter().map(|word| (*word).to_owned()))
                .chain(config)
                .chain(["console=tty1".into(), format!("console={}", serial_console(self.arch)), "console=tty0".into()])
                .chain([bootif(mac)])
                .collect(),
        };
        words.join(" ")
    }
}

/// The network card to use, in the form PXELINUX gave it: hardware type, then the address. Without it dracut waits for an
/// address on every card of the machine.
fn bootif(mac: MacAddr) -> String {
    format!("BOOTIF=01-{}", mac.to_string().replace(':', "-"))
}

const fn serial_console(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 | Arch::Riscv64 => "ttyS0",
        Arch::Arm64 => "ttyAMA0",
    }
}

/// dracut: a tmpfs over the squashfs (and the mount Kairos installs from), a network before the root, an address by DHCP. Kairos: no
/// active partition is looked for. The last two are what the live medium's own menu sets: the same card names as after installation
/// (kairos-io/kairos#2573) and no SELinux, which Fedora's image cannot start with (kairos-io/kairos#1867).
const BEFORE_ROOT: [&str; 6] =
    ["rd.live.overlay.overlayfs", "rd.neednet=1", "ip=dhcp", "rd.cos.disable", "net.ifnames=1", "selinux=0"];

/// Kairos: this is a live boot over the network, install by itself. Not the menu's `install-mode`, which asks for the same: Kairos'
/// agent reads every word as a path for jq, and one that is none (the dash) makes it drop the whole line, `config_url` with it.
const INSTALL: [&str; 2] = ["netboot", "nodepair.enable"];

/// What the script puts before the line: a kernel started as a UEFI binary finds its initrd by this name.
pub(super) const INITRD: &str = "initrd=initrd0 ";

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0xab]);
    const URLS: Urls<'static> = Urls { rootfs: "http://s/r.squashfs", cloud_config: Some("http://s/c.yaml") };

    #[test]
    fn the_default_line() {
        assert_eq!(
            Cmdline::new(Arch::Amd64, None).unwrap().render(MAC, URLS),
            "rd.live.overlay.overlayfs rd.neednet=1 ip=dhcp rd.cos.disable net.ifnames=1 selinux=0 \
             root=live:http://s/r.squashfs netboot nodepair.enable config_url=http://s/c.yaml \
             console=tty1 console=ttyS0 console=tty0 BOOTIF=01-52-54-00-12-34-ab"
        );
        let arm = Cmdline::new(Arch::Arm64, Some("  ")).unwrap().render(MAC, URLS);
        assert!(arm.contains("console=ttyAMA0 "), "{arm}");
        let bare = Cmdline::new(Arch::Amd64, None).unwrap().render(MAC, Urls { cloud_config: None, ..URLS });
        assert!(!bare.contains("config_url"), "{bare}");
    }

    #[test]
    fn every_key_is_one_that_kairos_agent_can_read() {
        let line = Cmdline::new(Arch::Amd64, None).unwrap().render(MAC, URLS);
        for word in line.split(' ') {
            let key = word.split('=').next().unwrap_or_default();
            let readable = |part: &str| {
                part.starts_with(|c: char| c.is_ascii_alphabetic())
                    && part.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            };
            assert!(key.split('.').all(readable), "{key} is no path for jq");
        }
    }

    #[test]
    fn the_operators_line_replaces_all_but_the_urls() {
        let cmdline = Cmdline::new(Arch::Amd64, Some(" rd.neednet=1 ip=dhcp quiet ")).unwrap();
        assert_eq!(
            cmdline.render(MAC, URLS),
            "root=live:http://s/r.squashfs config_url=http://s/c.yaml rd.neednet=1 ip=dhcp quiet"
        );
    }

    #[test]
    fn what_would_break_the_script_is_refused() {
        assert_eq!(Cmdline::new(Arch::Amd64, Some("a\nshell")), Err(CmdlineError::Unprintable('\n')));
        assert_eq!(Cmdline::new(Arch::Amd64, Some("a || b")), Err(CmdlineError::ScriptSyntax("||".into())));
        assert!(Cmdline::new(Arch::Amd64, Some("a||b")).is_ok());
    }

    #[test]
    fn the_line_is_bounded() {
        let fixed = 2 * limits::URL_BYTES_MAX + "initrd=initrd0 root=live: config_url= ".len();
        let fits = limits::CMDLINE_BYTES_MAX - fixed;
        assert!(Cmdline::new(Arch::Amd64, Some(&"x".repeat(fits))).is_ok());
        let error = Cmdline::new(Arch::Amd64, Some(&"x".repeat(fits + 1)));
        assert_eq!(error, Err(CmdlineError::TooLong { bytes: limits::CMDLINE_BYTES_MAX + 1 }));
    }
}
