//! Ethernet, IPv4 and UDP around a DHCP message: taken apart, put together.

use std::net::{Ipv4Addr, SocketAddrV4};

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket,
    UdpRepr,
};

use crate::units::MacAddr;

/// Length of an Ethernet header without a VLAN tag.
const ETHERNET_LEN: usize = 14;
/// Length of an IPv4 header without options.
const IPV4_LEN: usize = 20;
/// Length of a UDP header.
const UDP_LEN: usize = 8;
/// Bytes of IPv4 and UDP header around a message, as option 57 (RFC 2132 §9.10) counts them.
pub const IP_UDP_LEN: usize = IPV4_LEN + UDP_LEN;
/// Relays and ROMs expect an ordinary datagram; some proxies send 1, which no router passes on.
const TIME_TO_LIVE: u8 = 64;

/// Whether the sender has filled in the UDP checksum.
///
/// Within one host (veth pairs, bridges to containers and virtual machines) nobody does: the kernel marks such a packet
/// `TP_STATUS_CSUMNOTREADY`, and what stands in the field is only the sum of the pseudo header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UdpChecksum {
    Filled,
    NotReady,
}

/// Why a frame is no UDP datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("the frame is no complete IPv4 packet")]
    Ipv4,
    #[error("the IPv4 header checksum is wrong")]
    Ipv4Checksum,
    #[error("the packet is a fragment")]
    Fragment,
    #[error("the packet is no complete UDP datagram")]
    Udp,
    #[error("the UDP checksum is wrong")]
    UdpChecksum,
}

/// A UDP datagram out of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram<'a> {
    pub link_source: MacAddr,
    pub source: SocketAddrV4,
    pub destination: SocketAddrV4,
    pub payload: &'a [u8],
}

/// Takes an untagged Ethernet frame apart.
///
/// # Errors
/// When a length or checksum is wrong, or it is something other than a whole UDP datagram over IPv4.
pub fn parse(bytes: &[u8], checksum: UdpChecksum) -> Result<Datagram<'_>, FrameError> {
    let ethernet = EthernetFrame::new_checked(bytes).map_err(|_| FrameError::Ipv4)?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return Err(FrameError::Ipv4);
    }
    let ipv4 = Ipv4Packet::new_checked(ethernet.payload()).map_err(|_| FrameError::Ipv4)?;
    if ipv4.version() != 4 || usize::from(ipv4.header_len()) < IPV4_LEN {
        return Err(FrameError::Ipv4);
    }
    if !ipv4.verify_checksum() {
        return Err(FrameError::Ipv4Checksum);
    }
    if ipv4.more_frags() || ipv4.frag_offset() != 0 {
        return Err(FrameError::Fragment);
    }
    if ipv4.next_header() != IpProtocol::Udp {
        return Err(FrameError::Udp);
    }
    let (source, destination) = (ipv4.src_addr(), ipv4.dst_addr());
    let udp = UdpPacket::new_checked(ipv4.payload()).map_err(|_| FrameError::Udp)?;
    if checksum == UdpChecksum::Filled && !udp.verify_checksum(&source.into(), &destination.into()) {
        return Err(FrameError::UdpChecksum);
    }
    Ok(Datagram {
        link_source: MacAddr(ethernet.src_addr().0),
        source: SocketAddrV4::new(source, udp.src_port()),
        destination: SocketAddrV4::new(destination, udp.dst_port()),
        payload: udp.payload(),
    })
}

/// Writes a broadcast frame with `payload` into `frame`, checksums filled.
pub fn emit_broadcast(
    frame: &mut Vec<u8>,
    link_source: MacAddr,
    source: SocketAddrV4,
    destination_port: u16,
    payload: &[u8],
) {
    frame.clear();
    frame.resize(ETHERNET_LEN + IPV4_LEN + UDP_LEN + payload.len(), 0);
    let header = EthernetRepr {
        src_addr: EthernetAddress(link_source.0),
        dst_addr: EthernetAddress::BROADCAST,
        ethertype: EthernetProtocol::Ipv4,
    };
    header.emit(&mut EthernetFrame::new_unchecked(&mut frame[..ETHERNET_LEN]));
    let destination = SocketAddrV4::new(Ipv4Addr::BROADCAST, destination_port);
    emit_ipv4(&mut frame[ETHERNET_LEN..], source, destination, payload);
}

/// Writes an IPv4 packet with `payload` into `packet`, checksums filled, for a socket that adds the link header itself.
pub fn emit_packet(packet: &mut Vec<u8>, source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) {
    packet.clear();
    packet.resize(IPV4_LEN + UDP_LEN + payload.len(), 0);
    emit_ipv4(packet, source, destination, payload);
}

/// Fills `buffer`, whose length is exactly that of the packet.
fn emit_ipv4(buffer: &mut [u8], source: SocketAddrV4, destination: SocketAddrV4, payload: &[u8]) {
    let checksums = ChecksumCapabilities::default();
    let (source_ip, destination_ip) = (*source.ip(), *destination.ip());
    let ipv4 = Ipv4Repr {
        src_addr: source_ip,
        dst_addr: destination_ip,
        next_header: IpProtocol::Udp,
        payload_len: UDP_LEN + payload.len(),
        hop_limit: TIME_TO_LIVE,
    };
    let udp = UdpRepr { src_port: source.port(), dst_port: destination.port() };
    let mut packet = Ipv4Packet::new_unchecked(buffer);
    ipv4.emit(&mut packet, &checksums);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &source_ip.into(),
        &destination_ip.into(),
        payload.len(),
        |room| room.copy_from_slice(payload),
        &checksums,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 2), 67);
    const MAC: MacAddr = MacAddr([2, 0, 0, 0, 0, 9]);

    fn frame() -> Vec<u8> {
        let mut frame = Vec::new();
        emit_broadcast(&mut frame, MAC, US, 68, b"hello");
        frame
    }

    #[test]
    fn what_goes_out_can_be_read_back() {
        let frame = frame();
        let datagram = parse(&frame, UdpChecksum::Filled).unwrap();
        assert_eq!((datagram.link_source, datagram.source, datagram.payload), (MAC, US, &b"hello"[..]));
        assert_eq!(datagram.destination, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    }

    #[test]
    fn padding_of_short_frames_is_not_payload() {
        let mut frame = frame();
        frame.resize(60, 0xee);
        assert_eq!(parse(&frame, UdpChecksum::Filled).unwrap().payload, b"hello");
    }

    #[test]
    fn checksums_are_verified_when_there_are_any() {
        let mut wrong = frame();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(parse(&wrong, UdpChecksum::Filled), Err(FrameError::UdpChecksum));
        assert!(parse(&wrong, UdpChecksum::NotReady).is_ok());
        wrong[40..42].fill(0); // "no checksum" (RFC 768)
        assert!(parse(&wrong, UdpChecksum::Filled).is_ok());
        wrong[24] ^= 1;
        assert_eq!(parse(&wrong, UdpChecksum::NotReady), Err(FrameError::Ipv4Checksum));
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_survived() {
        let whole = frame();
        for length in 0..whole.len() {
            assert!(parse(&whole[..length], UdpChecksum::NotReady).is_err(), "{length}");
        }
        for at in 0..whole.len() {
            for value in 0..=255 {
                let mut frame = whole.clone();
                frame[at] = value;
                let _ = parse(&frame, UdpChecksum::NotReady);
            }
        }
    }
}
