//! How the appliance is to be on the network, and what it may change for that.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::SystemTime;

use crate::config::{self, Address};

/// The name that the DHCP server is told, and the machine's own, when nobody has chosen one.
pub const DEFAULT_HOSTNAME: &str = "auroraboot";

/// What `network.*` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `None`: the first with a link on which a DHCP server answers; with a static address the first with a link.
    pub interface: Option<String>,
    pub address: Address,
    /// Of a static address; a DHCP server names its own.
    pub gateway: Option<Ipv4Addr>,
    /// Empty: those that the DHCP server names.
    pub dns: Vec<Ipv4Addr>,
    /// Names or addresses. Empty: those that the DHCP server names, else public ones.
    pub ntp: Vec<String>,
    /// `None`: what the DHCP server says, else [`DEFAULT_HOSTNAME`].
    pub hostname: Option<String>,
}

impl Default for Settings {
    fn default() -> Self {
        let (dns, ntp) = (Vec::new(), Vec::new());
        Self { interface: None, address: Address::Dhcp, gateway: None, dns, ntp, hostname: None }
    }
}

impl From<&config::Network> for Settings {
    fn from(network: &config::Network) -> Self {
        Self {
            interface: (*network.interface).clone(),
            address: *network.address,
            gateway: *network.gateway,
            dns: (*network.dns).clone(),
            ntp: (*network.ntp).clone(),
            hostname: (*network.hostname).clone(),
        }
    }
}

/// Sets the time of day.
pub type SetClock = dyn Fn(SystemTime) -> io::Result<()> + Send;
/// Gives the machine its name.
pub type SetHostname = dyn Fn(&str) -> io::Result<()> + Send;

/// The parts of the machine that the network changes beside its interfaces.
pub struct Machine {
    /// Where the resolver's configuration goes; written beside it and renamed.
    pub resolv_conf: PathBuf,
    /// No time before this is believed.
    pub build_time: SystemTime,
    pub set_clock: Box<SetClock>,
    pub set_hostname: Box<SetHostname>,
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("resolv_conf", &self.resolv_conf).finish_non_exhaustive()
    }
}
