"""The container image in a real dockerd, started with the command lines that people know from the original."""

import signal
import subprocess
from pathlib import Path

from lan import run
from product import OFFLINE, Product
from sources import start_dockerd

ROOT = Path(__file__).resolve().parents[2]
ARCHIVE = ROOT / "target/image/auroraboot-container-amd64.tar"
USER = 1000  # who made the directory that is mounted


class Container(Product):
    """The product as `docker run --rm -ti --net host … auroraboot --set … --cloud-config /config.yaml`."""

    def start(self, lan, settings, config, words):
        if not ARCHIVE.exists():
            raise RuntimeError(f"{ARCHIVE} is missing; build it: cargo run -p image -- --container")
        self.docker = ["docker", "--host", start_dockerd(lan, self.directory)]
        run(*self.docker, "load", "--quiet", "--input", str(ARCHIVE))
        self.write_iso(settings, config)
        flags = [word for setting in settings for word in ("--set", setting)]
        command = [
            *self.docker, "run", "--rm", "-ti", "--net", "host", "-v", f"{config}:/config.yaml", "auroraboot", *words, *flags, "--cloud-config", "/config.yaml",
        ]
        # -t wants a terminal on this side as well.
        return lan.start(lan.server, ["script", "--quiet", "--return", "--flush", "--command", quoted(command), "/dev/null"], self.log_path, own_sysfs=False)

    def write_iso(self, settings, config):
        """First the other half: the ISO, into a directory of an ordinary user's, with few capabilities and a root that cannot be written."""
        build = self.directory / "state"
        build.mkdir()
        build.chmod(0o755)
        run("chown", f"{USER}:{USER}", str(build))
        flags = [word for setting in [*settings, *OFFLINE] for word in ("--set", setting)]
        fences = ["--cap-drop=ALL", "--cap-add=NET_RAW", "--cap-add=NET_BIND_SERVICE", "--cap-add=DAC_OVERRIDE", "--read-only", "--security-opt=no-new-privileges"]
        run(
            *self.docker, "run", "--rm", "--net", "host", *fences, "-v", f"{config}:/config.yaml", "-v", f"{build}:/tmp/auroraboot", "auroraboot",
            *flags, "--cloud-config", "/config.yaml",
        )

    def interrupt(self, timeout=20):
        """Ctrl-C, which reaches process 1 of the container."""
        container = subprocess.run([*self.docker, "ps", "--quiet"], capture_output=True, text=True).stdout.split()
        if len(container) != 1:
            return f"docker ps shows {len(container)} containers"
        run(*self.docker, "kill", "--signal", "INT", container[0])
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            return f"still running {timeout} s after SIGINT"
        return None if status == 0 else f"exit status {status} after SIGINT"


def quoted(words):
    return " ".join("'" + str(word).replace("'", "'\\''") + "'" for word in words)
