//! The thread that owns the interfaces.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token, Waker};

use super::choice::{self, Used};
use super::clock::{self, Clock};
use super::duplicate::{self, Check};
use super::install::{Installed, Plan};
use super::link::{Link, TOKENS, Tools};
use super::report::{InterfaceSnapshot, Snapshot, State};
use super::settings::{DEFAULT_HOSTNAME, Machine, Settings};
use crate::config::Address;
use crate::dhcp::client::{Event, Loss};
use crate::dhcp::lease::Lease;
use crate::limits;
use crate::sys::netlink::{self, Interface, InterfaceNews};
use crate::sys::packet_socket::Batch;
use crate::sys::pktinfo::PortHolder;
use crate::sys::raw_ip::RawIpSocket;
use crate::units::MacAddr;

/// Settings that came, a resolved name, or the wish to end.
pub const WAKER: Token = Token(0);
/// News of the interfaces.
const NEWS: Token = Token(1);

const CLIENT_PORT: u16 = 68;

/// Everything of the network.
#[derive(Debug)]
pub struct Owner {
    poll: Poll,
    /// New settings; closed when the thread is to end.
    commands: Receiver<Settings>,
    shared: Arc<Mutex<Snapshot>>,
    settings: Settings,
    machine: Machine,
    news: InterfaceNews,
    look_at: Option<Instant>,
    /// As they were when they were looked at last.
    interfaces: Vec<Interface>,
    /// The candidates, as far as they are asked by DHCP.
    links: Vec<Link>,
    used: Option<Used>,
    installed: Installed,
    /// Of the static address, while its interface has a link.
    check: Option<Check>,
    clock: Clock,
    /// Addresses of earlier leases by the interface's name, to be asked for again. They do not outlive the power: servers know whom they lent
    /// what, and asking for it at once (RFC 2131 §3.2) would save two packets of four.
    remembered: HashMap<String, Ipv4Addr>,
    /// What could not be done at the last look or installation.
    troubles: Vec<String>,
    routed: RawIpSocket,
    batch: Batch,
    /// Keeps the kernel from refusing what servers send to port 68.
    _port: Option<PortHolder>,
}

