"""The appliance: a disk image in a machine of its own, which does for the LAN what the product does elsewhere.

It stands in the product's place (see product.py): configured by files on its boot partition, ended from its serial console.
"""

import hashlib
import json
import os
import random
import re
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import lan as network
from lan import run
from node import FIRMWARE, Node
from product import HOSTNAME, TEMPLATE

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "target/image"
# How the machine with the appliance starts, and the board whose image is in it.
BOXES = {"x86-bios": ("iso-bios-usb", "x86-pc"), "x86-uefi": ("iso-uefi-usb", "x86-pc"), "x86-sb": ("iso-uefi-sb", "x86-pc"), "arm64": ("iso-aavmf-usb", "arm64-uefi")}
# Switched off by their power buttons (ACPI), the others from their consoles.
BY_BUTTON = ("x86-uefi", "arm64")
# Whose disk comes without a data partition: it is to be made.
WITHOUT_DATA = ("x86-uefi",)
MEMORY_MIB = 512
SECTOR = 512
GROWN_MIN = 4 << 30  # bytes; the stick has twice that
CUTS_CI, CUTS = 3, 20


class Box(Node):
    """A machine with a disk that outlives its power: `start` it, and again after `cut`."""

    def __init__(self, lan, tap, firmware, directory, image):
        super().__init__(lan, tap, firmware, directory, MEMORY_MIB, timeout=1800, iso=image, until="never")
        self.output, self.news = b"", threading.Condition()
        self.disk = None
        # Not beside the disk: the path of a socket has 107 bytes at most.
        self.sockets = tempfile.TemporaryDirectory(prefix="auroraboot-box-")

    def qemu(self):
        command = super().qemu()
        command[command.index("-monitor") + 1] = f"unix:{self.monitor},server=on,wait=off"
        return command

    @property
    def monitor(self):
        return Path(self.sockets.name) / "monitor"

    def press_power(self):
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.connect(str(self.monitor))
            monitor.sendall(b"system_powerdown\n")
            monitor.recv(4096)  # it greets, and was there

    def drive(self):
        if self.disk is None:
            self.disk = super().drive()
        return self.disk

    def watch(self, console, started):
        with open(self.serial, "ab") as log:
            while chunk := os.read(console, 65536):
                log.write(chunk)
                log.flush()
                with self.news:
                    self.output += chunk
                    self.news.notify_all()
        with self.news:
            self.output += b"[off]"
            self.news.notify_all()

    def expect(self, pattern, timeout, send=None, every=None):
        """Waits for text that was not waited for before; `send` is typed first, and again every so many seconds."""
        regex, deadline = re.compile(pattern.encode()), time.monotonic() + timeout
        again = time.monotonic()
        while True:
            if send is not None and time.monotonic() >= again:
                self.type(send)
                again = time.monotonic() + every if every else float("inf")
            with self.news:
                if match := regex.search(self.output):
                    self.output = self.output[match.end():]
                    return match[0].decode("utf-8", "replace")
                if self.error or time.monotonic() > deadline:
                    shown = self.output[-1500:].decode("utf-8", "replace")
                    raise RuntimeError(f"the appliance's console: no {pattern!r} within {timeout} s; it shows\n{shown}")
                self.news.wait(0.2)

    def type(self, text):
        try:
            self.keyboard.write(text.encode())
        except (AttributeError, BrokenPipeError):
            pass  # it is not on yet, or off already


