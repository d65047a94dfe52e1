"""What happens to the product before it serves, and while machines boot: earlier runs, networks that fail, kills, a tag that moves.

Whatever these leave behind must be good: the run that serves boots machines like any other.
"""

import hashlib
import io
import random
import shutil
import signal
import subprocess
import tarfile
import time

from lan import run, wait_until
from product import OFFLINE, Product

# Kills per source: CI's, and those of --all.
KILLS = (3, 20)


class Scenario:
    """The plain one: nothing happens. One of these goes with one run of the product that serves."""

    source = "registry"
    nodes = 1
    ready_s = 240  # within which the product serves

    def prepare(self, _lan, settings, _directory, _everything):
        """Goes before; returns the settings for the run that serves."""
        return settings

    def boot(self, _lan, _product, nodes, image):
        """Boots the machines to their end; returns the image that each one must report."""
        for node in nodes:
            node.start()
        for node in nodes:
            node.join()
        return [image] * len(nodes)


class Warm(Scenario):
    """An earlier run has cached everything, and the registry hangs: the next one serves without waiting for it."""

    # It takes a tenth of that. Less than any of the product's timeouts for a registry, after which it would serve as well.
    ready_s = 5

    def prepare(self, lan, settings, directory, _everything):
        Product(lan, [*settings, *OFFLINE], directory).wait_done()
        lan.freeze_registry()
        return settings


class Moved(Scenario):
    """The tag moves to another image while a machine boots: that one ends with what it began with, the next one gets the other."""

    nodes = 2

    def prepare(self, lan, settings, directory, _everything):
        Product(lan, [*settings, *OFFLINE], directory).wait_done()
        name = settings[0].removeprefix("container_image=")
        tag = name.rsplit(":", 1)[1]
        layout = f"{directory}/moved:{tag}"
        lan.exec(lan.server, "skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{layout}")
        add_layer(layout, directory, "etc/kairos-release", b"IMAGE_TAG=moved\n")
        lan.copy_registry()
        lan.exec(lan.server, "skopeo", "copy", "--quiet", "--dest-tls-verify=false", f"oci:{layout}", f"docker://{name}")
        # It tells about the move only when the first machine has begun.
        lan.freeze_registry()
        return settings

    def boot(self, lan, product, nodes, image):
        first, second = nodes
        before = digest(product.directory / "state")
        first.start()
        wait_until("the first machine has its kernel", lambda: 'Sent file "kernel"' in product.log(), first.timeout, product.process)
        lan.thaw_registry()
        wait_until("the moved tag is served", lambda: "is another one now: machines" in product.log(), 60, product.process)
        if 'Sent file "other-0"' in product.log():
            raise RuntimeError("the first machine had everything before the tag moved: this run proves nothing")
        product.custom_iso()
        if digest(product.directory / "state") == before:
            raise RuntimeError("the ISO is still that of the image before the move")
        second.start()
        for node in nodes:
            node.join()
        return [image, "moved"]


class Offline(Scenario):
    """A pulled state directory is carried to a site without a registry, where nothing so much as tries to connect."""

    def prepare(self, lan, settings, directory, _everything):
        Product(lan, settings, directory, command="pull").wait_done()
        lan.stop_registry()
        state, carried = directory / "state", directory / "carried"
        subprocess.run(["cp", "-r", str(state), str(carried)], check=True)
        carried.chmod(0o700)
        shutil.rmtree(state)
        carried.rename(state)
        self.connections = lan.connections_begun()
        return [*settings, "offline=true"]

    def boot(self, lan, product, nodes, image):
        images = super().boot(lan, product, nodes, image)
        tried = lan.connections_begun() - self.connections
        if tried:
            raise RuntimeError(f"offline, it has tried {tried} times to connect to somebody")
        return images


class Killed(Scenario):
    """kill -9 at random moments of a run: each time the next one makes what an undisturbed one makes."""

    def prepare(self, lan, settings, directory, everything):
        started = time.monotonic()
        Product(lan, [*settings, *OFFLINE], directory).wait_done()
        took = time.monotonic() - started
        state = directory / "state"
        wanted = digest(state)
        seed = random.randrange(1 << 32)
        print(f"     kills at random moments of {took:.1f} s, seed {seed}", flush=True)
        moments = random.Random(seed)
        for number in range(KILLS[everything]):
            shutil.rmtree(state)
            # Sometimes what comes after a kill is killed, too.
            killed_after = [self.kill(lan, settings, directory, moments.uniform(0, took)) for _ in range(moments.choice((1, 1, 2)))]
            # Of the last one the run that serves makes the best.
            if number + 1 < KILLS[everything]:
                after = Product(lan, [*settings, *OFFLINE], directory)
                after.wait_done()
                after.custom_iso()
                if digest(state) != wanted:
                    raise RuntimeError(f"killed after {killed_after} s (number {number}, seed {seed}), it makes another ISO than undisturbed")
        return settings

    @staticmethod
    def kill(lan, settings, directory, moment):
        victim = Product(lan, [*settings, *OFFLINE], directory)
        try:
            victim.process.wait(moment)
        except subprocess.TimeoutExpired:
            victim.process.send_signal(signal.SIGKILL)
            victim.process.wait()
        return round(moment, 2)


class KilledDocker(Killed):
    """The same, of a run that exports its image from a daemon."""

    source = "docker"


class KilledArchive(Killed):
    """The same, of a run that spools its image out of a compressed archive."""

    source = "docker-archive-gzip"


def add_layer(layout, directory, path, data):
    """Adds a layer with one file to the image of an OCI layout. The layers that it has may be of any compression."""
    layer = directory / "added.tar"
    with tarfile.open(layer, "w") as tar:
        info = tarfile.TarInfo(path)
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
    run("umoci", "raw", "add-layer", "--image", layout, str(layer))


def digest(state):
    return hashlib.sha256((state / "iso/kairos.iso").read_bytes()).hexdigest()


SCENARIOS = {
    "warm": Warm, "moved": Moved, "offline": Offline, "killed": Killed, "killed-docker": KilledDocker, "killed-archive": KilledArchive,
}
