//! The texts of `--help` and `--version`.

use super::flags::{FLAGS, Id, Verb};
use crate::config::keys::{self, Support};

/// The text of `--version`, without a line end.
#[must_use]
pub const fn version() -> &'static str {
    concat!("auroraboot ", env!("CARGO_PKG_VERSION"))
}

fn help() -> String {
    let mut text = String::from(
        "Brings machines up out of an image and a cloud config: over the network, and by an ISO for sticks.\n\n\
         Usage: auroraboot [CONFIG] [--set KEY=VALUE]... [--cloud-config FILE|URL|-]\n       \
         auroraboot pull [CONFIG] [--set KEY=VALUE]...   fetch all that a run without a network needs\n       \
         auroraboot cache [list|verify|prune]     what is kept in state_dir; see cache --help\n       \
         auroraboot flash [FILE] --to DEV[,DEV]   write an ISO or image to USB sticks; see flash --help\n\n\
         Arguments:\n  [CONFIG]  The configuration file: a path, a URL, or - for standard input\n\n\
         Flags:\n",
    );
    list_flags(&mut text, Verb::Run);
    text.push_str("\nKeys of CONFIG and --set:\n");
    for key in keys::with(Support::Now) {
        text.push_str(&format!("  {:28}{}\n", key.name, key.help));
    }
    text.push_str(
        "\nImages:\n  \
         NAME[:TAG]                  In this host's Docker or podman if it has it, else in the registry\n  \
         docker://NAME, registry://NAME          Only there\n  \
         docker-archive:FILE[:NAME], oci-archive:FILE[:TAG], oci:DIR[:TAG]    An archive, a layout\n  \
         dir:PATH                    A root file system on this host\n  \
         iso:PATH|URL                An ISO\n",
    );
    text.push_str(
        "\nExamples:\n  \
         auroraboot --set container_image=quay.io/kairos/core-rockylinux:v1.5.0 --cloud-config config.yaml\n  \
         auroraboot aurora.yaml --set netboot.allow=52:54:00 --dry-run\n\n\
         Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.\n",
    );
    text
}

/// The text of a command's `--help`.
#[must_use]
pub fn help_of(verb: Verb) -> String {
    match verb {
        Verb::Run => help(),
        Verb::Pull => pull(),
        Verb::Cache => cache(),
        Verb::Flash => flash(),
    }
}

fn pull() -> String {
    let mut text = String::from(
        "Fetches all that a later run with the same arguments needs, so that it can do without a network.\n\n\
         Usage: auroraboot pull [CONFIG] [--set KEY=VALUE]... [--cloud-config FILE|URL|-]\n\n\
         Arguments:\n  [CONFIG]  The configuration file: a path, a URL, or - for standard input\n\n\
         Flags:\n",
    );
    list_flags(&mut text, Verb::Pull);
    text.push_str(
        "\nIt goes into state_dir: the layers of an image or the ISO of a release, the ISO made of it, and what\n\
         URLs of the configuration brought. Copy that directory to where there is no network, and run there\n\
         with the same arguments and offline=true. `auroraboot --help` lists the keys.\n\n\
         Examples:\n  \
         auroraboot pull aurora.yaml --set state_dir=/media/usb/state\n  \
         auroraboot aurora.yaml --set state_dir=/media/usb/state --set offline=true\n\n\
         Exit codes: 0 done, 1 failed, 2 the command line or the configuration is wrong.\n",
    );
    text
}

fn cache() -> String {
    let mut text = String::from(
        "Shows, verifies or prunes what is kept of images in state_dir.\n\n\
         Usage: auroraboot cache [list|verify|prune] [CONFIG] [--set state_dir=PATH]\n\n\
         Arguments:\n  \
         list      What is there, why, how big and when it was last used (the default)\n  \
         verify    Hash everything; what is damaged is removed, and fetched again by the next run\n  \
         prune     Remove what no image needs, and the least recently used images above cache_limit\n  \
         [CONFIG]  A configuration file with the state_dir and cache_limit to use\n\n\
         Flags:\n",
    );
    list_flags(&mut text, Verb::Cache);
    text.push_str(
        "\nExamples:\n  \
         auroraboot cache\n  \
         auroraboot cache verify --set state_dir=build\n  \
         auroraboot cache prune --set cache_limit=5GB\n\n\
         Exit codes: 0 all is well, 1 something was damaged or failed, 2 the command line is wrong.\n",
    );
    text
}

fn flash() -> String {
    let mut text = String::from(
        "Writes an ISO or a disk image to USB sticks, reads it back and compares.\n\n\
         Usage: auroraboot flash [FILE] --to DEV[,DEV]... [--yes] [--set state_dir=PATH]\n\n\
         Arguments:\n  [FILE]  An ISO or the image of a disk, unpacked (default: the newest custom ISO in state_dir/iso,\n          \
         which contains the cloud config; without one, the newest other ISO). With a .sha256 file\n          \
         beside it, damage to it is noticed\n\n\
         Flags:\n",
    );
    list_flags(&mut text, Verb::Flash);
    text.push_str(
        "\nWithout --to it lists the sticks that it sees. A disk in use is never written: mounted, swap,\n\
         part of a RAID, LVM or encrypted volume. Of an internal disk the name has to be typed.\n\
         A stick boots only after all of it was read back and found equal.\n\n\
         Examples:\n  \
         auroraboot flash --to /dev/sdb\n  \
         auroraboot flash kairos.iso --to /dev/sdb,/dev/sdc --yes\n  \
         auroraboot flash auroraboot-x86-pc.img --to /dev/sdb\n\n\
         Exit codes: 0 all sticks are good, 1 one is not, 2 refused and nothing written.\n",
    );
    text
}

/// Adds the rows of one command's flags.
fn list_flags(text: &mut String, verb: Verb) {
    for flag in FLAGS.iter().filter(|flag| flag.of.contains(&verb)) {
        let shorts: String = flag.short.iter().take(1).map(|letter| format!("-{letter}, ")).collect();
        let head = format!("  {:4}{} {}", shorts, flag.long, flag.placeholder);
        let help = match (flag.id, verb) {
            (Id::Set, Verb::Flash) => "Only state_dir=PATH, which holds iso/ (default /tmp/auroraboot)",
            (Id::Set, Verb::Cache) => "Only state_dir=PATH (default /tmp/auroraboot) and cache_limit=SIZE",
            _ => flag.help,
        };
        for (row, line) in help.lines().enumerate() {
            let head = if row == 0 { head.trim_end() } else { "" };
            text.push_str(format!("{head:34}{line}").trim_end());
            text.push('\n');
        }
    }
}
