"""A LAN in network namespaces: a switch, a home router, and the host the product runs on.

  <prefix>-sw    bridge br0, one tap per node; QEMU runs here
  <prefix>-dhcp  the router: dnsmasq as an ordinary DHCP server that knows nothing of PXE
  <prefix>-srv   the server under test, and the registry

Nothing touches the host's own network. The prefix carries this process's id and a number, so that several LANs
stand side by side and a lab whose process was killed is cleared away by the next one.
"""

import itertools
import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

NET = "192.168.77"
SERVER = f"{NET}.2"
REGISTRY = f"{SERVER}:5000"


def run(*command):
    """Runs a command that must succeed; its output appears only in the error."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout.strip()}")
    return done.stdout


def wait_until(what, condition, timeout, process=None):
    """Polls until the condition holds; fails on the deadline or when the process ends first."""
    deadline = time.monotonic() + timeout
    while not condition():
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with status {process.returncode}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what}: not within {timeout} s")
        time.sleep(0.05)


def listens(pid, port):
    """Whether some socket in the network namespace of this process listens on the TCP port."""
    suffix = f":{port:04X}"
    for table in ("tcp", "tcp6"):
        try:
            rows = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            if fields[1].endswith(suffix) and fields[3] == "0A":  # TCP_LISTEN
                return True
    return False


NUMBERS = itertools.count()  # a lab may have several LANs at a time


class Lan:
    """Up on entering a `with` block, down on leaving it, whatever happened in between."""

    def __init__(self, directory, taps=4, dhcp_on_server=False):
        self.directory = Path(directory)
        self.prefix = f"lab{os.getpid()}n{next(NUMBERS)}"
        self.switch, self.router, self.server = (f"{self.prefix}-{role}" for role in ("sw", "dhcp", "srv"))
        self.taps = taps
        self.dhcp_on_server = dhcp_on_server
        self.processes = []
        self.registry, self.registry_storage = None, None
        self.environment = {}  # what processes on the server have beside the lab's own

    def __enter__(self):
        clear_leftovers()
        self.directory.mkdir(parents=True, exist_ok=True)
        try:
            self.build()
            self.start_dhcp()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            stop(process)
        for namespace in (self.switch, self.router, self.server):
            remove_namespace(namespace)
        shutil.rmtree(f"/run/{self.prefix}", ignore_errors=True)

    def short_directory(self):
        """For sockets and locks, whose paths must be short; it goes with the LAN."""
        path = Path(f"/run/{self.prefix}")
        path.mkdir(exist_ok=True)
        return path

    def build(self):
        for namespace in (self.switch, self.router, self.server):
            run("ip", "netns", "add", namespace)
        # No spanning tree and no forward delay: ports forward at once, as a switch port set to "portfast" does.
        batch = ["link set lo up", "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0", "link set br0 up"]
        for tap in range(self.taps):
            batch += [f"tuntap add tap{tap} mode tap", f"link set tap{tap} master br0 up"]
        self.ip_batch(self.switch, batch)
        # With bridge netfilter loaded on the host, its firewall would see (and may drop) the LAN's frames.
        for knob in ("iptables", "ip6tables", "arptables"):
            self.exec(self.switch, "sh", "-c", f"f=/proc/sys/net/bridge/bridge-nf-call-{knob}; [ ! -e $f ] || echo 0 >$f")
        self.plug_in(self.router, f"{NET}.1")
        self.plug_in(self.server, SERVER)

    def ip_batch(self, namespace, lines):
        subprocess.run(["ip", "-n", namespace, "-batch", "-"], input="\n".join(lines) + "\n", text=True, check=True)

    def plug_in(self, namespace, address):
        port = namespace.rsplit("-", 1)[1]
        self.ip_batch(self.switch, [
            f"link add p-{port} type veth peer name eth0 netns {namespace}",
            f"link set p-{port} master br0 up",
        ])
        self.ip_batch(namespace, ["link set lo up", f"addr add {address}/24 brd + dev eth0", "link set eth0 up"])
        # veth leaves UDP checksums unfilled; iPXE, which sees the frames as they are, would drop them.
        self.exec(namespace, "ethtool", "-K", "eth0", "tx", "off")

    def start_dhcp(self):
        namespace, address = (self.server, SERVER) if self.dhcp_on_server else (self.router, f"{NET}.1")
        # Without router advertisements an iPXE with IPv6 waits 16 s in "Configuring (net0)" at each stage.
        self.ip_batch(namespace, ["addr add fd77:1ab::1/64 dev eth0 nodad"])
        command = [
            "dnsmasq", "--keep-in-foreground", "--port=0", "--conf-file=/dev/null", "--no-hosts", "--no-resolv",
            "--interface=eth0", "--bind-interfaces", "--dhcp-authoritative", "--no-ping",
            f"--dhcp-range={NET}.100,{NET}.220,255.255.255.0,1h",
            f"--dhcp-option=option:router,{NET}.1", f"--dhcp-option=option:dns-server,{address}",
            "--enable-ra", "--dhcp-range=fd77:1ab::,ra-only,64,1h", "--ra-param=eth0,4,1800",
            "--log-dhcp", f"--log-facility={self.directory / 'dhcp.log'}", f"--dhcp-leasefile={self.directory / 'leases'}",
            f"--pid-file={self.directory / 'dhcp.pid'}", "--user=root",
        ]
        process = self.start(namespace, command, self.directory / "dhcp.out")
        log = self.directory / "dhcp.log"
        wait_until("DHCP server", lambda: log.exists() and "IP range" in log.read_text(), 30, process)

    def start_registry(self, storage, readonly=True):
        """Serves a directory filled earlier (tests/lab/image) as an OCI registry on the server's address."""
        config = self.directory / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{ level: warn }}\nstorage:\n  filesystem: {{ rootdirectory: {storage} }}\n"
            f"  maintenance: {{ readonly: {{ enabled: {str(readonly).lower()} }} }}\nhttp: {{ addr: '{REGISTRY}' }}\n"
        )
        process = self.start(self.server, ["docker-registry", "serve", str(config)], self.directory / "registry.log")
        wait_until("registry", lambda: listens(process.pid, 5000), 20, process)
        self.registry, self.registry_storage = process, storage

    def copy_registry(self):
        """Goes on with a copy, which takes pushes."""
        self.stop_registry()
        copy = self.directory / "registry"
        shutil.copytree(self.registry_storage, copy)
        self.start_registry(copy, readonly=False)

    def stop_registry(self):
        """Nobody answers at its address any more."""
        stop(self.registry)

    def freeze_registry(self):
        """It still takes connections, and answers only after `thaw_registry`."""
        self.registry.send_signal(signal.SIGSTOP)

    def thaw_registry(self):
        self.registry.send_signal(signal.SIGCONT)

    def connections_begun(self):
        """How often the server's processes have tried so far to open a TCP connection, or to reach an address beyond the LAN."""
        lines = self.exec(self.server, "cat", "/proc/net/snmp").splitlines()
        rows = {names.split()[0]: dict(zip(names.split(), values.split())) for names, values in zip(lines[::2], lines[1::2])}
        return int(rows["Tcp:"]["ActiveOpens"]) + int(rows["Ip:"]["OutNoRoutes"])

    def exec(self, namespace, *command):
        return run("ip", "netns", "exec", namespace, *command)

    def start(self, namespace, command, log, own_sysfs=True):
        """Starts a process in a namespace; it ends with the LAN at the latest, and what it mounts goes with it. A sysfs of the namespace's own
        hides the cgroups."""
        enter = ["ip", "netns", "exec", namespace] if own_sysfs else ["nsenter", f"--net=/run/netns/{namespace}", "unshare", "--mount"]
        with open(log, "wb") as out:
            # These replace themselves by the command, so the id is the command's own.
            process = subprocess.Popen(
                [*enter, *command], stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the lab; it ends the processes in order
                env={**os.environ, **self.environment},
            )
        self.processes.append(process)
        return process

    def addresses_of(self, mac):
        """Every address the DHCP server gave this MAC: firmware and OS often get different ones."""
        log = (self.directory / "dhcp.log").read_text(errors="replace")
        return set(re.findall(rf"DHCPACK\(eth0\) (\S+) {mac}", log))


def stop(process, timeout=5):
    """Ends a process that we started, by force when it does not listen."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGCONT)  # one that is frozen hears nothing else
    process.terminate()
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def remove_namespace(namespace):
    if not Path(f"/run/netns/{namespace}").exists():
        return
    for pid in subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True).stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)


def clear_leftovers():
    """Removes the namespaces and sockets of labs whose process is gone."""
    for path in Path("/run/netns").glob("lab*-*"):
        match = re.fullmatch(r"lab(\d+)n\d+-(sw|dhcp|srv)", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            remove_namespace(path.name)
    for path in Path("/run").glob("lab*n*"):
        match = re.fullmatch(r"lab(\d+)n\d+", path.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            shutil.rmtree(path, ignore_errors=True)


def need_root():
    if os.geteuid() != 0:
        raise SystemExit("tests/lab: needs root (network namespaces); run it with sudo")
    for tool in ("ip", "dnsmasq", "docker-registry", "qemu-system-x86_64"):
        if not shutil.which(tool):
            raise SystemExit(f"tests/lab: {tool} is missing; run tests/packages lab")
