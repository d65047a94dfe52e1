//! What the machine has of a lease or of static settings: address, route, resolver, name.

use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::settings::{DEFAULT_HOSTNAME, Machine, Settings};
use crate::dhcp::lease::Lease;
use crate::limits;
use crate::sys::netlink::{self, Address, DefaultRoute, Interface};

/// Of our default route; routes that others make without one (0) come first.
const ROUTE_METRIC: u32 = 100;

/// The kernel takes an address away by itself should nobody else do it: it counts whole seconds and must not come first.
const KERNEL_GRACE: Duration = Duration::from_secs(5);

/// How the machine is to be on the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub interface: u32,
    pub address: Address,
    pub gateway: Option<Ipv4Addr>,
    pub dns: Vec<Ipv4Addr>,
    pub domain: Option<String>,
    pub mtu: Option<u16>,
    pub hostname: String,
    /// When the address is to go; `None`: never.
    pub until: Option<Instant>,
}

impl Plan {
    /// What a DHCP server says, where the settings do not say otherwise.
    pub fn of_lease(settings: &Settings, interface: u32, lease: &Lease, until: Option<Instant>) -> Self {
        let dns = if settings.dns.is_empty() { &lease.dns } else { &settings.dns };
        let hostname = settings.hostname.as_ref().or(lease.hostname.as_ref());
        Self {
            interface,
            address: Address { ip: lease.address, prefix_length: lease.prefix_length },
            gateway: lease.gateway,
            dns: dns.clone(),
            domain: lease.domain.clone(),
            mtu: lease.mtu,
            hostname: hostname.map_or(DEFAULT_HOSTNAME, String::as_str).to_owned(),
            until,
        }
    }

    /// What the settings alone say.
    pub fn of_static(settings: &Settings, interface: u32, address: Address) -> Self {
        Self {
            interface,
            address,
            gateway: settings.gateway,
            dns: settings.dns.clone(),
            domain: None,
            mtu: None,
            hostname: settings.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME).to_owned(),
            until: None,
        }
    }

    fn route(&self) -> Option<DefaultRoute> {
        let interface = self.interface;
        self.gateway.map(|gateway| DefaultRoute { interface, gateway, metric: ROUTE_METRIC })
    }
}

/// What was set so far, so that it can be changed and taken back.
#[derive(Debug, Default)]
pub struct Installed {
    plan: Option<Plan>,
    /// Interface and MTU from before ours was set.
    mtu_before: Option<(u32, u32)>,
    resolv_conf: Option<String>,
    hostname: Option<String>,
}

impl Installed {
    pub const fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// Brings the machine in line with `plan`; what is so already is only confirmed. Returns what failed, a sentence each.
    pub fn install(&mut self, machine: &Machine, interface: &Interface, plan: Plan, now: Instant) -> Vec<String> {
        let mut failed = Vec::new();
        let mut note = |what: &str, result: io::Result<()>| {
            if let Err(error) = result {
                failed.push(format!("{}: cannot set {what}: {error}", interface.name));
            }
        };
        let same_place =
            |old: &Plan| old.interface == plan.interface && old.address == plan.address && old.gateway == plan.gateway;
        // The old address goes first: the new one would be its secondary, which the kernel takes away with its primary.
        if self.plan.as_ref().is_some_and(|old| !same_place(old)) {
            self.take_back();
        }
        let lifetime = plan.until.map(|until| until.saturating_duration_since(now) + KERNEL_GRACE);
        note("the address", netlink::replace_address(plan.interface, plan.address, lifetime));
        note("the MTU", self.set_mtu(interface, &plan));
        if let Some(route) = plan.route() {
            note("the default route", netlink::replace_default_route(route, plan.address.ip));
        }
        note("the name servers", self.write_resolver(machine, &resolv_conf(&plan)));
        note("the hostname", self.set_hostname(machine, &plan.hostname));
        self.plan = Some(plan);
        failed
    }

    /// Takes the address and its route away; resolver and name stay until there are others.
    pub fn remove(&mut self) {
        self.take_back();
        self.plan = None;
    }

