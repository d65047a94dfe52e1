//! The iPXE scripts that machines run.
//!
//! One script per machine, written for iPXE builds from 2012 (an old ROM) to 2.0: no command in it is newer than `inc`. It is fetched in
//! two ways. As `boot.ipxe` by an iPXE that got the URL by DHCP, so its network is up. As `autoexec.ipxe` by a UEFI iPXE that still
//! uses the firmware's network stack: its own is down, and every fetch ends in "Network unreachable" until it has done `dhcp` (seen
//! with 1.21.1 and 2.0.0 under OVMF). An address alone proves nothing: iPXE takes over the firmware's lease for a card that is not open.

use super::cmdline::{Cmdline, INITRD, Urls};
use super::names::{Names, file};
use crate::units::MacAddr;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddrV4};

/// Whether the iPXE that fetches the script can already fetch more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    Up,
    Down,
}

/// What a machine is to fetch.
#[derive(Debug, Clone, Copy)]
pub struct Fetched<'a> {
    /// The boot set's: kernel, initrd and root file system of one machine must be of one set, also when another takes its place meanwhile.
    pub version: &'a str,
    pub has_config: bool,
}

/// The script that boots `mac` with what `server` serves.
#[must_use]
pub fn boot(
    names: &Names,
    server: SocketAddrV4,
    mac: MacAddr,
    cmdline: &Cmdline,
    fetched: Fetched<'_>,
    network: Network,
) -> String {
    let url = |file| names.url_at(server, mac, &format!("{}/{file}", fetched.version));
    let config_url = fetched.has_config.then(|| url(file::CLOUD_CONFIG));
    let rootfs_url = url(file::ROOTFS);
    let line = cmdline.render(mac, Urls { rootfs: &rootfs_url, cloud_config: config_url.as_deref() });
    let mut script = format!("#!ipxe\necho AuroraBoot: booting {mac} from {server}\nset attempt:int32 0\n");
    // With several cards, only the one that was offered the boot is right; should none match, `dhcp` without a card tries them all.
    script.push_str("set nic:string\n"); // empty, whatever an earlier script left there
    for card in CARDS {
        let _ = writeln!(script, "isset ${{{card}/mac}} && iseq ${{{card}/mac}} {mac} && set nic {card} ||");
    }
    if network == Network::Up {
        script.push_str("goto fetch\n");
    }
    script.push_str(":network\ndhcp ${nic} || goto again\n:fetch\nimgfree ||\n");
    let _ = writeln!(script, "kernel --name kernel {} || goto again", url(file::KERNEL));
    let _ = writeln!(script, "initrd --name initrd0 {} || goto again", url(file::INITRD));
    let _ = writeln!(script, "boot kernel {INITRD}{line} || goto again");
    script.push_str(&again("booting"));
    script
}

/// The script for a UEFI iPXE whose machine is not known by its address: it gets an address itself and asks again by MAC.
#[must_use]
pub fn find_by_mac(server: Ipv4Addr) -> String {
    let mut script =
        "#!ipxe\necho AuroraBoot: looking for the boot script of this machine\nset attempt:int32 0\n".to_owned();
    script.push_str(":network\ndhcp || goto again\n");
    for card in CARDS {
        let url = format!("tftp://{server}/{BY_MAC}/${{{card}/mac:hexhyp}}/{}", file::AUTOEXEC);
        let _ = writeln!(script, "isset ${{{card}/mac}} && chain --autofree {url} && exit ||");
    }
    script.push_str(&again("finding the boot script"));
    script
}

/// Tells what failed (the error itself stands above it on the screen), waits and tries again; gives up for the firmware's next
/// boot device, so that a machine is not stuck for ever when the server has gone.
fn again(what: &str) -> String {
    format!(
        ":again\ninc attempt\niseq ${{attempt}} {ATTEMPTS} && goto give_up ||\n\
         echo AuroraBoot: {what} failed, attempt ${{attempt}} of {ATTEMPTS}; next one in 5 seconds\nsleep 5\ngoto network\n\
         :give_up\necho AuroraBoot: {what} failed {ATTEMPTS} times; leaving to the next boot device\nsleep 10\nexit\n"
    )
}

/// The directory, by TFTP only, under which a machine that does not know its token finds its script.
pub const BY_MAC: &str = "by-mac";
/// The network cards that are looked at.
const CARDS: [&str; 8] = ["net0", "net1", "net2", "net3", "net4", "net5", "net6", "net7"];
const ATTEMPTS: u32 = 6;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Arch;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);
    const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 8090);

    fn script(network: Network) -> String {
        let names = Names::new([1; 32], 8090);
        let fetched = Fetched { version: "v1", has_config: true };
        boot(&names, SERVER, MAC, &Cmdline::new(Arch::Amd64, None).unwrap(), fetched, network)
    }

    #[test]
    fn a_machines_script_names_its_files_at_the_server_it_asked() {
        let script = script(Network::Down);
        let base = format!("http://10.0.0.1:8090/{}/v1", Names::new([1; 32], 8090).token(MAC));
        for line in [
            "#!ipxe".to_owned(),
            format!("kernel --name kernel {base}/kernel || goto again"),
            format!("initrd --name initrd0 {base}/initrd || goto again"),
            "isset ${net1/mac} && iseq ${net1/mac} 52:54:00:12:34:56 && set nic net1 ||".to_owned(),
        ] {
            assert!(script.lines().any(|l| l == line), "{line} is not in\n{script}");
        }
        assert!(script.contains(&format!(" root=live:{base}/rootfs.squashfs ")), "{script}");
        assert!(script.contains(&format!(" config_url={base}/config.yaml ")), "{script}");
        assert!(script.contains("boot kernel initrd=initrd0 "), "{script}");
    }

    #[test]
    fn the_network_is_brought_up_only_where_it_is_down() {
        let first_step = |script: String| {
            let steps: Vec<String> = script.lines().map(str::to_owned).collect();
            let at = steps.iter().position(|line| line.contains("net7")).unwrap();
            steps[at + 1].clone()
        };
        assert_eq!(first_step(script(Network::Up)), "goto fetch");
        assert_eq!(first_step(script(Network::Down)), ":network");
    }

    #[test]
    fn every_label_that_is_gone_to_exists_and_failures_end() {
        for script in [script(Network::Up), script(Network::Down), find_by_mac(Ipv4Addr::LOCALHOST)] {
            for target in script.split("goto ").skip(1) {
                let label = format!(":{}", target.split_whitespace().next().unwrap_or_default());
                assert!(script.lines().any(|line| line == label), "{label} is not in\n{script}");
            }
            assert!(script.ends_with("exit\n") && script.contains("&& goto give_up ||"), "{script}");
            assert!(script.lines().all(|line| !line.trim().is_empty()));
        }
    }
}
