//! How the appliance itself is on the network: `network.*`, which on other hosts is the host's own business.

use super::error::ConfigError;
use super::origin::{Origin, Setting};
use super::resolve::{Settings, interface};
use super::warning::Warning;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The keys below `network`.
#[derive(Debug, Clone)]
pub struct Network {
    /// `None`: the first with a link where a DHCP server answers.
    pub interface: Setting<Option<String>>,
    pub address: Setting<Address>,
    pub gateway: Setting<Option<Ipv4Addr>>,
    /// Empty: those that the DHCP server names.
    pub dns: Setting<Vec<Ipv4Addr>>,
    /// Names or addresses. Empty: those that the DHCP server names, else public ones.
    pub ntp: Setting<Vec<String>>,
    pub hostname: Setting<Option<String>>,
}

/// How the appliance gets its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    Dhcp,
    Static { ip: Ipv4Addr, prefix_length: u8 },
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dhcp => f.write_str("dhcp"),
            Self::Static { ip, prefix_length } => write!(f, "{ip}/{prefix_length}"),
        }
    }
}

impl FromStr for Address {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text.eq_ignore_ascii_case("dhcp") {
            return Ok(Self::Dhcp);
        }
        let (ip, prefix_length) = text.split_once('/').ok_or(())?;
        let (ip, prefix_length): (Ipv4Addr, u8) = (ip.parse().map_err(drop)?, prefix_length.parse().map_err(drop)?);
        let is_host = !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !ip.is_broadcast();
        let host_bits = u32::from(ip) & !mask(prefix_length);
        let is_network = prefix_length < 31 && (host_bits == 0 || host_bits == !mask(prefix_length));
        if is_host && (1..=32).contains(&prefix_length) && !is_network {
            Ok(Self::Static { ip, prefix_length })
        } else {
            Err(())
        }
    }
}

impl Network {
    /// # Errors
    /// The first value that is not what its key takes, or does not go with the others.
    pub(super) fn resolve(settings: &mut Settings) -> Result<Self, ConfigError> {
        const IP: &str = "an IPv4 address, such as 192.168.1.1";
        let network = Self {
            interface: settings.parsed("network.interface", "an interface's name, such as eth0", None, |text| {
                optional(text, interface)
            })?,
            address: settings.parsed(
                "network.address",
                "dhcp, or a host's address with its prefix, such as 192.168.1.5/24",
                Address::Dhcp,
                |text| if text.is_empty() { Some(Address::Dhcp) } else { text.parse().ok() },
            )?,
            gateway: settings.parsed("network.gateway", IP, None, |text| optional(text, |text| text.parse().ok()))?,
            dns: settings.list("network.dns", IP, |text| text.parse().ok())?,
            ntp: settings.list("network.ntp", "a name or an address, such as ntp.example.org", host)?,
            hostname: settings.parsed(
                "network.hostname",
                "a name of letters, digits and hyphens, such as pxe-box",
                None,
                |text| optional(text, |text| host(text).filter(|name| name.len() <= HOSTNAME_MAX)),
            )?,
        };
        network.check_gateway()?;
        Ok(network)
    }

    fn check_gateway(&self) -> Result<(), ConfigError> {
        let (Some(gateway), origin) = (*self.gateway, self.gateway.origin.clone()) else { return Ok(()) };
        let accepted = match *self.address {
            Address::Dhcp => "taken when network.address is dhcp: the DHCP server names the gateway",
            Address::Static { ip, prefix_length } => {
                let network = |ip: Ipv4Addr| u32::from(ip) & mask(prefix_length);
                if network(ip) == network(gateway) && ip != gateway {
                    return Ok(());
                }
                "another address in the network of network.address"
            }
        };
        Err(ConfigError::BadValue { key: "network.gateway", value: gateway.to_string(), origin, accepted })
    }