    /// Names the machine.
    pub fn set_hostname(&mut self, machine: &Machine, name: &str) -> io::Result<()> {
        if self.hostname.as_deref() != Some(name) {
            (machine.set_hostname)(name)?;
            self.hostname = Some(name.to_owned());
        }
        Ok(())
    }

    pub fn hostname(&self) -> &str {
        self.hostname.as_deref().unwrap_or_default()
    }

    fn take_back(&mut self) {
        let Some(old) = &self.plan else { return };
        // Errors mean that the interface is gone, and with it all this.
        if let Some(route) = old.route() {
            let _ = netlink::delete_default_route(route);
        }
        let _ = netlink::delete_address(old.interface, old.address);
        if let Some((interface, mtu)) = self.mtu_before.take() {
            let _ = netlink::set_mtu(interface, mtu);
        }
    }

    /// A server may only make packets smaller than the card's own: larger ones are a matter of the switch, too.
    fn set_mtu(&mut self, interface: &Interface, plan: &Plan) -> io::Result<()> {
        let (_, own) = self.mtu_before.unwrap_or((interface.index, interface.mtu));
        let wanted = plan.mtu.map_or(own, |mtu| own.min(mtu.into()));
        if wanted != interface.mtu {
            netlink::set_mtu(interface.index, wanted)?;
            self.mtu_before = (wanted != own).then_some((interface.index, own));
        }
        Ok(())
    }

    fn write_resolver(&mut self, machine: &Machine, text: &str) -> io::Result<()> {
        if self.resolv_conf.as_deref() != Some(text) {
            write_whole(&machine.resolv_conf, text)?;
            self.resolv_conf = Some(text.to_owned());
        }
        Ok(())
    }
}

/// resolv.conf(5); names come checked, see [`crate::dhcp::lease`].
fn resolv_conf(plan: &Plan) -> String {
    let mut text = String::new();
    for server in plan.dns.iter().take(limits::NETWORK_DNS_MAX) {
        text += &format!("nameserver {server}\n");
    }
    if let Some(domain) = &plan.domain {
        text += &format!("search {domain}\n");
    }
    text
}

/// Replaces a file: whoever reads it finds the old text or the new one, also after a loss of power.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = File::create(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease() -> Lease {
        Lease {
            address: [10, 0, 0, 5].into(),
            prefix_length: 24,
            server: [10, 0, 0, 1].into(),
            gateway: Some([10, 0, 0, 1].into()),
            dns: (1..=5).map(|n| [10, 0, 0, n].into()).collect(),
            ntp: Vec::new(),
            domain: Some("lab.example".to_owned()),
            hostname: Some("lent".to_owned()),
            mtu: None,
            term: None,
        }
    }

    #[test]
    fn settings_come_before_what_a_server_says() {
        let plan = Plan::of_lease(&Settings::default(), 2, &lease(), None);
        assert_eq!((plan.dns.len(), plan.hostname.as_str()), (5, "lent"));
        let dns = vec![[9, 9, 9, 9].into()];
        let settings = Settings { dns: dns.clone(), hostname: Some("box".to_owned()), ..Settings::default() };
        let plan = Plan::of_lease(&settings, 2, &lease(), None);
        assert_eq!((plan.dns, plan.hostname.as_str()), (dns, "box"));
        let nameless = Lease { hostname: None, ..lease() };
        assert_eq!(Plan::of_lease(&Settings::default(), 2, &nameless, None).hostname, DEFAULT_HOSTNAME);
    }

    #[test]
    fn the_resolver_gets_as_many_servers_as_it_reads() {
        let plan = Plan::of_lease(&Settings::default(), 2, &lease(), None);
        let expected = "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nsearch lab.example\n";
        assert_eq!(resolv_conf(&plan), expected);
        let address = Address { ip: [10, 0, 0, 5].into(), prefix_length: 24 };
        assert_eq!(resolv_conf(&Plan::of_static(&Settings::default(), 2, address)), "");
    }
}
