"""Makes QEMU's iPXE ROM look like a plain PXE card to a server.

iPXE says what it is in its DHCP requests: user class "iPXE" (option 77) and its features (option
175), and a boot server skips its first stage for it. The ROMs of real cards say neither. This filter
sits between the machine's card and the LAN and takes the two options out of the requests of the ROM;
nothing else is touched. Once the machine has begun its first TFTP download, what speaks DHCP is the
loader that the server sent, and that may say what it is: from there on all frames pass as they are.
"""

import socket
import struct
import tempfile
import threading

DHCP_PORTS = (67, 4011)
TFTP_PORT = 69
OPTIONS = 240  # offset of the options in a DHCP message, after the magic cookie
USER_CLASS, IPXE_FEATURES = 77, 175


def without_ipxe_marks(message):
    """The DHCP message without options 77 and 175, of the same length (zeros after the end mark)."""
    out, at = bytearray(message[:OPTIONS]), OPTIONS
    while at < len(message) and message[at] != 255:
        end = at + 1 if message[at] == 0 else at + 2 + message[at + 1]
        if message[at] not in (USER_CLASS, IPXE_FEATURES):
            out += message[at:end]
        at = end
    out.append(255)
    return bytes(out).ljust(len(message), b"\0")


class Rewriter:
    """Frames of one machine, in order, from power on."""

    def __init__(self):
        self.rom_is_speaking = True

    def frame(self, frame):
        if not self.rom_is_speaking or frame[12:14] != b"\x08\x00" or frame[23] != socket.IPPROTO_UDP:
            return frame
        udp = 14 + (frame[14] & 15) * 4
        destination = struct.unpack_from(">H", frame, udp + 2)[0]
        if destination == TFTP_PORT:
            self.rom_is_speaking = False
        if destination not in DHCP_PORTS:
            return frame
        length = struct.unpack_from(">H", frame, udp + 4)[0]
        message = without_ipxe_marks(frame[udp + 8 : udp + length])
        # Checksum 0 is "none computed" (RFC 768), but servers may want to see a right one.
        head = frame[udp : udp + 6]
        checksum = udp_checksum(frame[26:34], head + b"\0\0" + message)
        return frame[:udp] + head + struct.pack(">H", checksum) + message + frame[udp + length :]


def udp_checksum(addresses, datagram):
    data = addresses + struct.pack(">BBH", 0, socket.IPPROTO_UDP, len(datagram)) + datagram
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF or 0xFFFF


class Filter:
    """Two QEMU filter-redirectors: frames from the guest come out of one socket and go back in by the other."""

    def __init__(self):
        # Not beside the logs: the name of a Unix socket ends at 107 bytes.
        self.directory = tempfile.TemporaryDirectory(prefix="lab-plain-")
        self.listeners = {}
        for end in ("out", "in"):
            self.listeners[end] = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listeners[end].bind(self.path(end))
            self.listeners[end].listen(1)
        threading.Thread(target=self.pump, daemon=True).start()

    def path(self, end):
        return f"{self.directory.name}/{end}"

    def qemu_arguments(self):
        """`queue=rx` is what the network back end receives, that is, what the guest sends.

        QEMU runs that queue through its filters from the last named to the first: the way back in must be named
        first, or every frame would come round again.
        """
        arguments = []
        for end, role in (("in", "indev"), ("out", "outdev")):
            arguments += [
                "-chardev", f"socket,id=c-{end},path={self.path(end)}",
                "-object", f"filter-redirector,id=f-{end},netdev=n0,queue=rx,{role}=c-{end}",
            ]
        return arguments

    def pump(self):
        """On the socket each frame follows its length, four bytes."""
        rewriter = Rewriter()
        try:
            source, target = (self.listeners[end].accept()[0] for end in ("out", "in"))
            with source, target, source.makefile("rb") as frames:
                while head := frames.read(4):
                    frame = rewriter.frame(frames.read(struct.unpack(">I", head)[0]))
                    target.sendall(struct.pack(">I", len(frame)) + frame)
        except OSError:
            pass  # the machine was switched off

    def close(self):
        for listener in self.listeners.values():
            listener.close()
        self.directory.cleanup()
