"""One QEMU machine with real firmware on the lab's LAN, powered on and watched until it reports."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path

import plain
from lan import run

OVMF, AAVMF = Path("/usr/share/OVMF"), Path("/usr/share/AAVMF")
STICK_GIB = 8
# A chained iPXE with its own drivers would hide the firmware's PXE behind EDK2's HTTP boot otherwise.
NO_PXE = ["-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=no", "-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=no"]


@dataclasses.dataclass(frozen=True)
class Firmware:
    """How a machine starts: its firmware, and what speaks PXE on its network card or which medium is in it."""

    uefi: bool
    rom: bool = False  # QEMU's iPXE option ROM on the card; without it OVMF's own client boots
    tftp: bool = False  # whether its path to the kernel leads through TFTP
    plain: bool = False  # the ROM's DHCP requests lose what tells a server that it is iPXE
    medium: str = ""  # "cd" or "usb": it boots from that, and not from the network
    secure: bool = False  # Secure Boot is on, with Microsoft's keys
    arm: bool = False
    extra: tuple = ()

    def impatient(self):
        """Whether Enter is pressed at GRUB's menu; otherwise its time runs out.

        GRUB for x86 EFI calibrates the TSC at its start. Under TCG on a busy host that goes wrong: 10 s became 95 s.
        """
        return self.uefi and not self.arm

    def flash(self):
        """The firmware's code and its factory-new variables."""
        if self.arm:
            return AAVMF / "AAVMF_CODE.fd", AAVMF / "AAVMF_VARS.fd"
        if self.secure:
            return OVMF / "OVMF_CODE_4M.secboot.fd", OVMF / "OVMF_VARS_4M.ms.fd"
        return OVMF / "OVMF_CODE_4M.fd", OVMF / "OVMF_VARS_4M.fd"


FIRMWARE = {
    "bios-ipxe": Firmware(uefi=False, rom=True),
    "bios-plain": Firmware(uefi=False, rom=True, tftp=True, plain=True),
    "uefi-pxe": Firmware(uefi=True, tftp=True),
    "uefi-http": Firmware(uefi=True, extra=tuple(NO_PXE)),
    "uefi-ipxe": Firmware(uefi=True, rom=True),
    "iso-bios-cd": Firmware(uefi=False, medium="cd"),
    "iso-bios-usb": Firmware(uefi=False, medium="usb"),
    "iso-uefi-cd": Firmware(uefi=True, medium="cd"),
    "iso-uefi-usb": Firmware(uefi=True, medium="usb"),
    "iso-uefi-sb": Firmware(uefi=True, medium="usb", secure=True),
    "iso-aavmf-cd": Firmware(uefi=True, medium="cd", arm=True),
    "iso-aavmf-usb": Firmware(uefi=True, medium="usb", arm=True),
}

