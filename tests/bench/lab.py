"""What the rows of tests/bench/run are made of: figures, the two namespaces, and the processes in them."""
import contextlib
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TRIPLE, FOREIGN = "x86_64-unknown-linux-musl", "aarch64-unknown-linux-musl"
BINARY = TARGET / TRIPLE / "release/auroraboot"
BENCH = TARGET / TRIPLE / "release/auroraboot-bench"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "auroraboot-bench"

NET, SERVER, CLIENT = "10.98.0.0", "10.98.0.1", "10.98.0.2"
REGISTRY = "127.0.0.1:5000"  # in the server's namespace, where nothing else is
IMAGE = f"{REGISTRY}/bench:latest"


# ── figures ──────────────────────────────────────────────────────────────────────────────────────────────────────


class Series:
    """The figures of all rounds for one thing."""

    def __init__(self, unit, digits=2):
        self.unit, self.digits, self.values = unit, digits, []

    def add(self, value):
        self.values.append(float(value))

    @property
    def median(self):
        return statistics.median(self.values)

    def __truediv__(self, peer):
        return self.median / peer.median

    def __str__(self):
        low, middle, high = (f"{value:.{self.digits}f}" for value in (min(self.values), self.median, max(self.values)))
        return f"{middle} {self.unit}".strip() + (f" ({low}–{high})" if len(self.values) > 1 else "")


class Table:
    HEAD = ("what", "peer", "auroraboot", "ratio", "wanted", "met")

    def __init__(self):
        self.lines, self.raw = [], []

    def add(self, what, ours, wanted="", met=None, peer=None, peer_name=""):
        """`ours` and `peer` are series, `met` is whether ours is as wanted."""
        ratio = ours / peer if peer is not None and peer.median > 0 else None
        shown = f"{peer_name} {peer}".strip() if peer is not None else ""
        verdict = "" if met is None else "yes" if met else "**no**"
        self.lines.append((what, shown, str(ours), "" if ratio is None else f"{ratio:.2f}×", wanted, verdict))
        self.raw.append({"what": what, "unit": ours.unit, "auroraboot": ours.values, peer_name or "peer": peer.values if peer else []})
        note(f"  {what}: {shown + ', auroraboot ' if shown else ''}{ours}" + (f", {ratio:.2f}x" if ratio is not None else ""))

    def without(self, what, why):
        """A line that has no figure here."""
        self.lines.append((what, "", why, "", "", ""))
        note(f"  {what}: {why}")

    def markdown(self):
        lines = [self.HEAD, ("---",) * len(self.HEAD), *self.lines]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)


class Cost:
    """What commands, run one after the other, took together."""

    def __init__(self):
        self.wall = self.cpu = self.peak_mb = self.written_mb = 0.0
        self.said = ""

    def add(self, wall, usage, written):
        self.wall += wall
        self.cpu += usage.ru_utime + usage.ru_stime
        self.peak_mb = max(self.peak_mb, usage.ru_maxrss / 1024)
        self.written_mb += written / 1e6


def note(text):
    print(text, file=sys.stderr, flush=True)


def number(pattern, text):
    """The number that the pattern's group finds."""
    match = re.search(pattern, text)
    if not match:
        raise RuntimeError(f"no {pattern!r} in {text!r}")
    return float(match[1])


def rss_mb(pid):
    return number(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()) / 1024


def written(pid):
    """Bytes that an ended process, not yet waited for, and its children wrote: the larger of the kernel's two accounts.

    `write_bytes` has the pages that were to go to a disk, those of files that were deleted again among them, but a page that is changed
    twice before it goes there once. `wchar` has all that was given to write calls, but not what was written through a mapping.
    """
    counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return max(int(counts["write_bytes"]), int(counts["wchar"]))


def disk_mb(directory):
    """Bytes on disk below a directory, and how many files and folders these are."""
    entries = [os.lstat(os.path.join(at, name)) for at, folders, names in os.walk(directory) for name in folders + names]
    return sum(entry.st_blocks * 512 for entry in entries) / 1e6, len(entries)


def wait_until(what, ready, process, seconds=60):
    """Until `ready()`; a process that ended, or did not manage in time, is an error."""
    deadline = time.monotonic() + seconds
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{what}: ended with {process.returncode}" if process.returncode is not None else f"{what}: not in {seconds} s")
        time.sleep(0.01)


# ── where it runs ────────────────────────────────────────────────────────────────────────────────────────────────