impl Owner {
    /// Opens what the thread needs.
    ///
    /// # Errors
    /// The process has no descriptor left, or lacks `CAP_NET_RAW`.
    pub fn open(
        poll: Poll,
        waker: Arc<Waker>,
        commands: Receiver<Settings>,
        shared: Arc<Mutex<Snapshot>>,
        settings: Settings,
        machine: Machine,
    ) -> io::Result<Self> {
        let news = InterfaceNews::subscribe()?;
        poll.registry().register(&mut SourceFd(&news.as_raw_fd()), NEWS, Interest::READABLE)?;
        let clock = Clock::new(waker);
        Ok(Self {
            poll,
            commands,
            shared,
            settings,
            machine,
            news,
            look_at: Some(Instant::now()),
            interfaces: Vec::new(),
            links: Vec::new(),
            used: None,
            installed: Installed::default(),
            check: None,
            clock,
            remembered: HashMap::new(),
            troubles: Vec::new(),
            routed: RawIpSocket::open()?,
            batch: Batch::default(),
            _port: PortHolder::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT)).ok(),
        })
    }

    /// Works until the commands' sender is gone.
    ///
    /// # Errors
    /// Only when epoll itself fails; nothing that comes from the network ends the loop.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(limits::POLL_EVENTS);
        self.name_machine();
        let mut more = true;
        loop {
            let timeout = if more { Some(Duration::ZERO) } else { self.until_deadline(Instant::now()) };
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            }
            let now = Instant::now();
            loop {
                match self.commands.try_recv() {
                    Ok(settings) => self.take_settings(now, settings),
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return Ok(()),
                }
            }
            for event in &events {
                match event.token() {
                    WAKER | clock::TOKEN => {}
                    NEWS => {
                        self.news.drain();
                        self.look_at.get_or_insert(now + limits::INTERFACE_SETTLE);
                    }
                    duplicate::TOKEN => self.check.iter_mut().for_each(Check::handle_ready),
                    token if token.0 >= TOKENS => self.links.iter_mut().for_each(|link| link.handle_ready(token)),
                    _ => {}
                }
            }
            more = self.turn(now);
            self.publish();
        }
    }

    /// Does everything that is due. Returns whether more may be waiting to be read.
    fn turn(&mut self, now: Instant) -> bool {
        if self.look_at.is_some_and(|at| at <= now) {
            self.look_at = None;
            self.look(now);
        }
        let mut more = false;
        let (links, mut tools) = tools(&mut self.links, &self.poll, &self.routed, &mut self.batch);
        for link in links {
            link.handle_timeout(now, &mut tools);
            more |= link.turn(now, &mut tools);
        }
        if let Some(check) = &mut self.check {
            let own: Vec<MacAddr> = self.interfaces.iter().filter_map(|interface| interface.mac).collect();
            more |= check.turn(now, self.poll.registry(), &mut self.batch, &own);
        }
        self.take_events(now);
        if self.used.is_some_and(|used| choice::is_overdue(used, now)) {
            self.assign(now);
        }
        self.clock.turn(now, self.poll.registry(), &self.machine);
        more
    }

    fn until_deadline(&self, now: Instant) -> Option<Duration> {
        let links = self.links.iter().filter_map(|link| link.client.next_deadline());
        let overdue =
            self.used.and_then(|used| used.without_link_since).map(|since| since + limits::NETWORK_SWITCH_AFTER);
        let check = self.check.as_ref().and_then(Check::next_deadline);
        let others = [self.look_at, self.clock.next_deadline(), check, overdue.filter(|at| *at > now)];
        let wait = links.chain(others.into_iter().flatten()).min()?.saturating_duration_since(now);
        // One more: epoll counts whole milliseconds and would wake us just too early.
        Some(if wait.is_zero() { wait } else { wait + Duration::from_millis(1) })
    }

    // ── settings ─────────────────────────────────────────────────────────────────────────────────────────────────

    fn take_settings(&mut self, now: Instant, settings: Settings) {
        let before = std::mem::replace(&mut self.settings, settings);
        let after = &self.settings;
        let is_same_way = before.interface == after.interface
            && before.address == after.address
            && sent_hostname(&before) == sent_hostname(after);
        if !is_same_way {
            self.links.clear(); // known addresses are remembered: coming back to DHCP gets the same one
            self.used = None;
            let still = matches!(after.address, Address::Static { ip, .. } if self.installed_ip() == Some(ip));
            if !still {
                self.installed.remove();
            }
            self.clock.set_servers(now, Vec::new());
        }
        self.name_machine();
        self.look_at = Some(now);
        self.reinstall(now);
    }

    fn installed_ip(&self) -> Option<Ipv4Addr> {
        self.installed.plan().map(|plan| plan.address.ip)
    }

    /// The name from the settings; until a DHCP server has told another, the usual one.
    fn name_machine(&mut self) {
        let name = match &self.settings.hostname {
            Some(name) => name.as_str(),
            None if self.installed.plan().is_none() => DEFAULT_HOSTNAME,
            None => return,
        };
        if let Err(error) = self.installed.set_hostname(&self.machine, name) {
            log::warn!("The hostname cannot be set to {name:?}: {error}");
        }
    }

    // ── interfaces ───────────────────────────────────────────────────────────────────────────────────────────────

    /// Looks at all interfaces anew.
    fn look(&mut self, now: Instant) {
        self.troubles.clear();
        match netlink::interfaces() {
            Ok(interfaces) => self.interfaces = interfaces,
            Err(error) => return self.try_again(now, format!("cannot list the network interfaces: {error}")),
        }
        self.bring_up(now);
        self.drop_gone();
        self.note_link(now);
        match self.settings.address {
            Address::Dhcp => self.open_links(now),
            Address::Static { ip, prefix_length } => self.set_static(now, netlink::Address { ip, prefix_length }),
        }
        self.assign(now);
        self.take_events(now);
        self.check_static(now);
    }

    fn try_again(&mut self, now: Instant, trouble: String) {
        log::debug!("{trouble}");
        self.troubles.push(trouble);
        self.look_at = Some(now + limits::INTERFACE_RETRY);
    }

    /// All interfaces that could be used, and the loopback; the kernel tells when they have a link.
    fn bring_up(&mut self, now: Instant) {
        let named = self.settings.interface.as_deref();
        let candidates = choice::candidates(&self.interfaces, named);
        let loopback = self.interfaces.iter().filter(|interface| interface.loopback);
        let down = candidates.chain(loopback).filter(|interface| !interface.up);
        let failed: Vec<String> = down
            .filter_map(|interface| {
                let error = netlink::set_up(interface.index, true).err()?;
                Some(format!("{} cannot be brought up: {error}", interface.name))
            })
            .collect();
        for trouble in failed {
            self.try_again(now, trouble);
        }
    }

    /// Forgets interfaces that were unplugged, renamed or replaced.
    fn drop_gone(&mut self) {
        let Self { interfaces, links, settings, .. } = self;
        let named = settings.interface.as_deref();
        links.retain(|link| choice::candidates(interfaces, named).any(|interface| link.is_of(interface)));
        for link in links {
            if let Some(interface) = interfaces.iter().find(|interface| link.is_of(interface)) {
                link.interface = interface.clone();
            }
        }
        let is_there = |used: &Used| choice::candidates(interfaces, named).any(|found| found.index == used.interface);
        if self.used.is_some_and(|used| !is_there(&used)) {
            self.unuse();
        }
    }

    /// Notes since when the used interface has no link, and puts back what the kernel took away while it was down.
    fn note_link(&mut self, now: Instant) {
        let Some(used) = &mut self.used else { return };
        let Some(interface) = self.interfaces.iter().find(|interface| interface.index == used.interface) else {
            return;
        };
        let is_back = interface.carrier && used.without_link_since.is_some();
        if interface.carrier {
            used.without_link_since = None;
        } else if used.without_link_since.is_none() {
            log::warn!("{}: no link any more (cable or switch)", interface.name);
            used.without_link_since = Some(now);
        }
        let has_address = |plan: &Plan| interface.addresses.contains(&plan.address);
        let is_missing = self.installed.plan().is_some_and(|plan| !has_address(plan));
        if is_back || (is_missing && interface.up) {
            self.reinstall(now);
        }
    }

    fn open_links(&mut self, now: Instant) {
        let named = self.settings.interface.as_deref();
        for interface in choice::candidates(&self.interfaces, named) {
            if self.links.iter().any(|link| link.is_of(interface)) {
                continue;
            }
            let earlier = self.remembered.get(&interface.name).copied();
            self.links.extend(Link::new(now, interface, sent_hostname(&self.settings), earlier, super::random()));
        }
    }

    fn set_static(&mut self, now: Instant, address: netlink::Address) {
        let candidates: Vec<&Interface> =
            choice::candidates(&self.interfaces, self.settings.interface.as_deref()).collect();
        let Some(chosen) = choice::for_static(&candidates, self.used, now).cloned() else { return };
        if self.used.is_some_and(|used| used.interface == chosen.index) && self.installed.plan().is_some() {
            return;
        }
        let without_link_since = if chosen.carrier { None } else { Some(now) };
        self.used = Some(Used { interface: chosen.index, without_link_since });
        log::info!("{}: {}/{}, as network.address says", chosen.name, address.ip, address.prefix_length);
        let plan = Plan::of_static(&self.settings, chosen.index, address);
        self.install(now, &chosen, plan);
    }

    /// Looks for other users of the static address, anew whenever its interface gets a link.
    fn check_static(&mut self, now: Instant) {
        let Address::Static { ip, .. } = self.settings.address else {
            self.check = None;
            return;
        };
        let used = self.interfaces.iter().find(|found| self.used.is_some_and(|used| used.interface == found.index));
        let Some(interface) = used.filter(|interface| interface.up && interface.carrier) else {
            self.check = None;
            return;
        };
        if !self.check.as_ref().is_some_and(|check| check.is_of(interface, ip)) {
            self.check = Check::new(now, interface, ip);
        }
    }

    /// Lets those clients ask that should, and pauses the others.
    fn assign(&mut self, now: Instant) {
        if matches!(self.settings.address, Address::Static { .. }) {
            if self.used.is_some_and(|used| choice::is_overdue(used, now)) {
                self.look_at.get_or_insert(now);
            }
            return;
        }
        let used = self.used;
        let (links, mut tools) = tools(&mut self.links, &self.poll, &self.routed, &mut self.batch);
        let mut is_deaf = false;
        for link in links {
            let is_asking = link.interface.up && link.interface.carrier && choice::is_asked(&link.interface, used, now);
            link.set_asking(now, &mut tools, is_asking);
            is_deaf |= is_asking && link.is_deaf();
        }
        if is_deaf {
            self.look_at = Some(now + limits::INTERFACE_RETRY);
        }
    }

    // ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────

    fn take_events(&mut self, now: Instant) {
        for index in 0..self.links.len() {
            while let Some(event) = self.links.get_mut(index).and_then(Link::poll_event) {
                self.take_event(now, index, event);
            }
        }
    }

    fn take_event(&mut self, now: Instant, index: usize, event: Event) {
        let link = &mut self.links[index];
        match event {
            Event::Bound(lease) => self.bound(now, index, &lease),
            Event::Lost { address, loss } => self.lost(now, index, address, loss),
            Event::Refused { server } => {
                link.complain(now, format!("the DHCP server {server} does not keep to what it has offered"));
            }
            Event::Taken { address, by } => {
                link.complain(now, format!("the DHCP server lends {address}, which the machine {by} uses already"));
            }
            Event::Ignored(_) => {} // the link has told it
        }
    }

    fn bound(&mut self, now: Instant, index: usize, lease: &Lease) {
        let link = &mut self.links[index];
        link.forget_complaint();
        let interface = link.interface.clone();
        let until = link.client.lease().and_then(|(_, until)| until);
        let is_other = self.installed_ip() != Some(lease.address);
        if is_other {
            log::info!("{}: {} from the DHCP server {}", interface.name, lease_words(lease), lease.server);
        }
        self.remembered.insert(interface.name.clone(), lease.address);
        self.used = Some(Used { interface: interface.index, without_link_since: None });
        let plan = Plan::of_lease(&self.settings, interface.index, lease, until);
        self.install(now, &interface, plan);
        self.free_others(now, index);
        self.assign(now);
    }

    /// Gives back what others than the used interface have got: one address is enough.
    fn free_others(&mut self, now: Instant, used: usize) {
        let (links, mut tools) = tools(&mut self.links, &self.poll, &self.routed, &mut self.batch);
        let others =
            links.iter_mut().enumerate().filter(|(index, link)| *index != used && link.client.lease().is_some());
        for (_, link) in others {
            link.release(now, &mut tools);
            let earlier = link.client.known_address();
            let fresh = Link::new(now, &link.interface, sent_hostname(&self.settings), earlier, super::random());
            if let Some(fresh) = fresh {
                *link = fresh;
            }
        }
    }

    fn lost(&mut self, now: Instant, index: usize, address: Ipv4Addr, loss: Loss) {
        let interface = &self.links[index].interface;
        log::warn!("{}: {address} may not be used any more: {loss}", interface.name);
        if self.used.is_some_and(|used| used.interface == interface.index) {
            self.unuse();
            self.clock.set_servers(now, Vec::new());
            self.assign(now);
        }
    }

    fn unuse(&mut self) {
        self.used = None;
        self.installed.remove();
    }

    // ── what the machine has ─────────────────────────────────────────────────────────────────────────────────────

    fn install(&mut self, now: Instant, interface: &Interface, plan: Plan) {
        let ntp = self.lease_of(interface.index).map(|lease| lease.ntp.clone()).unwrap_or_default();
        let servers = clock::servers(&self.settings.ntp, &ntp, plan.gateway);
        for trouble in self.installed.install(&self.machine, interface, plan, now) {
            self.try_again(now, trouble);
        }
        self.clock.set_servers(now, servers);
    }

    fn lease_of(&self, interface: u32) -> Option<&Lease> {
        let link = self.links.iter().find(|link| link.interface.index == interface)?;
        link.client.lease().map(|(lease, _)| lease)
    }

    /// Sets everything once more: settings have changed, or the kernel has taken something away.
    fn reinstall(&mut self, now: Instant) {
        let Some(used) = self.used else { return };
        let Some(interface) = self.interfaces.iter().find(|interface| interface.index == used.interface).cloned()
        else {
            return;
        };
        let plan = match self.settings.address {
            Address::Static { ip, prefix_length } => {
                Plan::of_static(&self.settings, used.interface, netlink::Address { ip, prefix_length })
            }
            Address::Dhcp => {
                let link = self.links.iter().find(|link| link.interface.index == used.interface);
                let Some((lease, until)) = link.and_then(|link| link.client.lease()) else { return };
                Plan::of_lease(&self.settings, used.interface, lease, until)
            }
        };
        self.install(now, &interface, plan);
    }

    fn publish(&self) {
        let named = self.settings.interface.as_deref();
        let all = choice::candidates(&self.interfaces, None);
        let by_name = self.interfaces.iter().filter(|interface| named == Some(interface.name.as_str()));
        let mut interfaces: Vec<&Interface> = all.chain(by_name).collect();
        interfaces.sort_by_key(|interface| interface.index);
        interfaces.dedup_by_key(|interface| interface.index);
        let snapshot = Snapshot {
            interfaces: interfaces.into_iter().filter_map(|interface| self.snapshot(interface)).collect(),
            named: self.settings.interface.clone(),
            dns: self.installed.plan().map(|plan| plan.dns.clone()).unwrap_or_default(),
            hostname: self.installed.hostname().to_owned(),
            clock_set: self.clock.last_set.clone(),
            clock_trouble: self.clock.trouble.clone(),
            has_network: self.installed.plan().is_some(),
            troubles: self.troubles.clone(),
            taken: self.check.as_ref().and_then(|check| Some((check.address(), check.taken_by?))),
            has_looked: true,
        };
        *self.shared.lock().unwrap_or_else(PoisonError::into_inner) = snapshot;
    }

    fn snapshot(&self, interface: &Interface) -> Option<InterfaceSnapshot> {
        let is_used = self.used.is_some_and(|used| used.interface == interface.index);
        let link = self.links.iter().find(|link| link.interface.index == interface.index);
        let named = self.settings.interface.as_deref();
        let state = match link {
            _ if named.is_some_and(|named| named != interface.name) => State::NotNamed,
            Some(link) => State::Dhcp {
                phase: link.client.phase(),
                lease: link.client.lease().map(|(lease, until)| Box::new((lease.clone(), until))),
                complaint: link.complaint().map(str::to_owned),
            },
            None if is_used => State::Static { gateway: self.settings.gateway },
            None => State::Spare,
        };
        Some(InterfaceSnapshot { interface: interface.clone(), mac: interface.mac?, is_used, state })
    }
}

/// The name that a DHCP server is told.
fn sent_hostname(settings: &Settings) -> &str {
    settings.hostname.as_deref().unwrap_or(DEFAULT_HOSTNAME)
}

fn lease_words(lease: &Lease) -> String {
    let address = format!("{}/{}", lease.address, lease.prefix_length);
    match lease.term {
        Some(term) => format!("{address} for {}", super::report::span(term.lease)),
        None => format!("{address} for ever"),
    }
}

/// The links, and what all of them share, borrowed side by side.
fn tools<'a>(
    links: &'a mut [Link],
    poll: &'a Poll,
    routed: &'a RawIpSocket,
    batch: &'a mut Batch,
) -> (&'a mut [Link], Tools<'a>) {
    (links, Tools { registry: poll.registry(), routed, batch })
}
