//! Sends DISCOVERs at a steady rate from many machines and measures how soon each is offered a boot.
//!
//! `dhcp-flood INTERFACE [RATE] [SECONDS] [MACHINES]`: prints how many were sent and lost, and the latencies. Needs root.
//!
//! On a busy machine most of the latency is waiting for a processor: `chrt -f 10` takes out this program's share.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use auroraboot::dhcp::frame::{self, UdpChecksum};
use auroraboot::dhcp::packet::Packet;
use auroraboot::sys::netlink;
use auroraboot::sys::packet_socket::{Batch, PacketSocket};
use auroraboot::units::MacAddr;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};

/// How long after the last DISCOVER an OFFER still counts.
const GRACE: Duration = Duration::from_secs(2);
/// DISCOVERs go out in ticks of this length, each with its share of them.
const TICK: Duration = Duration::from_millis(1);
/// What OVMF 2022.11 sent: 24 bytes of file header, an ARP frame, and so on; the DISCOVER is found by its port.
const CAPTURE: &[u8] = include_bytes!("../../data/pcap/ovmf202211-x64-proxydhcp-binl-4011-tftp-ipxe2-autoexec.pcap");

pub fn main(arguments: &[String]) {
    let number = |index: usize, default: u32| {
        arguments.get(index).map_or(default, |text| text.parse().expect("RATE, SECONDS and MACHINES are numbers"))
    };
    let interface = arguments.first().expect("usage: dhcp-flood INTERFACE [RATE] [SECONDS] [MACHINES]");
    let load = Load { rate: number(1, 10_000), seconds: number(2, 10), machines: number(3, 1_000) };
    let report = load.play(interface);
    let Load { rate, seconds, machines } = load;
    println!("{rate} DISCOVERs/s for {seconds} s from {machines} machines: {report}");
}

/// Asks every two milliseconds until the first OFFER, and prints when that came, in seconds since 1970.
pub fn first(arguments: &[String]) {
    let interface = arguments.first().expect("usage: dhcp-first INTERFACE");
    let all = netlink::interfaces().expect("a list of interfaces");
    let card = all.iter().find(|found| found.name == *interface).expect("the interface is there");
    let socket = PacketSocket::open(card.index, 68, 1 << 20).expect("a packet socket (needs root)");
    let (load, template, mut frame, mut batch) =
        (Load { rate: 500, seconds: 0, machines: 1 }, discover(), Vec::new(), Batch::default());
    println!("asking");
    for sequence in 0.. {
        load.write(&mut frame, &template, sequence);
        let _ = socket.send(&frame); // the cable may be down still
        std::thread::sleep(Duration::from_millis(2));
        while socket.receive(&mut batch).is_ok() {
            if offers(&batch).next().is_some() {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock that is set");
                println!("OFFER at {:.6}", now.as_secs_f64());
                return;
            }
        }
    }
}

struct Load {
    rate: u32,
    seconds: u32,
    machines: u32,
}

struct Report {
    sent: usize,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let answered = self.latencies.len();
        let share = |percent: usize| {
            let at = (answered * percent / 100).min(answered.saturating_sub(1));
            self.latencies.get(at).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e3)
        };
        let lost = self.sent - answered;
        write!(
            f,
            "{} sent, {lost} lost, p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms",
            self.sent,
            share(50),
            share(99),
            share(100)
        )
    }
}

impl Load {
    fn play(&self, interface: &str) -> Report {
        let all = netlink::interfaces().expect("a list of interfaces");
        let card = all.iter().find(|found| found.name == interface).expect("the interface is there");
        let socket = PacketSocket::open(card.index, 68, 64 << 20).expect("a packet socket (needs root)");
        let mut poll = Poll::new().expect("an epoll");
        let source = socket.as_raw_fd();
        poll.registry().register(&mut SourceFd(&source), Token(0), Interest::READABLE).expect("registered");
        let total = usize::try_from(self.rate * self.seconds).expect("a number that fits");
        let mut sent_at: Vec<Option<Instant>> = vec![None; total];
        let mut latencies = Vec::with_capacity(total);
        let (template, mut frame) = (discover(), Vec::new());
        let mut batch = Batch::default();
        let mut events = Events::with_capacity(1);
        let start = Instant::now();
        let (mut sent, mut last_sent) = (0, start);
        while latencies.len() < total && (sent < total || last_sent.elapsed() < GRACE) {
            let due = total.min((start.elapsed().as_secs_f64() * f64::from(self.rate)) as usize);
            while sent < due {
                self.write(&mut frame, &template, sent);
                last_sent = Instant::now();
                sent_at[sent] = Some(last_sent);
                while socket.send(&frame).is_err() {} // the queue is full: the rate is more than this cable takes
                sent += 1;
            }
            while socket.receive(&mut batch).is_ok() {
                let now = Instant::now();
                latencies.extend(offers(&batch).filter_map(|xid| Some(now - sent_at.get_mut(xid)?.take()?)));
            }
            poll.poll(&mut events, Some(TICK)).expect("epoll works");
        }
        latencies.sort_unstable();
        Report { sent, latencies }
    }

    /// The DISCOVER number `sequence`: its transaction id, from one machine after the other.
    fn write(&self, frame: &mut Vec<u8>, template: &[u8], sequence: usize) {
        let sequence = u32::try_from(sequence).expect("a number that fits");
        let [_, _, a, b] = (sequence % self.machines).to_be_bytes();
        let mac = MacAddr([2, 0, 0, 0, a, b]);
        let mut message = template.to_vec();
        message[4..8].copy_from_slice(&sequence.to_be_bytes());
        message[28..34].copy_from_slice(&mac.0);
        frame::emit_broadcast(frame, mac, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68), 67, &message);
    }
}

/// Transaction ids of the OFFERs in a batch.
fn offers(batch: &Batch) -> impl Iterator<Item = usize> {
    batch.frames().filter_map(|received| {
        let checksum = if received.checksum_not_ready { UdpChecksum::NotReady } else { UdpChecksum::Filled };
        let datagram = frame::parse(received.bytes, checksum).ok()?;
        let packet = Packet::parse(datagram.payload).ok()?;
        // dnsmasq's to UEFI says no more than this; the client then asks port 4011.
        packet.option(60).is_some().then_some(packet.xid() as usize)
    })
}

/// The first message to port 67 in the capture.
fn discover() -> Vec<u8> {
    let mut rest = &CAPTURE[24..];
    while let Some((header, tail)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
        if let Ok(datagram) = frame::parse(&tail[..length], UdpChecksum::Filled)
            && datagram.destination.port() == 67
        {
            return datagram.payload.to_vec();
        }
        rest = &tail[length..];
    }
    panic!("no DISCOVER in the capture");
}