class Lab:
    """Two namespaces, a work directory, and the processes in them; all gone after `with`."""

    def __init__(self):
        self.server, self.client = f"ab-bench-{os.getpid()}-srv", f"ab-bench-{os.getpid()}-cli"
        self.work = CACHE / f"work-{os.getpid()}"
        self.processes, self.logs = [], 0

    def __enter__(self):
        CACHE.mkdir(parents=True, exist_ok=True)
        clear_leftovers()
        self.work.mkdir()
        for namespace in (self.server, self.client):
            subprocess.run(["ip", "netns", "add", namespace], check=True)
        ip = lambda namespace, lines: subprocess.run(["ip", "-n", namespace, "-batch", "-"], input=lines, text=True, check=True)
        ip(self.server, f"link add eth0 type veth peer name eth0 netns {self.client}\naddr add {SERVER}/24 brd + dev eth0\n")
        ip(self.client, f"addr add {CLIENT}/24 brd + dev eth0\n")
        for namespace in (self.server, self.client):
            ip(namespace, "link set lo up\nlink set eth0 up\n")
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            stop(process)
        for namespace in (self.server, self.client):
            subprocess.run(["ip", "netns", "del", namespace], stderr=subprocess.DEVNULL)
        shutil.rmtree(self.work, ignore_errors=True)

    def start(self, namespace, *command, **options):
        """Starts a process; what it says goes to its `log`. `ip netns exec` replaces itself, so the id is the command's own."""
        self.logs += 1
        log = self.work / f"{self.logs}.log"
        with open(log, "wb") as out:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT, "preexec_fn": many_files} | options
            process = subprocess.Popen(["ip", "netns", "exec", namespace, *map(str, command)], start_new_session=True, **options)
        process.log = log
        self.processes.append(process)
        return process

    @contextlib.contextmanager
    def serving(self, ready, *command):
        """A server in the server's namespace for as long as the block lasts; it is up when `ready(process)`."""
        process = self.start(self.server, *command)
        try:
            wait_until(command[0], lambda: ready(process), process)
            yield process
        except RuntimeError as error:
            raise RuntimeError(f"{error}; it said:\n{process.log.read_text(errors='replace')[-2000:]}") from error
        finally:
            stop(process)

    def costs(self, *commands, namespace=None):
        """Runs commands to their ends, in the server's namespace if no other is named."""
        cost = Cost()
        for command in commands:
            started = time.monotonic()
            process = self.start(namespace or self.server, *command)
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            wall, bytes_written = time.monotonic() - started, written(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            cost.add(wall, usage, bytes_written)
            cost.said = process.log.read_text(errors="replace")
            if process.returncode != 0:
                raise RuntimeError(f"{command[0]} failed:\n{cost.said[-2000:]}")
        return cost

    def output(self, namespace, *command):
        """Runs a command to its end; what it said."""
        process = self.start(namespace, *command)
        said = lambda: process.log.read_text(errors="replace")
        if process.wait(600) != 0:
            raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{said()[-2000:]}")
        return said()


def many_files():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))


def stop(process):
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def clear_leftovers():
    """Of runs that were killed: nobody has their process id any more."""
    dead = lambda pid: not Path(f"/proc/{pid}").exists()
    for path in Path("/run/netns").glob("ab-bench-*-*"):
        if dead(path.name.split("-")[2]):
            subprocess.run(["ip", "netns", "del", path.name])
    for path in CACHE.glob("*-*"):
        if path.name.startswith(("work-", "new-")) and dead(path.name.split("-")[1]):
            shutil.rmtree(path, ignore_errors=True)


def listens(port, kind="tcp"):
    """Whether a process's namespace has a socket on the port (TCP: one that listens)."""
    state = "0A" if kind == "tcp" else "07"
    pattern = re.compile(rf"\d+: [0-9A-F]{{8}}:{port:04X} [0-9A-F]{{8}}:[0-9A-F]{{4}} {state} ")
    return lambda process: bool(pattern.search(Path(f"/proc/{process.pid}/net/{kind}").read_text()))


def says(words):
    return lambda process: words in process.log.read_text(errors="replace")


# ── what runs ────────────────────────────────────────────────────────────────────────────────────────────────────


def product(state, *settings, image=IMAGE, serve=False):
    """The product's command for `image`; it serves machines, or makes its files and ends."""
    pairs = [f"state_dir={state}", "allow-insecure-registries=true", *settings]
    pairs += [f"container_image={image}"] * bool(image) + ["disable_netboot=true", "disable_http_server=true"] * (not serve)
    return [BINARY, *(word for pair in pairs for word in ("--set", pair))]


def write_random(path, megabytes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(1 << 20))
    return path
