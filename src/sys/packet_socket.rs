//! A packet(7) socket that sees the UDP datagrams to one port, or the ARP packets, on one interface.
//!
//! It reads beside whatever program holds the port, and sends whole frames. Measured here, `recvmmsg` in batches keeps up with
//! far more than 10,000 messages a second, so there is no `PACKET_RX_RING`.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::{c_int, c_uint, c_void};

use super::{bind, cvt, cvt_len, set_option, socket, socklen};

/// How many frames one [`PacketSocket::receive`] takes at most.
pub const BATCH: usize = 64;
/// Room for one frame; DHCP messages are far smaller than a 1500-byte MTU.
const FRAME_LEN: usize = 2048;

/// One frame of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    pub bytes: &'a [u8],
    /// `TP_STATUS_CSUMNOTREADY`: the sender is on this host and left the checksum to a network card that never saw it.
    pub checksum_not_ready: bool,
}

/// Buffers for a batch of frames, reused from call to call.
pub struct Batch {
    buffers: Box<[[u8; FRAME_LEN]]>,
    controls: Box<[Control; BATCH]>,
    headers: Box<[libc::mmsghdr; BATCH]>,
    vectors: Box<[libc::iovec; BATCH]>,
    received: usize,
}

/// Room for the one control message we ask for, aligned as the kernel's `cmsghdr` wants it.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; CONTROL_LEN]);

/// `CMSG_SPACE(sizeof(struct tpacket_auxdata))`, rounded up.
const CONTROL_LEN: usize = 64;

// SAFETY: the raw pointers in `headers` and `vectors` point into the boxes beside them, which move with the value.
unsafe impl Send for Batch {}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batch").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Default for Batch {
    fn default() -> Self {
        // SAFETY: all-zero bytes are valid values of these C structures.
        let (header, vector): (libc::mmsghdr, libc::iovec) = unsafe { std::mem::zeroed() };
        Self {
            buffers: vec![[0; FRAME_LEN]; BATCH].into_boxed_slice(),
            controls: Box::new([Control([0; CONTROL_LEN]); BATCH]),
            headers: Box::new([header; BATCH]),
            vectors: Box::new([vector; BATCH]),
            received: 0,
        }
    }
}

impl Batch {
    /// The frames of the last [`PacketSocket::receive`]; those cut short or longer than any DHCP message are left out.
    pub fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        (0..self.received).filter_map(|index| {
            let header = &self.headers[index];
            let bytes = self.buffers[index].get(..header.msg_len as usize)?;
            let whole = header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) == 0;
            let auxdata = auxiliary_data(&header.msg_hdr)?;
            let checksum_not_ready = auxdata.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
            whole.then_some(Frame { bytes, checksum_not_ready })
        })
    }

    fn prepare(&mut self) {
        for index in 0..BATCH {
            let vector = &mut self.vectors[index];
            vector.iov_base = self.buffers[index].as_mut_ptr().cast::<c_void>();
            vector.iov_len = FRAME_LEN;
            let header = &mut self.headers[index].msg_hdr;
            header.msg_iov = &raw mut *vector;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[index]).cast::<c_void>();
            header.msg_controllen = CONTROL_LEN as _; // size_t with glibc, u32 with musl
        }
    }
}

fn auxiliary_data(header: &libc::msghdr) -> Option<libc::tpacket_auxdata> {
    // SAFETY: `header` and its control buffer were filled in by recvmmsg.
    let control = unsafe { libc::CMSG_FIRSTHDR(header).as_ref() }?;
    if control.cmsg_level != libc::SOL_PACKET || control.cmsg_type != libc::PACKET_AUXDATA {
        return None;
    }
    // SAFETY: a PACKET_AUXDATA message holds one tpacket_auxdata; the read makes no claim on its alignment.
    Some(unsafe { libc::CMSG_DATA(control).cast::<libc::tpacket_auxdata>().read_unaligned() })
}

/// A packet socket bound to one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    interface: u32,
}

impl PacketSocket {
    /// Opens a socket on the interface with this index that receives untagged IPv4 UDP datagrams to `port`.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`; `ENODEV` or `ENXIO` when the interface is gone.
    pub fn open(interface: u32, port: u16, receive_buffer: usize) -> io::Result<Self> {
        Self::bound(interface, libc::ETH_P_IP, Some(&udp_to_port(port)), receive_buffer)
    }