    /// A warning for each key that was set, for hosts that are no appliance.
    #[must_use]
    pub fn set_without_appliance(&self) -> Vec<Warning> {
        let origins = [
            ("network.interface", &self.interface.origin),
            ("network.address", &self.address.origin),
            ("network.gateway", &self.gateway.origin),
            ("network.dns", &self.dns.origin),
            ("network.ntp", &self.ntp.origin),
            ("network.hostname", &self.hostname.origin),
        ];
        let is_set = origins.into_iter().filter(|(_, origin)| **origin != Origin::Default);
        is_set.map(|(key, origin)| Warning::OfAppliance { key, origin: origin.clone() }).collect()
    }
}

/// `__NEW_UTS_LEN` of the kernel, and one label of RFC 1123 §2.1.
const HOSTNAME_MAX: usize = 63;

/// An empty text takes back what a weaker layer says.
fn optional<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text).map(Some) }
}

/// The host bits are 0.
fn mask(prefix_length: u8) -> u32 {
    u32::MAX.checked_shl(32_u32.saturating_sub(prefix_length.into())).unwrap_or(0)
}

/// A name of RFC 1123 §2.1, or an address.
fn host(text: &str) -> Option<String> {
    let label = |label: &str| {
        let plain = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        (1..=63).contains(&label.len()) && plain && !label.starts_with('-') && !label.ends_with('-')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::node::Node;

    fn network(keys: &[(&'static str, &str)]) -> Result<Network, String> {
        let mut settings = Settings::default();
        for (key, value) in keys {
            settings.set(key, Setting { value: Node::Text((*value).to_owned()), origin: Origin::Set });
        }
        Network::resolve(&mut settings).map_err(|error| error.to_string())
    }

    #[test]
    fn addresses_are_dhcp_or_a_host_with_its_prefix() {
        assert_eq!("DHCP".parse(), Ok(Address::Dhcp));
        let address = Address::Static { ip: Ipv4Addr::new(192, 168, 1, 5), prefix_length: 24 };
        assert_eq!("192.168.1.5/24".parse(), Ok(address));
        assert_eq!(address.to_string(), "192.168.1.5/24");
        assert!("10.0.0.0/31".parse::<Address>().is_ok() && "10.0.0.1/32".parse::<Address>().is_ok());
        for bad in
            ["192.168.1.5", "192.168.1.0/24", "192.168.1.255/24", "127.0.0.1/8", "1.2.3.4/33", "1.2.3.4/0", "x/24"]
        {
            assert_eq!(bad.parse::<Address>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn what_does_not_go_together_is_told() {
        let address = ("network.address", "192.168.1.5/24");
        assert_eq!(
            *network(&[address, ("network.gateway", "192.168.1.1")]).unwrap().gateway,
            Some([192, 168, 1, 1].into())
        );
        for (keys, message) in [
            (&[("network.gateway", "192.168.1.1")][..], "is not taken when network.address is dhcp"),
            (&[address, ("network.gateway", "192.168.2.1")], "another address in the network of network.address"),
            (&[address, ("network.gateway", "192.168.1.5")], "another address in the network of network.address"),
            (&[("network.address", "192.168.1.5")], "192.168.1.5/24"),
            (&[("network.dns", "8.8.8.8,nine")], "an IPv4 address"),
            (&[("network.hostname", "a_b")], "letters, digits and hyphens"),
        ] {
            let error = network(keys).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn an_empty_value_takes_back_what_was_set() {
        let keys = [
            "network.interface",
            "network.address",
            "network.gateway",
            "network.dns",
            "network.ntp",
            "network.hostname",
        ];
        let network = network(&keys.map(|key| (key, ""))).unwrap();
        assert_eq!((&*network.interface, *network.address, *network.gateway), (&None, Address::Dhcp, None));
        assert!(network.dns.is_empty() && network.ntp.is_empty() && network.hostname.is_none());
        assert_eq!(network.set_without_appliance().len(), 6);
    }
}
