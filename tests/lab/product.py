"""The product on the lab's server, started as a new user would, and what its log must say."""

import hashlib
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import lan as network

ROOT = Path(__file__).resolve().parents[2]
BINARY = ROOT / "target/x86_64-unknown-linux-musl/release/auroraboot"

# A placeholder to fill in, and a look-alike of the shell that must stay as it is.
TEMPLATE = """#cloud-config
hostname: [[ .lab.hostname ]]
users:
- name: kairos
  passwd: kairos
stages:
  initramfs:
  - commands:
    - if [[ -f /run/lab ]]; then echo lab; fi
"""
HOSTNAME = "node-of-the-lab"
# Settings that make it write the ISO and end, or boot machines and leave no ISO.
OFFLINE = ["disable_netboot=true", "disable_http_server=true"]
NO_ISO = ["disable_iso=true"]
STICK_BYTES = 1 << 30


def binary():
    path = Path(os.environ.get("AURORABOOT", BINARY))
    if not os.access(path, os.X_OK):
        raise SystemExit(f"tests/lab: {path} is missing; build it (cargo build --release --target x86_64-unknown-linux-musl) or set AURORABOOT")
    return path.resolve()


class Product:
    """Started by the constructor with these settings.

    Then `wait_ready`, boot machines from the network and `interrupt`; or, with the settings OFFLINE, `wait_done`.
    """

    def __init__(self, lan, settings, directory, command="run"):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        config = self.directory / "cc.yaml"
        config.write_text(TEMPLATE)
        rendered = TEMPLATE.replace("[[ .lab.hostname ]]", HOSTNAME)
        self.config_sha256 = hashlib.sha256(rendered.encode()).hexdigest()
        self.log_path = self.directory / "auroraboot.log"
        self.process = self.start(lan, [*settings, f"lab.hostname={HOSTNAME}"], config, [] if command == "run" else [command])

    def start(self, lan, settings, config, words):
        flags = [word for setting in [*settings, f"state_dir={self.directory / 'state'}"] for word in ("--set", setting)]
        return lan.start(lan.server, [str(binary()), *words, *flags, "--cloud-config", str(config)], self.log_path)

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_ready(self, timeout=240):
        """Until it says that machines can be switched on."""
        started = time.monotonic()
        network.wait_until("auroraboot (waiting until it is ready)", lambda: " Ready: " in self.log(), timeout, self.process)
        return time.monotonic() - started

    def wait_done(self, timeout=240):
        """Until it has written the ISO and ended well."""
        started = time.monotonic()
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"auroraboot: still running after {timeout} s") from None
        if status:
            raise RuntimeError(f"auroraboot: exit status {status}")
        return time.monotonic() - started

    def custom_iso(self):
        """The custom ISO, seen to be whole and to hold the rendered cloud config."""
        isos = self.directory / "state/iso"
        found = list(isos.glob("*.iso.custom.iso"))
        if len(found) != 1:
            raise RuntimeError(f"{isos} holds {len(found)} custom ISOs: {sorted(path.name for path in isos.glob('*'))}")
        network.run("sh", "-c", 'cd "$1" && sha256sum --check --strict --quiet *.sha256', "sh", str(isos))
        if not (isos / f"{found[0].name}.sha256").exists():
            raise RuntimeError(f"{found[0]} has no .sha256 beside it")
        inside = self.directory / "config-of-the-iso.yaml"
        inside.unlink(missing_ok=True)
        network.run("xorriso", "-osirrox", "on", "-indev", str(found[0]), "-extract", "/config.yaml", str(inside))
        if hashlib.sha256(inside.read_bytes()).hexdigest() != self.config_sha256:
            raise RuntimeError(f"{found[0]}: its config.yaml is not the rendered cloud config")
        return found[0]

    def flash(self):
        """A stick with the custom ISO, written by the product: to a loop device; returns the file behind that."""
        stick = self.directory / "stick.img"
        with open(stick, "wb") as file:
            file.truncate(STICK_BYTES)
        device = network.run("losetup", "--find", "--show", str(stick)).strip()
        try:
            network.run(str(binary()), "flash", "--to", device, "--yes", "--set", f"state_dir={self.directory / 'state'}")
        finally:
            network.run("losetup", "--detach", device)
        return stick

    def lines_missing(self, mac, addresses, tftp):
        """Which of the lines that tell an operator how this machine is doing are not in the log."""
        address = "(?:" + "|".join(map(re.escape, addresses or ["no-address"])) + r"):\d+"
        # A UEFI iPXE asks for its script by the protocol it came by.
        wanted = [rf"DHCP: Offering to boot {mac}", rf"(?:HTTP|TFTP): Sending ipxe boot script to {address}"]
        if tftp:
            wanted.append(rf'TFTP: Sent "[^"]*" to {address}')
        wanted += [rf'HTTP: Sent file "{name}" to {address}' for name in ("kernel", "initrd-0", "other-0", "other-1")]
        wanted.append(rf"{mac}: has everything after ")
        log = self.log()
        return [pattern for pattern in wanted if not re.search(pattern, log)]

    def interrupt(self, timeout=10):
        """Ctrl-C. Returns what is wrong with how it ended, or None."""
        started = time.monotonic()
        self.process.send_signal(signal.SIGINT)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return f"still running {timeout} s after SIGINT"
        took = time.monotonic() - started
        if status != 0:
            return f"exit status {status} after SIGINT"
        if took > 3:
            return f"took {took:.1f} s to end after SIGINT"
        return None