    /// Opens a socket on the interface with this index that receives ARP packets.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_arp(interface: u32, receive_buffer: usize) -> io::Result<Self> {
        Self::bound(interface, libc::ETH_P_ARP, None, receive_buffer)
    }

    fn bound(
        interface: u32,
        protocol: c_int,
        filter: Option<&[libc::sock_filter]>,
        receive_buffer: usize,
    ) -> io::Result<Self> {
        // Protocol 0: nothing is received before bind() says from where, so no frame slips in unfiltered.
        let fd = socket(libc::AF_PACKET, libc::SOCK_RAW, 0)?;
        filter.map_or(Ok(()), |filter| attach_filter(&fd, filter))?;
        set_option(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, 1 as c_int)?;
        let size = c_int::try_from(receive_buffer).unwrap_or(c_int::MAX);
        // Past the system's usual bound when we may; within it otherwise.
        if set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
            set_option(&fd, libc::SOL_SOCKET, libc::SO_RCVBUF, size)?;
        }
        bind(&fd, &link_address(interface, protocol)?)?;
        Ok(Self { fd, interface })
    }

    /// The index of the interface it is bound to.
    #[must_use]
    pub const fn interface(&self) -> u32 {
        self.interface
    }

    /// Takes what has arrived, up to [`BATCH`] frames, and returns how many. Never waits.
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing; `ENETDOWN` once when the interface goes down.
    pub fn receive(&self, batch: &mut Batch) -> io::Result<usize> {
        batch.received = 0;
        batch.prepare();
        // SAFETY: the headers describe buffers that `batch` owns and keeps; no timeout is passed.
        let received = unsafe {
            libc::recvmmsg(
                self.fd.as_raw_fd(),
                batch.headers.as_mut_ptr(),
                BATCH as c_uint,
                libc::MSG_DONTWAIT as _, // u32 with musl, i32 with glibc
                std::ptr::null_mut(),
            )
        };
        batch.received = usize::try_from(cvt(received)?).unwrap_or(0);
        Ok(batch.received)
    }

    /// Sends one whole Ethernet frame.
    ///
    /// # Errors
    /// `ENETDOWN` or `ENXIO` when the interface is down or gone, `WouldBlock` or `ENOBUFS` when its queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the pointer and the length describe `frame`.
        let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT) };
        cvt_len(sent).map(drop)
    }
}

impl AsRawFd for PacketSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

fn link_address(interface: u32, protocol: c_int) -> io::Result<libc::sockaddr_ll> {
    let index = c_int::try_from(interface).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
    Ok(libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (protocol as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    })
}

/// A classic BPF program (Linux, Documentation/networking/filter.rst): whole IPv4 UDP datagrams to `port` that are for this host.
///
/// The kernel marks as "for another host" also what came tagged with a VLAN this host has no interface for; the tag itself is gone
/// before the filter runs (`__netif_receive_skb_core`), so without this check those messages would look like ordinary ones.
fn udp_to_port(port: u16) -> [libc::sock_filter; 13] {
    const LOAD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const LOAD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
    const LOAD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const LOAD_HALF_AT_X: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_IND) as u16;
    const LOAD_HEADER_LEN: u16 = (libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const ANY_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    const PACKET_TYPE: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE) as u32;
    let op = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    [
        op(LOAD_WORD, PACKET_TYPE, 0, 0),
        op(EQUAL, u32::from(libc::PACKET_OTHERHOST), 10, 0),
        op(LOAD_HALF, 12, 0, 0),
        op(EQUAL, 0x0800, 0, 8), // EtherType: IPv4
        op(LOAD_BYTE, 23, 0, 0),
        op(EQUAL, 17, 0, 6), // protocol: UDP
        op(LOAD_HALF, 20, 0, 0),
        op(ANY_SET, 0x3fff, 4, 0),     // "more fragments" or an offset
        op(LOAD_HEADER_LEN, 14, 0, 0), // X = length of the IPv4 header
        op(LOAD_HALF_AT_X, 16, 0, 0),
        op(EQUAL, u32::from(port), 0, 1), // UDP destination port
        op(RETURN, 0x4_0000, 0, 0),       // the whole frame
        op(RETURN, 0, 0, 0),              // none of it
    ]
}

/// A program that drops everything: for a socket that only holds its port.
pub(super) const DROP_ALL: [libc::sock_filter; 1] =
    [libc::sock_filter { code: (libc::BPF_RET | libc::BPF_K) as u16, jt: 0, jf: 0, k: 0 }];

pub(super) fn attach_filter(fd: &impl AsRawFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let length = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
    let program = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `length` instructions from the pointer and writes nothing there.
    cvt(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            socklen::<libc::sock_fprog>(),
        )
    })
    .map(drop)
}