MILESTONES = {
    "menu": re.compile(r"Press enter to boot"),
    "ipxe": re.compile(r"iPXE \d|iPXE initialising|iPXE -- Open Source"),
    "kernel": re.compile(r"Linux version "),
    "node_up": re.compile(r"NODE-UP .*"),
}
# Nothing comes after these: no need to wait for the deadline.
DEAD_END = re.compile(r"No bootable device|UEFI Interactive Shell|Kernel panic|mini-init: NO-ROOT|dracut: FATAL|Entering emergency mode")
ANSI = re.compile(rb"\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


def hardware_kvm():
    """Real VT-x or AMD-V only: a KVM in software (kvm_pvm) dies in firmware start-up code."""
    return (
        os.access("/dev/kvm", os.W_OK)
        and any(Path(f"/sys/module/{module}").is_dir() for module in ("kvm_intel", "kvm_amd"))
        and not Path("/sys/module/kvm_pvm").is_dir()
    )


class Node(threading.Thread):
    """Powers the machine on when started; joined, `report` is its NODE-UP line as a dict, or None.

    `iso` is in its drive or on its stick. It is watched until the milestone `until`.
    """

    def __init__(self, lan, tap, firmware, directory, memory_mib, timeout, capture=False, iso=None, until="node_up"):
        super().__init__(daemon=True)
        self.lan, self.tap, self.firmware = lan, tap, firmware
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.memory_mib, self.timeout, self.capture = memory_mib, timeout, capture
        self.iso, self.until = iso, until
        self.mac = f"52:54:00:1a:b0:{tap:02x}"
        self.serial = self.directory / "serial.log"
        self.seen = {}  # milestone → seconds since power on
        self.report = None
        self.error = None

    def qemu(self):
        """The QEMU command line."""
        command = [
            *self.machine(), "-name", self.mac, "-nodefaults", "-nographic", "-serial", "stdio", "-monitor", "none",
            "-no-reboot", "-smp", "1", "-m", str(self.memory_mib),
            "-uuid", str(uuid.uuid5(uuid.NAMESPACE_URL, self.mac)),  # DHCP option 97: real machines differ
        ]
        if self.firmware.uefi:
            # A fresh copy of the variables: every boot is a factory-new machine's first.
            code, factory = self.firmware.flash()
            variables = self.directory / "vars.fd"
            shutil.copyfile(factory, variables)
            command += [
                "-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={code}",
                "-drive", f"if=pflash,unit=1,format=raw,file={variables}",
            ]
        first = "" if self.firmware.medium else ",bootindex=1"
        rom = "" if self.firmware.rom else ",romfile="
        # OVMF's network stack wants a source of randomness
        command += [
            "-netdev", f"tap,id=n0,ifname=tap{self.tap},script=no,downscript=no,vnet_hdr=off",
            "-device", f"virtio-net-pci,netdev=n0,mac={self.mac}{first}{rom}", "-device", "virtio-rng-pci",
        ]
        return command + self.drive() + list(self.firmware.extra)

    def machine(self):
        if self.firmware.arm:
            return ["qemu-system-aarch64", "-machine", "virt", "-cpu", "cortex-a57", "-accel", "tcg,thread=multi,tb-size=256"]
        # Secure Boot keeps its variables behind system management mode.
        machine = ["-machine", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"] if self.firmware.secure else ["-machine", "q35"]
        if hardware_kvm():
            return ["qemu-system-x86_64", *machine, "-cpu", "host", "-accel", "kvm"]
        # TCG: level x86-64-v2, with AMD as the vendor so that the guest kernel leaves page-table
        # isolation off: its TLB flushes double the boot time under TCG.
        cpu = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16,+lahf-lm"
        return ["qemu-system-x86_64", *machine, "-cpu", cpu, "-accel", "tcg,thread=multi,tb-size=256"]

    def drive(self):
        """The drive or the stick with the ISO."""
        if self.firmware.medium == "cd":
            bus = ["-device", "virtio-scsi-pci", "-device", "scsi-cd,drive=m,bootindex=1"] if self.firmware.arm else ["-device", "ide-cd,drive=m,bootindex=1"]
            return ["-drive", f"if=none,id=m,format=raw,readonly=on,media=cdrom,file={self.iso}", *bus]
        if self.firmware.medium == "usb":
            # As a real stick: writable, and larger than the ISO, so that the backup GPT is not at its end.
            stick = self.directory / "stick.qcow2"
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(self.iso), str(stick), f"{STICK_GIB}G")
            return [
                "-device", "qemu-xhci", "-drive", f"if=none,id=m,format=qcow2,file={stick}",
                "-device", "usb-storage,drive=m,bootindex=1,removable=on",
            ]
        return []

    def run(self):
        try:
            self.boot()
        except Exception as error:  # reported by whoever joins
            self.error = f"{type(error).__name__}: {error}"

    def boot(self):
        command = self.qemu()
        capture = self.start_capture() if self.capture else None
        filter_ = plain.Filter() if self.firmware.plain else None
        if filter_:
            command += filter_.qemu_arguments()
        started = time.monotonic()
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.lan.switch, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, start_new_session=True,
        )
        self.process, self.keyboard = process, process.stdin
        self.lan.processes.append(process)
        watchdog = threading.Timer(self.timeout, process.kill)
        watchdog.start()
        try:
            self.watch(process.stdout.fileno(), started)
        finally:
            watchdog.cancel()
            process.kill()
            process.wait()
            if filter_:
                filter_.close()
            if capture:
                capture.send_signal(signal.SIGINT)
                capture.wait()
        if self.until not in self.seen:
            self.error = self.error or f"no {self.until} within {self.timeout} s"

    def watch(self, console, started):
        """Writes the serial log, each line with its time, until the node reports or QEMU ends."""
        pending = b""
        with open(self.serial, "w") as log:
            while self.until not in self.seen and not self.error and (chunk := os.read(console, 65536)):
                now = time.monotonic() - started
                *lines, pending = re.split(rb"[\r\n]+", pending + chunk)
                for line in lines:
                    text = ANSI.sub(b"", line).decode("utf-8", "replace").strip()
                    if text:
                        log.write(f"{now:8.3f} {text}\n")
                        self.take(text, now)
                log.flush()

    def take(self, text, now):
        if DEAD_END.search(text):
            self.error = f"gave up after {now:.0f} s: {text}"
        for name, pattern in MILESTONES.items():
            match = name not in self.seen and pattern.search(text)
            if match:
                self.seen[name] = now
                if name == "menu" and self.firmware.impatient():
                    self.keyboard.write(b"\r")
                if name == "node_up":
                    self.report = dict(word.split("=", 1) for word in match[0].split()[1:] if "=" in word)

    def start_capture(self):
        """tcpdump on the node's port: everything but the bulk of TCP."""
        process = subprocess.Popen(
            ["ip", "netns", "exec", self.lan.switch, "tcpdump", "-i", f"tap{self.tap}", "-U", "-Z", "root", "-s", "1500",
             "-w", str(self.directory / "net.pcap"), "not tcp or tcp[tcpflags] & (tcp-syn|tcp-fin|tcp-push) != 0"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
        )
        self.lan.processes.append(process)
        for line in process.stderr:
            if b"listening on" in line:
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        return process
