"""What happens to the product before it serves: earlier runs, networks that fail, kills.

Each function does that with a state directory, and returns the settings for the run that serves. That run boots a machine like
any other, so whatever these leave behind must be good.
"""

import hashlib
import random
import shutil
import signal
import subprocess
import time

from product import OFFLINE, Product

# Kills per source: CI's, and those of --all.
KILLS = (3, 20)


def warm(lan, settings, directory, _everything):
    """An earlier run has cached everything, and the registry hangs: the next one serves without waiting for it."""
    Product(lan, [*settings, *OFFLINE], directory).wait_done()
    lan.freeze_registry()
    return settings


def offline(lan, settings, directory, _everything):
    """A pulled state directory is carried to a site without a registry."""
    Product(lan, settings, directory, command="pull").wait_done()
    lan.stop_registry()
    state, carried = directory / "state", directory / "carried"
    subprocess.run(["cp", "-r", str(state), str(carried)], check=True)
    carried.chmod(0o700)
    shutil.rmtree(state)
    carried.rename(state)
    return [*settings, "offline=true"]


def killed(lan, settings, directory, everything):
    """kill -9 at random moments of a pull: each time the next run makes what an undisturbed one makes."""
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
        victim = Product(lan, [*settings, *OFFLINE], directory)
        moment = moments.uniform(0, took)
        try:
            victim.process.wait(moment)
        except subprocess.TimeoutExpired:
            victim.process.send_signal(signal.SIGKILL)
            victim.process.wait()
        # Of the last one the run that serves makes the best.
        if number + 1 < KILLS[everything]:
            after = Product(lan, [*settings, *OFFLINE], directory)
            after.wait_done()
            after.custom_iso()
            if digest(state) != wanted:
                raise RuntimeError(f"killed after {moment:.2f} s (number {number}, seed {seed}), it makes another ISO than undisturbed")
    return settings


def digest(state):
    return hashlib.sha256((state / "iso/kairos.iso").read_bytes()).hexdigest()


# Name of the case: what is done, and with an image from where.
SCENARIOS = {
    "warm": (warm, "registry"),
    "offline": (offline, "registry"),
    "killed": (killed, "registry"),
    "killed-docker": (killed, "docker"),
    "killed-archive": (killed, "docker-archive-gzip"),
}