class Appliance:
    """Started by the constructor with these settings, as `Product` is; `box` is one of BOXES."""

    def __init__(self, lan, settings, directory, box, tap):
        self.lan, self.directory, self.tap = lan, Path(directory), tap
        self.firmware, board = FIRMWARE[BOXES[box][0]], BOXES[box][1]
        source = IMAGES / f"auroraboot-{board}.img"
        if not source.exists():
            raise RuntimeError(f"{source} is missing; build it: cargo run -p image -- --board {board}")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.image = self.directory / "appliance.img"
        run("cp", "--sparse=always", "--reflink=auto", str(source), str(self.image))
        self.by_button = box in BY_BUTTON
        if box in WITHOUT_DATA:
            run("sfdisk", "--quiet", "--delete", str(self.image), str(len(self.partitions(self.image))))
        rendered = TEMPLATE.replace("[[ .lab.hostname ]]", HOSTNAME)
        self.config_sha256 = hashlib.sha256(rendered.encode()).hexdigest()
        settings = [*settings, "arch=amd64"]  # of the machines, whatever the appliance is
        lines = [f"{key}: {json.dumps(value)}" for key, value in (setting.split("=", 1) for setting in settings)]
        self.put("auroraboot.yaml", "\n".join([*lines, "values:", "  lab:", f"    hostname: {HOSTNAME}"]) + "\n")
        self.put("cloud-config.yaml", TEMPLATE)
        self.log_path = self.directory / "box/serial.log"
        self.box, self.boots = None, 0
        self.switch_on()

    def put(self, name, text):
        """Writes a file to the boot partition, as a laptop does after flashing."""
        file = self.directory / name
        file.write_text(text)
        run("mcopy", "-o", "-i", f"{self.image}@@{self.boot_offset()}", str(file), f"::{name}")

    def boot_offset(self):
        """In bytes."""
        # The last one of these types: the data partition is of another.
        of_fat = [row for row in self.partitions(self.image) if row["type"].lower() in ("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7", "c")]
        return of_fat[-1]["start"] * SECTOR

    @staticmethod
    def partitions(disk):
        """The boot partition is the last but one, the data partition the last."""
        return json.loads(run("sfdisk", "--json", str(disk)))["partitiontable"]["partitions"]

    def switch_on(self):
        disk = self.box.disk if self.box else None
        self.box = Box(self.lan, self.tap, self.firmware, self.directory / "box", self.image)
        self.box.disk = disk
        self.boots += 1
        self.started = time.monotonic()
        self.box.start()

    def cut(self):
        """Pulls the plug."""
        self.box.process.kill()
        self.box.join()

    def addresses(self):
        return self.lan.addresses_of(self.box.mac)

    def answers(self):
        """Whether machines could load from it now."""
        for address in self.addresses():
            asked = subprocess.run(
                ["ip", "netns", "exec", self.lan.server, "curl", "-s", "-o", "/dev/null", "--max-time", "2", f"http://{address}:8090/"], stderr=subprocess.DEVNULL,
            )
            if asked.returncode == 0:
                return True
        return False

    def log(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def wait_ready(self, timeout=300):
        deadline = time.monotonic() + timeout
        while not self.answers():
            if self.box.error:
                raise RuntimeError(f"the appliance: {self.box.error}")
            if time.monotonic() > deadline:
                self.box.expect("h help", 30, send="\r")
                self.box.expect("never", 5, send="l\r")  # fails, and shows the log
            time.sleep(0.2)
        return time.monotonic() - self.started

    def lines_missing(self, _mac, _addresses, _tftp):
        """Its log is its own; that the machine reports is enough."""
        return []

    def interrupt(self, timeout=60):
        """Switches it off by its button or from its console, and looks at its disk. Returns what is wrong, or None."""
        try:
            self.box.expect("h help", 30, send="\r", every=3)
            if self.by_button:
                self.box.press_power()
                self.box.expect(r"\[off\]", timeout)
                self.box.join()
                return self.judge_disk()
            self.box.expect(r"Power \(", 10, send="p\r")
            self.box.expect(r"\[y/N\]", 10, send="2\r")
            self.box.expect(r"\[off\]", timeout, send="y\r")
        except RuntimeError as error:
            return str(error)
        self.box.join()
        return self.judge_disk()

    def judge_disk(self):
        """What fsck and sfdisk say of the disk after all that; None when nothing."""
        disk = self.directory / "disk.raw"
        run("qemu-img", "convert", "-O", "raw", str(self.box.directory / "stick.qcow2"), str(disk))
        try:
            run("sfdisk", "--verify", str(disk))
            boot, data = self.partitions(disk)[-2:]
            if data["size"] * SECTOR < GROWN_MIN:
                return f"the data partition did not grow: {data}"
            for row, check in ((data, ["e2fsck", "-fn"]), (boot, ["fsck.vfat", "-n"])):
                part = self.directory / "part.raw"
                place = [f"skip={row['start'] * SECTOR}", f"count={row['size'] * SECTOR}", "iflag=skip_bytes,count_bytes"]
                run("dd", f"if={disk}", f"of={part}", "bs=1M", "conv=sparse", *place)
                run(*check, str(part))
                part.unlink()
        except RuntimeError as error:
            return str(error)
        finally:
            disk.unlink(missing_ok=True)
        return None


def cut_power(appliance, everything):
    """Pulls the plug at random moments of the first starts, then lets it come up."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    print(f"     power cuts: seed {seed}", flush=True)
    for _ in range(CUTS if everything else CUTS_CI):
        time.sleep(chance.uniform(8, 40))
        appliance.cut()
        appliance.switch_on()
